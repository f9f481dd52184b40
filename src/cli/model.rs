//! `vecdis model`: the embedding models in a data folder.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::arguments::{Arguments, Subcommand};
use super::{CliError, print};
use crate::embed::registry::{FOLDER, Source};
use crate::embed::{Registry, install};

const DIR: (&str, &str) = ("--in", "DIR");

pub(super) const ADD: Subcommand = Subcommand {
    name: "model add",
    words: &["FOLDER", "NAME"],
    values: &[DIR],
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

pub(super) const LIST: Subcommand = Subcommand {
    name: "model list",
    words: &[],
    values: &[DIR],
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

fn list(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let mut text = String::new();
    for model in Registry::open(&arguments.value_path("--in")).all() {
        let (name, kind, hash) = (&model.id.name, model.kind(), model.id.short_hash());
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{name:<24} {kind:<8} {:>5} dimensions  {hash}  {}", model.dims, model.licence());
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
