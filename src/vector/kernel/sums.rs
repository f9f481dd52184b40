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
    /// Of the products, and of the squares of the second ones.
    DotAndSquare,
}

/// The sum over all pairs, and the second sum where there are two; where the slices differ in length the longer one is cut.
#[inline]
pub fn sum(kind: Sum, a: &[f32], b: &[f32]) -> (f64, f64) {
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
fn avx512(kind: Sum, a: &[f32], b: &[f32]) -> (f64, f64) {
    plain(kind, a, b)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(kind: Sum, a: &[f32], b: &[f32]) -> (f64, f64) {
    plain(kind, a, b)
}

#[inline(always)]
fn plain(kind: Sum, a: &[f32], b: &[f32]) -> (f64, f64) {
    match kind {
        Sum::Dot => (pairs(a, b, |x, y| [x * y])[0], 0.0),
        Sum::SquaredDistance => (pairs(a, b, |x, y| [(x - y) * (x - y)])[0], 0.0),
        Sum::DotAndSquare => pairs(a, b, |x, y| [x * y, y * y]).into(),
    }
}

#[inline(always)]
fn pairs<const N: usize>(a: &[f32], b: &[f32], terms: impl Fn(f64, f64) -> [f64; N]) -> [f64; N] {
    let len = a.len().min(b.len());
    let (a_lanes, a_rest) = a[..len].as_chunks::<LANES>();
    let (b_lanes, b_rest) = b[..len].as_chunks::<LANES>();
    let mut sums = [[0.0f64; LANES]; N];
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            let terms = terms(f64::from(x[lane]), f64::from(y[lane]));
            for (sums, term) in sums.iter_mut().zip(terms) {
                sums[lane] += term;
            }
        }
    }
    let mut totals = sums.map(add_lanes);
    for (&x, &y) in a_rest.iter().zip(b_rest) {
        for (total, term) in totals.iter_mut().zip(terms(f64::from(x), f64::from(y))) {
            *total += term;
        }
    }
    totals
}

/// The sum of all lanes, by halves, so that additions need not wait for one another.
#[inline(always)]
fn add_lanes(mut lanes: [f64; LANES]) -> f64 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn two_sums_at_once_are_those_taken_one_by_one() {
        let [a, b] = [7u8, 11]
            .map(|step| (0..101u8).map(|at| f32::from(at.wrapping_mul(step)) - 90.5).collect::<Vec<_>>());
        let expected = (sum(Sum::Dot, &a, &b).0, sum(Sum::Dot, &b, &b).0);
        assert_eq!(sum(Sum::DotAndSquare, &a, &b), expected);
    }

    proptest! {
        #[test]
        fn every_instruction_set_gives_the_same_bits(
            pairs in proptest::collection::vec((any::<f32>(), any::<f32>()), 0..300),
        ) {
            let (a, b): (Vec<f32>, Vec<f32>) = pairs.into_iter().unzip();
            for kind in [Sum::Dot, Sum::SquaredDistance, Sum::DotAndSquare] {
                // Which NaN a sum is does not matter.
                let bits = |sums: (f64, f64)| [sums.0, sums.1].map(|sum| (!sum.is_nan()).then(|| sum.to_bits()));
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
