//! Words of a text, by Unicode's word boundaries (UAX #29).
//!
//! Chinese, Japanese and Korean do not divide words by blanks, and word boundaries know no dictionary: runs of their
//! characters become overlapping pairs, which find words of any length without one.

use unicode_segmentation::UnicodeSegmentation;

/// Whether a character belongs to a script whose runs become pairs: Han, Hiragana, Katakana, Hangul syllables.
fn is_paired(c: char) -> bool {
    matches!(u32::from(c),
        0x3041..=0x3096 | 0x30A1..=0x30FA | 0x30FC..=0x30FE // Hiragana, Katakana
        | 0x3005 | 0x3007 | 0x3400..=0x4DBF | 0x4E00..=0x9FFF | 0xF900..=0xFAFF | 0x2_0000..=0x3_FFFF // Han
        | 0xAC00..=0xD7A3) // Hangul
}

/// Calls `visit` with each word of a text that is in lower case.
pub(super) fn visit(text: &str, visit: &mut dyn FnMut(&str)) {
    if text.is_ascii() {
        return visit_ascii(text, visit);
    }
    // The part of the text between runs of pairs, and inside one.
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(is_paired).unwrap_or(rest.len());
        rest[..run].unicode_words().for_each(&mut *visit);
        rest = &rest[run..];
        let end = rest.find(|c| !is_paired(c)).unwrap_or(rest.len());
        pairs(&rest[..end], visit);
        rest = &rest[end..];
    }
}

/// The overlapping pairs of characters; a single one is a word itself.
fn pairs(run: &str, visit: &mut dyn FnMut(&str)) {
    let starts: Vec<usize> = run.char_indices().map(|(at, _)| at).chain([run.len()]).collect();
    match starts.len() {
        0 | 1 => {}
        2 => visit(run),
        _ => starts.windows(3).for_each(|pair| visit(&run[pair[0]..pair[2]])),
    }
}

/// What a byte is to the rules for word boundaries.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Letter,
    Digit,
    /// Joins to both: `_`.
    Joint,
    /// Between letters: `:`.
    BetweenLetters,
    /// Between digits: `,` `;`.
    BetweenDigits,
    /// Between either: `.` `'`.
    Between,
    Other,
}

fn class(byte: u8) -> Class {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
        b'0'..=b'9' => Class::Digit,
        b'_' => Class::Joint,
        b':' => Class::BetweenLetters,
        b',' | b';' => Class::BetweenDigits,
        b'.' | b'\'' => Class::Between,
        _ => Class::Other,
    }
}

/// The same boundaries for text in ASCII, several times as fast.
fn visit_ascii(text: &str, visit: &mut dyn FnMut(&str)) {
    let bytes = text.as_bytes();
    let class_at = |at: usize| bytes.get(at).map_or(Class::Other, |&byte| class(byte));
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let mut is_word = false;
        loop {
            match class_at(at) {
                Class::Letter | Class::Digit => {
                    is_word = true;
                    at += 1;
                }
                Class::Joint => at += 1,
                between if at > start && joins(class_at(at - 1), between, class_at(at + 1)) => at += 1,
                _ => break,
            }
        }
        if is_word {
            visit(&text[start..at]);
        }
        at += usize::from(at == start);
    }
}

/// Whether a mark between two characters does not divide them.
fn joins(before: Class, mark: Class, after: Class) -> bool {
    match mark {
        Class::BetweenLetters => before == Class::Letter && after == Class::Letter,
        Class::BetweenDigits => before == Class::Digit && after == Class::Digit,
        Class::Between => before == after && matches!(before, Class::Letter | Class::Digit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        let mut words = Vec::new();
        visit(text, &mut |word| words.push(word.to_owned()));
        words
    }

    #[test]
    fn words_are_those_of_unicode() {
        assert_eq!(words("it's 3.14, a_b e.g. x:y\tz-1"), ["it's", "3.14", "a_b", "e.g", "x:y", "z", "1"]);
        assert_eq!(words("naïve café’s"), ["naïve", "café’s"]);
        assert!(words(" ._'’ \u{301}").is_empty());
    }

    #[test]
    fn chinese_japanese_and_korean_become_pairs() {
        assert_eq!(words("向量数据库 is 好"), ["向量", "量数", "数据", "据库", "is", "好"]);
        assert_eq!(words("東京タワー"), ["東京", "京タ", "タワ", "ワー"]);
        assert_eq!(words("서울 시"), ["서울", "시"]);
    }

    proptest! {
        #[test]
        fn ascii_is_divided_as_unicode_says(text in "[ -~\n\t]{0,40}", dense in "[a1_:,.']{0,12}") {
            for text in [text, dense] {
                prop_assert_eq!(words(&text), text.unicode_words().collect::<Vec<_>>(), "{:?}", text);
            }
        }
    }
}
