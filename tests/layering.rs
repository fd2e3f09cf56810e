//! The direction of dependencies (ARCHITECTURE.md): arrows point down, the pure parts stay pure, Redis stays in its rooms.
#![allow(clippy::unwrap_used)]

mod source;

use source::{Keep, is_word, rust_files, strip};
use std::fmt::Write as _;

/// Top to bottom. A part uses parts of lower layers; within a layer only what [`SIDEWAYS`] lists.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["demo"],
    &["app"],
    // Assembles the config structs that each part owns, so it is above them all, and nobody below knows it.
    &["config"],
    &["http"],
    &["transport"],
    &["client"],
    &["hub"],
    &["session", "ingest", "cluster", "backend"],
    &["auth", "rules", "presence"],
    // Refuses what no client could be sent (`check_draft`), so that it is above the protocols.
    &["log"],
    &["protocol"],
    &["metrics"],
    &["event", "draft", "order", "close", "causes", "id", "secret", "shutdown"],
];

/// Arrows within a layer.
const SIDEWAYS: &[(&str, &str)] = &[
    // An event is an accepted draft, and a draft has an event's arguments.
    ("event", "draft"),
    ("draft", "event"),
    ("event", "id"),
    // A batch has orders at their places among the events, and an order names rooms.
    ("event", "order"),
    ("order", "event"),
    ("order", "id"),
];

/// Decides without doing: no runtime and no clock, `now` is an argument. Folders end in a slash.
const SANS_IO: &[&str] = &[
    "src/auth/claims.rs",
    "src/auth/grants.rs",
    "src/auth/identity.rs",
    "src/backend/answer.rs",
    "src/backend/breaker.rs",
    "src/backend/call.rs",
    "src/close.rs",
    "src/cluster/letter.rs",
    "src/draft.rs",
    "src/event.rs",
    "src/hub/deadlines.rs",
    "src/hub/rooms.rs",
    "src/ingest/command.rs",
    "src/ingest/emitter.rs",
    "src/ingest/heard.rs",
    "src/ingest/publish.rs",
    "src/ingest/python.rs",
    "src/ingest/streams.rs",
    "src/log/recent_orders.rs",
    "src/log/window.rs",
    "src/order.rs",
    "src/presence/table.rs",
    "src/protocol/",
    "src/rules/",
    "src/log/redis/life.rs",
    "src/session/bucket.rs",
    "src/session/changes.rs",
    "src/session/inbox.rs",
    "src/session/outbox.rs",
    "src/session/parked.rs",
    "src/session/record.rs",
    "src/session/recovery.rs",
    "src/session/timers.rs",
];

const IMPURE: &[&str] = &["tokio", "Instant::now", "SystemTime::now"];

/// Where the word Redis may stand in code. Everywhere else the log is a log.
const REDIS: &[(&str, &str)] = &[
    ("src/log/redis/", "the Redis log"),
    ("src/log/config.rs", "[redis]"),
    ("src/ingest/redis", "readers of streams and emitters"),
    ("src/cluster/", "leases and commands between nodes"),
    ("src/backend/inbox.rs", "the backend's inbox is a stream"),
    ("src/config/", "[redis] and the conventional names"),
    ("src/cli/", "--redis-url, and `check` tries it"),
    ("src/demo/mod.rs", "turns [redis] off"),
    ("src/app.rs", "chooses the log"),
    ("src/metrics.rs", "roomcast_redis_*"),
    ("src/http/health.rs", "services.redis"),
];

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
            let parent = ["src/log/mod.rs", "src/ingest/mod.rs"].contains(&&*file.path);
            let declared = parent && line == "pub mod redis;";
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
    match (layer(from), layer(to)) {
        (None, _) | (_, None) => Some("not in LAYERS: give the part its place"),
        (Some(above), Some(below)) if above < below => None,
        (Some(one), Some(other)) if one == other && SIDEWAYS.contains(&(from, to)) => None,
        (Some(one), Some(other)) if one == other => Some("sideways, and not in SIDEWAYS"),
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
    assert_eq!(found("src/hub/a.rs", "use crate::http::Api;\nfn f() { crate::app::run() }"), ["http", "app"]);
    assert_eq!(found("src/hub/a.rs", "use crate::{close::X, http::{Api, self}, log};"), ["close", "http", "log"]);
    assert_eq!(found("src/hub/mod.rs", "use super::http::Api;"), ["http"]);
    assert_eq!(found("src/hub/a.rs", "use super::super::http::Api; use super::http;"), ["http"]);
    assert_eq!(
        found(
            "src/hub/a.rs",
            "mod tests { use super::super::x; use super::super::super::http; }\nuse super::super::app;"
        ),
        ["http", "app"]
    );
    assert_eq!(found("src/close.rs", "mod tests { use super::*; use super::event; }\nuse super::*;"), [""; 0]);
    let hidden = "// crate::a\n/* crate::b /* */ crate::c */ let x = \"crate::d\"; let y = r#\"crate::e \" \"#; let q = '\"'; crate::f::g; 'a: loop {}";
    assert_eq!(found("src/hub/a.rs", hidden), ["f"]);
    assert_eq!(refusal("hub", "http"), Some("upward"));
    assert_eq!(refusal("auth", "rules"), Some("sideways, and not in SIDEWAYS"));
    assert_eq!(refusal("http", "helpers"), Some("not in LAYERS: give the part its place"));
    assert_eq!((refusal("http", "hub"), refusal("event", "draft"), refusal("hub", "hub")), (None, None, None));
    assert!(has_word("use tokio::spawn;", "tokio") && !has_word("let tokio_like = my_tokio;", "tokio"));
}
