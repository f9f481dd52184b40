//! Graphs, seen from outside: searches find what is there while a graph is built, used, worn out and dropped.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::data::{Op, clustered};
use common::{Client, Model, Rng, Server, Value, WAIT_MAX, command, words};

const DIM: usize = 24;
const ROWS: usize = 3000;

fn adds(
    rng: &mut Rng,
    names: impl Iterator<Item = usize>,
    attributes: impl Fn(usize) -> Option<String>,
) -> Vec<Op> {
    let names: Vec<usize> = names.collect();
    let vectors = clustered(rng, names.len(), DIM);
    let add = |(name, vector)| Op::Add(format!("e{name}"), vector, attributes(name));
    names.into_iter().zip(vectors).map(add).collect()
}

fn integer(map: &Value, field: &str) -> i64 {
    match map.field(field) {
        Value::Integer(number) => *number,
        other => panic!("{field}: {other}"),
    }
}

/// Waits until the graph is in use and covers all rows.
fn wait_for_graph(client: &mut Client) -> Value {
    let begin = Instant::now();
    loop {
        let status = client.call(&words("VINDEX k STATUS"));
        let is_ready = *status.field("state") == Value::Simple("ready".to_owned());
        if is_ready && integer(&status, "unlinked-rows") == 0 {
            return status;
        }
        assert!(begin.elapsed() < WAIT_MAX, "{status}");
        sleep(Duration::from_millis(20));
    }
}

fn found(reply: &Value) -> HashSet<String> {
    reply.items().iter().map(Value::text).collect()
}

/// The share of the ten true nearest elements that searches find.
fn recall(client: &mut Client, model: &Model, options: &str) -> f64 {
    let step = model.0.len().div_ceil(60);
    let (mut hits, mut wanted) = (0, 0);
    for name in model.0.keys().step_by(step) {
        let search = format!("VSIM k ELE {name} COUNT 10 {options}");
        let truth = found(&client.call(&words(&format!("{search} TRUTH"))));
        hits += found(&client.call(&words(&search))).intersection(&truth).count();
        wanted += truth.len();
    }
    assert!(wanted > 0);
    hits as f64 / wanted as f64
}

fn start(options: &str) -> (Server, Model, Rng) {
    let server = Server::start(&[]);
    let (mut model, mut rng) = (Model::default(), Rng(5));
    assert_eq!(
        server.connect().call(&words(&format!("VCREATE k DIM {DIM} {options}"))),
        Value::Simple("OK".into())
    );
    let kind = |name: usize| Some(format!("{{\"n\":{name},\"half\":{}}}", name % 2));
    let ops = adds(&mut rng, 0..ROWS, kind);
    model.run(&mut server.connect(), "k", &ops);
    (server, model, rng)
}

#[test]
fn a_graph_that_is_asked_for_answers_searches_and_finds_nearly_all() {
    let (server, model, _) = start("INDEX HNSW M 12 EF 80");
    let mut client = server.connect();
    let status = wait_for_graph(&mut client);
    assert_eq!((integer(&status, "nodes"), integer(&status, "m")), (ROWS as i64, 12));
    assert!(recall(&mut client, &model, "") >= 0.97);
    assert!(recall(&mut client, &model, "EF 500") >= 0.99);
    let info = client.call(&words("VINFO k"));
    assert!(integer(&info, "graph-searches") >= 100, "{info}");
    assert_eq!(integer(&info, "graph-rows"), ROWS as i64);
    assert!(integer(&info, "max-level") >= 1);
    let plan = |options: &str, client: &mut Client| {
        let reply = client.call(&words(&format!("VSEARCH k VECTOR ELE e1 EXPLAIN {options}")));
        let clause = reply.field("plan").field("clauses").items()[0].clone();
        let passing = if options.contains("FILTER") { integer(&clause, "passing") } else { 0 };
        (clause.field("plan").text(), passing)
    };
    assert_eq!(plan("", &mut client), ("graph".to_owned(), 0));
    assert_eq!(plan("EXACT", &mut client), ("proof".to_owned(), 0));
    assert_eq!(plan("FILTER .n<7", &mut client), ("masked scan".to_owned(), 7));
    let stats = client.call(&words("INFO")).text();
    assert!(stats.contains("graph_builds:1") && stats.contains("graph_unlinked_rows:0"), "{stats}");
    client.check(&[("CONFIG RESETSTAT", "+OK")]);
    for options in ["", "", "TRUTH", "FILTER .n<7"] {
        client.call(&words(&format!("VSIM k ELE e1 {options}")));
    }
    let stats = client.call(&words("INFO vectors")).text();
    for line in ["searches:4", "plan_graph:2", "plan_proof:1", "plan_masked_scan:1", "plan_scan:0"] {
        assert!(stats.contains(&format!("{line}\r\n")), "{line} in {stats}");
    }
}

#[test]
fn links_are_told_by_level_with_scores() {
    let (server, ..) = start("INDEX HNSW");
    let mut client = server.connect();
    let before = client.call(&words("VLINKS k e0"));
    wait_for_graph(&mut client);
    let mut levels = 0;
    for name in 0..50 {
        let links = client.call(&words(&format!("VLINKS k e{name}")));
        let scored = client.call(&words(&format!("VLINKS k e{name} WITHSCORES")));
        levels = levels.max(links.items().len());
        let lowest = links.items().last().unwrap().items();
        assert!((1..=32).contains(&lowest.len()), "{links}");
        assert_eq!(scored.items().len(), links.items().len());
        assert!(!found(links.items().last().unwrap()).contains(&format!("e{name}")));
    }
    assert!(levels > 1, "before: {before}");
}

#[test]
fn filters_and_counts_beyond_the_matches_are_answered_in_full() {
    let (server, model, _) = start("INDEX HNSW");
    let mut client = server.connect();
    wait_for_graph(&mut client);
    for filter in [".half==1", ".n<300", ".n<60", ".n<9", ".n>2990"] {
        let recall = recall(&mut client, &model, &format!("FILTER {filter}"));
        assert!(recall >= 0.95, "{filter}: {recall}");
    }
    let all = client.call(&words("VSIM k ELE e1 COUNT 5000"));
    assert_eq!(found(&all).len(), ROWS);
}

#[test]
fn writes_are_seen_at_once_whatever_the_graph_covers() {
    let (server, mut model, mut rng) = start("INDEX HNSW");
    let (mut client, mut writer) = (server.connect(), server.connect());
    wait_for_graph(&mut client);
    for round in 0..200 {
        let op = adds(&mut rng, [round * 7].into_iter(), |_| None);
        let Op::Add(name, ..) = &op[0] else { unreachable!() };
        let name = name.clone();
        model.run(&mut writer, "k", &op);
        let nearest = client.call(&words(&format!("VSIM k ELE {name} COUNT 1")));
        assert_eq!(nearest.items()[0].text(), name);
        let gone = format!("e{}", round * 7 + 3);
        model.run(&mut writer, "k", &[Op::Remove(gone.clone())]);
        let all = found(&client.call(&words(&format!("VSIM k ELE {name} COUNT 50"))));
        assert!(!all.contains(&gone), "removed elements are not found");
    }
    model.check(&mut client, "k");
}

#[test]
fn rounds_of_deletes_and_inserts_do_not_wear_recall_down() {
    let (server, mut model, mut rng) = start("INDEX HNSW");
    let mut client = server.connect();
    wait_for_graph(&mut client);
    let fresh = recall(&mut client, &model, "");
    for round in 0..10 {
        let (mut removes, mut names) = (Vec::new(), Vec::new());
        for name in 0..ROWS {
            if rng.below(2) == 0 {
                removes.push(Op::Remove(format!("e{name}")));
                names.push(name);
            }
        }
        model.run(&mut client, "k", &removes);
        let ops = adds(&mut rng, names.into_iter(), |_| None);
        model.run(&mut client, "k", &ops);
        let recall = recall(&mut client, &model, "");
        assert!(recall >= fresh - 0.01, "round {round}: {recall}, at first {fresh}");
    }
    wait_for_graph(&mut client);
    assert!(recall(&mut client, &model, "") >= fresh - 0.01);
}

#[test]
fn graphs_come_and_go_as_they_are_asked_for() {
    let (server, model, _) = start("INDEX FLAT");
    let mut client = server.connect();
    let state = |client: &mut Client| client.call(&words("VINDEX k STATUS")).field("state").clone();
    assert_eq!(state(&mut client), Value::Simple("none".into()));
    assert_eq!(client.call(&words("VINDEX k BUILD")), Value::Simple("OK".into()));
    wait_for_graph(&mut client);
    assert!(recall(&mut client, &model, "EF 300") >= 0.99);
    assert_eq!(client.call(&words("VINDEX k DROP")), Value::Simple("OK".into()));
    assert_eq!(state(&mut client), Value::Simple("none".into()));
    assert_eq!(recall(&mut client, &model, "EF 300"), 1.0, "searches scan again");
    let errors = ["VINDEX k X", "VINDEX nokey BUILD"];
    for line in errors {
        assert!(matches!(client.call(&words(line)), Value::Error(_)), "{line}");
    }
}

#[test]
fn what_vindex_asked_for_outlives_a_restart_by_log_and_by_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--auto-aof-rewrite-percentage", "0"];
    for (name, index, wish) in [("dropped", "HNSW", "DROP"), ("built", "FLAT", "BUILD")] {
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        assert_eq!(client.ask(&format!("VCREATE {name} DIM 4 INDEX {index} EF 40")), "+OK");
        let (mut model, mut rng) = (Model::default(), Rng(7));
        let ops: Vec<Op> = (0..1100).map(|at| Op::Add(format!("e{at}"), rng.vector(4), None)).collect();
        model.run(&mut client, name, &ops);
        assert_eq!(client.ask(&format!("VINDEX {name} {wish}")), "+OK");
        server.kill9();
    }
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        let mut state = |name| client.call(&command(&["VINDEX", name, "STATUS"])).field("state").clone();
        let begin = Instant::now();
        while state("built") != Value::Simple("ready".into()) {
            assert!(begin.elapsed() < WAIT_MAX);
            sleep(Duration::from_millis(20));
        }
        assert_eq!(state("dropped"), Value::Simple("none".into()));
        assert_eq!(client.ask("SAVE"), "+OK");
    }
}

#[test]
fn a_reader_may_not_ask_for_a_graph() {
    let (server, ..) = start("INDEX FLAT");
    let mut client = server.connect();
    assert_eq!(client.ask("ACL SETUSER reader on nopass ~* +@read"), "+OK");
    let mut reader = server.connect();
    assert_eq!(reader.ask("AUTH reader x"), "+OK");
    assert!(reader.ask("VINDEX k BUILD").starts_with("-NOPERM"));
}

#[test]
fn a_graph_is_kept_on_disk_and_a_damaged_one_is_built_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("data/graphs/0000000000000000.vdg");
    let options = ["--auto-aof-rewrite-min-size", "1mb"];
    let (mut model, mut rng) = (Model::default(), Rng(6));
    let server = Server::start_in(folder.path(), &options);
    let mut client = server.connect();
    assert_eq!(client.call(&words("VCREATE k DIM 4096 INDEX HNSW EF 40")), Value::Simple("OK".into()));
    // More than 16 MiB of originals: a checkpoint seals them.
    let ops: Vec<Op> = (0..1100).map(|name| Op::Add(format!("e{name}"), rng.vector(4096), None)).collect();
    model.run(&mut client, "k", &ops);
    wait_for_graph(&mut client);
    assert_eq!(server.terminate("TERM").code(), Some(0));
    assert!(file.exists(), "{:?}", common::files_below(folder.path()));
    for damage in [false, true] {
        if damage {
            let mut bytes = std::fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&file, bytes).unwrap();
        }
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        wait_for_graph(&mut client);
        let info = client.call(&words("INFO")).text();
        assert_eq!(info.contains("graph_builds:0"), !damage, "{info}");
        assert!(recall(&mut client, &model, "") >= 0.95);
        assert_eq!(server.terminate("TERM").code(), Some(0));
    }
}
