//! A data folder in memory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rkyv::util::AlignedVec;
use vecdis::disk::{Disk, DiskError, DiskFile, DiskSync};

type Content = Arc<Mutex<Vec<u8>>>;

/// Files by name. Everything is durable at once.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, Content>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl MemoryDisk {
    /// All files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        lock(&self.files).iter().map(|(name, content)| (name.clone(), lock(content).clone())).collect()
    }

    /// Adds or replaces a file.
    pub fn put(&self, name: &str, content: Vec<u8>) {
        lock(&self.files).insert(name.to_owned(), Arc::new(Mutex::new(content)));
    }

    fn get(&self, name: &str) -> Result<Content, DiskError> {
        let found = lock(&self.files).get(name).cloned();
        found.ok_or_else(|| DiskError::io(name, io::ErrorKind::NotFound.into()))
    }
}

/// Bytes aligned as those of a mapped file.
struct Mapped(AlignedVec<4096>);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Disk for MemoryDisk {
    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        if self.get(name).is_ok() {
            return Err(DiskError::io(name, io::ErrorKind::AlreadyExists.into()));
        }
        self.put(name, Vec::new());
        Ok(Box::new(File(self.get(name)?)))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        Ok(lock(&*self.get(name)?).clone())
    }

    fn map(&self, name: &str) -> Result<Bytes, DiskError> {
        let mut mapped = AlignedVec::new();
        mapped.extend_from_slice(&self.read(name)?);
        Ok(Bytes::from_owner(Mapped(mapped)))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let content = self.get(from)?;
        let mut files = lock(&self.files);
        files.remove(from);
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.get(name)?;
        lock(&self.files).remove(name);
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        let is_in = |name: &&String| name.rsplit_once('/').map_or("", |(folder, _)| folder) == folder;
        Ok(lock(&self.files).keys().filter(is_in).cloned().collect())
    }

    fn create_folder(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_folder(&self, _: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn len_bytes(&self, name: &str) -> Result<u64, DiskError> {
        Ok(lock(&*self.get(name)?).len() as u64)
    }

    fn truncate(&self, name: &str, len_bytes: u64) -> Result<(), DiskError> {
        lock(&*self.get(name)?).truncate(usize::try_from(len_bytes).expect("it fits into memory"));
        Ok(())
    }

    fn rewrite(&self, name: &str, _: u64) -> Result<(), DiskError> {
        self.get(name).map(drop)
    }

    fn sync_file(&self, name: &str) -> Result<(), DiskError> {
        self.get(name).map(drop)
    }
}

struct File(Content);

impl DiskFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn syncer(&self) -> io::Result<Box<dyn DiskSync>> {
        Ok(Box::new(Self(Arc::clone(&self.0))))
    }
}

impl DiskSync for File {
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
