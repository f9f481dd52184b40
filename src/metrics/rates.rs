//! What happened in the last second, and the highest memory seen.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Totals at one moment.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    /// Commands carried out.
    pub commands: u64,
    /// Bytes read from clients.
    pub input_bytes: u64,
    /// Bytes written to clients.
    pub output_bytes: u64,
}

/// How much there was a second between the last two looks.
#[derive(Default)]
pub struct Rates {
    last: Mutex<Option<(Instant, Totals)>>,
    /// Commands a second.
    pub commands: AtomicU64,
    /// Bytes read a second.
    pub input_bytes: AtomicU64,
    /// Bytes written a second.
    pub output_bytes: AtomicU64,
    peak_bytes: AtomicU64,
}

impl Rates {
    /// Looks at the totals, about once a second.
    pub fn look(&self, now: Totals) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        if let Some((then, before)) = last.replace((at, now)) {
            let ms = at.duration_since(then).as_millis().max(1);
            let rate = |now: u64, before: u64| {
                u64::try_from(u128::from(now.saturating_sub(before)) * 1000 / ms).unwrap_or(u64::MAX)
            };
            self.commands.store(rate(now.commands, before.commands), Ordering::Relaxed);
            self.input_bytes.store(rate(now.input_bytes, before.input_bytes), Ordering::Relaxed);
            self.output_bytes.store(rate(now.output_bytes, before.output_bytes), Ordering::Relaxed);
        }
    }

    /// Tells the memory in use now and gives the highest so far.
    pub fn peak_bytes(&self, used_bytes: u64) -> u64 {
        self.peak_bytes.fetch_max(used_bytes, Ordering::Relaxed).max(used_bytes)
    }
}
