//! Section files: immutable files of tagged sections, mapped into memory. What a tag means is for the layers
//! above.
//!
//! A section is verified as a whole when the file is opened, or, if it is lazy, block by block when it is
//! first read.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::format::{
    self, CONTAINER_HEADER_BYTES, LAZY_BLOCK_BYTES, SECTION_ALIGN, SECTIONS, decode, encode, folder_of,
};
use super::tmp_file::TmpFile;
use super::{Disk, DiskError, Pin};

/// Bytes kept of the hash of a lazy block.
const BLOCK_HASH_BYTES: usize = 16;

/// The hash of a block of a lazy section: the first 16 bytes of its blake3.
type BlockHash = [u8; BLOCK_HASH_BYTES];

/// A section to be written.
pub struct Section<'a> {
    /// Names the section; no two sections of a file have the same.
    pub tag: u32,
    /// The content, one part after the other.
    pub parts: Vec<&'a [u8]>,
    /// Whether it is verified when first read (for large sections that are rarely read) or when the file is
    /// opened.
    pub lazy: bool,
}

/// The table of a section file as it is on disk, version 1.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct TableV1 {
    /// The sections, in the order of their offsets.
    pub sections: Vec<EntryV1>,
    /// Bytes from the first section to the end of the file.
    pub data_bytes: u64,
}

/// One section in a [`TableV1`].
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct EntryV1 {
    /// Names the section.
    pub tag: u32,
    /// Its first byte, counted from that of the first section.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u64,
    /// How it is verified.
    pub check: CheckV1,
}

/// The hashes of a section.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub enum CheckV1 {
    /// blake3 of the section.
    Whole(Pin),
    /// For a lazy section: the first 16 bytes of the blake3 of each block of 64 KiB.
    Blocks(Vec<[u8; 16]>),
}

/// Writes a section file and returns its pin. The file appears under its name, complete and durable, or not
/// at all; a file of that name is replaced. Its folder is created if it is missing.
///
/// # Errors
/// [`DiskError::Io`], also if two sections have the same tag.
pub fn write_sections(disk: &dyn Disk, name: &str, sections: &[Section<'_>]) -> Result<Pin, DiskError> {
    let table = table_of(name, sections)?;
    let (header, pin) = SECTIONS.container(&encode!(name, &table)?);
    if !folder_of(name).is_empty() {
        disk.create_folder(folder_of(name))?;
    }
    let mut file = TmpFile::create(disk, name)?;
    let mut unaligned = header.len();
    file.write(&header)?;
    for section in sections {
        file.write_zeros(unaligned.next_multiple_of(SECTION_ALIGN) - unaligned)?;
        for part in &section.parts {
            file.write(part)?;
        }
        unaligned = length_of(section);
    }
    if sections.is_empty() {
        file.write_zeros(unaligned.next_multiple_of(SECTION_ALIGN) - unaligned)?;
    }
    file.publish()?;
    Ok(pin)
}

fn length_of(section: &Section<'_>) -> usize {
    section.parts.iter().map(|part| part.len()).sum()
}

fn table_of(name: &str, sections: &[Section<'_>]) -> Result<TableV1, DiskError> {
    let mut table = TableV1 { sections: Vec::with_capacity(sections.len()), data_bytes: 0 };
    for section in sections {
        if table.sections.iter().any(|entry| entry.tag == section.tag) {
            let what = format!("two sections with tag {}", section.tag);
            return Err(DiskError::io(name, io::Error::new(io::ErrorKind::InvalidInput, what)));
        }
        let offset = table.data_bytes.next_multiple_of(SECTION_ALIGN as u64);
        let length = length_of(section) as u64;
        let check = if section.lazy {
            CheckV1::Blocks(block_hashes(&section.parts))
        } else {
            CheckV1::Whole(format::hash(&section.parts))
        };
        table.data_bytes = offset + length;
        table.sections.push(EntryV1 { tag: section.tag, offset, length, check });
    }
    Ok(table)
}

/// The hashes of the blocks of `parts`, taken as one run of bytes.
fn block_hashes(parts: &[&[u8]]) -> Vec<BlockHash> {
    let mut hashes = Vec::new();
    let mut hasher = blake3::Hasher::new();
    let mut room = LAZY_BLOCK_BYTES;
    for part in parts {
        let mut rest = *part;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(room));
            hasher.update(now);
            room -= now.len();
            rest = later;
            if room == 0 {
                hashes.push(short(&hasher.finalize()));
                hasher.reset();
                room = LAZY_BLOCK_BYTES;
            }
        }
    }
    if room < LAZY_BLOCK_BYTES {
        hashes.push(short(&hasher.finalize()));
    }
    hashes
}

fn short(hash: &blake3::Hash) -> BlockHash {
    let mut first = [0; BLOCK_HASH_BYTES];
    first.copy_from_slice(&hash.as_bytes()[..BLOCK_HASH_BYTES]);
    first
}

/// A mapped section file. The bytes it gives out keep the map alive.
pub struct SectionFile {
    name: String,
    pin: Pin,
    sections: Vec<(u32, Content)>,
}

enum Content {
    Verified(Bytes),
    Lazy(LazySection),
}

impl SectionFile {
    /// Maps a section file and verifies its header and all sections that are not lazy. With `expected_pin` it
    /// must be the very file that [`write_sections`] returned that pin for.
    ///
    /// # Errors
    /// [`DiskError::Corrupt`], [`DiskError::Newer`], [`DiskError::Io`].
    pub fn open(disk: &dyn Disk, name: &str, expected_pin: Option<Pin>) -> Result<Self, DiskError> {
        Self::open_with(disk, name, expected_pin, Err)
    }

    /// As [`SectionFile::open`], but leaves damaged sections out, with an error for each.
    ///
    /// # Errors
    /// As `open`, where the header or the table of sections cannot be trusted.
    pub fn open_damaged(
        disk: &dyn Disk,
        name: &str,
        expected_pin: Option<Pin>,
    ) -> Result<(Self, Vec<DiskError>), DiskError> {
        let mut damages = Vec::new();
        let file = Self::open_with(disk, name, expected_pin, |damage| {
            damages.push(damage);
            Ok(())
        })?;
        Ok((file, damages))
    }

    /// Opens a file; damage that leaves the other sections readable goes to `on_damage`.
    fn open_with(
        disk: &dyn Disk,
        name: &str,
        expected_pin: Option<Pin>,
        mut on_damage: impl FnMut(DiskError) -> Result<(), DiskError>,
    ) -> Result<Self, DiskError> {
        let map = disk.map(name)?;
        let (payload, pin) = SECTIONS.open_container(name, &map)?;
        if expected_pin.is_some_and(|expected| expected != pin) {
            return Err(DiskError::corrupt(name, 0, "this is another file than the one that was expected"));
        }
        let table = decode!(TableV1, name, CONTAINER_HEADER_BYTES, payload)?;
        let data_at = (CONTAINER_HEADER_BYTES + payload.len()).next_multiple_of(SECTION_ALIGN);
        if Some(map.len() as u64) != table.data_bytes.checked_add(data_at as u64) {
            let what = "the file has not the length in its header";
            on_damage(DiskError::corrupt(name, map.len() as u64, what))?;
        }
        let file_name: Arc<str> = name.into();
        let mut sections = Vec::with_capacity(table.sections.len());
        for entry in table.sections {
            let tag = entry.tag;
            match open_section(&file_name, &map, data_at, entry) {
                Ok(content) => sections.push((tag, content)),
                Err(damage) => on_damage(damage)?,
            }
        }
        Ok(Self { name: name.to_owned(), pin, sections })
    }

    /// Name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pin of the file.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    /// The tags, in the order of the file.
    pub fn tags(&self) -> impl Iterator<Item = u32> + '_ {
        self.sections.iter().map(|(tag, _)| *tag)
    }

    /// The section with this tag, verified; `None` if there is none or it is lazy. Its start is page-aligned.
    pub fn section(&self, tag: u32) -> Option<Bytes> {
        match self.find(tag)? {
            Content::Verified(bytes) => Some(bytes.clone()),
            Content::Lazy(_) => None,
        }
    }

    /// The lazy section with this tag; `None` if there is none or it is not lazy.
    pub fn lazy_section(&self, tag: u32) -> Option<LazySection> {
        match self.find(tag)? {
            Content::Verified(_) => None,
            Content::Lazy(section) => Some(section.clone()),
        }
    }

    fn find(&self, tag: u32) -> Option<&Content> {
        self.sections.iter().find(|(t, _)| *t == tag).map(|(_, content)| content)
    }
}

/// Finds a section in the map, and verifies it unless it is lazy.
fn open_section(file: &Arc<str>, map: &Bytes, data_at: usize, entry: EntryV1) -> Result<Content, DiskError> {
    let damaged = |at: usize, what| DiskError::corrupt(file, at as u64, what);
    let start = usize::try_from(entry.offset).ok().and_then(|offset| data_at.checked_add(offset));
    let end = start.zip(usize::try_from(entry.length).ok()).and_then(|(start, len)| start.checked_add(len));
    let (Some(start), Some(end)) = (start, end.filter(|&end| end <= map.len())) else {
        return Err(damaged(CONTAINER_HEADER_BYTES, "a section ends beyond the file"));
    };
    let bytes = map.slice(start..end);
    match entry.check {
        CheckV1::Whole(hash) if format::hash(&[&bytes]) == hash => Ok(Content::Verified(bytes)),
        CheckV1::Whole(_) => Err(damaged(start, "the hash of a section does not match")),
        CheckV1::Blocks(hashes) if hashes.len() == bytes.len().div_ceil(LAZY_BLOCK_BYTES) => {
            let verified = (0..hashes.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
            let inner = LazyInner { file: Arc::clone(file), offset: start, bytes, hashes, verified };
            Ok(Content::Lazy(LazySection { inner: Arc::new(inner) }))
        }
        CheckV1::Blocks(_) => Err(damaged(CONTAINER_HEADER_BYTES, "a lazy section lacks hashes")),
    }
}

/// A section whose blocks are verified when they are first read. Clones share what was verified.
#[derive(Clone)]
pub struct LazySection {
    inner: Arc<LazyInner>,
}

struct LazyInner {
    file: Arc<str>,
    /// Where the section begins in the file.
    offset: usize,
    bytes: Bytes,
    hashes: Vec<BlockHash>,
    /// One bit per block.
    verified: Vec<AtomicU64>,
}

impl LazySection {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.inner.bytes.len()
    }

    /// True if the section has no bytes.
    pub fn is_empty(&self) -> bool {
        self.inner.bytes.is_empty()
    }

    /// The bytes in `range` of the section. Blocks not read before are verified first.
    ///
    /// # Errors
    /// [`DiskError::Corrupt`] if a block does not match its hash (the other blocks stay readable), or if the
    /// range ends beyond the section.
    pub fn read(&self, range: Range<usize>) -> Result<&[u8], DiskError> {
        let inner = &*self.inner;
        let Some(bytes) = inner.bytes.get(range.clone()) else {
            let what = format!("a read of bytes {range:?} of a section of {} bytes", self.len());
            return Err(DiskError::corrupt(&inner.file, inner.offset as u64, what));
        };
        for block in range.start / LAZY_BLOCK_BYTES..range.end.div_ceil(LAZY_BLOCK_BYTES) {
            inner.verify_once(block)?;
        }
        Ok(bytes)
    }
}

impl LazySection {
    /// Verifies all blocks: an error for each that is damaged.
    pub fn damages(&self) -> Vec<DiskError> {
        (0..self.inner.hashes.len()).filter_map(|block| self.inner.verify_once(block).err()).collect()
    }
}

impl LazyInner {
    fn verify_once(&self, block: usize) -> Result<(), DiskError> {
        let (word, bit) = (&self.verified[block / 64], 1 << (block % 64));
        // Two threads may verify the same block at the same time; the bytes never change, so no order is
        // needed.
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let start = block * LAZY_BLOCK_BYTES;
        let end = (start + LAZY_BLOCK_BYTES).min(self.bytes.len());
        if short(&blake3::hash(&self.bytes[start..end])) != self.hashes[block] {
            let at = (self.offset + start) as u64;
            return Err(DiskError::corrupt(&self.file, at, "the hash of a block does not match"));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimDisk;
    use super::*;

    const NAME: &str = "chunks/1.vdc";

    fn write(disk: &dyn Disk, originals: &[u8]) -> Pin {
        let (head, tail) = originals.split_at(originals.len() / 3);
        let sections = [
            Section { tag: 7, parts: vec![b"codes ", b"", b"in parts"], lazy: false },
            Section { tag: 9, parts: vec![head, tail], lazy: true },
            Section { tag: 1, parts: vec![], lazy: false },
            Section { tag: 2, parts: vec![], lazy: true },
            Section { tag: 3, parts: vec![b"ids"], lazy: false },
        ];
        write_sections(disk, NAME, &sections).unwrap()
    }

    fn originals(len: usize) -> Vec<u8> {
        (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
    }

    #[test]
    fn sections_come_back_aligned_and_outlive_the_file() {
        let disk = SimDisk::new();
        let content = originals(3 * LAZY_BLOCK_BYTES + 5);
        let pin = write(&disk, &content);
        let file = SectionFile::open(&disk, NAME, Some(pin)).unwrap();
        assert_eq!((file.name(), file.pin()), (NAME, pin));
        assert_eq!(file.tags().collect::<Vec<_>>(), [7, 9, 1, 2, 3]);
        let (codes, lazy) = (file.section(7).unwrap(), file.lazy_section(9).unwrap());
        assert_eq!(&file.section(3).unwrap()[..], b"ids");
        assert!(file.section(1).unwrap().is_empty() && file.lazy_section(2).unwrap().is_empty());
        assert!(file.section(9).is_none() && file.lazy_section(7).is_none() && file.section(4).is_none());
        drop(file);
        disk.remove(NAME).unwrap();
        assert_eq!(&codes[..], b"codes in parts");
        assert_eq!(codes.as_ptr() as usize % SECTION_ALIGN, 0);
        assert_eq!(lazy.read(0..lazy.len()).unwrap(), content);
        assert_eq!(lazy.read(0..0).unwrap().as_ptr() as usize % SECTION_ALIGN, 0);
        assert!(disk.list("chunks").unwrap().is_empty(), "no temporary file stays");
    }

    #[test]
    fn block_hashes_do_not_depend_on_parts() {
        let content = originals(2 * LAZY_BLOCK_BYTES + 1);
        let whole = block_hashes(&[&content]);
        assert_eq!(whole.len(), 3);
        for cut in [0, 1, LAZY_BLOCK_BYTES - 1, LAZY_BLOCK_BYTES, LAZY_BLOCK_BYTES + 1, content.len()] {
            let (a, b) = content.split_at(cut);
            assert_eq!(block_hashes(&[a, b]), whole, "cut at {cut}");
        }
        assert!(block_hashes(&[b""]).is_empty());
    }

    #[test]
    fn every_flipped_byte_is_detected_before_it_is_used() {
        let disk = SimDisk::new();
        let pin = write(&disk, &originals(300));
        let bytes = disk.read(NAME).unwrap();
        let table_end = CONTAINER_HEADER_BYTES + SECTIONS.open_container(NAME, &bytes).unwrap().0.len();
        assert!(table_end <= SECTION_ALIGN);
        let codes = SECTION_ALIGN..SECTION_ALIGN + 14;
        let lazy = 2 * SECTION_ALIGN..2 * SECTION_ALIGN + 300;
        let ids = bytes.len() - 3..bytes.len();
        for at in (0..table_end).chain(codes).chain(ids) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            disk.put(NAME, &flipped);
            let error = SectionFile::open(&disk, NAME, None).err();
            assert!(matches!(error, Some(DiskError::Corrupt { ref file, .. }) if file == NAME), "byte {at}");
        }
        for at in lazy {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            disk.put(NAME, &flipped);
            let file = SectionFile::open(&disk, NAME, Some(pin)).unwrap();
            let error = file.lazy_section(9).unwrap().read(5..6).unwrap_err();
            assert!(matches!(error, DiskError::Corrupt { offset, .. } if offset == 2 * SECTION_ALIGN as u64));
        }
        for len in (0..bytes.len()).rev().step_by(97) {
            disk.put(NAME, &bytes[..len]);
            assert!(SectionFile::open(&disk, NAME, None).is_err(), "length {len}");
        }
    }

    #[test]
    fn a_bad_block_does_not_hide_the_good_ones() {
        let disk = SimDisk::new();
        let content = originals(70 * LAZY_BLOCK_BYTES);
        write(&disk, &content);
        let mut bytes = disk.read(NAME).unwrap();
        let bad_at = bytes.windows(14).position(|w| w == b"codes in parts").unwrap()
            + SECTION_ALIGN
            + 65 * LAZY_BLOCK_BYTES
            + 9;
        bytes[bad_at] ^= 1;
        disk.put(NAME, &bytes);
        let lazy = SectionFile::open(&disk, NAME, None).unwrap().lazy_section(9).unwrap();
        let bad = 65 * LAZY_BLOCK_BYTES..66 * LAZY_BLOCK_BYTES;
        for _ in 0..2 {
            assert_eq!(lazy.read(3..bad.start).unwrap(), &content[3..bad.start]);
            assert_eq!(lazy.read(bad.end..lazy.len()).unwrap(), &content[bad.end..]);
            assert!(lazy.read(bad.start - 1..bad.start + 1).is_err());
            assert!(lazy.read(bad.clone()).is_err());
        }
        assert!(lazy.read(0..lazy.len() + 1).is_err());
    }

    #[test]
    fn another_file_or_a_newer_one_is_refused() {
        let disk = SimDisk::new();
        let pin = write(&disk, b"old");
        assert_ne!(write(&disk, b"new"), pin);
        assert!(matches!(SectionFile::open(&disk, NAME, Some(pin)), Err(DiskError::Corrupt { .. })));
        let mut bytes = disk.read(NAME).unwrap();
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.put(NAME, &bytes);
        assert!(matches!(SectionFile::open(&disk, NAME, None), Err(DiskError::Newer { version: 2, .. })));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let disk = SimDisk::new();
        let pin = write(&disk, b"old");
        let section = || [Section { tag: 1, parts: vec![b"new"], lazy: false }];
        disk.fail_writes(true);
        assert!(write_sections(&disk, NAME, &section()).is_err());
        disk.fail_writes(false);
        disk.fail_syncs(true);
        assert!(write_sections(&disk, NAME, &section()).is_err());
        disk.fail_syncs(false);
        SectionFile::open(&disk, NAME, Some(pin)).unwrap();
        assert_eq!(disk.list("chunks").unwrap(), [NAME]);
        let [a, b] = [section(), section()];
        let twice: Vec<Section<'_>> = a.into_iter().chain(b).collect();
        assert!(write_sections(&disk, NAME, &twice).is_err());
        let none = write_sections(&disk, NAME, &[]).unwrap();
        assert_eq!(SectionFile::open(&disk, NAME, Some(none)).unwrap().tags().count(), 0);
    }
}
