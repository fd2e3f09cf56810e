//! Looks at the cluster for the pages of this node, all of them together, and only while there are any.

use crate::cluster::{NodeStatus, SessionView};
use crate::model::clock::unix_ms;
use crate::model::id::NodeId;
use crate::node::admin_ui::happenings::Happenings;
use crate::node::admin_ui::look::{Look, Seen};
use crate::node::admin_ui::state::AdminUi;
use crate::node::context::Node;
use crate::node::inspection;
use crate::node::presence::rfc3339;
use crate::protocol::admin_ui::{AggregatedEvents, NamespaceSockets, ServerStats, Socket};
use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The pause between two looks, as that between two `server_stats` of the real package. The page takes a node for dead after
/// ten seconds.
const PAUSE: Duration = Duration::from_secs(2);
/// The pause before a look that somebody waits for, so that many wait for one.
const SHORT_PAUSE: Duration = Duration::from_millis(200);

/// Looks as long as the node runs.
pub async fn run(node: Arc<Node>) {
    let Some(ui) = node.admin_ui.clone() else { return pending().await };
    let mut watch =
        Watch { node, ui: ui.clone(), number: 0, counts: HashMap::new(), last: Arc::default(), happenings: None };
    loop {
        ui.wanted().await;
        while ui.is_watched() {
            watch.follow();
            let look = Arc::new(watch.look().await);
            watch.note_cut(&look);
            watch.last = look.clone();
            ui.show(look);
            watch.pause().await;
        }
        (watch.last, watch.happenings) = (Arc::default(), None);
    }
}

struct Watch {
    node: Arc<Node>,
    ui: Arc<AdminUi>,
    number: u64,
    /// What each node had counted at the last look.
    counts: HashMap<NodeId, Counts>,
    last: Arc<Look>,
    happenings: Option<Happenings>,
}

/// What a node has counted since its start.
#[derive(Clone, Copy)]
struct Counts {
    opened: u64,
    closed: u64,
    events: u64,
    deliveries: u64,
}

impl Counts {
    fn of(status: &NodeStatus) -> Self {
        let (closed, events, deliveries) = (status.closes_total, status.events_total, status.deliveries_total);
        Self { opened: closed + status.connections, closed, events, deliveries }
    }
}

impl Watch {
    /// A trace ends by itself after `trace.max_time`; there may be too many to begin one.
    fn follow(&mut self) {
        let config = &self.ui.settings.config;
        if self.happenings.is_none() && config.events > 0 && config.sockets > 0 {
            self.happenings = Happenings::follow(&self.node, config.events * PAUSE.as_secs() as usize);
        }
    }

    /// Until the next look. Meanwhile the trace is read.
    async fn pause(&mut self) {
        let mut end = Instant::now() + PAUSE;
        let mut is_wanted = false;
        loop {
            let happens = async {
                match &mut self.happenings {
                    Some(happenings) => happenings.next().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                () = self.ui.wanted(), if !is_wanted => {
                    is_wanted = true;
                    end = end.min(Instant::now() + SHORT_PAUSE);
                }
                goes_on = happens => if !goes_on { self.happenings = None },
            }
        }
    }

    async fn look(&mut self) -> Look {
        let nodes = inspection::nodes(&self.node).await;
        let max = self.ui.settings.config.sockets;
        // Each node shows its share, so that none hides another.
        let share = max.div_ceil(nodes.len().max(1));
        let sessions = if max == 0 { Vec::new() } else { inspection::sample(&self.node, share).await };
        let now = unix_ms();
        let known: HashMap<NodeId, Counts> = std::mem::take(&mut self.counts);
        let mut servers = Vec::new();
        for (id, status) in nodes {
            let Ok(status) = status else { continue };
            let counts = Counts::of(&status);
            servers.push(stats(id, &status, known.get(&id).map(|before| (*before, counts)), now));
            self.counts.insert(id, counts);
        }
        let gathered = self.happenings.as_mut().map(Happenings::gathered).unwrap_or_default();
        if gathered.skipped > 0 {
            tracing::debug!(skipped = gathered.skipped, "the Admin UI shows a part of the events");
        }
        self.number += 1;
        let mut look = Look::new(self.number, rfc3339(now), servers, gathered);
        for (id, answer) in sessions {
            let id = id.to_string();
            match answer {
                Some(page) => look.add(&id, page.items.into_iter().map(seen), page.has_more),
                None => look.keep(&id, &self.last),
            }
        }
        look
    }

    fn note_cut(&self, look: &Look) {
        if look.is_cut() && !self.last.is_cut() {
            let (shown, max) = (look.shown(), self.ui.settings.config.sockets);
            tracing::info!(shown, max, "the Admin UI shows a part of the sessions; console.admin_ui_sockets bounds it");
        }
    }
}

fn seen(view: SessionView) -> Arc<Seen> {
    let place = view.place;
    let has_all_rooms = view.room_count == view.rooms.len() as u64;
    let mut rooms = view.rooms;
    rooms.sort_unstable();
    let socket = Socket {
        id: view.session,
        client: format!("{}.{}.{:x}", view.node, place.shard, view.connection),
        transport: view.transport.unwrap_or_default(),
        namespace: view.namespace,
        address: view.address.unwrap_or_default(),
        since_ms: view.since_ms,
        since: rfc3339(view.since_ms),
        user: view.user,
        protocol: view.protocol.unwrap_or_default(),
        node: view.node,
        rooms,
    };
    Arc::new(Seen { socket, place, has_all_rooms })
}

fn stats(id: NodeId, status: &NodeStatus, counts: Option<(Counts, Counts)>, now_ms: u64) -> ServerStats {
    let namespaces = status.namespaces.iter();
    ServerStats {
        server_id: id.to_string(),
        hostname: status.hostname.clone(),
        pid: status.pid,
        uptime: status.uptime_seconds,
        clients_count: status.connections,
        polling_clients_count: status
            .connections_by
            .iter()
            .filter(|by| by.transport != "websocket")
            .map(|by| by.connections)
            .sum(),
        aggregated_events: counts.map(|(before, now)| events(before, now, now_ms)).unwrap_or_default(),
        namespaces: namespaces
            .map(|(name, count)| NamespaceSockets { name: name.clone(), sockets_count: *count })
            .collect(),
    }
}

fn events(before: Counts, now: Counts, now_ms: u64) -> Vec<AggregatedEvents> {
    let counted = [
        ("rawConnection", before.opened, now.opened),
        ("rawDisconnection", before.closed, now.closed),
        ("packetsIn", before.events, now.events),
        ("packetsOut", before.deliveries, now.deliveries),
    ];
    let timestamp = now_ms / 1_000 * 1_000;
    let event =
        |(kind, before, now): (_, u64, u64)| AggregatedEvents { timestamp, kind, count: now.saturating_sub(before) };
    counted.into_iter().map(event).filter(|event| event.count > 0).collect()
}
