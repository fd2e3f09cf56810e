//! The rules of the demo's chat, as `[[rooms]]` and `[[on]]` in a `roomcast.toml`.

use crate::rules::config::{EmitTemplate, JoinPolicy, MessageTemplate, OnRuleConfig, RoomRuleConfig};
use serde_json::{Value, json};

/// The name that clients use for the room of the page, which everybody joins at connect.
pub(super) const ROOM: &str = "lobby";

/// Its name for publishers.
pub(super) fn room() -> String {
    format!("room:{ROOM}")
}

/// A room for each user, the lobby, and any `room:…` on request, with who is in it. Everything else is refused.
pub(super) fn rooms() -> Vec<RoomRuleConfig> {
    let rule = |pattern: &str, join| RoomRuleConfig {
        pattern: pattern.to_owned(),
        join,
        presence: false,
        joined: None,
        left: None,
    };
    let announced = |event: &str| Some(MessageTemplate { event: event.to_owned(), args: vec![json!("{user}")] });
    let with_members =
        |rule| RoomRuleConfig { presence: true, joined: announced("joined"), left: announced("left"), ..rule };
    vec![
        rule("user:{user}", JoinPolicy::Auto),
        with_members(rule(&room(), JoinPolicy::Auto)),
        with_members(rule("room:<name>", JoinPolicy::Allow)),
    ]
}

/// Messages and typing, and how a client of another room joins and leaves it.
pub(super) fn on() -> Vec<OnRuleConfig> {
    let there = "room:{0.room}";
    vec![
        answered(OnRuleConfig { join: vec![there.into()], ..event("join") }),
        answered(OnRuleConfig { leave: vec![there.into()], ..event("leave") }),
        answered(OnRuleConfig {
            emit: vec![EmitTemplate {
                include_caller: true,
                ..to(there, "message", json!({ "user": "{user}", "name": "{claims.name}", "text": "{0.text}" }))
            }],
            ..event("message")
        }),
        OnRuleConfig {
            emit: vec![EmitTemplate {
                volatile: true,
                ..to(there, "typing", json!({ "user": "{user}", "name": "{claims.name}", "typing": "{0.typing}" }))
            }],
            ..event("typing")
        },
    ]
}

/// A rule that does nothing yet.
fn event(name: &str) -> OnRuleConfig {
    OnRuleConfig {
        namespace: "/".into(),
        event: name.to_owned(),
        join: Vec::new(),
        leave: Vec::new(),
        reply: None,
        emit: Vec::new(),
        ack: None,
        on_error: None,
        ack_error: None,
        forward: false,
    }
}

/// The same, with an acknowledgement.
fn answered(rule: OnRuleConfig) -> OnRuleConfig {
    let failed = json!({ "ok": false, "error": "{error}" });
    OnRuleConfig { ack: Some(vec![json!({ "ok": true })]), ack_error: Some(vec![failed]), ..rule }
}

/// An event with one argument to a room, for everybody but the caller.
fn to(room: &str, event: &str, arg: Value) -> EmitTemplate {
    EmitTemplate {
        room: room.to_owned(),
        message: MessageTemplate { event: event.to_owned(), args: vec![arg] },
        volatile: false,
        include_caller: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::args::Args;
    use crate::rules::{Call, Caller, Rules, UserRef, Verdict};

    #[test]
    fn they_compile_and_do_what_the_page_expects() {
        let rules = Rules::compile(&rooms(), &on()).unwrap();
        let nothing = |_: &str| false;
        let caller = Caller {
            user: Some(UserRef { text: "ada", is_number: false }),
            claims: r#"{"sub":"ada","name":"Ada"}"#,
            session: "s1",
            namespace: "/",
            auth: "{}",
            granted: &nothing,
        };
        let auto = rules.auto_rooms(&caller).unwrap();
        assert_eq!(auto.iter().map(|room| &**room).collect::<Vec<_>>(), ["user:ada", "room:lobby"]);
        assert!(matches!(rules.room("room:other", &caller), Verdict::Allow(..)));
        for refused in ["user:grace", "other", "room:a:b"] {
            assert!(matches!(rules.room(refused, &caller), Verdict::NoRule), "{refused}");
        }

        let args = Args::list(r#"[{"room":"lobby","text":"hi <b>"}]"#).unwrap();
        let call = Call { caller: &caller, args: &args };
        let rule = rules.on("/", "message").unwrap();
        let sent = rule.emits(&call).unwrap();
        assert_eq!((&*sent[0].room, &*sent[0].message.event), ("room:lobby", "message"));
        assert!(sent[0].include_caller && !sent[0].volatile);
        assert_eq!(sent[0].message.args.as_array(), r#"[{"name":"Ada","text":"hi <b>","user":"ada"}]"#);
        assert_eq!(rule.ack(&call).unwrap().unwrap().as_array(), r#"[{"ok":true}]"#);

        let typing = Args::list(r#"[{"room":"lobby","typing":true}]"#).unwrap();
        let sent = rules.on("/", "typing").unwrap().emits(&Call { args: &typing, ..call }).unwrap();
        assert!(sent[0].volatile && !sent[0].include_caller);
        assert_eq!(sent[0].message.args.as_array(), r#"[{"name":"Ada","typing":true,"user":"ada"}]"#);
        let (lobby, captures) = rules.presence("room:lobby", "ada").unwrap();
        let joined = lobby.joined(&caller, &captures).unwrap().unwrap();
        assert_eq!((&*joined.event, joined.args.as_array()), ("joined", r#"["ada"]"#));
    }
}
