//! Fields: further vectors of elements, with VCREATE ... FIELD, VADD ... FIELD and VSEARCH ... FIELD.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::data::cosine;
use common::{Client, Command, Rng, Server, Value, WAIT_MAX, command, fp32, run, words};

/// `id id id`, best first.
fn ids(client: &mut Client, line: &str) -> String {
    let reply = client.call(&words(line));
    assert!(!reply.is_error(), "{line}: {reply}");
    let ids: Vec<String> = reply.field("results").items().iter().map(|one| one.field("id").text()).collect();
    ids.join(" ")
}

const TITLES: &str = "VSEARCH k VECTOR VALUES 3 1 0 0 FIELD title";

/// Three elements; by their own vectors a, b, c, by their titles c, b, and a has none.
fn fill(client: &mut Client) {
    client.check(&[
        ("VCREATE k DIM 2 FIELD title DIM 3 FIELD image DIM 2", "+OK"),
        ("VADD k VALUES 2 1 0 a SETATTR '{\"n\":1}'", ":1"),
        ("VADD k VALUES 2 1 1 b SETATTR '{\"n\":2}'", ":1"),
        ("VADD k VALUES 2 0 1 c SETATTR '{\"n\":3}'", ":1"),
        ("VADD k VALUES 3 1 1 0 b FIELD title", ":1"),
        ("VADD k VALUES 3 1 0 0 c FIELD title", ":1"),
        ("VADD k VALUES 2 0 1 a FIELD image", ":1"),
    ]);
}

#[test]
fn a_field_is_searched_alone_and_together_with_other_vectors() {
    let server = Server::start(&[]);
    fill(&mut server.connect());
    for client in &mut [server.connect(), server.connect_resp3()] {
        assert_eq!(ids(client, TITLES), "c b", "what has no vector there is not found");
        assert_eq!(ids(client, &format!("{TITLES} FILTER '.n < 3'")), "b");
        assert_eq!(ids(client, &format!("{TITLES} EXACT LIMIT 1 1")), "b");
        assert_eq!(ids(client, "VSEARCH k VECTOR ELE b FIELD title LIMIT 0 1"), "b");
        let both = "VECTOR VALUES 2 1 0 WEIGHT 1 VECTOR VALUES 3 1 0 0 FIELD title WEIGHT";
        assert_eq!(ids(client, &format!("VSEARCH k {both} 0.1 FUSE LINEAR NORM NONE")), "a b c");
        assert_eq!(ids(client, &format!("VSEARCH k {both} 9 FUSE LINEAR NORM NONE")), "c b a");
        assert_eq!(ids(client, &format!("VMSEARCH 1 {} LIMIT 0 1", &TITLES[8..])), "c");
        let reply = client.call(&words(&format!("{TITLES} FILTER '.n < 3' WITHATTRIBS WITHVECTORS EXPLAIN")));
        let first = &reply.field("results").items()[0];
        assert_eq!(first.field("attributes").text(), "{\"n\":2}");
        assert_eq!(first.field("vector").items().len(), 2, "the element's own");
        let clause = &first.field("explain").field("clauses").items()[0];
        assert_eq!((clause.field("field").text(), clause.field("rank").number()), ("title".to_owned(), 1.0));
        let clause = &reply.field("plan").field("clauses").items()[0];
        let numbers = ["rows", "passing", "candidates"].map(|name| clause.field(name).number());
        assert_eq!((clause.field("plan").text(), numbers), ("masked scan".to_owned(), [2.0, 1.0, 1.0]));
    }
    let info = server.connect().call(&words("VINFO k"));
    let size = |field: &str| info.field("fields").field(field).field("size").number();
    assert_eq!((size("title"), size("image"), info.field("size").number()), (2.0, 1.0, 3.0));
    server.connect().check(&[
        ("VEMB k b FIELD title", "[1 1 0]"),
        ("VEMB k b", "[1 1]"),
        ("VEMB k a FIELD title", "nil"),
        ("VEMB k z FIELD title", "nil"),
        ("VCARD k", ":3"),
        ("DBSIZE", ":1"),
        ("KEYS *", "[k]"),
        ("SCAN 0", "[0 [k]]"),
    ]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    client.check(&[
        ("VCREATE x DIM 2 FIELD", "-ERR syntax error, unexpected 'FIELD'"),
        ("VCREATE x DIM 2 FIELD t", "-ERR syntax error, unexpected 't'"),
        ("VCREATE x DIM 2 FIELD t DIM 0", "-ERR syntax error, DIM cannot be '0'"),
        ("VCREATE x FIELD t DIM 2", "-ERR syntax error, DIM is missing"),
        ("VCREATE x DIM 2 FIELD t DIM 2 FIELD t DIM 3", "-ERR a field is declared twice"),
        (
            "VCREATE x DIM 2 FIELD '' DIM 2",
            "-ERR a collection can have 16 fields, with names of 1 to 64 bytes in UTF-8",
        ),
        ("EXISTS x", ":0"),
        ("VADD k VALUES 3 1 0 0 c FIELD none", "-ERR the collection has no field 'none'"),
        ("VADD none VALUES 3 1 0 0 c FIELD title", "-ERR key does not exist"),
        ("VADD k VALUES 2 1 0 c FIELD title", "-ERR Vector dimension mismatch - got 2 but set has 3"),
        (
            "VADD k VALUES 3 1 0 0 c FIELD title BIN",
            "-ERR asked quantization mismatch with existing vector set",
        ),
        (
            "VADD k VALUES 3 1 0 0 z FIELD title",
            "-ERR element not found in set: a field's vector is added to an element that is there",
        ),
        (
            "VADD k VALUES 3 1 0 0 c FIELD title SETTEXT x",
            "-ERR REDUCE, SETTEXT and SETSPARSE are for the element itself: they cannot go with FIELD",
        ),
        ("VADD k VALUES 3 5 0 0 c FIELD title NX", ":0"),
        ("VADD k VALUES 3 5 0 0 a FIELD title XX", ":0"),
        ("VEMB k c FIELD title", "[1 0 0]"),
        ("VEMB k c FIELD none", "-ERR the collection has no field 'none'"),
        ("VEMB k c FIELD", "-ERR invalid option"),
        ("VSEARCH k VECTOR VALUES 3 1 0 0 FIELD none", "-ERR the collection has no field 'none'"),
        ("VSEARCH k VECTOR VALUES 2 1 0 FIELD title", "-ERR Vector dimension mismatch - got 2 but set has 3"),
        ("VSEARCH k VECTOR ELE a FIELD title", "-ERR element not found in field 'title'"),
        ("VSEARCH k MATCH x FIELD title", "-ERR syntax error, unexpected 'FIELD'"),
    ]);
}

#[test]
fn vectors_in_fields_follow_their_elements() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    client.check(&[
        ("VADD k VALUES 2 -1 0 c", ":0"),
        ("VEMB k c FIELD title", "[1 0 0]"),
        ("VSETATTR k c '{\"n\":0}'", ":1"),
        ("VADD k VALUES 3 1 0.1 0 c FIELD title SETATTR '{\"n\":-1}'", ":0"),
        ("VGETATTR k c", "{\"n\":-1}"),
    ]);
    assert_eq!(ids(&mut client, &format!("{TITLES} FILTER '.n < 0'")), "c");
    client.check(&[
        ("MULTI", "+OK"),
        ("VADD k VALUES 2 1 0 d", "+QUEUED"),
        ("VADD k VALUES 3 1 0 0 d FIELD title", "+QUEUED"),
        ("VREM k b", "+QUEUED"),
        ("VEMB k d FIELD title", "+QUEUED"),
        ("VEMB k b FIELD title", "+QUEUED"),
        ("EXEC", "[:1 :1 :1 [1 0 0] nil]"),
        ("VEMB k b FIELD title", "nil"),
        ("VADD k VALUES 2 1 1 b", ":1"),
        ("VEMB k b FIELD title", "nil"),
        ("RENAME k moved", "+OK"),
        ("VEMB moved d FIELD title", "[1 0 0]"),
        ("RENAME moved moved", "+OK"),
        ("RENAME moved k", "+OK"),
        ("VEMB k d FIELD title", "[1 0 0]"),
    ]);
    // A watched key has changed when a field of it has.
    let mut other = server.connect();
    client.check(&[("WATCH k", "+OK")]);
    other.check(&[("VADD k VALUES 3 0 0 1 d FIELD title", ":0")]);
    client.check(&[("MULTI", "+OK"), ("PING", "+QUEUED"), ("EXEC", "nil")]);
    // What has expired is found in no field.
    client.check(&[("VADD k VALUES 3 0 0 1 d FIELD title EX 1", ":0"), ("VTTL k d", ":1")]);
    let begin = Instant::now();
    while ids(&mut client, TITLES) != "c" {
        assert!(begin.elapsed() < WAIT_MAX);
        sleep(Duration::from_millis(20));
    }
    client.check(&[
        ("VEMB k d FIELD title", "nil"),
        ("VDELBY k ALL", ":3"),
        ("VEMB k c FIELD title", "nil"),
        ("DEL k", ":1"),
        ("VCREATE k DIM 2", "+OK"),
        ("VADD k VALUES 2 1 0 c", ":1"),
        ("VEMB k c FIELD title", "-ERR the collection has no field 'title'"),
    ]);
    fill_again(&mut client);
}

/// Nothing of a dropped field is left.
fn fill_again(client: &mut Client) {
    client.check(&[("DEL k", ":1"), ("VCREATE k DIM 2 FIELD title DIM 3", "+OK")]);
    client.check(&[("VADD k VALUES 2 1 0 c", ":1"), ("VEMB k c FIELD title", "nil"), ("FLUSHALL", "+OK")]);
    client.check(&[("VSEARCH k VECTOR VALUES 2 1 0", "[results []]"), ("DBSIZE", ":0")]);
}

#[test]
fn texts_are_embedded_for_fields_of_the_models_dimension() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let dim = client.call(&words("VEMBED x")).items()[0].items().len();
    client.check(&[(&format!("VCREATE k DIM 2 FIELD title DIM {dim} FIELD small DIM 3"), "+OK")]);
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VADD k VALUES 2 1 0 b", ":1"),
        ("VADD k TEXT 'a cat on the sofa' a FIELD title", ":1"),
        ("VADD k TEXT 'taxes of the state' b FIELD title", ":1"),
        ("VGET k a WITHTEXT", "[id a text nil]"),
    ]);
    let refused = client.ask("VADD k TEXT cat a FIELD small");
    assert!(refused.starts_with("-ERR Vector dimension mismatch"), "{refused}");
    assert_eq!(ids(&mut client, "VSEARCH k VECTOR TEXT 'a kitten' FIELD title LIMIT 0 1"), "a");
    assert_eq!(ids(&mut client, "VSEARCH k VECTOR TEXT 'income tax' FIELD title LIMIT 0 1"), "b");
    assert_ne!(
        client.call(&words("VINFO k")).field("model"),
        &Value::Null,
        "the collection keeps to the model"
    );
}

const FIELDS: [(&str, usize); 3] = [("", 8), ("title", 12), ("image", 5)];

/// Vectors by element and field, and n of the attributes.
type Model = BTreeMap<String, (BTreeMap<&'static str, Vec<f32>>, usize)>;

fn add(element: &str, field: &str, vector: &[f32], n: Option<usize>) -> Command {
    let mut line = command(&["VADD", "k", "FP32"]);
    line.push(fp32(vector));
    line.push(element.as_bytes().to_vec());
    if !field.is_empty() {
        line.extend(command(&["FIELD", field]));
    }
    line.extend(n.into_iter().flat_map(|n| command(&["SETATTR", &format!("{{\"n\":{n}}}")])));
    line
}

/// Random additions, updates and removals, to the server and the model.
fn change(client: &mut Client, model: &mut Model, rng: &mut Rng, changes: usize) {
    let mut commands = Vec::new();
    for _ in 0..changes {
        let element = format!("e{}", rng.below(400));
        let (field, dim) = FIELDS[rng.below(3)];
        let field = if model.contains_key(&element) { field } else { "" };
        let dim = if field.is_empty() { 8 } else { dim };
        if rng.below(8) == 0 {
            commands.push(command(&["VREM", "k", &element]));
            model.remove(&element);
            continue;
        }
        let (vector, n) = (rng.vector(dim), rng.below(100));
        let is_new = !model.contains_key(&element);
        let n = (is_new || rng.below(3) == 0).then_some(n);
        commands.push(add(&element, field, &vector, n));
        let entry = model.entry(element).or_default();
        entry.0.insert(field, vector);
        entry.1 = n.unwrap_or(entry.1);
    }
    assert!(client.pipeline(&commands).iter().all(|reply| !reply.is_error()));
}

/// Compares weighted searches of several fields with sums of cosines over all elements in f64.
fn compare(client: &mut Client, model: &Model, rng: &mut Rng, metric: &str) {
    let score = |a: &[f32], b: &[f32]| match metric {
        "COSINE" => cosine(a, b),
        _ => -a.iter().zip(b).map(|(&x, &y)| (f64::from(x) - f64::from(y)).powi(2)).sum::<f64>(),
    };
    for least in [0, 60] {
        let queries: Vec<Vec<f32>> = FIELDS.iter().map(|(_, dim)| rng.vector(*dim)).collect();
        let weights: Vec<f64> = FIELDS.iter().map(|_| rng.unit() + 0.1).collect();
        let mut line = command(&["VSEARCH", "k"]);
        for (((field, _), query), weight) in FIELDS.iter().zip(&queries).zip(&weights) {
            line.extend(command(&["VECTOR", "FP32"]));
            line.push(fp32(query));
            if !field.is_empty() {
                line.extend(command(&["FIELD", *field]));
            }
            line.extend(command(&["WEIGHT", &weight.to_string()]));
        }
        line.extend(words(&format!(
            "FUSE LINEAR NORM NONE WINDOW 1000 LIMIT 0 1000 EXACT FILTER '.n >= {least}'"
        )));
        let reply = client.call(&line);
        let found = reply.field("results").items();
        let expected: BTreeMap<&str, f64> = model
            .iter()
            .filter(|(_, (_, n))| *n >= least)
            .map(|(element, (vectors, _))| {
                let parts =
                    FIELDS.iter().zip(&queries).zip(&weights).filter_map(|(((field, _), query), weight)| {
                        Some(weight * score(query, vectors.get(field)?))
                    });
                (&element[..], parts.sum())
            })
            .collect();
        assert_eq!(found.len(), expected.len());
        let mut last = f64::INFINITY;
        for one in found {
            let (id, score) = (one.field("id").text(), one.field("score").number());
            assert!((score - expected[&id[..]]).abs() < 1e-5, "{id}: {score}, {}", expected[&id[..]]);
            assert!(score <= last);
            last = score;
        }
    }
}

fn read_back(client: &mut Client, model: &Model) {
    for element in (0..400).map(|at| format!("e{at}")) {
        for (field, _) in FIELDS {
            let mut line = command(&["VEMB", "k", &element]);
            line.extend(if field.is_empty() { Vec::new() } else { command(&["FIELD", field]) });
            let expected = model.get(&element).and_then(|(vectors, _)| vectors.get(field));
            match client.call(&line) {
                Value::Array(items) => {
                    let found: Vec<f64> = items.iter().map(Value::number).collect();
                    let expected: Vec<f64> = expected.unwrap().iter().map(|&value| value.into()).collect();
                    assert_eq!(found, expected, "{element} {field}");
                }
                other => assert_eq!((other, expected), (Value::Null, None), "{element} {field}"),
            }
        }
    }
}

fn declare(client: &mut Client, metric: &str) {
    let fields = "FIELD title DIM 12 FIELD image DIM 5";
    client.check(&[(&format!("VCREATE k DIM 8 METRIC {metric} {fields}"), "+OK")]);
}

#[test]
fn weighted_searches_of_fields_equal_brute_force() {
    for metric in ["COSINE", "L2"] {
        let server = Server::start(&[]);
        let (mut client, mut model, mut rng) = (server.connect(), Model::new(), Rng(3));
        declare(&mut client, metric);
        for _ in 0..6 {
            change(&mut client, &mut model, &mut rng, 700);
            compare(&mut client, &model, &mut rng, metric);
        }
        read_back(&mut client, &model);
    }
}

#[test]
fn fields_survive_kills_checkpoints_backups_and_repairs() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--appendonly", "yes", "--appendfsync", "no"];
    let (mut model, mut rng) = (Model::new(), Rng(9));
    for round in 0..4 {
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        if round == 0 {
            declare(&mut client, "COSINE");
        }
        read_back(&mut client, &model);
        change(&mut client, &mut model, &mut rng, 800);
        if round % 2 == 1 {
            client.check(&[("SAVE", "+OK")]);
            change(&mut client, &mut model, &mut rng, 100);
        }
        compare(&mut client, &model, &mut rng, "COSINE");
        server.kill9();
    }
    let data = folder.path().join("data");
    let path = |name: &str| folder.path().join(name);
    let served = |root: &Path| {
        let server = Server::start_in(root, &options);
        read_back(&mut server.connect(), &model);
        compare(&mut server.connect(), &model, &mut Rng(1), "COSINE");
    };
    let (backup, restored, repaired) = (path("backup"), path("restored"), path("repaired"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    fs::create_dir(&restored).unwrap();
    fs::create_dir(&repaired).unwrap();
    for arguments in [
        vec!["check".to_owned(), text(&data)],
        vec!["backup".to_owned(), text(&data), "--to".to_owned(), text(&backup)],
        vec!["restore".to_owned(), text(&backup), "--to".to_owned(), text(&restored.join("data"))],
        vec!["repair".to_owned(), text(&data), "--to".to_owned(), text(&repaired.join("data"))],
    ] {
        let output = run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    }
    served(&restored);
    served(&repaired);
    served(folder.path());
}

#[test]
fn a_field_has_a_graph_of_its_own() {
    let server = Server::start(&[]);
    let (mut client, mut rng) = (server.connect(), Rng(6));
    client.check(&[("VCREATE k DIM 2 INDEX HNSW FIELD wide DIM 12", "+OK")]);
    let vectors: Vec<Vec<f32>> = (0..2000).map(|_| rng.vector(12)).collect();
    let named = |(at, vector): (usize, &Vec<f32>)| {
        let element = format!("e{at}");
        [add(&element, "", &[1.0, at as f32], None), add(&element, "wide", vector, None)]
    };
    let adds: Vec<Command> = vectors.iter().enumerate().flat_map(named).collect();
    assert!(client.pipeline(&adds).iter().all(|reply| !reply.is_error()));
    let begin = Instant::now();
    loop {
        let reply = client.call(&words("VSEARCH k VECTOR ELE e7 FIELD wide LIMIT 0 1 EXPLAIN"));
        assert_eq!(reply.field("results").items()[0].field("id").text(), "e7");
        if reply.field("plan").field("clauses").items()[0].field("plan").text() == "graph" {
            break;
        }
        assert!(begin.elapsed() < WAIT_MAX, "{reply}");
        sleep(Duration::from_millis(20));
    }
    let removals: Vec<Command> =
        (0..2000).step_by(2).map(|at| command(&["VREM", "k", &format!("e{at}")])).collect();
    client.pipeline(&removals);
    for at in (1..2000).step_by(100) {
        let found = ids(&mut client, &format!("VSEARCH k VECTOR ELE e{at} FIELD wide LIMIT 0 5"));
        let found: Vec<&str> = found.split(' ').collect();
        assert_eq!((found[0], found.len()), (&format!("e{at}")[..], 5));
        assert!(found.iter().all(|id| id[1..].parse::<usize>().unwrap() % 2 == 1), "{found:?}");
    }
}

#[test]
fn searches_of_a_field_find_everything_while_elements_change() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VCREATE k DIM 2 FIELD other DIM 1", "+OK")]);
    let both = |at: usize| {
        let element = format!("e{at}");
        [add(&element, "", &[1.0, 0.0], None), add(&element, "other", &[at as f32], None)]
    };
    client.pipeline(&(0..1000).flat_map(both).collect::<Vec<_>>());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut client, mut rng) = (server.connect(), Rng(8));
            for _ in 0..300 {
                let update = |_| add(&format!("e{}", rng.below(1000)), "", &[1.0, 0.5], None);
                client.pipeline(&(0..50).map(update).collect::<Vec<_>>());
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let reply = client.call(&words("VSEARCH k VECTOR VALUES 1 1 FIELD other LIMIT 0 1000"));
            assert_eq!(reply.field("results").items().len(), 1000);
        }
    });
}

#[test]
fn fields_move_to_other_servers_and_through_files() {
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let (mut model, mut rng) = (Model::new(), Rng(4));
    declare(&mut from.connect(), "COSINE");
    change(&mut from.connect(), &mut model, &mut rng, 600);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("k.jsonl");
    let (address, target) = (from.address.to_string(), to.address.to_string());
    let call = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{arguments:?} {}", String::from_utf8_lossy(&output.stderr));
    };
    call(&["export", "k", &format!("redis://{target}"), "--server", &address]);
    read_back(&mut to.connect(), &model);
    compare(&mut to.connect(), &model, &mut rng, "COSINE");
    call(&["export", "k", file.to_str().unwrap(), "--server", &address]);
    to.connect().check(&[("FLUSHALL", "+OK")]);
    declare(&mut to.connect(), "COSINE");
    call(&["import", file.to_str().unwrap(), "--key", "k", "--server", &target]);
    read_back(&mut to.connect(), &model);
}
