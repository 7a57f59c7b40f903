//! A desk at which groups are tried: each operation goes through what is stored, and leaves a sound group behind.

mod instance;
mod life;
mod simulation;
mod sizes;
mod stray;

use std::collections::BTreeSet;

use super::member::Standing;
use super::request::{
    CommitRequest, JoinRequest, JoinResult, MemberAssignment, MemberIdentity, OffsetCommit, Protocol,
    SyncRequest, SyncResult,
};
use super::{GROUP_BYTES_MAX, Group, GroupError, Opaque, Phase};

pub(super) const SESSION_MS: u32 = 10_000;
pub(super) const REBALANCE_MS: u32 = 30_000;

/// Who names an instance as `i1/a` is a static member.
pub(super) fn who(name: &str) -> MemberIdentity {
    let (instance_id, member_id) = match name.split_once('/') {
        Some((instance_id, member_id)) => (Some(instance_id.to_owned()), member_id),
        None => (None, name),
    };
    MemberIdentity {
        member_id: member_id.to_owned(),
        instance_id,
    }
}

pub(super) fn protocol(name: &str, metadata: &str) -> Protocol {
    Protocol {
        name: name.to_owned(),
        metadata: metadata.as_bytes().into(),
    }
}

/// A join under the id `name`, with what librdkafka would offer.
pub(super) fn join_request(name: &str) -> JoinRequest {
    JoinRequest {
        member: who(name),
        drawn_id: String::new(),
        id_required: true,
        client_id: "rdkafka".into(),
        client_host: "/10.0.0.1".into(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".into(),
        protocols: vec![protocol("range", "topic"), protocol("roundrobin", "topic")],
    }
}

/// A first join, to be given the id `name`.
pub(super) fn first_request(name: &str) -> JoinRequest {
    let mut request = join_request(name);
    request.drawn_id = std::mem::take(&mut request.member.member_id);
    request
}

pub(super) fn sync_request(name: &str, generation: i32, parts: &[(&str, &str)]) -> SyncRequest {
    let part = |(member_id, assignment): &(&str, &str)| MemberAssignment {
        member_id: (*member_id).to_owned(),
        assignment: assignment.as_bytes().into(),
    };
    SyncRequest {
        member: who(name),
        generation,
        protocol_type: None,
        protocol: None,
        assignments: parts.iter().map(part).collect(),
    }
}

pub(super) fn commit_of(topic: &str, partition: i32, offset: i64) -> OffsetCommit {
    OffsetCommit {
        topic: topic.to_owned(),
        partition,
        offset,
        leader_epoch: None,
        metadata: String::new(),
    }
}

/// A group, and what the clock says.
#[derive(Debug, Clone, Default)]
pub(super) struct Desk {
    pub(super) group: Group,
    pub(super) now_ms: u64,
    steps: usize,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A stable group of these members, of which the first leads and does "all".
    pub(super) fn stable(names: &[&str]) -> Self {
        let mut desk = Self::new();
        desk.join_all(names);
        desk.sync_all(names);
        desk
    }

    /// The coordinator moves: what is stored is all there is. Then the operation, at the desk's time.
    pub(super) fn apply<T>(&mut self, operation: impl FnOnce(&mut Group, u64) -> T) -> T {
        // Of a large group it moves only now and then, or these tests would take minutes.
        self.steps += 1;
        let size = self.group.members.len() + self.group.offsets.len();
        if self.steps.is_multiple_of(1 + size / 16) {
            self.store();
        }
        let answer = operation(&mut self.group, self.now_ms);
        assert_sound(&self.group);
        let due_ms = self.group.due_ms();
        assert!(
            due_ms.is_none_or(|due_ms| due_ms > self.now_ms),
            "no time is left over"
        );
        answer
    }

    fn store(&mut self) {
        let text = serde_json::to_vec(&self.group).expect("text");
        assert!(text.len() <= GROUP_BYTES_MAX, "{} bytes", text.len());
        let stored: Group = serde_json::from_slice(&text).expect("a group");
        assert_eq!(stored, self.group);
        self.group = stored;
    }

    /// Time passes, and the group is looked at whenever it asked for it.
    pub(super) fn wait(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while let Some(due_ms) = self.group.due_ms().filter(|due_ms| *due_ms <= end_ms) {
            self.now_ms = due_ms - 1;
            let before = self.group.clone();
            self.apply(Group::tick);
            assert_eq!(self.group, before, "nothing happens before it is due");
            self.now_ms = due_ms;
            self.apply(Group::tick);
            assert_ne!(self.group, before, "something happens when it is due");
        }
        self.now_ms = end_ms;
        self.apply(Group::tick);
    }

    /// Joins, and returns the generation that answers, or the error.
    pub(super) fn join(&mut self, request: JoinRequest) -> Result<i32, GroupError> {
        let joining = self.apply(|group, now_ms| group.join(request, now_ms));
        joining.map(|joining| joining.generation)
    }

    /// A member that has no id yet goes both ways.
    pub(super) fn come(&mut self, name: &str) -> i32 {
        let member = who(name);
        if member.instance_id.is_some() {
            return self.join(first_request(name)).expect("a place");
        }
        let named = Err(GroupError::MemberIdRequired {
            member_id: member.member_id,
        });
        assert_eq!(self.join(first_request(name)), named);
        self.join(join_request(name)).expect("a place")
    }

    /// Members come to an empty group, and wait for each other.
    pub(super) fn join_all(&mut self, names: &[&str]) {
        for name in names {
            self.come(name);
        }
        self.wait(super::INITIAL_REBALANCE_DELAY_MS);
        assert_eq!(self.word(), "CompletingRebalance");
    }

    /// All sync, and the leader gives "all" to itself.
    pub(super) fn sync_all(&mut self, names: &[&str]) {
        let leader = self.group.leader.clone().expect("a leader");
        let generation = self.group.generation();
        for name in names {
            let leads = who(name).member_id == leader;
            let parts = [(leader.as_str(), "all")];
            assert_eq!(
                self.sync(name, generation, if leads { &parts } else { &[] }),
                Ok(())
            );
        }
        assert_eq!(self.word(), "Stable");
    }

    pub(super) fn sync(
        &mut self,
        name: &str,
        generation: i32,
        parts: &[(&str, &str)],
    ) -> Result<(), GroupError> {
        let request = sync_request(name, generation, parts);
        self.apply(|group, now_ms| group.sync(&request, now_ms))
    }

    pub(super) fn heartbeat(&mut self, name: &str, generation: i32) -> Result<(), GroupError> {
        self.apply(|group, now_ms| group.heartbeat(&who(name), generation, now_ms))
    }

    pub(super) fn leave(&mut self, names: &[&str]) -> Vec<Result<(), GroupError>> {
        let leaving: Vec<MemberIdentity> = names.iter().map(|name| who(name)).collect();
        self.apply(|group, now_ms| group.leave(&leaving, now_ms))
            .expect("a short list")
    }

    pub(super) fn commit(&mut self, name: &str, generation: i32, offset: i64) -> Result<(), GroupError> {
        let request = CommitRequest {
            member: who(name),
            generation,
            offsets: vec![commit_of("topic", 0, offset)],
        };
        let answers = self.apply(|group, now_ms| group.commit(&request, now_ms));
        answers.map(|answers| assert_eq!(answers, [Ok(())]))
    }

    pub(super) fn join_result(&self, name: &str, generation: i32) -> Option<Result<JoinResult, GroupError>> {
        self.group.join_result(&who(name), generation)
    }

    pub(super) fn sync_result(&self, name: &str, generation: i32) -> Option<Result<SyncResult, GroupError>> {
        self.group.sync_result(&who(name), generation)
    }

    /// What the member was assigned, as text.
    pub(super) fn assignment(&self, name: &str, generation: i32) -> String {
        let result = self
            .sync_result(name, generation)
            .expect("an answer")
            .expect("a result");
        text_of(&result.assignment)
    }

    pub(super) fn word(&self) -> &'static str {
        self.group.phase().word()
    }

    pub(super) fn member_ids(&self) -> Vec<&str> {
        self.group
            .members
            .iter()
            .map(|member| member.id.as_str())
            .collect()
    }
}

pub(super) fn text_of(opaque: &Opaque) -> String {
    String::from_utf8(opaque.0.to_vec()).expect("text")
}

/// What holds of every group at every time.
pub(super) fn assert_sound(group: &Group) {
    let members = &group.members;
    let is_empty = matches!(group.phase, Phase::Empty { .. });
    assert_eq!(is_empty, members.is_empty(), "empty is what has no members");
    let ids: BTreeSet<&str> = members.iter().map(|member| member.id.as_str()).collect();
    assert_eq!(ids.len(), members.len(), "ids are unique");
    let instances: Vec<&String> = members
        .iter()
        .filter_map(|member| member.instance_id.as_ref())
        .collect();
    let distinct: BTreeSet<&&String> = instances.iter().collect();
    assert_eq!(distinct.len(), instances.len(), "instances are unique");
    assert!(
        group
            .pending
            .iter()
            .all(|pending| !ids.contains(pending.id.as_str()))
    );
    let leader = group.leader.as_deref();
    assert_eq!(leader.is_some(), !is_empty, "who has members has a leader");
    assert!(leader.is_none_or(|leader| ids.contains(leader)), "a member leads");
    assert!(is_empty || group.protocol_type.is_some());
    let is_joining = matches!(group.phase, Phase::PreparingRebalance { .. });
    let is_settled = !is_empty && !is_joining;
    assert!(
        members
            .iter()
            .all(|member| member.standing.is_of_join_phase() == is_joining)
    );
    assert!(!is_settled || group.protocol.is_some(), "a generation has chosen");
    if let Phase::PreparingRebalance {
        first_since_ms: Some(_),
        ..
    } = group.phase
    {
        let must_join = |member: &&super::member::Member| member.standing == Standing::MustJoin;
        assert_eq!(
            members.iter().find(must_join),
            None,
            "there is nobody to come back"
        );
    }
    let chosen = super::member::choose_protocol(members);
    assert!(
        is_empty || chosen.is_some(),
        "all members have something in common"
    );
    let is_stable = matches!(group.phase, Phase::Stable { .. });
    let is_fresh = matches!(group.phase, Phase::CompletingRebalance { .. });
    assert!(!is_fresh || members.iter().all(|member| member.assignment.is_empty()));
    assert!(!is_stable || group.generation > 0);
}
