//! Collections as such: VCREATE, VLIST, VMADD.

use std::sync::Arc;

use bytes::Bytes;

use super::parse::{integer_within, is_word};
use super::reply::Reply;
use super::vadd::{EF_RANGE, M_RANGE, attributes, check_memory, dimension_mismatch, stored};
use super::{Call, CommandError, Outcome, WriteOp, fields, live, unexpected};
use crate::collection::{
    AttributeChange, Encoded, IndexKind, MAX_DIMENSION, MAX_ELEMENT_BYTES, Params, TextChange,
};
use crate::embed::Model;
use crate::glob;
use crate::store::change::Change;
use crate::store::state::Applied;
use crate::text::Analyzer;
use crate::vector::{Layout, Metric, Quantization};

/// Elements one VMADD may bring.
const MAX_ROWS: i64 = 1_000_000;

/// The name of a metric, as VCREATE takes and VINFO gives it.
pub(super) fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Cosine => "cosine",
        Metric::Ip => "ip",
        Metric::L2 => "l2",
    }
}

/// The word that VCREATE takes and VINFO gives for a kind of index.
pub(super) fn index_name(index: IndexKind) -> &'static str {
    match index {
        IndexKind::Auto => "auto",
        IndexKind::Flat => "flat",
        IndexKind::Hnsw => "hnsw",
    }
}

/// An option's value that is one of a few words.
pub(super) fn one_of<T: Copy>(words: &[(&str, T)], value: &[u8]) -> Option<T> {
    words.iter().find(|(word, _)| is_word(value, word)).map(|(_, value)| *value)
}

/// An option that cannot have this value.
pub(super) fn bad_value(option: &str, value: &[u8]) -> CommandError {
    let value = String::from_utf8_lossy(value);
    CommandError::Text(format!("ERR syntax error, {option} cannot be '{value}'").into())
}

/// `VCREATE key [DIM d] [MODEL name] [METRIC COSINE | IP | L2] [NOQUANT | Q8 | BIN] [RAW YES | NO] [INDEX AUTO | FLAT | HNSW] [M m]
/// [EF ef] [ANALYZER name] [FIELD name DIM d] ...`: a model's dimension is the default.
pub(super) fn vcreate(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    let Declared { params, model, fields } = declared(call)?;
    let model = model.map(|model| Arc::new(model.id.clone()));
    check_memory(call)?;
    let (namespace, key) = (call.namespace, call.key(1));
    Ok(Box::new(move |txn| {
        if live(txn, namespace, &key).is_some() {
            return Reply::error("ERR the key exists already");
        }
        txn.apply(&Change::Create { namespace, key: key.clone(), params, model }, None);
        for (field, dim) in fields {
            txn.apply(&Change::CreateField { namespace, key: key.clone(), field, dim }, None);
        }
        Reply::ok()
    }))
}

/// The model that VCREATE would give a key, if the key holds nothing yet.
pub(super) fn created_model(call: &Call<'_>) -> Option<Arc<Model>> {
    if call.known(1).is_some() { None } else { declared(call).ok()?.model }
}

/// What a VCREATE is to make.
struct Declared {
    params: Params,
    model: Option<Arc<Model>>,
    /// Names and dimensions.
    fields: Vec<(Bytes, usize)>,
}

fn declared(call: &Call<'_>) -> Result<Declared, CommandError> {
    let (request, mut model, mut fields) = (call.request, None, Vec::new());
    let layout = Layout { dim: 0, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let mut params = Params { declared: true, ..Params::new(layout) };
    let mut next = 2;
    while let Some(word) = request.get(next) {
        next += 1;
        let quantizations =
            [("NOQUANT", Quantization::F32), ("Q8", Quantization::Int8), ("BIN", Quantization::Bin)];
        if let Some(quantization) = one_of(&quantizations, word) {
            params.layout.quantization = quantization;
            continue;
        }
        if is_word(word, "FIELD") {
            fields.push(fields::declared(request, next)?);
            next += 3;
            continue;
        }
        let option = ["DIM", "METRIC", "RAW", "INDEX", "M", "EF", "MODEL", "ANALYZER"]
            .into_iter()
            .find(|name| is_word(word, name));
        let option = option.ok_or_else(|| unexpected(word))?;
        let value = request.get(next).ok_or_else(|| unexpected(word))?;
        next += 1;
        if option == "MODEL" {
            model = Some(call.context.embedding.registry.embedder(&String::from_utf8_lossy(value))?);
            continue;
        }
        set(&mut params, option, value).ok_or_else(|| bad_value(option, value))?;
    }
    let model_dims = model.as_ref().map_or(0, |model| model.dims);
    if params.layout.dim == 0 {
        params.layout.dim = model_dims;
    } else if model.is_some() && params.layout.dim != model_dims {
        return Err(dimension_mismatch(model_dims, params.layout.dim));
    }
    if params.layout.dim == 0 {
        return Err(CommandError::text("ERR syntax error, DIM is missing"));
    }
    if !params.raw && params.layout.quantization == Quantization::F32 {
        return Err(CommandError::text("ERR NOQUANT keeps the originals: it cannot go with RAW NO"));
    }
    fields::check(&fields)?;
    Ok(Declared { params, model, fields })
}

fn set(params: &mut Params, option: &str, value: &[u8]) -> Option<()> {
    let number = |least, most| integer_within(value, least, most).and_then(|value| u32::try_from(value).ok());
    match option {
        "DIM" => params.layout.dim = number(1, MAX_DIMENSION as i64)? as usize,
        "M" => params.m = number(M_RANGE.0, M_RANGE.1)?,
        "EF" => params.ef = number(EF_RANGE.0, EF_RANGE.1)?,
        "ANALYZER" => params.analyzer = Analyzer::named(value)?,
        "RAW" => params.raw = one_of(&[("YES", true), ("NO", false)], value)?,
        "METRIC" => {
            let metrics = [("COSINE", Metric::Cosine), ("IP", Metric::Ip), ("L2", Metric::L2)];
            params.layout.metric = one_of(&metrics, value)?;
        }
        _ => {
            let kinds = [("AUTO", IndexKind::Auto), ("FLAT", IndexKind::Flat), ("HNSW", IndexKind::Hnsw)];
            params.index = one_of(&kinds, value)?;
        }
    }
    Some(())
}

/// `VLIST [MATCH pattern] [COUNT n]`: collections with their size and dimension, in the order of their keys.
pub(super) fn vlist(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let (mut pattern, mut count) = (None, usize::MAX);
    let mut next = 1;
    while let Some(word) = call.request.get(next) {
        let value = call.request.get(next + 1).ok_or_else(|| unexpected(word))?;
        next += 2;
        if is_word(word, "MATCH") {
            pattern = Some(value);
        } else if is_word(word, "COUNT") {
            let number = integer_within(value, 1, i64::MAX).ok_or_else(|| bad_value("COUNT", value))?;
            count = usize::try_from(number).unwrap_or(usize::MAX);
        } else {
            return Err(unexpected(word));
        }
    }
    let matches = |name: &[u8]| pattern.is_none_or(|pattern| glob::matches(pattern, name));
    let mut found: Vec<_> = call.live_keys(0).filter(|(key, _)| matches(key.name())).collect();
    found.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
    found.truncate(count);
    let collections = found.into_iter().map(|(key, collection)| {
        Reply::Map(vec![
            (Reply::text("key"), Reply::bulk(key.name())),
            (Reply::text("size"), Reply::integer(collection.len())),
            (Reply::text("dim"), Reply::integer(collection.params.layout.dim)),
            (Reply::text("metric"), Reply::text(metric_name(collection.params.layout.metric))),
            (Reply::text("quant-type"), Reply::text(collection.params.layout.quantization.name())),
        ])
    });
    Ok(Outcome::Reply(Reply::Array(collections.collect())))
}

/// One row of a VMADD.
struct Row {
    element: Bytes,
    vector: Vec<f32>,
    encoded: Encoded,
    attributes: AttributeChange,
}

/// `VMADD key count DIM d FP32 blob id1 ... idN [ATTRS json1 ... jsonN]`: all of it or nothing, in one log record.
pub(super) fn vmadd(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    check_memory(call)?;
    let (namespace, key, quota) = (call.namespace, call.key(1), call.scope.quota());
    let (dim, rows, params) = rows(call)?;
    Ok(Box::new(move |txn| {
        let mut params = params;
        if let Some(existing) = live(txn, namespace, &key) {
            let known = existing.params;
            if known.projection_input_dim != 0 || known.layout.dim != dim {
                return dimension_mismatch(dim, known.layout.dim).into();
            }
            if !known.declared && known.layout.quantization != Quantization::Int8 {
                return Reply::error("ERR asked quantization mismatch with existing vector set");
            }
            params = known;
        }
        let elements = rows.iter().map(|row| &row.element[..]);
        let view = txn.view();
        if let Err(error) = quota.admit(view, namespace, view.get(namespace, &key), dim, elements) {
            return error.into();
        }
        let mut added = 0;
        for Row { element, vector, encoded, attributes } in rows {
            let attributes = stored(txn, namespace, &key, &element, attributes);
            let (key, text) = (key.clone(), TextChange::Keep);
            let change =
                Change::Add { namespace, key, params, element, vector, attributes, text, model: None };
            added += i64::from(txn.apply(&change, Some(&encoded)) == Applied::Yes);
        }
        Reply::Integer(added)
    }))
}

/// The dimension and rows of a VMADD, and the parameters they were encoded for.
fn rows(call: &Call<'_>) -> Result<(usize, Vec<Row>, Params), CommandError> {
    const BAD_VECTOR: CommandError = CommandError::text("ERR invalid vector specification");
    let request = call.request;
    let number = |at: usize, most: i64| {
        let value = request.get(at).and_then(|value| integer_within(value, 1, most));
        value.and_then(|value| usize::try_from(value).ok())
    };
    let count = number(2, MAX_ROWS).ok_or(CommandError::text("ERR invalid number of elements"))?;
    if !is_word(request.arg(3), "DIM") || !is_word(request.arg(5), "FP32") {
        return Err(BAD_VECTOR);
    }
    let dim = number(4, MAX_DIMENSION as i64).ok_or(BAD_VECTOR)?;
    let (components, rest) = request.arg(6).as_chunks::<4>();
    if !rest.is_empty() || components.len() != count * dim {
        return Err(BAD_VECTOR);
    }
    let with_attributes = match request.get(7 + count) {
        None => false,
        Some(word) if is_word(word, "ATTRS") && request.len() == 8 + 2 * count => true,
        Some(word) => return Err(unexpected(word)),
    };
    if request.len() < 7 + count {
        return Err(CommandError::Arity("VMADD".into()));
    }
    let layout = Layout { dim, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let known = call.known(1).map(|collection| collection.params).filter(|params| params.layout.dim == dim);
    let params = known.unwrap_or(Params::new(layout));
    let row = |(at, components): (usize, &[[u8; 4]])| {
        let element = request.arg(7 + at);
        if element.len() > MAX_ELEMENT_BYTES {
            return Err(CommandError::text("ERR an element's name can have 65536 bytes at most"));
        }
        let vector: Vec<f32> = components.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        if !vector.iter().all(|value| value.is_finite()) {
            return Err(BAD_VECTOR);
        }
        let attributes = match with_attributes {
            true => AttributeChange::Set(Some(attributes(request.arg(8 + count + at))?)),
            false => AttributeChange::Keep,
        };
        let encoded = Encoded::new(&params, &vector);
        Ok(Row { element: Bytes::copy_from_slice(element), vector, encoded, attributes })
    };
    let rows: Result<Vec<Row>, CommandError> = components.chunks(dim).enumerate().map(row).collect();
    Ok((dim, rows?, params))
}
