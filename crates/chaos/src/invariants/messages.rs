//! I8 — cloud-to-device messages: what was queued reaches its device or waits for it; nothing reaches it that was not sent,
//! nothing twice on one connection, and nothing for the first time before what was queued earlier.
//!
//! Source: `docs/invariants.md` I8; the order is that of MQTT 3.1.1, 4.6. A message may come again on a later connection,
//! since an acknowledgement can be lost with its connection; it is marked then. The device stays until its queue is empty, or
//! is said not to be.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Violation};
use crate::workload::exchange::{Exchange, Receipt, Sending};
use crate::workload::operation::Outcome;

/// All that is known of the messages of one device.
#[derive(Default)]
struct Queue<'a> {
    sent: Vec<&'a Sending>,
    received: Vec<&'a Receipt>,
    /// Messages that still waited at the end, if that is known.
    waiting: Option<u64>,
}

/// Messages that were lost, made up, repeated or reordered.
pub fn check(exchanges: &[Exchange]) -> Findings {
    let mut queues: BTreeMap<&str, Queue<'_>> = BTreeMap::new();
    for exchange in exchanges {
        match exchange {
            Exchange::Sending(one) => queues.entry(&one.device).or_default().sent.push(one),
            Exchange::Receipt(one) => queues.entry(&one.device).or_default().received.push(one),
            Exchange::Leftover(one) => queues.entry(&one.device).or_default().waiting = Some(one.waiting),
            _ => {}
        }
    }
    let mut findings = Findings::default();
    for (device, queue) in queues {
        for what in queue.broken() {
            findings.add(|| Violation {
                device: Some(device.to_owned()),
                ..Violation::of(what)
            });
        }
    }
    findings
}

impl Queue<'_> {
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let mut firsts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut on_connection = BTreeSet::new();
        for (place, receipt) in self.received.iter().enumerate() {
            let Receipt { id, connection, .. } = receipt;
            if !on_connection.insert((*connection, id)) {
                broken.push(format!("message {id} came twice on connection {connection}"));
            }
            let is_first = !firsts.contains_key(id.as_str());
            if !is_first && !receipt.dup {
                broken.push(format!("message {id} came again and was not marked as such"));
            }
            firsts.entry(id).or_insert(place);
        }
        for id in firsts.keys() {
            match self.sent.iter().find(|sent| sent.id == **id) {
                None => broken.push(format!("message {id} came and was never sent")),
                Some(sent) if sent.outcome == Outcome::Fail => {
                    broken.push(format!("message {id} came although it was refused"));
                }
                Some(_) => {}
            }
        }
        self.check_loss(&firsts, &mut broken);
        self.check_order(&firsts, &mut broken);
        broken
    }

    fn check_loss(&self, firsts: &BTreeMap<&str, usize>, broken: &mut Vec<String>) {
        let queued = self.sent.iter().filter(|sent| sent.outcome == Outcome::Ok);
        let missing: Vec<&str> = queued
            .map(|sent| sent.id.as_str())
            .filter(|id| !firsts.contains_key(id))
            .collect();
        // Nobody saw the end of it: those may all wait.
        let Some(waiting) = self.waiting else {
            return;
        };
        let lost = missing.len().saturating_sub(waiting as usize);
        broken.extend(
            missing
                .iter()
                .take(lost)
                .map(|id| format!("message {id} was queued, never came, and waits no longer")),
        );
    }

    /// One that was queued before another was sent comes first, if it comes.
    fn check_order(&self, firsts: &BTreeMap<&str, usize>, broken: &mut Vec<String>) {
        let mut came: Vec<(usize, &Sending)> = self
            .sent
            .iter()
            .filter_map(|sent| firsts.get(sent.id.as_str()).map(|place| (*place, *sent)))
            .collect();
        came.sort_by_key(|(place, _)| *place);
        // The latest beginning among those that came before: whoever comes later must not have ended before it.
        let mut latest: Option<&Sending> = None;
        for (_, sent) in came {
            if let Some(earlier) = latest
                && sent.outcome == Outcome::Ok
                && sent.completed_us < earlier.invoked_us
            {
                broken.push(format!(
                    "message {} came after {}, which was sent later",
                    sent.id, earlier.id
                ));
            }
            if latest.is_none_or(|earlier| earlier.invoked_us < sent.invoked_us) {
                latest = Some(sent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::exchange::Leftover;

    fn sent(id: &str, invoked_us: u64, outcome: Outcome) -> Exchange {
        Exchange::Sending(Sending {
            device: "d".into(),
            id: id.into(),
            invoked_us,
            completed_us: invoked_us + 5,
            outcome,
        })
    }

    fn came(connection: u64, id: &str, dup: bool) -> Exchange {
        Exchange::Receipt(Receipt {
            device: "d".into(),
            connection,
            id: id.into(),
            dup,
        })
    }

    fn left(waiting: u64) -> Exchange {
        Exchange::Leftover(Leftover {
            device: "d".into(),
            waiting,
        })
    }

    #[test]
    fn receipts_are_held_against_what_was_sent() {
        use Outcome::{Fail, Ok, Unknown};
        for sound in [
            vec![sent("a", 1, Ok), came(1, "a", false), left(0)],
            vec![sent("a", 1, Ok), left(1)],
            vec![sent("a", 1, Ok)],
            vec![sent("a", 1, Unknown), left(0)],
            vec![sent("a", 1, Unknown), came(1, "a", false), left(0)],
            vec![sent("a", 1, Fail), left(0)],
            vec![sent("a", 1, Ok), came(1, "a", false), came(2, "a", true), left(0)],
            // Its first delivery was lost on its way.
            vec![sent("a", 1, Ok), came(2, "a", true), left(0)],
            // Sent at the same time.
            vec![
                sent("a", 1, Ok),
                sent("b", 3, Ok),
                came(1, "b", false),
                came(1, "a", false),
                left(0),
            ],
        ] {
            assert_eq!(check(&sound), Findings::default(), "{sound:?}");
        }
        for wrong in [
            vec![sent("a", 1, Ok), left(0)],
            vec![sent("a", 1, Ok), sent("b", 1, Ok), left(1)],
            vec![came(1, "a", false), left(0)],
            vec![sent("a", 1, Fail), came(1, "a", false), left(0)],
            vec![sent("a", 1, Ok), came(1, "a", false), came(1, "a", true), left(0)],
            vec![
                sent("a", 1, Ok),
                came(1, "a", false),
                came(2, "a", false),
                left(0),
            ],
            vec![
                sent("a", 1, Ok),
                sent("b", 30, Ok),
                came(1, "b", false),
                came(1, "a", false),
                left(0),
            ],
        ] {
            assert_eq!(check(&wrong).count, 1, "{wrong:?}");
        }
    }
}
