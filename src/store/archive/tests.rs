//! Entries of collections: in pieces, and refused where they do not fit together.

use bytes::Bytes;
use rkyv::util::AlignedVec;

use super::*;
use crate::collection::documents::Span;
use crate::collection::sparse::encode as encode_sparse;
use crate::collection::{AttributeChange, Encoded, TextChange};
use crate::disk::sim::SimDisk;
use crate::document::Kind;
use crate::store::checkpoint::write_chunk;
use crate::vector::{Layout, Metric, Quantization};

const SMALL_BYTES: usize = 512;
const ELEMENTS: u32 = 40;

fn empty(uid: u64) -> Collection {
    let layout = Layout { dim: 2, metric: Metric::L2, quantization: Quantization::Int8 };
    Collection::new(uid, Params::new(layout))
}

fn put(collection: &mut Collection, name: &str) {
    let encoded = Encoded::new(&collection.params, &[1.0, 2.0]);
    let (attributes, text) = (AttributeChange::Keep, TextChange::Keep);
    collection.put(name.as_bytes(), &[1.0, 2.0], &encoded, &attributes, &text);
}

/// A sealed chunk with changes since, a chunk that grows, and much of everything else.
fn large(disk: &SimDisk, uid: u64) -> Collection {
    let mut collection = empty(uid);
    (0..ELEMENTS).for_each(|at| put(&mut collection, &format!("u{at}#0")));
    collection.close_grown(0);
    let chunk = Arc::clone(&collection.chunks[0]);
    let arrays = ArraysV2::copy(&chunk, collection.params.row_shape()).unwrap();
    let rows = write_chunk(disk, &collection, chunk.number, &arrays, chunk.len).unwrap();
    collection.adopt(chunk.number, Arc::new(Rows::Sealed(rows)), &chunk.overlay);
    for at in 0..ELEMENTS {
        let uri = format!("u{at}");
        let element = format!("{uri}#0");
        let attributes = Attributes::from(format!("{{\"n\":{at}}}").as_bytes());
        collection.set_attributes(element.as_bytes(), Some(Arc::clone(&attributes)));
        collection.expire_element(element.as_bytes(), Some(u64::from(at) + 1));
        let document = Document {
            hash: [3; 32],
            kind: Kind::Text,
            chunk_tokens: 1,
            overlap_tokens: 2,
            text_bytes: at,
            attributes: Some(attributes),
            spans: vec![Span { number: 0, start: 1, end: 2, tokens: 3 }],
        };
        collection.set_document(uri.as_bytes(), Some(document.into()));
        let other = format!("s{at}");
        put(&mut collection, &other);
        let weight = f32::from(u16::try_from(at + 1).unwrap());
        let sparse = encode_sparse(vec![(b"term", weight), (uri.as_bytes(), 1.0)]).unwrap();
        assert!(collection.set_sparse(other.as_bytes(), &sparse));
    }
    collection
}

/// Name, vector, attributes, expiry and sparse vector of each element, in the order of rows.
type Elements = Vec<(Vec<u8>, Vec<f32>, Option<Vec<u8>>, Option<u64>, Option<Vec<u8>>)>;

fn elements(collection: &Collection) -> Elements {
    let one = |row| {
        (
            collection.name(row).to_vec(),
            collection.vector(row).unwrap().into_owned(),
            collection.attributes(row).map(<[u8]>::to_vec),
            collection.expiries().get(row),
            collection.sparse(row).unwrap().map(<[u8]>::to_vec),
        )
    };
    collection.live_rows().map(one).collect()
}

fn documents(collection: &Collection) -> Vec<(Vec<u8>, Document)> {
    collection.documents().iter().map(|(uri, found)| (uri.to_vec(), Document::clone(found))).collect()
}

fn key(name: &'static str) -> Key {
    Key::new(Bytes::from_static(name.as_bytes()))
}

fn entries_of(name: &'static str, collection: &Collection) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    write_collection(NamespaceId(0), &key(name), collection, |entry| {
        entries.push(entry.to_vec());
        Ok(())
    })
    .unwrap();
    entries
}

fn aligned(entry: &[u8]) -> AlignedVec {
    let mut aligned = AlignedVec::new();
    aligned.extend_from_slice(entry);
    aligned
}

fn restore<'a>(
    disk: &SimDisk,
    entries: impl IntoIterator<Item = &'a Vec<u8>>,
) -> Result<Snapshot, StoreError> {
    let load = LoadStats::default();
    let mut restorer = Restorer::new(disk, &load);
    restorer.entry(&aligned(&encode_head(&Snapshot::at(0, 8))?))?;
    for entry in entries {
        restorer.entry(&aligned(entry))?;
    }
    restorer.finish(1)
}

fn is_refused(disk: &SimDisk, entries: &[Vec<u8>]) -> bool {
    matches!(restore(disk, entries), Err(StoreError::State(_)))
}

#[test]
fn collections_that_are_there_already_are_refused() {
    let disk = SimDisk::new();
    let both = |name: &'static str, uid: u64| {
        [entries_of("a", &empty(3)), entries_of(name, &empty(uid)), entries_of("last", &empty(7))].concat()
    };
    for (name, uid) in [("b", 3), ("b", 2), ("a", 4), ("b", 8)] {
        assert!(is_refused(&disk, &both(name, uid)), "{name} {uid}");
    }
    assert_eq!(restore(&disk, &both("b", 4)).unwrap().key_count(NamespaceId(0)), 3);
}

#[test]
fn a_collection_whose_next_chunk_is_there_already_is_refused() {
    let disk = SimDisk::new();
    let mut collection = empty(1);
    put(&mut collection, "e");
    restore(&disk, &entries_of("k", &collection)).unwrap();
    collection.next_chunk = 0;
    assert!(is_refused(&disk, &entries_of("k", &collection)));
}

#[test]
fn a_large_collection_is_written_in_small_pieces_and_comes_back_as_it_was() {
    let disk = SimDisk::new();
    let collection = large(&disk, 1);
    let entries = entries_of("k", &collection);
    let chunks = collection.chunks.len();
    assert_eq!(chunks, 2);
    // What grows without bound is in many entries, each of them small.
    let small = entries.iter().filter(|entry| entry.len() <= SMALL_BYTES).count();
    assert!(small >= 30 && entries.len() - small <= chunks, "{small} of {}", entries.len());
    let all = [entries, entries_of("empty", &empty(2)), entries_of("next", &large(&disk, 3))].concat();
    let snapshot = restore(&disk, &all).unwrap();
    for name in ["k", "next"] {
        let found = snapshot.get(NamespaceId(0), &key(name)).unwrap();
        assert_eq!(elements(found), elements(&collection));
        assert_eq!(documents(found), documents(&collection));
        assert_eq!(documents(found).len(), ELEMENTS as usize);
    }
    assert!(snapshot.get(NamespaceId(0), &key("empty")).unwrap().is_empty());
}

#[test]
fn pieces_that_are_missing_doubled_or_elsewhere_are_refused() {
    let disk = SimDisk::new();
    let entries = entries_of("k", &large(&disk, 1));
    let others = entries_of("other", &large(&disk, 2));
    restore(&disk, entries.iter().chain(&others)).unwrap();
    for at in 0..entries.len() {
        let mut missing = entries.clone();
        missing.remove(at);
        assert!(is_refused(&disk, &missing), "without entry {at}");
        assert!(is_refused(&disk, &[&missing[..], &others[..]].concat()), "without entry {at}, and another");
        let mut doubled = entries.clone();
        doubled.insert(at, entries[at].clone());
        assert!(is_refused(&disk, &doubled), "entry {at} twice");
        let mut exchanged = entries.clone();
        exchanged.swap(at, (at + 1) % entries.len());
        assert!(is_refused(&disk, &exchanged), "entry {at} behind the next");
        let mut mixed = entries.clone();
        mixed[at] = others[at].clone();
        assert!(is_refused(&disk, &mixed), "entry {at} of another collection");
    }
}

#[test]
fn attributes_of_a_chunk_that_is_not_sealed_or_not_there_are_refused() {
    let disk = SimDisk::new();
    let sealed = large(&disk, 1);
    for number in [0, 9] {
        let mut growing = empty(1);
        growing.next_chunk = number;
        put(&mut growing, "e");
        // In the place of the sealed chunk, which has number 0.
        let mut entries = entries_of("k", &sealed);
        entries[1] = entries_of("k", &growing).remove(1);
        assert!(is_refused(&disk, &entries), "{number}");
    }
}

/// Salvages what is left of entries: the collections, and how many errors there were.
fn salvage(disk: &SimDisk, entries: &[Vec<u8>]) -> (Vec<SalvagedCollection>, usize) {
    let mut salvager = Salvager::new(disk, "state", VERSION);
    let mut found: Vec<_> = entries.iter().map(|entry| salvager.entry(&aligned(entry))).collect();
    found.push(salvager.finish());
    let errors = found.iter().filter(|found| found.is_err()).count();
    (found.into_iter().filter_map(Result::unwrap_or_default).collect(), errors)
}

#[test]
fn of_a_collection_with_lost_pieces_the_others_are_kept() {
    let disk = SimDisk::new();
    let collection = large(&disk, 1);
    let entries = entries_of("k", &collection);
    let others = entries_of("other", &large(&disk, 2));
    for at in 1..entries.len() {
        let mut left = entries.clone();
        left.remove(at);
        let (found, _) = salvage(&disk, &[&left[..], &others[..]].concat());
        let [found, other] = &found[..] else { panic!("there are two collections") };
        assert!(found.lost_pieces > 0 && other.lost_pieces == 0);
        assert_eq!(elements(&other.collection), elements(&collection));
        if at > 2 {
            // Both chunks are there.
            assert_eq!(found.lost_pieces, 1);
            assert_eq!(found.collection.len(), collection.len());
            let same = elements(&found.collection).into_iter().zip(elements(&collection));
            let changed = same.filter(|(found, whole)| found != whole).count();
            let lost_documents = documents(&collection).len() - found.documents.len();
            assert!((1..=6).contains(&(changed + lost_documents)), "{changed}, {lost_documents}");
        }
    }
    // Without the first entry nothing of it can be used, and that is told once.
    let (found, errors) = salvage(&disk, &[&entries[1..], &others[..]].concat());
    assert_eq!((found.len(), errors), (1, 1));
    assert_eq!(found[0].key, key("other"));
}
