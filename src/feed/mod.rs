//! What happens to the clients of this node, for whoever follows it live: traces, the console, the Admin UI.
//!
//! The parts of a node report to the feed what happens. While nobody has subscribed, that costs one relaxed atomic load. A
//! subscription takes what its [`Filter`] lets through into a bounded queue, at a bounded pace. What finds no place is skipped
//! and counted, so that a slow reader holds up nobody.
//!
//! ```ignore
//! let mut subscription = feed.subscribe(Filter { user: Some("7".into()), ..Filter::default() }, Bounds::default());
//! let Batch { happenings, skipped } = subscription.next().await;
//! ```

pub mod config;
pub mod merger;
mod pace;
mod tap;

use crate::model::happening::{Happening, Kind};
use crate::model::id::Id;
use crate::model::names::Room;
use crate::model::transport::{Protocol, Transport};
use parking_lot::RwLock;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tap::Tap;

/// Bytes of the names of rooms in one happening.
const ROOM_NAMES: usize = 1_024;

/// What a subscription wants: what fits to all that is set, or everything. Without a user and a session, an event of the log
/// comes once, with its receivers, rather than for each session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What concerns this user.
    pub user: Option<String>,
    /// What concerns this session.
    pub session: Option<Id>,
    /// What concerns this room, in whatever namespace. With a user or a session, also what concerns no room.
    pub room: Option<String>,
}

impl Filter {
    /// Whether it follows clients rather than rooms.
    fn is_of_clients(&self) -> bool {
        self.user.is_some() || self.session.is_some()
    }

    fn wants(&self, kind: Kind, subject: &Subject<'_>) -> bool {
        if self.is_of_clients() {
            let is_user = self.user.as_ref().is_none_or(|user| subject.user == Some(user));
            return is_user && self.session.is_none_or(|session| subject.session == Some(session));
        }
        let is_in_room = |room: &String| subject.rooms.iter().any(|one| **one == **room);
        kind != Kind::EventOut && self.room.as_ref().is_none_or(is_in_room)
    }

    fn admits(&self, happening: &Happening) -> bool {
        let room = self.room.as_ref().filter(|_| self.is_of_clients());
        room.is_none_or(|room| happening.rooms.is_empty() || happening.rooms.contains(room))
    }
}

/// The pace of a subscription; what goes beyond it is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Happenings in a second, and twice as many at once.
    pub lines_per_second: u32,
    /// The same in bytes.
    pub bytes_per_second: usize,
    /// Whether events carry their arguments.
    pub payloads: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { lines_per_second: 500, bytes_per_second: 256_000, payloads: false }
    }
}

/// Whom a happening concerns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The user.
    pub user: Option<&'a str>,
    /// The session.
    pub session: Option<Id>,
    /// The namespace.
    pub namespace: Option<&'a str>,
    /// Where the client is.
    pub address: Option<IpAddr>,
    /// How it is connected.
    pub transport: Option<Transport>,
    /// What it speaks.
    pub protocol: Option<Protocol>,
    /// The rooms by which it is filtered.
    pub rooms: &'a [Room],
}

impl Subject<'_> {
    fn happening(&self, kind: Kind, at_ms: u64) -> Happening {
        Happening {
            at_ms,
            kind,
            user: self.user.map(str::to_owned),
            session: self.session,
            namespace: self.namespace.map(str::to_owned),
            address: self.address.map(|address| address.to_string()),
            transport: self.transport.map(|transport| transport.label().to_owned()),
            protocol: self.protocol.map(|protocol| protocol.label().to_owned()),
            rooms: shown_rooms(self.rooms),
            ..Happening::default()
        }
    }
}

/// As many names as fit into a kilobyte.
pub fn shown_rooms(rooms: &[Room]) -> Vec<String> {
    let mut left = ROOM_NAMES;
    let fits = |room: &&Room| {
        let fits = room.len() <= left;
        left = left.saturating_sub(room.len());
        fits
    };
    rooms.iter().take_while(fits).map(ToString::to_string).collect()
}

/// See the module.
#[derive(Default)]
pub struct Feed {
    open: AtomicUsize,
    taps: RwLock<Vec<Arc<Tap>>>,
    skipped: Arc<AtomicU64>,
}

impl Feed {
    /// Whether anybody has subscribed. The only cost while nobody has.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Subscribes until the answer is dropped.
    pub fn subscribe(self: &Arc<Self>, filter: Filter, bounds: Bounds) -> Subscription {
        let tap = Arc::new(Tap::new(filter, bounds, self.skipped.clone()));
        self.taps.write().push(tap.clone());
        self.open.fetch_add(1, Ordering::Relaxed);
        Subscription { feed: self.clone(), tap }
    }

    /// How many have subscribed, and how many happenings were skipped for all of them since the start.
    pub fn counts(&self) -> (usize, u64) {
        (self.open.load(Ordering::Relaxed), self.skipped.load(Ordering::Relaxed))
    }

    /// What somebody follows, each once.
    pub fn filters(&self) -> Vec<Filter> {
        let mut filters = Vec::new();
        for tap in &*self.taps.read() {
            if !filters.contains(&tap.filter) {
                filters.push(tap.filter.clone());
            }
        }
        filters
    }

    /// Reports what happened to who follows the subject; `fill` adds what there is to say.
    pub fn report(&self, kind: Kind, subject: &Subject<'_>, fill: impl FnOnce(&mut Happening)) {
        if !self.is_open() {
            return;
        }
        let taps = self.taps.read();
        let mut wanted = taps.iter().filter(|tap| tap.filter.wants(kind, subject)).peekable();
        if wanted.peek().is_none() {
            return;
        }
        let mut happening = subject.happening(kind, crate::model::clock::unix_ms());
        fill(&mut happening);
        wanted.filter(|tap| tap.filter.admits(&happening)).for_each(|tap| tap.push(&happening));
    }

    /// Reports to who follows one of the rooms of an event how many sessions of a shard received it. The event comes once all
    /// `shards` have reported. `fill` learns whether anybody wants the arguments.
    pub fn report_event(
        &self,
        subject: &Subject<'_>,
        shard: u8,
        shards: usize,
        fill: impl FnOnce(&mut Happening, bool),
    ) {
        if !self.is_open() {
            return;
        }
        let taps = self.taps.read();
        let wanted: Vec<_> = taps.iter().filter(|tap| tap.filter.wants(Kind::Event, subject)).collect();
        if wanted.is_empty() {
            return;
        }
        let mut happening = subject.happening(Kind::Event, crate::model::clock::unix_ms());
        fill(&mut happening, wanted.iter().any(|tap| tap.payloads));
        wanted.into_iter().for_each(|tap| tap.push_part(u32::from(shard), shards, &happening));
    }
}

/// What a subscription got since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In the order in which they were reported.
    pub happenings: Vec<Happening>,
    /// So many more were skipped.
    pub skipped: u64,
}

/// Ends when it is dropped.
pub struct Subscription {
    feed: Arc<Feed>,
    tap: Arc<Tap>,
}

impl Subscription {
    /// What came since the last call, at least one happening. Nothing is lost if it is dropped before it completes.
    pub async fn next(&mut self) -> Batch {
        self.tap.next().await
    }

    /// What came since the last call.
    pub fn take(&mut self) -> Batch {
        self.tap.take()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.taps.write().retain(|tap| !Arc::ptr_eq(tap, &self.tap));
        self.feed.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>(user: &'a str, rooms: &'a [Room]) -> Subject<'a> {
        Subject { user: Some(user), rooms, ..Subject::default() }
    }

    fn of_room_r() -> Filter {
        Filter { room: Some("r".into()), ..Filter::default() }
    }

    #[test]
    fn a_subscription_gets_what_it_wants_until_it_is_dropped() {
        let feed = Arc::new(Feed::default());
        let rooms = ["r".into()];
        feed.report(Kind::Joined, &subject("7", &rooms), |_| unreachable!("nobody listens"));
        let of_user_7 = Filter { user: Some("7".into()), ..Filter::default() };
        let mut in_room = feed.subscribe(Filter { room: Some("r".into()), ..of_user_7.clone() }, Bounds::default());
        let mut of_user = feed.subscribe(of_user_7, Bounds::default());
        let mut of_room = feed.subscribe(of_room_r(), Bounds::default());
        let mut of_all = feed.subscribe(Filter::default(), Bounds::default());
        feed.report(Kind::Joined, &subject("7", &rooms), |happening| happening.by = Some("rule".into()));
        feed.report(Kind::Joined, &subject("8", &rooms), |_| {});
        feed.report(Kind::Left, &subject("7", &["s".into()]), |_| {});
        let kinds = |batch: Batch| batch.happenings.iter().map(|one| one.kind).collect::<Vec<_>>();
        feed.report(Kind::Handshake, &subject("7", &[]), |_| {});
        assert_eq!(kinds(of_user.take()), [Kind::Joined, Kind::Left, Kind::Handshake]);
        assert_eq!(kinds(in_room.take()), [Kind::Joined, Kind::Handshake]);
        assert_eq!(kinds(of_room.take()), [Kind::Joined, Kind::Joined]);
        assert_eq!(kinds(of_all.take()), [Kind::Joined, Kind::Joined, Kind::Left, Kind::Handshake]);
        drop((in_room, of_user, of_room, of_all));
        assert_eq!((feed.is_open(), feed.counts()), (false, (0, 0)));
    }

    #[test]
    fn an_event_comes_once_with_the_receivers_of_all_shards() {
        let feed = Arc::new(Feed::default());
        let mut of_room = feed.subscribe(of_room_r(), Bounds::default());
        let rooms = ["r".into()];
        let report = |shard, receivers| {
            feed.report_event(&subject("", &rooms), shard, 2, |happening, _| happening.receivers = Some(receivers));
        };
        report(0, 2);
        assert_eq!(of_room.take(), Batch::default());
        report(0, 1);
        report(1, 3);
        let counts = |batch: Batch| batch.happenings.iter().map(|one| one.receivers).collect::<Vec<_>>();
        assert_eq!(counts(of_room.take()), [Some(5)]);
        report(1, 0);
        assert_eq!(counts(of_room.take()), [Some(1)]);
    }

    #[test]
    fn names_of_rooms_are_bounded() {
        let rooms: Vec<Room> = (0..100).map(|_| "x".repeat(200).into()).collect();
        assert_eq!(shown_rooms(&rooms).len(), 5);
    }
}
