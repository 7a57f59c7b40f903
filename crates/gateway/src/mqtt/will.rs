//! The will of a connection that has ended: paid for and submitted as any message is, within a bound, since nobody waits for
//! it.

use std::sync::Arc;

use dunlin_model::id::DeviceId;
use dunlin_model::port::{AckSink, SubmitError};
use tokio::time::timeout;

use super::mailbox::Mailbox;
use crate::limits::{CLOSE_ATTEMPTS_MAX, CLOSE_WAIT};
use crate::quota::Cost;
use crate::shared::Shared;

/// Has the will of `device` stored, whose record this is, if that can be done soon.
pub(crate) async fn publish(shared: &Shared, device: &DeviceId, record: &[u8]) {
    let client = &shared.client;
    let sink: Arc<dyn AckSink> = Arc::new(Mailbox::default());
    let publishing = async {
        if let Err(over) = shared.charge_within(Cost::record(record), Some(CLOSE_WAIT)).await {
            return tracing::warn!(%device, %over, "will not published");
        }
        for _ in 0..CLOSE_ATTEMPTS_MAX {
            match client.submit_telemetry(device, record, &sink, 0) {
                Err(SubmitError::Busy(_)) => client.ready().await,
                Err(error) => return tracing::warn!(%device, %error, "will not published"),
                Ok(()) => return,
            }
        }
    };
    let _ = timeout(CLOSE_WAIT, publishing).await;
}
