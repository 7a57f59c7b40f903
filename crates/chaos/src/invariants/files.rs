//! I23 — files of devices: one that the hub said it has is read with its content from then on; before that it is whole or
//! not there. Services are told of each whose upload was ended, at least once, and not again after they have said that they
//! heard; they are told of nothing else.
//!
//! Source: `docs/invariants.md` I23, `docs/uploads.md`. No name comes twice, so what is found under one is what was brought
//! or it is wrong. What was let go of, or given out and never answered, may be told again.

use std::collections::BTreeMap;

use super::{Findings, Violation};
use crate::workload::file::{Content, Deed, What};
use crate::workload::operation::Outcome;

/// What is known of a file.
#[derive(Default)]
struct File {
    content: Option<Content>,
    begun_us: u64,
    /// When the hub said that it has it.
    stored_us: Option<u64>,
    /// When the device began to say that it is done, and whether it was answered that this is so.
    ended: Option<(u64, bool)>,
    told_count: u64,
    /// When a service first knew that it need not hear of it again.
    heard_us: Option<u64>,
}

/// Files that are lost, spoiled or made up, and notifications that are.
pub fn check(deeds: &[Deed]) -> Findings {
    let mut findings = Findings::default();
    let files = files(deeds);
    for deed in deeds {
        let mut wrong = |what: &str| {
            let at_ms = deed.invoked_us / 1000;
            findings.add(|| Violation::of(format!("{}: {what} at {at_ms} ms", deed.file)));
        };
        let known = files
            .get(deed.file.as_str())
            .filter(|file| file.content.is_some());
        let Some(file) = known else {
            match deed.what {
                What::Read(Some(_)) => wrong("nobody brought it, and it was read"),
                What::Told { .. } => wrong("nobody brought it, and a service was told of it"),
                _ => {}
            }
            continue;
        };
        match &deed.what {
            What::Read(None) if file.stored_us.is_some_and(|us| us < deed.invoked_us) => {
                wrong("the hub had said that it has it, and it was not there");
            }
            What::Read(Some(_)) if deed.completed_us < file.begun_us => {
                wrong("it was read before it was brought");
            }
            What::Read(found @ Some(_)) if *found != file.content => {
                wrong("something else was read than was brought");
            }
            What::Told { bytes } => {
                if file.content.map(|content| content.bytes) != Some(*bytes) {
                    wrong("a service was told of another length");
                }
                if file.ended.is_none_or(|(us, _)| us > deed.completed_us) {
                    wrong("a service was told of it before its device was done");
                }
                if file.heard_us.is_some_and(|us| us < deed.invoked_us) {
                    wrong("a service was told of it after it had said that it heard");
                }
            }
            _ => {}
        }
    }
    // Whoever stopped listening early has heard of nothing that came late.
    let is_heard_out = deeds.iter().any(|deed| deed.what == What::HeardOut);
    for (name, file) in files.iter().filter(|_| is_heard_out) {
        if file.ended.is_some_and(|(_, is_ok)| is_ok) && file.told_count == 0 {
            findings.add(|| Violation::of(format!("{name}: no service was told of it")));
        }
    }
    findings
}

fn files(deeds: &[Deed]) -> BTreeMap<&str, File> {
    let mut files: BTreeMap<&str, File> = BTreeMap::new();
    for deed in deeds {
        let file = files.entry(&deed.file).or_default();
        match deed.what {
            What::Begun(content) => {
                (file.content, file.begun_us) = (Some(content), deed.invoked_us);
            }
            What::Stored => {
                file.stored_us.get_or_insert(deed.completed_us);
            }
            What::Ended(Outcome::Fail) => {}
            What::Ended(outcome) => {
                file.ended
                    .get_or_insert((deed.invoked_us, outcome == Outcome::Ok));
            }
            What::Told { .. } => file.told_count += 1,
            What::Heard(Outcome::Ok) => {
                file.heard_us.get_or_insert(deed.completed_us);
            }
            What::Read(_) | What::Heard(_) | What::HeardOut => {}
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: Content = Content { bytes: 5, digest: 7 };

    fn deed(what: What, invoked_us: u64, completed_us: u64) -> Deed {
        Deed {
            file: "d/f".into(),
            what,
            invoked_us,
            completed_us,
        }
    }

    /// A file that was brought from 100 to 200, whose device said so from 300 to 400, and what more there is.
    fn run(more: &[Deed]) -> Findings {
        let mut deeds = vec![
            deed(What::Begun(CONTENT), 100, 100),
            deed(What::Stored, 100, 200),
            deed(What::Ended(Outcome::Ok), 300, 400),
        ];
        deeds.extend_from_slice(more);
        deeds.push(Deed {
            file: String::new(),
            ..deed(What::HeardOut, 9_000, 9_000)
        });
        check(&deeds)
    }

    const TOLD: What = What::Told { bytes: 5 };

    #[test]
    fn what_can_be_is_right() {
        for good in [
            vec![deed(TOLD, 310, 350)],
            vec![deed(TOLD, 500, 510), deed(TOLD, 520, 530)],
            vec![
                deed(TOLD, 500, 510),
                deed(What::Heard(Outcome::Unknown), 520, 530),
                deed(TOLD, 600, 610),
                deed(What::Heard(Outcome::Ok), 620, 630),
                // It was on its way already.
                deed(TOLD, 625, 640),
            ],
            vec![
                deed(TOLD, 500, 510),
                deed(What::Read(None), 150, 220),
                deed(What::Read(Some(CONTENT)), 150, 160),
                deed(What::Read(Some(CONTENT)), 900, 910),
            ],
        ] {
            assert_eq!(run(&good).count, 0, "{good:?}: {:?}", run(&good).examples);
        }
        assert_eq!(check(&[]).count, 0);
        let lost = [
            deed(What::Begun(CONTENT), 1, 1),
            deed(What::Ended(Outcome::Unknown), 2, 3),
        ];
        assert_eq!(check(&lost).count, 0, "nobody knows whether it was ended");
        let early = [
            deed(What::Begun(CONTENT), 1, 1),
            deed(What::Ended(Outcome::Ok), 2, 3),
        ];
        assert_eq!(check(&early).count, 0, "nobody listened to the end");
    }

    #[test]
    fn what_cannot_be_is_found() {
        let other = Content { bytes: 5, digest: 8 };
        for (bad, word) in [
            (vec![], "no service was told"),
            (vec![deed(TOLD, 200, 250)], "before its device was done"),
            (vec![deed(What::Told { bytes: 4 }, 500, 510)], "another length"),
            (
                vec![
                    deed(TOLD, 500, 510),
                    deed(What::Heard(Outcome::Ok), 520, 530),
                    deed(TOLD, 540, 550),
                ],
                "after it had said that it heard",
            ),
            (
                vec![deed(TOLD, 500, 510), deed(What::Read(None), 201, 220)],
                "it was not there",
            ),
            (
                vec![deed(TOLD, 500, 510), deed(What::Read(Some(other)), 150, 160)],
                "something else was read",
            ),
            (
                vec![deed(TOLD, 500, 510), deed(What::Read(Some(CONTENT)), 50, 60)],
                "before it was brought",
            ),
        ] {
            let found = run(&bad);
            assert_eq!(found.count, 1, "{bad:?}: {:?}", found.examples);
            assert!(found.examples[0].what.contains(word), "{:?}", found.examples);
        }
        for what in [TOLD, What::Read(Some(CONTENT))] {
            let made_up = Deed {
                file: "d/other".into(),
                ..deed(what, 500, 510)
            };
            let found = run(&[deed(TOLD, 500, 510), made_up]);
            assert_eq!(found.count, 1, "{:?}", found.examples);
            assert!(found.examples[0].what.contains("nobody brought it"));
        }
    }
}
