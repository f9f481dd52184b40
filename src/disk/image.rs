//! The files of a data folder as they were at one moment, while a server may be writing there.
//!
//! Sealed chunks and state files never change, a manifest is replaced as a whole, and a log file only grows. So the
//! files are mapped, which keeps them even if a checkpoint removes them, and it is looked again: if manifest and log
//! files are still those from before, everything mapped belongs together.

use std::collections::BTreeMap;
use std::io;
use std::thread::sleep;
use std::time::Duration;

use bytes::Bytes;

use super::format::{MANIFEST_FILE, folder_of, log_name};
use super::replay::{LogFile, log_files};
use super::{Disk, DiskError, DiskFile, manifest};

/// How often it is tried to get files that belong together: each failure means that a checkpoint came in between.
const MAX_ATTEMPTS: usize = 100;
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Files that belong together: a checkpoint and the log after it. A [`Disk`] that nothing can change.
#[derive(Default)]
pub struct Image {
    files: BTreeMap<String, Bytes>,
}

/// What tells whether a checkpoint came in between: the manifest, and the first sequences of the log files.
type Mark = (Option<Vec<u8>>, Vec<u64>);

impl Image {
    /// The files of a folder as they are now. The log ends with its last whole record.
    ///
    /// # Errors
    /// When the manifest is damaged, a file is missing, or the system refuses.
    pub fn capture(disk: &dyn Disk) -> Result<Self, DiskError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let before = mark(disk)?;
            match gather(disk, &before) {
                Ok(image) if mark(disk)? == before => return Ok(image),
                Err(error) if !error.is_not_found() || attempt == MAX_ATTEMPTS => return Err(error),
                _ if attempt == MAX_ATTEMPTS => {
                    let busy = io::Error::other("the folder changes faster than it can be looked at");
                    return Err(DiskError::io(MANIFEST_FILE, busy));
                }
                _ => sleep(PAUSE),
            }
        }
    }

    /// The files by name, relative to the data folder.
    pub fn files(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes))
    }

    /// Adds a file.
    pub(super) fn insert(&mut self, name: String, bytes: Bytes) {
        self.files.insert(name, bytes);
    }

    fn get(&self, name: &str) -> Result<&Bytes, DiskError> {
        self.files.get(name).ok_or_else(|| DiskError::io(name, io::ErrorKind::NotFound.into()))
    }
}

fn mark(disk: &dyn Disk) -> Result<Mark, DiskError> {
    let manifest = match disk.read(MANIFEST_FILE) {
        Err(error) if error.is_not_found() => None,
        other => Some(other?),
    };
    Ok((manifest, log_files(disk)?))
}

fn gather(disk: &dyn Disk, (manifest, logs): &Mark) -> Result<Image, DiskError> {
    let mut image = Image::default();
    let mut sequence = 0;
    if let Some(bytes) = manifest {
        let manifest = manifest::decode(bytes)?;
        sequence = manifest.sequence;
        image.insert(MANIFEST_FILE.to_owned(), Bytes::from(bytes.clone()));
        for name in manifest.chunk_files.iter().map(|(name, _)| name).chain([&manifest.state_file]) {
            image.insert(name.clone(), disk.map(name)?);
        }
    }
    // A log file ends where the next one begins.
    let start = logs.partition_point(|&first| first <= sequence.saturating_add(1)).saturating_sub(1);
    for (index, &first) in logs.iter().enumerate().skip(start) {
        let name = log_name(first);
        let bytes = if index + 1 == logs.len() { whole_records(disk, first)? } else { disk.map(&name)? };
        image.insert(name, bytes);
    }
    Ok(image)
}

/// The last log file without a record that is just being written. Damage in it stays.
fn whole_records(disk: &dyn Disk, first_sequence: u64) -> Result<Bytes, DiskError> {
    let file = LogFile::open(disk, first_sequence)?;
    let end = file.walk(None, |_, _| Ok::<(), DiskError>(()))?;
    Ok(if file.is_damaged(&end) { file.bytes } else { file.bytes.slice(..end.offset) })
}

fn refused(name: &str) -> DiskError {
    DiskError::io(name, io::ErrorKind::ReadOnlyFilesystem.into())
}

impl Disk for Image {
    fn is_read_only(&self) -> bool {
        true
    }

    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        Err(refused(name))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        self.get(name).map(|bytes| bytes.to_vec())
    }

    fn map(&self, name: &str) -> Result<Bytes, DiskError> {
        self.get(name).cloned()
    }

    fn rename(&self, from: &str, _: &str) -> Result<(), DiskError> {
        Err(refused(from))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        Err(refused(name))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        Ok(self.files.keys().filter(|name| folder_of(name) == folder).cloned().collect())
    }

    fn create_folder(&self, name: &str) -> Result<(), DiskError> {
        Err(refused(name))
    }

    fn sync_folder(&self, folder: &str) -> Result<(), DiskError> {
        Err(refused(folder))
    }

    fn len_bytes(&self, name: &str) -> Result<u64, DiskError> {
        self.get(name).map(|bytes| bytes.len() as u64)
    }

    fn truncate(&self, name: &str, _: u64) -> Result<(), DiskError> {
        Err(refused(name))
    }

    fn rewrite(&self, name: &str, _: u64) -> Result<(), DiskError> {
        Err(refused(name))
    }

    fn sync_file(&self, name: &str) -> Result<(), DiskError> {
        Err(refused(name))
    }
}
