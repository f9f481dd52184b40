//! Documents: a text becomes chunks, small enough to be embedded and to be read by people.
//!
//! Markdown is split at its structure, everything else at blank lines, lines, sentences, words, in that order of preference
//! (so code too, whatever its language). A chunk takes as many of these as fit into its tokens. Chunks keep all characters of
//! the text: put together they are it, but for blanks between them that nothing is made of.

pub mod html;

use hashbrown::HashMap;
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};
use thiserror::Error;
use unicode_segmentation::UnicodeSegmentation;

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
    let sizer = &Words::new(text, count);
    let config = || {
        let config = ChunkConfig::new(settings.chunk_tokens).with_sizer(sizer).with_trim(false);
        config.with_overlap(settings.overlap_tokens).map_err(|_| DocumentError::Overlap)
    };
    let part_bytes = MIN_PART_BYTES.max(settings.chunk_tokens * PART_TOKEN_BYTES);
    let mut pieces = Vec::new();
    let mut begin = 0;
    while begin < text.len() {
        let part = &text[begin..begin + part_len(&text[begin..], part_bytes)];
        let config = config()?;
        match settings.kind {
            Kind::Markdown | Kind::Html => {
                collect(MarkdownSplitter::new(config).chunk_indices(part), begin, sizer, &mut pieces)?;
            }
            Kind::Text | Kind::Code => {
                collect(TextSplitter::new(config).chunk_indices(part), begin, sizer, &mut pieces)?;
            }
        }
        begin += part.len();
    }
    Ok(pieces)
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

fn collect<'a>(
    chunks: impl Iterator<Item = (usize, &'a str)>,
    begin: usize,
    sizer: &Words<'_>,
    pieces: &mut Vec<Piece>,
) -> Result<(), DocumentError> {
    for (start, chunk) in chunks.filter(|(_, chunk)| !chunk.trim().is_empty()) {
        if pieces.len() == MAX_CHUNKS {
            return Err(DocumentError::TooManyChunks);
        }
        let start = begin + start;
        pieces.push(Piece { start, end: start + chunk.len(), tokens: sizer.size(chunk) });
    }
    Ok(())
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

impl ChunkSizer for &Words<'_> {
    /// Tokens of a part of the text: those of the words that end in it.
    fn size(&self, chunk: &str) -> usize {
        // The splitter gives parts of the text itself.
        let start = chunk.as_ptr().addr() - self.text.as_ptr().addr();
        let first = self.ends.partition_point(|&end| end <= start);
        let last = self.ends.partition_point(|&end| end <= start + chunk.len());
        self.before[last] - self.before[first]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKDOWN: &str = "# One\n\nA first paragraph of some words.\n\n## Two\n\n- an item\n- another item\n\n```\nlet a = 1;\n\nlet b = 2;\n```\n";

    fn settings(kind: Kind, chunk_tokens: usize, overlap_tokens: usize) -> Settings {
        Settings { kind, chunk_tokens, overlap_tokens }
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
