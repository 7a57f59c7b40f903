//! Errors in IoT Hub's form: a JSON body with `Message` and `ExceptionMessage`, and the header
//! `iothub-errorcode`. SDKs compare the two, so both are written in one place.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dunlin_model::audit::{AuditOutcome, AuditRecord};
use dunlin_model::command::Refusal;
use dunlin_model::configuration::CONFIGURATIONS_MAX;
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::job::JobId;
use dunlin_model::limits::MODULES_PER_DEVICE_MAX;
use dunlin_model::messages::QUEUE_MESSAGES_MAX;
use dunlin_model::method::MethodError;
use dunlin_model::port::{QueryError, SubmitError};
use dunlin_model::upload::UPLOADS_ALIVE_MAX;

use super::audited::Audited;
use super::code::ErrorCode;
use crate::quota::Over;
use dunlin_model::iso_time::iso_utc;

/// Header that names the error.
pub const ERROR_CODE_HEADER: &str = "iothub-errorcode";

/// The same of provisioning, whose errors have a form of their own.
pub(crate) const PROVISIONING_CODE_HEADER: &str = "x-ms-error-code";

/// Bytes of what the library says about a request that it refuses.
const LIBRARY_WORDS_BYTES_MAX: usize = 4 * 1024;

/// Seconds after which a caller may try again.
const RETRY_AFTER_S: &str = "1";

/// An error that a caller gets.
#[derive(Debug)]
pub struct ApiError {
    code: ErrorCode,
    message: String,
    /// For the audit, see [`super::audited`].
    record: Option<Box<AuditRecord>>,
}

impl ApiError {
    /// Its code.
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }

    /// What is said of it.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The record that the audit keeps of it.
    pub(crate) fn into_record(self) -> Option<Box<AuditRecord>> {
        self.record
    }

    /// The same error, of which the audit keeps a record.
    pub(crate) fn audited(mut self, record: AuditRecord) -> Self {
        self.record = Some(Box::new(record));
        self
    }

    /// How the audit calls it.
    pub(crate) fn audit_outcome(&self) -> AuditOutcome {
        let name = self.code.name().to_owned();
        match self.code.status() {
            StatusCode::GATEWAY_TIMEOUT => AuditOutcome::Unknown,
            status if status.is_server_error() => AuditOutcome::Failed(name),
            _ => AuditOutcome::Refused(name),
        }
    }

    fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            record: None,
        }
    }

    /// 400: something in the request is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ArgumentInvalid, message)
    }

    /// 401: no credential, or one that does not count. Which, is not told.
    pub fn unauthorized() -> Self {
        Self::new(ErrorCode::IotHubUnauthorizedAccess, "Unauthorized")
    }

    /// 412: whoever settles something does not hold it any more.
    pub(crate) fn lock_lost() -> Self {
        Self::new(
            ErrorCode::DeviceMessageLockLost,
            "The lock of the message is over, or was another's",
        )
    }

    /// 400: the device has no such upload, or none any more.
    pub(crate) fn no_upload() -> Self {
        Self::new(
            ErrorCode::InvalidFileUploadCorrelationId,
            "The device has no upload of that correlationId",
        )
    }

    /// 400: how an upload ended is not said.
    pub(crate) fn no_completion() -> Self {
        Self::new(
            ErrorCode::InvalidFileUploadCompletionStatus,
            "isSuccess is true or false, and statusCode a number",
        )
    }

    /// 400: an upload is said to have ended well, and there is no file.
    pub(crate) fn no_blob() -> Self {
        Self::new(
            ErrorCode::InvalidStorageEndpointOrBlob,
            "The file that was to be uploaded is not there",
        )
    }

    /// 404 for paths.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// 404 for devices and modules.
    pub fn missing(identity: &DeviceId) -> Self {
        match identity.module_part() {
            None => Self::new(
                ErrorCode::DeviceNotFound,
                format!("Device {identity} not registered"),
            ),
            Some(module) => Self::new(
                ErrorCode::ModuleNotFound,
                format!(
                    "Module {module} not registered on device {}",
                    identity.device_part()
                ),
            ),
        }
    }

    /// 404 for jobs.
    pub(crate) fn no_job(id: &JobId) -> Self {
        Self::new(ErrorCode::JobNotFound, format!("There is no job {id}"))
    }

    /// 409 for a job that is to be made and is there, and another one.
    pub(crate) fn job_exists(id: &JobId) -> Self {
        Self::new(
            ErrorCode::JobAlreadyExists,
            format!("There is another job {id} already"),
        )
    }

    /// 400 for a job that is to be cancelled and has ended.
    pub(crate) fn job_ended(id: &JobId) -> Self {
        Self::new(ErrorCode::InvalidOperation, format!("Job {id} has ended already"))
    }

    /// 403 for one job too many.
    pub(crate) fn too_many_jobs() -> Self {
        Self::new(
            ErrorCode::IotHubQuotaExceeded,
            "There are as many jobs as the hub keeps where this one would be; those that have ended go after 30 days",
        )
    }

    /// 400 for an identity that one request names more than once.
    pub(crate) fn named_twice(identity: &DeviceId) -> Self {
        Self::new(
            ErrorCode::DeviceDefinedMultipleTimes,
            format!("{identity} is in the list more than once"),
        )
    }

    /// 413 for a list of identities.
    pub(crate) fn too_many_devices(count_max: usize) -> Self {
        Self::new(
            ErrorCode::TooManyDevices,
            format!("There are more than {count_max} devices in the list"),
        )
    }

    /// Its name, as SDKs know it.
    pub(crate) fn name(&self) -> &'static str {
        self.code.name()
    }

    /// What it says to people.
    pub(crate) fn text(&self) -> &str {
        &self.message
    }

    /// 410: it was there, and will not come back.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Gone, message)
    }

    /// 412.
    pub fn precondition() -> Self {
        Self::new(
            ErrorCode::PreconditionFailed,
            "Precondition failed: Device version did not match",
        )
    }

    /// 404 for configurations.
    pub(crate) fn no_configuration(id: &str) -> Self {
        Self::new(
            ErrorCode::ConfigurationNotFound,
            format!("There is no configuration {id}"),
        )
    }

    /// 403: there are as many configurations as may be.
    pub(crate) fn configurations_full() -> Self {
        Self::new(
            ErrorCode::IotHubQuotaExceeded,
            format!("There are {CONFIGURATIONS_MAX} configurations already"),
        )
    }

    /// 412: the routing is another one by now.
    pub(crate) fn routing_changed() -> Self {
        Self::new(
            ErrorCode::PreconditionFailed,
            "The routing was changed meanwhile: read it again",
        )
    }

    /// 400: the content of a configuration never changes.
    pub(crate) fn content_fixed() -> Self {
        Self::invalid("the content of a configuration cannot change: make another one")
    }

    /// A refusal by the shard of a configuration.
    pub(crate) fn configuration(refusal: Refusal, id: &str) -> Self {
        match refusal {
            Refusal::UnknownConfiguration => Self::no_configuration(id),
            Refusal::AlreadyExists => Self::new(
                ErrorCode::ConfigurationAlreadyExists,
                format!("There is a configuration {id} already"),
            ),
            Refusal::VersionMismatch => Self::new(
                ErrorCode::PreconditionFailed,
                format!("Configuration {id} is another than the condition names"),
            ),
            Refusal::ContentFixed => Self::content_fixed(),
            _ => Self::internal("a refusal of another kind"),
        }
    }

    /// 412: what a caller has a receipt of is not here.
    pub(crate) fn not_seen(shard: ShardId) -> Self {
        Self::new(
            ErrorCode::PreconditionFailed,
            format!("Shard {shard} of this hub has not what a receipt names"),
        )
    }

    /// 413.
    pub fn too_large() -> Self {
        Self::new(
            ErrorCode::MessageTooLarge,
            "The body or the properties are too large",
        )
    }

    /// 429: a bound is reached; nothing happened.
    pub fn busy(what: &str) -> Self {
        Self::new(
            ErrorCode::ThrottlingException,
            format!("Too much is waiting: {what}"),
        )
    }

    /// 503: the cluster is out of reach; nothing happened.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ServerBusy, message)
    }

    /// 504: no answer came in time; it may have happened, or may still happen.
    pub fn unknown() -> Self {
        Self::new(
            ErrorCode::GatewayTimeout,
            "No answer in time; the outcome is unknown",
        )
    }

    /// A direct method that has no answer.
    pub(crate) fn method(error: &MethodError, id: &DeviceId) -> Self {
        match error {
            MethodError::NotHere | MethodError::Unreachable => Self::new(
                ErrorCode::DeviceNotOnline,
                format!("Device {id} is not connected, or does not listen for method calls"),
            ),
            MethodError::TooMany(what) => Self::new(
                ErrorCode::MethodCallsInFlightExceeded,
                format!("Too many method calls are in flight: {what}"),
            ),
            MethodError::TimedOut => Self::new(
                ErrorCode::GatewayTimeout,
                format!("Timed out waiting for the response from device {id}"),
            ),
            MethodError::ConnectionClosed => Self::new(
                ErrorCode::DeviceConnectionClosedRemotely,
                format!("The connection of device {id} ended before it answered; it may have been called"),
            ),
            MethodError::Unreadable => Self::internal(format!("Device {id} answered with what is no JSON")),
            MethodError::Unknown => Self::unknown(),
        }
    }

    /// 500: an answer that makes no sense.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::ServerError, message)
    }

    /// A refusal by the shard.
    pub fn refused(refusal: Refusal, identity: &DeviceId) -> Self {
        let is_module = identity.module_part().is_some();
        match refusal {
            Refusal::UnknownDevice => match identity.parent() {
                Some(device) => Self::missing(&device),
                None => Self::missing(identity),
            },
            Refusal::UnknownModule => Self::missing(identity),
            Refusal::AlreadyExists if is_module => Self::new(
                ErrorCode::ModuleAlreadyExistsOnDevice,
                format!("Module '{identity}' is already registered"),
            ),
            Refusal::AlreadyExists => Self::new(
                ErrorCode::DeviceAlreadyExists,
                format!("A device with ID '{identity}' is already registered"),
            ),
            Refusal::LimitReached if is_module => Self::new(
                ErrorCode::TooManyModulesOnDevice,
                format!("The device has {MODULES_PER_DEVICE_MAX} modules already"),
            ),
            Refusal::VersionMismatch => Self::precondition(),
            Refusal::TwinTooLarge => Self::new(
                ErrorCode::TwinPropertiesTooLarge,
                "A section of the twin would become too large",
            ),
            Refusal::TwinUnreadable => Self::invalid("the change of the twin cannot be read"),
            Refusal::QueueFull => Self::new(
                ErrorCode::DeviceMaximumQueueDepthExceeded,
                format!("{QUEUE_MESSAGES_MAX} messages wait for the device already"),
            ),
            Refusal::LockLost => Self::lock_lost(),
            Refusal::NoSuchLetter => Self::not_found("There is no such dead letter"),
            Refusal::UnknownEnrollment | Refusal::UnknownRegistration | Refusal::StaleEnrollment => {
                Self::internal("a device was taken for an enrollment")
            }
            Refusal::UnknownJob | Refusal::JobEnded | Refusal::JobNotFree | Refusal::JobNotHeld => {
                Self::internal("a device was taken for a job")
            }
            Refusal::UnknownConfiguration | Refusal::ContentFixed | Refusal::LeaseHeld => {
                Self::internal("a device was taken for a configuration")
            }
            Refusal::TooManyUploads => Self::new(
                ErrorCode::DeviceMaximumActiveFileUploadLimitExceeded,
                format!("{UPLOADS_ALIVE_MAX} uploads of the device are under way already"),
            ),
            Refusal::UnknownUpload => Self::no_upload(),
            Refusal::LeftoverThere => {
                Self::unavailable("Files of an erased device of that name are being removed")
            }
            Refusal::UploadLapsed => Self::new(
                ErrorCode::ExpiredFileUploadCorrelationId,
                "The time of the upload is over",
            ),
            Refusal::NotListening => Self::internal("a session that does not listen asked for messages"),
            Refusal::LimitReached => Self::new(ErrorCode::IotHubQuotaExceeded, "A limit is reached"),
            Refusal::StaleGeneration | Refusal::Fenced | Refusal::Disabled => Self::unauthorized(),
        }
    }
}

/// An error that no handler has made, but the library that calls them, in the form of all others.
pub(super) async fn in_form(response: Response) -> Response {
    let status = response.status();
    let headers = response.headers();
    // What a handler has written is JSON: a list of changes has its own.
    let is_json = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let has_form =
        is_json || headers.contains_key(ERROR_CODE_HEADER) || headers.contains_key(PROVISIONING_CODE_HEADER);
    if has_form || !status.is_client_error() {
        return response;
    }
    let allowed = response.headers().get(header::ALLOW).cloned();
    let words = axum::body::to_bytes(response.into_body(), LIBRARY_WORDS_BYTES_MAX).await;
    let words = words.map_or_else(
        |_| String::new(),
        |words| String::from_utf8_lossy(&words).into_owned(),
    );
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            let error = ApiError::new(ErrorCode::MethodNotAllowed, "This path has no such method");
            let mut response = error.into_response();
            if let Some(allowed) = allowed {
                response.headers_mut().insert(header::ALLOW, allowed);
            }
            response
        }
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large().into_response(),
        StatusCode::NOT_FOUND => ApiError::not_found("no such path").into_response(),
        _ => ApiError::invalid(words).into_response(),
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Busy(what) => Self::busy(what),
            SubmitError::Unknown => Self::unknown(),
            SubmitError::CutOff => Self::unavailable(error.to_string()),
            SubmitError::StorageFull => Self::new(ErrorCode::StorageFull, error.to_string()),
        }
    }
}

impl From<Over> for ApiError {
    fn from(over: Over) -> Self {
        let code = match over {
            Over::Rate => ErrorCode::ThrottlingException,
            Over::Day => ErrorCode::IotHubQuotaExceeded,
            Over::Unreachable => ErrorCode::ServerBusy,
        };
        Self::new(code, over.to_string())
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NoSuchShard(_) => Self::not_found(error.to_string()),
            QueryError::Refused(what) => Self::new(ErrorCode::Refused, what),
            QueryError::Unavailable(_) | QueryError::CutOff => Self::unavailable(error.to_string()),
            QueryError::Unknown => Self::unknown(),
            QueryError::Store(ref what) => {
                tracing::warn!(error = %what, "query failed");
                Self::internal("the query failed")
            }
        }
    }
}

/// The time that stands in an answer. It decides nothing, so the machine's clock will do.
pub(super) fn answered_at() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    iso_utc(since.map_or(0, |since| since.as_millis() as u64))
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let tracking: u64 = rand::random();
        let body = serde_json::json!({
            "Message": format!("ErrorCode:{};{}", self.code.name(), self.message),
            "ExceptionMessage": format!("Tracking ID:{tracking:016x}-G:0-TimeStamp:{}", answered_at()),
        });
        let mut response = (self.code.status(), axum::Json(body)).into_response();
        if let Some(record) = self.record {
            response.extensions_mut().insert(Audited(*record));
        }
        let headers = response.headers_mut();
        headers.insert(ERROR_CODE_HEADER, HeaderValue::from_static(self.code.name()));
        if matches!(
            self.code.status(),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}
