//! Counters of the running server. Adding to them takes no lock but where something went wrong or was slow.

pub mod commands;
pub mod histogram;
pub mod rates;
pub mod slow;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::config::Config;
use commands::CommandStats;
use rates::{Rates, Totals};
use slow::{LatencyMonitor, SlowLog};

/// Kinds of errors that are told apart; more are counted as `OTHER`.
const ERROR_KINDS_MAX: usize = 128;
/// Ways of answering a search.
const PLANS: usize = 4;

/// What was embedded for somebody.
#[derive(Debug, Default)]
pub struct EmbeddingUse {
    /// Texts given.
    pub texts: AtomicU64,
    /// Tokens that models read of them; texts found in the cache have none.
    pub tokens: AtomicU64,
}

/// Counters, all since the start or since they were reset.
#[derive(Default)]
pub struct Metrics {
    /// Calls and times of each command, by its number in the table.
    pub commands: Vec<CommandStats>,
    /// The last slow commands.
    pub slow_log: SlowLog,
    /// Slow moments.
    pub latency: LatencyMonitor,
    /// What happened in the last second.
    pub rates: Rates,
    /// Error replies by their code, the first word.
    error_kinds: Mutex<BTreeMap<String, u64>>,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections refused because of `maxclients`.
    pub rejected_connections: AtomicU64,
    /// Connections open now.
    pub clients: AtomicU64,
    /// Connections ended because they did not read their replies.
    pub output_limit_disconnections: AtomicU64,
    /// Error replies.
    pub errors: AtomicU64,
    /// Bytes in the connections' buffers now.
    pub buffers_bytes: AtomicU64,
    /// Bytes read from clients.
    pub input_bytes: AtomicU64,
    /// Bytes written to clients.
    pub output_bytes: AtomicU64,
    /// Keys that reading commands found.
    pub keyspace_hits: AtomicU64,
    /// Keys that they did not find.
    pub keyspace_misses: AtomicU64,
    /// Passes over a collection's rows.
    pub search_passes: AtomicU64,
    /// Searches answered by those passes.
    pub searches: AtomicU64,
    /// Collections whose first scan has asked for sketches.
    pub sketches_asked: AtomicU64,
    /// Of these, answered by each plan, in the order of the plans.
    pub plans: [AtomicU64; PLANS],
    /// Searches that gave up their walk for a scan: too few of the rows met were wanted.
    pub graph_fallbacks: AtomicU64,
    /// Graphs built.
    pub graph_builds: AtomicU64,
    /// Rows that graphs do not cover yet.
    pub graph_unlinked_rows: AtomicU64,
    /// Texts embedded by a model.
    pub embedded_texts: AtomicU64,
    /// Tokens of these texts.
    pub embedded_tokens: AtomicU64,
    /// Texts whose vectors were found in the cache.
    pub embedding_cache_hits: AtomicU64,
}

impl Metrics {
    /// Counters for that many commands.
    pub fn new(commands: usize, config: &Config) -> Self {
        let commands = std::iter::repeat_with(CommandStats::default).take(commands).collect();
        let metrics = Self { commands, ..Self::default() };
        metrics.configure(config);
        metrics
    }

    /// Follows the options that can change while the server runs.
    pub fn configure(&self, config: &Config) {
        self.slow_log.configure(config.slowlog_log_slower_than_us, config.slowlog_max_len);
        self.latency.configure(config.latency_monitor_threshold_ms);
    }

    /// Counts an error reply by its text, which begins with a code.
    pub fn count_error(&self, text: &str) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let code = text.split(' ').next().unwrap_or_default();
        let mut kinds = self.error_kinds.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = kinds.get_mut(code) {
            *count += 1;
        } else {
            let code = if kinds.len() < ERROR_KINDS_MAX { code } else { "OTHER" };
            *kinds.entry(code.to_owned()).or_default() += 1;
        }
    }

    /// Error replies by their codes.
    pub fn error_kinds(&self) -> BTreeMap<String, u64> {
        self.error_kinds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts one pass that answers that many searches.
    pub fn count_pass(&self, searches: usize) {
        self.search_passes.fetch_add(1, Ordering::Relaxed);
        self.searches.fetch_add(searches as u64, Ordering::Relaxed);
    }

    /// Counts searches that each plan has answered, and those that gave up walking.
    pub fn count_plans(&self, answered: [usize; PLANS], given_up: usize) {
        for (counter, count) in self.plans.iter().zip(answered).filter(|(_, count)| *count > 0) {
            counter.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.graph_fallbacks.fetch_add(given_up as u64, Ordering::Relaxed);
    }

    /// Totals of what the clients made the server do.
    pub fn totals(&self) -> Totals {
        Totals {
            commands: self.commands.iter().map(|command| command.times().total()).sum(),
            input_bytes: self.input_bytes.load(Ordering::Relaxed),
            output_bytes: self.output_bytes.load(Ordering::Relaxed),
        }
    }

    /// Sets what counts events back to 0, as CONFIG RESETSTAT does. What counts things there are now stays.
    pub fn reset(&self) {
        self.commands.iter().for_each(CommandStats::reset);
        self.error_kinds.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let counters = [
            &self.connections,
            &self.rejected_connections,
            &self.output_limit_disconnections,
            &self.errors,
            &self.input_bytes,
            &self.output_bytes,
            &self.search_passes,
            &self.searches,
            &self.keyspace_hits,
            &self.keyspace_misses,
            &self.graph_fallbacks,
            &self.graph_builds,
            &self.embedded_texts,
            &self.embedded_tokens,
            &self.embedding_cache_hits,
        ];
        for counter in counters.into_iter().chain(&self.plans) {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_their_codes_and_there_is_a_bound() {
        let metrics = Metrics::default();
        for text in ["ERR no", "ERR never", "NOAUTH who", "OOM"] {
            metrics.count_error(text);
        }
        let kinds: Vec<(String, u64)> = metrics.error_kinds().into_iter().collect();
        assert_eq!(kinds, [("ERR".into(), 2), ("NOAUTH".into(), 1), ("OOM".into(), 1)]);
        (0..1000).for_each(|code| metrics.count_error(&format!("C{code} x")));
        assert_eq!(metrics.error_kinds().len(), ERROR_KINDS_MAX + 1);
        metrics.reset();
        assert!(metrics.error_kinds().is_empty());
    }
}
