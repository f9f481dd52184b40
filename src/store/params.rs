//! A collection's parameters as they are written, in the log and in the state file.

use crate::collection::{IndexKind, MAX_DIMENSION, Params};
use crate::vector::{Layout, Metric, Quantization};

/// Bytes of the parameters in the log.
pub const PARAMS_BYTES: usize = 20;

const RAW: u8 = 1;
const DECLARED: u8 = 2;

const METRICS: [(Metric, u8); 3] = [(Metric::Cosine, 0), (Metric::Ip, 1), (Metric::L2, 2)];
const QUANTIZATIONS: [(Quantization, u8); 3] =
    [(Quantization::Int8, 0), (Quantization::F32, 1), (Quantization::Bin, 2)];
const INDEXES: [(IndexKind, u8); 3] = [(IndexKind::Auto, 0), (IndexKind::Flat, 1), (IndexKind::Hnsw, 2)];

fn code<T: PartialEq>(codes: &[(T, u8)], value: &T) -> u8 {
    let found = codes.iter().find(|(one, _)| one == value);
    found.map_or_else(|| unreachable!("every value has a code"), |(_, code)| *code)
}

fn value<T: Copy>(codes: &[(T, u8)], code: u8) -> Option<T> {
    codes.iter().find(|(_, one)| *one == code).map(|(value, _)| *value)
}

/// Parameters as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ParamsV1 {
    metric: u8,
    quantization: u8,
    index: u8,
    /// Bit 0: originals are kept; bit 1: made by VCREATE.
    flags: u8,
    dim: u32,
    projection_input_dim: u32,
    m: u32,
    ef: u32,
}

impl From<&Params> for ParamsV1 {
    fn from(params: &Params) -> Self {
        let dim = u32::try_from(params.layout.dim).unwrap_or_else(|_| unreachable!("dimensions are bounded"));
        Self {
            metric: code(&METRICS, &params.layout.metric),
            quantization: code(&QUANTIZATIONS, &params.layout.quantization),
            index: code(&INDEXES, &params.index),
            flags: RAW * u8::from(params.raw) + DECLARED * u8::from(params.declared),
            dim,
            projection_input_dim: params.projection_input_dim,
            m: params.m,
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
        (self.flags & !(RAW | DECLARED) == 0).then_some(())?;
        Some(Params {
            layout: Layout { dim, metric, quantization },
            projection_input_dim: self.projection_input_dim,
            m: self.m,
            ef: self.ef,
            raw: self.flags & RAW != 0,
            declared: self.flags & DECLARED != 0,
            index: value(&INDEXES, self.index)?,
        })
    }

    /// As written in the log: four bytes, then four u32.
    pub fn to_bytes(self) -> [u8; PARAMS_BYTES] {
        let mut bytes = [0; PARAMS_BYTES];
        bytes[..4].copy_from_slice(&[self.metric, self.quantization, self.index, self.flags]);
        for (at, number) in [self.dim, self.projection_input_dim, self.m, self.ef].into_iter().enumerate() {
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
            m: number(12),
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
        let params = Params { raw: false, declared: true, index: IndexKind::Hnsw, ..Params::new(layout) };
        let written = ParamsV1::from(&params);
        assert_eq!(ParamsV1::from_bytes(&written.to_bytes()), written);
        assert_eq!(written.params(), Some(params));
        for at in 0..4 {
            let mut bytes = written.to_bytes();
            bytes[at] = 9;
            assert_eq!(ParamsV1::from_bytes(&bytes).params(), None);
        }
    }
}
