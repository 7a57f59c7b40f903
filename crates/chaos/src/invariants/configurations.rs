//! I22 — twins follow their configurations: once nobody changes anything and nothing is disturbed, each twin has what the
//! configurations that fit it say, the one of the highest priority standing over the others; it names these and no others,
//! and the configurations' metrics count just that.
//!
//! Source: `docs/invariants.md` I22, `docs/semantics.md` on twins, `model/configuration/plan.rs`. All configurations have
//! something to say under `setting`, so of those that fit a twin the first is applied and the others are covered. What a
//! configuration has set stays where none fits any more, so then nothing is expected of a setting, only of the marks.

use super::{Findings, Violation};
use crate::workload::survey::{Rule, Survey, Twin};

/// Everything in any survey that is not as it should be.
pub fn check(surveys: &[Survey]) -> Findings {
    let mut findings = Findings::default();
    for survey in surveys {
        for what in wrong(survey) {
            let waited_ms = survey.us.saturating_sub(survey.changed_us) / 1000;
            findings.add(|| Violation::of(format!("{waited_ms} ms after the last change {what}")));
        }
    }
    findings
}

/// What is not as it should be in a survey; nothing if the twins have followed.
pub fn wrong(survey: &Survey) -> Vec<String> {
    let mut found = Vec::new();
    for twin in &survey.twins {
        check_twin(&mut found, &survey.rules, twin);
    }
    for rule in &survey.rules {
        let Some(counts) = survey.counts.iter().find(|counts| counts.id == rule.id) else {
            found.push(format!("{} is not there", rule.id));
            continue;
        };
        let count =
            |is_one: &dyn Fn(&Twin) -> bool| survey.twins.iter().filter(|twin| is_one(twin)).count() as u64;
        let targeted = count(&|twin| fits(rule, twin));
        let applied = count(&|twin| first(&survey.rules, twin, |_| true) == Some(rule));
        let own = count(&|twin| twin.setting == rule.id);
        for (name, shown, right) in [
            ("targets", counts.targeted, targeted),
            ("is applied to", counts.applied, applied),
            ("counts as its own", counts.own, own),
        ] {
            if shown != right {
                found.push(format!("{} {name} {shown} twins, and not {right}", rule.id));
            }
        }
    }
    found
}

fn fits(rule: &Rule, twin: &Twin) -> bool {
    rule.lot.as_ref().is_none_or(|lot| *lot == twin.lot)
}

/// Of those that fit a twin and have something to say, the one of the highest priority.
fn first<'a>(rules: &'a [Rule], twin: &Twin, speaks: impl Fn(&Rule) -> bool) -> Option<&'a Rule> {
    let fitting = rules.iter().filter(|rule| fits(rule, twin) && speaks(rule));
    fitting.max_by_key(|rule| rule.priority)
}

fn check_twin(found: &mut Vec<String>, rules: &[Rule], twin: &Twin) {
    let device = &twin.device;
    if twin.shown_lot != twin.lot {
        found.push(format!(
            "{device} is in lot '{}', and not '{}'",
            twin.shown_lot, twin.lot
        ));
    }
    let (setting, extra) = (
        first(rules, twin, |_| true),
        first(rules, twin, |rule| rule.has_extra),
    );
    for (name, shown, right) in [("setting", &twin.setting, setting), ("extra", &twin.extra, extra)] {
        if let Some(right) = right
            && *shown != right.id
        {
            found.push(format!(
                "{device} has '{shown}' as {name}, and not '{}'",
                right.id
            ));
        }
    }
    for rule in rules.iter().filter(|rule| fits(rule, twin)) {
        let right = if setting == Some(rule) {
            "Applied"
        } else {
            "Targeted"
        };
        match twin.marks.get(&rule.id) {
            Some(mark) if mark == right => {}
            Some(mark) => found.push(format!("{device} says {mark} of {}, and not {right}", rule.id)),
            None => found.push(format!("{device} says nothing of {}", rule.id)),
        }
    }
    let fits_one = |id: &&String| rules.iter().any(|rule| rule.id == **id && fits(rule, twin));
    if let Some(id) = twin.marks.keys().find(|id| !fits_one(id)) {
        found.push(format!("{device} speaks of {id}, which does not fit it"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::survey::Counts;

    fn rule(id: &str, priority: u32, lot: Option<&str>, has_extra: bool) -> Rule {
        Rule {
            id: id.into(),
            priority,
            lot: lot.map(str::to_owned),
            has_extra,
        }
    }

    fn twin(device: &str, lot: &str, (setting, extra): (&str, &str), marks: &[(&str, &str)]) -> Twin {
        let mark = |(id, mark): &(&str, &str)| ((*id).to_owned(), (*mark).to_owned());
        Twin {
            device: device.into(),
            lot: lot.into(),
            shown_lot: lot.into(),
            setting: setting.into(),
            extra: extra.into(),
            marks: marks.iter().map(mark).collect(),
        }
    }

    /// `low` is for all and has an extra, `high` is for lot a; nothing but `low` fits lot b.
    fn good() -> Survey {
        let counts = |id: &str, targeted, applied, own| Counts {
            id: id.into(),
            targeted,
            applied,
            own,
        };
        Survey {
            changed_us: 1_000_000,
            us: 4_000_000,
            rules: vec![rule("low", 1, None, true), rule("high", 2, Some("a"), false)],
            twins: vec![
                twin(
                    "one",
                    "a",
                    ("high", "low"),
                    &[("high", "Applied"), ("low", "Targeted")],
                ),
                twin("two", "b", ("low", "low"), &[("low", "Applied")]),
            ],
            counts: vec![counts("low", 2, 1, 1), counts("high", 1, 1, 1)],
        }
    }

    #[test]
    fn twins_that_have_followed_are_right() {
        assert_eq!(wrong(&good()), [""; 0]);
        let mut without = good();
        without.rules.clear();
        without.counts.clear();
        without.twins.iter_mut().for_each(|twin| twin.marks.clear());
        assert_eq!(wrong(&without), [""; 0], "what was set stays");
        assert_eq!(check(&[]).count, 0);
    }

    #[test]
    fn what_is_otherwise_is_found() {
        type Change = fn(&mut Survey);
        let changes: [(Change, &str); 9] = [
            (
                |it| it.twins[0].setting = "low".into(),
                "'low' as setting, and not 'high'",
            ),
            (|it| it.twins[0].extra = "high".into(), "as extra, and not 'low'"),
            (
                |it| it.twins[1].shown_lot = "c".into(),
                "is in lot 'c', and not 'b'",
            ),
            (
                |it| drop(it.twins[1].marks.insert("low".into(), "Targeted".into())),
                "says Targeted of low",
            ),
            (|it| drop(it.twins[0].marks.remove("low")), "says nothing of low"),
            (
                |it| drop(it.twins[1].marks.insert("high".into(), "Targeted".into())),
                "speaks of high",
            ),
            (|it| drop(it.counts.remove(1)), "high is not there"),
            (|it| it.counts[0].targeted = 1, "low targets 1 twins, and not 2"),
            (
                |it| it.counts[0].applied = 2,
                "low is applied to 2 twins, and not 1",
            ),
        ];
        for (change, word) in changes {
            let mut bad = good();
            change(&mut bad);
            let found = check(&[bad]);
            assert!(
                found.examples.iter().any(|one| one.what.contains(word)),
                "{word}: {:?}",
                found.examples
            );
            assert!(found.examples[0].what.starts_with("3000 ms after"));
        }
        let mut bad = good();
        bad.counts[1].own = 0;
        assert_eq!(wrong(&bad), ["high counts as its own 0 twins, and not 1"]);
    }
}
