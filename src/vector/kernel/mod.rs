//! The inner loop of a scan: dot products of one int8 query with many rows of codes.
//!
//! A row byte is the component plus 128 (unsigned); the query is signed. Every kernel answers the exact integer
//! sum over (byte - 128) * query, so all of them agree bit for bit; `scalar.rs` is the plain one the tests compare
//! the others with. Each instruction set has a type whose constructor checks that this CPU has it, so holding a
//! [`Kernel`] is the proof that calling it is sound. This folder is where `unsafe` lives.
//!
//! | file | one query | several queries at once |
//! |---|---|---|
//! | `scalar.rs`, `scan.rs`, `screen.rs` | plain Rust | one after the other |
//! | `avx2.rs`, `avx2_block.rs` | 256-bit integers | columns of 16 rows |
//! | `avx_vnni.rs` | 256-bit `vpdpbusd` | columns of 16 rows, by `avx2_block.rs` |
//! | `avx512.rs`, `avx512_block.rs` | 512-bit `vpdpbusd` | columns of 64 rows |
//! | `amx.rs` | by `avx512.rs` | from 32 on tiles of 16 rows and 16 queries, below by `avx512_block.rs` |
//! | `neon.rs` | 128-bit integers, or `sdot` | tiles of four rows and four queries |
//!
//! `gather.rs` scores rows that lie apart, and asks for their memory ahead; `reach.rs` says which rows of a sketch are worth it.
//! `tests.rs` compares them all with the definition; `emulator.rs` runs there what this CPU lacks.

use std::sync::OnceLock;

use thiserror::Error;

use super::{CODE_ALIGN_BYTES, MAX_DIM};

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx2_block;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_block;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(all(test, target_arch = "x86_64"))]
mod emulator;
mod gather;
#[cfg(target_arch = "aarch64")]
mod neon;
mod reach;
mod scalar;
mod scan;
mod screen;
pub mod sums;

#[cfg(target_arch = "x86_64")]
pub use {amx::Amx, avx_vnni::AvxVnni, avx2::Avx2, avx512::Avx512Vnni};

pub use gather::{ROWS_AHEAD, RowRef, prefetch};
#[cfg(target_arch = "aarch64")]
use neon::Products;
#[cfg(target_arch = "aarch64")]
pub use neon::{Neon, NeonDot};
pub use reach::{BLOCK_LINES, LINE_CODES, LINE_ROWS, Line, Reach};
pub use scan::set_bits;
use screen::Rows;
pub use screen::{Passed, Screen};

/// Added to a component to make it a row byte.
pub const CODE_OFFSET: u8 = 128;

/// How far ahead the AVX2 kernel asks for memory. A scan waits for memory, not for arithmetic.
#[cfg(target_arch = "x86_64")]
const PREFETCH_BYTES: usize = 16 * 1024;

/// Rows are best screened in multiples of this: what is left over costs more.
pub const BLOCK_ROWS: usize = 64;
/// Queries from which turning rows into columns pays.
const MIN_BLOCK_QUERIES: usize = 4;

/// The int8 codes of a query, padded like a row, with what the kernels derive from them once per query.
#[derive(Clone, Debug)]
pub struct QueryCodes {
    codes: Vec<i8>,
    offset: i32,
}

impl QueryCodes {
    /// Pads `codes` with zeros to a multiple of 64. Codes of -128 become -127: the AVX2 kernel needs it.
    ///
    /// # Panics
    /// If there are none or more than [`MAX_DIM`] codes: sums might not fit in an `i32`.
    pub fn new(codes: &[i8]) -> Self {
        assert!((1..=MAX_DIM).contains(&codes.len()), "1 to MAX_DIM codes");
        let mut codes: Vec<i8> = codes.iter().map(|&code| code.max(-i8::MAX)).collect();
        codes.resize(codes.len().next_multiple_of(CODE_ALIGN_BYTES), 0);
        let offset = codes.iter().map(|&code| i32::from(CODE_OFFSET) * i32::from(code)).sum();
        QueryCodes { codes, offset }
    }

    /// Takes the code of a row, which is as long as its own, as the query.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn set_row(&mut self, row: &[u8]) {
        assert_eq!(row.len(), self.codes.len(), "a row as long as the query");
        let mut sum = 0;
        // Sums of 64 codes fit 16 bits, which the compiler adds up several at a time.
        for (codes, row) in self.codes.chunks_mut(CODE_ALIGN_BYTES).zip(row.chunks(CODE_ALIGN_BYTES)) {
            let mut part = 0i16;
            for (code, &byte) in codes.iter_mut().zip(row) {
                *code = (byte ^ CODE_OFFSET).cast_signed().max(-i8::MAX);
                part += i16::from(*code);
            }
            sum += i32::from(part);
        }
        self.offset = i32::from(CODE_OFFSET) * sum;
    }

    /// The padded codes; as many as a row has bytes.
    pub fn codes(&self) -> &[i8] {
        &self.codes
    }

    /// 128 * sum of the codes: what a dot product with the unsigned row bytes has too much.
    pub fn offset(&self) -> i32 {
        self.offset
    }
}

/// A way to compute int8 dot products on this CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Plain Rust; the reference for the others.
    Scalar,
    /// 256-bit integer instructions.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// 256-bit `vpdpbusd`: 32 products and their sums in one instruction.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(AvxVnni),
    /// 512-bit `vpdpbusd`: 64 products and their sums in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
    /// Matrix instructions for many queries at once, 512-bit `vpdpbusd` for few.
    #[cfg(target_arch = "x86_64")]
    Amx(Amx),
    /// 128-bit integer instructions.
    #[cfg(target_arch = "aarch64")]
    Neon(Neon),
    /// 128-bit `sdot`: 16 products and their sums in one instruction.
    #[cfg(target_arch = "aarch64")]
    NeonDot(NeonDot),
}

/// Why a kernel cannot be used. Each displays as one line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum KernelError {
    /// There is none of this name, or this CPU cannot run it.
    #[error("search-kernel cannot be {name:?}: this machine can run auto, {}", supported.join(", "))]
    Unsupported {
        /// The name that was asked for.
        name: String,
        /// The kernels that could be asked for.
        supported: Vec<&'static str>,
    },
    /// The process uses another one already.
    #[error("the kernel {0} is in use")]
    InUse(&'static str),
}

/// The kernel of this process, once it is known.
static ACTIVE: OnceLock<Kernel> = OnceLock::new();

impl Kernel {
    /// The kernel of this process: the selected one, else the fastest.
    pub fn active() -> Kernel {
        *ACTIVE.get_or_init(Kernel::fastest)
    }

    /// Makes the kernel called `name` that of this process; `auto` is the fastest. It cannot be changed later.
    ///
    /// # Errors
    /// If this CPU cannot run it, or another one is in use.
    pub fn select(name: &str) -> Result<(), KernelError> {
        let selected = if name == "auto" { Some(Kernel::fastest()) } else { Kernel::by_name(name) };
        let selected = selected.ok_or_else(|| KernelError::Unsupported {
            name: name.to_owned(),
            supported: Kernel::supported().into_iter().map(Kernel::name).collect(),
        })?;
        let active = *ACTIVE.get_or_init(|| selected);
        if active == selected { Ok(()) } else { Err(KernelError::InUse(active.name())) }
    }

    fn fastest() -> Kernel {
        Kernel::supported().first().copied().unwrap_or(Kernel::Scalar)
    }

    /// All kernels this CPU can run, fastest first. The last is always [`Kernel::Scalar`].
    pub fn supported() -> Vec<Kernel> {
        #[cfg(target_arch = "x86_64")]
        let fast = [
            Amx::new().map(Kernel::Amx),
            Avx512Vnni::new().map(Kernel::Avx512Vnni),
            AvxVnni::new().map(Kernel::AvxVnni),
            Avx2::new().map(Kernel::Avx2),
        ];
        #[cfg(target_arch = "aarch64")]
        let fast = [NeonDot::new().map(Kernel::NeonDot), Neon::new().map(Kernel::Neon)];
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let fast: [Option<Kernel>; 0] = [];
        fast.into_iter().flatten().chain([Kernel::Scalar]).collect()
    }

    /// The kernel called `name`, if this CPU can run it.
    pub fn by_name(name: &str) -> Option<Kernel> {
        Kernel::supported().into_iter().find(|kernel| kernel.name() == name)
    }

    /// Its name, such as `avx512vnni`.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kernel::AvxVnni(_) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni(_) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx(_) => "amx",
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Kernel::NeonDot(_) => "neondot",
        }
    }

    /// Writes the dot product of `query` with each row to `out`. `rows` holds `out.len()` rows, one after the other,
    /// each as long as the padded query.
    ///
    /// # Panics
    /// If the length of `rows` does not match.
    pub fn dot_rows(self, query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
        assert_eq!(rows.len(), out.len() * query.codes.len(), "whole rows, one for each result");
        match self {
            Kernel::Scalar => scalar::dot_rows(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(kernel) => kernel.dot_rows(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Kernel::AvxVnni(kernel) => kernel.dot_rows(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni(kernel) => kernel.dot_rows(query, rows, out),
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx(kernel) => kernel.vnni().dot_rows(query, rows, out),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon(kernel) => kernel.dot_rows(query, rows, out),
            #[cfg(target_arch = "aarch64")]
            Kernel::NeonDot(kernel) => kernel.dot_rows(query, rows, out),
        }
    }

    /// Finds the rows that pass for each of several queries and appends them to `passed`, for each query in the order of
    /// the rows. `scales` has one number per row; `biases` too, or none.
    ///
    /// # Panics
    /// If the lengths do not match, or the queries are not equally long.
    pub fn screen(
        self,
        screens: &[Screen<'_>],
        rows: &[u8],
        scales: &[f32],
        biases: &[f32],
        passed: &mut Vec<Passed>,
    ) {
        let Some(row_bytes) = screens.first().map(|screen| screen.codes.codes.len()) else { return };
        assert!(screens.iter().all(|screen| screen.codes.codes.len() == row_bytes), "equally long queries");
        assert_eq!(rows.len(), scales.len() * row_bytes, "whole rows, one for each scale");
        assert!(biases.is_empty() || biases.len() == scales.len(), "one bias per row, or none");
        let rows = Rows { first: 0, row_bytes, codes: rows, scales, biases };
        let done = self.screen_blocks(screens, rows, passed);
        screen::one_by_one(self, screens, rows.range(done..rows.len()), passed);
    }

    /// Screens as many of the first rows as this kernel can score for all queries at once, and says how many.
    fn screen_blocks(self, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) -> usize {
        if screens.len() < MIN_BLOCK_QUERIES {
            return 0;
        }
        match self {
            Kernel::Scalar => 0,
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(kernel) => kernel.screen(screens, rows, passed),
            #[cfg(target_arch = "x86_64")]
            Kernel::AvxVnni(kernel) => kernel.screen(screens, rows, passed),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni(kernel) => kernel.screen(screens, rows, passed),
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx(kernel) => kernel.screen(screens, rows, passed),
            #[cfg(target_arch = "aarch64")]
            Kernel::Neon(kernel) => kernel.screen(screens, rows, passed),
            #[cfg(target_arch = "aarch64")]
            Kernel::NeonDot(kernel) => kernel.screen(screens, rows, passed),
        }
    }
}

#[cfg(test)]
mod tests;
