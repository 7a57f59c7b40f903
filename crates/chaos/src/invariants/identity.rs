//! I10 — identity: after an acknowledged create the device is let in; after an acknowledged disable,
//! change of key or delete the old credential is refused at every gateway within two seconds.
//!
//! Source: `docs/invariants.md` I10. Judged by probes that say *refused for the credential*; a probe
//! without an answer says nothing. After an operation whose outcome is not known, nothing is known of its
//! device until the next one that was acknowledged.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Findings, Violation};
use crate::workload::operation::{Action, Operation, Outcome};

/// Time in which a revoked credential must be refused everywhere.
pub const REFUSED_WITHIN: Duration = Duration::from_secs(2);

/// What is known of a device: the key that is good, if any, and since when.
type Known = Option<(Option<u32>, u64)>;

/// Probes that were answered otherwise than they had to be. Operations of one device are in order.
pub fn check(operations: &[Operation]) -> Findings {
    let mut findings = Findings::default();
    let mut devices: BTreeMap<&str, Known> = BTreeMap::new();
    for operation in operations {
        let known = devices.entry(&operation.device).or_default();
        if operation.action == Action::Probe {
            if let Some(what) = known.and_then(|known| broken(operation, known)) {
                findings.add(|| Violation {
                    device: Some(operation.device.clone()),
                    ..Violation::of(format!(
                        "{what} at node {}, {:.3} s after the run began",
                        operation.node + 1,
                        operation.invoked_us as f64 / 1e6
                    ))
                });
            }
            continue;
        }
        *known = match (operation.outcome, operation.action) {
            (Outcome::Fail, _) => *known,
            (Outcome::Unknown, _) => None,
            (Outcome::Ok, Action::Disable | Action::Delete) => Some((None, operation.completed_us)),
            (Outcome::Ok, _) => Some((Some(operation.key), operation.completed_us)),
        };
    }
    findings
}

/// What is wrong with a probe.
fn broken(probe: &Operation, (good, since_us): (Option<u32>, u64)) -> Option<&'static str> {
    let due_us = since_us + REFUSED_WITHIN.as_micros() as u64;
    match (good == Some(probe.key), probe.outcome) {
        (true, Outcome::Fail) if probe.invoked_us >= since_us => Some("a good credential was refused"),
        (false, Outcome::Ok) if probe.invoked_us >= due_us => Some("a revoked credential was let in"),
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn operation(action: Action, key: u32, at_s: u64, outcome: Outcome) -> Operation {
        Operation {
            device: "d".into(),
            action,
            key,
            node: 1,
            invoked_us: at_s * 1_000_000,
            completed_us: at_s * 1_000_000 + 1000,
            outcome,
            detail: String::new(),
        }
    }

    #[test]
    fn a_revoked_credential_that_is_let_in_is_found() {
        use Action::{Create, Delete, Probe, Rotate};
        use Outcome::{Fail, Ok, Unknown};
        let good = [
            operation(Create, 0, 1, Ok),
            operation(Probe, 0, 2, Ok),
            operation(Rotate, 1, 3, Ok),
            operation(Probe, 0, 4, Ok),
            operation(Probe, 0, 6, Fail),
            operation(Probe, 1, 6, Ok),
            operation(Probe, 1, 6, Unknown),
            operation(Delete, 1, 7, Ok),
            operation(Probe, 1, 10, Fail),
        ];
        assert!(check(&good).is_empty(), "{:?}", check(&good));
        for (place, outcome) in [(1, Fail), (4, Ok), (5, Fail), (8, Ok)] {
            let mut bad = good.clone();
            bad[place].outcome = outcome;
            assert_eq!(check(&bad).count, 1, "{place}");
        }
    }

    #[test]
    fn after_an_unknown_outcome_nothing_is_known() {
        let operations = [
            operation(Action::Create, 0, 1, Outcome::Ok),
            operation(Action::Delete, 0, 2, Outcome::Unknown),
            operation(Action::Probe, 0, 9, Outcome::Ok),
            operation(Action::Probe, 0, 9, Outcome::Fail),
        ];
        assert!(check(&operations).is_empty());
    }
}
