//! SASL PLAIN (RFC 4616): a user and a password in one token.

use super::limits::REQUEST_BYTES_FIRST;

/// The mechanism, as clients name it.
pub(crate) const MECHANISM: &str = "PLAIN";

/// Who somebody says to be. Whether it counts is the backend's to say.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Shows nothing of the password.
impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shown({:?})", self.user)
    }
}

/// Reads `[authzid] NUL authcid NUL passwd`. Nobody acts for somebody else here, so the first is empty or the second.
pub(crate) fn read(token: &[u8]) -> Option<Shown> {
    if token.len() > REQUEST_BYTES_FIRST {
        return None;
    }
    let mut parts = std::str::from_utf8(token).ok()?.split('\0');
    let (acts_for, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let is_sound = parts.next().is_none() && !user.is_empty() && (acts_for.is_empty() || acts_for == user);
    is_sound.then(|| Shown {
        user: user.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_or_refused() {
        let shown = Some(Shown {
            user: "u".into(),
            password: "p=;".into(),
        });
        assert_eq!(read(b"\0u\0p=;"), shown);
        assert_eq!(read(b"u\0u\0p=;"), shown);
        for token in [
            &b""[..],
            b"u",
            b"\0u",
            b"\0\0p",
            b"v\0u\0p",
            b"\0u\0p\0",
            b"\0u\0\xff",
        ] {
            assert_eq!(read(token), None, "{token:?}");
        }
        assert!(!format!("{shown:?}").contains("p=;"));
    }
}
