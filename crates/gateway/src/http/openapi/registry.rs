//! The registry in the document: identities of devices and modules, many at once, and how many there are.
//!
//! What the hub does stands in [`crate::http::devices`] and [`crate::http::bulk`].

use dunlin_model::directory::Right;
use dunlin_model::limits::DEVICE_PAGE_MAX;

use super::parameters::{CONTINUATION, DEVICE, IF_MATCH, IF_MATCH_OR_NEW, MODULE};
use super::table::{Access, Body, Content, Kind, Operation, Parameter, Reply};

const READS: Access = Access::Service(&[Right::RegistryRead]);
const WRITES: Access = Access::Service(&[Right::RegistryReadWrite]);

const TOP: Parameter = Parameter::query(
    "DevicesTop",
    "top",
    "Devices on the page at the most; as many as a page may have unless asked.",
)
.of(Kind::Number(1, DEVICE_PAGE_MAX as u64));

/// What stands with every write that a query can see.
pub(super) const RECEIPT: (&str, &str) = (
    "dunlin-receipt",
    "Where it took effect: `shard/@index/term`. A query that shows it has seen the write.",
);
/// The same with nothing else.
pub(super) const WRITTEN: &[(&str, &str)] = &[RECEIPT];
/// What stands with an identity that was written.
pub(super) const TAGGED_AND_WRITTEN: &[(&str, &str)] = &[TAGGED[0], RECEIPT];
/// What stands with many writes.
const ALL_WRITTEN: &[(&str, &str)] = &[(
    "dunlin-receipt",
    "Where they took effect: the last `shard/@index/term` of each shard, with commas between them.",
)];

/// What stands with every identity that is answered with.
pub(super) const TAGGED: &[(&str, &str)] = &[("ETag", "Its version, quoted, for `If-Match`.")];
/// What stands with a page.
pub(super) const PAGED: &[(&str, &str)] = &[(
    "x-ms-continuation",
    "Where the next page begins. Without it there is no more.",
)];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("get", "/devices", "listDevices", "List devices", READS)
        .also(&["/devices/"])
        .says("Shard by shard, without modules.")
        .with(&[TOP, CONTINUATION])
        .replies(&[Reply::list("Device", "A page of devices.").with(PAGED)])
        .refuses(&[400]),
    Operation::new("post", "/devices", "changeDevices", "Create, update and delete many", WRITES)
        .also(&["/devices/"])
        .says("Up to 100 devices and modules, with their twins. Each entry is a write of its own: one that fails does not keep the others from taking place. An identity that is named twice refuses the whole list.")
        .takes_body(Body {
            content: Content::List("BulkEntry"),
            is_required: true,
            example: r#"[{"id": "pump-7", "importMode": "createOrUpdate", "status": "enabled", "tags": {"floor": 2}}]"#,
        })
        .replies(&[
            Reply::json("BulkResult", "All took place.").with(ALL_WRITTEN),
            Reply::new(
                400,
                "Some did not take place, and the body says which; or the list makes no sense, and none did.",
                Content::Either(&["BulkResult", "Error"]),
            )
            .with(ALL_WRITTEN),
        ])
        .refuses(&[413]),
    Operation::new("get", "/devices/{id}", "getDevice", "Read a device", READS)
        .with(&[DEVICE])
        .replies(&[Reply::json("Device", "The device.").with(TAGGED)])
        .refuses(&[400, 404]),
    Operation::new("put", "/devices/{id}", "putDevice", "Create or update a device", WRITES)
        .says("Keys that are not sent are kept, or drawn where there are none.")
        .with(&[DEVICE, IF_MATCH_OR_NEW])
        .takes("DeviceInput", r#"{"status": "enabled", "authentication": {"type": "sas"}}"#)
        .replies(&[Reply::json("Device", "The device as it is stored.").with(TAGGED_AND_WRITTEN)])
        .refuses(&[400, 404, 409, 412, 413]),
    Operation::new("delete", "/devices/{id}", "deleteDevice", "Delete a device", WRITES)
        .says("Its modules, its twin and the messages that wait for it go with it.")
        .with(&[DEVICE, IF_MATCH])
        .replies(&[Reply::done("It is deleted.").with(WRITTEN)])
        .refuses(&[400, 404, 412]),
    Operation::new("post", "/devices/{id}/erase", "eraseDevice", "Erase a device and its history", WRITES)
        .says("Deletes the device, if it is there, and every event that it ever sent: no reader is read one of them from the answer on, and each replica takes them from its files. The files that it uploaded and its registration go after that. What has left the hub is out of its reach.")
        .with(&[DEVICE])
        .replies(&[Reply::json("Erased", "Where its events end; later ones are of another device of that name.").with(WRITTEN)])
        .refuses(&[400, 403]),
    Operation::new("get", "/devices/{id}/modules", "listModules", "List a device's modules", READS)
        .with(&[DEVICE])
        .replies(&[Reply::list("Module", "All of its modules.")])
        .refuses(&[400, 404]),
    Operation::new("get", "/devices/{id}/modules/{module}", "getModule", "Read a module", READS)
        .with(&[DEVICE, MODULE])
        .replies(&[Reply::json("Module", "The module.").with(TAGGED)])
        .refuses(&[400, 404]),
    Operation::new("put", "/devices/{id}/modules/{module}", "putModule", "Create or update a module", WRITES)
        .says("Keys that are not sent are kept, or drawn where there are none.")
        .with(&[DEVICE, MODULE, IF_MATCH_OR_NEW])
        .takes("ModuleInput", r#"{"authentication": {"type": "sas"}}"#)
        .replies(&[Reply::json("Module", "The module as it is stored.").with(TAGGED_AND_WRITTEN)])
        .refuses(&[400, 404, 409, 412, 413]),
    Operation::new("delete", "/devices/{id}/modules/{module}", "deleteModule", "Delete a module", WRITES)
        .with(&[DEVICE, MODULE, IF_MATCH])
        .replies(&[Reply::done("It is deleted.").with(WRITTEN)])
        .refuses(&[400, 404, 412]),
    Operation::new("get", "/statistics/devices", "countDevices", "Count devices", READS)
        .replies(&[Reply::json("DeviceStatistics", "How many there are now.")]),
    Operation::new(
        "get",
        "/statistics/service",
        "countConnected",
        "Count connected devices",
        Access::Service(&[Right::ServiceConnect]),
    )
    .replies(&[Reply::json("ServiceStatistics", "How many are connected now.")]),
];
