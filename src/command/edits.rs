//! Changes that depend on what is there: VPATCHATTR and VDELBY. They are worked out by the writer, on its private state; the
//! log holds what came of it.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::elements::filter;
use super::parse::is_word;
use super::reply::Reply;
use super::vadd::attributes;
use super::vectors::row_of;
use super::{Call, CommandError, WriteOp, live, unexpected};
use crate::collection::{Attributes, Collection, RowId};
use crate::store::change::Change;
use crate::store::state::Applied;

/// `VPATCHATTR key element json`: changes the attributes by a merge patch (RFC 7396). An element without attributes has
/// `{}`. Fields come out in the order of their names.
pub(super) fn vpatchattr(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let (namespace, key) = (call.namespace, call.key(1));
    let element = Bytes::copy_from_slice(call.request.arg(2));
    let patch: Value = serde_json::from_slice(call.request.arg(3))
        .map_err(|error| CommandError::Text(format!("ERR the patch is not JSON: {error}").into()))?;
    Ok(Box::new(move |txn| {
        let patched = live(txn, namespace, &key).map(|collection| patched(&collection, &element, patch));
        let change = match patched.unwrap_or(Ok(None)) {
            Ok(None) => return Reply::Boolean(false),
            Ok(attributes) => Change::SetAttributes { namespace, key, element, attributes },
            Err(error) => return error.into(),
        };
        Reply::Boolean(txn.apply(&change, None) == Applied::Yes)
    }))
}

/// An element's attributes with a patch; `None` if there is no such element.
fn patched(
    collection: &Collection,
    element: &[u8],
    patch: Value,
) -> Result<Option<Attributes>, CommandError> {
    let Some(row) = row_of(collection, element)? else { return Ok(None) };
    let mut value = match collection.attributes(row) {
        None | Some([]) => Value::Object(Map::new()),
        Some(json) => serde_json::from_slice(json)
            .map_err(|_| CommandError::text("ERR the element's attributes are not JSON"))?,
    };
    merge(&mut value, patch);
    attributes(value.to_string().as_bytes()).map(Some)
}

/// The function `MergePatch` of RFC 7396, section 2.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// `VDELBY key (FILTER expr | ALL)`: removes the elements that pass, all at once, and tells how many.
pub(super) fn vdelby(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    const EMPTY: CommandError =
        CommandError::text("ERR an empty filter would remove every element: say ALL if that is meant");
    let wanted = match (call.request.arg(2), call.request.get(3)) {
        (word, None) if is_word(word, "ALL") => None,
        (word, Some(expression)) if is_word(word, "FILTER") && call.request.len() == 4 => {
            let wanted = filter(expression)?;
            if wanted.is_empty() {
                return Err(EMPTY);
            }
            Some(wanted)
        }
        (word, _) => return Err(unexpected(word)),
    };
    let (namespace, key) = (call.namespace, call.key(1));
    Ok(Box::new(move |txn| {
        let Some(collection) = live(txn, namespace, &key) else { return Reply::Integer(0) };
        let name = |row: RowId| Bytes::copy_from_slice(collection.name(row));
        let elements: Vec<Bytes> = match &wanted {
            Some(filter) => collection.passing(filter).map(name).collect(),
            None => collection.live_rows().map(name).collect(),
        };
        drop(collection);
        let removed = i64::try_from(elements.len()).unwrap_or(i64::MAX);
        for element in elements {
            txn.apply(&Change::Remove { namespace, key: key.clone(), element }, None);
        }
        Reply::Integer(removed)
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn patches_merge_as_the_standard_shows() {
        for (mut target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            merge(&mut target, patch);
            assert_eq!(target, result);
        }
    }
}
