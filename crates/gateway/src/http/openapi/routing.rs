//! Message routing in the document.
//!
//! What the hub does stands in [`crate::http::routing`].

use dunlin_model::directory::Right;

use super::parameters::IF_MATCH;
use super::registry::TAGGED;
use super::table::{Access, Operation, Reply};

const READS: Access = Access::Service(&[Right::RegistryRead, Right::ServiceConnect]);
const WRITES: Access = Access::Service(&[Right::ClusterAdmin]);

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("get", "/routing", "getRouting", "Read routes, endpoints and enrichments", READS)
        .says("Without secrets.")
        .replies(&[Reply::json("Routing", "The whole of it.").with(TAGGED)]),
    Operation::new("put", "/routing", "putRouting", "Change routes, endpoints and enrichments", WRITES)
        .says("The whole stands in place of what there is. Endpoints that keep their name go on where they are; a new one gets what is acknowledged from the answer on. What is left out of a webhook of the same name and address stays.")
        .with(&[IF_MATCH])
        .takes(
            "RoutingInput",
            r#"{"routes": [{"name": "hot", "source": "DeviceMessages", "condition": "$body.temperature > 30", "endpointNames": ["alarms"]}, {"name": "twins", "source": "TwinChangeEvents", "endpointNames": ["events"]}], "endpoints": {"webhooks": [{"name": "alarms", "url": "https://example.org/hook"}]}}"#,
        )
        .replies(&[Reply::json("Routing", "As it is stored.").with(TAGGED)])
        .refuses(&[400, 412, 413]),
    Operation::new("post", "/routing/test", "testRouting", "Try where a message would go", READS)
        .says("With a condition, whether that would take it.")
        .takes(
            "RoutingTrial",
            r#"{"message": {"body": {"temperature": 31}, "appProperties": {"level": "hot"}}, "deviceId": "dev-1"}"#,
        )
        .replies(&[Reply::json("RoutingTrialResult", "The routes that take it, and where they lead.")])
        .refuses(&[400, 413]),
    Operation::new("get", "/routing/endpoints/health", "getEndpointHealth", "How far behind endpoints are", READS)
        .replies(&[Reply::list("EndpointHealth", "Each endpoint but the built-in one.")]),
];
