//! VDOC ADD: a text is split into chunks, each of which is embedded and becomes an element.

use std::sync::Arc;

use bytes::Bytes;

use super::super::parse::{integer_within, is_word};
use super::super::permissions::Quota;
use super::super::reply::Reply;
use super::super::text::{Embedded, check_size, text_argument};
use super::super::vadd::{attributes, check_memory, check_model, dimension_mismatch};
use super::super::vcreate::{bad_value, one_of};
use super::super::{Call, CommandError, Context, Write, answer, live, unexpected};
use super::{forget, remove, uri};
use crate::collection::documents::{Document, Span, chunk_name};
use crate::collection::{AttributeChange, Attributes, Collection, Encoded, Params, Text, TextChange};
use crate::document::{self, DEFAULT_CHUNK_TOKENS, KINDS, Kind, MAX_CHUNK_TOKENS, Settings, html};
use crate::embed::{EmbedError, Model, Role, Vector};
use crate::store::Txn;
use crate::store::change::Change;
use crate::store::state::{Key, NamespaceId};
use crate::vector::{Layout, Metric, Quantization};

/// Bytes that a document's attributes may take in all its chunks together.
const MAX_ATTRIBUTE_COPIES_BYTES: usize = 64 << 20;
/// Bytes of a document's chunks, which grow with their overlap.
const MAX_CHUNKS_BYTES: usize = 64 << 20;
/// Tokens a model may put around a text.
const MARK_TOKENS: usize = 2;

/// A document as it was asked for.
struct Ask {
    namespace: NamespaceId,
    key: Key,
    uri: Bytes,
    settings: Settings,
    attributes: Option<Attributes>,
    model: Arc<Model>,
    /// blake3 of everything its chunks depend on.
    hash: [u8; 32],
}

/// A chunk with its text.
struct Chunk {
    span: Span,
    text: Text,
}

impl Chunk {
    fn has_words(&self) -> bool {
        String::from_utf8_lossy(&self.text).contains(char::is_alphanumeric)
    }
}

/// A chunk ready to be an element.
struct Element {
    chunk: Chunk,
    vector: Vector,
    encoded: Encoded,
}

/// `VDOC ADD key uri text [TYPE txt | md | html | code] [ATTR json] [CHUNK tokens] [OVERLAP tokens]`: the number of chunks.
/// A document that is there as it would be is left alone: if the snapshot has everything that comes `before` the command,
/// nothing is split or embedded then, nor is what would be refused.
pub(in super::super) fn add(call: &Call<'_>, before: bool) -> Result<Write, CommandError> {
    check_memory(call)?;
    let collection = call.known(2);
    let text = text_argument(call.request.arg(4))?;
    let ask = parse(call, text, collection.map(|found| &**found))?;
    if let Some(found) = collection.filter(|_| before) {
        if let Some(count) = unchanged(found, &ask) {
            return Ok(Write::Ready(answer(Reply::Integer(count))));
        }
        check(found, &ask.model)?;
    }
    let expected = collection.map_or_else(|| params(ask.model.dims), |found| found.params);
    // Splitting and analysing a long text takes a while: other connections of this thread go on elsewhere.
    let (text_bytes, chunks) = tokio::task::block_in_place(|| chunks(call, &ask, text))?;
    let document = |chunk: &Chunk| {
        let text = String::from_utf8_lossy(&chunk.text).into();
        call.text(Arc::clone(&ask.model), Role::Document, text)
    };
    let texts = chunks.iter().map(document).collect();
    let quota = call.scope.quota();
    if before {
        // Others may be left out: see `elements`.
        let kept = chunks.iter().filter(|chunk| chunk.has_words()).zip(0..);
        let names: Vec<Vec<u8>> = kept.map(|(_, number)| chunk_name(&ask.uri, number)).collect();
        let names = names.iter().map(Vec::as_slice);
        quota.admit(call.snapshot, ask.namespace, collection, ask.model.dims, names)?;
    }
    Ok(Write::Text(
        texts,
        Box::new(move |_: &Context, embedded: &[Embedded]| {
            let prepared = tokio::task::block_in_place(|| elements(chunks, embedded, &ask.model, &expected));
            match prepared {
                Ok(elements) => Box::new(move |txn| {
                    let written = write(txn, &ask, text_bytes, elements, quota);
                    written.map_or_else(Reply::from, Reply::Integer)
                }),
                Err(error) => answer(error.into()),
            }
        }),
    ))
}

fn parse(call: &Call<'_>, text: &str, collection: Option<&Collection>) -> Result<Ask, CommandError> {
    let model = call.model_of(collection)?;
    let most = model.max_tokens.saturating_sub(MARK_TOKENS).clamp(1, MAX_CHUNK_TOKENS);
    let (mut kind, mut given) = (Kind::Text, None);
    let (mut chunk_tokens, mut overlap_tokens) = (DEFAULT_CHUNK_TOKENS.min(most), 0);
    let mut next = 5;
    while let Some(word) = call.request.get(next) {
        let value = call.request.get(next + 1).ok_or_else(|| unexpected(word))?;
        let tokens = |least: i64| {
            let number = integer_within(value, least, i64::try_from(most).unwrap_or(i64::MAX));
            number.and_then(|number| usize::try_from(number).ok())
        };
        if is_word(word, "TYPE") {
            kind = one_of(&KINDS, value).ok_or_else(|| bad_value("TYPE", value))?;
        } else if is_word(word, "ATTR") {
            given = Some(attributes(value)?);
        } else if is_word(word, "CHUNK") {
            chunk_tokens = tokens(1).ok_or_else(|| {
                let text = format!("ERR CHUNK must be 1 to {most}, the tokens that the model reads");
                CommandError::Text(text.into())
            })?;
        } else if is_word(word, "OVERLAP") {
            overlap_tokens = tokens(0).ok_or_else(|| bad_value("OVERLAP", value))?;
        } else {
            return Err(unexpected(word));
        }
        next += 2;
    }
    let uri = uri(call)?;
    let settings = Settings { kind, language: kind.language(&uri), chunk_tokens, overlap_tokens };
    let hash = hash(text, &settings, given.as_deref(), &model);
    let (namespace, key) = (call.namespace, call.key(2).detached());
    Ok(Ask { namespace, key, uri, settings, attributes: given, model, hash })
}

fn hash(text: &str, settings: &Settings, attributes: Option<&[u8]>, model: &Model) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&model.id.hash).update(&[settings.kind.code(), u8::from(attributes.is_some())]);
    for number in [settings.chunk_tokens, settings.overlap_tokens, attributes.map_or(0, <[u8]>::len)] {
        hasher.update(&(number as u64).to_le_bytes());
    }
    hasher.update(attributes.unwrap_or_default()).update(text.as_bytes());
    // Code was split as text once: this makes it another document, while all others stay what they are.
    if settings.language.is_some() {
        hasher.update(b"syntax");
    }
    *hasher.finalize().as_bytes()
}

/// The number of chunks, if the document is there as it would be.
fn unchanged(collection: &Collection, ask: &Ask) -> Option<i64> {
    let document = collection.documents().get(&ask.uri).filter(|document| document.hash == ask.hash)?;
    i64::try_from(document.spans.len()).ok()
}

/// What a collection made by this is.
fn params(dim: usize) -> Params {
    Params::new(Layout { dim, metric: Metric::Cosine, quantization: Quantization::Int8 })
}

/// The chunks of a text, and the bytes of what they lie in: of HTML that is the Markdown it becomes.
fn chunks(call: &Call<'_>, ask: &Ask, text: &str) -> Result<(u32, Vec<Chunk>), CommandError> {
    let counter = call.context.embedding.token_counter(&ask.model)?;
    let markdown = (ask.settings.kind == Kind::Html).then(|| html::to_markdown(text));
    let text = markdown.as_deref().unwrap_or(text);
    check_size(text.as_bytes())?;
    let pieces = document::split(text, &ask.settings, |word| counter.count(word));
    let pieces = pieces.map_err(|error| CommandError::Text(format!("ERR {error}").into()))?;
    if pieces.is_empty() {
        return Err(CommandError::text("ERR the document has no text"));
    }
    let attribute_bytes = ask.attributes.as_ref().map_or(0, |attributes| attributes.len());
    if pieces.len() * attribute_bytes > MAX_ATTRIBUTE_COPIES_BYTES {
        return Err(CommandError::text(
            "ERR a document's attributes can have 67108864 bytes at most in all its chunks together",
        ));
    }
    if pieces.iter().map(|piece| piece.end - piece.start).sum::<usize>() > MAX_CHUNKS_BYTES {
        return Err(CommandError::text(
            "ERR a document's chunks can have 67108864 bytes at most all together: use a smaller OVERLAP",
        ));
    }
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let chunk = |piece: document::Piece| Chunk {
        span: Span {
            number: 0,
            start: small(piece.start),
            end: small(piece.end),
            tokens: small(piece.tokens),
        },
        text: Text::from(&text.as_bytes()[piece.start..piece.end]),
    };
    Ok((small(text.len()), pieces.into_iter().map(chunk).collect()))
}

/// The chunks with their vectors. One without a word that the model knows (a rule of dashes, say) is left out, unless all are.
fn elements(
    chunks: Vec<Chunk>,
    embedded: &[Embedded],
    model: &Model,
    expected: &Params,
) -> Result<Vec<Element>, CommandError> {
    let mut elements: Vec<Element> = Vec::with_capacity(chunks.len());
    for (mut chunk, (by, vector)) in chunks.into_iter().zip(embedded) {
        let vector = match vector {
            Err(EmbedError::Empty) => continue,
            vector => vector.clone()?,
        };
        if by.id != model.id {
            return Err(CommandError::text("ERR the text was not embedded, try again"));
        }
        chunk.span.number = u32::try_from(elements.len()).unwrap_or(u32::MAX);
        let fitting = if expected.layout.dim == vector.len() { *expected } else { params(vector.len()) };
        let encoded = Encoded::new(&fitting, &vector)
            .with_text(expected.analyzer, &TextChange::Set(Some(Arc::clone(&chunk.text))));
        elements.push(Element { chunk, vector, encoded });
    }
    if elements.is_empty() { Err(EmbedError::Empty.into()) } else { Ok(elements) }
}

/// Refuses a model whose vectors a collection does not take.
fn check(collection: &Collection, model: &Model) -> Result<(), CommandError> {
    let params = &collection.params;
    if params.layout.dim != model.dims || params.projection_input_dim != 0 {
        return Err(dimension_mismatch(model.dims, params.layout.dim));
    }
    check_model(Some(&model.id), collection.model.as_deref())
}

/// Puts the document in place of the one there was.
fn write(
    txn: &mut Txn<'_>,
    ask: &Ask,
    text_bytes: u32,
    elements: Vec<Element>,
    quota: Quota,
) -> Result<i64, CommandError> {
    let Ask { namespace, key, uri, settings, attributes, model, hash } = ask;
    let (namespace, mut old) = (*namespace, None);
    let mut params = params(model.dims);
    if let Some(existing) = live(txn, namespace, key) {
        if let Some(count) = unchanged(&existing, ask) {
            return Ok(count);
        }
        params = existing.params;
        check(&existing, model)?;
        old = existing.documents().get(uri).cloned();
    }
    let names: Vec<Bytes> =
        elements.iter().map(|element| chunk_name(uri, element.chunk.span.number).into()).collect();
    let (view, wanted) = (txn.view(), names.iter().map(|name| &name[..]));
    quota.admit(view, namespace, view.get(namespace, key), model.dims, wanted)?;
    if old.is_some() {
        forget(txn, namespace, key, uri);
    }
    let spans: Vec<Span> = elements.iter().map(|element| element.chunk.span).collect();
    let bound = Arc::new(model.id.clone());
    for (Element { chunk, vector, encoded }, element) in elements.into_iter().zip(names) {
        let change = Change::Add {
            namespace,
            key: key.clone(),
            params,
            element,
            vector: vector.to_vec(),
            attributes: AttributeChange::Set(attributes.clone()),
            text: TextChange::Set(Some(chunk.text)),
            model: Some(Arc::clone(&bound)),
        };
        txn.apply(&change, Some(&encoded));
    }
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let count = small(spans.len());
    let document = Arc::new(Document {
        hash: *hash,
        kind: settings.kind,
        chunk_tokens: small(settings.chunk_tokens),
        overlap_tokens: small(settings.overlap_tokens),
        text_bytes,
        attributes: attributes.clone(),
        spans,
    });
    let change =
        Change::SetDocument { namespace, key: key.clone(), uri: uri.clone(), document: Some(document) };
    txn.apply(&change, None);
    let surplus = old.iter().flat_map(|old| old.spans.iter().map(|span| span.number));
    let surplus: Vec<u32> = surplus.filter(|&number| number >= count).collect();
    remove(txn, namespace, key, uri, &surplus);
    Ok(count.into())
}
