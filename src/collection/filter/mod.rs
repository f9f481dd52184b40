//! The FILTER expression language: which elements may appear in a search result.
//!
//! An expression is parsed once into a small program and then run once per row over the element's JSON attributes,
//! straight from their bytes. The language is the one of the Redis vector sets, in its newest version.
//!
//! # Grammar
//! ```text
//! or       := and (("or" | "||") and)*                                            lowest precedence
//! and      := compare (("and" | "&&") compare)*
//! compare  := sum ((">" | ">=" | "<" | "<=" | "==" | "!=" | "in") sum)*            left to right: 3 > 2 == 1 is true
//! sum      := product (("+" | "-") product)*
//! product  := power (("*" | "/" | "%") power)*
//! power    := unary ["**" power]                                                  2 ** 3 ** 2 is 512
//! unary    := ("!" | "not") unary | primary
//! primary  := number | string | tuple | selector | "null" | "(" or ")"
//! number   := ["-"] digit (digit | "." | "e" | "E")*                              "-" only where a value must follow
//! string   := "..." or '...', with backslash escapes
//! tuple    := "[" [(number | string) ("," (number | string))* [","]] "]"
//! selector := "." (letter | digit | "_" | "-")+                                   a top-level field: .n-1 is "n-1"
//! ```
//! Operators need no blanks around them. Words are lower case. There is no `true`, no `false` and no minus sign before a
//! selector or a parenthesis.
//!
//! # Values
//! - A field is a number, a string, null, a boolean (1 or 0) or an array. An object cannot be used.
//! - True are: a number other than 0, a string that is not empty, every array or tuple. Null is false.
//! - `==` compares two strings by bytes and two numbers by value; null equals only null; anything else is converted to
//!   numbers first, so 5 equals "5". A string is read as C's `strtod` does; a string that is not a number as a whole, an
//!   array, a tuple and null are 0.
//! - The other comparisons and the arithmetic always convert to numbers. `%` is C's `fmod`; division by zero is
//!   infinite or not a number.
//! - `x in y` with an array or a tuple `y`: some item equals `x`. With two strings: `x` is a substring of `y`.
//!
//! # Missing fields
//! An element without attributes never matches. Nor does one that lacks any field the expression names, whatever the
//! rest says: `.a == 1 or .b == 2` needs both `.a` and `.b`. See `json.rs` for how attributes are read.
//!
//! # Parts
//! `lexer.rs` makes tokens, `parser.rs` makes a program of them, `eval.rs` runs it; `value.rs`, `text.rs` and `number.rs`
//! hold what values mean. `plan.rs` makes algebra over sets of rows of it, for columns.
//!
//! # The other dialect
//! A filter whose first byte that is no blank is `{` is a JSON document: `document/` parses and evaluates it. Both dialects
//! have one engine: columns, sets of rows and what is remembered of them know only [`Filter`].

pub(super) mod document;
mod eval;
pub(super) mod json;
mod lexer;
mod number;
mod parser;
pub(super) mod plan;
pub(super) mod text;
pub(super) mod value;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) mod tests_random;

use std::sync::Arc;

use document::Document;
use plan::{Operand, SetStep};
use value::Value;

/// Longest expression accepted, in bytes.
pub const MAX_FILTER_BYTES: usize = 8 * 1024;

/// Deepest nesting accepted: of parentheses and of `**` to the right of `**` in an expression, of a JSON document, and of
/// arrays in an attribute that an expression reads (a deeper array counts as missing).
pub const MAX_FILTER_DEPTH: usize = 64;

/// Why an expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The expression breaks the grammar.
    #[error("syntax error in FILTER expression near: {}", one_line(near))]
    Syntax {
        /// The expression from where scanning stopped, or all of it if it had been scanned to its end.
        near: Vec<u8>,
    },
    /// A JSON document that is no filter.
    #[error("FILTER {}: {}", one_line(place.as_bytes()), one_line(what.as_bytes()))]
    Document {
        /// Where, such as `at $and[1].price`.
        place: String,
        /// What is wrong there.
        what: String,
    },
    /// The expression has more than [`MAX_FILTER_BYTES`] bytes.
    #[error("FILTER expression is longer than {MAX_FILTER_BYTES} bytes")]
    TooLong,
    /// The expression is nested deeper than [`MAX_FILTER_DEPTH`].
    #[error("FILTER expression is nested deeper than {MAX_FILTER_DEPTH} levels")]
    TooDeep,
}

/// Bytes as text that fits an error reply, which is one line.
fn one_line(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches(['\r', '\n']).replace(['\r', '\n'], " ")
}

/// A parsed expression, ready to be run on many rows and threads. Clones share it.
#[derive(Debug, Clone)]
pub struct Filter {
    rule: Arc<Rule>,
    plan: Arc<[plan::SetStep]>,
    text: Arc<[u8]>,
}

#[derive(Debug)]
enum Rule {
    Expression(parser::Program),
    Document(Document),
}

/// Which language a filter is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Expression,
    Json,
}

impl Dialect {
    /// Finds the fields called `names` (sorted, each once) as filters of this dialect see them; what stands in a slot of
    /// `found`, which comes all None, is `Some(Some(value))` if the field is there.
    pub fn find_each<'a>(
        self,
        attributes: &'a [u8],
        names: &[Box<[u8]>],
        found: &mut [Option<Option<Value<'a>>>],
    ) {
        match self {
            Self::Expression => json::find_each(attributes, names, found),
            Self::Json => {
                let paths = names.iter().zip(found);
                paths.for_each(|(path, slot)| *slot = Some(document::find(attributes, path)));
            }
        }
    }
}

impl Filter {
    /// Parses `expr`, e.g. `.year >= 1980 and .genre in ["drama", "comedy"]`, or the same in JSON:
    /// `{"year": {"$gte": 1980}, "genre": {"$in": ["drama", "comedy"]}}`.
    ///
    /// # Errors
    /// [`FilterError`] if the expression is too long, nested too deep or not in the language. An empty one is not.
    pub fn parse(expr: &[u8]) -> Result<Filter, FilterError> {
        if expr.len() > MAX_FILTER_BYTES {
            return Err(FilterError::TooLong);
        }
        let is_document = expr.iter().find(|byte| !text::is_blank(**byte)) == Some(&b'{');
        let (rule, plan) = if is_document {
            let document = Document::parse(expr)?;
            let plan = document.plan();
            (Rule::Document(document), plan)
        } else {
            let program = parser::parse(expr)?;
            let plan = plan::plan(&program);
            (Rule::Expression(program), plan)
        };
        Ok(Filter { rule: Arc::new(rule), plan: plan.into(), text: expr.into() })
    }

    /// The expression as it was given.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// Whether an element with these attributes (a JSON object, as stored) passes. Never fails: attributes that are not
    /// JSON have no fields. No attributes at all never pass an expression; a JSON document takes them as `{}`.
    pub fn matches(&self, attributes: Option<&[u8]>) -> bool {
        match &*self.rule {
            Rule::Expression(program) => attributes.is_some_and(|json| eval::matches(program, json)),
            Rule::Document(document) => document.matches(attributes.unwrap_or_default()),
        }
    }

    /// Whether it is the JSON document `{}`, which everything passes.
    pub fn is_empty(&self) -> bool {
        matches!(&*self.rule, Rule::Document(document) if document.is_empty())
    }

    /// Its language.
    pub(super) fn dialect(&self) -> Dialect {
        match &*self.rule {
            Rule::Expression(_) => Dialect::Expression,
            Rule::Document(_) => Dialect::Json,
        }
    }

    /// The names of all fields in the expression, or the paths in the document; sorted, each once.
    pub(super) fn fields(&self) -> &[Box<[u8]>] {
        match &*self.rule {
            Rule::Expression(program) => &program.fields,
            Rule::Document(document) => &document.paths,
        }
    }

    /// Which rows pass, as algebra over sets of rows; in an expression, among those that have every field.
    pub(super) fn plan(&self) -> &[SetStep] {
        &self.plan
    }

    /// Whether an operand of the plan is true. `fields` has a slot for each of [`Self::fields`]; those that the operand
    /// uses are filled.
    pub(super) fn holds<'a>(&'a self, operand: &Operand, fields: &[Option<Value<'a>>]) -> bool {
        match &*self.rule {
            Rule::Expression(program) => eval::holds(program, operand.steps.clone(), fields),
            Rule::Document(document) => document.holds(operand.steps.clone(), fields),
        }
    }
}
