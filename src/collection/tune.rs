//! What a graph is worth: the recall of walks that begin at some of the collection's own rows, against proved answers.

use std::sync::Arc;

use super::index::{Covered, Tuning};
use super::search::{Hit, SearchRequest, search};
use super::walk::RESCORED_PER_RESULT;
use super::{Collection, CollectionError, RowId};
use crate::graph::Scratch;
use crate::vector::{Query, TopK};

/// Rows whose neighbours are looked for.
const SAMPLES: usize = 64;
/// Neighbours of each.
const COUNT: usize = 10;
/// The recall that is aimed at. More than a search is to have: queries are harder to answer than rows of the collection.
const TARGET: f64 = 0.998;
/// Candidates a walk may keep by default.
const EFS: [usize; 11] = [40, 56, 80, 112, 160, 224, 320, 448, 640, 896, 1280];

/// Finds the fewest candidates with which walks find nearly all neighbours, of a version whose rows are all linked.
///
/// # Errors
/// When a row cannot be read.
pub fn tune(collection: &Arc<Collection>, graph: &Covered) -> Result<Tuning, CollectionError> {
    let samples = samples(collection);
    let layout = &collection.params.layout;
    let mut requests = Vec::with_capacity(samples.len());
    for &row in &samples {
        requests.push(SearchRequest {
            collection: Arc::clone(collection),
            query: Query::new(layout, &collection.vector(row)?),
            // The row finds itself.
            count: COUNT + 1,
            effort: 0,
            exact: true,
            filter: None,
            trace: None,
        });
    }
    let queries: Vec<Query> = requests.iter().map(|request| request.query.clone()).collect();
    let truths: Vec<Vec<Hit>> = search(requests).into_iter().collect::<Result<_, _>>()?;
    let nodes = graph.graph.len();
    let mut scratch = Scratch::default();
    let mut tuning = Tuning { ef: EFS[0], recall: 0.0, nodes };
    for ef in EFS.into_iter().filter(|&ef| ef < nodes.max(EFS[0] + 1)) {
        let (mut found, mut wanted) = (0, 0);
        for ((&row, query), truth) in samples.iter().zip(&queries).zip(&truths) {
            let others = truth.iter().filter(|hit| hit.row != row).take(COUNT);
            let Some(worst) = others.clone().last() else { continue };
            let hits = walk(collection, graph, query, ef, &mut scratch)?;
            let near = hits.iter().filter(|&&(score, hit)| hit != row.0 && score >= worst.score);
            found += near.count().min(COUNT);
            wanted += others.count();
        }
        let recall = f64::from(u32::try_from(found).unwrap_or(0)) / wanted.max(1) as f64;
        tuning = Tuning { ef, recall, nodes };
        if recall >= TARGET {
            break;
        }
    }
    Ok(tuning)
}

/// Some live rows, evenly spread.
fn samples(collection: &Collection) -> Vec<RowId> {
    let step = collection.len().div_ceil(SAMPLES).max(1);
    collection.live_rows().step_by(step).collect()
}

fn walk(
    collection: &Collection,
    graph: &Covered,
    query: &Query,
    ef: usize,
    scratch: &mut Scratch,
) -> Result<Vec<(f32, u64)>, CollectionError> {
    graph.graph.search(&graph.pages(), query, ef, scratch, |_| true);
    let live = |row: &RowId| collection.chunk(*row).is_some_and(|chunk| chunk.is_live(row.offset()));
    let rows = scratch.found().filter_map(|(_, node)| graph.row(node)).filter(live);
    let mut best = TopK::new(COUNT + 1);
    for row in rows.take(RESCORED_PER_RESULT * COUNT) {
        best.push(query.exact(&collection.vector(row)?), row.0);
    }
    Ok(best.into_sorted())
}
