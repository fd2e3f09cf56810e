//! A session whose resume was abandoned, because its client disconnected meanwhile, is resumed again.
#![allow(clippy::unwrap_used)]

use roomcast::auth::Identity;
use roomcast::log::Snapshot;
use roomcast::log::window::Window;
use roomcast::model::command::{Action, Selector, SessionCommand};
use roomcast::model::id::{Id, NodeId};
use roomcast::model::namespaces::NamespaceIndex;
use roomcast::model::offset::{Epoch, Offset, Position};
use roomcast::model::partition::Line;
use roomcast::session::changes::Changes;
use roomcast::session::parked::Parked;
use roomcast::session::recovery::take_up;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn commands_are_applied_once_also_when_a_session_is_resumed_twice() {
    let at = |ms| Position { ms, seq: 0 };
    let offset = |ms| Offset { epoch: Epoch(7), position: at(ms), line: Line::CONTROL };
    let mut window = Window::new(Duration::from_secs(100), 1 << 20);
    window.reset(
        &Snapshot {
            line: Line::CONTROL,
            epoch: Epoch(7),
            floor: at(1),
            head: at(1),
            history: vec![],
            commands: vec![],
        },
        0,
    );
    let mut order = |ms, selector, action| {
        let order = SessionCommand {
            id: Id::random(),
            from: NodeId::random(),
            selector,
            namespace: Some("/".into()),
            action,
            at: vec![],
        };
        window.push_command(at(ms), Arc::new(order), 0);
    };
    order(20, Selector::In("b".into()), Action::Join(vec!["secret".into()]));
    order(30, Selector::In("a".into()), Action::Join(vec!["b".into()]));
    let mut parked = Parked {
        id: Id::random_session(),
        namespace: NamespaceIndex::default(),
        identity: Arc::new(Identity::anonymous()),
        rooms: vec!["a".into()],
        provenances: vec![],
        decided_on: None,
        changes: Changes::default(),
        start: offset(2).into(),
        last: at(2),
        last_line: Line::CONTROL,
        at: offset(10).into(),
        moves: 0,
    };
    for turn in ["first", "second"] {
        take_up(&mut parked, &window, &offset(30).into(), "/", &offset(10).into()).unwrap();
        assert_eq!(parked.rooms.join(" "), "a b", "the {turn} time");
    }
}
