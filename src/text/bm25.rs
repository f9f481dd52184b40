//! BM25 over the chunks of a collection.
//!
//! `score = sum over the query's terms of idf * tf / (tf + k1 * (1 - b + b * dl / avgdl))` with
//! `idf = ln(1 + (N - df + 0.5) / (df + 0.5))`: N texts, df of them with the term, tf times in this one, which has dl terms.
//! Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), without the constant factor
//! k1 + 1, as Lucene since version 8. A term that the query has twice counts twice. Only live rows count, for N, df and the
//! average length too.
//!
//! Rows are scored window by window. In a window the terms that could not lift a row over the threshold by themselves
//! (MaxScore: Turtle and Flood, 1995; with bounds of blocks: Ding and Suel, 2011) are looked up only for rows that the
//! other terms lift far enough.

use std::cmp::Ordering;
use std::ops::Range;

use super::Analyzer;
use super::postings::{Bound, List, TextIndex};
use crate::disk::DiskError;

/// k1 when none is given.
pub const DEFAULT_K1: f64 = 1.2;
/// b when none is given.
pub const DEFAULT_B: f64 = 0.75;
/// Different terms a query may have.
pub const MAX_TERMS: usize = 1024;

/// Rows of a window, a multiple of 64.
const WINDOW: usize = 4096;
/// A bound is held to be exceeded only beyond this part of it: sums of the same numbers differ by their order.
const SLACK: f64 = 1e-9;

/// What is looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct TextQuery {
    /// The terms of the query, each once.
    pub terms: Vec<Box<str>>,
    /// How often the query has each.
    pub counts: Vec<f64>,
    /// How slowly a term's count saturates, at least 0.
    pub k1: f64,
    /// How much the length of a text matters, 0 to 1.
    pub b: f64,
}

impl TextQuery {
    /// The query of a text; `None` if it has more than [`MAX_TERMS`] different terms.
    pub fn new(analyzer: Analyzer, text: &[u8]) -> Option<Self> {
        let document = analyzer.document(text);
        let (terms, counts): (Vec<_>, Vec<_>) =
            document.terms.into_iter().map(|(term, count)| (term, f64::from(count))).unzip();
        (terms.len() <= MAX_TERMS).then_some(Self { terms, counts, k1: DEFAULT_K1, b: DEFAULT_B })
    }
}

/// A version's view of a chunk.
pub struct Segment<'a> {
    /// The index of its texts.
    pub index: TextIndex<'a>,
    /// Rows it has.
    pub len: usize,
    /// Bit i of word i / 64: row i is live.
    pub live: &'a [u64],
    /// Whether all rows are.
    pub all_live: bool,
}

/// What is known of all texts of a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextStats {
    /// Elements that have a text.
    pub texts: u64,
    /// Terms in these texts together.
    pub total_length: u64,
}

impl std::iter::Sum for TextStats {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            texts: sum.texts + one.texts,
            total_length: sum.total_length + one.total_length,
        })
    }
}

/// A query with the postings of its terms.
pub struct Matcher<'a> {
    query: &'a TextQuery,
    segments: &'a [Segment<'a>],
    /// By segment and term.
    lists: Vec<Vec<List<'a>>>,
    /// By term: idf, times its count in the query.
    weights: Vec<f64>,
    /// k1 * (1 - b), and k1 * b / avgdl.
    norm: (f64, f64),
}

impl<'a> Matcher<'a> {
    /// Looks the terms up.
    ///
    /// # Errors
    /// When a file that holds postings is damaged there.
    pub fn new(
        query: &'a TextQuery,
        segments: &'a [Segment<'a>],
        stats: TextStats,
    ) -> Result<Self, DiskError> {
        let mut lists = Vec::with_capacity(segments.len());
        let mut frequencies = vec![0u64; query.terms.len()];
        for segment in segments {
            let mut of_segment = Vec::with_capacity(query.terms.len());
            for (term, frequency) in query.terms.iter().zip(&mut frequencies) {
                let list = segment.index.list(term, segment.len)?;
                *frequency += segment.live_postings(&list);
                of_segment.push(list);
            }
            lists.push(of_segment);
        }
        let texts = as_f64(stats.texts);
        let weight = |(&frequency, count): (&u64, &f64)| {
            let frequency = as_f64(frequency);
            (1.0 + (texts - frequency + 0.5) / (frequency + 0.5)).ln() * count
        };
        let weights = frequencies.iter().zip(&query.counts).map(weight).collect();
        let average = as_f64(stats.total_length.max(1)) / texts.max(1.0);
        let norm = (query.k1 * (1.0 - query.b), query.k1 * query.b / average);
        Ok(Self { query, segments, lists, weights, norm })
    }

    /// Part of a term's weight that a row gets.
    fn share(&self, count: u32, length: u32) -> f64 {
        let count = f64::from(count);
        // Without saturation a term counts in full, however often it is there; 0 / 0 is never asked for.
        count / (count + self.norm.0 + self.norm.1 * f64::from(length))
    }

    fn bound(&self, term: usize, bound: Bound) -> f64 {
        self.weights[term] * self.share(bound.max_count, bound.min_length)
    }

    /// Scores the rows of a segment that `wanted` holds. `found` is given each row that scores at least the threshold, which
    /// it returns anew, and its score.
    pub fn search(
        &self,
        segment: usize,
        wanted: &[u64],
        mut threshold: f64,
        found: &mut dyn FnMut(u16, f64) -> f64,
    ) -> f64 {
        let mut window = Window::new(self, segment);
        for first in (0..self.segments[segment].len).step_by(WINDOW) {
            let words = first / 64..(first + WINDOW).div_ceil(64).min(wanted.len());
            if words.is_empty() {
                break;
            }
            window.advance(first + WINDOW);
            threshold = window.score(first, &wanted[words], threshold, found);
        }
        threshold
    }

    /// The query's terms that a row has, by their places in the query.
    pub fn matched(&self, segment: usize, offset: u16) -> Vec<usize> {
        let has = |list: &List<'_>| list.postings().binary_search_by_key(&offset, |one| one.offset()).is_ok();
        let lists = self.lists[segment].iter().enumerate();
        lists.filter(|(_, list)| has(list)).map(|(term, _)| term).collect()
    }
}

impl Segment<'_> {
    fn live_postings(&self, list: &List<'_>) -> u64 {
        let postings = list.postings();
        if self.all_live {
            return postings.len() as u64;
        }
        postings.iter().filter(|posting| is_set(self.live, usize::from(posting.offset()))).count() as u64
    }
}

fn is_set(words: &[u64], at: usize) -> bool {
    words.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of texts and terms are far below 2^53")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

/// The window that is being scored.
struct Window<'m, 'a> {
    matcher: &'m Matcher<'a>,
    segment: usize,
    /// By term: the places of its postings in the window.
    places: Vec<Range<usize>>,
    /// Sums of the terms scored so far, by row of the window; all 0 between windows.
    sums: Vec<f64>,
}

impl<'m, 'a> Window<'m, 'a> {
    fn new(matcher: &'m Matcher<'a>, segment: usize) -> Self {
        let places = vec![0..0; matcher.query.terms.len()];
        Self { matcher, segment, places, sums: vec![0.0; WINDOW] }
    }

    fn lists(&self) -> &'m [List<'a>] {
        &self.matcher.lists[self.segment]
    }

    /// Moves on to the rows before `end`.
    fn advance(&mut self, end: usize) {
        for (places, list) in self.places.iter_mut().zip(&self.matcher.lists[self.segment]) {
            let rest = &list.postings()[places.end..];
            let count = rest.partition_point(|posting| usize::from(posting.offset()) < end);
            *places = places.end..places.end + count;
        }
    }

    fn score(
        &mut self,
        first: usize,
        wanted: &[u64],
        mut threshold: f64,
        found: &mut dyn FnMut(u16, f64) -> f64,
    ) -> f64 {
        // The terms that are in the window, those that can add least first.
        let mut bounds: Vec<(f64, usize)> = (0..self.places.len())
            .filter(|&term| !self.places[term].is_empty())
            .map(|term| (self.matcher.bound(term, self.lists()[term].bound(&self.places[term])), term))
            .collect();
        bounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut optional_sum = 0.0;
        let optional = bounds.iter().take_while(|(bound, _)| {
            let fits = (optional_sum + bound) * (1.0 + SLACK) < threshold;
            optional_sum += if fits { *bound } else { 0.0 };
            fits
        });
        let optional = optional.count();
        let mut touched = [0u64; WINDOW / 64];
        for (_, term) in &bounds[optional..] {
            self.add(*term, first, wanted, &mut touched);
        }
        for at in set_bits(&touched) {
            let sum = std::mem::take(&mut self.sums[at]);
            if (sum + optional_sum) * (1.0 + SLACK) >= threshold {
                let offset = u16::try_from(first + at).unwrap_or(u16::MAX);
                let score = self.exact(offset);
                if score >= threshold {
                    threshold = found(offset, score);
                }
            }
        }
        threshold
    }

    /// Adds what a term gives the wanted rows of the window.
    fn add(&mut self, term: usize, first: usize, wanted: &[u64], touched: &mut [u64; WINDOW / 64]) {
        let (matcher, list) = (self.matcher, &self.matcher.lists[self.segment][term]);
        let index = matcher.segments[self.segment].index;
        for &posting in &list.postings()[self.places[term].clone()] {
            let at = usize::from(posting.offset()) - first;
            if is_set(wanted, at) {
                let length = index.length(posting.offset()).unwrap_or_default();
                self.sums[at] += matcher.weights[term] * matcher.share(list.count(posting), length);
                touched[at / 64] |= 1 << (at % 64);
            }
        }
    }

    /// The score of a row, its terms added in the order of the query: the same whatever has been skipped.
    fn exact(&self, offset: u16) -> f64 {
        let length = self.matcher.segments[self.segment].index.length(offset).unwrap_or_default();
        let mut score = 0.0;
        for (term, (list, places)) in self.lists().iter().zip(&self.places).enumerate() {
            let postings = &list.postings()[places.clone()];
            if let Ok(at) = postings.binary_search_by_key(&offset, |posting| posting.offset()) {
                score += self.matcher.weights[term] * self.matcher.share(list.count(postings[at]), length);
            }
        }
        score
    }
}

fn set_bits(words: &[u64]) -> impl Iterator<Item = usize> + '_ {
    words.iter().enumerate().flat_map(|(index, &word)| {
        std::iter::successors((word != 0).then_some(word), |word| Some(word & (word - 1)).filter(|&w| w != 0))
            .map(move |word| index * 64 + word.trailing_zeros() as usize)
    })
}

/// The best rows so far: by score, equal ones as `order` says.
pub struct Best<T> {
    count: usize,
    rows: Vec<(f64, T)>,
    threshold: f64,
}

impl<T> Best<T> {
    /// Room for that many.
    pub fn new(count: usize) -> Self {
        Self { count, rows: Vec::new(), threshold: f64::NEG_INFINITY }
    }

    /// Adds a row that scores at least the threshold; returns the new one.
    pub fn push(&mut self, score: f64, row: T, order: impl Fn(&T, &T) -> Ordering) -> f64 {
        const MIN_KEPT: usize = 16;
        self.rows.push((score, row));
        if self.rows.len() >= (2 * self.count).max(MIN_KEPT) {
            self.sort(order);
        }
        self.threshold
    }

    fn sort(&mut self, order: impl Fn(&T, &T) -> Ordering) {
        self.rows.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| order(&a.1, &b.1)));
        self.rows.truncate(self.count);
        if self.rows.len() == self.count {
            self.threshold = self.rows.last().map_or(f64::INFINITY, |(score, _)| *score);
        }
    }

    /// The score a row needs to count.
    pub fn threshold(&self) -> f64 {
        self.threshold
    }

    /// The rows, best first.
    pub fn into_sorted(mut self, order: impl Fn(&T, &T) -> Ordering) -> Vec<(f64, T)> {
        self.sort(order);
        self.rows
    }
}
