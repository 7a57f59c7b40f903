//! Milliseconds since 1970 as ISO 8601 text in UTC. How clients' texts are read is the doors' part.

/// `2026-11-23T00:37:38.123Z`.
pub fn iso_utc(time_ms: u64) -> String {
    let (days, in_day_ms) = (time_ms / 86_400_000, time_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (
        in_day_ms / 3_600_000,
        in_day_ms / 60_000 % 60,
        in_day_ms / 1000 % 60,
    );
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        in_day_ms % 1000
    )
}

/// What .NET clients expect where there is no time yet.
pub const UNSET: &str = "0001-01-01T00:00:00Z";

/// [`iso_utc`], with [`UNSET`] for 0.
pub fn iso_utc_or_unset(time_ms: u64) -> String {
    if time_ms == 0 {
        UNSET.to_owned()
    } else {
        iso_utc(time_ms)
    }
}

/// Year, month and day of a day since 1970, counting years from March so that leap days come last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times_are_written() {
        assert_eq!(iso_utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(iso_utc(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(iso_utc(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(iso_utc(1_893_456_000_000), "2030-01-01T00:00:00.000Z");
        assert_eq!(iso_utc_or_unset(0), UNSET);
    }
}
