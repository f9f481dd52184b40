//! Turns tokens into a program for a stack machine: operands come before their operator.

use super::lexer::{self, BinaryOp, Token};
use super::value::Literal;
use super::{FilterError, MAX_FILTER_DEPTH};

/// One instruction.
#[derive(Debug)]
pub(super) enum Step {
    /// Pushes a literal.
    Push(Literal),
    /// Pushes the field with this index in [`Program::fields`].
    Field(usize),
    /// Replaces the top of the stack by 1 or 0: whether it is false.
    Not,
    /// Replaces the top of the stack by 1 or 0: whether it is true.
    Truth,
    /// Between the operands of `and` and `or`: if the truth of the top is `decided_by`, the top becomes 1 or 0 and the
    /// program goes on at step `skip_to`; otherwise the top is dropped.
    Decide { decided_by: bool, skip_to: usize },
    /// Replaces the two topmost values by the operator's result. Never `and` or `or`.
    Binary(BinaryOp),
}

/// A parsed expression.
#[derive(Debug)]
pub(super) struct Program {
    /// The names of all fields in the expression, sorted, each once.
    pub fields: Vec<Box<[u8]>>,
    /// Leaves one value on the stack: the result.
    pub steps: Vec<Step>,
    /// How many values the stack holds at most.
    pub stack_len: usize,
}

/// Parses `expr`, whose length has been checked.
///
/// # Errors
/// [`FilterError::Syntax`] and [`FilterError::TooDeep`].
pub(super) fn parse(expr: &[u8]) -> Result<Program, FilterError> {
    // An error of structure is found after the whole expression was scanned, so it names the whole expression.
    let syntax = |at: usize| {
        let near = if at < expr.len() { &expr[at..] } else { expr };
        FilterError::Syntax { near: near.to_vec() }
    };
    let tokens = lexer::tokens(expr).map_err(syntax)?;
    let mut fields: Vec<Box<[u8]>> = tokens
        .iter()
        .filter_map(|token| if let Token::Selector(name) = token { Some(Box::from(*name)) } else { None })
        .collect();
    fields.sort_unstable();
    fields.dedup();
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        stack_now: 0,
        program: Program { fields, steps: Vec::new(), stack_len: 0 },
    };
    let parsed = parser.binary(0, 0).and_then(|()| parser.end());
    match parsed {
        Ok(()) => Ok(parser.program),
        Err(Refusal::Syntax) => Err(syntax(expr.len())),
        Err(Refusal::TooDeep) => Err(FilterError::TooDeep),
    }
}

enum Refusal {
    Syntax,
    TooDeep,
}

struct Parser<'a> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'a>>>,
    /// How many values are on the stack when the steps so far have run.
    stack_now: usize,
    program: Program,
}

impl Parser<'_> {
    /// Parses operands joined by operators that bind at least as tightly as `precedence`. `depth` counts what is nested
    /// around them; it bounds the recursion.
    fn binary(&mut self, precedence: u8, depth: usize) -> Result<(), Refusal> {
        if depth > MAX_FILTER_DEPTH {
            return Err(Refusal::TooDeep);
        }
        self.unary(depth)?;
        while let Some(op) = self.next_operator(precedence) {
            let tighter = precedence_of(op) + 1;
            match op {
                BinaryOp::Or => self.decided(true, tighter, depth)?,
                BinaryOp::And => self.decided(false, tighter, depth)?,
                _ => {
                    // "**" groups to the right: its right operand may be another one.
                    let right =
                        if op == BinaryOp::Power { (tighter - 1, depth + 1) } else { (tighter, depth) };
                    self.binary(right.0, right.1)?;
                    self.program.steps.push(Step::Binary(op));
                    self.stack_now -= 1;
                }
            }
        }
        Ok(())
    }

    /// The rest of `and` or `or` behind the operator: nothing of it runs if the left side is `decided_by`.
    fn decided(&mut self, decided_by: bool, precedence: u8, depth: usize) -> Result<(), Refusal> {
        let decide_at = self.program.steps.len();
        self.program.steps.push(Step::Decide { decided_by, skip_to: 0 });
        self.stack_now -= 1;
        self.binary(precedence, depth)?;
        self.program.steps.push(Step::Truth);
        self.program.steps[decide_at] = Step::Decide { decided_by, skip_to: self.program.steps.len() };
        Ok(())
    }

    fn unary(&mut self, depth: usize) -> Result<(), Refusal> {
        let mut negations = 0usize;
        while self.tokens.next_if(|token| matches!(token, Token::Not)).is_some() {
            negations += 1;
        }
        match self.tokens.next() {
            Some(Token::Literal(literal)) => self.push(Step::Push(literal)),
            Some(Token::Selector(name)) => {
                let index = self.program.fields.partition_point(|field| field.as_ref() < name);
                self.push(Step::Field(index));
            }
            Some(Token::Open) => {
                self.binary(0, depth + 1)?;
                self.tokens.next_if(|token| matches!(token, Token::Close)).ok_or(Refusal::Syntax)?;
            }
            Some(Token::Not | Token::Binary(_) | Token::Close) | None => return Err(Refusal::Syntax),
        }
        match negations {
            0 => {}
            _ if negations % 2 == 1 => self.program.steps.push(Step::Not),
            _ => self.program.steps.push(Step::Truth),
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        if self.tokens.next().is_some() { Err(Refusal::Syntax) } else { Ok(()) }
    }

    /// Takes the next token if it is an operator that binds at least as tightly as `precedence`.
    fn next_operator(&mut self, precedence: u8) -> Option<BinaryOp> {
        let binds = |token: &Token| matches!(token, Token::Binary(op) if precedence_of(*op) >= precedence);
        match self.tokens.next_if(binds) {
            Some(Token::Binary(op)) => Some(op),
            _ => None,
        }
    }

    fn push(&mut self, step: Step) {
        self.program.steps.push(step);
        self.stack_now += 1;
        self.program.stack_len = self.program.stack_len.max(self.stack_now);
    }
}

/// How tightly an operator binds; more is tighter.
fn precedence_of(op: BinaryOp) -> u8 {
    use BinaryOp::*;
    match op {
        Or => 0,
        And => 1,
        Greater | GreaterOrEqual | Less | LessOrEqual | Equal | NotEqual | In => 2,
        Add | Subtract => 3,
        Multiply | Divide | Remainder => 4,
        Power => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack_len(expr: &str) -> usize {
        parse(expr.as_bytes()).unwrap().stack_len
    }

    #[test]
    fn the_stack_is_as_small_as_the_nesting_allows() {
        assert_eq!(stack_len("1"), 1);
        assert_eq!(stack_len("1 or 2 or 3 and 4"), 1);
        assert_eq!(stack_len("1 + 2 + 3 + 4"), 2);
        assert_eq!(stack_len("1 + 2 * 3 ** 4 ** 5"), 5);
        assert_eq!(stack_len("1+".repeat(4000).trim_end_matches('+')), 2);
    }

    #[test]
    fn fields_are_listed_once_and_sorted() {
        let program = parse(b".b == 1 or .a == 2 or .b == .c").unwrap();
        let names: Vec<&[u8]> = program.fields.iter().map(AsRef::as_ref).collect();
        assert_eq!(names, [b"a", b"b", b"c"]);
    }
}
