//! The inner loop of a scan: dot products of one int8 query with many rows of codes.
//!
//! A row byte is the component plus 128 (unsigned); the query is signed. Every kernel answers the exact integer
//! sum over (byte - 128) * query, so all of them agree bit for bit; `scalar.rs` is the plain one the tests compare
//! the others with. Each instruction set has a type whose constructor checks that this CPU has it, so holding a
//! [`Kernel`] is the proof that calling it is sound. This folder is where `unsafe` lives.

use std::sync::OnceLock;

use super::{CODE_ALIGN_BYTES, MAX_DIM};

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_block;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512Vnni;

/// Added to a component to make it a row byte.
pub const CODE_OFFSET: u8 = 128;

/// How far ahead of a scan memory is asked for. A scan waits for memory, not for arithmetic. Measured on one Zen 4
/// with 38 and 77 MB of rows: rows one after the other and this distance read fastest; four or sixteen rows side by
/// side were up to twice as slow.
#[cfg(target_arch = "x86_64")]
const PREFETCH_BYTES: usize = 16 * 1024;

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
    /// 512-bit `vpdpbusd`: 64 products and their sums in one instruction.
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(Avx512Vnni),
}

impl Kernel {
    /// The fastest kernel of this CPU, chosen once.
    pub fn active() -> Kernel {
        static ACTIVE: OnceLock<Kernel> = OnceLock::new();
        *ACTIVE.get_or_init(|| Kernel::supported().first().copied().unwrap_or(Kernel::Scalar))
    }

    /// All kernels this CPU can run, fastest first. The last is always [`Kernel::Scalar`].
    pub fn supported() -> Vec<Kernel> {
        #[cfg(target_arch = "x86_64")]
        let fast = [Avx512Vnni::new().map(Kernel::Avx512Vnni), Avx2::new().map(Kernel::Avx2)];
        #[cfg(not(target_arch = "x86_64"))]
        let fast: [Option<Kernel>; 0] = [];
        fast.into_iter().flatten().chain([Kernel::Scalar]).collect()
    }

    /// The kernel called `name`, if this CPU can run it.
    pub fn by_name(name: &str) -> Option<Kernel> {
        Kernel::supported().into_iter().find(|kernel| kernel.name() == name)
    }

    /// Its name: `scalar`, `avx2` or `avx512vnni`.
    pub fn name(self) -> &'static str {
        match self {
            Kernel::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni(_) => "avx512vnni",
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
            Kernel::Avx512Vnni(kernel) => kernel.dot_rows(query, rows, out),
        }
    }
}

/// Rows that a kernel takes at a time when it screens for several queries.
pub const BLOCK_ROWS: usize = 64;

/// A query that screens rows: one passes if `dot * scale * factor + bias + offset` reaches the threshold, where `dot` is
/// that of the codes, and `scale` and `bias` are the row's.
#[derive(Clone, Copy, Debug)]
pub struct Screen<'a> {
    /// The query.
    pub codes: &'a QueryCodes,
    /// Multiplied with the dot product and the row's scale.
    pub factor: f32,
    /// Added to it.
    pub offset: f32,
    /// Scores from here on pass; a NaN never does.
    pub threshold: f32,
}

/// A row that passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passed {
    /// Which of the queries.
    pub query: u32,
    /// Which of the rows.
    pub row: u32,
    /// Its score.
    pub score: f32,
}

impl Kernel {
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
        #[cfg(target_arch = "x86_64")]
        if let Kernel::Avx512Vnni(kernel) = self
            && screens.len() >= avx512_block::MIN_QUERIES
        {
            return avx512_block::screen(kernel, screens, rows, scales, biases, passed);
        }
        self.screen_one_by_one(screens, 0, rows, scales, biases, passed);
    }

    /// As [`Kernel::screen`], a query at a time; `first_row` is added to the numbers of the rows.
    fn screen_one_by_one(
        self,
        screens: &[Screen<'_>],
        first_row: u32,
        rows: &[u8],
        scales: &[f32],
        biases: &[f32],
        passed: &mut Vec<Passed>,
    ) {
        let mut dots = vec![0; scales.len()];
        for (query, screen) in (0..).zip(screens) {
            self.dot_rows(screen.codes, rows, &mut dots);
            for (at, (&dot, &scale)) in dots.iter().zip(scales).enumerate() {
                let bias = biases.get(at).copied().unwrap_or(0.0);
                let score = dot as f32 * scale * screen.factor + bias + screen.offset;
                if score >= screen.threshold {
                    #[expect(clippy::cast_possible_truncation, reason = "a block has far fewer rows")]
                    passed.push(Passed { query, row: first_row + at as u32, score });
                }
            }
        }
    }
}

/// The bytes of little-endian f32s as f32s without copying; `None` when the memory or the CPU does not allow it.
pub fn as_f32(bytes: &[u8]) -> Option<&[f32]> {
    if cfg!(target_endian = "big") {
        return None;
    }
    // SAFETY: every bit pattern is a valid f32, and `align_to` only returns whole, aligned ones.
    let (before, floats, after) = unsafe { bytes.align_to::<f32>() };
    (before.is_empty() && after.is_empty()).then_some(floats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, in i64, without any of the kernels' tricks.
    fn dot_slowly(query: &[i8], row: &[u8]) -> i64 {
        query.iter().zip(row).map(|(&q, &v)| i64::from(q) * (i64::from(v) - 128)).sum()
    }

    fn check_all_kernels(codes: &[i8], rows: &[u8], row_count: usize) -> Result<(), TestCaseError> {
        let query = QueryCodes::new(codes);
        let expected: Vec<i64> =
            rows.chunks_exact(query.codes.len()).map(|row| dot_slowly(&query.codes, row)).collect();
        prop_assert_eq!(expected.len(), row_count);
        for kernel in Kernel::supported() {
            let mut out = vec![i32::MIN; row_count];
            kernel.dot_rows(&query, rows, &mut out);
            let out: Vec<i64> = out.into_iter().map(i64::from).collect();
            prop_assert_eq!(&out, &expected, "{}", kernel.name());
            check_screen(kernel, &query, rows, &expected)?;
        }
        Ok(())
    }

    /// Screening with several queries finds exactly what the plain dot products say.
    fn check_screen(
        kernel: Kernel,
        query: &QueryCodes,
        rows: &[u8],
        dots: &[i64],
    ) -> Result<(), TestCaseError> {
        let zero = QueryCodes::new(&vec![0; query.codes.len()]);
        let scales: Vec<f32> = (0..dots.len()).map(|row| 0.5 + row as f32).collect();
        let biases: Vec<f32> = (0..dots.len()).map(|row| row as f32 - 3.0).collect();
        for (queries, biased) in [(1, false), (3, true), (4, false), (5, true), (9, false)] {
            let screen = |q: usize| Screen {
                codes: if q % 3 == 1 { &zero } else { query },
                factor: 0.25,
                offset: if biased { 2.0 } else { 0.0 },
                threshold: [f32::NEG_INFINITY, 0.0, 1e5, f32::INFINITY][q % 4],
            };
            let screens: Vec<Screen<'_>> = (0..queries).map(screen).collect();
            let biases: &[f32] = if biased { &biases } else { &[] };
            let mut passed = Vec::new();
            kernel.screen(&screens, rows, &scales, biases, &mut passed);
            for (q, screen) in screens.iter().enumerate() {
                let score = |row: usize| {
                    let dot = if q % 3 == 1 { 0.0 } else { dots[row] as f32 };
                    dot * scales[row] * screen.factor + biases.get(row).unwrap_or(&0.0) + screen.offset
                };
                let wanted: Vec<(u32, f32)> = (0..dots.len())
                    .filter(|&row| score(row) >= screen.threshold)
                    .map(|row| (u32::try_from(row).unwrap(), score(row)))
                    .collect();
                let of_query = passed.iter().filter(|passed| passed.query as usize == q);
                let found: Vec<(u32, f32)> = of_query.map(|passed| (passed.row, passed.score)).collect();
                prop_assert_eq!(found, wanted, "{} queries, {}", queries, kernel.name());
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn every_kernel_equals_the_definition(
            dim in 1usize..2100,
            row_count in 0usize..150,
            misalignment in 0usize..64,
            seed in any::<u64>(),
        ) {
            let mut state = seed | 1;
            let mut byte = move || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                state.to_be_bytes()[0]
            };
            let codes: Vec<i8> = (0..dim).map(|_| byte().cast_signed()).collect();
            let stride = dim.next_multiple_of(CODE_ALIGN_BYTES);
            let memory: Vec<u8> = (0..misalignment + row_count * stride).map(|_| byte()).collect();
            check_all_kernels(&codes, &memory[misalignment..], row_count)?;
        }

        #[test]
        fn extremes_neither_saturate_nor_overflow(
            dim in 1usize..2100,
            code in prop_oneof![Just(i8::MIN), Just(-127i8), Just(127i8)],
            byte in prop_oneof![Just(0u8), Just(1), Just(128), Just(255)],
        ) {
            let rows = vec![byte; 19 * dim.next_multiple_of(CODE_ALIGN_BYTES)];
            check_all_kernels(&vec![code; dim], &rows, 19)?;
        }
    }

    #[test]
    fn the_longest_vectors_fit() {
        for (code, byte) in [(127i8, 255u8), (-127, 255), (127, 0), (-127, 0)] {
            check_all_kernels(&vec![code; MAX_DIM], &vec![byte; 2 * MAX_DIM], 2).unwrap();
        }
    }

    #[test]
    fn kernels_are_found_by_name() {
        assert_eq!(Kernel::by_name("scalar"), Some(Kernel::Scalar));
        assert_eq!(Kernel::by_name("abacus"), None);
        for kernel in Kernel::supported() {
            assert_eq!(Kernel::by_name(kernel.name()), Some(kernel));
        }
        assert_eq!(Kernel::active(), Kernel::supported()[0]);
    }

    #[test]
    #[should_panic(expected = "whole rows")]
    fn short_rows_are_refused() {
        Kernel::active().dot_rows(&QueryCodes::new(&[1; 64]), &[0; 64], &mut [0; 2]);
    }
}
