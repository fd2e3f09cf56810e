//! Which keys of the handshake auth any rule uses. The others need not be kept for the life of a session.

use crate::rules::config::{MessageTemplate, OnRuleConfig, RoomRuleConfig};
use serde_json::Value;
use std::collections::BTreeSet;

/// The keys that placeholders like `{auth.x}` name.
#[derive(Debug, Default)]
pub struct AuthKeys {
    /// A rule uses `{auth}`: all of it.
    all: bool,
    named: BTreeSet<Box<str>>,
}

impl AuthKeys {
    pub(super) fn of(rooms: &[RoomRuleConfig], on: &[OnRuleConfig]) -> Self {
        let mut keys = Self::default();
        for message in rooms.iter().flat_map(|rule| [&rule.joined, &rule.left]).flatten() {
            keys.message(message);
        }
        for rule in on {
            rule.join.iter().chain(&rule.leave).for_each(|text| keys.text(text));
            [&rule.reply, &rule.on_error].into_iter().flatten().for_each(|message| keys.message(message));
            for emit in &rule.emit {
                keys.text(&emit.room);
                keys.message(&emit.message);
            }
            rule.ack.iter().chain(&rule.ack_error).flatten().for_each(|value| keys.value(value));
        }
        keys
    }

    /// Whether a rule may use the value of this key.
    pub fn contains(&self, key: &str) -> bool {
        self.all || self.named.contains(key)
    }

    fn message(&mut self, message: &MessageTemplate) {
        self.text(&message.event);
        message.args.iter().for_each(|value| self.value(value));
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => items.iter().for_each(|item| self.value(item)),
            Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                self.text(key);
                self.value(value);
            }),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        for placeholder in text.split('{').skip(1) {
            let name = placeholder.split('}').next().unwrap_or_default();
            let mut steps = name.split('.');
            if steps.next() == Some("auth") {
                match steps.next() {
                    Some(key) => drop(self.named.insert(key.into())),
                    None => self.all = true,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_placeholder_names_is_used() {
        let mut keys = AuthKeys::default();
        keys.value(
            &serde_json::json!([{ "a": ["x {user} {auth.tenant.id}"], "{auth.key}": 1 }, "{authority} auth.no"]),
        );
        assert_eq!(["tenant", "key", "id", "no"].map(|key| keys.contains(key)), [true, true, false, false]);
        keys.text("{auth}");
        assert!(keys.contains("anything"));
    }
}
