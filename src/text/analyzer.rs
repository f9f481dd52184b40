//! What terms a text has.
//!
//! A text is brought into Unicode's normal form NFKC and lower case and cut into words (`words.rs`). What is done with the words
//! depends on the analyzer. Each analyzer has a code, which stands for its name and its version for good: collections keep
//! it, so that queries are always analysed as the texts were.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;

use super::words;

/// Bytes of a term; a longer word is cut there.
const MAX_TERM_BYTES: usize = 255;
/// Characters in an n-gram.
const MAX_NGRAM: u8 = 8;

/// Stop words of `en`: the usual 33 of English keyword search.
const ENGLISH_STOP_WORDS: [&str; 33] = [
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no",
    "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to",
    "was", "will", "with",
];

/// Analyzers with a name of their own: name, code and stemmer. `en` is 0, which is also what collections made before
/// there were analyzers have.
const NAMED: [(&str, u16, Option<Algorithm>); 19] = [
    ("en", 0, Some(Algorithm::English)),
    ("standard", 1, None),
    ("ar", 2, Some(Algorithm::Arabic)),
    ("da", 3, Some(Algorithm::Danish)),
    ("nl", 4, Some(Algorithm::Dutch)),
    ("fi", 5, Some(Algorithm::Finnish)),
    ("fr", 6, Some(Algorithm::French)),
    ("de", 7, Some(Algorithm::German)),
    ("el", 8, Some(Algorithm::Greek)),
    ("hu", 9, Some(Algorithm::Hungarian)),
    ("it", 10, Some(Algorithm::Italian)),
    ("no", 11, Some(Algorithm::Norwegian)),
    ("pt", 12, Some(Algorithm::Portuguese)),
    ("ro", 13, Some(Algorithm::Romanian)),
    ("ru", 14, Some(Algorithm::Russian)),
    ("es", 15, Some(Algorithm::Spanish)),
    ("sv", 16, Some(Algorithm::Swedish)),
    ("ta", 17, Some(Algorithm::Tamil)),
    ("tr", 18, Some(Algorithm::Turkish)),
];
/// Code of `ngram(min,max)`: this, plus min << 4, plus max.
const NGRAM: u16 = 0x100;

/// How texts become terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Analyzer {
    code: u16,
}

/// The terms of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document {
    /// Terms, those that are in the text more than once counted each time.
    pub length: u32,
    /// Each term and how often it is in the text.
    pub terms: Vec<(Box<str>, u32)>,
}

impl Analyzer {
    /// The analyzer of that name, in any case: `en`, `standard`, a language's two letters, or `ngram(min,max)`.
    pub fn named(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        if let Some((_, code, _)) = NAMED.iter().find(|(known, ..)| *known == name) {
            return Some(Self { code: *code });
        }
        let (min, max) = name.strip_prefix("ngram(")?.strip_suffix(')')?.split_once(',')?;
        Self::ngram(min.trim().parse().ok()?, max.trim().parse().ok()?)
    }

    fn ngram(min: u8, max: u8) -> Option<Self> {
        let code = NGRAM + (u16::from(min) << 4) + u16::from(max);
        (1 <= min && min <= max && max <= MAX_NGRAM).then_some(Self { code })
    }

    /// The analyzer with this code; `None` if there is none.
    pub fn from_code(code: u16) -> Option<Self> {
        let [high, low] = code.to_be_bytes();
        match high {
            0 => NAMED.iter().any(|(_, known, _)| *known == code).then_some(Self { code }),
            1 => Self::ngram(low >> 4, low & 15),
            _ => None,
        }
    }

    /// Its code: stands for its name and version in files.
    pub fn code(self) -> u16 {
        self.code
    }

    fn ngram_sizes(self) -> Option<(usize, usize)> {
        (self.code & NGRAM != 0).then_some((usize::from(self.code >> 4 & 15), usize::from(self.code & 15)))
    }

    /// Calls `visit` with each term of a text, in order. What is not UTF-8 ends words.
    pub fn visit(self, text: &[u8], visit: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(text);
        let text = normalized(&text);
        if let Some((min, max)) = self.ngram_sizes() {
            words::visit(&text, &mut |word| ngrams(word, min, max, visit));
            return;
        }
        let algorithm = NAMED.iter().find(|(_, code, _)| *code == self.code).and_then(|known| known.2);
        let stemmer = algorithm.map(Stemmer::create);
        words::visit(&text, &mut |word| {
            let word = cut(word);
            match &stemmer {
                Some(_) if self.code == 0 && ENGLISH_STOP_WORDS.contains(&word) => {}
                Some(stemmer) => visit(&stemmer.stem(word)),
                None => visit(word),
            }
        });
    }

    /// The terms of a text with their numbers.
    pub fn document(self, text: &[u8]) -> Document {
        let mut document = Document::default();
        let mut places: HashMap<Box<str>, usize> = HashMap::new();
        self.visit(text, &mut |term| {
            document.length = document.length.saturating_add(1);
            match places.get(term) {
                Some(&place) => document.terms[place].1 += 1,
                None => {
                    places.insert(term.into(), document.terms.len());
                    document.terms.push((term.into(), 1));
                }
            }
        });
        document
    }
}

impl fmt::Display for Analyzer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((min, max)) = self.ngram_sizes() {
            return write!(f, "ngram({min},{max})");
        }
        let name = NAMED.iter().find(|(_, code, _)| *code == self.code);
        f.write_str(name.map_or_else(|| unreachable!("every code has a name"), |(name, ..)| name))
    }
}

/// A text in normal form and lower case.
fn normalized(text: &str) -> Cow<'_, str> {
    if !text.is_ascii() {
        return text.nfkc().flat_map(char::to_lowercase).collect::<String>().into();
    }
    match text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => text.to_ascii_lowercase().into(),
        false => text.into(),
    }
}

/// The beginning of a word, if it is too long for a term.
fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(MAX_TERM_BYTES)]
}

/// The n-grams of a word; a word that is shorter than all of them is a term itself.
fn ngrams(word: &str, min: usize, max: usize, visit: &mut dyn FnMut(&str)) {
    let ends: Vec<usize> = word.char_indices().map(|(at, _)| at).skip(1).chain([word.len()]).collect();
    if ends.len() < min {
        return visit(word);
    }
    let starts = std::iter::once(0).chain(ends.iter().copied());
    for (at, start) in starts.take(ends.len()).enumerate() {
        for size in min..=max {
            if let Some(&end) = ends.get(at + size - 1) {
                visit(&word[start..end]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(analyzer: &str, text: &str) -> Vec<String> {
        let mut terms = Vec::new();
        Analyzer::named(analyzer.as_bytes()).unwrap().visit(text.as_bytes(), &mut |term| {
            terms.push(term.to_owned());
        });
        terms
    }

    #[test]
    fn every_analyzer_has_a_name_and_a_code_that_lead_back_to_it() {
        let mut names: Vec<String> = NAMED.iter().map(|(name, ..)| (*name).to_owned()).collect();
        names.extend(["ngram(1,1)".to_owned(), "ngram(2,3)".to_owned(), "ngram(8,8)".to_owned()]);
        for name in names {
            let analyzer = Analyzer::named(name.to_uppercase().as_bytes()).unwrap();
            assert_eq!(analyzer.to_string(), name);
            assert_eq!(Analyzer::from_code(analyzer.code()), Some(analyzer));
            analyzer.document("Some words".as_bytes());
        }
        assert_eq!(Analyzer::named(b"en"), Some(Analyzer::default()));
        for bad in ["", "xx", "ngram", "ngram(0,2)", "ngram(3,2)", "ngram(2,9)", "ngram(2)", "ngram(-1,2)"] {
            assert_eq!(Analyzer::named(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Analyzer::named(&[0xff]), None);
        for code in [19, 255, 0x100, 0x101, 0x132, 0x129, 0x200, 0x300, u16::MAX] {
            assert_eq!(Analyzer::from_code(code), None, "{code:#x}");
        }
    }

    #[test]
    fn english_drops_stop_words_and_stems() {
        assert_eq!(terms("en", "The cats' naps, and a Dog's running!"), ["cat", "nap", "dog", "run"]);
        assert_eq!(terms("standard", "The cats, and"), ["the", "cats", "and"]);
        assert_eq!(terms("de", "Die Häuser"), ["die", "haus"]);
    }

    #[test]
    fn letters_with_accents_survive_in_either_form_of_unicode() {
        assert_eq!(terms("standard", "Caf\u{e9} CAFE\u{301} cafe"), ["caf\u{e9}", "caf\u{e9}", "cafe"]);
        assert_eq!(terms("standard", "ﬁne ﬃ Ⅳ"), ["fine", "ffi", "iv"], "compatibility forms");
    }

    #[test]
    fn ngrams_are_taken_inside_words() {
        assert_eq!(terms("ngram(2,3)", "Käse a"), ["kä", "käs", "äs", "äse", "se", "a"]);
    }

    #[test]
    fn a_document_counts_its_terms() {
        let document = Analyzer::default().document("run, running the \u{fffd} runs fast".as_bytes());
        assert_eq!(document.length, 4);
        assert_eq!(document.terms, [("run".into(), 3), ("fast".into(), 1)]);
        assert_eq!(Analyzer::default().document(b"the \xff\xfe").length, 0);
    }

    #[test]
    fn a_word_that_is_too_long_is_cut_at_a_character() {
        let term = terms("standard", &"ä".repeat(1000)).concat();
        assert_eq!(term, "ä".repeat(127));
    }
}
