//! A disk for tests, in memory. It knows for every byte and every name whether it is durable, so that a power cut can be
//! tried at any moment: what was not synced may be lost in any part. Operations are counted and can be made to fail.
//!
//! A power cut leaves each sector of 512 bytes of a file as it was at some time since it was durable; sectors that are
//! lost beyond the durable end read as zeros or are missing. Of the names created, renamed and removed since the folder
//! was synced, any subset has changed. After a failed sync no later sync makes those sectors durable: only writing to
//! them again does.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rkyv::util::AlignedVec;

use super::format::{SECTION_ALIGN, folder_of};
use super::{Disk, DiskError, DiskFile, DiskSync, replay};

/// The smallest piece of a file that a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// Files and names, as they are seen and as they are durable.
#[derive(Clone, Default)]
pub(crate) struct Image {
    files: Vec<Arc<Content>>,
    folders: BTreeSet<String>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Since the folder was synced, in order.
    unsynced_names: Vec<NameChange>,
}

#[derive(Clone, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Since the file was synced, in order.
    unsynced: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    /// `given_up`: a sync of it failed.
    Write {
        at: usize,
        bytes: Vec<u8>,
        given_up: bool,
    },
    Cut(usize),
}

#[derive(Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn folder(&self) -> &str {
        let (Self::Create(name, _) | Self::Rename(name, ..) | Self::Remove(name)) = self;
        folder_of(name)
    }

    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Rename(from, to, file) => {
                // The old name may have been lost before, or given to another file since.
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl Content {
    fn write(&mut self, at: usize, bytes: &[u8]) {
        overlay(&mut self.live, at, bytes);
        self.unsynced.push(Change::Write { at, bytes: bytes.to_vec(), given_up: false });
    }

    fn cut(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.unsynced.push(Change::Cut(len));
    }

    fn sync(&mut self) {
        let mut kept = Vec::new();
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Write { given_up: true, .. } => kept.push(change),
                Change::Write { at, bytes, .. } => {
                    // A sector is written as it is now, with what was in it before.
                    let start = at / SECTOR_BYTES * SECTOR_BYTES;
                    let end = (at + bytes.len()).next_multiple_of(SECTOR_BYTES).min(self.live.len());
                    if start < end {
                        overlay(&mut self.durable, start, &self.live[start..end]);
                    }
                }
                Change::Cut(len) => {
                    self.durable.truncate(len);
                    kept.retain(|change| matches!(change, Change::Write { at, .. } if *at < len));
                }
            }
        }
        self.durable.resize(self.live.len(), 0);
        self.unsynced = kept;
    }

    fn fail_sync(&mut self) {
        for change in &mut self.unsynced {
            if let Change::Write { given_up, .. } = change {
                *given_up = true;
            }
        }
    }

    /// The content after a power cut; `survives` decides for each sector and each step.
    fn after_power_cut(&self, survives: &mut impl FnMut() -> bool) -> Vec<u8> {
        let mut content = self.durable.clone();
        let mut lost = BTreeSet::new();
        for change in &self.unsynced {
            match change {
                Change::Write { at, bytes, .. } => {
                    for piece in sectors(*at..at + bytes.len()) {
                        let sector = piece.start / SECTOR_BYTES;
                        if !lost.contains(&sector) && survives() {
                            overlay(&mut content, piece.start, &bytes[piece.start - at..piece.end - at]);
                        } else {
                            lost.insert(sector);
                        }
                    }
                }
                Change::Cut(len) if survives() => content.truncate(*len),
                Change::Cut(_) => {}
            }
        }
        if content.len() < self.live.len() && survives() {
            content.resize(self.live.len(), 0);
        }
        content
    }
}

/// The parts of a range of a file, sector by sector.
fn sectors(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let numbers = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
    numbers.map(move |number| {
        let start = number * SECTOR_BYTES;
        start.max(range.start)..(start + SECTOR_BYTES).min(range.end)
    })
}

fn overlay(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Image {
    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn content(&mut self, name: &str) -> io::Result<&mut Content> {
        let file = self.find(name)?;
        Ok(Arc::make_mut(&mut self.files[file]))
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn of(files: BTreeMap<String, Vec<u8>>, folders: BTreeSet<String>) -> Self {
        let mut image = Self { folders, ..Self::default() };
        for (name, content) in files {
            image.names.insert(name, image.files.len());
            let durable = content.clone();
            image.files.push(Arc::new(Content { live: content, durable, unsynced: Vec::new() }));
        }
        image.durable_names = image.names.clone();
        image
    }

    /// What the end of the process leaves: all that was written, as durable as it was.
    pub(crate) fn after_kill(&self) -> SimDisk {
        SimDisk::from(self.clone())
    }

    /// What a power cut may leave: with seed 0 only what is durable, with seed 1 everything, else random parts.
    pub(crate) fn after_power_cut(&self, seed: u64) -> SimDisk {
        let mut random = seed;
        let mut survives = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match seed {
                0 => false,
                1 => true,
                // Mostly lost, half, or mostly kept.
                _ => (random >> 33) % 4 <= seed % 3,
            }
        };
        let mut names = self.durable_names.clone();
        for change in &self.unsynced_names {
            if survives() {
                change.apply(&mut names);
            }
        }
        let content = |file: usize, survives: &mut _| self.files[file].after_power_cut(survives);
        let files = names.into_iter().map(|(name, file)| (name, content(file, &mut survives))).collect();
        SimDisk::from(Self::of(files, self.folders.clone()))
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It does nothing, and this is what the operating system says.
    Refused(i32),
    /// A write stops in its middle; other operations do nothing.
    Short,
}

/// A moment in the life of a disk.
pub(crate) struct Moment {
    /// The disk after an operation.
    pub(crate) image: Image,
    /// What [`SimDisk::mark`] was last told.
    pub(crate) mark: (u64, u64),
}

#[derive(Default)]
struct Inner {
    image: Image,
    operations: u64,
    /// Operations that fail, by their numbers.
    failing: Option<(Range<u64>, Fault)>,
    fail_writes: bool,
    fail_syncs: bool,
    mark: (u64, u64),
    /// A moment after each operation that changed something.
    moments: Option<Vec<Moment>>,
}

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

impl From<Image> for SimDisk {
    fn from(image: Image) -> Self {
        Self(Arc::new(Mutex::new(Inner { image, ..Inner::default() })))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Change,
    Write,
    Sync,
}

impl Inner {
    /// Counts an operation. An error if it is to fail, true if it is to stop in its middle.
    fn begin(&mut self, kind: Kind) -> io::Result<bool> {
        let number = self.operations;
        self.operations += 1;
        match &self.failing {
            Some((failing, fault)) if failing.contains(&number) => match fault {
                Fault::Refused(errno) => Err(io::Error::from_raw_os_error(*errno)),
                Fault::Short => Ok(true),
            },
            _ => Ok((self.fail_writes && kind == Kind::Write) || (self.fail_syncs && kind == Kind::Sync)),
        }
    }

    fn note_moment(&mut self, kind: Kind) {
        if let Some(moments) = &mut self.moments
            && kind != Kind::Read
        {
            moments.push(Moment { image: self.image.clone(), mark: self.mark });
        }
    }
}

impl SimDisk {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk as it is now.
    pub(crate) fn image(&self) -> Image {
        self.inner().image.clone()
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// The operations with these numbers (the first is 0) fail.
    pub(crate) fn fail(&self, operations: Range<u64>, fault: Fault) {
        self.inner().failing = Some((operations, fault));
    }

    /// Whether an operation that was to fail has been asked for.
    pub(crate) fn has_failed(&self) -> bool {
        let inner = self.inner();
        inner.failing.as_ref().is_some_and(|(failing, _)| failing.start < inner.operations)
    }

    /// From now on writes fail in their middle, or work.
    pub(crate) fn fail_writes(&self, fail: bool) {
        self.inner().fail_writes = fail;
    }

    /// From now on syncs fail, or work.
    pub(crate) fn fail_syncs(&self, fail: bool) {
        self.inner().fail_syncs = fail;
    }

    /// Keeps every moment from now on.
    pub(crate) fn record(&self) {
        self.inner().moments = Some(Vec::new());
    }

    /// Notes two numbers with the moments to come.
    pub(crate) fn mark(&self, mark: (u64, u64)) {
        self.inner().mark = mark;
    }

    /// The moments kept.
    pub(crate) fn moments(&self) -> Vec<Moment> {
        self.inner().moments.take().unwrap_or_default()
    }

    /// Sets the content of a file, past all rules.
    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let image = &mut self.inner().image;
        let content = Content { live: content.to_vec(), durable: content.to_vec(), unsynced: Vec::new() };
        image.names.insert(name.to_owned(), image.files.len());
        image.durable_names.insert(name.to_owned(), image.files.len());
        image.files.push(Arc::new(content));
    }

    /// Removes all files, past all rules.
    pub(crate) fn clear(&self) {
        self.inner().image = Image::default();
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.inner().image.names.keys().cloned().collect()
    }

    fn operate<T>(&self, kind: Kind, act: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        let mut inner = self.inner();
        if inner.begin(kind)? {
            return Err(io::Error::other("a simulated failure"));
        }
        let done = act(&mut inner.image)?;
        inner.note_moment(kind);
        Ok(done)
    }

    fn named<T>(
        &self,
        name: &str,
        kind: Kind,
        act: impl FnOnce(&mut Image) -> io::Result<T>,
    ) -> Result<T, DiskError> {
        self.operate(kind, act).map_err(|error| DiskError::io(name, error))
    }

    fn sync(&self, file: usize) -> io::Result<()> {
        let synced = self.operate(Kind::Sync, |image| {
            Arc::make_mut(&mut image.files[file]).sync();
            Ok(())
        });
        if synced.is_err() {
            Arc::make_mut(&mut self.inner().image.files[file]).fail_sync();
        }
        synced
    }
}

/// The payloads that a replay from `from_sequence` hands over.
pub(super) fn payloads(disk: &dyn Disk, from_sequence: u64) -> Result<Vec<Vec<u8>>, DiskError> {
    let mut found = Vec::new();
    replay::replay(disk, from_sequence, |_, payload| {
        found.push(payload.to_vec());
        Ok::<(), DiskError>(())
    })?;
    Ok(found)
}

impl Disk for SimDisk {
    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.named(name, Kind::Change, |image| {
            if image.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if !folder_of(name).is_empty() && !image.folders.contains(folder_of(name)) {
                return Err(io::ErrorKind::NotFound.into());
            }
            image.files.push(Arc::default());
            let file = image.files.len() - 1;
            image.change_name(NameChange::Create(name.to_owned(), file));
            Ok(file)
        })?;
        Ok(Box::new(SimFile { disk: self.clone(), file }))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        self.named(name, Kind::Read, |image| Ok(image.content(name)?.live.clone()))
    }

    fn map(&self, name: &str) -> Result<Bytes, DiskError> {
        self.named(name, Kind::Read, |image| {
            let content = &image.content(name)?.live;
            let mut pages = AlignedVec::<SECTION_ALIGN>::with_capacity(content.len());
            pages.extend_from_slice(content);
            Ok(Bytes::from_owner(pages))
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.named(from, Kind::Change, |image| {
            let file = image.find(from)?;
            image.change_name(NameChange::Rename(from.to_owned(), to.to_owned(), file));
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.named(name, Kind::Change, |image| {
            image.find(name)?;
            image.change_name(NameChange::Remove(name.to_owned()));
            Ok(())
        })
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        self.named(folder, Kind::Read, |image| {
            Ok(image.names.keys().filter(|name| folder_of(name) == folder).cloned().collect())
        })
    }

    fn create_folder(&self, name: &str) -> Result<(), DiskError> {
        self.named(name, Kind::Change, |image| {
            image.folders.insert(name.to_owned());
            Ok(())
        })
    }

    fn sync_folder(&self, folder: &str) -> Result<(), DiskError> {
        self.named(folder, Kind::Sync, |image| {
            for change in std::mem::take(&mut image.unsynced_names) {
                if change.folder() == folder {
                    change.apply(&mut image.durable_names);
                } else {
                    image.unsynced_names.push(change);
                }
            }
            Ok(())
        })
    }

    fn len_bytes(&self, name: &str) -> Result<u64, DiskError> {
        self.named(name, Kind::Read, |image| Ok(image.content(name)?.live.len() as u64))
    }

    fn truncate(&self, name: &str, len_bytes: u64) -> Result<(), DiskError> {
        let len = usize::try_from(len_bytes).unwrap();
        self.named(name, Kind::Change, |image| {
            image.content(name)?.cut(len);
            Ok(())
        })
    }

    fn rewrite(&self, name: &str, offset: u64) -> Result<(), DiskError> {
        let offset = usize::try_from(offset).unwrap();
        self.named(name, Kind::Change, |image| {
            let content = image.content(name)?;
            let again = content.live[offset..].to_vec();
            content.write(offset, &again);
            Ok(())
        })
    }

    fn sync_file(&self, name: &str) -> Result<(), DiskError> {
        let file = self.inner().image.find(name);
        file.and_then(|file| self.sync(file)).map_err(|error| DiskError::io(name, error))
    }
}

/// An open file; also its own syncer.
struct SimFile {
    disk: SimDisk,
    file: usize,
}

impl DiskFile for SimFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let short = inner.begin(Kind::Write)?;
        let written = if short { &bytes[..bytes.len() / 2] } else { bytes };
        let content = Arc::make_mut(&mut inner.image.files[self.file]);
        content.write(content.live.len(), written);
        inner.note_moment(Kind::Write);
        if short { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(self.file)
    }

    fn syncer(&self) -> io::Result<Box<dyn DiskSync>> {
        Ok(Box::new(Self { disk: self.disk.clone(), file: self.file }))
    }
}

impl DiskSync for SimFile {
    fn sync_data(&self) -> io::Result<()> {
        self.disk.sync(self.file)
    }
}
