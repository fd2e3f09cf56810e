//! All sources, and their precedence: flag, environment, conventional name, file, default.

use crate::config::candidate::{Candidate, Rank};
use crate::config::environment::Environment;
use crate::config::file;
use crate::config::flags::Flags;
use crate::config::keys::{KEYS, Key, find};
use crate::config::mistake::{Faults, Origin, Place, did_you_mean};
use crate::config::node::{Entry, Node, Value, parse_file};
use crate::config::settings::Config;
use crate::config::variables::{conventional_names, own_names};
use std::collections::BTreeMap;

/// The values of all sources, and what is wrong with the sources themselves.
pub(super) struct Sources {
    pub candidates: Vec<Candidate>,
    pub faults: Faults,
    /// If not, keys may be missing only because their lines could not be read, and checks across keys make no sense.
    pub file_is_toml: bool,
}

pub(super) fn read(flags: &Flags, environment: &Environment) -> Sources {
    let mut sources = Sources { candidates: Vec::new(), faults: Vec::new(), file_is_toml: true };
    match file::configuration(flags, environment) {
        Ok(None) => {}
        Ok(Some((path, text))) => {
            let (entries, faults) = parse_file(&path, &text);
            sources.file_is_toml = faults.is_empty();
            // The parser guesses the values on a line that is not TOML.
            let broken: Vec<_> = faults.iter().map(|(place, _)| line(place)).collect();
            sources.faults.extend(faults);
            let mut found = Vec::new();
            in_tables(entries, &mut sources.candidates, &mut found);
            sources.candidates.retain(|candidate| !broken.contains(&line(&candidate.node.place)));
            sources.faults.extend(found.into_iter().filter(|(place, _)| !broken.contains(&line(place))));
        }
        Err(faults) => {
            sources.file_is_toml = false;
            sources.faults.extend(faults);
        }
    }
    sources.candidates.extend(conventional_names(environment));
    sources.candidates.extend(own_names(environment, &mut sources.faults));
    for (flag, value, section, name) in
        [("--listen", &flags.listen, "", "listen"), ("--redis-url", &flags.redis_url, "redis", "url")]
    {
        let place = Place { origin: Origin::Flag(flag), path: String::new() };
        let node = value.clone().map(|value| Node { place, value: Value::Plain(value) });
        sources
            .candidates
            .extend(node.zip(find(section, name)).map(|(node, key)| Candidate::of(Rank::Flag, key, node)));
    }
    sources
}

fn line(place: &Place) -> Option<usize> {
    match &place.origin {
        Origin::File { line, .. } => Some(*line),
        _ => None,
    }
}

/// Finds the key of each entry of the file.
fn in_tables(entries: Vec<Entry>, candidates: &mut Vec<Candidate>, faults: &mut Faults) {
    let is_section = |name: &str| !name.is_empty() && KEYS.iter().any(|key| key.section == name);
    for entry in entries {
        match (find("", &entry.key), entry.node.value) {
            (Some(Key { name: name @ ("rooms" | "on"), .. }), Value::Table(_)) => {
                faults.extend(entry.place.fault(format!("is a list of tables: write [[{name}]], with two brackets")));
            }
            (Some(key), value) => {
                let node = Node { place: entry.node.place, value };
                candidates.push(Candidate::of(Rank::File, key, node));
            }
            (None, Value::Table(inner)) if is_section(&entry.key) => {
                for inner in inner {
                    match find(&entry.key, &inner.key) {
                        Some(key) => candidates.push(Candidate::of(Rank::File, key, inner.node)),
                        None => faults.extend(inner.place.fault(unknown_key(&entry.key, &inner.key))),
                    }
                }
            }
            (None, _) if is_section(&entry.key) => {
                let name = &entry.key;
                faults.extend(entry.place.fault(format!("is a table: write [{name}] and its keys below")));
            }
            (None, _) => faults.extend(entry.place.fault(unknown_key("", &entry.key))),
        }
    }
}

/// The message for an unknown key: the nearest key of its table, or the table that has a key of that name.
fn unknown_key(section: &str, name: &str) -> String {
    let sections = KEYS.iter().map(|key| key.section).filter(|name| section.is_empty() && !name.is_empty());
    let here = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    let hint = did_you_mean(name, here.chain(sections));
    let elsewhere = KEYS.iter().find(|key| key.name == name);
    match elsewhere {
        Some(key) if hint.is_empty() && key.section.is_empty() => {
            format!("unknown key; `{name}` belongs to the top of the file, before the first table")
        }
        Some(key) if hint.is_empty() => format!("unknown key; `{name}` belongs to [{}]", key.section),
        _ => format!("unknown key{hint}"),
    }
}

/// Stores the values in the configuration, the weakest source first.
pub(super) fn apply(candidates: Vec<Candidate>, config: &mut Config) -> Faults {
    let mut faults = Vec::new();
    let mut slots: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        slots.entry(candidate.key.slot()).or_default().push(candidate);
    }
    for (slot, mut candidates) in slots {
        candidates.sort_by_key(|candidate| candidate.rank);
        let strongest = candidates.last().map(|candidate| candidate.rank);
        for pair in candidates.windows(2).filter(|pair| pair[0].rank == pair[1].rank) {
            let [one, other] = [pair[0].key.name, pair[1].key.name];
            faults.extend(pair[1].node.fault(format!("`{one}` and `{other}` are both given; keep one of them")));
        }
        for candidate in candidates {
            if candidate.may_stay_unread() && Some(candidate.rank) != strongest {
                continue;
            }
            config.remember(&slot, &candidate.node);
            let node = candidate.prepared.unwrap_or(Ok(candidate.node));
            faults.extend(node.and_then(|node| (candidate.read)(config, &node)).err().into_iter().flatten());
        }
    }
    faults
}
