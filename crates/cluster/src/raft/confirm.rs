//! The proof that a replica still leads, for reads (ReadIndex: Ongaro, "Consensus", 6.4): a majority of the voters says,
//! after it was asked, that it knows of no later leader.
//!
//! openraft has a proof of its own, and it does not hold: where an entry-less append follows one with entries, the answer
//! to the first is taken for one to both, and so for younger than it is (0.10.0-alpha.37, `InflightAppendQueue`). A leader
//! that had been replaced meanwhile read what was no longer current. Here only answers count that were asked for by the
//! round itself: an append without entries that starts at the beginning of the log, which every follower of the same
//! leader accepts and no other does.
//!
//! One round serves all reads that came before it began. What a read may see then is in [`Confirmer::confirm`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_model::id::{GroupId, NodeId, ReplicaId};
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use tokio::sync::{mpsc, oneshot};

use super::{Raft, convert};
use crate::messages::{AppendHead, AppendReply, Request, Response, WireVote};
use crate::transport::{Lane, Peers};

/// How long a proof may take.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Rounds that may be under way. Reads that come meanwhile share the next one.
const ROUNDS_MAX: usize = 4;
/// Reads that wait for a round to begin; more are told that there is no proof.
const READS_WAITING_MAX: usize = 4_096;

/// The last term in which a replica asked another to take over from it.
///
/// It takes nothing in any more in that term and sends no heartbeats, so that if the other does not come, somebody else
/// is elected. To ask the voters whether they follow it would be such a heartbeat: for as long as anybody reads, nobody
/// would be elected, and nobody could write.
#[derive(Clone, Default)]
pub(crate) struct Resigned(Arc<AtomicU64>);

impl Resigned {
    /// The replica asks another to take over, in `term`.
    pub(crate) fn resign(&self, term: u64) {
        self.0.fetch_max(term, Ordering::Relaxed);
    }

    /// Whether it has done so in `term`.
    pub(crate) fn is_in(&self, term: u64) -> bool {
        self.0.load(Ordering::Relaxed) == term && term > 0
    }
}

/// Proves on demand that one replica leads.
#[derive(Clone)]
pub(crate) struct Confirmer {
    asks: mpsc::Sender<oneshot::Sender<bool>>,
}

impl Confirmer {
    /// Of the replica behind `raft`. Ends when nobody has it any more.
    pub(crate) fn start(group: GroupId, raft: Raft, peers: Arc<Peers>, resigned: Resigned) -> Self {
        let (asks, queue) = mpsc::channel(READS_WAITING_MAX);
        let round = Round {
            group,
            raft,
            peers,
            resigned,
        };
        tokio::spawn(run(round, queue));
        Self { asks }
    }

    /// Whether this replica led at some moment after the call, and has applied all that any leader before that moment
    /// had told anybody of.
    pub(crate) async fn confirm(&self) -> bool {
        let (sender, receiver) = oneshot::channel();
        self.asks.try_send(sender).is_ok() && receiver.await.unwrap_or(false)
    }
}

async fn run(round: Round, mut queue: mpsc::Receiver<oneshot::Sender<bool>>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        let ask = tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => continue,
            ask = queue.recv(), if under_way.len() < ROUNDS_MAX => ask,
        };
        let Some(first) = ask else { return };
        let mut reads = vec![first];
        while let Ok(read) = queue.try_recv() {
            reads.push(read);
        }
        let round = round.clone();
        under_way.push(async move {
            let proof = tokio::time::timeout(CONFIRM_TIMEOUT, round.prove());
            let is_proved = proof.await.unwrap_or(false);
            for read in reads {
                let _ = read.send(is_proved); // whoever asked may have gone
            }
        });
    }
}

/// What the consensus core holds at one moment.
struct Seen {
    vote: WireVote,
    leads: bool,
    /// Index of the last committed entry, if it is of this leader: then its log has all that was committed before it.
    committed: Option<u64>,
    configs: Vec<BTreeSet<u64>>,
    nodes: BTreeMap<u64, NodeId>,
}

#[derive(Clone)]
struct Round {
    group: GroupId,
    raft: Raft,
    peers: Arc<Peers>,
    resigned: Resigned,
}

impl Round {
    async fn prove(&self) -> bool {
        let Some(seen) = self.look().await else {
            return false;
        };
        let leads = seen.leads && !self.resigned.is_in(seen.vote.term);
        let Some(committed) = seen.committed.filter(|_| leads) else {
            return false;
        };
        self.ask_voters(&seen).await && self.has_applied(committed).await
    }

    async fn look(&self) -> Option<Seen> {
        let look = self.raft.with_raft_state(|state| {
            let vote = convert::vote_out(state.vote_ref());
            let membership = state.membership_state.effective().membership();
            let committed = state
                .local_committed()
                .filter(|at| convert::position(at).term == vote.term);
            Seen {
                leads: state.server_state == ServerState::Leader && vote.committed,
                committed: committed.map(|at| at.index),
                configs: membership.get_joint_config().clone(),
                nodes: membership.nodes().map(|(id, place)| (*id, place.0)).collect(),
                vote,
            }
        });
        look.await.ok()
    }

    async fn ask_voters(&self, seen: &Seen) -> bool {
        let mut confirmed = BTreeSet::from([seen.vote.leader]);
        let voters: BTreeSet<u64> = seen.configs.iter().flatten().copied().collect();
        let others = voters.into_iter().filter(|voter| *voter != seen.vote.leader);
        let mut asked: FuturesUnordered<_> = others.map(|voter| self.ask(seen, voter)).collect();
        while !is_majority(&seen.configs, &confirmed) {
            match asked.next().await {
                Some(Some(voter)) => drop(confirmed.insert(voter)),
                Some(None) => {}
                None => return false,
            }
        }
        true
    }

    /// The voter, if it follows this leader still.
    async fn ask(&self, seen: &Seen, voter: u64) -> Option<u64> {
        let request = Request::Heartbeat {
            group: self.group,
            to: ReplicaId(voter),
            head: AppendHead {
                vote: seen.vote,
                previous: None,
                commit: None,
                entries: Vec::new(),
            },
        };
        let node = *seen.nodes.get(&voter)?;
        let answer = self
            .peers
            .call(node, Lane::Control, request, CONFIRM_TIMEOUT)
            .await;
        match answer.ok()?.0 {
            Response::Heartbeat(AppendReply::Matched(_) | AppendReply::Conflict(_)) => Some(voter),
            _ => None,
        }
    }

    async fn has_applied(&self, committed: u64) -> bool {
        let mut data = self.raft.data_metrics();
        loop {
            let applied = data.borrow_watched().last_applied;
            if applied.is_some_and(|at| at.index >= committed) {
                return true;
            }
            if data.changed().await.is_err() {
                return false;
            }
        }
    }
}

/// Whether `confirmed` has a majority of every one of `configs`; of none, if there is none.
fn is_majority(configs: &[BTreeSet<u64>], confirmed: &BTreeSet<u64>) -> bool {
    !configs.is_empty()
        && configs
            .iter()
            .all(|config| 2 * config.intersection(confirmed).count() > config.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_resigned_in_a_term_may_lead_in_a_later_one() {
        let resigned = Resigned::default();
        assert!(!resigned.is_in(0) && !resigned.is_in(3));
        resigned.resign(3);
        assert!(resigned.is_in(3) && !resigned.is_in(4) && !resigned.is_in(2));
        resigned.resign(2);
        assert!(resigned.is_in(3), "a late word of an older term changes nothing");
    }

    #[test]
    fn a_majority_of_each_of_two_joined_memberships_counts() {
        let set = |ids: &[u64]| ids.iter().copied().collect::<BTreeSet<u64>>();
        for (configs, confirmed, is_enough) in [
            (vec![set(&[1])], set(&[1]), true),
            (vec![set(&[1, 2])], set(&[1]), false),
            (vec![set(&[1, 2, 3])], set(&[1]), false),
            (vec![set(&[1, 2, 3])], set(&[1, 3]), true),
            (vec![set(&[1, 2, 3])], set(&[1, 4, 5]), false),
            (vec![set(&[1, 2, 3]), set(&[1, 4, 5])], set(&[1, 2]), false),
            (vec![set(&[1, 2, 3]), set(&[1, 4, 5])], set(&[1, 2, 4]), true),
            // A leader that is no voter any more.
            (vec![set(&[2, 3])], set(&[1, 2]), false),
            (vec![], set(&[1]), false),
        ] {
            assert_eq!(
                is_majority(&configs, &confirmed),
                is_enough,
                "{configs:?} {confirmed:?}"
            );
        }
    }
}
