//! The start: recovery on the writer's thread, while the server answers already, and how far it has come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::oneshot;
use tracing::info;

use super::checkpoint::{CheckpointStats, Task};
use super::state::Snapshot;
use super::writer::{Message, Writer, WriterStats};
use super::{StoreError, recovery};
use crate::clock;
use crate::config::Config;
use crate::disk::Disk;

/// Time between two lines of the log that tell how far it is.
const LOG_PERIOD_MS: u64 = 1000;

/// How far a start has come.
#[derive(Debug, Default)]
pub struct LoadStats {
    loading: AtomicBool,
    /// When it began, unix milliseconds.
    pub started_ms: AtomicU64,
    /// Bytes of all files.
    pub total_bytes: AtomicU64,
    /// Bytes loaded of them, about.
    pub loaded_bytes: AtomicU64,
    /// Log records applied.
    pub records: AtomicU64,
    /// Bytes of a torn record passed over at the end of the log.
    pub cut_bytes: AtomicU64,
    logged_ms: AtomicU64,
    /// Microseconds to wait before each log record: for tests of what happens meanwhile.
    record_delay_us: AtomicU64,
}

impl LoadStats {
    /// Of a start that begins now.
    pub(super) fn new(config: &Config) -> Self {
        let stats = Self { loading: true.into(), started_ms: clock::now_ms().into(), ..Self::default() };
        stats.logged_ms.store(clock::now_ms(), Ordering::Relaxed);
        stats.configure(config);
        stats
    }

    /// Follows the options that can change meanwhile.
    pub(super) fn configure(&self, config: &Config) {
        self.record_delay_us.store(config.key_load_delay_us, Ordering::Relaxed);
    }

    /// Whether the data are not there yet: what is published is empty.
    pub fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Acquire)
    }

    /// How much is loaded, in per cent.
    pub fn percent(&self) -> f64 {
        let (loaded, total) =
            (self.loaded_bytes.load(Ordering::Relaxed), self.total_bytes.load(Ordering::Relaxed));
        100.0 * loaded.min(total) as f64 / total.max(1) as f64
    }

    /// Counts bytes, and logs now and then.
    pub(super) fn add(&self, bytes: u64) {
        self.loaded_bytes.fetch_add(bytes, Ordering::Relaxed);
        let now_ms = clock::now_ms();
        if self.is_loading() && now_ms >= self.logged_ms.load(Ordering::Relaxed) + LOG_PERIOD_MS {
            self.logged_ms.store(now_ms, Ordering::Relaxed);
            let records = self.records.load(Ordering::Relaxed);
            info!("loading: {:.0} % done, {records} log records replayed", self.percent());
        }
    }

    /// Counts a log record that is about to be applied.
    pub(super) fn add_record(&self, bytes: u64) {
        let delay_us = self.record_delay_us.load(Ordering::Relaxed);
        if delay_us > 0 {
            std::thread::sleep(Duration::from_micros(delay_us));
        }
        self.records.fetch_add(1, Ordering::Relaxed);
        self.add(bytes);
    }
}

/// What the writer's thread begins with.
pub(super) struct Loader {
    pub disk: Arc<dyn Disk>,
    pub config: Config,
    pub published: Arc<ArcSwap<Snapshot>>,
    pub maintenance: Sender<Task>,
    pub messages: Sender<Message>,
    pub writes: Arc<WriterStats>,
    pub checkpoints: Arc<CheckpointStats>,
    pub load: Arc<LoadStats>,
}

impl Loader {
    /// Loads, tells how it went, and then works as the writer.
    pub fn run(self, messages: &Receiver<Message>, loaded: oneshot::Sender<Result<(), StoreError>>) {
        let load = Arc::clone(&self.load);
        match self.load() {
            Ok(writer) => {
                load.loading.store(false, Ordering::Release);
                drop(loaded.send(Ok(())));
                writer.run(messages);
            }
            Err(error) => drop(loaded.send(Err(error))),
        }
    }

    fn load(self) -> Result<Writer, StoreError> {
        let recovered = recovery::recover(&*self.disk, &self.load)?;
        let of_keys = || recovered.snapshot.collections().filter(|(namespace, ..)| !namespace.holds_fields());
        let elements: usize = of_keys().map(|(_, _, collection)| collection.len()).sum();
        let took_ms = clock::now_ms().saturating_sub(self.load.started_ms.load(Ordering::Relaxed));
        let keys = of_keys().count();
        let records = self.load.records.load(Ordering::Relaxed);
        info!(
            "data loaded in {took_ms} ms: {keys} keys, {elements} elements, {records} log records replayed"
        );
        if let Some(manifest) = &recovered.manifest {
            self.checkpoints.sequence.store(manifest.sequence, Ordering::Relaxed);
            self.checkpoints.last_s.store(manifest.created_ms / 1000, Ordering::Relaxed);
        }
        self.writes.log_bytes.store(recovered.replayed_bytes, Ordering::Relaxed);
        self.published.store(Arc::new(recovered.snapshot));
        let Self { disk, config, published, maintenance, messages, writes, checkpoints, .. } = self;
        Ok(Writer::new(disk, published, &config, maintenance, messages, writes, checkpoints)?)
    }
}
