//! Crashes and failing disks: a scripted workload on a simulated disk, cut off after every operation, and with every
//! operation failing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::change::Change;
use super::state::{Key, Snapshot};
use super::tests::{NAMESPACE, add, key, write};
use super::*;
use crate::collection::documents::{Document, Span, chunk_name};
use crate::collection::sparse::encode;
use crate::collection::{AttributeChange, Attributes, Collection, GraphWish, TextChange};
use crate::config::Fsync;
use crate::disk::sim::{Fault, Moment, SimDisk};
use crate::document::Kind;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Ways to lose what was not durable, tried after every failure.
const POWER_CUTS: std::ops::Range<u64> = 0..6;
/// Ways to lose what was not durable, tried at every moment.
const POWER_CUTS_OF_A_MOMENT: std::ops::Range<u64> = 0..16;

/// How often a write is tried after a failure, a millisecond apart.
const RESUME_TRIES: u32 = 10_000;

/// What a store holds, in plain maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content(BTreeMap<Bytes, KeyContent>);

/// Vector, attributes, text, when it goes, and its sparse vector.
type Element = (Vec<f32>, Option<Vec<u8>>, Option<Vec<u8>>, Option<u64>, Vec<u8>);

#[derive(Clone, Debug, Default, PartialEq)]
struct KeyContent {
    declared: bool,
    wish: GraphWish,
    expires_ms: Option<u64>,
    elements: BTreeMap<Bytes, Element>,
    /// By field: elements and their vectors there.
    fields: BTreeMap<Bytes, BTreeMap<Bytes, Vec<f32>>>,
    /// The names of each document's chunks.
    documents: BTreeMap<Bytes, Vec<Bytes>>,
}

/// The vectors of a collection's fields. What a row shares with its element is compared here.
fn fields_of(
    fields: &[(&Bytes, &Arc<Collection>)],
    elements: &BTreeMap<Bytes, Element>,
) -> Result<BTreeMap<Bytes, BTreeMap<Bytes, Vec<f32>>>, CollectionError> {
    let mut content = BTreeMap::new();
    for (name, field) in fields {
        let mut vectors = BTreeMap::new();
        for row in field.live_rows() {
            let (_, attributes, _, expires_ms, _) = &elements[field.name(row)];
            assert_eq!(field.attributes(row), attributes.as_deref());
            assert_eq!(field.expiries().get(row), *expires_ms);
            let vector = field.vector(row)?.into_owned();
            vectors.insert(Bytes::copy_from_slice(field.name(row)), vector);
        }
        content.insert(Bytes::clone(name), vectors);
    }
    Ok(content)
}

/// A document's URI, and the names of its chunks.
fn names_of(uri: &[u8], document: &Document) -> (Bytes, Vec<Bytes>) {
    let names = document.spans.iter().map(|span| chunk_name(uri, span.number).into());
    (Bytes::copy_from_slice(uri), names.collect())
}

impl KeyContent {
    /// An element is no chunk any more.
    fn detach(&mut self, element: &Bytes) {
        self.documents.values_mut().for_each(|chunks| chunks.retain(|chunk| chunk != element));
        self.documents.retain(|_, chunks| !chunks.is_empty());
    }
}

fn name_of(key: &Key) -> Bytes {
    Bytes::copy_from_slice(key.name())
}

impl Content {
    /// Everything in a snapshot; an error if a file is damaged where it is read.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Self, CollectionError> {
        let mut keys = BTreeMap::new();
        let (mut fields, mut listed) = (0_usize, 0);
        for (namespace, key, collection) in snapshot.collections() {
            if namespace.holds_fields() {
                fields += 1;
                continue;
            }
            let mut content = KeyContent {
                declared: collection.params.declared,
                wish: collection.params.wish,
                expires_ms: collection.expires_ms,
                documents: collection.documents().iter().map(|(uri, found)| names_of(uri, found)).collect(),
                ..KeyContent::default()
            };
            for row in collection.live_rows() {
                let attributes = collection.attributes(row).map(<[u8]>::to_vec);
                let name = Bytes::copy_from_slice(collection.name(row));
                let text = collection.text(row)?.map(<[u8]>::to_vec);
                let vector = collection.vector(row)?.into_owned();
                let expires_ms = collection.expiries().get(row);
                let sparse = collection.sparse(row)?.unwrap_or_default().to_vec();
                content.elements.insert(name, (vector, attributes, text, expires_ms, sparse));
            }
            assert_eq!(content.elements.len(), collection.len());
            let of_key: Vec<_> = snapshot.fields(namespace, key).collect();
            content.fields = fields_of(&of_key, &content.elements)?;
            listed += of_key.len();
            keys.insert(name_of(key), content);
        }
        assert_eq!(fields, listed, "each field has its collection");
        Ok(Self(keys))
    }

    fn apply(&mut self, change: &Change) {
        match change.clone() {
            Change::Add { key, element, vector, attributes, text, .. } => {
                let content = self.0.entry(name_of(&key)).or_default();
                content.detach(&element);
                let entry = content.elements.entry(element).or_default();
                entry.0 = vector;
                if let AttributeChange::Set(value) = attributes {
                    entry.1 = value.map(|value| value.to_vec());
                }
                if let TextChange::Set(value) = text {
                    entry.2 = value.map(|value| value.to_vec());
                }
                entry.3 = None;
            }
            Change::Remove { key, element, .. } => {
                let name = name_of(&key);
                if let Some(content) = self.0.get_mut(&name) {
                    content.elements.remove(&element);
                    content.fields.values_mut().for_each(|field| drop(field.remove(&element)));
                    content.detach(&element);
                    if content.elements.is_empty() && !content.declared {
                        self.0.remove(&name);
                    }
                }
            }
            Change::SetAttributes { key, element, attributes, .. } => {
                let content = self.0.get_mut(&name_of(&key));
                if let Some(entry) = content.and_then(|content| content.elements.get_mut(&element)) {
                    entry.1 = attributes.map(|value| value.to_vec());
                }
            }
            Change::ExpireElement { key, element, at_ms, .. } => {
                let content = self.0.get_mut(&name_of(&key));
                if let Some(entry) = content.and_then(|content| content.elements.get_mut(&element)) {
                    entry.3 = at_ms;
                }
            }
            Change::SetSparse { key, element, sparse, .. } => {
                let content = self.0.get_mut(&name_of(&key));
                if let Some(entry) = content.and_then(|content| content.elements.get_mut(&element)) {
                    entry.4 = sparse.to_vec();
                }
            }
            Change::CreateField { key, field, .. } => {
                if let Some(content) = self.0.get_mut(&name_of(&key)) {
                    content.fields.entry(field).or_default();
                }
            }
            Change::SetField { key, element, field, vector, .. } => {
                let content = self.0.get_mut(&name_of(&key));
                let content = content.filter(|content| content.elements.contains_key(&element));
                if let Some(field) = content.and_then(|content| content.fields.get_mut(&field)) {
                    field.insert(element, vector);
                }
            }
            Change::SetDocument { key, uri, document, .. } => {
                if let Some(content) = self.0.get_mut(&name_of(&key)) {
                    content.documents.remove(&uri);
                    content.documents.extend(document.map(|document| names_of(&uri, &document)));
                }
            }
            Change::Drop { key, .. } => drop(self.0.remove(&name_of(&key))),
            Change::Create { key, params, .. } => {
                let empty = KeyContent { declared: params.declared, ..KeyContent::default() };
                self.0.entry(name_of(&key)).or_insert(empty);
            }
            Change::Expire { key, at_ms, .. } => {
                if let Some(content) = self.0.get_mut(&name_of(&key)) {
                    content.expires_ms = at_ms;
                }
            }
            Change::WishGraph { key, wish, .. } => {
                if let Some(content) = self.0.get_mut(&name_of(&key)) {
                    content.wish = wish;
                }
            }
            Change::Rename { key, to, .. } => {
                if let Some(content) = self.0.remove(&name_of(&key)) {
                    self.0.insert(name_of(&to), content);
                }
            }
            Change::Flush { .. } => self.0.clear(),
            Change::Users(_) => {}
        }
    }

    pub(super) fn with(&self, changes: &[Change]) -> Self {
        let mut next = self.clone();
        changes.iter().for_each(|change| next.apply(change));
        next
    }
}

/// A step of the workload.
pub(super) enum Step {
    /// The changes of one command or one transaction: one record.
    Write(Vec<Change>),
    Checkpoint,
}

/// Every kind of change; chunks sealed because they are full, and short ones at a checkpoint; rotations; changes of what
/// is sealed.
pub(super) fn workload() -> Vec<Step> {
    use Step::{Checkpoint, Write};
    let one = |name: &str, element: &str, seed| Write(vec![add(name, element, seed, None)]);
    let many = |name: &str, elements: std::ops::Range<u32>, seed: u32| {
        let adds = elements.map(|at| add(name, &format!("e{at}"), seed + at, Some(at.to_string())));
        Write(adds.collect())
    };
    let remove = |name: &str, element: &'static str| {
        Write(vec![Change::Remove { namespace: NAMESPACE, key: key(name), element: element.into() }])
    };
    let attributes = |name: &str, element: &'static str, value: Option<&str>| {
        let attributes = value.map(|value| Attributes::from(value.as_bytes()));
        let (namespace, key) = (NAMESPACE, key(name));
        Write(vec![Change::SetAttributes { namespace, key, element: element.into(), attributes }])
    };
    let rename = |name: &str, to: &str| {
        Write(vec![Change::Rename { namespace: NAMESPACE, key: key(name), to: key(to) }])
    };
    let create = |name: &str| {
        let Change::Add { mut params, .. } = add(name, "", 0, None) else { unreachable!() };
        params.declared = true;
        Write(vec![Change::Create { namespace: NAMESPACE, key: key(name), params, model: None }])
    };
    let expire =
        |name: &str, at_ms| Write(vec![Change::Expire { namespace: NAMESPACE, key: key(name), at_ms }]);
    let goes = |name: &str, element: &str, at_ms| {
        let (namespace, key) = (NAMESPACE, key(name));
        Change::ExpireElement { namespace, key, element: Bytes::copy_from_slice(element.as_bytes()), at_ms }
    };
    let sparse = |name: &str, element: &str, terms: Vec<(&[u8], f32)>| {
        let (namespace, key, sparse) = (NAMESPACE, key(name), encode(terms).unwrap());
        let element = Bytes::copy_from_slice(element.as_bytes());
        Change::SetSparse { namespace, key, element, sparse }
    };
    let field = |name: &str, field: &'static str, dim| Change::CreateField {
        namespace: NAMESPACE,
        key: key(name),
        field: field.into(),
        dim,
    };
    let field_vector = |name: &str, element: &str, field: &'static str, vector: &[f32]| {
        let element = Bytes::copy_from_slice(element.as_bytes());
        let (key, field, vector) = (key(name), field.into(), vector.to_vec());
        Change::SetField { namespace: NAMESPACE, key, element, field, vector, model: None }
    };
    let many_in_field = |name: &str, elements: std::ops::Range<u32>| {
        let vector = |at: u32| [f32::from(u16::try_from(at).unwrap()), 1.0, 0.5];
        Write(elements.map(|at| field_vector(name, &format!("e{at}"), "wide", &vector(at))).collect())
    };
    let document = |name: &str, uri: &'static str, numbers: &[u32]| {
        let spans = numbers.iter().map(|&number| Span { number, start: 0, end: 1, tokens: 1 }).collect();
        let document = Document {
            hash: [1; 32],
            kind: Kind::Text,
            chunk_tokens: 8,
            overlap_tokens: 0,
            text_bytes: 1,
            attributes: None,
            spans,
        };
        let (namespace, key, uri) = (NAMESPACE, key(name), Bytes::from_static(uri.as_bytes()));
        Change::SetDocument { namespace, key, uri, document: Some(document.into()) }
    };
    let wish =
        |name: &str, wish| Write(vec![Change::WishGraph { namespace: NAMESPACE, key: key(name), wish }]);
    let drop_key = |name: &str| Write(vec![Change::Drop { namespace: NAMESPACE, key: key(name) }]);
    vec![
        one("a", "x", 1),
        one("a", "y", 2),
        one("a", "x", 3),
        attributes("a", "y", Some("{}")),
        many("a", 0..150, 10),
        remove("a", "y"),
        Write(vec![
            add("a", "e3", 3, None),
            sparse("a", "e3", vec![(b"x", 1.0)]),
            add("a", "e8", 3, None),
            sparse("a", "e8", vec![(b"y", 0.5), (b"x", 2.0)]),
        ]),
        Write(vec![add("a", "u#0", 1, None), add("a", "u#1", 2, None), document("a", "u", &[0, 1])]),
        Write(vec![goes("a", "e1", Some(5)), goes("a", "e3", Some(1)), goes("a", "e149", Some(2))]),
        Checkpoint,
        wish("a", GraphWish::Build),
        one("a", "e3", 500),
        Write(vec![add("a", "v#2", 1, None), document("a", "v", &[2])]),
        one("a", "u#1", 5),
        one("a", "e8", 501),
        Write(vec![goes("a", "e149", None), add("a", "brief", 9, None), goes("a", "brief", Some(u64::MAX))]),
        remove("a", "e1"),
        attributes("a", "e4", Some("changed")),
        attributes("a", "e5", None),
        remove("a", "u#0"),
        remove("a", "e6"),
        many("b", 0..520, 40),
        one("b", "e519", 7),
        Checkpoint,
        wish("a", GraphWish::Drop),
        create("c"),
        Write(vec![add("c", "z", 5, None), sparse("c", "z", vec![(b"x", 1.0)])]),
        Write(vec![add("c", "z", 6, None), sparse("c", "z", vec![(b"y", 1.0)])]),
        rename("c", "d"),
        Checkpoint,
        Checkpoint,
        one("e", "z", 5),
        rename("e", "d"),
        expire("d", Some(u64::MAX)),
        expire("d", None),
        drop_key("a"),
        create("t"),
        Write(vec![field("t", "wide", 3), field("t", "thin", 1)]),
        many("t", 0..700, 20),
        many_in_field("t", 0..650),
        Write(vec![field_vector("t", "e2", "thin", &[7.0]), goes("t", "e3", Some(u64::MAX))]),
        Checkpoint,
        Write(vec![field_vector("t", "e2", "wide", &[9.0, 9.0, 9.0])]),
        attributes("t", "e4", Some("changed")),
        one("t", "e3", 77),
        remove("t", "e5"),
        rename("t", "u"),
        Checkpoint,
        Write(vec![goes("u", "e9", Some(9)), field_vector("u", "e10", "thin", &[-1.0])]),
        rename("d", "u"),
        many("b", 500..560, 90),
        Checkpoint,
        Write(vec![add("b", "e1", 1, None), add("f", "new", 2, None)]),
        remove("f", "new"),
        Write(vec![Change::Flush { namespace: NAMESPACE }]),
        one("g", "last", 9),
        Checkpoint,
        one("g", "tail", 8),
    ]
}

pub(super) fn open(disk: &SimDisk, appendfsync: Fsync) -> Result<Store, StoreError> {
    let config = Config { appendonly: true, appendfsync, search_threads: 1, ..Config::default() };
    let (store, loaded) = Store::start(Arc::new(disk.clone()), &config, &Arc::default());
    loaded.blocking_recv().unwrap()?;
    Ok(store)
}

pub(super) fn write_all(store: &Store, changes: &[Change]) -> Result<(), WriteError> {
    let changes = changes.to_vec();
    write(store, move |txn| {
        for change in &changes {
            txn.apply(change, None);
        }
    })
}

/// Runs the workload and marks the disk with how many records are acknowledged, and how many must survive a power cut.
/// Returns the content after each record.
pub(super) fn run(disk: &SimDisk, policy: Fsync) -> Vec<Content> {
    let store = open(disk, policy).unwrap();
    let mut contents = vec![Content::default()];
    let mut durable = 0;
    for step in workload() {
        match step {
            Step::Write(changes) => {
                let content = contents[contents.len() - 1].with(&changes);
                assert_ne!(contents[contents.len() - 1], content, "each step changes something");
                contents.push(content);
                write_all(&store, &changes).unwrap();
            }
            Step::Checkpoint => {
                store.checkpoint().unwrap();
                durable = contents.len() as u64 - 1;
            }
        }
        let acknowledged = contents.len() as u64 - 1;
        disk.mark((acknowledged, if policy == Fsync::Always { acknowledged } else { durable }));
        assert_eq!(Content::of(&store.snapshot()).unwrap(), contents[contents.len() - 1]);
    }
    store.stop().unwrap();
    contents
}

/// Recovers what is on the disk; it must be the content after one of the records `least..=most`. Returns which.
fn check(disk: &SimDisk, contents: &[Content], least: u64, most: u64) -> u64 {
    let recovered = recovery::recover(disk, &LoadStats::default())
        .unwrap_or_else(|error| panic!("{error}: {:?}", disk.names()));
    let sequence = recovered.snapshot.sequence;
    assert!((least..=most).contains(&sequence), "record {sequence}, not in {least}..={most}");
    let content = Content::of(&recovered.snapshot).unwrap();
    assert!(content == contents[usize::try_from(sequence).unwrap()], "record {sequence}: {content:?}");
    sequence
}

/// Cuts the power after each operation of a recovery, and after its end.
fn crash_while_recovering(moment: &Moment, seed: u64, contents: &[Content]) -> u64 {
    let disk = moment.image.after_power_cut(seed);
    disk.record();
    let store = open(&disk, Fsync::Always).unwrap();
    let sequence = store.snapshot().sequence;
    let mut points = 0;
    for inner in disk.moments() {
        let (_, durable) = moment.mark;
        check(&inner.image.after_power_cut(seed + 1), contents, durable, sequence);
        points += 1;
    }
    // What was served once stays, and so does what is written now.
    write_all(&store, &[add("after", "crash", 3, None)]).unwrap();
    let expected = contents[usize::try_from(sequence).unwrap()].with(&[add("after", "crash", 3, None)]);
    for seed in POWER_CUTS {
        let recovered =
            recovery::recover(&disk.image().after_power_cut(seed), &LoadStats::default()).unwrap();
        assert_eq!(recovered.snapshot.sequence, sequence + 1);
        assert!(Content::of(&recovered.snapshot).unwrap() == expected);
        points += 1;
    }
    store.stop().unwrap();
    points
}

#[test]
fn a_crash_after_any_operation_loses_nothing_that_was_promised() {
    for policy in [Fsync::Always, Fsync::No] {
        let disk = SimDisk::new();
        disk.record();
        let contents = run(&disk, policy);
        let moments = disk.moments();
        let points = AtomicU64::new(0);
        let last = contents.len() as u64 - 1;
        let try_out = |moments: &[Moment]| {
            for (index, moment) in moments.iter().enumerate() {
                let (acknowledged, durable) = moment.mark;
                check(&moment.image.after_kill(), contents.as_slice(), acknowledged, last);
                for seed in POWER_CUTS_OF_A_MOMENT {
                    check(
                        &moment.image.after_power_cut(seed),
                        &contents,
                        durable,
                        (acknowledged + 1).min(last),
                    );
                }
                let mut tried = 1 + POWER_CUTS_OF_A_MOMENT.end;
                if index % 5 == 0 {
                    tried += crash_while_recovering(moment, index as u64 / 5, &contents);
                }
                points.fetch_add(tried, Ordering::Relaxed);
            }
        };
        let (first, second) = moments.split_at(moments.len() / 2);
        std::thread::scope(|scope| {
            scope.spawn(|| try_out(first));
            try_out(second);
        });
        let (moments, points) = (moments.len(), points.into_inner());
        println!("{policy:?}: {points} crashes at {moments} moments");
        assert!(moments > 100, "{moments} moments");
    }
}

/// Runs the workload on a disk whose operations in a range fail. Returns whether they were reached.
fn run_failing(failing: std::ops::Range<u64>, fault: Fault, policy: Fsync) -> bool {
    let disk = SimDisk::new();
    disk.fail(failing.clone(), fault);
    let mut contents = vec![Content::default()];
    // What a refused record would have led to: it may be in the log all the same.
    let mut refused = Vec::new();
    let mut durable = 0;
    if let Ok(store) = open(&disk, policy) {
        for step in workload() {
            let content = contents[contents.len() - 1].clone();
            match step {
                Step::Write(changes) if write_all(&store, &changes).is_ok() => {
                    contents.push(content.with(&changes));
                    refused.clear();
                }
                Step::Write(changes) => refused.push(content.with(&changes)),
                Step::Checkpoint if store.checkpoint().is_ok() => durable = contents.len() - 1,
                Step::Checkpoint => {}
            }
            let served = Content::of(&store.snapshot()).unwrap();
            assert!(served == contents[contents.len() - 1], "reads go on: {failing:?} {fault:?}");
        }
        // The fault does not last, so the store takes up writes by itself, or never stopped.
        let changes = [add("late", "x", 1, None)];
        for _ in 0..RESUME_TRIES {
            let content = contents[contents.len() - 1].with(&changes);
            match write_all(&store, &changes) {
                Ok(()) => {
                    contents.push(content);
                    refused.clear();
                    break;
                }
                Err(_) => refused.push(content),
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert!(refused.is_empty(), "writes are taken again: {failing:?} {fault:?}");
        let _ = store.stop();
    }
    let allowed =
        |content: &Content, least: usize| contents[least..].contains(content) || refused.contains(content);
    let recover = |disk: &SimDisk, what: &str| {
        let recovered = recovery::recover(disk, &LoadStats::default());
        let recovered = recovered.unwrap_or_else(|error| panic!("{failing:?} {fault:?} {what}: {error}"));
        Content::of(&recovered.snapshot).unwrap()
    };
    let image = disk.image();
    let restarted = image.after_kill();
    let content = recover(&restarted, "after a restart");
    assert!(allowed(&content, contents.len() - 1), "{failing:?} {fault:?}");
    for seed in POWER_CUTS {
        // The sync that failed before the restart must not be trusted after it.
        let after = recover(&restarted.image().after_power_cut(seed), "after a restart and a power cut");
        assert!(after == content, "{failing:?} {fault:?}, restart and power cut {seed}");
    }
    let least = if policy == Fsync::Always { contents.len() - 1 } else { durable };
    for seed in POWER_CUTS {
        let after = recover(&image.after_power_cut(seed), "after a power cut");
        assert!(allowed(&after, least), "{failing:?} {fault:?}, power cut {seed}");
    }
    disk.has_failed()
}

#[test]
fn whichever_operation_fails_reads_go_on_and_nothing_acknowledged_is_lost() {
    let operations = {
        let disk = SimDisk::new();
        run(&disk, Fsync::Always);
        disk.operations()
    };
    let reached = AtomicU64::new(0);
    let try_out = |fault: Fault, policy: Fsync, length: u64| {
        for first in 0..operations {
            reached
                .fetch_add(u64::from(run_failing(first..first + length, fault, policy)), Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| try_out(Fault::Refused(EIO), Fsync::Always, 1));
        scope.spawn(|| try_out(Fault::Refused(ENOSPC), Fsync::Always, 12));
        scope.spawn(|| try_out(Fault::Refused(EIO), Fsync::No, 1));
        try_out(Fault::Short, Fsync::Always, 1);
    });
    let reached = reached.into_inner();
    println!("{reached} failures among {operations} operations");
    assert!(reached > 3 * operations, "{reached} failures reached, {operations} operations");
}
