//! The device's side of the door: a small MQTT client for simulated devices, load and tests.
//!
//! One owner, no task of its own: packets gather in a buffer and leave in one write when the caller
//! waits for something. It shares its machine with what it measures, so nothing is copied or woken
//! without need. It never reconnects; the caller decides what a lost connection means. [`kafka`] is the side of those who
//! read events.

pub mod kafka;
mod options;
mod transport;

pub use options::{ConnectOptions, Transport, device_token, sdk_username};
pub use transport::{Io, websocket};

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::num::NonZeroU16;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use rmqtt_codec::types::QoS;
use rmqtt_codec::{v3, v5};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_util::codec::{Decoder, Encoder};
use tokio_util::io::poll_read_buf;

use crate::limits::PACKET_BYTES_MAX;
use crate::mqtt::Version;
use crate::mqtt::wire::RECEIPT_PROPERTY;

/// Bytes that gather before they are written without being asked for.
const OUT_BYTES_TARGET: usize = 16 * 1024;
/// Bytes of the read buffer.
const READ_BYTES: usize = 16 * 1024;
/// Time for a connect, from the dialling to the CONNACK.
const CONNECT_WAIT: Duration = Duration::from_secs(60);

/// Why a client is not connected, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The hub refused: the CONNACK's code (of the version that was spoken).
    #[error("the hub refused the connection with code {0:#04x}")]
    Refused(u8),
    /// The socket failed or was closed.
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    /// The hub sent something that is not MQTT, or not expected.
    #[error("the hub broke the protocol: {0}")]
    Protocol(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// An option makes no sense.
    #[error("{0}")]
    Options(String),
}

/// What comes from the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A published message is stored.
    Puback {
        /// The id that `publish` returned.
        id: u16,
        /// `shard/offset/term`, if receipts were asked for (MQTT 5).
        receipt: Option<String>,
    },
    /// A published message was refused and is not stored; the connection goes on (MQTT 5).
    Refused {
        /// The id that `publish` returned.
        id: u16,
        /// The reason code: 0x97 when the hub's storage is full.
        reason: u8,
    },
    /// A message for the device.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Bytes,
        /// Its packet id, if it is to be acknowledged.
        id: Option<u16>,
        /// Whether the hub says that it was sent before.
        dup: bool,
        /// MQTT 5: content type (under `$.ct`) and user properties.
        properties: Vec<(String, String)>,
    },
    /// The hub has handled a SUBSCRIBE.
    Suback {
        /// The id that `subscribe` returned.
        id: u16,
        /// A code per filter; 0x80 and above are refusals.
        codes: Vec<u8>,
    },
    /// The hub has handled an UNSUBSCRIBE.
    Unsuback {
        /// The id that `unsubscribe` returned.
        id: u16,
    },
    /// The hub answered a ping of ours.
    Pong,
    /// The connection is over; nothing follows.
    Disconnected {
        /// MQTT 5: the hub's reason.
        reason: Option<u8>,
    },
}

#[derive(Debug)]
enum Codec {
    V3(v3::Codec),
    V5(v5::Codec),
}

/// A connected device.
pub struct Client {
    stream: Box<dyn Io>,
    codec: Codec,
    read: BytesMut,
    out: BytesMut,
    needs_flush: bool,
    events: VecDeque<Event>,
    window: usize,
    in_flight: usize,
    last_id: u16,
    session_present: bool,
    is_over: bool,
    /// Whether messages are acknowledged as they come.
    acknowledges: bool,
    keep_alive: Option<Duration>,
    written: Instant,
}

impl Client {
    /// Dials, connects and waits for the CONNACK.
    pub async fn connect(options: &ConnectOptions) -> Result<Client, ClientError> {
        timeout(CONNECT_WAIT, Self::connect_unbounded(options))
            .await
            .map_err(|_| ClientError::TimedOut)?
    }

    async fn connect_unbounded(options: &ConnectOptions) -> Result<Client, ClientError> {
        let stream = transport::dial(&options.transport).await?;
        let codec = match options.version {
            Version::V3 => Codec::V3(v3::Codec::new(PACKET_BYTES_MAX)),
            Version::V5 => Codec::V5(v5::Codec::new(PACKET_BYTES_MAX, 0)),
        };
        let mut client = Client {
            stream,
            codec,
            read: BytesMut::new(),
            out: BytesMut::new(),
            needs_flush: false,
            events: VecDeque::new(),
            window: options.window.max(1),
            in_flight: 0,
            last_id: 0,
            session_present: false,
            is_over: false,
            acknowledges: options.acknowledges,
            keep_alive: (options.keep_alive_s > 0)
                .then(|| Duration::from_secs(u64::from(options.keep_alive_s))),
            written: Instant::now(),
        };
        match options.version {
            Version::V3 => client.put_v3(options.connect_v3().into())?,
            Version::V5 => client.put_v5(options.connect_v5().into())?,
        }
        loop {
            if let Some(()) = client.take_connack()? {
                return Ok(client);
            }
            if poll_fn(|cx| client.poll_io(cx)).await? == 0 {
                return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    fn take_connack(&mut self) -> Result<Option<()>, ClientError> {
        let (code, present) = match &mut self.codec {
            Codec::V3(codec) => match codec.decode(&mut self.read).map_err(protocol)? {
                None => return Ok(None),
                Some((v3::Packet::ConnectAck(ack), _)) => (u8::from(ack.return_code), ack.session_present),
                Some(_) => return Err(ClientError::Protocol("the first packet is not a CONNACK".into())),
            },
            Codec::V5(codec) => match codec.decode(&mut self.read).map_err(protocol)? {
                None => return Ok(None),
                Some((v5::Packet::ConnectAck(ack), _)) => {
                    self.window = self.window.min(usize::from(ack.receive_max.get()));
                    if let Some(seconds) = ack.server_keepalive_sec {
                        self.keep_alive = Some(Duration::from_secs(u64::from(seconds)));
                    }
                    (u8::from(ack.reason_code), ack.session_present)
                }
                Some(_) => return Err(ClientError::Protocol("the first packet is not a CONNACK".into())),
            },
        };
        self.session_present = present;
        if code == 0 {
            Ok(Some(()))
        } else {
            Err(ClientError::Refused(code))
        }
    }

    /// Whether the hub went on with an earlier session.
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Messages that were published with QoS 1 and not acknowledged yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Publishes with QoS 1 and returns the packet id. Waits while the window is full; what arrives
    /// meanwhile is kept for [`next_event`](Self::next_event). The packet leaves with the next
    /// [`flush`](Self::flush) or `next_event`, or when 16 KiB have gathered.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> Result<u16, ClientError> {
        while self.in_flight >= self.window && !self.is_over {
            self.fill_events().await?;
        }
        if self.is_over {
            return Err(ClientError::Lost(io::ErrorKind::NotConnected.into()));
        }
        let id = self.next_id();
        self.put_publish(topic, payload, Some(id));
        self.in_flight += 1;
        if self.out.len() >= OUT_BYTES_TARGET {
            self.flush().await?;
        }
        Ok(id)
    }

    /// Publishes with QoS 0.
    pub async fn publish_unacknowledged(&mut self, topic: &str, payload: &[u8]) -> Result<(), ClientError> {
        self.put_publish(topic, payload, None);
        if self.out.len() >= OUT_BYTES_TARGET {
            self.flush().await
        } else {
            Ok(())
        }
    }

    /// Asks for a filter with QoS 1; the answer is an [`Event::Suback`].
    pub async fn subscribe(&mut self, filter: &str) -> Result<u16, ClientError> {
        let id = self.next_id();
        let packet_id = NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN);
        match &self.codec {
            Codec::V3(_) => self.put_v3(v3::Packet::Subscribe {
                packet_id,
                topic_filters: vec![(filter.into(), QoS::AtLeastOnce)],
            })?,
            Codec::V5(_) => {
                let options = v5::SubscriptionOptions {
                    qos: QoS::AtLeastOnce,
                    ..Default::default()
                };
                self.put_v5(v5::Packet::Subscribe(v5::Subscribe {
                    packet_id,
                    id: None,
                    user_properties: Vec::new(),
                    topic_filters: vec![(filter.into(), options)],
                }))?;
            }
        }
        self.flush().await?;
        Ok(id)
    }

    /// Gives a filter back; the answer is an [`Event::Unsuback`].
    pub async fn unsubscribe(&mut self, filter: &str) -> Result<u16, ClientError> {
        let id = self.next_id();
        let packet_id = NonZeroU16::new(id).unwrap_or(NonZeroU16::MIN);
        match &self.codec {
            Codec::V3(_) => {
                self.put_v3(v3::Packet::Unsubscribe {
                    packet_id,
                    topic_filters: vec![filter.into()],
                })?;
            }
            Codec::V5(_) => self.put_v5(v5::Packet::Unsubscribe(v5::Unsubscribe {
                packet_id,
                user_properties: Vec::new(),
                topic_filters: vec![filter.into()],
            }))?,
        }
        self.flush().await?;
        Ok(id)
    }

    /// Sends a ping; the answer is an [`Event::Pong`].
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        self.out.put_slice(&[0xC0, 0]);
        self.flush().await
    }

    /// Sends bytes as they are, for tests of what a hub makes of them.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.out.put_slice(bytes);
        self.flush().await
    }

    /// Writes whatever has gathered. May be dropped at any time without losing a byte.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        Ok(poll_fn(|cx| self.poll_write(cx)).await?)
    }

    /// The next event; writes first what has gathered, and pings when nothing was written for a
    /// keep-alive. May be dropped at any time without losing anything.
    pub async fn next_event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            if self.is_over {
                return Event::Disconnected { reason: None };
            }
            if self.fill_events().await.is_err() {
                self.is_over = true;
            }
        }
    }

    /// The next event that is here already.
    pub fn try_next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Says goodbye and closes.
    pub async fn disconnect(mut self) {
        self.out.put_slice(&[0xE0, 0]);
        if self.flush().await.is_ok() {
            let _ = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
        }
    }

    /// Acknowledges a message that came, if the client was told to leave that to its caller.
    pub fn acknowledge(&mut self, id: u16) {
        self.put_puback(id);
    }

    /// Refuses a message that came, with a reason code of 0x80 or above (MQTT 5).
    pub fn refuse(&mut self, id: u16, reason: u8) {
        self.out.put_slice(&[0x40, 3]);
        self.out.put_u16(id);
        self.out.put_u8(reason);
    }

    fn put_puback(&mut self, id: u16) {
        self.out.put_slice(&[0x40, 2]);
        self.out.put_u16(id);
    }

    fn next_id(&mut self) -> u16 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    /// Written by hand: the codec would want the topic and payload in buffers of their own.
    fn put_publish(&mut self, topic: &str, payload: &[u8], id: Option<u16>) {
        let is_v5 = matches!(self.codec, Codec::V5(_));
        let mut left =
            2 + topic.len() + payload.len() + if id.is_some() { 2 } else { 0 } + usize::from(is_v5);
        self.out.reserve(left + 5);
        self.out.put_u8(if id.is_some() { 0x32 } else { 0x30 });
        loop {
            let low = (left & 0x7F) as u8;
            left >>= 7;
            self.out.put_u8(if left > 0 { low | 0x80 } else { low });
            if left == 0 {
                break;
            }
        }
        self.out.put_u16(topic.len() as u16);
        self.out.put_slice(topic.as_bytes());
        if let Some(id) = id {
            self.out.put_u16(id);
        }
        if is_v5 {
            self.out.put_u8(0);
        }
        self.out.put_slice(payload);
    }

    fn put_v3(&mut self, packet: v3::Packet) -> Result<(), ClientError> {
        match &mut self.codec {
            Codec::V3(codec) => codec.encode(packet, &mut self.out).map_err(protocol),
            Codec::V5(_) => Err(ClientError::Protocol("another version is spoken".into())),
        }
    }

    fn put_v5(&mut self, packet: v5::Packet) -> Result<(), ClientError> {
        match &mut self.codec {
            Codec::V5(codec) => codec.encode(packet, &mut self.out).map_err(protocol),
            Codec::V3(_) => Err(ClientError::Protocol("another version is spoken".into())),
        }
    }

    /// Writes and reads once, and takes every whole packet.
    async fn fill_events(&mut self) -> Result<(), ClientError> {
        if self.take_packets()? > 0 {
            return Ok(());
        }
        let ping_at = self.keep_alive.map(|keep_alive| self.written + keep_alive);
        let moved = match ping_at {
            None => Some(poll_fn(|cx| self.poll_io(cx)).await?),
            Some(at) => match tokio::time::timeout_at(at, poll_fn(|cx| self.poll_io(cx))).await {
                Ok(read) => Some(read?),
                Err(_) => None,
            },
        };
        match moved {
            Some(0) => self.finish(None),
            Some(_) => {
                self.take_packets()?;
            }
            None => {
                self.out.put_slice(&[0xC0, 0]);
                self.written = Instant::now();
            }
        }
        Ok(())
    }

    fn finish(&mut self, reason: Option<u8>) {
        if !self.is_over {
            self.is_over = true;
            self.events.push_back(Event::Disconnected { reason });
        }
    }

    fn take_packets(&mut self) -> Result<usize, ClientError> {
        let mut taken = 0;
        loop {
            let event = match &mut self.codec {
                Codec::V3(codec) => match codec.decode(&mut self.read).map_err(protocol)? {
                    None => return Ok(taken),
                    Some((packet, _)) => event_v3(packet),
                },
                Codec::V5(codec) => match codec.decode(&mut self.read).map_err(protocol)? {
                    None => return Ok(taken),
                    Some((packet, _)) => event_v5(packet),
                },
            };
            taken += 1;
            match event {
                Some((Event::Disconnected { reason }, _)) => self.finish(reason),
                Some((event, acknowledge)) => {
                    if matches!(event, Event::Puback { .. } | Event::Refused { .. }) {
                        self.in_flight = self.in_flight.saturating_sub(1);
                    }
                    if let Some(id) = acknowledge.filter(|_| self.acknowledges) {
                        self.put_puback(id);
                    }
                    self.events.push_back(event);
                }
                None => return Err(ClientError::Protocol("a packet that no server sends".into())),
            }
        }
    }

    fn poll_io(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_write(cx) {
            return Poll::Ready(Err(error));
        }
        if self.read.capacity() - self.read.len() < READ_BYTES / 4 {
            self.read.reserve(READ_BYTES);
        }
        poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.read)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.out.has_remaining() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.needs_flush = true;
            self.written = Instant::now();
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}

fn protocol(error: impl std::fmt::Display) -> ClientError {
    ClientError::Protocol(error.to_string())
}

/// The event of a packet, and the packet id to acknowledge.
pub(crate) fn event_v3(packet: v3::Packet) -> Option<(Event, Option<u16>)> {
    Some(match packet {
        v3::Packet::PublishAck { packet_id } => (
            Event::Puback {
                id: packet_id.get(),
                receipt: None,
            },
            None,
        ),
        v3::Packet::Publish(publish) => message(&publish),
        v3::Packet::SubscribeAck { packet_id, status } => {
            let code = |status: &v3::SubscribeReturnCode| match status {
                v3::SubscribeReturnCode::Success(qos) => qos.value(),
                v3::SubscribeReturnCode::Failure => 0x80,
            };
            (
                Event::Suback {
                    id: packet_id.get(),
                    codes: status.iter().map(code).collect(),
                },
                None,
            )
        }
        v3::Packet::UnsubscribeAck { packet_id } => (Event::Unsuback { id: packet_id.get() }, None),
        v3::Packet::PingResponse => (Event::Pong, None),
        _ => return None,
    })
}

pub(crate) fn event_v5(packet: v5::Packet) -> Option<(Event, Option<u16>)> {
    Some(match packet {
        v5::Packet::PublishAck(ack) if u8::from(ack.reason_code) >= 0x80 => {
            let (id, reason) = (ack.packet_id.get(), ack.reason_code.into());
            (Event::Refused { id, reason }, None)
        }
        v5::Packet::PublishAck(ack) => {
            let receipt = ack.properties.iter().find(|(key, _)| &**key == RECEIPT_PROPERTY);
            let receipt = receipt.map(|(_, value)| value.to_string());
            (
                Event::Puback {
                    id: ack.packet_id.get(),
                    receipt,
                },
                None,
            )
        }
        v5::Packet::Publish(publish) => message(&publish),
        v5::Packet::SubscribeAck(ack) => {
            let codes = ack.status.iter().map(|code| u8::from(*code)).collect();
            (
                Event::Suback {
                    id: ack.packet_id.get(),
                    codes,
                },
                None,
            )
        }
        v5::Packet::UnsubscribeAck(ack) => (
            Event::Unsuback {
                id: ack.packet_id.get(),
            },
            None,
        ),
        v5::Packet::PingResponse => (Event::Pong, None),
        v5::Packet::Disconnect(disconnect) => (
            Event::Disconnected {
                reason: Some(disconnect.reason_code.into()),
            },
            None,
        ),
        _ => return None,
    })
}

fn message(publish: &rmqtt_codec::types::Publish) -> (Event, Option<u16>) {
    let acknowledge = publish.packet_id.map(NonZeroU16::get);
    (
        Event::Message {
            topic: publish.topic.to_string(),
            payload: publish.payload.clone(),
            id: acknowledge,
            dup: publish.dup,
            properties: publish.properties.as_ref().map_or_else(Vec::new, pairs),
        },
        acknowledge,
    )
}

fn pairs(properties: &v5::PublishProperties) -> Vec<(String, String)> {
    let content_type = properties.content_type.iter();
    let content_type = content_type.map(|text| ("$.ct".to_owned(), text.to_string()));
    let user = properties.user_properties.iter();
    let user = user.map(|(key, value)| (key.to_string(), value.to_string()));
    content_type.chain(user).collect()
}

/// Whatever a client can speak over.
impl<T> Io for T where T: AsyncRead + AsyncWrite + Unpin + Send {}
