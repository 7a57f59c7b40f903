//! I10 — shared access policies: after an acknowledged change the keys that a policy has open every gateway at once,
//! and those that it has no more open none from two seconds later on.
//!
//! Source: `docs/invariants.md` I10; `model/directory/policies.rs`. A key is drawn by the hub and never comes again, so
//! one that is known to have gone stays gone, whatever is not known of its policy. A renewal changes the key that it
//! names and no other. Judged by probes that say *refused for the credential*; a probe without an answer says nothing.

use std::collections::BTreeMap;

use super::identity::REFUSED_WITHIN;
use super::{Findings, Violation};
use crate::workload::grant::{Asked, Grant};
use crate::workload::operation::Outcome;

/// What is known of a policy.
#[derive(Default)]
struct Policy {
    /// Its keys, and since when, after a change whose outcome is known.
    now: Option<(Vec<u32>, u64)>,
    /// Keys that it had, and since when it is acknowledged that it has them no more.
    gone: BTreeMap<u32, u64>,
}

/// Keys that opened what they should not, or did not open what they should.
pub fn check(grants: &[Grant]) -> Findings {
    let mut findings = Findings::default();
    let mut policies: BTreeMap<&str, Policy> = BTreeMap::new();
    for grant in grants {
        let policy = policies.entry(&grant.policy).or_default();
        let what = match grant.asked {
            Asked::Probe { key, .. } => policy.broken(key, grant),
            _ => policy.change(grant),
        };
        if let Some(what) = what {
            findings.add(|| {
                Violation::of(format!(
                    "{what}: policy {}, node {}, {:.3} s after the run began ({:?})",
                    grant.policy,
                    grant.node + 1,
                    grant.invoked_us as f64 / 1e6,
                    grant.asked
                ))
            });
        }
    }
    findings
}

impl Policy {
    /// What is wrong with a probe.
    fn broken(&self, key: u32, probe: &Grant) -> Option<&'static str> {
        let due_us = |since_us: u64| since_us + REFUSED_WITHIN.as_micros() as u64;
        let is_gone = |since_us: &u64| probe.invoked_us >= due_us(*since_us);
        let is_good = self
            .now
            .as_ref()
            .is_some_and(|(keys, since_us)| keys.contains(&key) && probe.invoked_us >= *since_us);
        match probe.outcome {
            Outcome::Ok if self.gone.get(&key).is_some_and(is_gone) => Some("a key that is gone was let in"),
            Outcome::Fail if is_good => Some("a good key was refused"),
            _ => None,
        }
    }

    /// Takes in a change; what is wrong with it.
    fn change(&mut self, grant: &Grant) -> Option<&'static str> {
        match grant.outcome {
            Outcome::Fail => return None,
            Outcome::Unknown => {
                self.now = None;
                return None;
            }
            Outcome::Ok => {}
        }
        let before = self.now.replace((grant.keys.clone(), grant.completed_us));
        let (before, _) = before?;
        for key in before.iter().filter(|key| !grant.keys.contains(key)) {
            self.gone.entry(*key).or_insert(grant.completed_us);
        }
        let is_as_asked = match (grant.asked, before.as_slice(), grant.keys.as_slice()) {
            (Asked::RenewPrimary, [_, kept], [_, now]) | (Asked::RenewSecondary, [kept, _], [now, _]) => {
                kept == now
            }
            _ => true,
        };
        (!is_as_asked).then_some("a renewal changed the other key as well")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::grant::Door;

    fn grant(asked: Asked, keys: &[u32], at_s: u64, outcome: Outcome) -> Grant {
        Grant {
            policy: "p".into(),
            asked,
            keys: keys.to_vec(),
            node: 1,
            invoked_us: at_s * 1_000_000,
            completed_us: at_s * 1_000_000 + 1000,
            outcome,
            detail: String::new(),
        }
    }

    fn probe(key: u32, at_s: u64, outcome: Outcome) -> Grant {
        let door = Door::Https;
        grant(Asked::Probe { key, door }, &[], at_s, outcome)
    }

    /// Created, its primary key renewed, swapped, removed.
    fn good() -> Vec<Grant> {
        use Outcome::{Fail, Ok, Unknown};
        vec![
            grant(Asked::Create, &[0, 1], 1, Ok),
            probe(0, 2, Ok),
            grant(Asked::RenewPrimary, &[2, 1], 3, Ok),
            probe(0, 4, Ok),
            probe(1, 4, Ok),
            probe(2, 4, Ok),
            probe(0, 6, Fail),
            grant(Asked::Swap, &[1, 2], 7, Ok),
            probe(2, 8, Ok),
            probe(2, 8, Unknown),
            grant(Asked::Remove, &[], 9, Ok),
            probe(1, 10, Ok),
            probe(1, 12, Fail),
            probe(2, 12, Fail),
        ]
    }

    #[test]
    fn a_key_that_is_judged_wrongly_is_found() {
        assert!(check(&good()).is_empty(), "{:?}", check(&good()).examples);
        for (place, outcome) in [
            (1, Outcome::Fail),
            (4, Outcome::Fail),
            (5, Outcome::Fail),
            (6, Outcome::Ok),
            (8, Outcome::Fail),
            (12, Outcome::Ok),
            (13, Outcome::Ok),
        ] {
            let mut bad = good();
            bad[place].outcome = outcome;
            assert_eq!(check(&bad).count, 1, "{place}");
        }
    }

    #[test]
    fn a_renewal_that_changes_both_keys_is_found() {
        let mut bad = good();
        bad[2].keys = vec![2, 3];
        bad.truncate(3);
        let found = check(&bad);
        assert!(found.examples[0].what.contains("other key"), "{found:?}");
    }

    #[test]
    fn after_an_unknown_outcome_only_what_has_gone_before_is_known() {
        let mut grants = good();
        grants[7].outcome = Outcome::Unknown;
        grants.truncate(8);
        // Nobody knows which keys the policy has now, if any.
        for key in [1, 2] {
            grants.push(probe(key, 20, Outcome::Ok));
            grants.push(probe(key, 20, Outcome::Fail));
        }
        grants.push(probe(0, 20, Outcome::Fail));
        assert!(check(&grants).is_empty());
        grants.push(probe(0, 21, Outcome::Ok));
        assert_eq!(check(&grants).count, 1, "it was gone before");
        let mut refused = good();
        refused.insert(7, grant(Asked::Remove, &[], 6, Outcome::Fail));
        assert!(check(&refused).is_empty(), "what was refused has changed nothing");
    }
}
