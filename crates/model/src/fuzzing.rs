//! The decoders of this crate as fuzz targets: bytes in, a panic when a decoder breaks its word.
//!
//! Built for `fuzz/` and for tests only. Each target comes with the seeds that it begins with, made by the
//! encoders themselves. What a shard keeps as JSON, and its keys, are in `values`.

mod values;

pub use values::{shard_values, shard_values_seeds};

use bytes::{Bytes, BytesMut};

use crate::command::{Outcome, Refusal};
use crate::id::{DeviceId, NodeId};
use crate::identity::DeviceRecord;
use crate::port::{FrameApplied, FrameResult};
use crate::query_language::{Condition, Groups, Statement};
use crate::routing::EventSource;
use crate::shard::meta::Meta;
use crate::shard::{stored, verdict};
use crate::telemetry::{self, AuthMethod, Source};
use crate::trace::TraceContext;
use crate::wire::Reader;

/// Telemetry records, one after the other: the two readers agree, and what is read is written back the same.
pub fn telemetry_record(data: &[u8]) {
    let mut rest = data;
    for record in telemetry::records(Bytes::copy_from_slice(data)) {
        let peeked = telemetry::peek(rest);
        let (Ok(record), Ok(peek)) = (&record, &peeked) else {
            // What the hub makes is read, and taken from nobody.
            let is_made = |record: &telemetry::Record| {
                record.auth == AuthMethod::Hub
                    || EventSource::of(record.source) != Some(EventSource::DeviceMessages)
            };
            let is_takeable = record.is_ok_and(|record| !is_made(&record));
            assert_eq!(
                is_takeable,
                peeked.is_ok(),
                "both readers refuse the same records"
            );
            return;
        };
        assert_eq!((&record.device[..], record.fence), (peek.device, peek.fence));
        let by_generation = record.source == Source::Http;
        assert_eq!(by_generation, peek.by_generation);
        if let Ok(device) = DeviceId::parse_identity(record.device_str())
            && record.bag.len() <= crate::limits::PROPERTY_BAG_BYTES_MAX
        {
            let mut out = BytesMut::new();
            let parts = (&record.bag[..], &record.payload[..]);
            telemetry::encode(&mut out, record.source, record.auth, record.fence, &device, parts);
            assert_eq!(&out[..], &rest[..peek.total_bytes]);
        }
        rest = &rest[peek.total_bytes..];
    }
    assert!(rest.is_empty(), "what is left over was refused");
}

/// Seeds of [`telemetry_record`].
pub fn telemetry_record_seeds() -> Vec<Vec<u8>> {
    let device = DeviceId::parse("dev-1").expect("a device id");
    let mut out = BytesMut::new();
    for (source, bag, payload) in [
        (Source::Mqtt, &b"a=b&%24.ct=x"[..], &b"21.5"[..]),
        (Source::Http, b"", b""),
        (Source::Will, b"iothub-MessageType=Will", b"gone"),
    ] {
        telemetry::encode(
            &mut out,
            source,
            AuthMethod::DeviceKey,
            7,
            &device,
            (bag, payload),
        );
    }
    vec![out[..40].to_vec(), out.to_vec()]
}

/// What a shard keeps and sends by hand: outcomes, its meta, notes on rejected records, trace contexts, and
/// device records. The first byte says which.
pub fn shard_state(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(rest);
    match kind % 5 {
        0 => {
            if let Ok((sequence, result)) = stored::decode(&mut Reader::new(bytes)) {
                let again = stored::decode(&mut Reader::new(stored::to_bytes(sequence, &result)));
                assert_eq!(again, Ok((sequence, result)));
            }
        }
        1 => {
            if let Ok(meta) = Meta::decode(bytes) {
                assert_eq!(Meta::decode(meta.encode()).ok(), Some(meta));
            }
        }
        2 => {
            if let Ok((time_ms, verdicts)) = verdict::decode(bytes.clone()) {
                assert_eq!(verdict::encode(time_ms, &verdicts).len(), bytes.len());
            }
        }
        3 => {
            if let Ok(context) = TraceContext::read(&mut Reader::new(bytes.clone())) {
                let mut out = BytesMut::new();
                context.put(&mut out);
                assert_eq!(&out[..], &bytes[..TraceContext::WIRE_BYTES]);
            }
        }
        _ => {
            let _ = serde_json::from_slice::<DeviceRecord>(&bytes);
            let text = String::from_utf8_lossy(&bytes);
            if let Some(node) = NodeId::parse(&text) {
                assert_eq!(NodeId::parse(&node.to_string()), Some(node));
            }
        }
    }
}

/// Seeds of [`shard_state`].
pub fn shard_state_seeds() -> Vec<Vec<u8>> {
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    let applied = FrameResult::Applied(FrameApplied {
        term: 3,
        index: 41,
        first_offset: 900,
        record_count: 5,
        fenced: vec![0, 4],
        outcomes: vec![Outcome::Refused(Refusal::Fenced), Outcome::Done],
    });
    let context = TraceContext {
        trace_id: [0xab; 16],
        span_id: [0xcd; 8],
        flags: 1,
    };
    let mut trace = BytesMut::new();
    context.put(&mut trace);
    let verdicts = [
        verdict::Verdict::Skipped,
        verdict::Verdict::Stored { fenced: vec![1, 2] },
        verdict::Verdict::Made(Bytes::from_static(b"record")),
    ];
    vec![
        tagged(0, &stored::to_bytes(77, &applied)),
        tagged(0, &stored::to_bytes(1, &FrameResult::Gap { expected: 9 })),
        tagged(1, &Meta::new().encode()),
        tagged(2, &verdict::encode(5, &verdicts)),
        tagged(3, &trace),
        tagged(4, NodeId(0x0123_4567_89ab_cdef).to_string().as_bytes()),
    ]
}

/// Text as a statement and as a condition: what is read says the same of a row whenever it is asked, and of rows that
/// meet in parts what it says of the whole.
pub fn query_language(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let row = serde_json::json!({
        "deviceId": "dev-1", "status": "enabled", "version": 3, "lastActivityTime": "2026-05-07T00:50:38.05Z",
        "tags": { "a": 1, "b": { "c d": -2.5, "e": [true, null, "x"] } },
        "properties": { "desired": { "n": u64::MAX }, "reported": { "n": 1e300, "text": "Hällo" } },
    });
    if let Ok(statement) = Statement::parse(&text) {
        assert_eq!(Statement::parse(&text).as_ref(), Ok(&statement));
        let gathered = |count: usize| {
            let mut groups = Groups::new();
            for _ in 0..count {
                groups.add(&statement, &row).expect("one row has few groups");
            }
            groups
        };
        let mut parts = gathered(1);
        parts.merge(gathered(2)).expect("one row has few groups");
        assert_eq!(parts, gathered(3));
        assert_eq!(parts.rows(&statement), gathered(3).rows(&statement));
        assert_eq!(statement.admits(&row), statement.admits(&row));
        assert_eq!(statement.project(&row), statement.project(&row));
    }
    if let Ok(condition) = Condition::parse(&text) {
        assert_eq!(Condition::parse(&text).as_ref(), Ok(&condition));
        assert_eq!(condition.admits(&row), condition.admits(&row));
    }
}

/// Seeds of [`query_language`].
pub fn query_language_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "SELECT * FROM devices",
        "SELECT TOP 5 deviceId, tags.b.e[2] AS x FROM devices WHERE tags.a >= 1 AND NOT tags.b.[[c d]] IN [1, 'it''s'];",
        "SELECT status, COUNT() AS n, AVG(tags.a), MAX(lastActivityTime) FROM devices.modules GROUP BY status",
        "SELECT SUM(properties.reported.n), MIN(properties.desired.n) FROM devices WHERE is_defined(tags.b)",
        "SELECT * FROM devices.jobs WHERE devices.jobs.status != null OR (version + 2 * -3) % 2 = 1.5e1",
        "FROM devices.modules WHERE CONCAT(LOWER(status), SUBSTRING('\\u00e4b', 0, 1)) < \"x\"",
        "POWER(2, tags.a) / 4 = 0.5 AND STARTS_WITH(properties.reported.text, 'H') OR AS_NUMBER('0x1') NIN (0x1)",
        "lastActivityTime > '2026-01-01T00:00:00Z' AND INDEX_OF(deviceId, '-') = 3",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn telemetry_records_keep_their_word_under_mutation() {
        mutate::exercise(
            "telemetry_record",
            telemetry_record,
            telemetry_record_seeds(),
            20_000,
        );
    }

    #[test]
    fn shard_state_keeps_its_word_under_mutation() {
        mutate::exercise("shard_state", shard_state, shard_state_seeds(), 20_000);
    }

    #[test]
    fn values_keep_their_word_under_mutation() {
        mutate::exercise("shard_values", shard_values, shard_values_seeds(), 20_000);
    }

    #[test]
    fn query_language_keeps_its_word_under_mutation() {
        for seed in query_language_seeds() {
            let text = String::from_utf8(seed).expect("seeds are text");
            let is_read = Statement::parse(&text).is_ok() || Condition::parse(&text).is_ok();
            assert!(is_read, "{text}");
        }
        mutate::exercise("query_language", query_language, query_language_seeds(), 20_000);
    }
}
