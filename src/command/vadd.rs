//! VADD, and what it shares with VSIM: reading a vector from the arguments.

use std::sync::Arc;

use bytes::Bytes;

use super::parse::{float, integer, integer_within, is_word};
use super::permissions::Quota;
use super::reply::Reply;
use super::request::Request;
use super::text::check_size;
use super::vcreate::one_of;
use super::vexpire::add_expiry;
use super::{Call, CommandError, WriteOp, fields, live};
use crate::collection::sparse::{MAX_TERMS, Sparse, encode};
use crate::collection::{
    AttributeChange, Attributes, Collection, Encoded, MAX_ATTRIBUTE_BYTES, MAX_DIMENSION, MAX_ELEMENT_BYTES,
    Params, Text, TextChange,
};
use crate::embed::{ModelId, Role};
use crate::heap::heap_bytes;
use crate::store::Txn;
use crate::store::change::Change;
use crate::store::state::{Applied, Key, NamespaceId};
use crate::vector::{Layout, Metric, Quantization, project};

/// What M may be.
pub const M_RANGE: (i64, i64) = (4, 4096);
/// What EF may be.
pub const EF_RANGE: (i64, i64) = (1, 1_000_000);

const BAD_VECTOR: CommandError = CommandError::text("ERR invalid vector specification");

/// Reads `FP32 blob` or `VALUES n f1 ... fn` at an argument. Gives the vector and the argument after it. Components
/// must be finite.
pub(super) fn vector(request: &Request, at: usize) -> Result<(Vec<f32>, usize), CommandError> {
    let (vector, next) = read_vector(request, at).ok_or(BAD_VECTOR)?;
    let sound =
        !vector.is_empty() && vector.len() <= MAX_DIMENSION && vector.iter().all(|value| value.is_finite());
    if sound { Ok((vector, next)) } else { Err(BAD_VECTOR) }
}

fn read_vector(request: &Request, at: usize) -> Option<(Vec<f32>, usize)> {
    let format = request.get(at)?;
    if is_word(format, "FP32") {
        let blob = request.get(at + 1)?;
        let (components, rest) = blob.as_chunks::<4>();
        return rest
            .is_empty()
            .then(|| (components.iter().map(|c| f32::from_le_bytes(*c)).collect(), at + 2));
    }
    if is_word(format, "VALUES") {
        let len = usize::try_from(integer(request.get(at + 1)?)?).ok()?;
        let end = (at + 2).checked_add(len).filter(|&end| end <= request.len())?;
        let values: Option<Vec<f32>> = (at + 2..end).map(|index| component(request.arg(index))).collect();
        return Some((values?, end));
    }
    None
}

#[expect(clippy::cast_possible_truncation, reason = "vectors are stored as f32")]
fn component(argument: &[u8]) -> Option<f32> {
    float(argument).map(|value| value as f32)
}

/// A VADD as it was asked for.
pub(super) struct Add {
    /// The vector, projected already.
    pub vector: Vec<f32>,
    input_dim: usize,
    pub reduced: bool,
    pub element: Bytes,
    /// The field that the vector is for, instead of the element itself.
    field: Option<Bytes>,
    quantization: Option<Quantization>,
    m: Option<u32>,
    pub attributes: AttributeChange,
    pub text: TextChange,
    /// The new sparse vector, if one is given; empty for none.
    pub sparse: Option<Sparse>,
    /// When the element goes by itself, unix milliseconds.
    pub expires_ms: Option<u64>,
    /// The model that made the vector.
    pub model: Option<Arc<ModelId>>,
    condition: Option<Condition>,
}

/// When an addition is made; otherwise it does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// NX: if the element is not there.
    Absent,
    /// XX: if it is.
    Present,
}

/// `VADD key [REDUCE dim] (FP32 blob | VALUES n f1 ... fn | TEXT text) element [CAS] [NOQUANT | Q8 | BIN] [EF n]
/// [SETATTR json] [SETTEXT text] [SETSPARSE n term weight ...] [EX seconds] [M n] [NX | XX] [FIELD name]`
pub(super) fn vadd(call: &Call<'_>) -> Result<WriteOp, CommandError> {
    check_memory(call)?;
    let mut add = parse(call)?;
    if let Some(field) = add.field.take() {
        return fields::add(call, field, add);
    }
    let (namespace, key, quota) = (call.namespace, call.key(1), call.scope.quota());
    let params = add.params();
    // Most often the collection is there; if it is not what it will be, the writer encodes again.
    let expected = call.known(1).map_or(params, |collection| collection.params);
    let fits = expected.layout.dim == add.vector.len();
    let encoded = Encoded::new(if fits { &expected } else { &params }, &add.vector)
        .with_text(expected.analyzer, &add.text);
    Ok(Box::new(move |txn| match write(txn, namespace, key, add, params, &encoded, quota) {
        Ok(new) => Reply::Boolean(new),
        Err(error) => error.into(),
    }))
}

/// Refuses what takes memory while more than `maxmemory` is in use.
pub(super) fn check_memory(call: &Call<'_>) -> Result<(), CommandError> {
    let limit_bytes = call.context.config().maxmemory_bytes;
    if limit_bytes > 0 && heap_bytes() as u64 > limit_bytes {
        return Err(CommandError::text("OOM command not allowed when used memory > 'maxmemory'."));
    }
    Ok(())
}

fn parse(call: &Call<'_>) -> Result<Add, CommandError> {
    let request = call.request;
    let mut next = 2;
    let mut reduce = None;
    if is_word(request.arg(next), "REDUCE") {
        let dim = request.get(next + 1).and_then(|dim| integer_within(dim, 1, MAX_DIMENSION as i64));
        reduce = Some(dim.and_then(|dim| usize::try_from(dim).ok()).ok_or(BAD_VECTOR)?);
        next += 2;
    }
    let (mut text, mut model) = (None, None);
    let (vector, next) = if request.get(next).is_some_and(|word| is_word(word, "TEXT")) {
        let collection = call.known(1).map(|collection| &**collection);
        let (by, vector) = call.embed_argument(next + 1, Role::Document, collection)?;
        model = Some(Arc::new(by.id.clone()));
        text = Some(Text::from(request.arg(next + 1)));
        (vector.to_vec(), next + 2)
    } else {
        vector(request, next)?
    };
    if reduce.is_some_and(|dim| dim > vector.len()) {
        return Err(BAD_VECTOR);
    }
    let element = request.get(next).ok_or(CommandError::Arity("VADD".into()))?;
    if element.len() > MAX_ELEMENT_BYTES {
        return Err(CommandError::text("ERR an element's name can have 65536 bytes at most"));
    }
    let input_dim = vector.len();
    let mut add = Add {
        vector: match reduce {
            Some(dim) => project(&vector, dim),
            None => vector,
        },
        input_dim,
        reduced: reduce.is_some(),
        // Copied: a slice would keep the whole read buffer alive.
        element: Bytes::copy_from_slice(element),
        field: None,
        quantization: None,
        m: None,
        attributes: AttributeChange::Keep,
        text: TextChange::Keep,
        sparse: None,
        expires_ms: None,
        model,
        condition: None,
    };
    options(request, next + 1, &mut add)?;
    // The text of an element is what made its own vector.
    if add.text == TextChange::Keep && add.field.is_none() && text.is_some() {
        add.text = TextChange::Set(text);
    }
    Ok(add)
}

fn options(request: &Request, mut next: usize, add: &mut Add) -> Result<(), CommandError> {
    const BAD_OPTION: CommandError = CommandError::text("ERR invalid option after element");
    while let Some(word) = request.get(next) {
        let value = request.get(next + 1);
        next += 1;
        if let Some(condition) = one_of(&[("NX", Condition::Absent), ("XX", Condition::Present)], word) {
            if add.condition.is_some_and(|other| other != condition) {
                let text = "ERR NX and XX options at the same time are not compatible";
                return Err(CommandError::text(text));
            }
            add.condition = Some(condition);
        } else if is_word(word, "CAS") {
            // Accepted: every addition is made by the one writer, atomically, whatever its vector costs to place.
        } else if is_word(word, "NOQUANT") {
            add.quantization = Some(Quantization::F32);
        } else if is_word(word, "Q8") {
            add.quantization = Some(Quantization::Int8);
        } else if is_word(word, "BIN") {
            add.quantization = Some(Quantization::Bin);
        } else {
            let value = value.ok_or(BAD_OPTION)?;
            next += 1;
            if is_word(word, "EF") {
                integer_within(value, EF_RANGE.0, EF_RANGE.1).ok_or(CommandError::text("ERR invalid EF"))?;
            } else if is_word(word, "M") {
                let m = integer_within(value, M_RANGE.0, M_RANGE.1).and_then(|m| u32::try_from(m).ok());
                add.m = Some(m.ok_or(CommandError::text("ERR invalid M"))?);
            } else if is_word(word, "SETATTR") {
                add.attributes = AttributeChange::Set(Some(attributes(value)?));
            } else if is_word(word, "SETSPARSE") {
                let (sparse, after) = sparse(request, next - 1)?;
                add.sparse = Some(sparse);
                next = after;
            } else if is_word(word, "FIELD") {
                add.field = Some(Bytes::copy_from_slice(value));
            } else if is_word(word, "EX") {
                add.expires_ms = Some(add_expiry(value)?);
            } else if is_word(word, "SETTEXT") {
                check_size(value)?;
                add.text = TextChange::Set((!value.is_empty()).then(|| Text::from(value)));
            } else {
                return Err(BAD_OPTION);
            }
        }
    }
    Ok(())
}

/// Reads `n term weight ...` at an argument. Gives the sparse vector and the argument after it.
pub(super) fn sparse(request: &Request, at: usize) -> Result<(Sparse, usize), CommandError> {
    const BAD_SPARSE: CommandError = CommandError::text("ERR invalid sparse vector specification");
    let most = MAX_TERMS as i64;
    let count = request.get(at).and_then(|count| integer_within(count, 0, most));
    let count = count.and_then(|count| usize::try_from(count).ok()).ok_or(BAD_SPARSE)?;
    let end = at + 1 + 2 * count;
    if end > request.len() {
        return Err(BAD_SPARSE);
    }
    let terms = (at + 1..end).step_by(2).map(|at| Some((request.arg(at), component(request.arg(at + 1))?)));
    let terms: Option<Vec<(&[u8], f32)>> = terms.collect();
    let sparse = encode(terms.ok_or(BAD_SPARSE)?);
    Ok((sparse.map_err(|error| CommandError::Text(format!("ERR {error}").into()))?, end))
}

/// Attributes to keep.
pub(super) fn attributes(value: &[u8]) -> Result<Attributes, CommandError> {
    if value.len() > MAX_ATTRIBUTE_BYTES {
        return Err(CommandError::text("ERR an element's attributes can have 1048576 bytes at most"));
    }
    Ok(Attributes::from(value))
}

impl Add {
    /// What a collection made by this would be.
    fn params(&self) -> Params {
        let quantization = self.quantization.unwrap_or(Quantization::Int8);
        let layout = Layout { dim: self.vector.len(), metric: Metric::Cosine, quantization };
        let input_dim = if self.reduced { self.input_dim } else { 0 };
        Params {
            projection_input_dim: u32::try_from(input_dim).unwrap_or(u32::MAX),
            m: self.m.unwrap_or(Params::DEFAULT_M),
            ..Params::new(layout)
        }
    }

    /// Whether its condition excludes it, given whether what it adds is there.
    pub(super) fn is_excluded(&self, is_there: bool) -> bool {
        self.condition.is_some_and(|condition| (condition == Condition::Present) != is_there)
    }

    /// Checks it against the collection and the field that its vector is for.
    pub(super) fn check_field(&self, collection: &Collection, field: &Params) -> Result<(), CommandError> {
        self.check(field)?;
        check_model(self.model.as_deref(), collection.model.as_deref())
    }

    fn check(&self, existing: &Params) -> Result<(), CommandError> {
        // What was declared is inherited; otherwise what is not asked for means its default, as in Redis.
        let quantization = self.quantization.or((!existing.declared).then_some(Quantization::Int8));
        let m = self.m.or((!existing.declared).then_some(Params::DEFAULT_M));
        if quantization.is_some_and(|asked| asked != existing.layout.quantization) {
            return Err(CommandError::text("ERR asked quantization mismatch with existing vector set"));
        }
        if m.is_some_and(|asked| asked != existing.m) {
            return Err(CommandError::text("ERR asked M value mismatch with existing vector set"));
        }
        let input_dim = existing.projection_input_dim;
        let compared_dim = if input_dim == 0 { self.input_dim } else { self.vector.len() };
        let projects = input_dim != 0;
        if compared_dim != existing.layout.dim || (projects && !self.reduced) {
            return Err(dimension_mismatch(self.input_dim, existing.layout.dim));
        }
        if self.reduced && !projects {
            return Err(CommandError::text("ERR cannot add projection to existing set without projection"));
        }
        if !projects {
            return Ok(());
        }
        if self.input_dim != input_dim as usize {
            return Err(input_mismatch(self.input_dim, input_dim));
        }
        Ok(())
    }
}

/// A vector that does not have its set's dimension.
pub(super) fn dimension_mismatch(got: usize, has: usize) -> CommandError {
    CommandError::Text(format!("ERR Vector dimension mismatch - got {got} but set has {has}").into())
}

/// A vector of the wrong size for a set that projects.
pub(super) fn input_mismatch(got: usize, expected: u32) -> CommandError {
    let text =
        format!("ERR Input dimension mismatch for projection - got {got} but projection expects {expected}");
    CommandError::Text(text.into())
}

fn write(
    txn: &mut Txn<'_>,
    namespace: NamespaceId,
    key: Key,
    add: Add,
    mut params: Params,
    encoded: &Encoded,
    quota: Quota,
) -> Result<bool, CommandError> {
    let mut is_there = false;
    if let Some(existing) = live(txn, namespace, &key) {
        add.check(&existing.params)?;
        check_model(add.model.as_deref(), existing.model.as_deref())?;
        params = existing.params;
        is_there = existing.contains(&add.element);
    }
    if add.is_excluded(is_there) {
        return Ok(false);
    }
    let Add { vector, element, attributes, text, sparse, expires_ms, model, .. } = add;
    let (view, elements) = (txn.view(), std::iter::once(&element[..]));
    quota.admit(view, namespace, view.get(namespace, &key), vector.len(), elements)?;
    let attributes = stored(txn, namespace, &key, &element, attributes);
    let sparse = sparse.map(|sparse| Change::SetSparse {
        namespace,
        key: key.clone(),
        element: element.clone(),
        sparse,
    });
    let expiry = expires_ms.map(|at_ms| Change::ExpireElement {
        namespace,
        key: key.clone(),
        element: element.clone(),
        at_ms: Some(at_ms),
    });
    let change = Change::Add { namespace, key, params, element, vector, attributes, text, model };
    let added = txn.apply(&change, Some(encoded)) == Applied::Yes;
    for change in sparse.iter().chain(&expiry) {
        txn.apply(change, None);
    }
    Ok(added)
}

/// A text's vector belongs into a collection of the same model only.
pub(super) fn check_model(used: Option<&ModelId>, bound: Option<&ModelId>) -> Result<(), CommandError> {
    match (used, bound) {
        (Some(used), Some(bound)) if used != bound => {
            let name = |model: &ModelId| format!("'{}' {}", model.name, model.short_hash());
            let text = format!(
                "ERR the collection is of model {}, the text was embedded by {}",
                name(bound),
                name(used)
            );
            Err(CommandError::Text(text.into()))
        }
        _ => Ok(()),
    }
}

/// What an addition does to the attributes: Redis keeps empty ones of a new element, and takes them as "none" for one that
/// is there.
pub(super) fn stored(
    txn: &Txn<'_>,
    namespace: NamespaceId,
    key: &Key,
    element: &[u8],
    attributes: AttributeChange,
) -> AttributeChange {
    let empty = matches!(&attributes, AttributeChange::Set(Some(value)) if value.is_empty());
    let is_there = || txn.view().get(namespace, key).is_some_and(|collection| collection.contains(element));
    if empty && is_there() { AttributeChange::Set(None) } else { attributes }
}
