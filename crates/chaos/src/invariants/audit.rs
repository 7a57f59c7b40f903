//! I17 — audit: every acknowledged action on the registry has exactly one record in the audit of some node.
//!
//! Source: `docs/invariants.md` I17. An action whose outcome is not known may have a record or none.
//! Records are told apart by node, place and time, since a copy of an audit may be there twice.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Findings, Violation};
use crate::workload::operation::{Action, Operation, Outcome};

/// A line of an audit, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct AuditLine {
    /// The node that wrote it.
    pub node: String,
    /// Its place in that node's audit.
    pub seq: u64,
    /// When.
    pub time: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub what: String,
    /// `done`, or why not.
    pub outcome: String,
}

/// One file of an audit.
#[derive(Debug, Clone, Default)]
pub struct AuditSlice {
    /// Its name.
    pub file: String,
    /// Its lines.
    pub lines: Vec<AuditLine>,
}

/// What the audit calls an action; a probe is none.
fn name(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::Create => "device.create",
        Action::Disable => "device.disable",
        Action::Enable => "device.enable",
        Action::Rotate => "device.roll-keys",
        Action::Delete => "device.delete",
        Action::Probe => return None,
    })
}

/// Actions with too few records, or too many.
pub fn check(operations: &[Operation], audit: &[AuditSlice]) -> Findings {
    // Acknowledged and unknown actions, by action and device.
    let mut actions: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for operation in operations {
        let Some(name) = name(operation.action) else {
            continue;
        };
        let (done, unknown) = actions.entry((name, &operation.device)).or_default();
        match operation.outcome {
            Outcome::Ok => *done += 1,
            Outcome::Unknown => *unknown += 1,
            Outcome::Fail => {}
        }
    }
    let lines: BTreeSet<&AuditLine> = audit.iter().flat_map(|slice| &slice.lines).collect();
    let mut records: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.outcome == "done") {
        *records.entry((&line.action, &line.what)).or_default() += 1;
    }
    let mut findings = Findings::default();
    for ((action, device), (done, unknown)) in actions {
        let recorded = records.get(&(action, device)).copied().unwrap_or(0);
        if !(done..=done + unknown).contains(&recorded) {
            findings.add(|| Violation {
                device: Some(device.to_owned()),
                ..Violation::of(format!(
                    "{action} was acknowledged {done} times and recorded {recorded} times"
                ))
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::identity::tests::operation;

    fn line(seq: u64, action: &str, outcome: &str) -> AuditLine {
        AuditLine {
            node: "n".into(),
            seq,
            time: "t".into(),
            action: action.into(),
            what: "d".into(),
            outcome: outcome.into(),
        }
    }

    #[test]
    fn a_missing_record_and_one_too_many_are_found() {
        let operations = [
            operation(Action::Create, 0, 1, Outcome::Ok),
            operation(Action::Delete, 0, 2, Outcome::Unknown),
            operation(Action::Probe, 0, 3, Outcome::Ok),
        ];
        let count = |lines: &[AuditLine]| {
            let slice = AuditSlice {
                file: "a".into(),
                lines: lines.to_vec(),
            };
            // The same file a second time changes nothing.
            check(&operations, &[slice.clone(), slice]).count
        };
        let create = line(1, "device.create", "done");
        assert_eq!(count(std::slice::from_ref(&create)), 0);
        assert_eq!(count(&[create.clone(), line(2, "device.delete", "done")]), 0);
        assert_eq!(count(&[]), 1);
        assert_eq!(count(&[line(1, "device.create", "refused: no")]), 1);
        assert_eq!(count(&[create, line(2, "device.create", "done")]), 1);
    }
}
