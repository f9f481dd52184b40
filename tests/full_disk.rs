//! A disk that fills up and is freed again: a small file system of its own for each test. Only root may make one; the
//! tests are skipped for others, and say so.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use common::{Client, Model, Rng, Server, WAIT_MAX, vadd};

/// Size of the file system.
const DISK_BYTES: usize = 8 << 20;
/// What is left free for the server to begin with.
const ROOM_BYTES: usize = 256 << 10;

/// A mounted file system, gone when dropped.
struct Mount(PathBuf);

impl Mount {
    /// `None`, with the reason printed, where it cannot be mounted.
    fn new(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={DISK_BYTES}");
        let mount = Process::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                println!("skipped, cannot mount a tmpfs: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped, cannot run mount: {error}");
                None
            }
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // The folder it is in is removed afterwards in any case.
        let _ = Process::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The value of a line of INFO.
fn info(client: &mut Client, field: &str) -> String {
    let text = client.ask("INFO persistence");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("no {field} in {text}"))
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < WAIT_MAX, "it does not become so");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Writes until a write is refused. Everything before is in the model.
fn fill(client: &mut Client, model: &mut Model, rng: &mut Rng) -> String {
    for index in 0..100_000 {
        let (element, vector) = (format!("e{}", index % 3000), rng.vector(64));
        let reply = client.call(&vadd("k", &vector, &element, ""));
        if reply.is_error() {
            return reply.text();
        }
        model.0.insert(element, (vector, None));
    }
    panic!("the disk does not fill up");
}

#[test]
fn writes_go_on_by_themselves_when_a_full_disk_has_room_again() {
    for policy in ["always", "everysec", "no"] {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let Some(_mount) = Mount::new(&data) else { return };
        let options = ["--appendfsync", policy];
        let server = Server::start_in(folder.path(), &options);
        let (mut client, mut model, mut rng) = (server.connect(), Model::default(), Rng(31));
        let filler = data.join("filler");
        fs::write(&filler, vec![1; DISK_BYTES - ROOM_BYTES]).unwrap();

        let refused = fill(&mut client, &mut model, &mut rng);
        assert!(refused.starts_with("MISCONF Errors writing to the AOF file: "), "{refused}");
        assert!(refused.contains("No space left on device"), "{refused}");
        model.check(&mut client, "k");
        // However often it is tried, there is no room for a checkpoint.
        for _ in 0..20 {
            let reply = client.call(&vadd("k", &[1.0; 64], "refused", ""));
            assert!(reply.text().starts_with("MISCONF "), "{reply}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(info(&mut client, "aof_last_write_status"), "err");
        assert_eq!(info(&mut client, "aof_last_bgrewrite_status"), "err");
        model.check(&mut client, "k");

        fs::remove_file(&filler).unwrap();
        wait_until(|| !client.call(&vadd("k", &[2.0; 64], "again", "")).is_error());
        model.0.insert("again".to_owned(), (vec![2.0; 64], None));
        assert_eq!(info(&mut client, "aof_last_write_status"), "ok");
        wait_until(|| info(&mut client, "aof_last_bgrewrite_status") == "ok");
        assert_eq!(info(&mut client, "log_failures"), "1");
        for index in 0..200 {
            let (element, vector) = (format!("e{index}"), rng.vector(64));
            assert!(!client.call(&vadd("k", &vector, &element, "")).is_error());
            model.0.insert(element, (vector, None));
        }
        model.check(&mut client, "k");
        server.kill9();

        let server = Server::start_in(folder.path(), &options);
        model.check(&mut server.connect(), "k");
        server.kill9();
        println!("{policy}: {} elements after {refused}", model.0.len());
    }
}
