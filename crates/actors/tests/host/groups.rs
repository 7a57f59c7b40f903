//! Consumer groups on the leader: time ends members that are silent, but not those that nobody could hear.

use dunlin_model::command::{Command, Consistency, Outcome, Query, View};
use dunlin_model::group::GroupError;
use dunlin_model::group::ask::{GroupAnswer, GroupAsk, GroupQuestion, GroupSaid};
use dunlin_model::group::request::{JoinRequest, MemberAssignment, MemberIdentity, Protocol, SyncRequest};
use dunlin_model::port::{AppliedSink, ShardServer};

use crate::support::{Field, Gateway, SHARD, applied, pass};

const GROUP: &str = "g";
const SESSION_MS: u32 = 6_000;

fn member() -> MemberIdentity {
    MemberIdentity {
        member_id: "a-1".into(),
        instance_id: Some("a".into()),
    }
}

async fn ask(gateway: &mut Gateway<'_>, ask: GroupAsk) -> Result<GroupAnswer, GroupError> {
    let command = Command::Group {
        group: GROUP.into(),
        ask: Box::new(ask),
    };
    match applied(gateway.send(&[], vec![command]).await).outcomes.remove(0) {
        Outcome::Group(answer) => answer,
        other => panic!("{other:?}"),
    }
}

async fn state(field: &Field) -> (String, usize) {
    let query = Query::Group {
        group: GROUP.into(),
        question: GroupQuestion::Description,
    };
    let view = field.host.query(SHARD, query, Consistency::Leader).await;
    match view.unwrap() {
        View::Group(said) => match *said {
            GroupSaid::Description(Ok(group)) => (group.state, group.members.len()),
            GroupSaid::Description(Err(GroupError::GroupIdNotFound)) => ("Dead".into(), 0),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// A group of one member that has its assignment.
async fn stable(field: &Field, gateway: &mut Gateway<'_>) {
    let join = GroupAsk::Join(JoinRequest {
        member: MemberIdentity {
            member_id: String::new(),
            ..member()
        },
        drawn_id: member().member_id,
        id_required: false,
        client_id: "client".into(),
        client_host: "127.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![Protocol {
            name: "range".into(),
            metadata: b"topics"[..].into(),
        }],
    });
    ask(gateway, join).await.unwrap();
    pass(2_500).await;
    let sync = GroupAsk::Sync(SyncRequest {
        member: member(),
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: vec![MemberAssignment {
            member_id: member().member_id,
            assignment: b"all"[..].into(),
        }],
    });
    assert_eq!(ask(gateway, sync).await, Ok(GroupAnswer::Done));
    assert_eq!(state(field).await, ("Stable".into(), 1));
}

fn heartbeat() -> GroupAsk {
    GroupAsk::Heartbeat {
        member: member(),
        generation: 1,
    }
}

#[tokio::test(start_paused = true)]
async fn the_leader_takes_who_is_silent_for_dead() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    stable(&field, &mut gateway).await;
    pass(u64::from(SESSION_MS) - 1_000).await;
    assert_eq!(state(&field).await, ("Stable".into(), 1));
    pass(3_000).await;
    assert_eq!(state(&field).await, ("Dead".into(), 0));
}

#[tokio::test(start_paused = true)]
async fn members_that_nobody_could_hear_are_not_taken_for_dead() {
    let field = Field::leading();
    let mut gateway = Gateway::connected(&field, 1).await;
    stable(&field, &mut gateway).await;
    field.host.on_follower(SHARD, None);
    pass(60_000).await;
    field.lead();
    let mut gateway = Gateway::connected(&field, 2).await;
    assert_eq!(ask(&mut gateway, heartbeat()).await, Ok(GroupAnswer::Done));
    pass(u64::from(SESSION_MS) - 1_000).await;
    assert_eq!(state(&field).await, ("Stable".into(), 1));
    pass(3_000).await;
    assert_eq!(
        state(&field).await,
        ("Dead".into(), 0),
        "silent with somebody to hear it"
    );
}
