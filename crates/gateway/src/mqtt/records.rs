//! Records of one connection that wait: for the hub's plan to let them through, or for room in the cluster.
//!
//! Pure but for the lines that it stands in. Records leave in the order in which they came. All that are held stand in line;
//! nothing more is read until the first of them may go.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::quota::Plan;

use crate::limits::QUOTA_MESSAGE_WAIT;
use crate::quota::{self, Cost, Over, Turn};
use crate::shared::Shared;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// What the hub is held to, as of this round.
    plan: Option<Plan>,
    /// They wait for the plan.
    held: VecDeque<(u64, Bytes)>,
    /// Turns of the first of them.
    turns: VecDeque<Turn>,
    /// They may go; the cluster was too busy to take the first of them.
    unsent: VecDeque<(u64, Bytes)>,
}

impl Records {
    /// What the hub is held to from now on. Without a plan nothing waits for one. Not while an answer to
    /// [`ask`](Self::ask) is due.
    pub(crate) fn handle_plan(&mut self, plan: Option<Plan>) {
        self.plan = plan;
        if plan.is_none() {
            self.turns.clear();
            self.unsent.append(&mut self.held);
        }
    }

    /// Whether records have to wait for a plan.
    pub(crate) fn has_plan(&self) -> bool {
        self.plan.is_some()
    }

    /// Whether any wait.
    pub(crate) fn are_waiting(&self) -> bool {
        !self.held.is_empty() || !self.unsent.is_empty()
    }

    /// This one waits for the plan.
    pub(crate) fn hold(&mut self, token: u64, record: Bytes) {
        self.held.push_back((token, record));
    }

    /// The cluster was too busy for this one, which is before all others.
    pub(crate) fn put_back(&mut self, token: u64, record: Bytes) {
        self.unsent.push_front((token, record));
    }

    /// The next one that may go.
    pub(crate) fn poll_unsent(&mut self) -> Option<(u64, Bytes)> {
        self.unsent.pop_front()
    }

    /// Has those that are held stand in line, and waits until the first of them may go, or will not. What comes of it goes to
    /// [`handle_passed`](Self::handle_passed).
    pub(crate) fn ask(
        &mut self,
        shared: &Arc<Shared>,
    ) -> Option<impl Future<Output = Passed> + Send + use<>> {
        let plan = self.plan.filter(|_| !self.held.is_empty())?;
        for (_, record) in self.held.iter().skip(self.turns.len()) {
            let cost = Cost::record(record);
            let turn = shared.quota.enter_patiently(plan, cost, QUOTA_MESSAGE_WAIT);
            self.turns.push_back(turn);
        }
        let mut turns = std::mem::take(&mut self.turns);
        let metrics = Arc::clone(&shared.metrics);
        Some(async move {
            let mut ends = Vec::new();
            if let Some(first) = turns.pop_front() {
                ends.push(quota::wait(&metrics, first).await);
            }
            while let Some(end) = turns.front_mut().and_then(|turn| turn.try_recv().ok()) {
                turns.pop_front();
                ends.push(quota::counted(&metrics, end));
            }
            Passed { ends, turns }
        })
    }

    /// Takes what became of the first of those that are held. Returns those that may not go.
    pub(crate) fn handle_passed(&mut self, passed: Passed) -> Vec<(u64, Over)> {
        self.turns = passed.turns;
        let mut refused = Vec::new();
        for end in passed.ends {
            let (token, record) = self.held.pop_front().expect("who has a turn is held");
            match end {
                Ok(()) => self.unsent.push_back((token, record)),
                Err(over) => refused.push((token, over)),
            }
        }
        refused
    }
}

/// What became of the first of those that were held, in order, and the turns of the others.
#[derive(Debug)]
pub(crate) struct Passed {
    ends: Vec<Result<(), Over>>,
    turns: VecDeque<Turn>,
}
