//! The store's content at one moment, and the one deterministic way to change it.
//!
//! A [`Snapshot`] is immutable and cheap to clone: maps are persistent, collections shared. [`State`] is the writer's
//! private next snapshot together with what must happen when it is published.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use super::change::Change;
use super::fields::{self, FieldVector};
use super::users::{UserChange, Users};
use crate::collection::ids::hash_name;
use crate::collection::{Collection, Encoded, Params};
use crate::embed::ModelId;

/// A partial chunk with more bytes than this (see `Chunk::has_grown`) is sealed short at a checkpoint.
pub(super) const MAX_PARTIAL_BYTES: usize = if cfg!(test) { 4 << 10 } else { 16 << 20 };

/// Removed keys that are remembered.
const MAX_KNOWN_DROPS: usize = 4096;

/// Which namespace a key is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceId(pub u32);

/// A key: its name and the name's hash, in whose order keys are kept (so that a scan can be resumed by a number).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    hash: u64,
    name: Bytes,
}

impl Key {
    /// The key of that name.
    pub fn new(name: Bytes) -> Self {
        // 63 bits: some clients read a scan's cursor as a signed number.
        Self { hash: (hash_name(&name) >> 1).max(1), name }
    }

    /// The same key with memory of its own: a name that came with a request shares the request's buffer.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { hash: self.hash, name: Bytes::copy_from_slice(&self.name) }
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Its place in a scan: keys are ordered by it. At least 1.
    pub fn cursor(&self) -> u64 {
        self.hash
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.hash.cmp(&other.hash).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// How much a namespace holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Elements of all its collections, and vectors in their fields.
    pub vectors: u64,
    /// Bytes of their vectors, four for each component.
    pub bytes: u64,
}

/// Collections of one namespace.
pub type Keyspace = OrdMap<Key, Arc<Collection>>;

/// Everything at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Number of the last log record it contains.
    pub sequence: u64,
    /// Number of the last change it contains.
    pub stamp: u64,
    /// What the next collection is called in files.
    pub next_uid: u64,
    /// Collections by namespace.
    pub keyspaces: OrdMap<NamespaceId, Keyspace>,
    /// The change that last removed each of these keys, for WATCH.
    drops: OrdMap<(NamespaceId, Key), u64>,
    /// Removals up to this change are forgotten.
    drops_forgotten: u64,
    /// Collections that go by themselves, soonest first: when (unix milliseconds), and where.
    pub expirations: OrdSet<(u64, NamespaceId, Key)>,
    /// Users and namespaces.
    pub users: Users,
    /// What each namespace holds.
    totals: OrdMap<NamespaceId, Totals>,
    /// Collections that have elements which go by themselves: when the first of each does, and where it is.
    pub element_expirations: OrdSet<(u64, NamespaceId, Key)>,
}

impl Snapshot {
    /// An empty one with these counters, to be filled with what is recovered.
    pub fn at(stamp: u64, next_uid: u64) -> Self {
        Self { stamp, next_uid, ..Self::default() }
    }

    /// Puts a recovered collection in its place. A field follows the collection it is of, which lists it then.
    pub fn insert(&mut self, namespace: NamespaceId, key: Key, collection: Arc<Collection>) {
        if let Some((namespace, key, field)) = fields::owner(namespace, &key)
            && let Some(owner) = self.keyspaces.get_mut(&namespace).and_then(|keys| keys.get_mut(&key))
            && !owner.fields.contains(&field)
        {
            Arc::make_mut(owner).fields.push(field);
        }
        if let Some(at_ms) = collection.expires_ms {
            self.expirations.insert((at_ms, namespace, key.clone()));
        }
        self.count(namespace, collection.params.layout.dim, 0, collection.len());
        self.note_element_expiry(namespace, &key, None, collection.expiries().next_ms());
        self.keyspaces.entry(namespace).or_default().insert(key, collection);
    }

    /// What a namespace holds.
    pub fn totals(&self, namespace: NamespaceId) -> Totals {
        self.totals.get(&namespace).copied().unwrap_or_default()
    }

    /// Counts that a collection of vectors of `dim` components had `before` elements and has `after` now.
    fn count(&mut self, namespace: NamespaceId, dim: usize, before: usize, after: usize) {
        if before == after {
            return;
        }
        let namespace = namespace.owner();
        let row_bytes = (dim * size_of::<f32>()) as u64;
        let (before, after) = (before as u64, after as u64);
        let totals = self.totals.entry(namespace).or_default();
        totals.vectors = totals.vectors + after - before;
        totals.bytes = totals.bytes + after * row_bytes - before * row_bytes;
        if *totals == Totals::default() {
            self.totals.remove(&namespace);
        }
    }

    fn note_element_expiry(
        &mut self,
        namespace: NamespaceId,
        key: &Key,
        before: Option<u64>,
        now: Option<u64>,
    ) {
        if namespace.holds_fields() {
            // What is in a field goes with its element.
            return;
        }
        if let Some(at_ms) = before.filter(|_| before != now) {
            self.element_expirations.remove(&(at_ms, namespace, key.clone()));
        }
        if let Some(at_ms) = now.filter(|_| before != now) {
            self.element_expirations.insert((at_ms, namespace, key.detached()));
        }
    }

    /// Whether elements' time is over that are still there.
    pub fn has_expired_elements(&self, now_ms: u64) -> bool {
        self.element_expirations.get_min().is_some_and(|(at_ms, _, _)| *at_ms <= now_ms)
    }

    /// The same without the elements whose time is over, for readers; and until when it stays the same (unix
    /// milliseconds).
    pub fn masked(&self, now_ms: u64) -> (Self, u64) {
        let (mut masked, mut until_ms) = (self.clone(), u64::MAX);
        for (at_ms, namespace, key) in &self.element_expirations {
            if *at_ms > now_ms {
                until_ms = until_ms.min(*at_ms);
                break;
            }
            let Some(keys) = masked.keyspaces.get_mut(namespace) else { continue };
            let Some(collection) = keys.get_mut(key) else { continue };
            until_ms = until_ms.min(collection.expiries().next_after_ms(now_ms).unwrap_or(u64::MAX));
            Arc::make_mut(collection).mask_expired(now_ms);
            let names = collection.fields.clone();
            if collection.is_empty() && !collection.params.declared {
                keys.remove(key);
            }
            for name in names {
                let (fields, field) = fields::place(*namespace, key, &name);
                if let Some(field) = masked.keyspaces.get_mut(&fields).and_then(|keys| keys.get_mut(&field)) {
                    Arc::make_mut(field).mask_expired(now_ms);
                }
            }
        }
        (masked, until_ms)
    }

    /// Whether a key has been removed after that change, as far as is still known: if not, it may have been.
    pub fn dropped_since(&self, namespace: NamespaceId, key: &Key, stamp: u64) -> bool {
        let dropped = self.drops.get(&(namespace, key.clone())).copied().unwrap_or(self.drops_forgotten);
        dropped > stamp
    }

    /// A collection, unless its time is over.
    pub fn live(&self, namespace: NamespaceId, key: &Key, now_ms: u64) -> Option<&Arc<Collection>> {
        self.get(namespace, key).filter(|collection| collection.expires_ms.is_none_or(|at_ms| at_ms > now_ms))
    }

    /// A collection, even if its time is over.
    pub fn get(&self, namespace: NamespaceId, key: &Key) -> Option<&Arc<Collection>> {
        self.keyspaces.get(&namespace)?.get(key)
    }

    /// Collections of a namespace, in the order of their keys.
    pub fn keys(&self, namespace: NamespaceId) -> impl Iterator<Item = (&Key, &Arc<Collection>)> {
        self.keyspaces.get(&namespace).into_iter().flatten()
    }

    /// Collections of a namespace from a scan's cursor on.
    pub fn keys_from(
        &self,
        namespace: NamespaceId,
        cursor: u64,
    ) -> impl Iterator<Item = (&Key, &Arc<Collection>)> {
        let first = Key { hash: cursor, name: Bytes::new() };
        self.keyspaces.get(&namespace).into_iter().flat_map(move |keys| keys.range(first.clone()..))
    }

    /// Number of collections of a namespace.
    pub fn key_count(&self, namespace: NamespaceId) -> usize {
        self.keyspaces.get(&namespace).map_or(0, OrdMap::len)
    }

    /// Every collection with its namespace and key, fields included.
    pub fn collections(&self) -> impl Iterator<Item = (NamespaceId, &Key, &Arc<Collection>)> {
        self.keyspaces
            .iter()
            .flat_map(|(&namespace, keys)| keys.iter().map(move |(key, value)| (namespace, key, value)))
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Something is different now; an element was added or a collection dropped, where that is the question.
    Yes,
    /// An element that was there was replaced.
    Replaced,
    /// There was nothing to change.
    No,
}

impl From<bool> for Applied {
    fn from(changed: bool) -> Self {
        if changed { Self::Yes } else { Self::No }
    }
}

/// The writer's private next snapshot.
pub struct State {
    snapshot: Snapshot,
    /// Collections whose names changed since the last publish.
    touched: HashSet<(NamespaceId, Key)>,
}

impl State {
    /// Goes on from a published or recovered snapshot.
    pub fn new(snapshot: Snapshot) -> Self {
        Self { snapshot, touched: HashSet::new() }
    }

    /// The state as it is now, changes not yet published included.
    pub fn view(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Notes that a log record holds the changes made since the last one.
    pub fn set_sequence(&mut self, sequence: u64) {
        self.snapshot.sequence = sequence;
    }

    /// A collection to change, without counting as a change.
    pub fn collection_mut(&mut self, namespace: NamespaceId, key: &Key) -> Option<&mut Collection> {
        self.snapshot.keyspaces.get_mut(&namespace)?.get_mut(key).map(Arc::make_mut)
    }

    /// A collection whose rows are to be moved: not a change either, but its names are published with it.
    pub fn moving_mut(&mut self, namespace: NamespaceId, key: &Key) -> Option<&mut Collection> {
        self.touched.insert((namespace, key.clone()));
        self.collection_mut(namespace, key)
    }

    /// Whether a change can be applied: a vector must fit the collection it goes to. Always so for changes in the order
    /// they were made; not if some between them are lost.
    pub fn accepts(&self, change: &Change) -> bool {
        match change {
            Change::Add { namespace, key, params, vector, .. } => {
                vector.len() == params.layout.dim
                    && self.snapshot.get(*namespace, key).is_none_or(|collection| {
                        let there = &collection.params;
                        there.layout == params.layout && there.row_shape() == params.row_shape()
                    })
            }
            Change::SetField { namespace, key, field, vector, .. } => self
                .snapshot
                .field(*namespace, key, field)
                .is_none_or(|field| field.params.layout.dim == vector.len()),
            _ => true,
        }
    }

    /// Applies a change: the one way the store's content is altered, live and in replay. `encoded` is the added
    /// vector's code if it has been made already; it must fit the collection.
    pub fn apply(&mut self, change: &Change, encoded: Option<&Encoded>) -> Applied {
        self.snapshot.stamp += 1;
        match change {
            Change::Add { namespace, key, params, element, vector, attributes, text, model } => {
                if self.snapshot.get(*namespace, key).is_none() {
                    self.create(*namespace, key, params, None);
                }
                let made;
                let encoded = match encoded {
                    Some(encoded) if encoded.fits(params) => encoded,
                    _ => {
                        made = Encoded::new(params, vector);
                        &made
                    }
                };
                let added = self.change_rows(*namespace, key, |collection| {
                    if collection.model.is_none() {
                        collection.model.clone_from(model);
                    }
                    (true, collection.put(element, vector, encoded, attributes, text))
                });
                self.follow(*namespace, key, element);
                if added == Some(true) { Applied::Yes } else { Applied::Replaced }
            }
            Change::Remove { namespace, key, element } => {
                let removed = self.change_rows(*namespace, key, |collection| {
                    let removed = collection.remove(element);
                    (removed, removed)
                });
                self.follow(*namespace, key, element);
                let ends =
                    |collection: &Arc<Collection>| collection.is_empty() && !collection.params.declared;
                if self.snapshot.get(*namespace, key).is_some_and(ends) {
                    self.drop_key(*namespace, key);
                }
                Applied::from(removed == Some(true))
            }
            Change::SetAttributes { namespace, key, element, attributes } => {
                let set = self.change_rows(*namespace, key, |collection| {
                    let set = collection.set_attributes(element, attributes.clone());
                    (set, set)
                });
                self.follow(*namespace, key, element);
                Applied::from(set == Some(true))
            }
            Change::ExpireElement { namespace, key, element, at_ms } => {
                let set = self.change_rows(*namespace, key, |collection| {
                    let set = collection.expire_element(element, *at_ms);
                    (set, set)
                });
                self.follow(*namespace, key, element);
                Applied::from(set == Some(true))
            }
            Change::SetSparse { namespace, key, element, sparse } => {
                let set = self.change_rows(*namespace, key, |collection| {
                    let set = collection.set_sparse(element, sparse);
                    (set, set)
                });
                Applied::from(set == Some(true))
            }
            Change::SetDocument { namespace, key, uri, document } => {
                let set = self.change_rows(*namespace, key, |collection| {
                    let set = collection.set_document(uri, document.clone());
                    (set, set)
                });
                Applied::from(set == Some(true))
            }
            Change::WishGraph { namespace, key, wish } => self.wish_graph(*namespace, key, *wish),
            Change::Create { namespace, key, params, model } => {
                let missing = self.snapshot.get(*namespace, key).is_none();
                if missing {
                    self.create(*namespace, key, params, model.as_ref());
                }
                Applied::from(missing)
            }
            Change::CreateField { namespace, key, field, dim } => {
                self.create_field(*namespace, key, field, *dim)
            }
            Change::SetField { namespace, key, element, field, vector, model } => {
                let new = FieldVector { element, field, vector, model: model.as_ref(), encoded };
                self.set_field(*namespace, key, &new)
            }
            Change::Expire { namespace, key, at_ms } => Applied::from(self.expire(*namespace, key, *at_ms)),
            Change::Rename { namespace, key, to } => Applied::from(self.rename(*namespace, key, to)),
            Change::Drop { namespace, key } => Applied::from(self.drop_key(*namespace, key)),
            Change::Flush { namespace } => Applied::from(self.flush(*namespace)),
            Change::Users(change) => {
                let flushed = match change {
                    UserChange::DropNamespace { namespace } => self.flush(*namespace),
                    _ => false,
                };
                Applied::from(self.snapshot.users.apply(change) || flushed)
            }
        }
    }

    fn flush(&mut self, namespace: NamespaceId) -> bool {
        let keys: Vec<Key> = self.snapshot.keys(namespace).map(|(key, _)| key.clone()).collect();
        for key in &keys {
            self.drop_key(namespace, key);
        }
        !keys.is_empty()
    }

    pub(super) fn create(
        &mut self,
        namespace: NamespaceId,
        key: &Key,
        params: &Params,
        model: Option<&Arc<ModelId>>,
    ) {
        let mut collection = Collection::new(self.snapshot.next_uid, *params);
        collection.stamp = self.snapshot.stamp;
        collection.model = model.cloned();
        self.snapshot.next_uid += 1;
        self.snapshot.insert(namespace, key.detached(), Arc::new(collection));
    }

    /// Notes the removal of a key for those who watch it.
    fn note_drop(&mut self, namespace: NamespaceId, key: &Key) {
        let snapshot = &mut self.snapshot;
        if snapshot.drops.len() >= MAX_KNOWN_DROPS {
            snapshot.drops.clear();
            snapshot.drops_forgotten = snapshot.stamp;
        }
        snapshot.drops.insert((namespace, key.detached()), snapshot.stamp);
    }

    fn take(&mut self, namespace: NamespaceId, key: &Key) -> Option<Arc<Collection>> {
        let keys = self.snapshot.keyspaces.get_mut(&namespace)?;
        let taken = keys.remove(key)?;
        if keys.is_empty() {
            self.snapshot.keyspaces.remove(&namespace);
        }
        if let Some(at_ms) = taken.expires_ms {
            self.snapshot.expirations.remove(&(at_ms, namespace, key.clone()));
        }
        self.snapshot.count(namespace, taken.params.layout.dim, taken.len(), 0);
        self.snapshot.note_element_expiry(namespace, key, taken.expiries().next_ms(), None);
        Some(taken)
    }

    fn drop_key(&mut self, namespace: NamespaceId, key: &Key) -> bool {
        self.touched.remove(&(namespace, key.clone()));
        let Some(dropped) = self.take(namespace, key) else { return false };
        for name in &dropped.fields {
            let field = fields::place(namespace, key, name);
            self.take(field.0, &field.1);
            self.touched.remove(&field);
        }
        self.note_drop(namespace, key);
        true
    }

    fn expire(&mut self, namespace: NamespaceId, key: &Key, at_ms: Option<u64>) -> bool {
        let Some(mut collection) = self.take(namespace, key) else { return false };
        let changed = Arc::make_mut(&mut collection);
        let differs = changed.expires_ms != at_ms;
        changed.expires_ms = at_ms;
        changed.stamp = self.snapshot.stamp;
        self.snapshot.insert(namespace, key.detached(), collection);
        differs
    }

    fn rename(&mut self, namespace: NamespaceId, key: &Key, to: &Key) -> bool {
        let Some(collection) = self.snapshot.get(namespace, key) else { return false };
        let names = collection.fields.clone();
        if key != to {
            self.drop_key(namespace, to);
        }
        self.move_key(namespace, key, to);
        self.note_drop(namespace, key);
        for name in &names {
            let (from, to) = (fields::place(namespace, key, name), fields::place(namespace, to, name));
            self.move_key(from.0, &from.1, &to.1);
        }
        true
    }

    /// Puts a collection under another key, which is free.
    fn move_key(&mut self, namespace: NamespaceId, key: &Key, to: &Key) {
        let touched = self.touched.remove(&(namespace, key.clone()));
        let Some(mut collection) = self.take(namespace, key) else { return };
        Arc::make_mut(&mut collection).stamp = self.snapshot.stamp;
        self.snapshot.insert(namespace, to.detached(), collection);
        if touched {
            self.touched.insert((namespace, to.clone()));
        }
    }

    /// Changes a collection's rows. `act` says whether something changed, and its result.
    pub(super) fn change_rows<T>(
        &mut self,
        namespace: NamespaceId,
        key: &Key,
        act: impl FnOnce(&mut Collection) -> (bool, T),
    ) -> Option<T> {
        let stamp = self.snapshot.stamp;
        let collection = self.collection_mut(namespace, key)?;
        let (dim, before) = (collection.params.layout.dim, collection.len());
        let due_before = collection.expiries().next_ms();
        let (changed, result) = act(collection);
        let after = collection.len();
        if changed {
            collection.stamp = stamp;
            let now = collection.expiries().next_ms();
            self.snapshot.note_element_expiry(namespace, key, due_before, now);
            self.touched.insert((namespace, key.clone()));
        }
        self.snapshot.count(namespace, dim, before, after);
        Some(result)
    }

    /// Hands the state over to `publish` as a snapshot. The tables of names change at the same moment: they are locked
    /// until `publish` returns, so that a look-up under a table's lock agrees with the newest snapshot.
    /// Returns the collections whose rows changed.
    pub fn publish(&mut self, publish: impl FnOnce(Arc<Snapshot>)) -> Vec<(NamespaceId, Key)> {
        let touched: Vec<_> = self.touched.drain().collect();
        let changes: Vec<_> = touched
            .iter()
            .filter_map(|(namespace, key)| self.collection_mut(*namespace, key).map(Collection::take_pending))
            .collect();
        let mut tables: Vec<_> = changes
            .iter()
            .map(|(table, _)| table.write().unwrap_or_else(std::sync::PoisonError::into_inner))
            .collect();
        for (table, (_, pending)) in tables.iter_mut().zip(&changes) {
            table.apply(pending);
        }
        publish(Arc::new(self.snapshot.clone()));
        drop(tables);
        touched
    }

    /// Ends the growth of chunks that are too large for a checkpoint's state file.
    pub fn close_chunks(&mut self) {
        let grown: Vec<_> = self
            .snapshot
            .collections()
            .filter(|(_, _, collection)| collection.has_grown(MAX_PARTIAL_BYTES))
            .collect();
        let grown: Vec<_> = grown.into_iter().map(|(namespace, key, _)| (namespace, key.clone())).collect();
        for (namespace, key) in grown {
            if let Some(collection) = self.collection_mut(namespace, &key) {
                collection.close_grown(MAX_PARTIAL_BYTES);
            }
        }
    }
}
