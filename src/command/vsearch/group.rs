//! GROUPBY DOC: results by document, each with its best chunks. An element that is no chunk stands for itself.

use hashbrown::HashMap;

use super::Asked;
use super::grammar::Group;
use super::rank::{Ranked, Ranking};
use crate::command::CommandError;
use crate::command::reply::Reply;

/// A document that was found.
struct Found<'a> {
    /// The number of its collection.
    target: usize,
    /// Its URI, or the element's name.
    id: &'a [u8],
    score: f64,
    /// Its best chunks, in their order.
    chunks: Vec<&'a Ranked>,
}

impl Asked {
    /// The page of documents that is asked for. Their score is that of their best chunk, or the mean of the chunks shown; by the
    /// former they keep the order in which their first chunks are ranked.
    pub(super) fn grouped(&self, group: &Group, ranking: &Ranking) -> Result<Vec<Reply>, CommandError> {
        let mut places: HashMap<(usize, bool, &[u8]), usize> = HashMap::new();
        let mut found: Vec<Found<'_>> = Vec::new();
        for one in &ranking.ranked {
            let (target, row) = one.candidate;
            let collection = &self.targets[target].collection;
            let document = collection.document_of(row);
            let id = document.map_or(collection.name(row), |(uri, _)| uri);
            // An element may have a document's name.
            let place = *places.entry((target, document.is_some(), id)).or_insert(found.len());
            if place == found.len() {
                found.push(Found { target, id, score: one.score, chunks: Vec::new() });
            }
            if found[place].chunks.len() < group.top {
                found[place].chunks.push(one);
            }
        }
        if group.mean {
            for one in &mut found {
                let count = u32::try_from(one.chunks.len()).unwrap_or(u32::MAX);
                one.score = one.chunks.iter().map(|chunk| chunk.score).sum::<f64>() / f64::from(count);
            }
            found.sort_by(|a, b| {
                b.score.total_cmp(&a.score).then_with(|| (a.id, a.target).cmp(&(b.id, b.target)))
            });
        }
        let page = found.iter().skip(self.ask.offset).take(self.ask.count);
        page.map(|one| self.document(one, ranking)).collect()
    }

    fn document(&self, found: &Found<'_>, ranking: &Ranking) -> Result<Reply, CommandError> {
        let mut chunks = Vec::with_capacity(found.chunks.len());
        for one in &found.chunks {
            let mut fields = self.fields(one)?;
            fields.retain(|(name, _)| *name != "key");
            if let Some((_, span)) = self.targets[found.target].collection.document_of(one.candidate.1) {
                fields.insert(2, ("start", Reply::Integer(span.start.into())));
                fields.insert(3, ("end", Reply::Integer(span.end.into())));
            }
            if self.ask.explain {
                fields.push(("explain", self.explain(one, ranking)?));
            }
            chunks.push(Reply::fields(fields));
        }
        let mut fields =
            vec![("id", Reply::bulk(found.id)), ("score", Reply::Double(self.shown(found.score)))];
        if self.shows_key {
            fields.push(("key", Reply::bulk(self.targets[found.target].key.name())));
        }
        fields.push(("chunks", Reply::Array(chunks)));
        Ok(Reply::fields(fields))
    }
}
