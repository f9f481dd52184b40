//! Sketches: short codes of rows, from which follows how well a row can score at most.
//!
//! A scan reads the sketches first and the codes only of rows whose bound reaches the threshold; its answers are the same to the
//! bit. The principal directions of a collection's rows hold most of what tells them apart, so a quarter of the bytes
//! usually rules out all but a few rows in a hundred.
//!
//! Let x and q be what the codes of a row and of the query stand for, B the directions (`learn.rs`), y = B^T x, z = B^T q, and
//! r, s what is left of x and q. Then x.q = y.z + r.s up to what B lacks of being orthonormal, and r.s <= |r| |s| by
//! Cauchy and Schwarz. A sketch holds y - m in steps of one size (m is the mean of y), and |r| rounded up, in one byte each; the
//! query's sketch likewise. Both roundings are bounded, so that a sum of products of integers bounds the score:
//! [`SketchQuery::least`]. For L2, which also takes off |x|^2, that is one component more. The idea to search a few principal
//! components first is old: Weber et al., "A Quantitative Analysis" (VLDB 1998) bounds by coarse codes, Hwang et al.,
//! "Fast and Accurate Maximum Inner Product Search" (2012) by principal components and the norm of the rest.
//!
//! Rows that the sample did not foresee (longer, or further from the mean than any seen) have a bit of their own and are always
//! looked at.

mod learn;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use learn::directions;

use super::arena::Lines;
use super::exact;
use super::kernel::{BLOCK_LINES, BLOCK_ROWS, CODE_OFFSET, LINE_CODES, LINE_ROWS, Line, QueryCodes};
use super::quant::{Scalars, int8_code};
use super::{Layout, Metric, Quantization};

/// Largest component of a sketch, of a row or a query.
const MAX_CODE: f64 = 127.0;
/// Steps that the rest of a row is told in.
const REST_STEPS: f64 = 255.0;
/// How much further than the sample a row may lie before it is always looked at.
const SPARE: f64 = 1.1;
/// The error of rounding a row that is allowed for, in steps, for each component: their mean square is 1/12 = 0.289^2.
const ERROR_STEPS: f64 = 0.35;
/// More than f32 arithmetic loses in a score, relative to the product of the norms (L2: to the sum of their squares).
const ARITHMETIC: f64 = 1e-6;
/// More than f64 arithmetic loses in a squared norm, relative to it.
const ARITHMETIC_F64: f64 = 1e-11;

/// Tells bases apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// A row, as a collection has it.
#[derive(Clone, Copy)]
pub struct CodedRow<'a> {
    /// Its int8 code.
    pub codes: &'a [u8],
    /// What belongs to the code.
    pub scalars: Scalars,
}

/// What the sketches of a collection's rows have in common.
pub struct Basis {
    id: u64,
    layout: Layout,
    /// Directions one after the other, `layout.dim` components each.
    directions: Vec<f32>,
    /// How far the directions are from orthonormal: bounds the norm of B^T B - 1.
    skew: f64,
    /// Mean of the components.
    center: Vec<f64>,
    /// Size of a step of a component, and of the rest.
    step: f64,
    rest_step: f64,
    /// L2: the component of the squared norm, and what the query has there.
    weight: f64,
    /// Largest rounding error, distance from the mean and norm of a row that is not always looked at.
    error_max: f64,
    distance_max: f64,
    norm_max: f64,
}

/// A row or a query along the directions.
struct Parts {
    components: Vec<f64>,
    /// Norm of what is left.
    rest: f64,
    norm: f64,
}

impl Basis {
    /// A basis of the first of `directions`, so that rows take `row_bytes` (a multiple of four). `None` if the rows of the
    /// sample are no help: all equal, or without codes.
    pub fn new(
        layout: &Layout,
        directions: &[Vec<f32>],
        row_bytes: usize,
        sample: &[CodedRow<'_>],
    ) -> Option<Self> {
        let count = row_bytes.checked_sub(1 + usize::from(layout.metric == Metric::L2))?;
        let directions = directions.get(..count).filter(|_| layout.quantization == Quantization::Int8)?;
        let mut basis = Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            layout: *layout,
            skew: skew(directions),
            directions: directions.concat(),
            center: Vec::new(),
            step: 0.0,
            rest_step: 0.0,
            weight: 1.0,
            error_max: 0.0,
            distance_max: 0.0,
            norm_max: 0.0,
        };
        let mut rows: Vec<Parts> = sample.iter().map(|row| basis.row_parts(row)).collect();
        rows.retain(|row| row.norm.is_finite());
        let largest = |of: &dyn Fn(&Parts) -> f64| rows.iter().map(of).fold(0.0, f64::max) * SPARE;
        let center = means(&rows);
        let furthest = largest(&|row| {
            row.components.iter().zip(&center).fold(0.0, |far, (y, mean)| far.max((y - mean).abs()))
        });
        basis.norm_max = largest(&|row| row.norm);
        basis.rest_step = largest(&|row| row.rest) / REST_STEPS;
        if layout.metric == Metric::L2 {
            // The squared norms are to be spread as far as the widest component.
            let squares = rows.iter().map(|row| row.norm * row.norm);
            let mean = squares.sum::<f64>() / rows.len().max(1) as f64;
            let spread = largest(&|row| (row.norm * row.norm - mean).abs());
            basis.weight = (spread / 2.0 / furthest).max(f64::from(f32::MIN_POSITIVE));
        }
        for row in &mut rows {
            basis.add_square(row);
        }
        basis.center = means(&rows);
        basis.distance_max = rows.iter().map(|row| basis.distance(row)).fold(0.0, f64::max) * SPARE;
        basis.step = furthest / MAX_CODE;
        basis.error_max = ERROR_STEPS * basis.step * (basis.center.len() as f64).sqrt();
        let usable = [basis.step, basis.norm_max, basis.weight, basis.skew, basis.distance_max];
        (furthest > 0.0 && usable.iter().all(|number| number.is_finite())).then_some(basis)
    }

    /// Bytes of a row's sketch.
    pub fn row_bytes(&self) -> usize {
        self.center.len() + 1
    }

    fn distance(&self, row: &Parts) -> f64 {
        row.components.iter().zip(&self.center).map(|(y, mean)| (y - mean).powi(2)).sum::<f64>().sqrt()
    }

    /// L2: adds the component -|x|^2 / (2 w), which the query has w of.
    fn add_square(&self, row: &mut Parts) {
        if self.layout.metric == Metric::L2 {
            row.components.push(-row.norm * row.norm / (2.0 * self.weight));
        }
    }

    fn row_parts(&self, row: &CodedRow<'_>) -> Parts {
        let codes = row.codes[..self.layout.dim].iter().map(|&byte| int8_code(byte));
        self.parts(codes, f64::from(row.scalars.scale))
    }

    /// What `scale` times the codes is along the directions.
    fn parts(&self, codes: impl Iterator<Item = i8>, scale: f64) -> Parts {
        let codes: Vec<f32> = codes.map(f32::from).collect();
        let directions = self.directions.chunks_exact(self.layout.dim);
        let components: Vec<f64> =
            directions.map(|direction| exact::dot(direction, &codes) * scale).collect();
        let square = exact::dot(&codes, &codes) * scale * scale;
        let along: f64 = components.iter().map(|y| y * y).sum();
        let rest = (square * (1.0 + ARITHMETIC_F64) - along * (1.0 - self.skew)).max(0.0).sqrt();
        Parts { components, rest, norm: square.sqrt() }
    }

    /// Writes a row's sketch; false if it is one that must always be looked at.
    fn sketch(&self, row: &CodedRow<'_>, sketch: &mut [u8]) -> bool {
        let mut parts = self.row_parts(row);
        self.add_square(&mut parts);
        let (mut error, mut distance) = (0.0, 0.0);
        for ((byte, y), mean) in sketch.iter_mut().zip(&parts.components).zip(&self.center) {
            let steps = ((y - mean) / self.step).round().clamp(-MAX_CODE, MAX_CODE);
            error += (y - mean - steps * self.step).powi(2);
            distance += (steps * self.step).powi(2);
            *byte = byte_of(steps + f64::from(CODE_OFFSET));
        }
        let rest = if self.rest_step > 0.0 { (parts.rest / self.rest_step).ceil() } else { 0.0 };
        sketch[self.center.len()] = byte_of(rest);
        // Not a number is no good either.
        let foreseen = error.sqrt() <= self.error_max
            && distance.sqrt() <= self.distance_max
            && parts.norm <= self.norm_max
            && parts.rest <= rest.min(REST_STEPS) * self.rest_step;
        if !foreseen {
            sketch.fill(0);
        }
        foreseen
    }
}

/// The mean of each component.
fn means(rows: &[Parts]) -> Vec<f64> {
    let mut means = vec![0.0; rows.first().map_or(0, |row| row.components.len())];
    for row in rows {
        means.iter_mut().zip(&row.components).for_each(|(mean, y)| *mean += y / rows.len() as f64);
    }
    means
}

/// Bounds the norm of B^T B - 1 by the largest sum of a row.
fn skew(directions: &[Vec<f32>]) -> f64 {
    let row = |i: usize| {
        let against = |(j, other): (usize, &Vec<f32>)| {
            (exact::dot(&directions[i], other) - if i == j { 1.0 } else { 0.0 }).abs()
        };
        directions.iter().enumerate().map(against).sum::<f64>()
    };
    (0..directions.len()).map(row).fold(0.0, f64::max)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, as is meant")]
fn byte_of(value: f64) -> u8 {
    value as u8
}

#[expect(clippy::cast_possible_truncation, reason = "saturates, as is meant")]
fn code_of(value: f64) -> i8 {
    value as i8
}

/// The sketches of the first rows of a chunk.
pub struct Sketch {
    /// What they have in common.
    pub basis: Arc<Basis>,
    /// How many: a multiple of 64.
    pub rows: usize,
    /// Largest residual and norm among the rows.
    pub residual_max: f32,
    /// See above.
    pub norm_max: f32,
    lines: Lines,
    /// Bit i % 64 of word i / 64: row i must always be looked at.
    always: Vec<u64>,
}

impl Sketch {
    /// Sketches of rows 0.. of a chunk; what is left over of 64 is not among them.
    pub fn new<'a>(basis: &Arc<Basis>, rows: usize, row: impl Fn(usize) -> CodedRow<'a>) -> Self {
        let rows = rows - rows % BLOCK_ROWS;
        let row_bytes = basis.row_bytes();
        let mut lines = Lines::new(rows / BLOCK_ROWS * row_bytes);
        let mut always = vec![0; rows / BLOCK_ROWS];
        let (mut residual_max, mut norm_max) = (0f32, 0f32);
        let mut sketch = vec![0; row_bytes];
        for at in 0..rows {
            let row = row(at);
            residual_max = residual_max.max(row.scalars.residual);
            norm_max = norm_max.max(row.scalars.norm);
            let foreseen = basis.sketch(&row, &mut sketch);
            always[at / BLOCK_ROWS] |= u64::from(!foreseen) << (at % BLOCK_ROWS);
            let block = &mut lines[at / BLOCK_ROWS * row_bytes..][..row_bytes];
            let block = block.iter_mut().skip(at % BLOCK_ROWS / LINE_ROWS).step_by(BLOCK_LINES);
            for (line, bytes) in block.zip(sketch.as_chunks::<LINE_CODES>().0) {
                line.0.as_chunks_mut::<LINE_CODES>().0[at % LINE_ROWS] = *bytes;
            }
        }
        Self { basis: Arc::clone(basis), rows, residual_max, norm_max, lines, always }
    }

    /// The sketches of some blocks of 64 rows.
    pub fn lines(&self, blocks: Range<usize>) -> &[Line] {
        let block_lines = self.basis.row_bytes();
        &self.lines[blocks.start * block_lines..blocks.end * block_lines]
    }

    /// Bits of the rows of a block that must always be looked at.
    pub fn always(&self, block: usize) -> u64 {
        self.always[block]
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.lines.size_bytes() + self.always.len() * size_of::<u64>()
    }
}

/// A query's sketch.
#[derive(Clone, Debug)]
pub struct SketchQuery {
    basis: u64,
    codes: QueryCodes,
    metric: Metric,
    /// What one is worth in a sum of products.
    unit: f64,
    /// What a score can have besides.
    base: f64,
    /// L2: the query's own part of a score.
    offset: f64,
    /// What is lacking in the sums, because the byte of the rest is not centred.
    lacking: i32,
}

impl SketchQuery {
    /// A query of those codes. `None` if its sketch would say nothing.
    pub(super) fn new(basis: &Basis, codes: &QueryCodes, scale: f32, bias: f32) -> Option<Self> {
        let codes = codes.codes()[..basis.layout.dim].iter().copied();
        let Parts { mut components, rest, norm } = basis.parts(codes, f64::from(scale));
        if basis.layout.metric == Metric::L2 {
            components.push(basis.weight);
        }
        let rest = rest * basis.rest_step / basis.step;
        let largest = components.iter().fold(rest, |largest, z| largest.max(z.abs()));
        let step = largest / MAX_CODE;
        let mut codes: Vec<i8> = components.iter().map(|z| code_of((z / step).round())).collect();
        // A hair less than 127 may become more than that when it is rounded up.
        let rest = (rest / step - ARITHMETIC_F64).ceil().min(MAX_CODE);
        codes.push(code_of(rest));
        let length = components.iter().map(|z| z * z).sum::<f64>().sqrt();
        let errors = components.iter().zip(&codes).map(|(z, &code)| (z - f64::from(code) * step).powi(2));
        let error = errors.sum::<f64>().sqrt();
        let mean: f64 = components.iter().zip(&basis.center).map(|(z, mean)| z * mean).sum();
        let arithmetic = match basis.layout.metric {
            Metric::Cosine | Metric::Ip => basis.norm_max * norm,
            Metric::L2 => basis.norm_max * basis.norm_max + norm * norm,
        };
        let base = mean
            + basis.error_max * length
            + basis.distance_max * error
            + basis.skew * basis.norm_max * norm
            + ARITHMETIC * (arithmetic + basis.norm_max * norm)
            + f64::from(f32::MIN_POSITIVE);
        let unit = basis.step * step;
        let usable = unit.is_normal() && base.is_finite() && norm.is_finite();
        usable.then(|| Self {
            basis: basis.id,
            lacking: i32::from(CODE_OFFSET) * i32::from(code_of(rest)),
            codes: QueryCodes::new(&codes),
            metric: basis.layout.metric,
            unit,
            base,
            offset: f64::from(bias),
        })
    }

    /// Whether it is about that basis.
    pub(super) fn is_of(&self, basis: &Basis) -> bool {
        self.basis == basis.id
    }

    /// Its codes.
    pub fn codes(&self) -> &QueryCodes {
        &self.codes
    }

    /// The dot product of sketches without which no row reaches that score from codes.
    pub fn least(&self, score: f32) -> i32 {
        let score = match self.metric {
            Metric::Cosine | Metric::Ip => f64::from(score),
            Metric::L2 => (f64::from(score) - self.offset) / 2.0,
        };
        let least = (score - self.base) / self.unit;
        let least = (least - least.abs() * ARITHMETIC_F64).floor() - f64::from(self.lacking);
        #[expect(clippy::cast_possible_truncation, reason = "saturates: no sum is that large")]
        let least = least as i32;
        least
    }
}
