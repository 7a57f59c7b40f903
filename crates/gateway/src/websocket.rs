//! A WebSocket as a stream of bytes: binary frames in both directions, whatever their boundaries.
//!
//! Used by the server's side (axum) and by the client's (tungstenite); text frames are an error.
//! MQTT begins where this ends.

use std::io;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The path at which devices speak MQTT over WebSocket.
pub const WEBSOCKET_PATH: &str = "/$iothub/websocket";

/// What a message is to a stream of bytes.
pub(crate) enum Content {
    Bytes(Bytes),
    /// Pings and pongs, answered by the library.
    Nothing,
    End,
    Wrong,
}

/// The messages of the two libraries.
pub(crate) trait Message: Unpin {
    fn from_bytes(bytes: Bytes) -> Self;
    fn into_content(self) -> Content;
}

impl Message for axum::extract::ws::Message {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }

    fn into_content(self) -> Content {
        match self {
            Self::Binary(bytes) => Content::Bytes(bytes),
            Self::Ping(_) | Self::Pong(_) => Content::Nothing,
            Self::Close(_) => Content::End,
            Self::Text(_) => Content::Wrong,
        }
    }
}

impl Message for tokio_tungstenite::tungstenite::Message {
    fn from_bytes(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }

    fn into_content(self) -> Content {
        match self {
            Self::Binary(bytes) => Content::Bytes(bytes),
            Self::Ping(_) | Self::Pong(_) | Self::Frame(_) => Content::Nothing,
            Self::Close(_) => Content::End,
            Self::Text(_) => Content::Wrong,
        }
    }
}

/// See the head of this file.
pub(crate) struct ByteStream<W, M> {
    inner: W,
    /// Rest of the last frame.
    pending: Bytes,
    message: PhantomData<fn() -> M>,
}

impl<W, M> ByteStream<W, M> {
    pub(crate) fn new(inner: W) -> Self {
        Self {
            inner,
            pending: Bytes::new(),
            message: PhantomData,
        }
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl<W, M, E> AsyncRead for ByteStream<W, M>
where
    W: Stream<Item = Result<M, E>> + Unpin,
    M: Message,
    E: std::error::Error + Send + Sync + 'static,
{
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.pending.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_next(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(other(error))),
                Some(Ok(message)) => match message.into_content() {
                    Content::Bytes(bytes) => self.pending = bytes,
                    Content::Nothing => {}
                    Content::End => return Poll::Ready(Ok(())),
                    Content::Wrong => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                },
            }
        }
        let taken = self.pending.len().min(target.remaining());
        target.put_slice(&self.pending[..taken]);
        self.pending.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl<W, M, E> AsyncWrite for ByteStream<W, M>
where
    W: Sink<M, Error = E> + Unpin,
    M: Message,
    E: std::error::Error + Send + Sync + 'static,
{
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(other)?;
        let message = M::from_bytes(Bytes::copy_from_slice(bytes));
        Pin::new(&mut self.inner).start_send(message).map_err(other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx).map_err(other)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx).map_err(other)
    }
}
