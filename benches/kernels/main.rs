//! How fast rows are scanned, next to what this machine's memory and arithmetic can do at best.
//!
//! ```text
//! cargo bench --bench kernels -- [--rows N] [--dims 128,384,768] [--data FILE --queries FILE] [--worker [--codes]]
//! ```
//!
//! Everything runs on one thread over the same rows, in turn, once per round; medians are printed. `dots` is a kernel's dot
//! products alone, `screen` its search for rows that pass a threshold (that of the 40th best, as at the end of a search), and
//! `search` a whole one as the server does it: quantising the query, scores with each row's scale, the best 10, scored again
//! from the originals. Vectors are clustered ones of the program's own, or those of FILE (`.fvecs`, or `.npy` of f32).
//! With `--worker` it answers searches asked for on the standard input; see `worker.rs`. With `--codes` too, without sketches.

mod machine;
mod rows;
mod timing;
mod vectors;
mod worker;

use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use timing::{Task, medians_s};
use vecdis::collection::Collection;
use vecdis::collection::search::{Hits, SearchRequest, search};
use vecdis::vector::Query;
use vecdis::vector::arena::Run;
use vecdis::vector::kernel::{Kernel, Passed, QueryCodes, Screen};
use vectors::Vectors;

const ROWS: usize = 100_000;
const DIMS: &[usize] = &[128, 384, 768];
/// Queries of a block.
const BLOCKS: [usize; 8] = [1, 4, 8, 16, 32, 64, 128, 256];
/// Rows that a kernel is given at a time, as in a search.
const BLOCK_ROWS: usize = 1024;
/// Which best score is the threshold: a search keeps that many candidates.
const CANDIDATES: usize = 40;
const USAGE: &str = "options: --rows N, --dims N,N, --data FILE --queries FILE, --worker, --codes";

/// What the command line asks for.
struct Options {
    rows: usize,
    dims: Vec<usize>,
    /// Vectors to search in, and queries.
    files: Option<(PathBuf, PathBuf)>,
    worker: bool,
    codes: bool,
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let done = match &options.files {
        Some((data, queries)) if options.worker => worker::run(data, queries, !options.codes),
        Some((data, queries)) => Vectors::read(data).and_then(|base| {
            bench(&base, &Vectors::read(queries)?);
            Ok(())
        }),
        None => {
            let most = BLOCKS[BLOCKS.len() - 1];
            for &dim in &options.dims {
                bench(&Vectors::clustered(options.rows, dim, 1), &Vectors::clustered(most, dim, 2));
            }
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Option<Options> {
    let mut options = Options { rows: ROWS, dims: DIMS.to_vec(), files: None, worker: false, codes: false };
    let (mut data, mut queries) = (None, None);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rows" => options.rows = words.next()?.parse().ok().filter(|&rows| rows > CANDIDATES)?,
            "--dims" => {
                let dims = words.next()?;
                options.dims = dims.split(',').map(|dim| dim.parse().ok()).collect::<Option<_>>()?;
            }
            "--data" => data = Some(PathBuf::from(words.next()?)),
            "--queries" => queries = Some(PathBuf::from(words.next()?)),
            "--worker" => options.worker = true,
            "--codes" => options.codes = true,
            // What cargo adds.
            "--bench" => {}
            _ => return None,
        }
    }
    options.files = data.zip(queries);
    (options.files.is_some() || !options.worker).then_some(options)
}

/// What the tasks work on.
struct Bench<'a> {
    collection: &'a Arc<Collection>,
    runs: Vec<Run<'a>>,
    vectors: Vec<&'a [f32]>,
    queries: Vec<Query>,
    codes: QueryCodes,
    /// Score of each query's last candidate.
    thresholds: Vec<f32>,
}

/// What a task does.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Reads the codes.
    Probe,
    /// Dot products of one query.
    Dots,
    /// Finds the best for that many queries.
    Block(usize),
}

fn bench(base: &Vectors, queries: &Vectors) {
    let collection = rows::load(base);
    let bench = Bench::new(&collection, queries);
    let mut peak_products = None;
    let mut tasks: Vec<Task<'_>> = vec![Box::new(|| peak_products = machine::vnni_products())];
    let (names, timed): (Vec<_>, Vec<_>) =
        bench.tasks().into_iter().map(|(name, kind, task)| ((name, kind), task)).unzip();
    tasks.extend(timed);
    let mut times_s = medians_s(&mut tasks);
    drop(tasks);
    let peak_s = times_s.remove(0);
    let peak = peak_products.map(|products| products as f64 / peak_s);
    let rows: Vec<_> =
        names.into_iter().zip(times_s).map(|((name, kind), time_s)| (name, kind, time_s)).collect();
    bench.print(&rows, peak);
}

impl<'a> Bench<'a> {
    fn new(collection: &'a Arc<Collection>, queries: &'a Vectors) -> Self {
        let layout = &collection.params.layout;
        let most = BLOCKS[BLOCKS.len() - 1];
        let vectors: Vec<&[f32]> =
            (0..most).map(|number| queries.row(number % queries.rows().len())).collect();
        let queries: Vec<Query> = vectors.iter().map(|vector| Query::new(layout, vector)).collect();
        let request = |query: &Query| SearchRequest {
            collection: Arc::clone(collection),
            query: query.clone(),
            count: CANDIDATES,
            effort: 0,
            exact: false,
            filter: None,
            trace: None,
        };
        let found = search(queries.iter().map(request).collect());
        let last = |hits: Hits| hits.ok().and_then(|hits| hits.last().map(|hit| hit.score));
        let thresholds = found.into_iter().map(|hits| last(hits).unwrap_or(0.0)).collect();
        let codes = queries[0].screen(0.0).map(|screen| screen.codes.clone());
        let codes = codes.unwrap_or_else(|| unreachable!("the collection is quantised to int8"));
        Self { collection, runs: rows::runs(collection), vectors, queries, codes, thresholds }
    }

    /// Everything that is timed, with its name.
    fn tasks(&self) -> Vec<(String, Kind, Task<'_>)> {
        let mut tasks: Vec<(String, Kind, Task<'_>)> = Vec::new();
        for (name, read) in machine::probes() {
            let task = move || self.runs.iter().for_each(|run| read(black_box(run.codes)));
            tasks.push((name.to_owned(), Kind::Probe, Box::new(task)));
        }
        let kernels = Kernel::supported();
        for &kernel in &kernels {
            let mut dots = vec![0i32; BLOCK_ROWS];
            let task = move || self.dots(kernel, &mut dots);
            tasks.push((format!("dots {}", kernel.name()), Kind::Dots, Box::new(task)));
        }
        // The plain kernel is left out where there are others: a block of queries takes it seconds.
        for &kernel in &kernels[..kernels.len().max(2) - 1] {
            for queries in BLOCKS {
                let mut passed = Vec::new();
                let task = move || self.screen(kernel, queries, &mut passed);
                tasks.push((format!("screen {}", kernel.name()), Kind::Block(queries), Box::new(task)));
            }
        }
        for queries in BLOCKS {
            let vectors = &self.vectors[..queries];
            let task = move || _ = black_box(rows::search(self.collection, vectors.iter().copied(), 1));
            tasks.push(("search".to_owned(), Kind::Block(queries), Box::new(task)));
        }
        tasks
    }

    /// Codes and scales, block by block.
    fn blocks(&self) -> impl Iterator<Item = (&'a [u8], &'a [f32])> {
        let code_bytes = self.collection.params.layout.code_bytes();
        let cut =
            move |run: &Run<'a>| run.codes.chunks(BLOCK_ROWS * code_bytes).zip(run.scales.chunks(BLOCK_ROWS));
        self.runs.iter().flat_map(cut)
    }

    fn dots(&self, kernel: Kernel, dots: &mut [i32]) {
        for (codes, scales) in self.blocks() {
            let dots = &mut dots[..scales.len()];
            kernel.dot_rows(&self.codes, codes, dots);
            black_box(dots);
        }
    }

    fn screen(&self, kernel: Kernel, queries: usize, passed: &mut Vec<Passed>) {
        let known = self.queries[..queries].iter().zip(&self.thresholds);
        let screens: Vec<Screen<'_>> =
            known.filter_map(|(query, &threshold)| query.screen(threshold)).collect();
        for (codes, scales) in self.blocks() {
            passed.clear();
            kernel.screen(&screens, codes, scales, &[], passed);
            black_box(&passed);
        }
    }

    /// Prints the medians; `peak` is the most products a second that VNNI can do.
    fn print(&self, timed: &[(String, Kind, f64)], peak: Option<f64>) {
        let (rows, layout) = (self.collection.len() as f64, &self.collection.params.layout);
        let size_bytes = rows * layout.code_bytes() as f64;
        let probes = timed.iter().filter(|(_, kind, _)| *kind == Kind::Probe);
        let best_s = probes.map(|&(_, _, time_s)| time_s).fold(f64::INFINITY, f64::min);
        println!("\n{rows} x {}, {:.1} MB of codes", layout.dim, size_bytes / 1e6);
        println!("{:38} {:>10} {:>8} {:>14}", "one query", "ns/vector", "GB/s", "of best read");
        for (name, _, time_s) in timed.iter().filter(|(_, kind, _)| !matches!(kind, Kind::Block(2..))) {
            let (ns, rate) = (time_s * 1e9 / rows, size_bytes / time_s / 1e9);
            println!("{name:38} {ns:>10.2} {rate:>8.1} {:>13.0}%", best_s / time_s * 100.0);
        }
        let peak_text = peak.map_or("none on this CPU".to_owned(), |peak| format!("{:.0}", peak / 1e9));
        println!("VNNI peak, registers only: {peak_text} GMAC/s");
        println!(
            "{:30} {:>7} {:>10} {:>8} {:>14}",
            "block of queries", "", "queries/s", "GMAC/s", "of VNNI peak"
        );
        for (name, kind, time_s) in timed {
            if let Kind::Block(queries) = *kind {
                let rate = queries as f64 / time_s;
                let products = rate * size_bytes;
                let share = peak.map_or("-".to_owned(), |peak| format!("{:.0}%", products / peak * 100.0));
                println!("{name:30} {queries:>7} {rate:>10.0} {:>8.0} {share:>14}", products / 1e9);
            }
        }
    }
}
