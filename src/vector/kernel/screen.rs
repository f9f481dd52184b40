//! Screening: which rows score well enough for which of several queries.

use std::ops::Range;

use super::{Kernel, QueryCodes};

/// A query that screens rows: one passes if `dot * scale * factor + bias + offset` reaches the threshold, where `dot` is
/// that of the codes, and `scale` and `bias` are the row's.
#[derive(Clone, Copy, Debug)]
pub struct Screen<'a> {
    /// The query.
    pub codes: &'a QueryCodes,
    /// Multiplied with the dot product and the row's scale.
    pub factor: f32,
    /// Added to it.
    pub offset: f32,
    /// Scores from here on pass; a NaN never does.
    pub threshold: f32,
}

impl Screen<'_> {
    /// The score of a row. All kernels compute it in this order, so that theirs are equal to the last bit.
    pub(super) fn score(&self, dot: i32, scale: f32, bias: f32) -> f32 {
        dot as f32 * scale * self.factor + bias + self.offset
    }
}

/// A row that passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passed {
    /// Which of the queries.
    pub query: u32,
    /// Which of the rows.
    pub row: u32,
    /// Its score.
    pub score: f32,
}

/// Rows to screen. `biases` may be empty: all zero.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    /// The number of the first row.
    pub(super) first: u32,
    pub(super) row_bytes: usize,
    pub(super) codes: &'a [u8],
    pub(super) scales: &'a [f32],
    pub(super) biases: &'a [f32],
}

impl<'a> Rows<'a> {
    pub(super) fn len(&self) -> usize {
        self.scales.len()
    }

    /// Some of the rows, counted from 0.
    pub(super) fn range(self, range: Range<usize>) -> Self {
        let first =
            u32::try_from(range.start).unwrap_or_else(|_| unreachable!("far fewer rows are screened"));
        Rows {
            first: self.first + first,
            row_bytes: self.row_bytes,
            codes: &self.codes[range.start * self.row_bytes..range.end * self.row_bytes],
            scales: &self.scales[range.clone()],
            biases: if self.biases.is_empty() { &[] } else { &self.biases[range] },
        }
    }

    /// The biases of N rows from `at` on.
    pub(super) fn biases_at<const N: usize>(&self, at: usize) -> &'a [f32; N] {
        self.biases.get(at..).and_then(<[f32]>::first_chunk).unwrap_or(const { &[0.0; N] })
    }
}

/// Screens rows for one query after the other.
pub(super) fn one_by_one(kernel: Kernel, screens: &[Screen<'_>], rows: Rows<'_>, passed: &mut Vec<Passed>) {
    let mut dots = vec![0; rows.len()];
    for (query, screen) in (0..).zip(screens) {
        kernel.dot_rows(screen.codes, rows.codes, &mut dots);
        for (at, ((row, &dot), &scale)) in (rows.first..).zip(&dots).zip(rows.scales).enumerate() {
            let bias = rows.biases.get(at).copied().unwrap_or(0.0);
            let score = screen.score(dot, scale, bias);
            if score >= screen.threshold {
                passed.push(Passed { query, row, score });
            }
        }
    }
}
