//! The phases of a group, and how time passes in it: who is dropped, when a rebalance begins, and when it is over.
//!
//! A group has members exactly if it is not empty. Who may come in is decided in `join`, what assigns in `sync`.

use serde::{Deserialize, Serialize};

use super::member::{Member, Pending, Standing, choose_protocol, rebalance_timeout_ms};
use super::offsets::Offsets;
use super::request::MemberIdentity;
use super::{
    GroupError, INITIAL_REBALANCE_DELAY_MS, INITIAL_REBALANCE_DELAY_MS_MAX, MEMBERS_BYTES_MAX, Opaque,
    PENDING_MEMBER_TIMEOUT_MS,
};

/// What a group is doing. Kafka's `Dead` is an absent group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It has no members; offsets it may have.
    Empty {
        /// Since when; 0 if it never had any.
        since_ms: u64,
    },
    /// Members are to join, and are waited for.
    PreparingRebalance {
        /// How long. Who has not joined by then is dropped, unless it is a static member.
        until_ms: u64,
        /// Since when, if the group was empty before: it then waits for whoever may come, not for whom it knows.
        first_since_ms: Option<u64>,
    },
    /// All have joined; the leader's assignment is waited for.
    CompletingRebalance {
        /// How long. Who has not synced by then is dropped.
        until_ms: u64,
    },
    /// Everybody can have an assignment.
    Stable {
        /// How long those are waited for that have not asked for it.
        until_ms: u64,
    },
}

impl Phase {
    /// Kafka's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Phase::Empty { .. } => "Empty",
            Phase::PreparingRebalance { .. } => "PreparingRebalance",
            Phase::CompletingRebalance { .. } => "CompletingRebalance",
            Phase::Stable { .. } => "Stable",
        }
    }
}

/// All that is kept of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Rises with each rebalance that is over, and when the last member goes.
    pub(super) generation: i32,
    pub(super) turn: u64,
    pub(super) phase: Phase,
    /// What the members are, or were when there were any.
    pub(super) protocol_type: Option<String>,
    /// What the current generation chose.
    pub(super) protocol: Option<String>,
    /// Id of the member that assigns.
    pub(super) leader: Option<String>,
    /// In the order in which they came.
    pub(super) members: Vec<Member>,
    /// The oldest first.
    pub(super) pending: Vec<Pending>,
    pub(super) offsets: Offsets,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            generation: 0,
            turn: 0,
            phase: Phase::Empty { since_ms: 0 },
            protocol_type: None,
            protocol: None,
            leader: None,
            members: Vec::new(),
            pending: Vec::new(),
            offsets: Offsets::default(),
        }
    }
}

impl Group {
    /// Whether nothing is left that is worth a place: an absent group is the same. That its generation begins anew does no
    /// harm, since no member of before is known any more.
    pub fn is_absent(&self) -> bool {
        matches!(self.phase, Phase::Empty { .. }) && self.pending.is_empty() && self.offsets.is_empty()
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The current generation; 0 before the first.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Changes whenever somebody who waits may have an answer. A group that was absent counts anew, so whoever waits also
    /// reads now and then without a reason.
    pub fn turn(&self) -> u64 {
        self.turn
    }

    /// When [`tick`](Self::tick) has something to do next, milliseconds since 1970.
    pub fn due_ms(&self) -> Option<u64> {
        let phase = match self.phase {
            Phase::Empty { since_ms } => self.offsets.due_ms(since_ms),
            Phase::PreparingRebalance { until_ms, .. } | Phase::CompletingRebalance { until_ms } => {
                Some(until_ms)
            }
            Phase::Stable { until_ms } => self.has_any(Standing::MustSync).then_some(until_ms),
        };
        let sessions = self.members.iter().filter_map(|member| self.expires_ms(member));
        let pending = self.pending.iter().map(|pending| pending.until_ms);
        sessions.chain(pending).chain(phase).min()
    }

    /// Lets time pass until `now_ms`, which never falls: drops whose time is over, and ends the phase if its is. Twice is
    /// once. When nothing was due, nothing changes. Stamps may come late: whatever begins then begins now.
    pub fn tick(&mut self, now_ms: u64) {
        let is_due = |group: &Self| group.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        if !is_due(self) {
            return;
        }
        self.pending.retain(|pending| pending.until_ms > now_ms);
        let dead = self.members.iter().filter(|member| {
            let expires_ms = self.expires_ms(member);
            expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms)
        });
        let dead: Vec<String> = dead.map(|member| member.id.clone()).collect();
        self.remove_members(&dead, now_ms);
        self.complete_join_if_all_joined(now_ms);
        self.end_phase(now_ms);
        assert!(!is_due(self), "what begins now ends later");
    }

    /// Gives everybody a whole time-out from now, without letting time pass first. For the leader of a shard that could
    /// take no commands for a while: members that could not be heard are not silent. Twice is harmless: the later counts.
    pub fn resume(&mut self, now_ms: u64) {
        for pending in &mut self.pending {
            pending.until_ms = pending.until_ms.max(now_ms + PENDING_MEMBER_TIMEOUT_MS);
        }
        for member in &mut self.members {
            member.renew(now_ms);
        }
        let whole_ms = now_ms + rebalance_timeout_ms(&self.members);
        match &mut self.phase {
            Phase::PreparingRebalance {
                until_ms,
                first_since_ms: None,
            }
            | Phase::CompletingRebalance { until_ms }
            | Phase::Stable { until_ms } => *until_ms = whole_ms.max(*until_ms),
            Phase::Empty { .. } | Phase::PreparingRebalance { .. } => {}
        }
    }

    /// When a member is taken for dead. `None` for one that waits for others, since nobody heartbeats then; that wait has
    /// an end of its own. A first join may be a client that is long gone, so its wait ends by itself.
    fn expires_ms(&self, member: &Member) -> Option<u64> {
        let is_completing = matches!(self.phase, Phase::CompletingRebalance { .. });
        match member.standing {
            Standing::Joined => None,
            Standing::Synced if is_completing => None,
            _ => Some(member.deadline_ms),
        }
    }

    fn has_any(&self, standing: Standing) -> bool {
        self.members.iter().any(|member| member.standing == standing)
    }

    fn end_phase(&mut self, now_ms: u64) {
        match self.phase {
            Phase::Empty { since_ms } => self.offsets.expire(since_ms, now_ms),
            Phase::PreparingRebalance { until_ms, .. } if until_ms <= now_ms => self.complete_join(now_ms),
            Phase::CompletingRebalance { until_ms } | Phase::Stable { until_ms } if until_ms <= now_ms => {
                let late = self
                    .members
                    .iter()
                    .filter(|member| member.standing == Standing::MustSync);
                let late: Vec<String> = late.map(|member| member.id.clone()).collect();
                self.remove_members(&late, now_ms);
            }
            _ => {}
        }
    }

    /// Members that were heard of no more, or left. The others are to join again.
    pub(super) fn remove_members(&mut self, ids: &[String], now_ms: u64) {
        let count = self.members.len();
        self.members.retain(|member| !ids.contains(&member.id));
        if self.members.len() == count {
            return;
        }
        self.turn += 1;
        if self.leader.as_ref().is_some_and(|leader| ids.contains(leader)) {
            self.leader = self.members.first().map(|member| member.id.clone());
        }
        match self.phase {
            _ if self.members.is_empty() => self.become_empty(now_ms),
            Phase::CompletingRebalance { .. } | Phase::Stable { .. } => self.prepare_rebalance(now_ms),
            Phase::Empty { .. } | Phase::PreparingRebalance { .. } => {}
        }
        self.complete_join_if_all_joined(now_ms);
    }

    fn become_empty(&mut self, now_ms: u64) {
        self.raise_generation();
        self.protocol = None;
        self.leader = None;
        self.phase = Phase::Empty { since_ms: now_ms };
    }

    fn raise_generation(&mut self) {
        self.generation = self.next_generation();
        self.turn += 1;
    }

    pub(super) fn next_generation(&self) -> i32 {
        self.generation.checked_add(1).unwrap_or(1)
    }

    /// Begins the join phase of a group that has members: all are to join.
    pub(super) fn prepare_rebalance(&mut self, now_ms: u64) {
        let is_completing = matches!(self.phase, Phase::CompletingRebalance { .. });
        for member in &mut self.members {
            // It waited for its assignment, so it was not asked to give a sign.
            if is_completing && member.standing == Standing::Synced {
                member.restart_session(now_ms);
            }
            member.standing = Standing::MustJoin;
        }
        self.phase = Phase::PreparingRebalance {
            until_ms: now_ms + rebalance_timeout_ms(&self.members),
            first_since_ms: None,
        };
        self.turn += 1;
    }

    /// What the newcomer, who is the last of the members, means for the phase.
    pub(super) fn welcome_newcomer(&mut self, now_ms: u64) {
        match self.phase {
            Phase::Empty { .. } => {
                self.phase = Phase::PreparingRebalance {
                    until_ms: now_ms + INITIAL_REBALANCE_DELAY_MS,
                    first_since_ms: Some(now_ms),
                };
            }
            Phase::PreparingRebalance {
                until_ms,
                first_since_ms: Some(since_ms),
            } => {
                let wait_ms = rebalance_timeout_ms(&self.members).min(INITIAL_REBALANCE_DELAY_MS_MAX);
                let later_ms = (now_ms + INITIAL_REBALANCE_DELAY_MS).min(since_ms + wait_ms);
                self.phase = Phase::PreparingRebalance {
                    until_ms: until_ms.max(later_ms),
                    first_since_ms: Some(since_ms),
                };
            }
            Phase::PreparingRebalance { .. } => {}
            Phase::CompletingRebalance { .. } | Phase::Stable { .. } => self.prepare_rebalance(now_ms),
        }
        let newcomer = self.members.last_mut().expect("the newcomer");
        newcomer.standing = Standing::NewJoined;
        self.leader.get_or_insert_with(|| newcomer.id.clone());
    }

    /// Ends the join phase early, if nobody is waited for.
    pub(super) fn complete_join_if_all_joined(&mut self, now_ms: u64) {
        let is_known = matches!(
            self.phase,
            Phase::PreparingRebalance {
                first_since_ms: None,
                ..
            }
        );
        if is_known && self.pending.is_empty() && !self.has_any(Standing::MustJoin) {
            self.complete_join(now_ms);
        }
    }

    /// The join phase is over: who has joined is the next generation. A static member stays without joining: it may be on
    /// its way, and its session tells when it is not (KIP-345).
    fn complete_join(&mut self, now_ms: u64) {
        let leader = self.leader.clone();
        self.members
            .retain(|member| member.standing != Standing::MustJoin || member.instance_id.is_some());
        if self.members.is_empty() {
            return self.become_empty(now_ms);
        }
        let leads = |member: &&Member| member.standing.has_joined() && Some(&member.id) == leader.as_ref();
        let joined = |member: &&Member| member.standing.has_joined();
        let leader = self.members.iter().find(leads);
        let Some(leader) = leader.or_else(|| self.members.iter().find(joined)) else {
            // None but static members that have not come back: sessions tell which of them do.
            self.leader = self.members.first().map(|member| member.id.clone());
            self.phase = Phase::PreparingRebalance {
                until_ms: now_ms + rebalance_timeout_ms(&self.members),
                first_since_ms: None,
            };
            return;
        };
        self.leader = Some(leader.id.clone());
        let protocol = choose_protocol(&self.members).map(str::to_owned);
        assert!(
            protocol.is_some(),
            "who joins has a protocol in common with all others"
        );
        self.protocol = protocol;
        self.raise_generation();
        for member in &mut self.members {
            member.standing = Standing::MustSync;
            member.assignment = Opaque::default();
            member.restart_session(now_ms);
        }
        self.phase = Phase::CompletingRebalance {
            until_ms: now_ms + rebalance_timeout_ms(&self.members),
        };
    }

    /// The leader has assigned.
    pub(super) fn become_stable(&mut self, now_ms: u64) {
        let Phase::CompletingRebalance { until_ms } = self.phase else {
            panic!("only a generation without an assignment is assigned");
        };
        for member in &mut self.members {
            if member.standing == Standing::Synced {
                member.restart_session(now_ms);
            }
        }
        self.phase = Phase::Stable { until_ms };
        self.turn += 1;
    }

    /// Where the member is, if it is one.
    pub(super) fn place_of(&self, member_id: &str) -> Option<usize> {
        self.members.iter().position(|member| member.id == member_id)
    }

    /// Whether an id was given and not joined with yet.
    pub(super) fn is_pending(&self, member_id: &str) -> bool {
        self.pending.iter().any(|pending| pending.id == member_id)
    }

    /// Where the static member of that instance is, if there is one.
    pub(super) fn place_of_instance(&self, instance_id: &str) -> Option<usize> {
        let is_it = |member: &Member| member.instance_id.as_deref() == Some(instance_id);
        self.members.iter().position(is_it)
    }

    /// Where whoever asks is. `Err` if it is no member, or another client has its instance id.
    pub(super) fn place_of_identity(&self, member: &MemberIdentity) -> Result<usize, GroupError> {
        if let Some(instance_id) = &member.instance_id {
            let place = self.place_of_instance(instance_id);
            let place = place.ok_or(GroupError::UnknownMemberId)?;
            if self.members[place].id != member.member_id {
                return Err(GroupError::FencedInstanceId);
            }
        }
        self.place_of(&member.member_id)
            .ok_or(GroupError::UnknownMemberId)
    }

    /// Makes room for `bytes` more of members, by forgetting ids that were not joined with, the oldest first. `Err` if
    /// there is none even so.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), GroupError> {
        let members: usize = self.members.iter().map(Member::bytes).sum();
        if members + bytes > MEMBERS_BYTES_MAX {
            return Err(GroupError::GroupMaxSizeReached);
        }
        let mut pending: usize = self.pending.iter().map(Pending::bytes).sum();
        let mut forgotten = 0;
        while members + pending + bytes > MEMBERS_BYTES_MAX {
            pending -= self.pending[forgotten].bytes();
            forgotten += 1;
        }
        self.pending.drain(..forgotten);
        Ok(())
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
