//! Templates and rules as the contract says.

use super::*;
use crate::rules::Verdict;
use serde_json::json;

#[test]
fn a_whole_placeholder_keeps_the_type_and_the_bytes() {
    let event =
        r#"[{"big":12345678901234567890123.10,"t":true,"z":null,"o":{ "a" : [1, 2] },"s":"\u00e9\ud83d\ude00\/"}]"#;
    let template = json!(["{0.big}", "{0.t}", "{0.z}", "{0.o}", "{0.s}", "{user}"]);
    assert_eq!(
        acked(template.clone(), &numeric("9007199254740993"), event).unwrap(),
        r#"[12345678901234567890123.10,true,null,{ "a" : [1, 2] },"\u00e9\ud83d\ude00\/",9007199254740993]"#
    );
    let text = acked(template, &caller("9007199254740993"), event).unwrap();
    assert!(text.ends_with(r#","9007199254740993"]"#), "{text}");
}

#[test]
fn within_a_longer_string_it_is_text() {
    let event = r#"[{"n":1.50,"b":false,"s":"a\"b\u0041","z":null,"l":[1],"o":{}}]"#;
    let ack = acked(json!(["{0.n}/{0.b}", "<{0.s}>", "user {user}"]), &numeric("7"), event);
    assert_eq!(ack.unwrap(), r#"["1.5/false","<a\"b\u0041>","user 7"]"#);
    for composite in ["z", "l", "o"] {
        let error = acked(json!([format!("x{{0.{composite}}}")]), &caller("7"), event).unwrap_err();
        assert!(error.starts_with(&format!("{{0.{composite}}} must be a string")), "{error}");
    }
}

#[test]
fn a_missing_value_is_an_error_and_never_an_empty_string() {
    for template in ["{0}", "{1.x}", "{0.chatId}", "at {0.chatId}", "{claims.team}", "{auth.x}", "{auth}"] {
        let error = acked(json!([{ "k": template }]), &caller("7"), "[]").unwrap_err();
        assert!(error.starts_with("missing value {"), "{template}: {error}");
    }
    assert_eq!(acked(json!(["{0.chatId}"]), &caller("7"), "[{}]").unwrap_err(), "missing value {0.chatId}");
    assert_eq!(acked(json!(["{user}"]), &anonymous(), "[]").unwrap_err(), "missing value {user}");
    assert_eq!(acked(json!(["{0}"]), &caller("7"), "[\"\"]").unwrap(), "[\"\"]");
    assert_eq!(joined("chat:{0}", &caller("7"), "[]"), Err("missing_value"));
    assert_eq!(joined("chat:{0}", &caller("7"), "[\"\"]"), Err("empty_value"));
}

#[test]
fn args_are_spliced_as_an_item_and_a_list_elsewhere() {
    let template = json!([1, "{args}", { "all": "{args}" }, ["{args}"]]);
    assert_eq!(
        acked(template.clone(), &caller("7"), "[ 2, [3] ]").unwrap(),
        r#"[1,2, [3],{"all":[ 2, [3] ]},[[ 2, [3] ]]]"#
    );
    assert_eq!(acked(template, &caller("7"), "[]").unwrap(), r#"[1,{"all":[]},[[]]]"#);
    assert_eq!(acked(json!(["{args}"]), &caller("7"), "[]").unwrap(), "[]");
    assert_eq!(acked(json!(["{args}", "{args}", 1]), &caller("7"), "[0,0]").unwrap(), "[0,0,0,0,1]");
}

#[test]
fn the_further_placeholders() {
    let caller = Caller {
        claims: r#"{"team":{"id":"t1"},"n":5}"#,
        auth: r#"{"device":"phone","v":2}"#,
        session: "abc",
        namespace: "/chat",
        ..caller("7")
    };
    let template = json!([
        "{auth}",
        "{auth.device}",
        "{auth.v}",
        "{session}",
        "{namespace}",
        "{claims.team.id}",
        "{claims.team}",
        "n{claims.n}"
    ]);
    assert_eq!(
        acked(template, &caller, "[]").unwrap(),
        r#"[{"device":"phone","v":2},"phone",2,"abc","/chat","t1",{"id":"t1"},"n5"]"#
    );
    let hostile = Caller { session: "\"\\\n", ..caller };
    assert_eq!(acked(json!(["{session}", "x{session}"]), &hostile, "[]").unwrap(), r#"["\"\\\n","x\"\\\n"]"#);
    assert_eq!(acked(json!(["{0.list.1}"]), &caller, r#"[{"list":["a","b"]}]"#).unwrap(), "[\"b\"]");
}

#[test]
fn literals_and_keys_stay_as_written() {
    let template = json!([{ "{user}": 1, "n": -0.5, "q\"": "\n", "z": null }, true, [], {}]);
    assert_eq!(
        acked(template, &caller("7"), "[]").unwrap(),
        r#"[{"n":-0.5,"q\"":"\n","z":null,"{user}":1},true,[],{}]"#
    );
}

#[test]
fn errors_have_a_template_of_their_own() {
    let rule = OnRuleConfig {
        on_error: Some(message("error", json!([{ "message": "{error}" }]))),
        ack_error: Some(list(json!([{ "code": "{error.code}", "error": "in {0.chatId}: {error}" }]))),
        ..on("/", "e")
    };
    with_rule(rule.clone(), &caller("7"), r#"[{"chatId":4}]"#, |rule, call| {
        assert_eq!(shown(rule.on_error(call, problem("no \"entry\""))), r#"error [{"message":"no \"entry\""}]"#);
        let ack = rule.ack_error(call, problem("no")).unwrap();
        assert_eq!(ack.as_array(), r#"[{"code":"a_code","error":"in 4: no"}]"#);
    });
    with_rule(rule, &caller("7"), "[]", |rule, call| {
        assert_eq!(rule.ack_error(call, problem("no")), None, "the template itself cannot be filled");
        assert!(rule.on_error(call, problem("no")).is_some());
    });
    with_rule(on("/", "e"), &caller("7"), "[]", |rule, call| {
        assert_eq!((rule.on_error(call, problem("no")), rule.ack_error(call, problem("no"))), (None, None));
    });
}

#[test]
fn an_event_name_may_hold_values_but_never_becomes_a_reserved_one() {
    let rule = OnRuleConfig { reply: Some(message("{0.name}", json!([]))), ..on("/", "e") };
    let reply = |json: &str| {
        with_rule(rule.clone(), &caller("7"), json, |rule, call| rule.reply(call).map(shown).map_err(|e| e.code()))
    };
    assert_eq!(reply(r#"[{"name":"a:b"}]"#), Ok("a:b []".into()));
    for bad in ["disconnect", "connect", "", "a\\nb", &"x".repeat(1025)] {
        assert_eq!(reply(&format!(r#"[{{"name":"{bad}"}}]"#)), Err("bad_event_name"), "{bad}");
    }
    assert_eq!(reply(r#"[{"name":[]}]"#), Err("not_text"));
}

#[test]
fn messages_stay_within_depth_and_size() {
    let deep = format!("[{}{}]", "[".repeat(127), "]".repeat(127));
    assert_eq!(acked(json!(["{0}"]), &caller("7"), &deep).unwrap(), deep);
    assert!(acked(json!([["{0}"]]), &caller("7"), &deep).unwrap_err().contains("deeper than 128"));
    let long = format!("[\"{}\"]", "x".repeat(1 << 20));
    assert!(acked(json!(vec!["{0}"; 15]), &caller("7"), &long).is_ok());
    assert!(acked(json!(vec!["{args}"; 17]), &caller("7"), &long).unwrap_err().contains("longer than"));
}

#[test]
fn events_without_a_rule_and_the_two_moments_match_nothing() {
    let rules = compiled(&[], &[on("/", "connection"), on("/", "disconnect"), on("/chat", "typing")]);
    for (namespace, event) in
        [("/", "connection"), ("/", "disconnect"), ("/", "typing"), ("/chat", "Typing"), ("", "typing")]
    {
        assert!(rules.on(namespace, event).is_none(), "{namespace} {event}");
    }
    assert!(rules.on("/chat", "typing").is_some());
    assert!(rules.connection("/").is_some() && rules.disconnect("/").is_some());
    assert!(rules.connection("/chat").is_none() && rules.disconnect("/chat").is_none());
}

#[test]
fn the_first_match_wins_and_no_match_is_refused() {
    let rules = compiled(
        &[
            room("user:{user}", JoinPolicy::Auto),
            room("user:<id>", JoinPolicy::Deny),
            room("chat:<chatId>", JoinPolicy::Ask),
            room("public:*", JoinPolicy::Allow),
        ],
        &[],
    );
    let me = caller("7");
    assert!(matches!(rules.room("user:7", &me), Verdict::Allow(..)));
    assert!(matches!(rules.room("user:8", &me), Verdict::Deny(_)));
    assert!(matches!(rules.room("user:7", &anonymous()), Verdict::Deny(_)), "a rule that needs a user is passed over");
    assert!(matches!(rules.room("chat:4", &me), Verdict::Ask(_, captures) if *captures.0 == [Box::<str>::from("4")]));
    assert!(matches!(rules.room("public:a:b:c", &me), Verdict::Allow(..)));
    for none in
        ["", "chat:", "chat:4:5", "chat", "xchat:4", "chat:*", "chat:<a>", "public", "public:\n", "user", "user:"]
    {
        assert!(matches!(rules.room(none, &me), Verdict::NoRule), "{none}");
    }
}

#[test]
fn the_tokens_rooms_are_granted_besides_the_rules() {
    let rules =
        compiled(&[room("chat:<id>", JoinPolicy::Ask), room("x", JoinPolicy::Deny), room("y", JoinPolicy::Allow)], &[]);
    let me = Caller { granted: &|room| room != "chat:2", ..caller("7") };
    assert!(
        matches!(rules.room("chat:1", &me), Verdict::Granted(Some((_, captures))) if *captures.0 == [Box::<str>::from("1")])
    );
    assert!(matches!(rules.room("chat:2", &me), Verdict::Ask(..)));
    assert!(matches!(rules.room("x", &me), Verdict::Granted(Some(_))));
    assert!(matches!(rules.room("y", &me), Verdict::Allow(..)));
    assert!(matches!(rules.room("z", &me), Verdict::Granted(None)));
}

#[test]
fn auto_rooms_follow_from_the_token() {
    let rules = compiled(
        &[
            room("lobby", JoinPolicy::Auto),
            room("user:{user}", JoinPolicy::Auto),
            room("tenant:{claims.org.id}:all", JoinPolicy::Auto),
            room("team:{claims.teams}", JoinPolicy::Auto),
        ],
        &[],
    );
    let auto =
        |caller: &Caller<'_>| rules.auto_rooms(caller).map(|rooms| rooms.join(" ")).map_err(|error| error.to_string());
    assert_eq!(auto(&anonymous()), Ok("lobby".into()));
    assert_eq!(auto(&numeric("7")), Ok("lobby user:7".into()));
    let me = Caller { claims: r#"{"org":{"id":3}}"#, ..caller("7") };
    assert_eq!(auto(&me), Ok("lobby user:7 tenant:3:all".into()));
    assert_eq!(auto(&Caller { claims: r#"{"org":{"id":""}}"#, ..me }), Ok("lobby user:7".into()));
    for teams in [r#"{"teams":null}"#, r#"{"teams":["a"]}"#, r#"{"teams":{"a":1}}"#] {
        assert!(auto(&Caller { claims: teams, ..me }).unwrap_err().contains("teams"), "{teams}");
    }
}

#[test]
fn presence_messages_know_the_captures() {
    let template =
        |event: &str| Some(message(event, json!([{ "userId": "{user}", "chatId": "{chatId}", "t": "{t}" }])));
    let config = RoomRuleConfig {
        joined: template("user_joined"),
        left: template("user_left"),
        ..room("org:{claims.org}:<t>-x:chat:<chatId>", JoinPolicy::Allow)
    };
    let rules = compiled(&[config, room("quiet", JoinPolicy::Allow)], &[]);
    let me = Caller { claims: r#"{"org":"o"}"#, ..numeric("7") };
    let Verdict::Allow(rule, captures) = rules.room("org:o:a-b-x:chat:42", &me) else { panic!() };
    assert!(rule.presence);
    let filled = |event: &str| format!(r#"{event} [{{"chatId":"42","t":"a-b","userId":7}}]"#);
    assert_eq!(shown(rule.joined(&me, &captures).unwrap()), filled("user_joined"));
    assert_eq!(shown(rule.left(&me, &captures).unwrap()), filled("user_left"));
    let (without_claims, captures) = rules.presence("org:o:a-b-x:chat:42", "7").unwrap();
    assert_eq!(shown(without_claims.left(&numeric("7"), &captures).unwrap()), filled("user_left"));
    assert!(rules.presence("quiet", "7").is_none());
    assert!(rule.joined(&anonymous(), &captures).is_err());
}
