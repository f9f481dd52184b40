//! Blocks of queries with 256-bit registers, for AVX2 and AVX-VNNI.
//!
//! As in [`super::avx512_block`], rows are turned into columns first: a lane of a register holds a few neighbouring
//! components of one row, so that the sums of eight rows come out one per lane. How many components a lane takes, and how they
//! are multiplied, is what the two instruction sets differ in: the trait [`Columns`].

use std::arch::x86_64::*;

use super::{BLOCK_LINES, Line, Passed, QueryCodes, Reach, Rows, Screen};

/// Rows in a register: one per 32-bit lane.
const LANES: usize = 8;
/// Registers of rows that are worked on together.
pub(super) const GROUPS: usize = 2;
/// Rows that are worked on together.
const TURNED_ROWS: usize = LANES * GROUPS;
/// Queries that are worked on together: GROUPS x TILE_QUERIES sums stay in registers. Few rows and many queries rather than
/// the other way round, so that the columns of longer rows stay in the level-1 cache.
const TILE_QUERIES: usize = 4;
const WIDTH_BYTES: usize = 32;

/// How an instruction set multiplies columns.
pub(super) trait Columns {
    /// Components of a row that are multiplied in one step: two or four.
    const COMPONENTS: usize;

    /// The query's codes, as many to a word as a step takes.
    fn words(query: &QueryCodes) -> impl Iterator<Item = i32>;

    /// Stores four bytes of each of eight rows as columns of one group: those of `4 / COMPONENTS` steps.
    ///
    /// # Safety
    /// The CPU must have the instruction set.
    unsafe fn store(fours: __m256i, steps: &mut [[Register; GROUPS]], group: usize);

    /// Dot products of turned rows with a few queries, less the queries' offsets. `words` has those of one step together.
    ///
    /// # Safety
    /// The CPU must have the instruction set.
    unsafe fn sums<const N: usize>(
        words: &[[i32; N]],
        offsets: [i32; N],
        steps: &[[Register; GROUPS]],
    ) -> [[__m256i; GROUPS]; N];
}

/// A register's worth of bytes.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(super) struct Register([u8; WIDTH_BYTES]);

impl Register {
    #[inline]
    #[target_feature(enable = "avx2")]
    pub(super) fn store(&mut self, value: __m256i) {
        // SAFETY: writes the 32 aligned bytes.
        unsafe { _mm256_store_si256(self.0.as_mut_ptr().cast(), value) };
    }
}

/// Turned rows.
struct Block<'a> {
    steps: &'a [[Register; GROUPS]],
    first: u32,
    scales: [[f32; LANES]; GROUPS],
    biases: [[f32; LANES]; GROUPS],
}

/// At most TILE_QUERIES queries with their codes: the first word of each, then the second of each, and so on.
struct Tile<'a> {
    first: usize,
    screens: &'a [Screen<'a>],
    words: Vec<i32>,
}

impl<'a> Tile<'a> {
    fn new<C: Columns>(first: usize, screens: &'a [Screen<'a>]) -> Self {
        let codes: Vec<&QueryCodes> = screens.iter().map(|screen| screen.codes).collect();
        Tile { first, screens, words: words::<C>(&codes) }
    }
}

/// The codes of a few queries: the first word of each, then the second of each, and so on.
fn words<C: Columns>(queries: &[&QueryCodes]) -> Vec<i32> {
    let row_bytes = queries[0].codes().len();
    let mut words = vec![0; row_bytes / C::COMPONENTS * queries.len()];
    for (at, query) in queries.iter().enumerate() {
        for (step, word) in words.chunks_exact_mut(queries.len()).zip(C::words(query)) {
            step[at] = word;
        }
    }
    words
}

/// Screens whole blocks of rows; answers how many rows that were.
///
/// # Safety
/// The CPU must have the instruction set of `C`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn screen<C: Columns>(
    screens: &[Screen<'_>],
    rows: Rows<'_>,
    passed: &mut Vec<Passed>,
) -> usize {
    let tiles = (0..).step_by(TILE_QUERIES).zip(screens.chunks(TILE_QUERIES));
    let tiles: Vec<Tile<'_>> = tiles.map(|(first, screens)| Tile::new::<C>(first, screens)).collect();
    let mut steps = vec![[Register([0; WIDTH_BYTES]); GROUPS]; rows.row_bytes / C::COMPONENTS];
    let whole = rows.len() / TURNED_ROWS * TURNED_ROWS;
    for first in (0..whole).step_by(TURNED_ROWS) {
        let rows = rows.range(first..first + TURNED_ROWS);
        // SAFETY: the caller has the instruction set.
        unsafe {
            turn::<C>(rows, &mut steps);
            score::<C>(&tiles, &Block::new(rows, &steps), passed);
        }
    }
    whole
}

/// See [`super::Kernel::reach`], which checks the lengths.
///
/// # Safety
/// The CPU must have the instruction set of `C`.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn reach<C: Columns>(
    queries: &[Reach<'_>],
    block_lines: usize,
    lines: &[Line],
    reached: &mut [u64],
) {
    let blocks = lines.len() / block_lines;
    let per_four = 4 / C::COMPONENTS;
    let mut steps = vec![[Register([0; WIDTH_BYTES]); GROUPS]; block_lines / BLOCK_LINES * per_four];
    let tiles: Vec<(&[Reach<'_>], Vec<i32>)> = queries
        .chunks(TILE_QUERIES)
        .map(|tile| (tile, words::<C>(&tile.iter().map(|query| query.codes).collect::<Vec<_>>())))
        .collect();
    reached.fill(0);
    for (block, lines) in lines.chunks_exact(block_lines).enumerate() {
        for turned in 0..BLOCK_LINES {
            let lines = lines.iter().skip(turned).step_by(BLOCK_LINES);
            for (line, targets) in lines.zip(steps.chunks_exact_mut(per_four)) {
                for (group, bytes) in line.0.as_chunks::<WIDTH_BYTES>().0.iter().enumerate() {
                    // SAFETY: reads the 32 bytes of the array; the caller has the instruction set.
                    unsafe { C::store(_mm256_loadu_si256(bytes.as_ptr().cast()), targets, group) };
                }
            }
            for ((tile, words), reached) in tiles.iter().zip(reached.chunks_mut(TILE_QUERIES * blocks)) {
                let mut note = |q: usize, bits: u32| {
                    reached[q * blocks + block] |= u64::from(bits) << (turned * TURNED_ROWS);
                };
                // SAFETY: the caller has the instruction set.
                unsafe {
                    match *tile {
                        [a, b, c, d] => reach_tile::<C, 4>([a, b, c, d], words, &steps, &mut note),
                        [a, b, c] => reach_tile::<C, 3>([a, b, c], words, &steps, &mut note),
                        [a, b] => reach_tile::<C, 2>([a, b], words, &steps, &mut note),
                        [a] => reach_tile::<C, 1>([a], words, &steps, &mut note),
                        _ => unreachable!("a tile has one to four queries"),
                    }
                }
            }
        }
    }
}

/// Notes for each of a few queries the bits of the turned rows that reach.
///
/// # Safety
/// The CPU must have the instruction set of `C`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn reach_tile<C: Columns, const N: usize>(
    queries: [&Reach<'_>; N],
    words: &[i32],
    steps: &[[Register; GROUPS]],
    note: &mut impl FnMut(usize, u32),
) {
    let offsets = queries.map(|query| query.codes.offset());
    // SAFETY: the caller has the instruction set.
    let sums = unsafe { C::sums(words.as_chunks().0, offsets, steps) };
    for (q, (query, sums)) in queries.iter().zip(&sums).enumerate() {
        let least = _mm256_set1_epi32(query.least);
        let mut bits = 0;
        for (group, &sums) in sums.iter().enumerate() {
            // Rows that do not: less is greater the other way round.
            let below = _mm256_castsi256_ps(_mm256_cmpgt_epi32(least, sums));
            bits |= (!_mm256_movemask_ps(below).cast_unsigned() & 0xff) << (group * LANES);
        }
        note(q, bits);
    }
}

impl<'a> Block<'a> {
    fn new(rows: Rows<'_>, steps: &'a [[Register; GROUPS]]) -> Self {
        let (scales, biases) = ([[0.0; LANES]; GROUPS], [[0.0; LANES]; GROUPS]);
        let mut block = Block { steps, first: rows.first, scales, biases };
        for group in 0..GROUPS {
            block.scales[group].copy_from_slice(&rows.scales[group * LANES..][..LANES]);
            block.biases[group] = *rows.biases_at(group * LANES);
        }
        block
    }
}

/// Turns rows into the columns of `C`.
///
/// # Safety
/// The CPU must have the instruction set of `C`.
#[target_feature(enable = "avx2")]
unsafe fn turn<C: Columns>(rows: Rows<'_>, steps: &mut [[Register; GROUPS]]) {
    let per_four = 4 / C::COMPONENTS;
    for group in 0..GROUPS {
        let targets = steps.chunks_exact_mut(LANES * per_four);
        for (at, targets) in (0..rows.row_bytes).step_by(WIDTH_BYTES).zip(targets) {
            let mut lines = [_mm256_setzero_si256(); LANES];
            for (lane, line) in lines.iter_mut().enumerate() {
                let start = (group * LANES + lane) * rows.row_bytes + at;
                let bytes = &rows.codes[start..start + WIDTH_BYTES];
                // SAFETY: reads the 32 bytes of the slice.
                *line = unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) };
            }
            for (fours, targets) in transpose(lines).into_iter().zip(targets.chunks_exact_mut(per_four)) {
                // SAFETY: the caller has the instruction set.
                unsafe { C::store(fours, targets, group) };
            }
        }
    }
}

/// Transposes 8 x 8 lanes of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn transpose(rows: [__m256i; LANES]) -> [__m256i; LANES] {
    let mut pairs = [_mm256_setzero_si256(); LANES];
    for i in 0..LANES / 2 {
        pairs[2 * i] = _mm256_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    let mut columns = [_mm256_setzero_si256(); LANES];
    for half in 0..2 {
        // Half c of these holds lane 4c + j of rows 0..4 (low) and rows 4..8 (high).
        let fours = |at: usize| {
            let (a, b) = (pairs[at + half], pairs[at + 2 + half]);
            [_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)]
        };
        let (low, high) = (fours(0), fours(4));
        for odd in 0..2 {
            let j = 2 * half + odd;
            columns[j] = _mm256_permute2x128_si256::<0x20>(low[odd], high[odd]);
            columns[4 + j] = _mm256_permute2x128_si256::<0x31>(low[odd], high[odd]);
        }
    }
    columns
}

/// Screens turned rows for all queries.
///
/// # Safety
/// The CPU must have the instruction set of `C`.
#[target_feature(enable = "avx2")]
unsafe fn score<C: Columns>(tiles: &[Tile<'_>], block: &Block<'_>, passed: &mut Vec<Passed>) {
    for tile in tiles {
        // SAFETY: the caller has the instruction set.
        unsafe {
            match tile.screens {
                [a, b, c, d] => score_tile::<C, 4>(tile, [a, b, c, d], block, passed),
                [a, b, c] => score_tile::<C, 3>(tile, [a, b, c], block, passed),
                [a, b] => score_tile::<C, 2>(tile, [a, b], block, passed),
                [a] => score_tile::<C, 1>(tile, [a], block, passed),
                _ => unreachable!("a tile has one to four queries"),
            }
        }
    }
}

/// # Safety
/// The CPU must have the instruction set of `C`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn score_tile<C: Columns, const N: usize>(
    tile: &Tile<'_>,
    screens: [&Screen<'_>; N],
    block: &Block<'_>,
    passed: &mut Vec<Passed>,
) {
    let offsets = screens.map(|screen| screen.codes.offset());
    // SAFETY: the caller has the instruction set.
    let sums = unsafe { C::sums(tile.words.as_chunks().0, offsets, block.steps) };
    for ((query, screen), sums) in (tile.first..).zip(screens).zip(&sums) {
        compare(query, screen, sums, block, passed);
    }
}

/// What [`Columns::sums`] does, by a step that adds the products of a register of columns (second argument) and the
/// query's word in every lane (third) to eight sums.
///
/// # Safety
/// To be called where AVX2 is enabled. It is inlined there, and so are the intrinsics and the step.
#[inline(always)]
pub(super) unsafe fn sums_by<const N: usize>(
    words: &[[i32; N]],
    offsets: [i32; N],
    steps: &[[Register; GROUPS]],
    step: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) -> [[__m256i; GROUPS]; N] {
    // SAFETY: AVX2 is enabled; the loads read the 32 aligned bytes of one entry.
    unsafe {
        let mut sums = [[_mm256_setzero_si256(); GROUPS]; N];
        for q in 0..N {
            // What the row bytes have too much is taken off first.
            sums[q] = [_mm256_set1_epi32(-offsets[q]); GROUPS];
        }
        for (rows, words) in steps.iter().zip(words) {
            let mut lines = [_mm256_setzero_si256(); GROUPS];
            for g in 0..GROUPS {
                lines[g] = _mm256_load_si256(rows[g].0.as_ptr().cast());
            }
            for q in 0..N {
                let word = _mm256_set1_epi32(words[q]);
                for g in 0..GROUPS {
                    sums[q][g] = step(sums[q][g], lines[g], word);
                }
            }
        }
        sums
    }
}

/// Turns sums into scores and notes those that pass.
#[inline]
#[target_feature(enable = "avx2")]
fn compare(
    query: usize,
    screen: &Screen<'_>,
    sums: &[__m256i; GROUPS],
    block: &Block<'_>,
    passed: &mut Vec<Passed>,
) {
    let (factor, offset) = (_mm256_set1_ps(screen.factor), _mm256_set1_ps(screen.offset));
    let threshold = _mm256_set1_ps(screen.threshold);
    let mut scores = [_mm256_setzero_ps(); GROUPS];
    let mut passing = 0u32;
    for g in 0..GROUPS {
        // SAFETY: both read the 32 bytes of an array.
        let (scale, bias) =
            unsafe { (_mm256_loadu_ps(block.scales[g].as_ptr()), _mm256_loadu_ps(block.biases[g].as_ptr())) };
        // In the same order as the plain kernel, so that scores are equal to the last bit.
        let product = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums[g]), scale), factor);
        scores[g] = _mm256_add_ps(_mm256_add_ps(product, bias), offset);
        let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(scores[g], threshold));
        passing |= mask.cast_unsigned() << (g * LANES);
    }
    if passing != 0 {
        note(query, &scores, passing, block.first, passed);
    }
}

/// Writes down the rows whose bits are set.
#[cold]
#[target_feature(enable = "avx2")]
fn note(query: usize, scores: &[__m256; GROUPS], mut passing: u32, first: u32, passed: &mut Vec<Passed>) {
    let mut written = [[0.0f32; LANES]; GROUPS];
    for (scores, written) in scores.iter().zip(&mut written) {
        // SAFETY: writes the 32 bytes of the array.
        unsafe { _mm256_storeu_ps(written.as_mut_ptr(), *scores) };
    }
    let query = u32::try_from(query).unwrap_or_else(|_| unreachable!("far fewer queries share a pass"));
    while passing != 0 {
        let row = passing.trailing_zeros();
        passing &= passing - 1;
        passed.push(Passed { query, row: first + row, score: written.as_flattened()[row as usize] });
    }
}
