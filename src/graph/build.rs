//! Linking a row: its neighbours are chosen so that they lie in different directions, and get a link back.

use super::search::{Candidate, Scratch};
use super::{Graph, Node, Rows};
use crate::vector::kernel::RowRef;
use crate::vector::{Layout, Query};

/// Chosen neighbours that a candidate is compared with at once.
const COMPARED: usize = 8;

/// The memory of the thread that links rows.
pub struct Builder {
    scratch: Scratch,
    /// The row that is linked.
    query: Query,
    /// A neighbour whose list is full.
    centre: Query,
    /// A candidate.
    probe: Query,
}

impl Builder {
    /// For rows of that layout.
    pub fn new(layout: &Layout) -> Self {
        let blank = Query::blank(layout);
        Self { scratch: Scratch::default(), query: blank.clone(), centre: blank.clone(), probe: blank }
    }
}

impl Graph {
    /// Links a node that is not linked. `key` decides its level. One thread at a time. False if the graph has no room.
    pub fn insert<R: Rows>(&self, rows: &R, node: Node, key: u64, builder: &mut Builder) -> bool {
        let level = self.level_of(key);
        if !self.links.add(node, level) {
            return false;
        }
        self.nodes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let Some((top, entry)) = self.entry() else {
            self.set_entry(level, node);
            return true;
        };
        builder.query.set_row(rows.row(node));
        let lowest = level.min(top);
        let start = self.descend(rows, &builder.query, (top, entry), lowest, &mut builder.scratch);
        builder.scratch.pool.clear();
        builder.scratch.pool.push(start);
        for level in (0..=lowest).rev() {
            self.link(rows, node, level, builder);
        }
        if level > top {
            self.set_entry(level, node);
        }
        true
    }

    /// Links a node on one level, from the nodes in the pool.
    fn link<R: Rows>(&self, rows: &R, node: Node, level: usize, builder: &mut Builder) {
        builder.scratch.pool.truncate(1);
        self.walk(rows, &builder.query, level, self.ef_construction, &mut builder.scratch, &mut |_| true);
        let chosen = select(rows, &builder.scratch.pool, self.links.m(), true, &mut builder.probe);
        self.links.set(node, level, chosen.iter().map(|candidate| candidate.node()));
        for neighbour in chosen {
            self.link_back(rows, neighbour.node(), node, level, builder);
        }
    }

    /// Adds a neighbour to a node's list, in which the worst choices make room.
    fn link_back<R: Rows>(&self, rows: &R, node: Node, neighbour: Node, level: usize, builder: &mut Builder) {
        if self.links.push(node, level, neighbour) {
            return;
        }
        let nodes: Vec<Node> = self.links.neighbours(node, level).chain([neighbour]).collect();
        let candidates = self.ranked(rows, node, &nodes, &mut builder.centre);
        let chosen = select(rows, &candidates, self.links.capacity(level), false, &mut builder.probe);
        self.links.set(node, level, chosen.iter().map(|candidate| candidate.node()));
    }

    /// Nodes by how near they are to a node.
    pub(super) fn ranked<R: Rows>(
        &self,
        rows: &R,
        node: Node,
        nodes: &[Node],
        centre: &mut Query,
    ) -> Vec<Candidate> {
        centre.set_row(rows.row(node));
        let refs: Vec<RowRef<'_>> =
            nodes.iter().map(|&node| rows.row(node)).inspect(RowRef::prefetch).collect();
        let mut scores = vec![0.0; refs.len()];
        centre.score_each(&refs, &mut scores);
        let mut ranked: Vec<Candidate> =
            nodes.iter().zip(scores).map(|(&node, score)| Candidate::new(score, node)).collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
        ranked
    }
}

/// At most `count` of the candidates (best first): those that are nearer to the node than to any better one chosen. With `fill`,
/// the best of the others take what room is left.
pub(super) fn select<R: Rows>(
    rows: &R,
    candidates: &[Candidate],
    count: usize,
    fill: bool,
    probe: &mut Query,
) -> Vec<Candidate> {
    let mut chosen: Vec<Candidate> = Vec::with_capacity(count);
    let mut refs: Vec<RowRef<'_>> = Vec::with_capacity(count);
    let mut others = Vec::new();
    for &candidate in candidates {
        if chosen.len() == count {
            break;
        }
        let row = rows.row(candidate.node());
        if !refs.is_empty() {
            probe.set_row(row);
        }
        let mut scores = [0.0; COMPARED];
        let is_covered = refs.chunks(COMPARED).any(|refs| {
            let scores = &mut scores[..refs.len()];
            probe.score_each(refs, scores);
            scores.iter().any(|&score| score > candidate.score)
        });
        if is_covered {
            others.push(candidate);
        } else {
            chosen.push(candidate);
            refs.push(row);
        }
    }
    let room = if fill { count - chosen.len() } else { 0 };
    chosen.extend(others.into_iter().take(room));
    chosen
}
