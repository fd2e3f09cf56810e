//! Why a template cannot be filled for this caller and this event.

use crate::model::args::MAX_JSON_DEPTH;

/// Bytes of a filled template. A template may insert a large message of a client several times.
pub const MAX_FILLED_BYTES: usize = 16 << 20;

/// Why a template cannot be filled. Clients get the text. The `Box<str>` is the placeholder as the rule has it, such as
/// `{0.chatId}`; no text contains a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The caller or its event has no such value.
    #[error("missing value {0}")]
    Missing(Box<str>),
    /// Null, an object or an array where text is needed; or a string that is not valid Unicode.
    #[error("{0} must be a string, a number or a boolean here, not null, an object or an array")]
    NotText(Box<str>),
    /// An empty string where a part of a room's name is needed.
    #[error("{0} must not be empty: it is part of a room's name")]
    Empty(Box<str>),
    /// A character that could make two names collide.
    #[error("{slot} contains '{character}', which a value in a room's name must not", slot = .0, character = .1.escape_debug())]
    Forbidden(Box<str>, char),
    /// The name of the event, with its values, cannot be sent to clients; the text says why.
    #[error("{0}")]
    EventName(String),
    /// With its values the message is nested deeper than [`MAX_JSON_DEPTH`].
    #[error("the message would be nested deeper than {MAX_JSON_DEPTH} levels")]
    TooDeep,
    /// Longer than [`MAX_FILLED_BYTES`].
    #[error("the message would be longer than {MAX_FILLED_BYTES} bytes")]
    TooBig,
}

impl TemplateError {
    /// The stable name of the error.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing_value",
            Self::NotText(_) => "not_text",
            Self::Empty(_) => "empty_value",
            Self::Forbidden(..) => "forbidden_character",
            Self::EventName(_) => "bad_event_name",
            Self::TooDeep => "too_deep",
            Self::TooBig => "too_big",
        }
    }
}
