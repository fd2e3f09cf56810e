//! Finds the commit that `roomcast --version` prints, as `hash date`. In this order: `BUILD_COMMIT`, which a package's
//! builder sets; git; `packaging/commit`, into which `git archive` writes it.

use std::path::Path;
use std::process::Command;

const HASH_LENGTH: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=packaging/commit");
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    let given = std::env::var("BUILD_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(from_git).or_else(from_archive).unwrap_or_else(|| "unknown commit".to_owned());
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
}

fn from_git() -> Option<String> {
    // Unpacked sources may lie in the repository of something else.
    if !Path::new(".git").exists() {
        return None;
    }
    let commit = git(&["log", "-1", "--format=%h %cs", &format!("--abbrev={HASH_LENGTH}")])?;
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        // Not built again for each commit, which would take a developer's time: later changes may be in it.
        return Some(format!("{commit}, debug"));
    }
    for file in ["HEAD", "logs/HEAD"] {
        println!("cargo::rerun-if-changed={}", git(&["rev-parse", "--git-path", file])?);
    }
    Some(commit)
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn from_archive() -> Option<String> {
    let text = std::fs::read_to_string("packaging/commit").ok()?;
    // Without `git archive` the placeholder is still there.
    let (hash, date) = text.trim().split_once(' ').filter(|(hash, _)| !hash.starts_with('$'))?;
    Some(format!("{} {date}", hash.get(..HASH_LENGTH)?))
}
