//! Columns: the values of the fields that filters ask for, by field instead of by row.
//!
//! A chunk gets a column for a field when the first filter names it; rows are added when a filter needs them. With the
//! columns of all its fields a filter is algebra over sets of 64 rows at a time (`filter/plan.rs`); its operands are
//! evaluated once for each distinct string, and for numbers by a comparison of whole arrays. The row evaluator is the
//! truth: it decides the rows whose value a column does not keep, and everything where there are no columns.
//!
//! # Versions
//! Columns are shared by versions of a chunk. They hold what each row had when it came; rows whose attributes have been
//! set anew since (the *edited* rows, in `Chunk`) differ from version to version and are left to the row evaluator. When
//! they become many, the next version gets columns of its own, which forget those rows and share the rest until either
//! changes. A row's number is never used twice, so nothing has to be forgotten when rows die.
//!
//! Columns are a cache: they are not stored, and the oldest goes when a chunk has too many.

mod column;
#[cfg(test)]
mod tests;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use super::chunk::Chunk;
use super::filter::plan::{Operand, SetStep};
use super::filter::value::Value;
use super::filter::{Dialect, Filter};
use super::set_bits;
use column::Column;

/// Columns of a chunk.
pub const MAX_FIELDS: usize = 32;
/// Words of rows that are read before they are written down, all at once.
const BATCH_WORDS: usize = 16;

/// The columns of one chunk.
#[derive(Default)]
pub struct Columns(RwLock<Vec<Field>>);

/// A field's column, the oldest first.
#[derive(Clone)]
struct Field {
    name: Box<[u8]>,
    /// Whose reading of the attributes the values are.
    dialect: Dialect,
    /// Rows that the column knows about.
    known: Vec<u64>,
    column: Arc<Column>,
}

impl Field {
    fn new(name: &[u8], dialect: Dialect) -> Self {
        Self { name: name.into(), dialect, known: Vec::new(), column: Arc::default() }
    }

    fn is_called(&self, name: &[u8], dialect: Dialect) -> bool {
        *self.name == *name && self.dialect == dialect
    }

    /// Whether it can be asked about `rows`, the words from `first` on.
    fn covers(&self, first: usize, rows: &[u64]) -> bool {
        let words = first + rows.len();
        self.column.is_given_up()
            || self.column.words() >= words && self.unknown(first, rows).all(|word| word == 0)
    }

    fn unknown<'a>(&'a self, first: usize, rows: &'a [u64]) -> impl Iterator<Item = u64> + 'a {
        let known = move |at: usize| self.known.get(first + at).copied().unwrap_or(0);
        rows.iter().enumerate().map(move |(at, &word)| word & !known(at))
    }

    /// Writes down what rows have: `values` has one for each set bit of `rows`.
    fn add<'a>(&mut self, first: usize, rows: &[u64], values: impl Iterator<Item = Option<Value<'a>>>) {
        let words = first + rows.len();
        let column = Arc::make_mut(&mut self.column);
        column.grow(words);
        self.known.resize(self.known.len().max(words), 0);
        set_bits(rows).zip(values).for_each(|(at, value)| column.set(first * 64 + at, value));
        self.known[first..].iter_mut().zip(rows).for_each(|(known, added)| *known |= added);
    }
}

/// What columns say about a filter.
struct Decided {
    passing: Vec<u64>,
    /// Rows that they cannot decide.
    doubt: Vec<u64>,
}

impl Columns {
    fn read(&self) -> RwLockReadGuard<'_, Vec<Field>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same columns for versions in which these rows have other attributes.
    #[must_use]
    pub fn without(&self, edited: &[u64]) -> Self {
        // Values that nothing has any more fill a dictionary: a full one is made anew.
        let mut fields: Vec<Field> =
            self.read().iter().filter(|field| !field.column.is_overfull()).cloned().collect();
        for field in &mut fields {
            field.known.iter_mut().zip(edited).for_each(|(known, edited)| *known &= !edited);
        }
        Self(RwLock::new(fields))
    }

    /// Which of `rows` pass; `None` if a column is missing, or does not know them all.
    fn decide(&self, filter: &Filter, first: usize, rows: &[u64]) -> Option<Decided> {
        let fields = self.read();
        let column_of = |name: &[u8]| {
            let field = fields.iter().find(|field| field.is_called(name, filter.dialect()))?;
            field.covers(first, rows).then_some(&*field.column)
        };
        let columns: Vec<&Column> =
            filter.fields().iter().map(|name| column_of(name)).collect::<Option<_>>()?;
        let (mut sure, mut doubt) = (rows.to_vec(), vec![0; rows.len()]);
        for (at, (sure, doubt)) in sure.iter_mut().zip(&mut doubt).enumerate() {
            let present = match filter.dialect() {
                // Every field that the filter names must be there.
                Dialect::Expression => {
                    columns.iter().fold(*sure, |rows, column| rows & column.present(first + at))
                }
                Dialect::Json => *sure,
            };
            *doubt = present & columns.iter().fold(0, |rows, column| rows | column.doubt(first + at));
            *sure = present & !*doubt;
        }
        let passing = match sure.iter().any(|&word| word != 0) {
            true => Question { filter, columns, first, rows: &sure }.answer(),
            false => sure,
        };
        Some(Decided { passing, doubt })
    }

    /// Adds the columns that a filter needs, and these rows to them.
    fn extend(&self, chunk: &Chunk, filter: &Filter, first: usize, rows: &[u64]) {
        let (mut names, mut missing) = (Vec::new(), vec![0; rows.len()]);
        for name in filter.fields() {
            let fields = self.read();
            match fields.iter().find(|field| field.is_called(name, filter.dialect())) {
                Some(field) if field.covers(first, rows) => continue,
                Some(field) => {
                    missing.iter_mut().zip(field.unknown(first, rows)).for_each(|(all, word)| *all |= word);
                }
                None => missing.copy_from_slice(rows),
            }
            names.push(name.clone());
        }
        let mut values = Vec::new();
        for (batch, first) in missing.chunks(BATCH_WORDS).zip((first..).step_by(BATCH_WORDS)) {
            // Attributes are read without the lock, so that several threads can do it.
            values.clear();
            chunk.visit_attributes(first, batch, |_, attributes| {
                let begin = values.len();
                values.resize(begin + names.len(), None);
                let attributes = attributes.unwrap_or_default();
                filter.dialect().find_each(attributes, &names, &mut values[begin..]);
            });
            let mut fields = self.0.write().unwrap_or_else(PoisonError::into_inner);
            for (slot, name) in names.iter().enumerate() {
                let values = values.iter().skip(slot).step_by(names.len()).copied().map(Option::flatten);
                field_mut(&mut fields, name, filter).add(first, batch, values);
            }
            if names.iter().all(|name| field_mut(&mut fields, name, filter).column.is_given_up()) {
                break;
            }
        }
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        let of_field = |field: &Field| {
            size_of::<Field>() + field.name.len() + field.known.capacity() * 8 + field.column.size_bytes()
        };
        self.read().iter().map(of_field).sum()
    }
}

/// The column of that name; makes one if there is none, in the place of the oldest that `filter` does not need.
fn field_mut<'a>(fields: &'a mut Vec<Field>, name: &[u8], filter: &Filter) -> &'a mut Field {
    let dialect = filter.dialect();
    let at = fields.iter().position(|field| field.is_called(name, dialect)).unwrap_or_else(|| {
        if fields.len() >= MAX_FIELDS {
            let needed = |field: &Field| field.dialect == dialect && filter.fields().contains(&field.name);
            let unneeded = fields.iter().position(|field| !needed(field));
            fields.remove(unneeded.unwrap_or(0));
        }
        fields.push(Field::new(name, dialect));
        fields.len() - 1
    });
    &mut fields[at]
}

/// A filter asked of the columns of its fields.
struct Question<'a> {
    filter: &'a Filter,
    /// In the order of the filter's fields.
    columns: Vec<&'a Column>,
    first: usize,
    /// Words of the rows that matter, from `first` on. None is in doubt; in an expression they have every field.
    rows: &'a [u64],
}

impl Question<'_> {
    /// Which of the rows pass.
    fn answer(&self) -> Vec<u64> {
        let mut stack: Vec<Vec<u64>> = Vec::new();
        for step in self.filter.plan() {
            if let SetStep::Push(operand) = step {
                stack.push(self.rows_where(operand));
                continue;
            }
            let right =
                if matches!(step, SetStep::Not) { Vec::new() } else { stack.pop().unwrap_or_default() };
            let Some(top) = stack.last_mut() else {
                unreachable!("the planner gives every step its operands")
            };
            match step {
                SetStep::Not => top.iter_mut().for_each(|word| *word = !*word),
                SetStep::And => top.iter_mut().zip(right).for_each(|(word, other)| *word &= other),
                SetStep::Or => top.iter_mut().zip(right).for_each(|(word, other)| *word |= other),
                SetStep::Push(_) => {}
            }
        }
        let mut passing = stack.pop().unwrap_or_default();
        passing.iter_mut().zip(self.rows).for_each(|(word, rows)| *word &= rows);
        passing
    }

    /// The rows for which an operand is true. Of rows that do not matter it may say anything.
    fn rows_where(&self, operand: &Operand) -> Vec<u64> {
        let mut slots = vec![None; self.columns.len()];
        match operand.fields[..] {
            [] => {
                let all = if self.filter.holds(operand, &slots) { u64::MAX } else { 0 };
                vec![all; self.rows.len()]
            }
            [slot] => {
                let (column, test) = (self.columns[slot], operand.number_test.as_ref());
                let without = self.filter.dialect() == Dialect::Json && self.filter.holds(operand, &slots);
                let mut passing = column.passing(self.first, self.rows, test, |value| {
                    slots[slot] = Some(value);
                    self.filter.holds(operand, &slots)
                });
                if without {
                    let words = passing.iter_mut().zip(self.first..);
                    words.for_each(|(word, at)| *word |= !column.present(at));
                }
                passing
            }
            _ => {
                let mut passing = vec![0; self.rows.len()];
                for at in set_bits(self.rows) {
                    for &slot in &operand.fields {
                        slots[slot] = self.columns[slot].value(self.first * 64 + at);
                    }
                    passing[at / 64] |= u64::from(self.filter.holds(operand, &slots)) << (at % 64);
                }
                passing
            }
        }
    }
}

/// Which of `rows` pass; they are live, and the words of the chunk's bitmap from `first` on. Decided by columns as far as
/// they can, which are made if need be.
pub fn passing(chunk: &Chunk, filter: &Filter, first: usize, rows: &[u64]) -> Vec<u64> {
    if filter.fields().is_empty() || filter.fields().len() > MAX_FIELDS {
        return judge(chunk, filter, first, rows);
    }
    let edited = |at: usize| chunk.edited.get(first + at).copied().unwrap_or(0);
    let kept: Vec<u64> = rows.iter().enumerate().map(|(at, word)| word & !edited(at)).collect();
    let decide = || chunk.columns.decide(filter, first, &kept);
    let decided = decide().or_else(|| {
        chunk.columns.extend(chunk, filter, first, &kept);
        decide()
    });
    // Another filter may have taken the place of a column meanwhile.
    let Some(Decided { mut passing, mut doubt }) = decided else { return judge(chunk, filter, first, rows) };
    doubt.iter_mut().enumerate().for_each(|(at, word)| *word |= rows[at] & edited(at));
    if doubt.iter().any(|&word| word != 0) {
        let judged = judge(chunk, filter, first, &doubt);
        passing.iter_mut().zip(judged).for_each(|(word, more)| *word |= more);
    }
    passing
}

/// Which of `rows` pass, decided row by row.
pub fn judge(chunk: &Chunk, filter: &Filter, first: usize, rows: &[u64]) -> Vec<u64> {
    let mut passing = vec![0; rows.len()];
    chunk.visit_attributes(first, rows, |row, attributes| {
        passing[row / 64 - first] |= u64::from(filter.matches(attributes)) << (row % 64);
    });
    passing
}
