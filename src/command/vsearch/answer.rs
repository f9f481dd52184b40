//! What a VSEARCH answers.

use super::grammar::{Clause, What};
use super::rank::{Candidate, Ranked, Ranking};
use super::round::Trace;
use super::{Asked, Times};
use crate::collection::Collection;
use crate::collection::fusion::{Fusion, Norm};
use crate::collection::text_search::Segments;
use crate::command::CommandError;
use crate::command::reply::Reply;

impl Asked {
    /// The page of results that is asked for.
    pub(super) fn reply(&self, mut ranking: Ranking, times: &Times) -> Result<Reply, CommandError> {
        let results = match &self.ask.group {
            Some(group) => self.grouped(group, &ranking)?,
            None => self.results(&mut ranking)?,
        };
        let mut fields = vec![("results", Reply::Array(results))];
        if self.ask.explain {
            fields.push(("plan", self.plan(&ranking, times)));
        }
        Ok(Reply::fields(fields))
    }

    fn results(&self, ranking: &mut Ranking) -> Result<Vec<Reply>, CommandError> {
        let last = self.ask.wanted().min(ranking.ranked.len());
        ranking.ranked.truncate(last);
        let page = ranking.ranked.split_off(self.ask.offset.min(last));
        let mut results = Vec::with_capacity(page.len());
        for one in &page {
            let mut fields = self.fields(one)?;
            if self.ask.explain {
                fields.push(("explain", self.explain(one, ranking)?));
            }
            results.push(Reply::fields(fields));
        }
        Ok(results)
    }

    /// A score as it is shown.
    pub(super) fn shown(&self, score: f64) -> f64 {
        // Adding 0 makes -0 a plain 0.
        if self.shows_distance() { -score + 0.0 } else { score + 0.0 }
    }

    pub(super) fn fields(&self, one: &Ranked) -> Result<Vec<(&'static str, Reply)>, CommandError> {
        let (target, row) = (&self.targets[one.candidate.0], one.candidate.1);
        let collection = &target.collection;
        let score = self.shown(one.score);
        let mut fields = vec![("id", Reply::bulk(collection.name(row))), ("score", Reply::Double(score))];
        if self.shows_key {
            fields.push(("key", Reply::bulk(target.key.name())));
        }
        if self.ask.attributes {
            fields.push(("attributes", collection.attributes(row).map_or(Reply::Null, Reply::bulk)));
        }
        if self.ask.texts {
            fields.push(("text", collection.text(row)?.map_or(Reply::Null, Reply::bulk)));
        }
        if self.ask.vectors {
            let vector = collection.vector(row)?;
            let components = vector.iter().map(|&value| Reply::Double(f64::from(value)));
            fields.push(("vector", Reply::Array(components.collect())));
        }
        Ok(fields)
    }

    /// How a result came by its score: rank and score by clause, the terms it has, and what was added.
    pub(super) fn explain(&self, one: &Ranked, ranking: &Ranking) -> Result<Reply, CommandError> {
        let mut clauses = Vec::new();
        for (at, (clause, hits)) in self.ask.clauses.iter().zip(&ranking.clauses).enumerate() {
            let place = hits.iter().position(|(_, candidate)| *candidate == one.candidate);
            let mut fields = vec![("clause", Reply::text(clause.name()))];
            fields.extend(clause.field.as_ref().map(|field| ("field", Reply::bulk(field))));
            fields.push(("rank", place.map_or(Reply::Null, |place| Reply::integer(place + 1))));
            fields.push(("score", place.map_or(Reply::Null, |place| Reply::Double(hits[place].0))));
            if let What::Match { .. } = clause.what {
                fields.push(("terms", self.terms(at, one.candidate)?));
            }
            clauses.push(Reply::fields(fields));
        }
        let mut fields = vec![("clauses", Reply::Array(clauses)), ("fused", Reply::Double(one.fused))];
        if one.boost != 0.0 {
            fields.push(("boost", Reply::Double(one.boost)));
        }
        if let Some(score) = one.reranked {
            fields.push(("rerank", Reply::Double(score)));
        }
        Ok(Reply::fields(fields))
    }

    /// The terms of a MATCH clause that an element has.
    fn terms(&self, clause: usize, (target, row): Candidate) -> Result<Reply, CommandError> {
        let (collection, query) = (&self.targets[target].collection, &self.queries[clause][target]);
        let segments = Segments::of(collection);
        let matched = segments.matched(&segments.matcher(collection, query)?, row);
        Ok(Reply::Array(matched.into_iter().map(|term| Reply::bulk(query.terms[term].as_bytes())).collect()))
    }

    /// How the candidates of each clause were found.
    fn clause_plans(&self, ranking: &Ranking) -> Vec<Reply> {
        let many = self.targets.len().max(1);
        let mut dense = self.dense.chunks(many).zip(ranking.traces.chunks(many));
        let clause = |(at, clause): (usize, &Clause)| {
            let (searches, traces) = match clause.what {
                What::Vector(_) => dense.next().unwrap_or_default(),
                What::Match { .. } | What::Sparse(_) => Default::default(),
            };
            let collections: Vec<&Collection> = match clause.what {
                What::Vector(_) => searches.iter().map(|search| &*search.collection).collect(),
                What::Match { .. } | What::Sparse(_) => {
                    self.targets.iter().map(|target| &*target.collection).collect()
                }
            };
            let rows = |one: &&Collection| match clause.what {
                What::Match { .. } => one.text_stats().texts,
                What::Vector(_) | What::Sparse(_) => one.len() as u64,
            };
            let mut fields = vec![("clause", Reply::text(clause.name()))];
            fields.extend(clause.field.as_ref().map(|field| ("field", Reply::bulk(field))));
            fields.push(("plan", Reply::Bulk(plan(clause, traces).into())));
            fields.push(("rows", Reply::integer(collections.iter().map(rows).sum::<u64>())));
            if let Some(filter) = &self.ask.filter {
                let passing = collections.iter().map(|one| one.passing(filter).count());
                fields.push(("passing", Reply::integer(passing.sum::<usize>())));
            }
            fields.push(("candidates", Reply::integer(ranking.clauses[at].len())));
            Reply::fields(fields)
        };
        self.ask.clauses.iter().enumerate().map(clause).collect()
    }

    /// How the search was made.
    fn plan(&self, ranking: &Ranking, times: &Times) -> Reply {
        let fusion = match self.ask.fusion() {
            None => "none",
            Some(Fusion::Rrf { .. }) => "rrf",
            Some(Fusion::Linear(Norm::MinMax)) => "linear minmax",
            Some(Fusion::Linear(Norm::Dbsf)) => "linear dbsf",
            Some(Fusion::Linear(Norm::None)) => "linear",
        };
        let mut fields = vec![
            ("clauses", Reply::Array(self.clause_plans(ranking))),
            ("window", Reply::integer(ranking.window)),
            ("fusion", Reply::text(fusion)),
            ("candidates", Reply::integer(ranking.candidates)),
        ];
        fields.extend(times.steps.iter().map(|(step, us)| (*step, Reply::integer(*us))));
        Reply::fields(fields)
    }
}

/// How the candidates of a clause were found; several ways if the collections differ.
fn plan(clause: &Clause, traces: &[Trace]) -> String {
    let plan_of = |trace: &Trace| Some(trace.as_ref()?.get()?.name());
    let mut names: Vec<&str> = match clause.what {
        What::Vector(_) => traces.iter().filter_map(plan_of).collect(),
        What::Match { .. } => vec!["maxscore"],
        What::Sparse(_) => vec!["postings"],
    };
    names.dedup();
    names.join(", ")
}

impl Clause {
    fn name(&self) -> &'static str {
        match self.what {
            What::Vector(_) => "VECTOR",
            What::Match { .. } => "MATCH",
            What::Sparse(_) => "SPARSE",
        }
    }
}
