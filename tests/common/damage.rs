//! A data folder with every kind of file, and ways to damage it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::client::{Command, vadd};
use super::{Rng, Server, files_below};

/// Enough rows of this dimension that a checkpoint seals them into a chunk file.
pub const SEALED_ELEMENTS: usize = 4200;
const SEALED_DIM: usize = 1024;
/// Elements of the key `small`, which lives in the state file.
pub const SMALL_ELEMENTS: usize = 50;
/// Log records after the checkpoint: elements `late0`, `late1`, ... of `small`.
pub const LATE_ELEMENTS: usize = 200;

/// Fills `root/data` and ends the server as a crash would.
pub fn fill(root: &Path) {
    let mut rng = Rng(77);
    let server = Server::start_in(root, &["--appendfsync", "no"]);
    let mut client = server.connect();
    let mut commands: Vec<Command> = (0..SEALED_ELEMENTS)
        .map(|index| vadd("k", &rng.vector(SEALED_DIM), &format!("e{index}"), "SETATTR x"))
        .collect();
    commands.extend(
        (0..SMALL_ELEMENTS).map(|index| vadd("small", &rng.vector(8), &format!("s{index}"), "SETATTR y")),
    );
    assert!(client.pipeline(&commands).iter().all(|reply| !reply.is_error()));
    client.check(&[("SAVE", "+OK")]);
    for index in 0..LATE_ELEMENTS {
        client.call(&vadd("small", &rng.vector(8), &format!("late{index}"), ""));
    }
    server.kill9();
}

/// The one file of `root/data` whose name holds `part`; of several the last.
pub fn file_with(root: &Path, part: &str) -> PathBuf {
    let data = root.join("data");
    let found = files_below(&data).into_iter().rfind(|name| name.contains(part));
    data.join(found.unwrap_or_else(|| panic!("no file with {part}")))
}

/// Flips a bit of a byte.
pub fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

/// Where a text stands in a file.
pub fn find(file: &Path, text: &[u8]) -> usize {
    fs::read(file).unwrap().windows(text.len()).position(|window| window == text).unwrap()
}

/// All files with contents and times of change.
pub fn contents(folder: &Path) -> Vec<(String, Vec<u8>, SystemTime)> {
    let about = |name: String| {
        let path = folder.join(&name);
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        (name, fs::read(path).unwrap(), changed)
    };
    files_below(folder).into_iter().map(about).collect()
}
