//! Bodies of `POST /publish`: one event, a batch, or NDJSON (docs/http-api.md, "POST /publish"). Sans-IO.

use crate::model::args::{MAX_JSON_DEPTH, is_too_deep};
use crate::model::draft::{Draft, DraftError, DraftLimits, Source};
use crate::protocol::event_fields::EventFields;
use serde_json::value::RawValue;

/// Events in one request.
pub const MAX_EVENTS: usize = 1_000;

/// What a request is. Its events are drafts by now, in order, but for those with an error.
#[derive(Debug)]
pub enum Publication {
    /// A single event, which has its own answer.
    One,
    /// A batch, answered by `results` in order: for each event what is wrong with it, or `None`.
    Batch(Vec<Option<DraftError>>),
}

/// Decodes a JSON body: one event, or `{"events":[…]}`. Adds its events to `drafts`.
///
/// # Errors
/// When the whole body is unusable. An error of one event of a batch is in its place in the batch.
pub fn decode_json(body: &str, limits: &DraftLimits, drafts: &mut Vec<Draft>) -> Result<Publication, DraftError> {
    check_depth(body)?;
    let mut fields = EventFields::from_json(body).map_err(|problem| explain(problem, body))?;
    let Some(events) = fields.take_batch()? else {
        drafts.push(fields.into_draft(Source::Http, limits)?);
        return Ok(Publication::One);
    };
    check_count(events.len())?;
    let decode = |event: &RawValue| take(decode_event(event.get(), limits), drafts);
    Ok(Publication::Batch(events.into_iter().map(decode).collect()))
}

/// Says how several events are sent, where a body looks like that.
fn explain(problem: DraftError, body: &str) -> DraftError {
    let how = "; several events are {\"events\":[…]}, or one a line with `Content-Type: application/x-ndjson`";
    match problem {
        DraftError::Field(why) if body.trim_start().starts_with('[') => DraftError::Field(why + how),
        // Lines of their own, the first of which was an event.
        DraftError::Json(why) if why.starts_with("trailing characters at line") => DraftError::Json(why + how),
        problem => problem,
    }
}

/// Decodes NDJSON: one event a line. Empty lines are skipped. Adds its events to `drafts`.
///
/// # Errors
/// When there are more than [`MAX_EVENTS`].
pub fn decode_ndjson(body: &str, limits: &DraftLimits, drafts: &mut Vec<Draft>) -> Result<Publication, DraftError> {
    let lines: Vec<_> = body.lines().filter(|line| !line.trim().is_empty()).collect();
    check_count(lines.len())?;
    let decode = |line: &&str| take(check_depth(line).and_then(|()| decode_event(line, limits)), drafts);
    Ok(Publication::Batch(lines.iter().map(decode).collect()))
}

/// Adds an event of a batch; `Some` is what is wrong with it.
fn take(event: Result<Draft, DraftError>, drafts: &mut Vec<Draft>) -> Option<DraftError> {
    event.map(|draft| drafts.push(draft)).err()
}

fn check_count(count: usize) -> Result<(), DraftError> {
    match count {
        0..=MAX_EVENTS => Ok(()),
        _ => Err(DraftError::Field(format!("{count} events in one request; at most {MAX_EVENTS} are allowed"))),
    }
}

fn check_depth(json: &str) -> Result<(), DraftError> {
    match is_too_deep(json) {
        true => Err(DraftError::Json(format!("nested deeper than {MAX_JSON_DEPTH} levels"))),
        false => Ok(()),
    }
}

fn decode_event(json: &str, limits: &DraftLimits) -> Result<Draft, DraftError> {
    EventFields::from_json(json)?.into_draft(Source::Http, limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DraftLimits = DraftLimits { max_event: 1_000_000, room_name_bytes: 200, rooms: 100 };

    fn json(body: &str) -> Result<Publication, DraftError> {
        decode_json(body, &LIMITS, &mut Vec::new())
    }

    fn one(body: &str) -> Result<Draft, DraftError> {
        let mut drafts = Vec::new();
        match decode_json(body, &LIMITS, &mut drafts)? {
            Publication::One => Ok(drafts.remove(0)),
            Publication::Batch(_) => panic!("not a single event"),
        }
    }

    #[test]
    fn a_single_event() {
        let draft = one(r#"{"room":"conversation:42","event":"new_message","data":{"id":9007199254740993}}"#).unwrap();
        assert_eq!((&*draft.rooms[0], &*draft.event), ("conversation:42", "new_message"));
        assert_eq!(draft.args.as_array(), r#"[{"id":9007199254740993}]"#);
        assert_eq!(one(r#"{"room":"r","event":"e"}"#).unwrap().args.count(), 0);
        assert_eq!(one(r#"{"room":"r","event":"e","args":[]}"#).unwrap().args.count(), 0);
        assert_eq!(one(r#"{"room":"r","event":"e","data":null}"#).unwrap().args.as_array(), "[null]");
        let draft = one(r#"{"rooms":["a","b"],"event":"e","args":[1, "x"],"except":["c"],"namespace":"/chat","volatile":true,"id":"i"}"#).unwrap();
        assert_eq!((draft.rooms.len(), draft.except.len(), draft.args.inner()), (2, 1, "1, \"x\""));
        assert!(draft.volatile && draft.id.as_deref() == Some("i") && &*draft.namespace == "/chat");
    }

    #[test]
    fn zero_values_of_typed_languages_mean_absent() {
        let draft = one(
            r#"{"room":"","rooms":["a"],"event":"e","data":{"n":1},"args":null,"except":null,"namespace":"","volatile":null,"id":""}"#,
        )
        .unwrap();
        assert_eq!((&*draft.rooms[0], draft.args.as_array(), &*draft.namespace), ("a", "[{\"n\":1}]", "/"));
        assert_eq!((draft.id, draft.except.len(), draft.volatile), (None, 0, false));
        let draft = one(r#"{"room":"a","rooms":[],"event":"e","data":null,"args":[1,2]}"#).unwrap();
        assert_eq!((draft.rooms.len(), draft.args.count()), (1, 2));
        assert_eq!(one(r#"{"room":"a","event":"e","args":null}"#).unwrap().args.count(), 0);
        assert_eq!(one(r#"{"room":"a","event":"e","data":7,"args":[]}"#).unwrap().args.as_array(), "[7]");
        for events in ["null", "[]"] {
            one(&format!(r#"{{"room":"a","event":"e","events":{events}}}"#)).unwrap();
            one(&format!(r#"{{"events":{events},"room":"a","event":"e"}}"#)).unwrap();
        }
    }

    #[test]
    fn zero_values_beside_a_batch_mean_absent() {
        let events = r#""events":[{"room":"r","event":"e"}]"#;
        let zero = r#""room":null,"rooms":[],"except":null,"event":"","data":null,"args":[],"namespace":"","volatile":false,"id":null"#;
        for body in [format!("{{{events},{zero}}}"), format!("{{{zero},{events}}}")] {
            let Ok(Publication::Batch(events)) = json(&body) else { panic!("{body}") };
            assert_eq!(events, [None]);
        }
        for other in [
            r#""room":"r""#,
            r#""except":["r"]"#,
            r#""event":"e""#,
            r#""data":1"#,
            r#""args":[1]"#,
            r#""namespace":"/n""#,
            r#""volatile":true"#,
            r#""id":"i""#,
            r#""colour":null"#,
            events,
        ] {
            let error = json(&format!("{{{events},{other}}}")).unwrap_err();
            assert_eq!(error.code(), "bad_field", "{other}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_replaced_in_names_of_events_and_refused_in_names_of_rooms() {
        let draft = one(r#"{"room":"a","event":"half \ud83d","data":"\ud83d"}"#).unwrap();
        assert_eq!(&*draft.event, "half \u{fffd}");
        assert_eq!(draft.args.as_array(), r#"["\ud83d"]"#);
        assert!(one(r#"{"room":"\ud83d","event":"e"}"#).is_err());
    }

    #[test]
    fn each_mistake_has_its_code() {
        let code = |body: &str| one(body).unwrap_err().code();
        assert_eq!(code("{"), "bad_json");
        assert_eq!(code("[]"), "bad_field");
        assert_eq!(code(r#"{"event":"e"}"#), "no_room");
        assert_eq!(code(r#"{"room":"r"}"#), "bad_field");
        assert_eq!(code(r#"{"room":7,"event":"e"}"#), "bad_field");
        assert_eq!(code(r#"{"room":"r","rooms":["r"],"event":"e"}"#), "bad_field");
        assert_eq!(code(r#"{"room":"r","event":"e","data":1,"args":[1]}"#), "bad_field");
        assert_eq!(code(r#"{"room":"r","event":"e","args":{}}"#), "bad_field");
        assert_eq!(code(r#"{"room":"r","event":"e","colour":1}"#), "bad_field");
        assert_eq!(code(r#"{"room":"r","room":"s","event":"e"}"#), "bad_field");
        assert_eq!(code(r#"{"room":"r","event":"connect"}"#), "reserved_event");
        assert_eq!(code(&format!(r#"{{"room":"r","event":"e","data":{}}}"#, "[".repeat(10_000))), "bad_json");
        let eleven = r#"{"$binary":"AA=="},"#.repeat(11);
        let body = format!(r#"{{"room":"r","event":"e","args":[{}]}}"#, eleven.trim_end_matches(','));
        assert_eq!(code(&body), "too_many_attachments");
    }

    #[test]
    fn a_list_is_no_event() {
        let how = "; several events are {\"events\":[…]}, or one a line with `Content-Type: application/x-ndjson`";
        let values = r#"["r",null,null,"e",1,null,null,null,null,null]"#;
        for body in [values, " []", r#"[{"room":"r","event":"e"}]"#] {
            let problem = json(body).unwrap_err();
            assert_eq!(
                (problem.code(), problem.to_string()),
                ("bad_field", format!("expected an object, not a list{how}"))
            );
        }
        let lines = "{\"room\":\"r\",\"event\":\"e\"}\n".repeat(2);
        let problem = json(&lines).unwrap_err();
        assert!(problem.code() == "bad_json" && problem.to_string().ends_with(how), "{problem}");
        for body in [format!(r#"{{"events":[{values}]}}"#), values.to_owned()] {
            let batch = if body == values { decode_ndjson(&body, &LIMITS, &mut Vec::new()) } else { json(&body) };
            let Ok(Publication::Batch(events)) = batch else { panic!("{body}") };
            assert_eq!(events, [Some(DraftError::Field("expected an object, not a list".into()))]);
        }
        assert_eq!(json("").unwrap_err().code(), "bad_json");
    }

    #[test]
    fn batches_fail_event_by_event() {
        let body = r#"{"events":[{"room":"r","event":"e"},{"room":"r"},{"room":"r","event":"f"}]}"#;
        let mut drafts = Vec::new();
        let Ok(Publication::Batch(events)) = decode_json(body, &LIMITS, &mut drafts) else { panic!() };
        assert_eq!(events.iter().map(Option::is_none).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!(drafts.iter().map(|draft| &*draft.event).collect::<Vec<_>>(), ["e", "f"]);
        let lines = "{\"room\":\"r\",\"event\":\"e\"}\n\n{\"room\"\n";
        let Ok(Publication::Batch(events)) = decode_ndjson(lines, &LIMITS, &mut drafts) else { panic!() };
        assert_eq!(events.iter().map(Option::is_none).collect::<Vec<_>>(), [true, false]);
        assert_eq!(drafts.len(), 3);
        assert!(matches!(json(r#"{"events":[]}"#), Ok(Publication::Batch(events)) if events.is_empty()));
        let many = format!(r#"{{"events":[{}]}}"#, vec![r#"{"room":"r","event":"e"}"#; 1001].join(","));
        assert!(json(&many).is_err());
    }
}
