//! The fields of an event that this release knows.

use crate::model::draft::{DraftError, Source};

/// The newest form of entries that this release reads. It writes no `v`, since this is 1.
const VERSION: u64 = 1;

/// A name and its value, where they arrived.
pub(in crate::log::redis) type Field<'a> = (&'a [u8], &'a [u8]);

/// The known fields of an event, each at most once and in UTF-8.
#[derive(Default)]
pub(super) struct KnownFields<'a> {
    pub room: Option<&'a str>,
    pub rooms: Option<&'a str>,
    pub event: Option<&'a str>,
    pub data: Option<&'a str>,
    pub args: Option<&'a str>,
    pub except: Option<&'a str>,
    pub namespace: Option<&'a str>,
    pub volatile: Option<&'a str>,
    pub id: Option<&'a str>,
    t: Option<&'a str>,
    src: Option<&'a str>,
    /// Whether there is a `traceparent`, good or not.
    pub is_traced: bool,
}

impl<'a> KnownFields<'a> {
    pub(super) fn of(raw: &[Field<'a>]) -> Result<Self, DraftError> {
        let (mut fields, mut unknown) = (Self::default(), None);
        for &(name, value) in raw {
            let slot = match name {
                b"room" => &mut fields.room,
                b"rooms" => &mut fields.rooms,
                b"event" => &mut fields.event,
                b"data" => &mut fields.data,
                b"args" => &mut fields.args,
                b"except" => &mut fields.except,
                b"namespace" => &mut fields.namespace,
                b"volatile" => &mut fields.volatile,
                b"id" => &mut fields.id,
                b"t" => &mut fields.t,
                b"src" => &mut fields.src,
                // Read by `context`, which finds no fault with them.
                b"traceparent" | b"tracestate" => {
                    fields.is_traced |= name == b"traceparent";
                    continue;
                }
                _ => {
                    unknown.get_or_insert(name);
                    continue;
                }
            };
            let value = std::str::from_utf8(value)
                .map_err(|_| DraftError::Field(format!("`{}` is not UTF-8", printable(name))))?;
            if value.is_empty() && !matches!(name, b"room" | b"event") {
                continue;
            }
            if slot.replace(value).is_some() {
                return Err(DraftError::Field(format!("`{}` is there twice", printable(name))));
            }
        }
        match (fields.t, unknown) {
            // A node wrote it.
            (Some(_), _) => check_version(raw)?,
            (None, Some(name)) => return Err(DraftError::Field(format!("unknown field `{}`", printable(name)))),
            (None, None) => {}
        }
        Ok(fields)
    }

    pub(super) fn volatile(&self) -> Result<Option<bool>, DraftError> {
        match self.volatile {
            None => Ok(None),
            Some("false" | "0") => Ok(Some(false)),
            Some("true" | "1") => Ok(Some(true)),
            Some(_) => Err(DraftError::Field("`volatile` must be `true` or `false`".into())),
        }
    }

    pub(super) fn accepted_us(&self) -> Result<Option<u64>, DraftError> {
        let wrong = || DraftError::Field("`t` must be Unix microseconds".into());
        self.t.map(|t| t.parse().map_err(|_| wrong())).transpose()
    }

    /// Entries of nodes have `t`.
    pub(super) fn source(&self) -> Result<Source, DraftError> {
        match (self.t, self.src) {
            (Some(_), Some(label)) => Ok(source_of(label)),
            (Some(_), None) => Ok(Source::Http),
            (None, None) => Ok(Source::Stream),
            (None, Some(_)) => Err(DraftError::Field("unknown field `src`".into())),
        }
    }
}

/// Refuses an entry of a node whose form this release cannot read.
pub(super) fn check_version(fields: &[Field<'_>]) -> Result<(), DraftError> {
    let Some((_, version)) = fields.iter().find(|(name, _)| *name == b"v") else { return Ok(()) };
    let version: Option<u64> = std::str::from_utf8(version).ok().and_then(|version| version.parse().ok());
    match version {
        Some(..=VERSION) => Ok(()),
        Some(newer) => Err(DraftError::Field(format!("`v` is {newer}; this release reads up to {VERSION}"))),
        None => Err(DraftError::Field("`v` is not a number".into())),
    }
}

/// The source with this metric label. One of a newer release counts as `http`, the default.
pub(in crate::log::redis) fn source_of(label: &str) -> Source {
    Source::ALL.into_iter().find(|source| source.label() == label).unwrap_or(Source::Http)
}

/// The start of an untrusted name, for an error message.
fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(40)]).escape_debug().to_string()
}
