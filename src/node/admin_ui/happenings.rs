//! What happens while pages are open, as far as they are shown it: events by their names, and why sessions ended. It comes from a
//! trace of the whole cluster.

use crate::cluster::TraceQuery;
use crate::model::happening::{Happening, Kind};
use crate::model::id::Id;
use crate::node::admin_ui::look::Gathered;
use crate::node::context::Node;
use crate::node::presence::rfc3339;
use crate::node::trace::{Line, follow};
use crate::protocol::admin_ui::{Direction, ShownEvent};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Batches of the trace that wait.
const MAX_WAITING: usize = 4;
/// Ended sessions whose reasons are remembered until the next look.
const MAX_REASONS: usize = 5_000;

/// See the module. The trace ends when this is dropped.
pub struct Happenings {
    lines: mpsc::Receiver<Vec<Line>>,
    /// Events that a look may show.
    max: usize,
    gathered: Gathered,
}

impl Happenings {
    /// Follows from now on, at most `max` events in each look; `None` where as many traces are open as may be.
    pub fn follow(node: &Arc<Node>, max: usize) -> Option<Self> {
        let query = TraceQuery { trace: Id::random(), user: None, session: None, room: None, payloads: false };
        let trace = node.traces.open(&node.context.feed, &query).ok()?;
        let (sender, lines) = mpsc::channel(MAX_WAITING);
        tokio::spawn(follow(node.clone(), query, trace, sender));
        Some(Self { lines, max, gathered: Gathered::default() })
    }

    /// Takes what happens next; `false`: the trace has ended.
    pub async fn next(&mut self) -> bool {
        let Some(lines) = self.lines.recv().await else { return false };
        for line in lines {
            match line {
                Line::Happening(_, happening) | Line::Event { event: happening, .. } => self.take(&happening),
                Line::Skipped(_, count) => self.gathered.skipped += count,
                Line::Ended(_) => return false,
                Line::Opened { .. } | Line::Node(..) => {}
            }
        }
        true
    }

    fn take(&mut self, happening: &Happening) {
        match (happening.kind, happening.session, &happening.reason) {
            (Kind::Disconnected, Some(session), Some(reason)) if self.gathered.reasons.len() < MAX_REASONS => {
                self.gathered.reasons.insert(session.to_string(), reason.clone());
            }
            (Kind::Event | Kind::EventIn, ..) if self.gathered.events.len() < self.max => {
                self.gathered.events.extend(shown(happening));
            }
            (Kind::Event | Kind::EventIn, ..) => self.gathered.skipped += 1,
            _ => {}
        }
    }

    /// What was gathered since the last call.
    pub fn gathered(&mut self) -> Gathered {
        std::mem::take(&mut self.gathered)
    }
}

/// An event of the log has rooms instead of a socket: the page shows them in its place.
fn shown(happening: &Happening) -> Option<ShownEvent> {
    let (direction, socket) = match happening.kind {
        Kind::EventIn => (Direction::Received, happening.session?.to_string()),
        _ => (Direction::Sent { receivers: happening.receivers.unwrap_or_default() }, happening.rooms.join(", ")),
    };
    let (namespace, event) = (happening.namespace.clone()?, happening.event.clone()?);
    Some(ShownEvent { direction, namespace, socket, event, at: rfc3339(happening.at_ms) })
}
