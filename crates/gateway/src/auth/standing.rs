//! What a session that is open rests on besides its device, and the moment when that falls: a policy whose key is
//! rolled or that is removed, an authority that the hub trusts no more.
//!
//! A device's own key or certificate is not here: changing it changes the device's generation, and its shard ends the
//! session. Nothing here looks at a token's time, which is its session's. A gateway that hears nothing of the directory
//! learns of a change when it hears of it again; meanwhile it admits nobody.

use std::sync::Arc;

use dunlin_model::directory::{Directory, Right};
use dunlin_model::port::ShardClient;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::{KeyForm, Principal, SasToken, Shown, signing_key};
use crate::limits::STANDING_LOOK;
use crate::shared::Shared;

/// What a credential was good by.
pub(crate) enum RestsOn {
    /// Nothing in the directory.
    Itself,
    /// A key of a policy, and the right that the policy grants.
    Policy(Principal, Right),
    /// Certificates, as they were in force at a time (seconds since 1970), below an authority of the hub.
    Authority { shown: Shown, at_s: u64 },
    /// What has changed already since it was found good.
    Fallen,
}

impl RestsOn {
    /// What `token` rests on, which names a policy and counted for `right` just now.
    pub(crate) fn of_policy(token: &SasToken<'_>, directory: &Directory, right: Right) -> Self {
        let name = token.policy.as_deref().unwrap_or_default();
        let policy = directory.policies.get(name);
        let key = policy.and_then(|policy| signing_key(token, &policy.keys, KeyForm::Decoded));
        key.map_or(Self::Fallen, |key| {
            Self::Policy(Principal::new(name.to_owned(), key), right)
        })
    }

    fn stands(&self, directory: &Directory) -> bool {
        match self {
            Self::Itself => true,
            Self::Policy(principal, right) => principal.is_good(directory, *right),
            Self::Authority { shown, at_s } => shown.verify_chain(&directory.authorities, *at_s).is_ok(),
            Self::Fallen => false,
        }
    }
}

/// Told when what sessions rest on has changed: policies, and authorities, each by itself, since it costs more to look
/// whether certificates still count.
#[derive(Debug, Default)]
pub(crate) struct StandingChanges {
    policies: watch::Sender<()>,
    authorities: watch::Sender<()>,
}

/// The watch over one session's ground.
pub(crate) struct Standing {
    rests_on: RestsOn,
    client: Arc<dyn ShardClient>,
    changes: watch::Receiver<()>,
    is_unchecked: bool,
}

impl Standing {
    /// Watches from now on; a change since the credential was verified is seen.
    pub(crate) fn new(shared: &Shared, rests_on: RestsOn) -> Self {
        let changes = match &rests_on {
            RestsOn::Authority { .. } => &shared.standing_changes.authorities,
            RestsOn::Itself | RestsOn::Policy(..) | RestsOn::Fallen => &shared.standing_changes.policies,
        };
        Self {
            rests_on,
            client: Arc::clone(&shared.client),
            changes: changes.subscribe(),
            is_unchecked: true,
        }
    }

    /// Resolves when the ground has fallen; never if there is none. May be dropped and called again.
    pub(crate) async fn fallen(&mut self) {
        if matches!(self.rests_on, RestsOn::Itself) {
            return std::future::pending().await;
        }
        loop {
            if std::mem::take(&mut self.is_unchecked) && !self.rests_on.stands(&self.client.directory()) {
                return;
            }
            if self.changes.changed().await.is_err() {
                return std::future::pending().await;
            }
            self.is_unchecked = true;
        }
    }
}

/// Tells every [`Standing`] when policies or authorities have changed, as long as the gateway runs.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    shared.spawn_until_draining(run);
}

async fn run(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(STANDING_LOOK);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = shared.client.directory();
    loop {
        clock.tick().await;
        let now = shared.client.directory();
        if Arc::ptr_eq(&now, &seen) {
            continue;
        }
        if now.policies != seen.policies {
            shared.standing_changes.policies.send_replace(());
        }
        if now.authorities != seen.authorities {
            shared.standing_changes.authorities.send_replace(());
        }
        seen = now;
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::directory::Policy;
    use dunlin_model::identity::SymmetricKeys;

    use super::super::sign;
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn directory(primary: &str, secondary: &str, rights: &[Right]) -> Directory {
        let policy = Policy {
            keys: SymmetricKeys {
                primary: primary.into(),
                secondary: secondary.into(),
            },
            rights: rights.to_vec(),
        };
        Directory {
            policies: [("device".to_owned(), policy)].into(),
            ..Directory::default()
        }
    }

    #[test]
    fn a_policy_carries_a_session_as_long_as_it_has_the_key_and_the_right() {
        let text = sign("hub.example/devices/d", KEY, 9, Some("device")).unwrap();
        let token = SasToken::parse(&text).unwrap();
        let right = Right::DeviceConnect;
        let rests_on = RestsOn::of_policy(&token, &directory(OTHER, KEY, &[right]), right);
        assert!(rests_on.stands(&directory(OTHER, KEY, &[right])));
        assert!(
            rests_on.stands(&directory(KEY, OTHER, &[right])),
            "keys that were swapped"
        );
        assert!(!rests_on.stands(&directory(OTHER, OTHER, &[right])), "rolled");
        assert!(!rests_on.stands(&directory(KEY, KEY, &[Right::ServiceConnect])));
        assert!(!rests_on.stands(&Directory::default()), "removed");
        let late = RestsOn::of_policy(&token, &directory(OTHER, OTHER, &[right]), right);
        assert!(!late.stands(&directory(OTHER, KEY, &[right])), "fallen before");
    }
}
