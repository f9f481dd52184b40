//! A small HTTP server for monitors: `/metrics` for Prometheus, `/health` and `/ready` for whoever starts and stops
//! servers. One request a connection; it knows GET and HEAD and nothing of the data.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::ServerError;
use super::listen::{self, ACCEPT_PAUSE};
use crate::command::{Context, exposition};
use crate::config::Config;

/// Bytes of a request at most: its first line and headers.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// How long a request may take to arrive, and its answer to be taken.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// Requests at the same time; others wait.
const CONNECTIONS_MAX: usize = 16;

/// An answer: status, content type, content.
type Answer = (&'static str, &'static str, String);

const PLAIN: &str = "text/plain; charset=utf-8";
/// What Prometheus calls its text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Listens, if that is wanted.
///
/// # Errors
/// The address cannot be had.
pub fn open(config: &Config) -> Result<Option<TcpListener>, ServerError> {
    if config.metrics_port == 0 {
        return Ok(None);
    }
    let address = SocketAddr::new(config.metrics_bind, config.metrics_port);
    let listener = listen::listen_on(address, config.tcp_backlog);
    listener.map(Some).map_err(ServerError::io(format!("cannot listen on {address} for metrics")))
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, context: Arc<Context>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let context = Arc::clone(&context);
                tokio::spawn(async move {
                    // Neither a client that is too slow nor one that is gone is worth a line.
                    drop(timeout(EXCHANGE_MAX, exchange(stream, &context)).await);
                    drop(place);
                });
            }
            Err(error) => {
                warn!("cannot accept a connection on the metrics port: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn exchange(mut stream: TcpStream, context: &Context) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < REQUEST_BYTES_MAX {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, kind, content) = answer(method, target, context);
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if method != "HEAD" {
        stream.write_all(content.as_bytes()).await?;
    }
    stream.shutdown().await
}

fn answer(method: &str, target: &str, context: &Context) -> Answer {
    if !matches!(method, "GET" | "HEAD") {
        return ("405 Method Not Allowed", PLAIN, "only GET and HEAD\n".to_owned());
    }
    match target.split('?').next().unwrap_or_default() {
        "/metrics" => ("200 OK", EXPOSITION, exposition::page(context)),
        "/health" => ("200 OK", PLAIN, "ok\n".to_owned()),
        "/ready" if context.store.load().is_loading() => {
            ("503 Service Unavailable", PLAIN, format!("loading: {:.0} %\n", context.store.load().percent()))
        }
        "/ready" => ("200 OK", PLAIN, "ready\n".to_owned()),
        _ => ("404 Not Found", PLAIN, "there is /metrics, /health and /ready\n".to_owned()),
    }
}
