//! Start from a checkpoint: edited state entries and chunk sections that pass their hashes are taken or refused, and files
//! edited behind their hashes give the same content or an error.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vecdis::disk::sections::{Section, SectionFile, write_sections};
use vecdis::disk::state::{StateWriter, read_state};
use vecdis::disk::{DiskError, Pin, manifest};
use vecdis::store::LoadStats;
use vecdis::store::change::decode_payload;
use vecdis::store::recovery::recover;
use vecdis::store::state::State;
use vecdis::store::survey::survey;
use vecdis::store::write_copy;
use vecdis_fuzz::{Edit, MemoryDisk, dump, edit, payloads, snapshot};

#[derive(Arbitrary, Debug)]
struct Input {
    piece_edits: Vec<Edit>,
    file_edits: Vec<Edit>,
    entry_moves: Vec<Move>,
}

/// What happens to whole entries of the state file.
#[derive(Arbitrary, Debug)]
enum Move {
    Leave(u8),
    Double(u8),
    Exchange(u8, u8),
}

/// A checkpoint in pieces.
#[derive(Clone)]
struct Pieces {
    entries: Vec<Vec<u8>>,
    chunks: Vec<Chunk>,
}

#[derive(Clone)]
struct Chunk {
    name: String,
    /// As the entries have it.
    pin: Pin,
    /// Tag, whether it is lazy, and bytes.
    sections: Vec<(u32, bool, Vec<u8>)>,
}

static PIECES: LazyLock<Pieces> = LazyLock::new(|| {
    let disk = MemoryDisk::default();
    write_copy(&disk, snapshot(), &mut |_| {}).expect("memory takes all");
    let manifest = manifest::load(&disk).expect("good").expect("there is one");
    let mut entries = Vec::new();
    read_state(&disk, &manifest.state_file, &manifest.state_pin, |entry| {
        entries.push(entry.to_vec());
        Ok::<(), DiskError>(())
    })
    .expect("good");
    let chunks: Vec<Chunk> =
        manifest.chunk_files.iter().map(|(name, pin)| read_chunk(&disk, name, *pin)).collect();
    assert_eq!(chunks.len(), 2);
    Pieces { entries, chunks }
});

fn read_chunk(disk: &MemoryDisk, name: &str, pin: Pin) -> Chunk {
    let file = SectionFile::open(disk, name, Some(pin)).expect("good");
    let section = |tag| match file.lazy_section(tag) {
        Some(lazy) => (tag, true, lazy.read(0..lazy.len()).expect("good").to_vec()),
        None => (tag, false, file.section(tag).expect("it is not lazy").to_vec()),
    };
    Chunk { name: name.to_owned(), pin, sections: file.tags().map(section).collect() }
}

impl Pieces {
    fn bytes_mut(&mut self) -> Vec<&mut Vec<u8>> {
        let sections = self.chunks.iter_mut().flat_map(|chunk| &mut chunk.sections);
        self.entries.iter_mut().chain(sections.map(|(_, _, bytes)| bytes)).collect()
    }

    fn move_entries(&mut self, moves: &[Move]) {
        for one in moves {
            let count = self.entries.len();
            if count == 0 {
                return;
            }
            let place = |at: &u8| usize::from(*at) % count;
            match one {
                Move::Leave(at) => drop(self.entries.remove(place(at))),
                Move::Double(at) => self.entries.insert(place(at), self.entries[place(at)].clone()),
                Move::Exchange(a, b) => self.entries.swap(place(a), place(b)),
            }
        }
    }

    fn write(mut self) -> MemoryDisk {
        let disk = MemoryDisk::default();
        let mut chunk_files = Vec::new();
        for chunk in &self.chunks {
            let sections = chunk.sections.iter();
            let sections: Vec<_> = sections
                .map(|(tag, lazy, bytes)| Section { tag: *tag, parts: vec![bytes.as_slice()], lazy: *lazy })
                .collect();
            let pin = write_sections(&disk, &chunk.name, &sections).expect("memory takes all");
            self.entries.iter_mut().for_each(|entry| replace(entry, &chunk.pin, &pin));
            chunk_files.push((chunk.name.clone(), pin));
        }
        let mut state = StateWriter::create(&disk, 7).expect("memory takes all");
        self.entries.iter().for_each(|entry| state.entry(entry).expect("memory takes all"));
        let state = state.finish().expect("memory takes all");
        let manifest = manifest::Manifest {
            sequence: 7,
            state_file: state.name,
            state_pin: state.pin,
            chunk_files,
            created_ms: 1,
        };
        manifest::store(&disk, &manifest).expect("memory takes all");
        disk
    }
}

fn replace(entry: &mut [u8], old: &Pin, new: &Pin) {
    if let Some(at) = entry.windows(old.len()).position(|window| window == old) {
        entry[at..at + old.len()].copy_from_slice(new);
    }
}

/// Edited pieces with good hashes: what is taken can be read, changed and written.
fn check_pieces(disk: &MemoryDisk) {
    let _ = survey(disk, true, &mut |_| {});
    let Ok(recovered) = recover(disk, &LoadStats::default()) else { return };
    dump(&recovered.snapshot);
    let mut state = State::new(recovered.snapshot);
    for payload in payloads() {
        for change in decode_payload(&payload).expect("good") {
            if state.accepts(&change) {
                state.apply(&change, None);
            }
        }
    }
    let mut published = None;
    state.publish(|snapshot| published = Some(snapshot));
    let snapshot = published.expect("published");
    let copy = MemoryDisk::default();
    // Rows of a damaged lazy section cannot be read.
    if write_copy(&copy, (*snapshot).clone(), &mut |_| {}).is_ok() {
        let read = recover(&copy, &LoadStats::default())
            .unwrap_or_else(|error| panic!("a checkpoint reads back: {error}"));
        assert!(dump(&read.snapshot) == dump(&snapshot), "a checkpoint holds what was there");
    }
}

/// Files edited behind their hashes.
fn check_files(disk: &MemoryDisk, edits: &[Edit]) {
    let Ok(before) = recover(disk, &LoadStats::default()) else { return };
    let mut files: BTreeMap<String, Vec<u8>> = disk.files();
    edit(&mut files.values_mut().collect::<Vec<_>>(), edits);
    let edited = MemoryDisk::default();
    files.into_iter().for_each(|(name, content)| edited.put(&name, content));
    let _ = survey(&edited, false, &mut |_| {});
    let Ok(after) = recover(&edited, &LoadStats::default()) else { return };
    let (mut before, after) = (dump(&before.snapshot), dump(&after.snapshot));
    for ((_, elements), (_, old_elements)) in after.values().zip(before.values_mut()) {
        for ((_, vector), (_, old_vector)) in elements.values().zip(old_elements.values_mut()) {
            // Originals are verified when they are touched: an error then.
            if vector.is_none() {
                *old_vector = None;
            }
        }
    }
    assert!(before == after, "what is read is what was written");
}

fuzz_target!(|input: Input| {
    let mut pieces = PIECES.clone();
    pieces.move_entries(&input.entry_moves);
    edit(&mut pieces.bytes_mut(), &input.piece_edits);
    let disk = pieces.write();
    if !input.file_edits.is_empty() {
        check_files(&disk, &input.file_edits);
    }
    if !input.piece_edits.is_empty() || !input.entry_moves.is_empty() {
        check_pieces(&disk);
    }
});
