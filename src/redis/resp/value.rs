//! A reply as a value of the client library, for commands that are not worth more.

use crate::redis::resp::{Token, Tokens};
use redis::{Value, VerbatimFormat};

/// The next value, with all that is in it. `None` where there is none, or where the library would not read it.
pub fn value(tokens: &mut Tokens<'_>) -> Option<Value> {
    let read = match tokens.next()? {
        Token::Simple(b"OK") => Value::Okay,
        Token::Simple(text) => Value::SimpleString(std::str::from_utf8(text).ok()?.to_owned()),
        Token::Error(text) => of_library(b'!', text)?,
        Token::Integer(number) => Value::Int(number),
        Token::Bulk(bytes) => Value::BulkString(bytes.to_vec()),
        Token::Null => Value::Nil,
        Token::Boolean(is) => Value::Boolean(is),
        Token::Double(number) => Value::Double(number),
        Token::BigNumber(digits) => Value::BigNumber(digits.to_vec()),
        Token::Verbatim(text) => verbatim(text)?,
        Token::Array(count) => Value::Array(values(tokens, count)?),
        Token::Set(count) => Value::Set(values(tokens, count)?),
        Token::Map(count) => Value::Map(pairs(tokens, count)?),
        Token::Attribute(count) => {
            let attributes = pairs(tokens, count)?;
            Value::Attribute { data: Box::new(value(tokens)?), attributes }
        }
        Token::Push(count) => push(tokens, count)?,
    };
    Some(read)
}

fn values(tokens: &mut Tokens<'_>, count: usize) -> Option<Vec<Value>> {
    (0..count).map(|_| value(tokens)).collect()
}

fn pairs(tokens: &mut Tokens<'_>, count: usize) -> Option<Vec<(Value, Value)>> {
    (0..count).map(|_| Some((value(tokens)?, value(tokens)?))).collect()
}

fn verbatim(text: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(text);
    let (format, text) = text.split_once(':')?;
    let format = match format {
        "txt" => VerbatimFormat::Text,
        "mkd" => VerbatimFormat::Markdown,
        other => VerbatimFormat::Unknown(other.to_owned()),
    };
    Some(Value::VerbatimString { format, text: text.to_owned() })
}

fn push(tokens: &mut Tokens<'_>, count: usize) -> Option<Value> {
    let mut items = values(tokens, count)?.into_iter();
    let kind = match items.next() {
        Some(Value::BulkString(kind)) => String::from_utf8(kind).ok()?,
        Some(Value::SimpleString(kind)) => kind,
        Some(Value::Okay) | Some(_) => return None,
        None => String::new(),
    };
    let mut named = of_library(b'>', kind.as_bytes())?;
    if let Value::Push { data, .. } = &mut named {
        *data = items.collect();
    }
    Some(named)
}

/// What the library has no constructor for: an error (`!`), or the kind of a message (`>`).
fn of_library(kind: u8, text: &[u8]) -> Option<Value> {
    let start = match kind {
        b'>' if text.is_empty() => return redis::parse_redis_value(b">0\r\n").ok(),
        b'>' => ">1\r\n$",
        _ => "!",
    };
    let reply = [format!("{start}{}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat();
    redis::parse_redis_value(&reply).ok()
}
