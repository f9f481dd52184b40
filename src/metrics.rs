//! Counters of the running server.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters, all since the start.
#[derive(Default)]
pub struct Metrics {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections refused because of `maxclients`.
    pub rejected_connections: AtomicU64,
    /// Connections open now.
    pub clients: AtomicU64,
    /// Commands processed.
    pub commands: AtomicU64,
    /// Error replies.
    pub errors: AtomicU64,
    /// Bytes in the connections' buffers now.
    pub buffers_bytes: AtomicU64,
    /// Bytes read from clients.
    pub input_bytes: AtomicU64,
    /// Bytes written to clients.
    pub output_bytes: AtomicU64,
    /// Passes over a collection's rows.
    pub search_passes: AtomicU64,
    /// Searches answered by those passes.
    pub searches: AtomicU64,
    /// Of these, answered by walking through a graph.
    pub graph_searches: AtomicU64,
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
    /// Counts one command by its reply.
    pub fn count_reply(&self, is_error: bool) {
        self.commands.fetch_add(1, Ordering::Relaxed);
        self.errors.fetch_add(u64::from(is_error), Ordering::Relaxed);
    }

    /// Counts one pass that answers that many searches.
    pub fn count_pass(&self, searches: usize) {
        self.search_passes.fetch_add(1, Ordering::Relaxed);
        self.searches.fetch_add(searches as u64, Ordering::Relaxed);
    }

    /// Counts searches that graphs have answered, and those that gave up walking.
    pub fn count_walks(&self, answered: usize, given_up: usize) {
        self.graph_searches.fetch_add(answered as u64, Ordering::Relaxed);
        self.graph_fallbacks.fetch_add(given_up as u64, Ordering::Relaxed);
    }
}
