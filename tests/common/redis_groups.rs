//! Groups of real redis-servers: Sentinels with a master and its replicas, and a Cluster.

// Each test file takes what it needs.
#![allow(dead_code, clippy::unwrap_used)]

use crate::redis_server::{RedisServer, free_port};
use std::process::Command;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until the condition holds.
pub(crate) fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same without blocking the tasks of the test.
pub(crate) async fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !so() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The first word of `ROLE`, if the server answers.
fn role(server: &RedisServer) -> Option<String> {
    let role: redis::Value = server.try_run(&["ROLE"]).ok()?;
    match role {
        redis::Value::Array(items) => redis::from_redis_value(items.into_iter().next()?).ok(),
        _ => None,
    }
}

/// A master, two replicas, and three Sentinels that monitor them under the name `mymaster`.
pub(crate) struct Watched {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl Watched {
    /// Starts all of them and waits until they know each other.
    pub(crate) fn start() -> Self {
        let master = RedisServer::with(&["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]);
        let port = master.port().to_string();
        let replica = || RedisServer::with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
        let servers = vec![replica(), replica()];
        let servers: Vec<RedisServer> = std::iter::once(master).chain(servers).collect();
        wait_until("the replicas are in step", || servers[0].info("replication").matches("state=online").count() == 2);
        let settings = format!(
            "sentinel monitor mymaster 127.0.0.1 {port} 2\nsentinel down-after-milliseconds mymaster 2500\n\
             sentinel failover-timeout mymaster 3000\nsentinel parallel-syncs mymaster 2\n"
        );
        let sentinels: Vec<RedisServer> = (0..3).map(|_| RedisServer::sentinel(&settings)).collect();
        for sentinel in &sentinels {
            wait_until("the Sentinels know each other", || {
                let about: Vec<String> = sentinel.try_run(&["SENTINEL", "MASTER", "mymaster"]).unwrap_or_default();
                let of = |name: &str| about.iter().position(|is| is == name).map(|at| about[at + 1].clone());
                of("num-slaves").as_deref() == Some("2") && of("num-other-sentinels").as_deref() == Some("2")
            });
        }
        Self { servers, sentinels }
    }

    /// The URL for a node.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.sentinels.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis+sentinel://{}/mymaster", hosts.join(","))
    }

    /// Waits for a master other than `not`.
    pub(crate) async fn master(&self, not: Option<usize>) -> usize {
        let mut found = None;
        let is_master = |at: &usize| Some(*at) != not && role(&self.servers[*at]).as_deref() == Some("master");
        eventually("there is a master", || {
            found = (0..self.servers.len()).find(is_master);
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Waits until the first two servers have this many entries of a stream.
    pub(crate) async fn wait_for_replicas(&self, stream: &str, length: usize) {
        eventually("the replicas have it", || {
            self.servers[1..].iter().all(|server| server.try_run(&["XLEN", stream]) == Ok(length))
        })
        .await;
    }

    /// Locks the replicas out of the master: they miss everything that it accepts from now on.
    pub(crate) fn cut_replicas_off(&self, master: usize) {
        let master = &self.servers[master];
        let mut cut = redis::pipe();
        cut.cmd("CONFIG").arg(&["SET", "requirepass", "nobody knows"]);
        cut.cmd("CLIENT").arg(&["KILL", "TYPE", "replica"]);
        cut.exec(&mut master.connection()).unwrap();
    }
}

/// Three masters with a replica each.
pub(crate) struct Cluster {
    pub servers: Vec<RedisServer>,
}

impl Cluster {
    /// Starts all of them and assigns all slots.
    pub(crate) fn start() -> Self {
        let server = || {
            let bus = free_port().to_string();
            let args = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2500", "--cluster-port", &bus];
            RedisServer::with(&[&args[..], &["--repl-diskless-sync-delay", "0"]].concat())
        };
        let servers: Vec<RedisServer> = (0..6).map(|_| server()).collect();
        let cluster = Self { servers };
        let nodes: Vec<String> = cluster.servers.iter().map(address).collect();
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        cluster.cli(&[&["--cluster", "create"], &nodes[..], &["--cluster-replicas", "1", "--cluster-yes"]].concat());
        wait_until("all nodes say that the Cluster is up", || {
            cluster.servers.iter().all(|server| {
                let said = |about| server.try_run::<String>(&["CLUSTER", about]).unwrap_or_default();
                let replicas = said("NODES").matches("slave").count();
                let linked = role(server).as_deref() == Some("master")
                    || server.info("replication").contains("master_link_status:up");
                replicas == 3 && linked && said("INFO").contains("cluster_state:ok")
            })
        });
        cluster
    }

    fn cli(&self, args: &[&str]) {
        let ran = Command::new("redis-cli").args(args).output().expect("redis-cli is installed");
        assert!(ran.status.success(), "{args:?}: {}", String::from_utf8_lossy(&ran.stdout));
    }

    /// The URL for a node; it names only some of the servers.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self.servers[..2].iter().map(address).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The server that owns a key's slot, as `witness` sees it.
    pub(crate) fn owner(&self, key: &str, witness: usize) -> usize {
        let witness = &self.servers[witness];
        let slot: u16 = witness.run(&["CLUSTER", "KEYSLOT", key]);
        let nodes: String = witness.run(&["CLUSTER", "NODES"]);
        let owns = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let in_range = |range: &&str| {
                let (from, to) = range.split_once('-').unwrap_or((range, range));
                from.parse::<u16>().is_ok_and(|from| from <= slot) && to.parse::<u16>().is_ok_and(|to| slot <= to)
            };
            words[2].contains("master") && words.iter().skip(8).any(in_range)
        };
        let line = nodes.lines().find(owns).unwrap_or_else(|| panic!("nobody owns {slot}: {nodes}"));
        let at = |server: &RedisServer| line.contains(&format!("{}@", address(server)));
        self.servers.iter().position(at).unwrap()
    }

    /// The masters, as one of them sees it.
    pub(crate) fn masters(&self) -> Vec<usize> {
        (0..self.servers.len()).filter(|&at| role(&self.servers[at]).as_deref() == Some("master")).collect()
    }

    /// The server's id in the Cluster.
    pub(crate) fn id(&self, server: usize) -> String {
        self.servers[server].run(&["CLUSTER", "MYID"])
    }

    /// Moves the slot of a key, and all keys in it, as `redis-cli --cluster reshard` does.
    pub(crate) fn migrate(&self, key: &str, to: usize) {
        let from = self.owner(key, to);
        let slot = self.servers[to].run::<u16>(&["CLUSTER", "KEYSLOT", key]).to_string();
        let (from_id, to_id) = (self.id(from), self.id(to));
        self.servers[to].run::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]);
        self.servers[from].run::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]);
        let port = self.servers[to].port().to_string();
        loop {
            let keys: Vec<String> = self.servers[from].run(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
            if keys.is_empty() {
                break;
            }
            let head = ["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            self.servers[from].run::<()>(&[&head[..], &keys].concat());
        }
        for server in [to, from] {
            self.servers[server].run::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]);
        }
    }
}

fn address(server: &RedisServer) -> String {
    format!("127.0.0.1:{}", server.port())
}
