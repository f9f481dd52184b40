//! Scoring rows that lie apart, such as the neighbours of a node in a graph.

use super::{Kernel, Screen};

/// Rows whose memory is asked for before they are scored. More at once only wait for one another.
pub const ROWS_AHEAD: usize = 8;
/// Bytes of a cache line.
const LINE_BYTES: usize = 64;
/// Lines asked for of one row: the CPU fetches the rest by itself once it sees the row being read.
const MAX_LINES: usize = 16;

/// One row by itself: references, so that nothing of it is read before it has been asked for.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    /// Its code; where rows have none, the bytes of its f32 original.
    pub bytes: &'a [u8],
    /// Its scale.
    pub scale: &'a f32,
    /// Its bias; 0 where the metric has none.
    pub bias: Option<&'a f32>,
}

impl RowRef<'_> {
    /// Asks for its memory.
    #[inline]
    pub fn prefetch(&self) {
        prefetch(self.bytes);
        prefetch(std::slice::from_ref(self.scale));
        if let Some(bias) = self.bias {
            prefetch(std::slice::from_ref(bias));
        }
    }
}

/// Asks for the first lines of some memory, without waiting for it.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = values.as_ptr().cast::<i8>();
        for line in 0..size_of_val(values).div_ceil(LINE_BYTES).min(MAX_LINES) {
            // SAFETY: a prefetch reads nothing the program sees and never faults, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE_BYTES)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (values, LINE_BYTES, MAX_LINES);
}

impl Kernel {
    /// Writes the score of each row (see [`Screen`]; the threshold plays no part). The memory of the first [`ROWS_AHEAD`]
    /// rows should have been asked for.
    ///
    /// # Panics
    /// If the lengths do not match.
    pub fn score_each(self, screen: &Screen<'_>, rows: &[RowRef<'_>], out: &mut [f32]) {
        assert_eq!(rows.len(), out.len(), "one score for each row");
        let row_bytes = screen.codes.codes.len();
        assert!(rows.iter().all(|row| row.bytes.len() == row_bytes), "rows as long as the query");
        match self {
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx512Vnni(kernel) => kernel.score_each(screen, rows, out),
            #[cfg(target_arch = "x86_64")]
            Kernel::Amx(kernel) => kernel.vnni().score_each(screen, rows, out),
            _ => {
                for (at, (row, out)) in rows.iter().zip(out).enumerate() {
                    rows.get(at + ROWS_AHEAD).inspect(|row| row.prefetch());
                    let mut dot = 0;
                    self.dot_rows(screen.codes, row.bytes, std::slice::from_mut(&mut dot));
                    *out = screen.score_row(dot, row);
                }
            }
        }
    }
}

impl Screen<'_> {
    /// The score of a row.
    #[inline]
    pub(super) fn score_row(&self, dot: i32, row: &RowRef<'_>) -> f32 {
        self.score(dot, *row.scale, row.bias.copied().unwrap_or(0.0))
    }
}
