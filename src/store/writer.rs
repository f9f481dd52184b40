//! The one writer: a thread that takes the waiting jobs, runs them in order on its private next state, writes their
//! records with one write(2), syncs if the policy says so, publishes once, and only then lets the answers go.
//!
//! If the write or the sync fails, the private state is dropped: readers keep the last published snapshot, the jobs are
//! told, and that log file is given up (see `disk/log.rs`). Writes are refused until a checkpoint holds all that was
//! acknowledged; then a new log file is begun ([`Message::Resume`]).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};

use arc_swap::ArcSwap;
use thiserror::Error;
use tracing::{error, info};

use super::change::{self, Change};
use super::checkpoint::{CheckpointStats, Task};
use super::compaction::{Chunks, Replacement};
use super::load::LoadStats;
use super::state::{Applied, Key, NamespaceId, Snapshot, State};
use super::syncer::Syncer;
use super::{StoreError, recovery};
use crate::collection::compaction::plan;
use crate::collection::overlay::Overlay;
use crate::collection::{Collection, Encoded, Rows};
use crate::config::{Config, Fsync};
use crate::disk::log::LogWriter;
use crate::disk::{Disk, DiskError};

/// Jobs taken into one batch.
const MAX_BATCH_JOBS: usize = 1024;
/// Bytes of records after which a batch takes no further job.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// Why a change was not made.
#[derive(Clone, Debug, Error)]
pub enum WriteError {
    /// The log could not be written or synced; nothing is written until a checkpoint has been taken.
    #[error("the append log cannot be written: {0}")]
    Log(String),
    /// A command's changes do not fit into a record of the log.
    #[error("{0}: nothing of the commands that were written together was done")]
    TooLarge(String),
    /// The writer has stopped.
    #[error("the server is shutting down")]
    Stopped,
}

/// Work for the writer, such as the consecutive writes of one connection.
pub trait Job: Send {
    /// Does the work on the private state. Nothing of it is visible or durable yet.
    fn run(&mut self, txn: &mut Txn<'_>);

    /// Tells whether what `run` did has been logged and published.
    fn done(self: Box<Self>, outcome: Result<(), WriteError>);
}

/// What the writer is asked to do.
pub(super) enum Message {
    /// Run a job.
    Job(Box<dyn Job>),
    /// Begin a new log file and hand out the snapshot that the old ones lead to. After a failure of the log only the
    /// latter.
    Rotate(Sender<Arc<Snapshot>>),
    /// A checkpoint of this sequence is durable: if the log failed and nothing is newer, go on in a new file.
    Resume(u64, Sender<Result<(), WriteError>>),
    /// The log could not be synced in the background.
    SyncFailed,
    /// Put sealed rows in place of rows in memory.
    Adopt(Adopt, Sender<bool>),
    /// Take a number for the chunk that will replace some, and hand out the version to copy; nothing if they are gone.
    BeginCompaction(Chunks, Sender<Option<(Arc<Collection>, u32)>>),
    /// Put it in their place.
    EndCompaction(Replacement, Sender<bool>),
    /// A collection, by uid, has no chunks left that are worth rewriting.
    Compacted(u64),
    /// Follow changed options.
    Configure(Fsync, u64, u64),
    /// Read everything back from disk, in place of what is in memory.
    Reload(Sender<Result<(), StoreError>>),
    /// Sync the log and stop.
    Stop(Sender<Result<(), WriteError>>),
}

/// Rows that have been sealed.
pub(super) struct Adopt {
    pub namespace: NamespaceId,
    pub key: Key,
    pub uid: u64,
    pub chunk: u32,
    pub rows: Arc<Rows>,
    pub overlay: Overlay,
}

/// A job's hold on the private state.
pub struct Txn<'a> {
    state: &'a mut State,
    log: Option<&'a mut LogWriter>,
    payload: Vec<u8>,
    changed: bool,
    failed: Option<DiskError>,
}

impl<'a> Txn<'a> {
    fn new(state: &'a mut State, log: Option<&'a mut LogWriter>) -> Self {
        Self { state, log, payload: Vec::new(), changed: false, failed: None }
    }

    /// The state with every change made so far, this job's and those before it.
    pub fn view(&self) -> &Snapshot {
        self.state.view()
    }

    /// Makes a change. What changes nothing is not logged.
    pub fn apply(&mut self, change: &Change, encoded: Option<&Encoded>) -> Applied {
        let applied = self.state.apply(change, encoded);
        if applied == Applied::No {
            return applied;
        }
        self.changed = true;
        if let Some(log) = &self.log
            && self.failed.is_none()
        {
            if self.payload.is_empty() {
                change::begin_payload(&mut self.payload);
            }
            change.encode(&mut self.payload);
            // Not only at the end: names and keys stand in every change, so that a small request can have a huge record.
            if let Err(error) = log.check_size(self.payload.len()) {
                self.payload = Vec::new();
                self.failed = Some(error);
            }
        }
        applied
    }

    /// Ends a command, or a whole transaction: the changes since the last end become one record, there after a crash as
    /// a whole or not at all.
    pub fn end_record(&mut self) {
        if !std::mem::take(&mut self.changed) || self.failed.is_some() {
            return;
        }
        // Without a log the numbers go on all the same, so that every checkpoint has its own.
        let appended = match &mut self.log {
            Some(log) => log.append(&self.payload),
            None => Ok(self.state.view().sequence + 1),
        };
        match appended {
            Ok(sequence) => self.state.set_sequence(sequence),
            Err(error) => self.failed = Some(error),
        }
        self.payload.clear();
    }
}

/// Counters of the writer, for INFO.
#[derive(Default)]
pub struct WriterStats {
    /// Bytes of log since the last checkpoint began: what a restart would replay.
    pub log_bytes: AtomicU64,
    /// Batches published.
    pub batches: AtomicU64,
    /// The log failed: writes are refused.
    pub broken: AtomicBool,
    /// How often the log has failed.
    pub failures: AtomicU64,
    /// The last record known to be durable; `u64::MAX` if there is no log.
    pub synced: AtomicU64,
}

pub(super) struct Writer {
    disk: Arc<dyn Disk>,
    state: State,
    log: Option<LogWriter>,
    /// Bytes of log since the last checkpoint that are in files before this one.
    earlier_log_bytes: u64,
    /// The failure after which nothing is written any more.
    broken: Option<WriteError>,
    /// Why the batch at hand is refused.
    refused: Option<WriteError>,
    fsync: Fsync,
    syncer: Option<Syncer>,
    published: Arc<ArcSwap<Snapshot>>,
    maintenance: Sender<Task>,
    /// This writer's own messages.
    messages: Sender<Message>,
    /// Full chunks already reported for sealing: collection uid and chunk number.
    reported: HashSet<(u64, u32)>,
    /// Collections reported for compaction, by uid. One whose compaction failed stays until the next checkpoint.
    worn: HashSet<u64>,
    stats: Arc<WriterStats>,
    checkpoints: Arc<CheckpointStats>,
    /// Smallest log that leads to a checkpoint by itself.
    checkpoint_min_bytes: u64,
    /// How large the log may get compared with the last checkpoint; 0: never a checkpoint by itself.
    checkpoint_percentage: u64,
}

impl Writer {
    /// A writer that goes on from the published snapshot. With `log`, changes are logged in a new file.
    pub fn new(
        disk: Arc<dyn Disk>,
        published: Arc<ArcSwap<Snapshot>>,
        config: &Config,
        maintenance: Sender<Task>,
        messages: Sender<Message>,
        stats: Arc<WriterStats>,
        checkpoints: Arc<CheckpointStats>,
    ) -> Result<Self, DiskError> {
        let snapshot = published.load_full();
        let log = match config.appendonly && !disk.is_read_only() {
            true => Some(LogWriter::create(&*disk, snapshot.sequence + 1)?),
            false => None,
        };
        let mut writer = Self {
            disk,
            state: State::new(Snapshot::clone(&snapshot)),
            log,
            earlier_log_bytes: stats.log_bytes.load(Ordering::Relaxed),
            broken: None,
            refused: None,
            fsync: config.appendfsync,
            syncer: None,
            published,
            maintenance,
            messages,
            reported: HashSet::new(),
            worn: HashSet::new(),
            stats,
            checkpoints,
            checkpoint_min_bytes: config.auto_aof_rewrite_min_size_bytes,
            checkpoint_percentage: u64::from(config.auto_aof_rewrite_percentage),
        };
        writer.follow_log()?;
        Ok(writer)
    }

    /// Lets the log file be synced in the background if the policy says so, and counts from it.
    fn follow_log(&mut self) -> Result<(), DiskError> {
        let synced = self.log.as_ref().map_or(u64::MAX, LogWriter::synced_sequence);
        self.stats.synced.store(synced, Ordering::Relaxed);
        let Some(log) = self.log.as_ref().filter(|_| self.fsync == Fsync::Everysec) else {
            self.syncer = None;
            return Ok(());
        };
        match &self.syncer {
            Some(syncer) => syncer.replace(log.syncer()?),
            None => {
                let (messages, stats) = (self.messages.clone(), Arc::clone(&self.stats));
                self.syncer = Some(Syncer::start(log.syncer()?, messages, stats));
            }
        }
        Ok(())
    }

    /// Works until told to stop or until nobody is left to send.
    pub fn run(mut self, messages: &Receiver<Message>) {
        let mut batch: Vec<Box<dyn Job>> = Vec::new();
        while let Ok(first) = messages.recv() {
            let mut next = Some(first);
            // Jobs that wait are run together; another message ends the batch and is served after it.
            while let Some(Message::Job(job)) = next {
                self.run_job(job, &mut batch);
                let full = self.refused.is_some()
                    || batch.len() >= MAX_BATCH_JOBS
                    || self.buffered_bytes() >= MAX_BATCH_BYTES;
                next = if full { None } else { messages.try_recv().ok() };
            }
            self.finish(&mut batch);
            match next {
                None | Some(Message::Job(_)) => {}
                Some(Message::Rotate(reply)) => drop(reply.send(self.rotate())),
                Some(Message::Resume(sequence, reply)) => drop(reply.send(self.resume(sequence))),
                Some(Message::SyncFailed) => {
                    if let Some(error) = self.log.as_ref().and_then(LogWriter::failure) {
                        self.fail(error);
                    }
                }
                Some(Message::Adopt(adopt, reply)) => drop(reply.send(self.adopt(adopt))),
                Some(Message::BeginCompaction(old, reply)) => drop(reply.send(self.begin_compaction(&old))),
                Some(Message::EndCompaction(new, reply)) => drop(reply.send(self.end_compaction(new))),
                Some(Message::Compacted(uid)) => drop(self.worn.remove(&uid)),
                Some(Message::Reload(reply)) => drop(reply.send(self.reload())),
                Some(Message::Configure(fsync, min_bytes, percentage)) => {
                    self.configure(fsync, min_bytes, percentage);
                }
                Some(Message::Stop(reply)) => {
                    let synced = self.sync();
                    // Nothing is acknowledged after the last sync.
                    for message in messages.try_iter() {
                        if let Message::Job(job) = message {
                            job.done(Err(WriteError::Stopped));
                        }
                    }
                    drop(reply.send(synced));
                    return;
                }
            }
        }
    }

    fn buffered_bytes(&self) -> usize {
        self.log.as_ref().map_or(0, LogWriter::buffered_bytes)
    }

    fn run_job(&mut self, mut job: Box<dyn Job>, batch: &mut Vec<Box<dyn Job>>) {
        if let Some(broken) = &self.broken {
            return job.done(Err(broken.clone()));
        }
        let mut txn = Txn::new(&mut self.state, self.log.as_mut());
        job.run(&mut txn);
        txn.end_record();
        let failed = txn.failed.take();
        batch.push(job);
        match failed {
            // The log is as good as before.
            Some(error @ DiskError::TooLarge { .. }) => {
                self.refused = Some(WriteError::TooLarge(error.to_string()));
            }
            Some(error) => self.fail(error),
            None => {}
        }
    }

    /// The log could not be written or synced: the batch is dropped, and so is everything until [`Self::resume`].
    fn fail(&mut self, error: DiskError) {
        if self.broken.is_some() {
            return;
        }
        let synced = self.log.as_ref().map_or(0, LogWriter::synced_sequence);
        let at_risk = self.published.load().sequence.saturating_sub(synced);
        error!(
            "the append log failed, writes are refused until a checkpoint has been taken; \
             a power cut before would lose up to {at_risk} answered writes: {error}"
        );
        self.broken = Some(WriteError::Log(error.to_string()));
        self.stats.broken.store(true, Ordering::Relaxed);
        self.stats.failures.fetch_add(1, Ordering::Relaxed);
        // With the maintenance thread gone the server is stopping.
        drop(self.maintenance.send(Task::Resume));
    }

    /// Takes up writing again after a failure, in a new log file. A checkpoint of `sequence` must be durable.
    fn resume(&mut self, sequence: u64) -> Result<(), WriteError> {
        let Some(broken) = &self.broken else { return Ok(()) };
        if sequence != self.state.view().sequence {
            // The log failed after the checkpoint began: it does not hold everything.
            return Err(broken.clone());
        }
        let log = LogWriter::create_after_failure(&*self.disk, sequence + 1);
        let followed = log.and_then(|log| {
            self.log = Some(log);
            self.earlier_log_bytes = 0;
            self.follow_log()
        });
        followed.map_err(|error| WriteError::Log(error.to_string()))?;
        self.broken = None;
        self.stats.broken.store(false, Ordering::Relaxed);
        info!("the append log goes on in a new file, writes are taken again");
        Ok(())
    }

    /// Makes the batch durable as far as the policy asks, publishes it and answers.
    fn finish(&mut self, batch: &mut Vec<Box<dyn Job>>) {
        if batch.is_empty() {
            return;
        }
        let refused = self.refused.take();
        if refused.is_some() {
            self.log.iter_mut().for_each(LogWriter::discard);
        } else if self.broken.is_none()
            && let Err(error) = self.write()
        {
            self.fail(error);
        }
        let outcome = match self.broken.clone().or(refused) {
            None => {
                self.publish();
                Ok(())
            }
            Some(error) => {
                self.state = State::new(Snapshot::clone(&self.published.load()));
                Err(error)
            }
        };
        for job in batch.drain(..) {
            job.done(outcome.clone());
        }
    }

    fn write(&mut self) -> Result<(), DiskError> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if log.buffered_bytes() == 0 {
            return Ok(());
        }
        log.write()?;
        match &self.syncer {
            Some(syncer) => syncer.wrote(),
            None if self.fsync == Fsync::Always => log.sync()?,
            None => {}
        }
        // The thread that syncs in the background may have been here before.
        self.stats.synced.fetch_max(log.synced_sequence(), Ordering::Relaxed);
        let log_bytes = self.earlier_log_bytes + log.len_bytes();
        self.stats.log_bytes.store(log_bytes, Ordering::Relaxed);
        let last_bytes = self.checkpoints.size_bytes.load(Ordering::Relaxed);
        let grown_bytes = (last_bytes / 100).saturating_mul(self.checkpoint_percentage);
        if self.checkpoint_percentage > 0
            && log_bytes >= self.checkpoint_min_bytes.max(grown_bytes)
            && !self.checkpoints.running.swap(true, Ordering::AcqRel)
        {
            drop(self.maintenance.send(Task::Checkpoint(None)));
        }
        Ok(())
    }

    fn publish(&mut self) {
        let published = &self.published;
        let touched = self.state.publish(|snapshot| published.store(snapshot));
        self.stats.batches.fetch_add(1, Ordering::Relaxed);
        for (namespace, key) in touched {
            self.report_worn_chunks(namespace, &key);
            self.report_full_chunks(namespace, key);
        }
    }

    /// Lets chunks with many dead rows be rewritten.
    fn report_worn_chunks(&mut self, namespace: NamespaceId, key: &Key) {
        let percentage = self.checkpoints.compaction_percentage.load(Ordering::Relaxed);
        let Some(collection) = self.state.view().get(namespace, key) else { return };
        let uid = collection.uid;
        if percentage > 0 && !self.worn.contains(&uid) && !plan(collection, percentage).is_empty() {
            self.worn.insert(uid);
            // As with sealing: nothing is lost without it.
            drop(self.maintenance.send(Task::Compact { namespace, key: key.clone(), uid }));
        }
    }

    fn begin_compaction(&mut self, chunks: &Chunks) -> Option<(Arc<Collection>, u32)> {
        let collection = self.state.collection_mut(chunks.namespace, &chunks.key)?;
        if collection.uid != chunks.uid {
            return None;
        }
        let number = collection.begin_compaction(&chunks.numbers);
        // Closed is closed: the sealing of these chunks is what compaction does.
        self.reported.extend(chunks.numbers.iter().map(|&number| (chunks.uid, number)));
        self.publish();
        let collection = self.state.view().get(chunks.namespace, &chunks.key)?;
        Some((Arc::clone(collection), number))
    }

    fn end_compaction(&mut self, replacement: Replacement) -> bool {
        let Replacement { chunks, number, rows, index, from } = replacement;
        for &number in &chunks.numbers {
            self.reported.remove(&(chunks.uid, number));
        }
        let replaced = match self.state.moving_mut(chunks.namespace, &chunks.key) {
            Some(collection) if collection.uid == chunks.uid => {
                collection.replace_chunks(&chunks.numbers, number, (rows, index), &from)
            }
            _ => false,
        };
        self.publish();
        replaced
    }

    /// Lets full chunks be sealed.
    fn report_full_chunks(&mut self, namespace: NamespaceId, key: Key) {
        let Some(collection) = self.state.view().get(namespace, &key) else {
            return;
        };
        let in_memory = collection.chunks.iter().filter(|chunk| matches!(*chunk.rows, Rows::Memory(_)));
        let full: Vec<(u64, u32)> = in_memory
            .filter(|chunk| chunk.closed)
            .map(|chunk| (collection.uid, chunk.number))
            .filter(|chunk| !self.reported.contains(chunk))
            .collect();
        if !full.is_empty() {
            self.reported.extend(full);
            // With the maintenance thread gone the server is stopping, and the log holds the rows.
            drop(self.maintenance.send(Task::Seal { namespace, key }));
        }
    }

    fn sync(&mut self) -> Result<(), WriteError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let synced = self.log.as_mut().map_or(Ok(()), LogWriter::sync);
        synced.map_err(|error| WriteError::Log(error.to_string()))
    }

    fn rotate(&mut self) -> Arc<Snapshot> {
        if self.broken.is_none()
            && let Some(log) = &mut self.log
        {
            let rotated = log.rotate(&*self.disk);
            if let Err(error) = rotated.and_then(|()| self.follow_log()) {
                // The checkpoint is the more needed.
                self.fail(error);
            }
        }
        if let Some(log) = self.log.as_ref().filter(|_| self.broken.is_none()) {
            self.earlier_log_bytes = 0;
            self.stats.log_bytes.store(log.len_bytes(), Ordering::Relaxed);
        }
        self.state.close_chunks();
        self.worn.clear();
        self.publish();
        self.published.load_full()
    }

    fn configure(&mut self, fsync: Fsync, min_bytes: u64, percentage: u64) {
        (self.checkpoint_min_bytes, self.checkpoint_percentage) = (min_bytes, percentage);
        if fsync == self.fsync {
            return;
        }
        self.fsync = fsync;
        // What was promised under the old policy is kept, whatever the new one is.
        let synced = self.log.as_mut().map_or(Ok(()), LogWriter::sync);
        if let Err(error) = synced.and_then(|()| self.follow_log()) {
            self.fail(error);
        }
    }

    fn reload(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        let recovered = recovery::recover(&*self.disk, &LoadStats::default())?;
        self.state = State::new(recovered.snapshot);
        self.publish();
        Ok(())
    }

    fn adopt(&mut self, adopt: Adopt) -> bool {
        let Adopt { namespace, key, uid, chunk, rows, overlay } = adopt;
        self.reported.remove(&(uid, chunk));
        let adopted = match self.state.collection_mut(namespace, &key) {
            Some(collection) if collection.uid == uid => collection.adopt(chunk, rows, &overlay),
            _ => false,
        };
        self.publish();
        adopted
    }
}
