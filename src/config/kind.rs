//! Kinds of values: how they are read from a [`Node`], and written for the effective configuration.

use crate::config::mistake::{Faults, did_you_mean};
use crate::config::node::{Node, Value, collect};
use crate::config::toml_text::{quoted, shown};
use crate::model::secret::Secret;
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

/// A kind of value.
pub(super) trait Kind {
    /// Its type in the configuration.
    type Value;
    /// Reads and checks it.
    fn read(&self, node: &Node) -> Result<Self::Value, Faults>;
    /// Writes it as TOML, secrets masked; `None`: not set.
    fn write(&self, value: &Self::Value) -> Option<String>;
}

/// `true` or `false`; from the environment also `1`, `0`, `yes`, `no`, `on`, `off`.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn read(&self, node: &Node) -> Result<bool, Faults> {
        match &node.value {
            Value::Bool(yes) => Ok(*yes),
            Value::Plain(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(node.fault(format!("must be true or false, not \"{}\"", shown(text)))),
            },
            _ => Err(node.fault(format!("must be true or false, not {}", node.type_name()))),
        }
    }

    fn write(&self, value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A plain number in a range.
pub(super) struct Count<T>(RangeInclusive<u64>, PhantomData<T>);

/// A plain number in this range, whose end must fit `T`.
pub(super) fn count<T>(range: RangeInclusive<u64>) -> Count<T> {
    Count(range, PhantomData)
}

impl<T: TryFrom<u64> + Copy + ToString> Kind for Count<T> {
    type Value = T;

    fn read(&self, node: &Node) -> Result<T, Faults> {
        let number = match &node.value {
            Value::Number(number) => number.as_u64(),
            Value::Plain(text) => text.trim().replace('_', "").parse().ok(),
            _ => return Err(node.fault(format!("must be a whole number, not {}", node.type_name()))),
        };
        let number = number.filter(|number| self.0.contains(number)).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| node.fault(format!("must be a whole number from {} to {}", self.0.start(), self.0.end())))
    }

    fn write(&self, value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

/// A part of a whole, from 0 to 1.
pub(super) struct Ratio;

impl Kind for Ratio {
    type Value = f64;

    fn read(&self, node: &Node) -> Result<f64, Faults> {
        let number = match &node.value {
            Value::Number(number) => number.as_f64(),
            Value::Plain(text) => text.trim().parse().ok(),
            _ => return Err(node.fault(format!("must be a number from 0 to 1, not {}", node.type_name()))),
        };
        let number = number.filter(|number| (0.0..=1.0).contains(number));
        number.ok_or_else(|| node.fault("must be a number from 0 to 1"))
    }

    fn write(&self, value: &f64) -> Option<String> {
        Some(format!("{value:?}"))
    }
}

/// Bytes: a plain number, or with a unit; `MB` is 1,000,000 and `MiB` 1,048,576.
pub(super) struct Size(pub RangeInclusive<u64>);

const UNITS: [(&str, u64); 10] = [
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("b", 1),
    ("g", 1_000_000_000),
    ("m", 1_000_000),
    ("k", 1_000),
];

impl Size {
    fn parse(text: &str) -> Option<u64> {
        let text = text.trim().to_ascii_lowercase();
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (unit, times) = unit.copied().unwrap_or(("", 1));
        let number = text.strip_suffix(unit)?.trim_end().replace('_', "");
        match number.split_once('.') {
            None => number.parse::<u64>().ok()?.checked_mul(times),
            // "1.5MB": at most three digits, so that the result is in whole bytes.
            Some((whole, part)) if times >= 1000 && (1..=3).contains(&part.len()) => {
                let thousandths = format!("{whole}{part:0<3}").parse::<u64>().ok()?;
                Some(thousandths.checked_mul(times)? / 1000)
            }
            Some(_) => None,
        }
    }

    fn format(bytes: u64) -> String {
        let unit = ["GB", "GiB", "MB", "MiB", "kB", "KiB"].into_iter().find_map(|name| {
            let times = UNITS.iter().find(|(unit, _)| unit.eq_ignore_ascii_case(name))?.1;
            (bytes > 0 && bytes.is_multiple_of(times)).then(|| format!("{}{name}", bytes / times))
        });
        unit.unwrap_or_else(|| format!("{bytes}B"))
    }
}

impl Kind for Size {
    type Value = usize;

    fn read(&self, node: &Node) -> Result<usize, Faults> {
        let bytes = match &node.value {
            Value::Number(number) => number.as_u64(),
            _ => Self::parse(node.text("a size like \"5MB\"")?),
        };
        let bytes = bytes.ok_or_else(|| node.fault("must be a size like \"5MB\", \"64KiB\" or a number of bytes"))?;
        match usize::try_from(bytes) {
            Ok(size) if self.0.contains(&bytes) => Ok(size),
            _ => {
                let (least, max) = (Self::format(*self.0.start()), Self::format(*self.0.end()));
                Err(node.fault(format!("must be a size from {least} to {max}, not {}", Self::format(bytes))))
            }
        }
    }

    fn write(&self, value: &usize) -> Option<String> {
        Some(quoted(&Self::format(*value as u64)))
    }
}

/// A time span: `"25s"`, `"1h30m"`, `"500ms"`; bounds are in milliseconds.
pub(super) struct Span(pub RangeInclusive<u64>);

impl Kind for Span {
    type Value = Duration;

    fn read(&self, node: &Node) -> Result<Duration, Faults> {
        if let Value::Number(number) = &node.value {
            return Err(node.fault(format!("a duration needs its unit: \"{number}s\" for seconds")));
        }
        let text = node.text("a duration like \"25s\"")?;
        let span = humantime::parse_duration(text.trim()).map_err(|_| {
            let text = shown(text);
            node.fault(format!("\"{text}\" is not a duration; write it like \"25s\", \"2m\", \"1h30m\" or \"500ms\""))
        })?;
        let (least, max) = (Duration::from_millis(*self.0.start()), Duration::from_millis(*self.0.end()));
        match (least..=max).contains(&span) {
            true => Ok(span),
            false => {
                let [span, least, max] = [span, least, max].map(humantime::format_duration);
                Err(node.fault(format!("must be a duration from {least} to {max}, not {span}")))
            }
        }
    }

    fn write(&self, value: &Duration) -> Option<String> {
        Some(quoted(&humantime::format_duration(*value).to_string().replace(' ', "")))
    }
}

/// A string with a rule, whose error completes the key's name: "must be …".
pub(super) struct Text(pub fn(&str) -> Result<String, String>);

impl Kind for Text {
    type Value = String;

    fn read(&self, node: &Node) -> Result<String, Faults> {
        (self.0)(node.text("a string")?).map_err(|why| node.fault(why))
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// A string with a rule, of which only a part is shown.
#[derive(Clone, Copy)]
pub(super) struct Masked {
    pub check: fn(&str) -> Result<String, String>,
    pub show: fn(&str) -> String,
}

impl Kind for Masked {
    type Value = String;

    fn read(&self, node: &Node) -> Result<String, Faults> {
        Text(self.check).read(node)
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(quoted(&(self.show)(value)))
    }
}

/// A secret with a rule. No message contains the value or its length; `show` masks it.
#[derive(Clone, Copy)]
pub(super) struct Hidden {
    pub check: fn(&str) -> Result<String, String>,
    pub show: fn(&str) -> String,
}

impl Kind for Hidden {
    type Value = Secret;

    fn read(&self, node: &Node) -> Result<Secret, Faults> {
        (self.check)(node.text("a string")?).map(Secret::new).map_err(|why| node.fault(why))
    }

    fn write(&self, value: &Secret) -> Option<String> {
        Some(quoted(&(self.show)(value.reveal())))
    }
}

/// One of these words.
pub(super) struct Choice(pub &'static [&'static str]);

impl Choice {
    /// ``must be one of `a`, `b` ``.
    fn expected(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|word| format!("\"{word}\"")).collect();
        format!("one of {}", words.join(", "))
    }
}

impl Kind for Choice {
    type Value = String;

    fn read(&self, node: &Node) -> Result<String, Faults> {
        let expected = self.expected();
        let text = node.text(&expected)?;
        match self.0.contains(&text) {
            true => Ok(text.to_owned()),
            false => {
                let hint = did_you_mean(text, self.0.iter().copied());
                Err(node.fault(format!("must be {expected}, not \"{}\"{hint}", shown(text))))
            }
        }
    }

    fn write(&self, value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// An optional value. An empty environment variable means "not set".
pub(super) struct Maybe<K>(pub K);

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn read(&self, node: &Node) -> Result<Self::Value, Faults> {
        match &node.value {
            Value::Plain(text) if text.trim().is_empty() => Ok(None),
            _ => self.0.read(node).map(Some),
        }
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        self.0.write(value.as_ref()?)
    }
}

/// A list with at least `least` items. From the environment it is a comma list.
pub(super) struct List<K> {
    pub of: K,
    pub least: usize,
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn read(&self, node: &Node) -> Result<Self::Value, Faults> {
        let items = node.items("a list like [\"…\"]")?;
        if items.len() < self.least {
            return Err(node.fault("must not be empty"));
        }
        collect(items.iter().map(|item| self.of.read(item)))
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        let items: Vec<_> = value.iter().filter_map(|item| self.of.write(item)).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// One value of a kind, or a list of them. Text from the environment is a comma list; an empty one means "not set".
pub(super) struct OneOrList<K>(pub K);

impl<K: Kind> Kind for OneOrList<K> {
    type Value = Vec<K::Value>;

    fn read(&self, node: &Node) -> Result<Self::Value, Faults> {
        match &node.value {
            Value::List(_) | Value::Plain(_) => {
                let items = node.items("a string or a list of them")?;
                collect(items.iter().map(|item| self.0.read(item)))
            }
            _ => self.0.read(node).map(|one| vec![one]),
        }
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        let items: Vec<_> = value.iter().filter_map(|item| self.0.write(item)).collect();
        match &items[..] {
            [] => None,
            [one] => Some(one.clone()),
            more => Some(format!("[{}]", more.join(", "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in [
            ("5MB", 5_000_000),
            ("64MB", 64_000_000),
            ("1MiB", 1 << 20),
            ("1.5 GB", 1_500_000_000),
            ("64KiB", 65_536),
            ("100", 100),
            ("10_000", 10_000),
            ("7b", 7),
        ] {
            assert_eq!(Size::parse(text), Some(bytes), "{text}");
            assert_eq!(Size::parse(&Size::format(bytes)), Some(bytes), "{text}");
        }
        for bad in ["", "MB", "-1", "5 apples", "1.5", "0.0001MB", "99999999999GB", "1e3", "0x10"] {
            assert_eq!(Size::parse(bad), None, "{bad}");
        }
        assert_eq!(Size::format(64_000_000), "64MB");
    }
}
