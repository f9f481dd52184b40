//! One client's connection: read, carry out, answer.
//!
//! Reading goes on while replies wait to be sent, because many clients send a whole pipeline before they read; what
//! waits is bounded by `client-output-buffer-limit`.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::time::{Instant, sleep_until};

use super::batch::Batch;
use super::encode::encode;
use super::framer::{Framer, Limits, ProtocolError};
use super::transport::{Ends, Transport};
use crate::clock;
use crate::command::Context;
use crate::command::reply::Reply;
use crate::command::session::{Session, is_denied};
use crate::config::OutputLimit;

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;
/// A connection whose buffers hold no more than this stays when all together take more than `maxmemory-clients`.
const SMALL_BUFFERS_BYTES: u64 = 1 << 20;
/// What a peer on another machine is told while everybody on this one may do everything.
const DENIED: &[u8] =
    b"-DENIED Vecdis is running in protected mode: there is no password for the default user, so only \
    connections from this machine are accepted. Set a password (requirepass, or ACL SETUSER default), or \
    protected-mode no if nobody else can reach the server.\r\n";
/// How long a begun request may take to arrive.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

struct Connection {
    stream: Transport,
    context: Arc<Context>,
    session: Session,
    framer: Framer,
    input: BytesMut,
    output: BytesMut,
    /// When the unfinished request in `input` began.
    begun: Option<Instant>,
    /// When more than the soft limit began to wait.
    slow_since: Option<Instant>,
    /// Bytes of buffers counted in the metrics.
    counted_bytes: u64,
    /// Nothing more is read; the connection ends when the output is sent.
    closing: bool,
}

/// Serves a connection until it ends.
pub async fn serve(stream: Transport, context: Arc<Context>) {
    let Ends { peer, local, is_local } = stream.ends();
    if is_denied(&context, is_local) {
        let mut stream = stream;
        drop(stream.write_all(DENIED).await);
        return;
    }
    let config = context.config().clone();
    let limits = Limits {
        bulk_bytes: usize::try_from(config.proto_max_bulk_len_bytes).unwrap_or(usize::MAX),
        authenticated: context.access.is_open(),
        ..Limits::default()
    };
    let session = Session::new(peer, local, is_local, &context.access);
    context.clients.add(&session.client);
    let connection = Connection {
        stream,
        context: Arc::clone(&context),
        session,
        framer: Framer::new(limits),
        input: BytesMut::new(),
        output: BytesMut::new(),
        begun: None,
        slow_since: None,
        counted_bytes: 0,
        closing: false,
    };
    // An error means that the client is gone; there is nobody to tell.
    drop(connection.run().await);
}

/// Whether so many bytes are beyond a limit of which 0 means none.
fn exceeds(bytes: u64, limit_bytes: u64) -> bool {
    limit_bytes > 0 && bytes > limit_bytes
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.context.clients.remove(&self.session.client);
        self.context.metrics.buffers_bytes.fetch_sub(self.counted_bytes, Ordering::Relaxed);
    }
}

impl Connection {
    async fn run(mut self) -> io::Result<()> {
        loop {
            let (limit, all_bytes) = self.limits();
            self.carry_out(limit.hard_bytes).await;
            self.session.client.take_pushed(&mut self.output);
            if self.leaves_unread(limit.hard_bytes) {
                self.count_disconnection();
                return Ok(());
            }
            self.send().await?;
            if self.session.client.is_killed()
                || self.takes_too_much(limit.soft_bytes, all_bytes)
                || (self.closing && self.output.is_empty())
            {
                return Ok(());
            }
            let interest = match (self.closing, self.output.is_empty()) {
                (true, _) => Interest::WRITABLE,
                (false, true) => Interest::READABLE,
                (false, false) => Interest::READABLE | Interest::WRITABLE,
            };
            let deadline = self.deadline();
            let expire = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let ready = tokio::select! {
                ready = self.stream.ready(interest) => ready?,
                () = self.session.client.woken() => continue,
                () = expire => {
                    if self.slow_since.is_some() {
                        self.count_disconnection();
                    }
                    return Ok(());
                }
            };
            if ready.is_readable() && !self.closing && !self.receive().await? {
                return Ok(());
            }
        }
    }

    /// How much of its replies the client may leave unread, and what the buffers of all may take together.
    fn limits(&self) -> (OutputLimit, u64) {
        let config = self.context.config();
        (config.client_output_buffer_limit, config.maxmemory_clients_bytes)
    }

    /// Whether more replies wait than a limit allows.
    fn leaves_unread(&self, limit_bytes: u64) -> bool {
        exceeds(self.output.len() as u64, limit_bytes)
    }

    /// Counts the buffers, notes whether replies beyond the soft limit wait; true if the connection has to go because of what all
    /// take.
    fn takes_too_much(&mut self, soft_bytes: u64, all_bytes: u64) -> bool {
        let bytes = (self.input.len() + self.output.len()) as u64;
        self.session.client.input_bytes.store(self.input.len(), Ordering::Relaxed);
        self.session.client.output_bytes.store(self.output.len(), Ordering::Relaxed);
        let buffers = &self.context.metrics.buffers_bytes;
        buffers.fetch_add(bytes, Ordering::Relaxed);
        let before = buffers.fetch_sub(self.counted_bytes, Ordering::Relaxed);
        let all = before - std::mem::replace(&mut self.counted_bytes, bytes);
        match self.leaves_unread(soft_bytes) {
            true => drop(self.slow_since.get_or_insert_with(Instant::now)),
            false => self.slow_since = None,
        }
        let too_much = exceeds(all, all_bytes) && bytes > SMALL_BUFFERS_BYTES;
        if too_much {
            self.count_disconnection();
        }
        too_much
    }

    fn count_disconnection(&self) {
        self.context.metrics.output_limit_disconnections.fetch_add(1, Ordering::Relaxed);
    }

    /// When to give the client up.
    fn deadline(&mut self) -> Option<Instant> {
        let config = self.context.config();
        let idle = Duration::from_secs(config.timeout_s);
        let soft = Duration::from_secs(config.client_output_buffer_limit.soft_s);
        drop(config);
        let slow = self.slow_since.filter(|_| !soft.is_zero()).map(|since| since + soft);
        let arrival = if self.input.is_empty() {
            self.begun = None;
            (!idle.is_zero()).then(|| Instant::now() + idle)
        } else {
            Some(*self.begun.get_or_insert_with(Instant::now) + REQUEST_DEADLINE)
        };
        [slow, arrival].into_iter().flatten().min()
    }

    /// Reads what is there. False at the end of the stream.
    async fn receive(&mut self) -> io::Result<bool> {
        self.input.reserve(READ_BYTES.max(self.framer.wanted()));
        // Polled once: unlike `try_read_buf` this notes that a short read has emptied the socket, which spares the system
        // call that would only find that out.
        let mut reading = pin!(self.stream.read_buf(&mut self.input));
        let read = poll_fn(|task| match reading.as_mut().poll(task) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => Poll::Ready(None),
        });
        match read.await {
            None => Ok(true),
            Some(Ok(0)) => Ok(false),
            Some(Ok(read)) => {
                self.session.client.active_ms.store(clock::now_ms(), Ordering::Relaxed);
                self.context.metrics.input_bytes.fetch_add(read as u64, Ordering::Relaxed);
                Ok(true)
            }
            Some(Err(error)) => Err(error),
        }
    }

    /// Carries out the requests that have arrived and appends their replies to the output.
    async fn carry_out(&mut self, hard_bytes: u64) {
        while !self.closing && !self.input.is_empty() && !self.leaves_unread(hard_bytes) {
            let mut batch = Batch::new(&self.context);
            let mut error = None;
            while !batch.is_full() && !self.session.closing {
                match self.framer.next(&mut self.input) {
                    Ok(Some(request)) => {
                        self.begun = None;
                        batch.add(&mut self.session, request).await;
                        self.framer.set_authenticated(self.session.authenticated);
                    }
                    Ok(None) => break,
                    Err(refused) => {
                        error = Some(refused);
                        break;
                    }
                }
            }
            let requests = batch.len();
            batch.finish(&self.session.client, &mut self.output).await;
            self.closing = error.is_some() || self.session.closing;
            match error {
                Some(ProtocolError::CrossProtocol) => self.output.clear(),
                Some(error) => {
                    let reply = Reply::error(format!("ERR {error}"));
                    encode(&reply, self.session.protocol, &mut self.output);
                }
                None if requests == 0 => break,
                None => {}
            }
        }
        if self.input.is_empty() {
            // An idle connection keeps no buffer.
            self.input = BytesMut::new();
        }
    }

    /// Sends as much as the socket takes.
    async fn send(&mut self) -> io::Result<()> {
        let (stream, output, metrics) = (&mut self.stream, &mut self.output, &self.context.metrics);
        let sending = poll_fn(|task| {
            while !output.is_empty() {
                match Pin::new(&mut *stream).poll_write(task, output) {
                    Poll::Ready(Ok(written)) => {
                        metrics.output_bytes.fetch_add(written as u64, Ordering::Relaxed);
                        output.advance(written);
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Ready(Ok(())),
                }
            }
            // What waits inside is sent when there is room: polled once, like the writing.
            match Pin::new(&mut *stream).poll_flush(task) {
                Poll::Ready(flushed) => Poll::Ready(flushed),
                Poll::Pending => Poll::Ready(Ok(())),
            }
        });
        sending.await?;
        if self.output.is_empty() {
            self.output = BytesMut::new();
        }
        Ok(())
    }
}
