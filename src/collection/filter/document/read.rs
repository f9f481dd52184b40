//! Finds values in attributes for the JSON dialect, straight from their bytes.
//!
//! As lenient as the reader for expressions: it reads only as far as it must, what is broken there is missing, and of
//! several fields with one name the first counts. Strings and names are decoded as JSON says.

use super::super::json::Scanner;
use super::super::text::{Escapes, Text};
use super::super::value::Value;

/// The value at a path of an object, such as `author.name`.
pub(in crate::collection::filter) fn find<'a>(object: &'a [u8], path: &[u8]) -> Option<Value<'a>> {
    path.split(|&byte| byte == b'.').try_fold(Value::Object(object), |value, name| match value {
        Value::Object(object) => field(object, name),
        _ => None,
    })
}

fn field<'a>(object: &'a [u8], name: &[u8]) -> Option<Value<'a>> {
    let mut scanner = Scanner { bytes: object, at: 0 };
    if !scanner.takes(b'{') {
        return None;
    }
    loop {
        scanner.skip_blanks();
        let found = text(&mut scanner)?;
        if !scanner.takes(b':') {
            return None;
        }
        if *found.bytes() == *name {
            return value(&mut scanner);
        }
        scanner.skip_value()?;
        if !scanner.takes(b',') {
            return None;
        }
    }
}

/// The items of an array that [`Value::Array`] holds.
pub(super) fn items(inner: &[u8]) -> impl Iterator<Item = Value<'_>> {
    let mut scanner = Scanner { bytes: inner, at: 0 };
    std::iter::from_fn(move || {
        let item = value(&mut scanner)?;
        scanner.takes(b',');
        Some(item)
    })
}

fn text<'a>(scanner: &mut Scanner<'a>) -> Option<Text<'a>> {
    let Text { raw, escapes } = scanner.string()?;
    Some(Text { raw, escapes: if escapes == Escapes::None { escapes } else { Escapes::Json } })
}

fn value<'a>(scanner: &mut Scanner<'a>) -> Option<Value<'a>> {
    scanner.skip_blanks();
    let start = scanner.at;
    match scanner.peek()? {
        b'"' => text(scanner).map(Value::Text),
        b't' => scanner.word(b"true").map(|()| Value::Bool(true)),
        b'f' => scanner.word(b"false").map(|()| Value::Bool(false)),
        b'n' => scanner.word(b"null").map(|()| Value::Null),
        b'[' => {
            scanner.skip_value()?;
            Some(Value::Array(&scanner.bytes[start + 1..scanner.at - 1]))
        }
        b'{' => {
            scanner.skip_value()?;
            Some(Value::Object(&scanner.bytes[start..scanner.at]))
        }
        _ => str::from_utf8(scanner.number_text()).ok()?.parse().ok().map(Value::Number),
    }
}
