//! The tokens that a connection has shown, and what they open.
//!
//! Decides which links may be there: none without a token that covers it, none beyond its token's time and
//! [`TOKEN_GRACE`], and none whose policy is gone or has other keys. Takes the time and the directory as arguments.
//! How a token comes here is [`cbs`](super::cbs)'s.

use dunlin_model::directory::{Directory, Right};

use crate::auth::{self, AuthError, KeyForm, SasToken, Scope};
use crate::limits::{AMQP_TOKENS_MAX, TOKEN_GRACE};

/// What tokens are judged by.
#[derive(Clone, Copy)]
pub(crate) struct Judge<'a> {
    /// Names of the hub.
    pub(crate) hosts: &'a [String],
    pub(crate) directory: &'a Directory,
    /// Seconds since 1970.
    pub(crate) now_s: u64,
}

/// Why a token was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    /// It does not count.
    #[error(transparent)]
    Refused(#[from] AuthError),
    /// There are [`AMQP_TOKENS_MAX`] for other audiences.
    #[error("a connection shows {AMQP_TOKENS_MAX} tokens at the most")]
    TooMany,
}

#[derive(Debug)]
struct Held {
    audience: String,
    text: String,
    expiry_s: u64,
}

impl Held {
    /// Whether it still counts, for the resource at `path` where there is one.
    fn check(&self, path: &[&str], judge: Judge<'_>) -> Result<(), AuthError> {
        let grace_s = TOKEN_GRACE.as_secs();
        if self.expiry_s.saturating_add(grace_s) <= judge.now_s {
            return Err(AuthError::Expired);
        }
        // Its time was looked at above, with the grace of what is established.
        verify(&self.text, path, Judge { now_s: 0, ..judge })
    }
}

/// See the file.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    held: Vec<Held>,
}

impl Tokens {
    /// Takes a token for `audience`, an address whose host is one of ours, in place of the one before.
    pub(crate) fn put(&mut self, audience: &str, text: &str, judge: Judge<'_>) -> Result<(), TokenError> {
        let bare = audience.split_once("://").map_or(audience, |(_, rest)| rest);
        let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
        if !auth::is_host(judge.hosts, host) {
            return Err(AuthError::WrongScope.into());
        }
        let path: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        verify(text, &path, judge)?;
        let known = self.held.iter().position(|held| held.audience == audience);
        let is_room = known.is_some() || self.held.len() < AMQP_TOKENS_MAX;
        if !is_room {
            return Err(TokenError::TooMany);
        }
        if let Some(known) = known {
            self.held.swap_remove(known);
        }
        self.held.push(Held {
            audience: audience.to_owned(),
            text: text.to_owned(),
            expiry_s: SasToken::parse(text)?.expiry_s,
        });
        Ok(())
    }

    /// Whether one of them covers the resource at `path`.
    pub(crate) fn cover(&self, path: &[&str], judge: Judge<'_>) -> bool {
        self.covering(path, judge).is_some()
    }

    /// The policy of the first that covers the resource at `path`.
    pub(crate) fn covering(&self, path: &[&str], judge: Judge<'_>) -> Option<String> {
        let covers = |held: &&Held| held.check(path, judge).is_ok();
        let token = SasToken::parse(&self.held.iter().find(covers)?.text).ok()?;
        token.policy.map(std::borrow::Cow::into_owned)
    }

    /// Lets go of those that no longer count, and says whether any of those was not just over.
    pub(crate) fn handle_time(&mut self, judge: Judge<'_>) -> bool {
        let mut is_revoked = false;
        self.held.retain(|held| {
            let address = held.audience_address();
            let path = super::node::segments(&address);
            let checked = held.check(&path, judge);
            is_revoked |= checked.is_err_and(|error| error != AuthError::Expired);
            checked.is_ok()
        });
        is_revoked
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }
}

impl Held {
    /// The audience with a scheme, so that its host is not taken for a part of the path.
    fn audience_address(&self) -> String {
        match self.audience.contains("://") {
            true => self.audience.clone(),
            false => format!("sb://{}", self.audience),
        }
    }
}

fn verify(text: &str, path: &[&str], judge: Judge<'_>) -> Result<(), AuthError> {
    let token = SasToken::parse(text)?;
    let scope = Scope {
        hosts: judge.hosts,
        path,
    };
    auth::verify_policy_as(
        &token,
        judge.directory,
        Right::ServiceConnect,
        scope,
        judge.now_s,
        KeyForm::DecodedOrText,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_model::directory::first_policies;
    use dunlin_model::identity::SymmetricKeys;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const OTHER: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    fn directory(key: &str) -> Directory {
        Directory {
            policies: first_policies(|| SymmetricKeys {
                primary: key.into(),
                secondary: key.into(),
            }),
            ..Directory::default()
        }
    }

    fn token(resource: &str, policy: &str) -> String {
        auth::sign(resource, KEY, 1000, Some(policy)).unwrap()
    }

    const AUDIENCE: &str = "sb://hub.example/eh/consumergroups/$Default";
    const PATH: &[&str] = &["eh", "consumergroups", "$Default", "Partitions", "0"];

    #[test]
    fn a_token_opens_what_lies_below_its_audience_until_its_time_and_grace_are_over() {
        let (hosts, directory) = (vec!["hub.example".to_owned()], directory(KEY));
        let at = |now_s| Judge {
            hosts: &hosts,
            directory: &directory,
            now_s,
        };
        let mut tokens = Tokens::default();
        assert!(!tokens.cover(PATH, at(1)));
        assert_eq!(tokens.put(AUDIENCE, &token(AUDIENCE, "service"), at(1)), Ok(()));
        assert!(tokens.cover(PATH, at(1)));
        assert!(!tokens.cover(&["eh"], at(1)), "below, not above");
        assert!(!tokens.cover(&["eh", "consumergroups", "other", "Partitions", "0"], at(1)));
        let over_s = 1000 + TOKEN_GRACE.as_secs();
        assert!(tokens.cover(PATH, at(over_s - 1)) && !tokens.cover(PATH, at(over_s)));
        assert!(!tokens.handle_time(at(over_s)), "over, not revoked");
        assert!(tokens.is_empty());
        let again = tokens.put(AUDIENCE, &token(AUDIENCE, "service"), at(1000));
        assert_eq!(again, Err(AuthError::Expired.into()));
    }

    #[test]
    fn a_rolled_or_removed_policy_takes_its_tokens_with_it() {
        let hosts = vec!["hub.example".to_owned()];
        let (before, after) = (directory(KEY), directory(OTHER));
        let with = |directory| Judge {
            hosts: &hosts,
            directory,
            now_s: 1,
        };
        for later in [&after, &Directory::default()] {
            let mut tokens = Tokens::default();
            tokens
                .put(AUDIENCE, &token(AUDIENCE, "service"), with(&before))
                .unwrap();
            assert!(!tokens.handle_time(with(&before)) && !tokens.is_empty());
            assert!(!tokens.cover(PATH, with(later)));
            assert!(tokens.handle_time(with(later)), "revoked");
            assert!(tokens.is_empty());
        }
    }

    #[test]
    fn hosts_policies_and_resources_that_do_not_fit_are_refused() {
        let (hosts, directory) = (vec!["hub.example".to_owned()], directory(KEY));
        let judge = Judge {
            hosts: &hosts,
            directory: &directory,
            now_s: 1,
        };
        let put = |audience: &str, resource: &str, policy: &str| {
            Tokens::default().put(audience, &token(resource, policy), judge)
        };
        assert_eq!(
            put("https://hub.example:8443", "hub.example:8443", "service"),
            Ok(())
        );
        assert_eq!(put("https://hub.example", "hub.example", "iothubowner"), Ok(()));
        for (audience, resource, policy, error) in [
            ("https://other", "hub.example", "service", AuthError::WrongScope),
            ("https://hub.example", "other", "service", AuthError::WrongScope),
            (
                "sb://hub.example/a",
                "sb://hub.example/b",
                "service",
                AuthError::WrongScope,
            ),
            (
                "https://hub.example",
                "hub.example",
                "device",
                AuthError::MissingRight,
            ),
            (
                "https://hub.example",
                "hub.example",
                "nobody",
                AuthError::UnknownPolicy,
            ),
        ] {
            assert_eq!(
                put(audience, resource, policy),
                Err(error.into()),
                "{audience} {policy}"
            );
        }
    }

    #[test]
    fn there_are_not_many_and_a_newer_one_takes_the_place_of_its_like() {
        let (hosts, directory) = (vec!["hub.example".to_owned()], directory(KEY));
        let judge = Judge {
            hosts: &hosts,
            directory: &directory,
            now_s: 1,
        };
        let text = token("hub.example", "service");
        let mut tokens = Tokens::default();
        for number in 0..AMQP_TOKENS_MAX {
            tokens
                .put(&format!("sb://hub.example/{number}"), &text, judge)
                .unwrap();
        }
        assert_eq!(tokens.put("sb://hub.example/0", &text, judge), Ok(()));
        assert_eq!(
            tokens.put("sb://hub.example/more", &text, judge),
            Err(TokenError::TooMany)
        );
    }
}
