//! The log of changes, read back after a start.
//!
//! What happens to bytes that are not a good record with the next sequence:
//! - In a file that is followed by another: an error, unless all records up to the first one of the next file
//!   were good.
//! - In the last file, with no good record after them: a torn tail. It is cut off and reported.
//! - In the last file, with a good record after them: an error, with one exception. A power cut may lose any
//!   part of what was written since the last sync, in pieces of a disk sector, and keep later parts. So the
//!   tail is cut if two things hold: no later record says that the bad one was durable once (field `synced`),
//!   and in front of the first good record a piece of a sector is all zero, as it is where a write never
//!   reached a fresh file. A flipped bit has no such piece.

use bytes::Bytes;

use super::format::{log_name, parse_log_name, read_u32, read_u64};
use super::log::{HEADER_BYTES, RECORD_HEADER_BYTES, decode_header, decode_record};
use super::{Disk, DiskError};

/// How far the sequence of a record may be ahead for the search after a bad one to take it seriously.
const SEARCH_SEQUENCES: u64 = 1 << 20;
/// The smallest piece of a file that a disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// What a replay did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// The last sequence of the log, or the sequence replay began from if the log holds nothing newer.
    /// [`super::log::LogWriter::create`] goes on with the next one.
    pub last_sequence: u64,
    /// Records handed over.
    pub records: u64,
    /// The torn tail that was cut off, if there was one.
    pub cut: Option<Cut>,
    /// Name of the log file to be created next.
    pub next_file: String,
}

/// A torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The log file.
    pub file: String,
    /// Where it ends now, in bytes.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes: u64,
}

/// Hands every record with a sequence above `from_sequence` to `apply`, in order, verified. Files that end at
/// or below it are not read. Cuts a torn tail, removes a last file that is nothing but a torn header, and
/// makes the last file durable, so that a new file may be begun after it; on a read-only disk it passes over them.
/// What no record of it calls durable is written again before: the sync of it may have failed before the start.
///
/// # Errors
/// What `apply` returns; [`DiskError::Corrupt`] for a bad record that is not a torn tail and for a gap in the
/// sequences (both name file and offset); [`DiskError::Newer`]; [`DiskError::Io`]. After an error the records
/// handed over so far must be dropped.
pub fn replay<E: From<DiskError>>(
    disk: &dyn Disk,
    from_sequence: u64,
    mut apply: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Replayed, E> {
    let files = needed_files(disk, from_sequence)?;
    let mut records = 0;
    let mut next_sequence = from_sequence.saturating_add(1);
    let mut cut = None;
    for (index, &first) in files.iter().enumerate() {
        let file = LogFile::open(disk, first)?;
        let until = files.get(index + 1).copied();
        let end = file.walk(until, |sequence, payload| {
            if sequence > from_sequence {
                records += 1;
                apply(sequence, payload)?;
            }
            Ok::<(), E>(())
        })?;
        next_sequence = next_sequence.max(end.next_sequence);
        match until {
            Some(until) => file.check_end_of_earlier(&end, until)?,
            None => cut = file.finish_last(disk, &end)?,
        }
    }
    Ok(Replayed { last_sequence: next_sequence - 1, records, cut, next_file: log_name(next_sequence) })
}

/// The first sequences of the log files that may hold records above `from_sequence`, in order.
fn needed_files(disk: &dyn Disk, from_sequence: u64) -> Result<Vec<u64>, DiskError> {
    let mut files = log_files(disk)?;
    if let Some(&last) = files.last()
        && remove_if_torn_header(disk, last)?
    {
        files.pop();
    }
    let wanted = from_sequence.saturating_add(1);
    let start = files.partition_point(|&first| first <= wanted);
    if start == 0
        && let Some(&first) = files.first()
    {
        let what = format!("the log begins with sequence {first}, but sequence {wanted} is needed");
        return Err(DiskError::corrupt(&log_name(first), 0, what));
    }
    Ok(files.split_off(start.saturating_sub(1)))
}

/// The first sequences of all log files, in order.
pub(super) fn log_files(disk: &dyn Disk) -> Result<Vec<u64>, DiskError> {
    let mut files: Vec<u64> = disk.list("")?.iter().filter_map(|name| parse_log_name(name)).collect();
    files.sort_unstable();
    Ok(files)
}

/// Whether a log file holds nothing and its header is not whole: it was just being created.
pub(super) fn is_torn_header(disk: &dyn Disk, first_sequence: u64) -> Result<bool, DiskError> {
    let name = log_name(first_sequence);
    if disk.len_bytes(&name)? > HEADER_BYTES as u64 {
        return Ok(false);
    }
    match decode_header(&name, &disk.read(&name)?, first_sequence) {
        Ok(_) => Ok(false),
        Err(newer @ DiskError::Newer { .. }) => Err(newer),
        Err(_) => Ok(true),
    }
}

/// Removes the last log file if it is only a torn header.
fn remove_if_torn_header(disk: &dyn Disk, first_sequence: u64) -> Result<bool, DiskError> {
    let torn = is_torn_header(disk, first_sequence)?;
    if torn && !disk.is_read_only() {
        let name = log_name(first_sequence);
        tracing::warn!(file = name, "removed a log file that holds only a torn header");
        disk.remove(&name)?;
        disk.sync_folder("")?;
    }
    Ok(torn)
}

/// A mapped log file.
pub(super) struct LogFile {
    pub(super) name: String,
    pub(super) bytes: Bytes,
    pub(super) seed: u64,
    pub(super) first_sequence: u64,
}

/// Where the good records of a file end.
pub(super) struct End {
    pub(super) next_sequence: u64,
    pub(super) offset: usize,
    /// Records up to this sequence are known to be durable.
    pub(super) synced: u64,
}

impl LogFile {
    /// Opens a file with a good header.
    pub(super) fn open(disk: &dyn Disk, first_sequence: u64) -> Result<Self, DiskError> {
        let name = log_name(first_sequence);
        let bytes = disk.map(&name)?;
        let seed = decode_header(&name, &bytes, first_sequence)?;
        Ok(Self { name, bytes, seed, first_sequence })
    }

    /// Hands over the good records, in order, up to the first bad one or the one with sequence `until`.
    pub(super) fn walk<E>(
        &self,
        until: Option<u64>,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<End, E> {
        let mut end = End { next_sequence: self.first_sequence, offset: HEADER_BYTES, synced: 0 };
        while Some(end.next_sequence) != until
            && let Some(record) = decode_record(self.seed, &self.bytes[end.offset..])
            && record.sequence == end.next_sequence
        {
            each(record.sequence, record.payload)?;
            end.next_sequence += 1;
            end.synced = record.synced;
            end.offset += RECORD_HEADER_BYTES + record.payload.len();
        }
        Ok(end)
    }

    /// Checks that the records of a file that is not the last reach up to those of the next.
    fn check_end_of_earlier(&self, end: &End, until: u64) -> Result<(), DiskError> {
        if end.next_sequence != until {
            let what = format!(
                "record {} is damaged or missing, and the next log file begins with {until}",
                end.next_sequence
            );
            return Err(DiskError::corrupt(&self.name, end.offset as u64, what));
        }
        let void = self.bytes.len() - end.offset;
        if void > 0 {
            tracing::warn!(file = self.name, bytes = void, "skipped the void end of a log file that failed");
        }
        Ok(())
    }

    /// Cuts a torn tail off the last file, and makes the file durable.
    fn finish_last(self, disk: &dyn Disk, end: &End) -> Result<Option<Cut>, DiskError> {
        let (offset, bytes) = (end.offset as u64, (self.bytes.len() - end.offset) as u64);
        if bytes > 0 && self.is_damaged(end) {
            let what = format!("record {} is damaged, and good records follow", end.next_sequence);
            return Err(DiskError::corrupt(&self.name, offset, what));
        }
        let unsynced = self.offset_after(end.synced, end);
        let Self { name, bytes: mapped, .. } = self;
        drop(mapped); // a file must not change while it is mapped
        if disk.is_read_only() {
            return Ok((bytes > 0).then_some(Cut { file: name, offset, bytes }));
        }
        if bytes > 0 {
            disk.truncate(&name, offset)?;
        }
        if unsynced < offset {
            disk.rewrite(&name, unsynced)?;
        }
        disk.sync_file(&name)?;
        if bytes == 0 {
            return Ok(None);
        }
        tracing::warn!(file = name, offset, bytes, "cut the torn tail of the log");
        Ok(Some(Cut { file: name, offset, bytes }))
    }

    /// Where the record after `sequence` begins, at most `end`. The records up to there were verified.
    fn offset_after(&self, sequence: u64, end: &End) -> u64 {
        let mut offset = HEADER_BYTES;
        for _ in self.first_sequence..sequence.saturating_add(1).min(end.next_sequence) {
            let Some(payload_bytes) = read_u32(&self.bytes, offset + 4) else { break };
            offset += RECORD_HEADER_BYTES + payload_bytes as usize;
        }
        offset as u64
    }

    /// Whether the bad bytes at `end` are damage rather than a torn tail; the rule is at the top of this
    /// file.
    pub(super) fn is_damaged(&self, end: &End) -> bool {
        let mut first_good = None;
        let mut offset = end.offset;
        while let Some((at, synced, next)) = self.find_record(offset, end.next_sequence) {
            if synced >= end.next_sequence {
                return true;
            }
            first_good.get_or_insert(at);
            offset = next;
        }
        first_good.is_some_and(|good| !self.misses_sector(end.offset, good))
    }

    /// The next good record from `offset` on, tried at every byte: its offset, its `synced`, and the offset
    /// after it.
    pub(super) fn find_record(&self, offset: usize, expected: u64) -> Option<(usize, u64, usize)> {
        let plausible = self.first_sequence..expected.saturating_add(SEARCH_SEQUENCES);
        let last = self.bytes.len().checked_sub(RECORD_HEADER_BYTES)?;
        (offset..=last).find_map(|at| {
            // The sequence first: a cheap look that sends nearly every offset away.
            read_u64(&self.bytes, at + 8).filter(|sequence| plausible.contains(sequence))?;
            let record = decode_record(self.seed, &self.bytes[at..])?;
            Some((at, record.synced, at + RECORD_HEADER_BYTES + record.payload.len()))
        })
    }

    /// Whether some sector is all zero from `start` (or its own start) to its end, at or before `end`.
    fn misses_sector(&self, start: usize, end: usize) -> bool {
        let mut from = start;
        loop {
            let to = (from / SECTOR_BYTES + 1) * SECTOR_BYTES;
            if to > end {
                return false;
            }
            if self.bytes[from..to].iter().all(|&byte| byte == 0) {
                return true;
            }
            from = to;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::log::LogWriter;
    use super::super::sim::{SimDisk, payloads};
    use super::*;

    /// A disk with one log file of records with these payloads, written and synced one by one, and the file's
    /// bytes.
    fn disk_with(records: &[&[u8]]) -> (SimDisk, Vec<u8>) {
        let disk = SimDisk::new();
        append(&mut LogWriter::create(&disk, 1).unwrap(), records);
        let bytes = disk.read(&log_name(1)).unwrap();
        (disk, bytes)
    }

    fn append(log: &mut LogWriter, records: &[&[u8]]) {
        for record in records {
            log.append(record).unwrap();
            log.write().unwrap();
            log.sync().unwrap();
        }
    }

    fn run(disk: &dyn Disk, from: u64) -> Result<Replayed, DiskError> {
        replay(disk, from, |_, _| Ok::<(), DiskError>(()))
    }

    const RECORDS: [&[u8]; 4] = [b"first", b"", b"the third record", b"4"];

    #[test]
    fn an_empty_folder_has_an_empty_log() {
        let replayed = run(&SimDisk::new(), 0).unwrap();
        let expected = Replayed { last_sequence: 0, records: 0, cut: None, next_file: log_name(1) };
        assert_eq!(replayed, expected);
    }

    #[test]
    fn replay_twice_gives_the_same_and_skips_what_a_checkpoint_holds() {
        let (disk, _) = disk_with(&RECORDS);
        assert_eq!(payloads(&disk, 0).unwrap(), RECORDS);
        assert_eq!(payloads(&disk, 0).unwrap(), RECORDS);
        assert_eq!(payloads(&disk, 2).unwrap(), RECORDS[2..]);
        let replayed = run(&disk, 9).unwrap();
        assert_eq!((replayed.last_sequence, replayed.records), (9, 0));
        assert_eq!(replayed.next_file, log_name(10));
    }

    #[test]
    fn every_truncation_recovers_a_prefix_and_reports_the_cut() {
        let (disk, bytes) = disk_with(&RECORDS);
        let mut ends = vec![HEADER_BYTES];
        for record in RECORDS {
            ends.push(ends[ends.len() - 1] + RECORD_HEADER_BYTES + record.len());
        }
        for len in 0..=bytes.len() {
            disk.put(&log_name(1), &bytes[..len]);
            let replayed = run(&disk, 0).unwrap();
            let whole = ends.iter().filter(|&&end| end <= len).count().saturating_sub(1);
            assert_eq!(replayed.records, whole as u64, "length {len}");
            let torn = len.saturating_sub(ends[whole]);
            let cut =
                (torn > 0).then(|| Cut { file: log_name(1), offset: ends[whole] as u64, bytes: torn as u64 });
            assert_eq!(replayed.cut, cut, "length {len}");
            assert_eq!(payloads(&disk, 0).unwrap(), RECORDS[..whole]);
            // Writing goes on, in a new file or in place of an empty one.
            append(&mut LogWriter::create(&disk, replayed.last_sequence + 1).unwrap(), &[b"next"]);
            assert_eq!(payloads(&disk, 0).unwrap().len(), whole + 1);
            disk.clear();
        }
    }

    #[test]
    fn every_flip_refuses_or_cuts_the_tail() {
        let (disk, bytes) = disk_with(&RECORDS);
        let last_at = bytes.len() - RECORD_HEADER_BYTES - RECORDS[3].len();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            disk.put(&log_name(1), &flipped);
            match run(&disk, 0) {
                Ok(replayed) => {
                    assert!(bit / 8 >= last_at, "bit {bit} of byte {} went unseen", bit / 8);
                    assert_eq!(replayed.cut.unwrap().offset, last_at as u64);
                    assert_eq!(payloads(&disk, 0).unwrap(), RECORDS[..3]);
                }
                Err(error) => {
                    assert!(bit / 8 < last_at);
                    assert!(matches!(error, DiskError::Corrupt { ref file, .. } if *file == log_name(1)));
                    assert_eq!(disk.read(&log_name(1)).unwrap(), flipped, "the file was changed");
                }
            }
        }
    }

    #[test]
    fn an_error_names_the_offset_of_the_bad_record() {
        let (disk, mut bytes) = disk_with(&RECORDS);
        let second_at = HEADER_BYTES + RECORD_HEADER_BYTES + RECORDS[0].len();
        bytes[second_at + 9] ^= 1;
        disk.put(&log_name(1), &bytes);
        let error = run(&disk, 0).unwrap_err();
        assert!(matches!(error, DiskError::Corrupt { offset, .. } if offset == second_at as u64));
    }

    #[test]
    fn swapped_and_repeated_records_refuse() {
        let (disk, bytes) = disk_with(&[b"aaaa", b"bbbb", b"cccc"]);
        let size = RECORD_HEADER_BYTES + 4;
        let record = |n: usize| &bytes[HEADER_BYTES + n * size..HEADER_BYTES + (n + 1) * size];
        for order in [[1, 0, 2], [0, 2, 1], [0, 0, 1], [0, 1, 1]] {
            let mut swapped = bytes[..HEADER_BYTES].to_vec();
            order.iter().for_each(|&n| swapped.extend_from_slice(record(n)));
            disk.put(&log_name(1), &swapped);
            assert!(matches!(run(&disk, 0), Err(DiskError::Corrupt { .. })), "{order:?}");
        }
    }

    #[test]
    fn a_zeroed_sector_refuses_if_it_was_durable_and_is_cut_if_it_was_not() {
        let records: Vec<Vec<u8>> = (1..=40u8).map(|n| vec![n; 100]).collect();
        let refs: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        let (disk, mut bytes) = disk_with(&refs);
        bytes[1024..1536].fill(0);
        disk.put(&log_name(1), &bytes);
        assert!(matches!(run(&disk, 0), Err(DiskError::Corrupt { .. })));

        disk.clear();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        refs.iter().for_each(|record| assert!(log.append(record).is_ok()));
        log.write().unwrap();
        let mut bytes = disk.read(&log_name(1)).unwrap();
        bytes[1024..1536].fill(0);
        disk.put(&log_name(1), &bytes);
        let whole = (1024 - HEADER_BYTES) / (RECORD_HEADER_BYTES + 100);
        assert_eq!(run(&disk, 0).unwrap().records, whole as u64);
        assert_eq!(payloads(&disk, 0).unwrap(), refs[..whole]);
    }

    #[test]
    fn damage_gaps_and_missing_files_before_the_last_file_refuse() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        for _ in 0..3 {
            append(&mut log, &[b"x", b"y"]);
            log.rotate(&disk).unwrap();
        }
        assert_eq!(run(&disk, 0).unwrap().records, 6);
        let bytes = disk.read(&log_name(3)).unwrap();
        for len in [0, HEADER_BYTES, bytes.len() - 1] {
            disk.put(&log_name(3), &bytes[..len]);
            let error = run(&disk, 0).unwrap_err();
            assert!(matches!(error, DiskError::Corrupt { ref file, .. } if *file == log_name(3)), "{len}");
        }
        disk.remove(&log_name(3)).unwrap();
        assert!(matches!(run(&disk, 0), Err(DiskError::Corrupt { .. })));
        // A checkpoint that covers the damage makes the file irrelevant.
        assert_eq!(run(&disk, 4).unwrap().records, 2);
        disk.remove(&log_name(1)).unwrap();
        assert!(matches!(run(&disk, 0), Err(DiskError::Corrupt { .. })));
        assert_eq!(run(&disk, 4).unwrap().last_sequence, 6);
    }

    #[test]
    fn the_unacknowledged_end_of_a_failed_file_is_void() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        append(&mut log, &[b"kept"]);
        for payload in [&b"dropped"[..], b"torn in its middle"] {
            log.append(payload).unwrap();
            disk.fail_writes(payload.len() > 10);
            let _ = log.write();
        }
        disk.fail_writes(false);
        assert_eq!(payloads(&disk, 0).unwrap(), [&b"kept"[..], b"dropped"]);
        append(&mut LogWriter::create_after_failure(&disk, 2).unwrap(), &[b"new"]);
        assert_eq!(payloads(&disk, 0).unwrap(), [b"kept", &b"new"[..]]);
    }

    #[test]
    fn a_newer_log_refuses_and_strangers_do_not_hurt() {
        let (disk, mut bytes) = disk_with(&[b"x"]);
        for name in ["log-7.vdl", "log-1.vdl.bak", ".tmp-log-00000000000000000009.vdl", "notes"] {
            disk.put(name, b"not ours");
        }
        assert_eq!(run(&disk, 0).unwrap().records, 1);
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        for len in [bytes.len(), HEADER_BYTES] {
            disk.put(&log_name(1), &bytes[..len]);
            assert!(matches!(run(&disk, 0), Err(DiskError::Newer { version: 2, .. })));
        }
    }

    #[test]
    fn the_error_of_apply_is_passed_on() {
        let (disk, _) = disk_with(&[b"x", b"y"]);
        let refuse = |sequence, _: &[u8]| match sequence {
            2 => Err(DiskError::corrupt("meaning", 0, "no")),
            _ => Ok(()),
        };
        assert!(
            matches!(replay(&disk, 0, refuse), Err(DiskError::Corrupt { file, .. }) if file == "meaning")
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        /// After a power cut that loses any sectors written since the last sync, replay gives a prefix that
        /// holds at least everything synced.
        #[test]
        fn a_power_cut_leaves_a_prefix_with_all_that_was_synced(
            sizes in prop::collection::vec((1usize..900, any::<bool>()), 1..30),
            synced_count in 0usize..30,
            lost in prop::collection::vec(any::<bool>(), 60),
            lose_length in 0usize..3000,
        ) {
            let synced_count = if synced_count > sizes.len() { 0 } else { synced_count };
            let disk = SimDisk::new();
            let mut log = LogWriter::create(&disk, 1).unwrap();
            let mut durable_len = usize::try_from(log.len_bytes()).unwrap();
            let mut written = Vec::new();
            for (n, &(size, batch_ends)) in sizes.iter().enumerate() {
                // Bytes of 1 to 255: a sector inside a payload that is all zero cannot be told from a lost
                // one.
                written.push(vec![u8::try_from(n % 255).unwrap() + 1; size]);
                log.append(&written[n]).unwrap();
                if batch_ends || n + 1 == synced_count {
                    log.write().unwrap();
                }
                if n + 1 == synced_count {
                    log.sync().unwrap();
                    durable_len = usize::try_from(log.len_bytes()).unwrap();
                }
            }
            log.write().unwrap();
            let mut bytes = disk.read(&log_name(1)).unwrap();
            for (sector, _) in lost.iter().enumerate().filter(|(_, lost)| **lost) {
                let start = (sector * SECTOR_BYTES).max(durable_len).min(bytes.len());
                let end = ((sector + 1) * SECTOR_BYTES).clamp(start, bytes.len());
                bytes[start..end].fill(0);
            }
            let len = bytes.len().saturating_sub(lose_length).max(durable_len);
            disk.put(&log_name(1), &bytes[..len]);
            let found = payloads(&disk, 0).unwrap();
            prop_assert!(found.len() >= synced_count);
            prop_assert_eq!(&found[..], &written[..found.len()]);
        }

        /// Any bytes at all in a log file end in an answer, never in a panic.
        #[test]
        fn any_bytes_are_survived(
            mut tail in prop::collection::vec(any::<u8>(), 0..300),
            whole in any::<bool>(),
        ) {
            let (disk, bytes) = disk_with(&[b"x"]);
            let mut content = if whole { bytes } else { Vec::new() };
            content.append(&mut tail);
            disk.put(&log_name(1), &content);
            let _ = run(&disk, 0);
        }
    }
}
