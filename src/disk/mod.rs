//! The only code that touches files. It knows nothing of the meaning of the bytes it keeps: log payloads,
//! sections and state entries are opaque here. The layout of every file is written down in [`mod@format`].
//!
//! | file | what |
//! |---|---|
//! | [`mod@format`] | the specification of all files, their names, and the checks they share |
//! | [`log`] | the log of changes, written |
//! | [`replay`] | the log of changes, read back after a start |
//! | [`sections`] | immutable files of tagged sections (sealed chunks) |
//! | [`state`] | the state file of a checkpoint |
//! | [`manifest`] | the one small file that says which files count |
//! | [`image`] | the files of one moment, beside a running server |
//! | [`backup`] | such files in one file, and back |
//! | [`salvage`] | state files and the log, read past damage |
//! | [`cleanup`] | removal of our own files that no longer count |
//! | [`real`], [`map`], [`lock`] | the operating system's file system behind the trait [`Disk`] |
//!
//! All names are relative to the data folder and use `/`.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

pub mod backup;
pub mod cleanup;
pub mod format;
pub mod image;
pub mod lock;
pub mod log;
pub mod manifest;
pub mod map;
pub mod real;
pub mod replay;
pub mod salvage;
pub mod sections;
pub mod state;
mod tmp_file;

#[cfg(test)]
pub(crate) mod sim;

pub use real::RealDisk;

/// A blake3 hash that pins the whole content of a file: who holds the pin can tell any changed byte.
pub type Pin = [u8; 32];

/// What can go wrong with files. Cheap to clone, because a failed log writer repeats its first error.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused an operation.
    #[error("{file}: {source}")]
    Io {
        /// The file or folder.
        file: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A file does not hold what was written to it.
    #[error("{file}: damaged at byte {offset}: {what}")]
    Corrupt {
        /// The file.
        file: String,
        /// Where in the file, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The file was written by a newer version of the program.
    #[error("{file}: format version {version} is newer than this program can read; start a newer version")]
    Newer {
        /// The file.
        file: String,
        /// Its format version.
        version: u32,
    },
    /// Another process holds the data folder.
    #[error("the data folder {} is in use by another server", path.display())]
    Locked {
        /// The data folder.
        path: PathBuf,
    },
    /// A log record larger than [`format::MAX_RECORD_BYTES`]. Nothing was written; the log stays usable.
    #[error(
        "{file}: a log record of {size_bytes} bytes is over the limit of {} bytes",
        format::MAX_RECORD_BYTES
    )]
    TooLarge {
        /// The log file.
        file: String,
        /// Size of the refused payload.
        size_bytes: u64,
    },
}

impl DiskError {
    /// An [`DiskError::Io`] for `file`.
    pub fn io(file: &str, source: io::Error) -> Self {
        Self::Io { file: file.to_owned(), source: Arc::new(source) }
    }

    /// A [`DiskError::Corrupt`] at `offset` of `file`.
    pub fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> Self {
        Self::Corrupt { file: file.to_owned(), offset, what: what.into() }
    }

    /// True if the operating system said that the file does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The data folder. [`RealDisk`] is the file system; tests put a failing or simulated disk behind the same
/// trait.
///
/// Only [`DiskFile::sync_data`], [`DiskSync::sync_data`] and [`Disk::sync_file`] make content durable, and
/// only [`Disk::sync_folder`] makes created, renamed and removed names durable.
pub trait Disk: Send + Sync {
    /// Whether nothing may be changed: reading back leaves the files as they are then.
    fn is_read_only(&self) -> bool {
        false
    }

    /// Creates a file for writing from its start. An existing file of that name is an error.
    /// The handle stays good when the file is renamed.
    fn create_new(&self, name: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// The whole content of a small file.
    fn read(&self, name: &str) -> Result<Vec<u8>, DiskError>;

    /// The content of a file, read as it is touched. Its first byte is aligned to at least 16 bytes.
    /// The file must not change while the bytes are in use.
    fn map(&self, name: &str) -> Result<Bytes, DiskError>;

    /// Gives a file a new name, replacing what had that name.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// The names (relative to the data folder) of the files directly in `folder` ("" is the data folder),
    /// sorted. Folders and names that are not UTF-8 are left out; a missing folder has no files.
    fn list(&self, folder: &str) -> Result<Vec<String>, DiskError>;

    /// Creates a folder, durably, unless it exists.
    fn create_folder(&self, name: &str) -> Result<(), DiskError>;

    /// Makes the names in `folder` durable.
    fn sync_folder(&self, folder: &str) -> Result<(), DiskError>;

    /// The length of a file.
    fn len_bytes(&self, name: &str) -> Result<u64, DiskError>;

    /// Cuts a file to `len_bytes`; durable after [`Disk::sync_file`].
    fn truncate(&self, name: &str, len_bytes: u64) -> Result<(), DiskError>;

    /// Writes the bytes of a file from `offset` to its end over themselves. After a failed sync the operating system
    /// takes them for durable although they may not be; written again, the next [`Disk::sync_file`] makes them so.
    fn rewrite(&self, name: &str, offset: u64) -> Result<(), DiskError>;

    /// Makes content and length of a file durable.
    fn sync_file(&self, name: &str) -> Result<(), DiskError>;
}

/// A file open for writing. Errors are bare: the owner knows the file's name.
pub trait DiskFile: Send {
    /// Appends all of `bytes`. After an error the end of the file is unknown.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable. After an error nothing is known of what was written since the last
    /// success, and a later success says nothing about it either.
    fn sync_data(&self) -> io::Result<()>;

    /// A second handle with which another thread can make the file durable while this one goes on writing.
    fn syncer(&self) -> io::Result<Box<dyn DiskSync>>;
}

/// A handle that only makes a file durable, see [`DiskFile::syncer`].
pub trait DiskSync: Send {
    /// As [`DiskFile::sync_data`].
    fn sync_data(&self) -> io::Result<()>;
}
