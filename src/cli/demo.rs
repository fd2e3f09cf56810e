//! `roomcast demo`.

use crate::app::Launch;
use crate::cli::serve::launch;
use crate::cli::{Common, Failure, say};
use crate::config::{Config, Purpose};
use crate::demo::cluster_error::ClusterError;
use crate::demo::shared::Shared;
use crate::demo::{self, cluster};
use crate::http::Page;
use crate::logging;
use crate::model::error_chain::with_causes;
use std::ffi::OsString;
use std::io::{BufRead as _, Read as _};
use std::net::SocketAddr;
use std::sync::Arc;

/// The lines that a node of three gets by standard input: one, of this length at most.
const MAX_SHARED: u64 = 64 << 10;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// One node on the log in memory, also where redis-server is installed
    #[arg(long)]
    one_node: bool,
    /// As one of the three nodes of a demo, which has started this process
    #[arg(long, hide = true)]
    node: bool,
}

pub(super) fn run(common: Common, arguments: &Arguments) -> Result<(), Failure> {
    let passed_on = common.arguments();
    let mut config = common.load(Purpose::Other)?;
    if arguments.node && !config.is_given("log.level") {
        // The lines of three nodes that start and are killed would hide what the demo prints.
        config.log.level = "warn".into();
    }
    logging::init(&config.log);
    if arguments.node {
        return run_node(config);
    }
    if !arguments.one_node {
        match run_cluster(config.clone(), passed_on) {
            Err(ClusterError::NoRedis(_)) => {}
            Err(error) => return Err(Failure::at_run_time(with_causes(&error))),
            Ok(()) => return Ok(()),
        }
    }
    let demo = demo::prepare(config, &Shared::new());
    let (config, pages, any_port) = (demo.config.clone(), demo.pages.clone(), demo.any_port);
    run_alone(config, pages, any_port, move |address| say(&demo.banner(address)))
}

/// One node in this process.
fn run_alone(
    config: Config,
    pages: Vec<Page>,
    any_port: bool,
    ready: impl FnOnce(SocketAddr) + 'static,
) -> Result<(), Failure> {
    // Its settings are its own: there is nothing to read again.
    let same = config.clone();
    launch(Launch {
        config,
        purpose: Purpose::Other,
        load: Arc::new(move || Ok(same.clone())),
        pages,
        any_port,
        ends_on_hangup: true,
        ready: Box::new(ready),
    })
}

fn run_cluster(config: Config, arguments: Vec<OsString>) -> Result<(), ClusterError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ClusterError::Process("a runtime", error))?;
    runtime.block_on(cluster::run(config, arguments, |demo, address| say(&demo.banner(address))))
}

/// A node that ends with the demo that started it.
fn run_node(config: Config) -> Result<(), Failure> {
    let mut line = String::new();
    let mut input = std::io::stdin().lock().take(MAX_SHARED);
    input.read_line(&mut line).map_err(Failure::at_run_time)?;
    let shared: Shared = serde_json::from_str(&line).map_err(Failure::at_run_time)?;
    drop(input);
    let last = shared.clone();
    std::thread::spawn(move || {
        // Nothing more is sent: this returns when the demo has ended, however it did.
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        last.stop_log();
        std::process::exit(0);
    });
    let demo = demo::prepare(config, &shared);
    run_alone(demo.config, demo.pages, false, |_| {})
}
