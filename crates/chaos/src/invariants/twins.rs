//! I7 — twins: reads and writes of a section of a twin, by services and by the device, through whatever gateways, are
//! linearizable, versions and ETags included; a device hears of each desired version once on a connection, in order, and
//! never of one that is not.
//!
//! Source: `docs/invariants.md` I7. Each write says something that no other does, and raises the version by one. An
//! ETag is known by the content that it was seen with; one that was never seen cannot be asked for.

use std::collections::BTreeMap;

use super::linearizable::{self, Decision, Model, Operation};
use super::{Findings, Violation};
use crate::workload::exchange::{Access, Answer, Call, Exchange, Note, Section};

/// Steps of the search for each operation, beyond which it is given up.
const STEPS_PER_OPERATION_MAX: u64 = 10_000;

/// What a section holds, and its version.
type Content = (String, u64);

/// What is asked, with the content that an ETag names in place of the ETag.
enum Asked {
    Read,
    Write(String),
    Swap(Option<Content>, String),
}

struct Twin;

impl Model for Twin {
    type State = Content;
    type Call = Asked;
    type Answer = Answer;

    fn start() -> Content {
        (String::new(), 1)
    }

    fn step(state: &Content, call: &Asked, answer: Option<&Answer>) -> Option<Content> {
        let written = |value: &String| (value.clone(), state.1 + 1);
        match (call, answer) {
            (Asked::Read, Some(Answer::Seen { value, version, .. })) => {
                (state.0 == *value && state.1 == *version).then(|| state.clone())
            }
            (Asked::Swap(seen, _), Some(Answer::Mismatch)) => {
                (seen.as_ref() != Some(state)).then(|| state.clone())
            }
            (Asked::Swap(seen, value), None | Some(Answer::Done { .. })) if seen.as_ref() == Some(state) => {
                Some(written(value))
            }
            (Asked::Write(value), None) => Some(written(value)),
            (Asked::Write(value), Some(Answer::Done { version })) => version
                .is_none_or(|version| version == state.1 + 1)
                .then(|| written(value)),
            _ => None,
        }
    }
}

/// Sections whose accesses no order explains, and notes that do not fit.
pub fn check(exchanges: &[Exchange]) -> Findings {
    let mut findings = Findings::default();
    let mut sections: BTreeMap<(&str, Section), Vec<&Access>> = BTreeMap::new();
    let mut notes: BTreeMap<(&str, u64), Vec<&Note>> = BTreeMap::new();
    for exchange in exchanges {
        match exchange {
            Exchange::Access(access) => sections
                .entry((&access.device, access.section))
                .or_default()
                .push(access),
            Exchange::Note(note) => notes
                .entry((&note.device, note.connection))
                .or_default()
                .push(note),
            _ => {}
        }
    }
    for ((device, section), accesses) in &sections {
        check_section(device, *section, accesses, &mut findings);
    }
    // What each desired version of a device holds, as far as anybody saw it.
    let mut known: BTreeMap<(&str, u64), &str> = BTreeMap::new();
    for ((device, section), accesses) in &sections {
        for access in accesses {
            if let (Section::Desired, Answer::Seen { value, version, .. }) = (section, &access.answer) {
                known.entry((device, *version)).or_insert(value);
            }
        }
    }
    for ((device, connection), notes) in notes {
        let found = |what: String| Violation {
            device: Some(device.to_owned()),
            ..Violation::of(what)
        };
        // A device that has asked is not told again of what it then saw.
        let mut latest: Option<u64> = None;
        for note in &notes {
            let fits = latest.is_none_or(|latest| match note.asked {
                true => note.version >= latest,
                false => note.version == latest + 1,
            });
            if !fits {
                let before = latest.unwrap_or_default();
                findings.add(|| {
                    found(format!(
                        "on connection {connection} version {} was heard after {before} (asked: {})",
                        note.version, note.asked
                    ))
                });
            }
            latest = latest.max(Some(note.version));
        }
        for note in notes {
            let value = *known.entry((device, note.version)).or_insert(&note.value);
            if value != note.value {
                findings.add(|| {
                    found(format!(
                        "version {} holds {value:?} and was told as {:?}",
                        note.version, note.value
                    ))
                });
            }
        }
    }
    findings
}

fn check_section(device: &str, section: Section, accesses: &[&Access], findings: &mut Findings) {
    let found = |what: String| Violation {
        device: Some(device.to_owned()),
        ..Violation::of(what)
    };
    let mut contents: BTreeMap<&str, Content> = BTreeMap::new();
    for access in accesses {
        if let Answer::Seen {
            value,
            version,
            etag: Some(etag),
        } = &access.answer
        {
            let content = (value.clone(), *version);
            let known = contents.entry(etag).or_insert_with(|| content.clone());
            // An ETag is of what services write; what the device reports changes under it.
            if section == Section::Desired && *known != content {
                findings.add(|| found(format!("ETag {etag} names {known:?} and {content:?}")));
            }
        }
    }
    let history: Vec<_> = accesses
        .iter()
        .map(|access| operation(access, &contents))
        .collect();
    let steps_max = STEPS_PER_OPERATION_MAX * history.len() as u64;
    match linearizable::check::<Twin>(&history, steps_max) {
        Decision::Linearizable => {}
        Decision::Not { stuck, placed } => {
            let access = accesses[stuck];
            findings.add(|| {
                let beside = linearizable::involved(&history, stuck);
                let beside: Vec<_> = beside.into_iter().map(|place| accesses[place]).collect();
                found(format!(
                    "no order of the {} accesses of {section:?} explains {:?} answered with {:?} at {} us ({placed} \
                     placed); before and beside it: {beside:?}",
                    accesses.len(),
                    access.call,
                    access.answer,
                    access.completed_us
                ))
            });
        }
        Decision::Undecided => findings.add(|| {
            found(format!(
                "whether {} accesses of {section:?} have an order was not decided in {steps_max} steps",
                accesses.len()
            ))
        }),
    }
}

fn operation(access: &Access, contents: &BTreeMap<&str, Content>) -> Operation<Asked, Answer> {
    let answered = match &access.answer {
        Answer::Unknown => None,
        answer => Some((access.completed_us, answer.clone())),
    };
    Operation {
        called: access.invoked_us,
        answered,
        call: match &access.call {
            Call::Read => Asked::Read,
            Call::Write { value } => Asked::Write(value.clone()),
            Call::Swap { etag, value } => Asked::Swap(contents.get(etag.as_str()).cloned(), value.clone()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(call: Call, (invoked_us, completed_us): (u64, u64), answer: Answer) -> Exchange {
        Exchange::Access(Access {
            device: "d".into(),
            section: Section::Desired,
            call,
            invoked_us,
            completed_us,
            answer,
        })
    }

    fn seen(value: &str, version: u64) -> Answer {
        Answer::Seen {
            value: value.into(),
            version,
            etag: Some(format!("e{version}")),
        }
    }

    fn write(value: &str) -> Call {
        Call::Write { value: value.into() }
    }

    fn swap(etag: &str, value: &str) -> Call {
        Call::Swap {
            etag: etag.into(),
            value: value.into(),
        }
    }

    fn note(connection: u64, version: u64, value: &str) -> Exchange {
        heard(connection, version, value, false)
    }

    fn heard(connection: u64, version: u64, value: &str, asked: bool) -> Exchange {
        Exchange::Note(Note {
            device: "d".into(),
            connection,
            version,
            value: value.into(),
            asked,
        })
    }

    const DONE: Answer = Answer::Done { version: None };

    #[test]
    fn what_some_order_explains_is_found_sound() {
        let sound = [
            access(Call::Read, (0, 5), seen("", 1)),
            access(write("a"), (10, 30), DONE),
            access(Call::Read, (12, 14), seen("", 1)),
            access(Call::Read, (15, 20), seen("a", 2)),
            access(swap("e2", "b"), (40, 50), DONE),
            access(swap("e2", "c"), (41, 60), Answer::Mismatch),
            // Nobody knows of this one until it is seen.
            access(write("d"), (70, 80), Answer::Unknown),
            access(Call::Read, (90, 95), seen("b", 3)),
            access(Call::Read, (100, 110), seen("d", 4)),
            note(1, 2, "a"),
            note(1, 3, "b"),
            heard(2, 1, "", true),
            heard(2, 3, "b", true),
            note(2, 4, "d"),
        ];
        assert_eq!(check(&sound), Findings::default());
    }

    #[test]
    fn what_no_order_explains_is_found() {
        let read = |at, value, version| access(Call::Read, (at, at + 5), seen(value, version));
        for (what, history) in [
            (
                "a write that is lost",
                vec![access(write("a"), (0, 5), DONE), read(10, "", 1)],
            ),
            (
                "a read that goes back",
                vec![
                    access(write("a"), (0, 50), DONE),
                    read(10, "a", 2),
                    read(20, "", 1),
                ],
            ),
            (
                "a version that skips",
                vec![access(write("a"), (0, 5), DONE), read(10, "a", 3)],
            ),
            (
                "two swaps of one content",
                vec![
                    read(0, "", 1),
                    access(swap("e1", "a"), (10, 20), DONE),
                    access(swap("e1", "b"), (10, 20), DONE),
                ],
            ),
            (
                "a mismatch where there is none",
                vec![
                    read(0, "", 1),
                    access(swap("e1", "a"), (10, 20), Answer::Mismatch),
                ],
            ),
            (
                "a version that was not made",
                vec![access(write("a"), (0, 5), Answer::Done { version: Some(3) })],
            ),
            (
                "a note that is told twice",
                vec![note(1, 2, "a"), note(1, 2, "a")],
            ),
            (
                "an answer that is older than a note",
                vec![note(1, 3, "a"), heard(1, 2, "b", true)],
            ),
            (
                "a note of what was seen",
                vec![heard(1, 3, "a", true), note(1, 3, "a")],
            ),
            ("a note that is left out", vec![note(1, 2, "a"), note(1, 4, "c")]),
            (
                "a note of something else",
                vec![
                    access(write("a"), (0, 5), DONE),
                    read(10, "a", 2),
                    note(1, 2, "b"),
                ],
            ),
        ] {
            assert_eq!(check(&history).count, 1, "{what}: {:?}", check(&history));
        }
    }

    #[test]
    fn what_a_device_reports_has_a_version_and_no_etag_of_its_own() {
        let reported = |call, at: u64, answer| {
            Exchange::Access(Access {
                device: "d".into(),
                section: Section::Reported,
                call,
                invoked_us: at,
                completed_us: at + 5,
                answer,
            })
        };
        let same_etag = |value: &str, version| Answer::Seen {
            value: value.into(),
            version,
            etag: Some("e".into()),
        };
        let sound = [
            reported(write("a"), 0, Answer::Done { version: Some(2) }),
            reported(Call::Read, 10, same_etag("a", 2)),
            reported(write("b"), 20, Answer::Done { version: Some(3) }),
            reported(Call::Read, 30, same_etag("b", 3)),
        ];
        assert_eq!(check(&sound), Findings::default());
    }
}
