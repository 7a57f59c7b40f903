//! Heartbeat and LeaveGroup: who is still there, and who goes of its own accord.

use super::request::MemberIdentity;
use super::state::{Group, Phase};
use super::{GroupError, MEMBERS_MAX};

impl Group {
    /// A member is still there. `Err(RebalanceInProgress)` tells it to join again, and counts as a heartbeat all the same;
    /// `UnknownMemberId`, `FencedInstanceId` and `IllegalGeneration` tell it that it is not of the generation.
    ///
    /// Twice is harmless: the later counts.
    pub fn heartbeat(
        &mut self,
        member: &MemberIdentity,
        generation: i32,
        now_ms: u64,
    ) -> Result<(), GroupError> {
        self.tick(now_ms);
        let place = self.place_of_identity(member)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.members[place].renew(now_ms);
        match self.phase {
            Phase::Empty { .. } => panic!("a group with a member is not empty"),
            Phase::PreparingRebalance { .. } => Err(GroupError::RebalanceInProgress),
            Phase::CompletingRebalance { .. } | Phase::Stable { .. } => Ok(()),
        }
    }

    /// Whether a heartbeat may be answered with success and need not go through the log: two thirds of the session are
    /// still to come, and clients heartbeat at least once in a third. Of librdkafka's, every 3 s of 45, five in six.
    pub fn is_heartbeat_fresh(&self, member: &MemberIdentity, generation: i32, now_ms: u64) -> bool {
        let is_settled = matches!(
            self.phase,
            Phase::CompletingRebalance { .. } | Phase::Stable { .. }
        );
        let is_due = self.due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        let Ok(place) = self.place_of_identity(member) else {
            return false;
        };
        let member = &self.members[place];
        let left_ms = member.deadline_ms.saturating_sub(now_ms);
        is_settled
            && !is_due
            && generation == self.generation
            && left_ms >= u64::from(member.session_timeout_ms) / 3 * 2
    }

    /// Members go, each of which is answered in its place. An operator may name instances without member ids.
    ///
    /// Twice is harmless: the second time they are unknown, which to whoever leaves is as good.
    pub fn leave(
        &mut self,
        leaving: &[MemberIdentity],
        now_ms: u64,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.tick(now_ms);
        if leaving.len() > MEMBERS_MAX {
            return Err(GroupError::InvalidRequest);
        }
        let mut gone = Vec::new();
        let mut answers = Vec::with_capacity(leaving.len());
        for member in leaving {
            let id = if self.is_pending(&member.member_id) {
                self.pending.retain(|pending| pending.id != member.member_id);
                Ok(None)
            } else {
                self.id_of_leaving(member).map(Some)
            };
            // Whoever is named twice is gone the second time.
            let id = match id {
                Ok(Some(id)) if gone.contains(&id) => Err(GroupError::UnknownMemberId),
                id => id,
            };
            answers.push(id.map(|id| gone.extend(id)));
        }
        self.remove_members(&gone, now_ms);
        self.complete_join_if_all_joined(now_ms);
        Ok(answers)
    }

    fn id_of_leaving(&self, member: &MemberIdentity) -> Result<String, GroupError> {
        let place = match &member.instance_id {
            Some(instance_id) if member.member_id.is_empty() => self.place_of_instance(instance_id),
            _ => Some(self.place_of_identity(member)?),
        };
        let place = place.ok_or(GroupError::UnknownMemberId)?;
        Ok(self.members[place].id.clone())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
