//! What a client may join, and what its events do: `[[rooms]]` and `[[on]]`, compiled at start (sans-IO).

pub mod config;
