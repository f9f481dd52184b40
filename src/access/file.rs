//! The ACL file: a line `user name rule ...` for each user, as in Redis.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use bytes::Bytes;

use super::catalog::Catalog;
use super::user::{User, merge_selectors};
use super::{AccessError, is_name};

/// Longest ACL file that is read.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Reads the users of a file.
pub(super) fn read(path: &Path, catalog: &Catalog) -> Result<Vec<(Bytes, User)>, AccessError> {
    let failed = |source| AccessError::File { path: path.display().to_string(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(failed(std::io::Error::other("longer than 64 MiB")));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let mut lines = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (place, line) = (format!("{}:{}", path.display(), at + 1), line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(user) = line.strip_prefix("user ") else {
            return Err(AccessError::Line {
                place,
                why: "a line begins with \"user\" and a name".to_owned(),
            });
        };
        lines.push((place, user));
    }
    parse_lines(lines.into_iter(), catalog)
}

/// Reads users from lines without the word `user`.
pub(super) fn parse_lines<'a>(
    lines: impl Iterator<Item = (String, &'a str)>,
    catalog: &Catalog,
) -> Result<Vec<(Bytes, User)>, AccessError> {
    let mut users: Vec<(Bytes, User)> = Vec::new();
    for (place, line) in lines {
        let wrong = |why: String| AccessError::Line { place: place.clone(), why };
        let mut words = line.split_whitespace().map(str::as_bytes);
        let name = words.next().unwrap_or_default();
        if !is_name(name) {
            return Err(wrong("a user needs a name".to_owned()));
        }
        if users.iter().any(|(known, _)| **known == *name) {
            return Err(wrong("the user is there twice".to_owned()));
        }
        let rules = merge_selectors(words);
        let rules = rules.map_err(|_| wrong("a selector does not end".to_owned()))?;
        let mut user = User::new();
        for (at, rule) in rules.iter().enumerate() {
            // A rule may be a password: it is named by its place.
            user.apply(rule, catalog).map_err(|error| wrong(format!("rule {}: {error}", at + 1)))?;
        }
        users.push((Bytes::copy_from_slice(name), user));
    }
    Ok(users)
}

/// Writes users to a file, which appears complete or not at all.
pub(super) fn write(path: &Path, users: impl Iterator<Item = (Bytes, Bytes)>) -> Result<(), AccessError> {
    let mut text = Vec::new();
    for (name, rules) in users {
        text.extend_from_slice(&[b"user ", &name[..], b" ", &rules, b"\n"].concat());
    }
    let written = || {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".tmp");
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().map_err(|source| AccessError::File { path: path.display().to_string(), source })
}
