//! Source rules that no lint checks.
#![allow(clippy::unwrap_used)]

mod source;

use source::{Keep, Source, files, rust_files, strip};
use std::fmt::Write as _;

/// Lines of a file, its tests included.
const MAX_LINES: usize = 600;
/// File names that do not say what is inside.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "manager", "misc", "common_utils"];
/// A pause is part of a wait if this many lines above it contain a loop and a deadline.
const LOOK_BACK: usize = 14;

#[test]
fn files_are_short_and_named_for_what_they_do() {
    let mut wrong = String::new();
    for file in rust_files("src") {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            writeln!(wrong, "{}: {lines} lines, at most {MAX_LINES}", file.path).unwrap();
        }
        let names = file.path.trim_end_matches(".rs").split('/');
        if let Some(name) = names.into_iter().find(|name| EMPTY_NAMES.contains(name)) {
            writeln!(wrong, "{}: `{name}` does not say what is inside", file.path).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Shared by several test binaries that each use a part, so the compiler's warning means nothing there.
const SHARED_BY_TESTS: &str = "tests/common/";

#[test]
fn dead_code_is_not_allowed() {
    let mut wrong = String::new();
    let tests = rust_files("tests").into_iter().filter(|file| !file.path.starts_with(SHARED_BY_TESTS));
    for file in rust_files("src").into_iter().chain(tests) {
        for (number, line) in strip(&file.text, Keep::CodeAndStrings).lines().enumerate() {
            let line = line.split('"').next().unwrap_or_default();
            if line.contains("allow(") && ["dead_code", "unused"].iter().any(|lint| line.contains(lint)) {
                writeln!(wrong, "{}:{}: {}", file.path, number + 1, line.trim()).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn tests_are_not_ignored_and_wait_for_conditions() {
    let mut wrong = String::new();
    for file in rust_files("src").into_iter().chain(rust_files("tests")) {
        for (line, what) in bad_waits(&file) {
            writeln!(wrong, "{}:{line}: {what}", file.path).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Ignored tests, and pauses that are not part of a loop with a deadline.
fn bad_waits(file: &Source) -> Vec<(usize, &'static str)> {
    let code = strip(&file.text, Keep::Code);
    let lines: Vec<_> = code.lines().collect();
    let is_test_file = file.path.starts_with("tests/") || file.path.contains("/tests");
    let inline_tests = lines.iter().position(|line| line.contains("#[cfg(test)]"));
    let Some(first) = (if is_test_file { Some(0) } else { inline_tests }) else { return Vec::new() };
    let mut wrong = Vec::new();
    for (at, line) in lines.iter().enumerate().skip(first) {
        if line.contains("#[ignore") {
            wrong.push((at + 1, "an ignored test shows nothing"));
        }
        let above = &lines[at.saturating_sub(LOOK_BACK)..at];
        let loops = above.iter().any(|line| ["while ", "loop {", "for "].iter().any(|word| line.contains(word)));
        let watches = above.iter().any(|line| {
            let line = line.to_lowercase();
            line.contains("deadline") || line.contains("elapsed")
        });
        if line.contains("sleep(") && !(loops && watches) {
            wrong.push((at + 1, "wait for the condition, in a loop with a deadline"));
        }
    }
    wrong
}

/// Words that this project replaced, and what it says instead. They match whole words, also as parts of identifiers:
/// `told` matches `told`, `is_told` and `ToldUsers`.
const REPLACED: &[(&str, &str)] = &[
    ("beat", "heartbeat"),
    ("bury", "write_dead_letter"),
    ("courier", "pipeline"),
    ("doubted", "stale"),
    ("errand", "Job"),
    ("errands", "Job"),
    ("farewell", "pending_disconnect_hooks, or the packets that close a connection"),
    ("farewells", "pending_disconnect_hooks"),
    ("house rules", "source rules"),
    ("in earnest", "in production"),
    ("ledger", "SessionPersister, or history"),
    ("letter", "Envelope"),
    ("patience", "timeout"),
    ("roster", "membership"),
    ("rooms of the house", "modules"),
    ("sealed", "signed"),
    ("strays", "orphans"),
    ("the house", "the source"),
    ("untold", "pending"),
    ("wire sheet", "a page of docs/protocol/"),
];

/// Phrases of prose: a client gets a message, or it is notified.
const REPLACED_IN_PROSE: &[(&str, &str)] = &[
    ("are told", "get …, are notified"),
    ("be told", "get …, be notified"),
    ("been told", "got …, been notified"),
    ("is told", "gets …, is notified"),
    ("was told", "got …, was notified"),
    ("were told", "got …, were notified"),
];

/// Where a replaced word is the right one; dead letters begin with a small or a capital letter.
const EXCEPTIONS: &[&str] = &["ead letter", "ead-letter", "ead_letter", "EAD_LETTER", "eadLetter", "letter by letter"];

/// References to documents that are not in the repository, and a name that was replaced.
const FOREIGN: &[&str] =
    &["(CONTRACT", "(DESIGN", "DESIGN.md", "STYLE.md", "seed-systems", "attacks.md", "Protocol::Json"];

#[test]
fn replaced_words_are_not_used() {
    let mut wrong = String::new();
    for file in
        ["src", "tests", "docs"].iter().flat_map(|folder| files(folder, &["rs", "mjs", "js", "lua", "md", "py"]))
    {
        if file.path == "tests/style.rs" {
            continue;
        }
        for (number, line) in file.text.lines().enumerate() {
            for problem in replaced_words(line) {
                writeln!(wrong, "{}:{}: {problem}: {}", file.path, number + 1, line.trim()).unwrap();
            }
        }
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if file.path.starts_with("tests/") && name.starts_with("review") {
            writeln!(wrong, "{}: a test file is named for what it shows", file.path).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}{} lines", wrong.lines().count());
}

fn replaced_words(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    for foreign in FOREIGN {
        if line.contains(foreign) {
            found.push(format!("`{foreign}` is not in this repository"));
        }
    }
    let line = EXCEPTIONS.iter().fold(line.to_owned(), |line, exception| line.replace(exception, ""));
    let words = words(&line);
    for (old, new) in REPLACED.iter().chain(REPLACED_IN_PROSE) {
        let old: Vec<&str> = old.split(' ').collect();
        if words.windows(old.len()).any(|window| window == old) {
            found.push(format!("`{}` is now `{new}`", old.join(" ")));
        }
    }
    found
}

/// The words of a line in lower case; an identifier has several.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for c in line.chars() {
        if !c.is_alphabetic() || (c.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if c.is_alphabetic() {
            words.last_mut().unwrap().extend(c.to_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn broken_rules_are_found() {
    let replaced = |line: &str| replaced_words(line).len();
    assert_eq!(replaced("struct SessionLedger { untold_users: u8 } // who is told, see the wire sheet"), 4);
    assert_eq!(replaced("/// Its dead letters are written once; DEAD_LETTERS."), 0);

    let found = |path: &str, text: &str| bad_waits(&Source { path: path.into(), text: text.into() }).len();
    assert_eq!(found("tests/a.rs", "#[ignore]\n#[test]\nfn a() { std::thread::sleep(LONG); }"), 2);
    assert_eq!(found("tests/a.rs", "while !done() {\n assert!(start.elapsed() < DEADLINE);\n sleep(SHORT);\n}"), 0);
    assert_eq!(found("src/a.rs", "fn pause() { sleep(X) }"), 0);
    assert_eq!(found("src/a.rs", "fn pause() { sleep(X) }\n#[cfg(test)]\nmod tests { fn a() { sleep(X) } }"), 1);
}
