//! What can be read of a chunk's file some sections of which are damaged.
//!
//! A row is read if its name and its vector can be proved good. Codes and scalars follow from the vector, so their
//! damage loses nothing, except where no originals are kept. Attributes and texts that cannot be read are lost alone.

use super::chunk::{Attributes, Text};
use super::overlay::Overlay;
use super::sealed::{Strings, Texts, as_floats};
use super::sparse::Sparse;
use super::{Params, Tag};
use crate::disk::sections::{LazySection, SectionFile};
use crate::vector::quant::{self, Scalars};

/// Which of a chunk's rows hold elements.
pub struct SavedView<'a> {
    /// Rows.
    pub len: usize,
    /// Bit i of word i / 64: row i holds an element.
    pub live: &'a [u64],
}

/// An element read from a damaged file.
pub struct SalvagedRow {
    /// Where in the chunk it was.
    pub offset: u16,
    /// Name.
    pub name: Vec<u8>,
    /// Vector.
    pub vector: Vec<f32>,
    /// Attributes.
    pub attributes: Option<Attributes>,
    /// Text.
    pub text: Option<Text>,
    /// Sparse vector, if it has one that can be read.
    pub sparse: Option<Sparse>,
    /// When the element goes by itself, unix milliseconds: to be filled in, files of chunks do not say it.
    pub expires_ms: Option<u64>,
}

/// What could be read and what not.
#[derive(Default)]
pub struct Salvage {
    /// Elements that could be read.
    pub rows: Vec<SalvagedRow>,
    /// Names of those whose vectors are lost.
    pub lost: Vec<Vec<u8>>,
    /// How many are lost without a name.
    pub unnamed: usize,
    /// Names of elements whose attributes, if they had any, are lost.
    pub without_attributes: Vec<Vec<u8>>,
    /// Names of elements whose texts, if they had any, are lost.
    pub without_text: Vec<Vec<u8>>,
}

/// Where vectors come from.
enum Vectors {
    Resident(bytes::Bytes),
    Lazy(LazySection),
    /// Codes, scales, norms.
    Codes([bytes::Bytes; 3]),
    Lost,
}

/// Reads the elements of a chunk from the sections that are good. `overlay` holds attributes that changed since.
pub fn salvage_rows(file: &SectionFile, params: &Params, view: &SavedView<'_>, overlay: &Overlay) -> Salvage {
    let vectors = Vectors::open(file, params, view.len);
    let names = Strings::open(file, Tag::NameStarts, Tag::Names, view.len);
    let sealed_attributes = Strings::open(file, Tag::AttributeStarts, Tag::Attributes, view.len);
    let texts = Texts::open(file, Tag::TextStarts, Tag::Texts, view.len).ok();
    let sparse = Texts::open(file, Tag::SparseStarts, Tag::Sparse, view.len).ok().flatten();
    let mut salvage = Salvage::default();
    let live = |at: &usize| view.live.get(at / 64).is_some_and(|word| word & (1 << (at % 64)) != 0);
    for (at, offset) in (0..view.len).zip(0..=u16::MAX).filter(|(at, _)| live(at)) {
        let Some(name) = names.as_ref().map(|names| names.get(at).to_vec()) else {
            salvage.unnamed += 1;
            continue;
        };
        let Some(vector) = vectors.get(params, at) else {
            salvage.lost.push(name);
            continue;
        };
        let attributes = match (overlay.get(&offset), &sealed_attributes) {
            (Some(changed), _) => changed.clone(),
            (None, Some(sealed)) => sealed.get(at).get(1..).map(Attributes::from),
            (None, None) => {
                salvage.without_attributes.push(name.clone());
                None
            }
        };
        let text = match &texts {
            Some(Some(texts)) => texts.get(at).map(|text| text.map(Text::from)).ok(),
            Some(None) => Some(None),
            None => None,
        };
        let text = text.unwrap_or_else(|| {
            salvage.without_text.push(name.clone());
            None
        });
        let sparse = sparse.as_ref().and_then(|sparse| sparse.get(at).ok().flatten().map(Sparse::from));
        salvage.rows.push(SalvagedRow { offset, name, vector, attributes, text, sparse, expires_ms: None });
    }
    salvage
}

impl Vectors {
    fn open(file: &SectionFile, params: &Params, len: usize) -> Self {
        let shape = params.row_shape();
        let section = |tag: Tag, row_bytes: usize| {
            file.section(tag as u32).filter(|bytes| bytes.len() == len * row_bytes)
        };
        let found = if shape.original_len == 0 {
            let codes = section(Tag::Codes, shape.code_bytes);
            let scalars = section(Tag::Scales, 4).zip(section(Tag::Norms, 4));
            codes.zip(scalars).map(|(codes, (scales, norms))| Self::Codes([codes, scales, norms]))
        } else if shape.code_bytes == 0 {
            section(Tag::Originals, shape.original_len * 4).map(Self::Resident)
        } else {
            let lazy = file.lazy_section(Tag::Originals as u32);
            lazy.filter(|section| section.len() == len * shape.original_len * 4).map(Self::Lazy)
        };
        found.unwrap_or(Self::Lost)
    }

    fn get(&self, params: &Params, at: usize) -> Option<Vec<f32>> {
        let shape = params.row_shape();
        let row = |len: usize| at * len..(at + 1) * len;
        match self {
            Self::Resident(bytes) => Some(as_floats(&bytes[row(shape.original_len * 4)]).to_vec()),
            Self::Lazy(section) => {
                section.read(row(shape.original_len * 4)).ok().map(|bytes| as_floats(bytes).to_vec())
            }
            Self::Codes([codes, scales, norms]) => {
                let scalar = |bytes: &[u8]| as_floats(bytes)[at];
                let scalars =
                    Scalars { scale: scalar(scales), norm: scalar(norms), residual: 0.0, bias: 0.0 };
                Some(quant::decode(&params.layout, &codes[row(shape.code_bytes)], &scalars))
            }
            Self::Lost => None,
        }
    }
}
