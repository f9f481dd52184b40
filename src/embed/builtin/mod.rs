//! The model that is built in. `NOTICE` says what it was made from, `scripts/train-static-model` how.

use super::static_model::StaticModel;
use super::tokenizer::Tokenizer;

/// Dimensions of its vectors.
pub const DIMS: usize = 256;
/// Tokens of a text it reads; the rest is ignored.
pub const MAX_TOKENS: usize = 8192;

static TOKENIZER: &str = include_str!("tokenizer.json");
static SCALES: &[u8] = include_bytes!("scales.f32");
static CODES: &[u8] = include_bytes!("codes.i8");

/// Hash of its files.
pub fn hash() -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(TOKENIZER.as_bytes()).update(SCALES).update(CODES);
    *hasher.finalize().as_bytes()
}

/// Loads it.
///
/// # Errors
/// When its files do not read; a test holds that they do.
pub fn load() -> Result<StaticModel, String> {
    StaticModel::new(Tokenizer::from_json(TOKENIZER)?, MAX_TOKENS, DIMS, SCALES, CODES)
}
