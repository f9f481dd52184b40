//! Scanning for one query: rows are scored and compared with the threshold at once.

use super::{Kernel, Screen};

/// Rows that one word of a bitmap of live rows is about.
pub(super) const WORD_ROWS: usize = u64::BITS as usize;
/// Where at most so many of 16 rows are live, they are scored one by one.
pub(super) const FEW_LIVE: u32 = 2;

/// The numbers of the bits that are set, ascending.
pub fn set_bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.wrapping_sub(1);
        (bit < WORD_ROWS).then_some(bit)
    })
}

impl Kernel {
    /// Scores rows for one query while their sums are in registers. Every row whose bit in `live` is set (bit i % 64 of
    /// word i / 64) and whose score reaches the threshold is offered, in the order of the rows: `offer` takes the number
    /// of the row and its score and gives the threshold from then on. `scales` has one number per row; `biases` too, or none.
    ///
    /// # Panics
    /// If the lengths do not match.
    pub fn scan(
        self,
        screen: &Screen<'_>,
        rows: &[u8],
        scales: &[f32],
        biases: &[f32],
        live: &[u64],
        offer: &mut dyn FnMut(usize, f32) -> f32,
    ) {
        assert_eq!(rows.len(), scales.len() * screen.codes.codes.len(), "whole rows, one for each scale");
        assert!(biases.is_empty() || biases.len() == scales.len(), "one bias per row, or none");
        assert_eq!(live.len(), scales.len().div_ceil(WORD_ROWS), "a live bit for every row");
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni(kernel) => kernel.scan(screen, rows, scales, biases, live, offer),
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx(kernel) => kernel.vnni().scan(screen, rows, scales, biases, live, offer),
            _ => self.scan_words(screen, rows, scales, biases, live, offer),
        }
    }

    /// [`Kernel::scan`] on top of [`Kernel::dot_rows`].
    fn scan_words(
        self,
        screen: &Screen<'_>,
        rows: &[u8],
        scales: &[f32],
        biases: &[f32],
        live: &[u64],
        offer: &mut dyn FnMut(usize, f32) -> f32,
    ) {
        let row_bytes = screen.codes.codes.len();
        let mut threshold = screen.threshold;
        let (mut dots, mut scores) = ([0i32; WORD_ROWS], [0f32; WORD_ROWS]);
        for (word, &live) in live.iter().enumerate() {
            let first = word * WORD_ROWS;
            let end = scales.len().min(first + WORD_ROWS);
            let rows = &rows[first * row_bytes..end * row_bytes];
            if live.count_ones() > FEW_LIVE * 4 {
                self.dot_rows(screen.codes, rows, &mut dots[..end - first]);
            } else {
                for at in set_bits(live).take_while(|at| first + at < end) {
                    let row = &rows[at * row_bytes..(at + 1) * row_bytes];
                    self.dot_rows(screen.codes, row, &mut dots[at..=at]);
                }
            }
            let biases = biases.get(first..end).unwrap_or(&[0.0; WORD_ROWS]);
            for (((score, &dot), &scale), &bias) in
                scores.iter_mut().zip(&dots).zip(&scales[first..end]).zip(biases)
            {
                *score = screen.score(dot, scale, bias);
            }
            if scores[..end - first].iter().fold(false, |any, &score| any | (score >= threshold)) {
                for at in set_bits(live).take_while(|at| first + at < end) {
                    if scores[at] >= threshold {
                        threshold = offer(first + at, scores[at]);
                    }
                }
            }
        }
    }
}
