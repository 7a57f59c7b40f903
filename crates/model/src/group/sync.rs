//! SyncGroup: the leader's assignment comes in, and everybody's part of it goes out.

use super::member::Standing;
use super::request::{MemberIdentity, SyncRequest, SyncResult};
use super::state::{Group, Phase};
use super::{ASSIGNMENTS_BYTES_MAX, GroupError, Opaque};

impl Group {
    /// Records that a member wants its assignment, and takes over the assignment that the leader brings. Whom the leader
    /// leaves out is assigned nothing; whom the group does not know is left out.
    ///
    /// Twice is harmless: a generation is assigned once, and what a leader brings after that is not looked at.
    ///
    /// `Err(UnknownMemberId)`, `FencedInstanceId` or `IllegalGeneration` for who is not of the generation,
    /// `RebalanceInProgress` if it is over, `InconsistentGroupProtocol` if it was told otherwise, `InvalidRequest` if the
    /// assignment is too large.
    pub fn sync(&mut self, request: &SyncRequest, now_ms: u64) -> Result<(), GroupError> {
        self.tick(now_ms);
        request.check()?;
        let place = self.place_of_identity(&request.member)?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let is_assigned = match self.phase {
            Phase::Empty { .. } => panic!("a group with a member is not empty"),
            Phase::PreparingRebalance { .. } => return Err(GroupError::RebalanceInProgress),
            Phase::CompletingRebalance { .. } => false,
            Phase::Stable { .. } => true,
        };
        let assigns = !is_assigned && self.leader.as_ref() == Some(&request.member.member_id);
        if assigns {
            self.assign(request)?;
        }
        let member = &mut self.members[place];
        member.standing = Standing::Synced;
        member.renew(now_ms);
        if assigns {
            self.become_stable(now_ms);
        }
        Ok(())
    }

    /// The answer to a sync of `generation`, as soon as there is one. What is read must be as new as that sync.
    /// `Err(RebalanceInProgress)` if the next rebalance has begun, `UnknownMemberId` or `FencedInstanceId` if the member is
    /// none any more.
    pub fn sync_result(
        &self,
        member: &MemberIdentity,
        generation: i32,
    ) -> Option<Result<SyncResult, GroupError>> {
        let place = match self.place_of_identity(member) {
            Ok(place) => place,
            Err(error) => return Some(Err(error)),
        };
        match self.phase {
            _ if self.generation != generation => Some(Err(GroupError::RebalanceInProgress)),
            Phase::Empty { .. } | Phase::CompletingRebalance { .. } => None,
            Phase::PreparingRebalance { .. } => Some(Err(GroupError::RebalanceInProgress)),
            Phase::Stable { .. } => Some(Ok(SyncResult {
                protocol_type: self.protocol_type.clone().unwrap_or_default(),
                protocol: self.protocol.clone().unwrap_or_default(),
                assignment: self.members[place].assignment.clone(),
            })),
        }
    }

    /// Gives each member its part. `Err` if all parts together are too large to be kept: the leader is not believed to
    /// have synced then, and is dropped in the end.
    fn assign(&mut self, request: &SyncRequest) -> Result<(), GroupError> {
        let part = |member_id: &str| {
            // Of two for one member, the later counts, as it does in Kafka.
            let mut parts = request.assignments.iter().rev();
            let part = parts.find(|part| part.member_id == member_id);
            part.map(|part| part.assignment.clone()).unwrap_or_default()
        };
        let parts: Vec<Opaque> = self.members.iter().map(|member| part(&member.id)).collect();
        if parts.iter().map(Opaque::text_bytes).sum::<usize>() > ASSIGNMENTS_BYTES_MAX {
            return Err(GroupError::InvalidRequest);
        }
        for (member, part) in self.members.iter_mut().zip(parts) {
            member.assignment = part;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "sync_tests.rs"]
mod tests;
