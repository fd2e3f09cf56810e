//! `/revoke`: refuses the older tokens of a user, or one token, and ends their sessions.

use crate::auth::identity::MAX_USER_BYTES;
use crate::auth::revocations::{MAX_JTI_BYTES, MAX_REVOKE_FOR, Revoked};
use crate::http::Api;
use crate::http::answer::{Reply, error, json, refused, unread};
use crate::http::body;
use crate::model::refusal::Refusal;
use crate::node::revocation::{RevokeError, revoke};
use crate::protocol::json_object;
use crate::protocol::json_text::{Name, Text};
use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use serde::Deserialize;
use serde_json::json;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes of the body.
const MAX_BODY: usize = 4 << 10;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Fields {
    /// A user may be a number, as in the token.
    user: Option<Name>,
    jti: Option<Name>,
    #[serde(rename = "for")]
    lasts: Option<Text>,
}

/// Revokes, and answers how many sessions ended. The caller has checked the key.
pub async fn serve(api: &Api, request: Request<Incoming>) -> Reply {
    let body = match body::read(request, MAX_BODY).await {
        Ok(body) => body,
        Err(problem) => return unread(problem, "4 KiB"),
    };
    let fields: Fields = match json_object::read(&body) {
        Ok(fields) => fields,
        Err(problem) => return error(StatusCode::BAD_REQUEST, "bad_json", &problem.to_string()),
    };
    let (who, lasts) = match read(fields, api.settings().revoke_for) {
        Ok(read) => read,
        Err(message) => return error(StatusCode::BAD_REQUEST, "bad_field", &message),
    };
    match revoke(&api.node, who, lasts).await {
        Ok((applied, until_ms)) => {
            let until = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(until_ms)).to_string();
            let mut answer = json!({ "sessions": applied.sessions, "until": until });
            if applied.nodes_pending > 0 {
                answer["nodes_pending"] = applied.nodes_pending.into();
            }
            json(StatusCode::OK, &answer)
        }
        Err(full @ RevokeError::TooMany(_)) => {
            let message = full.to_string();
            let reply = error(StatusCode::TOO_MANY_REQUESTS, "too_many_revocations", &message);
            refused(reply, Refusal::Revocations, message)
        }
        Err(RevokeError::Append(refused)) => {
            error(StatusCode::SERVICE_UNAVAILABLE, refused.code(), &refused.to_string())
        }
    }
}

/// Whom, and for how long. Typed languages write every field, so an empty one counts as absent.
fn read(fields: Fields, default: Duration) -> Result<(Revoked, Duration), String> {
    let filled = |name: Option<Name>| name.map(|Name(text)| text).filter(|text| !text.is_empty());
    let who = match (filled(fields.user), filled(fields.jti)) {
        (Some(user), None) if user.len() > MAX_USER_BYTES => {
            return Err(format!("`user` has more than {MAX_USER_BYTES} bytes, which no user has"));
        }
        (Some(user), None) => Revoked::User(user.into()),
        (None, Some(jti)) if jti.len() > MAX_JTI_BYTES => {
            return Err(format!("`jti` has more than {MAX_JTI_BYTES} bytes; revoke the `user` instead"));
        }
        (None, Some(jti)) => Revoked::Token(jti.into()),
        _ => return Err("give exactly one of `user` and `jti`".to_owned()),
    };
    let text = fields.lasts.map(|Text(text)| text).filter(|text| !text.is_empty());
    let lasts = text.map_or(Ok(default), |text| humantime::parse_duration(&text));
    match lasts {
        Ok(lasts) if lasts.is_zero() || lasts > MAX_REVOKE_FOR => {
            Err(format!("`for` must be more than 0s and at most {}d", MAX_REVOKE_FOR.as_secs() / 86_400))
        }
        Ok(lasts) => Ok((who, lasts)),
        Err(_) => Err("`for` must be like \"90s\", \"1h\" or \"7d\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_checked() {
        let read = |json: &str| read(serde_json::from_str(json).unwrap(), Duration::from_secs(60));
        let user = |text: &str| Revoked::User(text.into());
        assert_eq!(read(r#"{"user":7}"#), Ok((user("7"), Duration::from_secs(60))));
        assert_eq!(read(r#"{"user":"7","jti":"","for":"1h"}"#), Ok((user("7"), Duration::from_secs(3600))));
        assert_eq!(read(r#"{"jti":"a"}"#), Ok((Revoked::Token("a".into()), Duration::from_secs(60))));
        for bad in [
            r#"{}"#,
            r#"{"user":7,"jti":"a"}"#,
            r#"{"user":7,"for":"32d"}"#,
            r#"{"user":7,"for":"0s"}"#,
            r#"{"user":7,"for":"x"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(read(&format!(r#"{{"user":"{}"}}"#, "x".repeat(201))).is_err());
    }
}
