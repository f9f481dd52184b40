//! Configuration files: one option a line, `name value...`; blank lines and lines that begin with `#` do not
//! count.

use std::io::Read;

/// Longest accepted configuration file. A real one is a few KB; this keeps a wrong path (a device, a data
/// file) harmless.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a whole file as text.
///
/// # Errors
/// The file cannot be read, is longer than 1 MiB, or is not UTF-8.
pub(super) fn read_text(source: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    source.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(std::io::Error::other("longer than 1 MiB"));
    }
    Ok(text)
}

/// Splits a line into words. `"..."` keeps blanks and knows `\n \r \t \b \a \\ \" \xNN`, `'...'` keeps
/// everything but `\'`. A comment or blank line has no words.
///
/// # Errors
/// What is wrong with the line.
pub(super) fn split_line(line: &str) -> Result<Vec<String>, &'static str> {
    const UNBALANCED: &str = "unbalanced quotes";
    let line = line.trim();
    if line.starts_with('#') {
        return Ok(Vec::new());
    }
    let mut words = Vec::new();
    let mut rest = line.as_bytes().trim_ascii_start();
    while !rest.is_empty() {
        let mut word = Vec::new();
        rest = match rest[0] {
            b'"' => double_quoted(&rest[1..], &mut word).ok_or(UNBALANCED)?,
            b'\'' => single_quoted(&rest[1..], &mut word).ok_or(UNBALANCED)?,
            _ => plain(rest, &mut word).ok_or(UNBALANCED)?,
        };
        if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
            return Err("a closing quote must be followed by a blank");
        }
        words.push(String::from_utf8(word).map_err(|_| "a \\x escape made text that is not UTF-8")?);
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

/// Takes a word without quotes. A quote inside it is an error, as it is more likely a slip than meant.
fn plain<'a>(text: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (taken, rest) = text.split_at(end);
    word.extend_from_slice(taken);
    (!taken.contains(&b'"') && !taken.contains(&b'\'')).then_some(rest)
}

/// Takes up to the closing `"`, decoding escapes; gives what follows the quote.
fn double_quoted<'a>(mut text: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match text {
            [] => return None,
            [b'"', rest @ ..] => return Some(rest),
            [b'\\', b'x', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                word.push(hex_digit(*high) << 4 | hex_digit(*low));
                text = rest;
            }
            [b'\\', escaped, rest @ ..] => {
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                text = rest;
            }
            [byte, rest @ ..] => {
                word.push(*byte);
                text = rest;
            }
        }
    }
}

/// Takes up to the closing `'`; `\'` stands for a quote, everything else for itself.
fn single_quoted<'a>(mut text: &'a [u8], word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match text {
            [] => return None,
            [b'\'', rest @ ..] => return Some(rest),
            [b'\\', b'\'', rest @ ..] => {
                word.push(b'\'');
                text = rest;
            }
            [byte, rest @ ..] => {
                word.push(*byte);
                text = rest;
            }
        }
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_are_split_as_in_redis() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("   \t", &[]),
            ("# port 1", &[]),
            ("   # port 1", &[]),
            ("port 7000", &["port", "7000"]),
            ("\tbind  127.0.0.1\t::1 \r", &["bind", "127.0.0.1", "::1"]),
            (r#"save """#, &["save", ""]),
            ("logfile ''", &["logfile", ""]),
            (r#"dir "/my data/\x41\n\"q\"""#, &["dir", "/my data/A\n\"q\""]),
            (r"dir '/it\'s \n'", &["dir", r"/it's \n"]),
            (r#"requirepass "caf\xc3\xa9""#, &["requirepass", "café"]),
            ("requirepass a#b", &["requirepass", "a#b"]),
        ];
        for (line, words) in cases {
            assert_eq!(split_line(line).unwrap(), *words, "{line}");
        }
        for line in [r#"dir "open"#, "dir 'open", r#"dir "a"b"#, r#"dir a"b""#, r#"dir "\xff""#, r#"dir "\"#]
        {
            assert!(split_line(line).is_err(), "{line}");
        }
    }

    #[test]
    fn long_and_binary_files_are_refused() {
        assert!(read_text(std::io::repeat(b'#')).is_err());
        assert!(read_text(&[0xff, 0xfe][..]).is_err());
        assert_eq!(read_text(&b"port 1"[..]).unwrap(), "port 1");
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(word in "\\PC*") {
            let quoted = format!("x \"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(split_line(&quoted).unwrap(), vec!["x".to_owned(), word]);
        }

        #[test]
        fn never_panics(line: String) {
            let _ = split_line(&line);
        }
    }
}
