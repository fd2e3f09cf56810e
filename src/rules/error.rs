//! Why a template cannot be filled for this caller and this event.

use crate::model::args::MAX_JSON_DEPTH;
use std::fmt;

/// A filled template may not grow past this: a client's largest message, named many times by one template.
pub const MAX_FILLED_BYTES: usize = 16 << 20;

/// Why a template cannot be filled; the texts are for the person behind the client. The `Box<str>` is the placeholder
/// as the rule writes it, `{0.chatId}`; no value is ever repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// The caller or its event has no such value.
    Missing(Box<str>),
    /// Null, an object or an array where text is needed; or a string that is not valid Unicode.
    NotText(Box<str>),
    /// An empty string where a part of a room's name is needed.
    Empty(Box<str>),
    /// A character that could make two names collide.
    Forbidden(Box<str>, char),
    /// The event's name, made from values, is one that clients do not take; the text says why.
    EventName(String),
    /// Values nested so deep that the message would pass [`MAX_JSON_DEPTH`].
    TooDeep,
    /// Longer than [`MAX_FILLED_BYTES`].
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

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(slot) => write!(f, "missing value {slot}"),
            Self::NotText(slot) => {
                write!(f, "{slot} must be a string, a number or a boolean here, not null, an object or an array")
            }
            Self::Empty(slot) => write!(f, "{slot} must not be empty: it is part of a room's name"),
            Self::Forbidden(slot, c) => {
                write!(f, "{slot} holds '{}', which a value in a room's name may not", c.escape_debug())
            }
            Self::EventName(why) => f.write_str(why),
            Self::TooDeep => write!(f, "the message would be nested deeper than {MAX_JSON_DEPTH} levels"),
            Self::TooBig => write!(f, "the message would be longer than {MAX_FILLED_BYTES} bytes"),
        }
    }
}

impl std::error::Error for TemplateError {}
