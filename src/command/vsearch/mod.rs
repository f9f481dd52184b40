//! VSEARCH and VMSEARCH: similar vectors, words, or both, in one ranking.
//!
//! A command is read (`grammar`) and becomes a [`Combined`] search: for each collection and clause, candidates that the search
//! threads find (`round`); then a ranking of them (`rank`) and its reply (`answer`).

mod answer;
mod grammar;
mod group;
mod rank;
mod round;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::parse::integer_within;
use super::reply::Reply;
use super::text::text_argument;
use super::vectors::row_of;
use super::vsim::fit;
use super::{Call, CommandError, Context, Outcome};
use crate::collection::Collection;
use crate::collection::search::{Hits, SearchRequest};
use crate::embed::{Model, Role, Vector};
use crate::metrics::EmbeddingUse;
use crate::store::Store;
use crate::store::state::{Key, NamespaceId};
use crate::text::bm25::TextQuery;
use crate::vector::Query;
use grammar::{Ask, Clause, Source, What};
use rank::Ranking;
use round::Round;

/// Collections one VMSEARCH may look in.
const MAX_COLLECTIONS: i64 = 64;
/// Candidates up to which ranking them is not worth another thread.
const SMALL_CANDIDATES: usize = 4096;

/// A collection to look in.
struct Target {
    collection: Arc<Collection>,
    key: Key,
}

/// A vector search.
struct Dense {
    /// The vectors it compares: of a collection, or of a field.
    collection: Arc<Collection>,
    query: Query,
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

/// A search of several clauses. See the module's text.
pub struct Combined {
    asked: Arc<Asked>,
    /// The searches for its candidates.
    round: Round,
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
    let (mut queries, mut dense) = (Vec::new(), Vec::new());
    for clause in &ask.clauses {
        let mut of_clause = Vec::new();
        for target in &targets {
            match &clause.what {
                What::Match { text, k1, b } => {
                    of_clause.push(text_query(&target.collection, call.request.arg(*text), (*k1, *b))?);
                }
                What::Sparse(_) => {}
                What::Vector(source) => {
                    let field = clause.field.as_deref();
                    let collection = call.vectors(&target.key, &target.collection, field)?;
                    let vector = vector(call, collection, source, field, &mut vectors)?;
                    let query = Query::new(&collection.params.layout, &vector);
                    dense.push(Dense { collection: Arc::clone(collection), query });
                }
            }
        }
        queries.push(of_clause);
    }
    let (payer, namespace) = (Arc::clone(&call.scope.payer), call.scope.namespace);
    let asked = Asked { ask, targets, shows_key, queries, dense, text, payer, namespace };
    let round = asked.round(asked.ask.window());
    Ok(Outcome::Combined(Box::new(Combined { asked: Arc::new(asked), round, rerank })))
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
        self.round.take_searches()
    }

    /// Begins the keyword searches that take longer than waking a thread.
    pub fn begin(&mut self, store: &Store) {
        self.round.begin(store);
    }

    /// Waits for the candidates, ranks them and answers. `vectors` are the answers to the vector searches.
    pub async fn answer(self, context: &Context, vectors: Vec<oneshot::Receiver<Hits>>) -> Reply {
        self.try_answer(context, vectors).await.unwrap_or_else(Reply::from)
    }

    async fn try_answer(
        self,
        context: &Context,
        mut vectors: Vec<oneshot::Receiver<Hits>>,
    ) -> Result<Reply, CommandError> {
        let Self { asked, mut round, rerank } = self;
        let mut times = Times::begin();
        let mut ranking: Ranking = loop {
            let is_light = asked.is_light(round.window);
            let found = round.candidates(vectors).await?;
            times.note("candidates_us");
            let owner = Arc::clone(&asked);
            let rank = move || owner.rank(found);
            let ranking = match is_light {
                true => rank(),
                false => context.store.run(rank).await.map_err(|_| STOPPING)?,
            }?;
            times.note("ranking_us");
            let Some(window) = asked.wider(&ranking) else { break ranking };
            round = asked.round(window);
            round.begin(&context.store);
            vectors = context.store.search(round.take_searches());
        };
        if let Some(rerank) = &rerank {
            asked.rerank(context, rerank, &mut ranking).await?;
            times.note("rerank_us");
        }
        asked.reply(ranking, &times)
    }

    /// Does all of it on the caller's thread: inside a transaction.
    pub fn here(self) -> Reply {
        if self.rerank.is_some() {
            return Reply::error("ERR RERANK cannot be used inside MULTI");
        }
        self.try_here().unwrap_or_else(Reply::from)
    }

    fn try_here(self) -> Result<Reply, CommandError> {
        let Self { asked, mut round, .. } = self;
        let mut times = Times::begin();
        loop {
            let found = round.here();
            times.note("candidates_us");
            let ranking = asked.rank(found)?;
            times.note("ranking_us");
            match asked.wider(&ranking) {
                Some(window) => round = asked.round(window),
                None => return asked.reply(ranking, &times),
            }
        }
    }
}

impl Asked {
    /// Whether ranking the candidates takes less than waking a thread.
    fn is_light(&self, window: usize) -> bool {
        let candidates = window * self.ask.clauses.len() * self.targets.len();
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

    /// Ends a step. One that is done again takes the time of all.
    fn note(&mut self, step: &'static str) {
        let us = self.last.elapsed().as_micros();
        match self.steps.iter_mut().find(|(known, _)| *known == step) {
            Some((_, sum)) => *sum += us,
            None => self.steps.push((step, us)),
        }
        self.last = Instant::now();
    }
}

const STOPPING: CommandError = CommandError::text("ERR the server is shutting down");
const NOT_EMBEDDED: CommandError = CommandError::text("ERR the text was not embedded, try again");
