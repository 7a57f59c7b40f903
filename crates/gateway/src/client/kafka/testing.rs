//! For tests of this side of Kafka: what the hub's own codec makes of it.

use bytes::BytesMut;
use kafka_protocol::protocol::{Decodable, Encodable};

use super::wire::Answer;

/// A request, as another codec reads it.
pub(super) fn asked<R: Decodable>(version: i16, put: impl FnOnce(&mut BytesMut)) -> R {
    let mut out = BytesMut::new();
    put(&mut out);
    let mut bytes = out.freeze();
    let request = R::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "nothing is left over");
    request
}

/// An answer, as another codec writes it.
pub(super) fn answered(version: i16, response: &impl Encodable) -> Answer {
    let mut out = BytesMut::new();
    response.encode(&mut out, version).unwrap();
    Answer::new(out.freeze())
}
