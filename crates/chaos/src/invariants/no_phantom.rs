//! I2 — no phantom, no mutation: every stored record is a message that was sent, with the same content.
//!
//! Source: `docs/invariants.md` I2. A message that was sent and never acknowledged is no phantom.

use super::{Findings, Violation};
use crate::oracle::{History, Stored};

/// Records that nobody sent so.
pub fn check(history: &History, stored: &[Stored]) -> Findings {
    let mut findings = Findings::default();
    for record in stored
        .iter()
        .filter(|record| history.message_of(record).is_none())
    {
        let device = record
            .device
            .and_then(|device| history.devices.get(device as usize));
        let was_sent = device
            .zip(record.seq)
            .is_some_and(|(device, seq)| (seq as usize) < device.messages.len());
        findings.add(|| Violation {
            what: if was_sent {
                "stored with another content"
            } else {
                "stored and never sent"
            }
            .into(),
            device: device.map(|device| device.device.clone()),
            seq: record.seq.map(u64::from),
            places: vec![record.into()],
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::oracle::tests::{history, stored};

    #[test]
    fn a_record_that_nobody_sent_is_found() {
        let mut history = history(&[2]);
        history.devices[0].messages[1].acked_us = None;
        let mut records = stored(&[(0, 0), (0, 1)]);
        assert!(check(&history, &records).is_empty());
        records.extend(stored(&[(0, 2)]));
        records.extend(stored(&[(7, 0)]));
        records[0].digest ^= 1;
        let findings = check(&history, &records);
        assert_eq!(findings.count, 3);
        assert_eq!(findings.examples[0].what, "stored with another content");
        assert_eq!(findings.examples[1].what, "stored and never sent");
    }
}
