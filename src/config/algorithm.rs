//! `[auth] algorithms`.

use crate::auth::Algorithm;
use crate::config::kind::{Choice, Kind};
use crate::config::mistake::Faults;
use crate::config::node::Node;
use crate::config::toml_text::quoted;

/// A name of RFC 7518 section 3.1 or RFC 8037.
pub(super) struct AlgorithmName;

impl Kind for AlgorithmName {
    type Value = Algorithm;

    fn read(&self, node: &Node) -> Result<Algorithm, Faults> {
        let name = Choice(&Algorithm::NAMES).read(node)?;
        Algorithm::from_name(&name).ok_or_else(|| node.fault("is not an algorithm"))
    }

    fn write(&self, value: &Algorithm) -> Option<String> {
        Some(quoted(value.name()))
    }
}
