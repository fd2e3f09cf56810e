//! The values of placeholders: the caller, and the arguments of its event.

use crate::model::args::Args;
use crate::model::number::number_text;
use crate::protocol::json_text::without_lone_surrogates;
use crate::rules::error::TemplateError;
use crate::rules::json;
use crate::rules::json::push_escaped;
use crate::rules::placeholder::{Slot, Source, is_forbidden_in_names};
use std::borrow::Cow;

/// The user of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRef<'a> {
    /// As text; a number as JavaScript writes it.
    pub text: &'a str,
    /// Whether the claim is a JSON number (`text` is one then): `"{user}"` alone becomes a number.
    pub is_number: bool,
}

/// The client that a rule is applied to.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// `None`: anonymous.
    pub user: Option<UserRef<'a>>,
    /// The token's claims: valid text of a JSON object, `{}` without a token.
    pub claims: &'a str,
    /// The session's public id.
    pub session: &'a str,
    /// The namespace, with its slash.
    pub namespace: &'a str,
    /// The Socket.IO handshake auth without the token: valid text of a JSON object, or empty.
    pub auth: &'a str,
    /// Whether the token's rooms claim allows this room.
    pub granted: &'a dyn Fn(&str) -> bool,
}

/// Why a client's event failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Problem<'a> {
    /// A stable code, such as `forbidden`.
    pub code: &'static str,
    /// A text for people.
    pub message: &'a str,
}

/// A client's event.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The caller.
    pub caller: &'a Caller<'a>,
    /// The arguments; none at `connection`, the reason at `disconnect`.
    pub args: &'a Args,
}

/// The values of a pattern's `<name>`s in the name of a room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(pub(super) Vec<Box<str>>);

/// The values that a template may use.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) caller: &'a Caller<'a>,
    pub(super) args: Option<&'a Args>,
    pub(super) error: Option<Problem<'a>>,
    pub(super) captures: &'a [Box<str>],
}

impl<'a> Values<'a> {
    pub(super) fn of_caller(caller: &'a Caller<'a>) -> Self {
        Self { caller, args: None, error: None, captures: &[] }
    }

    pub(super) fn of_call(call: &Call<'a>) -> Self {
        Self { args: Some(call.args), ..Self::of_caller(call.caller) }
    }

    pub(super) fn find(&self, slot: &Slot) -> Result<Found<'a>, TemplateError> {
        let caller = self.caller;
        let found = match &slot.source {
            Source::User => caller.user.map(|user| match user.is_number {
                true => Found::Json(user.text),
                false => Found::Text(user.text),
            }),
            Source::Claims(path) => json::lookup(caller.claims, path).map(Found::Json),
            Source::Auth(path) => json::lookup(caller.auth, path).filter(|found| !found.is_empty()).map(Found::Json),
            Source::Args(path) => self.args.and_then(|args| json::lookup(args.as_array(), path)).map(Found::Json),
            Source::AllArgs => self.args.map(|args| Found::Json(args.as_array())),
            Source::Session => Some(Found::Text(caller.session)),
            Source::Namespace => Some(Found::Text(caller.namespace)),
            Source::Error => self.error.map(|error| Found::Text(error.message)),
            Source::ErrorCode => self.error.map(|error| Found::Text(error.code)),
            Source::Capture(at) => self.captures.get(*at).map(|text| Found::Text(text)),
        };
        found.ok_or_else(|| TemplateError::Missing(slot.text.clone()))
    }

    /// A value as text, for an event's name.
    pub(super) fn text(&self, slot: &Slot) -> Result<Cow<'a, str>, TemplateError> {
        match self.find(slot)? {
            Found::Text(text) => Ok(Cow::Borrowed(text)),
            Found::Json(json) => json::text(json).ok_or_else(|| TemplateError::NotText(slot.text.clone())),
        }
    }

    /// A value as a part of a room's name.
    pub(super) fn name(&self, slot: &Slot) -> Result<Cow<'a, str>, TemplateError> {
        if let Found::Json(json) = self.find(slot)?
            && matches!(without_lone_surrogates(json), Cow::Owned(_))
        {
            return Err(TemplateError::NotText(slot.text.clone()));
        }
        let text = self.text(slot)?;
        match text.chars().find(|c| is_forbidden_in_names(*c)) {
            Some(c) => Err(TemplateError::Forbidden(slot.text.clone(), c)),
            None if text.is_empty() => Err(TemplateError::Empty(slot.text.clone())),
            None => Ok(text),
        }
    }
}

/// A value, uninterpreted.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    /// The text of a JSON value.
    Json(&'a str),
    /// Plain text.
    Text(&'a str),
}

impl Found<'_> {
    pub(super) fn is_composite(self) -> bool {
        matches!(self, Self::Json(json) if json.starts_with(['{', '[']))
    }

    /// Appends it as a JSON value of its own type.
    pub(super) fn push_json(self, out: &mut String) {
        match self {
            Self::Json(json) => out.push_str(json),
            Self::Text(text) => {
                out.push('"');
                push_escaped(out, text);
                out.push('"');
            }
        }
    }

    /// Appends it inside a JSON string; `false` if it has no text. The escapes of a string stay as they are, and a
    /// number is written as JavaScript writes it.
    pub(super) fn push_inside(self, out: &mut String) -> bool {
        match self {
            Self::Text(text) => push_escaped(out, text),
            Self::Json(json) => match json.as_bytes().first() {
                Some(b'"') => out.push_str(&json[1..json.len() - 1]),
                Some(b'n' | b'{' | b'[') | None => return false,
                Some(b'-' | b'0'..=b'9') => out.push_str(&number_text(json)),
                Some(_) => out.push_str(json),
            },
        }
        true
    }
}
