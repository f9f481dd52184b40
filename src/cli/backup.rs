//! `vecdis backup` and `vecdis restore`: a data folder in one file, and back.

use std::path::Path;
use std::process::ExitCode;

use super::arguments::{Arguments, Subcommand};
use super::progress::Progress;
use super::repair::{refuse_filled, refuse_inside};
use super::{CliError, print};
use crate::disk::image::Image;
use crate::disk::{DiskError, RealDisk, backup};

pub(super) const BACKUP: Subcommand = Subcommand {
    name: "backup",
    words: &["DIR"],
    values: &[("--to", "FILE")],
    optional: &[],
    flags: &[],
    summary: "write a data folder to one file, also while a server runs on it",
    text: "The backup is the folder at one moment: the last checkpoint and the log records written since. Beside a running server
that is everything it has answered before the backup began, and perhaps some of what it answered meanwhile, without
gaps. With appendonly no it is the last checkpoint.

Everything is verified before it is written; damage is told and no backup is made. FILE must not exist; it appears
complete or not at all. vecdis check FILE verifies a backup.
",
    failure_code: 1,
    run: back_up,
};

pub(super) const RESTORE: Subcommand = Subcommand {
    name: "restore",
    words: &["FILE"],
    values: &[("--to", "DIR")],
    optional: &[],
    flags: &[],
    summary: "make a data folder from a backup",
    text: "DIR must be empty or not be there. The whole backup is verified before anything is written. A restore that was
interrupted leaves a folder that no server starts from: remove it and begin again.
",
    failure_code: 1,
    run: restore,
};

fn back_up(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let (source, target) = (arguments.path(0), arguments.value_path("--to"));
    refuse_inside(&source, &target)?;
    if target.symlink_metadata().is_ok() {
        return Err(CliError::Usage(format!("{} is there already", target.display())));
    }
    let disk = match RealDisk::open_read_only(&source) {
        Err(DiskError::Locked { .. }) => RealDisk::open_beside_server(&source)?,
        other => other?,
    };
    let image = Image::capture(&disk)?;
    let (files, size_bytes) = size(&image);
    if files == 0 {
        return Err(CliError::Usage(format!("{} holds no data", source.display())));
    }
    {
        let progress = Progress::new("verifying", size_bytes);
        backup::verify(&image, &mut |bytes| progress.add(bytes))?;
    }
    let (folder, name) = split(&target)?;
    backup::write(&folder, &name, &image)?;
    print(&format!("{}: {files} files, {size_bytes} bytes\n", target.display()))
}

fn restore(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let (source, target) = (arguments.path(0), arguments.value_path("--to"));
    refuse_filled(&target)?;
    let image = open(&source)?;
    let (files, size_bytes) = size(&image);
    let progress = Progress::new("restoring", 2 * size_bytes);
    backup::verify(&image, &mut |bytes| progress.add(bytes))?;
    backup::restore(&RealDisk::open(&target)?, &image, &mut |bytes| progress.add(bytes))?;
    drop(progress);
    print(&format!("{}: {files} files, {size_bytes} bytes restored\n", target.display()))
}

/// Opens a backup file, verified.
pub(super) fn open(file: &Path) -> Result<Image, CliError> {
    let (folder, name) = split(file)?;
    Ok(backup::open(&folder, &name)?)
}

fn size(image: &Image) -> (usize, u64) {
    (image.files().count(), image.files().map(|(_, bytes)| bytes.len() as u64).sum())
}

/// The folder of a file, and its name.
fn split(file: &Path) -> Result<(RealDisk, String), CliError> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name =
        name.ok_or_else(|| CliError::Usage(format!("{} is not the name of a file", file.display())))?;
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((RealDisk::open_unlocked(parent.unwrap_or(Path::new(".")))?, name.to_owned()))
}
