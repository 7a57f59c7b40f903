//! I4 — stored twice only if sent twice: a second copy needs a device that sent the message again
//! after the gateway that it was connected to had been disturbed, or after it had left it by itself.
//!
//! Source: `docs/invariants.md` I4, design §3 ("What a device re-sends after a reconnect is
//! at-least-once"). Whatever the hub repeats by itself, gateway to shard, must not be seen.

use super::{Findings, Violation};
use crate::oracle::{History, Stored};

/// Second copies, told apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Duplicates {
    /// Copies beyond the first, whatever their reason.
    pub count: u64,
    /// Those of them that no re-send explains.
    pub unexplained: Findings,
}

/// Counts second copies and finds those that the device did not cause.
pub fn check(history: &History, stored: &[Stored]) -> Duplicates {
    let mut found = Duplicates::default();
    let copies = history.copies(stored);
    for (device, copies) in history.devices.iter().zip(&copies) {
        for (seq, (message, copies)) in device.messages.iter().zip(copies).enumerate() {
            let extra = copies.saturating_sub(1);
            if extra == 0 {
                continue;
            }
            found.count += u64::from(extra);
            let resent = usize::from(message.first_connection)..usize::from(message.last_connection);
            let carriers = device.connections.get(resent).unwrap_or_default();
            let explained = carriers
                .iter()
                .filter(|connection| connection.closed_us.is_some() || history.is_excused(connection))
                .count() as u32;
            for _ in explained..extra {
                found.unexplained.add(|| Violation {
                    what: format!("stored {copies} times, explained are {}", 1 + explained),
                    device: Some(device.device.clone()),
                    seq: Some(seq as u64),
                    places: stored
                        .iter()
                        .filter(|record| record.seq == Some(seq as u32))
                        .filter(|record| {
                            let of = record.device.and_then(|of| history.devices.get(of as usize));
                            of.is_some_and(|of| of.device == device.device)
                        })
                        .map(Into::into)
                        .collect(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::check;
    use crate::oracle::tests::{history, stored};
    use crate::oracle::{Connection, Disturbance};

    #[test]
    fn a_copy_that_the_device_did_not_cause_is_found() {
        let found = check(&history(&[2]), &stored(&[(0, 0), (0, 1), (0, 1)]));
        assert_eq!((found.count, found.unexplained.count), (1, 1));
        assert_eq!(found.unexplained.examples[0].places.len(), 2);
    }

    #[test]
    fn a_resend_after_a_kill_explains_one_copy_and_not_two() {
        let mut history = history(&[1]);
        history.disturbances = vec![Disturbance {
            node: 0,
            from_us: 10,
            until_us: 11,
        }];
        history.devices[0].connections = vec![
            Connection {
                lost_us: Some(11),
                ..Connection::opened(0, 0)
            },
            Connection::opened(1, 12),
        ];
        history.devices[0].messages[0].last_connection = 1;
        let found = check(&history, &stored(&[(0, 0), (0, 0)]));
        assert_eq!((found.count, found.unexplained.count), (1, 0));
        assert_eq!(
            check(&history, &stored(&[(0, 0), (0, 0), (0, 0)]))
                .unexplained
                .count,
            1
        );
        history.disturbances.clear();
        assert_eq!(check(&history, &stored(&[(0, 0), (0, 0)])).unexplained.count, 1);
        history.devices[0].connections[0].lost_us = None;
        history.devices[0].connections[0].closed_us = Some(11);
        assert_eq!(
            check(&history, &stored(&[(0, 0), (0, 0)])).unexplained.count,
            0,
            "the device went elsewhere with the message unacknowledged"
        );
    }
}
