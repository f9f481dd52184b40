use std::collections::BTreeMap;

use super::*;
use crate::collection::{AttributeChange, Attributes, Encoded, Params, TextChange};
use crate::vector::{Layout, Metric, Quantization};

type Model = BTreeMap<String, BTreeMap<String, f32>>;

/// Numbers from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// Few different weights, so that scores tie; sums of them are exact.
    fn vector(&mut self, most: u64) -> BTreeMap<String, f32> {
        let count = self.below(most + 1);
        let weight = |number: u64| f32::from(u8::try_from(number).unwrap()) / 4.0;
        (0..count).map(|_| (format!("t{}", self.below(40)), weight(1 + self.below(8)))).collect()
    }
}

fn encoded(vector: &BTreeMap<String, f32>) -> Sparse {
    encode(vector.iter().rev().map(|(term, weight)| (term.as_bytes(), *weight)).collect()).unwrap()
}

fn new() -> Collection {
    let layout = Layout { dim: 8, metric: Metric::L2, quantization: Quantization::Int8 };
    Collection::new(1, Params::new(layout))
}

fn put(collection: &mut Collection, name: &str, even: bool) {
    let vector = [1.0; 8];
    let codes = Encoded::new(&collection.params, &vector);
    let attributes = Attributes::from(if even { &b"{\"even\":1}"[..] } else { b"{}" });
    let attributes = AttributeChange::Set(Some(attributes));
    collection.put(name.as_bytes(), &vector, &codes, &attributes, &TextChange::Keep);
}

fn check(collection: &Collection, model: &Model, query: &BTreeMap<String, f32>, count: usize, even: bool) {
    let filter = even.then(|| Arc::new(Filter::parse(b".even").unwrap()));
    let request =
        SparseRequest { collection: Arc::new(collection.clone()), query: encoded(query), count, filter };
    let name = |row| String::from_utf8(collection.name(row).to_vec()).unwrap();
    let found: Vec<_> = request.run().unwrap().into_iter().map(|(score, row)| (score, name(row))).collect();
    let is_even = |name: &str| name.ends_with(['0', '2', '4', '6', '8']);
    let mut expected = Vec::new();
    for (name, vector) in model.iter().filter(|(name, _)| !even || is_even(name)) {
        let shared =
            query.iter().filter_map(|(term, a)| vector.get(term).map(|b| f64::from(*a) * f64::from(*b)));
        let score: f64 = shared.sum();
        if score > 0.0 {
            expected.push((score, name.clone()));
        }
    }
    expected.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    expected.truncate(count);
    assert_eq!(found, expected);
}

#[test]
fn searches_find_what_a_plain_map_finds_in_every_version() {
    let mut numbers = Numbers(7);
    let (mut collection, mut model) = (new(), Model::new());
    let mut versions = Vec::new();
    for step in 0..2500 {
        let at = numbers.below(700);
        let name = format!("e{at}");
        match numbers.below(10) {
            0 => {
                collection.remove(name.as_bytes());
                model.remove(&name);
            }
            // Carried over.
            1 => {
                put(&mut collection, &name, at.is_multiple_of(2));
                model.entry(name).or_default();
            }
            _ => {
                put(&mut collection, &name, at.is_multiple_of(2));
                let vector = numbers.vector(6);
                assert!(collection.set_sparse(name.as_bytes(), &encoded(&vector)));
                model.insert(name, vector);
            }
        }
        if step % 250 == 249 {
            let (table, pending) = collection.take_pending();
            table.write().unwrap().apply(&pending);
            versions.push((collection.clone(), model.clone()));
        }
        // Indexes grow between searches.
        if step % 100 == 50 {
            check(&collection, &model, &numbers.vector(3), 10, false);
        }
    }
    assert!(collection.chunks.len() > 2);
    for (version, model) in &versions {
        for (count, even) in [(1, false), (10, false), (10, true), (1000, false), (1000, true)] {
            check(version, model, &numbers.vector(5), count, even);
        }
    }
    assert!(collection.size_bytes() > new().size_bytes());
}

#[test]
fn sparse_vectors_are_kept_in_one_order_without_zeros() {
    let one = encode(vec![(b"b", 1.0), (b"a", 0.5), (b"c", 0.0)]).unwrap();
    assert_eq!(terms(&one).collect::<Vec<_>>(), [(&b"a"[..], 0.5), (b"b", 1.0)]);
    assert!(is_sound(&one) && is_sound(b""));
    assert!(encode(Vec::new()).unwrap().is_empty());
    for cut in 1..one.len() {
        assert_eq!(is_sound(&one[..cut]), cut == 6, "{cut}");
    }
    assert!(!is_sound(&encode(vec![(b"a", 1.0)]).unwrap().repeat(2)));
}

#[test]
fn what_is_no_sparse_vector_is_refused() {
    let long = [b'x'; MAX_TERM_BYTES + 1];
    let names: Vec<String> = (0..=MAX_TERMS).map(|at| at.to_string()).collect();
    for (terms, error) in [
        (vec![(&b"a"[..], -1.0)], SparseError::Weight),
        (vec![(b"a", f32::NAN)], SparseError::Weight),
        (vec![(b"a", f32::INFINITY)], SparseError::Weight),
        (vec![(b"", 1.0)], SparseError::Term),
        (vec![(&long, 1.0)], SparseError::Term),
        (vec![(b"a", 1.0), (b"b", 1.0), (b"a", 2.0)], SparseError::Twice),
        (names.iter().map(|name| (name.as_bytes(), 1.0)).collect(), SparseError::TooMany),
    ] {
        assert_eq!(encode(terms), Err(error));
    }
    assert!(encode(vec![(&long[1..], 1.0)]).is_ok());
}
