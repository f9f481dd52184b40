//! Elements that go by themselves.
//!
//! A collection knows the moment (unix milliseconds) for each row that has one. Nothing here looks at a clock: readers ask for
//! a version without what is over ([`Collection::mask_expired`]), and the writer removes it by changes of its own.

use bytes::Bytes;
use imbl::{OrdMap, OrdSet};

use super::{Collection, RowId};

/// When rows' elements go.
#[derive(Clone, Default)]
pub struct Expiries {
    of_row: OrdMap<RowId, u64>,
    by_time: OrdSet<(u64, RowId)>,
}

impl Expiries {
    /// When a row's element goes, if it does; also if it is gone.
    pub fn get(&self, row: RowId) -> Option<u64> {
        self.of_row.get(&row).copied()
    }

    /// Sets or clears it. Returns what it was.
    pub(super) fn set(&mut self, row: RowId, at_ms: Option<u64>) -> Option<u64> {
        let before = match at_ms {
            Some(at_ms) => self.of_row.insert(row, at_ms),
            None => self.of_row.remove(&row),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, row));
        }
        if let Some(at_ms) = at_ms {
            self.by_time.insert((at_ms, row));
        }
        before
    }

    /// The soonest moment.
    pub fn next_ms(&self) -> Option<u64> {
        self.by_time.get_min().map(|(at_ms, _)| *at_ms)
    }

    /// The soonest moment after that one.
    pub fn next_after_ms(&self, now_ms: u64) -> Option<u64> {
        self.by_time.get_next(&(now_ms, RowId(u64::MAX))).map(|(at_ms, _)| *at_ms)
    }

    /// Rows whose time is over, soonest first.
    fn over(&self, now_ms: u64) -> impl Iterator<Item = RowId> + '_ {
        self.by_time.iter().take_while(move |(at_ms, _)| *at_ms <= now_ms).map(|(_, row)| *row)
    }

    /// Every row with its moment, in the order of rows.
    pub fn iter(&self) -> impl Iterator<Item = (RowId, u64)> + '_ {
        self.of_row.iter().map(|(row, at_ms)| (*row, *at_ms))
    }

    /// Bytes of memory.
    pub(super) fn size_bytes(&self) -> usize {
        // Nodes of the ordered maps cost about as much again as their entries.
        self.of_row.len() * 2 * (size_of::<(RowId, u64)>() + size_of::<(u64, RowId)>())
    }
}

impl Collection {
    /// When elements go.
    pub fn expiries(&self) -> &Expiries {
        &self.expiries
    }

    /// Sets when an element goes, or that it stays. False if there is none of that name, or nothing changes.
    pub fn expire_element(&mut self, element: &[u8], at_ms: Option<u64>) -> bool {
        self.find_private(element).is_some_and(|row| self.expiries.set(row, at_ms) != at_ms)
    }

    /// Puts back when the elements of recovered rows go; what is said of other rows is dropped.
    pub fn restore_expiries(&mut self, expiries: impl Iterator<Item = (RowId, u64)>) {
        for (row, at_ms) in expiries {
            if self.chunk(row).is_some_and(|chunk| chunk.is_live(row.offset())) {
                self.expiries.set(row, Some(at_ms));
            }
        }
    }

    /// Names of elements whose time is over, soonest first.
    pub fn expired(&self, now_ms: u64) -> impl Iterator<Item = Bytes> + '_ {
        self.expiries.over(now_ms).map(|row| Bytes::copy_from_slice(self.name(row)))
    }

    /// Hides the elements whose time is over from this version, which is for readers only: their rows keep the moment, by
    /// which a look-up knows that they are not to be looked for in a newer version.
    pub fn mask_expired(&mut self, now_ms: u64) {
        let over: Vec<RowId> = self.expiries.over(now_ms).collect();
        for row in over {
            let had_attributes = self.attributes(row).is_some();
            let name = self.name(row).to_vec();
            self.documents.detach(&name);
            self.kill_row(row, had_attributes);
        }
    }
}
