//! Every kernel answers what the definition says.

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
fn check_screen(kernel: Kernel, query: &QueryCodes, rows: &[u8], dots: &[i64]) -> Result<(), TestCaseError> {
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
