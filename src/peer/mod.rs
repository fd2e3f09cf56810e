//! Between nodes: what this node does not own it forwards, and what it owns it serves to others.

pub mod adopt;
pub mod forward;
