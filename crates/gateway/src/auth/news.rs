//! Policies, and keys of them, that this gateway has not heard of yet.
//!
//! A gateway judges tokens by its copy of the directory, which is of a moment ago. So before a token of a policy is called
//! wrong, the directory is asked as it is now: a policy that was created, or a key that was renewed, counts at once
//! everywhere. Never decides whether a token counts; whoever judges looks at the copy afterwards. That what is gone opens
//! nothing any more follows from how soon a copy is too old ([`ShardClient::is_fresh`]).
//!
//! [`ShardClient::is_fresh`]: dunlin_model::port::ShardClient::is_fresh

use dunlin_model::directory::Directory;

use super::{KeyForm, SasToken, verify_keys};
use crate::shared::Shared;

/// Has this gateway's copy be of now if `token` is of a policy and does not count by the copy that there is.
pub(crate) async fn hear(shared: &Shared, token: &SasToken<'_>) {
    if may_be_new(token, &shared.client.directory()) {
        hear_all(shared).await;
    }
}

/// Has this gateway's copy be of now. Where nobody can say what is now, it stays as it is, and is soon too old.
pub(crate) async fn hear_all(shared: &Shared) {
    let _ = shared.client.directory_now().await;
}

/// Whether a policy, or a key of it, that `directory` lacks may have signed `token`.
fn may_be_new(token: &SasToken<'_>, directory: &Directory) -> bool {
    let Some(name) = token.policy.as_deref() else {
        return false;
    };
    let policy = directory.policies.get(name);
    policy.is_none_or(|policy| verify_keys(token, &policy.keys, KeyForm::DecodedOrText).is_err())
}

#[cfg(test)]
mod tests {
    use dunlin_model::directory::first_policies;
    use dunlin_model::identity::SymmetricKeys;

    use super::super::sign;
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    #[test]
    fn only_a_policy_and_a_key_that_are_not_known_may_be_new() {
        let directory = Directory {
            policies: first_policies(|| SymmetricKeys {
                primary: KEY.into(),
                secondary: KEY.into(),
            }),
            ..Directory::default()
        };
        for (key, policy, may_be) in [
            (KEY, Some("service"), false),
            (OTHER, Some("service"), true),
            (KEY, Some("made-since"), true),
            (OTHER, None, false),
        ] {
            let text = sign("hub.example", key, 9, policy).unwrap();
            let token = SasToken::parse(&text).unwrap();
            assert_eq!(may_be_new(&token, &directory), may_be, "{policy:?}");
        }
    }
}
