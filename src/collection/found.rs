//! What a search has found so far, and how it comes to its answer.
//!
//! Usually the rows with the best scores from codes are scored again from their originals, a few times as many as are
//! wanted. An exact search is proved: `Bounds` says between which a row's true score lies, so a row whose highest possible
//! score is below the k-th best lowest one cannot be among the best. All others are scored again.
//!
//! Where a look at a row's sketch may spare it the look at its code, rows are also left out whose score from codes is below the k-th
//! best by more than their own code may be off: [`Found::needed`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::RowId;
use super::search::{Hit, Hits, SearchRequest};
use crate::vector::arena::Run;
use crate::vector::bounds::Bounds;
use crate::vector::kernel::prefetch;
use crate::vector::{Query, TopK};

/// Candidates that are scored again from their originals, for each result asked for.
const RESCORE_FACTOR: usize = 4;
/// Candidates that are scored again at least.
const MIN_RESCORED: usize = 40;
/// Originals that are looked up together, and that are asked for ahead of the one being scored.
const RESOLVED_TOGETHER: usize = 64;
const VECTORS_AHEAD: usize = 3;
/// Candidates of an exact search from which on those that have fallen out are dropped.
const MIN_DROPPED: usize = 4096;

/// See the module's text.
pub(super) struct Found {
    /// The best scores from codes; for a proof, the best of the lowest possible true scores.
    pub best: TopK,
    /// Unless for a proof: as many of the best scores from codes as results are wanted.
    wanted: TopK,
    /// Shared with the other threads of the pass.
    floor: Arc<Floor>,
    /// For a proof: rows that may be among the best, with the highest possible score.
    candidates: Vec<(f32, u64)>,
    /// When candidates are looked through next.
    drop_at: usize,
}

/// The highest k-th best that one of the threads of a pass has found for a search, as a number that is ordered alike.
pub(super) struct Floor(AtomicU32);

impl Default for Floor {
    fn default() -> Self {
        Self(AtomicU32::new(Self::number(f32::NEG_INFINITY)))
    }
}

impl Floor {
    const SIGN: u32 = 1 << 31;

    fn number(score: f32) -> u32 {
        let bits = score.to_bits();
        if bits & Self::SIGN == 0 { bits | Self::SIGN } else { !bits }
    }

    /// Raises it to a score, and tells the highest.
    fn raise(&self, score: f32) -> f32 {
        let (known, number) = (self.0.load(Ordering::Relaxed), Self::number(score));
        if number > known {
            self.0.fetch_max(number, Ordering::Relaxed);
        }
        let highest = known.max(number);
        f32::from_bits(if highest & Self::SIGN == 0 { !highest } else { highest ^ Self::SIGN })
    }
}

impl Found {
    pub fn new(request: &SearchRequest) -> Self {
        Self::sharing(request, Arc::default())
    }

    /// For one of several threads that search for the same.
    pub fn sharing(request: &SearchRequest, floor: Arc<Floor>) -> Self {
        let wanted = request.count.saturating_mul(RESCORE_FACTOR).max(MIN_RESCORED).max(request.effort);
        let kept = if request.exact { request.count } else { wanted };
        let best = TopK::new(kept);
        Self { best, wanted: TopK::new(request.count), floor, candidates: Vec::new(), drop_at: MIN_DROPPED }
    }

    /// Adds what another thread has found.
    pub fn merge(&mut self, other: Self) {
        self.best.merge(other.best);
        self.candidates.extend(other.candidates);
    }

    /// Takes the best of neighbouring rows.
    pub fn pick(&mut self, query: &Query, rows: &Run<'_>, live: &[u64], first_row: u64) {
        query.scan(rows, live, self.best.threshold(), &mut |at, score| {
            self.push(score, first_row + at as u64);
            self.best.threshold()
        });
    }

    /// Takes a row by its score from codes.
    pub fn push(&mut self, score: f32, row: u64) {
        self.best.push(score, row);
        self.wanted.push(score, row);
    }

    /// Takes those of neighbouring rows that may be among the best.
    pub fn prove(&mut self, query: &Query, rows: &Run<'_>, live: &[u64], first_row: u64) {
        let bounds = Bounds::new(query);
        let (residual, norm) = (largest(rows.residuals), largest(rows.norms));
        let needed = bounds.needed(self.best.threshold(), residual, norm);
        query.scan(rows, live, needed, &mut |at, score| {
            let (low, high) = bounds.around(score, rows.residuals[at], rows.norms[at]);
            if high >= self.best.threshold() {
                self.candidates.push((high, first_row + at as u64));
                self.best.push(low, first_row + at as u64);
            }
            bounds.needed(self.best.threshold(), residual, norm)
        });
        if self.candidates.len() >= self.drop_at {
            let threshold = self.best.threshold();
            self.candidates.retain(|(high, _)| *high >= threshold);
            self.drop_at = MIN_DROPPED.max(2 * self.candidates.len());
        }
    }

    /// The score from codes without which a row need not be looked at, if residuals and norms are these at most. Unless for a
    /// proof, the k-th best score from codes is taken for a true one: then what is left out could be among the best only if the
    /// codes of two rows were off as far as can be, in opposite directions.
    pub fn needed(&self, request: &SearchRequest, residual: f32, norm: f32) -> f32 {
        let kth = self.floor.raise(if request.exact { &self.best } else { &self.wanted }.threshold());
        let bounds = Bounds::new(&request.query);
        let needed = bounds.needed(kth, residual, norm);
        if request.exact { needed } else { self.best.threshold().max(needed) }
    }

    /// The rows to be scored again, ascending, so that originals are read in their order.
    fn doubtful(self, request: &SearchRequest) -> Vec<u64> {
        let mut rows: Vec<u64> = if request.exact {
            let lowest = self.best.kth().unwrap_or(f32::NEG_INFINITY);
            self.candidates.into_iter().filter(|(high, _)| *high >= lowest).map(|(_, row)| row).collect()
        } else {
            self.best.into_sorted().into_iter().map(|(_, row)| row).collect()
        };
        rows.sort_unstable();
        rows
    }

    /// The answer.
    pub fn finish(self, request: &SearchRequest) -> Hits {
        let mut best = TopK::new(request.count);
        for rows in self.doubtful(request).chunks(RESOLVED_TOGETHER) {
            let vectors = rows.iter().map(|&row| request.collection.vector(RowId(row)));
            let vectors = vectors.collect::<Result<Vec<_>, _>>()?;
            for (at, (&row, vector)) in rows.iter().zip(&vectors).enumerate() {
                vectors.get(at + VECTORS_AHEAD).inspect(|vector| prefetch(vector));
                best.push(request.query.exact(vector), row);
            }
        }
        let best = best.into_sorted();
        Ok(best.into_iter().map(|(score, row)| Hit { row: RowId(row), score }).collect())
    }
}

/// The largest of numbers that are not negative: their bits are ordered like the numbers, and compared many at a time.
fn largest(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().fold(0, |largest, value| largest.max(value.to_bits())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::collection::search::{Pass, search};
    use crate::collection::{AttributeChange, Collection, Encoded, Params, TextChange};
    use crate::vector::{Layout, Metric, Quantization, exact};

    const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Ip, Metric::L2];

    fn collection(layout: Layout, vectors: &[Vec<f32>]) -> Arc<Collection> {
        let mut collection = Collection::new(0, Params::new(layout));
        for (at, vector) in vectors.iter().enumerate() {
            let encoded = Encoded::new(&collection.params, vector);
            collection.put(&at.to_be_bytes(), vector, &encoded, &AttributeChange::Keep, &TextChange::Keep);
        }
        Arc::new(collection)
    }

    fn request(collection: &Arc<Collection>, query: &[f32], count: usize) -> SearchRequest {
        let query = Query::new(&collection.params.layout, query);
        SearchRequest {
            collection: Arc::clone(collection),
            query,
            count,
            effort: 0,
            exact: true,
            filter: None,
            trace: None,
        }
    }

    /// The best by f64 arithmetic over all vectors, equal scores by number.
    fn best(metric: Metric, vectors: &[Vec<f32>], query: &[f32], count: usize) -> Vec<(f32, usize)> {
        let score = |vector: &[f32]| {
            let (dot, norms) = (exact::dot(query, vector), exact::norm(query) * exact::norm(vector));
            exact::to_f32(match metric {
                Metric::Cosine if norms > 0.0 => (dot / norms).clamp(-1.0, 1.0),
                Metric::Cosine => 0.0,
                Metric::Ip => dot,
                Metric::L2 => -exact::squared_distance(query, vector),
            })
        };
        let mut all: Vec<_> =
            vectors.iter().enumerate().map(|(at, vector)| (score(vector) + 0.0, at)).collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(count);
        all
    }

    fn check(layout: Layout, vectors: &[Vec<f32>], query: &[f32], count: usize) -> Result<(), TestCaseError> {
        let collection = collection(layout, vectors);
        let hits = search(vec![request(&collection, query, count)]).pop().unwrap().unwrap();
        let name = |hit: &Hit| usize::from_be_bytes(collection.name(hit.row).try_into().unwrap());
        let hits: Vec<(f32, usize)> = hits.iter().map(|hit| (hit.score, name(hit))).collect();
        prop_assert_eq!(hits, best(layout.metric, vectors, query, count), "{:?}", layout);
        Ok(())
    }

    /// Vectors around a few centres, some of them equal, some zero, some with outliers, of all sizes.
    fn vectors() -> impl Strategy<Value = Vec<Vec<f32>>> {
        let row = (0..5usize, 0..40u32, prop_oneof![6 => Just(0i32), 1 => -42..37], 0..20usize);
        (2..40usize, proptest::collection::vec(row, 1..300)).prop_map(|(dim, rows)| {
            let component = |centre: usize, noise: u32, size: i32, outlier: usize, at: usize| {
                let base = ((centre * 31 + at) as f32 * 0.7).sin();
                let noise = ((noise as usize * 17 + at) as f32 * 1.3).sin() * 0.01;
                let factor = if at == outlier { 50.0 } else { 1.0 };
                if centre == 4 && outlier == 0 { 0.0 } else { (base + noise) * factor * 10f32.powi(size) }
            };
            let vector = |&(centre, noise, size, outlier): &(usize, u32, i32, usize)| {
                (0..dim).map(|at| component(centre, noise, size, outlier, at)).collect()
            };
            rows.iter().map(vector).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn exact_answers_equal_brute_force(
            vectors in vectors(),
            query in any::<prop::sample::Index>(),
            metric in 0usize..3,
            quantization in
                prop_oneof![4 => Just(Quantization::Int8), 1 => Just(Quantization::F32), 1 => Just(Quantization::Bin)],
            count in prop_oneof![Just(1usize), 1..20usize, Just(1000)],
        ) {
            let layout = Layout { dim: vectors[0].len(), metric: METRICS[metric], quantization };
            let query = &vectors[query.index(vectors.len())];
            check(layout, &vectors, query, count)?;
        }
    }

    #[test]
    fn a_floor_only_rises() {
        let floor = Floor::default();
        let raised = [-3.0, -5.0, -0.5, 0.0, 2.0, 1.0].map(|score| floor.raise(score));
        assert_eq!(raised, [-3.0, -3.0, -0.5, 0.0, 2.0, 2.0]);
        assert_eq!(Floor::default().raise(f32::NEG_INFINITY), f32::NEG_INFINITY);
    }

    #[test]
    fn a_proof_reads_few_originals() {
        // 4,000 vectors around 40 centres, of different norms.
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            f32::from(u16::try_from(state >> 48).unwrap()) / 65_536.0 - 0.5
        };
        let centres: Vec<Vec<f32>> = (0..40).map(|_| (0..32).map(|_| noise()).collect()).collect();
        let vectors: Vec<Vec<f32>> = (0..4000)
            .map(|at| {
                centres[at % 40].iter().map(|x| (x + noise() * 0.3) * (1.0 + (at % 7) as f32 * 0.1)).collect()
            })
            .collect();
        for metric in METRICS {
            let layout = Layout { dim: 32, metric, quantization: Quantization::Int8 };
            let collection = collection(layout, &vectors);
            for query in vectors.iter().step_by(400) {
                let pass = Pass::new(vec![request(&collection, query, 10)]);
                let (found, request) = pass.scan_alone();
                let rows = found.doubtful(request).len();
                assert!((10..200).contains(&rows), "{metric:?}: {rows} of 4,000 originals are read");
            }
            check(layout, &vectors, &vectors[7], 10).unwrap();
        }
    }
}
