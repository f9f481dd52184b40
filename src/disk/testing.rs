//! A disk for tests: a real folder that is removed at the end, whose writes and syncs can be made to fail.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{Disk, DiskError, DiskFile, DiskSync, RealDisk, replay};

/// See the module.
pub(super) struct FailingDisk {
    disk: RealDisk,
    dir: tempfile::TempDir,
    faults: Faults,
}

#[derive(Clone, Default)]
struct Faults {
    writes: Arc<AtomicBool>,
    syncs: Arc<AtomicBool>,
}

impl FailingDisk {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { disk: RealDisk::open(dir.path()).unwrap(), dir, faults: Faults::default() }
    }

    /// From now on writes fail in their middle, or work.
    pub(super) fn fail_writes(&self, fail: bool) {
        self.faults.writes.store(fail, Ordering::SeqCst);
    }

    /// From now on syncs fail, or work.
    pub(super) fn fail_syncs(&self, fail: bool) {
        self.faults.syncs.store(fail, Ordering::SeqCst);
    }

    /// Sets the content of a file, past all rules.
    pub(super) fn put(&self, name: &str, content: &[u8]) {
        std::fs::write(self.dir.path().join(name), content).unwrap();
    }

    /// Removes all files of the folder, past all rules.
    pub(super) fn clear(&self) {
        for name in self.disk.list("").unwrap() {
            self.disk.remove(&name).unwrap();
        }
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

impl Disk for FailingDisk {
    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.disk.create_new(name)?;
        Ok(Box::new(FailingFile { file, faults: self.faults.clone() }))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        self.disk.read(name)
    }

    fn map(&self, name: &str) -> Result<Bytes, DiskError> {
        self.disk.map(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(folder)
    }

    fn create_folder(&self, name: &str) -> Result<(), DiskError> {
        self.disk.create_folder(name)
    }

    fn sync_folder(&self, folder: &str) -> Result<(), DiskError> {
        self.disk.sync_folder(folder)
    }

    fn len_bytes(&self, name: &str) -> Result<u64, DiskError> {
        self.disk.len_bytes(name)
    }

    fn truncate(&self, name: &str, len_bytes: u64) -> Result<(), DiskError> {
        self.disk.truncate(name, len_bytes)
    }

    fn sync_file(&self, name: &str) -> Result<(), DiskError> {
        self.disk.sync_file(name)
    }
}

struct FailingFile {
    file: Box<dyn DiskFile>,
    faults: Faults,
}

impl DiskFile for FailingFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.faults.writes.load(Ordering::SeqCst) {
            self.file.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write_all(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.faults.check_sync()?;
        self.file.sync_data()
    }

    fn syncer(&self) -> io::Result<Box<dyn DiskSync>> {
        Ok(Box::new(FailingSync { file: self.file.syncer()?, faults: self.faults.clone() }))
    }
}

struct FailingSync {
    file: Box<dyn DiskSync>,
    faults: Faults,
}

impl DiskSync for FailingSync {
    fn sync_data(&self) -> io::Result<()> {
        self.faults.check_sync()?;
        self.file.sync_data()
    }
}

impl Faults {
    fn check_sync(&self) -> io::Result<()> {
        if self.syncs.load(Ordering::SeqCst) { Err(io::Error::other("a sync failed")) } else { Ok(()) }
    }
}
