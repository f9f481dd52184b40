//! Modules use only modules below them (ARCHITECTURE.md), `unsafe` stays in the few files that need it, and files
//! stay small.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of the crate from top to bottom; those on one line may use each other.
const LAYERS: &[&[&str]] = &[
    &["main", "cli"],
    &["server"],
    &["command"],
    &["access"],
    &["store"],
    &["collection"],
    &["document"],
    &["graph"],
    &["text"],
    &["vector"],
    &["embed"],
    &["disk"],
    &["metrics", "config", "clock", "glob", "heap", "hex", "logging", "tls"],
];
const UNSAFE_ALLOWED: &[&str] = &["vector/kernel/", "vector/arena.rs", "disk/map.rs", "heap.rs"];
const LINES_MAX: usize = 700;

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

/// Paths relative to `src`, with the text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(files.len() > 10, "the scan finds the sources");
    files
}

/// Whether a file holds tests only: `tests.rs`, `tests_*.rs`, `*_tests.rs`.
fn is_test_file(name: &str) -> bool {
    let stem = Path::new(name).file_stem().unwrap().to_str().unwrap();
    stem == "tests" || stem.starts_with("tests_") || stem.ends_with("_tests")
}

/// The code without comments and without the content of strings and characters.
fn strip(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if next == '"' {
            string_len(rest)
        } else if next == 'r' && !code.ends_with(is_word) {
            raw_string_len(rest)
        } else if next == '\'' {
            char_len(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            rest = &rest[skipped..];
        }
    }
    code
}

fn string_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of `r"..."`, `r#"..."#`, ...; 0 if it is none.
fn raw_string_len(rest: &str) -> usize {
    let hashes = rest[1..].chars().take_while(|&c| c == '#').count();
    let end = format!("\"{}", "#".repeat(hashes));
    match rest[1 + hashes..].strip_prefix('"').and_then(|inside| inside.find(&end)) {
        Some(len) => 2 + hashes + len + end.len(),
        None => 0,
    }
}

/// Length of a character; 0 for a lifetime.
fn char_len(rest: &str) -> usize {
    let inside = &rest[1..];
    if let Some(escape) = inside.strip_prefix('\\') {
        // The first escaped character may be a quote.
        return escape.char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 3);
    }
    let mut chars = inside.chars();
    match (chars.next(), chars.next()) {
        (Some(c), Some('\'')) => c.len_utf8() + 2,
        _ => 0,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The code without modules marked `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut rest = code;
    while let Some(at) = rest.find("#[cfg(test)]") {
        kept.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = match (rest.find('{'), rest.find(';')) {
            (Some(brace), semicolon) if semicolon.is_none_or(|semicolon| brace < semicolon) => {
                brace + braces_len(&rest[brace..])
            }
            (_, semicolon) => semicolon.unwrap() + 1,
        };
        rest = &rest[end..];
    }
    kept + rest
}

/// Length of a text in braces.
fn braces_len(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return at + 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("braces do not match")
}

/// The module path of a file: `store/mod.rs` -> `[store]`, `store/writer.rs` -> `[store, writer]`.
fn module_path(name: &str) -> Vec<String> {
    let mut path: Vec<String> = name.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod" || last == "lib") {
        path.pop();
    }
    path
}

/// The top modules that a file's code names through `crate::` and `super::`.
fn uses(name: &str, code: &str) -> Vec<String> {
    let own = module_path(name);
    let mut found = Vec::new();
    for (at, root) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].ends_with(|c| is_word(c) || c == ':') {
            continue;
        }
        let mut rest = &code[at..];
        let mut depth = own.len();
        while root == "super::"
            && let Some(after) = rest.strip_prefix("super::")
        {
            depth = depth.saturating_sub(1);
            rest = after;
        }
        match rest.strip_prefix("crate::") {
            Some(after) => rest = after,
            None if depth > 0 => {
                found.push(own[0].clone());
                continue;
            }
            None => {}
        }
        found.extend(first_words(rest));
    }
    found
}

/// The first word of a path, or of each path of a group in braces.
fn first_words(path: &str) -> Vec<String> {
    let word = |text: &str| -> String { text.trim().chars().take_while(|&c| is_word(c)).collect() };
    if !path.starts_with('{') {
        return vec![word(path)];
    }
    let group = &path[1..braces_len(path) - 1];
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.map(word).filter(|word| !word.is_empty()).collect()
}

/// What breaks the layering in a file.
fn violations(name: &str, text: &str) -> Vec<String> {
    let own = module_path(name);
    // The crate's root only names the modules.
    let Some(top) = own.first() else { return Vec::new() };
    let Some(own_layer) = layer(top) else {
        return vec![format!("{name}: module {top} stands in no layer of this test")];
    };
    if own_layer == 0 {
        return Vec::new();
    }
    let code = without_tests(&strip(text));
    // Names that are no module (macros and items of the root) are lower or upper case alike: only modules count.
    let bad = uses(name, &code).into_iter().filter(|used| layer(used).is_some_and(|used| used < own_layer));
    bad.map(|used| format!("{name} uses {used}, which is above it")).collect()
}

#[test]
fn modules_use_only_modules_below_them() {
    let found: Vec<String> = sources()
        .iter()
        .filter(|(name, _)| !is_test_file(name))
        .flat_map(|(name, text)| violations(name, text))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn unsafe_code_stays_where_it_is_needed() {
    for (name, text) in sources() {
        let code = strip(&text);
        let is_unsafe = code.split(|c| !is_word(c)).any(|word| word == "unsafe");
        assert!(!is_unsafe || UNSAFE_ALLOWED.iter().any(|allowed| name.starts_with(allowed)), "{name}");
    }
}

#[test]
fn files_stay_small() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines < LINES_MAX, "{name} has {lines} lines");
    }
}

#[test]
fn the_scanner_finds_what_it_should() {
    let above = |text| violations("store/writer.rs", text).len();
    assert_eq!(above("use crate::server::framer;"), 1);
    assert_eq!(above("use crate::{disk::{Disk, log}, command::{reply, request}, server};"), 2);
    assert_eq!(above("fn f() { crate::command::reply::f() }"), 1);
    assert_eq!(above("use super::super::command::reply;"), 1);
    assert_eq!(above("use super::command::reply;"), 0, "that is store::command");
    assert_eq!(above("use crate::disk; // crate::server::x\nlet c = '\"'; let s = \"crate::server::x\";"), 0);
    assert_eq!(above("#[cfg(test)]\nmod tests { use crate::server::x; fn f() {} }"), 0);
    assert_eq!(above("#[cfg(test)]\nmod tests;\nuse crate::server::x;"), 1);
    assert_eq!(above("let s = r#\"a \" crate::server::x\"#; fn f<'a>() { crate::server::f() }"), 1);
    assert_eq!(violations("config.rs", "use super::server::x;").len(), 1);
    assert_eq!(violations("cli/demo.rs", "use crate::server::x;").len(), 0);
    assert_eq!(violations("novelty/mod.rs", "").len(), 1);
}
