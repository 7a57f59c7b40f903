//! Any commands in any order, sensible or not: the group stays sound, replicas agree, and twice is once.

use proptest::prelude::*;
use proptest::sample::select;

use super::super::offsets::CommittedOffset;
use super::super::request::TopicPartition;
use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Time passes, and nobody looks.
    Pass(u64),
    Join(JoinRequest),
    /// Of a generation that is as far off, with assignments of so many bytes.
    Sync(MemberIdentity, i32, usize),
    Heartbeat(MemberIdentity, i32),
    Leave(Vec<MemberIdentity>),
    Commit(MemberIdentity, i32, i32),
    Forget(i32),
    Delete,
    Resume,
    Tick,
}

const IDS: [&str; 5] = ["", "a", "b", "c", "d"];

fn identity() -> impl Strategy<Value = MemberIdentity> {
    let instance = prop_oneof![3 => Just(None), 2 => select(vec![Some("i"), Some("j")])];
    (select(IDS.to_vec()), instance).prop_map(|(id, instance)| MemberIdentity {
        member_id: id.to_owned(),
        instance_id: instance.map(str::to_owned),
    })
}

fn join() -> impl Strategy<Value = Step> {
    let offers = select(vec![
        vec!["range"],
        vec!["range", "sticky"],
        vec!["sticky", "range"],
        vec!["sticky"],
        vec![],
    ]);
    let protocol_type = prop_oneof![9 => Just("consumer"), 1 => Just("connect")];
    let drawn = select(IDS.to_vec());
    let metadata = prop_oneof![9 => 0..3_usize, 1 => Just(12 * 1024)];
    let timeouts = (5_000..30_000_u32, 0..60_000_u32);
    (
        identity(),
        drawn,
        any::<bool>(),
        offers,
        protocol_type,
        metadata,
        timeouts,
    )
        .prop_map(
            |(member, drawn, id_required, names, protocol_type, metadata, (session_ms, rebalance_ms))| {
                let protocols = names.into_iter().map(|name| Protocol {
                    name: name.to_owned(),
                    metadata: vec![1; metadata].into(),
                });
                Step::Join(JoinRequest {
                    member,
                    drawn_id: drawn.to_owned(),
                    id_required,
                    session_timeout_ms: session_ms,
                    rebalance_timeout_ms: rebalance_ms,
                    protocol_type: protocol_type.to_owned(),
                    protocols: protocols.collect(),
                    ..join_request("")
                })
            },
        )
}

fn step() -> impl Strategy<Value = Step> {
    let off = || prop_oneof![8 => Just(0), 1 => -1..2_i32, 1 => Just(-1_000)];
    prop_oneof![
        4 => prop_oneof![9 => 0..20_000_u64, 1 => Just(8 * 24 * 3_600_000)].prop_map(Step::Pass),
        8 => join(),
        4 => (identity(), off(), prop_oneof![9 => 0..9_usize, 1 => Just(60_000)])
            .prop_map(|(member, off, bytes)| Step::Sync(member, off, bytes)),
        2 => (identity(), off()).prop_map(|(member, off)| Step::Heartbeat(member, off)),
        1 => prop::collection::vec(identity(), 0..3).prop_map(Step::Leave),
        2 => (identity(), off(), 0..3).prop_map(|(member, off, partition)| Step::Commit(member, off, partition)),
        1 => (0..3).prop_map(Step::Forget),
        1 => Just(Step::Delete),
        1 => Just(Step::Resume),
        2 => Just(Step::Tick),
    ]
}

fn sync_of(member: &MemberIdentity, generation: i32, bytes: usize) -> SyncRequest {
    let parts = IDS[1..].iter().map(|id| MemberAssignment {
        member_id: (*id).to_owned(),
        assignment: vec![2; bytes].into(),
    });
    SyncRequest {
        member: member.clone(),
        generation,
        protocol_type: None,
        protocol: None,
        assignments: parts.collect(),
    }
}

/// The step with a generation in place of how far it is off.
fn settled(mut step: Step, group: &Group) -> Step {
    if let Step::Sync(_, off, _) | Step::Heartbeat(_, off) | Step::Commit(_, off, _) = &mut step {
        *off = group.generation().saturating_add(*off);
    }
    step
}

/// What a step is answered, as text.
fn take(group: &mut Group, step: &Step, now_ms: u64) -> String {
    match step {
        Step::Pass(_) => String::new(),
        Step::Join(request) => format!("{:?}", group.join(request.clone(), now_ms)),
        Step::Sync(member, generation, bytes) => {
            let request = sync_of(member, *generation, *bytes);
            format!("{:?}", group.sync(&request, now_ms))
        }
        Step::Heartbeat(member, generation) => {
            let is_fresh = group.is_heartbeat_fresh(member, *generation, now_ms);
            let answer = group.heartbeat(member, *generation, now_ms);
            assert!(!is_fresh || answer == Ok(()), "what was fresh is well");
            format!("{answer:?}")
        }
        Step::Leave(leaving) => format!("{:?}", group.leave(leaving, now_ms)),
        Step::Commit(member, generation, partition) => {
            let request = CommitRequest {
                member: member.clone(),
                generation: *generation,
                offsets: vec![commit_of("t", *partition, 1)],
            };
            format!("{:?}", group.commit(&request, now_ms))
        }
        Step::Forget(partition) => {
            let partition = TopicPartition {
                topic: "t".into(),
                partition: *partition,
            };
            format!("{:?}", group.delete_offsets(&[partition], now_ms))
        }
        Step::Delete => format!("{:?}", group.delete(now_ms)),
        Step::Resume => {
            // Without time: what is overdue then is for the next to see.
            group.resume(now_ms);
            group.tick(now_ms);
            String::new()
        }
        Step::Tick => {
            group.tick(now_ms);
            String::new()
        }
    }
}

/// Everybody may read at any time.
fn read(group: &Group) {
    for id in IDS {
        for instance_id in [None, Some("i".to_owned())] {
            let member = MemberIdentity {
                member_id: id.to_owned(),
                instance_id,
            };
            for generation in [-1, group.generation(), group.generation() + 1] {
                if let Some(Ok(result)) = group.join_result(&member, generation) {
                    assert!(!result.protocol.is_empty() && result.generation >= generation);
                    assert!(result.members.is_empty() || result.leader == result.member_id);
                }
                let _ = group.sync_result(&member, generation);
            }
        }
    }
    assert_eq!(group.list().is_some(), group.describe().is_ok());
    let is_older = |offset: &CommittedOffset| offset.leader_epoch.is_none();
    assert!(group.offsets().iter().all(|(_, _, offset)| is_older(offset)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_commands_leave_a_sound_group(steps in prop::collection::vec(step(), 1..80)) {
        let mut desk = Desk::new();
        desk.now_ms = 1_000_000;
        for step in steps {
            if let Step::Pass(ms) = step {
                desk.now_ms += ms;
                continue;
            }
            let step = settled(step, &desk.group);
            let mut replica = desk.group.clone();
            let answer = desk.apply(|group, now_ms| take(group, &step, now_ms));
            prop_assert_eq!(take(&mut replica, &step, desk.now_ms), answer);
            prop_assert_eq!(&replica, &desk.group);
            read(&replica);
            take(&mut replica, &step, desk.now_ms);
            prop_assert_eq!(&replica, &desk.group, "twice is once: {:?}", step);
        }
    }
}
