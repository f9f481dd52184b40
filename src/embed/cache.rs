//! Vectors of texts embedded lately, within a budget of bytes.
//!
//! There are two generations. New entries go into the young one; when it has half the budget it becomes the old one, and
//! what was old is forgotten. An old entry that is asked for becomes young again: so what is used stays.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{ModelId, Role, Vector};

/// blake3 of model, role, realm and text.
pub type CacheKey = [u8; 32];

/// Bytes an entry takes besides its vector.
const ENTRY_BYTES: usize = 96;

/// See the module's text.
#[derive(Default)]
pub struct Cache {
    young: HashMap<CacheKey, Vector>,
    old: HashMap<CacheKey, Vector>,
    young_bytes: usize,
}

/// Where a text's vector is kept.
pub fn cache_key(model: &ModelId, role: &Role, text: &str, realm: u32) -> CacheKey {
    let mut hasher = blake3::Hasher::new();
    // No name has a zero.
    hasher.update(&model.hash).update(model.name.as_bytes()).update(&[0]).update(&realm.to_le_bytes());
    match role {
        Role::Query => hasher.update(&[0]),
        Role::Document => hasher.update(&[1]),
        Role::Answer(query) => {
            hasher.update(&[2]).update(&(query.len() as u64).to_le_bytes()).update(query.as_bytes())
        }
    };
    hasher.update(text.as_bytes());
    *hasher.finalize().as_bytes()
}

impl Cache {
    /// The vector kept there.
    pub fn get(&mut self, key: &CacheKey, budget_bytes: usize) -> Option<Vector> {
        if let Some(found) = self.young.get(key) {
            return Some(Arc::clone(found));
        }
        let found = self.old.remove(key)?;
        self.insert(*key, Arc::clone(&found), budget_bytes);
        Some(found)
    }

    /// Keeps a vector. `budget_bytes` is for everything that is kept.
    pub fn insert(&mut self, key: CacheKey, vector: Vector, budget_bytes: usize) {
        let size_bytes = size_of_val(&*vector) + ENTRY_BYTES;
        if size_bytes > budget_bytes / 2 {
            return;
        }
        if self.young_bytes + size_bytes > budget_bytes / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(key, vector).is_none() {
            self.young_bytes += size_bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET_BYTES: usize = 20 * (16 + ENTRY_BYTES);

    fn key(number: u8) -> CacheKey {
        [number; 32]
    }

    #[test]
    fn what_is_used_stays_and_the_budget_is_kept() {
        let mut cache = Cache::default();
        for number in 0..100 {
            cache.insert(key(number), vec![f32::from(number); 4].into(), BUDGET_BYTES);
            assert!(cache.get(&key(0), BUDGET_BYTES).is_some(), "asked for again and again");
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get(&key(99), BUDGET_BYTES).unwrap()[0], 99.0);
        assert!(cache.get(&key(5), BUDGET_BYTES).is_none());
        cache.insert(key(200), vec![0.0; 4].into(), 0);
        assert!(cache.get(&key(200), 0).is_none(), "without a budget nothing is kept");
    }

    #[test]
    fn model_role_and_text_make_the_key() {
        let model = |hash| ModelId { name: "m".to_owned(), hash };
        let one = cache_key(&model([1; 32]), &Role::Query, "a", 0);
        assert_ne!(one, cache_key(&model([2; 32]), &Role::Query, "a", 0));
        assert_ne!(one, cache_key(&model([1; 32]), &Role::Document, "a", 0));
        assert_ne!(one, cache_key(&model([1; 32]), &Role::Query, "b", 0));
        assert_ne!(one, cache_key(&model([1; 32]), &Role::Query, "a", 1));
        let answer = |query: &str, text| cache_key(&model([1; 32]), &Role::Answer(query.into()), text, 0);
        assert_ne!(answer("ab", "c"), answer("a", "bc"));
    }
}
