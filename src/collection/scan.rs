//! Scoring the rows of one part of a pass against all its searches.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::RowId;
use super::found::Found;
use super::search::{Part, SearchRequest, mask};
use super::sketch_scan;
use crate::vector::arena::Run;
use crate::vector::kernel::{BLOCK_ROWS, Kernel, Passed, Screen};
use crate::vector::sketch::{Sketch, SketchQuery};

/// Bytes of codes that are scored against all waiting queries before moving on: stays in the level-2 cache.
const BLOCK_BYTES: usize = 128 << 10;
/// Rows a block has at most.
pub(super) const MAX_BLOCK_ROWS: usize = 4096;
/// Where fewer than one row in this many passes, a search does not share: most of the work would be in vain.
const SPARSE_ROWS: usize = 8;
/// Queries from which a block of rows is screened for all of them at once.
const MIN_SHARED: usize = 4;

/// Rows that are screened before thresholds are looked at again, at most.
const MAX_SCREENED_ROWS: usize = 1024;

/// Memory that is used again from block to block.
#[derive(Default)]
pub(super) struct Scratch {
    pub live: Vec<u64>,
    passed: Vec<Passed>,
    /// Bits of the rows of a stretch that reach, for one search after the other.
    pub reached: Vec<u64>,
}

/// A search's part in a pass.
pub(super) struct Seat<'a> {
    pub request: &'a SearchRequest,
    /// Rows of the part that may be in its answer.
    pub mask: Cow<'a, [u64]>,
    /// So many may that all are scored, together with other searches.
    shared: bool,
    /// As many, and the rows have sketches.
    pub sketch: Option<Arc<SketchQuery>>,
}

/// Scores a part's rows against all searches.
pub(super) fn scan(part: &Part, requests: &[SearchRequest], found: &mut [Found], scratch: &mut Scratch) {
    let sketch = sketch_of(part, requests.first());
    let seat = |request| Seat::new(part, request, mask(part, request), sketch.as_deref());
    let mut seats: Vec<Seat<'_>> = requests.iter().map(seat).collect();
    if seats.iter().filter(|seat| seat.shared).count() < MIN_SHARED {
        seats.iter_mut().for_each(|seat| seat.shared = false);
    }
    scan_for(part, sketch.as_deref(), &seats, found, scratch);
}

/// The same for one search by itself; bits of `mask` say which of the part's rows may be in its answer.
pub(super) fn scan_masked(
    part: &Part,
    request: &SearchRequest,
    mask: &[u64],
    found: &mut Found,
    scratch: &mut Scratch,
) {
    let sketch = sketch_of(part, Some(request));
    let seat = Seat::new(part, request, Cow::Borrowed(mask), sketch.as_deref());
    let seat = Seat { shared: false, ..seat };
    scan_for(part, sketch.as_deref(), &[seat], std::slice::from_mut(found), scratch);
}

fn sketch_of(part: &Part, request: Option<&SearchRequest>) -> Option<Arc<Sketch>> {
    request?.collection.sketches.of(part.chunk.number).filter(|sketch| sketch.rows > part.first)
}

/// First the rows that have sketches, for searches that use them, then the others.
fn scan_for(
    part: &Part,
    sketch: Option<&Sketch>,
    seats: &[Seat<'_>],
    found: &mut [Found],
    scratch: &mut Scratch,
) {
    let mut first = part.first;
    if let Some(sketch) = sketch {
        let end = sketch.rows.min(part.end);
        if seats.iter().any(|seat| seat.sketch.is_some()) {
            sketch_scan::scan(part, sketch, first..end, seats, found, scratch);
        }
        scan_codes(part, first..end, seats, found, scratch, |seat| seat.sketch.is_none());
        first = end;
    }
    scan_codes(part, first..part.end, seats, found, scratch, |_| true);
}

/// Scores rows from their codes, for searches that are not told to stay out.
fn scan_codes(
    part: &Part,
    rows: Range<usize>,
    seats: &[Seat<'_>],
    found: &mut [Found],
    scratch: &mut Scratch,
    takes_part: impl Fn(&Seat<'_>) -> bool,
) {
    let Some(seat) = seats.iter().find(|seat| takes_part(seat)).filter(|_| !rows.is_empty()) else { return };
    let shape = seat.request.collection.params.row_shape();
    let block_rows =
        (BLOCK_BYTES / shape.scanned_bytes().max(1)).next_multiple_of(BLOCK_ROWS).min(MAX_BLOCK_ROWS);
    let shared: Vec<usize> =
        (0..seats.len()).filter(|&index| seats[index].shared && takes_part(&seats[index])).collect();
    for run in part.chunk.rows.runs(part.chunk.len) {
        let run_end = run.first + run.scales.len();
        let (mut at, end) = (run.first.max(rows.start), run_end.min(rows.end));
        while at < end {
            let rows = block_rows.min(end - at);
            let block = run.rows(at - run.first, at - run.first + rows);
            screen_shared(part, &block, seats, &shared, found, scratch);
            let alone = seats.iter().zip(found.iter_mut());
            alone
                .filter(|(seat, _)| !seat.shared && takes_part(seat))
                .for_each(|(seat, found)| scan_alone(part, &block, seat, found, &mut scratch.live));
            at += rows;
        }
    }
}

impl<'a> Seat<'a> {
    fn new(part: &Part, request: &'a SearchRequest, mask: Cow<'a, [u64]>, sketch: Option<&Sketch>) -> Self {
        let passing: usize = mask.iter().map(|word| word.count_ones() as usize).sum();
        let dense = passing * SPARSE_ROWS >= part.end - part.first;
        let shared = dense && !request.exact && request.query.screen(0.0).is_some();
        let sketch = sketch.filter(|_| dense).and_then(|sketch| request.query.sketched(&sketch.basis));
        Self { request, mask, shared, sketch }
    }
}

/// Finds the rows of a block that are good enough for each of the searches that share it.
fn screen_shared(
    part: &Part,
    block: &Run<'_>,
    seats: &[Seat<'_>],
    shared: &[usize],
    found: &mut [Found],
    scratch: &mut Scratch,
) {
    if shared.is_empty() {
        return;
    }
    let rows = block.scales.len();
    let mut at = 0;
    while at < rows {
        // Thresholds rise fast at first: they are looked at often, and more rarely once they have settled.
        let step = (block.first + at)
            .next_multiple_of(BLOCK_ROWS)
            .clamp(BLOCK_ROWS, MAX_SCREENED_ROWS)
            .min(rows - at);
        let stretch = block.rows(at, at + step);
        let screens = shared.iter().filter_map(|&index| {
            let threshold = found[index].best.threshold();
            seats[index].request.query.screen(threshold)
        });
        let screens: Vec<Screen<'_>> = screens.collect();
        scratch.passed.clear();
        Kernel::active().screen(&screens, stretch.codes, stretch.scales, stretch.biases, &mut scratch.passed);
        let first_row = RowId::new(part.chunk.number, 0).0 + stretch.first as u64;
        for passed in &scratch.passed {
            let index = shared[passed.query as usize];
            let bit = stretch.first - part.first + passed.row as usize;
            if seats[index].mask.get(bit / 64).is_some_and(|word| word >> (bit % 64) & 1 == 1) {
                found[index].push(passed.score, first_row + u64::from(passed.row));
            }
        }
        at += step;
    }
}

/// Scores a block for one search.
fn scan_alone(part: &Part, block: &Run<'_>, seat: &Seat<'_>, found: &mut Found, live: &mut Vec<u64>) {
    copy_bits(&seat.mask, block.first - part.first, block.scales.len(), live);
    score_live(part, block, seat, found, live);
}

/// Scores the live rows of a block for one search.
pub(super) fn score_live(part: &Part, block: &Run<'_>, seat: &Seat<'_>, found: &mut Found, live: &[u64]) {
    if live.iter().all(|&word| word == 0) {
        return;
    }
    let first_row = RowId::new(part.chunk.number, 0).0 + block.first as u64;
    let query = &seat.request.query;
    if seat.request.exact {
        found.prove(query, block, live, first_row);
    } else {
        found.pick(query, block, live, first_row);
    }
}

/// Bits `start..start + len` of a bitmap, moved to begin at bit 0.
pub(super) fn copy_bits(bitmap: &[u64], start: usize, len: usize, words: &mut Vec<u64>) {
    let word_at = |index: usize| bitmap.get(index).copied().unwrap_or(0);
    let shift = start % 64;
    words.clear();
    for index in 0..len.div_ceil(64) {
        let at = start / 64 + index;
        let low = word_at(at) >> shift;
        let high = if shift == 0 { 0 } else { word_at(at + 1) << (64 - shift) };
        words.push(low | high);
    }
    if let (Some(last), tail @ 1..) = (words.last_mut(), len % 64) {
        *last &= (1 << tail) - 1;
    }
}
