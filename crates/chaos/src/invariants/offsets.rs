//! I5 — one offset, one record: the offsets of a shard are dense from 0, and each is read once.
//!
//! Source: `docs/invariants.md` I5, design §3 ("`apply` gives every event a dense u64 offset per
//! shard"). Where something was erased there may be nothing any more. Only what one reading can show: not that an
//! offset was never reused before.

use std::collections::HashMap;

use super::erasing::Holes;
use super::{Findings, Violation};
use crate::oracle::Stored;

/// Offsets that are missing, repeated or out of place. `stored` holds each shard's records as read.
pub fn check(stored: &[Stored]) -> Findings {
    check_around(stored, &Holes::default())
}

/// The same where erasures may have left holes.
pub fn check_around(stored: &[Stored], holes: &Holes) -> Findings {
    let mut findings = Findings::default();
    let mut next: HashMap<u32, u64> = HashMap::new();
    // How many offsets of each shard nothing explains but a message that was never answered.
    let mut unknown: HashMap<u32, u64> = HashMap::new();
    for record in stored {
        let expected = next.insert(record.shard, record.offset + 1).unwrap_or(0);
        let unknown = unknown.entry(record.shard).or_default();
        let unexplained = holes.unknown(record.shard, expected, record.offset);
        *unknown += unexplained;
        let is_explained = unexplained == 0 || *unknown <= holes.more(record.shard);
        let is_hole = expected < record.offset && is_explained;
        if record.offset != expected && !is_hole {
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
    use super::*;
    use crate::oracle::tests::stored;
    use crate::workload::erasure::{Erasure, Sent, Trace};
    use crate::workload::operation::Outcome;

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

    #[test]
    fn a_hole_is_none_where_something_was_erased_and_only_there() {
        let sent = |seq, offset| {
            Trace::Sent(Sent {
                device: "gone".into(),
                seq,
                shard: 0,
                offset,
            })
        };
        let erasure = Trace::Erasure(Erasure {
            device: "gone".into(),
            node: 0,
            invoked_us: 1,
            completed_us: 2,
            outcome: Outcome::Ok,
            upto: Some(9),
        });
        let mut records = stored(&[(0, 0), (0, 1), (0, 2), (0, 3)]);
        for (record, offset) in records.iter_mut().zip([0, 2, 4, 5]) {
            record.offset = offset;
        }
        let count = |traces: &[Trace]| check_around(&records, &Holes::of(traces)).count;
        let (first, lost) = (sent(0, Some(1)), sent(1, None));
        assert_eq!(count(&[first.clone(), sent(1, Some(3)), erasure.clone()]), 0);
        assert_eq!(count(&[first.clone(), lost.clone(), erasure.clone()]), 0);
        assert_eq!(
            count(&[first.clone(), erasure.clone()]),
            1,
            "offset 3 was never hers"
        );
        assert_eq!(count(&[lost.clone(), erasure]), 1, "one message is one hole");
        assert_eq!(count(&[first, lost]), 2, "nothing was erased");
    }
}
