//! Random documents give what a plain evaluator over parsed JSON gives; others take their random documents from here.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::super::Filter;
use super::super::tests_random::random_cases;

const PATHS: [&str; 6] = ["a", "b-1", "7", "c.d", "c.a.d", "é"];

fn literal() -> impl Strategy<Value = Json> {
    prop_oneof![
        3 => proptest::sample::select(&[0.0, -0.0, 1.0, 5.0, 2.5, -1.5, 1e20][..]).prop_map(|number| json!(number)),
        1 => (-2..6i64).prop_map(|number| json!(number)),
        3 => proptest::sample::select(&["", "5", "abc", "b", "é", "a\"\\\n"][..]).prop_map(|text| json!(text)),
        1 => any::<bool>().prop_map(|truth| json!(truth)),
        1 => Just(Json::Null),
    ]
}

fn value() -> impl Strategy<Value = Json> {
    literal().prop_recursive(3, 12, 4, |inner| {
        let field = (proptest::sample::select(&["a", "b-1", "d", "é"][..]), inner.clone());
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(Json::Array),
            1 => prop::collection::vec(field, 0..3).prop_map(object),
        ]
    })
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    Json::Object(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn attributes() -> impl Strategy<Value = Json> {
    let field = (proptest::sample::select(&["a", "a", "b-1", "7", "c", "c", "é"][..]), value());
    prop::collection::vec(field, 0..7).prop_map(object)
}

fn operators(elem_match: BoxedStrategy<Json>) -> impl Strategy<Value = Json> {
    let with = |name: &'static str| move |value| object([(name, value)]);
    let bound =
        || literal().prop_filter("an order is of numbers or strings", |it| it.is_number() || it.is_string());
    let list = || prop::collection::vec(literal(), 0..4).prop_map(Json::Array);
    let pick = |names: &'static [&'static str]| proptest::sample::select(names);
    let plain = prop_oneof![
        (pick(&["$eq", "$ne", "$contains"]), literal()).prop_map(|pair| object([pair])),
        (pick(&["$gt", "$gte", "$lt", "$lte"]), bound()).prop_map(|pair| object([pair])),
        (pick(&["$gt", "$gte"]), bound(), pick(&["$lt", "$ne"]), bound())
            .prop_map(|(low, a, high, b)| object([(low, a), (high, b)])),
        (pick(&["$in", "$nin"]), list()).prop_map(|pair| object([pair])),
        any::<bool>().prop_map(|truth| json!({ "$exists": truth })),
        (0..4u8).prop_map(|size| json!({ "$size": size })),
        elem_match.prop_map(with("$elemMatch")),
    ];
    (plain, 0..5u8).prop_map(move |(plain, not)| if not == 0 { object([("$not", plain)]) } else { plain })
}

fn condition(elem_match: BoxedStrategy<Json>) -> impl Strategy<Value = Json> {
    let path = || proptest::sample::select(&PATHS[..]);
    prop_oneof![
        1 => (path(), literal()).prop_map(|pair| object([pair])),
        4 => (path(), operators(elem_match)).prop_map(|pair| object([pair])),
    ]
}

fn document() -> impl Strategy<Value = Json> {
    let innermost = Just(json!({"$eq": 5})).boxed();
    let elem_match = prop_oneof![operators(innermost.clone()), condition(innermost)].boxed();
    let leaf = prop_oneof![20 => condition(elem_match), 1 => Just(json!({}))];
    leaf.prop_recursive(3, 16, 3, |inner| {
        let list = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            list().prop_map(|all| json!({ "$and": all })),
            list().prop_map(|any| json!({ "$or": any })),
            inner.clone().prop_map(|not| json!({ "$not": not })),
            list().prop_map(|all| {
                let fields = all.into_iter().flat_map(|one| one.as_object().cloned().unwrap_or_default());
                Json::Object(fields.collect())
            }),
        ]
    })
}

/// The text of a random document.
pub fn any_document() -> impl Strategy<Value = String> {
    document().prop_map(|document| document.to_string())
}

fn passes(filter: &Json, value: &Json) -> bool {
    filter.as_object().unwrap().iter().all(|(name, operand)| match name.as_str() {
        "$and" => operand.as_array().unwrap().iter().all(|filter| passes(filter, value)),
        "$or" => operand.as_array().unwrap().iter().any(|filter| passes(filter, value)),
        "$not" => !passes(operand, value),
        path => {
            let found = path.split('.').try_fold(value, |value, name| value.as_object()?.get(name));
            field_passes(operand, found)
        }
    })
}

fn field_passes(condition: &Json, value: Option<&Json>) -> bool {
    let Json::Object(operators) = condition else { return equals(condition, value) };
    operators.iter().all(|(name, operand)| match (name.as_str(), value) {
        ("$eq", _) => equals(operand, value),
        ("$ne", _) => !equals(operand, value),
        ("$in", _) => operand.as_array().unwrap().iter().any(|one| equals(one, value)),
        ("$nin", _) => !operand.as_array().unwrap().iter().any(|one| equals(one, value)),
        ("$exists", _) => *operand == json!(value.is_some()),
        ("$not", _) => !field_passes(operand, value),
        ("$contains", Some(Json::String(text))) => operand.as_str().is_some_and(|part| text.contains(part)),
        ("$contains", Some(Json::Array(items))) => items.iter().any(|item| same(operand, item)),
        ("$size", Some(Json::Array(items))) => operand.as_u64() == Some(items.len() as u64),
        ("$elemMatch", Some(Json::Array(items))) => items.iter().any(|item| elem_matches(operand, item)),
        (order, Some(Json::Number(number))) => operand.as_f64().is_some_and(|bound| {
            let number = number.as_f64().unwrap();
            number.partial_cmp(&bound).is_some_and(|found| allows(order, found))
        }),
        (order, Some(Json::String(text))) => {
            operand.as_str().is_some_and(|bound| allows(order, text.as_bytes().cmp(bound.as_bytes())))
        }
        _ => false,
    })
}

fn allows(order: &str, found: std::cmp::Ordering) -> bool {
    match order {
        "$gt" => found.is_gt(),
        "$gte" => found.is_ge(),
        "$lt" => found.is_lt(),
        "$lte" => found.is_le(),
        _ => false,
    }
}

fn elem_matches(condition: &Json, item: &Json) -> bool {
    let is_field = |name: &String| !name.starts_with('$');
    match condition.as_object().unwrap().keys().any(is_field) {
        true => item.is_object() && passes(condition, item),
        false => field_passes(condition, Some(item)),
    }
}

fn same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.as_f64() == b.as_f64(),
        _ => a == b,
    }
}

fn equals(literal: &Json, value: Option<&Json>) -> bool {
    match value {
        None => literal.is_null(),
        Some(Json::Array(items)) => items.iter().any(|item| same(literal, item)),
        Some(value) => same(literal, value),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(random_cases()))]

    #[test]
    fn a_document_passes_what_a_plain_evaluator_passes(document in document(), attributes in attributes()) {
        let text = document.to_string();
        let filter = Filter::parse(text.as_bytes()).map_err(|error| TestCaseError::fail(format!("{text} {error}")))?;
        let json = serde_json::to_vec(&attributes).unwrap();
        prop_assert_eq!(filter.matches(Some(&json)), passes(&document, &attributes), "{} {}", text, attributes);
    }

    #[test]
    fn no_bytes_panic(pieces in prop::collection::vec(proptest::sample::select(&[
        "{", "}", "[", "]", ",", ":", "\"a\"", "\"$and\"", "\"$in\"", "\"$elemMatch\"", "1", "null", "\"\\u12", "\"é\"", " ",
    ][..]), 0..20)) {
        let bytes = format!("{{{}", pieces.concat());
        if let Ok(filter) = Filter::parse(bytes.as_bytes()) {
            filter.matches(Some(bytes.as_bytes()));
        }
        for filter in [r#"{"a":{"$elemMatch":{"a":1}}}"#, r#"{"a.a":{"$size":1}}"#] {
            Filter::parse(filter.as_bytes()).unwrap().matches(Some(bytes.as_bytes()));
        }
    }
}
