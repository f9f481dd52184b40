//! Fields of collections: where their vectors are, and how they follow the elements.
//!
//! The vectors of a field are a collection of their own, which no command names: in the namespace's second half, under the
//! field's name and the collection's key. So rows, searches, graphs, compaction and checkpoints are those of any
//! collection. [`State::apply`] keeps it in step: a row of a field has the attributes and the end of its element, and goes
//! with it.

use std::sync::Arc;

use bytes::Bytes;

use super::state::{Applied, Key, NamespaceId, Snapshot, State};
use crate::collection::{AttributeChange, Collection, Encoded, GraphWish, Params, TextChange};
use crate::embed::ModelId;
use crate::vector::Layout;

/// Fields a collection may have.
pub const MAX_FIELDS: usize = 16;
/// Bytes a field's name may have.
pub const MAX_FIELD_BYTES: usize = 64;

/// Set in the number of a namespace where the fields of its collections are.
const FIELDS_BIT: u32 = 1 << 31;

impl NamespaceId {
    /// Whether it is where the fields of another one are.
    pub fn holds_fields(self) -> bool {
        self.0 & FIELDS_BIT != 0
    }

    /// The namespace whose fields are here; any other is its own.
    pub(super) fn owner(self) -> Self {
        Self(self.0 & !FIELDS_BIT)
    }
}

/// Where the vectors of a collection's field are.
pub fn place(namespace: NamespaceId, key: &Key, field: &[u8]) -> (NamespaceId, Key) {
    let len = u8::try_from(field.len()).unwrap_or_else(|_| unreachable!("names of fields are bounded"));
    let name = [&[len], field, key.name()].concat();
    (NamespaceId(namespace.0 | FIELDS_BIT), Key::new(name.into()))
}

/// The inverse of [`place`]: the collection's namespace and key, and the field's name. `None` for any other place.
pub fn owner(namespace: NamespaceId, key: &Key) -> Option<(NamespaceId, Key, Bytes)> {
    let (len, rest) = key.name().split_first().filter(|_| namespace.holds_fields())?;
    let (field, key) = rest.split_at_checked(usize::from(*len))?;
    let key = Key::new(Bytes::copy_from_slice(key));
    Some((namespace.owner(), key, Bytes::copy_from_slice(field)))
}

impl Snapshot {
    /// The collection of a field's vectors.
    pub fn field(&self, namespace: NamespaceId, key: &Key, field: &[u8]) -> Option<&Arc<Collection>> {
        let (namespace, key) =
            Some(place(namespace, key, field)).filter(|_| field.len() <= MAX_FIELD_BYTES)?;
        self.get(namespace, &key)
    }

    /// The fields of a collection with their names, in the order they were declared.
    pub fn fields<'a>(
        &'a self,
        namespace: NamespaceId,
        key: &'a Key,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Arc<Collection>)> {
        let names = self.get(namespace, key).into_iter().flat_map(|collection| &collection.fields);
        names.filter_map(move |name| Some((name, self.field(namespace, key, name)?)))
    }

    /// Bytes of memory that a collection takes with its fields.
    pub fn size_bytes(&self, namespace: NamespaceId, key: &Key) -> usize {
        let fields = self.fields(namespace, key).map(|(_, field)| field);
        self.get(namespace, key).into_iter().chain(fields).map(|collection| collection.size_bytes()).sum()
    }

    /// Whether a collection may be at a place: a field needs the collection it is of.
    pub(super) fn has_owner(&self, namespace: NamespaceId, key: &Key) -> bool {
        let owner_is_there =
            || owner(namespace, key).is_some_and(|(namespace, key, _)| self.get(namespace, &key).is_some());
        !namespace.holds_fields() || owner_is_there()
    }
}

/// A vector of a field.
pub(super) struct FieldVector<'a> {
    pub element: &'a [u8],
    pub field: &'a [u8],
    pub vector: &'a [f32],
    /// The model that made it.
    pub model: Option<&'a Arc<ModelId>>,
    /// Its code if it has been made already.
    pub encoded: Option<&'a Encoded>,
}

impl State {
    pub(super) fn create_field(
        &mut self,
        namespace: NamespaceId,
        key: &Key,
        field: &[u8],
        dim: usize,
    ) -> Applied {
        let Some(owner) = self.view().get(namespace, key) else { return Applied::No };
        if self.view().field(namespace, key, field).is_some() {
            return Applied::No;
        }
        let layout = Layout { dim, ..owner.params.layout };
        let params = Params { layout, projection_input_dim: 0, ..owner.params };
        let (namespace, key) = place(namespace, key, field);
        self.create(namespace, &key, &params, None);
        Applied::Yes
    }

    /// Gives or denies a collection and its fields graphs.
    pub(super) fn wish_graph(&mut self, namespace: NamespaceId, key: &Key, wish: GraphWish) -> Applied {
        let Some(owner) = self.view().get(namespace, key) else { return Applied::No };
        let fields: Vec<_> = owner.fields.iter().map(|field| place(namespace, key, field)).collect();
        for (namespace, key) in fields.into_iter().chain([(namespace, key.clone())]) {
            self.change_rows(namespace, &key, |collection| {
                collection.params.wish = wish;
                (true, ())
            });
        }
        Applied::Yes
    }

    /// Gives an element its vector in a field.
    pub(super) fn set_field(&mut self, namespace: NamespaceId, key: &Key, new: &FieldVector<'_>) -> Applied {
        let shared = self.view().get(namespace, key).and_then(|owner| owner.shared(new.element));
        let (fields, field) = place(namespace, key, new.field);
        let Some(shared) = shared.filter(|_| self.view().get(fields, &field).is_some()) else {
            return Applied::No;
        };
        let added = self.change_rows(fields, &field, |collection| {
            let made;
            let encoded = match new.encoded {
                Some(encoded) if encoded.fits(&collection.params) => encoded,
                _ => {
                    made = Encoded::new(&collection.params, new.vector);
                    &made
                }
            };
            let attributes = AttributeChange::Set(shared.attributes);
            let added = collection.put(new.element, new.vector, encoded, &attributes, &TextChange::Keep);
            collection.expire_element(new.element, shared.expires_ms);
            (true, added)
        });
        // Who watches the key watches its fields.
        self.change_rows(namespace, key, |owner| {
            if owner.model.is_none() {
                owner.model = new.model.cloned();
            }
            (true, ())
        });
        if added == Some(true) { Applied::Yes } else { Applied::Replaced }
    }

    /// Makes the rows that an element has in fields like the element is now.
    pub(super) fn follow(&mut self, namespace: NamespaceId, key: &Key, element: &[u8]) {
        let owner = self.view().get(namespace, key).filter(|owner| !owner.fields.is_empty());
        let Some((names, shared)) = owner.map(|owner| (owner.fields.clone(), owner.shared(element))) else {
            return;
        };
        for name in names {
            let (fields, field) = place(namespace, key, &name);
            self.change_rows(fields, &field, |collection| (collection.follow(element, shared.as_ref()), ()));
        }
    }

    /// Makes all rows in fields like their elements: after damage, these may be lost or older.
    pub(super) fn follow_all(&mut self) {
        let elements = |collection: &Collection| {
            let rows = collection.live_rows();
            rows.map(|row| Bytes::copy_from_slice(collection.name(row))).collect::<Vec<_>>()
        };
        let fields = self.view().collections().filter_map(|(namespace, key, field)| {
            let (namespace, key, _) = owner(namespace, key)?;
            Some((namespace, key, elements(field)))
        });
        for (namespace, key, elements) in fields.collect::<Vec<_>>() {
            elements.iter().for_each(|element| self.follow(namespace, &key, element));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fields_place_tells_whose_it_is() {
        let key = Key::new(Bytes::from_static(b"docs"));
        let (namespace, at) = place(NamespaceId(3), &key, b"title");
        assert!(namespace.holds_fields() && !NamespaceId(3).holds_fields());
        assert_eq!(owner(namespace, &at), Some((NamespaceId(3), key.clone(), Bytes::from_static(b"title"))));
        assert_eq!(owner(NamespaceId(3), &at), None);
        let cut = Key::new(Bytes::from_static(b"\x09x"));
        assert_eq!(owner(namespace, &cut), None);
        assert_ne!(place(NamespaceId(3), &key, b"titled").1, place(NamespaceId(3), &key, b"title").1);
    }
}
