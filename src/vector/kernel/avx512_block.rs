//! Blocks of queries with AVX-512 VNNI.
//!
//! Sixteen rows are turned into columns of four bytes: lane r of register k holds bytes 4k..4k+4 of row r. Then one
//! `vpdpbusd` with four query bytes in every lane advances sixteen rows, and the sums come out one per lane, with nothing to
//! add up across lanes. Turning the rows costs about as much as one query; the block then serves all of them. Scores are made
//! and compared while the sums are in registers: only rows that pass are written anywhere.

use std::arch::x86_64::*;

use super::{Avx512Vnni, BLOCK_ROWS, Line, Passed, QueryCodes, Reach, Rows, Screen};

/// Rows in a register: one per 32-bit lane.
const LANES: usize = 16;
/// Lines of rows that are worked on together.
const GROUPS: usize = BLOCK_ROWS / LANES;
/// Queries that are worked on together: GROUPS x TILE_QUERIES sums stay in registers.
const TILE_QUERIES: usize = 4;
const WIDTH_BYTES: usize = 64;

/// Screens whole blocks of rows; answers how many rows that were. It has no target feature of its own, so that [`score`] is
/// not inlined into it: then the sums would not stay in registers, and blocks would take half as long again.
pub(super) fn screen(
    _proof: Avx512Vnni,
    screens: &[Screen<'_>],
    rows: Rows<'_>,
    passed: &mut Vec<Passed>,
) -> usize {
    let mut columns = vec![Line([0; WIDTH_BYTES]); GROUPS * rows.row_bytes / 4];
    let tiles = tiles(screens, |screen| screen.codes, rows.row_bytes / 4);
    let whole = rows.len() / BLOCK_ROWS * BLOCK_ROWS;
    for first in (0..whole).step_by(BLOCK_ROWS) {
        let rows = rows.range(first..first + BLOCK_ROWS);
        // SAFETY: the proof says that the CPU has AVX-512 F and VNNI.
        unsafe {
            turn(rows, &mut columns);
            score(&tiles, &Block::new(rows, &columns), passed);
        }
    }
    whole
}

/// See [`super::Kernel::reach`], which checks the lengths. No target feature of its own: as [`screen`].
pub(super) fn reach(
    _proof: Avx512Vnni,
    queries: &[Reach<'_>],
    block_lines: usize,
    lines: &[Line],
    reached: &mut [u64],
) {
    let blocks = lines.len() / block_lines;
    let tiles = tiles(queries, |query| query.codes, block_lines / GROUPS);
    for (tile, reached) in tiles.iter().zip(reached.chunks_mut(TILE_QUERIES * blocks)) {
        // SAFETY: the proof says that the CPU has AVX-512 F and VNNI.
        unsafe {
            match tile.queries {
                [a, b, c, d] => reach_tile([a, b, c, d], &tile.words, block_lines, lines, reached),
                [a, b, c] => reach_tile([a, b, c], &tile.words, block_lines, lines, reached),
                [a, b] => reach_tile([a, b], &tile.words, block_lines, lines, reached),
                [a] => reach_tile([a], &tile.words, block_lines, lines, reached),
                _ => unreachable!("a tile has one to four queries"),
            }
        }
    }
}

/// Sets the bits of the rows that reach, for a few queries.
#[target_feature(enable = "avx512f,avx512vnni")]
fn reach_tile<const N: usize>(
    queries: [&Reach<'_>; N],
    words: &[i32],
    block_lines: usize,
    lines: &[Line],
    reached: &mut [u64],
) {
    let blocks = lines.len() / block_lines;
    let (mut starts, mut least) = ([0; N], [_mm512_setzero_si512(); N]);
    for q in 0..N {
        starts[q] = -queries[q].codes.offset();
        least[q] = _mm512_set1_epi32(queries[q].least);
    }
    let words = words.as_chunks::<N>().0;
    for (at, block) in lines.chunks_exact(block_lines).enumerate() {
        let sums = tile_sums(words, starts, block);
        for (q, sums) in sums.iter().enumerate() {
            let mut bits = 0;
            for (g, &sums) in sums.iter().enumerate() {
                bits |= u64::from(_mm512_cmpge_epi32_mask(sums, least[q])) << (g * LANES);
            }
            reached[q * blocks + at] = bits;
        }
    }
}

/// At most TILE_QUERIES queries, with the words of their codes: the first of each, then the second of each, and so on.
struct Tile<'a, Q> {
    queries: &'a [Q],
    words: Vec<i32>,
}

fn tiles<'a, Q>(queries: &'a [Q], codes: impl Fn(&Q) -> &QueryCodes, steps: usize) -> Vec<Tile<'a, Q>> {
    let tile = |queries: &'a [Q]| {
        let mut words = vec![0; steps * queries.len()];
        for (q, query) in queries.iter().enumerate() {
            let fours = codes(query).codes().as_chunks::<4>().0;
            for (step, four) in words.chunks_exact_mut(queries.len()).zip(fours) {
                step[q] = i32::from_ne_bytes(four.map(i8::cast_unsigned));
            }
        }
        Tile { queries, words }
    };
    queries.chunks(TILE_QUERIES).map(tile).collect()
}

/// 64 turned rows.
struct Block<'a> {
    columns: &'a [Line],
    first: u32,
    scales: [[f32; LANES]; GROUPS],
    biases: [[f32; LANES]; GROUPS],
}

impl<'a> Block<'a> {
    fn new(rows: Rows<'_>, columns: &'a [Line]) -> Self {
        let mut block = Block {
            columns,
            first: rows.first,
            scales: [[0.0; LANES]; GROUPS],
            biases: [[0.0; LANES]; GROUPS],
        };
        for group in 0..GROUPS {
            block.scales[group].copy_from_slice(&rows.scales[group * LANES..][..LANES]);
            block.biases[group] = *rows.biases_at(group * LANES);
        }
        block
    }
}

impl Line {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn store(&mut self, value: __m512i) {
        // SAFETY: writes the 64 aligned bytes.
        unsafe { _mm512_store_si512(self.0.as_mut_ptr().cast(), value) };
    }
}

/// Turns 64 rows: `columns[k * GROUPS + g]` gets bytes 4k..4k+4 of rows 16g..16g+16.
#[target_feature(enable = "avx512f")]
fn turn(rows: Rows<'_>, columns: &mut [Line]) {
    let row_bytes = rows.row_bytes;
    for group in 0..GROUPS {
        for at in (0..row_bytes).step_by(WIDTH_BYTES) {
            let mut lines = [_mm512_setzero_si512(); LANES];
            for (lane, line) in lines.iter_mut().enumerate() {
                let start = (group * LANES + lane) * row_bytes + at;
                let bytes = &rows.codes[start..start + WIDTH_BYTES];
                // SAFETY: reads the 64 bytes of the slice.
                *line = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
            }
            for (k, column) in transpose(lines).into_iter().enumerate() {
                columns[(at / 4 + k) * GROUPS + group].store(column);
            }
        }
    }
}

/// Transposes 16 x 16 lanes of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: [__m512i; LANES]) -> [__m512i; LANES] {
    let mut pairs = [_mm512_setzero_si512(); LANES];
    for i in 0..LANES / 2 {
        pairs[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = [_mm512_setzero_si512(); LANES];
    for i in 0..LANES / 4 {
        let at = 4 * i;
        fours[at] = _mm512_unpacklo_epi64(pairs[at], pairs[at + 2]);
        fours[at + 1] = _mm512_unpackhi_epi64(pairs[at], pairs[at + 2]);
        fours[at + 2] = _mm512_unpacklo_epi64(pairs[at + 1], pairs[at + 3]);
        fours[at + 3] = _mm512_unpackhi_epi64(pairs[at + 1], pairs[at + 3]);
    }
    // Quarter c of fours[4i + j] holds lane 4c + j of rows 4i..4i+4: gather the quarters.
    let mut columns = [_mm512_setzero_si512(); LANES];
    for j in 0..4 {
        let low_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(fours[j], fours[4 + j]);
        let low_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(fours[j], fours[4 + j]);
        let high_even = _mm512_shuffle_i32x4::<0b10_00_10_00>(fours[8 + j], fours[12 + j]);
        let high_odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(fours[8 + j], fours[12 + j]);
        columns[j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low_even, high_even);
        columns[4 + j] = _mm512_shuffle_i32x4::<0b10_00_10_00>(low_odd, high_odd);
        columns[8 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low_even, high_even);
        columns[12 + j] = _mm512_shuffle_i32x4::<0b11_01_11_01>(low_odd, high_odd);
    }
    columns
}

/// Screens 64 turned rows for all queries.
#[target_feature(enable = "avx512f,avx512vnni")]
fn score(tiles: &[Tile<'_, Screen<'_>>], block: &Block<'_>, passed: &mut Vec<Passed>) {
    for (first, Tile { queries, words }) in (0..).step_by(TILE_QUERIES).zip(tiles) {
        match queries {
            [a, b, c, d] => score_tile(first, [a, b, c, d], words, block, passed),
            [a, b, c] => score_tile(first, [a, b, c], words, block, passed),
            [a, b] => score_tile(first, [a, b], words, block, passed),
            [a] => score_tile(first, [a], words, block, passed),
            _ => unreachable!("a tile has one to four queries"),
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn score_tile<const N: usize>(
    first: u32,
    screens: [&Screen<'_>; N],
    words: &[i32],
    block: &Block<'_>,
    passed: &mut Vec<Passed>,
) {
    let mut starts = [0; N];
    for q in 0..N {
        starts[q] = -screens[q].codes.offset();
    }
    let sums = tile_sums(words.as_chunks::<N>().0, starts, block.columns);
    for ((query, screen), sums) in (first..).zip(screens).zip(&sums) {
        compare(query, screen, sums, block, passed);
    }
}

/// Turns sums into scores and notes those that pass.
#[inline]
#[target_feature(enable = "avx512f")]
fn compare(
    query: u32,
    screen: &Screen<'_>,
    sums: &[__m512i; GROUPS],
    block: &Block<'_>,
    passed: &mut Vec<Passed>,
) {
    let (factor, offset) = (_mm512_set1_ps(screen.factor), _mm512_set1_ps(screen.offset));
    let threshold = _mm512_set1_ps(screen.threshold);
    let mut scores = [_mm512_setzero_ps(); GROUPS];
    let mut passing = 0u64;
    for g in 0..GROUPS {
        // SAFETY: both read the 64 bytes of an array.
        let (scale, bias) =
            unsafe { (_mm512_loadu_ps(block.scales[g].as_ptr()), _mm512_loadu_ps(block.biases[g].as_ptr())) };
        // In the same order as the plain kernel, so that scores are equal to the last bit.
        let product = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[g]), scale), factor);
        scores[g] = _mm512_add_ps(_mm512_add_ps(product, bias), offset);
        let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores[g], threshold);
        passing |= u64::from(mask) << (g * LANES);
    }
    if passing != 0 {
        note(query, &scores, passing, block.first, passed);
    }
}

/// Writes down the rows whose bits are set.
#[cold]
#[target_feature(enable = "avx512f")]
fn note(query: u32, scores: &[__m512; GROUPS], mut passing: u64, first: u32, passed: &mut Vec<Passed>) {
    let mut written = [0.0f32; BLOCK_ROWS];
    for (scores, written) in scores.iter().zip(written.as_chunks_mut::<LANES>().0) {
        // SAFETY: writes the 64 bytes of the array.
        unsafe { _mm512_storeu_ps(written.as_mut_ptr(), *scores) };
    }
    while passing != 0 {
        let row = passing.trailing_zeros();
        passing &= passing - 1;
        passed.push(Passed { query, row: first + row, score: written[row as usize] });
    }
}

/// Dot products of 64 turned rows with a few queries, whose sums begin with what the row bytes have too much.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn tile_sums<const N: usize>(
    words: &[[i32; N]],
    starts: [i32; N],
    columns: &[Line],
) -> [[__m512i; GROUPS]; N] {
    let mut sums = [[_mm512_setzero_si512(); GROUPS]; N];
    for q in 0..N {
        sums[q] = [_mm512_set1_epi32(starts[q]); GROUPS];
    }
    for (rows, words) in columns.as_chunks::<GROUPS>().0.iter().zip(words) {
        let mut lines = [_mm512_setzero_si512(); GROUPS];
        for g in 0..GROUPS {
            // SAFETY: reads the 64 aligned bytes of one entry.
            lines[g] = unsafe { _mm512_load_si512(rows[g].0.as_ptr().cast()) };
        }
        for q in 0..N {
            let four = _mm512_set1_epi32(words[q]);
            for g in 0..GROUPS {
                sums[q][g] = _mm512_dpbusd_epi32(sums[q][g], lines[g], four);
            }
        }
    }
    sums
}
