//! What the state file of a checkpoint holds: a head, then one entry per collection. Explicit versions of rkyv types,
//! validated before use; a new version is a new type beside these.

use std::sync::Arc;

use imbl::OrdMap;
use rkyv::rancor;

use super::StoreError;
use super::load::LoadStats;
use super::params::ParamsV1;
use super::state::{Key, NamespaceId, Snapshot};
use crate::collection::salvage::{Salvage, SavedView, salvage_rows};
use crate::collection::sealed::{ArraysV1, SealedRows};
use crate::collection::{Attributes, Chunk, Collection, Params, Rows};
use crate::disk::Disk;
use crate::disk::sections::SectionFile;

/// First entry of a state file.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct HeadV1 {
    stamp: u64,
    next_uid: u64,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct CollectionV1 {
    namespace: u32,
    key: Vec<u8>,
    uid: u64,
    stamp: u64,
    expires_ms: Option<u64>,
    params: ParamsV1,
    next_chunk: u32,
    chunks: Vec<ChunkV1>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct ChunkV1 {
    number: u32,
    len: u32,
    live: Vec<u64>,
    rows: RowsV1,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum RowsV1 {
    /// A partial chunk: all of it.
    Partial(ArraysV1),
    /// A sealed one: its file, and the attributes changed since.
    Sealed { file: String, pin: [u8; 32], overlay: Vec<(u16, Option<Vec<u8>>)> },
}

/// Entry of the snapshot itself.
pub fn encode_head(snapshot: &Snapshot) -> Result<Vec<u8>, StoreError> {
    encode(&HeadV1 { stamp: snapshot.stamp, next_uid: snapshot.next_uid })
}

fn encode(
    value: &impl for<'a> rkyv::Serialize<
        rkyv::api::high::HighSerializer<
            rkyv::util::AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rancor::Error,
        >,
    >,
) -> Result<Vec<u8>, StoreError> {
    let bytes = rkyv::to_bytes::<rancor::Error>(value);
    Ok(bytes.map_err(|error| StoreError::State(error.to_string()))?.into_vec())
}

/// Entry of one collection. Chunks that are neither sealed nor partial do not exist at a checkpoint.
pub fn encode_collection(
    namespace: NamespaceId,
    key: &Key,
    collection: &Collection,
) -> Result<Vec<u8>, StoreError> {
    let chunks: Result<Vec<_>, StoreError> =
        collection.chunks.iter().map(|chunk| archive_chunk(chunk, &collection.params)).collect();
    encode(&CollectionV1 {
        namespace: namespace.0,
        key: key.name().to_vec(),
        uid: collection.uid,
        stamp: collection.stamp,
        expires_ms: collection.expires_ms,
        params: ParamsV1::from(&collection.params),
        next_chunk: collection.next_chunk,
        chunks: chunks?,
    })
}

fn bounded(value: usize) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| unreachable!("dimensions and rows of a chunk are bounded"))
}

fn archive_chunk(chunk: &Chunk, params: &Params) -> Result<ChunkV1, StoreError> {
    let rows = match &*chunk.rows {
        Rows::Memory(_) => RowsV1::Partial(ArraysV1::copy(chunk, params.row_shape())?),
        Rows::Sealed(sealed) => {
            let owned = |value: &Option<Attributes>| value.as_deref().map(<[u8]>::to_vec);
            RowsV1::Sealed {
                file: sealed.file_name().to_owned(),
                pin: sealed.pin(),
                overlay: chunk.overlay.iter().map(|(offset, value)| (*offset, owned(value))).collect(),
            }
        }
    };
    Ok(ChunkV1 { number: chunk.number, len: bounded(chunk.len), live: chunk.live.to_vec(), rows })
}

/// Puts a state file's entries together again as a snapshot.
pub struct Restorer<'a> {
    disk: &'a dyn Disk,
    load: &'a LoadStats,
    snapshot: Option<Snapshot>,
}

impl<'a> Restorer<'a> {
    /// Chunk files are opened on this disk; `load` is told how far it is.
    pub fn new(disk: &'a dyn Disk, load: &'a LoadStats) -> Self {
        Self { disk, load, snapshot: None }
    }

    /// Takes the next entry. Entries are aligned to 16 bytes.
    ///
    /// # Errors
    /// When it is not the entry expected here, or one of its chunk files is damaged.
    pub fn entry(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        self.load.add(entry.len() as u64);
        let unreadable = |error: rancor::Error| StoreError::State(error.to_string());
        let Some(snapshot) = &mut self.snapshot else {
            let head = rkyv::from_bytes::<HeadV1, rancor::Error>(entry).map_err(unreadable)?;
            self.snapshot = Some(Snapshot::at(head.stamp, head.next_uid));
            return Ok(());
        };
        let collection = rkyv::from_bytes::<CollectionV1, rancor::Error>(entry).map_err(unreadable)?;
        let namespace = NamespaceId(collection.namespace);
        let key = Key::new(collection.key.clone().into());
        let collection = restore_collection(self.disk, self.load, collection)?;
        snapshot.insert(namespace, key, Arc::new(collection));
        Ok(())
    }

    /// The snapshot at the checkpoint's sequence.
    ///
    /// # Errors
    /// When there was no entry.
    pub fn finish(self, sequence: u64) -> Result<Snapshot, StoreError> {
        let mut snapshot = self.snapshot.ok_or_else(|| StoreError::State("it has no head".to_owned()))?;
        snapshot.sequence = sequence;
        Ok(snapshot)
    }
}

fn restore_collection(
    disk: &dyn Disk,
    load: &LoadStats,
    archived: CollectionV1,
) -> Result<Collection, StoreError> {
    let params = archived.params.params();
    let params =
        params.ok_or_else(|| StoreError::State("a collection's parameters are not known".to_owned()))?;
    let mut chunks = Vec::with_capacity(archived.chunks.len());
    for chunk in &archived.chunks {
        chunks.push(restore_chunk(disk, chunk, &params)?);
        if let RowsV1::Sealed { file, .. } = &chunk.rows {
            load.add(disk.len_bytes(file)?);
        }
    }
    if !chunks.is_sorted_by(|a, b| a.number < b.number) {
        return Err(StoreError::State("a collection's chunks are out of order".to_owned()));
    }
    Ok(archived.with_chunks(params, chunks))
}

impl CollectionV1 {
    fn with_chunks(&self, params: Params, chunks: Vec<Chunk>) -> Collection {
        let mut collection = Collection::restore(self.uid, params, chunks, self.next_chunk);
        collection.stamp = self.stamp;
        collection.expires_ms = self.expires_ms;
        collection
    }
}

fn restore_chunk(disk: &dyn Disk, archived: &ChunkV1, params: &Params) -> Result<Chunk, StoreError> {
    let unsound = || StoreError::State("a chunk's arrays do not fit together".to_owned());
    let ChunkV1 { number, len, live, rows } = archived;
    let (shape, len) = (params.row_shape(), *len as usize);
    match rows {
        RowsV1::Partial(arrays) => arrays.restore(*number, shape, len, live.clone()).ok_or_else(unsound),
        RowsV1::Sealed { file, pin, overlay } => {
            let file = SectionFile::open(disk, file, Some(*pin))?;
            let rows = Rows::Sealed(SealedRows::open(file, shape, len)?);
            let mut chunk = Chunk {
                rows: Arc::new(rows),
                len,
                overlay: restore_overlay(overlay),
                closed: true,
                ..Chunk::new(*number, shape)
            };
            if chunk.set_live(live.clone()) { Ok(chunk) } else { Err(unsound()) }
        }
    }
}

fn restore_overlay(overlay: &[(u16, Option<Vec<u8>>)]) -> OrdMap<u16, Option<Attributes>> {
    overlay.iter().map(|(offset, value)| (*offset, value.as_deref().map(Attributes::from))).collect()
}

/// The counters in the first entry of a state file: number of the last change, and of the next collection.
///
/// # Errors
/// When it is not such an entry.
pub fn decode_head(entry: &[u8]) -> Result<(u64, u64), StoreError> {
    let head = rkyv::from_bytes::<HeadV1, rancor::Error>(entry);
    let head = head.map_err(|error| StoreError::State(error.to_string()))?;
    Ok((head.stamp, head.next_uid))
}

/// A collection whose files may be damaged.
pub struct SalvagedCollection {
    /// Where.
    pub namespace: NamespaceId,
    /// Its key.
    pub key: Key,
    /// The collection with its sound chunks.
    pub collection: Collection,
    /// What is left of the others.
    pub damaged: Vec<DamagedChunk>,
    /// Names of the chunk files it refers to.
    pub files: Vec<String>,
}

/// A damaged chunk.
pub struct DamagedChunk {
    /// Its file, or the state file.
    pub file: String,
    /// What is wrong with it.
    pub errors: Vec<StoreError>,
    /// What can be read.
    pub salvage: Salvage,
}

/// Puts a collection's entry together again from what is sound of it, and verifies every byte of its files.
///
/// # Errors
/// When the entry itself cannot be read.
pub fn salvage_collection(
    disk: &dyn Disk,
    state_file: &str,
    entry: &[u8],
) -> Result<SalvagedCollection, StoreError> {
    let unreadable = |error: rancor::Error| StoreError::State(error.to_string());
    let archived = rkyv::from_bytes::<CollectionV1, rancor::Error>(entry).map_err(unreadable)?;
    let params = archived.params.params();
    let params =
        params.ok_or_else(|| StoreError::State("a collection's parameters are not known".to_owned()))?;
    let (mut chunks, mut damaged, mut files): (Vec<Chunk>, _, _) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in &archived.chunks {
        if let RowsV1::Sealed { file, .. } = &chunk.rows {
            files.push(file.clone());
        }
        let in_order = chunks.last().is_none_or(|last| last.number < chunk.number);
        let errors = match restore_chunk(disk, chunk, &params) {
            Ok(_) if !in_order => {
                vec![StoreError::State("a collection's chunks are out of order".to_owned())]
            }
            Ok(restored) => match restored.damages() {
                errors if errors.is_empty() => {
                    chunks.push(restored);
                    continue;
                }
                errors => errors.into_iter().map(StoreError::Disk).collect(),
            },
            Err(error) => vec![error],
        };
        damaged.push(salvage_chunk(disk, state_file, chunk, &params, errors));
    }
    Ok(SalvagedCollection {
        namespace: NamespaceId(archived.namespace),
        key: Key::new(archived.key.clone().into()),
        collection: archived.with_chunks(params, chunks),
        damaged,
        files,
    })
}

fn salvage_chunk(
    disk: &dyn Disk,
    state_file: &str,
    archived: &ChunkV1,
    params: &Params,
    mut errors: Vec<StoreError>,
) -> DamagedChunk {
    let live_rows = archived.live.iter().map(|word| word.count_ones() as usize).sum();
    let all_lost = Salvage { unnamed: live_rows, ..Salvage::default() };
    let (file, salvage) = match &archived.rows {
        RowsV1::Partial(_) => (state_file.to_owned(), all_lost),
        RowsV1::Sealed { file, pin, overlay } => match SectionFile::open_damaged(disk, file, Some(*pin)) {
            Ok((sections, damages)) => {
                if !damages.is_empty() {
                    errors = damages.into_iter().map(StoreError::Disk).collect();
                }
                let view = SavedView { len: archived.len as usize, live: &archived.live };
                (file.clone(), salvage_rows(&sections, params, &view, &restore_overlay(overlay)))
            }
            Err(_) => (file.clone(), all_lost),
        },
    };
    DamagedChunk { file, errors, salvage }
}
