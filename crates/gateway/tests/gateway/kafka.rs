//! The Kafka door in front of the shard machine: who is let in, what is advertised, events with their headers, and a
//! consumer group whose commands go through the log.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use dunlin_gateway::mqtt::Version;
use dunlin_gateway::tls::client_config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::fake::{KEY, OTHER_KEY};
use crate::world::{HOST, TOPIC, World, next};

const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;
const METADATA: i16 = 3;
const FETCH: i16 = 1;
const OFFSET_COMMIT: i16 = 8;
const OFFSET_FETCH: i16 = 9;

struct Reader {
    stream: TlsStream<TcpStream>,
}

fn text(out: &mut BytesMut, text: &str) {
    out.put_i16(text.len() as i16);
    out.put_slice(text.as_bytes());
}

fn read_text(bytes: &mut Bytes) -> String {
    let length = bytes.get_i16() as usize;
    String::from_utf8(bytes.split_to(length).to_vec()).unwrap()
}

impl Reader {
    async fn dial(world: &World) -> Reader {
        let stream = TcpStream::connect(world.gateway.kafka_addresses()[0])
            .await
            .unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let config = client_config(&world.roots).unwrap();
        let stream = TlsConnector::from(config).connect(name, stream).await.unwrap();
        Reader { stream }
    }

    /// Asks in one of the old versions, whose header is short; what follows the answer's own header.
    async fn ask(&mut self, key: i16, version: i16, body: impl FnOnce(&mut BytesMut)) -> Bytes {
        let mut frame = BytesMut::new();
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(7);
        text(&mut frame, "reader");
        body(&mut frame);
        self.stream.write_i32(frame.len() as i32).await.unwrap();
        self.stream.write_all(&frame).await.unwrap();
        let length = self.stream.read_i32().await.unwrap();
        let mut answer = vec![0; length as usize];
        self.stream.read_exact(&mut answer).await.unwrap();
        let mut answer = Bytes::from(answer);
        assert_eq!(answer.get_i32(), 7);
        answer
    }

    /// Shows a connection string; the code of the answer.
    async fn sign_in(&mut self, policy: &str, key: &str) -> i16 {
        let mut shaken = self.ask(SASL_HANDSHAKE, 1, |out| text(out, "PLAIN")).await;
        assert_eq!(shaken.get_i16(), 0);
        let token = format!(
            "\0$ConnectionString\0HostName={HOST};SharedAccessKeyName={policy};SharedAccessKey={key}"
        );
        let mut answer = self
            .ask(SASL_AUTHENTICATE, 0, |out| {
                out.put_i32(token.len() as i32);
                out.put_slice(token.as_bytes());
            })
            .await;
        answer.get_i16()
    }
}

#[tokio::test]
async fn policies_that_may_read_events_open_the_door_and_others_are_audited() {
    let world = World::new().await;
    for (policy, key) in [("registryRead", KEY), ("service", "AAAA"), ("nobody", KEY)] {
        let mut reader = Reader::dial(&world).await;
        assert_eq!(reader.sign_in(policy, key).await, 58, "{policy}");
        let record = world.audit.next("kafka.sign-in").await;
        assert_eq!(record.who, policy);
    }
    for key in [KEY, OTHER_KEY] {
        assert_eq!(Reader::dial(&world).await.sign_in("service", key).await, 0);
    }
    for (topic, code) in [("messages", 0), ("other", 58)] {
        let key = format!("{KEY};EntityPath={topic}");
        let mut reader = Reader::dial(&world).await;
        assert_eq!(reader.sign_in("service", &key).await, code, "{topic}");
    }
    // A policy that this gateway has not heard of yet counts at once.
    world.cluster.change_directory_elsewhere(|directory| {
        let policy = directory.policies["service"].clone();
        directory.policies.insert("made".into(), policy);
    });
    assert_eq!(Reader::dial(&world).await.sign_in("made", KEY).await, 0);
}

#[tokio::test]
async fn events_are_read_and_offsets_kept() {
    let world = World::new().await;
    let mut device = world.connect(Version::V3).await;
    device.publish(TOPIC, b"hello").await.unwrap();
    device.flush().await.unwrap();
    next(&mut device).await;
    let mut reader = Reader::dial(&world).await;
    assert_eq!(reader.sign_in("service", KEY).await, 0);

    let mut metadata = reader.ask(METADATA, 1, |out| out.put_i32(-1)).await;
    assert_eq!(metadata.get_i32(), 1, "brokers");
    let node = metadata.get_i32();
    assert_eq!(
        (read_text(&mut metadata).as_str(), metadata.get_i32()),
        ("127.0.0.1", 9093)
    );
    assert_eq!(metadata.get_i16(), -1, "no rack");
    assert_eq!(metadata.get_i32(), node, "the controller is one of them");
    assert_eq!((metadata.get_i32(), metadata.get_i16()), (1, 0), "topics");
    assert_eq!(read_text(&mut metadata), "messages");
    assert_eq!((metadata.get_u8(), metadata.get_i32()), (0, 4), "partitions");

    // The device's event is in one of them, with its names.
    let shard = {
        use dunlin_model::port::ShardClient as _;
        world.cluster.shard_of(&world.device).0 as i32
    };
    let fetched = reader
        .ask(FETCH, 4, |out| {
            out.put_i32(-1);
            out.put_i32(10_000);
            out.put_i32(1);
            out.put_i32(1 << 20);
            out.put_i8(0);
            out.put_i32(1);
            text(out, "messages");
            out.put_i32(1);
            out.put_i32(shard);
            out.put_i64(0);
            out.put_i32(1 << 20);
        })
        .await;
    let shown = String::from_utf8_lossy(&fetched).into_owned();
    for part in [
        "dev-1",
        "hello",
        "iothub-connection-device-id",
        "iothub-message-source",
        "Telemetry",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }

    // A commit from outside a group is kept, and is a command.
    let mut committed = reader
        .ask(OFFSET_COMMIT, 2, |out| {
            text(out, "readers");
            out.put_i32(-1);
            text(out, "");
            out.put_i64(-1);
            out.put_i32(1);
            text(out, "messages");
            out.put_i32(1);
            out.put_i32(shard);
            out.put_i64(1);
            text(out, "here");
        })
        .await;
    committed.advance(4 + 2 + "messages".len() + 4 + 4);
    assert_eq!(committed.get_i16(), 0);
    let mut kept = reader
        .ask(OFFSET_FETCH, 1, |out| {
            text(out, "readers");
            out.put_i32(1);
            text(out, "messages");
            out.put_i32(1);
            out.put_i32(shard);
        })
        .await;
    kept.advance(4 + 2 + "messages".len() + 4 + 4);
    assert_eq!(
        (kept.get_i64(), read_text(&mut kept).as_str(), kept.get_i16()),
        (1, "here", 0)
    );
    let is_group = |command: &dunlin_model::command::Command| matches!(command, dunlin_model::command::Command::Group { group, .. } if group == "readers");
    assert!(world.cluster.commands().iter().any(is_group));
}
