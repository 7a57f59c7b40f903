//! I8 — feedback: whoever asks to be told how a message ends is told so once, as it ended, and nobody is told of anything
//! else.
//!
//! Source: `docs/invariants.md` I8, `docs/semantics.md` on messages to devices. Feedback is given out in batches, each to one
//! service at a time, at least once, so of each record:
//!
//! 1. it is of a message that was sent, and whose sender wants to hear of this end;
//! 2. it says how and when the message ended, and says so again if it comes again;
//! 3. it does not come again in the hands of another while its batch is locked, nor once its batch was completed;
//! 4. a lock settles once, and its holder is not refused;
//! 5. it comes: when nobody can have it and there is none, none is missing.
//!
//! How messages end is told by [`super::settlements`], which judges whether they end as they may.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::owed::BATCH_LOCK_MS;

use super::settlements::{Queue, Story, queues};
use super::{Findings, Violation};
use crate::workload::handling::{Batch, BatchSettling, Handling, Take, Told};
use crate::workload::operation::Outcome;

/// How long a batch belongs to whoever took it.
const LOCK_US: u64 = BATCH_LOCK_MS * 1000;
/// A command whose outcome nobody waits for any more comes no later than that, once nothing is disturbed; and stamps that
/// were ahead of the time have been caught up with.
const LATE_US: u64 = 20_000_000;

/// A batch that was given out, and what was done under its lock.
struct Given<'a> {
    take: &'a Take,
    records: &'a [Told],
    settlings: Vec<&'a BatchSettling>,
}

/// Feedback that is missing, made up, wrong, or in two hands.
pub fn check(handlings: &[Handling], clocks_us: u64) -> Findings {
    let mut findings = Findings::default();
    let mut add = |device: Option<&str>, what: String| {
        findings.add(|| Violation {
            device: device.map(str::to_owned),
            ..Violation::of(what)
        });
    };
    let queues = queues(handlings);
    let batches = batches(handlings);
    let mut copies: BTreeMap<(&str, &str), Vec<(&Given<'_>, &Told)>> = BTreeMap::new();
    for given in &batches {
        for told in given.records {
            let of_message = copies.entry((&told.device, &told.id)).or_default();
            of_message.push((given, told));
        }
        for what in given.broken(clocks_us) {
            add(None, what);
        }
    }
    for ((device, id), copies) in &copies {
        let queue = queues.get(device);
        let story = queue.and_then(|queue| queue.stories.get(id));
        let unknown_fetches = queue.map_or(0, Queue::unknown_fetches);
        if let Err(what) = may_be_told(story, copies[0].1, unknown_fetches) {
            add(Some(device), format!("feedback on message {id} {what}"));
        }
        for (place, (given, told)) in copies.iter().enumerate() {
            let others = copies.iter().skip(place + 1);
            for (other, again) in others {
                if let Err(what) = may_come_again((given, told), (other, again), clocks_us) {
                    add(Some(device), format!("feedback on message {id} {what}"));
                }
            }
        }
    }
    for (device, id) in missing(handlings) {
        add(Some(device), format!("feedback on message {id} never came"));
    }
    findings
}

fn batches(handlings: &[Handling]) -> Vec<Given<'_>> {
    let mut settlings: BTreeMap<&str, Vec<&BatchSettling>> = BTreeMap::new();
    for handling in handlings {
        if let Handling::BatchSettled(one) = handling {
            settlings.entry(&one.lock).or_default().push(one);
        }
    }
    let mut batches = Vec::new();
    for handling in handlings {
        if let Handling::Taken(take) = handling
            && let Batch::Records { lock, records } = &take.batch
        {
            batches.push(Given {
                take,
                records,
                settlings: settlings.remove(lock.as_str()).unwrap_or_default(),
            });
        }
    }
    batches
}

impl Given<'_> {
    fn held_until_us(&self, clocks_us: u64) -> u64 {
        (self.take.invoked_us + LOCK_US).saturating_sub(clocks_us)
    }

    fn is_completed(&self) -> bool {
        let is_so = |one: &BatchSettling| one.completes && one.outcome == Outcome::Ok;
        self.settlings.iter().any(|one| is_so(one))
    }

    /// Rule 4.
    fn broken(&self, clocks_us: u64) -> Vec<String> {
        let mut broken = Vec::new();
        let at_ms = self.take.invoked_us / 1000;
        let done = self.settlings.iter().filter(|one| one.outcome == Outcome::Ok);
        if done.count() > 1 {
            broken.push(format!("feedback of {at_ms} ms was settled twice"));
        }
        for one in self.settlings.iter().filter(|one| one.outcome == Outcome::Fail) {
            let is_settled = self
                .settlings
                .iter()
                .any(|other| other.outcome != Outcome::Fail && other.invoked_us < one.completed_us);
            if one.completed_us < self.held_until_us(clocks_us) && !is_settled {
                broken.push(format!("feedback of {at_ms} ms was refused to who had it"));
            }
        }
        broken
    }
}

/// Rules 1 and 2.
fn may_be_told(story: Option<&Story<'_>>, told: &Told, unknown_fetches: usize) -> Result<(), String> {
    let sent = story.and_then(|story| story.sent);
    let (Some(story), Some(sent)) = (story, sent) else {
        return Err("came, and nobody has sent that".to_owned());
    };
    if sent.outcome == Outcome::Fail {
        return Err("came, and it was refused".to_owned());
    }
    let end = told.end.ok_or_else(|| "says what nobody knows".to_owned())?;
    if !sent.ack.wants(end) {
        return Err(format!("came, and nobody wants to hear of {}", end.word()));
    }
    match story.end() {
        Some((known, _)) if known != end => Err(format!("says {}, not {}", end.word(), known.word())),
        _ => story.may_have_ended(end, &told.ended, unknown_fetches),
    }
}

/// Rules 2 and 3, of two copies of a record.
fn may_come_again(
    (one, told): (&Given<'_>, &Told),
    (other, again): (&Given<'_>, &Told),
    clocks_us: u64,
) -> Result<(), String> {
    if told != again {
        return Err("comes again, and says something else".to_owned());
    }
    if std::ptr::eq(one.take, other.take) {
        return Err("stands twice in one batch".to_owned());
    }
    let (first, second) = match one.take.completed_us < other.take.invoked_us {
        true => (one, other),
        false if other.take.completed_us < one.take.invoked_us => (other, one),
        // Asked at the same time: nobody knows who had it first, and one of them does not hold it any more.
        false if one.is_completed() && other.is_completed() => {
            return Err("was completed in two hands".to_owned());
        }
        false => return Ok(()),
    };
    // Before the other had it, or after: neither may be.
    if first.is_completed() {
        return Err("came again, and its batch was completed".to_owned());
    }
    let gives_back = |one: &BatchSettling| {
        !one.completes && one.outcome != Outcome::Fail && one.invoked_us < second.take.completed_us
    };
    let is_given_back = first.settlings.iter().any(|one| gives_back(one));
    if second.take.completed_us < first.held_until_us(clocks_us) && !is_given_back {
        return Err(format!(
            "was given out at {} ms while it was locked at {} ms",
            second.take.invoked_us / 1000,
            first.take.invoked_us / 1000
        ));
    }
    Ok(())
}

/// Messages that have ended, whose senders want to hear of it, and have not; with the time since which the end is known.
pub fn owed(handlings: &[Handling]) -> BTreeMap<(&str, &str), u64> {
    let mut told: BTreeSet<(&str, &str)> = BTreeSet::new();
    for handling in handlings {
        if let Handling::Taken(take) = handling
            && let Batch::Records { records, .. } = &take.batch
        {
            told.extend(
                records
                    .iter()
                    .map(|told| (told.device.as_str(), told.id.as_str())),
            );
        }
    }
    let mut owed = BTreeMap::new();
    for (device, queue) in queues(handlings) {
        for (id, story) in queue.stories {
            if let (Some(sent), Some((end, us))) = (story.sent, story.end())
                && sent.ack.wants(end)
                && !told.contains(&(device, id))
            {
                owed.insert((device, id), us);
            }
        }
    }
    owed
}

/// Until when feedback may be locked by somebody who took it without hearing of it.
pub fn locked_until_us(handlings: &[Handling]) -> u64 {
    let unheard = handlings.iter().filter_map(|handling| match handling {
        Handling::Taken(take) if take.batch == Batch::Unknown => Some(take.completed_us),
        _ => None,
    });
    unheard.max().map_or(0, |us| us + LATE_US + LOCK_US)
}

/// Rule 5: what is owed since before somebody was told that there is nothing, when nobody could have it.
fn missing(handlings: &[Handling]) -> Vec<(&str, &str)> {
    let nothing = handlings.iter().filter_map(|handling| match handling {
        Handling::Taken(take) if take.batch == Batch::Nothing => Some(take.invoked_us),
        _ => None,
    });
    let Some(nothing_us) = nothing.max() else {
        return Vec::new();
    };
    if nothing_us <= locked_until_us(handlings) {
        return Vec::new();
    }
    let owed = owed(handlings).into_iter();
    owed.filter(|(_, ended_us)| *ended_us < nothing_us)
        .map(|(message, _)| message)
        .collect()
}

#[cfg(test)]
mod tests {
    use dunlin_model::messages::{AckWanted, MessageEnd, Settlement};

    use super::*;
    use crate::invariants::settlements::tests::{SECOND, account, handed, letter, sent, settled};
    use crate::workload::handling::Sent;

    const CLOCKS_US: u64 = SECOND;

    fn told(id: &str, end: MessageEnd) -> Told {
        Told {
            device: "d".into(),
            id: id.into(),
            end: Some(end),
            ended: "2030-01-01T00:00:30.000Z".into(),
        }
    }

    fn take(at: u64, batch: Batch) -> Handling {
        Handling::Taken(Take {
            invoked_us: at,
            completed_us: at + 10,
            batch,
        })
    }

    fn batch(at: u64, lock: &str, records: Vec<Told>) -> Handling {
        let lock = lock.to_owned();
        take(at, Batch::Records { lock, records })
    }

    fn batch_settled(lock: &str, at: u64, completes: bool, outcome: Outcome) -> Handling {
        Handling::BatchSettled(BatchSettling {
            lock: lock.into(),
            completes,
            invoked_us: at,
            completed_us: at + 10,
            outcome,
        })
    }

    /// Sent with a wish of its own.
    fn wishing(ack: AckWanted, handling: Handling) -> Handling {
        match handling {
            Handling::Sent(sent) => Handling::Sent(Sent { ack, ..sent }),
            other => other,
        }
    }

    /// A message that was not queued.
    fn refused() -> Handling {
        match sent("b", SECOND, 2) {
            Handling::Sent(sent) => Handling::Sent(Sent {
                outcome: Outcome::Fail,
                number: None,
                ..sent
            }),
            other => other,
        }
    }

    /// One message is completed, one rejected; both are told of, and nothing is owed in the end.
    fn good() -> Vec<Handling> {
        vec![
            sent("a", SECOND, 1),
            sent("b", SECOND + 20, 2),
            handed("a", 2 * SECOND, (1, 0), "1-a"),
            handed("b", 2 * SECOND + 20, (2, 0), "2-b"),
            settled("1-a", 3 * SECOND, Settlement::Complete, Outcome::Ok),
            settled("2-b", 3 * SECOND, Settlement::Reject, Outcome::Ok),
            batch(
                4 * SECOND,
                "0-1",
                vec![told("a", MessageEnd::Success), told("b", MessageEnd::Rejected)],
            ),
            batch_settled("0-1", 5 * SECOND, true, Outcome::Ok),
            account(60 * SECOND, 0, vec![letter("b", MessageEnd::Rejected, 1)]),
            take(70 * SECOND, Batch::Nothing),
        ]
    }

    fn with(more: impl IntoIterator<Item = Handling>) -> Vec<Handling> {
        let mut all = good();
        all.extend(more);
        all
    }

    /// The good one, with another batch in place of its only one.
    fn told_instead(records: Vec<Told>) -> Vec<Handling> {
        let mut all = good();
        all[6] = batch(4 * SECOND, "0-1", records);
        all
    }

    fn found(handlings: &[Handling]) -> String {
        let findings = check(handlings, CLOCKS_US);
        assert_eq!(findings.count, 1, "{:?}", findings.examples);
        findings.examples[0].to_string()
    }

    fn is_sound(handlings: &[Handling]) {
        let findings = check(handlings, CLOCKS_US);
        assert!(findings.is_empty(), "{:?}", findings.examples);
    }

    #[test]
    fn what_ended_is_told_once() {
        is_sound(&good());
        assert_eq!(owed(&good()), BTreeMap::new());
    }

    #[test]
    fn what_nobody_can_be_told_is_found() {
        let a = || told("a", MessageEnd::Success);
        let b = || told("b", MessageEnd::Rejected);
        let all = told_instead(vec![a(), b(), told("z", MessageEnd::Success)]);
        assert!(found(&all).contains("nobody has sent that"));
        let all = told_instead(vec![told("a", MessageEnd::Rejected), b()]);
        assert!(found(&all).contains("says Rejected, not Success"));
        let all = told_instead(vec![a(), Told { end: None, ..b() }]);
        assert!(found(&all).contains("says what nobody knows"));
        let all = told_instead(vec![a(), a(), b()]);
        assert!(found(&all).contains("twice in one batch"));
        let mut all = good();
        for place in [5, 3, 1] {
            all.remove(place);
        }
        all.push(refused());
        assert_eq!(
            check(&all, CLOCKS_US).examples[0].what,
            "feedback on message b came, and it was refused"
        );
        let mut all = good();
        all[0] = wishing(AckWanted::Negative, sent("a", SECOND, 1));
        assert!(found(&all).contains("nobody wants to hear of Success"));
    }

    #[test]
    fn an_end_that_nobody_knows_is_held_against_what_may_be() {
        let unsettled = |end| {
            let handed = handed("c", 6 * SECOND, (3, 0), "3-c");
            let told = batch(30 * SECOND, "0-2", vec![told("c", end)]);
            with([sent("c", 5 * SECOND, 3), handed, told])
        };
        is_sound(&unsettled(MessageEnd::Expired));
        for end in [
            MessageEnd::Success,
            MessageEnd::Rejected,
            MessageEnd::Purged,
            MessageEnd::DeliveryCountExceeded,
        ] {
            assert!(found(&unsettled(end)).contains("nothing explains"), "{end:?}");
        }
        let mut all = unsettled(MessageEnd::Success);
        all.push(settled("3-c", 7 * SECOND, Settlement::Complete, Outcome::Unknown));
        is_sound(&all);
    }

    #[test]
    fn what_comes_again_says_the_same_and_was_not_done_with() {
        let again = |at, record| with([batch(at, "0-2", vec![record])]);
        let late = 200 * SECOND;
        let completed = again(late, told("a", MessageEnd::Success));
        assert!(found(&completed).contains("its batch was completed"));
        // Nobody knows whether it was.
        let mut all = completed.clone();
        all[7] = batch_settled("0-1", 5 * SECOND, true, Outcome::Unknown);
        is_sound(&all);
        let other = Told {
            ended: "2030-01-01T00:00:31.000Z".into(),
            ..told("a", MessageEnd::Success)
        };
        let mut all = again(late, other);
        all[7] = batch_settled("0-1", 5 * SECOND, true, Outcome::Unknown);
        assert!(found(&all).contains("says something else"));
    }

    #[test]
    fn a_batch_is_in_one_hand_for_its_time() {
        let early = |outcome, completes| {
            let mut all = with([batch(20 * SECOND, "0-2", vec![told("a", MessageEnd::Success)])]);
            all[7] = batch_settled("0-1", 5 * SECOND, completes, outcome);
            all
        };
        assert!(found(&early(Outcome::Unknown, true)).contains("while it was locked"));
        let at = |at| {
            let mut all = with([batch(at, "0-2", vec![told("a", MessageEnd::Success)])]);
            all[7] = batch_settled("0-1", 5 * SECOND, true, Outcome::Unknown);
            all
        };
        // A second before its time, as clocks may have it.
        is_sound(&at(63 * SECOND));
        assert!(found(&at(63 * SECOND - 11)).contains("while it was locked"));
        is_sound(&early(Outcome::Ok, false));
        is_sound(&early(Outcome::Unknown, false));
        let refused = early(Outcome::Fail, false);
        assert_eq!(check(&refused, CLOCKS_US).count, 2, "refused, and in two hands");
        // Asked at the same time.
        let mut all = with([batch(4 * SECOND + 5, "0-2", vec![told("a", MessageEnd::Success)])]);
        is_sound(&all);
        all.push(batch_settled("0-2", 6 * SECOND, true, Outcome::Ok));
        assert!(found(&all).contains("in two hands"));
    }

    #[test]
    fn a_lock_settles_once_and_for_its_holder() {
        let again = |outcome| with([batch_settled("0-1", 6 * SECOND, true, outcome)]);
        assert!(found(&again(Outcome::Ok)).contains("settled twice"));
        is_sound(&again(Outcome::Fail));
        let mut all = good();
        all[7] = batch_settled("0-1", 5 * SECOND, true, Outcome::Fail);
        assert!(found(&all).contains("refused to who had it"));
        all[7] = batch_settled("0-1", 63 * SECOND, true, Outcome::Fail);
        is_sound(&all);
        // Somebody may have settled it without hearing of it.
        all.push(batch_settled("0-1", 5 * SECOND, true, Outcome::Fail));
        all[7] = batch_settled("0-1", 4 * SECOND, true, Outcome::Unknown);
        is_sound(&all);
    }

    #[test]
    fn what_never_comes_is_found_once_nobody_can_have_it() {
        let all = told_instead(vec![told("a", MessageEnd::Success)]);
        assert!(found(&all).contains("message b never came"));
        assert_eq!(owed(&all).len(), 1);
        let mut unheard = all.clone();
        unheard.insert(6, take(10 * SECOND, Batch::Unknown));
        is_sound(&unheard);
        unheard.push(take(100 * SECOND, Batch::Nothing));
        assert!(found(&unheard).contains("message b never came"));
        // Nobody has looked since.
        let mut all = all;
        all.pop();
        is_sound(&all);
        // Nobody wants to hear of it.
        let mut all = told_instead(vec![told("a", MessageEnd::Success)]);
        all[1] = wishing(AckWanted::Positive, sent("b", SECOND + 20, 2));
        is_sound(&all);
    }

    #[test]
    fn what_is_gone_and_no_dead_letter_was_completed() {
        let mut all = with([
            sent("c", 5 * SECOND, 3),
            handed("c", 6 * SECOND, (3, 0), "3-c"),
            settled("3-c", 7 * SECOND, Settlement::Complete, Outcome::Unknown),
        ]);
        assert!(found(&all).contains("message c never came"));
        all.push(batch(64 * SECOND, "0-2", vec![told("c", MessageEnd::Success)]));
        is_sound(&all);
    }
}
