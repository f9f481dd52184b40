//! The sketches of a collection's rows, with which scans leave most codes unread (`vector/sketch`).
//!
//! All versions of a collection share one [`Sketches`]. It is empty until a search has scanned the collection; from then on a
//! background thread (`store/indexer.rs`) makes the sketches, and again when chunks have grown. What it has not come to yet is
//! scanned by its codes. Nothing of it is kept on disk: it follows from the codes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use imbl::OrdMap;

use super::found::Found;
use super::scan::{Scratch, scan};
use super::search::{SearchRequest, parts};
use super::{Chunk, Collection, RowId};
use crate::vector::kernel::{BLOCK_ROWS, Kernel, Reach};
use crate::vector::sketch::{Basis, CodedRow, Sketch, directions};
use crate::vector::{Quantization, Query, decode};

/// Rows from which a collection gets sketches, and a chunk its own.
const MIN_ROWS: usize = if cfg!(test) { 64 } else { 4096 };
/// Rows that directions are learned from.
const SAMPLE_ROWS: usize = 4096;
/// Of these, rows that are searched for, to see how many others reach.
const SAMPLE_QUERIES: usize = 32;
/// Results of such a search.
const SAMPLE_COUNT: usize = 10;
/// Bytes that a row's sketch may have.
const ROW_BYTES: [usize; 8] = [16, 24, 32, 48, 64, 96, 128, 192];
/// What a row that reaches costs, in bytes of sketches that could be read instead: its code lies apart.
const REACHED_COST_BYTES: f64 = 1500.0;
/// What comparing a row costs, in bytes.
const COMPARED_COST_BYTES: f64 = 16.0;
/// Sketches are made only where a scan with them costs this part of one without at most. (Among the few rows of a test, many are
/// among the best.)
const WORTH: f64 = if cfg!(test) { 3.0 } else { 0.8 };
/// A chunk is sketched again when it has so many rows, in percent of those sketched.
const GROWN_PERCENTAGE: usize = 125;
/// Directions are learned again when a collection has so many times the rows.
const LEARNED_AGAIN: usize = 4;

/// See the module's text.
#[derive(Default)]
pub struct Sketches {
    wanted: AtomicBool,
    known: ArcSwap<Known>,
}

/// What there is at a time.
#[derive(Default)]
struct Known {
    /// `None` if none is worth it, or none has been looked for.
    basis: Option<Arc<Basis>>,
    /// Rows of the collection when it was looked for; 0 before.
    learned_rows: usize,
    /// By number of the chunk.
    chunks: OrdMap<u32, Arc<Sketch>>,
}

impl Sketches {
    /// Asks for sketches; whether that is news to the thread that makes them.
    pub(super) fn want(&self, collection: &Collection) -> bool {
        Kernel::active().reaches_quickly()
            && collection.params.layout.quantization == Quantization::Int8
            && collection.rows() >= MIN_ROWS
            && !self.wanted.load(Ordering::Relaxed)
            && !self.wanted.swap(true, Ordering::Relaxed)
    }

    /// The sketches of a chunk, if there are any.
    pub(super) fn of(&self, chunk: u32) -> Option<Arc<Sketch>> {
        self.known.load().chunks.get(&chunk).map(Arc::clone)
    }

    /// Makes what a version lacks, one chunk at a time; true if nothing is left to do. For one thread.
    pub fn follow(&self, collection: &Arc<Collection>) -> bool {
        let rows = collection.rows();
        if !self.wanted.load(Ordering::Relaxed) || rows < MIN_ROWS {
            return true;
        }
        let known = self.known.load_full();
        if known.learned_rows == 0 || rows >= known.learned_rows * LEARNED_AGAIN {
            let basis = learn(collection).map(Arc::new);
            let chunks = if basis.is_some() { known.chunks.clone() } else { OrdMap::new() };
            self.known.store(Arc::new(Known { basis, learned_rows: rows, chunks }));
            return false;
        }
        let Some(basis) = &known.basis else { return true };
        let mut chunks = known.chunks.clone();
        for number in known.chunks.keys().filter(|&&number| collection.chunk(RowId::new(number, 0)).is_none())
        {
            chunks.remove(number);
        }
        let lacking =
            collection.chunks.iter().find(|chunk| is_lacking(chunk, chunks.get(&chunk.number), basis));
        if let Some(chunk) = lacking {
            let sketch = Sketch::new(basis, chunk.len, |at| CodedRow {
                codes: chunk.rows.codes(at),
                scalars: chunk.rows.scalars(at),
            });
            chunks.insert(chunk.number, Arc::new(sketch));
        }
        if lacking.is_some() || chunks.len() < known.chunks.len() {
            let (basis, learned_rows) = (Some(Arc::clone(basis)), known.learned_rows);
            self.known.store(Arc::new(Known { basis, learned_rows, chunks }));
        }
        lacking.is_none()
    }

    /// Gives up what there is.
    pub fn clear(&self) {
        if self.known.load().learned_rows > 0 {
            self.known.store(Arc::default());
        }
    }

    /// Makes all that a version can have, whether or not a search has asked for it.
    pub fn complete(&self, collection: &Arc<Collection>) {
        self.want(collection);
        while !self.follow(collection) {}
    }

    /// Bytes of a row's sketch; 0 where there are none.
    pub fn row_bytes(&self) -> usize {
        self.known.load().basis.as_ref().map_or(0, |basis| basis.row_bytes())
    }

    /// Rows that have one.
    pub fn rows(&self) -> usize {
        self.known.load().chunks.values().map(|sketch| sketch.rows).sum()
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.known.load().chunks.values().map(|sketch| sketch.size_bytes()).sum::<usize>()
    }
}

/// Whether a chunk is to be sketched (again).
fn is_lacking(chunk: &Chunk, sketch: Option<&Arc<Sketch>>, basis: &Arc<Basis>) -> bool {
    let whole = chunk.len - chunk.len % BLOCK_ROWS;
    match sketch {
        None => whole >= MIN_ROWS,
        Some(sketch) => {
            !Arc::ptr_eq(&sketch.basis, basis)
                || whole * 100 >= sketch.rows * GROWN_PERCENTAGE
                || chunk.closed && whole > sketch.rows
        }
    }
}

/// The basis with which a scan costs least, if that is worth it.
fn learn(collection: &Arc<Collection>) -> Option<Basis> {
    let layout = &collection.params.layout;
    let step = collection.len().div_ceil(SAMPLE_ROWS).max(1);
    let rows = collection.live_rows().step_by(step).map(|row| collection.encoded(row));
    let sample: Vec<CodedRow<'_>> = rows.map(|(codes, scalars)| CodedRow { codes, scalars }).collect();
    let widths = ROW_BYTES.into_iter().filter(|&bytes| bytes * 2 <= layout.code_bytes());
    let directions = directions(layout.dim, &sample, widths.clone().max()?);
    let searches = searches(collection, &sample);
    let cost = |basis: &Basis, share: f64| {
        basis.row_bytes() as f64 + COMPARED_COST_BYTES + share * REACHED_COST_BYTES
    };
    let bases = widths.filter_map(|bytes| Basis::new(layout, &directions, bytes, &sample));
    let costs = bases.map(|basis| {
        let basis = Arc::new(basis);
        let share = reaching(&basis, &sample, &searches);
        (cost(&basis, share), basis)
    });
    let (cost, basis) = costs.min_by(|a, b| a.0.total_cmp(&b.0))?;
    (cost <= WORTH * layout.code_bytes() as f64).then(|| Arc::into_inner(basis)).flatten()
}

/// Some searches for rows of the sample, with the scores from codes that they end up asking for.
fn searches(collection: &Arc<Collection>, sample: &[CodedRow<'_>]) -> Vec<(Query, f32)> {
    let layout = &collection.params.layout;
    let rows = sample.iter().step_by(sample.len().div_ceil(SAMPLE_QUERIES).max(1));
    let request = |row: &CodedRow<'_>| SearchRequest {
        collection: Arc::clone(collection),
        query: Query::new(layout, &decode(layout, row.codes, &row.scalars)),
        count: SAMPLE_COUNT,
        effort: 0,
        exact: false,
        filter: None,
        trace: None,
    };
    let requests: Vec<SearchRequest> = rows.map(request).collect();
    let mut found: Vec<Found> = requests.iter().map(Found::new).collect();
    let mut scratch = Scratch::default();
    parts(&requests).iter().for_each(|part| scan(part, &requests, &mut found, &mut scratch));
    let asked = found.iter().map(|found| found.best.kth().unwrap_or(f32::NEG_INFINITY));
    requests.into_iter().map(|request| request.query).zip(asked).collect()
}

/// The part of the sample's rows that reach what the searches ask for.
fn reaching(basis: &Arc<Basis>, sample: &[CodedRow<'_>], searches: &[(Query, f32)]) -> f64 {
    let sketch = Sketch::new(basis, sample.len(), |at| sample[at]);
    let blocks = sketch.rows / BLOCK_ROWS;
    let mut rows = 0;
    for (query, score) in searches {
        let mut reached = vec![u64::MAX; blocks];
        if let Some(sketched) = query.sketched(basis) {
            let reach = Reach { codes: sketched.codes(), least: sketched.least(*score) };
            Kernel::active().reach(&[reach], basis.row_bytes(), sketch.lines(0..blocks), &mut reached);
        }
        let bits = reached.iter().enumerate().map(|(block, bits)| bits | sketch.always(block));
        rows += bits.map(|bits| bits.count_ones() as usize).sum::<usize>();
    }
    rows as f64 / (sketch.rows * searches.len()).max(1) as f64
}

#[cfg(test)]
#[path = "sketches_tests.rs"]
mod tests;
