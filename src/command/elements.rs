//! Elements one by one and in order: VGET, VSCAN, VCOUNT, VRANGE, VRANDMEMBER.

use std::hash::{BuildHasher, RandomState};
use std::ops::Bound;

use super::parse::{integer, integer_within, is_word};
use super::reply::Reply;
use super::vectors::{element, row_of};
use super::{Call, CommandError, Outcome, unexpected};
use crate::collection::filter::Filter;
use crate::collection::sparse::terms;
use crate::collection::{Collection, RowId};

/// Elements a VSCAN looks at when COUNT is not given.
const DEFAULT_SCAN_COUNT: usize = 10;
/// Elements one reply may have.
const MAX_REPLY_ELEMENTS: usize = 1 << 20;

fn reply(reply: Reply) -> Result<Outcome, CommandError> {
    Ok(Outcome::Reply(reply))
}

pub(super) fn filter(expression: &[u8]) -> Result<Filter, CommandError> {
    Filter::parse(expression).map_err(|error| CommandError::Text(format!("ERR {error}").into()))
}

/// `VGET key element [WITHVECTOR] [WITHATTRIBS] [WITHTEXT] [WITHSPARSE]`: one that goes by itself shows when, one with vectors in fields
/// shows these too.
pub(super) fn vget(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let (mut vector, mut attributes, mut text, mut sparse) = (false, false, false, false);
    for word in call.request.args().skip(3) {
        if is_word(word, "WITHVECTOR") {
            vector = true;
        } else if is_word(word, "WITHATTRIBS") {
            attributes = true;
        } else if is_word(word, "WITHTEXT") {
            text = true;
        } else if is_word(word, "WITHSPARSE") {
            sparse = true;
        } else {
            return Err(unexpected(word));
        }
    }
    let Some((collection, row)) = element(call)? else { return reply(Reply::Null) };
    let mut fields = vec![(Reply::text("id"), Reply::bulk(call.request.arg(2)))];
    if let Some(at_ms) = collection.expiries().get(row) {
        let at_ms = Reply::integer(at_ms);
        fields.push((Reply::text("expires_ms"), at_ms));
    }
    if vector {
        let vector = collection.vector(row)?;
        let components = vector.iter().map(|&value| Reply::Double(f64::from(value))).collect();
        fields.push((Reply::text("vector"), Reply::Array(components)));
        let further = in_fields(call)?;
        if !further.is_empty() {
            fields.push((Reply::text("fields"), Reply::Map(further)));
        }
    }
    if attributes {
        let value = collection.attributes(row).map_or(Reply::Null, Reply::bulk);
        fields.push((Reply::text("attributes"), value));
    }
    if text {
        fields.push((Reply::text("text"), collection.text(row)?.map_or(Reply::Null, Reply::bulk)));
    }
    if sparse {
        let terms = collection.sparse(row)?.map(terms);
        let weights = terms.map(|terms| {
            terms.map(|(term, weight)| (Reply::bulk(term), Reply::Double(f64::from(weight)))).collect()
        });
        fields.push((Reply::text("sparse"), weights.map_or(Reply::Null, Reply::Map)));
    }
    reply(Reply::Map(fields))
}

/// The vectors of the element in fields, by their names.
fn in_fields(call: &Call<'_>) -> Result<Vec<(Reply, Reply)>, CommandError> {
    let mut vectors = Vec::new();
    for (name, field) in call.snapshot.fields(call.namespace, &call.key(1)) {
        if let Some(row) = row_of(field, call.request.arg(2))? {
            let vector = field.vector(row)?;
            let components = vector.iter().map(|&value| Reply::Double(f64::from(value))).collect();
            vectors.push((Reply::bulk(name), Reply::Array(components)));
        }
    }
    Ok(vectors)
}

/// `VSCAN key cursor [COUNT n] [FILTER expr]`: an element that is there all the time is given once. Elements are gone over
/// in the order of a hash of their names, and the cursor is a place in it.
pub(super) fn vscan(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let cursor = std::str::from_utf8(call.request.arg(2)).ok().and_then(|cursor| cursor.parse::<u64>().ok());
    let cursor = cursor.ok_or(CommandError::text("ERR invalid cursor"))?;
    let (mut count, mut wanted) = (DEFAULT_SCAN_COUNT, None);
    let mut next = 3;
    while let Some(word) = call.request.get(next) {
        let value = call.request.get(next + 1).ok_or_else(|| unexpected(word))?;
        next += 2;
        if is_word(word, "COUNT") {
            let number = integer_within(value, 1, i64::MAX).and_then(|count| usize::try_from(count).ok());
            count = number.ok_or(CommandError::text("ERR invalid COUNT"))?.min(MAX_REPLY_ELEMENTS);
        } else if is_word(word, "FILTER") {
            wanted = Some(filter(value)?);
        } else {
            return Err(unexpected(word));
        }
    }
    let page = |cursor: u64, names: Vec<Reply>| {
        reply(Reply::Array(vec![Reply::Bulk(cursor.to_string().into()), Reply::Array(names)]))
    };
    let Some(collection) = call.collection(1) else { return page(0, Vec::new()) };
    let (rows, next) = collection.scan(cursor, count);
    let passes =
        |row: &RowId| wanted.as_ref().is_none_or(|filter| filter.matches(collection.attributes(*row)));
    page(next, rows.into_iter().filter(passes).map(|row| Reply::bulk(collection.name(row))).collect())
}

/// `VCOUNT key [FILTER expr]`
pub(super) fn vcount(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let wanted = match (call.request.get(2), call.request.get(3)) {
        (None, _) => None,
        (Some(word), Some(expression)) if is_word(word, "FILTER") && call.request.len() == 4 => {
            Some(filter(expression)?)
        }
        (Some(word), _) => return Err(unexpected(word)),
    };
    let Some(collection) = call.collection(1) else { return reply(Reply::Integer(0)) };
    let count = match wanted {
        None => collection.len(),
        Some(filter) => collection.passing(&filter).count(),
    };
    reply(Reply::integer(count))
}

/// `VRANGE key start end [count]`
pub(super) fn vrange(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let count = match call.request.get(4) {
        None => -1,
        Some(count) => integer(count).ok_or(CommandError::text("ERR invalid COUNT value"))?,
    };
    if call.request.len() > 5 {
        return Err(CommandError::Arity("VRANGE".into()));
    }
    let (start, end) = (call.request.arg(2), call.request.arg(3));
    let lower = bound(start).ok_or(CommandError::text("ERR invalid start range format"))?;
    let upper = bound(end).ok_or(CommandError::text("ERR invalid end range format"))?;
    if start == b"+" || end == b"-" {
        return Err(CommandError::text("ERR '-' can only be used as first argument, '+' only as second"));
    }
    let Some(collection) = call.collection(1) else { return reply(Reply::Array(Vec::new())) };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let rows = collection.range(lower, upper, count);
    reply(Reply::Array(rows.into_iter().map(|row| Reply::bulk(collection.name(row))).collect()))
}

fn bound(argument: &[u8]) -> Option<Bound<&[u8]>> {
    match argument {
        b"-" | b"+" => Some(Bound::Unbounded),
        [b'[', name @ ..] if !name.is_empty() => Some(Bound::Included(name)),
        [b'(', name @ ..] if !name.is_empty() => Some(Bound::Excluded(name)),
        _ => None,
    }
}

/// Numbers that differ in every call; good enough to pick elements with (SplitMix64, Steele and others 2014).
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(RandomState::new().hash_one(0))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let wide = u128::from(mixed ^ (mixed >> 31)) * bound as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }
}

/// The live row of that rank, counted over all chunks.
fn row_of_rank(collection: &Collection, mut rank: usize) -> Option<RowId> {
    for chunk in &collection.chunks {
        if rank >= chunk.live_rows {
            rank -= chunk.live_rows;
            continue;
        }
        for (word, first) in chunk.live.iter().zip((0u16..).step_by(64)) {
            let ones = word.count_ones() as usize;
            if rank < ones {
                let bit = (0..64u16).filter(|bit| word >> bit & 1 == 1).nth(rank)?;
                return Some(RowId::new(chunk.number, first + bit));
            }
            rank -= ones;
        }
    }
    None
}

/// `VRANDMEMBER key [count]`
pub(super) fn vrandmember(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let count = match call.request.get(2) {
        None => None,
        Some(_) if call.request.len() > 3 => return Err(CommandError::Arity("VRANDMEMBER".into())),
        Some(count) => Some(integer(count).ok_or(CommandError::text("ERR COUNT value is not an integer"))?),
    };
    let collection = call.collection(1).filter(|collection| !collection.is_empty());
    let Some(collection) = collection else {
        return reply(count.map_or(Reply::Null, |_| Reply::Array(Vec::new())));
    };
    let mut random = Random::new();
    let len = collection.len();
    let name =
        |rank| row_of_rank(collection, rank).map_or(Reply::Null, |row| Reply::bulk(collection.name(row)));
    reply(match count {
        None => name(random.below(len)),
        Some(count @ ..0) => {
            let count = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
            if count > MAX_REPLY_ELEMENTS {
                return Err(CommandError::text("ERR COUNT value is out of range"));
            }
            Reply::Array((0..count).map(|_| name(random.below(len))).collect())
        }
        Some(count) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX).min(len);
            let rows: Vec<RowId> = collection.live_rows().collect();
            Reply::Array(
                sample(rows, count, &mut random).map(|row| Reply::bulk(collection.name(row))).collect(),
            )
        }
    })
}

/// That many different ones, in random order (the first steps of a Fisher-Yates shuffle).
fn sample(mut rows: Vec<RowId>, count: usize, random: &mut Random) -> impl Iterator<Item = RowId> {
    for at in 0..count {
        let other = at + random.below(rows.len() - at);
        rows.swap(at, other);
    }
    rows.into_iter().take(count)
}
