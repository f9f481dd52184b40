//! The store against a plain map: random changes, searches, checkpoints, restarts, power cuts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;
use proptest::prelude::*;

use super::change::Change;
use super::state::{Applied, Key, NamespaceId};
use super::*;
use crate::collection::sparse::{SparseRequest, encode};
use crate::collection::{AttributeChange, Attributes, Collection, Found, Params, Rows, Text, TextChange};
use crate::config::Fsync;
use crate::disk::RealDisk;
use crate::disk::sim::SimDisk;
use crate::vector::{Layout, Metric, Quantization, Query};

const DIM: usize = 8;
pub(super) const NAMESPACE: NamespaceId = NamespaceId(0);

struct Ops<F> {
    run: Option<F>,
    done: Sender<Result<(), WriteError>>,
}

impl<F: FnOnce(&mut Txn<'_>) + Send> Job for Ops<F> {
    fn run(&mut self, txn: &mut Txn<'_>) {
        if let Some(run) = self.run.take() {
            run(txn);
        }
    }

    fn done(self: Box<Self>, outcome: Result<(), WriteError>) {
        drop(self.done.send(outcome));
    }
}

pub(super) fn write(
    store: &Store,
    run: impl FnOnce(&mut Txn<'_>) + Send + 'static,
) -> Result<(), WriteError> {
    let (done, outcome) = channel();
    store.write(Box::new(Ops { run: Some(run), done }));
    outcome.recv().unwrap()
}

pub(super) fn open(folder: &Path, appendonly: bool) -> Store {
    let disk = Arc::new(RealDisk::open(folder).unwrap());
    let config = Config { appendonly, search_threads: 1, ..Config::default() };
    let (store, loaded) = Store::start(disk, &config, &Arc::default());
    loaded.blocking_recv().unwrap().unwrap();
    store
}

pub(super) fn key(name: &str) -> Key {
    Key::new(Bytes::copy_from_slice(name.as_bytes()))
}

pub(super) fn vector(seed: u32) -> Vec<f32> {
    (0..DIM).map(|at| ((seed as f32 + 1.0) * (at as f32 + 1.3)).sin()).collect()
}

pub(super) fn add(name: &str, element: &str, seed: u32, attributes: Option<String>) -> Change {
    let layout = Layout { dim: DIM, metric: Metric::Cosine, quantization: Quantization::Int8 };
    // An element with attributes has a text too.
    let text = match &attributes {
        None => TextChange::Keep,
        Some(text) => TextChange::Set(Some(Text::from(format!("text {text}").as_bytes()))),
    };
    Change::Add {
        namespace: NAMESPACE,
        key: key(name),
        params: Params::new(layout),
        element: Bytes::copy_from_slice(element.as_bytes()),
        vector: vector(seed),
        attributes: match attributes {
            None => AttributeChange::Keep,
            Some(text) => AttributeChange::Set(Some(Attributes::from(text.as_bytes()))),
        },
        text,
        model: None,
    }
}

/// key -> element -> (seed of its vector, attributes)
type Model = BTreeMap<String, BTreeMap<String, (u32, Option<String>)>>;

fn check(store: &Store, model: &Model) {
    assert_eq!(store.snapshot().key_count(NAMESPACE), model.len());
    for (name, elements) in model {
        // Rows may be moved meanwhile; then the newest version is asked, as commands do.
        let collection = loop {
            let collection = Arc::clone(store.snapshot().get(NAMESPACE, &key(name)).unwrap());
            if check_elements(&collection, elements) {
                break collection;
            }
        };
        check_search(store, &collection, elements);
    }
}

/// False if the version is too old to tell.
fn check_elements(collection: &Collection, elements: &BTreeMap<String, (u32, Option<String>)>) -> bool {
    assert_eq!(collection.len(), elements.len());
    elements.iter().all(|(element, (seed, attributes))| {
        let row = match collection.find(element.as_bytes()) {
            Found::Row(row) => row,
            Found::Stale => return false,
            Found::Absent => panic!("{element} is not there"),
        };
        assert_eq!(&*collection.vector(row).unwrap(), &vector(*seed)[..]);
        assert_eq!(collection.attributes(row), attributes.as_deref().map(str::as_bytes));
        true
    })
}

/// Compares an exact search with brute force in f64.
fn check_search(
    store: &Store,
    collection: &Arc<Collection>,
    elements: &BTreeMap<String, (u32, Option<String>)>,
) {
    const COUNT: usize = 5;
    let asked = vector(1000);
    let query = Query::new(&collection.params.layout, &asked);
    let request = SearchRequest {
        collection: Arc::clone(collection),
        query,
        count: COUNT,
        effort: 0,
        exact: true,
        filter: None,
        trace: None,
    };
    let hits = store.search(vec![request]).remove(0).blocking_recv().unwrap().unwrap();
    let score = |element: &str| cosine(&asked, &vector(elements[element].0));
    let mut best: Vec<f64> = elements.keys().map(|element| score(element)).collect();
    best.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(hits.len(), elements.len().min(COUNT));
    for (hit, best) in hits.iter().zip(best) {
        let name = String::from_utf8(collection.name(hit.row).to_vec()).unwrap();
        let found = [f64::from(hit.score), score(&name)];
        assert!(found.iter().all(|found| (found - best).abs() < 1e-5), "{name}: {found:?}, not {best}");
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8, u8, u32, Option<u8>),
    AddMany(u8, u32),
    Remove(u8, u8),
    SetAttributes(u8, u8, Option<u8>),
    Drop(u8),
    Flush,
    Checkpoint,
    Restart,
    StopAndStart,
    PowerCut(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..3u8;
    prop_oneof![
        10 => (name(), any::<u8>(), 0..500u32, any::<Option<u8>>()).prop_map(|(k, e, s, a)| Step::Add(k, e, s, a)),
        4 => (name(), 0..500u32).prop_map(|(k, s)| Step::AddMany(k, s)),
        4 => (name(), any::<u8>()).prop_map(|(k, e)| Step::Remove(k, e)),
        4 => (name(), any::<u8>(), any::<Option<u8>>()).prop_map(|(k, e, a)| Step::SetAttributes(k, e, a)),
        1 => name().prop_map(Step::Drop),
        1 => Just(Step::Flush),
        2 => Just(Step::Checkpoint),
        2 => Just(Step::Restart),
        1 => Just(Step::StopAndStart),
        2 => any::<u64>().prop_map(Step::PowerCut),
    ]
}

fn remove(model: &mut Model, name: &str, element: &str) {
    if let Some(elements) = model.get_mut(name) {
        elements.remove(element);
        if elements.is_empty() {
            model.remove(name);
        }
    }
}

fn insert(model: &mut Model, name: &str, element: String, seed: u32, attributes: Option<String>) {
    let entry = model.entry(name.to_owned()).or_default().entry(element).or_insert((seed, None));
    entry.0 = seed;
    if attributes.is_some() {
        entry.1 = attributes;
    }
}

fn carry_out(store: &Store, model: &mut Model, step: &Step) {
    match *step {
        Step::Add(k, e, seed, attribute) => {
            let (name, element, attributes) =
                (format!("k{k}"), format!("e{e}"), attribute.map(|a| a.to_string()));
            let change = add(&name, &element, seed, attributes.clone());
            write(store, move |txn| {
                txn.apply(&change, None);
            })
            .unwrap();
            insert(model, &name, element, seed, attributes);
        }
        Step::AddMany(k, seed) => {
            let name = format!("k{k}");
            let changes: Vec<Change> =
                (0..200).map(|at| add(&name, &format!("e{at}"), seed + at, Some(at.to_string()))).collect();
            write(store, move |txn| {
                for change in &changes {
                    txn.apply(change, None);
                }
            })
            .unwrap();
            (0..200).for_each(|at| insert(model, &name, format!("e{at}"), seed + at, Some(at.to_string())));
        }
        Step::Remove(k, e) => {
            let (name, element) = (format!("k{k}"), format!("e{e}"));
            let change =
                Change::Remove { namespace: NAMESPACE, key: key(&name), element: element.clone().into() };
            write(store, move |txn| {
                txn.apply(&change, None);
            })
            .unwrap();
            remove(model, &name, &element);
        }
        Step::SetAttributes(k, e, attribute) => {
            let (name, element) = (format!("k{k}"), format!("e{e}"));
            let attributes = attribute.map(|a| a.to_string());
            let shared = attributes.as_deref().map(|text| Attributes::from(text.as_bytes()));
            let element_bytes = Bytes::from(element.clone());
            let change = Change::SetAttributes {
                namespace: NAMESPACE,
                key: key(&name),
                element: element_bytes,
                attributes: shared,
            };
            write(store, move |txn| {
                txn.apply(&change, None);
            })
            .unwrap();
            if let Some(entry) = model.get_mut(&name).and_then(|elements| elements.get_mut(&element)) {
                entry.1 = attributes;
            }
        }
        Step::Drop(k) => {
            let name = format!("k{k}");
            let change = Change::Drop { namespace: NAMESPACE, key: key(&name) };
            write(store, move |txn| {
                txn.apply(&change, None);
            })
            .unwrap();
            model.remove(&name);
        }
        Step::Flush => {
            write(store, |txn| {
                txn.apply(&Change::Flush { namespace: NAMESPACE }, None);
            })
            .unwrap();
            model.clear();
        }
        Step::Checkpoint => store.checkpoint().unwrap(),
        Step::Restart | Step::StopAndStart | Step::PowerCut(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn the_store_equals_a_map_across_checkpoints_restarts_and_power_cuts(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut disk = SimDisk::new();
        let mut store = tests_crash::open(&disk, Fsync::Always).unwrap();
        let mut model = Model::new();
        for step in &steps {
            let next = match step {
                Step::PowerCut(seed) => disk.image().after_power_cut(*seed),
                // The threads end without a checkpoint, as after a crash of the process.
                Step::Restart => disk.clone(),
                Step::StopAndStart => {
                    store.checkpoint().unwrap();
                    disk.clone()
                }
                step => {
                    carry_out(&store, &mut model, step);
                    continue;
                }
            };
            store.stop().unwrap();
            disk = next;
            store = tests_crash::open(&disk, Fsync::Always).unwrap();
            prop_assert!(!matches!(step, Step::StopAndStart) || store.load().records.load(Ordering::Relaxed) == 0);
            check(&store, &model);
        }
        check(&store, &model);
        store.stop().unwrap();
    }
}

#[test]
fn a_checkpoint_seals_closed_chunks_and_leaves_no_old_files() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), true);
    let mut model = Model::new();
    for seed in 0..12 {
        carry_out(&store, &mut model, &Step::AddMany(0, seed * 17));
        carry_out(&store, &mut model, &Step::SetAttributes(0, 9, Some(7)));
        store.checkpoint().unwrap();
    }
    let sealed = |store: &Store| {
        let snapshot = store.snapshot();
        let collection = snapshot.get(NAMESPACE, &key("k0")).unwrap();
        collection.chunks.iter().filter(|chunk| matches!(*chunk.rows, Rows::Sealed(_))).count()
    };
    assert!(sealed(&store) > 0, "chunks have been sealed");
    // Changes after sealing: attributes replaced, removed and kept; rows removed and replaced.
    for e in 0..50 {
        carry_out(&store, &mut model, &Step::SetAttributes(0, e, if e % 2 == 0 { None } else { Some(e) }));
        carry_out(&store, &mut model, &Step::Remove(0, e + 100));
        carry_out(&store, &mut model, &Step::Add(0, e + 30, u32::from(e), None));
    }
    check(&store, &model);
    store.checkpoint().unwrap();
    let names = |folder: &str| {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
            .unwrap_or_default();
        names.sort();
        names
    };
    let top = names(&folder.path().display().to_string());
    assert_eq!(top.iter().filter(|name| name.starts_with("state-")).count(), 1, "{top:?}");
    assert_eq!(top.iter().filter(|name| name.starts_with("log-")).count(), 1, "{top:?}");
    carry_out(&store, &mut model, &Step::Drop(0));
    carry_out(&store, &mut model, &Step::Add(1, 1, 1, None));
    store.checkpoint().unwrap();
    assert!(names(&folder.path().join("chunks").display().to_string()).is_empty());
    store.stop().unwrap();
    drop(store);
    check(&open(folder.path(), true), &model);
}

/// Writes a data folder of today's format for `tests/promises.rs`, which knows its content. To be run once for each
/// format version, with the new folder's path in VECDIS_FIXTURE.
#[test]
#[ignore = "writes a fixture"]
fn write_a_data_folder_to_keep() {
    let folder = std::env::var("VECDIS_FIXTURE").unwrap();
    let store = open(Path::new(&folder), true);
    let put = |name: &str, element: u16, shift: f32, attributes: Option<&str>| {
        let attributes = attributes.map(str::to_owned);
        let Change::Add { namespace, key, params, attributes, text, .. } = add(name, "", 0, attributes)
        else {
            unreachable!()
        };
        let vector = (0..8u16).map(|at| f32::from(element * 8 + at) - 700.0 + shift).collect();
        let element = format!("e{element}").into();
        write_one(
            &store,
            Change::Add { namespace, key, params, element, vector, attributes, text, model: None },
        );
    };
    (0..200).for_each(|element| put("sealed", element, 0.0, (element % 2 == 0).then_some("{\"n\":1}")));
    store.checkpoint().unwrap();
    (0..10).for_each(|element| put("sealed", element, 0.5, None));
    write_one(&store, Change::Remove { namespace: NAMESPACE, key: key("sealed"), element: "e10".into() });
    let attributes = Some(Attributes::from(&b"changed"[..]));
    let element = "e12".into();
    write_one(
        &store,
        Change::SetAttributes { namespace: NAMESPACE, key: key("sealed"), element, attributes },
    );
    (0..5).for_each(|element| put("partial", element, 0.0, None));
    store.checkpoint().unwrap();
    put("sealed", 20, 0.25, None);
    (0..5).for_each(|element| put("logged", element, 0.0, Some("new")));
    write_one(&store, Change::Rename { namespace: NAMESPACE, key: key("logged"), to: key("renamed") });
    store.stop().unwrap();
}

fn write_one(store: &Store, change: Change) {
    write(store, move |txn| {
        txn.apply(&change, None);
    })
    .unwrap();
}

#[test]
fn without_a_log_the_last_checkpoint_is_what_survives() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), false);
    let mut model = Model::new();
    carry_out(&store, &mut model, &Step::AddMany(0, 1));
    store.checkpoint().unwrap();
    carry_out(&store, &mut model.clone(), &Step::AddMany(1, 1));
    store.stop().unwrap();
    drop(store);
    // With a log again, what is added now is kept.
    let store = open(folder.path(), true);
    check(&store, &model);
    carry_out(&store, &mut model, &Step::AddMany(2, 9));
    store.stop().unwrap();
    drop(store);
    let store = open(folder.path(), true);
    assert!(store.load().records.load(Ordering::Relaxed) > 0);
    check(&store, &model);
}

#[test]
fn what_changes_nothing_is_not_logged() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), true);
    write(&store, |txn| {
        let nobody = Change::Remove { namespace: NAMESPACE, key: key("none"), element: Bytes::new() };
        assert_eq!(txn.apply(&nobody, None), Applied::No);
        assert_eq!(txn.apply(&Change::Flush { namespace: NAMESPACE }, None), Applied::No);
    })
    .unwrap();
    assert_eq!(store.snapshot().sequence, 0);
    store.stop().unwrap();
    assert!(matches!(write(&store, |_| {}), Err(WriteError::Stopped)));
}

#[test]
fn dead_rows_are_given_back_in_memory_and_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), true);
    let mut model = Model::new();
    let rounds = 40;
    for seed in 0..rounds {
        carry_out(&store, &mut model, &Step::AddMany(0, seed * 7));
        carry_out(&store, &mut model, &Step::AddMany(1, seed * 5));
        if seed % 8 == 0 {
            carry_out(&store, &mut model, &Step::Checkpoint);
        }
    }
    // The maintenance thread takes its tasks in order: what was due is done before this.
    store.checkpoint().unwrap();
    check(&store, &model);
    let rows: usize = store.snapshot().collections().map(|(_, _, collection)| collection.rows()).sum();
    assert!(store.checkpoints().compactions.load(Ordering::Relaxed) > 0);
    assert!(rows < 400 * 3, "{rows} rows for 400 elements, {} written", 400 * rounds);
    store.checkpoint().unwrap();
    store.stop().unwrap();
    drop(store);
    let store = open(folder.path(), true);
    assert_eq!(store.load().records.load(Ordering::Relaxed), 0);
    check(&store, &model);
}

fn goes(name: &str, element: &str, at_ms: u64) -> Change {
    let element = Bytes::copy_from_slice(element.as_bytes());
    Change::ExpireElement { namespace: NAMESPACE, key: key(name), element, at_ms: Some(at_ms) }
}

#[test]
fn elements_whose_time_is_over_are_hidden_at_once_and_stay_so_after_a_restart() {
    let disk = SimDisk::new();
    let seen = |store: &Store, now_ms: u64, element: &str| {
        let snapshot = store.snapshot_at(now_ms);
        let found =
            snapshot.get(NAMESPACE, &key("k")).map(|found| (found.find(element.as_bytes()), found.len()));
        match found {
            Some((Found::Row(_), len)) => (true, len),
            Some((Found::Absent, len)) => (false, len),
            Some((Found::Stale, _)) => panic!("nothing newer is published"),
            None => (false, 0),
        }
    };
    let open = |disk: &SimDisk| super::tests_crash::open(disk, Fsync::Always).unwrap();
    let store = open(&disk);
    let text = |element: &str| add("k", element, 1, Some("text".to_owned()));
    super::tests_crash::write_all(
        &store,
        &[text("a"), goes("k", "a", 100), text("b"), goes("k", "b", 200), text("c")],
    )
    .unwrap();
    for checkpointed in [false, true] {
        assert_eq!(seen(&store, 99, "a"), (true, 3));
        assert_eq!(seen(&store, 100, "a"), (false, 2));
        assert_eq!(seen(&store, 100, "b"), (true, 2));
        assert_eq!(seen(&store, 200, "b"), (false, 1));
        assert_eq!(seen(&store, 150, "b"), (true, 2));
        assert_eq!(seen(&store, 0, "a"), (true, 3));
        assert_eq!(store.snapshot_at(300).get(NAMESPACE, &key("k")).unwrap().attributes_count, 1);
        if !checkpointed {
            store.checkpoint().unwrap();
        }
    }
    write_one(&store, goes("k", "c", 300));
    assert!(store.snapshot_at(300).get(NAMESPACE, &key("k")).is_none());
    assert_eq!(store.snapshot_at(300).key_count(NAMESPACE), 0);
    // A new vector stays, and a removal is the end of it.
    write_one(&store, add("k", "a", 2, None));
    write_one(&store, Change::Remove { namespace: NAMESPACE, key: key("k"), element: "b".into() });
    for seed in 0..4 {
        let store = open(&disk.image().after_power_cut(seed));
        assert_eq!((seen(&store, 299, "a"), seen(&store, 300, "a")), ((true, 2), (true, 1)));
        assert_eq!((seen(&store, 299, "c"), seen(&store, 300, "c")), ((true, 2), (false, 1)));
        assert_eq!(seen(&store, 0, "b"), (false, 2));
    }
}

#[test]
fn sparse_vectors_are_found_in_sealed_chunks_after_a_restart_and_a_compaction() {
    let disk = SimDisk::new();
    let found = |store: &Store| {
        let collection = Arc::clone(store.snapshot().get(NAMESPACE, &key("k")).unwrap());
        let query = encode(vec![(b"common", 1.0), (b"t3", 2.0), (b"t5", 0.25)]).unwrap();
        let request = SparseRequest { collection: Arc::clone(&collection), query, count: 300, filter: None };
        let name = |row| String::from_utf8(collection.name(row).to_vec()).unwrap();
        let hits = request.run().unwrap();
        hits.into_iter().map(|(score, row)| (score, name(row))).collect::<Vec<_>>()
    };
    let store = super::tests_crash::open(&disk, Fsync::Always).unwrap();
    for at in 0..300u16 {
        let element = format!("e{at}");
        let term = format!("t{}", at % 7);
        let sparse = encode(vec![(b"common", f32::from(at + 1) / 8.0), (term.as_bytes(), 1.5)]).unwrap();
        let change = Change::SetSparse {
            namespace: NAMESPACE,
            key: key("k"),
            element: element.clone().into(),
            sparse,
        };
        super::tests_crash::write_all(&store, &[add("k", &element, at.into(), None), change]).unwrap();
    }
    store.checkpoint().unwrap();
    let sealed = |store: &Store| {
        let snapshot = store.snapshot();
        let chunks = &snapshot.get(NAMESPACE, &key("k")).unwrap().chunks;
        chunks.iter().filter(|chunk| matches!(*chunk.rows, Rows::Sealed(_))).count()
    };
    assert!(sealed(&store) > 0);
    let before = found(&store);
    assert_eq!(before.len(), 300);
    for at in (0..300).step_by(2) {
        let element = Bytes::from(format!("e{at}"));
        write_one(&store, Change::Remove { namespace: NAMESPACE, key: key("k"), element });
    }
    let kept: Vec<_> =
        before.into_iter().filter(|(_, name)| name.ends_with(['1', '3', '5', '7', '9'])).collect();
    assert_eq!(found(&store), kept);
    store.checkpoint().unwrap();
    assert_eq!(found(&store), kept);
    store.stop().unwrap();
    let store = super::tests_crash::open(&disk.image().after_power_cut(1), Fsync::Always).unwrap();
    assert_eq!(found(&store), kept);
}
