//! `vecdis backup` and `vecdis restore`.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use common::damage::{contents, file_with, fill, flip};
use common::{Server, files_below, run, vadd, words};

fn backup(root: &Path, file: &Path) -> Output {
    run(&["backup", root.join("data").to_str().unwrap(), "--to", file.to_str().unwrap()])
}

fn restore(file: &Path, root: &Path) -> Output {
    run(&["restore", file.to_str().unwrap(), "--to", root.join("data").to_str().unwrap()])
}

fn check(path: &Path) -> Option<i32> {
    run(&["check", path.to_str().unwrap()]).status.code()
}

#[track_caller]
fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Checks for exit code 1 and one line on standard error that holds `part`.
#[track_caller]
fn refused(output: &Output, part: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(part) && error.lines().count() == 1, "{part} in {error}");
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new, file) = (folder.path().join("old"), folder.path().join("new"), folder.path().join("file"));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&new).unwrap();
    fill(&old);
    let before = contents(&old.join("data"));
    succeeded(&backup(&old, &file));
    assert_eq!(contents(&old.join("data")), before);
    assert_eq!(check(&file), Some(0));
    succeeded(&restore(&file, &new));
    assert_eq!(check(&new.join("data")), Some(0));
    assert_eq!(files_below(&new.join("data")), files_below(&old.join("data")));
    let digests = |root: &Path| {
        let server = Server::start_in(root, &["--enable-debug-command", "yes"]);
        server.connect().ask("DEBUG DIGEST-VALUE k small")
    };
    assert_eq!(digests(&new), digests(&old));
    // Neither a backup nor a folder is replaced, and none is put into the folder itself.
    refused(&backup(&old, &file), "there already");
    refused(&backup(&old, &old.join("data/backup")), "inside");
    refused(&restore(&file, &old), "not empty");
    refused(&backup(&folder.path().join("none"), &folder.path().join("other")), "none");
    assert_eq!(files_below(folder.path()).iter().filter(|name| name.contains(".tmp")).count(), 0);
}

#[test]
fn a_backup_under_load_is_a_prefix_of_what_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendfsync", "no"]);
    server.connect().check(&[("VADD k VALUES 2 1 1 e0", ":1")]);
    let (acknowledged, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // One writes e1, e2, ... in order, another takes one checkpoint after the other.
        scope.spawn(|| {
            let mut client = server.connect();
            for index in 1.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                client.call(&vadd("k", &[1.0, index as f32], &format!("e{index}"), ""));
                acknowledged.store(index, Ordering::Release);
            }
        });
        scope.spawn(|| {
            let mut client = server.connect();
            while !stop.load(Ordering::Relaxed) {
                client.call(&words("SAVE"));
            }
        });
        for round in 0..8 {
            let (root, file) =
                (folder.path().join(format!("new{round}")), folder.path().join(format!("file{round}")));
            fs::create_dir(&root).unwrap();
            let before = acknowledged.load(Ordering::Acquire);
            succeeded(&backup(folder.path(), &file));
            // One more may be in the log already.
            let after = acknowledged.load(Ordering::Acquire) + 1;
            succeeded(&restore(&file, &root));
            assert_eq!(check(&root.join("data")), Some(0));
            let restored = Server::start_in(&root, &[]);
            let mut client = restored.connect();
            let count = client.call(&words("VCARD k")).number() as usize;
            assert!((before + 1..=after + 1).contains(&count), "{before} < {count} <= {after}");
            let last: Vec<_> = (0..count).map(|index| words(&format!("VISMEMBER k e{index}"))).collect();
            assert!(client.pipeline(&last).iter().all(|reply| reply.number() == 1.0), "no gaps");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_damaged_backup_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 1 a SETATTR text", ":1"),
        ("SAVE", "+OK"),
        ("VADD k VALUES 2 1 2 b", ":1"),
    ]);
    succeeded(&backup(folder.path(), &file));
    let sound = fs::read(&file).unwrap();
    let root = folder.path().join("new");
    fs::create_dir(&root).unwrap();
    let used = sound.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at);
    for at in used.step_by(37) {
        flip(&file, at);
        refused(&restore(&file, &root), "damaged");
        fs::write(&file, &sound).unwrap();
    }
    for len in [0, 10, sound.len() / 2, sound.len() - 1] {
        fs::write(&file, &sound[..len]).unwrap();
        refused(&restore(&file, &root), "damaged");
        assert_eq!(check(&file), Some(1));
    }
    assert!(files_below(&root).is_empty(), "{:?}", files_below(&root));
    fs::write(&file, &sound).unwrap();
    succeeded(&restore(&file, &root));
    Server::start_in(&root, &[]).connect().check(&[("VCARD k", ":2"), ("VGETATTR k a", "text")]);
}

#[test]
fn of_damaged_data_no_backup_is_made() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let file = folder.path().join("file");
    for part in ["manifest", "state-", "chunks/"] {
        let damaged = file_with(folder.path(), part);
        let at = usize::try_from(fs::metadata(&damaged).unwrap().len()).unwrap() - 60;
        flip(&damaged, at);
        refused(&backup(folder.path(), &file), damaged.file_name().unwrap().to_str().unwrap());
        flip(&damaged, at);
    }
    assert_eq!(files_below(folder.path()).iter().filter(|name| name.starts_with("file")).count(), 0);
    succeeded(&backup(folder.path(), &file));
}
