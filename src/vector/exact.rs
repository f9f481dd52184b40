//! Arithmetic on f32 vectors.
//!
//! Two families: [`fast_dot`] and [`fast_squared_distance`] go through simsimd, which adds up in f32, and serve
//! scans of unquantised rows. The others add up in f64: their error (about 1e-16 per term) disappears when the
//! result is narrowed to f32, squares of f32 components cannot overflow, and equal inputs give equal results.
//! Where two slices differ in length the longer one is cut.

use simsimd::SpatialSimilarity;

use super::kernel::sums::{Sum, sum};

/// Inner product, summed in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    sum(Sum::Dot, a, b).0
}

/// [`dot`] and the [`norm`] of `b`, to the bit, for less.
pub fn dot_and_norm(a: &[f32], b: &[f32]) -> (f64, f64) {
    let (dot, square) = sum(Sum::DotAndSquare, a, b);
    (dot, square.sqrt())
}

/// Squared Euclidean distance, summed in f64.
pub fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    sum(Sum::SquaredDistance, a, b).0
}

/// Euclidean norm, summed in f64. Non-finite exactly when a component is non-finite.
pub fn norm(vector: &[f32]) -> f64 {
    dot(vector, vector).sqrt()
}

/// Inner product through simsimd (relative error about 1e-6); the f64 sum where that overflows f32.
pub fn fast_dot(a: &[f32], b: &[f32]) -> f64 {
    f32::dot(a, b).filter(|sum| sum.is_finite()).unwrap_or_else(|| dot(a, b))
}

/// Squared Euclidean distance through simsimd (relative error about 1e-6); the f64 sum where that overflows f32.
pub fn fast_squared_distance(a: &[f32], b: &[f32]) -> f64 {
    f32::sqeuclidean(a, b).filter(|sum| sum.is_finite()).unwrap_or_else(|| squared_distance(a, b))
}

/// Narrows to f32; what lies beyond the range of f32 becomes its largest finite value. NaN stays NaN.
#[expect(clippy::cast_possible_truncation, reason = "rounding is the purpose")]
pub fn to_f32(value: f64) -> f32 {
    value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fast_and_f64_sums_agree(pairs in proptest::collection::vec((-10.0f32..10.0, -10.0f32..10.0), 0..900)) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            let size = norm(&a) * norm(&b) + 1e-9;
            prop_assert!((dot(&a, &b) - fast_dot(&a, &b)).abs() <= 1e-5 * size);
            let distance = squared_distance(&a, &b);
            prop_assert!((distance - fast_squared_distance(&a, &b)).abs() <= 1e-5 * distance + 1e-9);
            let naive: f64 = a.iter().zip(&b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
            prop_assert!((dot(&a, &b) - naive).abs() <= 1e-12 * size);
        }
    }

    #[test]
    fn sums_beyond_f32_do_not_overflow() {
        let big = [1e30f32; 40];
        assert!((fast_dot(&big, &big) / 40e60 - 1.0).abs() < 1e-6);
        assert!((fast_squared_distance(&big, &[0.0; 40]) / 40e60 - 1.0).abs() < 1e-6);
        assert!((norm(&[f32::MAX; 4]) / (2.0 * f64::from(f32::MAX)) - 1.0).abs() < 1e-12);
    }

    #[test]
    fn narrowing_saturates() {
        assert_eq!(to_f32(1e300), f32::MAX);
        assert_eq!(to_f32(-1e300), f32::MIN);
        assert_eq!(to_f32(0.1), 0.1);
        assert!(to_f32(f64::NAN).is_nan());
    }
}
