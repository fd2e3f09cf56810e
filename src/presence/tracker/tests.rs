use super::*;
use LeaveReason::{Left, Lost, Undone};

const USER: fn(&str) -> Fact = |name| Fact::Online(name.into());

/// What would be written, as `name+count` and `name-`; what is no news in brackets.
fn written(table: &mut Table, now: Millis) -> String {
    let changes = table.take(now, 10);
    let text = |change: &Change| {
        let Fact::Online(name) = &change.fact else { return "?".to_owned() };
        let text = change.count.map_or(format!("{name}-"), |count| format!("{name}+{count}"));
        if change.news { text } else { format!("({text})") }
    };
    let texts: Vec<String> = changes.iter().map(text).collect();
    table.confirm(&changes);
    texts.join(" ")
}

#[test]
fn a_reload_is_no_absence() {
    let mut table = Table::new(100);
    table.enter(USER("a"), None);
    table.enter(USER("a"), None);
    assert_eq!(written(&mut table, 0), "a+2");
    table.exit(&USER("a"), 5, Lost);
    table.exit(&USER("a"), 10, Lost);
    assert_eq!((written(&mut table, 10), table.next()), ("(a+0)".into(), Some(110)));
    table.enter(USER("a"), None);
    assert_eq!(written(&mut table, 50), "(a+1)", "the others know");
    assert_eq!(written(&mut table, 110), "", "the grace has ended for nobody");
    table.exit(&USER("a"), 200, Lost);
    assert_eq!(written(&mut table, 299), "(a+0)");
    let changes = table.take(300, 10);
    assert_eq!((changes.len(), changes[0].count, changes[0].age), (1, None, 100));
    table.confirm(&changes);
    assert!(table.facts.is_empty() && table.changed.facts.is_empty() && table.graces.is_empty());
}

#[test]
fn who_leaves_on_purpose_has_left() {
    let mut table = Table::new(100);
    table.enter(USER("a"), None);
    assert_eq!(written(&mut table, 0), "a+1");
    table.exit(&USER("a"), 1, Left);
    assert_eq!(written(&mut table, 1), "a-");
    assert_eq!(table.exit(&USER("a"), 2, Left), Ticket::default(), "nobody is there");
}

#[test]
fn what_comes_and_goes_unwritten_is_announced_all_the_same() {
    let mut table = Table::new(100);
    table.enter(USER("a"), None);
    table.exit(&USER("a"), 0, Left);
    assert_eq!(written(&mut table, 0), "a+0 a-");
    table.enter(USER("a"), None);
    table.exit(&USER("a"), 0, Left);
    assert_eq!(written(&mut table, 0), "a+0 a-");
    table.enter(USER("b"), None);
    let changes = table.take(0, 10);
    table.exit(&USER("b"), 0, Left);
    table.confirm(&changes);
    assert_eq!(written(&mut table, 0), "b-", "it left while it was being written");
    table.enter(USER("c"), None);
    assert_eq!(written(&mut table, 0), "c+1");
    table.exit(&USER("c"), 0, Left);
    let changes = table.take(0, 10);
    table.enter(USER("c"), None);
    table.confirm(&changes);
    assert_eq!(written(&mut table, 0), "c+1", "it came back while it was being taken out");
}

#[test]
fn what_came_and_went_while_the_store_is_away_does_not_pile_up() {
    let mut table = Table::new(0);
    table.enter(USER("taken"), None);
    let taken = table.take(0, 10);
    table.exit(&USER("taken"), 0, Left);
    table.enter(USER("stays"), None);
    for n in 0..3 * MAX_WAITING {
        let fact = USER(&n.to_string());
        table.enter(fact.clone(), None);
        table.exit(&fact, 0, Left);
    }
    assert!(table.facts.len() <= MAX_WAITING && table.changed.facts.len() <= MAX_WAITING);
    table.forget_passed();
    table.confirm(&taken);
    assert_eq!(written(&mut table, 0), "taken- stays+1", "what the store may know, and what is true, stay");
}

#[test]
fn graces_do_not_pile_up_while_the_store_is_away() {
    let mut table = Table::new(100);
    for now in 0..10_000 {
        table.enter(USER("a"), None);
        table.exit(&USER("a"), now, Lost);
    }
    assert!(table.graces.len() <= 101, "{}", table.graces.len());
}

#[test]
fn failed_changes_are_written_again() {
    let mut table = Table::new(0);
    table.enter(USER("a"), None);
    let changes = table.take(0, 10);
    assert_eq!(written(&mut table, 0), "");
    table.put_back(changes);
    assert_eq!(written(&mut table, 0), "a+1");
}

#[test]
fn a_store_that_lost_its_memory_hears_no_news() {
    let mut table = Table::new(0);
    table.enter(USER("a"), None);
    table.enter(USER("b"), None);
    assert_eq!(written(&mut table, 0), "a+1 b+1");
    table.enter(USER("c"), None);
    table.exit(&USER("b"), 0, Lost);
    table.write_again(Known { facts: vec![USER("a"), USER("x")], lost: true }, 1_000);
    assert_eq!(written(&mut table, 1_000), "c+1 (a+1)", "and nothing is taken back as yet");
    assert_eq!(written(&mut table, 1_000 + HOLD), "(b+0) b- (x-)");
    assert_eq!(written(&mut table, 1_000 + HOLD), "");
}

#[test]
fn a_node_that_counted_as_dead_tells_everything_again() {
    let mut table = Table::new(0);
    table.enter(USER("a"), None);
    assert_eq!(written(&mut table, 0), "a+1");
    table.write_again(Known { facts: Vec::new(), lost: false }, 1_000);
    assert_eq!(written(&mut table, 1_000), "a+1");
}

#[test]
fn who_went_while_the_node_counted_as_dead_is_not_told_as_online_again() {
    let mut table = Table::new(100);
    table.enter(USER("a"), None);
    table.enter(USER("b"), None);
    assert_eq!(written(&mut table, 0), "a+1 b+1");
    table.exit(&USER("a"), 1_000, Lost);
    table.exit(&USER("b"), 1_000, Lost);
    table.write_again(Known { facts: Vec::new(), lost: false }, 1_000);
    table.enter(USER("b"), None);
    let mut parts: Vec<_> = written(&mut table, 1_000).split(' ').map(str::to_owned).collect();
    parts.sort();
    assert_eq!(parts, ["a-", "b+1"]);
}

/// Takes and confirms, and answers which of these tickets are written.
fn settle(table: &mut Table, now: Millis, max: usize, tickets: &[Ticket]) -> Vec<bool> {
    let changes = table.take(now, max);
    table.confirm(&changes);
    tickets.iter().map(|ticket| table.is_written(*ticket)).collect()
}

#[test]
fn a_ticket_is_written_when_its_change_and_all_before_it_are() {
    let mut table = Table::new(100);
    assert!(table.is_written(Ticket::default()));
    let [a, b, again] = ["a", "b", "a"].map(|name| table.enter(USER(name), None));
    assert_eq!(a, again, "one change");
    let taken = table.take(0, 1);
    assert!(!table.is_written(a), "on its way");
    let later = table.enter(USER("a"), None);
    table.confirm(&taken);
    assert_eq!([a, b, later].map(|ticket| table.is_written(ticket)), [true, false, false]);
    assert_eq!(settle(&mut table, 0, 1, &[b, later]), [true, false]);
    assert_eq!(settle(&mut table, 0, 1, &[b, later]), [true, true]);
    let left = table.exit(&USER("a"), 0, Lost);
    table.enter(USER("a"), None);
    assert_eq!(settle(&mut table, 0, 1, &[left]), [true], "it came to nothing");
}

#[test]
fn while_all_is_written_again_no_ticket_is_written_before_it() {
    let mut table = Table::new(100);
    table.enter(USER("a"), None);
    settle(&mut table, 0, 10, &[]);
    let late = table.enter(USER("late"), None);
    let taken = table.take(0, 10);
    let behind = table.enter(USER("behind"), None);
    table.put_back(taken);
    table.write_again(Known { facts: Vec::new(), lost: true }, 0);
    assert_eq!(settle(&mut table, 0, 1, &[late, behind]), [false, false]);
    assert_eq!(settle(&mut table, 0, 1, &[late, behind]), [false, false]);
    assert_eq!(settle(&mut table, 0, 1, &[late, behind]), [true, true]);
    assert!(table.is_holding(HOLD - 1) && !table.is_holding(HOLD));
}

#[test]
fn leaving_and_coming_again_is_no_staying() {
    let mut table = Table::new(100);
    table.enter(USER("a"), None);
    assert_eq!(written(&mut table, 0), "a+1");
    table.exit(&USER("a"), 0, Left);
    table.enter(USER("a"), None);
    assert_eq!(written(&mut table, 0), "a- a+1");
    for _ in 0..2 {
        table.exit(&USER("a"), 0, Left);
        table.enter(USER("a"), None);
    }
    table.exit(&USER("a"), 0, Left);
    assert_eq!(written(&mut table, 0), "a- a+0 a- a+0 a-");
    assert!(table.facts.is_empty());
    table.enter(USER("b"), None);
    table.exit(&USER("b"), 0, Left);
    table.enter(USER("b"), None);
    assert_eq!(written(&mut table, 0), "b+1 b- b+1", "joined, left, joined, before the store heard of it");
}

#[test]
fn what_was_refused_is_as_if_it_had_not_been() {
    let mut table = Table::new(100);
    table.enter(USER("a"), None);
    table.exit(&USER("a"), 0, Undone);
    assert_eq!(written(&mut table, 0), "", "the store never heard of it");
    table.enter(USER("b"), None);
    let taken = table.take(0, 10);
    table.exit(&USER("b"), 0, Undone);
    table.confirm(&taken);
    assert_eq!(written(&mut table, 0), "b-", "it was on its way");
    table.enter(USER("c"), None);
    table.exit(&USER("c"), 0, Lost);
    assert_eq!(written(&mut table, 0), "c+0");
    table.enter(USER("c"), None);
    table.exit(&USER("c"), 50, Undone);
    assert_eq!((written(&mut table, 99), &*written(&mut table, 100)), (String::new(), "c-"), "still in its grace");
    table.enter(USER("d"), None);
    assert_eq!(written(&mut table, 100), "d+1");
    table.exit(&USER("d"), 100, Left);
    table.enter(USER("d"), None);
    table.exit(&USER("d"), 100, Undone);
    assert_eq!(written(&mut table, 100), "d-", "it had left before");
    assert!(table.facts.is_empty());
}

#[test]
fn a_fact_is_small() {
    assert_eq!(size_of::<(Fact, State)>(), 56, "each user who is connected has one");
}
