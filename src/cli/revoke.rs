//! `roomcast revoke`.

use crate::cli::cluster_api::Access;
use crate::cli::{Common, Failure};
use serde::Serialize;
use serde_json::Value;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The user: all their sessions end, and their tokens of before are refused
    #[arg(long, required_unless_present = "jti", conflicts_with = "jti")]
    user: Option<String>,
    /// The `jti` of one token instead
    #[arg(long)]
    jti: Option<String>,
    /// For how long, at most 31d: as long as such a token is valid [default: auth.revoke_for of the node]
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<String>,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    lasts: Option<&'a str>,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let Arguments { user, jti, lasts, access } = arguments;
    let body = Body { user: user.as_deref(), jti: jti.as_deref(), lasts: lasts.as_deref() };
    let body = serde_json::to_string(&body).map_err(Failure::at_run_time)?;
    let api = access.open(common)?;
    let answer = api.ask("/revoke", Some(body))?;
    api.show(&answer, |answer| in_words(user.as_deref(), answer));
    Ok(())
}

fn in_words(user: Option<&str>, answer: &Value) -> String {
    let number = |key: &str| answer[key].as_u64().unwrap_or_default();
    let whose = match user {
        Some(_) => "the user's tokens of before are",
        None => "the token is",
    };
    let until = answer["until"].as_str().unwrap_or("?");
    let pending = match number("nodes_pending") {
        0 => String::new(),
        nodes => format!("; {nodes} nodes have not confirmed yet"),
    };
    format!("{} sessions ended; {whose} refused until {until}{pending}", number("sessions"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_in_words() {
        let answer = r#"{"sessions":2,"until":"2026-11-27T00:00:00Z","nodes_pending":1}"#;
        let expected = "2 sessions ended; the user's tokens of before are refused until 2026-11-27T00:00:00Z; \
                        1 nodes have not confirmed yet";
        assert_eq!(in_words(Some("7"), &serde_json::from_str(answer).unwrap()), expected);
    }
}
