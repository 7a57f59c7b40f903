//! A stream with its two buffers: reads as much as there is, writes what it was left.
//!
//! It knows no packet; what the bytes mean is the business of [`super::connection`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use crate::limits::{READ_BUFFER_BYTES, READ_BUFFER_BYTES_QUIET};

/// Time for the last words of a connection.
const FAREWELL_WAIT: Duration = Duration::from_secs(2);

/// What a poll of the socket did.
pub(super) enum Moved {
    /// Bytes came in.
    Read,
    /// Everything was written.
    Written,
    /// The peer has closed.
    Ended,
}

/// A stream with its two buffers. Polls can be dropped at any time without losing a byte.
pub(super) struct Socket<S> {
    stream: S,
    pub(super) read: BytesMut,
    /// Bytes that `read` grows by.
    read_growth: usize,
    pub(super) out: BytesMut,
    needs_flush: bool,
}

impl<S> Socket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            read_growth: READ_BUFFER_BYTES_QUIET,
            out: BytesMut::new(),
            needs_flush: false,
        }
    }

    /// Writes what there is, then reads if it may. When it may not, it resolves once all is written,
    /// since that may be what the reading waited for.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, may_read: bool) -> Poll<io::Result<Moved>> {
        let had_out = !self.out.is_empty();
        match self.poll_write(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if had_out && !may_read => return Poll::Ready(Ok(Moved::Written)),
            _ if !may_read => return Poll::Pending,
            _ => {}
        }
        if self.read.capacity() - self.read.len() < self.read_growth / 4 {
            self.read.reserve(self.read_growth);
        }
        let room = self.read.capacity() - self.read.len();
        let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read))?;
        if read == room {
            self.read_growth = READ_BUFFER_BYTES;
        }
        Poll::Ready(Ok(if read == 0 { Moved::Ended } else { Moved::Read }))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.has_remaining() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    self.out.advance(written);
                    self.needs_flush = true;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.needs_flush {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(Ok(())) => self.needs_flush = false,
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes the rest and closes our side, within [`FAREWELL_WAIT`].
    pub(super) async fn farewell(&mut self) {
        let parting = async {
            poll_fn(|cx| self.poll_write(cx)).await?;
            self.stream.shutdown().await
        };
        let _ = timeout(FAREWELL_WAIT, parting).await;
    }
}
