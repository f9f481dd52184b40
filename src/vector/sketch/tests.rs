use proptest::prelude::*;

use super::*;
use crate::vector::arena::Run;
use crate::vector::kernel::{Kernel, Reach};
use crate::vector::{Query, encode};

struct Coded {
    codes: Vec<u8>,
    scalars: Scalars,
}

impl Coded {
    fn new(layout: &Layout, vector: &[f32]) -> Self {
        let mut codes = vec![0; layout.code_bytes()];
        let scalars = encode(layout, vector, &mut codes);
        Self { codes, scalars }
    }

    fn row(&self) -> CodedRow<'_> {
        CodedRow { codes: &self.codes, scalars: self.scalars }
    }

    fn score(&self, query: &Query) -> f32 {
        let biases = [self.scalars.bias];
        let run = Run {
            first: 0,
            codes: &self.codes,
            originals: &[],
            scales: &[self.scalars.scale],
            norms: &[self.scalars.norm],
            residuals: &[self.scalars.residual],
            biases: if query.layout().metric == Metric::L2 { &biases } else { &[] },
        };
        let mut found = f32::NAN;
        query.scan(&run, &[1], f32::NEG_INFINITY, &mut |_, score| {
            found = score;
            score
        });
        found
    }
}

/// Vectors that lie near a few directions.
fn vectors(dim: usize, count: usize, seed: u64, size: f32) -> Vec<Vec<f32>> {
    let mut state = seed | 1;
    let mut noise = move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let around: Vec<Vec<f32>> = (0..6).map(|_| (0..dim).map(|_| noise()).collect()).collect();
    (0..count)
        .map(|_| {
            let weights: Vec<f32> = around.iter().map(|_| noise()).collect();
            let length = 1.0 + noise() * 0.5;
            let at = |i: usize| {
                weights.iter().zip(&around).map(|(weight, direction)| weight * direction[i]).sum::<f32>()
            };
            (0..dim).map(|i| (at(i) + noise() * 0.3 + 0.5) * size * length).collect()
        })
        .collect()
}

fn metrics() -> impl Strategy<Value = Metric> {
    prop_oneof![Just(Metric::Cosine), Just(Metric::Ip), Just(Metric::L2)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// No row is passed over that has the score that was asked for, whatever the sample was.
    #[test]
    fn rows_that_score_reach(
        metric in metrics(),
        dim in 20usize..150,
        row_bytes in (1usize..5).prop_map(|words| words * 4),
        seed in any::<u64>(),
        size in prop_oneof![Just(1.0f32), Just(1e-18), Just(1e15), 0.01f32..100.0],
        strange in any::<bool>(),
    ) {
        let layout = Layout { dim, metric, quantization: Quantization::Int8 };
        let mut all = vectors(dim, 320, seed, size);
        if strange {
            // Rows that no sample foresees.
            let others = vectors(dim, 32, seed ^ 0xabcd, size * 7.0);
            all.splice(100..132, others);
            all[140].fill(0.0);
            all[141].fill(f32::NAN);
            all[142] = vec![size; dim];
        }
        let coded: Vec<Coded> = all.iter().map(|vector| Coded::new(&layout, vector)).collect();
        let sample: Vec<CodedRow<'_>> = coded.iter().take(90).map(Coded::row).collect();
        let found = directions(dim, &sample, row_bytes);
        let Some(basis) = Basis::new(&layout, &found, row_bytes, &sample) else { return Ok(()) };
        let basis = Arc::new(basis);
        let sketch = Sketch::new(&basis, coded.len(), |at| coded[at].row());
        prop_assert_eq!(sketch.rows, 320);
        for query in all.iter().step_by(37).chain(&vectors(dim, 3, !seed, size)) {
            let query = Query::new(&layout, query);
            let Some(sketched) = query.sketched(&basis) else { continue };
            let scores: Vec<f32> = coded.iter().map(|row| row.score(&query)).collect();
            for threshold in scores.iter().copied().step_by(11).chain([f32::NEG_INFINITY]) {
                let reach = Reach { codes: sketched.codes(), least: sketched.least(threshold) };
                let mut reached = vec![0; 5];
                Kernel::active().reach(&[reach], row_bytes, sketch.lines(0..5), &mut reached);
                for (row, &score) in scores.iter().enumerate() {
                    let looked_at = (reached[row / 64] | sketch.always(row / 64)) >> (row % 64) & 1 == 1;
                    prop_assert!(looked_at || score < threshold, "{}: {} >= {}", row, score, threshold);
                }
            }
        }
    }
}

#[test]
fn few_rows_reach_where_a_few_directions_tell_them_apart() {
    for metric in [Metric::Cosine, Metric::Ip, Metric::L2] {
        let layout = Layout { dim: 96, metric, quantization: Quantization::Int8 };
        let all = vectors(96, 6400, 5, 1.0);
        let coded: Vec<Coded> = all.iter().map(|vector| Coded::new(&layout, vector)).collect();
        let sample: Vec<CodedRow<'_>> = coded.iter().step_by(10).map(Coded::row).collect();
        let basis = Arc::new(Basis::new(&layout, &directions(96, &sample, 32), 16, &sample).unwrap());
        let sketch = Sketch::new(&basis, coded.len(), |at| coded[at].row());
        let (mut reaching, mut queries) = (0, 0);
        for vector in all.iter().step_by(640) {
            let query = Query::new(&layout, vector);
            let mut scores: Vec<f32> = coded.iter().map(|row| row.score(&query)).collect();
            scores.sort_by(|a, b| b.total_cmp(a));
            let sketched = query.sketched(&basis).unwrap();
            let reach = Reach { codes: sketched.codes(), least: sketched.least(scores[20]) };
            let mut reached = vec![0; 100];
            Kernel::active().reach(&[reach], 16, sketch.lines(0..100), &mut reached);
            reaching += (0..100).map(|at| (reached[at] | sketch.always(at)).count_ones()).sum::<u32>();
            queries += 1;
        }
        let share = f64::from(reaching) / f64::from(queries) / 6400.0;
        assert!(share < 0.2, "{metric:?}: {share} of all rows");
    }
}

#[test]
fn directions_are_those_in_which_rows_are_long() {
    let layout = Layout { dim: 40, metric: Metric::Ip, quantization: Quantization::Int8 };
    // Long in the first component, less so in the second, hardly in the others.
    let vector = |at: usize| -> Vec<f32> {
        let along = |i: usize| ((at * (i + 3)) as f32 * 0.7).sin();
        (0..40).map(|i| along(i) * [8.0, 3.0].get(i).unwrap_or(&0.2)).collect()
    };
    let coded: Vec<Coded> = (0..500).map(|at| Coded::new(&layout, &vector(at))).collect();
    let sample: Vec<CodedRow<'_>> = coded.iter().map(Coded::row).collect();
    let found = directions(40, &sample, 5);
    assert_eq!(found.len(), 5);
    assert!(found[0][0].abs() > 0.99 && found[1][1].abs() > 0.99, "{found:?}");
    assert!(skew(&found) < 1e-5, "{}", skew(&found));
    // Rows that span no more give no more.
    let flat: Vec<Coded> = (1..50).map(|at| Coded::new(&layout, &[at as f32; 40])).collect();
    let flat: Vec<CodedRow<'_>> = flat.iter().map(Coded::row).collect();
    assert_eq!(directions(40, &flat, 5).len(), 1);
}

#[test]
fn rows_that_are_all_the_same_make_no_basis() {
    let layout = Layout { dim: 40, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let coded = Coded::new(&layout, &[1.0; 40]);
    let sample = vec![coded.row(); 100];
    assert!(Basis::new(&layout, &directions(40, &sample, 8), 8, &sample).is_none());
    assert!(Basis::new(&layout, &directions(40, &[], 8), 8, &[]).is_none());
}
