//! What is wrong with a configuration, and where it was written.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// One mistake. `Display` is the line that a user sees; it contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Mistake {
    /// `roomcast.toml:12:5 [redis] timeout`, `environment ROOMCAST_REDIS__URL`, `flag --listen`.
    pub place: String,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Where a value was written. Ordered as mistakes are listed: the file from its top, the environment, flags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// In the configuration file; `line` and `column` count from 1, `column` in characters.
    File { line: usize, column: usize, file: Arc<Path> },
    /// In an environment variable of this name.
    Environment(String),
    /// In a flag, with its dashes.
    Flag(&'static str),
    /// Nowhere: something is missing.
    Missing,
}

/// A place in the configuration: where it is written, and its key (`[redis] timeout`, `[[on]] 2 event`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub origin: Origin,
    pub path: String,
}

impl Place {
    pub(super) fn missing(path: &str) -> Self {
        Self { origin: Origin::Missing, path: path.to_owned() }
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Faults {
        vec![(self.clone(), message.into())]
    }

    /// Whether it comes from a variable that other software reads too, such as `JWT_SECRET` or `PORT`.
    pub(super) fn is_conventional(&self) -> bool {
        matches!(&self.origin, Origin::Environment(name) if !name.starts_with("ROOMCAST_"))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { line, column, file } => {
                write!(f, "{}:{line}:{column}", file.display())?;
                if self.path.is_empty() { Ok(()) } else { write!(f, " {}", self.path) }
            }
            // The path is only what is inside a structured value: `ROOMCAST_ON[0].event`.
            Origin::Environment(name) => write!(f, "environment {name}{}", self.path),
            Origin::Flag(name) => write!(f, "flag {name}"),
            Origin::Missing => f.write_str(&self.path),
        }
    }
}

/// Mistakes, with places that can still be compared.
pub(super) type Faults = Vec<(Place, String)>;

/// The mistakes of a load, in the order in which they are listed.
pub(super) fn in_order(mut faults: Faults) -> Vec<Mistake> {
    faults.sort_by(|a, b| a.0.cmp(&b.0));
    faults.dedup();
    faults.into_iter().map(|(place, message)| Mistake { place: place.to_string(), message }).collect()
}

/// ``; did you mean `x`?`` for the candidate nearest to `name`; empty if none is near.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    let nearest = candidates.into_iter().map(|candidate| (strsim::osa_distance(name, candidate), candidate)).min();
    match nearest {
        Some((distance, candidate)) if distance <= (candidate.len() / 3).max(1) => {
            format!("; did you mean `{candidate}`?")
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_near_is_offered_and_the_far_is_not() {
        assert_eq!(did_you_mean("timout", ["url", "timeout"]), "; did you mean `timeout`?");
        assert_eq!(did_you_mean("ulr", ["url", "timeout"]), "; did you mean `url`?");
        assert_eq!(did_you_mean("banana", ["url", "timeout"]), "");
    }
}
