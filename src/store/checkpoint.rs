//! The maintenance thread: seals full chunks, rewrites those with many dead rows (`compaction.rs`) and takes checkpoints,
//! while writes go on.
//!
//! A checkpoint at sequence S: the writer begins a new log file and hands out the snapshot S; chunks of it that are
//! closed are sealed; one state file holds the rest; the manifest makes it all count; what came before is removed.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tracing::{error, info};

use super::archive;
use super::state::{Key, NamespaceId, Snapshot};
use super::writer::{Adopt, Message};
use super::{StoreError, WriteError};
use crate::clock;
use crate::collection::sealed::{ArraysV2, SealedRows};
use crate::collection::{Collection, Rows};
use crate::disk::manifest::{self, Manifest};
use crate::disk::sections::{self, SectionFile};
use crate::disk::state::StateWriter;
use crate::disk::{Disk, cleanup, format};

/// What the maintenance thread is asked to do.
pub(super) enum Task {
    /// Seal a collection's closed chunks.
    Seal { namespace: NamespaceId, key: Key },
    /// Rewrite a collection's chunks that hold too many dead rows.
    Compact { namespace: NamespaceId, key: Key, uid: u64 },
    /// Take a checkpoint and say how it went.
    Checkpoint(Option<oneshot::Sender<Result<(), StoreError>>>),
    /// End.
    Stop,
}

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
}

impl Maintenance {
    pub fn run(self, tasks: &Receiver<Task>) {
        while let Ok(task) = tasks.recv() {
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
                        self.run_checkpoint(None);
                    }
                    Ok(_) => {}
                    // The chunks stay as they are; it is tried again after the next checkpoint.
                    Err(error) => error!("chunks could not be rewritten: {error}"),
                },
                Task::Checkpoint(reply) => self.run_checkpoint(reply),
                Task::Stop => return,
            }
        }
    }

    fn run_checkpoint(&self, reply: Option<oneshot::Sender<Result<(), StoreError>>>) {
        let result = self.checkpoint();
        if let Err(error) = &result {
            error!("checkpoint failed: {error}");
        }
        self.stats.failed.store(result.is_err(), Ordering::Relaxed);
        self.stats.running.store(false, Ordering::Release);
        if let Some(reply) = reply {
            drop(reply.send(result));
        }
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        let (reply, rotated) = channel();
        self.writer.send(Message::Rotate(reply)).map_err(|_| WriteError::Stopped)?;
        let snapshot = rotated.recv().map_err(|_| WriteError::Stopped)??;
        if snapshot.sequence == self.stats.sequence.load(Ordering::Relaxed) {
            self.stats.last_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
            return Ok(());
        }
        let mut collections: Vec<_> = snapshot.collections().collect();
        collections.sort_by_key(|(_, _, collection)| collection.uid);

        let mut chunk_files = Vec::new();
        let mut size_bytes = 0;
        let mut state = StateWriter::create(&*self.disk, snapshot.sequence)?;
        state.entry(&archive::encode_head(&snapshot)?)?;
        for (namespace, key, collection) in collections {
            let sealed = self.seal(namespace, key, collection)?;
            for chunk in &sealed.chunks {
                if let Rows::Sealed(rows) = &*chunk.rows {
                    chunk_files.push((rows.file_name().to_owned(), rows.pin()));
                    size_bytes += self.disk.len_bytes(rows.file_name())?;
                }
            }
            state.entry(&archive::encode_collection(namespace, key, &sealed)?)?;
        }
        let state = state.finish()?;
        size_bytes += state.size_bytes;
        let manifest = Manifest {
            sequence: snapshot.sequence,
            state_file: state.name,
            state_pin: state.pin,
            chunk_files,
            created_ms: clock::now_ms(),
        };
        manifest::store(&*self.disk, &manifest)?;
        self.stats.last_s.store(clock::now_ms() / 1000, Ordering::Relaxed);
        self.stats.size_bytes.store(size_bytes, Ordering::Relaxed);
        self.stats.sequence.store(snapshot.sequence, Ordering::Relaxed);
        info!("checkpoint at record {} done, {size_bytes} bytes", snapshot.sequence);
        remove_old(&*self.disk, &manifest, &self.published.load())
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
            let rows =
                Arc::new(Rows::Sealed(self.write_chunk(collection, chunk.number, &arrays, chunk.len)?));
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

    /// Writes rows as the file of a chunk and maps it.
    pub fn write_chunk(
        &self,
        collection: &Collection,
        number: u32,
        rows: &ArraysV2,
        len: usize,
    ) -> Result<SealedRows, StoreError> {
        self.disk.create_folder(format::CHUNK_FOLDER)?;
        let shape = collection.params.row_shape();
        let name = format::chunk_name(&format!("{:016x}-{:08x}", collection.uid, number));
        let pin = sections::write_sections(&*self.disk, &name, &rows.sections(shape))?;
        let file = SectionFile::open(&*self.disk, &name, Some(pin))?;
        Ok(SealedRows::open(file, shape, len)?)
    }
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
