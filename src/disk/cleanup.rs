//! Removal of our own files that no longer count. Files we do not know are left alone.

use super::format::{CHUNK_FOLDER, is_chunk_name, is_tmp_name, parse_log_name, parse_state_name};
use super::{Disk, DiskError};

/// Removes temporary files, log files that end at or below `checkpoint_sequence`, state files and chunk
/// files, each unless `keep` says that its name (relative to the data folder) is still needed: by the
/// manifest, by a seal or a checkpoint that is being written, or by a backup. Returns the names removed. A
/// file that cannot be removed is left, with a warning.
///
/// # Errors
/// [`DiskError::Io`] if a folder cannot be listed.
pub fn remove_unreferenced(
    disk: &dyn Disk,
    checkpoint_sequence: u64,
    keep: &dyn Fn(&str) -> bool,
) -> Result<Vec<String>, DiskError> {
    let mut names = disk.list("")?;
    let mut logs: Vec<u64> = names.iter().filter_map(|name| parse_log_name(name)).collect();
    logs.sort_unstable();
    // A log file ends where the next one begins; the last one is always needed.
    let first_needed = logs.partition_point(|&first| first <= checkpoint_sequence.saturating_add(1));
    let first_needed = first_needed.checked_sub(1).map(|index| logs[index]);
    names.append(&mut disk.list(CHUNK_FOLDER)?);
    let mut removed = Vec::new();
    for name in names {
        let old_log = parse_log_name(&name).is_some_and(|first| Some(first) < first_needed);
        let ours = is_tmp_name(&name) || is_chunk_name(&name) || parse_state_name(&name).is_some() || old_log;
        if !ours || keep(&name) {
            continue;
        }
        match disk.remove(&name) {
            Ok(()) => removed.push(name),
            Err(error) => tracing::warn!(%error, "could not remove a file that is no longer needed"),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::super::format::{log_name, state_name};
    use super::super::sim::SimDisk;
    use super::*;

    fn folder() -> SimDisk {
        let disk = SimDisk::new();
        disk.create_folder(CHUNK_FOLDER).unwrap();
        disk.create_folder(".tmp-folder").unwrap();
        for first in [1, 5, 9] {
            disk.put(&log_name(first), b"");
        }
        disk.put(&state_name(4, 0), b"");
        disk.put(&state_name(8, 1), b"");
        for name in [
            "manifest",
            "notes.txt",
            "log-1.vdl",
            "state-old.vds",
            ".tmp-manifest",
            "chunks/1.vdc",
            "chunks/2.vdc",
            "chunks/.tmp-3.vdc",
            "chunks/photo.jpg",
        ] {
            disk.put(name, b"");
        }
        disk
    }

    #[test]
    fn only_our_own_files_that_nothing_needs_go() {
        let disk = folder();
        let keep = |name: &str| name == state_name(8, 1) || name == "chunks/2.vdc";
        let mut removed = remove_unreferenced(&disk, 8, &keep).unwrap();
        removed.sort_unstable();
        let mut expected = vec![log_name(1), log_name(5), state_name(4, 0)];
        expected.extend([".tmp-manifest", "chunks/1.vdc", "chunks/.tmp-3.vdc"].map(str::to_owned));
        expected.sort_unstable();
        assert_eq!(removed, expected);
        assert!(disk.list("").unwrap().contains(&"notes.txt".to_owned()));
        assert!(remove_unreferenced(&disk, 8, &keep).unwrap().is_empty());
    }

    #[test]
    fn a_log_goes_only_when_it_is_wholly_below_the_checkpoint() {
        for (checkpoint, left) in [(0, 3), (3, 3), (4, 2), (7, 2), (8, 1), (u64::MAX, 1)] {
            let disk = folder();
            remove_unreferenced(&disk, checkpoint, &|_| false).unwrap();
            let logs = disk.list("").unwrap().iter().filter(|name| parse_log_name(name).is_some()).count();
            assert_eq!(logs, left, "checkpoint {checkpoint}");
        }
    }

    #[test]
    fn what_is_kept_stays_whatever_its_kind() {
        let disk = folder();
        assert!(remove_unreferenced(&disk, 8, &|_| true).unwrap().is_empty());
    }
}
