//! `roomcast dev`.

use crate::app::Launch;
use crate::cli::serve::launch;
use crate::cli::{Common, Failure, say, warn};
use crate::config::{Config, Environment, Purpose};
use crate::dev::narrator::Narrator;
use crate::{dev, logging, refusals};
use std::path::Path;

/// Read from the configuration's folder, as `roomcast init` writes it.
const ENV_FILE: &str = ".env";

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let environment = environment(common.config.as_deref())?;
    let mut config =
        Config::load(&common.flags(), &environment, Purpose::Other).map_err(|mistakes| Failure::mistakes(&mistakes))?;
    for warning in config.warnings() {
        warn(&format!("warning: {warning}"));
    }
    if !config.is_given("log.level") {
        // The narrator explains refusals; what else matters is a warning or an error.
        config.log.level = "warn,roomcast::refusals=off".into();
    }
    logging::init(&config.log);
    let narrator = Narrator::default();
    refusals::listen(Box::new(move |reason, who, why| {
        if let Some(line) = narrator.tell(reason, who, why) {
            warn(&line);
        }
    }));
    let dev = dev::prepare(config);
    let (config, any_port) = (dev.config.clone(), dev.any_port);
    launch(Launch { config, pages: Vec::new(), any_port, ready: Box::new(move |address| say(&dev.banner(address))) })
}

/// The variables of the process, which win, and those of the `.env` beside the configuration file.
fn environment(config: Option<&Path>) -> Result<Environment, Failure> {
    let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
    let file = folder.join(ENV_FILE);
    let failed = |error: dotenvy::Error| Failure::configuration(format!("{}: {error}", file.display()));
    let variables = match dotenvy::from_path_iter(&file) {
        Ok(variables) => variables.collect::<Result<Vec<_>, _>>().map_err(failed)?,
        Err(error) if error.not_found() => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    // `PORT` there is usually the backend's.
    Ok(Environment::of_process().or(variables.into_iter().filter(|(name, _)| name != "PORT")))
}
