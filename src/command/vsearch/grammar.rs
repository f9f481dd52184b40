//! What a VSEARCH asks for.

use std::sync::Arc;

use crate::collection::filter::Filter;
use crate::collection::fusion::{DEFAULT_CONSTANT, Fusion, Norm};
use crate::collection::sparse::Sparse;
use crate::command::parse::{float, integer_within, is_word};
use crate::command::request::Request;
use crate::command::vadd::{EF_RANGE, sparse, vector};
use crate::command::vcreate::{bad_value, one_of};
use crate::command::{CommandError, unexpected};
use crate::text::bm25::{DEFAULT_B, DEFAULT_K1};

/// Clauses a search may have.
const MAX_CLAUSES: usize = 16;
/// BOOSTs a search may have.
const MAX_BOOSTS: usize = 64;
/// Results and candidates a search may ask for.
pub(super) const MAX_COUNT: usize = 1_000_000;
/// Candidates MMR chooses from at most: its time grows with their number times that of the results.
pub(super) const MAX_POOL: i64 = 1000;
/// Candidates RERANK scores again at most.
const MAX_DEPTH: i64 = 1000;
const DEFAULT_DEPTH: usize = 50;
/// Chunks shown of a document, and at most.
const DEFAULT_TOP: usize = 3;
const MAX_TOP: i64 = 1000;
const DEFAULT_COUNT: usize = 10;
/// Candidates a clause gives at least when they go on to be fused or put in another order.
const MIN_WINDOW: usize = 20;
/// Candidates for each result then.
const WINDOW_FACTOR: usize = 4;

/// Where the vector of a dense clause comes from.
pub(super) enum Source {
    /// Given.
    Vector(Vec<f32>),
    /// Of the element in this argument.
    Element(usize),
    /// Of the text in this argument.
    Text(usize),
}

/// What to look for.
pub(super) enum What {
    /// Elements with similar vectors.
    Vector(Source),
    /// Elements whose texts have words of the one in this argument.
    Match { text: usize, k1: f64, b: f64 },
    /// Elements whose sparse vectors have terms of this one.
    Sparse(Sparse),
}

/// One way of looking, and how much it counts.
pub(super) struct Clause {
    pub what: What,
    pub weight: f64,
    /// For a dense clause, the field whose vectors are compared, instead of the elements' own.
    pub field: Option<Vec<u8>>,
}

/// More for elements with this value in this field.
pub(super) struct Boost {
    pub field: String,
    pub value: String,
    pub weight: f64,
}

/// How results are put together by document.
pub(super) struct Group {
    /// Chunks shown of each.
    pub top: usize,
    /// Whether a document's score is the mean of theirs; else it is the best.
    pub mean: bool,
}

/// Everything a search asks for.
pub(super) struct Ask {
    pub clauses: Vec<Clause>,
    /// As given; several clauses are fused by RRF otherwise.
    pub fusion: Option<Fusion>,
    pub window: Option<usize>,
    pub filter: Option<Arc<Filter>>,
    pub offset: usize,
    pub count: usize,
    pub min_score: Option<f64>,
    /// Lambda, and from how many candidates.
    pub mmr: Option<(f64, Option<usize>)>,
    pub boosts: Vec<Boost>,
    pub boost_text: Option<f64>,
    /// The model's name, and how many candidates it scores.
    pub rerank: Option<(String, usize)>,
    pub group: Option<Group>,
    pub exact: bool,
    pub effort: usize,
    pub attributes: bool,
    pub texts: bool,
    pub vectors: bool,
    pub explain: bool,
}

impl Ask {
    fn new() -> Self {
        Self {
            clauses: Vec::new(),
            fusion: None,
            window: None,
            filter: None,
            offset: 0,
            count: DEFAULT_COUNT,
            min_score: None,
            mmr: None,
            boosts: Vec::new(),
            boost_text: None,
            rerank: None,
            group: None,
            exact: false,
            effort: 0,
            attributes: false,
            texts: false,
            vectors: false,
            explain: false,
        }
    }

    /// Results up to the end of the page.
    pub fn wanted(&self) -> usize {
        self.offset + self.count
    }

    /// Elements that may be needed for them: of each document as many as are shown, within the bound of a pool.
    fn wanted_rows(&self) -> usize {
        let most = usize::try_from(MAX_POOL).unwrap_or(usize::MAX);
        let top = self.group.as_ref().map_or(1, |group| group.top);
        self.wanted().saturating_mul(top).min(most).max(self.wanted())
    }

    /// How the clauses become one ranking; `None`: there is one, which keeps its scores.
    pub fn fusion(&self) -> Option<Fusion> {
        let default = (self.clauses.len() > 1).then_some(Fusion::Rrf { constant: DEFAULT_CONSTANT });
        self.fusion.or(default)
    }

    /// Whether results have the scores of a clause alone.
    pub fn keeps_scores(&self) -> bool {
        let is_boosted = self.boost_text.is_some() || !self.boosts.is_empty();
        self.fusion().is_none() && self.rerank.is_none() && !is_boosted
    }

    /// Whether the order of a clause alone is not that of the results.
    pub fn reorders(&self) -> bool {
        !self.keeps_scores() || self.mmr.is_some() || self.group.is_some()
    }

    /// Candidates MMR chooses from.
    pub fn pool(&self) -> usize {
        let most = usize::try_from(MAX_POOL).unwrap_or(usize::MAX);
        let given = self.mmr.and_then(|(_, pool)| pool);
        given.unwrap_or(self.wanted_rows().saturating_mul(WINDOW_FACTOR).min(most)).max(self.wanted())
    }

    /// Candidates RERANK scores again, which are at least those that are wanted; 0 without.
    pub fn depth(&self) -> usize {
        self.rerank.as_ref().map_or(0, |(_, depth)| self.wanted_rows().max(*depth))
    }

    /// Candidates each clause gives, at first.
    pub fn window(&self) -> usize {
        let wanted = self.wanted();
        if !self.reorders() {
            return self.window.unwrap_or(0).max(wanted).max(1);
        }
        let ungrouped = MIN_WINDOW.max(wanted.saturating_mul(WINDOW_FACTOR));
        // A document may be several of the candidates.
        let default = match &self.group {
            Some(group) => ungrouped.saturating_mul(group.top).min(MAX_COUNT).max(ungrouped),
            None => ungrouped,
        };
        let pool = if self.mmr.is_some() { self.pool() } else { 0 };
        let depth = self.depth();
        self.window.unwrap_or(default.max(pool).max(depth)).max(wanted).max(1)
    }

    /// The argument with the first text that is looked for.
    pub fn text(&self) -> Option<usize> {
        self.clauses.iter().find_map(|clause| match clause.what {
            What::Match { text, .. } | What::Vector(Source::Text(text)) => Some(text),
            What::Vector(_) | What::Sparse(_) => None,
        })
    }
}

struct Reader<'a> {
    request: &'a Request,
    next: usize,
}

impl<'a> Reader<'a> {
    fn word(&mut self) -> Option<&'a [u8]> {
        let word = self.request.get(self.next)?;
        self.next += 1;
        Some(word)
    }

    /// The value that an option needs.
    fn value(&mut self, option: &str) -> Result<&'a [u8], CommandError> {
        let missing = || CommandError::Text(format!("ERR syntax error, {option} needs a value").into());
        self.word().ok_or_else(missing)
    }

    fn parsed<T>(&mut self, option: &str, parse: impl Fn(&[u8]) -> Option<T>) -> Result<T, CommandError> {
        let value = self.value(option)?;
        parse(value).ok_or_else(|| bad_value(option, value))
    }

    fn number(&mut self, option: &str) -> Result<f64, CommandError> {
        self.parsed(option, |value| float(value).filter(|value| value.is_finite()))
    }

    fn number_of(&mut self, option: &str, least: i64, most: i64) -> Result<usize, CommandError> {
        self.parsed(option, |value| {
            integer_within(value, least, most).and_then(|value| usize::try_from(value).ok())
        })
    }

    /// Whether the next word is this one, which is taken then.
    fn follows(&mut self, word: &str) -> bool {
        let follows = self.request.get(self.next).is_some_and(|next| is_word(next, word));
        self.next += usize::from(follows);
        follows
    }

    fn text(&mut self, option: &str) -> Result<String, CommandError> {
        self.parsed(option, |value| String::from_utf8(value.to_vec()).ok())
    }
}

/// Reads the clauses and options from an argument on.
pub(super) fn parse(request: &Request, first: usize) -> Result<Ask, CommandError> {
    let mut reader = Reader { request, next: first };
    let mut ask = Ask::new();
    while let Some(word) = reader.word() {
        let known = clause(&mut reader, word, &mut ask)?
            || ranking(&mut reader, word, &mut ask)?
            || option(&mut reader, word, &mut ask)?;
        if !known {
            return Err(unexpected(word));
        }
    }
    if ask.clauses.is_empty() {
        return Err(CommandError::text("ERR syntax error, a VECTOR, MATCH or SPARSE clause is missing"));
    }
    if ask.clauses.len() > MAX_CLAUSES || ask.boosts.len() > MAX_BOOSTS {
        return Err(CommandError::text("ERR a search can have 16 clauses and 64 BOOSTs at most"));
    }
    let most = usize::try_from(MAX_POOL).unwrap_or(usize::MAX);
    if ask.mmr.is_some() && ask.wanted() > most {
        return Err(CommandError::text("ERR MMR can give the first 1000 results at most"));
    }
    if ask.rerank.is_some() && ask.text().is_none() {
        return Err(CommandError::text(
            "ERR RERANK needs a text to compare with: a MATCH or VECTOR TEXT clause",
        ));
    }
    if ask.boost_text.is_some() && ask.text().is_none() {
        return Err(CommandError::text("ERR BOOSTTEXT needs a text: a MATCH or VECTOR TEXT clause"));
    }
    Ok(ask)
}

fn clause(reader: &mut Reader<'_>, word: &[u8], ask: &mut Ask) -> Result<bool, CommandError> {
    let mut what = if is_word(word, "VECTOR") {
        What::Vector(source(reader)?)
    } else if is_word(word, "MATCH") {
        reader.value("MATCH")?;
        What::Match { text: reader.next - 1, k1: DEFAULT_K1, b: DEFAULT_B }
    } else if is_word(word, "SPARSE") {
        let (query, next) = sparse(reader.request, reader.next)?;
        reader.next = next;
        What::Sparse(query)
    } else {
        return Ok(false);
    };
    let (mut weight, mut field) = (1.0, None);
    loop {
        if reader.follows("WEIGHT") {
            weight = reader
                .parsed("WEIGHT", |value| float(value).filter(|value| value.is_finite() && *value >= 0.0))?;
        } else if let What::Vector(_) = what
            && reader.follows("FIELD")
        {
            field = Some(reader.value("FIELD")?.to_vec());
        } else if let What::Match { k1, .. } = &mut what
            && reader.follows("K1")
        {
            *k1 = reader.parsed("K1", |value| float(value).filter(|value| (0.0..=1000.0).contains(value)))?;
        } else if let What::Match { b, .. } = &mut what
            && reader.follows("B")
        {
            *b = reader.parsed("B", |value| float(value).filter(|value| (0.0..=1.0).contains(value)))?;
        } else {
            break;
        }
    }
    ask.clauses.push(Clause { what, weight, field });
    Ok(true)
}

fn source(reader: &mut Reader<'_>) -> Result<Source, CommandError> {
    let kind = reader.value("VECTOR")?;
    if is_word(kind, "ELE") {
        reader.value("ELE")?;
        return Ok(Source::Element(reader.next - 1));
    }
    if is_word(kind, "TEXT") {
        reader.value("TEXT")?;
        return Ok(Source::Text(reader.next - 1));
    }
    if !is_word(kind, "FP32") && !is_word(kind, "VALUES") {
        return Err(unexpected(kind));
    }
    let (vector, next) = vector(reader.request, reader.next - 1)?;
    reader.next = next;
    Ok(Source::Vector(vector))
}

/// The options that say how candidates become results.
fn ranking(reader: &mut Reader<'_>, word: &[u8], ask: &mut Ask) -> Result<bool, CommandError> {
    if is_word(word, "FUSE") {
        ask.fusion = Some(fusion(reader)?);
    } else if is_word(word, "WINDOW") {
        ask.window = Some(reader.number_of("WINDOW", 1, MAX_COUNT as i64)?);
    } else if is_word(word, "MMR") {
        let lambda =
            reader.parsed("MMR", |value| float(value).filter(|value| (0.0..=1.0).contains(value)))?;
        let pool = match reader.follows("POOL") {
            true => Some(reader.number_of("POOL", 1, MAX_POOL)?),
            false => None,
        };
        ask.mmr = Some((lambda, pool));
    } else if is_word(word, "BOOST") {
        let (field, value) = (reader.text("BOOST")?, reader.text("BOOST")?);
        ask.boosts.push(Boost { field, value, weight: reader.number("BOOST")? });
    } else if is_word(word, "BOOSTTEXT") {
        ask.boost_text = Some(reader.number("BOOSTTEXT")?);
    } else if is_word(word, "RERANK") {
        let model = reader.text("RERANK")?;
        let depth = match reader.follows("DEPTH") {
            true => reader.number_of("DEPTH", 1, MAX_DEPTH)?,
            false => DEFAULT_DEPTH,
        };
        ask.rerank = Some((model, depth));
    } else if is_word(word, "GROUPBY") {
        ask.group = Some(group(reader)?);
    } else if is_word(word, "MINSCORE") {
        ask.min_score = Some(reader.number("MINSCORE")?);
    } else {
        return Ok(false);
    }
    Ok(true)
}

fn group(reader: &mut Reader<'_>) -> Result<Group, CommandError> {
    let by = reader.value("GROUPBY")?;
    if !is_word(by, "DOC") {
        return Err(unexpected(by));
    }
    let mut group = Group { top: DEFAULT_TOP, mean: false };
    loop {
        if reader.follows("TOP") {
            group.top = reader.number_of("TOP", 1, MAX_TOP)?;
        } else if reader.follows("AGG") {
            group.mean = reader.parsed("AGG", |value| one_of(&[("MAX", false), ("MEAN", true)], value))?;
        } else {
            return Ok(group);
        }
    }
}

fn fusion(reader: &mut Reader<'_>) -> Result<Fusion, CommandError> {
    let name = reader.value("FUSE")?;
    if is_word(name, "RRF") {
        let constant = match reader.follows("CONSTANT") {
            true => reader.parsed("CONSTANT", |value| {
                float(value).filter(|value| value.is_finite() && *value >= 0.0)
            })?,
            false => DEFAULT_CONSTANT,
        };
        return Ok(Fusion::Rrf { constant });
    }
    if !is_word(name, "LINEAR") {
        return Err(unexpected(name));
    }
    let norms = [("MINMAX", Norm::MinMax), ("DBSF", Norm::Dbsf), ("NONE", Norm::None)];
    Ok(Fusion::Linear(match reader.follows("NORM") {
        true => reader.parsed("NORM", |value| one_of(&norms, value))?,
        false => Norm::MinMax,
    }))
}

/// The options that say where to look and what to show.
fn option(reader: &mut Reader<'_>, word: &[u8], ask: &mut Ask) -> Result<bool, CommandError> {
    if is_word(word, "FILTER") {
        let filter = Filter::parse(reader.value("FILTER")?);
        ask.filter =
            Some(Arc::new(filter.map_err(|error| CommandError::Text(format!("ERR {error}").into()))?));
    } else if is_word(word, "LIMIT") {
        ask.offset = reader.number_of("LIMIT", 0, MAX_COUNT as i64)?;
        ask.count = reader.number_of("LIMIT", 0, MAX_COUNT as i64)?;
    } else if is_word(word, "EF") {
        ask.effort = reader.number_of("EF", EF_RANGE.0, EF_RANGE.1)?;
    } else if is_word(word, "EXACT") {
        ask.exact = true;
    } else if is_word(word, "WITHATTRIBS") {
        ask.attributes = true;
    } else if is_word(word, "WITHTEXT") {
        ask.texts = true;
    } else if is_word(word, "WITHVECTORS") {
        ask.vectors = true;
    } else if is_word(word, "EXPLAIN") {
        ask.explain = true;
    } else {
        return Ok(false);
    }
    Ok(true)
}
