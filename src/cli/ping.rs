//! `vecdis ping`: whether a server answers, for health checks.

use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

use super::arguments::{Arguments, Subcommand};
use super::client::{Client, Command};
use super::{CliError, print};

/// Longest wait for the server.
const WAIT_MAX: Duration = Duration::from_secs(3);

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "ping",
    words: &["ADDRESS"],
    values: &[],
    optional: &[],
    flags: &["--ready"],
    summary: "ask a server whether it is there",
    text: "ADDRESS is HOST:PORT. Prints what the server answers to PING. A server that asks for a password is there too, and so is
one that is still loading, unless --ready is given.

Exit code: 0 it answers, 1 it does not.
",
    failure_code: 1,
    run,
};

fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let answer = match ask(arguments.word(0)) {
        Ok(()) => "PONG".to_owned(),
        Err(CliError::Answer { answer, .. }) => answer,
        Err(error) => return Err(error),
    };
    if arguments.has("--ready") && answer.starts_with("LOADING") {
        return Err(CliError::Answer { command: "PING".to_owned(), answer });
    }
    print(&format!("{answer}\n"))
}

fn ask(address: &str) -> Result<(), CliError> {
    let mut addresses = address.to_socket_addrs().map_err(CliError::io("no such address"))?;
    let first = addresses.next().ok_or_else(|| CliError::Usage(format!("no such address: {address}")))?;
    Client::connect(first, WAIT_MAX)?.call(&Command::new(["PING"])).map(drop)
}
