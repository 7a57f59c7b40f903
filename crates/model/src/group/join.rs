//! JoinGroup: who comes in, under which id, and whether that makes all others join again.
//!
//! When the join phase is over is decided in `state`.

use super::member::{Member, Pending, Standing, choose_protocol};
use super::request::{JoinRequest, JoinResult, JoinedMember, Joining, MemberIdentity, Protocol};
use super::state::{Group, Phase};
use super::{
    GroupError, MEMBERS_MAX, NEW_MEMBER_JOIN_TIMEOUT_MS, PENDING_MEMBER_TIMEOUT_MS, PENDING_MEMBERS_MAX,
};

/// What a join is.
enum Joiner {
    /// Of a member, at this place.
    Known(usize),
    /// Of a static member that has lost its id and is to have another (KIP-345), at this place.
    Returning(usize),
    /// Of somebody who comes in, under this id.
    New(String),
    /// Of somebody who must first learn its id (KIP-394).
    Unnamed,
}

impl Group {
    /// Records a join. A member that changes nothing is answered by the generation that there is, anybody else by the
    /// next one, after all others have joined, too.
    ///
    /// Twice is harmless: who has joined joins in the same round again, the drawn id tells a first join from its
    /// repetition, also from one that comes after the next client took the instance id. Only if the leader's repetition
    /// comes when the round is over does it cost a second one.
    ///
    /// `Err(MemberIdRequired)` is the way in for who has no id; `UnknownMemberId` and `FencedInstanceId` for whose id is no
    /// longer good, `InvalidSessionTimeout`, `InvalidRequest` and `InconsistentGroupProtocol` for what it asks,
    /// `GroupMaxSizeReached` if there is no room.
    pub fn join(&mut self, request: JoinRequest, now_ms: u64) -> Result<Joining, GroupError> {
        self.tick(now_ms);
        request.check()?;
        let joiner = self.joiner(&request)?;
        let place = match &joiner {
            Joiner::Known(place) | Joiner::Returning(place) => Some(*place),
            Joiner::New(_) | Joiner::Unnamed => None,
        };
        if place.is_none() && self.members.len() >= MEMBERS_MAX {
            self.pending
                .retain(|pending| pending.id != request.member.member_id);
            return Err(GroupError::GroupMaxSizeReached);
        }
        if !self.suits(&request, place) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match joiner {
            Joiner::Known(place) => self.rejoin(place, request, now_ms),
            Joiner::Returning(place) => self.come_back(place, request, now_ms),
            Joiner::New(id) => self.come_in(id, request, now_ms),
            Joiner::Unnamed => Err(self.name(&request.drawn_id, now_ms)),
        }
    }

    /// The answer to a join, as soon as there is one. `generation` is what [`join`](Self::join) named. What is read must
    /// be as new as that join. `Err(UnknownMemberId)` or `Err(FencedInstanceId)` if the member is none any more.
    pub fn join_result(
        &self,
        member: &MemberIdentity,
        generation: i32,
    ) -> Option<Result<JoinResult, GroupError>> {
        let place = match self.place_of_identity(member) {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        let it = &self.members[place];
        if self.generation < generation || it.standing.has_joined() {
            return None;
        }
        // It was answered, and all are to join again before the answer was read. That is still the answer: its sync will
        // be told of the rebalance, which clients take better than a join that fails.
        let is_past = it.standing == Standing::MustJoin;
        let leads = !is_past && self.leader.as_ref() == Some(&it.id);
        let protocol = self.protocol.clone().unwrap_or_default();
        let everybody = self.members.iter().map(|member| JoinedMember {
            member: member.identity(),
            metadata: member.metadata(&protocol),
        });
        Some(Ok(JoinResult {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            leader: self.leader.clone().filter(|_| !is_past).unwrap_or_default(),
            member_id: it.id.clone(),
            members: if leads { everybody.collect() } else { Vec::new() },
            skip_assignment: leads && matches!(self.phase, Phase::Stable { .. }),
            protocol,
        }))
    }

    fn joiner(&self, request: &JoinRequest) -> Result<Joiner, GroupError> {
        let (member, drawn) = (&request.member, &request.drawn_id);
        if !member.member_id.is_empty() {
            return if self.is_pending(&member.member_id) && member.instance_id.is_none() {
                Ok(Joiner::New(member.member_id.clone()))
            } else {
                self.place_of_identity(member).map(Joiner::Known)
            };
        }
        if let Some(instance_id) = &member.instance_id {
            let place = self.place_of_instance(instance_id);
            let it = place.map(|place| (place, &self.members[place]));
            let is_taken = self.is_pending(drawn) || self.place_of(drawn).is_some();
            return match it {
                Some((place, it)) if it.id == *drawn => Ok(Joiner::Known(place)),
                Some((_, it)) if it.former_id.as_ref() == Some(drawn) => Err(GroupError::FencedInstanceId),
                // The door drew an id that is another's.
                Some(_) | None if is_taken => Err(GroupError::InvalidRequest),
                Some((place, _)) => Ok(Joiner::Returning(place)),
                None => Ok(Joiner::New(drawn.clone())),
            };
        }
        match self.place_of(drawn) {
            Some(_) if request.id_required => Err(GroupError::MemberIdRequired {
                member_id: drawn.clone(),
            }),
            Some(place) => Ok(Joiner::Known(place)),
            None if request.id_required => Ok(Joiner::Unnamed),
            None => Ok(Joiner::New(drawn.clone())),
        }
    }

    /// Whether the request has the group's type, and a protocol that all members offer but the one at `place`.
    fn suits(&self, request: &JoinRequest, place: Option<usize>) -> bool {
        if self.members.is_empty() {
            return true;
        }
        let is_common = |protocol: &Protocol| {
            let mut members = self.members.iter().enumerate();
            members.all(|(other, member)| Some(other) == place || member.offers(&protocol.name))
        };
        self.protocol_type.as_ref() == Some(&request.protocol_type) && request.protocols.iter().any(is_common)
    }

    /// Keeps the id that was drawn, until it is joined with. Returns what its bearer is told.
    fn name(&mut self, drawn: &str, now_ms: u64) -> GroupError {
        let pending = Pending {
            id: drawn.to_owned(),
            until_ms: now_ms + PENDING_MEMBER_TIMEOUT_MS,
        };
        self.pending.retain(|other| other.id != pending.id);
        if self.pending.len() >= PENDING_MEMBERS_MAX {
            self.pending.remove(0);
        }
        if let Err(error) = self.make_room(pending.bytes()) {
            return error;
        }
        self.pending.push(pending);
        GroupError::MemberIdRequired {
            member_id: drawn.to_owned(),
        }
    }

    fn come_in(&mut self, id: String, request: JoinRequest, now_ms: u64) -> Result<Joining, GroupError> {
        let protocol_type = request.protocol_type.clone();
        let member = Member::new(id.clone(), request, now_ms);
        self.pending.retain(|pending| pending.id != id);
        self.make_room(member.bytes())?;
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type);
        }
        self.members.push(member);
        self.welcome_newcomer(now_ms);
        self.complete_join_if_all_joined(now_ms);
        Ok(self.joining(id))
    }

    fn rejoin(&mut self, place: usize, request: JoinRequest, now_ms: u64) -> Result<Joining, GroupError> {
        let member = &self.members[place];
        let id = member.id.clone();
        let is_unchanged = member.protocols == request.protocols;
        // A leader that joins wants another assignment, though it may say the same: partitions were added, say. One that
        // has no id yet is only told so twice.
        let asks_anew = self.leader.as_ref() == Some(&id) && !request.member.member_id.is_empty();
        let is_answered = match self.phase {
            Phase::CompletingRebalance { .. } => is_unchanged,
            Phase::Stable { .. } => is_unchanged && !asks_anew,
            Phase::Empty { .. } | Phase::PreparingRebalance { .. } => false,
        };
        if is_answered {
            self.members[place].renew(now_ms);
            return Ok(self.joining(id));
        }
        let mut member = self.members[place].clone();
        member.update(request, now_ms);
        self.replace(place, member)?;
        if !self.members[place].standing.is_of_join_phase() {
            self.prepare_rebalance(now_ms);
        }
        self.set_joined(place, now_ms);
        self.complete_join_if_all_joined(now_ms);
        Ok(self.joining(id))
    }

    /// A static member without an id: the client was started again. It takes over what was assigned to the one before,
    /// and nobody else notices, unless the group would now choose another protocol, or the leader has the old id in hand.
    fn come_back(&mut self, place: usize, request: JoinRequest, now_ms: u64) -> Result<Joining, GroupError> {
        let id = request.drawn_id.clone();
        let mut member = self.members[place].clone();
        let former_id = std::mem::replace(&mut member.id, id.clone());
        member.former_id = Some(former_id.clone());
        member.client_id.clone_from(&request.client_id);
        member.client_host.clone_from(&request.client_host);
        member.update(request, now_ms);
        self.replace(place, member)?;
        if self.leader == Some(former_id) {
            self.leader = Some(id.clone());
        }
        // Whoever waits under the old id is to hear that it is another's now.
        self.turn += 1;
        let is_unnoticed = match self.phase {
            Phase::Stable { .. } => choose_protocol(&self.members) == self.protocol.as_deref(),
            _ => false,
        };
        if !is_unnoticed {
            if !self.members[place].standing.is_of_join_phase() {
                self.prepare_rebalance(now_ms);
            }
            self.members[place].standing = Standing::Joined;
            self.complete_join_if_all_joined(now_ms);
        }
        Ok(self.joining(id))
    }

    /// Puts what a member now is in the place of what it was. `Err` if there is no room for it.
    fn replace(&mut self, place: usize, member: Member) -> Result<(), GroupError> {
        let before = std::mem::replace(&mut self.members[place], member);
        let answer = self.make_room(0);
        if answer.is_err() {
            self.members[place] = before;
        }
        answer
    }

    fn set_joined(&mut self, place: usize, now_ms: u64) {
        let member = &mut self.members[place];
        if member.standing == Standing::NewJoined {
            // It is still there, so it may wait as long again.
            member.deadline_ms = now_ms + NEW_MEMBER_JOIN_TIMEOUT_MS;
        } else {
            member.standing = Standing::Joined;
        }
    }

    fn joining(&self, member_id: String) -> Joining {
        let generation = match self.phase {
            Phase::PreparingRebalance { .. } => self.next_generation(),
            _ => self.generation,
        };
        Joining {
            member_id,
            generation,
        }
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
