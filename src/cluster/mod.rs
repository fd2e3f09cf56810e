//! Leases, presence and commands over the cluster.

pub mod config;
