//! Slow commands: the last ones with their arguments (SLOWLOG), and the worst of each second (LATENCY).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds that the history of an event keeps.
const HISTORY_MAX: usize = 160;

/// A slow command.
#[derive(Clone, Debug)]
pub struct SlowCall {
    /// Number since the start of the server.
    pub id: u64,
    /// When it was answered, unix seconds.
    pub at_s: u64,
    /// From begin to reply.
    pub time_us: u64,
    /// Name and arguments, cut to what is worth showing, without secrets.
    pub arguments: Vec<Vec<u8>>,
    /// Who sent it.
    pub peer: String,
    /// The name that connection has given itself.
    pub name: Vec<u8>,
}

/// The last slow commands.
#[derive(Default)]
pub struct SlowLog {
    calls: Mutex<VecDeque<SlowCall>>,
    next_id: AtomicU64,
    slower_than_us: AtomicI64,
    len_max: AtomicUsize,
}

impl SlowLog {
    /// Sets from which time on commands are kept (below 0: never), and how many.
    pub fn configure(&self, slower_than_us: i64, len_max: usize) {
        self.slower_than_us.store(slower_than_us, Ordering::Relaxed);
        self.len_max.store(len_max, Ordering::Relaxed);
        self.lock().truncate(len_max);
    }

    /// Whether a command of that time is to be kept.
    pub fn takes(&self, time_us: u64) -> bool {
        u64::try_from(self.slower_than_us.load(Ordering::Relaxed)).is_ok_and(|least_us| time_us >= least_us)
    }

    /// Keeps a command; its number is set here.
    pub fn add(&self, call: SlowCall) {
        let mut calls = self.lock();
        calls.push_front(SlowCall { id: self.next_id.fetch_add(1, Ordering::Relaxed), ..call });
        calls.truncate(self.len_max.load(Ordering::Relaxed));
    }

    /// Number of commands kept.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// The last ones, newest first.
    pub fn last(&self, count: usize) -> Vec<SlowCall> {
        self.lock().iter().take(count).cloned().collect()
    }

    /// Forgets all.
    pub fn reset(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<SlowCall>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Slow moments of one kind.
#[derive(Clone, Debug, Default)]
pub struct Spikes {
    /// The worst of each second that had one: unix seconds, milliseconds; oldest first.
    pub history: VecDeque<(u64, u64)>,
    /// The worst ever, in milliseconds.
    pub max_ms: u64,
}

/// Slow moments by kind, as LATENCY shows them.
#[derive(Default)]
pub struct LatencyMonitor {
    threshold_ms: AtomicU64,
    events: Mutex<BTreeMap<&'static str, Spikes>>,
}

impl LatencyMonitor {
    /// Sets from which time on moments are kept; 0: never.
    pub fn configure(&self, threshold_ms: u64) {
        self.threshold_ms.store(threshold_ms, Ordering::Relaxed);
    }

    /// Notes how long something took, if that was long.
    pub fn note(&self, event: &'static str, time_ms: u64, now_s: u64) {
        let threshold_ms = self.threshold_ms.load(Ordering::Relaxed);
        if threshold_ms == 0 || time_ms < threshold_ms {
            return;
        }
        let mut events = self.lock();
        let spikes = events.entry(event).or_default();
        spikes.max_ms = spikes.max_ms.max(time_ms);
        match spikes.history.back_mut() {
            Some((at_s, worst_ms)) if *at_s == now_s => *worst_ms = (*worst_ms).max(time_ms),
            _ => spikes.history.push_back((now_s, time_ms)),
        }
        if spikes.history.len() > HISTORY_MAX {
            spikes.history.pop_front();
        }
    }

    /// The events there are.
    pub fn events(&self) -> BTreeMap<&'static str, Spikes> {
        self.lock().clone()
    }

    /// Forgets the events that are picked; how many there were.
    pub fn reset(&self, picked: impl Fn(&str) -> bool) -> usize {
        let mut events = self.lock();
        let before = events.len();
        events.retain(|event, _| !picked(event));
        before - events.len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Spikes>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_moment_of_each_second_is_kept() {
        let monitor = LatencyMonitor::default();
        monitor.note("command", 1000, 1);
        assert!(monitor.events().is_empty(), "off until a threshold is set");
        monitor.configure(10);
        for (time_ms, at_s) in [(9, 1), (20, 2), (30, 2), (10, 2), (15, 3)] {
            monitor.note("command", time_ms, at_s);
        }
        let spikes = monitor.events().remove("command").unwrap();
        assert_eq!((spikes.max_ms, Vec::from(spikes.history)), (30, vec![(2, 30), (3, 15)]));
        for at_s in 0..1000 {
            monitor.note("command", 10, at_s);
        }
        assert_eq!(monitor.events()["command"].history.len(), HISTORY_MAX);
        assert_eq!((monitor.reset(|event| event == "command"), monitor.reset(|_| true)), (1, 0));
    }
}
