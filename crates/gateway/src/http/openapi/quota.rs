//! What the hub is held to, in the document.
//!
//! What the hub does stands in [`crate::http::quota`].

use dunlin_model::directory::Right;

use super::table::{Access, Operation, Reply};

const READS: Access = Access::Service(&[Right::RegistryRead, Right::ServiceConnect]);
const WRITES: Access = Access::Service(&[Right::ClusterAdmin]);

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new(
        "get",
        "/quota",
        "getQuota",
        "Read the hub's plan and what is used of it",
        READS,
    )
    .says("Without a plan nothing is counted and nothing is refused.")
    .replies(&[Reply::json(
        "Quota",
        "The plan, the messages of this day (UTC), and how much of what may be done.",
    )]),
    Operation::new(
        "put",
        "/quota",
        "putQuota",
        "Change the hub's plan, or have none",
        WRITES,
    )
    .says("In force at once, in all gateways within a second. Nobody is disconnected.")
    .takes("QuotaInput", r#"{"sku": {"name": "S1", "capacity": 2}}"#)
    .replies(&[Reply::json("Quota", "As it is now.")])
    .refuses(&[400, 413]),
];
