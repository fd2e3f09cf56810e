//! The table of docs/protocol/socketio.md section 3.3, the vectors of the real parser, and the attacks.

use super::*;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::Value;

fn one(text: &str) -> Result<Option<Packet>, DecodeError> {
    Decoder::new().text(text)
}

fn event_of(text: &str) -> (String, String, Option<String>) {
    match one(text) {
        Ok(Some(Packet::Event { event, args, ack, .. })) => {
            (event.into(), args.as_array().to_owned(), ack.map(String::from))
        }
        other => panic!("{text}: {other:?}"),
    }
}

/// A header and its attachments.
fn with_binary(header: &str, attachments: &[&[u8]]) -> Result<Option<Packet>, DecodeError> {
    let mut decoder = Decoder::new();
    let mut result = decoder.text(header);
    for attachment in attachments {
        assert_eq!(result, Ok(None));
        result = decoder.binary(attachment);
    }
    result
}

#[test]
fn connects() {
    let connect = |text| match one(text) {
        Ok(Some(Packet::Connect { namespace, auth })) => (namespace.to_string(), auth.map(String::from)),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(connect("0"), ("/".into(), None));
    assert_eq!(connect("0{\"token\":\"123\"}"), ("/".into(), Some("{\"token\":\"123\"}".into())));
    assert_eq!(connect("0/admin,{\"a\": 1}"), ("/admin".into(), Some("{\"a\": 1}".into())));
    for (text, namespace) in
        [("0/admin,", "/admin"), ("0/admin", "/admin"), ("0/,", "/"), ("0/admin?token=1,", "/admin?token=1")]
    {
        assert_eq!(connect(text), (namespace.into(), None));
    }
    assert_eq!(connect("05"), ("/".into(), None));
    assert_eq!(connect("01{}"), ("/".into(), Some("{}".into())));
    for bad in ["0[]", "0\"x\"", "0null", "0{", "0{}x", "0/admin,[]"] {
        assert_eq!(one(bad), Err(DecodeError::BadPayload), "{bad}");
    }
    assert_eq!(one("4{\"message\":\"x\"}"), Err(DecodeError::UnknownType));
    assert_eq!(one(""), Err(DecodeError::UnknownType));
}

#[test]
fn events_keep_the_bytes_of_their_arguments() {
    assert_eq!(event_of("2[\"x\"]"), ("x".into(), "[]".into(), None));
    assert_eq!(
        event_of("212[ \"x\" , {\"b\" : 1,\"a\":1.0} , \"\\u00e9\" ] "),
        ("x".into(), "[{\"b\" : 1,\"a\":1.0} , \"\\u00e9\" ]".into(), Some("12".into()))
    );
    assert_eq!(event_of("2[\"x\",9007199254740993]").1, "[9007199254740993]");
    assert_eq!(event_of("2[\"x\",\"\\ud800\"]").1, "[\"\\ud800\"]");
    assert_eq!(event_of("2[\"a\\\"\\u0062\"]").0, "a\"b");
    assert_eq!(event_of("2[7,1]"), ("7".into(), "[1]".into(), None));
    assert_eq!(event_of("2[\"connection\"]").0, "connection");
    assert_eq!(event_of("2"), (String::new(), "[]".into(), None));
    assert_eq!(event_of("21"), (String::new(), "[]".into(), Some("1".into())));
    assert_eq!(event_of("2[\"x\",{\"_placeholder\":true,\"num\":0}]").1, "[{\"_placeholder\":true,\"num\":0}]");
}

#[test]
fn ids_are_echoed_as_javascript_would() {
    let id = |digits: &str| event_of(&format!("2{digits}[\"x\"]")).2.unwrap();
    assert_eq!(id("0"), "0");
    assert_eq!(id("007"), "7");
    assert_eq!(id("99999999999999999999"), "100000000000000000000");
    assert_eq!(id("9007199254740993"), "9007199254740992");
    assert_eq!(id(" "), "0");
    assert_eq!(id("999999999999999900000"), "999999999999999900000");
    for bad in ["1000000000000000000000", "999999999999999999999", &"9".repeat(1 << 20), "1 2"] {
        assert_eq!(one(&format!("2{bad}[\"x\"]")), Err(DecodeError::BadAckId));
    }
    assert_eq!(event_of(&format!("2{}[\"x\"]", "0".repeat(1 << 20))).2.unwrap(), "0");
}

#[test]
fn acknowledgements() {
    let Ok(Some(Packet::Ack { namespace, id, args })) = one("3/admin,12[\"ok\", 1]") else { panic!() };
    assert_eq!((&*namespace, &*id, args.as_array()), ("/admin", "12", "[\"ok\", 1]"));
    assert_eq!(one("3[]"), Ok(None));
    assert_eq!(one("31{}"), Err(DecodeError::BadPayload));
    assert_eq!(with_binary("61-[{\"_placeholder\":true,\"num\":0}]", &[b"a"]), Ok(None));
}

#[test]
fn reserved_names_are_refused() {
    for name in RESERVED_EVENTS {
        assert_eq!(one(&format!("2[\"{name}\"]")), Err(DecodeError::ReservedEvent));
        assert_eq!(one(&format!("51-[\"{name}\",{{}}]")), Err(DecodeError::ReservedEvent));
        let escaped = format!("\\u00{:02x}{}", name.as_bytes()[0], &name[1..]);
        assert_eq!(one(&format!("2[\"{escaped}\"]")), Err(DecodeError::ReservedEvent));
    }
}

#[test]
fn names_are_read_as_javascript_reads_them() {
    for (json, name) in
        [(r#""\ud800""#, "\u{fffd}"), (r#""a\udfffb""#, "a\u{fffd}b"), ("42.0", "42"), ("4.2e1", "42"), ("-0", "0")]
    {
        assert_eq!(event_of(&format!("2[{json},1]")).0, name);
    }
}

#[test]
fn attachments_take_the_place_of_their_placeholders() {
    let Ok(Some(Packet::Event { namespace, ack, event, args })) = with_binary(
        "52-/admin,7[\"up\", {\"a\": {\"num\":1, \"_placeholder\":true}} ,{\"_placeholder\":true,\"num\":0}]",
        &[b"zero", &[]],
    ) else {
        panic!()
    };
    assert_eq!((&*namespace, ack.as_deref(), &*event), ("/admin", Some("7"), "up"));
    assert_eq!(args.as_array(), "[{\"a\": {\"$binary\":\"\"}} ,{\"$binary\":\"emVybw==\"}]");
    assert!(args.may_hold_binary());
}

#[test]
fn attachments_are_bounded() {
    for bad in ["50-[\"x\"]", "5-[\"x\"]", "5[\"x\"]", "5a-[\"x\"]", "5-1-[\"x\"]", "51", "60-[]"] {
        assert_eq!(one(bad), Err(DecodeError::BadAttachmentCount), "{bad}");
    }
    for bad in ["511-[\"x\"]", "599999999999999999999-[\"x\"]", "61000000-1[]"] {
        assert_eq!(one(bad), Err(DecodeError::TooManyAttachments), "{bad}");
    }
    let mut decoder = Decoder::new();
    assert_eq!(decoder.text("52-[\"x\"]"), Ok(None));
    assert_eq!(decoder.binary_within(&[0; 60], 100), Ok(None));
    assert_eq!(decoder.binary_within(&[0; 41], 100), Err(DecodeError::TooBig));
    assert!(!decoder.is_pending());
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
}

#[test]
fn placeholders_must_name_an_attachment_of_their_own() {
    for num in ["1", "-1", "\"0\"", "null", "0.5", "[0]", "18446744073709551616"] {
        let header = format!("51-[\"x\",{{\"_placeholder\":true,\"num\":{num}}}]");
        assert_eq!(with_binary(&header, &[b"a"]), Err(DecodeError::BadPlaceholder), "{num}");
    }
    assert_eq!(with_binary("51-[\"x\",{\"_placeholder\":true}]", &[b"a"]), Err(DecodeError::BadPlaceholder));
    // 25 bytes each that would grow to the size of the attachment.
    let bomb = format!("51-[\"x\"{}]", ",{\"_placeholder\":true,\"num\":0}".repeat(30_000));
    assert_eq!(with_binary(&bomb, &[&[0; 100_000]]), Err(DecodeError::BadPlaceholder));
}

#[test]
fn packets_must_not_cut_into_a_binary_one() {
    let mut decoder = Decoder::new();
    assert_eq!(decoder.binary(b"a"), Err(DecodeError::UnexpectedBinary));
    assert_eq!(decoder.text("51-[\"x\"]"), Ok(None));
    assert_eq!(decoder.text("2[\"y\"]"), Err(DecodeError::UnexpectedText));
}

#[test]
fn nesting_and_names_are_bounded() {
    let nested = |depth: usize| format!("2[\"x\",{}{}]", "[".repeat(depth), "]".repeat(depth));
    assert!(one(&nested(MAX_JSON_DEPTH - 1)).is_ok());
    assert_eq!(one(&nested(MAX_JSON_DEPTH)), Err(DecodeError::TooDeep));
    assert_eq!(one(&nested(10_000)), Err(DecodeError::TooDeep));
    assert_eq!(one(&format!("2[\"x\",{}", "[".repeat(1 << 20))), Err(DecodeError::TooDeep));
    assert_eq!(one(&format!("2{}", "[".repeat(1 << 20))), Err(DecodeError::BadPayload));
    assert_eq!(one(&format!("0{}1{}", "{\"a\":".repeat(200), "}".repeat(200))), Err(DecodeError::TooDeep));
    assert_eq!(one(&format!("31{}{}", "[".repeat(200), "]".repeat(200))), Err(DecodeError::TooDeep));
    assert!(one(&format!("0/{},", "n".repeat(MAX_NAMESPACE - 1))).is_ok());
    assert_eq!(one(&format!("0/{},", "n".repeat(MAX_NAMESPACE))), Err(DecodeError::NamespaceTooLong));
    assert_eq!(one("0/a\x1e4,"), Err(DecodeError::BadNamespace), "it would split the payload that answers it");
    assert_eq!(one(&format!("2[\"x\",{}]", "9".repeat(1_000_000))).map(|packet| packet.is_some()), Ok(true));
}

/// What `tests/vectors/capture.mjs` wrote.
#[derive(Deserialize)]
struct Vectors<'a> {
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    #[serde(borrow)]
    frames: Vec<&'a RawValue>,
    #[serde(borrow)]
    decoded: Vec<Decoded<'a>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct Decoded<'a> {
    r#type: u8,
    nsp: String,
    id: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl Decoded<'_> {
    /// Compares the meaning of the data: JavaScript has parsed it, we keep its text.
    fn is(&self, packet: &Packet) -> bool {
        let data = |text: &str| {
            // A lone surrogate is no string for serde; it is replaced on both sides.
            let value: Value = serde_json::from_str(&text.replace("\\ud800", "?")).unwrap();
            numbers_as_doubles(value)
        };
        let own = self.data.map(|raw| data(raw.get()));
        let list = |args: &Args| Some(data(args.as_array()));
        match packet {
            Packet::Connect { namespace, auth } => {
                self.r#type == 0 && self.nsp == **namespace && own == auth.as_deref().map(data)
            }
            Packet::Disconnect { namespace } => self.r#type == 1 && self.nsp == **namespace,
            Packet::Ack { namespace, id, args } => {
                let own = own.or_else(|| Some(data("[]")));
                (self.r#type, &*self.nsp, self.id.as_deref()) == (3, namespace, Some(id)) && own == list(args)
            }
            Packet::Event { namespace, ack, event, args } => {
                let own = own.unwrap_or_else(|| data("[\"\"]"));
                let name = match &own[0] {
                    Value::String(name) => **name == **event,
                    number => number.as_f64() == event.parse().ok(),
                };
                let rest = own.as_array().map(|all| Value::from(&all[1..]));
                (self.r#type, &*self.nsp, &self.id) == (2, namespace, &ack.as_ref().map(ToString::to_string))
                    && name
                    && rest == list(args)
            }
        }
    }
}

fn numbers_as_doubles(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().into(),
        Value::Array(list) => list.into_iter().map(numbers_as_doubles).collect(),
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, numbers_as_doubles(value))).collect(),
        other => other,
    }
}

#[test]
fn the_real_decoder_decides_the_same() {
    let vectors: Vectors<'_> = serde_json::from_str(include_str!("../../../tests/vectors/socketio.json")).unwrap();
    assert!(vectors.inputs.len() > 100);
    for input in &vectors.inputs {
        let (mut decoder, mut packets, mut failed) = (Decoder::new(), Vec::new(), false);
        for frame in &input.frames {
            let result = match serde_json::from_str(frame.get()).unwrap() {
                Value::String(text) => decoder.text(&text),
                object => decoder.binary(&STANDARD.decode(object["$binary"].as_str().unwrap()).unwrap()),
            };
            match result {
                Ok(packet) => packets.extend(packet),
                Err(_) => failed = true,
            }
        }
        let frames = &input.frames;
        // The reference reads this id as NaN and would acknowledge with `3NaN[…]`.
        if frames[0].get() == "\"21 2[\\\"x\\\"]\"" {
            assert!(failed);
            continue;
        }
        assert_eq!(failed, input.error.is_some(), "{frames:?}: {:?}", input.error);
        assert_eq!(packets.len(), input.decoded.len(), "{frames:?}: {packets:?}");
        for (expected, packet) in input.decoded.iter().zip(&packets) {
            assert!(expected.is(packet), "{frames:?}: {packet:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_decoded_without_panic(
        texts in prop::collection::vec("[0-7/,\\-\\[\\]{}\"a1 _é]{0,20}", 1..4), bytes: Vec<u8>,
    ) {
        let mut decoder = Decoder::new();
        for text in texts {
            let _ = decoder.text(&text);
            let _ = decoder.binary(&bytes);
        }
    }
}
