//! VSIM.

use std::borrow::Cow;
use std::sync::Arc;

use super::parse::{float, integer, integer_within, is_word};
use super::reply::Reply;
use super::request::Request;
use super::vadd::{EF_RANGE, dimension_mismatch, input_mismatch, vector};
use super::vectors::row_of;
use super::{Call, CommandError, Outcome, Search};
use crate::collection::Collection;
use crate::collection::filter::Filter;
use crate::collection::search::{Hits, SearchRequest};
use crate::embed::Role;
use crate::vector::{Metric, Query, project};

const DEFAULT_COUNT: usize = 10;
/// Results a search may ask for.
const MAX_COUNT: i64 = 1_000_000;

/// What a VSIM's answer looks like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    scores: bool,
    attributes: bool,
    /// Results end where `1 - score` exceeds this.
    epsilon: Option<f64>,
}

struct Options {
    shape: Shape,
    count: usize,
    effort: usize,
    exact: bool,
    filter: Option<Arc<Filter>>,
}

/// `VSIM key (ELE element | FP32 blob | VALUES n f1 ... fn | TEXT text) [WITHSCORES] [WITHATTRIBS] [COUNT n] [EPSILON d] [EF n]
/// [FILTER expr] [FILTER-EF n] [TRUTH] [NOTHREAD]`
pub(super) fn vsim(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let request = call.request;
    // Redis looks at nothing else when there is no key.
    let collection = call.collection(1);
    let embedded = match is_word(request.arg(2), "TEXT") {
        true => Some(call.embed_argument(3, Role::Query, collection.map(|collection| &**collection))?),
        false => None,
    };
    let Some(collection) = collection else {
        return Ok(Outcome::Reply(Reply::Array(Vec::new())));
    };
    let (query, next) = match embedded {
        Some((_, vector)) => (fit(collection, vector.to_vec())?, 4),
        None => query(collection, request)?,
    };
    let options = options(request, next)?;
    Ok(Outcome::Search(Search {
        request: SearchRequest {
            collection: Arc::clone(collection),
            query: Query::new(&collection.params.layout, &query),
            count: options.count,
            effort: options.effort,
            exact: options.exact,
            filter: options.filter,
            trace: None,
        },
        shape: options.shape,
    }))
}

/// The vector to search with and the argument after it.
fn query<'a>(collection: &'a Collection, request: &Request) -> Result<(Cow<'a, [f32]>, usize), CommandError> {
    if is_word(request.arg(2), "ELE") {
        let row = row_of(collection, request.arg(3))?;
        let row = row.ok_or(CommandError::text("ERR element not found in set"))?;
        return Ok((collection.vector(row)?, 4));
    }
    let (vector, next) = vector(request, 2)?;
    Ok((fit(collection, vector)?, next))
}

/// A vector as the collection compares it.
pub(super) fn fit<'a>(collection: &Collection, vector: Vec<f32>) -> Result<Cow<'a, [f32]>, CommandError> {
    let (dim, input_dim) = (collection.params.layout.dim, collection.params.projection_input_dim);
    if vector.len() == dim {
        return Ok(vector.into());
    }
    if input_dim == 0 {
        return Err(dimension_mismatch(vector.len(), dim));
    }
    if vector.len() != input_dim as usize {
        return Err(input_mismatch(vector.len(), input_dim));
    }
    Ok(project(&vector, dim).into())
}

fn options(request: &Request, mut next: usize) -> Result<Options, CommandError> {
    const BAD_OPTION: CommandError = CommandError::text("ERR syntax error in VSIM command");
    let mut options =
        Options { shape: Shape::default(), count: DEFAULT_COUNT, effort: 0, exact: false, filter: None };
    while let Some(word) = request.get(next) {
        let value = request.get(next + 1);
        next += 1;
        if is_word(word, "WITHSCORES") {
            options.shape.scores = true;
        } else if is_word(word, "WITHATTRIBS") {
            options.shape.attributes = true;
        } else if is_word(word, "TRUTH") {
            options.exact = true;
        } else if is_word(word, "NOTHREAD") {
            // Accepted: where a search runs is the server's business.
        } else {
            let value = value.ok_or(BAD_OPTION)?;
            next += 1;
            if is_word(word, "COUNT") {
                let count = integer(value).filter(|&count| count >= 1).map(|count| count.min(MAX_COUNT));
                let count = count.and_then(|count| usize::try_from(count).ok());
                options.count = count.ok_or(CommandError::text("ERR invalid COUNT"))?;
            } else if is_word(word, "EPSILON") {
                let epsilon = float(value).filter(|&epsilon| epsilon > 0.0);
                options.shape.epsilon = Some(epsilon.ok_or(CommandError::text("ERR invalid EPSILON"))?);
            } else if is_word(word, "EF") {
                let ef =
                    integer_within(value, EF_RANGE.0, EF_RANGE.1).and_then(|ef| usize::try_from(ef).ok());
                options.effort = ef.ok_or(CommandError::text("ERR invalid EF"))?;
            } else if is_word(word, "FILTER") {
                let filter = Filter::parse(value);
                let filter = filter.map_err(|error| CommandError::Text(format!("ERR {error}").into()))?;
                options.filter = Some(Arc::new(filter));
            } else if is_word(word, "FILTER-EF") {
                // Accepted: a filter never costs results here, so there is no effort to bound.
                integer(value).filter(|&ef| ef >= 1).ok_or(CommandError::text("ERR invalid FILTER-EF"))?;
            } else {
                return Err(BAD_OPTION);
            }
        }
    }
    Ok(options)
}

impl Shape {
    /// The reply for results in that version of the collection.
    pub fn reply(&self, collection: &Collection, hits: &Hits) -> Reply {
        let hits = match hits {
            Ok(hits) => hits,
            Err(error) => return Reply::error(format!("ERR {error}")),
        };
        let metric = collection.params.layout.metric;
        let scored = hits.iter().map(|hit| (hit.row, shown_score(metric, hit.score)));
        let near = scored.take_while(|(_, score)| self.epsilon.is_none_or(|epsilon| 1.0 - score <= epsilon));
        let name = |row| Reply::bulk(collection.name(row));
        let attributes = |row| collection.attributes(row).map_or(Reply::Null, Reply::bulk);
        match (self.scores, self.attributes) {
            (false, false) => Reply::Array(near.map(|(row, _)| name(row)).collect()),
            (true, false) => Reply::Map(near.map(|(row, score)| (name(row), Reply::Double(score))).collect()),
            (false, true) => Reply::Map(near.map(|(row, _)| (name(row), attributes(row))).collect()),
            (true, true) => Reply::Table(
                near.map(|(row, score)| (name(row), vec![Reply::Double(score), attributes(row)])).collect(),
            ),
        }
    }
}

/// The score clients see: (1 + cos) / 2, the inner product, or 1 / (1 + squared distance).
pub(super) fn shown_score(metric: Metric, score: f32) -> f64 {
    let score = f64::from(score);
    match metric {
        Metric::Cosine => f64::midpoint(1.0, score),
        Metric::Ip => score,
        Metric::L2 => 1.0 / (1.0 - score),
    }
}
