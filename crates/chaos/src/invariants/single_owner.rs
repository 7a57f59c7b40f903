//! I11 — single owner: writes of two sessions of a device never interleave.
//!
//! Source: `docs/invariants.md` I11; `docs/semantics.md`: no message of an old connection is stored after
//! the new session was accepted. Judged by what was read back: once a message of a connection stands in
//! the log, none of an earlier connection may follow. A message that several connections carried may be
//! from any of them.

use super::{Findings, Violation};
use crate::oracle::{History, Road, Stored};

/// Records of a connection that another had taken over. `stored` is in offset order within each shard.
pub fn check(history: &History, stored: &[Stored]) -> Findings {
    let mut findings = Findings::default();
    // For each device the earliest connection that may own the log here, and the record that says so.
    let mut owners: Vec<Option<(u16, Stored)>> = vec![None; history.devices.len()];
    for record in stored {
        let Some((device, seq)) = history.message_of(record) else {
            continue;
        };
        let message = &history.devices[device].messages[seq];
        if message.road == Road::Https {
            continue;
        }
        match &owners[device] {
            Some((owner, before)) if message.last_connection < *owner => {
                findings.add(|| Violation {
                    what: "stored after a later connection of its device had taken over".into(),
                    device: Some(history.devices[device].device.clone()),
                    seq: Some(seq as u64),
                    places: vec![before.into(), record.into()],
                });
            }
            Some((owner, _)) => {
                let owner = message.first_connection.max(*owner);
                owners[device] = Some((owner, *record));
            }
            None => owners[device] = Some((message.first_connection, *record)),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::oracle::tests::{history, stored};

    #[test]
    fn a_message_of_a_connection_that_was_taken_over_is_found() {
        let mut history = history(&[4]);
        for (seq, connection) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
            let message = &mut history.devices[0].messages[seq];
            (message.first_connection, message.last_connection) = (connection, connection);
        }
        assert!(check(&history, &stored(&[(0, 0), (0, 2), (0, 1), (0, 3)])).is_empty());
        let findings = check(&history, &stored(&[(0, 0), (0, 1), (0, 2), (0, 3)]));
        assert_eq!((findings.count, findings.examples[0].seq), (1, Some(2)));
        // Had the second connection carried it as well, nothing would be wrong.
        history.devices[0].messages[2].last_connection = 1;
        assert!(check(&history, &stored(&[(0, 0), (0, 1), (0, 2), (0, 3)])).is_empty());
    }
}
