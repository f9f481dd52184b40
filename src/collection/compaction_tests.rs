//! Chunks rewritten while the collection changes.

use super::super::tests::{Model, check, params, publish, put};
use super::*;
use crate::collection::sealed::SealedRows;
use crate::collection::{AttributeChange, Found, TextChange};
use crate::disk::sections::{SectionFile, write_sections};
use crate::disk::sim::SimDisk;
use crate::vector::Quantization;

fn text(value: u32) -> Option<Option<String>> {
    Some(Some(value.to_string()))
}

/// A collection of one closed chunk in which every third row is dead.
fn worn(quantization: Quantization) -> (Collection, Model) {
    let (mut collection, mut model) = (Collection::new(1, params(quantization)), Model::new());
    for seed in 0..120 {
        put(&mut collection, &mut model, &format!("e{seed}"), seed, text(seed).filter(|_| seed % 2 == 0));
    }
    for seed in (0..120).step_by(3) {
        let name = format!("e{seed}");
        assert!(collection.remove(name.as_bytes()));
        model.remove(&name);
    }
    collection.close_grown(0);
    publish(&mut collection);
    (collection, model)
}

fn replace(collection: &mut Collection, numbers: &[u32], number: u32, moved: Moved) {
    let (rows, index, from) = moved.into_memory(&collection.params).unwrap();
    assert!(collection.replace_chunks(numbers, number, (Arc::new(rows), index), &from));
    publish(collection);
}

#[test]
fn a_worn_chunk_is_rewritten_without_its_dead_rows() {
    for quantization in [Quantization::Int8, Quantization::F32, Quantization::Bin] {
        let (mut collection, model) = worn(quantization);
        let numbers = plan(&collection, 20);
        assert_eq!(numbers, [0]);
        let number = collection.begin_compaction(&numbers);
        let moved = gather(&collection, &numbers).unwrap();
        replace(&mut collection, &numbers, number, moved);
        check(&collection, &model);
        assert_eq!((collection.rows(), collection.len()), (80, 80));
        assert!(plan(&collection, 20).is_empty());
    }
}

#[test]
fn what_changes_meanwhile_is_changed_in_the_new_chunk() {
    let (mut collection, mut model) = worn(Quantization::Int8);
    let before = collection.clone();
    let numbers = plan(&collection, 20);
    let number = collection.begin_compaction(&numbers);
    let moved = gather(&collection, &numbers).unwrap();
    // Removed, replaced, given other attributes, stripped of them, added.
    assert!(collection.remove(b"e1"));
    model.remove("e1");
    put(&mut collection, &mut model, "e2", 777, None);
    for (name, attributes) in [("e4", Some("new")), ("e8", None)] {
        assert!(collection.set_attributes(name.as_bytes(), attributes.map(|text| text.as_bytes().into())));
        model.get_mut(name).unwrap().1 = attributes.map(str::to_owned);
    }
    put(&mut collection, &mut model, "later", 5, text(1));
    publish(&mut collection);
    replace(&mut collection, &numbers, number, moved);
    check(&collection, &model);
    // The chunk of what was added meanwhile and the new one are both open; more can be added.
    put(&mut collection, &mut model, "last", 6, None);
    publish(&mut collection);
    check(&collection, &model);
    // A reader of the version before is told that it is too old.
    assert_eq!(before.find(b"e5"), Found::Stale);
    assert_eq!(before.len(), 80);
}

#[test]
fn elements_that_go_by_themselves_do_so_from_the_new_chunk() {
    let (mut collection, _) = worn(Quantization::Int8);
    for (name, at_ms) in [("e1", 60), ("e2", 50), ("e4", 70), ("e5", 40)] {
        assert!(collection.expire_element(name.as_bytes(), Some(at_ms)));
    }
    let numbers = plan(&collection, 20);
    let number = collection.begin_compaction(&numbers);
    let moved = gather(&collection, &numbers).unwrap();
    assert!(collection.remove(b"e1"));
    assert!(collection.expire_element(b"e4", None));
    assert!(collection.expire_element(b"e5", Some(45)));
    publish(&mut collection);
    replace(&mut collection, &numbers, number, moved);
    assert!(collection.expiries().iter().all(|(row, _)| row.chunk() == number));
    assert_eq!(collection.expired(100).collect::<Vec<_>>(), ["e5", "e2"]);
    let mut masked = collection.clone();
    masked.mask_expired(45);
    assert_eq!((masked.find(b"e5"), masked.len()), (Found::Absent, collection.len() - 1));
    assert_eq!(masked.expiries().next_after_ms(45), Some(50));
}

#[test]
fn a_chunk_in_which_nothing_lives_goes_away() {
    let (mut collection, model) = worn(Quantization::Int8);
    for name in model.keys() {
        assert!(collection.remove(name.as_bytes()));
    }
    publish(&mut collection);
    let numbers = plan(&collection, 20);
    let number = collection.begin_compaction(&numbers);
    let moved = gather(&collection, &numbers).unwrap();
    replace(&mut collection, &numbers, number, moved);
    assert!(collection.chunks.is_empty() && collection.is_empty());
    let mut again = Model::new();
    put(&mut collection, &mut again, "e1", 1, None);
    publish(&mut collection);
    check(&collection, &again);
}

#[test]
fn a_chunk_that_grows_is_rewritten_when_half_of_it_is_dead() {
    let (mut collection, mut model) = (Collection::new(1, params(Quantization::Int8)), Model::new());
    for seed in 0..40 {
        put(&mut collection, &mut model, &format!("e{}", seed % 20), seed, None);
    }
    publish(&mut collection);
    assert_eq!(plan(&collection, 20), [0]);
    assert!(plan(&collection, 0).is_empty(), "0 means never");
    let number = collection.begin_compaction(&[0]);
    let moved = gather(&collection, &[0]).unwrap();
    replace(&mut collection, &[0], number, moved);
    let change = AttributeChange::Keep;
    let vector = vec![0.5; 8];
    let encoded = crate::collection::Encoded::new(&collection.params, &vector);
    collection.put(b"one more", &vector, &encoded, &change, &TextChange::Keep);
    assert_eq!(collection.chunks.len(), 1, "the rewritten chunk grows on");
    assert_eq!(collection.rows(), 21);
}

#[test]
fn chunks_that_are_gone_are_not_replaced() {
    let (mut collection, model) = worn(Quantization::Int8);
    let number = collection.begin_compaction(&[0]);
    let moved = gather(&collection, &[0]).unwrap();
    let again = gather(&collection, &[0]).unwrap();
    replace(&mut collection, &[0], number, moved);
    let (rows, index, from) = again.into_memory(&collection.params).unwrap();
    assert!(!collection.replace_chunks(&[0], number + 1, (Arc::new(rows), index), &from));
    check(&collection, &model);
}

#[test]
fn short_chunks_with_long_attributes_are_not_made_one_chunk_too_large_for_its_file() {
    let disk = SimDisk::new();
    let sealed = |long: usize| {
        let (mut collection, mut model) = (Collection::new(1, params(Quantization::Int8)), Model::new());
        for seed in 0..8 {
            let attributes = "x".repeat(long);
            put(&mut collection, &mut model, &format!("e{seed}"), seed, Some(Some(attributes)));
            collection.close_grown(0);
            let number = seed;
            let chunk = Arc::clone(collection.chunks.last().unwrap());
            assert_eq!(chunk.number, number);
            let shape = collection.params.row_shape();
            let arrays = ArraysV2::copy(&chunk, shape).unwrap();
            let name = format!("chunks/{long}-{number}.vdc");
            let pin = write_sections(&disk, &name, &arrays.sections(shape)).unwrap();
            let file = SectionFile::open(&disk, &name, Some(pin)).unwrap();
            let rows = SealedRows::open(file, shape, chunk.len).unwrap();
            assert!(collection.adopt(number, Arc::new(Rows::Sealed(rows)), &chunk.overlay));
        }
        publish(&mut collection);
        collection
    };
    assert_eq!(plan(&sealed(10), 20), [0, 1, 2, 3, 4, 5, 6, 7]);
    // Four of them are worth it, and all are too many.
    assert_eq!(plan(&sealed(MAX_STRING_BYTES / 5), 20), [0, 1, 2, 3]);
    assert!(plan(&sealed(MAX_STRING_BYTES / 4), 20).is_empty());
}
