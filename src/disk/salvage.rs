//! State files and the log, read past damage: what can still be proved good is handed over, and what cannot is told.
//! Nothing is changed. [`super::state`] and [`super::replay`] read the same files where damage ends the reading.
//!
//! Every entry of a state file carries the hash that the next one begins from. So entries after a damaged one are
//! proved by the hash that stands in its header, or by the one its content gives; a later entry that agrees with
//! neither is not used.

use std::collections::HashMap;

use super::format::{STATE, log_name, parse_state_name, read_len, read_u64};
use super::log::{HEADER_BYTES as LOG_HEADER_BYTES, RECORD_HEADER_BYTES, decode_header, decode_record};
use super::replay::{Cut, End, LogFile, is_torn_header, log_files};
use super::state::{END, ENTRY_ALIGN, ENTRY_HEADER_BYTES, HEADER_BYTES, encode_header, entry_at, next_link};
use super::{Disk, DiskError, Pin};

/// How often the length of a file is hashed in the search for the entry after a damaged one.
const SEARCH_PASSES: usize = 8;
/// Hashes remembered for one index in that search.
const MAX_LINKS: usize = 16;

/// Hands every entry of a state file that can be proved good to `each`, with its index, in order, and an error for
/// each stretch that cannot. With `pin` it is told too if the file is whole but another one.
///
/// # Errors
/// What `each` returns; [`DiskError::Newer`], [`DiskError::Io`].
pub fn state_entries<E: From<DiskError>>(
    disk: &dyn Disk,
    name: &str,
    pin: Option<&Pin>,
    mut each: impl FnMut(Result<(u64, &[u8]), DiskError>) -> Result<(), E>,
) -> Result<(), E> {
    let bytes = disk.map(name)?;
    // The header follows from the name, so a damaged one loses nothing.
    let header = encode_header(parse_state_name(name).unwrap_or_default());
    match STATE.check_prefix(name, &bytes) {
        Err(newer @ DiskError::Newer { .. }) => return Err(newer.into()),
        Err(damage) => each(Err(damage))?,
        Ok(()) if !bytes.starts_with(&header) => {
            each(Err(DiskError::corrupt(name, 16, "the header is not that of the name")))?;
        }
        Ok(()) => {}
    }
    let mut place = Place { at: HEADER_BYTES, index: 0, link: super::format::hash(&[&header]) };
    loop {
        let Place { at, index, link } = place;
        let mut next = link;
        if let Some(entry) = entry_at(&bytes, at, index, &mut next) {
            each(Ok((index, entry)))?;
            place = Place { at: after(at, entry.len()), index: index + 1, link: next };
        } else if let Some(end) = end_at(&bytes, &place) {
            if bytes.len() != at + ENTRY_HEADER_BYTES {
                let past = (at + ENTRY_HEADER_BYTES) as u64;
                each(Err(DiskError::corrupt(name, past, "bytes after the end")))?;
            }
            if pin.is_some_and(|pin| *pin != end) {
                each(Err(DiskError::corrupt(
                    name,
                    at as u64,
                    "this is not the file that the manifest names",
                )))?;
            }
            return Ok(());
        } else {
            let content = content_link(&bytes, &place);
            let found = find_place(&bytes, &place, content.map(|(_, link)| link));
            let damaged = |what: String| DiskError::corrupt(name, at as u64, what);
            match (found, content) {
                (None, _) => {
                    return each(Err(damaged(format!("entry {index} and all after it are damaged"))));
                }
                (Some(found), Some((entry, link))) if found.link == link && found.index == index + 1 => {
                    each(Err(damaged(format!(
                        "the header of entry {index} is damaged, its content is whole"
                    ))))?;
                    each(Ok((index, entry)))?;
                    place = found;
                }
                (Some(found), _) => {
                    let last = found.index - 1;
                    let which = if last == index {
                        format!("entry {index} is")
                    } else {
                        format!("entries {index} to {last} are")
                    };
                    each(Err(damaged(format!("{which} damaged"))))?;
                    place = found;
                }
            }
        }
    }
}

/// Where an entry begins, its index, and the hash it begins from.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    index: u64,
    link: Pin,
}

fn after(at: usize, entry_bytes: usize) -> usize {
    at + ENTRY_HEADER_BYTES + entry_bytes.next_multiple_of(ENTRY_ALIGN)
}

/// The pin of the file, if a good end is at this place.
fn end_at(bytes: &[u8], place: &Place) -> Option<Pin> {
    let header = bytes.get(place.at..place.at + ENTRY_HEADER_BYTES)?;
    let link = next_link(&place.link, END, place.index, &[]);
    let good =
        read_u64(header, 0) == Some(END) && read_u64(header, 8) == Some(place.index) && header[16..] == link;
    good.then_some(link)
}

/// What the entry at this place would be, and its hash, if its length is right.
fn content_link<'a>(bytes: &'a [u8], place: &Place) -> Option<(&'a [u8], Pin)> {
    let start = place.at.checked_add(ENTRY_HEADER_BYTES)?;
    let length = read_len(bytes, place.at)?;
    let entry = bytes.get(start..start.checked_add(length)?)?;
    Some((entry, next_link(&place.link, length as u64, place.index, entry)))
}

/// The hash that stands in the header at `at`.
fn stored_link(bytes: &[u8], at: usize) -> Option<Pin> {
    bytes.get(at + 16..at + ENTRY_HEADER_BYTES)?.try_into().ok()
}

/// The next place after a damaged one where an entry or the end can be proved.
fn find_place(bytes: &[u8], damaged: &Place, content: Option<Pin>) -> Option<Place> {
    let mut links: HashMap<u64, Vec<Pin>> = HashMap::new();
    let first: Vec<Pin> = content.into_iter().chain(stored_link(bytes, damaged.at)).collect();
    links.insert(damaged.index + 1, first);
    let mut budget_bytes = bytes.len().saturating_mul(SEARCH_PASSES);
    for at in (damaged.at + ENTRY_ALIGN..bytes.len()).step_by(ENTRY_ALIGN) {
        let Some(index) = read_u64(bytes, at + 8).filter(|&index| index > damaged.index) else { continue };
        let is_end = read_u64(bytes, at) == Some(END);
        let length = if is_end { Some(0) } else { read_len(bytes, at) };
        let Some(length) = length.filter(|&length| length <= bytes.len() - at) else { continue };
        for &link in links.get(&index).into_iter().flatten() {
            budget_bytes = budget_bytes.checked_sub(length)?;
            let place = Place { at, index, link };
            if entry_at(bytes, at, index, &mut link.clone()).is_some() || end_at(bytes, &place).is_some() {
                return Some(place);
            }
        }
        let known = links.entry(index.saturating_add(1)).or_default();
        known.extend(stored_link(bytes, at).filter(|_| known.len() < MAX_LINKS));
    }
    None
}

/// A piece of the log.
pub enum LogPiece<'a> {
    /// A good record. Sequences only grow; those that are left out are lost.
    Record {
        /// The file.
        file: &'a str,
        /// Where in it, in bytes.
        offset: u64,
        /// Its number.
        sequence: u64,
        /// Its content.
        payload: &'a [u8],
    },
    /// Bytes that are no good record, where there should be one.
    Damage(DiskError),
    /// The end of the last file, as a crash leaves it: a start cuts it off.
    Torn(Cut),
}

/// Hands every good record with a sequence above `from_sequence` to `each`, in order, and tells of what is between.
///
/// # Errors
/// What `each` returns; [`DiskError::Newer`], [`DiskError::Io`].
pub fn log_records<E: From<DiskError>>(
    disk: &dyn Disk,
    from_sequence: u64,
    mut each: impl FnMut(LogPiece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut files = log_files(disk)?;
    if let Some(&last) = files.last()
        && is_torn_header(disk, last)?
    {
        let (file, bytes) = (log_name(last), disk.len_bytes(&log_name(last))?);
        each(LogPiece::Torn(Cut { file, offset: 0, bytes }))?;
        files.pop();
    }
    let wanted = from_sequence.saturating_add(1);
    let start = files.partition_point(|&first| first <= wanted);
    if start == 0
        && let Some(&first) = files.first()
    {
        let what = format!("the log begins with sequence {first}, but sequence {wanted} is needed");
        each(LogPiece::Damage(DiskError::corrupt(&log_name(first), 0, what)))?;
    }
    let files = files.split_off(start.saturating_sub(1));
    for (index, &first) in files.iter().enumerate() {
        let until = files.get(index + 1).copied();
        walk_damaged(&open_damaged(disk, first, &mut each)?, from_sequence, until, &mut each)?;
    }
    Ok(())
}

/// Opens a log file. If its header is damaged, the seed that stands in it is used: records that agree with it are good.
fn open_damaged<E: From<DiskError>>(
    disk: &dyn Disk,
    first_sequence: u64,
    each: &mut impl FnMut(LogPiece<'_>) -> Result<(), E>,
) -> Result<LogFile, E> {
    let name = log_name(first_sequence);
    let bytes = disk.map(&name)?;
    let seed = match decode_header(&name, &bytes, first_sequence) {
        Ok(seed) => seed,
        Err(damage @ DiskError::Corrupt { .. }) => {
            each(LogPiece::Damage(damage))?;
            read_u64(&bytes, 16).unwrap_or_default()
        }
        Err(other) => return Err(other.into()),
    };
    Ok(LogFile { name, bytes, seed, first_sequence })
}

/// Goes over a file to its end, or to the record with sequence `until`, with which the next file begins.
fn walk_damaged<E>(
    file: &LogFile,
    from_sequence: u64,
    until: Option<u64>,
    each: &mut impl FnMut(LogPiece<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut end = End { next_sequence: file.first_sequence, offset: LOG_HEADER_BYTES, synced: 0 };
    let damage = |offset: usize, what| LogPiece::Damage(DiskError::corrupt(&file.name, offset as u64, what));
    while until != Some(end.next_sequence) && end.offset < file.bytes.len() {
        if let Some(record) = decode_record(file.seed, &file.bytes[end.offset..])
            && record.sequence >= end.next_sequence
            && until.is_none_or(|until| record.sequence < until)
        {
            if record.sequence > from_sequence {
                let (offset, sequence) = (end.offset as u64, record.sequence);
                each(LogPiece::Record { file: &file.name, offset, sequence, payload: record.payload })?;
            }
            end.next_sequence = record.sequence + 1;
            end.offset += RECORD_HEADER_BYTES + record.payload.len();
            continue;
        }
        if until.is_none() && !file.is_damaged(&end) {
            let (offset, bytes) = (end.offset as u64, (file.bytes.len() - end.offset) as u64);
            return each(LogPiece::Torn(Cut { file: file.name.clone(), offset, bytes }));
        }
        // A good record out of its order is passed over whole.
        let skipped = decode_record(file.seed, &file.bytes[end.offset..])
            .map_or(1, |record| RECORD_HEADER_BYTES + record.payload.len());
        let next = file.find_record(end.offset + skipped, end.next_sequence).map(|(at, _, _)| at);
        // Records that the next file begins with or after are void here.
        let next = next.filter(|&at| until.is_none_or(|until| read_u64(&file.bytes, at + 8) < Some(until)));
        let what = match next {
            Some(at) => format!("record {} is damaged; the next good one is at byte {at}", end.next_sequence),
            None => format!("record {} and all after it in this file are damaged", end.next_sequence),
        };
        each(damage(end.offset, what))?;
        end.offset = next.unwrap_or(file.bytes.len());
    }
    match until {
        Some(until) if end.next_sequence < until => {
            let what =
                format!("record {} is missing, and the next log file begins with {until}", end.next_sequence);
            each(damage(end.offset, what))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::log::LogWriter;
    use super::super::sim::SimDisk;
    use super::super::state::StateWriter;
    use super::*;

    const ENTRIES: [&[u8]; 5] = [b"head", b"collection one", b"", b"sixteen bytes ..", b"the last of them"];

    /// Entries with their indexes, and the number of errors.
    fn entries(disk: &SimDisk, name: &str, pin: &Pin) -> (Vec<(u64, Vec<u8>)>, usize) {
        let (mut found, mut damages) = (Vec::new(), 0);
        state_entries(disk, name, Some(pin), |piece| {
            match piece {
                Ok((index, entry)) => found.push((index, entry.to_vec())),
                Err(DiskError::Corrupt { file, .. }) => {
                    assert_eq!(file, name);
                    damages += 1;
                }
                Err(other) => return Err(other),
            }
            Ok(())
        })
        .unwrap();
        (found, damages)
    }

    #[test]
    fn a_flipped_bit_loses_one_entry_of_a_state_file_at_most() {
        let disk = SimDisk::new();
        let mut state = StateWriter::create(&disk, 5).unwrap();
        ENTRIES.iter().for_each(|entry| state.entry(entry).unwrap());
        let state = state.finish().unwrap();
        let bytes = disk.read(&state.name).unwrap();
        assert_eq!(entries(&disk, &state.name, &state.pin).1, 0);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            disk.put(&state.name, &flipped);
            let (found, damages) = entries(&disk, &state.name, &state.pin);
            assert!(damages >= 1, "bit {bit} went unseen");
            assert!(found.len() >= ENTRIES.len() - 1, "bit {bit}: {} entries", found.len());
            for (index, entry) in found {
                assert_eq!(entry, ENTRIES[usize::try_from(index).unwrap()], "bit {bit}");
            }
        }
        for len in 0..bytes.len() {
            disk.put(&state.name, &bytes[..len]);
            let (found, damages) = entries(&disk, &state.name, &state.pin);
            assert!(damages >= 1 && found.len() <= ENTRIES.len(), "length {len}");
        }
    }

    #[test]
    fn several_damaged_entries_do_not_hide_the_others() {
        let disk = SimDisk::new();
        let all: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; usize::from(n) * 7]).collect();
        let mut state = StateWriter::create(&disk, 5).unwrap();
        all.iter().for_each(|entry| state.entry(entry).unwrap());
        let state = state.finish().unwrap();
        let mut bytes = disk.read(&state.name).unwrap();
        for n in [9, 10, 30] {
            let at = bytes.windows(20).position(|window| window == [n; 20]).unwrap();
            bytes[at] ^= 1;
        }
        disk.put(&state.name, &bytes);
        let (found, damages) = entries(&disk, &state.name, &state.pin);
        let indexes: Vec<u64> = found.iter().map(|(index, _)| *index).collect();
        let expected: Vec<u64> = (0..40).filter(|index| ![9, 10, 30].contains(index)).collect();
        assert_eq!((indexes, damages), (expected, 2));
    }

    /// Sequences of the good records, number of errors, and whether there was a torn tail.
    fn records(disk: &SimDisk) -> (Vec<u64>, usize, bool) {
        let (mut found, mut damages, mut torn) = (Vec::new(), 0, false);
        log_records(disk, 0, |piece| {
            match piece {
                LogPiece::Record { sequence, payload, .. } => {
                    assert_eq!(payload, [u8::try_from(sequence).unwrap(); 9]);
                    found.push(sequence);
                }
                LogPiece::Damage(_) => damages += 1,
                LogPiece::Torn(_) => torn = true,
            }
            Ok::<(), DiskError>(())
        })
        .unwrap();
        (found, damages, torn)
    }

    #[test]
    fn a_flipped_bit_loses_one_log_record_or_is_a_torn_tail() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        for n in 1..=6u8 {
            log.append(&[n; 9]).unwrap();
            log.write().unwrap();
            log.sync().unwrap();
            if n == 3 {
                log.rotate(&disk).unwrap();
            }
        }
        assert_eq!(records(&disk), (vec![1, 2, 3, 4, 5, 6], 0, false));
        for first in [1, 4] {
            let bytes = disk.read(&log_name(first)).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                disk.put(&log_name(first), &flipped);
                let (found, damages, torn) = records(&disk);
                let seed = (16..24).contains(&(bit / 8));
                let last = first == 4 && bit / 8 >= bytes.len() - 37;
                assert_eq!(torn, last || (seed && first == 4), "file {first}, bit {bit}");
                assert_eq!(damages == 0, last, "file {first}, bit {bit}");
                // With another seed no record of the file can be told from chance.
                assert_eq!(
                    found.len(),
                    if seed {
                        3
                    } else if (24..36).contains(&(bit / 8)) || bit / 8 < 16 {
                        6
                    } else {
                        5
                    }
                );
            }
            disk.put(&log_name(first), &bytes);
        }
    }

    #[test]
    fn records_out_of_order_and_missing_files_are_told() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        for n in 1..=3u8 {
            log.append(&[n; 9]).unwrap();
            log.rotate(&disk).unwrap();
        }
        disk.remove(&log_name(2)).unwrap();
        let (found, damages, torn) = records(&disk);
        assert_eq!((found, damages, torn), (vec![1, 3], 1, false));
        disk.remove(&log_name(1)).unwrap();
        let (found, damages, torn) = records(&disk);
        assert_eq!((found, damages, torn), (vec![3], 1, false));
    }
}
