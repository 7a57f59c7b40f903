//! A consumer as librdkafka is one (`rdkafka_cgrp.c`, the classic protocol, eager): which request it sends next, and what
//! it makes of the answer. It knows nothing of the group but what it is told.

use super::super::super::request::{
    CommitRequest, JoinRequest, JoinResult, JoinedMember, MemberAssignment, MemberIdentity, SyncRequest,
    SyncResult,
};
use super::super::super::{GroupError, Opaque};
use super::super::{REBALANCE_MS, SESSION_MS, commit_of, first_request, text_of};
use super::Random;

pub(super) const PARTITIONS: i32 = 12;
const HEARTBEAT_MS: u64 = 3_000;
const JOIN_BACKOFF_MS: u64 = 1_000;
const GRACE_MS: u64 = 3_000;

#[derive(Debug, Clone)]
pub(super) enum Command {
    Join(JoinRequest),
    Sync(SyncRequest),
    Heartbeat(MemberIdentity, i32),
    Commit(CommitRequest),
    Leave(MemberIdentity),
}

#[derive(Debug, Clone)]
pub(super) enum Answer {
    Join(Result<JoinResult, GroupError>),
    Sync(Result<SyncResult, GroupError>),
    Heartbeat(Result<(), GroupError>),
}

#[derive(Debug, Clone)]
enum State {
    /// Joins when the time has come.
    Init,
    WaitJoin,
    /// Leads, and looks up partitions before it assigns.
    WaitMetadata {
        members: Vec<JoinedMember>,
        ready_ms: u64,
    },
    WaitSync,
    Steady,
    /// The application lets go of its partitions.
    Revoking {
        ready_ms: u64,
    },
    Gone,
}

#[derive(Debug)]
pub(super) struct Client {
    instance_id: Option<String>,
    pub(super) member_id: String,
    pub(super) generation: i32,
    state: State,
    /// What it was assigned.
    pub(super) owned: Vec<i32>,
    /// The number of its last request, and when it gives up waiting for the answer.
    request: u64,
    request_ends_ms: u64,
    join_ms: u64,
    heartbeat_ms: u64,
    /// The heartbeat that is under way.
    heartbeat: Option<u64>,
    heard_ms: u64,
    commit_ms: u64,
    offset: i64,
}

impl Client {
    pub(super) fn new(instance_id: Option<String>, now_ms: u64) -> Self {
        Self {
            instance_id,
            member_id: String::new(),
            generation: -1,
            state: State::Init,
            owned: Vec::new(),
            request: 0,
            request_ends_ms: 0,
            join_ms: now_ms,
            heartbeat_ms: 0,
            heartbeat: None,
            heard_ms: 0,
            commit_ms: 0,
            offset: 0,
        }
    }

    pub(super) fn identity(&self) -> MemberIdentity {
        MemberIdentity {
            member_id: self.member_id.clone(),
            instance_id: self.instance_id.clone(),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }

    pub(super) fn is_steady(&self) -> bool {
        matches!(self.state, State::Steady)
    }

    pub(super) fn die(&mut self) {
        self.state = State::Gone;
    }

    /// Whether anybody still listens for the answer to a request.
    pub(super) fn awaits(&self, request: u64) -> bool {
        let is_waiting = matches!(self.state, State::WaitJoin | State::WaitSync);
        (is_waiting && self.request == request) || self.heartbeat == Some(request)
    }

    /// When it does something of its own accord.
    pub(super) fn wake_ms(&self) -> Option<u64> {
        match self.state {
            State::Init => Some(self.join_ms),
            State::WaitJoin | State::WaitSync => Some(self.request_ends_ms),
            State::WaitMetadata { ready_ms, .. } => Some(ready_ms),
            State::Revoking { ready_ms } => Some(ready_ms.min(self.heartbeat_ms)),
            State::Steady => Some(self.heartbeat_ms.min(self.commit_ms)),
            State::Gone => None,
        }
    }

    /// Does what is due, and returns what it sends, with the number under which it waits for the answer.
    pub(super) fn wake(&mut self, now_ms: u64, random: &mut Random) -> Vec<(u64, Command)> {
        if self.wake_ms().is_none_or(|wake_ms| wake_ms > now_ms) {
            return Vec::new();
        }
        match std::mem::replace(&mut self.state, State::Init) {
            State::Init => {
                self.state = State::WaitJoin;
                self.join_ms = now_ms + JOIN_BACKOFF_MS;
                let drawn_id = random.id();
                let request = JoinRequest {
                    member: self.identity(),
                    ..first_request(&drawn_id)
                };
                let wait_ms = u64::from(REBALANCE_MS) + GRACE_MS;
                vec![self.send(Command::Join(request), now_ms + wait_ms, random)]
            }
            // The answer did not come. It joins again, under the same id.
            State::WaitJoin | State::WaitSync => Vec::new(),
            State::WaitMetadata { members, .. } => {
                let parts = self.assign(&members, random);
                vec![self.sync(parts, now_ms, random)]
            }
            State::Revoking { ready_ms } if ready_ms > now_ms => {
                self.state = State::Revoking { ready_ms };
                vec![self.heartbeat(now_ms, random)]
            }
            State::Revoking { .. } => {
                self.owned.clear();
                self.join_ms = now_ms;
                Vec::new()
            }
            State::Steady => self.keep_up(now_ms, random),
            State::Gone => unreachable!("the dead do not wake"),
        }
    }

    fn keep_up(&mut self, now_ms: u64, random: &mut Random) -> Vec<(u64, Command)> {
        let mut sent = Vec::new();
        if self.heard_ms + u64::from(SESSION_MS) < now_ms {
            self.forget_membership(now_ms);
            return sent;
        }
        self.state = State::Steady;
        if self.commit_ms <= now_ms {
            self.commit_ms = now_ms + 500 + random.below(4_000);
            sent.extend(self.commit());
        }
        if self.heartbeat_ms <= now_ms {
            sent.push(self.heartbeat(now_ms, random));
        }
        sent
    }

    fn heartbeat(&mut self, now_ms: u64, random: &mut Random) -> (u64, Command) {
        self.heartbeat_ms = now_ms + HEARTBEAT_MS;
        let number = random.number();
        self.heartbeat = Some(number);
        (number, Command::Heartbeat(self.identity(), self.generation))
    }

    fn commit(&mut self) -> Option<(u64, Command)> {
        self.offset += 1;
        let offsets = self
            .owned
            .iter()
            .map(|partition| commit_of("topic", *partition, self.offset));
        let request = CommitRequest {
            member: self.identity(),
            generation: self.generation,
            offsets: offsets.collect(),
        };
        (!request.offsets.is_empty()).then_some((0, Command::Commit(request)))
    }

    fn send(&mut self, command: Command, ends_ms: u64, random: &mut Random) -> (u64, Command) {
        self.request = random.number();
        self.request_ends_ms = ends_ms;
        (self.request, command)
    }

    fn sync(
        &mut self,
        assignments: Vec<MemberAssignment>,
        now_ms: u64,
        random: &mut Random,
    ) -> (u64, Command) {
        self.state = State::WaitSync;
        let request = SyncRequest {
            member: self.identity(),
            generation: self.generation,
            protocol_type: None,
            protocol: None,
            assignments,
        };
        self.send(
            Command::Sync(request),
            now_ms + u64::from(SESSION_MS) + GRACE_MS,
            random,
        )
    }

    /// Each partition goes to one member; the number in front tells this assignment from any other.
    fn assign(&self, members: &[JoinedMember], random: &mut Random) -> Vec<MemberAssignment> {
        let mark = random.number();
        let part = |(place, it): (usize, &JoinedMember)| {
            let owned = (0..PARTITIONS).filter(|partition| *partition as usize % members.len() == place);
            let owned: Vec<String> = owned.map(|partition| partition.to_string()).collect();
            MemberAssignment {
                member_id: it.member.member_id.clone(),
                assignment: format!("{mark}:{}", owned.join(",")).into_bytes().into(),
            }
        };
        members.iter().enumerate().map(part).collect()
    }

    fn forget_membership(&mut self, now_ms: u64) {
        self.member_id.clear();
        self.owned.clear();
        self.state = State::Init;
        self.join_ms = self.join_ms.max(now_ms);
    }

    /// Hears an answer. Whoever asked may have given up.
    pub(super) fn hear(
        &mut self,
        (request, answer): (u64, Answer),
        now_ms: u64,
        random: &mut Random,
    ) -> Vec<(u64, Command)> {
        if !self.awaits(request) {
            return Vec::new();
        }
        match answer {
            Answer::Join(Ok(result)) => return self.joined(result, now_ms, random),
            Answer::Sync(Ok(result)) => {
                self.owned = partitions(&result.assignment);
                self.state = State::Steady;
                self.heard_ms = now_ms;
                self.heartbeat_ms = now_ms;
                self.commit_ms = now_ms + random.below(4_000);
            }
            Answer::Heartbeat(Ok(())) => {
                self.heartbeat = None;
                self.heard_ms = now_ms;
            }
            Answer::Heartbeat(Err(GroupError::RebalanceInProgress)) => {
                self.heartbeat = None;
                self.heard_ms = now_ms;
                if self.is_steady() {
                    let ready_ms = now_ms + random.revoke_ms();
                    self.state = State::Revoking { ready_ms };
                    return self.commit().into_iter().collect();
                }
            }
            Answer::Heartbeat(Err(error)) => {
                self.heartbeat = None;
                if matches!(self.state, State::Steady | State::Revoking { .. }) {
                    self.fail(error, now_ms);
                }
            }
            Answer::Join(Err(error)) | Answer::Sync(Err(error)) => self.fail(error, now_ms),
        }
        Vec::new()
    }

    fn joined(&mut self, result: JoinResult, now_ms: u64, random: &mut Random) -> Vec<(u64, Command)> {
        self.generation = result.generation;
        self.member_id.clone_from(&result.member_id);
        // It speaks version 5, so its gateway tells it of no leader when there is nothing to assign.
        if result.leader == self.member_id && !result.skip_assignment {
            let ready_ms = now_ms + random.below(500);
            self.state = State::WaitMetadata {
                members: result.members,
                ready_ms,
            };
            return Vec::new();
        }
        vec![self.sync(Vec::new(), now_ms, random)]
    }

    fn fail(&mut self, error: GroupError, now_ms: u64) {
        self.owned.clear();
        self.state = State::Init;
        self.join_ms = self.join_ms.max(now_ms);
        match error {
            GroupError::MemberIdRequired { member_id } => {
                self.member_id = member_id;
                self.join_ms = now_ms;
            }
            GroupError::UnknownMemberId => self.member_id.clear(),
            GroupError::IllegalGeneration => self.generation = -1,
            GroupError::FencedInstanceId => self.state = State::Gone,
            GroupError::RebalanceInProgress => {}
            error => panic!("no client has reason to be told {error:?}"),
        }
    }
}

/// The partitions in an assignment.
pub(super) fn partitions(assignment: &Opaque) -> Vec<i32> {
    let text = text_of(assignment);
    let owned = text.split_once(':').map_or("", |(_, owned)| owned);
    owned
        .split(',')
        .filter_map(|partition| partition.parse().ok())
        .collect()
}
