//! The hub's shared access policies, as an operator changes them, and where their keys come from.
//!
//! A key is drawn here and shown once it is in the directory. That a token of a key that went opens nothing any more,
//! and ends what it had opened, is the doors' part.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_model::directory::policies::PolicyChange;
use dunlin_model::directory::{Directory, DirectoryCommand, Policy, Right, first_policies};
use dunlin_model::identity::SymmetricKeys;
use dunlin_model::port::QueryError;
use serde::{Deserialize, Serialize};

use crate::entropy;

/// A shared access policy, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyLine {
    /// What it grants.
    pub rights: Vec<Right>,
    /// Its keys.
    pub keys: SymmetricKeys,
}

/// Which of a policy's keys is to be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyKey {
    /// A new primary key.
    Primary,
    /// A new secondary key.
    Secondary,
    /// Neither: each takes the other's place.
    Swap,
}

/// Those of the directory, by name.
pub(crate) fn list(directory: &Directory) -> BTreeMap<String, PolicyLine> {
    let lines = directory.policies.iter().map(|(name, policy)| {
        let line = PolicyLine {
            rights: policy.rights.clone(),
            keys: policy.keys.clone(),
        };
        (name.clone(), line)
    });
    lines.collect()
}

/// The policies that a hub starts with, with keys that nobody has seen before.
pub(crate) fn draw_first() -> BTreeMap<String, Policy> {
    first_policies(draw_keys)
}

/// One more policy, with new keys.
pub(crate) fn create(name: String, rights: Vec<Right>) -> DirectoryCommand {
    let policy = Policy {
        keys: draw_keys(),
        rights,
    };
    DirectoryCommand::Policy(PolicyChange::Create { name, policy })
}

/// Other keys for policy `name`, as it is in `directory`.
pub(crate) fn renew(
    directory: &Directory,
    name: String,
    which: PolicyKey,
) -> Result<DirectoryCommand, QueryError> {
    let before = known(directory, &name)?.keys.clone();
    let mut after = before.clone();
    match which {
        PolicyKey::Primary => after.primary = draw_key(),
        PolicyKey::Secondary => after.secondary = draw_key(),
        PolicyKey::Swap => std::mem::swap(&mut after.primary, &mut after.secondary),
    }
    Ok(DirectoryCommand::Policy(PolicyChange::Renew {
        name,
        before,
        after,
    }))
}

/// One policy less than there are in `directory`.
pub(crate) fn remove(directory: &Directory, name: String) -> Result<DirectoryCommand, QueryError> {
    known(directory, &name)?;
    Ok(DirectoryCommand::Policy(PolicyChange::Remove { name }))
}

fn known<'a>(directory: &'a Directory, name: &str) -> Result<&'a Policy, QueryError> {
    let known = directory.policies.get(name);
    known.ok_or_else(|| QueryError::Refused(format!("there is no policy '{name}'")))
}

fn draw_keys() -> SymmetricKeys {
    SymmetricKeys {
        primary: draw_key(),
        secondary: draw_key(),
    }
}

fn draw_key() -> String {
    STANDARD.encode(entropy::draw::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_changes_the_key_that_it_names_and_a_swap_both_places() {
        let directory = Directory {
            policies: draw_first(),
            ..Directory::default()
        };
        let before = directory.policies["service"].keys.clone();
        let after = |which| match renew(&directory, "service".into(), which) {
            Ok(DirectoryCommand::Policy(PolicyChange::Renew { after, .. })) => after,
            other => panic!("{other:?}"),
        };
        let primary = after(PolicyKey::Primary);
        assert!(primary.primary != before.primary && primary.secondary == before.secondary);
        let secondary = after(PolicyKey::Secondary);
        assert!(secondary.primary == before.primary && secondary.secondary != before.secondary);
        let swapped = after(PolicyKey::Swap);
        assert_eq!(
            (swapped.primary, swapped.secondary),
            (before.secondary, before.primary)
        );
        assert!(renew(&directory, "nobody".into(), PolicyKey::Swap).is_err());
        assert!(remove(&directory, "nobody".into()).is_err());
    }
}
