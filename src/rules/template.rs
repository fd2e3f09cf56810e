//! Names of rooms and events with placeholders.

use crate::model::draft::check_event_name;
use crate::model::names::Room;
use crate::rules::error::TemplateError;
use crate::rules::placeholder::{Piece, Scope, Slot, is_forbidden_in_names};
use crate::rules::values::Values;
use std::sync::Arc;

/// Bytes of an event's name. Drafts check the lower limit of `[limits]`.
const MAX_EVENT_NAME_BYTES: usize = 1024;

/// A room's name.
#[derive(Debug)]
pub(super) enum RoomTemplate {
    Fixed(Room),
    Filled(Vec<Piece>),
}

impl RoomTemplate {
    pub(super) fn compile(text: &str, scope: Scope<'_>, mistakes: &mut Vec<String>) -> Self {
        let pieces = scope.parse(text, mistakes);
        if text.is_empty() {
            mistakes.push("a room must not be empty".into());
        }
        let mut values_in_segment = 0;
        for piece in &pieces {
            match piece {
                Piece::Literal(literal) => {
                    if let Some(c) = literal.chars().find(|c| *c != ':' && is_forbidden_in_names(*c)) {
                        mistakes.push(format!("room \"{text}\" must not contain '{}'", c.escape_debug()));
                    }
                    values_in_segment = if literal.contains(':') { 0 } else { values_in_segment };
                }
                Piece::Slot(slot) => {
                    refuse_composite(slot, text, mistakes);
                    values_in_segment += 1;
                    if values_in_segment == 2 {
                        mistakes.push(format!(
                            "\"{text}\" puts two values into one segment, where different pairs make the same name; \
                             put `:` between them"
                        ));
                    }
                }
            }
        }
        match &pieces[..] {
            [Piece::Literal(name)] => Self::Fixed(name.as_str().into()),
            _ => Self::Filled(pieces),
        }
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Room, TemplateError> {
        let pieces = match self {
            Self::Fixed(room) => return Ok(room.clone()),
            Self::Filled(pieces) => pieces,
        };
        let mut name = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => name.push_str(literal),
                Piece::Slot(slot) => name.push_str(&values.name(slot)?),
            }
        }
        Ok(name.into())
    }
}

/// An event's name.
#[derive(Debug)]
pub(super) enum EventTemplate {
    Fixed(Arc<str>),
    Filled(Vec<Piece>),
}

impl EventTemplate {
    pub(super) fn compile(text: &str, scope: Scope<'_>, mistakes: &mut Vec<String>) -> Self {
        let pieces = scope.parse(text, mistakes);
        if let [] | [Piece::Literal(_)] = &pieces[..] {
            if let Err(why) = check_event_name(text, MAX_EVENT_NAME_BYTES) {
                mistakes.push(why.to_string());
            }
            return Self::Fixed(text.into());
        }
        for piece in &pieces {
            if let Piece::Slot(slot) = piece {
                refuse_composite(slot, text, mistakes);
            }
        }
        Self::Filled(pieces)
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Arc<str>, TemplateError> {
        let pieces = match self {
            Self::Fixed(name) => return Ok(name.clone()),
            Self::Filled(pieces) => pieces,
        };
        let mut name = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => name.push_str(literal),
                Piece::Slot(slot) => name.push_str(&values.text(slot)?),
            }
        }
        check_event_name(&name, MAX_EVENT_NAME_BYTES).map_err(|why| TemplateError::EventName(why.to_string()))?;
        Ok(name.into())
    }
}

/// Adds a mistake for an object or a list within a longer text.
pub(super) fn refuse_composite(slot: &Slot, text: &str, mistakes: &mut Vec<String>) {
    if slot.is_composite() {
        mistakes.push(format!("`{}` is no text that could be inserted into \"{text}\"", slot.text));
    }
}
