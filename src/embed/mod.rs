//! Text to vectors.
//!
//! A [`Model`] has a name, a hash of everything its vectors depend on, and is loaded when it is first used. The
//! [`Embedding`] service owns the models and the threads that run them; it knows nothing of keys or commands.

mod builtin;
mod cache;
pub mod hub;
pub mod install;
pub mod manifest;
mod onnx;
pub mod registry;
mod remote;
mod retry;
mod runtime;
mod service;
mod static_model;
mod tokenizer;

use std::sync::Arc;

use thiserror::Error;

use crate::hex;

pub use registry::{BUILTIN, Model, Registry};
pub use runtime::Runtime;
pub use service::{Embedding, Text, TokenCounter};
pub use tokenizer::Tokenizer;

/// An embedded text, as many f32 as its model has dimensions.
pub type Vector = Arc<[f32]>;

/// Which vectors belong together: a model's name and the blake3 of all that its vectors depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelId {
    /// Name in the registry.
    pub name: String,
    /// Hash of its files and settings.
    pub hash: [u8; 32],
}

impl ModelId {
    /// The first digits of the hash, for people.
    pub fn short_hash(&self) -> String {
        hex::encode(&self.hash[..6])
    }
}

/// What a text is embedded for: some models put different words in front.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// To search with.
    Query,
    /// To be found.
    Document,
    /// To be scored: how well it answers this query. A cross-encoder's "vector" is that one number.
    Answer(Arc<str>),
}

/// Why a text has no vector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EmbedError {
    /// The model, or something it needs, is missing.
    #[error("{model}: {reason}")]
    Down {
        /// Name of the model.
        model: String,
        /// What is missing, and what gets it.
        reason: String,
    },
    /// The model failed on this text.
    #[error("the model '{model}' failed: {reason}")]
    Failed {
        /// Name of the model.
        model: String,
        /// What it said.
        reason: String,
    },
    /// The model scores answers to queries.
    #[error("the model '{0}' scores answers, it does not embed")]
    NoEmbedder(String),
    /// Nothing in the text means anything to the model.
    #[error("the text has no word that the model knows")]
    Empty,
    /// Too many texts wait already.
    #[error("too many texts wait to be embedded, try again")]
    Busy,
    /// The server ends.
    #[error("the server is shutting down")]
    Stopped,
}

impl EmbedError {
    /// The first word of the error reply.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Down { .. } => "MODELDOWN",
            _ => "ERR",
        }
    }
}

/// Why a model gives nothing for some texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Something it needs is missing or does not answer: other texts would fare no better.
    Down(String),
    /// It failed on these texts.
    Failed(String),
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// What a model makes of some texts.
pub struct Embedded {
    /// A vector for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read.
    pub tokens: usize,
}

/// A model that is loaded.
pub trait Embedder: Send + Sync {
    /// Embeds texts; longer ones are cut at the model's limit.
    ///
    /// # Errors
    /// What went wrong.
    fn embed(&self, texts: &[&str], role: &Role) -> Result<Embedded, Failure>;

    /// What makes its tokens, if that is known here.
    fn tokenizer(&self) -> Option<&Tokenizer>;
}

/// Makes a vector unit length; zeros stay.
fn normalise(vector: &mut [f32]) {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
}
