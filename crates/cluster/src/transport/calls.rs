//! Many calls on one long-lived stream: numbered requests out, numbered responses back.
//!
//! A stream per call would cost twenty microseconds each; here a heartbeat is one small frame, and
//! what is queued at the same time leaves as one packet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::id::NodeId;
use dunlin_model::wire::Reader;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::frames::{FrameReader, FrameWriter};
use super::{ClusterTag, Handler, StreamError};
use crate::codec;
use crate::messages::{Request, Response};

/// Calls that wait to be written on one stream.
const CALLS_QUEUED_MAX: usize = 1_024;
/// Calls of one peer that are worked on at the same time.
const CALLS_SERVED_MAX: usize = 1_024;

/// Why a call has no answer. It may or may not have been carried out.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CallError {
    /// No connection could be made: nothing was sent.
    #[error("cannot reach node {0}: {1}")]
    Unreachable(NodeId, String),
    /// The connection was lost after the request had left.
    #[error("connection was lost")]
    Lost,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
}

type Pending = Arc<Mutex<Option<BTreeMap<u64, oneshot::Sender<(Response, Bytes)>>>>>;

/// The asking end of a call stream.
#[derive(Clone)]
pub(super) struct Calls {
    requests: mpsc::Sender<(u64, Request)>,
    pending: Pending,
    next: Arc<std::sync::atomic::AtomicU64>,
}

impl Calls {
    /// Takes the stream over; it ends when this and all clones are dropped, or with its connection.
    pub(super) fn start(mut writer: FrameWriter, mut reader: FrameReader, tag: Arc<ClusterTag>) -> Self {
        let (requests, mut queue) = mpsc::channel::<(u64, Request)>(CALLS_QUEUED_MAX);
        let pending: Pending = Arc::new(Mutex::new(Some(BTreeMap::new())));
        tokio::spawn(async move {
            while let Some((id, request)) = queue.recv().await {
                put_request(&mut writer, id, tag.get(), &request);
                while let Ok((id, request)) = queue.try_recv() {
                    put_request(&mut writer, id, tag.get(), &request);
                }
                if writer.flush().await.is_err() {
                    return;
                }
            }
            writer.finish();
        });
        let answered = pending.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = reader.next().await {
                let Ok((id, response, tail)) = read_response(frame) else {
                    break;
                };
                let waiting = answered
                    .lock()
                    .expect("no panic holds it")
                    .as_mut()
                    .and_then(|map| map.remove(&id));
                if let Some(waiting) = waiting {
                    let _ = waiting.send((response, tail));
                }
            }
            // Whoever still waits learns that the stream is lost.
            *answered.lock().expect("no panic holds it") = None;
        });
        Self {
            requests,
            pending,
            next: Arc::default(),
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.requests.is_closed() || self.pending.lock().expect("no panic holds it").is_none()
    }

    pub(super) async fn call(
        &self,
        request: Request,
        deadline: Duration,
    ) -> Result<(Response, Bytes), CallError> {
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match self.pending.lock().expect("no panic holds it").as_mut() {
            Some(map) => map.insert(id, sender),
            None => return Err(CallError::Lost),
        };
        let answer = async {
            self.requests
                .send((id, request))
                .await
                .map_err(|_| CallError::Lost)?;
            receiver.await.map_err(|_| CallError::Lost)
        };
        let result = tokio::time::timeout(deadline, answer).await;
        if let Some(map) = self.pending.lock().expect("no panic holds it").as_mut() {
            map.remove(&id);
        }
        result.unwrap_or(Err(CallError::Timeout))
    }
}

fn put_request(writer: &mut FrameWriter, id: u64, tag: u64, request: &Request) {
    let mut head = BytesMut::with_capacity(16);
    head.put_u64_le(id);
    head.put_u64_le(tag);
    writer.put([head.freeze(), codec::encode(request)]);
}

pub(crate) fn read_response(frame: Bytes) -> Result<(u64, Response, Bytes), codec::CodecError> {
    let mut reader = Reader::new(frame);
    let id = reader.u64("call id")?;
    let response = codec::decode(&reader.bytes("response")?)?;
    Ok((id, response, reader.rest()))
}

/// The answering end: serves calls until the stream ends.
pub(super) async fn serve(
    from: NodeId,
    handler: Arc<dyn Handler>,
    mut writer: FrameWriter,
    mut reader: FrameReader,
) {
    let (responses, mut queue) = mpsc::channel::<(u64, Response, Bytes)>(CALLS_QUEUED_MAX);
    tokio::spawn(async move {
        while let Some(first) = queue.recv().await {
            put_response(&mut writer, first);
            while let Ok(more) = queue.try_recv() {
                put_response(&mut writer, more);
            }
            if writer.flush().await.is_err() {
                return;
            }
        }
        writer.finish();
    });
    let places = Arc::new(Semaphore::new(CALLS_SERVED_MAX));
    while let Some((id, tag, request)) = next_request(&mut reader).await {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let (handler, responses) = (handler.clone(), responses.clone());
        tokio::spawn(async move {
            let (response, tail) = handler.handle_call(from, tag, request).await;
            let _ = responses.send((id, response, tail)).await;
            drop(place);
        });
    }
}

async fn next_request(reader: &mut FrameReader) -> Option<(u64, u64, Request)> {
    let frame = match reader.next().await {
        Ok(frame) => frame?,
        Err(StreamError::Lost(_)) => return None,
        Err(error) => {
            tracing::warn!(%error, "a peer's call stream is broken");
            return None;
        }
    };
    match read_request(frame) {
        Ok(request) => Some(request),
        Err(error) => {
            tracing::warn!(%error, "a peer sent a call that cannot be read");
            None
        }
    }
}

pub(crate) fn read_request(frame: Bytes) -> Result<(u64, u64, Request), codec::CodecError> {
    let mut fields = Reader::new(frame);
    let (id, tag) = (fields.u64("call id")?, fields.u64("cluster tag")?);
    Ok((id, tag, codec::decode(&fields.rest())?))
}

fn put_response(writer: &mut FrameWriter, (id, response, tail): (u64, Response, Bytes)) {
    let body = codec::encode(&response);
    let mut head = BytesMut::with_capacity(12);
    head.put_u64_le(id);
    head.put_u32_le(body.len() as u32);
    writer.put([head.freeze(), body, tail]);
}
