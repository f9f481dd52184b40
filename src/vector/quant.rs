//! The quantiser: a vector to its code and scalars, and back.
//!
//! With v the input, u = v / ||v|| for COSINE and u = v for IP and L2:
//! * Int8: q_i = round(127 v_i / max|v|), stored as the byte q_i + 128. The code stands for s q, where s = 1 / ||q|| for COSINE
//!   (so it stands for a unit vector) and s = (v . q) / (q . q) for IP and L2 (the s with the smallest ||v - s q||).
//! * F32: no code; the original stands for itself.
//! * Bin: bit i % 64 of the little-endian 64-bit word i / 64 is set if v_i > 0. The code stands for the unit vector
//!   of the signs, whatever the metric.
//!
//! A vector with a NaN or infinite component is stored as zeros and as similar to nothing.

use super::exact::{self, to_f32};
use super::kernel::CODE_OFFSET;
use super::{Layout, MAX_DIM, Metric, Quantization};

/// Largest int8 code. -128 is never used, so that codes are symmetric.
const MAX_CODE: f64 = 127.0;

/// Added to a residual, relative to itself and to the vector, so that rounding in f64 (at most about 1e-12 for 65,536
/// components) never makes it too small.
const RESIDUAL_SLACK: f64 = 1e-11;

/// What is stored of a row besides its code.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Scalars {
    /// Turns sums into scores; 0 for a vector that is similar to nothing. Int8: s above. F32: 1 / norm. Bin: 1.
    pub scale: f32,
    /// Euclidean norm of the input; [`f32::MAX`] if it is larger. 0 if the input was not finite.
    pub norm: f32,
    /// Upper bound of the distance between u and what the code stands for (Bin: between v / ||v|| and that; F32: 0).
    pub residual: f32,
    /// L2: minus the squared norm of what the code stands for, [`f32::MIN`] if the input was not finite. Else 0.
    pub bias: f32,
}

/// Quantises `vector` (`layout.dim` components) into `codes` (`layout.code_bytes()` bytes).
///
/// # Panics
/// If a length does not match the layout, or `layout.dim` is 0 or above [`MAX_DIM`].
pub fn encode(layout: &Layout, vector: &[f32], codes: &mut [u8]) -> Scalars {
    assert!((1..=MAX_DIM).contains(&layout.dim), "1 to MAX_DIM dimensions");
    assert_eq!(vector.len(), layout.dim, "one component per dimension");
    assert_eq!(codes.len(), layout.code_bytes(), "one row of codes");
    codes.fill(if layout.quantization == Quantization::Int8 { CODE_OFFSET } else { 0 });
    let norm = exact::norm(vector);
    if !norm.is_finite() {
        let bias = if layout.metric == Metric::L2 { f32::MIN } else { 0.0 };
        return Scalars { bias, ..Scalars::default() };
    }
    let stored = match layout.quantization {
        Quantization::F32 => {
            Stored { scale: to_f32(if norm > 0.0 { 1.0 / norm } else { 0.0 }), residual: 0.0, norm }
        }
        Quantization::Int8 => encode_int8(layout.metric, vector, norm, codes),
        Quantization::Bin => encode_bin(vector, norm, codes),
    };
    let bias = match (layout.metric, layout.quantization) {
        (Metric::L2, Quantization::F32 | Quantization::Int8) => -to_f32(stored.norm * stored.norm),
        _ => 0.0,
    };
    Scalars { scale: stored.scale, norm: to_f32(norm), residual: stored.residual, bias }
}

/// The vector a code stands for, in the scale of the input; for Bin, +1 or -1 per component; empty for F32, which has no codes.
///
/// # Panics
/// If `codes` is not one row of the layout.
pub fn decode(layout: &Layout, codes: &[u8], scalars: &Scalars) -> Vec<f32> {
    assert_eq!(codes.len(), layout.code_bytes(), "one row of codes");
    let norm = match layout.metric {
        Metric::Cosine => f64::from(scalars.norm),
        Metric::Ip | Metric::L2 => 1.0,
    };
    match layout.quantization {
        Quantization::F32 => Vec::new(),
        Quantization::Int8 => {
            let factor = f64::from(scalars.scale) * norm;
            let values = codes[..layout.dim].iter().map(|&byte| f64::from(int8_code(byte)));
            values.map(|code| to_f32(code * factor)).collect()
        }
        Quantization::Bin => {
            let words: Vec<u64> = codes.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word)).collect();
            (0..layout.dim).map(|i| if words[i / 64] >> (i % 64) & 1 == 1 { 1.0 } else { -1.0 }).collect()
        }
    }
}

/// The signed code of a row byte.
pub(super) fn int8_code(byte: u8) -> i8 {
    // Adding 128 flips the top bit; so does taking it away.
    (byte ^ CODE_OFFSET).cast_signed()
}

/// What the encoders find out about a code.
struct Stored {
    scale: f32,
    residual: f32,
    /// Norm of what the code stands for.
    norm: f64,
}

fn encode_int8(metric: Metric, vector: &[f32], norm: f64, codes: &mut [u8]) -> Stored {
    let max = vector.iter().fold(0.0f32, |max, x| max.max(x.abs()));
    let to_code = if max > 0.0 { MAX_CODE / f64::from(max) } else { 0.0 };
    let (mut cross, mut code_squares) = (0.0, 0i64);
    for (&x, out) in vector.iter().zip(&mut *codes) {
        let code = round_code(f64::from(x) * to_code);
        *out = code.cast_unsigned() ^ CODE_OFFSET;
        cross += f64::from(x) * f64::from(code);
        code_squares += i64::from(code) * i64::from(code);
    }
    if code_squares == 0 {
        return Stored { scale: 0.0, residual: 0.0, norm: 0.0 };
    }
    let code_norm = (code_squares as f64).sqrt();
    let scale = to_f32(match metric {
        Metric::Cosine => 1.0 / code_norm,
        Metric::Ip | Metric::L2 => cross / (code_norm * code_norm),
    });
    let unit = unit_factor(metric, norm);
    let errors = vector.iter().zip(&*codes).map(|(&x, &byte)| {
        let error = f64::from(x) * unit - f64::from(int8_code(byte)) * f64::from(scale);
        error * error
    });
    let residual = round_up(errors.sum::<f64>().sqrt(), norm * unit);
    Stored { scale, residual, norm: code_norm * f64::from(scale) }
}

fn encode_bin(vector: &[f32], norm: f64, codes: &mut [u8]) -> Stored {
    if norm == 0.0 {
        return Stored { scale: 0.0, residual: 0.0, norm: 0.0 };
    }
    for (components, word) in vector.chunks(64).zip(codes.as_chunks_mut().0) {
        let bits = components.iter().enumerate().fold(0u64, |bits, (i, &x)| bits | (u64::from(x > 0.0) << i));
        *word = bits.to_le_bytes();
    }
    let magnitude = 1.0 / (vector.len() as f64).sqrt();
    let errors = vector.iter().map(|&x| {
        let error = f64::from(x) / norm - if x > 0.0 { magnitude } else { -magnitude };
        error * error
    });
    Stored { scale: 1.0, residual: round_up(errors.sum::<f64>().sqrt(), 1.0), norm: 1.0 }
}

/// Turns components of v into components of u; 0 for a zero vector under COSINE.
fn unit_factor(metric: Metric, norm: f64) -> f64 {
    match metric {
        Metric::Cosine if norm > 0.0 => 1.0 / norm,
        Metric::Cosine => 0.0,
        Metric::Ip | Metric::L2 => 1.0,
    }
}

/// Rounds half away from zero and clamps to +-127.
#[expect(clippy::cast_possible_truncation, reason = "truncation after adding a half is the rounding")]
fn round_code(value: f64) -> i8 {
    // Much cheaper than `f64::round` where the CPU baseline has no rounding instruction.
    (value + 0.5f64.copysign(value)).clamp(-MAX_CODE, MAX_CODE) as i8
}

/// A residual as an f32 that is not below the true value, for a vector of norm `size`.
fn round_up(residual: f64, size: f64) -> f32 {
    let bound = residual + RESIDUAL_SLACK * (residual + size);
    let rounded = to_f32(bound);
    if f64::from(rounded) < bound { rounded.next_up() } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Ip, Metric::L2];
    const QUANTIZATIONS: [Quantization; 3] = [Quantization::F32, Quantization::Int8, Quantization::Bin];

    fn encoded(layout: &Layout, vector: &[f32]) -> (Vec<u8>, Scalars) {
        let mut codes = vec![77; layout.code_bytes()];
        let scalars = encode(layout, vector, &mut codes);
        (codes, scalars)
    }

    fn int8(dim: usize, metric: Metric) -> Layout {
        Layout { dim, metric, quantization: Quantization::Int8 }
    }

    /// Vectors of every size an f32 can have.
    fn vectors() -> impl Strategy<Value = Vec<f32>> {
        let exponent = prop_oneof![Just(0i32), -44..38];
        (proptest::collection::vec(-1.0f32..1.0, 1..300), exponent)
            .prop_map(|(vector, exponent)| vector.into_iter().map(|x| x * 10f32.powi(exponent)).collect())
    }

    proptest! {
        #[test]
        fn decoded_components_are_within_the_residual(vector in vectors(), metric in 0usize..3) {
            let layout = int8(vector.len(), METRICS[metric]);
            let (codes, scalars) = encoded(&layout, &vector);
            prop_assert!(scalars.norm.is_finite() && scalars.scale.is_finite());
            let decoded = decode(&layout, &codes, &scalars);
            let size = if layout.metric == Metric::Cosine { f64::from(scalars.norm) } else { 1.0 };
            // The norm and the decoded components are f32s: rounding, and at the bottom denormals.
            let rounding = 1e-6 * exact::norm(&vector) + 1e-44 * vector.len() as f64;
            let distance = exact::squared_distance(&vector, &decoded).sqrt();
            prop_assert!(distance <= f64::from(scalars.residual) * size + rounding);
            // Half a step per component at most; the factor 2 allows for the renormalised scale.
            let max = vector.iter().fold(0f32, |max, x| max.max(x.abs()));
            let step = f64::from(max) / 127.0;
            prop_assert!(distance <= 2.0 * 0.5 * step * (vector.len() as f64).sqrt() + rounding);
        }

        #[test]
        fn the_residual_is_a_true_and_tight_bound(vector in vectors(), metric in 0usize..3) {
            let layout = int8(vector.len(), METRICS[metric]);
            let (codes, scalars) = encoded(&layout, &vector);
            let unit = unit_factor(layout.metric, exact::norm(&vector));
            let error: f64 = vector.iter().zip(&codes)
                .map(|(&x, &byte)| f64::from(x) * unit - (f64::from(byte) - 128.0) * f64::from(scalars.scale))
                .map(|error| error * error).sum();
            let (bound, size) = (f64::from(scalars.residual), exact::norm(&vector) * unit);
            prop_assert!(bound >= error.sqrt());
            prop_assert!(bound <= error.sqrt() * 1.000_001 + 1e-10 * size + 1e-44);
        }

        #[test]
        fn norms_are_right_at_every_magnitude(vector in vectors()) {
            let (_, scalars) = encoded(&int8(vector.len(), Metric::Cosine), &vector);
            let max = vector.iter().fold(0f64, |max, &x| max.max(f64::from(x).abs()));
            prop_assume!(max > 0.0);
            let scaled: f64 = vector.iter().map(|&x| (f64::from(x) / max).powi(2)).sum();
            let expected = (max * scaled.sqrt()).min(f64::from(f32::MAX));
            prop_assert!((f64::from(scalars.norm) - expected).abs() <= 1e-7 * expected + 1e-45);
        }
    }

    #[test]
    fn int8_codes_by_hand() {
        let (codes, scalars) = encoded(&int8(4, Metric::Cosine), &[3.0, -1.5, 0.0, 1.0]);
        assert_eq!(codes[..4], [255, 128 - 64, 128, 128 + 42]);
        assert!(codes[4..].iter().all(|&byte| byte == 128));
        let code_norm = (127.0f32 * 127.0 + 64.0 * 64.0 + 42.0 * 42.0).sqrt();
        assert!((scalars.scale * code_norm - 1.0).abs() < 1e-6);
        assert!((scalars.norm - 12.25f32.sqrt()).abs() < 1e-6);
        assert_eq!(scalars.bias, 0.0);
    }

    #[test]
    fn the_scale_of_l2_is_the_least_squares_one_and_the_bias_its_norm() {
        let vector = [0.9f32, 0.5, -0.3, 0.111, -0.77];
        let (codes, scalars) = encoded(&int8(5, Metric::L2), &vector);
        let error_at = |scale: f64| -> f64 {
            let terms = vector.iter().zip(&codes);
            terms.map(|(&x, &byte)| (f64::from(x) - f64::from(int8_code(byte)) * scale).powi(2)).sum()
        };
        let scale = f64::from(scalars.scale);
        assert!(error_at(scale) <= error_at(scale * 1.0001) && error_at(scale) <= error_at(scale * 0.9999));
        let squares: f64 = codes.iter().map(|&byte| (f64::from(int8_code(byte)) * scale).powi(2)).sum();
        assert!((f64::from(scalars.bias) + squares).abs() < 1e-6);
    }

    #[test]
    fn f32_has_no_code_and_the_scale_that_makes_unit_vectors() {
        for metric in METRICS {
            let layout = Layout { dim: 2, metric, quantization: Quantization::F32 };
            let (codes, scalars) = encoded(&layout, &[3.0, -4.0]);
            assert!(codes.is_empty());
            assert_eq!((scalars.scale, scalars.norm, scalars.residual), (0.2, 5.0, 0.0));
            assert_eq!(scalars.bias, if metric == Metric::L2 { -25.0 } else { 0.0 });
            assert!(decode(&layout, &codes, &scalars).is_empty());
        }
    }

    #[test]
    fn bin_packs_signs_into_little_endian_words() {
        let layout = Layout { dim: 66, metric: Metric::Cosine, quantization: Quantization::Bin };
        let mut vector = vec![-1.0f32; 66];
        (vector[0], vector[9], vector[64], vector[65]) = (1.0, 2.0, 0.5, 0.0);
        let (codes, scalars) = encoded(&layout, &vector);
        assert_eq!(codes[..10], [1, 2, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert!(codes[10..].iter().all(|&byte| byte == 0));
        assert_eq!(scalars.scale, 1.0);
        let decoded = decode(&layout, &codes, &scalars);
        let positive: Vec<usize> = (0..66).filter(|&i| decoded[i] == 1.0).collect();
        assert_eq!(positive, [0, 9, 64]);
        assert!(decoded.iter().all(|x| x.abs() == 1.0));
    }

    #[test]
    fn zero_and_non_finite_vectors_are_similar_to_nothing() {
        for metric in METRICS {
            for quantization in QUANTIZATIONS {
                let layout = Layout { dim: 3, metric, quantization };
                let (zero_codes, zero) = encoded(&layout, &[0.0; 3]);
                assert_eq!((zero.norm, zero.residual, zero.bias), (0.0, 0.0, 0.0), "{layout:?}");
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let (codes, scalars) = encoded(&layout, &[1.0, bad, 2.0]);
                    assert_eq!(codes, zero_codes);
                    assert_eq!((scalars.scale, scalars.norm, scalars.residual), (0.0, 0.0, 0.0));
                    assert_eq!(scalars.bias, if metric == Metric::L2 { f32::MIN } else { 0.0 });
                }
            }
        }
    }

    #[test]
    fn huge_vectors_stay_finite() {
        for metric in METRICS {
            let layout = int8(100, metric);
            let (codes, scalars) = encoded(&layout, &[f32::MAX; 100]);
            assert!(
                [scalars.scale, scalars.norm, scalars.residual, scalars.bias].iter().all(|x| x.is_finite())
            );
            assert!(decode(&layout, &codes, &scalars).iter().all(|x| x.is_finite()));
        }
    }
}
