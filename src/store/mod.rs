//! The store: keys and their collections, one writer, many readers, shared searches, checkpoints.
//!
//! Reads take [`Store::snapshot`], one atomic load. Writes are [`Job`]s for the one writer (`writer.rs`). Searches go to
//! the search threads (`executor.rs`). The store knows nothing of the protocol.

mod archive;
pub mod change;
mod checkpoint;
mod compaction;
pub mod executor;
pub mod fields;
mod graph_files;
mod indexer;
mod load;
mod params;
pub mod recovery;
pub mod state;
pub mod survey;
mod syncer;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_bounds;
#[cfg(test)]
mod tests_crash;
#[cfg(test)]
mod tests_damage;
#[cfg(test)]
mod tests_fields;
#[cfg(test)]
mod tests_kept;
pub mod users;
mod writer;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::clock;
use crate::collection::CollectionError;
use crate::collection::search::{Hits, SearchRequest};
use crate::config::Config;
use crate::disk::{Disk, DiskError};
use crate::metrics::Metrics;
pub use checkpoint::{CheckpointStats, write_copy};
use checkpoint::{Maintenance, Task};
use executor::Executor;
use indexer::Indexer;
pub use load::LoadStats;
use load::Loader;
use state::Snapshot;
use writer::Message;
pub use writer::{Job, Txn, WriteError, WriterStats};

/// What can go wrong in the store.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The disk layer refused.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A collection's data is damaged.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// A log record passed its checksum but does not read as changes.
    #[error(transparent)]
    Payload(#[from] change::PayloadError),
    /// A log record passed its checksum but adds a vector that its collection cannot hold.
    #[error("log record {sequence} adds a vector that does not fit its collection")]
    Misfit {
        /// The record.
        sequence: u64,
    },
    /// A state file passed its checksum but does not read as a snapshot.
    #[error("the state file does not read as a snapshot: {0}")]
    State(String),
    /// The writer refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A checkpoint is asked for, but nothing on disk may be changed.
    #[error("the server serves its data folder read-only")]
    ReadOnly,
    /// A defect of the program.
    #[error("it panicked")]
    Panicked,
    /// A checkpoint is asked for while one is under way.
    #[error("a checkpoint is already in progress")]
    Busy,
}

/// The store. Dropping it stops its threads; [`Store::stop`] does so in order.
pub struct Store {
    published: Arc<ArcSwap<Snapshot>>,
    masked: ArcSwapOption<Masked>,
    writer: Sender<Message>,
    maintenance: Sender<Task>,
    executor: Executor,
    /// Wakes the thread that builds graphs; it ends when this is gone.
    indexer: Mutex<Option<Sender<()>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    checkpoints: Arc<CheckpointStats>,
    writes: Arc<WriterStats>,
    /// Whether nothing on disk may be changed. Jobs are not refused: that is up to those who send them.
    pub read_only: bool,
    load: Arc<LoadStats>,
    /// Whether sketches are to be made.
    sketches: Arc<AtomicBool>,
}

/// What readers see of a snapshot some of whose elements' time is over.
struct Masked {
    base: Arc<Snapshot>,
    from_ms: u64,
    /// Until the next element's time is over.
    until_ms: u64,
    snapshot: Arc<Snapshot>,
}

/// Tells how the start went.
pub type Loaded = oneshot::Receiver<Result<(), StoreError>>;

impl Store {
    /// Starts the threads, which recover what the disk holds first. Until the receiver tells that it is done, what is
    /// published is empty and jobs wait.
    ///
    /// The receiver gets an error when the data is damaged, of a newer version, or the disk refuses; the store is of no
    /// more use then.
    pub fn start(disk: Arc<dyn Disk>, config: &Config, metrics: &Arc<Metrics>) -> (Self, Loaded) {
        let load = Arc::new(LoadStats::new(config));
        let read_only = disk.is_read_only();
        let checkpoints = Arc::new(CheckpointStats::default());
        checkpoints.last_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
        checkpoints.compaction_percentage.store(config.compaction_percentage, Ordering::Relaxed);
        let published = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let writes = Arc::new(WriterStats::default());
        let (writer, messages) = channel();
        let (maintenance, tasks) = channel();
        let loader = Loader {
            disk: Arc::clone(&disk),
            config: config.clone(),
            published: Arc::clone(&published),
            maintenance: maintenance.clone(),
            messages: writer.clone(),
            writes: Arc::clone(&writes),
            checkpoints: Arc::clone(&checkpoints),
            load: Arc::clone(&load),
        };
        let keeper = Maintenance {
            disk: Arc::clone(&disk),
            published: Arc::clone(&published),
            writer: writer.clone(),
            stats: Arc::clone(&checkpoints),
            writes: Arc::clone(&writes),
        };
        let sketches = Arc::new(AtomicBool::new(config.search_sketches));
        let builder = Indexer {
            disk: Arc::clone(&disk),
            published: Arc::clone(&published),
            metrics: Arc::clone(metrics),
            sketches: Arc::clone(&sketches),
        };
        let (indexer, wake) = channel();
        let (reply, loaded) = oneshot::channel();
        let threads = vec![
            std::thread::spawn(move || builder.run(&wake)),
            std::thread::spawn(move || loader.run(&messages, reply)),
            std::thread::spawn(move || keeper.run(&tasks)),
        ];
        let store = Self {
            published,
            masked: ArcSwapOption::empty(),
            writer,
            maintenance,
            executor: Executor::start(search_threads(config), Arc::clone(metrics)),
            indexer: Mutex::new(Some(indexer)),
            threads: threads.into(),
            checkpoints,
            writes,
            load,
            read_only,
            sketches,
        };
        (store, loaded)
    }

    /// Everything as it was last published.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
    }

    /// Like [`Self::snapshot`], without the elements whose time is over. Does not wait for the writer to remove them: what
    /// readers see until then is made once and shared.
    pub fn snapshot_at(&self, now_ms: u64) -> Arc<Snapshot> {
        let base = self.snapshot();
        if !base.has_expired_elements(now_ms) {
            if self.masked.load().is_some() {
                self.masked.store(None);
            }
            return base;
        }
        if let Some(masked) = &*self.masked.load()
            && Arc::ptr_eq(&masked.base, &base)
            && (masked.from_ms..masked.until_ms).contains(&now_ms)
        {
            return Arc::clone(&masked.snapshot);
        }
        let (snapshot, until_ms) = base.masked(now_ms);
        let snapshot = Arc::new(snapshot);
        let masked = Masked { base, from_ms: now_ms, until_ms, snapshot: Arc::clone(&snapshot) };
        self.masked.store(Some(Arc::new(masked)));
        snapshot
    }

    /// Gives the writer a job. It is told if there is no writer any more.
    pub fn write(&self, job: Box<dyn Job>) {
        if let Err(refused) = self.writer.send(Message::Job(job))
            && let Message::Job(job) = refused.0
        {
            job.done(Err(WriteError::Stopped));
        }
    }

    /// Gives the search threads searches, all at once, so that they can share passes.
    pub fn search(&self, searches: Vec<SearchRequest>) -> Vec<oneshot::Receiver<Hits>> {
        self.executor.submit(searches)
    }

    /// Runs other work of a search on a search thread.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        self.executor.run(work)
    }

    /// Begins a checkpoint; the receiver tells when it is done.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another is under way, [`StoreError::ReadOnly`].
    pub fn begin_checkpoint(&self) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        self.check_writable()?;
        if self.checkpoints.running.swap(true, Ordering::AcqRel) {
            return Err(StoreError::Busy);
        }
        self.queue_checkpoint()
    }

    /// Takes a checkpoint, after the one that may be under way.
    ///
    /// # Errors
    /// When it failed.
    pub fn checkpoint(&self) -> Result<(), StoreError> {
        self.check_writable()?;
        self.checkpoints.running.store(true, Ordering::Release);
        self.queue_checkpoint()?.blocking_recv().unwrap_or(Err(WriteError::Stopped.into()))
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        if self.read_only { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    fn queue_checkpoint(&self) -> Result<oneshot::Receiver<Result<(), StoreError>>, StoreError> {
        let (reply, done) = oneshot::channel();
        self.maintenance.send(Task::Checkpoint(Some(reply))).map_err(|_| WriteError::Stopped)?;
        Ok(done)
    }

    /// How far the start has come.
    pub fn load(&self) -> &LoadStats {
        &self.load
    }

    /// Lets the threads follow the options that can change while the server runs.
    pub fn configure(&self, config: &Config) {
        self.checkpoints.compaction_percentage.store(config.compaction_percentage, Ordering::Relaxed);
        self.load.configure(config);
        if self.sketches.swap(config.search_sketches, Ordering::Relaxed) != config.search_sketches {
            self.wake_indexer();
        }
        let percentage = u64::from(config.auto_aof_rewrite_percentage);
        let message =
            Message::Configure(config.appendfsync, config.auto_aof_rewrite_min_size_bytes, percentage);
        // A writer that has stopped follows nothing any more.
        drop(self.writer.send(message));
    }

    /// Takes a checkpoint and reads everything back from disk.
    ///
    /// # Errors
    /// When the checkpoint failed, or what it wrote cannot be read.
    pub fn reload(&self) -> Result<(), StoreError> {
        self.checkpoint()?;
        let (reply, done) = channel();
        self.writer.send(Message::Reload(reply)).map_err(|_| WriteError::Stopped)?;
        done.recv().map_err(|_| WriteError::Stopped)?
    }

    /// Syncs the log and stops the writer and the maintenance thread.
    ///
    /// # Errors
    /// When the log could not be synced, now or before.
    pub fn stop(&self) -> Result<(), StoreError> {
        let (reply, synced) = channel();
        self.writer.send(Message::Stop(reply)).map_err(|_| WriteError::Stopped)?;
        let synced = synced.recv().map_err(|_| WriteError::Stopped)?;
        drop(self.maintenance.send(Task::Stop));
        drop(self.lock_indexer().take());
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            drop(thread.join());
        }
        Ok(synced?)
    }

    /// Tells the thread that builds graphs that one is wanted, or not any more.
    pub fn wake_indexer(&self) {
        if let Some(indexer) = &*self.lock_indexer() {
            // A thread that has ended builds nothing any more.
            let _ = indexer.send(());
        }
    }

    fn lock_indexer(&self) -> MutexGuard<'_, Option<Sender<()>>> {
        self.indexer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of checkpoints.
    pub fn checkpoints(&self) -> &CheckpointStats {
        &self.checkpoints
    }

    /// Counters of the writer.
    pub fn writes(&self) -> &WriterStats {
        &self.writes
    }
}

fn search_threads(config: &Config) -> usize {
    match config.search_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    }
}
