//! From the configuration to the parts of a node. Nothing runs yet, and nothing connects.

use crate::app::AppError;
use crate::auth::Authenticator;
use crate::backend::request::RequestKind;
use crate::backend::{Backend, BackendStream, BackendTransport, Webhook};
use crate::bridge::redis::EmitterBridge;
use crate::budget::sign_ins::SignIns;
use crate::budget::{Accounts, MemoryBudget};
use crate::cluster::Cluster;
use crate::config::Config;
use crate::feed::Feed;
use crate::http::gathering::Gathering;
use crate::http::reload::Reloads;
use crate::http::settings::HttpSettings;
use crate::http::traffic::Traffic;
use crate::http::{Api, Page, Scrape};
use crate::log::EventLog;
use crate::log::config::RecoveryConfig;
use crate::log::interest::lines::Interests;
use crate::log::memory::{MemoryLimits, MemoryLog};
use crate::log::redis::partitioned::PartitionedLog;
use crate::log::redis::stream_kept;
use crate::log::shared_window::SharedWindow;
use crate::log::traced::TracedLog;
use crate::metrics::Metrics;
use crate::model::draft::DraftLimits;
use crate::model::id::NodeId;
use crate::model::namespaces::Namespaces;
use crate::node::admin_ui;
use crate::node::context::{Node, Parts};
use crate::node::presence::Notices;
use crate::presence::Store;
use crate::presence::local::Presence;
use crate::presence::memory::MemoryStore;
use crate::presence::redis::RedisPresence;
use crate::protocol::socketio::max_attached;
use crate::refusals::Refusals;
use crate::rules::Rules;
use crate::shard::context::ShardContext;
use crate::shard::runner;
use crate::shard::settings::{LiveSettings, Settings};
use crate::telemetry::Telemetry;
use crate::tls::config::TlsConfig;
use crate::tls::{KeyPair, TlsServer};
use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Instant;

/// Rooms that one event may name in `rooms`, and in `except`.
const ROOMS_PER_EVENT: usize = 100;

/// The window takes at most this part of `limits.memory`.
const WINDOW_PART: usize = 4;

pub(super) struct Built {
    pub node: Arc<Node>,
    /// Reads what Socket.IO emitters publish, if the configuration names their keys.
    pub emitters: Option<Arc<EmitterBridge>>,
}

/// The log, and what comes with it: in Redis or in memory.
struct Storage {
    log: Arc<dyn EventLog>,
    presence: Arc<dyn Store>,
    cluster: Option<Arc<Cluster>>,
    emitters: Option<Arc<EmitterBridge>>,
}

fn setup(error: impl ToString) -> AppError {
    AppError::Setup(error.to_string())
}

pub(super) fn build(config: &Config, sockets: usize) -> Result<Built, AppError> {
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION")).map_err(setup)?);
    let knows_addresses = knows_addresses(config);
    let memory = MemoryBudget::new(config.limits.memory_limit());
    let draft_limits = DraftLimits {
        max_event: config.publish.max_event,
        room_name_bytes: config.limits.room_name_bytes,
        rooms: ROOMS_PER_EVENT,
    };
    let node_id = NodeId::random();
    metrics.node.is_named(&node_id.to_string());
    let telemetry = Telemetry::new(&config.telemetry, node_id.to_string(), metrics.clone()).map_err(setup)?;
    let backend = backend(config, &metrics, &memory, &telemetry)?;
    let Storage { log, presence, cluster, emitters } = match config.redis.url {
        Some(_) => storage_in_redis(config, node_id, draft_limits, &metrics, &memory)?,
        None => storage_in_memory(config, &metrics),
    };
    let log = TracedLog::wrap(log, &telemetry);
    let recovery = recovery_within(&config.recovery, memory.limit());
    let partitions = config.redis.layout();
    let (kept, bounds) = (recovery.kept(), recovery.bounds(partitions));
    let namespaces = Namespaces::new(&config.socketio.namespaces);
    let interest = match config.redis.url {
        Some(_) => Interests::of_sessions(partitions, &namespaces, kept),
        // It could not be read again.
        None => Interests::everything(partitions, namespaces.clone()),
    };
    let notices = Box::new(Notices::new(backend.clone()));
    let feed = Arc::<Feed>::default();
    let context = Arc::new(ShardContext {
        refusals: Refusals::new(metrics.clone(), feed.clone()),
        feed,
        telemetry,
        node_id,
        shards: runner::count(),
        socketio: config.socketio.clone(),
        explain: config.explain.clone(),
        recovery,
        window: Arc::new(SharedWindow::new(partitions, kept, bounds, interest)),
        draft_limits,
        namespaces,
        live: LiveSettings::new(settings(config).map_err(AppError::Setup)?),
        presence: Presence::new(&config.presence, presence, notices, metrics.clone()),
        metrics,
        memory,
        accounts: Accounts::default(),
        started: Instant::now(),
        cluster,
    });
    let auth = Authenticator::new(&config.auth).map_err(|error| setup(format!("[auth]: {error}")))?;
    let trace = config.trace.clone();
    let admin_ui = admin_ui::config::Settings {
        config: config.admin_ui.clone(),
        keys: config.publish.keys.clone(),
        lifetime: config.console.session_ttl,
        guesses_per_minute: config.console.sign_ins_per_minute,
        admin_apart: config.listen.admin_listen.is_some(),
    };
    let lines = partitions.lines().len();
    let parts = Parts { context, backend, log, lines, auth, sockets, knows_addresses, admin_ui, trace };
    Ok(Built { node: Node::new(parts), emitters })
}

/// What serves HTTP.
pub(super) fn api(config: &Config, node: &Arc<Node>, reloads: Reloads, pages: Vec<Page>) -> Result<Arc<Api>, AppError> {
    let settings =
        HttpSettings::new(&config.http, &config.publish, &config.cors, &config.shutdown, config.auth.revoke_for);
    Ok(Arc::new(Api {
        node: node.clone(),
        live: ArcSwap::from_pointee(settings),
        reloads,
        console: config.console.clone(),
        sign_ins: SignIns::new(config.console.sign_ins_per_minute),
        tls: tls(&config.tls, &node.context.metrics)?,
        scrape: Scrape::default(),
        started: Instant::now(),
        admin_apart: config.listen.admin_listen.is_some(),
        gathering: Arc::new(Gathering::new(node.shards().len())),
        pages,
        traffic: Traffic::default(),
    }))
}

/// The settings of the shards, which a reload makes again.
///
/// # Errors
/// The mistakes of the rules, which a checked configuration does not have.
pub(super) fn settings(config: &Config) -> Result<Settings, String> {
    let rules = Rules::compile(&config.rooms, &config.on)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let accounts = config.limits.accounts(max_attached(config.socketio.max_payload), knows_addresses(config));
    let is_disconnect = |kind: &String| kind == RequestKind::Disconnect.label();
    let notify_disconnects = config.backend.as_ref().is_some_and(|backend| backend.notify.iter().any(is_disconnect));
    Ok(Settings { limits: config.limits.clone(), rules, accounts, notify_disconnects })
}

/// Behind a proxy that is not trusted all clients have its address. Where connections of an address are limited, there is none.
fn knows_addresses(config: &Config) -> bool {
    config.limits.connections_per_ip > 0 || !config.http.trusted_proxies.is_empty()
}

/// What is kept for resumes may take a part of the node's memory. Otherwise a full window would be enough to refuse everybody on
/// a small machine.
fn recovery_within(config: &RecoveryConfig, memory: usize) -> RecoveryConfig {
    let window_bytes = config.window_bytes.min(memory / WINDOW_PART);
    if window_bytes < config.window_bytes {
        let given = config.window_bytes;
        tracing::warn!(given, window_bytes, "recovery.window_bytes is cut to a quarter of limits.memory");
    }
    RecoveryConfig { window_bytes, ..config.clone() }
}

fn storage_in_redis(
    config: &Config,
    node_id: NodeId,
    limits: DraftLimits,
    metrics: &Arc<Metrics>,
    memory: &Arc<MemoryBudget>,
) -> Result<Storage, AppError> {
    let cluster =
        Cluster::new(node_id, &config.redis, &config.recovery, metrics.clone(), memory.clone()).map_err(setup)?;
    let log = PartitionedLog::new(&config.redis, &config.recovery, limits, metrics, runner::count()).map_err(setup)?;
    let emitters = EmitterBridge::new(&config.redis, log.control().clone(), node_id, limits, metrics.clone());
    let kept = stream_kept(&config.recovery);
    let prefix = &config.redis.prefix;
    let presence = RedisPresence::new(cluster.clone(), log.clone(), prefix, &config.presence, kept, metrics.clone());
    Ok(Storage { log, presence, cluster: Some(cluster), emitters })
}

fn storage_in_memory(config: &Config, metrics: &Arc<Metrics>) -> Storage {
    let log = MemoryLog::new(MemoryLimits::default());
    // Nothing is down: an alert on 0 must stay quiet.
    metrics.log.redis_up.set(1);
    let presence = MemoryStore::new(log.clone(), &config.presence, metrics.clone());
    Storage { log, presence, cluster: None, emitters: None }
}

/// The certificate of `listen`. One whose time is over is served: it is for the clients to judge.
pub(super) fn tls(config: &TlsConfig, metrics: &Metrics) -> Result<Option<TlsServer>, AppError> {
    let read = KeyPair::read(config).map_err(|error| setup(format!("[tls] {}: {error}", error.key())))?;
    let Some(pair) = read else { return Ok(None) };
    note_time(&pair, metrics);
    Ok(Some(TlsServer::new(pair)))
}

/// Takes note of when a certificate ends.
pub(super) fn note_time(pair: &KeyPair, metrics: &Metrics) {
    if let Err(error) = pair.check_time() {
        tracing::warn!("[tls] {}: {error}; clients will refuse it", error.key());
    }
    metrics.connections.tls_certificate_expiry.set(i64::try_from(pair.not_after()).unwrap_or(i64::MAX));
}

fn backend(
    config: &Config,
    metrics: &Arc<Metrics>,
    memory: &Arc<MemoryBudget>,
    telemetry: &Arc<Telemetry>,
) -> Result<Option<Arc<Backend>>, AppError> {
    let Some(settings) = &config.backend else { return Ok(None) };
    let transport = match &settings.stream {
        Some(stream) => {
            BackendTransport::Stream(BackendStream::new(&config.redis, stream, settings.stream_limit).map_err(setup)?)
        }
        None => BackendTransport::Webhook(Webhook::new(settings, config.publish.max_event).map_err(setup)?),
    };
    Ok(Some(Backend::new(transport, settings, metrics.clone(), memory.clone(), telemetry.clone())))
}
