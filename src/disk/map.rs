//! Read-only memory maps.

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::Mmap;

/// Maps a whole file. An empty file, which cannot be mapped, gives empty bytes. The start is page-aligned.
///
/// # Errors
/// What the operating system says.
pub fn map_file(file: &File) -> io::Result<Bytes> {
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: only files that do not change are mapped: those that are written once and then renamed into place, and
    // log files, of which the bytes that are there when they are mapped do not change: a server, this process or another,
    // appends behind them, and replay, under the folder's lock, cuts a file only after its map is gone. A file that
    // somebody else cuts while it is mapped is out of scope.
    let map = unsafe { Mmap::map(file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_full_and_empty_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, b"").unwrap();
        assert!(map_file(&File::open(&path).unwrap()).unwrap().is_empty());
        std::fs::write(&path, b"abc").unwrap();
        let bytes = map_file(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(&bytes[..], b"abc");
        assert_eq!(bytes.as_ptr() as usize % 4096, 0);
    }
}
