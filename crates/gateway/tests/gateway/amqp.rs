//! The AMQP door: what a client without a right, without manners or without sense is told.
//!
//! Frames are laid out by hand here, so that nothing of the door's own codec vouches for itself.

use std::time::Duration;

use dunlin_gateway::auth;
use dunlin_gateway::limits::{AMQP_FRAME_BYTES_FIRST, AMQP_FRAME_BYTES_MAX, AMQP_LINKS_MAX};
use dunlin_gateway::tls::client_config;
use dunlin_model::audit::AuditOutcome;
use dunlin_model::port::ShardClient as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fake::KEY;
use crate::world::{HOST, NOW_S, World};

const PATIENCE: Duration = Duration::from_secs(20);
const OPEN: u8 = 0x10;
const ATTACH: u8 = 0x12;
const FLOW: u8 = 0x13;
const TRANSFER: u8 = 0x14;
const DISPOSITION: u8 = 0x15;
const DETACH: u8 = 0x16;
const CLOSE: u8 = 0x18;
const NULL: &[u8] = &[0x40];
const RECEIVE: &[u8] = &[0x41];
const SEND: &[u8] = &[0x42];

fn string(text: &str) -> Vec<u8> {
    [&[0xb1], &(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

fn symbol(text: &str) -> Vec<u8> {
    [&[0xa3, text.len() as u8], text.as_bytes()].concat()
}

fn uint(number: u32) -> Vec<u8> {
    [&[0x70], &number.to_be_bytes()[..]].concat()
}

fn long(number: i64) -> Vec<u8> {
    [&[0x81], &number.to_be_bytes()[..]].concat()
}

/// A list (0xd0) or a map (0xd1).
fn compound(code: u8, items: &[Vec<u8>]) -> Vec<u8> {
    let body = items.concat();
    let size = (body.len() + 4) as u32;
    let count = (items.len() as u32).to_be_bytes();
    [&[code], &size.to_be_bytes()[..], &count[..], &body].concat()
}

fn described(number: u8, value: &[u8]) -> Vec<u8> {
    [&[0x00, 0x53, number], value].concat()
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let size = (body.len() + 8) as u32;
    [&size.to_be_bytes()[..], &[2, kind, 0, 0], body].concat()
}

fn performative(number: u8, fields: &[Vec<u8>]) -> Vec<u8> {
    described(number, &compound(0xd0, fields))
}

/// A client that says what it is told to.
struct Stranger {
    stream: TlsStream<TcpStream>,
}

impl Stranger {
    async fn dial(world: &World) -> Stranger {
        let stream = TcpStream::connect(world.gateway.amqps_addresses()[0])
            .await
            .unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(client_config(&world.roots).unwrap());
        Stranger {
            stream: connector.connect(name, stream).await.unwrap(),
        }
    }

    /// A connection with a session, and nothing else.
    async fn open(world: &World) -> Stranger {
        let mut stranger = Self::dial(world).await;
        let init = performative(0x41, &[symbol("MSSBCBS")]);
        let open = performative(OPEN, &[string("stranger"), NULL.to_vec(), uint(65_536)]);
        let begin = performative(0x11, &[NULL.to_vec(), uint(0), uint(1000), uint(1000)]);
        stranger.say(b"AMQP\x03\x01\x00\x00").await;
        stranger.say(&frame(1, &init)).await;
        stranger.say(b"AMQP\x00\x01\x00\x00").await;
        stranger.say(&frame(0, &open)).await;
        stranger.say(&frame(0, &begin)).await;
        stranger.header().await;
        assert_eq!(stranger.hear().await[2], 0x40, "the mechanisms");
        assert_eq!(stranger.hear().await[2], 0x44, "the outcome");
        stranger.header().await;
        stranger.hear_of(0x11).await;
        stranger
    }

    /// The same, with a token of `policy`.
    async fn known(world: &World, policy: &str) -> Stranger {
        let mut stranger = Self::open(world).await;
        let resource = format!("sb://{HOST}/eh");
        let token = auth::sign(&resource, KEY, NOW_S + 3600, Some(policy)).unwrap();
        assert_eq!(stranger.show(&resource, &token).await, 202);
        stranger
    }

    /// The same, with a token for all of the hub and a link for messages to devices.
    async fn sender(world: &World) -> Stranger {
        let mut stranger = Self::open(world).await;
        let token = auth::sign(HOST, KEY, NOW_S + 60, Some("service")).unwrap();
        assert_eq!(stranger.show(&format!("https://{HOST}"), &token).await, 202);
        stranger
            .attach(2, SEND, "amqps://h/messages/deviceBound", None, None)
            .await;
        stranger.hear_of(FLOW).await;
        stranger
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn header(&mut self) {
        let mut header = [0; 8];
        timeout(PATIENCE, self.stream.read_exact(&mut header))
            .await
            .unwrap()
            .unwrap();
    }

    /// The body of the next frame.
    async fn hear(&mut self) -> Vec<u8> {
        let reading = async {
            let size = self.stream.read_u32().await.unwrap() as usize;
            let mut rest = vec![0; size - 4];
            self.stream.read_exact(&mut rest).await.unwrap();
            rest.split_off(4)
        };
        let heard = timeout(PATIENCE, reading).await;
        heard.expect("the hub says something")
    }

    /// The next frame with this performative.
    async fn hear_of(&mut self, number: u8) -> Vec<u8> {
        loop {
            let body = self.hear().await;
            if body.get(2) == Some(&number) {
                return body;
            }
        }
    }

    /// Whether the hub ends the connection, whatever it says before.
    async fn is_cut(&mut self) -> Vec<u8> {
        let mut said = Vec::new();
        let reading = async {
            let mut chunk = [0; 1024];
            while let Ok(read @ 1..) = self.stream.read(&mut chunk).await {
                said.extend_from_slice(&chunk[..read]);
            }
        };
        timeout(PATIENCE, reading).await.expect("the hub ends it");
        said
    }

    async fn attach(
        &mut self,
        handle: u32,
        role: &[u8],
        address: &str,
        filter: Option<&str>,
        epoch: Option<i64>,
    ) {
        let mut source = vec![string(address)];
        source.resize(7, NULL.to_vec());
        let selector = symbol("apache.org:selector-filter:string");
        source.push(match filter {
            Some(filter) => compound(
                0xd1,
                &[selector.clone(), [&[0], &selector[..], &string(filter)].concat()],
            ),
            None => NULL.to_vec(),
        });
        let end = described(0x28, &compound(0xd0, &source));
        let target = described(0x29, &compound(0xd0, &[string(address)]));
        let mut fields = vec![string(&format!("link-{handle}")), uint(handle), role.to_vec()];
        fields.resize(5, NULL.to_vec());
        fields.extend([end, target, NULL.to_vec(), NULL.to_vec(), uint(0)]);
        fields.resize(13, NULL.to_vec());
        fields.push(epoch.map_or(NULL.to_vec(), |epoch| {
            compound(0xd1, &[symbol("com.microsoft:epoch"), long(epoch)])
        }));
        self.say(&frame(0, &performative(ATTACH, &fields))).await;
    }

    async fn credit(&mut self, handle: u32, credit: u32) {
        let fields = [0, 1000, 0, 1000, handle, 0, credit].map(uint);
        self.say(&frame(0, &performative(FLOW, &fields))).await;
    }

    /// Shows a token at `$cbs` and returns the status.
    async fn show(&mut self, audience: &str, token: &str) -> u8 {
        self.attach(0, RECEIVE, "$cbs", None, None).await;
        self.attach(1, SEND, "$cbs", None, None).await;
        self.credit(0, 10).await;
        let texts = [
            ("operation", "put-token"),
            ("type", "servicebus.windows.net:sastoken"),
            ("name", audience),
        ];
        let application: Vec<Vec<u8>> = texts
            .iter()
            .flat_map(|(key, value)| [string(key), string(value)])
            .collect();
        let message = [
            described(0x73, &compound(0xd0, &[uint(5)])),
            described(0x74, &compound(0xd1, &application)),
            described(0x77, &string(token)),
        ];
        let transfer = performative(TRANSFER, &[uint(1), uint(0), vec![0xa0, 1, 0], uint(0)]);
        self.say(&frame(0, &[transfer, message.concat()].concat())).await;
        let answer = self.hear_of(TRANSFER).await;
        let name = b"status-code";
        let at = answer.windows(name.len()).position(|part| part == name).unwrap() + name.len();
        // An int in its long form; statuses are below 2^16.
        assert_eq!(answer[at], 0x71);
        u16::from_be_bytes([answer[at + 3], answer[at + 4]]).min(255) as u8
    }

    /// Sends a message to a device on the link `handle` as delivery `number`; returns what it hears of it.
    async fn send_to(&mut self, (handle, number): (u32, u32), to: &str) -> Vec<u8> {
        let message = [
            described(0x73, &compound(0xd0, &[string("m-1"), NULL.to_vec(), string(to)])),
            described(0x74, &compound(0xd1, &[string("iothub-ack"), string("full")])),
            described(0x75, &[&[0xa0, 2][..], b"on"].concat()),
        ];
        let tag = vec![0xa0, 1, number as u8];
        let transfer = performative(TRANSFER, &[uint(handle), uint(number), tag, uint(0)]);
        self.say(&frame(0, &[transfer, message.concat()].concat())).await;
        self.hear_of(DISPOSITION).await
    }

    /// Asks for the events of a partition and returns why it may not have them.
    async fn refused(&mut self, handle: u32, address: &str, filter: Option<&str>) -> String {
        self.attach(handle, RECEIVE, address, filter, None).await;
        condition(&self.hear_of(DETACH).await)
    }
}

/// The error condition in a frame.
fn condition(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let at = text
        .find("amqp:")
        .unwrap_or_else(|| panic!("no condition in {text:?}"));
    let is_name = |c: &char| c.is_ascii_lowercase() || matches!(c, ':' | '-');
    text[at..].chars().take_while(is_name).collect()
}

const EVENTS: &str = "eh/ConsumerGroups/$Default/Partitions/0";

#[tokio::test]
async fn without_a_token_that_covers_it_there_is_no_link() {
    let world = World::new().await;
    let mut stranger = Stranger::open(&world).await;
    assert_eq!(
        stranger.refused(2, EVENTS, None).await,
        "amqp:unauthorized-access"
    );
    assert_eq!(
        stranger.refused(3, "$management", None).await,
        "amqp:unauthorized-access"
    );
    let record = world.audit.next("amqp.link").await;
    assert_eq!(record.what, EVENTS);
    assert!(matches!(record.outcome, AuditOutcome::Refused(_)));
    let mut known = Stranger::known(&world, "service").await;
    let other = "other/ConsumerGroups/$Default/Partitions/0";
    assert_eq!(known.refused(2, other, None).await, "amqp:unauthorized-access");
}

#[tokio::test]
async fn a_message_to_a_device_is_accepted_when_it_is_queued_and_rejected_by_name() {
    let world = World::new().await;
    let mut stranger = Stranger::open(&world).await;
    stranger
        .attach(2, SEND, "/messages/devicebound", None, None)
        .await;
    assert_eq!(
        condition(&stranger.hear_of(DETACH).await),
        "amqp:unauthorized-access"
    );
    let mut known = Stranger::sender(&world).await;
    let own = "/devices/dev-1/messages/devicebound";
    let accepted = [0x00, 0x53, 0x24];
    for number in 1..=50 {
        let heard = known.send_to((2, number), own).await;
        let is_accepted = heard.windows(3).any(|part| part == accepted);
        assert!(is_accepted, "{number}: {heard:x?}");
    }
    let device = world.http("GET", "/devices/dev-1", &[], "").await.json();
    assert_eq!(device["cloudToDeviceMessageCount"], 50);
    let full = known.send_to((2, 51), own).await;
    assert_eq!(condition(&full), "amqp:resource-limit-exceeded");
    let nobody = known
        .send_to((2, 52), "/devices/nobody/messages/devicebound")
        .await;
    assert_eq!(condition(&nobody), "amqp:not-found");
    let nowhere = known.send_to((2, 53), "/devices/dev-1").await;
    let said = String::from_utf8_lossy(&nowhere).into_owned();
    assert!(said.contains("com.microsoft:argument-error"), "{said}");
    let record = world.audit.next("message.send").await;
    assert_eq!(
        (record.who.as_str(), record.what.as_str(), record.outcome),
        ("service", "dev-1", AuditOutcome::Done)
    );
}

#[tokio::test]
async fn a_message_to_a_shard_that_nobody_leads_is_to_be_sent_again() {
    let world = World::new().await;
    let mut known = Stranger::sender(&world).await;
    let own = "/devices/dev-1/messages/devicebound";
    let shard = world.cluster.shard_of(&world.device);
    world.cluster.lose_shard(Some(shard));
    let unknown = known.send_to((2, 1), own).await;
    let said = String::from_utf8_lossy(&unknown).into_owned();
    assert!(said.contains("com.microsoft:timeout"), "{said}");
    world.cluster.lose_shard(None);
    let accepted = known.send_to((2, 2), own).await;
    assert!(
        accepted.windows(3).any(|part| part == [0x00, 0x53, 0x24]),
        "{accepted:x?}"
    );
}

#[tokio::test]
async fn tokens_that_do_not_count_are_refused_and_kept_in_the_audit() {
    let world = World::new().await;
    let audience = format!("sb://{HOST}/eh");
    let sign = |key: &str, expiry_s, policy| auth::sign(&audience, key, expiry_s, Some(policy)).unwrap();
    for (token, why) in [
        (sign(KEY, NOW_S, "service"), "the token has expired"),
        (
            sign(KEY, NOW_S + 3600, "device"),
            "the policy does not grant this",
        ),
        (sign(KEY, NOW_S + 3600, "nobody"), "the policy does not exist"),
        (
            sign(&auth::draw_key(), NOW_S + 3600, "service"),
            "the signature does not match",
        ),
        ("no token".to_owned(), "the token cannot be read"),
    ] {
        let mut stranger = Stranger::open(&world).await;
        assert_eq!(stranger.show(&audience, &token).await, 255, "{why}");
        let record = world.audit.next("amqp.token").await;
        assert_eq!(record.outcome, AuditOutcome::Refused(why.to_owned()));
        assert_eq!(
            stranger.refused(2, EVENTS, None).await,
            "amqp:unauthorized-access"
        );
    }
}

#[tokio::test]
async fn partitions_and_selectors_that_are_none_are_refused_by_name() {
    let world = World::new().await;
    let mut known = Stranger::known(&world, "service").await;
    let partition = |name: &str| format!("eh/ConsumerGroups/$Default/Partitions/{name}");
    for name in ["4", "x", "00"] {
        assert_eq!(
            known.refused(2, &partition(name), None).await,
            "amqp:not-found",
            "{name}"
        );
        known
            .say(&frame(0, &performative(DETACH, &[uint(2), vec![0x41]])))
            .await;
    }
    assert_eq!(known.refused(3, "eh/nothing", None).await, "amqp:not-found");
    for (handle, filter) in [
        (4, "x-opt-offset > '1'"),
        (5, "amqp.annotation.x-opt-offset < '1'"),
    ] {
        assert_eq!(
            known.refused(handle, EVENTS, Some(filter)).await,
            "amqp:invalid-field"
        );
    }
    known.attach(6, SEND, EVENTS, None, None).await;
    assert_eq!(condition(&known.hear_of(DETACH).await), "amqp:not-allowed");
}

#[tokio::test]
async fn events_come_with_credit_and_not_without() {
    let world = World::new().await;
    let mut device = world.connect(dunlin_gateway::mqtt::Version::V3).await;
    for text in ["one", "two"] {
        device
            .publish("devices/dev-1/messages/events/", text.as_bytes())
            .await
            .unwrap();
        device.next_event().await;
    }
    let mut known = Stranger::known(&world, "service").await;
    for shard in 0..4 {
        let address = format!("eh/ConsumerGroups/$Default/Partitions/{shard}");
        known.attach(10 + shard, RECEIVE, &address, None, None).await;
        known.hear_of(ATTACH).await;
    }
    for shard in 0..4 {
        known.credit(10 + shard, 1).await;
    }
    assert!(known.hear_of(TRANSFER).await.ends_with(b"one"));
    for shard in 0..4 {
        known.credit(10 + shard, 2).await;
    }
    assert!(known.hear_of(TRANSFER).await.ends_with(b"two"));
}

#[tokio::test]
async fn a_reader_with_an_epoch_sends_others_away() {
    let world = World::new().await;
    let mut first = Stranger::known(&world, "service").await;
    first.attach(2, RECEIVE, EVENTS, None, Some(1)).await;
    first.hear_of(ATTACH).await;
    let mut second = Stranger::known(&world, "service").await;
    assert_eq!(second.refused(2, EVENTS, None).await, "amqp:link:stolen");
    second.attach(3, RECEIVE, EVENTS, None, Some(2)).await;
    second.hear_of(ATTACH).await;
    assert_eq!(condition(&first.hear_of(DETACH).await), "amqp:link:stolen");
}

#[tokio::test]
async fn a_policy_that_changes_ends_the_connections_that_it_opened() {
    let world = World::new().await;
    let mut known = Stranger::known(&world, "service").await;
    known.attach(2, RECEIVE, EVENTS, None, None).await;
    known.hear_of(ATTACH).await;
    world.cluster.remove_policy("service");
    let said = timeout(Duration::from_secs(2), known.is_cut())
        .await
        .expect("within two seconds");
    assert_eq!(condition(&said), "amqp:unauthorized-access");
}

#[tokio::test]
async fn garbage_and_frames_beyond_the_bounds_end_the_connection() {
    let world = World::new().await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"AMQP\x00\x01\x00\x00", &[0; 64]] {
        let mut stranger = Stranger::dial(&world).await;
        stranger.say(bytes).await;
        let said = stranger.is_cut().await;
        assert!(said.starts_with(b"AMQP"), "the header that is wanted");
    }
    // Before it is open, a connection may say little; nested lists would end the process if they were followed.
    let mut deep = vec![0x45];
    for _ in 0..900 {
        deep = compound(0xd0, &[deep]);
    }
    let body = performative(OPEN, &[string("c"), deep]);
    for long in [frame(0, &body), frame(0, &vec![0; AMQP_FRAME_BYTES_FIRST])] {
        let mut stranger = Stranger::dial(&world).await;
        stranger.say(b"AMQP\x03\x01\x00\x00").await;
        stranger
            .say(&frame(1, &performative(0x41, &[symbol("ANONYMOUS")])))
            .await;
        stranger.say(b"AMQP\x00\x01\x00\x00").await;
        stranger.say(&long).await;
        stranger.is_cut().await;
    }
    let mut stranger = Stranger::open(&world).await;
    stranger
        .say(&((AMQP_FRAME_BYTES_MAX + 1) as u32).to_be_bytes())
        .await;
    stranger.say(&[2, 0, 0, 0]).await;
    assert_eq!(
        condition(&stranger.hear_of(CLOSE).await),
        "amqp:connection:framing-error"
    );
    stranger.is_cut().await;
    let mut other = Stranger::known(&world, "service").await;
    other.attach(2, RECEIVE, EVENTS, None, None).await;
    other.hear_of(ATTACH).await;
}

#[tokio::test]
async fn links_have_a_bound() {
    let world = World::new().await;
    let mut known = Stranger::known(&world, "service").await;
    for handle in 2..=AMQP_LINKS_MAX as u32 {
        known.attach(handle, RECEIVE, "$management", None, None).await;
    }
    assert_eq!(
        condition(&known.hear_of(CLOSE).await),
        "amqp:resource-limit-exceeded"
    );
    known.is_cut().await;
}

#[tokio::test]
async fn draining_ends_connections_with_a_word() {
    let world = World::new().await;
    let mut known = Stranger::known(&world, "service").await;
    let drained = world.gateway.drain(PATIENCE);
    let said = async {
        let said = condition(&known.hear_of(CLOSE).await);
        known.is_cut().await;
        drop(known);
        said
    };
    let (drained, said) = tokio::join!(drained, said);
    assert!(drained);
    assert_eq!(said, "amqp:connection:forced");
}
