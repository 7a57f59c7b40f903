//! Who may be in a TLS handshake: everybody who comes, but not for ever, and not all at once with the processor.
//!
//! Two bounds, and neither lets strangers who say nothing shut out those who do. At most [`HANDSHAKES_MAX`]
//! handshakes of a listener are under way; one more makes the oldest give way, which is the one that has had
//! most time. And what costs the processor something is done for [`HANDSHAKES_AT_A_TIME`] of them between two
//! turns of all other tasks, from the moment that the client's first words are there; nobody holds that
//! place while waiting for the network.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::limits::{HANDSHAKES_AT_A_TIME, HANDSHAKES_MAX};

/// The handshakes of one listener.
#[derive(Debug)]
pub(crate) struct Handshakes {
    count_max: usize,
    under_way: Mutex<UnderWay>,
    at_a_time: Semaphore,
}

#[derive(Debug, Default)]
struct UnderWay {
    next: u64,
    /// By the order in which they began.
    began: BTreeMap<u64, CancellationToken>,
}

impl Handshakes {
    /// Nobody is there yet.
    pub(crate) fn new() -> Arc<Self> {
        Self::with(HANDSHAKES_MAX)
    }

    fn with(count_max: usize) -> Arc<Self> {
        Arc::new(Self {
            count_max,
            under_way: Mutex::default(),
            at_a_time: Semaphore::new(HANDSHAKES_AT_A_TIME),
        })
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handshake begins. When there are too many, the oldest gives way.
    pub(crate) fn begin(self: &Arc<Self>) -> Handshake {
        let mut under_way = self.lock();
        if under_way.began.len() >= self.count_max
            && let Some((_, oldest)) = under_way.began.pop_first()
        {
            oldest.cancel();
        }
        let number = under_way.next;
        under_way.next += 1;
        let gives_way = CancellationToken::new();
        under_way.began.insert(number, gives_way.clone());
        Handshake {
            all: Arc::clone(self),
            number,
            gives_way,
        }
    }
}

/// One handshake under way; dropped, it is over.
#[derive(Debug)]
pub(crate) struct Handshake {
    all: Arc<Handshakes>,
    number: u64,
    gives_way: CancellationToken,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.lock().began.remove(&self.number);
    }
}

impl Handshake {
    /// Shakes hands, until it is done or has to give way to others.
    pub(crate) async fn shake<S>(&self, config: Arc<ServerConfig>, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tokio::select! {
            shaken = self.accept(config, stream) => shaken,
            () = self.gives_way.cancelled() => Err(io::Error::other("gave way to newer handshakes")),
        }
    }

    async fn accept<S>(&self, config: Arc<ServerConfig>, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let place = self.all.at_a_time.acquire().await.map_err(io::Error::other)?;
        let accepting = begun.into_stream(config);
        tokio::pin!(accepting);
        // Keys are exchanged and signed in here, without a pause. What follows waits for the client.
        let first = poll_fn(|cx| Poll::Ready(accepting.as_mut().poll(cx))).await;
        tokio::task::yield_now().await;
        drop(place);
        match first {
            Poll::Ready(shaken) => shaken,
            Poll::Pending => accepting.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_gives_way_and_whoever_is_done_makes_room() {
        let all = Handshakes::with(2);
        let (first, second) = (all.begin(), all.begin());
        assert!(!first.gives_way.is_cancelled());
        let third = all.begin();
        assert!(first.gives_way.is_cancelled() && !second.gives_way.is_cancelled());
        drop(third);
        let fourth = all.begin();
        assert!(!second.gives_way.is_cancelled(), "the third had left");
        // The one that gave way leaves late, and takes nobody's place with it.
        drop(first);
        assert_eq!(all.lock().began.len(), 2);
        drop((second, fourth));
        assert!(all.lock().began.is_empty());
    }

    #[tokio::test]
    async fn a_silent_client_ends_when_it_has_to_give_way() {
        let identity = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (chain, key) = (identity.cert.pem(), identity.signing_key.serialize_pem());
        let identity = crate::TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let config = identity.server_config(&[]).unwrap();
        let all = Handshakes::with(1);
        let (_silent, server) = tokio::io::duplex(64);
        let handshake = all.begin();
        let shaking = tokio::spawn(async move { handshake.shake(config, server).await.map(|_| ()) });
        let _newer = all.begin();
        assert!(shaking.await.unwrap().is_err());
    }
}
