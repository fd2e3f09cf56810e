//! From an event in outboxes to the word that it is written: what the metrics, `explain` and traces say of that.

use crate::model::clock::unix_us;
use crate::model::event::Delivery;
use crate::model::millis::Millis;
use crate::shard::flusher::Unwritten;
use crate::shard::hub::Hub;
use std::sync::Arc;

impl Hub {
    /// Delivers an event. What is listed then, or is flushed by [`Hub::flush_slice`] before, is to be flushed by that.
    pub(super) fn deliver_and_note(&mut self, delivery: &Arc<Delivery>, now: Millis) {
        let receivers = self.deliver(delivery, now);
        // Where nobody receives an event nothing is written.
        if receivers > 0 {
            self.unwritten.push_back(Unwritten {
                flushed_at: self.flusher.flushed_when_empty(),
                accepted_us: delivery.event.accepted_us,
                offset: delivery.event.offset,
                traced: delivery.is_traced().then(|| (delivery.clone(), receivers)),
            });
        } else if delivery.is_traced() {
            self.note_traced(delivery, 0);
        }
    }

    /// Flushes up to `max` of the connections that are listed. Answers whether more are.
    pub(super) fn flush_slice(&mut self, max: usize, now: Millis) -> bool {
        let more = self.flush_some(max, now);
        for (protocol, count) in self.flusher.take_delivered() {
            self.context.metrics.events.delivered(protocol, count);
        }
        self.note_written(more);
        more
    }

    fn note_written(&mut self, more: bool) {
        let flushed = self.flusher.flushed();
        let is_written = |unwritten: &Unwritten| unwritten.flushed_at <= flushed || !more;
        if !self.unwritten.front().is_some_and(is_written) {
            return;
        }
        let now_us = unix_us();
        while self.unwritten.front().is_some_and(is_written) {
            let Some(Unwritten { accepted_us, offset, traced, .. }) = self.unwritten.pop_front() else { break };
            self.history.wrote(offset, now_us / 1000);
            if let Some((delivery, receivers)) = traced {
                self.note_traced(&delivery, receivers);
            }
            // Every frame is written, or waits because its client is slow.
            self.context.metrics.events.publish_to_write.observe(now_us.saturating_sub(accepted_us) as f64 / 1e6);
        }
    }

    /// This shard has written a traced event; the last one to do so ends its span.
    fn note_traced(&self, delivery: &Delivery, receivers: u64) {
        if let Some(receivers) = delivery.shard_wrote(receivers) {
            self.context.telemetry.delivered(&delivery.event, receivers);
        }
    }
}
