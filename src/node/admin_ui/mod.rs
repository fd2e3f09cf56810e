//! Socket.IO's Admin UI: `[console] admin_ui`. `access` checks who may use it, `watch` looks at the cluster while somebody does,
//! `look` is what one look has shown and how two of them differ, `happenings` are the events between two, `state` belongs to the node.

pub mod access;
pub mod config;
pub mod happenings;
pub mod look;
pub mod state;
pub mod watch;
