//! The text of a token: three base64url parts, of which the header is read here. Sans-IO.

use crate::auth::error::AuthError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// Longest token, in bytes: about what HTTP servers accept in one header line.
pub const MAX_TOKEN: usize = 8192;
/// Most members of a header. RFC 7515 defines 11.
const MAX_MEMBERS: usize = 32;
/// Longest `kid`, in bytes.
const MAX_KID: usize = 256;

/// A token cut into its parts. Nothing is verified yet.
pub(super) struct Parts<'a> {
    /// The signed text: `header.payload`, encoded.
    pub message: &'a str,
    /// Encoded.
    pub payload: &'a str,
    /// Encoded.
    pub signature: &'a str,
    pub header: Header,
}

/// The members of a header that are used. `jku`, `x5u`, `x5c`, `jwk` and the like are ignored, because keys come from
/// the configuration only. `crit` is refused (RFC 7515 section 4.1.11).
pub(super) struct Header {
    /// As written.
    pub alg: String,
    pub kid: Option<String>,
}

impl<'a> Parts<'a> {
    /// Cuts a token.
    pub(super) fn read(token: &'a str) -> Result<Self, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Malformed("it is longer than 8192 bytes"));
        }
        const PARTS: AuthError = AuthError::Malformed("it must have three parts with dots between");
        let (message, signature) = token.rsplit_once('.').ok_or(PARTS)?;
        let (header, payload) = message.split_once('.').ok_or(PARTS)?;
        if payload.contains('.') {
            return Err(PARTS);
        }
        let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| AuthError::Malformed("its header is not base64url"))?;
        let header = serde_json::from_slice(&header)
            .map_err(|_| AuthError::Malformed("its header is not the JSON object of a signed token"))?;
        Ok(Self { message, payload, signature, header })
    }

    /// The claims' text.
    pub(super) fn claims(&self) -> Result<String, AuthError> {
        let bytes =
            URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| AuthError::Malformed("its claims are not base64url"))?;
        String::from_utf8(bytes).map_err(|_| AuthError::Malformed("its claims are not UTF-8"))
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JOSE header")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Header, A::Error> {
        let (mut alg, mut kid) = (None, None);
        let mut seen: Vec<String> = Vec::new();
        while let Some(name) = access.next_key::<String>()? {
            if seen.contains(&name) || seen.len() == MAX_MEMBERS {
                return Err(A::Error::custom("a member twice, or too many"));
            }
            match name.as_str() {
                "alg" => alg = Some(access.next_value::<String>()?),
                "kid" => kid = access.next_value::<Option<String>>()?,
                "crit" if access.next_value::<Option<IgnoredAny>>()?.is_none() => {}
                "crit" => return Err(A::Error::custom("no critical extension is known")),
                _ => drop(access.next_value::<IgnoredAny>()?),
            }
            seen.push(name);
        }
        if kid.as_ref().is_some_and(|kid: &String| kid.len() > MAX_KID || kid.chars().any(char::is_control)) {
            return Err(A::Error::custom("kid is too long"));
        }
        // Issuers whose language has no absent members write an empty text.
        let kid = kid.filter(|kid| !kid.is_empty());
        Ok(Header { alg: alg.ok_or_else(|| A::Error::missing_field("alg"))?, kid })
    }
}
