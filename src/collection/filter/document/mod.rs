//! The JSON dialect: a filter as a document, in the manner of MongoDB and Pinecone.
//!
//! # Language
//! ```text
//! filter    := {}                                                    passes everything
//!            | { condition, ... }                                    all of them
//! condition := "path": value                                        the same as {"$eq": value}
//!            | "path": { operator, ... }                             all of them
//!            | "$and": [filter, ...] | "$or": [filter, ...] | "$not": filter
//! operator  := "$eq" | "$ne": value                                  value: string, number, boolean or null
//!            | "$gt" | "$gte" | "$lt" | "$lte": string or number
//!            | "$in" | "$nin": [value, ...]
//!            | "$exists": boolean
//!            | "$contains": value        a string: it has this part; an array: an item is equal
//!            | "$size": n                an array of so many items
//!            | "$elemMatch": filter | { operator, ... }              an item of an array: an object; any value
//!            | "$not": { operator, ... }
//! ```
//! A path goes from object to object: `author.name`. It does not go into arrays: `$elemMatch` does.
//!
//! # Values
//! - `$eq`, and so `$in`, holds for an array if it holds for an item. null equals null and what is missing.
//! - 1 equals 1.0; numbers are compared as f64. true does not equal 1.
//! - `$gt` and its kin compare numbers with numbers, strings with strings byte by byte, and nothing else.
//! - `$ne` is "not `$eq`", `$nin` "not `$in`", so both hold for what is missing.
//!
//! `parse.rs` makes tests of it, `test.rs` says when one holds, `read.rs` finds their values in attributes.

mod parse;
mod read;
mod test;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(in crate::collection) mod tests_random;

use std::ops::Range;

use super::plan::{Operand, SetStep};
use super::value::Value;
pub(super) use read::find;
use test::Test;

/// A parsed document.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// The paths of its tests, sorted, each once.
    pub paths: Vec<Box<[u8]>>,
    tests: Vec<PathTest>,
    root: Node,
}

/// A test of the value at a path.
#[derive(Debug)]
struct PathTest {
    /// Index in `paths`; `None` for the whole value, as `$elemMatch` has it.
    path: Option<usize>,
    test: Test,
}

/// How tests are joined.
#[derive(Debug)]
enum Node {
    /// The test of this index.
    Test(usize),
    Not(Box<Node>),
    All(Vec<Node>),
    /// Of one node at least.
    Any(Vec<Node>),
}

impl Default for Node {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Document {
    /// Whether an element with these attributes passes; with no bytes it has none.
    pub fn matches(&self, attributes: &[u8]) -> bool {
        self.passes(Value::Object(attributes))
    }

    /// Whether it is `{}`.
    pub fn is_empty(&self) -> bool {
        matches!(&self.root, Node::All(nodes) if nodes.is_empty())
    }

    fn passes(&self, value: Value<'_>) -> bool {
        self.node_passes(&self.root, value)
    }

    fn node_passes(&self, node: &Node, value: Value<'_>) -> bool {
        match node {
            Node::Test(index) => {
                let PathTest { path, test } = &self.tests[*index];
                test.holds(match (path, value) {
                    (None, value) => Some(value),
                    (Some(path), Value::Object(object)) => find(object, &self.paths[*path]),
                    (Some(_), _) => None,
                })
            }
            Node::Not(node) => !self.node_passes(node, value),
            Node::All(nodes) => nodes.iter().all(|node| self.node_passes(node, value)),
            Node::Any(nodes) => nodes.iter().any(|node| self.node_passes(node, value)),
        }
    }

    /// Whether the tests of an operand of the plan all hold. `fields` has a slot for each path.
    pub fn holds(&self, tests: Range<usize>, fields: &[Option<Value<'_>>]) -> bool {
        let value = |path: &Option<usize>| path.and_then(|path| fields[path]);
        self.tests[tests].iter().all(|PathTest { path, test }| test.holds(value(path)))
    }

    /// Which rows pass, as algebra over sets of rows.
    pub fn plan(&self) -> Vec<SetStep> {
        let mut plan = Vec::new();
        self.plan_node(&self.root, &mut plan);
        plan
    }

    fn plan_node(&self, node: &Node, plan: &mut Vec<SetStep>) {
        match node {
            Node::Test(index) => {
                let PathTest { path, test } = &self.tests[*index];
                let (fields, number_test) = (path.iter().copied().collect(), Some(test.number_test()));
                plan.push(SetStep::Push(Operand { steps: *index..*index + 1, fields, number_test }));
            }
            Node::Not(node) => {
                self.plan_node(node, plan);
                plan.push(SetStep::Not);
            }
            Node::All(nodes) if nodes.is_empty() => {
                plan.push(SetStep::Push(Operand { steps: 0..0, fields: Vec::new(), number_test: None }));
            }
            Node::All(nodes) | Node::Any(nodes) => {
                for (at, joined) in nodes.iter().enumerate() {
                    self.plan_node(joined, plan);
                    if at > 0 {
                        let all = matches!(node, Node::All(_));
                        plan.push(if all { SetStep::And } else { SetStep::Or });
                    }
                }
            }
        }
    }
}
