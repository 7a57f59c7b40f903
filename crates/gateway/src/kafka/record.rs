//! An event as a record of Kafka: the device as its key, the body as its value, everything else as headers.
//!
//! Decides the names of headers and how their values look: text in UTF-8, as it is, numbers in decimal. Names are those
//! that readers over AMQP know. Where records stand is decided in [`batch`](super::batch).

use bytes::{BufMut, BytesMut};
use dunlin_model::id::identity_parts;

use super::backend::Event;

/// A header: a name, and a value unless the name stands alone.
type Header<'a> = (&'a str, Option<&'a [u8]>);

/// Writes the record, with its length in front.
pub(crate) fn put(out: &mut BytesMut, event: &Event, offset_delta: i32) {
    let (device, module) = identity_parts(&event.device);
    let time = event.time_ms.to_string();
    let headers = || {
        let own = [
            ("iothub-connection-device-id", Some(device.as_bytes())),
            ("iothub-connection-module-id", module.map(str::as_bytes)),
            ("iothub-enqueuedtime", Some(time.as_bytes())),
        ];
        let own = own.into_iter().filter(|(_, value)| value.is_some());
        let system = event
            .system
            .iter()
            .map(|(name, value)| (*name, Some(value.as_bytes())));
        let properties = event.properties.iter();
        let properties = properties.map(|(name, value)| (name.as_str(), value.as_deref().map(str::as_bytes)));
        own.chain(system).chain(properties)
    };
    let head = |out: &mut Sink<'_>| {
        // No attributes are defined; the time is the batch's.
        out.u8(0);
        out.varint(0);
        out.varint(offset_delta.into());
        out.blob(Some(device.as_bytes()));
        out.blob(Some(&event.payload));
        out.varint(headers().count() as i64);
        headers().for_each(|header| out.header(header));
    };
    let mut size = Sink::Count(0);
    head(&mut size);
    let mut sink = Sink::Bytes(out);
    sink.varint(size.count());
    head(&mut sink);
}

/// Writes what Kafka writes where a transaction is committed, with its length in front: a record that every consumer comes
/// past and no application sees.
pub(crate) fn put_marker(out: &mut BytesMut, offset_delta: i32) {
    // Version 0 of a key of type COMMIT, and of a value that names no coordinator.
    const KEY: [u8; 4] = [0, 0, 0, 1];
    const VALUE: [u8; 6] = [0; 6];
    let body = |out: &mut Sink<'_>| {
        out.u8(0);
        out.varint(0);
        out.varint(offset_delta.into());
        out.blob(Some(&KEY));
        out.blob(Some(&VALUE));
        out.varint(0);
    };
    let mut size = Sink::Count(0);
    body(&mut size);
    let mut sink = Sink::Bytes(out);
    sink.varint(size.count());
    body(&mut sink);
}

/// Writes, or counts what would be written: lengths stand in front of what has them.
enum Sink<'a> {
    Count(usize),
    Bytes(&'a mut BytesMut),
}

impl Sink<'_> {
    fn count(&self) -> i64 {
        match self {
            Self::Count(count) => *count as i64,
            Self::Bytes(out) => out.len() as i64,
        }
    }

    fn u8(&mut self, byte: u8) {
        match self {
            Self::Count(count) => *count += 1,
            Self::Bytes(out) => out.put_u8(byte),
        }
    }

    fn slice(&mut self, bytes: &[u8]) {
        match self {
            Self::Count(count) => *count += bytes.len(),
            Self::Bytes(out) => out.put_slice(bytes),
        }
    }

    /// A signed number, small ones short ("zigzag"), seven bits a byte.
    fn varint(&mut self, value: i64) {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            self.u8(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.u8(rest as u8);
    }

    fn blob(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.varint(-1),
            Some(bytes) => {
                self.varint(bytes.len() as i64);
                self.slice(bytes);
            }
        }
    }

    fn header(&mut self, (name, value): Header<'_>) {
        self.blob(Some(name.as_bytes()));
        self.blob(value);
    }
}
