//! `vecdis check`: reads everything in a data folder and says whether it is sound.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::arguments::{Arguments, Subcommand};
use super::progress::Progress;
use super::{CliError, backup, print};
use crate::disk::image::Image;
use crate::disk::{Disk, DiskError, RealDisk};
use crate::store::StoreError;
use crate::store::survey::{self, Damage, Survey};

/// The exit code for damage.
pub(super) const DAMAGED: u8 = 1;
/// Names of elements shown for one damage.
const MAX_SHOWN_ELEMENTS: usize = 10;

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "check",
    words: &["DIR"],
    values: &[],
    optional: &[],
    flags: &["--json"],
    summary: "verify everything in a data folder or a backup; changes nothing",
    text: "Reads manifest, state file, chunk files with all originals, and the log, and loads them as a start would. Each
problem is told with its file and, where it is known, the byte, the key and the elements.

DIR may also be a backup file. While a server runs on the folder, what it has written so far is checked.
--json prints one JSON object instead of text.

Exit code: 0 sound, 1 damaged, 2 cannot be read. It takes as much memory as a start.
",
    failure_code: 2,
    run,
};

fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let source = arguments.path(0);
    let (survey, size_bytes, beside_server) = match open(&source) {
        Ok((disk, beside_server)) => {
            let (survey, size_bytes) = read(&*disk, "checking", false)?;
            (survey, size_bytes, beside_server)
        }
        // A backup that is damaged, or what a server has just written.
        Err(CliError::Disk(DiskError::Corrupt { file, offset, what })) => {
            let damage = Damage { file, offset: Some(offset), what, ..Damage::default() };
            (Survey { damages: vec![damage], ..Survey::default() }, 0, false)
        }
        Err(other) => return Err(other),
    };
    let report = Report { source: &source, beside_server, survey: &survey, size_bytes };
    print(&if arguments.has("--json") { format!("{:#}\n", report.json()) } else { report.text() })?;
    Ok(ExitCode::from(if survey.damages.is_empty() { 0 } else { DAMAGED }))
}

/// The files of a data folder or a backup; true if a server is running there.
fn open(source: &Path) -> Result<(Box<dyn Disk>, bool), CliError> {
    if source.is_file() {
        return Ok((Box::new(backup::open(source)?), false));
    }
    match RealDisk::open_read_only(source) {
        Ok(disk) => Ok((Box::new(disk), false)),
        Err(DiskError::Locked { .. }) => {
            Ok((Box::new(Image::capture(&RealDisk::open_beside_server(source)?)?), true))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads everything; also gives the bytes there are.
pub(super) fn read(
    disk: &dyn Disk,
    doing: &'static str,
    skip_damaged: bool,
) -> Result<(Survey, u64), StoreError> {
    let size_bytes = survey::own_files(disk)?.iter().map(|(_, len_bytes)| len_bytes).sum();
    let progress = Progress::new(doing, size_bytes);
    let survey = survey::survey(disk, skip_damaged, &mut |bytes| progress.add(bytes))?;
    Ok((survey, size_bytes))
}

struct Report<'a> {
    source: &'a Path,
    beside_server: bool,
    survey: &'a Survey,
    size_bytes: u64,
}

impl Report<'_> {
    fn text(&self) -> String {
        let survey = self.survey;
        let (keys, elements, rows) = counts(survey);
        let mut text = format!(
            "{}: {} files, {} bytes\ncheckpoint at record {}, {} log records after it\n{keys} keys, {elements} elements in \
             {rows} rows\n",
            self.source.display(),
            survey.files,
            self.size_bytes,
            survey.checkpoint_sequence,
            survey.records,
        );
        if self.beside_server {
            text.push_str("note: a server is running there; checked is what it had written at one moment\n");
        }
        for note in &survey.notes {
            let _ = writeln!(text, "note: {note}");
        }
        text.push_str(&damages_text(&survey.damages));
        text.push_str(&match survey.damages.len() {
            0 => "sound\n".to_owned(),
            count => format!("damaged: {count} problems\n"),
        });
        text
    }

    fn json(&self) -> Value {
        let survey = self.survey;
        let (keys, elements, rows) = counts(survey);
        json!({
            "source": self.source.display().to_string(),
            "sound": survey.damages.is_empty(),
            "server_running": self.beside_server,
            "files": survey.files,
            "size_bytes": self.size_bytes,
            "checkpoint_sequence": survey.checkpoint_sequence,
            "log_records": survey.records,
            "skipped_log_records": survey.skipped_records,
            "keys": keys,
            "elements": elements,
            "rows": rows,
            "notes": survey.notes,
            "damages": survey.damages.iter().map(damage_json).collect::<Vec<_>>(),
        })
    }
}

fn damage_json(damage: &Damage) -> Value {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    json!({
        "file": damage.file,
        "offset": damage.offset,
        "what": damage.what,
        "key": damage.key.as_ref().map(|key| text(key)),
        "elements": damage.elements.iter().map(|name| text(name)).collect::<Vec<_>>(),
    })
}

/// Keys, elements and rows.
pub(super) fn counts(survey: &Survey) -> (usize, usize, usize) {
    let of_keys = || survey.snapshot.collections().filter(|(namespace, ..)| !namespace.holds_fields());
    let collections = || of_keys().map(|(_, _, collection)| collection);
    let elements = collections().map(|collection| collection.len()).sum();
    let rows = collections().map(|collection| collection.rows()).sum();
    (collections().count(), elements, rows)
}

/// A line for each damage.
pub(super) fn damages_text(damages: &[Damage]) -> String {
    let mut text = String::new();
    for damage in damages {
        let at = damage.offset.map_or(String::new(), |offset| format!(" at byte {offset}"));
        let key = damage.key.as_ref().map_or(String::new(), |key| format!(" (key {})", key.escape_ascii()));
        let _ = write!(text, "damage: {}{at}{key}: {}", damage.file, damage.what);
        for (index, name) in damage.elements.iter().take(MAX_SHOWN_ELEMENTS).enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            let _ = write!(text, "{before}{}", name.escape_ascii());
        }
        text.push_str(if damage.elements.len() > MAX_SHOWN_ELEMENTS { ", ...\n" } else { "\n" });
    }
    text
}
