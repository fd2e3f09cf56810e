//! Engine.IO v4: packets, polling payloads, the handshake and its errors (docs/protocol/socketio.md section 2).

use crate::protocol::base64::decode_like_node;
use crate::protocol::query;
use crate::protocol::raw_json::Quoted;
use std::time::Duration;

/// Separates the packets of a polling payload.
pub const SEPARATOR: char = '\x1e';

/// One packet as text (docs/protocol/socketio.md section 2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// `0`: sent by servers only; ignored from a client.
    Open,
    /// `1`: closes on polling, ignored on WebSocket (docs/protocol/socketio.md section 2.9).
    Close,
    /// `2`: a v4 client must not send it (docs/protocol/socketio.md section 2.5).
    Ping,
    /// `3`: answers a ping.
    Pong,
    /// `4`: a Socket.IO packet.
    Message(&'a str),
    /// `b`: a binary message as base64.
    Binary(Vec<u8>),
    /// `5`: the WebSocket takes over.
    Upgrade,
    /// `6`: no meaning; answers a GET that should return.
    Noop,
    /// `2probe`: the WebSocket asks whether it can take over.
    PingProbe,
    /// `3probe`: the answer to it.
    PongProbe,
}

/// Why a text is not a packet. The connection is closed as a parse error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// No byte.
    #[error("an Engine.IO packet must have a type; this one is empty")]
    Empty,
    /// A type that does not exist.
    #[error("an Engine.IO packet must begin with 0 to 6, or with b")]
    UnknownType,
}

impl PacketError {
    /// A stable name, for logs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "empty_packet",
            Self::UnknownType => "unknown_packet_type",
        }
    }
}

/// Reads one text packet: a text frame, or a part of a payload. Data after a type that has none is ignored.
pub fn parse(text: &str) -> Result<Packet<'_>, PacketError> {
    let Some(kind) = text.bytes().next() else { return Err(PacketError::Empty) };
    Ok(match kind {
        b'0' => Packet::Open,
        b'1' => Packet::Close,
        b'2' if text == "2probe" => Packet::PingProbe,
        b'2' => Packet::Ping,
        b'3' if text == "3probe" => Packet::PongProbe,
        b'3' => Packet::Pong,
        b'4' => Packet::Message(&text[1..]),
        b'5' => Packet::Upgrade,
        b'6' => Packet::Noop,
        b'b' => Packet::Binary(decode_like_node(&text[1..])),
        _ => return Err(PacketError::UnknownType),
    })
}

/// Reads the packets of a polling POST. Ends after the first error.
pub fn parse_payload(body: &str) -> impl Iterator<Item = Result<Packet<'_>, PacketError>> {
    let mut failed = false;
    body.split(SEPARATOR).map_while(move |piece| {
        if failed {
            return None;
        }
        let packet = parse(piece);
        failed = packet.is_err();
        Some(packet)
    })
}

/// The open packet with exactly the five keys of docs/protocol/socketio.md section 2.2.
pub fn handshake(
    sid: &str,
    upgrades: &[&str],
    ping_interval: Duration,
    ping_timeout: Duration,
    max_payload: usize,
) -> String {
    let upgrades: Vec<_> = upgrades.iter().map(|name| Quoted(name).to_string()).collect();
    format!(
        r#"0{{"sid":{},"upgrades":[{}],"pingInterval":{},"pingTimeout":{},"maxPayload":{max_payload}}}"#,
        Quoted(sid),
        upgrades.join(","),
        ping_interval.as_millis(),
        ping_timeout.as_millis(),
    )
}

/// Why a request is refused. Its discriminant is the code on the wire (docs/protocol/socketio.md section 2.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HandshakeError {
    /// `transport` is missing, unknown or disabled.
    TransportUnknown = 0,
    /// There is no such session.
    UnknownSid = 1,
    /// A handshake that is not a GET.
    BadMethod = 2,
    /// The request does not fit its session.
    BadRequest = 3,
    /// The application refuses.
    Forbidden = 4,
    /// `EIO` is not 4.
    UnsupportedVersion = 5,
}

impl HandshakeError {
    /// The code in the body.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The HTTP status on polling; a refused upgrade is always 400.
    pub fn status(self) -> u16 {
        if self == Self::Forbidden { 403 } else { 400 }
    }

    /// The message that stock clients know.
    pub fn message(self) -> &'static str {
        match self {
            Self::TransportUnknown => "Transport unknown",
            Self::UnknownSid => "Session ID unknown",
            Self::BadMethod => "Bad handshake method",
            Self::BadRequest => "Bad request",
            Self::Forbidden => "Forbidden",
            Self::UnsupportedVersion => "Unsupported protocol version",
        }
    }

    /// The JSON body of the polling answer.
    pub fn body(self) -> String {
        format!(r#"{{"code":{},"message":"{}"}}"#, self.code(), self.message())
    }
}

/// The transports of Engine.IO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

/// The query string of a request. The first of duplicate keys counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `EIO=4`.
    pub version_ok: bool,
    /// `transport`; `None`: missing or unknown.
    pub transport: Option<Transport>,
    /// `sid`; `None`: missing or empty, which means a handshake.
    pub sid: Option<String>,
    /// `token`; `None`: missing or empty.
    pub token: Option<String>,
    /// `b64` with any value: the client cannot take binary frames.
    pub base64: bool,
}

/// A sid has 20 characters. A longer one is cut, and matches no session.
const MAX_SID: usize = 64;
/// A longer token is cut, and is refused as invalid.
pub(super) const MAX_TOKEN: usize = 16 * 1024;

impl Query {
    /// Reads a query string, without its `?`.
    pub fn parse(query: &str) -> Self {
        let (mut version, mut transport, mut sid, mut token, mut base64) = (None, None, None, None, None);
        for (key, value) in query::pairs(query) {
            let field = match key.as_ref() {
                "EIO" => &mut version,
                "transport" => &mut transport,
                "sid" => &mut sid,
                "token" => &mut token,
                "b64" => &mut base64,
                _ => continue,
            };
            field.get_or_insert(value);
        }
        let text = |value: Option<std::borrow::Cow<'_, str>>, max| {
            value.filter(|value| !value.is_empty()).map(|value| query::bounded(&value, max))
        };
        Self {
            version_ok: version.as_deref() == Some("4"),
            transport: match transport.as_deref() {
                Some("polling") => Some(Transport::Polling),
                Some("websocket") => Some(Transport::WebSocket),
                _ => None,
            },
            sid: text(sid, MAX_SID),
            token: text(token, MAX_TOKEN),
            base64: base64.is_some_and(|value| !value.is_empty()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn packets_as_the_sheet_says() {
        assert_eq!(parse("2"), Ok(Packet::Ping));
        assert_eq!(parse("2foo"), Ok(Packet::Ping));
        assert_eq!(parse("2probe"), Ok(Packet::PingProbe));
        assert_eq!(parse("3probe"), Ok(Packet::PongProbe));
        assert_eq!(parse("3"), Ok(Packet::Pong));
        assert_eq!(parse("4"), Ok(Packet::Message("")));
        assert_eq!(parse("42[\"é\"]"), Ok(Packet::Message("2[\"é\"]")));
        assert_eq!(parse("bAQIDBA=="), Ok(Packet::Binary(vec![1, 2, 3, 4])));
        assert_eq!(parse("b"), Ok(Packet::Binary(vec![])));
        assert_eq!(parse(""), Err(PacketError::Empty));
        for bad in ["abc", "7", "é", " 4", "\u{0}"] {
            assert_eq!(parse(bad), Err(PacketError::UnknownType), "{bad}");
        }
        for (text, bytes) in [("bAQI=\n", &[1, 2][..]), ("bAQI", &[1, 2]), ("b-_-_", &[0xfb, 0xff, 0xbf]), ("b!", &[])]
        {
            assert_eq!(parse(text), Ok(Packet::Binary(bytes.to_vec())), "{text:?}");
        }
    }

    /// What `tests/vectors/capture.mjs` wrote: the real packages' packets, or null for an error.
    fn is(packet: &Result<Packet<'_>, PacketError>, theirs: &serde_json::Value) -> bool {
        let data = theirs["data"].as_str();
        match packet {
            Err(_) => theirs.is_null(),
            Ok(Packet::Open) => theirs["type"] == "open",
            Ok(Packet::Close) => theirs["type"] == "close",
            Ok(Packet::Ping) => theirs["type"] == "ping" && data != Some("probe"),
            Ok(Packet::Pong) => theirs["type"] == "pong" && data != Some("probe"),
            Ok(Packet::PingProbe) => theirs["type"] == "ping" && data == Some("probe"),
            Ok(Packet::PongProbe) => theirs["type"] == "pong" && data == Some("probe"),
            Ok(Packet::Upgrade) => theirs["type"] == "upgrade",
            Ok(Packet::Noop) => theirs["type"] == "noop",
            Ok(Packet::Message(text)) => theirs["type"] == "message" && data.unwrap_or_default() == *text,
            Ok(Packet::Binary(bytes)) => theirs["data"]["$binary"] == STANDARD.encode(bytes),
        }
    }

    #[test]
    fn the_real_parser_decides_the_same() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/engineio.json")).unwrap();
        let list = |key: &str| vectors[key].as_array().unwrap().clone();
        for vector in list("encoded") {
            assert!(is(&parse(vector["text"].as_str().unwrap()), &vector), "{vector}");
        }
        for vector in list("texts") {
            assert!(is(&parse(vector["text"].as_str().unwrap()), &vector["packet"]), "{vector}");
        }
        for vector in list("payloads") {
            let ours: Vec<_> = parse_payload(vector["body"].as_str().unwrap()).collect();
            let theirs = vector["packets"].as_array().unwrap();
            assert_eq!(ours.len(), theirs.len(), "{vector}");
            assert!(ours.iter().zip(theirs).all(|(ours, theirs)| is(ours, theirs)), "{vector}: {ours:?}");
        }
        assert!(list("encoded").len() + list("texts").len() + list("payloads").len() > 25);
    }

    #[test]
    fn payloads_end_with_the_first_error() {
        let all: Vec<_> = parse_payload("451-[]\x1ebAQ==\x1e3").collect();
        assert_eq!(all, [Ok(Packet::Message("51-[]")), Ok(Packet::Binary(vec![1])), Ok(Packet::Pong)]);
        let all: Vec<_> = parse_payload("3\x1eabc\x1e3").collect();
        assert_eq!(all, [Ok(Packet::Pong), Err(PacketError::UnknownType)]);
        assert_eq!(parse_payload("").collect::<Vec<_>>(), [Err(PacketError::Empty)]);
        assert_eq!(parse_payload("3\x1e").collect::<Vec<_>>(), [Ok(Packet::Pong), Err(PacketError::Empty)]);
    }

    #[test]
    fn the_handshake_has_the_five_keys_in_order() {
        let seconds = Duration::from_secs;
        assert_eq!(
            handshake("iUu1JDmGIRFF1NONAAAA", &["websocket"], seconds(25), seconds(20), 1_000_000),
            r#"0{"sid":"iUu1JDmGIRFF1NONAAAA","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}"#
        );
        assert_eq!(
            handshake("s", &[], Duration::from_millis(300), Duration::from_millis(200), 1),
            r#"0{"sid":"s","upgrades":[],"pingInterval":300,"pingTimeout":200,"maxPayload":1}"#
        );
    }

    #[test]
    fn errors_have_the_bodies_of_the_sheet() {
        assert_eq!(HandshakeError::TransportUnknown.body(), r#"{"code":0,"message":"Transport unknown"}"#);
        assert_eq!(HandshakeError::UnknownSid.body(), r#"{"code":1,"message":"Session ID unknown"}"#);
        assert_eq!(HandshakeError::BadMethod.body(), r#"{"code":2,"message":"Bad handshake method"}"#);
        assert_eq!(HandshakeError::BadRequest.body(), r#"{"code":3,"message":"Bad request"}"#);
        assert_eq!(HandshakeError::UnsupportedVersion.body(), r#"{"code":5,"message":"Unsupported protocol version"}"#);
        assert_eq!((HandshakeError::Forbidden.status(), HandshakeError::BadRequest.status()), (403, 400));
    }

    #[test]
    fn queries_are_decoded_and_bounded() {
        let query = Query::parse("k=v%20w&EIO=4&transport=polling&t=r5iaxsb9&token=a%2Eb&token=evil&b64=1");
        assert_eq!(
            query,
            Query {
                version_ok: true,
                transport: Some(Transport::Polling),
                sid: None,
                token: Some("a.b".into()),
                base64: true
            }
        );
        for bad in ["", "EIO=3", "EIO=5", "EIO=abc", "EIO=3&EIO=4", "EIO=4%00", "eio=4"] {
            assert!(!Query::parse(bad).version_ok, "{bad}");
        }
        assert_eq!(Query::parse("transport=webtransport").transport, None);
        assert_eq!(Query::parse("sid=&token=").sid, None);
        assert_eq!(Query::parse("sid=__proto__").sid.as_deref(), Some("__proto__"));
        let long = format!("sid={0}&token={0}", "x".repeat(100_000));
        let long = Query::parse(&long);
        assert_eq!((long.sid.unwrap().len(), long.token.unwrap().len()), (MAX_SID, MAX_TOKEN));
    }
}
