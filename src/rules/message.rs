//! Messages with placeholders: literals of JSON text with values between them, filled by appending to one string.

use crate::model::args::{Args, MAX_JSON_DEPTH, json_depth};
use crate::model::names::Room;
use crate::rules::config::{EmitTemplate, MessageTemplate};
use crate::rules::error::{MAX_FILLED_BYTES, TemplateError};
use crate::rules::json::push_escaped;
use crate::rules::placeholder::{Piece, Scope, Slot, Source};
use crate::rules::template::{EventTemplate, RoomTemplate, refuse_composite};
use crate::rules::values::Values;
use serde_json::Value;
use std::sync::Arc;

/// An event for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its name.
    pub event: Arc<str>,
    /// Its arguments.
    pub args: Args,
}

/// An event for a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emission {
    /// The room. The caller must be in it, which is not checked here.
    pub room: Room,
    /// The event.
    pub message: Message,
    /// Whether it is neither stored nor replayed.
    pub volatile: bool,
    /// Whether the caller gets it too.
    pub include_caller: bool,
}

/// A compiled [`MessageTemplate`].
#[derive(Debug)]
pub(super) struct MessageRule {
    event: EventTemplate,
    args: ArgsTemplate,
}

impl MessageRule {
    pub(super) fn compile(message: &MessageTemplate, scope: Scope<'_>, mistakes: &mut Vec<String>) -> Self {
        let event = EventTemplate::compile(&message.event, scope, mistakes);
        Self { event, args: ArgsTemplate::compile(&message.args, scope, mistakes) }
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Message, TemplateError> {
        Ok(Message { event: self.event.fill(values)?, args: self.args.fill(values)? })
    }
}

/// A compiled [`EmitTemplate`].
#[derive(Debug)]
pub(super) struct EmitRule {
    room: RoomTemplate,
    message: MessageRule,
    volatile: bool,
    include_caller: bool,
}

impl EmitRule {
    pub(super) fn compile(emit: &EmitTemplate, scope: Scope<'_>, mistakes: &mut Vec<String>) -> Self {
        Self {
            room: RoomTemplate::compile(&emit.room, scope, mistakes),
            message: MessageRule::compile(&emit.message, scope, mistakes),
            volatile: emit.volatile,
            include_caller: emit.include_caller,
        }
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Emission, TemplateError> {
        Ok(Emission {
            room: self.room.fill(values)?,
            message: self.message.fill(values)?,
            volatile: self.volatile,
            include_caller: self.include_caller,
        })
    }
}

/// A list of arguments.
#[derive(Debug)]
pub(super) enum ArgsTemplate {
    Fixed(Args),
    Filled { items: Vec<Item>, literal_bytes: usize },
}

#[derive(Debug)]
pub(super) enum Item {
    /// `"{args}"`: all arguments of the event, any number of items.
    Splice,
    Value(Vec<Chunk>),
}

#[derive(Debug)]
pub(super) enum Chunk {
    /// JSON text.
    Literal(String),
    /// The whole of a string: the value with its own type.
    Whole(Slot),
    /// Within a longer string: the value as text.
    Inside(Slot),
}

impl ArgsTemplate {
    pub(super) fn compile(args: &[Value], scope: Scope<'_>, mistakes: &mut Vec<String>) -> Self {
        let items: Vec<Item> = args.iter().map(|value| item(value, scope, mistakes)).collect();
        let chunks = || items.iter().flat_map(|item| if let Item::Value(chunks) = item { &chunks[..] } else { &[] });
        let literals: Vec<&str> =
            chunks().filter_map(|chunk| if let Chunk::Literal(json) = chunk { Some(&**json) } else { None }).collect();
        // The literals have all brackets of the template.
        if json_depth(&literals.concat()) >= MAX_JSON_DEPTH {
            mistakes.push(format!("the arguments are nested deeper than {MAX_JSON_DEPTH} levels"));
        }
        if literals.len() == items.len()
            && chunks().count() == items.len()
            && let Ok(args) = Args::list(&format!("[{}]", literals.join(",")))
        {
            return Self::Fixed(args);
        }
        let literal_bytes = literals.iter().map(|json| json.len()).sum();
        Self::Filled { items, literal_bytes }
    }

    pub(super) fn fill(&self, values: &Values<'_>) -> Result<Args, TemplateError> {
        let (items, literal_bytes) = match self {
            Self::Fixed(args) => return Ok(args.clone()),
            Self::Filled { items, literal_bytes } => (items, *literal_bytes),
        };
        let mut filling = Filling { out: String::with_capacity(literal_bytes + 128), values, nested: false };
        let mut count = 0;
        filling.out.push('[');
        for item in items {
            let taken = match (item, values.args) {
                (Item::Splice, None) => return Err(TemplateError::Missing("{args}".into())),
                (Item::Splice, Some(args)) if args.is_empty() => continue,
                (Item::Splice, Some(args)) => args.count(),
                (Item::Value(_), _) => 1,
            };
            if count > 0 {
                filling.out.push(',');
            }
            count += taken;
            filling.item(item)?;
        }
        filling.out.push(']');
        // The template is checked, so only arrays and objects among the values can make it too deep.
        if filling.nested && json_depth(&filling.out) > MAX_JSON_DEPTH {
            return Err(TemplateError::TooDeep);
        }
        Ok(Args::trusted(filling.out, u32::try_from(count).map_err(|_| TemplateError::TooBig)?))
    }
}

struct Filling<'a> {
    out: String,
    values: &'a Values<'a>,
    nested: bool,
}

impl Filling<'_> {
    fn item(&mut self, item: &Item) -> Result<(), TemplateError> {
        match item {
            Item::Splice => {
                self.nested = true;
                self.out.push_str(self.values.args.map_or("", Args::inner));
            }
            Item::Value(chunks) => chunks.iter().try_for_each(|chunk| self.chunk(chunk))?,
        }
        match self.out.len() > MAX_FILLED_BYTES {
            true => Err(TemplateError::TooBig),
            false => Ok(()),
        }
    }

    fn chunk(&mut self, chunk: &Chunk) -> Result<(), TemplateError> {
        match chunk {
            Chunk::Literal(json) => self.out.push_str(json),
            Chunk::Whole(slot) => {
                let found = self.values.find(slot)?;
                self.nested |= found.is_composite();
                found.push_json(&mut self.out);
            }
            Chunk::Inside(slot) => {
                if !self.values.find(slot)?.push_inside(&mut self.out) {
                    return Err(TemplateError::NotText(slot.text.clone()));
                }
            }
        }
        match self.out.len() > MAX_FILLED_BYTES {
            true => Err(TemplateError::TooBig),
            false => Ok(()),
        }
    }
}

fn item(value: &Value, scope: Scope<'_>, mistakes: &mut Vec<String>) -> Item {
    let mut compiler = Compiler { scope, mistakes, chunks: Vec::new() };
    compiler.value(value);
    match &compiler.chunks[..] {
        [Chunk::Whole(Slot { source: Source::AllArgs, .. })] => Item::Splice,
        _ => Item::Value(compiler.chunks),
    }
}

struct Compiler<'a> {
    scope: Scope<'a>,
    mistakes: &'a mut Vec<String>,
    chunks: Vec<Chunk>,
}

impl Compiler<'_> {
    fn value(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.string(text),
            Value::Array(items) => {
                self.literal("[");
                for (at, item) in items.iter().enumerate() {
                    self.literal(if at > 0 { "," } else { "" });
                    self.value(item);
                }
                self.literal("]");
            }
            Value::Object(members) => {
                self.literal("{");
                for (at, (key, member)) in members.iter().enumerate() {
                    self.literal(if at > 0 { ",\"" } else { "\"" });
                    self.literal_text(key);
                    self.literal("\":");
                    self.value(member);
                }
                self.literal("}");
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => self.literal(&value.to_string()),
        }
    }

    fn string(&mut self, text: &str) {
        let mut pieces = self.scope.parse(text, self.mistakes);
        if let [Piece::Slot(_)] = &pieces[..]
            && let Some(Piece::Slot(slot)) = pieces.pop()
        {
            return self.chunks.push(Chunk::Whole(slot));
        }
        self.literal("\"");
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => self.literal_text(&literal),
                Piece::Slot(slot) => {
                    refuse_composite(&slot, text, self.mistakes);
                    self.chunks.push(Chunk::Inside(slot));
                }
            }
        }
        self.literal("\"");
    }

    fn literal_text(&mut self, text: &str) {
        let mut json = String::new();
        push_escaped(&mut json, text);
        self.literal(&json);
    }

    fn literal(&mut self, json: &str) {
        match self.chunks.last_mut() {
            _ if json.is_empty() => {}
            Some(Chunk::Literal(last)) => last.push_str(json),
            _ => self.chunks.push(Chunk::Literal(json.to_owned())),
        }
    }
}
