//! Vectors: how they are quantised, scored and ranked.
//!
//! A *row* is one stored vector: its code (fixed size, see [`Layout::code_bytes`]) and a few [`Scalars`].
//! An unquantised row has no code; it is scored from its f32 original. A [`Query`] is prepared once and then scores many rows. Inside, a higher score is always better:
//! COSINE is the cosine in [-1, 1], IP the inner product, L2 minus the squared distance.
//!
//! | file | job |
//! |---|---|
//! | `quant.rs` | vector -> code and scalars, and back |
//! | `query.rs` | a prepared query: scans rows by their codes, and scores an f32 original exactly |
//! | `kernel/` | the int8 dot product, one file per instruction set |
//! | `arena.rs` | rows in memory that one thread appends to while others read |
//! | `growth.rs` | how the arena's blocks grow |
//! | `bounds.rs` | between which a true score lies, given the score from codes |
//! | `sketch/` | short codes of rows that bound their scores, so that scans can leave most rows out |
//! | `exact.rs` | f32 arithmetic: dot product, squared distance, norm |
//! | `topk.rs` | the best k of a stream of scores |
//! | `projection.rs` | REDUCE: a fixed random-like projection to fewer dimensions |

pub mod arena;
pub mod bounds;
pub mod exact;
mod growth;
pub mod kernel;
pub mod projection;
pub mod quant;
pub mod query;
pub mod sketch;
pub mod topk;

pub use projection::project;
pub use quant::{Scalars, decode, encode};
pub use query::Query;
pub use topk::TopK;

/// Largest number of dimensions. An int8 dot product of this length still fits in an `i32`
/// (255 * 127 * 65,536 < 2^31), which is what makes every kernel exact.
pub const MAX_DIM: usize = 65_536;

/// Codes are padded to a multiple of this (one cache line, one AVX-512 register).
pub const CODE_ALIGN_BYTES: usize = 64;

/// What "similar" means for a set of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Cosine of the angle; a zero vector scores 0 against everything.
    Cosine,
    /// Inner product.
    Ip,
    /// Euclidean distance; the score is minus its square.
    L2,
}

/// How the components of a row are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Not quantised: there is no code, rows are scored from their f32 originals.
    F32,
    /// One byte per dimension, symmetric, one scale per vector.
    Int8,
    /// One bit per dimension: the sign.
    Bin,
}

impl Quantization {
    /// The name the Redis protocol uses for it (`VINFO`, `VEMB RAW`).
    pub fn name(self) -> &'static str {
        match self {
            Quantization::F32 => "f32",
            Quantization::Int8 => "int8",
            Quantization::Bin => "bin",
        }
    }

    /// The inverse of [`Quantization::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        [Quantization::F32, Quantization::Int8, Quantization::Bin].into_iter().find(|q| q.name() == name)
    }
}

/// The shape of every row of one set of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Layout {
    /// Number of dimensions, 1 to [`MAX_DIM`].
    pub dim: usize,
    /// How rows are compared.
    pub metric: Metric,
    /// How components are stored.
    pub quantization: Quantization,
}

impl Layout {
    /// Size of one row's code in bytes, a multiple of [`CODE_ALIGN_BYTES`]; 0 where the original is all there is.
    pub fn code_bytes(&self) -> usize {
        let used_bytes = match self.quantization {
            Quantization::F32 => 0,
            Quantization::Int8 => self.dim,
            Quantization::Bin => self.dim.div_ceil(u64::BITS as usize) * size_of::<u64>(),
        };
        used_bytes.next_multiple_of(CODE_ALIGN_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_padded_to_whole_cache_lines() {
        let bytes = |dim, quantization| Layout { dim, metric: Metric::Cosine, quantization }.code_bytes();
        assert_eq!(bytes(17, Quantization::F32), 0);
        assert_eq!(bytes(64, Quantization::Int8), 64);
        assert_eq!(bytes(65, Quantization::Int8), 128);
        assert_eq!(bytes(512, Quantization::Bin), 64);
        assert_eq!(bytes(513, Quantization::Bin), 128);
    }

    #[test]
    fn quantizations_are_found_by_their_names() {
        for name in ["f32", "int8", "bin"] {
            assert_eq!(Quantization::from_name(name).unwrap().name(), name);
        }
        assert_eq!(Quantization::from_name("q8"), None);
    }
}
