//! VDOC SECTIONS: the parts of a document that are about a query, for a prompt.

use std::sync::Arc;

use super::super::parse::{integer_within, is_word};
use super::super::reply::Reply;
use super::super::text::text_argument;
use super::super::vectors::row_of;
use super::super::vsim::fit;
use super::super::{Call, CommandError, Outcome, unexpected};
use super::document;
use crate::collection::Collection;
use crate::collection::documents::{Document, Span, chunk_name};
use crate::document::{Settings, split};
use crate::embed::{Model, Role};
use crate::vector::{Metric, Query};

/// Tokens that can be asked for.
const MAX_TOKENS: i64 = 1 << 24;
/// Sections that can be asked for, and how many are given when COUNT is not.
const MAX_COUNT: i64 = 16_384;
const DEFAULT_COUNT: usize = 10;

/// What is asked for.
struct Ask {
    tokens: usize,
    /// The argument with the query.
    query: usize,
    count: usize,
}

/// Chunks that follow each other.
struct Section {
    /// Places of its chunks in the document: the first, and the one after the last.
    chunks: (usize, usize),
    /// The best score of its chunks.
    score: f64,
}

/// `VDOC SECTIONS key uri TOKENS n QUERY text [COUNT m]`: the chunks that are most similar to the query, as many as fit into
/// `n` tokens, in the order of the document; those that follow each other are one section, of which there are `m` at most.
pub(in super::super) fn sections(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let ask = parse(call)?;
    let Some((collection, document)) = document(call) else { return Ok(Outcome::Reply(Reply::Null)) };
    let embedded = call.embed(|| {
        let text = text_argument(call.request.arg(ask.query))?.into();
        Ok(vec![call.text(call.model_of(Some(collection))?, Role::Query, text)])
    })?;
    // A command inside EXEC may find its document made since.
    let (model, query) =
        embedded.into_iter().next().ok_or(CommandError::text("ERR the text was not embedded, try again"))?;
    let scores = scores(call, collection, document, &fit(collection, query.to_vec())?)?;
    let sections = chosen(document, &scores, ask.tokens, ask.count);
    let uri = call.request.arg(3);
    // As VSEARCH shows it: under L2 the squared distance. Adding 0 makes -0 a plain 0.
    let is_distance = collection.params.layout.metric == Metric::L2;
    let visible = |score: f64| if is_distance { -score } else { score } + 0.0;
    let mut shown = Vec::with_capacity(sections.len());
    let mut total = 0;
    for section in &sections {
        let spans = &document.spans[section.chunks.0..section.chunks.1];
        let text = joined(collection, uri, spans)?;
        let tokens = spans.iter().map(|span| span.tokens as usize).sum();
        total += tokens;
        shown.push(shown_section(spans, visible(section.score), tokens, &text));
    }
    if let (true, Some(best)) = (shown.is_empty(), best(&scores)) {
        let span = &document.spans[best];
        let text = joined(collection, uri, std::slice::from_ref(span))?;
        let (text, tokens) = beginning(call, &model, document, &text, ask.tokens)?;
        let span = Span { end: span.start + u32::try_from(text.len()).unwrap_or(0), ..*span };
        total = tokens;
        shown.push(shown_section(&[span], visible(scores[best]), tokens, text.as_bytes()));
    }
    Ok(Outcome::Reply(Reply::fields(vec![
        ("sections", Reply::Array(shown)),
        ("tokens", Reply::integer(total)),
    ])))
}

fn parse(call: &Call<'_>) -> Result<Ask, CommandError> {
    let (mut tokens, mut query, mut count) = (None, None, DEFAULT_COUNT);
    let mut next = 4;
    while let Some(word) = call.request.get(next) {
        let value = call.request.get(next + 1).ok_or_else(|| unexpected(word))?;
        let number =
            |most| integer_within(value, 1, most).and_then(|number: i64| usize::try_from(number).ok());
        if is_word(word, "TOKENS") {
            tokens = Some(number(MAX_TOKENS).ok_or(CommandError::text("ERR invalid TOKENS"))?);
        } else if is_word(word, "COUNT") {
            count = number(MAX_COUNT).ok_or(CommandError::text("ERR invalid COUNT"))?;
        } else if is_word(word, "QUERY") {
            query = Some(next + 1);
        } else {
            return Err(unexpected(word));
        }
        next += 2;
    }
    match (tokens, query) {
        (Some(tokens), Some(query)) => Ok(Ask { tokens, query, count }),
        _ => Err(CommandError::text("ERR syntax error, VDOC SECTIONS needs TOKENS and QUERY")),
    }
}

/// How similar each chunk is to the query, from the originals; higher is better.
fn scores(
    call: &Call<'_>,
    collection: &Collection,
    document: &Document,
    query: &[f32],
) -> Result<Vec<f64>, CommandError> {
    let query = Query::new(&collection.params.layout, query);
    let mut scores = Vec::with_capacity(document.spans.len());
    for span in &document.spans {
        let row = row_of(collection, &chunk_name(call.request.arg(3), span.number))?;
        let vector = collection.vector(row.ok_or(CommandError::Stale)?)?;
        scores.push(f64::from(query.exact(&vector)));
    }
    Ok(scores)
}

fn best(scores: &[f64]) -> Option<usize> {
    (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)))
}

/// Chunks by their scores, as long as they fit; one that would begin a section too many is passed over.
fn chosen(document: &Document, scores: &[f64], tokens: usize, count: usize) -> Vec<Section> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut taken = vec![false; scores.len()];
    let (mut left, mut sections) = (tokens, 0);
    // One may be missing between two: it was removed alone.
    let follows = |at: usize| {
        let numbers = document.spans.get(at.wrapping_sub(1)).zip(document.spans.get(at));
        numbers.is_some_and(|(before, span)| before.number + 1 == span.number)
    };
    for at in order {
        let size = document.spans[at].tokens as usize;
        let before = follows(at) && taken[at - 1];
        let after = follows(at + 1) && taken[at + 1];
        if size > left || (sections == count && !before && !after) {
            continue;
        }
        taken[at] = true;
        left -= size;
        sections = sections + 1 - usize::from(before) - usize::from(after);
    }
    let mut found: Vec<Section> = Vec::new();
    for at in (0..taken.len()).filter(|&at| taken[at]) {
        match found.last_mut().filter(|section| section.chunks.1 == at && follows(at)) {
            Some(section) => {
                section.chunks.1 = at + 1;
                section.score = section.score.max(scores[at]);
            }
            None => found.push(Section { chunks: (at, at + 1), score: scores[at] }),
        }
    }
    found
}

/// The text of chunks that follow each other: what two share is there once.
fn joined(collection: &Collection, uri: &[u8], spans: &[Span]) -> Result<Vec<u8>, CommandError> {
    let mut text = Vec::new();
    let mut end = spans.first().map_or(0, |span| span.start);
    for span in spans {
        let row = row_of(collection, &chunk_name(uri, span.number))?.ok_or(CommandError::Stale)?;
        let chunk = collection.text(row)?.unwrap_or_default();
        // Between chunks there are only blanks, if anything.
        if span.start > end {
            text.push(b'\n');
        }
        let shared = usize::try_from(end.saturating_sub(span.start)).unwrap_or(0);
        text.extend_from_slice(chunk.get(shared..).unwrap_or_default());
        end = span.end.max(end);
    }
    Ok(text)
}

/// The first part of a chunk that is too long: as much of it as is a chunk of that many tokens.
fn beginning(
    call: &Call<'_>,
    model: &Arc<Model>,
    document: &Document,
    text: &[u8],
    tokens: usize,
) -> Result<(String, usize), CommandError> {
    let text = String::from_utf8_lossy(text).into_owned();
    let counter = call.context.embedding.token_counter(model)?;
    let (kind, language) = (document.kind, document.kind.language(call.request.arg(3)));
    let settings = Settings { kind, language, chunk_tokens: tokens, overlap_tokens: 0 };
    let pieces = split(&text, &settings, |word| counter.count(word)).unwrap_or_default();
    Ok(pieces.first().map_or((String::new(), 0), |first| (text[..first.end].to_owned(), first.tokens)))
}

fn shown_section(spans: &[Span], score: f64, tokens: usize, text: &[u8]) -> Reply {
    let (first, last) = (spans.first(), spans.last());
    Reply::fields(vec![
        ("start", Reply::integer(first.map_or(0, |span| span.start))),
        ("end", Reply::integer(last.map_or(0, |span| span.end))),
        ("score", Reply::Double(score)),
        ("tokens", Reply::integer(tokens)),
        ("text", Reply::bulk(text)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Kind;

    fn document(tokens: &[u32]) -> Document {
        let span = |(at, &tokens): (usize, &u32)| Span {
            number: u32::try_from(at).unwrap(),
            start: 0,
            end: 0,
            tokens,
        };
        Document {
            hash: [0; 32],
            kind: Kind::Text,
            chunk_tokens: 10,
            overlap_tokens: 0,
            text_bytes: 0,
            attributes: None,
            spans: tokens.iter().enumerate().map(span).collect(),
        }
    }

    fn chunks(tokens: &[u32], scores: &[f64], budget: usize, count: usize) -> Vec<(usize, usize)> {
        chosen(&document(tokens), scores, budget, count).iter().map(|section| section.chunks).collect()
    }

    #[test]
    fn the_best_chunks_that_fit_are_taken_and_neighbours_joined() {
        let (tokens, scores) = ([10, 10, 10, 10, 5], [0.1, 0.9, 0.2, 0.8, 0.3]);
        assert_eq!(chunks(&tokens, &scores, 20, 10), [(1, 2), (3, 4)]);
        assert_eq!(chunks(&tokens, &scores, 25, 10), [(1, 2), (3, 5)]);
        assert_eq!(chunks(&tokens, &scores, 45, 10), [(0, 5)]);
        // Ten tokens are left for one of five.
        assert_eq!(chunks(&tokens, &scores, 16, 10), [(1, 2), (4, 5)]);
        assert_eq!(chunks(&tokens, &scores, 4, 10), []);
        // One section: from the best chunk to its neighbours.
        assert_eq!(chunks(&tokens, &scores, 30, 1), [(0, 3)]);
    }
}
