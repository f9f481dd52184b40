//! Counts and times of the commands, by their number in the table.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{Counts, Histogram, bucket_of};

/// What is counted of one command.
#[derive(Default)]
pub struct CommandStats {
    /// From begin to reply, of each call.
    times: Histogram,
    total_ns: AtomicU64,
    /// Calls refused before they began.
    pub rejected: AtomicU64,
    /// Calls that were answered with an error.
    pub failed: AtomicU64,
}

impl CommandStats {
    /// All times together, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.total_ns.load(Ordering::Relaxed)
    }

    /// Calls by the time they took.
    pub fn times(&self) -> Counts {
        self.times.load()
    }

    /// Forgets the times only.
    pub fn reset_times(&self) {
        self.times.reset();
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.times.reset();
        for counter in [&self.total_ns, &self.rejected, &self.failed] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// Calls of one connection on their way to the counters: a run of the same command and about the same time is counted at
/// once, which keeps threads from writing to the same memory for each request of a pipeline.
#[derive(Default)]
pub struct Tally {
    command: usize,
    bucket: usize,
    count: u64,
    total_ns: u64,
}

impl Tally {
    /// Adds a call of the command of that number.
    pub fn add(&mut self, all: &[CommandStats], command: usize, ns: u64) {
        let bucket = bucket_of(ns);
        if self.count > 0 && (command, bucket) != (self.command, self.bucket) {
            self.count(all);
        }
        (self.command, self.bucket) = (command, bucket);
        self.count += 1;
        self.total_ns += ns;
    }

    /// Counts what was added.
    pub fn count(&mut self, all: &[CommandStats]) {
        let Self { command, bucket, count, total_ns } = std::mem::take(self);
        if let Some(stats) = all.get(command).filter(|_| count > 0) {
            stats.times.add(bucket, count);
            stats.total_ns.fetch_add(total_ns, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_counts_every_call_of_every_command() {
        let all: Vec<CommandStats> = (0..3).map(|_| CommandStats::default()).collect();
        let mut tally = Tally::default();
        for (command, ns) in [(0, 500), (0, 510), (2, 500), (2, 1 << 20), (0, 500), (9, 1)] {
            tally.add(&all, command, ns);
        }
        tally.count(&all);
        let totals: Vec<(u64, u64)> = all.iter().map(|one| (one.times().total(), one.total_ns())).collect();
        assert_eq!(totals, [(3, 1510), (0, 0), (2, 500 + (1 << 20))]);
    }
}
