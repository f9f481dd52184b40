//! Fields where rows move and where files are damaged.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::change::Change;
use super::fields::place;
use super::survey::survey;
use super::tests::{NAMESPACE, add, key};
use super::tests_crash::{Content, open, write_all};
use super::*;
use crate::config::Fsync;
use crate::disk::format::is_chunk_name;
use crate::disk::sim::SimDisk;

const ELEMENTS: u32 = 700;

fn name(at: u32) -> Bytes {
    Bytes::from(format!("e{at}"))
}

/// A vector of three dimensions for the field "wide" of the key "k".
fn in_field(at: u32, seed: u32) -> Change {
    let vector = vec![1.0, f32::from(u16::try_from(at).unwrap()), f32::from(u16::try_from(seed).unwrap())];
    let field = Bytes::from_static(b"wide");
    Change::SetField { namespace: NAMESPACE, key: key("k"), element: name(at), field, vector, model: None }
}

/// A key with a field, in which three of four elements have a vector.
fn fill(store: &Store) -> Content {
    let Change::Add { mut params, .. } = add("k", "", 0, None) else { unreachable!() };
    params.declared = true;
    let field = Bytes::from_static(b"wide");
    let (namespace, own) = (NAMESPACE, key("k"));
    let mut changes = vec![
        Change::Create { namespace, key: own.clone(), params, model: None },
        Change::CreateField { namespace, key: own, field, dim: 3 },
    ];
    changes.extend((0..ELEMENTS).map(|at| add("k", &format!("e{at}"), at, Some(at.to_string()))));
    changes.extend((0..ELEMENTS).filter(|at| at % 4 > 0).map(|at| in_field(at, 0)));
    write_all(store, &changes).unwrap();
    Content::default().with(&changes)
}

#[test]
fn fields_are_compacted_beside_their_elements() {
    let disk = SimDisk::new();
    let store = open(&disk, Fsync::No).unwrap();
    let mut content = fill(&store);
    for round in 1..30 {
        let mut changes: Vec<Change> = (0..ELEMENTS).map(|at| in_field(at, round)).collect();
        let (namespace, element) = (NAMESPACE, name(round));
        changes.push(Change::Remove { namespace, key: key("k"), element: element.clone() });
        changes.push(add("k", &format!("e{round}"), round, Some("back".to_owned())));
        changes.push(Change::ExpireElement { namespace, key: key("k"), element, at_ms: Some(u64::MAX) });
        write_all(&store, &changes).unwrap();
        content = content.with(&changes);
        if round % 8 == 0 {
            store.checkpoint().unwrap();
        }
        assert!(Content::of(&store.snapshot()).unwrap() == content, "round {round}");
    }
    store.checkpoint().unwrap();
    assert!(store.checkpoints().compactions.load(Ordering::Relaxed) > 0);
    let field = place(NAMESPACE, &key("k"), b"wide");
    let rows = store.snapshot().get(field.0, &field.1).unwrap().rows();
    assert!(rows < 2100, "{rows} rows for 700 vectors, 21,000 written");
    store.stop().unwrap();
    let recovered = recovery::recover(&disk, &LoadStats::default()).unwrap();
    assert!(Content::of(&recovered.snapshot).unwrap() == content);
}

#[test]
fn what_is_left_of_damaged_fields_and_elements_belongs_together() {
    let disk = SimDisk::new();
    let store = open(&disk, Fsync::No).unwrap();
    let whole = fill(&store);
    store.checkpoint().unwrap();
    // After the checkpoint: an update that the damage must not undo.
    let late = [in_field(1, 9)];
    write_all(&store, &late).unwrap();
    store.stop().unwrap();
    let whole = whole.with(&late);
    let image = disk.image();
    let chunks: Vec<String> = disk.names().into_iter().filter(|name| is_chunk_name(name)).collect();
    assert!(chunks.len() > 2, "{chunks:?}");
    for file in &chunks {
        let copy = image.after_kill();
        let mut bytes = copy.read(file).unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[64..middle].fill(0xa5);
        copy.put(file, &bytes);
        let found = survey(&copy, true, &mut |_| {}).unwrap();
        assert!(found.damages.iter().any(|damage| damage.file == *file), "{file}: {:?}", found.damages);
        assert!(found.damages.iter().all(|damage| damage.key.as_deref().is_none_or(|key| key == b"k")));
        // Reading it compares each vector of the field with its element.
        let left = Content::of(&found.snapshot).unwrap();
        assert!(left != whole);
        assert!(found.snapshot.get(NAMESPACE, &key("k")).is_some());
    }
}
