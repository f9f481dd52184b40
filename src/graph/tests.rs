use std::collections::{HashSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::vector::arena::{NewRow, RowArena, RowShape};
use crate::vector::{Layout, Metric, Quantization, Query, encode};

const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Ip, Metric::L2];
const SEED: u64 = 7;

/// Rows of one arena.
pub(super) struct Arena {
    pub layout: Layout,
    pub arena: RowArena,
}

impl Rows for Arena {
    fn limit(&self) -> Node {
        Node::try_from(self.arena.len()).unwrap()
    }

    fn row(&self, node: Node) -> RowRef<'_> {
        self.arena.row(node as usize)
    }
}

fn layout(dim: usize, metric: Metric) -> Layout {
    Layout { dim, metric, quantization: Quantization::Int8 }
}

fn empty(layout: Layout) -> Arena {
    let shape = RowShape {
        code_bytes: layout.code_bytes(),
        original_len: layout.dim,
        biased: layout.metric == Metric::L2,
    };
    Arena { layout, arena: RowArena::new(shape) }
}

fn push(rows: &Arena, vector: &[f32]) {
    let mut codes = vec![0; rows.layout.code_bytes()];
    let scalars = encode(&rows.layout, vector, &mut codes);
    rows.arena.push(&NewRow { codes: &codes, scalars, original: vector, name: b"" }).unwrap();
}

fn arena(layout: Layout, vectors: &[Vec<f32>]) -> Arena {
    let rows = empty(layout);
    vectors.iter().for_each(|vector| push(&rows, vector));
    rows
}

/// Vectors around centres, of which there are more the more vectors there are.
fn clustered(count: usize, dim: usize, seed: u64) -> Vec<Vec<f32>> {
    let noise = |at: u64| (splitmix(at) >> 40) as f32 / (1u64 << 24) as f32 - 0.5;
    let clusters = (count as u64 / 50).max(5);
    let vector = |at: u64| {
        let centre = splitmix(seed ^ at) % clusters;
        let component = |i: u64| noise(centre << 20 | i) + 0.6 * noise(seed << 40 ^ (at + 1) << 16 ^ i);
        (0..dim as u64).map(component).collect()
    };
    (0..count as u64).map(vector).collect()
}

fn build(rows: &Arena, count: usize) -> Graph {
    let graph = Graph::new(16, 100, SEED);
    let mut builder = Builder::new(&rows.layout);
    for node in 0..u32::try_from(count).unwrap() {
        assert!(graph.insert(rows, node, u64::from(node), &mut builder));
    }
    graph
}

/// The share of the ten rows with the best scores from codes that searches find.
fn recall(graph: &Graph, rows: &Arena, queries: &[Vec<f32>], ef: usize) -> f64 {
    let mut scratch = Scratch::default();
    let (mut found, mut wanted) = (0, 0);
    for query in queries {
        let query = Query::new(&rows.layout, query);
        let refs: Vec<RowRef<'_>> = (0..rows.limit()).map(|node| rows.row(node)).collect();
        let mut scores = vec![0.0; refs.len()];
        query.score_each(&refs, &mut scores);
        scores.sort_by(|a, b| b.total_cmp(a));
        scores.truncate(10);
        graph.search(rows, &query, ef, &mut scratch, |_| true);
        let worst = *scores.last().unwrap();
        found += scratch.found().take(10).filter(|&(score, _)| score >= worst).count();
        wanted += scores.len();
    }
    found as f64 / wanted as f64
}

#[test]
fn nearly_all_near_rows_are_found_under_each_metric() {
    let (vectors, queries) = (clustered(3000, 24, 1), clustered(50, 24, 2));
    for metric in METRICS {
        let rows = arena(layout(24, metric), &vectors);
        let graph = build(&rows, vectors.len());
        assert_eq!(graph.len(), vectors.len());
        let recall = recall(&graph, &rows, &queries, 80);
        let least = if metric == Metric::Ip { 0.9 } else { 0.98 };
        assert!(recall >= least, "{metric:?}: {recall}");
    }
}

#[test]
fn rows_without_codes_and_rows_of_signs_are_found_too() {
    let (vectors, queries) = (clustered(1000, 64, 3), clustered(20, 64, 4));
    for quantization in [Quantization::F32, Quantization::Bin] {
        let rows = arena(Layout { quantization, ..layout(64, Metric::Cosine) }, &vectors);
        let recall = recall(&build(&rows, vectors.len()), &rows, &queries, 80);
        assert!(recall >= 0.95, "{quantization:?}: {recall}");
    }
}

#[test]
fn the_same_rows_give_the_same_graph() {
    let vectors = clustered(1500, 16, 5);
    let rows = arena(layout(16, Metric::Cosine), &vectors);
    let [a, b] = [build(&rows, vectors.len()), build(&rows, vectors.len())];
    assert_eq!(a.entry(), b.entry());
    for node in 0..rows.limit() {
        assert_eq!(a.level(node), b.level(node));
        for level in 0..=a.level(node) {
            assert_eq!(a.neighbours(node, level), b.neighbours(node, level));
        }
    }
}

#[test]
fn lists_are_sound_and_lead_everywhere() {
    let vectors = clustered(4000, 16, 6);
    let rows = arena(layout(16, Metric::Cosine), &vectors);
    let graph = build(&rows, vectors.len());
    let mut back = 0;
    let mut links = 0;
    for node in 0..rows.limit() {
        for level in 0..=graph.level(node) {
            let neighbours = graph.neighbours(node, level);
            assert!(neighbours.len() <= if level == 0 { 32 } else { 16 });
            let different: HashSet<Node> = neighbours.iter().copied().collect();
            assert_eq!(different.len(), neighbours.len(), "no neighbour twice");
            assert!(
                !different.contains(&node) && neighbours.iter().all(|&other| graph.level(other) >= level)
            );
            links += neighbours.len();
            back +=
                neighbours.iter().filter(|&&other| graph.neighbours(other, level).contains(&node)).count();
        }
    }
    assert!(back * 2 > links, "{back} of {links} links have one back");
    let (_, entry) = graph.entry().unwrap();
    let (mut met, mut next) = (HashSet::from([entry]), VecDeque::from([entry]));
    while let Some(node) = next.pop_front() {
        next.extend(graph.neighbours(node, 0).into_iter().filter(|&other| met.insert(other)));
    }
    assert!(met.len() * 1000 >= vectors.len() * 999, "{} nodes can be reached", met.len());
}

#[test]
fn a_graph_survives_being_flattened() {
    let vectors = clustered(1200, 16, 13);
    let rows = arena(layout(16, Metric::Cosine), &vectors);
    let graph = build(&rows, vectors.len());
    let flat = graph.flatten(&[(0, 1200)]).unwrap();
    let again = Graph::restore(16, 100, SEED, &[1200], flat.borrow()).unwrap();
    assert_eq!((again.len(), again.max_level()), (1200, graph.max_level()));
    assert_eq!(again.flatten(&[(0, 1200)]).unwrap(), flat);
    assert!(recall(&again, &rows, &clustered(20, 16, 14), 80) >= 0.97);
    // Without its last rows it is still a graph, and goes on growing.
    let part = graph.flatten(&[(0, 1000)]).unwrap();
    let part = Graph::restore(16, 100, SEED, &[1000], part.borrow()).unwrap();
    let mut builder = Builder::new(&rows.layout);
    assert!((1000..1200).all(|node| part.insert(&rows, node, u64::from(node), &mut builder)));
    assert!(recall(&part, &rows, &clustered(20, 16, 14), 80) >= 0.97);
    assert_eq!(graph.flatten(&[]), None);
}

#[test]
fn arrays_that_do_not_fit_are_no_graph() {
    let rows = arena(layout(4, Metric::Cosine), &clustered(200, 4, 15));
    let graph = build(&rows, 200);
    let flat = || graph.flatten(&[(0, 200)]).unwrap();
    let restored =
        |pages: &[usize], flat: &Flat| Graph::restore(16, 100, SEED, pages, flat.borrow()).is_some();
    assert!(restored(&[200], &flat()));
    assert!(!restored(&[199], &flat()) && !restored(&[100, 100], &flat()));
    let changes: [fn(&mut Flat); 5] = [
        |flat| flat.base[0] = 200,
        |flat| flat.entry = 200,
        |flat| flat.levels[0] = 200,
        |flat| flat.base.truncate(5),
        |flat| flat.upper.push(0),
    ];
    for change in changes {
        let mut flat = flat();
        change(&mut flat);
        assert!(!restored(&[200], &flat));
    }
}

#[test]
fn levels_thin_out_and_cost_little_memory() {
    let graph = Graph::new(16, 100, SEED);
    let levels: Vec<usize> = (0..100_000).map(|row| graph.level_of(row)).collect();
    let above = |least: usize| levels.iter().filter(|&&level| level >= least).count();
    assert!((5800..6700).contains(&above(1)) && (300..480).contains(&above(2)));
    let vectors = clustered(5000, 4, 9);
    let rows = arena(layout(4, Metric::L2), &vectors);
    let graph = build(&rows, vectors.len());
    // 128 bytes of neighbours, 4 to find the higher ones, and what blocks that are not full have to spare.
    assert!(graph.size_bytes() < 5120 * 133 + (450 << 10), "{}", graph.size_bytes());
}

#[test]
fn equal_rows_are_all_found() {
    let rows = arena(layout(8, Metric::Cosine), &vec![vec![1.0; 8]; 300]);
    let graph = build(&rows, 300);
    let mut scratch = Scratch::default();
    graph.search(&rows, &Query::new(&rows.layout, &[1.0; 8]), 20, &mut scratch, |_| true);
    assert_eq!(scratch.found().count(), 20);
}

#[test]
fn an_empty_graph_finds_nothing_and_a_search_can_be_ended() {
    let rows = arena(layout(4, Metric::Cosine), &clustered(500, 4, 8));
    let query = Query::new(&rows.layout, &[1.0, 0.0, 0.0, 0.0]);
    let mut scratch = Scratch::default();
    Graph::new(4, 10, SEED).search(&rows, &query, 10, &mut scratch, |_| true);
    assert_eq!(scratch.found().count(), 0);
    let graph = build(&rows, 500);
    graph.search(&rows, &query, 400, &mut scratch, |scratch| scratch.scored < 50);
    assert!(scratch.scored < 200, "{}", scratch.scored);
}

#[test]
fn searches_go_on_while_rows_are_added_and_linked() {
    const ROWS: usize = 3000;
    let vectors = clustered(ROWS, 16, 10);
    let rows = empty(layout(16, Metric::Cosine));
    let graph = Graph::new(16, 60, SEED);
    std::thread::scope(|scope| {
        scope.spawn(|| vectors.iter().for_each(|vector| push(&rows, vector)));
        scope.spawn(|| {
            let mut builder = Builder::new(&rows.layout);
            while graph.len() < ROWS {
                if graph.len() < rows.arena.len() {
                    let node = u32::try_from(graph.len()).unwrap();
                    assert!(graph.insert(&rows, node, u64::from(node), &mut builder));
                }
            }
        });
        for seed in 0..2 {
            let (graph, rows) = (&graph, &rows);
            scope.spawn(move || {
                let mut scratch = Scratch::default();
                let mut rounds = 0;
                while graph.len() < ROWS || rounds < 10 {
                    for query in clustered(5, 16, 11 + seed) {
                        let query = Query::new(&rows.layout, &query);
                        graph.search(rows, &query, 40, &mut scratch, |_| true);
                        let found: Vec<(f32, Node)> = scratch.found().collect();
                        assert!(found.is_sorted_by(|a, b| a.0 >= b.0), "best first");
                        let different: HashSet<Node> = found.iter().map(|&(_, node)| node).collect();
                        assert_eq!(different.len(), found.len(), "no node twice");
                    }
                    rounds += 1;
                }
            });
        }
    });
    assert!(recall(&graph, &rows, &clustered(30, 16, 12), 80) >= 0.97);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Any vectors: few dimensions, many equal ones, zeros.
    #[test]
    fn any_rows_can_be_linked(
        vectors in (1usize..5).prop_flat_map(|dim| {
            let component = prop_oneof![Just(0.0f32), (-3i8..3).prop_map(f32::from), Just(f32::MAX)];
            proptest::collection::vec(proptest::collection::vec(component, dim), 1..200)
        }),
        metric in 0usize..3,
    ) {
        let rows = arena(layout(vectors[0].len(), METRICS[metric]), &vectors);
        let graph = build(&rows, vectors.len());
        let mut scratch = Scratch::default();
        graph.search(&rows, &Query::new(&rows.layout, &vectors[0]), 200, &mut scratch, |_| true);
        prop_assert!(scratch.found().count() > 0);
        prop_assert!(scratch.found().all(|(score, node)| !score.is_nan() && node < rows.limit()));
    }
}
