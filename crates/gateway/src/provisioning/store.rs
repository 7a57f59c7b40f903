//! Where enrolments are kept: individual ones in the shard of their registration id, groups in the directory.

use bytes::Bytes;
use dunlin_model::command::{Command, Consistency, Outcome, Query, View};
use dunlin_model::id::ShardId;
use dunlin_model::identity::Condition;
use dunlin_model::provisioning::book::{BookChange, GROUP_NAME_CHARS_MAX};
use dunlin_model::provisioning::{Enrollment, EnrollmentSpec, Registration, RegistrationId};

use super::attest;
use super::error::{ProvisioningCode, ProvisioningError};
use crate::shared::Shared;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of one device.
    Individual,
    /// Of many.
    Group,
}

/// The name of an enrolment, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Individual(RegistrationId),
    Group(String),
}

/// An enrolment, with its registration if it is of one device.
pub(crate) type Found = (Enrollment, Option<Registration>);

impl Kind {
    /// Checks a name.
    pub(crate) fn name(self, text: &str) -> Result<Name, ProvisioningError> {
        match self {
            Kind::Individual => RegistrationId::parse(text)
                .map(Name::Individual)
                .map_err(|error| ProvisioningError::invalid(error.to_string())),
            Kind::Group => {
                let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
                if text.is_empty() || text.len() > GROUP_NAME_CHARS_MAX || !text.chars().all(is_allowed) {
                    return Err(ProvisioningError::invalid(format!(
                        "the name of a group has 1 to {GROUP_NAME_CHARS_MAX} letters, digits and -._:"
                    )));
                }
                Ok(Name::Group(text.to_owned()))
            }
        }
    }

    /// Whether it is a group.
    pub(crate) fn is_group(self) -> bool {
        self == Kind::Group
    }
}

/// An enrolment as it is now.
pub(crate) async fn find(shared: &Shared, name: &Name) -> Result<Option<Found>, ProvisioningError> {
    match name {
        Name::Individual(id) => {
            let view = attest::view(shared, id).await?;
            Ok(view.enrollment.map(|enrollment| (enrollment, view.registration)))
        }
        Name::Group(name) => {
            let directory = shared.client.directory_now().await?;
            Ok(directory.book.group(name).map(|group| (group.clone(), None)))
        }
    }
}

/// The same of one that must be there.
pub(crate) async fn get(shared: &Shared, name: &Name) -> Result<Found, ProvisioningError> {
    find(shared, name).await?.ok_or_else(|| {
        ProvisioningError::new(
            ProvisioningCode::EnrollmentNotFound,
            "the enrollment does not exist",
        )
    })
}

/// Makes or changes an enrolment.
pub(crate) async fn put(
    shared: &Shared,
    name: &Name,
    spelled: &str,
    spec: EnrollmentSpec,
    condition: Condition,
) -> Result<(), ProvisioningError> {
    match name {
        Name::Individual(id) => {
            let command = Command::EnrollmentPut {
                id: id.clone(),
                name: spelled.to_owned(),
                spec: Box::new(spec),
                condition,
            };
            match shared.client.submit(command).await? {
                Outcome::Kept { .. } => Ok(()),
                Outcome::Refused(refusal) => Err(refusal.into()),
                _ => Err(ProvisioningError::internal()),
            }
        }
        Name::Group(name) => {
            let change = BookChange::GroupPut {
                name: name.clone(),
                spec: Box::new(spec),
                condition,
                mark: rand::random(),
                now_ms: shared.now_ms(),
            };
            Ok(shared.client.change_book(change).await?)
        }
    }
}

/// Removes an enrolment; of one device with its registration.
pub(crate) async fn delete(
    shared: &Shared,
    name: &Name,
    condition: Condition,
) -> Result<(), ProvisioningError> {
    match name {
        Name::Individual(id) => {
            let command = Command::EnrollmentDelete {
                id: id.clone(),
                condition,
            };
            done(shared, command).await
        }
        Name::Group(name) => {
            let change = BookChange::GroupDelete {
                name: name.clone(),
                condition,
            };
            Ok(shared.client.change_book(change).await?)
        }
    }
}

/// Forgets a registration.
pub(crate) async fn delete_registration(
    shared: &Shared,
    id: RegistrationId,
    condition: Condition,
) -> Result<(), ProvisioningError> {
    done(shared, Command::RegistrationDelete { id, condition }).await
}

async fn done(shared: &Shared, command: Command) -> Result<(), ProvisioningError> {
    match shared.client.submit(command).await? {
        Outcome::Done => Ok(()),
        Outcome::Refused(refusal) => Err(refusal.into()),
        _ => Err(ProvisioningError::internal()),
    }
}

/// A place in a listing over all shards.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) shard: u32,
    pub(crate) after: Bytes,
}

/// What is listed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listing<'a> {
    Enrollments,
    /// Registrations under this group.
    Registrations(&'a str),
}

/// One row of a listing.
#[derive(Debug)]
pub(crate) enum Row {
    Enrollment(Box<Found>),
    Registration(Box<Registration>),
}

/// A page of a listing over all shards, in their order, and where the next one begins.
pub(crate) async fn page(
    shared: &Shared,
    listing: Listing<'_>,
    mut place: Place,
    count_max: usize,
) -> Result<(Vec<Row>, Option<Place>), ProvisioningError> {
    let shard_count = shared.client.directory().shard_count;
    let mut rows = Vec::new();
    while place.shard < shard_count {
        if rows.len() >= count_max {
            return Ok((rows, Some(place)));
        }
        let (shard, after) = (ShardId(place.shard), std::mem::take(&mut place.after));
        let count_max = count_max - rows.len();
        let query = match listing {
            Listing::Enrollments => Query::Enrollments {
                shard,
                after,
                count_max,
            },
            Listing::Registrations(group) => Query::Registrations {
                shard,
                group: group.to_owned(),
                after,
                count_max,
            },
        };
        let next = match shared.client.query(query, Consistency::Linearizable).await? {
            View::Enrollments { found, next } => {
                rows.extend(found.into_iter().map(|found| Row::Enrollment(Box::new(found))));
                next
            }
            View::Registrations { found, next } => {
                rows.extend(found.into_iter().map(|found| Row::Registration(Box::new(found))));
                next
            }
            _ => return Err(ProvisioningError::internal()),
        };
        match next {
            Some(next) => place.after = next,
            None => place.shard += 1,
        }
    }
    Ok((rows, None))
}
