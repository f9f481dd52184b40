//! A histogram of times that many threads add to without a lock.
//!
//! Eight buckets for each doubling from 256 nanoseconds on: a percentile read from it is at most an eighth too high.

use std::sync::atomic::{AtomicU64, Ordering};

/// Each doubling has 2 to the power of this many buckets.
const SPLIT_BITS: u32 = 3;
/// Times below 2 to the power of this many nanoseconds are in the first bucket.
const FIRST_BITS: u32 = 8;
/// Doublings: the last bucket begins at about four minutes and takes all that is longer.
const DOUBLINGS: usize = 30;
const BUCKETS: usize = DOUBLINGS << SPLIT_BITS;

/// Counts of times, by their length.
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

/// The bucket of a time.
pub fn bucket_of(ns: u64) -> usize {
    let ns = ns.max(1 << FIRST_BITS);
    let doubling = ns.ilog2();
    let part = (ns >> (doubling - SPLIT_BITS)) & ((1 << SPLIT_BITS) - 1);
    let bucket = (u64::from(doubling - FIRST_BITS) << SPLIT_BITS) + part;
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The end of a bucket, in nanoseconds: all its times are below. The last bucket has none.
fn end_ns(bucket: usize) -> u64 {
    let (doubling, part) = (bucket >> SPLIT_BITS, (bucket & ((1 << SPLIT_BITS) - 1)) as u64);
    ((1 << SPLIT_BITS) + part + 1) << (doubling + FIRST_BITS as usize - SPLIT_BITS as usize)
}

impl Histogram {
    /// Counts that many times of one bucket.
    pub fn add(&self, bucket: usize, count: u64) {
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(count, Ordering::Relaxed);
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }

    /// What was counted so far.
    pub fn load(&self) -> Counts {
        Counts(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect())
    }
}

/// A histogram as it was at one moment.
pub struct Counts(Vec<u64>);

impl Counts {
    /// Number of times counted.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The time that `percent` of all are not above, in nanoseconds (the end of its bucket); 0 if there is none.
    pub fn percentile_ns(&self, percent: f64) -> u64 {
        let total = self.total() as f64;
        let mut below = 0;
        for (bucket, count) in self.0.iter().enumerate() {
            below += count;
            if *count > 0 && below as f64 >= total * percent / 100.0 {
                return end_ns(bucket);
            }
        }
        0
    }

    /// How many times were below a bound in nanoseconds; exact when it is a power of two from 512 on.
    pub fn below(&self, bound_ns: u64) -> u64 {
        self.0.iter().enumerate().take_while(|(bucket, _)| end_ns(*bucket) <= bound_ns).map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_below_the_end_of_its_bucket_and_not_below_that_of_the_one_before() {
        for ns in (0..40).flat_map(|bits| [(1u64 << bits) - 1, 1 << bits, (1 << bits) + (1 << bits) / 3]) {
            let bucket = bucket_of(ns);
            assert!(bucket == BUCKETS - 1 || ns < end_ns(bucket), "{ns}");
            assert!(bucket == 0 || ns >= end_ns(bucket - 1), "{ns}");
        }
    }

    #[test]
    fn percentiles_are_at_most_an_eighth_too_high() {
        let histogram = Histogram::default();
        for us in 1..=1000u64 {
            histogram.add(bucket_of(us * 1000), 1);
        }
        let counts = histogram.load();
        assert_eq!((counts.total(), counts.below(1 << 19)), (1000, 524));
        for (percent, exact) in [(50.0, 500_000.0), (99.0, 990_000.0), (100.0, 1_000_000.0)] {
            let found = counts.percentile_ns(percent) as f64;
            assert!(found >= exact && found <= exact * 1.125, "{percent}: {found}");
        }
        histogram.reset();
        assert_eq!((histogram.load().total(), histogram.load().percentile_ns(50.0)), (0, 0));
    }
}
