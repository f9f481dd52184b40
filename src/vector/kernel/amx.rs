//! AMX: `tdpbusd` multiplies 16 rows with 16 queries, 64 components at a time, in one instruction.
//!
//! Rows are taken as they lie; queries are packed once per call so that a tile holds four components of 16 queries in each
//! line. Of a block of rows first all sums are computed, two by two tiles at a time, and stored (they stay in the level-1
//! cache); then AVX-512 turns them into scores and compares. Few queries do not fill the tiles: they are screened with
//! [`super::avx512_block`], and a single query with [`super::avx512`].

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::avx512_block::transpose;
use super::{Avx512Vnni, Line, PREFETCH_BYTES, Passed, QueryCodes, Rows, Screen};

/// Queries from which AMX is faster than AVX-512 VNNI.
const MIN_QUERIES: usize = 32;
/// Lines of a tile, and 32-bit columns of a tile.
const TILE: usize = 16;
/// Rows, and queries, that are worked on together: two tiles.
const PAIR: usize = 2 * TILE;
const LINE_BYTES: usize = 64;
/// Size of the stored sums of a block of rows, about.
const SUMS_BYTES: usize = 32 << 10;

/// Proof that the CPU has AMX for bytes and AVX-512 VNNI, and that Linux lets this process use the tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amx(Avx512Vnni);

impl Amx {
    /// `None` if this CPU lacks the instructions, or the system does not allow them.
    pub fn new() -> Option<Self> {
        static ALLOWED: OnceLock<bool> = OnceLock::new();
        let vnni = Avx512Vnni::new()?;
        ALLOWED.get_or_init(|| detected() && request()).then_some(Amx(vnni))
    }

    /// For a CPU that only lacks AMX, which is emulated.
    #[cfg(test)]
    pub(super) fn emulated() -> Option<Self> {
        super::emulator::install();
        Avx512Vnni::new().map(Amx)
    }

    /// The kernel for single queries.
    pub(super) fn vnni(self) -> Avx512Vnni {
        self.0
    }

    /// See [`super::Kernel::screen_blocks`].
    pub(super) fn screen(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        if screens.len() < MIN_QUERIES {
            return self.0.screen(screens, rows, passed);
        }
        // SAFETY: an `Amx` is only made where AMX and AVX-512 F can be used.
        unsafe { screen(screens, rows, passed) }
    }
}

/// Whether the CPU has AMX-TILE and AMX-INT8, and the system saves tiles.
fn detected() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_STATES: u64 = 1 << 17 | 1 << 18;
    if __cpuid_count(7, 0).edx & TILE_AND_INT8 != TILE_AND_INT8 || !is_x86_feature_detected!("xsave") {
        return false;
    }
    // SAFETY: XSAVE was detected, which includes that the system has enabled it.
    unsafe { _xgetbv(0) & TILE_STATES == TILE_STATES }
}

/// Asks Linux for the tiles, for all threads of this process.
fn request() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: this call takes two numbers and no pointers.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    line_bytes: [u16; 16],
    lines: [u8; 16],
}

/// Eight whole tiles.
static WHOLE_TILES: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    line_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    lines: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Sums of 16 rows (lines) with 16 queries (columns).
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Sums([[i32; TILE]; TILE]);

/// What turns the sums of 16 queries into scores.
struct Sixteen {
    factors: [f32; TILE],
    offsets: [f32; TILE],
    thresholds: [f32; TILE],
}

/// Screens all rows; answers how many.
#[target_feature(enable = "avx512f")]
fn screen(screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
    let packed: Vec<Line> = screens.chunks(PAIR).flat_map(|screens| pack(screens, rows.row_bytes)).collect();
    let pairs = screens.len().div_ceil(PAIR);
    let sixteens: Vec<Sixteen> = (0..2 * pairs).map(|at| Sixteen::new(screens, at * TILE)).collect();
    let block_pairs = (SUMS_BYTES / (4 * size_of::<Sums>() * pairs)).max(1);
    let mut sums = vec![Sums([[0; TILE]; TILE]); block_pairs * pairs * 4];
    let whole = rows.len() / PAIR * PAIR;
    for first in (0..whole).step_by(block_pairs * PAIR) {
        let rows = rows.range(first..whole.min(first + block_pairs * PAIR));
        multiply(rows, &packed, &mut sums);
        compare(&sixteens, rows, &sums, passed);
    }
    if whole < rows.len() {
        let rest = rows.range(whole..rows.len());
        let (mut codes, mut scales, mut biases) =
            (rest.codes.to_vec(), rest.scales.to_vec(), rest.biases.to_vec());
        codes.resize(PAIR * rows.row_bytes, 0);
        // Rows that do not exist score NaN, which never passes.
        scales.resize(PAIR, f32::NAN);
        if !biases.is_empty() {
            biases.resize(PAIR, 0.0);
        }
        let rest = Rows { codes: &codes, scales: &scales, biases: &biases, ..rest };
        multiply(rest, &packed, &mut sums);
        compare(&sixteens, rest, &sums, passed);
    }
    rows.len()
}

/// At most 32 queries in the form [`multiply`] wants: what is added to the sums of each, and then for every 64
/// components two tiles, of 16 queries each.
#[target_feature(enable = "avx512f")]
fn pack(screens: &[Screen<'_>], row_bytes: usize) -> Vec<Line> {
    let codes: Vec<&QueryCodes> = screens.iter().map(|screen| screen.codes).collect();
    let mut packed = vec![Line([0; LINE_BYTES]); 2 + row_bytes / LINE_BYTES * PAIR];
    // What the row bytes have too much is taken off first.
    let starts = packed[..2].iter_mut().flat_map(|register| register.0.as_chunks_mut().0);
    for (start, codes) in starts.zip(&codes) {
        *start = (-codes.offset()).to_ne_bytes();
    }
    for (at, tile) in packed[2..].chunks_exact_mut(TILE).enumerate() {
        let (step, half) = (at / 2, at % 2);
        let mut lines = [_mm512_setzero_si512(); TILE];
        for (line, codes) in lines.iter_mut().zip(codes.iter().skip(half * TILE)) {
            let bytes = &codes.codes()[step * LINE_BYTES..][..LINE_BYTES];
            // SAFETY: reads the 64 bytes of the slice.
            *line = unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) };
        }
        for (register, line) in tile.iter_mut().zip(transpose(lines)) {
            register.store(line);
        }
    }
    packed
}

impl Sixteen {
    /// Of the queries from `at` on. Queries that do not exist have a threshold that nothing reaches.
    fn new(screens: &[Screen<'_>], at: usize) -> Self {
        let mut sixteen =
            Sixteen { factors: [0.0; TILE], offsets: [0.0; TILE], thresholds: [f32::NAN; TILE] };
        for (column, screen) in screens.iter().skip(at).take(TILE).enumerate() {
            sixteen.factors[column] = screen.factor;
            sixteen.offsets[column] = screen.offset;
            sixteen.thresholds[column] = screen.threshold;
        }
        sixteen
    }
}

/// Dot products of rows (a multiple of 32) with packed queries: for each 32 rows, for each 32 queries, four tiles.
#[target_feature(enable = "avx512f")]
fn multiply(rows: Rows<'_>, packed: &[Line], sums: &mut [Sums]) {
    let query_pairs = packed.len() / (2 + rows.row_bytes / LINE_BYTES * PAIR);
    let row_pairs = rows.len() / PAIR;
    assert!(rows.row_bytes > 0 && rows.codes.len() == row_pairs * PAIR * rows.row_bytes);
    assert!(query_pairs > 0 && row_pairs > 0 && sums.len() >= row_pairs * query_pairs * 4);
    // The rows that come next, while these are multiplied.
    for line in rows.codes.chunks(LINE_BYTES) {
        let ahead = line.as_ptr().wrapping_add(rows.codes.len().max(PREFETCH_BYTES));
        _mm_prefetch::<_MM_HINT_T1>(ahead.cast());
    }
    // SAFETY: AMX can be used. The lengths were checked: `low` and `high` walk through all rows and the queries' cursor
    // through all packed queries, once for each 32 rows; each four tiles of sums are written once.
    unsafe {
        asm!(
            "ldtilecfg [{queries}]",
            "2:", // 32 rows
            "mov {queries}, {packed}",
            "mov {left}, {query_pairs}",
            "3:", // with 32 queries
            "tileloadd tmm0, [{queries} + {same}]",
            "tileloadd tmm1, [{queries} + {same} + 64]",
            "tileloadd tmm2, [{queries} + {same}]",
            "tileloadd tmm3, [{queries} + {same} + 64]",
            "add {queries}, 128",
            "mov {bytes}, {row_bytes}",
            "4:", // 64 components
            "tileloadd tmm4, [{low} + {row_bytes}]",
            "tileloadd tmm6, [{queries} + {line}]",
            "tdpbusd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{queries} + {line} + 1024]",
            "tdpbusd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{high} + {row_bytes}]",
            "tdpbusd tmm2, tmm5, tmm6",
            "tdpbusd tmm3, tmm5, tmm7",
            "add {low}, 64",
            "add {high}, 64",
            "add {queries}, 2048",
            "sub {bytes}, 64",
            "jnz 4b",
            "sub {low}, {row_bytes}",
            "sub {high}, {row_bytes}",
            "tilestored [{sums} + {line}], tmm0",
            "tilestored [{sums} + {line} + 1024], tmm1",
            "tilestored [{sums} + {line} + 2048], tmm2",
            "tilestored [{sums} + {line} + 3072], tmm3",
            "add {sums}, 4096",
            "dec {left}",
            "jnz 3b",
            "mov {bytes}, {row_bytes}",
            "shl {bytes}, 5",
            "add {low}, {bytes}",
            "add {high}, {bytes}",
            "dec {row_pairs}",
            "jnz 2b",
            "tilerelease",
            queries = inout(reg) &raw const WHOLE_TILES => _,
            packed = in(reg) packed.as_ptr(),
            query_pairs = in(reg) query_pairs,
            left = out(reg) _,
            bytes = out(reg) _,
            same = in(reg) 0usize,
            line = in(reg) LINE_BYTES,
            low = inout(reg) rows.codes.as_ptr() => _,
            high = inout(reg) rows.codes[TILE * rows.row_bytes..].as_ptr() => _,
            row_bytes = in(reg) rows.row_bytes,
            row_pairs = inout(reg) row_pairs => _,
            sums = inout(reg) sums.as_mut_ptr() => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Turns the sums of [`multiply`] into scores and notes those that pass.
#[target_feature(enable = "avx512f")]
fn compare(sixteens: &[Sixteen], rows: Rows<'_>, sums: &[Sums], passed: &mut Vec<Passed>) {
    let fours = sums.as_chunks::<4>().0.chunks_exact(sixteens.len() / 2);
    for (first, fours) in (0..rows.len()).step_by(PAIR).zip(fours) {
        for (at, sixteen) in sixteens.iter().enumerate() {
            for half in 0..2 {
                let first = first + half * TILE;
                let rows = rows.range(first..first + TILE);
                let sums = &fours[at / 2][2 * half + at % 2];
                if any_passes(sixteen, rows, sums) {
                    note(at * TILE, sixteen, rows, sums, passed);
                }
            }
        }
    }
}

/// Whether any of 16 rows passes for any of 16 queries.
#[inline]
#[target_feature(enable = "avx512f")]
fn any_passes(sixteen: &Sixteen, rows: Rows<'_>, sums: &Sums) -> bool {
    let biases = rows.biases_at::<TILE>(0);
    let mut passing = 0;
    for ((sums, &scale), &bias) in sums.0.iter().zip(rows.scales).zip(biases) {
        passing |= passing_queries(sixteen, scale, bias, sums).0;
    }
    passing != 0
}

/// Which of 16 queries a row passes for, and its scores.
#[inline]
#[target_feature(enable = "avx512f")]
fn passing_queries(sixteen: &Sixteen, scale: f32, bias: f32, sums: &[i32; TILE]) -> (__mmask16, __m512) {
    // SAFETY: each reads the 64 bytes of an array.
    let (sums, factors, offsets, thresholds) = unsafe {
        (
            _mm512_loadu_si512(sums.as_ptr().cast()),
            _mm512_loadu_ps(sixteen.factors.as_ptr()),
            _mm512_loadu_ps(sixteen.offsets.as_ptr()),
            _mm512_loadu_ps(sixteen.thresholds.as_ptr()),
        )
    };
    // In the same order as the plain kernel, so that scores are equal to the last bit.
    let product = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(scale)), factors);
    let scores = _mm512_add_ps(_mm512_add_ps(product, _mm512_set1_ps(bias)), offsets);
    (_mm512_cmp_ps_mask::<_CMP_GE_OQ>(scores, thresholds), scores)
}

/// Writes down what passes of 16 rows and 16 queries.
#[cold]
#[target_feature(enable = "avx512f")]
fn note(first_query: usize, sixteen: &Sixteen, rows: Rows<'_>, sums: &Sums, passed: &mut Vec<Passed>) {
    let first_query =
        u32::try_from(first_query).unwrap_or_else(|_| unreachable!("far fewer queries share a pass"));
    let biases = rows.biases_at::<TILE>(0);
    for (((row, sums), &scale), &bias) in (rows.first..).zip(&sums.0).zip(rows.scales).zip(biases) {
        let (mut passing, scores) = passing_queries(sixteen, scale, bias, sums);
        let mut written = [0.0f32; TILE];
        // SAFETY: writes the 64 bytes of the array.
        unsafe { _mm512_storeu_ps(written.as_mut_ptr(), scores) };
        while passing != 0 {
            let column = passing.trailing_zeros();
            passing &= passing - 1;
            passed.push(Passed { query: first_query + column, row, score: written[column as usize] });
        }
    }
}
