//! Which room answers which request.
//!
//! Decides nothing else: versions were checked before, and what is answered is decided there.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::call::{Call, Fault};
use super::door::Door;
use super::members::Sender;
use super::{fetch, groups, members, offsets, produce, topics};

/// An answer as a frame, with what it holds until it is written.
pub(super) type Answer = (Bytes, Option<OwnedSemaphorePermit>);

/// Answers a request of somebody known. May take as long as its sender is willing to wait, or until `hurry` is cancelled:
/// then the next request waits behind this one.
pub(super) async fn serve(
    door: &Door,
    mut call: Call,
    peer: SocketAddr,
    hurry: &CancellationToken,
) -> Result<Answer, Fault> {
    let version = call.version;
    let frame = match call.api() {
        Api::Fetch => return fetch::answer(door, call, hurry).await,
        Api::Produce => {
            let response = produce::refuse(&call.take()?)?;
            call.answer(&response)
        }
        Api::Metadata => {
            let response = topics::metadata(door, &call.take()?, version);
            call.answer(&response)
        }
        Api::ListOffsets => {
            let response = topics::list_offsets(door, call.take()?, version).await;
            call.answer(&response)
        }
        Api::OffsetForLeaderEpoch => {
            let response = topics::epoch_ends(door, call.take()?).await;
            call.answer(&response)
        }
        Api::DescribeConfigs => {
            let response = topics::describe_configs(door, &call.take()?);
            call.answer(&response)
        }
        Api::FindCoordinator => {
            let response = groups::find_coordinator(door, &call.take()?, version);
            call.answer(&response)
        }
        Api::JoinGroup => {
            let request = call.take()?;
            let client_id = &call.client_id;
            let response = members::join(door, request, version, Sender { client_id, peer }).await;
            call.answer(&response)
        }
        Api::SyncGroup => {
            let response = members::sync(door, call.take()?).await;
            call.answer(&response)
        }
        Api::Heartbeat => {
            let response = members::heartbeat(door, call.take()?).await;
            call.answer(&response)
        }
        Api::LeaveGroup => {
            let response = members::leave(door, call.take()?, version).await;
            call.answer(&response)
        }
        Api::OffsetCommit => {
            let response = offsets::commit(door, call.take()?).await;
            call.answer(&response)
        }
        Api::OffsetFetch => {
            let response = offsets::fetch(door, call.take()?, version).await;
            call.answer(&response)
        }
        Api::DescribeGroups => {
            let response = groups::describe(door, call.take()?).await;
            call.answer(&response)
        }
        Api::ListGroups => {
            let response = groups::list(door, call.take()?).await;
            call.answer(&response)
        }
        Api::DeleteGroups => {
            let response = groups::delete(door, call.take()?).await;
            call.answer(&response)
        }
        // These are answered on the way in, by the machine.
        api @ (Api::ApiVersions | Api::SaslHandshake | Api::SaslAuthenticate) => {
            return Err(Fault::SignedInAlready(api));
        }
    };
    frame.map(|frame| (frame, None))
}
