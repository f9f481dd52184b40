//! AVX-512 VNNI. `vpdpbusd` multiplies 64 unsigned row bytes by 64 signed query codes and adds them up in 16 lanes.
//! The row bytes are 128 too high, which costs one subtraction per row: [`QueryCodes::offset`].

use std::arch::x86_64::*;

use super::{PREFETCH_BYTES, Passed, QueryCodes, Rows, Screen, avx512_block};

/// Bytes in a register.
const WIDTH_BYTES: usize = 64;
/// Rows whose lanes are added up together: one result per lane of a register.
const GROUP_ROWS: usize = 16;

/// Proof that the CPU has AVX-512 VNNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512Vnni(());

impl Avx512Vnni {
    /// `None` if this CPU lacks the instructions.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"))
            .then_some(Avx512Vnni(()))
    }

    /// See [`super::Kernel::dot_rows`], which checks the lengths.
    pub(super) fn dot_rows(self, query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has both features.
        unsafe { dot_rows(query, rows, out) }
    }

    /// See [`super::Kernel::screen_blocks`].
    pub(super) fn screen(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has both features.
        unsafe { avx512_block::screen(screens, rows, passed) }
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_rows(query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
    let offset = query.offset();
    let query = query.codes().as_chunks::<WIDTH_BYTES>().0;
    let row_bytes = query.len() * WIDTH_BYTES;
    let (groups, single_out) = out.as_chunks_mut::<GROUP_ROWS>();
    let (group_rows, single_rows) = rows.split_at(groups.len() * GROUP_ROWS * row_bytes);
    for (rows, out) in group_rows.chunks_exact(GROUP_ROWS * row_bytes).zip(groups) {
        let mut sums = [_mm512_setzero_si512(); GROUP_ROWS];
        for (sum, row) in sums.iter_mut().zip(rows.chunks_exact(row_bytes)) {
            *sum = dot(query, row);
        }
        let dots = _mm512_sub_epi32(add_lanes(sums), _mm512_set1_epi32(offset));
        // SAFETY: writes the 64 bytes of the array.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), dots) };
    }
    for (row, out) in single_rows.chunks_exact(row_bytes).zip(single_out) {
        *out = _mm512_reduce_add_epi32(dot(query, row)).wrapping_sub(offset);
    }
}

/// Lane-wise sums of products of `query` with one row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot(query: &[[i8; WIDTH_BYTES]], row: &[u8]) -> __m512i {
    let mut sum = _mm512_setzero_si512();
    for (query, block) in query.iter().zip(row.as_chunks::<WIDTH_BYTES>().0) {
        let ahead = block.as_ptr().wrapping_add(PREFETCH_BYTES);
        // SAFETY: a prefetch of any address is harmless; the loads read the 64 bytes of the two arrays.
        let (q, v) = unsafe {
            _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
            (_mm512_loadu_si512(query.as_ptr().cast()), _mm512_loadu_si512(block.as_ptr().cast()))
        };
        sum = _mm512_dpbusd_epi32(sum, v, q);
    }
    sum
}

/// Lane r of the result is the sum of the 16 lanes of `sums[r]`: a transposition that adds at every step.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_lanes(sums: [__m512i; GROUP_ROWS]) -> __m512i {
    // Within each 128-bit quarter: first pairs, then fours of rows, give one lane per row.
    let mut fours = [_mm512_setzero_si512(); 4];
    for (four, rows) in fours.iter_mut().zip(sums.as_chunks::<4>().0) {
        let (ab, cd) = (add_pair(rows[0], rows[1]), add_pair(rows[2], rows[3]));
        *four = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
    // Then the quarters: register i holds rows 4i..4i+4 in each of its quarters.
    let low = add_quarters(fours[0], fours[1]);
    let high = add_quarters(fours[2], fours[3]);
    add_quarters(low, high)
}

/// In each quarter: lanes (a0+a2, b0+b2, a1+a3, b1+b3).
#[inline]
#[target_feature(enable = "avx512f")]
fn add_pair(a: __m512i, b: __m512i) -> __m512i {
    _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
}

/// Quarters (a0+a1, a2+a3, b0+b1, b2+b3).
#[inline]
#[target_feature(enable = "avx512f")]
fn add_quarters(a: __m512i, b: __m512i) -> __m512i {
    let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
    let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
    _mm512_add_epi32(even, odd)
}
