//! Random input: nothing panics, and random expressions give what a plain evaluator over parsed JSON gives. Others take
//! their random expressions and attributes from here.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::Filter;

/// Random cases of a test: more with `VECDIS_FILTER_CASES=100000`.
pub fn random_cases() -> u32 {
    let asked = std::env::var("VECDIS_FILTER_CASES").ok().and_then(|cases| cases.parse().ok());
    asked.unwrap_or(2000)
}

/// An expression as a tree.
#[derive(Debug, Clone)]
enum Expr {
    Literal(Json),
    Field(&'static str),
    Not(Box<Expr>),
    Binary(Box<Expr>, &'static str, Box<Expr>),
}

/// The operators from loosest to tightest.
const LEVELS: [&[&str]; 6] = [
    &["or", "||"],
    &["and", "&&"],
    &["<", "<=", ">", ">=", "==", "!=", "in"],
    &["+", "-"],
    &["*", "/", "%"],
    &["**"],
];
const FIELDS: [&str; 4] = ["a", "b-1", "7", "missing"];
const STRINGS: [&str; 12] = ["", "5", " 5", "-1.5", "5 ", "abc", "b", "a\"'b", "x\\y\n", "é", "nan", "-inf"];
const NUMBERS: [f64; 10] = [0.0, -0.0, 1.0, -1.0, 5.0, 2.5, -1.5, 100.0, 1e20, 1e308];

fn scalar() -> impl Strategy<Value = Json> {
    prop_oneof![
        proptest::sample::select(&NUMBERS[..]).prop_map(|number| json!(number)),
        proptest::sample::select(&STRINGS[..]).prop_map(|text| json!(text)),
    ]
}

fn field_value() -> impl Strategy<Value = Json> {
    let item =
        prop_oneof![4 => scalar(), 1 => Just(Json::Null), 1 => any::<bool>().prop_map(|truth| json!(truth))];
    prop_oneof![
        4 => item.clone(),
        2 => prop::collection::vec(item, 0..4).prop_map(Json::Array),
        1 => Just(json!([[5], []])),
        1 => Just(json!({"a": 1})),
    ]
}

fn attributes() -> impl Strategy<Value = Map<String, Json>> {
    prop::collection::vec(field_value(), 3)
        .prop_map(|values| FIELDS.iter().map(ToString::to_string).zip(values).collect())
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        4 => scalar().prop_map(Expr::Literal),
        1 => Just(Expr::Literal(Json::Null)),
        2 => prop::collection::vec(scalar(), 0..4).prop_map(|items| Expr::Literal(Json::Array(items))),
        6 => proptest::sample::select(&FIELDS[..3]).prop_map(Expr::Field),
    ];
    let operator = proptest::sample::select(LEVELS.concat());
    let tree = leaf.prop_recursive(5, 40, 2, move |inner| {
        prop_oneof![
            1 => inner.clone().prop_map(|operand| Expr::Not(Box::new(operand))),
            6 => (inner.clone(), operator.clone(), inner)
                .prop_map(|(left, op, right)| Expr::Binary(Box::new(left), op, Box::new(right))),
        ]
    });
    // Now and then a field that no element has.
    (tree, prop::bool::weighted(0.05)).prop_map(|(tree, absent)| match absent {
        true => Expr::Binary(Box::new(tree), "or", Box::new(Expr::Field(FIELDS[3]))),
        false => tree,
    })
}

/// The text of a random expression.
pub fn any_expression() -> impl Strategy<Value = String> {
    expr().prop_map(|tree| print(&tree, 0))
}

/// Attributes as they may come: values of every kind, in any order, twice, without end, or no object at all.
pub fn any_attributes() -> impl Strategy<Value = Vec<u8>> {
    const ODD_VALUES: [&str; 12] = [
        "1e999",
        "-1e999",
        "+5",
        "-",
        "1.2.3",
        "tru",
        "nul",
        r#""a\u00e9\"b""#,
        "[5,\"abc\",null,[true]]",
        "[{}]",
        "{\"a\":5,\"b-1\":{}}",
        "",
    ];
    let value = prop_oneof![
        5 => field_value().prop_map(|value| value.to_string()),
        1 => proptest::sample::select(&ODD_VALUES[..]).prop_map(str::to_owned),
        1 => proptest::sample::select(&[200usize, 300][..]).prop_map(|len| json!("é".repeat(len / 2)).to_string()),
    ];
    let field = (proptest::sample::select(&["a", "a", "b-1", "b-1", "7", "7", "c"][..]), value);
    let text = prop::collection::vec(field, 0..6).prop_map(|fields| {
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        format!("{{{}}}", fields.join(","))
    });
    (text, 0..20usize).prop_map(|(text, cut)| match cut {
        0 => text.as_bytes()[..text.len() / 2].to_vec(),
        1 => text.as_bytes()[1..].to_vec(),
        _ => text.into_bytes(),
    })
}

fn level_of(op: &str) -> usize {
    LEVELS.iter().position(|ops| ops.contains(&op)).unwrap()
}

/// Prints `expr` with no more parentheses than needed where operators of `level` and tighter may stand.
fn print(expr: &Expr, level: usize) -> String {
    match expr {
        Expr::Literal(value) => print_literal(value),
        Expr::Field(name) => format!(".{name}"),
        Expr::Not(operand) => format!("not {}", print(operand, LEVELS.len())),
        Expr::Binary(left, op, right) => {
            let own = level_of(op);
            let (left_level, right_level) = if *op == "**" { (own + 1, own) } else { (own, own + 1) };
            let text = format!("{} {op} {}", print(left, left_level), print(right, right_level));
            if own < level { format!("({text})") } else { text }
        }
    }
}

fn print_literal(value: &Json) -> String {
    match value {
        Json::Array(items) => format!("[{}]", items.iter().map(print_literal).collect::<Vec<_>>().join(",")),
        Json::Number(number) => number.as_f64().unwrap().to_string(),
        // Quotes, backslashes and line ends are escaped as in JSON.
        other => other.to_string(),
    }
}

/// The value of `expr`, or None if it names a missing field or an object.
fn evaluate(expr: &Expr, attributes: &Map<String, Json>) -> Option<Json> {
    match expr {
        Expr::Literal(value) => Some(value.clone()),
        Expr::Field(name) => match attributes.get(*name)? {
            Json::Bool(truth) => Some(json!(u8::from(*truth))),
            Json::Object(_) => None,
            other => Some(other.clone()),
        },
        Expr::Not(operand) => Some(json!(u8::from(!truth(&evaluate(operand, attributes)?)))),
        Expr::Binary(left, op, right) => {
            let (left, right) = (evaluate(left, attributes), evaluate(right, attributes));
            Some(apply(&left?, op, &right?))
        }
    }
}

fn apply(left: &Json, op: &str, right: &Json) -> Json {
    let (a, b) = (number(left), number(right));
    let holds = match op {
        "+" => return from_number(a + b),
        "-" => return from_number(a - b),
        "*" => return from_number(a * b),
        "/" => return from_number(a / b),
        "%" => return from_number(a % b),
        "**" => return from_number(a.powf(b)),
        "or" | "||" => truth(left) || truth(right),
        "and" | "&&" => truth(left) && truth(right),
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        ">=" => a >= b,
        "==" => equal(left, right),
        "!=" => !equal(left, right),
        "in" => match (left, right) {
            (_, Json::Array(items)) => items.iter().any(|item| equal(left, item)),
            (Json::String(part), Json::String(whole)) => whole.contains(part.as_str()),
            _ => false,
        },
        _ => unreachable!("{op}"),
    };
    json!(u8::from(holds))
}

/// JSON has no infinity and no NaN: they travel as objects, which no attribute can bring here.
fn from_number(value: f64) -> Json {
    if value.is_finite() { json!(value) } else { json!({ "bits": value.to_bits() }) }
}

fn number(value: &Json) -> f64 {
    match value {
        Json::Number(number) => number.as_f64().unwrap(),
        Json::Object(bits) => f64::from_bits(bits["bits"].as_u64().unwrap()),
        Json::Bool(truth) => f64::from(u8::from(*truth)),
        Json::String(text) => text.trim_start().parse().unwrap_or(0.0),
        Json::Null | Json::Array(_) => 0.0,
    }
}

fn truth(value: &Json) -> bool {
    match value {
        Json::Null => false,
        Json::String(text) => !text.is_empty(),
        Json::Array(_) => true,
        _ => number(value) != 0.0,
    }
}

fn equal(left: &Json, right: &Json) -> bool {
    match (left, right) {
        (Json::String(a), Json::String(b)) => a == b,
        (Json::Null, _) | (_, Json::Null) => left.is_null() && right.is_null(),
        _ => number(left) == number(right),
    }
}

/// Bytes that often come close to an expression or to JSON.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&str; 32] = [
        "(", ")", "[", "]", ",", "{", "}", ":", "\"", "'", "\\", "\"a\"", ".a", ".", "-", "1", "1e", "0x1",
        "e5", "and", "or", "not", "in", "null", "true", "==", "!", "**", "<", "&", " ", "é",
    ];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::vec(proptest::sample::select(&PIECES[..]), 0..20)
            .prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(random_cases()))]

    #[test]
    fn no_bytes_panic(expr in noise(), attributes in noise(), name in "[ab]") {
        let object = [br#"{"b":1,"a":"#, attributes.as_slice()].concat();
        let any_field = format!(".{name} == 1 or .a in .{name} or 1 in .a or .a < .b");
        for expr in [expr.as_slice(), any_field.as_bytes()] {
            if let Ok(filter) = Filter::parse(expr) {
                filter.matches(Some(&attributes));
                filter.matches(Some(&object));
            }
        }
    }

    #[test]
    fn a_printed_tree_evaluates_like_the_tree(tree in expr(), attributes in attributes()) {
        let text = print(&tree, 0);
        let filter = Filter::parse(text.as_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let expected = evaluate(&tree, &attributes).is_some_and(|value| truth(&value));
        let json = serde_json::to_vec(&attributes).unwrap();
        prop_assert_eq!(filter.matches(Some(&json)), expected, "{} {:?}", text, attributes);
    }
}
