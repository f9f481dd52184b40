//! AVX-VNNI: `vpdpbusd` for 256-bit registers, on CPUs that may lack AVX-512. It multiplies 32 unsigned row bytes by 32
//! signed query codes and adds them up in 8 lanes. The row bytes are 128 too high: [`QueryCodes::offset`].

use std::arch::x86_64::*;

use super::avx2_block::{self, Columns, GROUPS, Register};
use super::{Avx2, Line, Passed, QueryCodes, Reach, Rows, Screen, avx2};

/// Proof that the CPU has AVX2 and AVX-VNNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvxVnni(());

impl AvxVnni {
    /// `None` if this CPU lacks the instructions.
    pub fn new() -> Option<Self> {
        (is_x86_feature_detected!("avxvnni") && Avx2::new().is_some()).then_some(AvxVnni(()))
    }

    /// For a CPU that only lacks `vpdpbusd`, which is emulated.
    #[cfg(test)]
    pub(super) fn emulated() -> Option<Self> {
        super::emulator::install();
        Avx2::new().map(|_| AvxVnni(()))
    }

    /// See [`super::Kernel::dot_rows`], which checks the lengths.
    pub(super) fn dot_rows(self, query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
        // SAFETY: an `AvxVnni` is only made on a CPU that has both features.
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
        // SAFETY: an `AvxVnni` is only made on a CPU that has both features.
        unsafe { avx2_block::reach::<Self>(queries, block_lines, lines, reached) }
    }

    /// See [`super::Kernel::screen_blocks`].
    pub(super) fn screen(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        // SAFETY: an `AvxVnni` is only made on a CPU that has both features.
        unsafe { avx2_block::screen::<Self>(screens, rows, passed) }
    }
}

#[target_feature(enable = "avx2,avxvnni")]
fn dot_rows(query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
    let step = |sum, row, query| _mm256_dpbusd_avx_epi32(sum, row, query);
    // SAFETY: this function has AVX2.
    unsafe { avx2::dot_rows_by(query, rows, query.offset(), out, step) }
}

/// Columns of four bytes, as they are.
impl Columns for AvxVnni {
    const COMPONENTS: usize = 4;

    fn words(query: &QueryCodes) -> impl Iterator<Item = i32> {
        let fours = query.codes().as_chunks().0.iter();
        fours.map(|four: &[i8; 4]| i32::from_ne_bytes(four.map(i8::cast_unsigned)))
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store(fours: __m256i, steps: &mut [[Register; GROUPS]], group: usize) {
        steps[0][group].store(fours);
    }

    #[target_feature(enable = "avx2,avxvnni")]
    unsafe fn sums<const N: usize>(
        words: &[[i32; N]],
        offsets: [i32; N],
        steps: &[[Register; GROUPS]],
    ) -> [[__m256i; GROUPS]; N] {
        let step = |sum, rows, query| _mm256_dpbusd_avx_epi32(sum, rows, query);
        // SAFETY: this function has AVX2.
        unsafe { avx2_block::sums_by(words, offsets, steps, step) }
    }
}
