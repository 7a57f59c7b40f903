//! MQTT over WebSocket: the upgrade, after which the connection is one of MQTT like any other.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use crate::limits::PACKET_BYTES_MAX;
use crate::listen::Peer;
use crate::metrics::{Gauge, count};
use crate::mqtt::connection;
use crate::shared::Shared;
use crate::websocket::ByteStream;

/// Bytes of a frame: a packet fits with its header, and clients rarely put more than one into a frame.
const FRAME_BYTES_MAX: usize = 2 * PACKET_BYTES_MAX as usize;

/// `GET /$iothub/websocket` with subprotocol `mqtt`.
pub(crate) async fn mqtt(
    State(shared): State<Arc<Shared>>,
    Extension(Peer(peer, shown)): Extension<Peer>,
    upgrade: WebSocketUpgrade,
) -> Response {
    // The HTTP connection gives its permit back when it is upgraded; this is the one that goes on.
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        count(&shared.metrics.connections_refused_full);
        return ApiError::busy("connections").into_response();
    };
    let upgrade = upgrade
        .protocols(["mqtt"])
        .max_message_size(FRAME_BYTES_MAX)
        .max_frame_size(FRAME_BYTES_MAX);
    if upgrade.selected_protocol().is_none() {
        return ApiError::invalid("the WebSocket subprotocol must be mqtt").into_response();
    }
    let tasks = shared.tasks.clone();
    upgrade.on_upgrade(move |socket| {
        tasks.track_future(async move {
            let _permit = permit;
            let metrics = Arc::clone(&shared.metrics);
            let _gauge = Gauge::new(&metrics.connections_now);
            connection::serve(shared, ByteStream::<_, Message>::new(socket), peer, shown).await;
        })
    })
}
