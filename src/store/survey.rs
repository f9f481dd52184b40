//! Reads a data folder that may be damaged, changes nothing in it, and goes on after damage: what can be proved good
//! becomes a snapshot, what cannot is listed. `vecdis check` shows the list, `vecdis repair` writes the snapshot.
//!
//! - Without a manifest that can be read, the newest state file that is whole in itself counts; if none is, the newest.
//! - Of a state file each entry is the first of a collection, or a piece of it. With a damaged first entry the collection is
//!   lost, with a damaged piece what that held; the others are not.
//! - Of a damaged chunk file those elements are lost whose name or vector is damaged.
//! - The log after the checkpoint is newer than anything lost with it, so it is applied whatever was lost there. But
//!   after a lost record the rest of the log counts only with `skip_damaged`, because it may depend on it: a removal
//!   that is lost lets its element come back, an addition that is lost leaves nothing for later attributes.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::archive::{self, NamedDocument, SalvagedCollection, Salvager};
use super::change::{self, Change};
use super::fields;
use super::recovery::PUBLISH_EVERY_RECORDS;
use super::state::{Key, NamespaceId, Snapshot, State};
use super::{StoreError, archive::DamagedChunk};
use crate::collection::sparse::is_sound;
use crate::collection::{AttributeChange, Collection, Found, RowId, TextChange};
use crate::disk::format::{CHUNK_FOLDER, MANIFEST_FILE, is_chunk_name, parse_log_name, parse_state_name};
use crate::disk::manifest::{self, Manifest};
use crate::disk::salvage::{self, LogPiece};
use crate::disk::{Disk, DiskError, Pin};

/// Keys of log records left out that are remembered.
const MAX_SKIPPED_KEYS: usize = 100;

/// Something that is not as it should be.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    /// The file.
    pub file: String,
    /// Where in it, in bytes, if that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// Key of the collection it concerns, if that is known.
    pub key: Option<Bytes>,
    /// Elements that are lost with it, or lose their attributes, as far as their names are known.
    pub elements: Vec<Vec<u8>>,
}

/// What is in a data folder.
#[derive(Default)]
pub struct Survey {
    /// What could be proved good.
    pub snapshot: Snapshot,
    /// What is wrong.
    pub damages: Vec<Damage>,
    /// What is worth a line, but no damage.
    pub notes: Vec<String>,
    /// Number of the last log record that the checkpoint holds.
    pub checkpoint_sequence: u64,
    /// Log records applied after it.
    pub records: u64,
    /// Good log records that were left out, because one before them is lost.
    pub skipped_records: u64,
    /// Files read.
    pub files: u64,
}

/// The files of a folder that are ours, with their lengths in bytes.
///
/// # Errors
/// When the folder cannot be read.
pub fn own_files(disk: &dyn Disk) -> Result<Vec<(String, u64)>, DiskError> {
    let mut names = disk.list("")?;
    names.retain(|name| {
        name == MANIFEST_FILE || parse_state_name(name).is_some() || parse_log_name(name).is_some()
    });
    names.extend(disk.list(CHUNK_FOLDER)?.into_iter().filter(|name| is_chunk_name(name)));
    names.into_iter().map(|name| disk.len_bytes(&name).map(|len| (name, len))).collect()
}

/// Reads everything. `on_bytes` is told of bytes as they are read, of about as many as [`own_files`] have together.
///
/// # Errors
/// When a file is of a newer version or the system refuses; damage is no error.
pub fn survey(
    disk: &dyn Disk,
    skip_damaged: bool,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Survey, StoreError> {
    let mut surveyor = Surveyor {
        disk,
        skip_damaged,
        on_bytes,
        state: State::new(Snapshot::default()),
        damages: Vec::new(),
        notes: Vec::new(),
        files: 0,
        records: 0,
        skipped_records: 0,
        skipped_keys: Vec::new(),
        last_sequence: 0,
        broken: false,
    };
    let checkpoint = surveyor.checkpoint()?;
    surveyor.log()?;
    Ok(surveyor.finish(checkpoint))
}

struct Surveyor<'a> {
    disk: &'a dyn Disk,
    skip_damaged: bool,
    on_bytes: &'a mut dyn FnMut(u64),
    state: State,
    damages: Vec<Damage>,
    notes: Vec<String>,
    files: u64,
    records: u64,
    skipped_records: u64,
    skipped_keys: Vec<Bytes>,
    /// The last record met in the log, or in the checkpoint.
    last_sequence: u64,
    /// A record is lost.
    broken: bool,
}

/// What a state file holds, before it becomes a [`State`].
#[derive(Default)]
struct Loaded {
    head: Option<Snapshot>,
    collections: Vec<(NamespaceId, Key, Collection)>,
    damaged: Vec<(NamespaceId, Key, DamagedChunk)>,
    documents: Vec<(NamespaceId, Key, Vec<NamedDocument>)>,
    files: HashSet<String>,
    /// Collections of which pieces are lost.
    incomplete: Vec<(NamespaceId, Key)>,
}

impl Surveyor<'_> {
    /// Notes an error that is damage; gives back one that is not.
    fn note(&mut self, error: StoreError, file: &str, key: Option<&Key>) -> Result<(), StoreError> {
        let key = key.map(|key| Bytes::copy_from_slice(key.name()));
        let damage = match error {
            StoreError::Disk(DiskError::Corrupt { file, offset, what }) => {
                Damage { file, offset: Some(offset), what, key, ..Damage::default() }
            }
            StoreError::Disk(error) if error.is_not_found() => {
                Damage { file: file.to_owned(), what: "is missing".to_owned(), key, ..Damage::default() }
            }
            error
            @ (StoreError::Disk(_) | StoreError::Write(_) | StoreError::Busy | StoreError::ReadOnly) => {
                return Err(error);
            }
            error => Damage { file: file.to_owned(), what: error.to_string(), key, ..Damage::default() },
        };
        self.damages.push(damage);
        Ok(())
    }

    fn damage(&mut self, file: &str, key: Option<&Key>, what: impl Into<String>) {
        self.damages.push(Damage { offset: None, ..damage_at(file, 0, what.into(), key) });
    }

    /// Loads the last checkpoint and returns its sequence.
    fn checkpoint(&mut self) -> Result<u64, StoreError> {
        let manifest = match manifest::load(self.disk) {
            Ok(manifest) => manifest,
            Err(error) => {
                self.note(error.into(), MANIFEST_FILE, None)?;
                None
            }
        };
        let (name, pin) = match &manifest {
            Some(manifest) => (manifest.state_file.clone(), Some(manifest.state_pin)),
            None => match self.state_without_manifest()? {
                Some(name) => (name, None),
                None => return Ok(0),
            },
        };
        let sequence = match &manifest {
            Some(manifest) => manifest.sequence,
            None => parse_state_name(&name).unwrap_or_default(),
        };
        self.files += u64::from(manifest.is_some());
        let loaded = self.state_file(&name, pin.as_ref())?;
        if let Some(manifest) = &manifest {
            self.compare_chunk_files(manifest, &loaded);
        }
        self.begin(&name, loaded, sequence);
        Ok(sequence)
    }

    /// The state file that counts where no manifest can be read.
    fn state_without_manifest(&mut self) -> Result<Option<String>, StoreError> {
        let mut states = self.disk.list("")?;
        states.retain(|name| parse_state_name(name).is_some());
        let log_begins = self.disk.list("")?.iter().filter_map(|name| parse_log_name(name)).min();
        if self.damages.is_empty() && (states.is_empty() || log_begins == Some(1)) {
            // As before the first checkpoint: all there is stands in the log.
            return Ok(None);
        }
        if self.damages.is_empty() {
            self.damage(MANIFEST_FILE, None, "is missing");
        }
        states.sort_unstable_by_key(|name| parse_state_name(name));
        for name in states.iter().rev() {
            let mut whole = true;
            salvage::state_entries(self.disk, name, None, |piece| {
                whole &= piece.is_ok();
                Ok::<(), StoreError>(())
            })?;
            if whole {
                self.notes.push(format!("{name} is whole and is taken for the last checkpoint"));
                return Ok(Some(name.clone()));
            }
        }
        Ok(states.pop())
    }

    fn state_file(&mut self, name: &str, pin: Option<&Pin>) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        let disk = self.disk;
        let mut salvager = Salvager::new(disk, name, archive::VERSION);
        let read = salvage::state_entries(disk, name, pin, |piece| {
            match piece {
                Err(damage) => self.note(damage.into(), name, None)?,
                Ok((0, entry)) => match archive::restore_head(entry) {
                    Ok((head, version)) => {
                        loaded.head = Some(head);
                        salvager = Salvager::new(disk, name, version);
                    }
                    Err(error) => self.note(error, name, None)?,
                },
                Ok((_, entry)) => {
                    (self.on_bytes)(entry.len() as u64);
                    let salvaged = salvager.entry(entry);
                    self.take(name, salvaged, &mut loaded)?;
                }
            }
            Ok::<(), StoreError>(())
        });
        self.take(name, salvager.finish(), &mut loaded)?;
        self.files += 1;
        if let Err(error) = read {
            self.note(error, name, None)?;
        }
        Ok(loaded)
    }

    /// Takes over a collection of the state file.
    fn take(
        &mut self,
        state_file: &str,
        salvaged: Result<Option<SalvagedCollection>, StoreError>,
        loaded: &mut Loaded,
    ) -> Result<(), StoreError> {
        let salvaged = match salvaged {
            Ok(Some(salvaged)) => salvaged,
            Ok(None) => return Ok(()),
            Err(error) => return self.note(error, state_file, None),
        };
        let SalvagedCollection { namespace, key, collection, damaged, files, documents, lost_pieces } =
            salvaged;
        for file in &files {
            (self.on_bytes)(self.disk.len_bytes(file).unwrap_or_default());
        }
        self.files += files.len() as u64;
        loaded.files.extend(files);
        let (shown, field) = shown(namespace, &key);
        if lost_pieces > 0 {
            loaded.incomplete.push((namespace, key.clone()));
            let what = format!(
                "{lost_pieces} pieces of the collection are lost: elements, documents, sparse vectors or expiries, or \
                 attributes set later than their elements, which have older ones now"
            );
            self.damage(state_file, Some(&shown), what);
        }
        for mut chunk in damaged {
            for error in std::mem::take(&mut chunk.errors) {
                self.note(error, &chunk.file, Some(&shown))?;
            }
            self.note_lost(&shown, field.as_ref(), &mut chunk);
            loaded.damaged.push((namespace, key.clone(), chunk));
        }
        loaded.documents.push((namespace, key.clone(), documents));
        loaded.collections.push((namespace, key, collection));
        Ok(())
    }

    fn note_lost(&mut self, key: &Key, field: Option<&Bytes>, chunk: &mut DamagedChunk) {
        let named = std::mem::take(&mut chunk.salvage.lost);
        let mut bare = std::mem::take(&mut chunk.salvage.without_attributes);
        let wordless = std::mem::take(&mut chunk.salvage.without_text);
        let lost = named.len() + chunk.salvage.unnamed;
        let of_field = field.map(|field| {
            // The attributes in a field are copies.
            bare.clear();
            format!("vectors of the field {} cannot be read", field.escape_ascii())
        });
        for (count, what, elements) in [
            (lost, of_field.as_deref().unwrap_or("elements cannot be read"), named),
            (bare.len(), "elements lose their attributes", bare),
            (wordless.len(), "elements lose their texts", wordless),
        ] {
            if count > 0 {
                let damage = damage_at(&chunk.file, 0, format!("{count} {what}"), Some(key));
                self.damages.push(Damage { offset: None, elements, ..damage });
            }
        }
    }

    fn compare_chunk_files(&mut self, manifest: &Manifest, loaded: &Loaded) {
        let named: HashSet<&String> = manifest.chunk_files.iter().map(|(name, _)| name).collect();
        for (file, what) in named
            .iter()
            .filter(|name| !loaded.files.contains(**name))
            .map(|name| (*name, "no collection that can be read has this chunk file"))
            .chain(
                loaded
                    .files
                    .iter()
                    .filter(|name| !named.contains(name))
                    .map(|name| (name, "is not in the manifest")),
            )
        {
            self.damage(file, None, what);
        }
    }

    /// Makes the state that the log goes on from.
    fn begin(&mut self, state_file: &str, mut loaded: Loaded, sequence: u64) {
        let next_uid =
            loaded.collections.iter().map(|(_, _, collection)| collection.uid + 1).max().unwrap_or(0);
        let last_stamp =
            loaded.collections.iter().map(|(_, _, collection)| collection.stamp).max().unwrap_or(0);
        let head = loaded.head.unwrap_or_else(|| Snapshot::at(last_stamp, next_uid));
        let (stamp, head_uid) = (head.stamp, head.next_uid);
        if head_uid < next_uid {
            self.damage(state_file, None, "a collection has a number that was not given out yet");
        }
        let mut snapshot = Snapshot::at(stamp.max(last_stamp), head_uid.max(next_uid));
        snapshot.users = head.users;
        let mut uids = HashSet::new();
        for (namespace, key, collection) in loaded.collections {
            if !snapshot.has_owner(namespace, &key) {
                let (key, _) = shown(namespace, &key);
                self.damage(state_file, Some(&key), "a field's collection is lost, and the field with it");
                continue;
            }
            if snapshot.get(namespace, &key).is_some() || !uids.insert(collection.uid) {
                self.damage(state_file, Some(&key), "two collections have the same key or number");
                continue;
            }
            snapshot.insert(namespace, key, collection.into());
        }
        snapshot.sequence = sequence;
        self.last_sequence = sequence;
        self.state = State::new(snapshot);
        let is_damaged = !loaded.damaged.is_empty() || !loaded.incomplete.is_empty();
        for (namespace, key, chunk) in loaded.damaged {
            self.add_rows(namespace, &key, chunk);
            loaded.incomplete.push((namespace, key));
        }
        for (namespace, key) in loaded.incomplete {
            self.drop_empty(namespace, key);
        }
        for (namespace, key, documents) in loaded.documents {
            for (uri, document) in documents {
                let (key, uri, document) = (key.clone(), uri.into(), Some(document));
                self.state.apply(&Change::SetDocument { namespace, key, uri, document }, None);
            }
        }
        if is_damaged {
            self.state.follow_all();
        }
        self.check_collections(state_file);
    }

    /// Adds the rows of a damaged chunk to their collection anew.
    fn add_rows(&mut self, namespace: NamespaceId, key: &Key, chunk: DamagedChunk) {
        let Some(params) = self.state.view().get(namespace, key).map(|collection| collection.params) else {
            return;
        };
        for row in chunk.salvage.rows {
            let element = Bytes::from(row.name);
            let name = element.clone();
            let expiry = Change::ExpireElement {
                namespace,
                key: key.clone(),
                element: element.clone(),
                at_ms: row.expires_ms,
            };
            let change = Change::Add {
                namespace,
                key: key.clone(),
                params,
                element,
                vector: row.vector,
                attributes: AttributeChange::Set(row.attributes),
                text: TextChange::Set(row.text),
                model: None,
            };
            self.state.apply(&change, None);
            self.state.apply(&expiry, None);
            if let Some(sparse) = row.sparse.filter(|sparse| is_sound(sparse)) {
                self.state
                    .apply(&Change::SetSparse { namespace, key: key.clone(), element: name, sparse }, None);
            }
        }
    }

    /// A collection that has lost all its elements goes, unless it was made to stay.
    fn drop_empty(&mut self, namespace: NamespaceId, key: Key) {
        let ends = |found: &Arc<Collection>| found.is_empty() && !found.params.declared;
        if !namespace.holds_fields() && self.state.view().get(namespace, &key).is_some_and(ends) {
            self.state.apply(&Change::Drop { namespace, key }, None);
        }
    }

    /// Checks what no checksum can tell.
    fn check_collections(&mut self, state_file: &str) {
        let mut found = Vec::new();
        for (namespace, key, collection) in self.state.view().collections() {
            let (key, _) = shown(namespace, key);
            if collection.chunks.last().is_some_and(|chunk| chunk.number >= collection.next_chunk) {
                found.push((key.clone(), "a chunk has a number that was not given out yet".to_owned()));
            }
            let doubled = collection.live_rows().filter(|&row| is_doubled(collection, row)).count();
            if doubled > 0 {
                found.push((key.clone(), format!("{doubled} elements are there twice")));
            }
        }
        for (key, what) in found {
            self.damage(state_file, Some(&key), what);
        }
    }

    fn log(&mut self) -> Result<(), StoreError> {
        let disk = self.disk;
        for (name, len_bytes) in own_files(disk)? {
            self.files += u64::from(parse_log_name(&name).is_some() && len_bytes > 0);
        }
        salvage::log_records(disk, self.last_sequence, |piece| {
            match piece {
                LogPiece::Damage(error) => self.note(error.into(), "", None)?,
                LogPiece::Torn(cut) => self.notes.push(format!(
                    "{} ends in {} bytes of an unfinished record at byte {}, as a crash leaves it; a start cuts them off",
                    cut.file, cut.bytes, cut.offset
                )),
                LogPiece::Record { file, offset, sequence, payload } => {
                    (self.on_bytes)(payload.len() as u64);
                    self.record(&|what, key| damage_at(file, offset, what, key), sequence, payload);
                }
            }
            Ok(())
        })
    }

    /// Applies a log record. `damage` makes what is noted of it.
    fn record(&mut self, damage: &dyn Fn(String, Option<&Key>) -> Damage, sequence: u64, payload: &[u8]) {
        let expected = self.last_sequence + 1;
        if sequence != expected {
            self.broken = true;
            let lost = if sequence == expected + 1 {
                format!("log record {expected} is lost")
            } else {
                format!("log records {expected} to {} are lost", sequence - 1)
            };
            self.damages.push(damage(lost, None));
        }
        self.last_sequence = sequence;
        let changes = match change::decode_payload(payload) {
            Ok(changes) => changes,
            Err(error) => {
                self.broken = true;
                return self.damages.push(damage(format!("record {sequence}: {error}"), None));
            }
        };
        if self.broken && !self.skip_damaged {
            return self.skip(&changes);
        }
        for change in &changes {
            if !self.state.accepts(change) {
                self.broken = true;
                let what = format!("record {sequence} adds a vector that does not fit its collection");
                return self.damages.push(damage(what, change.key()));
            }
            self.state.apply(change, None);
        }
        self.state.set_sequence(sequence);
        self.records += 1;
        if self.records.is_multiple_of(PUBLISH_EVERY_RECORDS) {
            self.state.publish(|_| {});
        }
    }

    fn skip(&mut self, changes: &[Change]) {
        self.skipped_records += 1;
        for key in changes.iter().filter_map(Change::key) {
            if self.skipped_keys.len() < MAX_SKIPPED_KEYS
                && !self.skipped_keys.iter().any(|known| known[..] == *key.name())
            {
                self.skipped_keys.push(Bytes::copy_from_slice(key.name()));
            }
        }
    }

    fn finish(mut self, checkpoint_sequence: u64) -> Survey {
        if self.skipped_records > 0 {
            let keys: Vec<String> =
                self.skipped_keys.iter().map(|key| key.escape_ascii().to_string()).collect();
            self.notes.push(format!(
                "{} good log records follow a lost one (up to record {}); they change the keys {}",
                self.skipped_records,
                self.last_sequence,
                keys.join(" ")
            ));
        }
        let mut snapshot = Arc::default();
        self.state.publish(|published| snapshot = published);
        Survey {
            snapshot: Snapshot::clone(&snapshot),
            damages: self.damages,
            notes: self.notes,
            checkpoint_sequence,
            records: self.records,
            skipped_records: self.skipped_records,
            files: self.files,
        }
    }
}

fn damage_at(file: &str, offset: u64, what: String, key: Option<&Key>) -> Damage {
    let key = key.map(|key| Bytes::copy_from_slice(key.name()));
    Damage { file: file.to_owned(), offset: Some(offset), what, key, elements: Vec::new() }
}

/// The key that people know, and the field if the collection at a place is one.
fn shown(namespace: NamespaceId, key: &Key) -> (Key, Option<Bytes>) {
    match fields::owner(namespace, key) {
        Some((_, key, field)) => (key, Some(field)),
        None => (key.clone(), None),
    }
}

/// Whether another live row has the same name.
fn is_doubled(collection: &Collection, row: RowId) -> bool {
    collection.find(collection.name(row)) != Found::Row(row)
}
