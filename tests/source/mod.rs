//! The repository's own files, as the tests of the source rules read them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// A source file.
pub(crate) struct Source {
    /// From the repository's root, `src/hub/rooms.rs`.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// All `.rs` files below a folder of the repository, by path.
pub(crate) fn rust_files(folder: &str) -> Vec<Source> {
    files(folder, &["rs"])
}

/// All files with one of these extensions below a folder of the repository, by path.
pub(crate) fn files(folder: &str, extensions: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    collect(&root.join(folder), &mut paths);
    paths.retain(|path| path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)));
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        Source { path: path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text }
    };
    paths.into_iter().map(read).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true if path.ends_with("node_modules") || path.ends_with(".venv") => {}
            true => collect(&path, paths),
            false => paths.push(path),
        }
    }
}

/// Which parts of a source file are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Code and strings, without comments.
    CodeAndStrings,
    /// Code alone; strings are empty.
    Code,
}

/// The text without its comments; lines stay where they are.
pub(crate) fn strip(text: &str, keep: Keep) -> String {
    let mut stripped = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (length, is_code) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), keep == Keep::CodeAndStrings),
            'r' if is_raw_string(rest) && !stripped.ends_with(is_word) => {
                (raw_string(rest), keep == Keep::CodeAndStrings)
            }
            '\'' => (character(rest), true),
            c => (c.len_utf8(), true),
        };
        let (piece, after) = rest.split_at(length);
        match is_code {
            true => stripped.push_str(piece),
            false => stripped.extend(piece.chars().filter(|c| *c == '\n')),
        }
        rest = after;
    }
    stripped
}

/// Whether a character can be in an identifier.
pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match &text[at..] {
            "" => return at,
            rest if rest.starts_with("/*") => (depth, at) = (depth + 1, at + 2),
            rest if rest.starts_with("*/") && depth == 1 => return at + 2,
            rest if rest.starts_with("*/") => (depth, at) = (depth - 1, at + 2),
            rest => at += rest.chars().next().map_or(1, char::len_utf8),
        }
    }
}

fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_raw_string(text: &str) -> bool {
    text[1..].trim_start_matches('#').starts_with('"')
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].find('"').unwrap_or_default();
    let end = format!("\"{}", "#".repeat(hashes));
    let inside = 1 + hashes + 1;
    text[inside..].find(&end).map_or(text.len(), |at| inside + at + end.len())
}

/// The length of a character literal, so that `'"'` opens no string; 1 for the tick of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let from = at + c.len_utf8();
            text[from..].find('\'').map_or(1, |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
