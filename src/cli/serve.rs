//! `roomcast serve`.

use crate::app::{AppError, Launch};
use crate::cli::{Common, Failure};
use crate::config::{Config, Environment, Purpose};
use crate::logging;
use crate::model::error_chain::with_causes;
use std::sync::Arc;

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let (flags, environment) = (common.flags(), Environment::of_process());
    let load = move || Config::load(&flags, &environment, Purpose::Serve);
    let config = load().map_err(|mistakes| Failure::mistakes(&mistakes))?;
    logging::init(&config.log);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    launch(Launch {
        config,
        purpose: Purpose::Serve,
        load: Arc::new(load),
        pages: Vec::new(),
        any_port: false,
        ends_on_hangup: false,
        ready: Box::new(|_| {}),
    })
}

/// Runs a node until it stops.
pub(super) fn launch(launch: Launch) -> Result<(), Failure> {
    crate::app::run(launch).map_err(|error| match error {
        AppError::Setup(_) => Failure::configuration(error),
        AppError::Bind(..) | AppError::System(..) | AppError::TaskEnded(_) => Failure::at_run_time(with_causes(&error)),
    })
}
