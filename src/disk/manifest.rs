//! The manifest: the one small file that says which state file and which chunk files make up the last
//! checkpoint. A checkpoint counts from the moment its manifest has replaced the one before.

use super::format::{CONTAINER_HEADER_BYTES, MANIFEST, MANIFEST_FILE, decode, encode};
use super::tmp_file::TmpFile;
use super::{Disk, DiskError, Pin};

/// The manifest as the program uses it.
pub type Manifest = ManifestV1;

/// The manifest as it is on disk, version 1.
#[derive(Clone, Debug, PartialEq, Eq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
pub struct ManifestV1 {
    /// The last log sequence whose change the checkpoint holds.
    pub sequence: u64,
    /// Name of the state file.
    pub state_file: String,
    /// Pin of the state file.
    pub state_pin: Pin,
    /// Names and pins of the chunk files.
    pub chunk_files: Vec<(String, Pin)>,
    /// When the checkpoint was taken, in milliseconds since 1970.
    pub created_ms: u64,
}

/// Reads the manifest; `None` if there is none, as in a new folder.
///
/// # Errors
/// [`DiskError::Corrupt`], [`DiskError::Newer`], [`DiskError::Io`].
pub fn load(disk: &dyn Disk) -> Result<Option<Manifest>, DiskError> {
    let bytes = match disk.read(MANIFEST_FILE) {
        Err(error) if error.is_not_found() => return Ok(None),
        other => other?,
    };
    decode(&bytes).map(Some)
}

/// The manifest in the bytes of its file.
///
/// # Errors
/// [`DiskError::Corrupt`], [`DiskError::Newer`].
pub(super) fn decode(bytes: &[u8]) -> Result<Manifest, DiskError> {
    let (payload, _) = MANIFEST.open_container(MANIFEST_FILE, bytes)?;
    let end = CONTAINER_HEADER_BYTES + payload.len();
    if end != bytes.len() {
        return Err(DiskError::corrupt(MANIFEST_FILE, end as u64, "bytes after the end"));
    }
    decode!(ManifestV1, MANIFEST_FILE, CONTAINER_HEADER_BYTES, payload)
}

/// Replaces the manifest, durably. The files it names must be durable before.
///
/// # Errors
/// [`DiskError::Io`]. After an error it is not known which manifest a restart will find, so the files of both
/// must stay.
pub fn store(disk: &dyn Disk, manifest: &Manifest) -> Result<(), DiskError> {
    let (bytes, _) = MANIFEST.container(&encode!(MANIFEST_FILE, manifest)?);
    let mut file = TmpFile::create(disk, MANIFEST_FILE)?;
    file.write(&bytes)?;
    file.publish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::sim::SimDisk;
    use super::*;

    fn manifest(sequence: u64) -> Manifest {
        Manifest {
            sequence,
            state_file: "state-00000000000000000005.vds".to_owned(),
            state_pin: [7; 32],
            chunk_files: vec![
                ("chunks/1.vdc".to_owned(), [1; 32]),
                ("chunks/a-longer-name.vdc".to_owned(), [2; 32]),
            ],
            created_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn the_last_one_stored_is_the_one_loaded() {
        let disk = SimDisk::new();
        assert_eq!(load(&disk).unwrap(), None);
        store(&disk, &manifest(5)).unwrap();
        store(&disk, &manifest(6)).unwrap();
        assert_eq!(load(&disk).unwrap(), Some(manifest(6)));
    }

    #[test]
    fn a_failed_store_leaves_the_one_before() {
        let disk = SimDisk::new();
        store(&disk, &manifest(5)).unwrap();
        disk.fail_syncs(true);
        assert!(store(&disk, &manifest(6)).is_err());
        disk.fail_syncs(false);
        disk.fail_writes(true);
        assert!(store(&disk, &manifest(6)).is_err());
        assert_eq!(load(&disk).unwrap(), Some(manifest(5)));
        assert_eq!(disk.list("").unwrap(), [MANIFEST_FILE]);
    }

    #[test]
    fn any_change_is_detected() {
        let disk = SimDisk::new();
        store(&disk, &manifest(5)).unwrap();
        let bytes = disk.read(MANIFEST_FILE).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            disk.put(MANIFEST_FILE, &flipped);
            assert!(matches!(load(&disk), Err(DiskError::Corrupt { .. })), "bit {bit}");
        }
        for len in 0..bytes.len() {
            disk.put(MANIFEST_FILE, &bytes[..len]);
            assert!(matches!(load(&disk), Err(DiskError::Corrupt { .. })), "length {len}");
        }
        disk.put(MANIFEST_FILE, &[&bytes[..], &[0]].concat());
        assert!(load(&disk).is_err());
    }

    #[test]
    fn a_bad_encoding_with_a_good_hash_and_a_newer_version_are_refused() {
        let disk = SimDisk::new();
        let (mut bytes, _) = MANIFEST.container(&[0xff; 100]);
        disk.put(MANIFEST_FILE, &bytes);
        assert!(matches!(load(&disk), Err(DiskError::Corrupt { offset: 64, .. })));
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        disk.put(MANIFEST_FILE, &bytes);
        let error = load(&disk).unwrap_err();
        assert!(matches!(error, DiskError::Newer { version: 2, .. }));
        assert!(error.to_string().contains("newer than this program"));
    }
}
