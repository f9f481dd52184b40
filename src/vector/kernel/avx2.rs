//! AVX2. It can multiply unsigned by signed bytes (`vpmaddubsw`) but adds pairs of products with saturation at
//! 16 bits. Hence |v| * (q with the sign of v): |v| <= 128 and |q| <= 127, so a pair is at most 2 * 128 * 127 = 32,512.
//!
//! For blocks of queries ([`super::avx2_block`]) bytes are widened to 16 bits once, and `vpmaddwd` multiplies pairs of them.

use std::arch::x86_64::*;

use super::avx2_block::{self, Columns, GROUPS, Register};
use super::{CODE_OFFSET, Line, PREFETCH_BYTES, Passed, QueryCodes, Reach, Rows, Screen};

/// Bytes in a register.
const WIDTH_BYTES: usize = 32;
/// Bytes of a row between two prefetches: a cache line.
const LINE_BYTES: usize = 64;
/// Rows whose lanes are added up together.
const GROUP_ROWS: usize = 4;

/// Proof that the CPU has AVX2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx2(());

impl Avx2 {
    /// `None` if this CPU lacks the instructions.
    pub fn new() -> Option<Self> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }

    /// See [`super::Kernel::dot_rows`], which checks the lengths.
    pub(super) fn dot_rows(self, query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
        // SAFETY: an `Avx2` is only made on a CPU that has AVX2.
        unsafe { dot_rows(query, rows, out) }
    }

    /// See [`super::Kernel::reach`], which checks the lengths.
    pub(super) fn reach(
        self,
        queries: &[Reach<'_>],
        block_lines: usize,
        lines: &[Line],
        reached: &mut [u64],
    ) {
        // SAFETY: an `Avx2` is only made on a CPU that has AVX2.
        unsafe { avx2_block::reach::<Self>(queries, block_lines, lines, reached) }
    }

    /// See [`super::Kernel::screen_blocks`].
    pub(super) fn screen(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        // SAFETY: an `Avx2` is only made on a CPU that has AVX2.
        unsafe { avx2_block::screen::<Self>(screens, rows, passed) }
    }
}

#[target_feature(enable = "avx2")]
fn dot_rows(query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
    let ones = _mm256_set1_epi16(1);
    let flip = _mm256_set1_epi8(CODE_OFFSET.cast_signed());
    let step = |sum, row, query| {
        let row = _mm256_xor_si256(row, flip);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(row), _mm256_sign_epi8(query, row));
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones))
    };
    // SAFETY: this function has AVX2.
    unsafe { dot_rows_by(query, rows, 0, out, step) }
}

/// Dot products by a step that adds the products of 32 row bytes (second argument) and 32 query codes (third) to eight
/// sums; `offset` is taken off each.
///
/// # Safety
/// To be called where AVX2 is enabled. It is inlined there, and so are the intrinsics and the step.
#[inline(always)]
pub(super) unsafe fn dot_rows_by(
    query: &QueryCodes,
    rows: &[u8],
    offset: i32,
    out: &mut [i32],
    step: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    let query = query.codes().as_chunks::<LINE_BYTES>().0;
    let row_bytes = query.len() * LINE_BYTES;
    for (rows, out) in rows.chunks(GROUP_ROWS * row_bytes).zip(out.chunks_mut(GROUP_ROWS)) {
        // SAFETY: AVX2 is enabled. A prefetch of any address is harmless; the loads read the 64 bytes of two arrays.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); GROUP_ROWS];
            for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(row_bytes)) {
                for (query, line) in query.iter().zip(row.as_chunks::<LINE_BYTES>().0) {
                    _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().wrapping_add(PREFETCH_BYTES).cast());
                    for at in [0, WIDTH_BYTES] {
                        let v = _mm256_loadu_si256(line.as_ptr().add(at).cast());
                        let q = _mm256_loadu_si256(query.as_ptr().add(at).cast());
                        *sum = step(*sum, v, q);
                    }
                }
            }
            let totals = add_lanes(sums);
            for (out, total) in out.iter_mut().zip(totals) {
                *out = total.wrapping_sub(offset);
            }
        }
    }
}

/// The sum of the eight lanes of each register.
#[inline]
#[target_feature(enable = "avx2")]
fn add_lanes(sums: [__m256i; GROUP_ROWS]) -> [i32; GROUP_ROWS] {
    let [a, b, c, d] = sums;
    let halves = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    let total = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    let mut out = [0; GROUP_ROWS];
    // SAFETY: writes the 16 bytes of the array.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), total) };
    out
}

/// Columns of two bytes, widened to 16 bits. Of four bytes, the first and third are one step, the others the next.
impl Columns for Avx2 {
    const COMPONENTS: usize = 2;

    fn words(query: &QueryCodes) -> impl Iterator<Item = i32> {
        let pair = |a: i8, b: i8| i32::from(b) << 16 | i32::from(a) & 0xffff;
        query.codes().as_chunks().0.iter().flat_map(move |&[a, b, c, d]| [pair(a, c), pair(b, d)])
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(fours: __m256i, steps: &mut [[Register; GROUPS]], group: usize) {
        let even = _mm256_and_si256(fours, _mm256_set1_epi32(0x00ff_00ff));
        steps[0][group].store(even);
        steps[1][group].store(_mm256_srli_epi16::<8>(fours));
    }

    #[target_feature(enable = "avx2")]
    unsafe fn sums<const N: usize>(
        words: &[[i32; N]],
        offsets: [i32; N],
        steps: &[[Register; GROUPS]],
    ) -> [[__m256i; GROUPS]; N] {
        let step = |sum, rows, query| _mm256_add_epi32(sum, _mm256_madd_epi16(rows, query));
        // SAFETY: this function has AVX2.
        unsafe { avx2_block::sums_by(words, offsets, steps, step) }
    }
}
