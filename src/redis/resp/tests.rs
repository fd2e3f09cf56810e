//! The reader beside the client library's parser: what one reads, the other reads alike, in whatever pieces it arrives.

use super::*;
use proptest::prelude::*;
use redis::Value;

const MAX: usize = 10_000;

/// The replies in `bytes`, which arrive in pieces of this size.
fn read(bytes: &[u8], piece: usize) -> (Vec<Value>, Result<(), RespError>) {
    let (mut scanner, mut replies) = (Scanner::new(MAX), Vec::new());
    let (mut start, mut arrived, mut at_least) = (0, 0, 0);
    while arrived < bytes.len() {
        arrived = (arrived + piece).min(bytes.len());
        loop {
            match scanner.scan(&bytes[start..arrived]) {
                Ok(Some(length)) => {
                    let mut tokens = Tokens::new(&bytes[start..start + length]);
                    let mut skipped = tokens.clone();
                    replies.extend(value(&mut tokens));
                    assert!(std::mem::take(&mut at_least) <= length);
                    assert!(skipped.skip_value().is_some() && skipped.rest().is_empty());
                    start += length;
                }
                Ok(None) => {
                    at_least = scanner.at_least();
                    break;
                }
                Err(error) => return (replies, Err(error)),
            }
        }
    }
    (replies, Ok(()))
}

fn one(text: &str) -> Result<Option<Value>, RespError> {
    let (mut replies, end) = read(text.as_bytes(), usize::MAX >> 1);
    end.map(|()| replies.pop())
}

#[test]
fn each_kind_of_value_is_read_as_the_library_reads_it() {
    for text in [
        "+OK\r\n",
        "+\r\n",
        "+PONG\r\n",
        "-ERR unknown command\r\n",
        "-MOVED 3999 127.0.0.1:6381\r\n",
        ":-9223372036854775808\r\n",
        "$0\r\n\r\n",
        "$4\r\na\r\nb\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
        "_\r\n",
        "#t\r\n",
        "#f\r\n",
        ",3.5\r\n",
        ",-inf\r\n",
        "(-349289032840923850932485094385094\r\n",
        "!21\r\nSYNTAX invalid syntax\r\n",
        "=7\r\ntxt:abc\r\n",
        "=7\r\nmkd:abc\r\n",
        "%1\r\n+a\r\n*1\r\n:1\r\n",
        "~2\r\n:1\r\n:2\r\n",
        ">3\r\n+message\r\n$1\r\nc\r\n$1\r\nm\r\n",
        ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
        "|1\r\n+ttl\r\n:5\r\n$1\r\nx\r\n",
    ] {
        let library = redis::parse_redis_value(text.as_bytes()).unwrap();
        for piece in 1..=text.len() {
            assert_eq!(read(text.as_bytes(), piece), (vec![library.clone()], Ok(())), "{text:?} in {piece}");
        }
        for cut in 0..text.len() {
            assert_eq!(one(&text[..cut]), Ok(None), "{text:?} cut at {cut}");
        }
    }
}

#[test]
fn what_is_no_reply_ends_the_reading() {
    for text in [
        "hello\r\n",
        "$3\r\nabcd\r\n",
        "$-2\r\n\r\n",
        "$+3\r\nabc\r\n",
        "$?\r\n",
        "*?\r\n",
        "$\r\n",
        ":\r\n",
        ":x\r\n",
        "#x\r\n",
        "_x\r\n",
        ",x\r\n",
        "(\r\n",
        "(1x\r\n",
        "%-1\r\n",
        "+a\rb\r\n",
        "*1\r\nx",
        "\0",
    ] {
        assert_eq!(one(text), Err(RespError::Malformed), "{text:?}");
    }
    let nested = |depth: usize| format!("{}:1\r\n", "*1\r\n".repeat(depth));
    assert!(matches!(one(&nested(MAX_DEPTH)), Ok(Some(_))));
    assert_eq!(one(&nested(MAX_DEPTH + 1)), Err(RespError::TooDeep));
    for large in [
        "$9999\r\n",
        "$99999999999999999999\r\n",
        "*4000\r\n",
        "*2\r\n$9995\r\n",
        "%4611686018427387904\r\n",
        "%9999999\r\n",
    ] {
        assert_eq!(one(large), Err(RespError::TooLarge), "{large:?}");
    }
    let line = format!("+{}", "x".repeat(MAX_LINE + 1));
    assert_eq!(one(&line), Err(RespError::TooLarge), "a line without an end");
}

/// Any reply, as its bytes.
fn reply() -> impl Strategy<Value = Vec<u8>> {
    let sized = |kind: char| {
        prop::collection::vec(any::<u8>(), 0..40)
            .prop_map(move |bytes| [format!("{kind}{}\r\n", bytes.len()).as_bytes(), &bytes, b"\r\n"].concat())
    };
    let leaf = prop_oneof![
        4 => sized('$'),
        1 => sized('!'),
        1 => "[a-z]{3}:[ -~]{0,20}".prop_map(|text| format!("={}\r\n{text}\r\n", text.len()).into_bytes()),
        2 => "[+-][ -~é]{0,30}\r\n".prop_map(String::into_bytes),
        2 => any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
        1 => any::<f64>().prop_map(|number| format!(",{number}\r\n").into_bytes()),
        1 => "\\(-?[0-9]{1,30}\r\n".prop_map(String::into_bytes),
        1 => prop::sample::select(vec!["$-1\r\n", "*-1\r\n", "_\r\n", "#t\r\n", "#f\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let kind = prop::sample::select(vec!['*', '*', '*', '%', '~', '>', '|']);
        (kind, prop::collection::vec(inner, 0..7)).prop_map(|(kind, mut items)| {
            let count = match kind {
                '%' => items.len() / 2,
                '|' => items.len().saturating_sub(1) / 2,
                _ => items.len(),
            };
            match kind {
                '%' => items.truncate(2 * count),
                '|' if items.is_empty() => items.push(b"_\r\n".to_vec()),
                '|' => items.truncate(2 * count + 1),
                '>' if count > 0 => items[0] = b"+invalidate\r\n".to_vec(),
                _ => {}
            }
            [format!("{kind}{count}\r\n").into_bytes(), items.concat()].concat()
        })
    })
}

proptest! {
    #[test]
    fn replies_are_read_as_the_library_reads_them(replies in prop::collection::vec(reply(), 1..4), piece in 1..50usize) {
        let bytes = replies.concat();
        prop_assume!(bytes.len() < MAX);
        let library: Vec<_> = replies.iter().map(|reply| redis::parse_redis_value(reply)).collect();
        let (read, end) = read(&bytes, piece);
        prop_assert_eq!(end, Ok(()));
        for (read, library) in read.iter().zip(&library) {
            prop_assert_eq!(format!("{read:?}"), format!("{:?}", library.as_ref().unwrap()));
        }
        prop_assert_eq!(read.len(), library.len());
    }

    #[test]
    fn changed_bytes_are_read_alike_or_not_at_all(reply in reply(), change in any::<(usize, u8)>(), piece in 1..20usize) {
        let mut bytes = reply;
        let at = change.0 % bytes.len();
        bytes[at] = change.1;
        let (whole, end) = read(&bytes, bytes.len());
        let (pieces, same_end) = read(&bytes, piece);
        prop_assert_eq!(format!("{whole:?} {end:?}"), format!("{pieces:?} {same_end:?}"));
        if let (Some(read), Ok(library)) = (whole.first(), redis::parse_redis_value(&bytes)) {
            prop_assert_eq!(format!("{read:?}"), format!("{library:?}"));
        }
    }
}
