//! ONNX models, run by ONNX Runtime: those that embed a text, and cross-encoders, which read a query and a text together.
//!
//! A session is used by one thread at a time; there are as many as threads have needed at once. Texts of like length are
//! run together: padding costs more than a batch saves.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::manifest::{Manifest, Pooling};
use super::runtime::Runtime;
use super::tokenizer::Tokenizer;
use super::{Embedded, Embedder, Failure, Role};

/// Tokens, padding counted, that are run together at most; a longer text is run alone.
const MAX_BATCH_TOKENS: usize = 512;
/// Texts that are run together differ in length by at most this share of the shortest.
const MAX_PADDING_SHARE: usize = 8;
/// Bytes a `tokenizer.json` may have.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// See the module's text.
pub struct OnnxModel {
    manifest: Manifest,
    graph: PathBuf,
    tokenizer: Tokenizer,
    environment: Environment,
    idle: Mutex<Vec<Session>>,
}

impl OnnxModel {
    /// Checks the files of a folder and loads the model.
    ///
    /// # Errors
    /// When a file or the runtime library is missing or not what it should be.
    pub fn load(folder: &Path, manifest: &Manifest, runtime: &Runtime) -> Result<Self, String> {
        let replaced = |what| format!("{what}; if it was replaced on purpose, VMODEL UNLOAD reads it anew");
        manifest.verify(folder).map_err(replaced)?;
        let path = folder.join(manifest.file("tokenizer.json")?);
        let length = std::fs::metadata(&path).map_err(|error| format!("tokenizer.json: {error}"))?.len();
        if length > MAX_TOKENIZER_BYTES {
            return Err("tokenizer.json is too long".to_owned());
        }
        let json = std::fs::read_to_string(&path).map_err(|error| format!("tokenizer.json: {error}"))?;
        let model = Self {
            manifest: manifest.clone(),
            graph: folder.join(manifest.file(".onnx")?),
            tokenizer: Tokenizer::from_json(&json).map_err(|error| format!("tokenizer.json: {error}"))?,
            environment: runtime.get()?,
            idle: Mutex::default(),
        };
        let session = model.open()?;
        model.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        Ok(model)
    }

    fn open(&self) -> Result<Session, String> {
        let broken = |error: &dyn std::fmt::Display| format!("the graph cannot be loaded: {error}");
        let builder = Session::builder(&self.environment).map_err(|error| broken(&error))?;
        let builder =
            builder.with_optimization_level(GraphOptimizationLevel::All).map_err(|error| broken(&error))?;
        // Parallel work is on several texts, not inside one.
        let mut builder = builder.with_intra_threads(1).map_err(|error| broken(&error))?;
        let session = builder.commit_from_file(&self.graph).map_err(|error| broken(&error))?;
        match session.inputs().iter().find(|input| !INPUTS.contains(&input.name())) {
            None => Ok(session),
            Some(input) => Err(broken(&format!("it has an unknown input '{}'", input.name()))),
        }
    }

    /// Embeds token lists that are all about equally long; adds their vectors to `out`.
    fn run(&self, session: &mut Session, lists: &[&Tokens], out: &mut Vec<Vec<f32>>) -> Result<(), String> {
        let failed = |error: ort::Error| error.to_string();
        let width = lists.iter().map(|list| list.ids.len()).max().unwrap_or(0);
        let (mut ids, mut mask) = (vec![0i64; lists.len() * width], vec![0i64; lists.len() * width]);
        let mut types = ids.clone();
        for (list, at) in lists.iter().zip((0..).step_by(width.max(1))) {
            for (token, at) in list.ids.iter().zip(at..) {
                ids[at] = i64::from(*token);
                mask[at] = 1;
            }
            for (part, at) in list.types.iter().zip(at..) {
                types[at] = i64::from(*part);
            }
        }
        let mut inputs = Vec::with_capacity(INPUTS.len());
        for input in session.inputs() {
            let values = match input.name() {
                "input_ids" => &ids,
                "attention_mask" => &mask,
                _ => &types,
            };
            let tensor = TensorRef::from_array_view(([lists.len(), width], &values[..])).map_err(failed)?;
            inputs.push((input.name().to_owned(), tensor));
        }
        let outputs = session.run(inputs).map_err(failed)?;
        let (shape, values) = match outputs.get("sentence_embedding") {
            Some(output) => output.try_extract_tensor::<f32>().map_err(failed)?,
            None => outputs[0].try_extract_tensor::<f32>().map_err(failed)?,
        };
        let dims = self.manifest.dims;
        let pooled = match (self.manifest.pooling, shape.len()) {
            (Pooling::InGraph, 2) | (_, 2) if values.len() == lists.len() * dims => values.to_vec(),
            (Pooling::Mean | Pooling::Cls, 3) if values.len() == lists.len() * width * dims => {
                pool(values, lists, width, dims, self.manifest.pooling)
            }
            _ => {
                return Err(format!(
                    "the graph gives an output of shape {shape:?}, not of {dims} dimensions"
                ));
            }
        };
        for vector in pooled.chunks_exact(dims) {
            let mut vector = vector.to_vec();
            if self.manifest.normalise {
                super::normalise(&mut vector);
            }
            out.push(vector);
        }
        Ok(())
    }
}

/// A text, or a query and a text, as the graph reads it.
struct Tokens {
    ids: Vec<u32>,
    /// Which of two texts each belongs to; nothing if there is one.
    types: Vec<u32>,
}

const INPUTS: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];

/// One vector for each list from those of its tokens, which are `[lists, width, dims]`.
fn pool(values: &[f32], lists: &[&Tokens], width: usize, dims: usize, pooling: Pooling) -> Vec<f32> {
    let mut pooled = Vec::with_capacity(lists.len() * dims);
    for (list, rows) in lists.iter().zip(values.chunks_exact(width * dims)) {
        let tokens = if pooling == Pooling::Cls { 1 } else { list.ids.len() };
        let mut sum = vec![0.0f32; dims];
        for row in rows.chunks_exact(dims).take(tokens) {
            sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
        }
        #[expect(clippy::cast_precision_loss, reason = "tokens are few")]
        pooled.extend(sum.iter().map(|value| value / tokens as f32));
    }
    pooled
}

impl Embedder for OnnxModel {
    fn embed(&self, texts: &[&str], role: &Role) -> Result<Embedded, Failure> {
        let prefix = self.manifest.prefix(role)?;
        let max_tokens = self.manifest.max_tokens;
        let tokens = |text: &&str| match role {
            Role::Answer(query) => {
                let (ids, types) = self.tokenizer.pair(query, text, max_tokens)?;
                Ok(Tokens { ids, types })
            }
            _ => {
                let prefixed = if prefix.is_empty() {
                    Cow::Borrowed(*text)
                } else {
                    Cow::Owned(prefix.to_owned() + text)
                };
                Ok(Tokens { ids: self.tokenizer.marked(&prefixed, max_tokens)?, types: Vec::new() })
            }
        };
        let lists: Vec<Tokens> = texts.iter().map(tokens).collect::<Result<_, String>>()?;
        let mut order: Vec<usize> = (0..lists.len()).collect();
        order.sort_by_key(|&at| lists[at].ids.len());

        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut session = idle.map_or_else(|| self.open(), Ok)?;
        let mut sorted = Vec::with_capacity(lists.len());
        let mut rest = &order[..];
        while let Some((&first, _)) = rest.split_first() {
            let shortest = lists[first].ids.len();
            let alike = |len: usize| len <= shortest + shortest / MAX_PADDING_SHARE;
            let fits = |count: usize, len: usize| alike(len) && count * len <= MAX_BATCH_TOKENS;
            let count =
                (1..rest.len()).find(|&at| !fits(at + 1, lists[rest[at]].ids.len())).unwrap_or(rest.len());
            let batch: Vec<&Tokens> = rest[..count].iter().map(|&at| &lists[at]).collect();
            self.run(&mut session, &batch, &mut sorted)?;
            rest = &rest[count..];
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);

        let mut vectors = vec![Vec::new(); lists.len()];
        for (at, vector) in order.into_iter().zip(sorted) {
            vectors[at] = vector;
        }
        Ok(Embedded { vectors, tokens: lists.iter().map(|list| list.ids.len()).sum() })
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        Some(&self.tokenizer)
    }
}
