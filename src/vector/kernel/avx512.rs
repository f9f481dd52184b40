//! AVX-512 VNNI. `vpdpbusd` multiplies 64 unsigned row bytes by 64 signed query codes and adds them up in 16 lanes.
//! The row bytes are 128 too high, which costs one subtraction per row: [`QueryCodes::offset`].

use std::arch::x86_64::*;

use super::gather::{ROWS_AHEAD, RowRef};
use super::scan::{FEW_LIVE, WORD_ROWS, set_bits};
use super::{Line, Passed, QueryCodes, Reach, Rows, Screen, avx512_block};

/// Bytes in a register.
const WIDTH_BYTES: usize = 64;
/// Rows whose lanes are added up together: one result per lane of a register.
const GROUP_ROWS: usize = 16;
/// How far ahead of a scan an Intel CPU is asked for memory. Measured on a Xeon of the Sapphire Rapids kind, it makes a
/// scan up to half as fast again. A Zen 4 reads ahead well enough: without asking, a scan is as fast as a plain read
/// (96 % with huge pages), with it a quarter to a third slower.
const PREFETCH_BYTES: usize = 8 * 1024;
/// Words of a bitmap of live rows that are looked at together, and bits that each has at most for rows to be listed.
const LISTED_WORDS: usize = 16;
const LISTED_BITS: usize = 24;
/// Listed rows whose memory is asked for ahead of the one being scored.
const LISTED_AHEAD: usize = 2 * GROUP_ROWS;
/// Rows that are listed at once.
const AT_ONCE: usize = 4;
/// As many bits as a group has rows.
const GROUP_MASK: u64 = (1 << GROUP_ROWS) - 1;

/// Proof that the CPU has AVX-512 VNNI, and what every such CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Avx512Vnni {
    /// Whether it pays to ask for memory ahead.
    prefetches: bool,
}

impl Avx512Vnni {
    /// `None` if this CPU lacks the instructions.
    pub fn new() -> Option<Self> {
        let has_all = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("popcnt")
            && is_x86_feature_detected!("bmi1");
        has_all.then(|| Avx512Vnni { prefetches: is_intel() })
    }

    /// See [`super::Kernel::dot_rows`], which checks the lengths.
    pub(super) fn dot_rows(self, query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has all the features.
        unsafe { dot_rows(query, rows, out) }
    }

    /// See [`super::Kernel::screen_blocks`].
    pub(super) fn screen(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        avx512_block::screen(self, screens, rows, passed)
    }

    /// See [`super::Kernel::reach`], which checks the lengths.
    pub(super) fn reach(
        self,
        queries: &[Reach<'_>],
        block_lines: usize,
        lines: &[Line],
        reached: &mut [u64],
    ) {
        avx512_block::reach(self, queries, block_lines, lines, reached);
    }

    /// See [`super::Kernel::score_each`], which checks the lengths.
    pub(super) fn score_each(self, screen: &Screen<'_>, rows: &[RowRef<'_>], out: &mut [f32]) {
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has all the features.
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
        // SAFETY: an `Avx512Vnni` is only made on a CPU that has all the features.
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

/// What a scan reads.
#[derive(Clone, Copy)]
struct Scanned<'a> {
    screen: &'a Screen<'a>,
    query: &'a [[i8; WIDTH_BYTES]],
    rows: &'a [u8],
    scales: &'a [f32],
    biases: &'a [f32],
}

impl<'a> Scanned<'a> {
    fn row(&self, at: usize) -> &'a [u8] {
        let row_bytes = self.query.len() * WIDTH_BYTES;
        &self.rows[at * row_bytes..][..row_bytes]
    }

    /// Asks for a row's memory: the CPU fetches the rest of a long one by itself.
    #[inline]
    fn prefetch(&self, at: usize) {
        let row = self.row(at).as_ptr().cast::<i8>();
        // SAFETY: a prefetch reads nothing the program sees and never faults, whatever the address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(row);
            _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(WIDTH_BYTES));
            _mm_prefetch::<_MM_HINT_T0>(self.scales[at..].as_ptr().cast());
        }
    }

    /// What products become, in the order of [`Screen::score`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn scores(
        &self,
        dots: __m512i,
        scales: &[f32; GROUP_ROWS],
        biases: Option<&[f32; GROUP_ROWS]>,
    ) -> __m512 {
        let dots = _mm512_sub_epi32(dots, _mm512_set1_epi32(self.screen.codes.offset()));
        // SAFETY: both read the 64 bytes of an array.
        let (scale, bias) = unsafe {
            let bias = biases.map_or(_mm512_setzero_ps(), |biases| _mm512_loadu_ps(biases.as_ptr()));
            (_mm512_loadu_ps(scales.as_ptr()), bias)
        };
        let product = _mm512_mul_ps(_mm512_cvtepi32_ps(dots), scale);
        let product = _mm512_mul_ps(product, _mm512_set1_ps(self.screen.factor));
        _mm512_add_ps(_mm512_add_ps(product, bias), _mm512_set1_ps(self.screen.offset))
    }

    /// The scores of 16 neighbouring rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn group<const AHEAD: bool>(&self, first: usize, scales: &[f32; GROUP_ROWS]) -> __m512 {
        let row_bytes = self.query.len() * WIDTH_BYTES;
        let rows = &self.rows[first * row_bytes..][..GROUP_ROWS * row_bytes];
        self.scores(
            group_dots::<AHEAD>(self.query, rows),
            scales,
            self.biases[..].get(first..).and_then(<[f32]>::first_chunk),
        )
    }

    /// Offers rows that lie apart, and gives the threshold after that.
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn list(&self, listed: &Listed, mut threshold: f32, offer: &mut dyn FnMut(usize, f32) -> f32) -> f32 {
        let rows = &listed.rows[..listed.len];
        let all = &rows[..rows.partition_point(|&row| (row as usize) < self.scales.len())];
        all.iter().take(LISTED_AHEAD).for_each(|&row| self.prefetch(row as usize));
        for (ahead, rows) in (LISTED_AHEAD..).step_by(GROUP_ROWS).zip(all.chunks(GROUP_ROWS)) {
            all.iter().skip(ahead).take(GROUP_ROWS).for_each(|&row| self.prefetch(row as usize));
            let scores = self.apart(rows);
            let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, _mm512_set1_ps(threshold));
            let passing = u64::from(reached) & !(u64::MAX << rows.len());
            if passing != 0 {
                threshold = offer_group(scores, passing, |at| rows[at] as usize, threshold, offer);
            }
        }
        threshold
    }

    /// Offers the live ones of neighbouring rows, and gives the threshold after that.
    #[target_feature(enable = "avx512f,avx512vnni,popcnt,bmi1")]
    fn neighbours<const AHEAD: bool>(
        &self,
        live: &[u64],
        first: usize,
        mut threshold: f32,
        offer: &mut dyn FnMut(usize, f32) -> f32,
    ) -> f32 {
        let end = self.scales.len().min(first + live.len() * WORD_ROWS);
        for group in (first..end).step_by(GROUP_ROWS) {
            let live = live[(group - first) / WORD_ROWS] >> (group % WORD_ROWS) & GROUP_MASK;
            let scales = self.scales[group..end].first_chunk();
            let Some(scales) = scales.filter(|_| live.count_ones() > FEW_LIVE) else {
                for row in set_bits(live).map(|bit| group + bit).take_while(|&row| row < end) {
                    let bias = self.biases.get(row).copied().unwrap_or(0.0);
                    let score =
                        self.screen.score(lone_dot(self.screen, self.row(row)), self.scales[row], bias);
                    if score >= threshold {
                        threshold = offer(row, score);
                    }
                }
                continue;
            };
            let scores = self.group::<AHEAD>(group, scales);
            let reached = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, _mm512_set1_ps(threshold));
            let passing = u64::from(reached) & live;
            if passing != 0 {
                threshold = offer_group(scores, passing, |at| group + at, threshold, offer);
            }
        }
        threshold
    }

    /// The scores of rows that lie apart, at most 16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn apart(&self, rows: &[u32]) -> __m512 {
        let (mut scales, mut biases) = ([0.0; GROUP_ROWS], [0.0; GROUP_ROWS]);
        for (at, &row) in rows.iter().enumerate() {
            scales[at] = self.scales[row as usize];
            biases[at] = self.biases.get(row as usize).copied().unwrap_or(0.0);
        }
        let mut fours = [_mm512_setzero_si512(); GROUP_ROWS / 4];
        for (four, rows) in fours.iter_mut().zip(rows.chunks(4)) {
            let row = |at: usize| self.row(rows[at.min(rows.len() - 1)] as usize);
            let ab = dot_pair::<false>(self.query, row(0), row(1));
            let cd = dot_pair::<false>(self.query, row(2), row(3));
            *four = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        }
        self.scores(add_fours(fours), &scales, Some(&biases))
    }
}

/// Rows that lie apart, ascending.
struct Listed {
    rows: [u32; LISTED_WORDS * LISTED_BITS + AT_ONCE],
    len: usize,
}

impl Listed {
    /// The rows whose bits are set, if they are few in each word: else it takes less to score neighbours together.
    #[inline]
    #[target_feature(enable = "popcnt,bmi1")]
    fn new(live: &[u64], first: u32) -> Option<Self> {
        let mut listed = Listed { rows: [0; LISTED_WORDS * LISTED_BITS + AT_ONCE], len: 0 };
        for (&word, first) in live.iter().zip((first..).step_by(WORD_ROWS)) {
            let (mut bits, count) = (word, word.count_ones() as usize);
            if count > LISTED_BITS {
                return None;
            }
            // Some more than there are: a loop as long as the count would be mispredicted for nearly every word.
            let mut at = listed.len;
            loop {
                for row in listed.rows.get_mut(at..)?.first_chunk_mut::<AT_ONCE>()? {
                    *row = first + bits.trailing_zeros();
                    bits &= bits.wrapping_sub(1);
                }
                if bits == 0 {
                    break;
                }
                at += AT_ONCE;
            }
            listed.len += count;
        }
        Some(listed)
    }
}

#[target_feature(enable = "avx512f,avx512vnni,popcnt,bmi1")]
fn scan<const AHEAD: bool>(
    screen: &Screen<'_>,
    rows: &[u8],
    scales: &[f32],
    biases: &[f32],
    live: &[u64],
    offer: &mut dyn FnMut(usize, f32) -> f32,
) {
    let query = screen.codes.codes().as_chunks::<WIDTH_BYTES>().0;
    let scanned = Scanned { screen, query, rows, scales, biases };
    let mut threshold = screen.threshold;
    for (words, first) in live.chunks(LISTED_WORDS).zip((0..).step_by(LISTED_WORDS * WORD_ROWS)) {
        let few = u32::try_from(first).ok().and_then(|first| Listed::new(words, first));
        threshold = match few {
            Some(listed) => scanned.list(&listed, threshold, offer),
            None => scanned.neighbours::<AHEAD>(words, first, threshold, offer),
        };
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
    row: impl Fn(usize) -> usize,
    mut threshold: f32,
    offer: &mut dyn FnMut(usize, f32) -> f32,
) -> f32 {
    let mut written = [0.0f32; GROUP_ROWS];
    // SAFETY: writes the 64 bytes of the array.
    unsafe { _mm512_storeu_ps(written.as_mut_ptr(), scores) };
    for at in set_bits(passing) {
        if written[at] >= threshold {
            threshold = offer(row(at), written[at]);
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
        let ((a, b), (c, d)) = (ab.split_at(row_bytes), cd.split_at(row_bytes));
        let (ab, cd) = (dot_pair::<AHEAD>(query, a, b), dot_pair::<AHEAD>(query, c, d));
        *four = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
    add_fours(fours)
}

/// Sums of products with two rows a and b; in each quarter: lanes (a0+a2, b0+b2, a1+a3, b1+b3).
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_pair<const AHEAD: bool>(query: &[[i8; WIDTH_BYTES]], a: &[u8], b: &[u8]) -> __m512i {
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

/// One sum per lane, where register i holds rows 4i..4i+4 in each of its quarters.
#[inline]
#[target_feature(enable = "avx512f")]
fn add_fours(fours: [__m512i; GROUP_ROWS / 4]) -> __m512i {
    add_quarters(add_quarters(fours[0], fours[1]), add_quarters(fours[2], fours[3]))
}

/// Quarters (a0+a1, a2+a3, b0+b1, b2+b3).
#[inline]
#[target_feature(enable = "avx512f")]
fn add_quarters(a: __m512i, b: __m512i) -> __m512i {
    let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
    let odd = _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b);
    _mm512_add_epi32(even, odd)
}
