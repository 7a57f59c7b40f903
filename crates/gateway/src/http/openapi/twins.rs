//! Twins and direct methods in the document.
//!
//! What the hub does stands in [`crate::http::twins`] and [`crate::http::methods`].

use dunlin_model::directory::Right;

use super::parameters::{DEVICE, IF_MATCH, MODULE};
use super::registry::{TAGGED, TAGGED_AND_WRITTEN};
use super::table::{Access, Operation, Reply};

const SERVES: Access = Access::Service(&[Right::ServiceConnect]);
const PATCH_BODY: &str = r#"{"tags": {"floor": 2}, "properties": {"desired": {"interval": 5}}}"#;
const CALL_BODY: &str = r#"{"methodName": "reboot", "payload": {"in": 5}, "responseTimeoutInSeconds": 30, "connectTimeoutInSeconds": 0}"#;
const PATCH_SAYS: &str = "What is given is merged into what there is; `null` takes a property away.";
const PUT_SAYS: &str =
    "`tags` and `properties.desired` stand in place of what there was; one that is left out stays as it is.";
const CALL_SAYS: &str = "The device must be connected and listen; `connectTimeoutInSeconds` says how long to wait for that. Where it is not certain whether it was asked, nobody asks again. The status in the body is the device's own.";

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("get", "/twins/{id}", "getTwin", "Read a device's twin", SERVES)
        .with(&[DEVICE])
        .replies(&[Reply::json("Twin", "The twin.").with(TAGGED)])
        .refuses(&[400, 404]),
    Operation::new(
        "patch",
        "/twins/{id}",
        "updateTwin",
        "Change a device's twin",
        SERVES,
    )
    .says(PATCH_SAYS)
    .with(&[DEVICE, IF_MATCH])
    .takes("TwinInput", PATCH_BODY)
    .replies(&[Reply::json("Twin", "The twin as it is now.").with(TAGGED_AND_WRITTEN)])
    .refuses(&[400, 404, 412, 413]),
    Operation::new(
        "put",
        "/twins/{id}",
        "replaceTwin",
        "Replace a device's twin",
        SERVES,
    )
    .says(PUT_SAYS)
    .with(&[DEVICE, IF_MATCH])
    .takes("TwinInput", PATCH_BODY)
    .replies(&[Reply::json("Twin", "The twin as it is now.").with(TAGGED_AND_WRITTEN)])
    .refuses(&[400, 404, 412, 413]),
    Operation::new(
        "get",
        "/twins/{id}/modules/{module}",
        "getModuleTwin",
        "Read a module's twin",
        SERVES,
    )
    .with(&[DEVICE, MODULE])
    .replies(&[Reply::json("Twin", "The twin.").with(TAGGED)])
    .refuses(&[400, 404]),
    Operation::new(
        "patch",
        "/twins/{id}/modules/{module}",
        "updateModuleTwin",
        "Change a module's twin",
        SERVES,
    )
    .says(PATCH_SAYS)
    .with(&[DEVICE, MODULE, IF_MATCH])
    .takes("TwinInput", PATCH_BODY)
    .replies(&[Reply::json("Twin", "The twin as it is now.").with(TAGGED_AND_WRITTEN)])
    .refuses(&[400, 404, 412, 413]),
    Operation::new(
        "put",
        "/twins/{id}/modules/{module}",
        "replaceModuleTwin",
        "Replace a module's twin",
        SERVES,
    )
    .says(PUT_SAYS)
    .with(&[DEVICE, MODULE, IF_MATCH])
    .takes("TwinInput", PATCH_BODY)
    .replies(&[Reply::json("Twin", "The twin as it is now.").with(TAGGED_AND_WRITTEN)])
    .refuses(&[400, 404, 412, 413]),
    Operation::new(
        "post",
        "/twins/{id}/methods",
        "invokeMethod",
        "Call a method of a device",
        SERVES,
    )
    .says(CALL_SAYS)
    .with(&[DEVICE])
    .takes("MethodCall", CALL_BODY)
    .replies(&[Reply::json("MethodAnswer", "What the device answered.")])
    .refuses(&[400, 403, 404, 413, 500]),
    Operation::new(
        "post",
        "/twins/{id}/modules/{module}/methods",
        "invokeModuleMethod",
        "Call a method of a module",
        SERVES,
    )
    .says(CALL_SAYS)
    .with(&[DEVICE, MODULE])
    .takes("MethodCall", CALL_BODY)
    .replies(&[Reply::json("MethodAnswer", "What the module answered.")])
    .refuses(&[400, 403, 404, 413, 500]),
];
