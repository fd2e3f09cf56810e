//! Who is let in: authentications, and which keys verify tokens.

use crate::metrics::maker::{Made, Maker};
use prometheus::{IntCounterVec, IntGauge};

/// `ok`, the codes of `AuthError`, a parser that is not spoken, and a message that is too large.
const HANDSHAKES: [&str; 18] = [
    "ok",
    "token_missing",
    "token_malformed",
    "token_algorithm",
    "token_unknown_key",
    "token_signature",
    "token_expired",
    "token_without_exp",
    "token_not_yet_valid",
    "token_time",
    "token_issuer",
    "token_audience",
    "token_claim",
    "token_user",
    "token_rooms",
    "revoked",
    "unsupported_parser",
    "auth_too_big",
];

/// Metrics of authentication.
pub struct AuthMetrics {
    handshakes: IntCounterVec,
    tokens_verified: IntCounterVec,
    /// Revoked users and tokens that this node knows.
    pub revocations: IntGauge,
}

impl AuthMetrics {
    pub(super) fn new(make: &Maker<'_>) -> Made<Self> {
        Ok(Self {
            handshakes: make.counters_of(
                "roomcast_handshakes_total",
                "Authentications, by result.",
                "result",
                &HANDSHAKES,
            )?,
            tokens_verified: make.counters(
                "roomcast_tokens_verified_total",
                "Tokens accepted, by the position of their secret in auth.secrets, or where their key comes from.",
                &["key"],
            )?,
            revocations: make
                .gauge("roomcast_revocations", "Users and tokens whose tokens are refused by POST /revoke.")?,
        })
    }

    /// Counts an authentication: `ok`, or the error's code.
    pub fn handshake(&self, result: &str) {
        self.handshakes.with_label_values(&[result]).inc();
    }

    /// Takes over how many tokens each key has verified since the start.
    pub fn note_tokens_verified(&self, totals: &[(&str, u64)]) {
        for (key, total) in totals {
            let counter = self.tokens_verified.with_label_values(&[key]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }
}
