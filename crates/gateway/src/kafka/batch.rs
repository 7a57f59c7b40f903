//! Events as record batches of version 2 ("magic 2"), without compression.
//!
//! Decides which events share a batch: neighbours that the hub took in the same millisecond. All records of a batch then
//! have exactly the time that the batch says was appended (`LogAppendTime`): it is the hub's log that stamps events, so
//! times never fall, and it is these that offsets are looked up by. One time per batch costs nothing, since events that
//! came together have one time. What a record is made of is decided in [`record`](super::record).
//!
//! See "Record Batch" in Kafka's description of its message format.

use bytes::{BufMut as _, BytesMut};

use super::backend::Event;
use super::record;

/// Bytes of a batch before its first record.
const HEADER_BYTES: usize = 61;
/// Bytes of a batch before `batch length` begins to count.
const LENGTH_END: usize = 12;
/// Where the checksum stands, and where what it covers begins.
const CRC: usize = 17;
const CRC_END: usize = 21;
/// `LogAppendTime`, no compression, no transaction.
const ATTRIBUTES: i16 = 1 << 3;
/// Of a batch whose records are for consumers alone; and where attributes stand.
const CONTROL: i16 = 1 << 5;
const ATTRIBUTES_AT: usize = 21;
const MAGIC: i8 = 2;
/// Of the batch's producer, which there is none of.
const NONE: i64 = -1;

/// Writes batches of as many of `events` as fit `room` bytes, and tells how many those are. The first is written
/// however large it is, if `is_one_due`.
pub(crate) fn put(
    out: &mut BytesMut,
    log_epoch: i32,
    events: &[Event],
    room: usize,
    is_one_due: bool,
) -> usize {
    let begin = out.len();
    let mut written = 0;
    while let Some(first) = events.get(written) {
        let mut batch = Batch::new(out, log_epoch, first);
        for event in &events[written..] {
            let is_due = is_one_due && written == 0;
            if !batch.takes(event) || !batch.put(event, room, begin, is_due) {
                break;
            }
            written += 1;
        }
        if !batch.finish() || out.len() - begin >= room {
            break;
        }
    }
    written
}

/// Writes a batch that tells a reader that there is nothing for it from `from` up to `next`: one control record, as at the
/// end of a transaction. A batch without any record would say the same, but librdkafka takes that for a message that is
/// too large for it (`rdkafka_msgset_reader.c`).
pub(crate) fn put_gap(out: &mut BytesMut, log_epoch: i32, from: u64, next: u64) {
    let Some(last_delta) = next.checked_sub(from + 1) else {
        return;
    };
    let nothing = Event {
        offset: from,
        time_ms: 0,
        device: String::new(),
        system: Vec::new(),
        properties: Vec::new(),
        payload: bytes::Bytes::new(),
    };
    let mut batch = Batch::new(out, log_epoch, &nothing);
    batch.put_marker(i32::try_from(last_delta).unwrap_or(i32::MAX));
    batch.seal();
}

/// A batch that is being written at the end of a buffer.
struct Batch<'a> {
    out: &'a mut BytesMut,
    begin: usize,
    first_offset: u64,
    last_delta: i32,
    time_ms: u64,
    count: i32,
}

impl<'a> Batch<'a> {
    fn new(out: &'a mut BytesMut, log_epoch: i32, first: &Event) -> Self {
        let begin = out.len();
        out.put_i64(signed(first.offset));
        out.put_i32(0); // The length, when it is known.
        out.put_i32(log_epoch);
        out.put_i8(MAGIC);
        out.put_u32(0); // The checksum, likewise.
        out.put_i16(ATTRIBUTES);
        out.put_i32(0); // The last delta, likewise.
        out.put_i64(signed(first.time_ms));
        out.put_i64(signed(first.time_ms));
        out.put_i64(NONE);
        out.put_i16(NONE as i16);
        out.put_i32(NONE as i32);
        out.put_i32(0); // The count, likewise.
        debug_assert_eq!(out.len() - begin, HEADER_BYTES);
        Self {
            out,
            begin,
            first_offset: first.offset,
            last_delta: 0,
            time_ms: first.time_ms,
            count: 0,
        }
    }

    /// Whether an event belongs into the same batch as the first.
    fn takes(&self, event: &Event) -> bool {
        let delta = event.offset.checked_sub(self.first_offset);
        event.time_ms == self.time_ms && delta.is_some_and(|delta| i32::try_from(delta).is_ok())
    }

    /// Writes a record, unless all that was written since `begin` would then be longer than `room`.
    fn put(&mut self, event: &Event, room: usize, begin: usize, is_due: bool) -> bool {
        let end = self.out.len();
        let delta = (event.offset - self.first_offset) as i32;
        record::put(self.out, event, delta);
        if self.out.len() - begin > room && !is_due {
            self.out.truncate(end);
            return false;
        }
        (self.last_delta, self.count) = (delta, self.count + 1);
        true
    }

    /// Makes it a control batch, of one record.
    fn put_marker(&mut self, last_delta: i32) {
        let attributes = self.begin + ATTRIBUTES_AT;
        self.out[attributes..attributes + 2].copy_from_slice(&(ATTRIBUTES | CONTROL).to_be_bytes());
        record::put_marker(self.out, last_delta);
        (self.last_delta, self.count) = (last_delta, 1);
    }

    /// Fills in what is known at the end only. A batch of nothing is taken back: says whether there is one.
    fn finish(self) -> bool {
        if self.count == 0 {
            self.out.truncate(self.begin);
            return false;
        }
        self.seal();
        true
    }

    fn seal(self) {
        let batch = &mut self.out[self.begin..];
        let length = (batch.len() - LENGTH_END) as i32;
        batch[8..LENGTH_END].copy_from_slice(&length.to_be_bytes());
        batch[23..27].copy_from_slice(&self.last_delta.to_be_bytes());
        batch[57..HEADER_BYTES].copy_from_slice(&self.count.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_END..]);
        batch[CRC..CRC_END].copy_from_slice(&crc.to_be_bytes());
    }
}

/// Kafka's numbers are signed; ours never come that far.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::records::{Record, RecordBatchDecoder, TimestampType};
    use proptest::prelude::*;

    fn event(offset: u64, time_ms: u64, payload: &[u8]) -> Event {
        Event {
            offset,
            time_ms,
            device: "dev-1/mod".into(),
            system: vec![("content-type", "text/plain".into())],
            properties: vec![("a".into(), Some("1".into())), ("alone".into(), None)],
            payload: Bytes::copy_from_slice(payload),
        }
    }

    fn read(bytes: BytesMut) -> Vec<Record> {
        RecordBatchDecoder::decode_all(&mut bytes.freeze())
            .unwrap()
            .into_iter()
            .flat_map(|set| set.records)
            .collect()
    }

    #[test]
    fn an_event_has_its_place_its_device_its_headers_and_its_body() {
        let mut out = BytesMut::new();
        assert_eq!(put(&mut out, 3, &[event(7, 1000, b"body")], 10_000, false), 1);
        let records = read(out);
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!(
            (record.offset, record.timestamp, record.partition_leader_epoch),
            (7, 1000, 3)
        );
        assert_eq!(record.timestamp_type, TimestampType::LogAppend);
        assert_eq!(record.key.as_deref(), Some(&b"dev-1"[..]));
        assert_eq!(record.value.as_deref(), Some(&b"body"[..]));
        let headers: Vec<(&str, Option<&[u8]>)> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_deref()))
            .collect();
        let wanted: Vec<(&str, Option<&[u8]>)> = vec![
            ("iothub-connection-device-id", Some(b"dev-1")),
            ("iothub-connection-module-id", Some(b"mod")),
            ("iothub-enqueuedtime", Some(b"1000")),
            ("content-type", Some(b"text/plain")),
            ("a", Some(b"1")),
            ("alone", None),
        ];
        assert_eq!(headers, wanted);
    }

    #[test]
    fn the_first_comes_however_large_it_is_if_it_is_due() {
        let events = [event(0, 1, &[0; 5000]), event(1, 1, b"")];
        for (room, is_one_due, count) in [
            (100, true, 1),
            (100, false, 0),
            (0, true, 1),
            (0, false, 0),
            (10_000, false, 2),
        ] {
            let mut out = BytesMut::new();
            assert_eq!(
                put(&mut out, 0, &events, room, is_one_due),
                count,
                "{room} {is_one_due}"
            );
            assert_eq!(read(out).len(), count);
        }
    }

    #[test]
    fn a_gap_is_a_control_record_at_its_end() {
        let mut out = BytesMut::new();
        put_gap(&mut out, 3, 7, 1_007);
        let records = read(out.clone());
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].offset, records[0].control), (1_006, true));
        assert_eq!(records[0].key.as_deref(), Some(&[0, 0, 0, 1][..]), "a commit");
        let before = out.len();
        put_gap(&mut out, 3, 7, 7);
        assert_eq!(out.len(), before, "nothing is no gap");
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        // "123456789" and 0xE3069283 are the check value of CRC-32C.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_never_more_than_there_is_room_for(
            first in 0..u64::from(u32::MAX),
            shape in prop::collection::vec((0..3_u64, 0..300_usize), 1..40),
            room in 0..8000_usize,
            before in 0..10_usize,
        ) {
            let mut time_ms = 1_700_000_000_000;
            let mut events = Vec::new();
            for (place, (later, length)) in shape.iter().enumerate() {
                time_ms += later / 2;
                events.push(event(first + place as u64, time_ms, &vec![place as u8; *length]));
            }
            let mut out = BytesMut::from(&vec![0; before][..]);
            let count = put(&mut out, 9, &events, room, false);
            prop_assert!(out.len() - before <= room);
            let batches = out.split_off(before);
            let records = read(batches);
            prop_assert_eq!(records.len(), count);
            for (record, event) in records.iter().zip(&events) {
                prop_assert_eq!(record.offset, event.offset as i64);
                prop_assert_eq!(record.timestamp, event.time_ms as i64);
                prop_assert_eq!(record.value.as_deref(), Some(&event.payload[..]));
            }
        }
    }
}
