//! Every rule of the language by example. The expected results were compared with a Redis 8 server wherever it knows
//! the construct.

use super::*;

const ATTRIBUTES: &str = r#"{"n":5,"s":"abc","t":["a",1,true,null],"e":[],"z":0,"es":"","nu":null,"b":true,
    "f":false,"5":7,"n-1":3,"o":{"a":1},"no":[[1],["x"]],"d":-2.5,"n_X":1,"q":"a\"b","bs":"x\\y","nl":"l1\nl2",
    "five":"5","u":"\u00e9"}"#;

fn passes(expr: &str, attributes: &str) -> bool {
    Filter::parse(expr.as_bytes())
        .unwrap_or_else(|error| panic!("{expr}: {error}"))
        .matches(Some(attributes.as_bytes()))
}

fn all_true(expressions: &[&str]) {
    for expr in expressions {
        assert!(passes(expr, ATTRIBUTES), "{expr}");
    }
}

fn all_false(expressions: &[&str]) {
    for expr in expressions {
        assert!(!passes(expr, ATTRIBUTES), "{expr}");
    }
}

fn near(expr: &[u8]) -> Vec<u8> {
    match Filter::parse(expr) {
        Err(FilterError::Syntax { near }) => near,
        other => panic!("{}: {other:?}", String::from_utf8_lossy(expr)),
    }
}

#[test]
fn truth_of_each_kind_of_value() {
    all_true(&[
        "1", "-1", "0/0", "\"x\"", "\"0\"", "[0]", "[]", ".n", ".s", ".t", ".e", ".no", ".b", "!.z", "!.es",
        "!.nu",
    ]);
    all_false(&["0", "-0", "\"\"", "''", ".z", ".es", ".nu", ".f", "null", "!.n", "![]", "not 1"]);
}

#[test]
fn precedence_and_grouping() {
    all_true(&[
        "1 or 0 and 0",
        "1 < 2 == 1",
        "3 > 2 == 1",
        "1 < 2 < 3",
        "1+1 in [2]",
        "1 + 2 * 3 ** 2 == 19",
        "10 - 3 - 2 == 5",
        "100 / 10 / 2 == 5",
        "7 % 4 % 2 == 1",
        "2 * 3 % 4 == 2",
        "2**3**2 == 512",
        "2 ** -1 == 0.5",
        "-2 ** 2 == 4",
        "!0 ** 2 == 1",
        "not 1 or 1",
        "!.n == 0",
        "(5 and 3) == 1",
        "(0 or 7) == 1",
        "((1))",
        ".n == 5 == 1",
        "1 in [1] in [1]",
    ]);
    all_false(&["(1 or 0) and 0", "3 > 2 > 1", "1 == 5 in [5]", "!.n ** 2", "0 and 0 or 0", "!(1)"]);
}

#[test]
fn negations_may_follow_each_other() {
    all_true(&[
        "!!.n",
        "not not .n",
        "!not .n",
        "not!.b",
        "!!.n == 1",
        "!!!.z",
        "!! !! 1",
        ".n > 1 and not not .b",
    ]);
    all_false(&["!!.z", "!!!.n", "not not .f"]);
}

#[test]
fn tokens_need_no_blanks_between_them() {
    all_true(&[
        ".n==5and.s==\"abc\"",
        ".n==5&&.s==\"abc\"||0",
        ".n>4and.n<6",
        "1and1",
        "0or 1",
        "1in[1]and 1",
        ".n in[5]",
        "1andnot0",
        "not0",
        "not.z",
        "'abc'==.s",
        "\t\u{b}1\u{c}\r\n",
        ".n\t==\n5",
        "null==.nu",
        "(.nu==null)",
    ]);
}

#[test]
fn a_minus_is_a_sign_only_where_a_value_must_follow() {
    all_true(&[
        "5-3 == 2",
        "5 -3 == 2",
        "(5)-3 == 2",
        "1--1 == 2",
        "1 + -1 == 0",
        "-1 == -1",
        "-2 in [1,-2]",
        ".n -3 == 2",
        "(.n)-1 == 4",
        "\"5\"-1 == 4",
        ".d == -2.5",
        "!-1 == 0",
    ]);
    for expr in ["--1", "- 1", "-", "-.n", "-(1)", "-.5 < 0", "+1", "1 + +1"] {
        assert_eq!(near(expr.as_bytes()), expr.as_bytes());
    }
}

#[test]
fn selectors_name_top_level_fields() {
    all_true(&[".n-1 == 3", ".5 == 7", ".n_X == 1", ".n -1 == 4"]);
    all_false(&[".n-3", ".N", ".a", ".o"]);
    assert_eq!(near(b".a.b"), b".a.b");
    assert_eq!(near(b"..n"), b"..n");
    assert_eq!(near(b". n"), b". n");
    assert_eq!(near(b"1 and ."), b".");
    assert_eq!(near(".n == .é".as_bytes()), ".é".as_bytes());
    assert_eq!(near(b".n#"), b"#");
}

#[test]
fn equality_converts_only_mixed_kinds() {
    all_true(&[
        ".n == 5",
        ".n == \"5\"",
        ".n == \" 5\"",
        ".n == \"5.0\"",
        ".n == \"0x5\"",
        ".five == 5",
        ".s == 0",
        "\"abc\" == 0",
        ".b == 1",
        ".b == \"1\"",
        ".f == 0",
        "[1] == [2]",
        "[] == 0",
        ".t == 0",
        ".no == .t",
        "\"nan\" == \"nan\"",
        ".nu == null",
        ".nu == .nu",
        "null == null",
        ".nu != 0",
        ".n != null",
        "0/0 != 0/0",
    ]);
    all_false(&[
        ".n == \"5 \"",
        ".five == \"5.0\"",
        ".s == \"ABC\"",
        ".n == \"nan\"",
        "0/0 == 0/0",
        ".nu == 0",
        ".nu == \"\"",
        "[1] == null",
        ".nu != null",
        "[1] != 0",
        ".n != 5",
    ]);
}

#[test]
fn comparison_and_arithmetic_are_numeric() {
    all_true(&[
        ".n >= 5",
        ".n <= 5",
        "-5 < .d",
        "\"10\" > \"9\"",
        ".s + 1 == 1",
        ".nu < 1",
        ".t + 1 == 1",
        "\"5\" * \"2\" == 10",
        "5.5 % 2 == 1.5",
        "-5 % 3 == -2",
        "1/0 > 100",
        "-1/0 < 0",
        "5 % 0",
        "2 ** 0.5 > 1.41",
        "\"inf\" > 1000",
        "\"0x1p4\" == 16",
        "1e5 == 100000",
        "2.5E1 == 25",
        "1. == 1",
        "2e308 > 1e308",
    ]);
    all_false(&["\"abc\" < \"b\"", ".s > 0", ".n < 5", ".n > 5", "\"nan\" < 1", "\"nan\" >= 1"]);
}

#[test]
fn in_looks_into_tuples_arrays_and_strings() {
    all_true(&[
        ".n in [1, 5]",
        ".n in ['5',]",
        ".s in [\"x\", 'abc']",
        "2000 in [2e3 , 1,]",
        "\"a\" in .t",
        "1 in .t",
        "\"1\" in .t",
        ".nu in .t",
        "null in .t",
        "0 in [\"abc\"]",
        "0 in .no",
        "\"b\" in \"abc\"",
        "\"\" in \"abc\"",
        "\"bc\"in.s",
        ".s in .s",
    ]);
    all_false(&[
        ".n in []",
        ".n in [ ]",
        ".n in [1, \"x\"]",
        "\"b\" in .t",
        "1 in .no",
        "1 in .e",
        ".nu in .no",
        "\"abcd\" in .s",
        "5 in \"5\"",
        "1 in 1",
        "\"a\" in 5",
        "null in \"abc\"",
        "null in null",
        "1 in null",
    ]);
}

#[test]
fn escapes_in_strings_are_decoded() {
    all_true(&[
        r#".q == "a\"b""#,
        r#".q == 'a"b'"#,
        r#".q in ["zzz", "a\"b"]"#,
        r#""\"b" in .q"#,
        r#".bs == "x\\y""#,
        r#".nl == 'l1\nl2'"#,
        r#""o\'b" == "o'b""#,
        r#".s == "\abc""#,
        // \u stays undecoded on both sides.
        r#".u == "u00e9""#,
        r#".u == "\u00e9""#,
    ]);
    all_false(&[".u == \"é\"", r#".bs == "x\y""#, r#".q == "a\\\"b""#]);
}

#[test]
fn a_missing_field_rejects_whatever_the_rest_says() {
    all_false(&[
        ".missing",
        "not .missing",
        ".missing or 1",
        "1 or .missing",
        "0 and .missing or 1",
        ".missing == null",
        ".o or 1",
        "1 or .o",
    ]);
    assert!(!passes(".a == 1 or .b == 2", r#"{"a":1}"#));
    assert!(passes(".a == 1 or .b == 2", r#"{"a":1,"b":null}"#));
}

#[test]
fn elements_without_attributes_never_pass() {
    let constant = Filter::parse(b"1").unwrap();
    assert!(!constant.matches(None));
    // Empty attributes are attributes.
    for not_an_object in ["", "{}", "[1]", "junk", "{", " "] {
        assert!(constant.matches(Some(not_an_object.as_bytes())), "{not_an_object}");
        assert!(!passes(".a or 1", not_an_object), "{not_an_object}");
    }
}

/// Attributes in which `.a` is found.
const READABLE: [(&str, &str); 36] = [
    // Cut off or broken behind the field.
    (r#"{"a":1"#, ".a == 1"),
    (r#"{"a":1, garbage"#, ".a == 1"),
    (r#"{"a":1x}"#, ".a == 1"),
    (r#"{"a":0x10}"#, ".a == 0"),
    (r#"{"a":"x"y}"#, ".a == 'x'"),
    (r#"{"a":[1]y"#, "1 in .a"),
    (r#"{"a":"b":1}"#, ".a == 'b'"),
    (r#"{"a":true"#, ".a"),
    (r#"{"a":true]"#, ".a"),
    (r#"{"a":1}{"b":2}"#, ".a"),
    (r#"{"a":1,}"#, ".a"),
    // Blanks.
    ("\u{b} { \"a\"\t: \n 1 } ", ".a == 1"),
    (r#"{"a":[ 1 , 2 ] }"#, "2 in .a"),
    // Loose numbers.
    (r#"{"a":01}"#, ".a == 1"),
    (r#"{"a":+1}"#, ".a == 1"),
    (r#"{"a":1.}"#, ".a == 1"),
    (r#"{"a":-.5}"#, ".a == -0.5"),
    (r#"{"a":1E+2}"#, ".a == 100"),
    (r#"{"a":1e400}"#, ".a > 1e300"),
    // Strings.
    (r#"{"a":"\n\r\t"}"#, r#".a == "\n\r\t""#),
    (r#"{"a":"\b\x\/"}"#, ".a == 'bx/'"),
    ("{\"a\":\"é\n\"}", ".a == 'é\n'"),
    // The first of two.
    (r#"{"a":1,"a":2}"#, ".a == 1"),
    // Other values are skipped without a closer look.
    (r#"{"x":{"a":1},"a":2}"#, ".a == 2"),
    (r#"{"x":{"y":[{"a":1},"}"]},"a":2}"#, ".a == 2"),
    (r#"{"x":[1,"]",{"q":"\""}],"a":2}"#, ".a == 2"),
    (r#"{"x":[1}],"a":2}"#, ".a == 2"),
    (r#"{"x":[1,2 3 , , x],"a":2}"#, ".a == 2"),
    (r#"{"x":{xyz},"a":2}"#, ".a == 2"),
    (r#"{"x":1-2,"a":2}"#, ".a == 2"),
    (r#"{"x":.5e,"a":2}"#, ".a == 2"),
    (r#"{"x":"\\","a":2}"#, ".a == 2"),
    (r#"{"x":null,"y":true,"z":false,"a":2}"#, ".a == 2"),
    // Fields in another order than in the expression, and used twice.
    (r#"{"c":3,"b":2,"a":1}"#, ".a + .b + .c == 6 and .a == 1"),
    (r#"{"a":"1"}"#, ".a == 1"),
    (r#"{"a":[[],[[]]]}"#, ".a"),
];

#[test]
fn attributes_are_read_leniently() {
    for (attributes, expr) in READABLE {
        assert!(passes(expr, attributes), "{attributes} {expr}");
    }
}

#[test]
fn a_field_behind_broken_text_or_with_an_unusable_value_is_missing() {
    for attributes in [
        // The value cannot be used.
        r#"{"a":{}}"#,
        r#"{"a":[{}]}"#,
        r#"{"a":[[{}]]}"#,
        r#"{"a":[1,]}"#,
        r#"{"a":[,]}"#,
        r#"{"a":[1 2]}"#,
        r#"{"a":[1x]}"#,
        r#"{"a":[truex]}"#,
        r#"{"a":[1,2"#,
        r#"{"a":"abc"#,
        r#"{"a":"abc\"#,
        r#"{"a":tru}"#,
        r#"{"a":True}"#,
        r#"{"a":truex}"#,
        r#"{"a":nullx}"#,
        r#"{"a":.5}"#,
        r#"{"a":-}"#,
        r#"{"a":1e}"#,
        r#"{"a":1-2}"#,
        r#"{"a":NaN}"#,
        r#"{"a":-Infinity}"#,
        r#"{"a":}"#,
        r#"{"a":"#,
        r#"{"a"}"#,
        r#"{"a" 1}"#,
        r#"{"a"#,
        r#"{"a":{},"a":1}"#,
        // The name is another.
        r#"{"\u0061":1}"#,
        r#"{"A":1}"#,
        r#"{a:1}"#,
        r#"{'a':1}"#,
        // Broken before the field.
        r#"{"x":tru,"a":1}"#,
        r#"{"x":1 "a":1}"#,
        r#"{"x":1;"a":1}"#,
        r#"{"x":1,,"a":1}"#,
        r#"{,"a":1}"#,
        r#"{"x":,"a":1}"#,
        r#"{"x":"y"z,"a":1}"#,
        r#"{"x":{"y":1,"a":2}"#,
        r#"{"x":["y],"a":1}"#,
        r#"{"x":"\","a":2}"#,
        "\u{feff}{\"a\":1}",
    ] {
        assert!(!passes(".a or 1", attributes), "{attributes}");
    }
}

#[test]
fn many_fields_and_values_work_too() {
    let name = |index: usize| format!("f{index}");
    let attributes: Vec<String> = (0..50).map(|index| format!("\"{}\":{index}", name(index))).collect();
    let attributes = format!("{{{}}}", attributes.join(","));
    let sum: Vec<String> = (0..50).map(|index| format!(".{}", name(index))).collect();
    assert!(passes(&format!("{} == 1225", sum.join(" + ")), &attributes));
    let mut nested = "1".to_owned();
    for _ in 0..30 {
        nested = format!("1 + 2 * ({nested})");
    }
    assert!(passes(&format!("{nested} == 2147483647"), &attributes));
}

#[test]
fn syntax_errors_name_the_place() {
    for (expr, expected) in [
        // Scanning stopped: at a byte that begins nothing, or behind an unknown word or a bad number.
        ("1 ; 2", "; 2"),
        ("1 foo 2", " 2"),
        ("foo==1", "1"),
        ("1 = 2", " 2"),
        ("1=1", "1"),
        ("1 => 2", " 2"),
        ("1&1", "1"),
        ("1|1", "1"),
        ("true and 1", " and 1"),
        (".n == 5 and order 1", " 1"),
        ("0x10 == 16", "10 == 16"),
        ("1e+5", "+5"),
        ("1.2.3 and 1", " and 1"),
        ("[1 2]", "2]"),
        ("[1,,2]", ",2]"),
        ("[,]", ",]"),
        ("[.n]", ".n]"),
        ("[true]", "true]"),
        ("[null]", "null]"),
        ("[(1)]", "(1)]"),
        ("1 in [[1]]", "[1]]"),
        ("[- 5]", " 5]"),
        ("[1]]", "]"),
        ("1,2", ",2"),
        ("1\0", "\0"),
        ("é", "é"),
        // Scanned to the end: the whole expression.
        ("", ""),
        (" ", " "),
        ("1 2", "1 2"),
        ("1 (2)", "1 (2)"),
        ("(1)(2)", "(1)(2)"),
        ("()", "()"),
        ("(1", "(1"),
        ("1)", "1)"),
        ("1 and", "1 and"),
        ("1!", "1!"),
        ("and", "and"),
        ("== 5", "== 5"),
        ("1 ** * 2", "1 ** * 2"),
        ("1<>1", "1<>1"),
        ("not", "not"),
        ("true", "true"),
        ("1e", "1e"),
        ("notz", "notz"),
        (".nin[5]", ".nin[5]"),
        ("\"abc", "\"abc"),
        ("\"abc'", "\"abc'"),
        ("\"abc\\", "\"abc\\"),
        ("[1,2", "[1,2"),
        ("[\"a]", "[\"a]"),
    ] {
        assert_eq!(String::from_utf8(near(expr.as_bytes())).unwrap(), expected, "{expr}");
    }
}

#[test]
fn errors_are_one_clear_line() {
    let text = |expr: &[u8]| Filter::parse(expr).unwrap_err().to_string();
    assert_eq!(text(b".a ?\r\n\xff"), "syntax error in FILTER expression near: ?  \u{fffd}");
    assert_eq!(text(&[b'1'; MAX_FILTER_BYTES + 1]), "FILTER expression is longer than 8192 bytes");
    assert_eq!(text("(".repeat(65).as_bytes()), "FILTER expression is nested deeper than 64 levels");
}

#[test]
fn length_and_nesting_are_bounded() {
    let nested = |depth: usize| format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(passes(&nested(MAX_FILTER_DEPTH), "{}"));
    let parse = |expr: &str| Filter::parse(expr.as_bytes()).map(drop);
    assert_eq!(parse(&nested(MAX_FILTER_DEPTH + 1)), Err(FilterError::TooDeep));
    assert_eq!(parse(&"(".repeat(8000)), Err(FilterError::TooDeep));
    assert_eq!(parse(&"(".repeat(100_000)), Err(FilterError::TooLong));
    assert_eq!(parse(&"2**".repeat(2000)), Err(FilterError::TooDeep));

    // Every level of precedence inside every parenthesis.
    let level = "0 or 1 and 1 == 1 + 0 * (";
    assert!(passes(&format!("{}1{}", level.repeat(MAX_FILTER_DEPTH), ")".repeat(MAX_FILTER_DEPTH)), "{}"));

    // What does not nest may go on to the end.
    assert!(passes(&format!("{}1", "!".repeat(8190)), "{}"));
    assert!(passes(&format!("{}1", "0 or ".repeat(1600)), "{}"));
    assert!(passes(&format!("{}1", "1+".repeat(4000)), "{}"));
    assert!(passes(&format!("{}1", "1".repeat(8000)), "{}"));

    let array = |depth: usize| format!("{{\"a\":{}{},\"b\":1}}", "[".repeat(depth), "]".repeat(depth));
    assert!(passes(".a", &array(MAX_FILTER_DEPTH)));
    assert!(!passes(".a or 1", &array(MAX_FILTER_DEPTH + 1)));
    assert!(!passes(".a or 1", &array(400_000)));
    assert!(passes(".b", &array(400_000)));
}

#[test]
fn a_filter_can_be_shared_between_threads() {
    fn shareable<T: Send + Sync + Clone + std::fmt::Debug>() {}
    shareable::<Filter>();
}
