//! Elements in the order of their names, or of their names' hashes.
//!
//! Rows never change their names, so each chunk keeps the order of its rows once somebody has asked for it; a range is a
//! merge of the chunks' orders that leaves out rows that are not live in the version asked.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError};

use super::chunk::{Chunk, Rows};
use super::ids::hash_name;
use super::{Collection, RowId};

/// Offsets of a chunk's first rows, dead ones too, by name and by its hash. Made when first asked for, and extended as rows
/// come.
#[derive(Default)]
pub struct NameOrder {
    by_name: Mutex<Arc<Vec<u16>>>,
    by_hash: Mutex<Arc<Vec<u16>>>,
}

/// The order of at least the first `len` rows.
fn order_of<'a, K: Ord>(
    order: &Mutex<Arc<Vec<u16>>>,
    rows: &'a Rows,
    len: usize,
    key: impl Fn(&'a [u8]) -> K,
) -> Arc<Vec<u16>> {
    let mut order = order.lock().unwrap_or_else(PoisonError::into_inner);
    if order.len() < len {
        let mut longer = order.to_vec();
        longer.extend((order.len()..len).filter_map(|offset| u16::try_from(offset).ok()));
        longer.sort_by_cached_key(|&offset| key(rows.name(usize::from(offset))));
        *order = Arc::new(longer);
    }
    Arc::clone(&order)
}

impl NameOrder {
    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        let bytes = |order: &Mutex<Arc<Vec<u16>>>| {
            order.lock().unwrap_or_else(PoisonError::into_inner).capacity() * size_of::<u16>()
        };
        bytes(&self.by_name) + bytes(&self.by_hash)
    }
}

/// A place in a scan, from an element's name: 63 bits, because some clients read a cursor as a signed number; at least 1.
fn scan_place(name: &[u8]) -> u64 {
    (hash_name(name) >> 1).max(1)
}

/// A chunk's place in the merge.
struct Cursor<'a> {
    chunk: &'a Chunk,
    order: Arc<Vec<u16>>,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(chunk: &'a Chunk, start: Bound<&[u8]>) -> Option<Self> {
        let order = order_of(&chunk.name_order.by_name, &chunk.rows, chunk.len, |name| name);
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

    /// Elements from a scan's place on, about `count` of them, and the next place (0 at the end). An element that is there
    /// all the time is met in exactly one page, whatever happens to it and to others meanwhile.
    pub fn scan(&self, place: u64, count: usize) -> (Vec<RowId>, u64) {
        let chunks: Vec<&Chunk> =
            self.chunks.iter().filter(|chunk| chunk.live_rows > 0).map(|chunk| &**chunk).collect();
        let orders: Vec<_> = chunks
            .iter()
            .map(|chunk| order_of(&chunk.name_order.by_hash, &chunk.rows, chunk.len, scan_place))
            .collect();
        let place_of = |chunk: usize, offset: u16| scan_place(chunks[chunk].rows.name(usize::from(offset)));
        // The first live row of a chunk's order from a position on.
        let live_from = |chunk: usize, from: usize| {
            let found = (from..orders[chunk].len()).find(|&at| chunks[chunk].is_live(orders[chunk][at]))?;
            Some(Reverse((place_of(chunk, orders[chunk][found]), chunk, found)))
        };
        let first = |chunk: usize| orders[chunk].partition_point(|&offset| place_of(chunk, offset) < place);
        let mut heap: BinaryHeap<_> =
            (0..chunks.len()).filter_map(|chunk| live_from(chunk, first(chunk))).collect();
        let mut rows = Vec::new();
        let mut last = None;
        while let Some(Reverse((place, chunk, at))) = heap.pop() {
            // Elements of one place belong to one page.
            if rows.len() >= count && last != Some(place) {
                return (rows, place);
            }
            rows.push(RowId::new(chunks[chunk].number, orders[chunk][at]));
            last = Some(place);
            heap.extend(live_from(chunk, at + 1));
        }
        (rows, 0)
    }
}
