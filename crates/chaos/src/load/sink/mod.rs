//! A server that acknowledges everything: the ceiling of a generator, and with logs the physical floor
//! for a server that makes messages durable.
//!
//! It decodes packets and keeps nothing: no session, no order between nodes, nothing to read back. With
//! logs (`wal`) what has arrived is gathered, written to each log by a thread of its own, and
//! acknowledged when all have synced. It speaks MQTT 3.1.1 and 5, plain or over TLS, to any client.

mod session;
mod wal;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::thread::JoinHandle;

use dunlin_gateway::TlsIdentity;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use wal::{Gather, Logs};

/// Logs at the most.
pub const LOGS_MAX: usize = 16;
/// Bytes of a log, unless told otherwise.
pub const LOG_BYTES: u64 = 256 * 1024 * 1024;

/// What a sink is told.
#[derive(Debug, Clone)]
pub struct SinkOptions {
    /// Where it listens without TLS; port 0 takes a free one.
    pub plain: SocketAddr,
    /// Where it listens with TLS, and what it shows there.
    pub tls: Option<(SocketAddr, TlsIdentity)>,
    /// Logs that a message is synced to before it is acknowledged.
    pub logs: usize,
    /// Where the logs are.
    pub folder: PathBuf,
    /// Bytes of each log, written full of zeros beforehand; then it starts over.
    pub log_bytes: u64,
}

/// Why a sink does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A port, a log, a thread.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The certificate.
    #[error("use the certificate: {0}")]
    Tls(#[from] dunlin_gateway::tls::TlsError),
    /// Its thread ended as none should.
    #[error("the sink ended early; that is a defect")]
    Thread,
}

fn io_error(action: &'static str) -> impl Fn(io::Error) -> SinkError {
    move |source| SinkError::Io { action, source }
}

/// A sink on a thread of its own. Dropping it ends it.
#[derive(Debug)]
pub struct Sink {
    /// Where it listens without TLS.
    pub plain: SocketAddr,
    /// Where it listens with TLS.
    pub tls: Option<SocketAddr>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), SinkError>>>,
}

impl Sink {
    /// Starts it and returns when it listens.
    pub async fn start(options: SinkOptions) -> Result<Sink, SinkError> {
        let (stop, stopped) = oneshot::channel();
        let (listening, listens) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io_error("start the sink"))?;
        let thread = std::thread::Builder::new()
            .name("null-sink".into())
            .spawn(move || LocalSet::new().block_on(&runtime, serve(options, listening, stopped)))
            .map_err(io_error("start the sink"))?;
        match listens.await {
            Ok((plain, tls)) => Ok(Sink {
                plain,
                tls,
                stop: Some(stop),
                thread: Some(thread),
            }),
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(SinkError::Thread),
            },
        }
    }

    /// Waits until it ends by itself, which is when a log or a listener fails.
    pub async fn failed(&mut self) -> SinkError {
        let Some(thread) = self.thread.take() else {
            return SinkError::Thread;
        };
        match tokio::task::spawn_blocking(move || thread.join()).await {
            Ok(Ok(Err(error))) => error,
            _ => SinkError::Thread,
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Listening = oneshot::Sender<(SocketAddr, Option<SocketAddr>)>;

async fn serve(
    options: SinkOptions,
    listening: Listening,
    stopped: oneshot::Receiver<()>,
) -> Result<(), SinkError> {
    let listen = io_error("listen");
    let plain = TcpListener::bind(options.plain).await.map_err(&listen)?;
    let tls = match options.tls {
        None => None,
        Some((address, identity)) => Some((
            TcpListener::bind(address).await.map_err(&listen)?,
            TlsAcceptor::from(identity.server_config(&[])?),
        )),
    };
    let gather = Rc::new(Gather::default());
    let logs = match options.logs.min(LOGS_MAX) {
        0 => None,
        count => {
            Some(Logs::open(&options.folder, count, options.log_bytes).map_err(io_error("make the logs"))?)
        }
    };
    let is_durable = logs.is_some();
    let tls_address = match &tls {
        Some((listener, _)) => Some(listener.local_addr().map_err(&listen)?),
        None => None,
    };
    // Whoever waited for it may have given up.
    let _ = listening.send((plain.local_addr().map_err(&listen)?, tls_address));
    let accepting = async {
        loop {
            tokio::select! {
                accepted = plain.accept() => {
                    let (stream, _) = accepted.map_err(&listen)?;
                    let gather = is_durable.then(|| Rc::clone(&gather));
                    tokio::task::spawn_local(session::serve_plain(stream, gather));
                }
                accepted = accept(tls.as_ref()) => {
                    let (stream, acceptor) = accepted.map_err(&listen)?;
                    let gather = is_durable.then(|| Rc::clone(&gather));
                    tokio::task::spawn_local(session::serve_tls(stream, acceptor, gather));
                }
            }
        }
    };
    let flushing = async {
        match logs {
            Some(logs) => logs
                .flush(&gather)
                .await
                .map_err(io_error("write and sync a log")),
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = stopped => Ok(()),
        failed = accepting => failed,
        failed = flushing => failed,
    }
}

async fn accept(
    tls: Option<&(TcpListener, TlsAcceptor)>,
) -> io::Result<(tokio::net::TcpStream, TlsAcceptor)> {
    match tls {
        Some((listener, acceptor)) => {
            let (stream, _) = listener.accept().await?;
            Ok((stream, acceptor.clone()))
        }
        None => std::future::pending().await,
    }
}
