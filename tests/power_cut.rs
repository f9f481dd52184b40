//! Real file systems that lose power or fail to sync: ext4 on a loop device, cut off without a flush. Only root may make
//! one; the tests are skipped for others, and say so.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::time::{Duration, Instant};

use common::data::Op;
use common::{Client, Model, Rng, Server, Value, WAIT_MAX, vadd, words};

/// `_IOR('X', 125, u32)`: ends an ext4 file system at once.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Without writing the journal.
const NO_LOG_FLUSH: u32 = 2;
/// Size of the file systems; ext4 needs some of it for its journal.
const DISK_BYTES: u64 = 64 << 20;

/// Size of the file system that a too large disk lies on.
const BELOW_BYTES: u64 = 12 << 20;
/// What is left of it for the server to begin with.
const ROOM_BYTES: u64 = 1 << 20;

/// Runs a program of the system; what it printed, or why it failed.
fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output =
        Process::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(format!("{program}: {}", text(&output.stderr))),
    }
}

/// An ext4 file system in a file, mounted through a loop device. Gone when dropped.
struct Disk {
    device: String,
    mounted_at: PathBuf,
}

impl Disk {
    /// `None`, with the reason printed, where it cannot be made.
    fn new(file: &Path, mounted_at: &Path, options: &[&str]) -> Option<Self> {
        Self::try_new(file, mounted_at, options).map_err(|reason| println!("skipped: {reason}")).ok()
    }

    fn try_new(file: &Path, mounted_at: &Path, options: &[&str]) -> Result<Self, String> {
        fs::create_dir_all(mounted_at).unwrap();
        File::create(file).unwrap().set_len(DISK_BYTES).unwrap();
        let file = file.to_str().unwrap();
        run("mkfs.ext4", &[&["-q", "-F", file], options].concat())?;
        let device = run("losetup", &["--find", "--show", file])?;
        let disk = Self { device, mounted_at: mounted_at.to_owned() };
        disk.mount()?;
        Ok(disk)
    }

    fn path(&self) -> &str {
        self.mounted_at.to_str().unwrap()
    }

    fn mount(&self) -> Result<String, String> {
        run("mount", &["-t", "ext4", "-o", "errors=continue", &self.device, self.path()])
    }

    /// From now on nothing reaches the disk, and what is on its way is lost.
    fn cut_power(&self) {
        let folder = File::open(&self.mounted_at).unwrap();
        // SAFETY: the file is open, and the request reads one u32 through the pointer.
        let result = unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_SHUTDOWN, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// Mounts it again, as after a start of the machine.
    fn restart(&self) {
        run("umount", &[self.path()]).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The folder it is in is removed afterwards in any case.
        let _ = run("umount", &["-l", self.path()]);
        let _ = run("losetup", &["-d", &self.device]);
    }
}

/// How often the power is cut: VECDIS_POWER_CUTS, or `usual`.
fn rounds(usual: usize) -> usize {
    std::env::var("VECDIS_POWER_CUTS").map_or(usual, |rounds| rounds.parse().unwrap())
}

#[test]
fn under_always_a_power_cut_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::new(&folder.path().join("image"), &folder.path().join("data"), &[]) else {
        return;
    };
    let (mut model, mut rng, mut answered) = (Model::default(), Rng(50), 0);
    let options = ["--appendfsync", "always", "--auto-aof-rewrite-min-size", "256kb"];
    let rounds = rounds(8);
    for round in 0..rounds {
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        model.check(&mut client, "k");
        if round % 2 == 0 {
            client.ask("BGSAVE");
        }
        // Between two changes: to a sync under way while it is shut down, ext4 may say that all is well.
        for _ in 0..20 + rng.below(150) {
            model.run(&mut client, "k", &[Op::random(&mut rng, "e", 200, 64)]);
            answered += 1;
        }
        disk.cut_power();
        let refused = loop {
            let op = Op::random(&mut rng, "e", 200, 64);
            let reply = client.call(&op.command("k"));
            if reply.is_error() {
                assert!(reply.text().starts_with("MISCONF "), "{reply}");
                break op;
            }
            // It changed nothing: that needs no disk.
            assert_eq!(reply, Value::Integer(0));
        };
        model.check(&mut client, "k");
        server.kill9();
        disk.restart();
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        let found = Model::read(&mut client, "k", (0..200).map(|index| format!("e{index}")));
        if found != model {
            model.apply(&refused);
            assert!(found == model, "round {round}: something answered is lost");
        }
        server.kill9();
    }
    println!("{rounds} power cuts, {answered} answered changes");
}

#[test]
fn under_everysec_a_power_cut_loses_only_the_end_that_info_told() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::new(&folder.path().join("image"), &folder.path().join("data"), &[]) else {
        return;
    };
    let (mut all, mut lost) = (0, 0);
    let rounds = rounds(2);
    for round in 0..rounds {
        let server = Server::start_in(folder.path(), &["--appendfsync", "everysec"]);
        let mut client = server.connect();
        client.ask("DEL k");
        let (begin, mut answered) = (Instant::now(), 0);
        while begin.elapsed() < Duration::from_millis(2500) {
            client.check(&[(&format!("VADD k VALUES 2 1 {answered} e{answered}"), ":1")]);
            answered += 1;
            std::thread::sleep(Duration::from_millis(2));
        }
        let info = client.ask("INFO persistence");
        let unsynced = info.lines().find_map(|line| line.strip_prefix("log_unsynced_records:")).unwrap();
        let unsynced: usize = unsynced.trim().parse().unwrap();
        assert!(unsynced < answered, "round {round}: {unsynced} of {answered}: no sync yet");
        disk.cut_power();
        server.kill9();
        disk.restart();
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        let left = client.call(&words("VCARD k")).number() as usize;
        let told = answered - unsynced..=answered;
        assert!(told.contains(&left), "round {round}: {left} of {answered}, {unsynced} unsynced");
        client.check(&[(&format!("VISMEMBER k e{}", left - 1), ":1")]);
        server.kill9();
        (all, lost) = (all + answered, lost + answered - left);
    }
    println!("{rounds} power cuts, {lost} of {all} answered changes lost, all among those not synced yet");
}

/// Writes until a write is refused.
fn fill(client: &mut Client, model: &mut Model, rng: &mut Rng) -> String {
    for index in 0..20_000 {
        let (element, vector) = (format!("e{}", index % 3000), rng.vector(256));
        let reply = client.call(&vadd("k", &vector, &element, ""));
        if reply.is_error() {
            return reply.text();
        }
        model.0.insert(element, (vector, None));
    }
    panic!("no sync fails");
}

#[test]
fn a_sync_that_fails_is_not_tried_again_and_loses_nothing_that_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    // The disk's file is on a small file system: the disk says that it has room, but blocks cannot be written.
    let below = folder.path().join("below");
    fs::create_dir_all(&below).unwrap();
    let below_path = below.to_str().unwrap().to_owned();
    if let Err(reason) =
        run("mount", &["-t", "tmpfs", "-o", &format!("size={BELOW_BYTES}"), "tmpfs", &below_path])
    {
        println!("skipped: {reason}");
        return;
    }
    // Without a journal only the sync fails; with one the file system might stop writing altogether.
    let no_journal = ["-O", "^has_journal"];
    let Some(disk) = Disk::new(&below.join("image"), &folder.path().join("data"), &no_journal) else {
        run("umount", &["-l", &below_path]).unwrap();
        return;
    };
    let server = Server::start_in(folder.path(), &["--appendfsync", "always"]);
    let (mut client, mut model, mut rng) = (server.connect(), Model::default(), Rng(52));
    let used_bytes = fs::metadata(below.join("image")).unwrap().blocks() * 512;
    fs::write(below.join("filler"), vec![1; (BELOW_BYTES - used_bytes - ROOM_BYTES) as usize]).unwrap();
    let refused = fill(&mut client, &mut model, &mut rng);
    assert!(refused.starts_with("MISCONF "), "{refused}");
    model.check(&mut client, "k");
    println!("{} answered, then {refused}", model.0.len());
    fs::remove_file(below.join("filler")).unwrap();
    let (begin, vector) = (Instant::now(), rng.vector(256));
    while client.call(&vadd("k", &vector, "again", "")).is_error() {
        assert!(begin.elapsed() < WAIT_MAX, "writes do not resume");
        std::thread::sleep(Duration::from_millis(20));
    }
    model.0.insert("again".to_owned(), (vector, None));
    model.check(&mut client, "k");
    server.kill9();
    disk.restart();
    let server = Server::start_in(folder.path(), &[]);
    model.check(&mut server.connect(), "k");
    server.kill9();
    drop(disk);
    run("umount", &["-l", &below_path]).unwrap();
}
