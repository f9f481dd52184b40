//! The graphs of the crates hnsw_rs and hora: `vecdis-rust-peers BASE QUERIES ROWS`, with vectors as `.npy` (f32). Prints a line of
//! JSON for each number of candidates: the crate's name, CPU seconds of the build, recall@10, CPU microseconds of a query.
//!
//! Vectors are made unit vectors and compared by Euclidean distance, which ranks as the cosine does. It is the one metric of
//! hora 0.1.1 to compare: without nightly Rust its `DotProduct` and `Angular` put the farthest first, and `CosineSimilarity` takes the
//! square root of a negative number. Nor can hora be the engine of a server: nothing is ever deleted, an element that is added
//! again is found twice, rows added later are found after another `build` only, which needs the index for itself, the number of
//! candidates is fixed with the index, each vector is kept once more as f32, and its file has no checksum.

#[path = "../../kernels/vectors.rs"]
#[allow(dead_code, reason = "shared with other benches")]
mod vectors;

use std::path::Path;

use hnsw_rs::prelude::{DistL2, Hnsw};
use hora::core::ann_index::ANNIndex;
use hora::core::metrics::Metric;
use hora::index::hnsw_idx::HNSWIndex;
use hora::index::hnsw_params::HNSWParams;
use serde_json::json;
use vectors::Vectors;

const COUNT: usize = 10;
const M: usize = 16;
const EF_CONSTRUCTION: usize = 128;
const MAX_LEVEL: usize = 16;
const EFS: [usize; 6] = [14, 28, 56, 112, 224, 448];
/// hora is built again for each.
const HORA_EFS: [usize; 3] = [16, 48, 144];
const ROUNDS: usize = 3;
/// Distances that differ by less are equal.
const TIE: f32 = 1e-6;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [base, queries, rows] = &words[..] else {
        return println!("usage: vecdis-rust-peers BASE QUERIES ROWS");
    };
    let rows: usize = rows.parse().expect("a number");
    let base = units(&Vectors::read(Path::new(base)).expect("the base can be read"), rows);
    let queries = units(&Vectors::read(Path::new(queries)).expect("the queries can be read"), usize::MAX);
    let bars: Vec<f32> = queries.iter().map(|query| bar(query, &base)).collect();

    let start_s = cpu_s();
    let graph = Hnsw::<f32, DistL2>::new(M, base.len(), MAX_LEVEL, EF_CONSTRUCTION, DistL2 {});
    base.iter().enumerate().for_each(|(row, vector)| graph.insert((vector, row)));
    let build_s = cpu_s() - start_s;
    for ef in EFS {
        measure("hnsw_rs", build_s, &base, (&queries, &bars), |query| {
            graph.search(query, COUNT, ef).into_iter().map(|found| found.d_id).collect()
        });
    }

    for ef in HORA_EFS {
        let params = HNSWParams::<f32>::default().max_item(base.len() + 1).n_neighbor(M).n_neighbor0(2 * M);
        let params = params.ef_build(EF_CONSTRUCTION).ef_search(ef);
        let start_s = cpu_s();
        let mut graph = HNSWIndex::<f32, usize>::new(base[0].len(), &params);
        for (row, vector) in base.iter().enumerate() {
            graph.add(vector, row).expect("there is room");
        }
        graph.build(Metric::Euclidean).expect("it can be built");
        let build_s = cpu_s() - start_s;
        measure("hora", build_s, &base, (&queries, &bars), |query| graph.search(query, COUNT));
    }
}

fn units(vectors: &Vectors, rows: usize) -> Vec<Vec<f32>> {
    let unit = |row: &[f32]| {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter().map(|x| x / norm).collect()
    };
    vectors.rows().take(rows).map(unit).collect()
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()
}

/// The distance of the tenth nearest row.
fn bar(query: &[f32], base: &[Vec<f32>]) -> f32 {
    let mut all: Vec<f32> = base.iter().map(|row| distance(query, row)).collect();
    *all.select_nth_unstable_by(COUNT - 1, f32::total_cmp).1
}

fn measure(
    name: &str,
    build_s: f64,
    base: &[Vec<f32>],
    (queries, bars): (&[Vec<f32>], &[f32]),
    search: impl Fn(&[f32]) -> Vec<usize>,
) {
    let (mut best_s, mut found) = (f64::MAX, Vec::new());
    for _ in 0..ROUNDS {
        let start_s = cpu_s();
        found = queries.iter().map(|query| search(query)).collect();
        best_s = best_s.min(cpu_s() - start_s);
    }
    let hits = queries.iter().zip(bars).zip(&found).map(|((query, bar), rows)| {
        rows.iter().filter(|&&row| distance(query, &base[row]) <= bar + TIE).count().min(COUNT)
    });
    let recall = hits.sum::<usize>() as f64 / (queries.len() * COUNT) as f64;
    let query_us = best_s / queries.len() as f64 * 1e6;
    println!("{}", json!({ "name": name, "build_cpu_s": build_s, "recall": recall, "query_us": query_us }));
}

/// CPU time of all threads of this process, in steps of a hundredth of a second.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells CPU times");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in brackets");
    let ticks =
        fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}
