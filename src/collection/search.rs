//! Search in a collection: several queries share a pass over its rows, block by block while a block is in the cache; the
//! best candidates of each are then scored again from the f32 originals. Searches that walk through the graph (`walk.rs`) do so
//! each by itself.
//!
//! Each search may be on a version of its own. Versions share their rows, so a pass goes over the rows of all of them,
//! and each search sees those that are live in its version. A pass is made of parts, which several threads may share.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::filter::Filter;
use super::found::{Floor, Found};
use super::plan::{Plan, Plans};
use super::scan::{Scratch, scan};
use super::walk;
use super::{Chunk, Collection, CollectionError, RowId, Rows};
use crate::vector::Query;

/// Bytes of rows (for one query) that are worth a thread of their own.
const PART_BYTES: usize = 2 << 20;
/// Parts that a large collection is cut into, at least.
const MIN_PARTS: usize = 64;
/// Bytes of rows, times searches, up to which a pass is not worth another thread: some fifty microseconds.
const SMALL_BYTES: usize = 1536 << 10;
/// Results for each search up to which it is not worth another thread.
const SMALL_COUNT: usize = 64;
/// One search.
pub struct SearchRequest {
    /// The version to look in.
    pub collection: Arc<Collection>,
    /// What to look for.
    pub query: Query,
    /// Results wanted, at least 1.
    pub count: usize,
    /// Candidates to score again from their originals, if that is more than by default.
    pub effort: usize,
    /// Prove the answer.
    pub exact: bool,
    /// Only elements whose attributes pass.
    pub filter: Option<Arc<Filter>>,
    /// Where to note how it was answered, if somebody wants to know.
    pub trace: Option<Arc<OnceLock<Plan>>>,
}

impl SearchRequest {
    /// Notes how it was answered.
    pub(super) fn note(&self, plan: Plan) {
        if let Some(trace) = &self.trace {
            trace.get_or_init(|| plan);
        }
    }
}

/// A result: a row and its score (higher is better; see [`Query::exact`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hit {
    /// The row.
    pub row: RowId,
    /// Score from the original.
    pub score: f32,
}

/// Results of a search, best first, equal scores by row.
pub type Hits = Result<Vec<Hit>, CollectionError>;

/// Whether searches are on one collection and less work than waking another thread: few rows, in memory, and neither a
/// filter nor a proof nor many results, which may take much longer than a pass.
pub fn is_small(requests: &[SearchRequest]) -> bool {
    let Some(first) = requests.first() else { return false };
    let is_light = |request: &SearchRequest| {
        let collection = &request.collection;
        let in_memory = || collection.chunks.iter().all(|chunk| matches!(&*chunk.rows, Rows::Memory(_)));
        collection.uid == first.collection.uid
            && request.filter.is_none()
            && !request.exact
            && request.count.max(request.effort) <= SMALL_COUNT
            && in_memory()
    };
    let row_bytes = first.collection.params.row_shape().scanned_bytes();
    requests.len() * first.collection.rows() * row_bytes <= SMALL_BYTES && requests.iter().all(is_light)
}

/// Runs several searches on versions of one collection on the caller's thread. Answers are in the order of the requests.
pub fn search(requests: Vec<SearchRequest>) -> Vec<Hits> {
    let pass = Pass::new(requests);
    pass.work().unwrap_or_else(|| unreachable!("who works alone ends the pass"))
}

/// A stretch of a chunk's rows, a multiple of 64 from the chunk's beginning.
pub(super) struct Part {
    /// The chunk in the version that knows most of its rows.
    pub chunk: Arc<Chunk>,
    pub first: usize,
    pub end: usize,
}

/// Several searches of one collection: those that scan share a pass over its rows, the others walk through its graph, each by
/// itself.
pub struct Pass {
    /// First those that scan.
    requests: Vec<SearchRequest>,
    /// Where each stood before.
    order: Vec<usize>,
    scanning: usize,
    parts: Vec<Part>,
    next: AtomicUsize,
    floors: Vec<Arc<Floor>>,
    merged: Mutex<Merged>,
    plans: Plans,
}

#[derive(Default)]
struct Merged {
    found: Vec<Found>,
    parts_done: usize,
}

impl Pass {
    /// Plans a pass. All requests are on versions of the same collection.
    pub fn new(requests: Vec<SearchRequest>) -> Self {
        let shared = requests.len();
        let mut ordered: Vec<(bool, usize, SearchRequest)> = requests
            .into_iter()
            .enumerate()
            .map(|(at, request)| (walk::is_worth_it(&request, shared), at, request))
            .collect();
        ordered.sort_by_key(|&(walks, at, _)| (walks, at));
        let scanning = ordered.iter().filter(|(walks, ..)| !walks).count();
        let (order, requests): (Vec<usize>, Vec<_>) =
            ordered.into_iter().map(|(_, at, request)| (at, request)).unzip();
        let plans = Plans::default();
        requests[..scanning].iter().for_each(|request| plans.note(request, Plan::of_scan(request)));
        let parts = parts(&requests[..scanning]);
        let floors = requests.iter().map(|_| Arc::default()).collect();
        let (next, merged) = (AtomicUsize::new(0), Mutex::default());
        Self { requests, order, scanning, parts, next, floors, merged, plans }
    }

    /// Asks for the sketches of what it scans; whether nobody has asked before.
    pub fn asks_for_sketches(&self) -> bool {
        let scanned = self.requests[..self.scanning].first().map(|request| &request.collection);
        scanned.is_some_and(|collection| collection.sketches.want(collection))
    }

    /// Searches it answers.
    pub fn searches(&self) -> usize {
        self.requests.len()
    }

    /// Parts it is made of: stretches to scan, and walks.
    pub fn parts(&self) -> usize {
        self.parts.len() + self.requests.len() - self.scanning
    }

    /// Whether there are parts that nobody has begun.
    pub fn has_more(&self) -> bool {
        self.next.load(Ordering::Relaxed) < self.parts()
    }

    /// How its searches were answered; all of them once the pass has ended.
    pub fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Works on parts until none is left. Gives the answers to whoever ends the pass, and only to that one.
    pub fn work(&self) -> Option<Vec<Hits>> {
        let (found, done) = self.work_on_parts();
        let mut merged = self.merged.lock().unwrap_or_else(PoisonError::into_inner);
        if done == 0 && self.parts() > 0 {
            return None;
        }
        match merged.found.is_empty() {
            true => merged.found = found,
            false => merged.found.iter_mut().zip(found).for_each(|(all, more)| all.merge(more)),
        }
        merged.parts_done += done;
        if merged.parts_done < self.parts() {
            return None;
        }
        let found = std::mem::take(&mut merged.found);
        drop(merged);
        let hits = self.requests.iter().zip(found).map(|(request, found)| found.finish(request));
        let mut hits: Vec<(usize, Hits)> = self.order.iter().copied().zip(hits).collect();
        hits.sort_by_key(|&(at, _)| at);
        Some(hits.into_iter().map(|(_, hits)| hits).collect())
    }

    /// Works on parts until none is left; what was found for each search, and how many parts that were.
    fn work_on_parts(&self) -> (Vec<Found>, usize) {
        let searches = self.requests.iter().zip(&self.floors);
        let mut found: Vec<Found> =
            searches.map(|(request, floor)| Found::sharing(request, Arc::clone(floor))).collect();
        let mut scratch = Scratch::default();
        let mut done = 0;
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(part) = self.parts.get(at) {
                scan(part, &self.requests[..self.scanning], &mut found[..self.scanning], &mut scratch);
            } else if let Some(request) = self.requests.get(self.scanning + at - self.parts.len()) {
                found[self.scanning + at - self.parts.len()] = walk::walk(request, &self.plans, &mut scratch);
            } else {
                return (found, done);
            }
            done += 1;
        }
    }
}

#[cfg(test)]
impl Pass {
    /// What the pass finds for its only search, before anything is scored again.
    pub(super) fn scan_alone(&self) -> (Found, &SearchRequest) {
        let mut found = self.work_on_parts().0;
        match (found.pop(), &self.requests[..]) {
            (Some(found), [request]) => (found, request),
            _ => panic!("one search"),
        }
    }
}

/// Every chunk that one of the searches has to look at, cut into parts.
pub(super) fn parts(requests: &[SearchRequest]) -> Vec<Part> {
    let mut chunks: BTreeMap<u32, &Arc<Chunk>> = BTreeMap::new();
    for chunk in requests.iter().flat_map(|request| &request.collection.chunks) {
        if chunk.live_rows > 0 {
            let known = chunks.entry(chunk.number).or_insert(chunk);
            if chunk.len > known.len {
                *known = chunk;
            }
        }
    }
    let Some(shape) = requests.first().map(|request| request.collection.params.row_shape()) else {
        return Vec::new();
    };
    // Many queries make a part as much work as many rows do; but each part takes each of them a while to begin.
    let rows = PART_BYTES / shape.scanned_bytes().max(1);
    let least = chunks.values().map(|chunk| chunk.len).sum::<usize>() / MIN_PARTS;
    let rows = (rows / requests.len().min(16)).max(rows.min(least.max(1024))).max(1).next_multiple_of(64);
    let cut = |chunk: &Arc<Chunk>| {
        let chunk = Arc::clone(chunk);
        (0..chunk.len).step_by(rows).map(move |first| Part {
            end: (first + rows).min(chunk.len),
            chunk: Arc::clone(&chunk),
            first,
        })
    };
    chunks.into_values().flat_map(cut).collect()
}

/// Bits of a part's rows that may be in a search's answer; nothing when none may.
pub(super) fn mask<'a>(part: &Part, request: &'a SearchRequest) -> Cow<'a, [u64]> {
    let chunk = request.collection.chunk(RowId::new(part.chunk.number, 0));
    chunk.map_or(Cow::Borrowed(&[]), |chunk| mask_of(chunk, request, part.first, part.end))
}

/// The same for some rows of a chunk of the search's version, from a multiple of 64 on.
pub(super) fn mask_of<'a>(
    chunk: &'a Chunk,
    request: &SearchRequest,
    first: usize,
    end: usize,
) -> Cow<'a, [u64]> {
    if chunk.live_rows == 0 {
        return Cow::Borrowed(&[]);
    }
    let (first, end) = (first / 64, end.div_ceil(64));
    match &request.filter {
        Some(filter) => Cow::Owned(chunk.filters.passing(chunk, filter, first, end)),
        None => Cow::Borrowed(&chunk.live[first.min(chunk.live.len())..end.min(chunk.live.len())]),
    }
}
