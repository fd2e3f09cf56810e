//! What one look at the cluster has shown, and the packets that bring a page up to date that knows an earlier one (sans-IO).

use crate::cluster::SessionPlace;
use crate::protocol::admin_ui as encode;
use crate::protocol::admin_ui::{ServerStats, ShownEvent, Socket};
use crate::protocol::socketio_encode::Encoded;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Changes that a page gets one by one. For more it gets all sockets again: it holds 1,000 events, and stops for each.
const MAX_CHANGES: usize = 200;
/// Bytes of all sockets, about: one packet has them.
const MAX_BYTES: usize = 4 << 20;

const GONE: &str = "the session ended";
const HIDDEN: &str = "not shown any more: there are more than console.admin_ui_sockets";

/// A session, as it was seen.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the page gets of it.
    pub socket: Socket,
    /// Where it is on its node.
    pub place: SessionPlace,
    /// Whether all of its rooms are named. Of others it is not known which they left.
    pub has_all_rooms: bool,
}

/// What has happened since the last look.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The first of them.
    pub events: Vec<ShownEvent>,
    /// Why these sessions ended.
    pub reasons: HashMap<String, String>,
    /// So many more events are not shown.
    pub skipped: u64,
}

/// What one look has shown.
#[derive(Debug, Default)]
pub struct Look {
    /// Rises with each look.
    pub number: u64,
    /// When it was taken.
    pub at: String,
    /// The nodes that answered.
    pub servers: Vec<ServerStats>,
    /// What has happened since the look before.
    pub gathered: Gathered,
    sockets: BTreeMap<String, Arc<Seen>>,
    bytes: usize,
    /// The last place that is shown of each node that has more sessions.
    cuts: HashMap<String, SessionPlace>,
}

impl Look {
    /// With these nodes and no sockets yet.
    pub fn new(number: u64, at: String, servers: Vec<ServerStats>, gathered: Gathered) -> Self {
        Self { number, at, servers, gathered, ..Self::default() }
    }

    /// Adds sessions of a node, in order of their places; `has_more`: there are others behind them.
    pub fn add(&mut self, node: &str, sessions: impl IntoIterator<Item = Arc<Seen>>, has_more: bool) {
        let mut last = SessionPlace::default();
        let mut is_cut = has_more;
        for seen in sessions {
            self.bytes += seen.socket.size();
            if self.bytes > MAX_BYTES {
                is_cut = true;
                break;
            }
            last = seen.place;
            self.sockets.insert(seen.socket.id.clone(), seen);
        }
        if is_cut {
            self.cuts.insert(node.to_owned(), last);
        }
    }

    /// Keeps what an earlier look has shown of a node that did not answer this time.
    pub fn keep(&mut self, node: &str, earlier: &Self) {
        let of_node: Vec<_> = earlier.sockets.values().filter(|seen| seen.socket.node == node).cloned().collect();
        self.add(node, of_node, false);
        if let Some(cut) = earlier.cuts.get(node) {
            self.cuts.insert(node.to_owned(), *cut);
        }
    }

    /// Sockets that are shown.
    pub fn shown(&self) -> usize {
        self.sockets.len()
    }

    /// Whether there are sockets that are not shown.
    pub fn is_cut(&self) -> bool {
        !self.cuts.is_empty()
    }

    fn has_hidden(&self, seen: &Seen) -> bool {
        self.cuts.get(&seen.socket.node).is_some_and(|last| seen.place > *last)
    }

    /// The packets for a page that knows an earlier look; `None`: it has just come.
    pub fn packets_after(&self, earlier: Option<&Self>, sees_sockets: bool) -> Vec<Encoded> {
        let mut packets: Vec<Encoded> = self.servers.iter().filter_map(encode::server_stats).collect();
        if !sees_sockets {
            return packets;
        }
        let all = || encode::all_sockets(self.sockets.values().map(|seen| &seen.socket));
        let Some(earlier) = earlier else {
            packets.extend(all());
            return packets;
        };
        let changes = self.changes(earlier);
        // A page that knows no socket chooses its namespace when it gets all.
        if changes.len() > MAX_CHANGES || (earlier.sockets.is_empty() && !self.sockets.is_empty()) {
            packets.extend(all());
        }
        if changes.len() <= MAX_CHANGES {
            packets.extend(changes);
        }
        packets.extend(self.gathered.events.iter().filter_map(encode::event_seen));
        packets
    }

    fn changes(&self, earlier: &Self) -> Vec<Encoded> {
        let gone = earlier.sockets.iter().filter(|(id, _)| !self.sockets.contains_key(*id));
        let mut changes: Vec<Encoded> = gone
            .filter_map(|(_, seen)| {
                let reason = match self.gathered.reasons.get(&seen.socket.id) {
                    Some(reason) => reason,
                    None if self.has_hidden(seen) => HIDDEN,
                    None => GONE,
                };
                encode::socket_disconnected(&seen.socket, reason, &self.at)
            })
            .collect();
        for (id, seen) in &self.sockets {
            match earlier.sockets.get(id) {
                None => changes.extend(encode::socket_connected(&seen.socket, &self.at)),
                Some(before) if !Arc::ptr_eq(before, seen) => self.push_changes(before, seen, &mut changes),
                Some(_) => {}
            }
        }
        changes
    }

    fn push_changes(&self, before: &Seen, seen: &Seen, changes: &mut Vec<Encoded>) {
        if before.socket.transport != seen.socket.transport {
            changes.extend(encode::socket_updated(&seen.socket));
        }
        if before.socket.rooms == seen.socket.rooms || !before.has_all_rooms || !seen.has_all_rooms {
            return;
        }
        let rooms = |seen: &Seen| seen.socket.rooms.iter().cloned().collect::<BTreeSet<String>>();
        let (old, new) = (rooms(before), rooms(seen));
        changes.extend(new.difference(&old).filter_map(|room| encode::room_joined(&seen.socket, room, &self.at)));
        changes.extend(old.difference(&new).filter_map(|room| encode::room_left(&seen.socket, room, &self.at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(id: &str, key: u64, rooms: &[&str]) -> Arc<Seen> {
        let socket = Socket {
            id: id.into(),
            client: id.into(),
            transport: "websocket".into(),
            namespace: "/".into(),
            address: "::1".into(),
            since_ms: 0,
            since: String::new(),
            user: None,
            protocol: "socketio".into(),
            node: "n".into(),
            rooms: rooms.iter().map(|&room| room.into()).collect(),
        };
        Arc::new(Seen { socket, place: SessionPlace { shard: 0, key }, has_all_rooms: true })
    }

    fn look(sessions: &[Arc<Seen>], has_more: bool) -> Look {
        let mut look = Look::new(1, "now".into(), Vec::new(), Gathered::default());
        look.add("n", sessions.iter().cloned(), has_more);
        look
    }

    /// The packets without what is the same in all.
    fn told(after: &Look, before: Option<&Look>) -> Vec<String> {
        let text = |packet: Encoded| packet.text.trim_start_matches("2/admin,").to_owned();
        after.packets_after(before, true).into_iter().map(text).collect()
    }

    #[test]
    fn a_page_gets_what_has_changed() {
        let before = look(&[seen("a", 1, &["x", "y"]), seen("b", 2, &[])], false);
        assert_eq!(told(&look(&[seen("a", 1, &["x", "y"]), seen("b", 2, &[])], false), Some(&before)), [""; 0]);
        let after = look(&[seen("a", 1, &["y", "z"]), seen("c", 3, &["x"])], false);
        let told = told(&after, Some(&before));
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(told[0], format!(r#"["socket_disconnected","/","b","{GONE}","now"]"#));
        assert_eq!(told[1], r#"["room_joined","/","z","a","now"]"#);
        assert_eq!(told[2], r#"["room_left","/","x","a","now"]"#);
        assert!(told[3].starts_with(r#"["socket_connected",{"#) && told[3].contains(r#""rooms":["x"]"#), "{}", told[3]);
    }

    #[test]
    fn a_page_gets_all_at_first_and_when_much_has_changed() {
        let few = look(&[seen("a", 1, &[])], false);
        let first = told(&few, None);
        assert!(first.len() == 1 && first[0].starts_with(r#"["all_sockets",[{"#), "{first:?}");
        assert!(told(&few, Some(&look(&[], false)))[0].starts_with(r#"["all_sockets"#), "it knew none");
        let many: Vec<_> = (0..=MAX_CHANGES as u64).map(|n| seen(&n.to_string(), n, &[])).collect();
        let told = told(&look(&many, false), Some(&few));
        assert!(told.len() == 1 && told[0].starts_with(r#"["all_sockets"#));
    }

    #[test]
    fn a_session_that_is_only_hidden_is_not_called_gone() {
        let before = look(&[seen("b", 2, &[]), seen("c", 3, &[])], true);
        let after = look(&[seen("a", 1, &[]), seen("b", 2, &[])], true);
        let told = told(&after, Some(&before));
        assert!(told[0].contains(HIDDEN) && told[1].starts_with(r#"["socket_connected"#), "{told:?}");
    }

    #[test]
    fn sockets_of_a_node_that_does_not_answer_stay() {
        let before = look(&[seen("a", 1, &[])], true);
        let mut after = look(&[], false);
        after.keep("n", &before);
        assert!(after.shown() == 1 && after.is_cut());
        assert_eq!(told(&after, Some(&before)), [""; 0]);
    }

    #[test]
    fn one_packet_does_not_get_too_large() {
        let room = "r".repeat(1_000);
        let many: Vec<_> = (0..10_000).map(|n: u64| seen(&n.to_string(), n, &[&room])).collect();
        let look = look(&many, false);
        assert!(look.is_cut() && look.shown() < 5_000);
        assert!(told(&look, None)[0].len() < MAX_BYTES + MAX_BYTES / 4);
    }
}
