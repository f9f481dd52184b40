//! Searches under filters: what the planner chooses beside walking and beside going over the rows that pass.

use std::sync::Arc;

use serde_json::json;
use vecdis::collection::filter::Filter;
use vecdis::collection::index::{Covered, Index};
use vecdis::collection::search::{SearchRequest, search};
use vecdis::collection::tune::tune;
use vecdis::collection::{AttributeChange, Attributes, Collection, Encoded, Params, RowId, TextChange};
use vecdis::graph::Scratch;
use vecdis::vector::kernel::RowRef;
use vecdis::vector::{Layout, Query, TopK};

use super::vectors::Vectors;
use super::{COUNT, RESCORED, ROUNDS, cpu_s};

/// Per mille of the rows: with `n` they lie anywhere, with `far` they are those farthest from all queries.
const FILTERS: [&str; 7] =
    [".n < 500", ".n < 100", ".n < 20", ".n < 3", ".far < 100", ".far < 20", ".far < 3"];
/// Queries, of those that were given.
const MAX_QUERIES: usize = 300;
/// Candidates of the walks that the plan is compared with.
const EFS: [usize; 12] = [40, 56, 80, 112, 160, 224, 320, 640, 1280, 2560, 5120, 10_240];
/// What a search must reach, and what a walk must reach that a plan of higher recall is compared with.
const MIN_RECALL: f64 = 0.95;
const COMPARED_RECALL: f64 = 0.99;
const MAX_TIMES: f64 = 1.3;

/// Prints a line of JSON for each filter: recall and time of a search as planned, of one over the rows that pass, and of the
/// quickest walk whose recall is as high (0.99 is high enough), if one's is. Then whether all is as it should be.
pub fn run(layout: &Layout, base: &Vectors, queries: &Vectors, rows: usize) {
    let queries: Vec<Query> =
        queries.rows().take(MAX_QUERIES).map(|query| Query::new(layout, query)).collect();
    let mut collection = fill(layout, base, rows, &queries);
    let flat = Arc::new(collection.clone());
    collection.index = Arc::new(Index::default());
    let collection = Arc::new(collection);
    let graph = collection.index.to_link(&collection).expect("enough rows for a graph");
    assert!(graph.link(&collection, || true), "all rows are linked");
    graph.set_tuning(tune(&collection, &graph).expect("rows can be read"));
    assert!(collection.index.adopt(&graph), "the graph is used");
    println!("{}", json!({ "rows": rows, "tuning": format!("{:?}", graph.tuning()) }));
    let mut kept = true;
    for expr in FILTERS {
        let filter = Arc::new(Filter::parse(expr.as_bytes()).expect("a filter"));
        let truth: Vec<Vec<u64>> = ask(&flat, &queries, &filter, true).0;
        let (scanned, scan_us) = best(|| ask(&flat, &queries, &filter, false));
        let (planned, plan_us) = best(|| ask(&collection, &queries, &filter, false));
        let recall_planned = recall(&planned, &truth);
        let wanted = recall_planned.clamp(MIN_RECALL, COMPARED_RECALL);
        let walked = EFS.iter().find_map(|&ef| {
            let (found, walk_us) = best(|| walk(&collection, &graph, &queries, &filter, ef));
            (recall(&found, &truth) >= wanted).then_some((ef, walk_us))
        });
        let times = plan_us / walked.map_or(scan_us, |(_, walk_us)| walk_us.min(scan_us));
        kept &= recall_planned >= MIN_RECALL && times <= MAX_TIMES;
        println!(
            "{}",
            json!({ "filter": expr, "recall": recall_planned, "us": plan_us, "scan_us": scan_us,
                "scan_recall": recall(&scanned, &truth), "walk_ef": walked.map(|(ef, _)| ef),
                "walk_us": walked.map(|(_, walk_us)| walk_us), "times_the_better": times })
        );
    }
    println!("{}", json!({ "recall_and_times_kept": kept }));
}

fn fill(layout: &Layout, base: &Vectors, rows: usize, queries: &[Query]) -> Collection {
    let mut collection = Collection::new(1, Params::new(*layout));
    let far = far(layout, base, rows, queries);
    for (row, far) in far.into_iter().enumerate() {
        let n = row * 7919 % 1000;
        let attributes = Attributes::from(format!(r#"{{"n":{n},"far":{far}}}"#).as_bytes());
        let encoded = Encoded::new(&collection.params, base.row(row));
        let attributes = AttributeChange::Set(Some(attributes));
        collection.put(&row.to_le_bytes(), base.row(row), &encoded, &attributes, &TextChange::Keep);
    }
    collection
}

/// For each row, how many per mille of the rows are farther from the query next to them.
fn far(layout: &Layout, base: &Vectors, rows: usize, queries: &[Query]) -> Vec<usize> {
    let mut codes = vec![0; layout.code_bytes()];
    let nearest: Vec<f32> = (0..rows)
        .map(|row| {
            let scalars = vecdis::vector::encode(layout, base.row(row), &mut codes);
            let row = RowRef { bytes: &codes, scale: &scalars.scale, bias: Some(&scalars.bias) };
            let mut score = [0.0];
            let scores = queries.iter().map(|query| {
                query.score_each(&[row], &mut score);
                score[0]
            });
            scores.fold(f32::MIN, f32::max)
        })
        .collect();
    let mut order: Vec<usize> = (0..rows).collect();
    order.sort_by(|&a, &b| nearest[a].total_cmp(&nearest[b]));
    let mut far = vec![0; rows];
    order.into_iter().enumerate().for_each(|(rank, row)| far[row] = rank * 1000 / rows);
    far
}

/// The rows found for each query, by searches one after the other, and the microseconds of each.
fn ask(
    collection: &Arc<Collection>,
    queries: &[Query],
    filter: &Arc<Filter>,
    exact: bool,
) -> (Vec<Vec<u64>>, f64) {
    let start_s = cpu_s();
    let found = queries.iter().map(|query| {
        let request = SearchRequest {
            collection: Arc::clone(collection),
            query: query.clone(),
            count: COUNT,
            effort: 0,
            exact,
            filter: Some(Arc::clone(filter)),
            trace: None,
        };
        let hits = search(vec![request]).pop().expect("one answer").expect("rows can be read");
        hits.into_iter().map(|hit| hit.row.0).collect()
    });
    let found = found.collect();
    (found, (cpu_s() - start_s) / queries.len() as f64 * 1e6)
}

/// As [`ask`], by walks that keep `ef` candidates and are never given up.
fn walk(
    collection: &Collection,
    graph: &Covered,
    queries: &[Query],
    filter: &Filter,
    ef: usize,
) -> (Vec<Vec<u64>>, f64) {
    let mut scratch = Scratch::default();
    let pages = graph.pages();
    let start_s = cpu_s();
    let found = queries.iter().map(|query| {
        let passing: Vec<Vec<u64>> = collection
            .chunks
            .iter()
            .map(|chunk| chunk.filters.passing(chunk, filter, 0, chunk.live.len()))
            .collect();
        // Chunks and pages of a graph that was built at once are numbered alike.
        let passes = |node: u32| {
            let offset = node as usize & 0xffff;
            passing[node as usize >> 16][offset / 64] >> (offset % 64) & 1 == 1
        };
        graph.graph.search(&pages, query, ef, &mut scratch, |_| true);
        let mut best = TopK::new(COUNT);
        for (_, node) in scratch.found().filter(|&(_, node)| passes(node)).take(RESCORED) {
            let row = RowId(u64::from(node));
            best.push(query.exact(&collection.vector(row).expect("rows can be read")), row.0);
        }
        best.into_sorted().into_iter().map(|(_, row)| row).collect()
    });
    let found = found.collect();
    (found, (cpu_s() - start_s) / queries.len() as f64 * 1e6)
}

/// The quickest of some rounds.
fn best(act: impl Fn() -> (Vec<Vec<u64>>, f64)) -> (Vec<Vec<u64>>, f64) {
    let rounds = (0..ROUNDS).map(|_| act());
    rounds.min_by(|(_, a_us), (_, b_us)| a_us.total_cmp(b_us)).expect("there are rounds")
}

fn recall(found: &[Vec<u64>], truth: &[Vec<u64>]) -> f64 {
    let hits: usize = found
        .iter()
        .zip(truth)
        .map(|(found, truth)| found.iter().filter(|&row| truth.contains(row)).count())
        .sum();
    hits as f64 / truth.iter().map(Vec::len).sum::<usize>().max(1) as f64
}
