//! The planner: whether a search walks through the graph or scans.
//!
//! Both ways have a cost in nanoseconds, from constants that were measured (Zen 4, one thread, codes of 128 to 768 bytes, by
//! `benches/graph`, also with `filters`); what counts is their ratio, which differs less between machines than they do.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::IndexKind;
use super::index::Tuning;
use super::search::SearchRequest;

/// Scoring a row in a scan: this much, and more for each byte of it.
const SCAN_ROW_NS: f64 = 1.5;
const SCAN_BYTE_NS: f64 = 0.045;
/// What a row costs more when few of its neighbours are scored too: then its memory is waited for.
const SPARSE_ROW_NS: f64 = 18.0;
/// Looking at whether a row passes a filter.
const FILTER_ROW_NS: f64 = 0.2;
/// A walk, for each candidate it keeps: this much, and more for each byte of a row.
const WALK_CANDIDATE_NS: f64 = 450.0;
const WALK_BYTE_NS: f64 = 1.4;
/// Searches that share a scan cost at least this part of what each would cost alone.
const SHARED_PART: f64 = 0.15;
/// Candidates for each result, at least.
const CANDIDATES_PER_RESULT: usize = 3;
/// Matching rows that a walk should meet: so many more than are wanted, times that. If it meets too few, it was in vain.
const SPARE_MATCHES: usize = 5;
const MATCH_FACTOR: f64 = 1.2;
/// The recall that a graph must have reached in a collection's own rows to be used by default.
pub const MIN_RECALL: f64 = 0.99;

/// How a search was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// All rows were scored from their codes, the best again from their originals.
    Scan,
    /// The same for the rows that pass the filter.
    MaskedScan,
    /// By a walk through the graph.
    Graph,
    /// By a scan that proves its answer.
    Proof,
}

impl Plan {
    /// All, each at its own number.
    pub const ALL: [Self; 4] = [Self::Scan, Self::MaskedScan, Self::Graph, Self::Proof];

    /// Of a search that scans.
    pub(super) fn of_scan(request: &SearchRequest) -> Self {
        match (request.exact, &request.filter) {
            (true, _) => Self::Proof,
            (false, Some(_)) => Self::MaskedScan,
            (false, None) => Self::Scan,
        }
    }

    /// As EXPLAIN shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scan => "scan",
            Self::MaskedScan => "masked scan",
            Self::Graph => "graph",
            Self::Proof => "proof",
        }
    }
}

/// How the searches of a pass were answered.
#[derive(Default)]
pub struct Plans {
    /// Searches by plan, in the order of [`Plan::ALL`].
    pub answered: [AtomicUsize; Plan::ALL.len()],
    /// Walks that were given up for a scan: fewer of the rows met were wanted than the search asked for.
    pub given_up: AtomicUsize,
}

impl Plans {
    /// Notes how a search was answered.
    pub(super) fn note(&self, request: &SearchRequest, plan: Plan) {
        request.note(plan);
        self.answered[plan as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What a search goes over.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Rows the graph covers.
    pub rows: usize,
    /// Of these, rows that may be found.
    pub matching: usize,
    /// Bytes of a row that are scored.
    pub row_bytes: usize,
    /// Searches that would share a scan.
    pub shared: usize,
}

/// Candidates to keep in a walk through the graph; `None` if a scan is better, or the answer must be exact.
pub(super) fn candidates(request: &SearchRequest, tuning: &Tuning, scope: Scope) -> Option<usize> {
    if request.exact || scope.matching == 0 {
        return None;
    }
    let wants_graph = request.effort > 0 || request.collection.params.index == IndexKind::Hnsw;
    if tuning.recall < MIN_RECALL && !wants_graph {
        return None;
    }
    let ef = kept(request, tuning, scope);
    // Asked for, unless a filter leaves so few rows that walking to them is futile.
    let asked = wants_graph && request.filter.is_none();
    (asked || walk_ns(ef, scope) < scan_ns(scope)).then_some(ef).filter(|&ef| ef < scope.rows)
}

/// The fewer of the rows may be found, the more candidates are needed to meet enough of them.
fn kept(request: &SearchRequest, tuning: &Tuning, scope: Scope) -> usize {
    let wanted = request.count.min(scope.matching);
    let base = tuning.ef.max(request.effort).max(wanted.saturating_mul(CANDIDATES_PER_RESULT));
    let share = scope.matching as f64 / scope.rows.max(1) as f64;
    let for_dead_ends = (base as f64 * (1.7 - 0.7 * share)).ceil();
    let for_matches = (MATCH_FACTOR * (wanted + SPARE_MATCHES) as f64 / share).ceil();
    // No more than there are rows: a few million.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and bounded by the rows"
    )]
    let kept = for_dead_ends.max(for_matches).min(scope.rows as f64) as usize;
    kept
}

fn walk_ns(ef: usize, scope: Scope) -> f64 {
    ef as f64 * (WALK_CANDIDATE_NS + WALK_BYTE_NS * scope.row_bytes as f64)
}

fn scan_ns(scope: Scope) -> f64 {
    let row_ns = SCAN_ROW_NS + SCAN_BYTE_NS * scope.row_bytes as f64;
    let all = scope.rows as f64 * row_ns;
    let sparse = scope.rows as f64 * FILTER_ROW_NS + scope.matching as f64 * (row_ns + SPARSE_ROW_NS);
    let part = if scope.shared < 4 { 1.0 } else { (1.0 / scope.shared as f64).max(SHARED_PART) };
    all.min(sparse) * part
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::collection::filter::Filter;
    use crate::collection::{Collection, Params};
    use crate::vector::{Layout, Metric, Quantization, Query};

    const TUNED: Tuning = Tuning { ef: 60, recall: 0.995, nodes: 0 };

    fn request(index: IndexKind, filter: bool) -> SearchRequest {
        let layout = Layout { dim: 1, metric: Metric::Cosine, quantization: Quantization::Int8 };
        let params = Params { index, ..Params::new(layout) };
        SearchRequest {
            collection: Arc::new(Collection::new(0, params)),
            query: Query::new(&layout, &[1.0]),
            count: 10,
            effort: 0,
            exact: false,
            filter: filter.then(|| Arc::new(Filter::parse(b".a == 1").unwrap())),
            trace: None,
        }
    }

    fn scope(rows: usize, matching: usize) -> Scope {
        Scope { rows, matching, row_bytes: 128, shared: 1 }
    }

    #[test]
    fn large_collections_walk_and_small_ones_scan() {
        let request = request(IndexKind::Auto, false);
        assert_eq!(candidates(&request, &TUNED, scope(1_000_000, 1_000_000)), Some(60));
        assert_eq!(candidates(&request, &TUNED, scope(2000, 2000)), None);
        let shared = Scope { shared: 256, ..scope(20_000, 20_000) };
        assert_eq!(candidates(&request, &TUNED, shared), None, "a shared scan is cheaper");
        assert!(candidates(&request, &TUNED, Scope { shared: 1, ..shared }).is_some());
    }

    #[test]
    fn what_must_be_exact_never_walks() {
        let request = SearchRequest { exact: true, ..request(IndexKind::Hnsw, false) };
        assert_eq!(candidates(&request, &TUNED, scope(1_000_000, 1_000_000)), None);
    }

    #[test]
    fn a_graph_that_finds_too_little_is_used_only_when_asked_for() {
        let poor = Tuning { recall: 0.98, ..TUNED };
        let all = scope(1_000_000, 1_000_000);
        assert_eq!(candidates(&request(IndexKind::Auto, false), &poor, all), None);
        assert!(candidates(&request(IndexKind::Hnsw, false), &poor, all).is_some());
        let with_effort = SearchRequest { effort: 500, ..request(IndexKind::Auto, false) };
        assert_eq!(candidates(&with_effort, &poor, all), Some(500));
    }

    #[test]
    fn a_graph_that_was_asked_for_is_used_for_small_collections_too() {
        assert!(candidates(&request(IndexKind::Hnsw, false), &TUNED, scope(2000, 2000)).is_some());
        assert_eq!(candidates(&request(IndexKind::Hnsw, false), &TUNED, scope(50, 50)), None);
    }

    #[test]
    fn narrow_filters_scan_and_wide_ones_walk() {
        let request = request(IndexKind::Auto, true);
        let plan = |matching| candidates(&request, &TUNED, scope(200_000, matching));
        assert!(plan(100_000).is_some() && plan(20_000).is_some());
        assert_eq!(plan(4000), None);
        assert_eq!(plan(600), None);
        assert!(plan(20_000).unwrap() >= 120, "enough candidates to meet ten that match");
    }
}
