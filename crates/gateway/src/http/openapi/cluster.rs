//! The node and the cluster in the document: what operators look at and change, and the document itself.
//!
//! These are served by every node, whatever its roles. What the hub does stands in [`crate::http::cluster`].

use dunlin_model::directory::Right;

use super::table::{Access, Content, Operation, Reply};

const ADMIN: Access = Access::Service(&[Right::ClusterAdmin]);

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new("post", "/cluster/admin", "administer", "Ask or change the cluster", ADMIN)
        .says("One request of many kinds, by `op`; the answer depends on it. The command line's `dunlin cluster` uses nothing else.")
        .takes("AdminRequest", r#"{"op": "status"}"#)
        .replies(&[Reply::json("AdminAnswer", "What `op` answers.")])
        .refuses(&[400, 409, 413, 500]),
    Operation::new("post", "/cluster/join", "join", "Join the cluster", Access::InBody)
        .says("For a node that starts: whoever shows a join token that was not used yet is given the secrets that a node needs.")
        .takes("JoinRequest", r#"{"secret": ".."}"#)
        .replies(&[Reply::json("JoinFiles", "Files by name.")])
        .refuses(&[400, 409, 413, 429, 500, 503, 504]),
    Operation::new("get", "/certificates", "listCertificates", "Read this node's certificates", ADMIN)
        .replies(&[Reply::json("Certificates", "What it shows, and until when.")]),
    Operation::new("post", "/certificates/renew", "renewCertificates", "Renew this node's certificates", ADMIN)
        .says("Open connections stay.")
        .replies(&[Reply::json("Certificates", "The new ones.")])
        .refuses(&[500]),
    Operation::new("get", "/faults", "getFaults", "Read this node's faults", ADMIN)
        .says("What a node does to itself for a test, where its operator allows it.")
        .replies(&[Reply::json("Faults", "What came of them.")])
        .refuses(&[400, 404]),
    Operation::new("post", "/faults", "orderFaults", "Order faults of this node", ADMIN)
        .says("Only where its operator allows it.")
        .takes("Faults", "{}")
        .replies(&[Reply::json("Faults", "What came of them.")])
        .refuses(&[400, 404, 413]),
    Operation::new("get", "/health", "getHealth", "Whether this node serves", Access::Open).replies(&[
        Reply::json("Health", "It does."),
        Reply::new(503, "It does not, or it is about to stop.", Content::Json("Health")),
    ]),
    Operation::new("get", "/metrics", "getMetrics", "Read this node's metrics", Access::Open).replies(&[Reply::new(
        200,
        "In Prometheus's text format.",
        Content::Text("application/openmetrics-text"),
    )]),
    Operation::new("get", "/openapi.json", "getDocument", "Read this document", Access::Open)
        .replies(&[Reply::json("Document", "What this node serves.")
            .with(&[("ETag", "For `If-None-Match`, which is answered with 304 where nothing has changed.")])]),
    Operation::new("get", "/docs", "getPage", "Read this document as a page", Access::Open)
        .replies(&[Reply::new(200, "A page from which operations can be tried.", Content::Text("text/html"))]),
];
