//! Errors in the form of Azure's DPS, over MQTT and HTTPS alike: a number whose first three digits are the HTTP status,
//! and a body of its own shape. `docs/errors.md` says when each comes.

use dunlin_model::audit::{AuditOutcome, AuditRecord};
use dunlin_model::command::Refusal;
use dunlin_model::port::{BookError, QueryError, SubmitError};
use dunlin_model::provisioning::book::BookRefusal;
use serde_json::{Value, json};

use crate::http::error::ApiError;
use dunlin_model::iso_time::iso_utc;

/// An error that whoever provisions, or is provisioned, can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProvisioningCode {
    /// Something in the request is wrong.
    BadRequest,
    /// The enrolment leads to no hub.
    NoHub,
    /// The hub, or the webhook, that the enrolment leads to says no.
    HubRefused,
    /// No credential, or one that does not count.
    Unauthorized,
    /// No such path, or no such operation.
    NotFound,
    /// No such enrolment, group or linked hub.
    EnrollmentNotFound,
    /// No such registration.
    RegistrationNotFound,
    /// The enrolment is there already.
    EnrollmentExists,
    /// `If-Match` names another version.
    PreconditionFailed,
    /// An enrolment or a request is too large.
    TooLarge,
    /// A bound is reached; nothing happened.
    Throttled,
    /// An answer that makes no sense.
    ServerError,
    /// The cluster, a hub or a webhook is out of reach, or nobody knows what happened; asking again is safe.
    Unavailable,
}

impl ProvisioningCode {
    /// All of them, with their numbers and names.
    pub const ALL: &[(ProvisioningCode, u32, &str)] = &[
        (Self::BadRequest, 400_004, "BadRequest"),
        (Self::NoHub, 400_208, "NoHub"),
        (Self::HubRefused, 400_209, "HubRefused"),
        (Self::Unauthorized, 401_002, "Unauthorized"),
        (Self::NotFound, 404_000, "NotFound"),
        (Self::EnrollmentNotFound, 404_201, "EnrollmentNotFound"),
        (Self::RegistrationNotFound, 404_202, "RegistrationNotFound"),
        (Self::EnrollmentExists, 409_201, "EnrollmentExists"),
        (Self::PreconditionFailed, 412_001, "PreconditionFailed"),
        (Self::TooLarge, 413_001, "TooLarge"),
        (Self::Throttled, 429_001, "Throttled"),
        (Self::ServerError, 500_001, "ServerError"),
        (Self::Unavailable, 503_001, "Unavailable"),
    ];

    fn entry(self) -> (u32, &'static str) {
        let entry = Self::ALL.iter().find(|(code, ..)| *code == self);
        let (_, number, name) = entry.expect("every code is in the list");
        (*number, name)
    }

    /// The one with this number.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        let entry = Self::ALL.iter().find(|(_, known, _)| *known == number);
        entry.map(|(code, ..)| *code)
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.entry().0
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        (self.number() / 1000) as u16
    }

    /// Whether the same request may do better later.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable)
    }
}

/// An error with what is said of it.
#[derive(Debug)]
pub(crate) struct ProvisioningError {
    pub(crate) code: ProvisioningCode,
    pub(crate) message: String,
    /// What a TPM has to open first, Base64.
    challenge: Option<String>,
    /// For the audit, if a door turned somebody away.
    pub(crate) record: Option<Box<AuditRecord>>,
}

impl ProvisioningError {
    pub(crate) fn new(code: ProvisioningCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            challenge: None,
            record: None,
        }
    }

    /// 401 for a device that has yet to prove that it holds its TPM.
    pub(crate) fn challenge(blob: String) -> Self {
        let message = "Authorization required, resend request using supplied key";
        Self {
            challenge: Some(blob),
            ..Self::new(ProvisioningCode::Unauthorized, message)
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ProvisioningCode::BadRequest, message)
    }

    /// Which of the reasons it is, is not told.
    pub(crate) fn unauthorized() -> Self {
        Self::new(ProvisioningCode::Unauthorized, "Unauthorized")
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ProvisioningCode::Unavailable, message)
    }

    pub(crate) fn internal() -> Self {
        Self::new(ProvisioningCode::ServerError, "an answer of another kind")
    }

    /// The body.
    pub(crate) fn json(&self, now_ms: u64) -> Value {
        // Clients take whatever has these two for a challenge, and nothing else.
        if let Some(blob) = &self.challenge {
            return json!({
                "message": self.message,
                "authenticationKey": blob,
                "keyName": "registration",
            });
        }
        let tracking: u128 = rand::random();
        json!({
            "errorCode": self.code.number(),
            "trackingId": super::guid(tracking),
            "message": self.message,
            "info": {},
            "timestampUtc": iso_utc(now_ms),
        })
    }

    /// How the audit calls it.
    pub(crate) fn audit_outcome(&self) -> AuditOutcome {
        let name = self.code.name().to_owned();
        match self.code {
            ProvisioningCode::Unavailable => AuditOutcome::Unknown,
            code if code.status() >= 500 => AuditOutcome::Failed(name),
            _ => AuditOutcome::Refused(name),
        }
    }
}

impl From<SubmitError> for ProvisioningError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Busy(what) => Self::new(ProvisioningCode::Throttled, what),
            SubmitError::Unknown | SubmitError::CutOff | SubmitError::StorageFull => {
                Self::unavailable(error.to_string())
            }
        }
    }
}

impl From<QueryError> for ProvisioningError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Unavailable(_) | QueryError::CutOff | QueryError::Unknown => {
                Self::unavailable(error.to_string())
            }
            QueryError::NoSuchShard(_) | QueryError::Refused(_) => Self::invalid(error.to_string()),
            QueryError::Store(what) => {
                tracing::warn!(error = %what, "query failed");
                Self::new(ProvisioningCode::ServerError, "the query failed")
            }
        }
    }
}

impl From<BookError> for ProvisioningError {
    fn from(error: BookError) -> Self {
        let code = match &error {
            BookError::Refused(BookRefusal::Unknown) => ProvisioningCode::EnrollmentNotFound,
            BookError::Refused(BookRefusal::AlreadyExists) => ProvisioningCode::EnrollmentExists,
            BookError::Refused(BookRefusal::VersionMismatch) => ProvisioningCode::PreconditionFailed,
            BookError::Refused(BookRefusal::LimitReached(_)) => ProvisioningCode::TooLarge,
            BookError::Unknown => ProvisioningCode::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Refusal> for ProvisioningError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::UnknownEnrollment => ProvisioningCode::EnrollmentNotFound,
            Refusal::UnknownRegistration => ProvisioningCode::RegistrationNotFound,
            Refusal::AlreadyExists => ProvisioningCode::EnrollmentExists,
            Refusal::VersionMismatch => ProvisioningCode::PreconditionFailed,
            _ => ProvisioningCode::ServerError,
        };
        Self::new(code, refusal.to_string())
    }
}

impl From<ApiError> for ProvisioningError {
    /// What the doors' own checks say of a caller or a header.
    fn from(error: ApiError) -> Self {
        let code = match error.code().status().as_u16() {
            401 => ProvisioningCode::Unauthorized,
            412 => ProvisioningCode::PreconditionFailed,
            413 => ProvisioningCode::TooLarge,
            429 => ProvisioningCode::Throttled,
            503 | 504 => ProvisioningCode::Unavailable,
            status if status < 500 => ProvisioningCode::BadRequest,
            _ => ProvisioningCode::ServerError,
        };
        let message = error.message().to_owned();
        Self {
            record: error.into_record(),
            ..Self::new(code, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_an_entry_and_a_body_that_clients_read() {
        for (code, number, name) in ProvisioningCode::ALL {
            assert_eq!((code.number(), code.name()), (*number, *name));
            assert_eq!(u32::from(code.status()), number / 1000);
            assert_eq!(code.is_passing(), matches!(code.status(), 429 | 503));
        }
        let body = ProvisioningError::unauthorized().json(0);
        assert_eq!(body["errorCode"], 401_002);
        assert_eq!(body["timestampUtc"], "1970-01-01T00:00:00.000Z");
        assert_eq!(body["trackingId"].as_str().map(str::len), Some(36));
    }
}
