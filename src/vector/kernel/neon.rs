//! NEON, the 128-bit instructions of 64-bit ARM, without and with the dot product extension.
//!
//! Row bytes become signed by flipping their highest bit. Without the extension products are made with 16 bits, and pairs
//! of them added: |v| <= 128 and |q| <= 127, so a pair is at most 2 * 128 * 127 = 32,512. With it, `sdot` adds four products
//! to each of four 32-bit sums. Blocks of queries are scored four by four with four rows: 16 sums stay in the 32 registers.

use std::arch::aarch64::*;
use std::arch::asm;
use std::arch::is_aarch64_feature_detected;

use super::{BLOCK_LINES, CODE_OFFSET, LINE_CODES, LINE_ROWS, Line, Passed, QueryCodes, Reach, Rows, Screen};

/// Bytes in a register.
const WIDTH_BYTES: usize = 16;
/// Rows that are worked on together, and queries.
const TILE: usize = 4;

/// Proof that the CPU has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neon(());

/// Proof that the CPU has NEON and its dot product extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeonDot(());

impl Neon {
    /// `None` if this CPU lacks the instructions.
    pub fn new() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Neon(()))
    }
}

impl NeonDot {
    /// `None` if this CPU lacks the instructions.
    pub fn new() -> Option<Self> {
        (Neon::new().is_some() && is_aarch64_feature_detected!("dotprod")).then_some(NeonDot(()))
    }
}

/// How rows and queries are multiplied.
pub(super) trait Products: Copy {
    /// Lane-wise sums of products of R rows with N queries; `sums[q][r]`. All are equally long.
    ///
    /// # Safety
    /// The CPU must have the instructions.
    unsafe fn sums<const R: usize, const N: usize>(
        rows: [&[u8]; R],
        queries: [&[i8]; N],
    ) -> [[int32x4_t; R]; N];

    /// See [`super::Kernel::dot_rows`], which checks the lengths.
    fn dot_rows(self, query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
        let (query, row_bytes) = (query.codes(), query.codes().len());
        for (rows, out) in rows.chunks(TILE * row_bytes).zip(out.chunks_mut(TILE)) {
            // SAFETY: holding `self` proves the instructions.
            unsafe {
                if let Ok(out) = <&mut [i32; TILE]>::try_from(&mut *out) {
                    let [sums] = Self::sums(tile_of(rows, row_bytes), [query]);
                    vst1q_s32(out.as_mut_ptr(), add_lanes(sums));
                } else {
                    for (row, out) in rows.chunks_exact(row_bytes).zip(out) {
                        *out = vaddvq_s32(Self::sums([row], [query])[0][0]);
                    }
                }
            }
        }
    }

    /// See [`super::Kernel::screen_blocks`].
    fn screen(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        let whole = rows.len() / TILE * TILE;
        for first in (0..whole).step_by(TILE) {
            let rows = rows.range(first..first + TILE);
            for (at, tile) in (0..).step_by(TILE).zip(screens.chunks(TILE)) {
                // SAFETY: holding `self` proves the instructions.
                unsafe {
                    match tile {
                        [a, b, c, d] => score::<Self, 4>(at, [a, b, c, d], rows, passed),
                        [a, b, c] => score::<Self, 3>(at, [a, b, c], rows, passed),
                        [a, b] => score::<Self, 2>(at, [a, b], rows, passed),
                        [a] => score::<Self, 1>(at, [a], rows, passed),
                        _ => unreachable!("a tile has one to four queries"),
                    }
                }
            }
        }
        whole
    }
}

impl Products for Neon {
    #[target_feature(enable = "neon")]
    unsafe fn sums<const R: usize, const N: usize>(
        rows: [&[u8]; R],
        queries: [&[i8]; N],
    ) -> [[int32x4_t; R]; N] {
        let step = |sum, row, query| {
            let low = vmull_s8(vget_low_s8(row), vget_low_s8(query));
            vpadalq_s16(sum, vmlal_high_s8(low, row, query))
        };
        // SAFETY: this function has NEON.
        unsafe { sums_by(rows, queries, step) }
    }
}

impl Products for NeonDot {
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn sums<const R: usize, const N: usize>(
        rows: [&[u8]; R],
        queries: [&[i8]; N],
    ) -> [[int32x4_t; R]; N] {
        // SAFETY: this function has NEON and the extension.
        unsafe { sums_by(rows, queries, |sum, row, query| sdot(sum, row, query)) }
    }
}

/// Adds four products to each of four sums.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn sdot(mut sum: int32x4_t, row: int8x16_t, query: int8x16_t) -> int32x4_t {
    // SAFETY: this function has the extension (its intrinsic is not stable yet); only registers are touched.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {row:v}.16b, {query:v}.16b",
            sum = inout(vreg) sum,
            row = in(vreg) row,
            query = in(vreg) query,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

impl NeonDot {
    /// See [`super::Kernel::reach`], which checks the lengths.
    pub(super) fn reach(
        self,
        queries: &[Reach<'_>],
        block_lines: usize,
        lines: &[Line],
        reached: &mut [u64],
    ) {
        let blocks = lines.len() / block_lines;
        for (queries, reached) in queries.chunks(TILE).zip(reached.chunks_mut(TILE * blocks)) {
            for (at, block) in lines.chunks_exact(block_lines).enumerate() {
                // SAFETY: a `NeonDot` is only made on a CPU that has both.
                let bits = unsafe {
                    match queries {
                        [a, b, c, d] => &reach_block([a, b, c, d], block)[..],
                        [a, b, c] => &reach_block([a, b, c], block),
                        [a, b] => &reach_block([a, b], block),
                        [a] => &reach_block([a], block),
                        _ => unreachable!("a tile has one to four queries"),
                    }
                };
                bits.iter().enumerate().for_each(|(q, &bits)| reached[q * blocks + at] = bits);
            }
        }
    }
}

/// Bits of the rows of a block that reach, for a few queries. A quarter of a line has four bytes of each of four rows, so `sdot`
/// with four times the same word adds to the sums of four rows.
#[target_feature(enable = "neon,dotprod")]
fn reach_block<const N: usize>(queries: [&Reach<'_>; N], block: &[Line]) -> [u64; N] {
    const BITS: [u32; TILE] = [1, 2, 4, 8];
    let mut reached = [0; N];
    // SAFETY: reads the 16 bytes of the array.
    let bits = unsafe { vld1q_u32(BITS.as_ptr()) };
    for group in 0..BLOCK_LINES {
        let mut sums = [[vdupq_n_s32(0); TILE]; N];
        for (step, line) in block.iter().skip(group).step_by(BLOCK_LINES).enumerate() {
            let mut rows = [vdupq_n_s8(0); TILE];
            for (row, bytes) in rows.iter_mut().zip(line.0.as_chunks::<WIDTH_BYTES>().0) {
                // SAFETY: reads the 16 bytes of the array.
                let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
                *row = vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(CODE_OFFSET)));
            }
            for q in 0..N {
                let four = queries[q].codes.codes().as_chunks::<LINE_CODES>().0[step];
                let word = i32::from_ne_bytes(four.map(i8::cast_unsigned));
                let word = vreinterpretq_s8_s32(vdupq_n_s32(word));
                for r in 0..TILE {
                    sums[q][r] = sdot(sums[q][r], rows[r], word);
                }
            }
        }
        for q in 0..N {
            let least = vdupq_n_s32(queries[q].least);
            for r in 0..TILE {
                let here = vaddvq_u32(vandq_u32(vcgeq_s32(sums[q][r], least), bits));
                reached[q] |= u64::from(here) << (group * LINE_ROWS + r * TILE);
            }
        }
    }
    reached
}

/// What [`Products::sums`] does, by a step that adds the products of 16 row components (second argument) and 16 query
/// codes (third) to four sums.
///
/// # Safety
/// To be called where NEON is enabled. It is inlined there, and so are the intrinsics and the step.
#[inline(always)]
unsafe fn sums_by<const R: usize, const N: usize>(
    rows: [&[u8]; R],
    queries: [&[i8]; N],
    step: impl Fn(int32x4_t, int8x16_t, int8x16_t) -> int32x4_t,
) -> [[int32x4_t; R]; N] {
    let row_bytes = queries[0].len();
    assert!(
        rows.iter().all(|row| row.len() == row_bytes) && queries.iter().all(|query| query.len() == row_bytes)
    );
    // SAFETY: NEON is enabled; the loads read 16 bytes inside the slices, whose length was checked (and is padded).
    unsafe {
        let flip = vdupq_n_u8(CODE_OFFSET);
        let mut sums = [[vdupq_n_s32(0); R]; N];
        for at in (0..row_bytes / WIDTH_BYTES).map(|step| step * WIDTH_BYTES) {
            let mut lines = [vdupq_n_s8(0); R];
            for r in 0..R {
                lines[r] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(rows[r].as_ptr().add(at)), flip));
            }
            for q in 0..N {
                let query = vld1q_s8(queries[q].as_ptr().add(at));
                for r in 0..R {
                    sums[q][r] = step(sums[q][r], lines[r], query);
                }
            }
        }
        sums
    }
}

/// Four rows that lie one after the other.
fn tile_of(rows: &[u8], row_bytes: usize) -> [&[u8]; TILE] {
    std::array::from_fn(|row| &rows[row * row_bytes..][..row_bytes])
}

/// Lane r of the result is the sum of the lanes of `sums[r]`.
#[inline]
#[target_feature(enable = "neon")]
fn add_lanes([a, b, c, d]: [int32x4_t; TILE]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
}

/// Screens four rows for a few queries.
///
/// # Safety
/// The CPU must have the instructions of `P`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn score<P: Products, const N: usize>(
    first_query: usize,
    screens: [&Screen<'_>; N],
    rows: Rows<'_>,
    passed: &mut Vec<Passed>,
) {
    let tile = tile_of(rows.codes, rows.row_bytes);
    // SAFETY: the caller has the instructions.
    let sums = unsafe { P::sums(tile, screens.map(|screen| screen.codes.codes())) };
    let (scales, biases) = (rows.scales, rows.biases_at::<TILE>(0));
    for ((query, screen), sums) in (first_query..).zip(screens).zip(sums) {
        let dots = add_lanes(sums);
        // SAFETY: both read the 16 bytes of four numbers.
        let (scales, biases) = unsafe { (vld1q_f32(scales[..TILE].as_ptr()), vld1q_f32(biases.as_ptr())) };
        // In the same order as the plain kernel, so that scores are equal to the last bit.
        let product = vmulq_f32(vmulq_f32(vcvtq_f32_s32(dots), scales), vdupq_n_f32(screen.factor));
        let scores = vaddq_f32(vaddq_f32(product, biases), vdupq_n_f32(screen.offset));
        let passing = vcgeq_f32(scores, vdupq_n_f32(screen.threshold));
        if vmaxvq_u32(passing) != 0 {
            note(query, scores, screen.threshold, rows.first, passed);
        }
    }
}

/// Writes down the rows that pass.
#[cold]
#[target_feature(enable = "neon")]
fn note(query: usize, scores: float32x4_t, threshold: f32, first: u32, passed: &mut Vec<Passed>) {
    let mut written = [0.0f32; TILE];
    // SAFETY: writes the 16 bytes of the array.
    unsafe { vst1q_f32(written.as_mut_ptr(), scores) };
    let query = u32::try_from(query).unwrap_or_else(|_| unreachable!("far fewer queries share a pass"));
    let rows = (first..).zip(written).filter(|&(_, score)| score >= threshold);
    passed.extend(rows.map(|(row, score)| Passed { query, row, score }));
}
