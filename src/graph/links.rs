//! The lists of neighbours. Their memory never moves, so lists are read while others are added.
//!
//! On the lowest level every node has a list, in a flat array. The few nodes that are on higher levels have one more for each of
//! those, in a table of their own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Node;
use crate::vector::arena::SharedNumbers;
use crate::vector::kernel::prefetch;

/// Nodes of a page.
pub const PAGE_NODES: usize = 1 << 16;
/// Pages a graph can have.
const MAX_PAGES: usize = 1 << 10;
/// Lists of higher levels that are allocated together.
const BLOCK_LISTS: usize = 1 << 12;
/// Blocks of lists of higher levels; with the usual m there are 15 times fewer of those than nodes.
const MAX_LIST_BLOCKS: usize = 1 << 12;
/// No neighbour. Neighbours are stored as their complement, so that memory that is 0 holds none.
const NONE: u32 = u32::MAX;
/// The highest level a node can have. The lower bits of a node's entry in `Page::upper` hold it.
pub(super) const MAX_LEVEL: usize = (1 << LEVEL_BITS) - 1;
const LEVEL_BITS: u32 = 4;

struct Page {
    /// `PAGE_NODES` lists of 2 m.
    base: SharedNumbers,
    /// Of each node: number of its first higher list << `LEVEL_BITS` | its level.
    upper: SharedNumbers,
}

pub(super) struct Links {
    m: usize,
    pages: Box<[OnceLock<Box<Page>>]>,
    lists: Box<[OnceLock<SharedNumbers>]>,
    next_list: AtomicU32,
}

impl Links {
    pub fn new(m: usize) -> Self {
        Self {
            m,
            pages: (0..MAX_PAGES).map(|_| OnceLock::new()).collect(),
            lists: (0..MAX_LIST_BLOCKS).map(|_| OnceLock::new()).collect(),
            next_list: AtomicU32::new(0),
        }
    }

    pub fn m(&self) -> usize {
        self.m
    }

    /// Neighbours a node can have on a level.
    pub fn capacity(&self, level: usize) -> usize {
        if level == 0 { 2 * self.m } else { self.m }
    }

    #[inline]
    fn page(&self, node: Node) -> Option<&Page> {
        Some(self.pages.get(node as usize / PAGE_NODES)?.get()?)
    }

    /// Makes room for a node's lists. False if there is none; then nothing has changed.
    pub fn add(&self, node: Node, level: usize) -> bool {
        let (number, at, width) = (node as usize / PAGE_NODES, node as usize % PAGE_NODES, 2 * self.m);
        let Some(page) = self.pages.get(number).filter(|_| level <= MAX_LEVEL) else {
            return false;
        };
        let first = self.next_list.load(Ordering::Relaxed);
        let end = first as usize + level;
        if end > MAX_LIST_BLOCKS * BLOCK_LISTS {
            return false;
        }
        for block in &self.lists[first as usize / BLOCK_LISTS..end.div_ceil(BLOCK_LISTS)] {
            let block = block.get_or_init(|| SharedNumbers::new(BLOCK_LISTS * self.m, false));
            block.touch(block.len());
        }
        // Small graphs, of which there may be many, go without huge pages.
        let is_large = number > 0;
        let page = page.get_or_init(|| {
            let [base, upper] = [width, 1].map(|each| SharedNumbers::new(PAGE_NODES * each, is_large));
            Box::new(Page { base, upper })
        });
        page.base.touch((at + 1) * width);
        page.upper.touch(at + 1);
        if let (1.., Ok(level)) = (level, u32::try_from(level)) {
            page.upper[at].store(first << LEVEL_BITS | level, Ordering::Release);
            self.next_list.store(first + level, Ordering::Relaxed);
        }
        true
    }

    pub fn level(&self, node: Node) -> usize {
        self.page(node).map_or(0, |page| {
            page.upper[node as usize % PAGE_NODES].load(Ordering::Acquire) as usize & MAX_LEVEL
        })
    }

    /// The places of a node's neighbours on a level; empty if it is not there.
    #[inline]
    fn list(&self, node: Node, level: usize) -> &[AtomicU32] {
        let Some(page) = self.page(node) else { return &[] };
        let (at, width) = (node as usize % PAGE_NODES, 2 * self.m);
        if level == 0 {
            return &page.base[at * width..(at + 1) * width];
        }
        let upper = page.upper[at].load(Ordering::Acquire);
        if level > upper as usize & MAX_LEVEL {
            return &[];
        }
        let number = (upper >> LEVEL_BITS) as usize + level - 1;
        let lists = self.lists.get(number / BLOCK_LISTS).and_then(OnceLock::get);
        let at = number % BLOCK_LISTS * self.m;
        lists.map_or(&[], |lists| &lists[at..at + self.m])
    }

    /// Asks for the memory of a node's lowest list.
    #[inline]
    pub fn prefetch(&self, node: Node) {
        prefetch(self.list(node, 0));
    }

    /// A node's neighbours on a level.
    #[inline]
    pub fn neighbours(&self, node: Node, level: usize) -> impl Iterator<Item = Node> + '_ {
        let places = self.list(node, level).iter();
        // A new neighbour's row and lists are there before its number is.
        places.map(|place| !place.load(Ordering::Acquire)).take_while(|&neighbour| neighbour != NONE)
    }

    /// Replaces a node's neighbours on a level.
    pub fn set(&self, node: Node, level: usize, neighbours: impl IntoIterator<Item = Node>) {
        let mut neighbours = neighbours.into_iter();
        for place in self.list(node, level) {
            place.store(!neighbours.next().unwrap_or(NONE), Ordering::Release);
        }
    }

    /// Adds a neighbour; false if there is no room.
    pub fn push(&self, node: Node, level: usize, neighbour: Node) -> bool {
        let free = self.list(node, level).iter().find(|place| place.load(Ordering::Relaxed) == !NONE);
        free.inspect(|place| place.store(!neighbour, Ordering::Release)).is_some()
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        let pages = self.pages.iter().filter_map(OnceLock::get);
        let pages = pages.map(|page| size_of::<Page>() + page.base.size_bytes() + page.upper.size_bytes());
        let lists = self.lists.iter().filter_map(OnceLock::get).map(SharedNumbers::size_bytes);
        pages.sum::<usize>() + lists.sum::<usize>() + size_of_val(&*self.pages) + size_of_val(&*self.lists)
    }
}
