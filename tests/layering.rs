//! The direction of dependencies (ARCHITECTURE.md): arrows point down, the pure parts stay pure, Redis stays in its rooms.
#![allow(clippy::unwrap_used)]

mod source;

use source::{Keep, is_word, rust_files, strip};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Top to bottom. A module uses modules of lower layers, never its neighbors.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["demo", "dev"],
    &["app"],
    // Assembles the config structs that each module owns, so it is above them all, and nobody below knows it.
    &["config"],
    &["http", "peer_server"],
    &["transport"],
    &["peer"],
    &["handlers"],
    &["node"],
    &["shard"],
    &["explain"],
    &["session", "bridge", "backend"],
    &["presence"],
    &["cluster"],
    &["auth", "rules"],
    &["log"],
    &["protocol", "redis"],
    &["refusals", "telemetry"],
    &["backoff", "https", "logging", "metrics", "shutdown", "tls"],
    &["budget", "feed", "unix_socket"],
    &["model"],
];

/// Decides without doing: no runtime and no clock, `now` is an argument. Folders end in a slash.
const SANS_IO: &[&str] = &[
    "src/auth/claims.rs",
    "src/auth/grants.rs",
    "src/auth/identity.rs",
    "src/auth/revocations.rs",
    "src/backend/answer.rs",
    "src/backend/circuit_breaker.rs",
    "src/backend/notice_queue.rs",
    "src/backend/request.rs",
    "src/backend/source.rs",
    "src/backend/turns.rs",
    "src/bridge/command.rs",
    "src/bridge/copy_tracker.rs",
    "src/bridge/emitter.rs",
    "src/bridge/python.rs",
    "src/bridge/request.rs",
    "src/bridge/streams.rs",
    "src/budget/",
    "src/cluster/membership.rs",
    "src/cluster/rpc/inspection.rs",
    "src/cluster/rpc/message.rs",
    "src/cluster/rpc/signer.rs",
    "src/cluster/id_keys.rs",
    "src/explain/",
    "src/feed/merger.rs",
    "src/feed/pace.rs",
    "src/log/backfill.rs",
    "src/log/backfill/",
    "src/log/interest.rs",
    "src/log/interest/",
    "src/log/recent_commands.rs",
    "src/log/recent_events.rs",
    "src/log/recent_events/",
    "src/log/redis/generation.rs",
    "src/log/redis/stream_size.rs",
    "src/log/window.rs",
    "src/log/window/",
    "src/model/address.rs",
    "src/model/args.rs",
    "src/model/close.rs",
    "src/model/command.rs",
    "src/model/draft.rs",
    "src/model/event.rs",
    "src/model/happening.rs",
    "src/model/http_url.rs",
    "src/model/millis.rs",
    "src/model/names.rs",
    "src/model/namespaces.rs",
    "src/model/network.rs",
    "src/model/offset.rs",
    "src/model/partition.rs",
    "src/model/place.rs",
    "src/model/provenance.rs",
    "src/model/refusal.rs",
    "src/model/session_note.rs",
    "src/model/trace_context.rs",
    "src/model/transport.rs",
    "src/node/admin_ui/access.rs",
    "src/node/admin_ui/look.rs",
    "src/presence/tracker.rs",
    "src/protocol/",
    "src/redis/resp.rs",
    "src/redis/resp/",
    "src/rules/",
    "src/session/bucket.rs",
    "src/session/changes.rs",
    "src/session/backpressure.rs",
    "src/session/lines.rs",
    "src/session/frame.rs",
    "src/session/outbox.rs",
    "src/session/outbox/",
    "src/session/pace.rs",
    "src/session/parked.rs",
    "src/session/parked_sessions.rs",
    "src/session/pending_packets.rs",
    "src/session/record.rs",
    "src/session/record_parts.rs",
    "src/session/recovery.rs",
    "src/session/replay.rs",
    "src/session/replay/",
    "src/session/session_list.rs",
    "src/session/timers.rs",
    "src/session/unfinished.rs",
    "src/session/unproven.rs",
    "src/shard/deadlines.rs",
    "src/shard/last_refusals.rs",
    "src/shard/rooms.rs",
    "src/telemetry/otlp.rs",
    "src/telemetry/protobuf.rs",
    "src/telemetry/span_data.rs",
    "src/tls/config.rs",
    "src/tls/session.rs",
    "src/tls/validity.rs",
];

const IMPURE: &[&str] = &["tokio", "Instant::now", "SystemTime::now"];

/// Where the word Redis may stand in code. Everywhere else the log is a log.
const REDIS: &[(&str, &str)] = &[
    ("src/redis/", "the client"),
    ("src/log/redis/", "the Redis log"),
    ("src/bridge/redis", "readers of streams and emitters"),
    ("src/cluster/", "sessions and messages between nodes"),
    ("src/presence/redis", "the cluster's presence"),
    ("src/backend/stream.rs", "the backend's stream"),
    ("src/config/", "[redis] and the conventional names"),
    ("src/cli/", "--redis-url, and `check` tries it"),
    ("src/demo/", "starts a Redis of its own"),
    ("src/dev/mod.rs", "says whether [redis] is set"),
    ("src/app", "chooses the log"),
    ("src/metrics/log.rs", "roomcast_redis_*"),
    ("src/http/health.rs", "services.redis"),
];

/// Upward arrows that are still there. The list only shrinks.
const KNOWN_UPWARD: &[(&str, &str)] = &[];

/// Files that are still in a circle of imports. The list only shrinks.
const KNOWN_CIRCLES: &[&str] = &[];

#[test]
fn arrows_point_down() {
    let files = rust_files("src");
    let mut wrong = String::new();
    for file in &files {
        let Some(from) = part_of(&file.path) else { continue };
        for arrow in arrows(&file.path, &file.text) {
            if let Some(why) = refusal(from, &arrow.to) {
                writeln!(wrong, "{}:{}: {from} -> {}: {why}", file.path, arrow.line, arrow.to).unwrap();
            }
        }
    }
    assert!(files.len() > 50, "only {} files were read", files.len());
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn files_import_each_other_in_no_circle() {
    let files: BTreeMap<String, String> =
        rust_files("src").into_iter().map(|file| (module_of(&file.path), file.text)).collect();
    let imports: BTreeMap<&str, BTreeSet<&str>> = files
        .iter()
        .filter(|(module, _)| !module.contains("tests") && !module.is_empty())
        .map(|(module, text)| (&**module, imports(module, text, &files)))
        .collect();
    let path = |module: &str| {
        let file = format!("src/{}.rs", module.replace("::", "/"));
        if std::path::Path::new(&file).exists() { file } else { file.replace(".rs", "/mod.rs") }
    };
    let in_circle: BTreeSet<String> =
        imports.keys().filter(|module| reaches_itself(&imports, module)).map(|module| path(module)).collect();
    let known: BTreeSet<String> = KNOWN_CIRCLES.iter().map(|&file| file.to_owned()).collect();
    let new: Vec<_> = in_circle.difference(&known).collect();
    assert!(new.is_empty(), "in a circle of imports: {new:#?}");
    let opened: Vec<_> = known.difference(&in_circle).collect();
    assert!(opened.is_empty(), "no longer in a circle, take them out of KNOWN_CIRCLES: {opened:#?}");
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > 300, "the imports are not found");
}

/// `log::redis::tail` of `src/log/redis/tail.rs`; empty for the crate's root.
fn module_of(path: &str) -> String {
    let inside = path.strip_prefix("src/").unwrap().trim_end_matches(".rs");
    match inside {
        "lib" | "main" => String::new(),
        inside => inside.trim_end_matches("/mod").replace('/', "::"),
    }
}

/// The modules that a file's `crate::` and `super::` paths name, without those of its inline tests.
fn imports<'a>(module: &str, text: &str, files: &'a BTreeMap<String, String>) -> BTreeSet<&'a str> {
    let code = strip(text, Keep::Code);
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let tokens = tokens(code);
    let own: Vec<&str> = module.split("::").collect();
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_path = tokens.get(at + 1).is_some_and(|token| token.text == "::");
        let inside = at > 0 && tokens[at - 1].text == "::";
        let base = match tokens[at].text {
            "crate" if is_path => Vec::new(),
            "super" if is_path && !inside => own[..own.len() - 1].to_vec(),
            _ => {
                at += 1;
                continue;
            }
        };
        at += 2;
        let mut paths = Vec::new();
        leaves(&tokens, &mut at, base, &mut paths);
        for path in paths {
            let known = (1..=path.len()).rev().find_map(|end| files.get_key_value(&path[..end].join("::")));
            found.extend(known.map(|(name, _)| &**name).filter(|name| *name != module));
        }
    }
    found
}

/// All paths of a use tree or a plain path, from the token at `at`.
fn leaves<'t>(tokens: &[Token<'t>], at: &mut usize, mut path: Vec<&'t str>, paths: &mut Vec<Vec<&'t str>>) {
    while let Some(token) = tokens.get(*at) {
        match token.text {
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    let before = *at;
                    leaves(tokens, at, path.clone(), paths);
                    *at += usize::from(*at == before || tokens.get(*at).is_some_and(|token| token.text == ","));
                }
                *at += 1;
                return;
            }
            "super" => drop(path.pop()),
            name => path.push(name),
        }
        *at += 1;
        match tokens.get(*at).map(|token| token.text) {
            Some("::") => *at += 1,
            Some("as") => {
                *at += 2;
                break;
            }
            _ => break,
        }
    }
    paths.push(path);
}

fn reaches_itself(imports: &BTreeMap<&str, BTreeSet<&str>>, start: &str) -> bool {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![start]);
    while let Some(module) = waiting.pop() {
        for next in imports.get(module).into_iter().flatten() {
            if *next == start {
                return true;
            }
            if seen.insert(*next) {
                waiting.push(next);
            }
        }
    }
    false
}

#[test]
fn pure_parts_have_no_runtime_and_no_clock() {
    let files = rust_files("src");
    let mut wrong = String::new();
    for place in SANS_IO {
        let mut found = files.iter().filter(|file| is_at(&file.path, place)).peekable();
        assert!(found.peek().is_some(), "{place} is listed here and does not exist");
        for file in found {
            for (number, line) in strip(&file.text, Keep::Code).lines().enumerate() {
                for word in IMPURE.iter().filter(|word| has_word(line, word)) {
                    writeln!(wrong, "{}:{}: {word}", file.path, number + 1).unwrap();
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn redis_stays_in_its_rooms() {
    let mut wrong = String::new();
    for file in rust_files("src") {
        if REDIS.iter().any(|(place, _)| file.path.starts_with(place)) {
            continue;
        }
        for (number, line) in strip(&file.text, Keep::CodeAndStrings).lines().enumerate() {
            // Its module has to be declared by its parent.
            let parents = ["src/lib.rs", "src/log/mod.rs", "src/bridge/mod.rs", "src/presence/mod.rs"];
            let declared = parents.contains(&&*file.path) && line == "pub mod redis;";
            if line.to_lowercase().contains("redis") && !declared {
                writeln!(wrong, "{}:{}: {}", file.path, number + 1, line.trim()).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

fn is_at(path: &str, place: &str) -> bool {
    match place.ends_with('/') {
        // `protocol/json.rs` has its tests in `protocol/json/`: the folder holds both.
        true => path.starts_with(place),
        false => path == place,
    }
}

/// `tokio` in `tokio::spawn`, not in `tokio_like`.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

/// The part that a file belongs to; none for the crate's root, which only declares parts.
fn part_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/").unwrap();
    let part = inside.split('/').next().unwrap();
    (part != "lib.rs").then(|| part.strip_suffix(".rs").unwrap_or(part))
}

fn layer(part: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&part))
}

/// Why `from` may not use `to`.
fn refusal(from: &str, to: &str) -> Option<&'static str> {
    if from == to {
        return None;
    }
    if KNOWN_UPWARD.contains(&(from, to)) {
        return None;
    }
    match (layer(from), layer(to)) {
        (None, _) | (_, None) => Some("not in LAYERS: give the module its place"),
        (Some(above), Some(below)) if above < below => None,
        (Some(one), Some(other)) if one == other => Some("sideways"),
        _ => Some("upward"),
    }
}

/// A use of another part.
#[derive(Debug, PartialEq)]
struct Arrow {
    to: String,
    line: usize,
}

/// Every path that starts at the crate's root: `crate::x`, `crate::{x, y}`, and `super::x` that gets there.
fn arrows(path: &str, text: &str) -> Vec<Arrow> {
    let code = strip(text, Keep::Code);
    let tokens = tokens(&code);
    let depth = module_depth(path);
    let mut arrows = Vec::new();
    // Braces that are open, and at which of them an inline module began.
    let (mut braces, mut inline) = (0, Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let word = |offset: usize| tokens.get(at + offset).map_or("", |token| token.text);
        match word(0) {
            "{" => braces += 1,
            "}" => {
                braces -= 1;
                inline.pop_if(|opened| *opened == braces);
            }
            "mod" if word(2) == "{" => inline.push(braces),
            "crate" if word(1) == "::" => heads(&tokens[at + 2..], &mut arrows),
            "super" => {
                let supers = tokens[at..].chunks(2).take_while(|pair| pair[0].text == "super").count();
                if supers == depth + inline.len() {
                    heads(&tokens[at + 2 * supers..], &mut arrows);
                }
                at += 2 * supers - 1;
            }
            _ => {}
        }
        at += 1;
    }
    arrows
}

/// The first names of a path's rest: one, or those of a group.
fn heads(rest: &[Token<'_>], arrows: &mut Vec<Arrow>) {
    let mut open = 0;
    let mut starts = true;
    for token in rest {
        match token.text {
            "{" => open += 1,
            "}" => open -= 1,
            "," if open == 1 => starts = true,
            // `super::*` in a file's own tests, `pub(crate)`, a macro or a type of the root: not a part.
            name if starts && name.starts_with(|c: char| c.is_lowercase()) => {
                arrows.push(Arrow { to: name.to_owned(), line: token.line });
                starts = false;
            }
            _ => starts = false,
        }
        if open == 0 {
            return;
        }
    }
}

/// How many `super` lead from a file's top to the crate's root.
fn module_depth(path: &str) -> usize {
    let inside = path.strip_prefix("src/").unwrap().trim_end_matches(".rs");
    match inside {
        "lib" | "main" => 0,
        _ => inside.trim_end_matches("/mod").split('/').count(),
    }
}

struct Token<'a> {
    text: &'a str,
    line: usize,
}

/// Words, `::` and single characters.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(c) = rest.chars().next() {
            let length = match c {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                _ if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            tokens.push(Token { text: &rest[..length], line: number + 1 });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

#[test]
fn upward_arrows_are_found_however_they_are_written() {
    let found = |path: &str, text: &str| arrows(path, text).into_iter().map(|arrow| arrow.to).collect::<Vec<_>>();
    assert_eq!(found("src/node/a.rs", "use crate::http::Api;\nfn f() { crate::app::run() }"), ["http", "app"]);
    assert_eq!(found("src/node/a.rs", "use crate::{close::X, http::{Api, self}, log};"), ["close", "http", "log"]);
    assert_eq!(found("src/node/mod.rs", "use super::http::Api;"), ["http"]);
    assert_eq!(found("src/node/a.rs", "use super::super::http::Api; use super::http;"), ["http"]);
    assert_eq!(
        found(
            "src/node/a.rs",
            "mod tests { use super::super::x; use super::super::super::http; }\nuse super::super::app;"
        ),
        ["http", "app"]
    );
    assert_eq!(found("src/close.rs", "mod tests { use super::*; use super::event; }\nuse super::*;"), [""; 0]);
    let hidden = "// crate::a\n/* crate::b /* */ crate::c */ let x = \"crate::d\"; let y = r#\"crate::e \" \"#; let q = '\"'; crate::f::g; 'a: loop {}";
    assert_eq!(found("src/node/a.rs", hidden), ["f"]);
    assert_eq!(refusal("node", "http"), Some("upward"));
    assert_eq!(refusal("auth", "rules"), Some("sideways"));
    assert_eq!(refusal("http", "helpers"), Some("not in LAYERS: give the module its place"));
    assert_eq!((refusal("http", "node"), refusal("app", "node"), refusal("node", "node")), (None, None, None));
    assert!(has_word("use tokio::spawn;", "tokio") && !has_word("let tokio_like = my_tokio;", "tokio"));
}
