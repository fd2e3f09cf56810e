//! `{…}` in the texts of rules: which placeholders exist, and where they may be used.

use crate::rules::json::{Step, index};

/// Whether a value in a room's name or pattern must not contain this character: the separator, those with a meaning in
/// patterns and templates, and control characters.
pub fn is_forbidden_in_names(c: char) -> bool {
    matches!(c, ':' | '*' | '<' | '>' | '{' | '}') || c.is_control()
}

/// The source of a placeholder's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    User,
    Claims(Vec<Step>),
    /// A path into the list of arguments. Its first step is an index.
    Args(Vec<Step>),
    AllArgs,
    /// A path into the handshake auth; empty: all of it.
    Auth(Vec<Step>),
    Session,
    Namespace,
    Error,
    ErrorCode,
    /// The index of a capture of the pattern.
    Capture(usize),
}

/// A placeholder, with its text for error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) source: Source,
    pub(super) text: Box<str>,
}

impl Slot {
    /// Objects and lists have no text to insert into a longer string.
    pub(super) fn is_composite(&self) -> bool {
        matches!(&self.source, Source::AllArgs) || matches!(&self.source, Source::Auth(path) if path.is_empty())
    }
}

/// A part of a rule's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Slot(Slot),
}

/// The placeholders that may be used at one place of the configuration.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    /// For messages: "in a pattern".
    pub(super) place: &'static str,
    pub(super) args: bool,
    /// `{auth}`, `{session}`, `{namespace}`.
    pub(super) connection: bool,
    pub(super) error: bool,
    /// The names that the rule's pattern captures.
    pub(super) captures: &'a [Box<str>],
}

impl Scope<'static> {
    pub(super) const PATTERN: Self =
        Self { place: "in a pattern", args: false, connection: false, error: false, captures: &[] };
    pub(super) const EVENT: Self =
        Self { place: "in an event's rule", args: true, connection: true, error: false, captures: &[] };
    pub(super) const CONNECTION: Self =
        Self { place: "at `connection`, which has no arguments", args: false, ..Self::EVENT };
    pub(super) fn with_error(self) -> Self {
        Self { error: true, ..self }
    }
}

impl<'a> Scope<'a> {
    pub(super) fn presence(captures: &'a [Box<str>]) -> Self {
        Self { place: "in `joined` and `left`", args: false, connection: true, error: false, captures }
    }

    /// Cuts a text into literals and placeholders, and appends what is wrong to `mistakes`.
    pub(super) fn parse(&self, text: &str, mistakes: &mut Vec<String>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            push_literal(&mut pieces, &rest[..open]);
            if rest[open..].starts_with('}') {
                mistakes.push(format!("\"{text}\" has a `}}` that closes nothing"));
                return pieces;
            }
            let inside = &rest[open + 1..];
            let Some(close) = inside.find(['{', '}']).filter(|at| inside[*at..].starts_with('}')) else {
                mistakes.push(format!("\"{text}\" has a `{{` that is never closed"));
                return pieces;
            };
            match self.source(&inside[..close]) {
                Ok(source) => pieces.push(Piece::Slot(Slot { source, text: rest[open..open + close + 2].into() })),
                Err(why) => mistakes.push(why),
            }
            rest = &inside[close + 1..];
        }
        push_literal(&mut pieces, rest);
        pieces
    }

    fn source(&self, name: &str) -> Result<Source, String> {
        let mut steps = name.split('.');
        let first = steps.next().unwrap_or_default();
        let rest: Vec<Step> = steps.map(Step::new).collect();
        if name.split('.').any(str::is_empty) {
            return Err(format!("`{{{name}}}` is no placeholder: a name is missing"));
        }
        let source = match first {
            "user" => Source::User,
            "claims" if rest.is_empty() => return Err("`{claims}` must name a claim: `{claims.tenant}`".into()),
            "claims" => Source::Claims(rest.clone()),
            "args" => Source::AllArgs,
            "auth" => Source::Auth(rest.clone()),
            "session" => Source::Session,
            "namespace" => Source::Namespace,
            "error" if name == "error.code" => Source::ErrorCode,
            "error" => Source::Error,
            _ if index(first).is_some() => {
                Source::Args([Step::new(first)].into_iter().chain(rest.iter().cloned()).collect())
            }
            _ => match self.captures.iter().position(|capture| **capture == *first) {
                Some(at) => Source::Capture(at),
                None => return Err(self.unknown(name)),
            },
        };
        let takes_path = matches!(source, Source::Claims(_) | Source::Auth(_) | Source::Args(_) | Source::ErrorCode);
        if !rest.is_empty() && !takes_path {
            return Err(format!("`{{{name}}}`: `{first}` has no parts, write `{{{first}}}`"));
        }
        let known = match source {
            Source::Args(_) | Source::AllArgs => self.args,
            Source::Auth(_) | Source::Session | Source::Namespace => self.connection,
            Source::Error | Source::ErrorCode => self.error,
            Source::User | Source::Claims(_) | Source::Capture(_) => true,
        };
        match (known, &source) {
            (true, _) => Ok(source),
            (false, Source::Error | Source::ErrorCode) => {
                Err("`{error}` exists only in `on_error` and `ack_error`".into())
            }
            (false, _) => Err(format!("`{{{name}}}` has no value {}", self.place)),
        }
    }

    fn unknown(&self, name: &str) -> String {
        let mut known = vec!["{user}", "{claims.x}"];
        if self.args {
            known.extend(["{0}", "{0.x}", "{args}"]);
        }
        if self.connection {
            known.extend(["{auth}", "{auth.x}", "{session}", "{namespace}"]);
        }
        if self.error {
            known.extend(["{error}", "{error.code}"]);
        }
        let captures: String = self.captures.iter().map(|name| format!(" {{{name}}}")).collect();
        format!("unknown placeholder `{{{name}}}`; known here: {}{captures}", known.join(" "))
    }
}

/// Why a capture cannot have this name.
pub(super) fn check_capture_name(name: &str) -> Result<(), String> {
    let word = name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if name.is_empty() || !word || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("`<{name}>` must be a name of letters, digits, `_` and `-`, not starting with a digit"));
    }
    match name {
        "user" | "claims" | "args" | "auth" | "session" | "namespace" | "error" => {
            Err(format!("`<{name}>` must have another name: `{{{name}}}` already means something"))
        }
        _ => Ok(()),
    }
}

fn push_literal(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Literal(text.to_owned()));
    }
}
