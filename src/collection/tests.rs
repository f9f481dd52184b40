//! Versions of a collection against a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::search::{SearchRequest, search};
use super::*;
use crate::collection::filter::Filter;
use crate::vector::{Quantization, Query};

const DIM: usize = 8;

pub(super) fn params(quantization: Quantization) -> Params {
    Params::new(Layout { dim: DIM, metric: Metric::Cosine, quantization })
}

fn vector(seed: u32) -> Vec<f32> {
    // Directions around a handful of centres, from a small generator of its own.
    let mut state = u64::from(seed) * 2 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        f32::from(u16::try_from(state >> 48).unwrap()) / 65_536.0 - 0.5
    };
    (0..DIM).map(|at| if at == seed as usize % 5 { 2.0 } else { next() }).collect()
}

pub(super) type Model = BTreeMap<String, (u32, Option<String>)>;

pub(super) fn put(
    collection: &mut Collection,
    model: &mut Model,
    name: &str,
    seed: u32,
    attributes: Option<Option<String>>,
) {
    let change = match &attributes {
        None => AttributeChange::Keep,
        Some(value) => AttributeChange::Set(value.as_deref().map(|text| Attributes::from(text.as_bytes()))),
    };
    let vector = vector(seed);
    let encoded = Encoded::new(&collection.params, &vector);
    let new = collection.put(name.as_bytes(), &vector, &encoded, &change, &TextChange::Keep);
    assert_eq!(new, !model.contains_key(name));
    let entry = model.entry(name.to_owned()).or_insert((seed, None));
    entry.0 = seed;
    if let Some(attributes) = attributes {
        entry.1 = attributes;
    }
}

/// Publishes: the table catches up, and a clone is what readers keep.
pub(super) fn publish(collection: &mut Collection) -> Collection {
    let (table, pending) = collection.take_pending();
    table.write().unwrap().apply(&pending);
    collection.clone()
}

pub(super) fn check(collection: &Collection, model: &Model) {
    assert_eq!(collection.len(), model.len());
    let with_attributes = model.values().filter(|(_, attributes)| attributes.is_some()).count();
    assert_eq!(collection.attributes_count, with_attributes as u64);
    for (name, (seed, attributes)) in model {
        let Found::Row(row) = collection.find(name.as_bytes()) else { panic!("{name} is there") };
        assert_eq!(collection.name(row), name.as_bytes());
        assert_eq!(&*collection.vector(row).unwrap(), &vector(*seed)[..]);
        assert_eq!(collection.attributes(row), attributes.as_deref().map(str::as_bytes));
    }
    for name in ["nobody", ""] {
        assert_eq!(collection.find(name.as_bytes()), Found::Absent);
    }
}

fn names(hits: &search::Hits, collection: &Collection) -> Vec<String> {
    let hits = hits.as_ref().unwrap();
    hits.iter().map(|hit| String::from_utf8(collection.name(hit.row).to_vec()).unwrap()).collect()
}

fn request(collection: &Arc<Collection>, seed: u32, filter: Option<&str>, exact: bool) -> SearchRequest {
    SearchRequest {
        collection: Arc::clone(collection),
        query: Query::new(&collection.params.layout, &vector(seed)),
        count: 5,
        effort: 0,
        exact,
        filter: filter.map(|text| Arc::new(Filter::parse(text.as_bytes()).unwrap())),
        trace: None,
    }
}

/// The best five by brute force in f64, as scores.
fn best_scores(model: &Model, seed: u32, wanted: impl Fn(Option<&str>) -> bool) -> Vec<f64> {
    let cosine = |a: &[f32], b: &[f32]| {
        let dot =
            |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let query = vector(seed);
    let passing = model.values().filter(|(_, attributes)| wanted(attributes.as_deref()));
    let mut scores: Vec<f64> = passing.map(|(seed, _)| cosine(&query, &vector(*seed))).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.truncate(5);
    scores
}

fn check_search(collection: &Arc<Collection>, model: &Model) {
    let even = |attributes: Option<&str>| attributes == Some("{\"even\":1}");
    let requests = [
        request(collection, 3, None, false),
        request(collection, 4, None, true),
        request(collection, 5, Some(".even == 1"), false),
    ];
    let hits = search(requests.into());
    let expected =
        [best_scores(model, 3, |_| true), best_scores(model, 4, |_| true), best_scores(model, 5, even)];
    for (hits, expected) in hits.iter().zip(expected) {
        let scores: Vec<f64> = hits.as_ref().unwrap().iter().map(|hit| f64::from(hit.score)).collect();
        assert_eq!(scores.len(), expected.len());
        assert!(scores.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{scores:?} {expected:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, u32, Option<Option<bool>>),
    Remove(u8),
    SetAttributes(u8, Option<bool>),
    Publish,
}

fn step() -> impl Strategy<Value = Step> {
    let attributes = || proptest::option::of(any::<bool>());
    prop_oneof![
        6 => (any::<u8>(), 0..1000u32, proptest::option::of(attributes())).prop_map(|(n, s, a)| Step::Put(n, s, a)),
        2 => any::<u8>().prop_map(Step::Remove),
        2 => (any::<u8>(), attributes()).prop_map(|(n, a)| Step::SetAttributes(n, a)),
        1 => Just(Step::Publish),
    ]
}

fn attribute_text(even: bool) -> String {
    if even { "{\"even\":1}".to_owned() } else { "{\"even\":0}".to_owned() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn versions_equal_a_map(steps in proptest::collection::vec(step(), 1..400)) {
        let mut collection = Collection::new(0, params(Quantization::Int8));
        let mut model = Model::new();
        let mut published: Vec<(Arc<Collection>, Model)> = Vec::new();
        for step in steps {
            match step {
                Step::Put(name, seed, attributes) => {
                    let attributes = attributes.map(|value| value.map(attribute_text));
                    put(&mut collection, &mut model, &format!("e{name}"), seed, attributes);
                }
                Step::Remove(name) => {
                    let name = format!("e{name}");
                    prop_assert_eq!(collection.remove(name.as_bytes()), model.remove(&name).is_some());
                }
                Step::SetAttributes(name, value) => {
                    let name = format!("e{name}");
                    let value = value.map(attribute_text);
                    let shared = value.as_deref().map(|text| Attributes::from(text.as_bytes()));
                    let set = collection.set_attributes(name.as_bytes(), shared);
                    prop_assert_eq!(set, model.contains_key(&name));
                    if let Some(entry) = model.get_mut(&name) {
                        entry.1 = value;
                    }
                }
                Step::Publish => published.push((Arc::new(publish(&mut collection)), model.clone())),
            }
        }
        check(&collection, &model);
        published.push((Arc::new(publish(&mut collection)), model));
        // Old versions still find what they had, or know that they are too old to tell.
        for (version, model) in &published {
            prop_assert_eq!(version.len(), model.len());
            check_search(version, model);
        }
        let (newest, model) = published.pop().unwrap();
        check(&newest, &model);
        // One pass for searches on different versions.
        if let Some((old, old_model)) = published.first() {
            let hits = search(vec![request(&newest, 7, None, false), request(old, 7, None, false)]);
            prop_assert_eq!(hits[0].as_ref().unwrap().len(), model.len().min(5));
            let names = names(&hits[1], old);
            prop_assert!(names.iter().all(|name| old_model.contains_key(name)));
            prop_assert_eq!(names.len(), old_model.len().min(5));
        }
    }
}

#[test]
fn an_old_version_knows_when_it_is_stale() {
    let mut collection = Collection::new(0, params(Quantization::Int8));
    let mut model = Model::new();
    put(&mut collection, &mut model, "a", 1, None);
    let old = publish(&mut collection);
    put(&mut collection, &mut model, "a", 2, None);
    assert!(matches!(old.find(b"a"), Found::Row(_)), "not published yet");
    let new = publish(&mut collection);
    assert_eq!(old.find(b"a"), Found::Stale);
    assert!(matches!(new.find(b"a"), Found::Row(_)));
}

#[test]
fn full_chunks_are_followed_by_new_ones_and_attributes_make_no_rows() {
    for quantization in [Quantization::Int8, Quantization::F32, Quantization::Bin] {
        let mut collection = Collection::new(0, params(quantization));
        let mut model = Model::new();
        for seed in 0..1500 {
            put(&mut collection, &mut model, &format!("e{seed}"), seed, None);
        }
        assert!(collection.chunks.len() > 1);
        let rows = collection.rows();
        for seed in 0..1500u32 {
            let name = format!("e{seed}");
            let text = attribute_text(seed % 2 == 0);
            collection.set_attributes(name.as_bytes(), Some(Attributes::from(text.as_bytes())));
            model.get_mut(&name).unwrap().1 = Some(text);
        }
        assert_eq!(collection.rows(), rows);
        check(&collection, &model);
        if quantization != Quantization::Bin {
            check_search(&Arc::new(publish(&mut collection)), &model);
        }
    }
}
