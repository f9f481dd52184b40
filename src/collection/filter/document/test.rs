//! What can be asked of one value.

use super::super::plan::NumberTest;
use super::super::text::{Escapes, Text};
use super::super::value::Value;
use super::Document;
use super::read::items;

/// A value written in the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Number(f64),
    Text(Box<[u8]>),
}

impl Literal {
    fn equals(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => *a == b,
            (Self::Number(a), Value::Number(b)) => *a == b,
            (Self::Text(a), Value::Text(b)) => **a == *b.bytes(),
            _ => false,
        }
    }
}

/// An order of two values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Order {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

impl Order {
    fn holds<T: PartialOrd + ?Sized>(self, value: &T, bound: &T) -> bool {
        match self {
            Self::Greater => value > bound,
            Self::GreaterOrEqual => value >= bound,
            Self::Less => value < bound,
            Self::LessOrEqual => value <= bound,
        }
    }
}

/// A question to a value.
#[derive(Debug)]
pub(super) enum Test {
    /// `$eq` and `$in`.
    OneOf(Box<[Literal]>),
    /// `$gt`, `$gte`, `$lt`, `$lte` with a number or a string.
    Compare(Order, Literal),
    /// `$exists`.
    Exists,
    /// `$contains`.
    Contains(Literal),
    /// `$size`.
    Size(usize),
    /// `$elemMatch`. If it is a filter, not operators, items that are no objects do not match.
    AnyItem { document: Box<Document>, of_objects: bool },
}

impl Test {
    /// Whether it holds for this value; `None` if it is missing.
    pub fn holds(&self, value: Option<Value<'_>>) -> bool {
        let Some(value) = value else {
            return matches!(self, Self::OneOf(wanted) if wanted.contains(&Literal::Null));
        };
        match (self, value) {
            (Self::Exists, _) => true,
            (Self::OneOf(wanted), Value::Array(inner)) => {
                items(inner).any(|item| wanted.iter().any(|wanted| wanted.equals(item)))
            }
            (Self::OneOf(wanted), value) => wanted.iter().any(|wanted| wanted.equals(value)),
            (Self::Compare(order, Literal::Number(bound)), Value::Number(number)) => {
                order.holds(&number, bound)
            }
            (Self::Compare(order, Literal::Text(bound)), Value::Text(text)) => {
                order.holds(&*text.bytes(), &**bound)
            }
            (Self::Contains(Literal::Text(part)), Value::Text(text)) => {
                text.contains(Text { raw: part, escapes: Escapes::None })
            }
            (Self::Contains(wanted), Value::Array(inner)) => items(inner).any(|item| wanted.equals(item)),
            (Self::Size(size), Value::Array(inner)) => items(inner).count() == *size,
            (Self::AnyItem { document, of_objects }, Value::Array(inner)) => items(inner)
                .any(|item| (!of_objects || matches!(item, Value::Object(_))) && document.passes(item)),
            _ => false,
        }
    }

    /// For which numbers it holds.
    pub fn number_test(&self) -> NumberTest {
        let nothing = || NumberTest::OneOf([].into());
        match self {
            Self::OneOf(wanted) => {
                let number = |wanted: &Literal| match wanted {
                    Literal::Number(number) => Some(*number),
                    _ => None,
                };
                NumberTest::OneOf(wanted.iter().filter_map(number).collect())
            }
            Self::Compare(order, Literal::Number(bound)) => match order {
                Order::Greater => NumberTest::Greater(*bound),
                Order::GreaterOrEqual => NumberTest::GreaterOrEqual(*bound),
                Order::Less => NumberTest::Less(*bound),
                Order::LessOrEqual => NumberTest::LessOrEqual(*bound),
            },
            Self::Exists => NumberTest::NoneOf([].into()),
            _ => nothing(),
        }
    }
}
