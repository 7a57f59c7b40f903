//! What the hub serves, as an OpenAPI document, and a page to read and try it: one table of operations is behind both.
//!
//! Both are made once and hold no secrets, so anybody may read them; the page asks nothing of any other host. Here is
//! what is in the document and how it is served. Operations stand in one file for each area, bodies in [`schemas`], and
//! [`write`] makes a document of them. Tests hold it against the routes of [`super`] and against what handlers really
//! answer.

mod cluster;
mod configurations;
mod files;
mod jobs;
mod messages;
mod parameters;
mod provisioning;
mod queries;
mod quota;
mod registry;
mod routing;
mod schemas;
mod table;
mod telemetry;
mod twins;
mod write;

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::Bytes;
use ring::digest::{SHA256, digest};

use crate::auth::BASE64;
use table::Operation;

/// Operations that belong together.
struct Area {
    tag: &'static str,
    description: &'static str,
    operations: &'static [Operation],
}

/// What nodes serve that are gateways.
const FOR_HUB: &[Area] = &[
    Area {
        tag: "Registry",
        description: "Devices and their modules: who may connect, and how they prove it.",
        operations: registry::OPERATIONS,
    },
    Area {
        tag: "Twins and methods",
        description: "What services want of devices, and what devices report.",
        operations: twins::OPERATIONS,
    },
    Area {
        tag: "Queries",
        description: "All devices at once.",
        operations: queries::OPERATIONS,
    },
    Area {
        tag: "Configurations",
        description: "What many twins shall say, by a condition on them.",
        operations: configurations::OPERATIONS,
    },
    Area {
        tag: "Jobs",
        description: "One change or one method for many devices, at a time.",
        operations: jobs::OPERATIONS,
    },
    Area {
        tag: "Messages to devices",
        description: "Cloud-to-device messages, dead letters and feedback.",
        operations: messages::OPERATIONS,
    },
    Area {
        tag: "Files",
        description: "Files that devices upload, and who hears of them.",
        operations: files::OPERATIONS,
    },
    Area {
        tag: "Telemetry and events",
        description: "What devices send, and how readers get it.",
        operations: telemetry::OPERATIONS,
    },
    Area {
        tag: "Message routing",
        description: "Which events go where, and with what.",
        operations: routing::OPERATIONS,
    },
    Area {
        tag: "Plan",
        description: "What the hub is held to, if anything.",
        operations: quota::OPERATIONS,
    },
    Area {
        tag: "Provisioning",
        description: "Devices that register by themselves, and what operators say of them.",
        operations: provisioning::OPERATIONS,
    },
];

/// What every node serves.
const FOR_OPERATORS: &[Area] = &[Area {
    tag: "Cluster",
    description: "How this node and the cluster are, and what operators change.",
    operations: cluster::OPERATIONS,
}];

/// Something that is made once, with what tells it from another version of it.
struct Served {
    body: Bytes,
    tag: HeaderValue,
}

impl Served {
    fn of(areas: &[&[Area]]) -> Self {
        let body = write::document(areas).to_string();
        Self::new(body.into())
    }

    fn new(body: Bytes) -> Self {
        let tag = format!("\"{}\"", BASE64.encode(digest(&SHA256, &body)));
        Self {
            body,
            // Base64 in quotes is always a header's value.
            tag: HeaderValue::try_from(tag).unwrap_or(HeaderValue::from_static("\"\"")),
        }
    }

    /// The whole, unless the asker has it.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get(header::IF_NONE_MATCH);
        let mut response = match known == Some(&self.tag) {
            true => StatusCode::NOT_MODIFIED.into_response(),
            false => self.body.clone().into_response(),
        };
        let answered = response.headers_mut();
        answered.insert(header::ETAG, self.tag.clone());
        answered.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

static EVERYTHING: LazyLock<Served> = LazyLock::new(|| Served::of(&[FOR_HUB, FOR_OPERATORS]));
static OPERATORS_ALONE: LazyLock<Served> = LazyLock::new(|| Served::of(&[FOR_OPERATORS]));

const PAGE: &str = include_str!("page.html");
static SERVED_PAGE: LazyLock<Served> = LazyLock::new(|| Served::new(Bytes::from_static(PAGE.as_bytes())));

/// What the page may do: what stands in it, and ask the hub that it came from.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |open: &str, close: &str| {
        let inner = PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close));
        let inner = inner.map_or("", |(inner, _)| inner);
        format!("'sha256-{}'", BASE64.encode(digest(&SHA256, inner.as_bytes())))
    };
    let policy = format!(
        "default-src 'none'; connect-src 'self'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash("<style>", "</style>"),
        hash("<script>", "</script>"),
    );
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
});

fn as_json(mut response: Response) -> Response {
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// `GET /openapi.json` of a node that is a gateway.
pub(crate) async fn everything(headers: HeaderMap) -> Response {
    as_json(EVERYTHING.answer(&headers))
}

/// `GET /openapi.json` of a node that serves operators alone.
pub(crate) async fn operators_alone(headers: HeaderMap) -> Response {
    as_json(OPERATORS_ALONE.answer(&headers))
}

/// `GET /docs`.
pub(crate) async fn page(headers: HeaderMap) -> Response {
    let mut response = SERVED_PAGE.answer(&headers);
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}
