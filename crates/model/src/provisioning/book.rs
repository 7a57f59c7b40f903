//! What the whole cluster must know of provisioning: enrolment groups, and the hubs that devices may be sent to.
//!
//! Part of the [`Directory`](crate::directory::Directory), so everything in it is bounded: every node has a copy, and
//! each change sends it whole. Devices' own enrolments and registrations are never here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ENROLLMENT_BYTES_MAX, Enrollment, EnrollmentSpec};
use crate::identity::Condition;

/// Enrolment groups (DPS: 100 with certificates, and 100 with keys).
pub const GROUPS_MAX: usize = 200;
/// Linked hubs, this one not counted (DPS: 50).
pub const LINKED_HUBS_MAX: usize = 50;
/// Highest weight of a linked hub.
pub const WEIGHT_MAX: u32 = 1000;
/// Bytes of the whole book as JSON: what texts are escaped to counts as well.
pub const BOOK_BYTES_MAX: usize = 1536 * 1024;
/// Characters of a group's name.
pub const GROUP_NAME_CHARS_MAX: usize = 128;

// The directory with all of it fits one message between nodes.
const _: () = assert!(BOOK_BYTES_MAX + 1024 * 1024 <= crate::limits::WIRE_FRAME_BYTES_MAX);

/// Another hub, where devices may be provisioned.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkedHub {
    /// Its connection string with the policy that may write its registry and its twins.
    pub connection_string: String,
    /// Certificates (PEM) of who vouches for it, if not those whom the system trusts.
    pub authority: Option<String>,
    /// Its share, 1 to [`WEIGHT_MAX`].
    pub weight: u32,
}

impl std::fmt::Debug for LinkedHub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinkedHub(weight {}, ..)", self.weight)
    }
}

/// Enrolment groups and linked hubs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// Groups by name, in lower case: case does not count.
    groups: BTreeMap<String, Group>,
    /// Linked hubs by host name, in lower case.
    pub hubs: BTreeMap<String, LinkedHub>,
    /// Share of this hub itself; 0 keeps devices off it.
    pub own_weight: u32,
    /// The version that the next change of a group gets.
    next_version: u64,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            groups: BTreeMap::new(),
            hubs: BTreeMap::new(),
            own_weight: 1,
            next_version: 1,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    enrollment: Enrollment,
    /// Of the change that made it what it is: a change whose answer was lost is sent again, and must not find itself
    /// in the way.
    mark: u64,
}

/// A change of the book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum BookChange {
    /// Makes or changes a group.
    GroupPut {
        /// Its name, as the operator spells it.
        name: String,
        /// What it says.
        spec: Box<EnrollmentSpec>,
        /// When.
        condition: Condition,
        /// Drawn anew for each change.
        mark: u64,
        /// Now, milliseconds since 1970.
        now_ms: u64,
    },
    /// Removes a group. Registrations under it stay.
    GroupDelete {
        /// Its name.
        name: String,
        /// When.
        condition: Condition,
    },
    /// Links a hub, or links it in another way.
    HubPut {
        /// Its host name.
        host: String,
        /// How it is reached.
        hub: LinkedHub,
    },
    /// Sends nobody there any more. Who is there stays.
    HubRemove {
        /// Its host name.
        host: String,
    },
    /// The share of this hub itself: 0 to [`WEIGHT_MAX`].
    OwnWeight(u32),
}

/// Why the book was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BookRefusal {
    /// There is no such group or hub.
    #[error("there is none of that name")]
    Unknown,
    /// The group exists, but should not.
    #[error("it is there already")]
    AlreadyExists,
    /// The group is in another version.
    #[error("the version does not match")]
    VersionMismatch,
    /// A bound is reached.
    #[error("a limit is reached: {0}")]
    LimitReached(String),
}

impl Book {
    /// The group of this name, in any case.
    pub fn group(&self, name: &str) -> Option<&Enrollment> {
        let group = self.groups.get(&name.to_ascii_lowercase())?;
        Some(&group.enrollment)
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = &Enrollment> {
        self.groups.values().map(|group| &group.enrollment)
    }

    /// Makes a change, or refuses it as a whole.
    pub fn apply(&mut self, change: BookChange) -> Result<(), BookRefusal> {
        let mut changed = self.clone();
        changed.change(change)?;
        let json = serde_json::to_vec(&changed).expect("a book is plain data");
        if json.len() > BOOK_BYTES_MAX {
            return Err(BookRefusal::LimitReached(format!(
                "enrollment groups and linked hubs have {BOOK_BYTES_MAX} bytes together"
            )));
        }
        *self = changed;
        Ok(())
    }

    fn change(&mut self, change: BookChange) -> Result<(), BookRefusal> {
        match change {
            BookChange::GroupPut {
                name,
                spec,
                condition,
                mark,
                now_ms,
            } => self.put_group(name, *spec, condition, (mark, now_ms)),
            BookChange::GroupDelete { name, condition } => {
                let key = name.to_ascii_lowercase();
                let version = self.groups.get(&key).map(|group| group.enrollment.version);
                check_removal(condition, version)?;
                self.groups.remove(&key);
                Ok(())
            }
            BookChange::HubPut { host, hub } => {
                let key = host.to_ascii_lowercase();
                if self.hubs.len() >= LINKED_HUBS_MAX && !self.hubs.contains_key(&key) {
                    return Err(BookRefusal::LimitReached(format!(
                        "{LINKED_HUBS_MAX} linked hubs"
                    )));
                }
                if !(1..=WEIGHT_MAX).contains(&hub.weight) {
                    return Err(BookRefusal::LimitReached(format!(
                        "a linked hub has a weight of 1 to {WEIGHT_MAX}"
                    )));
                }
                self.hubs.insert(key, hub);
                Ok(())
            }
            BookChange::HubRemove { host } => {
                let removed = self.hubs.remove(&host.to_ascii_lowercase());
                removed.map(|_| ()).ok_or(BookRefusal::Unknown)
            }
            BookChange::OwnWeight(weight) if weight > WEIGHT_MAX => Err(BookRefusal::LimitReached(format!(
                "a weight is 0 to {WEIGHT_MAX}"
            ))),
            BookChange::OwnWeight(weight) => {
                self.own_weight = weight;
                Ok(())
            }
        }
    }

    fn put_group(
        &mut self,
        name: String,
        spec: EnrollmentSpec,
        condition: Condition,
        (mark, now_ms): (u64, u64),
    ) -> Result<(), BookRefusal> {
        let key = name.to_ascii_lowercase();
        let known = self.groups.get(&key);
        if known.is_some_and(|group| group.mark == mark) {
            return Ok(());
        }
        check(condition, known.map(|group| group.enrollment.version))?;
        let is_full = self.groups.len() >= GROUPS_MAX && known.is_none();
        if is_full || spec.bytes() > ENROLLMENT_BYTES_MAX {
            return Err(BookRefusal::LimitReached(format!(
                "{GROUPS_MAX} enrollment groups, {ENROLLMENT_BYTES_MAX} bytes each"
            )));
        }
        let first = known.map(|group| (group.enrollment.name.clone(), group.enrollment.created_ms));
        let (name, created_ms) = first.unwrap_or((name, now_ms));
        let enrollment = Enrollment {
            name,
            spec,
            version: self.next_version,
            created_ms,
            updated_ms: now_ms,
        };
        self.next_version += 1;
        self.groups.insert(key, Group { enrollment, mark });
        Ok(())
    }
}

/// Whether `condition` holds for what is in `version`, if it is there.
pub(crate) fn check(condition: Condition, version: Option<u64>) -> Result<(), BookRefusal> {
    match (condition, version) {
        (Condition::Any, _) | (Condition::Absent, None) | (Condition::Present, Some(_)) => Ok(()),
        (Condition::Absent, Some(_)) => Err(BookRefusal::AlreadyExists),
        (Condition::Present | Condition::Version(_), None) => Err(BookRefusal::Unknown),
        (Condition::Version(asked), Some(version)) if asked == version => Ok(()),
        (Condition::Version(_), Some(_)) => Err(BookRefusal::VersionMismatch),
    }
}

/// The same of what is to be removed: what is not there is unknown, whatever the condition.
pub(crate) fn check_removal(condition: Condition, version: Option<u64>) -> Result<(), BookRefusal> {
    check(condition, Some(version.ok_or(BookRefusal::Unknown)?))
}

#[cfg(test)]
mod tests {
    use super::super::{Attestation, Pair};
    use super::*;
    use crate::identity::SymmetricKeys;

    fn spec() -> EnrollmentSpec {
        EnrollmentSpec::enabled(Attestation::SymmetricKey(SymmetricKeys::default()))
    }

    fn put(name: &str, condition: Condition, mark: u64) -> BookChange {
        BookChange::GroupPut {
            name: name.into(),
            spec: Box::new(spec()),
            condition,
            mark,
            now_ms: mark,
        }
    }

    #[test]
    fn groups_are_made_changed_and_removed_by_their_version() {
        let mut book = Book::default();
        assert_eq!(book.apply(put("Plant", Condition::Absent, 1)), Ok(()));
        assert_eq!(
            book.apply(put("Plant", Condition::Absent, 1)),
            Ok(()),
            "the answer was lost"
        );
        let exists = Err(BookRefusal::AlreadyExists);
        assert_eq!(book.apply(put("plant", Condition::Absent, 2)), exists);
        let group = book.group("PLANT").expect("the group").clone();
        assert_eq!(
            (group.name.as_str(), group.version, group.created_ms),
            ("Plant", 1, 1)
        );
        assert_eq!(book.apply(put("plant", Condition::Version(1), 3)), Ok(()));
        let mismatch = Err(BookRefusal::VersionMismatch);
        assert_eq!(book.apply(put("plant", Condition::Version(1), 4)), mismatch);
        let group = book.group("plant").expect("the group");
        assert_eq!((group.name.as_str(), group.version), ("Plant", 2));
        assert_eq!((group.created_ms, group.updated_ms), (1, 3));
        let delete = |version| BookChange::GroupDelete {
            name: "plant".into(),
            condition: Condition::Version(version),
        };
        assert_eq!(book.apply(delete(1)), mismatch);
        assert_eq!(book.apply(delete(2)), Ok(()));
        assert_eq!(book.apply(delete(2)), Err(BookRefusal::Unknown));
        assert_eq!(
            book.apply(put("plant", Condition::Version(2), 5)),
            Err(BookRefusal::Unknown)
        );
        assert_eq!(book.apply(put("plant", Condition::Any, 6)), Ok(()));
        assert_eq!(
            book.group("plant").map(|group| group.version),
            Some(3),
            "none comes again"
        );
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = Book::default();
        for n in 0..GROUPS_MAX as u64 {
            assert_eq!(
                book.apply(put(&format!("g{n}"), Condition::Absent, n + 1)),
                Ok(())
            );
        }
        let full = |result| matches!(result, Err(BookRefusal::LimitReached(_)));
        assert!(full(book.apply(put("more", Condition::Absent, 9_999))));
        let mut book = Book::default();
        let certificate = "x".repeat(ENROLLMENT_BYTES_MAX);
        let large = |n: u64| BookChange::GroupPut {
            name: format!("g{n}"),
            spec: Box::new(EnrollmentSpec::enabled(Attestation::SigningCertificate(Pair {
                primary: Some(certificate.clone()),
                secondary: None,
            }))),
            condition: Condition::Absent,
            mark: n + 1,
            now_ms: 1,
        };
        let count = (BOOK_BYTES_MAX / ENROLLMENT_BYTES_MAX - 1) as u64;
        assert!((0..count).all(|n| book.apply(large(n)) == Ok(())));
        let before = book.clone();
        assert!((count..count + 2).any(|n| full(book.apply(large(n)))));
        assert!(
            book.groups().count() - before.groups().count() <= 1,
            "all or nothing"
        );
        // Six bytes of JSON each.
        let escaped = |bytes: usize| BookChange::GroupPut {
            name: "escaped".into(),
            spec: Box::new(EnrollmentSpec {
                hub: Some("\u{1}".repeat(bytes)),
                ..spec()
            }),
            condition: Condition::Any,
            mark: 7_777,
            now_ms: 1,
        };
        assert!(full(book.apply(escaped(ENROLLMENT_BYTES_MAX))));
        let hub = |weight| LinkedHub {
            connection_string: "c".into(),
            authority: None,
            weight,
        };
        for n in 0..LINKED_HUBS_MAX {
            let host = format!("h{n}");
            assert_eq!(book.apply(BookChange::HubPut { host, hub: hub(1) }), Ok(()));
        }
        for (host, weight) in [("more", 1), ("h1", 0), ("h1", WEIGHT_MAX + 1)] {
            let host = host.to_owned();
            assert!(full(book.apply(BookChange::HubPut {
                host,
                hub: hub(weight)
            })));
        }
        assert!(full(book.apply(BookChange::OwnWeight(WEIGHT_MAX + 1))));
        let remove = || BookChange::HubRemove { host: "H1".into() };
        assert_eq!(book.apply(remove()), Ok(()));
        assert_eq!(book.apply(remove()), Err(BookRefusal::Unknown));
    }
}
