//! `vecdis fetch`: a page of the web as a document. The server itself never asks the web for anything.

use std::process::ExitCode;
use std::time::Duration;

use super::super::arguments::{Arguments, Subcommand};
use super::super::remote::Place;
use super::super::{CliError, print};
use super::{Document, Documents, Kept, MAX_DOCUMENT_BYTES, splitting};
use crate::document::html::to_markdown;

/// Longest wait for a connection, and for the whole page.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Times a page may point to another place.
const MAX_REDIRECTS: u32 = 5;

pub(in super::super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "fetch",
    words: &["URL", "KEY"],
    values: &[],
    optional: &[
        ("--server", "HOST:PORT"),
        ("--uri", "URI"),
        ("--chunk", "TOKENS"),
        ("--overlap", "TOKENS"),
    ],
    flags: &["--print"],
    summary: "bring a page of the web into a collection, as a document",
    text: "The page at URL (http or https) is a document of the collection KEY on the server at HOST:PORT (127.0.0.1:6379), by its URL or
by URI. HTML becomes Markdown; Markdown and plain text stay as they are. The page is asked for from here, not from the
server, within a minute; more than 16 MiB is refused. With --print the text is shown, and nothing is sent to the server.

A password stands in the URL of the server, or in the variable REDISCLI_AUTH.
",
    failure_code: 1,
    run: fetch,
};

fn fetch(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let (url, key) = (arguments.word(0), arguments.word(1));
    let (kind, text) = page(url)?;
    if arguments.has("--print") {
        return print(&text);
    }
    let place = Place::parse(arguments.value("--server").unwrap_or_default())?;
    let mut documents = Documents::open(&place, key, splitting(arguments))?;
    let uri = arguments.value("--uri").unwrap_or(url).to_owned();
    match documents.keep(&[Document { uri: uri.clone(), kind, text, attributes: None }])?.pop() {
        Some(Kept::Yes(chunks)) => print(&format!("{key}: {uri} is a document of {chunks} chunks\n")),
        Some(Kept::Never(why) | Kept::NotNow(why)) => Err(CliError::Data(format!("{uri}: {why}"))),
        None => Err(CliError::Closed),
    }
}

/// What a page is written in, and its text.
fn page(url: &str) -> Result<(&'static str, String), CliError> {
    let wrong = |what: &dyn std::fmt::Display| CliError::Data(format!("{url}: {what}"));
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(CliError::Usage("URL begins with http:// or https://".to_owned()));
    }
    let agent = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(PAGE_TIMEOUT))
        .max_redirects(MAX_REDIRECTS)
        .user_agent(concat!("vecdis/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let mut response = agent.get(url).call().map_err(|error| wrong(&error))?;
    let header = response.headers().get("content-type").and_then(|value| value.to_str().ok());
    let content_type = header.unwrap_or("text/html").to_ascii_lowercase();
    let kind = match content_type.split(';').next().map(str::trim) {
        Some("text/html" | "application/xhtml+xml") => "html",
        Some("text/markdown" | "text/x-markdown") => "md",
        Some("text/plain") => "txt",
        _ => return Err(wrong(&format!("it is of type {content_type}, not a page"))),
    };
    let body = response.body_mut().with_config().limit(MAX_DOCUMENT_BYTES).read_to_vec();
    let text = decoded(&body.map_err(|error| wrong(&error))?, &content_type);
    Ok(match kind {
        "html" => ("md", to_markdown(&text)),
        kind => (kind, text),
    })
}

/// The characters 0x80 to 0x9f of windows-1252, which pages that say Latin-1 mean as well (WHATWG Encoding Standard).
const WINDOWS_1252: &str = "\u{20ac}\u{81}\u{201a}\u{192}\u{201e}\u{2026}\u{2020}\u{2021}\u{2c6}\u{2030}\u{160}\u{2039}\u{152}\u{8d}\u{17d}\u{8f}\
    \u{90}\u{2018}\u{2019}\u{201c}\u{201d}\u{2022}\u{2013}\u{2014}\u{2dc}\u{2122}\u{161}\u{203a}\u{153}\u{9d}\u{17e}\u{178}";

/// The text of a page's bytes: windows-1252 where the page says so, else UTF-8.
fn decoded(bytes: &[u8], content_type: &str) -> String {
    let is_latin = ["iso-8859-1", "latin1", "windows-1252"].iter().any(|name| content_type.contains(name));
    match is_latin {
        true => bytes.iter().map(|&byte| of_windows_1252(byte)).collect(),
        false => String::from_utf8_lossy(bytes).into_owned(),
    }
}

fn of_windows_1252(byte: u8) -> char {
    let special = byte.checked_sub(0x80).and_then(|at| WINDOWS_1252.chars().nth(usize::from(at)));
    special.unwrap_or(char::from(byte))
}
