//! Documents: a text becomes chunks, small enough to be embedded and to be read by people.
//!
//! Markdown is split at its structure, code of a language that is known at that of its syntax tree (`code`), everything else at
//! blank lines, lines, sentences, words, in that order of preference. A chunk takes as many of these as fit into its tokens.
//! Chunks keep all characters of the text: put together they are it, but for blanks between them that nothing is made of.

mod code;
pub mod html;

use std::ops::Range;

use hashbrown::HashMap;
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};
use thiserror::Error;
use unicode_segmentation::UnicodeSegmentation;

pub use code::Language;

/// Tokens a chunk has at most when nothing else is asked for.
pub const DEFAULT_CHUNK_TOKENS: usize = 512;
/// Tokens a chunk may be asked to have.
pub const MAX_CHUNK_TOKENS: usize = 65_536;
/// Chunks a document may have.
pub const MAX_CHUNKS: usize = 16_384;
/// Bytes of a part of a text that is split on its own, at least, and for each token of a chunk: the splitter looks for the end of a
/// sentence again and again, and there may be none.
const MIN_PART_BYTES: usize = 32 << 10;
const PART_TOKEN_BYTES: usize = 16;
/// Characters of a word that are counted together; longer ones are cut.
const MAX_WORD_CHARS: usize = 64;

/// What a text is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Plain text.
    #[default]
    Text,
    /// Markdown.
    Markdown,
    /// HTML, kept and split as the Markdown it becomes.
    Html,
    /// A program.
    Code,
}

/// Every kind with its name, in the order of their codes.
pub const KINDS: [(&str, Kind); 4] =
    [("txt", Kind::Text), ("md", Kind::Markdown), ("html", Kind::Html), ("code", Kind::Code)];

impl Kind {
    /// Its name.
    pub fn name(self) -> &'static str {
        KINDS[usize::from(self.code())].0
    }

    /// Its number in data files.
    pub fn code(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::Markdown => 1,
            Self::Html => 2,
            Self::Code => 3,
        }
    }

    /// The language of a document of this kind, by its URI; `None` if it is no code, or the language is not known.
    pub fn language(self, uri: &[u8]) -> Option<Language> {
        Language::of_uri(uri).filter(|_| self == Self::Code)
    }

    /// The inverse of [`Self::code`].
    pub fn from_code(code: u8) -> Option<Self> {
        KINDS.get(usize::from(code)).map(|(_, kind)| *kind)
    }
}

/// How a text is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What it is written in.
    pub kind: Kind,
    /// The language of code, if it is known.
    pub language: Option<Language>,
    /// Tokens a chunk has at most.
    pub chunk_tokens: usize,
    /// Tokens at its end that the next one has again, at most.
    pub overlap_tokens: usize,
}

/// Why a text is not split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    /// The next chunk would begin where the one before did.
    #[error("OVERLAP must be less than CHUNK")]
    Overlap,
    /// Too many chunks.
    #[error("a document can have {MAX_CHUNKS} chunks at most")]
    TooManyChunks,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins, in bytes.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Its tokens.
    pub tokens: usize,
}

/// Splits a text; `count` says how many tokens a word has, with the blanks before it.
///
/// # Errors
/// When the settings do not fit together, or there would be too many chunks.
pub fn split(
    text: &str,
    settings: &Settings,
    count: impl Fn(&str) -> usize,
) -> Result<Vec<Piece>, DocumentError> {
    if settings.overlap_tokens >= settings.chunk_tokens {
        return Err(DocumentError::Overlap);
    }
    let mut splitting = Splitting { text, settings, words: Words::new(text, count), pieces: Vec::new() };
    let is_split = match (settings.kind, settings.language) {
        (Kind::Code, Some(language)) => splitting.code(language)?,
        _ => false,
    };
    if !is_split {
        splitting.plain(0..text.len())?;
    }
    Ok(splitting.pieces)
}

/// A text that is being split.
struct Splitting<'a> {
    text: &'a str,
    settings: &'a Settings,
    words: Words<'a>,
    pieces: Vec<Piece>,
}

impl Splitting<'_> {
    fn tokens(&self, range: Range<usize>) -> usize {
        self.words.tokens(range)
    }

    /// Splits a stretch of the text part by part, each with the end of the one before as far as the overlap goes.
    fn plain(&mut self, range: Range<usize>) -> Result<(), DocumentError> {
        let part_bytes = MIN_PART_BYTES.max(self.settings.chunk_tokens * PART_TOKEN_BYTES);
        let mut begin = range.start;
        while begin < range.end {
            let rest = &self.text[begin..range.end];
            let part = &rest[..part_len(rest, part_bytes)];
            let end = begin + part.len();
            for (start, chunk) in self.chunks(part)? {
                self.keep(begin + start..begin + start + chunk.len())?;
            }
            let shared = self.words.last(end, self.settings.overlap_tokens);
            // A part is at least half as long as it may be: so the next one ends further on.
            begin = if end < range.end && end - shared < part_bytes / 4 { shared } else { end };
        }
        Ok(())
    }

    /// The chunks of a part of the text, and where they begin in it.
    fn chunks<'b>(&self, part: &'b str) -> Result<Vec<(usize, &'b str)>, DocumentError> {
        let config = ChunkConfig::new(self.settings.chunk_tokens).with_sizer(&self.words).with_trim(false);
        let config = config.with_overlap(self.settings.overlap_tokens).map_err(|_| DocumentError::Overlap)?;
        Ok(match self.settings.kind {
            Kind::Markdown | Kind::Html => MarkdownSplitter::new(config).chunk_indices(part).collect(),
            Kind::Text | Kind::Code => TextSplitter::new(config).chunk_indices(part).collect(),
        })
    }

    /// Keeps a chunk, if there is something in it that is not in the one before.
    fn keep(&mut self, range: Range<usize>) -> Result<(), DocumentError> {
        let is_new = self.pieces.last().is_none_or(|last| last.end < range.end);
        if !is_new || self.text[range.clone()].trim().is_empty() {
            return Ok(());
        }
        if self.pieces.len() == MAX_CHUNKS {
            return Err(DocumentError::TooManyChunks);
        }
        let tokens = self.tokens(range.clone());
        self.pieces.push(Piece { start: range.start, end: range.end, tokens });
        Ok(())
    }
}

/// Bytes of the next part of a text: up to the last blank line within the limit, else the last line, else the last blank.
fn part_len(text: &str, most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    let within = &text[..text.floor_char_boundary(most)];
    let mut ends = ["\n\n", "\n", " "].iter().filter_map(|mark| Some(within.rfind(mark)? + mark.len()));
    ends.find(|&end| end > within.len() / 2).unwrap_or(within.len())
}

/// The words of a text, and how many tokens there are up to each: a chunk's tokens are a difference, so that splitting takes
/// no longer for large chunks than for small ones. Every different word is counted once.
struct Words<'a> {
    text: &'a str,
    /// Where each word ends.
    ends: Vec<usize>,
    /// Tokens before each word, and of all.
    before: Vec<usize>,
}

impl<'a> Words<'a> {
    fn new(text: &'a str, count: impl Fn(&str) -> usize) -> Self {
        let (mut ends, mut before, mut tokens) = (Vec::new(), vec![0], 0);
        let mut known: HashMap<&str, usize> = HashMap::new();
        let mut begun = 0;
        let mut add = |start: usize, end: usize| {
            let word = &text[start..end];
            tokens += *known.entry(word).or_insert_with(|| count(word));
            ends.push(end);
            before.push(tokens);
        };
        for (at, word) in text.split_word_bound_indices() {
            // Blanks belong to the word after them, as in most vocabularies.
            if word.trim().is_empty() {
                continue;
            }
            let mut cuts = word.char_indices().skip(MAX_WORD_CHARS).step_by(MAX_WORD_CHARS);
            for cut in cuts.by_ref().map(|(cut, _)| at + cut) {
                add(begun, cut);
                begun = cut;
            }
            add(begun, at + word.len());
            begun = at + word.len();
        }
        Self { text, ends, before }
    }
}

impl Words<'_> {
    /// Tokens of a part of the text: those of the words that end in it.
    fn tokens(&self, range: Range<usize>) -> usize {
        let first = self.ends.partition_point(|&end| end <= range.start);
        let last = self.ends.partition_point(|&end| end <= range.end);
        self.before[last.max(first)] - self.before[first]
    }

    /// Where the last words before a place begin that have so many tokens together at most.
    fn last(&self, end: usize, tokens: usize) -> usize {
        // A word may have no tokens.
        if tokens == 0 {
            return end;
        }
        let words = self.ends.partition_point(|&word| word <= end);
        let first = self.before[..words].partition_point(|&before| before + tokens < self.before[words]);
        if first == words { end } else { first.checked_sub(1).map_or(0, |word| self.ends[word]) }
    }
}

impl ChunkSizer for &Words<'_> {
    fn size(&self, chunk: &str) -> usize {
        // The splitter gives parts of the text itself.
        let start = chunk.as_ptr().addr() - self.text.as_ptr().addr();
        self.tokens(start..start + chunk.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKDOWN: &str = "# One\n\nA first paragraph of some words.\n\n## Two\n\n- an item\n- another item\n\n```\nlet a = 1;\n\nlet b = 2;\n```\n";

    fn settings(kind: Kind, chunk_tokens: usize, overlap_tokens: usize) -> Settings {
        Settings { kind, language: None, chunk_tokens, overlap_tokens }
    }

    fn one(_: &str) -> usize {
        1
    }

    #[test]
    fn chunks_hold_all_of_the_text_and_no_more_than_their_tokens() {
        let text = format!("{}\n\n\n{}", MARKDOWN.repeat(20), "word ".repeat(300));
        for (_, kind) in KINDS {
            let pieces = split(&text, &settings(kind, 16, 0), one).unwrap();
            let joined: String = pieces.iter().map(|piece| &text[piece.start..piece.end]).collect();
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(solid(&joined), solid(&text), "{kind:?}");
            assert!(pieces.windows(2).all(|two| two[0].end <= two[1].start), "{kind:?}");
            assert!(pieces.iter().all(|piece| (1..=16).contains(&piece.tokens)), "{kind:?}");
            assert!(pieces.len() < 100, "{kind:?}: {} chunks", pieces.len());
        }
    }

    #[test]
    fn markdown_is_split_at_its_headings() {
        let pieces = split(MARKDOWN, &settings(Kind::Markdown, 20, 0), one).unwrap();
        assert!(MARKDOWN[pieces[1].start..].starts_with("## Two"), "{pieces:?}");
    }

    #[test]
    fn chunks_overlap_as_asked_for() {
        let text = "one two three four five six seven eight nine ten";
        let pieces = split(text, &settings(Kind::Text, 4, 2), one).unwrap();
        assert!(pieces.windows(2).all(|two| two[1].start < two[0].end && two[1].start > two[0].start));
        assert_eq!(split(text, &settings(Kind::Text, 4, 4), one), Err(DocumentError::Overlap));
        // Long texts are split in parts, which do not show.
        let long = "word ".repeat(20_000);
        for (_, kind) in KINDS {
            let pieces = split(&long, &settings(kind, 100, 20), one).unwrap();
            let is_good = |two: &[Piece]| two[1].start < two[0].end && two[1].end > two[0].end;
            assert!(pieces.windows(2).all(is_good), "{kind:?}");
            assert!(pieces.iter().all(|piece| piece.tokens <= 100), "{kind:?}");
            assert_eq!(long[pieces.last().unwrap().end..].trim(), "");
        }
    }

    #[test]
    fn texts_without_blanks_are_split_too_and_many_chunks_are_refused() {
        for text in ["a".repeat(10_000), "語".repeat(10_000), "=".repeat(10_000)] {
            let pieces = split(&text, &settings(Kind::Text, 8, 0), one).unwrap();
            assert!(pieces.len() > 10, "{}", pieces.len());
            assert_eq!(pieces.last().unwrap().end, text.len());
        }
        let many = "a ".repeat(MAX_CHUNKS + 1);
        assert_eq!(split(&many, &settings(Kind::Text, 1, 0), one), Err(DocumentError::TooManyChunks));
        for empty in ["", " \n\n "] {
            assert_eq!(split(empty, &settings(Kind::Markdown, 8, 0), one), Ok(Vec::new()));
        }
    }
}
