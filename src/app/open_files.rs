//! Who gets the open files that the process may have. What clients hold must leave enough for Redis, the backend and
//! operators, who would otherwise find the node silent when it is full.

use crate::log::redis::partition_appenders;

/// Files that are neither clients' nor operators': at most 64 requests to the backend, connections to Redis, the log's and
/// the key set's, and those that end to make room but are not closed yet.
const RESERVED: usize = 160;
/// Of a shard: its runtime, its listening sockets and its connection to Redis.
const RESERVED_OF_A_SHARD: usize = 8;
/// Of a partition of the log: its connections to Redis, besides those by which shards append.
const RESERVED_OF_A_PARTITION: usize = 5;
/// Connections to `admin_listen`.
const OPERATORS: usize = 64;

/// Sockets that a client uses: one that polls has two.
const SOCKETS_PER_CLIENT: usize = 2;
/// Sockets besides, for publishers, health checks, and clients that have sent nothing yet.
const OTHER_SOCKETS: usize = 1_024;

/// How many sockets there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenFiles {
    /// On `listen`.
    pub clients: usize,
    /// On `admin_listen`.
    pub operators: usize,
}

/// Shares out `files`, the limit of the process, of a node with so many shards and lines of the log.
pub(super) fn share(files: u64, shards: usize, lines: usize, connections: usize) -> OpenFiles {
    let files = usize::try_from(files).unwrap_or(usize::MAX);
    let partitions = lines.saturating_sub(1);
    let of_partitions = (RESERVED_OF_A_PARTITION + partition_appenders(shards, partitions)) * partitions;
    let reserved = RESERVED + RESERVED_OF_A_SHARD * shards + of_partitions + OPERATORS;
    // Of very few files, clients get half.
    let clients = files.saturating_sub(reserved).max(files / 2);
    let needed = connections.saturating_mul(SOCKETS_PER_CLIENT).saturating_add(OTHER_SOCKETS);
    OpenFiles { clients: clients.min(needed), operators: OPERATORS.min(files / 8) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_files_for_everybody_else() {
        assert_eq!(share(1_024, 2, 1, 1_000_000), OpenFiles { clients: 784, operators: 64 });
        assert_eq!(share(256, 2, 1, 1_000_000), OpenFiles { clients: 128, operators: 32 });
        assert_eq!(share(u64::MAX, 2, 1, 10).clients, 1_044);
        assert_eq!(share(1_024, 2, 9, 1_000_000).clients, 784 - 8 * (5 + 2));
    }
}
