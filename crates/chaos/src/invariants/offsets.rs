//! I5 — one offset, one record: the offsets of a shard are dense from 0, and each is read once.
//!
//! Source: `docs/invariants.md` I5, design §3 ("`apply` gives every event a dense u64 offset per
//! shard"). Only what one reading can show: not that an offset was never reused before.

use super::{Findings, Violation};
use crate::oracle::Stored;

/// Offsets that are missing, repeated or out of place. `stored` holds each shard's records as read.
pub fn check(stored: &[Stored]) -> Findings {
    let mut findings = Findings::default();
    let mut next: std::collections::HashMap<u32, u64> = std::collections::HashMap::new();
    for record in stored {
        let expected = next.insert(record.shard, record.offset + 1).unwrap_or(0);
        if record.offset != expected {
            findings.add(|| Violation {
                what: format!("offset {expected} was due"),
                device: None,
                seq: None,
                places: vec![record.into()],
            });
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::oracle::tests::stored;

    #[test]
    fn holes_and_repetitions_are_found() {
        let mut records = stored(&[(0, 0), (0, 1), (0, 2)]);
        assert!(check(&records).is_empty());
        records[2].offset = 1;
        assert_eq!(check(&records).count, 1);
        records[2].offset = 3;
        assert_eq!(check(&records).count, 1);
        records[0].offset = 1;
        assert!(!check(&records).is_empty());
    }
}
