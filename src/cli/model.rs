//! `vecdis model`: the models in a data folder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::CliError;
use crate::config::Config;
use crate::embed::registry::{FOLDER, Source};
use crate::embed::{Registry, install};

/// How the subcommand is used.
pub const USAGE: &str =
    "model takes [--dir DIR], then: add FOLDER [NAME] | list | remove NAME | verify [NAME]";

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct ModelCommand {
    /// The server's data folder.
    dir: PathBuf,
    verb: Verb,
}

#[derive(Debug, PartialEq, Eq)]
enum Verb {
    Add { folder: PathBuf, name: String },
    List,
    Remove(String),
    Verify(Option<String>),
}

impl ModelCommand {
    /// Reads the words behind `model`; nothing if they make no sense.
    pub fn parse(words: &[String]) -> Option<Self> {
        let (dir, words) = match words {
            [option, dir, rest @ ..] if option == "--dir" => (PathBuf::from(dir), rest),
            rest => (Config::default().dir, rest),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let verb = match words[..] {
            ["add", folder] => Verb::Add { folder: folder.into(), name: name_of(Path::new(folder))? },
            ["add", folder, name] => Verb::Add { folder: folder.into(), name: name.to_owned() },
            ["list"] => Verb::List,
            ["remove", name] => Verb::Remove(name.to_owned()),
            ["verify"] => Verb::Verify(None),
            ["verify", name] => Verb::Verify(Some(name.to_owned())),
            _ => return None,
        };
        Some(Self { dir, verb })
    }

    /// Does it, and gives what is to be printed.
    ///
    /// # Errors
    /// What is missing or wrong.
    pub fn run(self) -> Result<String, CliError> {
        let models = self.dir.join(FOLDER);
        match self.verb {
            Verb::Add { folder, name } => {
                let manifest = install::add(&models, &folder, &name).map_err(CliError::Model)?;
                Ok(format!(
                    "added '{name}': {} dimensions, {} tokens. VMODEL DEFAULT {name} makes it the default\n",
                    manifest.dims, manifest.max_tokens
                ))
            }
            Verb::List => Ok(list(&Registry::open(&self.dir))),
            Verb::Remove(name) => {
                install::remove(&models, &name).map_err(CliError::Model)?;
                Ok(format!("removed '{name}'\n"))
            }
            Verb::Verify(name) => verify(&Registry::open(&self.dir), name.as_deref()),
        }
    }
}

/// The name a folder's model gets by default.
fn name_of(folder: &Path) -> Option<String> {
    Some(folder.canonicalize().ok().as_deref().unwrap_or(folder).file_name()?.to_str()?.to_owned())
}

fn list(registry: &Registry) -> String {
    let mut text = String::new();
    for model in registry.all() {
        let (name, kind, hash) = (&model.id.name, model.kind(), model.id.short_hash());
        // Writing to a string cannot fail.
        let _ =
            writeln!(text, "{name:<24} {kind:<8} {:>5} dimensions  {hash}  {}", model.dims, model.licence());
    }
    text
}

fn verify(registry: &Registry, name: Option<&str>) -> Result<String, CliError> {
    let models = match name {
        None => registry.all(),
        Some(name) => vec![registry.get(name).map_err(|error| CliError::Model(error.to_string()))?],
    };
    let mut text = String::new();
    for model in models {
        if let Source::Folder(folder, manifest) = &model.source {
            manifest
                .verify(folder)
                .map_err(|what| CliError::Model(format!("'{}' is damaged: {what}", model.id.name)))?;
        }
        let _ = writeln!(text, "{} is sound", model.id.name);
    }
    Ok(text)
}
