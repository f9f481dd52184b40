//! Tokens of a text, by a `tokenizer.json`. Its own truncation and padding are ignored: files in the wild cut at a length
//! that is not the model's, and pad every text to it.

use tokenizers::TruncationParams;
use tokenizers::pipeline::{EncodeOptions, Override, PipelineTokenizer};

/// See the module's text.
pub struct Tokenizer(PipelineTokenizer);

impl Tokenizer {
    /// Reads a `tokenizer.json`, of older versions too.
    ///
    /// # Errors
    /// When it cannot be read, or names a part that is not built in.
    pub fn from_json(json: &str) -> Result<Self, String> {
        let canonical = tokenizers::canonicalize_str(json).map_err(|error| error.to_string())?;
        tokenizers::from_json(&canonical).map(Self).map_err(|error| error.to_string())
    }

    /// Tokens of a text, at most `max_tokens`, without those that mark its begin and end.
    ///
    /// # Errors
    /// When the text cannot be read.
    pub fn words(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>, String> {
        self.encode(text, max_tokens, false)
    }

    /// Tokens of a text, at most `max_tokens`, with those that mark its begin and end.
    ///
    /// # Errors
    /// When the text cannot be read.
    pub fn marked(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>, String> {
        self.encode(text, max_tokens, true)
    }

    fn encode(&self, text: &str, max_tokens: usize, marks: bool) -> Result<Vec<u32>, String> {
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        let options = EncodeOptions {
            add_special_tokens: marks,
            padding: Override::Off,
            truncation: Override::With(truncation),
            ..EncodeOptions::default()
        };
        let encodings = self.0.encode(text, &options).wait().map_err(|error| error.to_string())?;
        Ok(encodings.first().map_or(Vec::new(), |one| one.ids().iter().map(|token| token.id()).collect()))
    }
}
