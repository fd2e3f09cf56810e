//! Who holds the data right now: Sentinels know the master, the nodes of a Cluster know who owns a slot.
//!
//! All are asked at once and most votes win, so that one that was cut off from the others and has not heard of a
//! failover does not lead us astray.

use crate::redis::connection::{LinkError, within};
use crate::redis::url::{Address, Place, RedisUrl};
use parking_lot::Mutex;
use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionInfo, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// One that does not answer within this has no vote.
const LONGEST_ASK: Duration = Duration::from_secs(1);
/// How long the others are waited for once one has answered.
const GRACE: Duration = Duration::from_millis(250);
/// Nodes of a Cluster that are asked.
const MAX_NODES: usize = 32;
/// Slots of a Cluster (Redis Cluster specification, "Key distribution model").
const SLOTS: u16 = 16384;

/// What was learned of a place.
#[derive(Debug, Default)]
pub(super) struct Known {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nodes of the Cluster besides the seeds.
    nodes: Vec<Address>,
    /// The master that Sentinels named last.
    named: Option<Address>,
    /// When they were asked last, or are being asked.
    asked: Option<Instant>,
    /// Connections to Sentinels, which are asked again and again.
    lines: HashMap<Address, MultiplexedConnection>,
}

impl Known {
    /// The master that Sentinels named last. Has them asked again, in the background, when that is `stale` ago.
    pub(super) fn named(self: &Arc<Self>, url: &Arc<RedisUrl>, stale: Duration, timeout: Duration) -> Option<Address> {
        let mut state = self.state.lock();
        if state.asked.is_none_or(|asked| asked.elapsed() >= stale) {
            state.asked = Some(Instant::now());
            let (known, url) = (self.clone(), url.clone());
            // Whoever cannot be asked has not named anybody else.
            tokio::spawn(async move { locate(&known, &url, 0, timeout).await.map(drop) });
        }
        state.named.clone()
    }
}

/// What somebody who was asked said.
struct Ballot {
    vote: Address,
    /// Others who could be asked.
    nodes: Vec<Address>,
}

/// Those who may hold the data of a slot, the likeliest first.
pub(super) async fn locate(
    known: &Arc<Known>,
    url: &Arc<RedisUrl>,
    slot: u16,
    timeout: Duration,
) -> Result<Vec<Address>, LinkError> {
    let mut asked = match &url.place {
        Place::Server(address) => return Ok(vec![address.clone()]),
        Place::Sentinel { sentinels, .. } => sentinels.clone(),
        Place::Cluster { seeds } => seeds.clone(),
    };
    for node in &known.state.lock().nodes {
        if !asked.contains(node) && asked.len() < MAX_NODES {
            asked.push(node.clone());
        }
    }
    let count = asked.len();
    let mut asking = JoinSet::new();
    for address in asked {
        let (known, url) = (known.clone(), url.clone());
        let ask = async move { ask(&known, &url, &address, slot).await.map_err(|error| (address, error)) };
        asking.spawn(async move { tokio::time::timeout(timeout.min(LONGEST_ASK), ask).await });
    }
    let mut count_of_votes = Votes::default();
    let (mut until, mut problem) = (Instant::now() + timeout, None);
    while let Ok(Some(answer)) = timeout_at(until, asking.join_next()).await {
        match answer {
            Ok(Ok(Ok(ballot))) => {
                until = until.min(Instant::now() + GRACE);
                if count_of_votes.add(ballot) * 2 > count {
                    break;
                }
            }
            Ok(Ok(Err((address, LinkError::Lost(why))))) => problem = Some(format!("{address}: {why}")),
            Ok(Ok(Err((address, error)))) => problem = Some(format!("{address}: {error}")),
            // Out of time, or the runtime is ending.
            Ok(Err(_)) | Err(_) => {}
        }
    }
    if count_of_votes.votes.is_empty() {
        let problem = problem.unwrap_or_else(|| format!("no answer within {timeout:?}"));
        return Err(LinkError::Lost(format!("nobody tells where the data is; {problem}")));
    }
    Ok(count_of_votes.learned(known))
}

#[derive(Default)]
struct Votes {
    votes: Vec<(Address, usize)>,
    nodes: Vec<Address>,
}

impl Votes {
    /// Counts one; answers how many are for the same.
    fn add(&mut self, ballot: Ballot) -> usize {
        for node in ballot.nodes {
            if !self.nodes.contains(&node) {
                self.nodes.push(node);
            }
        }
        let at = self.votes.iter().position(|(address, _)| *address == ballot.vote);
        let at = at.unwrap_or_else(|| {
            self.votes.push((ballot.vote, 0));
            self.votes.len() - 1
        });
        self.votes[at].1 += 1;
        self.votes[at].1
    }

    /// Keeps what was learned; the addresses, most votes first.
    fn learned(mut self, known: &Known) -> Vec<Address> {
        // Stable: between equals the first answer counts.
        self.votes.sort_by_key(|(_, votes)| std::cmp::Reverse(*votes));
        let addresses: Vec<Address> = self.votes.into_iter().map(|(address, _)| address).collect();
        let mut state = known.state.lock();
        state.named = addresses.first().cloned();
        state.nodes = self.nodes;
        addresses
    }
}

async fn ask(known: &Known, url: &RedisUrl, address: &Address, slot: u16) -> Result<Ballot, LinkError> {
    match &url.place {
        Place::Sentinel { master, .. } => {
            let line = known.state.lock().lines.get(address).cloned();
            let mut line = match line {
                Some(line) => line,
                None => dial(url.sentinel_at(address)).await?,
            };
            known.state.lock().lines.remove(address);
            let named = ask_sentinel(&mut line, master).await?;
            known.state.lock().lines.insert(address.clone(), line);
            let vote = named.ok_or_else(|| LinkError::Lost(format!("knows no master \"{master}\"")))?;
            Ok(Ballot { vote, nodes: Vec::new() })
        }
        _ => {
            let mut node = dial(url.data_at(address)).await?;
            let slots = exchange(&mut node, redis::cmd("CLUSTER").arg("SLOTS")).await?;
            let (vote, nodes) = read_slots(&slots, slot, address)?;
            let vote = vote.ok_or_else(|| LinkError::Lost(format!("slot {slot} has no owner")))?;
            Ok(Ballot { vote, nodes })
        }
    }
}

async fn dial(info: ConnectionInfo) -> Result<MultiplexedConnection, LinkError> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let client = Client::open(info).map_err(LinkError::from)?;
    within(LONGEST_ASK, client.get_multiplexed_async_connection_with_config(&config)).await
}

async fn exchange(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, LinkError> {
    let answer = within(LONGEST_ASK, connection.req_packed_command(command)).await?;
    answer.extract_error().map_err(LinkError::from)
}

async fn ask_sentinel(line: &mut MultiplexedConnection, master: &str) -> Result<Option<Address>, LinkError> {
    let mut question = redis::cmd("SENTINEL");
    question.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    match exchange(line, &question).await? {
        Value::Nil => Ok(None),
        Value::Array(pair) => match &pair[..] {
            [host, port] => Ok(address_of(host, port, "")),
            _ => Err(LinkError::Unexpected("SENTINEL")),
        },
        _ => Err(LinkError::Unexpected("SENTINEL")),
    }
}

/// Reads `CLUSTER SLOTS`: the owner of the slot, and all nodes. A node that does not know its own name leaves it out.
fn read_slots(slots: &Value, slot: u16, asked: &Address) -> Result<(Option<Address>, Vec<Address>), LinkError> {
    let wrong = || LinkError::Unexpected("CLUSTER SLOTS");
    let Value::Array(ranges) = slots else { return Err(wrong()) };
    let (mut owner, mut nodes) = (None, Vec::new());
    for range in ranges {
        let Value::Array(range) = range else { return Err(wrong()) };
        let [Value::Int(from), Value::Int(to), holders @ ..] = &range[..] else { return Err(wrong()) };
        let mut held: Vec<Address> = Vec::new();
        for holder in holders {
            let Value::Array(holder) = holder else { return Err(wrong()) };
            let [host, port, ..] = &holder[..] else { return Err(wrong()) };
            held.extend(address_of(host, port, &asked.host));
        }
        // The master comes first.
        if (*from..=*to).contains(&i64::from(slot)) {
            owner = held.first().cloned();
        }
        nodes.extend(held);
    }
    Ok((owner, nodes))
}

fn address_of(host: &Value, port: &Value, unnamed: &str) -> Option<Address> {
    let host = match crate::redis::reply::text(host) {
        None | Some("" | "?") => unnamed,
        Some(host) => host,
    };
    let port = match port {
        Value::Int(port) => u16::try_from(*port).ok(),
        port => crate::redis::reply::text(port)?.parse().ok(),
    };
    (!host.is_empty()).then_some(())?;
    Some(Address { host: host.to_owned(), port: port.filter(|port| *port > 0)? })
}

/// The slot of a key: CRC16 of what is in its first braces, or of all of it where they hold nothing (Redis Cluster
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
    fn most_votes_win_and_the_first_between_equals() {
        let (known, mut votes) = (Known::default(), Votes::default());
        for port in [3, 1, 2, 1] {
            votes.add(Ballot { vote: at(port), nodes: vec![at(port)] });
        }
        assert_eq!(votes.learned(&known), [at(1), at(3), at(2)]);
        assert_eq!(known.state.lock().named, Some(at(1)));
        assert_eq!(known.state.lock().nodes, [at(3), at(1), at(2)]);
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
