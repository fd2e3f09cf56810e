//! What the rules allow but nobody is likely to intend: rules that never decide, joins that are always refused, events that do
//! nothing. Sans-IO.

use crate::rules::compile::RuleMistake;
use crate::rules::config::{OnRuleConfig, RoomRuleConfig};
use crate::rules::pattern::{Part, Pattern};
use crate::rules::placeholder::{Piece, Scope};
use crate::rules::template::RoomTemplate;

/// Names of rooms: what is between the `:`, and whether anything may follow.
struct Shape {
    segments: Vec<Segment>,
    open: bool,
}

#[derive(Default)]
struct Segment {
    before: String,
    value: Value,
    after: String,
}

#[derive(Default, PartialEq, Eq)]
enum Value {
    #[default]
    None,
    /// A value that may be anything.
    Any,
    /// A value of the token, by its text.
    Token(Box<str>),
}

/// Doubts about rules that compile.
pub(super) fn doubts(rooms: &[RoomRuleConfig], on: &[OnRuleConfig]) -> Vec<RuleMistake> {
    let shapes: Vec<_> =
        rooms.iter().map(|rule| Shape::of_pattern(&Pattern::compile(&rule.pattern, &mut vec![]))).collect();
    let mut found = Vec::new();
    for (index, shape) in shapes.iter().enumerate() {
        if let Some(first) = shapes[..index].iter().position(|earlier| earlier.covers(shape)) {
            let message = format!(
                "never decides: number {}, \"{}\", matches all of it and comes first; put this one before it",
                first + 1,
                rooms[first].pattern
            );
            found.push(RuleMistake { table: "rooms", index, key: "match", message });
        }
    }
    for (index, rule) in on.iter().enumerate() {
        for room in &rule.join {
            let shape = Shape::of_template(&RoomTemplate::compile(room, Scope::EVENT, &mut vec![]));
            if !shapes.iter().any(|pattern| pattern.can_match(&shape)) {
                let message = format!(
                    "\"{room}\" matches no [[rooms]] rule, so it is refused unless the token's rooms claim grants it; add a rule for it"
                );
                found.push(RuleMistake { table: "on", index, key: "join", message });
            }
        }
        if does_nothing(rule) {
            let message = format!(
                "\"{}\" does nothing: give it `join`, `leave`, `reply`, `emit`, `ack` or `forward`",
                rule.event
            );
            found.push(RuleMistake { table: "on", index, key: "event", message });
        }
    }
    found
}

fn does_nothing(rule: &OnRuleConfig) -> bool {
    let lists = [rule.join.is_empty(), rule.leave.is_empty(), rule.emit.is_empty()];
    lists.iter().all(|empty| *empty) && rule.reply.is_none() && rule.ack.is_none() && !rule.forward
}

impl Shape {
    fn of_pattern(pattern: &Pattern) -> Self {
        let segments = pattern.segments.iter().map(|segment| Segment {
            before: segment.before.clone(),
            value: match &segment.value {
                None => Value::None,
                Some(Part::Capture) => Value::Any,
                Some(Part::Slot(slot)) => Value::Token(slot.text.clone()),
            },
            after: segment.after.clone(),
        });
        Self { segments: segments.collect(), open: pattern.open }
    }

    fn of_template(template: &RoomTemplate) -> Self {
        let mut segments = vec![Segment::default()];
        let mut literal = |text: &str, value: Option<&str>| {
            for (at, part) in text.split(':').enumerate() {
                if at > 0 {
                    segments.push(Segment::default());
                }
                let Some(segment) = segments.last_mut() else { continue };
                match segment.value {
                    Value::None => segment.before.push_str(part),
                    _ => segment.after.push_str(part),
                }
            }
            if let (Some(value), Some(segment)) = (value, segments.last_mut()) {
                segment.value = Value::Token(value.into());
            }
        };
        match template {
            RoomTemplate::Fixed(room) => literal(room, None),
            RoomTemplate::Filled(pieces) => pieces.iter().for_each(|piece| match piece {
                Piece::Literal(text) => literal(text, None),
                Piece::Slot(slot) => literal("", Some(&slot.text)),
            }),
        }
        Self { segments, open: false }
    }

    /// Whether every name of the other is one of this, whoever the caller is.
    fn covers(&self, other: &Self) -> bool {
        self.compare(other, Segment::covers, |before, segment| segment.before.starts_with(before))
            && (self.open || !other.open)
    }

    /// Whether some name of the other, which is closed, may be one of this.
    fn can_match(&self, other: &Self) -> bool {
        self.compare(other, Segment::can_match, |before, segment| match segment.value {
            Value::None => segment.before.starts_with(before),
            _ => overlap(before, &segment.before, str::starts_with),
        })
    }

    /// Compares segment by segment; what `*` stands behind is compared with `start` alone.
    fn compare(
        &self,
        other: &Self,
        closed: impl Fn(&Segment, &Segment) -> bool,
        start: impl Fn(&str, &Segment) -> bool,
    ) -> bool {
        let Some(last) = self.segments.len().checked_sub(1) else { return other.segments.is_empty() };
        if self.open {
            let pairs = || self.segments[..last].iter().zip(&other.segments);
            // An open other ends where anything may follow, which no closed segment of this covers.
            let enough = other.segments.len() > last;
            return enough
                && pairs().all(|(own, others)| closed(own, others))
                && start(&self.segments[last].before, &other.segments[last]);
        }
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|(own, others)| closed(own, others))
    }
}

impl Segment {
    fn covers(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::None, Value::None) => self.before == other.before,
            (Value::None, _) => false,
            (Value::Any, Value::None) => self.has(&other.before),
            (Value::Any, _) => other.before.starts_with(&self.before) && other.after.ends_with(&self.after),
            (Value::Token(_), _) => {
                self.value == other.value && self.before == other.before && self.after == other.after
            }
        }
    }

    fn can_match(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::None, Value::None) => self.before == other.before,
            (Value::None, _) => other.has(&self.before),
            (_, Value::None) => self.has(&other.before),
            _ => {
                overlap(&self.before, &other.before, str::starts_with)
                    && overlap(&self.after, &other.after, str::ends_with)
            }
        }
    }

    /// Whether a value makes this text.
    fn has(&self, text: &str) -> bool {
        text.len() > self.before.len() + self.after.len()
            && text.starts_with(&self.before)
            && text.ends_with(&self.after)
    }
}

/// Whether one of the two begins (or ends) with the other.
fn overlap<'a>(a: &'a str, b: &'a str, has: impl Fn(&'a str, &'a str) -> bool) -> bool {
    has(a, b) || has(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Shape {
        Shape::of_pattern(&Pattern::compile(text, &mut vec![]))
    }

    fn template(text: &str) -> Shape {
        Shape::of_template(&RoomTemplate::compile(text, Scope::EVENT, &mut vec![]))
    }

    #[test]
    fn rules_that_an_earlier_one_covers() {
        for (first, second) in [
            ("*", "user:{user}"),
            ("chat:*", "chat:<id>"),
            ("chat:*", "chat:a:*"),
            ("chat:<id>", "chat:42"),
            ("chat:<id>", "chat:{user}"),
            ("chat:<id>", "chat:team-<id>"),
            ("a:<x>:<y>", "a:{claims.tenant}:b"),
        ] {
            assert!(pattern(first).covers(&pattern(second)), "{first} {second}");
            assert!(!pattern(second).covers(&pattern(first)), "{second} {first}");
        }
        for (first, second) in [
            ("user:{user}", "user:<id>"),
            ("chat:<id>", "chat:<id>:typing"),
            ("chat:<id>", "chat:*"),
            ("chat:a*", "chat:<id>"),
            ("chat:team-<id>", "chat:teams"),
            ("{claims.a}:x", "{claims.b}:x"),
        ] {
            assert!(!pattern(first).covers(&pattern(second)), "{first} {second}");
        }
    }

    #[test]
    fn joins_that_a_rule_can_allow() {
        for (rule, join) in [
            ("chat:<id>", "chat:{0.chatId}"),
            ("chat:<id>", "chat:lobby"),
            ("chat:*", "chat:{0}:typing"),
            ("*", "{0}"),
            ("user:{user}", "user:{0}"),
            ("tenant:{claims.t}:<id>", "tenant:{claims.t}:{0}"),
            ("chat:team-*", "chat:{0}"),
            ("chat:team-<id>", "chat:{0}"),
            ("lobby", "{0}"),
        ] {
            assert!(pattern(rule).can_match(&template(join)), "{rule} {join}");
        }
        for (rule, join) in [
            ("chat:<id>", "chats:{0}"),
            ("chat:<id>", "chat:{0}:typing"),
            ("chat:<id>", "chat"),
            ("chat:team-*", "chat:room-{0}"),
            ("user:{user}", "chat:{0}"),
            ("chat:<id>:*", "chat:{0}"),
        ] {
            assert!(!pattern(rule).can_match(&template(join)), "{rule} {join}");
        }
    }
}
