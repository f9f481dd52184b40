//! Churn: dead rows are given back, in memory and on disk, while others read and write.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use common::data::Op;
use common::{Model, Rng, Server, Value, WAIT_MAX, files_below, words};

const ELEMENTS: usize = 12_000;
const DIM: usize = 384;
/// Bytes of an element's original and codes.
const ELEMENT_BYTES: u64 = DIM as u64 * 5;

fn disk_bytes(root: &Path) -> u64 {
    let data = root.join("data");
    files_below(&data).iter().map(|name| fs::metadata(data.join(name)).map_or(0, |file| file.len())).sum()
}

/// Adds every element again.
fn rewrite(server: &Server, model: &mut Model, rng: &mut Rng, elements: usize, dim: usize) {
    let ops: Vec<Op> = (0..elements)
        .map(|index| {
            let attributes = (index % 3 == 0).then(|| format!("{{\"n\":{index}}}"));
            Op::Add(format!("e{index}"), rng.vector(dim), attributes)
        })
        .collect();
    model.run(&mut server.connect(), "k", &ops);
}

/// Waits until at most this share of the rows is dead.
fn wait_for_dead(server: &Server, most: f64) -> (f64, f64) {
    let begin = Instant::now();
    loop {
        let info = server.connect().call(&words("VINFO k"));
        let number = |field: &str| match info.field(field) {
            Value::Integer(number) => *number as f64,
            other => panic!("{field}: {other}"),
        };
        let (size, dead) = (number("size"), number("dead-rows"));
        if dead <= most * (size + dead) {
            return (size, dead);
        }
        assert!(begin.elapsed() < WAIT_MAX, "{dead} dead rows beside {size} elements");
        sleep(Duration::from_millis(20));
    }
}

/// Takes a checkpoint, after the one that the log's growth may have begun.
fn save(server: &Server) {
    let begin = Instant::now();
    while server.connect().call(&words("SAVE")) != Value::Simple("OK".to_owned()) {
        assert!(begin.elapsed() < WAIT_MAX, "SAVE is refused for ever");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn churn_leaves_little_behind() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--auto-aof-rewrite-min-size", "1mb"];
    let server = Server::start_in(folder.path(), &options);
    let (mut model, mut rng) = (Model::default(), Rng(77));
    for _ in 0..4 {
        rewrite(&server, &mut model, &mut rng, ELEMENTS, DIM);
    }
    let removed: Vec<Op> = (0..ELEMENTS).step_by(2).map(|index| Op::Remove(format!("e{index}"))).collect();
    model.run(&mut server.connect(), "k", &removed);
    wait_for_dead(&server, 0.5);
    save(&server);
    model.check(&mut server.connect(), "k");
    let live_bytes = model.0.len() as u64 * ELEMENT_BYTES;
    let used_bytes = disk_bytes(folder.path());
    assert!(used_bytes < live_bytes * 5 / 2, "{used_bytes} bytes on disk for {live_bytes} live ones");
    let info = server.connect().call(&words("INFO persistence")).text();
    assert!(!info.contains("compactions:0\r\n"), "{info}");
    server.kill9();
    let server = Server::start_in(folder.path(), &options);
    model.check(&mut server.connect(), "k");
}

#[test]
fn a_small_collection_that_is_rewritten_for_ever_stays_small() {
    let server = Server::start(&[]);
    let (mut model, mut rng) = (Model::default(), Rng(78));
    for _ in 0..60 {
        rewrite(&server, &mut model, &mut rng, 500, 16);
    }
    let (size, dead) = wait_for_dead(&server, 0.8);
    assert!(dead < 3000.0, "{dead} dead rows of 30,000 written, {size} elements");
    model.check(&mut server.connect(), "k");
}

#[test]
fn readers_miss_no_element_while_chunks_are_rewritten() {
    let server = Server::start(&[]);
    let (mut model, mut rng) = (Model::default(), Rng(79));
    rewrite(&server, &mut model, &mut rng, 3000, 32);
    let over = AtomicBool::new(false);
    scope(|scope| {
        for reader in 0..2u64 {
            let (server, over) = (&server, &over);
            scope.spawn(move || {
                let (mut client, mut rng, mut asked) = (server.connect(), Rng(reader), 0);
                while !over.load(Ordering::Relaxed) {
                    let element = format!("e{}", rng.below(3000));
                    assert_eq!(client.call(&words(&format!("VISMEMBER k {element}"))), Value::Integer(1));
                    let found = client.call(&words(&format!("VSIM k ELE {element} COUNT 1")));
                    // The element may have changed between the look-up and the search, but something is nearest.
                    assert_eq!(found.items().len(), 1);
                    asked += 1;
                }
                assert!(asked > 10);
            });
        }
        for _ in 0..12 {
            rewrite(&server, &mut model, &mut rng, 3000, 32);
        }
        over.store(true, Ordering::Relaxed);
    });
    wait_for_dead(&server, 0.8);
    model.check(&mut server.connect(), "k");
    let info = server.connect().call(&words("INFO persistence")).text();
    assert!(!info.contains("compactions:0\r\n"), "{info}");
}

#[test]
fn zero_per_cent_means_never() {
    let server = Server::start(&["--compaction-percentage", "0"]);
    let (mut model, mut rng) = (Model::default(), Rng(80));
    for _ in 0..6 {
        rewrite(&server, &mut model, &mut rng, 1000, 8);
    }
    server.connect().check(&[("SAVE", "+OK")]);
    assert_eq!(server.connect().call(&words("VINFO k")).field("dead-rows"), &Value::Integer(5000));
    // The option can be changed while the server runs; the next change is the occasion.
    server.connect().check(&[("CONFIG SET compaction-percentage 20", "+OK"), ("VREM k e1", ":1")]);
    model.0.remove("e1");
    wait_for_dead(&server, 0.1);
    model.check(&mut server.connect(), "k");
}
