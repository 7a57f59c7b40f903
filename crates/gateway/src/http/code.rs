//! The names and numbers of errors, as IoT Hub has them; `docs/errors.md` says when each comes.
//!
//! The first three digits of a number are the HTTP status. Those that end in three zeros are this
//! hub's own, and so is the one of a configuration that is there already.

use axum::http::StatusCode;

/// An error that a caller can get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// Something in the request is wrong.
    ArgumentInvalid,
    /// What was asked for cannot be done any more.
    InvalidOperation,
    /// One request names an identity more than once.
    DeviceDefinedMultipleTimes,
    /// Some changes of a list did not take place.
    BulkRegistryOperationFailure,
    /// The device has no upload of that correlation id.
    InvalidFileUploadCorrelationId,
    /// The time of that upload is over.
    ExpiredFileUploadCorrelationId,
    /// The device does not say how its upload ended.
    InvalidFileUploadCompletionStatus,
    /// The file that was uploaded is not there.
    InvalidStorageEndpointOrBlob,
    /// A section of a twin would become too large.
    TwinPropertiesTooLarge,
    /// No credential, or one that does not count.
    IotHubUnauthorizedAccess,
    /// A limit of the hub is reached.
    IotHubQuotaExceeded,
    /// As many messages wait for the device as may.
    DeviceMaximumQueueDepthExceeded,
    /// The device has as many uploads under way as it may.
    DeviceMaximumActiveFileUploadLimitExceeded,
    /// Too many methods of a device are in flight.
    MethodCallsInFlightExceeded,
    /// No such path, or nothing there.
    NotFound,
    /// No such device.
    DeviceNotFound,
    /// No such job.
    JobNotFound,
    /// No such module.
    ModuleNotFound,
    /// No such configuration.
    ConfigurationNotFound,
    /// The device is not connected, or does not listen.
    DeviceNotOnline,
    /// The device's connection ended while it was asked.
    DeviceConnectionClosedRemotely,
    /// The path is there, and has no such method.
    MethodNotAllowed,
    /// The cluster does not do that now.
    Refused,
    /// The device is there already.
    DeviceAlreadyExists,
    /// The configuration is there already.
    ConfigurationAlreadyExists,
    /// The job is there already, and another one.
    JobAlreadyExists,
    /// The module is there already.
    ModuleAlreadyExistsOnDevice,
    /// It was there, and will not come back.
    Gone,
    /// A condition does not hold.
    PreconditionFailed,
    /// Whoever settles a message does not hold it any more.
    DeviceMessageLockLost,
    /// A body is too large.
    MessageTooLarge,
    /// A list is too long.
    TooManyDevices,
    /// The device has no room for another module.
    TooManyModulesOnDevice,
    /// A bound is reached; nothing happened.
    ThrottlingException,
    /// An answer that makes no sense.
    ServerError,
    /// There is no room to store more; nothing happened.
    StorageFull,
    /// The cluster is out of reach; nothing happened.
    ServerBusy,
    /// No answer in time; the outcome is unknown.
    GatewayTimeout,
}

impl ErrorCode {
    /// All of them, with their numbers and names.
    pub const ALL: &[(ErrorCode, u32, &str)] = &[
        (Self::InvalidOperation, 400_003, "InvalidOperation"),
        (Self::ArgumentInvalid, 400_004, "ArgumentInvalid"),
        (
            Self::DeviceDefinedMultipleTimes,
            400_011,
            "DeviceDefinedMultipleTimes",
        ),
        (
            Self::BulkRegistryOperationFailure,
            400_013,
            "BulkRegistryOperationFailure",
        ),
        (
            Self::InvalidFileUploadCorrelationId,
            400_015,
            "InvalidFileUploadCorrelationId",
        ),
        (
            Self::ExpiredFileUploadCorrelationId,
            400_016,
            "ExpiredFileUploadCorrelationId",
        ),
        (
            Self::InvalidFileUploadCompletionStatus,
            400_019,
            "InvalidFileUploadCompletionStatus",
        ),
        (
            Self::InvalidStorageEndpointOrBlob,
            400_020,
            "InvalidStorageEndpointOrBlob",
        ),
        (Self::TwinPropertiesTooLarge, 400_000, "TwinPropertiesTooLarge"),
        (
            Self::IotHubUnauthorizedAccess,
            401_002,
            "IotHubUnauthorizedAccess",
        ),
        (Self::IotHubQuotaExceeded, 403_002, "IotHubQuotaExceeded"),
        (
            Self::DeviceMaximumQueueDepthExceeded,
            403_004,
            "DeviceMaximumQueueDepthExceeded",
        ),
        (
            Self::DeviceMaximumActiveFileUploadLimitExceeded,
            403_006,
            "DeviceMaximumActiveFileUploadLimitExceeded",
        ),
        (
            Self::MethodCallsInFlightExceeded,
            403_800,
            "MethodCallsInFlightExceeded",
        ),
        (Self::NotFound, 404_000, "NotFound"),
        (Self::DeviceNotFound, 404_001, "DeviceNotFound"),
        (Self::JobNotFound, 404_002, "JobNotFound"),
        (Self::ModuleNotFound, 404_010, "ModuleNotFound"),
        (Self::ConfigurationNotFound, 404_301, "ConfigurationNotFound"),
        (Self::DeviceNotOnline, 404_103, "DeviceNotOnline"),
        (
            Self::DeviceConnectionClosedRemotely,
            404_104,
            "DeviceConnectionClosedRemotely",
        ),
        (Self::MethodNotAllowed, 405_000, "MethodNotAllowed"),
        (Self::Refused, 409_000, "Refused"),
        (Self::DeviceAlreadyExists, 409_001, "DeviceAlreadyExists"),
        (Self::JobAlreadyExists, 409_104, "JobAlreadyExists"),
        (
            Self::ConfigurationAlreadyExists,
            409_302,
            "ConfigurationAlreadyExists",
        ),
        (
            Self::ModuleAlreadyExistsOnDevice,
            409_301,
            "ModuleAlreadyExistsOnDevice",
        ),
        (Self::Gone, 410_000, "Gone"),
        (Self::PreconditionFailed, 412_001, "PreconditionFailed"),
        (Self::DeviceMessageLockLost, 412_002, "DeviceMessageLockLost"),
        (Self::MessageTooLarge, 413_001, "MessageTooLarge"),
        (Self::TooManyDevices, 413_002, "TooManyDevices"),
        (Self::TooManyModulesOnDevice, 413_003, "TooManyModulesOnDevice"),
        (Self::ThrottlingException, 429_001, "ThrottlingException"),
        (Self::ServerError, 500_001, "ServerError"),
        (Self::StorageFull, 503_000, "StorageFull"),
        (Self::ServerBusy, 503_005, "ServerBusy"),
        (Self::GatewayTimeout, 504_101, "GatewayTimeout"),
    ];

    fn entry(self) -> (u32, &'static str) {
        let entry = Self::ALL.iter().find(|(code, ..)| *code == self);
        let (_, number, name) = entry.expect("every code is in the table");
        (*number, name)
    }

    /// Its six digits.
    pub fn number(self) -> u32 {
        self.entry().0
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// The status that it is answered with.
    pub fn status(self) -> StatusCode {
        let class = u16::try_from(self.number() / 1000).ok();
        let status = class.and_then(|class| StatusCode::from_u16(class).ok());
        status.expect("a class is a status")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_code_has_a_number_and_a_name_of_its_own() {
        let numbers: BTreeSet<u32> = ErrorCode::ALL.iter().map(|(_, number, _)| *number).collect();
        let names: BTreeSet<&str> = ErrorCode::ALL.iter().map(|(.., name)| *name).collect();
        assert_eq!(
            (numbers.len(), names.len()),
            (ErrorCode::ALL.len(), ErrorCode::ALL.len())
        );
        for (code, number, name) in ErrorCode::ALL {
            assert_eq!((code.number(), code.name()), (*number, *name));
            assert!(code.status().is_client_error() || code.status().is_server_error());
            assert_eq!(format!("{code:?}"), *name);
        }
    }
}
