//! `roomcast serve`.

use crate::app::{AppError, Launch};
use crate::cli::{Common, Failure};
use crate::config::Purpose;
use crate::logging;
use crate::model::error_chain::with_causes;

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let config = common.load(Purpose::Serve)?;
    logging::init(&config.log);
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    launch(Launch { config, pages: Vec::new(), any_port: false, ready: Box::new(|_| {}) })
}

/// Runs a node until it stops.
pub(super) fn launch(launch: Launch) -> Result<(), Failure> {
    crate::app::run(launch).map_err(|error| match error {
        AppError::Setup(_) => Failure::configuration(error),
        AppError::Bind(..) | AppError::System(..) | AppError::TaskEnded(_) => Failure::at_run_time(with_causes(&error)),
    })
}
