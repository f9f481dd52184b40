//! A search through the collection's graph, with a scan of the rows the graph does not cover.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::RowId;
use super::found::Found;
use super::index::{Cover, Covered, Pages, Tuning};
use super::plan::{Plan, Plans, Scope, candidates};
use super::scan::{Scratch, scan, scan_masked};
use super::search::{Part, SearchRequest, mask_of, parts};
use crate::graph;

/// Rows found that are scored again from their originals, for each result, and at least. Fewer than after a scan: their scores are
/// a good part of what a walk costs.
pub(super) const RESCORED_PER_RESULT: usize = 3;
const MIN_RESCORED: usize = 20;
/// Rows after which a walk under a filter is looked at: by then it has come near.
const GUARDED_ROWS: usize = 400;
/// It is in vain if this many times fewer of the rows met pass than of all.
const LEAST_PART: f64 = 3.0;

thread_local! {
    /// A thread's memory for walks.
    static SCRATCH: RefCell<graph::Scratch> = RefCell::default();
}

/// Whether a search is better answered by itself than in a scan that many share: through the graph or, where a filter leaves few
/// rows, by going over these.
pub(super) fn is_worth_it(request: &SearchRequest, shared: usize) -> bool {
    let Some(graph) = usable(request) else { return false };
    // Which rows pass is found out later.
    request.filter.is_some() || {
        let rows = request.collection.rows().min(graph.0.graph.len());
        let scope = Scope { rows, matching: request.collection.len().min(rows), ..scope(request, shared) };
        candidates(request, &graph.1, scope).is_some()
    }
}

fn usable(request: &SearchRequest) -> Option<(Arc<Covered>, Tuning)> {
    let graph = request.collection.index.graph().filter(|_| !request.exact)?;
    let tuning = graph.tuning()?;
    Some((graph, tuning))
}

fn scope(request: &SearchRequest, shared: usize) -> Scope {
    let row_bytes = request.collection.params.row_shape().scanned_bytes();
    Scope { rows: 0, matching: 0, row_bytes, shared }
}

/// Answers one search by itself.
pub(super) fn walk(request: &SearchRequest, plans: &Plans, scratch: &mut Scratch) -> Found {
    let mut found = Found::new(request);
    let Some((graph, tuning)) = usable(request) else {
        plans.note(request, Plan::of_scan(request));
        let requests = std::slice::from_ref(request);
        let found_by_all = std::slice::from_mut(&mut found);
        parts(requests).iter().for_each(|part| scan(part, requests, found_by_all, scratch));
        return found;
    };
    let pages = graph.pages();
    let cover = pages.cover(&request.collection, |chunk, rows| mask_of(chunk, request, 0, rows));
    if !by_graph(request, (&graph, &pages), &tuning, &cover, &mut found, plans) {
        plans.note(request, Plan::of_scan(request));
        scan_covered(request, &cover, &mut found, scratch);
    }
    scan_rest(request, &cover, &mut found, scratch);
    found
}

/// Finds rows that the graph covers; false if a scan of them is better after all. Then nothing has been found.
fn by_graph(
    request: &SearchRequest,
    (graph, pages): (&Covered, &Pages),
    tuning: &Tuning,
    cover: &Cover<'_>,
    found: &mut Found,
    plans: &Plans,
) -> bool {
    let collection = &request.collection;
    let rows = cover.rows();
    let matching = if request.filter.is_some() { cover.matching() } else { collection.len().min(rows) };
    let scope = Scope { rows, matching, ..scope(request, 1) };
    let Some(ef) = candidates(request, tuning, scope) else { return false };
    let mut guard =
        Guard { share: matching as f64 / rows as f64, asked: request.filter.is_none(), in_vain: false };
    let good: Vec<(f32, RowId)> = SCRATCH.with_borrow_mut(|walk| {
        graph.graph.search(pages, &request.query, ef, walk, |walk| guard.lets_go_on(walk, cover));
        let rows = walk.found().filter_map(|(score, node)| Some((score, cover.row(node)?)));
        rows.take(request.count.saturating_mul(RESCORED_PER_RESULT).max(MIN_RESCORED)).collect()
    });
    let enough = !guard.in_vain && good.len() >= request.count.min(matching);
    if enough {
        good.iter().for_each(|&(score, row)| found.push(score, row.0));
        plans.note(request, Plan::Graph);
        collection.index.searches.fetch_add(1, Ordering::Relaxed);
    } else {
        plans.given_up.fetch_add(1, Ordering::Relaxed);
    }
    enough
}

/// Ends a walk early where hardly any of the rows it meets pass the filter, although enough of all rows do.
struct Guard {
    /// The part of all rows that passes.
    share: f64,
    asked: bool,
    in_vain: bool,
}

impl Guard {
    fn lets_go_on(&mut self, walk: &graph::Scratch, cover: &Cover<'_>) -> bool {
        if self.asked || walk.scored < GUARDED_ROWS {
            return true;
        }
        self.asked = true;
        let (mut met, mut matching) = (0, 0);
        for (_, node) in walk.found() {
            met += 1;
            matching += usize::from(cover.row(node).is_some());
        }
        self.in_vain = matching as f64 * LEAST_PART < self.share * f64::from(met);
        !self.in_vain
    }
}

/// Scans the rows that the graph covers.
fn scan_covered(request: &SearchRequest, cover: &Cover<'_>, found: &mut Found, scratch: &mut Scratch) {
    for chunk in &request.collection.chunks {
        let (end, mask) = cover.of(chunk.number);
        if end > 0 && chunk.live_rows > 0 {
            let part = Part { chunk: Arc::clone(chunk), first: 0, end };
            scan_masked(&part, request, mask, found, scratch);
        }
    }
}

/// Scans the rows that the graph does not cover.
fn scan_rest(request: &SearchRequest, cover: &Cover<'_>, found: &mut Found, scratch: &mut Scratch) {
    for chunk in &request.collection.chunks {
        let (first, _) = cover.of(chunk.number);
        if first < chunk.len && chunk.live_rows > 0 {
            let part = Part { chunk: Arc::clone(chunk), first, end: chunk.len };
            scan(&part, std::slice::from_ref(request), std::slice::from_mut(found), scratch);
        }
    }
}
