//! The resident memory of the nodes, looked at from outside.

use std::path::PathBuf;
use std::time::Duration;

use dunlin_node::ready::Ready;
use serde::Serialize;
use tokio::time::Instant;

use super::LOOK_PAUSE;

/// One node's process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeMemory {
    /// Its process.
    pub pid: u32,
    /// Whether it is the same process, and runs.
    pub is_alive: bool,
    /// Resident memory before the first attack, in KiB.
    pub before_kib: u64,
    /// The most that was seen.
    pub max_kib: u64,
    /// After the last attack.
    pub after_kib: u64,
}

/// Looks at the nodes' resident memory.
pub(super) struct Memory {
    pub(super) nodes: Vec<NodeMemory>,
}

impl Memory {
    pub(super) fn new(ready: &Ready) -> Self {
        let node = |pid| NodeMemory {
            pid,
            is_alive: true,
            before_kib: 0,
            max_kib: 0,
            after_kib: 0,
        };
        Self {
            nodes: ready.nodes.iter().map(|ready| node(ready.pid)).collect(),
        }
    }

    pub(super) async fn watch_for(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            for node in &mut self.nodes {
                node.max_kib = node.max_kib.max(resident_kib(node.pid).unwrap_or(0));
            }
            let now = Instant::now();
            if now >= until {
                return;
            }
            tokio::time::sleep(LOOK_PAUSE.min(until - now)).await;
        }
    }

    pub(super) fn note_before(&mut self) {
        for node in &mut self.nodes {
            node.before_kib = resident_kib(node.pid).unwrap_or(0);
        }
    }

    pub(super) fn note_after(&mut self) {
        for node in &mut self.nodes {
            let found = resident_kib(node.pid);
            (node.is_alive, node.after_kib) = (found.is_some(), found.unwrap_or(0));
        }
    }
}

/// Resident memory of a process in KiB; `None` when it does not run.
pub(super) fn resident_kib(pid: u32) -> Option<u64> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let status = std::fs::read_to_string(path).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
