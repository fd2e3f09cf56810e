//! The composition root: builds the parts from the configuration, starts them, and stops them in order.
//!
//! Threads: one per shard, and this one, which runs the control tasks (the log's tail, writers to Redis, the key set,
//! notices to the backend). A control task that ends before the node is asked to stop ends the node, with its name as
//! the reason: a node without it would look healthy and lose events.

mod build;
mod open_files;
mod reload;

pub use reload::Load;

use crate::bridge::redis::{CopyObserver, EmitterBridge};
use crate::budget::sign_ins::SignIns;
use crate::config::{Config, Purpose};
use crate::handlers::lifecycle_rules;
use crate::http::caller::ListenerKind;
use crate::http::config::{ListenAddress, ListenConfig};
use crate::http::gathering::Gathering;
use crate::http::health::refresh_metrics;
use crate::http::listener::Listener;
use crate::http::reload::Reloads;
use crate::http::server;
use crate::http::settings::HttpSettings;
use crate::http::traffic::Traffic;
use crate::http::{Api, Page, Scrape};
use crate::log::{LogStatus, Sink};
use crate::node::admin_ui;
use crate::node::backfill;
use crate::node::context::{LocalNode, Node};
use crate::node::dispatcher::Dispatcher;
use crate::node::memory;
use crate::node::revocation;
use crate::peer_server::PeerServer;
use crate::presence::local;
use crate::session::connection_limiter::{Bounds, ConnectionLimiter};
use crate::shard::handle::ShardCommand;
use crate::shard::{persist, runner};
use crate::shutdown::Signals;
use arc_swap::ArcSwap;
use build::Built;
use open_files::OpenFiles;
use reload::Reloader;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// Sessions whose `disconnect` rules share one append to the log.
const DISCONNECTS_AT_ONCE: usize = 256;

/// How long a stop waits for the backend to take the last notices.
const LAST_NOTICES: Duration = Duration::from_secs(5);

/// A stop does not wait for a Redis that has been away so long.
const LOG_AWAY: Duration = Duration::from_millis(500);

/// What [`run`] runs.
pub struct Launch {
    /// The checked configuration.
    pub config: Config,
    /// What it was checked for.
    pub purpose: Purpose,
    /// Reads it again.
    pub load: Load,
    /// Pages besides the API, such as the demo's.
    pub pages: Vec<Page>,
    /// Whether to listen on a free port if the configured one is in use.
    pub any_port: bool,
    /// Whether SIGHUP ends it, because it means that its terminal was closed, instead of a reload.
    pub ends_on_hangup: bool,
    /// Called with the address once the node listens.
    pub ready: Box<dyn FnOnce(SocketAddr)>,
}

/// Why a node did not start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A part cannot be built from the configuration.
    #[error("{0}")]
    Setup(String),
    /// An address cannot be bound.
    #[error("cannot listen on {0}; choose another address with --listen or PORT")]
    Bind(ListenAddress, #[source] io::Error),
    /// The operating system refused something else.
    #[error("the operating system refused {0}")]
    System(&'static str, #[source] io::Error),
    /// A control task ended.
    #[error("{0} ended unexpectedly; the node stopped, since it cannot work without")]
    TaskEnded(&'static str),
}

/// Runs a node until SIGTERM or SIGINT, and stops it gracefully.
///
/// # Errors
/// When it cannot start, or one of its control tasks ends.
pub fn run(launch: Launch) -> Result<(), AppError> {
    // Each connection is an open file, and many systems allow 1,024 by default.
    // A dump would hold secrets. Operators can raise the soft limit of a running node, up to the hard one.
    if let Ok((_, hard)) = rlimit::Resource::CORE.get() {
        let _ = rlimit::Resource::CORE.set(0, hard);
    }
    let files = rlimit::increase_nofile_limit(u64::MAX).or_else(|_| rlimit::Resource::NOFILE.get_soft());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| AppError::System("a runtime", error))?;
    runtime.block_on(serve(launch, files.unwrap_or(u64::MAX)))
}

async fn serve(launch: Launch, files: u64) -> Result<(), AppError> {
    let signals = Signals::listen().map_err(|error| AppError::System("signal handlers", error))?;
    let Launch { config, purpose, load, pages, any_port, ends_on_hangup, ready } = launch;
    let shards = runner::count();
    let listeners = Listeners::bind(&config.listen, shards, any_port)?;
    let address = listeners.public.address().unwrap_or(config.listen.listen);
    let OpenFiles { clients, operators } =
        open_files::share(files, shards, config.redis.layout().lines().len(), config.limits.connections);
    let Built { node, emitters } = build::build(&config, clients)?;
    node.config.lock().fingerprint = config.fingerprint();
    let threads = start_shards(&node, shards)?;
    let (reloads, asked) = Reloads::new();
    let api = Arc::new(Api {
        node: node.clone(),
        live: ArcSwap::from_pointee(HttpSettings::new(
            &config.http,
            &config.publish,
            &config.cors,
            &config.shutdown,
            config.auth.revoke_for,
        )),
        reloads,
        console: config.console.clone(),
        sign_ins: SignIns::new(config.console.sign_ins_per_minute),
        tls: build::tls(&config.tls, &node.context.metrics)?,
        scrape: Scrape::default(),
        started: Instant::now(),
        admin_apart: listeners.admin.is_some(),
        gathering: Arc::new(Gathering::new(shards)),
        pages,
        traffic: Traffic::default(),
    });
    let mut tasks = start_tasks(&node, emitters.as_ref());
    let telemetry = (node.context.telemetry.clone(), api.clone());
    tasks.spawn(async move {
        let (telemetry, api) = telemetry;
        telemetry.run(|| refresh_metrics(&api)).await;
        "the sender of telemetry"
    });
    let hangups = Arc::new(Notify::new());
    let reloader = Reloader {
        load,
        purpose,
        node: node.clone(),
        api: api.clone(),
        config,
        files,
        reading: Arc::default(),
        rules: Arc::default(),
    };
    let reload = if ends_on_hangup { Arc::default() } else { hangups.clone() };
    let reloads = reloader.run(asked, reload);
    tasks.spawn(async move {
        reloads.await;
        "the reader of the configuration"
    });
    // Lets the embedded log open before anybody can connect.
    tokio::task::yield_now().await;
    let (stop_accepting, accepting) = watch::channel(false);
    server::accept(listeners.public, &api, &node.connection_limiter, &accepting);
    // The admin listener stays open during the stop, so that operators can watch the node drain.
    let (_keep_open, admin_accepting) = watch::channel(false);
    if let Some(admin) = listeners.admin {
        let limiter = ConnectionLimiter::new(Bounds::of_sockets(operators));
        server::accept(admin, &api, &limiter, &admin_accepting);
    }
    tracing::info!(%address, shards = node.shards().len(), sockets = clients, version = env!("CARGO_PKG_VERSION"), "listening");
    ready(address);

    let ended = tokio::select! {
        () = signals.wait(&hangups) => None,
        () = hangups.notified(), if ends_on_hangup => None,
        ended = tasks.join_next() => Some(ended.and_then(Result::ok).unwrap_or("a control task")),
    };
    tracing::info!("stopping");
    drain(&api, emitters.as_deref(), &stop_accepting).await;
    // After the drain, because clients are still served during it.
    tasks.shutdown().await;
    stop_shards(&node, threads);
    node.context.telemetry.flush().await;
    tracing::info!("stopped");
    ended.map_or(Ok(()), |task| Err(AppError::TaskEnded(task)))
}

struct Listeners {
    public: Listener,
    admin: Option<Listener>,
}

impl Listeners {
    fn bind(config: &ListenConfig, shards: usize, any_port: bool) -> Result<Self, AppError> {
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
fn start_shards(node: &Arc<Node>, count: usize) -> Result<Vec<JoinHandle<()>>, AppError> {
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

/// Starts the control tasks on this thread. None of them ends by itself; one that does gives its name.
fn start_tasks(node: &Arc<Node>, emitters: Option<&Arc<EmitterBridge>>) -> JoinSet<&'static str> {
    let mut tasks = JoinSet::new();
    let mut spawn = |name, task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
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
    tasks
}

/// Reports "not ready", pauses, stops accepting, drains, and waits for the requests that are still being answered
/// (docs/deploy.md, "Stopping and starting a node"). Takes `shutdown.timeout` at most.
async fn drain(api: &Arc<Api>, emitters: Option<&EmitterBridge>, stop_accepting: &watch::Sender<bool>) {
    let node = &api.node;
    let settings = api.settings().shutdown.clone();
    let drained = async {
        node.draining.store(true, Ordering::Relaxed);
        let pause = tokio::time::sleep(settings.pause);
        if let Some(emitters) = emitters {
            while_log_answers(node, emitters.leave()).await;
        }
        pause.await;
        stop_accepting.send_replace(true);
        crate::node::drain::drain(node, settings.drain).await;
        while_log_answers(node, hand_over(node)).await;
        api.traffic.wait_until_idle().await;
        if let Some(backend) = &node.backend {
            let is_away = backend.is_stream() && node.log.status() == LogStatus::Connecting;
            let unsent = backend.wait_until_notified(if is_away { LOG_AWAY } else { LAST_NOTICES }).await;
            if unsent > 0 {
                tracing::warn!(unsent, "the backend did not take all notices before the stop");
            }
        }
    };
    if tokio::time::timeout(settings.timeout, drained).await.is_err() {
        tracing::warn!(
            open = node.connection_limiter.taken(),
            "`shutdown.timeout` has passed; the remaining connections are cut"
        );
    }
}

/// Leaves the sessions and the presence of this node to the others.
async fn hand_over(node: &Node) {
    let Some(cluster) = &node.context.cluster else { return };
    // Clients that reconnect to another node find their sessions in Redis.
    node.on_every_shard(|local| persist::write_all(&local.shard)).await;
    if node.context.presence.leave().await {
        cluster.leave().await;
    }
}

/// Does something that needs the log's server, unless that has been away for [`LOG_AWAY`]: a stop does not wait for it.
async fn while_log_answers(node: &Node, work: impl Future<Output = ()>) {
    let away = async {
        let mut since = None;
        loop {
            match node.log.status() {
                LogStatus::Connecting if since.get_or_insert_with(Instant::now).elapsed() >= LOG_AWAY => return,
                LogStatus::Connecting => {}
                LogStatus::Ready | LogStatus::Embedded => since = None,
            }
            tokio::time::sleep(LOG_AWAY / 10).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = away => tracing::warn!("Redis is away: the other nodes find out by themselves that this one has gone"),
    }
}

fn stop_shards(node: &Node, threads: Vec<JoinHandle<()>>) {
    for shard in node.shards() {
        shard.tell(ShardCommand::Stop);
    }
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("the thread of a shard panicked");
        }
    }
}
