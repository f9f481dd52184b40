//! Time, in the two forms the server needs: the date (stored, logged) and a clock that never goes back
//! (measured).

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970-01-01 00:00:00 UTC. It may jump when the machine's clock is set; 0 before 1970.
pub fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// Microseconds since the first call in this process. It never goes back, so differences are durations.
pub fn monotonic_us() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since_start = START.get_or_init(Instant::now).elapsed();
    u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_past_the_year_2020_and_the_monotonic_clock_never_goes_back() {
        assert!(now_ms() > 1_577_836_800_000);
        let readings: Vec<u64> = (0..1000).map(|_| monotonic_us()).collect();
        assert!(readings.is_sorted());
    }
}
