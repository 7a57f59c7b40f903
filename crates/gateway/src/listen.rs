//! Sockets: bind, accept, shake hands, hand over. One accept loop per address.
//!
//! A connection over the bound is closed at once; a handshake runs in its own task with a time-out.
//! When draining begins the loops end; what runs on the connections ends by itself.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::amqp;
use crate::auth::Shown;
use crate::handshakes::Handshakes;
use crate::kafka;
use crate::limits::{
    ACCEPTS_AT_A_TIME, HEADERS_WAIT, HTTP2_PING_INTERVAL, HTTP2_STREAMS_MAX, TLS_HANDSHAKE_WAIT,
};
use crate::metrics::{Gauge, count};
use crate::mqtt::connection;
use crate::shared::Shared;

/// Pause after an accept that failed, e.g. for lack of file descriptors.
const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// MQTT over TLS.
pub(crate) fn spawn_mqtts(shared: &Arc<Shared>, listener: TcpListener, config: Arc<ServerConfig>) {
    spawn_tls(shared, listener, config, |shared, stream, peer| async move {
        let shown = Shown::of(stream.get_ref().1);
        connection::serve(shared, stream, peer, shown).await;
    });
}

/// MQTT without TLS.
pub(crate) fn spawn_mqtt_plain(shared: &Arc<Shared>, listener: TcpListener) {
    spawn_accept(shared, listener, |shared, stream, peer| async move {
        connection::serve(shared, stream, peer, None).await;
    });
}

/// AMQP over TLS.
pub(crate) fn spawn_amqps(shared: &Arc<Shared>, listener: TcpListener, config: Arc<ServerConfig>) {
    spawn_tls(shared, listener, config, amqp::connection::serve);
}

/// Kafka over TLS.
pub(crate) fn spawn_kafka(
    shared: &Arc<Shared>,
    listener: TcpListener,
    config: Arc<ServerConfig>,
    door: &Arc<kafka::Door>,
) {
    let door = Arc::clone(door);
    spawn_tls(shared, listener, config, move |_, stream, peer| {
        kafka::connection::serve(Arc::clone(&door), stream, peer)
    });
}

/// HTTPS, with whatever the router answers.
pub(crate) fn spawn_https(
    shared: &Arc<Shared>,
    listener: TcpListener,
    config: Arc<ServerConfig>,
    router: Router,
) {
    spawn_tls(shared, listener, config, move |shared, stream, peer| {
        let shown = Shown::of(stream.get_ref().1);
        let router = router.clone().layer(axum::Extension(Peer(peer, shown)));
        serve_http(shared, stream, router)
    });
}

/// Who is at the other end of an HTTP connection: where, and with which certificates.
#[derive(Debug, Clone)]
pub(crate) struct Peer(pub(crate) SocketAddr, pub(crate) Option<Shown>);

async fn serve_http(shared: Arc<Shared>, stream: TlsStream<TcpStream>, router: Router) {
    // What was negotiated decides, not a look at the first bytes: that look would have no time-out.
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder = if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WAIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .keep_alive_interval(HTTP2_PING_INTERVAL);
    let serving =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router));
    tokio::pin!(serving);
    let result = tokio::select! {
        result = serving.as_mut() => result,
        () = shared.draining.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "http connection over");
    }
}

fn spawn_tls<F, Fut>(shared: &Arc<Shared>, listener: TcpListener, config: Arc<ServerConfig>, serve: F)
where
    F: Fn(Arc<Shared>, TlsStream<TcpStream>, SocketAddr) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send,
{
    let handshakes = Handshakes::new();
    spawn_accept(shared, listener, move |shared, stream, peer| {
        let (config, serve) = (Arc::clone(&config), serve.clone());
        let handshake = handshakes.begin();
        async move {
            let shaken = timeout(TLS_HANDSHAKE_WAIT, handshake.shake(config, stream)).await;
            drop(handshake);
            match shaken {
                Ok(Ok(stream)) => serve(shared, stream, peer).await,
                Ok(Err(error)) => {
                    count(&shared.metrics.handshakes_failed);
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                }
                Err(_) => count(&shared.metrics.handshakes_failed),
            }
        }
    });
}

/// Accepts until draining begins. It waits for nobody who is already there: else those who say nothing would
/// keep out those who come after them.
fn spawn_accept<F, Fut>(shared: &Arc<Shared>, listener: TcpListener, serve: F)
where
    F: Fn(Arc<Shared>, TcpStream, SocketAddr) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let shared = Arc::clone(shared);
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let draining = shared.draining.clone();
        let accepting = async {
            let mut accepted_in_turn = 0;
            loop {
                // Many that come at once wait in the listener's queue rather than before whoever is here.
                if accepted_in_turn == ACCEPTS_AT_A_TIME {
                    tokio::task::yield_now().await;
                    accepted_in_turn = 0;
                }
                accepted_in_turn += 1;
                let (stream, peer) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "accept failed");
                        tokio::time::sleep(ACCEPT_RETRY_PAUSE).await;
                        continue;
                    }
                };
                let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
                    count(&shared.metrics.connections_refused_full);
                    continue;
                };
                // Acknowledgements are small and awaited: never held back for more bytes.
                let _ = stream.set_nodelay(true);
                count(&shared.metrics.connections);
                let serving = serve(Arc::clone(&shared), stream, peer);
                let metrics = Arc::clone(&shared.metrics);
                shared.tasks.spawn(async move {
                    let _gauge = Gauge::new(&metrics.connections_now);
                    serving.await;
                    drop(permit);
                });
            }
        };
        tokio::select! {
            () = draining.cancelled() => {}
            () = accepting => {}
        }
    });
}
