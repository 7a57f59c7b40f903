//! Provisioning: who may register is assigned, always to the same place, and nobody else is, at whatever gateway.
//!
//! Source: `docs/semantics.md`, Provisioning. An enrolment that was acknowledged counts for whoever comes afterwards, so
//! of each registration that began after the last change of its enrolment:
//!
//! 1. with a key of an enabled enrolment, primary or secondary, a device is assigned; of one that is disabled it is told
//!    so; and with any other key, or where there is none, it is refused;
//! 2. until its own enrolment is deleted, a registration id has one assignment, made once, and services are shown it;
//! 3. a device that was assigned is in its hub's registry and is let in there with the keys that its enrolment had then,
//!    from two seconds later on with no others.
//!
//! After a change whose outcome is not known nothing is known of its enrolment any more. A registration that was not
//! answered may have been kept, and may still be on its way: what it does at the hub before it is found out of date stays
//! there, so what its device shows there is not judged any more. One that a group put at the hub and whose registration
//! was not kept is, with other keys, anybody's to the group: then it may fail.

use std::collections::BTreeMap;

use super::identity::REFUSED_WITHIN;
use super::{Findings, Violation};
use crate::workload::enrolling::{
    Assignment, Change, Enrolling, Entry, Found, Look, Registration, Terms, Told,
};
use crate::workload::operation::Outcome;

/// What an enrolment says, if it is there; none if that is not known.
type Known<'a> = Option<Option<&'a Terms>>;

/// What is known of a registration id.
#[derive(Default)]
struct Id<'a> {
    /// Its assignment, if that is known.
    assignment: Option<&'a Assignment>,
    /// Whether there may be one that nobody was told of.
    is_doubtful: bool,
    /// Whether it was ever assigned: then its device is in the registry.
    is_at_hub: bool,
    /// Keys that its device has at its hub, and since when, if that is known.
    keys: Option<([u32; 2], u64)>,
    /// Whether a registration was not answered.
    has_unanswered: bool,
}

/// What devices and services were told otherwise than they had to be.
pub fn check(enrollings: &[Enrolling]) -> Findings {
    let mut findings = Findings::default();
    let mut enrollments: BTreeMap<&str, Known<'_>> = BTreeMap::new();
    let mut ids: BTreeMap<&str, Id<'_>> = BTreeMap::new();
    for enrolling in enrollings {
        let (name, node, us, what) = match enrolling {
            Enrolling::Change(change) => {
                let known = enrollments.entry(&change.enrollment).or_insert(Some(None));
                take(change, known, ids.entry(&change.enrollment).or_default());
                continue;
            }
            Enrolling::Registration(one) => {
                // Whatever nobody has made is not there.
                let known = *enrollments.entry(&one.enrollment).or_insert(Some(None));
                let what = ids.entry(&one.id).or_default().register(one, known);
                (&one.id, one.node, one.invoked_us, what)
            }
            Enrolling::Look(look) => {
                let what = ids.entry(&look.id).or_default().look(look);
                (&look.id, look.node, look.invoked_us, what)
            }
            Enrolling::Entry(entry) => {
                let what = ids.entry(&entry.id).or_default().enter(entry);
                (&entry.id, entry.node, entry.invoked_us, what)
            }
        };
        if let Some(what) = what {
            findings.add(|| Violation {
                device: Some(name.clone()),
                ..Violation::of(format!(
                    "{what}, at node {}, {:.3} s after the run began",
                    node + 1,
                    us as f64 / 1e6
                ))
            });
        }
    }
    findings
}

/// Takes in a change of an enrolment, and what it does to the registration of the same name.
fn take<'a>(change: &'a Change, known: &mut Known<'a>, own: &mut Id<'a>) {
    match (change.outcome, known.is_some()) {
        (Outcome::Fail, _) => {}
        // It may come at any later time.
        (Outcome::Unknown, _) | (Outcome::Ok, false) => {
            *known = None;
            if change.terms.is_none() {
                (own.assignment, own.is_doubtful) = (None, true);
            }
        }
        (Outcome::Ok, true) => {
            *known = Some(change.terms.as_ref());
            if change.terms.is_none() {
                (own.assignment, own.is_doubtful) = (None, false);
            }
        }
    }
}

impl<'a> Id<'a> {
    /// Takes in a registration; what is wrong with it.
    fn register(&mut self, one: &'a Registration, known: Known<'a>) -> Option<String> {
        let has_key = |terms: &&Terms| terms.keys.contains(&one.key);
        let wanted = known.map(|terms| terms.filter(has_key).map(|terms| terms.is_enabled));
        match (&one.told, wanted) {
            (Told::Assigned(_), Some(Some(false))) => return Some("assigned while disabled".to_owned()),
            (Told::Assigned(_), Some(None)) => {
                return Some("assigned with a key that lets nobody in".to_owned());
            }
            (Told::Disabled, Some(Some(true))) => return Some("told disabled while enabled".to_owned()),
            (Told::Disabled, Some(None)) => {
                return Some("told disabled with a key that lets nobody in".to_owned());
            }
            (Told::Refused, Some(Some(_))) => return Some("refused with a good key".to_owned()),
            (Told::Failed { code }, Some(_)) if !self.may_fail() => {
                return Some(format!("failed with error {code}"));
            }
            _ => {}
        }
        match &one.told {
            Told::Assigned(assignment) => self.assign(one, assignment, known),
            Told::Unknown { .. } => {
                self.has_unanswered = true;
                self.is_doubtful |= self.assignment.is_none();
                None
            }
            Told::Disabled | Told::Refused | Told::Failed { .. } => None,
        }
    }

    /// Whether the device may be at its hub without a registration.
    fn may_fail(&self) -> bool {
        self.has_unanswered && self.assignment.is_none()
    }

    fn assign(&mut self, one: &Registration, assignment: &'a Assignment, known: Known<'a>) -> Option<String> {
        let what = self.differs(Some(assignment));
        self.assignment = Some(assignment);
        self.is_at_hub = true;
        self.keys = match (known, &self.keys) {
            // Several at once under the same keys: since the first of them.
            (Some(Some(terms)), Some((keys, _))) if terms.keys == *keys => self.keys,
            (Some(Some(terms)), _) => Some((terms.keys, one.completed_us)),
            _ => None,
        };
        what
    }

    /// Whether a registration is another than it has to be.
    fn differs(&self, found: Option<&Assignment>) -> Option<String> {
        let shown = |one: &Assignment| format!("{} at {} since {}", one.device, one.hub, one.created);
        match (self.assignment, found) {
            (Some(known), Some(found)) if known != found => Some(format!(
                "assigned as {}, and before as {}",
                shown(found),
                shown(known)
            )),
            (Some(known), None) => Some(format!(
                "no registration is shown, though assigned as {}",
                shown(known)
            )),
            _ => None,
        }
    }

    /// What is wrong with what a service is shown.
    fn look(&mut self, look: &'a Look) -> Option<String> {
        match &look.found {
            Found::Registration(found) => {
                let is_made_up = found.is_some() && self.assignment.is_none() && !self.is_doubtful;
                if is_made_up {
                    return Some("a registration is shown that is not there".to_owned());
                }
                let what = self.differs(found.as_ref());
                self.assignment = found.as_ref().or(self.assignment);
                what
            }
            Found::Device(is_there) => {
                let is_missing = self.is_at_hub && !is_there;
                is_missing.then(|| "an assigned device is not in the registry".to_owned())
            }
        }
    }

    /// What is wrong with a device's coming in.
    fn enter(&self, entry: &Entry) -> Option<String> {
        let (keys, since_us) = self.keys.filter(|_| !self.has_unanswered)?;
        let due_us = since_us + REFUSED_WITHIN.as_micros() as u64;
        match (keys.contains(&entry.key), entry.outcome) {
            (true, Outcome::Fail) => Some("refused with what it was assigned with".to_owned()),
            (false, Outcome::Ok) if entry.invoked_us >= due_us => {
                Some("let in with what it had before".to_owned())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::grant::Door;

    const S: u64 = 1_000_000;

    fn change(terms: Option<([u32; 2], bool)>, at_s: u64, outcome: Outcome) -> Enrolling {
        Enrolling::Change(Change {
            enrollment: "e".into(),
            terms: terms.map(|(keys, is_enabled)| Terms { keys, is_enabled }),
            node: 0,
            invoked_us: at_s * S,
            completed_us: at_s * S + 10,
            outcome,
            detail: String::new(),
        })
    }

    fn assignment(created: &str) -> Assignment {
        Assignment {
            hub: "h".into(),
            device: "e".into(),
            created: created.into(),
        }
    }

    fn assigned(created: &str) -> Told {
        Told::Assigned(assignment(created))
    }

    fn registers(id: &str, key: u32, at_s: u64, told: Told) -> Enrolling {
        Enrolling::Registration(Registration {
            id: id.into(),
            enrollment: "e".into(),
            key,
            door: Door::Mqtt,
            node: 1,
            invoked_us: at_s * S,
            completed_us: at_s * S + 10,
            told,
        })
    }

    fn looks(id: &str, at_s: u64, found: Found) -> Enrolling {
        Enrolling::Look(Look {
            id: id.into(),
            node: 2,
            invoked_us: at_s * S,
            found,
        })
    }

    fn enters(key: u32, at_s: u64, outcome: Outcome) -> Enrolling {
        Enrolling::Entry(Entry {
            id: "e".into(),
            key,
            node: 2,
            invoked_us: at_s * S,
            outcome,
            detail: String::new(),
        })
    }

    fn unknown() -> Told {
        Told::Unknown { why: "lost".into() }
    }

    /// An enrolment of one device: made, given another key, disabled, enabled, deleted, made again.
    fn good() -> Vec<Enrolling> {
        use Outcome::{Fail, Ok};
        vec![
            registers("e", 0, 1, Told::Refused),
            change(Some(([0, 1], true)), 2, Ok),
            registers("e", 0, 3, assigned("t")),
            looks("e", 4, Found::Registration(Some(assignment("t")))),
            looks("e", 4, Found::Device(true)),
            enters(0, 5, Ok),
            registers("e", 6, 5, Told::Refused),
            change(Some(([2, 1], true)), 6, Ok),
            registers("e", 0, 7, Told::Refused),
            registers("e", 1, 7, assigned("t")),
            enters(2, 8, Ok),
            enters(0, 8, Ok),
            enters(0, 10, Fail),
            change(Some(([2, 1], false)), 11, Ok),
            registers("e", 2, 12, Told::Disabled),
            registers("e", 0, 12, Told::Refused),
            change(Some(([2, 1], true)), 13, Ok),
            registers("e", 2, 14, assigned("t")),
            change(None, 15, Ok),
            registers("e", 2, 16, Told::Refused),
            looks("e", 16, Found::Registration(None)),
            looks("e", 16, Found::Device(true)),
            change(Some(([4, 5], true)), 17, Ok),
            registers("e", 4, 18, assigned("u")),
            looks("e", 19, Found::Registration(Some(assignment("u")))),
        ]
    }

    fn with(place: usize, one: Enrolling) -> Vec<Enrolling> {
        let mut all = good();
        all[place] = one;
        all
    }

    #[test]
    fn what_has_to_be_is_right() {
        assert!(check(&good()).is_empty(), "{:?}", check(&good()).examples);
        for nothing in [0, 2, 6, 8, 14, 19] {
            let mut all = good();
            if let Enrolling::Registration(one) = &mut all[nothing] {
                one.told = unknown();
            }
            assert!(check(&all).is_empty(), "{nothing}: {:?}", check(&all).examples);
        }
    }

    #[test]
    fn each_thing_that_cannot_be_is_found() {
        let other = Assignment {
            device: "f".into(),
            ..assignment("t")
        };
        for (place, one, what) in [
            (0, registers("e", 0, 1, assigned("t")), "lets nobody in"),
            (2, registers("e", 0, 3, Told::Refused), "refused with a good key"),
            (2, registers("e", 0, 3, Told::Disabled), "while enabled"),
            (
                2,
                registers("e", 0, 3, Told::Failed { code: 400_209 }),
                "failed with error",
            ),
            (
                3,
                looks("e", 4, Found::Registration(None)),
                "no registration is shown",
            ),
            (
                3,
                looks("e", 4, Found::Registration(Some(other))),
                "assigned as f",
            ),
            (4, looks("e", 4, Found::Device(false)), "not in the registry"),
            (
                5,
                enters(0, 5, Outcome::Fail),
                "refused with what it was assigned",
            ),
            (6, registers("e", 6, 5, assigned("t")), "lets nobody in"),
            (8, registers("e", 0, 7, assigned("t")), "lets nobody in"),
            (9, registers("e", 1, 7, assigned("v")), "since v, and before"),
            (12, enters(0, 10, Outcome::Ok), "let in with what it had before"),
            (14, registers("e", 2, 12, assigned("t")), "while disabled"),
            (
                15,
                registers("e", 0, 12, Told::Disabled),
                "told disabled with a key",
            ),
            (19, registers("e", 2, 16, assigned("t")), "lets nobody in"),
            (
                20,
                looks("e", 16, Found::Registration(Some(assignment("t")))),
                "is not there",
            ),
            (21, looks("e", 16, Found::Device(false)), "not in the registry"),
        ] {
            let found = check(&with(place, one));
            assert!(
                found.examples.iter().any(|one| one.what.contains(what)),
                "{place}: {what}: {:?}",
                found.examples
            );
        }
    }

    #[test]
    fn after_an_unknown_change_nothing_is_known_of_its_enrolment() {
        let mut all = good();
        all.truncate(8);
        all.push(change(Some(([2, 1], false)), 8, Outcome::Unknown));
        for told in [assigned("t"), Told::Disabled, Told::Refused] {
            all.push(registers("e", 2, 9, told));
        }
        assert!(check(&all).is_empty(), "{:?}", check(&all).examples);
        all.push(change(None, 10, Outcome::Unknown));
        all.push(looks("e", 11, Found::Registration(None)));
        assert!(check(&all).is_empty(), "it may have been deleted");
        all.push(change(None, 12, Outcome::Ok));
        all.push(registers("e", 2, 13, assigned("w")));
        assert!(check(&all).is_empty(), "an earlier change may come late");
    }

    #[test]
    fn a_registration_without_an_answer_excuses_what_it_may_have_done_and_no_more() {
        let mut all = good();
        all.truncate(2);
        all.push(registers("e", 0, 3, unknown()));
        all.push(looks("e", 4, Found::Registration(Some(assignment("t")))));
        assert!(check(&all).is_empty(), "it may have been kept");
        all.push(registers("e", 0, 5, assigned("v")));
        assert_eq!(check(&all).count, 1, "but then it is that one");
        let mut all = good();
        all.truncate(2);
        all.push(registers("e", 0, 3, unknown()));
        all.push(registers("e", 0, 4, Told::Failed { code: 400_209 }));
        all.push(registers("e", 0, 5, assigned("t")));
        all.push(enters(0, 6, Outcome::Fail));
        assert!(check(&all).is_empty(), "its device may have been left otherwise");
        all.push(registers("e", 0, 7, Told::Failed { code: 400_209 }));
        assert_eq!(check(&all).count, 1, "it is registered");
    }

    #[test]
    fn a_device_of_a_group_keeps_its_registration_when_the_group_goes() {
        let all = vec![
            change(Some(([0, 1], true)), 1, Outcome::Ok),
            registers("e-0", 0, 2, assigned("t")),
            change(None, 3, Outcome::Ok),
            registers("e-0", 0, 4, Told::Refused),
            looks("e-0", 5, Found::Registration(Some(assignment("t")))),
            change(Some(([4, 5], true)), 6, Outcome::Ok),
            registers("e-0", 5, 7, assigned("t")),
        ];
        assert!(check(&all).is_empty(), "{:?}", check(&all).examples);
        let mut bad = all;
        bad[4] = looks("e-0", 5, Found::Registration(None));
        assert_eq!(check(&bad).count, 1);
    }
}
