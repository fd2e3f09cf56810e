//! The environment variables that a configuration is read from.

use crate::config::mistake::{Origin, Place};
use crate::config::node::{Node, Value};
use std::collections::BTreeMap;

/// Environment variables, of the process or of a test.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, Option<String>>);

impl Environment {
    /// The variables of this process. A value that is not UTF-8 is a mistake only if it is read.
    pub fn of_process() -> Self {
        let pairs = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self(pairs.map(|(name, value)| (name, value.into_string().ok())).collect())
    }

    /// Adds variables that are not set.
    #[must_use]
    pub fn or(mut self, variables: impl Iterator<Item = (String, String)>) -> Self {
        for (name, value) in variables {
            self.0.entry(name).or_insert(Some(value));
        }
        self
    }

    /// The value, if it is set and UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref()
    }

    /// The variables that begin with `ROOMCAST_`, in order.
    pub(super) fn own(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let from = self.0.range("ROOMCAST_".to_owned()..);
        from.take_while(|(name, _)| name.starts_with("ROOMCAST_"))
            .map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// A variable as a node. An empty conventional name counts as not set, because compose files set such.
    pub(super) fn node(&self, name: &str) -> Option<Node> {
        let value = self.0.get(name)?;
        let place = Place { origin: Origin::Environment(name.to_owned()), path: String::new() };
        match value {
            Some(text) if text.is_empty() && !name.starts_with("ROOMCAST_") => None,
            Some(text) => Some(Node { place, value: Value::Plain(text.clone()) }),
            None => Some(Node { place, value: Value::Unusable("text that is not UTF-8") }),
        }
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect())
    }
}
