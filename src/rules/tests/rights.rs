//! What a new token makes of the rooms that a session is in.

use super::*;
use crate::model::provenance::Provenance;
use crate::rules::Decision;
use crate::rules::config::JoinPolicy;

#[test]
fn each_provenance_is_decided_by_what_it_rests_on() {
    let rules = compiled(
        &[
            room("org:{claims.org}", JoinPolicy::Auto),
            room("open:<x>", JoinPolicy::Allow),
            room("asked:<x>", JoinPolicy::Ask),
            room("closed:*", JoinPolicy::Deny),
        ],
        &[],
    );
    let me = Caller { claims: r#"{"org":"a"}"#, granted: &|room| room == "closed:7", ..caller("7") };
    let decide = |room, by, same| rules.decide_again(room, &me, by, same);
    use Decision::{Ask, Keep, Leave};
    use Provenance::{Answered, Asked, Auto, Command, Grant, Rule};
    for by in [Auto, Rule, Grant] {
        for same in [false, true] {
            assert_eq!(decide("org:a", by, same), Keep(Auto));
            assert_eq!(decide("org:b", by, same), Leave, "the claims say another one");
            assert_eq!(decide("open:1", by, same), Keep(Rule));
            assert_eq!(decide("closed:7", by, same), Keep(Grant));
            assert_eq!(decide("closed:8", by, same), Leave);
            assert_eq!(decide("unknown", by, same), Leave);
            assert_eq!(decide("asked:1", by, same), Ask, "a rule let it in before");
        }
    }
    for by in [Asked, Answered] {
        assert_eq!(decide("asked:1", by, true), Keep(by));
        assert_eq!(decide("unknown", by, true), Keep(by), "no rule, but the backend said so");
        assert_eq!(decide("asked:1", by, false), Ask);
        assert_eq!(decide("open:1", by, false), Keep(Rule));
        assert_eq!(decide("closed:8", by, false), Leave);
        assert_eq!(decide("unknown", by, false), Leave);
    }
    for room in ["asked:1", "closed:8", "unknown"] {
        assert_eq!(decide(room, Command, false), Keep(Command));
    }
    let by_rules = |room, by| rules.decide_by_rules(room, &me, by);
    for by in [Auto, Rule, Grant, Asked] {
        assert_eq!(by_rules("open:1", by), Keep(Rule));
        assert_eq!(by_rules("closed:7", by), Keep(Grant));
        assert_eq!(by_rules("closed:8", by), Leave, "also what the backend once allowed");
        assert_eq!(by_rules("unknown", by), Leave);
    }
    assert_eq!((by_rules("asked:1", Asked), by_rules("asked:1", Rule)), (Keep(Asked), Ask));
    for by in [Answered, Command] {
        assert_eq!(by_rules("unknown", by), Keep(by), "no rule was asked before");
    }
}
