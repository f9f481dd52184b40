//! A program as algebra over sets of rows, for those who have the values of many rows at hand. (JSON documents make their
//! own plan, of the same steps.)
//!
//! `and`, `or` and `not` join sets. What stands between them is an *operand*: a stretch of the program's steps that the
//! evaluator can run by itself. So nothing is computed in a second way, but for one thing: how an operand that compares a
//! field with a literal turns out where the field is a number.

use std::ops::Range;

use super::lexer::BinaryOp;
use super::parser::{Program, Step};
use super::value::{Literal, Value};

/// One instruction of a machine whose stack holds sets of rows.
#[derive(Debug)]
pub(in crate::collection) enum SetStep {
    /// Pushes the rows for which an operand is true.
    Push(Operand),
    /// Replaces the top by the rows that are not in it.
    Not,
    /// Replaces the two topmost sets by what both have.
    And,
    /// Replaces the two topmost sets by what one of them has.
    Or,
}

/// A part of a program that is evaluated row by row, or value by value.
#[derive(Debug)]
pub(in crate::collection) struct Operand {
    /// The steps that compute it; in a JSON document, its tests.
    pub steps: Range<usize>,
    /// The fields it uses, as indexes of the program's; ascending, each once.
    pub fields: Vec<usize>,
    /// For a comparison of its only field with a literal: whether it is true where the field is this number.
    pub number_test: Option<NumberTest>,
}

/// A question to a number.
#[derive(Debug, PartialEq)]
pub(in crate::collection) enum NumberTest {
    Less(f64),
    LessOrEqual(f64),
    Greater(f64),
    GreaterOrEqual(f64),
    OneOf(Box<[f64]>),
    NoneOf(Box<[f64]>),
}

/// The program over sets of rows.
pub(super) fn plan(program: &Program) -> Vec<SetStep> {
    let mut planner = Planner { program, plan: Vec::new(), operands: Vec::new() };
    // The `and` and `or` whose right side comes next: their set step, and the step behind their end.
    let mut open = Vec::new();
    for (at, step) in program.steps.iter().enumerate() {
        match step {
            Step::Push(_) | Step::Field(_) => planner.operands.push(Pending {
                first_step: at,
                set_steps_before: planner.plan.len(),
                is_set: false,
            }),
            Step::Not => {
                planner.push_set(at);
                planner.plan.push(SetStep::Not);
            }
            Step::Decide { decided_by, skip_to } => {
                planner.push_set(at);
                open.push((if *decided_by { SetStep::Or } else { SetStep::And }, *skip_to));
            }
            Step::Truth => {
                planner.push_set(at);
                if let Some((joined, _)) = open.pop_if(|(_, end)| *end == at + 1) {
                    planner.operands.pop();
                    planner.plan.push(joined);
                }
            }
            Step::Binary(_) => planner.join_values(),
        }
    }
    planner.push_set(program.steps.len());
    planner.plan
}

struct Planner<'a> {
    program: &'a Program,
    plan: Vec<SetStep>,
    /// What the program has on its stack.
    operands: Vec<Pending>,
}

/// A value on the program's stack.
struct Pending {
    first_step: usize,
    /// Length of the plan before anything of this operand.
    set_steps_before: usize,
    /// The plan computes it already.
    is_set: bool,
}

impl Planner<'_> {
    /// Has the plan compute the set of rows for which the topmost operand, which ends before step `end`, is true.
    fn push_set(&mut self, end: usize) {
        if let Some(top) = self.operands.last_mut().filter(|top| !top.is_set) {
            top.is_set = true;
            self.plan.push(SetStep::Push(operand(self.program, top.first_step..end)));
        }
    }

    /// Makes one operand of the two topmost: their operator needs values, so what the plan has of them is taken back.
    fn join_values(&mut self) {
        self.operands.pop();
        if let Some(left) = self.operands.last_mut() {
            left.is_set = false;
            self.plan.truncate(left.set_steps_before);
        }
    }
}

fn operand(program: &Program, steps: Range<usize>) -> Operand {
    let field_of = |step: &Step| if let Step::Field(index) = step { Some(*index) } else { None };
    let mut fields: Vec<usize> = program.steps[steps.clone()].iter().filter_map(field_of).collect();
    fields.sort_unstable();
    fields.dedup();
    let number_test = number_test(&program.steps[steps.clone()]);
    Operand { steps, fields, number_test }
}

/// The test of a number that `steps` are, with the field in its place. Says what `eval::apply` and [`Value`] say.
fn number_test(steps: &[Step]) -> Option<NumberTest> {
    use BinaryOp::*;
    let (op, literal) = match steps {
        // Whether the field itself is true.
        [Step::Field(_)] => return Some(NumberTest::NoneOf([0.0].into())),
        [Step::Field(_), Step::Push(literal), Step::Binary(op)] => (*op, literal),
        // Nothing is in a number.
        [Step::Push(_), Step::Field(_), Step::Binary(In)] => return Some(NumberTest::OneOf([].into())),
        [Step::Push(literal), Step::Field(_), Step::Binary(op)] => {
            let mirrored = match op {
                Less => Greater,
                LessOrEqual => GreaterOrEqual,
                Greater => Less,
                GreaterOrEqual => LessOrEqual,
                Equal | NotEqual => *op,
                _ => return None,
            };
            (mirrored, literal)
        }
        _ => return None,
    };
    let number = literal.value().number();
    let equals: Box<[f64]> = if *literal == Literal::Null { [].into() } else { [number].into() };
    Some(match op {
        Less => NumberTest::Less(number),
        LessOrEqual => NumberTest::LessOrEqual(number),
        Greater => NumberTest::Greater(number),
        GreaterOrEqual => NumberTest::GreaterOrEqual(number),
        Equal => NumberTest::OneOf(equals),
        NotEqual => NumberTest::NoneOf(equals),
        In => NumberTest::OneOf(match literal.value() {
            Value::Tuple(items) => items.iter().map(|item| item.value().number()).collect(),
            _ => [].into(),
        }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::parser::parse;
    use super::*;

    /// The plan in words; operands by the steps they cover.
    fn planned(expr: &str) -> String {
        let program = parse(expr.as_bytes()).unwrap();
        let steps = plan(&program).into_iter().map(|step| match step {
            SetStep::Push(operand) => format!("{}..{}", operand.steps.start, operand.steps.end),
            other => format!("{other:?}"),
        });
        steps.collect::<Vec<_>>().join(" ")
    }

    fn test_of(expr: &str) -> Option<NumberTest> {
        number_test(&parse(expr.as_bytes()).unwrap().steps)
    }

    #[test]
    fn words_join_sets() {
        assert_eq!(planned(".a > 1"), "0..3");
        assert_eq!(planned(".a and not .b"), "0..1 2..3 Not And");
        assert_eq!(planned("!!.a or .b == 1 and .c"), "0..1 3..6 7..8 And Or");
        assert_eq!(planned("(.a or .b) and .c"), "0..1 2..3 Or 5..6 And");
    }

    #[test]
    fn what_other_operators_need_stays_one_operand() {
        assert_eq!(planned("(.a and .b) == 1"), "0..6");
        assert_eq!(planned("1 == (not .a)"), "0..4");
        assert_eq!(planned(".a or (.b and .c) + 1"), "0..1 2..8 Or");
    }

    #[test]
    fn comparisons_with_a_literal_are_tests_of_numbers() {
        assert_eq!(test_of(".a < \"5\""), Some(NumberTest::Less(5.0)));
        assert_eq!(test_of("5 < .a"), Some(NumberTest::Greater(5.0)));
        assert_eq!(test_of(".a != null"), Some(NumberTest::NoneOf([].into())));
        assert_eq!(test_of(".a in [1, \"x\"]"), Some(NumberTest::OneOf([1.0, 0.0].into())));
        assert_eq!(test_of("[1] in .a"), Some(NumberTest::OneOf([].into())));
        assert_eq!(test_of(".a + 1"), None);
        assert_eq!(test_of(".a < .b"), None);
    }
}
