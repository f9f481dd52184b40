//! What a connection's bytes come through: TCP, TLS over TCP, or a Unix socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf, Ready};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A stream to a client.
pub enum Transport {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP, after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Who talks with whom.
pub struct Ends {
    /// The peer, `host:port`.
    pub peer: String,
    /// Our end.
    pub local: String,
    /// Whether the peer is on this machine.
    pub is_local: bool,
}

impl Transport {
    /// The addresses of both ends.
    pub fn ends(&self) -> Ends {
        match self {
            Self::Tcp(stream) => tcp_ends(stream),
            Self::Tls(stream) => tcp_ends(stream.get_ref().0),
            Self::Unix(stream) => {
                let path = stream.local_addr().ok();
                let path = path.and_then(|address| Some(format!("{}:0", address.as_pathname()?.display())));
                let path = path.unwrap_or_default();
                Ends { peer: path.clone(), local: path, is_local: true }
            }
        }
    }

    /// Waits until it can be read or written; or tells at once that it can be read, because bytes that have arrived are not
    /// all given out yet.
    pub async fn ready(&mut self, interest: Interest) -> io::Result<Ready> {
        match self {
            Self::Tcp(stream) => stream.ready(interest).await,
            Self::Unix(stream) => stream.ready(interest).await,
            Self::Tls(stream) => {
                let (tcp, tls) = stream.get_mut();
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                if interest.is_readable() && state.plaintext_bytes_to_read() > 0 {
                    return Ok(Ready::READABLE);
                }
                let wanted = if tls.wants_write() { interest | Interest::WRITABLE } else { interest };
                tcp.ready(wanted).await
            }
        }
    }
}

fn tcp_ends(stream: &TcpStream) -> Ends {
    let text = |address: io::Result<std::net::SocketAddr>| address.map_or(String::new(), |a| a.to_string());
    let is_local = stream.peer_addr().is_ok_and(|peer| peer.ip().to_canonical().is_loopback());
    Ends { peer: text(stream.peer_addr()), local: text(stream.local_addr()), is_local }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(task, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(task, buffer),
            Self::Unix(stream) => Pin::new(stream).poll_read(task, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(task, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(task, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(task, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(task),
            Self::Tls(stream) => Pin::new(stream).poll_flush(task),
            Self::Unix(stream) => Pin::new(stream).poll_flush(task),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(task),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(task),
        }
    }
}
