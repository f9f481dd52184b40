//! The values an expression computes with.

use super::json;
use super::number::number_or_zero;
use super::text::{Escapes, Text};

/// A value written in the expression.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::collection) enum Literal {
    Null,
    Number(f64),
    /// With its escapes decoded.
    Text(Box<[u8]>),
    /// Of numbers and strings only.
    Tuple(Box<[Literal]>),
}

impl Literal {
    /// The literal as a value to compute with.
    pub fn value(&self) -> Value<'_> {
        match self {
            Literal::Null => Value::Null,
            Literal::Number(number) => Value::Number(*number),
            Literal::Text(bytes) => Value::Text(Text { raw: bytes, escapes: Escapes::None }),
            Literal::Tuple(items) => Value::Tuple(items),
        }
    }
}

/// A value while one row is evaluated; borrows from the expression or from the attributes.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::collection) enum Value<'a> {
    #[default]
    Null,
    Number(f64),
    Text(Text<'a>),
    /// A tuple of the expression.
    Tuple(&'a [Literal]),
    /// An array of the attributes: what stands between its brackets. In an expression it is known to be well formed.
    Array(&'a [u8]),
    /// In the JSON dialect only; expressions take a boolean as a number.
    Bool(bool),
    /// An object of the attributes, with its brackets. In the JSON dialect only.
    Object(&'a [u8]),
}

impl From<bool> for Value<'_> {
    fn from(truth: bool) -> Self {
        Value::Number(f64::from(u8::from(truth)))
    }
}

impl Value<'_> {
    /// Whether the value counts as true.
    pub fn is_true(self) -> bool {
        match self {
            Value::Null => false,
            Value::Number(number) => number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Bool(truth) => truth,
            Value::Tuple(_) | Value::Array(_) | Value::Object(_) => true,
        }
    }

    /// The value as a number: 0 for whatever is none.
    pub fn number(self) -> f64 {
        match self {
            Value::Number(number) => number,
            Value::Text(text) => number_or_zero(&text.bytes()),
            Value::Bool(truth) => f64::from(u8::from(truth)),
            Value::Null | Value::Tuple(_) | Value::Array(_) | Value::Object(_) => 0.0,
        }
    }

    /// The `==` operator.
    pub fn equals(self, other: Value) -> bool {
        match (self, other) {
            (Value::Text(a), Value::Text(b)) => a.equals(b),
            (Value::Null, Value::Null) => true,
            (Value::Null, _) | (_, Value::Null) => false,
            _ => self.number() == other.number(),
        }
    }

    /// The `in` operator: whether this value is an item, or a substring, of `container`.
    pub fn is_in(self, container: Value) -> bool {
        match (self, container) {
            (_, Value::Tuple(items)) => items.iter().any(|item| self.equals(item.value())),
            (_, Value::Array(inner)) => json::items(inner).any(|item| self.equals(item)),
            (Value::Text(part), Value::Text(whole)) => whole.contains(part),
            _ => false,
        }
    }
}
