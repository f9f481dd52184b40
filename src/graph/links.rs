//! The lists of neighbours. Memory comes in blocks that never move, so lists are read while others are added.
//!
//! On the lowest level every node has a list, in a flat array. The few nodes that are on higher levels have one more for each of
//! those, in a table of their own.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Node;
use crate::vector::kernel::prefetch;

/// Nodes of a page.
pub const PAGE_NODES: usize = 1 << 16;
/// Pages a graph can have.
const MAX_PAGES: usize = 1 << 10;
/// Nodes of a block, whose lists are allocated together.
const BLOCK_NODES: usize = 1 << 10;
/// Lists of higher levels that are allocated together.
const BLOCK_LISTS: usize = 1 << 12;
/// Blocks of lists of higher levels; with the usual m there are 15 times fewer of those than nodes.
const MAX_LIST_BLOCKS: usize = 1 << 12;
/// No neighbour.
const NONE: u32 = u32::MAX;
/// The highest level a node can have. The lower bits of a node's entry in `Block::upper` hold it.
pub(super) const MAX_LEVEL: usize = (1 << LEVEL_BITS) - 1;
const LEVEL_BITS: u32 = 4;

struct Block {
    /// `BLOCK_NODES` lists of 2 m.
    base: Box<[AtomicU32]>,
    /// Of each node: number of its first higher list << `LEVEL_BITS` | its level.
    upper: Box<[AtomicU32]>,
}

type Page = [OnceLock<Block>; PAGE_NODES / BLOCK_NODES];

pub(super) struct Links {
    m: usize,
    pages: Box<[OnceLock<Box<Page>>]>,
    lists: Box<[OnceLock<Box<[AtomicU32]>>]>,
    next_list: AtomicU32,
}

fn unlinked(count: usize) -> Box<[AtomicU32]> {
    (0..count).map(|_| AtomicU32::new(NONE)).collect()
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
    fn block(&self, node: Node) -> Option<&Block> {
        let page = self.pages.get(node as usize / PAGE_NODES)?.get()?;
        page[node as usize % PAGE_NODES / BLOCK_NODES].get()
    }

    /// Makes room for a node's lists. False if there is none; then nothing has changed.
    pub fn add(&self, node: Node, level: usize) -> bool {
        let Some(page) = self.pages.get(node as usize / PAGE_NODES).filter(|_| level <= MAX_LEVEL) else {
            return false;
        };
        let first = self.next_list.load(Ordering::Relaxed);
        let end = first as usize + level;
        if end > MAX_LIST_BLOCKS * BLOCK_LISTS {
            return false;
        }
        for block in &self.lists[first as usize / BLOCK_LISTS..end.div_ceil(BLOCK_LISTS)] {
            block.get_or_init(|| unlinked(BLOCK_LISTS * self.m));
        }
        let page = page.get_or_init(|| Box::new([const { OnceLock::new() }; PAGE_NODES / BLOCK_NODES]));
        let block = page[node as usize % PAGE_NODES / BLOCK_NODES].get_or_init(|| Block {
            base: unlinked(BLOCK_NODES * 2 * self.m),
            upper: (0..BLOCK_NODES).map(|_| AtomicU32::new(0)).collect(),
        });
        if let (1.., Ok(level)) = (level, u32::try_from(level)) {
            block.upper[node as usize % BLOCK_NODES].store(first << LEVEL_BITS | level, Ordering::Release);
            self.next_list.store(first + level, Ordering::Relaxed);
        }
        true
    }

    pub fn level(&self, node: Node) -> usize {
        self.block(node).map_or(0, |block| {
            block.upper[node as usize % BLOCK_NODES].load(Ordering::Acquire) as usize & MAX_LEVEL
        })
    }

    /// The places of a node's neighbours on a level; empty if it is not there.
    #[inline]
    pub fn list(&self, node: Node, level: usize) -> &[AtomicU32] {
        let Some(block) = self.block(node) else { return &[] };
        let (at, width) = (node as usize % BLOCK_NODES, 2 * self.m);
        if level == 0 {
            return &block.base[at * width..(at + 1) * width];
        }
        let upper = block.upper[at].load(Ordering::Acquire);
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
        places.map(|place| place.load(Ordering::Acquire)).take_while(|&neighbour| neighbour != NONE)
    }

    /// Replaces a node's neighbours on a level.
    pub fn set(&self, node: Node, level: usize, neighbours: impl IntoIterator<Item = Node>) {
        let mut neighbours = neighbours.into_iter();
        for place in self.list(node, level) {
            place.store(neighbours.next().unwrap_or(NONE), Ordering::Release);
        }
    }

    /// Adds a neighbour; false if there is no room.
    pub fn push(&self, node: Node, level: usize, neighbour: Node) -> bool {
        let free = self.list(node, level).iter().find(|place| place.load(Ordering::Relaxed) == NONE);
        free.inspect(|place| place.store(neighbour, Ordering::Release)).is_some()
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        let blocks: usize = self
            .pages
            .iter()
            .filter_map(OnceLock::get)
            .map(|page| {
                size_of::<Page>()
                    + page.iter().filter(|block| block.get().is_some()).count() * self.block_bytes()
            })
            .sum();
        let lists = self.lists.iter().filter(|block| block.get().is_some()).count();
        blocks
            + lists * BLOCK_LISTS * self.m * size_of::<u32>()
            + size_of_val(&*self.pages)
            + size_of_val(&*self.lists)
    }

    fn block_bytes(&self) -> usize {
        BLOCK_NODES * (2 * self.m + 1) * size_of::<u32>()
    }
}
