//! `vecdis model pull`, against a hub that has good files and bad days.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::http::{Asked, Http, answer};
use ring::digest;
use serde_json::json;

const TOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/toy_model");
const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

type Files = BTreeMap<&'static str, Vec<u8>>;

/// The files of a repository: the toy model's.
fn files() -> Files {
    let toy = |name: &str| fs::read(Path::new(TOY).join(name)).unwrap();
    BTreeMap::from([
        ("onnx/model.onnx", toy("model.onnx")),
        ("tokenizer.json", toy("tokenizer.json")),
        ("config.json", toy("config.json")),
        ("README.md", b"not needed".to_vec()),
    ])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the hub says of the files: the graph is a large file, with a sha256.
fn listing(files: &Files) -> Vec<u8> {
    let siblings: Vec<_> = files
        .iter()
        .map(|(name, content)| {
            let git = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
            let git = hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &git).as_ref());
            let sha256 = hex(digest::digest(&digest::SHA256, content).as_ref());
            let lfs = name.ends_with(".onnx").then(|| json!({"sha256": sha256, "size": content.len()}));
            json!({"rfilename": name, "size": content.len(), "blobId": git, "lfs": lfs})
        })
        .collect();
    json!({"sha": REVISION, "siblings": siblings}).to_string().into_bytes()
}

/// The hub as it should be. Files lie elsewhere, behind a redirect; a part of one can be asked for.
fn good(asked: &Asked) -> Vec<u8> {
    let files = files();
    if asked.path == "/api/models/org/toy/revision/main?blobs=true" {
        return answer("200 OK", &[], &listing(&files));
    }
    if let Some(name) = asked.path.strip_prefix(&format!("/org/toy/resolve/{REVISION}/")) {
        return answer("302 Found", &[("location", &format!("/elsewhere/{name}"))], b"");
    }
    let Some(content) = asked.path.strip_prefix("/elsewhere/").and_then(|name| files.get(name)) else {
        return answer("404 Not Found", &[], b"");
    };
    match asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')) {
        Some(from) => answer("206 Partial Content", &[], &content[from.parse().unwrap()..]),
        None => answer("200 OK", &[], content),
    }
}

fn pull(root: &Path, http: &Http, model: &str) -> Output {
    let dir = root.join("data");
    common::run(&["model", "pull", model, "--in", dir.to_str().unwrap(), "--from", &http.url()])
}

fn error(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_pulled(root: &Path) -> bool {
    let dir = root.join("data");
    let output = common::run(&["model", "verify", "--in", dir.to_str().unwrap()]);
    String::from_utf8_lossy(&output.stdout).contains("toy is sound")
}

#[test]
fn a_model_of_the_hub_is_pulled_and_verified() {
    let root = tempfile::tempdir().unwrap();
    let http = Http::start(good);
    let output = pull(root.path(), &http, "org/toy");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains(REVISION) && printed.contains("32 dimensions"), "{printed}");
    assert!(is_pulled(root.path()));
    let models = root.path().join("data/models");
    let left: Vec<_> = fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["toy"], "nothing else stays");
    assert!(!models.join("toy/README.md").exists());
    assert!(error(&pull(root.path(), &http, "org/toy")).contains("already"), "not twice");
    assert!(error(&pull(root.path(), &http, "nosuch")).contains("minilm"), "names what is known");
    assert!(error(&pull(root.path(), &http, "org/other")).contains("404"));
}

#[test]
fn a_file_with_another_hash_is_not_taken() {
    for bad in ["onnx/model.onnx", "tokenizer.json"] {
        let root = tempfile::tempdir().unwrap();
        let http = Http::start(move |asked| {
            let mut bytes = good(asked);
            if asked.path.ends_with(bad) && asked.path.starts_with("/elsewhere") {
                *bytes.last_mut().unwrap() ^= 1;
            }
            bytes
        });
        let error = error(&pull(root.path(), &http, "org/toy"));
        assert!(error.contains(bad) && error.contains("hash"), "{error}");
        assert!(!is_pulled(root.path()));
    }
}

#[test]
fn a_download_that_breaks_off_goes_on_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let times = AtomicUsize::new(0);
    let http = Http::start(move |asked| {
        let mut bytes = good(asked);
        if asked.path == "/elsewhere/onnx/model.onnx" && times.fetch_add(1, Ordering::SeqCst) < 2 {
            bytes.truncate(bytes.len() / 2);
        }
        bytes
    });
    let output = pull(root.path(), &http, "org/toy");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_pulled(root.path()));
    let asked = http.asked();
    let graph = asked.iter().filter(|asked| asked.path == "/elsewhere/onnx/model.onnx");
    let ranges: Vec<Option<&str>> = graph.map(|asked| asked.header("range")).collect();
    assert!(ranges.len() == 3 && ranges[0].is_none() && ranges[1] < ranges[2], "{ranges:?}");
}

#[test]
fn what_an_attempt_that_failed_has_fetched_is_not_fetched_again() {
    let root = tempfile::tempdir().unwrap();
    let down = Arc::new(AtomicUsize::new(1));
    let is_down = Arc::clone(&down);
    let http = Http::start(move |asked| match asked.path.as_str() {
        "/elsewhere/tokenizer.json" if is_down.load(Ordering::SeqCst) == 1 => answer("403 No", &[], b""),
        _ => good(asked),
    });
    let said = error(&pull(root.path(), &http, "org/toy"));
    assert!(said.contains("tokenizer.json") && said.contains("403"), "{said}");
    assert!(!is_pulled(root.path()));
    down.store(0, Ordering::SeqCst);
    assert!(pull(root.path(), &http, "org/toy").status.success());
    let graph = http.asked().iter().filter(|asked| asked.path == "/elsewhere/onnx/model.onnx").count();
    assert_eq!(graph, 1);
}

#[test]
fn a_repository_without_what_is_needed_and_a_hub_that_lies_are_refused() {
    let refused = |change: fn(&mut serde_json::Value), wanted: &str| {
        let root = tempfile::tempdir().unwrap();
        let http = Http::start(move |asked| match asked.path.starts_with("/api/") {
            true => {
                let mut listing = serde_json::from_slice(&listing(&files())).unwrap();
                change(&mut listing);
                answer("200 OK", &[], listing.to_string().as_bytes())
            }
            false => good(asked),
        });
        let model = format!("org/toy@{REVISION}");
        let said = error(&pull(root.path(), &http, &model));
        assert!(said.contains(wanted), "{said}");
    };
    // The files by name: README.md, config.json, onnx/model.onnx, tokenizer.json.
    refused(|listing| listing["siblings"] = json!([]), "no onnx/model.onnx");
    refused(|listing| listing["siblings"][3]["rfilename"] = json!("x"), "no tokenizer.json");
    refused(|listing| listing["siblings"][3]["blobId"] = json!(""), "no hash of tokenizer.json");
    refused(|listing| listing["siblings"][2]["size"] = json!(10), "more bytes");
    refused(|listing| listing["sha"] = json!("f".repeat(40)), "not 0123456789");
    refused(|listing| listing["sha"] = json!("../.."), "no revision");
    refused(|listing| *listing = json!("nonsense"), "does not list");
    let root = tempfile::tempdir().unwrap();
    let http = Http::start(|_| answer("200 OK", &[], &vec![b' '; 20 << 20]));
    assert!(error(&pull(root.path(), &http, "org/toy")).contains("does not list"), "an endless listing");
}
