//! Why a user did or did not get an event: what a shard remembers of its sessions for that, and how the answer follows from
//! it. Sans-IO.
//!
//! Nothing is recorded for a delivery. The answer follows from where in the log a session was when: where it began, in which
//! rooms it was at the event's position, how far its connection has come. So only what changes that is remembered, in rings of
//! bounded size and age ([`history::History`]): ends of sessions, joins and leaves, refusals, gaps, and when which part of the
//! log was written.

pub mod conclusion;
pub mod config;
pub mod decide;
pub mod history;
pub mod notes;
mod ring;
pub mod stamp;
mod turns;
pub mod verdict;
pub mod words;
