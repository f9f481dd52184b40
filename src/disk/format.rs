//! The specification of every file in the data folder, and the names and checks they share.
//!
//! All integers are little-endian. `crc32` is the IEEE polynomial. `blake3` is the 32-byte hash.
//!
//! # Names
//! | name | file |
//! |---|---|
//! | `manifest` | which state file and which chunk files count |
//! | `state-<sequence>.vds`, `state-<sequence>-<n>.vds` | state at that log sequence; `n` if the plain name was taken |
//! | `log-<first sequence>.vdl` | changes from that sequence on |
//! | `chunks/<name>.vdc` | a section file; names are given by the layers above |
//! | `.tmp-*` (here and in `chunks/`) | a file in the making, not valid before it is renamed |
//! | `LOCK` | empty; locked while a server runs |
//!
//! Sequences in names are 20 decimal digits, at most [`MAX_SEQUENCE`]. Other files are not ours and are left
//! alone.
//!
//! # Prefix
//! Every file begins with the same 16 bytes, in all versions to come, so that any version can tell damage
//! from a newer format: `magic [u8; 8] | version u32 | crc32 of these 12 bytes u32`.
//!
//! # Container (manifest; header of a section file)
//! `prefix 16 | payload length u64 | zero u64 | hash [u8; 32] | payload`, where hash is the blake3 of the first 32
//! bytes and the payload. The hash is the pin of the container. The payload is the rkyv encoding of a
//! versioned type, validated before use.
//!
//! # Manifest
//! A container with magic `VECDMAN\0` around [`super::manifest::ManifestV1`], and nothing after it. It is
//! replaced as a whole.
//!
//! # Log file
//! Header, 36 bytes: `prefix 16 (magic VECDLOG\0) | seed u64 | first sequence u64 | crc32 of these 32 bytes
//! u32`. Then records without gaps, each a header of 28 bytes and a payload:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | crc32 of the seed (8 bytes) and bytes 4..28 of this header |
//! | 4..8 | payload length u32, at most [`MAX_RECORD_BYTES`] |
//! | 8..16 | sequence u64; one more than that of the record before |
//! | 16..24 | synced u64: a sequence up to which the log was known to be durable when this record was made |
//! | 24..28 | crc32 of the seed and the payload |
//!
//! The seed is random for each file: no client can put bytes into a payload that pass for a record, and bytes
//! left from another file cannot either. The header has a crc of its own so that a search for the next good
//! record stays linear. `synced` tells a crash from damage: after a power cut any part of what was never made
//! durable may be missing, even in front of parts that are there, but what a later record calls durable must
//! be whole. [`super::replay`] has the exact rule.
//!
//! A log file ends where the next one begins: records from the first sequence of the next file on are void
//! (they were never acknowledged; their file was given up after a failed write or sync).
//!
//! # Section file
//! A container with magic `VECDSEC\0` around [`super::sections::TableV1`], zeros up to a multiple of 4096,
//! then the sections, each at a multiple of 4096 from the first. The file ends with the last section. The
//! table holds the hashes of all sections, so the pin of the container pins the file. A lazy section has one
//! hash per block of 64 KiB (the first 16 bytes of its blake3).
//!
//! # State file
//! `prefix 16 (magic VECDSTA\0) | sequence u64 | zero u64`, then entries:
//! `length u64 | index u64 | hash [u8; 32] | bytes | zeros to a multiple of 16`. Indexes count from 0; hash
//! is the blake3 of the hash before it (for the first entry: of the 32 header bytes), length, index and
//! bytes. What entries mean is for the layers above (`store/archive/`). The end is an entry header alone, with length `u64::MAX`, the number of entries as its index, and
//! the chained hash, which is the pin of the file.

use rkyv::util::AlignedVec;

use super::{DiskError, Pin};

/// Name of the manifest.
pub const MANIFEST_FILE: &str = "manifest";
/// Folder of the section files.
pub const CHUNK_FOLDER: &str = "chunks";
/// Folder of the files of graphs, which are section files that nothing depends on.
pub const GRAPH_FOLDER: &str = "graphs";
/// The largest payload of a log record: 1 GiB of a client's commands and 16 MiB for what their encoding adds.
pub const MAX_RECORD_BYTES: usize = (1 << 30) + (16 << 20);
/// The largest sequence a file name may hold; so that counting on from it never overflows.
pub const MAX_SEQUENCE: u64 = 1 << 62;
/// Sections begin at multiples of this many bytes.
pub const SECTION_ALIGN: usize = 4096;
/// Lazy sections are verified in blocks of this many bytes.
pub const LAZY_BLOCK_BYTES: usize = 64 << 10;

pub(super) const PREFIX_BYTES: usize = 16;
pub(super) const CONTAINER_HEADER_BYTES: usize = 64;
const CONTAINER_HASH_AT: usize = 32;

pub(super) const LOG: FileKind = FileKind { magic: *b"VECDLOG\0", version: 1 };
pub(super) const SECTIONS: FileKind = FileKind { magic: *b"VECDSEC\0", version: 1 };
pub(super) const STATE: FileKind = FileKind { magic: *b"VECDSTA\0", version: 1 };
pub(super) const MANIFEST: FileKind = FileKind { magic: *b"VECDMAN\0", version: 1 };

/// What a kind of file begins with.
#[derive(Clone, Copy)]
pub(super) struct FileKind {
    magic: [u8; 8],
    /// The version this program writes, and the newest it reads.
    version: u32,
}

impl FileKind {
    /// The first bytes of a file of this kind.
    pub(super) fn prefix(self) -> [u8; PREFIX_BYTES] {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..8].copy_from_slice(&self.magic);
        prefix[8..12].copy_from_slice(&self.version.to_le_bytes());
        let crc = crc32fast::hash(&prefix[..12]);
        prefix[12..].copy_from_slice(&crc.to_le_bytes());
        prefix
    }

    /// Checks the first bytes of `file`.
    pub(super) fn check_prefix(self, file: &str, bytes: &[u8]) -> Result<(), DiskError> {
        let damaged = |what| Err(DiskError::corrupt(file, 0, what));
        let Some(prefix) = bytes.get(..PREFIX_BYTES) else {
            return damaged("the file is too short");
        };
        if prefix[..8] != self.magic {
            return damaged("this is not the kind of file its name says");
        }
        if read_u32(prefix, 12) != Some(crc32fast::hash(&prefix[..12])) {
            return damaged("the checksum of the first bytes does not match");
        }
        match read_u32(prefix, 8) {
            Some(version) if version > self.version => {
                Err(DiskError::Newer { file: file.to_owned(), version })
            }
            Some(version) if version == self.version => Ok(()),
            _ => damaged("the version is unknown"),
        }
    }

    /// Puts `payload` into a container and returns it with its pin.
    pub(super) fn container(self, payload: &[u8]) -> (Vec<u8>, Pin) {
        let mut bytes = Vec::with_capacity(CONTAINER_HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&self.prefix());
        bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        let pin = hash(&[&bytes, payload]);
        bytes.extend_from_slice(&pin);
        bytes.extend_from_slice(payload);
        (bytes, pin)
    }

    /// The payload and the pin of the container that `bytes` begin with, verified.
    pub(super) fn open_container<'a>(
        self,
        file: &str,
        bytes: &'a [u8],
    ) -> Result<(&'a [u8], Pin), DiskError> {
        self.check_prefix(file, bytes)?;
        let damaged = |what| DiskError::corrupt(file, PREFIX_BYTES as u64, what);
        let payload = read_len(bytes, PREFIX_BYTES)
            .and_then(|len| CONTAINER_HEADER_BYTES.checked_add(len))
            .and_then(|end| bytes.get(CONTAINER_HEADER_BYTES..end))
            .ok_or_else(|| damaged("the length in the header is larger than the file"))?;
        let pin = hash(&[&bytes[..CONTAINER_HASH_AT], payload]);
        if bytes[CONTAINER_HASH_AT..CONTAINER_HEADER_BYTES] != pin {
            return Err(damaged("the hash of the header does not match"));
        }
        Ok((payload, pin))
    }
}

/// The rkyv encoding of a versioned type.
macro_rules! encode {
    ($file:expr, $value:expr) => {
        rkyv::to_bytes::<rkyv::rancor::Error>($value)
            .map_err(|e| $crate::disk::DiskError::io($file, std::io::Error::other(e)))
    };
}
pub(super) use encode;

/// Validates and decodes the rkyv encoding of a `$type` at byte `$offset` of a file.
macro_rules! decode {
    ($type:ty, $file:expr, $offset:expr, $bytes:expr) => {
        rkyv::from_bytes::<$type, rkyv::rancor::Error>(&$crate::disk::format::aligned($bytes)).map_err(|e| {
            $crate::disk::DiskError::corrupt($file, $offset as u64, format!("bad encoding: {e}"))
        })
    };
}
pub(super) use decode;

/// A copy of `bytes` that is aligned for rkyv.
pub(super) fn aligned(bytes: &[u8]) -> AlignedVec {
    let mut copy = AlignedVec::with_capacity(bytes.len());
    copy.extend_from_slice(bytes);
    copy
}

/// The blake3 of `parts`, one after the other.
pub(super) fn hash(parts: &[&[u8]]) -> Pin {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The integer at `at`, if `bytes` reach that far.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The integer at `at`, if `bytes` reach that far.
pub(super) fn read_u64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

/// The integer at `at` as a length in memory.
pub(super) fn read_len(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(read_u64(bytes, at)?).ok()
}

/// Name of the log file whose first record has `first_sequence`.
pub fn log_name(first_sequence: u64) -> String {
    format!("log-{first_sequence:020}.vdl")
}

/// The first sequence of a log file, from its name; `None` if the name is not one of ours.
pub fn parse_log_name(name: &str) -> Option<u64> {
    parse_sequence(name.strip_prefix("log-")?.strip_suffix(".vdl")?)
}

/// Name of the state file for `sequence`; `retry` is above 0 if that many names were taken.
pub fn state_name(sequence: u64, retry: u32) -> String {
    match retry {
        0 => format!("state-{sequence:020}.vds"),
        _ => format!("state-{sequence:020}-{retry}.vds"),
    }
}

/// The sequence of a state file, from its name; `None` if the name is not one of ours.
pub fn parse_state_name(name: &str) -> Option<u64> {
    let middle = name.strip_prefix("state-")?.strip_suffix(".vds")?;
    let (sequence, retry) = middle.split_once('-').unwrap_or((middle, "1"));
    retry.parse::<u32>().ok()?;
    parse_sequence(sequence)
}

/// Name of the section file called `stem`, for example `chunks/7-0.vdc`.
pub fn chunk_name(stem: &str) -> String {
    format!("{CHUNK_FOLDER}/{stem}.vdc")
}

/// True for a name made by [`chunk_name`].
pub fn is_chunk_name(name: &str) -> bool {
    folder_of(name) == CHUNK_FOLDER && name.ends_with(".vdc") && !is_tmp_name(name)
}

/// Name of the file of a collection's graph, for example `graphs/0000000000000007.vdg`.
pub fn graph_name(uid: u64) -> String {
    format!("{GRAPH_FOLDER}/{uid:016x}.vdg")
}

/// The collection whose graph has this name.
pub fn parse_graph_name(name: &str) -> Option<u64> {
    let uid = name.strip_prefix(GRAPH_FOLDER)?.strip_prefix('/')?.strip_suffix(".vdg")?;
    u64::from_str_radix(uid, 16).ok().filter(|&uid| graph_name(uid) == name)
}

/// Name under which the file `name` is made: `.tmp-` before its last part.
pub fn tmp_name(name: &str) -> String {
    match name.rsplit_once('/') {
        Some((folder, last)) => format!("{folder}/.tmp-{last}"),
        None => format!(".tmp-{name}"),
    }
}

/// True for a name made by [`tmp_name`].
pub fn is_tmp_name(name: &str) -> bool {
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    last.starts_with(".tmp-")
}

/// The folder of `name`; "" for the data folder itself.
pub fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn parse_sequence(digits: &str) -> Option<u64> {
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|&sequence| plain && sequence <= MAX_SEQUENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_not_ours() {
        assert_eq!(log_name(7), "log-00000000000000000007.vdl");
        assert_eq!(parse_log_name(&log_name(MAX_SEQUENCE)), Some(MAX_SEQUENCE));
        assert_eq!(parse_state_name(&state_name(9, 0)), Some(9));
        assert_eq!(parse_state_name(&state_name(9, 3)), Some(9));
        assert_eq!(tmp_name(&chunk_name("1-2")), "chunks/.tmp-1-2.vdc");
        assert!(is_chunk_name("chunks/1-2.vdc") && is_tmp_name("chunks/.tmp-1-2.vdc"));
        assert_eq!(parse_log_name(&log_name(MAX_SEQUENCE + 1)), None);
        for name in ["log-7.vdl", "log-+0000000000000000007.vdl", "log-99999999999999999999.vdl", "log-x"] {
            assert_eq!(parse_log_name(name), None, "{name}");
        }
        for name in ["state-00000000000000000009-x.vds", "state-.vds", "state"] {
            assert_eq!(parse_state_name(name), None, "{name}");
        }
        assert!(!is_chunk_name("x.vdc") && !is_chunk_name("chunks/x") && !is_chunk_name("chunks/.tmp-x.vdc"));
    }

    #[test]
    fn a_newer_version_is_told_from_damage() {
        let newer = FileKind { version: 2, ..LOG }.prefix();
        assert!(matches!(LOG.check_prefix("f", &newer), Err(DiskError::Newer { version: 2, .. })));
        for bit in 0..PREFIX_BYTES * 8 {
            let mut prefix = LOG.prefix();
            prefix[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(LOG.check_prefix("f", &prefix), Err(DiskError::Corrupt { .. })), "bit {bit}");
        }
        assert!(LOG.check_prefix("f", &LOG.prefix()[..15]).is_err());
        assert!(LOG.check_prefix("f", &STATE.prefix()).is_err());
        LOG.check_prefix("f", &LOG.prefix()).unwrap();
    }

    #[test]
    fn a_container_with_any_flipped_or_missing_byte_is_refused() {
        let (bytes, pin) = MANIFEST.container(b"payload");
        assert_eq!(MANIFEST.open_container("f", &bytes).unwrap(), (&b"payload"[..], pin));
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x40;
            assert!(MANIFEST.open_container("f", &flipped).is_err(), "byte {at}");
            assert!(MANIFEST.open_container("f", &bytes[..at]).is_err(), "length {at}");
        }
    }
}
