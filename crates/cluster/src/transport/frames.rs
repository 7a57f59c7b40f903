//! Length-framed messages on a QUIC stream.
//!
//! A stream that ends is not a message that ends: a cancelled write looks like a clean end to the
//! reader, so only the length says when a frame is whole, and a writer that is dropped resets.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dunlin_model::limits::WIRE_FRAME_BYTES_MAX;

/// Bytes taken off the connection at a time.
const CHUNK_BYTES_MAX: usize = 256 * 1024;

/// Why a stream is over before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    /// The connection or the other side gave up.
    #[error("stream is lost: {0}")]
    Lost(String),
    /// A frame announces more than [`WIRE_FRAME_BYTES_MAX`].
    #[error("frame of {0} bytes")]
    TooLarge(usize),
}

impl StreamError {
    pub(crate) fn lost(reason: impl ToString) -> Self {
        StreamError::Lost(reason.to_string())
    }
}

/// The sending half. Frames gather until [`flush`](Self::flush).
pub(crate) struct FrameWriter {
    stream: quinn::SendStream,
    gathered: Vec<Bytes>,
    finished: bool,
}

impl FrameWriter {
    pub(super) fn new(stream: quinn::SendStream) -> Self {
        Self {
            stream,
            gathered: Vec::new(),
            finished: false,
        }
    }

    /// Adds a frame made of `parts`, one after the other.
    pub(crate) fn put(&mut self, parts: impl IntoIterator<Item = Bytes>) {
        let place = self.gathered.len();
        self.gathered.push(Bytes::new());
        let mut length = 0;
        for part in parts {
            length += part.len();
            if !part.is_empty() {
                self.gathered.push(part);
            }
        }
        assert!(length <= WIRE_FRAME_BYTES_MAX, "a frame keeps its bound");
        let mut head = BytesMut::with_capacity(4);
        head.put_u32_le(length as u32);
        self.gathered[place] = head.freeze();
    }

    /// Sends what was gathered.
    pub(crate) async fn flush(&mut self) -> Result<(), StreamError> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let sent = self.stream.write_all_chunks(&mut gathered).await;
        gathered.clear();
        self.gathered = gathered;
        sent.map_err(StreamError::lost)
    }

    /// Sends one frame.
    pub(crate) async fn send(&mut self, parts: impl IntoIterator<Item = Bytes>) -> Result<(), StreamError> {
        self.put(parts);
        self.flush().await
    }

    /// Says that nothing follows.
    pub(crate) fn finish(mut self) {
        self.finished = true;
        let _ = self.stream.finish();
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = self.stream.reset(0u32.into());
        }
    }
}

/// The receiving half.
pub(crate) struct FrameReader {
    stream: quinn::RecvStream,
    buffer: BytesMut,
}

impl FrameReader {
    pub(super) fn new(stream: quinn::RecvStream) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The next frame; `None` when the other side finished between two frames.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        loop {
            if let Some(frame) = self.take_frame()? {
                return Ok(Some(frame));
            }
            match self.stream.read_chunk(CHUNK_BYTES_MAX, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Ok(None),
                Ok(None) => return Err(StreamError::lost("ended inside a frame")),
                Err(error) => return Err(StreamError::lost(error)),
            }
        }
    }

    /// A frame that has arrived whole, without waiting.
    pub(crate) fn take_frame(&mut self) -> Result<Option<Bytes>, StreamError> {
        take_frame(&mut self.buffer)
    }
}

/// The frame at the front of `buffer`, once it is whole.
pub(crate) fn take_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, StreamError> {
    if buffer.len() < 4 {
        return Ok(None);
    }
    let length = (&buffer[..4]).get_u32_le() as usize;
    if length > WIRE_FRAME_BYTES_MAX {
        return Err(StreamError::TooLarge(length));
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    Ok(Some(buffer.split_to(length).freeze()))
}
