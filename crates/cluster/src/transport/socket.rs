//! What carries datagrams: the kernel's UDP, or something that a simulation puts in its place.
//!
//! Adapts [`Datagrams`] to quinn. Never looks into a datagram.

use std::fmt::Debug;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

/// A socket for datagrams: unreliable, unordered, with addresses.
pub trait Datagrams: Send + Sync + Debug + 'static {
    /// Sends one datagram, or drops it. Never waits.
    fn send(&self, to: SocketAddr, bytes: &[u8]);

    /// Moves the next datagram to `buffer` and returns its length and where it came from. One that is longer
    /// than the buffer is cut.
    fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<(usize, SocketAddr)>;

    /// Where others send to.
    fn local_address(&self) -> SocketAddr;
}

#[derive(Debug)]
pub(super) struct Socket(pub(super) Arc<dyn Datagrams>);

/// Sending never waits.
#[derive(Debug)]
struct Writable;

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let segment_bytes = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(segment_bytes) {
            self.0.send(transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(meta) {
            let Poll::Ready((bytes, from)) = self.0.poll_receive(context, buffer) else {
                break;
            };
            *meta = RecvMeta {
                addr: from,
                len: bytes,
                stride: bytes,
                ecn: None,
                dst_ip: None,
            };
            count += 1;
        }
        if count == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(count))
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.0.local_address())
    }

    fn may_fragment(&self) -> bool {
        false
    }
}
