//! REDUCE: a fixed linear projection to fewer dimensions.
//!
//! y = P x with P\[i\]\[j\] = +1/sqrt(d) where i AND j has an even number of set bits, else -1/sqrt(d); d is the
//! size of the input. Those signs are the Hadamard matrix in Sylvester's order, so the fast Walsh-Hadamard
//! transform computes all of y in n log2 n additions, n being the next power of two.

use super::exact::to_f32;

/// Projects `vector` to `to_dim` components. An empty `vector` gives zeros.
pub fn project(vector: &[f32], to_dim: usize) -> Vec<f32> {
    let mut values: Vec<f64> = vector.iter().map(|&x| f64::from(x)).collect();
    values.resize(vector.len().max(to_dim).next_power_of_two(), 0.0);
    walsh_hadamard(&mut values);
    let divisor = (vector.len().max(1) as f64).sqrt();
    values[..to_dim].iter().map(|y| to_f32(y / divisor)).collect()
}

/// Transforms in place; the length must be a power of two.
fn walsh_hadamard(values: &mut [f64]) {
    let mut half = 1;
    while half < values.len() {
        for block in values.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, term by term.
    fn project_slowly(vector: &[f32], to_dim: usize) -> Vec<f64> {
        let sign = |i: usize, j: usize| {
            if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 }
        };
        let row = |i| vector.iter().enumerate().map(|(j, &x)| sign(i, j) * f64::from(x)).sum::<f64>();
        (0..to_dim).map(|i| row(i) / (vector.len() as f64).sqrt()).collect()
    }

    proptest! {
        #[test]
        fn equals_the_definition(vector in proptest::collection::vec(-5.0f32..5.0, 1..70), to_dim in 1usize..90) {
            let fast = project(&vector, to_dim);
            prop_assert_eq!(fast.len(), to_dim);
            for (y, expected) in fast.iter().zip(project_slowly(&vector, to_dim)) {
                prop_assert!((f64::from(*y) - expected).abs() < 1e-5, "{} {}", y, expected);
            }
        }
    }

    #[test]
    fn small_example() {
        // P = 1/sqrt(2) * [[1, 1], [1, -1]]
        let y = project(&[3.0, 1.0], 2);
        assert!((y[0] - 4.0 / 2f32.sqrt()).abs() < 1e-6 && (y[1] - 2.0 / 2f32.sqrt()).abs() < 1e-6);
    }
}
