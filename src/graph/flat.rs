//! A graph as plain arrays, to be kept on disk, and back. Pages may change their numbers on the way.

use super::links::PAGE_NODES;
use super::{Graph, Node};

/// In place of a neighbour.
const NONE: u32 = u32::MAX;

/// The arrays of a graph. Pages follow one another; so do their rows.
#[derive(Debug, Default, PartialEq)]
pub struct Flat {
    /// The node where walks begin.
    pub entry: Node,
    /// 2 m places for neighbours of each row; those that are empty hold `u32::MAX`.
    pub base: Vec<u32>,
    /// The level of each row.
    pub levels: Vec<u8>,
    /// For each row and each level above the lowest, from below: m places.
    pub upper: Vec<u32>,
}

/// The same, borrowed.
#[derive(Clone, Copy)]
pub struct FlatRef<'a> {
    /// See [`Flat::entry`].
    pub entry: Node,
    /// See [`Flat::base`].
    pub base: &'a [u32],
    /// See [`Flat::levels`].
    pub levels: &'a [u8],
    /// See [`Flat::upper`].
    pub upper: &'a [u32],
}

impl Flat {
    /// Its arrays, borrowed.
    pub fn borrow(&self) -> FlatRef<'_> {
        FlatRef { entry: self.entry, base: &self.base, levels: &self.levels, upper: &self.upper }
    }
}

fn node(page: usize, offset: usize) -> Option<Node> {
    Node::try_from(page * PAGE_NODES + offset).ok()
}

impl Graph {
    /// Copies the first rows of some pages: (page, rows), numbered anew in this order. Links to other nodes are left out.
    /// `None` if there is no row.
    pub fn flatten(&self, pages: &[(usize, usize)]) -> Option<Flat> {
        let mut numbers = vec![None; pages.iter().map(|&(page, _)| page + 1).max()?];
        for (number, &(page, rows)) in pages.iter().enumerate() {
            numbers[page] = Some((number, rows));
        }
        let renumbered = |old: Node| {
            let (number, rows) = (*numbers.get(old as usize / PAGE_NODES)?)?;
            let offset = old as usize % PAGE_NODES;
            if offset < rows { node(number, offset) } else { None }
        };
        let mut flat = Flat::default();
        let mut top = None;
        for (number, &(page, rows)) in pages.iter().enumerate() {
            for offset in 0..rows {
                let old = node(page, offset)?;
                let level = self.links.level(old);
                if top.is_none_or(|top| level > top) {
                    top = Some(level);
                    flat.entry = node(number, offset)?;
                }
                flat.levels.push(u8::try_from(level).ok()?);
                for level in 0..=level {
                    let places = if level == 0 { &mut flat.base } else { &mut flat.upper };
                    let end = places.len() + self.links.capacity(level);
                    places.extend(self.links.neighbours(old, level).filter_map(renumbered));
                    places.resize(end, NONE);
                }
            }
        }
        top.map(|_| flat)
    }

    /// The graph of such arrays, with so many rows on each page. `None` if they do not fit together.
    pub fn restore(
        m: usize,
        ef_construction: usize,
        seed: u64,
        pages: &[usize],
        flat: FlatRef<'_>,
    ) -> Option<Self> {
        let graph = Self::new(m, ef_construction, seed);
        let rows: usize = pages.iter().sum();
        let is_node = |node: Node| {
            pages.get(node as usize / PAGE_NODES).is_some_and(|&rows| (node as usize % PAGE_NODES) < rows)
        };
        let lists: usize = flat.levels.iter().map(|&level| usize::from(level)).sum();
        let m = graph.m();
        let fits = flat.levels.len() == rows
            && flat.base.len() == rows * 2 * m
            && flat.upper.len() == lists * m
            && pages.iter().all(|&rows| rows <= PAGE_NODES)
            && flat.base.iter().chain(flat.upper).all(|&place| place == NONE || is_node(place))
            && is_node(flat.entry);
        if !fits {
            return None;
        }
        let (mut base, mut upper) = (flat.base.chunks_exact(2 * m), flat.upper.chunks_exact(m));
        let mut levels = flat.levels.iter();
        for (page, &rows) in pages.iter().enumerate() {
            for offset in 0..rows {
                let (node, level) = (node(page, offset)?, usize::from(*levels.next()?));
                if !graph.links.add(node, level) {
                    return None;
                }
                for level in 0..=level {
                    let places = if level == 0 { base.next()? } else { upper.next()? };
                    graph.links.set(node, level, places.iter().copied().take_while(|&place| place != NONE));
                }
            }
        }
        graph.nodes.store(rows, std::sync::atomic::Ordering::Relaxed);
        graph.set_entry(graph.links.level(flat.entry), flat.entry);
        Some(graph)
    }
}
