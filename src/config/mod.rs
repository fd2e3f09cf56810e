//! The configuration: one TOML file, the environment and flags become a checked [`Config`], or the list of all
//! mistakes, each with its place.
//!
//! ```
//! use roomcast::config::{Config, Environment, Flags, Purpose};
//!
//! let environment = Environment::from_iter([("ROOMCAST_REDIS__URL", "redis://cache:6379"), ("PORT", "soon")]);
//! let mistakes = Config::load(&Flags::default(), &environment, Purpose::Other).unwrap_err();
//! assert_eq!(mistakes[0].to_string(), "environment PORT: must be a whole number from 0 to 65535");
//! ```
//!
//! `keys` is the table of all keys: a new one is a line there. A load goes through these files: `file` and
//! `environment` hold what was written; `sources` and `variables` turn it into one `candidate` per key and source;
//! `kind`, `text`, `address`, `algorithm`, `claims` and `rules` read and check single values into `settings`; `checks`
//! compares keys with each other; `show` writes the result. `reload` compares it with the one in force.

mod address;
mod algorithm;
mod candidate;
mod checks;
mod claims;
mod environment;
mod file;
mod flags;
mod keys;
mod kind;
mod mistake;
mod node;
mod reload;
mod rules;
mod settings;
mod show;
mod sources;
mod text;
mod toml_text;
mod variables;

pub use address::url_of;
pub use environment::Environment;
pub use flags::Flags;
pub use mistake::Mistake;
pub use reload::{Change, Successor, live_keys};
pub use settings::{Config, Purpose};

use mistake::in_order;

/// Every key as `section.key`. Tests compare it with what documents the keys.
pub fn key_names() -> Vec<String> {
    keys::KEYS.iter().map(keys::Key::full_name).collect()
}

impl Config {
    /// Reads all sources; precedence is flag, environment, conventional name, file, default.
    ///
    /// # Errors
    /// All mistakes: the file's in its order, then the environment's, then those of flags.
    pub fn load(flags: &Flags, environment: &Environment, purpose: Purpose) -> Result<Self, Vec<Mistake>> {
        let sources = sources::read(flags, environment);
        let mut faults = sources.faults;
        let mut config = Self::default();
        faults.extend(sources::apply(sources.candidates, &mut config));
        config.drop_foreign_secret();
        if sources.file_is_toml {
            faults.extend(checks::contradictions(&config, purpose));
            if !config.is_given("redis.url") {
                faults.extend(variables::redis_parts_without_host(environment));
            }
        }
        if faults.is_empty() { Ok(config) } else { Err(in_order(faults)) }
    }

    /// The values in force, as TOML. Secrets and the passwords of URLs are `***`; a key that is not set is a comment.
    pub fn effective_toml(&self) -> String {
        show::effective(self)
    }

    /// Settings that are allowed but probably not intended.
    pub fn warnings(&self) -> Vec<Mistake> {
        in_order(checks::warnings(self))
    }
}
