//! The lock that keeps a second server off a data folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use super::DiskError;

/// Name of the lock file. It stays in the folder; only the lock on it counts, and that ends with the process.
pub const LOCK_FILE: &str = "LOCK";

/// A lock of a folder, held until dropped: exclusive for the one that writes, shared by those that only read.
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
        let locked = file.try_lock();
        Self::held(dir, file, locked)
    }

    /// Keeps those that write off `dir`, without changing anything: `None` if there is no lock file, as in a folder that
    /// no server has used. Works on a read-only file system.
    ///
    /// # Errors
    /// [`DiskError::Locked`] if somebody writes there, [`DiskError::Io`] otherwise.
    pub fn share(dir: &Path) -> Result<Option<Self>, DiskError> {
        let file = match File::open(dir.join(LOCK_FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| DiskError::io(LOCK_FILE, e))?,
        };
        let locked = file.try_lock_shared();
        Self::held(dir, file, locked).map(Some)
    }

    fn held(dir: &Path, file: File, locked: Result<(), TryLockError>) -> Result<Self, DiskError> {
        match locked {
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
        assert!(matches!(FolderLock::share(dir.path()), Err(DiskError::Locked { .. })));
        drop(held);
        FolderLock::acquire(dir.path()).unwrap();
    }

    #[test]
    fn readers_share_the_lock_and_make_no_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(FolderLock::share(dir.path()).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(FolderLock::acquire(dir.path()).unwrap());
        let readers = [FolderLock::share(dir.path()).unwrap(), FolderLock::share(dir.path()).unwrap()];
        assert!(readers.iter().all(Option::is_some));
        assert!(matches!(FolderLock::acquire(dir.path()), Err(DiskError::Locked { .. })));
        drop(readers);
        FolderLock::acquire(dir.path()).unwrap();
    }
}
