//! The messages of the contract, each refusal, and round trips of events.

use super::*;
use crate::model::draft::{Draft, Source};
use crate::model::offset::{Epoch, Offset, Position};
use crate::model::partition::Line;
use proptest::prelude::*;
use serde_json::Value;

fn refused(text: &str) -> (&'static str, Option<String>) {
    let error = parse(text).unwrap_err();
    assert!(!error.to_string().is_empty() && error.to_string().len() < 300);
    (error.code(), error.id.map(|id| id.get().to_owned()))
}

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

#[test]
fn each_message_of_the_contract_is_read() {
    let ClientMessage::Auth { token } = parse(r#"{"type":"auth","token":"a.b"}"#).unwrap() else { panic!() };
    assert_eq!(token, "a.b");
    let ClientMessage::Join { room, since, id } =
        parse(r#" {"id": 7.0, "since":"e-1-2","room":"c:\u0034","type":"join"} "#).unwrap()
    else {
        panic!()
    };
    assert_eq!((&*room, since.as_deref(), id.unwrap().get()), ("c:4", Some("e-1-2"), "7.0"));
    let ClientMessage::Join { since, id, .. } = parse(r#"{"type":"join","room":"r","since":null}"#).unwrap() else {
        panic!()
    };
    assert!(since.is_none() && id.is_none());
    let ClientMessage::Leave { room, id } = parse(r#"{"type":"leave","room":"r","id":"\u0078"}"#).unwrap() else {
        panic!()
    };
    assert_eq!((&*room, id.unwrap().get()), ("r", r#""\u0078""#));
    assert!(matches!(parse(r#"{"type":"ping"}"#).unwrap(), ClientMessage::Ping));
}

#[test]
fn rooms_are_named_as_javascript_names_them() {
    for (json, name) in [("4", "4"), ("42.0", "42"), (r#""4.0""#, "4.0")] {
        for kind in ["join", "leave"] {
            match parse(&format!(r#"{{"type":"{kind}","room":{json}}}"#)).unwrap() {
                ClientMessage::Join { room, .. } | ClientMessage::Leave { room, .. } => assert_eq!(room, name),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn zero_values_of_typed_languages_mean_absent() {
    let rest = r#""token":"","since":"","room":"","args":null,"id":null"#;
    let ClientMessage::Event { args, id, .. } =
        parse(&format!(r#"{{"type":"event","event":"e","data":{{"n":1}},{rest}}}"#)).unwrap()
    else {
        panic!()
    };
    assert_eq!((args.as_array(), id.is_none()), (r#"[{"n":1}]"#, true));
    let ClientMessage::Event { args, .. } = parse(r#"{"type":"event","event":"e","data":null,"args":[1,2]}"#).unwrap()
    else {
        panic!()
    };
    assert_eq!(args.count(), 2);
    let ClientMessage::Join { since, .. } =
        parse(r#"{"type":"join","room":"r","event":"","data":null,"args":null,"token":null,"since":""}"#).unwrap()
    else {
        panic!()
    };
    assert!(since.is_none());
    assert_eq!(refused(r#"{"type":"join","room":"r","data":1}"#).0, "unknown_key");
    assert_eq!(refused(r#"{"type":"join","room":"r","colour":null}"#).0, "unknown_key");
}

#[test]
fn arguments_are_kept_as_text() {
    let args = |json: &str| match parse(&format!(r#"{{"type":"event","event":"e"{json}}}"#)).unwrap() {
        ClientMessage::Event { args, .. } => args.as_array().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(args(r#","data":{ "n" : 9007199254740993 }"#), r#"[{ "n" : 9007199254740993 }]"#);
    assert_eq!(args(r#","args":[1 ,"\ud800"]"#), r#"[1 ,"\ud800"]"#);
    assert_eq!(args(r#","data":null"#), "[null]");
    assert_eq!(args(r#","data":1,"args":[ ]"#), "[1]");
    assert_eq!(args(r#","data":null,"args":[]"#), "[]");
    parse(r#"{"type":"leave","room":"r","data":null,"args":[]}"#).unwrap();
    assert_eq!(args(""), "[]");
}

#[test]
fn refusals_say_what_was_wrong_and_echo_the_id() {
    let seven = Some("7".to_owned());
    assert_eq!(refused(r#"{"type":"event","event":"e","data":1,"args":[2],"id":7}"#), ("data_and_args", seven.clone()));
    assert_eq!(refused(r#"{"id":7,"type":"jion","room":"r"}"#), ("unknown_type", seven.clone()));
    assert_eq!(refused(r#"{"id":7,"type":3}"#), ("unknown_type", seven.clone()));
    assert_eq!(refused(r#"{"id":7}"#), ("missing_key", seven.clone()));
    assert_eq!(refused(r#"{"type":"join","id":7}"#), ("missing_key", seven.clone()));
    assert_eq!(refused(r#"{"type":"join","room":"r","rooms":[],"id":7}"#), ("unknown_key", seven.clone()));
    assert_eq!(refused(r#"{"type":"join","room":"r","room":"s","id":7}"#), ("duplicate_key", seven.clone()));
    assert_eq!(refused(r#"{"type":"ping","id":7}"#), ("unknown_key", seven.clone()));
    assert_eq!(refused(r#"{"type":"join","room":[],"id":7}"#), ("bad_field", seven.clone()));
    assert_eq!(refused(r#"{"type":"join","room":"\ud800","id":7}"#), ("bad_field", seven.clone()));
    assert_eq!(refused(r#"{"type":"join","room":null,"id":7}"#), ("missing_key", seven.clone()));
    assert_eq!(refused(r#"{"type":"join","room":"r","since":4,"id":7}"#), ("bad_field", seven.clone()));
    assert_eq!(refused(r#"{"type":"event","event":"e","args":{},"id":7}"#), ("bad_field", seven.clone()));
    let many = r#"{"id":7,"a":1,"b":1,"c":1,"d":1,"e":1,"f":1,"g":1,"h":1,"type":"ping"}"#;
    assert_eq!(refused(many), ("too_many_keys", seven));
    for id in ["true", "[]", "{}", &format!("\"{}\"", "x".repeat(255))] {
        assert_eq!(refused(&format!(r#"{{"type":"leave","room":"r","id":{id}}}"#)), ("bad_field", None), "{id}");
    }
}

#[test]
fn hostile_texts_are_refused_cheaply() {
    let deep = "[".repeat(10_000);
    for bad in ["", "[]", "null", "{", "{}x", "\"ping\"", "{\"type\":\"ping\"", "{'type':'ping'}", &deep] {
        assert_eq!(refused(bad).0, "bad_json");
    }
    let nested = format!(r#"{{"type":"event","event":"e","data":{deep}{}}}"#, "]".repeat(10_000));
    assert_eq!(refused(&nested).0, "bad_json");
    let flood = format!("{{{}\"type\":\"ping\"}}", "\"k\":1,".repeat(100_000));
    assert_eq!(refused(&flood).0, "too_many_keys");
    let long = format!(r#"{{"type":"{0}","{0}":1}}"#, "x".repeat(100_000));
    assert_eq!(refused(&long).0, "unknown_type");
}

#[test]
fn each_message_of_the_contract_is_written() {
    let id = raw("\"a\"");
    let id = Some(&*id);
    assert_eq!(welcome("s", Some("7"), 25), r#"{"type":"welcome","session":"s","user":7,"heartbeat_seconds":25}"#);
    assert_eq!(welcome("s", None, 25), r#"{"type":"welcome","session":"s","user":null,"heartbeat_seconds":25}"#);
    assert_eq!(joined("r\"", Some("o"), None, None), r#"{"type":"joined","room":"r\"","offset":"o"}"#);
    assert_eq!(
        joined("r", None, Some(false), id),
        r#"{"type":"joined","room":"r","offset":null,"recovered":false,"id":"a"}"#
    );
    assert_eq!(left("r", id), r#"{"type":"left","room":"r","id":"a"}"#);
    assert_eq!(ack(&raw("1.0"), &Args::list("[1,2]").unwrap()), r#"{"type":"ack","id":1.0,"args":[1,2]}"#);
    assert_eq!(ack(&raw("1"), &Args::one("{}").unwrap()), r#"{"type":"ack","id":1,"data":{}}"#);
    assert_eq!(ack(&raw("1"), &Args::none()), r#"{"type":"ack","id":1,"args":[]}"#);
    assert_eq!(error("c", "m \"x\"\n", id), r#"{"type":"error","code":"c","message":"m \"x\"\n","id":"a"}"#);
    assert_eq!(error("c", "m", None), r#"{"type":"error","code":"c","message":"m"}"#);
    assert_eq!(gap("r"), r#"{"type":"gap","room":"r"}"#);
    assert_eq!(closing("draining", Some(1000)), r#"{"type":"closing","reason":"draining","retry_after_ms":1000}"#);
    assert_eq!(closing("refused", None), r#"{"type":"closing","reason":"refused","retry_after_ms":null}"#);
    assert_eq!(pong(), r#"{"type":"pong"}"#);
}

fn of_room(room: &str, name: &str, args: Args) -> Event {
    let offset = Offset { epoch: Epoch(1), position: Position { ms: 2, seq: 3 }, line: Line::CONTROL };
    Event { offset, draft: Draft::new(room, name, args, Source::Http), accepted_us: 0, after: None }
}

#[test]
fn events_name_data_or_args() {
    let one = of_room("r", "e", Args::one("{\"a\": 1}").unwrap());
    assert_eq!(event(&one, "r2"), r#"{"type":"event","room":"r2","event":"e","data":{"a": 1},"offset":"1-2-3"}"#);
    let two = of_room("r", "e", Args::list("[1, 2]").unwrap());
    assert_eq!(event(&two, "r"), r#"{"type":"event","room":"r","event":"e","args":[1, 2],"offset":"1-2-3"}"#);
    let none = of_room("r", "e", Args::none());
    assert_eq!(event(&none, "r"), r#"{"type":"event","room":"r","event":"e","args":[],"offset":"1-2-3"}"#);
}

proptest! {
    #[test]
    fn event_frames_hold_the_event_and_their_exact_length(
        room: String, name: String, text: String, single: bool, padding in 0usize..70_000,
    ) {
        let json = serde_json::to_string(&format!("{text}{}", "x".repeat(padding))).unwrap();
        let args = if single { Args::one(&json) } else { Args::list(&format!("[{json},1]")) }.unwrap();
        let of_log = of_room(&room, &name, args);
        let frame = event_frame(&of_log);
        let message = event(&of_log, &room);
        prop_assert_eq!(&frame, &crate::protocol::websocket::text_frame(&message));
        let value: Value = serde_json::from_str(&message).unwrap();
        prop_assert_eq!(value["room"].as_str(), Some(room.as_str()));
        prop_assert_eq!(value["event"].as_str(), Some(name.as_str()));
        let argument = if single { &value["data"] } else { &value["args"][0] };
        prop_assert_eq!(argument, &serde_json::from_str::<Value>(&json).unwrap());
        prop_assert_eq!(value.as_object().unwrap().len(), 5);
    }

    #[test]
    fn client_events_come_back_as_they_were(name: String, data: String, id: u64) {
        let data = serde_json::to_string(&data).unwrap();
        let name_json = serde_json::to_string(&name).unwrap();
        let text = format!(r#"{{"type":"event","event":{name_json},"data":{data},"id":{id}}}"#);
        let Ok(ClientMessage::Event { event, args, id: echoed }) = parse(&text) else { panic!("{text}") };
        prop_assert_eq!(event, name);
        prop_assert_eq!(args.inner(), data);
        let echoed = echoed.map(|id| id.get().to_owned());
        prop_assert_eq!(echoed, Some(id.to_string()));
    }

    #[test]
    fn any_text_is_read_without_panic(text in "[\\[\\]{}\":,a-z0-9 é\\\\]{0,60}") {
        let _ = parse(&text);
    }
}
