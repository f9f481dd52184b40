//! Collections as such: VCREATE and what it fixes, metrics, RAW NO, VLIST, VMADD, VINFO.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::data::cosine;
use common::{
    Client, Command, Rng, Server, Value, clustered, command, copy_folder, files_below, fp32, vadd, words,
};

const QUANTIZATION_MISMATCH: &str = "-ERR asked quantization mismatch with existing vector set";
const M_MISMATCH: &str = "-ERR asked M value mismatch with existing vector set";
const BAD_VECTOR: &str = "-ERR invalid vector specification";

fn info(client: &mut Client, key: &str) -> Value {
    client.call(&words(&format!("VINFO {key}")))
}

/// What VCREATE fixes, as VINFO shows it: quantisation, M, dimension, metric, originals, index.
fn fixed(client: &mut Client, key: &str) -> String {
    let info = info(client, key);
    let names = ["quant-type", "hnsw-m", "vector-dim", "metric", "raw", "index"];
    names.map(|name| info.field(name).to_string()).join(" ")
}

/// `VMADD key N DIM d FP32 blob elements... rest`.
fn vmadd(key: &str, vectors: &[Vec<f32>], elements: &[&str], rest: &str) -> Command {
    let (count, dim) = (vectors.len().to_string(), vectors[0].len().to_string());
    let mut line = words(&format!("VMADD {key} {count} DIM {dim} FP32"));
    line.push(fp32(&vectors.concat()));
    line.extend(command(elements));
    line.extend(words(rest));
    line
}

fn vsim(key: &str, query: &[f32], options: &str) -> Command {
    let mut line = command(&[b"VSIM", key.as_bytes(), b"FP32", &fp32(query)]);
    line.extend(words(options));
    line
}

/// Elements and scores of a VSIM ... WITHSCORES.
fn scored(reply: &Value) -> Vec<(String, f64)> {
    reply.items().chunks(2).map(|pair| (pair[0].text(), pair[1].number())).collect()
}

#[test]
fn vcreate_takes_every_option() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let table = [
        ("DIM 3", "+int8 :16 :3 +cosine +yes +auto"),
        ("dim 1 metric ip noquant m 4 ef 1", "+f32 :4 :1 +ip +yes +auto"),
        ("BIN METRIC L2 INDEX FLAT DIM 65536 M 4096 EF 1000000", "+bin :4096 :65536 +l2 +yes +flat"),
        ("DIM 5 RAW NO INDEX HNSW Q8", "+int8 :16 :5 +cosine +no +hnsw"),
        ("RAW NO BIN DIM 5 METRIC COSINE", "+bin :16 :5 +cosine +no +auto"),
        (
            "DIM 5 DIM 7 NOQUANT Q8 METRIC IP METRIC L2 RAW NO RAW YES INDEX HNSW INDEX AUTO M 4 M 5",
            "+int8 :5 :7 +l2 +yes +auto",
        ),
        ("DIM 5 NOQUANT RAW NO RAW YES", "+f32 :16 :5 +cosine +yes +auto"),
    ];
    for (index, (options, expected)) in table.iter().enumerate() {
        assert_eq!(client.ask(&format!("VCREATE k{index} {options}")), "+OK", "{options}");
        assert_eq!(fixed(&mut client, &format!("k{index}")), *expected, "{options}");
    }
    client.check(&[
        ("TYPE k0", "+vectorset"),
        ("EXISTS k0", ":1"),
        ("VCARD k0", ":0"),
        ("VDIM k0", ":3"),
        ("VSIM k0 VALUES 3 1 0 0", "[]"),
        ("VSIM k0 VALUES 2 1 0", "-ERR Vector dimension mismatch - got 2 but set has 3"),
        ("VEMB k0 a", "nil"),
        ("VISMEMBER k0 a", ":0"),
        ("VRANDMEMBER k0", "nil"),
        ("VRANDMEMBER k0 5", "[]"),
        ("VRANGE k0 - +", "[]"),
        ("VSCAN k0 0", "[0 []]"),
        ("VCOUNT k0", ":0"),
        ("VREM k0 a", ":0"),
        ("DBSIZE", ":7"),
    ]);
}

#[test]
fn vcreate_refuses_and_makes_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for line in ["VCREATE", "VCREATE k", "VCREATE k DIM"] {
        assert_eq!(client.ask(line), "-ERR wrong number of arguments for 'VCREATE' command", "{line}");
    }
    client.check(&[
        ("VCREATE k DIM 2 WHAT", "-ERR syntax error, unexpected 'WHAT'"),
        ("VCREATE k WHAT 2 DIM 2", "-ERR syntax error, unexpected 'WHAT'"),
        ("VCREATE k DIM 2 METRIC", "-ERR syntax error, unexpected 'METRIC'"),
        ("VCREATE k DIM 2 2", "-ERR syntax error, unexpected '2'"),
    ]);
    let bad = [
        "DIM 0",
        "DIM 65537",
        "DIM -1",
        "DIM x",
        "DIM 02",
        "DIM 1.5",
        "DIM 9223372036854775808",
        "DIM ''",
        "DIM 2 METRIC DOT",
        "DIM 2 RAW MAYBE",
        "DIM 2 INDEX IVF",
        "DIM 2 M 3",
        "DIM 2 M 4097",
        "DIM 2 M x",
        "DIM 2 EF 0",
        "DIM 2 EF 1000001",
        "METRIC IP NOQUANT",
        "DIM 2 NOQUANT RAW NO",
        "RAW NO DIM 2 Q8 NOQUANT",
    ];
    for options in bad {
        let reply = client.ask(&format!("VCREATE k {options}"));
        assert!(reply.starts_with("-ERR ") && reply.len() > 10, "{options}: {reply}");
    }
    client.check(&[("EXISTS k", ":0"), ("DBSIZE", ":0")]);
    client.check(&[("VADD old VALUES 2 1 0 a", ":1"), ("VCREATE new DIM 2 METRIC IP", "+OK")]);
    for line in ["VCREATE old DIM 2", "VCREATE new DIM 2 METRIC IP", "VCREATE new DIM 9"] {
        assert!(client.ask(line).starts_with("-ERR "), "{line}");
    }
    assert_eq!(fixed(&mut client, "new"), "+int8 :16 :2 +ip +yes +auto");
    client.check(&[("VCARD old", ":1"), ("CONFIG SET maxmemory 1", "+OK")]);
    assert!(client.ask("VCREATE k DIM 2").starts_with("-OOM "));
    client.check(&[("EXISTS k", ":0")]);
}

#[test]
fn made_collections_outlive_their_elements_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let options = "DIM 3 METRIC L2 BIN RAW NO INDEX FLAT M 7 EF 50";
    let expected = "+bin :7 :3 +l2 +no +flat";
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[(&format!("VCREATE k {options}"), "+OK"), ("VADD usual VALUES 3 1 0 0 a", ":1")]);
    server.kill9();
    // Two lives: from the log alone, then from a checkpoint.
    for save in [true, false] {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        assert_eq!(fixed(&mut client, "k"), expected);
        client.check(&[
            ("VCARD k", ":0"),
            ("VADD k VALUES 3 1 0 0 a", ":1"),
            ("VADD k VALUES 3 1 0 0 b", ":1"),
            ("VREM k a b", ":2"),
            ("EXISTS k", ":1"),
            ("VADD usual VALUES 3 1 0 0 a", ":0"),
        ]);
        if save {
            client.check(&[("SAVE", "+OK")]);
        }
        assert_eq!(fixed(&mut client, "k"), expected);
        server.kill9();
    }
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[("VCARD k", ":0"), ("VREM usual a", ":1"), ("EXISTS usual", ":0"), ("DEL k", ":1")]);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    // Deleted, it is as if it had never been: a VADD makes it with the usual defaults.
    client.check(&[
        ("DBSIZE", ":0"),
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VREM k a", ":1"),
        ("EXISTS k", ":0"),
    ]);
}

#[test]
fn vadd_inherits_what_it_does_not_name() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VCREATE n DIM 2 NOQUANT M 8 METRIC IP", "+OK"),
        ("VADD n VALUES 2 3 0 a", ":1"),
        ("VADD n VALUES 2 2 0 b NOQUANT M 8", ":1"),
        ("VADD n VALUES 2 1 0 c Q8", QUANTIZATION_MISMATCH),
        ("VADD n VALUES 2 1 0 c BIN", QUANTIZATION_MISMATCH),
        ("VADD n VALUES 2 1 0 c M 16", M_MISMATCH),
        ("VADD n VALUES 3 1 0 0 c", "-ERR Vector dimension mismatch - got 3 but set has 2"),
        ("VADD n REDUCE 2 VALUES 3 1 0 0 c", "-ERR Vector dimension mismatch - got 3 but set has 2"),
        ("VADD n REDUCE 1 VALUES 2 1 0 c", "-ERR cannot add projection to existing set without projection"),
        ("VSIM n VALUES 2 2 5 WITHSCORES", "[a 6 b 4]"),
        ("VCREATE b DIM 2 BIN", "+OK"),
        ("VADD b VALUES 2 3 -2 x", ":1"),
        ("VEMB b x", "[1 -1]"),
    ]);
    assert_eq!(client.call(&vmadd("b", &[vec![-5.0, 0.5]], &["y"], "")), Value::Integer(1));
    client.check(&[("VEMB b y", "[-1 1]"), ("VCARD n", ":2")]);

    // Right behind VCREATE, in a pipeline and in a transaction: the vector is prepared before the collection exists.
    for (key, transaction) in [("p", false), ("t", true)] {
        let mut commands: Vec<Command> = Vec::new();
        commands.extend(transaction.then(|| words("MULTI")));
        commands.push(words(&format!("VCREATE {key} DIM 2 METRIC L2 BIN")));
        commands.push(vadd(key, &[3.0, -4.0], "a", ""));
        commands.push(vmadd(key, &[vec![-3.0, 4.0]], &["b"], ""));
        commands.extend(transaction.then(|| words("EXEC")));
        let replies = client.pipeline(&commands);
        assert!(!replies.iter().any(|reply| reply.to_string().contains("-ERR")), "{replies:?}");
        client.check(&[
            (&format!("VEMB {key} a"), "[1 -1]"),
            (&format!("VEMB {key} b"), "[-1 1]"),
            (&format!("VSIM {key} VALUES 2 3 -4 WITHSCORES COUNT 1"), "[a 1]"),
        ]);
    }
}

/// The score VSIM shows, in f64.
fn shown_score(metric: &str, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(&x, &y)| (f64::from(x), f64::from(y)));
    match metric {
        "COSINE" => f64::midpoint(1.0, cosine(a, b)),
        "IP" => pairs().map(|(x, y)| x * y).sum(),
        _ => 1.0 / (1.0 + pairs().map(|(x, y)| (x - y).powi(2)).sum::<f64>()),
    }
}

/// The best scores of all, best first.
fn best(metric: &str, vectors: &[Vec<f32>], query: &[f32], count: usize) -> Vec<f64> {
    let mut scores: Vec<f64> = vectors.iter().map(|vector| shown_score(metric, vector, query)).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.truncate(count);
    scores
}

#[track_caller]
fn assert_near(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance * b.abs().max(1.0), "{a} is not {b}");
}

/// Vectors of very different lengths, so that no metric orders them as another does.
fn vectors_of_many_lengths(rng: &mut Rng, count: usize, dim: usize) -> Vec<Vec<f32>> {
    let mut vectors = clustered(rng, count, dim);
    for vector in &mut vectors {
        let factor = 0.2 + 3.0 * rng.unit() as f32;
        vector.iter_mut().for_each(|component| *component *= factor);
    }
    vectors
}

#[test]
fn metrics_agree_with_brute_force() {
    const COUNT: usize = 10;
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng(31);
    let vectors = vectors_of_many_lengths(&mut rng, 600, 24);
    let queries = vectors_of_many_lengths(&mut rng, 15, 24);
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    let sets = ["COSINE", "IP", "L2"].map(|metric| ["NOQUANT", "Q8", "BIN"].map(|quant| (metric, quant)));
    for (metric, quant) in sets.concat() {
        let key = format!("{metric}-{quant}");
        client.check(&[(&format!("VCREATE {key} DIM 24 METRIC {metric} {quant}"), "+OK")]);
        let add = |(index, vector): (usize, &Vec<f32>)| vadd(&key, vector, &index.to_string(), "");
        client.pipeline(&vectors.iter().enumerate().map(add).collect::<Vec<_>>());
    }
    for life in 0..2 {
        for (metric, quant) in sets.concat() {
            let key = format!("{metric}-{quant}");
            let (mut found, mut wanted) = (0, 0);
            for query in &queries {
                let expected = best(metric, &vectors, query, COUNT);
                let truth = scored(&client.call(&vsim(&key, query, "WITHSCORES TRUTH")));
                assert_eq!(truth.len(), COUNT);
                for ((element, score), expected) in truth.iter().zip(&expected) {
                    let own = shown_score(metric, &vectors[element.parse::<usize>().unwrap()], query);
                    assert_near(*score, own, 1e-5);
                    assert_near(*score, *expected, 1e-5);
                }
                let usual = scored(&client.call(&vsim(&key, query, "WITHSCORES")));
                for (element, score) in &usual {
                    assert_near(
                        *score,
                        shown_score(metric, &vectors[element.parse::<usize>().unwrap()], query),
                        1e-5,
                    );
                }
                wanted += COUNT;
                found +=
                    usual.iter().filter(|hit| truth.iter().any(|(element, _)| *element == hit.0)).count();
            }
            // Signs of 24 components find little, and nothing of a vector's length; TRUTH is exact all the same.
            let least = match (quant, metric) {
                ("BIN", "COSINE") => wanted / 3,
                ("BIN", _) => 0,
                _ => wanted * 99 / 100,
            };
            assert!(found >= least, "{key}, life {life}: {found} of {wanted}");
        }
        if life == 0 {
            client.check(&[("SAVE", "+OK")]);
        }
    }
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for metric in ["COSINE", "IP", "L2"] {
        let truth = scored(&client.call(&vsim(&format!("{metric}-Q8"), &queries[0], "WITHSCORES")));
        for ((_, score), expected) in truth.iter().zip(best(metric, &vectors, &queries[0], COUNT)) {
            assert_near(*score, expected, 1e-5);
        }
        let own = client.call(&words(&format!("VSIM {metric}-NOQUANT ELE 7 WITHSCORES COUNT 600")));
        let own = scored(&own).into_iter().find(|(element, _)| element == "7").unwrap();
        assert_near(own.1, shown_score(metric, &vectors[7], &vectors[7]), 1e-5);
    }
}

#[test]
fn without_originals_codes_answer() {
    const DIM: usize = 64;
    let folder = tempfile::tempdir().unwrap();
    let mut rng = Rng(32);
    let vectors = vectors_of_many_lengths(&mut rng, 2000, DIM);
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    let keys = ["COSINE", "IP", "L2"];
    for key in keys {
        client.check(&[(&format!("VCREATE {key} DIM {DIM} METRIC {key} RAW NO"), "+OK")]);
    }
    client.check(&[(&format!("VCREATE full DIM {DIM}"), "+OK")]);
    for key in keys.into_iter().chain(["full"]) {
        let add = |(index, vector): (usize, &Vec<f32>)| vadd(key, vector, &index.to_string(), "");
        client.pipeline(&vectors.iter().enumerate().map(add).collect::<Vec<_>>());
    }
    let memory = |client: &mut Client, key| info(client, key).field("memory-bytes").number();
    assert!(memory(&mut client, "COSINE") < 0.5 * memory(&mut client, "full"));
    client.check(&[("SAVE", "+OK")]);
    server.kill9();

    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for metric in keys {
        for (index, vector) in vectors.iter().enumerate().step_by(37) {
            let shown = client.call(&words(&format!("VEMB {metric} {index}")));
            let step = vector.iter().fold(0.0_f64, |max, x| max.max(f64::from(x.abs()))) / 127.0;
            let shown: Vec<f64> = shown.items().iter().map(Value::number).collect();
            assert!(shown.iter().zip(vector).all(|(a, b)| (a - f64::from(*b)).abs() <= step), "{index}");
            assert!(
                shown.iter().zip(vector).any(|(a, b)| *a != f64::from(*b)),
                "{index} is not from its code"
            );
        }
        let (mut found, mut wanted) = (0, 0);
        for query in vectors.iter().step_by(61) {
            let least = *best(metric, &vectors, query, 10).last().unwrap();
            let hits = scored(&client.call(&vsim(metric, query, "WITHSCORES")));
            let own = |hit: &str| shown_score(metric, &vectors[hit.parse::<usize>().unwrap()], query);
            hits.iter().for_each(|(hit, score)| assert_near(*score, own(hit), 0.05));
            wanted += 10;
            found += hits.iter().filter(|(hit, _)| own(hit) >= least).count();
        }
        assert!(found >= wanted * 9 / 10, "{metric}: {found} of {wanted}");
    }
    client.check(&[
        ("VCREATE signs DIM 3 BIN RAW NO", "+OK"),
        ("VADD signs VALUES 3 5 -1 0 a", ":1"),
        ("VEMB signs a", "[1 -1 -1]"),
        ("VSIM signs VALUES 3 1 -1 -1 WITHSCORES", "[a 1]"),
    ]);
}

#[test]
fn vlist_lists_collections() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VLIST", "[]"),
        ("VADD b VALUES 2 1 0 x", ":1"),
        ("VADD b VALUES 2 1 0 y", ":1"),
        ("VCREATE a:1 DIM 7 METRIC L2 NOQUANT", "+OK"),
        ("VCREATE a:2 DIM 9 METRIC IP BIN", "+OK"),
        ("VLIST MATCH b", "[[key b size :2 dim :2 metric cosine quant-type int8]]"),
        ("VLIST MATCH none*", "[]"),
        ("VLIST WHAT 1", "-ERR syntax error, unexpected 'WHAT'"),
        ("VLIST MATCH", "-ERR syntax error, unexpected 'MATCH'"),
    ]);
    let listed = |client: &mut Client, line: &str| -> Vec<String> {
        client.call(&words(line)).items().iter().map(|one| one.field("key").text()).collect()
    };
    assert_eq!(listed(&mut client, "VLIST"), ["a:1", "a:2", "b"]);
    assert_eq!(listed(&mut client, "vlist match a:? count 10"), ["a:1", "a:2"]);
    assert_eq!(listed(&mut client, "VLIST COUNT 2"), ["a:1", "a:2"]);
    assert_eq!(listed(&mut client, "VLIST COUNT 1 MATCH *2 COUNT 5 MATCH *"), ["a:1", "a:2", "b"]);
    for count in ["0", "-1", "x"] {
        assert!(client.ask(&format!("VLIST COUNT {count}")).starts_with("-ERR "));
    }
    let mut client = server.connect_resp3();
    let one = &client.call(&words("VLIST MATCH a:1")).items()[0].clone();
    assert!(matches!(one, Value::Map(fields) if fields.len() == 5), "{one}");
    assert_eq!((one.field("key").text().as_str(), one.field("dim")), ("a:1", &Value::Integer(7)));
}

#[test]
fn vmadd_adds_many_as_one() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let vectors = [vec![1.0, 2.0], vec![3.0, 4.0], vec![5.0, 6.0]];
    assert_eq!(client.call(&vmadd("k", &vectors, &["a", "b", "ATTRS"], "")), Value::Integer(3));
    client.check(&[
        ("VCARD k", ":3"),
        ("VEMB k b", "[3 4]"),
        ("VEMB k ATTRS", "[5 6]"),
        ("VGETATTR k a", "nil"),
    ]);
    let attributes = "ATTRS '{\"n\":1}' x '{\"n\":3}'";
    assert_eq!(client.call(&vmadd("k", &vectors, &["b", "c", ""], attributes)), Value::Integer(2));
    client.check(&[
        ("VEMB k b", "[1 2]"),
        ("VEMB k ''", "[5 6]"),
        ("VGETATTR k b", "{\"n\":1}"),
        ("VGETATTR k c", "x"),
        ("VCOUNT k FILTER '.n > 0'", ":2"),
    ]);
    // Without ATTRS they stay, as with VADD; of two of one name the last counts.
    assert_eq!(client.call(&vmadd("k", &vectors, &["b", "d", "d"], "")), Value::Integer(1));
    client.check(&[("VGETATTR k b", "{\"n\":1}"), ("VEMB k d", "[5 6]"), ("VCARD k", ":6")]);
    // A set that VADD made needs its options with every VADD; VMADD has none to give.
    client.check(&[("VADD n VALUES 2 1 1 a NOQUANT", ":1")]);
    assert_eq!(client.call(&vmadd("n", &vectors, &["x", "y", "z"], "")).to_string(), QUANTIZATION_MISMATCH);
    client.check(&[("VCREATE f DIM 2 NOQUANT METRIC L2", "+OK")]);
    assert_eq!(client.call(&vmadd("f", &vectors, &["x", "y", "z"], "")), Value::Integer(3));
    client.check(&[("VCARD n", ":1"), ("VSIM f VALUES 2 3 4 COUNT 1 WITHSCORES", "[y 1]")]);
    let mut rng = Rng(33);
    let many: Vec<Vec<f32>> = (0..20_000).map(|_| rng.vector(16)).collect();
    let names: Vec<String> = (0..20_000).map(|index| format!("e{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(client.call(&vmadd("many", &many, &names, "")), Value::Integer(20_000));
    assert_eq!(client.call(&vsim("many", &many[19_999], "COUNT 1")).to_string(), "[e19999]");
}

#[test]
fn vmadd_refuses_and_stores_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let two = [vec![1.0, 2.0], vec![3.0, 4.0]];
    const ARITY: &str = "-ERR wrong number of arguments for 'VMADD' command";
    let blob = fp32(&[1.0, 2.0, 3.0, 4.0]);
    let raw = |head: &str, tail: &str| {
        let mut line = words(head);
        line.push(blob.clone());
        line.extend(words(tail));
        line
    };
    let table = [
        (words("VMADD k 1 DIM 1 FP32 abcd"), ARITY),
        (raw("VMADD k 2 DIM 2 FP32", "a"), ARITY),
        (raw("VMADD k 2 DIM 2 FP32", "a b c"), "-ERR syntax error, unexpected 'c'"),
        (raw("VMADD k 2 DIM 2 FP32", "a b ATTRS x"), "-ERR syntax error, unexpected 'ATTRS'"),
        (raw("VMADD k 2 DIM 2 FP32", "a b ATTRS x y z"), "-ERR syntax error, unexpected 'ATTRS'"),
        (raw("VMADD k 2 DIM 3 FP32", "a b"), BAD_VECTOR),
        (raw("VMADD k 1 DIM 2 FP32", "a b"), BAD_VECTOR),
        (raw("VMADD k 2 DIM 0 FP32", "a b"), BAD_VECTOR),
        (raw("VMADD k 2 DIM 65537 FP32", "a b"), BAD_VECTOR),
        (raw("VMADD k 2 DIM x FP32", "a b"), BAD_VECTOR),
        (raw("VMADD k 2 SIZE 2 FP32", "a b"), BAD_VECTOR),
        (raw("VMADD k 2 DIM 2 VALUES", "a b"), BAD_VECTOR),
        (words("VMADD k 1 DIM 1 FP32 abc a"), BAD_VECTOR),
        (words("VMADD k 1 DIM 1 FP32 '' a"), BAD_VECTOR),
        (vmadd("k", &[vec![1.0, 2.0], vec![3.0, f32::NAN]], &["a", "b"], ""), BAD_VECTOR),
        (vmadd("k", &[vec![f32::INFINITY, 2.0], vec![3.0, 4.0]], &["a", "b"], ""), BAD_VECTOR),
    ];
    for (line, expected) in &table {
        assert_eq!(client.call(line).to_string(), *expected, "{}", line.join(&b' ').escape_ascii());
    }
    for count in ["0", "-1", "x", "9223372036854775807", "1000001"] {
        let reply = client.call(&raw(&format!("VMADD k {count} DIM 2 FP32"), "a b")).to_string();
        assert!(reply.starts_with("-ERR "), "{count}: {reply}");
    }
    let long = "n".repeat(65_537);
    assert!(client.call(&vmadd("k", &two, &["a", &long], "")).is_error());
    client.check(&[("DBSIZE", ":0"), ("VADD k VALUES 3 1 2 3 x", ":1")]);
    let mismatch = "-ERR Vector dimension mismatch - got 2 but set has 3";
    assert_eq!(client.call(&vmadd("k", &two, &["a", "b"], "")).to_string(), mismatch);
    client.check(&[("VCARD k", ":1"), ("CONFIG SET maxmemory 1", "+OK")]);
    assert!(client.call(&vmadd("k", &two, &["a", "b"], "")).to_string().starts_with("-OOM "));
}

fn log_file(root: &Path) -> std::path::PathBuf {
    let files = files_below(&root.join("data"));
    root.join("data").join(files.iter().rfind(|name| name.ends_with(".vdl")).unwrap())
}

#[test]
fn vmadd_is_one_record_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 2 1 1 first", ":1")]);
    let before = fs::metadata(log_file(folder.path())).unwrap().len();
    let vectors: Vec<Vec<f32>> = (0..30).map(|index| vec![1.0, index as f32]).collect();
    let names: Vec<String> = (0..30).map(|index| format!("e{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let attributes = format!("ATTRS {}", "'{\"n\":1}' ".repeat(30));
    assert_eq!(client.call(&vmadd("k", &vectors, &names, &attributes)), Value::Integer(30));
    server.kill9();
    let after = fs::metadata(log_file(folder.path())).unwrap().len();
    assert!(after > before);
    let torn = (0..12).map(|step| before + (after - 1 - before) * step / 11);
    for (length, expected) in torn.map(|length| (length, ":1")).chain([(after, ":31")]) {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        fs::File::options().write(true).open(log_file(copy.path())).unwrap().set_len(length).unwrap();
        let server = Server::start_in(copy.path(), &[]);
        server.connect().check(&[("VCARD k", expected)]);
    }
    let server = Server::start_in(folder.path(), &[]);
    server.connect().check(&[("VEMB k e29", "[1 29]"), ("VGETATTR k e29", "{\"n\":1}")]);
}

#[test]
fn vmadds_are_whole_after_a_crash() {
    const BATCH: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let acknowledged = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (mut client, acknowledged) = (server.connect(), &acknowledged);
            scope.spawn(move || {
                let vectors = vec![vec![1.0; 64]; BATCH];
                for batch in 0.. {
                    let names: Vec<String> =
                        (0..BATCH).map(|index| format!("{writer}-{batch}-{index}")).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    match client.try_call(&vmadd("k", &vectors, &names, "")) {
                        Ok(reply) => assert_eq!(reply, Value::Integer(BATCH as i64)),
                        Err(_) => return,
                    }
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while acknowledged.load(Ordering::Relaxed) < 100 {
            std::thread::yield_now();
        }
        server.signal("KILL");
    });
    let acknowledged = acknowledged.into_inner();
    server.wait();
    let server = Server::start_in(folder.path(), &[]);
    let count = server.connect().call(&words("VCARD k")).number() as usize;
    assert_eq!(count % BATCH, 0, "{count}");
    assert!(
        (acknowledged..=acknowledged + 2).contains(&(count / BATCH)),
        "{count} of {acknowledged} batches"
    );
}

#[test]
fn vinfo_tells_redis_fields_then_ours() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VCREATE k DIM 2 METRIC IP M 9", "+OK")]);
    let vectors = [vec![1.0, 2.0], vec![3.0, 4.0], vec![5.0, 6.0]];
    client.call(&vmadd("k", &vectors, &["a", "b", "c"], "ATTRS x y z"));
    client.check(&[
        ("VADD k VALUES 2 7 8 a", ":0"),
        ("VREM k b", ":1"),
        ("VSETATTR k c ''", ":1"),
        ("VINFO none", "nil"),
    ]);
    let shown = info(&mut client, "k");
    let names: Vec<String> = shown.items().iter().step_by(2).map(Value::text).collect();
    let redis = [
        "quant-type",
        "hnsw-m",
        "vector-dim",
        "projection-input-dim",
        "size",
        "max-level",
        "attributes-count",
        "vset-uid",
        "hnsw-max-node-uid",
    ];
    assert_eq!(names[..9], redis);
    for (name, expected) in [
        ("quant-type", "+int8"),
        ("hnsw-m", ":9"),
        ("vector-dim", ":2"),
        ("projection-input-dim", ":0"),
        ("size", ":2"),
        ("attributes-count", ":1"),
        ("metric", "+ip"),
        ("raw", "+yes"),
        ("index", "+auto"),
        ("rows", ":4"),
        ("dead-rows", ":2"),
    ] {
        assert_eq!(shown.field(name).to_string(), expected, "{name}");
    }
    assert!(shown.field("memory-bytes").number() > 0.0);
    let uid = shown.field("vset-uid").number();
    client.check(&[("VCREATE other DIM 2", "+OK")]);
    assert_ne!(info(&mut client, "other").field("vset-uid").number(), uid);
}
