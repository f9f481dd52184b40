//! Strings as they stand in attributes and expressions, decoded only when they have to be.

use std::borrow::Cow;

/// Whether `byte` separates tokens: what C's `isspace` accepts.
pub(super) fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// Decodes backslash escapes: `\n`, `\r` and `\t` are control characters, any other escaped byte is itself. So `\u` is
/// not decoded: `\u00e9` gives the five characters `u00e9`, in attributes and in expressions alike.
pub(super) fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(other) => other,
                None => break,
            },
            plain => plain,
        });
    }
    decoded
}

/// Finds the end of a quoted string. `bytes` begins behind the opening quote.
/// Returns the length of the text before the closing quote, and whether it has escapes; None if nothing closes it.
pub(super) fn quoted_len(bytes: &[u8], quote: u8) -> Option<(usize, bool)> {
    let mut at = 0;
    let mut escaped = false;
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == quote || byte == b'\\')?;
        if bytes[at] == quote {
            return Some((at, escaped));
        }
        escaped = true;
        at += 2;
    }
}

/// Decodes JSON's backslash escapes. What JSON does not allow becomes the escaped character itself, or U+FFFD.
fn unescape_json(raw: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            decoded.push(*byte);
            continue;
        }
        let [escaped, after @ ..] = rest else { break };
        rest = after;
        match escaped {
            b'b' => decoded.push(8),
            b'f' => decoded.push(12),
            b'n' => decoded.push(b'\n'),
            b'r' => decoded.push(b'\r'),
            b't' => decoded.push(b'\t'),
            b'u' => {
                let (character, after) = code_point(rest);
                rest = after;
                decoded.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            }
            other => decoded.push(*other),
        }
    }
    decoded
}

/// The character of a `\u` escape, whose digits `rest` begins with, and what is behind it: two surrogates are one.
fn code_point(rest: &[u8]) -> (char, &[u8]) {
    let unit = |bytes: &[u8]| {
        let digits = bytes.first_chunk::<4>().filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    let Some(high) = unit(rest) else { return (char::REPLACEMENT_CHARACTER, rest) };
    let after = &rest[4..];
    if (0xd800..0xdc00).contains(&high)
        && let Some(low) = after.strip_prefix(b"\\u").and_then(unit).filter(|low| low & 0xfc00 == 0xdc00)
    {
        let joined = 0x1_0000 + ((high & 0x3ff) << 10 | low & 0x3ff);
        return (char::from_u32(joined).unwrap_or(char::REPLACEMENT_CHARACTER), &after[6..]);
    }
    (char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), after)
}

/// What backslashes mean in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::collection) enum Escapes {
    /// There are none.
    None,
    /// Those of [`unescape`].
    Plain,
    /// Those of JSON.
    Json,
}

/// A string, borrowed; its escapes are still in it if it has any.
#[derive(Debug, Clone, Copy)]
pub(in crate::collection) struct Text<'a> {
    /// The bytes between the quotes.
    pub raw: &'a [u8],
    /// What backslashes in `raw` mean.
    pub escapes: Escapes,
}

impl<'a> Text<'a> {
    /// The string's bytes; allocates only if there are escapes to decode.
    pub fn bytes(self) -> Cow<'a, [u8]> {
        match self.escapes {
            Escapes::None => Cow::Borrowed(self.raw),
            Escapes::Plain => Cow::Owned(unescape(self.raw)),
            Escapes::Json => Cow::Owned(unescape_json(self.raw)),
        }
    }

    /// Whether the string has no bytes.
    pub fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// Whether both strings have the same bytes.
    pub fn equals(self, other: Text) -> bool {
        self.bytes() == other.bytes()
    }

    /// Whether `part` occurs in this string, in time linear in both lengths.
    pub fn contains(self, part: Text) -> bool {
        let (whole, part) = (self.bytes(), part.bytes());
        match (str::from_utf8(&whole), str::from_utf8(&part)) {
            // std's search is linear, but only for str: bytes that are not UTF-8 become one char each.
            (Ok(whole), Ok(part)) => whole.contains(part),
            _ => latin1(&whole).contains(&latin1(&part)),
        }
    }
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(raw: &[u8]) -> Text<'_> {
        Text { raw, escapes: Escapes::None }
    }

    #[test]
    fn escapes_decode_to_one_byte_each() {
        assert_eq!(unescape(br#"a\n\r\t\"\'\\\/\u00e9\b"#), b"a\n\r\t\"'\\/u00e9b");
        assert_eq!(unescape(br"open\"), b"open");
    }

    #[test]
    fn escapes_of_json_decode_as_json_says() {
        let cases: [(&[u8], &str); 8] = [
            (br#"a\n\r\t\b\f\"\\\/"#, "a\n\r\t\u{8}\u{c}\"\\/"),
            (br"\u00e9\u4e2D", "\u{e9}\u{4e2d}"),
            (br"\ud83d\ude00!", "\u{1f600}!"),
            (br"\ud83d!", "\u{fffd}!"),
            (br"\ude00\ud83d", "\u{fffd}\u{fffd}"),
            (br"\u+123", "\u{fffd}+123"),
            (br"\u12", "\u{fffd}12"),
            (br"\", ""),
        ];
        for (raw, expected) in cases {
            assert_eq!(unescape_json(raw), expected.as_bytes());
        }
    }

    #[test]
    fn quoted_text_ends_at_the_first_quote_that_is_not_escaped() {
        assert_eq!(quoted_len(br#"abc" x"#, b'"'), Some((3, false)));
        assert_eq!(quoted_len(br#"a\"b'c"#, b'\''), Some((4, true)));
        assert_eq!(quoted_len(br#"a\""#, b'"'), None);
        assert_eq!(quoted_len(br"a\", b'"'), None);
        assert_eq!(quoted_len(b"", b'"'), None);
    }

    #[test]
    fn substrings_are_found_bytewise() {
        assert!(plain("Größe".as_bytes()).contains(plain("öß".as_bytes())));
        assert!(plain("ö".as_bytes()).contains(plain(b"\xb6")));
        assert!(plain(b"a\xffb").contains(plain(b"\xffb")));
        assert!(!plain(b"a\xffb").contains(plain(b"\xfe")));
        assert!(plain(b"abc").contains(plain(b"")));
        assert!(Text { raw: br#"x\"y"#, escapes: Escapes::Plain }.contains(plain(b"x\"")));
    }
}
