//! A query prepared once for scoring many rows.

use std::sync::{Arc, OnceLock};

use simsimd::BinarySimilarity;

use super::arena::Run;
use super::exact::{self, to_f32};
use super::kernel::{Kernel, QueryCodes, RowRef, Screen, set_bits};
use super::quant::{Scalars, encode, int8_code};
use super::sketch::{Basis, SketchQuery};
use super::{Layout, Metric, Quantization};

/// One over a norm: within these, products of two vectors neither overflow an f32 nor lose digits at its lower end.
const FAST_SCALES: std::ops::Range<f64> = 1e-15..1e15;

/// A prepared query. It is quantised exactly like a row, so a row of the same vector is its best match.
#[derive(Clone, Debug)]
pub struct Query {
    layout: Layout,
    kernel: Kernel,
    /// As given, for exact scores.
    original: Vec<f32>,
    norm: f64,
    scalars: Scalars,
    codes: Codes,
    /// Its sketch, for the basis that was asked for first.
    sketch: OnceLock<Option<Arc<SketchQuery>>>,
}

/// The query's own code, in the form its scoring loop wants.
#[derive(Clone, Debug)]
enum Codes {
    /// Rows without codes are scored from their originals.
    None,
    Int8(QueryCodes),
    Bin(Vec<u8>),
}

impl Query {
    /// Prepares `vector` (`layout.dim` components) for rows of `layout`. Non-finite components make a query that matches nothing.
    ///
    /// # Panics
    /// If the length does not match, or `layout.dim` is 0 or too large.
    pub fn new(layout: &Layout, vector: &[f32]) -> Self {
        Query::with_kernel(layout, vector, Kernel::active())
    }

    /// As [`Query::new`], with a kernel other than the fastest.
    pub fn with_kernel(layout: &Layout, vector: &[f32], kernel: Kernel) -> Self {
        let mut bytes = vec![0; layout.code_bytes()];
        let scalars = encode(layout, vector, &mut bytes);
        let codes = match layout.quantization {
            Quantization::F32 => Codes::None,
            Quantization::Int8 => {
                let codes: Vec<i8> = bytes[..layout.dim].iter().map(|&byte| int8_code(byte)).collect();
                Codes::Int8(QueryCodes::new(&codes))
            }
            Quantization::Bin => Codes::Bin(bytes),
        };
        Query {
            layout: *layout,
            kernel,
            original: vector.to_vec(),
            norm: exact::norm(vector),
            scalars,
            codes,
            sketch: OnceLock::new(),
        }
    }

    /// A query that is to take a row's place: see [`Query::set_row`].
    ///
    /// # Panics
    /// As [`Query::new`].
    pub fn blank(layout: &Layout) -> Self {
        Query::new(layout, &vec![0.0; layout.dim])
    }

    /// Makes it the query for what a row of its layout stands for. Then only [`Query::score_each`] tells the truth: there may
    /// be no original.
    ///
    /// # Panics
    /// If the row is not of its layout.
    pub fn set_row(&mut self, row: RowRef<'_>) {
        self.scalars.scale = *row.scale;
        self.scalars.bias = row.bias.copied().unwrap_or(0.0);
        match &mut self.codes {
            Codes::Int8(codes) => codes.set_row(row.bytes),
            Codes::Bin(codes) => codes.copy_from_slice(row.bytes),
            Codes::None => {
                self.original.copy_from_slice(bytemuck::cast_slice(row.bytes));
                self.norm = exact::norm(&self.original);
            }
        }
    }

    /// Writes the scores of rows that lie apart: those of [`Query::scan`], but not cut off at the ends of their range. Never NaN.
    ///
    /// # Panics
    /// If the lengths do not match.
    pub fn score_each(&self, rows: &[RowRef<'_>], out: &mut [f32]) {
        match &self.codes {
            Codes::Int8(codes) => self.kernel.score_each(&self.screen_with(codes, 0.0), rows, out),
            Codes::Bin(query) => {
                rows.iter()
                    .zip(&mut *out)
                    .for_each(|(row, out)| *out = self.score_signs(query, row.bytes, *row.scale));
            }
            Codes::None => rows.iter().zip(&mut *out).for_each(|(row, out)| {
                *out = self.score_original(bytemuck::cast_slice(row.bytes), *row.scale)
            }),
        }
        // Of two numbers one of which is NaN, `max` takes the other.
        out.iter_mut().for_each(|score| *score = score.max(f32::MIN));
    }

    /// The shape of the rows it scores.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The scalars of its own code. `residual` bounds what quantising the query can change.
    pub fn scalars(&self) -> &Scalars {
        &self.scalars
    }

    /// Scores neighbouring rows and offers those that are live (bit i % 64 of `live[i / 64]`) and reach the threshold, in their
    /// order: `offer` takes the number of the row within the run and its score, and gives the threshold from then on.
    ///
    /// The score is that of the vectors the two codes stand for: for COSINE and IP with Int8 their inner product, for L2 minus
    /// their squared distance; for Bin 1 - 2 * hamming / dim. Without codes it is [`Query::exact`], summed in f32. It is
    /// always finite.
    ///
    /// # Panics
    /// If the lengths do not match.
    pub fn scan(
        &self,
        rows: &Run<'_>,
        live: &[u64],
        threshold: f32,
        offer: &mut dyn FnMut(usize, f32) -> f32,
    ) {
        match &self.codes {
            Codes::Int8(codes) => {
                let (low, high) = self.score_range();
                let screen = self.screen_with(codes, threshold);
                let mut offer = |at: usize, score: f32| offer(at, score.clamp(low, high));
                self.kernel.scan(&screen, rows.codes, rows.scales, rows.biases, live, &mut offer);
            }
            Codes::Bin(query) => {
                let row_bytes = self.layout.code_bytes();
                let score = |at: usize| {
                    self.score_signs(query, &rows.codes[at * row_bytes..][..row_bytes], rows.scales[at])
                };
                scan_each(rows.scales.len(), live, threshold, score, offer);
            }
            Codes::None => {
                let dim = self.layout.dim;
                let score =
                    |at: usize| self.score_original(&rows.originals[at * dim..][..dim], rows.scales[at]);
                scan_each(rows.scales.len(), live, threshold, score, offer);
            }
        }
    }

    /// [`Query::exact`], summed in f32. `scale` is the row's.
    fn score_original(&self, row: &[f32], scale: f32) -> f32 {
        let query_scale = if self.norm > 0.0 { 1.0 / self.norm } else { 0.0 };
        let scale = f64::from(scale);
        let fast = FAST_SCALES.contains(&scale) && FAST_SCALES.contains(&query_scale);
        match self.layout.metric {
            Metric::Cosine if fast => {
                to_f32((exact::fast_dot(&self.original, row) * scale * query_scale).clamp(-1.0, 1.0))
            }
            Metric::Cosine => self.exact(row),
            Metric::Ip => finite_or(exact::fast_dot(&self.original, row), 0.0),
            Metric::L2 => finite_or(0.0 - exact::fast_squared_distance(&self.original, row), f32::MIN),
        }
    }

    /// The score of a row's f32 original, to about 1e-7 relative to the product of the norms; equal for equal inputs.
    /// Zero or non-finite vectors score 0; under L2 non-finite ones score [`f32::MIN`], the worst.
    pub fn exact(&self, original: &[f32]) -> f32 {
        match self.layout.metric {
            Metric::Cosine => {
                let (dot, norm) = exact::dot_and_norm(&self.original, original);
                let norms = self.norm * norm;
                let has_direction = norms > 0.0 && norms.is_finite();
                if has_direction { to_f32((dot / norms).clamp(-1.0, 1.0)) } else { 0.0 }
            }
            Metric::Ip => finite_or(exact::dot(&self.original, original), 0.0),
            // Not -x: a distance of 0 must not become -0.
            Metric::L2 => finite_or(0.0 - exact::squared_distance(&self.original, original), f32::MIN),
        }
    }

    /// The range of a score; rounding and overflow are cut off at its ends.
    fn score_range(&self) -> (f32, f32) {
        match self.layout.metric {
            Metric::Cosine => (-1.0, 1.0),
            Metric::Ip => (f32::MIN, f32::MAX),
            Metric::L2 => (f32::MIN, 0.0),
        }
    }

    /// The query as the kernel screens rows with it, for scores from `threshold` on; `None` unless rows are int8. The
    /// scores are those of [`Query::scan`], not cut off at the ends of their range.
    pub fn screen(&self, threshold: f32) -> Option<Screen<'_>> {
        match &self.codes {
            Codes::Int8(codes) => Some(self.screen_with(codes, threshold)),
            Codes::Bin(_) | Codes::None => None,
        }
    }

    /// Its sketch; `None` if rows have none that could say anything about it.
    pub fn sketched(&self, basis: &Basis) -> Option<Arc<SketchQuery>> {
        let Codes::Int8(codes) = &self.codes else { return None };
        let sketch = || SketchQuery::new(basis, codes, self.factor(), self.scalars.bias).map(Arc::new);
        match self.sketch.get_or_init(sketch) {
            Some(known) if known.is_of(basis) => Some(Arc::clone(known)),
            // While a collection gets another basis, its chunks have different ones.
            Some(_) => sketch(),
            None => None,
        }
    }

    /// Times a factor of 0, an overflow would be NaN, and a row that is NaN is never found.
    fn factor(&self) -> f32 {
        self.scalars.scale.max(f32::from_bits(1))
    }

    fn screen_with<'a>(&self, codes: &'a QueryCodes, threshold: f32) -> Screen<'a> {
        let scale = self.factor();
        match self.layout.metric {
            // -||q - x||^2 = 2 q.x - ||x||^2 - ||q||^2
            Metric::L2 => Screen { codes, factor: 2.0 * scale, offset: self.scalars.bias, threshold },
            Metric::Cosine | Metric::Ip => Screen { codes, factor: scale, offset: 0.0, threshold },
        }
    }

    /// Score of a row of signs.
    fn score_signs(&self, query: &[u8], row: &[u8], scale: f32) -> f32 {
        let hamming = u8::hamming(query, row).unwrap_or_else(|| hamming_distance(query, row));
        to_f32(1.0 - hamming * 2.0 / self.layout.dim as f64) * scale * self.scalars.scale
    }
}

/// Offers the live rows whose score reaches the threshold, scored one by one.
fn scan_each(
    rows: usize,
    live: &[u64],
    mut threshold: f32,
    score: impl Fn(usize) -> f32,
    offer: &mut dyn FnMut(usize, f32) -> f32,
) {
    assert_eq!(live.len(), rows.div_ceil(u64::BITS as usize), "a live bit for every row");
    for (word, &live) in live.iter().enumerate() {
        for at in set_bits(live).map(|bit| word * u64::BITS as usize + bit).take_while(|&at| at < rows) {
            let score = score(at);
            if score >= threshold {
                threshold = offer(at, score);
            }
        }
    }
}

/// Narrows a finite score to f32.
fn finite_or(score: f64, otherwise: f32) -> f32 {
    if score.is_finite() { to_f32(score) } else { otherwise }
}

/// Number of bits that differ; what simsimd computes faster.
fn hamming_distance(a: &[u8], b: &[u8]) -> f64 {
    f64::from(a.iter().zip(b).map(|(x, y)| (x ^ y).count_ones()).sum::<u32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::decode;
    use proptest::prelude::*;

    const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Ip, Metric::L2];
    const QUANTIZATIONS: [Quantization; 3] = [Quantization::F32, Quantization::Int8, Quantization::Bin];

    #[derive(Default)]
    struct Rows {
        codes: Vec<u8>,
        originals: Vec<f32>,
        scales: Vec<f32>,
        biases: Vec<f32>,
        all: Vec<Scalars>,
    }

    fn encode_all(layout: &Layout, vectors: &[Vec<f32>]) -> Rows {
        let mut rows = Rows::default();
        for vector in vectors {
            let mut row = vec![0; layout.code_bytes()];
            let scalars = encode(layout, vector, &mut row);
            rows.codes.extend(row);
            rows.originals.extend(vector);
            rows.scales.push(scalars.scale);
            rows.biases.push(scalars.bias);
            rows.all.push(scalars);
        }
        rows
    }

    fn scores(query: &Query, rows: &Rows) -> Vec<f32> {
        let with_codes = query.layout.quantization != Quantization::F32;
        let run = Run {
            first: 0,
            codes: &rows.codes,
            originals: if with_codes { &[] } else { &rows.originals },
            scales: &rows.scales,
            biases: if query.layout.metric == Metric::L2 { &rows.biases } else { &[] },
            norms: &[],
            residuals: &[],
        };
        let mut out = vec![f32::NAN; rows.scales.len()];
        let live = vec![u64::MAX; out.len().div_ceil(64)];
        query.scan(&run, &live, f32::NEG_INFINITY, &mut |at, score| {
            out[at] = score;
            f32::NEG_INFINITY
        });
        out
    }

    /// `count` random vectors of one random size, with components in -1..1.
    fn vectors(count: impl Into<proptest::collection::SizeRange>) -> impl Strategy<Value = Vec<Vec<f32>>> {
        let count = count.into();
        (1usize..200).prop_flat_map(move |dim| {
            proptest::collection::vec(proptest::collection::vec(-1.0f32..1.0, dim), count.clone())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_residuals_bound_the_error(vectors in vectors(1..12), metric in 0usize..3, unquantised in any::<bool>()) {
            let quantization = if unquantised { Quantization::F32 } else { Quantization::Int8 };
            let layout = Layout { dim: vectors[0].len(), metric: METRICS[metric], quantization };
            let query = Query::new(&layout, &vectors[0]);
            let rows = encode_all(&layout, &vectors);
            for (i, &score) in scores(&query, &rows).iter().enumerate() {
                let (score, truth) = (f64::from(score), f64::from(query.exact(&vectors[i])));
                let (query_residual, residual) =
                    (f64::from(query.scalars().residual), f64::from(rows.all[i].residual));
                let (query_norm, norm) = (f64::from(query.scalars().norm), f64::from(rows.all[i].norm));
                let (error, bound) = match layout.metric {
                    Metric::Cosine => (score - truth, query_residual + residual),
                    Metric::Ip => (
                        score - truth,
                        query_residual * norm + residual * query_norm + query_residual * residual,
                    ),
                    // The code distance is itself known to f32 accuracy of the squared norms only.
                    Metric::L2 => (
                        (-score).sqrt() - (-truth).sqrt(),
                        query_residual + residual + 1e-3 * (query_norm + norm),
                    ),
                };
                prop_assert!(error.abs() <= bound + 1e-5 * (1.0 + query_norm * norm), "{} {} {}", score, truth, bound);
            }
        }

        #[test]
        fn int8_scores_are_those_of_the_decoded_vectors(vectors in vectors(1..12), metric in 0usize..3) {
            let layout =
                Layout { dim: vectors[0].len(), metric: METRICS[metric], quantization: Quantization::Int8 };
            let query = Query::new(&layout, &vectors[0]);
            let rows = encode_all(&layout, &vectors);
            let decoded: Vec<Vec<f32>> = (rows.codes.chunks_exact(layout.code_bytes()).zip(&rows.all))
                .map(|(codes, scalars)| decode(&layout, codes, scalars))
                .collect();
            // The query is encoded like row 0.
            let decoded_query = Query::new(&layout, &decoded[0]);
            for (i, score) in scores(&query, &rows).into_iter().enumerate() {
                let truth = decoded_query.exact(&decoded[i]);
                let size = query.scalars().norm.max(rows.all[i].norm).max(1.0);
                prop_assert!((score - truth).abs() <= 1e-5 * size * size, "{} {}", score, truth);
            }
        }

        #[test]
        fn every_kernel_gives_the_same_scores(vectors in vectors(300..310), metric in 0usize..3) {
            let layout =
                Layout { dim: vectors[0].len(), metric: METRICS[metric], quantization: Quantization::Int8 };
            let rows = encode_all(&layout, &vectors);
            let expected = scores(&Query::with_kernel(&layout, &vectors[0], Kernel::Scalar), &rows);
            for kernel in Kernel::supported() {
                let query = Query::with_kernel(&layout, &vectors[0], kernel);
                prop_assert_eq!(&scores(&query, &rows), &expected, "{}", kernel.name());
            }
        }

        #[test]
        fn bin_scores_count_equal_signs(vectors in vectors(1..12), metric in 0usize..3) {
            let dim = vectors[0].len();
            let layout = Layout { dim, metric: METRICS[metric], quantization: Quantization::Bin };
            let query = Query::new(&layout, &vectors[0]);
            let rows = encode_all(&layout, &vectors);
            for (vector, score) in vectors.iter().zip(scores(&query, &rows)) {
                let pairs = vector.iter().zip(&vectors[0]);
                let hamming = pairs.filter(|(x, y)| (**x > 0.0) != (**y > 0.0)).count();
                prop_assert!((score - (1.0 - 2.0 * hamming as f32 / dim as f32)).abs() < 1e-6);
            }
        }

        #[test]
        fn exact_scores_match_the_formulas(vectors in vectors(2), magnitude in -10i32..10) {
            let (a, b) = (&vectors[0], &vectors[1]);
            let factor = 10f32.powi(magnitude);
            let b: Vec<f32> = b.iter().map(|x| x * factor).collect();
            let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
            let (x, y) = (wide(a), wide(&b));
            let dot: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            let norms = x.iter().map(|x| x * x).sum::<f64>().sqrt() * y.iter().map(|y| y * y).sum::<f64>().sqrt();
            let distance: f64 = x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum();
            let exact = |metric| {
                let layout = Layout { dim: a.len(), metric, quantization: Quantization::Int8 };
                f64::from(Query::new(&layout, a).exact(&b))
            };
            prop_assert!((exact(Metric::Cosine) - dot / norms).abs() <= 1e-7);
            prop_assert!((exact(Metric::Ip) - dot).abs() <= 1e-7 * norms);
            prop_assert!((exact(Metric::L2) + distance).abs() <= 1e-7 * distance);
        }
    }

    #[test]
    fn a_vector_is_its_own_best_match() {
        for dim in [1, 3, 128, 1000] {
            let vector: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.7).sin() * 3.0 + 0.01).collect();
            for (metric, best) in [(Metric::Cosine, 1.0), (Metric::L2, 0.0)] {
                for quantization in QUANTIZATIONS {
                    let layout = Layout { dim, metric, quantization };
                    let query = Query::new(&layout, &vector);
                    assert_eq!(query.exact(&vector).to_bits(), f32::to_bits(best));
                    if quantization != Quantization::Bin {
                        let score = scores(&query, &encode_all(&layout, std::slice::from_ref(&vector)))[0];
                        assert!((score - best).abs() <= 2e-6 * dim as f32 * 9.0, "{layout:?} {score}");
                    }
                }
            }
        }
    }

    #[test]
    fn vectors_without_direction_score_zero_and_the_worst_distance() {
        let odd = [vec![0.0; 3], vec![f32::NAN, 1.0, 1.0], vec![f32::INFINITY, 1.0, 1.0]];
        let good = [1.0f32, 2.0, 3.0];
        for quantization in QUANTIZATIONS {
            for metric in METRICS {
                let layout = Layout { dim: 3, metric, quantization };
                for (i, vector) in odd.iter().enumerate() {
                    let expected = match (metric, i) {
                        (Metric::L2, 0) => -14.0,
                        (Metric::L2, _) => f32::MIN,
                        _ => 0.0,
                    };
                    let queries =
                        [(Query::new(&layout, &good), &vector[..]), (Query::new(&layout, vector), &good)];
                    for (query, row) in queries {
                        assert_eq!(query.exact(row), expected);
                        let score = scores(&query, &encode_all(&layout, &[row.to_vec()]))[0];
                        let expected = if quantization == Quantization::Bin { 0.0 } else { expected };
                        assert!(
                            score == expected || (score - expected).abs() < 0.2,
                            "{layout:?} {i}: {score}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn scores_of_huge_vectors_are_finite() {
        let vectors = [f32::MAX, f32::MIN, 1.0, 0.0, -1e-45].map(|component| vec![component; 70]);
        for metric in METRICS {
            for quantization in QUANTIZATIONS {
                let layout = Layout { dim: 70, metric, quantization };
                let rows = encode_all(&layout, &vectors);
                for vector in &vectors {
                    let query = Query::new(&layout, vector);
                    assert!(scores(&query, &rows).iter().all(|score| score.is_finite()));
                    assert!(vectors.iter().all(|vector| query.exact(vector).is_finite()));
                }
            }
        }
    }

    #[test]
    fn cosines_of_originals_do_not_depend_on_their_size() {
        let layout = Layout { dim: 40, metric: Metric::Cosine, quantization: Quantization::F32 };
        let vector = |seed: usize, size: f32| -> Vec<f32> {
            (0..40).map(|i| ((i * seed) as f32 * 0.9).sin() * size).collect()
        };
        let sizes = [1e-44, 1e-30, 1e-15, 1.0, 1e15, 1e30, f32::MAX];
        let rows = encode_all(&layout, &sizes.map(|size| vector(3, size)));
        for size in sizes {
            let query = Query::new(&layout, &vector(2, size));
            for (row, score) in scores(&query, &rows).into_iter().enumerate() {
                let exact = query.exact(&rows.originals[row * 40..][..40]);
                assert!((score - exact).abs() <= 1e-6, "{size} {}: {score} {exact}", sizes[row]);
            }
        }
    }
}
