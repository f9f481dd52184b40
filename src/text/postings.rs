//! Which rows of a chunk have a term, how often, and how long their texts are.

use std::borrow::Cow;
use std::ops::Range;

use super::growing::GrowingIndex;
use super::sealed::SealedIndex;
use crate::disk::DiskError;

/// Postings that share a bound in a sealed index.
pub const BLOCK: usize = 128;

/// A row that has a term, and how often: offset << 16 | count. Counts from [`LONG`] on are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct Posting(u32);

/// Stands for a count that is kept apart, with [`LongCount`].
pub const LONG: u32 = 0xffff;

impl Posting {
    /// The posting of a row that has the term that often.
    pub fn new(offset: u16, count: u32) -> Self {
        Self(u32::from(offset) << 16 | count.min(LONG))
    }

    /// The row.
    pub fn offset(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// How often, or [`LONG`].
    pub fn short_count(self) -> u32 {
        self.0 & LONG
    }
}

/// A count of [`LONG`] or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct LongCount {
    /// The row.
    pub offset: u32,
    /// How often it has the term.
    pub count: u32,
}

/// What no posting of several exceeds: for the highest score they can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Bound {
    /// The highest count.
    pub max_count: u32,
    /// The shortest text.
    pub min_length: u32,
}

impl Bound {
    /// Of no posting.
    pub const NONE: Self = Self { max_count: 0, min_length: u32::MAX };

    /// The bound with one posting more.
    #[must_use]
    pub fn with(self, count: u32, length: u32) -> Self {
        Self { max_count: self.max_count.max(count), min_length: self.min_length.min(length) }
    }

    /// The bound of the postings of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.with(other.max_count, other.min_length)
    }
}

/// A term's postings in a chunk, by ascending offset.
#[derive(Default)]
pub struct List<'a> {
    pub(super) postings: Cow<'a, [Posting]>,
    /// By ascending offset.
    pub(super) long: Cow<'a, [LongCount]>,
    pub(super) bounds: Bounds<'a>,
}

/// What the postings of a list do not exceed.
pub(super) enum Bounds<'a> {
    /// All of them.
    Whole(Bound),
    /// Each block of [`BLOCK`] postings of an index, of which `skipped` come before this list.
    Blocks { bounds: &'a [Bound], skipped: usize },
}

impl Default for Bounds<'_> {
    fn default() -> Self {
        Self::Whole(Bound::NONE)
    }
}

impl List<'_> {
    /// The postings.
    pub fn postings(&self) -> &[Posting] {
        &self.postings
    }

    /// How often a posting's row has the term.
    pub fn count(&self, posting: Posting) -> u32 {
        match posting.short_count() {
            LONG => {
                let offset = u32::from(posting.offset());
                let at = self.long.binary_search_by_key(&offset, |long| long.offset);
                at.map_or(LONG, |at| self.long[at].count)
            }
            count => count,
        }
    }

    /// What none of the postings at these places exceeds. There is at least one.
    pub fn bound(&self, places: &Range<usize>) -> Bound {
        match self.bounds {
            Bounds::Whole(bound) => bound,
            Bounds::Blocks { bounds, skipped } => {
                let (first, last) = ((places.start + skipped) / BLOCK, (places.end - 1 + skipped) / BLOCK);
                bounds[first..=last].iter().fold(Bound::NONE, |all, bound| all.and(*bound))
            }
        }
    }
}

/// The index of a chunk's texts.
#[derive(Clone, Copy)]
pub enum TextIndex<'a> {
    /// In memory, while the chunk grows.
    Growing(&'a GrowingIndex),
    /// In the chunk's file.
    Sealed(&'a SealedIndex),
}

impl<'a> TextIndex<'a> {
    /// The postings of a term in the rows before `len`.
    ///
    /// # Errors
    /// What is wrong with the file that holds them.
    pub fn list(&self, term: &str, len: usize) -> Result<List<'a>, DiskError> {
        match self {
            Self::Growing(index) => Ok(index.list(term, len)),
            Self::Sealed(index) => index.list(term),
        }
    }

    /// Terms in the text of a row; `None` if it has no text.
    pub fn length(&self, offset: u16) -> Option<u32> {
        match self {
            Self::Growing(index) => index.length(offset),
            Self::Sealed(index) => index.length(offset),
        }
    }
}
