//! Documents: which elements are chunks of which one.
//!
//! Chunk n of a document is the element `uri#n`, with its text, vector and attributes like any other. The table says where in
//! the document it lies. It is part of a version, and follows what happens to elements: one that is removed, or that gets
//! another vector, is no chunk any more; a document ends with its last chunk. One that has lost a chunk has no hash, so that
//! it is not taken for unchanged.

use std::cmp::Ordering;
use std::sync::Arc;

use imbl::OrdMap;

use super::ids::hash_name;
use super::{Attributes, Collection, RowId};
use crate::document::Kind;

/// Bytes a document's URI may have: the names of its chunks are longer.
pub const MAX_URI_BYTES: usize = 16 << 10;

/// The hash of a document that is not as it was given.
const NO_HASH: [u8; 32] = [0; 32];
/// Bytes of a document's numbers, and of each chunk's, where they are kept.
const HEAD_BYTES: usize = 32 + 4 + 3 * 4 + 4;
const SPAN_BYTES: usize = 16;

/// A chunk of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its number, behind the `#`.
    pub number: u32,
    /// Where it begins in the document, in bytes.
    pub start: u32,
    /// Where it ends.
    pub end: u32,
    /// Its tokens.
    pub tokens: u32,
}

/// What is known of a document besides its chunks' elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// blake3 of everything its chunks depend on.
    pub hash: [u8; 32],
    /// What it was written in.
    pub kind: Kind,
    /// Tokens its chunks could have.
    pub chunk_tokens: u32,
    /// Tokens they could share.
    pub overlap_tokens: u32,
    /// Bytes of its text.
    pub text_bytes: u32,
    /// The attributes it was given.
    pub attributes: Option<Attributes>,
    /// Its chunks, ascending by number; at least one.
    pub spans: Vec<Span>,
}

impl Document {
    /// Its bytes in data files: hash, kind and whether there are attributes (u16 each), the three numbers, the length of the
    /// attributes (u32 each, little-endian), the attributes, and four u32 for each chunk.
    pub fn encode(&self) -> Vec<u8> {
        let attributes = self.attributes.as_deref().unwrap_or_default();
        let mut bytes = Vec::with_capacity(self.encoded_bytes());
        bytes.extend_from_slice(&self.hash);
        bytes.extend_from_slice(&u16::from(self.kind.code()).to_le_bytes());
        bytes.extend_from_slice(&u16::from(self.attributes.is_some()).to_le_bytes());
        let length = u32::try_from(attributes.len()).unwrap_or_else(|_| unreachable!("they are bounded"));
        for number in [self.chunk_tokens, self.overlap_tokens, self.text_bytes, length] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(attributes);
        for span in &self.spans {
            for number in [span.number, span.start, span.end, span.tokens] {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes
    }

    /// How many bytes [`Self::encode`] gives.
    pub fn encoded_bytes(&self) -> usize {
        let attributes = self.attributes.as_ref().map_or(0, |attributes| attributes.len());
        HEAD_BYTES + attributes + self.spans.len() * SPAN_BYTES
    }

    /// The inverse of [`Self::encode`]; `None` if the bytes are not a document's.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kind, has_attributes) = (number(32) & 0xffff, number(32) >> 16);
        let (attributes, spans) = rest.split_at_checked(usize::try_from(number(48)).ok()?)?;
        let (spans, rest) = spans.as_chunks::<SPAN_BYTES>();
        let spans: Vec<Span> = spans.iter().map(Span::decode).collect();
        let is_sound = rest.is_empty()
            && !spans.is_empty()
            && has_attributes <= 1
            && (has_attributes == 1 || attributes.is_empty())
            && spans.is_sorted_by(|a, b| a.number < b.number)
            && spans.iter().all(|span| span.start <= span.end);
        is_sound.then_some(())?;
        Some(Self {
            hash: head[..32].try_into().ok()?,
            kind: Kind::from_code(u8::try_from(kind).ok()?)?,
            chunk_tokens: number(36),
            overlap_tokens: number(40),
            text_bytes: number(44),
            attributes: (has_attributes == 1).then(|| Attributes::from(attributes)),
            spans,
        })
    }

    /// The chunk of that number.
    pub fn span(&self, number: u32) -> Option<&Span> {
        let at = self.spans.binary_search_by_key(&number, |span| span.number).ok()?;
        Some(&self.spans[at])
    }

    /// Tokens of all its chunks.
    pub fn tokens(&self) -> u64 {
        self.spans.iter().map(|span| u64::from(span.tokens)).sum()
    }
}

impl Span {
    fn decode(bytes: &[u8; SPAN_BYTES]) -> Self {
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { number: number(0), start: number(4), end: number(8), tokens: number(12) }
    }
}

/// Name of a document's chunk.
pub fn chunk_name(uri: &[u8], number: u32) -> Vec<u8> {
    [uri, format!("#{number}").as_bytes()].concat()
}

/// The document and number that an element's name stands for, if it is a chunk's.
fn parts(element: &[u8]) -> Option<(&[u8], u32)> {
    let mark = element.iter().rposition(|&byte| byte == b'#')?;
    let digits = std::str::from_utf8(&element[mark + 1..]).ok()?;
    let number = digits.parse().ok().filter(|number: &u32| number.to_string() == digits)?;
    Some((&element[..mark], number))
}

/// A document's URI, in the order of its hash, so that a scan can be resumed by a number.
#[derive(Clone, PartialEq, Eq)]
struct Uri {
    hash: u64,
    name: Arc<[u8]>,
}

impl Uri {
    fn new(name: &[u8]) -> Self {
        // As with keys: 63 bits, and not 0.
        Self { hash: (hash_name(name) >> 1).max(1), name: name.into() }
    }
}

impl Ord for Uri {
    fn cmp(&self, other: &Self) -> Ordering {
        self.hash.cmp(&other.hash).then_with(|| self.name.cmp(&other.name))
    }
}

impl PartialOrd for Uri {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The documents of a collection. See the module's text.
#[derive(Clone, Default)]
pub struct Documents {
    by_uri: OrdMap<Uri, Arc<Document>>,
    /// Memory of all of them.
    size_bytes: usize,
}

impl Documents {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_uri.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_uri.is_empty()
    }

    /// The document of that URI.
    pub fn get(&self, uri: &[u8]) -> Option<&Arc<Document>> {
        if self.is_empty() { None } else { self.by_uri.get(&Uri::new(uri)) }
    }

    /// Every document with its URI.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Arc<Document>)> {
        self.by_uri.iter().map(|(uri, document)| (&*uri.name, document))
    }

    /// About `count` URIs from a cursor on, and the cursor of the next page; 0: that was the last one.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<&[u8]>, u64) {
        let first = Uri { hash: cursor, name: Arc::default() };
        let mut found: Vec<&[u8]> = Vec::new();
        let mut last = 0;
        for (uri, _) in self.by_uri.range(first..) {
            // Those of the same hash belong to one page.
            if found.len() >= count && uri.hash != last {
                return (found, uri.hash);
            }
            last = uri.hash;
            found.push(&uri.name);
        }
        (found, 0)
    }

    /// The document whose chunk an element is, and where it lies there.
    pub fn of_element<'a>(&self, element: &'a [u8]) -> Option<(&'a [u8], &Span)> {
        if self.is_empty() {
            return None;
        }
        let (uri, number) = parts(element)?;
        Some((uri, self.get(uri)?.span(number)?))
    }

    /// An element is no chunk any more, if it was one.
    pub(super) fn detach(&mut self, element: &[u8]) {
        if let Some((uri, span)) = self.of_element(element) {
            let number = span.number;
            self.keep(uri, |span| span.number != number);
        }
    }

    /// Keeps those chunks of a document.
    fn keep(&mut self, uri: &[u8], keeps: impl FnMut(&Span) -> bool) {
        let key = Uri::new(uri);
        let Some(document) = self.by_uri.get_mut(&key).map(Arc::make_mut) else { return };
        let before = document.spans.len();
        document.spans.retain(keeps);
        let after = document.spans.len();
        self.size_bytes -= (before - after) * size_of::<Span>();
        if after < before {
            document.hash = NO_HASH;
        }
        if after == 0 {
            self.remove(uri);
        }
    }

    fn insert(&mut self, uri: &[u8], document: Arc<Document>) {
        self.size_bytes += entry_bytes(uri, &document);
        if let Some(before) = self.by_uri.insert(Uri::new(uri), document) {
            self.size_bytes -= entry_bytes(uri, &before);
        }
    }

    /// False if there is none of that URI.
    fn remove(&mut self, uri: &[u8]) -> bool {
        let removed = self.by_uri.remove(&Uri::new(uri));
        self.size_bytes -= removed.as_ref().map_or(0, |document| entry_bytes(uri, document));
        removed.is_some()
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// Bytes of memory that a document takes in the table.
fn entry_bytes(uri: &[u8], document: &Document) -> usize {
    let attributes = document.attributes.as_ref().map_or(0, |attributes| attributes.len());
    // Nodes of the ordered map cost about as much again as its entries.
    2 * size_of::<(Uri, Arc<Document>)>()
        + size_of::<Document>()
        + uri.len()
        + attributes
        + document.spans.len() * size_of::<Span>()
}

impl Collection {
    /// Its documents.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// Puts a document into the table, or takes it out; its elements stay. Chunks without an element are left out. False if
    /// nothing changes.
    pub fn set_document(&mut self, uri: &[u8], document: Option<Arc<Document>>) -> bool {
        let Some(document) = document else {
            return self.documents.remove(uri);
        };
        let there: Vec<bool> =
            document.spans.iter().map(|span| self.contains(&chunk_name(uri, span.number))).collect();
        self.documents.insert(uri, document);
        if there.contains(&false) {
            let mut there = there.into_iter();
            self.documents.keep(uri, |_| there.next().unwrap_or(false));
        }
        true
    }

    /// The document whose chunk a live row's element is, and where it lies there.
    pub fn document_of(&self, row: RowId) -> Option<(&[u8], &Span)> {
        self.documents.of_element(self.name(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::{AttributeChange, Encoded, Params, TextChange};
    use crate::vector::{Layout, Metric, Quantization};

    fn document(numbers: &[u32], attributes: Option<&[u8]>) -> Document {
        let span = |&number: &u32| Span { number, start: number * 10, end: number * 10 + 9, tokens: 3 };
        Document {
            hash: [7; 32],
            kind: Kind::Markdown,
            chunk_tokens: 512,
            overlap_tokens: 3,
            text_bytes: 100,
            attributes: attributes.map(Attributes::from),
            spans: numbers.iter().map(span).collect(),
        }
    }

    #[test]
    fn documents_read_back_and_damaged_ones_do_not() {
        for one in [document(&[0, 2, 5], None), document(&[1], Some(b"{}")), document(&[1], Some(b""))] {
            let bytes = one.encode();
            assert_eq!(Document::decode(&bytes), Some(one));
            for len in 0..bytes.len() {
                assert!(
                    Document::decode(&bytes[..len])
                        .is_none_or(|cut| cut.spans.len() == (len - HEAD_BYTES) / 16)
                );
            }
        }
        assert_eq!(Document::decode(&document(&[], None).encode()), None);
        assert_eq!(Document::decode(&document(&[2, 1], None).encode()), None);
    }

    #[test]
    fn the_table_follows_its_elements() {
        let layout = Layout { dim: 1, metric: Metric::L2, quantization: Quantization::Int8 };
        let mut collection = Collection::new(1, Params::new(layout));
        let encoded = Encoded::new(&collection.params, &[1.0]);
        let put = |collection: &mut Collection, name: &str| {
            collection.put(name.as_bytes(), &[1.0], &encoded, &AttributeChange::Keep, &TextChange::Keep);
        };
        for name in ["u#0", "u#1", "u#2", "u", "u#x", "u#01"] {
            put(&mut collection, name);
        }
        collection.set_document(b"u", Some(document(&[0, 1, 2, 3], None).into()));
        let numbers = |collection: &Collection| -> Vec<u32> {
            let found = collection.documents().get(b"u");
            found.map_or(Vec::new(), |found| found.spans.iter().map(|span| span.number).collect())
        };
        // There is no element u#3.
        assert_eq!(numbers(&collection), [0, 1, 2]);
        collection.set_document(b"u", Some(document(&[0, 1, 2], Some(b"{}")).into()));
        assert_eq!(
            collection.documents().size_bytes(),
            entry_bytes(b"u", &document(&[0, 1, 2], Some(b"{}")))
        );
        collection.set_document(b"u", Some(document(&[0, 1, 2], None).into()));
        assert_eq!(collection.documents().size_bytes(), entry_bytes(b"u", &document(&[0, 1, 2], None)));
        assert_eq!(collection.documents().get(b"u").unwrap().hash, [7; 32]);
        assert_eq!(collection.documents().of_element(b"u#1").unwrap().1.start, 10);
        for other in ["u#01", "u#x", "u", "u#3", "v#1", "#"] {
            assert!(collection.documents().of_element(other.as_bytes()).is_none(), "{other}");
            collection.remove(other.as_bytes());
        }
        assert_eq!(numbers(&collection), [0, 1, 2]);
        put(&mut collection, "u#1");
        assert_eq!(numbers(&collection), [0, 2]);
        assert_eq!(collection.documents().get(b"u").unwrap().hash, NO_HASH);
        collection.expire_element(b"u#2", Some(5));
        let mut masked = collection.clone();
        masked.mask_expired(5);
        assert_eq!((numbers(&masked), numbers(&collection)), (vec![0], vec![0, 2]));
        collection.remove(b"u#0");
        collection.remove(b"u#2");
        assert!(collection.documents().is_empty() && collection.contains(b"u#1"));
        assert_eq!(collection.documents().size_bytes(), 0);
    }

    #[test]
    fn a_scan_gives_every_document_once() {
        let mut documents = Documents::default();
        for number in 0..100 {
            documents.insert(format!("{number}").as_bytes(), document(&[0], None).into());
        }
        let (mut seen, mut cursor) = (Vec::new(), 0);
        loop {
            let (page, next) = documents.scan(cursor, 7);
            seen.extend(page.into_iter().map(<[u8]>::to_vec));
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 100);
    }
}
