//! Puts together what several sources (shards, or nodes) say of the same event (sans-IO). All of them get the events in the
//! same order, so that the first report of one source belongs to the first of another.

use crate::model::happening::Happening;
use std::collections::VecDeque;

/// Events that wait for their other reports. Above it the oldest is passed on as it is.
const MAX_PENDING: usize = 1_000;
/// How long an event waits for its other reports: a source may skip some, or may not have followed yet when it came.
const MAX_WAIT_MS: u64 = 500;

/// What was put together of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// The event, with the receivers of all sources.
    pub happening: Happening,
    /// How many receivers each source had.
    pub parts: Vec<(u32, u64)>,
    /// Sources that have not reported.
    pub missing: usize,
}

/// See the module.
#[derive(Default)]
pub struct Merger {
    pending: VecDeque<(u64, Merged)>,
}

impl Merger {
    /// Takes the report of one of so many sources; answers what is complete with it.
    pub fn add(&mut self, source: u32, sources: usize, report: &Happening, now_ms: u64) -> Option<Merged> {
        let receivers = report.receivers.unwrap_or_default();
        let fits = |merged: &Merged| {
            merged.parts.iter().all(|(known, _)| *known != source) && is_same(&merged.happening, report)
        };
        let at = match self.pending.iter().position(|(_, merged)| fits(merged)) {
            Some(at) => at,
            None => {
                let empty = Happening { receivers: Some(0), ..report.clone() };
                self.pending.push_back((now_ms, Merged { happening: empty, parts: Vec::new(), missing: sources }));
                self.pending.len() - 1
            }
        };
        let merged = &mut self.pending[at].1;
        merged.parts.push((source, receivers));
        merged.happening.receivers = Some(merged.happening.receivers.unwrap_or_default() + receivers);
        merged.missing = sources.saturating_sub(merged.parts.len());
        if merged.missing == 0 || self.pending.len() > MAX_PENDING {
            let at = if self.pending[at].1.missing == 0 { at } else { 0 };
            return self.pending.remove(at).map(|(_, merged)| merged);
        }
        None
    }

    /// What has waited long enough.
    pub fn overdue(&mut self, now_ms: u64) -> Option<Merged> {
        let (since, _) = self.pending.front()?;
        if now_ms.saturating_sub(*since) < MAX_WAIT_MS {
            return None;
        }
        self.pending.pop_front().map(|(_, merged)| merged)
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

fn is_same(one: &Happening, other: &Happening) -> bool {
    (&one.offset, one.bytes, one.volatile) == (&other.offset, other.bytes, other.volatile)
        && (&one.event, &one.namespace, &one.rooms) == (&other.event, &other.namespace, &other.rooms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(offset: &str, receivers: u64) -> Happening {
        Happening { offset: Some(offset.into()), receivers: Some(receivers), ..Happening::default() }
    }

    #[test]
    fn an_event_is_whole_once_all_sources_have_reported() {
        let mut merger = Merger::default();
        assert_eq!(merger.add(0, 2, &report("a", 1), 0), None);
        assert_eq!(merger.add(0, 2, &report("b", 2), 0), None);
        let whole = merger.add(1, 2, &report("a", 4), 0).unwrap();
        assert_eq!((whole.happening.receivers, whole.parts, whole.missing), (Some(5), vec![(0, 1), (1, 4)], 0));
        assert_eq!(merger.overdue(MAX_WAIT_MS - 1), None);
        let late = merger.overdue(MAX_WAIT_MS).unwrap();
        assert_eq!((late.happening.receivers, late.missing), (Some(2), 1));
        assert!(merger.is_empty());
    }

    #[test]
    fn equal_events_in_a_row_are_several() {
        let mut merger = Merger::default();
        let volatile = Happening { volatile: true, receivers: Some(1), ..Happening::default() };
        assert_eq!((merger.add(0, 2, &volatile, 0), merger.add(0, 2, &volatile, 0)), (None, None));
        assert!(merger.add(1, 2, &volatile, 0).is_some() && merger.add(1, 2, &volatile, 0).is_some());
        assert!(merger.is_empty());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut merger = Merger::default();
        let told = (0..MAX_PENDING * 2).filter_map(|at| merger.add(0, 2, &report(&at.to_string(), 1), 0)).count();
        assert_eq!((told, merger.pending.len()), (MAX_PENDING, MAX_PENDING));
    }
}
