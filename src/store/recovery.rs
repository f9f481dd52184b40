//! Start-up: the last checkpoint, then the records of the log after it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tracing::warn;

use super::StoreError;
use super::archive::Restorer;
use super::change;
use super::checkpoint::remove_old;
use super::load::LoadStats;
use super::state::{Snapshot, State};
use super::survey::own_files;
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
    /// Bytes that the log records applied after it take.
    pub replayed_bytes: u64,
}

/// Reads everything back, and tells `load` how far it is.
///
/// # Errors
/// When a file is damaged or of a newer version; nothing is changed on disk then. On a read-only disk nothing is ever.
pub fn recover(disk: &dyn Disk, load: &LoadStats) -> Result<Recovered, StoreError> {
    let total_bytes = own_files(disk)?.iter().map(|(_, len_bytes)| len_bytes).sum();
    load.total_bytes.store(total_bytes, Ordering::Relaxed);
    let manifest = manifest::load(disk)?;
    let snapshot = match &manifest {
        Some(manifest) => {
            let mut restorer = Restorer::new(disk, load);
            state_file::read_state(disk, &manifest.state_file, &manifest.state_pin, |entry| {
                restorer.entry(entry)
            })?;
            restorer.finish(manifest.sequence)?
        }
        None => Snapshot::default(),
    };
    let from = snapshot.sequence;
    let mut state = State::new(snapshot);
    let replayed = replay::replay(disk, from, |sequence, payload| -> Result<(), StoreError> {
        load.add_record(payload.len() as u64);
        for change in change::decode_payload(payload)? {
            if !state.accepts(&change) {
                return Err(StoreError::Misfit { sequence });
            }
            state.apply(&change, None);
        }
        state.set_sequence(sequence);
        if sequence.is_multiple_of(PUBLISH_EVERY_RECORDS) {
            state.publish(|_| {});
        }
        Ok(())
    })?;
    let mut snapshot = Arc::default();
    state.publish(|published| snapshot = published);
    if let Some(cut) = &replayed.cut {
        load.cut_bytes.store(cut.bytes, Ordering::Relaxed);
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
    Ok(Recovered { snapshot, manifest, replayed_bytes: replayed.size_bytes })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::change::{Change, begin_payload};
    use super::super::state::{Key, NamespaceId};
    use super::*;
    use crate::collection::{AttributeChange, Params, TextChange};
    use crate::disk::log::LogWriter;
    use crate::disk::sim::SimDisk;
    use crate::vector::{Layout, Metric, Quantization};

    fn add(dim: usize) -> Vec<u8> {
        let layout = Layout { dim, metric: Metric::Cosine, quantization: Quantization::Int8 };
        let change = Change::Add {
            namespace: NamespaceId(0),
            key: Key::new(Bytes::from_static(b"k")),
            params: Params::new(layout),
            element: Bytes::from_static(b"e"),
            vector: vec![1.0; dim],
            attributes: AttributeChange::Keep,
            text: TextChange::Keep,
            model: None,
        };
        let mut payload = Vec::new();
        begin_payload(&mut payload);
        change.encode(&mut payload);
        payload
    }

    #[test]
    fn a_good_record_with_a_vector_that_does_not_fit_refuses() {
        let disk = SimDisk::new();
        let mut log = LogWriter::create(&disk, 1).unwrap();
        for payload in [add(3), add(4)] {
            log.append(&payload).unwrap();
        }
        log.write().unwrap();
        let error = recover(&disk, &LoadStats::default()).err().unwrap();
        assert!(matches!(error, StoreError::Misfit { sequence: 2 }), "{error}");
    }
}
