//! A lenient reader of attributes for expressions: finds the wanted top-level fields in one pass over the bytes and builds no tree.
//!
//! It reads only as far as it must: broken text behind the last wanted field goes unnoticed, and broken text before it
//! means that the field is missing. Of several fields with one name the first counts. Names and strings are taken as they
//! stand, with `\u` escapes undecoded. A value that cannot be used (an object, or an array that holds one) makes its field
//! missing. Attributes that are not an object have no fields.

use std::ops::ControlFlow;

use super::MAX_FILTER_DEPTH;
use super::text::{Escapes, Text, is_blank, quoted_len};
use super::value::Value;

/// Finds the fields called `names` (sorted, each once) in `attributes` and puts each value into the slot of `found` with
/// the same index. `found` comes all None. Returns whether every field was found.
pub(super) fn find_fields<'a>(
    attributes: &'a [u8],
    names: &[Box<[u8]>],
    found: &mut [Option<Value<'a>>],
) -> bool {
    let mut missing = names.len();
    each_field(attributes, names, |slot, value| {
        if found[slot].is_none() {
            found[slot] = value;
            if found[slot].is_none() {
                return ControlFlow::Break(());
            }
            missing -= 1;
        }
        if missing == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    missing == 0
}

/// Like [`find_fields`], but a field that is missing does not end the search for the others: what stands in its slot in the
/// end, `Some(Some(value))` or not, is what `find_fields` would find if it were asked for that field alone.
pub(in crate::collection) fn find_each<'a>(
    attributes: &'a [u8],
    names: &[Box<[u8]>],
    found: &mut [Option<Option<Value<'a>>>],
) {
    let mut unseen = names.len();
    each_field(attributes, names, |slot, value| {
        if found[slot].is_none() {
            found[slot] = Some(value);
            unseen -= 1;
        }
        if unseen == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
}

/// Calls `visit` with each field called one of `names`, as often as it occurs: its index there, and its value if it can be
/// used. Ends where `visit` breaks off or the text is broken.
fn each_field<'a>(
    attributes: &'a [u8],
    names: &[Box<[u8]>],
    mut visit: impl FnMut(usize, Option<Value<'a>>) -> ControlFlow<()>,
) {
    let mut scanner = Scanner { bytes: attributes, at: 0 };
    if names.is_empty() || !scanner.takes(b'{') {
        return;
    }
    while let Some(name) = scanner.field_name() {
        let value_at = scanner.at;
        if let Ok(slot) = names.binary_search_by(|wanted| wanted.as_ref().cmp(name)) {
            let value = scanner.value(0);
            if visit(slot, value).is_break() {
                return;
            }
            scanner.at = value_at;
        }
        if scanner.skip_value().is_none() || !scanner.takes(b',') {
            return;
        }
    }
}

/// The items of an array that [`Value::Array`] holds.
pub(super) fn items(inner: &[u8]) -> impl Iterator<Item = Value<'_>> {
    let mut scanner = Scanner { bytes: inner, at: 0 };
    std::iter::from_fn(move || {
        let item = scanner.value(0)?;
        scanner.takes(b',');
        Some(item)
    })
}

/// A place in the attributes, for either dialect. The methods that return an Option give None where the text is not what they expect.
pub(super) struct Scanner<'a> {
    /// The attributes, or a part of them.
    pub bytes: &'a [u8],
    /// Where it is.
    pub at: usize,
}

impl<'a> Scanner<'a> {
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub fn skip_blanks(&mut self) {
        while self.peek().is_some_and(is_blank) {
            self.at += 1;
        }
    }

    /// Skips blanks, and then `byte` if it stands there. Returns whether it did.
    pub fn takes(&mut self, byte: u8) -> bool {
        self.skip_blanks();
        let taken = self.peek() == Some(byte);
        self.at += usize::from(taken);
        taken
    }

    /// Reads a name and the colon behind it.
    fn field_name(&mut self) -> Option<&'a [u8]> {
        self.skip_blanks();
        let name = self.string()?.raw;
        self.takes(b':').then_some(name)
    }

    /// Reads a value that an expression can use; `depth` counts the arrays around it.
    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        self.skip_blanks();
        match self.peek()? {
            b'"' => self.string().map(Value::Text),
            b'-' | b'+' | b'0'..=b'9' => {
                let text = str::from_utf8(self.number_text()).ok()?;
                text.parse().ok().map(Value::Number)
            }
            b't' => self.word(b"true").map(|()| Value::from(true)),
            b'f' => self.word(b"false").map(|()| Value::from(false)),
            b'n' => self.word(b"null").map(|()| Value::Null),
            b'[' => self.array(depth),
            _ => None,
        }
    }

    /// Moves past any value without looking into it.
    pub fn skip_value(&mut self) -> Option<()> {
        self.skip_blanks();
        match self.peek()? {
            b'"' => self.string().map(drop),
            b'{' => self.skip_brackets(b'{', b'}'),
            b'[' => self.skip_brackets(b'[', b']'),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => (!self.number_text().is_empty()).then_some(()),
        }
    }

    pub fn string(&mut self) -> Option<Text<'a>> {
        let inner = self.bytes.get(self.at..)?.strip_prefix(b"\"")?;
        let (len, escaped) = quoted_len(inner, b'"')?;
        self.at += len + 2;
        let escapes = if escaped { Escapes::Plain } else { Escapes::None };
        Some(Text { raw: &inner[..len], escapes })
    }

    /// Takes all that could belong to a number, whether it makes sense or not.
    pub fn number_text(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let is_part = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let len = rest.iter().take_while(is_part).count();
        self.at += len;
        &rest[..len]
    }

    /// Reads `word`, which must end there.
    pub fn word(&mut self, word: &[u8]) -> Option<()> {
        let rest = self.bytes[self.at..].strip_prefix(word)?;
        let ends = rest.first().is_none_or(|&next| is_blank(next) || matches!(next, b',' | b']' | b'}'));
        self.at += word.len();
        ends.then_some(())
    }

    fn array(&mut self, depth: usize) -> Option<Value<'a>> {
        if depth == MAX_FILTER_DEPTH {
            return None;
        }
        self.at += 1;
        let start = self.at;
        if !self.takes(b']') {
            loop {
                self.value(depth + 1)?;
                if self.takes(b']') {
                    break;
                }
                if !self.takes(b',') {
                    return None;
                }
            }
        }
        Some(Value::Array(&self.bytes[start..self.at - 1]))
    }

    /// Moves past an object or array, counting only its own kind of bracket outside strings.
    fn skip_brackets(&mut self, open: u8, close: u8) -> Option<()> {
        let mut depth = 0usize;
        loop {
            let byte = self.peek()?;
            if byte == b'"' {
                self.string()?;
                continue;
            }
            self.at += 1;
            if byte == open {
                depth += 1;
            } else if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Some(());
                }
            }
        }
    }
}
