//! Which server holds the data now: Sentinels know the master, the nodes of a Cluster know who owns a slot.
//!
//! All of them are asked at once and the majority wins: one that is cut off from the others may not know of a
//! failover.

use crate::redis::dial::dial;
use crate::redis::error::{RedisError, with_timeout};
use crate::redis::reply::text;
use crate::redis::url::{Address, RedisUrl, Topology};
use parking_lot::Mutex;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// A server that does not answer within this has no vote.
const MAX_VOTE_TIME: Duration = Duration::from_secs(1);
/// How long the others are waited for after the first vote.
const GRACE: Duration = Duration::from_millis(250);
/// Nodes of a Cluster that are asked.
const MAX_NODES: usize = 32;
/// Slots of a Cluster (Redis Cluster specification, "Key distribution model").
const SLOTS: u16 = 16384;

/// What was learned about the servers behind one URL.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nodes of the Cluster besides those of the URL.
    nodes: Vec<Address>,
    /// The master that Sentinels named last.
    master: Option<Address>,
    /// When the last round of questions began.
    asked_at: Option<Instant>,
    /// Connections to Sentinels, which are asked again and again.
    sentinels: HashMap<Address, MultiplexedConnection>,
}

impl Discovered {
    /// The master that Sentinels named last. When that is `max_age` old, they are asked again in the background.
    pub(super) fn master(
        self: &Arc<Self>,
        url: &Arc<RedisUrl>,
        max_age: Duration,
        timeout: Duration,
    ) -> Option<Address> {
        let mut state = self.state.lock();
        if state.asked_at.is_none_or(|asked_at| asked_at.elapsed() >= max_age) {
            state.asked_at = Some(Instant::now());
            let (discovered, url) = (self.clone(), url.clone());
            // On failure the last answer stays.
            tokio::spawn(async move { locate(&discovered, &url, 0, timeout).await.map(drop) });
        }
        state.master.clone()
    }
}

/// What one server answered.
struct Vote {
    holder: Address,
    /// Other servers that could be asked.
    nodes: Vec<Address>,
}

/// The servers that may hold the data of a slot, the likeliest first.
pub(super) async fn locate(
    discovered: &Arc<Discovered>,
    url: &Arc<RedisUrl>,
    slot: u16,
    timeout: Duration,
) -> Result<Vec<Address>, RedisError> {
    let mut voters = match &url.topology {
        Topology::Server(address) => return Ok(vec![address.clone()]),
        Topology::Sentinel { sentinels, .. } => sentinels.clone(),
        Topology::Cluster { seeds } => seeds.clone(),
    };
    for node in &discovered.state.lock().nodes {
        if !voters.contains(node) && voters.len() < MAX_NODES {
            voters.push(node.clone());
        }
    }
    let count = voters.len();
    let mut asking = JoinSet::new();
    for address in voters {
        let (discovered, url) = (discovered.clone(), url.clone());
        let vote = async move { vote(&discovered, &url, &address, slot).await.map_err(|error| (address, error)) };
        asking.spawn(async move { tokio::time::timeout(timeout.min(MAX_VOTE_TIME), vote).await });
    }
    let mut tally = Tally::default();
    let (mut deadline, mut last_error) = (Instant::now() + timeout, None);
    while let Ok(Some(answer)) = timeout_at(deadline, asking.join_next()).await {
        match answer {
            Ok(Ok(Ok(vote))) => {
                deadline = deadline.min(Instant::now() + GRACE);
                if tally.add(vote) * 2 > count {
                    break;
                }
            }
            Ok(Ok(Err((address, RedisError::Disconnected(reason))))) => {
                last_error = Some(format!("{address}: {reason}"));
            }
            Ok(Ok(Err((address, error)))) => last_error = Some(format!("{address}: {error}")),
            // It timed out, or the runtime is ending.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    if tally.votes.is_empty() {
        let last_error = last_error.unwrap_or_else(|| format!("no answer within {timeout:?}"));
        return Err(RedisError::Disconnected(format!("{}; {last_error}", nobody_answered(&url.topology, slot))));
    }
    Ok(tally.record(discovered))
}

/// What nobody answered, and who was asked.
fn nobody_answered(topology: &Topology, slot: u16) -> String {
    let list = |hosts: &[Address]| hosts.iter().map(Address::to_string).collect::<Vec<_>>().join(", ");
    match topology {
        Topology::Server(address) => format!("{address} did not answer"),
        Topology::Sentinel { sentinels, master } => {
            format!("no Sentinel named a master for \"{master}\" (asked {})", list(sentinels))
        }
        Topology::Cluster { seeds } => {
            format!(
                "no node of the Cluster named the owner of slot {slot} (asked {} and the nodes they named)",
                list(seeds)
            )
        }
    }
}

#[derive(Default)]
struct Tally {
    votes: Vec<(Address, usize)>,
    nodes: Vec<Address>,
}

impl Tally {
    /// Counts a vote; returns how many votes its holder has now.
    fn add(&mut self, vote: Vote) -> usize {
        for node in vote.nodes {
            if !self.nodes.contains(&node) {
                self.nodes.push(node);
            }
        }
        let index = self.votes.iter().position(|(address, _)| *address == vote.holder);
        let index = index.unwrap_or_else(|| {
            self.votes.push((vote.holder, 0));
            self.votes.len() - 1
        });
        self.votes[index].1 += 1;
        self.votes[index].1
    }

    /// Remembers the result; returns the addresses, most votes first.
    fn record(mut self, discovered: &Discovered) -> Vec<Address> {
        // The sort is stable: of two with as many votes, the first answer wins.
        self.votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        let addresses: Vec<Address> = self.votes.into_iter().map(|(address, _)| address).collect();
        let mut state = discovered.state.lock();
        state.master = addresses.first().cloned();
        state.nodes = self.nodes;
        addresses
    }
}

async fn vote(discovered: &Discovered, url: &RedisUrl, address: &Address, slot: u16) -> Result<Vote, RedisError> {
    match &url.topology {
        Topology::Sentinel { master, .. } => {
            let known = discovered.state.lock().sentinels.remove(address);
            let mut sentinel = match known {
                Some(connection) => connection,
                None => dial(url.sentinel(address), &AsyncConnectionConfig::new(), MAX_VOTE_TIME).await?,
            };
            let holder = ask_sentinel(&mut sentinel, master).await?;
            discovered.state.lock().sentinels.insert(address.clone(), sentinel);
            let holder = holder.ok_or_else(|| RedisError::Disconnected(format!("knows no master \"{master}\"")))?;
            Ok(Vote { holder, nodes: Vec::new() })
        }
        _ => {
            let mut node = dial(url.data_server(address), &AsyncConnectionConfig::new(), MAX_VOTE_TIME).await?;
            let slots = call(&mut node, redis::cmd("CLUSTER").arg("SLOTS")).await?;
            let (owner, nodes) = read_slots(&slots, slot, address)?;
            let holder = owner.ok_or_else(|| RedisError::Disconnected(format!("slot {slot} has no owner")))?;
            Ok(Vote { holder, nodes })
        }
    }
}

async fn call(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, RedisError> {
    let reply = with_timeout(MAX_VOTE_TIME, connection.req_packed_command(command)).await?;
    reply.extract_error().map_err(RedisError::from)
}

async fn ask_sentinel(sentinel: &mut MultiplexedConnection, master: &str) -> Result<Option<Address>, RedisError> {
    let mut command = redis::cmd("SENTINEL");
    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    match call(sentinel, &command).await? {
        Value::Nil => Ok(None),
        Value::Array(pair) => match &pair[..] {
            [host, port] => Ok(read_address(host, port, "")),
            _ => Err(RedisError::UnexpectedReply("SENTINEL")),
        },
        _ => Err(RedisError::UnexpectedReply("SENTINEL")),
    }
}

/// Reads `CLUSTER SLOTS`: the owner of the slot, and all nodes. A node that does not know its own name leaves it out;
/// it is `asked` then.
fn read_slots(slots: &Value, slot: u16, asked: &Address) -> Result<(Option<Address>, Vec<Address>), RedisError> {
    let wrong = || RedisError::UnexpectedReply("CLUSTER SLOTS");
    let Value::Array(ranges) = slots else { return Err(wrong()) };
    let (mut owner, mut nodes) = (None, Vec::new());
    for range in ranges {
        let Value::Array(range) = range else { return Err(wrong()) };
        let [Value::Int(first), Value::Int(last), holders @ ..] = &range[..] else { return Err(wrong()) };
        let mut addresses: Vec<Address> = Vec::new();
        for holder in holders {
            let Value::Array(holder) = holder else { return Err(wrong()) };
            let [host, port, ..] = &holder[..] else { return Err(wrong()) };
            addresses.extend(read_address(host, port, &asked.host));
        }
        // The master comes first.
        if (*first..=*last).contains(&i64::from(slot)) {
            owner = addresses.first().cloned();
        }
        nodes.extend(addresses);
    }
    Ok((owner, nodes))
}

fn read_address(host: &Value, port: &Value, default_host: &str) -> Option<Address> {
    let host = match text(host) {
        None | Some("" | "?") => default_host,
        Some(host) => host,
    };
    let port = match port {
        Value::Int(port) => u16::try_from(*port).ok(),
        port => text(port)?.parse().ok(),
    };
    (!host.is_empty()).then_some(())?;
    Some(Address { host: host.to_owned(), port: port.filter(|port| *port > 0)? })
}

/// The slot of a key: CRC16 of what is in its first braces, or of all of it where they are empty (Redis Cluster
/// specification, "Hash tags").
pub(super) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    crc16(tag.filter(|tag| !tag.is_empty()).unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Address {
        Address { host: "h".into(), port }
    }

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // CLUSTER KEYSLOT of a Redis 7.0.
        assert_eq!(slot("roomcast:events"), slot("roomcast:{roomcast:events}:id:x"));
        assert_eq!((slot("foo"), slot("{}foo")), (12182, 9500));
        assert_ne!(slot("roomcast:dead"), slot("roomcast:events"));
    }

    #[test]
    fn the_majority_wins_and_the_first_of_equals() {
        let (discovered, mut tally) = (Discovered::default(), Tally::default());
        for port in [3, 1, 2, 1] {
            tally.add(Vote { holder: at(port), nodes: vec![at(port)] });
        }
        assert_eq!(tally.record(&discovered), [at(1), at(3), at(2)]);
        assert_eq!(discovered.state.lock().master, Some(at(1)));
        assert_eq!(discovered.state.lock().nodes, [at(3), at(1), at(2)]);
    }

    #[test]
    fn the_owner_of_a_slot_is_its_master() {
        let bulk = |text: &str| Value::BulkString(text.into());
        let node = |host: &str, port| Value::Array(vec![bulk(host), Value::Int(port), bulk("id")]);
        let range =
            |from, to, nodes: Vec<Value>| Value::Array([vec![Value::Int(from), Value::Int(to)], nodes].concat());
        let slots =
            Value::Array(vec![range(0, 99, vec![node("", 1), node("b", 2)]), range(100, 100, vec![node("c", 3)])]);
        let (owner, nodes) = read_slots(&slots, 99, &at(9)).unwrap();
        assert_eq!((owner.unwrap(), nodes.len()), (at(1), 3));
        assert_eq!(read_slots(&slots, 100, &at(9)).unwrap().0.unwrap().host, "c");
        assert_eq!(read_slots(&slots, 101, &at(9)).unwrap().0, None);
        assert!(read_slots(&Value::Array(vec![range(0, 1, vec![Value::Nil])]), 0, &at(9)).is_err());
    }
}
