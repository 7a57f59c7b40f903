//! How far a group has read: offsets by topic and partition, how much of them is kept, and for how long.
//!
//! Who may commit is decided in `commit`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::request::{OffsetCommit, TopicPartition};
use super::text::json_bytes;
use super::{GroupError, OFFSETS_BYTES_MAX, OFFSETS_MAX, OFFSETS_RETENTION_MS};

/// Bytes of the JSON of an offset and its partition, without its text and with its numbers at their longest.
pub(super) const OFFSET_FRAME_BYTES: usize = 124;
/// Bytes of the JSON of a topic, without its name and its offsets.
const TOPIC_FRAME_BYTES: usize = 4;

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// Epoch of the partition's leader, if the client knew it.
    pub leader_epoch: Option<i32>,
    /// What the client keeps with it.
    pub metadata: String,
    /// Stamp of the commit.
    pub commit_ms: u64,
}

impl CommittedOffset {
    fn bytes(&self) -> usize {
        OFFSET_FRAME_BYTES + json_bytes(&self.metadata)
    }

    /// When it is forgotten, in a group that is empty since `since_ms`. A group that never had members is so since 0; its
    /// offsets are kept from their commits on (KIP-211).
    fn expires_ms(&self, since_ms: u64) -> u64 {
        self.commit_ms.max(since_ms) + OFFSETS_RETENTION_MS
    }
}

/// The offsets of one group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Offsets {
    /// By topic and partition.
    topics: BTreeMap<String, BTreeMap<i32, CommittedOffset>>,
}

impl Offsets {
    /// Partitions that have an offset.
    pub fn len(&self) -> usize {
        self.topics.values().map(BTreeMap::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// The offset of one partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.topics.get(topic)?.get(&partition)
    }

    /// All offsets, by topic and partition.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, &CommittedOffset)> {
        let topics = self.topics.iter();
        topics.flat_map(|(topic, partitions)| {
            partitions
                .iter()
                .map(move |(partition, offset)| (topic.as_str(), *partition, offset))
        })
    }

    /// Bytes of their JSON at the most.
    fn bytes(&self) -> usize {
        let topics = self.topics.iter();
        let bytes = topics.map(|(topic, partitions)| {
            let offsets: usize = partitions.values().map(CommittedOffset::bytes).sum();
            TOPIC_FRAME_BYTES + json_bytes(topic) + offsets
        });
        bytes.sum()
    }

    /// Keeps offsets, each of which is answered in its place: those for which there is no room are left out. Of two for
    /// one partition the later counts. An offset may fall: a group may want to read again.
    pub(super) fn put_all(&mut self, commits: &[OffsetCommit], now_ms: u64) -> Vec<Result<(), GroupError>> {
        let (mut count, mut bytes) = (self.len(), self.bytes());
        let mut put = |commit: &OffsetCommit| {
            if commit.is_metadata_too_large() {
                return Err(GroupError::OffsetMetadataTooLarge);
            }
            let offset = CommittedOffset {
                offset: commit.offset,
                leader_epoch: commit.leader_epoch,
                metadata: commit.metadata.clone(),
                commit_ms: now_ms,
            };
            let topic = self.topics.get(&commit.topic);
            let topic_bytes = match topic {
                Some(_) => 0,
                None => TOPIC_FRAME_BYTES + json_bytes(&commit.topic),
            };
            let before = topic.and_then(|topic| topic.get(&commit.partition));
            let before_bytes = before.map_or(0, CommittedOffset::bytes);
            let count_after = count + usize::from(before.is_none());
            let bytes_after = bytes + topic_bytes + offset.bytes() - before_bytes;
            if count_after > OFFSETS_MAX || bytes_after > OFFSETS_BYTES_MAX {
                return Err(GroupError::InvalidCommitOffsetSize);
            }
            (count, bytes) = (count_after, bytes_after);
            let topic = self.topics.entry(commit.topic.clone()).or_default();
            topic.insert(commit.partition, offset);
            Ok(())
        };
        commits.iter().map(&mut put).collect()
    }

    /// Forgets offsets. There may be none.
    pub(super) fn remove_all(&mut self, partitions: &[TopicPartition]) {
        for TopicPartition { topic, partition } in partitions {
            if let Some(offsets) = self.topics.get_mut(topic) {
                offsets.remove(partition);
            }
        }
        self.topics.retain(|_, offsets| !offsets.is_empty());
    }

    /// When the first of them is forgotten, in a group that is empty since `since_ms`.
    pub(super) fn due_ms(&self, since_ms: u64) -> Option<u64> {
        self.iter()
            .map(|(_, _, offset)| offset.expires_ms(since_ms))
            .min()
    }

    /// Forgets those whose time is over, in a group that is empty since `since_ms`.
    pub(super) fn expire(&mut self, since_ms: u64, now_ms: u64) {
        for offsets in self.topics.values_mut() {
            offsets.retain(|_, offset| offset.expires_ms(since_ms) > now_ms);
        }
        self.topics.retain(|_, offsets| !offsets.is_empty());
    }
}
