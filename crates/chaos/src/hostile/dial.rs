//! How attackers come to a connection: bare TCP, something that MQTT can be written to, or a device that was
//! let in; and how they learn that the hub has closed it. Every wait has an end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions, Transport};
use dunlin_gateway::mqtt::Version;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::attack::Order;
use super::count::Held;
use super::packets::Mill;

/// Time for one step of an attacker: a connect, a write, a look for an answer.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Seconds after which a hub may give a silent device up, where it is not the silence that matters.
pub(super) const KEEP_ALIVE_S: u16 = 60;

/// What an attacker tells its kernel about a socket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Socket {
    /// Bytes that are kept for it unread, as far as that can be told to.
    pub(super) receive_bytes: Option<u32>,
    /// Whether its end is a RST in place of a FIN.
    pub(super) resets: bool,
}

/// Something that bytes are written to and read from.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A bare TCP connection.
pub(super) async fn tcp(order: &Order, told: Socket) -> io::Result<TcpStream> {
    let (Transport::Tcp { address } | Transport::Tls { address, .. } | Transport::WebSocket { address, .. }) =
        &order.target;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(address.as_str()).await? {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(bytes) = told.receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if told.resets {
            socket.set_zero_linger()?;
        }
        match timeout(STEP_TIMEOUT, socket.connect(address)).await? {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection that MQTT can be written to, as a stranger.
pub(super) async fn dial(order: &Order, told: Socket) -> io::Result<Box<dyn Wire>> {
    let stream = tcp(order, told).await?;
    match &order.target {
        Transport::Tcp { .. } => Ok(Box::new(stream)),
        Transport::Tls {
            server_name, config, ..
        }
        | Transport::WebSocket {
            server_name, config, ..
        } => {
            let name = ServerName::try_from(server_name.clone()).map_err(io::Error::other)?;
            let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
            Ok(Box::new(timeout(STEP_TIMEOUT, connecting).await??))
        }
    }
}

/// A device that has said CONNECT and had an answer, down to its bytes.
pub(super) async fn enter_bare(
    order: &Order,
    mill: &mut Mill,
    told: Socket,
    keep_alive_s: u16,
) -> io::Result<(Box<dyn Wire>, Held)> {
    let mut stream = dial(order, told).await?;
    let held = order.counters.hold(order.kind);
    let connect = mill.connect(&order.host, &order.insider.token, keep_alive_s);
    timeout(STEP_TIMEOUT, stream.write_all(&connect)).await??;
    let mut answer = [0; 64];
    match timeout(2 * STEP_TIMEOUT, stream.read(&mut answer)).await?? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok((stream, held)),
    }
}

/// A connected device.
pub(super) async fn enter(order: &Order, is_v5: bool) -> io::Result<Client> {
    let options = ConnectOptions {
        version: if is_v5 { Version::V5 } else { Version::V3 },
        window: usize::MAX / 2,
        clean: true,
        ..ConnectOptions::new(
            order.target.clone(),
            &order.host,
            &order.insider.device,
            order.insider.token.clone(),
        )
    };
    let connected = timeout(2 * STEP_TIMEOUT, Client::connect(&options)).await?;
    connected.map_err(io::Error::other)
}

/// Reads until the hub closes, for a moment; says whether it closed.
pub(super) async fn closes(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut answer = [0; 512];
    let closing = async {
        loop {
            match stream.read(&mut answer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    timeout(STEP_TIMEOUT, closing).await.is_ok()
}
