//! I20 — what a route leads to a webhook comes there: every message that fits one, at least once, for the first time in the
//! order of its shard, and soon after the faults; and nothing else.
//!
//! Source: `docs/invariants.md` I20, `docs/routing.md`. An event may come again, where the gateway that handed it over died
//! or its answer was lost, so of each only the first time counts that the webhook said it has it. Which messages fit is
//! told from outside. Everything that was read back and fits is due, acknowledged or not: what stands in the log leaves.

use std::collections::{BTreeMap, HashMap};

use super::{Findings, Place, Violation};
use crate::oracle::{History, Stored};
use crate::workload::delivery::{Delivery, Parcel};

/// How long deliveries may take.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// When the last fault was healed and the load had ended.
    pub over_us: u64,
    /// So long after that every message must be there.
    pub within_us: u64,
}

/// Events that came and should not have, those that should have and did not, and those that came late or out of order.
/// `fits` says of which messages, by device and number, a route is.
pub fn check(
    (history, stored): (&History, &[Stored]),
    deliveries: &[Delivery],
    fits: impl Fn(usize, u32) -> bool,
    deadline: Deadline,
) -> Findings {
    let mut findings = Findings::default();
    let led = deliveries.iter().find_map(|delivery| match delivery {
        Delivery::Led { us } => Some(*us),
        Delivery::Parcel(_) => None,
    });
    let Some(led_us) = led else {
        return findings;
    };
    let due = due(history, stored, fits);
    let mut firsts = Firsts::default();
    for delivery in deliveries {
        if let Delivery::Parcel(parcel) = delivery {
            check_content(&mut findings, history, &due, parcel);
            firsts.take(&mut findings, parcel);
        }
    }
    for (place, record) in due.iter().filter(|(_, record)| record.sent_us >= led_us) {
        let latest_us = deadline.over_us.saturating_add(deadline.within_us);
        match firsts.us.get(place) {
            Some(us) if *us <= latest_us => {}
            Some(us) => findings.add(|| {
                let late_ms = us.saturating_sub(latest_us) / 1000;
                record.violation(
                    history,
                    *place,
                    format!("came to the webhook {late_ms} ms too late"),
                )
            }),
            None => findings.add(|| {
                record.violation(
                    history,
                    *place,
                    "fits a route and never came to the webhook".into(),
                )
            }),
        }
    }
    findings
}

/// A record that fits a route.
struct Due {
    device: usize,
    seq: u32,
    digest: u64,
    sent_us: u64,
}

impl Due {
    fn violation(&self, history: &History, (shard, offset): (u32, u64), what: String) -> Violation {
        Violation {
            device: history
                .devices
                .get(self.device)
                .map(|device| device.device.clone()),
            seq: Some(self.seq.into()),
            places: vec![Place { shard, offset }],
            ..Violation::of(what)
        }
    }
}

/// What was read back and fits, by its place. What nobody sent so is another checker's to find.
fn due(history: &History, stored: &[Stored], fits: impl Fn(usize, u32) -> bool) -> BTreeMap<(u32, u64), Due> {
    let due = |record: &Stored| {
        let (device, seq) = history.message_of(record)?;
        let message = history.devices.get(device)?.messages.get(seq)?;
        let seq = record.seq?;
        fits(device, seq).then(|| {
            let due = Due {
                device,
                seq,
                digest: record.digest,
                sent_us: message.sent_us,
            };
            ((record.shard, record.offset), due)
        })
    };
    stored.iter().filter_map(due).collect()
}

/// Everything in a parcel must be what stands at its place, and fit.
fn check_content(
    findings: &mut Findings,
    history: &History,
    due: &BTreeMap<(u32, u64), Due>,
    parcel: &Parcel,
) {
    if parcel.events.is_empty() {
        let at_ms = parcel.us / 1000;
        findings.add(|| Violation::of(format!("a parcel at {at_ms} ms has nothing that can be read")));
    }
    for event in &parcel.events {
        let mut wrong = |what: &str| {
            findings.add(|| Violation {
                device: Some(event.device.clone()),
                places: vec![Place {
                    shard: event.shard,
                    offset: event.offset,
                }],
                ..Violation::of(what.to_owned())
            });
        };
        match due.get(&(event.shard, event.offset)) {
            None => wrong("came to the webhook, and is nothing that fits a route"),
            Some(record) => {
                let name = history.devices.get(record.device).map(|device| &device.device);
                if record.digest != event.digest || name != Some(&event.device) {
                    wrong("came to the webhook as something else than it is");
                }
            }
        }
    }
}

/// When the webhook first said of each event that it has it.
#[derive(Default)]
struct Firsts {
    us: BTreeMap<(u32, u64), u64>,
    highest: HashMap<u32, u64>,
}

impl Firsts {
    fn take(&mut self, findings: &mut Findings, parcel: &Parcel) {
        if !parcel.reply.is_taken() {
            return;
        }
        for event in &parcel.events {
            let place = (event.shard, event.offset);
            if self.us.contains_key(&place) {
                continue;
            }
            self.us.insert(place, parcel.us);
            let highest = self.highest.entry(event.shard).or_insert(event.offset);
            if *highest > event.offset {
                let before = *highest;
                findings.add(|| Violation {
                    device: Some(event.device.clone()),
                    places: [event.offset, before]
                        .map(|offset| Place {
                            shard: event.shard,
                            offset,
                        })
                        .into(),
                    ..Violation::of("came to the webhook for the first time after a later one".into())
                });
            }
            *highest = event.offset.max(*highest);
        }
    }
}

/// Events that came, and those of them that came again after the webhook had said that it has them.
pub fn counts(deliveries: &[Delivery]) -> (u64, u64) {
    let (mut all, mut again) = (0, 0);
    let mut taken = std::collections::HashSet::new();
    for delivery in deliveries {
        if let Delivery::Parcel(parcel) = delivery {
            for event in &parcel.events {
                let place = (event.shard, event.offset);
                all += 1;
                again += u64::from(taken.contains(&place));
                if parcel.reply.is_taken() {
                    taken.insert(place);
                }
            }
        }
    }
    (all, again)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::{history, stored};
    use crate::workload::delivery::{Arrival, Reply};

    /// Two devices with three and two messages; those of the first fit. Records stand at offsets 0 to 4 of one shard.
    fn run(parcels: &[(u64, Reply, &[u64])]) -> Findings {
        let (history, stored) = (
            history(&[3, 2]),
            stored(&[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]),
        );
        let arrival = |offset: &u64| {
            let record = stored[*offset as usize];
            Arrival {
                shard: record.shard,
                offset: *offset,
                device: history.devices[record.device.unwrap() as usize].device.clone(),
                digest: record.digest,
            }
        };
        let parcel = |(us, reply, offsets): &(u64, Reply, &[u64])| {
            Delivery::Parcel(Parcel {
                us: *us,
                reply: *reply,
                events: offsets.iter().map(arrival).collect(),
            })
        };
        let mut deliveries = vec![Delivery::Led { us: 0 }];
        deliveries.extend(parcels.iter().map(parcel));
        let deadline = Deadline {
            over_us: 1_000_000,
            within_us: 1_000_000,
        };
        check(
            (&history, &stored),
            &deliveries,
            |device, _| device == 0,
            deadline,
        )
    }

    #[test]
    fn what_comes_at_least_once_and_in_order_is_right() {
        for good in [
            &[(10, Reply::Taken, &[0, 2, 4][..])][..],
            &[(10, Reply::Late, &[0]), (20, Reply::Taken, &[2, 4])],
            &[
                (10, Reply::Refused, &[0, 2]),
                (20, Reply::Dropped, &[0, 2]),
                (30, Reply::Taken, &[0, 2]),
                // Whoever took over begins where it knows of.
                (40, Reply::Taken, &[0, 2, 4]),
                (50, Reply::Taken, &[2]),
            ],
        ] {
            assert_eq!(run(good).count, 0, "{good:?}: {:?}", run(good).examples);
        }
    }

    #[test]
    fn what_is_lost_late_or_out_of_order_is_found() {
        for (bad, word) in [
            (&[(10, Reply::Taken, &[0, 4][..])][..], "never came"),
            (
                &[(10, Reply::Taken, &[0, 2]), (20, Reply::Refused, &[4])],
                "never came",
            ),
            (
                &[(10, Reply::Taken, &[0, 4]), (20, Reply::Taken, &[2])],
                "after a later one",
            ),
            (
                &[(10, Reply::Taken, &[0, 2]), (2_500_000, Reply::Taken, &[4])],
                "500 ms too late",
            ),
            (&[(10, Reply::Taken, &[0, 1, 2, 4])], "nothing that fits"),
            (
                &[(10, Reply::Refused, &[3]), (20, Reply::Taken, &[0, 2, 4])],
                "nothing that fits",
            ),
            (
                &[(10, Reply::Taken, &[0, 2, 4]), (20, Reply::Refused, &[])],
                "nothing that can be read",
            ),
        ] {
            let found = run(bad);
            assert_eq!(found.count, 1, "{bad:?}: {:?}", found.examples);
            assert!(found.examples[0].what.contains(word), "{:?}", found.examples);
        }
    }

    #[test]
    fn what_is_not_what_it_says_is_found() {
        let (history, stored) = (history(&[1]), stored(&[(0, 0)]));
        let one = |device: &str, digest: u64, offset: u64| {
            let parcel = Parcel {
                us: 5,
                reply: Reply::Taken,
                events: vec![Arrival {
                    shard: stored[0].shard,
                    offset,
                    device: device.into(),
                    digest,
                }],
            };
            let deliveries = [Delivery::Led { us: 0 }, Delivery::Parcel(parcel)];
            let deadline = Deadline {
                over_us: 9,
                within_us: 9,
            };
            check((&history, &stored), &deliveries, |_, _| true, deadline).count
        };
        let (name, digest) = (history.devices[0].device.clone(), stored[0].digest);
        assert_eq!(one(&name, digest, 0), 0);
        assert_eq!(one("another", digest, 0), 1);
        assert_eq!(one(&name, digest + 1, 0), 1);
        assert_eq!(one(&name, digest, 7), 2, "made up, and the real one never came");
    }

    #[test]
    fn where_no_routes_are_nothing_is_due() {
        let (history, stored) = (history(&[1]), stored(&[(0, 0)]));
        let deadline = Deadline {
            over_us: 0,
            within_us: 0,
        };
        assert_eq!(check((&history, &stored), &[], |_, _| true, deadline).count, 0);
    }

    #[test]
    fn repetitions_are_counted() {
        let event = |offset| Arrival {
            shard: 0,
            offset,
            device: "d".into(),
            digest: 1,
        };
        let parcel = |reply, offsets: &[u64]| {
            Delivery::Parcel(Parcel {
                us: 1,
                reply,
                events: offsets.iter().copied().map(event).collect(),
            })
        };
        let deliveries = [
            parcel(Reply::Refused, &[0, 1]),
            parcel(Reply::Taken, &[0, 1]),
            parcel(Reply::Taken, &[1, 2]),
        ];
        assert_eq!(counts(&deliveries), (6, 1));
    }
}
