//! Every rule of RFC 6455 that the reader keeps, and round trips of what a masked client writes in any pieces.

use super::*;
use crate::model::close::CloseReason;
use proptest::prelude::*;
use std::ops::ControlFlow;

const MASK: [u8; 4] = [0x12, 0x00, 0xff, 0xa5];

/// A frame as a client writes it; `first` is FIN, reserved bits and opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = Vec::new();
    push_header(&mut header, Opcode::Text, payload.len());
    header[0] = first;
    header[1] |= 0x80;
    header.extend_from_slice(&MASK);
    header.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    header
}

fn text(payload: &str) -> Vec<u8> {
    frame(0x81, payload.as_bytes())
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
}

impl From<Message<'_>> for Got {
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::Text(text.into()),
            Message::Binary(bytes) => Self::Binary(bytes.into()),
            Message::Ping(bytes) => Self::Ping(bytes.into()),
            Message::Pong(bytes) => Self::Pong(bytes.into()),
            Message::Close(code, reason) => Self::Close(code, reason.into()),
        }
    }
}

/// Feeds the pieces to one reader.
fn feed(reader: &mut FrameReader, pieces: &[Vec<u8>], max: usize) -> (Vec<Got>, Result<(), FrameError>) {
    let mut got = Vec::new();
    for piece in pieces {
        let result = reader.read(&mut piece.clone(), max, &mut |message| {
            got.push(message.into());
            ControlFlow::Continue(())
        });
        if result.is_err() {
            return (got, result);
        }
    }
    (got, Ok(()))
}

/// Whole, and then byte by byte, which must give the same.
fn read(bytes: &[u8], max: usize) -> (Vec<Got>, Result<(), FrameError>) {
    let mut reader = FrameReader::new();
    let whole = feed(&mut reader, &[bytes.to_vec()], max);
    let pieces: Vec<_> = bytes.iter().map(|byte| vec![*byte]).collect();
    assert_eq!(feed(&mut FrameReader::new(), &pieces, max), whole, "in single bytes");
    whole
}

fn error(bytes: &[u8]) -> FrameError {
    read(bytes, 1 << 20).1.unwrap_err()
}

#[test]
fn an_idle_reader_is_tiny() {
    assert_eq!(size_of::<FrameReader>(), 8, "every idle WebSocket has one in its task");
    let mut reader = FrameReader::new();
    let fragments = [frame(0x01, b"a"), frame(0x89, b"p"), frame(0x80, b"b"), text("c")].concat();
    for end in 0..fragments.len() {
        let pieces = [fragments[..end].to_vec(), fragments[end..].to_vec()];
        assert_eq!(feed(&mut reader, &pieces, 100).0.len(), 3);
        assert!(reader.is_idle(), "split at {end}");
    }
}

#[test]
fn whole_frames_are_handed_out_of_the_input() {
    let mut input = text("hello");
    let range = input.as_ptr_range();
    let mut inside = false;
    let on = &mut |message: Message<'_>| {
        inside = matches!(message, Message::Text(text) if range.contains(&text.as_ptr()));
        ControlFlow::Continue(())
    };
    FrameReader::new().read(&mut input, 5, on).unwrap();
    assert!(inside);
}

#[test]
fn the_limit_is_exact_and_taken_from_the_header() {
    for max in [0, 1, 125, 126, 127, 65_535, 65_536, 70_000] {
        assert_eq!(read(&frame(0x82, &vec![7; max]), max).0, [Got::Binary(vec![7; max])]);
        assert_eq!(read(&frame(0x82, &vec![7; max + 1]), max), (vec![], Err(FrameError::TooBig)));
        let header_only = &frame(0x82, &vec![7; max + 1])[..frame(0x82, &vec![0; max + 1]).len() - max - 1];
        assert_eq!(read(header_only, max).1, Err(FrameError::TooBig));
    }
    let fragments = |second| [frame(0x02, &[1; 6]), frame(0x80, &vec![2; second])].concat();
    assert_eq!(read(&fragments(4), 10).1, Ok(()));
    assert_eq!(read(&fragments(5), 10).1, Err(FrameError::TooBig));
    assert_eq!(FrameError::TooBig.reason(), CloseReason::TooBig);
    assert_eq!(read(&frame(0x89, b"ping"), 0).1, Ok(()), "control frames have their own limit");
}

#[test]
fn what_the_header_forbids() {
    assert_eq!(error(&[0x81, 0x01, b'a']), FrameError::Unmasked);
    for bits in [0x40, 0x20, 0x10] {
        assert_eq!(error(&frame(0x81 | bits, b"a")), FrameError::ReservedBits);
    }
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xb, 0xc, 0xd, 0xe, 0xf] {
        assert_eq!(error(&frame(0x80 | opcode, b"")), FrameError::ReservedOpcode);
    }
    for opcode in [0x8, 0x9, 0xa] {
        assert_eq!(error(&frame(opcode, b"")), FrameError::FragmentedControl);
        assert_eq!(error(&frame(0x80 | opcode, &[0; 126])), FrameError::LongControl);
    }
    assert_eq!(read(&frame(0x89, &[1; 125]), 0).0, [Got::Ping(vec![1; 125])]);
    assert_eq!(FrameError::Unmasked.reason(), CloseReason::ParseError);
}

#[test]
fn lengths_must_be_minimal_and_positive() {
    assert_eq!(error(&[0x82, 0xfe, 0, 125, 0, 0, 0, 0]), FrameError::LongLength);
    assert_eq!(error(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]), FrameError::LongLength);
    assert_eq!(error(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), FrameError::NegativeLength);
    assert_eq!(error(&[0x82, 0xff, 0xff, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]), FrameError::NegativeLength);
    let huge = [0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0];
    assert_eq!(error(&huge), FrameError::TooBig);
    // A limit nobody sets: what is announced costs nothing until it comes.
    assert_eq!(read(&huge, usize::MAX), (vec![], Ok(())));
    let continued = huge.map(|byte| if byte == 0x82 { 0x80 } else { byte });
    let bytes = [frame(0x02, &[0; 9]), continued.to_vec()].concat();
    assert_eq!(read(&bytes, usize::MAX >> 1).1, Err(FrameError::TooBig));
}

#[test]
fn fragments_and_control_frames_between_them() {
    let euro = "€".as_bytes();
    let bytes = [
        frame(0x01, &euro[..1]),
        frame(0x89, b"p"),
        frame(0x00, &euro[1..2]),
        frame(0x8a, b""),
        frame(0x80, &euro[2..]),
        frame(0x02, b""),
        frame(0x80, b"x"),
        text(""),
    ];
    let expected = [
        Got::Ping(b"p".into()),
        Got::Pong(vec![]),
        Got::Text("€".into()),
        Got::Binary(b"x".into()),
        Got::Text(String::new()),
    ];
    assert_eq!(read(&bytes.concat(), 100), (expected.into(), Ok(())));
    assert_eq!(error(&frame(0x80, b"a")), FrameError::UnexpectedContinuation);
    assert_eq!(error(&frame(0x00, b"a")), FrameError::UnexpectedContinuation);
    assert_eq!(error(&[frame(0x01, b"a"), frame(0x81, b"b")].concat()), FrameError::InterruptedMessage);
    assert_eq!(error(&[frame(0x01, b"a"), frame(0x02, b"b")].concat()), FrameError::InterruptedMessage);
    assert_eq!(error(&[text("a"), frame(0x80, b"b")].concat()), FrameError::UnexpectedContinuation);
}

#[test]
fn a_flood_of_tiny_fragments_ends() {
    let max = usize::try_from(MAX_FRAGMENTS).unwrap();
    let flood = |fragments: usize| {
        let continuations = frame(0x00, b"").repeat(fragments - 2);
        [frame(0x02, b""), continuations, frame(0x80, b"")].concat()
    };
    assert_eq!(read(&flood(max), 10), (vec![Got::Binary(vec![])], Ok(())));
    assert_eq!(read(&flood(max + 1), 10).1, Err(FrameError::TooManyFragments));
    let twice = [flood(max), flood(max)].concat();
    assert_eq!(read(&twice, 10).0.len(), 2, "the count starts anew with each message");
}

#[test]
fn text_is_utf8() {
    for bad in [&[0xff][..], &[0xc3], &[0xed, 0xa0, 0x80], &[0xf4, 0x90, 0x80, 0x80], &[0xc0, 0xaf]] {
        assert_eq!(error(&frame(0x81, bad)), FrameError::InvalidUtf8);
        assert_eq!(error(&[frame(0x01, bad), frame(0x80, b"")].concat()), FrameError::InvalidUtf8);
        assert_eq!(read(&frame(0x82, bad), 10).1, Ok(()));
    }
    assert_eq!(FrameError::InvalidUtf8.reason(), CloseReason::InvalidText);
}

#[test]
fn closes_are_checked_and_end_the_reading() {
    let close = |code: u16, reason: &[u8]| frame(0x88, &[&code.to_be_bytes()[..], reason].concat());
    assert_eq!(read(&[frame(0x88, b""), text("late")].concat(), 9), (vec![Got::Close(None, String::new())], Ok(())));
    assert_eq!(read(&close(1000, "bye é".as_bytes()), 9).0, [Got::Close(Some(1000), "bye é".into())]);
    for code in [1001, 1002, 1003, 1007, 1011, 1012, 1014, 3000, 4401, 4999] {
        assert_eq!(read(&close(code, b""), 9).0, [Got::Close(Some(code), String::new())]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        assert_eq!(error(&close(code, b"")), FrameError::BadCloseCode, "{code}");
    }
    assert_eq!(error(&frame(0x88, b"\x03")), FrameError::BadClosePayload);
    assert_eq!(error(&close(1000, &[0xff])), FrameError::InvalidUtf8);
}

#[test]
fn after_a_break_or_an_error_nothing_is_read() {
    let mut reader = FrameReader::new();
    let mut seen = 0;
    for _ in 0..2 {
        let mut input = [text("a"), text("b"), frame(0x01, b"c")].concat();
        let on = &mut |_: Message<'_>| {
            seen += 1;
            ControlFlow::Break(())
        };
        reader.read(&mut input, 10, on).unwrap();
    }
    assert_eq!(seen, 1);
    assert!(reader.is_idle());

    let mut reader = FrameReader::new();
    assert_eq!(feed(&mut reader, &[frame(0x01, b"a"), vec![0xff]], 10).1, Err(FrameError::ReservedBits));
    assert!(reader.is_idle());
    assert_eq!(feed(&mut reader, &[text("a")], 10), (vec![], Ok(())));
}

#[test]
fn server_frames_have_the_shortest_header() {
    assert_eq!(&text_frame("hi")[..], b"\x81\x02hi");
    assert_eq!(&binary_frame(&[1])[..], b"\x82\x01\x01");
    assert_eq!(&pong_frame(b"x")[..], b"\x8a\x01x");
    assert_eq!(pong_frame(&[0; 200]).len(), 127);
    for (len, header) in [(125, &b"\x82\x7d"[..]), (126, b"\x82\x7e\0\x7e"), (65_535, b"\x82\x7e\xff\xff")] {
        assert_eq!(&binary_frame(&vec![0; len])[..header.len()], header);
        assert_eq!(binary_frame(&vec![0; len]).len(), header_len(len) + len);
    }
    assert_eq!(&binary_frame(&vec![0; 65_536])[..10], b"\x82\x7f\0\0\0\0\0\x01\0\0");
}

#[test]
fn close_frames_never_carry_forbidden_codes() {
    assert_eq!(&close_frame(Some(4401), "expired")[..], b"\x88\x09\x11\x31expired");
    for code in [None, Some(0), Some(999), Some(1004), Some(1005), Some(1006), Some(1015)] {
        assert_eq!(&close_frame(code, "reason")[..], b"\x88\x00");
    }
    let long = close_frame(Some(1000), &format!("a{}", "é".repeat(100)));
    assert_eq!((long.len(), long[1]), (2 + 2 + 123, 125));
    let even = close_frame(Some(1000), &"é".repeat(100));
    assert_eq!((even.len(), str::from_utf8(&even[4..]).is_ok()), (2 + 2 + 122, true));
}

/// A client's message: its opcode, payload, where it is cut into fragments, and pings in between.
#[derive(Clone, Debug)]
struct Sent {
    got: Got,
    cuts: Vec<prop::sample::Index>,
    ping: Option<Vec<u8>>,
}

fn sent() -> impl Strategy<Value = Sent> {
    let payload =
        || prop_oneof![prop::collection::vec(any::<u8>(), 0..20), prop::collection::vec(any::<u8>(), 100..300)];
    let got = prop_oneof![
        any::<String>().prop_map(Got::Text),
        payload().prop_map(Got::Binary),
        prop::collection::vec(any::<u8>(), 0..=125).prop_map(Got::Pong),
    ];
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let ping = prop::option::of(prop::collection::vec(any::<u8>(), 0..10));
    (got, cuts, ping).prop_map(|(got, cuts, ping)| Sent { got, cuts, ping })
}

impl Sent {
    /// The frames, and what the reader must hand out for them.
    fn frames(&self) -> (Vec<u8>, Vec<Got>) {
        let (opcode, payload) = match &self.got {
            Got::Text(text) => (0x1, text.as_bytes()),
            Got::Binary(bytes) => (0x2, &bytes[..]),
            Got::Pong(bytes) => return (frame(0x8a, bytes), vec![self.got.clone()]),
            other => panic!("not made by the strategy: {other:?}"),
        };
        let mut cuts: Vec<_> = self.cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(payload.len());
        let (mut bytes, mut got, mut from) = (Vec::new(), Vec::new(), 0);
        for (n, to) in cuts.iter().enumerate() {
            let fin = if n + 1 == cuts.len() { 0x80 } else { 0 };
            bytes.extend(frame(fin | if n == 0 { opcode } else { 0 }, &payload[from..*to]));
            from = *to;
            if let Some(ping) = self.ping.as_ref().filter(|_| fin == 0) {
                bytes.extend(frame(0x89, ping));
                got.push(Got::Ping(ping.clone()));
            }
        }
        got.push(self.got.clone());
        (bytes, got)
    }
}

proptest! {
    #[test]
    fn frames_in_any_pieces_come_out_the_same(
        sent in prop::collection::vec(sent(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let (bytes, expected): (Vec<_>, Vec<_>) = sent.iter().map(Sent::frames).unzip();
        let bytes = bytes.concat();
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec()).collect();
        let mut reader = FrameReader::new();
        prop_assert_eq!(feed(&mut reader, &pieces, 10_000), (expected.concat(), Ok(())));
        prop_assert!(reader.is_idle());
    }

    #[test]
    fn unmasking_is_the_xor_of_the_rfc(
        payload in prop::collection::vec(any::<u8>(), 0..100), mask: [u8; 4], offset in 0usize..9,
    ) {
        let expected: Vec<_> = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[(i + offset) % 4]).collect();
        let mut unmasked = payload;
        unmask(&mut unmasked, mask, offset);
        prop_assert_eq!(unmasked, expected);
    }
}
