//! `vecdis check`: what is sound is told to be so, what is damaged is told with its place, nothing is changed.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use common::damage::{LATE_ELEMENTS, SEALED_ELEMENTS, SMALL_ELEMENTS, contents, file_with, fill, find, flip};
use common::{Rng, Server, copy_folder, run, vadd};
use serde_json::Value;
use tempfile::TempDir;

static FILLED: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    folder
});

/// A copy of the filled folder.
fn filled() -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(FILLED.path(), copy.path());
    copy
}

fn check(root: &Path, options: &[&str]) -> Output {
    let data = root.join("data");
    run(&[&["check", data.to_str().unwrap()], options].concat())
}

/// The report as JSON; its verdict agrees with the exit code.
fn report(root: &Path) -> Value {
    let output = check(root, &["--json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(output.status.code(), Some(if report["sound"] == true { 0 } else { 1 }), "{text}");
    assert!(output.stderr.is_empty(), "no progress where nobody looks");
    report
}

#[test]
fn a_sound_folder_is_sound_and_unchanged() {
    let folder = filled();
    let before = contents(&folder.path().join("data"));
    let report = report(folder.path());
    assert_eq!(report["sound"], true, "{report}");
    assert_eq!(report["keys"], 2);
    assert_eq!(report["elements"], SEALED_ELEMENTS + SMALL_ELEMENTS + LATE_ELEMENTS);
    assert_eq!(report["log_records"], LATE_ELEMENTS);
    assert_eq!(report["damages"].as_array().unwrap().len(), 0);
    let text = String::from_utf8(check(folder.path(), &[]).stdout).unwrap();
    assert!(text.ends_with("sound\n"), "{text}");
    assert_eq!(contents(&folder.path().join("data")), before);
    // Without a lock file none is made.
    fs::remove_file(file_with(folder.path(), "LOCK")).unwrap();
    assert_eq!(check(folder.path(), &[]).status.code(), Some(0));
    assert!(!folder.path().join("data/LOCK").exists());
}

#[test]
fn damage_is_told_with_file_place_key_and_elements() {
    let chunk = file_with(FILLED.path(), "chunks/");
    let originals = usize::try_from(fs::metadata(&chunk).unwrap().len()).unwrap() - 70_000;
    let log = file_with(FILLED.path(), "log-");
    let middle = usize::try_from(fs::metadata(&log).unwrap().len()).unwrap() / 2;
    let state = file_with(FILLED.path(), "state-");
    let cases = [
        ("manifest", 70, ""),
        ("manifest", 3, ""),
        ("state-", 20, ""),
        ("state-", 40, ""),
        ("state-", find(&state, b"s40"), ""),
        ("chunks/", 5, "k"),
        ("chunks/", 9000, "k"),
        ("chunks/", originals, "k"),
        ("log-", 20, ""),
        ("log-", middle, ""),
    ];
    for (part, at, key) in cases {
        let folder = filled();
        let file = file_with(folder.path(), part);
        flip(&file, at);
        let report = report(folder.path());
        assert_eq!(report["sound"], false, "{part} at {at}");
        let first = &report["damages"][0];
        assert!(file.ends_with(first["file"].as_str().unwrap()), "{part} at {at}: {first}");
        assert!(first["offset"].as_u64().unwrap() <= at as u64, "{part} at {at}: {first}");
        assert_eq!(first["key"].as_str().unwrap_or_default(), key, "{part} at {at}: {first}");
        if at == originals {
            let lost = report["damages"][1]["elements"].as_array().unwrap();
            assert!((16..=17).contains(&lost.len()), "{lost:?}");
        }
        let text = String::from_utf8(check(folder.path(), &[]).stdout).unwrap();
        assert!(text.contains(first["file"].as_str().unwrap()) && text.contains("damaged: "), "{text}");
    }
}

#[test]
fn missing_files_are_damage() {
    for part in ["manifest", "state-", "chunks/"] {
        let folder = filled();
        let file = file_with(folder.path(), part);
        fs::remove_file(&file).unwrap();
        let report = report(folder.path());
        let missing = |damage: &Value| {
            file.ends_with(damage["file"].as_str().unwrap()) && damage["what"] == "is missing"
        };
        assert!(report["damages"].as_array().unwrap().iter().any(missing), "{report}");
    }
}

#[test]
fn a_torn_tail_is_no_damage() {
    let folder = filled();
    let log = file_with(folder.path(), "log-");
    let len = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(len - 3).unwrap();
    let report = report(folder.path());
    assert_eq!(report["sound"], true, "{report}");
    assert_eq!(report["log_records"], LATE_ELEMENTS - 1);
    assert!(report["notes"][0].as_str().unwrap().contains("unfinished record"), "{report}");
    assert_eq!(fs::metadata(&log).unwrap().len(), len - 3);
}

#[test]
fn what_cannot_be_read_is_told_from_damage() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [&["check"][..], &["check", "/no/such/folder"], &["check", "a", "b"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    }
    // A manifest of format version 2.
    let mut newer = b"VECDMAN\0\x02\0\0\0".to_vec();
    newer.extend_from_slice(&crc32(&newer).to_le_bytes());
    newer.extend_from_slice(&[0; 48]);
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/manifest"), newer).unwrap();
    let output = check(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("newer"));
}

/// The IEEE checksum, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn beside_a_running_server_what_it_has_written_is_checked() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendfsync", "no"]);
    server.connect().check(&[("VADD k VALUES 2 1 1 first", ":1")]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut client, mut rng) = (server.connect(), Rng(5));
            for index in 0.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                client.call(&vadd("load", &rng.vector(16), &format!("e{index}"), ""));
                if index % 500 == 0 {
                    client.call(&common::words("BGSAVE"));
                }
            }
        });
        let mut elements = 0;
        for _ in 0..10 {
            let report = report(folder.path());
            assert_eq!(report["sound"], true, "{report}");
            assert_eq!(report["server_running"], true);
            let found = report["elements"].as_u64().unwrap();
            assert!(found >= elements.max(1), "time does not go back");
            elements = found;
        }
        stop.store(true, Ordering::Relaxed);
    });
}
