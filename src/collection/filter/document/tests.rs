//! The JSON dialect's table of truth, each line also in the other dialect; and what is refused.

use super::super::{Filter, FilterError, MAX_FILTER_BYTES, MAX_FILTER_DEPTH};

fn passes(filter: &str, attributes: &str) -> bool {
    let filter = Filter::parse(filter.as_bytes()).unwrap_or_else(|error| panic!("{filter}: {error}"));
    filter.matches(Some(attributes.as_bytes()))
}

/// Asserts for each line whether a document passes these attributes, and whether an expression does.
fn table(lines: &[(&str, &str, bool, &str, bool)]) {
    for (attributes, document, expected, expression, other) in lines {
        assert_eq!(passes(document, attributes), *expected, "{document} {attributes}");
        assert_eq!(passes(expression, attributes), *other, "{expression} {attributes}");
    }
}

#[test]
fn a_missing_field_is_not_equal_in_json_and_rejects_in_an_expression() {
    table(&[
        (r#"{"b":1}"#, r#"{"a":{"$ne":1}}"#, true, ".a != 1", false),
        (r#"{"b":1}"#, r#"{"a":{"$nin":[1,2]}}"#, true, "not (.a in [1,2])", false),
        (r#"{"a":1}"#, r#"{"a":{"$ne":1}}"#, false, ".a != 1", false),
        (r#"{"a":2}"#, r#"{"a":{"$ne":1}}"#, true, ".a != 1", true),
        (r#"{"b":1}"#, r#"{"$or":[{"a":1},{"b":1}]}"#, true, ".a == 1 or .b == 1", false),
        (r#"{"b":1}"#, r#"{"a":{"$not":{"$gt":0}}}"#, true, "not .a > 0", false),
        (r#"{"b":1}"#, r#"{"a":1}"#, false, ".a == 1", false),
        (r#"{"b":1}"#, r#"{"a":{"$in":[1]}}"#, false, ".a in [1]", false),
    ]);
}

#[test]
fn equality_looks_into_arrays_in_json_and_only_in_does_in_an_expression() {
    table(&[
        (r#"{"a":[5,"y"]}"#, r#"{"a":5}"#, true, ".a == 5", false),
        (r#"{"a":["x","y"]}"#, r#"{"a":{"$eq":"z"}}"#, false, r#""x" in .a"#, true),
        (r#"{"a":[5,"y"]}"#, r#"{"a":{"$ne":5}}"#, false, ".a != 5", true),
        (r#"{"a":["x","y"]}"#, r#"{"a":{"$in":["q","y"]}}"#, true, ".a in [3,4]", false),
        (r#"{"a":["x","y"]}"#, r#"{"a":{"$nin":["q","y"]}}"#, false, r#"not ("y" in .a)"#, false),
        (r#"{"a":[[5]]}"#, r#"{"a":5}"#, false, "5 in .a", false),
        (r#"{"a":[1]}"#, r#"{"a":{"$contains":1}}"#, true, "1 in .a", true),
        (r#"{"a":"xyz"}"#, r#"{"a":{"$contains":"yz"}}"#, true, r#""yz" in .a"#, true),
        (r#"{"a":"xyz"}"#, r#"{"a":{"$contains":1}}"#, false, "1 in .a", false),
        (r#"{"a":["xyz"]}"#, r#"{"a":{"$contains":"yz"}}"#, false, r#""yz" in .a"#, false),
    ]);
}

#[test]
fn numbers_are_equal_by_value() {
    table(&[
        (r#"{"a":1}"#, r#"{"a":1.0}"#, true, ".a == 1.0", true),
        (r#"{"a":1.0}"#, r#"{"a":1}"#, true, ".a == 1", true),
        (r#"{"a":1e2}"#, r#"{"a":{"$in":[100]}}"#, true, ".a in [100]", true),
        (r#"{"a":-0.0}"#, r#"{"a":0}"#, true, ".a == 0", true),
        (r#"{"a":"1"}"#, r#"{"a":1}"#, false, ".a == 1", true),
        (r#"{"a":1}"#, r#"{"a":"1"}"#, false, r#".a == "1""#, true),
    ]);
}

#[test]
fn an_order_of_different_types_matches_nothing_in_json_and_converts_in_an_expression() {
    table(&[
        (r#"{"a":"5"}"#, r#"{"a":{"$gt":1}}"#, false, ".a > 1", true),
        (r#"{"a":5}"#, r#"{"a":{"$gt":"1"}}"#, false, r#".a > "1""#, true),
        (r#"{"a":null}"#, r#"{"a":{"$lt":1}}"#, false, ".a < 1", true),
        (r#"{"a":true}"#, r#"{"a":{"$gte":1}}"#, false, ".a >= 1", true),
        (r#"{"a":[5]}"#, r#"{"a":{"$gt":1}}"#, false, ".a > 1", false),
        (r#"{"a":{"b":5}}"#, r#"{"a":{"$lte":5}}"#, false, ".a <= 5", false),
        (r#"{"a":5}"#, r#"{"a":{"$gt":5}}"#, false, ".a > 5", false),
        (r#"{"a":5}"#, r#"{"a":{"$gte":5,"$lte":5}}"#, true, ".a >= 5 and .a <= 5", true),
        (r#"{"a":5}"#, r#"{"a":{"$gt":1,"$lt":5}}"#, false, ".a > 1 and .a < 5", false),
    ]);
}

#[test]
fn strings_are_ordered_by_bytes_in_json_and_as_numbers_in_an_expression() {
    table(&[
        (r#"{"a":"abc"}"#, r#"{"a":{"$gt":"abb"}}"#, true, r#".a > "abb""#, false),
        (r#"{"a":"10"}"#, r#"{"a":{"$lt":"9"}}"#, true, r#".a < "9""#, false),
        (r#"{"a":"é"}"#, r#"{"a":{"$gt":"z"}}"#, true, r#".a > "z""#, false),
        (r#"{"a":"\u00e9"}"#, r#"{"a":"é"}"#, true, r#".a == "é""#, false),
        (r#"{"a":""}"#, r#"{"a":{"$lt":"a"}}"#, true, r#".a < "a""#, false),
    ]);
}

#[test]
fn null_and_missing_differ_for_exists_only() {
    table(&[
        (r#"{"a":null}"#, r#"{"a":{"$exists":true}}"#, true, ".a == null", true),
        (r#"{"a":null}"#, r#"{"a":{"$exists":false}}"#, false, ".a != null", false),
        (r#"{"b":1}"#, r#"{"a":{"$exists":true}}"#, false, ".a == null", false),
        (r#"{"b":1}"#, r#"{"a":{"$exists":false}}"#, true, "not .a", false),
        (r#"{"a":null}"#, r#"{"a":null}"#, true, ".a == null", true),
        (r#"{"b":1}"#, r#"{"a":{"$eq":null}}"#, true, ".a == null", false),
        (r#"{"b":1}"#, r#"{"a":{"$in":[1,null]}}"#, true, ".a in [1]", false),
        (r#"{"a":0}"#, r#"{"a":null}"#, false, ".a == null", false),
        (r#"{"a":{}}"#, r#"{"a":{"$exists":true}}"#, true, ".a == null", false),
    ]);
}

#[test]
fn booleans_are_no_numbers_in_json_and_one_and_zero_in_an_expression() {
    table(&[
        (r#"{"a":true}"#, r#"{"a":1}"#, false, ".a == 1", true),
        (r#"{"a":1}"#, r#"{"a":true}"#, false, ".a == 1", true),
        (r#"{"a":true}"#, r#"{"a":true}"#, true, ".a", true),
        (r#"{"a":false}"#, r#"{"a":{"$ne":true}}"#, true, ".a", false),
        (r#"{"a":[true]}"#, r#"{"a":{"$in":[1,true]}}"#, true, "1 in .a", true),
    ]);
}

#[test]
fn the_empty_document_passes_everything() {
    for attributes in [Some(&br#"{"a":1}"#[..]), Some(b"{}"), Some(b"no JSON"), Some(b""), None] {
        for filter in ["{}", " \t{ } ", r#"{"$and":[{},{}]}"#, r#"{"$not":{"$not":{}}}"#] {
            assert!(Filter::parse(filter.as_bytes()).unwrap().matches(attributes), "{filter}");
        }
        assert!(!Filter::parse(br#"{"$not":{}}"#).unwrap().matches(attributes));
    }
    let no_a = Filter::parse(br#"{"a":{"$ne":1}}"#).unwrap();
    assert!(no_a.matches(None) && !Filter::parse(b".a != 1").unwrap().matches(None));
}

#[test]
fn paths_go_through_objects_and_elem_match_into_arrays() {
    let book = r#"{"author":{"name":"Ann","born":{"year":1950}},"tags":[{"k":"x","n":1},{"k":"y","n":5}],"n":[1,7]}"#;
    for (filter, expected) in [
        (r#"{"author.name":"Ann"}"#, true),
        (r#"{"author.born.year":{"$gte":1950}}"#, true),
        (r#"{"author.died":{"$exists":false}}"#, true),
        (r#"{"author.name.first":{"$exists":true}}"#, false),
        (r#"{"tags.k":"x"}"#, false),
        (r#"{"tags":{"$elemMatch":{"k":"x","n":1}}}"#, true),
        (r#"{"tags":{"$elemMatch":{"k":"x","n":5}}}"#, false),
        (r#"{"tags":{"$elemMatch":{"$or":[{"k":"q"},{"n":{"$gt":4}}]}}}"#, true),
        (r#"{"n":{"$elemMatch":{"$gt":1,"$lt":7}}}"#, false),
        (r#"{"n":{"$elemMatch":{"$gt":1,"$lt":8}}}"#, true),
        (r#"{"n":{"$elemMatch":{"$not":{"$gt":1}}}}"#, true),
        (r#"{"n":{"$elemMatch":{"a":null}}}"#, false),
        (r#"{"author":{"$elemMatch":{"name":"Ann"}}}"#, false),
        (r#"{"n":{"$size":2},"tags":{"$size":2}}"#, true),
        (r#"{"n":{"$size":1}}"#, false),
        (r#"{"author":{"$size":2}}"#, false),
        (r#"{"author.name":"Ann","author.name":"Bob"}"#, false),
    ] {
        assert_eq!(passes(filter, book), expected, "{filter}");
    }
}

#[test]
fn what_is_no_filter_is_refused_with_its_place() {
    for (filter, error) in [
        ("{", "FILTER is not JSON: EOF while parsing an object at line 1 column 1"),
        (r#"{"a":1} x"#, "FILTER is not JSON: trailing characters at line 1 column 9"),
        (r#"{"a":{"$gtt":1}}"#, "FILTER at a.$gtt: there is no such operator"),
        (r#"{"$nor":[]}"#, "FILTER at $nor: there is no such operator here"),
        (
            r#"{"$and":[{"b":1},{"a.b":{"$gt":null}}]}"#,
            "FILTER at $and[1].a.b.$gt: it takes a number or a string",
        ),
        (r#"{"$or":[]}"#, "FILTER at $or: it takes a list of filters, of one at least"),
        (r#"{"$or":[{"a":1},5]}"#, "FILTER at $or[1]: a filter is an object"),
        (r#"{"a":{}}"#, "FILTER at a: an operator is missing"),
        (r#"{"a":[1]}"#, "FILTER at a: it takes a string, a number, a boolean or null"),
        (r#"{"a":{"$in":1}}"#, "FILTER at a.$in: it takes a list of values"),
        (r#"{"a":{"$in":[[1]]}}"#, "FILTER at a.$in: it takes a string, a number, a boolean or null"),
        (r#"{"a":{"$exists":1}}"#, "FILTER at a.$exists: it takes true or false"),
        (r#"{"a":{"$size":1.5}}"#, "FILTER at a.$size: it takes a count"),
        (r#"{"a":{"$size":-1}}"#, "FILTER at a.$size: it takes a count"),
        (r#"{"a":{"$not":5}}"#, "FILTER at a.$not: it takes an object of operators"),
        (r#"{"a":{"$elemMatch":5}}"#, "FILTER at a.$elemMatch: it takes an object"),
        (r#"{"a":{"$elemMatch":{"b":{"$x":1}}}}"#, "FILTER at a.$elemMatch.b.$x: there is no such operator"),
        ("{\"a\\nb\":{}}", "FILTER at a b: an operator is missing"),
    ] {
        let refusal = Filter::parse(filter.as_bytes()).unwrap_err();
        assert_eq!(refusal.to_string(), error, "{filter}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}{{}}{}", r#"{"$not":"#.repeat(depth - 1), "}".repeat(depth - 1));
    assert!(Filter::parse(nested(MAX_FILTER_DEPTH).as_bytes()).is_ok());
    assert_eq!(Filter::parse(nested(MAX_FILTER_DEPTH + 1).as_bytes()).unwrap_err(), FilterError::TooDeep);
    assert_eq!(Filter::parse(nested(700).as_bytes()).unwrap_err(), FilterError::TooDeep);
    assert!(Filter::parse(format!(r#"{{"a":"{}"}}"#, "{[\\\"".repeat(100)).as_bytes()).is_ok());
    let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_FILTER_BYTES));
    assert_eq!(Filter::parse(long.as_bytes()).unwrap_err(), FilterError::TooLong);
}
