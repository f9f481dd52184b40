//! VSEARCH and VMSEARCH: similar vectors, words, or both, in one ranking.
//!
//! A command is read (`grammar`) and becomes a [`Combined`] search: for each collection and clause, candidates that the search
//! threads find; then a ranking of them (`rank`) and its reply (`answer`).

mod answer;
mod grammar;
mod group;
mod rank;

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::oneshot;

use super::parse::integer_within;
use super::reply::Reply;
use super::text::text_argument;
use super::vectors::row_of;
use super::vsim::fit;
use super::{Call, CommandError, Context, Outcome};
use crate::collection::Collection;
use crate::collection::plan::Plan;
use crate::collection::search::{Hits, SearchRequest};
use crate::collection::sparse::SparseRequest;
use crate::collection::text_search::{TextHits, TextRequest};
use crate::embed::{Model, Role, Vector};
use crate::metrics::EmbeddingUse;
use crate::store::Store;
use crate::store::executor::search_here;
use crate::store::state::{Key, NamespaceId};
use crate::text::bm25::TextQuery;
use crate::vector::Query;
use grammar::{Ask, Clause, Source, What};

/// Collections one VMSEARCH may look in.
const MAX_COLLECTIONS: i64 = 64;
/// Elements up to which a search of postings is not worth another thread.
const SMALL_TEXTS: u64 = 2048;
/// Candidates up to which ranking them is not.
const SMALL_CANDIDATES: usize = 4096;

/// A collection to look in.
struct Target {
    collection: Arc<Collection>,
    key: Key,
}

/// A vector search as the ranking knows it.
struct Dense {
    /// The vectors it compares: of a collection, or of a field.
    collection: Arc<Collection>,
    /// For EXPLAIN: how it was answered.
    trace: Option<Arc<OnceLock<Plan>>>,
}

/// What is asked for, and where.
struct Asked {
    ask: Ask,
    targets: Vec<Target>,
    /// Whether results name their collection.
    shows_key: bool,
    /// The keyword searches, by clause and collection; none for other clauses.
    queries: Vec<Vec<TextQuery>>,
    /// The vector searches, by clause and collection.
    dense: Vec<Dense>,
    /// The text of the query, for BOOSTTEXT and RERANK.
    text: Option<Arc<str>>,
    /// Where texts that RERANK embeds are counted.
    payer: Arc<EmbeddingUse>,
    namespace: NamespaceId,
}

/// A search of postings.
enum Postings {
    Words(TextRequest),
    Sparse(SparseRequest),
}

impl Postings {
    fn run(&self) -> TextHits {
        match self {
            Self::Words(request) => request.run(),
            Self::Sparse(request) => request.run(),
        }
    }

    /// Elements it may find.
    fn elements(&self) -> u64 {
        match self {
            Self::Words(request) => request.collection.text_stats().texts,
            Self::Sparse(request) => request.collection.len() as u64,
        }
    }
}

/// A search of postings, on its way or not begun yet.
enum Lookup {
    Here(Postings),
    Waiting(oneshot::Receiver<TextHits>),
}

/// A search of several clauses. See the module's text.
pub struct Combined {
    asked: Arc<Asked>,
    /// Vector searches that have not been handed out yet, by clause and collection.
    searches: Vec<SearchRequest>,
    /// Keyword searches, by clause and collection.
    lookups: Vec<Lookup>,
    /// What RERANK scores with, and the query's vector by it; a model that scores answers needs none.
    rerank: Option<(Arc<Model>, Option<Vector>)>,
}

/// `VSEARCH key clause [clause ...] [options]`
pub(super) fn vsearch(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let ask = grammar::parse(call.request, 2)?;
    let targets = call.collection(1).map(|found| Target { collection: Arc::clone(found), key: call.key(1) });
    combined(call, ask, targets.into_iter().collect(), false)
}

/// `VMSEARCH numkeys key [key ...] clause [clause ...] [options]`: the results of several collections in one ranking.
pub(super) fn vmsearch(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let count = integer_within(call.request.arg(1), 1, MAX_COLLECTIONS).and_then(|n| usize::try_from(n).ok());
    let count = count.ok_or(CommandError::text("ERR numkeys must be between 1 and 64"))?;
    if call.request.len() < 2 + count {
        return Err(CommandError::Arity("VMSEARCH".into()));
    }
    let ask = grammar::parse(call.request, 2 + count)?;
    let target = |at: usize| {
        let collection = Arc::clone(call.collection(at)?);
        Some(Target { collection, key: call.key(at) })
    };
    combined(call, ask, (2..2 + count).filter_map(target).collect(), true)
}

fn combined(
    call: &Call<'_>,
    ask: Ask,
    targets: Vec<Target>,
    shows_key: bool,
) -> Result<Outcome, CommandError> {
    let text = ask.text().map(|at| text_argument(call.request.arg(at)).map(Arc::from)).transpose()?;
    let is_dense = ask.clauses.iter().any(|clause| matches!(clause.what, What::Vector(_)));
    let metric = |target: &Target| target.collection.params.layout.metric;
    if is_dense && targets.windows(2).any(|two| metric(&two[0]) != metric(&two[1])) {
        return Err(CommandError::text("ERR the collections have different metrics"));
    }
    let mut vectors = embedded(call, &ask, &targets, text.as_ref())?.into_iter();
    let rerank = match reranker(call, &ask)? {
        Some(model) if model.is_cross_encoder() => Some((model, None)),
        Some(_) => vectors.next().map(|(model, vector)| (model, Some(vector))),
        None => None,
    };
    let (mut searches, mut lookups, mut queries, mut dense) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for clause in &ask.clauses {
        let mut of_clause = Vec::new();
        for target in &targets {
            let (count, filter) = (ask.window(), ask.filter.clone());
            let collection = Arc::clone(&target.collection);
            match &clause.what {
                What::Match { text, k1, b } => {
                    let query = text_query(&collection, call.request.arg(*text), (*k1, *b))?;
                    of_clause.push(query.clone());
                    let words = TextRequest { collection, query, count, filter };
                    lookups.push(Lookup::Here(Postings::Words(words)));
                }
                What::Sparse(query) => {
                    let query = Arc::clone(query);
                    let sparse = SparseRequest { collection, query, count, filter };
                    lookups.push(Lookup::Here(Postings::Sparse(sparse)));
                }
                What::Vector(source) => {
                    let field = clause.field.as_deref();
                    let collection = call.vectors(&target.key, &target.collection, field)?;
                    let vector = vector(call, collection, source, field, &mut vectors)?;
                    let trace = ask.explain.then(Arc::default);
                    dense.push(Dense { collection: Arc::clone(collection), trace: trace.clone() });
                    searches.push(SearchRequest {
                        query: Query::new(&collection.params.layout, &vector),
                        collection: Arc::clone(collection),
                        count,
                        effort: ask.effort,
                        exact: ask.exact,
                        filter,
                        trace,
                    });
                }
            }
        }
        queries.push(of_clause);
    }
    let (payer, namespace) = (Arc::clone(&call.scope.payer), call.scope.namespace);
    let asked = Arc::new(Asked { ask, targets, shows_key, queries, dense, text, payer, namespace });
    Ok(Outcome::Combined(Box::new(Combined { asked, searches, lookups, rerank })))
}

fn text_query(collection: &Collection, text: &[u8], (k1, b): (f64, f64)) -> Result<TextQuery, CommandError> {
    const TOO_MANY: CommandError = CommandError::text("ERR a MATCH can have 1024 different terms at most");
    let query = TextQuery::new(collection.params.analyzer, text).ok_or(TOO_MANY)?;
    Ok(TextQuery { k1, b, ..query })
}

fn not_found(field: Option<&[u8]>) -> CommandError {
    match field.map(String::from_utf8_lossy) {
        None => CommandError::text("ERR element not found in set"),
        Some(field) => CommandError::Text(format!("ERR element not found in field '{field}'").into()),
    }
}

/// The vector of a clause as a collection or a field compares it.
fn vector<'a>(
    call: &Call<'_>,
    collection: &'a Collection,
    source: &Source,
    field: Option<&[u8]>,
    embedded: &mut impl Iterator<Item = (Arc<Model>, Vector)>,
) -> Result<Cow<'a, [f32]>, CommandError> {
    match source {
        Source::Vector(vector) => fit(collection, vector.clone()),
        Source::Element(at) => {
            let row = row_of(collection, call.request.arg(*at))?;
            Ok(collection.vector(row.ok_or_else(|| not_found(field))?)?)
        }
        Source::Text(_) => {
            let (_, vector) = embedded.next().ok_or(NOT_EMBEDDED)?;
            fit(collection, vector.to_vec())
        }
    }
}

fn reranker(call: &Call<'_>, ask: &Ask) -> Result<Option<Arc<Model>>, CommandError> {
    let name = ask.rerank.as_ref().map(|(name, _)| name);
    Ok(name.map(|name| call.context.embedding.registry.get(name)).transpose()?)
}

/// The vectors of the texts in the query: that of RERANK's model first, then by clause and collection.
fn embedded(
    call: &Call<'_>,
    ask: &Ask,
    targets: &[Target],
    text: Option<&Arc<str>>,
) -> Result<Vec<(Arc<Model>, Vector)>, CommandError> {
    let sources = ask.clauses.iter().filter_map(|clause| match clause.what {
        What::Vector(Source::Text(at)) => Some(at),
        _ => None,
    });
    let mut texts = Vec::new();
    if let (Some(model), Some(text)) = (reranker(call, ask)?.filter(|model| !model.is_cross_encoder()), text)
    {
        texts.push(call.text(model, Role::Query, Arc::clone(text)));
    }
    for at in sources {
        let text: Arc<str> = text_argument(call.request.arg(at))?.into();
        for target in targets {
            let model = call.model_of(Some(&target.collection))?;
            texts.push(call.text(model, Role::Query, Arc::clone(&text)));
        }
    }
    let count = texts.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    let vectors = call.embed(|| Ok(texts))?;
    // A command inside EXEC may find a collection made since: then not all texts were embedded.
    if vectors.len() == count { Ok(vectors) } else { Err(NOT_EMBEDDED) }
}

impl Combined {
    /// How many vector searches it has.
    pub fn vector_searches(&self) -> usize {
        let is_dense = |clause: &&Clause| matches!(clause.what, What::Vector(_));
        self.asked.ask.clauses.iter().filter(is_dense).count() * self.asked.targets.len()
    }

    /// The vector searches, to be handed to the search threads with those of other commands.
    pub fn take_searches(&mut self) -> Vec<SearchRequest> {
        std::mem::take(&mut self.searches)
    }

    /// Begins the keyword searches that take longer than waking a thread.
    pub fn begin(&mut self, store: &Store) {
        let begun = std::mem::take(&mut self.lookups).into_iter().map(|lookup| match lookup {
            Lookup::Here(request) if request.elements() > SMALL_TEXTS => {
                Lookup::Waiting(store.run(move || request.run()))
            }
            other => other,
        });
        self.lookups = begun.collect();
    }

    /// Waits for the candidates, ranks them and answers. `vectors` are the answers to the vector searches.
    pub async fn answer(self, context: &Context, vectors: Vec<oneshot::Receiver<Hits>>) -> Reply {
        self.try_answer(context, vectors).await.unwrap_or_else(Reply::from)
    }

    async fn try_answer(
        self,
        context: &Context,
        vectors: Vec<oneshot::Receiver<Hits>>,
    ) -> Result<Reply, CommandError> {
        let mut times = Times::begin();
        let (mut vector_hits, mut text_hits) = (Vec::with_capacity(vectors.len()), Vec::new());
        for receiver in vectors {
            vector_hits.push(receiver.await.map_err(|_| STOPPING)?);
        }
        for lookup in self.lookups {
            text_hits.push(match lookup {
                Lookup::Here(request) => request.run(),
                Lookup::Waiting(receiver) => receiver.await.map_err(|_| STOPPING)?,
            });
        }
        times.note("candidates_us");
        let asked = Arc::clone(&self.asked);
        let rank = move || asked.rank(vector_hits, text_hits);
        let mut ranking = match self.asked.is_light() {
            true => rank(),
            false => context.store.run(rank).await.map_err(|_| STOPPING)?,
        }?;
        times.note("ranking_us");
        if let Some(rerank) = &self.rerank {
            self.asked.rerank(context, rerank, &mut ranking).await?;
            times.note("rerank_us");
        }
        self.asked.reply(ranking, &times)
    }

    /// Does all of it on the caller's thread: inside a transaction.
    pub fn here(self) -> Reply {
        if self.rerank.is_some() {
            return Reply::error("ERR RERANK cannot be used inside MULTI");
        }
        let mut times = Times::begin();
        let vectors = self.searches.into_iter().map(search_here).collect();
        let texts = self.lookups.into_iter().map(|lookup| match lookup {
            Lookup::Here(request) => request.run(),
            Lookup::Waiting(_) => unreachable!("nothing has been begun"),
        });
        let ranking = self.asked.rank(vectors, texts.collect());
        times.note("ranking_us");
        ranking.and_then(|ranking| self.asked.reply(ranking, &times)).unwrap_or_else(Reply::from)
    }
}

impl Asked {
    /// Whether ranking the candidates takes less than waking a thread.
    fn is_light(&self) -> bool {
        let candidates = self.ask.window() * self.ask.clauses.len() * self.targets.len();
        self.ask.mmr.is_none() && self.ask.boost_text.is_none() && candidates <= SMALL_CANDIDATES
    }
}

/// Microseconds by step, for EXPLAIN.
struct Times {
    last: Instant,
    steps: Vec<(&'static str, u128)>,
}

impl Times {
    fn begin() -> Self {
        Self { last: Instant::now(), steps: Vec::new() }
    }

    /// Ends a step.
    fn note(&mut self, step: &'static str) {
        self.steps.push((step, self.last.elapsed().as_micros()));
        self.last = Instant::now();
    }
}

const STOPPING: CommandError = CommandError::text("ERR the server is shutting down");
const NOT_EMBEDDED: CommandError = CommandError::text("ERR the text was not embedded, try again");
