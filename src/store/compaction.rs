//! The maintenance thread's part of compaction (see `collection/compaction.rs`): chunks are rewritten while writes go on.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use tracing::info;

use super::checkpoint::{Maintenance, write_chunk};
use super::state::{Key, MAX_PARTIAL_BYTES, NamespaceId};
use super::writer::Message;
use super::{StoreError, WriteError};
use crate::collection::compaction::{Moved, gather, plan};
use crate::collection::{Collection, CollectionError, RowId, Rows};
use crate::text::growing::GrowingIndex;

/// Replaced chunk files are removed by the next checkpoint. When they have this share of the last one's size, in percent,
/// it is taken at once.
const MAX_REPLACED_PERCENTAGE: u64 = 25;

/// Chunks of one collection.
#[derive(Clone)]
pub(super) struct Chunks {
    pub namespace: NamespaceId,
    pub key: Key,
    pub uid: u64,
    pub numbers: Vec<u32>,
}

/// One chunk to put in the place of others.
pub(super) struct Replacement {
    pub chunks: Chunks,
    pub number: u32,
    pub rows: Arc<Rows>,
    pub index: Arc<GrowingIndex>,
    pub from: Vec<RowId>,
}

impl Maintenance {
    /// Rewrites chunks of a collection for as long as there is something to gain. True if so many files have been
    /// replaced that a checkpoint should remove them.
    pub fn compact(&self, namespace: NamespaceId, key: &Key, uid: u64) -> Result<bool, StoreError> {
        let mut replaced_bytes = 0;
        loop {
            let snapshot = self.published.load_full();
            let Some(collection) = snapshot.get(namespace, key) else { break };
            let numbers = plan(collection, self.dead_percentage());
            if numbers.is_empty() {
                break;
            }
            let chunks = Chunks { namespace, key: key.clone(), uid: collection.uid, numbers };
            let Some(bytes) = self.rewrite(chunks)? else { break };
            replaced_bytes += bytes;
        }
        self.writer.send(Message::Compacted(uid)).map_err(|_| WriteError::Stopped)?;
        let last_bytes = self.stats.size_bytes.load(Ordering::Relaxed);
        Ok(replaced_bytes > last_bytes / 100 * MAX_REPLACED_PERCENTAGE)
    }

    fn dead_percentage(&self) -> usize {
        self.stats.compaction_percentage.load(Ordering::Relaxed)
    }

    /// Rewrites chunks as one. The size of the files that are not needed any more, or `None` if the collection is gone.
    fn rewrite(&self, chunks: Chunks) -> Result<Option<u64>, StoreError> {
        let (reply, begun) = channel();
        let begin = Message::BeginCompaction(chunks.clone(), reply);
        self.writer.send(begin).map_err(|_| WriteError::Stopped)?;
        let Some((collection, number)) = begun.recv().map_err(|_| WriteError::Stopped)? else {
            return Ok(None);
        };
        let moved = gather(&collection, &chunks.numbers)?;
        let (old_rows, new_rows) = (rows_of(&collection, &chunks.numbers), moved.from.len());
        let files = files_of(&collection, &chunks.numbers);
        let (rows, index, from) = self.place(&collection, number, moved)?;

        let (reply, replaced) = channel();
        let replacement = Replacement { chunks, number, rows: Arc::new(rows), index, from };
        self.writer.send(Message::EndCompaction(replacement, reply)).map_err(|_| WriteError::Stopped)?;
        if !replaced.recv().map_err(|_| WriteError::Stopped)? {
            return Ok(None);
        }
        self.stats.compactions.fetch_add(1, Ordering::Relaxed);
        info!("collection {}: {old_rows} rows rewritten as {new_rows}", collection.uid);
        let sizes: Result<Vec<u64>, _> = files.iter().map(|file| self.disk.len_bytes(file)).collect();
        Ok(Some(sizes?.iter().sum()))
    }

    /// Few rows stay in memory, in a chunk that grows on; many become a file.
    fn place(
        &self,
        collection: &Collection,
        number: u32,
        moved: Moved,
    ) -> Result<(Rows, Arc<GrowingIndex>, Vec<RowId>), StoreError> {
        let params = &collection.params;
        if moved.size_bytes(params) < MAX_PARTIAL_BYTES {
            return Ok(moved.into_memory(params).ok_or(CollectionError::TooLong)?);
        }
        let rows = write_chunk(&*self.disk, collection, number, &moved.rows, moved.from.len())?;
        Ok((Rows::Sealed(rows), Arc::default(), moved.from))
    }
}

fn rows_of(collection: &Collection, numbers: &[u32]) -> usize {
    collection.chunks.iter().filter(|chunk| numbers.contains(&chunk.number)).map(|chunk| chunk.len).sum()
}

fn files_of(collection: &Collection, numbers: &[u32]) -> Vec<String> {
    let chunks = collection.chunks.iter().filter(|chunk| numbers.contains(&chunk.number));
    let name = |rows: &Rows| match rows {
        Rows::Sealed(rows) => Some(rows.file_name().to_owned()),
        Rows::Memory(_) => None,
    };
    chunks.filter_map(|chunk| name(&chunk.rows)).collect()
}
