//! Backups: an edited file whose hashes are good is restored or refused, and one edited behind its hashes is refused or the
//! same.

#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use vecdis::disk::Disk;
use vecdis::disk::backup;
use vecdis::disk::image::Image;
use vecdis::disk::sections::{Section, SectionFile, write_sections};
use vecdis::store::LoadStats;
use vecdis::store::recovery::recover;
use vecdis::store::write_copy;
use vecdis_fuzz::{Edit, MemoryDisk, dump, edit, snapshot};

const NAME: &str = "backup";

#[derive(Arbitrary, Debug)]
struct Input {
    section_edits: Vec<Edit>,
    file_edits: Vec<Edit>,
}

/// The sections of a good backup, by tag.
static SECTIONS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let (folder, disk) = (MemoryDisk::default(), MemoryDisk::default());
    write_copy(&folder, snapshot(), &mut |_| {}).expect("memory takes all");
    backup::write(&disk, NAME, &Image::capture(&folder).expect("good")).expect("memory takes all");
    let file = SectionFile::open(&disk, NAME, None).expect("good");
    file.tags().map(|tag| file.section(tag).expect("none is lazy").to_vec()).collect()
});

fn files(image: &Image) -> BTreeMap<String, Vec<u8>> {
    image.files().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect()
}

fn check_restored(image: &Image) {
    let verified = backup::verify(image, &mut |_| {}).is_ok();
    let content = recover(image, &LoadStats::default()).map(|recovered| dump(&recovered.snapshot));
    let disk = MemoryDisk::default();
    if backup::restore(&disk, image, &mut |_| {}).is_err() {
        return;
    }
    let restored = disk.files();
    assert!(
        files(image).iter().all(|(name, bytes)| restored.get(name) == Some(bytes)),
        "every file as it was"
    );
    if let (true, Ok(content)) = (verified, content) {
        let recovered = recover(&disk, &LoadStats::default())
            .unwrap_or_else(|error| panic!("what is restored starts: {error}"));
        assert!(dump(&recovered.snapshot) == content);
    }
}

fuzz_target!(|input: Input| {
    let mut sections = SECTIONS.clone();
    edit(&mut sections.iter_mut().collect::<Vec<_>>(), &input.section_edits);
    let section = |(tag, bytes)| Section { tag, parts: vec![bytes], lazy: false };
    let sections: Vec<_> = (0..).zip(sections.iter().map(Vec::as_slice)).map(section).collect();
    let disk = MemoryDisk::default();
    write_sections(&disk, NAME, &sections).expect("memory takes all");
    let Ok(image) = backup::open(&disk, NAME) else { return };
    check_restored(&image);
    if !input.file_edits.is_empty() {
        let mut content = disk.read(NAME).expect("it is there");
        edit(&mut [&mut content], &input.file_edits);
        disk.put(NAME, content);
        if let Ok(edited) = backup::open(&disk, NAME) {
            assert!(files(&edited) == files(&image), "what is read is what was written");
        }
    }
});
