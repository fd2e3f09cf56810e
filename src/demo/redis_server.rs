//! A Redis of the demo's own: a `redis-server` of this machine, on a free port, with a password, and nothing on disk.

use crate::demo::cluster_error::ClusterError;
use crate::model::secret::random_text;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

const PROGRAM: &str = "redis-server";

/// How long it may take to listen.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How often a connection is tried meanwhile.
const TRY_EVERY: Duration = Duration::from_millis(20);

/// A running server, which ends with this value.
#[derive(Debug)]
pub(super) struct RedisServer {
    process: Child,
    url: String,
}

impl RedisServer {
    /// Starts one.
    ///
    /// # Errors
    /// [`ClusterError::NoRedis`] where the program is not installed; others where it does not start.
    pub(super) async fn start() -> Result<Self, ClusterError> {
        let port = free_port().await?;
        let password = random_text();
        let mut process = Command::new(PROGRAM)
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(ClusterError::NoRedis)?;
        // By standard input, since other users of the machine can see arguments.
        let settings = format!(
            "bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\ndir {}\n",
            std::env::temp_dir().display()
        );
        if let Some(mut input) = process.stdin.take() {
            input.write_all(settings.as_bytes()).await.map_err(|error| ClusterError::Process(PROGRAM, error))?;
        }
        let end = Instant::now() + READY_WITHIN;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_err() {
            if Instant::now() > end || process.try_wait().is_ok_and(|exit| exit.is_some()) {
                return Err(ClusterError::NotReady(PROGRAM));
            }
            tokio::time::sleep(TRY_EVERY).await;
        }
        Ok(Self { process, url: format!("redis://:{password}@127.0.0.1:{port}/0") })
    }

    /// With its password.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Resolves when it has ended by itself.
    pub(super) async fn ended(&mut self) {
        let _ = self.process.wait().await;
    }
}

/// A port of this machine that nobody listened on a moment ago.
pub(super) async fn free_port() -> Result<u16, ClusterError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(ClusterError::Bind)?;
    listener.local_addr().map(|address: SocketAddr| address.port()).map_err(ClusterError::Bind)
}
