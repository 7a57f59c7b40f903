//! A telemetry record: one device-to-cloud message as it travels and rests.
//!
//! The gateway writes it once; journal, peers, segments and readers pass the same bytes on. The
//! property bag is checked at the door but never parsed on this road. Layout, little endian:
//!
//! ```text
//! length u32 (of what follows) | version u8 | source u8 | auth u8 | device length u8
//! fence u64 | bag length u16 | device | bag | payload
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::DeviceId;
use crate::limits::{PROPERTY_BAG_BYTES_MAX, RECORD_BYTES_MAX};
use crate::wire::{Reader, WireError};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 4 + 1 + 1 + 1 + 1 + 8 + 2;

/// How a message came in, which also says what its fence is compared with in `apply`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Source {
    /// A PUBLISH; the fence is the session epoch.
    Mqtt = 0,
    /// A PUBLISH with RETAIN set; the fence is the session epoch.
    MqttRetain = 1,
    /// A will, published for a session that ended; the fence is that session's epoch.
    Will = 2,
    /// An HTTP request; the fence is the credential generation.
    Http = 3,
    /// Made by the hub where a twin changed; no fence. No frame carries what the hub makes itself.
    TwinChange = 4,
    /// Made by the hub where a device or module was created or deleted; no fence.
    Lifecycle = 5,
    /// Made by the hub where a session began or ended; no fence.
    Connection = 6,
    /// Nothing: the record of a device that was erased stood here. Readers are not shown it.
    Erased = 7,
}

/// How the sender proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum AuthMethod {
    /// A token signed with a key of the device.
    DeviceKey = 0,
    /// A token signed with a key of a shared access policy.
    HubPolicy = 1,
    /// A client certificate.
    X509 = 2,
    /// Nobody: the hub made the record.
    Hub = 3,
}

/// A record, taken apart. Bodies share the bytes they were read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How it came in.
    pub source: Source,
    /// How its sender proved itself.
    pub auth: AuthMethod,
    /// Session epoch or credential generation, by `source`.
    pub fence: u64,
    /// The device id's text; checked when the record was made.
    pub device: Bytes,
    /// Property bag as sent: percent-encoded `key=value&...`.
    pub bag: Bytes,
    /// Payload as sent.
    pub payload: Bytes,
}

impl Record {
    /// Bytes that it is when written.
    pub fn encoded_bytes(&self) -> usize {
        HEADER_BYTES + self.device.len() + self.bag.len() + self.payload.len()
    }

    /// The device id's text.
    pub fn device_str(&self) -> &str {
        std::str::from_utf8(&self.device).expect("a decoded record has an ASCII device id")
    }

    /// Reads the record at the front of `reader`.
    pub fn decode(reader: &mut Reader) -> Result<Record, WireError> {
        let length = reader.u32("record length")? as usize;
        if length > RECORD_BYTES_MAX {
            return Err(WireError::Invalid("record length"));
        }
        let mut body = Reader::new(reader.take(length, "record")?);
        if body.u8("record version")? != VERSION {
            return Err(WireError::Invalid("record version"));
        }
        let source = match body.u8("record source")? {
            0 => Source::Mqtt,
            1 => Source::MqttRetain,
            2 => Source::Will,
            3 => Source::Http,
            4 => Source::TwinChange,
            5 => Source::Lifecycle,
            6 => Source::Connection,
            7 => Source::Erased,
            _ => return Err(WireError::Invalid("record source")),
        };
        let auth = match body.u8("record auth")? {
            0 => AuthMethod::DeviceKey,
            1 => AuthMethod::HubPolicy,
            2 => AuthMethod::X509,
            3 => AuthMethod::Hub,
            _ => return Err(WireError::Invalid("record auth")),
        };
        let device_length = usize::from(body.u8("record device length")?);
        let fence = body.u64("record fence")?;
        let bag_length = usize::from(body.u16("record bag length")?);
        let device = body.take(device_length, "record device")?;
        if device.is_empty() || !device.is_ascii() {
            return Err(WireError::Invalid("record device"));
        }
        let bag = body.take(bag_length, "record bag")?;
        Ok(Record {
            source,
            auth,
            fence,
            device,
            bag,
            payload: body.rest(),
        })
    }
}

/// Writes a record to the end of `out` and returns its length in bytes.
///
/// `bag` and `payload` have passed the door's limits; larger ones are a mistake of ours.
pub fn encode(
    out: &mut BytesMut,
    source: Source,
    auth: AuthMethod,
    fence: u64,
    device: &DeviceId,
    (bag, payload): (&[u8], &[u8]),
) -> usize {
    assert!(
        bag.len() <= PROPERTY_BAG_BYTES_MAX,
        "the door checks the property bag"
    );
    let device = device.as_str().as_bytes();
    let total = HEADER_BYTES + device.len() + bag.len() + payload.len();
    assert!(total <= RECORD_BYTES_MAX, "the door checks the message size");
    out.reserve(total);
    out.put_u32_le((total - 4) as u32);
    out.put_u8(VERSION);
    out.put_u8(source as u8);
    out.put_u8(auth as u8);
    out.put_u8(device.len() as u8);
    out.put_u64_le(fence);
    out.put_u16_le(bag.len() as u16);
    out.put_slice(device);
    out.put_slice(bag);
    out.put_slice(payload);
    total
}

/// What stands in place of a record that was erased; always the same, so that replicas stay alike.
pub fn erased() -> &'static [u8] {
    const BYTES: [u8; HEADER_BYTES + 1] = {
        let mut bytes = [0; HEADER_BYTES + 1];
        bytes[0] = (HEADER_BYTES + 1 - 4) as u8;
        bytes[4] = VERSION;
        bytes[5] = Source::Erased as u8;
        bytes[6] = AuthMethod::Hub as u8;
        bytes[7] = 1;
        bytes[HEADER_BYTES] = b'-';
        bytes
    };
    &BYTES
}

/// The records in `bytes`, one after the other.
pub fn records(bytes: Bytes) -> impl Iterator<Item = Result<Record, WireError>> {
    let mut reader = Reader::new(bytes);
    let mut failed = false;
    std::iter::from_fn(move || {
        if failed || reader.is_empty() {
            return None;
        }
        let record = Record::decode(&mut reader);
        failed = record.is_err();
        Some(record)
    })
}

/// The part of a record that `apply` looks at, without touching reference counts.
#[derive(Debug, Clone, Copy)]
pub struct Peek<'a> {
    /// Bytes of the whole record, length field included.
    pub total_bytes: usize,
    /// How it came in.
    pub by_generation: bool,
    /// Session epoch or credential generation.
    pub fence: u64,
    /// Device id.
    pub device: &'a [u8],
}

impl Peek<'_> {
    /// Bytes of the message alone: property bag and payload.
    pub fn message_bytes(&self) -> usize {
        self.total_bytes - HEADER_BYTES - self.device.len()
    }
}

/// Looks at the record at the front of `bytes`, which somebody sent: what only the hub makes is refused.
pub fn peek(bytes: &[u8]) -> Result<Peek<'_>, WireError> {
    if bytes.len() < HEADER_BYTES {
        return Err(WireError::Short("record header"));
    }
    let length = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
    let total_bytes = length + 4;
    let device_end = HEADER_BYTES + usize::from(bytes[7]);
    let bag_bytes = usize::from(u16::from_le_bytes([bytes[16], bytes[17]]));
    let known = bytes[4] == VERSION && bytes[5] <= Source::Http as u8 && bytes[6] <= AuthMethod::X509 as u8;
    if !known || length > RECORD_BYTES_MAX || bytes[7] == 0 || device_end + bag_bytes > total_bytes {
        return Err(WireError::Invalid("record header"));
    }
    if bytes.len() < total_bytes {
        return Err(WireError::Short("record"));
    }
    if !bytes[HEADER_BYTES..device_end].is_ascii() {
        return Err(WireError::Invalid("record device"));
    }
    let fence = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    let by_generation = bytes[5] == Source::Http as u8;
    Ok(Peek {
        total_bytes,
        by_generation,
        fence,
        device: &bytes[HEADER_BYTES..device_end],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_record_has_golden_bytes() {
        let mut out = BytesMut::new();
        let device = DeviceId::parse("dev-1").unwrap();
        encode(
            &mut out,
            Source::Mqtt,
            AuthMethod::DeviceKey,
            7,
            &device,
            (b"a=1", b"hi"),
        );
        let golden = [
            24, 0, 0, 0, 1, 0, 0, 5, 7, 0, 0, 0, 0, 0, 0, 0, 3, 0, b'd', b'e', b'v', b'-', b'1', b'a', b'=',
            b'1', b'h', b'i',
        ];
        assert_eq!(out.as_ref(), golden);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(fence: u64, bag in "[a-z=&]{0,60}", payload in prop::collection::vec(any::<u8>(), 0..600)) {
            let device = DeviceId::parse("a.device_1").unwrap();
            let mut out = BytesMut::new();
            for _ in 0..3 {
                encode(&mut out, Source::Http, AuthMethod::X509, fence, &device, (bag.as_bytes(), &payload));
            }
            let peeked = peek(&out).unwrap();
            prop_assert_eq!((peeked.fence, peeked.device, peeked.by_generation), (fence, &b"a.device_1"[..], true));
            prop_assert_eq!(peeked.total_bytes * 3, out.len());
            for record in records(out.freeze()) {
                let record = record.unwrap();
                prop_assert_eq!((&record.bag[..], &record.payload[..]), (bag.as_bytes(), &payload[..]));
            }
        }

        #[test]
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = peek(&noise);
            if let Ok(peeked) = peek(&noise) {
                let one = Bytes::copy_from_slice(&noise[..peeked.total_bytes]);
                prop_assert!(Record::decode(&mut Reader::new(one)).is_ok(), "what passes a peek can be read");
            }
            for record in records(noise.into()) { let _ = record; }
        }
    }
}
