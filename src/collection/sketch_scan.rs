//! Scanning by sketches: the sketches of a stretch of rows are read for all searches, then, for one search after the other, the codes
//! of the rows that reach.

use std::ops::Range;

use super::found::Found;
use super::scan::{MAX_BLOCK_ROWS, Scratch, Seat, copy_bits, score_live};
use super::search::Part;
use crate::vector::arena::Run;
use crate::vector::kernel::{BLOCK_ROWS, Kernel, Reach, prefetch};
use crate::vector::sketch::{Sketch, SketchQuery};

/// Bytes of codes whose sketches are read before thresholds are looked at again, at most: the rows that reach for one search stay
/// in the level-2 cache for the next.
const STRETCH_BYTES: usize = 256 << 10;
/// Searches from which on most rows are looked at by one of them: then they are fetched before.
const MANY_SEARCHES: usize = 32;

/// Scores those rows from their codes whose sketches say that they may be good enough, for the searches that use sketches.
pub(super) fn scan(
    part: &Part,
    sketch: &Sketch,
    rows: Range<usize>,
    seats: &[Seat<'_>],
    found: &mut [Found],
    scratch: &mut Scratch,
) {
    let searches: Vec<(usize, &SketchQuery)> = (seats.iter().enumerate())
        .filter_map(|(index, seat)| Some((index, seat.sketch.as_deref()?)))
        .collect();
    let Some(seat) = seats.first().filter(|_| !searches.is_empty()) else { return };
    let row_bytes = seat.request.collection.params.row_shape().scanned_bytes();
    let most = (STRETCH_BYTES / row_bytes).clamp(BLOCK_ROWS, MAX_BLOCK_ROWS).next_multiple_of(BLOCK_ROWS);
    let runs: Vec<Run<'_>> = part.chunk.rows.runs(part.chunk.len).collect();
    let mut at = rows.start;
    while at < rows.end {
        // Thresholds rise fast at first: they are looked at often, and more rarely once they have settled.
        let step = at.clamp(BLOCK_ROWS, most).min(rows.end - at);
        let blocks = at / BLOCK_ROWS..(at + step).div_ceil(BLOCK_ROWS);
        let reaches: Vec<Reach<'_>> = (searches.iter())
            .map(|&(index, query)| {
                let needed = found[index].needed(seats[index].request, sketch.residual_max, sketch.norm_max);
                Reach { codes: query.codes(), least: query.least(needed) }
            })
            .collect();
        let mut reached = std::mem::take(&mut scratch.reached);
        reached.resize(blocks.len() * reaches.len(), 0);
        let lines = sketch.lines(blocks.clone());
        Kernel::active().reach(&reaches, sketch.basis.row_bytes(), lines, &mut reached);
        let next = at + step..(at + 2 * step).min(rows.end);
        let part_of_next = if searches.len() < MANY_SEARCHES { 0 } else { step.div_ceil(searches.len()) };
        for (turn, &(index, _)) in searches.iter().enumerate() {
            let reached = &mut reached[turn * blocks.len()..][..blocks.len()];
            let mask = seats[index].mask.get((at - part.first) / BLOCK_ROWS..).unwrap_or(&[]);
            for (offset, bits) in reached.iter_mut().enumerate() {
                *bits = (*bits | sketch.always(blocks.start + offset)) & mask.get(offset).unwrap_or(&0);
            }
            look_closer(part, &runs, at..at + step, reached, &seats[index], &mut found[index], scratch);
            let ahead = next.start + turn * part_of_next;
            (ahead..(ahead + part_of_next).min(next.end))
                .for_each(|row| prefetch(part.chunk.rows.codes(row)));
        }
        scratch.reached = reached;
        at += step;
    }
}

/// Scores the rows of a stretch that have reached.
fn look_closer(
    part: &Part,
    runs: &[Run<'_>],
    rows: Range<usize>,
    reached: &[u64],
    seat: &Seat<'_>,
    found: &mut Found,
    scratch: &mut Scratch,
) {
    let begun = runs.partition_point(|run| run.first + run.scales.len() <= rows.start);
    for run in runs[begun..].iter().take_while(|run| run.first < rows.end) {
        let (first, end) = (run.first.max(rows.start), (run.first + run.scales.len()).min(rows.end));
        copy_bits(reached, first - rows.start, end - first, &mut scratch.live);
        score_live(part, &run.rows(first - run.first, end - run.first), seat, found, &scratch.live);
    }
}
