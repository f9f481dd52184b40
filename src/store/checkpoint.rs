//! The maintenance thread: seals full chunks, rewrites those with many dead rows (`compaction.rs`) and takes checkpoints,
//! while writes go on.
//!
//! After a failure of the log a checkpoint is also how writes are taken up again: once all that was acknowledged is in
//! it, the writer begins a new log file. This thread tries until it works.
//!
//! A checkpoint at sequence S: the writer begins a new log file and hands out the snapshot S; chunks of it that are
//! closed are sealed; one state file holds the rest; the manifest makes it all count; what came before is removed.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tracing::{error, info};

use super::archive;
use super::state::{Key, NamespaceId, Snapshot, State};
use super::writer::{Adopt, Message, WriterStats};
use super::{StoreError, WriteError};
use crate::clock;
use crate::collection::sealed::{ArraysV2, SealedRows};
use crate::collection::{Collection, Rows};
use crate::disk::log::LogWriter;
use crate::disk::manifest::{self, Manifest};
use crate::disk::sections::{self, Section, SectionFile};
use crate::disk::state::StateWriter;
use crate::disk::{Disk, cleanup, format};
use crate::text::sealed::IndexArrays;

/// What the maintenance thread is asked to do.
pub(super) enum Task {
    /// Seal a collection's closed chunks.
    Seal { namespace: NamespaceId, key: Key },
    /// Rewrite a collection's chunks that hold too many dead rows.
    Compact { namespace: NamespaceId, key: Key, uid: u64 },
    /// Take a checkpoint and say how it went.
    Checkpoint(Option<oneshot::Sender<Result<(), StoreError>>>),
    /// The log failed: take a checkpoint, so that writes can go on.
    Resume,
    /// End.
    Stop,
}

/// Pause before the second try to take up writes after the log failed; doubles from try to try.
const RESUME_PAUSE_MIN: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 100 });
/// The longest such pause.
const RESUME_PAUSE_MAX: Duration = Duration::from_millis(if cfg!(test) { 4 } else { 5000 });

/// What is known of checkpoints, for INFO, LASTSAVE and the writer.
#[derive(Default)]
pub struct CheckpointStats {
    /// Unix seconds of the last one that succeeded, or of the start.
    pub last_s: AtomicU64,
    /// Whether the last one failed.
    pub failed: AtomicBool,
    /// Whether one is asked for or under way.
    pub running: AtomicBool,
    /// Bytes on disk of the last one: state file and chunk files.
    pub size_bytes: AtomicU64,
    /// Sequence of the last one.
    pub sequence: AtomicU64,
    /// Dead rows, in percent, from which a chunk is rewritten; 0: never.
    pub compaction_percentage: AtomicUsize,
    /// Times that chunks have been rewritten as one.
    pub compactions: AtomicU64,
}

pub(super) struct Maintenance {
    pub disk: Arc<dyn Disk>,
    pub published: Arc<ArcSwap<Snapshot>>,
    pub writer: Sender<Message>,
    pub stats: Arc<CheckpointStats>,
    pub writes: Arc<WriterStats>,
}

impl Maintenance {
    pub fn run(self, tasks: &Receiver<Task>) {
        let mut pause = RESUME_PAUSE_MIN;
        while let Some(task) = self.next_task(tasks, &mut pause) {
            match task {
                Task::Seal { namespace, key } => {
                    let snapshot = self.published.load_full();
                    if let Some(collection) = snapshot.get(namespace, &key)
                        && let Err(error) = self.seal(namespace, &key, collection)
                    {
                        // The rows stay in memory and in the log; the next checkpoint tries again.
                        error!("a chunk could not be sealed: {error}");
                    }
                }
                Task::Compact { namespace, key, uid } => match self.compact(namespace, &key, uid) {
                    Ok(true) if !self.stats.running.swap(true, Ordering::AcqRel) => {
                        // Told in the log; the next one removes the files too.
                        drop(self.run_checkpoint());
                    }
                    Ok(_) => {}
                    // The chunks stay as they are; it is tried again after the next checkpoint.
                    Err(error) => error!("chunks could not be rewritten: {error}"),
                },
                Task::Checkpoint(reply) => {
                    let result = self.run_checkpoint();
                    if let Some(reply) = reply {
                        drop(reply.send(result));
                    }
                }
                Task::Resume => {
                    // A checkpoint that somebody asked for does the same.
                    if self.is_broken() && !self.stats.running.swap(true, Ordering::AcqRel) {
                        // Told in the log, and tried again.
                        drop(self.run_checkpoint());
                    }
                }
                Task::Stop => return,
            }
        }
    }

    /// The next task; [`Task::Resume`] after a pause while writes are refused.
    fn next_task(&self, tasks: &Receiver<Task>, pause: &mut Duration) -> Option<Task> {
        if !self.is_broken() {
            *pause = RESUME_PAUSE_MIN;
            return tasks.recv().ok();
        }
        match tasks.recv_timeout(*pause) {
            Ok(task) => Some(task),
            Err(RecvTimeoutError::Timeout) => {
                *pause = (*pause * 2).min(RESUME_PAUSE_MAX);
                Some(Task::Resume)
            }
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn is_broken(&self) -> bool {
        self.writes.broken.load(Ordering::Relaxed)
    }

    fn run_checkpoint(&self) -> Result<(), StoreError> {
        // A defect must not end the thread: without it nothing is ever sealed, compacted or checkpointed again.
        let result = catch_unwind(AssertUnwindSafe(|| self.checkpoint()));
        let result = result.unwrap_or(Err(StoreError::Panicked));
        if let Err(error) = &result {
            error!("checkpoint failed: {error}");
        }
        self.stats.failed.store(result.is_err(), Ordering::Relaxed);
        self.stats.running.store(false, Ordering::Release);
        result
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        let (reply, rotated) = channel();
        self.writer.send(Message::Rotate(reply)).map_err(|_| WriteError::Stopped)?;
        let snapshot = rotated.recv().map_err(|_| WriteError::Stopped)?;
        if snapshot.sequence == self.stats.sequence.load(Ordering::Relaxed) {
            self.stats.last_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
            return self.resume_writes(snapshot.sequence);
        }
        let seal = |namespace, key: &Key, collection: &Collection| self.seal(namespace, key, collection);
        let (manifest, size_bytes) = write_checkpoint(&*self.disk, &snapshot, seal)?;
        self.stats.last_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
        self.stats.size_bytes.store(size_bytes, Ordering::Relaxed);
        self.stats.sequence.store(snapshot.sequence, Ordering::Relaxed);
        info!("checkpoint at record {} done, {size_bytes} bytes", snapshot.sequence);
        self.resume_writes(snapshot.sequence)?;
        remove_old(&*self.disk, &manifest, &self.published.load())
    }

    /// After a failure of the log: lets the writer go on, now that a checkpoint of `sequence` is durable.
    fn resume_writes(&self, sequence: u64) -> Result<(), StoreError> {
        if !self.is_broken() {
            return Ok(());
        }
        let (reply, resumed) = channel();
        self.writer.send(Message::Resume(sequence, reply)).map_err(|_| WriteError::Stopped)?;
        Ok(resumed.recv().map_err(|_| WriteError::Stopped)??)
    }

    /// Seals the closed chunks of a collection that are in memory. Returns the version with them sealed.
    fn seal(
        &self,
        namespace: NamespaceId,
        key: &Key,
        collection: &Collection,
    ) -> Result<Collection, StoreError> {
        let mut sealed = collection.clone();
        for chunk in &collection.chunks {
            if !chunk.closed || matches!(*chunk.rows, Rows::Sealed(_)) {
                continue;
            }
            let arrays = ArraysV2::copy(chunk, collection.params.row_shape())?;
            let rows = write_chunk(&*self.disk, collection, chunk.number, &arrays, chunk.len)?;
            let rows = Arc::new(Rows::Sealed(rows));
            let (reply, adopted) = channel();
            let adopt = Adopt {
                namespace,
                key: key.clone(),
                uid: collection.uid,
                chunk: chunk.number,
                rows: Arc::clone(&rows),
                overlay: chunk.overlay.clone(),
            };
            self.writer.send(Message::Adopt(adopt, reply)).map_err(|_| WriteError::Stopped)?;
            adopted.recv().map_err(|_| WriteError::Stopped)?;
            sealed.adopt(chunk.number, rows, &chunk.overlay);
        }
        Ok(sealed)
    }
}

/// Writes state file and manifest of a snapshot, with which it counts. `seal` gives each collection with its closed
/// chunks sealed. Also returns the bytes that state file and chunk files have together.
fn write_checkpoint(
    disk: &dyn Disk,
    snapshot: &Snapshot,
    mut seal: impl FnMut(NamespaceId, &Key, &Collection) -> Result<Collection, StoreError>,
) -> Result<(Manifest, u64), StoreError> {
    let mut collections: Vec<_> = snapshot.collections().collect();
    collections.sort_by_key(|(_, _, collection)| collection.uid);
    let mut chunk_files = Vec::new();
    let mut size_bytes = 0;
    let mut state = StateWriter::create(disk, snapshot.sequence)?;
    state.entry(&archive::encode_head(snapshot)?)?;
    for (namespace, key, collection) in collections {
        let sealed = seal(namespace, key, collection)?;
        for chunk in &sealed.chunks {
            if let Rows::Sealed(rows) = &*chunk.rows {
                chunk_files.push((rows.file_name().to_owned(), rows.pin()));
                size_bytes += disk.len_bytes(rows.file_name())?;
            }
        }
        archive::write_collection(namespace, key, &sealed, |entry| Ok(state.entry(entry)?))?;
    }
    let state = state.finish()?;
    let manifest = Manifest {
        sequence: snapshot.sequence,
        state_file: state.name,
        state_pin: state.pin,
        chunk_files,
        created_ms: clock::now_ms(),
    };
    manifest::store(disk, &manifest)?;
    Ok((manifest, size_bytes + state.size_bytes))
}

/// Writes rows as the file of a chunk and maps it.
pub(super) fn write_chunk(
    disk: &dyn Disk,
    collection: &Collection,
    number: u32,
    rows: &ArraysV2,
    len: usize,
) -> Result<SealedRows, StoreError> {
    disk.create_folder(format::CHUNK_FOLDER)?;
    let shape = collection.params.row_shape();
    let name = format::chunk_name(&format!("{:016x}-{:08x}", collection.uid, number));
    let index = rows.text_index(collection.params.analyzer)?;
    let mut sections = rows.sections(shape);
    for (tag, bytes, lazy) in index.iter().flat_map(IndexArrays::sections) {
        sections.push(Section { tag: tag as u32, parts: vec![bytes], lazy });
    }
    let pin = sections::write_sections(disk, &name, &sections)?;
    let file = SectionFile::open(disk, &name, Some(pin))?;
    Ok(SealedRows::open(file, shape, len)?)
}

/// Writes a snapshot into an empty folder, from which a server then starts. `on_bytes` is told of bytes of rows as they
/// are written. Until the last file is there, the folder refuses to start.
///
/// # Errors
/// When the disk refuses, or rows of the snapshot cannot be read.
pub fn write_copy(
    disk: &dyn Disk,
    snapshot: Snapshot,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<(), StoreError> {
    // A log that begins after the first record asks for a checkpoint.
    drop(LogWriter::create(disk, snapshot.sequence + 1)?);
    let mut state = State::new(snapshot);
    state.close_chunks();
    write_checkpoint(disk, state.view(), |_, _, collection| {
        let mut copy = collection.clone();
        for chunk in &collection.chunks {
            if chunk.closed {
                let arrays = ArraysV2::copy(chunk, collection.params.row_shape())?;
                let rows = write_chunk(disk, collection, chunk.number, &arrays, chunk.len)?;
                on_bytes(disk.len_bytes(rows.file_name())?);
                copy.adopt(chunk.number, Arc::new(Rows::Sealed(rows)), &chunk.overlay);
            }
        }
        Ok(copy)
    })?;
    Ok(())
}

/// Removes what neither the checkpoint nor the running server needs.
pub(super) fn remove_old(disk: &dyn Disk, manifest: &Manifest, now: &Snapshot) -> Result<(), StoreError> {
    let mut keep: HashSet<String> = manifest.chunk_files.iter().map(|(name, _)| name.clone()).collect();
    keep.insert(manifest.state_file.clone());
    for (_, _, collection) in now.collections() {
        for chunk in &collection.chunks {
            if let Rows::Sealed(rows) = &*chunk.rows {
                keep.insert(rows.file_name().to_owned());
            }
        }
    }
    cleanup::remove_unreferenced(disk, manifest.sequence, &|name| keep.contains(name))?;
    Ok(())
}
