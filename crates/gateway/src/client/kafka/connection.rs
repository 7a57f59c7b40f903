//! One connection to the Kafka door: TLS, the token, then a question and its answer at a time.
//!
//! Decides when a connection is of no more use: whatever was asked and not answered to its end leaves it so, a question
//! that its asker gave up included, since the answer would be taken for that of the next.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::client::TlsStream;

use super::super::{ClientError, transport};
use super::wire::{Answer, Malformed, put_blob, put_text};
use super::{Code, KafkaError};

/// Bytes of an answer. The hub's are 8 MiB, and one event more where that alone is larger.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that the buffer for an answer grows by.
const READ_BYTES: usize = 64 * 1024;

/// Where a gateway is, and who comes to it.
#[derive(Clone)]
pub struct Door {
    /// `host:port` to dial.
    pub address: String,
    /// The name that the certificate must have.
    pub server_name: String,
    /// What to trust; see [`crate::tls::client_config`].
    pub config: Arc<ClientConfig>,
    /// Connection string of a policy that may read events.
    pub connection_string: String,
    /// What the client calls itself; member ids begin with it.
    pub client_id: String,
    /// Time to be let in, and for each answer.
    pub wait: Duration,
}

/// Shows nothing of the connection string.
impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door({}, {:?})", self.address, self.client_id)
    }
}

/// A kind of request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// Verb and object.
    pub(super) name: &'static str,
    /// Kafka's number of it.
    pub(super) key: i16,
    /// The version that is spoken.
    pub(super) version: i16,
}

impl Ask {
    pub(super) fn malformed(self, source: Malformed) -> KafkaError {
        KafkaError::Answer {
            asking: self.name,
            source,
        }
    }

    /// What a code of the hub means.
    pub(super) fn check(self, code: i16) -> Result<(), KafkaError> {
        match Code(code) {
            Code::NONE => Ok(()),
            code => Err(KafkaError::Refused {
                asking: self.name,
                code,
            }),
        }
    }
}

const fn ask(name: &'static str, key: i16, version: i16) -> Ask {
    Ask { name, key, version }
}

pub(super) const FETCH: Ask = ask("fetch events", 1, 4);
pub(super) const LIST_OFFSETS: Ask = ask("list offsets", 2, 1);
pub(super) const METADATA: Ask = ask("read metadata", 3, 1);
pub(super) const OFFSET_COMMIT: Ask = ask("commit offsets", 8, 5);
pub(super) const OFFSET_FETCH: Ask = ask("read committed offsets", 9, 3);
pub(super) const FIND_COORDINATOR: Ask = ask("find coordinator", 10, 1);
pub(super) const JOIN_GROUP: Ask = ask("join group", 11, 4);
pub(super) const HEARTBEAT: Ask = ask("send heartbeat", 12, 1);
pub(super) const LEAVE_GROUP: Ask = ask("leave group", 13, 1);
pub(super) const SYNC_GROUP: Ask = ask("sync group", 14, 1);
const SASL_HANDSHAKE: Ask = ask("agree on mechanism", 17, 1);
const SASL_AUTHENTICATE: Ask = ask("sign in", 36, 0);
pub(super) const DELETE_GROUP: Ask = ask("delete group", 42, 0);

/// See the file.
pub(super) struct Connection {
    stream: TlsStream<TcpStream>,
    client_id: String,
    correlation: i32,
    wait: Duration,
    /// Whether everything that was asked was answered.
    is_whole: bool,
}

impl Connection {
    /// Opens it and signs in.
    pub(super) async fn dial(door: &Door) -> Result<Self, KafkaError> {
        let until = Instant::now() + door.wait;
        let config = Arc::clone(&door.config);
        let dialled = timeout_at(until, transport::tls(&door.address, &door.server_name, config)).await;
        let stream = dialled
            .unwrap_or(Err(ClientError::TimedOut))
            .map_err(KafkaError::Dial)?;
        let mut connection = Self {
            stream,
            client_id: door.client_id.clone(),
            correlation: 0,
            wait: door.wait,
            is_whole: true,
        };
        let mut shaken = connection
            .ask(SASL_HANDSHAKE, |out| put_text(out, "PLAIN"))
            .await?;
        let code = shaken.i16().map_err(|error| SASL_HANDSHAKE.malformed(error))?;
        SASL_HANDSHAKE.check(code)?;
        let token = format!("\0$ConnectionString\0{}", door.connection_string);
        let signed_in = connection.ask(SASL_AUTHENTICATE, |out| put_blob(out, token.as_bytes()));
        let code = signed_in.await?.i16();
        SASL_AUTHENTICATE.check(code.map_err(|error| SASL_AUTHENTICATE.malformed(error))?)?;
        Ok(connection)
    }

    /// Time for an answer that the hub has at once.
    pub(super) fn wait(&self) -> Duration {
        self.wait
    }

    /// Asks, and returns what follows the header of the answer.
    pub(super) async fn ask(
        &mut self,
        ask: Ask,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<Answer, KafkaError> {
        self.ask_within(ask, self.wait, body).await
    }

    /// The same where the hub may take its time.
    pub(super) async fn ask_within(
        &mut self,
        ask: Ask,
        wait: Duration,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<Answer, KafkaError> {
        let lost = |source| KafkaError::Lost {
            asking: ask.name,
            source,
        };
        if !std::mem::replace(&mut self.is_whole, false) {
            return Err(lost(io::ErrorKind::NotConnected.into()));
        }
        self.correlation = self.correlation.wrapping_add(1);
        let mut frame = BytesMut::new();
        frame.put_i32(0); // The length, when it is known.
        frame.put_i16(ask.key);
        frame.put_i16(ask.version);
        frame.put_i32(self.correlation);
        put_text(&mut frame, &self.client_id);
        body(&mut frame);
        let length = (frame.len() - 4) as i32;
        frame[..4].copy_from_slice(&length.to_be_bytes());
        let exchanged = timeout_at(Instant::now() + wait, self.exchange(&frame)).await;
        let exchanged = exchanged.map_err(|_| KafkaError::TimedOut { asking: ask.name })?;
        let answer = exchanged.map_err(lost)?.ok_or(ask.malformed(Malformed::Short))?;
        let mut answer = Answer::new(answer);
        let correlation = answer.i32().map_err(|error| ask.malformed(error))?;
        if correlation != self.correlation {
            return Err(ask.malformed(Malformed::Correlation));
        }
        self.is_whole = true;
        Ok(answer)
    }

    /// Writes a frame and reads one; nothing if that is longer than any that may come.
    async fn exchange(&mut self, frame: &[u8]) -> io::Result<Option<Bytes>> {
        self.stream.write_all(frame).await?;
        self.stream.flush().await?;
        let length = usize::try_from(self.stream.read_i32().await?).unwrap_or(usize::MAX);
        if length > ANSWER_BYTES_MAX {
            return Ok(None);
        }
        let mut answer = BytesMut::new();
        let mut stream = (&mut self.stream).take(length as u64);
        while answer.len() < length {
            answer.reserve(READ_BYTES.min(length - answer.len()));
            if stream.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Some(answer.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api;

    #[test]
    fn what_is_asked_is_offered_and_has_no_compact_lengths() {
        for ask in [
            FETCH,
            LIST_OFFSETS,
            METADATA,
            OFFSET_COMMIT,
            OFFSET_FETCH,
            FIND_COORDINATOR,
            JOIN_GROUP,
            HEARTBEAT,
            LEAVE_GROUP,
            SYNC_GROUP,
            SASL_HANDSHAKE,
            SASL_AUTHENTICATE,
            DELETE_GROUP,
        ] {
            let offer = api::find(ask.key).unwrap();
            assert!(
                offer.has(ask.version) && !offer.is_flexible(ask.version),
                "{}: {:?}",
                ask.name,
                offer.api
            );
        }
    }
}
