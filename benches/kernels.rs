//! How fast each int8 kernel scans rows, next to a plain read of the same memory.
//!
//! `cargo bench --bench kernels`. Everything is taken in turn, once per round, so that a slow moment of the machine
//! hits all alike; the medians are printed. `scan` is a whole search: scores by the fastest kernel, and the best 10.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Instant;

use vecdis::vector::arena::Run;
use vecdis::vector::kernel::{Kernel, QueryCodes};
use vecdis::vector::{CODE_ALIGN_BYTES, Layout, Metric, Quantization, Query, TopK};

const ROWS: usize = 100_000;
const DIMS: [usize; 3] = [128, 384, 768];
const ROUNDS: usize = 21;

fn main() {
    println!("{ROWS} rows, median of {ROUNDS} rounds, one thread");
    println!("{:>5} {:>12} {:>10} {:>8}", "dim", "kernel", "ns/vector", "GB/s");
    for dim in DIMS {
        bench(dim);
    }
}

fn bench(dim: usize) {
    let layout = Layout { dim, metric: Metric::Cosine, quantization: Quantization::Int8 };
    let size_bytes = ROWS * layout.code_bytes();
    let memory = noise(size_bytes + CODE_ALIGN_BYTES);
    let rows = &memory[memory.as_ptr().align_offset(CODE_ALIGN_BYTES)..][..size_bytes];
    let scales = vec![1e-4f32; ROWS];
    let vector: Vec<f32> = noise(dim).iter().map(|&byte| f32::from(byte) - 127.5).collect();
    let query = Query::new(&layout, &vector);
    let codes = QueryCodes::new(&noise(dim).iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>());
    let dots = RefCell::new(vec![0i32; ROWS]);

    type Task<'a> = (&'static str, Box<dyn FnMut() + 'a>);
    let mut tasks: Vec<Task> = vec![
        ("plain read", Box::new(|| _ = black_box(read(rows)))),
        ("scan", Box::new(|| _ = black_box(scan(&query, rows, &scales)))),
    ];
    for kernel in Kernel::supported() {
        let (codes, dots) = (&codes, &dots);
        tasks.push((kernel.name(), Box::new(move || kernel.dot_rows(codes, rows, &mut dots.borrow_mut()))));
    }
    let mut times_ns = vec![Vec::new(); tasks.len()];
    for _ in 0..ROUNDS {
        for ((_, task), times_ns) in tasks.iter_mut().zip(&mut times_ns) {
            let start = Instant::now();
            task();
            times_ns.push(start.elapsed().as_secs_f64() * 1e9);
        }
    }
    for ((name, _), times_ns) in tasks.iter().zip(&mut times_ns) {
        times_ns.sort_by(f64::total_cmp);
        let median_ns = times_ns[ROUNDS / 2];
        println!(
            "{dim:>5} {name:>12} {:>10.2} {:>8.1}",
            median_ns / ROWS as f64,
            size_bytes as f64 / median_ns
        );
    }
}

/// Every byte once, as cheaply as the compiler knows how.
fn read(bytes: &[u8]) -> u64 {
    bytes.as_chunks().0.iter().fold(0u64, |sum, &word| sum.wrapping_add(u64::from_le_bytes(word)))
}

fn scan(query: &Query, rows: &[u8], scales: &[f32]) -> Vec<(f32, u64)> {
    let mut top = TopK::new(10);
    let live = vec![u64::MAX; scales.len().div_ceil(64)];
    let (codes, none) = (rows, &[][..]);
    let run = Run { first: 0, codes, originals: none, scales, biases: none, norms: none, residuals: none };
    query.scan(&run, &live, top.threshold(), &mut |at, score| {
        top.push(score, at as u64);
        top.threshold()
    });
    top.into_sorted()
}

/// Random bytes, the same on every run.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}
