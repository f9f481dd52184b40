//! Tells systemd how the server is (`Type=notify`): ready, loading, stopping.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::net::UnixDatagram;

use tracing::warn;

use crate::config::Supervised;

/// Who is told, if anybody.
pub struct Notify(Option<OsString>);

impl Notify {
    /// As the option `supervised` says; systemd names its socket in the environment.
    pub fn new(supervised: Supervised) -> Self {
        let socket = env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty());
        Self(match supervised {
            Supervised::No => None,
            Supervised::Auto => socket,
            Supervised::Systemd => {
                if socket.is_none() {
                    warn!("supervised is systemd, but NOTIFY_SOCKET is not set: nobody is told of the start");
                }
                socket
            }
        })
    }

    /// The server answers.
    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=Ready to accept connections\n");
    }

    /// It reads its data.
    pub fn loading(&self) {
        self.tell("STATUS=Loading the data\n");
    }

    /// It ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Stopping\n");
    }

    fn tell(&self, state: &str) {
        let Some(path) = &self.0 else { return };
        if let Err(error) = send(path, state) {
            warn!("systemd cannot be told of the server's state: {error}");
        }
    }
}

#[cfg(target_os = "linux")]
fn send(path: &OsString, state: &str) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::SocketAddr;

    let socket = UnixDatagram::unbound()?;
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn send(path: &OsString, state: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to(state.as_bytes(), path).map(drop)
}
