//! Embedding models on disk: added, verified, run by ONNX Runtime, and what is said when something is missing.
//!
//! Tests that run a model need the ONNX Runtime library: `ORT_DYLIB_PATH` names it (CI fetches it). Without it they are
//! skipped, unless `VECDIS_REQUIRE_ORT` is set.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use common::{Client, Command, Server, Value, command, words};
use vecdis::config::Config;
use vecdis::embed::{EmbedError, Embedding, Role, Text};

const TOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/toy_model");
const TOY_CROSS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/toy_cross");

/// Whether there is a library to run models with.
fn has_runtime(test: &str) -> bool {
    let path = std::env::var_os("ORT_DYLIB_PATH").map(PathBuf::from);
    let found = path.is_some_and(|path| path.is_file());
    assert!(
        found || std::env::var_os("VECDIS_REQUIRE_ORT").is_none(),
        "ORT_DYLIB_PATH must name the library"
    );
    if !found {
        println!("{test} skipped: ORT_DYLIB_PATH does not name the ONNX Runtime library");
    }
    found
}

fn model(root: &Path, words: &[&str]) -> Output {
    let dir = root.join("data");
    let mut arguments = vec!["model"];
    arguments.extend_from_slice(words);
    arguments.extend(["--in", dir.to_str().unwrap()]);
    common::run(&arguments)
}

fn added(root: &Path, source: &str) {
    let output = model(root, &["add", source, "toy"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn vadd_text(text: &str, element: &str) -> Command {
    command(&["VADD", "docs", "TEXT", text, element])
}

fn floats(value: &Value) -> Vec<f64> {
    value.items().iter().map(Value::number).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn embed(client: &mut Client, texts: &[&str]) -> Vec<Vec<f64>> {
    let mut words = vec!["VEMBED", "MODEL", "toy"];
    words.extend_from_slice(texts);
    client.call(&command(&words)).items().iter().map(floats).collect()
}

#[test]
fn a_model_is_added_listed_verified_and_removed() {
    let root = tempfile::tempdir().unwrap();
    added(root.path(), TOY);
    let printed = |output: Output| String::from_utf8(output.stdout).unwrap();
    let list = printed(model(root.path(), &["list"]));
    assert!(list.contains("builtin") && list.contains("toy") && list.contains("32 dimensions"), "{list}");
    assert!(printed(model(root.path(), &["verify"])).contains("toy is sound"));
    assert!(!model(root.path(), &["add", TOY, "toy"]).status.success(), "not twice");
    assert!(!model(root.path(), &["add", TOY, "../toy"]).status.success());
    let graph = root.path().join("data/models/toy/model.onnx");
    let mut bytes = fs::read(&graph).unwrap();
    bytes[1000] ^= 1;
    fs::write(&graph, bytes).unwrap();
    let refused = model(root.path(), &["verify"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("model.onnx"));
    assert!(model(root.path(), &["remove", "toy"]).status.success());
    assert!(!model(root.path(), &["remove", "toy"]).status.success());
    assert!(!model(root.path(), &["frob"]).status.success());
}

#[test]
fn without_the_library_the_server_says_what_gets_it_and_goes_on() {
    let root = tempfile::tempdir().unwrap();
    added(root.path(), TOY);
    let server = Server::start_in(root.path(), &["--onnxruntime-path", "/nonexistent/libonnxruntime.so"]);
    let mut client = server.connect();
    assert_eq!(client.ask("VCREATE docs MODEL toy"), "+OK");
    for refused in [vadd_text("a cat", "cat"), words("VEMBED MODEL toy text"), words("VMODEL LOAD toy")] {
        let error = client.call(&refused).text();
        assert!(error.starts_with("MODELDOWN toy: ") && error.contains("scripts/fetch-model.sh"), "{error}");
    }
    assert_eq!(client.ask("VCARD docs"), ":0");
    assert_eq!(client.call(&words("VEMBED text")).items().len(), 1, "the built-in model works");
}

#[test]
fn vectors_are_those_of_an_independent_calculation() {
    if !has_runtime("vectors_are_those_of_an_independent_calculation") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    added(root.path(), TOY);
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    let golden = fs::read_to_string(Path::new(TOY).join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let golden = golden.as_array().unwrap();
    let texts: Vec<&str> = golden.iter().map(|entry| entry["text"].as_str().unwrap()).collect();
    let vectors = embed(&mut client, &texts);
    for (entry, vector) in golden.iter().zip(&vectors) {
        let wanted: Vec<f64> =
            entry["vector"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        // A token more or less, or one of padding, would show.
        assert!(cosine(vector, &wanted) > 0.999_999, "{}", entry["text"]);
    }
    // Many texts of many lengths are run in batches: the vectors are the same as one by one.
    let many: Vec<String> = (0..200).map(|at| "the red car ".repeat(1 + at % 9) + "dog sea").collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let together = embed(&mut client, &many);
    for at in [0, 7, 8, 100] {
        client.ask("CONFIG SET embedding-cache-size 0");
        assert!(cosine(&together[at], &embed(&mut client, &[many[at]])[0]) > 0.999_999);
    }
}

#[test]
fn texts_are_stored_and_searched_with_the_collections_own_model() {
    if !has_runtime("texts_are_stored_and_searched_with_the_collections_own_model") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    added(root.path(), TOY);
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    assert_eq!(client.ask("VCREATE docs MODEL toy"), "+OK");
    for text in ["the red car", "a cat and a dog", "sun moon and sea"] {
        assert_eq!(client.call(&vadd_text(text, text)), Value::Boolean(true));
    }
    let found = client.call(&command(&["VSIM", "docs", "TEXT", "the red car", "COUNT", "1"]));
    assert_eq!(found.items()[0].text(), "the red car");
    assert_eq!(client.call(&words("VINFO docs")).field("model").text(), "toy");
    drop(server);

    // Another model of the same name: its vectors do not belong into this collection.
    assert!(model(root.path(), &["remove", "toy"]).status.success());
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    for file in ["model.onnx", "tokenizer.json"] {
        fs::copy(Path::new(TOY).join(file), other.join(file)).unwrap();
    }
    let settings =
        "kind = \"onnx\"\ndims = 32\nmax_tokens = 64\npooling = \"in-graph\"\nquery_prefix = \"the \"\n";
    fs::write(other.join("model.toml"), settings).unwrap();
    added(root.path(), other.to_str().unwrap());
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    for refused in [vadd_text("a boat", "boat"), command(&["VSIM", "docs", "TEXT", "a boat"])] {
        let error = client.call(&refused).text();
        assert!(error.contains("made with model 'toy'"), "{error}");
    }
    assert_eq!(client.ask("VCARD docs"), ":3");
    let with_prefix = client.call(&words("VEMBED MODEL toy ROLE QUERY cat"));
    let plain = embed(&mut client, &["the cat"]);
    assert!(cosine(&floats(&with_prefix.items()[0]), &plain[0]) > 0.999_999, "a query gets its prefix");
}

#[test]
fn a_damaged_model_is_not_run() {
    let root = tempfile::tempdir().unwrap();
    added(root.path(), TOY);
    fs::write(root.path().join("data/models/toy/model.onnx"), b"not a graph").unwrap();
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect();
    let error = client.call(&words("VEMBED MODEL toy text")).text();
    assert!(error.starts_with("MODELDOWN toy: model.onnx is not the file"), "{error}");
    fs::write(root.path().join("data/models/toy/model.toml"), b"kind = 'frob'").unwrap();
    assert!(client.ask("VMODEL UNLOAD toy").starts_with(':'));
    let error = client.call(&words("VEMBED MODEL toy text")).text();
    assert!(error.starts_with("MODELDOWN toy: model.toml cannot be read"), "{error}");
}

/// The scores of a cross-encoder for a query and texts.
fn scores(service: &Embedding, query: &str, texts: &[&str]) -> Vec<Result<f32, EmbedError>> {
    let model = service.registry.get("cross").unwrap();
    let text = |text: &&str| Text {
        model: Arc::clone(&model),
        role: Role::Answer(query.into()),
        text: (*text).into(),
        payer: Arc::default(),
        realm: 0,
    };
    let answers = service.embed(texts.iter().map(text).collect()).blocking_recv().unwrap();
    answers.into_iter().map(|answer| answer.map(|score| score[0])).collect()
}

#[test]
fn a_cross_encoder_scores_as_an_independent_calculation_does() {
    if !has_runtime("a_cross_encoder_scores_as_an_independent_calculation_does") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let output = model(root.path(), &["add", TOY_CROSS, "cross"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let config = Config { dir: root.path().join("data"), ..Config::default() };
    let service = Embedding::start(&config, &Arc::default());
    let golden = fs::read_to_string(Path::new(TOY_CROSS).join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    for pair in golden.as_array().unwrap() {
        let (query, text) = (pair["query"].as_str().unwrap(), pair["text"].as_str().unwrap());
        let wanted = pair["score"].as_f64().unwrap();
        let found = scores(&service, query, &[text]).remove(0).unwrap();
        assert!((f64::from(found) - wanted).abs() < 1e-4, "{query}, {text}: {found}, not {wanted}");
    }
    // Many texts of many lengths are run in batches: the scores are the same as one by one.
    let many: Vec<String> = (0..100).map(|at| "the red car ".repeat(1 + at % 9) + "dog sea").collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let together = scores(&service, "fast dog", &many);
    service.configure(&Config { embedding_cache_size_bytes: 0, ..config });
    for at in [0, 7, 8, 50] {
        let alone = scores(&service, "fast dog", &[many[at]]).remove(0).unwrap();
        assert!((together[at].clone().unwrap() - alone).abs() < 1e-4);
    }
}

#[test]
fn a_search_is_ranked_again_by_what_a_cross_encoder_says() {
    if !has_runtime("a_search_is_ranked_again_by_what_a_cross_encoder_says") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    assert!(model(root.path(), &["add", TOY_CROSS, "cross"]).status.success());
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    let golden = fs::read_to_string(Path::new(TOY_CROSS).join("golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let query = golden[0]["query"].as_str().unwrap();
    let pairs = golden.as_array().unwrap().iter().filter(|pair| pair["query"] == query);
    let mut expected: Vec<(f64, String)> = Vec::new();
    for (at, pair) in pairs.enumerate() {
        let (element, text) = (format!("e{at}"), pair["text"].as_str().unwrap());
        let line = ["VADD", "docs", "VALUES", "2", "1", &at.to_string(), &element, "SETTEXT", text];
        assert_eq!(client.call(&command(&line)), Value::Boolean(true));
        expected.push((pair["score"].as_f64().unwrap(), element));
    }
    assert!(!expected.is_empty());
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    // The vectors find everything; the words of the query are what is compared.
    let line = ["VSEARCH", "docs", "VECTOR", "VALUES", "2", "1", "0", "MATCH", query, "RERANK", "cross"];
    let found = client.call(&command(&line));
    let found: Vec<(f64, String)> = found
        .field("results")
        .items()
        .iter()
        .map(|hit| (hit.field("score").number(), hit.field("id").text()))
        .collect();
    assert_eq!(found.len(), expected.len());
    for ((score, element), (wanted, expected)) in found.iter().zip(&expected) {
        assert!((score - wanted).abs() < 1e-4 && element == expected, "{found:?}");
    }
}

#[test]
fn a_cross_encoder_does_not_embed() {
    let root = tempfile::tempdir().unwrap();
    assert!(model(root.path(), &["add", TOY_CROSS, "cross"]).status.success());
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    assert_eq!(client.call(&words("VMODEL INFO cross")).field("kind").text(), "cross-encoder");
    for refused in ["VEMBED MODEL cross text", "VCREATE docs MODEL cross", "VMODEL DEFAULT cross"] {
        let error = client.ask(refused);
        assert!(error.contains("'cross' scores answers, it does not embed"), "{refused}: {error}");
    }
    assert_eq!(client.ask("EXISTS docs"), ":0");
}

#[test]
fn a_collection_made_in_a_transaction_embeds_with_its_own_model() {
    if !has_runtime("a_collection_made_in_a_transaction_embeds_with_its_own_model") {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    added(root.path(), TOY);
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    let replies = client.pipeline(&[
        words("MULTI"),
        words("VCREATE docs MODEL toy"),
        vadd_text("the red car", "car"),
        command(&["VADD", "other", "TEXT", "the red car", "car"]),
        command(&["VSIM", "docs", "TEXT", "the red car", "COUNT", "1"]),
        words("VCREATE docs MODEL builtin"),
        vadd_text("a dog", "dog"),
        words("EXEC"),
    ]);
    let body = replies[7].items();
    assert_eq!(body[1], Value::Boolean(true), "{body:?}");
    assert_eq!(body[3].items()[0].text(), "car");
    assert!(body[4].is_error(), "the key exists by then");
    assert_eq!(body[5], Value::Boolean(true), "{body:?}");
    assert_eq!(client.call(&words("VINFO docs")).field("model").text(), "toy");
    assert_eq!(client.call(&words("VINFO other")).field("model").text(), "builtin");
}
