//! Scoring the rows of one part of a pass against all its searches.

use std::borrow::Cow;

use super::RowId;
use super::found::Found;
use super::search::{Part, SearchRequest, mask};
use crate::vector::arena::Run;
use crate::vector::kernel::{BLOCK_ROWS, Kernel, Passed, Screen};

/// Bytes of codes that are scored against all waiting queries before moving on: stays in the level-2 cache.
const BLOCK_BYTES: usize = 128 << 10;
/// Rows a block has at most.
const MAX_BLOCK_ROWS: usize = 4096;
/// Where fewer than one row in this many passes, a search does not share: most of the work would be in vain.
const SPARSE_ROWS: usize = 8;
/// Queries from which a block of rows is screened for all of them at once.
const MIN_SHARED: usize = 4;

/// Rows that are screened before thresholds are looked at again, at most.
const MAX_SCREENED_ROWS: usize = 1024;

/// Memory that is used again from block to block.
#[derive(Default)]
pub(super) struct Scratch {
    live: Vec<u64>,
    passed: Vec<Passed>,
}

/// A search's part in a pass.
struct Seat<'a> {
    request: &'a SearchRequest,
    /// Rows of the part that may be in its answer.
    mask: Cow<'a, [u64]>,
    /// So many may that all are scored, together with other searches.
    shared: bool,
}

/// Scores a part's rows against all searches.
pub(super) fn scan(part: &Part, requests: &[SearchRequest], found: &mut [Found], scratch: &mut Scratch) {
    let mut seats: Vec<Seat<'_>> = requests.iter().map(|request| Seat::new(part, request)).collect();
    if seats.iter().filter(|seat| seat.shared).count() < MIN_SHARED {
        seats.iter_mut().for_each(|seat| seat.shared = false);
    }
    scan_for(part, &seats, found, scratch);
}

/// The same for one search by itself; bits of `mask` say which of the part's rows may be in its answer.
pub(super) fn scan_masked(
    part: &Part,
    request: &SearchRequest,
    mask: &[u64],
    found: &mut Found,
    scratch: &mut Scratch,
) {
    let seat = Seat { request, mask: Cow::Borrowed(mask), shared: false };
    scan_for(part, &[seat], std::slice::from_mut(found), scratch);
}

fn scan_for(part: &Part, seats: &[Seat<'_>], found: &mut [Found], scratch: &mut Scratch) {
    let Some(seat) = seats.first() else { return };
    let shape = seat.request.collection.params.row_shape();
    let block_rows =
        (BLOCK_BYTES / shape.scanned_bytes().max(1)).next_multiple_of(BLOCK_ROWS).min(MAX_BLOCK_ROWS);
    for run in part.chunk.rows.runs(part.chunk.len) {
        let run_end = run.first + run.scales.len();
        let (mut at, end) = (run.first.max(part.first), run_end.min(part.end));
        while at < end {
            let rows = block_rows.min(end - at);
            let block = run.rows(at - run.first, at - run.first + rows);
            screen_shared(part, &block, seats, found, scratch);
            let alone = seats.iter().zip(found.iter_mut()).filter(|(seat, _)| !seat.shared);
            alone.for_each(|(seat, found)| scan_alone(part, &block, seat, found, &mut scratch.live));
            at += rows;
        }
    }
}

impl<'a> Seat<'a> {
    fn new(part: &Part, request: &'a SearchRequest) -> Self {
        let mask = mask(part, request);
        let passing: usize = mask.iter().map(|word| word.count_ones() as usize).sum();
        let dense = passing * SPARSE_ROWS >= part.end - part.first;
        let shared = dense && !request.exact && request.query.screen(0.0).is_some();
        Self { request, mask, shared }
    }
}

/// Finds the rows of a block that are good enough for each of the searches that share it.
fn screen_shared(
    part: &Part,
    block: &Run<'_>,
    seats: &[Seat<'_>],
    found: &mut [Found],
    scratch: &mut Scratch,
) {
    let shared: Vec<usize> = (0..seats.len()).filter(|&index| seats[index].shared).collect();
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
                found[index].best.push(passed.score, first_row + u64::from(passed.row));
            }
        }
        at += step;
    }
}

/// Scores a block for one search.
fn scan_alone(part: &Part, block: &Run<'_>, seat: &Seat<'_>, found: &mut Found, live: &mut Vec<u64>) {
    copy_bits(&seat.mask, block.first - part.first, block.scales.len(), live);
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
fn copy_bits(bitmap: &[u64], start: usize, len: usize, words: &mut Vec<u64>) {
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
