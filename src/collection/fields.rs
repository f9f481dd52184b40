//! Fields: further vectors of elements. A field's vectors are rows of a collection of their own, under the names of the
//! elements; this is what such a row shares with its element. `store/fields.rs` keeps the two together.

use std::ops::Bound;

use super::{Attributes, Collection, Found, RowId};

/// What the rows of an element have in common in all fields.
pub struct Shared {
    /// Its attributes, so that a field's searches filter by themselves.
    pub attributes: Option<Attributes>,
    /// When it goes by itself, unix milliseconds.
    pub expires_ms: Option<u64>,
}

impl Collection {
    /// What an element shares with its rows in fields; `None` if there is no such element. On the writer's version.
    pub fn shared(&self, element: &[u8]) -> Option<Shared> {
        let row = self.find_private(element)?;
        let attributes = self.live_chunk(row).shared_attributes(row.offset());
        Some(Shared { attributes, expires_ms: self.expiries.get(row) })
    }

    /// Makes the field's row of an element, if it has one, like the element: gone if that is. True if it was not so before.
    pub fn follow(&mut self, element: &[u8], shared: Option<&Shared>) -> bool {
        let Some(shared) = shared else { return self.remove(element) };
        let Some(row) = self.find_private(element) else { return false };
        let edited = self.attributes(row) != shared.attributes.as_deref();
        if edited {
            self.set_attributes(element, shared.attributes.clone());
        }
        self.expire_element(element, shared.expires_ms) || edited
    }

    /// The row that an element, given by its row in a field of the same snapshot, has in this version.
    pub fn row_of_field(&self, field: &Self, row: RowId) -> Option<RowId> {
        let name = field.name(row);
        match self.find(name) {
            Found::Row(row) => Some(row),
            // It has changed since. Where it was is still found by its name.
            Found::Absent | Found::Stale => self.range(Bound::Included(name), Bound::Included(name), 1).pop(),
        }
    }
}
