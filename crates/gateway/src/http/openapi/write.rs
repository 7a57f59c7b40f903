//! The document from the table: operations, and of the components those that they name.
//!
//! Pure. What an operation is stands in the areas; what it may be refused with beside that, here.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::parameters::API_VERSION;
use super::schemas::named;
use super::table::{Access, Content, Kind, Operation, Parameter, Place, Refusals, Reply};
use super::{Area, schemas};
use crate::http::blob_fault::BLOB_CODES;
use crate::http::code::ErrorCode;
use crate::http::error::{ERROR_CODE_HEADER, PROVISIONING_CODE_HEADER};
use crate::provisioning::error::ProvisioningCode;

const SAS: &str = "sharedAccessSignature";
const ADMIN: &str = "adminToken";
const CERTIFICATE: &str = "clientCertificate";
const UPLOAD: &str = "uploadToken";

/// What every operation that looks at a credential may be refused with.
const REFUSALS: &[u16] = &[401, 429, 500, 503, 504];
/// The same in the form of DPS.
const REFUSALS_AS_DPS: &[u16] = &[401, 429, 500, 503];
/// The same in the form of Azure Storage.
const REFUSALS_AS_STORAGE: &[u16] = &[500, 503];
/// Refusals after which the same request may do better.
const PASSING: &[u16] = &[429, 503, 504];

const DESCRIPTION: &str = "An IoT hub you run yourself, with the REST interface of Azure IoT Hub and its Device \
Provisioning Service.\n\nMost operations need a token in `Authorization`: a shared access signature of a policy, as \
`dunlin sas generate` prints it, or of a device. What a policy must grant is said with each operation. Whoever \
operates the cluster may show the admin token instead, as `Bearer TOKEN`.\n\n`api-version` is accepted, as SDKs send \
it, and not needed. Errors have IoT Hub's form and are named in the header `iothub-errorcode`; those of provisioning \
have that of DPS, and those of files that of Azure Storage.";

/// The document of these areas.
pub(super) fn document(groups: &[&[Area]]) -> Value {
    let areas: Vec<&Area> = groups.iter().copied().flatten().collect();
    let mut paths = Map::new();
    let mut parameters = Map::new();
    let mut refusals = BTreeSet::new();
    for area in &areas {
        for operation in area.operations {
            let known = operation.parameters.iter().chain(versioned(operation));
            parameters.extend(known.map(|one| (one.key.to_owned(), parameter(one))));
            refusals.extend(refusals_of(operation));
            let item = paths.entry(operation.path).or_insert_with(|| json!({}));
            item[operation.method] = written(area.tag, operation);
        }
    }
    let tags = areas
        .iter()
        .map(|area| json!({ "name": area.tag, "description": area.description }));
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Dunlin",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
        },
        "servers": [{ "url": "/" }],
        "tags": tags.collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "parameters": parameters,
            "responses": refusals.into_iter().map(refusal).collect::<Map<_, _>>(),
            "securitySchemes": security_schemes(),
        },
    });
    document["components"]["schemas"] = needed(&document).into();
    document
}

fn security_schemes() -> Value {
    json!({
        SAS: {
            "type": "apiKey", "in": "header", "name": "Authorization",
            "description": "`SharedAccessSignature sr=..&sig=..&se=..&skn=POLICY`, as `dunlin sas generate` prints it; without `skn`, signed with a device's own key.",
        },
        ADMIN: {
            "type": "http", "scheme": "bearer",
            "description": "The admin token, which opens everything but what devices do.",
        },
        CERTIFICATE: {
            "type": "mutualTLS",
            "description": "The device's certificate, shown in the TLS handshake.",
        },
        UPLOAD: {
            "type": "apiKey", "in": "query", "name": "sig",
            "description": "The token of an upload, as its device was given it.",
        },
    })
}

/// Schemas that the document names, and those that they name.
fn needed(document: &Value) -> Map<String, Value> {
    let mut all = schemas::all();
    let mut found = Map::new();
    let mut names = BTreeSet::new();
    references(document, &mut names);
    while let Some(name) = names.pop_first() {
        // One that is not there is found out by whoever follows it.
        if let Some(schema) = all.remove(&name) {
            references(&schema, &mut names);
            found.insert(name, schema);
        }
    }
    found
}

/// Names of the schemas that stand somewhere in `value`.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, member)| match member.as_str() {
            Some(text) if key == "$ref" => {
                found.extend(text.strip_prefix("#/components/schemas/").map(str::to_owned));
            }
            _ => references(member, found),
        }),
        Value::Array(members) => members.iter().for_each(|member| references(member, found)),
        _ => {}
    }
}

/// The parameter that SDKs send with every call of theirs.
fn versioned(operation: &Operation) -> &'static [Parameter] {
    match operation.access {
        Access::Service(_) | Access::Device | Access::Registering => &[API_VERSION],
        Access::Open | Access::InBody | Access::Upload => &[],
    }
}

fn written(tag: &str, operation: &Operation) -> Value {
    let said = [operation.description, &access_text(operation.access)].join("\n\n");
    let parameters = operation.parameters.iter().chain(versioned(operation));
    let mut shown = json!({
        "operationId": operation.id,
        "tags": [tag],
        "summary": operation.summary,
        "description": said.trim(),
        "security": security(operation.access),
        "parameters": parameters
            .map(|one| json!({ "$ref": format!("#/components/parameters/{}", one.key) }))
            .collect::<Vec<_>>(),
    });
    if let Access::Service(rights) = operation.access {
        shown["x-dunlin-rights"] = rights.iter().map(|right| format!("{right:?}")).collect();
    }
    if !operation.also.is_empty() {
        shown["x-dunlin-other-spellings"] = json!(operation.also);
    }
    if !operation.can_be_tried {
        shown["x-dunlin-not-from-a-page"] = true.into();
    }
    if let Some(body) = operation.body {
        let mut content = content(body.content);
        for media in content.values_mut() {
            media["example"] = serde_json::from_str(body.example).unwrap_or_else(|_| body.example.into());
        }
        shown["requestBody"] = json!({ "required": body.is_required, "content": content });
    }
    let mut responses: Map<String, Value> = refusals_of(operation)
        .into_iter()
        .map(|key| {
            let reference = json!({ "$ref": format!("#/components/responses/{}", key.name()) });
            (key.status.to_string(), reference)
        })
        .collect();
    responses.extend(
        operation
            .replies
            .iter()
            .map(|one| (one.status.to_string(), reply(one))),
    );
    shown["responses"] = responses.into();
    shown
}

fn security(access: Access) -> Value {
    match access {
        Access::Open | Access::InBody => json!([]),
        Access::Service(_) => json!([{ SAS: [] }, { ADMIN: [] }]),
        Access::Device | Access::Registering => json!([{ SAS: [] }, { CERTIFICATE: [] }]),
        Access::Upload => json!([{ UPLOAD: [] }]),
    }
}

fn access_text(access: Access) -> String {
    match access {
        Access::Open => "Needs no credential.".to_owned(),
        Access::InBody => "Needs no credential but the token in the body.".to_owned(),
        Access::Upload => "Needs the token of an upload of this file, in the query.".to_owned(),
        Access::Service(rights) => {
            let rights: Vec<String> = rights.iter().map(|right| format!("`{right:?}`")).collect();
            format!("Needs a policy with {}.", rights.join(" or "))
        }
        Access::Device => {
            "Needs a credential of the device: its token, that of a policy with `DeviceConnect`, or its certificate."
                .to_owned()
        }
        Access::Registering => {
            "Needs what the device's enrolment says: a token with `skn=registration`, or its certificate.".to_owned()
        }
    }
}

fn parameter(one: &Parameter) -> Value {
    let mut shown = json!({
        "name": one.name,
        "in": match one.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        },
        "required": one.place == Place::Path,
        "description": one.description,
        "schema": match one.kind {
            Kind::Text(0) => json!({ "type": "string" }),
            Kind::Text(chars_max) => json!({ "type": "string", "minLength": 1, "maxLength": chars_max }),
            Kind::Number(from, u64::MAX) => json!({ "type": "integer", "minimum": from }),
            Kind::Number(from, to) => json!({ "type": "integer", "minimum": from, "maximum": to }),
            Kind::Word(words) => schemas::words(words),
        },
    });
    if !one.example.is_empty() {
        let is_number = matches!(one.kind, Kind::Number(..));
        let number = serde_json::from_str(one.example).ok().filter(|_| is_number);
        shown["example"] = number.unwrap_or_else(|| one.example.into());
    }
    shown
}

fn reply(one: &Reply) -> Value {
    let mut shown = json!({ "description": one.description });
    let content = content(one.content);
    if !content.is_empty() {
        shown["content"] = content.into();
    }
    for (name, description) in one.headers {
        // OpenAPI has this one stand under `content` alone.
        if *name != "Content-Type" {
            shown["headers"][name] = json!({ "description": description, "schema": { "type": "string" } });
        }
    }
    shown
}

fn content(content: Content) -> Map<String, Value> {
    let events = || ("text/event-stream", json!({ "type": "string" }));
    let media = match content {
        Content::Nothing => Vec::new(),
        Content::Json(name) => vec![("application/json", named(name))],
        Content::List(name) => vec![("application/json", schemas::list_of(named(name)))],
        Content::ListAs(media, name) => vec![(media, schemas::list_of(named(name)))],
        Content::Either(names) => {
            let schemas: Vec<Value> = names.iter().map(|name| named(name)).collect();
            vec![("application/json", json!({ "anyOf": schemas }))]
        }
        Content::JsonOrEvents(name) => vec![("application/json", named(name)), events()],
        Content::JsonAs(media, name) => vec![(media, named(name))],
        Content::Events => vec![events()],
        // Bytes without a schema are any bytes.
        Content::Bytes => vec![("application/octet-stream", json!({}))],
        Content::Text(media) => vec![(media, json!({ "type": "string" }))],
    };
    let media = media.into_iter();
    media
        .map(|(name, schema)| (name.to_owned(), json!({ "schema": schema })))
        .collect()
}

/// Whose form a refusal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Form {
    Hub,
    Provisioning,
    Storage,
}

/// Names a refusal among the components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Refusal {
    status: u16,
    form: Form,
}

impl Refusal {
    fn name(self) -> String {
        let form = match self.form {
            Form::Hub => "Error",
            Form::Provisioning => "ProvisioningError",
            Form::Storage => "StorageError",
        };
        format!("{form}{}", self.status)
    }
}

fn refusals_of(operation: &Operation) -> BTreeSet<Refusal> {
    let (own, always, form) = match operation.refusals {
        Refusals::Hub(own) => (own, REFUSALS, Form::Hub),
        Refusals::Provisioning(own) => (own, REFUSALS_AS_DPS, Form::Provisioning),
        Refusals::Storage(own) => (own, REFUSALS_AS_STORAGE, Form::Storage),
    };
    let always = match operation.access {
        Access::Open | Access::InBody => &[],
        Access::Service(_) | Access::Device | Access::Registering | Access::Upload => always,
    };
    let statuses = own.iter().chain(always).copied();
    let mut found: BTreeSet<Refusal> = statuses.map(|status| Refusal { status, form }).collect();
    // Who a service is is looked at before anything else.
    if form == Form::Storage && matches!(operation.access, Access::Service(_)) {
        let form = Form::Hub;
        found.insert(Refusal { status: 401, form });
    }
    found
}

/// A refusal with the names that errors of its status have.
fn refusal(one: Refusal) -> (String, Value) {
    let names: Vec<&str> = match one.form {
        Form::Hub => {
            let of_status = ErrorCode::ALL
                .iter()
                .filter(|(code, ..)| code.status() == one.status);
            of_status.map(|(.., name)| *name).collect()
        }
        Form::Provisioning => {
            let of_status = ProvisioningCode::ALL
                .iter()
                .filter(|(code, ..)| code.status() == one.status);
            of_status.map(|(.., name)| *name).collect()
        }
        Form::Storage => {
            let of_status = BLOB_CODES.iter().filter(|(status, _)| *status == one.status);
            of_status.map(|(_, name)| *name).collect()
        }
    };
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    let mut headers = match one.form {
        Form::Hub => {
            json!({ ERROR_CODE_HEADER: { "description": "Name of the error.", "schema": schemas::words(&names) } })
        }
        Form::Provisioning => json!({
            PROVISIONING_CODE_HEADER: { "description": "Number of the error.", "schema": { "type": "integer" } },
        }),
        Form::Storage => json!({
            PROVISIONING_CODE_HEADER: { "description": "Name of the error.", "schema": schemas::words(&names) },
        }),
    };
    if PASSING.contains(&one.status) {
        headers["Retry-After"] = json!({ "description": "Seconds.", "schema": { "type": "integer" } });
    }
    let content = match (one.form, one.status) {
        (Form::Storage, _) => json!({ "application/xml": { "schema": { "type": "string" } } }),
        (Form::Hub, _) => json!({ "application/json": { "schema": named("Error") } }),
        (Form::Provisioning, 401) => {
            let either = json!({ "anyOf": [named("ProvisioningError"), named("TpmChallenge")] });
            json!({ "application/json": { "schema": either } })
        }
        (Form::Provisioning, _) => json!({ "application/json": { "schema": named("ProvisioningError") } }),
    };
    let shown = json!({
        "description": format!("{}.", quoted.join(", ")),
        "headers": headers,
        "content": content,
    });
    (one.name(), shown)
}
