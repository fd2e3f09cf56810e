//! The bytes of docs/protocol/emitters.md, read as it says.

use super::*;
use crate::bridge::request::Directive;
use crate::bridge::streams;
use crate::model::args::Args;
use crate::model::command::{Action, Selector};
use crate::model::draft::Draft;
use crate::model::names::EVERYBODY;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::Value;
use serde_json::json;

const LIMITS: DraftLimits = DraftLimits { max_event: 10_000, room_name_bytes: 200, rooms: 10 };

fn bytes(hex: &str) -> Vec<u8> {
    hex::decode(hex).unwrap()
}

fn read(channel: &str, message: &[u8]) -> Result<Request, EmitterError> {
    decode("socket.io", channel, message, &LIMITS)
}

fn one(channel: &str, message: &[u8]) -> Draft {
    match read(channel, message) {
        Ok(Request::Event(draft)) => *draft,
        other => panic!("{other:?}"),
    }
}

fn order(channel: &str, message: &str) -> Directive {
    match read(channel, message.as_bytes()) {
        Ok(Request::SessionCommand(directive)) => directive,
        other => panic!("{other:?}"),
    }
}

fn shown(draft: &Draft) -> (&str, Vec<&str>, &str, &str) {
    (&draft.namespace, draft.rooms.iter().map(|room| &**room).collect(), &draft.event, draft.args.as_array())
}

fn code(channel: &str, message: &[u8]) -> &'static str {
    match read(channel, message) {
        Err(error) => error.code(),
        Ok(read) => panic!("{channel}: {read:?}"),
    }
}

/// Any JSON as MessagePack.
fn packed(value: &Value) -> Vec<u8> {
    let length = |out: &mut Vec<u8>, marker: u8, count: usize| {
        out.push(marker);
        out.extend_from_slice(&u16::try_from(count).unwrap().to_be_bytes());
    };
    let mut out = Vec::new();
    match value {
        Value::Null => out.push(0xc0),
        Value::Bool(value) => out.push(if *value { 0xc3 } else { 0xc2 }),
        Value::Number(number) => {
            out.push(0xd3);
            out.extend_from_slice(&number.as_i64().unwrap().to_be_bytes());
        }
        Value::String(text) => {
            length(&mut out, 0xda, text.len());
            out.extend_from_slice(text.as_bytes());
        }
        Value::Array(items) => {
            length(&mut out, 0xdc, items.len());
            items.iter().for_each(|item| out.extend(packed(item)));
        }
        Value::Object(map) => {
            length(&mut out, 0xde, map.len());
            for (key, value) in map {
                out.extend(packed(&json!(key)));
                out.extend(packed(value));
            }
        }
    }
    out
}

#[test]
fn the_emitters_bytes() {
    let draft = one(
        "socket.io#/#",
        &bytes(
            "93a7656d697474657283a47479706502a46461746194a2686901a2c3a981a16193c0c3cb3ff8000000000000a36e7370a12f83a5726f6f6d7390a5666c61677380a665786365707490",
        ),
    );
    assert_eq!(shown(&draft), ("/", vec![EVERYBODY], "hi", r#"[1,"é",{"a":[null,true,1.5]}]"#));
    assert!(draft.is_for_everybody() && !draft.volatile && draft.except.is_empty());
    let draft = one(
        "socket.io#/#room1#",
        &bytes(
            "93a7656d697474657283a47479706502a46461746191a26869a36e7370a12f83a5726f6f6d7391a5726f6f6d31a5666c61677380a665786365707490",
        ),
    );
    assert_eq!(shown(&draft), ("/", vec!["room1"], "hi", "[]"));
    let draft = one(
        "socket.io#/#",
        &bytes(
            "93a7656d697474657283a47479706502a46461746193a362696ec40301020381a16ec40104a36e7370a12f83a5726f6f6d7390a5666c61677380a665786365707490",
        ),
    );
    assert_eq!(draft.args.as_array(), r#"[{"$binary":"AQID"},{"n":{"$binary":"BA=="}}]"#);
    assert!(draft.args.may_hold_binary());
}

#[test]
fn old_emitters_bytes() {
    let php = bytes("9283a47479706502a46461746193a268690181a16101a36e7370a12f82a5726f6f6d7390a5666c61677390");
    assert_eq!(shown(&one("socket.io#emitter", &php)), ("/", vec![""], "hi", r#"[1,{"a":1}]"#));
    let packet = json!({"type": 2, "data": ["hi", 1], "nsp": "/chat"});
    for opts in [
        json!({"rooms": ["r1"], "flags": {"broadcast": true, "json": true}}),
        json!({"rooms": ["r1"], "flags": "", "except": ""}),
        json!({"rooms": ["r1"], "except": null, "volatile": false}),
    ] {
        for message in [json!(["emitter", packet, opts]), json!([packet, opts])] {
            for bytes in [packed(&message), message.to_string().into_bytes()] {
                let draft = one("socket.io#/chat#r1", &bytes);
                assert_eq!(shown(&draft), ("/chat", vec!["r1"], "hi", "[1]"), "{message}");
            }
        }
    }
}

#[test]
fn acceptance_is_that_of_the_stock_receiver() {
    let message = |packet: Value, opts: Value| packed(&json!(["GTxuAz", packet, opts]));
    let hi = || json!({"type": 2, "data": ["hi"]});
    for rooms in [json!(null), json!(""), json!([])] {
        let draft = one("socket.io#/#r#", &message(hi(), json!({"rooms": rooms, "except": null, "flags": []})));
        assert!(draft.is_for_everybody(), "options decide, not the channel");
    }
    assert!(one("socket.io#/#", &message(hi(), json!({}))).is_for_everybody());
    for (name, text) in [(json!(7), "7"), (json!(42.0), "42"), (json!(""), "")] {
        let message = json!(["a", {"type": 2, "data": [name]}, {}]).to_string();
        assert_eq!(&*one("socket.io#/#", message.as_bytes()).event, text);
    }
    let numbers = one("socket.io#/#", br#"["a",{"type":2,"data":["hi"]},{"rooms":[42.0],"except":7}]"#);
    assert_eq!((numbers.rooms, numbers.except), (vec!["42".into()], vec!["7".into()]));
    let half = br#"["a",{"type":2,"data":["x\ud83d","\ud83d"]},{"rooms":[],"flags":{"a":"\ud83d"}}]"#;
    assert_eq!(shown(&one("socket.io#/#", half)), ("/", vec![""], "x\u{fffd}", r#"["\ud83d"]"#));
    let opts = json!({"rooms": [42, "a#b", "a"], "except": ["c", 7], "flags": {"volatile": true, "local": true, "compress": false}});
    let draft = one("socket.io#/#", &message(json!({"type": 5, "data": ["hi"], "nsp": "admin", "id": 7}), opts));
    assert_eq!(shown(&draft), ("/admin", vec!["42", "a#b", "a"], "hi", "[]"));
    assert_eq!((draft.volatile, draft.except), (true, vec!["c".into(), "7".into()]));

    let refused = |packet, opts| code("socket.io#/#", &message(packet, opts));
    assert_eq!(refused(json!({"type": 1}), json!({})), "bad_packet_type");
    assert_eq!(refused(json!({"data": ["hi"]}), json!({})), "bad_packet_type");
    assert_eq!(refused(json!({"type": 2}), json!({})), "bad_field");
    assert_eq!(refused(json!({"type": 2, "data": []}), json!({})), "bad_field");
    assert_eq!(refused(json!({"type": 2, "data": "hi"}), json!({})), "bad_json");
    assert_eq!(refused(json!({"type": 2, "data": [null]}), json!({})), "bad_field");
    assert_eq!(refused(json!({"type": 2, "data": ["disconnect"]}), json!({})), "reserved_event");
    assert_eq!(refused(hi(), json!({"rooms": "r1"})), "bad_field");
    assert_eq!(refused(hi(), json!({"rooms": [""]})), "bad_room");
    assert_eq!(refused(hi(), json!({"rooms": [["r"]]})), "bad_field");
    assert_eq!(refused(hi(), json!({"rooms": vec!["r"; 11]})), "too_many_rooms");
    assert_eq!(refused(json!({"type": 2, "data": ["hi", "x".repeat(10_001)]}), json!({})), "event_too_big");
}

#[test]
fn garbage_is_refused_and_what_is_between_servers_is_left_alone() {
    assert_eq!(code("socket.io#/#", b"garbage"), "bad_json");
    assert_eq!(code("socket.io#/#", b""), "bad_json");
    assert_eq!(code("socket.io#/#", &[0x93]), "bad_msgpack");
    assert_eq!(code("socket.io#/#", &[0x91; 100_000]), "bad_msgpack");
    assert_eq!(code("socket.io#/#", &[0xdd, 0xff, 0xff, 0xff, 0xff]), "bad_msgpack");
    assert_eq!(code("socket.io#/#", "[".repeat(5_000).as_bytes()), "bad_json");
    assert_eq!(code("socket.io#/#", &packed(&json!([1]))), "bad_field");
    assert_eq!(
        code("socket.io#/#", &packed(&json!({"type": 3, "data": {}, "uid": "x", "nsp": "/"}))),
        "ack_unsupported"
    );
    for kind in [7, 8, 9, 10, 11, 12] {
        let message = json!({"type": kind, "data": {}, "uid": "x", "nsp": "/"});
        assert_eq!(read("socket.io#/#", &packed(&message)), Ok(Request::Foreign));
        assert_eq!(read("socket.io#/#", message.to_string().as_bytes()), Ok(Request::Foreign));
    }
    assert_eq!(read("other#/#", b"x"), Ok(Request::Foreign));
}

#[test]
fn commands() {
    let among = |rooms: &[&str], except: &[&str]| Selector::RoomsExcept {
        rooms: rooms.iter().map(|&room| room.into()).collect(),
        except: except.iter().map(|&room| room.into()).collect(),
    };
    let join = order("socket.io-request#/#", r#"{"type":2,"opts":{"rooms":["r1"],"except":["x"]},"rooms":["r2"]}"#);
    assert_eq!(join.selector, among(&["r1"], &["x"]));
    assert_eq!((&*join.namespace, join.action), ("/", Action::Join(vec!["r2".into()])));
    let leave = order(
        "socket.io-request#/chat#",
        r#"{"uid":"a","type":3,"opts":{"rooms":["r1","r9"],"except":[]},"rooms":["r2"]}"#,
    );
    assert_eq!((&*leave.namespace, leave.selector), ("/chat", among(&["r1", "r9"], &[])));
    assert_eq!(leave.action, Action::Leave(vec!["r2".into()]));
    // Without the trailing `#`, as PyPI's socket.io-redis-emitter has it.
    let end = order("socket.io-request#/", r#"{"type":4,"opts":{"rooms":[42],"except":[]},"close":true}"#);
    assert_eq!((end.selector, end.action), (among(&["42"], &[]), Action::Disconnect));
    let old = order("socket.io-request#/#", r#"{"type":2,"sid":"S","room":"r"}"#);
    assert_eq!((old.selector, old.action), (among(&["S"], &[]), Action::Join(vec!["r".into()])));
    for foreign in
        [r#"{"uid":"emitter","type":6,"data":["hello"]}"#, r#"{"type":5,"requestId":"a","opts":{}}"#, r#"{"type":0}"#]
    {
        assert_eq!(read("socket.io-request#/#", foreign.as_bytes()), Ok(Request::Foreign));
    }
    let ack = packed(&json!({"uid": "u", "requestId": "r", "type": 7, "packet": {}, "opts": {}}));
    assert_eq!(code("socket.io-request#/#", &ack), "ack_unsupported");
    assert_eq!(code("socket.io-request#/#", b"x"), "bad_json");
    assert_eq!(code("socket.io-request#/#", br#"{"type":4}"#), "bad_field");
}

#[test]
fn python() {
    let emit = |more: &str| {
        let text = format!(r#"{{"method": "emit", "event": "hi", "namespace": "/", "host_id": "8f", {more}}}"#);
        decode("socketio", "socketio", text.as_bytes(), &LIMITS)
    };
    let args = |more: &str| match emit(more) {
        Ok(Request::Event(draft)) => draft.args.as_array().to_owned(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        args(r#""data": [{"a": 1}], "binary": false, "room": null, "skip_sid": null, "callback": null"#),
        r#"[{"a": 1}]"#
    );
    assert_eq!(
        args(r#""data": [[{"b": {"_placeholder": true, "num": 0}}], "AQ=="], "binary": true"#),
        r#"[{"b": {"$binary":"AQ=="}}]"#
    );
    assert_eq!(
        args(r#""data": [{"_placeholder": true, "num": 0}, "AQ=="], "binary": true"#),
        r#"[{"$binary":"AQ=="}]"#
    );
    assert_eq!(args(r#""data": [1, 2], "binary": false"#), "[1,2]");
    assert_eq!(args(r#""data": [null], "binary": false"#), "[]");
    assert_eq!(args(r#""data": [1, 2]"#), "[[1, 2]]");
    assert_eq!(args(r#""data": "x""#), r#"["x"]"#);
    assert_eq!(args(r#""data": null"#), "[]");
    let Ok(Request::Event(draft)) = emit(r#""data": [], "binary": false, "room": ["a", "b"], "skip_sid": "S""#) else {
        panic!()
    };
    assert_eq!((shown(&draft).1, &*draft.except[0]), (vec!["a", "b"], "S"));
    for (room, rooms) in [("42", vec!["42"]), ("42.0", vec!["42"]), (r#"[1, "a", 2.5]"#, vec!["1", "a", "2.5"])] {
        let Ok(Request::Event(draft)) = emit(&format!(r#""data": [], "binary": false, "room": {room}, "skip_sid": 7"#))
        else {
            panic!()
        };
        assert_eq!((shown(&draft).1, &*draft.except[0]), (rooms, "7"));
    }
    let code = |more: &str| emit(more).unwrap_err().code();
    assert_eq!(code(r#""data": [], "binary": false, "room": """#), "bad_room");
    assert_eq!(code(r#""data": [], "binary": false, "callback": ["r", "/", 1]"#), "ack_unsupported");
    assert_eq!(code(r#""data": [[{"_placeholder": true, "num": 1}], "AQ=="], "binary": true"#), "bad_field");
    assert_eq!(code(r#""data": [[{"_placeholder": true, "num": 0}], "\"x"], "binary": true"#), "bad_json");
    let many = vec![r#"{"_placeholder": true, "num": 0}"#; 100].join(",");
    let bomb = format!(r#""data": [[{many}], "{}"], "binary": true"#, "A".repeat(10_000));
    assert_eq!(code(&bomb), "event_too_big");

    let other = |text: &str| decode("socketio", "socketio", text.as_bytes(), &LIMITS);
    let Ok(Request::SessionCommand(enter)) =
        other(r#"{"method": "enter_room", "sid": "S", "room": "r1", "namespace": "/"}"#)
    else {
        panic!()
    };
    assert_eq!(
        (enter.selector, enter.action),
        (Selector::RoomsExcept { rooms: vec!["S".into()], except: vec![] }, Action::Join(vec!["r1".into()]))
    );
    let Ok(Request::SessionCommand(close)) = other(r#"{"method": "close_room", "room": "r1", "namespace": "/"}"#)
    else {
        panic!()
    };
    assert_eq!(close.action, Action::Leave(vec!["r1".into()]));
    for (method, action) in [
        ("enter_room", Action::Join(vec!["42".into()])),
        ("leave_room", Action::Leave(vec!["42".into()])),
        ("close_room", Action::Leave(vec!["42".into()])),
    ] {
        for room in ["42", "[42.0]"] {
            let text = format!(r#"{{"method": "{method}", "sid": "S", "room": {room}, "namespace": "/"}}"#);
            let Ok(Request::SessionCommand(directive)) = other(&text) else { panic!("{text}") };
            assert_eq!(directive.action, action);
        }
    }
    assert_eq!(other(r#"{"method": "close_room", "room": null}"#).unwrap_err().code(), "bad_field");
    assert_eq!(other(r#"{"method": "callback", "host_id": "x"}"#), Ok(Request::Foreign));
    let pickle = decode("socketio", "socketio", &bytes("80049500"), &LIMITS).unwrap_err();
    assert_eq!((pickle.code(), pickle.to_string().contains("5.14")), ("pickle", true));
}

#[test]
fn streams_entries() {
    let read = |kind: &str, data: &str| {
        let fields = [("uid", "emitter"), ("nsp", "admin"), ("type", kind), ("data", data)];
        let owned: Vec<_> =
            fields.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        streams::decode(&owned, &LIMITS)
    };
    let one = |kind, data| match read(kind, data) {
        Ok(Request::Event(draft)) => *draft,
        other => panic!("{other:?}"),
    };
    let draft =
        one("3", r#"{"packet":{"type":2,"data":["hi",1,"é"],"nsp":"/"},"opts":{"rooms":[],"flags":{},"except":[]}}"#);
    assert_eq!(shown(&draft), ("/", vec![""], "hi", r#"[1,"é"]"#));
    let draft = one("3", r#"{"packet":{"type":2,"data":["hi",2]},"opts":{"rooms":["r1"],"except":[],"flags":{}}}"#);
    assert_eq!(shown(&draft), ("/admin", vec!["r1"], "hi", "[2]"));
    let opts = json!({"rooms": [], "except": []});
    let binary = STANDARD.encode(packed(&json!({"packet": {"type": 2, "data": ["bin"]}, "opts": opts})));
    assert_eq!(&*one("3", &binary).event, "bin");
    let Ok(Request::SessionCommand(join)) =
        read("4", r#"{"opts":{"rooms":["r"],"except":[],"flags":{}},"rooms":["x"]}"#)
    else {
        panic!()
    };
    assert_eq!((join.action, &*join.namespace), (Action::Join(vec!["x".into()]), "/admin"));
    assert!(matches!(
        read("6", r#"{"opts":{"rooms":["r"]},"close":true}"#),
        Ok(Request::SessionCommand(Directive { action: Action::Disconnect, .. }))
    ));
    assert_eq!(read("9", r#"{"packet":["hello",1]}"#), Ok(Request::Foreign));
    let code = |kind, data| read(kind, data).unwrap_err().code();
    assert_eq!(code("3", "{}"), "bad_field");
    assert_eq!(code("3", "%"), "bad_field");
    assert_eq!(code("3", "gqZwYWNrZXQ="), "bad_msgpack");
    assert_eq!(code("3", r#"{"packet":{"type":2,"data":["hi"]},"opts":{},"requestId":"r"}"#), "ack_unsupported");
    assert_eq!(streams::decode(&[], &LIMITS).unwrap_err().code(), "bad_field");
}

proptest! {
    /// Whatever is published: an error, or a draft that is good. (`Args::trusted` checks its JSON in tests.)
    #[test]
    fn any_bytes(
        base in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        channel in 0usize..3,
    ) {
        let packet = json!({"type": 2, "data": ["hi", {"a": [null, true, "x", 7]}], "nsp": "/"});
        let opts = json!({"rooms": ["r", 42], "except": ["x"], "flags": {"volatile": true}});
        let broadcast = json!(["u", packet, opts]);
        let python = json!({"method": "emit", "event": "e", "data": [[{"_placeholder": true, "num": 0}], "AQ=="], "binary": true, "room": "r"});
        let command = json!({"type": 2, "opts": opts, "rooms": ["y"]});
        let mut message = match base {
            0 => packed(&broadcast),
            1 => broadcast.to_string().into_bytes(),
            2 => python.to_string().into_bytes(),
            _ => command.to_string().into_bytes(),
        };
        for (at, byte) in changes {
            let at = at.index(message.len());
            message[at] = byte;
        }
        if channel > 0 {
            message.truncate(cut.index(message.len()) + 1);
        }
        for channel in ["socket.io#/#", "socket.io", "socket.io-request#/#"] {
            if let Ok(Request::Event(draft)) = read(channel, &message) {
                prop_assert_eq!(draft.check(&LIMITS), Ok(()));
                prop_assert!(Args::list(draft.args.as_array()).is_ok());
            }
        }
        let fields = [(b"type".to_vec(), b"3".to_vec()), (b"data".to_vec(), message)];
        prop_assert!(!matches!(streams::decode(&fields, &LIMITS), Ok(Request::SessionCommand(_))));
    }
}
