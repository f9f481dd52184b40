//! Keys as such: DBSIZE, EXISTS, TYPE, DEL, UNLINK, FLUSHDB, FLUSHALL.

use super::reply::Reply;
use super::{Call, CommandError, Outcome, WriteOp};
use crate::store::change::Change;
use crate::store::state::{Applied, Key};

fn count(value: usize) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `DBSIZE`
pub(super) fn dbsize(call: &Call<'_>) -> Result<Outcome, CommandError> {
    Ok(Outcome::Reply(count(call.snapshot.key_count(call.namespace))))
}

/// `EXISTS key [key ...]`: a key given twice counts twice.
pub(super) fn exists(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let found = (1..call.request.len()).filter(|&index| call.collection(index).is_some()).count();
    Ok(Outcome::Reply(count(found)))
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
            dropped += usize::from(txn.apply(&Change::Drop { namespace, key }, None) == Applied::Yes);
        }
        count(dropped)
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
    Ok(Box::new(move |txn| {
        txn.apply(&Change::Flush { namespace }, None);
        Reply::ok()
    }))
}
