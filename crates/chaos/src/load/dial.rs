//! How a client of the load gets its connection: TCP, TLS, WebSocket or both, then CONNECT.
//!
//! Decides nothing about when, or what a refusal means; it says why in words that can be counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_gateway::client::{Io, websocket};
use dunlin_gateway::mqtt::Version;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::packet::{self, Connack, Hello, Split};

/// Time for a connect, from the dialling to the CONNACK.
const CONNECT_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a CONNACK at the most, properties included.
const CONNACK_BYTES_MAX: usize = 64 * 1024;

/// What is between us and MQTT.
#[derive(Debug, Clone, Default)]
pub struct Wrapping {
    /// TLS with this configuration.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// WebSocket at this path.
    pub websocket: Option<String>,
}

/// An address with the name that its certificate must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Door {
    /// Name or address of the host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Door {
    /// `host:port`, as it is dialled.
    pub fn address(&self) -> String {
        if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// An accepted connection.
pub(super) struct Opened {
    pub(super) stream: Box<dyn Io>,
    pub(super) connack: Connack,
    /// What came behind the CONNACK.
    pub(super) rest: Vec<u8>,
}

/// Connects, or says in a few words why not.
pub(super) async fn open(
    address: SocketAddr,
    door: &Door,
    wrapping: &Wrapping,
    hello: &Hello<'_>,
) -> Result<Opened, String> {
    let opening = async {
        let mut stream = wrap(address, door, wrapping).await?;
        let io = |error: io::Error| format!("connect: {}", kind(&error));
        stream.write_all(&packet::connect(hello)).await.map_err(io)?;
        stream.flush().await.map_err(io)?;
        let (connack, rest) = read_connack(&mut stream, hello.version).await?;
        match connack.code {
            0 => Ok(Opened {
                stream,
                connack,
                rest,
            }),
            code => Err(format!("connect: {}", packet::refusal(hello.version, code))),
        }
    };
    tokio::time::timeout(CONNECT_WAIT, opening)
        .await
        .unwrap_or_else(|_| Err("connect: no answer in time".into()))
}

async fn wrap(address: SocketAddr, door: &Door, wrapping: &Wrapping) -> Result<Box<dyn Io>, String> {
    let dial = |error: io::Error| format!("dial: {}", kind(&error));
    let stream = TcpStream::connect(address).await.map_err(dial)?;
    stream.set_nodelay(true).map_err(dial)?;
    let mut stream: Box<dyn Io> = Box::new(stream);
    let host = door.host.trim_matches(['[', ']']);
    if let Some(config) = &wrapping.tls {
        let name =
            ServerName::try_from(host.to_owned()).map_err(|_| format!("TLS: {host} is no server name"))?;
        let connector = TlsConnector::from(Arc::clone(config));
        let connected = connector.connect(name, stream).await;
        stream = Box::new(connected.map_err(|error| format!("TLS: {error}"))?);
    }
    if let Some(path) = &wrapping.websocket {
        let scheme = if wrapping.tls.is_some() { "wss" } else { "ws" };
        let url = format!("{scheme}://{}{path}", door.address());
        stream = websocket(stream, &url)
            .await
            .map_err(|error| format!("WebSocket: {error}"))?;
    }
    Ok(stream)
}

async fn read_connack(stream: &mut Box<dyn Io>, version: Version) -> Result<(Connack, Vec<u8>), String> {
    let mut read = Vec::with_capacity(256);
    loop {
        match packet::split(&read) {
            Split::Whole(packet::CONNACK, body, bytes) => {
                let connack = packet::connack(version, body).ok_or("connect: the CONNACK cannot be read")?;
                return Ok((connack, read[bytes..].to_vec()));
            }
            Split::Partial(wanted) if wanted <= CONNACK_BYTES_MAX => {}
            _ => return Err("connect: the answer is no CONNACK".into()),
        }
        let count = stream.read_buf(&mut read).await;
        if count.map_err(|error| format!("connect: {}", kind(&error)))? == 0 {
            return Err("connect: closed without an answer".into());
        }
    }
}

/// The kind of an error, without what differs from one to the next.
pub(super) fn kind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData => error.to_string(),
        kind => kind.to_string(),
    }
}
