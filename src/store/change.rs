//! What can change in the store, and how a change is written in the log.
//!
//! A log record's payload is a version byte and then changes, one after the other, until its end. A change is a kind
//! byte, the namespace (u32) and the fields below; all integers are little-endian, a byte string is its length (u32)
//! and its bytes. A record is applied as a whole or not at all.
//!
//! | kind | fields |
//! |---|---|
//! | 1 add | key, parameters (`params.rs`), element, attributes, f32s |
//! | 2 remove | key, element |
//! | 3 set attributes | key, element, attributes |
//! | 4 drop | key |
//! | 5 flush | |
//! | 6 create | key, parameters |
//! | 7 expire | key, unix milliseconds u64, 0 for never |
//! | 8 rename | key, new key |
//! | 9 add with text | key, parameters, element, attributes, text, model, f32s |
//! | 10 create with model | key, parameters, model |
//! | 11 expire element | key, element, unix milliseconds u64, 0 for never |
//! | 12 set sparse vector | key, element, the sparse vector as `collection/sparse.rs` encodes it, empty for none |
//! | 13 wish for a graph | key, the wish u8: 0 none, 1 build, 2 drop |
//! | 16 set document | key, URI, the document as `collection/documents.rs` encodes it, empty for none |
//! | 20 create field | key, field, dimension u32 |
//! | 21 set field | key, element, field, model, f32s |
//! | 32 to 37 | users and namespaces: `users.rs` |
//!
//! `attributes` and `text` are a byte: 0 keep, 1 remove, 2 a byte string follows. `model` is a byte: 0 none, 1 its name as
//! a byte string and its hash (32 bytes) follow. Without text and model, kinds 1 and 6 are written.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::fields::MAX_FIELD_BYTES;
use super::params::{PARAMS_BYTES, ParamsV1, WISHES, code, value};
use super::state::{Key, NamespaceId};
use super::users::{self, UserChange};
use crate::collection::documents::Document;
use crate::collection::sparse::{Sparse, is_sound};
use crate::collection::{AttributeChange, Attributes, GraphWish, MAX_DIMENSION, Params, Text, TextChange};
use crate::embed::ModelId;

/// Version of the payload's format.
const PAYLOAD_VERSION: u8 = 1;

/// A change to the store: everything that outlives a restart is made of these.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Adds an element or replaces its vector; makes the collection if there is none.
    Add {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// What the collection is, or is to be.
        params: Params,
        /// Name.
        element: Bytes,
        /// Vector as received, projected already if the collection reduces.
        vector: Vec<f32>,
        /// What happens to the attributes.
        attributes: AttributeChange,
        /// What happens to the text.
        text: TextChange,
        /// The model that made the vector, if one did: the collection keeps to the first.
        model: Option<Arc<ModelId>>,
    },
    /// Removes an element; removes the collection with its last one.
    Remove {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Name.
        element: Bytes,
    },
    /// Sets or removes an element's attributes.
    SetAttributes {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Name.
        element: Bytes,
        /// The new ones.
        attributes: Option<Attributes>,
    },
    /// Removes a collection.
    Drop {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
    },
    /// Makes an empty collection.
    Create {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// What it is to be.
        params: Params,
        /// The model that is to embed its texts.
        model: Option<Arc<ModelId>>,
    },
    /// Sets when a collection goes by itself.
    Expire {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Unix milliseconds; `None`: never.
        at_ms: Option<u64>,
    },
    /// Sets when an element goes by itself.
    ExpireElement {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Name.
        element: Bytes,
        /// Unix milliseconds; `None`: never.
        at_ms: Option<u64>,
    },
    /// Gives an element that has just been added a sparse vector, in place of the one it had.
    SetSparse {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Name.
        element: Bytes,
        /// The new one; empty means none.
        sparse: Sparse,
    },
    /// Says which elements are chunks of a document, or that there is no such document.
    SetDocument {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// The document's URI.
        uri: Bytes,
        /// The document.
        document: Option<Arc<Document>>,
    },
    /// Gives a collection a field: a further vector for its elements.
    CreateField {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Name of the field.
        field: Bytes,
        /// Dimensions of its vectors.
        dim: usize,
    },
    /// Gives an element its vector in a field, in place of the one it had.
    SetField {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Name.
        element: Bytes,
        /// Name of the field.
        field: Bytes,
        /// Vector as received.
        vector: Vec<f32>,
        /// The model that made the vector, if one did: the collection keeps to the first.
        model: Option<Arc<ModelId>>,
    },
    /// Gives or denies a collection and its fields graphs.
    WishGraph {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// What is asked for.
        wish: GraphWish,
    },
    /// Gives a collection another key, in place of what had it.
    Rename {
        /// Where.
        namespace: NamespaceId,
        /// Collection.
        key: Key,
        /// Its new key.
        to: Key,
    },
    /// Removes every collection of a namespace.
    Flush {
        /// Where.
        namespace: NamespaceId,
    },
    /// Changes users or namespaces.
    Users(UserChange),
}

/// A payload that passed its checksum but does not read as changes.
#[derive(Debug, Error)]
#[error("a log record does not read as changes: {0}")]
pub struct PayloadError(&'static str);

impl PayloadError {
    pub(super) const fn new(what: &'static str) -> Self {
        Self(what)
    }
}

/// Begins a record's payload.
pub fn begin_payload(out: &mut Vec<u8>) {
    out.push(PAYLOAD_VERSION);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or_else(|_| unreachable!("requests are shorter than 4 GiB"));
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_attributes(out: &mut Vec<u8>, change: &AttributeChange) {
    match change {
        AttributeChange::Keep => out.push(0),
        AttributeChange::Set(None) => out.push(1),
        AttributeChange::Set(Some(value)) => {
            out.push(2);
            put_bytes(out, value);
        }
    }
}

fn put_text(out: &mut Vec<u8>, change: &TextChange) {
    match change {
        TextChange::Keep => out.push(0),
        TextChange::Set(None) => out.push(1),
        TextChange::Set(Some(value)) => {
            out.push(2);
            put_bytes(out, value);
        }
    }
}

fn put_model(out: &mut Vec<u8>, model: Option<&ModelId>) {
    out.push(u8::from(model.is_some()));
    if let Some(model) = model {
        put_bytes(out, model.name.as_bytes());
        out.extend_from_slice(&model.hash);
    }
}

impl Change {
    /// The key it changes; `None` if it changes all.
    pub fn key(&self) -> Option<&Key> {
        match self {
            Self::Add { key, .. }
            | Self::Remove { key, .. }
            | Self::SetAttributes { key, .. }
            | Self::Drop { key, .. }
            | Self::Create { key, .. }
            | Self::Expire { key, .. }
            | Self::ExpireElement { key, .. }
            | Self::SetSparse { key, .. }
            | Self::WishGraph { key, .. }
            | Self::CreateField { key, .. }
            | Self::SetField { key, .. }
            | Self::SetDocument { key, .. }
            | Self::Rename { key, .. } => Some(key),
            Self::Flush { .. } | Self::Users(_) => None,
        }
    }

    /// Appends the change to a payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut head = |kind: u8, namespace: &NamespaceId| {
            out.push(kind);
            out.extend_from_slice(&namespace.0.to_le_bytes());
        };
        match self {
            Self::Add { namespace, key, params, element, vector, attributes, text, model } => {
                let with_text = *text != TextChange::Keep || model.is_some();
                head(if with_text { 9 } else { 1 }, namespace);
                put_bytes(out, key.name());
                out.extend_from_slice(&ParamsV1::from(params).to_bytes());
                put_bytes(out, element);
                put_attributes(out, attributes);
                if with_text {
                    put_text(out, text);
                    put_model(out, model.as_deref());
                }
                put_bytes(out, bytemuck::cast_slice(vector));
            }
            Self::Remove { namespace, key, element } => {
                head(2, namespace);
                put_bytes(out, key.name());
                put_bytes(out, element);
            }
            Self::SetAttributes { namespace, key, element, attributes } => {
                head(3, namespace);
                put_bytes(out, key.name());
                put_bytes(out, element);
                put_attributes(out, &AttributeChange::Set(attributes.clone()));
            }
            Self::Drop { namespace, key } => {
                head(4, namespace);
                put_bytes(out, key.name());
            }
            Self::Flush { namespace } => head(5, namespace),
            Self::Users(change) => change.encode(out),
            Self::Create { namespace, key, params, model } => {
                head(if model.is_some() { 10 } else { 6 }, namespace);
                put_bytes(out, key.name());
                out.extend_from_slice(&ParamsV1::from(params).to_bytes());
                if model.is_some() {
                    put_model(out, model.as_deref());
                }
            }
            Self::Expire { namespace, key, at_ms } => {
                head(7, namespace);
                put_bytes(out, key.name());
                out.extend_from_slice(&at_ms.unwrap_or(0).to_le_bytes());
            }
            Self::ExpireElement { namespace, key, element, at_ms } => {
                head(11, namespace);
                put_bytes(out, key.name());
                put_bytes(out, element);
                out.extend_from_slice(&at_ms.unwrap_or(0).to_le_bytes());
            }
            Self::SetSparse { namespace, key, element, sparse } => {
                head(12, namespace);
                put_bytes(out, key.name());
                put_bytes(out, element);
                put_bytes(out, sparse);
            }
            Self::CreateField { namespace, key, field, dim } => {
                head(20, namespace);
                put_bytes(out, key.name());
                put_bytes(out, field);
                let dim = u32::try_from(*dim).unwrap_or_else(|_| unreachable!("dimensions are bounded"));
                out.extend_from_slice(&dim.to_le_bytes());
            }
            Self::SetField { namespace, key, element, field, vector, model } => {
                head(21, namespace);
                put_bytes(out, key.name());
                put_bytes(out, element);
                put_bytes(out, field);
                put_model(out, model.as_deref());
                put_bytes(out, bytemuck::cast_slice(vector));
            }
            Self::SetDocument { namespace, key, uri, document } => {
                head(16, namespace);
                put_bytes(out, key.name());
                put_bytes(out, uri);
                put_bytes(out, &document.as_ref().map_or(Vec::new(), |document| document.encode()));
            }
            Self::WishGraph { namespace, key, wish } => {
                head(13, namespace);
                put_bytes(out, key.name());
                out.push(code(&WISHES, wish));
            }
            Self::Rename { namespace, key, to } => {
                head(8, namespace);
                put_bytes(out, key.name());
                put_bytes(out, to.name());
            }
        }
    }
}

/// Reads fields one after the other.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn hash(&mut self) -> Result<[u8; 32], PayloadError> {
        self.take(32)?.try_into().map_err(|_| PayloadError("it is cut"))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], PayloadError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(PayloadError("it is cut"))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn byte(&mut self) -> Result<u8, PayloadError> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, PayloadError> {
        let bytes = self.take(4)?.try_into();
        Ok(u32::from_le_bytes(bytes.map_err(|_| PayloadError("it is cut"))?))
    }

    fn bytes(&mut self) -> Result<&'a [u8], PayloadError> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    fn key(&mut self) -> Result<Key, PayloadError> {
        Ok(Key::new(Bytes::copy_from_slice(self.bytes()?)))
    }

    pub(super) fn element(&mut self) -> Result<Bytes, PayloadError> {
        Ok(Bytes::copy_from_slice(self.bytes()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, PayloadError> {
        let bytes = self.take(8)?.try_into();
        Ok(u64::from_le_bytes(bytes.map_err(|_| PayloadError("it is cut"))?))
    }

    fn params(&mut self) -> Result<Params, PayloadError> {
        let bytes = self.take(PARAMS_BYTES)?.try_into().map_err(|_| PayloadError("it is cut"))?;
        ParamsV1::from_bytes(bytes).params().ok_or(PayloadError("a collection's parameters are not known"))
    }

    fn attributes(&mut self) -> Result<AttributeChange, PayloadError> {
        match self.byte()? {
            0 => Ok(AttributeChange::Keep),
            1 => Ok(AttributeChange::Set(None)),
            2 => Ok(AttributeChange::Set(Some(Attributes::from(self.bytes()?)))),
            _ => Err(PayloadError("an attribute change is not known")),
        }
    }

    fn text(&mut self) -> Result<TextChange, PayloadError> {
        match self.byte()? {
            0 => Ok(TextChange::Keep),
            1 => Ok(TextChange::Set(None)),
            2 => Ok(TextChange::Set(Some(Text::from(self.bytes()?)))),
            _ => Err(PayloadError("a text change is not known")),
        }
    }

    fn model(&mut self) -> Result<Option<Arc<ModelId>>, PayloadError> {
        match self.byte()? {
            0 => Ok(None),
            1 => {
                let name = std::str::from_utf8(self.bytes()?);
                let name = name.map_err(|_| PayloadError("a model's name is not text"))?.to_owned();
                let hash = self.hash()?;
                Ok(Some(Arc::new(ModelId { name, hash })))
            }
            _ => Err(PayloadError("a model is not known")),
        }
    }

    fn vector(&mut self) -> Result<Vec<f32>, PayloadError> {
        let (components, rest) = self.bytes()?.as_chunks::<4>();
        if !rest.is_empty() || components.len() > MAX_DIMENSION {
            return Err(PayloadError("a vector is no list of f32s"));
        }
        Ok(components.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn field(&mut self) -> Result<Bytes, PayloadError> {
        let name = self.element()?;
        let sound = (1..=MAX_FIELD_BYTES).contains(&name.len());
        if sound { Ok(name) } else { Err(PayloadError("a field's name is empty or too long")) }
    }

    fn dim(&mut self) -> Result<usize, PayloadError> {
        let dim = usize::try_from(self.u32()?).ok().filter(|dim| (1..=MAX_DIMENSION).contains(dim));
        dim.ok_or(PayloadError("a field's dimension is out of range"))
    }

    fn change(&mut self) -> Result<Change, PayloadError> {
        let kind = self.byte()?;
        let namespace = NamespaceId(self.u32()?);
        if namespace.holds_fields() {
            return Err(PayloadError("a namespace's number is too large"));
        }
        Ok(match kind {
            1 | 9 => {
                let key = self.key()?;
                let params = self.params()?;
                let element = self.element()?;
                let attributes = self.attributes()?;
                let (text, model) = match kind {
                    1 => (TextChange::Keep, None),
                    _ => (self.text()?, self.model()?),
                };
                let vector = self.vector()?;
                if vector.len() != params.layout.dim {
                    return Err(PayloadError("a vector does not have its collection's dimension"));
                }
                Change::Add { namespace, key, params, element, vector, attributes, text, model }
            }
            2 => Change::Remove { namespace, key: self.key()?, element: self.element()? },
            3 => {
                let (key, element) = (self.key()?, self.element()?);
                let AttributeChange::Set(attributes) = self.attributes()? else {
                    return Err(PayloadError("a change of attributes has none"));
                };
                Change::SetAttributes { namespace, key, element, attributes }
            }
            4 => Change::Drop { namespace, key: self.key()? },
            5 => Change::Flush { namespace },
            6 => Change::Create { namespace, key: self.key()?, params: self.params()?, model: None },
            10 => {
                let (key, params, model) = (self.key()?, self.params()?, self.model()?);
                Change::Create { namespace, key, params, model }
            }
            7 => {
                let (key, at_ms) = (self.key()?, self.u64()?);
                Change::Expire { namespace, key, at_ms: (at_ms > 0).then_some(at_ms) }
            }
            11 => {
                let (key, element, at_ms) = (self.key()?, self.element()?, self.u64()?);
                Change::ExpireElement { namespace, key, element, at_ms: (at_ms > 0).then_some(at_ms) }
            }
            12 => {
                let (key, element, sparse) = (self.key()?, self.element()?, self.bytes()?);
                if !is_sound(sparse) {
                    return Err(PayloadError("a sparse vector is not sound"));
                }
                Change::SetSparse { namespace, key, element, sparse: sparse.into() }
            }
            20 => {
                let (key, field, dim) = (self.key()?, self.field()?, self.dim()?);
                Change::CreateField { namespace, key, field, dim }
            }
            21 => {
                let (key, element, field) = (self.key()?, self.element()?, self.field()?);
                let (model, vector) = (self.model()?, self.vector()?);
                Change::SetField { namespace, key, element, field, vector, model }
            }
            16 => {
                let (key, uri, bytes) = (self.key()?, self.element()?, self.bytes()?);
                let read = || Document::decode(bytes).ok_or(PayloadError("a document is not sound"));
                let document = if bytes.is_empty() { None } else { Some(Arc::new(read()?)) };
                Change::SetDocument { namespace, key, uri, document }
            }
            13 => {
                let (key, wish) = (self.key()?, value(&WISHES, self.byte()?));
                let wish = wish.ok_or(PayloadError("a wish for a graph is not known"))?;
                Change::WishGraph { namespace, key, wish }
            }
            users::FIRST_KIND..=users::LAST_KIND => Change::Users(UserChange::decode(kind, namespace, self)?),
            8 => Change::Rename { namespace, key: self.key()?, to: self.key()? },
            _ => return Err(PayloadError("a change is of an unknown kind")),
        })
    }
}

/// Reads a payload.
///
/// # Errors
/// When it is of another version or does not read as changes.
pub fn decode_payload(payload: &[u8]) -> Result<Vec<Change>, PayloadError> {
    let mut reader = Reader::new(payload);
    if reader.byte()? != PAYLOAD_VERSION {
        return Err(PayloadError("it is of another version"));
    }
    let mut changes = Vec::new();
    while !reader.is_empty() {
        changes.push(reader.change()?);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::{Layout, Metric, Quantization};

    fn changes() -> Vec<Change> {
        let namespace = NamespaceId(7);
        let key = Key::new(Bytes::from_static(b"docs"));
        let layout = Layout { dim: 2, metric: Metric::Cosine, quantization: Quantization::Int8 };
        let params = Params { projection_input_dim: 5, ..Params::new(layout) };
        let element = Bytes::from_static(b"");
        let model = Some(Arc::new(ModelId { name: "m".to_owned(), hash: [7; 32] }));
        let add = |attributes, text, model| Change::Add {
            namespace,
            key: key.clone(),
            params,
            element: element.clone(),
            vector: vec![1.5, -2.0],
            attributes,
            text,
            model,
        };
        let document = Document {
            hash: [3; 32],
            kind: crate::document::Kind::Code,
            chunk_tokens: 1,
            overlap_tokens: 0,
            text_bytes: 4,
            attributes: Some(Attributes::from(&b"{}"[..])),
            spans: vec![crate::collection::documents::Span { number: 0, start: 0, end: 4, tokens: 1 }],
        };
        vec![
            add(AttributeChange::Keep, TextChange::Keep, None),
            add(AttributeChange::Set(None), TextChange::Keep, model.clone()),
            add(AttributeChange::Keep, TextChange::Set(None), None),
            add(
                AttributeChange::Set(Some(Attributes::from(&b"{}"[..]))),
                TextChange::Set(Some(Text::from(&b"a text"[..]))),
                model.clone(),
            ),
            Change::SetAttributes { namespace, key: key.clone(), element: element.clone(), attributes: None },
            Change::ExpireElement { namespace, key: key.clone(), element: element.clone(), at_ms: Some(9) },
            Change::ExpireElement { namespace, key: key.clone(), element: element.clone(), at_ms: None },
            Change::SetSparse {
                namespace,
                key: key.clone(),
                element: element.clone(),
                sparse: crate::collection::sparse::encode(vec![(b"b", 1.0), (b"a", 0.5)]).unwrap(),
            },
            Change::CreateField {
                namespace,
                key: key.clone(),
                field: Bytes::from_static(b"title"),
                dim: MAX_DIMENSION,
            },
            Change::SetField {
                namespace,
                key: key.clone(),
                element: element.clone(),
                field: Bytes::from_static(b"title"),
                vector: vec![0.5, -1.0, 2.0],
                model: model.clone(),
            },
            Change::SetDocument {
                namespace,
                key: key.clone(),
                uri: Bytes::from_static(b"u"),
                document: Some(Arc::new(document)),
            },
            Change::SetDocument {
                namespace,
                key: key.clone(),
                uri: Bytes::from_static(b"u"),
                document: None,
            },
            Change::Remove { namespace, key: key.clone(), element },
            Change::Create { namespace, key: key.clone(), params, model: None },
            Change::Create { namespace, key: key.clone(), params, model },
            Change::Expire { namespace, key: key.clone(), at_ms: Some(5) },
            Change::Expire { namespace, key: key.clone(), at_ms: None },
            Change::WishGraph { namespace, key: key.clone(), wish: GraphWish::Drop },
            Change::Rename { namespace, key: key.clone(), to: Key::new(Bytes::from_static(b"new")) },
            Change::Drop { namespace, key },
            Change::Flush { namespace },
        ]
    }

    #[test]
    fn payloads_read_back() {
        let mut payload = Vec::new();
        begin_payload(&mut payload);
        changes().iter().for_each(|change| change.encode(&mut payload));
        assert_eq!(decode_payload(&payload).unwrap(), changes());
    }

    #[test]
    fn cut_and_foreign_payloads_are_errors() {
        for change in changes() {
            let mut payload = Vec::new();
            begin_payload(&mut payload);
            change.encode(&mut payload);
            for len in 2..payload.len() {
                assert!(decode_payload(&payload[..len]).is_err());
            }
            payload[0] = 9;
            assert!(decode_payload(&payload).is_err());
        }
    }
}
