//! I19 — alarmed refusal: every fault of a sort that must not pass in silence is told in some node's log.
//!
//! Source: `docs/invariants.md` I19. Which sorts these are, the catalogue of faults says
//! ([`crate::faults::Kind::alarms`]); what was found in the logs between a fault and the end of its quiet
//! time, the journal.

use super::{Findings, Violation};
use crate::run::journal::{Entry, Event};

/// Faults that nobody told of.
pub fn check(journal: &[Entry]) -> Findings {
    let mut findings = Findings::default();
    for entry in journal {
        if let Event::Alarm { fault, line: None } = &entry.event {
            findings.add(|| {
                Violation::of(format!(
                    "fault {} was installed, and no node told of it",
                    fault + 1
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
    fn a_fault_that_passed_in_silence_is_found() {
        let alarm = |line: Option<&str>| Entry {
            us: 1,
            event: Event::Alarm {
                fault: 4,
                line: line.map(str::to_owned),
            },
        };
        assert!(check(&[alarm(Some("ERROR sync failed"))]).is_empty());
        assert_eq!(check(&[alarm(None)]).count, 1);
    }
}
