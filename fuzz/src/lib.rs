//! What the fuzz targets share: a disk in memory, a small data set, and edits.
//!
//! Random bytes never pass a checksum. So the targets for files begin with good data and edit it, before checksums are made
//! (to reach the code behind them) and after (to see that they detect it).

use std::collections::BTreeMap;

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use vecdis::collection::{AttributeChange, Attributes, Collection, GraphWish, Params, TextChange};
use vecdis::store::change::{Change, begin_payload};
use vecdis::store::state::{Key, NamespaceId, Snapshot, State};
use vecdis::vector::{Layout, Metric, Quantization};

mod memory_disk;

pub use memory_disk::MemoryDisk;

/// One edit of one of several pieces of data.
#[derive(Arbitrary, Debug)]
pub struct Edit {
    piece: u8,
    at: u16,
    action: Action,
}

#[derive(Arbitrary, Debug)]
enum Action {
    Flip(u8),
    Set8(u8),
    Set32(u32),
    Set64(u64),
    Delete(u8),
    Cut,
    Insert(Vec<u8>),
    Replace(Vec<u8>),
}

/// Applies edits. Places beyond a piece are taken as places in it.
pub fn edit(pieces: &mut [&mut Vec<u8>], edits: &[Edit]) {
    let count = pieces.len();
    for Edit { piece, at, action } in edits {
        let bytes = &mut *pieces[usize::from(*piece) % count];
        let at = usize::from(*at) % (bytes.len() + 1);
        let mut set = |new: &[u8]| bytes[at..].iter_mut().zip(new).for_each(|(old, new)| *old = *new);
        match action {
            Action::Flip(bit) => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << (bit % 8)),
            Action::Set8(value) => set(&[*value]),
            Action::Set32(value) => set(&value.to_le_bytes()),
            Action::Set64(value) => set(&value.to_le_bytes()),
            Action::Delete(count) => drop(bytes.drain(at..(at + usize::from(*count)).min(bytes.len()))),
            Action::Cut => bytes.truncate(at),
            Action::Insert(new) => drop(bytes.splice(at..at, new.iter().copied())),
            Action::Replace(new) => bytes.clone_from(new),
        }
    }
}

const NAMESPACE: NamespaceId = NamespaceId(0);

fn key(name: &'static str) -> Key {
    Key::new(Bytes::from_static(name.as_bytes()))
}

/// The collections of the data set: their keys and parameters.
fn collections() -> Vec<(Key, Params)> {
    let params = |dim, metric, quantization| Params::new(Layout { dim, metric, quantization });
    vec![
        (key("int8"), params(3, Metric::Cosine, Quantization::Int8)),
        (key("coded"), Params { raw: false, ..params(2, Metric::L2, Quantization::Int8) }),
        (key("floats"), params(2, Metric::Ip, Quantization::F32)),
        (key("bits"), Params { declared: true, ..params(9, Metric::Cosine, Quantization::Bin) }),
    ]
}

/// Payloads of log records, of every kind of change.
pub fn payloads() -> Vec<Vec<u8>> {
    let mut groups = Vec::new();
    for (key, params) in collections() {
        groups.push(vec![Change::Create { namespace: NAMESPACE, key: key.clone(), params, model: None }]);
        for at in 0..6_u8 {
            groups.push(vec![Change::Add {
                namespace: NAMESPACE,
                key: key.clone(),
                params,
                element: Bytes::from(format!("e{}", at % 5)),
                vector: (0..params.layout.dim).map(|n| f32::from(at) - n as f32).collect(),
                attributes: match at {
                    0 => AttributeChange::Keep,
                    1 => AttributeChange::Set(None),
                    _ => AttributeChange::Set(Some(Attributes::from(&br#"{"n":1}"#[..]))),
                },
                text: match at {
                    0 => TextChange::Keep,
                    1 => TextChange::Set(None),
                    _ => TextChange::Set(Some((*b"a text").into())),
                },
                model: None,
            }]);
        }
        let element = |name: &'static str| Bytes::from_static(name.as_bytes());
        groups.push(vec![
            Change::Remove { namespace: NAMESPACE, key: key.clone(), element: element("e1") },
            Change::SetAttributes {
                namespace: NAMESPACE,
                key: key.clone(),
                element: element("e2"),
                attributes: None,
            },
            Change::Expire { namespace: NAMESPACE, key: key.clone(), at_ms: Some(u64::MAX / 2) },
            Change::WishGraph { namespace: NAMESPACE, key: key.clone(), wish: GraphWish::Build },
        ]);
    }
    let other = NamespaceId(1);
    let (from, to) = (key("from"), key("to"));
    groups.push(vec![Change::Create {
        namespace: other,
        key: from.clone(),
        params: collections()[0].1,
        model: None,
    }]);
    groups.push(vec![Change::Rename { namespace: other, key: from, to: to.clone() }]);
    groups.push(vec![Change::Drop { namespace: other, key: to }, Change::Flush { namespace: other }]);
    let encode = |changes: Vec<Change>| {
        let mut payload = Vec::new();
        begin_payload(&mut payload);
        changes.iter().for_each(|change| change.encode(&mut payload));
        payload
    };
    groups.into_iter().map(encode).collect()
}

/// The data set after all [`payloads`]; half of its collections have sealed chunks once they are written.
pub fn snapshot() -> Snapshot {
    let mut state = State::new(Snapshot::default());
    for payload in payloads() {
        for change in vecdis::store::change::decode_payload(&payload).expect("good") {
            state.apply(&change, None);
        }
    }
    for name in ["int8", "floats"] {
        state.collection_mut(NAMESPACE, &key(name)).expect("it is there").close_grown(1);
    }
    state.set_sequence(7);
    let mut published = None;
    state.publish(|snapshot| published = Some(snapshot));
    Snapshot::clone(&published.expect("published"))
}

/// Attributes and the bits of the vector of an element; no vector where its file is damaged.
pub type Element = (Option<Vec<u8>>, Option<Vec<u32>>);

/// All that a client can see of a snapshot, by namespace, key and element.
pub fn dump(snapshot: &Snapshot) -> BTreeMap<(u32, Vec<u8>), (Option<u64>, BTreeMap<Vec<u8>, Element>)> {
    let collections = snapshot.collections();
    collections
        .map(|(namespace, key, collection)| {
            ((namespace.0, key.name().to_vec()), (collection.expires_ms, elements(collection)))
        })
        .collect()
}

fn elements(collection: &Collection) -> BTreeMap<Vec<u8>, Element> {
    let one = |row| {
        let vector = collection.vector(row).ok();
        let bits = vector.map(|vector| vector.iter().map(|component| component.to_bits()).collect());
        // Codes and scalars are what searches read.
        let _ = collection.encoded(row);
        (collection.name(row).to_vec(), (collection.attributes(row).map(<[u8]>::to_vec), bits))
    };
    collection.live_rows().map(one).collect()
}
