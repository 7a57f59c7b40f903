//! Queries over all twins in the document.
//!
//! What the hub does stands in [`crate::http::queries`].

use dunlin_model::directory::Right;

use super::parameters::{CONTINUATION, ITEM_COUNT};
use super::table::{Access, Operation, Parameter, Reply};

const RECEIPT: Parameter = Parameter::header(
    "Receipt",
    "dunlin-receipt",
    "Receipts of writes that the answer must have seen, up to 256 with commas between them: `shard/offset/term` of a message, `shard/@index/term` of anything else. A hub that has not what they name answers 412.",
);

pub(super) const OPERATIONS: &[Operation] = &[Operation::new(
    "post",
    "/devices/query",
    "query",
    "Ask all devices at once",
    Access::Service(&[Right::ServiceConnect, Right::RegistryRead]),
)
.says("IoT Hub's query language over the twins of devices and modules, with projections, conditions, aggregates and groups. An answer has every write that was acknowledged before the question. A page may have fewer rows than asked for, or none: where `x-ms-continuation` is in the answer there is more.")
.with(&[ITEM_COUNT, CONTINUATION, RECEIPT])
.takes("Query", r#"{"query": "SELECT deviceId, tags.floor FROM devices WHERE tags.floor >= 2"}"#)
.replies(&[Reply::list("Row", "A page of rows.").with(&[
    ("x-ms-continuation", "Where the next page begins. Without it there is no more."),
    ("x-ms-item-type", "`Twin` for `SELECT *`, `Raw` for columns, `DeviceJob` for jobs."),
])])
.refuses(&[400, 412, 413])];
