//! VSIM: grammar, replies, errors, quality of the answers, and readers beside writers.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::data::cosine;
use common::{Client, Command, Rng, Server, Value, clustered, command, fp32, vadd, words};

const BAD_VECTOR: &str = "-ERR invalid vector specification";

fn vsim(key: &str, vector: &[f32], options: &str) -> Command {
    let mut command = command(&[b"VSIM", key.as_bytes(), b"FP32", &fp32(vector)]);
    command.extend(words(options));
    command
}

/// The directions a (east), b (north-east), c (north), d (west), each with attributes but d.
fn compass(client: &mut Client, options: &str) {
    for (element, vector, attributes) in
        [("a", "1 0", "{\"n\":1}"), ("b", "2 2", "{\"n\":2}"), ("c", "0 5", "{\"n\":3}"), ("d", "-1 0", "")]
    {
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
    assert_eq!(client.raw("VSIM k ELE a COUNT 1 WITHSCORES"), "*2\r\n$1\r\na\r\n$1\r\n1\r\n");
    client.check(&[
        ("VSIM k ELE a WITHATTRIBS", "[a {\"n\":1} b {\"n\":2} c {\"n\":3} d nil]"),
        ("VSIM k ELE a COUNT 1 WITHSCORES WITHATTRIBS", "[a 1 {\"n\":1}]"),
        ("VSIM k ELE a COUNT 1 WITHATTRIBS WITHSCORES", "[a 1 {\"n\":1}]"),
        ("VSIM k VALUES 2 -1 0 COUNT 1 WITHSCORES WITHATTRIBS", "[d 1 nil]"),
    ]);
    assert_eq!(client.raw("VSIM no ELE a WITHSCORES"), "*0\r\n");
    let mut client = server.connect_resp3();
    let scores = client.call(&words("VSIM k ELE a WITHSCORES"));
    let Value::Map(pairs) = &scores else { panic!("{scores}") };
    let expected = [("a", 1.0), ("b", 0.5 + 0.125_f64.sqrt()), ("c", 0.5), ("d", 0.0)];
    assert_eq!(pairs.len(), expected.len());
    for (name, value) in expected {
        assert!(
            matches!(scores.field(name), Value::Double(score) if (score - value).abs() < 1e-6),
            "{scores}"
        );
    }
    // The client's decoder turns maps around, so their order is looked at as it is sent.
    let raw = client.raw("VSIM k ELE a WITHSCORES");
    let places: Vec<usize> =
        expected.iter().filter_map(|(name, _)| raw.find(&format!("\n{name}\r"))).collect();
    assert!(places.len() == expected.len() && places.is_sorted(), "{raw}");
    client.check(&[
        ("VSIM k ELE a COUNT 2", "[a b]"),
        ("VSIM k ELE a COUNT 1 WITHSCORES", "{a=>,1}"),
        ("VSIM k ELE d COUNT 1 WITHATTRIBS", "{d=>nil}"),
        ("VSIM k ELE a COUNT 1 WITHATTRIBS WITHSCORES", "{a=>[,1 {\"n\":1}]}"),
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
        ("VSIM k VALUES 3 1 0 0 BAD", "-ERR Vector dimension mismatch - got 3 but set has 2"),
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
        ("VSIM k ELE a FILTER '.n == 1 @ 2'", "-ERR syntax error in FILTER expression near: @ 2"),
        ("VSIM k ELE a FILTER '(.n == 1'", "-ERR syntax error in FILTER expression near: (.n == 1"),
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
            ("VSIM k VALUES 2 0 0 COUNT 2 FILTER '.n == 1' WITHSCORES", "[a 0.5]"),
        ]);
        let scores = client.call(&words("VSIM k VALUES 2 1 1 WITHSCORES"));
        assert_eq!((scores.items().len(), scores.field("zero").number()), (10, 0.5));
        client.check(&[("DEL k", ":1")]);
    }
}

/// Neighbours by brute force in f64, best first, with cosine.
fn truth(vectors: &[Vec<f32>], query: &[f32], count: usize) -> Vec<(usize, f64)> {
    let mut scored: Vec<(usize, f64)> =
        vectors.iter().enumerate().map(|(index, vector)| (index, cosine(vector, query))).collect();
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
        assert!(client.pipeline(&additions).iter().all(|reply| *reply == Value::Integer(1)));
        for options in ["WITHSCORES", "WITHSCORES TRUTH"] {
            let searches: Vec<Command> =
                queries.iter().map(|query| vsim(quantization, query, options)).collect();
            let mut found = 0;
            for (answer, query) in client.pipeline(&searches).iter().zip(&queries) {
                let best = truth(&vectors, query, 10);
                for pair in answer.items().chunks(2) {
                    let index: usize = pair[0].text().parse().unwrap();
                    let expected = f64::midpoint(1.0, cosine(&vectors[index], query));
                    assert!((pair[1].number() - expected).abs() < 1e-5, "{} for {expected}", pair[1]);
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
            let is_best =
                |hit: &Value| best.iter().any(|(best, _)| hit.text() == (best * 20 + 3).to_string());
            found += answer.items().iter().filter(|hit| is_best(hit)).count();
        }
        assert!(found * 1000 >= 995 * 10 * QUERIES, "{quantization} filtered: {found}");
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
        let (mut client, mut resp3) = (server.connect(), server.connect_resp3());
        let all = words("VSIM k VALUES 4 3 4 0 0 COUNT 1000 WITHSCORES WITHATTRIBS");
        for _ in 0..400 {
            // The query's cosine is 0.6 with east and 0.8 with north.
            let answer = resp3.call(&all);
            let hit = answer.field("e").items();
            let expected = if hit[1].text() == "0" { 0.8 } else { 0.9 };
            assert!((hit[0].number() - expected).abs() < 1e-6, "{hit:?}");
            assert!(matches!(&answer, Value::Map(pairs) if pairs.len() == 201), "{answer}");
            let embedding = client.ask("VEMB k e");
            assert!(["[1 0 0 0]", "[0 1 0 0]"].contains(&embedding.as_str()), "{embedding}");
            client.check(&[
                ("VSIM k ELE e COUNT 1 WITHSCORES", "[e 1]"),
                ("VISMEMBER k e", ":1"),
                ("VCARD k", ":201"),
            ]);
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
        let results: Vec<_> = readers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        updates.join().unwrap();
        assert!(results.into_iter().all(|result| result.is_ok()));
    });
}
