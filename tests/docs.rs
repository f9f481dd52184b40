//! The examples in docs/ are run as they stand: each command after the prompt has to give what stands below it, as redis-cli
//! shows it. `...` stands for anything up to what follows it in the line.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;

use common::{Server, Value, words};

const PROMPT: &str = "127.0.0.1:6379> ";

/// A reply in RESP2 as redis-cli shows it, lines after the first indented.
fn shown(value: &Value, indent: usize) -> String {
    match value {
        Value::Simple(text) => text.clone(),
        Value::Error(text) => format!("(error) {text}"),
        Value::Integer(number) => format!("(integer) {number}"),
        Value::Bulk(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
        }
        Value::Null => "(nil)".to_owned(),
        Value::Array(items) if items.is_empty() => "(empty array)".to_owned(),
        Value::Array(items) => {
            let digits = items.len().to_string().len();
            let line = |(at, item): (usize, &Value)| {
                let before = if at == 0 { 0 } else { indent };
                let item = shown(item, indent + digits + 2);
                format!("{}{:>digits$}) {item}", " ".repeat(before), at + 1)
            };
            items.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
        }
        other => panic!("RESP2 has no {other:?}"),
    }
}

/// Whether a line is as expected, `...` being anything.
fn fits(line: &str, expected: &str) -> bool {
    let mut parts = expected.split("...");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap()) else { return false };
    let mut last = "";
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
        last = part;
    }
    rest.is_empty() || (expected.ends_with("...") && last.is_empty())
}

fn check(name: &str, text: &str) -> usize {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut examples = 0;
    for block in text.split("```").skip(1).step_by(2) {
        for example in block.split(PROMPT).skip(1) {
            let (line, expected) = example.split_once('\n').unwrap();
            let reply = shown(&client.call(&words(line)), 0);
            let (got, expected): (Vec<&str>, Vec<&str>) =
                (reply.lines().collect(), expected.trim_end().lines().collect());
            let same = got.len() == expected.len()
                && got.iter().zip(&expected).all(|(got, expected)| fits(got, expected));
            assert!(same, "{name}: {line}\n{reply}");
            examples += 1;
        }
    }
    examples
}

#[test]
fn the_examples_give_what_stands_below_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut examples = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            examples += check(&path.display().to_string(), &fs::read_to_string(&path).unwrap());
        }
    }
    assert!(examples > 0);
}

#[test]
fn dots_stand_for_anything() {
    assert!(
        fits("\"0.123\"", "\"0.1...\"") && fits("abc", "a...") && fits("abc", "abc") && fits("abcd", "a...d")
    );
    assert!(!fits("\"0.123\"", "\"0.2...\"") && !fits("abc", "ab") && !fits("abcd", "a...c"));
}
