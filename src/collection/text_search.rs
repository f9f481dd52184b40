//! Keyword search in a collection: BM25 over the texts of its chunks.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::filter::Filter;
use super::{Chunk, Collection, CollectionError, RowId};
use crate::text::bm25::{Best, Matcher, Segment, TextQuery};

/// A keyword search.
pub struct TextRequest {
    /// The version to look in.
    pub collection: Arc<Collection>,
    /// What to look for.
    pub query: TextQuery,
    /// Results wanted.
    pub count: usize,
    /// Only elements whose attributes pass.
    pub filter: Option<Arc<Filter>>,
}

/// Results of a keyword search, best first, equal scores by name.
pub type TextHits = Result<Vec<(f64, RowId)>, CollectionError>;

/// The chunks of a version that have texts, as the index sees them.
pub struct Segments<'a> {
    chunks: Vec<&'a Chunk>,
    segments: Vec<Segment<'a>>,
}

impl<'a> Segments<'a> {
    /// Those of a version.
    pub fn of(collection: &'a Collection) -> Self {
        let chunks = collection.chunks.iter().filter(|chunk| chunk.text_stats.texts > 0);
        let indexed = chunks.filter_map(|chunk| Some((&**chunk, chunk.text_index()?)));
        let segment = |(chunk, index): (&'a Chunk, _)| {
            let all_live = chunk.live_rows == chunk.len;
            (chunk, Segment { index, len: chunk.len, live: &chunk.live, all_live })
        };
        let (chunks, segments) = indexed.map(segment).unzip();
        Self { chunks, segments }
    }

    /// Looks a query's terms up.
    ///
    /// # Errors
    /// When a file that holds postings is damaged there.
    pub fn matcher(
        &'a self,
        collection: &Collection,
        query: &'a TextQuery,
    ) -> Result<Matcher<'a>, CollectionError> {
        Ok(Matcher::new(query, &self.segments, collection.text_stats())?)
    }

    /// The query's terms that a live row has, by their places in the query.
    pub fn matched(&self, matcher: &Matcher<'_>, row: RowId) -> Vec<usize> {
        let segment = self.chunks.binary_search_by_key(&row.chunk(), |chunk| chunk.number);
        segment.map_or_else(|_| Vec::new(), |segment| matcher.matched(segment, row.offset()))
    }
}

impl TextRequest {
    /// Makes the search on the caller's thread.
    ///
    /// # Errors
    /// When a file that holds postings is damaged there.
    pub fn run(&self) -> TextHits {
        let segments = Segments::of(&self.collection);
        let matcher = segments.matcher(&self.collection, &self.query)?;
        let mut best = Best::new(self.count);
        for (at, chunk) in segments.chunks.iter().enumerate() {
            let wanted: Cow<'_, [u64]> = match &self.filter {
                Some(filter) => chunk.filters.passing(chunk, filter, 0, chunk.live.len()).into(),
                None => Cow::Borrowed(&chunk.live),
            };
            matcher.search(at, &wanted, best.threshold(), &mut |offset, score| {
                best.push(score, RowId::new(chunk.number, offset), |a, b| self.by_name(a, b))
            });
        }
        Ok(best.into_sorted(|a, b| self.by_name(a, b)))
    }

    fn by_name(&self, a: &RowId, b: &RowId) -> Ordering {
        self.collection.name(*a).cmp(self.collection.name(*b))
    }
}

#[cfg(test)]
#[path = "text_search_tests.rs"]
mod tests;
