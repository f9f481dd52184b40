//! The searches for candidates: one for each clause and collection. GROUPBY DOC may need several rounds of them, each with a
//! wider window.

use std::sync::{Arc, OnceLock};

use tokio::sync::oneshot;

use super::grammar::What;
use super::{Asked, STOPPING};
use crate::collection::plan::Plan;
use crate::collection::search::{Hits, SearchRequest};
use crate::collection::sparse::SparseRequest;
use crate::collection::text_search::{TextHits, TextRequest};
use crate::command::CommandError;
use crate::store::Store;
use crate::store::executor::search_here;

/// Elements up to which a search of postings is not worth another thread.
const SMALL_TEXTS: u64 = 2048;

/// For EXPLAIN: how a vector search was answered.
pub(super) type Trace = Option<Arc<OnceLock<Plan>>>;

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

/// The searches with one window, by clause and collection.
pub(super) struct Round {
    /// Candidates each clause gives at most.
    pub window: usize,
    /// Vector searches that have not been handed out yet.
    searches: Vec<SearchRequest>,
    lookups: Vec<Lookup>,
    traces: Vec<Trace>,
}

/// What the searches of a round found, by clause and collection.
pub(super) struct Candidates {
    pub window: usize,
    pub vectors: Vec<Hits>,
    pub texts: Vec<TextHits>,
    pub traces: Vec<Trace>,
}

impl Asked {
    /// The searches for so many candidates of each clause.
    pub(super) fn round(&self, window: usize) -> Round {
        let mut round = Round { window, searches: Vec::new(), lookups: Vec::new(), traces: Vec::new() };
        let mut dense = self.dense.iter();
        for (at, clause) in self.ask.clauses.iter().enumerate() {
            for (number, target) in self.targets.iter().enumerate() {
                let (count, filter) = (window, self.ask.filter.clone());
                let collection = Arc::clone(&target.collection);
                match &clause.what {
                    What::Match { .. } => {
                        let query = self.queries[at][number].clone();
                        let words = TextRequest { collection, query, count, filter };
                        round.lookups.push(Lookup::Here(Postings::Words(words)));
                    }
                    What::Sparse(query) => {
                        let query = Arc::clone(query);
                        let sparse = SparseRequest { collection, query, count, filter };
                        round.lookups.push(Lookup::Here(Postings::Sparse(sparse)));
                    }
                    What::Vector(_) => {
                        let Some(search) = dense.next() else { unreachable!("each has its search") };
                        let trace: Trace = self.ask.explain.then(Arc::default);
                        round.traces.push(trace.clone());
                        round.searches.push(SearchRequest {
                            query: search.query.clone(),
                            collection: Arc::clone(&search.collection),
                            count,
                            effort: self.ask.effort,
                            exact: self.ask.exact,
                            filter,
                            trace,
                        });
                    }
                }
            }
        }
        round
    }
}

impl Round {
    /// The vector searches, to be handed to the search threads.
    pub fn take_searches(&mut self) -> Vec<SearchRequest> {
        std::mem::take(&mut self.searches)
    }

    /// Begins the searches of postings that take longer than waking a thread.
    pub fn begin(&mut self, store: &Store) {
        let begun = std::mem::take(&mut self.lookups).into_iter().map(|lookup| match lookup {
            Lookup::Here(request) if request.elements() > SMALL_TEXTS => {
                Lookup::Waiting(store.run(move || request.run()))
            }
            other => other,
        });
        self.lookups = begun.collect();
    }

    /// Waits for everything. `vectors` are the answers to the vector searches.
    ///
    /// # Errors
    /// When the server stops.
    pub async fn candidates(self, vectors: Vec<oneshot::Receiver<Hits>>) -> Result<Candidates, CommandError> {
        let mut found = Candidates {
            window: self.window,
            vectors: Vec::with_capacity(vectors.len()),
            texts: Vec::with_capacity(self.lookups.len()),
            traces: self.traces,
        };
        for receiver in vectors {
            found.vectors.push(receiver.await.map_err(|_| STOPPING)?);
        }
        for lookup in self.lookups {
            found.texts.push(match lookup {
                Lookup::Here(request) => request.run(),
                Lookup::Waiting(receiver) => receiver.await.map_err(|_| STOPPING)?,
            });
        }
        Ok(found)
    }

    /// Makes all searches on the caller's thread.
    pub fn here(self) -> Candidates {
        let texts = self.lookups.into_iter().map(|lookup| match lookup {
            Lookup::Here(request) => request.run(),
            Lookup::Waiting(_) => unreachable!("nothing has been begun"),
        });
        Candidates {
            window: self.window,
            vectors: self.searches.into_iter().map(search_here).collect(),
            texts: texts.collect(),
            traces: self.traces,
        }
    }
}
