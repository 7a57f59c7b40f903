//! Device provisioning, as Azure's DPS does it: a device that nobody knows yet proves that it may register, is made known
//! to a hub, and is told which.
//!
//! It runs in whatever gateway the device came to and keeps nothing there: an enrolment is read, the hub's registry and
//! twin are written, the registration is stored as one command, and only then is a device removed where it was. Each step
//! can be done again, so a gateway that dies in the midst of it leaves nothing behind that the device's next attempt would
//! not mend. A registration is answered at once: no device has to come back and ask.
//!
//! [`attest`] says who may, [`assign`] carries it out at a [`hub`], `choose` finds the hub, `webhook` asks somebody else
//! for one, `possession` knows what a TPM has to prove. What services write is read in [`json`] and kept by [`store`]. The
//! doors are `mqtt::provisioning` and `http::registrations`.

pub(crate) mod answer;
pub(crate) mod assign;
pub(crate) mod attest;
mod choose;
pub(crate) mod error;
pub(crate) mod hub;
pub(crate) mod json;
mod possession;
pub(crate) mod store;
pub mod tpm;
pub(crate) mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;

use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Directory;
use dunlin_model::provisioning::{Registration, Substatus};
use serde_json::Value;
use tokio::time::timeout;

use crate::auth::Shown;
use crate::http::{claimed, write_audit};
use crate::limits::{PROVISIONING_ATTEMPTS_MAX, PROVISIONING_WAIT};
use crate::shared::Shared;
use assign::Assigned;
use attest::{Attested, NotAttested};
pub use error::ProvisioningCode;
use error::ProvisioningError;

pub(crate) use choose::Latencies;
pub(crate) use possession::{Pending, TpmShown};

/// Hexadecimal digits of an id scope behind its prefix.
const ID_SCOPE_DIGITS: usize = 8;

/// The name of this cluster's provisioning service, as devices say it: it follows from the cluster's id.
pub fn id_scope(directory: &Directory) -> String {
    let digits: String = directory.cluster_id.chars().take(ID_SCOPE_DIGITS).collect();
    format!("0ne{}", digits.to_ascii_uppercase())
}

/// Somebody who wants to register, with what it shows.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    /// The id scope that it names.
    pub(crate) scope: &'a str,
    /// Its registration id, as it spells it.
    pub(crate) name: &'a str,
    /// A token; it counts where there is one.
    pub(crate) token: Option<&'a str>,
    /// The certificates of its connection.
    pub(crate) shown: Option<&'a Shown>,
    /// The keys of its TPM.
    pub(crate) tpm: Option<TpmShown>,
    /// Where it comes from.
    pub(crate) peer: Option<SocketAddr>,
}

/// What comes of a registration.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The device is known at its hub.
    Assigned(Box<Attested>, Box<Registration>),
    /// The enrolment lets nobody in now.
    Disabled(Box<Attested>),
    /// The enrolment leads nowhere.
    Failed(Box<Attested>, ProvisioningError),
}

/// Registers a device. Errors are those of its request, or pass with time; what is wrong with its enrolment is an
/// [`Answer`].
pub(crate) async fn register(
    shared: &Arc<Shared>,
    asked: &Asked<'_>,
    payload: Option<&Value>,
) -> Result<Answer, ProvisioningError> {
    let registering = async {
        for _ in 0..PROVISIONING_ATTEMPTS_MAX {
            let attested = admit(shared, asked).await?;
            // Only those who may register keep others waiting.
            let Ok(_permit) = shared.provisioning.try_acquire() else {
                return Err(ProvisioningError::new(
                    ProvisioningCode::Throttled,
                    "too many devices register at this gateway",
                ));
            };
            if !attested.enrollment.spec.is_enabled {
                let now = shared.client.directory_now().await?;
                if !assign::is_current(&now, &attested) {
                    continue;
                }
                refuse(shared, asked, "the enrollment is disabled").await;
                return Ok(Answer::Disabled(Box::new(attested)));
            }
            match assign::assign(shared, &attested, payload).await {
                Ok(Assigned::Kept {
                    registration,
                    is_news,
                }) => {
                    // One device that comes again and again must not wash out what others did.
                    if is_news {
                        audit(shared, asked, &attested, &registration).await;
                    }
                    return Ok(Answer::Assigned(Box::new(attested), registration));
                }
                Ok(Assigned::Changed) => {}
                // Not the enrolment's fault.
                Err(error) if error.code.is_passing() || error.code.status() >= 500 => return Err(error),
                Err(error) => {
                    audit_failure(shared, asked, &error).await;
                    return Ok(Answer::Failed(Box::new(attested), error));
                }
            }
        }
        Err(ProvisioningError::new(
            ProvisioningCode::Throttled,
            "others change this registration",
        ))
    };
    let registered = timeout(PROVISIONING_WAIT, registering).await;
    registered.unwrap_or_else(|_| Err(ProvisioningError::unavailable("no answer in time")))
}

/// Lets somebody through that may register, whether or not its enrolment is enabled now.
pub(crate) async fn admit(shared: &Shared, asked: &Asked<'_>) -> Result<Attested, ProvisioningError> {
    match attest::attest(shared, asked).await {
        Ok(attested) => Ok(attested),
        Err(NotAttested::Error(error)) => Err(error),
        Err(NotAttested::Challenged(blob)) => Err(ProvisioningError::challenge(blob)),
        Err(NotAttested::Refused(why)) => {
            refuse(shared, asked, &why).await;
            Err(ProvisioningError::unauthorized())
        }
    }
}

async fn refuse(shared: &Shared, asked: &Asked<'_>, why: &str) {
    let record = AuditRecord::refused("registration.refuse", claimed(asked.name), "registration", why);
    write_audit(shared, asked.peer, record).await;
}

async fn audit(shared: &Shared, asked: &Asked<'_>, attested: &Attested, registration: &Registration) {
    let spec = &registration.spec;
    let under = if attested.is_group { "group" } else { "enrollment" };
    let record = AuditRecord {
        detail: format!(
            "{} at {}, {under} {}, {}",
            spec.device,
            spec.hub,
            attested.enrollment.name,
            substatus(spec.substatus)
        ),
        ..AuditRecord::done("registration.assign", attested.id.as_str(), attested.id.as_str())
    };
    write_audit(shared, asked.peer, record).await;
}

async fn audit_failure(shared: &Shared, asked: &Asked<'_>, error: &ProvisioningError) {
    let record = AuditRecord {
        outcome: error.audit_outcome(),
        detail: error.message.clone(),
        ..AuditRecord::done("registration.assign", claimed(asked.name), claimed(asked.name))
    };
    write_audit(shared, asked.peer, record).await;
}

/// DPS's name of how a registration came about.
pub(crate) fn substatus(substatus: Substatus) -> &'static str {
    match substatus {
        Substatus::InitialAssignment => "initialAssignment",
        Substatus::DeviceDataMigrated => "deviceDataMigrated",
        Substatus::DeviceDataReset => "deviceDataReset",
        Substatus::ReprovisionedToInitialAssignment => "reprovisionedToInitialAssignment",
    }
}

/// A number as the text that .NET reads as a GUID.
pub(crate) fn guid(number: u128) -> String {
    let digits = format!("{number:032x}");
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_follows_from_the_cluster() {
        let directory = Directory {
            cluster_id: "00a1b2c3d4e5f60718293a4b5c6d7e8f".into(),
            ..Directory::default()
        };
        assert_eq!(id_scope(&directory), "0ne00A1B2C3");
        assert_eq!(guid(1), "00000000-0000-0000-0000-000000000001");
    }
}
