//! Fields: further vectors of elements. VCREATE declares them, `VADD ... FIELD name` gives an element its vector there.

use std::sync::Arc;

use bytes::Bytes;

use super::parse::{integer_within, is_word};
use super::permissions::Quota;
use super::reply::Reply;
use super::request::Request;
use super::vadd::{Add, stored};
use super::vcreate::bad_value;
use super::{Call, CommandError, WriteOp, live, unexpected};
use crate::collection::{AttributeChange, Collection, Encoded, MAX_DIMENSION, TextChange};
use crate::store::Txn;
use crate::store::change::Change;
use crate::store::fields::{MAX_FIELD_BYTES, MAX_FIELDS};
use crate::store::state::{Applied, Key, NamespaceId};

/// Reads `name DIM d` at an argument.
pub(super) fn declared(request: &Request, at: usize) -> Result<(Bytes, usize), CommandError> {
    let name = request.get(at).ok_or_else(|| unexpected(b"FIELD"))?;
    match request.get(at + 1) {
        Some(word) if is_word(word, "DIM") => {}
        word => return Err(unexpected(word.unwrap_or(name))),
    }
    let dim = request.get(at + 2).ok_or_else(|| unexpected(b"DIM"))?;
    let number = integer_within(dim, 1, MAX_DIMENSION as i64).and_then(|dim| usize::try_from(dim).ok());
    Ok((Bytes::copy_from_slice(name), number.ok_or_else(|| bad_value("DIM", dim))?))
}

/// Checks the fields of a VCREATE together.
pub(super) fn check(fields: &[(Bytes, usize)]) -> Result<(), CommandError> {
    let is_good =
        |name: &Bytes| (1..=MAX_FIELD_BYTES).contains(&name.len()) && std::str::from_utf8(name).is_ok();
    if fields.len() > MAX_FIELDS || !fields.iter().all(|(name, _)| is_good(name)) {
        return Err(CommandError::text(
            "ERR a collection can have 16 fields, with names of 1 to 64 bytes in UTF-8",
        ));
    }
    let mut names: Vec<&Bytes> = fields.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    if names.windows(2).any(|two| two[0] == two[1]) {
        return Err(CommandError::text("ERR a field is declared twice"));
    }
    Ok(())
}

fn no_field(name: &[u8]) -> CommandError {
    let name = String::from_utf8_lossy(name);
    CommandError::Text(format!("ERR the collection has no field '{name}'").into())
}

impl<'a> Call<'a> {
    /// The vectors of a collection, or those of its field if one is named.
    pub(super) fn vectors<'b>(
        &self,
        key: &Key,
        collection: &'b Arc<Collection>,
        field: Option<&[u8]>,
    ) -> Result<&'b Arc<Collection>, CommandError>
    where
        'a: 'b,
    {
        let Some(name) = field else { return Ok(collection) };
        self.snapshot.field(self.namespace, key, name).ok_or_else(|| no_field(name))
    }
}

/// A VADD with FIELD: gives an element that is there its vector in a field.
pub(super) fn add(call: &Call<'_>, field: Bytes, add: Add) -> Result<WriteOp, CommandError> {
    if add.text != TextChange::Keep || add.sparse.is_some() || add.reduced {
        let text = "ERR REDUCE, SETTEXT and SETSPARSE are for the element itself: they cannot go with FIELD";
        return Err(CommandError::text(text));
    }
    let (namespace, key, quota) = (call.namespace, call.key(1), call.scope.quota());
    let known = call.snapshot.field(namespace, &key, &field).map(|collection| collection.params);
    let known = known.filter(|params| params.layout.dim == add.vector.len());
    let encoded = known.map(|params| Encoded::new(&params, &add.vector));
    Ok(Box::new(move |txn| match write(txn, namespace, key, field, add, encoded.as_ref(), quota) {
        Ok(new) => Reply::Boolean(new),
        Err(error) => error.into(),
    }))
}

fn write(
    txn: &mut Txn<'_>,
    namespace: NamespaceId,
    key: Key,
    field: Bytes,
    add: Add,
    encoded: Option<&Encoded>,
    quota: Quota,
) -> Result<bool, CommandError> {
    let collection = live(txn, namespace, &key).ok_or(CommandError::text("ERR key does not exist"))?;
    let vectors = txn.view().field(namespace, &key, &field).ok_or_else(|| no_field(&field))?;
    add.check_field(&collection, &vectors.params)?;
    if !collection.contains(&add.element) {
        return Err(CommandError::text(
            "ERR element not found in set: a field's vector is added to an element that is there",
        ));
    }
    if add.is_excluded(vectors.contains(&add.element)) {
        return Ok(false);
    }
    let elements = std::iter::once(&add.element[..]);
    quota.admit(txn.view(), namespace, Some(vectors), vectors.params.layout.dim, elements)?;
    drop(collection);
    let Add { vector, element, attributes, expires_ms, model, .. } = add;
    let attributes = stored(txn, namespace, &key, &element, attributes);
    let change =
        Change::SetField { namespace, key: key.clone(), element: element.clone(), field, vector, model };
    let added = txn.apply(&change, encoded) == Applied::Yes;
    if let AttributeChange::Set(attributes) = attributes {
        let (key, element) = (key.clone(), element.clone());
        txn.apply(&Change::SetAttributes { namespace, key, element, attributes }, None);
    }
    if expires_ms.is_some() {
        txn.apply(&Change::ExpireElement { namespace, key, element, at_ms: expires_ms }, None);
    }
    Ok(added)
}
