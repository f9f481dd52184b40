//! Plain Rust: the oracle for the other kernels, and what runs where none of them can.

use super::{CODE_OFFSET, QueryCodes};

/// See [`super::Kernel::dot_rows`].
pub fn dot_rows(query: &QueryCodes, rows: &[u8], out: &mut [i32]) {
    for (row, out) in rows.chunks_exact(query.codes().len()).zip(out) {
        let products = row.iter().zip(query.codes()).map(|(&byte, &code)| {
            let component = i32::from(byte) - i32::from(CODE_OFFSET);
            component * i32::from(code)
        });
        *out = products.sum();
    }
}
