//! Data folders of earlier versions of the state file, kept in `tests/fixtures`: they open with all they held.

use std::path::Path;

use bytes::Bytes;

use super::change::Change;
use super::tests::{NAMESPACE, add, key, open};
use super::tests_crash::{Content, Step, write_all};
use super::*;
use crate::collection::documents::{Document, Span};
use crate::collection::sparse::encode;
use crate::collection::{Attributes, GraphWish};
use crate::disk::RealDisk;
use crate::document::Kind;

fn goes(name: &str, element: &'static str, at_ms: u64) -> Change {
    Change::ExpireElement {
        namespace: NAMESPACE,
        key: key(name),
        element: element.into(),
        at_ms: Some(at_ms),
    }
}

fn sparse(name: &str, element: &'static str, terms: Vec<(&[u8], f32)>) -> Change {
    let sparse = encode(terms).unwrap();
    Change::SetSparse { namespace: NAMESPACE, key: key(name), element: element.into(), sparse }
}

fn attributes(name: &str, element: &'static str, value: Option<&str>) -> Change {
    let attributes = value.map(|value| Attributes::from(value.as_bytes()));
    Change::SetAttributes { namespace: NAMESPACE, key: key(name), element: element.into(), attributes }
}

fn document(name: &str, uri: &'static str, numbers: &[u32], attributes: Option<&str>) -> Change {
    let span = |&number: &u32| Span { number, start: number * 5, end: number * 5 + 7, tokens: 2 };
    let document = Document {
        hash: [9; 32],
        kind: Kind::Markdown,
        chunk_tokens: 64,
        overlap_tokens: 2,
        text_bytes: 40,
        attributes: attributes.map(|value| Attributes::from(value.as_bytes())),
        spans: numbers.iter().map(span).collect(),
    };
    let (namespace, key, uri) = (NAMESPACE, key(name), Bytes::from_static(uri.as_bytes()));
    Change::SetDocument { namespace, key, uri, document: Some(document.into()) }
}

fn field_vector(name: &str, element: &'static str, vector: &[f32]) -> Change {
    let (key, field, vector) = (key(name), Bytes::from_static(b"title"), vector.to_vec());
    Change::SetField { namespace: NAMESPACE, key, element: element.into(), field, vector, model: None }
}

/// Everything that a state file of version 6 can hold: a sealed chunk with changes since, partial chunks, a field,
/// documents, sparse vectors, expiries; and a log after it.
fn written_in_version_6() -> Vec<Step> {
    use Step::{Checkpoint, Write};
    let many = |name: &str, elements: std::ops::Range<u32>| {
        let one = |at: u32| {
            add(name, &format!("e{at}"), at, (!at.is_multiple_of(3)).then(|| format!("{{\"n\":{at}}}")))
        };
        Write(elements.map(one).collect())
    };
    let Change::Add { mut params, .. } = add("", "", 0, None) else { unreachable!() };
    params.declared = true;
    let create = Change::Create { namespace: NAMESPACE, key: key("empty"), params, model: None };
    let field =
        Change::CreateField { namespace: NAMESPACE, key: key("sealed"), field: "title".into(), dim: 2 };
    vec![
        many("sealed", 0..150),
        Write(vec![
            field,
            field_vector("sealed", "e1", &[1.0, 2.0]),
            field_vector("sealed", "e2", &[3.0, -4.0]),
        ]),
        Write(vec![add("sealed", "e3", 3, None), sparse("sealed", "e3", vec![(b"x", 1.0), (b"yy", 0.5)])]),
        Write(vec![add("sealed", "u#0", 1, None), add("sealed", "u#1", 2, None)]),
        Write(vec![document("sealed", "u", &[0, 1], Some("{\"d\":1}"))]),
        Write(vec![goes("sealed", "e5", u64::MAX), goes("sealed", "e7", u64::MAX - 1)]),
        Checkpoint,
        Write(vec![attributes("sealed", "e4", Some("changed")), attributes("sealed", "e8", None)]),
        Write(vec![add("sealed", "v#3", 7, Some("{}".to_owned())), document("sealed", "v", &[3], None)]),
        Write(vec![add("sealed", "e9", 900, None), goes("sealed", "e9", u64::MAX - 2)]),
        Write(vec![add("partial", "p", 4, None), sparse("partial", "p", vec![(b"z", 2.0)])]),
        Write(vec![
            Change::Remove { namespace: NAMESPACE, key: key("sealed"), element: "e11".into() },
            create,
        ]),
        Write(vec![Change::WishGraph { namespace: NAMESPACE, key: key("partial"), wish: GraphWish::Build }]),
        Checkpoint,
        Write(vec![add("partial", "q", 5, Some("logged".to_owned()))]),
        Write(vec![attributes("sealed", "e10", Some("logged too"))]),
    ]
}

/// Writes the folder anew, in the format of the program it runs in, to the path in VECDIS_FIXTURE.
#[test]
#[ignore = "writes a fixture"]
fn write_a_data_folder_with_everything() {
    let folder = std::env::var("VECDIS_FIXTURE").unwrap();
    let store = open(Path::new(&folder), true);
    for step in written_in_version_6() {
        match step {
            Step::Write(changes) => write_all(&store, &changes).unwrap(),
            Step::Checkpoint => store.checkpoint().unwrap(),
        }
    }
    store.stop().unwrap();
}

#[test]
fn a_folder_of_version_6_opens_with_all_it_held() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-6");
    let disk = RealDisk::open_read_only(&folder).unwrap();
    let recovered = recovery::recover(&disk, &LoadStats::default()).unwrap();
    let mut expected = Content::default();
    for step in written_in_version_6() {
        if let Step::Write(changes) = step {
            expected = expected.with(&changes);
        }
    }
    assert_eq!(Content::of(&recovered.snapshot).unwrap(), expected);
    let survey = survey::survey(&disk, false, &mut |_| {}).unwrap();
    assert!(survey.damages.is_empty(), "{:?}", survey.damages);
    assert_eq!(Content::of(&survey.snapshot).unwrap(), expected);
}
