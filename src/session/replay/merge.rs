//! The order in which a session gets what it missed on several lines.
//!
//! An event that names positions on other lines comes after what was missed there up to them. A node names those of the last
//! ten seconds; what is further apart is in the order in which nodes accepted it, by clocks that may differ by less than that.

use crate::log::window::{RecentLog, Slice};
use crate::model::event::Event;
use crate::model::offset::Offset;
use crate::model::place::Place;
use crate::session::replay::line::{LineReplay, Stretch};
use crate::session::replay::step::{Missed, Step};
use crate::session::replay::{is_over, place_at};

/// Stretches that are looked at in one step, besides one of each line.
const MAX_STRETCHES: usize = 16;

/// Goes on on all lines, by about `max`. The next events of each line are looked at, and its cursor follows those that are
/// taken. `by_room`: the client goes on in each room by itself.
pub(super) fn step(
    lines: &mut [LineReplay],
    by_room: bool,
    log: &impl RecentLog,
    here: &Place,
    namespace: &str,
    max: Slice,
) -> Step {
    let count = lines.len().max(1);
    let share = Slice { events: (max.events / count).max(1), bytes: max.bytes / count };
    let mut next: Vec<Option<Stretch>> = lines.iter().map(|_| None).collect();
    let (mut missed, mut bytes, mut looks) = (Vec::new(), 0, MAX_STRETCHES + lines.len());
    while missed.len() < max.events && bytes < max.bytes {
        for (line, next) in lines.iter_mut().zip(&mut next) {
            let on = here.on(line.after().line).unwrap_or_default();
            while next.is_none() && !is_over(line, here) {
                if looks == 0 {
                    return Step::Events(missed);
                }
                looks -= 1;
                match line.look(log, on, namespace, share) {
                    Ok(mut stretch) if stretch.missed.is_empty() => line.advance(&mut stretch, None),
                    Ok(stretch) => *next = Some(stretch),
                    // Once the client has what was before it.
                    Err(_) if !missed.is_empty() => return Step::Events(missed),
                    Err(gap) => return line.fail(gap, log, on, namespace),
                }
            }
        }
        let Some(mut event) = first(lines, &next).and_then(|at| take(&mut lines[at], &mut next[at])) else { break };
        bytes += event.event.size();
        event.place = Some(place_at(lines, by_room, &event));
        missed.push(event);
    }
    Step::Events(missed)
}

/// The line whose next event is the next of all: the one that was accepted first, or what that waits for. Every line has one,
/// or is over.
fn first(lines: &[LineReplay], next: &[Option<Stretch>]) -> Option<usize> {
    let key = |at: usize| event_of(&next[at]).map(|event| (event.accepted_us, at));
    let (_, earliest) = (0..lines.len()).filter_map(key).min()?;
    // Two events wait for each other where one names a position that its line has lost, and the line's ids went back since. No
    // node writes another circle.
    let found = awaited(lines, next, earliest, false).or_else(|| awaited(lines, next, earliest, true));
    Some(found.unwrap_or(earliest))
}

/// From a line's event to one that waits for none, if they do not wait for each other. `current`: only what names a position of
/// the line's present epoch waits for it.
fn awaited(lines: &[LineReplay], next: &[Option<Stretch>], from: usize, current: bool) -> Option<usize> {
    // On a line that is over nothing was missed up to there, or it is not there yet, and comes live.
    let behind = |event: &Event, named: Offset| {
        let at = lines.iter().position(|known| known.after().line == named.line && named.line != event.offset.line)?;
        let is_behind =
            |first: &Event| first.offset.position <= named.position && (!current || first.offset.epoch == named.epoch);
        event_of(&next[at]).is_some_and(is_behind).then_some(at)
    };
    let waits_for = |at: usize| {
        let event = event_of(&next[at])?;
        event.after.iter().flat_map(|after| after.iter()).find_map(|named| behind(event, named))
    };
    let mut at = from;
    for _ in lines {
        let Some(other) = waits_for(at) else { return Some(at) };
        at = other;
    }
    None
}

fn event_of(next: &Option<Stretch>) -> Option<&Event> {
    next.as_ref().and_then(|stretch| stretch.missed.front()).map(|missed| &*missed.event)
}

/// Takes the next event of a line.
fn take(line: &mut LineReplay, next: &mut Option<Stretch>) -> Option<Missed> {
    let stretch = next.as_mut()?;
    let event = stretch.missed.pop_front()?;
    let is_last = stretch.missed.is_empty();
    line.advance(stretch, (!is_last).then_some(event.event.offset.position));
    if is_last {
        *next = None;
    }
    Some(event)
}

#[cfg(test)]
mod tests;
