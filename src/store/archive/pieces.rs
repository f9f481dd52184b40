//! A collection in the state file: a first entry and then entries of pieces, since version 7. An rkyv entry holds 2 GiB at
//! most, because its pointers have 32 bits, and a collection may be larger; a piece never is.
//!
//! Pieces are numbered from 0, and the first entry says how many there are; so one that is missing, that comes twice or out of
//! order, or that is of another collection is noticed. Each is written as soon as it is encoded.

use rkyv::rancor;

use super::{ChunkV2, CollectionV2, CollectionV3, CollectionV4, CollectionV6, RowsV2};
use super::{archive_chunk, decode_whole, encode, unreadable};
use crate::collection::documents::Document;
use crate::collection::sparse::Sparse;
use crate::collection::{Attributes, Chunk, Collection, Params, RowId, Rows};
use crate::store::StoreError;
use crate::store::params::ParamsV1;
use crate::store::state::{Key, NamespaceId};

/// The version that began with pieces.
const FIRST_VERSION: u64 = 7;
/// Bytes that the items of a piece have together at most, unless a single one has more. A chunk is a piece of its own: what
/// is not sealed of it is small when a checkpoint is taken.
const MAX_PIECE_BYTES: usize = if cfg!(test) { 160 } else { 16 << 20 };
/// Bytes counted for an item besides its strings.
const ITEM_BYTES: usize = 32;

/// An entry behind the head.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum EntryV7 {
    /// The first of a collection, and how many pieces follow. Its chunks come as pieces too.
    Collection { base: Box<CollectionV2>, pieces: u64 },
    /// A piece of the collection of that number.
    Piece { uid: u64, number: u64, part: PartV7 },
}

/// What a piece holds.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
enum PartV7 {
    /// A chunk, without overlay.
    Chunk(ChunkV2),
    /// Attributes changed since a chunk was sealed.
    Overlay { chunk: u32, changed: Vec<(u16, Option<Vec<u8>>)> },
    /// As in [`CollectionV3`].
    Expiries(Vec<(u64, u64)>),
    /// As in [`CollectionV4`].
    Sparse(Vec<(u64, Vec<u8>)>),
    /// As in [`CollectionV6`].
    Documents(Vec<(Vec<u8>, Vec<u8>)>),
}

/// What becomes a piece.
enum Part<'a> {
    Chunk(&'a Chunk),
    Overlay(u32, Vec<(u16, &'a Option<Attributes>)>),
    Expiries(Vec<(RowId, u64)>),
    Sparse(Vec<(RowId, &'a Sparse)>),
    Documents(Vec<(&'a [u8], &'a Document)>),
}

/// Hands the entries of one collection to `write`, one after the other. Chunks that are neither sealed nor partial do not
/// exist at a checkpoint.
///
/// # Errors
/// What `write` returns, or when rows in memory are too many for one entry.
pub fn write_collection(
    namespace: NamespaceId,
    key: &Key,
    collection: &Collection,
    mut write: impl FnMut(&[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let base = CollectionV2 {
        namespace: namespace.0,
        key: key.name().to_vec(),
        uid: collection.uid,
        stamp: collection.stamp,
        expires_ms: collection.expires_ms,
        params: ParamsV1::from(&collection.params),
        model: collection.model.as_ref().map(|model| (model.name.clone(), model.hash)),
        next_chunk: collection.next_chunk,
        chunks: Vec::new(),
    };
    let pieces = parts(collection).count() as u64;
    write(&encode(&EntryV7::Collection { base: Box::new(base), pieces })?)?;
    for (number, part) in (0..).zip(parts(collection)) {
        let part = part.archive(&collection.params)?;
        write(&encode(&EntryV7::Piece { uid: collection.uid, number, part })?)?;
    }
    Ok(())
}

/// A collection as the parts that become its pieces.
fn parts(collection: &Collection) -> impl Iterator<Item = Part<'_>> {
    let chunks = || collection.chunks.iter().map(|chunk| &**chunk);
    let sealed = chunks().filter(|chunk| matches!(*chunk.rows, Rows::Sealed(_)));
    let overlays = sealed.flat_map(|chunk| {
        let changed = chunk.overlay.iter().map(|(offset, value)| (*offset, value));
        let runs = runs(changed, |(_, value)| value.as_ref().map_or(0, |value| value.len()));
        runs.map(|run| Part::Overlay(chunk.number, run))
    });
    let expiries = runs(collection.expiries().iter(), |_| 0).map(Part::Expiries);
    let of_live = chunks().flat_map(|chunk| {
        let of_live = chunk.sparse.iter().filter(|(offset, _)| chunk.is_live(**offset));
        of_live.map(|(offset, sparse)| (RowId::new(chunk.number, *offset), sparse))
    });
    let sparse = runs(of_live, |(_, sparse)| sparse.len()).map(Part::Sparse);
    let documents = collection.documents().iter().map(|(uri, document)| (uri, &**document));
    let documents = runs(documents, |(uri, document)| uri.len() + document.encoded_bytes());
    let documents = documents.map(Part::Documents);
    chunks().map(Part::Chunk).chain(overlays).chain(expiries).chain(sparse).chain(documents)
}

/// Cuts items into runs that have [`MAX_PIECE_BYTES`] together at most, or are of one item. `size_bytes` is that of an item's
/// strings.
fn runs<T>(items: impl Iterator<Item = T>, size_bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        let mut run = vec![items.next()?];
        let mut room = MAX_PIECE_BYTES.checked_sub(ITEM_BYTES + size_bytes(&run[0]));
        let mut fits = |item: &T| {
            room = room.and_then(|room| room.checked_sub(ITEM_BYTES + size_bytes(item)));
            room.is_some()
        };
        while let Some(item) = items.next_if(&mut fits) {
            run.push(item);
        }
        Some(run)
    })
}

impl Part<'_> {
    fn archive(self, params: &Params) -> Result<PartV7, StoreError> {
        Ok(match self {
            Self::Chunk(chunk) => PartV7::Chunk(archive_chunk(chunk, params)?),
            Self::Overlay(chunk, run) => {
                let owned = |value: &Option<Attributes>| value.as_deref().map(<[u8]>::to_vec);
                let changed = run.into_iter().map(|(offset, value)| (offset, owned(value))).collect();
                PartV7::Overlay { chunk, changed }
            }
            Self::Expiries(run) => {
                PartV7::Expiries(run.into_iter().map(|(row, at_ms)| (row.0, at_ms)).collect())
            }
            Self::Sparse(run) => {
                PartV7::Sparse(run.into_iter().map(|(row, sparse)| (row.0, sparse.to_vec())).collect())
            }
            Self::Documents(run) => {
                let one = |(uri, document): (&[u8], &Document)| (uri.to_vec(), document.encode());
                PartV7::Documents(run.into_iter().map(one).collect())
            }
        })
    }
}

/// Puts collections together again from the entries behind the head.
pub(super) struct Gatherer {
    version: u64,
    begun: Option<Begun>,
}

/// A collection whose first entry has come.
struct Begun {
    collection: CollectionV6,
    pieces: u64,
    /// Pieces that have come.
    taken: u64,
    /// The least number that the next piece may have.
    next: u64,
}

/// A collection of which no more pieces will come.
pub(super) struct Gathered {
    pub collection: CollectionV6,
    /// How many have not come.
    pub lost_pieces: u64,
}

/// What an entry is.
pub(super) enum Entry {
    /// The first of a collection: what came before is all there is of the one before it.
    First(Option<Box<Gathered>>),
    /// A piece, which has been taken.
    Piece,
    /// A piece of the collection of this number, whose first entry is not the last one that came.
    Stray(u64),
}

impl Gatherer {
    /// `version` is that of the entries.
    pub(super) fn new(version: u64) -> Self {
        Self { version, begun: None }
    }

    /// Takes the next entry. Entries before version 7 are whole collections.
    ///
    /// # Errors
    /// When it cannot be read, or is a piece that does not belong there: it is left out then.
    pub(super) fn entry(&mut self, entry: &[u8]) -> Result<Entry, StoreError> {
        let (collection, pieces) = if self.version < FIRST_VERSION {
            (decode_whole(self.version, entry)?, 0)
        } else {
            match rkyv::from_bytes::<EntryV7, rancor::Error>(entry).map_err(unreadable)? {
                EntryV7::Collection { base, pieces } => {
                    (CollectionV4::from(CollectionV3::from(*base)).into(), pieces)
                }
                EntryV7::Piece { uid, number, part } => return self.piece(uid, number, part),
            }
        };
        let begun = Begun { collection, pieces, taken: 0, next: 0 };
        Ok(Entry::First(self.begun.replace(begun).map(|before| Box::new(before.end()))))
    }

    fn piece(&mut self, uid: u64, number: u64, part: PartV7) -> Result<Entry, StoreError> {
        let Some(begun) = self.begun.as_mut().filter(|begun| begun.collection.base.base.base.uid == uid)
        else {
            return Ok(Entry::Stray(uid));
        };
        if !(begun.next..begun.pieces).contains(&number) {
            return Err(StoreError::State("the pieces of a collection are out of order".to_owned()));
        }
        begun.next = number + 1;
        begun.collection.add(part)?;
        begun.taken += 1;
        Ok(Entry::Piece)
    }

    /// The last collection, after the last entry.
    pub(super) fn finish(&mut self) -> Option<Gathered> {
        self.begun.take().map(Begun::end)
    }
}

impl Begun {
    fn end(self) -> Gathered {
        Gathered { collection: self.collection, lost_pieces: self.pieces - self.taken }
    }
}

impl CollectionV6 {
    fn add(&mut self, part: PartV7) -> Result<(), StoreError> {
        let chunks = &mut self.base.base.base.chunks;
        match part {
            PartV7::Chunk(chunk) => chunks.push(chunk),
            PartV7::Overlay { chunk, changed } => {
                let found = chunks.binary_search_by_key(&chunk, |chunk| chunk.number);
                match found.map(|at| &mut chunks[at].rows) {
                    Ok(RowsV2::Sealed { overlay, .. }) => overlay.extend(changed),
                    _ => return Err(StoreError::State("attributes are of no sealed chunk".to_owned())),
                }
            }
            PartV7::Expiries(more) => self.base.base.expiries.extend(more),
            PartV7::Sparse(more) => self.base.sparse.extend(more),
            PartV7::Documents(more) => self.documents.extend(more),
        }
        Ok(())
    }
}
