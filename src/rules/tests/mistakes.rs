//! Every mistake in the tables is found, all at once.

use super::*;
use serde_json::json;

fn one_room(pattern: &str) -> String {
    said(Rules::compile(&[room(pattern, JoinPolicy::Allow)], &[]))
}

fn one_on(rule: OnRuleConfig) -> String {
    said(Rules::compile(&[], &[rule]))
}

fn said(result: Result<Rules, Vec<crate::rules::RuleMistake>>) -> String {
    let mistakes = result.err().unwrap_or_default();
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn patterns() {
    for fine in [
        "a",
        "*",
        "a*",
        "a:*",
        "user:{user}",
        "<x>",
        "a-<x>-b:<y>:*",
        "{claims.a.b}:{user}",
        "a b/é:",
        "chat:<chat-id>",
    ] {
        assert_eq!(one_room(fine), "", "{fine}");
    }
    for (bad, why) in [
        ("", "must not be empty"),
        ("a:*:b", "`*` may only be the last character"),
        ("**", "`*` may only be the last character"),
        ("*{user}", "`*` may only be the last character"),
        ("{user}*", "would also match longer values"),
        ("<x>*", "would also match longer values"),
        ("{user}-<x>", "two values into one segment"),
        ("<x><y>", "two values into one segment"),
        ("<x", "`<` that is never closed"),
        ("<x{user}>", "`<` that is never closed"),
        ("x>", "stray '>'"),
        ("<>", "must be a name"),
        ("<0>", "must be a name"),
        ("<a.b>", "must be a name"),
        ("<user>", "must have another name"),
        ("<x>:<x>", "twice"),
        ("{user", "`{` that is never closed"),
        ("{us{er}", "`{` that is never closed"),
        ("user}", "`}` that closes nothing"),
        ("{}", "a name is missing"),
        ("{claims}", "must name a claim"),
        ("{claims.}", "a name is missing"),
        ("{user.id}", "has no parts"),
        ("{tenant}", "unknown placeholder `{tenant}`"),
        ("{0}", "has no value in a pattern"),
        ("{args}", "has no value in a pattern"),
        ("{session}", "has no value in a pattern"),
        ("{error}", "only in `on_error`"),
        ("a\nb", "stray '\\n'"),
    ] {
        let said = one_room(bad);
        assert!(said.starts_with("[[rooms]] number 1, `match`: ") && said.contains(why), "{bad:?}: {said:?}");
    }
    for open in ["<x>", "a:*"] {
        assert!(said(Rules::compile(&[room(open, JoinPolicy::Auto)], &[])).contains("from the token alone"));
    }
}

#[test]
fn templates() {
    let ack = |text: &str| one_on(OnRuleConfig { ack: Some(vec![json!({ "k": [text] })]), ..on("/", "e") });
    for fine in [
        "",
        "plain",
        "{user}",
        "{0}",
        "{0.a.b.1}",
        "{args}",
        "{auth}",
        "{auth.x}",
        "{claims.x}",
        "a {session} {namespace}",
    ] {
        assert_eq!(ack(fine), "", "{fine}");
    }
    for (bad, why) in [
        ("{error}", "`{error}` exists only in `on_error` and `ack_error`"),
        ("{chatId}", "unknown placeholder `{chatId}`"),
        ("{00}", "unknown placeholder"),
        ("{ user }", "unknown placeholder"),
        ("{{user}}", "never closed"),
        ("a } b", "closes nothing"),
        ("all: {args}", "no text that could be inserted"),
        ("{auth} ", "no text that could be inserted"),
        ("{0..a}", "a name is missing"),
        ("{args.0}", "has no parts"),
    ] {
        let said = ack(bad);
        assert!(said.starts_with("[[on]] number 1, `ack`: ") && said.contains(why), "{bad:?}: {said:?}");
    }
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    assert!(one_on(OnRuleConfig { ack: Some(vec![deep]), ..on("/", "e") }).contains("nested deeper"));
}

#[test]
fn rooms_and_names_in_events() {
    let join = |room: &str| one_on(OnRuleConfig { join: vec![room.into()], ..on("/", "e") });
    assert_eq!(join("a:{0}:{user}:x-{claims.t}.y:{namespace}:{session}"), "");
    for (bad, why) in [
        ("", "must not be empty"),
        ("chat:*", "must not contain '*'"),
        ("chat:<x>", "must not contain '<'"),
        ("{0}-{1}", "two values into one segment"),
        ("a:{0}{0}:b", "two values into one segment"),
        ("{args}", "no text"),
        ("{error}", "only in `on_error`"),
    ] {
        assert!(join(bad).contains(why), "{bad}: {}", join(bad));
    }
    let emitted = one_on(OnRuleConfig { emit: vec![emit("", "x", json!([]))], ..on("/", "e") });
    assert_eq!(emitted, "[[on]] number 1, `emit`: a room must not be empty");
    for reserved in ["disconnect", "connect_error", "newListener"] {
        assert!(
            one_on(OnRuleConfig { reply: Some(message(reserved, json!([]))), ..on("/", "e") }).contains("reserved")
        );
    }
    assert!(one_on(OnRuleConfig { reply: Some(message("", json!([]))), ..on("/", "e") }).contains("`reply`"));
}

#[test]
fn events() {
    for (event, why) in [("connect", "is called `connection`"), ("disconnecting", "reserved"), ("", "1 to")] {
        assert!(one_on(on("/", event)).contains(why), "{event}: {}", one_on(on("/", event)));
    }
    assert!(one_on(on("chat", "e")).contains("must start with \"/\""));
    let ack = |event: &str| {
        one_on(OnRuleConfig { ack: Some(vec![]), reply: Some(message("r", json!([]))), ..on("/", event) })
    };
    assert_eq!(ack("connection"), "[[on]] number 1, `ack`: does nothing at `connection`: nobody waits for it");
    assert_eq!(ack("disconnect").lines().count(), 2);
    let hello = |text: &str| OnRuleConfig { reply: Some(message("hello", json!([text]))), ..on("/", "connection") };
    assert_eq!(one_on(hello("{auth.x}")), "");
    assert!(one_on(hello("{0}")).contains("which has no arguments"));
    let left = OnRuleConfig { emit: vec![emit("all", "bye", json!(["{user}", "{0}"]))], ..on("/", "disconnect") };
    assert_eq!(one_on(left), "", "the reason is the argument");
}

#[test]
fn captures_are_known_in_joined_and_left_only() {
    let with = |text: &str| {
        let left = Some(message("l", json!([text])));
        said(Rules::compile(&[RoomRuleConfig { left, ..room("a:<x>", JoinPolicy::Allow) }], &[]))
    };
    assert_eq!(with("{x}"), "");
    assert!(with("{y}").contains("unknown placeholder `{y}`; known here: {user} {claims.x} {auth}"), "{}", with("{y}"));
    assert!(with("{y}").contains(" {x}"));
    assert!(with("{0}").contains("has no value in `joined` and `left`"));
    assert!(with("{x.a}").contains("has no parts"));
}

#[test]
fn all_are_reported_at_once() {
    let bad = OnRuleConfig {
        join: vec!["{a}".into(), "*".into()],
        ack: Some(vec![json!("{b}"), json!("{c} {d}")]),
        ..on("/", "ok")
    };
    let mistakes = Rules::compile(
        &[room("a", JoinPolicy::Allow), room("{x}", JoinPolicy::Allow), room("a", JoinPolicy::Deny)],
        &[on("/", "ok"), bad, on("/chat", "ok")],
    )
    .unwrap_err();
    let places: Vec<_> = mistakes.iter().map(|mistake| (mistake.table, mistake.index, mistake.key)).collect();
    let (join, ack) = (("on", 1, "join"), ("on", 1, "ack"));
    assert_eq!(places, [("rooms", 1, "match"), ("rooms", 2, "match"), join, join, ack, ack, ack, ("on", 1, "event")]);
}
