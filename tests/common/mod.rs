//! What the integration tests share: a server with a folder and a port of its own, a small blocking client, and
//! generated data.

#![allow(dead_code, unused_imports, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

pub mod client;
pub mod damage;
pub mod data;
pub mod http;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use client::{Client, Command, Value, command, encode, fp32, vadd, words};
pub use data::{Model, Rng, clustered};

/// Longest wait for anything that should happen soon. Only a hanging test meets it.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// What stands before the port in the line that says that a server is ready.
const READY: &str = "ready to accept connections on port ";

/// The server's program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_vecdis");

/// A running server; killed when dropped.
pub struct Server {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// Holds the data folder `data` and the server's output.
    root: PathBuf,
    _folder: Option<tempfile::TempDir>,
}

impl Server {
    /// Starts a server with an empty folder and waits until it answers.
    pub fn start(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self::start_in(folder.path(), options);
        server._folder = Some(folder);
        server
    }

    /// Starts a server whose data are in `root/data` and waits until it answers.
    pub fn start_in(root: &Path, options: &[&str]) -> Self {
        Self::try_start_in(root, options)
            .unwrap_or_else(|(code, output)| panic!("the server ended with {code:?}: {output}"))
    }

    /// As [`Server::start_in`]; gives the exit code and what was printed if the server refuses to start.
    pub fn try_start_in(root: &Path, options: &[&str]) -> Result<Self, (Option<i32>, String)> {
        Self::start_until(&mut Process::new(PROGRAM), root, options, READY)
    }

    /// As [`Server::start_in`], but only waits until it listens: it may still be loading.
    pub fn start_loading(root: &Path, options: &[&str]) -> Self {
        Self::start_until(&mut Process::new(PROGRAM), root, options, "listening on port ")
            .unwrap_or_else(|(code, output)| panic!("the server ended with {code:?}: {output}"))
    }

    /// As [`Server::start_in`], with files that can grow to `file_bytes` (a multiple of 512) only: writes beyond fail.
    pub fn start_limited(root: &Path, options: &[&str], file_bytes: u64) -> Self {
        // A signal that is ignored stays so in the program that the shell becomes.
        let limit = format!("trap '' XFSZ; ulimit -f {}; exec {PROGRAM} \"$@\"", file_bytes / 512);
        Self::start_until(Process::new("sh").args(["-c", &limit, "sh"]), root, options, READY)
            .unwrap_or_else(|(code, output)| panic!("the server ended with {code:?}: {output}"))
    }

    /// Starts a server and waits until it prints `told` and its port.
    fn start_until(
        program: &mut Process,
        root: &Path,
        options: &[&str],
        told: &str,
    ) -> Result<Self, (Option<i32>, String)> {
        let before = output(root).len();
        let mut server = Self {
            process: spawn(program, root, options),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            root: root.to_owned(),
            _folder: None,
        };
        let begin = Instant::now();
        loop {
            let ended = server.process.try_wait().unwrap();
            let printed = server.output()[before..].to_owned();
            if let Some(status) = ended {
                return Err((status.code(), printed));
            }
            if let Some(port) = port_told(&printed, told) {
                server.address.set_port(port);
                return Ok(server);
            }
            assert!(begin.elapsed() < WAIT_MAX, "the server does not start: {printed}");
            sleep(PAUSE);
        }
    }

    /// Starts a server and kills it after a while, whether it answers yet or not.
    pub fn start_and_kill(root: &Path, after: Duration) {
        let mut process = spawn(&mut Process::new(PROGRAM), root, &[]);
        sleep(after);
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address).unwrap()
    }

    /// A new connection that speaks RESP3.
    pub fn connect_resp3(&self) -> Client {
        let mut client = self.connect();
        client.hello(3);
        client
    }

    /// Ends the server as a crash would.
    pub fn kill9(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends the server with a signal (`TERM`, `INT`) and gives its exit status.
    pub fn terminate(self, signal: &str) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.process.id());
        assert!(Process::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Waits until the server has ended by itself.
    pub fn wait(mut self) -> ExitStatus {
        wait_for(&mut self.process, &self.root)
    }

    /// A size from the system's view of the process, such as `VmRSS` or `VmHWM` (its peak).
    pub fn memory_bytes(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        let kilobytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    /// What the process has open, as the system names it: paths, and `socket:[inode]`.
    pub fn open_files(&self) -> Vec<String> {
        let folder = format!("/proc/{}/fd", self.process.id());
        let links =
            fs::read_dir(folder).unwrap().filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
        links.map(|target| target.to_string_lossy().into_owned()).collect()
    }

    /// All that the server has printed.
    pub fn output(&self) -> String {
        output(&self.root)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let running = self.process.try_wait().is_ok_and(|status| status.is_none());
        // Both fail only when the process has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the server (running: {running}) printed:\n{}", self.output());
        }
    }
}

/// Starts the program on a port that the system chooses, so that servers never meet.
fn spawn(program: &mut Process, root: &Path, options: &[&str]) -> Child {
    let output = File::options().create(true).append(true).open(root.join("output")).unwrap();
    program
        .args(options)
        .args(["--bind", "127.0.0.1", "--port", "0", "--dir"])
        .arg(root.join("data"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap()
}

/// The port that stands behind a text, in a line that is complete.
fn port_told(printed: &str, text: &str) -> Option<u16> {
    let (_, after) = printed.rsplit_once(text)?;
    let (line, _) = after.split_once('\n')?;
    line.split(',').next()?.trim().parse().ok()
}

fn output(root: &Path) -> String {
    String::from_utf8_lossy(&fs::read(root.join("output")).unwrap_or_default()).into_owned()
}

fn wait_for(process: &mut Child, root: &Path) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > WAIT_MAX {
            process.kill().unwrap();
            panic!("the process does not end: {}", output(root));
        }
        sleep(PAUSE);
    }
}

/// Starts a server that must not start. Gives its exit code and what it printed.
pub fn refused_start(root: &Path, options: &[&str]) -> (Option<i32>, String) {
    let started = Server::try_start_in(root, options);
    started.err().expect("the server should not have started")
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    Process::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// All files below a folder, as paths relative to it, sorted.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// Copies a folder with all it holds.
pub fn copy_folder(from: &Path, to: &Path) {
    for file in files_below(from) {
        let target = to.join(&file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(from.join(&file), target).unwrap();
    }
}
