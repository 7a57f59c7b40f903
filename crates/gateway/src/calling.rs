//! A direct method on its way to a device: looked for as long as it may, and asked once. For services over HTTPS, and for
//! jobs.
//!
//! Whose gateway is to ask follows from the device's session. Where a device may have been asked, nobody asks again. What
//! callers may say is checked in `http::methods`; what an answer means is between the device and the caller.

use std::time::Duration;

use dunlin_model::command::{Consistency, DeviceView};
use dunlin_model::id::{DeviceId, NodeId};
use dunlin_model::method::{Invocation, MethodAnswer, MethodError};
use dunlin_model::port::{QueryError, ShardClient};
use dunlin_model::shard::registry::METHODS_FILTER;
use tokio::time::{Instant, sleep};

use crate::limits::{METHOD_LOOK_PAUSE_MAX, METHOD_LOOK_PAUSE_MIN, METHOD_MOVING_WAIT, METHOD_WEIGHT};
use crate::mqtt::admit::query_device;

/// A call that may be put to a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// JSON text.
    pub(crate) payload: String,
    pub(crate) response_wait: Duration,
    pub(crate) connect_wait: Duration,
}

impl Call {
    /// What it takes of [`METHODS_WEIGHT_MAX`](crate::limits::METHODS_WEIGHT_MAX): a place, and room for its payload.
    pub(crate) fn weight(&self) -> u32 {
        METHOD_WEIGHT + (self.payload.len() / 1024) as u32
    }
}

/// Why a device was not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NotAsked {
    /// It is not connected, or does not listen.
    NotOnline,
    /// There is no such device.
    Missing,
    /// It could not be looked for.
    Query(QueryError),
}

/// Looks for the device as long as it may, and has `ask` ask it once; `ask` says `None` if the device was certainly not
/// asked. An error says the same.
pub(crate) async fn find_and_ask<Asked>(
    client: &dyn ShardClient,
    device: &DeviceId,
    call: &Call,
    mut ask: impl FnMut(NodeId, Invocation) -> Asked,
) -> Result<Result<MethodAnswer, MethodError>, NotAsked>
where
    Asked: Future<Output = Option<Result<MethodAnswer, MethodError>>>,
{
    let begun = Instant::now();
    let mut look_until = begun + call.connect_wait;
    let mut pause = METHOD_LOOK_PAUSE_MIN;
    let mut is_first = true;
    loop {
        let is_last = Instant::now() >= look_until;
        let view = find(client, device, is_first || is_last).await?;
        is_first = false;
        if let Some(held_by) = view.session.held_by
            && listens(&view)
        {
            let invocation = Invocation {
                id: rand::random(),
                device: device.clone(),
                epoch: view.session.epoch,
                name: call.name.clone(),
                payload: call.payload.clone(),
                wait_ms: call.response_wait.as_millis() as u64,
            };
            if let Some(answer) = ask(held_by.gateway, invocation).await {
                return Ok(answer);
            }
            look_until = look_until.max(begun + METHOD_MOVING_WAIT);
        }
        if is_last && Instant::now() >= look_until {
            return Err(NotAsked::NotOnline);
        }
        sleep(pause).await;
        pause = (2 * pause).min(METHOD_LOOK_PAUSE_MAX);
    }
}

fn listens(view: &DeviceView) -> bool {
    view.session.held_by.is_some() && view.session.subscriptions.contains_key(METHODS_FILTER)
}

/// The device as its leader knows it; as the majority does, if that is to be certain and it would otherwise be said not
/// to be there.
async fn find(client: &dyn ShardClient, device: &DeviceId, is_certain: bool) -> Result<DeviceView, NotAsked> {
    let look = async |consistency| {
        let view = query_device(client, device, consistency).await;
        view.map_err(NotAsked::Query)
    };
    if let Some(view) = look(Consistency::Leader).await?
        && (listens(&view) || !is_certain)
    {
        return Ok(view);
    }
    look(Consistency::Linearizable).await?.ok_or(NotAsked::Missing)
}
