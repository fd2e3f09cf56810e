//! The documents say what the program does: configurations in them load, keys, defaults, metrics and codes are the
//! program's own, and links lead somewhere.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use roomcast::auth::Authenticator;
use roomcast::config::{Config, Environment, Flags, Purpose};
use roomcast::metrics::Metrics;
use roomcast::rules::Rules;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The code blocks of a document in one language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let open = format!("\n```{language}\n");
    let block = |rest: &str| rest.split("\n```").next().unwrap().to_owned();
    read(document).split(&open).skip(1).map(block).collect()
}

/// Every Markdown file that people write, relative to the repository.
fn documents() -> Vec<PathBuf> {
    fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            match entry.is_dir() {
                true if ["target", "node_modules", "corpus"].contains(&&*name) || name.starts_with('.') => {}
                true => collect(&entry, found),
                false if name.ends_with(".md") => found.push(entry),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(root(), &mut found);
    found
}

/// Cells of each row of a section's tables: what stands between `## [name]` and the next `## `.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("there is no section `{heading}`"));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    section.lines().filter(|line| line.starts_with("| `")).map(cells).collect()
}

/// What stands in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn load(toml: &str, environment: &[(&str, &str)], purpose: Purpose) -> Result<Config, String> {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("roomcast-documents-{}-{number}.toml", std::process::id()));
    fs::write(&file, toml).unwrap();
    let flags = Flags { config: Some(file.clone()), ..Flags::default() };
    let config = Config::load(&flags, &environment.iter().copied().collect::<Environment>(), purpose);
    fs::remove_file(&file).unwrap();
    config.map_err(|mistakes| format!("{toml}\n{mistakes:?}"))
}

#[test]
fn the_configurations_of_the_documents_are_accepted() {
    let pages = [
        "README.md",
        "docs/backend.md",
        "docs/from-socketio.md",
        "docs/guides/authorize-rooms.md",
        "docs/guides/from-centrifugo.md",
        "docs/guides/from-pusher.md",
        "docs/guides/mobile.md",
        "docs/guides/serverless.md",
        "docs/presence.md",
        "docs/redis.md",
        "docs/rules.md",
    ];
    let environment = [
        ("JWT_SECRET", "a secret of at least 32 bytes, for tests"),
        ("ROOMCAST_PUBLISH__KEYS", "a-long-random-publish-key"),
    ];
    for page in pages {
        let blocks = blocks(page, "toml");
        assert!(!blocks.is_empty(), "{page}");
        for block in blocks {
            let config = load(&block, &environment, Purpose::Serve).unwrap();
            assert_eq!(Rules::compile(&config.rooms, &config.on).err(), None, "{block}");
            assert!(Authenticator::new(&config.auth).is_ok());
        }
    }
}

#[test]
fn the_configuration_page_has_every_key_once_with_its_default() {
    let page = read("docs/configuration.md");
    let (mut documented, mut marked, mut toml) = (Vec::new(), Vec::new(), String::new());
    // `## [redis]` documents the keys of that table.
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let sections = headings.filter(|heading| *heading == "Top level" || heading.starts_with('['));
    for heading in sections {
        let section = heading.strip_prefix('[').map_or("", |rest| rest.trim_end_matches(']'));
        if !section.is_empty() {
            toml.push_str(&format!("[{section}]\n"));
        }
        for cells in rows(&page, heading) {
            assert_eq!(cells.len(), 4, "a row has key, default, range and effect: {cells:?}");
            let (key, default) = (quoted(&cells[0]).next().unwrap(), quoted(&cells[1]).next());
            match default {
                Some(default) => toml.push_str(&format!("{key} = {default}\n")),
                None => assert_eq!(cells[1], "not set", "the default of {key}"),
            }
            let name = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            marked.push((name, cells[0].contains('↻')));
            documented.push(if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") });
        }
    }
    let (mut known, mut sorted) = (roomcast::config::key_names(), documented);
    known.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(sorted, known);
    let live: BTreeMap<_, _> = roomcast::config::live_keys().into_iter().collect();
    let marked: BTreeMap<_, _> = marked.into_iter().collect();
    assert_eq!(marked, live, "a key is marked with ↻ where a reload changes it");

    // `[backend]` has defaults only where it is there.
    let with_backend = |toml: &str| toml.replace("[backend]\n", "[backend]\nurl = \"http://127.0.0.1:3000/\"\n");
    let as_documented = load(&with_backend(&toml), &[], Purpose::Other).unwrap();
    let defaults = load(&with_backend("[backend]\n"), &[], Purpose::Other).unwrap();
    assert_eq!(as_documented.effective_toml(), defaults.effective_toml());
}

#[test]
fn the_command_line_page_has_every_command() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_roomcast")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let known: BTreeSet<_> = commands
        .lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .map(str::to_owned)
        .collect();
    let page = read("docs/cli.md");
    let names = |cells: &Vec<String>| quoted(&cells[0]).next().unwrap().to_owned();
    let documented: BTreeSet<_> =
        rows(&page, "Commands").iter().map(names).filter(|name| !name.starts_with("--")).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_metrics_page_has_every_metric() {
    let page = read("docs/metrics.md");
    let documented: BTreeSet<_> = rows(&page, "Reference")
        .iter()
        .flat_map(|cells| quoted(&cells[0]).map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| name.starts_with("roomcast_"))
        .collect();
    let sources = sources();
    let known: BTreeSet<_> = sources
        .split("\"roomcast_")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .map(|name| format!("roomcast_{name}"))
        .collect();
    assert_eq!(documented, known);
    // One that is counted from the start shows that the names are what a scraper sees.
    let rendered = Metrics::new("1.2.3").unwrap().render().unwrap();
    assert!(rendered.contains("# HELP roomcast_sessions "));
}

/// The Rust sources, one after the other.
fn sources() -> String {
    fn collect(directory: &Path, all: &mut String) {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.is_dir() {
                true => collect(&entry, all),
                false if entry.extension().is_some_and(|end| end == "rs") => {
                    all.push_str(&fs::read_to_string(&entry).unwrap());
                }
                false => {}
            }
        }
    }
    let mut all = String::new();
    collect(&root().join("src"), &mut all);
    all
}

#[test]
fn the_error_codes_of_the_documents_are_in_the_source() {
    let sources = sources();
    for page in ["docs/http-api.md", "docs/rules.md", "docs/metrics.md", "docs/protocol/websocket.md"] {
        let text = read(page);
        // Rows of tables that have a code in their first cell, or a status there and the code in the second.
        let cells = text.lines().filter(|line| line.starts_with("| ")).filter_map(|line| {
            let mut cells = line.trim_matches('|').split(" | ").map(str::trim);
            let first = cells.next()?;
            let status = first.len() == 3 && first.bytes().all(|byte| byte.is_ascii_digit());
            if status { cells.next() } else { Some(first) }
        });
        let codes: Vec<&str> = cells.flat_map(quoted).filter(|code| is_code(code)).collect();
        assert!(codes.len() > 5, "{page}: {codes:?}");
        for code in codes {
            assert!(sources.contains(&format!("\"{code}\"")), "{page}: there is no `{code}` in src/");
        }
    }
}

/// `bad_room`; metrics and keys of tables have other shapes, or are not codes but names of fields.
fn is_code(text: &str) -> bool {
    let word = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    word && text.contains('_') && !text.starts_with("roomcast_") && !text.ends_with('_')
}

/// `tests/e2e/resume.test.mjs`, `src/model/`, `benches/idle.rs`.
#[test]
fn the_files_that_documents_name_are_there() {
    let mut missing = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for name in text.lines().flat_map(quoted) {
            let path =
                ["src/", "tests/", "benches/", "docs/", "fuzz/", "examples/"].iter().any(|top| name.starts_with(top));
            if path && !name.contains(['*', '{', '<', ' ']) && !root().join(name).exists() {
                missing.push(format!("{}: {name}", document.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(missing.is_empty(), "files that are not there:\n{}", missing.join("\n"));
}

/// Every test file: `config` is `tests/config.rs`, `e2e/ws` is `tests/e2e/ws.test.mjs`.
fn test_files() -> BTreeSet<String> {
    let tests = root().join("tests");
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(&tests).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_string_lossy().into_owned();
        if let Some(name) = name.strip_suffix(".rs") {
            found.insert(name.to_owned());
        }
        for file in entry.read_dir().into_iter().flatten().map(|file| file.unwrap().file_name()) {
            if let Some(file) = file.to_string_lossy().strip_suffix(".test.mjs") {
                found.insert(format!("{name}/{file}"));
            }
        }
    }
    found
}

/// The tests that the last cells of a table name.
fn named_tests(page: &str, heading: &str) -> BTreeSet<String> {
    let page = read(page);
    let section = page.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("there is no section `{heading}`"));
    let last = section.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|')?.rsplit('|').next());
    last.flat_map(quoted).map(str::to_owned).collect()
}

#[test]
fn the_index_of_tests_has_every_test_file() {
    assert_eq!(named_tests("tests/README.md", "Which test shows what"), test_files());
}

#[test]
fn the_tests_of_the_guarantees_are_there() {
    let files = test_files();
    let named = named_tests("docs/guarantees.md", "What is promised, when, and which test shows it");
    assert!(named.len() > 10, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|name| !files.contains(*name) && *name != "faults").collect();
    assert!(missing.is_empty(), "tests that are not there: {missing:?}");
}

#[test]
fn the_map_has_every_module() {
    let map = read("ARCHITECTURE.md");
    let named: BTreeSet<_> = rows(&map, "Modules, top to bottom")
        .iter()
        .map(|cells| quoted(&cells[0]).next().unwrap().trim_end_matches('/').trim_end_matches(".rs").to_owned())
        .collect();
    let modules = fs::read_dir(root().join("src")).unwrap();
    let there: BTreeSet<_> = modules.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    // `app.rs` and `app/` are one module.
    let there: BTreeSet<_> =
        there.iter().map(|name| name.trim_end_matches(".rs").to_owned()).filter(|name| name != "lib").collect();
    let named: BTreeSet<_> = named.into_iter().filter(|name| name != "src").collect();
    assert_eq!(named, there);
}

/// Comments say `docs/protocol/socketio.md section 2.6`, or `docs/http-api.md, "POST /publish"`.
#[test]
fn the_pages_and_sections_that_the_code_cites_are_there() {
    let mut wrong = Vec::new();
    for top in ["src", "tests", "benches", "fuzz/fuzz_targets"] {
        for file in code_files(&root().join(top)) {
            let text = unwrapped_comments(&fs::read_to_string(&file).unwrap());
            for at in text.match_indices("docs/").map(|(at, _)| at) {
                let of_path = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
                let end = text[at..].find(|c| !of_path(c)).map_or(text.len(), |length| at + length);
                let page = text[at..end].trim_end_matches('.');
                if !page.ends_with(".md") {
                    continue;
                }
                let cited = &text[at + page.len()..];
                if !fs::read_to_string(root().join(page)).is_ok_and(|page| has_section(&page, cited)) {
                    let cited: String = cited.chars().take(30).collect();
                    wrong.push(format!("{}: {page}{cited}", file.strip_prefix(root()).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "citations that lead nowhere:\n{}", wrong.join("\n"));
}

fn code_files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true if path.ends_with("node_modules") || path.file_name().is_some_and(|name| name == ".venv") => vec![],
            true => code_files(&path),
            false => vec![path],
        })
        .filter(|path| path.extension().is_some_and(|end| ["rs", "mjs", "lua", "py"].iter().any(|code| end == *code)))
        .filter(|path| !path.ends_with("tests/documents.rs"))
        .collect()
}

/// A comment that goes on in the next line, as one line.
fn unwrapped_comments(text: &str) -> String {
    let marks = ["//!", "///", "//", " *", "#", "--"];
    text.lines().fold(String::new(), |mut all, line| {
        let line = line.trim_start();
        match marks.iter().find_map(|mark| line.strip_prefix(mark)) {
            Some(comment) => all.push_str(&format!(" {}", comment.trim())),
            None => all.push_str(&format!("\n{line}")),
        }
        all
    })
}

/// Whether a page has what is cited behind its name; most citations are of the whole page.
fn has_section(page: &str, cited: &str) -> bool {
    let headings = || page.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    if let Some(number) = cited.strip_prefix(" section ") {
        let number: String = number.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let number = number.trim_end_matches('.');
        return headings().any(|heading| heading.split(' ').next() == Some(number));
    }
    match cited.strip_prefix(", \"").and_then(|rest| rest.split('"').next()) {
        Some(title) => headings().any(|heading| heading == title),
        None => true,
    }
}

/// The headings of a document, as the anchors that GitHub makes of them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let headings = text.lines().filter(|line| {
        code ^= line.starts_with("```");
        !code && line.starts_with('#')
    });
    let anchor = |line: &str| {
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let text = line.trim_start_matches('#').trim().to_lowercase();
        text.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut texts = BTreeMap::new();
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            let known = match anchor {
                "" => file.exists(),
                anchor => texts
                    .entry(file.clone())
                    .or_insert_with(|| fs::read_to_string(&file).map(|text| anchors(&text)).unwrap_or_default())
                    .contains(anchor),
            };
            if !known {
                broken.push(format!("{}: {target}", document.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}
