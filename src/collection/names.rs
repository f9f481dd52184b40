//! Elements in the order of their names.
//!
//! Rows never change their names, so each chunk keeps the order of its rows once somebody has asked for it; a range is a
//! merge of the chunks' orders that leaves out rows that are not live in the version asked.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use super::chunk::{Chunk, Rows};
use super::{Collection, RowId};

/// Offsets of a chunk's first rows, dead ones too, by name. Made when first asked for, and extended as rows come.
#[derive(Default)]
pub struct NameOrder(Mutex<Arc<Vec<u16>>>);

impl NameOrder {
    /// The order of at least the first `len` rows.
    fn of(&self, rows: &Rows, len: usize) -> Arc<Vec<u16>> {
        let mut order = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if order.len() < len {
            let mut longer = order.to_vec();
            longer.extend((order.len()..len).filter_map(|offset| u16::try_from(offset).ok()));
            // Mostly sorted already: the stable sort finds the long run and merges.
            longer.sort_by(|&a, &b| rows.name(usize::from(a)).cmp(rows.name(usize::from(b))));
            *order = Arc::new(longer);
        }
        Arc::clone(&order)
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).capacity() * size_of::<u16>()
    }
}

/// A chunk's place in the merge.
struct Cursor<'a> {
    chunk: &'a Chunk,
    order: Arc<Vec<u16>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(chunk: &'a Chunk, start: Bound<&[u8]>) -> Option<Self> {
        let order = chunk.name_order.of(&chunk.rows, chunk.len);
        let before = |offset: &u16| {
            let name = chunk.rows.name(usize::from(*offset));
            match start {
                Bound::Unbounded => false,
                Bound::Included(start) => name < start,
                Bound::Excluded(start) => name <= start,
            }
        };
        let at = order.partition_point(before);
        Self { chunk, order, at }.at_live()
    }

    /// Moves on to a live row, if it is not on one.
    fn at_live(mut self) -> Option<Self> {
        while !self.chunk.is_live(*self.order.get(self.at)?) {
            self.at += 1;
        }
        Some(self)
    }

    fn next(mut self) -> Option<Self> {
        self.at += 1;
        self.at_live()
    }

    fn offset(&self) -> u16 {
        self.order[self.at]
    }

    fn name(&self) -> &'a [u8] {
        self.chunk.rows.name(usize::from(self.offset()))
    }
}

impl Ord for Cursor<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl PartialOrd for Cursor<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Cursor<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Cursor<'_> {}

impl Collection {
    /// At most `count` elements whose names lie within the bounds, in the order of their names (bytes compared as
    /// numbers, the shorter of two equal beginnings first).
    pub fn range(&self, start: Bound<&[u8]>, end: Bound<&[u8]>, count: usize) -> Vec<RowId> {
        let cursors = self.chunks.iter().filter(|chunk| chunk.live_rows > 0);
        let mut heap: BinaryHeap<Reverse<Cursor<'_>>> =
            cursors.filter_map(|chunk| Cursor::new(chunk, start)).map(Reverse).collect();
        let mut rows = Vec::new();
        while rows.len() < count {
            let Some(Reverse(cursor)) = heap.pop() else { break };
            let within = match end {
                Bound::Unbounded => true,
                Bound::Included(end) => cursor.name() <= end,
                Bound::Excluded(end) => cursor.name() < end,
            };
            if !within {
                break;
            }
            rows.push(RowId::new(cursor.chunk.number, cursor.offset()));
            heap.extend(cursor.next().map(Reverse));
        }
        rows
    }
}
