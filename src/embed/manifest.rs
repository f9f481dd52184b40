//! `model.toml`: what a model in a folder is, and the hashes of its files.

use std::fs::File;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::remote::Endpoint;
use super::{Failure, Role};

/// Name of the file.
pub const MANIFEST: &str = "model.toml";
/// Bytes a `model.toml` may have.
const MAX_MANIFEST_BYTES: u64 = 64 << 10;
/// Dimensions and tokens a model may have.
const MAX_DIMS: usize = 65_536;
const MAX_TOKENS: usize = 1 << 20;

/// What a model does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An ONNX graph that embeds texts.
    Onnx,
    /// A provider that embeds texts, asked over HTTP.
    Remote,
    /// An ONNX graph that scores how well a text answers a query.
    CrossEncoder,
}

impl Kind {
    /// Its name in `model.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Remote => "remote",
            Self::CrossEncoder => "cross-encoder",
        }
    }
}

/// How the vectors of tokens become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The graph does it.
    InGraph,
    /// Their mean.
    #[default]
    Mean,
    /// The first token's.
    Cls,
}

/// A file of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    /// Its name in the model's folder.
    pub name: String,
    /// Its blake3, hexadecimal.
    pub blake3: String,
}

/// What stands in `model.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What it does.
    pub kind: Kind,
    /// Dimensions of its vectors; 1 for a cross-encoder.
    pub dims: usize,
    /// Tokens of a text it reads, those that mark begin and end counted.
    pub max_tokens: usize,
    /// How the vectors of tokens become one.
    #[serde(default)]
    pub pooling: Pooling,
    /// Whether its vectors are made unit length.
    #[serde(default)]
    pub normalise: bool,
    /// Put in front of a text to search with.
    #[serde(default)]
    pub query_prefix: String,
    /// Put in front of a text to be found.
    #[serde(default)]
    pub document_prefix: String,
    /// The licence of its files.
    #[serde(default)]
    pub licence: String,
    /// Whom a remote model asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Endpoint>,
    /// The graph and the tokenizer.
    #[serde(default, rename = "file")]
    pub files: Vec<ModelFile>,
}

impl Manifest {
    /// Reads the `model.toml` of a folder.
    ///
    /// # Errors
    /// When it is missing, does not read, or says what cannot be.
    pub fn read(folder: &Path) -> Result<Self, String> {
        Self::read_file(&folder.join(MANIFEST))
    }

    /// Reads a `model.toml`.
    ///
    /// # Errors
    /// As [`Manifest::read`].
    pub fn read_file(path: &Path) -> Result<Self, String> {
        let unreadable = |error: &dyn std::fmt::Display| format!("{MANIFEST} cannot be read: {error}");
        let length = std::fs::metadata(path).map_err(|error| unreadable(&error))?.len();
        if length > MAX_MANIFEST_BYTES {
            return Err(unreadable(&"it is too long"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
        let manifest: Self = toml::from_str(&text).map_err(|error| unreadable(&error.message()))?;
        let plain =
            |file: &ModelFile| Path::new(&file.name).file_name().is_some_and(|name| *name == *file.name);
        if !(1..=MAX_DIMS).contains(&manifest.dims) || !(1..=MAX_TOKENS).contains(&manifest.max_tokens) {
            return Err(unreadable(&"dims or max_tokens are out of range"));
        }
        if !manifest.files.iter().all(plain) {
            return Err(unreadable(&"a file is not a plain name"));
        }
        match &manifest.remote {
            Some(endpoint) if manifest.kind == Kind::Remote => {
                endpoint.check().map_err(|error| unreadable(&error))?;
            }
            None if manifest.kind != Kind::Remote => {}
            _ => return Err(unreadable(&"[remote] belongs to kind = \"remote\", and only to it")),
        }
        Ok(manifest)
    }

    /// Its text.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_text(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|error| error.to_string())
    }

    /// The name of its file that ends like this.
    ///
    /// # Errors
    /// When there is none.
    pub fn file(&self, end: &str) -> Result<&str, String> {
        let found = self.files.iter().find(|file| file.name.ends_with(end));
        found.map(|file| file.name.as_str()).ok_or_else(|| format!("{MANIFEST} names no file *{end}"))
    }

    /// What is put in front of a text.
    ///
    /// # Errors
    /// When the model does not do what is asked for: some embed, others score.
    pub fn prefix(&self, role: &Role) -> Result<&str, Failure> {
        let scores = self.kind == Kind::CrossEncoder;
        match role {
            Role::Query if !scores => Ok(&self.query_prefix),
            Role::Document if !scores => Ok(&self.document_prefix),
            Role::Answer(_) if scores => Ok(""),
            Role::Answer(_) => Err(Failure::Failed("it embeds texts, it does not score answers".to_owned())),
            _ => Err(Failure::Failed("it scores answers, it does not embed texts".to_owned())),
        }
    }

    /// The hash of everything its vectors depend on.
    pub fn hash(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &str| {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        };
        add(&format!(
            "{:?} {} {} {:?} {}",
            self.kind, self.dims, self.max_tokens, self.pooling, self.normalise
        ));
        add(&self.query_prefix);
        add(&self.document_prefix);
        if let Some(endpoint) = &self.remote {
            endpoint.identity().iter().for_each(|part| add(part));
        }
        for file in &self.files {
            add(&file.name);
            add(&file.blake3);
        }
        *hasher.finalize().as_bytes()
    }

    /// Checks the files of a folder against their hashes.
    ///
    /// # Errors
    /// The first file that is missing or different.
    pub fn verify(&self, folder: &Path) -> Result<(), String> {
        for file in &self.files {
            let found =
                hash_file(&folder.join(&file.name)).map_err(|error| format!("{}: {error}", file.name))?;
            if found != file.blake3 {
                return Err(format!("{} is not the file that {MANIFEST} was written for", file.name));
            }
        }
        Ok(())
    }
}

/// The blake3 of a file, hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "kind = \"onnx\"\ndims = 32\nmax_tokens = 64\npooling = \"in-graph\"\nlicence = \"MIT\"\n\
        [[file]]\nname = \"model.onnx\"\nblake3 = \"00\"\n";

    #[test]
    fn a_manifest_reads_back_and_its_hash_depends_on_what_vectors_depend_on() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| std::fs::write(folder.path().join(MANIFEST), text).unwrap();
        write(TEXT);
        let manifest = Manifest::read(folder.path()).unwrap();
        write(&manifest.to_text().unwrap());
        assert_eq!(Manifest::read(folder.path()).unwrap(), manifest);
        assert_eq!(manifest.file(".onnx").unwrap(), "model.onnx");
        assert!(manifest.file(".json").is_err());
        let other = Manifest { licence: "other".to_owned(), ..manifest.clone() };
        assert_eq!(other.hash(), manifest.hash());
        let other = Manifest { query_prefix: "query: ".to_owned(), ..manifest.clone() };
        assert_ne!(other.hash(), manifest.hash());
        let bad = [
            ("dims = 32", "dims = 0"),
            ("model.onnx", "../model.onnx"),
            ("licence", "license"),
            ("onnx", "x"),
        ];
        for (from, to) in bad {
            write(&TEXT.replace(from, to));
            assert!(Manifest::read(folder.path()).is_err(), "{to}");
        }
    }

    #[test]
    fn a_changed_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        std::fs::write(&path, b"graph").unwrap();
        std::fs::write(folder.path().join(MANIFEST), TEXT.replace("00", &hash_file(&path).unwrap())).unwrap();
        let manifest = Manifest::read(folder.path()).unwrap();
        manifest.verify(folder.path()).unwrap();
        std::fs::write(&path, b"graph!").unwrap();
        assert!(manifest.verify(folder.path()).unwrap_err().contains("model.onnx"));
        std::fs::remove_file(&path).unwrap();
        assert!(manifest.verify(folder.path()).is_err());
    }
}
