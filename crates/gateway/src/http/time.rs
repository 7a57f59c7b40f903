//! ISO 8601 text as clients write it, as milliseconds since 1970. How it is written stands in `dunlin_model::iso_time`.

use time::format_description::well_known::Iso8601;
use time::{OffsetDateTime, PrimitiveDateTime};

/// The time that ISO 8601 text names, in UTC if it names no zone. `None` for anything else, and for times before 1970.
pub(crate) fn parse_iso(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &Iso8601::PARSING)
        .or_else(|_| PrimitiveDateTime::parse(text, &Iso8601::PARSING).map(PrimitiveDateTime::assume_utc));
    u64::try_from(time.ok()?.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_is_read() {
        for (text, time_ms) in [
            ("2030-01-01T00:00:00Z", Some(1_893_456_000_000)),
            ("2030-01-01T00:00:00.250Z", Some(1_893_456_000_250)),
            ("2030-01-01T00:00:00.2500000Z", Some(1_893_456_000_250)),
            ("2030-01-01T01:00:00+01:00", Some(1_893_456_000_000)),
            ("2030-01-01T00:00:00", Some(1_893_456_000_000)),
            ("1969-12-31T23:59:59Z", None),
            ("1893456000", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(parse_iso(text), time_ms, "{text}");
        }
    }
}
