//! Changes of the hub's shared access policies.
//!
//! Each says what shall be, so that one whose answer was lost can be made again. Who may ask for a change, and where
//! keys come from, is decided elsewhere; what a policy opens, in [`super::Policy::grants`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DirectoryRefusal, POLICIES_MAX, Policy, is_plain_name};
use crate::identity::SymmetricKeys;

/// Characters of a policy's name.
pub const POLICY_NAME_CHARS_MAX: usize = 64;

/// A change of the policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PolicyChange {
    /// One more; refused if there is another with this name.
    Create {
        /// 1 to [`POLICY_NAME_CHARS_MAX`] letters, digits and `-._`.
        name: String,
        /// Keys, and one right at least.
        policy: Policy,
    },
    /// Other keys; refused unless those that it has are the ones that these are to follow.
    Renew {
        /// Which.
        name: String,
        /// The keys as they were when somebody decided to change them.
        before: SymmetricKeys,
        /// The keys from now on.
        after: SymmetricKeys,
    },
    /// One less, if it is there.
    Remove {
        /// Which.
        name: String,
    },
}

/// Makes `change`, or says why not.
pub(super) fn apply(
    policies: &mut BTreeMap<String, Policy>,
    change: PolicyChange,
) -> Result<(), DirectoryRefusal> {
    match change {
        PolicyChange::Create { name, policy } => {
            check_name(&name)?;
            if policy.rights.is_empty() {
                return Err(DirectoryRefusal::Invalid(
                    "a policy grants one right at least".into(),
                ));
            }
            match policies.get(&name) {
                Some(known) if *known == policy => {}
                Some(_) => {
                    let reason = format!("there is a policy '{name}' already");
                    return Err(DirectoryRefusal::Invalid(reason));
                }
                None if policies.len() >= POLICIES_MAX => {
                    return Err(DirectoryRefusal::LimitReached(format!("{POLICIES_MAX} policies")));
                }
                None => {
                    policies.insert(name, policy);
                }
            }
        }
        PolicyChange::Renew { name, before, after } => {
            let policy = policies.get_mut(&name).ok_or_else(|| unknown(&name))?;
            if policy.keys != before && policy.keys != after {
                let reason = format!("the keys of policy '{name}' were changed meanwhile");
                return Err(DirectoryRefusal::Invalid(reason));
            }
            policy.keys = after;
        }
        PolicyChange::Remove { name } => {
            policies.remove(&name);
        }
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), DirectoryRefusal> {
    if !is_plain_name(name, POLICY_NAME_CHARS_MAX) {
        return Err(DirectoryRefusal::Invalid(format!(
            "the name of a policy is 1 to {POLICY_NAME_CHARS_MAX} letters, digits and -._"
        )));
    }
    Ok(())
}

fn unknown(name: &str) -> DirectoryRefusal {
    DirectoryRefusal::Invalid(format!("there is no policy '{name}'"))
}

#[cfg(test)]
mod tests {
    use super::super::Right;
    use super::*;

    fn keys(primary: &str) -> SymmetricKeys {
        SymmetricKeys {
            primary: primary.into(),
            secondary: "s".into(),
        }
    }

    fn create(name: &str, primary: &str) -> PolicyChange {
        PolicyChange::Create {
            name: name.into(),
            policy: Policy {
                keys: keys(primary),
                rights: vec![Right::ServiceConnect],
            },
        }
    }

    #[test]
    fn a_change_that_is_made_again_is_the_same_change_and_another_is_refused() {
        let mut policies = BTreeMap::new();
        for _ in 0..2 {
            assert_eq!(apply(&mut policies, create("a", "1")), Ok(()));
        }
        assert!(
            apply(&mut policies, create("a", "2")).is_err(),
            "another of the name"
        );
        let renew = |before: &str, after: &str| PolicyChange::Renew {
            name: "a".into(),
            before: keys(before),
            after: keys(after),
        };
        for _ in 0..2 {
            assert_eq!(apply(&mut policies, renew("1", "2")), Ok(()));
        }
        assert!(
            apply(&mut policies, renew("1", "3")).is_err(),
            "somebody was faster"
        );
        assert_eq!(policies["a"].keys, keys("2"));
        let remove = || PolicyChange::Remove { name: "a".into() };
        for _ in 0..2 {
            assert_eq!(apply(&mut policies, remove()), Ok(()));
        }
        assert!(policies.is_empty());
    }

    #[test]
    fn names_rights_and_numbers_have_their_bounds() {
        let mut policies = BTreeMap::new();
        let long = "n".repeat(POLICY_NAME_CHARS_MAX);
        for (name, is_good) in [
            (long.as_str(), true),
            ("", false),
            ("a b", false),
            (&format!("{long}n"), false),
        ] {
            assert_eq!(apply(&mut policies, create(name, "1")).is_ok(), is_good, "{name}");
        }
        let policy = Policy {
            keys: keys("1"),
            rights: Vec::new(),
        };
        let name = "nothing".to_owned();
        assert!(apply(&mut policies, PolicyChange::Create { name, policy }).is_err());
        for number in policies.len()..POLICIES_MAX {
            assert_eq!(apply(&mut policies, create(&number.to_string(), "1")), Ok(()));
        }
        let full = apply(&mut policies, create("more", "1"));
        assert!(matches!(full, Err(DirectoryRefusal::LimitReached(_))), "{full:?}");
    }
}
