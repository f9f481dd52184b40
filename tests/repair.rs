//! `vecdis repair`: what is good is kept, what is lost is told, the damaged folder stays as it is.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use common::damage::{LATE_ELEMENTS, SEALED_ELEMENTS, SMALL_ELEMENTS, contents, file_with, fill, find, flip};
use common::{Client, Server, copy_folder, run, words};
use tempfile::TempDir;

static FILLED: LazyLock<TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    folder
});

/// A copy of the filled folder with bytes flipped in the files whose names hold these parts.
fn damaged(flips: &[(&str, usize)]) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(FILLED.path(), copy.path());
    for (part, at) in flips {
        flip(&file_with(copy.path(), part), *at);
    }
    copy
}

/// Repairs `root/data` to `root/new/data`, checks the result and starts a server on it. Also gives what was printed.
fn repair(root: &Path, options: &[&str]) -> (Server, String) {
    let (old, new) = (root.join("data"), root.join("new/data"));
    fs::create_dir(root.join("new")).unwrap();
    let before = contents(&old);
    let arguments = [&["repair", old.to_str().unwrap(), "--to", new.to_str().unwrap()], options].concat();
    let output = run(&arguments);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(contents(&old), before);
    assert_eq!(run(&["check", new.to_str().unwrap()]).status.code(), Some(0));
    (Server::start_in(&root.join("new"), &["--enable-debug-command", "yes"]), printed)
}

fn digests(client: &mut Client) -> String {
    client.ask("DEBUG DIGEST-VALUE k small")
}

/// The digests of the sound folder.
fn sound_digests() -> String {
    let copy = damaged(&[]);
    digests(&mut Server::start_in(copy.path(), &["--enable-debug-command", "yes"]).connect())
}

#[test]
fn damage_that_can_be_made_good_loses_nothing() {
    let expected = sound_digests();
    let chunk = fs::read(file_with(FILLED.path(), "chunks/")).unwrap();
    let cases = [
        ("nothing", vec![]),
        ("manifest", vec![("manifest", 80)]),
        ("state header", vec![("state-", 20)]),
        ("entry header", vec![("state-", 40)]),
        ("log header", vec![("log-", 26)]),
        ("codes", vec![("chunks/", 9000)]),
        ("everything at once", vec![("manifest", 3), ("state-", 3), ("log-", 3), ("chunks/", 9000)]),
    ];
    assert!(chunk.len() > 16 << 20);
    for (what, flips) in cases {
        let folder = damaged(&flips);
        let (server, printed) = repair(folder.path(), &[]);
        let mut client = server.connect();
        assert_eq!(digests(&mut client), expected, "{what}");
        assert_eq!(printed.contains("damage: "), !flips.is_empty(), "{printed}");
        // Writing goes on, and survives.
        client.check(&[("VADD small VALUES 8 1 1 1 1 1 1 1 1 new", ":1")]);
        server.kill9();
        Server::start_in(&folder.path().join("new"), &[]).connect().check(&[("VISMEMBER small new", ":1")]);
    }
}

#[test]
fn elements_whose_vectors_are_damaged_are_lost_alone_and_named() {
    let chunk = file_with(FILLED.path(), "chunks/");
    let at = usize::try_from(fs::metadata(&chunk).unwrap().len()).unwrap() - 1000;
    let folder = damaged(&[("chunks/", at)]);
    let (server, printed) = repair(folder.path(), &[]);
    let mut client = server.connect();
    let last = SEALED_ELEMENTS - 1;
    assert!(
        printed.contains(file_with(folder.path(), "chunks/").file_name().unwrap().to_str().unwrap()),
        "{printed}"
    );
    assert!(printed.contains("(key k)") && printed.contains("cannot be read: e41"), "{printed}");
    client.check(&[
        (&format!("VISMEMBER k e{last}"), ":0"),
        ("VISMEMBER k e0", ":1"),
        ("VGETATTR k e0", "x"),
    ]);
    let left = client.call(&words("VCARD k")).number() as usize;
    assert!((SEALED_ELEMENTS - 17..SEALED_ELEMENTS).contains(&left), "{left}");
    client.check(&[
        ("VSIM k ELE e7 COUNT 1", "[e7]"),
        ("VCARD small", &format!(":{}", SMALL_ELEMENTS + LATE_ELEMENTS)),
    ]);
}

#[test]
fn a_lost_collection_leaves_the_others_and_what_came_later() {
    let state = file_with(FILLED.path(), "state-");
    let folder = damaged(&[("state-", find(&state, b"s40"))]);
    let (server, printed) = repair(folder.path(), &[]);
    assert!(printed.contains("entry 4 is damaged"), "{printed}");
    assert!(printed.contains("(key small): 1 pieces of the collection are lost"), "{printed}");
    let (all, late) = (format!(":{SEALED_ELEMENTS}"), format!(":{LATE_ELEMENTS}"));
    server.connect().check(&[("VCARD k", &all), ("VCARD small", &late)]);
    // As much is lost with its first entry.
    let folder = damaged(&[("state-", find(&state, b"small"))]);
    let (server, printed) = repair(folder.path(), &[]);
    assert!(printed.contains("entry 3 is damaged") && printed.contains("first entry of"), "{printed}");
    server.connect().check(&[("VCARD k", &all), ("VCARD small", &late)]);
}

#[test]
fn after_a_lost_log_record_the_rest_counts_only_if_asked_for() {
    let log = file_with(FILLED.path(), "log-");
    let middle = usize::try_from(fs::metadata(&log).unwrap().len()).unwrap() / 2;
    let folder = damaged(&[("log-", middle)]);
    let (server, printed) = repair(folder.path(), &[]);
    assert!(printed.contains(log.file_name().unwrap().to_str().unwrap()), "{printed}");
    assert!(printed.contains("is lost") && printed.contains("change the keys small"), "{printed}");
    let mut client = server.connect();
    let kept = client.call(&words("VCARD small")).number() as usize - SMALL_ELEMENTS;
    assert!((LATE_ELEMENTS / 2 - 2..=LATE_ELEMENTS / 2 + 2).contains(&kept), "{kept}");
    // A prefix: the first ones are there, the lost one and all after it are not.
    for index in 0..LATE_ELEMENTS {
        let there = if index < kept { ":1" } else { ":0" };
        client.check(&[(&format!("VISMEMBER small late{index}"), there)]);
    }
    let folder = damaged(&[("log-", middle)]);
    let (server, _) = repair(folder.path(), &["--skip-damaged"]);
    let expected = format!(":{}", SMALL_ELEMENTS + LATE_ELEMENTS - 1);
    server.connect().check(&[("VCARD small", &expected), (&format!("VISMEMBER small late{kept}"), ":0")]);
}

#[test]
fn a_folder_in_use_or_in_the_way_is_refused() {
    let folder = damaged(&[]);
    let data = folder.path().join("data");
    let refused = |target: &Path, part: &str| {
        let output = run(&["repair", data.to_str().unwrap(), "--to", target.to_str().unwrap()]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    };
    refused(&data, "not empty");
    refused(&data.join("chunks"), "not empty");
    refused(&data.join("new"), "inside");
    assert!(!data.join("new").exists());
    let _server = Server::start_in(folder.path(), &[]);
    refused(&folder.path().join("new"), "in use");
    assert!(!folder.path().join("new").exists());
}
