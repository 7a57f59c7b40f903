//! Configurations in the document.
//!
//! What the hub does stands in [`crate::http::configurations`].

use dunlin_model::configuration::CONFIGURATIONS_MAX;
use dunlin_model::directory::Right;

use super::parameters::{CONFIGURATION, DEVICE, IF_MATCH, IF_MATCH_OR_NEW};
use super::registry::{TAGGED, TAGGED_AND_WRITTEN, WRITTEN};
use super::table::{Access, Kind, Operation, Parameter, Reply};

const READS: Access = Access::Service(&[Right::RegistryRead, Right::ServiceConnect]);
const WRITES: Access = Access::Service(&[Right::RegistryReadWrite]);

const TOP: Parameter = Parameter::query(
    "ConfigurationsTop",
    "top",
    "How many at the most; all unless asked.",
)
.of(Kind::Number(0, CONFIGURATIONS_MAX as u64));

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("get", "/configurations", "listConfigurations", "List configurations", READS)
        .also(&["/configurations/"])
        .with(&[TOP])
        .replies(&[Reply::list("Configuration", "Each with what its metrics come to now.")])
        .refuses(&[400]),
    Operation::new("get", "/configurations/{id}", "getConfiguration", "Read a configuration", READS)
        .with(&[CONFIGURATION])
        .replies(&[Reply::json("Configuration", "With what its metrics come to now.").with(TAGGED)])
        .refuses(&[404]),
    Operation::new("put", "/configurations/{id}", "putConfiguration", "Create or update a configuration", WRITES)
        .says("Its content never changes after it was made; what is left out of an update stays as it was. Twins follow within seconds.")
        .with(&[CONFIGURATION, IF_MATCH_OR_NEW])
        .takes(
            "ConfigurationInput",
            r#"{"content": {"deviceContent": {"properties.desired.interval": 5}}, "targetCondition": "tags.floor = 2", "priority": 10, "metrics": {"queries": {"done": "SELECT deviceId FROM devices WHERE properties.reported.interval = 5"}}}"#,
        )
        .replies(&[Reply::json("Configuration", "The configuration as it is stored.").with(TAGGED_AND_WRITTEN)])
        .refuses(&[400, 403, 404, 409, 412, 413]),
    Operation::new("delete", "/configurations/{id}", "deleteConfiguration", "Delete a configuration", WRITES)
        .says("What it set in twins stays, unless another configuration says otherwise.")
        .with(&[CONFIGURATION, IF_MATCH])
        .replies(&[Reply::done("It is deleted.").with(WRITTEN)])
        .refuses(&[404, 412]),
    Operation::new("post", "/configurations/testQueries", "testQueries", "Try a condition and metrics", READS)
        .takes(
            "QueriesTrial",
            r#"{"targetCondition": "tags.floor = 2", "customMetricQueries": {"done": "SELECT deviceId FROM devices WHERE tags.floor = 2"}}"#,
        )
        .replies(&[Reply::json("QueriesTrialResult", "What is wrong with them, if anything is.")])
        .refuses(&[400, 413]),
    Operation::new(
        "post",
        "/devices/{id}/applyConfigurationContent",
        "applyConfigurationContent",
        "Apply content to one device",
        WRITES,
    )
    .says("At once, and by hand: no configuration is made of it.")
    .with(&[DEVICE])
    .takes("ConfigurationContent", r#"{"modulesContent": {"camera": {"properties.desired": {"fps": 5}}}}"#)
    .replies(&[Reply::done("The twins say so.").with(WRITTEN)])
    .refuses(&[400, 404, 413]),
];
