//! I3 — per-device order: a device's messages stand in its shard in the order in which it sent them.
//!
//! Source: `docs/invariants.md` I3. Judged on first occurrences: what is re-sent after a reconnect
//! stands a second time behind its first place, and that second place says nothing. A message over
//! HTTPS whose outcome stayed unknown may be stored at any later time, so its place says nothing either.

use super::{Findings, Violation};
use crate::oracle::{History, Road, Stored};

#[derive(Clone)]
struct Seen {
    has: Vec<bool>,
    /// The highest sequence number so far, with its record.
    last: Option<Stored>,
}

/// First occurrences that stand behind a later message of their device, or in another shard than it.
/// `stored` is in offset order within each shard.
pub fn check(history: &History, stored: &[Stored]) -> Findings {
    let mut findings = Findings::default();
    let mut seen: Vec<Seen> = history
        .devices
        .iter()
        .map(|device| Seen {
            has: vec![false; device.messages.len()],
            last: None,
        })
        .collect();
    for record in stored {
        let Some((device, seq)) = history.message_of(record) else {
            continue;
        };
        let message = &history.devices[device].messages[seq];
        if message.road == Road::Https && !message.is_acked() {
            continue;
        }
        let Seen { has, last } = &mut seen[device];
        if std::mem::replace(&mut has[seq], true) {
            continue;
        }
        match last {
            Some(before) if before.shard != record.shard || before.seq > record.seq => {
                let in_one_shard = before.shard == record.shard;
                findings.add(|| Violation {
                    what: if in_one_shard {
                        "stored behind a later message"
                    } else {
                        "stored in two shards"
                    }
                    .into(),
                    device: Some(history.devices[device].device.clone()),
                    seq: Some(seq as u64),
                    places: vec![(&*before).into(), record.into()],
                });
            }
            _ => *last = Some(*record),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::oracle::tests::{history, stored};

    #[test]
    fn a_message_behind_a_later_one_is_found() {
        let history = history(&[4, 2]);
        assert!(
            check(
                &history,
                &stored(&[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (0, 3)])
            )
            .is_empty()
        );
        let findings = check(&history, &stored(&[(0, 0), (0, 2), (1, 0), (0, 1), (0, 3)]));
        assert_eq!((findings.count, findings.examples[0].seq), (1, Some(1)));
        assert_eq!(findings.examples[0].places.len(), 2);
    }

    #[test]
    fn a_second_occurrence_says_nothing() {
        let history = history(&[4]);
        assert!(
            check(
                &history,
                &stored(&[(0, 0), (0, 1), (0, 2), (0, 1), (0, 2), (0, 3)])
            )
            .is_empty()
        );
    }

    #[test]
    fn one_device_in_two_shards_has_no_order() {
        let mut records = stored(&[(0, 0), (0, 1)]);
        records[1].shard = 1;
        assert_eq!(check(&history(&[2]), &records).count, 1);
    }
}
