//! `roomcast demo`.

use crate::app::Launch;
use crate::cli::serve::launch;
use crate::cli::{Common, Failure, say};
use crate::config::Purpose;
use crate::demo;
use crate::logging;
use std::sync::Arc;

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let config = common.load(Purpose::Other)?;
    logging::init(&config.log);
    let demo = demo::prepare(config);
    let (config, pages, any_port) = (demo.config.clone(), demo.pages.clone(), demo.any_port);
    // Its settings are its own: there is nothing to read again.
    let same = config.clone();
    launch(Launch {
        config,
        purpose: Purpose::Other,
        load: Arc::new(move || Ok(same.clone())),
        pages,
        any_port,
        ready: Box::new(move |address| say(&demo.banner(address))),
    })
}
