//! AVX2. It can multiply unsigned by signed bytes (`vpmaddubsw`) but adds pairs of products with saturation at
//! 16 bits. Hence |v| * (q with the sign of v): |v| <= 128 and |q| <= 127, so a pair is at most 2 * 128 * 127 = 32,512.

use std::arch::x86_64::*;

use super::{CODE_OFFSET, PREFETCH_BYTES, QueryCodes};

/// Bytes in a register.
const WIDTH_BYTES: usize = 32;
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
}

#[target_feature(enable = "avx2")]
fn dot_rows(query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
    let query = query.codes().as_chunks::<WIDTH_BYTES>().0;
    let row_bytes = query.len() * WIDTH_BYTES;
    for (rows, out) in rows.chunks(GROUP_ROWS * row_bytes).zip(out.chunks_mut(GROUP_ROWS)) {
        let mut sums = [_mm256_setzero_si256(); GROUP_ROWS];
        for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(row_bytes)) {
            *sum = dot(query, row);
        }
        out.copy_from_slice(&add_lanes(sums)[..out.len()]);
    }
}

/// Lane-wise sums of products of `query` with one row.
#[inline]
#[target_feature(enable = "avx2")]
fn dot(query: &[[i8; WIDTH_BYTES]], row: &[u8]) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    let flip = _mm256_set1_epi8(CODE_OFFSET.cast_signed());
    let mut sum = _mm256_setzero_si256();
    for (query, block) in query.iter().zip(row.as_chunks::<WIDTH_BYTES>().0) {
        let ahead = block.as_ptr().wrapping_add(PREFETCH_BYTES);
        // SAFETY: a prefetch of any address is harmless; the loads read the 32 bytes of the two arrays.
        let (q, v) = unsafe {
            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
            (_mm256_loadu_si256(query.as_ptr().cast()), _mm256_loadu_si256(block.as_ptr().cast()))
        };
        let v = _mm256_xor_si256(v, flip);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(q, v));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
    sum
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
