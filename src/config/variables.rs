//! The settings in environment variables: `ROOMCAST_*`, and the conventional names that other software reads too.

use crate::config::address::{redis_host, redis_url_of_parts, with_redis_database};
use crate::config::candidate::{Candidate, Rank};
use crate::config::environment::Environment;
use crate::config::keys::{KEYS, find};
use crate::config::kind::{Kind, Switch, count};
use crate::config::mistake::{Faults, did_you_mean};
use crate::config::node::{Node, Value, collect};
use percent_encoding::percent_decode_str;

/// Names with the prefix that are not keys: which file is read, and where a backend finds roomcast, since both may share
/// one `.env`.
const OTHER_NAMES: [&str; 2] = ["ROOMCAST_CONFIG", "ROOMCAST_URL"];

/// All `ROOMCAST_*` variables. One that is not a key is a mistake.
pub(super) fn own_names(environment: &Environment, faults: &mut Faults) -> Vec<Candidate> {
    let names: Vec<_> = KEYS.iter().map(|key| key.environment_name()).collect();
    let mut candidates = Vec::new();
    for (name, value) in environment.own() {
        let Some(node) = environment.node(name) else { continue };
        if let Some(at) = names.iter().position(|known| known == name) {
            candidates.push(Candidate::of(Rank::Environment, &KEYS[at], node));
        } else if !OTHER_NAMES.contains(&name) && !is_service_link(name, value.unwrap_or_default()) {
            let hint = did_you_mean(name, names.iter().map(String::as_str));
            faults.extend(node.fault(format!("no key of roomcast has this name{hint}")));
        }
    }
    candidates
}

/// Kubernetes and old Docker links set the addresses of a service called `roomcast` or `roomcast-x` in every container:
/// `ROOMCAST_SERVICE_HOST`, `ROOMCAST_PORT=tcp://10.0.0.1:80`, `ROOMCAST_PORT_80_TCP_ADDR` …
fn is_service_link(name: &str, value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let part = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let protocol = ["_TCP", "_UDP", "_SCTP"].iter().find_map(|end| part.strip_suffix(end));
    let port = protocol.and_then(|name| name.rsplit_once("_PORT_"));
    !name.contains("__")
        && (name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || (name.ends_with("_PORT") && address)
            || port.is_some_and(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit())))
}

/// The conventional names, which rank above the file and below `ROOMCAST_*`.
pub(super) fn conventional_names(environment: &Environment) -> Vec<Candidate> {
    let candidate =
        |slot: (&str, &str), node: Node| find(slot.0, slot.1).map(|key| Candidate::of(Rank::Conventional, key, node));
    let mut candidates = Vec::new();
    candidates.extend(environment.node("PORT").map(|node| Candidate {
        read: |config, node| {
            config.listen.listen.set_port(count(0..=65_535).read(node)?);
            Ok(())
        },
        ..Candidate::of(Rank::Conventional, &KEYS[0], node)
    }));
    candidates.extend(environment.node("JWT_SECRET").and_then(|node| candidate(("auth", "secret"), node)));
    candidates.extend(origins(environment).and_then(|node| candidate(("cors", "origins"), node)));
    for (name, key) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otlp_endpoint"),
        ("OTEL_SERVICE_NAME", "service_name"),
        ("OTEL_TRACES_SAMPLER_ARG", "traces_sample_ratio"),
    ] {
        candidates.extend(environment.node(name).and_then(|node| candidate(("telemetry", key), node)));
    }
    candidates.extend(otlp_headers(environment).and_then(|node| candidate(("telemetry", "headers"), node)));
    match (environment.node("REDIS_URL"), environment.node("REDIS_HOST")) {
        (Some(url), _) => candidates.extend(candidate(("redis", "url"), url).map(|mut candidate| {
            candidate.prepared = redis_url_and_database(environment, &candidate.node);
            candidate
        })),
        (None, Some(host)) => candidates.extend(candidate(("redis", "url"), host).map(|mut candidate| {
            candidate.prepared = Some(redis_parts(environment, &candidate.node));
            candidate
        })),
        (None, None) => {}
    }
    candidates
}

/// `OTEL_EXPORTER_OTLP_HEADERS`: `name=value` separated by commas, percent-encoded as W3C Baggage.
fn otlp_headers(environment: &Environment) -> Option<Node> {
    let node = environment.node("OTEL_EXPORTER_OTLP_HEADERS")?;
    let items = node.items("a comma list of name=value").ok()?;
    let decoded = items.into_iter().map(|item| match &item.value {
        Value::Plain(text) => {
            let text = percent_decode_str(text).decode_utf8_lossy().into_owned();
            Node { value: Value::Text(text), ..item }
        }
        _ => item,
    });
    Some(Node { value: Value::List(decoded.collect()), place: node.place.clone() })
}

/// `FRONTEND_URL` and `SOCKET_CORS_ORIGIN` together.
fn origins(environment: &Environment) -> Option<Node> {
    let both: Vec<_> =
        ["FRONTEND_URL", "SOCKET_CORS_ORIGIN"].iter().filter_map(|name| environment.node(name)).collect();
    let place = both.first()?.place.clone();
    let items =
        both.iter().flat_map(|node| node.items("a comma list of origins").unwrap_or_else(|_| vec![node.clone()]));
    Some(Node { value: Value::List(items.collect()), place })
}

/// `REDIS_URL` with the database of `REDIS_DB`, if it has none itself.
fn redis_url_and_database(environment: &Environment, url: &Node) -> Option<Result<Node, Faults>> {
    environment.node("REDIS_DB")?;
    let Value::Plain(text) = &url.value else { return None };
    let value = |database| Value::Plain(with_redis_database(text.trim(), database));
    Some(redis_database(environment).map(|database| Node { place: url.place.clone(), value: value(database) }))
}

/// `REDIS_DB`, or 0.
fn redis_database(environment: &Environment) -> Result<u32, Faults> {
    environment.node("REDIS_DB").map_or(Ok(0), |node| count(0..=1_000_000).read(&node))
}

/// The URL that `REDIS_HOST` and its companions make.
fn redis_parts(environment: &Environment, host: &Node) -> Result<Node, Faults> {
    let part =
        |name: &str| environment.node(name).map_or(Ok(String::new()), |node| node.text("text").map(str::to_owned));
    let port = environment.node("REDIS_PORT").map_or(Ok(6379), |node| match &node.value {
        // A Kubernetes service called `redis` puts tcp://10.0.0.1:6379 there.
        Value::Plain(text) if text.starts_with("tcp://") => {
            let port = text.rsplit_once(':').map_or("", |(_, port)| port).to_owned();
            count(1..=65_535).read(&Node { value: Value::Plain(port), ..node })
        }
        _ => count(1..=65_535).read(&node),
    });
    let tls = environment.node("REDIS_TLS").map_or(Ok(false), |node| Switch.read(&node));
    let database = redis_database(environment);
    let name =
        host.text("a host").and_then(|text| redis_host(text).map(|()| text.to_owned()).map_err(|why| host.fault(why)));
    let texts = collect([name, part("REDIS_USERNAME"), part("REDIS_PASSWORD")].into_iter());
    match (port, tls, database, texts) {
        (Ok(port), Ok(tls), Ok(database), Ok(texts)) => {
            let url = redis_url_of_parts(texts[0].trim(), port, &texts[1], &texts[2], tls, database);
            Ok(Node { place: host.place.clone(), value: Value::Text(url) })
        }
        (port, tls, database, texts) => {
            let faults = [port.err(), tls.err(), database.err(), texts.err()];
            Err(faults.into_iter().flatten().flatten().collect())
        }
    }
}

/// `REDIS_PASSWORD` and the like without an address: a mistake, because the node would start with its embedded log.
/// `REDIS_PORT` alone may come from Kubernetes and does not count.
pub(super) fn redis_parts_without_host(environment: &Environment) -> Faults {
    let parts = ["REDIS_USERNAME", "REDIS_PASSWORD", "REDIS_TLS", "REDIS_DB"];
    let nodes = parts.iter().filter_map(|name| environment.node(name));
    nodes.flat_map(|node| node.fault("needs REDIS_HOST (or use REDIS_URL); without it, Redis is not used")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_kubernetes_are_not_mistakes() {
        for (name, value) in [
            ("ROOMCAST_SERVICE_HOST", "10.0.0.1"),
            ("ROOMCAST_SERVICE_PORT", "80"),
            ("ROOMCAST_SERVICE_PORT_HTTP", "80"),
            ("ROOMCAST_PORT", "tcp://10.0.0.1:80"),
            ("ROOMCAST_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("ROOMCAST_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("ROOMCAST_WS_PORT_80_TCP_PORT", "80"),
        ] {
            assert!(is_service_link(name, value), "{name}");
        }
        for (name, value) in [("ROOMCAST_PORT", "80"), ("ROOMCAST_REDIS__SERVICE_HOST", "x"), ("ROOMCAST_LISTEM", "x")]
        {
            assert!(!is_service_link(name, value), "{name}");
        }
    }
}
