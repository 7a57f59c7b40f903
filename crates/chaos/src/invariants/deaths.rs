//! I18 — a process ends only when it is told to, or over a fault that leaves it no choice, and when it is told
//! to stop it ends by itself.
//!
//! Source: `docs/invariants.md` I18; design rule "crash-only start, graceful drain". Over which faults a node
//! may end, the catalogue says ([`crate::faults::Kind::may_end`]).

use super::{Findings, Violation};
use crate::run::journal::{Entry, Event};

/// Ends that nothing explains.
pub fn check(journal: &[Entry]) -> Findings {
    let mut findings = Findings::default();
    for entry in journal {
        if let Event::Died { node, how } = &entry.event {
            findings.add(|| {
                Violation::of(format!(
                    "the process of node {} at {:.3} s: {how}",
                    node + 1,
                    entry.us as f64 / 1e6
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
    fn an_end_that_nothing_explains_is_found() {
        let event = Event::Died {
            node: 1,
            how: "it did not end with exit code 0".into(),
        };
        let findings = check(&[Entry { us: 1, event }]);
        assert_eq!(findings.count, 1);
        assert!(findings.examples[0].what.contains("node 2"));
        assert!(check(&[]).is_empty());
    }
}
