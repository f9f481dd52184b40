//! Damaged files: whatever is wrong with a file, opening the folder ends in an error that names it, in the very data, or,
//! for the log alone, in a prefix of it.

use super::state::Snapshot;
use super::tests_crash::{Content, Step, open, workload, write_all};
use super::*;
use crate::config::Fsync;
use crate::disk::format::{is_chunk_name, parse_log_name, parse_state_name};
use crate::disk::manifest;
use crate::disk::sim::SimDisk;

/// Bytes at the front of a file of which every bit is flipped.
const HEADER_BYTES: usize = 128;
/// Bits flipped behind, anywhere.
const RANDOM_BITS: usize = 400;
/// A file of up to so many bytes is cut at every length, a longer one at so many.
const LENGTHS: usize = 3000;
/// Bytes that are zeroed, doubled and exchanged together.
const BLOCK_BYTES: usize = 64;

/// Bytes of a state file's header, and of an entry's.
const STATE_HEADER_BYTES: usize = 32;
const ENTRY_HEADER_BYTES: usize = 48;

fn next(random: &mut usize) -> usize {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *random >> 33
}

/// Damaged copies of a file, with what was done.
fn damages(sound: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut damaged = Vec::new();
    let mut random = sound.len();
    let bits = 0..HEADER_BYTES.min(sound.len()) * 8;
    let more: Vec<usize> = (0..RANDOM_BITS).map(|_| next(&mut random) % (sound.len() * 8)).collect();
    for bit in bits.chain(more) {
        let mut copy = sound.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        damaged.push((format!("bit {bit} flipped"), copy));
    }
    for len in (0..sound.len()).step_by(sound.len().div_ceil(LENGTHS)) {
        damaged.push((format!("cut to {len}"), sound[..len].to_vec()));
    }
    damaged.push(("longer".to_owned(), [sound, &[0; 100]].concat()));
    damaged.push(("doubled".to_owned(), sound.repeat(2)));
    let blocks = sound.len() / BLOCK_BYTES;
    for at in (0..blocks).step_by((blocks / 100).max(1)) {
        let (start, end) = (at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES);
        let other = next(&mut random) % blocks * BLOCK_BYTES;
        let mut zeroed = sound.to_vec();
        zeroed[start..end].fill(0);
        damaged.push((format!("block {at} zeroed"), zeroed));
        damaged.push((format!("block {at} twice"), [&sound[..end], &sound[start..]].concat()));
        damaged.push((format!("block {at} left out"), [&sound[..start], &sound[end..]].concat()));
        let mut exchanged = sound.to_vec();
        exchanged[start..end].copy_from_slice(&sound[other..other + BLOCK_BYTES]);
        exchanged[other..other + BLOCK_BYTES].copy_from_slice(&sound[start..end]);
        damaged.push((format!("blocks at {start} and {other} exchanged"), exchanged));
    }
    damaged.retain(|(_, copy)| copy != sound);
    damaged
}

fn kind_of(name: &str) -> &'static str {
    match () {
        () if parse_log_name(name).is_some() => "log",
        () if parse_state_name(name).is_some() => "state",
        () if is_chunk_name(name) => "chunk",
        () => "manifest",
    }
}

/// Everything on a disk, read to the last byte.
fn read(disk: &SimDisk) -> Result<(Content, Snapshot), StoreError> {
    let recovered = recovery::recover(disk, &LoadStats::default())?;
    Ok((Content::of(&recovered.snapshot)?, recovered.snapshot))
}

#[test]
fn any_damage_is_an_error_that_names_the_file_or_changes_nothing() {
    let disk = SimDisk::new();
    let store = open(&disk, Fsync::Always).unwrap();
    let mut contents = vec![Content::default()];
    // Two sealed chunks, a state file with a partial chunk, and a log.
    for step in workload().into_iter().take(24) {
        match step {
            Step::Write(changes) => {
                write_all(&store, &changes).unwrap();
                contents.push(contents[contents.len() - 1].with(&changes));
            }
            Step::Checkpoint => store.checkpoint().unwrap(),
        }
    }
    store.stop().unwrap();
    let image = disk.image();
    let (whole, snapshot) = read(&image.after_kill()).unwrap();
    assert!(whole == contents[contents.len() - 1]);
    let mut kinds = std::collections::BTreeMap::<&str, [usize; 3]>::new();
    for name in disk.names() {
        let sound = disk.read(&name).unwrap();
        for (what, damaged) in damages(&sound) {
            let copy = image.after_kill();
            copy.put(&name, &damaged);
            let count = kinds.entry(kind_of(&name)).or_default();
            match read(&copy) {
                Err(error) => {
                    let text = error.to_string();
                    let log_gap = kind_of(&name) == "log" && text.contains("log-");
                    assert!(text.contains(&name) || log_gap, "{name}, {what}: {text}");
                    count[0] += 1;
                }
                Ok((content, _)) if content == whole => count[1] += 1,
                Ok((content, now)) => {
                    let sequence = usize::try_from(now.sequence).unwrap();
                    assert!(kind_of(&name) == "log" && now.sequence < snapshot.sequence, "{name}, {what}");
                    assert!(content == contents[sequence], "{name}, {what}: not a prefix");
                    count[2] += 1;
                }
            }
        }
    }
    for (kind, [refused, unchanged, cut]) in &kinds {
        println!("{kind}: {refused} refused, {unchanged} unchanged, {cut} cut");
    }
    assert_eq!(kinds.keys().copied().collect::<Vec<_>>(), ["chunk", "log", "manifest", "state"]);
}

/// Where the content of each entry of a state file is.
fn entries(state: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut at = STATE_HEADER_BYTES;
    std::iter::from_fn(|| {
        let length = u64::from_le_bytes(state[at..at + 8].try_into().unwrap());
        // The length that marks the end.
        let length = usize::try_from(length).ok().filter(|_| length != u64::MAX)?;
        let start = at + ENTRY_HEADER_BYTES;
        at = start + length.next_multiple_of(16);
        Some(start..start + length)
    })
    .collect()
}

/// Surveys what a checkpoint left, once for each entry of its state file, which is damaged. Returns how many entries there are,
/// and how many of them cost no element.
fn damage_each_entry(disk: &SimDisk) -> [usize; 2] {
    let elements = |snapshot: &Snapshot| -> usize {
        snapshot.collections().map(|(_, _, collection)| collection.len()).sum()
    };
    let name = manifest::load(disk).unwrap().unwrap().state_file;
    let sound = disk.read(&name).unwrap();
    let image = disk.image();
    let (_, whole) = read(&image.after_kill()).unwrap();
    let entries = entries(&sound);
    let mut unharmed = 0;
    for entry in &entries {
        let copy = image.after_kill();
        let mut damaged = sound.clone();
        damaged[entry.start + entry.len() / 2] ^= 4;
        copy.put(&name, &damaged);
        let survey = survey::survey(&copy, false, &mut |_| {}).unwrap();
        assert!(survey.damages.iter().any(|damage| damage.file == name));
        // Also looks whether fields are in step with their elements.
        Content::of(&survey.snapshot).unwrap();
        unharmed += usize::from(elements(&survey.snapshot) == elements(&whole));
    }
    [entries.len(), unharmed]
}

#[test]
fn a_damaged_piece_of_the_state_file_costs_no_more_than_it_held() {
    let disk = SimDisk::new();
    let store = open(&disk, Fsync::Always).unwrap();
    let mut counts = [0; 2];
    for step in workload() {
        match step {
            Step::Write(changes) => write_all(&store, &changes).unwrap(),
            Step::Checkpoint => {
                store.checkpoint().unwrap();
                let [entries, unharmed] = damage_each_entry(&disk);
                counts = [counts[0] + entries, counts[1] + unharmed];
            }
        }
    }
    store.stop().unwrap();
    let [entries, unharmed] = counts;
    println!("{entries} entries, {unharmed} of them without elements");
    // Attributes, documents, expiries and sparse vectors are in pieces of their own.
    assert!(unharmed * 4 > entries, "{unharmed} of {entries}");
}
