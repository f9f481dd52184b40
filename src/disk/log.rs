//! The log of changes, written. [`super::replay`] reads it back; [`super::format`] has the layout.
//!
//! One writer appends records to a buffer, writes the buffer with one call, and makes the file durable by its
//! own call or from another thread. After the first failed write or sync the file is given up: the kernel may
//! have dropped the data and would report success the next time.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::format::{LOG, MAX_RECORD_BYTES, log_name, read_u32, read_u64};
use super::tmp_file::TmpFile;
use super::{Disk, DiskError, DiskFile, DiskSync};

/// Bytes before the first record of a log file.
pub(super) const HEADER_BYTES: usize = 36;
/// Bytes of a record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 28;
/// A buffer that grew beyond this for one large batch is given back.
const KEPT_BUFFER_BYTES: usize = 16 << 20;

/// The writer of one log file.
pub struct LogWriter {
    file: Box<dyn DiskFile>,
    shared: Arc<Shared>,
    seed: u64,
    /// Records not yet written.
    buffer: Vec<u8>,
    next_sequence: u64,
    len_bytes: u64,
}

/// What a writer and its syncers share.
struct Shared {
    name: String,
    /// The first failure, which every later call repeats.
    failure: OnceLock<DiskError>,
    /// Last sequence that was written.
    written: AtomicU64,
    /// Last sequence known to be durable.
    synced: AtomicU64,
    /// Held during a sync: of two at the same time the kernel may tell only one of the failure.
    syncing: Mutex<()>,
}

impl LogWriter {
    /// Begins the log file whose first record will have `first_sequence` (at least 1). The file and its name
    /// are durable when this returns; so must be everything before it, see [`LogWriter::rotate`]. A file of
    /// that name without records is replaced.
    ///
    /// # Errors
    /// [`DiskError::Corrupt`] if a file of that name holds records, [`DiskError::Io`].
    pub fn create(disk: &dyn Disk, first_sequence: u64) -> Result<Self, DiskError> {
        let name = log_name(first_sequence);
        match disk.len_bytes(&name) {
            Ok(len) if len > HEADER_BYTES as u64 => {
                let what = "a new log file would replace one that holds records";
                Err(DiskError::corrupt(&name, HEADER_BYTES as u64, what))
            }
            Err(error) if !error.is_not_found() => Err(error),
            _ => Self::begin(disk, first_sequence),
        }
    }

    /// As [`LogWriter::create`], after a writer failed. Everything the caller acknowledged and that may not
    /// be durable must be in a durable checkpoint of sequence `first_sequence - 1` before. Records of older
    /// files from `first_sequence` on become void; a file of the same name is replaced.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn create_after_failure(disk: &dyn Disk, first_sequence: u64) -> Result<Self, DiskError> {
        Self::begin(disk, first_sequence)
    }

    fn begin(disk: &dyn Disk, first_sequence: u64) -> Result<Self, DiskError> {
        let name = log_name(first_sequence);
        // Each `RandomState` has fresh random keys, so the hash of nothing is a random number.
        let seed = RandomState::new().hash_one(());
        let mut file = TmpFile::create(disk, &name)?;
        file.write(&encode_header(seed, first_sequence))?;
        let file = file.publish()?;
        let before = first_sequence.saturating_sub(1);
        let shared = Shared {
            name,
            failure: OnceLock::new(),
            written: AtomicU64::new(before),
            synced: AtomicU64::new(before),
            syncing: Mutex::new(()),
        };
        Ok(Self {
            file,
            shared: Arc::new(shared),
            seed,
            buffer: Vec::new(),
            next_sequence: first_sequence,
            len_bytes: HEADER_BYTES as u64,
        })
    }

    /// Puts a record into the buffer and returns its sequence.
    ///
    /// # Errors
    /// [`DiskError::TooLarge`] (the writer stays usable), or the failure this writer had before.
    pub fn append(&mut self, payload: &[u8]) -> Result<u64, DiskError> {
        self.shared.check()?;
        let sequence = self.next_sequence;
        let synced = self.shared.synced.load(Ordering::Acquire);
        let header = encode_record_header(self.seed, sequence, synced, payload)
            .ok_or_else(|| self.too_large(payload.len()))?;
        self.buffer.extend_from_slice(&header);
        self.buffer.extend_from_slice(payload);
        self.next_sequence += 1;
        Ok(sequence)
    }

    fn too_large(&self, size: usize) -> DiskError {
        DiskError::TooLarge { file: self.shared.name.clone(), size_bytes: size as u64 }
    }

    /// Whether a payload of this many bytes can be a record.
    ///
    /// # Errors
    /// [`DiskError::TooLarge`].
    pub fn check_size(&self, size_bytes: usize) -> Result<(), DiskError> {
        if size_bytes > MAX_RECORD_BYTES { Err(self.too_large(size_bytes)) } else { Ok(()) }
    }

    /// Drops the records that were appended but not written; their sequences will be used again.
    pub fn discard(&mut self) {
        self.clear_buffer();
        self.next_sequence = self.shared.written.load(Ordering::Acquire) + 1;
    }

    /// Writes all appended records with one call. They survive the end of the process, not yet a power cut.
    ///
    /// # Errors
    /// [`DiskError::Io`], and the same for ever after.
    pub fn write(&mut self) -> Result<(), DiskError> {
        self.shared.check()?;
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.buffer).map_err(|e| self.shared.fail(e))?;
        self.len_bytes += self.buffer.len() as u64;
        self.shared.written.store(self.next_sequence - 1, Ordering::Release);
        self.clear_buffer();
        Ok(())
    }

    /// Makes all written records durable.
    ///
    /// # Errors
    /// [`DiskError::Io`], and the same for ever after.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        self.shared.sync(|| self.file.sync_data()).map(|_| ())
    }

    /// A handle that makes written records durable from another thread.
    ///
    /// # Errors
    /// [`DiskError::Io`] if the file handle cannot be duplicated; the writer stays usable.
    pub fn syncer(&self) -> Result<LogSyncer, DiskError> {
        let file = self.file.syncer().map_err(|e| DiskError::io(&self.shared.name, e))?;
        Ok(LogSyncer { file, shared: Arc::clone(&self.shared) })
    }

    /// Writes what is buffered, makes it durable, and goes on in a new file. (In this order: were the new
    /// file there after a power cut but not the end of this one, the log would have a gap.) Unchanged if this
    /// file holds no record.
    ///
    /// # Errors
    /// [`DiskError::Io`], and the same for ever after.
    pub fn rotate(&mut self, disk: &dyn Disk) -> Result<(), DiskError> {
        self.write()?;
        self.sync()?;
        if self.len_bytes > HEADER_BYTES as u64 {
            // A new file that could not be finished may be there all the same, and would make further records
            // of this one void: so this file is given up too.
            *self = Self::create(disk, self.next_sequence).map_err(|e| self.shared.give_up(e))?;
        }
        Ok(())
    }

    /// The failure after which this file was given up, met here or by a syncer.
    pub fn failure(&self) -> Option<DiskError> {
        self.shared.check().err()
    }

    /// Name of the file.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Bytes written to the file so far.
    pub fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    /// Bytes appended and not yet written.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The sequence the next record will get.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The last sequence known to be durable.
    pub fn synced_sequence(&self) -> u64 {
        self.shared.synced.load(Ordering::Acquire)
    }

    fn clear_buffer(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(KEPT_BUFFER_BYTES);
    }
}

/// Makes a log file durable while its [`LogWriter`] goes on writing.
pub struct LogSyncer {
    file: Box<dyn DiskSync>,
    shared: Arc<Shared>,
}

impl LogSyncer {
    /// Makes all records written before the call durable and returns the last sequence known to be so.
    ///
    /// # Errors
    /// [`DiskError::Io`], and the same for ever after, here and in the writer.
    pub fn sync(&self) -> Result<u64, DiskError> {
        self.shared.sync(|| self.file.sync_data())
    }
}

impl Shared {
    /// The failure of before, if there was one.
    fn check(&self) -> Result<(), DiskError> {
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    /// Remembers the first failure and returns it.
    fn give_up(&self, error: DiskError) -> DiskError {
        self.failure.get_or_init(|| error).clone()
    }

    fn fail(&self, error: std::io::Error) -> DiskError {
        self.give_up(DiskError::io(&self.name, error))
    }

    fn sync(&self, sync_data: impl FnOnce() -> std::io::Result<()>) -> Result<u64, DiskError> {
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        self.check()?;
        let written = self.written.load(Ordering::Acquire);
        if written > self.synced.load(Ordering::Acquire) {
            sync_data().map_err(|e| self.fail(e))?;
            self.synced.store(written, Ordering::Release);
        }
        Ok(written)
    }
}

/// A record of a log file, verified.
pub(super) struct Record<'a> {
    pub(super) sequence: u64,
    pub(super) synced: u64,
    pub(super) payload: &'a [u8],
}

/// The header of a log file.
pub(super) fn encode_header(seed: u64, first_sequence: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..16].copy_from_slice(&LOG.prefix());
    header[16..24].copy_from_slice(&seed.to_le_bytes());
    header[24..32].copy_from_slice(&first_sequence.to_le_bytes());
    let crc = crc32fast::hash(&header[..32]);
    header[32..].copy_from_slice(&crc.to_le_bytes());
    header
}

/// The seed in the header of log file `file`, which must begin with `first_sequence`.
pub(super) fn decode_header(file: &str, bytes: &[u8], first_sequence: u64) -> Result<u64, DiskError> {
    LOG.check_prefix(file, bytes)?;
    let good = read_u32(bytes, 32).is_some_and(|crc| crc == crc32fast::hash(&bytes[..32]));
    match (read_u64(bytes, 16), read_u64(bytes, 24)) {
        (Some(seed), Some(first)) if good && first == first_sequence => Ok(seed),
        (Some(_), Some(_)) if good => {
            Err(DiskError::corrupt(file, 24, "the first sequence is not that of the name"))
        }
        _ => Err(DiskError::corrupt(file, 16, "the checksum of the header does not match")),
    }
}

/// The header of a record; `None` if the payload is too large.
fn encode_record_header(
    seed: u64,
    sequence: u64,
    synced: u64,
    payload: &[u8],
) -> Option<[u8; RECORD_HEADER_BYTES]> {
    let len = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_RECORD_BYTES)?;
    let mut header = [0; RECORD_HEADER_BYTES];
    header[4..8].copy_from_slice(&len.to_le_bytes());
    header[8..16].copy_from_slice(&sequence.to_le_bytes());
    header[16..24].copy_from_slice(&synced.to_le_bytes());
    header[24..28].copy_from_slice(&seeded_crc(seed, payload).to_le_bytes());
    let crc = seeded_crc(seed, &header[4..]);
    header[..4].copy_from_slice(&crc.to_le_bytes());
    Some(header)
}

/// The record at the start of `bytes`, if there is a whole and good one.
pub(super) fn decode_record(seed: u64, bytes: &[u8]) -> Option<Record<'_>> {
    let len = usize::try_from(read_u32(bytes, 4)?).ok().filter(|&len| len <= MAX_RECORD_BYTES)?;
    let header = bytes.get(..RECORD_HEADER_BYTES)?;
    let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + len)?;
    let good = read_u32(header, 0)? == seeded_crc(seed, &header[4..])
        && read_u32(header, 24)? == seeded_crc(seed, payload);
    good.then_some(Record { sequence: read_u64(header, 8)?, synced: read_u64(header, 16)?, payload })
}

/// The crc32 of `seed` and `bytes`.
fn seeded_crc(seed: u64, bytes: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&seed.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::super::sim::{SimDisk, payloads};
    use super::*;

    #[test]
    fn sequences_and_lengths_follow_what_is_written() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 5).unwrap();
        assert_eq!((log.append(b"a").unwrap(), log.append(b"").unwrap()), (5, 6));
        assert_eq!(log.len_bytes(), HEADER_BYTES as u64);
        log.discard();
        assert_eq!((log.next_sequence(), log.buffered_bytes()), (5, 0));
        assert_eq!(log.append(b"bb").unwrap(), 5);
        log.write().unwrap();
        assert_eq!(log.append(b"c").unwrap(), 6);
        log.discard();
        assert_eq!(log.next_sequence(), 6);
        assert_eq!(log.synced_sequence(), 4);
        assert_eq!(log.syncer().unwrap().sync().unwrap(), 5);
        assert_eq!(log.synced_sequence(), 5);
        assert_eq!(log.len_bytes(), disk.len_bytes(log.name()).unwrap());
        assert_eq!(payloads(&disk, 4).unwrap(), [b"bb"]);
    }

    #[test]
    fn a_record_over_the_limit_is_refused_and_the_log_goes_on() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        let huge = vec![0; MAX_RECORD_BYTES + 1];
        assert!(matches!(log.append(&huge), Err(DiskError::TooLarge { .. })));
        assert_eq!(log.append(b"small").unwrap(), 1);
    }

    #[test]
    fn a_failed_write_is_final() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        log.append(b"one").unwrap();
        log.write().unwrap();
        log.append(b"two").unwrap();
        disk.fail_writes(true);
        let first = log.write().unwrap_err().to_string();
        disk.fail_writes(false);
        let syncer = log.syncer().unwrap();
        assert_eq!(log.write().unwrap_err().to_string(), first);
        assert_eq!(log.append(b"x").unwrap_err().to_string(), first);
        assert_eq!(log.sync().unwrap_err().to_string(), first);
        assert_eq!(syncer.sync().unwrap_err().to_string(), first);
        assert_eq!(log.rotate(&disk).unwrap_err().to_string(), first);
        assert_eq!(payloads(&disk, 0).unwrap(), [b"one"]);
    }

    #[test]
    fn a_failed_sync_on_either_handle_is_final_for_both() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        let syncer = log.syncer().unwrap();
        log.append(b"one").unwrap();
        log.write().unwrap();
        disk.fail_syncs(true);
        let first = syncer.sync().unwrap_err().to_string();
        disk.fail_syncs(false);
        assert_eq!(log.sync().unwrap_err().to_string(), first);
        assert_eq!(log.write().unwrap_err().to_string(), first);
        assert_eq!(log.synced_sequence(), 0);
    }

    #[test]
    fn rotation_goes_on_in_a_new_file() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        log.rotate(&disk).unwrap();
        assert_eq!(log.name(), log_name(1));
        for payload in [b"a", b"b"] {
            log.append(payload).unwrap();
        }
        log.rotate(&disk).unwrap();
        assert_eq!((log.name(), log.next_sequence()), (&*log_name(3), 3));
        log.append(b"c").unwrap();
        log.write().unwrap();
        assert_eq!(payloads(&disk, 0).unwrap(), [b"a", b"b", b"c"]);
    }

    #[test]
    fn a_failed_rotation_is_final() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        log.append(b"one").unwrap();
        log.write().unwrap();
        log.sync().unwrap();
        disk.fail_syncs(true);
        let first = log.rotate(&disk).unwrap_err().to_string();
        disk.fail_syncs(false);
        assert_eq!(log.append(b"two").unwrap_err().to_string(), first);
        assert_eq!(payloads(&disk, 0).unwrap(), [b"one"]);
    }

    #[test]
    fn a_file_that_holds_records_is_replaced_only_after_a_failure() {
        let disk = SimDisk::new();
        drop(LogWriter::create(&disk, 1).unwrap());
        let mut log = LogWriter::create(&disk, 1).unwrap();
        log.append(b"never acknowledged").unwrap();
        log.write().unwrap();
        assert!(matches!(LogWriter::create(&disk, 1), Err(DiskError::Corrupt { .. })));
        let mut log = LogWriter::create_after_failure(&disk, 1).unwrap();
        log.append(b"new").unwrap();
        log.write().unwrap();
        assert_eq!(payloads(&disk, 0).unwrap(), [b"new"]);
    }
}
