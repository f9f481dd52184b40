//! Remote embedding models, against a provider that misbehaves in every way it can.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::http::{Asked, Http, answer};
use common::{Command, Server, Value, command, words};
use serde_json::json;

const KEY: &str = "sk-very-secret-0123456789";
const DIMS: usize = 4;

/// Adds a remote model with these lines in its `[remote]` table.
fn add(root: &Path, name: &str, lines: &str) {
    let file = root.join(format!("{name}.toml"));
    let text = format!("kind = 'remote'\ndims = {DIMS}\nmax_tokens = 512\n[remote]\n{lines}\n");
    fs::write(&file, text).unwrap();
    let data = root.join("data");
    let output = common::run(&["model", "add", file.to_str().unwrap(), name, "--in", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn openai(http: &Http, more: &str) -> String {
    format!("provider = 'openai'\nmodel = 'm'\nurl = '{}/v1'\n{more}", http.url())
}

/// What stands for a text in the fake's vectors: how long it is, and its first byte.
fn vector(text: &str) -> [f64; DIMS] {
    [1.0, text.len() as f64, f64::from(text.as_bytes()[0]), 2.0]
}

/// The right answer to a request in OpenAI's format, last text first.
fn good(asked: &Asked) -> Vec<u8> {
    let body = asked.json();
    let texts = body["input"].as_array().unwrap().iter().enumerate();
    let mut data: Vec<_> = texts
        .map(|(index, text)| json!({"index": index, "embedding": vector(text.as_str().unwrap())}))
        .collect();
    data.reverse();
    answer("200 OK", &[], json!({"data": data, "usage": {"total_tokens": 5}}).to_string().as_bytes())
}

fn vembed(model: &str, texts: &[&str]) -> Command {
    let mut words = vec!["VEMBED", "MODEL", model];
    words.extend_from_slice(texts);
    command(&words)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.items().iter().map(Value::number).collect()
}

#[test]
fn texts_are_embedded_by_the_provider_in_batches_and_order() {
    let root = tempfile::tempdir().unwrap();
    let http = Http::start(good);
    fs::write(root.path().join("key"), format!("{KEY}\n")).unwrap();
    let key_file = root.path().join("key");
    add(root.path(), "far", &openai(&http, &format!("batch_texts = 3\nkey_file = {key_file:?}")));
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    let texts: Vec<String> = (0..10).map(|at| format!("{at} {}", "x".repeat(10 - at))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let reply = client.call(&vembed("far", &texts));
    for (text, found) in texts.iter().zip(reply.items()) {
        assert_eq!(numbers(found), vector(text), "{text}");
    }
    let asked = http.asked();
    assert_eq!(asked.len(), 4, "ten texts, three a request");
    for one in &asked {
        assert_eq!(one.path, "/v1/embeddings");
        assert_eq!(one.header("authorization"), Some(&*format!("Bearer {KEY}")));
        assert_eq!(one.json()["model"], "m");
        assert!(one.json()["input"].as_array().unwrap().len() <= 3);
        assert!(one.json().get("dimensions").is_none());
    }
    // Collections, searches and the cache work as with any model.
    assert_eq!(client.ask("VCREATE docs MODEL far"), "+OK");
    assert_eq!(client.call(&command(&["VADD", "docs", "TEXT", texts[0], "a"])), Value::Boolean(true));
    assert_eq!(client.call(&command(&["VSIM", "docs", "TEXT", texts[0]])).items()[0].text(), "a");
    assert_eq!(client.call(&words("VMODEL INFO far")).field("kind").text(), "remote");
    assert!(client.call(&vembed("far", &["  "])).text().contains("no word"), "nothing is sent");
    assert_eq!(http.asked().len(), 5, "the text as a document is known, as a query it is asked for");
}

#[test]
fn other_providers_are_asked_in_their_formats() {
    let root = tempfile::tempdir().unwrap();
    let http = Http::start(|asked| {
        let body = asked.json();
        let vectors = |texts: &serde_json::Value| -> Vec<_> {
            texts.as_array().unwrap().iter().map(|text| vector(text.as_str().unwrap())).collect()
        };
        let found = match asked.path.as_str() {
            "/v2/embed" => json!({"embeddings": {"float": vectors(&body["texts"])}}),
            _ => json!(vectors(&body["inputs"])),
        };
        answer("200 OK", &[], found.to_string().as_bytes())
    });
    let url = http.url();
    add(root.path(), "cohere", &format!("provider = 'cohere'\nmodel = 'c'\nurl = '{url}'"));
    add(root.path(), "tei", &format!("provider = 'tei'\nurl = '{url}'"));
    add(root.path(), "hf", &format!("provider = 'hugging-face'\nmodel = 'o/n'\nurl = '{url}'"));
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    for model in ["cohere", "tei", "hf"] {
        let reply = client.call(&vembed(model, &["one", "three"]));
        assert_eq!(numbers(&reply.items()[1]), vector("three"), "{model}: {reply:?}");
    }
    let paths: Vec<String> = http.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, ["/v2/embed", "/embed", "/models/o/n/pipeline/feature-extraction"]);
}

#[test]
fn what_may_pass_is_tried_again_and_the_provider_says_when() {
    let root = tempfile::tempdir().unwrap();
    let tries = AtomicUsize::new(0);
    let http = Http::start(move |asked| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => answer("429 Too Many Requests", &[("retry-after", "1")], b"{}"),
        1 => answer("503 Service Unavailable", &[], b"overloaded"),
        2 => b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{\"data\"".to_vec(),
        _ => good(asked),
    });
    add(root.path(), "far", &openai(&http, ""));
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    let began = std::time::Instant::now();
    let reply = client.call(&vembed("far", &["text"]));
    assert_eq!(numbers(&reply.items()[0]), vector("text"));
    assert!(began.elapsed() >= Duration::from_secs(1), "as long as retry-after says");
    assert_eq!(http.asked().len(), 4);
}

#[test]
fn a_limit_that_is_used_up_holds_the_next_request() {
    let root = tempfile::tempdir().unwrap();
    let http = Http::start(|asked| {
        let bytes = String::from_utf8(good(asked)).unwrap();
        let limit =
            "x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 20s\r\nconnection: close";
        bytes.replace("connection: close", limit).into_bytes()
    });
    add(root.path(), "far", &openai(&http, "deadline_s = 5"));
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    assert!(!client.call(&vembed("far", &["one"])).is_error());
    let error = client.call(&vembed("far", &["two"])).text();
    assert!(error.starts_with("MODELDOWN far") && error.contains("rate limit"), "{error}");
    assert_eq!(http.asked().len(), 1, "the second was not sent");
}

/// A provider's answer that is wrong, what the error says of it, and how often it is asked.
type Wrong = (&'static str, Vec<u8>, &'static str, usize);

fn wrong_answers() -> Vec<Wrong> {
    let ok = |body: &str| answer("200 OK", &[], body.as_bytes());
    let data = |items: &str| ok(&format!("{{\"data\": [{items}]}}"));
    let one = r#"{"index": 0, "embedding": [1, 2, 3, 4]}"#;
    let key = format!("{{\"error\": {{\"message\": \"bad key {KEY}\"}}}}");
    let elsewhere = ("location", "http://127.0.0.1:1/");
    vec![
        ("json", ok("{\"data\": ["), "does not read", 1),
        ("nothing", ok(""), "does not read", 1),
        ("html", ok("<html>"), "does not read", 1),
        ("count", data(&format!("{one},{}", one.replace("0,", "1,"))), "2 vectors for 1", 1),
        ("none", data(""), "0 vectors for 1", 1),
        ("order", data(&one.replace("0,", "7,")), "indices", 1),
        ("dims", data(r#"{"index": 0, "embedding": [1, 2]}"#), "2 dimensions", 1),
        ("nan", data(r#"{"index": 0, "embedding": [1, NaN, 3, 4]}"#), "does not read", 1),
        ("null", data(r#"{"index": 0, "embedding": [1, null, 3, 4]}"#), "does not read", 1),
        ("infinite", data(r#"{"index": 0, "embedding": [1, 1e300, 3, 4]}"#), "finite", 1),
        ("huge", ok(&" ".repeat(3 << 20)), "more than", 1),
        ("refused", answer("400 Bad Request", &[], b"{\"error\":\"too long\"}"), "400: too long", 1),
        ("redirect", answer("302 Found", &[elsewhere], b""), "redirects are not followed", 1),
        ("moved", answer("308 Permanent Redirect", &[elsewhere], b""), "redirects are not followed", 1),
        ("unknown", answer("401 Unauthorized", &[], key.as_bytes()), "401: bad key ***", 1),
        ("missing", answer("404 Not Found", &[], b"no such model"), "404: no such model", 1),
        ("broken", answer("500 Oops", &[("retry-after", "0")], b"oops"), "500: oops", 4),
        ("later", answer("429 Slow", &[("retry-after", "100")], b"slow down"), "429: slow down", 1),
        ("noise", b"this is not HTTP\r\n\r\n".to_vec(), "cannot be asked", 4),
    ]
}

#[test]
fn a_provider_that_fails_is_named_stores_nothing_and_never_tells_the_key() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("key"), KEY).unwrap();
    let key_file = root.path().join("key");
    let servers: Vec<(Wrong, Http)> = wrong_answers()
        .into_iter()
        .map(|wrong| {
            let bytes = wrong.1.clone();
            let http = Http::start(move |_| bytes.clone());
            add(root.path(), wrong.0, &openai(&http, &format!("deadline_s = 60\nkey_file = {key_file:?}")));
            (wrong, http)
        })
        .collect();
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    for ((name, _, said, times), http) in &servers {
        assert_eq!(client.ask(&format!("VCREATE {name} MODEL {name}")), "+OK");
        let error = client.call(&command(&["VADD", name, "TEXT", "text", "e"])).text();
        assert!(error.contains(name) && error.contains(said), "{name}: {error}");
        assert_eq!(client.ask(&format!("VCARD {name}")), ":0", "nothing is stored");
        assert_eq!(http.asked().len(), *times, "{name}");
    }
    for shown in ["INFO everything", "CONFIG GET *", "VMODEL LIST", "VMODEL INFO json"] {
        assert!(!format!("{:?}", client.call(&words(shown))).contains(KEY), "{shown}");
    }
    assert!(!server.output().contains(KEY));
}

#[test]
fn a_provider_that_is_gone_or_slow_keeps_nobody_else_waiting() {
    let root = tempfile::tempdir().unwrap();
    // Requests to the slow one are held until the test lets go.
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let slow = Http::start(move |asked| {
        let _ = held.lock().unwrap().recv_timeout(common::WAIT_MAX);
        good(asked)
    });
    add(root.path(), "slow", &openai(&slow, "deadline_s = 60"));
    add(
        root.path(),
        "late",
        &openai(
            &Http::start(|_| {
                std::thread::sleep(Duration::from_secs(5));
                Vec::new()
            }),
            "deadline_s = 1",
        ),
    );
    add(root.path(), "gone", "provider = 'tei'\nurl = 'http://127.0.0.1:1'\ndeadline_s = 5");
    let server = Server::start_in(root.path(), &["--embedding-threads", "1"]);
    let address = server.address;
    let waiting: Vec<_> = (0..8)
        .map(|at| {
            std::thread::spawn(move || {
                let mut client = common::Client::connect(address).unwrap();
                client.hello(3);
                let text = format!("text {at}");
                (numbers(&client.call(&vembed("slow", &[&text])).items()[0]), vector(&text).to_vec())
            })
        })
        .collect();
    while slow.asked().is_empty() {
        std::thread::yield_now();
    }
    let mut client = server.connect_resp3();
    assert_eq!(client.call(&vembed("builtin", &["a text"])).items().len(), 1);
    let error = client.call(&vembed("late", &["a text"])).text();
    assert!(error.starts_with("MODELDOWN late") && error.contains("in time"), "{error}");
    let error = client.call(&vembed("gone", &["a text"])).text();
    assert!(error.starts_with("MODELDOWN gone") && error.contains("tried 4 times"), "{error}");
    let again = client.call(&vembed("gone", &["another"])).text();
    assert_eq!(again, error, "answered at once: the provider is left alone for a moment");
    for _ in 0..8 {
        release.send(()).unwrap();
    }
    for thread in waiting {
        let (found, wanted) = thread.join().unwrap();
        assert_eq!(found, wanted);
    }
}

#[test]
fn a_missing_key_is_said_with_where_it_is_looked_for() {
    let root = tempfile::tempdir().unwrap();
    add(root.path(), "far", "provider = 'openai'\nmodel = 'm'\nkey_env = 'VECDIS_TEST_NO_KEY'");
    let server = Server::start_in(root.path(), &[]);
    let error = server.connect().call(&vembed("far", &["text"])).text();
    assert!(error.starts_with("MODELDOWN far") && error.contains("VECDIS_TEST_NO_KEY"), "{error}");
}

#[test]
fn a_document_with_a_chunk_that_cannot_be_embedded_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let http = Http::start(|asked| match String::from_utf8_lossy(&asked.body).contains("unwanted") {
        true => answer("400 Bad Request", &[], b"{}"),
        false => good(asked),
    });
    add(root.path(), "far", &openai(&http, "batch_texts = 1"));
    let server = Server::start_in(root.path(), &[]);
    let mut client = server.connect_resp3();
    assert_eq!(client.ask("VCREATE docs MODEL far"), "+OK");
    let add = |uri: &str, text: &str| command(&["VDOC", "ADD", "docs", uri, text, "CHUNK", "4"]);
    assert_eq!(client.call(&add("a", "first part\n\nsecond part here")).number(), 2.0);
    let before = client.call(&words("VDOC GET docs a CHUNKS"));
    for uri in ["a", "b"] {
        let refused = client.call(&add(uri, "a new part\n\nthe unwanted part\n\nthe third part"));
        assert!(refused.is_error(), "{refused:?}");
    }
    assert_eq!(client.call(&words("VDOC GET docs a CHUNKS")), before);
    assert_eq!(client.call(&words("VDOC GET docs b")), Value::Null);
    assert_eq!(client.call(&words("VCARD docs")).number(), 2.0);
    // Its tokens are counted here, and its vectors are the provider's.
    let found = client.call(&command(&["VGET", "docs", "a#0", "WITHTEXT", "WITHVECTOR"]));
    assert_eq!(found.field("text").text(), "first part\n\n");
    assert_eq!(client.call(&words("VINFO docs")).field("documents").number(), 1.0);
}
