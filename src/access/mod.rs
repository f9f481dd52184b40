//! Who may do what. For now: one password for everybody, `requirepass`.

use crate::config::Secret;

/// Whether a password is the configured one. Takes equally long whatever is wrong with it.
pub fn password_matches(configured: &Secret, given: &[u8]) -> bool {
    // blake3 hashes compare in constant time.
    blake3::hash(configured.expose().as_bytes()) == blake3::hash(given)
}
