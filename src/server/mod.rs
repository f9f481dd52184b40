//! The server: sockets, the protocol, the end.

mod batch;
mod connection;
pub mod encode;
pub mod framer;
mod http;
mod inline;
mod listen;
mod notify;
mod transport;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use notify::Notify;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::access::{Access, AccessError};
use crate::clock;
use crate::command::client::Clients;
use crate::command::table::COMMANDS;
use crate::command::{Context, Shutdown, ShutdownWish, expire, permissions, usage};
use crate::config::Config;
use crate::disk::{DiskError, RealDisk};
use crate::embed::Embedding;
use crate::heap;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError, WriteError};
use crate::tls::{Tls, TlsError};
use listen::Doors;

/// How long open connections have to take their last replies.
const DRAIN: Duration = Duration::from_millis(200);
/// How often keys whose time is over are looked for.
const SWEEP_PERIOD: Duration = Duration::from_millis(100);
/// How often freed memory is given back and the rates of INFO are taken.
const SLOW_PERIOD: Duration = Duration::from_secs(1);
/// How often connections whose API key's time is over are ended.
const KEY_PERIOD: Duration = Duration::from_secs(1);
/// How often what users use is noted in the log.
const USAGE_PERIOD: Duration = Duration::from_secs(60);

/// Why the server did not start or did not end well.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The operating system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What it said.
        source: io::Error,
    },
    /// The certificates cannot be loaded.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The users cannot be read.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The data cannot be loaded, or the log not be synced.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ServerError {
    fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// Serves until it is told to end.
///
/// # Errors
/// When it cannot listen, the data cannot be loaded, or the log could not be synced at the end.
pub fn run(config: Config) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(io_threads(&config))
        .enable_all()
        .build()
        .map_err(ServerError::io("cannot start threads"))?;
    let ended = runtime.block_on(serve(config));
    runtime.shutdown_timeout(DRAIN);
    ended
}

/// Threads that serve the connections. By default one for every two cores: more would take the cores from the search
/// threads and the writer, and wake one another up for little.
fn io_threads(config: &Config) -> usize {
    match config.io_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2),
        threads => threads,
    }
}

async fn serve(config: Config) -> Result<(), ServerError> {
    let open = if config.read_only { RealDisk::open_read_only } else { RealDisk::open };
    // Before anybody can know that the server is there.
    let handle = |kind| signal(kind).map_err(ServerError::io("cannot handle signals"));
    let signals = [handle(SignalKind::terminate())?, handle(SignalKind::interrupt())?];
    let hangup = handle(SignalKind::hangup())?;
    let disk = Arc::new(open(&config.dir)?);
    let access = Access::new(&permissions::CATALOG, &config)?;
    let tls = Tls::default();
    tls.load(&config)?;
    let Doors { doors, port, _socket_file } = listen::open(&config)?;
    let metrics_listener = http::open(&config)?;
    let notify = Notify::new(config.supervised);
    let (shutdown, wishes) = mpsc::unbounded_channel();
    let metrics = Arc::new(Metrics::new(COMMANDS.len(), &config));
    let (store, loaded) = Store::start(disk, &config, &metrics);
    let context = Arc::new(Context {
        store,
        access,
        embedding: Embedding::start(&config, &metrics),
        metrics,
        started_ms: clock::now_ms(),
        port,
        run_id: run_id(),
        clients: Clients::default(),
        tls,
        shutdown,
        config: config.into(),
    });
    info!("listening on port {port}, loading the data");
    for door in doors {
        tokio::spawn(listen::accept(door, Arc::clone(&context)));
    }
    tokio::spawn(every_second(Arc::clone(&context)));
    tokio::spawn(reload_certificates(hangup, Arc::clone(&context)));
    if let Some(listener) = metrics_listener {
        tokio::spawn(http::serve(listener, Arc::clone(&context)));
    }
    notify.loading();
    let end = wait_for_end(Arc::clone(&context), wishes, signals, &notify);
    tokio::pin!(end);
    tokio::select! {
        ended = &mut end => return ended,
        loaded = loaded => loaded.unwrap_or_else(|_| Err(WriteError::Stopped.into()))?,
    }
    context.follow_users();
    tokio::spawn(sweep(Arc::clone(&context)));
    tokio::spawn(watch_users(context));
    info!("ready to accept connections on port {port}");
    notify.ready();
    end.await
}

/// Forty random hexadecimal digits.
fn run_id() -> String {
    let random = || RandomState::new().hash_one(0);
    format!("{:016x}{:016x}{:08x}", random(), random(), random() & 0xffff_ffff)
}

/// Reads the certificates again at SIGHUP.
async fn reload_certificates(mut hangup: Signal, context: Arc<Context>) {
    while hangup.recv().await.is_some() {
        let config = context.config().clone();
        match context.tls.load(&config) {
            Ok(()) => info!("certificates loaded again"),
            Err(error) => warn!("the certificates stay as they were: {error}"),
        }
    }
}

/// Takes the rates that INFO shows, and gives freed memory back.
async fn every_second(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(SLOW_PERIOD);
    loop {
        ticks.tick().await;
        context.metrics.rates.look(context.metrics.totals());
        context.metrics.rates.peak_bytes(heap::heap_bytes() as u64);
        // It may take a while: not on a thread that serves. Whether it ran is of no consequence.
        drop(tokio::task::spawn_blocking(heap::give_back).await);
    }
}

/// Removes keys whose time is over, every now and then.
async fn sweep(context: Arc<Context>) {
    let mut ticks = tokio::time::interval(SWEEP_PERIOD);
    loop {
        ticks.tick().await;
        expire::sweep(&context.store);
    }
}

/// Notes what users use and ends connections whose API key's time is over, every now and then.
async fn watch_users(context: Arc<Context>) {
    let (mut keys, mut notes) = (tokio::time::interval(KEY_PERIOD), tokio::time::interval(USAGE_PERIOD));
    loop {
        tokio::select! {
            _ = keys.tick() => usage::end_expired(&context),
            _ = notes.tick() => usage::note(&context),
        }
    }
}

/// Waits for SIGTERM, SIGINT or SHUTDOWN and ends the store. A wish that cannot be granted is answered, and the server
/// goes on.
async fn wait_for_end(
    context: Arc<Context>,
    mut wishes: mpsc::UnboundedReceiver<ShutdownWish>,
    [mut terminate, mut interrupt]: [Signal; 2],
    notify: &Notify,
) -> Result<(), ServerError> {
    loop {
        let by_signal = Shutdown { save: true, force: false };
        let (wish, refuse) = tokio::select! {
            _ = terminate.recv() => (by_signal, None),
            _ = interrupt.recv() => (by_signal, None),
            Some((wish, refuse)) = wishes.recv() => (wish, Some(refuse)),
        };
        info!("shutdown requested");
        notify.stopping();
        let context = Arc::clone(&context);
        let ended = tokio::task::spawn_blocking(move || end(&context, wish)).await;
        match ended.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(result) => {
                info!("ready to exit, bye bye");
                return Ok(result?);
            }
            Err(why) => {
                warn!("not shutting down: {why}");
                notify.ready();
                if let Some(refuse) = refuse {
                    drop(refuse.send(why));
                }
            }
        }
    }
}

/// Ends the store; `Err` says why it goes on.
fn end(context: &Context, wish: Shutdown) -> Result<Result<(), StoreError>, String> {
    if context.store.load().is_loading() {
        // Nothing was written, and what recovery does to the files may stop anywhere.
        return Ok(Ok(()));
    }
    usage::note(context);
    if wish.save
        && !context.store.read_only
        && let Err(error) = context.store.checkpoint()
        // What is acknowledged is in the log, if there is one.
        && !context.config().appendonly
        && !wish.force
    {
        return Err(error.to_string());
    }
    Ok(context.store.stop())
}
