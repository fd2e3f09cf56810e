//! The rules of the five example systems, each as its operator would configure them.

use super::*;
use crate::rules::Verdict;
use serde_json::json;

fn stm() -> Rules {
    let both = json!([{ "userId": "{user}", "chatId": "{chatId}" }]);
    let rooms = [
        room("user:{user}", JoinPolicy::Auto),
        RoomRuleConfig {
            presence: true,
            joined: Some(message("user_joined", both.clone())),
            left: Some(message("user_left", both)),
            ..room("chat:<chatId>", JoinPolicy::Ask)
        },
    ];
    let typing = json!([{ "userId": "{user}", "isTyping": "{0.isTyping}", "chatId": "{0.chatId}" }]);
    let on = [
        OnRuleConfig {
            reply: Some(message("connected", json!([{ "message": "Connected", "userId": "{user}" }]))),
            ..on("/chat", "connection")
        },
        OnRuleConfig {
            join: vec!["chat:{0.chatId}".into()],
            reply: Some(message("joined_chat", json!([{ "chatId": "{0.chatId}", "message": "Joined" }]))),
            ack: Some(list(json!([{ "success": true }]))),
            on_error: Some(message("error", json!([{ "message": "{error}" }]))),
            ack_error: Some(list(json!([{ "success": false, "error": "{error}" }]))),
            ..on("/chat", "join_chat")
        },
        OnRuleConfig {
            leave: vec!["chat:{0.chatId}".into()],
            reply: Some(message("left_chat", json!([{ "chatId": "{0.chatId}" }]))),
            ..on("/chat", "leave_chat")
        },
        OnRuleConfig {
            emit: vec![EmitTemplate { volatile: true, ..emit("chat:{0.chatId}", "user_typing", typing) }],
            ..on("/chat", "typing")
        },
        OnRuleConfig {
            forward: true,
            on_error: Some(message("error", json!([{ "message": "{error}" }]))),
            ..on("/chat", "send_message")
        },
    ];
    compiled(&rooms, &on)
}

#[test]
fn stm_joins_a_chat() {
    let rules = stm();
    let me = numeric("7");
    let event = args(r#"[{"chatId":"c1"}]"#);
    let call = Call { caller: &me, args: &event };
    let join = rules.on("/chat", "join_chat").unwrap();
    assert_eq!(join.joins(&call).unwrap(), [crate::model::names::Room::from("chat:c1")]);
    assert_eq!(shown(join.reply(&call).unwrap()), r#"joined_chat [{"chatId":"c1","message":"Joined"}]"#);
    assert_eq!(join.ack(&call).unwrap().unwrap().as_array(), r#"[{"success":true}]"#);
    assert!(!join.forward() && join.leaves(&call).unwrap().is_empty() && join.emits(&call).unwrap().is_empty());
    let Verdict::Ask(rule, captures) = rules.room("chat:c1", &me) else { panic!("the backend decides") };
    assert!(rule.presence);
    assert_eq!(shown(rule.joined(&me, &captures).unwrap()), r#"user_joined [{"chatId":"c1","userId":7}]"#);
    assert_eq!(shown(rule.left(&me, &captures).unwrap()), r#"user_left [{"chatId":"c1","userId":7}]"#);

    let nothing = args("[]");
    let empty = Call { caller: &me, args: &nothing };
    let error = join.joins(&empty).unwrap_err().to_string();
    assert_eq!(shown(join.on_error(&empty, problem(&error))), r#"error [{"message":"missing value {0.chatId}"}]"#);
    let ack = join.ack_error(&empty, problem(&error)).unwrap();
    assert_eq!(ack.as_array(), r#"[{"error":"missing value {0.chatId}","success":false}]"#);
}

#[test]
fn stm_types_leaves_and_sends() {
    let rules = stm();
    let me = caller("u-1");
    let event = args(r#"[{"chatId":42,"isTyping":true}]"#);
    let call = Call { caller: &me, args: &event };
    let emits = rules.on("/chat", "typing").unwrap().emits(&call).unwrap();
    assert_eq!((&*emits[0].room, emits[0].volatile, emits[0].include_caller), ("chat:42", true, false));
    assert_eq!(shown(Some(emits[0].message.clone())), r#"user_typing [{"chatId":42,"isTyping":true,"userId":"u-1"}]"#);
    let leave = rules.on("/chat", "leave_chat").unwrap();
    assert_eq!(leave.leaves(&call).unwrap(), [crate::model::names::Room::from("chat:42")]);
    assert_eq!(shown(leave.reply(&call).unwrap()), r#"left_chat [{"chatId":42}]"#);
    assert!(rules.on("/chat", "send_message").unwrap().forward());
    let connected = rules.connection("/chat").unwrap().reply(&call).unwrap();
    assert_eq!(shown(connected), r#"connected [{"message":"Connected","userId":"u-1"}]"#);
    assert!(rules.on("/", "typing").is_none(), "rules are per namespace");
}

#[test]
fn direct_messaging_sends_the_bare_id() {
    let rules = compiled(
        &[room("user:{user}", JoinPolicy::Auto), room("conversation:<id>", JoinPolicy::Ask)],
        &[
            OnRuleConfig { join: vec!["conversation:{0}".into()], ..on("/", "join_conversation") },
            OnRuleConfig { leave: vec!["conversation:{0}".into()], ..on("/", "leave_conversation") },
            OnRuleConfig {
                emit: vec![emit("conversation:{0}", "typing_start", json!(["{args}", "{user}"]))],
                ..on("/", "typing_start")
            },
        ],
    );
    let me = numeric("7");
    assert_eq!(rules.auto_rooms(&me).unwrap(), [crate::model::names::Room::from("user:7")]);
    for (json, name) in [("[42]", "conversation:42"), (r#"["5f-a"]"#, "conversation:5f-a")] {
        let event = args(json);
        let call = Call { caller: &me, args: &event };
        assert_eq!(
            rules.on("/", "join_conversation").unwrap().joins(&call).unwrap(),
            [crate::model::names::Room::from(name)]
        );
        assert_eq!(
            rules.on("/", "leave_conversation").unwrap().leaves(&call).unwrap(),
            [crate::model::names::Room::from(name)]
        );
        assert!(matches!(rules.room(name, &me), Verdict::Ask(..)));
    }
    let event = args("[42]");
    let emits = rules.on("/", "typing_start").unwrap().emits(&Call { caller: &me, args: &event }).unwrap();
    assert_eq!(emits[0].message.args.as_array(), "[42,7]");
}

#[test]
fn worklamp_keeps_tenants_apart() {
    let rules = compiled(
        &[
            room("user:{user}", JoinPolicy::Auto),
            room("tenant:{claims.tenantId}", JoinPolicy::Auto),
            room("tenant:{claims.tenantId}:project:<projectId>", JoinPolicy::Ask),
            room("tenant:{claims.tenantId}:channel:<channelId>", JoinPolicy::Ask),
        ],
        &[OnRuleConfig {
            join: vec!["tenant:{claims.tenantId}:project:{0.projectId}".into()],
            ack_error: Some(list(json!([{ "ok": false, "error": "{error}" }]))),
            ..on("/", "join:project")
        }],
    );
    let me = Caller { claims: r#"{"sub":"7","tenantId":"t1"}"#, ..caller("7") };
    assert_eq!(rules.auto_rooms(&me).unwrap(), ["user:7", "tenant:t1"].map(crate::model::names::Room::from));
    assert!(matches!(rules.room("tenant:t1:project:p", &me), Verdict::Ask(..)));
    assert!(matches!(rules.room("tenant:t1:channel:c", &me), Verdict::Ask(..)));
    for refused in
        ["tenant:t2", "tenant:t2:project:p", "tenant:t1:project:", "tenant:t1:project:p:x", "tenant:t1:secret:p"]
    {
        assert!(matches!(rules.room(refused, &me), Verdict::NoRule), "{refused}");
    }
    let event = args(r#"[{"projectId":"p:../t2"}]"#);
    let error = rules.on("/", "join:project").unwrap().joins(&Call { caller: &me, args: &event }).unwrap_err();
    assert_eq!(error.to_string(), "{0.projectId} contains ':', which a value in a room's name must not");
}

#[test]
fn branchbase_and_stockent_only_listen_and_view() {
    let rules = compiled(
        &[room("user:{user}", JoinPolicy::Auto), room("conversation:<id>", JoinPolicy::Ask)],
        &[
            OnRuleConfig {
                join: vec!["conversation:{0.conversationId}".into()],
                leave: vec!["conversation:{0.previous}".into()],
                ..on("/", "view")
            },
            OnRuleConfig { forward: true, ..on("/", "send_message") },
        ],
    );
    let me = caller("7");
    let event = args(r#"[{"conversationId":"c2","previous":"c1"}]"#);
    let call = Call { caller: &me, args: &event };
    let view = rules.on("/", "view").unwrap();
    assert_eq!(
        (view.joins(&call).unwrap(), view.leaves(&call).unwrap()),
        (vec!["conversation:c2".into()], vec![crate::model::names::Room::from("conversation:c1")])
    );
    assert_eq!(view.ack(&call), Ok(None), "an ack template is the rule's choice");
}
