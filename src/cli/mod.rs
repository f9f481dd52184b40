//! What the command line asks for besides serving: help, the version, the demo.

pub mod child;
pub mod client;
pub mod demo;
pub mod model;
pub mod sentences;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use thiserror::Error;

use crate::config::OPTIONS;
use model::ModelCommand;

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
    Usage(&'static str),
    /// A model cannot be added, removed or verified.
    #[error("{0}")]
    Model(String),
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

/// What the arguments ask for besides serving.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    Print(String),
    Demo,
    Model(ModelCommand),
    Refuse(&'static str),
}

/// Does what the arguments (without the program's name) ask for besides serving, and gives the exit code;
/// `None` when they ask for the server.
pub fn run(args: &[String]) -> Option<ExitCode> {
    let done = match action(args)? {
        Action::Print(text) => print(text),
        Action::Demo => demo::run(&mut io::stdout()),
        Action::Model(command) => command.run().and_then(print),
        Action::Refuse(reason) => Err(CliError::Usage(reason)),
    };
    Some(match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "vecdis: {error}");
            ExitCode::FAILURE
        }
    })
}

/// Prints to standard output: `println!` would panic on a closed one (`vecdis --help | head -1`).
fn print(text: String) -> Result<(), CliError> {
    io::stdout().write_all(text.as_bytes()).map_err(CliError::io("cannot print"))
}

fn action(args: &[String]) -> Option<Action> {
    let (first, rest) = args.split_first()?;
    match first.as_str() {
        "-v" | "--version" => Some(Action::Print(version())),
        "-h" | "--help" => Some(Action::Print(help())),
        "demo" if rest.is_empty() => Some(Action::Demo),
        "model" => Some(ModelCommand::parse(rest).map_or(Action::Refuse(model::USAGE), Action::Model)),
        "demo" => Some(Action::Refuse("demo takes no arguments")),
        _ => None,
    }
}

fn version() -> String {
    format!("vecdis {}\n", env!("CARGO_PKG_VERSION"))
}

fn help() -> String {
    let mut text = String::from(
        "Vecdis, a vector server that speaks the Redis protocol.

Usage:
  vecdis [CONF] [--name value ...]   serve; CONF is a configuration file, or - for standard input;
                                     options win over the file, later ones over earlier ones
  vecdis demo                        start a server of its own, load a small sample and search it
  vecdis model [--dir DIR] add FOLDER [NAME] | list | remove NAME | verify [NAME]
                                     the embedding models in a data folder
  vecdis --version | -v              print the version
  vecdis --help | -h                 print this text

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

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_for_the_server_are_left_to_it() {
        for line in ["", "vecdis.conf", "--port 7000", "-", "--port 7000 --help", "vecdis.conf demo"] {
            assert_eq!(action(&words(line)), None, "{line}");
        }
        assert_eq!(
            action(&words("-v")),
            Some(Action::Print(format!("vecdis {}\n", env!("CARGO_PKG_VERSION"))))
        );
        assert_eq!(action(&words("--help")), Some(Action::Print(help())));
        assert_eq!(action(&words("demo")), Some(Action::Demo));
        assert!(matches!(action(&words("demo now")), Some(Action::Refuse(_))));
    }

    #[test]
    fn help_names_every_option_with_its_default() {
        let text = help();
        for option in OPTIONS {
            let start = format!("--{} ", option.name);
            let line = text.lines().find(|line| line.contains(&start)).unwrap();
            assert!(line.contains(option.doc), "{line}");
            assert!(line.ends_with(&format!("{}]", option.default)) || line.ends_with("[\"\"]"), "{line}");
        }
    }
}
