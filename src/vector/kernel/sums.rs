//! Sums over pairs of f32 components in f64: plain code, compiled once for each instruction set.
//!
//! The lanes are added up in a fixed order and nothing is contracted, so that every instruction set gives the same bits.

/// Independent sums per loop: enough that an addition need not wait for the one before it.
const LANES: usize = 32;

/// A sum over pairs of components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Of the products.
    Dot,
    /// Of the squared differences.
    SquaredDistance,
}

/// The sum over all pairs; where the slices differ in length the longer one is cut.
pub fn sum(kind: Sum, a: &[f32], b: &[f32]) -> f64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has AVX-512 F.
        return unsafe { avx512(kind, a, b) };
    } else if is_x86_feature_detected!("avx2") {
        // SAFETY: the CPU has AVX2.
        return unsafe { avx2(kind, a, b) };
    }
    plain(kind, a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(kind: Sum, a: &[f32], b: &[f32]) -> f64 {
    plain(kind, a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(kind: Sum, a: &[f32], b: &[f32]) -> f64 {
    plain(kind, a, b)
}

#[inline(always)]
fn plain(kind: Sum, a: &[f32], b: &[f32]) -> f64 {
    match kind {
        Sum::Dot => pairs(a, b, |x, y| x * y),
        Sum::SquaredDistance => pairs(a, b, |x, y| (x - y) * (x - y)),
    }
}

#[inline(always)]
fn pairs(a: &[f32], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let len = a.len().min(b.len());
    let (a_lanes, a_rest) = a[..len].as_chunks::<LANES>();
    let (b_lanes, b_rest) = b[..len].as_chunks::<LANES>();
    let mut sums = [0.0f64; LANES];
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += term(f64::from(x[lane]), f64::from(y[lane]));
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(&x, &y)| term(f64::from(x), f64::from(y)));
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same_bits(
            pairs in proptest::collection::vec((any::<f32>(), any::<f32>()), 0..300),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            for kind in [Sum::Dot, Sum::SquaredDistance] {
                // Which NaN a sum is does not matter.
                let bits = |sum: f64| if sum.is_nan() { None } else { Some(sum.to_bits()) };
                let expected = bits(plain(kind, &a, &b));
                prop_assert_eq!(bits(sum(kind, &a, &b)), expected);
                #[cfg(target_arch = "x86_64")]
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the CPU has AVX2.
                    prop_assert_eq!(bits(unsafe { avx2(kind, &a, &b) }), expected);
                }
            }
        }
    }
}
