//! Provisioning in the document: enrolments and groups, registrations, linked hubs, and devices that register.
//!
//! What the hub does stands in [`crate::http::enrollments`], [`crate::http::registrations`] and
//! [`crate::http::linked_hubs`].

use dunlin_model::directory::Right;
use dunlin_model::limits::PROVISIONING_PAGE_MAX;
use dunlin_model::provisioning::book::GROUP_NAME_CHARS_MAX;

use super::parameters::{CONTINUATION, IF_MATCH, IF_MATCH_OR_NEW, REGISTRATION};
use super::registry::TAGGED;
use super::table::{Access, Body, Content, Kind, Operation, Parameter, Reply};

const READS: Access = Access::Service(&[Right::EnrollmentRead]);
const WRITES: Access = Access::Service(&[Right::EnrollmentWrite]);
const SEES: Access = Access::Service(&[Right::RegistrationStatusRead]);
const FORGETS: Access = Access::Service(&[Right::RegistrationStatusWrite]);

const GROUP: Parameter = Parameter::path("GroupName", "id", "Name of the group. Case does not count.")
    .of(Kind::Text(GROUP_NAME_CHARS_MAX))
    .such_as("plant");
const HOST: Parameter = Parameter::path("LinkedHubHost", "host", "Host name of the hub, without a port.")
    .such_as("other.example");
const SCOPE: Parameter = Parameter::path(
    "IdScope",
    "scope",
    "Id scope of the hub, as `GET /provisioning` says it.",
)
.such_as("0ne00000000");
const OPERATION: Parameter = Parameter::path(
    "OperationId",
    "operation",
    "The operation, as registering said it.",
)
.such_as("4.0");
const ITEMS: Parameter = Parameter::header(
    "ProvisioningItemCount",
    "x-ms-max-item-count",
    "Rows on a page at the most.",
)
.of(Kind::Number(1, PROVISIONING_PAGE_MAX as u64));

const PAGED: &[(&str, &str)] = &[
    (
        "x-ms-continuation",
        "Where the next page begins. Without it there is no more.",
    ),
    (
        "x-ms-item-type",
        "What the rows are: `enrollment`, `enrollmentGroup` or `deviceRegistration`.",
    ),
];
const BULK_SAYS: &str = "Up to 10. Each is done or refused by itself, and the answer says which were not.";
const KEYS_SAYS: &str = "With its keys, which nothing else shows.";
const PUT_SAYS: &str =
    "What is not sent of an attestation is kept as it was; keys are drawn where there are none.";
const REGISTER_BODY: &str = r#"{"registrationId": "pump-8", "payload": {"firmware": "1.2"}}"#;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("post", "/enrollments", "changeEnrollments", "Change many enrolments", WRITES)
        .says(BULK_SAYS)
        .takes(
            "EnrollmentBulk",
            r#"{"mode": "create", "enrollments": [{"registrationId": "pump-8", "attestation": {"type": "symmetricKey"}}]}"#,
        )
        .replies(&[Reply::json("EnrollmentBulkResult", "What came of it.")])
        .refuses_as_dps(&[400, 413]),
    Operation::new("post", "/enrollments/query", "listEnrollments", "List enrolments", READS)
        .with(&[ITEMS, CONTINUATION])
        .takes("EnrollmentQuery", r#"{"query": "SELECT * FROM enrollments"}"#)
        .replies(&[Reply::list("Enrollment", "A page.").with(PAGED)])
        .refuses_as_dps(&[400, 413]),
    Operation::new("get", "/enrollments/{id}", "getEnrollment", "Read an enrolment", READS)
        .with(&[REGISTRATION])
        .replies(&[Reply::json("Enrollment", "The enrolment, without its keys.").with(TAGGED)])
        .refuses_as_dps(&[400, 404]),
    Operation::new("put", "/enrollments/{id}", "putEnrollment", "Create or update an enrolment", WRITES)
        .says(PUT_SAYS)
        .with(&[REGISTRATION, IF_MATCH_OR_NEW])
        .takes("EnrollmentInput", r#"{"attestation": {"type": "symmetricKey"}}"#)
        .replies(&[Reply::json("Enrollment", "As it is stored, without its keys.").with(TAGGED)])
        .refuses_as_dps(&[400, 404, 409, 412, 413]),
    Operation::new("delete", "/enrollments/{id}", "deleteEnrollment", "Delete an enrolment", WRITES)
        .with(&[REGISTRATION, IF_MATCH])
        .replies(&[Reply::done("It is deleted.")])
        .refuses_as_dps(&[400, 404, 412]),
    Operation::new(
        "post",
        "/enrollments/{id}/attestationmechanism",
        "getEnrollmentKeys",
        "Read an enrolment's attestation",
        WRITES,
    )
    .says(KEYS_SAYS)
    .with(&[REGISTRATION])
    .replies(&[Reply::json("Attestation", "The attestation.")])
    .refuses_as_dps(&[400, 404]),
    Operation::new("post", "/enrollmentGroups", "changeEnrollmentGroups", "Change many groups", WRITES)
        .says(BULK_SAYS)
        .takes(
            "EnrollmentBulk",
            r#"{"mode": "create", "enrollmentGroups": [{"enrollmentGroupId": "plant", "attestation": {"type": "symmetricKey"}}]}"#,
        )
        .replies(&[Reply::json("EnrollmentBulkResult", "What came of it.")])
        .refuses_as_dps(&[400, 413]),
    Operation::new("post", "/enrollmentGroups/query", "listEnrollmentGroups", "List groups", READS)
        .with(&[ITEMS, CONTINUATION])
        .takes("EnrollmentQuery", r#"{"query": "SELECT * FROM enrollmentGroups"}"#)
        .replies(&[Reply::list("EnrollmentGroup", "A page.").with(PAGED)])
        .refuses_as_dps(&[400, 413]),
    Operation::new("get", "/enrollmentGroups/{id}", "getEnrollmentGroup", "Read a group", READS)
        .with(&[GROUP])
        .replies(&[Reply::json("EnrollmentGroup", "The group, without its keys.").with(TAGGED)])
        .refuses_as_dps(&[400, 404]),
    Operation::new("put", "/enrollmentGroups/{id}", "putEnrollmentGroup", "Create or update a group", WRITES)
        .says(PUT_SAYS)
        .with(&[GROUP, IF_MATCH_OR_NEW])
        .takes("EnrollmentInput", r#"{"attestation": {"type": "symmetricKey"}}"#)
        .replies(&[Reply::json("EnrollmentGroup", "As it is stored, without its keys.").with(TAGGED)])
        .refuses_as_dps(&[400, 404, 409, 412, 413]),
    Operation::new("delete", "/enrollmentGroups/{id}", "deleteEnrollmentGroup", "Delete a group", WRITES)
        .with(&[GROUP, IF_MATCH])
        .replies(&[Reply::done("It is deleted.")])
        .refuses_as_dps(&[400, 404, 412]),
    Operation::new(
        "post",
        "/enrollmentGroups/{id}/attestationmechanism",
        "getEnrollmentGroupKeys",
        "Read a group's attestation",
        WRITES,
    )
    .says(KEYS_SAYS)
    .with(&[GROUP])
    .replies(&[Reply::json("Attestation", "The attestation.")])
    .refuses_as_dps(&[400, 404]),
    Operation::new("get", "/registrations/{id}", "getRegistration", "Read a registration", SEES)
        .with(&[REGISTRATION])
        .replies(&[Reply::json("Registration", "The registration.")])
        .refuses_as_dps(&[400, 404]),
    Operation::new("delete", "/registrations/{id}", "deleteRegistration", "Forget a registration", FORGETS)
        .says("The device stays at its hub.")
        .with(&[REGISTRATION, IF_MATCH])
        .replies(&[Reply::done("It is forgotten.")])
        .refuses_as_dps(&[400, 404, 412]),
    Operation::new(
        "post",
        "/registrations/{id}/query",
        "listRegistrations",
        "List the registrations under a group",
        SEES,
    )
    .with(&[GROUP, ITEMS, CONTINUATION])
    .replies(&[Reply::list("Registration", "A page.").with(PAGED)])
    .refuses_as_dps(&[400, 404]),
    Operation::new("get", "/provisioning", "getProvisioning", "Read the id scope and the linked hubs", READS)
        .replies(&[Reply::json("Provisioning", "Without keys.")])
        .refuses_as_dps(&[]),
    Operation::new("put", "/provisioning/linkedHubs/{host}", "putLinkedHub", "Link a hub", WRITES)
        .says("Devices may then be sent to it. For this hub itself, what share of the devices it has.")
        .with(&[HOST])
        .takes(
            "LinkedHubInput",
            r#"{"connectionString": "HostName=other.example;SharedAccessKeyName=iothubowner;SharedAccessKey=..", "weight": 1}"#,
        )
        .replies(&[Reply::json("Provisioning", "All hubs, without keys.")])
        .refuses_as_dps(&[400, 404, 413]),
    Operation::new("delete", "/provisioning/linkedHubs/{host}", "deleteLinkedHub", "Unlink a hub", WRITES)
        .says("Nobody is sent there any more; who is there stays.")
        .with(&[HOST])
        .replies(&[Reply::done("It is unlinked.")])
        .refuses_as_dps(&[400, 404]),
    Operation::new(
        "put",
        "/{scope}/registrations/{id}/register",
        "registerDevice",
        "A device registers",
        Access::Registering,
    )
    .says("What came of it is told under the operation that the answer names. A TPM that does not show its keys again is answered 401 with a challenge.")
    .with(&[SCOPE, REGISTRATION])
    .takes_body(Body { content: Content::Json("RegistrationRequest"), is_required: false, example: REGISTER_BODY })
    .replies(&[Reply::new(202, "Ask for the operation after a while.", Content::Json("OperationBegun"))
        .with(&[("Retry-After", "Seconds.")])])
    .refuses_as_dps(&[400, 404, 413]),
    Operation::new(
        "get",
        "/{scope}/registrations/{id}/operations/{operation}",
        "getOperation",
        "A device asks what became of it",
        Access::Registering,
    )
    .with(&[SCOPE, REGISTRATION, OPERATION])
    .replies(&[Reply::json("RegistrationOperation", "What became of it.")])
    .refuses_as_dps(&[400, 404]),
    Operation::new(
        "post",
        "/{scope}/registrations/{id}",
        "lookUpRegistration",
        "A device asks what it is registered as",
        Access::Registering,
    )
    .with(&[SCOPE, REGISTRATION])
    .replies(&[Reply::json("Registration", "The registration.")])
    .refuses_as_dps(&[400, 404]),
];
