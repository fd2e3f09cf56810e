//! `roomcast health`.

use crate::cli::http::{Question, ask, base_url};
use crate::cli::{Common, Failure, block_on, say};
use crate::config::Purpose;
use hyper::StatusCode;

#[derive(clap::Args)]
pub(super) struct Arguments {
    /// The node [default: where the configuration listens]
    #[arg(long, value_parser = base_url)]
    url: Option<String>,
}

pub(super) fn run(common: Common, arguments: Arguments) -> Result<(), Failure> {
    let url = match arguments.url {
        Some(url) => url,
        None => {
            let config = common.load(Purpose::Other)?;
            // `listen` closes connections without the proxy's header.
            if config.http.proxy_protocol { config.admin_url() } else { config.client_url() }
        }
    };
    match block_on(ask(Question { url: format!("{url}/health"), key: None, body: None }))? {
        Ok((StatusCode::OK, body)) => {
            say(body.trim_end());
            Ok(())
        }
        Ok((status, body)) => Err(Failure::at_run_time(format!("not ready ({status}): {}", body.trim_end()))),
        Err(why) => Err(Failure::at_run_time(why)),
    }
}
