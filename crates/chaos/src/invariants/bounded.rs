//! I16 — bounded: memory, descriptors and threads of every node stay below the declared caps at all times.
//!
//! Source: `docs/invariants.md` I16. Judged by samples of `/proc`, one a second; a peak between two of them
//! is not seen. The caps are the scenario's, or their defaults in [`crate::scenario::Caps`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Findings, Violation};
use crate::scenario::Caps;

/// What a node used at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub us: u64,
    /// Which node, from 0.
    pub node: usize,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

/// Nodes that were above a cap, each once for each cap.
pub fn check(samples: &[Sample], caps: &Caps) -> Findings {
    let mut worst: BTreeMap<(usize, &str), (u64, u64, u64)> = BTreeMap::new();
    for sample in samples {
        for (what, used, cap) in [
            ("MiB of memory", sample.rss_bytes >> 20, caps.rss_mib),
            ("descriptors", sample.descriptors, caps.descriptors),
            ("threads", sample.threads, caps.threads),
        ] {
            let entry = worst.entry((sample.node, what)).or_insert((0, cap, 0));
            if used > entry.0 {
                *entry = (used, cap, sample.us);
            }
        }
    }
    let mut findings = Findings::default();
    for ((node, what), (used, cap, us)) in worst {
        if used > cap {
            findings.add(|| {
                Violation::of(format!(
                    "node {} used {used} {what} at {:.1} s, {cap} at the most were declared",
                    node + 1,
                    us as f64 / 1e6
                ))
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_above_a_cap_is_found_once() {
        let caps = Caps::default();
        let sample = |us, threads| Sample {
            us,
            node: 1,
            rss_bytes: 100 << 20,
            descriptors: 50,
            threads,
        };
        assert!(check(&[sample(1, 20), sample(2, caps.threads)], &caps).is_empty());
        let found = check(&[sample(1, 900), sample(2, 1000), sample(3, 20)], &caps);
        assert_eq!(found.count, 1);
        assert!(found.examples[0].what.contains("used 1000 threads"), "{found:?}");
        let fat = Sample {
            rss_bytes: (caps.rss_mib + 1) << 20,
            ..sample(1, 20)
        };
        assert_eq!(check(&[fat], &caps).count, 1);
    }
}
