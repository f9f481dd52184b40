//! A file that appears under its name only when it is complete and durable.

use super::{Disk, DiskError, DiskFile, format};

/// Small writes are gathered up to this size.
const BUFFER_BYTES: usize = 256 << 10;

/// A file in the making: written as `.tmp-*` beside its final place, then [`TmpFile::publish`]ed. Dropped
/// before that, it is removed.
pub(super) struct TmpFile<'a> {
    disk: &'a dyn Disk,
    name: String,
    tmp_name: String,
    file: Option<Box<dyn DiskFile>>,
    buffer: Vec<u8>,
}

impl<'a> TmpFile<'a> {
    /// Begins the file that will be called `name`. A left-over temporary file of the same name is replaced.
    pub(super) fn create(disk: &'a dyn Disk, name: &str) -> Result<Self, DiskError> {
        let tmp_name = format::tmp_name(name);
        match disk.remove(&tmp_name) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let file = disk.create_new(&tmp_name)?;
        Ok(Self { disk, name: name.to_owned(), tmp_name, file: Some(file), buffer: Vec::new() })
    }

    /// The final name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Appends `bytes`.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() > BUFFER_BYTES {
            return self.write_through(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends `count` zero bytes.
    pub(super) fn write_zeros(&mut self, count: usize) -> Result<(), DiskError> {
        const ZEROS: [u8; format::SECTION_ALIGN] = [0; format::SECTION_ALIGN];
        let mut left = count;
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.write(&ZEROS[..now])?;
            left -= now;
        }
        Ok(())
    }

    /// Makes the content durable, gives the file its final name, and makes the name durable. Returns the open
    /// file.
    pub(super) fn publish(mut self) -> Result<Box<dyn DiskFile>, DiskError> {
        self.flush()?;
        let Some(file) = self.file.take() else {
            return Err(self.gone());
        };
        let published = file
            .sync_data()
            .map_err(|e| DiskError::io(&self.tmp_name, e))
            .and_then(|()| self.disk.rename(&self.tmp_name, &self.name));
        if let Err(error) = published {
            self.file = Some(file); // so that it is removed
            return Err(error);
        }
        self.disk.sync_folder(format::folder_of(&self.name))?;
        Ok(file)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write_through(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    fn write_through(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        match &mut self.file {
            Some(file) if !bytes.is_empty() => {
                file.write_all(bytes).map_err(|e| DiskError::io(&self.tmp_name, e))
            }
            Some(_) => Ok(()),
            None => Err(self.gone()),
        }
    }

    /// The error for a file that was published already; no caller can meet it.
    fn gone(&self) -> DiskError {
        DiskError::io(&self.tmp_name, std::io::ErrorKind::NotFound.into())
    }
}

impl Drop for TmpFile<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Best effort: a temporary file that stays is removed at the next start.
            let _ = self.disk.remove(&self.tmp_name);
        }
    }
}
