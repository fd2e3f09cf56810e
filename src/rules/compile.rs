//! From the tables of the file to rules, or the list of all mistakes.

use crate::model::draft::check_event_name;
use crate::rules::config::{JoinPolicy, MessageTemplate, OnRuleConfig, RoomRuleConfig};
use crate::rules::message::{ArgsTemplate, EmitRule, MessageRule};
use crate::rules::pattern::Pattern;
use crate::rules::placeholder::Scope;
use crate::rules::template::RoomTemplate;
use crate::rules::{AuthKeys, OnRule, RoomRule, Rules};

/// What is wrong with a `[[rooms]]` or `[[on]]` table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[[{table}]] number {}, `{key}`: {message}", index + 1)]
pub struct RuleMistake {
    /// `rooms` or `on`.
    pub table: &'static str,
    /// The index of the table, from 0.
    pub index: usize,
    /// The key in the table.
    pub key: &'static str,
    /// What is wrong and what to do.
    pub message: String,
}

pub(super) fn compile(rooms: &[RoomRuleConfig], on: &[OnRuleConfig]) -> Result<Rules, Vec<RuleMistake>> {
    let mut mistakes = Vec::new();
    let mut rules = Rules { auth_keys: AuthKeys::of(rooms, on), ..Rules::default() };
    for (index, config) in rooms.iter().enumerate() {
        let mut table = Table { name: "rooms", index, mistakes: &mut mistakes };
        if let Some(first) = rooms[..index].iter().position(|earlier| earlier.pattern == config.pattern) {
            table.mistake("match", format!("the same as in number {}, which always comes first", first + 1));
        }
        rules.rooms.push(table.room_rule(config));
    }
    for (index, config) in on.iter().enumerate() {
        let mut table = Table { name: "on", index, mistakes: &mut mistakes };
        let rule = table.on_rule(config);
        let events = rules.on.entry(config.namespace.as_str().into()).or_default();
        if events.insert(config.event.as_str().into(), rule).is_some() {
            let message = format!("\"{}\" in {} has a rule already; put both into one", config.event, config.namespace);
            table.mistake("event", message);
        }
    }
    match mistakes.is_empty() {
        true => Ok(rules),
        false => Err(mistakes),
    }
}

struct Table<'a> {
    name: &'static str,
    index: usize,
    mistakes: &'a mut Vec<RuleMistake>,
}

impl Table<'_> {
    fn mistake(&mut self, key: &'static str, message: String) {
        self.mistakes.push(RuleMistake { table: self.name, index: self.index, key, message });
    }

    /// Compiles the value of one key and adds its mistakes under that key.
    fn key<T>(&mut self, key: &'static str, compile: impl FnOnce(&mut Vec<String>) -> T) -> T {
        let mut messages = Vec::new();
        let compiled = compile(&mut messages);
        messages.into_iter().for_each(|message| self.mistake(key, message));
        compiled
    }

    fn message(
        &mut self,
        key: &'static str,
        message: &Option<MessageTemplate>,
        scope: Scope<'_>,
    ) -> Option<MessageRule> {
        message.as_ref().map(|message| self.key(key, |mistakes| MessageRule::compile(message, scope, mistakes)))
    }

    fn room_rule(&mut self, config: &RoomRuleConfig) -> RoomRule {
        let pattern = self.key("match", |mistakes| Pattern::compile(&config.pattern, mistakes));
        if config.join == JoinPolicy::Auto && !pattern.is_determined() {
            let why =
                "a room joined at connect must follow from the token alone: no `<name>`, no `*`, or another `join`";
            self.mistake("match", why.into());
        }
        let scope = Scope::presence(&pattern.captures);
        let joined = self.message("joined", &config.joined, scope);
        let left = self.message("left", &config.left, scope);
        let presence = config.presence || joined.is_some() || left.is_some();
        let (number, text, join) = (self.index + 1, &config.pattern, config.join.label());
        let name = format!("[[rooms]] {number}: match = \"{text}\", join = \"{join}\"").into();
        RoomRule { name, join: config.join, presence, joined, left, pattern }
    }

    fn on_rule(&mut self, config: &OnRuleConfig) -> OnRule {
        if !config.namespace.starts_with('/') {
            self.mistake("namespace", format!("\"{}\" must start with \"/\"", config.namespace));
        }
        let scope = match config.event.as_str() {
            "connection" => Scope::CONNECTION,
            _ => Scope::EVENT,
        };
        self.check_event(config);
        let room = |room: &String, mistakes: &mut Vec<String>| RoomTemplate::compile(room, scope, mistakes);
        OnRule {
            forward: config.forward,
            join: self.key("join", |mistakes| config.join.iter().map(|text| room(text, mistakes)).collect()),
            leave: self.key("leave", |mistakes| config.leave.iter().map(|text| room(text, mistakes)).collect()),
            reply: self.message("reply", &config.reply, scope),
            emit: self.key("emit", |mistakes| {
                config.emit.iter().map(|emit| EmitRule::compile(emit, scope, mistakes)).collect()
            }),
            ack: config.ack.as_ref().map(|args| self.key("ack", |m| ArgsTemplate::compile(args, scope, m))),
            on_error: self.message("on_error", &config.on_error, scope.with_error()),
            ack_error: config
                .ack_error
                .as_ref()
                .map(|args| self.key("ack_error", |m| ArgsTemplate::compile(args, scope.with_error(), m))),
        }
    }

    fn check_event(&mut self, config: &OnRuleConfig) {
        let used: [(&'static str, bool); 5] = [
            ("ack", config.ack.is_some()),
            ("ack_error", config.ack_error.is_some()),
            ("join", !config.join.is_empty()),
            ("reply", config.reply.is_some()),
            ("on_error", config.on_error.is_some()),
        ];
        let useless = match config.event.as_str() {
            "connection" => &used[..2],
            "disconnect" => &used[..],
            "connect" => {
                return self.mistake("event", "the event of a connecting client is called `connection`".into());
            }
            name => {
                if let Err(why) = check_event_name(name, usize::MAX) {
                    self.mistake("event", why.to_string());
                }
                return;
            }
        };
        for (key, _) in useless.iter().filter(|(_, used)| *used) {
            self.mistake(key, format!("does nothing at `{}`: nobody waits for it", config.event));
        }
    }
}
