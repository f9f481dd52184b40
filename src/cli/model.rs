//! `vecdis model`: the embedding models in a data folder.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::arguments::{Arguments, Subcommand};
use super::progress::Progress;
use super::{CliError, print};
use crate::embed::registry::{FOLDER, Source};
use crate::embed::{Registry, hub, install};

const DIR: (&str, &str) = ("--in", "DIR");

pub(super) const ADD: Subcommand = Subcommand {
    name: "model add",
    words: &["FOLDER", "NAME"],
    values: &[DIR],
    optional: &[],
    flags: &[],
    summary: "add an embedding model to a data folder",
    text: "FOLDER has an ONNX file and a tokenizer.json, as the Hugging Face hub has them. What the model is stands in its
config.json, or in a model.toml: kind = \"onnx\", dims, max_tokens, pooling (in-graph, mean or cls), normalise, query_prefix,
document_prefix, licence.

A provider that embeds is a model.toml and nothing else (FOLDER may be that file): kind = \"remote\", dims, max_tokens, and a
table [remote] with provider (openai, cohere, tei or hugging-face), url, model, key_env or key_file, deadline_s (30),
batch_texts and request_dims. Keys stay where they are: they are not copied, logged or shown.

The files are copied to DIR/models/NAME with their hashes. A running server finds the model by itself.
",
    failure_code: 1,
    run: add,
};

pub(super) const PULL: Subcommand = Subcommand {
    name: "model pull",
    words: &["MODEL"],
    values: &[DIR],
    optional: &[("--as", "NAME"), ("--from", "URL")],
    flags: &[],
    summary: "fetch an embedding model from the Hugging Face hub into a data folder",
    text: "MODEL is one of these, at a revision and with hashes that are built in:

  minilm           sentence-transformers/all-MiniLM-L6-v2, fp32, 90 MB
  minilm-int8      the same in 8 bits, 23 MB
  bge-small-en     BAAI/bge-small-en-v1.5, fp32, 133 MB
  ms-marco-minilm  cross-encoder/ms-marco-MiniLM-L6-v2, a cross-encoder, fp32, 91 MB

or OWNER/REPO[@REVISION] with an ONNX file and a tokenizer.json: then every file must have the hash that the hub gives for
it. NAME is what the model is called here; URL another hub of the same layout. An attempt that failed goes on where it was.

Running it takes the ONNX Runtime library: see scripts/fetch-runtime.sh, or onnxruntime-path.
",
    failure_code: 1,
    run: pull,
};

pub(super) const LIST: Subcommand = Subcommand {
    name: "model list",
    words: &[],
    values: &[DIR],
    optional: &[],
    flags: &[],
    summary: "list the embedding models of a data folder",
    text: "Prints a line for each: name, kind, dimensions, the first digits of its hash, licence.\n",
    failure_code: 1,
    run: list,
};

pub(super) const REMOVE: Subcommand = Subcommand {
    name: "model remove",
    words: &["NAME"],
    values: &[DIR],
    optional: &[],
    flags: &[],
    summary: "remove an embedding model from a data folder",
    text: "Collections that were made with it keep their vectors; texts can be added again when it is there again.\n",
    failure_code: 1,
    run: remove,
};

pub(super) const VERIFY: Subcommand = Subcommand {
    name: "model verify",
    words: &[],
    values: &[DIR],
    optional: &[],
    flags: &[],
    summary: "compare the files of the embedding models with their hashes",
    text: "Stops at the first file that is missing or is not the one that was added.\n",
    failure_code: 1,
    run: verify,
};

fn add(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let models = arguments.value_path("--in").join(FOLDER);
    let name = arguments.word(1);
    let manifest = install::add(&models, &arguments.path(0), name).map_err(CliError::Model)?;
    let (dims, tokens) = (manifest.dims, manifest.max_tokens);
    print(&format!(
        "added {name}: {dims} dimensions, {tokens} tokens; VMODEL DEFAULT {name} makes it the default\n"
    ))
}

fn pull(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let models = arguments.value_path("--in").join(FOLDER);
    let plan = hub::plan(arguments.value("--from").unwrap_or(hub::HUB), arguments.word(0));
    let plan = plan.map_err(CliError::Model)?;
    let name = arguments.value("--as").unwrap_or(&plan.name);
    let progress = Progress::new("fetching", plan.total_bytes);
    let manifest = install::pull(&models, &plan, name, &|bytes| progress.set(bytes));
    drop(progress);
    let (manifest, origin) = (manifest.map_err(CliError::Model)?, &plan.origin);
    print(&format!("added {name} ({origin}): {} dimensions, {} tokens\n", manifest.dims, manifest.max_tokens))
}

fn list(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let mut text = String::new();
    for model in Registry::open(&arguments.value_path("--in")).all() {
        let (name, kind, hash) = (&model.id.name, model.kind(), model.id.short_hash());
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{name:<24} {kind:<13} {:>5} dimensions  {hash}  {}", model.dims, model.licence());
    }
    print(&text)
}

fn remove(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let name = arguments.word(0);
    install::remove(&arguments.value_path("--in").join(FOLDER), name).map_err(CliError::Model)?;
    print(&format!("removed {name}\n"))
}

fn verify(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let mut text = String::new();
    for model in Registry::open(&arguments.value_path("--in")).all() {
        if let Source::Folder(folder, manifest) = &model.source {
            let damaged = |what| CliError::Model(format!("{} is damaged: {what}", model.id.name));
            manifest.verify(folder).map_err(damaged)?;
        }
        let _ = writeln!(text, "{} is sound", model.id.name);
    }
    print(&text)
}
