//! Starts what a node consists of: its sockets, a thread for each shard, and the control tasks.

use crate::app::AppError;
use crate::bridge::redis::{CopyObserver, EmitterBridge};
use crate::handlers::lifecycle_rules;
use crate::http::Api;
use crate::http::caller::ListenerKind;
use crate::http::config::{ListenAddress, ListenConfig};
use crate::http::health::refresh_metrics;
use crate::http::listener::Listener;
use crate::log::Sink;
use crate::node::admin_ui;
use crate::node::backfill;
use crate::node::context::{LocalNode, Node};
use crate::node::dispatcher::Dispatcher;
use crate::node::memory;
use crate::node::revocation;
use crate::peer_server::PeerServer;
use crate::presence::local;
use crate::shard::{persist, runner};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::task::JoinSet;

/// Sessions whose `disconnect` rules share one append to the log.
const DISCONNECTS_AT_ONCE: usize = 256;

/// The sockets that clients and operators connect to.
pub(super) struct Listeners {
    pub public: Listener,
    pub admin: Option<Listener>,
}

impl Listeners {
    /// Binds them. With `any_port` the public one takes a free port of the loopback interface if its own is in use.
    pub(super) fn bind(config: &ListenConfig, shards: usize, any_port: bool) -> Result<Self, AppError> {
        let bind = |address, kind| {
            Listener::bind(address, kind, shards).map_err(|error| AppError::Bind(ListenAddress::Tcp(address), error))
        };
        let public = match bind(config.listen, ListenerKind::Public) {
            Err(AppError::Bind(_, error)) if any_port && error.kind() == io::ErrorKind::AddrInUse => {
                bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ListenerKind::Public)?
            }
            bound => bound?,
        };
        let admin = config.admin_listen.as_ref().map(|address| {
            let bound = Listener::bind_admin(address, config.admin_socket_mode, shards);
            bound.map_err(|error| AppError::Bind(address.clone(), error))
        });
        let admin = admin.transpose()?;
        Ok(Self { public, admin })
    }
}

/// Starts one shard per core, each on its own thread.
pub(super) fn shards(node: &Arc<Node>, count: usize) -> Result<Vec<JoinHandle<()>>, AppError> {
    let (handles, ends) = runner::handles(count);
    node.set_shards(handles);
    let mut threads = Vec::new();
    for (index, end) in (0..=u8::MAX).zip(ends) {
        let (context, observer, node) = (node.context.clone(), node.clone(), node.clone());
        let thread = runner::spawn(index, context, observer, end, move |shard, mut ended| {
            tokio::task::spawn_local(persist::run(shard.clone()));
            tokio::task::spawn_local(node.log.clone().run_appender(usize::from(index)));
            let local = LocalNode::new(node, shard.clone());
            let disconnects = local.clone();
            tokio::task::spawn_local(async move {
                let mut batch = Vec::new();
                while ended.recv_many(&mut batch, DISCONNECTS_AT_ONCE).await > 0 {
                    lifecycle_rules::run_disconnects(&disconnects, std::mem::take(&mut batch)).await;
                }
            });
            local
        });
        threads.push(thread.map_err(|error| AppError::System("a thread", error))?);
    }
    Ok(threads)
}

/// Starts the control tasks on this thread, with the reader of the configuration. None of them ends by itself; one that does
/// gives its name.
pub(super) fn tasks(
    api: &Arc<Api>,
    emitters: Option<&Arc<EmitterBridge>>,
    reloads: impl Future<Output = ()> + Send + 'static,
) -> JoinSet<&'static str> {
    let node = &api.node;
    let mut tasks = JoinSet::new();
    let mut spawn = |name, task: Pin<Box<dyn Future<Output = ()> + Send>>| {
        tasks.spawn(async move {
            task.await;
            name
        });
    };
    let mut sink: Arc<dyn Sink> = Dispatcher::new(node.clone());
    if let Some(emitters) = emitters {
        sink = CopyObserver::new(emitters.clone(), sink);
        spawn("the reader of Socket.IO emitters", Box::pin(emitters.clone().run()));
    }
    spawn("the log", Box::pin(node.log.clone().run(sink)));
    spawn("the refresh of the key set", Box::pin(node.auth.clone().run()));
    if let Some(backend) = node.backend.clone() {
        spawn("the backend's notices", Box::pin(crate::backend::run(backend)));
    }
    for line in node.window.partitions().lines() {
        spawn("the reader of the past", Box::pin(backfill::run(node.clone(), line)));
    }
    spawn("the watch over memory", Box::pin(memory::watch(node.clone())));
    spawn("the watch of the Admin UI", Box::pin(admin_ui::watch::run(node.clone())));
    spawn("the presence writer", Box::pin(local::run(node.context.presence.clone())));
    if let Some(cluster) = &node.context.cluster {
        spawn("the cluster", Box::pin(cluster.clone().run(PeerServer::new(node.clone()))));
        spawn("the reader of revoked tokens", Box::pin(revocation::run(node.clone())));
    }
    let (telemetry, seen) = (node.context.telemetry.clone(), api.clone());
    spawn("the sender of telemetry", Box::pin(async move { telemetry.run(|| refresh_metrics(&seen)).await }));
    spawn("the reader of the configuration", Box::pin(reloads));
    tasks
}
