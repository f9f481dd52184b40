//! A collection's parameters as they are written, in the log and in the state file.

use crate::collection::{GraphWish, IndexKind, MAX_DIMENSION, Params};
use crate::text::Analyzer;
use crate::vector::{Layout, Metric, Quantization};

/// Bytes of the parameters in the log.
pub const PARAMS_BYTES: usize = 20;

const RAW: u8 = 1;
const DECLARED: u8 = 2;
/// The wish for a graph, in two bits from this one on.
const WISH_SHIFT: u32 = 2;
const WISH_MASK: u8 = 3;

const METRICS: [(Metric, u8); 3] = [(Metric::Cosine, 0), (Metric::Ip, 1), (Metric::L2, 2)];
const QUANTIZATIONS: [(Quantization, u8); 3] =
    [(Quantization::Int8, 0), (Quantization::F32, 1), (Quantization::Bin, 2)];
const INDEXES: [(IndexKind, u8); 3] = [(IndexKind::Auto, 0), (IndexKind::Flat, 1), (IndexKind::Hnsw, 2)];

pub(super) const WISHES: [(GraphWish, u8); 3] =
    [(GraphWish::None, 0), (GraphWish::Build, 1), (GraphWish::Drop, 2)];

pub(super) fn code<T: PartialEq>(codes: &[(T, u8)], value: &T) -> u8 {
    let found = codes.iter().find(|(one, _)| one == value);
    found.map_or_else(|| unreachable!("every value has a code"), |(_, code)| *code)
}

pub(super) fn value<T: Copy>(codes: &[(T, u8)], code: u8) -> Option<T> {
    codes.iter().find(|(_, one)| *one == code).map(|(value, _)| *value)
}

/// Parameters as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ParamsV1 {
    metric: u8,
    quantization: u8,
    index: u8,
    /// Bit 0: originals are kept; bit 1: made by VCREATE; bits 2 and 3: the wish for a graph.
    flags: u8,
    dim: u32,
    projection_input_dim: u32,
    /// At most 4096.
    m: u16,
    /// Its code. Before there were analyzers M was a u32, so this is 0 then, which is the default analyzer.
    analyzer: u16,
    ef: u32,
}

impl From<&Params> for ParamsV1 {
    fn from(params: &Params) -> Self {
        let dim = u32::try_from(params.layout.dim).unwrap_or_else(|_| unreachable!("dimensions are bounded"));
        let m = u16::try_from(params.m).unwrap_or_else(|_| unreachable!("M is bounded"));
        Self {
            metric: code(&METRICS, &params.layout.metric),
            quantization: code(&QUANTIZATIONS, &params.layout.quantization),
            index: code(&INDEXES, &params.index),
            flags: RAW * u8::from(params.raw)
                + DECLARED * u8::from(params.declared)
                + (code(&WISHES, &params.wish) << WISH_SHIFT),
            dim,
            projection_input_dim: params.projection_input_dim,
            m,
            analyzer: params.analyzer.code(),
            ef: params.ef,
        }
    }
}

impl ParamsV1 {
    /// The parameters; `None` if a number is not known.
    pub fn params(&self) -> Option<Params> {
        let dim = usize::try_from(self.dim).ok().filter(|dim| (1..=MAX_DIMENSION).contains(dim))?;
        let metric = value(&METRICS, self.metric)?;
        let quantization = value(&QUANTIZATIONS, self.quantization)?;
        (self.flags & !(RAW | DECLARED | WISH_MASK << WISH_SHIFT) == 0).then_some(())?;
        Some(Params {
            layout: Layout { dim, metric, quantization },
            projection_input_dim: self.projection_input_dim,
            m: self.m.into(),
            ef: self.ef,
            raw: self.flags & RAW != 0,
            declared: self.flags & DECLARED != 0,
            index: value(&INDEXES, self.index)?,
            wish: value(&WISHES, self.flags >> WISH_SHIFT & WISH_MASK)?,
            analyzer: Analyzer::from_code(self.analyzer)?,
        })
    }

    /// As written in the log: four bytes, two u32, two u16, a u32.
    pub fn to_bytes(self) -> [u8; PARAMS_BYTES] {
        let mut bytes = [0; PARAMS_BYTES];
        bytes[..4].copy_from_slice(&[self.metric, self.quantization, self.index, self.flags]);
        let m_and_analyzer = u32::from(self.m) | u32::from(self.analyzer) << 16;
        let numbers = [self.dim, self.projection_input_dim, m_and_analyzer, self.ef];
        for (at, number) in numbers.into_iter().enumerate() {
            bytes[4 + at * 4..8 + at * 4].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// The inverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: &[u8; PARAMS_BYTES]) -> Self {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self {
            metric: bytes[0],
            quantization: bytes[1],
            index: bytes[2],
            flags: bytes[3],
            dim: number(4),
            projection_input_dim: number(8),
            m: u16::from_le_bytes([bytes[12], bytes[13]]),
            analyzer: u16::from_le_bytes([bytes[14], bytes[15]]),
            ef: number(16),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_read_back_and_unknown_numbers_do_not() {
        let layout = Layout { dim: 7, metric: Metric::L2, quantization: Quantization::Bin };
        let analyzer = Analyzer::named(b"ngram(2,3)").unwrap();
        let params = Params {
            raw: false,
            declared: true,
            index: IndexKind::Hnsw,
            wish: GraphWish::Drop,
            m: 4096,
            analyzer,
            ..Params::new(layout)
        };
        let written = ParamsV1::from(&params);
        assert_eq!(ParamsV1::from_bytes(&written.to_bytes()), written);
        assert_eq!(written.params(), Some(params));
        for at in [0, 1, 2, 3, 15] {
            let mut bytes = written.to_bytes();
            bytes[at] = 0x19;
            assert_eq!(ParamsV1::from_bytes(&bytes).params(), None);
        }
    }
}
