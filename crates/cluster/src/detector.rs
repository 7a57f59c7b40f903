//! Which peers are alive: a ping per node pair every few milliseconds, and silence counted.
//!
//! Suspicion is a hint, never a verdict: it makes followers ask for votes, which live peers refuse
//! while they hear their leader, and makes lanes look for another leader.

use std::collections::HashMap;
use std::sync::Mutex;

use dunlin_model::id::NodeId;

/// When each peer was last heard.
pub(crate) struct Detector {
    suspect_ms: u64,
    heard: Mutex<HashMap<NodeId, u64>>,
}

impl Detector {
    pub(crate) fn new(suspect_ms: u64) -> Self {
        Self {
            suspect_ms,
            heard: Mutex::default(),
        }
    }

    /// A sign of life at `now_ms` (monotonic). Returns how long there had been none; 0 at the first.
    pub(crate) fn heard(&self, node: NodeId, now_ms: u64) -> u64 {
        let before = self.heard.lock().expect("no panic holds it").insert(node, now_ms);
        before.map_or(0, |before| now_ms.saturating_sub(before))
    }

    /// When `node` was last heard (monotonic milliseconds), if ever.
    pub(crate) fn last_heard(&self, node: NodeId) -> Option<u64> {
        self.heard.lock().expect("no panic holds it").get(&node).copied()
    }

    /// Whether `node` was heard once and has been silent for too long.
    pub(crate) fn suspects(&self, node: NodeId, now_ms: u64) -> bool {
        let heard = self.heard.lock().expect("no panic holds it");
        heard
            .get(&node)
            .is_some_and(|at| now_ms.saturating_sub(*at) > self.suspect_ms)
    }

    /// Whether `node` was heard lately.
    pub(crate) fn is_alive(&self, node: NodeId, now_ms: u64) -> bool {
        let heard = self.heard.lock().expect("no panic holds it");
        heard
            .get(&node)
            .is_some_and(|at| now_ms.saturating_sub(*at) <= self.suspect_ms)
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
}
