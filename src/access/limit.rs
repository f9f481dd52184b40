//! How many requests a second a user may send.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// What may be saved up, as time: the requests of one second may come at once.
const BURST_NS: u64 = 1_000_000_000;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A token bucket. It keeps one number: when, at the allowed rate, all requests so far would have been due.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// Takes a token at a rate of so many a second.
    ///
    /// # Errors
    /// When there is none: in how many milliseconds there is one.
    pub fn take(&self, rate: u64) -> Result<(), u64> {
        // Bursts are counted from a time that is far enough from zero.
        let now_ns = u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(BURST_NS);
        self.take_at(rate, now_ns)
    }

    fn take_at(&self, rate: u64, now_ns: u64) -> Result<(), u64> {
        let step_ns = (BURST_NS / rate.max(1)).max(1);
        let next = |due_ns: u64| {
            let due_ns = due_ns.max(now_ns.saturating_sub(BURST_NS)) + step_ns;
            (due_ns <= now_ns).then_some(due_ns)
        };
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.map(|_| ()).map_err(|due_ns| (due_ns + step_ns - now_ns).div_ceil(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_pass_as_the_rate_says() {
        let (bucket, start_ns) = (Bucket::default(), 5 * BURST_NS);
        let passed = |from_ns: u64, tries: u64| {
            (0..tries).filter(|at| bucket.take_at(100, from_ns + at).is_ok()).count()
        };
        assert_eq!(passed(start_ns, 1000), 100, "a burst");
        assert_eq!(bucket.take_at(100, start_ns + 1_000), Err(10));
        assert_eq!(passed(start_ns + BURST_NS / 2, 1000), 50, "half a second later");
        assert_eq!(passed(start_ns + 100 * BURST_NS, 1000), 100, "no more is saved up");
    }
}
