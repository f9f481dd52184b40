//! Searches on demand, for a program that compares several: a line with the numbers THREADS BATCH FIRST COUNT on the
//! standard input asks for COUNT queries from number FIRST on, BATCH of them to a pass. The answer is a line of JSON:
//! `times_s` of the passes, and for each query the `rows` found, best first.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use vecdis::collection::Collection;
use vecdis::collection::search::Hits;
use vecdis::vector::kernel::Kernel;

use crate::rows;
use crate::vectors::Vectors;

/// Loads `data`, makes its `sketches` or goes without, says so, and answers until the input ends.
///
/// # Errors
/// When a file cannot be read, or the other side is gone.
pub fn run(data: &Path, queries: &Path, sketches: bool) -> io::Result<()> {
    let collection = rows::load(&Vectors::read(data)?);
    if sketches {
        collection.sketches.complete(&collection);
    }
    let queries = Vectors::read(queries)?;
    let sketch_bytes = collection.sketches.row_bytes();
    say(
        &json!({ "rows": collection.len(), "kernel": Kernel::active().name(), "sketch_bytes": sketch_bytes }),
    )?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let numbers: Vec<usize> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let &[threads, batch, first, count] = numbers.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not understood: {line}")));
        };
        say(&answer(&collection, &queries, threads, batch, first..first + count))?;
    }
    Ok(())
}

fn answer(
    collection: &Arc<Collection>,
    queries: &Vectors,
    threads: usize,
    batch: usize,
    asked: std::ops::Range<usize>,
) -> Value {
    let (mut times_s, mut found) = (Vec::new(), Vec::new());
    for first in asked.clone().step_by(batch) {
        let numbers = first..(first + batch).min(asked.end);
        let vectors = numbers.map(|number| queries.row(number % queries.rows().len()));
        let start = Instant::now();
        let answers = rows::search(collection, vectors, threads);
        times_s.push(start.elapsed().as_secs_f64());
        found.extend(answers.iter().map(|hits| row_numbers(collection, hits)));
    }
    json!({ "times_s": times_s, "rows": found })
}

fn row_numbers(collection: &Collection, hits: &Hits) -> Vec<usize> {
    let hits = hits.iter().flatten();
    let name = |row| str::from_utf8(collection.name(row)).ok();
    hits.filter_map(|hit| name(hit.row)?.parse().ok()).collect()
}

fn say(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
