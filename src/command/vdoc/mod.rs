//! VDOC: documents, kept as chunks that are elements like any other (`collection/documents.rs`).

mod add;
mod dump;
mod sections;

use std::sync::Arc;

use bytes::Bytes;

pub(super) use add::add;
pub(super) use dump::{dump, restore};
pub(super) use sections::sections;

use super::parse::{integer_within, is_word};
use super::reply::Reply;
use super::vectors::row_of;
use super::{Call, CommandError, Outcome, WriteOp, live, unexpected};
use crate::collection::Collection;
use crate::collection::documents::{Document, MAX_URI_BYTES, chunk_name};
use crate::store::Txn;
use crate::store::change::Change;
use crate::store::state::{Key, NamespaceId};

/// Documents a VDOC LIST gives about when COUNT is not given.
const DEFAULT_LIST_COUNT: usize = 10;
/// Documents one reply may name about.
const MAX_LIST_COUNT: usize = 1 << 20;

/// The URI in an argument.
fn uri(call: &Call<'_>) -> Result<Bytes, CommandError> {
    let uri = call.request.arg(3);
    if uri.is_empty() || uri.len() > MAX_URI_BYTES {
        return Err(CommandError::text("ERR a document's uri must have 1 to 16384 bytes"));
    }
    Ok(Bytes::copy_from_slice(uri))
}

/// The collection and document that are asked for.
fn document<'a>(call: &Call<'a>) -> Option<(&'a Arc<Collection>, &'a Arc<Document>)> {
    let collection = call.collection(2)?;
    Some((collection, collection.documents().get(call.request.arg(3))?))
}

/// `VDOC GET key uri [CHUNKS]`: what is known of a document; with CHUNKS its chunks too.
pub(super) fn get(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let chunks = match (call.request.get(4), call.request.len()) {
        (None, _) => false,
        (Some(word), 5) if is_word(word, "CHUNKS") => true,
        (Some(word), _) => return Err(unexpected(word)),
    };
    let Some((collection, document)) = document(call) else { return Ok(Outcome::Reply(Reply::Null)) };
    let mut fields = vec![
        ("id", Reply::bulk(call.request.arg(3))),
        ("type", Reply::text(document.kind.name())),
        ("bytes", Reply::integer(document.text_bytes)),
        ("tokens", Reply::integer(document.tokens())),
        ("count", Reply::integer(document.spans.len())),
        ("chunk", Reply::integer(document.chunk_tokens)),
        ("overlap", Reply::integer(document.overlap_tokens)),
        ("attributes", document.attributes.as_deref().map_or(Reply::Null, Reply::bulk)),
    ];
    if chunks {
        let mut replies = Vec::with_capacity(document.spans.len());
        for span in &document.spans {
            let name = chunk_name(call.request.arg(3), span.number);
            // An element that has gone takes its place in the table with it: then the version is too old.
            let row = row_of(collection, &name)?.ok_or(CommandError::Stale)?;
            replies.push(Reply::fields(vec![
                ("id", Reply::bulk(&name)),
                ("start", Reply::integer(span.start)),
                ("end", Reply::integer(span.end)),
                ("tokens", Reply::integer(span.tokens)),
                ("text", collection.text(row)?.map_or(Reply::Null, Reply::bulk)),
            ]));
        }
        fields.push(("chunks", Reply::Array(replies)));
    }
    Ok(Outcome::Reply(Reply::fields(fields)))
}

/// `VDOC LIST key cursor [COUNT n]`: a document that is there all the time is given once.
pub(super) fn list(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let cursor = std::str::from_utf8(call.request.arg(3)).ok().and_then(|cursor| cursor.parse::<u64>().ok());
    let cursor = cursor.ok_or(CommandError::text("ERR invalid cursor"))?;
    let mut count = DEFAULT_LIST_COUNT;
    let mut next = 4;
    while let Some(word) = call.request.get(next) {
        let value = call.request.get(next + 1).filter(|_| is_word(word, "COUNT"));
        let number = integer_within(value.ok_or_else(|| unexpected(word))?, 1, i64::MAX);
        let number = number.and_then(|count| usize::try_from(count).ok());
        count = number.ok_or(CommandError::text("ERR invalid COUNT"))?.min(MAX_LIST_COUNT);
        next += 2;
    }
    let (found, next) = match call.collection(2) {
        Some(collection) => collection.documents().scan(cursor, count),
        None => (Vec::new(), 0),
    };
    let names = found.into_iter().map(Reply::bulk).collect();
    Ok(Outcome::Reply(Reply::Array(vec![Reply::Bulk(next.to_string().into()), Reply::Array(names)])))
}

/// `VDOC DEL key uri`: removes a document with its chunks. 1, or 0 if there is none.
pub(super) fn del(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    if let Some(word) = call.request.get(4) {
        return Err(unexpected(word));
    }
    let (namespace, key, uri) = (call.namespace, call.key(2), uri(call)?);
    Ok(Box::new(move |txn| {
        let document = live(txn, namespace, &key).and_then(|found| found.documents().get(&uri).cloned());
        let Some(document) = document else { return Reply::Integer(0) };
        forget(txn, namespace, &key, &uri);
        let numbers: Vec<u32> = document.spans.iter().map(|span| span.number).collect();
        remove(txn, namespace, &key, &uri, &numbers);
        Reply::Integer(1)
    }))
}

/// Takes a document out of the table.
fn forget(txn: &mut Txn<'_>, namespace: NamespaceId, key: &Key, uri: &Bytes) {
    let (key, uri) = (key.clone(), uri.clone());
    txn.apply(&Change::SetDocument { namespace, key, uri, document: None }, None);
}

/// Removes elements that are no chunks any more.
fn remove(txn: &mut Txn<'_>, namespace: NamespaceId, key: &Key, uri: &Bytes, numbers: &[u32]) {
    for &number in numbers {
        let element = chunk_name(uri, number).into();
        txn.apply(&Change::Remove { namespace, key: key.clone(), element }, None);
    }
}
