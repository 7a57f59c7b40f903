//! Messages to devices in the document: services send them, devices fetch and settle them, and what became of them.
//!
//! What the hub does stands in [`crate::http::messages`] and [`crate::http::feedback`].

use dunlin_model::directory::Right;

use super::parameters::{
    CONTENT_ENCODING, CONTENT_TYPE, CORRELATION_ID, CREATION_TIME, DEVICE, EXPIRY, MESSAGE_ID,
    MESSAGE_SCHEMA, TO, USER_ID,
};
use super::table::{Access, Body, Content, Kind, Operation, Parameter, Reply};
use crate::limits::MESSAGE_LOCK_S;

const SERVES: Access = Access::Service(&[Right::ServiceConnect]);

const ACK: Parameter = Parameter::header(
    "Ack",
    "iothub-ack",
    "Which ends of the message its sender is told of.",
)
.of(Kind::Word(&["none", "positive", "negative", "full"]));
const LOCK: Parameter =
    Parameter::path("MessageLock", "lock", "The message's ETag, without quotes.").such_as("1-2a");
const BATCH_LOCK: Parameter =
    Parameter::path("FeedbackLock", "lock", "The batch's ETag, without quotes.").such_as("0-1");
const LOCK_TIME: Parameter = Parameter::header(
    "LockTimeout",
    "iothub-messagelocktimeout",
    "Seconds for which the device wants the message for itself.",
)
.of(Kind::Number(*MESSAGE_LOCK_S.start(), *MESSAGE_LOCK_S.end()));
const REJECT: Parameter = Parameter::query(
    "Reject",
    "reject",
    "With any value, or none, the message is rejected and kept as a dead letter; without it, it is done with.",
);
const NUMBER: Parameter = Parameter::path("DeadLetterNumber", "number", "The letter's sequence number.")
    .of(Kind::Number(0, u64::MAX))
    .such_as("1");

/// What a message carries beside its payload.
const CARRIED: &[(&str, &str)] = &[
    ("iothub-messageid", "Id of the message."),
    ("iothub-to", "Whom it is for."),
    (
        "Content-Type",
        "`iothub-contenttype` as its sender said it, or `application/octet-stream`.",
    ),
];
const FETCHED: &[(&str, &str)] = &[
    ("ETag", "The lock, quoted: the message is settled with it."),
    ("iothub-messageid", "Id of the message."),
    ("iothub-to", "Whom it is for."),
    ("iothub-sequencenumber", "Its number among those of the device."),
    ("iothub-enqueuedtime", "When it was queued."),
    ("iothub-expiry", "When it is worth nothing any more."),
    ("iothub-deliverycount", "How often it was given out before."),
    (
        "Content-Type",
        "`iothub-contenttype` as its sender said it, or `application/octet-stream`.",
    ),
];

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("post", "/devices/{id}/messages/devicebound", "sendMessage", "Send a message to a device", SERVES)
        .also(&["/devices/{id}/messages/deviceBound"])
        .says("Headers `iothub-app-NAME` become properties of the message. It is on disk on a majority when this is answered.")
        .with(&[
            DEVICE, ACK, MESSAGE_ID, CORRELATION_ID, USER_ID, CONTENT_TYPE, CONTENT_ENCODING, EXPIRY, TO,
            CREATION_TIME, MESSAGE_SCHEMA,
        ])
        .takes_body(Body { content: Content::Bytes, is_required: false, example: "hello" })
        .replies(&[Reply::new(201, "It is queued.", Content::Json("MessageQueued"))])
        .refuses(&[400, 403, 404, 413]),
    Operation::new("get", "/devices/{id}/messages/devicebound", "fetchMessage", "A device fetches a message", Access::Device)
        .also(&["/devices/{id}/messages/deviceBound"])
        .says("The message is the device's for a while, and is settled with its lock. Properties come as headers `iothub-app-NAME`.")
        .with(&[DEVICE, LOCK_TIME])
        .replies(&[
            Reply::new(200, "The next message: its payload.", Content::Bytes).with(FETCHED),
            Reply::done("No message waits."),
        ])
        .refuses(&[400]),
    Operation::new(
        "delete",
        "/devices/{id}/messages/devicebound/{lock}",
        "completeMessage",
        "A device is done with a message, or rejects it",
        Access::Device,
    )
    .also(&["/devices/{id}/messages/deviceBound/{lock}"])
    .with(&[DEVICE, LOCK, REJECT])
    .replies(&[Reply::done("It is settled.")])
    .refuses(&[412]),
    Operation::new(
        "post",
        "/devices/{id}/messages/devicebound/{lock}/abandon",
        "abandonMessage",
        "A device gives a message back",
        Access::Device,
    )
    .also(&["/devices/{id}/messages/deviceBound/{lock}/abandon"])
    .with(&[DEVICE, LOCK])
    .replies(&[Reply::done("It will be given again.")])
    .refuses(&[412]),
    Operation::new("delete", "/devices/{id}/commands", "purgeMessages", "Empty a device's queue", SERVES)
        .with(&[DEVICE])
        .replies(&[Reply::json("MessagesPurged", "How many there were.")])
        .refuses(&[400, 404]),
    Operation::new("get", "/devices/{id}/messages/deadletters", "listDeadLetters", "List dead letters", SERVES)
        .says("The oldest first, without their payloads.")
        .with(&[DEVICE])
        .replies(&[Reply::list("DeadLetter", "All of them.")])
        .refuses(&[400, 404]),
    Operation::new(
        "get",
        "/devices/{id}/messages/deadletters/{number}",
        "getDeadLetter",
        "Read a dead letter",
        SERVES,
    )
    .with(&[DEVICE, NUMBER])
    .replies(&[Reply::new(200, "Its payload.", Content::Bytes).with(CARRIED)])
    .refuses(&[400, 404]),
    Operation::new(
        "delete",
        "/devices/{id}/messages/deadletters/{number}",
        "dropDeadLetter",
        "Forget a dead letter",
        SERVES,
    )
    .with(&[DEVICE, NUMBER])
    .replies(&[Reply::done("It is forgotten.")])
    .refuses(&[400, 404]),
    Operation::new(
        "post",
        "/devices/{id}/messages/deadletters/{number}/resubmit",
        "resubmitDeadLetter",
        "Queue a dead letter again",
        SERVES,
    )
    .with(&[DEVICE, NUMBER])
    .replies(&[Reply::new(201, "It is at the end of the queue.", Content::Json("DeadLetterQueued"))])
    .refuses(&[400, 403, 404]),
    Operation::new("get", "/messages/serviceBound/feedback", "takeFeedback", "Take feedback on messages", SERVES)
        .says("What became of messages whose senders asked for it, as a batch that is the caller's for a while.")
        .replies(&[
            Reply::new(200, "A batch.", Content::ListAs(crate::feedback::Kind::Feedback.content_type(), "Feedback"))
                .with(&[("ETag", "The lock, quoted: the batch is settled with it.")]),
            Reply::done("There is none."),
        ]),
    Operation::new(
        "delete",
        "/messages/serviceBound/feedback/{lock}",
        "completeFeedback",
        "Be done with a batch of feedback",
        SERVES,
    )
    .with(&[BATCH_LOCK])
    .replies(&[Reply::done("It is done with.")])
    .refuses(&[412]),
    Operation::new(
        "post",
        "/messages/serviceBound/feedback/{lock}/abandon",
        "abandonFeedback",
        "Give a batch of feedback back",
        SERVES,
    )
    .with(&[BATCH_LOCK])
    .replies(&[Reply::done("It will be given again.")])
    .refuses(&[412]),
];
