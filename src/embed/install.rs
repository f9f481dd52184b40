//! Models on disk: added from a folder, removed, verified.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::hub::Plan;
use super::manifest::{Kind, MANIFEST, Manifest, ModelFile, Pooling, hash_file};
use crate::config::is_model_name;

/// Bytes a `config.json` and its like may have.
const MAX_SETTINGS_BYTES: u64 = 1 << 20;
/// Tokens read where a model's folder does not say how many it was made for.
const DEFAULT_MAX_TOKENS: u64 = 512;

/// Adds the model in a folder (an ONNX file and `tokenizer.json`, as the Hugging Face hub has them) to those in `models`.
/// What it is stands in its `model.toml`, if it has one, else in `config.json` and the files of sentence-transformers.
/// A remote model is its `model.toml` and nothing else; that file itself may be given.
///
/// # Errors
/// What is missing or wrong, in words.
pub fn add(models: &Path, source: &Path, name: &str) -> Result<Manifest, String> {
    let target = check_name(models, name)?;
    let mut manifest = match (source.is_file(), source.join(MANIFEST).is_file()) {
        (true, _) => Manifest::read_file(source)?,
        (_, true) => Manifest::read(source)?,
        _ => {
            find_graph(source)?;
            settings(source)?
        }
    };
    let files = match manifest.kind {
        Kind::Onnx | Kind::CrossEncoder => {
            [find_graph(source)?, vec![source.join("tokenizer.json")]].concat()
        }
        Kind::Remote => Vec::new(),
    };
    let temporary = models.join(format!(".tmp-{name}"));
    let failed = |doing: &'static str| move |error: std::io::Error| format!("cannot {doing}: {error}");
    if temporary.exists() {
        fs::remove_dir_all(&temporary).map_err(failed("remove what is left of an earlier attempt"))?;
    }
    fs::create_dir_all(&temporary).map_err(failed("make the model's folder"))?;
    manifest.files.clear();
    for path in files {
        let file =
            path.file_name().and_then(|name| name.to_str()).ok_or("a file's name is not text")?.to_owned();
        let copy = temporary.join(&file);
        fs::copy(&path, &copy).map_err(|error| format!("{}: {error}", path.display()))?;
        let blake3 = hash_file(&copy).map_err(failed("read a copied file"))?;
        manifest.files.push(ModelFile { name: file, blake3 });
    }
    fs::write(temporary.join(MANIFEST), manifest.to_text()?).map_err(failed("write model.toml"))?;
    fs::rename(&temporary, &target).map_err(failed("put the model in its place"))?;
    Ok(manifest)
}

/// Fetches the files of a model and adds it under a name. They come into a folder beside the others, which stays for the
/// next attempt if this one fails.
///
/// # Errors
/// What is missing or wrong, in words.
pub fn pull(models: &Path, plan: &Plan, name: &str, progress: &dyn Fn(u64)) -> Result<Manifest, String> {
    check_name(models, name)?;
    let folder = models.join(format!(".pull-{name}"));
    plan.fetch(&folder, progress)?;
    let manifest = add(models, &folder, name)?;
    fs::remove_dir_all(&folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    Ok(manifest)
}

/// Whether a model can be added under a name, and where.
fn check_name(models: &Path, name: &str) -> Result<PathBuf, String> {
    if !is_model_name(name) {
        return Err(format!("'{name}' cannot be a model's name: letters, digits, '.', '_' and '-' only"));
    }
    let target = models.join(name);
    match target.exists() {
        true => Err(format!("there is a model '{name}' already: remove it first, or give another name")),
        false => Ok(target),
    }
}

/// Removes a model.
///
/// # Errors
/// When there is none of that name, or its files cannot be removed.
pub fn remove(models: &Path, name: &str) -> Result<(), String> {
    if !is_model_name(name) || !models.join(name).is_dir() {
        return Err(format!("there is no model '{name}'"));
    }
    fs::remove_dir_all(models.join(name)).map_err(|error| format!("cannot remove '{name}': {error}"))
}

/// The ONNX file of a folder, and the files of its weights if they lie beside it.
fn find_graph(source: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in [source.to_owned(), source.join("onnx")] {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        found.extend(entries.filter(|path| path.extension().is_some_and(|end| end == "onnx")));
    }
    let named = |path: &&PathBuf| path.file_name().is_some_and(|name| name == "model.onnx");
    let graph = match &found[..] {
        [] => return Err(format!("{} has no ONNX file", source.display())),
        [only] => only.clone(),
        several => {
            several.iter().find(named).cloned().ok_or("there are several ONNX files, none is model.onnx")?
        }
    };
    let beside = ["_data", ".data"].map(|end| PathBuf::from(format!("{}{end}", graph.display())));
    Ok(std::iter::once(graph).chain(beside.into_iter().filter(|path| path.is_file())).collect())
}

/// What a folder's own files say of a model.
fn settings(source: &Path) -> Result<Manifest, String> {
    let config = json(&source.join("config.json"))?.ok_or("config.json is missing, and so is model.toml")?;
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
    let sentence = json(&source.join("sentence_bert_config.json"))?.unwrap_or_default();
    let pooling = json(&source.join("1_Pooling").join("config.json"))?.unwrap_or_default();
    let cls = pooling.get("pooling_mode_cls_token").and_then(Value::as_bool) == Some(true);
    let architecture = config.pointer("/architectures/0").and_then(Value::as_str).unwrap_or_default();
    let scores = architecture.ends_with("ForSequenceClassification");
    let max_tokens = number(&sentence, "max_seq_length").or(number(&config, "max_position_embeddings"));
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Manifest {
        kind: if scores { Kind::CrossEncoder } else { Kind::Onnx },
        dims: match scores {
            true => 1,
            false => size(number(&config, "hidden_size").ok_or("config.json has no hidden_size")?),
        },
        max_tokens: size(max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)),
        pooling: match (scores, cls) {
            (true, _) => Pooling::InGraph,
            (_, true) => Pooling::Cls,
            _ => Pooling::Mean,
        },
        normalise: !scores,
        query_prefix: String::new(),
        document_prefix: String::new(),
        licence: String::new(),
        remote: None,
        files: Vec::new(),
    })
}

/// A JSON file, if there is one.
fn json(path: &Path) -> Result<Option<Value>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    match fs::metadata(path) {
        Err(_) => Ok(None),
        Ok(file) if file.len() > MAX_SETTINGS_BYTES => Err(unreadable(&"it is too long")),
        Ok(_) => {
            let text = fs::read(path).map_err(|error| unreadable(&error))?;
            serde_json::from_slice(&text).map(Some).map_err(|error| unreadable(&error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_the_hub_becomes_a_model_and_goes_again() {
        let root = tempfile::tempdir().unwrap();
        let (source, models) = (root.path().join("source"), root.path().join("models"));
        fs::create_dir_all(source.join("onnx")).unwrap();
        assert!(add(&models, &source, "m").unwrap_err().contains("no ONNX file"));
        fs::write(source.join("onnx/model.onnx"), b"graph").unwrap();
        fs::write(source.join("onnx/model_q.onnx"), b"another").unwrap();
        assert!(add(&models, &source, "m").unwrap_err().contains("config.json"));
        fs::write(source.join("config.json"), r#"{"hidden_size": 48, "max_position_embeddings": 512}"#)
            .unwrap();
        fs::write(source.join("sentence_bert_config.json"), r#"{"max_seq_length": 256}"#).unwrap();
        assert!(add(&models, &source, "m").unwrap_err().contains("tokenizer.json"));
        fs::write(source.join("tokenizer.json"), b"{}").unwrap();
        let manifest = add(&models, &source, "m").unwrap();
        assert_eq!((manifest.dims, manifest.max_tokens, manifest.pooling), (48, 256, Pooling::Mean));
        Manifest::read(&models.join("m")).unwrap().verify(&models.join("m")).unwrap();
        assert!(add(&models, &source, "m").unwrap_err().contains("already"));
        assert!(add(&models, &source, "../m").is_err());
        remove(&models, "m").unwrap();
        assert!(remove(&models, "m").is_err() && remove(&models, "..").is_err());
    }
}
