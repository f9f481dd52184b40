//! `vecdis repair`: writes what can be proved good of a data folder to a new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::{Arguments, Subcommand};
use super::check::{counts, damages_text, read};
use super::progress::Progress;
use super::{CliError, print};
use crate::disk::RealDisk;
use crate::store;

const SKIP_DAMAGED: &str = "--skip-damaged";

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "repair",
    words: &["DIR"],
    values: &[("--to", "NEW")],
    optional: &[],
    flags: &[SKIP_DAMAGED],
    summary: "write what is good of a damaged data folder to a new one",
    text: "DIR is not changed; no server may run on it. NEW must be empty or not be there. What is lost is listed, and NEW is
checked in the end: a server starts from it.

What is kept:
  - Every entry of the state file that its hashes prove. A collection is a first entry and pieces of it: a damaged piece
    costs what it held (elements, documents, sparse vectors, expiries, or attributes set since their elements were written
    to a chunk file, which get their older ones back), a damaged first entry the collection. Without a manifest that can
    be read, the newest state file that is whole in itself counts; if none is, the newest.
  - Of a damaged chunk file the elements whose names and vectors are whole: codes are made anew from the originals, and
    attributes that cannot be read are lost alone.
  - The log after the checkpoint, in its order, up to the first record that is lost. It is newer than anything lost with
    the checkpoint, so it is applied whatever was lost there.
--skip-damaged applies the good records after a lost one too. They may depend on what is lost: if a removal is lost, its
element is back; if an addition is lost, its element is missing, and attributes set later are not applied.
",
    failure_code: 1,
    run,
};

fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let (source, target) = (arguments.path(0), arguments.value_path("--to"));
    let disk = RealDisk::open_read_only(&source)?;
    refuse_target(&source, &target)?;
    let (survey, size_bytes) = read(&disk, "reading", arguments.has(SKIP_DAMAGED))?;
    let mut text = damages_text(&survey.damages);
    for note in &survey.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    if survey.skipped_records > 0 {
        text.push_str(&format!(
            "{} good log records after a lost one are left out; {SKIP_DAMAGED} applies them\n",
            survey.skipped_records
        ));
    }
    print(&text)?;
    let (keys, elements, _) = counts(&survey);
    let written = RealDisk::open(&target)?;
    {
        let progress = Progress::new("writing", size_bytes);
        store::write_copy(&written, survey.snapshot, &mut |bytes| progress.add(bytes))?;
    }
    let (again, _) = read(&written, "checking", false)?;
    let (keys_again, elements_again, _) = counts(&again);
    if !again.damages.is_empty() || (keys_again, elements_again) != (keys, elements) {
        let why = damages_text(&again.damages);
        return Err(CliError::Usage(format!("what was written to {} is not sound: {why}", target.display())));
    }
    print(&format!("{}: {keys} keys, {elements} elements written, sound\n", target.display()))
}

/// Refuses a folder that holds something, or that lies inside the source.
fn refuse_target(source: &Path, target: &Path) -> Result<(), CliError> {
    refuse_filled(target)?;
    refuse_inside(source, target)
}

/// Refuses a file or folder that lies inside the source.
pub(super) fn refuse_inside(source: &Path, target: &Path) -> Result<(), CliError> {
    let resolve = |path: &Path| resolve(path).map_err(CliError::io("cannot find the folder"));
    if resolve(target)?.starts_with(resolve(source)?) {
        let (target, source) = (target.display(), source.display());
        return Err(CliError::Usage(format!("{target} lies inside {source}, which must not be changed")));
    }
    Ok(())
}

/// Refuses a folder that holds something.
pub(super) fn refuse_filled(target: &Path) -> Result<(), CliError> {
    match fs::read_dir(target).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => {
            Err(CliError::Usage(format!("{} is not empty; a new folder is needed", target.display())))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(CliError::io("cannot read the new folder")(error)),
    }
}

/// The path without links and dots, of which the last parts need not be there yet.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(path)?;
            match (absolute.parent(), absolute.file_name()) {
                (Some(parent), Some(name)) => Ok(resolve(parent)?.join(name)),
                _ => Err(error),
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_inside_the_source_is_found_through_links_and_dots() {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("source");
        fs::create_dir(&source).unwrap();
        std::os::unix::fs::symlink(&source, root.path().join("link")).unwrap();
        for inside in ["source/new", "source/a/b", "link/new", "link/../source/new", "./source/./new"] {
            assert!(refuse_target(&source, &root.path().join(inside)).is_err(), "{inside}");
        }
        for outside in ["new", "source2", "link/../new"] {
            refuse_target(&source, &root.path().join(outside)).unwrap();
        }
        fs::write(root.path().join("file"), "").unwrap();
        assert!(refuse_target(&source, root.path()).is_err(), "it is not empty");
        assert!(refuse_target(&source, &root.path().join("file")).is_err(), "it is no folder");
    }
}
