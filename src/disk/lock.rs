//! The lock that keeps a second server off a data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use super::DiskError;

/// Name of the lock file. It stays in the folder; only the lock on it counts, and that ends with the process.
pub const LOCK_FILE: &str = "LOCK";

/// An exclusive lock of a folder, held until dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

impl FolderLock {
    /// Locks `dir` without waiting.
    ///
    /// # Errors
    /// [`DiskError::Locked`] if it is held already, [`DiskError::Io`] if the lock file cannot be opened or
    /// locked.
    pub fn acquire(dir: &Path) -> Result<Self, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(dir.join(LOCK_FILE)).map_err(|e| DiskError::io(LOCK_FILE, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(DiskError::Locked { path: dir.to_owned() }),
            Err(TryLockError::Error(error)) => Err(DiskError::io(LOCK_FILE, error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_exclusive_and_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let held = FolderLock::acquire(dir.path()).unwrap();
        let error = FolderLock::acquire(dir.path()).unwrap_err();
        assert!(error.to_string().ends_with("is in use by another server"));
        drop(held);
        FolderLock::acquire(dir.path()).unwrap();
    }
}
