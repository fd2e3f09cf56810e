//! `roomcast dev`.

use crate::app::Launch;
use crate::cli::serve::launch;
use crate::cli::{Common, Failure, say, warn};
use crate::config::{Config, Environment, Flags, Mistake, Purpose};
use crate::dev::ThrowAway;
use crate::dev::narrator::Narrator;
use crate::{dev, logging, refusals};
use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;

/// Read from the configuration's folder, as `roomcast init` writes it.
const ENV_FILE: &str = ".env";

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let flags = common.flags();
    let config = load(&flags).map_err(|mistakes| Failure::mistakes(&mistakes))?;
    for warning in config.warnings() {
        warn(&format!("warning: {warning}"));
    }
    logging::init(&config.log);
    let narrator = Narrator::default();
    refusals::listen(Box::new(move |reason, who, why| {
        if let Some(line) = narrator.tell(reason, who, why) {
            warn(&line);
        }
    }));
    let throw_away = ThrowAway::random();
    let dev = dev::prepare(config, &throw_away);
    launch(Launch {
        config: dev.config.clone(),
        purpose: Purpose::Other,
        load: Arc::new(move || load(&flags).map(|config| dev::prepare(config, &throw_away).config)),
        pages: Vec::new(),
        any_port: dev.any_port,
        ends_on_hangup: std::io::stdin().is_terminal(),
        ready: Box::new(move |address| say(&dev.banner(address))),
    })
}

fn load(flags: &Flags) -> Result<Config, Vec<Mistake>> {
    let mut config = Config::load(flags, &environment(flags.config.as_deref())?, Purpose::Other)?;
    if !config.is_given("log.level") {
        // The narrator explains refusals; what else matters is a warning or an error.
        config.log.level = "warn,roomcast::refusals=off".into();
    }
    Ok(config)
}

/// The variables of the process, which win, and those of the `.env` beside the configuration file.
fn environment(config: Option<&Path>) -> Result<Environment, Vec<Mistake>> {
    let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
    let file = folder.join(ENV_FILE);
    let failed =
        |error: dotenvy::Error| vec![Mistake { place: file.display().to_string(), message: error.to_string() }];
    let variables = match dotenvy::from_path_iter(&file) {
        Ok(variables) => variables.collect::<Result<Vec<_>, _>>().map_err(failed)?,
        Err(error) if error.not_found() => Vec::new(),
        Err(error) => return Err(failed(error)),
    };
    // `PORT` there is usually the backend's.
    Ok(Environment::of_process().or(variables.into_iter().filter(|(name, _)| name != "PORT")))
}
