//! The file system of the operating system as a [`Disk`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use super::lock::FolderLock;
use super::{Disk, DiskError, DiskFile, DiskSync, map};

/// Bytes that [`Disk::rewrite`] reads and writes at once.
const REWRITE_BUFFER_BYTES: usize = 1 << 20;

/// A data folder, locked for this process for as long as the value lives.
#[derive(Debug)]
pub struct RealDisk {
    root: PathBuf,
    /// Nothing in the folder is changed.
    read_only: bool,
    _lock: Option<FolderLock>,
}

impl RealDisk {
    /// Creates the folder if it is missing and locks it.
    ///
    /// # Errors
    /// [`DiskError::Locked`] if another server uses the folder, [`DiskError::Io`] otherwise.
    pub fn open(dir: &Path) -> Result<Self, DiskError> {
        let new = !dir.exists();
        fs::create_dir_all(dir).map_err(|e| DiskError::io(&dir.to_string_lossy(), e))?;
        if new && let Err(error) = sync_parent(dir) {
            // Not every parent may be opened by us; the folder itself is usable.
            tracing::warn!(folder = %dir.display(), %error, "could not make the new data folder durable");
        }
        let lock = FolderLock::acquire(dir)?;
        Ok(Self { root: dir.to_owned(), read_only: false, _lock: Some(lock) })
    }

    /// A folder that is there and in which nothing is changed: whatever would change it is refused. Several may read the
    /// same folder so; nobody writes there meanwhile, unless the folder had no lock file.
    ///
    /// # Errors
    /// [`DiskError::Locked`] if a server writes there, [`DiskError::Io`] if it is not a folder that can be read.
    pub fn open_read_only(dir: &Path) -> Result<Self, DiskError> {
        fs::read_dir(dir).map_err(|e| DiskError::io(&dir.to_string_lossy(), e))?;
        let lock = FolderLock::share(dir)?;
        Ok(Self { root: dir.to_owned(), read_only: true, _lock: lock })
    }

    /// A folder in which nothing is changed, without a lock: a server may be writing there. Files come and go, and the
    /// log grows; see [`super::image`].
    ///
    /// # Errors
    /// [`DiskError::Io`] if it is not a folder that can be read.
    pub fn open_beside_server(dir: &Path) -> Result<Self, DiskError> {
        Ok(Self { read_only: true, ..Self::open_unlocked(dir)? })
    }

    /// A folder that is no data folder, for files of the user's such as a backup.
    ///
    /// # Errors
    /// [`DiskError::Io`] if it is not a folder that can be read.
    pub fn open_unlocked(dir: &Path) -> Result<Self, DiskError> {
        fs::read_dir(dir).map_err(|e| DiskError::io(&dir.to_string_lossy(), e))?;
        Ok(Self { root: dir.to_owned(), read_only: false, _lock: None })
    }

    /// The data folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `name`, which must stay inside the data folder.
    fn path(&self, name: &str) -> Result<PathBuf, DiskError> {
        let relative = Path::new(name);
        if relative.components().all(|part| matches!(part, Component::Normal(_))) {
            return Ok(self.root.join(relative));
        }
        let error = io::Error::new(io::ErrorKind::InvalidInput, "the name leads out of the data folder");
        Err(DiskError::io(name, error))
    }

    /// As [`Self::run`], for what changes the folder.
    fn change<T>(&self, name: &str, operation: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, DiskError> {
        if self.read_only {
            return Err(DiskError::io(name, io::ErrorKind::ReadOnlyFilesystem.into()));
        }
        self.run(name, operation)
    }

    /// Runs `operation` on the path of `name`; errors name the file.
    fn run<T>(&self, name: &str, operation: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, DiskError> {
        operation(&self.path(name)?).map_err(|e| DiskError::io(name, e))
    }
}

impl Disk for RealDisk {
    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let file = self.change(name, |path| OpenOptions::new().write(true).create_new(true).open(path))?;
        Ok(Box::new(RealFile(file)))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError> {
        self.run(name, |path| fs::read(path))
    }

    fn map(&self, name: &str) -> Result<Bytes, DiskError> {
        self.run(name, |path| map::map_file(&File::open(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let to = self.path(to)?;
        self.change(from, |path| fs::rename(path, to))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.change(name, |path| fs::remove_file(path))
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError> {
        match self.run(folder, |path| file_names(path, folder)) {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other,
        }
    }

    fn create_folder(&self, name: &str) -> Result<(), DiskError> {
        self.change(name, |path| {
            fs::create_dir_all(path)?;
            sync_parent(path)
        })
    }

    fn sync_folder(&self, folder: &str) -> Result<(), DiskError> {
        self.change(folder, |path| File::open(path)?.sync_all())
    }

    fn len_bytes(&self, name: &str) -> Result<u64, DiskError> {
        self.run(name, |path| Ok(fs::metadata(path)?.len()))
    }

    fn truncate(&self, name: &str, len_bytes: u64) -> Result<(), DiskError> {
        self.change(name, |path| OpenOptions::new().write(true).open(path)?.set_len(len_bytes))
    }

    fn rewrite(&self, name: &str, offset: u64) -> Result<(), DiskError> {
        self.change(name, |path| {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            let mut buffer = vec![0; REWRITE_BUFFER_BYTES];
            let mut at = offset;
            loop {
                let read = file.read_at(&mut buffer, at)?;
                if read == 0 {
                    return Ok(());
                }
                file.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
        })
    }

    fn sync_file(&self, name: &str) -> Result<(), DiskError> {
        self.change(name, |path| OpenOptions::new().write(true).open(path)?.sync_all())
    }
}

/// The sorted names of the files directly in `path`, with `folder` before them.
fn file_names(path: &Path, folder: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        if let Some(name) = entry.file_name().to_str() {
            names.push(if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") });
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes the name of `path` durable in the folder that holds it.
fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// An open file; also its own syncer.
struct RealFile(File);

impl DiskFile for RealFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn syncer(&self) -> io::Result<Box<dyn DiskSync>> {
        Ok(Box::new(RealFile(self.0.try_clone()?)))
    }
}

impl DiskSync for RealFile {
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_open_of_the_same_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = RealDisk::open(dir.path()).unwrap();
        let second = RealDisk::open(dir.path());
        assert!(matches!(second, Err(DiskError::Locked { ref path }) if path == dir.path()));
        drop(first);
        RealDisk::open(dir.path()).unwrap();
    }

    #[test]
    fn a_folder_opened_to_read_is_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"x").unwrap();
        assert!(RealDisk::open_read_only(&dir.path().join("none")).is_err());
        let disk = RealDisk::open_read_only(dir.path()).unwrap();
        assert!(disk.is_read_only());
        assert_eq!(disk.read("a").unwrap(), b"x");
        assert!(disk.create_new("b").is_err() && disk.create_folder("c").is_err());
        assert!(disk.rename("a", "b").is_err() && disk.remove("a").is_err());
        assert!(
            disk.truncate("a", 0).is_err() && disk.sync_file("a").is_err() && disk.sync_folder("").is_err()
        );
        assert_eq!(disk.list("").unwrap(), ["a"]);
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(&dir.path().join("data")).unwrap();
        for name in ["../escape", "/etc/hostname", "chunks/../../escape", "./x"] {
            assert!(disk.create_new(name).is_err(), "{name}");
            assert!(disk.read(name).is_err(), "{name}");
        }
    }

    #[test]
    fn files_are_created_once_listed_renamed_cut_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        assert!(disk.list("chunks").unwrap().is_empty());
        disk.create_folder("chunks").unwrap();
        disk.create_folder("chunks").unwrap();
        let mut file = disk.create_new("chunks/a").unwrap();
        assert!(disk.create_new("chunks/a").is_err());
        file.write_all(b"hello").unwrap();
        disk.rename("chunks/a", "chunks/b").unwrap();
        file.write_all(b" you").unwrap();
        file.syncer().unwrap().sync_data().unwrap();
        disk.sync_folder("chunks").unwrap();
        disk.sync_folder("").unwrap();
        assert_eq!(disk.list("chunks").unwrap(), ["chunks/b"]);
        assert_eq!(disk.read("chunks/b").unwrap(), b"hello you");
        disk.rewrite("chunks/b", 3).unwrap();
        assert_eq!(disk.read("chunks/b").unwrap(), b"hello you");
        disk.truncate("chunks/b", 5).unwrap();
        disk.sync_file("chunks/b").unwrap();
        assert_eq!(disk.len_bytes("chunks/b").unwrap(), 5);
        assert_eq!(&disk.map("chunks/b").unwrap()[..], b"hello");
        disk.remove("chunks/b").unwrap();
        assert!(disk.len_bytes("chunks/b").unwrap_err().is_not_found());
        assert_eq!(disk.list("").unwrap(), ["LOCK"]);
    }
}
