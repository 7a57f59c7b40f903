//! A client that sends the bytes it is told to and takes packets apart by hand, so that it can be wrong where a codec
//! would not be. Every packet from the hub is held against the rules for its header here; what it says is for the tests.

use std::time::Duration;

use dunlin_gateway::client::device_token;
use dunlin_gateway::mqtt::Version;
use dunlin_model::command::{Command, Outcome};
use dunlin_model::messages::{AckWanted, MessageContent, NewMessage};
use dunlin_model::port::ShardClient as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fake::KEY;
use crate::world::{HOST, NOW_S, World};

pub(super) const BOTH: [Version; 2] = [Version::V3, Version::V5];
/// Where the device is given messages.
pub(super) const FILTER: &str = "devices/dev-1/messages/devicebound/#";
/// Longest wait for something that must come.
const WAIT: Duration = Duration::from_secs(20);

/// A text as it stands in a packet: two bytes of length first.
pub(super) fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut all = (bytes.len() as u16).to_be_bytes().to_vec();
    all.extend_from_slice(bytes);
    all
}

fn variable(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7F) as u8;
        value >>= 7;
        bytes.push(if value > 0 { low | 0x80 } else { low });
        if value == 0 {
            return bytes;
        }
    }
}

/// The properties of an MQTT 5 packet with their length; nothing in MQTT 3.1.1, which has none.
pub(super) fn properties(version: Version, bytes: &[u8]) -> Vec<u8> {
    match version {
        Version::V3 => Vec::new(),
        Version::V5 => [variable(bytes.len()), bytes.to_vec()].concat(),
    }
}

/// A user property.
pub(super) fn user(key: &str, value: &str) -> Vec<u8> {
    [vec![0x26], text(key), text(value)].concat()
}

/// A packet with this first byte and body.
pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    [vec![first], variable(body.len()), body.to_vec()].concat()
}

/// PUBLISH with this first byte; `id` stands in it if the first byte says so.
pub(super) fn publish(
    version: Version,
    first: u8,
    topic: impl AsRef<[u8]>,
    id: u16,
    (own, payload): (&[u8], &[u8]),
) -> Vec<u8> {
    let mut body = text(topic);
    if first & 0b0110 != 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.extend_from_slice(&properties(version, own));
    body.extend_from_slice(payload);
    packet(first, &body)
}

/// SUBSCRIBE for these filters with these options.
pub(super) fn subscribe(version: Version, id: u16, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend_from_slice(&properties(version, &[]));
    for (filter, options) in filters {
        body.extend_from_slice(&text(filter));
        body.push(*options);
    }
    packet(0x82, &body)
}

pub(super) fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    body.extend_from_slice(&properties(version, &[]));
    filters
        .iter()
        .for_each(|filter| body.extend_from_slice(&text(filter)));
    packet(0xA2, &body)
}

pub(super) fn puback(id: u16) -> Vec<u8> {
    packet(0x40, &id.to_be_bytes())
}

/// A CONNECT to be changed and written.
#[derive(Clone)]
pub(super) struct Connect {
    pub(super) version: Version,
    pub(super) name: &'static str,
    pub(super) level: u8,
    /// Bits of the flags that are turned over before it is written.
    pub(super) flip: u8,
    pub(super) clean: bool,
    pub(super) keep_alive_s: u16,
    pub(super) properties: Vec<u8>,
    pub(super) client_id: Vec<u8>,
    pub(super) will: Option<Will>,
    pub(super) username: Option<Vec<u8>>,
    pub(super) password: Option<Vec<u8>>,
    /// Bytes behind the last field.
    pub(super) rest: Vec<u8>,
}

#[derive(Clone)]
pub(super) struct Will {
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) properties: Vec<u8>,
    pub(super) topic: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

impl Will {
    /// A will of the device's own, QoS 1.
    pub(super) fn own() -> Self {
        Self {
            qos: 1,
            retain: false,
            properties: Vec::new(),
            topic: b"devices/dev-1/messages/events/w=1".to_vec(),
            payload: b"gone".to_vec(),
        }
    }
}

impl Connect {
    /// One that is admitted: `dev-1`, with a session that is kept.
    pub(super) fn new(version: Version) -> Self {
        Self::of(version, "dev-1")
    }

    pub(super) fn of(version: Version, device: &str) -> Self {
        let token = device_token(HOST, device, KEY, NOW_S + 3600).unwrap();
        Self {
            version,
            name: "MQTT",
            level: if version == Version::V3 { 4 } else { 5 },
            flip: 0,
            clean: false,
            keep_alive_s: 60,
            properties: Vec::new(),
            client_id: device.into(),
            will: None,
            username: Some(format!("{HOST}/{device}/?api-version=2021-04-12").into()),
            password: Some(token.into()),
            rest: Vec::new(),
        }
    }

    pub(super) fn clean(version: Version) -> Self {
        Self {
            clean: true,
            ..Self::new(version)
        }
    }

    pub(super) fn with(version: Version, properties: &[u8]) -> Self {
        Self {
            properties: properties.to_vec(),
            ..Self::new(version)
        }
    }

    pub(super) fn willing(version: Version, will: Will) -> Self {
        Self {
            will: Some(will),
            ..Self::new(version)
        }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut flags = u8::from(self.clean) << 1;
        if let Some(will) = &self.will {
            flags |= 0x04 | (will.qos << 3) | (u8::from(will.retain) << 5);
        }
        flags |= u8::from(self.password.is_some()) << 6;
        flags |= u8::from(self.username.is_some()) << 7;
        let mut body = text(self.name);
        body.extend_from_slice(&[self.level, flags ^ self.flip]);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        body.extend_from_slice(&properties(self.version, &self.properties));
        body.extend_from_slice(&text(&self.client_id));
        if let Some(will) = &self.will {
            body.extend_from_slice(&properties(self.version, &will.properties));
            body.extend_from_slice(&text(&will.topic));
            body.extend_from_slice(&text(&will.payload));
        }
        for field in [&self.username, &self.password].into_iter().flatten() {
            body.extend_from_slice(&text(field));
        }
        body.extend_from_slice(&self.rest);
        packet(0x10, &body)
    }
}

/// A packet as it came: its first byte, and what follows the length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) first: u8,
    pub(super) body: Vec<u8>,
    /// Bytes of the whole.
    pub(super) size: usize,
}

/// A property: its identifier, and its value without a length. A pair is `key=value`.
pub(super) type Property = (u8, Vec<u8>);

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

fn take_variable(bytes: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = take(bytes, 1)[0];
        value |= usize::from(byte & 0x7F) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return value;
        }
    }
}

fn take_text(bytes: &mut &[u8]) -> Vec<u8> {
    let length = take(bytes, 2);
    let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
    take(bytes, length).to_vec()
}

pub(super) fn take_properties(bytes: &mut &[u8]) -> Vec<Property> {
    let length = take_variable(bytes);
    let mut own = take(bytes, length);
    let mut found = Vec::new();
    while !own.is_empty() {
        let id = take(&mut own, 1)[0];
        let value = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28..=0x2A => take(&mut own, 1).to_vec(),
            0x13 | 0x21..=0x23 => take(&mut own, 2).to_vec(),
            0x02 | 0x11 | 0x18 | 0x27 => take(&mut own, 4).to_vec(),
            0x0B => variable(take_variable(&mut own)),
            0x26 => [take_text(&mut own), take_text(&mut own)].join(&b'='),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => take_text(&mut own),
            other => panic!("property {other:#x} is not of MQTT"),
        };
        found.push((id, value));
    }
    found
}

/// CONNACK, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Connack {
    pub(super) flags: u8,
    pub(super) code: u8,
    pub(super) properties: Vec<Property>,
}

impl Connack {
    pub(super) fn read(version: Version, packet: &Packet) -> Self {
        assert_eq!(packet.first, 0x20, "{packet:?}");
        let mut body = &packet.body[..];
        let start = take(&mut body, 2);
        let properties = match version {
            Version::V3 => Vec::new(),
            Version::V5 => take_properties(&mut body),
        };
        assert!(body.is_empty(), "{packet:?}");
        Self {
            flags: start[0],
            code: start[1],
            properties,
        }
    }

    pub(super) fn present(&self) -> bool {
        self.flags == 1
    }

    /// The number that a property has.
    pub(super) fn number(&self, id: u8) -> Option<u32> {
        let found = self.properties.iter().find(|(own, _)| *own == id);
        found.map(|(_, value)| {
            value
                .iter()
                .fold(0, |number, byte| number << 8 | u32::from(*byte))
        })
    }
}

/// PUBLISH to the device, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) dup: bool,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) topic: String,
    pub(super) id: Option<u16>,
    pub(super) properties: Vec<Property>,
    pub(super) payload: Vec<u8>,
}

impl Message {
    pub(super) fn read(version: Version, packet: &Packet) -> Self {
        assert_eq!(packet.first & 0xF0, 0x30, "{packet:?}");
        let mut body = &packet.body[..];
        let qos = (packet.first >> 1) & 3;
        let topic = String::from_utf8(take_text(&mut body)).unwrap();
        let id = (qos > 0).then(|| {
            let id = take(&mut body, 2);
            u16::from_be_bytes([id[0], id[1]])
        });
        let properties = match version {
            Version::V3 => Vec::new(),
            Version::V5 => take_properties(&mut body),
        };
        Self {
            dup: packet.first & 8 != 0,
            qos,
            retain: packet.first & 1 != 0,
            topic,
            id,
            properties,
            payload: body.to_vec(),
        }
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// The device's end of one connection.
pub(super) struct Peer {
    pub(super) version: Version,
    stream: TcpStream,
    read: Vec<u8>,
}

impl Peer {
    pub(super) async fn dial(world: &World, version: Version) -> Self {
        let address = world.gateway.mqtt_plain_address().unwrap();
        Self {
            version,
            stream: TcpStream::connect(address).await.unwrap(),
            read: Vec::new(),
        }
    }

    /// Connects, and is admitted.
    pub(super) async fn admitted(world: &World, connect: &Connect) -> (Self, Connack) {
        let mut peer = Self::dial(world, connect.version).await;
        peer.send(&connect.bytes()).await;
        let connack = Connack::read(connect.version, &peer.packet().await);
        assert_eq!(connack.code, 0, "{connack:?}");
        (peer, connack)
    }

    /// The same, without the answer.
    pub(super) async fn connect(world: &World, connect: &Connect) -> Self {
        Self::admitted(world, connect).await.0
    }

    pub(super) async fn new(world: &World, version: Version) -> Self {
        Self::connect(world, &Connect::new(version)).await
    }

    /// What was sent to a hub that has closed is lost, as it should be.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    fn take_packet(&mut self) -> Option<Packet> {
        let mut at = 1;
        while *self.read.get(at)? & 0x80 != 0 {
            at += 1;
        }
        let mut rest = &self.read[1..];
        let length = take_variable(&mut rest);
        let size = at + 1 + length;
        if self.read.len() < size {
            return None;
        }
        assert_eq!(
            self.read[1..=at],
            variable(length),
            "a length takes no more bytes than it needs"
        );
        let first = self.read[0];
        assert!(
            first >> 4 == 3 || first & 0x0F == 0,
            "{first:#x} has flags that are reserved"
        );
        let body = self.read[at + 1..size].to_vec();
        self.read.drain(..size);
        Some(Packet { first, body, size })
    }

    /// The next packet, or `None` when the hub has closed.
    pub(super) async fn next(&mut self) -> Option<Packet> {
        let reading = async {
            loop {
                if let Some(packet) = self.take_packet() {
                    return Some(packet);
                }
                // A reset after what the hub had not read is a close as well.
                if !matches!(self.stream.read_buf(&mut self.read).await, Ok(read) if read > 0) {
                    assert!(self.read.is_empty(), "half a packet: {:?}", self.read);
                    return None;
                }
            }
        };
        let waited = tokio::time::timeout(WAIT, reading).await;
        waited.expect("a packet comes, or the end")
    }

    pub(super) async fn packet(&mut self) -> Packet {
        self.next().await.expect("a packet comes")
    }

    pub(super) async fn message(&mut self) -> Message {
        Message::read(self.version, &self.packet().await)
    }

    /// Sends, and expects these bytes as the whole answer.
    pub(super) async fn expect(&mut self, sent: &[u8], first: u8, body: &[u8]) {
        self.send(sent).await;
        let answer = self.packet().await;
        assert_eq!((answer.first, &answer.body[..]), (first, body), "to {sent:02x?}");
    }

    /// Nothing comes but the answers to pings: two, since what the hub does beside its packets has its turn between them.
    pub(super) async fn quiet(&mut self) {
        for _ in 0..2 {
            self.expect(&[0xC0, 0], 0xD0, &[]).await;
        }
    }

    /// The hub ends the connection: MQTT 5 is told why, and nothing comes after that; MQTT 3.1.1 is not.
    pub(super) async fn ended(&mut self) -> Option<u8> {
        let last = self.next().await;
        match (self.version, last) {
            (Version::V3, None) => None,
            (Version::V5, Some(packet)) if packet.first == 0xE0 => {
                let after = self.next().await;
                assert_eq!(after, None, "nothing follows a DISCONNECT");
                Some(packet.body.first().copied().unwrap_or_default())
            }
            (_, other) => panic!("the connection ends, not {other:?}"),
        }
    }

    /// The connection ends, in MQTT 5 for this reason.
    pub(super) async fn ends(&mut self, reason: u8) {
        let told = self.ended().await;
        assert_eq!(told, (self.version == Version::V5).then_some(reason));
    }

    /// Subscribes to messages with this QoS.
    pub(super) async fn listen(&mut self, qos: u8) {
        let sent = subscribe(self.version, 7, &[(FILTER, qos)]);
        let body = self.filter_ack(7, &[qos]);
        self.expect(&sent, 0x90, &body).await;
    }

    /// The body of a SUBACK, or of an UNSUBACK of MQTT 5.
    pub(super) fn filter_ack(&self, id: u16, codes: &[u8]) -> Vec<u8> {
        let own = properties(self.version, &[]);
        [id.to_be_bytes().to_vec(), own, codes.to_vec()].concat()
    }

    /// The body of an UNSUBACK: MQTT 3.1.1 has no codes.
    pub(super) fn unsuback(&self, id: u16, codes: &[u8]) -> Vec<u8> {
        match self.version {
            Version::V3 => id.to_be_bytes().to_vec(),
            Version::V5 => self.filter_ack(id, codes),
        }
    }

    /// Publishes with QoS 1 to the device's topic, and waits for the PUBACK.
    pub(super) async fn tell(&mut self, id: u16, payload: &[u8]) {
        let sent = publish(self.version, 0x32, crate::world::TOPIC, id, (&[], payload));
        self.expect(&sent, 0x40, &id.to_be_bytes()).await;
    }

    /// Says goodbye, and waits for the end of the session.
    pub(super) async fn leave(mut self, world: &World) {
        self.send(&[0xE0, 0]).await;
        assert_eq!(self.next().await, None);
        world.cluster.until_disconnected(&world.device).await;
    }

    /// Vanishes, and waits for the end of the session.
    pub(super) async fn vanish(self, world: &World) {
        drop(self);
        world.cluster.until_disconnected(&world.device).await;
    }
}

/// What the hub answers to a CONNECT that it does not admit, until it closes.
pub(super) async fn refusal(world: &World, connect: &Connect) -> Connack {
    let mut peer = Peer::dial(world, connect.version).await;
    peer.send(&connect.bytes()).await;
    let connack = Connack::read(connect.version, &peer.packet().await);
    assert_eq!(peer.next().await, None, "a refusal is the last word");
    connack
}

/// The hub closes without an answer to this CONNECT.
pub(super) async fn closes(world: &World, connect: &Connect) {
    let answer = world.answer_to(&connect.bytes()).await;
    assert_eq!(answer, b"", "{:02x?}", connect.bytes());
}

/// A service sends a message to the device: `body of {id}`.
pub(super) async fn send(world: &World, id: &str) {
    send_with(world, id, "", None).await;
}

/// The same with a property bag, and with the time when it is over, by a clock that begins in 1970.
pub(super) async fn send_with(world: &World, id: &str, bag: &str, expires_ms: Option<u64>) {
    let content = MessageContent {
        bag: bag.to_owned(),
        payload: format!("body of {id}").into(),
    };
    let message = NewMessage {
        id: id.to_owned(),
        ack: AckWanted::None,
        expires_ms,
        content,
    };
    let device = world.device.clone();
    let outcome = world
        .cluster
        .submit(Command::MessageSend { device, message })
        .await;
    assert!(
        !matches!(outcome, Err(_) | Ok(Outcome::Refused(_))),
        "{outcome:?}"
    );
}

/// Payloads of what the device has stored, in order.
pub(super) fn stored(world: &World) -> Vec<Vec<u8>> {
    let records = world.cluster.records(&world.device);
    records.iter().map(|record| record.payload.to_vec()).collect()
}

/// Waits until so many messages are left in the device's queue.
pub(super) async fn until_queued(world: &World, count: u32) {
    world.cluster.until_queued(&world.device, count).await;
}
