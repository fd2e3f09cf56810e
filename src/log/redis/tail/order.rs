//! Order between lines: an entry that names positions on other lines is delivered after those, and so is what follows it.

use crate::log::redis::after::After;
use crate::log::redis::entry::RawEntry;
use crate::log::redis::tail::Tail;
use crate::model::partition::Line;
use crate::redis::connection::RedisConnection;
use crate::redis::error::RedisError;

impl Tail<'_> {
    /// Delivers entries, each after what it names on other lines.
    pub(super) async fn deliver_in_order(&mut self, mut entries: Vec<RawEntry>) {
        if !self.log.lines.partitions.is_one() {
            while let Some((at, after)) = self.first_early(&entries) {
                let later = entries.split_off(at);
                if !entries.is_empty() {
                    self.deliver(entries).await;
                }
                if !self.log.lines.wait_for(self.log.line, &after, &mut self.given_up).await {
                    self.log.metrics.out_of_order.inc();
                }
                // It is not looked at again.
                entries = later;
                let rest = entries.split_off(1);
                self.deliver(entries).await;
                entries = rest;
            }
        }
        self.deliver(entries).await;
    }

    /// The first entry that another line has to be read for.
    fn first_early(&self, entries: &[RawEntry]) -> Option<(usize, After)> {
        let early = |entry: &RawEntry| {
            let after = entry.after();
            (!self.log.lines.has_delivered(self.log.line, &after)).then_some(after)
        };
        entries.iter().enumerate().find_map(|(at, entry)| Some((at, early(entry)?)))
    }

    /// Completes when the control line was delivered further.
    pub(super) async fn control_advance(&self) {
        self.log.lines.advance_of(Line::CONTROL).await;
    }

    /// Checks that the log still has as many partitions as this node believes.
    pub(super) async fn check_layout(&self, connection: &mut RedisConnection) -> Result<(), RedisError> {
        let Some(layout) = &self.log.layout else { return Ok(()) };
        let is = connection.call(redis::cmd("GET").arg(&self.log.keys.layout)).await?;
        match layout.check(&is) {
            true => Ok(()),
            false => Err(RedisError::NotServing("the log has another number of partitions".into())),
        }
    }
}
