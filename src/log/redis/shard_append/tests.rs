use super::*;
use crate::log::AppendError;
use crate::log::config::RecoveryConfig;
use crate::log::redis::add_command::{self, Times};
use crate::log::redis::entry::{RawEntry, RawFields, StreamEntry};
use crate::log::redis::shard_append::pending::{Pending, PendingAppend};
use crate::log::redis::shard_append::round::Round;
use crate::log::redis::shard_append::unanswered::Unanswered;
use crate::metrics::Metrics;
use crate::model::args::Args;
use crate::model::draft::{DraftLimits, Source};
use crate::model::offset::Position;
use crate::model::secret::Secret;
use crate::redis::command::CommandWriter;
use crate::redis::config::RedisConfig;
use crate::redis::resp::{Token, Tokens};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const LIMITS: DraftLimits = DraftLimits { max_event: 1000, room_name_bytes: 50, rooms: 3 };

fn log(appenders: usize) -> Arc<RedisLog> {
    let config = RedisConfig { url: Some(Secret::new("redis://127.0.0.1")), ..RedisConfig::default() };
    let metrics = Arc::new(Metrics::new("0").unwrap());
    RedisLog::new(&config, &RecoveryConfig::default(), LIMITS, metrics, appenders).unwrap()
}

/// The fields that Redis stores for a command of the appender.
fn stored(command: &[u8]) -> RawFields {
    let arguments: Vec<Vec<u8>> = Tokens::new(command)
        .filter_map(|token| match token {
            Token::Bulk(argument) => Some(argument.to_vec()),
            _ => None,
        })
        .collect();
    let star = arguments.iter().position(|argument| argument == b"*").unwrap();
    arguments[star + 1..].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

proptest! {
    /// A reader sees the entry exactly where its publisher gets it acknowledged.
    #[test]
    fn readers_and_the_appender_agree_on_what_is_void(
        until in prop_oneof![any::<u64>(), 1_700_000_000_000u64..1_700_000_000_010],
        ms in prop_oneof![any::<u64>(), 1_700_000_000_000u64..1_700_000_000_010],
        seq: u64,
        trims: bool,
    ) {
        let log = log(1);
        let times = Times { accepted_us: 5, until_ms: Some(until), trim_before_ms: u64::from(trims), after: None };
        let mut command = Vec::new();
        let mut writer = CommandWriter::new(&mut command);
        let draft = Draft::new("room", "event", Args::one("{\"until\":0}").unwrap(), Source::Client);
        add_command::write(&log, &draft, times, &mut writer);
        writer.finish();
        let position = Position { ms, seq };
        let entry = RawEntry { position, fields: stored(&command), cut: None };
        let fields = entry.borrowed();
        let read = entry.entry(&fields).decode(&LIMITS);
        let answer = Round::new(&log).answer(Token::Bulk(position.to_string().as_bytes()), until);
        match answer {
            None => prop_assert!(matches!(read, Ok(StreamEntry::Void)), "{:?}", read),
            Some(Ok(_)) => prop_assert!(matches!(&read, Ok(StreamEntry::Event(back, Some(5))) if *back == draft), "{:?}", read),
            Some(Err(error)) => prop_assert!(false, "{}", error),
        }
        prop_assert_eq!(ms > until, matches!(read, Ok(StreamEntry::Void)));
    }
}

#[test]
fn each_kind_of_reply_has_its_result() {
    let log = log(1);
    let mut round = Round::new(&log);
    assert!(matches!(round.answer(Token::Integer(3), 0), Some(Ok(accepted)) if accepted.offset.is_none()));
    assert!(matches!(round.answer(Token::Simple(b"-"), 0), Some(Ok(accepted)) if accepted.offset.is_none()));
    assert!(matches!(round.answer(Token::Simple(b"9-1"), 0), Some(Ok(_))), "a script's answer is never void");
    assert!(matches!(round.answer(Token::Simple(b"x"), 0), Some(Err(AppendError::Unavailable(_)))));
    let again: [Token<'_>; 4] = [
        Token::Null,
        Token::Bulk(b"9-1"),
        Token::Error(b"NOSCRIPT No matching script."),
        Token::Error(b"ERR The stream has exhausted the last possible ID, unable to add more items"),
    ];
    assert!(again.into_iter().all(|reply| round.answer(reply, 8).is_none()));
    assert!(!round.is_refused);
    assert!(matches!(round.answer(Token::Error(b"OOM full"), 0), Some(Err(AppendError::Refused(_)))));
    assert!(round.is_refused && round.not_serving.is_none());
    assert!(round.answer(Token::Error(b"READONLY no"), 0).is_none(), "another server may take it");
    assert!(matches!(round.not_serving, Some(RedisError::NotServing(_))));
    assert_eq!((round.acknowledged, round.newest_ms), (Some(Position { ms: 9, seq: 1 }), 9));
}

#[test]
fn appends_wait_only_where_there_is_a_connection_and_room() {
    let log = log(2);
    let draft = || vec![Draft::new("room", "event", Args::none(), Source::Http)];
    let now = Instant::now();
    assert!(matches!(push(&log, &draft(), None, now), Pushed::NotHere), "no thread of a shard");
    note_shard(5);
    assert!(matches!(push(&log, &draft(), None, now), Pushed::NotHere), "not connected");
    log.appenders.get(1).unwrap().lock().begin(RedisClock::now(7_000_000));
    let Pushed::Sent(_answered) = push(&log, &draft(), None, now) else {
        panic!("the sixth shard shares the second's")
    };
    log.note_newest(60_000);
    assert!(matches!(push(&log, &draft(), None, now), Pushed::NotHere), "ids are ahead of the clock");
    log.newest_ms.store(0, Ordering::Relaxed);
    let many = |count| (0..count).flat_map(|_| draft()).collect::<Vec<_>>();
    assert!(matches!(push(&log, &many(300_000), None, now), Pushed::Full));
    let waiting = log.appenders.get(1).unwrap().lock().end();
    assert_eq!(waiting.len(), 1);
    let until_ms = waiting[0].until_ms();
    assert!(until_ms.abs_diff(7_000 + log.timeout.as_millis() as u64 * 9 / 10) < 1_000, "{until_ms}");
}

#[test]
fn appends_are_taken_and_expire_with_their_commands() {
    let log = log(1);
    let start = Instant::now();
    let mut pending = Pending::default();
    let mut receivers = Vec::new();
    for (late, text) in [(0, "a"), (0, "bb"), (1, "ccc"), (1, "dddd"), (1, "eeeee")] {
        let (append, receiver) = PendingAppend::new(&log, start + log.timeout * late, 0, 1, 0);
        pending.push(append, |commands| commands.extend(text.bytes()));
        receivers.push(receiver);
    }
    let mut expired = Vec::new();
    pending.expire(start + log.timeout, |append| expired.push(append.bytes()));
    assert_eq!(expired, [1, 2]);
    let mut output = Vec::new();
    let taken = |appends: &mut dyn Iterator<Item = PendingAppend>| appends.map(|one| one.bytes()).collect::<Vec<_>>();
    assert_eq!(taken(&mut pending.take(4, &mut output)), [3, 4], "the last one may be over the room");
    assert_eq!(std::mem::take(&mut output), b"cccdddd");
    assert_eq!(taken(&mut pending.take(1000, &mut output)), [5]);
    assert_eq!((output.as_slice(), pending.is_empty()), (&b"eeeee"[..], true));
}

#[test]
fn late_replies_are_counted_and_belong_to_nobody() {
    let log = log(1);
    let now = Instant::now();
    let append = |commands, deadline| {
        assert!(log.backlog.try_add(0, commands));
        let (append, receiver) = PendingAppend::new(&log, deadline - log.timeout, 0, commands, u64::MAX);
        let mut pending = Pending::default();
        pending.push(append, |bytes| bytes.extend([0; 10]));
        (pending.take_all().pop_front().unwrap(), receiver)
    };
    let ((slow, mut of_slow), (quick, mut of_quick)) = (append(2, now), append(1, now + log.timeout));
    let mut unanswered = Unanswered::default();
    unanswered.push_appends([slow, quick].into_iter());
    unanswered.push_time();
    assert_eq!((unanswered.bytes(), unanswered.deadline()), (20, Some(now)));
    let mut round = Round::new(&log);
    let mut reply = |unanswered: &mut Unanswered| unanswered.take(Token::Bulk(b"9-1"), &mut round, &log);
    assert!(!reply(&mut unanswered).unwrap());
    let timed_out = || Err(AppendError::Unavailable("no reply".to_owned()));
    unanswered.expire(now, |append| append.finish(&log.backlog, timed_out));
    let results = of_slow.try_recv().unwrap().appended;
    assert!(matches!(&results[..], [Ok(_), Err(AppendError::Unavailable(_))]), "{results:?}");
    assert_eq!((unanswered.bytes(), unanswered.deadline()), (20, Some(now + log.timeout)));
    assert!(!reply(&mut unanswered).unwrap());
    assert_eq!(unanswered.bytes(), 10, "the late reply came");
    assert!(!reply(&mut unanswered).unwrap());
    unanswered.take_done().for_each(|append| append.finish(&log.backlog, timed_out));
    assert!(matches!(&of_quick.try_recv().unwrap().appended[..], [Ok(_)]));
    assert!(unanswered.is_asking_time() && reply(&mut unanswered).unwrap() && !unanswered.is_asking_time());
    assert!(reply(&mut unanswered).is_err(), "nothing was sent");
    assert_eq!((unanswered.bytes(), unanswered.deadline()), (0, None));
}
