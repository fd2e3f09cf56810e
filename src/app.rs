//! The composition root: makes the parts from the configuration, binds, runs, and stops them in order.

use crate::auth::Authenticator;
use crate::backend::request::RequestKind;
use crate::backend::{Backend, BackendStream, BackendTransport, Webhook};
use crate::bridge::redis::{CopyObserver, EmitterBridge};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::handlers::rule_runner;
use crate::http::caller::ListenerKind;
use crate::http::origin::Origins;
use crate::http::server::Listener;
use crate::http::traffic::Traffic;
use crate::http::{Api, Page};
use crate::log::memory::{MemoryLimits, MemoryLog};
use crate::log::redis::{RedisLog, stream_kept};
use crate::log::{EventLog, Sink};
use crate::metrics::Metrics;
use crate::model::close::DropReason;
use crate::model::draft::DraftLimits;
use crate::model::id::NodeId;
use crate::model::namespaces::Namespaces;
use crate::node::context::{LocalNode, Node, Parts};
use crate::node::dispatcher::Dispatcher;
use crate::node::presence::Notices;
use crate::peer_server::PeerServer;
use crate::presence::Store;
use crate::presence::memory::MemoryStore;
use crate::presence::redis::RedisPresence;
use crate::presence::writer::{self, Presence};
use crate::rules::Rules;
use crate::shard::context::ShardContext;
use crate::shard::handle::ShardCommand;
use crate::shard::{persist, runner};
use crate::shutdown;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Rooms that one event may name in `rooms`, and in `except`.
const ROOMS_PER_EVENT: usize = 100;

/// Ended sessions whose `disconnect` rules go into one append.
const ENDED_AT_ONCE: usize = 256;

/// How long a stop waits for the backend to hear of the last disconnections.
const LAST_NOTICES: Duration = Duration::from_secs(5);

/// What is to be run.
pub struct Launch {
    /// The checked configuration.
    pub config: Config,
    /// Pages besides the API: the demo's.
    pub pages: Vec<Page>,
    /// Take a free port where the configured one is taken: the demo does.
    pub any_port: bool,
    /// Called once the node listens, with its address.
    pub ready: Box<dyn FnOnce(SocketAddr)>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration holds something that no part can be made of.
    #[error("{0}")]
    Setup(String),
    /// An address could not be bound.
    #[error("cannot listen on {0}; choose another address with --listen or PORT")]
    Bind(SocketAddr, #[source] std::io::Error),
    /// The system refused something else.
    #[error("{0}")]
    System(&'static str, #[source] std::io::Error),
}

/// Runs a node until SIGTERM or SIGINT, and stops it gracefully.
///
/// # Errors
/// When it cannot start.
pub fn run(launch: Launch) -> Result<(), AppError> {
    // Sockets are files; the soft limit of many systems is 1,024. What the system does not grant is not needed at once.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AppError::System("no runtime", error))?;
    runtime.block_on(serve(launch))
}

async fn serve(launch: Launch) -> Result<(), AppError> {
    let signals = shutdown::Signals::listen().map_err(|error| AppError::System("no signals", error))?;
    let Launch { config, pages, any_port, ready } = launch;
    let shards = runner::count();
    let public = bind(config.listen.listen, ListenerKind::Public, shards, any_port)?;
    let admin =
        config.listen.admin_listen.map(|address| bind(address, ListenerKind::Admin, shards, false)).transpose()?;
    let address = public.address();

    let (node, emitters) = node(&config)?;
    let threads = start_shards(&node, shards)?;
    let api = Arc::new(Api {
        node: node.clone(),
        http: config.http.clone(),
        publish: config.publish.clone(),
        origins: Origins::new(&config.cors.origins),
        started: Instant::now(),
        admin_apart: admin.is_some(),
        pages,
        traffic: Traffic::default(),
    });
    let mut running = JoinSet::new();
    let mut feed: Arc<dyn Sink> = Dispatcher::new(node.clone());
    if let Some(emitters) = &emitters {
        feed = CopyObserver::new(emitters.clone(), feed);
        running.spawn(emitters.clone().run());
    }
    running.spawn(node.log.clone().run(feed));
    running.spawn(node.auth.clone().run());
    if let Some(backend) = node.backend.clone() {
        let metrics = node.context.metrics.clone();
        running.spawn(async move { backend.run(|_| metrics.dropped(DropReason::Notice, 1)).await });
    }
    running.spawn(writer::run(node.presence.clone()));
    if let Some(cluster) = &node.cluster {
        running.spawn(cluster.clone().run(PeerServer::new(node.clone())));
    }
    // The embedded log begins here, before anybody can connect.
    tokio::task::yield_now().await;
    let (stop, stopped) = watch::channel(false);
    public.accept(&api, &stopped);
    // Whoever looks after the node wants to see it drain: this door closes with the shards.
    let (_keep, never) = watch::channel(false);
    if let Some(admin) = admin {
        admin.accept(&api, &never);
    }
    tracing::info!(%address, shards = node.shards().len(), version = env!("CARGO_PKG_VERSION"), "listening");
    ready(address);

    signals.wait().await;
    tracing::info!("stopping");
    shutdown_node(&api, emitters.as_deref(), &config.shutdown, &stop).await;
    // The log's tail stops last, when nobody is left to deliver to.
    running.shutdown().await;
    for shard in node.shards() {
        shard.tell(ShardCommand::Stop);
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a shard's thread had panicked");
        }
    }
    tracing::info!("stopped");
    Ok(())
}

/// Not ready, pause, stop accepting, drain, and wait for the requests that are still being answered (DESIGN 12).
async fn shutdown_node(
    api: &Arc<Api>,
    emitters: Option<&EmitterBridge>,
    settings: &shutdown::ShutdownConfig,
    stop: &watch::Sender<bool>,
) {
    let node = &api.node;
    let drained = async {
        node.draining.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Some(emitters) = emitters {
            emitters.leave().await;
        }
        tokio::time::sleep(settings.pause).await;
        stop.send_replace(true);
        crate::node::drain::drain(node, settings.drain).await;
        if let Some(cluster) = &node.cluster {
            // Clients that come back elsewhere find their sessions.
            node.on_every_shard(|local| persist::write_all(&local.shard)).await;
            node.presence.leave().await;
            cluster.leave().await;
        }
        api.traffic.wait_until_idle().await;
        if let Some(backend) = &node.backend {
            let untold = backend.wait_until_notified(LAST_NOTICES).await;
            if untold > 0 {
                tracing::warn!(untold, "the backend was not told of everything before the stop");
            }
        }
    };
    if tokio::time::timeout(settings.timeout, drained).await.is_err() {
        tracing::warn!(open = node.places.taken(), "`shutdown.timeout` is over; what is left is cut");
    }
}

fn bind(address: SocketAddr, door: ListenerKind, shards: usize, any_port: bool) -> Result<Listener, AppError> {
    match Listener::bind(address, door, shards) {
        Err(error) if any_port && error.kind() == std::io::ErrorKind::AddrInUse => {
            let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            Listener::bind(free, door, shards).map_err(|error| AppError::Bind(free, error))
        }
        bound => bound.map_err(|error| AppError::Bind(address, error)),
    }
}

/// The node, and the readers of emitters where there are any.
fn node(config: &Config) -> Result<(Arc<Node>, Option<Arc<EmitterBridge>>), AppError> {
    let setup = |error: &dyn fmt::Display| AppError::Setup(error.to_string());
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")).map_err(|error| setup(&error))?);
    let rules = Rules::compile(&config.rooms, &config.on)
        .map_err(|mistakes| AppError::Setup(mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
    let draft_limits = DraftLimits {
        max_event: config.publish.max_event,
        room_name_bytes: config.limits.room_name_bytes,
        rooms: ROOMS_PER_EVENT,
    };
    let backend = backend(config, &metrics)?;
    let id = NodeId::random();
    let cluster = match config.redis.url {
        Some(_) => {
            Some(Cluster::new(id, &config.redis, &config.recovery, metrics.clone()).map_err(|error| setup(&error))?)
        }
        None => None,
    };
    let mut emitters = None;
    let (log, store): (Arc<dyn EventLog>, Arc<dyn Store>) = match &cluster {
        Some(cluster) => {
            let log = RedisLog::new(&config.redis, &config.recovery, draft_limits, metrics.clone())
                .map_err(|error| setup(&error))?;
            emitters = EmitterBridge::new(&config.redis, log.clone(), id, draft_limits, metrics.clone());
            let kept = stream_kept(&config.recovery);
            (log, RedisPresence::new(cluster.clone(), &config.redis.prefix, &config.presence, kept))
        }
        None => {
            let log = MemoryLog::new(MemoryLimits::default());
            (log.clone(), MemoryStore::new(log, config.presence.remember, metrics.clone()))
        }
    };
    let notices = Box::new(Notices::new(backend.clone(), metrics.clone()));
    let context = Arc::new(ShardContext {
        node_id: id,
        socketio: config.socketio.clone(),
        limits: config.limits.clone(),
        recovery: config.recovery.clone(),
        draft_limits,
        namespaces: Namespaces::new(&config.socketio.namespaces),
        rules,
        presence: Presence::new(&config.presence, store, notices, metrics.clone()),
        metrics,
        cluster,
        notify_disconnects: backend.as_ref().is_some_and(|backend| backend.wants(RequestKind::Disconnect)),
    });
    let auth = Authenticator::new(&config.auth).map_err(|error| AppError::Setup(format!("[auth]: {error}")))?;
    let node = Node::new(Parts { context, backend, log, auth });
    Ok((node, emitters))
}

/// The backend and the way to it, where there is one.
fn backend(config: &Config, metrics: &Arc<Metrics>) -> Result<Option<Arc<Backend>>, AppError> {
    let Some(settings) = &config.backend else { return Ok(None) };
    let way = match &settings.stream {
        Some(stream) => BackendStream::new(&config.redis, stream, settings.stream_limit)
            .map(BackendTransport::Stream)
            .map_err(|error| AppError::Setup(error.to_string()))?,
        None => {
            Webhook::new(settings, config.publish.max_event).map(BackendTransport::Webhook).map_err(AppError::Setup)?
        }
    };
    Ok(Some(Backend::new(way, settings, metrics.clone())))
}

/// One shard for each core.
fn start_shards(node: &Arc<Node>, count: usize) -> Result<Vec<std::thread::JoinHandle<()>>, AppError> {
    let (handles, ends) = runner::handles(count);
    node.set_shards(handles);
    let mut threads = Vec::new();
    for (index, end) in (0..=u8::MAX).zip(ends) {
        let (context, observer, node) = (node.context.clone(), node.clone(), node.clone());
        let thread = runner::spawn(index, context, observer, end, move |shard, mut ended| {
            tokio::task::spawn_local(persist::run(shard.clone()));
            let local = LocalNode::new(node, shard.clone());
            let disconnects = local.clone();
            tokio::task::spawn_local(async move {
                let mut waiting = Vec::new();
                while ended.recv_many(&mut waiting, ENDED_AT_ONCE).await > 0 {
                    rule_runner::run_disconnects(&disconnects, std::mem::take(&mut waiting)).await;
                }
            });
            local
        });
        threads.push(thread.map_err(|error| AppError::System("no thread", error))?);
    }
    Ok(threads)
}
