use super::*;
use crate::model::args::Args;
use redis::Arg;

const LIMITS: DraftLimits = DraftLimits { max_event: 1000, room_name_bytes: 50, rooms: 3 };

fn fields(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// The library's `decode` of fields that a test owns.
fn decode(fields: &[(Vec<u8>, Vec<u8>)], limits: &DraftLimits) -> Result<StreamEntry<'static>, DraftError> {
    let fields: &'static RawFields = Box::leak(Box::new(fields.to_vec()));
    super::decode(Box::leak(borrowed(fields).into_boxed_slice()), limits, |_, _, _| true)
}

fn read(pairs: &[(&str, &str)]) -> (Draft, Option<u64>) {
    match decode(&fields(pairs), &LIMITS) {
        Ok(StreamEntry::Event(draft, accepted)) => (draft, accepted),
        other => panic!("{other:?}"),
    }
}

fn written(draft: &Draft) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut command = redis::cmd("XADD");
    encode(draft, 42, None, &mut command);
    let args: Vec<Vec<u8>> = command
        .args_iter()
        .skip(1)
        .map(|arg| match arg {
            Arg::Simple(bytes) => bytes.to_vec(),
            _ => panic!("no cursor"),
        })
        .collect();
    args.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

#[test]
fn what_others_add_is_read() {
    let (draft, accepted) = read(&[("room", "conversation:42"), ("event", "new_message"), ("data", "{\"id\":9}")]);
    let args = Args::one("{\"id\":9}").unwrap();
    assert_eq!(draft, Draft::new("conversation:42", "new_message", args, Source::Stream));
    assert_eq!(accepted, None);
    let (draft, _) = read(&[
        ("event", "e"),
        ("rooms", "[\"a\", \"b\"]"),
        ("args", "[1, \"x\"]"),
        ("except", "[\"c\"]"),
        ("namespace", "/chat"),
        ("volatile", "true"),
        ("id", "i"),
    ]);
    assert_eq!((draft.rooms.len(), draft.args.count(), &*draft.except[0], draft.volatile), (2, 2, "c", true));
    assert_eq!((&*draft.namespace, draft.id.as_deref()), ("/chat", Some("i")));
    assert_eq!(read(&[("room", "a"), ("event", "e")]).0.args, Args::none());
}

#[test]
fn what_is_written_is_read_back() {
    let mut draft = Draft::new("r", "e", Args::one("{\"n\":9007199254740993 }").unwrap(), Source::Http);
    for _ in 0..2 {
        let Ok(StreamEntry::Event(back, accepted)) = decode(&written(&draft), &LIMITS) else { panic!() };
        assert_eq!((back, accepted), (draft.clone(), Some(42)));
        draft.rooms = vec!["a\"b".into(), "ö".into()];
        draft.except = vec!["c".into()];
        draft.args = Args::list("[ 1 ,[2]]").unwrap();
        draft.namespace = "/chat".into();
        draft.id = Some("x".into());
        draft.source = Source::Client;
    }
    let id = Id::random();
    let probe = decode(&fields(&[("probe", &id.to_string())]), &LIMITS);
    assert!(matches!(probe, Ok(StreamEntry::Probe(back)) if back == id));
}

#[test]
fn each_mistake_is_named() {
    let long = format!("\"{}\"", "x".repeat(2000));
    let many = format!("[{}]", ["{ \"$binary\" : \"AA==\"}"; 11].join(","));
    let names = format!("[{}]", ["\"r\""; 2000].join(","));
    for (code, pairs) in [
        ("no_room", &[("event", "e")][..]),
        ("no_room", &[("event", "e"), ("rooms", "[]")]),
        ("bad_field", &[("room", "r")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("dat", "1")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("event", "e")]),
        ("bad_field", &[("room", "r"), ("rooms", "[\"s\"]"), ("event", "e")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("data", "1"), ("args", "[2]")]),
        ("bad_field", &[("rooms", "a,b"), ("event", "e")]),
        ("bad_field", &[("rooms", "[7]"), ("event", "e")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("volatile", "yes")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("t", "-1")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("src", "mars")]),
        ("bad_field", &[("probe", "x")]),
        ("bad_field", &[("probe", "x"), ("room", "r")]),
        ("bad_json", &[("room", "r"), ("event", "e"), ("data", "{oops")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("args", "1")]),
        ("bad_json", &[("room", "r"), ("event", "e"), ("args", "[oops")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("v", "1")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("kind", "x")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("t", "1"), ("v", "2")]),
        ("bad_field", &[("room", "r"), ("event", "e"), ("t", "1"), ("t", "1")]),
        ("bad_json", &[("order", "{}")]),
        ("reserved_event", &[("room", "r"), ("event", "disconnect")]),
        ("bad_room", &[("room", ""), ("event", "e")]),
        ("event_too_big", &[("room", "r"), ("event", "e"), ("data", &long)]),
        ("too_many_attachments", &[("room", "r"), ("event", "e"), ("args", &many)]),
        ("too_many_rooms", &[("rooms", &names), ("event", "e")]),
    ] {
        let error = decode(&fields(pairs), &LIMITS).expect_err(code);
        assert_eq!(error.code(), code, "{error}");
    }
    for (args, except) in [("", ""), ("null", "null"), ("[]", "[]")] {
        let zeroed = [
            ("room", ""),
            ("rooms", "[\"42\"]"),
            ("event", "e"),
            ("data", "1"),
            ("args", args),
            ("except", except),
            ("id", ""),
        ];
        let Ok(StreamEntry::Event(draft, _)) = decode(&fields(&zeroed), &LIMITS) else {
            panic!("typed languages write all fields")
        };
        assert_eq!((&*draft.rooms[0], draft.args.as_array(), draft.id), ("42", "[1]", None));
        assert!(draft.except.is_empty());
    }
    let mut raw = fields(&[("room", "r"), ("event", "e")]);
    raw.push((b"data".to_vec(), vec![b'"', 0xff, b'"']));
    assert_eq!(decode(&raw, &LIMITS).unwrap_err().to_string(), "`data` is not UTF-8");
    raw[2].0 = vec![0xff; 100];
    assert_eq!(decode(&raw, &LIMITS).unwrap_err().code(), "bad_field");
    assert_eq!(decode(&[], &LIMITS).unwrap_err().code(), "no_room");
}

#[test]
fn what_nodes_of_a_newer_release_write_is_read() {
    let (draft, accepted) = read(&[
        ("room", "r"),
        ("event", "e"),
        ("ttl", "60"),
        ("t", "42"),
        ("src", "scheduler"),
        ("trace", "\u{fffd}"),
        ("v", "1"),
    ]);
    assert_eq!((draft, accepted), (Draft::new("r", "e", Args::none(), Source::Http), Some(42)));
    let id = Id::random();
    let probe = decode(&fields(&[("probe", &id.to_string()), ("since", "5")]), &LIMITS);
    assert!(matches!(probe, Ok(StreamEntry::Probe(read)) if read == id));
    let command = format!(
        r#"{{"id":"{id}","from":"{}","for":{{"user":"7"}},"do":"disconnect","reason":"x"}}"#,
        crate::model::id::NodeId::random()
    );
    let command = decode(&fields(&[("order", &command), ("t", "1")]), &LIMITS);
    assert!(matches!(command, Ok(StreamEntry::SessionCommand(command)) if command.id == id));
    let unknown = decode(&fields(&[("kind", "schedule"), ("at", "5")]), &LIMITS);
    assert!(matches!(unknown, Ok(StreamEntry::Unsupported)));
}

#[test]
fn a_trace_goes_with_its_event_and_a_malformed_one_is_ignored() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let event = [("room", "r"), ("event", "e")];
    let (mut draft, _) = read(&[&event[..], &[("traceparent", parent), ("tracestate", "a=1")]].concat());
    assert_eq!(draft.trace.as_ref().map(ToString::to_string).as_deref(), Some(parent));
    draft.source = Source::Http;
    let Ok(StreamEntry::Event(back, _)) = decode(&written(&draft), &LIMITS) else { panic!() };
    assert_eq!(back, draft);
    let unsampled = parent.replace("-01", "-00");
    for ignored in ["", "x", unsampled.as_str()] {
        assert_eq!(read(&[&event[..], &[("traceparent", ignored)]].concat()).0.trace, None, "{ignored}");
    }
    let mut fields = fields(&event);
    fields.push((b"traceparent".to_vec(), vec![0xff]));
    assert!(matches!(decode(&fields, &LIMITS), Ok(StreamEntry::Event(..))));
    assert!(
        !written(&Draft::new("r", "e", Args::none(), Source::Http)).iter().any(|(name, _)| name.starts_with(b"trace"))
    );
}

#[test]
fn an_entry_of_a_node_is_void_after_its_deadline() {
    let decode = |ms, pairs: &[(&str, &str)]| {
        let raw = RawEntry { position: Position { ms, seq: 3 }, fields: fields(pairs), cut: None };
        raw.entry(&raw.borrowed()).decode(&LIMITS).map(|entry| format!("{entry:?}"))
    };
    let is_void = |ms, pairs: &[(&str, &str)]| decode(ms, pairs).is_ok_and(|entry| entry == "Void");
    let event = [("room", "a"), ("event", "e"), ("t", "1"), ("until", "1000")];
    let command = [("order", "{}"), ("until", "1000")];
    let probe = [("probe", "x"), ("until", "1000")];
    for pairs in [&event[..], &command, &probe] {
        assert!(is_void(1001, pairs) && !is_void(1000, pairs), "{pairs:?}");
    }
    assert!(decode(1000, &event).is_ok_and(|entry| entry.starts_with("Event")));
    let strange = [("room", "a"), ("event", "e"), ("until", "1000")];
    assert!(matches!(decode(1001, &strange), Err(DraftError::Field(_))), "another publisher's");
    let garbage = [("room", "a"), ("event", "e"), ("t", "1"), ("until", "soon")];
    assert!(decode(1001, &garbage).is_ok_and(|entry| entry.starts_with("Event")));
}

/// What an entry is where nothing is wanted, and the rooms that were asked for.
fn skimmed(pairs: &[(&str, &str)]) -> (Result<String, DraftError>, Vec<String>) {
    let (fields, mut asked) = (fields(pairs), Vec::new());
    let read = super::decode(&borrowed(&fields), &LIMITS, |_, namespace, room| {
        asked.push(format!("{namespace}{room}"));
        false
    })
    .map(|entry| format!("{entry:?}").split('(').next().unwrap_or_default().to_owned());
    (read, asked)
}

#[test]
fn an_event_that_nobody_wants_is_not_decoded() {
    for (pairs, rooms) in [
        (&[("room", "a"), ("event", "e")][..], &["/a"][..]),
        (&[("room", "a"), ("event", "e"), ("data", r#"{"n":[1]}"#), ("id", "i"), ("volatile", "true")], &["/a"]),
        (&[("room", "a"), ("event", "e"), ("args", " [1, 2]"), ("namespace", "/chat")], &["/chata"]),
        (&[("rooms", r#"["a", "\u0062"]"#), ("event", "e"), ("t", "1"), ("src", "client")], &["/a", "/b"]),
        (&[("room", "a"), ("event", "e"), ("except", r#"["b"]"#), ("t", "1")], &["/a"]),
    ] {
        assert_eq!(
            skimmed(pairs),
            (Ok("Unwanted".into()), rooms.iter().map(ToString::to_string).collect()),
            "{pairs:?}"
        );
    }
    let wanted = |room: &'static str| {
        let fields = fields(&[("rooms", r#"["a","b"]"#), ("event", "e")]);
        read_wanted(&fields, &LIMITS, |_, asked| asked == room).unwrap().is_some()
    };
    assert!(wanted("a") && wanted("b") && !wanted("c"));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = [("room", "a"), ("event", "e"), ("traceparent", parent)];
    assert_eq!(skimmed(&traced), (Ok("Event".into()), vec![]), "each node tells how many got it");
}

#[test]
fn what_is_malformed_is_found_where_nobody_wants_it() {
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for (code, pairs) in [
        ("bad_field", &[("room", "a"), ("event", "e"), ("dat", "1")][..]),
        ("bad_room", &[("room", ""), ("event", "e")]),
        ("bad_json", &[("room", "a"), ("event", "e"), ("data", "{oops")]),
        ("bad_json", &[("room", "a"), ("event", "e"), ("data", &deep)]),
        ("bad_field", &[("room", "a"), ("event", "e"), ("args", "1")]),
        ("bad_field", &[("room", "a"), ("event", "e"), ("data", r#"{"$binary":"?"}"#)]),
        ("bad_field", &[("room", "a"), ("event", "e"), ("except", "b")]),
        ("bad_namespace", &[("room", "a"), ("event", "e"), ("namespace", "chat")]),
        ("reserved_event", &[("room", "a"), ("event", "connect")]),
        ("no_room", &[("event", "e")]),
    ] {
        assert_eq!(skimmed(pairs).0.map_err(|error| error.code()), Err(code), "{pairs:?}");
    }
}
