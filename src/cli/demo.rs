//! `roomcast demo`.

use super::serve::launch;
use super::{Common, Failure, say};
use crate::app::Launch;
use crate::auth::claims::insert;
use crate::config::{Purpose, logging, url_of};
use crate::id::Id;
use crate::secret::Secret;
use serde_json::Map;

pub(super) fn run(common: Common) -> Result<(), Failure> {
    let mut config = common.load(Purpose::Other)?;
    logging::init(&config.log);
    config.redis.url = None;
    config.auth.secret = Some(Secret::new(format!("{}{}", Id::random(), Id::random())));
    config.auth.algorithms = vec!["HS256".into()];
    let key = Id::random().to_string();
    config.publish.keys = vec![Secret::new(key.as_str())];
    let mut claims = Map::new();
    insert(&mut claims, &config.auth.user_claim, "demo".into());
    claims.insert("exp".into(), (super::token::unix_seconds() + 24 * 3600).into());
    let token = crate::auth::sign(&config.auth, &claims).map_err(Failure::at_run_time)?;
    let ready = move |address| {
        let url = url_of(address);
        say(&format!("{url}\n\ntoken: {token}\n"));
        say(&format!(
            "curl {url}/publish -H 'Authorization: Bearer {key}' -d '{{\"room\":\"user:demo\",\"event\":\"hello\",\"data\":1}}'"
        ));
    };
    launch(Launch { config, pages: Vec::new(), any_port: true, ready: Box::new(ready) })
}
