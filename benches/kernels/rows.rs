//! A collection in memory, as the server keeps it, searched through the library.

use std::sync::{Arc, PoisonError};

use vecdis::collection::search::{Hits, Pass, SearchRequest};
use vecdis::collection::{AttributeChange, Collection, Encoded, Params, TextChange};
use vecdis::vector::arena::Run;
use vecdis::vector::{Layout, Metric, Quantization, Query};

use crate::vectors::Vectors;

/// Results a search gives.
pub const COUNT: usize = 10;
/// Rows that become visible together while loading.
const PUBLISHED_ROWS: usize = 4096;

/// A collection with the rows of some vectors, named by their numbers; metric COSINE, quantised to int8.
pub fn load(vectors: &Vectors) -> Arc<Collection> {
    let layout = Layout { dim: vectors.dim, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let params = Params::new(layout);
    let mut collection = Collection::new(1, params);
    for (row, vector) in vectors.rows().enumerate() {
        let name = row.to_string();
        collection.put(
            name.as_bytes(),
            vector,
            &Encoded::new(&params, vector),
            &AttributeChange::Keep,
            &TextChange::Keep,
        );
        if (row + 1) % PUBLISHED_ROWS == 0 {
            publish(&mut collection);
        }
    }
    publish(&mut collection);
    Arc::new(collection)
}

fn publish(collection: &mut Collection) {
    let (table, pending) = collection.take_pending();
    table.write().unwrap_or_else(PoisonError::into_inner).apply(&pending);
}

/// The memory a scan goes over.
pub fn runs(collection: &Collection) -> Vec<Run<'_>> {
    collection.chunks.iter().flat_map(|chunk| chunk.rows.runs(chunk.len)).collect()
}

/// One pass that answers all queries: what the server does with searches that wait together. Preparing the queries is part of
/// it; so is scoring the best candidates again from their originals.
pub fn search<'a>(
    collection: &Arc<Collection>,
    queries: impl Iterator<Item = &'a [f32]>,
    threads: usize,
) -> Vec<Hits> {
    let request = |vector: &[f32]| SearchRequest {
        collection: Arc::clone(collection),
        query: Query::new(&collection.params.layout, vector),
        count: COUNT,
        effort: 0,
        exact: false,
        filter: None,
        trace: None,
    };
    let pass = Pass::new(queries.map(request).collect());
    let answers = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(|| pass.work())).collect();
        let own = pass.work();
        let others = helpers.into_iter().filter_map(|helper| helper.join().ok().flatten());
        own.or_else(|| others.last())
    });
    answers.unwrap_or_else(|| unreachable!("one of the threads ends the pass"))
}
