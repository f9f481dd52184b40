//! The thread that builds and extends the graphs of collections (`collection/index.rs`) and makes the sketches of their rows
//! (`collection/sketches.rs`), beside writes and searches.
//!
//! It looks at what is published, links rows for a little while, and looks again. While others search it rests as long as it
//! works. What it has made it keeps on disk (`graph_files.rs`), and finds it there after a start.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{error, info, warn};

use super::graph_files;
use super::state::Snapshot;
use crate::collection::Collection;
use crate::collection::index::Covered;
use crate::collection::tune::tune;
use crate::disk::Disk;
use crate::metrics::Metrics;

/// Time for one collection before it is the next one's turn.
const SLICE: Duration = Duration::from_millis(5);
/// Pause between two looks when there is nothing to do.
const PAUSE: Duration = Duration::from_millis(50);
/// A graph is written again when it has so many rows to keep, in percent of those it has kept.
const KEPT_PERCENTAGE: usize = 125;
/// A graph is measured again when it has grown to this many percent.
const GROWN_PERCENTAGE: usize = 150;

pub(super) struct Indexer {
    pub disk: Arc<dyn Disk>,
    pub published: Arc<ArcSwap<Snapshot>>,
    pub metrics: Arc<Metrics>,
    /// Whether sketches are to be made.
    pub sketches: Arc<AtomicBool>,
}

impl Indexer {
    /// Works until the other end of `wake` is gone. A message on it means that something other than the data has changed.
    pub fn run(self, wake: &Receiver<()>) {
        let mut seen: Option<Arc<Snapshot>> = None;
        let mut sketches_asked = 0;
        loop {
            let snapshot = self.published.load_full();
            let asked = self.metrics.sketches_asked.load(Ordering::Relaxed);
            let is_news = std::mem::replace(&mut sketches_asked, asked) != asked;
            let is_known = !is_news && seen.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &snapshot));
            let searches = self.metrics.searches.load(Ordering::Relaxed);
            let start = Instant::now();
            seen = (is_known || self.round(&snapshot)).then_some(snapshot);
            let pause = match seen {
                Some(_) => PAUSE,
                None if self.metrics.searches.load(Ordering::Relaxed) > searches => start.elapsed(),
                None => Duration::ZERO,
            };
            match wait(wake, pause) {
                Wait::Over => {}
                Wait::Woken => seen = None,
                Wait::Stopped => return self.end(),
            }
        }
    }

    /// Keeps what has come since graphs were written.
    fn end(&self) {
        let snapshot = self.published.load_full();
        for (_, _, collection) in snapshot.collections() {
            if let Some(graph) = collection.index.graph() {
                // Takes the rows that have been sealed meanwhile.
                graph.link(collection, || false);
                self.keep(collection, &graph, 101);
            }
        }
        let uids: HashSet<u64> = snapshot.collections().map(|(_, _, collection)| collection.uid).collect();
        if !self.disk.is_read_only()
            && let Err(error) = graph_files::remove_others(&*self.disk, |uid| uids.contains(&uid))
        {
            warn!("files of graphs could not be removed: {error}");
        }
    }

    /// Writes a graph's file if there is that much to keep, in percent of what it holds.
    fn keep(&self, collection: &Collection, graph: &Covered, percentage: usize) {
        let kept = &collection.index.kept_rows;
        let rows: usize =
            graph.sealed_pages(collection).iter().flatten().map(|(_, _, rows)| rows.len()).sum();
        if self.disk.is_read_only() || rows == 0 || rows * 100 < kept.load(Ordering::Relaxed) * percentage {
            return;
        }
        match graph_files::save(&*self.disk, collection, graph) {
            Ok(rows) => kept.store(rows, Ordering::Relaxed),
            // Nothing depends on it.
            Err(error) => warn!("a graph could not be written: {error}"),
        }
    }

    /// Works a little on each collection; true if nothing is left to do.
    fn round(&self, snapshot: &Snapshot) -> bool {
        let (mut done, mut unlinked_rows) = (true, 0);
        for (_, _, collection) in snapshot.collections() {
            if self.sketches.load(Ordering::Relaxed) {
                done &= collection.sketches.follow(collection);
            } else {
                collection.sketches.clear();
            }
            let index = &collection.index;
            if index.is_wanted(collection)
                && !index.looked_for.swap(true, Ordering::Relaxed)
                && let Some(graph) = graph_files::load(&*self.disk, collection)
            {
                let rows = graph.graph.len();
                info!("collection {}: graph of {rows} rows loaded", collection.uid);
                index.kept_rows.store(rows, Ordering::Relaxed);
                index.restore(graph);
            }
            if let Some(graph) = index.to_link(collection) {
                done &= self.turn(collection, &graph);
                unlinked_rows += graph.unlinked_rows(collection) as u64;
            }
        }
        self.metrics.graph_unlinked_rows.store(unlinked_rows, Ordering::Relaxed);
        done
    }

    /// Works a little on a graph; true if nothing is left to do.
    fn turn(&self, collection: &Arc<Collection>, graph: &Arc<Covered>) -> bool {
        let start = Instant::now();
        if !graph.link(collection, || start.elapsed() < SLICE) {
            return false;
        }
        let nodes = graph.graph.len();
        if graph.tuning().is_none_or(|known| nodes * 100 >= known.nodes * GROWN_PERCENTAGE) {
            match tune(collection, graph) {
                Ok(tuning) => graph.set_tuning(tuning),
                // Without it the graph is not used.
                Err(error) => {
                    error!("a graph could not be measured: {error}");
                    return true;
                }
            }
        }
        let in_use = collection.index.graph().is_some_and(|used| Arc::ptr_eq(&used, graph));
        if !in_use && collection.index.adopt(graph) {
            self.metrics.graph_builds.fetch_add(1, Ordering::Relaxed);
            if let Some(tuning) = graph.tuning() {
                let (uid, ef, recall) = (collection.uid, tuning.ef, tuning.recall);
                info!(
                    "collection {uid}: graph of {nodes} rows built, recall {recall:.3} with {ef} candidates"
                );
            }
        }
        self.keep(collection, graph, KEPT_PERCENTAGE);
        true
    }
}

enum Wait {
    Over,
    Woken,
    Stopped,
}

fn wait(wake: &Receiver<()>, pause: Duration) -> Wait {
    if pause.is_zero() {
        return match wake.try_recv() {
            Ok(()) => Wait::Woken,
            Err(TryRecvError::Empty) => Wait::Over,
            Err(TryRecvError::Disconnected) => Wait::Stopped,
        };
    }
    match wake.recv_timeout(pause) {
        Ok(()) => Wait::Woken,
        Err(RecvTimeoutError::Timeout) => Wait::Over,
        Err(RecvTimeoutError::Disconnected) => Wait::Stopped,
    }
}
