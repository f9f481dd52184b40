//! A collection's graph: which rows it covers, and searching by it.
//!
//! All versions of a collection share one [`Index`], which a background thread fills (`store/indexer.rs`). A graph covers the first
//! rows of some chunks; a search scans what it does not cover. Rows that are dead, or not live in the search's version, are passed
//! through but never found. Chunks that are gone from the collection stay in the graph, with their rows, until it is built
//! anew.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::chunk::Rows;
use super::{Collection, GraphWish, IndexKind, Params, RowId};
use crate::graph::{self, Builder, Graph, Node, PAGE_NODES};
use crate::vector::kernel::RowRef;

/// Rows that a graph is built for at least, even if it is asked for.
pub const MIN_ROWS: usize = if cfg!(test) { 64 } else { 1000 };
/// Bytes of scanned rows from which a graph is built without being asked for: below, a scan takes less than a quarter
/// of a millisecond.
pub const AUTO_MIN_BYTES: usize = 4 << 20;
/// A graph is built anew when this many of its nodes, in percent, are no row of the collection any more.
const MAX_GONE_PERCENTAGE: usize = 40;
/// The levels of rows follow from it.
pub const SEED: u64 = 0x5eed;

/// What a graph was found to be worth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tuning {
    /// Candidates a search keeps by default.
    pub ef: usize,
    /// recall@10 with these, on rows of the collection.
    pub recall: f64,
    /// Nodes when it was measured.
    pub nodes: usize,
}

/// The graph that all versions of a collection share.
#[derive(Default)]
pub struct Index {
    /// In use.
    graph: ArcSwapOption<Covered>,
    /// Being built.
    next: Mutex<Option<Arc<Covered>>>,
    /// Whether a graph is to be built anew although there is one.
    again: AtomicBool,
    /// Whether it has been looked for on disk.
    pub looked_for: AtomicBool,
    /// Rows of the graph that are on disk.
    pub kept_rows: AtomicUsize,
    /// Searches answered with the graph.
    pub searches: AtomicUsize,
}

/// A graph and the rows of its nodes.
pub struct Covered {
    /// The graph; page i is about `pages[i]`.
    pub graph: Graph,
    pages: ArcSwap<Vec<Page>>,
    tuning: ArcSwapOption<Tuning>,
}

/// A page of the graph: the rows of a chunk.
#[derive(Clone)]
struct Page {
    chunk: u32,
    rows: Arc<Rows>,
    /// Rows that are linked, from the first on.
    linked: Arc<AtomicUsize>,
}

/// The rows of a graph's nodes, as they were when it was taken.
pub struct Pages(Arc<Vec<Page>>);

impl graph::Rows for Pages {
    fn limit(&self) -> Node {
        Node::try_from(self.0.len() * PAGE_NODES).unwrap_or(Node::MAX)
    }

    #[inline]
    fn row(&self, node: Node) -> RowRef<'_> {
        self.0[node as usize / PAGE_NODES].rows.row(node as usize % PAGE_NODES)
    }
}

impl Index {
    /// The graph in use.
    pub fn graph(&self) -> Option<Arc<Covered>> {
        self.graph.load_full()
    }

    /// The graph being built.
    pub fn next(&self) -> Option<Arc<Covered>> {
        self.lock_next().clone()
    }

    fn lock_next(&self) -> MutexGuard<'_, Option<Arc<Covered>>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for a new graph even if there is one.
    pub fn build_again(&self) {
        self.again.store(true, Ordering::Relaxed);
    }

    /// Gives up the graph and the one being built. Where one is wanted, another is begun.
    pub fn clear(&self) {
        *self.lock_next() = None;
        if self.graph.load().is_some() {
            self.graph.store(None);
        }
    }

    /// Whether a collection is to have a graph.
    pub fn is_wanted(&self, collection: &Collection) -> bool {
        let params = &collection.params;
        let rows = collection.len();
        // A collection about that large does not lose its graph with every removal.
        let auto_min_bytes = if self.graph.load().is_some() { AUTO_MIN_BYTES / 2 } else { AUTO_MIN_BYTES };
        rows >= MIN_ROWS
            && match (params.wish, params.index) {
                (GraphWish::Drop, _) => false,
                (GraphWish::Build, _) | (_, IndexKind::Hnsw) => true,
                (_, IndexKind::Flat) => false,
                (_, IndexKind::Auto) => rows * params.row_shape().scanned_bytes() >= auto_min_bytes,
            }
    }

    /// The graph to link rows into, for the thread that does: the one in use, or one that is begun in its place. None where none is
    /// wanted; then there is none any more.
    pub fn to_link(&self, collection: &Collection) -> Option<Arc<Covered>> {
        if !self.is_wanted(collection) {
            self.clear();
            return None;
        }
        let again = self.again.swap(false, Ordering::Relaxed);
        let mut next = self.lock_next();
        if again {
            *next = None;
        }
        if let Some(next) = &*next {
            return Some(Arc::clone(next));
        }
        match self.graph() {
            Some(graph) if !again && !graph.is_worn(collection) => Some(graph),
            _ => Some(Arc::clone(next.insert(Arc::new(Covered::new(&collection.params))))),
        }
    }

    /// Puts a graph to use, unless another has been asked for meanwhile; whether it did.
    pub fn adopt(&self, graph: &Arc<Covered>) -> bool {
        let mut next = self.lock_next();
        let is_next = next.as_ref().is_some_and(|next| Arc::ptr_eq(next, graph));
        if is_next {
            *next = None;
            self.graph.store(Some(Arc::clone(graph)));
        }
        is_next
    }

    /// Puts a graph to use that was kept, where there is none and none is being built.
    pub fn restore(&self, graph: Covered) {
        let next = self.lock_next();
        if next.is_none() && self.graph.load().is_none() {
            self.graph.store(Some(Arc::new(graph)));
        }
    }

    /// Bytes of memory taken.
    pub fn size_bytes(&self) -> usize {
        let graphs = [self.graph(), self.next()];
        size_of::<Self>() + graphs.iter().flatten().map(|graph| graph.graph.size_bytes()).sum::<usize>()
    }
}

impl Covered {
    fn new(params: &Params) -> Self {
        Self {
            graph: Graph::new(params.m as usize, params.ef as usize, SEED),
            pages: ArcSwap::default(),
            tuning: ArcSwapOption::empty(),
        }
    }

    /// The graph's rows in sealed chunks: number of the page, the chunk's number, its rows. `None` if the graph holds chunks
    /// that are gone from the version: without their nodes it would fall apart.
    pub fn sealed_pages(&self, collection: &Collection) -> Option<Vec<(usize, u32, Arc<Rows>)>> {
        let pages = self.pages();
        let mut sealed = Vec::new();
        for (number, page) in pages.0.iter().enumerate() {
            let chunk = collection.chunk(RowId::new(page.chunk, 0))?;
            let whole = page.linked.load(Ordering::Acquire) >= page.rows.len();
            if matches!(*page.rows, Rows::Sealed(_)) && Arc::ptr_eq(&page.rows, &chunk.rows) && whole {
                sealed.push((number, page.chunk, Arc::clone(&page.rows)));
            }
        }
        Some(sealed)
    }

    /// A graph of all rows of those chunks: page i is about the i-th.
    pub fn restored(graph: Graph, chunks: &[&super::Chunk], tuning: Tuning) -> Self {
        let page = |chunk: &&super::Chunk| Page {
            chunk: chunk.number,
            rows: Arc::clone(&chunk.rows),
            linked: Arc::new(AtomicUsize::new(chunk.rows.len())),
        };
        let pages = ArcSwap::from_pointee(chunks.iter().map(page).collect::<Vec<_>>());
        Self { graph, pages, tuning: ArcSwapOption::from_pointee(tuning) }
    }

    /// What was found out about it, if it has been measured.
    pub fn tuning(&self) -> Option<Tuning> {
        self.tuning.load().as_deref().copied()
    }

    /// Stores what was found out about it.
    pub fn set_tuning(&self, tuning: Tuning) {
        self.tuning.store(Some(Arc::new(tuning)));
    }

    /// The rows of its nodes.
    pub fn pages(&self) -> Pages {
        Pages(self.pages.load_full())
    }

    /// Rows of a version that are not linked.
    pub fn unlinked_rows(&self, collection: &Collection) -> usize {
        let pages = self.pages();
        collection.chunks.iter().map(|chunk| chunk.len - pages.linked_rows(chunk.number).min(chunk.len)).sum()
    }

    /// Whether so many nodes are no row of the collection any more that a new graph is better.
    fn is_worn(&self, collection: &Collection) -> bool {
        let nodes = self.graph.len();
        let live = collection.len() - self.unlinked_rows(collection).min(collection.len());
        nodes.saturating_sub(live) * 100 > nodes * MAX_GONE_PERCENTAGE && nodes >= MIN_ROWS
    }

    /// Follows the chunks of a version: takes new ones, and the sealed rows of those that have been sealed.
    fn follow(&self, collection: &Collection) {
        let known = self.pages.load();
        let is_same = |chunk: &super::Chunk| {
            let page = known.iter().find(|page| page.chunk == chunk.number);
            page.is_some_and(|page| Arc::ptr_eq(&page.rows, &chunk.rows))
        };
        if collection.chunks.iter().all(|chunk| is_same(chunk)) {
            return;
        }
        let mut pages = Vec::clone(&known);
        for chunk in &collection.chunks {
            match pages.iter_mut().find(|page| page.chunk == chunk.number) {
                Some(page) => page.rows = Arc::clone(&chunk.rows),
                None => pages.push(Page {
                    chunk: chunk.number,
                    rows: Arc::clone(&chunk.rows),
                    linked: Arc::default(),
                }),
            }
        }
        self.pages.store(Arc::new(pages));
    }

    /// Links rows of a version until `go_on` says no or none is left; true if none is. For one thread.
    pub fn link(&self, collection: &Collection, mut go_on: impl FnMut() -> bool) -> bool {
        self.follow(collection);
        let pages = self.pages();
        let mut builder = None;
        for (number, page) in pages.0.iter().enumerate() {
            let row = RowId::new(page.chunk, 0);
            let Some(chunk) = collection.chunk(row) else { continue };
            for offset in page.linked.load(Ordering::Relaxed)..chunk.len {
                if !go_on() {
                    return false;
                }
                let builder = builder.get_or_insert_with(|| Builder::new(&collection.params.layout));
                let node = Node::try_from(number * PAGE_NODES + offset);
                let key = row.0 + offset as u64;
                if !node.is_ok_and(|node| self.graph.insert(&pages, node, key, builder)) {
                    // The graph is full: the rest is scanned.
                    return true;
                }
                page.linked.store(offset + 1, Ordering::Release);
            }
        }
        true
    }

    /// The node of a row, if it is linked.
    pub fn node(&self, row: RowId) -> Option<Node> {
        let pages = self.pages.load();
        let page = pages.iter().position(|page| page.chunk == row.chunk())?;
        let offset = usize::from(row.offset());
        let linked = pages[page].linked.load(Ordering::Acquire);
        (offset < linked).then(|| Node::try_from(page * PAGE_NODES + offset).ok()).flatten()
    }

    /// The row of a node.
    pub fn row(&self, node: Node) -> Option<RowId> {
        self.pages().row_id(node)
    }
}

impl Pages {
    fn linked_rows(&self, chunk: u32) -> usize {
        let page = self.0.iter().find(|page| page.chunk == chunk);
        page.map_or(0, |page| page.linked.load(Ordering::Acquire))
    }

    fn row_id(&self, node: Node) -> Option<RowId> {
        let page = self.0.get(node as usize / PAGE_NODES)?;
        u16::try_from(node as usize % PAGE_NODES).ok().map(|offset| RowId::new(page.chunk, offset))
    }

    /// How far the graph covers each chunk of a version: whole chunks, or a multiple of 64 rows.
    pub(super) fn cover<'a>(
        &self,
        collection: &'a Collection,
        mut mask: impl FnMut(&'a super::Chunk, usize) -> Cow<'a, [u64]>,
    ) -> Cover<'a> {
        let pages = self.0.iter().map(|page| {
            let chunk = collection.chunk(RowId::new(page.chunk, 0));
            let linked = page.linked.load(Ordering::Acquire);
            let rows = chunk.map_or(0, |chunk| if linked >= chunk.len { chunk.len } else { linked & !63 });
            let mask = chunk.filter(|_| rows > 0).map_or(Cow::Borrowed(&[][..]), |chunk| mask(chunk, rows));
            CoveredPage { chunk: page.chunk, rows, mask }
        });
        Cover { pages: pages.collect() }
    }
}

/// What of a version a graph covers, and which of these rows a search may find.
pub(super) struct Cover<'a> {
    pages: Vec<CoveredPage<'a>>,
}

struct CoveredPage<'a> {
    chunk: u32,
    rows: usize,
    mask: Cow<'a, [u64]>,
}

impl Cover<'_> {
    /// Rows that are covered.
    pub fn rows(&self) -> usize {
        self.pages.iter().map(|page| page.rows).sum()
    }

    /// Rows that may be found.
    pub fn matching(&self) -> usize {
        self.pages.iter().flat_map(|page| page.mask.iter()).map(|word| word.count_ones() as usize).sum()
    }

    /// Covered rows of a chunk, and bits of those that may be found.
    pub fn of(&self, chunk: u32) -> (usize, &[u64]) {
        let page = self.pages.iter().find(|page| page.chunk == chunk);
        page.map_or((0, &[]), |page| (page.rows, &page.mask))
    }

    /// The row of a node, if it may be found.
    #[inline]
    pub fn row(&self, node: Node) -> Option<RowId> {
        let page = self.pages.get(node as usize / PAGE_NODES)?;
        let offset = node as usize % PAGE_NODES;
        let word = page.mask.get(offset / 64).filter(|_| offset < page.rows)?;
        let offset = u16::try_from(offset).ok().filter(|_| word >> (offset % 64) & 1 == 1)?;
        Some(RowId::new(page.chunk, offset))
    }
}
