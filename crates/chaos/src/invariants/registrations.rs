//! I7 — registrations: reads and writes of a device's registration through whatever gateways are linearizable,
//! conditions and ETags included, and no ETag ever names two contents.
//!
//! Source: `docs/invariants.md` I7; RFC 9110 §13.1.1 for `If-Match`. Each write says something that no other
//! does, so a content is known by what it says, and an ETag by the content that it was seen with: an ETag that was
//! never seen with a content cannot be asked for.

use std::collections::BTreeMap;

use super::linearizable::{self, Decision, Model, Operation};
use super::{Findings, Violation};
use crate::workload::access::{Access, Answer, Call};

/// Steps of the search for each operation of a device, beyond which it is given up.
const STEPS_PER_OPERATION_MAX: u64 = 10_000;

/// A registration: its content, if there is one.
struct Registration;

impl Model for Registration {
    type State = Option<String>;
    /// A call, with the content that its ETag names in place of the ETag.
    type Call = Call;
    type Answer = Answer;

    fn start() -> Self::State {
        None
    }

    fn step(state: &Self::State, call: &Call, answer: Option<&Answer>) -> Option<Self::State> {
        let (after, due) = after(state, call);
        let fits = match (answer, due) {
            (None, Due::There | Due::Deleted) => !matches!(call, Call::Read),
            (None, _) => false,
            (Some(Answer::There { value, .. }), Due::There) => after.as_ref() == Some(value),
            (Some(Answer::Deleted), Due::Deleted) => true,
            (Some(Answer::Missing), Due::Missing) => true,
            (Some(Answer::Exists), Due::Exists) => true,
            // A condition on what is not there fails, and may be told as either.
            (Some(Answer::Mismatch), Due::Mismatch) => true,
            (Some(Answer::Mismatch), Due::Missing) => matches!(call, Call::Swap { .. }),
            _ => false,
        };
        fits.then_some(after)
    }
}

/// What must be answered.
enum Due {
    There,
    Deleted,
    Missing,
    Exists,
    Mismatch,
}

/// What a call makes of a registration, and what must be answered.
fn after(state: &Option<String>, call: &Call) -> (Option<String>, Due) {
    let unchanged = |due| (state.clone(), due);
    match (call, state) {
        (Call::Create { value }, None) => (Some(value.clone()), Due::There),
        (Call::Create { .. }, Some(_)) => unchanged(Due::Exists),
        (_, None) => unchanged(Due::Missing),
        (Call::Read, Some(_)) => unchanged(Due::There),
        (Call::Replace { value }, Some(_)) => (Some(value.clone()), Due::There),
        (Call::Swap { etag, value }, Some(now)) if etag == now => (Some(value.clone()), Due::There),
        (Call::Swap { .. }, Some(_)) => unchanged(Due::Mismatch),
        (Call::Delete, Some(_)) => (None, Due::Deleted),
    }
}

/// Devices whose accesses no order explains, and ETags of two contents.
pub fn check(accesses: &[Access]) -> Findings {
    let mut findings = Findings::default();
    let mut devices: BTreeMap<&str, Vec<&Access>> = BTreeMap::new();
    for access in accesses {
        devices.entry(&access.device).or_default().push(access);
    }
    for (device, accesses) in devices {
        let found = |what: String| Violation {
            device: Some(device.to_owned()),
            ..Violation::of(what)
        };
        let mut contents: BTreeMap<&str, &str> = BTreeMap::new();
        for access in &accesses {
            if let Answer::There { value, etag } = &access.answer {
                let known = *contents.entry(etag).or_insert(value);
                if known != value {
                    findings.add(|| found(format!("ETag {etag} names {known:?} and {value:?}")));
                }
            }
        }
        let history: Vec<_> = accesses
            .iter()
            .map(|access| operation(access, &contents))
            .collect();
        let steps_max = STEPS_PER_OPERATION_MAX * history.len() as u64;
        match linearizable::check::<Registration>(&history, steps_max) {
            Decision::Linearizable => {}
            Decision::Not { stuck, placed } => findings.add(|| {
                let beside = linearizable::involved(&history, stuck);
                let beside: Vec<&Access> = beside.into_iter().map(|place| accesses[place]).collect();
                found(format!(
                    "no order explains {:?} ({placed} of {} accesses come before it in the longest attempt); before \
                     and beside it: {beside:?}",
                    accesses[stuck],
                    accesses.len()
                ))
            }),
            Decision::Undecided => findings.add(|| {
                found(format!(
                    "undecided after {steps_max} steps over {} accesses",
                    accesses.len()
                ))
            }),
        }
    }
    findings
}

fn operation(access: &Access, contents: &BTreeMap<&str, &str>) -> Operation<Call, Answer> {
    let call = match &access.call {
        Call::Swap { etag, value } => Call::Swap {
            etag: contents
                .get(etag.as_str())
                .copied()
                .unwrap_or_default()
                .to_owned(),
            value: value.clone(),
        },
        other => other.clone(),
    };
    let is_known = access.answer != Answer::Unknown;
    Operation {
        called: access.invoked_us,
        answered: is_known.then(|| (access.completed_us, access.answer.clone())),
        call,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(call: Call, at_us: u64, answer: Answer) -> Access {
        Access {
            device: "d".into(),
            writer: 0,
            call,
            node: 0,
            invoked_us: at_us,
            completed_us: at_us + 15,
            answer,
        }
    }

    fn create(value: &str) -> Call {
        Call::Create { value: value.into() }
    }

    fn swap(etag: &str, value: &str) -> Call {
        Call::Swap {
            etag: etag.into(),
            value: value.into(),
        }
    }

    fn there(value: &str, etag: &str) -> Answer {
        Answer::There {
            value: value.into(),
            etag: etag.into(),
        }
    }

    #[test]
    fn of_two_swaps_of_one_etag_one_wins() {
        let with = |second: Answer| {
            vec![
                access(create("a"), 0, there("a", "1")),
                access(swap("1", "b"), 20, there("b", "2")),
                access(swap("1", "c"), 30, second),
                access(Call::Read, 60, there("b", "2")),
            ]
        };
        assert!(check(&with(Answer::Mismatch)).is_empty());
        assert_eq!(check(&with(there("c", "3"))).count, 1);
        assert_eq!(check(&with(Answer::Missing)).count, 1);
        assert!(check(&with(Answer::Unknown)).is_empty(), "it may come later");
    }

    #[test]
    fn a_stale_read_is_found_and_so_is_a_lost_delete() {
        let with = |read: Answer| {
            vec![
                access(create("a"), 0, there("a", "1")),
                access(Call::Delete, 20, Answer::Deleted),
                access(Call::Read, 40, read),
            ]
        };
        assert!(check(&with(Answer::Missing)).is_empty());
        assert_eq!(check(&with(there("a", "1"))).count, 1);
    }

    #[test]
    fn an_etag_of_two_contents_is_found() {
        let accesses = [
            access(create("a"), 0, there("a", "1")),
            access(Call::Delete, 20, Answer::Deleted),
            access(create("b"), 40, there("b", "1")),
        ];
        let findings = check(&accesses);
        assert_eq!(findings.count, 1, "{findings:?}");
        assert!(findings.examples[0].what.contains("names"), "{findings:?}");
    }

    #[test]
    fn devices_are_judged_one_by_one() {
        let other = |access: Access| Access {
            device: "e".into(),
            ..access
        };
        let accesses = [
            access(create("a"), 0, there("a", "1")),
            other(access(Call::Read, 20, Answer::Missing)),
            other(access(Call::Replace { value: "b".into() }, 40, Answer::Missing)),
        ];
        assert!(check(&accesses).is_empty());
    }
}
