//! Columns against the row evaluator, over every kind of value and over versions.

use proptest::prelude::*;

use super::column::{MAX_VALUE_BYTES, MAX_VALUES};
use super::*;
use crate::collection::filter::document::tests_random::any_document;
use crate::collection::filter::tests_random::{any_attributes, any_expression};
use crate::collection::{AttributeChange, Attributes, Collection, Encoded, Params, TextChange};
use crate::vector::{Layout, Metric, Quantization};

/// A filter of either dialect.
fn any_filter() -> impl Strategy<Value = String> {
    prop_oneof![any_expression(), any_document()]
}

fn collection() -> Collection {
    let layout = Layout { dim: 1, metric: Metric::L2, quantization: Quantization::Int8 };
    // Without originals a chunk is full at 65,536 rows only.
    Collection::new(1, Params { raw: false, ..Params::new(layout) })
}

fn put(collection: &mut Collection, name: usize, attributes: Option<&[u8]>) {
    let encoded = Encoded::new(&collection.params, &[1.0]);
    let attributes = AttributeChange::Set(attributes.map(Attributes::from));
    collection.put(name.to_string().as_bytes(), &[1.0], &encoded, &attributes, &TextChange::Keep);
}

/// A collection whose rows have these attributes.
fn filled(rows: impl IntoIterator<Item = String>) -> Collection {
    let mut collection = collection();
    rows.into_iter().enumerate().for_each(|(name, row)| put(&mut collection, name, Some(row.as_bytes())));
    collection
}

fn edit(collection: &mut Collection, name: usize, attributes: &str) {
    let attributes = Some(Attributes::from(attributes.as_bytes()));
    assert!(collection.set_attributes(name.to_string().as_bytes(), attributes));
}

/// A published version.
fn publish(collection: &mut Collection) -> Collection {
    let (table, pending) = collection.take_pending();
    table.write().unwrap().apply(&pending);
    collection.clone()
}

fn parse(expr: &str) -> Filter {
    Filter::parse(expr.as_bytes()).unwrap_or_else(|error| panic!("{expr}: {error}"))
}

/// Number of rows that pass; asserts that columns and rows agree, on the whole and on the words from `first` on.
fn check(collection: &Collection, expr: &str, first: usize) -> usize {
    let filter = parse(expr);
    let mut count = 0;
    for chunk in &collection.chunks {
        let found_from = |first: usize| {
            let found = passing(chunk, &filter, first, &chunk.live[first..]);
            assert_eq!(found, judge(chunk, &filter, first, &chunk.live[first..]), "{expr}");
            set_bits(&found).count()
        };
        found_from(first.min(chunk.live.len()));
        count += found_from(0);
    }
    count
}

/// Whether the columns alone decide every live row of the first chunk.
fn decides_all(collection: &Collection, expr: &str) -> bool {
    let chunk = &collection.chunks[0];
    passing(chunk, &parse(expr), 0, &chunk.live);
    let decided = chunk.columns.decide(&parse(expr), 0, &chunk.live);
    decided.is_some_and(|decided| decided.doubt.iter().all(|&word| word == 0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn columns_say_what_the_row_evaluator_says(
        rows in prop::collection::vec(prop::option::weighted(0.9, any_attributes()), 1..150),
        expressions in prop::collection::vec(any_filter(), 1..12),
        first in 0..3usize,
    ) {
        let mut collection = collection();
        for (name, attributes) in rows.iter().enumerate() {
            put(&mut collection, name, attributes.as_deref());
        }
        for expr in &expressions {
            check(&collection, expr, first);
        }
    }

    #[test]
    fn every_version_is_answered_for_itself(
        steps in prop::collection::vec((0..6usize, 0..200usize, any_attributes()), 1..120),
        expressions in prop::collection::vec(any_filter(), 2..5),
        asked in prop::collection::vec((0..8usize, 0..5usize), 1..20),
    ) {
        let mut collection = collection();
        let mut versions = vec![publish(&mut collection)];
        for (step, name, attributes) in steps {
            let known = collection.contains(name.to_string().as_bytes());
            match step {
                0 if known => _ = collection.remove(name.to_string().as_bytes()),
                // More than fit beside the columns.
                1 => (0..200).for_each(|name| {
                    collection.set_attributes(name.to_string().as_bytes(), Some(attributes[..].into()));
                }),
                2 if known => edit(&mut collection, name, &String::from_utf8_lossy(&attributes)),
                3 => (0..90).for_each(|name| put(&mut collection, name, Some(&attributes))),
                _ => put(&mut collection, name, Some(&attributes)),
            }
            versions.push(publish(&mut collection));
            check(&collection, &expressions[0], 0);
        }
        for (back, expr) in asked {
            let version = versions.len().saturating_sub(1 + back * versions.len() / 8);
            check(&versions[version], &expressions[expr % expressions.len()], 0);
        }
    }
}

#[test]
fn every_kind_of_value_is_kept_and_decided() {
    let kinds = ["1994", "-0.5", "true", "false", "null", "\"drama\"", "\"\"", "\"5\"", "[]", "[\"a\",5]"];
    let collection =
        filled((0..200).map(|at| format!(r#"{{"v":{},"w":{}}}"#, kinds[at % 10], kinds[at / 10 % 10])));
    let expressions = [
        (".v == 5", 20),
        (".v in [\"drama\", 1994]", 100),
        (".v", 140),
        (".v == null", 20),
        ("\"a\" in .v", 40),
        (".v < 1 and .v != null", 120),
        (".v + 1 == 2", 20),
        (".v == .w", 56),
        ("not (.v == \"drama\" or .w > 100)", 108),
    ];
    for (expr, count) in expressions {
        assert!(decides_all(&collection, expr), "{expr}");
        assert_eq!(check(&collection, expr, 1), count, "{expr}");
    }
}

#[test]
fn columns_decide_documents_alone() {
    let kinds = ["1994", "true", "null", "\"drama\"", "[\"a\",5]", "{\"x\":5}"];
    let collection = filled((0..210).map(|at| match kinds.get(at % 7) {
        Some(kind) => format!(r#"{{"v":{kind}}}"#),
        None => "{}".to_owned(),
    }));
    for (filter, count) in [
        (r#"{"v":1994}"#, 30),
        (r#"{"v":{"$ne":1994}}"#, 180),
        (r#"{"v":null}"#, 60),
        (r#"{"v":{"$exists":true}}"#, 180),
        (r#"{"v":true}"#, 30),
        (r#"{"v.x":5}"#, 30),
        (r#"{"$or":[{"v":5},{"v":{"$contains":"ram"}}]}"#, 60),
        (r#"{"v":{"$gt":1000}}"#, 30),
    ] {
        assert!(decides_all(&collection, filter), "{filter}");
        assert_eq!(check(&collection, filter, 1), count, "{filter}");
    }
}

#[test]
fn an_element_that_lacks_a_named_field_never_passes() {
    let collection =
        filled((0..100).map(|at| if at % 4 == 0 { r#"{"a":1}"# } else { r#"{"a":1,"b":2}"# }.into()));
    assert_eq!(check(&collection, ".a == 1", 0), 100);
    assert_eq!(check(&collection, ".a == 1 or .b == 2", 0), 75);
    assert_eq!(check(&collection, "not .b == 2 or 1", 0), 75);
    assert_eq!(check(&collection, "not .c", 0), 0);
}

#[test]
fn values_that_are_too_long_or_too_many_are_left_to_the_row_evaluator() {
    let long = "x".repeat(MAX_VALUE_BYTES + 1);
    let mut collection = filled((0..200).map(|at| match at % 2 {
        0 => format!(r#"{{"s":"{long}"}}"#),
        _ => format!(r#"{{"s":"{}"}}"#, &long[1..]),
    }));
    assert_eq!(check(&collection, &format!(".s == \"{long}\""), 0), 100);
    assert!(!decides_all(&collection, ".s == \"a\""));
    collection = filled((0..MAX_VALUES * 3 + 600).map(|at| match at % 3 {
        0 => format!(r#"{{"s":"v{at}"}}"#),
        _ => r#"{"s":"often"}"#.into(),
    }));
    assert_eq!(check(&collection, ".s in [\"v9\", \"v12600\"]", 0), 2);
    assert_eq!(check(&collection, ".s == \"often\"", 5), MAX_VALUES * 2 + 400);
    assert!(!decides_all(&collection, ".s == \"a\""));
    let size_bytes = collection.chunks[0].columns.size_bytes();
    assert!(size_bytes < MAX_VALUES * 128, "{size_bytes}");
}

#[test]
fn a_column_of_values_that_never_come_again_is_given_up() {
    let mut collection = filled((0..MAX_VALUES + 500).map(|at| format!(r#"{{"s":"v{at}","n":{at}}}"#)));
    assert_eq!(check(&collection, ".s in [\"v7\", \"v4500\"] or .n == 1", 0), 3);
    let chunk = &collection.chunks[0];
    let given_up: Vec<bool> = chunk.columns.read().iter().map(|field| field.column.is_given_up()).collect();
    assert_eq!(given_up, [false, true]);
    (0..1000).for_each(|name| edit(&mut collection, name, r#"{"s":"often"}"#));
    assert_eq!(check(&collection, ".s == \"often\"", 0), 1000);
    put(&mut collection, 1, Some(br#"{"s":"v7"}"#));
    assert_eq!(check(&collection, ".s == \"v7\"", 0), 1);
}

#[test]
fn a_chunk_has_a_bounded_number_of_columns_that_are_counted() {
    let row: Vec<String> = (0..60).map(|at| format!("\"f{at}\":{at}")).collect();
    let collection = filled((0..100).map(|_| format!("{{{}}}", row.join(","))));
    let chunk = &collection.chunks[0];
    let before = chunk.size_bytes();
    for at in 0..60 {
        assert_eq!(check(&collection, &format!(".f{at} == {at}"), 0), 100);
    }
    assert_eq!(chunk.columns.read().len(), MAX_FIELDS);
    assert!(chunk.size_bytes() >= before + MAX_FIELDS * 128 * size_of::<f64>());
    let all: Vec<String> = (0..60).map(|at| format!(".f{at} == {at}")).collect();
    assert_eq!(check(&collection, &all[..MAX_FIELDS].join(" and "), 0), 100);
    assert_eq!(check(&collection, &all.join(" and "), 0), 100);
    assert_eq!(chunk.columns.read().len(), MAX_FIELDS);
}

#[test]
fn edited_rows_leave_the_others_in_their_columns() {
    let mut collection = filled((0..2000).map(|at| format!(r#"{{"n":{at}}}"#)));
    assert_eq!(check(&collection, ".n < 1000", 0), 1000);
    let old = publish(&mut collection);
    edit(&mut collection, 5, r#"{"n":5000}"#);
    assert!(Arc::ptr_eq(&old.chunks[0].columns, &collection.chunks[0].columns));
    assert_eq!(check(&collection, ".n < 1000", 0), 999);
    let before = publish(&mut collection);
    (0..400).for_each(|name| edit(&mut collection, name, r#"{"n":5000}"#));
    let renewed = &collection.chunks[0];
    assert!(!Arc::ptr_eq(&old.chunks[0].columns, &renewed.columns));
    let known: usize = renewed.columns.read()[0].known.iter().map(|word| word.count_ones() as usize).sum();
    assert!((1600..2000).contains(&known), "{known}");
    assert_eq!(check(&collection, ".n < 1000", 0), 600);
    assert_eq!(check(&before, ".n < 1000", 0), 999);
    assert_eq!(check(&old, ".n < 1000", 0), 1000);
}

#[test]
fn threads_that_ask_at_the_same_time_agree() {
    let collection = filled((0..4000).map(|at| format!(r#"{{"n":{at},"s":"{}"}}"#, at % 7)));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let collection = &collection;
            scope.spawn(move || {
                for at in 0..20 {
                    check(collection, &format!(".n > {at} and .s == \"{}\"", (at + thread) % 7), thread * 9);
                }
            });
        }
    });
}
