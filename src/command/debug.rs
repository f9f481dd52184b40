//! Looking inside: TIME, OBJECT, DEBUG.

use std::sync::Arc;
use std::time::Duration;

use super::parse::{float, is_word};
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::{Call, CommandError, Context, Outcome, Waiting};
use crate::clock;
use crate::collection::Collection;
use crate::hex;

/// How long DEBUG SLEEP sleeps at most.
const MAX_SLEEP_S: f64 = 3600.0;
/// Bytes of a digest, as Redis shows: 40 hexadecimal digits.
const DIGEST_BYTES: usize = 20;

/// `TIME`: unix seconds and microseconds.
pub(super) fn time(_: &mut Session, _: &Context, _: &Request) -> Result<Reply, CommandError> {
    let now_us = clock::now_us();
    let text = |number: u64| Reply::Bulk(number.to_string().into());
    Ok(Reply::Array(vec![text(now_us / 1_000_000), text(now_us % 1_000_000)]))
}

/// `OBJECT ENCODING key | REFCOUNT key | IDLETIME key | FREQ key`
pub(super) fn object(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let name = String::from_utf8_lossy(call.request.arg(1)).to_lowercase();
    if call.known(2).is_none() {
        return Ok(Outcome::Reply(Reply::Null));
    }
    Ok(Outcome::Reply(match name.as_str() {
        "encoding" => Reply::text("raw"),
        "refcount" => Reply::Integer(1),
        "idletime" => Reply::Integer(0),
        _ => {
            return Err(CommandError::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
                 switching between policies at runtime LRU and LFU data will take some time to adjust.",
            ));
        }
    }))
}

/// `DEBUG SLEEP seconds | RELOAD | DIGEST-VALUE key [key ...]`
pub(super) fn debug(context: &Arc<Context>, request: &Request) -> Result<Waiting, CommandError> {
    if !context.config().enable_debug_command {
        return Err(CommandError::text(
            "ERR DEBUG command not allowed. Start the server with enable-debug-command set to yes to use it.",
        ));
    }
    let verb = request.arg(1);
    if is_word(verb, "SLEEP") {
        let seconds = float(request.arg(2)).filter(|seconds| (0.0..=MAX_SLEEP_S).contains(seconds));
        let seconds = seconds.ok_or(CommandError::text("ERR value is not a valid float"))?;
        return Ok(Box::pin(async move {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            Reply::ok()
        }));
    }
    if is_word(verb, "RELOAD") {
        let context = Arc::clone(context);
        return Ok(Box::pin(async move {
            match tokio::task::spawn_blocking(move || context.store.reload()).await {
                Ok(Ok(())) => Reply::ok(),
                Ok(Err(error)) => Reply::error(format!("ERR {error}")),
                Err(_) => Reply::error("ERR the server is shutting down"),
            }
        }));
    }
    let snapshot = context.store.snapshot_at(clock::now_ms());
    let digest = |index: usize| {
        let key = crate::store::state::Key::new(request.bytes(index));
        snapshot
            .live(Default::default(), &key, clock::now_ms())
            .map_or(Ok([0; DIGEST_BYTES]), |found| digest(found))
    };
    let digests: Result<Vec<_>, _> = (2..request.len()).map(digest).collect();
    let reply =
        Reply::Array(digests?.into_iter().map(|digest| Reply::simple(hex::encode(&digest))).collect());
    Ok(Box::pin(std::future::ready(reply)))
}

/// Sum of the hashes of all elements (name, vector, attributes, text, sparse vector): the same for equal contents, whatever the order.
fn digest(collection: &Collection) -> Result<[u8; DIGEST_BYTES], CommandError> {
    let mut sum = [0u8; DIGEST_BYTES];
    for row in collection.live_rows() {
        let mut hasher = blake3::Hasher::new();
        let name = collection.name(row);
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        hasher.update(bytemuck::cast_slice(&collection.vector(row)?));
        if let Some(attributes) = collection.attributes(row) {
            hasher.update(&[1]).update(attributes);
        }
        if let Some(text) = collection.text(row)? {
            hasher.update(&[2]).update(text);
        }
        if let Some(sparse) = collection.sparse(row)? {
            hasher.update(&[3]).update(sparse);
        }
        let mut carry = 0u16;
        for (total, byte) in sum.iter_mut().zip(hasher.finalize().as_bytes()) {
            let added = u16::from(*total) + u16::from(*byte) + carry;
            [*total, _] = added.to_le_bytes();
            carry = added >> 8;
        }
    }
    Ok(sum)
}
