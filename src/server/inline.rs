//! Inline commands: a line of words, as typed into telnet.

/// The words of one line (without its line end), or `None` if its quotes are unbalanced.
///
/// Words are separated by blanks. `"..."` knows `\n \r \t \b \a \\ \"` and `\xNN` (any other escaped character is
/// itself), `'...'` knows only `\'`. A quote may open inside a word, but after it closes the word must end.
pub(super) fn split(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut words = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(words);
        }
        let (word, after) = word(rest)?;
        words.push(word);
        rest = after;
    }
}

/// The first word of `rest`, which does not begin with a blank, and what follows it.
fn word(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    while let Some((&byte, after)) = rest.split_first() {
        match byte {
            b'"' | b'\'' => {
                let after = quoted(byte, after, &mut word)?;
                return (after.is_empty() || is_blank(after[0])).then_some((word, after));
            }
            _ if is_blank(byte) => break,
            _ => word.push(byte),
        }
        rest = after;
    }
    Some((word, rest))
}

/// Appends the text up to the closing `quote` to `word`; gives what follows it, or `None` if it never closes.
fn quoted<'a>(quote: u8, mut rest: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            _ if byte == quote => return Some(rest),
            (b'\\', [b'\'', after @ ..]) if quote == b'\'' => {
                word.push(b'\'');
                rest = after;
            }
            (b'\\', [b'x', high, low, after @ ..])
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                word.push(hex_value(*high) << 4 | hex_value(*low));
                rest = after;
            }
            (b'\\', [escaped, after @ ..]) if quote == b'"' => {
                word.push(unescape(*escaped));
                rest = after;
            }
            _ => word.push(byte),
        }
    }
    None
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

/// The value of a hexadecimal digit (the caller has checked that it is one).
fn hex_value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        Some(split(line.as_bytes())?.into_iter().map(|word| word.escape_ascii().to_string()).collect())
    }

    #[test]
    fn blanks_separate_words() {
        assert_eq!(words("").unwrap(), [""; 0]);
        assert_eq!(words(" \t ").unwrap(), [""; 0]);
        assert_eq!(words("  set  key\tvalue ").unwrap(), ["set", "key", "value"]);
    }

    #[test]
    fn double_quotes_know_escapes() {
        assert_eq!(words(r#"a "b c" "" d"#).unwrap(), ["a", "b c", "", "d"]);
        assert_eq!(words(r#""\n\r\t\b\a\\\"\q""#).unwrap(), [r#"\n\r\t\x08\x07\\\"q"#]);
        assert_eq!(words(r#""\x00\xfF\xg0\x""#).unwrap(), [r"\x00\xffxg0x"]);
        assert_eq!(words(r#""it's""#).unwrap(), [r"it\'s"]);
    }

    #[test]
    fn single_quotes_know_one_escape() {
        assert_eq!(words(r#"'a\'b' 'c\n"'"#).unwrap(), [r"a\'b", r#"c\\n\""#]);
    }

    #[test]
    fn a_quote_may_open_inside_a_word() {
        assert_eq!(words(r#"a"b c" d"#).unwrap(), ["ab c", "d"]);
    }

    #[test]
    fn unbalanced_quotes() {
        for line in [r#"""#, "'", r#"a "b"#, "a 'b", r#""a"b"#, r#"'a'b"#, r#""a""b""#, r#""a\"#, r#"'a\'"#] {
            assert_eq!(words(line), None, "{line}");
        }
    }
}
