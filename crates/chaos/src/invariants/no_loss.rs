//! I1 — no acked telemetry lost: every message that was acknowledged is read back, with its content.
//!
//! Source: `docs/invariants.md` I1. A message without an acknowledgement is unknown and not judged.

use super::{Findings, Violation};
use crate::oracle::{History, Stored};

/// Acked messages that were not read back.
pub fn check(history: &History, stored: &[Stored]) -> Findings {
    let mut findings = Findings::default();
    let copies = history.copies(stored);
    for (device, copies) in history.devices.iter().zip(&copies) {
        for (seq, (message, copies)) in device.messages.iter().zip(copies).enumerate() {
            if message.is_acked() && *copies == 0 {
                findings.add(|| Violation {
                    device: Some(device.device.clone()),
                    seq: Some(seq as u64),
                    ..Violation::of("acked and not read back".into())
                });
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::oracle::tests::{history, stored};

    #[test]
    fn an_acked_message_that_is_missing_is_lost_and_an_unknown_one_is_not() {
        let mut history = history(&[3]);
        assert!(check(&history, &stored(&[(0, 0), (0, 1), (0, 2)])).is_empty());
        let findings = check(&history, &stored(&[(0, 0), (0, 2)]));
        assert_eq!((findings.count, findings.examples[0].seq), (1, Some(1)));
        history.devices[0].messages[1].acked_us = None;
        assert!(check(&history, &stored(&[(0, 0), (0, 2)])).is_empty());
    }

    #[test]
    fn a_changed_content_does_not_stand_for_the_message() {
        let mut records = stored(&[(0, 0)]);
        records[0].digest ^= 1;
        assert_eq!(check(&history(&[1]), &records).count, 1);
    }
}
