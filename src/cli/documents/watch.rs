//! `vecdis watch`: a collection that equals a folder.
//!
//! The folder is looked through again and again: that works on every file system, misses nothing, and needs no memory of what
//! was there before a restart, because the server knows its documents and leaves unchanged ones alone. A file is sent when it
//! has stayed the same from one look to the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::super::arguments::{Arguments, Subcommand};
use super::super::interrupt::Interrupt;
use super::super::remote::Place;
use super::super::{CliError, print};
use super::folder::{FileMet, Unreadable, kind, read, scan};
use super::{Document, Documents, Kept, splitting};

/// Documents sent together, at most, and their bytes, about.
const BATCH_DOCUMENTS: usize = 64;
const BATCH_BYTES: usize = 4 << 20;
/// Milliseconds between two looks.
const DEFAULT_INTERVAL_MS: u64 = 500;
const MAX_INTERVAL_MS: u64 = 3_600_000;
/// A file that has been written so shortly before may be written again without its time telling.
const SETTLED: Duration = Duration::from_millis(100);
/// The exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;
/// How often Ctrl-C is looked for, and how long a server that does not answer is left alone.
const STEP: Duration = Duration::from_millis(50);
const RECONNECT: Duration = Duration::from_millis(500);
/// How long a refused file is left alone: longer each time, since every try embeds it.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(1);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(60);

pub(in super::super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "watch",
    words: &["FOLDER", "KEY"],
    values: &[],
    optional: &[
        ("--server", "HOST:PORT"),
        ("--prefix", "PREFIX"),
        ("--chunk", "TOKENS"),
        ("--overlap", "TOKENS"),
        ("--interval-ms", "MS"),
    ],
    flags: &["--once"],
    summary: "keep a collection in step with the files of a folder",
    text: "Every .txt, .md (.markdown) and .html (.htm) file below FOLDER is a document of the collection KEY on the server at HOST:PORT
(127.0.0.1:6379), by its name below FOLDER behind PREFIX. Files that come, change, move and go are followed until Ctrl-C;
with --once the collection is brought in step and that is all. Documents whose names could be those of files of FOLDER and
are not are removed; others, such as pages brought by vecdis fetch, are left alone: give folders that share a collection a
PREFIX each. Hidden files, links, files of more than 16 MiB and files that are not UTF-8 are left out.

The folder is looked through every MS milliseconds (500), and a file is sent when it has stayed the same in between. When the
server goes away, it is asked again until it answers, and everything is compared anew.

The exit code is 1 if --once leaves out files that the server refused for now. A password stands in the URL, or in the
variable REDISCLI_AUTH.
",
    failure_code: 1,
    run: watch,
};

/// What one round has done.
#[derive(Default)]
struct Round {
    kept: u64,
    removed: u64,
    refused: u64,
}

struct Watch {
    place: Place,
    key: String,
    folder: PathBuf,
    prefix: String,
    options: Vec<String>,
    once: bool,
    interrupt: Interrupt,
    /// The files that are documents as they are here, or can be none.
    known: BTreeMap<String, FileMet>,
    /// Files that the server refused for now: when to try again, and the pause before.
    refused: BTreeMap<String, (Instant, Duration)>,
    /// The files of the last look.
    last: BTreeMap<String, FileMet>,
}

fn watch(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let interval_ms = arguments.number("--interval-ms", DEFAULT_INTERVAL_MS, 1, MAX_INTERVAL_MS)?;
    let mut watch = Watch {
        place: Place::parse(arguments.value("--server").unwrap_or_default())?,
        key: arguments.word(1).to_owned(),
        folder: arguments.path(0),
        prefix: arguments.value("--prefix").unwrap_or_default().to_owned(),
        options: splitting(arguments),
        once: arguments.has("--once"),
        interrupt: Interrupt::watch(),
        known: BTreeMap::new(),
        refused: BTreeMap::new(),
        last: BTreeMap::new(),
    };
    watch.look()?;
    if watch.once {
        let mut documents = watch.connect()?;
        let round = watch.align(&mut documents)?;
        watch.tell(&round)?;
        let interrupted = watch.interrupt.has_come().then_some(INTERRUPTED);
        return Ok(ExitCode::from(interrupted.unwrap_or(u8::from(round.refused > 0))));
    }
    // A wrong server or password is told at once, not tried for ever.
    let mut documents = Some(watch.connect()?);
    let mut is_aligned = false;
    while !watch.interrupt.has_come() {
        if let Err(error) = watch.step(&mut documents, &mut is_aligned) {
            warn(&watch.place.name(), &error);
            (documents, is_aligned) = (None, false);
            watch.pause(RECONNECT);
        }
        watch.pause(Duration::from_millis(interval_ms));
    }
    print(&format!("{}: watching has ended\n", watch.key))
}

fn warn(what: &str, why: &dyn std::fmt::Display) {
    // Nobody reads it if standard error is closed.
    let _ = writeln!(std::io::stderr(), "vecdis: {what}: {why}");
}

impl Watch {
    fn connect(&self) -> Result<Documents, CliError> {
        Documents::open(&self.place, &self.key, self.options.clone())
    }

    fn look(&mut self) -> Result<(), CliError> {
        self.last = scan(&self.folder).map_err(CliError::io("cannot read the folder"))?;
        Ok(())
    }

    fn pause(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.interrupt.has_come() {
            let step = left.min(STEP);
            std::thread::sleep(step);
            left -= step;
        }
    }

    fn tell(&self, round: &Round) -> Result<(), CliError> {
        let Round { kept, removed, refused } = round;
        let refused = if *refused > 0 { format!(", {refused} refused for now") } else { String::new() };
        print(&format!("{}: {kept} documents kept, {removed} removed{refused}\n", self.key)).map(drop)
    }

    /// Follows what has changed since the last look.
    fn step(&mut self, documents: &mut Option<Documents>, is_aligned: &mut bool) -> Result<(), CliError> {
        let open = match documents {
            Some(open) => open,
            None => documents.insert(self.connect()?),
        };
        let round = match *is_aligned {
            true => self.follow(open)?,
            false => self.align(open)?,
        };
        if !*is_aligned || round.kept + round.removed > 0 {
            self.tell(&round)?;
        }
        *is_aligned = true;
        Ok(())
    }

    /// Whether a document's name could be that of a file of the folder.
    fn is_own(&self, uri: &str) -> bool {
        let name = uri.strip_prefix(&self.prefix);
        name.is_some_and(|name| kind(name).is_some() && !name.contains("://") && !name.starts_with('/'))
    }

    /// Brings the collection in step with the files there are, whatever it holds.
    fn align(&mut self, documents: &mut Documents) -> Result<Round, CliError> {
        self.known.clear();
        self.refused.clear();
        self.look()?;
        let files = self.last.clone();
        let there = documents.list()?;
        let gone = there.into_iter().filter(|uri| {
            self.is_own(uri) && uri.strip_prefix(&self.prefix).is_none_or(|name| !files.contains_key(name))
        });
        let gone: Vec<String> = gone.collect();
        let mut round = Round { removed: documents.remove(&gone)?, ..Round::default() };
        self.send(documents, files.into_iter().collect(), &mut round)?;
        Ok(round)
    }

    /// Sends the files that differ from what is known and are as they were at the last look, and removes those that are gone.
    fn follow(&mut self, documents: &mut Documents) -> Result<Round, CliError> {
        let before = std::mem::take(&mut self.last);
        self.look()?;
        // Those that were not settled or refused are not known, and may be there all the same.
        let met = self.known.keys().chain(before.keys());
        let gone: BTreeSet<&String> = met.filter(|name| !self.last.contains_key(*name)).collect();
        let gone: Vec<String> = gone.into_iter().cloned().collect();
        let uris: Vec<String> = gone.iter().map(|name| format!("{}{name}", self.prefix)).collect();
        let mut round = Round { removed: documents.remove(&uris)?, ..Round::default() };
        for name in &gone {
            self.known.remove(name);
            self.refused.remove(name);
        }
        let changed = self
            .last
            .iter()
            .filter(|(name, file)| self.known.get(*name) != Some(file) && before.get(*name) == Some(file))
            .filter(|(name, _)| self.refused.get(*name).is_none_or(|(until, _)| *until <= Instant::now()));
        let changed = changed.map(|(name, file)| (name.clone(), file.clone())).collect();
        self.send(documents, changed, &mut round)?;
        Ok(round)
    }

    fn send(
        &mut self,
        documents: &mut Documents,
        files: Vec<(String, FileMet)>,
        round: &mut Round,
    ) -> Result<(), CliError> {
        let (mut batch, mut files_of_batch, mut bytes) = (Vec::new(), Vec::new(), 0);
        for (name, file) in files {
            if self.interrupt.has_come() {
                break;
            }
            let uri = format!("{}{name}", self.prefix);
            let written = file.stamp.0.and_then(|time| time.elapsed().ok());
            let is_settled = written.is_none_or(|since| since > SETTLED);
            match read(&file.path) {
                Ok(text) => {
                    bytes += text.len();
                    batch.push(Document { uri, kind: kind(&name).unwrap_or("txt"), text, attributes: None });
                    files_of_batch.push((name, file, is_settled));
                }
                // The next look will tell.
                Err(Unreadable::Gone) => {}
                Err(Unreadable::Unfit(why)) => {
                    round.removed += documents.remove(&[uri])?;
                    warn(&shown(&file.path), &why);
                    self.known.insert(name, file);
                }
                Err(Unreadable::Refused(error)) => {
                    round.refused += 1;
                    warn(&shown(&file.path), &error);
                }
            }
            if batch.len() >= BATCH_DOCUMENTS || bytes >= BATCH_BYTES {
                self.send_batch(documents, &batch, std::mem::take(&mut files_of_batch), round)?;
                (batch, bytes) = (Vec::new(), 0);
            }
        }
        self.send_batch(documents, &batch, files_of_batch, round)
    }

    fn send_batch(
        &mut self,
        documents: &mut Documents,
        batch: &[Document],
        files: Vec<(String, FileMet, bool)>,
        round: &mut Round,
    ) -> Result<(), CliError> {
        for (kept, (name, file, is_settled)) in documents.keep(batch)?.into_iter().zip(files) {
            match kept {
                Kept::Yes(_) => round.kept += 1,
                Kept::Never(why) => warn(&shown(&file.path), &why),
                Kept::NotNow(why) => {
                    round.refused += 1;
                    warn(&shown(&file.path), &why);
                    let pause = self.refused.get(&name).map_or(REFUSED_PAUSE_MIN, |(_, pause)| *pause * 2);
                    let pause = pause.min(REFUSED_PAUSE_MAX);
                    self.refused.insert(name, (Instant::now() + pause, pause));
                    continue;
                }
            }
            self.refused.remove(&name);
            if is_settled {
                self.known.insert(name, file);
            }
        }
        Ok(())
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
