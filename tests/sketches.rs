//! Sketches spare scans the codes of most rows, and change no answer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::cast_precision_loss)]

mod common;

use std::time::{Duration, Instant};

use common::{Client, Command, Rng, Server, Value, WAIT_MAX, command, fp32, vadd, words};

const DIM: usize = 192;
const ROWS: usize = 9000;
const KEYS: [&str; 3] = ["COSINE", "IP", "L2"];

/// Sums of a few directions, and noise: as vectors of texts and images are, but plainer.
struct Source {
    rng: Rng,
    directions: Vec<Vec<f32>>,
}

impl Source {
    fn new() -> Self {
        let mut rng = Rng(11);
        let directions = (0..8).map(|_| rng.vector(DIM)).collect();
        Self { rng, directions }
    }

    fn vector(&mut self) -> Vec<f32> {
        let weights: Vec<f32> = self.directions.iter().map(|_| self.rng.normal()).collect();
        let sum = |at: usize| weights.iter().zip(&self.directions).map(|(w, d)| w * d[at]).sum::<f32>();
        (0..DIM).map(|at| sum(at) + 0.1 * self.rng.normal()).collect()
    }
}

fn vsim(key: &str, query: &[f32], options: &str) -> Command {
    let mut command = command(&[b"VSIM", key.as_bytes(), b"FP32", &fp32(query)]);
    command.extend(words(options));
    command
}

fn put(client: &mut Client, source: &mut Source, rows: std::ops::Range<usize>) {
    let commands = rows.flat_map(|row| {
        let vector = source.vector();
        let options = format!("SETATTR {{\"n\":{}}}", row % 10);
        KEYS.map(|key| vadd(key, &vector, &format!("e{row}"), &options))
    });
    let commands: Vec<Command> = commands.collect();
    for commands in commands.chunks(1000) {
        assert!(client.pipeline(commands).iter().all(|reply| matches!(reply, Value::Integer(_))));
    }
}

/// Searches that share passes, and some that are alone; with scores.
fn answers(client: &mut Client, queries: &[Vec<f32>]) -> Vec<String> {
    let options = ["", "COUNT 50", "TRUTH", "FILTER '.n > 1'", "FILTER '.n == 4'", "EF 300", "COUNT 1"];
    let mut searches = Vec::new();
    for key in KEYS {
        for (query, options) in queries.iter().zip(options.iter().cycle()) {
            searches.push(vsim(key, query, &format!("WITHSCORES {options}")));
        }
    }
    let mut replies = client.pipeline(&searches);
    replies.extend(searches.iter().step_by(5).map(|search| client.call(search)));
    replies.iter().map(Value::to_string).collect()
}

fn sketched_rows(client: &mut Client, key: &str) -> f64 {
    client.call(&words(&format!("VINFO {key}"))).field("sketch-rows").number()
}

fn wait_until(client: &mut Client, what: &str, mut holds: impl FnMut(&mut Client) -> bool) {
    let start = Instant::now();
    while !holds(client) {
        assert!(start.elapsed() < WAIT_MAX, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn scans_find_the_same_with_sketches_and_without() {
    let server = Server::start(&["--search-sketches", "no"]);
    let (mut client, mut source) = (server.connect(), Source::new());
    for key in KEYS {
        client.check(&[(&format!("VCREATE {key} DIM {DIM} METRIC {key} INDEX FLAT"), "+OK")]);
    }
    put(&mut client, &mut source, 0..ROWS);
    let queries: Vec<Vec<f32>> = (0..21).map(|_| source.vector()).collect();
    let bare = answers(&mut client, &queries);
    assert!(KEYS.iter().all(|key| sketched_rows(&mut client, key) == 0.0));

    client.check(&[("CONFIG SET search-sketches yes", "+OK")]);
    wait_until(&mut client, "sketches of the rows are made", |client| {
        KEYS.iter().all(|key| sketched_rows(client, key) >= ROWS as f64 - 64.0)
    });
    assert_eq!(answers(&mut client, &queries), bare);
    let info = client.call(&words("INFO vectors")).text();
    let rows = info.lines().find_map(|line| line.strip_prefix("vector_sketched_rows:")).unwrap();
    assert!(rows.trim().parse::<usize>().unwrap() >= 3 * (ROWS - 64), "{rows}");

    // Some rows go, some change, some come.
    let removals: Vec<Command> =
        KEYS.iter().map(|key| words(&format!("VREM {key} e1 e17 e8999 e500"))).collect();
    assert_eq!(client.pipeline(&removals), vec![Value::Integer(4); 3]);
    put(&mut client, &mut source, 8000..ROWS + 700);
    let changed = answers(&mut client, &queries);
    assert_ne!(changed, bare);
    client.check(&[("CONFIG SET search-sketches no", "+OK")]);
    wait_until(&mut client, "sketches are given up", |client| {
        KEYS.iter().all(|key| sketched_rows(client, key) == 0.0)
    });
    assert_eq!(answers(&mut client, &queries), changed);
}

#[test]
fn sketches_come_by_themselves_and_outlive_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let (mut client, mut source) = (server.connect(), Source::new());
    put(&mut client, &mut source, 0..6000);
    let queries: Vec<Vec<f32>> = (0..7).map(|_| source.vector()).collect();
    assert_eq!(sketched_rows(&mut client, "IP"), 0.0, "nobody has searched");
    answers(&mut client, &queries);
    wait_until(&mut client, "a search asks for sketches", |client| sketched_rows(client, "IP") >= 5900.0);
    let before = answers(&mut client, &queries);
    client.check(&[("SAVE", "+OK")]);
    assert_eq!(answers(&mut client, &queries), before);
    // Made again after a start, when a search wants them.
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    assert_eq!(sketched_rows(&mut client, "IP"), 0.0);
    assert_eq!(answers(&mut client, &queries), before);
    wait_until(&mut client, "a search asks for sketches", |client| sketched_rows(client, "IP") >= 5900.0);
    assert_eq!(answers(&mut client, &queries), before);
    assert!(client.call(&words("VINFO IP")).field("sketch-bytes").number() > 0.0);
}
