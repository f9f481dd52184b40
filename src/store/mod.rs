//! The store: keys and their collections, one writer, many readers, shared searches, checkpoints.
//!
//! Reads take [`Store::snapshot`], one atomic load. Writes are [`Job`]s for the one writer (`writer.rs`). Searches go to
//! the search threads (`executor.rs`). The store knows nothing of the protocol.

mod archive;
pub mod change;
mod checkpoint;
mod compaction;
pub mod executor;
mod params;
mod recovery;
pub mod state;
pub mod survey;
mod syncer;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_crash;
#[cfg(test)]
mod tests_damage;
mod writer;

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::info;

use crate::clock;
use crate::collection::CollectionError;
use crate::collection::search::{Hits, SearchRequest};
use crate::config::Config;
use crate::disk::{Disk, DiskError};
use crate::metrics::Metrics;
pub use checkpoint::{CheckpointStats, write_copy};
use checkpoint::{Maintenance, Task};
use executor::Executor;
use state::Snapshot;
pub use writer::{Job, Txn, WriteError, WriterStats};
use writer::{Message, Writer};

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
    /// A state file passed its checksum but does not read as a snapshot.
    #[error("the state file does not read as a snapshot: {0}")]
    State(String),
    /// The writer refused.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A checkpoint is asked for, but nothing on disk may be changed.
    #[error("the server serves its data folder read-only")]
    ReadOnly,
    /// A checkpoint is asked for while one is under way.
    #[error("a checkpoint is already in progress")]
    Busy,
}

/// The store. Dropping it stops its threads; [`Store::stop`] does so in order.
pub struct Store {
    published: Arc<ArcSwap<Snapshot>>,
    writer: Sender<Message>,
    maintenance: Sender<Task>,
    executor: Executor,
    threads: Mutex<Vec<JoinHandle<()>>>,
    checkpoints: Arc<CheckpointStats>,
    writes: Arc<WriterStats>,
    /// Whether nothing on disk may be changed. Jobs are not refused: that is up to those who send them.
    pub read_only: bool,
    /// Log records applied at start-up.
    pub replayed_records: u64,
    /// Bytes of a torn record cut at start-up.
    pub cut_bytes: u64,
}

impl Store {
    /// Recovers what the disk holds and starts the threads.
    ///
    /// # Errors
    /// When the data is damaged, of a newer version, or the disk refuses.
    pub fn open(disk: Arc<dyn Disk>, config: &Config, metrics: &Arc<Metrics>) -> Result<Self, StoreError> {
        let started_ms = clock::now_ms();
        let recovered = recovery::recover(&*disk)?;
        let elements: usize =
            recovered.snapshot.collections().map(|(_, _, collection)| collection.len()).sum();
        let took_ms = clock::now_ms().saturating_sub(started_ms);
        let (records, keys) = (recovered.replayed_records, recovered.snapshot.collections().count());
        info!(
            "data loaded in {took_ms} ms: {keys} keys, {elements} elements, {records} log records replayed"
        );

        let checkpoints = Arc::new(CheckpointStats::default());
        checkpoints.last_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
        checkpoints.compaction_percentage.store(config.compaction_percentage, Ordering::Relaxed);
        if let Some(manifest) = &recovered.manifest {
            checkpoints.sequence.store(manifest.sequence, Ordering::Relaxed);
            checkpoints.last_s.store(manifest.created_ms / 1000, Ordering::Relaxed);
        }
        let read_only = disk.is_read_only();
        let published = Arc::new(ArcSwap::from_pointee(recovered.snapshot));
        let (writer_sender, messages) = channel();
        let (maintenance_sender, tasks) = channel();
        let writes = Arc::new(WriterStats::default());
        let writer = Writer::new(
            Arc::clone(&disk),
            Arc::clone(&published),
            config,
            maintenance_sender.clone(),
            writer_sender.clone(),
            Arc::clone(&writes),
            Arc::clone(&checkpoints),
        )?;
        let maintenance = Maintenance {
            disk,
            published: Arc::clone(&published),
            writer: writer_sender.clone(),
            stats: Arc::clone(&checkpoints),
            writes: Arc::clone(&writes),
        };
        let threads = vec![
            std::thread::spawn(move || writer.run(&messages)),
            std::thread::spawn(move || maintenance.run(&tasks)),
        ];
        Ok(Self {
            published,
            writer: writer_sender,
            maintenance: maintenance_sender,
            executor: Executor::start(search_threads(config), Arc::clone(metrics)),
            threads: threads.into(),
            checkpoints,
            writes,
            read_only,
            replayed_records: recovered.replayed_records,
            cut_bytes: recovered.cut_bytes,
        })
    }

    /// Everything as it was last published.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load_full()
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

    /// Lets the writer follow the options that can change while the server runs.
    pub fn configure(&self, config: &Config) {
        self.checkpoints.compaction_percentage.store(config.compaction_percentage, Ordering::Relaxed);
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
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            drop(thread.join());
        }
        Ok(synced?)
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
