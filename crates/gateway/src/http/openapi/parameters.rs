//! Parameters that several operations have: names in paths, conditions, pages, properties of messages.
//!
//! Constants and nothing else; which operation has which is said in the areas.

use dunlin_model::configuration::CONFIGURATION_ID_CHARS_MAX;
use dunlin_model::limits::{DEVICE_ID_BYTES_MAX, FLEET_PAGE_MAX};
use dunlin_model::messages::MESSAGE_ID_BYTES_MAX;
use dunlin_model::provisioning::REGISTRATION_ID_CHARS_MAX;

use super::table::{Kind, Parameter};

/// Device ids in paths.
pub(super) const DEVICE: Parameter = Parameter::path(
    "DeviceId",
    "id",
    "Id of the device: letters, digits and `-.%_*?!(),:=@$'`. Case counts.",
)
.of(Kind::Text(DEVICE_ID_BYTES_MAX))
.such_as("pump-7");

/// Module ids in paths.
pub(super) const MODULE: Parameter = Parameter::path("ModuleId", "module", "Id of the module on its device.")
    .of(Kind::Text(DEVICE_ID_BYTES_MAX))
    .such_as("camera");

/// Configuration ids in paths.
pub(super) const CONFIGURATION: Parameter = Parameter::path(
    "ConfigurationId",
    "id",
    "Id of the configuration: letters, digits and `-+%_*!'.:`.",
)
.of(Kind::Text(CONFIGURATION_ID_CHARS_MAX))
.such_as("interval-5");

/// Registration ids in paths.
pub(super) const REGISTRATION: Parameter = Parameter::path(
    "RegistrationId",
    "id",
    "Registration id of the device. Case does not count.",
)
.of(Kind::Text(REGISTRATION_ID_CHARS_MAX))
.such_as("pump-8");

/// The version that a registry entry must have, where none means that it must not be there.
pub(super) const IF_MATCH_OR_NEW: Parameter = Parameter::header(
    "IfMatchOrNew",
    "If-Match",
    "ETag that it must have, or `*` for any. Without it, it must not be there yet.",
);

/// The version that something must have, where none means any.
pub(super) const IF_MATCH: Parameter = Parameter::header(
    "IfMatch",
    "If-Match",
    "ETag that it must have; `*`, or nothing, for any.",
);

/// Where a page goes on.
pub(super) const CONTINUATION: Parameter = Parameter::header(
    "Continuation",
    "x-ms-continuation",
    "Where the page before this one said that there is more.",
);

/// Rows on a page.
pub(super) const ITEM_COUNT: Parameter = Parameter::header(
    "MaxItemCount",
    "x-ms-max-item-count",
    "Rows on a page at the most; a page may have fewer. More than there may be is as good as that.",
)
.of(Kind::Number(1, FLEET_PAGE_MAX as u64));

/// The version of an API, which SDKs send.
pub(super) const API_VERSION: Parameter = Parameter::query(
    "ApiVersion",
    "api-version",
    "Accepted, as SDKs send it, and not needed: there is one version.",
);

/// System properties of a message, as headers.
pub(super) const MESSAGE_ID: Parameter = Parameter::header(
    "MessageId",
    "iothub-messageid",
    "Id of the message, as its sender calls it.",
)
.of(Kind::Text(MESSAGE_ID_BYTES_MAX));

/// See [`MESSAGE_ID`].
pub(super) const CORRELATION_ID: Parameter = Parameter::header(
    "CorrelationId",
    "iothub-correlationid",
    "What the message belongs to.",
);

/// See [`MESSAGE_ID`].
pub(super) const USER_ID: Parameter = Parameter::header(
    "UserId",
    "iothub-userid",
    "Whom the message is from, as its sender says.",
);

/// See [`MESSAGE_ID`].
pub(super) const CONTENT_TYPE: Parameter = Parameter::header(
    "MessageContentType",
    "iothub-contenttype",
    "What the payload is, e.g. `application/json`.",
);

/// See [`MESSAGE_ID`].
pub(super) const CONTENT_ENCODING: Parameter = Parameter::header(
    "MessageContentEncoding",
    "iothub-contentencoding",
    "How the payload is encoded, e.g. `utf-8`.",
);

/// See [`MESSAGE_ID`].
pub(super) const EXPIRY: Parameter = Parameter::header(
    "MessageExpiry",
    "iothub-expiry",
    "When the message is worth nothing any more, in ISO 8601.",
);

/// See [`MESSAGE_ID`].
pub(super) const TO: Parameter = Parameter::header("MessageTo", "iothub-to", "Whom the message is for.");

/// See [`MESSAGE_ID`].
pub(super) const CREATION_TIME: Parameter = Parameter::header(
    "MessageCreationTime",
    "iothub-creation-time-utc",
    "When the message was made, as its sender says.",
);

/// See [`MESSAGE_ID`].
pub(super) const MESSAGE_SCHEMA: Parameter = Parameter::header(
    "MessageSchema",
    "iothub-message-schema",
    "What the payload means, as its sender says.",
);
