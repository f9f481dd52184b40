//! The vector-set commands: grammar, replies, errors, search quality, and readers beside writers.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::client::Client;
use common::data::cosine;
use common::{Command, Rng, Server, Value, clustered, command, fp32, vadd, words};

const BAD_VECTOR: &str = "-ERR invalid vector specification";

fn vsim(key: &str, vector: &[f32], options: &str) -> Command {
    let mut command = command(&[b"VSIM", key.as_bytes(), b"FP32", &fp32(vector)]);
    command.extend(words(options));
    command
}

#[test]
fn vadd_adds_and_updates() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("TYPE k", "+vectorset"),
        (
            "vadd k values 2 3 4 b setattr '{\"n\":1}' ef 50 cas m 16 q8",
            ":1",
        ),
        ("VADD k VALUES 2 +1 .5 c", ":1"),
        ("VADD k VALUES 2 0x10 -1e2 d", ":1"),
        ("VADD k VALUES 2 1 1 ''", ":1"),
        ("VCARD k", ":5"),
        ("VEMB k b", "[3 4]"),
        ("VEMB k c", "[1 0.5]"),
        ("VEMB k d", "[16 -100]"),
        ("VISMEMBER k ''", ":1"),
        ("VADD k VALUES 2 5 6 b", ":0"),
        ("VEMB k b", "[5 6]"),
        ("VGETATTR k b", "{\"n\":1}"),
        ("VADD k VALUES 2 5 6 b SETATTR x SETATTR y", ":0"),
        ("VGETATTR k b", "y"),
        ("VADD k VALUES 2 5 6 b SETATTR ''", ":0"),
        ("VGETATTR k b", "nil"),
        ("VADD k VALUES 2 5 6 e SETATTR ''", ":1"),
        ("VGETATTR k e", "''"),
        ("VADD n VALUES 1 1 a Q8 NOQUANT BIN Q8 NOQUANT", ":1"),
    ]);
    assert_eq!(client.call(&words("VINFO n")).field("quant-type").text(), "f32");
    let blob = command(&[
        &b"VADD"[..],
        b"k",
        b"FP32",
        &fp32(&[0.5, -2.0]),
        &[0, 255, 13, 10],
    ]);
    assert_eq!(client.call(&blob), Value::Integer(1));
    assert_eq!(
        client
            .call(&command(&[&b"VEMB"[..], b"k", &[0, 255, 13, 10]]))
            .to_string(),
        "[0.5 -2]"
    );
    let mut client = server.connect_resp3();
    client.check(&[("VADD k VALUES 2 1 0 a", "#f"), ("VADD k VALUES 2 1 0 new", "#t")]);
}

#[test]
fn vadd_refuses_and_stores_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    const ARITY: &str = "-ERR wrong number of arguments for 'VADD' command";
    const BAD_OPTION: &str = "-ERR invalid option after element";
    client.check(&[
        ("VADD k VALUES 2", ARITY),
        ("VADD k VALUES 2 1", BAD_VECTOR),
        ("VADD k VALUES 2 1 0", ARITY),
        ("VADD k VALUES 0 a b", BAD_VECTOR),
        ("VADD k VALUES -1 1 a", BAD_VECTOR),
        ("VADD k VALUES 02 1 0 a", BAD_VECTOR),
        ("VADD k VALUES x 1 a", BAD_VECTOR),
        ("VADD k VALUES 9223372036854775807 1 a", BAD_VECTOR),
        ("VADD k VALUES 3 1 0 a", BAD_VECTOR),
        ("VADD k VALUES 2 1 nan a", BAD_VECTOR),
        ("VADD k VALUES 2 1 inf a", BAD_VECTOR),
        ("VADD k VALUES 2 1 -inf a", BAD_VECTOR),
        ("VADD k VALUES 2 1 1e39 a", BAD_VECTOR),
        ("VADD k VALUES 2 1 ' 1' a", BAD_VECTOR),
        ("VADD k FP32 '' a x", BAD_VECTOR),
        ("VADD k FP32 abc a x", BAD_VECTOR),
        ("VADD k BLOB abcd a x", BAD_VECTOR),
        ("VADD k REDUCE 0 VALUES 2 1 0 a", BAD_VECTOR),
        ("VADD k REDUCE x VALUES 2 1 0 a", BAD_VECTOR),
        ("VADD k REDUCE 3 VALUES 2 1 0 a", BAD_VECTOR),
        ("VADD k VALUES 2 1 x a EF 0", BAD_VECTOR),
        ("VADD k VALUES 2 1 0 a EF 0", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a EF x", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a EF 1000001", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a M 3", "-ERR invalid M"),
        ("VADD k VALUES 2 1 0 a M 4097", "-ERR invalid M"),
        ("VADD k VALUES 2 1 0 a SOMETHING", BAD_OPTION),
        ("VADD k VALUES 2 1 0 a EF", BAD_OPTION),
        ("VADD k VALUES 2 1 0 a Q8 SETATTR", BAD_OPTION),
        ("VADD k VALUES 2 1 0 a EF 0 SOMETHING", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a SOMETHING EF 0", BAD_OPTION),
        ("EXISTS k", ":0"),
        ("DBSIZE", ":0"),
    ]);
    for bits in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(
            client.call(&vadd("k", &[1.0, bits], "a", "")).to_string(),
            BAD_VECTOR
        );
    }
    assert_eq!(
        client.call(&vadd("k", &vec![1.0; 65_537], "a", "")).to_string(),
        BAD_VECTOR
    );
    assert_eq!(
        client.call(&vadd("k", &vec![1.0; 65_536], "a", "")).to_string(),
        ":1"
    );
}

#[test]
fn vadd_must_agree_with_the_set() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    const QUANTIZATION: &str = "-ERR asked quantization mismatch with existing vector set";
    const M: &str = "-ERR asked M value mismatch with existing vector set";
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VADD k VALUES 3 1 0 0 b NOQUANT M 5", QUANTIZATION),
        ("VADD k VALUES 2 1 0 b BIN", QUANTIZATION),
        ("VADD k VALUES 3 1 0 0 b M 5", M),
        (
            "VADD k VALUES 3 1 0 0 b",
            "-ERR Vector dimension mismatch - got 3 but set has 2",
        ),
        (
            "VADD k REDUCE 2 VALUES 2 1 0 b",
            "-ERR cannot add projection to existing set without projection",
        ),
        ("VCARD k", ":1"),
        ("VADD n VALUES 2 1 0 a NOQUANT M 8", ":1"),
        ("VADD n VALUES 2 1 0 b", QUANTIZATION),
        ("VADD n VALUES 2 1 0 b NOQUANT", M),
        ("VADD n VALUES 2 1 0 b NOQUANT M 8", ":1"),
    ]);
}

#[test]
fn reduce_projects_vectors() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD r REDUCE 2 VALUES 4 1 0 0 0 a", ":1"),
        ("VADD r REDUCE 2 VALUES 4 0 1 0 0 b", ":1"),
        ("VDIM r", ":2"),
        ("VEMB r a", "[0.5 0.5]"),
        ("VEMB r b", "[0.5 -0.5]"),
        (
            "VADD r VALUES 4 1 0 0 0 c",
            "-ERR Vector dimension mismatch - got 4 but set has 2",
        ),
        (
            "VADD r VALUES 2 1 0 c",
            "-ERR Vector dimension mismatch - got 2 but set has 2",
        ),
        (
            "VADD r REDUCE 3 VALUES 4 1 0 0 0 c",
            "-ERR projection dimension mismatch with existing set",
        ),
        (
            "VADD r REDUCE 2 VALUES 5 1 0 0 0 0 c",
            "-ERR Input dimension mismatch for projection - got 5 but projection expects 4",
        ),
        ("VSIM r VALUES 4 0 1 0 0 COUNT 1", "[b]"),
        ("VSIM r VALUES 2 1 1 COUNT 1", "[a]"),
        (
            "VSIM r VALUES 3 1 1 1",
            "-ERR Input dimension mismatch for projection - got 3 but projection expects 4",
        ),
    ]);
    assert_eq!(
        client.call(&words("VINFO r")).field("projection-input-dim"),
        &Value::Integer(4)
    );
}

#[test]
fn missing_keys_missing_elements_and_wrong_argument_counts() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VSETATTR k a x", ":1"),
        ("VCARD no", ":0"),
        ("VDIM k", ":2"),
        ("VDIM no", "-ERR key does not exist"),
        ("VREM no a", ":0"),
        ("VREM k no", ":0"),
        ("VISMEMBER no a", ":0"),
        ("VISMEMBER k no", ":0"),
        ("VSETATTR no a x", ":0"),
        ("VSETATTR k no x", ":0"),
        ("EXISTS no", ":0"),
        ("VGETATTR k a", "x"),
        ("VSETATTR k a ''", ":1"),
        ("VEMB k a NONSENSE", "-ERR invalid option"),
        ("VSIM no BAD x", "[]"),
    ]);
    for null in [
        "VGETATTR no a",
        "VGETATTR k no",
        "VGETATTR k a",
        "VEMB no a",
        "VEMB k no",
    ] {
        assert_eq!(client.raw(null), "$-1\r\n", "{null}");
    }
    assert_eq!(client.raw("VINFO no"), "*-1\r\n");
    for wrong in [
        "VCARD",
        "VCARD k a",
        "VDIM k a",
        "VEMB k",
        "VREM k",
        "VISMEMBER k",
        "VGETATTR k",
        "VSETATTR k a",
        "VSETATTR k a x y",
        "VINFO k a",
        "VSIM k ELE",
        "VADD k VALUES 1",
        "VGETATTR k a b",
        "VISMEMBER k a b",
    ] {
        let name = wrong.split(' ').next().unwrap();
        assert_eq!(
            client.ask(&wrong.to_lowercase()),
            format!("-ERR wrong number of arguments for '{name}' command")
        );
    }
    let mut client = server.connect_resp3();
    for null in ["VGETATTR no a", "VEMB k no", "VINFO no"] {
        assert_eq!(client.raw(null), "_\r\n", "{null}");
    }
    client.check(&[
        ("VREM k no", "#f"),
        ("VISMEMBER k a", "#t"),
        ("VSETATTR k a x", "#t"),
        ("VEMB k a", "[,1 ,0]"),
    ]);
    client.check(&[
        ("VREM k a", "#t"),
        ("EXISTS k", ":0"),
        ("TYPE k", "+none"),
        ("VCARD k", ":0"),
    ]);
    // A set that is made anew may be quite another.
    client.check(&[
        ("VADD k VALUES 3 1 0 0 a BIN", "#t"),
        ("VDIM k", ":3"),
        ("VEMB k a", "[,1 ,-1 ,-1]"),
    ]);
}

#[test]
fn vinfo_tells_what_redis_tells_first() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a SETATTR x", ":1"),
        ("VADD k VALUES 2 1 0 b M 16", ":1"),
        ("VADD k VALUES 2 0 1 b", ":0"),
        ("VADD bin VALUES 2 1 0 b BIN M 4", ":1"),
    ]);
    let raw = client.raw("VINFO k");
    let names = [
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
    let shown: Vec<&str> = raw.split("\r\n").skip(1).step_by(2).take(9).collect();
    assert_eq!(shown, names.map(|name| format!("+{name}")), "{raw}");
    assert!(
        raw.contains("+quant-type\r\n+int8\r\n+hnsw-m\r\n:16\r\n+vector-dim\r\n:2\r\n"),
        "{raw}"
    );
    let info = client.call(&words("VINFO k"));
    assert_eq!(
        (info.field("size"), info.field("attributes-count")),
        (&Value::Integer(2), &Value::Integer(1))
    );
    assert_eq!(info.field("rows"), &Value::Integer(3), "an update is a new row");
    let info = server.connect_resp3().call(&words("VINFO bin"));
    assert!(matches!(info, Value::Map(_)));
    assert_eq!(
        (info.field("quant-type").text().as_str(), info.field("hnsw-m")),
        ("bin", &Value::Integer(4))
    );
}

/// The directions a (east), b (north-east), c (north), d (west), each with attributes but d.
fn compass(client: &mut Client, options: &str) {
    for (element, vector, attributes) in [
        ("a", "1 0", "{\"n\":1}"),
        ("b", "2 2", "{\"n\":2}"),
        ("c", "0 5", "{\"n\":3}"),
        ("d", "-1 0", ""),
    ] {
        let line = format!("VADD k VALUES 2 {vector} {element} {options} SETATTR '{attributes}'");
        assert!(!client.ask(&line).starts_with('-'), "{line}");
    }
    client.check(&[("VSETATTR k d ''", ":1")]);
}

#[test]
fn vsim_orders_limits_and_filters() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    compass(&mut client, "");
    client.check(&[
        ("VSIM k VALUES 2 9 1", "[a b c d]"),
        ("VSIM k ELE c COUNT 2", "[c b]"),
        ("vsim k values 2 9 1 count 3 COUNT 1", "[a]"),
        ("VSIM k VALUES 2 9 1 COUNT 1000000", "[a b c d]"),
        ("VSIM k VALUES 2 9 1 TRUTH EF 1 NOTHREAD FILTER-EF 1", "[a b c d]"),
        ("VSIM k VALUES 2 1 0 EPSILON 0.2", "[a b]"),
        ("VSIM k VALUES 2 1 0 EPSILON 0.6", "[a b c]"),
        ("VSIM k VALUES 2 1 0 EPSILON inf", "[a b c d]"),
        ("VSIM k VALUES 2 9 1 FILTER '.n >= 2'", "[b c]"),
        ("VSIM k VALUES 2 9 1 FILTER '.n >= 2' COUNT 1 FILTER-EF 1", "[b]"),
        ("VSIM k VALUES 2 9 1 FILTER '.n in [1, 3]'", "[a c]"),
        ("VSIM k VALUES 2 9 1 FILTER 'not .missing'", "[]"),
        ("VSIM k VALUES 2 9 1 FILTER 1", "[a b c]"),
        ("VSIM k VALUES 2 9 1 FILTER '.n > 5' WITHSCORES", "[]"),
        ("VSETATTR k d '{\"n\":9}'", ":1"),
        ("VSIM k VALUES 2 9 1 FILTER '.n > 5'", "[d]"),
        ("VSIM k VALUES 2 9 1 FILTER '.n > 5' TRUTH", "[d]"),
    ]);
}

#[test]
fn vsim_reply_shapes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    compass(&mut client, "NOQUANT");
    assert_eq!(
        client.raw("VSIM k ELE a COUNT 1 WITHSCORES"),
        "*2\r\n$1\r\na\r\n$1\r\n1\r\n"
    );
    client.check(&[
        (
            "VSIM k ELE a WITHATTRIBS",
            "[a {\"n\":1} b {\"n\":2} c {\"n\":3} d nil]",
        ),
        ("VSIM k ELE a COUNT 1 WITHSCORES WITHATTRIBS", "[a 1 {\"n\":1}]"),
        ("VSIM k ELE a COUNT 1 WITHATTRIBS WITHSCORES", "[a 1 {\"n\":1}]"),
        ("VSIM k VALUES 2 -1 0 COUNT 1 WITHSCORES WITHATTRIBS", "[d 1 nil]"),
    ]);
    assert_eq!(client.raw("VSIM no ELE a WITHSCORES"), "*0\r\n");
    let mut client = server.connect_resp3();
    let scores = client.call(&words("VSIM k ELE a WITHSCORES"));
    let Value::Map(pairs) = &scores else {
        panic!("{scores}")
    };
    let expected = [("a", 1.0), ("b", 0.5 + 0.125_f64.sqrt()), ("c", 0.5), ("d", 0.0)];
    for ((element, score), (name, value)) in pairs.iter().zip(expected) {
        assert_eq!(element.text(), name);
        assert!(
            matches!(score, Value::Double(score) if (score - value).abs() < 1e-6),
            "{scores}"
        );
    }
    client.check(&[
        ("VSIM k ELE a COUNT 2", "[a b]"),
        ("VSIM k ELE a COUNT 1 WITHSCORES", "{a=>,1}"),
        ("VSIM k ELE d COUNT 1 WITHATTRIBS", "{d=>nil}"),
        (
            "VSIM k ELE a COUNT 1 WITHATTRIBS WITHSCORES",
            "{a=>[,1 {\"n\":1}]}",
        ),
        ("VSIM k ELE d COUNT 1 WITHSCORES WITHATTRIBS", "{d=>[,1 nil]}"),
    ]);
    for (line, raw) in [
        ("VSIM no ELE a WITHSCORES", "*0\r\n"),
        ("VSIM k ELE a FILTER '.n > 5'", "*0\r\n"),
        ("VSIM k ELE a FILTER '.n > 5' WITHSCORES", "%0\r\n"),
        ("VSIM k ELE a FILTER '.n > 5' WITHATTRIBS", "%0\r\n"),
    ] {
        assert_eq!(client.raw(line), raw, "{line}");
    }
}

#[test]
fn vsim_errors() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    compass(&mut client, "");
    const SYNTAX: &str = "-ERR syntax error in VSIM command";
    client.check(&[
        ("VSIM k ELE nobody", "-ERR element not found in set"),
        ("VSIM k ELE nobody BAD", "-ERR element not found in set"),
        ("VSIM k BAD x", BAD_VECTOR),
        ("VSIM k VALUES 2 1", BAD_VECTOR),
        ("VSIM k VALUES 2 1 nan", BAD_VECTOR),
        ("VSIM k VALUES 2 1 inf", BAD_VECTOR),
        ("VSIM k FP32 abc", BAD_VECTOR),
        (
            "VSIM k VALUES 3 1 0 0 BAD",
            "-ERR Vector dimension mismatch - got 3 but set has 2",
        ),
        ("VSIM k ELE a BAD", SYNTAX),
        ("VSIM k ELE a COUNT", SYNTAX),
        ("VSIM k ELE a WITHSCORES FILTER", SYNTAX),
        ("VSIM k ELE a COUNT 0", "-ERR invalid COUNT"),
        ("VSIM k ELE a COUNT x BAD", "-ERR invalid COUNT"),
        ("VSIM k ELE a COUNT -1", "-ERR invalid COUNT"),
        ("VSIM k ELE a EPSILON 0", "-ERR invalid EPSILON"),
        ("VSIM k ELE a EPSILON -1", "-ERR invalid EPSILON"),
        ("VSIM k ELE a EPSILON nan", "-ERR invalid EPSILON"),
        ("VSIM k ELE a EF 0", "-ERR invalid EF"),
        ("VSIM k ELE a EF 1000001", "-ERR invalid EF"),
        ("VSIM k ELE a FILTER-EF 0", "-ERR invalid FILTER-EF"),
        (
            "VSIM k ELE a FILTER '.n === 1'",
            "-ERR syntax error in FILTER expression near: = 1",
        ),
        (
            "VSIM k ELE a FILTER '(.n == 1'",
            "-ERR syntax error in FILTER expression near: (.n == 1",
        ),
        ("VCARD k", ":4"),
    ]);
}

#[test]
fn zero_vectors_score_one_half() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for quantization in ["Q8", "NOQUANT"] {
        compass(&mut client, quantization);
        client.check(&[
            (&format!("VADD k VALUES 2 0 0 zero {quantization}"), ":1"),
            ("VEMB k zero", "[0 0]"),
            (
                "VSIM k VALUES 2 0 0 COUNT 2 FILTER '.n == 1' WITHSCORES",
                "[a 0.5]",
            ),
        ]);
        let scores = client.call(&words("VSIM k VALUES 2 1 1 WITHSCORES"));
        assert_eq!((scores.items().len(), scores.field("zero").number()), (10, 0.5));
        client.check(&[("DEL k", ":1")]);
    }
}

#[test]
fn binary_sets_keep_signs() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 4 3 1 2 5 a BIN", ":1"),
        ("VADD k VALUES 4 3 1 -2 -5 b BIN", ":1"),
    ]);
    client.check(&[("VEMB k b", "[1 1 -1 -1]"), ("VSIM k VALUES 4 1 1 1 1", "[a b]")]);
}

/// Neighbours by brute force in f64, best first, with cosine.
fn truth(vectors: &[Vec<f32>], query: &[f32], count: usize) -> Vec<(usize, f64)> {
    let mut scored: Vec<(usize, f64)> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| (index, cosine(vector, query)))
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1));
    scored.truncate(count);
    scored
}

#[test]
fn searches_find_what_brute_force_finds() {
    const COUNT: usize = 5000;
    const QUERIES: usize = 100;
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut rng = Rng(7);
    let mut vectors = clustered(&mut rng, COUNT + QUERIES, 64);
    let queries = vectors.split_off(COUNT);
    for quantization in ["Q8", "NOQUANT"] {
        let additions: Vec<Command> = (0..COUNT)
            .map(|index| {
                let options = format!("{quantization} SETATTR {{\"mod\":{}}}", index % 20);
                vadd(quantization, &vectors[index], &index.to_string(), &options)
            })
            .collect();
        assert!(
            client
                .pipeline(&additions)
                .iter()
                .all(|reply| *reply == Value::Integer(1))
        );
        for options in ["WITHSCORES", "WITHSCORES TRUTH"] {
            let searches: Vec<Command> = queries
                .iter()
                .map(|query| vsim(quantization, query, options))
                .collect();
            let mut found = 0;
            for (answer, query) in client.pipeline(&searches).iter().zip(&queries) {
                let best = truth(&vectors, query, 10);
                for pair in answer.items().chunks(2) {
                    let index: usize = pair[0].text().parse().unwrap();
                    let expected = f64::midpoint(1.0, cosine(&vectors[index], query));
                    assert!(
                        (pair[1].number() - expected).abs() < 1e-5,
                        "{} for {expected}",
                        pair[1]
                    );
                    found += usize::from(best.iter().any(|(best, _)| *best == index));
                }
            }
            assert!(
                found * 1000 >= 995 * 10 * QUERIES,
                "{quantization} {options}: {found} of {}",
                10 * QUERIES
            );
        }
        // With a filter the answer is that of the rows that pass.
        let passing: Vec<Vec<f32>> = vectors.iter().skip(3).step_by(20).cloned().collect();
        let mut found = 0;
        for query in &queries {
            let answer = client.call(&vsim(quantization, query, "FILTER '.mod == 3'"));
            let best = truth(&passing, query, 10);
            let is_best = |hit: &Value| {
                best.iter()
                    .any(|(best, _)| hit.text() == (best * 20 + 3).to_string())
            };
            found += answer.items().iter().filter(|hit| is_best(hit)).count();
        }
        assert!(
            found * 1000 >= 995 * 10 * QUERIES,
            "{quantization} filtered: {found}"
        );
    }
}

#[test]
fn changes_show_at_once_also_within_a_pipeline() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    compass(&mut client, "");
    let table = [
        ("VSIM k VALUES 2 0 -1 COUNT 1 EPSILON 0.1", "[]"),
        ("VADD k VALUES 2 0 -1 a", ":0"),
        ("VSIM k VALUES 2 0 -1 COUNT 1 EPSILON 0.1", "[a]"),
        ("VSIM k VALUES 2 1 0 COUNT 1", "[b]"),
        ("VADD k VALUES 2 1 0 a", ":0"),
        ("VSIM k VALUES 2 1 0 COUNT 1", "[a]"),
        ("VSETATTR k a '{\"n\":7}'", ":1"),
        ("VSIM k VALUES 2 1 0 FILTER '.n == 7'", "[a]"),
        ("VREM k a", ":1"),
        ("VSIM k VALUES 2 1 0", "[b c d]"),
        ("VISMEMBER k a", ":0"),
        ("VSIM k ELE a", "-ERR element not found in set"),
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VGETATTR k a", "nil"),
        ("FLUSHALL", "+OK"),
        ("VSIM k VALUES 2 1 0", "[]"),
    ];
    let commands: Vec<Command> = table.iter().map(|(line, _)| words(line)).collect();
    for (reply, (line, expected)) in client.pipeline(&commands).iter().zip(table) {
        assert_eq!(reply.to_string(), expected, "{line}");
    }
}

#[test]
fn an_element_that_is_updated_never_vanishes() {
    let server = Server::start(&[]);
    let mut writer = server.connect();
    let (east, north) = (vec![1.0, 0.0, 0.0, 0.0], vec![0.0, 1.0, 0.0, 0.0]);
    let put = |writer: &mut Client, round: usize| {
        let vector = if round.is_multiple_of(2) { &east } else { &north };
        let reply = writer.call(&vadd("k", vector, "e", &format!("SETATTR {}", round % 2)));
        assert!(!reply.is_error(), "{reply}");
    };
    let mut rng = Rng(3);
    for index in 0..200 {
        writer.call(&vadd("k", &rng.vector(4), &format!("other{index}"), ""));
    }
    put(&mut writer, 0);
    let done = AtomicBool::new(false);
    let read = || {
        let mut client = server.connect();
        for _ in 0..400 {
            // The query's cosine is 0.6 with east and 0.8 with north.
            let answer = client.call(&words(
                "VSIM k VALUES 4 3 4 0 0 COUNT 1000 WITHSCORES WITHATTRIBS",
            ));
            let hit = answer
                .items()
                .chunks(3)
                .find(|hit| hit[0].text() == "e")
                .expect("e has vanished");
            let expected = if hit[2].text() == "0" { 0.8 } else { 0.9 };
            assert!((hit[1].number() - expected).abs() < 1e-6, "{hit:?}");
            assert_eq!(answer.items().len(), 3 * 201);
            let own = client.call(&words("VSIM k ELE e COUNT 1 WITHSCORES"));
            assert_eq!(own.to_string(), "[e 1]");
            let embedding = client.ask("VEMB k e");
            assert!(
                ["[1 0 0 0]", "[0 1 0 0]"].contains(&embedding.as_str()),
                "{embedding}"
            );
            client.check(&[("VISMEMBER k e", ":1"), ("VCARD k", ":201")]);
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..6).map(|_| scope.spawn(read)).collect();
        let updates = scope.spawn(|| {
            let mut round = 0;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                put(&mut writer, round);
            }
        });
        let results: Vec<_> = readers
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect();
        done.store(true, Ordering::Relaxed);
        updates.join().unwrap();
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
}
