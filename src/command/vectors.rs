//! Commands about single elements and whole sets: VREM, VCARD, VDIM, VEMB, VGETATTR, VSETATTR, VINFO, VISMEMBER.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::parse::is_word;
use super::reply::Reply;
use super::vadd::attributes;
use super::vcreate::{index_name, metric_name};
use super::{Call, CommandError, Outcome, WriteOp, live};
use crate::collection::{Collection, Found, RowId};
use crate::store::change::Change;
use crate::store::state::Applied;
use crate::vector::{Metric, Quantization};

/// The row of an element, if the set has it.
pub(super) fn row_of(collection: &Collection, element: &[u8]) -> Result<Option<RowId>, CommandError> {
    match collection.find(element) {
        Found::Row(row) => Ok(Some(row)),
        Found::Absent => Ok(None),
        Found::Stale => Err(CommandError::Stale),
    }
}

/// The set and row named by `key element`.
pub(super) fn element<'a>(call: &Call<'a>) -> Result<Option<(&'a Arc<Collection>, RowId)>, CommandError> {
    let Some(collection) = call.collection(1) else {
        return Ok(None);
    };
    Ok(row_of(collection, call.request.arg(2))?.map(|row| (collection, row)))
}

/// `VCARD key`
pub(super) fn vcard(call: &Call<'_>) -> Result<Outcome, CommandError> {
    Ok(Outcome::Reply(Reply::integer(call.collection(1).map_or(0, |collection| collection.len()))))
}

/// `VDIM key`
pub(super) fn vdim(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let collection = call.collection(1).ok_or(CommandError::text("ERR key does not exist"))?;
    Ok(Outcome::Reply(Reply::integer(collection.params.layout.dim)))
}

/// `VISMEMBER key element`
pub(super) fn vismember(call: &Call<'_>) -> Result<Outcome, CommandError> {
    Ok(Outcome::Reply(Reply::Boolean(element(call)?.is_some())))
}

/// `VGETATTR key element`
pub(super) fn vgetattr(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let attributes = element(call)?.and_then(|(collection, row)| collection.attributes(row));
    Ok(Outcome::Reply(attributes.map_or(Reply::Null, Reply::bulk)))
}

/// `VEMB key element [RAW] [FIELD name]`: the vector as it was given (for binary sets the signs, as Redis answers), or its
/// code.
pub(super) fn vemb(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let (mut raw, mut field, mut next) = (false, None, 3);
    while let Some(word) = call.request.get(next) {
        if is_word(word, "RAW") && !raw {
            raw = true;
        } else if is_word(word, "FIELD") && next + 1 < call.request.len() {
            next += 1;
            field = call.request.get(next);
        } else {
            return Err(CommandError::text("ERR invalid option"));
        }
        next += 1;
    }
    let Some(collection) = call.collection(1) else { return Ok(Outcome::Reply(Reply::Null)) };
    let collection = call.vectors(&call.key(1), collection, field)?;
    let Some(row) = row_of(collection, call.request.arg(2))? else { return Ok(Outcome::Reply(Reply::Null)) };
    if raw {
        return raw_code(collection, row).map(Outcome::Reply);
    }
    let vector = collection.vector(row)?;
    let binary = collection.params.layout.quantization == Quantization::Bin;
    let sign = |value: f32| if value > 0.0 { 1.0 } else { -1.0 };
    let component = |&value: &f32| Reply::Double(if binary { sign(value) } else { f64::from(value) });
    Ok(Outcome::Reply(Reply::Array(vector.iter().map(component).collect())))
}

/// The kind of code, the code, the norm of the vector and, for int8, the range: a component of the (unit) vector is
/// code x range / 127.
fn raw_code(collection: &Collection, row: RowId) -> Result<Reply, CommandError> {
    let layout = &collection.params.layout;
    let (codes, scalars) = collection.encoded(row);
    let code = match layout.quantization {
        // Stored with 128 added.
        Quantization::Int8 => codes[..layout.dim].iter().map(|code| code ^ 0x80).collect(),
        Quantization::Bin => codes[..layout.dim.div_ceil(64) * 8].to_vec(),
        Quantization::F32 => {
            let unit = if layout.metric == Metric::Cosine { scalars.scale } else { 1.0 };
            let vector = collection.vector(row)?;
            vector.iter().flat_map(|component| (component * unit).to_le_bytes()).collect()
        }
    };
    let mut fields = vec![
        Reply::simple(layout.quantization.name()),
        Reply::Bulk(code.into()),
        // Redis says 1 for a zero vector.
        Reply::Double(if scalars.norm == 0.0 { 1.0 } else { f64::from(scalars.norm) }),
    ];
    if layout.quantization == Quantization::Int8 {
        fields.push(Reply::Double(f64::from(scalars.scale * 127.0)));
    }
    Ok(Reply::Array(fields))
}

/// `VINFO key`: Redis's nine fields, then ours.
pub(super) fn vinfo(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let Some(collection) = call.collection(1) else {
        return Ok(Outcome::Reply(Reply::NullArray));
    };
    let params = &collection.params;
    let graph = collection.index.graph();
    let tuning = graph.as_ref().and_then(|graph| graph.tuning());
    let (model, hash) = match &collection.model {
        Some(model) => (Reply::bulk(model.name.as_bytes()), Reply::simple(model.short_hash())),
        None => (Reply::Null, Reply::Null),
    };
    let key = call.key(1);
    let vectors = call.snapshot.fields(call.namespace, &key).map(|(name, field)| {
        let sizes = [("dim", Reply::integer(field.params.layout.dim)), ("size", Reply::integer(field.len()))];
        let sizes = sizes.into_iter().map(|(name, value)| (Reply::simple(name), value)).collect();
        (Reply::bulk(name), Reply::Map(sizes))
    });
    let fields = [
        ("quant-type", Reply::simple(params.layout.quantization.name())),
        ("hnsw-m", Reply::integer(params.m)),
        ("vector-dim", Reply::integer(params.layout.dim)),
        ("projection-input-dim", Reply::integer(params.projection_input_dim)),
        ("size", Reply::integer(collection.len())),
        ("max-level", Reply::integer(graph.as_ref().map_or(0, |graph| graph.graph.max_level()))),
        ("attributes-count", Reply::integer(collection.attributes_count)),
        // It would tell how many collections others make.
        ("vset-uid", Reply::integer(if call.scope.tenant().is_none() { collection.uid } else { 0 })),
        ("hnsw-max-node-uid", Reply::integer(collection.rows())),
        ("metric", Reply::simple(metric_name(params.layout.metric))),
        ("raw", Reply::simple(if params.raw { "yes" } else { "no" })),
        ("index", Reply::simple(index_name(params.index))),
        ("ef", Reply::integer(params.ef)),
        ("model", model),
        ("model-hash", hash),
        ("analyzer", Reply::bulk(params.analyzer.to_string().as_bytes())),
        ("rows", Reply::integer(collection.rows())),
        ("dead-rows", Reply::integer(collection.rows() - collection.len())),
        ("chunks", Reply::integer(collection.chunks.len())),
        ("documents", Reply::integer(collection.documents().len())),
        ("memory-bytes", Reply::integer(call.snapshot.size_bytes(call.namespace, &key))),
        ("graph-rows", Reply::integer(graph.as_ref().map_or(0, |graph| graph.graph.len()))),
        ("graph-searches", Reply::integer(collection.index.searches.load(Ordering::Relaxed))),
        ("graph-ef", tuning.map_or(Reply::Null, |tuning| Reply::integer(tuning.ef))),
        ("graph-recall", tuning.map_or(Reply::Null, |tuning| Reply::Double(tuning.recall))),
        ("sketch-rows", Reply::integer(collection.sketches.rows())),
        ("sketch-bytes", Reply::integer(collection.sketches.row_bytes())),
        ("fields", Reply::Map(vectors.collect())),
    ];
    let fields = fields.into_iter().map(|(name, value)| (Reply::simple(name), value)).collect();
    Ok(Outcome::Reply(Reply::Map(fields)))
}

/// `VREM key element [element ...]`: one element gives a boolean, as in Redis; several give how many were removed.
pub(super) fn vrem(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let (namespace, key) = (call.namespace, call.key(1));
    let elements: Vec<Bytes> = call.request.args().skip(2).map(Bytes::copy_from_slice).collect();
    Ok(Box::new(move |txn| {
        let single = elements.len() == 1;
        live(txn, namespace, &key);
        let mut removed = 0;
        for element in elements {
            let change = Change::Remove { namespace, key: key.clone(), element };
            removed += i64::from(txn.apply(&change, None) == Applied::Yes);
        }
        if single { Reply::Boolean(removed == 1) } else { Reply::Integer(removed) }
    }))
}

/// `VSETATTR key element json`: an empty text removes the attributes.
pub(super) fn vsetattr(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let (namespace, key) = (call.namespace, call.key(1));
    let element = Bytes::copy_from_slice(call.request.arg(2));
    let attributes = match call.request.arg(3) {
        [] => None,
        value => Some(attributes(value)?),
    };
    Ok(Box::new(move |txn| {
        live(txn, namespace, &key);
        let change = Change::SetAttributes { namespace, key, element, attributes };
        Reply::Boolean(txn.apply(&change, None) == Applied::Yes)
    }))
}
