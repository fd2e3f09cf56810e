//! Rooms that a token grants: exact names, and patterns that end in `*`. Sans-IO.

use crate::model::number::number_text;
use serde_json::Value;

/// Most rooms that one token may list.
pub const MAX_GRANTS: usize = 256;
/// Longest name, in bytes; the default of `limits.room_name_bytes`.
pub const MAX_GRANT_BYTES: usize = 200;

/// What the token's `rooms_claim` lists. One allocation, or none for an empty list: the names are joined by newlines,
/// which no name can contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Box<str>);

impl Grants {
    /// Reads the claim: a list of names, or one name; missing and null are an empty list. A name is a string, or a
    /// number as JavaScript writes it.
    ///
    /// # Errors
    /// If an item is neither a room nor a pattern. The whole token is refused then; no item is silently dropped.
    pub fn from_claim(claim: Option<&Value>) -> Result<Self, GrantError> {
        let mut joined = String::new();
        match claim {
            None | Some(Value::Null) => {}
            Some(claim @ (Value::String(_) | Value::Number(_))) => push_value(&mut joined, claim, 0)?,
            Some(Value::Array(names)) if names.len() > MAX_GRANTS => return Err(GrantError::TooMany),
            Some(Value::Array(names)) => {
                for (index, name) in names.iter().enumerate() {
                    push_value(&mut joined, name, index)?;
                }
            }
            Some(_) => return Err(GrantError::NotText),
        }
        Ok(Self(joined.into()))
    }

    /// Whether the room is listed, by its name or by a pattern: `a:*` stands for every name that starts with `a:`.
    pub fn allows(&self, room: &str) -> bool {
        self.listing(room).is_some()
    }

    /// The name or the pattern by which the room is listed.
    pub fn listing(&self, room: &str) -> Option<&str> {
        self.names().find(|name| name.strip_suffix('*').map_or(*name == room, |prefix| room.starts_with(prefix)))
    }

    /// The exact names, which a session joins when it connects. A name that is listed twice comes twice.
    pub fn exact(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| !name.ends_with('*'))
    }

    /// As text, for the session's record.
    pub fn as_text(&self) -> &str {
        &self.0
    }

    /// From [`Grants::as_text`]; was checked when it was a claim.
    pub fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('\n').filter(|name| !name.is_empty())
    }
}

fn push_value(joined: &mut String, name: &Value, index: usize) -> Result<(), GrantError> {
    match name {
        Value::String(name) => push(joined, name, index),
        Value::Number(number) => push(joined, &number_text(&number.to_string()), index),
        _ => Err(GrantError::NotText),
    }
}

fn push(joined: &mut String, name: &str, index: usize) -> Result<(), GrantError> {
    let body = name.strip_suffix('*').unwrap_or(name);
    if name.is_empty() || name.len() > MAX_GRANT_BYTES {
        return Err(GrantError::Length { index });
    }
    if body.chars().any(|c| c.is_control() || matches!(c, '*' | '<' | '>' | '{' | '}')) {
        return Err(GrantError::Character { index });
    }
    if !joined.is_empty() {
        joined.push('\n');
    }
    joined.push_str(name);
    Ok(())
}

/// Why a list of rooms cannot be used. Items count from 0.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Neither a list of strings and numbers nor one of them.
    #[error("it must be a list of room names, or one room name")]
    NotText,
    /// Over [`MAX_GRANTS`].
    #[error("it has more than {MAX_GRANTS} items")]
    TooMany,
    /// Half of a surrogate pair in a name.
    #[error("a name contains half of a surrogate pair")]
    Surrogate,
    /// Empty, or over [`MAX_GRANT_BYTES`].
    #[error("item {index} must have 1 to {MAX_GRANT_BYTES} bytes")]
    Length {
        /// Where in the list.
        index: usize,
    },
    /// A control character, `<`, `>`, `{`, `}`, or a `*` that is not the last character.
    #[error("item {index} contains a control character, `<`, `>`, `{{`, `}}`, or a `*` that is not at its end")]
    Character {
        /// Where in the list.
        index: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn grants(claim: Value) -> Result<Grants, GrantError> {
        Grants::from_claim(Some(&claim))
    }

    #[test]
    fn exact_names_and_patterns() {
        let list = grants(json!(["conversation:42", "team:7:*", "héllo"])).unwrap();
        assert_eq!(list.exact().collect::<Vec<_>>(), ["conversation:42", "héllo"]);
        for room in ["conversation:42", "team:7:", "team:7:a", "team:7:a:b", "héllo"] {
            assert!(list.allows(room), "{room}");
        }
        for room in ["", "conversation:4", "conversation:421", "team:7", "team:70:a", "conversation:42\nteam:8", "*"] {
            assert!(!list.allows(room), "{room}");
        }
        assert!(grants(json!("*")).unwrap().allows("anything"));
        assert_eq!(grants(json!("a")).unwrap().exact().collect::<Vec<_>>(), ["a"]);
        assert_eq!(grants(json!([7, 42.0])).unwrap().exact().collect::<Vec<_>>(), ["7", "42"]);
        assert_eq!(grants(json!(42.0)).unwrap().exact().collect::<Vec<_>>(), ["42"]);
    }

    #[test]
    fn nothing_listed_allows_nothing() {
        for list in [Grants::from_claim(None).unwrap(), grants(json!(null)).unwrap(), grants(json!([])).unwrap()] {
            assert!(list.is_empty() && !list.allows("") && !list.allows("a") && list.exact().next().is_none());
        }
    }

    #[test]
    fn bad_lists_are_refused_whole() {
        for bad in [json!({}), json!(true), json!(["a", true]), json!([["a"]]), json!([null])] {
            assert_eq!(grants(bad), Err(GrantError::NotText));
        }
        for bad in ["a\nb", "a*b", "**", "a:*:b", "<id>", "{user}", "a>", "a}", "a\u{0}", "a\u{7f}", "a\u{85}"] {
            assert_eq!(grants(json!(["ok", bad])), Err(GrantError::Character { index: 1 }), "{bad:?}");
        }
        assert_eq!(grants(json!([""])), Err(GrantError::Length { index: 0 }));
        assert_eq!(grants(json!(["x".repeat(201)])), Err(GrantError::Length { index: 0 }));
        assert!(grants(json!(["x".repeat(200)])).is_ok());
        assert_eq!(grants(json!(vec!["a"; 257])), Err(GrantError::TooMany));
        assert!(grants(json!(vec!["a"; 256])).is_ok());
    }
}
