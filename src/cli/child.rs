//! A server of one's own: a child process on a free port with a scratch folder, gone when the value is
//! dropped.

use std::fs::{self, DirBuilder};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::CliError;
use super::client::{BytesFrame, Client, Command};
use crate::clock;

/// Longest wait for a started server to answer `PING`.
const START_MAX: Duration = Duration::from_secs(10);
/// Longest wait for the server to end by itself after `SHUTDOWN`.
const STOP_MAX: Duration = Duration::from_secs(5);
/// Longest wait for the answer to one `PING` while the server starts.
const PING_MAX: Duration = Duration::from_secs(1);
/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Time between two looks at whether something has happened.
const PAUSE: Duration = Duration::from_millis(20);
/// Lines of the server's log shown when it does not start.
const LOG_LINES_SHOWN: usize = 5;

/// A running server with its folder. Dropping it stops the server and removes the folder.
pub struct ChildServer {
    process: Child,
    address: SocketAddr,
    // Dropped after `drop` has stopped the process.
    folder: ScratchFolder,
}

impl ChildServer {
    /// Starts `program` (an executable of this project) on 127.0.0.1 and waits until it answers.
    ///
    /// # Errors
    /// [`CliError::Start`] when it ends early or does not answer within 10 s; [`CliError::Io`] when the
    /// system refuses.
    pub fn start(program: &Path) -> Result<Self, CliError> {
        let folder = ScratchFolder::create()?;
        let address = free_address().map_err(CliError::io("cannot find a free port"))?;
        let process = Process::new(program)
            .args(arguments(address, &folder.0))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(CliError::io("cannot start the server"))?;
        let mut server = Self { process, address, folder };
        server.wait_until_ready()?;
        Ok(server)
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection to it.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn connect(&self) -> Result<Client, CliError> {
        Client::connect(self.address, ANSWER_MAX)
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.process.try_wait(), Ok(None))
    }

    fn wait_until_ready(&mut self) -> Result<(), CliError> {
        let begin = Instant::now();
        loop {
            if self.has_ended() {
                return Err(self.start_error("it ended at once"));
            }
            let client = Client::connect(self.address, PING_MAX);
            let answer = client.and_then(|mut client| client.call(&Command::new(["PING"])));
            if matches!(&answer, Ok(BytesFrame::SimpleString(text)) if text.as_ref() == b"PONG") {
                return Ok(());
            }
            if begin.elapsed() > START_MAX {
                return Err(self.start_error("it does not answer PING"));
            }
            thread::sleep(PAUSE);
        }
    }

    /// What happened, with the end of the log as one line.
    fn start_error(&self, what: &str) -> CliError {
        let log = fs::read_to_string(log_path(&self.folder.0)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join(" | ");
        CliError::Start(if last.is_empty() {
            what.to_owned()
        } else {
            format!("{what}; its log ends: {last}")
        })
    }

    /// Asks the server to end; false when it refuses. (It closes the connection, or is ending already.)
    fn ask_to_end(&self) -> bool {
        let answer = self.connect().and_then(|mut client| client.call(&Command::new(["SHUTDOWN", "NOSAVE"])));
        !matches!(answer, Err(CliError::Answer { .. }))
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        if !self.has_ended() && self.ask_to_end() {
            let begin = Instant::now();
            while !self.has_ended() && begin.elapsed() < STOP_MAX {
                thread::sleep(PAUSE);
            }
        }
        // Both fail only when the process has ended, which is what they are for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server's arguments. Its log goes to a file in the folder, so that it does not mix with what the demo
/// prints.
fn arguments(address: SocketAddr, folder: &Path) -> Vec<std::ffi::OsString> {
    vec![
        "--bind".into(),
        address.ip().to_string().into(),
        "--port".into(),
        address.port().to_string().into(),
        "--dir".into(),
        folder.into(),
        "--logfile".into(),
        log_path(folder).into(),
    ]
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("vecdis.log")
}

/// A port nobody listens on: the system is asked for one, which is then given back. Somebody else could take
/// it before the server does; the server then says so and does not start.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// A new folder for this user only, removed with all it holds when dropped.
struct ScratchFolder(PathBuf);

impl ScratchFolder {
    fn create() -> Result<Self, CliError> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vecdis-demo-{}-{}-{count}", std::process::id(), clock::now_ms());
        let path = std::env::temp_dir().join(name);
        // Not `recursive`: a folder that somebody else made before us is an error.
        DirBuilder::new().mode(0o700).create(&path).map_err(CliError::io("cannot make a scratch folder"))?;
        Ok(Self(path))
    }
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    use crate::config::Config;

    #[test]
    fn the_arguments_are_a_valid_configuration() {
        let folder = Path::new("/tmp/some folder");
        let address = free_address().unwrap();
        let words = arguments(address, folder).into_iter().map(|word| word.into_string().unwrap());
        let config = Config::load(words).unwrap();
        assert_eq!((config.port, config.dir.as_path()), (address.port(), folder));
        assert_eq!(config.get("bind").unwrap(), "127.0.0.1");
        assert_eq!(config.logfile, folder.join("vecdis.log"));
    }

    #[test]
    fn a_scratch_folder_is_private_and_goes_with_its_value() {
        let folder = ScratchFolder::create().unwrap();
        let path = folder.0.clone();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        fs::write(path.join("file"), "x").unwrap();
        assert_ne!(ScratchFolder::create().unwrap().0, path);
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_program_that_ends_at_once_is_an_error() {
        let error = ChildServer::start(Path::new("/bin/false")).map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "the server did not start: it ended at once");
        assert!(matches!(ChildServer::start(Path::new("/no/such/program")), Err(CliError::Io { .. })));
    }
}
