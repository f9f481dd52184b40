//! Keys as such: DBSIZE, EXISTS, TYPE, DEL, UNLINK, FLUSHDB, FLUSHALL, SCAN, KEYS, RANDOMKEY, RENAME.

use std::hash::{BuildHasher, RandomState};

use super::parse::{integer, is_word};
use super::reply::Reply;
use super::{Call, CommandError, Outcome, WriteOp, live};
use crate::glob;
use crate::store::change::Change;
use crate::store::state::{Applied, Key};

/// Keys a SCAN looks at when COUNT is not given.
const DEFAULT_SCAN_COUNT: usize = 10;

/// `DBSIZE`
pub(super) fn dbsize(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let keys = match call.scope.limited {
        None => call.snapshot.key_count(call.namespace),
        Some(_) => call.live_keys(0).count(),
    };
    Ok(Outcome::Reply(Reply::integer(keys)))
}

/// `EXISTS key [key ...]`: a key given twice counts twice.
pub(super) fn exists(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let found = (1..call.request.len()).filter(|&index| call.collection(index).is_some()).count();
    Ok(Outcome::Reply(Reply::integer(found)))
}

/// `TYPE key`
pub(super) fn type_of(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let name = if call.collection(1).is_some() { "vectorset" } else { "none" };
    Ok(Outcome::Reply(Reply::simple(name)))
}

/// `DEL key [key ...]`, `UNLINK key [key ...]`: memory is given back off the connection's path in both.
pub(super) fn del(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let namespace = call.namespace;
    let keys: Vec<Key> = (1..call.request.len()).map(|index| call.key(index)).collect();
    Ok(Box::new(move |txn| {
        let mut dropped = 0;
        for key in keys {
            live(txn, namespace, &key);
            dropped += usize::from(txn.apply(&Change::Drop { namespace, key }, None) == Applied::Yes);
        }
        Reply::integer(dropped)
    }))
}

/// `FLUSHDB [ASYNC | SYNC]`, `FLUSHALL [ASYNC | SYNC]`: there is one database.
pub(super) fn flush(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let namespace = call.namespace;
    match call.request.get(1) {
        None => {}
        Some(word) if call.request.len() == 2 && word.eq_ignore_ascii_case(b"async") => {}
        Some(word) if call.request.len() == 2 && word.eq_ignore_ascii_case(b"sync") => {}
        Some(_) => return Err(CommandError::text("ERR syntax error")),
    }
    let scope = call.scope.clone();
    Ok(Box::new(move |txn| {
        if scope.limited.is_none() {
            txn.apply(&Change::Flush { namespace }, None);
            return Reply::ok();
        }
        let mine = txn.view().keys(namespace).filter(|(key, _)| scope.may_write(key.name()));
        let mine: Vec<Key> = mine.map(|(key, _)| key.clone()).collect();
        for key in mine {
            txn.apply(&Change::Drop { namespace, key }, None);
        }
        Reply::ok()
    }))
}

/// A cursor as Redis reads it: a signed number that is not negative, or else what C makes of the text as an unsigned one,
/// with blanks before it and a minus sign that wraps it around.
fn scan_cursor(text: &str) -> Option<u64> {
    if let Some(number) = integer(text.as_bytes()) {
        return u64::try_from(number).ok();
    }
    let text = text.trim_start();
    match text.strip_prefix('-') {
        Some(digits) => digits.parse().ok().map(u64::wrapping_neg),
        None => text.parse().ok(),
    }
}

/// `SCAN cursor [MATCH pattern] [COUNT n] [TYPE name]`: keys are kept in the order of a hash, and the cursor is a place in it.
pub(super) fn scan(call: &Call<'_>) -> Result<Outcome, CommandError> {
    const SYNTAX: CommandError = CommandError::text("ERR syntax error");
    let cursor = std::str::from_utf8(call.request.arg(1)).ok();
    let cursor = cursor.and_then(scan_cursor);
    let cursor = cursor.ok_or(CommandError::text("ERR invalid cursor"))?;
    let (mut pattern, mut count, mut typed) = (None, DEFAULT_SCAN_COUNT, true);
    let mut next = 2;
    while let Some(word) = call.request.get(next) {
        let value = call.request.get(next + 1).ok_or(SYNTAX)?;
        next += 2;
        if is_word(word, "MATCH") {
            pattern = Some(value);
        } else if is_word(word, "COUNT") {
            let number = integer(value);
            let number = number.ok_or(CommandError::text("ERR value is not an integer or out of range"))?;
            count = usize::try_from(number).ok().filter(|&count| count > 0).ok_or(SYNTAX)?;
        } else if is_word(word, "TYPE") {
            typed = is_word(value, "vectorset");
        } else {
            return Err(SYNTAX);
        }
    }
    let mut keys = call.live_keys(cursor);
    let mut found = Vec::new();
    let mut last = None;
    for (key, _) in keys.by_ref().take(count) {
        last = Some(key.cursor());
        if typed && pattern.is_none_or(|pattern| glob::matches(pattern, key.name())) {
            found.push(Reply::bulk(key.name()));
        }
    }
    // Keys of the same hash belong to one page.
    let mut more = None;
    for (key, _) in keys {
        if Some(key.cursor()) != last {
            more = Some(key.cursor());
            break;
        }
        if typed && pattern.is_none_or(|pattern| glob::matches(pattern, key.name())) {
            found.push(Reply::bulk(key.name()));
        }
    }
    let cursor = Reply::Bulk(more.unwrap_or(0).to_string().into());
    Ok(Outcome::Reply(Reply::Array(vec![cursor, Reply::Array(found)])))
}

/// `KEYS pattern`
pub(super) fn keys(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let pattern = call.request.arg(1);
    let keys = call.live_keys(0).filter(|(key, _)| glob::matches(pattern, key.name()));
    Ok(Outcome::Reply(Reply::Array(keys.map(|(key, _)| Reply::bulk(key.name())).collect())))
}

/// `RANDOMKEY`
pub(super) fn randomkey(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let keys = call.live_keys(0).count() as u64;
    let rank = usize::try_from(RandomState::new().hash_one(0) % keys.max(1)).unwrap_or(0);
    let found = call.live_keys(0).nth(rank);
    Ok(Outcome::Reply(found.map_or(Reply::Null, |(key, _)| Reply::bulk(key.name()))))
}

/// `RENAME key newkey`
pub(super) fn rename(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let (namespace, key, to) = (call.namespace, call.key(1), call.key(2));
    Ok(Box::new(move |txn| {
        if live(txn, namespace, &key).is_none() {
            return Reply::error("ERR no such key");
        }
        if key != to {
            txn.apply(&Change::Rename { namespace, key, to }, None);
        }
        Reply::ok()
    }))
}

/// `COPY key newkey`: refused, as Redis refuses it for vector sets.
pub(super) fn copy(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let (namespace, key) = (call.namespace, call.key(1));
    Ok(Box::new(move |txn| match live(txn, namespace, &key) {
        Some(_) => Reply::error("ERR not supported for this module key"),
        None => Reply::Integer(0),
    }))
}
