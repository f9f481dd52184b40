//! Time as a date: stored, logged, and compared with.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 00:00:00 UTC. It may jump when the machine's clock is set; 0 before 1970.
pub fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds since 1970-01-01 00:00:00 UTC, as [`now_ms`].
pub fn now_us() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_past_the_year_2020_in_both_units() {
        assert!(now_ms() > 1_577_836_800_000);
        assert!(now_us() / 1000 >= now_ms() - 1000);
    }
}
