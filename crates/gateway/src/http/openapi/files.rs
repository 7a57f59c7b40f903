//! Files of devices in the document: how an upload begins and ends, the file itself, and who hears of it.
//!
//! What the hub does stands in [`crate::http::files`], [`crate::http::blobs`] and [`crate::http::feedback`].

use dunlin_model::directory::Right;
use dunlin_model::limits::DEVICE_ID_BYTES_MAX;
use dunlin_model::upload::BLOB_NAME_BYTES_MAX;

use super::parameters::DEVICE;
use super::table::{Access, Body, Content, Kind, Operation, Parameter, Reply};
use crate::feedback::Kind as Owed;

const SERVES: Access = Access::Service(&[Right::ServiceConnect]);

const CORRELATION: Parameter = Parameter::path(
    "UploadCorrelationId",
    "correlation",
    "The upload's `correlationId`.",
)
.such_as("0123456789abcdef0123456789abcdef");
const OWNER: Parameter = Parameter::path("FileOwner", "device", "Id of the device.")
    .of(Kind::Text(DEVICE_ID_BYTES_MAX))
    .such_as("pump-7");
const BLOB: Parameter = Parameter::path(
    "BlobName",
    "blob",
    "Name that the device gave the file; slashes stay slashes.",
)
.of(Kind::Text(BLOB_NAME_BYTES_MAX))
.such_as("log.txt");
const COMP: Parameter = Parameter::query(
    "Comp",
    "comp",
    "What the body is: a block, or the list that makes a file of blocks; without it, the file.",
)
.of(Kind::Word(&["block", "blocklist"]));
const BLOCK_ID: Parameter = Parameter::query(
    "BlockId",
    "blockid",
    "With `comp=block`: Base64 of 1 to 64 bytes.",
);
const BLOB_TYPE: Parameter = Parameter::header("BlobType", "x-ms-blob-type", "Needed for a whole file.")
    .of(Kind::Word(&["BlockBlob"]));
const LOCK: Parameter = Parameter::path(
    "FileNotificationLock",
    "lock",
    "The notification's ETag, without quotes.",
)
.such_as("0-1");

const ENDED: &str = r#"{"correlationId":"0123456789abcdef0123456789abcdef","isSuccess":true,"statusCode":200,"statusDescription":"done"}"#;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("post", "/devices/{id}/files", "beginUpload", "A device wants to upload a file", Access::Device)
        .says("The answer has the parts of an address with a token in it, which takes the file for a while. A device has ten uploads under way at the most.")
        .with(&[DEVICE])
        .takes("UploadInput", r#"{"blobName":"log.txt"}"#)
        .replies(&[Reply::json("Upload", "Where the file goes: `https://{hostName}/{containerName}/{blobName}{sasToken}`.")])
        .refuses(&[400, 403, 413]),
    Operation::new(
        "post",
        "/devices/{id}/files/notifications",
        "endUpload",
        "A device says that an upload is over",
        Access::Device,
    )
    .says("To say so again changes nothing. Services are told of a file that came whole.")
    .with(&[DEVICE])
    .takes("UploadEndInput", ENDED)
    .replies(&[Reply::done("The upload is over.")])
    .refuses(&[400, 413]),
    Operation::new(
        "post",
        "/devices/{id}/files/notifications/{correlation}",
        "endUploadById",
        "The same, with the id in the path",
        Access::Device,
    )
    .with(&[DEVICE, CORRELATION])
    .takes("UploadEndInput", ENDED)
    .replies(&[Reply::done("The upload is over.")])
    .refuses(&[400, 413]),
    Operation::new("put", "/uploads/{device}/{blob}", "putBlob", "Upload a file, a block, or a list of blocks", Access::Upload)
        .says("As Azure Storage has it: Put Blob, Put Block, Put Block List. `uploads` is the container, unless it is configured otherwise.")
        .with(&[OWNER, BLOB, COMP, BLOCK_ID, BLOB_TYPE])
        .takes_body(Body { content: Content::Bytes, is_required: false, example: "hello" })
        .replies(&[Reply::new(201, "It is on disk.", Content::Nothing).with(&[
            ("x-ms-request-id", "Id of the request."),
            ("x-ms-version", "Version of the interface."),
        ])])
        .refuses_as_storage(&[400, 401, 403, 404, 408, 409, 413])
        .not_from_a_page(),
    Operation::new("get", "/uploads/{device}/{blob}", "getBlob", "Read a file of a device", SERVES)
        .says("`HEAD` as well. The token of an upload is for bringing: it opens nothing here.")
        .with(&[OWNER, BLOB])
        .replies(&[Reply::new(200, "The file.", Content::Bytes).with(&[
            ("ETag", "Tells this state of the file from others."),
            ("Last-Modified", "When it was written."),
            ("x-ms-request-id", "Id of the request."),
            ("x-ms-version", "Version of the interface."),
        ])])
        .refuses_as_storage(&[404]),
    Operation::new(
        "get",
        "/messages/serviceBound/filenotifications",
        "takeFileNotification",
        "Take a notification of a file",
        SERVES,
    )
    .says("The next file that came whole and that nobody was told of, as the caller's for a while.")
    .replies(&[
        Reply::new(200, "A notification.", Content::JsonAs(Owed::Files.content_type(), "FileNotification"))
            .with(&[("ETag", "The lock, quoted: the notification is settled with it.")]),
        Reply::done("There is none."),
    ]),
    Operation::new(
        "delete",
        "/messages/serviceBound/filenotifications/{lock}",
        "completeFileNotification",
        "Be done with a notification of a file",
        SERVES,
    )
    .with(&[LOCK])
    .replies(&[Reply::done("It is done with.")])
    .refuses(&[412]),
    Operation::new(
        "post",
        "/messages/serviceBound/filenotifications/{lock}/abandon",
        "abandonFileNotification",
        "Give a notification of a file back",
        SERVES,
    )
    .with(&[LOCK])
    .replies(&[Reply::done("It will be given again.")])
    .refuses(&[412]),
];
