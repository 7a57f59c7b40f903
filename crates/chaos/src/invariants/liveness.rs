//! I15 — liveness: soon after the faults of an epoch every shard serves, every device is connected, and what
//! had waited is acknowledged; and before long every shard has all its replicas again.
//!
//! Source: `docs/invariants.md` I15. The deadlines are the scenario's. A quiet time that never came to its
//! end counts as both deadlines missed.

use super::{Findings, Violation};
use crate::run::journal::{Entry, Event};
use crate::scenario::Liveness;

/// Quiet times whose deadlines were missed.
pub fn check(journal: &[Entry], deadlines: &Liveness) -> Findings {
    let mut findings = Findings::default();
    for entry in journal {
        let Event::Quiet {
            epoch,
            from_us,
            served_us,
            whole_us,
            missing,
        } = &entry.event
        else {
            continue;
        };
        let phases = [
            ("served", served_us, deadlines.serve_s),
            ("whole", whole_us, deadlines.whole_s),
        ];
        for (what, reached_us, deadline_s) in phases {
            let waited_us = reached_us.map(|reached_us| reached_us.saturating_sub(*from_us));
            if waited_us.is_some_and(|waited_us| waited_us <= deadline_s * 1_000_000) {
                continue;
            }
            findings.add(|| {
                let when = match waited_us {
                    Some(waited_us) => format!("only {:.1} s", waited_us as f64 / 1e6),
                    None => format!("not even {:.1} s", entry.us.saturating_sub(*from_us) as f64 / 1e6),
                };
                Violation::of(format!(
                    "{what} {when} after the faults of epoch {}, not within {deadline_s} s; last missing: \
                         {missing}",
                    epoch + 1
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
    fn a_missed_deadline_is_found_and_so_is_one_never_reached() {
        let quiet = |served_us, whole_us| Entry {
            us: 90_000_000,
            event: Event::Quiet {
                epoch: 0,
                from_us: 1_000_000,
                served_us,
                whole_us,
                missing: "shard 3".into(),
            },
        };
        let count = |served_us, whole_us| check(&[quiet(served_us, whole_us)], &Liveness::default()).count;
        assert_eq!(count(Some(11_000_000), Some(31_000_000)), 0);
        assert_eq!(count(Some(11_000_001), Some(31_000_000)), 1);
        assert_eq!(count(Some(2_000_000), None), 1);
        assert_eq!(count(None, None), 2);
    }
}
