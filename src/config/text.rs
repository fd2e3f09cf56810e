//! The form of single strings. Each function takes the text as written and returns it as kept, or what it must be.

use crate::auth::{MIN_SECRET, SetupError};
use crate::config::toml_text::shown;
use crate::model::draft::check_room_name;
use hyper::header::{HeaderName, HeaderValue};

/// Not empty, without control characters.
pub(super) fn filled(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("must not be empty or contain control characters".into()),
        false => Ok(text.to_owned()),
    }
}

/// `app.example.com`, `*.example.com`, `127.0.0.1:8080`, `[::1]`.
pub(super) fn host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let word = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
    match !name.is_empty() && name.len() <= 255 && name.chars().all(word) {
        true => Ok(text.to_owned()),
        false => Err(format!("\"{}\" must be a host like \"app.example.com\" or \"[::1]:8080\"", shown(text))),
    }
}

/// The HMAC secret of tokens.
pub(super) fn token_secret(text: &str) -> Result<String, String> {
    match text.len() >= MIN_SECRET {
        true => Ok(text.to_owned()),
        false => Err(SetupError::ShortSecret.to_string()),
    }
}

/// A bearer key, which must fit a header.
pub(super) fn bearer_key(text: &str) -> Result<String, String> {
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("a key must be visible ASCII characters, at least one".into()),
    }
}

/// A header of a request, as `name=value`.
pub(super) fn header_pair(text: &str) -> Result<String, String> {
    let (name, value) = text.split_once('=').unwrap_or_default();
    let is_pair = HeaderName::try_from(name.trim()).is_ok() && HeaderValue::from_str(value.trim()).is_ok();
    match is_pair && !value.trim().is_empty() {
        true => Ok(text.trim().to_owned()),
        false => Err("a header must be written as \"name=value\"".into()),
    }
}

/// PEM text. Its contents are checked together with the algorithms.
pub(super) fn pem(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// `sub`, `user.id`.
pub(super) fn claim_path(text: &str) -> Result<String, String> {
    match filled(text).is_ok() && text.split('.').all(|part| !part.is_empty()) {
        true => Ok(text.to_owned()),
        false => Err(format!("\"{}\" is not the path of a claim like \"sub\" or \"user.id\"", shown(text))),
    }
}

/// A prefix of Redis keys. It is also used in patterns and Cluster hash tags, so it must not contain their characters.
pub(super) fn key_prefix(text: &str) -> Result<String, String> {
    let taken = |c: char| c.is_control() || c.is_whitespace() || "*?[]{}\\^".contains(c);
    match text.is_empty() || text.len() > 100 || text.chars().any(taken) {
        true => {
            Err(format!("\"{}\" must have 1 to 100 bytes, without spaces and without * ? [ ] {{ }} \\ ^", shown(text)))
        }
        false => Ok(text.to_owned()),
    }
}

/// A Socket.IO namespace.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    // `,` ends it on the wire, and stock clients cut it at `?`.
    let wrong = |c: char| c.is_control() || c.is_whitespace() || c == ',' || c == '?';
    match text.starts_with('/') && text.len() <= 200 && !text.chars().any(wrong) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "namespace \"{}\" must start with \"/\" and not contain spaces, commas or question marks",
            shown(text)
        )),
    }
}

/// Paths of other endpoints.
const TAKEN: [&str; 12] = [
    "/",
    "/ws/",
    "/sse/",
    "/publish/",
    "/rooms/",
    "/users/",
    "/join/",
    "/leave/",
    "/disconnect/",
    "/health/",
    "/metrics/",
    "/socket/",
];

/// The request path of Socket.IO. A missing final slash is added.
pub(super) fn socketio_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/')
        || text.contains("//")
        || text.bytes().any(|b| !b.is_ascii_graphic() || b"?#%".contains(&b))
    {
        return Err(format!(
            "\"{}\" must be a path that starts and ends with \"/\", like \"/socket.io/\"",
            shown(text)
        ));
    }
    let path = if text.ends_with('/') { text.to_owned() } else { format!("{text}/") };
    match TAKEN.contains(&path.as_str()) {
        true => Err(format!("\"{path}\" is taken by another endpoint; choose one like \"/socket.io/\"")),
        false => Ok(path),
    }
}

/// A level, or directives as `RUST_LOG` takes them.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    let level = |word: &str| ["off", "error", "warn", "info", "debug", "trace"].contains(&word);
    let directive = |part: &str| level(part) || part.split_once('=').is_some_and(|(_, word)| level(word));
    match text.split(',').all(|part| directive(part.trim())) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "\"{}\" must be off, error, warn, info, debug or trace, or a list like \"info,roomcast=debug\"",
            shown(text)
        )),
    }
}

/// A Redis key or channel that other programs write to.
pub(super) fn redis_key(text: &str) -> Result<String, String> {
    check_room_name(text, 200).map_err(|_| "must have 1 to 200 bytes and no control characters".to_owned())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_keeps_its_rule() {
        assert_eq!(socketio_path("/realtime").as_deref(), Ok("/realtime/"));
        for bad in ["", "/", "/ws", "socket.io/", "/a b/", "/a?b", "//"] {
            assert!(socketio_path(bad).is_err(), "{bad}");
        }
        for (prefix, good) in
            [("roomcast", true), ("app:prod", true), ("", false), ("a*", false), ("{a}", false), ("a b", false)]
        {
            assert_eq!(key_prefix(prefix).is_ok(), good, "{prefix}");
        }
        for (namespace_text, good) in [("/", true), ("/chat", true), ("chat", false), ("/a,b", false)] {
            assert_eq!(namespace(namespace_text).is_ok(), good, "{namespace_text}");
        }
        for (filter, good) in [("info", true), ("warn,roomcast=debug", true), ("inof", false), ("", false)] {
            assert_eq!(log_filter(filter).is_ok(), good, "{filter}");
        }
        assert!(claim_path("user..id").is_err());
    }
}
