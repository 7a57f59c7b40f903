//! Stories of whole connections, without sockets: bytes in, bytes out, before a hub in memory.

mod answers;
mod consuming;
mod entering;
mod membership;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::{Decodable as _, HeaderVersion as _, Request, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::api::{self, Api};
use super::backend::Broker;
use super::{Door, connection, testing};
use crate::kafka::fake::{Fake, Gateway, TOPIC};

/// Bytes that the pipe between both sides holds.
const PIPE: usize = 64 * 1024;
/// Nothing in a test takes as long.
const LONG: Duration = Duration::from_secs(20);

/// A client's side of a connection.
struct Talk {
    stream: DuplexStream,
    correlation: i32,
    draining: CancellationToken,
}

fn broker(node_id: i32) -> Broker {
    Broker {
        node_id,
        host: format!("node-{node_id}"),
        port: 9093,
    }
}

impl Talk {
    /// To gateway 1 of `fake`, with nobody signed in.
    fn new(fake: &Arc<Fake>) -> Self {
        Self::to(fake, 1)
    }

    fn to(fake: &Arc<Fake>, node_id: i32) -> Self {
        let (stream, theirs) = duplex(PIPE);
        let draining = CancellationToken::new();
        let gateway = Arc::new(Gateway(node_id, fake.clone()));
        let door = Door::new(gateway, TOPIC.into(), "hub".into(), draining.clone());
        let peer = "192.0.2.1:5000".parse().unwrap();
        tokio::spawn(connection::serve(Arc::new(door), theirs, peer));
        Self {
            stream,
            correlation: 0,
            draining,
        }
    }

    /// The same, signed in.
    async fn known(fake: &Arc<Fake>) -> Self {
        let mut talk = Self::new(fake);
        assert_eq!(talk.sign_in(&Fake::connection_string()).await, Some(0));
        talk
    }

    /// Signs in with a password; tells the code, or none if there was no answer.
    async fn sign_in(&mut self, password: &str) -> Option<i16> {
        let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
        assert_eq!(self.ask(1, handshake).await.error_code, 0);
        let token = format!("\0$ConnectionString\0{password}");
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token.into_bytes().into());
        self.send(1, &request).await;
        Some(self.receive::<SaslAuthenticateRequest>(1).await?.error_code)
    }

    /// Sends a frame, its length in front.
    async fn put(&mut self, frame: &[u8]) {
        let mut bytes = BytesMut::new();
        bytes.put_u32(frame.len() as u32);
        bytes.put_slice(frame);
        // The other side may have gone, which shows when it is read from.
        let _ = self.stream.write_all(&bytes).await;
    }

    async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation += 1;
        let api = api::find(R::KEY).unwrap().api;
        self.put(&testing::frame(api, version, self.correlation, request))
            .await;
    }

    /// The next frame without its length; none if the connection is over.
    async fn take(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_u32().await.ok()?;
            let mut frame = vec![0; length as usize];
            self.stream.read_exact(&mut frame).await.ok()?;
            Some(Bytes::from(frame))
        };
        timeout(LONG, read).await.expect("an answer, or an end")
    }

    async fn receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let mut frame = self.take().await?;
        assert!(frame.get_i32() <= self.correlation);
        if R::Response::header_version(version) > 0 {
            assert_eq!(frame.get_u8(), 0);
        }
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "nothing follows an answer");
        Some(response)
    }

    async fn ask<R: Request>(&mut self, version: i16, request: R) -> R::Response {
        self.send(version, &request).await;
        self.receive::<R>(version).await.expect("an answer")
    }

    /// Waits for the end of the connection; whatever still comes is passed over.
    async fn end(&mut self) {
        while self.take().await.is_some() {}
    }
}

/// A hub with `partition_count` partitions of `count` events each, and gateways 1 and 2.
fn hub(partition_count: u32, count: u64) -> Arc<Fake> {
    let fake = Fake::new(partition_count);
    fake.set_brokers(vec![broker(1), broker(2)]);
    fake.fill(count, 1_000_000);
    fake
}
