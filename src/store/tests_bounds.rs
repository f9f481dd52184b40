//! Chunks with much besides their vectors: they are sealed in time, and what their files cannot hold is kept all the same.

use super::change::Change;
use super::state::Snapshot;
use super::tests::{NAMESPACE, add, key};
use super::tests_crash::{Content, open, write_all};
use super::*;
use crate::collection::compaction::plan;
use crate::collection::{Attributes, Chunk, MAX_CHUNK_ATTRIBUTE_BYTES, Rows, TextChange};
use crate::config::Fsync;
use crate::disk::sim::SimDisk;

/// How often it is looked whether chunks have been rewritten, a millisecond apart.
const COMPACTION_TRIES: u32 = 20_000;

fn chunks(snapshot: &Snapshot) -> &[Arc<Chunk>] {
    snapshot.get(NAMESPACE, &key("k")).map_or(&[], |collection| &collection.chunks)
}

fn is_sealed(chunk: &Chunk) -> bool {
    matches!(*chunk.rows, Rows::Sealed(_))
}

fn attributes(element: u32, value: Option<String>) -> Change {
    let attributes = value.map(|value| Attributes::from(value.as_bytes()));
    let (namespace, key, element) = (NAMESPACE, key("k"), format!("e{element}").into());
    Change::SetAttributes { namespace, key, element, attributes }
}

/// An element with that text.
fn with_text(element: &str, text: &str) -> Change {
    let mut change = add("k", element, 1, None);
    let Change::Add { text: change_text, .. } = &mut change else { unreachable!() };
    *change_text = TextChange::Set(Some(text.as_bytes().into()));
    change
}

#[test]
fn a_few_elements_with_much_besides_their_vectors_are_sealed_at_a_checkpoint() {
    let long = "x".repeat(state::MAX_PARTIAL_BYTES);
    let large = [
        ("attributes", vec![add("k", "e1", 1, None), attributes(1, Some(long.clone()))]),
        ("text", vec![with_text("e1", &long)]),
        ("name", vec![add("k", &long, 1, None)]),
    ];
    for (what, changes) in large {
        let disk = SimDisk::new();
        let store = open(&disk, Fsync::No).unwrap();
        write_all(&store, &[add("k", "small", 2, None)]).unwrap();
        store.checkpoint().unwrap();
        assert!(!is_sealed(&chunks(&store.snapshot())[0]));
        write_all(&store, &changes).unwrap();
        store.checkpoint().unwrap();
        assert!(is_sealed(&chunks(&store.snapshot())[0]), "{what}");
        // Attributes that are not there any more do not count.
        write_all(&store, &[add("k", "e2", 1, None), attributes(2, Some(long.clone())), attributes(2, None)])
            .unwrap();
        store.checkpoint().unwrap();
        assert!(!is_sealed(&chunks(&store.snapshot())[1]), "{what}");
        store.stop().unwrap();
    }
}

#[test]
fn attributes_that_a_chunks_file_has_no_room_for_stay_beside_it() {
    const ELEMENTS: u32 = 40;
    let (disk, mut content) = (SimDisk::new(), Content::default());
    let store = open(&disk, Fsync::Always).unwrap();
    let write = |store: &Store, content: &mut Content, changes: &[Change]| {
        write_all(store, changes).unwrap();
        *content = content.with(changes);
    };
    let value = |seed: u32| Some(seed.to_string().repeat(MAX_CHUNK_ATTRIBUTE_BYTES / 8));
    // Set one after the other, when the rows are there already: no new row meets a full chunk.
    let adds: Vec<_> = (0..ELEMENTS).map(|at| add("k", &format!("e{at}"), at, None)).collect();
    write(&store, &mut content, &adds);
    let long: Vec<_> = (0..ELEMENTS).map(|at| attributes(at, value(at % 10))).collect();
    write(&store, &mut content, &long);
    // It takes no more rows.
    write(&store, &mut content, &[add("k", "late", 1, None)]);
    assert_eq!(chunks(&store.snapshot()).len(), 2);
    store.checkpoint().unwrap();
    let kept_beside = |snapshot: &Snapshot| chunks(snapshot)[0].overlay.size_bytes();
    assert!(is_sealed(&chunks(&store.snapshot())[0]));
    assert!(kept_beside(&store.snapshot()) > 3 * MAX_CHUNK_ATTRIBUTE_BYTES);
    assert!(Content::of(&store.snapshot()).unwrap() == content);
    // Changed and removed, in the file and beside it.
    let edits =
        [attributes(0, value(3)), attributes(1, None), attributes(38, value(4)), attributes(39, None)];
    write(&store, &mut content, &edits);
    store.checkpoint().unwrap();
    store.stop().unwrap();
    let again = open(&disk, Fsync::Always).unwrap();
    assert!(Content::of(&again.snapshot()).unwrap() == content);
    // Rewritten without its dead rows.
    let remove =
        |at: u32| Change::Remove { namespace: NAMESPACE, key: key("k"), element: format!("e{at}").into() };
    let removals: Vec<_> = (10..32).map(remove).collect();
    write(&again, &mut content, &removals);
    let is_worn = || !plan(again.snapshot().get(NAMESPACE, &key("k")).unwrap(), 20).is_empty();
    for _ in 0..COMPACTION_TRIES {
        if !is_worn() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(!is_worn());
    again.checkpoint().unwrap();
    assert!(Content::of(&again.snapshot()).unwrap() == content);
    again.stop().unwrap();
    assert!(Content::of(&open(&disk, Fsync::Always).unwrap().snapshot()).unwrap() == content);
}
