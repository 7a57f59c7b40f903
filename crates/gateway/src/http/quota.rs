//! What the hub is held to: `/quota`, in the words of an IoT hub's SKU and of its quota metrics.
//!
//! What a plan means is decided in [`dunlin_model::quota`], what waits for it in [`crate::quota`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Right;
use dunlin_model::port::PlanError;
use dunlin_model::quota::{Operation, Plan, Tier};
use serde::Deserialize;
use serde_json::{Value, json};

use super::audited::audited;
use super::authorize;
use super::configurations::read_object;
use super::error::ApiError;
use crate::quota;
use crate::shared::Shared;

/// What an operator sends. What was read may be sent back. That there is to be no plan has to be said.
#[derive(Debug, Deserialize)]
pub(crate) struct Input {
    #[serde(deserialize_with = "Option::deserialize")]
    sku: Option<Sku>,
}

#[derive(Debug, Deserialize)]
struct Sku {
    name: String,
    capacity: u32,
}

impl Input {
    /// The plan that is asked for.
    pub(crate) fn read(self) -> Result<Option<Plan>, ApiError> {
        let Some(sku) = self.sku else {
            return Ok(None);
        };
        let tier = Tier::parse(&sku.name).ok_or_else(|| ApiError::invalid("the sku is F1, S1, S2 or S3"))?;
        let plan = Plan {
            tier,
            units: sku.capacity,
        };
        plan.check().map_err(ApiError::invalid)?;
        Ok(Some(plan))
    }
}

/// `GET /quota`.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize::reader(&shared, &headers, &["quota"])?;
    read(&shared).await.map(Json)
}

/// `PUT /quota`: another plan, or none. Whoever is connected stays so.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::ClusterAdmin, &["quota"])?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let plan = read_object::<Input>(&body)?.read()?;
    let mut record = AuditRecord::done("quota.put", caller.0, "hub");
    record.detail = plan.map_or_else(
        || "none".to_owned(),
        |plan| format!("{} units {}", plan.units, plan.tier.name()),
    );
    let putting = async {
        shared.client.put_plan(plan).await.map_err(|error| match error {
            PlanError::Refused(why) => ApiError::invalid(why),
            PlanError::Unknown => ApiError::unknown(),
        })?;
        // It is so, whatever comes of reading it. With the reading this gateway knows, too.
        Ok(match read(&shared).await {
            Ok(shown) => Json(shown).into_response(),
            Err(_) => ApiError::unknown().into_response(),
        })
    };
    audited(record, putting.await)
}

async fn read(shared: &Shared) -> Result<Value, ApiError> {
    let Some(plan) = shared.client.directory_now().await?.plan else {
        return Ok(json!({ "sku": null, "metrics": [], "rates": [] }));
    };
    let used = quota::used(shared, plan).await;
    let used = used.ok_or_else(|| ApiError::unavailable("the plan's keeper does not answer"))?;
    let rates = Operation::ALL.iter().filter_map(|operation| {
        let rate = plan.rate(*operation)?;
        Some(json!({
            "operation": operation.name(), "count": rate.count, "perSeconds": rate.per_ms / 1000,
        }))
    });
    Ok(json!({
        "sku": { "name": plan.tier.name(), "capacity": plan.units },
        "metrics": [{
            "name": "TotalMessages", "currentValue": used.used, "maxValue": plan.messages_per_day(),
        }],
        "rates": rates.collect::<Vec<_>>(),
    }))
}
