//! What a replica has beside its entries, and what must be written again before the segment that says it is recycled:
//! vote, purged and committed positions, and that it is damaged.

use bytes::Bytes;
use dunlin_model::id::GroupReplica;

use super::{Core, Op, Replica, What};
use crate::journal::format::{FLUSH_REPLICA_BYTES, RECORD_HEADER_BYTES};

/// Bytes of the reason that a mark of damage states; the rest of it is left out.
const DAMAGE_REASON_BYTES_MAX: usize = 256;

fn damage_mark(reason: &str) -> Bytes {
    Bytes::copy_from_slice(&reason.as_bytes()[..reason.len().min(DAMAGE_REASON_BYTES_MAX)])
}

impl Core {
    /// Marks to write with the next flush: those that changed, and those that live in segments
    /// below `boundary`.
    pub(in crate::journal) fn marks(&self, boundary: u64) -> Vec<Op> {
        let mut marks = Vec::new();
        if boundary > self.oldest {
            for (id, replica) in &self.replicas {
                replica.collect_marks(*id, boundary, &mut marks);
            }
        } else {
            for id in &self.dirty {
                if let Some(replica) = self.replicas.get(id) {
                    replica.collect_marks(*id, boundary, &mut marks);
                }
            }
        }
        marks
    }

    /// Bytes that [`marks`](Self::marks) may need at most, with naming the replicas.
    pub(in crate::journal) fn marks_bytes_max(&self) -> usize {
        self.replicas.values().map(Replica::marks_bytes).sum()
    }

    /// Writes down that replica `id` is damaged, if that stands nowhere yet.
    pub(in crate::journal) fn mark_damage(&mut self, id: GroupReplica) {
        let Some(replica) = self.replicas.get(&id) else {
            return;
        };
        if let (Some(reason), None) = (&replica.damaged, replica.damaged_segment) {
            let (incarnation, mark) = (replica.incarnation, What::Damaged(damage_mark(reason)));
            self.push(id, incarnation, mark, None);
        }
    }
}

impl Replica {
    fn collect_marks(&self, id: GroupReplica, boundary: u64, marks: &mut Vec<Op>) {
        let mut add = |what| {
            marks.push(Op {
                id,
                incarnation: self.incarnation,
                what,
                done: None,
                refused: None,
                queued_bytes: 0,
            });
        };
        if let Some(reason) = &self.damaged {
            // Nothing else of it: rewriting would make the damage look whole.
            if self.damaged_segment.is_some_and(|segment| segment < boundary) {
                add(What::Damaged(damage_mark(reason)));
            }
            return;
        }
        if let Some(record) = &self.vote_written
            && record.segment < boundary
        {
            add(What::Vote(record.vote.clone()));
        }
        if let Some(purged) = self.purged
            && (self.purged_dirty || self.purged_segment.is_some_and(|segment| segment < boundary))
        {
            add(What::Purge(purged));
        }
        if let Some(committed) = self.committed
            && (self.committed_dirty || self.committed_segment.is_some_and(|segment| segment < boundary))
        {
            add(What::Committed(committed));
        }
    }

    fn marks_bytes(&self) -> usize {
        let vote = self.vote.as_ref().map_or(0, Bytes::len);
        let written = self.durable_vote().map_or(0, Bytes::len);
        let reason = self
            .damaged
            .as_ref()
            .map_or(0, |reason| damage_mark(reason).len());
        3 * RECORD_HEADER_BYTES + vote.max(written).max(reason) + FLUSH_REPLICA_BYTES
    }
}
