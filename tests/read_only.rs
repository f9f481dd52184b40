//! `--read-only yes`: a folder is served and nothing in it is changed.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::damage::contents;
use common::{Model, Rng, Server, refused_start};

const READ_ONLY: [&str; 4] = ["--read-only", "yes", "--enable-debug-command", "yes"];

/// A folder with a checkpoint, a log after it, a key that goes soon, left-over files and a torn tail.
fn fill(root: &Path) -> Model {
    let (mut model, mut rng) = (Model::default(), Rng(41));
    let server = Server::start_in(root, &[]);
    let mut client = server.connect();
    model.run_random(&mut client, "k", &mut rng, 500, 200);
    client.check(&[("SAVE", "+OK")]);
    model.run_random(&mut client, "k", &mut rng, 500, 200);
    client.check(&[("VADD brief VALUES 1 1 a", ":1"), ("PEXPIRE brief 1", ":1")]);
    client.check(&[("VADD torn VALUES 1 1 a", ":1")]);
    server.kill9();
    let log = common::damage::file_with(root, "log-");
    let len = fs::metadata(&log).unwrap().len();
    fs::File::options().write(true).open(&log).unwrap().set_len(len - 2).unwrap();
    fs::write(root.join("data/.tmp-left"), "x").unwrap();
    model
}

#[test]
fn reads_are_answered_and_the_folder_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let model = fill(folder.path());
    let data = folder.path().join("data");
    for lock in [true, false] {
        if !lock {
            fs::remove_file(data.join("LOCK")).unwrap();
        }
        let before = contents(&data);
        let server = Server::start_in(folder.path(), &READ_ONLY);
        let mut client = server.connect();
        model.check(&mut client, "k");
        assert!(client.ask("VSIM k VALUES 8 1 2 3 4 5 6 7 8 COUNT 3").starts_with('['));
        client.check(&[("EXISTS brief torn", ":0"), ("CONFIG GET read-only", "[read-only yes]")]);
        let info = client.ask("INFO persistence");
        assert!(info.contains("read_only:1\r\n") && info.contains("aof_enabled:0\r\n"), "{info}");
        // Time goes on in memory.
        while client.ask("DBSIZE") != ":1" {
            std::thread::yield_now();
        }
        assert_eq!(server.terminate("TERM").code(), Some(0));
        assert_eq!(contents(&data), before);
    }
}

#[test]
fn what_would_change_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let before = contents(&folder.path().join("data"));
    let server = Server::start_in(folder.path(), &READ_ONLY);
    let mut client = server.connect();
    for line in [
        "VADD k VALUES 8 1 2 3 4 5 6 7 8 new",
        "VREM k e1",
        "VSETATTR k e1 x",
        "VCREATE new DIM 3",
        "DEL k",
        "EXPIRE k 1",
        "RENAME k l",
        "FLUSHALL",
        "SAVE",
        "BGSAVE",
        "BGREWRITEAOF",
    ] {
        assert!(client.ask(line).starts_with("-READONLY "), "{line}");
    }
    assert!(client.ask("DEBUG RELOAD").contains("read-only"));
    client.check(&[("MULTI", "+OK"), ("VCARD k", "+QUEUED")]);
    assert!(client.ask("DEL k").starts_with("-READONLY "));
    assert!(client.ask("EXEC").starts_with("-EXECABORT "));
    client.check(&[("MULTI", "+OK"), ("EXISTS k", "+QUEUED"), ("EXEC", "[:1]")]);
    assert!(client.try_call(&common::words("SHUTDOWN SAVE")).is_err());
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(contents(&folder.path().join("data")), before);
}

#[test]
fn many_may_read_a_folder_but_not_beside_one_that_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (code, output) = refused_start(folder.path(), &READ_ONLY);
    assert!(code == Some(1) && output.contains("data"), "there is no folder: {output}");
    assert!(!folder.path().join("data").exists());
    let model = fill(folder.path());
    let writer = Server::start_in(folder.path(), &[]);
    assert_eq!(refused_start(folder.path(), &READ_ONLY).0, Some(1));
    writer.kill9();
    let readers = [Server::start_in(folder.path(), &READ_ONLY), Server::start_in(folder.path(), &READ_ONLY)];
    readers.iter().for_each(|reader| model.check(&mut reader.connect(), "k"));
    assert_eq!(refused_start(folder.path(), &[]).0, Some(1));
    drop(readers);
    Server::start_in(folder.path(), &[]).connect().check(&[("VADD new VALUES 1 1 a", ":1")]);
}
