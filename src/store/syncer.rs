//! `appendfsync everysec`: a thread that makes the log durable once a second while the writer goes on.
//!
//! A failed sync is remembered by the log itself, whose writer meets it at its next record.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::error;

use crate::disk::log::LogSyncer;

const PERIOD: Duration = Duration::from_secs(1);

struct Shared {
    file: Mutex<LogSyncer>,
    /// Something was written since the last sync began.
    dirty: AtomicBool,
    stopped: AtomicBool,
}

/// Handle of the thread; the thread ends when the handle is dropped.
pub struct Syncer(Arc<Shared>);

impl Syncer {
    /// Starts syncing a file.
    pub fn start(file: LogSyncer) -> Self {
        let shared = Arc::new(Shared {
            file: Mutex::new(file),
            dirty: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        });
        let thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            while !thread.stopped.load(Ordering::Relaxed) {
                std::thread::sleep(PERIOD);
                thread.sync();
            }
        });
        Self(shared)
    }

    /// Something was written.
    pub fn wrote(&self) {
        self.0.dirty.store(true, Ordering::Release);
    }

    /// Goes on with another file; the old one has been synced.
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
    fn sync(&self) {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = file.sync() {
            error!("the append log could not be synced: {error}");
        }
    }
}
