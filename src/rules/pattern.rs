//! `match` of a `[[rooms]]` rule.

use crate::rules::error::TemplateError;
use crate::rules::placeholder::{Piece, Scope, Slot, check_capture_name, is_forbidden_in_names};
use crate::rules::values::Captures;
use std::borrow::Cow;

/// A compiled pattern. A name is cut at every `:`, and each segment has at most one value, so no value can reach into
/// its neighbor, and two different lists of values never make the same name.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) segments: Vec<Segment>,
    /// Ends in `*`: the last segment is a prefix.
    pub(super) open: bool,
    pub(super) captures: Vec<Box<str>>,
}

#[derive(Debug, Default)]
pub(super) struct Segment {
    pub(super) before: String,
    pub(super) value: Option<Part>,
    pub(super) after: String,
}

#[derive(Debug)]
pub(super) enum Part {
    Slot(Slot),
    Capture,
}

/// A token's value, for a comparison.
pub(super) enum TokenValue<'a> {
    Is(Cow<'a, str>),
    /// Not at hand.
    Any,
    /// This caller has none.
    Absent,
    Refused(TemplateError),
}

/// The result of a comparison of a name with a pattern.
pub(super) enum Fit {
    No,
    Yes(Captures),
    /// It depends on a value that must not be in a name.
    Refused(TemplateError),
}

impl Pattern {
    /// Compiles a text and appends what is wrong to `mistakes`.
    pub(super) fn compile(text: &str, mistakes: &mut Vec<String>) -> Self {
        let mut compiler = Compiler {
            text,
            pattern: Self { segments: vec![Segment::default()], open: false, captures: vec![] },
            mistakes,
        };
        if text.is_empty() {
            compiler.mistake("a pattern must not be empty".into());
        }
        for piece in Scope::PATTERN.parse(text, compiler.mistakes) {
            match piece {
                Piece::Slot(slot) => compiler.value(Part::Slot(slot)),
                Piece::Literal(literal) => compiler.literal(&literal),
            }
        }
        compiler.pattern
    }

    /// Compares a room's name with the pattern.
    pub(super) fn fit<'a>(&self, room: &str, value_of: impl Fn(&Slot) -> TokenValue<'a>) -> Fit {
        let Some((captures, values)) = self.shape(room) else { return Fit::No };
        for (slot, part) in values {
            match value_of(slot) {
                TokenValue::Any => {}
                TokenValue::Is(value) if value == part => {}
                TokenValue::Is(_) | TokenValue::Absent => return Fit::No,
                TokenValue::Refused(error) => return Fit::Refused(error),
            }
        }
        Fit::Yes(captures)
    }

    /// The parts of the name at each capture and value, if the name has the literals of the pattern.
    fn shape<'p, 'r>(&'p self, room: &'r str) -> Option<(Captures, Vec<(&'p Slot, &'r str)>)> {
        let (mut captures, mut values) = (Vec::new(), Vec::new());
        let mut rest = Some(room);
        for (at, segment) in self.segments.iter().enumerate() {
            let name = rest?;
            if self.open && at + 1 == self.segments.len() {
                return name.starts_with(&segment.before).then_some((Captures(captures), values));
            }
            let (part, remains) = match name.split_once(':') {
                Some((part, remains)) => (part, Some(remains)),
                None => (name, None),
            };
            rest = remains;
            let inner = part.strip_prefix(&*segment.before)?.strip_suffix(&*segment.after)?;
            match &segment.value {
                None => inner.is_empty().then_some(())?,
                _ if inner.is_empty() || inner.contains(is_forbidden_in_names) => return None,
                Some(Part::Capture) => captures.push(inner.into()),
                Some(Part::Slot(slot)) => values.push((slot, inner)),
            }
        }
        rest.is_none().then_some((Captures(captures), values))
    }

    /// The values of the token in the pattern.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.segments.iter().filter_map(|segment| match &segment.value {
            Some(Part::Slot(slot)) => Some(slot),
            _ => None,
        })
    }

    /// Whether the token alone determines the name.
    pub(super) fn is_determined(&self) -> bool {
        !self.open && self.captures.is_empty()
    }

    /// The one name of a determined pattern.
    pub(super) fn name<'a, E>(&self, value_of: impl Fn(&Slot) -> Result<Cow<'a, str>, E>) -> Result<String, E> {
        let mut name = String::new();
        for (at, segment) in self.segments.iter().enumerate() {
            if at > 0 {
                name.push(':');
            }
            name.push_str(&segment.before);
            if let Some(Part::Slot(slot)) = &segment.value {
                name.push_str(&value_of(slot)?);
            }
            name.push_str(&segment.after);
        }
        Ok(name)
    }
}

struct Compiler<'a> {
    text: &'a str,
    pattern: Pattern,
    mistakes: &'a mut Vec<String>,
}

impl Compiler<'_> {
    fn mistake(&mut self, why: String) {
        self.mistakes.push(why);
    }

    fn segment(&mut self) -> &mut Segment {
        if self.pattern.segments.is_empty() {
            self.pattern.segments.push(Segment::default());
        }
        let last = self.pattern.segments.len() - 1;
        &mut self.pattern.segments[last]
    }

    fn value(&mut self, part: Part) {
        self.nothing_after_star();
        let text = self.text;
        if self.segment().value.replace(part).is_some() {
            self.mistake(format!(
                "\"{text}\" puts two values into one segment, where different pairs make the same name; put `:` between them"
            ));
        }
    }

    fn nothing_after_star(&mut self) {
        if self.pattern.open {
            self.pattern.open = false;
            self.mistake(format!("\"{}\": `*` may only be the last character", self.text));
        }
    }

    fn literal(&mut self, literal: &str) {
        let mut rest = literal;
        while let Some(c) = rest.chars().next() {
            self.nothing_after_star();
            rest = &rest[c.len_utf8()..];
            match c {
                ':' => self.pattern.segments.push(Segment::default()),
                '*' => self.star(),
                '<' => match rest.split_once('>') {
                    Some((name, after)) => {
                        self.capture(name);
                        rest = after;
                    }
                    None => return self.mistake(format!("\"{}\" has a `<` that is never closed", self.text)),
                },
                c if is_forbidden_in_names(c) => {
                    return self.mistake(format!("\"{}\" has a stray '{}'", self.text, c.escape_debug()));
                }
                c => {
                    let segment = self.segment();
                    match segment.value {
                        None => segment.before.push(c),
                        Some(_) => segment.after.push(c),
                    }
                }
            }
        }
    }

    fn star(&mut self) {
        self.pattern.open = true;
        if self.segment().value.is_some() {
            self.mistake(format!(
                "\"{}\": `*` after a value would also match longer values; put `:` between them",
                self.text
            ));
        }
    }

    fn capture(&mut self, name: &str) {
        if let Err(why) = check_capture_name(name) {
            self.mistake(why);
        } else if self.pattern.captures.iter().any(|known| **known == *name) {
            self.mistake(format!("\"{}\" captures `<{name}>` twice", self.text));
        }
        self.pattern.captures.push(name.into());
        self.value(Part::Capture);
    }
}
