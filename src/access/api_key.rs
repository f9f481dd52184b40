//! API keys: `vk_<id>_<secret>`, 48 random bits that name the key and 256 that prove it, in hexadecimal digits.
//! Of a key only its blake3 hash is kept: there is nothing to guess that a slow hash would protect.

use ring::rand::{SecureRandom, SystemRandom};

use crate::hex;
use crate::store::users::ApiKey;

const PREFIX: &str = "vk_";
const ID_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
/// Characters of a key.
const KEY_CHARS: usize = PREFIX.len() + 2 * ID_BYTES + 1 + 2 * SECRET_BYTES;

/// Random bytes from the system.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// The system gave no random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// Makes a key; its text is given to its owner and then forgotten.
///
/// # Errors
/// When the system has no random bytes.
pub fn create() -> Result<(String, u64, [u8; 32]), NoRandomness> {
    let (id, secret) = (random::<ID_BYTES>()?, random::<SECRET_BYTES>()?);
    let text = format!("{PREFIX}{}_{}", hex::encode(&id), hex::encode(&secret));
    let number = id.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let hash = *blake3::hash(text.as_bytes()).as_bytes();
    Ok((text, number, hash))
}

/// The number of a key as it is shown.
pub fn shown_id(id: u64) -> String {
    format!("{id:012x}")
}

/// The number that is shown so.
pub fn parse_id(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let text = text.strip_prefix(PREFIX).unwrap_or(text);
    (text.len() == 2 * ID_BYTES).then(|| u64::from_str_radix(text, 16).ok())?
}

/// The number in what may be a key; `None` if it does not have the form of one.
pub fn id_of(text: &[u8]) -> Option<u64> {
    if text.len() != KEY_CHARS || !text.is_ascii() {
        return None;
    }
    let (id, secret) = text.strip_prefix(PREFIX.as_bytes())?.split_at(2 * ID_BYTES);
    let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    (secret[0] == b'_' && is_hex(&secret[1..]) && is_hex(id)).then(|| parse_id(id))?
}

/// Whether a text is this key. Takes equally long whatever differs.
pub fn matches(key: &ApiKey, text: &[u8]) -> bool {
    // blake3 hashes compare in constant time.
    blake3::hash(text) == blake3::Hash::from_bytes(key.hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_itself_and_nothing_else_is_taken_for_one() {
        let (text, id, hash) = create().unwrap();
        assert_eq!((text.len(), id_of(text.as_bytes())), (KEY_CHARS, Some(id)));
        assert_eq!(parse_id(shown_id(id).as_bytes()), Some(id));
        let key =
            ApiKey { id, hash, label: Default::default(), created_ms: 0, last_used_ms: 0, expires_ms: 0 };
        assert!(matches(&key, text.as_bytes()));
        assert!(!matches(&key, create().unwrap().0.as_bytes()));
        for other in ["", "vk_", &text[1..], &format!("{text}0"), &text.replace('_', "-")] {
            assert_eq!(id_of(other.as_bytes()), None, "{other}");
        }
    }
}
