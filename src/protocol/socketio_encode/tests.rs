//! The vectors of the real encoder, the hot path against it, and round trips through our decoder.

use super::*;
use crate::model::draft::{Draft, Source};
use crate::model::offset::{Epoch, Position};
use crate::model::partition::Line;
use crate::protocol::{engineio, socketio};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

fn list(json: &str) -> Args {
    Args::list(json).unwrap()
}

fn of_namespace(namespace: &str, name: &str, args: Args) -> Event {
    let offset =
        Offset { epoch: Epoch(0xe7c2), position: Position { ms: 1_795_225_216_959, seq: 0 }, line: Line::CONTROL };
    let draft = Draft { namespace: namespace.into(), ..Draft::new("r", name, args, Source::Http) };
    Event { offset, draft, accepted_us: 0, after: None }
}

#[derive(Deserialize)]
struct Vectors<'a> {
    #[serde(borrow)]
    encoded: Vec<Vector<'a>>,
}

#[derive(Deserialize)]
struct Vector<'a> {
    r#type: u8,
    nsp: String,
    id: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    frames: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Connected {
    sid: String,
    pid: Option<String>,
}

#[derive(Deserialize)]
struct Refused<'a> {
    message: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Vector<'_> {
    fn ours(&self) -> Encoded {
        let data = self.data.map_or("[]", RawValue::get);
        match self.r#type {
            0 => {
                let connected: Connected = serde_json::from_str(data).unwrap();
                connect(&self.nsp, &connected.sid, connected.pid.as_deref())
            }
            1 => disconnect(&self.nsp),
            2 => {
                let all: Vec<&RawValue> = serde_json::from_str(data).unwrap();
                let name: String = serde_json::from_str(all[0].get()).unwrap();
                let rest = serde_json::to_string(&all[1..]).unwrap();
                event(&self.nsp, &name, &list(&rest), None, self.id).unwrap()
            }
            3 => ack(&self.nsp, &self.id.unwrap().to_string(), &list(data)).unwrap(),
            4 => {
                let refused: Refused<'_> = serde_json::from_str(data).unwrap();
                connect_error(&self.nsp, &refused.message, refused.data.map(RawValue::get))
            }
            other => panic!("type {other}"),
        }
    }

    fn theirs(&self) -> Encoded {
        let text = serde_json::from_str(self.frames[0].get()).unwrap();
        let attachments = self.frames[1..].iter().map(|frame| {
            let frame: serde_json::Value = serde_json::from_str(frame.get()).unwrap();
            STANDARD.decode(frame["$binary"].as_str().unwrap()).unwrap()
        });
        Encoded { text, attachments: attachments.collect() }
    }
}

#[test]
fn packets_are_those_of_the_real_encoder() {
    let vectors: Vectors<'_> = serde_json::from_str(include_str!("../../../tests/vectors/socketio.json")).unwrap();
    assert!(vectors.encoded.len() > 20);
    for vector in vectors.encoded {
        assert_eq!(vector.ours(), vector.theirs());
    }
}

#[test]
fn frames_and_payloads_carry_the_engine_io_type() {
    let packet = event("/", "bin", &list("[{\"$binary\":\"AQI=\"}]"), None, None).unwrap();
    let text = "451-[\"bin\",{\"_placeholder\":true,\"num\":0}]";
    let frames = [&[0x81, u8::try_from(text.len()).unwrap()], text.as_bytes(), &[0x82, 2, 1, 2]].concat();
    assert_eq!(packet.frames(), frames);
    assert_eq!(packet.payload(), format!("{text}\x1ebAQI="));
    assert_eq!(disconnect("/").payload(), "41");
}

#[test]
fn the_offset_is_the_last_argument() {
    assert_eq!(event("/", "e", &list("[1]"), Some("o-1"), None).unwrap().text, "2[\"e\",1,\"o-1\"]");
    assert_eq!(event("/a", "e", &Args::none(), Some("o"), None).unwrap().text, "2/a,[\"e\",\"o\"]");
    let one = of_namespace("/", "hi", list("[ {\"a\": 1} , 2]"));
    assert_eq!(event_payload(&one, true), "42[\"hi\",{\"a\": 1} , 2,\"e7c2-1795225216959-0\"]");
    assert_eq!(event_payload(&one, false), "42[\"hi\",{\"a\": 1} , 2]");
    let none = of_namespace("/n", "hi", Args::none());
    assert_eq!(event_payload(&none, true), "42/n,[\"hi\",\"e7c2-1795225216959-0\"]");
    assert_eq!(event_payload(&none, false), "42/n,[\"hi\"]");
}

#[test]
fn binary_values_become_attachments_and_nothing_else_does() {
    let args = list("[ {\"a\" : {\"$binary\" : \"AQ==\"}},\"{\\\"$binary\\\":\\\"x\\\"}\", {\"$binary\":\"\\/w==\"} ]");
    let packet = event("/", "e", &args, None, None).unwrap();
    let first = "{\"_placeholder\":true,\"num\":0}";
    let second = "{\"_placeholder\":true,\"num\":1}";
    assert_eq!(packet.text, format!("52-[\"e\",{{\"a\" : {first}}},\"{{\\\"$binary\\\":\\\"x\\\"}}\", {second}]"));
    assert_eq!(packet.attachments, [vec![1], vec![0xff]]);
    assert_eq!(binary_values(&args), Ok(2));
    assert_eq!(binary_values(&list("[{\"$binary\":\"AQ==\",\"x\":1}]")), Ok(0));
    assert_eq!(binary_values(&list("[{\"$binary\":1}]")), Ok(0));
}

#[test]
fn what_ingest_must_refuse() {
    for bad in ["!", "A", "AQIDB", "A=QI", "AQ===", "é", "\\ud800"] {
        assert_eq!(binary_values(&list(&format!("[{{\"$binary\":\"{bad}\"}}]"))), Err(EncodeError::BadBase64), "{bad}");
    }
    let many = |count: usize| list(&format!("[{}]", vec!["{\"$binary\":\"\"}"; count].join(",")));
    assert_eq!(binary_values(&many(11)), Ok(11));
    assert!(event("/", "e", &many(10), None, None).is_ok());
    assert_eq!(event("/", "e", &many(11), None, None), Err(EncodeError::TooManyAttachments));
    // Clients would look for attachment 9 and drop the connection, all of them.
    for hidden in ["_placeholder", "\\u005fplaceholder"] {
        let poison = list(&format!("[{{\"$binary\":\"\"}},{{\"{hidden}\":true,\"num\":9}}]"));
        assert_eq!(binary_values(&poison), Err(EncodeError::Placeholder));
        assert_eq!(ack("/", "1", &poison), Err(EncodeError::Placeholder));
    }
    assert_eq!(binary_values(&list("[{\"_placeholder\":true,\"num\":9}]")), Ok(0));
}

#[test]
fn bad_binary_that_got_through_goes_out_as_plain_data() {
    let event = of_namespace("/", "e", list("[{\"$binary\":\"!\"}]"));
    assert_eq!(event_payload(&event, false), "42[\"e\",{\"$binary\":\"!\"}]");
    assert_eq!(&event_frames(&event, false)[2..], b"42[\"e\",{\"$binary\":\"!\"}]");
}

fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just(" true ".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        prop::collection::vec(any::<u8>(), 0..9).prop_map(|b| format!("{{ \"$binary\":\"{}\"}}", STANDARD.encode(b))),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::vec((any::<String>(), inner), 0..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| format!("{}:{value}", serde_json::to_string(key).unwrap()))
                    .collect();
                format!("{{{}}}", pairs.join(" ,"))
            }),
        ]
    })
}

/// The text of the arguments with each binary value in its canonical spelling, as the decoder writes it.
fn canonical(json: &str) -> String {
    json.replace("{ \"$binary\"", "{\"$binary\"")
}

proptest! {
    #[test]
    fn events_come_back_as_they_were(
        namespace in prop_oneof![Just("/".to_owned()), Just("/admin".to_owned())],
        name in "[a-z\"\\\\é\n]{1,10}",
        values in prop::collection::vec(json(), 0..4),
        ack in prop::option::of(0u64..1000),
    ) {
        let args = list(&format!("[{}]", values.join(",")));
        let encoded = event(&namespace, &name, &args, None, ack);
        prop_assume!(encoded != Err(EncodeError::TooManyAttachments));
        let encoded = encoded.unwrap();
        let mut decoder = socketio::Decoder::new();
        let mut packet = decoder.text(&encoded.text).unwrap();
        for attachment in &encoded.attachments {
            prop_assert_eq!(&packet, &None);
            packet = decoder.binary(attachment).unwrap();
        }
        let expected = socketio::Packet::Event {
            namespace: namespace.as_str().into(),
            ack: ack.map(|ack| ack.to_string().into()),
            event: name.as_str().into(),
            args: list(&format!("[{}]", canonical(args.inner()))),
        };
        prop_assert_eq!(packet, Some(expected));
    }

    #[test]
    fn the_hot_path_writes_what_the_encoder_does(
        namespace in prop_oneof![Just("/".to_owned()), Just("/chat".to_owned())],
        name in any::<String>(),
        values in prop::collection::vec(json(), 0..4),
        with_offset: bool,
    ) {
        let event = of_namespace(&namespace, &name, list(&format!("[{}]", values.join(","))));
        let offset = event.offset.to_string();
        let offset = with_offset.then_some(offset.as_str());
        if let Ok(encoded) = crate::protocol::socketio_encode::event(&namespace, &name, &event.draft.args, offset, None) {
            prop_assert_eq!(event_frames(&event, with_offset), encoded.frames());
            prop_assert_eq!(event_payload(&event, with_offset), encoded.payload());
            let payload = event_payload(&event, with_offset);
            let packets: Result<Vec<_>, _> = engineio::parse_payload(str::from_utf8(&payload).unwrap()).collect();
            prop_assert_eq!(packets.unwrap().len(), 1 + encoded.attachments.len());
        }
    }
}
