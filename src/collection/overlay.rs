//! Attributes of a chunk's rows that its file does not have: all of them while the rows are in memory, then those changed since
//! they were sealed. Their bytes are counted as they come and go.

use std::ops::Deref;

use imbl::OrdMap;

use super::Attributes;

/// By row; `None` hides attributes that the file has. See the module's text.
#[derive(Clone, Default)]
pub struct Overlay {
    of_row: OrdMap<u16, Option<Attributes>>,
    size_bytes: usize,
}

impl Overlay {
    /// Sets a row's attributes, or hides those in the file.
    pub fn insert(&mut self, offset: u16, attributes: Option<Attributes>) {
        self.size_bytes += len(&attributes);
        if let Some(before) = self.of_row.insert(offset, attributes) {
            self.size_bytes -= len(&before);
        }
    }

    /// Goes back to what the file has for a row.
    pub fn remove(&mut self, offset: u16) {
        if let Some(before) = self.of_row.remove(&offset) {
            self.size_bytes -= len(&before);
        }
    }

    /// Bytes of all attributes in it.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

fn len(attributes: &Option<Attributes>) -> usize {
    attributes.as_ref().map_or(0, |attributes| attributes.len())
}

impl Deref for Overlay {
    type Target = OrdMap<u16, Option<Attributes>>;

    fn deref(&self) -> &Self::Target {
        &self.of_row
    }
}

impl FromIterator<(u16, Option<Attributes>)> for Overlay {
    fn from_iter<I: IntoIterator<Item = (u16, Option<Attributes>)>>(items: I) -> Self {
        let mut overlay = Self::default();
        items.into_iter().for_each(|(offset, attributes)| overlay.insert(offset, attributes));
        overlay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_as_attributes_come_change_and_go() {
        let some = |value: &str| Some(Attributes::from(value.as_bytes()));
        let mut overlay: Overlay = [(1, some("abc")), (2, None), (3, some("de"))].into_iter().collect();
        assert_eq!((overlay.size_bytes(), overlay.len()), (5, 3));
        overlay.insert(1, some("a"));
        overlay.insert(2, some("bb"));
        overlay.insert(3, None);
        assert_eq!(overlay.size_bytes(), 3);
        overlay.remove(1);
        overlay.remove(1);
        overlay.remove(3);
        assert_eq!((overlay.size_bytes(), overlay.len()), (2, 1));
    }
}
