//! Backups: an [`Image`] in one file, and back.
//!
//! A backup is a section file: section 0 is the rkyv encoding of [`ContentsV1`], the names of the files, and section n is
//! the n-th file as it is. The hashes of the section file cover all of it.

use super::format::{
    self, CHUNK_FOLDER, MANIFEST_FILE, decode, encode, is_chunk_name, parse_log_name, parse_state_name,
};
use super::image::Image;
use super::log::LogWriter;
use super::sections::{Section, SectionFile, write_sections};
use super::tmp_file::TmpFile;
use super::{Disk, DiskError, manifest, replay, state};

const CONTENTS_TAG: u32 = 0;

/// What a backup holds, version 1.
#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ContentsV1 {
    /// Names of the files, relative to the data folder.
    pub names: Vec<String>,
}

/// Verifies every byte of the files, as far as this layer knows them. `on_bytes` is told of bytes that are done.
///
/// # Errors
/// The first thing that is damaged or missing; [`DiskError::Newer`].
pub fn verify(image: &Image, on_bytes: &mut dyn FnMut(u64)) -> Result<(), DiskError> {
    let manifest = manifest::load(image)?;
    let mut sequence = 0;
    if let Some(manifest) = manifest {
        sequence = manifest.sequence;
        state::read_state(image, &manifest.state_file, &manifest.state_pin, |entry| {
            on_bytes(entry.len() as u64);
            Ok::<(), DiskError>(())
        })?;
        for (name, pin) in &manifest.chunk_files {
            let file = SectionFile::open(image, name, Some(*pin))?;
            let lazy = file.tags().filter_map(|tag| file.lazy_section(tag));
            if let Some(damage) = lazy.flat_map(|section| section.damages()).next() {
                return Err(damage);
            }
            on_bytes(image.len_bytes(name)?);
        }
    }
    replay::replay(image, sequence, |_, payload| {
        on_bytes(payload.len() as u64);
        Ok::<(), DiskError>(())
    })?;
    Ok(())
}

/// Writes the files into the one file `name`, which appears complete and durable, or not at all.
///
/// # Errors
/// [`DiskError::Io`].
pub fn write(disk: &dyn Disk, name: &str, image: &Image) -> Result<(), DiskError> {
    let names = image.files().map(|(name, _)| name.to_owned()).collect();
    let contents = encode!(name, &ContentsV1 { names })?;
    let section = |(tag, content)| Section { tag, parts: vec![content], lazy: false };
    let contents = [&contents[..]].into_iter().chain(image.files().map(|(_, bytes)| &bytes[..]));
    let sections: Vec<Section<'_>> = (CONTENTS_TAG..).zip(contents).map(section).collect();
    write_sections(disk, name, &sections).map(|_| ())
}

/// Opens a backup and verifies that it is as it was written.
///
/// # Errors
/// [`DiskError::Corrupt`], also for another kind of file; [`DiskError::Newer`], [`DiskError::Io`].
pub fn open(disk: &dyn Disk, name: &str) -> Result<Image, DiskError> {
    let file = SectionFile::open(disk, name, None)?;
    let damaged = |what: &str| DiskError::corrupt(name, 0, what);
    let contents = file.section(CONTENTS_TAG).ok_or_else(|| damaged("this is not a backup"))?;
    let contents = decode!(ContentsV1, name, format::SECTION_ALIGN, &contents)?;
    let mut image = Image::default();
    for (tag, file_name) in (CONTENTS_TAG + 1..).zip(contents.names) {
        if !is_ours(&file_name) {
            return Err(damaged("it holds a file that does not belong into a data folder"));
        }
        image.insert(file_name, file.section(tag).ok_or_else(|| damaged("a file is missing in it"))?);
    }
    Ok(image)
}

fn is_ours(name: &str) -> bool {
    name == MANIFEST_FILE
        || parse_state_name(name).is_some()
        || parse_log_name(name).is_some()
        || (is_chunk_name(name) && name.matches('/').count() == 1)
}

/// Writes the files into an empty folder. As long as one is missing, no server starts from it: without the manifest
/// a log that begins later asks for a checkpoint, and without its first file the log is not whole.
///
/// # Errors
/// [`DiskError::Io`], [`DiskError::Corrupt`] for a damaged manifest.
pub fn restore(disk: &dyn Disk, image: &Image, on_bytes: &mut dyn FnMut(u64)) -> Result<(), DiskError> {
    let mut files: Vec<_> = image.files().collect();
    // The log from its end, then chunks and state, the manifest last.
    files.sort_by_key(|(name, _)| match parse_log_name(name) {
        Some(first) => (0, u64::MAX - first),
        None => (if *name == MANIFEST_FILE { 2 } else { 1 }, 0),
    });
    if let Some(manifest) = manifest::load(image)?
        && !files.iter().any(|(name, _)| parse_log_name(name).is_some())
    {
        drop(LogWriter::create(disk, manifest.sequence + 1)?);
    }
    disk.create_folder(CHUNK_FOLDER)?;
    for (name, bytes) in files {
        let mut file = TmpFile::create(disk, name)?;
        file.write(bytes)?;
        drop(file.publish()?);
        on_bytes(bytes.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sim::{SimDisk, payloads};
    use super::*;

    /// A folder with a checkpoint at record 2 and a record after it.
    fn folder() -> SimDisk {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 3).unwrap();
        log.append(b"third").unwrap();
        log.write().unwrap();
        log.rotate(&disk).unwrap();
        log.append(b"fourth").unwrap();
        log.write().unwrap();
        let chunk = "chunks/1.vdc".to_owned();
        let section = Section { tag: 1, parts: vec![b"rows"], lazy: true };
        let pin = write_sections(&disk, &chunk, &[section]).unwrap();
        let mut state = state::StateWriter::create(&disk, 2).unwrap();
        state.entry(b"entry").unwrap();
        let state = state.finish().unwrap();
        let manifest = manifest::Manifest {
            sequence: 2,
            state_file: state.name,
            state_pin: state.pin,
            chunk_files: vec![(chunk, pin)],
            created_ms: 1,
        };
        manifest::store(&disk, &manifest).unwrap();
        disk
    }

    fn restored(image: &Image) -> SimDisk {
        let disk = SimDisk::new();
        restore(&disk, image, &mut |_| {}).unwrap();
        disk
    }

    #[test]
    fn what_is_restored_is_what_was_there() {
        let (disk, target) = (folder(), SimDisk::new());
        disk.put("notes.txt", b"not ours");
        let image = Image::capture(&disk).unwrap();
        verify(&image, &mut |_| {}).unwrap();
        write(&target, "backup", &image).unwrap();
        let opened = open(&target, "backup").unwrap();
        let copy = restored(&opened);
        for (name, bytes) in image.files() {
            assert_eq!(copy.read(name).unwrap(), bytes[..], "{name}");
        }
        assert_eq!(image.files().count(), 5);
        assert_eq!(payloads(&copy, 2).unwrap(), [&b"third"[..], b"fourth"]);
    }

    #[test]
    fn a_flipped_or_missing_byte_is_detected_before_anything_is_used() {
        let (disk, target) = (folder(), SimDisk::new());
        write(&target, "backup", &Image::capture(&disk).unwrap()).unwrap();
        let bytes = target.read("backup").unwrap();
        let whole: Vec<(String, bytes::Bytes)> = open(&target, "backup")
            .unwrap()
            .files()
            .map(|(name, bytes)| (name.to_owned(), bytes.clone()))
            .collect();
        // Most bytes are the zeros between sections.
        for at in (0..bytes.len()).filter(|at| bytes[*at] != 0 || at % 101 == 0) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0x20;
            target.put("backup", &flipped);
            // The zeros between sections are nobody's.
            if let Ok(image) = open(&target, "backup") {
                assert!(image.files().eq(whole.iter().map(|(name, bytes)| (&**name, bytes))), "byte {at}");
                assert_eq!(bytes[at], 0);
            }
        }
        for len in (0..bytes.len()).step_by(61) {
            target.put("backup", &bytes[..len]);
            assert!(open(&target, "backup").is_err(), "length {len}");
        }
        target.put("backup", &disk.read("chunks/1.vdc").unwrap());
        assert!(open(&target, "backup").err().unwrap().to_string().contains("not a backup"));
    }

    #[test]
    fn damage_in_the_folder_is_found_before_it_is_written() {
        for name in [
            "manifest",
            "chunks/1.vdc",
            &format::state_name(2, 0),
            &format::log_name(3),
            &format::log_name(4),
        ] {
            let disk = folder();
            let mut bytes = disk.read(name).unwrap();
            let at = if name.starts_with("state") { bytes.len() / 2 } else { bytes.len() - 1 };
            bytes[at] ^= 1;
            disk.put(name, &bytes);
            let found = Image::capture(&disk).and_then(|image| verify(&image, &mut |_| {}));
            // A bad last record may be one that is just being written.
            assert_eq!(found.is_err(), *name != format::log_name(4), "{name}");
        }
    }

    #[test]
    fn a_restore_that_stops_halfway_does_not_start() {
        let disk = folder();
        let image = Image::capture(&disk).unwrap();
        let copy = restored(&image);
        copy.remove(MANIFEST_FILE).unwrap();
        assert!(replay::replay(&copy, 0, |_, _| Ok::<(), DiskError>(())).is_err());
        // Without a log in the backup a new one keeps the folder from being taken for an empty one.
        disk.remove(&format::log_name(3)).unwrap();
        disk.remove(&format::log_name(4)).unwrap();
        let copy = restored(&Image::capture(&disk).unwrap());
        copy.remove(MANIFEST_FILE).unwrap();
        assert!(replay::replay(&copy, 0, |_, _| Ok::<(), DiskError>(())).is_err());
    }
}
