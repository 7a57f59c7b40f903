//! Erasing: once a device is erased nobody is shown what it sent before, through whatever gateway; everything else
//! stands where it stood.
//!
//! Source: `docs/semantics.md`, What erasing a device means. The answer to an erasure names the offset where the device's
//! events end; receipts name where each stands. So it is known of each acknowledged message whether it is gone. Without an
//! answer an erasure may have come, or come yet, and takes what the device has sent with it or not; nobody gets its name
//! again. [`Holes`] are the offsets where there may be nothing, for those who look for gaps; [`forget`] takes out of a
//! history what has to be nowhere, for those who look for what is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Violation};
use crate::oracle::{History, Stored};
use crate::workload::erasure::{Erasure, Sent, Trace};
use crate::workload::operation::Outcome;

/// What is known of a device.
#[derive(Default)]
struct Device<'a> {
    sent: Vec<&'a Sent>,
    erasures: Vec<&'a Erasure>,
}

impl Device<'_> {
    /// Where its events end that are gone, by what was acknowledged by then.
    fn gone_at(&self, us: u64) -> u64 {
        let done = self.erasures.iter().filter(|erasure| erasure.completed_us <= us);
        done.filter_map(|erasure| erasure.upto).max().unwrap_or(0)
    }

    /// The same at the end.
    fn gone(&self) -> u64 {
        self.gone_at(u64::MAX)
    }

    /// Whether an erasure may have come that nobody knows of.
    fn is_doubtful(&self) -> bool {
        self.erasures
            .iter()
            .any(|erasure| erasure.outcome == Outcome::Unknown)
    }

    /// Whether there may be nothing where a message stood; of one without a receipt, if any of it is gone.
    fn may_be_gone(&self, sent: &Sent) -> bool {
        let gone = self.gone();
        self.is_doubtful() || sent.offset.map_or(gone > 0, |offset| offset < gone)
    }
}

fn devices(traces: &[Trace]) -> BTreeMap<&str, Device<'_>> {
    let mut devices: BTreeMap<&str, Device<'_>> = BTreeMap::new();
    for trace in traces {
        match trace {
            Trace::Sent(sent) => devices.entry(&sent.device).or_default().sent.push(sent),
            Trace::Erasure(erasure) => devices.entry(&erasure.device).or_default().erasures.push(erasure),
            Trace::Look(_) => {}
        }
    }
    devices
}

/// What is shown of devices that were erased, and what does not stand where its receipt says. `names` are the devices
/// of the history, in its order.
pub fn check(traces: &[Trace], names: &[String], stored: &[Stored]) -> Findings {
    let mut findings = Findings::default();
    let devices = devices(traces);
    for trace in traces {
        let Trace::Look(look) = trace else {
            continue;
        };
        let Some(device) = devices.get(look.device.as_str()) else {
            continue;
        };
        let gone = device.gone_at(look.invoked_us);
        let mut wrong = |what: String| {
            findings.add(|| Violation {
                device: Some(look.device.clone()),
                ..Violation::of(format!("{what}, at node {}", look.node + 1))
            });
        };
        if gone > 0 && look.is_there == Some(true) {
            wrong("a device that was erased is in the registry".to_owned());
        }
        for offset in look.shown.iter().filter(|offset| **offset < gone) {
            wrong(format!(
                "offset {offset} is shown, though all below {gone} is erased"
            ));
        }
    }
    let mut places: BTreeMap<(&str, u32), (u32, u64)> = BTreeMap::new();
    for sent in devices.values().flat_map(|device| &device.sent) {
        if let Some(offset) = sent.offset {
            places.insert((&sent.device, sent.seq), (sent.shard, offset));
        }
    }
    for record in stored {
        let name = record.device.and_then(|place| names.get(place as usize));
        let Some((name, device)) = name.and_then(|name| Some((name, devices.get(name.as_str())?))) else {
            continue;
        };
        let receipt = record.seq.and_then(|seq| places.get(&(name.as_str(), seq)));
        let what = match receipt {
            _ if record.offset < device.gone() => "stored, though it was erased",
            Some(place) if *place != (record.shard, record.offset) => {
                "stored elsewhere than its receipt says"
            }
            _ => continue,
        };
        findings.add(|| Violation {
            device: Some(name.clone()),
            seq: record.seq.map(u64::from),
            places: vec![record.into()],
            ..Violation::of(what.to_owned())
        });
    }
    findings
}

/// What was read back without all that is of such devices: what there was of them may have been shown before and be
/// gone by now.
pub fn lasting(traces: &[Trace], names: &[String], stored: &[Stored]) -> Vec<Stored> {
    let devices = devices(traces);
    let is_lasting = |record: &&Stored| {
        let name = record.device.and_then(|place| names.get(place as usize));
        !name.is_some_and(|name| devices.contains_key(name.as_str()))
    };
    stored.iter().filter(is_lasting).copied().collect()
}

/// Takes back the acknowledgements of what has been erased, or may have been: nobody has to find it any more.
pub fn forget(history: &mut History, traces: &[Trace]) {
    let devices = devices(traces);
    for known in &mut history.devices {
        let Some(device) = devices.get(known.device.as_str()) else {
            continue;
        };
        for sent in device.sent.iter().filter(|sent| device.may_be_gone(sent)) {
            if let Some(message) = known.messages.get_mut(sent.seq as usize) {
                message.acked_us = None;
            }
        }
    }
}

/// Offsets where there may be nothing, because what stood there was erased.
#[derive(Debug, Clone, Default)]
pub struct Holes {
    /// By their receipts.
    known: BTreeSet<(u32, u64)>,
    /// How many more there may be in a shard, of messages without a receipt.
    more: BTreeMap<u32, u64>,
}

impl Holes {
    /// Those that erasures explain.
    pub fn of(traces: &[Trace]) -> Holes {
        let mut holes = Holes::default();
        for device in devices(traces).values() {
            for sent in device.sent.iter().filter(|sent| device.may_be_gone(sent)) {
                match sent.offset {
                    Some(offset) => {
                        holes.known.insert((sent.shard, offset));
                    }
                    None => *holes.more.entry(sent.shard).or_default() += 1,
                }
            }
        }
        holes
    }

    /// How many of the offsets from `from` to `until` no receipt explains.
    pub fn unknown(&self, shard: u32, from: u64, until: u64) -> u64 {
        let known = match from < until {
            true => self.known.range((shard, from)..(shard, until)).count() as u64,
            false => 0,
        };
        until.saturating_sub(from).saturating_sub(known)
    }

    /// How many offsets of a shard may have nothing without a receipt that says so.
    pub fn more(&self, shard: u32) -> u64 {
        self.more.get(&shard).copied().unwrap_or(0)
    }

    /// Whether there may be nothing at all of these offsets.
    pub fn may_be(&self, shard: u32, from: u64, until: u64) -> bool {
        self.unknown(shard, from, until) <= self.more(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::{history, stored};
    use crate::workload::erasure::Look;

    fn sent(seq: u32, offset: Option<u64>) -> Trace {
        Trace::Sent(Sent {
            device: "d0".into(),
            seq,
            shard: 0,
            offset,
        })
    }

    fn erasure(us: u64, outcome: Outcome, upto: Option<u64>) -> Trace {
        Trace::Erasure(Erasure {
            device: "d0".into(),
            node: 0,
            invoked_us: us,
            completed_us: us + 5,
            outcome,
            upto,
        })
    }

    fn look(us: u64, is_there: bool, shown: &[u64]) -> Trace {
        Trace::Look(Look {
            device: "d0".into(),
            node: 1,
            invoked_us: us,
            is_there: Some(is_there),
            shown: shown.to_vec(),
        })
    }

    /// Two messages of `d0` with one of `d1` between them, erased; then a third, of another device of its name.
    fn good() -> Vec<Trace> {
        vec![
            sent(0, Some(0)),
            sent(1, Some(2)),
            look(5, true, &[0, 2]),
            erasure(10, Outcome::Ok, Some(3)),
            look(20, false, &[]),
            sent(2, Some(3)),
        ]
    }

    fn names() -> Vec<String> {
        vec!["d0".into(), "d1".into()]
    }

    /// What is left: the other device's message and the third one.
    fn left() -> Vec<Stored> {
        stored(&[(0, 0), (1, 0), (0, 1), (0, 2)])
            .into_iter()
            .filter(|record| [1, 3].contains(&record.offset))
            .collect()
    }

    #[test]
    fn what_is_shown_of_an_erased_device_is_found() {
        let count = |traces: &[Trace], stored: &[Stored]| check(traces, &names(), stored).count;
        assert_eq!(count(&good(), &left()), 0);
        for bad in [look(20, true, &[]), look(20, false, &[0]), look(15, false, &[2])] {
            let mut traces = good();
            traces[4] = bad.clone();
            assert_eq!(count(&traces, &left()), 1, "{bad:?}");
        }
        let mut traces = good();
        traces[4] = look(14, true, &[0, 2]);
        assert_eq!(count(&traces, &left()), 0, "it was asked before the answer came");
        assert_eq!(
            count(&good(), &stored(&[(0, 0), (1, 0)])),
            1,
            "read back in the end"
        );
        let mut moved = left();
        moved[1].offset = 4;
        assert_eq!(count(&good(), &moved), 1, "it stands elsewhere");
        assert_eq!(lasting(&good(), &names(), &left()), [left()[0]]);
    }

    #[test]
    fn what_was_erased_need_not_be_found_and_all_else_must() {
        let acked = |traces: &[Trace]| -> Vec<bool> {
            let mut history = history(&[3, 1]);
            forget(&mut history, traces);
            let messages = history.devices.iter().flat_map(|device| &device.messages);
            messages.map(|message| message.is_acked()).collect()
        };
        assert_eq!(acked(&good()), [false, false, true, true]);
        let mut doubtful = good();
        doubtful[3] = erasure(10, Outcome::Unknown, None);
        assert_eq!(acked(&doubtful), [false, false, false, true], "it may come late");
        let mut refused = good();
        refused[3] = erasure(10, Outcome::Fail, None);
        assert_eq!(acked(&refused), [true; 4]);
    }

    #[test]
    fn a_hole_is_where_something_was_erased_or_may_have_been() {
        let holes = Holes::of(&good());
        assert!(holes.may_be(0, 0, 1) && holes.may_be(0, 2, 3));
        assert!(!holes.may_be(0, 1, 2) && !holes.may_be(0, 0, 3) && !holes.may_be(0, 3, 4));
        assert!(!holes.may_be(1, 0, 1), "another shard");
        let mut traces = good();
        traces.insert(2, sent(3, None));
        let holes = Holes::of(&traces);
        assert!(
            holes.may_be(0, 1, 2),
            "one that was not answered may have stood anywhere"
        );
        assert!(!holes.may_be(0, 3, 5));
        assert_eq!(
            (holes.unknown(0, 0, 3), holes.unknown(0, 3, 3), holes.more(0)),
            (1, 0, 1)
        );
    }
}
