//! `appendfsync everysec`: a thread that makes the log durable once a second while the writer goes on.
//!
//! A failed sync is remembered by the log itself; its writer is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::writer::{Message, WriterStats};
use crate::disk::DiskError;
use crate::disk::log::LogSyncer;

/// Time from the begin of a sync to that of the next, if it does not take longer. A power cut loses at most what came since
/// the begin of the last sync that ended: this and the time of the one under way.
const PERIOD: Duration = Duration::from_secs(1);

struct Shared {
    file: Mutex<LogSyncer>,
    /// Something was written since the last sync began.
    dirty: AtomicBool,
    stopped: AtomicBool,
    stats: Arc<WriterStats>,
}

/// Handle of the thread; the thread ends when the handle is dropped.
pub struct Syncer(Arc<Shared>);

impl Syncer {
    /// Starts syncing a file. A failure is told to the writer.
    pub fn start(file: LogSyncer, writer: Sender<Message>, stats: Arc<WriterStats>) -> Self {
        let shared = Arc::new(Shared {
            file: Mutex::new(file),
            dirty: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            stats,
        });
        let thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            let mut took = Duration::ZERO;
            while !thread.stopped.load(Ordering::Relaxed) {
                std::thread::sleep(PERIOD.saturating_sub(took));
                let begin = Instant::now();
                if thread.sync().is_err() {
                    // A writer that has stopped writes nothing more.
                    drop(writer.send(Message::SyncFailed));
                }
                took = begin.elapsed();
            }
        });
        Self(shared)
    }

    /// Something was written.
    pub fn wrote(&self) {
        self.0.dirty.store(true, Ordering::Release);
    }

    /// Goes on with another file; the old one has been synced or given up.
    pub fn replace(&self, file: LogSyncer) {
        *self.0.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn sync(&self) -> Result<(), DiskError> {
        if self.dirty.swap(false, Ordering::AcqRel) {
            let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            self.stats.synced.fetch_max(file.sync()?, Ordering::Relaxed);
        }
        Ok(())
    }
}
