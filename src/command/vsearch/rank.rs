//! From candidates to results: fused, boosted, varied, scored again.

use std::cmp::Ordering;
use std::sync::Arc;

use super::grammar::{Boost, What};
use super::round::{Candidates, Trace};
use super::{Asked, STOPPING, text_query};
use crate::collection::fusion::{Norm, Ranking as Weighted, fuse, mmr, normalized};
use crate::collection::text_search::Segments;
use crate::collection::{Collection, CollectionError, RowId};
use crate::command::{CommandError, Context};
use crate::embed::{Model, Role, Text, Vector};
use crate::text::bm25::{DEFAULT_B, DEFAULT_K1};
use crate::vector::{Metric, exact};

/// An element that may be a result: the number of its collection, and its row there.
pub(super) type Candidate = (usize, RowId);

/// A candidate on its way to being a result. Higher scores are better.
pub(super) struct Ranked {
    pub candidate: Candidate,
    /// What it is ranked by.
    pub score: f64,
    /// What the clauses gave it.
    pub fused: f64,
    /// What BOOST and BOOSTTEXT added.
    pub boost: f64,
    /// What RERANK gave it.
    pub reranked: Option<f64>,
}

/// The candidates of each clause, and what became of them.
pub(super) struct Ranking {
    /// By clause: scores, best first.
    pub clauses: Vec<Vec<(f64, Candidate)>>,
    /// Different candidates.
    pub candidates: usize,
    /// Best first.
    pub ranked: Vec<Ranked>,
    /// Candidates each clause could have.
    pub window: usize,
    /// For EXPLAIN: how each vector search was answered.
    pub traces: Vec<Trace>,
}

impl Asked {
    fn collection(&self, candidate: Candidate) -> &Arc<Collection> {
        &self.targets[candidate.0].collection
    }

    /// The order of candidates with equal scores: by name, then by collection.
    fn by_name(&self, a: Candidate, b: Candidate) -> Ordering {
        let name = |candidate: Candidate| self.collection(candidate).name(candidate.1);
        name(a).cmp(name(b)).then(a.0.cmp(&b.0))
    }

    fn sort(&self, ranked: &mut [Ranked]) {
        ranked
            .sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| self.by_name(a.candidate, b.candidate)));
    }

    /// The candidates of each clause, those of all collections in one order.
    fn clauses(&self, found: Candidates) -> Result<Vec<Vec<(f64, Candidate)>>, CommandError> {
        let Candidates { window, vectors, texts, .. } = found;
        let (mut vectors, mut texts) = (vectors.into_iter().zip(&self.dense), texts.into_iter());
        let mut clauses = Vec::with_capacity(self.ask.clauses.len());
        for clause in &self.ask.clauses {
            let mut found: Vec<(f64, Candidate)> = Vec::new();
            for target in 0..self.targets.len() {
                match clause.what {
                    What::Vector(_) => {
                        let (hits, search) = vectors.next().ok_or(STOPPING)?;
                        let collection = &self.targets[target].collection;
                        let is_field = clause.field.is_some();
                        found.extend(hits?.iter().filter_map(|hit| {
                            let row = match is_field {
                                true => collection.row_of_field(&search.collection, hit.row)?,
                                false => hit.row,
                            };
                            Some((f64::from(hit.score), (target, row)))
                        }));
                    }
                    What::Match { .. } | What::Sparse(_) => {
                        let hits = texts.next().ok_or(STOPPING)??;
                        found.extend(hits.into_iter().map(|(score, row)| (score, (target, row))));
                    }
                }
            }
            found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| self.by_name(a.1, b.1)));
            found.truncate(window);
            clauses.push(found);
        }
        Ok(clauses)
    }

    /// Makes one ranking of what the clauses found. A RERANK is still to be made.
    pub(super) fn rank(&self, mut found: Candidates) -> Result<Ranking, CommandError> {
        let (window, traces) = (found.window, std::mem::take(&mut found.traces));
        let clauses = self.clauses(found)?;
        let plain =
            |(score, candidate)| Ranked { candidate, score, fused: score, boost: 0.0, reranked: None };
        let mut ranked: Vec<Ranked> = match self.ask.fusion() {
            Some(fusion) => {
                let weighted = self.ask.clauses.iter().zip(&clauses);
                let weighted: Vec<_> =
                    weighted.map(|(clause, hits)| Weighted { weight: clause.weight, hits }).collect();
                fuse(fusion, &weighted)
                    .into_iter()
                    .map(|(candidate, score)| plain((score, candidate)))
                    .collect()
            }
            None => clauses.iter().flatten().copied().map(plain).collect(),
        };
        let candidates = ranked.len();
        self.boost(&mut ranked)?;
        self.sort(&mut ranked);
        if self.ask.rerank.is_none() {
            self.cut(&mut ranked);
        }
        if let Some((lambda, _)) = self.ask.mmr {
            ranked = self.varied(lambda, ranked)?;
        }
        Ok(Ranking { clauses, candidates, ranked, window, traces })
    }

    /// Drops what scores less than MINSCORE.
    fn cut(&self, ranked: &mut Vec<Ranked>) {
        ranked.retain(|one| self.is_enough(one.score));
    }

    /// Whether a score is no less than MINSCORE.
    pub(super) fn is_enough(&self, score: f64) -> bool {
        self.ask.min_score.is_none_or(|least| score >= if self.shows_distance() { -least } else { least })
    }

    /// Whether scores are squared distances, which are shown without the minus they are ranked by.
    pub(super) fn shows_distance(&self) -> bool {
        let metric = self.targets.first().map(|target| target.collection.params.layout.metric);
        let is_dense = matches!(self.ask.clauses[..], [ref clause] if matches!(clause.what, What::Vector(_)));
        is_dense && self.ask.fusion().is_none() && self.ask.rerank.is_none() && metric == Some(Metric::L2)
    }

    fn boost(&self, ranked: &mut [Ranked]) -> Result<(), CommandError> {
        if !self.ask.boosts.is_empty() {
            for one in &mut *ranked {
                let attributes = self.collection(one.candidate).attributes(one.candidate.1);
                let attributes = attributes.and_then(|json| serde_json::from_slice(json).ok());
                let attributes: serde_json::Value = attributes.unwrap_or_default();
                let boosts = self.ask.boosts.iter().filter(|boost| boost.applies(&attributes));
                one.boost += boosts.map(|boost| boost.weight).sum::<f64>();
            }
        }
        if let (Some(weight), Some(text)) = (self.ask.boost_text, &self.text) {
            for (at, target) in self.targets.iter().enumerate() {
                let of_target = ranked.iter_mut().filter(|one| one.candidate.0 == at);
                boost_texts(&target.collection, text, weight, of_target)?;
            }
        }
        for one in ranked {
            one.score += one.boost;
        }
        Ok(())
    }

    /// The best by maximal marginal relevance, in the order they are chosen. Relevance is (1 + cosine) / 2 where the score
    /// is a cosine, else it runs from 0 to 1 over the pool.
    fn varied(&self, lambda: f64, mut ranked: Vec<Ranked>) -> Result<Vec<Ranked>, CommandError> {
        let further = self.cut_to(&mut ranked, self.ask.pool());
        let scores: Vec<f64> = ranked.iter().map(|one| one.score).collect();
        let metric = self.targets.first().map(|target| target.collection.params.layout.metric);
        let is_cosine = matches!(self.ask.clauses[..], [ref clause] if matches!(clause.what, What::Vector(_)))
            && self.ask.fusion().is_none()
            && metric == Some(Metric::Cosine);
        let relevance = match is_cosine {
            true => scores.into_iter().map(|cosine| f64::midpoint(1.0, cosine)).collect(),
            false => normalized(Norm::MinMax, scores),
        };
        let vector = |one: &Ranked| self.collection(one.candidate).vector(one.candidate.1);
        let vectors: Result<Vec<_>, CollectionError> = ranked.iter().map(vector).collect();
        let vectors = vectors?;
        let norms: Vec<f64> = vectors.iter().map(|vector| exact::norm(vector)).collect();
        let cosine = |a: usize, b: usize| match norms[a] * norms[b] {
            norms if norms > 0.0 && vectors[a].len() == vectors[b].len() => {
                exact::fast_dot(&vectors[a], &vectors[b]) / norms
            }
            _ => 0.0,
        };
        // RERANK scores again what MMR leaves, and a document may be several of its results.
        let count = match self.ask.group {
            Some(_) => ranked.len(),
            None => self.ask.depth().max(self.ask.wanted()),
        };
        let chosen = mmr(lambda, &relevance, count, cosine);
        drop(vectors);
        let mut ranked: Vec<Option<Ranked>> = ranked.into_iter().map(Some).collect();
        Ok(chosen.into_iter().filter_map(|at| ranked[at].take()).chain(further).collect())
    }

    /// Scores the first of a ranking again: by what a cross-encoder says of the query and each stored text, or by the cosine
    /// of a model's vectors of them. Those beyond the depth and those without a text are left out. Equal scores stay in the order they were.
    pub(super) async fn rerank(
        &self,
        context: &Context,
        (model, query): &(Arc<Model>, Option<Vector>),
        ranking: &mut Ranking,
    ) -> Result<(), CommandError> {
        let depth = self.ask.depth();
        let role = match (query, &self.text) {
            (None, Some(text)) => Role::Answer(Arc::clone(text)),
            _ => Role::Document,
        };
        let further = self.cut_to(&mut ranking.ranked, depth);
        ranking.ranked.extend(further);
        let mut texts = Vec::with_capacity(depth);
        let mut readable = Vec::with_capacity(depth);
        for one in std::mem::take(&mut ranking.ranked) {
            let text = self.collection(one.candidate).text(one.candidate.1)?;
            if let Some(text) = text.and_then(|text| std::str::from_utf8(text).ok()) {
                let (model, payer) = (Arc::clone(model), Arc::clone(&self.payer));
                texts.push(Text {
                    model,
                    role: role.clone(),
                    text: text.into(),
                    payer,
                    realm: self.namespace.0,
                });
                readable.push(one);
            }
        }
        let vectors = match texts.is_empty() {
            true => Vec::new(),
            false => context.embedding.embed(texts).await.map_err(|_| STOPPING)?,
        };
        for (one, vector) in readable.iter_mut().zip(vectors) {
            let vector = vector?;
            one.score = match query {
                Some(query) => {
                    let norms = exact::norm(query) * exact::norm(&vector);
                    if norms > 0.0 { exact::dot(query, &vector) / norms } else { 0.0 }
                }
                None => vector.first().copied().map_or(0.0, f64::from),
            };
            one.reranked = Some(one.score);
        }
        readable.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.cut(&mut readable);
        ranking.ranked = readable;
        Ok(())
    }
}

/// Adds weight * (share of a text's different terms that an element has in its own).
fn boost_texts<'a>(
    collection: &Collection,
    text: &str,
    weight: f64,
    ranked: impl Iterator<Item = &'a mut Ranked>,
) -> Result<(), CommandError> {
    let query = text_query(collection, text.as_bytes(), (DEFAULT_K1, DEFAULT_B))?;
    let segments = Segments::of(collection);
    let matcher = segments.matcher(collection, &query)?;
    let count = |number: usize| f64::from(u32::try_from(number).unwrap_or(u32::MAX));
    for one in ranked {
        let matched = segments.matched(&matcher, one.candidate.1).len();
        one.boost += weight * count(matched) / count(query.terms.len().max(1));
    }
    Ok(())
}

impl Boost {
    /// Whether attributes have the value in the field: as a string, number or boolean, alone or in an array.
    fn applies(&self, attributes: &serde_json::Value) -> bool {
        use serde_json::Value;
        let is_value = |found: &Value| match found {
            Value::String(text) => *text == self.value,
            Value::Number(number) => number.as_f64() == self.value.parse().ok(),
            Value::Bool(truth) => self.value == if *truth { "true" } else { "false" },
            _ => false,
        };
        let step = |value: &'_ Value, name: &str| value.get(name).cloned();
        let found = match attributes.get(&self.field) {
            Some(found) => Some(found.clone()),
            None => self.field.split('.').try_fold(attributes.clone(), |value, name| step(&value, name)),
        };
        match found {
            Some(Value::Array(items)) => items.iter().any(is_value),
            Some(found) => is_value(&found),
            None => false,
        }
    }
}
