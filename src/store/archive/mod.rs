//! What the state file of a checkpoint holds: a head, then the entries of each collection (`pieces.rs`); one for each before
//! version 7. Explicit versions of rkyv types, validated before use; a new version is a new type beside these.

mod pieces;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rkyv::rancor;

use super::StoreError;
use super::load::LoadStats;
use super::params::ParamsV1;
use super::state::{Key, NamespaceId, Snapshot};
use super::users::Users;
use crate::collection::documents::Document;
use crate::collection::overlay::Overlay;
use crate::collection::salvage::{Salvage, SavedView, salvage_rows};
use crate::collection::sealed::{ArraysV1, ArraysV2, SealedRows};
use crate::collection::{
    Attributes, Chunk, Collection, CollectionError, MAX_CHUNK_ATTRIBUTE_BYTES, Params, RowId, Rows,
};
use crate::disk::Disk;
use crate::disk::sections::SectionFile;
use crate::embed::ModelId;
use crate::vector::arena::MAX_ROWS;
pub use pieces::write_collection;
use pieces::{Entry, Gathered, Gatherer};

/// First entry of a state file before texts: told from the next by its length. The others are of version 1 then.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct HeadV1 {
    stamp: u64,
    next_uid: u64,
}

/// First entry of a state file before users: told from the next by its length.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct HeadV2 {
    stamp: u64,
    next_uid: u64,
    /// Version of the other entries: 2 to 4.
    version: u64,
}

/// First entry of a state file.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct HeadV3 {
    stamp: u64,
    next_uid: u64,
    /// Version of the other entries: 2 and more.
    version: u64,
    /// Users and namespaces, as `users.rs` writes them.
    users: Vec<u8>,
}

/// Version of the entries written. Those of version 5 are as those of 4, but some are fields of others.
pub const VERSION: u64 = 7;

/// A whole collection, as an entry of version 6 or put together from pieces.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct CollectionV6 {
    base: CollectionV4,
    /// Documents: their URIs, and each as `collection/documents.rs` encodes it.
    documents: Vec<(Vec<u8>, Vec<u8>)>,
}

impl From<CollectionV4> for CollectionV6 {
    fn from(base: CollectionV4) -> Self {
        Self { base, documents: Vec::new() }
    }
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct CollectionV4 {
    base: CollectionV3,
    /// Sparse vectors of rows that are not in files.
    sparse: Vec<(u64, Vec<u8>)>,
}

impl From<CollectionV3> for CollectionV4 {
    fn from(base: CollectionV3) -> Self {
        Self { base, sparse: Vec::new() }
    }
}

impl From<CollectionV2> for CollectionV4 {
    fn from(base: CollectionV2) -> Self {
        CollectionV3::from(base).into()
    }
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct CollectionV3 {
    base: CollectionV2,
    /// When elements go by themselves: their row, and unix milliseconds.
    expiries: Vec<(u64, u64)>,
}

impl From<CollectionV2> for CollectionV3 {
    fn from(base: CollectionV2) -> Self {
        Self { base, expiries: Vec::new() }
    }
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct CollectionV2 {
    namespace: u32,
    key: Vec<u8>,
    uid: u64,
    stamp: u64,
    expires_ms: Option<u64>,
    params: ParamsV1,
    /// Name and hash of the model that embeds its texts.
    model: Option<(String, [u8; 32])>,
    next_chunk: u32,
    chunks: Vec<ChunkV2>,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct ChunkV2 {
    number: u32,
    len: u32,
    live: Vec<u64>,
    rows: RowsV2,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum RowsV2 {
    /// A partial chunk: all of it.
    Partial(Box<ArraysV2>),
    /// A sealed one: its file, and the attributes changed since.
    Sealed { file: String, pin: [u8; 32], overlay: Vec<(u16, Option<Vec<u8>>)> },
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

impl From<CollectionV1> for CollectionV2 {
    fn from(old: CollectionV1) -> Self {
        let CollectionV1 { namespace, key, uid, stamp, expires_ms, params, next_chunk, chunks } = old;
        let chunks = chunks.into_iter().map(ChunkV2::from).collect();
        Self { namespace, key, uid, stamp, expires_ms, params, model: None, next_chunk, chunks }
    }
}

impl From<ChunkV1> for ChunkV2 {
    fn from(ChunkV1 { number, len, live, rows }: ChunkV1) -> Self {
        let rows = match rows {
            RowsV1::Partial(arrays) => RowsV2::Partial(Box::new(arrays.into())),
            RowsV1::Sealed { file, pin, overlay } => RowsV2::Sealed { file, pin, overlay },
        };
        Self { number, len, live, rows }
    }
}

/// Entry of the snapshot itself.
pub fn encode_head(snapshot: &Snapshot) -> Result<Vec<u8>, StoreError> {
    encode(&HeadV3 {
        stamp: snapshot.stamp,
        next_uid: snapshot.next_uid,
        version: VERSION,
        users: snapshot.users.encode(),
    })
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

fn bounded(value: usize) -> u32 {
    u32::try_from(value).unwrap_or_else(|_| unreachable!("dimensions and rows of a chunk are bounded"))
}

/// A chunk, without overlay.
fn archive_chunk(chunk: &Chunk, params: &Params) -> Result<ChunkV2, StoreError> {
    let rows = match &*chunk.rows {
        // Nothing may be left out: there is no overlay for what has no room.
        Rows::Memory(_) if chunk.overlay.size_bytes() >= MAX_CHUNK_ATTRIBUTE_BYTES => {
            return Err(CollectionError::TooLong.into());
        }
        Rows::Memory(_) => RowsV2::Partial(ArraysV2::copy(chunk, params.row_shape())?.into()),
        Rows::Sealed(sealed) => {
            RowsV2::Sealed { file: sealed.file_name().to_owned(), pin: sealed.pin(), overlay: Vec::new() }
        }
    };
    Ok(ChunkV2 { number: chunk.number, len: bounded(chunk.len), live: chunk.live.to_vec(), rows })
}

/// Puts a state file's entries together again as a snapshot.
pub struct Restorer<'a> {
    disk: &'a dyn Disk,
    load: &'a LoadStats,
    /// What is restored so far, and what comes next.
    begun: Option<(Snapshot, Gatherer)>,
    /// Collections from this number on may follow: they are written in the order of their numbers.
    least_uid: u64,
}

impl<'a> Restorer<'a> {
    /// Chunk files are opened on this disk; `load` is told how far it is.
    pub fn new(disk: &'a dyn Disk, load: &'a LoadStats) -> Self {
        Self { disk, load, begun: None, least_uid: 0 }
    }

    /// Takes the next entry. Entries are aligned to 16 bytes.
    ///
    /// # Errors
    /// When it is not the entry expected here, or a chunk file of the collection that ends with it is damaged.
    pub fn entry(&mut self, entry: &[u8]) -> Result<(), StoreError> {
        self.load.add(entry.len() as u64);
        let Some((_, gatherer)) = &mut self.begun else {
            let (snapshot, version) = restore_head(entry)?;
            self.begun = Some((snapshot, Gatherer::new(version)));
            return Ok(());
        };
        match gatherer.entry(entry)? {
            Entry::First(Some(gathered)) => self.insert(*gathered),
            Entry::First(None) | Entry::Piece => Ok(()),
            Entry::Stray(_) => Err(StoreError::State("a piece is of no collection before it".to_owned())),
        }
    }

    fn insert(&mut self, gathered: Gathered) -> Result<(), StoreError> {
        let Some((snapshot, _)) = &mut self.begun else { return Ok(()) };
        let Gathered { collection, lost_pieces } = gathered;
        if lost_pieces > 0 {
            return Err(StoreError::State("pieces of a collection are missing".to_owned()));
        }
        let base = &collection.base.base.base;
        let (namespace, uid) = (NamespaceId(base.namespace), base.uid);
        let key = Key::new(base.key.clone().into());
        if !snapshot.has_owner(namespace, &key) {
            return Err(StoreError::State("a field is of no collection".to_owned()));
        }
        if !(self.least_uid..snapshot.next_uid).contains(&uid) || snapshot.get(namespace, &key).is_some() {
            return Err(StoreError::State("two of its collections are the same".to_owned()));
        }
        self.least_uid = uid + 1;
        let collection = restore_collection(self.disk, self.load, collection)?;
        snapshot.insert(namespace, key, Arc::new(collection));
        Ok(())
    }

    /// The snapshot at the checkpoint's sequence, after the last entry.
    ///
    /// # Errors
    /// When there was no entry, or the last collection is not whole or damaged.
    pub fn finish(mut self, sequence: u64) -> Result<Snapshot, StoreError> {
        let last = self.begun.as_mut().and_then(|(_, gatherer)| gatherer.finish());
        last.map_or(Ok(()), |last| self.insert(last))?;
        let (mut snapshot, _) = self.begun.ok_or_else(|| StoreError::State("it has no head".to_owned()))?;
        snapshot.sequence = sequence;
        Ok(snapshot)
    }
}

fn unreadable(error: rancor::Error) -> StoreError {
    StoreError::State(error.to_string())
}

/// What stands in the first entry (counters and users), and the version of those that follow.
///
/// # Errors
/// When it is not such an entry.
pub fn restore_head(entry: &[u8]) -> Result<(Snapshot, u64), StoreError> {
    if entry.len() == size_of::<ArchivedHeadV1>() {
        let head = rkyv::from_bytes::<HeadV1, rancor::Error>(entry).map_err(unreadable)?;
        return Ok((Snapshot::at(head.stamp, head.next_uid), 1));
    }
    let head = if entry.len() == size_of::<ArchivedHeadV2>() {
        let old = rkyv::from_bytes::<HeadV2, rancor::Error>(entry).map_err(unreadable)?;
        let users = Users::default().encode();
        HeadV3 { stamp: old.stamp, next_uid: old.next_uid, version: old.version, users }
    } else {
        rkyv::from_bytes::<HeadV3, rancor::Error>(entry).map_err(unreadable)?
    };
    if !(2..=VERSION).contains(&head.version) {
        return Err(StoreError::State(format!("its entries are of version {}", head.version)));
    }
    let mut snapshot = Snapshot::at(head.stamp, head.next_uid);
    snapshot.users = Users::decode(&head.users).map_err(|error| StoreError::State(error.to_string()))?;
    Ok((snapshot, head.version))
}

/// The entry of a whole collection, of a version before 7.
fn decode_whole(version: u64, entry: &[u8]) -> Result<CollectionV6, StoreError> {
    let collection = match version {
        1 => rkyv::from_bytes::<CollectionV1, rancor::Error>(entry).map(|old| CollectionV2::from(old).into()),
        2 => rkyv::from_bytes::<CollectionV2, rancor::Error>(entry).map(CollectionV4::from),
        3 => rkyv::from_bytes::<CollectionV3, rancor::Error>(entry).map(CollectionV4::from),
        4 | 5 => rkyv::from_bytes::<CollectionV4, rancor::Error>(entry),
        _ => return rkyv::from_bytes::<CollectionV6, rancor::Error>(entry).map_err(unreadable),
    };
    collection.map(CollectionV6::from).map_err(unreadable)
}

fn restore_collection(
    disk: &dyn Disk,
    load: &LoadStats,
    archived: CollectionV6,
) -> Result<Collection, StoreError> {
    let base = &archived.base.base.base;
    let params = base.known_params()?;
    let mut chunks = Vec::with_capacity(base.chunks.len());
    for chunk in &base.chunks {
        chunks.push(restore_chunk(disk, chunk, &params)?);
        if let RowsV2::Sealed { file, .. } = &chunk.rows {
            load.add(disk.len_bytes(file)?);
        }
    }
    if !chunks.is_sorted_by(|a, b| a.number < b.number)
        || chunks.last().is_some_and(|last| last.number >= base.next_chunk)
    {
        return Err(StoreError::State("a collection's chunks are out of order".to_owned()));
    }
    let mut collection = archived.base.with_chunks(params, chunks);
    for (uri, document) in archived.sound_documents()? {
        collection.set_document(&uri, Some(document));
    }
    Ok(collection)
}

/// A document with its URI.
pub type NamedDocument = (Vec<u8>, Arc<Document>);

impl CollectionV6 {
    fn sound_documents(&self) -> Result<Vec<NamedDocument>, StoreError> {
        let unsound = || StoreError::State("a document is not sound".to_owned());
        let one = |(uri, bytes): &(Vec<u8>, Vec<u8>)| {
            Ok((uri.clone(), Arc::new(Document::decode(bytes).ok_or_else(unsound)?)))
        };
        self.documents.iter().map(one).collect()
    }
}

impl CollectionV2 {
    fn known_params(&self) -> Result<Params, StoreError> {
        let unknown = || StoreError::State("a collection's parameters are not known".to_owned());
        self.params.params().ok_or_else(unknown)
    }
}

impl CollectionV4 {
    fn with_chunks(&self, params: Params, chunks: Vec<Chunk>) -> Collection {
        let base = &self.base.base;
        let mut collection = Collection::restore(base.uid, params, chunks, base.next_chunk);
        collection.stamp = base.stamp;
        collection.expires_ms = base.expires_ms;
        collection.restore_sparse(self.sparse.iter().map(|(row, sparse)| (RowId(*row), &sparse[..])));
        collection.restore_expiries(self.base.expiries.iter().map(|(row, at_ms)| (RowId(*row), *at_ms)));
        let model = |(name, hash): &(String, [u8; 32])| Arc::new(ModelId { name: name.clone(), hash: *hash });
        collection.model = base.model.as_ref().map(model);
        collection
    }
}

fn restore_chunk(disk: &dyn Disk, archived: &ChunkV2, params: &Params) -> Result<Chunk, StoreError> {
    let unsound = || StoreError::State("a chunk's arrays do not fit together".to_owned());
    let ChunkV2 { number, len, live, rows } = archived;
    let (shape, len) = (params.row_shape(), *len as usize);
    if len > MAX_ROWS {
        return Err(unsound());
    }
    match rows {
        RowsV2::Partial(arrays) => {
            arrays.restore(*number, shape, len, live.clone(), params.analyzer).ok_or_else(unsound)
        }
        RowsV2::Sealed { file, pin, overlay } => {
            let file = SectionFile::open(disk, file, Some(*pin))?;
            let rows = SealedRows::open(file, shape, len)?.with_text_index(params.analyzer);
            let mut chunk = Chunk {
                rows: Arc::new(Rows::Sealed(rows)),
                len,
                overlay: restore_overlay(overlay),
                closed: true,
                ..Chunk::new(*number, shape)
            };
            if chunk.set_live(live.clone()) { Ok(chunk) } else { Err(unsound()) }
        }
    }
}

fn restore_overlay(overlay: &[(u16, Option<Vec<u8>>)]) -> Overlay {
    overlay.iter().map(|(offset, value)| (*offset, value.as_deref().map(Attributes::from))).collect()
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
    /// Its documents, to be put back when it has all elements that are left.
    pub documents: Vec<NamedDocument>,
    /// Pieces of it that are lost, and with them what they held.
    pub lost_pieces: u64,
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

/// Puts collections together again from the entries of a damaged state file.
pub struct Salvager<'a> {
    disk: &'a dyn Disk,
    state_file: &'a str,
    gatherer: Gatherer,
    /// The collection told last of which there are pieces, but no first entry.
    headless: Option<u64>,
}

impl<'a> Salvager<'a> {
    /// Chunk files are opened on this disk; `version` is that of the entries.
    pub fn new(disk: &'a dyn Disk, state_file: &'a str, version: u64) -> Self {
        Self { disk, state_file, gatherer: Gatherer::new(version), headless: None }
    }

    /// Takes the next entry behind the head; gives the collection that ended before it, if one did.
    ///
    /// # Errors
    /// When the entry, or what the collection has in the state file, cannot be used. It is left out then.
    pub fn entry(&mut self, entry: &[u8]) -> Result<Option<SalvagedCollection>, StoreError> {
        match self.gatherer.entry(entry)? {
            Entry::First(gathered) => self.salvage(gathered.map(|gathered| *gathered)),
            Entry::Piece => Ok(None),
            Entry::Stray(uid) if self.headless.replace(uid) == Some(uid) => Ok(None),
            Entry::Stray(uid) => {
                let what = format!("the first entry of collection {uid} is lost, and the collection with it");
                Err(StoreError::State(what))
            }
        }
    }

    /// The last collection, after the last entry.
    ///
    /// # Errors
    /// As [`Self::entry`].
    pub fn finish(mut self) -> Result<Option<SalvagedCollection>, StoreError> {
        let last = self.gatherer.finish();
        self.salvage(last)
    }

    fn salvage(&self, gathered: Option<Gathered>) -> Result<Option<SalvagedCollection>, StoreError> {
        gathered.map(|gathered| salvage_collection(self.disk, self.state_file, gathered)).transpose()
    }
}

/// Restores what is sound of a collection, and verifies every byte of its files.
fn salvage_collection(
    disk: &dyn Disk,
    state_file: &str,
    gathered: Gathered,
) -> Result<SalvagedCollection, StoreError> {
    let Gathered { collection: archived, lost_pieces } = gathered;
    let (base, expiries) = (&archived.base.base.base, &archived.base.base.expiries);
    let params = base.known_params()?;
    let (mut chunks, mut damaged, mut files): (Vec<Chunk>, _, _) = (Vec::new(), Vec::new(), Vec::new());
    for chunk in &base.chunks {
        if let RowsV2::Sealed { file, .. } = &chunk.rows {
            files.push(file.clone());
        }
        let in_order =
            chunks.last().is_none_or(|last| last.number < chunk.number) && chunk.number < base.next_chunk;
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
        let mut chunk_left = salvage_chunk(disk, state_file, chunk, &params, errors);
        for row in &mut chunk_left.salvage.rows {
            let number = RowId::new(chunk.number, row.offset).0;
            let known = expiries.binary_search_by_key(&number, |(row, _)| *row);
            row.expires_ms = known.ok().map(|at| expiries[at].1);
        }
        damaged.push(chunk_left);
    }
    Ok(SalvagedCollection {
        namespace: NamespaceId(base.namespace),
        key: Key::new(base.key.clone().into()),
        collection: archived.base.with_chunks(params, chunks),
        damaged,
        files,
        documents: archived.sound_documents()?,
        lost_pieces,
    })
}

fn salvage_chunk(
    disk: &dyn Disk,
    state_file: &str,
    archived: &ChunkV2,
    params: &Params,
    mut errors: Vec<StoreError>,
) -> DamagedChunk {
    let live_rows = archived.live.iter().map(|word| word.count_ones() as usize).sum();
    let all_lost = Salvage { unnamed: live_rows, ..Salvage::default() };
    let (file, salvage) = match &archived.rows {
        RowsV2::Partial(_) => (state_file.to_owned(), all_lost),
        RowsV2::Sealed { file, pin, overlay } => match SectionFile::open_damaged(disk, file, Some(*pin)) {
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
