//! The demo on a machine with `redis-server`: three nodes on one log behind a balancer, any of which can be killed.

use crate::config::Config;
use crate::demo::cluster_error::ClusterError;
use crate::demo::node_process::NodeProcess;
use crate::demo::redis_server::RedisServer;
use crate::demo::shared::Shared;
use crate::demo::{Demo, balancer, control, listen_address, prepare};
use crate::model::secret::random_text;
use crate::shutdown::Signals;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// With three, the log and its majority of nodes go on when one is killed, and the page stays small.
const NODES: usize = 3;

/// How often it is looked whether all nodes are ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Runs it until SIGTERM or SIGINT. `arguments` are those of this process that its nodes get too; `ready` is called with what to
/// print once the page can be opened.
///
/// # Errors
/// [`ClusterError::NoRedis`] before anything was started where three nodes are not possible here; others later.
pub async fn run(
    config: Config,
    arguments: Vec<OsString>,
    ready: impl FnOnce(&Demo, SocketAddr),
) -> Result<(), ClusterError> {
    let signals = Signals::listen().map_err(ClusterError::Signals)?;
    let mut redis = RedisServer::start().await?;
    let public = bind_public(&config).await?;
    let address = public.local_addr().map_err(ClusterError::Bind)?;
    let page = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(ClusterError::Bind)?;
    let page_address = page.local_addr().map_err(ClusterError::Bind)?;
    let page_secret = random_text();
    let shared = Shared {
        redis_url: Some(redis.url().to_owned()),
        control: Some(format!("http://{page_address}/{page_secret}")),
        public: Some(address),
        ..Shared::new()
    };
    let demo = prepare(config, &shared);

    let mut nodes = Vec::with_capacity(NODES);
    for number in 1..=NODES {
        nodes.push(Arc::new(NodeProcess::new(number).await?));
    }
    let nodes: Arc<[_]> = nodes.into();
    let mut tasks = JoinSet::new();
    for node in nodes.iter() {
        let (node, shared, arguments) = (Arc::clone(node), shared.clone(), arguments.clone());
        tasks.spawn(async move { node.run(&shared, &arguments).await });
    }
    let served = tokio::spawn(control::serve(page, page_secret, Arc::clone(&nodes)));
    let started = async {
        while !nodes.iter().all(|node| node.address().is_some()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        ready(&demo, address);
        // Connections that came before wait in the kernel: who is answered can rely on what was printed.
        balancer::balance(public, Arc::clone(&nodes)).await;
    };
    // The terminal was closed: there is nothing to read again.
    let hangups = Notify::new();
    let result = tokio::select! {
        () = started => Ok(()),
        () = signals.wait(&hangups) => Ok(()),
        () = hangups.notified() => Ok(()),
        () = redis.ended() => Err(ClusterError::NotReady("redis-server")),
        Some(Ok(ended)) = tasks.join_next() => ended,
    };
    served.abort();
    // Kills what is left: nobody's data is in a demo.
    tasks.shutdown().await;
    result
}

/// The configured address, or a free port of this machine where none is configured and the usual one is taken.
async fn bind_public(config: &Config) -> Result<TcpListener, ClusterError> {
    let (address, any_port) = listen_address(config);
    match TcpListener::bind(address).await {
        Err(error) if any_port && error.kind() == io::ErrorKind::AddrInUse => {
            TcpListener::bind((address.ip(), 0)).await.map_err(ClusterError::Bind)
        }
        bound => bound.map_err(ClusterError::Bind),
    }
}
