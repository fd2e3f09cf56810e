//! One roomcast process: what its shards share, and what goes to all of them.

pub mod admin_ui;
pub mod backend_lanes;
pub mod backfill;
pub mod backfill_queue;
pub mod command_tracker;
pub mod commands;
pub mod context;
pub mod dispatcher;
pub mod drain;
pub mod explanation;
pub mod inspection;
pub mod memory;
pub mod operator_drain;
pub mod presence;
pub mod probe;
pub mod probes;
pub mod resumes;
pub mod revocation;
pub mod revocations_read;
pub mod room_query;
pub mod status;
pub mod trace;
pub mod trace_part;
pub mod traces;
