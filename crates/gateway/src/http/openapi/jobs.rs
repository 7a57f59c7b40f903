//! Scheduled jobs in the document.
//!
//! What the hub does stands in [`crate::http::jobs`].

use dunlin_model::directory::Right;
use dunlin_model::job::JOB_ID_BYTES_MAX;
use dunlin_model::limits::JOB_LIST_MAX;

use super::parameters::CONTINUATION;
use super::registry::WRITTEN;
use super::table::{Access, Kind, Operation, Parameter, Reply};

const READS: Access = Access::Service(&[Right::RegistryRead, Right::ServiceConnect]);
const SERVES: Access = Access::Service(&[Right::ServiceConnect]);

const JOB: Parameter = Parameter::path(
    "JobId",
    "id",
    "Id of the job: letters, digits and `-.+%_#*?!(),:=@$'`. Case counts.",
)
.of(Kind::Text(JOB_ID_BYTES_MAX))
.such_as("night-1");
const TYPE: Parameter = Parameter::query("JobType", "jobType", "Only jobs of this type.")
    .of(Kind::Word(&["scheduleUpdateTwin", "scheduleDeviceMethod"]));
const STATUS: Parameter =
    Parameter::query("JobStatus", "jobStatus", "Only jobs with this status.").of(Kind::Word(&[
        "scheduled",
        "queued",
        "running",
        "completed",
        "failed",
        "cancelled",
    ]));
const ITEMS: Parameter = Parameter::header(
    "JobItemCount",
    "x-ms-max-item-count",
    "Jobs on a page at the most; a page may have fewer.",
)
.of(Kind::Number(1, JOB_LIST_MAX as u64));

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("put", "/jobs/v2/{id}", "putJob", "Schedule a job", SERVES)
        .says("One change of twins, or one method, for all devices that a condition finds. `updateTwin` goes with the type `scheduleUpdateTwin`, `cloudToDeviceMethod` with `scheduleDeviceMethod`. The same again is answered as the first time; another job under its name is refused.")
        .with(&[JOB])
        .takes(
            "JobInput",
            r#"{"type": "scheduleUpdateTwin", "queryCondition": "tags.floor = 2", "updateTwin": {"properties": {"desired": {"interval": 5}}}, "maxExecutionTimeInSeconds": 600}"#,
        )
        .replies(&[Reply::json("Job", "The job.").with(WRITTEN)])
        .refuses(&[400, 403, 409, 413]),
    Operation::new("get", "/jobs/v2/{id}", "getJob", "Read a job", READS)
        .with(&[JOB])
        .replies(&[Reply::json("Job", "The job.")])
        .refuses(&[400, 404]),
    Operation::new("post", "/jobs/v2/{id}/cancel", "cancelJob", "Cancel a job", SERVES)
        .says("What was done at devices stays done. One that has ended is answered with 400.")
        .with(&[JOB])
        .replies(&[Reply::json("Job", "The job as it is now.").with(WRITTEN)])
        .refuses(&[400, 404]),
    Operation::new("get", "/jobs/v2/query", "listJobs", "List jobs", READS)
        .says("Shard by shard. A page may have fewer jobs than asked for, or none: where `x-ms-continuation` is in the answer there is more. The Python SDK, by its `User-Agent`, is given an object with the list in `items`.")
        .with(&[TYPE, STATUS, ITEMS, CONTINUATION])
        .replies(&[Reply::list("Job", "A page.").with(&[
            ("x-ms-continuation", "Where the next page begins. Without it there is no more."),
            ("x-ms-item-type", "`JobResponse`."),
        ])])
        .refuses(&[400]),
];
