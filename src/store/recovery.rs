//! Start-up: the last checkpoint, then the records of the log after it.

use std::sync::Arc;

use tracing::{info, warn};

use super::StoreError;
use super::archive::Restorer;
use super::change;
use super::checkpoint::remove_old;
use super::state::{Snapshot, State};
use crate::disk::manifest::{self, Manifest};
use crate::disk::{Disk, replay, state as state_file};

/// Records after which the tables of names catch up during replay.
pub(super) const PUBLISH_EVERY_RECORDS: u64 = 100_000;

/// What start-up found.
pub struct Recovered {
    /// The store's content.
    pub snapshot: Snapshot,
    /// The checkpoint it began from.
    pub manifest: Option<Manifest>,
    /// Log records applied after it.
    pub replayed_records: u64,
    /// Bytes of a torn record that were cut from the end of the log.
    pub cut_bytes: u64,
}

/// Reads everything back.
///
/// # Errors
/// When a file is damaged or of a newer version; nothing is changed on disk then. On a read-only disk nothing is ever.
pub fn recover(disk: &dyn Disk) -> Result<Recovered, StoreError> {
    let manifest = manifest::load(disk)?;
    let snapshot = match &manifest {
        Some(manifest) => {
            let mut restorer = Restorer::new(disk);
            state_file::read_state(disk, &manifest.state_file, &manifest.state_pin, |entry| {
                restorer.entry(entry)
            })?;
            restorer.finish(manifest.sequence)?
        }
        None => Snapshot::default(),
    };
    let from = snapshot.sequence;
    let mut state = State::new(snapshot);
    let mut records = 0;
    let replayed = replay::replay(disk, from, |sequence, payload| -> Result<(), StoreError> {
        for change in change::decode_payload(payload)? {
            state.apply(&change, None);
        }
        state.set_sequence(sequence);
        records += 1;
        if records % PUBLISH_EVERY_RECORDS == 0 {
            state.publish(|_| {});
            info!("{records} log records replayed");
        }
        Ok(())
    })?;
    let mut snapshot = Arc::default();
    state.publish(|published| snapshot = published);
    let cut_bytes = replayed.cut.as_ref().map_or(0, |cut| cut.bytes);
    if let Some(cut) = &replayed.cut {
        let done = if disk.is_read_only() { "are passed over" } else { "were cut" };
        warn!("the last record of {} was torn; {} bytes after {} {done}", cut.file, cut.bytes, cut.offset);
    }
    if !disk.is_read_only() {
        // What a sync before the start failed to make durable is made so before anything relies on it.
        disk.sync_folder("")?;
        if let Some(manifest) = &manifest {
            remove_old(disk, manifest, &snapshot)?;
        }
    }
    let snapshot = Snapshot::clone(&snapshot);
    Ok(Recovered { snapshot, manifest, replayed_records: records, cut_bytes })
}
