//! Vectors to search in: made here, or read from a file.

use std::fs;
use std::io;
use std::path::Path;

/// Dimensions of the subspace that made vectors lie in, but for a little noise.
const RANK: usize = 24;
/// Clusters of made vectors; their sizes differ.
const CLUSTERS: u64 = 64;
/// Size of what is inside a cluster, of noise outside the subspace, relative to the centres.
const SPREAD: f32 = 0.5;
const NOISE: f32 = 0.05;

/// Rows of f32, all of one length.
pub struct Vectors {
    /// Components of each.
    pub dim: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// One after the other.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.values.chunks_exact(self.dim)
    }

    /// The row of that number.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..][..self.dim]
    }

    /// Shaped as embeddings are: clusters of uneven size in a subspace. The clusters depend on `dim` alone, so that
    /// vectors of two seeds belong together. The same on every run.
    pub fn clustered(rows: usize, dim: usize, seed: u64) -> Self {
        let mut shape = Random(dim as u64);
        let basis: Vec<f32> = (0..RANK * dim).map(|_| shape.normal() / (dim as f32).sqrt()).collect();
        let centres: Vec<f32> = (0..CLUSTERS).flat_map(|_| shape.normals::<RANK>()).collect();
        let mut draw = Random(seed << 32);
        let mut values = Vec::with_capacity(rows * dim);
        for _ in 0..rows {
            // The product of two uniform numbers prefers small ones.
            let cluster = draw.below(CLUSTERS) * draw.below(CLUSTERS) / CLUSTERS;
            let centre = &centres.as_chunks::<RANK>().0[usize::try_from(cluster).unwrap_or(0)];
            let inner = draw.normals::<RANK>();
            let start = values.len();
            values.extend((0..dim).map(|_| NOISE * draw.normal() / (dim as f32).sqrt()));
            for ((axis, &middle), &at) in basis.chunks_exact(dim).zip(centre).zip(&inner) {
                let weight = middle + SPREAD * at;
                values[start..].iter_mut().zip(axis).for_each(|(value, &axis)| *value += weight * axis);
            }
        }
        Self { dim, values }
    }

    /// Reads an `.fvecs` file (TEXMEX: each row is its length as i32 and its components), or a `.npy` file of little-endian
    /// f32 in C order with two axes.
    ///
    /// # Errors
    /// When it cannot be read, or is neither.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let read = if path.extension().is_some_and(|extension| extension == "fvecs") {
            Self::from_fvecs(&bytes)
        } else {
            Self::from_npy(&bytes)
        };
        read.ok_or_else(|| {
            let what = format!("{} is neither fvecs nor npy of <f4 in C order", path.display());
            io::Error::new(io::ErrorKind::InvalidData, what)
        })
    }

    fn from_fvecs(bytes: &[u8]) -> Option<Self> {
        let dim = usize::try_from(i32::from_le_bytes(*bytes.first_chunk()?)).ok().filter(|&dim| dim > 0)?;
        let rows = bytes.chunks_exact(4 * (dim + 1));
        let whole = rows.remainder().is_empty();
        whole.then(|| Self { dim, values: rows.flat_map(|row| floats(&row[4..])).collect() })
    }

    fn from_npy(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(b"\x93NUMPY\x01\x00")?;
        let (length, rest) = rest.split_first_chunk()?;
        let (header, data) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        let header = std::str::from_utf8(header).ok()?;
        if !header.contains("'<f4'") || !header.contains("'fortran_order': False") {
            return None;
        }
        let (_, shape) = header.split_once("'shape': (")?;
        let (rows, shape) = shape.split_once(", ")?;
        let rows: usize = rows.parse().ok()?;
        let dim: usize = shape.split(')').next()?.parse().ok().filter(|&dim| dim > 0)?;
        (data.len() == rows * dim * 4).then(|| Self { dim, values: floats(data).collect() })
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks().0.iter().map(|&four| f32::from_le_bytes(four))
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Nearly normal, mean 0 and variance 1: four uniform numbers of 16 bits added up.
    fn normal(&mut self) -> f32 {
        let words = self.next().to_le_bytes();
        let sum: f32 = words.as_chunks().0.iter().map(|&two| f32::from(u16::from_le_bytes(two))).sum();
        (sum / 65_536.0 - 2.0) * 3f32.sqrt()
    }

    fn normals<const N: usize>(&mut self) -> [f32; N] {
        std::array::from_fn(|_| self.normal())
    }
}
