//! What a replica shows of Raft, for whoever holds the protocol's properties against it (I13): `/metrics`, and a
//! simulation.
//!
//! One look is of one moment of the replica's consensus, which may be a little past; only the vote is the disk's, now.

use std::collections::BTreeSet;

use dunlin_model::id::{GroupReplica, LogPosition};
use openraft::async_runtime::WatchReceiver;

use crate::codec;
use crate::group::Group;
use crate::messages::WireVote;
use crate::node::Cluster;
use crate::raft::{StoredMembership, convert};

/// One replica, as it is seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSight {
    /// Which.
    pub id: GroupReplica,
    /// Which of its runs in this process; each begins with what is on disk.
    pub run: u64,
    /// The term that it is in.
    pub term: u64,
    /// Whether it leads in it.
    pub leads: bool,
    /// Term and candidate of the vote that its disk has.
    pub vote: Option<(u64, u64)>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogPosition>,
    /// The last entry that it has applied.
    pub applied: Option<LogPosition>,
    /// The voters of the last membership that is committed, and of the one that it goes by; two sets while they change,
    /// and a majority of each is needed.
    pub voters: [Vec<BTreeSet<u64>>; 2],
}

fn voters(stored: &StoredMembership) -> Vec<BTreeSet<u64>> {
    stored.membership().get_joint_config().clone()
}

/// Term and candidate of a vote as the journal has it.
pub fn read_vote(bytes: &[u8]) -> Option<(u64, u64)> {
    let vote: WireVote = codec::decode(bytes).ok()?;
    Some((vote.term, vote.leader))
}

impl Group {
    /// Nothing of a replica that has not begun yet, or has given up.
    fn raft_sight(&self) -> Option<ReplicaSight> {
        let vote = self.log().place_of_vote();
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        if metrics.current_term == 0 || metrics.running_state.is_err() {
            return None;
        }
        Some(ReplicaSight {
            id: self.id(),
            run: self.run(),
            term: metrics.current_term,
            leads: metrics.state == openraft::ServerState::Leader
                && metrics.current_leader == Some(metrics.id),
            vote: vote.and_then(|(bytes, _)| read_vote(&bytes)),
            committed: convert::position_of(metrics.local_committed.as_ref()),
            applied: convert::position_of(metrics.last_applied.as_ref()),
            voters: [
                voters(&metrics.committed_membership_config),
                voters(&metrics.membership_config),
            ],
        })
    }
}

impl Cluster {
    /// How each replica of this node stands in its group.
    pub fn sights(&self) -> Vec<ReplicaSight> {
        let groups = self.shared().groups();
        groups.iter().filter_map(|group| group.raft_sight()).collect()
    }
}
