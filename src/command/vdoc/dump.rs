//! VDOC DUMP and VDOC RESTORE: what makes elements the chunks of a document, as bytes. A copy of these elements is a document
//! with it, without being split or embedded again.

use std::sync::Arc;

use super::super::reply::Reply;
use super::super::vadd::{attributes, check_memory};
use super::super::{Call, CommandError, Outcome, WriteOp, live};
use super::{document, remove, uri};
use crate::collection::documents::{Document, chunk_name};
use crate::document::MAX_CHUNKS;
use crate::store::change::Change;

/// The first byte of a dump.
const VERSION: u8 = 1;

/// `VDOC DUMP key uri`: the document's entry as bytes, for RESTORE; null without the document.
pub(in super::super) fn dump(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let dump = document(call).map(|(_, document)| [&[VERSION], &document.encode()[..]].concat());
    Ok(Outcome::Reply(dump.map_or(Reply::Null, |dump| Reply::Bulk(dump.into()))))
}

/// `VDOC RESTORE key uri dump`: makes elements that are there the chunks of a document, in place of the one there was, whose
/// further chunks go. Chunks without an element are left out.
pub(in super::super) fn restore(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    check_memory(call)?;
    let (namespace, key, uri) = (call.namespace, call.key(2), uri(call)?);
    let document = Arc::new(read(call.request.arg(4))?);
    Ok(Box::new(move |txn| {
        let Some(collection) = live(txn, namespace, &key) else {
            return Reply::error("ERR key does not exist");
        };
        let is_there = |number: u32| collection.contains(&chunk_name(&uri, number));
        if !document.spans.iter().any(|span| is_there(span.number)) {
            return Reply::error("ERR none of the document's chunks is in the set");
        }
        let old = collection.documents().get(&uri);
        let old = old.iter().flat_map(|old| &old.spans).map(|span| span.number);
        let surplus: Vec<u32> = old.filter(|&number| document.span(number).is_none()).collect();
        let (to, name) = (key.clone(), uri.clone());
        let change = Change::SetDocument { namespace, key: to, uri: name, document: Some(document) };
        txn.apply(&change, None);
        remove(txn, namespace, &key, &uri, &surplus);
        Reply::ok()
    }))
}

fn read(dump: &[u8]) -> Result<Document, CommandError> {
    let document = dump.split_first().filter(|(version, _)| **version == VERSION);
    let document = document.and_then(|(_, bytes)| Document::decode(bytes));
    let document = document
        .filter(|document| document.spans.len() <= MAX_CHUNKS)
        .ok_or(CommandError::text("ERR the dump is damaged, or of another version"))?;
    document.attributes.as_deref().map(attributes).transpose()?;
    Ok(document)
}
