//! I5, for readers of the past — whatever range is asked for, at whatever gateway and time, the answer is what the final
//! reading has there: nothing else, nothing less, and nothing missing that was acknowledged before it was asked.
//!
//! Source: `docs/invariants.md` I5, `docs/semantics.md` on reads. An offset names one record for ever, and the time at which
//! it was stored; times rise with offsets. So a range by time begins at the first event of that time or later. Only events
//! of devices with a history are looked at, here as where they were read.

use std::collections::BTreeMap;

use super::{Findings, Place, Violation};
use crate::oracle::{History, Stored};
use crate::workload::range::{From, Range};

/// Ranges that show what is not so.
pub fn check((history, stored): (&History, &[Stored]), ranges: &[Range]) -> Findings {
    let mut findings = Findings::default();
    if ranges.is_empty() {
        return findings;
    }
    let book = Book::new(history, stored, ranges);
    for (place, times) in &book.times {
        if let [one, another, ..] = times[..] {
            let what = format!("was stored at {one} by one answer and at {another} by another");
            findings.add(|| book.violation(*place, what));
        }
    }
    let mut before: Option<((u32, u64), u64)> = None;
    for (place, times) in &book.times {
        let time_ms = times[0];
        if let Some((last, last_ms)) = before
            && last.0 == place.0
            && last_ms > time_ms
        {
            let what = format!(
                "was stored at {time_ms}, and offset {} before it at {last_ms}",
                last.1
            );
            findings.add(|| book.violation(*place, what));
        }
        before = Some((*place, time_ms));
    }
    for range in ranges {
        check_range(&mut findings, &book, range);
    }
    findings
}

/// What ranges are held against.
struct Book<'a> {
    history: &'a History,
    stored: BTreeMap<(u32, u64), &'a Stored>,
    /// All times that answers gave to one place; a single one if all is well.
    times: BTreeMap<(u32, u64), Vec<u64>>,
    /// By shard: when something was acknowledged, and the offset behind everything that was by then.
    acked: BTreeMap<u32, Vec<(u64, u64)>>,
}

impl<'a> Book<'a> {
    fn new(history: &'a History, stored: &'a [Stored], ranges: &[Range]) -> Self {
        let count = history.devices.len();
        let is_known = |record: &&Stored| record.device.is_some_and(|device| (device as usize) < count);
        let known = stored.iter().filter(is_known);
        let mut times: BTreeMap<(u32, u64), Vec<u64>> = BTreeMap::new();
        for range in ranges {
            for event in &range.events {
                let all = times.entry((range.shard, event.offset)).or_default();
                if !all.contains(&event.time_ms) {
                    all.push(event.time_ms);
                }
            }
        }
        Self {
            history,
            stored: known
                .map(|record| ((record.shard, record.offset), record))
                .collect(),
            times,
            acked: acked(history, stored),
        }
    }

    fn violation(&self, (shard, offset): (u32, u64), what: String) -> Violation {
        let record = self.stored.get(&(shard, offset));
        let device = record.and_then(|record| self.history.devices.get(record.device? as usize));
        Violation {
            device: device.map(|device| device.device.clone()),
            places: vec![Place { shard, offset }],
            ..Violation::of(what)
        }
    }

    /// The offset behind all of a shard that was acknowledged before then.
    fn acked_before(&self, shard: u32, us: u64) -> u64 {
        let Some(acked) = self.acked.get(&shard) else {
            return 0;
        };
        let count = acked.partition_point(|(acked_us, _)| *acked_us < us);
        count.checked_sub(1).map_or(0, |last| acked[last].1)
    }
}

/// By shard: times of acks, and the offset behind everything that was acknowledged by then. A message that stands there
/// twice may have been acknowledged for either copy, so the first counts.
fn acked(history: &History, stored: &[Stored]) -> BTreeMap<u32, Vec<(u64, u64)>> {
    let mut firsts: BTreeMap<(usize, usize), (u32, u64)> = BTreeMap::new();
    for record in stored {
        if let Some(message) = history.message_of(record) {
            let place = (record.shard, record.offset);
            let first = firsts.entry(message).or_insert(place);
            *first = place.min(*first);
        }
    }
    let mut acked: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for ((device, seq), (shard, offset)) in firsts {
        let message = history
            .devices
            .get(device)
            .and_then(|device| device.messages.get(seq));
        if let Some(acked_us) = message.and_then(|message| message.acked_us) {
            acked.entry(shard).or_default().push((acked_us, offset + 1));
        }
    }
    for of_shard in acked.values_mut() {
        of_shard.sort_unstable();
        let mut end = 0;
        for (_, behind) in of_shard {
            end = end.max(*behind);
            *behind = end;
        }
    }
    acked
}

fn check_range(findings: &mut Findings, book: &Book<'_>, range: &Range) {
    let shard = range.shard;
    let at = |offset: u64, what: String| {
        let at_ms = range.invoked_us / 1000;
        book.violation((shard, offset), format!("a range at {at_ms} ms {what}"))
    };
    let acked = book.acked_before(shard, range.invoked_us);
    if range.end < acked {
        findings.add(|| {
            at(
                range.end,
                format!("ends where {acked} were acknowledged before it was asked"),
            )
        });
    }
    let begin = match range.from {
        From::Offset(offset) => offset,
        From::TimeMs(time_ms) => match begin_by_time(findings, book, range, time_ms) {
            Some(begin) => begin,
            None => return,
        },
    };
    // One by time may have shown events of others alone, and then nobody knows where it began.
    let is_blind = matches!(range.from, From::TimeMs(_)) && range.events.is_empty();
    if range.next <= begin && begin < range.end && !is_blind {
        findings.add(|| {
            at(
                begin,
                format!("shows nothing, and there are events up to {}", range.end),
            )
        });
    }
    let mut shown = range.events.iter().peekable();
    let mut before = None;
    for event in &range.events {
        let is_within = (begin..range.next).contains(&event.offset);
        if !is_within || before.is_some_and(|before| before >= event.offset) {
            findings.add(|| at(event.offset, "shows it where it does not belong".into()));
            return;
        }
        before = Some(event.offset);
    }
    if range.next <= begin {
        return;
    }
    for (place, record) in book.stored.range((shard, begin)..(shard, range.next)) {
        while let Some(event) = shown.next_if(|event| event.offset < place.1) {
            findings.add(|| at(event.offset, "shows what is not there in the end".into()));
        }
        match shown.next_if(|event| event.offset == place.1) {
            Some(event) if event.digest == record.digest => {}
            Some(_) => findings.add(|| at(place.1, "shows something else than there is in the end".into())),
            None => findings.add(|| at(place.1, "leaves it out".into())),
        }
    }
    for event in shown {
        findings.add(|| at(event.offset, "shows what is not there in the end".into()));
    }
}

/// Where a range by time begins, as far as its answer shows; none if it cannot be.
fn begin_by_time(findings: &mut Findings, book: &Book<'_>, range: &Range, time_ms: u64) -> Option<u64> {
    let begin = range.events.first().map_or(range.next, |event| event.offset);
    let at = |offset: u64, what: &str| {
        let what = format!("a range from time {time_ms} on {what}");
        book.violation((range.shard, offset), what)
    };
    if let Some(early) = range.events.iter().find(|event| event.time_ms < time_ms) {
        findings.add(|| at(early.offset, "shows an earlier event"));
        return None;
    }
    // Times rise, so the last one before it is the one to look at.
    let before = book
        .times
        .range((range.shard, 0)..(range.shard, begin))
        .next_back();
    if let Some((place, times)) = before
        && times[0] >= time_ms
    {
        findings.add(|| at(place.1, "leaves it out"));
        return None;
    }
    Some(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::tests::{digest_of, history, stored};

    /// Five records of two devices, acknowledged at 5, 15 and 25 us, and a range that was asked for at `invoked_us`.
    fn run(more: &[Range]) -> Findings {
        let (history, stored) = (
            history(&[3, 2]),
            stored(&[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]),
        );
        let mut ranges = vec![range(From::Offset(0), 1_000, &[0, 1, 2, 3, 4], 5)];
        ranges.extend_from_slice(more);
        check((&history, &stored), &ranges)
    }

    /// Record `offset` was stored at `100 + offset`.
    fn range(from: From, invoked_us: u64, offsets: &[u64], next: u64) -> Range {
        let digest = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)].map(|(device, seq)| digest_of(device, seq));
        let event = |offset: &u64| (*offset, 100 + offset, digest[*offset as usize]).into();
        Range {
            shard: 0,
            from,
            invoked_us,
            completed_us: invoked_us + 10,
            events: offsets.iter().map(event).collect(),
            next,
            end: 5,
        }
    }

    fn changed(range: Range, change: impl FnOnce(&mut Range)) -> Range {
        let mut range = range;
        change(&mut range);
        range
    }

    #[test]
    fn what_can_be_is_right() {
        for good in [
            range(From::Offset(0), 1_000, &[0, 1], 2),
            range(From::Offset(3), 1_000, &[3, 4], 5),
            range(From::Offset(5), 1_000, &[], 5),
            // Four had been acknowledged by then, and the fifth may have come since.
            changed(range(From::Offset(1), 16, &[1, 2, 3], 4), |range| range.end = 4),
            range(From::TimeMs(0), 1_000, &[0, 1, 2], 3),
            range(From::TimeMs(102), 1_000, &[2, 3, 4], 5),
            range(From::TimeMs(200), 1_000, &[], 5),
            range(From::TimeMs(104), 1_000, &[], 4),
        ] {
            let found = run(std::slice::from_ref(&good));
            assert_eq!(found.count, 0, "{good:?}: {:?}", found.examples);
        }
        assert_eq!(check((&History::default(), &[]), &[]).count, 0);
    }

    #[test]
    fn what_cannot_be_is_found() {
        let all = || range(From::Offset(0), 1_000, &[0, 1, 2, 3, 4], 5);
        for (bad, word) in [
            (range(From::Offset(1), 1_000, &[1, 3], 4), "leaves it out"),
            (range(From::Offset(1), 1_000, &[1, 2], 4), "leaves it out"),
            (range(From::Offset(2), 1_000, &[1, 2], 3), "does not belong"),
            (range(From::Offset(0), 1_000, &[1, 0], 2), "does not belong"),
            (range(From::Offset(0), 1_000, &[0, 1, 1], 2), "does not belong"),
            (range(From::Offset(0), 1_000, &[0, 1, 2], 2), "does not belong"),
            (range(From::Offset(2), 1_000, &[], 2), "shows nothing"),
            (
                changed(all(), |range| range.events[2].digest += 1),
                "something else",
            ),
            (
                changed(all(), |range| {
                    range.events.push((5, 105, 7).into());
                    (range.next, range.end) = (6, 6);
                }),
                "not there in the end",
            ),
            (
                changed(range(From::Offset(1), 1_000, &[1, 2], 3), |range| range.end = 3),
                "acknowledged before",
            ),
            (
                changed(all(), |range| range.events[2].time_ms = 300),
                "by another",
            ),
            (range(From::TimeMs(103), 1_000, &[2, 3, 4], 5), "an earlier event"),
            (range(From::TimeMs(102), 1_000, &[3, 4], 5), "leaves it out"),
            (range(From::TimeMs(102), 1_000, &[], 5), "leaves it out"),
        ] {
            let found = run(std::slice::from_ref(&bad));
            assert_eq!(found.count, 1, "{bad:?}: {:?}", found.examples);
            assert!(found.examples[0].what.contains(word), "{:?}", found.examples);
        }
    }

    #[test]
    fn times_that_fall_are_found() {
        let (history, stored) = (history(&[2]), stored(&[(0, 0), (0, 1)]));
        let mut falling = range(From::Offset(0), 1_000, &[], 2);
        falling.end = 2;
        falling.events = vec![(0, 50, digest_of(0, 0)).into(), (1, 49, digest_of(0, 1)).into()];
        let found = check((&history, &stored), &[falling]);
        assert_eq!(found.count, 1, "{:?}", found.examples);
        assert!(found.examples[0].what.contains("before it at 50"));
    }
}
