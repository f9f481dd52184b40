//! Code: split at the items of its syntax tree, which tree-sitter makes of it.
//!
//! A node of the tree that fits into a chunk is not taken apart, and what follows each other is put together as long as it
//! fits. A node that does not fit begins a chunk of its own, unless the one before has hardly begun: so a class's name stays
//! with its first methods. Trees are walked without recursion, in time linear in their nodes.

use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use tree_sitter::{ParseOptions, ParseState, Parser, Tree};

use super::{DocumentError, Splitting};

/// Bytes of code that is parsed, as a tree takes many times the memory of its text; longer code is split as text.
const MAX_PARSED_BYTES: usize = 256 << 10;
/// How long the parser may take; code that takes it longer is split as text. A program of the largest size takes a small part of
/// it even on a busy machine, but some grammars would take minutes for few bytes that can mean many things.
const PARSE_MAX: Duration = Duration::from_secs(5);
/// The share of a chunk's tokens that it has at least before a node that does not fit begins another.
const BEGUN_SHARE: usize = 4;

/// A language that code is split in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// C.
    C,
    /// Go.
    Go,
    /// Java.
    Java,
    /// JavaScript, also with JSX.
    JavaScript,
    /// Python.
    Python,
    /// Rust.
    Rust,
    /// TypeScript.
    TypeScript,
    /// TypeScript with JSX.
    Tsx,
}

/// The ends of names by which languages are known.
const EXTENSIONS: [(&str, Language); 16] = [
    ("c", Language::C),
    ("h", Language::C),
    ("go", Language::Go),
    ("java", Language::Java),
    ("js", Language::JavaScript),
    ("cjs", Language::JavaScript),
    ("mjs", Language::JavaScript),
    ("jsx", Language::JavaScript),
    ("py", Language::Python),
    ("pyi", Language::Python),
    ("pyw", Language::Python),
    ("rs", Language::Rust),
    ("ts", Language::TypeScript),
    ("cts", Language::TypeScript),
    ("mts", Language::TypeScript),
    ("tsx", Language::Tsx),
];

impl Language {
    /// The language of a document, by the extension of its URI's path; `None` if that is not known.
    pub fn of_uri(uri: &[u8]) -> Option<Self> {
        let path = uri.split(|byte| b"?#".contains(byte)).next()?;
        let file = path.rsplit(|&byte| byte == b'/').next()?;
        let dot = file.iter().rposition(|&byte| byte == b'.')?;
        let is_it = |name: &str| file[dot + 1..].eq_ignore_ascii_case(name.as_bytes());
        EXTENSIONS.iter().find(|(name, _)| is_it(name)).map(|(_, language)| *language)
    }

    fn grammar(self) -> tree_sitter::Language {
        match self {
            Self::C => tree_sitter_c::LANGUAGE,
            Self::Go => tree_sitter_go::LANGUAGE,
            Self::Java => tree_sitter_java::LANGUAGE,
            Self::JavaScript => tree_sitter_javascript::LANGUAGE,
            Self::Python => tree_sitter_python::LANGUAGE,
            Self::Rust => tree_sitter_rust::LANGUAGE,
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT,
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX,
        }
        .into()
    }
}

/// A part of the text that is not taken apart, with the blanks before it and the line's end behind it.
struct Unit {
    start: usize,
    end: usize,
    /// Whether a node that does not fit into a chunk begins here.
    heads: bool,
}

impl Splitting<'_> {
    /// Splits the text as code. False if it is to be split as text, and nothing has been done.
    ///
    /// # Errors
    /// When there would be too many chunks.
    pub(super) fn code(&mut self, language: Language) -> Result<bool, DocumentError> {
        let Some(tree) = parse(self.text, language) else { return Ok(false) };
        let units = self.units(&tree);
        drop(tree);
        let most = self.settings.chunk_tokens;
        let mut chunk: Range<usize> = 0..0;
        for (at, unit) in units.iter().enumerate() {
            let begun = self.tokens(chunk.start..chunk.end);
            let has_room = self.tokens(chunk.start..unit.end) <= most;
            // Of a word in several parts all tokens are at its end: before that there are none.
            if begun == 0 || (has_room && !(unit.heads && begun >= most / BEGUN_SHARE)) {
                chunk.end = unit.end;
            } else {
                self.keep(chunk.clone())?;
                chunk = self.repeated(&units[..at], chunk, unit)..unit.end;
            }
            if self.tokens(chunk.clone()) > most {
                self.plain(chunk.start..chunk.end)?;
                chunk.start = chunk.end;
            }
        }
        self.keep(chunk)?;
        Ok(true)
    }

    /// Where the chunk that goes on with a unit begins: before it, as far as the overlap goes and the unit still fits.
    fn repeated(&self, before: &[Unit], chunk: Range<usize>, unit: &Unit) -> usize {
        let (most, overlap) = (self.settings.chunk_tokens, self.settings.overlap_tokens);
        let is_shared = |one: &Unit| {
            overlap > 0
                && one.start > chunk.start
                && self.tokens(one.start..chunk.end) <= overlap
                && self.tokens(one.start..unit.end) <= most
        };
        let first = before.partition_point(|one| !is_shared(one));
        before.get(first).map_or(unit.start, |one| one.start)
    }

    /// The text in units: the largest nodes that fit into a chunk, and leaves that do not.
    fn units(&self, tree: &Tree) -> Vec<Unit> {
        let (mut units, mut start, mut heads) = (Vec::new(), 0, false);
        let mut cursor = tree.walk();
        loop {
            let end = cursor.node().end_byte();
            if end > start
                && self.tokens(start..end) > self.settings.chunk_tokens
                && cursor.goto_first_child()
            {
                heads = true;
                continue;
            }
            if end > start && self.text.is_char_boundary(end) {
                let end = end + line_end(&self.text[end..]);
                units.push(Unit { start, end, heads });
                (start, heads) = (end, false);
            }
            while !cursor.goto_next_sibling() {
                if !cursor.goto_parent() {
                    if start < self.text.len() {
                        units.push(Unit { start, end: self.text.len(), heads });
                    }
                    return units;
                }
            }
        }
    }
}

/// Bytes of the blanks that a text begins with, up to the end of their last line.
fn line_end(text: &str) -> usize {
    let blanks = text.len() - text.trim_start().len();
    text[..blanks].rfind('\n').map_or(0, |at| at + 1)
}

/// The syntax tree of a text, whatever errors it has; `None` if it is too long, or takes too long.
fn parse(text: &str, language: Language) -> Option<Tree> {
    if text.len() > MAX_PARSED_BYTES {
        return None;
    }
    let mut parser = Parser::new();
    parser.set_language(&language.grammar()).ok()?;
    let begun = Instant::now();
    let mut watch = |_: &ParseState| match begun.elapsed() < PARSE_MAX {
        true => ControlFlow::Continue(()),
        false => ControlFlow::Break(()),
    };
    let mut read = |at: usize, _| text.as_bytes().get(at..).unwrap_or_default();
    parser.parse_with_options(&mut read, None, Some(ParseOptions::new().progress_callback(&mut watch)))
}

#[cfg(test)]
#[path = "code_tests.rs"]
mod tests;
