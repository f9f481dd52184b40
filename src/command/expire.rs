//! Keys that go by themselves: EXPIRE, PEXPIRE, EXPIREAT, PEXPIREAT, TTL, PTTL, EXPIRETIME, PEXPIRETIME, PERSIST.
//!
//! The log holds the moment (unix milliseconds). A key whose time is over is invisible at once; its removal is a change
//! of its own, made by the next write to it or by [`sweep`].

use bytes::Bytes;

use super::parse::{integer, is_word};
use super::reply::Reply;
use super::{Call, CommandError, Outcome, WriteOp, live};
use crate::clock;
use crate::store::change::Change;
use crate::store::state::{Key, NamespaceId};
use crate::store::{Job, Store, Txn, WriteError};

/// Keys, and elements of a key, removed in one go.
const MAX_SWEPT: usize = 1000;

#[derive(Clone, Copy, Default)]
struct Conditions {
    /// Only without an expiry.
    nx: bool,
    /// Only with one.
    xx: bool,
    /// Only if later; never is the latest.
    gt: bool,
    /// Only if sooner.
    lt: bool,
}

impl Conditions {
    fn allow(self, now: Option<u64>, then: u64) -> bool {
        !(self.nx && now.is_some()
            || self.xx && now.is_none()
            || self.gt && now.is_none_or(|now| then <= now)
            || self.lt && now.is_some_and(|now| then >= now))
    }
}

fn conditions(call: &Call<'_>) -> Result<Conditions, CommandError> {
    let mut conditions = Conditions::default();
    for word in call.request.args().skip(3) {
        if is_word(word, "NX") {
            conditions.nx = true;
        } else if is_word(word, "XX") {
            conditions.xx = true;
        } else if is_word(word, "GT") {
            conditions.gt = true;
        } else if is_word(word, "LT") {
            conditions.lt = true;
        } else {
            let word = String::from_utf8_lossy(word).into_owned();
            return Err(CommandError::Text(format!("ERR Unsupported option {word}").into()));
        }
    }
    if conditions.nx && (conditions.xx || conditions.gt || conditions.lt) {
        let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
        return Err(CommandError::text(text));
    }
    if conditions.gt && conditions.lt {
        return Err(CommandError::text("ERR GT and LT options at the same time are not compatible"));
    }
    Ok(conditions)
}

fn expire_by(call: &Call<'_>, unit_ms: i64, from_now: bool) -> Result<WriteOp, CommandError> {
    let conditions = conditions(call)?;
    let not_integer = CommandError::text("ERR value is not an integer or out of range");
    let number = integer(call.request.arg(2)).ok_or(not_integer)?;
    let now_ms = i64::try_from(clock::now_ms()).unwrap_or(i64::MAX);
    let base_ms = if from_now { now_ms } else { 0 };
    let invalid = || {
        let name = String::from_utf8_lossy(call.request.arg(0)).to_lowercase();
        CommandError::Text(format!("ERR invalid expire time in '{name}' command").into())
    };
    let at_ms = number.checked_mul(unit_ms).and_then(|ms| ms.checked_add(base_ms)).ok_or_else(invalid)?;
    let (namespace, key) = (call.namespace, call.key(1));
    Ok(Box::new(move |txn| {
        let Some(collection) = live(txn, namespace, &key) else { return Reply::Integer(0) };
        let then_ms = u64::try_from(at_ms).unwrap_or(0);
        if !conditions.allow(collection.expires_ms, then_ms) {
            return Reply::Integer(0);
        }
        drop(collection);
        let change = if at_ms <= now_ms {
            Change::Drop { namespace, key }
        } else {
            Change::Expire { namespace, key, at_ms: Some(then_ms) }
        };
        txn.apply(&change, None);
        Reply::Integer(1)
    }))
}

/// `EXPIRE key seconds [NX | XX | GT | LT]`
pub(super) fn expire(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    expire_by(call, 1000, true)
}

/// `PEXPIRE key milliseconds [NX | XX | GT | LT]`
pub(super) fn pexpire(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    expire_by(call, 1, true)
}

/// `EXPIREAT key unix-seconds [NX | XX | GT | LT]`
pub(super) fn expireat(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    expire_by(call, 1000, false)
}

/// `PEXPIREAT key unix-milliseconds [NX | XX | GT | LT]`
pub(super) fn pexpireat(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    expire_by(call, 1, false)
}

/// `PERSIST key`
pub(super) fn persist(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let (namespace, key) = (call.namespace, call.key(1));
    Ok(Box::new(move |txn| {
        let expires = live(txn, namespace, &key).is_some_and(|collection| collection.expires_ms.is_some());
        if expires {
            txn.apply(&Change::Expire { namespace, key, at_ms: None }, None);
        }
        Reply::Integer(i64::from(expires))
    }))
}

/// -2 without the key, -1 without an expiry, else what `shown` makes of the moment.
fn expiry(call: &Call<'_>, shown: impl Fn(u64) -> u64) -> Result<Outcome, CommandError> {
    let value = match call.collection(1).map(|collection| collection.expires_ms) {
        None => -2,
        Some(None) => -1,
        Some(Some(at_ms)) => i64::try_from(shown(at_ms)).unwrap_or(i64::MAX),
    };
    Ok(Outcome::Reply(Reply::Integer(value)))
}

/// `TTL key`
pub(super) fn ttl(call: &Call<'_>) -> Result<Outcome, CommandError> {
    expiry(call, |at_ms| (at_ms.saturating_sub(clock::now_ms()) + 500) / 1000)
}

/// `PTTL key`
pub(super) fn pttl(call: &Call<'_>) -> Result<Outcome, CommandError> {
    expiry(call, |at_ms| at_ms.saturating_sub(clock::now_ms()))
}

/// `EXPIRETIME key`
pub(super) fn expiretime(call: &Call<'_>) -> Result<Outcome, CommandError> {
    expiry(call, |at_ms| (at_ms + 500) / 1000)
}

/// `PEXPIRETIME key`
pub(super) fn pexpiretime(call: &Call<'_>) -> Result<Outcome, CommandError> {
    expiry(call, |at_ms| at_ms)
}

/// Removes keys and elements whose time is over.
struct Sweep;

impl Job for Sweep {
    fn run(&mut self, txn: &mut Txn<'_>) {
        let now_ms = clock::now_ms();
        let over = txn.view().expirations.iter().take_while(|(at_ms, _, _)| *at_ms <= now_ms);
        let over: Vec<_> = over.take(MAX_SWEPT).cloned().collect();
        for (_, namespace, key) in over {
            txn.apply(&Change::Drop { namespace, key }, None);
            txn.end_record();
        }
        let over = txn.view().element_expirations.iter().take_while(|(at_ms, _, _)| *at_ms <= now_ms);
        let over: Vec<_> = over.take(MAX_SWEPT).cloned().collect();
        for (_, namespace, key) in over {
            remove_expired(txn, namespace, &key, now_ms, MAX_SWEPT);
            txn.end_record();
        }
    }

    fn done(self: Box<Self>, _: Result<(), WriteError>) {}
}

/// Removes a collection's elements whose time is over, `most` of them, by changes as VREM makes them.
pub(super) fn remove_expired(txn: &mut Txn<'_>, namespace: NamespaceId, key: &Key, now_ms: u64, most: usize) {
    let Some(collection) = txn.view().get(namespace, key).cloned() else { return };
    let over: Vec<Bytes> = collection.expired(now_ms).take(most).collect();
    drop(collection);
    for element in over {
        txn.apply(&Change::Remove { namespace, key: key.clone(), element }, None);
    }
}

/// Removes all elements whose time is over.
pub(super) fn remove_all_expired(txn: &mut Txn<'_>, now_ms: u64) {
    while let Some((at_ms, namespace, key)) = txn.view().element_expirations.get_min().cloned() {
        if at_ms > now_ms {
            break;
        }
        remove_expired(txn, namespace, &key, now_ms, usize::MAX);
    }
}

/// Has the writer remove the keys and elements whose time is over, if there are any. Called every now and then.
pub fn sweep(store: &Store) {
    let (now_ms, snapshot) = (clock::now_ms(), store.snapshot());
    let keys = snapshot.expirations.get_min().is_some_and(|(at_ms, _, _)| *at_ms <= now_ms);
    if keys || snapshot.has_expired_elements(now_ms) {
        store.write(Box::new(Sweep));
    }
}
