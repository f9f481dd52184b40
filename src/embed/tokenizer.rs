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

    /// How many tokens a text has, without those that mark its begin and end. What cannot be read has none.
    pub fn count(&self, text: &str) -> usize {
        self.words(text, usize::MAX).map_or(0, |words| words.len())
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

    /// Tokens of a query and a text together, at most `max_tokens`, and which of the two each belongs to (0 or 1). What is
    /// too much is taken from the longer one.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn pair(&self, query: &str, text: &str, max_tokens: usize) -> Result<(Vec<u32>, Vec<u32>), String> {
        let encodings = self
            .0
            .encode((query, text), &options(max_tokens, true))
            .wait()
            .map_err(|error| error.to_string())?;
        let Some(encoding) = encodings.first() else { return Ok((Vec::new(), Vec::new())) };
        let ids: Vec<u32> = encoding.ids().iter().map(|token| token.id()).collect();
        let types = encoding
            .type_ids()
            .map_or_else(|| vec![0; ids.len()], |types| types.iter().map(|&part| u32::from(part)).collect());
        Ok((ids, types))
    }

    fn encode(&self, text: &str, max_tokens: usize, marks: bool) -> Result<Vec<u32>, String> {
        let encodings =
            self.0.encode(text, &options(max_tokens, marks)).wait().map_err(|error| error.to_string())?;
        Ok(encodings.first().map_or(Vec::new(), |one| one.ids().iter().map(|token| token.id()).collect()))
    }
}

fn options(max_tokens: usize, marks: bool) -> EncodeOptions {
    EncodeOptions {
        add_special_tokens: marks,
        padding: Override::Off,
        truncation: Override::With(TruncationParams { max_length: max_tokens, ..Default::default() }),
        ..EncodeOptions::default()
    }
}
