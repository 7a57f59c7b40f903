//! Dialling: TCP, TLS, or a WebSocket inside TLS, as one kind of stream.

use rustls::pki_types::ServerName;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;

use super::{ClientError, Transport};
use crate::websocket::{ByteStream, WEBSOCKET_PATH};

/// A stream of bytes in both directions.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

/// Opens the connection, ready for MQTT.
pub(super) async fn dial(transport: &Transport) -> Result<Box<dyn Io>, ClientError> {
    match transport {
        Transport::Tcp { address } => Ok(Box::new(tcp(address).await?)),
        Transport::Tls {
            address,
            server_name,
            config,
        } => Ok(Box::new(tls(address, server_name, Arc::clone(config)).await?)),
        Transport::WebSocket {
            address,
            server_name,
            config,
        } => {
            let stream = tls(address, server_name, Arc::clone(config)).await?;
            websocket(stream, &format!("wss://{server_name}{WEBSOCKET_PATH}")).await
        }
    }
}

/// Makes an open connection a WebSocket that carries MQTT, at any server's `url` (`ws://host/path`).
pub async fn websocket<S>(stream: S, url: &str) -> Result<Box<dyn Io>, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut request = url
        .into_client_request()
        .map_err(|error| ClientError::Options(error.to_string()))?;
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("mqtt"));
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(|error| ClientError::Protocol(error.to_string()))?;
    Ok(Box::new(ByteStream::<_, Message>::new(socket)))
}

async fn tcp(address: &str) -> Result<TcpStream, ClientError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(super) async fn tls(
    address: &str,
    server_name: &str,
    config: Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let name = ServerName::try_from(server_name.to_owned())
        .map_err(|_| ClientError::Options(format!("{server_name:?} is not a server name")))?;
    Ok(TlsConnector::from(config)
        .connect(name, tcp(address).await?)
        .await?)
}
