//! What the state file of a checkpoint holds: a head, then one entry per collection. Explicit versions of rkyv types,
//! validated before use; a new version is a new type beside these.

use std::sync::Arc;

use imbl::OrdMap;
use rkyv::rancor;

use super::StoreError;
use super::params::ParamsV1;
use super::state::{Key, NamespaceId, Snapshot};
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
    snapshot: Option<Snapshot>,
}

impl<'a> Restorer<'a> {
    /// Chunk files are opened on this disk.
    pub fn new(disk: &'a dyn Disk) -> Self {
        Self { disk, snapshot: None }
    }

    /// Takes the next entry. Entries are aligned to 16 bytes.
    ///
    /// # Errors
    /// When it is not the entry expected here, or one of its chunk files is damaged.
    pub fn entry(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        let unreadable = |error: rancor::Error| StoreError::State(error.to_string());
        let Some(snapshot) = &mut self.snapshot else {
            let head = rkyv::from_bytes::<HeadV1, rancor::Error>(entry).map_err(unreadable)?;
            self.snapshot = Some(Snapshot::at(head.stamp, head.next_uid));
            return Ok(());
        };
        let collection = rkyv::from_bytes::<CollectionV1, rancor::Error>(entry).map_err(unreadable)?;
        let namespace = NamespaceId(collection.namespace);
        let key = Key::new(collection.key.clone().into());
        let collection = restore_collection(self.disk, collection)?;
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

fn restore_collection(disk: &dyn Disk, archived: CollectionV1) -> Result<Collection, StoreError> {
    let params = archived.params.params();
    let params =
        params.ok_or_else(|| StoreError::State("a collection's parameters are not known".to_owned()))?;
    let mut chunks = Vec::with_capacity(archived.chunks.len());
    for chunk in archived.chunks {
        chunks.push(restore_chunk(disk, chunk, &params)?);
    }
    if !chunks.is_sorted_by(|a, b| a.number < b.number) {
        return Err(StoreError::State("a collection's chunks are out of order".to_owned()));
    }
    let mut collection = Collection::restore(archived.uid, params, chunks, archived.next_chunk);
    collection.stamp = archived.stamp;
    collection.expires_ms = archived.expires_ms;
    Ok(collection)
}

fn restore_chunk(disk: &dyn Disk, archived: ChunkV1, params: &Params) -> Result<Chunk, StoreError> {
    let unsound = || StoreError::State("a chunk's arrays do not fit together".to_owned());
    let ChunkV1 { number, len, live, rows } = archived;
    let (shape, len) = (params.row_shape(), len as usize);
    match rows {
        RowsV1::Partial(arrays) => arrays.restore(number, shape, len, live).ok_or_else(unsound),
        RowsV1::Sealed { file, pin, overlay } => {
            let file = SectionFile::open(disk, &file, Some(pin))?;
            let rows = Rows::Sealed(SealedRows::open(file, shape, len)?);
            let overlay: OrdMap<u16, Option<Attributes>> =
                overlay.into_iter().map(|(offset, value)| (offset, value.map(Attributes::from))).collect();
            let mut chunk =
                Chunk { rows: Arc::new(rows), len, overlay, closed: true, ..Chunk::new(number, shape) };
            if chunk.set_live(live) { Ok(chunk) } else { Err(unsound()) }
        }
    }
}
