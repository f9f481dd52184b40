//! Writes replies as RESP2 or RESP3.

use std::fmt::{self, Write};

use bytes::{BufMut, BytesMut};

use crate::command::reply::{Protocol, Reply};

/// Deepest nesting that is written. Replies are built by our own commands and stay far below; an error takes the
/// place of anything deeper, so that the stack is bounded and the stream stays readable.
pub const REPLY_DEPTH_MAX: usize = 32;

/// Size of the buffer [`format_double`] writes into; the longest text has 25 bytes.
pub const DOUBLE_TEXT_BYTES: usize = 32;

/// Whole numbers up to this size (2^62) are written with all their digits.
const WHOLE_DOUBLE_MAX: f64 = 4_611_686_018_427_387_904.0;

const CRLF: &[u8; 2] = b"\r\n";

/// Appends `reply` to `out` in the given protocol version.
pub fn encode(reply: &Reply, protocol: Protocol, out: &mut BytesMut) {
    Encoder { protocol, out }.reply(reply, 0);
}

struct Encoder<'a> {
    protocol: Protocol,
    out: &'a mut BytesMut,
}

impl Encoder<'_> {
    fn reply(&mut self, reply: &Reply, depth: usize) {
        if depth > REPLY_DEPTH_MAX {
            return self.line(b'-', "ERR reply nested too deeply");
        }
        let resp3 = self.protocol == Protocol::Resp3;
        match reply {
            Reply::Simple(text) => self.line(b'+', text),
            Reply::Error(text) => self.line(b'-', text),
            Reply::Integer(value) => self.integer(*value),
            Reply::Double(value) => self.double(*value),
            Reply::Boolean(value) if resp3 => self.out.put_slice(if *value { b"#t\r\n" } else { b"#f\r\n" }),
            Reply::Boolean(value) => self.out.put_slice(if *value { b":1\r\n" } else { b":0\r\n" }),
            Reply::Bulk(bytes) => self.bulk(bytes),
            Reply::Verbatim(text) if resp3 => self.verbatim(text),
            Reply::Verbatim(text) => self.bulk(text.as_bytes()),
            Reply::Null | Reply::NullArray if resp3 => self.out.put_slice(b"_\r\n"),
            Reply::Null => self.out.put_slice(b"$-1\r\n"),
            Reply::NullArray => self.out.put_slice(b"*-1\r\n"),
            Reply::Array(items) => self.items(b'*', items, depth),
            Reply::Set(items) => self.items(if resp3 { b'~' } else { b'*' }, items, depth),
            Reply::Table(rows) if resp3 => {
                self.header(b'%', rows.len());
                for (key, values) in rows {
                    self.reply(key, depth + 1);
                    self.items(b'*', values, depth + 1);
                }
            }
            Reply::Table(rows) => {
                self.header(b'*', rows.iter().map(|(_, values)| 1 + values.len()).sum());
                for item in rows.iter().flat_map(|(key, values)| std::iter::once(key).chain(values)) {
                    self.reply(item, depth + 1);
                }
            }
            Reply::Map(pairs) => {
                if resp3 {
                    self.header(b'%', pairs.len());
                } else {
                    self.header(b'*', pairs.len() * 2);
                }
                for (key, value) in pairs {
                    self.reply(key, depth + 1);
                    self.reply(value, depth + 1);
                }
            }
        }
    }

    fn items(&mut self, kind: u8, items: &[Reply], depth: usize) {
        self.header(kind, items.len());
        for item in items {
            self.reply(item, depth + 1);
        }
    }

    /// A one-line text: line ends inside it would end the reply early, so they become spaces.
    fn line(&mut self, kind: u8, text: &str) {
        self.out.reserve(text.len() + 3);
        self.out.put_u8(kind);
        let start = self.out.len();
        self.out.put_slice(text.as_bytes());
        for byte in &mut self.out[start..] {
            if matches!(byte, b'\r' | b'\n') {
                *byte = b' ';
            }
        }
        self.out.put_slice(CRLF);
    }

    fn integer(&mut self, value: i64) {
        let mut text = Text::new();
        text.push(b':');
        text.push_integer(value);
        text.push_all(CRLF);
        self.out.put_slice(text.as_bytes());
    }

    fn double(&mut self, value: f64) {
        let mut buffer = [0; DOUBLE_TEXT_BYTES];
        let text = format_double(value, &mut buffer);
        if self.protocol == Protocol::Resp2 {
            return self.bulk(text);
        }
        self.out.reserve(text.len() + 3);
        self.out.put_u8(b',');
        self.out.put_slice(text);
        self.out.put_slice(CRLF);
    }

    fn bulk(&mut self, bytes: &[u8]) {
        self.header(b'$', bytes.len());
        self.out.reserve(bytes.len() + CRLF.len());
        self.out.put_slice(bytes);
        self.out.put_slice(CRLF);
    }

    /// Plain text with its kind `txt:`, which counts in the length.
    fn verbatim(&mut self, text: &str) {
        const KIND: &[u8; 4] = b"txt:";
        self.header(b'=', KIND.len() + text.len());
        self.out.put_slice(KIND);
        self.out.put_slice(text.as_bytes());
        self.out.put_slice(CRLF);
    }

    /// A type byte and a length.
    fn header(&mut self, kind: u8, len: usize) {
        let mut text = Text::new();
        text.push(kind);
        text.push_digits(len as u64);
        text.push_all(CRLF);
        self.out.put_slice(text.as_bytes());
    }
}

/// A short text on the stack. Every caller's text fits; what would not fit is a bug and panics.
struct Text {
    bytes: [u8; DOUBLE_TEXT_BYTES],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Self { bytes: [0; DOUBLE_TEXT_BYTES], len: 0 }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    fn push_all(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn push_zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }

    fn push_integer(&mut self, value: i64) {
        if value < 0 {
            self.push(b'-');
        }
        self.push_digits(value.unsigned_abs());
    }

    fn push_digits(&mut self, mut value: u64) {
        const DIGITS_MAX: usize = 20;
        let mut digits = [0; DIGITS_MAX];
        let mut start = DIGITS_MAX;
        loop {
            start -= 1;
            digits[start] = b'0' + (value % 10) as u8;
            value /= 10;
            if value == 0 {
                break;
            }
        }
        self.push_all(&digits[start..]);
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push_all(text.as_bytes());
        Ok(())
    }
}

/// The text of `value` as Redis 8 prints it: the shortest decimal that reads back as the same `f64`, laid out so
///
/// - whole numbers up to 2^62: all digits (`0` and `-0` too);
/// - otherwise, with the `n` shortest digits as a whole number `d`, `value = d * 10^k` and `e = k + n - 1`:
///   `k >= 0` and `e < n + 7`: `d` and `k` zeros; `k < 0` and (`k > -7` or `|e| < 4`): a plain decimal fraction;
///   else `d.ddde+x` or `d.ddde-x`;
/// - `inf`, `-inf`, `nan`.
///
/// (The rule was found by comparing with Redis 8.0.6.)
pub fn format_double(value: f64, buffer: &mut [u8; DOUBLE_TEXT_BYTES]) -> &[u8] {
    let mut text = Text::new();
    if value.is_nan() {
        text.push_all(b"nan");
    } else {
        if value.is_sign_negative() {
            text.push(b'-');
        }
        push_magnitude(&mut text, value.abs());
    }
    *buffer = text.bytes;
    &buffer[..text.len]
}

fn push_magnitude(text: &mut Text, value: f64) {
    if value.is_infinite() {
        return text.push_all(b"inf");
    }
    if value <= WHOLE_DOUBLE_MAX && value.fract() == 0.0 {
        #[expect(clippy::cast_possible_truncation, reason = "whole, not negative, at most 2^62")]
        return text.push_digits(value as u64);
    }
    // The names of the rule above.
    let (d, e) = shortest_digits(value);
    let n = i32::try_from(d.len).unwrap_or(i32::MAX);
    let k = e - n + 1;
    if k >= 0 && e < n + 7 {
        text.push_all(d.as_bytes());
        text.push_zeros(k.unsigned_abs() as usize);
    } else if k < 0 && (k > -7 || e.abs() < 4) {
        push_fraction(text, d.as_bytes(), e);
    } else {
        push_scientific(text, d.as_bytes(), e);
    }
}

/// The fewest decimal digits that tell a positive finite `value` from every other `f64`, without trailing zeros,
/// and the exponent of the first one: `value = d.ddd * 10^e`.
fn shortest_digits(value: f64) -> (Text, i32) {
    // The standard library finds the digits (`1.2345e-7`); its longest text has 23 bytes.
    let mut scientific = Text::new();
    let written = write!(scientific, "{value:e}");
    debug_assert!(written.is_ok());
    let mut digits = Text::new();
    let mut exponent: i32 = 0;
    let mut parts = scientific.as_bytes().split(|&byte| byte == b'e');
    for &byte in parts.next().unwrap_or_default().iter().filter(|byte| byte.is_ascii_digit()) {
        digits.push(byte);
    }
    let exponent_text = parts.next().unwrap_or_default();
    for &byte in exponent_text.iter().filter(|byte| byte.is_ascii_digit()) {
        exponent = exponent * 10 + i32::from(byte - b'0');
    }
    (digits, if exponent_text.starts_with(b"-") { -exponent } else { exponent })
}

/// `digits` as a plain decimal with a point; `exponent` is that of the first digit.
fn push_fraction(text: &mut Text, digits: &[u8], exponent: i32) {
    if exponent < 0 {
        text.push_all(b"0.");
        text.push_zeros(exponent.unsigned_abs() as usize - 1);
        text.push_all(digits);
    } else {
        let (whole, fraction) = digits.split_at(exponent.unsigned_abs() as usize + 1);
        text.push_all(whole);
        text.push(b'.');
        text.push_all(fraction);
    }
}

/// `digits` as `d.ddde+x`; the exponent always has a sign.
fn push_scientific(text: &mut Text, digits: &[u8], exponent: i32) {
    let (first, more) = digits.split_at(1);
    text.push_all(first);
    if !more.is_empty() {
        text.push(b'.');
        text.push_all(more);
    }
    text.push_all(if exponent < 0 { b"e-" } else { b"e+" });
    text.push_digits(u64::from(exponent.unsigned_abs()));
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
