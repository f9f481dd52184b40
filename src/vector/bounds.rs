//! Between which the score of a row's original lies, given the score of its code.
//!
//! Let q and x be the query and a row (for COSINE divided by their norms), q' and x' what their codes stand for.
//!
//! * COSINE and IP: q.x - q'.x' = (q - q').x + q'.(x - x'), hence |q.x - q'.x'| <= |q - q'| |x| + |q'| |x - x'|. A code stands
//!   for the projection of its vector on the code's direction (for COSINE, for a vector of length 1), so |q'| <= |q|.
//! * L2: by the triangle inequality the distances |q - x| and |q' - x'| differ by |q - q'| + |x - x'| at most.
//!
//! |q - q'| and |x - x'| are the residuals. To that comes what computing in f32 loses, u = 2^-24 at each step:
//!
//! * a product of three numbers for COSINE and IP: 3 u |q| |x|;
//! * that product twice, two squared norms, and two additions for L2: 8 u (|q|^2 + |x|^2) at most;
//! * originals without codes are summed in f32, in an order that is not ours to choose: dim u |q| |x| at most, for L2 relative
//!   to the squared distance, which is at most 2 (|q|^2 + |x|^2);
//! * below the smallest normal number digits are lost absolutely.

use super::exact::to_f32;
use super::quant::Scalars;
use super::{Metric, Quantization, Query};

/// Half the distance from 1 to the next f32.
const UNIT_ROUNDOFF: f64 = 1.0 / (1 << 24) as f64;
/// More than the steps of a score and the rounding of the norms lose, relative to the product of the norms.
const STEPS: f64 = 16.0;
/// Beyond this norm an intermediate result may overflow an f32; nothing is claimed then.
const MAX_NORM: f64 = 1e15;

/// What a query's scores from codes say about its true scores.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    metric: Metric,
    /// Whether scores from codes are near true scores at all.
    comparable: bool,
    residual: f64,
    norm: f64,
    /// What f32 arithmetic loses, relative to the product of the norms.
    rounding: f64,
}

/// How far a score from codes may be off.
struct Error {
    /// Because of quantisation: for L2 of the distance, else of the score.
    codes: f64,
    /// Because of f32 arithmetic, of the score.
    arithmetic: f64,
}

impl Bounds {
    /// The bounds for a query.
    pub fn new(query: &Query) -> Self {
        let layout = query.layout();
        let Scalars { norm, residual, .. } = *query.scalars();
        let summed = if layout.quantization == Quantization::F32 { layout.dim as f64 } else { 0.0 };
        Self {
            metric: layout.metric,
            // The share of equal signs tells of the angle only.
            comparable: layout.quantization != Quantization::Bin || layout.metric == Metric::Cosine,
            residual: f64::from(residual),
            norm: if layout.metric == Metric::Cosine { 1.0 } else { f64::from(norm) },
            rounding: (STEPS + summed) * UNIT_ROUNDOFF,
        }
    }

    /// The lowest and the highest score that the original of a row can have, given the score, the residual and the norm of
    /// the row.
    pub fn around(&self, score: f32, residual: f32, norm: f32) -> (f32, f32) {
        let Some(error) = self.error(residual, norm) else {
            return (f32::NEG_INFINITY, f32::INFINITY);
        };
        let score = f64::from(score);
        let (low, high) = match self.metric {
            Metric::Cosine | Metric::Ip => {
                let error = error.codes + error.arithmetic;
                (score - error, score + error)
            }
            Metric::L2 => {
                let far = (error.arithmetic - score).max(0.0).sqrt() + error.codes;
                let near = ((-score - error.arithmetic).max(0.0).sqrt() - error.codes).max(0.0);
                (-far * far, -near * near)
            }
        };
        (to_f32(low).next_down(), to_f32(high).next_up())
    }

    /// The score from codes without which no row reaches `wanted`, if residuals and norms are these at most.
    pub fn needed(&self, wanted: f32, residual: f32, norm: f32) -> f32 {
        let Some(error) = self.error(residual, norm) else {
            return f32::NEG_INFINITY;
        };
        let wanted = f64::from(wanted.next_down());
        let needed = match self.metric {
            Metric::Cosine | Metric::Ip => wanted - error.codes - error.arithmetic,
            Metric::L2 => {
                let reach = (-wanted).max(0.0).sqrt() + error.codes;
                -reach * reach - error.arithmetic
            }
        };
        if needed < f64::from(f32::MIN) { f32::NEG_INFINITY } else { to_f32(needed).next_down() }
    }

    fn error(&self, residual: f32, norm: f32) -> Option<Error> {
        let (residual, norm) = (f64::from(residual), f64::from(norm));
        let norm = if self.metric == Metric::Cosine { 1.0 } else { norm };
        let bounded = self.comparable && norm <= MAX_NORM && self.norm <= MAX_NORM;
        let lost = f64::from(f32::MIN_POSITIVE) * (1.0 + self.norm);
        bounded.then_some(match self.metric {
            Metric::Cosine | Metric::Ip => Error {
                codes: self.residual * norm + residual * self.norm,
                arithmetic: self.rounding * self.norm * norm + lost,
            },
            Metric::L2 => Error {
                codes: self.residual + residual,
                arithmetic: 2.0 * self.rounding * (self.norm * self.norm + norm * norm) + lost,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::arena::Run;
    use crate::vector::{Layout, encode};
    use proptest::prelude::*;

    /// Score of the row's code, its scalars, and the true score in f64.
    fn scored(query: &Query, vector: &[f32]) -> (f32, Scalars, f32) {
        let mut codes = vec![0; query.layout().code_bytes()];
        let scalars = encode(query.layout(), vector, &mut codes);
        let biases = [scalars.bias];
        let run = Run {
            first: 0,
            codes: &codes,
            originals: if codes.is_empty() { vector } else { &[] },
            scales: &[scalars.scale],
            norms: &[scalars.norm],
            residuals: &[scalars.residual],
            biases: if query.layout().metric == Metric::L2 { &biases } else { &[] },
        };
        let mut found = f32::NAN;
        query.scan(&run, &[1], f32::NEG_INFINITY, &mut |_, score| {
            found = score;
            score
        });
        (found, scalars, query.exact(vector))
    }

    fn vectors() -> impl Strategy<Value = (Vec<f32>, Vec<f32>)> {
        let component = prop_oneof![8 => -1.0f32..1.0, 1 => Just(0.0), 1 => -100.0f32..100.0];
        let sizes = (prop_oneof![Just(0i32), -44..38], prop_oneof![Just(0i32), -44..38]);
        let pairs = proptest::collection::vec((component.clone(), component), 1..200);
        (pairs, sizes).prop_map(|(pairs, sizes)| {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let sized = |v: Vec<f32>, size: i32| v.iter().map(|x| x * 10f32.powi(size)).collect();
            (sized(a, sizes.0), sized(b, sizes.1))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn true_scores_lie_between_the_bounds(
            (query, vector) in vectors(),
            near in any::<bool>(),
            metric in prop_oneof![Just(Metric::Cosine), Just(Metric::Ip), Just(Metric::L2)],
            quantization in
                prop_oneof![3 => Just(Quantization::Int8), 1 => Just(Quantization::F32), 1 => Just(Quantization::Bin)],
        ) {
            let vector = if near { query.iter().zip(&vector).map(|(q, v)| q + v * 1e-3).collect() } else { vector };
            prop_assume!(query.iter().chain(&vector).all(|x| x.is_finite()));
            let query = Query::new(&Layout { dim: query.len(), metric, quantization }, &query);
            let (score, scalars, truth) = scored(&query, &vector);
            let bounds = Bounds::new(&query);
            let (low, high) = bounds.around(score, scalars.residual, scalars.norm);
            prop_assert!(low <= truth && truth <= high, "{} <= {} <= {}, score {}", low, truth, high, score);
            // A row that reaches what is wanted is never passed over.
            for wanted in [truth, low] {
                let needed = bounds.needed(wanted, scalars.residual, scalars.norm);
                prop_assert!(wanted > truth || score >= needed, "{} {} {}", wanted, score, needed);
            }
        }
    }

    #[test]
    fn bounds_are_narrow_where_the_codes_are_good() {
        let vector: Vec<f32> = (0..128).map(|i| (i as f32 * 0.7).sin()).collect();
        for metric in [Metric::Cosine, Metric::Ip] {
            let query = Query::new(&Layout { dim: 128, metric, quantization: Quantization::Int8 }, &vector);
            let (score, scalars, truth) = scored(&query, &vector);
            let (low, high) = Bounds::new(&query).around(score, scalars.residual, scalars.norm);
            assert!(high - low < 0.03 * truth, "{metric:?} {low} {high}");
        }
        let query =
            Query::new(&Layout { dim: 128, metric: Metric::L2, quantization: Quantization::Int8 }, &vector);
        let other: Vec<f32> = vector.iter().map(|x| x + 1.0).collect();
        let (score, scalars, truth) = scored(&query, &other);
        let (low, high) = Bounds::new(&query).around(score, scalars.residual, scalars.norm);
        assert!(high - low < 0.05 * -truth, "{low} {high} {truth}");
    }
}
