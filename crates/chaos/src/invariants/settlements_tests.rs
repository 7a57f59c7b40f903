//! Histories of a few messages, sound ones and each with one thing wrong.

use super::*;
use dunlin_model::messages::AckWanted;

pub(in crate::invariants) const SECOND: u64 = 1_000_000;
const CLOCKS_US: u64 = SECOND;
/// For which each message is locked.
const LOCK_S: u64 = 8;

/// Queued at `at` for twenty seconds.
pub(in crate::invariants) fn sent(id: &str, at: u64, number: u64) -> Handling {
    Handling::Sent(Sent {
        device: "d".into(),
        id: id.into(),
        ack: AckWanted::Full,
        expires: "2030-01-01T00:00:20.000Z".into(),
        expires_us: at + 20 * SECOND,
        invoked_us: at,
        completed_us: at + 10,
        outcome: Outcome::Ok,
        number: Some(number),
    })
}

fn sent_with(id: &str, outcome: Outcome) -> Handling {
    match sent(id, SECOND, 0) {
        Handling::Sent(sent) => Handling::Sent(Sent {
            outcome,
            number: None,
            ..sent
        }),
        other => other,
    }
}

fn fetched(at: u64, found: Found) -> Handling {
    Handling::Fetched(Fetch {
        device: "d".into(),
        lock_s: LOCK_S,
        invoked_us: at,
        completed_us: at + 10,
        found,
    })
}

pub(in crate::invariants) fn handed(id: &str, at: u64, (number, count): (u64, u32), lock: &str) -> Handling {
    fetched(
        at,
        Found::Message(Handed {
            id: id.into(),
            number,
            count,
            lock: lock.into(),
        }),
    )
}

pub(in crate::invariants) fn settled(lock: &str, at: u64, deed: Settlement, outcome: Outcome) -> Handling {
    Handling::Settled(Settling {
        device: "d".into(),
        lock: lock.into(),
        deed,
        invoked_us: at,
        completed_us: at + 10,
        outcome,
    })
}

pub(in crate::invariants) fn letter(id: &str, reason: MessageEnd, count: u32) -> Letter {
    Letter {
        id: id.into(),
        reason: Some(reason),
        dead: "2030-01-01T00:00:30.000Z".into(),
        count,
    }
}

pub(in crate::invariants) fn account(at: u64, waiting: u64, letters: Vec<Letter>) -> Handling {
    Handling::Left(Account {
        device: "d".into(),
        waiting,
        letters,
        invoked_us: at,
        completed_us: at + 10,
    })
}

const COMPLETE: Settlement = Settlement::Complete;
const REJECT: Settlement = Settlement::Reject;
const ABANDON: Settlement = Settlement::Abandon;

/// One message that is handed out, and what else happens to it.
fn one(more: impl IntoIterator<Item = Handling>) -> Vec<Handling> {
    let mut all = vec![sent("a", SECOND, 1), handed("a", 2 * SECOND, (1, 0), "1-a")];
    all.extend(more);
    all
}

fn is_sound(handlings: &[Handling]) {
    let findings = check(handlings, CLOCKS_US);
    assert!(findings.is_empty(), "{:?}", findings.examples);
}

fn found(handlings: &[Handling]) -> String {
    let findings = check(handlings, CLOCKS_US);
    assert_eq!(findings.count, 1, "{:?}", findings.examples);
    findings.examples[0].to_string()
}

#[test]
fn every_end_is_sound_that_somebody_has_given_a_message() {
    use Outcome::{Fail, Ok, Unknown};
    let at = |second: u64| second * SECOND;
    let end = |letters| account(at(90), 0, letters);
    is_sound(&one([settled("1-a", at(3), COMPLETE, Ok), end(vec![])]));
    is_sound(&one([settled("1-a", at(3), COMPLETE, Unknown), end(vec![])]));
    let rejected = || vec![letter("a", MessageEnd::Rejected, 1)];
    is_sound(&one([settled("1-a", at(3), REJECT, Ok), end(rejected())]));
    is_sound(&one([settled("1-a", at(3), REJECT, Unknown), end(rejected())]));
    let expired = || vec![letter("a", MessageEnd::Expired, 1)];
    is_sound(&one([end(expired())]));
    is_sound(&one([settled("1-a", at(3), COMPLETE, Unknown), end(expired())]));
    // Nobody has looked.
    is_sound(&one([]));
    is_sound(&one([account(at(10), 1, vec![])]));
    // Too late, and somebody else had it meanwhile.
    is_sound(&one([
        handed("a", at(11), (1, 1), "1-b"),
        settled("1-a", at(12), COMPLETE, Fail),
        settled("1-b", at(12), COMPLETE, Ok),
        end(vec![]),
    ]));
    // Given back ten times; of the third nobody heard.
    let mut worn = vec![sent("a", SECOND, 1)];
    for count in (0..DELIVERY_COUNT_MAX).filter(|count| *count != 2) {
        let second = u64::from(count) + 2;
        let lock = format!("1-{count}");
        worn.push(handed("a", at(second), (1, count), &lock));
        worn.push(settled(&lock, at(second) + 100, ABANDON, Ok));
    }
    worn.push(end(vec![letter(
        "a",
        MessageEnd::DeliveryCountExceeded,
        DELIVERY_COUNT_MAX,
    )]));
    assert!(found(&worn).contains("DeliveryCountExceeded, which nothing explains"));
    worn.push(fetched(at(4), Found::Unknown));
    is_sound(&worn);
}

#[test]
fn a_message_that_was_not_queued_is_found() {
    is_sound(&[sent_with("a", Outcome::Fail), account(90 * SECOND, 0, vec![])]);
    is_sound(&[sent_with("a", Outcome::Unknown), account(90 * SECOND, 0, vec![])]);
    let came = handed("a", 2 * SECOND, (1, 0), "1-a");
    assert!(found(std::slice::from_ref(&came)).contains("was never sent"));
    assert!(found(&[sent_with("a", Outcome::Fail), came.clone()]).contains("it was refused"));
    is_sound(&[sent_with("a", Outcome::Unknown), came.clone()]);
    assert!(found(&[sent("a", SECOND, 7), came]).contains("came under number 1"));
}

#[test]
fn numbers_and_first_times_come_in_order() {
    let two = |numbers: (u64, u64)| vec![sent("a", SECOND, numbers.0), sent("b", 2 * SECOND, numbers.1)];
    is_sound(&two((1, 2)));
    assert!(found(&two((2, 1))).contains("message b has number 1"));
    assert!(found(&two((1, 1))).contains("message b has number 1"));
    let handed_out = |first: Handling| {
        let mut all = two((1, 2));
        all.push(first);
        all.push(handed("a", 4 * SECOND, (1, 0), "1-a"));
        all
    };
    let before = handed("b", 3 * SECOND, (2, 0), "2-b");
    assert!(found(&handed_out(before)).contains("message a waited when message b"));
    // The other is not there yet.
    let nothing = fetched(2 * SECOND, Found::Nothing);
    assert!(found(&handed_out(nothing)).contains("message a waited when nothing"));
    is_sound(&handed_out(fetched(3 * SECOND, Found::Unknown)));
    // Somebody may have had it.
    is_sound(&[
        sent("a", SECOND, 1),
        fetched(3 * SECOND, Found::Nothing),
        handed("a", 4 * SECOND, (1, 1), "1-a"),
    ]);
    // Nobody ever has it, and others that came later are handed out.
    let never = |more: Handling| {
        let mut all = two((1, 2));
        all.push(more);
        all
    };
    let before = |at| handed("b", at, (2, 0), "2-b");
    assert!(found(&never(before(3 * SECOND))).contains("message a waited when message b"));
    is_sound(&never(before(20 * SECOND)));
    let mut unheard = never(before(3 * SECOND));
    unheard.push(fetched(2 * SECOND, Found::Unknown));
    is_sound(&unheard);
    // It was just being sent.
    is_sound(&[
        sent("a", SECOND, 1),
        fetched(SECOND + 5, Found::Nothing),
        handed("a", 4 * SECOND, (1, 0), "1-a"),
    ]);
}

#[test]
fn each_time_that_it_is_handed_out_counts() {
    let again = |count| one([handed("a", 12 * SECOND, (1, count), "1-b")]);
    is_sound(&again(1));
    is_sound(&again(9));
    assert!(found(&again(0)).contains("came twice as number 1"));
    assert!(found(&again(10)).contains("given 10 times"));
    let fallen = [
        sent("a", SECOND, 1),
        handed("a", 2 * SECOND, (1, 1), "1-a"),
        handed("a", 12 * SECOND, (1, 0), "1-b"),
    ];
    // And so it is handed out while the later one has it.
    let findings = check(&fallen, CLOCKS_US);
    assert_eq!(findings.count, 2, "{:?}", findings.examples);
    assert!(findings.examples[0].what.contains("came as number 1 after 2"));
}

#[test]
fn a_message_that_is_locked_is_handed_to_nobody_else() {
    let again = |at, more: Option<Handling>| {
        let mut all = one([handed("a", at, (1, 1), "1-b")]);
        all.extend(more);
        all
    };
    assert!(found(&again(5 * SECOND, None)).contains("while it was locked"));
    is_sound(&again(10 * SECOND, None));
    // A second before its time, as clocks may have it.
    is_sound(&again(9 * SECOND, None));
    assert!(found(&again(9 * SECOND - 11, None)).contains("while it was locked"));
    let abandoned = |outcome| settled("1-a", 3 * SECOND, ABANDON, outcome);
    is_sound(&again(5 * SECOND, Some(abandoned(Outcome::Ok))));
    is_sound(&again(5 * SECOND, Some(abandoned(Outcome::Unknown))));
    // Refused though its time is not over, and then somebody else has it.
    assert_eq!(
        check(&again(5 * SECOND, Some(abandoned(Outcome::Fail))), CLOCKS_US).count,
        2
    );
}

#[test]
fn a_lock_settles_once_while_it_lasts() {
    use Outcome::{Fail, Ok, Unknown};
    let complete = |at, outcome| settled("1-a", at, COMPLETE, outcome);
    assert!(found(&one([complete(12 * SECOND, Ok)])).contains("under a lock that was over"));
    assert!(found(&one([complete(3 * SECOND, Fail)])).contains("refused at 3000 ms to who had it"));
    is_sound(&one([complete(9 * SECOND, Fail)]));
    is_sound(&one([complete(11 * SECOND, Ok)]));
    is_sound(&one([complete(3 * SECOND, Unknown), complete(4 * SECOND, Fail)]));
    let twice = one([complete(3 * SECOND, Ok), settled("1-a", 4 * SECOND, ABANDON, Ok)]);
    assert!(found(&twice).contains("settled twice"));
    // Another has it by then.
    let lost = one([
        settled("1-a", 3 * SECOND, ABANDON, Unknown),
        handed("a", 4 * SECOND, (1, 1), "1-b"),
        settled("1-a", 5 * SECOND, ABANDON, Ok),
    ]);
    assert!(found(&lost).contains("under a lock that was over"));
}

#[test]
fn what_is_settled_comes_no_more() {
    let again = |deed, outcome| {
        one([
            settled("1-a", 3 * SECOND, deed, outcome),
            handed("a", 14 * SECOND, (1, 1), "1-b"),
        ])
    };
    for deed in [COMPLETE, REJECT] {
        assert!(found(&again(deed, Outcome::Ok)).contains("after it was settled"));
        is_sound(&again(deed, Outcome::Unknown));
    }
    is_sound(&again(ABANDON, Outcome::Ok));
}

#[test]
fn time_ends_a_message_and_nothing_earlier_does() {
    let late = |at| [sent("a", SECOND, 1), handed("a", at, (1, 0), "1-a")];
    is_sound(&late(22 * SECOND));
    assert!(found(&late(23 * SECOND)).contains("when it was over"));
    let early = Letter {
        dead: "2030-01-01T00:00:19.999Z".into(),
        ..letter("a", MessageEnd::Expired, 1)
    };
    let early = one([account(90 * SECOND, 0, vec![early])]);
    assert!(found(&early).contains("Expired, which nothing explains"));
    assert!(found(&one([account(90 * SECOND, 1, vec![])])).contains("though all are over"));
}

#[test]
fn each_message_ends_in_one_way_or_waits() {
    let end = |letters| account(40 * SECOND, 0, letters);
    assert!(found(&one([end(vec![])])).contains("has no end"));
    let unheard = settled("1-a", 3 * SECOND, REJECT, Outcome::Unknown);
    assert!(found(&one([unheard, end(vec![])])).contains("has no end"));
    let complete = || settled("1-a", 3 * SECOND, COMPLETE, Outcome::Ok);
    let expired = || letter("a", MessageEnd::Expired, 1);
    assert!(found(&one([complete(), end(vec![expired()])])).contains("was completed and is a dead letter"));
    let reject = || settled("1-a", 3 * SECOND, REJECT, Outcome::Ok);
    assert!(found(&one([reject(), end(vec![])])).contains("no dead letter for it"));
    assert!(found(&one([reject(), end(vec![expired()])])).contains("no dead letter for it"));
    let rejected = || letter("a", MessageEnd::Rejected, 1);
    assert!(found(&one([end(vec![rejected()])])).contains("Rejected, which nothing explains"));
    assert!(found(&one([end(vec![expired(), expired()])])).contains("dead letter twice"));
    let strange = Letter {
        reason: None,
        ..expired()
    };
    assert!(found(&one([end(vec![strange])])).contains("nobody knows"));
    let often = letter("a", MessageEnd::Expired, 11);
    assert!(found(&one([end(vec![often])])).contains("given 11 times"));
}

#[test]
fn clocks_may_go_astray_where_a_scenario_sets_them_wrong() {
    let scenario = |kind: &str| {
        let text = format!(
            "name = \"x\"\nshows = \"y\"\n[[epoch]]\nduration_ms = 1000\n[[epoch.fault]]\nkind = \"{kind}\"\n"
        );
        crate::scenario::read::parse("x", &text).unwrap()
    };
    assert_eq!(clocks_us(&scenario("kill")), CLOCKS_ALIKE_US);
    assert_eq!(clocks_us(&scenario("clock-step")), CLOCKS_APART_US);
}
