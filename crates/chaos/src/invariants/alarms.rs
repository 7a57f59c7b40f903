//! I19 — alarmed refusal: every fault of a sort that must not pass in silence is told in some node's log, and counted by
//! its metrics.
//!
//! Source: `docs/invariants.md` I19. Which sorts these are, the catalogue of faults says
//! ([`crate::faults::Kind::alarms`]); what was found in the logs between a fault and the end of its quiet
//! time, and beside it in `/metrics`, the journal. A node that ends over what it has found has only its log.

use super::{Findings, Violation};
use crate::run::journal::{Entry, Event};

/// Faults that nobody told of, or that nobody counted who lived on.
pub fn check(journal: &[Entry]) -> Findings {
    let mut findings = Findings::default();
    for entry in journal {
        let Event::Alarm { fault, line, counted } = &entry.event else {
            continue;
        };
        let wrong = match (line, counted) {
            (None, _) => "no node told of it".to_owned(),
            (Some(line), Some(false)) => format!("no metric counts what a node told of it: {line}"),
            (Some(_), Some(true) | None) => continue,
        };
        findings.add(|| Violation::of(format!("fault {} was installed, and {wrong}", fault + 1)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_that_passed_in_silence_is_found() {
        let alarm = |line: Option<&str>, counted| Entry {
            us: 1,
            event: Event::Alarm {
                fault: 4,
                line: line.map(str::to_owned),
                counted,
            },
        };
        let told = Some("ERROR sync failed");
        for (line, counted, is_found) in [
            (told, None, false),
            (told, Some(true), false),
            (told, Some(false), true),
            (None, None, true),
        ] {
            let findings = check(&[alarm(line, counted)]);
            assert_eq!(!findings.is_empty(), is_found, "{line:?} {counted:?}");
        }
    }
}
