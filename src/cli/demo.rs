//! `roomcast demo`.

use crate::app::Launch;
use crate::cli::serve::launch;
use crate::cli::{Common, Failure, say};
use crate::config::Purpose;
use crate::demo;
use crate::logging;

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let config = common.load(Purpose::Other)?;
    logging::init(&config.log);
    let demo = demo::prepare(config);
    let (config, pages, any_port) = (demo.config.clone(), demo.pages.clone(), demo.any_port);
    launch(Launch { config, pages, any_port, ready: Box::new(move |address| say(&demo.banner(address))) })
}
