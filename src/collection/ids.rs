//! Which row holds an element: one table per collection, shared by all its versions.
//!
//! Only the writer changes the table, and only while it publishes, holding the table's lock; until then its changes
//! wait in the [`PendingIds`] of its private version. Names are not kept here: an entry is a hash and a row, and the row
//! knows its name.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::RowId;

/// Seeded once per process, so that chosen names cannot be made to collide.
static HASHER: LazyLock<DefaultHashBuilder> = LazyLock::new(DefaultHashBuilder::default);

/// Hash of an element's or a key's name, different in every process.
pub fn hash_name(name: &[u8]) -> u64 {
    HASHER.hash_one(name)
}

/// A name's hash and the row that holds it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// From [`hash_name`].
    pub hash: u64,
    /// The newest row of that name.
    pub row: RowId,
}

/// The published table.
#[derive(Default)]
pub struct IdTable {
    entries: HashTable<Entry>,
}

impl IdTable {
    /// The entry with this hash whose row `is_named` as wanted.
    pub fn find(&self, hash: u64, is_named: impl Fn(RowId) -> bool) -> Option<RowId> {
        self.entries.find(hash, |entry| entry.hash == hash && is_named(entry.row)).map(|entry| entry.row)
    }

    /// Adds an entry for a name that is not in the table yet.
    pub fn insert(&mut self, entry: Entry) {
        self.entries.insert_unique(entry.hash, entry, |entry| entry.hash);
    }

    /// Takes over the changes of a version that is being published.
    pub fn apply(&mut self, pending: &PendingIds) {
        for change in &pending.changes {
            match (change.old, change.new) {
                (None, Some(row)) => self.insert(Entry { hash: change.hash, row }),
                (Some(old), new) => self.replace(change.hash, old, new),
                (None, None) => {}
            }
        }
    }

    fn replace(&mut self, hash: u64, old: RowId, new: Option<RowId>) {
        let Ok(mut entry) = self.entries.find_entry(hash, |entry| entry.row == old) else {
            unreachable!("the table holds every row that a pending change replaces");
        };
        match new {
            Some(row) => entry.get_mut().row = row,
            None => drop(entry.remove()),
        }
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        self.entries.allocation_size()
    }
}

#[derive(Clone, Copy, Debug)]
struct Change {
    hash: u64,
    old: Option<RowId>,
    new: Option<RowId>,
}

/// What a private version has changed about its names since it was published.
#[derive(Clone, Default)]
pub struct PendingIds {
    changes: HashTable<Change>,
}

impl PendingIds {
    /// `Some(row)` when the name has a pending change: the row it has now, or `None` if it was removed.
    pub fn find(&self, hash: u64, is_named: impl Fn(RowId) -> bool) -> Option<Option<RowId>> {
        let named = |change: &Change| change.hash == hash && change.new.or(change.old).is_some_and(&is_named);
        self.changes.find(hash, named).map(|change| change.new)
    }

    /// Notes that the name, which lived in `current`, now lives in `new`, or nowhere.
    pub fn set(
        &mut self,
        hash: u64,
        current: Option<RowId>,
        new: Option<RowId>,
        is_named: impl Fn(RowId) -> bool,
    ) {
        let named = |change: &Change| change.hash == hash && change.new.or(change.old).is_some_and(&is_named);
        match self.changes.find_entry(hash, named) {
            // The change keeps its first `old`: that is what the published table knows.
            Ok(mut change) if change.get().old.is_some() || new.is_some() => change.get_mut().new = new,
            Ok(change) => drop(change.remove()),
            Err(_) => {
                let change = Change { hash, old: current, new };
                self.changes.insert_unique(hash, change, |change| change.hash);
            }
        }
    }

    /// Notes that the row of a name, which has no change pending, has moved.
    pub fn move_row(&mut self, hash: u64, old: RowId, new: RowId) {
        let change = Change { hash, old: Some(old), new: Some(new) };
        self.changes.insert_unique(hash, change, |change| change.hash);
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
