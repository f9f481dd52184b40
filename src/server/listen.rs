//! Where clients come in: TCP, TLS and a Unix socket, and how many of them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener};
use tokio::time::timeout;
use tracing::{info, warn};

use super::transport::Transport;
use super::{ServerError, connection};
use crate::command::Context;
use crate::config::{BindAddress, Config};
use crate::metrics::Metrics;

/// Pause after a failed accept, such as when files run out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a TLS handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Something to listen at.
pub enum Door {
    /// A TCP port.
    Tcp(TcpListener),
    /// A TCP port for TLS.
    Tls(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// All of them.
pub struct Doors {
    /// The doors.
    pub doors: Vec<Door>,
    /// The plain TCP port.
    pub port: u16,
    /// Removes the socket's file at the end.
    pub _socket_file: Option<SocketFile>,
}

/// The file of a Unix socket, removed when dropped.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Left behind it does no harm: the next start takes its place.
        drop(fs::remove_file(&self.0));
    }
}

/// Listens everywhere the configuration says.
pub fn open(config: &Config) -> Result<Doors, ServerError> {
    let (plain, port) = listen(config, config.port)?;
    let mut doors: Vec<Door> = plain.into_iter().map(Door::Tcp).collect();
    if config.tls_port > 0 {
        let (tls, port) = listen(config, config.tls_port)?;
        info!("listening for TLS on port {port}");
        doors.extend(tls.into_iter().map(Door::Tls));
    }
    let mut socket_file = None;
    if !config.unixsocket.as_os_str().is_empty() {
        let path = &config.unixsocket;
        let doing = format!("cannot listen on {}", path.display());
        doors.push(Door::Unix(listen_unix(path, config.unixsocketperm).map_err(ServerError::io(doing))?));
        socket_file = Some(SocketFile(path.clone()));
        info!("listening on {}", path.display());
    }
    Ok(Doors { doors, port, _socket_file: socket_file })
}

/// Listens on every address, all on one port.
fn listen(config: &Config, mut port: u16) -> Result<(Vec<TcpListener>, u16), ServerError> {
    let mut listeners = Vec::new();
    for BindAddress { address, optional } in &config.bind {
        let address = SocketAddr::new(*address, port);
        match listen_on(address, config.tcp_backlog) {
            Ok(listener) => {
                port = listener.local_addr().map_err(ServerError::io("cannot listen"))?.port();
                listeners.push(listener);
            }
            Err(error) if *optional => info!("not listening on {address}: {error}"),
            Err(error) => return Err(ServerError::io(format!("cannot listen on {address}"))(error)),
        }
    }
    Ok((listeners, port))
}

pub fn listen_on(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if address.is_ipv6() {
        SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// Takes the place of a socket that a server left behind, but of no other file.
fn listen_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    if mode > 0 {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(listener)
}

/// Takes the clients that come.
pub async fn accept(door: Door, context: Arc<Context>) {
    loop {
        let accepted = match &door {
            Door::Tcp(listener) => listener.accept().await.map(|(stream, _)| (Transport::Tcp(stream), false)),
            Door::Tls(listener) => listener.accept().await.map(|(stream, _)| (Transport::Tcp(stream), true)),
            Door::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| (Transport::Unix(stream), false))
            }
        };
        match accepted {
            Ok((stream, is_tls)) => admit(stream, is_tls, &context),
            Err(error) => {
                warn!("cannot accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit(mut stream: Transport, is_tls: bool, context: &Arc<Context>) {
    let metrics = Arc::clone(&context.metrics);
    metrics.connections.fetch_add(1, Ordering::Relaxed);
    let (most, keepalive_s) = {
        let config = context.config();
        (config.maxclients as u64, config.tcp_keepalive_s)
    };
    let Some(slot) = Slot::take(&metrics, most) else {
        metrics.rejected_connections.fetch_add(1, Ordering::Relaxed);
        if !is_tls {
            tokio::spawn(async move { stream.write_all(b"-ERR max number of clients reached\r\n").await });
        }
        return;
    };
    if let Transport::Tcp(stream) = &stream {
        tune(stream, keepalive_s);
    }
    let context = Arc::clone(context);
    tokio::spawn(async move {
        let _slot = slot;
        match stream {
            Transport::Tcp(stream) if is_tls => {
                if let Some(stream) = shake_hands(stream, &context).await {
                    connection::serve(stream, context).await;
                }
            }
            stream => connection::serve(stream, context).await,
        }
    });
}

/// A connection's place among `maxclients`, given back when dropped, whatever ends the connection.
struct Slot(Arc<Metrics>);

impl Slot {
    /// `None` if there are `most` already.
    fn take(metrics: &Arc<Metrics>, most: u64) -> Option<Self> {
        let slot = Self(Arc::clone(metrics));
        (metrics.clients.fetch_add(1, Ordering::Relaxed) < most).then_some(slot)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Only tunes the connection: it works without.
fn tune(stream: &TcpStream, keepalive_s: u64) {
    drop(stream.set_nodelay(true));
    if keepalive_s > 0 {
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(keepalive_s));
        drop(SockRef::from(stream).set_tcp_keepalive(&keepalive));
    }
}

/// Begins TLS; nothing if the client does not.
async fn shake_hands(stream: TcpStream, context: &Context) -> Option<Transport> {
    let accepted = timeout(HANDSHAKE_DEADLINE, context.tls.acceptor()?.accept(stream)).await;
    Some(Transport::Tls(Box::new(accepted.ok()?.ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_gives_its_slot_back() {
        let metrics = Arc::new(Metrics::new(0, &Config::default()));
        let slot = Slot::take(&metrics, 1).unwrap();
        assert!(Slot::take(&metrics, 1).is_none());
        let ended = tokio::spawn(async move {
            let _slot = slot;
            panic!("on purpose");
        });
        assert!(ended.await.is_err());
        assert!(Slot::take(&metrics, 1).is_some());
        assert_eq!(metrics.clients.load(Ordering::Relaxed), 0);
    }
}
