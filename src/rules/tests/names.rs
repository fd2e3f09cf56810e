//! Attack 14: names built from user values never collide.

use super::*;
use crate::rules::{TemplateError, Verdict, is_forbidden_in_names};
use proptest::prelude::*;
use serde_json::json;
use std::collections::HashMap;

const HOSTILE: [&str; 11] = [":", "*", "<", ">", "{", "}", "\n", "\r", "\0", "\u{7f}", "\u{85}"];

#[test]
fn values_with_a_meaning_in_names_are_refused() {
    for bad in HOSTILE {
        let user = format!("a{bad}b");
        let event = json!([user]).to_string();
        assert_eq!(joined("user:{user}", &caller(&user), "[]"), Err("forbidden_character"), "{bad:?}");
        assert_eq!(joined("chat:{0}", &caller("7"), &event), Err("forbidden_character"), "{bad:?}");
        let rule = OnRuleConfig { emit: vec![emit("chat:{0}", "x", json!([]))], ..on("/", "e") };
        with_rule(rule, &caller("7"), &event, |rule, call| {
            assert_eq!(rule.emits(call), Err(TemplateError::Forbidden("{0}".into(), bad.chars().next().unwrap())));
        });
    }
    assert_eq!(joined("chat:{0}", &caller("7"), r#"["a\u003ab"]"#), Err("forbidden_character"), "escapes are resolved");
    for fine in ["a/b", "a#b", "a b", "é😀", "..", "__proto__", "%3A"] {
        assert_eq!(joined("chat:{0}", &caller("7"), &json!([fine]).to_string()), Ok(format!("chat:{fine}")));
    }
    assert_eq!(joined("chat:{0}", &caller("7"), "[42]"), Ok("chat:42".into()));
    assert_eq!(joined("chat:{0.a}:{user}", &numeric("7"), "[{\"a\":true}]"), Ok("chat:true:7".into()));
    for composite in ["[null]", "[{}]", "[[1]]", r#"["\ud800"]"#] {
        assert_eq!(joined("chat:{0}", &caller("7"), composite), Err("not_text"), "{composite}");
    }
}

#[test]
fn such_a_token_is_refused_wherever_a_pattern_uses_the_value() {
    for (pattern, join) in [("user:{user}", JoinPolicy::Auto), ("user:{user}:<x>", JoinPolicy::Ask)] {
        let rules = compiled(&[room(pattern, join), room("*", JoinPolicy::Allow)], &[]);
        for bad in HOSTILE {
            let user = format!("a{bad}b");
            let error = rules.auto_rooms(&caller(&user)).unwrap_err();
            assert_eq!(error.code(), "forbidden_character");
            assert!(error.to_string().contains("{user} contains '"), "{error}");
            let room = if join == JoinPolicy::Auto { "user:a" } else { "user:a:b" };
            assert!(matches!(rules.room(room, &caller(&user)), Verdict::Refused(_)), "not passed on to a laxer rule");
        }
    }
    let rules = compiled(&[room("t:{claims.t}:<x>", JoinPolicy::Allow)], &[]);
    let claims = Caller { claims: r#"{"t":"a:b"}"#, ..caller("7") };
    assert!(rules.auto_rooms(&claims).is_err());
    assert!(matches!(rules.room("t:a:b", &claims), Verdict::Refused(_)));
    assert!(rules.auto_rooms(&Caller { claims: r#"{"u":"a:b"}"#, ..claims }).is_ok(), "no pattern uses it");
}

#[test]
fn a_pattern_with_a_users_value_matches_that_user_alone() {
    let rules = compiled(&[room("user:{user}", JoinPolicy::Auto), room("a:{user}:*", JoinPolicy::Allow)], &[]);
    let allowed = |room: &str, user: &str| matches!(rules.room(room, &caller(user)), Verdict::Allow(..));
    assert!(allowed("user:7", "7") && allowed("a:7:x:y", "7") && allowed("a:7:", "7"));
    for (room, user) in
        [("user:77", "7"), ("user:7", "77"), ("user:7:x", "7"), ("a:77:x", "7"), ("a:7", "7"), ("user:", "")]
    {
        assert!(!allowed(room, user), "{room} {user}");
    }
}

/// Templates whose segments differ in a literal or in number, as an operator writes them.
const TEMPLATES: [&str; 5] = [
    "user:{user}",
    "dm:{user}:{0}",
    "tenant:{claims.t}:user:{user}",
    "tenant:{claims.t}:project:{0}",
    "x-{user}.y:{0}",
];

/// Mostly from so few characters that a separator let through makes equal names within one case.
fn value() -> impl Strategy<Value = String> {
    let text = |regex| proptest::string::string_regex(regex).unwrap();
    prop_oneof![4 => text("[a:]{1,3}"), 1 => text("[ab:*<>{}/.#\n x-]{0,4}")]
}

proptest! {
    /// No values of users make two different (user, room) pairs one name.
    #[test]
    fn names_are_made_by_one_list_of_values(people in prop::collection::vec((value(), value(), value()), 1..40)) {
        let rules: Vec<Rules> = TEMPLATES
            .iter()
            .map(|room| compiled(&[], &[OnRuleConfig { join: vec![(*room).into()], ..on("/", "e") }]))
            .collect();
        let mut owner: HashMap<String, (usize, Vec<String>)> = HashMap::new();
        for (user, claim, arg) in &people {
            let claims = json!({ "t": claim }).to_string();
            let caller = Caller { claims: &claims, ..caller(user) };
            let event = args(&json!([arg]).to_string());
            for (at, rules) in rules.iter().enumerate() {
                let Ok(names) = rules.on("/", "e").unwrap().joins(&Call { caller: &caller, args: &event }) else { continue };
                let used = [("{user}", user), ("{claims.t}", claim), ("{0}", arg)]
                    .into_iter()
                    .filter(|(slot, _)| TEMPLATES[at].contains(slot))
                    .map(|(_, value)| value.clone())
                    .collect();
                let mine = (at, used);
                let first = owner.entry(names[0].to_string()).or_insert_with(|| mine.clone());
                prop_assert_eq!(&*first, &mine, "{}", names[0]);
            }
        }
    }

    /// A room that is one user's by the rules is never another's.
    #[test]
    fn a_users_own_room_is_nobody_elses(a in value(), b in value(), rest in value()) {
        prop_assume!(a != b);
        let rules = compiled(&[room("u:{user}:*", JoinPolicy::Allow), room("v-{user}.w:<x>", JoinPolicy::Allow)], &[]);
        for name in [format!("u:{a}:{rest}"), format!("v-{a}.w:{rest}")] {
            let theirs = matches!(rules.room(&name, &caller(&b)), Verdict::Allow(..));
            // A name made with a forbidden value is not `a`'s room at all: nobody is let in under that user.
            prop_assert!(!theirs || a.contains(is_forbidden_in_names) || a.is_empty(), "{name:?} {b:?}");
        }
    }

    /// Whatever text there is, what comes out is a valid list with the value in it.
    #[test]
    fn filled_messages_are_valid_json(text in any::<String>(), user in any::<String>()) {
        let event = json!([{ "a": text }]).to_string();
        let filled = acked(json!(["{0.a}", { "u": "{user}" }, "- {0.a} {user} -"]), &caller(&user), &event).unwrap();
        let value: Value = serde_json::from_str(&filled).unwrap();
        prop_assert_eq!(value, json!([text, { "u": user }, format!("- {text} {user} -")]));
    }

    /// Compiling never panics and says yes or no to any text.
    #[test]
    fn any_text_is_compiled_or_a_mistake(text in "[a:*<>{}.0user]{0,12}") {
        let rule = OnRuleConfig { join: vec![text.clone()], ack: Some(vec![json!(text)]), ..on("/", "e") };
        let _ = Rules::compile(&[room(&text, JoinPolicy::Allow)], &[rule]);
    }
}
