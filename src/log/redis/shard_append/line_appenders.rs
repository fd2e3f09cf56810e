//! The appenders of a line: one for each shard, on its thread, or one for all of them.

use crate::log::redis::shard_append::appender::ShardAppender;
use std::cell::Cell;

/// Shards that have an appender of their own; any more share them. More would mean smaller batches, which cost Redis more.
const MAX_SHARDS: usize = 16;
/// Connections by which all shards together append to partitions. Of more partitions or shards each partition has one.
const MAX_OF_PARTITIONS: usize = 128;

thread_local! {
    /// The shard whose thread this is.
    static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Remembers which shard's thread this is.
pub(in crate::log::redis) fn note_shard(shard: usize) {
    SHARD.set(Some(shard));
}

/// How many connections each partition has by which shards append.
pub fn partition_appenders(shards: usize, partitions: usize) -> usize {
    let shards = shards.clamp(1, MAX_SHARDS);
    if shards * partitions <= MAX_OF_PARTITIONS { shards } else { 1 }
}

/// See the module.
pub(in crate::log::redis) struct LineAppenders {
    all: Box<[ShardAppender]>,
    is_shared: bool,
}

impl LineAppenders {
    /// Of the only line, or the control line: one for each shard, up to a bound.
    pub(in crate::log::redis) fn of_shards(shards: usize) -> Self {
        let all = (0..shards.min(MAX_SHARDS)).map(|_| ShardAppender::default()).collect();
        Self { all, is_shared: false }
    }

    /// Of one of so many partitions: one for each shard too, or where these were too many one for all, on the line's thread.
    pub(in crate::log::redis) fn of_partition(shards: usize, partitions: usize) -> Self {
        let count = partition_appenders(shards, partitions);
        let all = (0..count).map(|_| ShardAppender::default()).collect();
        Self { all, is_shared: count < shards.min(MAX_SHARDS) }
    }

    pub(in crate::log::redis) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether one serves all shards, on the line's thread.
    pub(in crate::log::redis) fn is_shared(&self) -> bool {
        self.is_shared
    }

    pub(in crate::log::redis) fn get(&self, index: usize) -> Option<&ShardAppender> {
        self.all.get(index)
    }

    /// The one for callers on this thread, if there is one.
    pub(in crate::log::redis) fn here(&self) -> Option<&ShardAppender> {
        if self.is_shared {
            return self.all.first();
        }
        self.all.get(SHARD.get()?.checked_rem(self.all.len())?)
    }

    pub(in crate::log::redis) fn iter(&self) -> impl Iterator<Item = &ShardAppender> {
        self.all.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_have_appenders_of_their_own_as_long_as_these_are_few() {
        assert_eq!(
            [(1, 8), (2, 64), (8, 16), (64, 8), (16, 9)].map(|(s, p)| partition_appenders(s, p)),
            [1, 2, 8, 16, 1]
        );
        let is_shared = |shards, partitions| LineAppenders::of_partition(shards, partitions).is_shared();
        assert_eq!([is_shared(1, 64), is_shared(2, 64), is_shared(3, 64)], [false, false, true]);
    }

    #[test]
    fn a_caller_finds_the_appender_of_its_thread() {
        let index_of = |appenders: &LineAppenders| {
            appenders.here().and_then(|here| appenders.iter().position(|one| std::ptr::eq(one, here)))
        };
        let (own, shared) = (LineAppenders::of_shards(20), LineAppenders::of_partition(16, 64));
        assert_eq!([index_of(&own), index_of(&shared)], [None, Some(0)], "no shard's thread");
        note_shard(17);
        assert_eq!([index_of(&own), index_of(&shared)], [Some(1), Some(0)]);
    }
}
