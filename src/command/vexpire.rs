//! Elements that go by themselves: VEXPIRE, VTTL, and VADD's EX.
//!
//! The log holds the moment (unix milliseconds). An element whose time is over is invisible at once (`Store::snapshot_at`); its
//! removal is a change of its own, made by the next write to its collection or by the sweep (`expire.rs`).

use bytes::Bytes;

use super::parse::integer;
use super::reply::Reply;
use super::vectors::element;
use super::{Call, CommandError, Outcome, WriteOp, live};
use crate::clock;
use crate::store::change::Change;

/// The moment that is so many seconds from now, unix milliseconds; `None` if it is beyond all numbers.
fn moment(seconds: i64) -> Option<i64> {
    let now_ms = i64::try_from(clock::now_ms()).ok()?;
    seconds.checked_mul(1000)?.checked_add(now_ms)
}

/// The moment that `EX seconds` of a VADD means.
pub(super) fn add_expiry(seconds: &[u8]) -> Result<u64, CommandError> {
    let moment = integer(seconds).filter(|&seconds| seconds > 0).and_then(moment);
    let at_ms = moment.and_then(|at_ms| u64::try_from(at_ms).ok());
    at_ms.ok_or(CommandError::text("ERR invalid expire time in 'vadd' command"))
}

/// `VEXPIRE key element seconds`: 1, or 0 if there is no such element. It goes at once if the seconds are not positive.
pub(super) fn vexpire(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let seconds = integer(call.request.arg(3))
        .ok_or(CommandError::text("ERR value is not an integer or out of range"))?;
    let at_ms = moment(seconds).ok_or(CommandError::text("ERR invalid expire time in 'vexpire' command"))?;
    let at_ms = u64::try_from(at_ms).ok().filter(|_| seconds > 0);
    let (namespace, key) = (call.namespace, call.key(1));
    let element = Bytes::copy_from_slice(call.request.arg(2));
    Ok(Box::new(move |txn| {
        let found = live(txn, namespace, &key).is_some_and(|collection| collection.contains(&element));
        if found {
            let change = match at_ms {
                None => Change::Remove { namespace, key, element },
                Some(_) => Change::ExpireElement { namespace, key, element, at_ms },
            };
            txn.apply(&change, None);
        }
        Reply::Integer(i64::from(found))
    }))
}

/// `VTTL key element`: seconds; -2 without the element, -1 if it stays.
pub(super) fn vttl(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let seconds = match element(call)?.map(|(collection, row)| collection.expiries().get(row)) {
        None => -2,
        Some(None) => -1,
        Some(Some(at_ms)) => {
            i64::try_from((at_ms.saturating_sub(clock::now_ms()) + 500) / 1000).unwrap_or(i64::MAX)
        }
    };
    Ok(Outcome::Reply(Reply::Integer(seconds)))
}
