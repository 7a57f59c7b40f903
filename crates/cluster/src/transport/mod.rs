//! Frames between nodes over QUIC with mutual TLS: two connections per pair and direction.
//!
//! `Control` carries heartbeats, votes and small calls, `Bulk` log entries, frames and pages, so
//! that a full pipe never delays a heartbeat. A peer is dialled by node id and must show a
//! certificate for that id. What the frames mean is decided elsewhere ([`Handler`]).

pub(crate) mod calls;
mod cids;
pub(crate) mod frames;
pub(crate) mod peers;
mod socket;
mod tag;
pub(crate) mod tls;

pub(crate) use calls::CallError;
pub(crate) use frames::{FrameReader, FrameWriter, StreamError};
pub(crate) use peers::{Lane, Peers};
pub use socket::Datagrams;
pub(crate) use tag::ClusterTag;
pub use tls::TlsError;

use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::id::NodeId;
use dunlin_model::port::BoxFuture;

use crate::messages::{Request, Response, StreamHead};

/// What a node does with what its peers send.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers a call of a node whose cluster has `tag`. The bytes follow the response as they are.
    fn handle_call(
        self: Arc<Self>,
        from: NodeId,
        tag: u64,
        request: Request,
    ) -> BoxFuture<'static, (Response, Bytes)>;

    /// Serves a stream until it ends.
    fn handle_stream(
        self: Arc<Self>,
        from: NodeId,
        tag: u64,
        head: StreamHead,
        writer: FrameWriter,
        reader: FrameReader,
    ) -> BoxFuture<'static, ()>;

    /// A ping arrived; the sender's wall clock showed `wall_ms`.
    fn handle_ping(&self, from: NodeId, wall_ms: u64);
}
