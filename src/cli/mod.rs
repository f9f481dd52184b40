//! What the command line asks for besides serving: help, the version, the subcommands.

mod arguments;
mod backup;
mod bench;
mod check;
pub mod child;
pub mod client;
mod commands;
pub mod demo;
mod documents;
mod interrupt;
mod model;
mod ping;
mod progress;
mod recall;
mod remote;
mod repair;
pub mod sentences;
mod transfer;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use thiserror::Error;

use crate::config::OPTIONS;
use crate::disk::DiskError;
use crate::store::StoreError;
use arguments::Subcommand;

/// All subcommands.
static SUBCOMMANDS: &[Subcommand] = &[
    demo::SUBCOMMAND,
    ping::SUBCOMMAND,
    commands::SUBCOMMAND,
    check::SUBCOMMAND,
    repair::SUBCOMMAND,
    backup::BACKUP,
    backup::RESTORE,
    model::ADD,
    model::PULL,
    model::LIST,
    model::REMOVE,
    model::VERIFY,
    transfer::IMPORT,
    transfer::EXPORT,
    documents::WATCH,
    documents::FETCH,
    bench::SUBCOMMAND,
    recall::SUBCOMMAND,
];

/// Width of the usage of a subcommand in the list of all; what it does stands beside a shorter one, else below.
const USAGE_COLUMNS: usize = 28;

/// Why a subcommand failed. Each displays as one line.
#[derive(Debug, Error)]
pub enum CliError {
    /// A file, a socket or the screen failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The server closed the connection in the middle of an answer.
    #[error("the server closed the connection")]
    Closed,
    /// The server's bytes are not the Redis protocol.
    #[error("the server's answer cannot be read: {0}")]
    Protocol(String),
    /// An answer is longer than the client takes.
    #[error("the server's answer is longer than {limit_bytes} bytes")]
    TooLong {
        /// The longest answer taken.
        limit_bytes: usize,
    },
    /// The server refused a command, or answered with something else than expected.
    #[error("{command:?} was answered with {answer}")]
    Answer {
        /// The command's name.
        command: String,
        /// The answer.
        answer: String,
    },
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// A data folder cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A model cannot be added, removed or verified.
    #[error("{0}")]
    Model(String),
    /// A file or a set of vectors is not what it should be.
    #[error("{0}")]
    Data(String),
    /// The server did not start.
    #[error("the server did not start: {0}")]
    Start(String),
}

impl CliError {
    /// For `map_err`: wraps what the system says with what was being done.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }
}

/// Does what the arguments (without the program's name) ask for besides serving, and gives the exit code;
/// `None` when they ask for the server.
pub fn run(args: &[String]) -> Option<ExitCode> {
    let (first, rest) = args.split_first()?;
    let (subcommand, rest) = find(first, rest);
    let done = match (first.as_str(), subcommand) {
        ("-v" | "--version", _) => print(&version()),
        ("-h" | "--help", _) => print(&help()),
        (_, None) if SUBCOMMANDS.iter().any(|one| one.name.starts_with(&format!("{first} "))) => {
            Err(CliError::Usage(format!("{first} takes another word; see vecdis --help")))
        }
        (_, None) => return None,
        (_, Some(subcommand)) if matches!(rest, [word] if word == "--help" || word == "-h") => {
            print(&subcommand.help())
        }
        (_, Some(subcommand)) => subcommand.parse(rest).and_then(|arguments| (subcommand.run)(&arguments)),
    };
    Some(done.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "vecdis: {error}");
        ExitCode::from(subcommand.map_or(1, |subcommand| subcommand.failure_code))
    }))
}

/// The subcommand that is named by the first word or the first two, and the words behind its name.
fn find<'a>(first: &str, rest: &'a [String]) -> (Option<&'static Subcommand>, &'a [String]) {
    let long = rest.first().map(|second| format!("{first} {second}"));
    let named = |name: &str| SUBCOMMANDS.iter().find(|subcommand| subcommand.name == name);
    match long.as_deref().and_then(named) {
        Some(found) => (Some(found), &rest[1..]),
        None => (named(first), rest),
    }
}

/// `println!` would panic on a closed standard output (`vecdis --help | head -1`).
fn print(text: &str) -> Result<ExitCode, CliError> {
    io::stdout().write_all(text.as_bytes()).map_err(CliError::io("cannot print"))?;
    Ok(ExitCode::SUCCESS)
}

fn version() -> String {
    format!("vecdis {}\n", env!("CARGO_PKG_VERSION"))
}

fn help() -> String {
    let line = |subcommand: &Subcommand| {
        let (usage, summary) = (subcommand.usage(), subcommand.summary);
        match usage.len() + 2 <= USAGE_COLUMNS {
            true => format!("  vecdis {usage:<USAGE_COLUMNS$}{summary}\n"),
            false => format!("  vecdis {usage}\n{:37}{summary}\n", ""),
        }
    };
    let subcommands: String = SUBCOMMANDS.iter().map(line).collect();
    let mut text = format!(
        "Vecdis, a vector server that speaks the Redis protocol.

Usage:
  vecdis [CONF] [--name value ...]   serve; CONF is a configuration file, or - for standard input;
                                     options win over the file, later ones over earlier ones
{subcommands}  vecdis --version | -v              print the version
  vecdis --help | -h                 print this text; vecdis NAME --help tells more of a subcommand

Sizes take the units k, m, g (powers of 1000) and kb, mb, gb (powers of 1024).
Options (an option marked * can also be changed with CONFIG SET):
",
    );
    for option in OPTIONS {
        let default = if option.default.is_empty() { "\"\"" } else { option.default };
        let mark = if option.settable { "*" } else { " " };
        let _ = writeln!(text, " {mark}--{:<28} {} [{default}]", option.name, option.doc);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_for_the_server_are_left_to_it() {
        for line in ["", "vecdis.conf", "--port 7000", "-", "--port 7000 --help", "vecdis.conf demo"] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert!(run(&words).is_none(), "{line}");
        }
    }

    #[test]
    fn help_names_every_subcommand() {
        for subcommand in SUBCOMMANDS {
            assert!(help().contains(&format!("  vecdis {}", subcommand.usage())), "{}", subcommand.name);
            assert!(help().lines().any(|line| line.ends_with(&format!("  {}", subcommand.summary))));
            assert!(subcommand.help().ends_with('\n') && !subcommand.summary.ends_with('.'));
        }
    }

    #[test]
    fn help_names_every_option_with_its_default() {
        let text = help();
        for option in OPTIONS {
            let start = format!("--{} ", option.name);
            let line =
                text.lines().find(|line| line.trim_start_matches([' ', '*']).starts_with(&start)).unwrap();
            assert!(line.contains(option.doc), "{line}");
            assert!(line.ends_with(&format!("{}]", option.default)) || line.ends_with("[\"\"]"), "{line}");
        }
    }
}
