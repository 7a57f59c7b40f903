//! Events out of record batches: version 2 ("magic 2"), without compression, as the hub writes them.
//!
//! Decides what counts as a batch: its checksum must be right. One that is cut off at the end of an answer is left out, as
//! Kafka's own consumers do. Headers are walked over and not kept; the other side is `kafka/batch.rs`.

use bytes::Bytes;

use super::wire::{Answer, ELEMENTS_MAX, Malformed};

/// Bytes of a batch before its length begins to count.
const LENGTH_END: usize = 12;
/// The version of the format.
const MAGIC: i8 = 2;
/// The bits of a batch's attributes that name its compression, and the one that says whose time it has.
const COMPRESSION: i16 = 0b111;
const LOG_APPEND_TIME: i16 = 1 << 3;
/// Of batches that tell consumers something and applications nothing: the hub's stand where there is nothing for the reader.
const CONTROL: i16 = 1 << 5;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Where it stands in its partition.
    pub offset: u64,
    /// When the hub took it in, milliseconds since 1970.
    pub time_ms: u64,
    /// The device that it is from.
    pub device: Bytes,
    /// What it says.
    pub payload: Bytes,
}

/// The events of `records` from offset `from` on, and the offset to go on at: a batch may begin before the one, and what
/// routes lead elsewhere lies before the other.
pub(super) fn read(records: Bytes, from: u64) -> Result<(Vec<Event>, u64), Malformed> {
    let (mut events, mut next) = (Vec::new(), from);
    let mut rest = Answer::new(records);
    while rest.rest().len() >= LENGTH_END {
        let first_offset = unsigned(rest.i64()?)?;
        let length = rest.number()? as usize;
        if length > rest.rest().len() {
            break;
        }
        let batch = Answer::new(rest.take(length)?);
        let last_offset = read_batch(batch, first_offset, |event| {
            if event.offset >= from {
                events.push(event);
            }
        })?;
        next = next.max(last_offset.saturating_add(1));
    }
    Ok((events, next))
}

/// Hands over the events of a batch, and returns its last offset. One for consumers alone has none.
fn read_batch(mut batch: Answer, first_offset: u64, mut take: impl FnMut(Event)) -> Result<u64, Malformed> {
    let _log_epoch = batch.i32()?;
    let magic = batch.i8()?;
    let crc = batch.i32()? as u32;
    if magic != MAGIC {
        return Err(Malformed::Batch);
    }
    if crc32c::crc32c(batch.rest()) != crc {
        return Err(Malformed::Checksum);
    }
    let attributes = batch.i16()?;
    if attributes & COMPRESSION != 0 {
        return Err(Malformed::Batch);
    }
    let last_delta = unsigned(batch.i32()?.into())?;
    let last_offset = first_offset.checked_add(last_delta).ok_or(Malformed::Number)?;
    if attributes & CONTROL != 0 {
        return Ok(last_offset);
    }
    let (first_ms, last_ms) = (batch.i64()?, batch.i64()?);
    // Of its producer: an id, an epoch and a sequence number, which there are none of.
    batch.take(8 + 2 + 4)?;
    let count = batch.number()? as usize;
    if count > ELEMENTS_MAX {
        return Err(Malformed::Elements);
    }
    for _ in 0..count {
        let length = batch.varint()?;
        let mut record = Answer::new(batch.blob_of(length)?.ok_or(Malformed::Short)?);
        let _attributes = record.i8()?;
        let later_ms = record.varint()?;
        let delta = unsigned(record.varint()?)?;
        let (key, value) = (blob(&mut record)?, blob(&mut record)?);
        let time_ms = match attributes & LOG_APPEND_TIME {
            0 => first_ms.checked_add(later_ms).ok_or(Malformed::Number)?,
            _ => last_ms,
        };
        take(Event {
            offset: first_offset.checked_add(delta).ok_or(Malformed::Number)?,
            time_ms: unsigned(time_ms)?,
            device: key,
            payload: value,
        });
    }
    Ok(last_offset)
}

fn blob(record: &mut Answer) -> Result<Bytes, Malformed> {
    let length = record.varint()?;
    Ok(record.blob_of(length)?.unwrap_or_default())
}

fn unsigned(number: i64) -> Result<u64, Malformed> {
    u64::try_from(number).map_err(|_| Malformed::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use kafka_protocol::records::{
        Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
    };

    fn record(offset: i64, payload: &'static [u8]) -> Record {
        Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: 0,
            producer_id: -1,
            producer_epoch: -1,
            timestamp_type: TimestampType::Creation,
            offset,
            sequence: offset as i32,
            timestamp: 1_000 + offset,
            key: Some(Bytes::from_static(b"dev-1")),
            value: Some(Bytes::from_static(payload)),
            headers: [("name".into(), Some(Bytes::from_static(b"value")))]
                .into_iter()
                .collect(),
        }
    }

    fn batch(records: &[Record]) -> Vec<u8> {
        let options = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        let mut out = BytesMut::new();
        RecordBatchEncoder::encode(&mut out, records, &options).unwrap();
        out.to_vec()
    }

    fn offsets(bytes: &[u8], from: u64) -> Result<Vec<u64>, Malformed> {
        let (events, _) = read(Bytes::copy_from_slice(bytes), from)?;
        Ok(events.iter().map(|event| event.offset).collect())
    }

    #[test]
    fn batches_of_another_codec_are_read() {
        let mut bytes = batch(&[record(7, b"a"), record(8, b"")]);
        bytes.extend(batch(&[record(9, b"c")]));
        let (events, next) = read(Bytes::from(bytes.clone()), 0).unwrap();
        assert_eq!(next, 10);
        let first = Event {
            offset: 7,
            time_ms: 1_007,
            device: Bytes::from_static(b"dev-1"),
            payload: Bytes::from_static(b"a"),
        };
        assert_eq!((&events[0], events.len()), (&first, 3));
        assert_eq!(offsets(&bytes, 8), Ok(vec![8, 9]), "what was not asked for");
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(offsets(cut, 0), Ok(vec![7, 8]), "the last batch is cut off");
    }

    #[test]
    fn what_is_for_consumers_alone_is_come_past() {
        let mut bytes = batch(&[record(7, b"a")]);
        let marker = Record {
            control: true,
            ..record(20, b"")
        };
        bytes.extend(batch(&[marker]));
        let (events, next) = read(Bytes::from(bytes), 0).unwrap();
        assert_eq!((events.len(), next), (1, 21));
        assert_eq!(read(Bytes::new(), 5), Ok((Vec::new(), 5)));
    }

    #[test]
    fn no_byte_of_a_batch_can_be_another() {
        let bytes = batch(&[record(7, b"body")]);
        // Behind offset, length and log epoch, which the checksum leaves out.
        for place in LENGTH_END + 4..bytes.len() {
            let mut spoiled = bytes.clone();
            spoiled[place] ^= 1;
            assert!(offsets(&spoiled, 0).is_err(), "{place}");
        }
        // Nor does anything end the process.
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut spoiled = bytes.clone();
                spoiled[place] ^= 1 << bit;
                let _ = offsets(&spoiled, 0);
            }
        }
    }
}
