//! The contract's sentences on rules, one by one; and the tables of five real products.

mod contract;
mod mistakes;
mod names;
mod rights;
mod systems;

use crate::model::args::Args;
use crate::rules::config::{EmitTemplate, JoinPolicy, MessageTemplate, OnRuleConfig, RoomRuleConfig};
use crate::rules::{Call, Caller, Message, Problem, Rules, UserRef};
use serde_json::Value;

fn room(pattern: &str, join: JoinPolicy) -> RoomRuleConfig {
    RoomRuleConfig { pattern: pattern.into(), join, presence: false, joined: None, left: None }
}

fn on(namespace: &str, event: &str) -> OnRuleConfig {
    OnRuleConfig {
        namespace: namespace.into(),
        event: event.into(),
        join: vec![],
        leave: vec![],
        reply: None,
        emit: vec![],
        ack: None,
        on_error: None,
        ack_error: None,
        forward: false,
    }
}

fn message(event: &str, args: Value) -> MessageTemplate {
    MessageTemplate { event: event.into(), args: list(args) }
}

fn list(args: Value) -> Vec<Value> {
    args.as_array().unwrap().clone()
}

fn emit(room: &str, event: &str, args: Value) -> EmitTemplate {
    EmitTemplate { room: room.into(), message: message(event, args), volatile: false, include_caller: false }
}

fn compiled(rooms: &[RoomRuleConfig], on: &[OnRuleConfig]) -> Rules {
    Rules::compile(rooms, on).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn problem(message: &str) -> Problem<'_> {
    Problem { code: "a_code", message }
}

const NO_GRANT: &dyn Fn(&str) -> bool = &|_| false;

fn caller(user: &str) -> Caller<'_> {
    Caller {
        user: Some(UserRef { text: user, is_number: false }),
        claims: "{}",
        session: "s1",
        namespace: "/chat",
        auth: "",
        granted: NO_GRANT,
    }
}

fn numeric(user: &str) -> Caller<'_> {
    Caller { user: Some(UserRef { text: user, is_number: true }), ..caller("") }
}

fn anonymous() -> Caller<'static> {
    Caller { user: None, ..caller("") }
}

fn args(json: &str) -> Args {
    Args::list(json).unwrap()
}

/// Runs `f` with one rule for the event `e`.
fn with_rule<T>(
    rule: OnRuleConfig,
    caller: &Caller<'_>,
    json: &str,
    f: impl FnOnce(&crate::rules::OnRule, &Call<'_>) -> T,
) -> T {
    let rules = compiled(&[], &[rule]);
    f(rules.on("/", "e").unwrap(), &Call { caller, args: &args(json) })
}

/// What an acknowledgement template makes of an event, or the error's text.
fn acked(template: Value, caller: &Caller<'_>, json: &str) -> Result<String, String> {
    let rule = OnRuleConfig { ack: Some(list(template)), ..on("/", "e") };
    with_rule(rule, caller, json, |rule, call| {
        let ack = rule.ack(call).map_err(|error| error.to_string())?.unwrap();
        assert_eq!(Args::list(ack.as_array()).as_ref(), Ok(&ack), "count and text agree");
        Ok(ack.as_array().to_owned())
    })
}

/// The rooms that a join template makes of an event, or the error's code.
fn joined(template: &str, caller: &Caller<'_>, json: &str) -> Result<String, &'static str> {
    let rule = OnRuleConfig { join: vec![template.into()], ..on("/", "e") };
    with_rule(rule, caller, json, |rule, call| {
        rule.joins(call).map(|rooms| rooms[0].to_string()).map_err(|error| error.code())
    })
}

fn shown(message: Option<Message>) -> String {
    message.map_or("nothing".into(), |message| format!("{} {}", message.event, message.args.as_array()))
}
