//! One of the demo's nodes: a process of this program, which is started again some time after it was killed.

use crate::demo::cluster_error::ClusterError;
use crate::demo::redis_server::free_port;
use crate::demo::shared::Shared;
use crate::https::{HttpClient, Pool};
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::AUTHORIZATION;
use hyper::{Request, Uri};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;

/// How long a killed node stays away: long enough to see that nothing is missing without it.
const AWAY: Duration = Duration::from_secs(4);

/// How often a starting node is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How many times. A node that is not ready after that is killed and started again.
const MAX_ASKED: usize = 400;

/// No answer of `/cluster` of three nodes is longer.
const MAX_ANSWER: usize = 64 << 10;

/// A node, over the lives of its processes.
#[derive(Debug)]
pub(super) struct NodeProcess {
    number: usize,
    address: SocketAddr,
    /// Its id in the cluster while it is ready.
    id: Mutex<Option<String>>,
    killed: Notify,
    connections: AtomicUsize,
}

impl NodeProcess {
    /// A node that has not been started. `number` is for people.
    pub(super) async fn new(number: usize) -> Result<Self, ClusterError> {
        let address = (Ipv4Addr::LOCALHOST, free_port().await?).into();
        Ok(Self { number, address, id: Mutex::new(None), killed: Notify::new(), connections: AtomicUsize::new(0) })
    }

    /// Where it listens, while it is ready.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.id.lock().as_ref().map(|_| self.address)
    }

    /// Connections that the balancer has to it.
    pub(super) fn connections(&self) -> &AtomicUsize {
        &self.connections
    }

    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Kills it as a power failure would: nothing is said to anybody.
    pub(super) fn kill(&self) {
        if self.id.lock().take().is_some() {
            self.killed.notify_one();
        }
    }

    /// For the page.
    pub(super) fn state(&self) -> Value {
        json!({
            "number": self.number,
            "node": *self.id.lock(),
            "connections": self.connections.load(Ordering::Relaxed),
        })
    }

    /// Runs its processes, one after the other, until this future is dropped, which kills the last one.
    pub(super) async fn run(&self, shared: &Shared, arguments: &[OsString]) -> Result<(), ClusterError> {
        loop {
            // The node ends when its input does: also where this process is killed.
            let (mut process, _input) = self.start(shared, arguments).await?;
            tokio::select! {
                () = self.follow(shared) => {}
                _ = process.wait() => {}
                () = self.killed.notified() => {}
            }
            self.id.lock().take();
            let _ = process.kill().await;
            tokio::time::sleep(AWAY).await;
        }
    }

    async fn start(&self, shared: &Shared, arguments: &[OsString]) -> Result<(Child, ChildStdin), ClusterError> {
        let failed = |error| ClusterError::Process("a node", error);
        let program = std::env::current_exe().map_err(failed)?;
        let mut process = Command::new(program)
            .args(["demo", "--node"])
            .args(arguments)
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let shared = Shared { listen: Some(self.address), ..shared.clone() };
        let line = serde_json::to_string(&shared).unwrap_or_default() + "\n";
        // `wait` would close it.
        let mut input = process.stdin.take().ok_or(ClusterError::NotReady("a node"))?;
        input.write_all(line.as_bytes()).await.map_err(failed)?;
        Ok((process, input))
    }

    /// Learns the node's id once it is ready, then waits for ever. Ends where it does not get ready.
    async fn follow(&self, shared: &Shared) {
        for _ in 0..MAX_ASKED {
            if let Some(id) = self.ask_id(shared).await {
                *self.id.lock() = Some(id);
                return std::future::pending().await;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn ask_id(&self, shared: &Shared) -> Option<String> {
        let uri: Uri = format!("http://{}/cluster", self.address).parse().ok()?;
        let request = Request::get(uri.clone()).header(AUTHORIZATION, format!("Bearer {}", shared.key));
        let client = HttpClient::load(uri, Pool::NONE, MAX_ANSWER).await.ok()?;
        let answer = client.send(request.body(Full::<Bytes>::default()).ok()?).await.ok()?;
        let cluster: Value = serde_json::from_slice(answer.body()).ok()?;
        let this = cluster["nodes"].as_array()?.iter().find(|node| node["this"] == true)?;
        this["node"].as_str().map(str::to_owned)
    }
}
