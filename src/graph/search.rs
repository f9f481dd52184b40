//! The walk through the graph: from a far node down the levels, then best first with a bounded pool.

use super::{Graph, Node, Rows};
use crate::vector::Query;
use crate::vector::kernel::{ROWS_AHEAD, RowRef};

/// Marks a node of the pool whose neighbours have been looked at. Nodes are smaller.
const EXPANDED: u32 = 1 << 31;

/// A node and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Candidate {
    pub score: f32,
    node: u32,
}

impl Candidate {
    pub fn new(score: f32, node: Node) -> Self {
        Self { score, node }
    }

    pub fn node(self) -> Node {
        self.node & !EXPANDED
    }
}

/// A walk's memory, which is used again by the next one.
#[derive(Default)]
pub struct Scratch {
    /// Bit i % 64 of word i / 64: the walk has met node i. Few words are set, and cleared one by one.
    met: Vec<u64>,
    /// The nodes that were met.
    all_met: Vec<Node>,
    /// Best first.
    pub(super) pool: Vec<Candidate>,
    fresh: Vec<Node>,
    scores: Vec<f32>,
    /// Nodes scored by the last search.
    pub scored: usize,
}

impl Scratch {
    /// Begins a walk from the nodes in the pool.
    pub(super) fn begin(&mut self, limit: Node) {
        for node in self.all_met.drain(..) {
            self.met[node as usize / 64] = 0;
        }
        let words = limit as usize / 64 + 1;
        if self.met.len() < words {
            self.met.resize(words, 0);
        }
        for candidate in &mut self.pool {
            candidate.node &= !EXPANDED;
            self.met[candidate.node as usize / 64] |= 1 << (candidate.node % 64);
            self.all_met.push(candidate.node);
        }
    }

    /// Whether the walk meets a node for the first time.
    #[inline]
    fn meets(&mut self, node: Node) -> bool {
        let (word, bit) = (&mut self.met[node as usize / 64], 1 << (node % 64));
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    /// What the last search found: scores by codes and nodes, best first.
    pub fn found(&self) -> impl Iterator<Item = (f32, Node)> + '_ {
        self.pool.iter().map(|candidate| (candidate.score, candidate.node()))
    }
}

impl Graph {
    /// Finds the `ef` nodes that score best, or nearly so; see [`Scratch::found`]. `go_on` is asked now and then with the
    /// number of nodes scored so far, and ends the search early with false.
    pub fn search<R: Rows>(
        &self,
        rows: &R,
        query: &Query,
        ef: usize,
        scratch: &mut Scratch,
        mut go_on: impl FnMut(&Scratch) -> bool,
    ) {
        scratch.pool.clear();
        scratch.scored = 0;
        let Some((top, entry)) = self.entry().filter(|&(_, node)| node < rows.limit()) else { return };
        let start = self.descend(rows, query, (top, entry), 0, scratch);
        scratch.pool.push(start);
        self.walk(rows, query, 0, ef.max(1), scratch, &mut go_on);
    }

    /// From the entry, on each level above `level` to the neighbour that scores best until none is better.
    pub(super) fn descend<R: Rows>(
        &self,
        rows: &R,
        query: &Query,
        (top, entry): (usize, Node),
        level: usize,
        scratch: &mut Scratch,
    ) -> Candidate {
        let mut score = [0.0];
        query.score_each(&[rows.row(entry)], &mut score);
        let mut best = Candidate::new(score[0], entry);
        let mut refs = Vec::with_capacity(self.links.capacity(1));
        for level in (level + 1..=top).rev() {
            loop {
                let known = best;
                scratch.fresh.clear();
                refs.clear();
                for node in self.links.neighbours(known.node, level).filter(|&node| node < rows.limit()) {
                    note(rows, node, &mut scratch.fresh, &mut refs);
                }
                scratch.score(query, &refs);
                for (&node, &score) in scratch.fresh.iter().zip(&scratch.scores) {
                    if score > best.score {
                        best = Candidate::new(score, node);
                    }
                }
                if best == known {
                    break;
                }
            }
        }
        best
    }

    /// Looks at the neighbours of the best node not yet looked at, until the best `ef` met are all looked at.
    pub(super) fn walk<R: Rows>(
        &self,
        rows: &R,
        query: &Query,
        level: usize,
        ef: usize,
        scratch: &mut Scratch,
        go_on: &mut dyn FnMut(&Scratch) -> bool,
    ) {
        let limit = rows.limit();
        scratch.begin(limit);
        let mut refs = Vec::with_capacity(self.links.capacity(level));
        let mut at = 0;
        while let Some(candidate) = scratch.pool.get_mut(at) {
            if candidate.node & EXPANDED != 0 {
                at += 1;
                continue;
            }
            let node = candidate.node;
            candidate.node |= EXPANDED;
            scratch.fresh.clear();
            refs.clear();
            // Unless a better one is met now, it is the next.
            scratch.pool.get(at + 1).inspect(|next| self.links.prefetch(next.node()));
            for node in self.links.neighbours(node, level).filter(|&node| node < limit) {
                if scratch.meets(node) {
                    note(rows, node, &mut scratch.fresh, &mut refs);
                }
            }
            scratch.all_met.extend_from_slice(&scratch.fresh);
            scratch.score(query, &refs);
            let first = scratch.enter(ef, at + 1, |node| self.links.prefetch(node));
            at = first.min(at + 1);
            if !go_on(scratch) {
                return;
            }
        }
    }
}

/// Remembers a node to score, and asks for the memory of the first ones.
#[inline]
fn note<'a, R: Rows>(rows: &'a R, node: Node, fresh: &mut Vec<Node>, refs: &mut Vec<RowRef<'a>>) {
    let row = rows.row(node);
    if refs.len() < ROWS_AHEAD {
        row.prefetch();
    }
    fresh.push(node);
    refs.push(row);
}

impl Scratch {
    /// Scores the fresh nodes.
    #[inline]
    fn score(&mut self, query: &Query, refs: &[RowRef<'_>]) {
        self.scored += refs.len();
        self.scores.resize(refs.len(), 0.0);
        query.score_each(refs, &mut self.scores);
    }

    /// Enters the fresh nodes into the pool of at most `ef`; tells of those that may be the next. The first place that was taken.
    #[inline]
    fn enter(&mut self, ef: usize, next: usize, entered: impl Fn(Node)) -> usize {
        let mut first = usize::MAX;
        for (&node, &score) in self.fresh.iter().zip(&self.scores) {
            let full = self.pool.len() >= ef;
            if full && self.pool.last().is_some_and(|worst| score <= worst.score) {
                continue;
            }
            let place = self.pool.partition_point(|candidate| candidate.score >= score);
            if full {
                self.pool.pop();
            }
            self.pool.insert(place, Candidate::new(score, node));
            if place <= next {
                entered(node);
            }
            first = first.min(place);
        }
        first
    }
}
