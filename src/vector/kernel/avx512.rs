//! AVX-512 VNNI. `vpdpbusd` multiplies 64 unsigned row bytes by 64 signed query codes and adds them up in 16 lanes.
//! The row bytes are 128 too high, which costs one subtraction per row: [`QueryCodes::offset`].

use std::arch::x86_64::*;

use super::gather::{ROWS_AHEAD, RowRef};
use super::scan::{FEW_LIVE, WORD_ROWS, set_bits};
use super::{Passed, QueryCodes, Rows, Screen, avx512_block};

/// Bytes in a register.
const WIDTH_BYTES: usize = 64;
/// Rows whose lanes are added up together: one result per lane of a register.
const GROUP_ROWS: usize = 16;
/// How far ahead of a scan an Intel CPU is asked for memory. Measured on a Xeon of the Sapphire Rapids kind, it makes a
/// scan up to half as fast again. A Zen 4 reads ahead well enough: without asking, a scan is as fast as a plain read
/// (96 % with huge pages), with it a quarter to a third slower.
const PREFETCH_BYTES: usize = 8 * 1024;
/// As many bits as a group has rows.
const GROUP_MASK: u64 = (1 << GROUP_ROWS) - 1;

/// Proof that the CPU has AVX-512 VNNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512Vnni {
    /// Whether it pays to ask for memory ahead.
    prefetches: bool,
}

impl Avx512Vnni {
    /// `None` if this CPU lacks the instructions.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"))
            .then(|| Avx512Vnni { prefetches: is_intel() })
    }

    /// See [`super::Kernel::dot_rows`], which checks the lengths.
    pub(super) fn dot_rows(self, query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has both features.
        unsafe { dot_rows(query, rows, out) }
    }

    /// See [`super::Kernel::screen_blocks`].
    pub(super) fn screen(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        avx512_block::screen(self, screens, rows, passed)
    }

    /// See [`super::Kernel::score_each`], which checks the lengths.
    pub(super) fn score_each(self, screen: &Screen<'_>, rows: &[RowRef<'_>], out: &mut [f32]) {
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has both features.
        unsafe { score_each(screen, rows, out) }
    }

    /// See [`super::Kernel::scan`], which checks the lengths.
    pub(super) fn scan(
        self,
        screen: &Screen<'_>,
        rows: &[u8],
        scales: &[f32],
        biases: &[f32],
        live: &[u64],
        offer: &mut dyn FnMut(usize, f32) -> f32,
    ) {
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has both features.
        unsafe {
            if self.prefetches {
                scan::<true>(screen, rows, scales, biases, live, offer);
            } else {
                scan::<false>(screen, rows, scales, biases, live, offer);
            }
        }
    }
}

fn is_intel() -> bool {
    let vendor = __cpuid(0);
    [vendor.ebx, vendor.edx, vendor.ecx] == [*b"Genu", *b"ineI", *b"ntel"].map(u32::from_le_bytes)
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_rows(query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
    let offset = query.offset();
    let query = query.codes().as_chunks::<WIDTH_BYTES>().0;
    let row_bytes = query.len() * WIDTH_BYTES;
    let (groups, single_out) = out.as_chunks_mut::<GROUP_ROWS>();
    let (group_rows, single_rows) = rows.split_at(groups.len() * GROUP_ROWS * row_bytes);
    for (rows, out) in group_rows.chunks_exact(GROUP_ROWS * row_bytes).zip(groups) {
        let dots = _mm512_sub_epi32(group_dots::<false>(query, rows), _mm512_set1_epi32(offset));
        // SAFETY: writes the 64 bytes of the array.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), dots) };
    }
    for (row, out) in single_rows.chunks_exact(row_bytes).zip(single_out) {
        *out = _mm512_reduce_add_epi32(dot::<false>(query, row)).wrapping_sub(offset);
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn scan<const AHEAD: bool>(
    screen: &Screen<'_>,
    rows: &[u8],
    scales: &[f32],
    biases: &[f32],
    live: &[u64],
    offer: &mut dyn FnMut(usize, f32) -> f32,
) {
    let query = screen.codes.codes().as_chunks::<WIDTH_BYTES>().0;
    let row_bytes = query.len() * WIDTH_BYTES;
    let (factor, offset) = (_mm512_set1_ps(screen.factor), _mm512_set1_ps(screen.offset));
    let too_much = _mm512_set1_epi32(screen.codes.offset());
    let mut threshold = screen.threshold;
    let (groups, rest) = scales.as_chunks::<GROUP_ROWS>();
    for (group, scales) in groups.iter().enumerate() {
        let first = group * GROUP_ROWS;
        let live = live[first / WORD_ROWS] >> (first % WORD_ROWS) & GROUP_MASK;
        let rows = &rows[first * row_bytes..][..GROUP_ROWS * row_bytes];
        if live.count_ones() <= FEW_LIVE {
            for at in set_bits(live) {
                let bias = biases.get(first + at).copied().unwrap_or(0.0);
                let dot = lone_dot(screen, &rows[at * row_bytes..][..row_bytes]);
                let score = screen.score(dot, scales[at], bias);
                if score >= threshold {
                    threshold = offer(first + at, score);
                }
            }
            continue;
        }
        let dots = _mm512_sub_epi32(group_dots::<AHEAD>(query, rows), too_much);
        // SAFETY: both read the 64 bytes of an array.
        let (scale, bias) = unsafe {
            let bias = biases.get(first..first + GROUP_ROWS);
            let bias = bias.map_or(_mm512_setzero_ps(), |bias| _mm512_loadu_ps(bias.as_ptr()));
            (_mm512_loadu_ps(scales.as_ptr()), bias)
        };
        let product = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dots), scale), factor);
        let scores = _mm512_add_ps(_mm512_add_ps(product, bias), offset);
        let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, _mm512_set1_ps(threshold));
        let passing = u64::from(reached) & live;
        if passing != 0 {
            threshold = offer_group(scores, passing, first, threshold, offer);
        }
    }
    let first = groups.len() * GROUP_ROWS;
    for (at, &scale) in (first..).zip(rest) {
        if live[at / WORD_ROWS] >> (at % WORD_ROWS) & 1 == 1 {
            let bias = biases.get(at).copied().unwrap_or(0.0);
            let score = screen.score(lone_dot(screen, &rows[at * row_bytes..][..row_bytes]), scale, bias);
            if score >= threshold {
                threshold = offer(at, score);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn score_each(screen: &Screen<'_>, rows: &[RowRef<'_>], out: &mut [f32]) {
    let query = screen.codes.codes().as_chunks::<WIDTH_BYTES>().0;
    for (at, (four, out)) in rows.chunks(4).zip(out.chunks_mut(4)).enumerate() {
        rows.iter().skip(at * 4 + ROWS_AHEAD).take(4).for_each(RowRef::prefetch);
        if let [a, b, c, d] = four {
            let dots = four_dots(query, [a.bytes, b.bytes, c.bytes, d.bytes]);
            for ((row, out), dot) in four.iter().zip(out).zip(dots) {
                *out = screen.score_row(dot.wrapping_sub(screen.codes.offset()), row);
            }
        } else {
            for (row, out) in four.iter().zip(out) {
                *out = screen.score_row(lone_dot(screen, row.bytes), row);
            }
        }
    }
}

/// The dot products with four rows, without [`QueryCodes::offset`] taken off.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn four_dots(query: &[[i8; WIDTH_BYTES]], rows: [&[u8]; 4]) -> [i32; 4] {
    let [a, b, c, d] = rows.map(|row| row.as_chunks::<WIDTH_BYTES>().0);
    let mut sums = [_mm512_setzero_si512(); 4];
    for ((((query, a), b), c), d) in query.iter().zip(a).zip(b).zip(c).zip(d) {
        // SAFETY: the loads read the 64 bytes of the arrays.
        unsafe {
            let query = _mm512_loadu_si512(query.as_ptr().cast());
            for (sum, row) in sums.iter_mut().zip([a, b, c, d]) {
                *sum = _mm512_dpbusd_epi32(*sum, _mm512_loadu_si512(row.as_ptr().cast()), query);
            }
        }
    }
    let [a, b, c, d] = sums;
    let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    let quarters = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    let halves = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64::<1>(quarters));
    let total = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
    let mut out = [0; 4];
    // SAFETY: writes the 16 bytes of the array.
    unsafe { _mm_storeu_si128(out.as_mut_ptr().cast(), total) };
    out
}

/// Offers the rows of a group whose bits are set, and gives the threshold after that.
#[cold]
#[target_feature(enable = "avx512f")]
fn offer_group(
    scores: __m512,
    passing: u64,
    first: usize,
    mut threshold: f32,
    offer: &mut dyn FnMut(usize, f32) -> f32,
) -> f32 {
    let mut written = [0.0f32; GROUP_ROWS];
    // SAFETY: writes the 64 bytes of the array.
    unsafe { _mm512_storeu_ps(written.as_mut_ptr(), scores) };
    for at in set_bits(passing) {
        if written[at] >= threshold {
            threshold = offer(first + at, written[at]);
        }
    }
    threshold
}

/// The dot products of the 16 rows of a group, one per lane, without [`QueryCodes::offset`] taken off. Rows are read one
/// after the other: read side by side, they are several streams to a CPU that fetches memory ahead for one.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn group_dots<const AHEAD: bool>(query: &[[i8; WIDTH_BYTES]], rows: &[u8]) -> __m512i {
    let row_bytes = query.len() * WIDTH_BYTES;
    let mut fours = [_mm512_setzero_si512(); GROUP_ROWS / 4];
    for (four, rows) in fours.iter_mut().zip(rows.chunks_exact(4 * row_bytes)) {
        let (ab, cd) = rows.split_at(2 * row_bytes);
        let ab = dot_pair::<AHEAD>(query, ab);
        let cd = dot_pair::<AHEAD>(query, cd);
        *four = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
    // Register i holds rows 4i..4i+4 in each of its quarters.
    add_quarters(add_quarters(fours[0], fours[1]), add_quarters(fours[2], fours[3]))
}

/// Sums of products with two rows a and b; in each quarter: lanes (a0+a2, b0+b2, a1+a3, b1+b3).
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_pair<const AHEAD: bool>(query: &[[i8; WIDTH_BYTES]], rows: &[u8]) -> __m512i {
    let (a, b) = rows.split_at(query.len() * WIDTH_BYTES);
    let (a, b) = (dot::<AHEAD>(query, a), dot::<AHEAD>(query, b));
    _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
}

/// The dot product with one row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn lone_dot(screen: &Screen<'_>, row: &[u8]) -> i32 {
    let query = screen.codes.codes().as_chunks::<WIDTH_BYTES>().0;
    _mm512_reduce_add_epi32(dot::<false>(query, row)).wrapping_sub(screen.codes.offset())
}

/// Lane-wise sums of products of `query` with one row.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot<const AHEAD: bool>(query: &[[i8; WIDTH_BYTES]], row: &[u8]) -> __m512i {
    let mut sum = _mm512_setzero_si512();
    for (query, block) in query.iter().zip(row.as_chunks::<WIDTH_BYTES>().0) {
        let ahead = block.as_ptr().wrapping_add(PREFETCH_BYTES);
        // SAFETY: a prefetch of any address is harmless; the loads read the 64 bytes of the two arrays.
        let (q, v) = unsafe {
            if AHEAD {
                _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            }
            (_mm512_loadu_si512(query.as_ptr().cast()), _mm512_loadu_si512(block.as_ptr().cast()))
        };
        sum = _mm512_dpbusd_epi32(sum, v, q);
    }
    sum
}

/// Quarters (a0+a1, a2+a3, b0+b1, b2+b3).
#[inline]
#[target_feature(enable = "avx512f")]
fn add_quarters(a: __m512i, b: __m512i) -> __m512i {
    let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
    let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
    _mm512_add_epi32(even, odd)
}
