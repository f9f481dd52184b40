//! How quick the graph is, and how much it finds: in this process, on one thread, in CPU time.
//!
//! `cargo bench --bench graph -- [filters] BASE QUERIES [ROWS [METRIC [M [EF]]]]`, with vectors as `.npy` (f32). METRIC is `cosine`
//! (default), `ip` or `l2`. Prints a line of JSON for each number of candidates: recall@10, microseconds of a query, queries a
//! second. `benches/compare_graphs.py` runs it beside other libraries. With `filters`, a line for each of some filters: how
//! searches fare as the planner carries them out, and otherwise (`filters.rs`).

mod filters;
#[path = "../kernels/vectors.rs"]
#[allow(dead_code, reason = "shared with another bench")]
mod vectors;

use std::path::Path;

use serde_json::json;
use vecdis::graph::{Builder, Graph, Node, Rows, Scratch};
use vecdis::vector::arena::{NewRow, RowArena, RowShape};
use vecdis::vector::kernel::{RowRef, prefetch};
use vecdis::vector::{Layout, Metric, Quantization, Query, TopK, encode};
use vectors::Vectors;

/// Neighbours asked for.
const COUNT: usize = 10;
/// Candidates scored again from their originals, at most.
const RESCORED: usize = 30;
/// Originals that are asked for ahead of the one being scored.
const ORIGINALS_AHEAD: usize = 3;
const EFS: [usize; 14] = [10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 448, 640, 896];
const ROUNDS: usize = 3;
const SEED: u64 = 1;

/// Rows in arenas, one for each page of the graph.
struct Arenas {
    arenas: Vec<RowArena>,
    rows: usize,
}

impl Rows for Arenas {
    fn limit(&self) -> Node {
        Node::try_from(self.rows).expect("few rows")
    }

    fn row(&self, node: Node) -> RowRef<'_> {
        self.arenas[node as usize >> 16].row(node as usize & 0xffff)
    }
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let with_filters = words.first().is_some_and(|word| word == "filters");
    words.drain(..usize::from(with_filters));
    let word = |at: usize| words.get(at).map(String::as_str);
    let (Some(base), Some(queries)) = (word(0), word(1)) else {
        return println!("usage: graph [filters] BASE QUERIES [ROWS [METRIC [M [EF]]]]");
    };
    let number = |at: usize, default| word(at).map_or(default, |word| word.parse().expect("a number"));
    let metric = match word(3) {
        None | Some("cosine") => Metric::Cosine,
        Some("ip") => Metric::Ip,
        Some("l2") => Metric::L2,
        Some(other) => panic!("no metric: {other}"),
    };
    let base = Vectors::read(Path::new(base)).expect("the base can be read");
    let queries = Vectors::read(Path::new(queries)).expect("the queries can be read");
    let rows = number(2, base.rows().len()).min(base.rows().len());
    let layout = Layout { dim: base.dim, metric, quantization: Quantization::Int8 };
    if with_filters {
        return filters::run(&layout, &base, &queries, rows);
    }
    let arenas = fill(&layout, &base, rows);
    let graph = Graph::new(number(4, 16), number(5, 128), SEED);
    let start_s = cpu_s();
    let mut builder = Builder::new(&layout);
    for row in 0..rows {
        assert!(graph.insert(&arenas, Node::try_from(row).expect("few rows"), row as u64, &mut builder));
    }
    let build_s = cpu_s() - start_s;
    let bytes = graph.size_bytes() as f64 / rows as f64;
    println!(
        "{}",
        json!({ "rows": rows, "build_cpu_s": build_s, "graph_bytes_per_row": bytes, "max_level": graph.max_level() })
    );
    let queries: Vec<Query> =
        (0..queries.rows().len()).map(|at| Query::new(&layout, queries.row(at))).collect();
    let truth: Vec<Vec<(f32, u64)>> = queries.iter().map(|query| exact(query, &base, rows)).collect();
    for ef in EFS {
        let recall = measure(&graph, &arenas, &queries, &truth, ef);
        if recall > 0.998 {
            break;
        }
    }
}

fn fill(layout: &Layout, base: &Vectors, rows: usize) -> Arenas {
    let shape = RowShape {
        code_bytes: layout.code_bytes(),
        original_len: layout.dim,
        biased: layout.metric == Metric::L2,
    };
    let mut arenas = Vec::new();
    let mut codes = vec![0; layout.code_bytes()];
    for at in 0..rows {
        if at % (1 << 16) == 0 {
            arenas.push(RowArena::new(shape));
        }
        let scalars = encode(layout, base.row(at), &mut codes);
        let row = NewRow { codes: &codes, scalars, original: base.row(at), name: b"" };
        arenas[at >> 16].push(&row).expect("the arena has room");
    }
    Arenas { arenas, rows }
}

fn exact(query: &Query, base: &Vectors, rows: usize) -> Vec<(f32, u64)> {
    let mut best = TopK::new(COUNT);
    (0..rows).for_each(|row| best.push(query.exact(base.row(row)), row as u64));
    best.into_sorted()
}

/// Searches with `ef` candidates and prints how that went; gives the recall.
fn measure(graph: &Graph, arenas: &Arenas, queries: &[Query], truth: &[Vec<(f32, u64)>], ef: usize) -> f64 {
    let mut scratch = Scratch::default();
    let (mut best_s, mut found, mut scored) = (f64::MAX, 0, 0);
    for _ in 0..ROUNDS {
        (found, scored) = (0, 0);
        let start_s = cpu_s();
        for (query, truth) in queries.iter().zip(truth) {
            graph.search(arenas, query, ef, &mut scratch, |_| true);
            scored += scratch.scored;
            let mut best = TopK::new(COUNT);
            rescore(query, &scratch, arenas, &mut best);
            let worst = truth.last().map_or(f32::MIN, |&(score, _)| score);
            found += best.into_sorted().iter().filter(|&&(score, _)| score >= worst).count();
        }
        best_s = best_s.min(cpu_s() - start_s);
    }
    let count = queries.len() as f64;
    let recall = found as f64 / (count * COUNT as f64);
    println!(
        "{}",
        json!({ "ef": ef, "recall": recall, "query_us": best_s / count * 1e6, "queries_per_s": count / best_s,
            "scored": scored / queries.len() })
    );
    recall
}

/// Scores the best candidates from their originals, as the server does.
fn rescore(query: &Query, scratch: &Scratch, arenas: &Arenas, best: &mut TopK) {
    let original = |node: Node| arenas.arenas[node as usize >> 16].original(node as usize & 0xffff);
    let candidates = scratch.found().take(RESCORED).map(|(_, node)| (node, original(node)));
    let candidates: Vec<(Node, &[f32])> = candidates.collect();
    for (at, &(node, original)) in candidates.iter().enumerate() {
        candidates.get(at + ORIGINALS_AHEAD).inspect(|(_, original)| prefetch(original));
        best.push(query.exact(original), u64::from(node));
    }
}

/// CPU time of this thread.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells CPU times");
    stat.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).expect("a number") / 1e9
}
