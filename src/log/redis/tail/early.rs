//! Volatile events that came before an entry which clients get first.

use crate::log::redis::volatile::Volatile;
use crate::log::redis::{RedisLog, renewal, volatile};
use crate::model::event::Event;
use crate::model::offset::{Offset, Position};
use crate::model::partition::Line;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long a volatile event waits for an entry. After a failover that may never come.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// Events that wait so; above it the first ones are delivered early.
const MAX_EVENTS: usize = 10_000;

/// Volatile events that wait, each with the time of its arrival.
#[derive(Default)]
pub(super) struct EarlyEvents(VecDeque<(Instant, Volatile)>);

impl EarlyEvents {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes what arrived, and gives the events whose turn it is where the tail is at `offset`: those that may not overtake an
    /// entry wait until it is read, but no longer than [`MAX_WAIT`].
    pub(super) fn take_due(&mut self, log: &RedisLog, offset: Offset) -> Vec<Arc<Event>> {
        // What volatile events must not overtake is on the control line.
        let delivered = match log.line {
            Line::CONTROL => offset.position,
            _ => log.lines.delivered(Line::CONTROL),
        };
        let received = Instant::now();
        let arrived = volatile::take(log).into_iter().map(|mut volatile| {
            if renewal::is_due(log, volatile.after) {
                // No entry will come there.
                volatile.after = Position::default();
            }
            (received, volatile)
        });
        self.0.extend(arrived);
        let mut events = Vec::new();
        while let Some((received, first)) = self.0.front()
            && (first.after <= delivered || received.elapsed() > MAX_WAIT || self.0.len() > MAX_EVENTS)
        {
            let Some((_, Volatile { draft, accepted_us, .. })) = self.0.pop_front() else { break };
            let accepted_us = log.clock_offset.local_us(accepted_us);
            events.push(Arc::new(Event { offset, draft, accepted_us, after: None }));
        }
        events
    }
}
