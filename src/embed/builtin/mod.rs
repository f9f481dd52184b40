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

/// blake3 of its files; written down, so that a start need not read them.
const HASH: &str = "1249b5abdf25a5eeca5bf515fcc62b762897b09c8558c4fc711a5d94f9f18502";

/// Hash of its files.
pub fn hash() -> [u8; 32] {
    let hash = blake3::Hash::from_hex(HASH);
    *hash.unwrap_or_else(|_| unreachable!("a test compares it with the files")).as_bytes()
}

/// Loads it.
///
/// # Errors
/// When its files do not read; a test holds that they do.
pub fn load() -> Result<StaticModel, String> {
    StaticModel::new(Tokenizer::from_json(TOKENIZER)?, MAX_TOKENS, DIMS, SCALES, CODES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_the_files() {
        let mut hasher = blake3::Hasher::new();
        hasher.update(TOKENIZER.as_bytes()).update(SCALES).update(CODES);
        assert_eq!(hasher.finalize().to_hex().as_str(), HASH);
        assert_eq!(hash(), *hasher.finalize().as_bytes());
    }
}
