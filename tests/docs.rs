//! The examples of README.md and docs/ are run.
//!
//! A fenced block whose lines begin with the prompt of redis-cli (`127.0.0.1:6379> `) is a session: the lines below a
//! command are what redis-cli shows for its reply; `...` stands for anything. A command without such lines must not
//! fail. All pages share a server, README.md first, as for someone who reads on. (Blocks of Python are run by
//! `tests/clients/test_docs.py`.)

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Client, Command, Server, Value};

const PROMPT: &str = "127.0.0.1:6379> ";

/// README.md and all pages below docs/.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    pages
}

/// Commands of a page with what is shown below each.
fn sessions(text: &str) -> Vec<(String, Vec<String>)> {
    let mut sessions: Vec<(String, Vec<String>)> = Vec::new();
    let mut inside = false;
    let mut is_session = false;
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
            is_session = false;
        } else if let Some(command) = line.strip_prefix(PROMPT).filter(|_| inside) {
            is_session = true;
            sessions.push((command.to_owned(), Vec::new()));
        } else if is_session && let Some((_, shown)) = sessions.last_mut() {
            shown.push(line.to_owned());
        }
    }
    sessions
}

/// Splits a line as redis-cli does: blanks, `'...'` with nothing special but `\'`, `"..."` with `\"` and `\n`.
fn split(line: &str) -> Command {
    let mut words = Vec::new();
    let mut chars = line.trim_end().chars().peekable();
    while let Some(&first) = chars.peek() {
        let mut word = String::new();
        match first {
            ' ' => {
                chars.next();
                continue;
            }
            '\'' | '"' => {
                chars.next();
                while let Some(c) = chars.next().filter(|c| *c != first) {
                    let is_escape = c == '\\' && (first == '"' || chars.peek() == Some(&'\''));
                    word.push(match is_escape.then(|| chars.next().unwrap()) {
                        Some('n') if first == '"' => '\n',
                        Some(escaped) => escaped,
                        None => c,
                    });
                }
            }
            _ => {
                while let Some(c) = chars.next_if(|c| *c != ' ') {
                    word.push(c);
                }
            }
        }
        words.push(word.into_bytes());
    }
    words
}

/// A reply as redis-cli shows it on a terminal.
fn shown(value: &Value) -> Vec<String> {
    match value {
        Value::Simple(text) => vec![text.clone()],
        Value::Error(text) => vec![format!("(error) {text}")],
        Value::Integer(number) => vec![format!("(integer) {number}")],
        Value::Null => vec!["(nil)".to_owned()],
        Value::Bulk(bytes) => {
            let text = String::from_utf8_lossy(bytes).replace('\\', "\\\\").replace('"', "\\\"");
            vec![format!("\"{}\"", text.replace('\n', "\\n").replace('\r', "\\r"))]
        }
        Value::Array(items) if items.is_empty() => vec!["(empty array)".to_owned()],
        Value::Array(items) => {
            let width = items.len().to_string().len();
            let lines = items.iter().enumerate().map(|(at, item)| {
                let head = format!("{:>width$}) ", at + 1);
                let inner = shown(item);
                let pad = " ".repeat(head.len());
                let mut lines = inner.into_iter();
                let first = format!("{head}{}", lines.next().unwrap_or_default());
                std::iter::once(first)
                    .chain(lines.map(move |line| format!("{pad}{line}")))
                    .collect::<Vec<_>>()
            });
            lines.flatten().collect()
        }
        other => panic!("RESP2 has no {other}"),
    }
}

/// Whether a line is as expected: `...` stands for anything up to what follows it, and a score may differ in its last
/// digits, as processors do.
fn is_same(line: &str, expected: &str) -> bool {
    let number =
        |line: &str| line.rsplit(' ').next().and_then(|word| word.trim_matches('"').parse::<f64>().ok());
    fits(line, expected)
        || matches!((number(line), number(expected)), (Some(a), Some(b)) if (a - b).abs() < 1e-6)
}

fn fits(line: &str, expected: &str) -> bool {
    let mut parts = expected.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || expected.ends_with("...")
}

fn run_page(path: &Path, client: &mut Client) -> usize {
    let page = path.file_name().unwrap().to_string_lossy().into_owned();
    let sessions = sessions(&fs::read_to_string(path).unwrap());
    for (line, expected) in &sessions {
        let reply = shown(&client.call(&split(line)));
        let expected: Vec<&str> =
            expected.iter().map(String::as_str).filter(|line| !line.is_empty()).collect();
        if expected.is_empty() {
            assert!(!reply[0].starts_with("(error)"), "{page}: {line}: {reply:?}");
        } else {
            let same =
                reply.len() == expected.len() && reply.iter().zip(&expected).all(|(a, b)| is_same(a, b));
            assert!(same, "{page}: {line}: {reply:?}, not {expected:?}");
        }
    }
    sessions.len()
}

#[test]
fn sessions_of_the_pages_give_what_they_show() {
    let server = Server::start(&[]);
    let run: usize = pages().iter().map(|path| run_page(path, &mut server.connect())).sum();
    assert!(run > 20, "the examples are found: {run}");
}

#[test]
fn links_between_pages_lead_somewhere() {
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") {
                assert!(path.parent().unwrap().join(file).exists(), "{}: {link}", path.display());
            }
        }
    }
}

#[test]
fn dots_stand_for_anything() {
    assert!(fits("\"0.123\"", "\"0.1...\"") && fits("abc", "a...") && fits("abcd", "a...d"));
    assert!(!fits("\"0.123\"", "\"0.2...\"") && !fits("abc", "ab") && !fits("abcd", "a...c"));
    assert!(is_same("1) \"0.50000001\"", "1) \"0.5\"") && !is_same("1) \"0.51\"", "1) \"0.5\""));
}

#[test]
fn lines_are_split_as_redis_cli_does() {
    let words = |line: &str| -> Vec<String> {
        split(line).into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    };
    assert_eq!(words(r#"A 'b c' "d \"e\"" ''"#), ["A", "b c", "d \"e\"", ""]);
    assert_eq!(words(r#"'a\nb' 'it\'s' "a\nb""#), [r"a\nb", "it's", "a\nb"]);
}
