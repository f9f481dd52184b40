//! Runs a program over the attributes of one row.

use std::ops::Range;

use super::json;
use super::lexer::BinaryOp;
use super::parser::{Program, Step};
use super::value::Value;

/// How many fields and stack values a program may have before a row costs an allocation.
const INLINE_VALUES: usize = 8;

/// Whether an element with these attributes passes `program`.
///
/// The fields are fetched first, each once: a missing one rejects the element even where its value would not matter.
/// Only for that rule does it matter which operands are evaluated, so `and` and `or` stop as soon as they are decided.
pub(super) fn matches(program: &Program, attributes: &[u8]) -> bool {
    let mut inline = [None; INLINE_VALUES];
    let mut heap = Vec::new();
    let fields = slots(&mut inline, &mut heap, program.fields.len());
    json::find_fields(attributes, &program.fields, fields) && holds(program, 0..program.steps.len(), fields)
}

/// `len` fresh slots: those of `inline` if they suffice, else on the heap.
fn slots<'s, T: Copy + Default>(
    inline: &'s mut [T; INLINE_VALUES],
    heap: &'s mut Vec<T>,
    len: usize,
) -> &'s mut [T] {
    match inline.get_mut(..len) {
        Some(slots) => slots,
        None => {
            heap.resize(len, T::default());
            heap
        }
    }
}

/// Whether the operand that `steps` of `program` compute is true, given the fields it uses. The parser guarantees that no
/// step needs more of the stack than is there, and that `and` and `or` skip nothing beyond their operand.
pub(super) fn holds<'a>(program: &'a Program, steps: Range<usize>, fields: &[Option<Value<'a>>]) -> bool {
    let mut inline = [Value::Null; INLINE_VALUES];
    let mut heap = Vec::new();
    let stack = slots(&mut inline, &mut heap, program.stack_len);
    let mut len = 0;
    let mut at = steps.start;
    while let Some(step) = program.steps[..steps.end].get(at) {
        at += 1;
        match step {
            Step::Push(literal) => {
                stack[len] = literal.value();
                len += 1;
            }
            Step::Field(index) => {
                stack[len] = fields[*index].unwrap_or_default();
                len += 1;
            }
            Step::Not => stack[len - 1] = Value::from(!stack[len - 1].is_true()),
            Step::Truth => stack[len - 1] = Value::from(stack[len - 1].is_true()),
            Step::Decide { decided_by, skip_to } => {
                if stack[len - 1].is_true() == *decided_by {
                    stack[len - 1] = Value::from(*decided_by);
                    at = *skip_to;
                } else {
                    len -= 1;
                }
            }
            Step::Binary(op) => {
                len -= 1;
                stack[len - 1] = apply(*op, stack[len - 1], stack[len]);
            }
        }
    }
    stack[0].is_true()
}

/// The operator's result for the operands `a` and `b`.
fn apply<'a>(op: BinaryOp, a: Value<'a>, b: Value<'a>) -> Value<'a> {
    use BinaryOp::*;
    match op {
        Or => Value::from(a.is_true() || b.is_true()),
        And => Value::from(a.is_true() && b.is_true()),
        Greater => Value::from(a.number() > b.number()),
        GreaterOrEqual => Value::from(a.number() >= b.number()),
        Less => Value::from(a.number() < b.number()),
        LessOrEqual => Value::from(a.number() <= b.number()),
        Equal => Value::from(a.equals(b)),
        NotEqual => Value::from(!a.equals(b)),
        In => Value::from(a.is_in(b)),
        Add => Value::Number(a.number() + b.number()),
        Subtract => Value::Number(a.number() - b.number()),
        Multiply => Value::Number(a.number() * b.number()),
        Divide => Value::Number(a.number() / b.number()),
        Remainder => Value::Number(a.number() % b.number()),
        Power => Value::Number(a.number().powf(b.number())),
    }
}
