//! GROUPBY DOC: results by document, each with its best chunks. An element that is no chunk stands for itself.

use hashbrown::{HashMap, HashSet};

use super::grammar::{Group, MAX_COUNT};
use super::rank::{Candidate, Ranked, Ranking};
use super::{Asked, Target};
use crate::command::CommandError;
use crate::command::reply::Reply;

/// How much wider the window of the next round is when too few documents are found.
const WIDER_FACTOR: usize = 4;

/// A document, or an element that is no chunk (one may have a document's name): the number of its collection, whether it is a
/// document, and its URI or name.
type Document<'a> = (usize, bool, &'a [u8]);

/// A document that was found.
struct Found<'a> {
    document: Document<'a>,
    score: f64,
    /// Its best chunks, in their order.
    chunks: Vec<&'a Ranked>,
}

impl Asked {
    /// What a candidate stands for.
    fn document_of(&self, (target, row): Candidate) -> Document<'_> {
        let collection = &self.targets[target].collection;
        match collection.document_of(row) {
            Some((uri, _)) => (target, true, uri),
            None => (target, false, collection.name(row)),
        }
    }

    /// The window to search again with: there are fewer documents than asked for, and clauses may have found more.
    pub(super) fn wider(&self, ranking: &Ranking) -> Option<usize> {
        self.ask.group.as_ref()?;
        let is_full = |hits: &Vec<(f64, Candidate)>| hits.len() >= ranking.window;
        let last = ranking.clauses.iter().flatten().last();
        // What a single clause would find further scores less than this.
        let is_below = self.ask.keeps_scores() && last.is_some_and(|(score, _)| !self.is_enough(*score));
        if is_below || ranking.window >= MAX_COUNT || !ranking.clauses.iter().any(is_full) {
            return None;
        }
        let wanted = self.ask.wanted().min(self.documents_up_to(self.ask.wanted()));
        let mut found = HashSet::new();
        let mut documents = ranking.ranked.iter().map(|one| self.document_of(one.candidate));
        let is_found =
            wanted == 0 || documents.any(|document| found.insert(document) && found.len() == wanted);
        (!is_found).then(|| ranking.window.saturating_mul(WIDER_FACTOR).min(MAX_COUNT))
    }

    /// How many documents there are, and elements that are no chunks; if that is more than `enough`, at least `enough`.
    fn documents_up_to(&self, enough: usize) -> usize {
        let count = |target: &Target| {
            let documents = target.collection.documents();
            if documents.len() >= enough {
                return documents.len();
            }
            let chunks: usize = documents.iter().map(|(_, document)| document.spans.len()).sum();
            documents.len() + target.collection.len().saturating_sub(chunks)
        };
        self.targets.iter().map(count).sum()
    }

    /// Cuts a ranking to its first `most`. Gives the best chunks of further documents, if it has fewer than are asked for.
    pub(super) fn cut_to(&self, ranked: &mut Vec<Ranked>, most: usize) -> Vec<Ranked> {
        let mut rest = ranked.split_off(most.min(ranked.len()));
        let wanted = if self.ask.group.is_some() { self.ask.wanted() } else { 0 };
        let mut known: HashSet<_> = ranked.iter().map(|one| self.document_of(one.candidate)).collect();
        rest.retain(|one| known.len() < wanted && known.insert(self.document_of(one.candidate)));
        rest
    }

    /// The page of documents that is asked for. Their score is that of their best chunk, or the mean of the chunks shown; by the
    /// former they keep the order in which their first chunks are ranked.
    pub(super) fn grouped(&self, group: &Group, ranking: &Ranking) -> Result<Vec<Reply>, CommandError> {
        let mut places: HashMap<Document<'_>, usize> = HashMap::new();
        let mut found: Vec<Found<'_>> = Vec::new();
        for one in &ranking.ranked {
            let document = self.document_of(one.candidate);
            let place = *places.entry(document).or_insert(found.len());
            if place == found.len() {
                found.push(Found { document, score: one.score, chunks: Vec::new() });
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
                let (a_target, _, a_id) = a.document;
                let (b_target, _, b_id) = b.document;
                b.score.total_cmp(&a.score).then_with(|| (a_id, a_target).cmp(&(b_id, b_target)))
            });
        }
        let page = found.iter().skip(self.ask.offset).take(self.ask.count);
        page.map(|one| self.document(one, ranking)).collect()
    }

    fn document(&self, found: &Found<'_>, ranking: &Ranking) -> Result<Reply, CommandError> {
        let (target, _, id) = found.document;
        let mut chunks = Vec::with_capacity(found.chunks.len());
        for one in &found.chunks {
            let mut fields = self.fields(one)?;
            fields.retain(|(name, _)| *name != "key");
            if let Some((_, span)) = self.targets[target].collection.document_of(one.candidate.1) {
                fields.insert(2, ("start", Reply::Integer(span.start.into())));
                fields.insert(3, ("end", Reply::Integer(span.end.into())));
            }
            if self.ask.explain {
                fields.push(("explain", self.explain(one, ranking)?));
            }
            chunks.push(Reply::fields(fields));
        }
        let mut fields = vec![("id", Reply::bulk(id)), ("score", Reply::Double(self.shown(found.score)))];
        if self.shows_key {
            fields.push(("key", Reply::bulk(self.targets[target].key.name())));
        }
        fields.push(("chunks", Reply::Array(chunks)));
        Ok(Reply::fields(fields))
    }
}
