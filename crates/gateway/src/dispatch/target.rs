//! Handing a parcel over: to a webhook, or into a file.
//!
//! Decides how it is laid out and what counts as handed over. Never whether it is tried again; that is
//! [`runner`](super::runner)'s.

use dunlin_model::iso_time::iso_utc;
use dunlin_model::port::OutboundCall;
use dunlin_model::routing::EndpointKind;

use super::batch::{Appetite, Parcel};
use crate::limits::{DISPATCH_ANSWER_BYTES_MAX, DISPATCH_CALL_WAIT, DISPATCH_FILE_BYTES, DISPATCH_FILE_WAIT};
use crate::shared::Shared;

/// What an endpoint likes to get at a time: a webhook everything at once, a file much.
pub(super) fn appetite(kind: &EndpointKind) -> Appetite {
    match kind {
        EndpointKind::Webhook { .. } => Appetite {
            bytes: 0,
            wait: std::time::Duration::ZERO,
        },
        EndpointKind::Storage { .. } => Appetite {
            bytes: DISPATCH_FILE_BYTES,
            wait: DISPATCH_FILE_WAIT,
        },
    }
}

/// Hands a parcel over. `Err` says why it may not have come there.
pub(super) async fn deliver(shared: &Shared, kind: &EndpointKind, parcel: &Parcel) -> Result<(), String> {
    match kind {
        EndpointKind::Webhook {
            url,
            authorization,
            authority,
        } => {
            let mut headers = vec![
                ("content-type", "application/json".to_owned()),
                // The same events may come once more, under the same name or in another cut.
                (
                    "dunlin-events",
                    format!(
                        "{}:{}-{}",
                        parcel.shard.0, parcel.first_offset, parcel.last_offset
                    ),
                ),
            ];
            headers.extend(authorization.clone().map(|value| ("authorization", value)));
            let call = OutboundCall {
                method: "POST",
                url: url.clone(),
                headers,
                body: parcel.array(),
                authority: authority.clone(),
                wait_ms: DISPATCH_CALL_WAIT.as_millis() as u64,
                answer_bytes_max: DISPATCH_ANSWER_BYTES_MAX,
            };
            let answer = shared.hooks.outbound.call(call).await?;
            match answer.status {
                200..300 => Ok(()),
                status => Err(format!("it answers {status}")),
            }
        }
        EndpointKind::Storage { container } => {
            let path = path(container, parcel);
            shared.hooks.blobs.put(path, parcel.lines.clone()).await
        }
    }
}

/// Where a parcel lies: below its shard and its hour, in the order of its log. A parcel that is written twice is one
/// file, unless it was cut otherwise.
fn path(container: &str, parcel: &Parcel) -> String {
    let time = iso_utc(parcel.first_ms);
    let hour = time.get(..13).unwrap_or_default().replace(['-', 'T'], "/");
    format!(
        "{container}/{:05}/{hour}/{:020}.jsonl",
        parcel.shard.0, parcel.first_offset
    )
}

#[cfg(test)]
mod tests {
    use dunlin_model::id::ShardId;

    use super::*;

    #[test]
    fn files_lie_in_the_order_of_their_log() {
        let parcel = Parcel {
            shard: ShardId(3),
            first_offset: 1_234,
            first_ms: 1_893_456_000_000,
            last_offset: 1_300,
            count: 9,
            lines: bytes::Bytes::new(),
        };
        assert_eq!(
            path("cold", &parcel),
            "cold/00003/2030/01/01/00/00000000000000001234.jsonl"
        );
    }
}
