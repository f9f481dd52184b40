//! Ctrl-C: a long job looks for it between its steps and ends in order. A second one ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it has come.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches from now on, to the end of the process.
    pub fn watch() -> Self {
        let come = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&come);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            // Without it, Ctrl-C ends the process at once.
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                if tokio::signal::ctrl_c().await.is_ok() {
                    shared.store(true, Ordering::Relaxed);
                }
                if tokio::signal::ctrl_c().await.is_ok() {
                    std::process::exit(130);
                }
            });
        });
        Self(come)
    }

    /// Whether it has come.
    pub fn has_come(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
