//! Reaching: which rows of a sketch have at least a certain dot product with which queries.
//!
//! A sketch's rows lie in columns already (see [`Line`]), and all that is asked is a comparison of integers: no scales, no
//! scores. That makes it the cheapest look at a row there is.

use bytemuck::{Pod, Zeroable};

use super::{BLOCK_ROWS, CODE_OFFSET, Kernel, QueryCodes};

/// Rows in a line.
pub const LINE_ROWS: usize = 16;
/// Bytes of a row in a line.
pub const LINE_CODES: usize = 4;
/// Lines in which a block of rows has the same few bytes.
pub const BLOCK_LINES: usize = BLOCK_ROWS / LINE_ROWS;

/// Four bytes of each of 16 rows, one row after the other: what a kernel loads at once. A block of 64 rows has four lines with
/// bytes 0..4 of its rows, then four with bytes 4..8, and so on.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; LINE_ROWS * LINE_CODES]);

// SAFETY: as an array of bytes, for which zero is a value.
unsafe impl Zeroable for Line {}
// SAFETY: an array of bytes and nothing else: as long as it is aligned, so without padding.
unsafe impl Pod for Line {}

/// A query, and the dot product from which on a row is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// The query.
    pub codes: &'a QueryCodes,
    /// Dot products from here on reach.
    pub least: i32,
}

impl Kernel {
    /// For each query, for each block of 64 rows: the bits of the rows that reach. `row_bytes` is a multiple of four; of the
    /// queries' codes the first `row_bytes` count, the others must be 0.
    ///
    /// # Panics
    /// If the lengths do not match.
    pub fn reach(self, queries: &[Reach<'_>], row_bytes: usize, lines: &[Line], reached: &mut [u64]) {
        let block_lines = row_bytes / LINE_CODES * BLOCK_LINES;
        assert!(row_bytes > 0 && row_bytes.is_multiple_of(LINE_CODES), "whole words of a row");
        assert!(lines.len().is_multiple_of(block_lines), "whole blocks");
        assert_eq!(reached.len(), lines.len() / block_lines * queries.len(), "bits of each block and query");
        assert!(queries.iter().all(|query| query.codes.codes.len() >= row_bytes), "queries as long as rows");
        if lines.is_empty() {
            return;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni(kernel) => kernel.reach(queries, block_lines, lines, reached),
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx(kernel) => kernel.vnni().reach(queries, block_lines, lines, reached),
            #[cfg(target_arch = "x86_64")]
            Kernel::AvxVnni(kernel) => kernel.reach(queries, block_lines, lines, reached),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(kernel) => kernel.reach(queries, block_lines, lines, reached),
            #[cfg(target_arch = "aarch64")]
            Kernel::NeonDot(kernel) => kernel.reach(queries, block_lines, lines, reached),
            _ => plain(queries, block_lines, lines, reached),
        }
    }

    /// Whether [`Kernel::reach`] is quick enough to be of use: there are instructions for it.
    pub fn reaches_quickly(self) -> bool {
        match self {
            Kernel::Scalar => false,
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon(_) => false,
            #[cfg(target_arch = "aarch64")]
            Kernel::NeonDot(_) => true,
            #[cfg(target_arch = "x86_64")]
            _ => true,
        }
    }
}

/// Plain Rust: the oracle, and what runs where nothing else does.
pub(super) fn plain(queries: &[Reach<'_>], block_lines: usize, lines: &[Line], reached: &mut [u64]) {
    let blocks = lines.len() / block_lines;
    for (query, reached) in queries.iter().zip(reached.chunks_exact_mut(blocks)) {
        let words = query.codes.codes.as_chunks::<LINE_CODES>().0;
        for (block, reached) in lines.chunks_exact(block_lines).zip(reached) {
            let mut sums = [[0i32; LINE_ROWS]; BLOCK_LINES];
            for (lines, word) in block.as_chunks::<BLOCK_LINES>().0.iter().zip(words) {
                for (sums, line) in sums.iter_mut().zip(lines) {
                    for (sum, bytes) in sums.iter_mut().zip(line.0.as_chunks::<LINE_CODES>().0) {
                        for (&byte, &code) in bytes.iter().zip(word) {
                            *sum += (i32::from(byte) - i32::from(CODE_OFFSET)) * i32::from(code);
                        }
                    }
                }
            }
            let bits = sums.as_flattened().iter().enumerate();
            *reached = bits.fold(0, |bits, (row, &sum)| bits | u64::from(sum >= query.least) << row);
        }
    }
}
