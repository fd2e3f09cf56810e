//! Puts a changed configuration in force while the node runs: `POST /reload` and SIGHUP.
//!
//! All that can fail comes first: the sources are read, checked, and the parts made of them. Then each part is replaced, which
//! cannot fail. So a mistake changes nothing. Keys that need a restart keep the value that the node runs with.

use crate::app::build;
use crate::app::open_files;
use crate::auth::PreparedAuth;
use crate::backend::PreparedBackend;
use crate::config::{Change, Config, Mistake, Purpose, Successor};
use crate::handlers::new_rules;
use crate::http::Api;
use crate::http::reload::{Asked, ChangedKey, Done, Outcome};
use crate::http::settings::HttpSettings;
use crate::logging;
use crate::node::context::Node;
use crate::shard::settings::Settings;
use crate::tls::KeyPair;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

/// Reads the configuration again, from the same sources as at the start. It may block.
pub type Load = Arc<dyn Fn() -> Result<Config, Vec<Mistake>> + Send + Sync>;

/// How long the sources may take: a path may lead to a pipe, or to a file system that hangs.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Between two reloads. All that is asked for meanwhile is one.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the answer waits for what new rules cost the live sessions.
const DECIDED_WITHIN: Duration = Duration::from_secs(5);
/// A session that began, or a join, may have been decided by the old rules and wait for Redis until now.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// What reloads need to know of the start.
pub(super) struct Reloader {
    load: Load,
    purpose: Purpose,
    node: Arc<Node>,
    api: Arc<Api>,
    /// What is in force.
    config: Config,
    /// Open files that the process may have.
    files: u64,
    reading: Arc<AtomicBool>,
    /// Counts changes of the rules.
    rules: Arc<AtomicU64>,
}

/// All that changes, ready to be put in force.
struct Prepared {
    successor: Successor,
    settings: Settings,
    auth: PreparedAuth,
    /// If there is one.
    backend: Option<PreparedBackend>,
    /// The certificate of now, if the files say one.
    pair: Option<KeyPair>,
}

impl Reloader {
    /// `config` is in force, and `load` reads its successors for `purpose`. The process may open `files` files.
    pub(super) fn new(config: Config, purpose: Purpose, load: Load, files: u64, api: &Arc<Api>) -> Self {
        let (node, api) = (api.node.clone(), api.clone());
        Self { load, purpose, node, api, config, files, reading: Arc::default(), rules: Arc::default() }
    }

    /// Reloads whenever it is asked for, until dropped.
    pub(super) async fn run(mut self, mut asked: mpsc::Receiver<Asked>, hangups: Arc<Notify>) {
        self.note(true);
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                first = asked.recv() => waiting.extend(first),
                () = hangups.notified() => tracing::info!("SIGHUP: the configuration is read again"),
            }
            waiting.extend(std::iter::from_fn(|| asked.try_recv().ok()));
            let outcome = Arc::new(self.reload().await);
            for caller in waiting {
                let _ = caller.send(outcome.clone());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn reload(&mut self) -> Outcome {
        let prepared = match self.read().await {
            Ok((new, pair)) => self.prepare(new, pair).await,
            Err(mistakes) => Err(mistakes),
        };
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err(mistakes) => {
                let lines: String = mistakes.iter().map(|mistake| format!("\n  {mistake}")).collect();
                tracing::error!("the configuration has mistakes, so the old one stays in force:{lines}");
                self.node.context.metrics.node.config_reload("refused");
                return Outcome::Refused(mistakes.into_iter().map(|one| (one.place, one.message)).collect());
            }
        };
        let Successor { config, mut applied, needs_restart } = prepared.successor;
        let has_new_rules = applied.iter().any(|change| change.key == "rooms");
        if !applied.is_empty() {
            self.apply(&config, prepared.settings, prepared.auth, prepared.backend);
        }
        if self.replace_certificate(prepared.pair) && !applied.iter().any(|change| change.key.starts_with("tls.")) {
            applied.push(Change { key: "tls.cert_file".to_owned(), from: None, to: None });
        }
        self.config = config;
        let lost = if has_new_rules { self.decide_again().await } else { Some(new_rules::Lost::default()) };
        let done = Done {
            warnings: self.warnings(&applied),
            changed: applied.into_iter().map(changed).collect(),
            needs_restart: needs_restart.into_iter().map(changed).collect(),
            lost,
            config: self.config.fingerprint(),
        };
        self.node.config.lock().needs_restart = done.needs_restart.iter().map(|change| change.key.clone()).collect();
        self.note(!done.changed.is_empty());
        log(&done);
        Outcome::Done(done)
    }

    /// Reads the sources on a thread of their own, so that nothing else waits for a slow one.
    async fn read(&self) -> Result<(Config, Option<KeyPair>), Vec<Mistake>> {
        let failed =
            |message: &str| vec![Mistake { place: "the configuration".to_owned(), message: message.to_owned() }];
        if self.reading.swap(true, Ordering::AcqRel) {
            return Err(failed(
                "is still being read for the reload before; is one of its files a pipe, or on a file system that hangs?",
            ));
        }
        let (load, reading, (answer, read)) = (self.load.clone(), self.reading.clone(), oneshot::channel());
        let thread = std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let loaded = load().and_then(|config| {
                let pair = KeyPair::read(&config.tls);
                let pair = pair.map_err(|error| vec![config.mistake_in("tls", error.key(), error.to_string())])?;
                Ok((config, pair))
            });
            reading.store(false, Ordering::Release);
            let _ = answer.send(loaded);
        });
        if thread.is_err() {
            self.reading.store(false, Ordering::Release);
            return Err(failed("could not be read: the system gives no thread"));
        }
        match tokio::time::timeout(READ_WITHIN, read).await {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(_)) | Err(_) => Err(failed("could not be read within 10 s")),
        }
    }

    async fn prepare(&self, new: Config, pair: Option<KeyPair>) -> Result<Prepared, Vec<Mistake>> {
        let successor = self.config.successor(new, self.purpose)?;
        let config = &successor.config;
        if let (Some(tls), Some(new)) = (&self.api.tls, &pair)
            && tls.would_change(new)
        {
            // One that was good so far is not replaced by one that clients refuse.
            new.check_time().map_err(|error| vec![config.mistake_in("tls", error.key(), error.to_string())])?;
        }
        let settings =
            build::settings(config).map_err(|message| vec![Mistake { place: "the rules".to_owned(), message }])?;
        let auth = self.node.auth.prepare(&config.auth).await;
        let auth = auth.map_err(|(key, message)| vec![config.mistake_in("auth", key, message)])?;
        let backend = self.backend(config).await?;
        Ok(Prepared { settings, auth, backend, pair, successor })
    }

    /// The backend is there from the start or not at all.
    async fn backend(&self, config: &Config) -> Result<Option<PreparedBackend>, Vec<Mistake>> {
        let (Some(new), Some(old)) = (&config.backend, &self.config.backend) else { return Ok(None) };
        let is_same = (&new.url, &new.secret, new.concurrency) == (&old.url, &old.secret, old.concurrency);
        let prepared = PreparedBackend::new(new, config.publish.max_event, is_same).await;
        prepared.map(Some).map_err(|message| vec![config.mistake_in("backend", "url", message)])
    }

    /// Nothing in here can fail.
    fn apply(&self, config: &Config, settings: Settings, auth: PreparedAuth, prepared: Option<PreparedBackend>) {
        let Self { node, api, .. } = self;
        logging::reload(&config.log);
        node.auth.apply(auth);
        if let (Some(backend), Some(prepared)) = (&node.backend, prepared) {
            backend.apply(prepared);
        }
        node.context.live.replace(settings);
        let files =
            open_files::share(self.files, node.shards().len(), node.tails_seen_ms.len(), config.limits.connections);
        node.traces.configure(config.trace.clone());
        node.connection_limiter.allow(config.limits.connections, config.limits.unauthenticated, files.clients);
        node.context.memory.set_limit(config.limits.memory_limit());
        api.live.store(Arc::new(HttpSettings::new(
            &config.http,
            &config.publish,
            &config.cors,
            &config.shutdown,
            config.auth.revoke_for,
        )));
        if let Some(admin_ui) = &node.admin_ui {
            admin_ui.replace_keys(&config.publish.keys);
        }
        node.config.lock().fingerprint = config.fingerprint();
    }

    /// New connections get the certificate of now; whether it is another one.
    fn replace_certificate(&self, pair: Option<KeyPair>) -> bool {
        let (Some(tls), Some(pair)) = (&self.api.tls, pair) else { return false };
        build::note_time(&pair, &self.node.context.metrics);
        tls.replace(pair)
    }

    /// Live sessions lose what the new rules do not give them.
    async fn decide_again(&self) -> Option<new_rules::Lost> {
        let number = self.rules.fetch_add(1, Ordering::Relaxed) + 1;
        let rules = self.rules.clone();
        let is_current = move || rules.load(Ordering::Relaxed) == number;
        let (node, look) = (self.node.clone(), is_current.clone());
        let backend = self.config.backend.as_ref().map_or(Duration::ZERO, |backend| backend.timeout);
        tokio::spawn(async move {
            tokio::time::sleep(backend + SECOND_LOOK).await;
            if look() {
                new_rules::decide_everywhere(&node, look).await;
            }
        });
        let decided = new_rules::decide_everywhere(&self.node, is_current);
        tokio::time::timeout(DECIDED_WITHIN, decided).await.ok()
    }

    fn warnings(&self, applied: &[Change]) -> Vec<String> {
        let mut warnings: Vec<String> = self.config.warnings().iter().map(ToString::to_string).collect();
        if applied.iter().any(|change| change.key == "log.level") && logging::is_set_by_environment() {
            warnings.push("log.level: RUST_LOG is set for this process and wins".to_owned());
        }
        warnings
    }

    fn note(&self, is_applied: bool) {
        self.node.context.metrics.node.config_reload(if is_applied { "applied" } else { "unchanged" });
        self.node.context.metrics.node.config_in_force(self.node.config.lock().needs_restart.len());
    }
}

fn changed(change: Change) -> ChangedKey {
    let Change { key, from, to } = change;
    ChangedKey { key, from, to }
}

fn log(done: &Done) {
    let names = |keys: &[ChangedKey]| keys.iter().map(|change| change.key.as_str()).collect::<Vec<_>>().join(", ");
    let lost = done.lost.unwrap_or_default();
    match done.changed.is_empty() {
        true => tracing::info!(config = done.config, "the configuration is as before"),
        false => tracing::info!(
            changed = names(&done.changed),
            config = done.config,
            sessions = lost.sessions,
            memberships = lost.memberships,
            "a changed configuration is in force"
        ),
    }
    if !done.needs_restart.is_empty() {
        tracing::warn!("these keys have changed and need a restart: {}", names(&done.needs_restart));
    }
    done.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
}
