//! I8 — messages under locks: whoever fetches a message has it alone for its time and settles it once; what is completed or
//! rejected never comes again; and each message that was queued ends in one way, or still waits.
//!
//! Source: `docs/invariants.md` I8, `docs/semantics.md` on messages to devices. Times given before tell in which order a
//! message was handed out, whoever was asked when, so most of this needs no clock:
//!
//! 1. numbers rise in the order in which messages are queued; nobody is told that there is nothing, or is given a later
//!    message, while one waits that nobody has had;
//! 2. each time that a message is handed out counts one more, and ten are the most;
//! 3. between two of them the first lock is over, or was given back;
//! 4. a lock settles once, and only while it lasts; its holder is not refused;
//! 5. what was completed or rejected is handed out no more;
//! 6. what is over is not handed out, and what is not has not expired;
//! 7. in the end a message is completed, or a dead letter for a reason that somebody has given it, or it waits.
//!
//! What nobody knows may have happened at any later time, so it excuses and never accuses. How long the hub's time may differ
//! from the run's between two moments is told ([`clocks_us`]). How ends are told to services is judged by [`super::feedback`].

use std::collections::BTreeMap;

use dunlin_model::messages::{DELIVERY_COUNT_MAX, MessageEnd, Settlement};

use super::{Findings, Violation};
use crate::scenario::Scenario;
use crate::workload::handling::{Account, Fetch, Found, Handed, Handling, Letter, Sent, Settling};
use crate::workload::operation::Outcome;

/// How far the hub's time may go astray where all nodes have the same clock: stamps of a leader that fell may be ahead.
const CLOCKS_ALIKE_US: u64 = 1_000_000;
/// The same where clocks are set wrong: a node within two seconds of the others goes by its own.
const CLOCKS_APART_US: u64 = 5_000_000;
/// Time for a message that is over to leave the queue, once no node is disturbed any more.
const LEAVES_US: u64 = 30_000_000;

/// How far the hub's time may go astray in a run of this scenario.
pub fn clocks_us(scenario: &Scenario) -> u64 {
    let listed = scenario.epochs.iter().flat_map(|epoch| &epoch.faults);
    let drawn = scenario.composed.iter().flat_map(|composed| &composed.faults);
    let mut faults = listed.chain(drawn);
    match faults.any(|fault| fault.kind.get_ref().starts_with("clock-")) {
        true => CLOCKS_APART_US,
        false => CLOCKS_ALIKE_US,
    }
}

/// When the messages of each device are over and have left its queue, whatever was done with them.
pub fn over_by_us(handlings: &[Handling]) -> BTreeMap<&str, u64> {
    let queues = queues(handlings).into_iter();
    queues
        .map(|(device, queue)| (device, queue.over_by_us()))
        .collect()
}

fn us_of(seconds: u64) -> u64 {
    seconds * 1_000_000
}

/// Messages that were handed out, settled or ended as they may not be.
pub fn check(handlings: &[Handling], clocks_us: u64) -> Findings {
    let mut findings = Findings::default();
    for (device, queue) in queues(handlings) {
        for what in queue.broken(clocks_us) {
            findings.add(|| Violation {
                device: Some(device.to_owned()),
                ..Violation::of(what)
            });
        }
    }
    findings
}

/// A message that was handed out, and what was done under its lock.
struct Delivery<'a> {
    fetch: &'a Fetch,
    handed: &'a Handed,
    settlings: Vec<&'a Settling>,
}

impl Delivery<'_> {
    /// Until when nobody else may have it.
    fn held_until_us(&self, clocks_us: u64) -> u64 {
        (self.fetch.invoked_us + us_of(self.fetch.lock_s)).saturating_sub(clocks_us)
    }

    /// From when on it may be anybody's.
    fn free_from_us(&self, clocks_us: u64) -> u64 {
        self.fetch.completed_us + us_of(self.fetch.lock_s) + clocks_us
    }
}

/// All that is known of one message.
#[derive(Default)]
pub(super) struct Story<'a> {
    pub(super) sent: Option<&'a Sent>,
    /// In the order in which they happened.
    deliveries: Vec<Delivery<'a>>,
    letters: Vec<&'a Letter>,
    /// What was left in the end of all messages of its device.
    pub(super) account: Option<&'a Account>,
}

/// All that is known of the messages of one device.
#[derive(Default)]
pub(super) struct Queue<'a> {
    pub(super) stories: BTreeMap<&'a str, Story<'a>>,
    fetches: Vec<&'a Fetch>,
    account: Option<&'a Account>,
}

/// What is known of the messages of each device.
pub(super) fn queues(handlings: &[Handling]) -> BTreeMap<&str, Queue<'_>> {
    let mut queues: BTreeMap<&str, Queue<'_>> = BTreeMap::new();
    let mut settlings: BTreeMap<(&str, &str), Vec<&Settling>> = BTreeMap::new();
    for handling in handlings {
        match handling {
            Handling::Sent(sent) => {
                let queue = queues.entry(&sent.device).or_default();
                queue.stories.entry(&sent.id).or_default().sent = Some(sent);
            }
            Handling::Fetched(fetch) => queues.entry(&fetch.device).or_default().fetches.push(fetch),
            Handling::Settled(one) => {
                settlings.entry((&one.device, &one.lock)).or_default().push(one);
            }
            Handling::Left(account) => queues.entry(&account.device).or_default().account = Some(account),
            Handling::Taken(_) | Handling::BatchSettled(_) => {}
        }
    }
    for (device, queue) in &mut queues {
        for fetch in &queue.fetches {
            if let Found::Message(handed) = &fetch.found {
                let of_lock = settlings.remove(&(device, handed.lock.as_str()));
                let story = queue.stories.entry(&handed.id).or_default();
                story.deliveries.push(Delivery {
                    fetch,
                    handed,
                    settlings: of_lock.unwrap_or_default(),
                });
            }
        }
        for letter in queue.account.iter().flat_map(|account| &account.letters) {
            queue.stories.entry(&letter.id).or_default().letters.push(letter);
        }
        for story in queue.stories.values_mut() {
            story.account = queue.account;
            story.deliveries.sort_by_key(|delivery| delivery.handed.count);
        }
    }
    queues
}

impl<'a> Story<'a> {
    fn settlings(&self) -> impl Iterator<Item = &'a Settling> + '_ {
        self.deliveries
            .iter()
            .flat_map(|delivery| delivery.settlings.iter().copied())
    }

    /// Whether somebody has asked for this, and was told that it is done.
    fn is_done(&self, deed: Settlement) -> bool {
        let is_so = |one: &Settling| one.deed == deed && one.outcome == Outcome::Ok;
        self.settlings().any(is_so)
    }

    /// Whether somebody has asked for this, and was not refused.
    fn may_be(&self, deed: Settlement) -> bool {
        let is_so = |one: &Settling| one.deed == deed && one.outcome != Outcome::Fail;
        self.settlings().any(is_so)
    }

    /// How it ended, and when that was known; nothing if it is not.
    pub(super) fn end(&self) -> Option<(MessageEnd, u64)> {
        let done = self.settlings().find_map(|one| {
            let end = match one.deed {
                Settlement::Complete => MessageEnd::Success,
                Settlement::Reject => MessageEnd::Rejected,
                Settlement::Abandon => return None,
            };
            (one.outcome == Outcome::Ok).then_some((end, one.completed_us))
        });
        if done.is_some() {
            return done;
        }
        let account = self.account?;
        if let Some(letter) = self.letters.first() {
            return Some((letter.reason?, account.completed_us));
        }
        let was_queued = self.sent.is_some_and(|sent| sent.outcome == Outcome::Ok);
        let is_gone = account.waiting == 0 && was_queued && self.may_be(Settlement::Complete);
        is_gone.then_some((MessageEnd::Success, account.completed_us))
    }

    /// Whether it may have ended like that, as far as those who handle messages know. How often it was given counts with
    /// `unknown` answers to those who asked for one.
    pub(super) fn may_have_ended(&self, end: MessageEnd, ended: &str, unknown: usize) -> Result<(), String> {
        let is_so = match end {
            MessageEnd::Success => self.may_be(Settlement::Complete),
            MessageEnd::Rejected => self.may_be(Settlement::Reject),
            MessageEnd::Expired => self.sent.is_some_and(|sent| *ended >= *sent.expires),
            MessageEnd::DeliveryCountExceeded => {
                self.deliveries.len() + unknown >= DELIVERY_COUNT_MAX as usize
            }
            MessageEnd::Purged => false,
        };
        is_so
            .then_some(())
            .ok_or_else(|| format!("has ended as {}, which nothing explains", end.word()))
    }
}

impl Queue<'_> {
    /// Requests for a message of which nobody knows what came.
    pub(super) fn unknown_fetches(&self) -> usize {
        let unknown = self.fetches.iter().filter(|fetch| fetch.found == Found::Unknown);
        unknown.count()
    }

    fn broken(&self, clocks_us: u64) -> Vec<String> {
        let mut broken = Vec::new();
        self.check_numbers(&mut broken);
        self.check_order(clocks_us, &mut broken);
        for (id, story) in &self.stories {
            let mut of_story = Vec::new();
            story.check_origin(&mut of_story);
            story.check_counts(&mut of_story);
            for place in 0..story.deliveries.len() {
                story.check_delivery(place, clocks_us, &mut of_story);
            }
            story.check_letters(self.unknown_fetches(), &mut of_story);
            broken.extend(of_story.iter().map(|what| format!("message {id} {what}")));
        }
        self.check_rest(&mut broken);
        broken
    }

    fn queued(&self) -> impl Iterator<Item = (&Sent, u64)> {
        let sent = self.stories.values().filter_map(|story| story.sent);
        let queued = sent.filter(|sent| sent.outcome == Outcome::Ok);
        queued.filter_map(|sent| Some((sent, sent.number?)))
    }

    /// Rule 1: of what is told to senders.
    fn check_numbers(&self, broken: &mut Vec<String>) {
        for (sent, number) in self.queued() {
            let is_before = |(other, later): &(&Sent, u64)| {
                sent.completed_us < other.invoked_us && *later <= number
                    || sent.id < other.id && *later == number
            };
            if let Some((other, later)) = self.queued().find(is_before) {
                broken.push(format!(
                    "message {} has number {later}, and {} before it has {number}",
                    other.id, sent.id
                ));
            }
        }
    }

    /// Rule 1: of what is told to devices. A message that is handed out for the first time was there for everybody before;
    /// one that never is was there until its time was over, unless it was locked for somebody who did not hear of it.
    fn check_order(&self, clocks_us: u64, broken: &mut Vec<String>) {
        // One that was locked, and gone before it was read, is told as nothing.
        let may_have_locked = |fetch: &Fetch| match fetch.found {
            Found::Message(_) => false,
            Found::Nothing => fetch.completed_us - fetch.invoked_us + clocks_us >= us_of(fetch.lock_s),
            Found::Unknown => true,
        };
        let all_heard = !self.fetches.iter().any(|fetch| may_have_locked(fetch));
        for story in self.stories.values() {
            let Some(sent) = story.sent.filter(|sent| sent.outcome == Outcome::Ok) else {
                continue;
            };
            let (number, until_us) = match (story.deliveries.first(), sent.number) {
                (Some(first), _) if first.handed.count == 0 => (first.handed.number, first.fetch.invoked_us),
                (None, Some(number)) if all_heard => (number, sent.expires_us.saturating_sub(clocks_us)),
                _ => continue,
            };
            let missed = self.fetches.iter().find(|fetch| {
                let was_there = sent.completed_us < fetch.invoked_us && fetch.completed_us < until_us;
                was_there
                    && match &fetch.found {
                        Found::Message(handed) => handed.number > number,
                        Found::Nothing => !may_have_locked(fetch),
                        Found::Unknown => false,
                    }
            });
            if let Some(fetch) = missed {
                let given = match &fetch.found {
                    Found::Message(handed) => format!("message {}", handed.id),
                    Found::Nothing | Found::Unknown => "nothing".to_owned(),
                };
                broken.push(format!(
                    "message {} waited when {given} was handed out at {} ms",
                    sent.id,
                    fetch.invoked_us / 1000
                ));
            }
        }
    }

    fn over_by_us(&self) -> u64 {
        let sent = self.stories.values().filter_map(|story| story.sent);
        let over_us = sent.map(|sent| sent.expires_us).max();
        let fetches = self.fetches.iter();
        let locked_us = fetches
            .map(|fetch| fetch.completed_us + us_of(fetch.lock_s))
            .max();
        over_us.max(locked_us).unwrap_or(0) + LEAVES_US
    }

    /// Rule 7, of all messages together: as many wait as have not ended.
    fn check_rest(&self, broken: &mut Vec<String>) {
        let Some(account) = self.account else {
            return;
        };
        if account.waiting > 0 && account.invoked_us > self.over_by_us() {
            broken.push(format!("{} messages wait, though all are over", account.waiting));
        }
        let has_no_end = |story: &Story<'_>| {
            let was_queued = story.sent.is_some_and(|sent| sent.outcome == Outcome::Ok);
            let may_have_ended = story.may_be(Settlement::Complete) || story.is_done(Settlement::Reject);
            was_queued && story.letters.is_empty() && !may_have_ended
        };
        let mut lost: Vec<&str> = self
            .stories
            .iter()
            .filter(|(_, story)| has_no_end(story))
            .map(|(id, _)| *id)
            .collect();
        lost.truncate(lost.len().saturating_sub(account.waiting as usize));
        broken.extend(
            lost.iter()
                .map(|id| format!("message {id} was queued, has no end, and waits no longer")),
        );
    }
}

impl Story<'_> {
    fn check_origin(&self, broken: &mut Vec<String>) {
        match self.sent {
            None => broken.push("was never sent".to_owned()),
            Some(sent) => {
                let has_come = !self.deliveries.is_empty() || !self.letters.is_empty();
                if sent.outcome == Outcome::Fail && has_come {
                    broken.push("came although it was refused".to_owned());
                }
                let is_other = |delivery: &&Delivery<'_>| {
                    sent.number.is_some_and(|number| number != delivery.handed.number)
                };
                if let Some(delivery) = self.deliveries.iter().find(is_other) {
                    broken.push(format!("came under number {}", delivery.handed.number));
                }
            }
        }
    }

    /// Rule 2.
    fn check_counts(&self, broken: &mut Vec<String>) {
        for pair in self.deliveries.windows(2) {
            let (earlier, later) = (&pair[0], &pair[1]);
            if earlier.handed.count == later.handed.count {
                broken.push(format!("came twice as number {}", later.handed.count + 1));
            } else if later.fetch.completed_us < earlier.fetch.invoked_us {
                broken.push(format!(
                    "came as number {} after {}",
                    earlier.handed.count + 1,
                    later.handed.count + 1
                ));
            }
        }
        if let Some(last) = self.deliveries.last()
            && last.handed.count >= DELIVERY_COUNT_MAX
        {
            broken.push(format!("came though it was given {} times", last.handed.count));
        }
    }

    /// Rules 3 to 6, of one time that it was handed out.
    fn check_delivery(&self, place: usize, clocks_us: u64, broken: &mut Vec<String>) {
        let delivery = &self.deliveries[place];
        let at_ms = delivery.fetch.invoked_us / 1000;
        let over_us = self.sent.map(|sent| sent.expires_us + clocks_us);
        if over_us.is_some_and(|us| delivery.fetch.invoked_us > us) {
            broken.push(format!("came at {at_ms} ms, when it was over"));
        }
        if let Some(next) = self.deliveries.get(place + 1) {
            let gives_back = |one: &Settling| {
                one.deed == Settlement::Abandon
                    && one.outcome != Outcome::Fail
                    && one.invoked_us < next.fetch.completed_us
            };
            let is_given_back = delivery.settlings.iter().any(|one| gives_back(one));
            if next.fetch.completed_us < delivery.held_until_us(clocks_us) && !is_given_back {
                broken.push(format!(
                    "was handed out at {} ms while it was locked at {at_ms} ms",
                    next.fetch.invoked_us / 1000
                ));
            }
            let ends = |one: &Settling| one.outcome == Outcome::Ok && one.deed != Settlement::Abandon;
            if delivery.settlings.iter().any(|one| ends(one)) {
                broken.push(format!(
                    "came at {} ms after it was settled",
                    next.fetch.invoked_us / 1000
                ));
            }
        }
        let done = delivery.settlings.iter().filter(|one| one.outcome == Outcome::Ok);
        if done.count() > 1 {
            broken.push(format!("was settled twice under the lock of {at_ms} ms"));
        }
        for one in &delivery.settlings {
            self.check_settling(place, one, clocks_us, broken);
        }
    }

    /// Rule 4.
    fn check_settling(&self, place: usize, one: &Settling, clocks_us: u64, broken: &mut Vec<String>) {
        let delivery = &self.deliveries[place];
        let at_ms = one.invoked_us / 1000;
        match one.outcome {
            Outcome::Ok => {
                let others = &self.deliveries[place + 1..];
                let is_lost = |other: &Delivery<'_>| other.fetch.completed_us < one.invoked_us;
                if others.iter().any(is_lost) || one.invoked_us > delivery.free_from_us(clocks_us) {
                    broken.push(format!("was settled at {at_ms} ms under a lock that was over"));
                }
            }
            Outcome::Fail => {
                let is_settled = delivery
                    .settlings
                    .iter()
                    .any(|other| other.outcome != Outcome::Fail && other.invoked_us < one.completed_us);
                if one.completed_us < delivery.held_until_us(clocks_us) && !is_settled {
                    broken.push(format!("was refused at {at_ms} ms to who had it"));
                }
            }
            Outcome::Unknown => {}
        }
    }

    /// Rule 7, of one message.
    fn check_letters(&self, unknown_fetches: usize, broken: &mut Vec<String>) {
        if self.account.is_none() {
            return;
        }
        if self.letters.len() > 1 {
            broken.push("is a dead letter twice".to_owned());
        }
        let letter = self.letters.first();
        if let Some(letter) = letter {
            let Some(reason) = letter.reason else {
                return broken.push("is a dead letter for a reason that nobody knows".to_owned());
            };
            if self.is_done(Settlement::Complete) {
                broken.push(format!("was completed and is a dead letter, {}", reason.word()));
            } else if let Err(what) = self.may_have_ended(reason, &letter.dead, unknown_fetches) {
                broken.push(what);
            }
            let was_worn = reason == MessageEnd::DeliveryCountExceeded;
            if letter.count > DELIVERY_COUNT_MAX || was_worn && letter.count < DELIVERY_COUNT_MAX {
                broken.push(format!("is a dead letter that was given {} times", letter.count));
            }
        }
        let is_rejected = letter.is_some_and(|letter| letter.reason == Some(MessageEnd::Rejected));
        if self.is_done(Settlement::Reject) && !is_rejected {
            broken.push("was rejected and is no dead letter for it".to_owned());
        }
    }
}

#[cfg(test)]
#[path = "settlements_tests.rs"]
pub(super) mod tests;
