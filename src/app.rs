//! The composition root: builds the parts from the configuration, starts them, and stops them in order.
//!
//! Threads: one per shard, and this one, which runs the control tasks (the log's tail, writers to Redis, the key set,
//! notices to the backend). A control task that ends before the node is asked to stop ends the node, with its name as
//! the reason: a node without it would look healthy and lose events.

mod build;
mod open_files;
mod reload;
mod start;
mod stop;

pub use reload::Load;

use crate::config::{Config, Purpose};
use crate::http::Page;
use crate::http::config::ListenAddress;
use crate::http::reload::Reloads;
use crate::http::server;
use crate::session::connection_limiter::{Bounds, ConnectionLimiter};
use crate::shard::runner;
use crate::shutdown::Signals;
use build::Built;
use open_files::OpenFiles;
use reload::Reloader;
use start::Listeners;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

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
    let threads = start::shards(&node, shards)?;
    let (reloads, asked) = Reloads::new();
    let api = build::api(&config, &node, reloads, pages)?;
    let hangups = Arc::new(Notify::new());
    let reload = if ends_on_hangup { Arc::default() } else { hangups.clone() };
    let reloader = Reloader::new(config, purpose, load, files, &api);
    let mut tasks = start::tasks(&api, emitters.as_ref(), reloader.run(asked, reload));
    // Lets the embedded log open before anybody can connect.
    tokio::task::yield_now().await;
    let (stop_accepting, accepting) = watch::channel(false);
    // The admin listener stays open during the stop, so that operators can watch the node drain.
    let (_keep_open, admin_accepting) = watch::channel(false);
    server::accept(listeners.public, &api, &node.connection_limiter, &accepting);
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
    stop::drain(&api, emitters.as_deref(), &stop_accepting).await;
    // After the drain, because clients are still served during it.
    tasks.shutdown().await;
    stop::shards(&node, threads);
    node.context.telemetry.flush().await;
    tracing::info!("stopped");
    ended.map_or(Ok(()), |task| Err(AppError::TaskEnded(task)))
}
