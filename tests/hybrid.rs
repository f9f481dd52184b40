//! VSEARCH: words, vectors, and both in one ranking.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Client, Command, Server, Value, command, fp32, words};

/// Vectors of two dimensions, texts and attributes. By words "fox" is in a, b, d; by the angle to (1, 0) the order is
/// a, b, c, d, e.
const ELEMENTS: &[(&str, [f32; 2], &str, &str)] = &[
    ("a", [1.0, 0.0], "the quick brown fox", r#"{"kind":"x","n":1}"#),
    ("b", [0.9, 0.1], "fox fox and fox", r#"{"kind":"y","n":2,"tags":["red","blue"]}"#),
    ("c", [0.7, 0.7], "a lazy dog sleeps", r#"{"kind":"x","n":3}"#),
    ("d", [0.1, 0.9], "one fox jumps over lazy dogs", r#"{"kind":"y","n":4,"deep":{"er":true}}"#),
    ("e", [-1.0, 0.0], "", "{}"),
];

fn load(client: &mut Client, key: &str) {
    for (id, vector, text, attributes) in ELEMENTS {
        let mut add = command(&["VADD", key, "FP32"]);
        add.push(fp32(vector));
        add.extend(command(&[*id, "SETATTR", attributes, "SETTEXT", text]));
        assert!(!client.call(&add).is_error());
    }
}

fn search(client: &mut Client, line: &str) -> Value {
    let reply = client.call(&words(&format!("VSEARCH k {line}")));
    assert!(!reply.is_error(), "{line}: {reply}");
    reply
}

fn results(client: &mut Client, line: &str) -> Vec<(String, f64)> {
    let reply = search(client, line);
    let result = |one: &Value| (one.field("id").text(), one.field("score").number());
    reply.field("results").items().iter().map(result).collect()
}

fn ids(client: &mut Client, line: &str) -> String {
    results(client, line).into_iter().map(|(id, _)| id).collect()
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6, "{a} {b}");
}

const DENSE: &str = "VECTOR VALUES 2 1 0";

#[test]
fn words_vectors_and_both_are_found() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "k");
    assert_eq!(ids(&mut client, "MATCH foxes"), "bad");
    assert_eq!(ids(&mut client, DENSE), "abcde");
    let dense = results(&mut client, DENSE);
    close(dense[0].1, 1.0);
    close(dense[4].1, -1.0);

    let text = results(&mut client, "MATCH 'lazy fox'");
    assert_eq!(text.len(), 4);
    let fused = results(&mut client, &format!("{DENSE} WEIGHT 2 MATCH 'lazy fox' LIMIT 0 5"));
    let rank =
        |hits: &[(String, f64)], id: &str| hits.iter().position(|hit| hit.0 == id).map(|at| at as f64 + 1.0);
    for (id, score) in &fused {
        let share = |rank: Option<f64>| rank.map_or(0.0, |rank| 1.0 / (60.0 + rank));
        close(*score, 2.0 * share(rank(&dense, id)) + share(rank(&text, id)));
    }
    assert!(fused.windows(2).all(|two| two[0].1 >= two[1].1));

    let linear = results(&mut client, &format!("{DENSE} MATCH 'lazy fox' WEIGHT 0.5 FUSE LINEAR"));
    let least = text.last().unwrap().1;
    for (id, score) in &linear {
        let cosine = dense.iter().find(|hit| hit.0 == *id).unwrap().1;
        let words =
            text.iter().find(|hit| hit.0 == *id).map_or(0.0, |hit| (hit.1 - least) / (text[0].1 - least));
        close(*score, f64::midpoint(cosine, 1.0) + 0.5 * words);
    }
    let plain = results(&mut client, &format!("{DENSE} MATCH 'lazy fox' FUSE LINEAR NORM NONE"));
    let of = |hits: &[(String, f64)], id: &str| hits.iter().find(|hit| hit.0 == id).map_or(0.0, |hit| hit.1);
    for (id, score) in &plain {
        close(*score, of(&dense, id) + of(&text, id));
    }
    assert_eq!(ids(&mut client, &format!("{DENSE} MATCH fox FUSE LINEAR NORM DBSF LIMIT 0 1")).len(), 1);
    assert_eq!(ids(&mut client, "VECTOR ELE d LIMIT 0 2"), "dc");
}

#[test]
fn pages_filters_and_least_scores_narrow_the_results() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "k");
    assert_eq!(ids(&mut client, &format!("{DENSE} LIMIT 1 2")), "bc");
    assert_eq!(ids(&mut client, &format!("{DENSE} LIMIT 4 9")), "e");
    assert_eq!(ids(&mut client, &format!("{DENSE} LIMIT 9 9")), "");
    assert_eq!(ids(&mut client, &format!("{DENSE} LIMIT 0 0")), "");
    assert_eq!(ids(&mut client, &format!("{DENSE} FILTER '.kind == \"x\"'")), "ac");
    assert_eq!(ids(&mut client, "MATCH fox FILTER '.kind == \"x\"'"), "a");
    assert_eq!(ids(&mut client, &format!("{DENSE} MATCH fox FILTER '.n > 3'")), "d");
    assert_eq!(ids(&mut client, &format!("{DENSE} MINSCORE 0.5")), "abc");
    let best = results(&mut client, "MATCH fox")[0].1;
    assert_eq!(ids(&mut client, &format!("MATCH fox MINSCORE {best}")), "b");
    assert_eq!(ids(&mut client, &format!("{DENSE} EXACT EF 100 WINDOW 3")), "abcde");
    let near = ids(&mut client, "VECTOR VALUES 2 0.1 0.9 LIMIT 0 1");
    assert_eq!(near, "d");
}

#[test]
fn distances_are_shown_and_bounded_as_distances() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    client.ask("VCREATE k DIM 2 METRIC L2");
    load(&mut client, "k");
    let found = results(&mut client, &format!("{DENSE} LIMIT 0 3"));
    assert_eq!(found.iter().map(|hit| &hit.0[..]).collect::<String>(), "abc");
    close(found[0].1, 0.0);
    close(found[2].1, 0.58);
    assert_eq!(ids(&mut client, &format!("{DENSE} MINSCORE 0.1")), "ab");
}

#[test]
fn boosts_lift_elements() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "k");
    assert_eq!(ids(&mut client, &format!("{DENSE} BOOST kind y 10 LIMIT 0 2")), "bd");
    assert_eq!(ids(&mut client, &format!("{DENSE} BOOST n 3.0 10 LIMIT 0 1")), "c");
    assert_eq!(ids(&mut client, &format!("{DENSE} BOOST tags blue 5 BOOST deep.er true 9 LIMIT 0 2")), "db");
    let found = results(&mut client, &format!("{DENSE} BOOST kind none 10 BOOST kind x -3"));
    assert_eq!(found[0].0, "b");
    close(found[3].1, -2.0);
    // "lazy" and "fox": d has both, c one.
    let found = results(&mut client, "MATCH 'lazy fox' FUSE LINEAR BOOSTTEXT 10");
    let explained = search(&mut client, "MATCH 'lazy fox' FUSE LINEAR BOOSTTEXT 10 EXPLAIN");
    assert_eq!(found[0].0, "d");
    let boosts: Vec<f64> = explained
        .field("results")
        .items()
        .iter()
        .map(|one| one.field("explain").field("boost").number())
        .collect();
    assert_eq!(boosts, [10.0, 5.0, 5.0, 5.0]);
}

#[test]
fn mmr_varies_the_results_and_keeps_their_scores() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    for (id, vector) in [("a", "1 0"), ("b", "0.999 0.001"), ("c", "0.998 0.002"), ("d", "0.6 0.8")] {
        client.ask(&format!("VADD k VALUES 2 {vector} {id}"));
    }
    assert_eq!(ids(&mut client, &format!("{DENSE} LIMIT 0 2")), "ab");
    assert_eq!(ids(&mut client, &format!("{DENSE} MMR 1 LIMIT 0 3")), "abc");
    let varied = results(&mut client, &format!("{DENSE} MMR 0.3 POOL 4 LIMIT 0 2"));
    assert_eq!(varied[1].0, "d");
    close(varied[1].1, 0.6);
    assert_eq!(ids(&mut client, &format!("{DENSE} MMR 0.3 POOL 2 LIMIT 0 2")), "ab");
}

#[test]
fn results_carry_what_is_asked_for() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "k");
    let reply = search(&mut client, "MATCH 'quick foxes' WITHATTRIBS WITHTEXT WITHVECTORS EXPLAIN LIMIT 0 1");
    let first = &reply.field("results").items()[0];
    assert_eq!(first.field("attributes").text(), r#"{"kind":"x","n":1}"#);
    assert_eq!(first.field("text").text(), "the quick brown fox");
    assert_eq!(first.field("vector").to_string(), "[,1 ,0]");
    let clause = &first.field("explain").field("clauses").items()[0];
    assert_eq!(clause.field("clause").text(), "MATCH");
    assert_eq!(clause.field("rank"), &Value::Integer(1));
    assert_eq!(clause.field("terms").to_string(), "[quick fox]");
    assert_eq!(clause.field("score"), first.field("score"));
    let plan = reply.field("plan");
    assert_eq!(plan.field("clauses").items()[0].field("rows"), &Value::Integer(4));
    assert_eq!(plan.field("fusion").text(), "none");
    assert!(plan.field("candidates_us").number() >= 0.0);

    let reply = search(&mut client, "VECTOR ELE e LIMIT 0 1 WITHTEXT WITHATTRIBS");
    assert_eq!(reply.field("results").items()[0].field("text"), &Value::Null);
}

#[test]
fn both_protocols_give_the_same() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.ask("VADD k VALUES 2 1 1 a SETTEXT 'a cat'");
    let request = "VSEARCH k VECTOR VALUES 2 1 0.9 LIMIT 0 1";
    let raw = client.raw(request);
    assert!(
        raw.starts_with("*2\r\n$7\r\nresults\r\n*1\r\n*4\r\n$2\r\nid\r\n$1\r\na\r\n$5\r\nscore\r\n$"),
        "{raw:?}"
    );
    let mut client = server.connect_resp3();
    let raw = client.raw(request);
    assert!(
        raw.starts_with("%1\r\n$7\r\nresults\r\n*1\r\n%2\r\n$2\r\nid\r\n$1\r\na\r\n$5\r\nscore\r\n,0.99"),
        "{raw:?}"
    );
}

#[test]
fn malformed_searches_are_refused_with_the_word_and_nothing_runs() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "k");
    let many = "MATCH a ".repeat(17);
    let bad = [
        ("LIMIT 0 1", "clause is missing"),
        ("VECTOR NONE", "unexpected 'NONE'"),
        ("LIMIT 0 1 VECTOR", "VECTOR needs a value"),
        ("VECTOR VALUES 3 1 0", "invalid vector"),
        ("VECTOR VALUES 3 1 0 0", "dimension mismatch"),
        ("VECTOR ELE nobody", "element not found"),
        ("LIMIT 0 1 VECTOR ELE", "ELE needs a value"),
        ("LIMIT 0 1 MATCH", "MATCH needs a value"),
        ("MATCH fox WEIGHT -1", "WEIGHT cannot be '-1'"),
        ("MATCH fox B 1.5", "B cannot be '1.5'"),
        ("MATCH fox K1 nan", "K1 cannot be 'nan'"),
        ("VECTOR ELE a K1 2", "unexpected 'K1'"),
        ("MATCH fox FUSE BEST", "unexpected 'BEST'"),
        ("MATCH fox FUSE RRF CONSTANT x", "CONSTANT cannot be 'x'"),
        ("MATCH fox FUSE LINEAR NORM MAX", "NORM cannot be 'MAX'"),
        ("MATCH fox WINDOW 0", "WINDOW cannot be '0'"),
        ("MATCH fox LIMIT 1", "LIMIT needs a value"),
        ("MATCH fox LIMIT -1 5", "LIMIT cannot be '-1'"),
        ("MATCH fox MINSCORE inf", "MINSCORE cannot be 'inf'"),
        ("MATCH fox MMR 2", "MMR cannot be '2'"),
        ("MATCH fox MMR 0.5 POOL 1001", "POOL cannot be '1001'"),
        ("MATCH fox MMR 0.5 LIMIT 0 1001", "MMR can give"),
        ("MATCH fox BOOST a b", "BOOST needs a value"),
        ("MATCH fox BOOST a b c", "BOOST cannot be 'c'"),
        ("VECTOR ELE a BOOSTTEXT 1", "BOOSTTEXT needs a text"),
        ("VECTOR ELE a RERANK builtin", "RERANK needs a text"),
        ("MATCH fox RERANK builtin DEPTH 0", "DEPTH cannot be '0'"),
        ("MATCH fox RERANK nosuch", "nosuch"),
        ("MATCH fox FILTER '.n >'", "syntax error in FILTER"),
        ("MATCH fox EF 0", "EF cannot be '0'"),
        ("MATCH fox COUNT 3", "unexpected 'COUNT'"),
        (&many[..], "16 clauses"),
    ];
    for (line, error) in bad {
        let reply = client.ask(&format!("VSEARCH k {line}"));
        assert!(reply.starts_with('-') && reply.contains(error), "{line}: {reply}");
    }
    let mut long: Command = words("VSEARCH k MATCH");
    long.push((0..2000).map(|at| format!("w{at} ")).collect::<String>().into_bytes());
    assert!(client.call(&long).text().contains("1024 different terms"));
    assert_eq!(client.ask("VSEARCH nosuch MATCH fox"), "{results=>[]}");
    assert!(client.ask("VSEARCH nosuch LIMIT 0 1 MATCH").contains("MATCH needs a value"));
}

#[test]
fn changes_count_at_once_and_outlive_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let check = |client: &mut Client| {
        assert_eq!(ids(client, "MATCH fox"), "bd");
        assert_eq!(ids(client, "MATCH dog"), "fc");
        assert_eq!(ids(client, "MATCH whale"), "a");
    };
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    load(&mut client, "k");
    client.ask("VADD k VALUES 2 1 0 a SETTEXT 'a whale'");
    client.ask("VADD k VALUES 2 1 0 c");
    client.ask("VADD k VALUES 2 1 0 f SETTEXT 'some dog dog'");
    client.ask("VADD k VALUES 2 1 0 g SETTEXT 'dog dog'");
    client.ask("VREM k g");
    client.ask("VADD k VALUES 2 0 1 d SETTEXT 'one fox'");
    let mut scores = Vec::new();
    for round in 0..3 {
        check(&mut client);
        scores.push(results(&mut client, "MATCH 'dog fox whale' LIMIT 0 9"));
        assert_eq!(scores[round], scores[0]);
        if round == 1 {
            client.ask("SAVE");
        }
        client.ask("DEBUG RELOAD");
    }
    drop(client);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    check(&mut client);
    assert_eq!(results(&mut client, "MATCH 'dog fox whale' LIMIT 0 9"), scores[0]);
}

#[test]
fn a_collection_keeps_its_analyzer() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    for (key, analyzer) in [("en", "EN"), ("plain", "standard"), ("de", "de"), ("parts", "ngram(3,3)")] {
        assert_eq!(client.ask(&format!("VCREATE {key} DIM 1 ANALYZER {analyzer}")), "+OK");
        client.ask(&format!("VADD {key} VALUES 1 1 a SETTEXT 'Häuser are running 向量数据库'"));
    }
    assert!(client.ask("VCREATE bad DIM 1 ANALYZER klingon").contains("ANALYZER cannot be 'klingon'"));
    client.ask("SAVE");
    drop(client);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    let mut finds = |key: &str, text: &str| {
        let found = client.call(&words(&format!("VSEARCH {key} MATCH {text}")));
        !found.field("results").items().is_empty()
    };
    assert!(finds("en", "run") && !finds("plain", "run") && finds("plain", "running"));
    assert!(finds("de", "Haus") && !finds("en", "Haus"));
    assert!(finds("parts", "unni") && !finds("plain", "unni"));
    assert!(!finds("en", "are") && finds("plain", "are"), "stop words");
    assert!(finds("en", "数据") && !finds("en", "据数"));
    assert_eq!(client.call(&words("VINFO parts")).field("analyzer").text(), "ngram(3,3)");
}

#[test]
fn texts_are_embedded_reranked_and_searched_in_transactions() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let texts = [
        ("cat", "The cat sleeps on the warm sofa"),
        ("tax", "The government raised the income tax"),
        ("ship", "A ship sails over the ocean"),
        ("nap", "A kitten takes a nap"),
    ];
    for (id, text) in texts {
        client.call(&command(&["VADD", "k", "TEXT", text, id]));
    }
    assert_eq!(results(&mut client, "VECTOR TEXT 'boats at sea'")[0].0, "ship");
    let both = results(&mut client, "VECTOR TEXT 'a kitten takes a nap' MATCH 'income tax'");
    assert!(both.iter().take(2).any(|hit| hit.0 == "tax"), "{both:?}");

    // By words "the" is nothing and "sofa" is one text; the model knows that kittens are cats.
    let again = search(&mut client, "MATCH 'kitten sofa tax' RERANK builtin DEPTH 3 EXPLAIN LIMIT 0 3");
    let first = &again.field("results").items()[0];
    assert_eq!(first.field("score"), first.field("explain").field("rerank"));
    assert!(first.field("score").number() <= 1.0 && first.field("id").text() != "tax");

    client.ask("MULTI");
    client.call(&command(&["VADD", "k", "TEXT", "A submarine dives", "sub"]));
    client.ask("VSEARCH k MATCH submarine VECTOR TEXT ocean LIMIT 0 1");
    client.ask("VSEARCH k MATCH submarine RERANK builtin");
    let replies = client.call(&words("EXEC"));
    assert_eq!(replies.items()[1].field("results").items()[0].field("id").text(), "sub");
    assert!(replies.items()[2].text().contains("inside MULTI"));
}

#[test]
fn many_searches_in_a_pipeline_are_answered_in_order() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let mut adds: Vec<Command> = Vec::new();
    for at in 0..5000 {
        let text = format!("number {at} is {} word{}", if at % 2 == 0 { "even" } else { "odd" }, at % 7);
        let mut add = command(&["VADD", "k", "VALUES", "2", "1", &at.to_string(), &format!("e{at}")]);
        add.extend(command(&["SETTEXT", &text]));
        adds.push(add);
    }
    client.pipeline(&adds);
    let searches: Vec<Command> = (0..200)
        .map(|at| match at % 3 {
            0 => words(&format!("VSEARCH k MATCH {at} LIMIT 0 1")),
            1 => words(&format!("VSEARCH k VECTOR ELE e{at} MATCH {at} LIMIT 0 1")),
            _ => words(&format!("VSIM k ELE e{at} COUNT 1 WITHSCORES")),
        })
        .collect();
    for (at, reply) in client.pipeline(&searches).iter().enumerate().filter(|(at, _)| at % 3 == 0) {
        let found = reply.field("results").items()[0].field("id").text();
        assert_eq!(found, format!("e{at}"));
    }
}

/// spec of BM25: idf * tf / (tf + k1 * (1 - b + b * length / mean length)), idf = ln(1 + (N - df + 0.5) / (df + 0.5)).
#[test]
fn bm25_takes_its_parameters() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    client.check(&[
        ("VCREATE k DIM 1 ANALYZER standard", "+OK"),
        ("VADD k VALUES 1 1 x SETTEXT 'red red blue'", "#t"),
        ("VADD k VALUES 1 1 y SETTEXT 'red green'", "#t"),
        ("VADD k VALUES 1 1 z SETTEXT 'green green green green'", "#t"),
    ]);
    let idf = 1.6f64.ln();
    for (k1, b) in [(1.2, 0.75), (2.0, 0.0), (1.0, 1.0), (0.0, 0.5)] {
        let expected = |tf: f64, length: f64| idf * tf / (tf + k1 * (1.0 - b + b * length / 3.0));
        let found = results(&mut client, &format!("MATCH red K1 {k1} B {b}"));
        assert_eq!(found.len(), 2);
        for (id, score) in found {
            close(score, if id == "x" { expected(2.0, 3.0) } else { expected(1.0, 2.0) });
        }
    }
}

#[test]
fn fusion_takes_its_constant_and_norm() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "k");
    let (dense, text) = (results(&mut client, DENSE), results(&mut client, "MATCH fox"));
    let place = |hits: &[(String, f64)], id: &str| hits.iter().position(|hit| hit.0 == id);
    for (id, score) in results(&mut client, &format!("{DENSE} MATCH fox FUSE RRF CONSTANT 1")) {
        let share = |at: Option<usize>| at.map_or(0.0, |at| 1.0 / (2.0 + at as f64));
        close(score, share(place(&dense, &id)) + share(place(&text, &id)));
    }
    let norm = |hits: &[(String, f64)], id: &str| {
        let count = hits.len() as f64;
        let mean = hits.iter().map(|hit| hit.1).sum::<f64>() / count;
        let sigma = (hits.iter().map(|hit| (hit.1 - mean).powi(2)).sum::<f64>() / count).sqrt();
        place(hits, id).map_or(0.0, |at| (hits[at].1 - (mean - 3.0 * sigma)) / (6.0 * sigma))
    };
    for (id, score) in results(&mut client, &format!("{DENSE} MATCH fox FUSE LINEAR NORM DBSF")) {
        close(score, norm(&dense, &id) + norm(&text, &id));
    }
}

#[test]
fn words_are_found_whatever_their_case_and_accents() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    client.check(&[("VADD k VALUES 1 1 a SETTEXT 'Un café à Zürich'", "#t")]);
    for word in ["café", "CAFÉ", "zürich", "ZÜRICH"] {
        assert_eq!(ids(&mut client, &format!("MATCH {word}")), "a", "{word}");
    }
    assert_eq!(ids(&mut client, "MATCH caf"), "");
}
