//! The configuration file, and the files that it names for secrets.

use crate::config::environment::Environment;
use crate::config::flags::Flags;
use crate::config::kind::{Kind, List};
use crate::config::mistake::{Faults, Origin, Place};
use crate::config::node::{Node, Value};
use crate::config::text;
use crate::config::toml_text::quoted;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// No configuration, secret or key is longer. Without a limit, a path to `/dev/zero` would fill the memory.
const MAX_BYTES: u64 = 1_000_000;

/// The file if none is named.
const DEFAULT: &str = "roomcast.toml";

/// `--config`, else `ROOMCAST_CONFIG`, else `./roomcast.toml` if it exists. A named file must exist.
pub(super) fn configuration(flags: &Flags, environment: &Environment) -> Result<Option<(Arc<Path>, String)>, Faults> {
    let (path, origin) = match (&flags.config, environment.get("ROOMCAST_CONFIG")) {
        (Some(path), _) => (path.clone(), Some(Origin::Flag("--config"))),
        (None, Some(path)) => (PathBuf::from(path), Some(Origin::Environment("ROOMCAST_CONFIG".into()))),
        (None, None) => (PathBuf::from(DEFAULT), None),
    };
    match (contents(&path), origin) {
        (Ok(text), _) => Ok(Some((path.into(), text))),
        (Err(_), None) if !path.exists() => Ok(None),
        (Err(why), origin) => {
            let origin = origin.unwrap_or(Origin::Missing);
            Err(Place { origin, path: String::new() }.fault(why))
        }
    }
}

fn contents(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(format!("cannot read the file {shown}: {error}")),
        Ok(read) if read as u64 > MAX_BYTES => Err(format!("the file {shown} is longer than {MAX_BYTES} bytes")),
        Ok(_) => Ok(text),
    }
}

/// Reads the file that a node names. A relative path in the configuration file is relative to that file's directory; in
/// the environment, to the working directory.
fn named_by(node: &Node) -> Result<String, Faults> {
    contents(&FilePath.read(node)?).map_err(|why| node.fault(why))
}

/// A file that is read later, and again on a reload.
pub(super) struct FilePath;

impl Kind for FilePath {
    type Value = PathBuf;

    fn read(&self, node: &Node) -> Result<PathBuf, Faults> {
        let path = node.text("the path of a file")?;
        let path = PathBuf::from(text::filled(path).map_err(|why| node.fault(why))?);
        Ok(match &node.place.origin {
            Origin::File { file, .. } => file.parent().unwrap_or(Path::new("")).join(path),
            _ => path,
        })
    }

    fn write(&self, value: &PathBuf) -> Option<String> {
        Some(quoted(&value.display().to_string()))
    }
}

/// A value in a file of its own. Newlines at the end are removed.
pub(super) struct InFile<K>(pub K);

impl<K: Kind> Kind for InFile<K> {
    type Value = K::Value;

    fn read(&self, node: &Node) -> Result<K::Value, Faults> {
        let text = named_by(node)?.trim_end_matches(['\n', '\r']).to_owned();
        self.0.read(&Node { place: node.place.clone(), value: Value::Text(text) })
    }

    fn write(&self, value: &K::Value) -> Option<String> {
        self.0.write(value)
    }
}

/// Values in a file, one per line. Empty lines are skipped.
pub(super) struct LinesInFile<K>(pub K);

impl<K: Kind + Copy> Kind for LinesInFile<K> {
    type Value = Vec<K::Value>;

    fn read(&self, node: &Node) -> Result<Self::Value, Faults> {
        let text = named_by(node)?;
        let line = |line: &str| Node { place: node.place.clone(), value: Value::Text(line.to_owned()) };
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(line).collect();
        List { of: self.0, least: 1 }.read(&Node { place: node.place.clone(), value: Value::List(lines) })
    }

    fn write(&self, value: &Self::Value) -> Option<String> {
        List { of: self.0, least: 1 }.write(value)
    }
}
