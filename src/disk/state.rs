//! State files: what a checkpoint holds besides sealed chunks, as a run of opaque entries. Entries are
//! written and read one at a time, so that a state of many gigabytes is never in memory as a whole.

use std::io;

use super::format::{PREFIX_BYTES, STATE, hash, parse_state_name, read_len, read_u64, state_name};
use super::tmp_file::TmpFile;
use super::{Disk, DiskError, Pin};

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const ENTRY_HEADER_BYTES: usize = 48;
/// Entries begin at multiples of this many bytes, as rkyv wants them.
pub(super) const ENTRY_ALIGN: usize = 16;
/// The length that marks the end.
pub(super) const END: u64 = u64::MAX;
/// Checkpoints at one sequence that may lie side by side.
const MAX_RETRIES: u32 = 1000;

/// A state file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenState {
    /// Its name.
    pub name: String,
    /// Pins its content.
    pub pin: Pin,
    /// Its length.
    pub size_bytes: u64,
}

/// Writes a state file. Dropped before [`StateWriter::finish`], it leaves nothing behind.
pub struct StateWriter<'a> {
    file: TmpFile<'a>,
    entries: u64,
    chain: Pin,
    size_bytes: u64,
}

impl<'a> StateWriter<'a> {
    /// Begins the state file of a checkpoint at `sequence`. An existing state file is never replaced, because
    /// the manifest may still need it: a second one of the same sequence gets a name of its own.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn create(disk: &'a dyn Disk, sequence: u64) -> Result<Self, DiskError> {
        let name = free_name(disk, sequence)?;
        let header = encode_header(sequence);
        let mut file = TmpFile::create(disk, &name)?;
        file.write(&header)?;
        Ok(Self { file, entries: 0, chain: hash(&[&header]), size_bytes: HEADER_BYTES as u64 })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// [`DiskError::Io`]; the file must then be given up.
    pub fn entry(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        self.header(bytes.len() as u64, bytes)?;
        self.entries += 1;
        self.file.write(bytes)?;
        let padding = bytes.len().next_multiple_of(ENTRY_ALIGN) - bytes.len();
        self.file.write_zeros(padding)?;
        self.size_bytes += (bytes.len() + padding) as u64;
        Ok(())
    }

    /// Ends the file, makes it durable and gives it its name.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn finish(mut self) -> Result<WrittenState, DiskError> {
        self.header(END, &[])?;
        let name = self.file.name().to_owned();
        self.file.publish()?;
        Ok(WrittenState { name, pin: self.chain, size_bytes: self.size_bytes })
    }

    fn header(&mut self, length: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.chain = next_link(&self.chain, length, self.entries, bytes);
        for part in [&length.to_le_bytes()[..], &self.entries.to_le_bytes(), &self.chain] {
            self.file.write(part)?;
        }
        self.size_bytes += ENTRY_HEADER_BYTES as u64;
        Ok(())
    }
}

/// The header of a state file.
pub(super) fn encode_header(sequence: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..PREFIX_BYTES].copy_from_slice(&STATE.prefix());
    header[PREFIX_BYTES..PREFIX_BYTES + 8].copy_from_slice(&sequence.to_le_bytes());
    header
}

/// The hash of an entry, which covers all entries before it.
pub(super) fn next_link(chain: &Pin, length: u64, index: u64, bytes: &[u8]) -> Pin {
    hash(&[chain, &length.to_le_bytes(), &index.to_le_bytes(), bytes])
}

/// The first name for a state of `sequence` that is not taken.
fn free_name(disk: &dyn Disk, sequence: u64) -> Result<String, DiskError> {
    for retry in 0..MAX_RETRIES {
        let name = state_name(sequence, retry);
        match disk.len_bytes(&name) {
            Ok(_) => {}
            Err(error) if error.is_not_found() => return Ok(name),
            Err(error) => return Err(error),
        }
    }
    Err(DiskError::io(&state_name(sequence, 0), io::ErrorKind::AlreadyExists.into()))
}

/// Hands every entry of a state file to `each`, in order, verified; its start is aligned to 16 bytes. `pin`
/// must be that of the file. Returns the number of entries.
///
/// # Errors
/// What `each` returns; [`DiskError::Corrupt`], [`DiskError::Newer`], [`DiskError::Io`]. After an error the
/// entries handed over so far must be dropped.
pub fn read_state<E: From<DiskError>>(
    disk: &dyn Disk,
    name: &str,
    pin: &Pin,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<u64, E> {
    let bytes = disk.map(name)?;
    let entries_end = check_ends(name, &bytes, pin)?;
    let mut chain = hash(&[&bytes[..HEADER_BYTES]]);
    let (mut at, mut index) = (HEADER_BYTES, 0);
    while at < entries_end {
        let entry = entry_at(&bytes[..entries_end], at, index, &mut chain).ok_or_else(|| {
            DiskError::corrupt(name, at as u64, format!("entry {index} does not match its hash"))
        })?;
        each(entry)?;
        at += ENTRY_HEADER_BYTES + entry.len().next_multiple_of(ENTRY_ALIGN);
        index += 1;
    }
    let end = &bytes[at..];
    if read_u64(end, 0) != Some(END)
        || read_u64(end, 8) != Some(index)
        || next_link(&chain, END, index, &[]) != *pin
    {
        return Err(
            DiskError::corrupt(name, at as u64, "the end of the file does not match its entries").into()
        );
    }
    Ok(index)
}

/// Checks the header, and that the file ends with `pin`. Returns where the entries end.
fn check_ends(name: &str, bytes: &[u8], pin: &Pin) -> Result<usize, DiskError> {
    STATE.check_prefix(name, bytes)?;
    let end = bytes.len().checked_sub(ENTRY_HEADER_BYTES).filter(|&end| end >= HEADER_BYTES);
    let Some(end) = end.filter(|_| bytes.ends_with(pin)) else {
        let what = "this is not the whole file that the manifest names";
        return Err(DiskError::corrupt(name, bytes.len() as u64, what));
    };
    if read_u64(bytes, PREFIX_BYTES) != parse_state_name(name) {
        return Err(DiskError::corrupt(name, PREFIX_BYTES as u64, "the sequence is not that of the name"));
    }
    Ok(end)
}

/// The bytes of the entry at `at`, if it is good; moves `chain` on.
pub(super) fn entry_at<'a>(bytes: &'a [u8], at: usize, index: u64, chain: &mut Pin) -> Option<&'a [u8]> {
    let header = bytes.get(at..at + ENTRY_HEADER_BYTES)?;
    let start = at + ENTRY_HEADER_BYTES;
    let length = read_len(header, 0)?;
    let entry = bytes.get(start..start.checked_add(length)?)?;
    let padding =
        bytes.get(start + length..start.checked_add(length.checked_next_multiple_of(ENTRY_ALIGN)?)?)?;
    let link = next_link(chain, length as u64, index, entry);
    let good = read_u64(header, 8) == Some(index) && header[16..] == link && padding.iter().all(|&b| b == 0);
    *chain = link;
    good.then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimDisk;
    use super::*;

    const ENTRIES: [&[u8]; 4] = [b"collection one", b"", b"sixteen bytes ..", b"users"];

    fn write(disk: &dyn Disk, sequence: u64, entries: &[&[u8]]) -> WrittenState {
        let mut state = StateWriter::create(disk, sequence).unwrap();
        for entry in entries {
            state.entry(entry).unwrap();
        }
        state.finish().unwrap()
    }

    fn read(disk: &dyn Disk, name: &str, pin: &Pin) -> Result<Vec<Vec<u8>>, DiskError> {
        let mut found = Vec::new();
        let entries = read_state(disk, name, pin, |entry| {
            assert!(entry.is_empty() || (entry.as_ptr() as usize).is_multiple_of(ENTRY_ALIGN));
            found.push(entry.to_vec());
            Ok::<(), DiskError>(())
        })?;
        assert_eq!(entries, found.len() as u64);
        Ok(found)
    }

    #[test]
    fn entries_come_back_and_the_bytes_depend_on_nothing_else() {
        let (disk, other) = (SimDisk::new(), SimDisk::new());
        let state = write(&disk, 5, &ENTRIES);
        assert_eq!(state.name, state_name(5, 0));
        assert_eq!(state.size_bytes, disk.len_bytes(&state.name).unwrap());
        assert_eq!(read(&disk, &state.name, &state.pin).unwrap(), ENTRIES);
        assert_eq!(write(&other, 5, &ENTRIES), state);
        assert_eq!(disk.read(&state.name).unwrap(), other.read(&state.name).unwrap());
        let empty = write(&disk, 6, &[]);
        assert!(read(&disk, &empty.name, &empty.pin).unwrap().is_empty());
    }

    #[test]
    fn a_large_entry_passes_through() {
        let disk = SimDisk::new();
        let large = vec![7; 1_000_001];
        let state = write(&disk, 1, &[b"small", &large, b"small"]);
        assert_eq!(read(&disk, &state.name, &state.pin).unwrap()[1], large);
    }

    #[test]
    fn every_flip_and_every_truncation_is_detected_before_the_entry_is_used() {
        let disk = SimDisk::new();
        let state = write(&disk, 5, &ENTRIES);
        let bytes = disk.read(&state.name).unwrap();
        let check = |content: &[u8], what: &str| {
            disk.put(&state.name, content);
            let mut found = Vec::new();
            let result = read_state(&disk, &state.name, &state.pin, |entry| {
                found.push(entry.to_vec());
                Ok::<(), DiskError>(())
            });
            assert!(
                matches!(result, Err(DiskError::Corrupt { ref file, .. }) if *file == state.name),
                "{what}"
            );
            assert_eq!(found[..], ENTRIES[..found.len()], "{what}");
        };
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            check(&flipped, &format!("bit {bit}"));
        }
        for len in 0..bytes.len() {
            check(&bytes[..len], &format!("length {len}"));
        }
        check(&[&bytes[..], &[0; 16]].concat(), "longer");
        let (other, entry) = (write(&disk, 5, &ENTRIES[1..]), &bytes[HEADER_BYTES..HEADER_BYTES + 64]);
        check(&disk.read(&other.name).unwrap(), "another file");
        let repeated = [&bytes[..HEADER_BYTES], entry, &bytes[HEADER_BYTES..]].concat();
        check(&repeated, "an entry twice");
    }

    #[test]
    fn a_state_never_replaces_another_and_leaves_nothing_when_dropped() {
        let disk = SimDisk::new();
        let first = write(&disk, 5, &ENTRIES);
        let second = write(&disk, 5, &ENTRIES[..1]);
        assert_eq!(second.name, state_name(5, 1));
        assert_eq!(read(&disk, &first.name, &first.pin).unwrap().len(), 4);
        assert_eq!(read(&disk, &second.name, &second.pin).unwrap().len(), 1);
        StateWriter::create(&disk, 6).unwrap().entry(b"x").unwrap();
        let mut state = StateWriter::create(&disk, 6).unwrap();
        state.entry(b"x").unwrap();
        disk.fail_syncs(true);
        assert!(state.finish().is_err());
        assert_eq!(disk.list("").unwrap(), [&*second.name, &first.name]);
    }
}
