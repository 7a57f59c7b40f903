//! OffsetCommit, OffsetFetch, OffsetDelete and DeleteGroups: who may say how far the group has read, and forget it.
//!
//! How much is kept is decided in [`offsets`](super::offsets).

use super::offsets::{CommittedOffset, Offsets};
use super::request::{CommitRequest, TopicPartition};
use super::state::{Group, Phase};
use super::{GroupError, OFFSETS_MAX};

/// The protocol type of consumers. Only of theirs does Kafka know that they subscribe to topics.
const CONSUMER_TYPE: &str = "consumer";

impl Group {
    /// Keeps offsets, each of which is answered in its place. A member must be of the current generation; whoever is none
    /// may commit while the group is empty. Counts as a heartbeat. `Err(UnknownMemberId)`, `FencedInstanceId` or
    /// `IllegalGeneration` for who is not of the generation, `RebalanceInProgress` for who has nothing to commit in it yet,
    /// `InvalidRequest` if a bound is broken.
    ///
    /// Twice is harmless as long as the member has not committed more in between; then it moves the offsets back, and what
    /// lies between is read again by whoever comes next. So a door repeats a commit only while its client waits for it.
    pub fn commit(
        &mut self,
        request: &CommitRequest,
        now_ms: u64,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.tick(now_ms);
        request.check()?;
        if let Some(place) = self.place_of_committer(request)? {
            self.members[place].renew(now_ms);
        }
        Ok(self.offsets.put_all(&request.offsets, now_ms))
    }

    fn place_of_committer(&self, request: &CommitRequest) -> Result<Option<usize>, GroupError> {
        let is_empty = matches!(self.phase, Phase::Empty { .. });
        if is_empty && request.generation < 0 {
            return Ok(None);
        }
        let place = self.place_of_identity(&request.member)?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        // It was told of the new generation and has nothing to commit in it: what it had was to be committed before.
        if matches!(self.phase, Phase::CompletingRebalance { .. }) {
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(Some(place))
    }

    /// The offset of one partition.
    pub fn committed(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.offsets.get(topic, partition)
    }

    /// All offsets.
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Forgets offsets, each of which is answered in its place (KIP-496). Of a group of consumers that is not empty none
    /// can be: it may be subscribed to any topic, and what it is subscribed to is not looked into.
    ///
    /// Twice is once: an offset that is not there is forgotten as well.
    pub fn delete_offsets(
        &mut self,
        partitions: &[TopicPartition],
        now_ms: u64,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        self.tick(now_ms);
        if partitions.len() > OFFSETS_MAX {
            return Err(GroupError::InvalidRequest);
        }
        if self.is_absent() {
            return Err(GroupError::GroupIdNotFound);
        }
        let answer = match self.phase {
            Phase::Empty { .. } => Ok(()),
            _ if self.protocol_type.as_deref() == Some(CONSUMER_TYPE) => {
                Err(GroupError::GroupSubscribedToTopic)
            }
            _ => return Err(GroupError::NonEmptyGroup),
        };
        if answer.is_ok() {
            self.offsets.remove_all(partitions);
        }
        Ok(vec![answer; partitions.len()])
    }

    /// Forgets the group, if it is empty: it is absent afterwards.
    ///
    /// Twice is harmless: the second time there is none, which to whoever deletes is as good.
    pub fn delete(&mut self, now_ms: u64) -> Result<(), GroupError> {
        self.tick(now_ms);
        if self.is_absent() {
            return Err(GroupError::GroupIdNotFound);
        }
        if !matches!(self.phase, Phase::Empty { .. }) {
            return Err(GroupError::NonEmptyGroup);
        }
        *self = Self::default();
        Ok(())
    }
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
