//! The principal directions of a sample of rows: those in which the rows are longest, not around their mean but as they are, by
//! orthogonal iteration (Golub and Van Loan, "Matrix Computations", 8.2.4).

use super::CodedRow;
use crate::vector::exact::{self, to_f32};
use crate::vector::quant::int8_code;

/// Rounds of the iteration: what is left by then is far less than what a direction more or less makes.
const ROUNDS: usize = 8;
/// Directions that are iterated beside those wanted, which makes the last of these better.
const SPARE: usize = 8;

/// Orthonormal directions, the most important ones first: at most `count`, and less if the rows span no more.
pub fn directions(dim: usize, sample: &[CodedRow<'_>], count: usize) -> Vec<Vec<f32>> {
    let rows: Vec<Vec<f32>> = sample.iter().map(|row| decoded(dim, row)).collect();
    let rows: Vec<Vec<f32>> = rows.into_iter().filter(|row| row.iter().all(|x| x.is_finite())).collect();
    let columns: Vec<Vec<f32>> = (0..dim).map(|at| rows.iter().map(|row| row[at]).collect()).collect();
    let begun = (count + SPARE).min(dim);
    let step = (rows.len() / begun.max(1)).max(1);
    let mut directions: Vec<Vec<f32>> = rows.iter().step_by(step).take(begun).cloned().collect();
    orthonormalise(&mut directions);
    for _ in 0..ROUNDS {
        for direction in &mut directions {
            let along: Vec<f32> = rows.iter().map(|row| to_f32(exact::fast_dot(row, direction))).collect();
            *direction = columns.iter().map(|column| to_f32(exact::fast_dot(column, &along))).collect();
        }
        orthonormalise(&mut directions);
    }
    directions.truncate(count);
    directions
}

/// What a row stands for, at a size that neither overflows nor vanishes: all that counts is how rows compare.
fn decoded(dim: usize, row: &CodedRow<'_>) -> Vec<f32> {
    let scale = row.scalars.scale;
    row.codes[..dim].iter().map(|&byte| f32::from(int8_code(byte)) * scale).collect()
}

/// Makes each orthogonal to those before it and of length 1 (Gram and Schmidt, twice, which is enough: Giraud et al., 2005); those
/// that are nothing but a sum of others go.
fn orthonormalise(directions: &mut Vec<Vec<f32>>) {
    // What is left of a sum of others by f32 arithmetic.
    const NOTHING: f64 = 1e-5;
    let mut kept: Vec<Vec<f32>> = Vec::with_capacity(directions.len());
    for mut direction in directions.drain(..) {
        let mut left = if normalise(&mut direction) > 0.0 { 1.0 } else { 0.0 };
        for _ in 0..2 {
            for other in &kept {
                let along = to_f32(exact::dot(other, &direction));
                direction.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
            }
            left *= normalise(&mut direction);
        }
        if left > NOTHING {
            kept.push(direction);
        }
    }
    *directions = kept;
}

/// Makes it of length 1, and tells the length it had; 0 if it has none.
fn normalise(direction: &mut [f32]) -> f64 {
    let norm = exact::norm(direction);
    if !norm.is_normal() {
        return 0.0;
    }
    direction.iter_mut().for_each(|x| *x = to_f32(f64::from(*x) / norm));
    norm
}
