//! A graph over rows that finds the nearest ones without looking at all: HNSW (Malkov and Yashunin, arXiv 1603.09320).
//!
//! The graph owns no vectors. It is a cache of who is near whom, and never needed for a right answer. Its nodes are numbers of rows;
//! whoever uses it gives it the rows ([`Rows`]), and everything is scored by their codes. One thread links rows
//! ([`Graph::insert`]) while others search; neighbours are atomic numbers, so nobody waits. A reader may meet a list half
//! rewritten: what is in it are nodes all the same.
//!
//! | file | job |
//! |---|---|
//! | `links.rs` | the lists of neighbours, on all levels |
//! | `search.rs` | the walk: a bounded pool, best first |
//! | `build.rs` | linking one more row |
//! | `flat.rs` | a graph as plain arrays, and back |

mod build;
mod flat;
mod links;

mod search;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use build::Builder;
pub use flat::{Flat, FlatRef};
pub use links::PAGE_NODES;
use links::{Links, MAX_LEVEL};
pub use search::Scratch;

use crate::vector::kernel::RowRef;

/// Number of a row in a graph: page << 16 | offset.
pub type Node = u32;

/// The fewest and most neighbours a node has above the lowest level, where it has twice as many.
pub const M_RANGE: std::ops::RangeInclusive<usize> = 2..=128;
/// The most candidates that a row is linked from.
pub const MAX_EF_CONSTRUCTION: usize = 4096;

/// What nodes stand for.
pub trait Rows {
    /// All nodes below it have a row.
    fn limit(&self) -> Node;

    /// The row of a node.
    fn row(&self, node: Node) -> RowRef<'_>;
}

/// See the module's text.
pub struct Graph {
    links: Links,
    ef_construction: usize,
    seed: u64,
    /// Level << 32 | node where walks begin; [`NO_ENTRY`] while there is no node.
    entry: AtomicU64,
    nodes: AtomicUsize,
}

const NO_ENTRY: u64 = u64::MAX;

impl Graph {
    /// An empty graph; numbers out of their ranges are moved into them. The levels of rows follow from `seed`.
    pub fn new(m: usize, ef_construction: usize, seed: u64) -> Self {
        let m = m.clamp(*M_RANGE.start(), *M_RANGE.end());
        Self {
            links: Links::new(m),
            ef_construction: ef_construction.clamp(m, MAX_EF_CONSTRUCTION),
            seed,
            entry: AtomicU64::new(NO_ENTRY),
            nodes: AtomicUsize::new(0),
        }
    }

    /// Neighbours of a node above the lowest level, at most.
    pub fn m(&self) -> usize {
        self.links.m()
    }

    /// Nodes that are linked.
    pub fn len(&self) -> usize {
        self.nodes.load(Ordering::Relaxed)
    }

    /// Whether no node is linked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The highest level.
    pub fn max_level(&self) -> usize {
        self.entry().map_or(0, |(level, _)| level)
    }

    /// The level of a node that is linked.
    pub fn level(&self, node: Node) -> usize {
        self.links.level(node)
    }

    /// Neighbours of a node on a level.
    pub fn neighbours(&self, node: Node, level: usize) -> Vec<Node> {
        self.links.neighbours(node, level).collect()
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.links.size_bytes()
    }

    /// Level and node where walks begin.
    fn entry(&self) -> Option<(usize, Node)> {
        let entry = self.entry.load(Ordering::Acquire);
        let [low, high] = [entry & 0xffff_ffff, entry >> 32].map(|half| u32::try_from(half).unwrap_or(0));
        (entry != NO_ENTRY).then_some((high as usize, low))
    }

    fn set_entry(&self, level: usize, node: Node) {
        self.entry.store((level as u64) << 32 | u64::from(node), Ordering::Release);
    }

    /// The level of a row, by a hash of it: at least l with probability m^-l.
    fn level_of(&self, row: u64) -> usize {
        let uniform = (splitmix(self.seed ^ splitmix(row)) >> 11) as f64 / (1u64 << 53) as f64;
        let mut bound = 1.0 / self.links.m() as f64;
        let mut level = 0;
        while uniform < bound && level < MAX_LEVEL {
            level += 1;
            bound /= self.links.m() as f64;
        }
        level
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn splitmix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
