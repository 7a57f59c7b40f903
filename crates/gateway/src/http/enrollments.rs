//! Enrolments and enrolment groups as DPS's service interface has them: one set of handlers for both.
//!
//! What stands in the JSON is in [`crate::provisioning::json`], where it is kept in [`crate::provisioning::store`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Right;
use dunlin_model::identity::{Condition, etag};
use dunlin_model::limits::PROVISIONING_PAGE_MAX;
use serde::Deserialize;
use serde_json::{Value, json};

use super::audited::write;
use super::authorize::Caller;
use super::devices::{CONTINUATION, condition, parse_continuation, put_continuation, version};
use super::etag::tagged;
use super::queries::{ITEM_COUNT, ITEM_TYPE};
use super::registrations::{Answered, audited, received, service};
use crate::limits::PROVISIONING_BULK_MAX;
use crate::provisioning::error::ProvisioningError;
use crate::provisioning::json::{self as shapes, EnrollmentInput};
use crate::provisioning::store::{self, Found, Kind, Listing, Place, Row};
use crate::shared::Shared;

/// `/enrollments`, or `/enrollmentGroups`.
pub(crate) fn collection(kind: Kind) -> MethodRouter<Arc<Shared>> {
    post(
        move |State(shared): State<Arc<Shared>>, headers: HeaderMap, body| async move {
            bulk(kind, &shared, &headers, body).await
        },
    )
}

/// `/enrollments/query`.
pub(crate) fn query(kind: Kind) -> MethodRouter<Arc<Shared>> {
    post(
        move |State(shared): State<Arc<Shared>>, headers: HeaderMap, body| async move {
            Answered::from(list(kind, &shared, &headers, body).await)
        },
    )
}

/// `/enrollments/{id}`.
pub(crate) fn one(kind: Kind) -> MethodRouter<Arc<Shared>> {
    let reading = move |State(shared): State<Arc<Shared>>, Path(name): Path<String>, headers: HeaderMap| async move {
        Answered::from(read(kind, &shared, &name, &headers).await)
    };
    let writing = move |State(shared): State<Arc<Shared>>,
                        Path(name): Path<String>,
                        headers: HeaderMap,
                        body| async move { put(kind, &shared, &name, &headers, body).await };
    let deleting = move |State(shared): State<Arc<Shared>>, Path(name): Path<String>, headers: HeaderMap| async move {
        delete(kind, &shared, &name, &headers).await
    };
    get(reading).put(writing).delete(deleting)
}

/// `/enrollments/{id}/attestationmechanism`.
pub(crate) fn attestation(kind: Kind) -> MethodRouter<Arc<Shared>> {
    post(
        move |State(shared): State<Arc<Shared>>, Path(name): Path<String>, headers: HeaderMap| async move {
            secrets(kind, &shared, &name, &headers).await
        },
    )
}

/// The name of the collection in paths.
fn path(kind: Kind) -> &'static str {
    match kind {
        Kind::Individual => "enrollments",
        Kind::Group => "enrollmentGroups",
    }
}

/// What the audit calls a change.
fn action(kind: Kind, verb: &'static str) -> &'static str {
    match (kind, verb) {
        (Kind::Individual, "put") => "enrollment.put",
        (Kind::Individual, "delete") => "enrollment.delete",
        (Kind::Individual, _) => "enrollment.read-keys",
        (Kind::Group, "put") => "enrollment-group.put",
        (Kind::Group, "delete") => "enrollment-group.delete",
        (Kind::Group, _) => "enrollment-group.read-keys",
    }
}

fn shown(kind: Kind, (enrollment, registration): &Found) -> Value {
    shapes::enrollment(enrollment, kind.is_group(), registration.as_ref())
}

fn respond(kind: Kind, found: &Found) -> Response {
    let tag = etag(found.0.version);
    tagged(Json(shown(kind, found)).into_response(), &tag)
}

async fn read(
    kind: Kind,
    shared: &Shared,
    name: &str,
    headers: &HeaderMap,
) -> Result<Response, ProvisioningError> {
    service(shared, headers, Right::EnrollmentRead, &[path(kind), name])?;
    Ok(respond(kind, &store::get(shared, &kind.name(name)?).await?))
}

async fn put(
    kind: Kind,
    shared: &Shared,
    name: &str,
    headers: &HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Answered {
    let caller = match service(shared, headers, Right::EnrollmentWrite, &[path(kind), name]) {
        Ok(caller) => caller,
        Err(error) => return Err::<Response, _>(error).into(),
    };
    let record = AuditRecord::done(action(kind, "put"), caller.0, super::claimed(name));
    let writing = async {
        let body = received(body)?;
        let input = EnrollmentInput::read(&body)?;
        let asked = condition(headers, Condition::Absent)?;
        Ok(respond(kind, &store_one(kind, shared, name, input, asked).await?))
    };
    audited(record, writing.await)
}

/// Stores one enrolment, and reads it back.
async fn store_one(
    kind: Kind,
    shared: &Shared,
    name: &str,
    input: EnrollmentInput,
    asked: Condition,
) -> Result<Found, ProvisioningError> {
    let in_body = match kind {
        Kind::Individual => &input.registration_id,
        Kind::Group => &input.enrollment_group_id,
    };
    if in_body
        .as_deref()
        .is_some_and(|in_body| !in_body.eq_ignore_ascii_case(name))
    {
        return Err(ProvisioningError::invalid(
            "the id in the body is another than in the path",
        ));
    }
    let checked = kind.name(name)?;
    let before = match asked {
        Condition::Absent => None,
        _ => store::find(shared, &checked).await?,
    };
    let known = before.as_ref().map(|(enrollment, _)| &enrollment.spec);
    let spec = input.complete(known, kind.is_group())?;
    // What was kept of the stored one must still be what it was.
    let condition = match (&before, asked) {
        (Some((enrollment, _)), Condition::Present | Condition::Any) => {
            Condition::Version(enrollment.version)
        }
        _ => asked,
    };
    store::put(shared, &checked, name, spec, condition).await?;
    store::get(shared, &checked).await
}

async fn delete(kind: Kind, shared: &Shared, name: &str, headers: &HeaderMap) -> Answered {
    let caller = match service(shared, headers, Right::EnrollmentWrite, &[path(kind), name]) {
        Ok(caller) => caller,
        Err(error) => return Err::<Response, _>(error).into(),
    };
    let record = AuditRecord::done(action(kind, "delete"), caller.0, super::claimed(name));
    let deleting = async {
        let condition = condition(headers, Condition::Present)?;
        store::delete(shared, &kind.name(name)?, condition).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    audited(record, deleting.await)
}

async fn secrets(kind: Kind, shared: &Shared, name: &str, headers: &HeaderMap) -> Answered {
    let caller = match service(shared, headers, Right::EnrollmentWrite, &[path(kind), name]) {
        Ok(caller) => caller,
        Err(error) => return Err::<Response, _>(error).into(),
    };
    let record = AuditRecord::done(action(kind, "read"), caller.0, super::claimed(name));
    let reading = async {
        let (enrollment, _) = store::get(shared, &kind.name(name)?).await?;
        Ok(Json(shapes::attestation(&enrollment.spec.attestation, true)).into_response())
    };
    audited(record, reading.await)
}

/// What is asked of many at once.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bulk {
    mode: String,
    #[serde(default, alias = "enrollmentGroups")]
    enrollments: Vec<Value>,
}

/// `POST /enrollments`: each is done or refused by itself.
async fn bulk(
    kind: Kind,
    shared: &Shared,
    headers: &HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Answered {
    let changing = async {
        let caller = service(shared, headers, Right::EnrollmentWrite, &[path(kind)])?;
        let body = received(body)?;
        let bulk: Bulk = serde_json::from_slice(&body)
            .map_err(|error| ProvisioningError::invalid(format!("the body is no bulk operation: {error}")))?;
        if bulk.enrollments.len() > PROVISIONING_BULK_MAX {
            return Err(ProvisioningError::invalid(format!(
                "more than {PROVISIONING_BULK_MAX} enrollments"
            )));
        }
        let mut errors = Vec::new();
        for sent in bulk.enrollments {
            let named = sent[if kind.is_group() {
                "enrollmentGroupId"
            } else {
                "registrationId"
            }]
            .clone();
            let name = named.as_str().unwrap_or_default();
            if let Err(error) = change_one(kind, shared, &caller, (name, &bulk.mode), sent).await {
                errors.push(json!({
                    "registrationId": name,
                    "errorCode": error.code.number(),
                    "errorStatus": error.message,
                }));
            }
        }
        let body = json!({ "isSuccessful": errors.is_empty(), "errors": errors });
        Ok(Json(body).into_response())
    };
    let changed: Result<Response, ProvisioningError> = changing.await;
    changed.into()
}

async fn change_one(
    kind: Kind,
    shared: &Shared,
    caller: &Caller,
    (name, mode): (&str, &str),
    sent: Value,
) -> Result<(), ProvisioningError> {
    let verb = if mode == "delete" { "delete" } else { "put" };
    let mut record = AuditRecord::done(action(kind, verb), caller.0.clone(), super::claimed(name));
    let changing = async {
        let etag = sent["etag"].as_str().map(str::to_owned);
        let asked = match mode {
            "create" => Condition::Absent,
            "update" | "delete" => Condition::Present,
            "updateIfMatchETag" => version(etag.as_deref().unwrap_or_default().trim_matches('"')),
            _ => {
                return Err(ProvisioningError::invalid(
                    "mode is create, update, updateIfMatchETag or delete",
                ));
            }
        };
        if mode == "delete" {
            return store::delete(shared, &kind.name(name)?, asked).await;
        }
        let input = EnrollmentInput::read(sent.to_string().as_bytes())?;
        store_one(kind, shared, name, input, asked).await.map(|_| ())
    };
    let changed = changing.await;
    if let Err(error) = &changed {
        record.outcome = error.audit_outcome();
    }
    write(shared, None, record).await;
    changed
}

#[derive(Debug, Deserialize)]
struct Asked {
    query: String,
}

/// How many rows a page may have, as its caller wants it.
fn count_max(headers: &HeaderMap) -> Result<usize, ProvisioningError> {
    let Some(value) = headers.get(ITEM_COUNT) else {
        return Ok(PROVISIONING_PAGE_MAX);
    };
    let count = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok());
    match count {
        Some(0) | None => Err(ProvisioningError::invalid(format!("{ITEM_COUNT} is no number"))),
        Some(count) => Ok(count.min(PROVISIONING_PAGE_MAX)),
    }
}

/// The page that is asked for.
fn place(headers: &HeaderMap) -> Result<Place, ProvisioningError> {
    let Some(value) = headers.get(CONTINUATION) else {
        return Ok(Place::default());
    };
    let read = parse_continuation(value);
    let (shard, after) = read.ok_or_else(|| ProvisioningError::invalid("the continuation cannot be read"))?;
    Ok(Place { shard, after })
}

fn page(rows: Vec<Value>, kind: &'static str, next: Option<Place>) -> Response {
    let mut response = Json(rows).into_response();
    let headers = response.headers_mut();
    headers.insert(ITEM_TYPE, HeaderValue::from_static(kind));
    if let Some(next) = next {
        put_continuation(headers, next.shard, &next.after);
    }
    response
}

async fn list(
    kind: Kind,
    shared: &Shared,
    headers: &HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ProvisioningError> {
    service(shared, headers, Right::EnrollmentRead, &[path(kind), "query"])?;
    let body = received(body)?;
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| ProvisioningError::invalid(format!("the body is no query: {error}")))?;
    let words: Vec<String> = asked
        .query
        .split_whitespace()
        .map(str::to_ascii_lowercase)
        .collect();
    let wanted = ["select", "*", "from", &path(kind).to_ascii_lowercase()];
    if words != wanted {
        return Err(ProvisioningError::invalid(format!(
            "the query is: SELECT * FROM {}",
            path(kind)
        )));
    }
    let (place, count_max) = (place(headers)?, count_max(headers)?);
    if kind.is_group() {
        let directory = shared.client.directory_now().await?;
        let begin = place.shard as usize;
        let rows: Vec<Value> = directory
            .book
            .groups()
            .skip(begin)
            .take(count_max)
            .map(|group| shown(kind, &(group.clone(), None)))
            .collect();
        let end = begin + rows.len();
        let next = (end < directory.book.groups().count()).then(|| Place {
            shard: end as u32,
            ..Place::default()
        });
        return Ok(page(rows, "enrollmentGroup", next));
    }
    let (rows, next) = store::page(shared, Listing::Enrollments, place, count_max).await?;
    let rows = rows.iter().filter_map(|row| match row {
        Row::Enrollment(found) => Some(shown(kind, found)),
        Row::Registration(_) => None,
    });
    Ok(page(rows.collect(), "enrollment", next))
}

/// `POST /registrations/{group}/query`: the registrations under a group.
pub(crate) async fn registrations(
    State(shared): State<Arc<Shared>>,
    Path(group): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let listing = async {
        let path = ["registrations", group.as_str(), "query"];
        service(&shared, &headers, Right::RegistrationStatusRead, &path)?;
        let (place, count_max) = (place(&headers)?, count_max(&headers)?);
        let (rows, next) = store::page(&shared, Listing::Registrations(&group), place, count_max).await?;
        let rows = rows.iter().filter_map(|row| match row {
            Row::Registration(registration) => Some(shapes::registration_state(registration)),
            Row::Enrollment(_) => None,
        });
        Ok(page(rows.collect(), "deviceRegistration", next))
    };
    let listed: Result<Response, ProvisioningError> = listing.await;
    listed.into()
}
