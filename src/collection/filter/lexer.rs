//! Splits an expression into tokens.

use super::text::{is_blank, quoted_len, unescape};
use super::value::Literal;

/// An operator with two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BinaryOp {
    Or,
    And,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
}

/// A word or sign of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbol {
    Open,
    Close,
    Not,
    Null,
    Binary(BinaryOp),
}

/// The smallest unit of an expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token<'a> {
    Literal(Literal),
    /// The name of a field, without its dot.
    Selector(&'a [u8]),
    Not,
    Binary(BinaryOp),
    Open,
    Close,
}

/// Every word and sign; one that begins another comes after it.
const SYMBOLS: [(&[u8], Symbol); 22] = [
    (b"null", Symbol::Null),
    (b"and", Symbol::Binary(BinaryOp::And)),
    (b"&&", Symbol::Binary(BinaryOp::And)),
    (b"or", Symbol::Binary(BinaryOp::Or)),
    (b"||", Symbol::Binary(BinaryOp::Or)),
    (b"not", Symbol::Not),
    (b"in", Symbol::Binary(BinaryOp::In)),
    (b"==", Symbol::Binary(BinaryOp::Equal)),
    (b"!=", Symbol::Binary(BinaryOp::NotEqual)),
    (b"!", Symbol::Not),
    (b">=", Symbol::Binary(BinaryOp::GreaterOrEqual)),
    (b">", Symbol::Binary(BinaryOp::Greater)),
    (b"<=", Symbol::Binary(BinaryOp::LessOrEqual)),
    (b"<", Symbol::Binary(BinaryOp::Less)),
    (b"**", Symbol::Binary(BinaryOp::Power)),
    (b"*", Symbol::Binary(BinaryOp::Multiply)),
    (b"/", Symbol::Binary(BinaryOp::Divide)),
    (b"%", Symbol::Binary(BinaryOp::Remainder)),
    (b"+", Symbol::Binary(BinaryOp::Add)),
    (b"-", Symbol::Binary(BinaryOp::Subtract)),
    (b"(", Symbol::Open),
    (b")", Symbol::Close),
];

/// Splits `expr` into tokens.
///
/// # Errors
/// The offset in bytes where scanning stopped because nothing in the language goes on there. As in Redis, that is
/// behind a word or number that is not in the language, and the end for a string or tuple that is not closed.
pub(super) fn tokens(expr: &[u8]) -> Result<Vec<Token<'_>>, usize> {
    let mut lexer = Lexer { expr, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.token(tokens.last()).ok_or(lexer.at)? {
        tokens.push(token);
    }
    Ok(tokens)
}

/// A place in the expression. Methods that return an Option give None for a syntax error at that place.
struct Lexer<'a> {
    expr: &'a [u8],
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.expr[self.at..]
    }

    /// Takes the bytes for which `belongs` holds.
    fn run(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let len = rest.iter().take_while(|&&byte| belongs(byte)).count();
        self.at += len;
        &rest[..len]
    }

    /// The next token, which follows `last`; Some(None) at the end.
    fn token(&mut self, last: Option<&Token>) -> Option<Option<Token<'a>>> {
        self.run(is_blank);
        // Behind a value "-" is the operator, elsewhere the sign of a number.
        let value_before = matches!(last, Some(Token::Literal(_) | Token::Selector(_) | Token::Close));
        let token = match *self.rest() {
            [] => return Some(None),
            [b'0'..=b'9', ..] => Token::Literal(self.number()?),
            [b'-', b'0'..=b'9', ..] if !value_before => Token::Literal(self.number()?),
            [quote @ (b'"' | b'\''), ..] => Token::Literal(self.string(quote)?),
            [b'[', ..] => Token::Literal(self.tuple()?),
            [b'.', next, ..] if is_name_byte(next) => {
                self.at += 1;
                Token::Selector(self.run(is_name_byte))
            }
            _ => self.symbol()?,
        };
        Some(Some(token))
    }

    /// An optional "-", then whatever could belong to a number.
    fn number(&mut self) -> Option<Literal> {
        let start = self.at;
        self.at += usize::from(self.rest().starts_with(b"-"));
        self.run(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E'));
        let text = str::from_utf8(&self.expr[start..self.at]).ok()?;
        text.parse().ok().map(Literal::Number)
    }

    fn string(&mut self, quote: u8) -> Option<Literal> {
        let inner = &self.rest()[1..];
        let Some((len, escaped)) = quoted_len(inner, quote) else {
            self.at = self.expr.len();
            return None;
        };
        self.at += len + 2;
        let raw = &inner[..len];
        Some(Literal::Text(if escaped { unescape(raw).into() } else { raw.into() }))
    }

    fn tuple(&mut self) -> Option<Literal> {
        let mut items = Vec::new();
        self.at += 1;
        loop {
            self.run(is_blank);
            items.push(match *self.rest() {
                [b']', ..] => break,
                [b'-' | b'0'..=b'9', ..] => self.number()?,
                [quote @ (b'"' | b'\''), ..] => self.string(quote)?,
                _ => return None,
            });
            self.run(is_blank);
            match self.rest().first() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return None,
            }
        }
        self.at += 1;
        Some(Literal::Tuple(items.into()))
    }

    /// A word or sign. Words need nothing between them: "andnot" is "and", "not".
    fn symbol(&mut self) -> Option<Token<'a>> {
        let rest = self.rest();
        let Some((text, symbol)) = SYMBOLS.iter().find(|(text, _)| rest.starts_with(text)) else {
            self.run(|byte| byte.is_ascii_alphabetic() || b"+-*%/!()<>=|&".contains(&byte));
            return None;
        };
        self.at += text.len();
        Some(match *symbol {
            Symbol::Open => Token::Open,
            Symbol::Close => Token::Close,
            Symbol::Not => Token::Not,
            Symbol::Null => Token::Literal(Literal::Null),
            Symbol::Binary(op) => Token::Binary(op),
        })
    }
}

/// Whether `byte` may be part of a field's name behind the dot.
fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Token<'static> {
        Token::Literal(Literal::Number(value))
    }

    #[test]
    fn a_minus_behind_a_value_is_an_operator() {
        let minus = || Token::Binary(BinaryOp::Subtract);
        assert_eq!(tokens(b"-1"), Ok(vec![number(-1.0)]));
        assert_eq!(tokens(b"1-1"), Ok(vec![number(1.0), minus(), number(1.0)]));
        assert_eq!(tokens(b"1--1"), Ok(vec![number(1.0), minus(), number(-1.0)]));
        assert_eq!(tokens(b")-1"), Ok(vec![Token::Close, minus(), number(1.0)]));
        assert_eq!(tokens(b"(-1"), Ok(vec![Token::Open, number(-1.0)]));
        assert_eq!(tokens(b".n-1"), Ok(vec![Token::Selector(b"n-1")]));
        assert_eq!(tokens(b".n -1"), Ok(vec![Token::Selector(b"n"), minus(), number(1.0)]));
    }

    #[test]
    fn a_symbol_that_begins_another_comes_after_it() {
        for (index, (text, _)) in SYMBOLS.iter().enumerate() {
            assert!(SYMBOLS[..index].iter().all(|(earlier, _)| !text.starts_with(earlier)), "{text:?}");
        }
    }

    #[test]
    fn strings_lose_quotes_and_escapes() {
        let text = |bytes: &[u8]| Ok(vec![Token::Literal(Literal::Text(bytes.into()))]);
        assert_eq!(tokens(br#" "a'b" "#), text(b"a'b"));
        assert_eq!(tokens(br"'a\'b\n\\'"), text(b"a'b\n\\"));
        assert_eq!(tokens(b"''"), text(b""));
    }
}
