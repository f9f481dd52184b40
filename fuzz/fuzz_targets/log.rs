//! Replay of the log: edited records that pass their checksums are applied or refused, and files edited behind their
//! checksums give the first records, unchanged, or an error.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vecdis::disk::DiskError;
use vecdis::disk::log::LogWriter;
use vecdis::disk::replay::replay;
use vecdis::store::LoadStats;
use vecdis::store::recovery::recover;
use vecdis::store::survey::survey;
use vecdis::store::write_copy;
use vecdis_fuzz::{Edit, MemoryDisk, dump, edit, payloads};

#[derive(Arbitrary, Debug)]
struct Input {
    payload_edits: Vec<Edit>,
    /// After that many records a new file is begun.
    file_records: u8,
    file_edits: Vec<Edit>,
}

static PAYLOADS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(payloads);

fn write(payloads: &[Vec<u8>], file_records: u8) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut log = LogWriter::create(&disk, 1).expect("memory takes all");
    for (at, payload) in payloads.iter().enumerate() {
        if at % (usize::from(file_records) + 1) == usize::from(file_records) {
            log.rotate(&disk).expect("memory takes all");
        }
        log.append(payload).expect("it is small");
    }
    log.write().expect("memory takes all");
    disk
}

/// The records that replay hands over, and whether it comes to a good end.
fn replayed(disk: &MemoryDisk) -> (Vec<Vec<u8>>, bool) {
    let mut records = Vec::new();
    let end = replay(disk, 0, |_, payload| {
        records.push(payload.to_vec());
        Ok::<(), DiskError>(())
    });
    (records, end.is_ok())
}

/// Edited records with good checksums.
fn check_records(disk: &MemoryDisk) {
    let surveyed = survey(disk, true, &mut |_| {}).expect("damage is no error");
    let Ok(recovered) = recover(disk, &LoadStats::default()) else { return };
    let content = dump(&recovered.snapshot);
    assert!(surveyed.damages.is_empty() && dump(&surveyed.snapshot) == content, "{:?}", surveyed.damages);
    let copy = MemoryDisk::default();
    write_copy(&copy, recovered.snapshot, &mut |_| {}).expect("memory takes all");
    let read = recover(&copy, &LoadStats::default())
        .unwrap_or_else(|error| panic!("a checkpoint reads back: {error}"));
    assert!(dump(&read.snapshot) == content, "a checkpoint holds what was there");
}

fuzz_target!(|input: Input| {
    let mut payloads = PAYLOADS.clone();
    edit(&mut payloads.iter_mut().collect::<Vec<_>>(), &input.payload_edits);
    let disk = write(&payloads, input.file_records);
    if !input.payload_edits.is_empty() {
        check_records(&disk);
    }
    if input.file_edits.is_empty() {
        return;
    }
    let mut files = disk.files();
    edit(&mut files.values_mut().collect::<Vec<_>>(), &input.file_edits);
    files.into_iter().for_each(|(name, content)| disk.put(&name, content));
    // A newer version is an error of its own.
    let _ = survey(&disk, true, &mut |_| {});
    let _ = survey(&disk, false, &mut |_| {});
    let (records, good) = replayed(&disk);
    assert!(payloads.starts_with(&records), "a prefix, unchanged");
    if good {
        assert_eq!(replayed(&disk), (records, true), "replay again gives the same");
    }
});
