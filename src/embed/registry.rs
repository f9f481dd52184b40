//! The models there are: the built-in one, and those in `<dir>/models`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::manifest::{Kind, MANIFEST, Manifest};
use super::onnx::OnnxModel;
use super::remote::{Endpoint, RemoteModel};
use super::runtime::Runtime;
use super::{EmbedError, Embedder, ModelId, builtin};
use crate::config::is_model_name;

/// Name of the model that is built in.
pub const BUILTIN: &str = "builtin";
/// Folder of the models inside the data folder.
pub const FOLDER: &str = "models";

/// Where a model comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is part of the program.
    Builtin,
    /// A folder with a `model.toml`.
    Folder(PathBuf, Box<Manifest>),
}

/// A model, loaded or not.
pub struct Model {
    /// Which vectors belong together.
    pub id: ModelId,
    /// Dimensions of its vectors.
    pub dims: usize,
    /// Tokens of a text it reads; the rest is ignored.
    pub max_tokens: usize,
    /// Where it comes from.
    pub source: Source,
    loaded: Mutex<Option<Arc<dyn Embedder>>>,
}

impl Model {
    fn builtin() -> Self {
        Self {
            id: ModelId { name: BUILTIN.to_owned(), hash: builtin::hash() },
            dims: builtin::DIMS,
            max_tokens: builtin::MAX_TOKENS,
            source: Source::Builtin,
            loaded: Mutex::default(),
        }
    }

    fn in_folder(name: String, folder: PathBuf) -> Result<Self, String> {
        let manifest = Manifest::read(&folder)?;
        Ok(Self {
            id: ModelId { name, hash: manifest.hash() },
            dims: manifest.dims,
            max_tokens: manifest.max_tokens,
            source: Source::Folder(folder, Box::new(manifest)),
            loaded: Mutex::default(),
        })
    }

    /// What kind of model it is.
    pub fn kind(&self) -> &str {
        match &self.source {
            Source::Builtin => "static",
            Source::Folder(_, manifest) => manifest.kind.name(),
        }
    }

    /// Whether it scores answers to a query, and embeds nothing.
    pub fn is_cross_encoder(&self) -> bool {
        matches!(&self.source, Source::Folder(_, manifest) if manifest.kind == Kind::CrossEncoder)
    }

    /// Under which licence it is.
    pub fn licence(&self) -> &str {
        match &self.source {
            Source::Builtin => "Apache-2.0 and WordNet",
            Source::Folder(_, manifest) => &manifest.licence,
        }
    }

    /// Whom it asks, if it is a remote model.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match &self.source {
            Source::Builtin => None,
            Source::Folder(_, manifest) => manifest.remote.as_ref(),
        }
    }

    /// Whether it is in memory.
    pub fn is_loaded(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The model in memory, loaded now if it was not.
    ///
    /// # Errors
    /// [`EmbedError::Down`] when its files, or the library that runs it, are missing or not what they should be.
    pub fn load(&self, runtime: &Runtime) -> Result<Arc<dyn Embedder>, EmbedError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(embedder) = &*loaded {
            return Ok(Arc::clone(embedder));
        }
        let embedder: Result<Arc<dyn Embedder>, String> = match &self.source {
            Source::Builtin => builtin::load().map(|model| Arc::new(model) as _),
            Source::Folder(folder, manifest) => match &manifest.remote {
                Some(endpoint) => RemoteModel::load(manifest, endpoint).map(|model| Arc::new(model) as _),
                None => OnnxModel::load(folder, manifest, runtime).map(|model| Arc::new(model) as _),
            },
        };
        let down = |reason| EmbedError::Down { model: self.id.name.clone(), reason };
        Ok(Arc::clone(loaded.insert(embedder.map_err(down)?)))
    }

    /// Takes it out of memory. Whether it was there.
    pub fn unload(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }
}

/// See the module's text.
pub struct Registry {
    folder: PathBuf,
    models: RwLock<BTreeMap<String, Arc<Model>>>,
}

impl Registry {
    /// The models of a data folder.
    pub fn open(dir: &Path) -> Self {
        let builtin = (BUILTIN.to_owned(), Arc::new(Model::builtin()));
        Self { folder: dir.join(FOLDER), models: RwLock::new(BTreeMap::from([builtin])) }
    }

    /// The model of that name. One that has been added or changed on disk is found without a restart.
    ///
    /// # Errors
    /// [`EmbedError::Down`] when there is none, or its `model.toml` does not read.
    pub fn get(&self, name: &str) -> Result<Arc<Model>, EmbedError> {
        if let Some(model) = self.models.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Arc::clone(model));
        }
        let down = |reason| EmbedError::Down { model: name.chars().take(80).collect(), reason };
        if !is_model_name(name) || !self.folder.join(name).join(MANIFEST).is_file() {
            let reason =
                "there is no model of this name: get it with 'vecdis model pull' or 'vecdis model add'";
            return Err(down(reason.to_owned()));
        }
        let model = Arc::new(Model::in_folder(name.to_owned(), self.folder.join(name)).map_err(down)?);
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(models.entry(name.to_owned()).or_insert(model)))
    }

    /// The model of that name, which must embed.
    ///
    /// # Errors
    /// As [`Registry::get`]; [`EmbedError::NoEmbedder`] if it is a cross-encoder.
    pub fn embedder(&self, name: &str) -> Result<Arc<Model>, EmbedError> {
        let model = self.get(name)?;
        match model.is_cross_encoder() {
            true => Err(EmbedError::NoEmbedder(name.to_owned())),
            false => Ok(model),
        }
    }

    /// All models that can be read, by name, as they are on disk now.
    pub fn all(&self) -> Vec<Arc<Model>> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.push(BUILTIN.to_owned());
        names.sort();
        names.iter().filter_map(|name| self.get(name).ok()).collect()
    }

    /// Forgets a model: what is on disk is read when it is asked for again. Whether it was loaded.
    pub fn unload(&self, name: &str) -> bool {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let loaded = models.get(name).is_some_and(|model| model.unload());
        if name != BUILTIN {
            models.remove(name);
        }
        loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        for name in ["all-minilm-l6-v2", "a", "x.y_z"] {
            assert!(is_model_name(name), "{name}");
        }
        for name in ["", ".", "..", "../x", "a/b", "a b", ".hidden", "a\0", &"x".repeat(65)] {
            assert!(!is_model_name(name), "{name}");
        }
    }

    #[test]
    fn a_missing_model_says_what_to_do() {
        let registry = Registry::open(Path::new("/nonexistent"));
        let error = registry.get("../etc").err().unwrap().to_string();
        assert!(error.contains("vecdis model add"), "{error}");
        assert_eq!(registry.all().len(), 1);
        assert_eq!(registry.get(BUILTIN).unwrap().dims, builtin::DIMS);
    }
}
