//! One field of a chunk's rows.
//!
//! A string is a code of two bytes in each row. A compressed bitmap for each string would take as much memory and be slower:
//! an answer is a plain bitmap, and comparing the codes makes one in 0.1 ns a row, whatever passes; setting the bits of a
//! roaring bitmap one by one takes 0.5 ns a row where one row in ten passes, and 0.06 ns where one in a hundred does.

use std::ops::Range;

use hashbrown::HashTable;

use crate::collection::filter::plan::NumberTest;
use crate::collection::filter::text::{Escapes, Text};
use crate::collection::filter::value::Value;
use crate::collection::ids::hash_name;
use crate::collection::set_bits;

/// Distinct values that are not numbers which a column keeps; rows with others are left to the row evaluator.
pub const MAX_VALUES: usize = 4096;
/// A column is given up if on the average a value came less often than this when the dictionary was full.
const MIN_USES: usize = 2;
/// Longest string or array, in bytes, that a column keeps.
pub const MAX_VALUE_BYTES: usize = 256;

/// The code of a row whose value is not in the dictionary.
const NO_CODE: u16 = u16::MAX;
/// So many of the dictionary's values are looked for one by one; more are looked up row by row.
const MAX_SCANNED_CODES: usize = 4;

/// What a value of the dictionary is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Null,
    Text,
    Array,
    False,
    True,
    Object,
}

/// A value of the dictionary.
#[derive(Clone)]
struct Distinct {
    kind: Kind,
    /// A string with its escapes decoded, what stands between an array's brackets, or an object.
    bytes: Box<[u8]>,
}

impl Distinct {
    fn value(&self) -> Value<'_> {
        match self.kind {
            Kind::Null => Value::Null,
            Kind::Text => Value::Text(Text { raw: &self.bytes, escapes: Escapes::None }),
            Kind::Array => Value::Array(&self.bytes),
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Object => Value::Object(&self.bytes),
        }
    }
}

/// The values of one field in a chunk's rows. Every row is missing (the state of a new row), a number, in the dictionary,
/// or in doubt: it has a value, which the column does not keep.
///
/// A column whose dictionary fills up with values of which hardly any comes again is *given up*: it keeps nothing, and
/// has every row in doubt.
#[derive(Clone, Default)]
pub struct Column {
    given_up: bool,
    /// How often a value was in the dictionary, or went there.
    coded: usize,
    /// Bit i of word i / 64: row i has the field.
    present: Vec<u64>,
    /// Rows in doubt.
    doubt: Vec<u64>,
    /// Rows whose value is a number.
    number: Vec<u64>,
    /// The numbers; empty while no row has one.
    numbers: Vec<f64>,
    /// Positions in `values`, or [`NO_CODE`]; empty while no row has one.
    codes: Vec<u16>,
    values: Vec<Distinct>,
    /// Positions in `values` by the hash of their bytes.
    code_by_hash: HashTable<u16>,
}

impl Column {
    /// Words of a bitmap of its rows.
    pub fn words(&self) -> usize {
        self.present.len()
    }

    /// Has at least that many words of rows.
    pub fn grow(&mut self, words: usize) {
        if words <= self.words() || self.given_up {
            return;
        }
        for bitmap in [&mut self.present, &mut self.doubt, &mut self.number] {
            bitmap.resize(words, 0);
        }
        if !self.numbers.is_empty() {
            self.numbers.resize(words * 64, f64::NAN);
        }
        if !self.codes.is_empty() {
            self.codes.resize(words * 64, NO_CODE);
        }
    }

    /// Sets what a row has; `None` if the field is missing.
    pub fn set(&mut self, row: usize, value: Option<Value<'_>>) {
        if self.given_up {
            return;
        }
        let (word, bit) = (row / 64, 1 << (row % 64));
        for bitmap in [&mut self.present, &mut self.doubt, &mut self.number] {
            bitmap[word] &= !bit;
        }
        if let Some(code) = self.codes.get_mut(row) {
            *code = NO_CODE;
        }
        let Some(value) = value else { return };
        self.present[word] |= bit;
        let code = match value {
            Value::Number(number) => {
                if self.numbers.is_empty() {
                    self.numbers.resize(self.words() * 64, f64::NAN);
                }
                self.numbers[row] = number;
                self.number[word] |= bit;
                return;
            }
            Value::Null => self.code(Kind::Null, &[]),
            Value::Text(text) => self.code(Kind::Text, &text.bytes()),
            Value::Array(inner) => self.code(Kind::Array, inner),
            Value::Bool(false) => self.code(Kind::False, &[]),
            Value::Bool(true) => self.code(Kind::True, &[]),
            Value::Object(text) => self.code(Kind::Object, text),
            // Attributes have none.
            Value::Tuple(_) => None,
        };
        match code {
            None if self.is_full() && self.coded < MAX_VALUES * MIN_USES => {
                *self = Self { given_up: true, ..Self::default() };
            }
            None => self.doubt[word] |= bit,
            Some(code) => {
                if self.codes.is_empty() {
                    self.codes.resize(self.words() * 64, NO_CODE);
                }
                self.codes[row] = code;
                self.coded += 1;
            }
        }
    }

    /// The code of a value; a new one if there is room. `None` if it is not kept.
    fn code(&mut self, kind: Kind, bytes: &[u8]) -> Option<u16> {
        if bytes.len() > MAX_VALUE_BYTES {
            return None;
        }
        let hash = hash_name(bytes);
        let values = &self.values;
        let is_same = |&code: &u16| {
            let value = &values[usize::from(code)];
            value.kind == kind && *value.bytes == *bytes
        };
        if let Some(&code) = self.code_by_hash.find(hash, is_same) {
            return Some(code);
        }
        if self.is_full() {
            return None;
        }
        let code = u16::try_from(values.len()).ok()?;
        self.code_by_hash.insert_unique(hash, code, |&code| hash_name(&values[usize::from(code)].bytes));
        self.values.push(Distinct { kind, bytes: bytes.into() });
        Some(code)
    }

    /// Whether the dictionary takes no more values.
    fn is_full(&self) -> bool {
        self.values.len() >= MAX_VALUES
    }

    /// Whether it has every row in doubt, whatever it is told.
    pub fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// Whether some rows are in doubt because there are too many values.
    pub fn is_overfull(&self) -> bool {
        self.given_up || self.is_full()
    }

    /// Rows that have the field, 64 of them; or that may have it, if they are in doubt.
    pub fn present(&self, word: usize) -> u64 {
        if self.given_up { u64::MAX } else { self.present[word] }
    }

    /// Rows that are in doubt, 64 of them.
    pub fn doubt(&self, word: usize) -> u64 {
        if self.given_up { u64::MAX } else { self.doubt[word] }
    }

    /// The value of a row that is not in doubt.
    pub fn value(&self, row: usize) -> Option<Value<'_>> {
        if self.number[row / 64] >> (row % 64) & 1 == 1 {
            return Some(Value::Number(self.numbers[row]));
        }
        let code = *self.codes.get(row)?;
        self.values.get(usize::from(code)).map(Distinct::value)
    }

    /// Which of `rows`, the words from `first` on, have a value that `holds`; each must have one that is not in doubt.
    /// `number_test` says the same of numbers.
    pub fn passing<'a>(
        &'a self,
        first: usize,
        rows: &[u64],
        number_test: Option<&NumberTest>,
        mut holds: impl FnMut(Value<'a>) -> bool,
    ) -> Vec<u64> {
        let span = first * 64..(first + rows.len()) * 64;
        let numeric = &self.number[first..first + rows.len()];
        let mut passing = vec![0; rows.len()];
        if let Some(numbers) = self.numbers.get(span.clone()) {
            match number_test {
                Some(test) => scan(test, numbers, &mut passing),
                None => {
                    let asked: Vec<u64> =
                        rows.iter().zip(numeric).map(|(row, number)| row & number).collect();
                    for at in set_bits(&asked) {
                        passing[at / 64] |= u64::from(holds(Value::Number(numbers[at]))) << (at % 64);
                    }
                }
            }
            passing.iter_mut().zip(numeric).for_each(|(passing, number)| *passing &= number);
        }
        self.add_from_dictionary(span, rows, holds, &mut passing);
        passing
    }

    /// Adds the rows whose value is in the dictionary and `holds`.
    fn add_from_dictionary<'a>(
        &'a self,
        span: Range<usize>,
        rows: &[u64],
        mut holds: impl FnMut(Value<'a>) -> bool,
        passing: &mut [u64],
    ) {
        let numeric = &self.number[span.start / 64..];
        let asked: Vec<u64> = rows.iter().zip(numeric).map(|(row, number)| row & !number).collect();
        let asked_rows: usize = asked.iter().map(|word| word.count_ones() as usize).sum();
        let Some(codes) = self.codes.get(span).filter(|_| asked_rows > 0) else { return };
        if asked_rows < self.values.len() {
            for at in set_bits(&asked) {
                let value = self.values.get(usize::from(codes[at]));
                passing[at / 64] |= u64::from(value.is_some_and(|value| holds(value.value()))) << (at % 64);
            }
            return;
        }
        let verdicts: Vec<bool> = self.values.iter().map(|value| holds(value.value())).collect();
        let passed: Vec<u16> =
            (0..).zip(&verdicts).filter(|(_, passes)| **passes).map(|(code, _)| code).collect();
        if passed.len() <= MAX_SCANNED_CODES {
            passed.iter().for_each(|&passed| add_where(codes, |code| code == passed, passing));
        } else {
            let verdict = |code: u16| verdicts.get(usize::from(code)).copied().unwrap_or(false);
            add_where(codes, verdict, passing);
        }
    }

    /// Bytes of memory.
    pub fn size_bytes(&self) -> usize {
        // What the allocator adds to a value's bytes.
        const VALUE_OVERHEAD_BYTES: usize = 16;
        let bitmaps = self.present.capacity() + self.doubt.capacity() + self.number.capacity();
        let values: usize = self.values.iter().map(|value| value.bytes.len() + VALUE_OVERHEAD_BYTES).sum();
        size_of::<Self>()
            + bitmaps * 8
            + self.numbers.capacity() * size_of::<f64>()
            + self.codes.capacity() * size_of::<u16>()
            + self.values.capacity() * size_of::<Distinct>()
            + self.code_by_hash.allocation_size()
            + values
    }
}

/// Adds the rows whose number passes. Rows without one are NaN; what is said of them does not count.
fn scan(test: &NumberTest, numbers: &[f64], passing: &mut [u64]) {
    match test {
        NumberTest::Less(limit) => add_where(numbers, |number| number < *limit, passing),
        NumberTest::LessOrEqual(limit) => add_where(numbers, |number| number <= *limit, passing),
        NumberTest::Greater(limit) => add_where(numbers, |number| number > *limit, passing),
        NumberTest::GreaterOrEqual(limit) => add_where(numbers, |number| number >= *limit, passing),
        NumberTest::OneOf(wanted) => {
            wanted.iter().for_each(|wanted| add_where(numbers, |number| number == *wanted, passing));
        }
        NumberTest::NoneOf(unwanted) => {
            unwanted.iter().for_each(|unwanted| add_where(numbers, |number| number == *unwanted, passing));
            passing.iter_mut().for_each(|word| *word = !*word);
        }
    }
}

/// Sets the bits of `items` that are as wanted. There are 64 items for each word.
fn add_where<T: Copy>(items: &[T], wanted: impl Fn(T) -> bool, passing: &mut [u64]) {
    for (items, word) in items.as_chunks::<64>().0.iter().zip(passing) {
        // Bytes first: compilers know how to compare many items at once, but not how to make bits of them.
        let flags = items.map(|item| u8::from(wanted(item)));
        for (eight, at) in flags.as_chunks::<8>().0.iter().zip(0..) {
            *word |= (u64::from_le_bytes(*eight).wrapping_mul(GATHER_BITS) >> 56) << (8 * at);
        }
    }
}

/// A product with this has the lowest bits of eight bytes side by side in its highest byte, that of the first byte lowest.
const GATHER_BITS: u64 = 0x0102_0408_1020_4080;
