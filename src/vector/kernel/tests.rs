//! Every kernel answers what the definition says: those of this CPU, and those that can be emulated on it.

use super::*;
use proptest::prelude::*;

/// Dimensions up to which all are tested.
const DIMS: usize = 2100;

/// Random bytes, the same for the same seed.
fn noise(seed: usize) -> impl FnMut() -> u8 {
    let mut state = seed as u64 | 1;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_be_bytes()[0]
    }
}

/// Kernels that this CPU lacks but that can be emulated.
fn emulated() -> Vec<Kernel> {
    #[cfg(target_arch = "x86_64")]
    let kernels = [AvxVnni::emulated().map(Kernel::AvxVnni), Amx::emulated().map(Kernel::Amx)];
    #[cfg(not(target_arch = "x86_64"))]
    let kernels: [Option<Kernel>; 0] = [];
    kernels.into_iter().flatten().filter(|kernel| Kernel::by_name(kernel.name()).is_none()).collect()
}

/// Queries and rows with what the definition says about them.
struct Case {
    queries: Vec<QueryCodes>,
    rows: Vec<u8>,
    row_count: usize,
    /// For each query, for each row: in i64, without any of the kernels' tricks.
    dots: Vec<Vec<i64>>,
}

impl Case {
    fn new(queries: &[Vec<i8>], rows: Vec<u8>) -> Self {
        let queries: Vec<QueryCodes> = queries.iter().map(|codes| QueryCodes::new(codes)).collect();
        let row_bytes = queries[0].codes.len();
        let dot = |query: &QueryCodes, row: &[u8]| -> i64 {
            query.codes.iter().zip(row).map(|(&q, &v)| i64::from(q) * (i64::from(v) - 128)).sum()
        };
        let dots =
            queries.iter().map(|query| rows.chunks_exact(row_bytes).map(|row| dot(query, row)).collect());
        Case { dots: dots.collect(), row_count: rows.len() / row_bytes, queries, rows }
    }

    fn random(dim: usize, query_count: usize, row_count: usize) -> Self {
        let mut byte = noise(dim * 1000 + query_count * 100 + row_count);
        let queries: Vec<Vec<i8>> =
            (0..query_count).map(|_| (0..dim).map(|_| byte().cast_signed()).collect()).collect();
        let stride = dim.next_multiple_of(CODE_ALIGN_BYTES);
        Case::new(&queries, (0..row_count * stride).map(|_| byte()).collect())
    }

    fn constant(dim: usize, query_count: usize, row_count: usize, code: i8, byte: u8) -> Self {
        let stride = dim.next_multiple_of(CODE_ALIGN_BYTES);
        Case::new(&vec![vec![code; dim]; query_count], vec![byte; row_count * stride])
    }

    fn check(&self, kernel: Kernel) {
        for (query, dots) in self.queries.iter().zip(&self.dots) {
            let mut out = vec![i32::MIN; self.row_count];
            kernel.dot_rows(query, &self.rows, &mut out);
            let out: Vec<i64> = out.into_iter().map(i64::from).collect();
            assert_eq!(&out, dots, "{}, {} bytes", kernel.name(), query.codes.len());
        }
        self.check_screen(kernel, false);
        self.check_screen(kernel, true);
        self.check_scan(kernel);
        self.check_each(kernel);
    }

    /// Rows that lie apart score as they do in a scan.
    fn check_each(&self, kernel: Kernel) {
        let (codes, dots) = (&self.queries[0], &self.dots[0]);
        let scales: Vec<f32> = (0..self.row_count).map(|row| 0.5 + row as f32).collect();
        let backwards = (0..self.row_count).rev();
        let rows: Vec<RowRef<'_>> = backwards
            .map(|row| RowRef {
                bytes: &self.rows[row * codes.codes.len()..][..codes.codes.len()],
                scale: &scales[row],
                bias: (row % 2 == 0).then_some(&scales[0]),
            })
            .collect();
        let mut scores = vec![f32::NAN; rows.len()];
        let screen = Screen { codes, factor: 0.25, offset: 2.0, threshold: 0.0 };
        kernel.score_each(&screen, &rows, &mut scores);
        for (row, score) in scores.into_iter().rev().enumerate() {
            let bias = if row % 2 == 0 { 0.5 } else { 0.0 };
            assert_eq!(score, dots[row] as f32 * scales[row] * 0.25 + bias + 2.0, "{}", kernel.name());
        }
    }

    /// A scan offers exactly the live rows that reach the threshold of that moment.
    fn check_scan(&self, kernel: Kernel) {
        let scales: Vec<f32> = (0..self.row_count).map(|row| 0.5 + row as f32).collect();
        let biases: Vec<f32> = (0..self.row_count).map(|row| row as f32 - 3.0).collect();
        let (codes, dots) = (&self.queries[0], &self.dots[0]);
        for live_pattern in [u64::MAX, 0, 0x8000_0000_0000_0001, 0x00ff_5555_0008_1000] {
            let live = vec![live_pattern; self.row_count.div_ceil(64)];
            for (biases, rises) in [(&[][..], false), (&biases[..], true)] {
                let screen = Screen { codes, factor: 0.25, offset: 2.0, threshold: f32::NEG_INFINITY };
                let mut threshold = f32::NEG_INFINITY;
                let mut expected = Vec::new();
                for (row, &dot) in dots.iter().enumerate() {
                    let score = dot as f32 * scales[row] * 0.25 + biases.get(row).unwrap_or(&0.0) + 2.0;
                    if live_pattern >> (row % 64) & 1 == 1 && score >= threshold {
                        expected.push((row, score));
                        threshold = if rises { score } else { threshold };
                    }
                }
                let mut offered = Vec::new();
                kernel.scan(&screen, &self.rows, &scales, biases, &live, &mut |row, score| {
                    offered.push((row, score));
                    if rises { score } else { f32::NEG_INFINITY }
                });
                assert_eq!(offered, expected, "{} {live_pattern:x}", kernel.name());
            }
        }
    }

    /// Screening finds exactly what the plain dot products say, scores equal to the last bit.
    fn check_screen(&self, kernel: Kernel, biased: bool) {
        const THRESHOLDS: [f32; 7] = [f32::NEG_INFINITY, 0.0, 1e5, f32::INFINITY, -1e4, f32::NAN, 64.0];
        const FACTORS: [f32; 8] = [0.25, 1.0, -0.5, 0.1, 0.0, 1e38, f32::NAN, 2.0];
        const ODD: [f32; 4] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0];
        // Every seventh row has odd numbers, at different places for scales and biases.
        let mixed = |row: usize, plain: f32| if row % 7 == 3 { ODD[row / 7 % 4] } else { plain };
        let scales: Vec<f32> = (0..self.row_count).map(|row| mixed(row + 1, 0.5 + row as f32)).collect();
        let biases: Vec<f32> = (0..self.row_count).map(|row| mixed(row, row as f32 - 3.0)).collect();
        let biases = if biased { &biases[..] } else { &[] };
        let screen = |(number, codes)| Screen {
            codes,
            factor: FACTORS[number % 8],
            offset: if biased { number as f32 - 2.0 } else { 0.0 },
            threshold: THRESHOLDS[number % 7],
        };
        let screens: Vec<Screen<'_>> = self.queries.iter().enumerate().map(screen).collect();
        let mut passed = Vec::new();
        kernel.screen(&screens, &self.rows, &scales, biases, &mut passed);
        let mut found = vec![Vec::new(); screens.len()];
        passed
            .iter()
            .for_each(|passed| found[passed.query as usize].push((passed.row, passed.score.to_bits())));
        for ((screen, dots), found) in screens.iter().zip(&self.dots).zip(found) {
            let score = |row: usize| {
                let bias = biases.get(row).unwrap_or(&0.0);
                dots[row] as f32 * scales[row] * screen.factor + bias + screen.offset
            };
            let wanted: Vec<(u32, u32)> = (0..self.row_count)
                .filter(|&row| score(row) >= screen.threshold)
                .map(|row| (u32::try_from(row).unwrap(), score(row).to_bits()))
                .collect();
            let bytes = screen.codes.codes.len();
            assert_eq!(found, wanted, "{}, {} queries, {bytes} bytes", kernel.name(), screens.len());
        }
    }
}

#[test]
fn every_kernel_equals_the_definition_at_every_dimension() {
    for dim in 1..=DIMS {
        // Kernels see the padded length only: larger shapes where it changes.
        let (queries, rows) = if dim % CODE_ALIGN_BYTES <= 1 { (5 + dim / 64 % 4, 65) } else { (1, 5) };
        let case = Case::random(dim, queries, rows);
        Kernel::supported().into_iter().for_each(|kernel| case.check(kernel));
    }
}

#[test]
fn emulated_kernels_equal_the_definition_at_every_length() {
    for kernel in emulated() {
        // Few rows: each emulated instruction is a signal.
        for dim in (CODE_ALIGN_BYTES..DIMS + CODE_ALIGN_BYTES).step_by(CODE_ALIGN_BYTES) {
            Case::random(dim, 1, 3).check(kernel);
            Case::random(dim, 4, 16).check_screen(kernel, true);
        }
        for queries in 1..10 {
            Case::random(60, queries, 65).check(kernel);
        }
    }
}

/// Tiles are neither filled by queries nor by rows; blocks of rows are one or several.
#[cfg(target_arch = "x86_64")]
#[test]
fn amx_equals_the_definition_with_any_number_of_queries_and_rows() {
    let Some(kernel) =
        Kernel::supported().into_iter().chain(emulated()).find(|kernel| kernel.name() == "amx")
    else {
        return;
    };
    for (queries, rows) in [(32, 1), (33, 31), (64, 32), (65, 33), (48, 63), (40, 64), (32, 300), (300, 65)] {
        for dim in [1, 65, 200] {
            let case = Case::random(dim, queries, rows);
            case.check_screen(kernel, false);
            case.check_screen(kernel, true);
        }
    }
    for dim in (CODE_ALIGN_BYTES..=DIMS).step_by(CODE_ALIGN_BYTES) {
        Case::random(dim, 33, 33).check_screen(kernel, true);
    }
}

#[test]
fn extremes_neither_saturate_nor_overflow() {
    for code in [i8::MIN, -127, 0, 127] {
        for byte in [0, 1, 128, 255] {
            for rows in [0, 1, 63, 64, 65] {
                for dim in [1, 64, 65, 1000] {
                    let case = Case::constant(dim, 9, rows, code, byte);
                    Kernel::supported().into_iter().for_each(|kernel| case.check(kernel));
                }
            }
            let case = Case::constant(60, 33, 17, code, byte);
            emulated().into_iter().for_each(|kernel| case.check_screen(kernel, true));
        }
    }
}

#[test]
fn the_longest_vectors_fit() {
    for (code, byte) in [(127, 255), (-127, 255), (127, 0), (-127, 0)] {
        let case = Case::constant(MAX_DIM, 4, 17, code, byte);
        Kernel::supported().into_iter().for_each(|kernel| case.check(kernel));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_may_lie_anywhere_in_memory(
        dim in 1usize..300,
        query_count in 1usize..40,
        row_count in 0usize..150,
        misalignment in 0usize..64,
    ) {
        let case = Case::random(dim, query_count, row_count);
        let mut memory = vec![0; misalignment];
        memory.extend(&case.rows);
        for kernel in Kernel::supported() {
            for (query, dots) in case.queries.iter().zip(&case.dots) {
                let mut out = vec![i32::MIN; row_count];
                kernel.dot_rows(query, &memory[misalignment..], &mut out);
                prop_assert!(out.into_iter().map(i64::from).eq(dots.iter().copied()), "{}", kernel.name());
            }
            case.check_screen(kernel, row_count % 2 == 0);
        }
    }
}

/// Blocks of rows in columns as [`Line`] says, against the definition, in i64.
fn check_reach(
    kernel: Kernel,
    row_bytes: usize,
    queries: usize,
    blocks: usize,
    mut byte: impl FnMut() -> u8,
) {
    let rows: Vec<u8> = (0..blocks * BLOCK_ROWS * row_bytes).map(|_| byte()).collect();
    let code = |row: usize, at: usize| rows[row * row_bytes + at];
    let mut lines = Vec::new();
    for block in 0..blocks {
        for word in 0..row_bytes / LINE_CODES {
            for line in 0..BLOCK_LINES {
                let at =
                    |i: usize| (block * BLOCK_ROWS + line * LINE_ROWS + i / 4, word * LINE_CODES + i % 4);
                lines.push(Line(std::array::from_fn(|i| code(at(i).0, at(i).1))));
            }
        }
    }
    let codes: Vec<QueryCodes> = (0..queries)
        .map(|_| QueryCodes::new(&(0..row_bytes).map(|_| byte().cast_signed()).collect::<Vec<_>>()))
        .collect();
    let dots: Vec<Vec<i64>> = (codes.iter())
        .map(|codes| {
            let row = |row| (0..row_bytes).map(move |at| (row, at));
            let product = |(row, at)| i64::from(codes.codes[at]) * (i64::from(code(row, at)) - 128);
            (0..blocks * BLOCK_ROWS).map(|at| row(at).map(product).sum()).collect()
        })
        .collect();
    // What the row in the middle has, and ends.
    let least = |q: usize| match q % 3 {
        0 => i32::try_from(dots[q].get(BLOCK_ROWS / 2).copied().unwrap_or(0)).unwrap(),
        1 => i32::MIN,
        _ => i32::MAX,
    };
    let asked: Vec<Reach<'_>> =
        codes.iter().enumerate().map(|(q, codes)| Reach { codes, least: least(q) }).collect();
    let mut reached = vec![1; queries * blocks];
    kernel.reach(&asked, row_bytes, &lines, &mut reached);
    for (q, (asked, dots)) in asked.iter().zip(&dots).enumerate() {
        for (row, &dot) in dots.iter().enumerate() {
            let bit = reached[q * blocks + row / BLOCK_ROWS] >> (row % BLOCK_ROWS) & 1 == 1;
            assert_eq!(bit, dot >= i64::from(asked.least), "{} {row_bytes} {queries} {row}", kernel.name());
        }
    }
}

#[test]
fn every_kernel_reaches_what_the_definition_says() {
    for row_bytes in [4, 16, 24, 32, 60, 64, 68, 192] {
        for (queries, blocks) in [(1, 3), (2, 1), (3, 2), (4, 1), (5, 2), (11, 1), (1, 0)] {
            for kernel in Kernel::supported() {
                check_reach(kernel, row_bytes, queries, blocks, noise(row_bytes + queries));
            }
        }
    }
    for kernel in emulated() {
        for queries in 1..6 {
            check_reach(kernel, 24, queries, 1, noise(queries));
        }
    }
    for byte in [0, 127, 128, 255] {
        Kernel::supported().into_iter().for_each(|kernel| check_reach(kernel, 192, 5, 1, || byte));
    }
}

#[test]
fn kernels_are_found_by_name() {
    assert_eq!(Kernel::by_name("scalar"), Some(Kernel::Scalar));
    assert_eq!(Kernel::by_name("abacus"), None);
    for kernel in Kernel::supported() {
        assert_eq!(Kernel::by_name(kernel.name()), Some(kernel));
    }
}

#[test]
fn the_kernel_of_the_process_is_selected_once() {
    let refused = Kernel::select("abacus").unwrap_err().to_string();
    assert!(refused.contains("abacus") && refused.ends_with("scalar"), "{refused}");
    assert_eq!(Kernel::select("auto"), Ok(()));
    assert_eq!(Kernel::active(), Kernel::supported()[0]);
    if Kernel::active() != Kernel::Scalar {
        assert_eq!(Kernel::select("scalar"), Err(KernelError::InUse(Kernel::active().name())));
    }
}

#[test]
#[should_panic(expected = "whole rows")]
fn short_rows_are_refused() {
    Kernel::active().dot_rows(&QueryCodes::new(&[1; 64]), &[0; 64], &mut [0; 2]);
}

#[test]
fn a_row_taken_as_the_query_is_its_code() {
    for dim in [1, 64, 65, 700] {
        let mut byte = noise(dim);
        let codes: Vec<i8> = (0..dim).map(|_| byte().cast_signed().max(-127)).collect();
        let expected = QueryCodes::new(&codes);
        let mut row: Vec<u8> = codes.iter().map(|code| code.cast_unsigned() ^ CODE_OFFSET).collect();
        row.resize(dim.next_multiple_of(CODE_ALIGN_BYTES), CODE_OFFSET);
        let mut query = QueryCodes::new(&vec![5; dim]);
        query.set_row(&row);
        assert_eq!((query.codes, query.offset), (expected.codes, expected.offset));
    }
}
