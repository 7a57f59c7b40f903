//! Which peers are alive: a ping per node pair every few milliseconds, and silence counted.
//!
//! Suspicion is a hint, never a verdict: it makes followers ask for votes, which live peers refuse
//! while they hear their leader, and makes lanes look for another leader.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use dunlin_model::id::NodeId;

/// When each peer was last heard.
pub(crate) struct Detector {
    suspect_ms: u64,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// Milliseconds in all for which this node itself stood still.
    stood_still_ms: u64,
    /// By node: when it was heard, and what `stood_still_ms` was then.
    signs: HashMap<NodeId, (u64, u64)>,
}

impl Heard {
    /// For how long `node` has been silent while this node was there to hear it, if it was ever heard.
    fn silent_ms(&self, node: NodeId, now_ms: u64) -> Option<u64> {
        let (at, stood_still_ms) = self.signs.get(&node)?;
        Some(now_ms.saturating_sub(at + self.stood_still_ms - stood_still_ms))
    }
}

impl Detector {
    pub(crate) fn new(suspect_ms: u64) -> Self {
        Self {
            suspect_ms,
            heard: Mutex::default(),
        }
    }

    fn signs(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("no panic holds it")
    }

    /// A sign of life at `now_ms` (monotonic). Returns how long there had been none, whoever stood still; 0 at
    /// the first.
    pub(crate) fn heard(&self, node: NodeId, now_ms: u64) -> u64 {
        let mut heard = self.signs();
        let sign = (now_ms, heard.stood_still_ms);
        let before = heard.signs.insert(node, sign);
        before.map_or(0, |(before, _)| now_ms.saturating_sub(before))
    }

    /// This node itself has not run for `ms` up to now: what peers said meanwhile is still to be read, so none
    /// of that time makes them suspect. Without this a node that was starved suspects everybody, and a machine
    /// with too much to do is kept busy by elections.
    pub(crate) fn stood_still(&self, ms: u64) {
        self.signs().stood_still_ms += ms;
    }

    /// When `node` was last heard (monotonic milliseconds), if ever.
    pub(crate) fn last_heard(&self, node: NodeId) -> Option<u64> {
        self.signs().signs.get(&node).map(|(at, _)| *at)
    }

    /// Whether `node` was heard once and has been silent for too long.
    pub(crate) fn suspects(&self, node: NodeId, now_ms: u64) -> bool {
        let silent_ms = self.signs().silent_ms(node, now_ms);
        silent_ms.is_some_and(|silent_ms| silent_ms > self.suspect_ms)
    }

    /// Whether `node` was heard lately.
    pub(crate) fn is_alive(&self, node: NodeId, now_ms: u64) -> bool {
        let silent_ms = self.signs().silent_ms(node, now_ms);
        silent_ms.is_some_and(|silent_ms| silent_ms <= self.suspect_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_suspicious_only_after_a_first_sign_of_life() {
        let detector = Detector::new(100);
        let node = NodeId(1);
        assert!(!detector.suspects(node, 1_000) && !detector.is_alive(node, 1_000));
        assert_eq!(detector.heard(node, 1_000), 0);
        assert!(!detector.suspects(node, 1_100) && detector.is_alive(node, 1_100));
        assert!(detector.suspects(node, 1_101) && !detector.is_alive(node, 1_101));
        assert_eq!(detector.heard(node, 4_000), 3_000);
    }

    #[test]
    fn time_in_which_this_node_stood_still_is_nobodys_silence() {
        let detector = Detector::new(100);
        let (silent, lively) = (NodeId(1), NodeId(2));
        detector.heard(silent, 1_000);
        detector.heard(lively, 1_040);
        // A tick at 1050, and the next at 2050 in place of 1075.
        detector.stood_still(975);
        assert!(!detector.suspects(silent, 2_050) && !detector.suspects(lively, 2_050));
        assert!(
            detector.suspects(silent, 2_076),
            "what it was silent before counts"
        );
        assert!(!detector.suspects(lively, 2_076) && detector.is_alive(lively, 2_076));
        // A link does not know who stood still: it has carried nothing for so long.
        assert_eq!(detector.heard(lively, 2_080), 1_040);
        assert!(detector.suspects(lively, 2_181), "a pause counts once");
    }
}
