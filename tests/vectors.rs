//! The vector-set commands but VSIM: grammar, replies, errors.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Server, Value, command, fp32, vadd, words};

const BAD_VECTOR: &str = "-ERR invalid vector specification";

#[test]
fn vadd_adds_and_updates() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("TYPE k", "+vectorset"),
        ("vadd k values 2 3 4 b setattr '{\"n\":1}' ef 50 cas m 16 q8", ":1"),
        ("VADD k VALUES 2 +1 .5 c", ":1"),
        ("VADD k VALUES 2 0x10 -1e2 d", ":1"),
        ("VADD k VALUES 2 1 1 ''", ":1"),
        ("VCARD k", ":5"),
        ("VEMB k b", "[3 4]"),
        ("VEMB k c", "[1 0.5]"),
        ("VEMB k d", "[16 -100]"),
        ("VISMEMBER k ''", ":1"),
        ("VADD k VALUES 2 5 6 b", ":0"),
        ("VEMB k b", "[5 6]"),
        ("VGETATTR k b", "{\"n\":1}"),
        ("VADD k VALUES 2 5 6 b SETATTR x SETATTR y", ":0"),
        ("VGETATTR k b", "y"),
        ("VADD k VALUES 2 5 6 b SETATTR ''", ":0"),
        ("VGETATTR k b", "nil"),
        ("VADD k VALUES 2 5 6 e SETATTR ''", ":1"),
        ("VGETATTR k e", "''"),
        ("VADD n VALUES 1 1 a Q8 NOQUANT BIN Q8 NOQUANT", ":1"),
    ]);
    assert_eq!(client.call(&words("VINFO n")).field("quant-type").text(), "f32");
    let blob = command(&[&b"VADD"[..], b"k", b"FP32", &fp32(&[0.5, -2.0]), &[0, 255, 13, 10]]);
    assert_eq!(client.call(&blob), Value::Integer(1));
    assert_eq!(client.call(&command(&[&b"VEMB"[..], b"k", &[0, 255, 13, 10]])).to_string(), "[0.5 -2]");
    let mut client = server.connect_resp3();
    client.check(&[("VADD k VALUES 2 1 0 a", "#f"), ("VADD k VALUES 2 1 0 new", "#t")]);
}

#[test]
fn vadd_refuses_and_stores_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    const ARITY: &str = "-ERR wrong number of arguments for 'VADD' command";
    const BAD_OPTION: &str = "-ERR invalid option after element";
    client.check(&[
        ("VADD k VALUES 2", ARITY),
        ("VADD k VALUES 2 1", BAD_VECTOR),
        ("VADD k VALUES 2 1 0", ARITY),
        ("VADD k VALUES 0 a b", BAD_VECTOR),
        ("VADD k VALUES -1 1 a", BAD_VECTOR),
        ("VADD k VALUES 02 1 0 a", BAD_VECTOR),
        ("VADD k VALUES x 1 a", BAD_VECTOR),
        ("VADD k VALUES 9223372036854775807 1 a", BAD_VECTOR),
        ("VADD k VALUES 3 1 0 a", BAD_VECTOR),
        ("VADD k VALUES 2 1 nan a", BAD_VECTOR),
        ("VADD k VALUES 2 1 inf a", BAD_VECTOR),
        ("VADD k VALUES 2 1 -inf a", BAD_VECTOR),
        ("VADD k VALUES 2 1 1e39 a", BAD_VECTOR),
        ("VADD k VALUES 2 1 ' 1' a", BAD_VECTOR),
        ("VADD k FP32 '' a x", BAD_VECTOR),
        ("VADD k FP32 abc a x", BAD_VECTOR),
        ("VADD k BLOB abcd a x", BAD_VECTOR),
        ("VADD k REDUCE 0 VALUES 2 1 0 a", BAD_VECTOR),
        ("VADD k REDUCE x VALUES 2 1 0 a", BAD_VECTOR),
        ("VADD k REDUCE 3 VALUES 2 1 0 a", BAD_VECTOR),
        ("VADD k VALUES 2 1 x a EF 0", BAD_VECTOR),
        ("VADD k VALUES 2 1 0 a EF 0", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a EF x", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a EF 1000001", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a M 3", "-ERR invalid M"),
        ("VADD k VALUES 2 1 0 a M 4097", "-ERR invalid M"),
        ("VADD k VALUES 2 1 0 a SOMETHING", BAD_OPTION),
        ("VADD k VALUES 2 1 0 a EF", BAD_OPTION),
        ("VADD k VALUES 2 1 0 a Q8 SETATTR", BAD_OPTION),
        ("VADD k VALUES 2 1 0 a EF 0 SOMETHING", "-ERR invalid EF"),
        ("VADD k VALUES 2 1 0 a SOMETHING EF 0", BAD_OPTION),
        ("EXISTS k", ":0"),
        ("DBSIZE", ":0"),
    ]);
    for bits in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(client.call(&vadd("k", &[1.0, bits], "a", "")).to_string(), BAD_VECTOR);
    }
    assert_eq!(client.call(&vadd("k", &vec![1.0; 65_537], "a", "")).to_string(), BAD_VECTOR);
    assert_eq!(client.call(&vadd("k", &vec![1.0; 65_536], "a", "")).to_string(), ":1");
}

#[test]
fn vadd_must_agree_with_the_set() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    const QUANTIZATION: &str = "-ERR asked quantization mismatch with existing vector set";
    const M: &str = "-ERR asked M value mismatch with existing vector set";
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VADD k VALUES 3 1 0 0 b NOQUANT M 5", QUANTIZATION),
        ("VADD k VALUES 2 1 0 b BIN", QUANTIZATION),
        ("VADD k VALUES 3 1 0 0 b M 5", M),
        ("VADD k VALUES 3 1 0 0 b", "-ERR Vector dimension mismatch - got 3 but set has 2"),
        ("VADD k REDUCE 2 VALUES 2 1 0 b", "-ERR cannot add projection to existing set without projection"),
        ("VCARD k", ":1"),
        ("VADD n VALUES 2 1 0 a NOQUANT M 8", ":1"),
        ("VADD n VALUES 2 1 0 b", QUANTIZATION),
        ("VADD n VALUES 2 1 0 b NOQUANT", M),
        ("VADD n VALUES 2 1 0 b NOQUANT M 8", ":1"),
    ]);
}

#[test]
fn reduce_projects_vectors() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD r REDUCE 2 VALUES 4 1 0 0 0 a", ":1"),
        ("VADD r REDUCE 2 VALUES 4 0 1 0 0 b", ":1"),
        ("VDIM r", ":2"),
        ("VEMB r a", "[0.5 0.5]"),
        ("VEMB r b", "[0.5 -0.5]"),
        ("VADD r VALUES 4 1 0 0 0 c", "-ERR Vector dimension mismatch - got 4 but set has 2"),
        ("VADD r VALUES 2 1 0 c", "-ERR Vector dimension mismatch - got 2 but set has 2"),
        ("VADD r REDUCE 3 VALUES 4 1 0 0 0 c", "-ERR Vector dimension mismatch - got 4 but set has 2"),
        (
            "VADD r REDUCE 2 VALUES 5 1 0 0 0 0 c",
            "-ERR Input dimension mismatch for projection - got 5 but projection expects 4",
        ),
        ("VSIM r VALUES 4 0 1 0 0 COUNT 1", "[b]"),
        ("VSIM r VALUES 2 1 1 COUNT 1", "[a]"),
        (
            "VSIM r VALUES 3 1 1 1",
            "-ERR Input dimension mismatch for projection - got 3 but projection expects 4",
        ),
    ]);
    assert_eq!(client.call(&words("VINFO r")).field("projection-input-dim"), &Value::Integer(4));
}

#[test]
fn missing_keys_missing_elements_and_wrong_argument_counts() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a", ":1"),
        ("VSETATTR k a x", ":1"),
        ("VCARD no", ":0"),
        ("VDIM k", ":2"),
        ("VDIM no", "-ERR key does not exist"),
        ("VREM no a", ":0"),
        ("VREM k no", ":0"),
        ("VISMEMBER no a", ":0"),
        ("VISMEMBER k no", ":0"),
        ("VSETATTR no a x", ":0"),
        ("VSETATTR k no x", ":0"),
        ("EXISTS no", ":0"),
        ("VGETATTR k a", "x"),
        ("VSETATTR k a ''", ":1"),
        ("VEMB k a NONSENSE", "-ERR invalid option"),
        ("VSIM no BAD x", "[]"),
    ]);
    for null in ["VGETATTR no a", "VGETATTR k no", "VGETATTR k a", "VEMB no a", "VEMB k no"] {
        assert_eq!(client.raw(null), "$-1\r\n", "{null}");
    }
    assert_eq!(client.raw("VINFO no"), "*-1\r\n");
    for wrong in [
        "VCARD",
        "VCARD k a",
        "VDIM k a",
        "VEMB k",
        "VREM k",
        "VISMEMBER k",
        "VGETATTR k",
        "VSETATTR k a",
        "VSETATTR k a x y",
        "VINFO k a",
        "VSIM k ELE",
        "VADD k VALUES 1",
        "VGETATTR k a b",
        "VISMEMBER k a b",
    ] {
        let name = wrong.split(' ').next().unwrap();
        assert_eq!(
            client.ask(&wrong.to_lowercase()),
            format!("-ERR wrong number of arguments for '{name}' command")
        );
    }
    let mut client = server.connect_resp3();
    for null in ["VGETATTR no a", "VEMB k no", "VINFO no"] {
        assert_eq!(client.raw(null), "_\r\n", "{null}");
    }
    client.check(&[
        ("VREM k no", "#f"),
        ("VISMEMBER k a", "#t"),
        ("VSETATTR k a x", "#t"),
        ("VEMB k a", "[,1 ,0]"),
    ]);
    client.check(&[("VREM k a", "#t"), ("EXISTS k", ":0"), ("TYPE k", "+none"), ("VCARD k", ":0")]);
    // A set that is made anew may be quite another.
    client.check(&[("VADD k VALUES 3 1 0 0 a BIN", "#t"), ("VDIM k", ":3"), ("VEMB k a", "[,1 ,-1 ,-1]")]);
}

#[test]
fn vinfo_tells_what_redis_tells_first() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a SETATTR x", ":1"),
        ("VADD k VALUES 2 1 0 b M 16", ":1"),
        ("VADD k VALUES 2 0 1 b", ":0"),
        ("VADD bin VALUES 2 1 0 b BIN M 4", ":1"),
    ]);
    let raw = client.raw("VINFO k");
    let names = [
        "quant-type",
        "hnsw-m",
        "vector-dim",
        "projection-input-dim",
        "size",
        "max-level",
        "attributes-count",
        "vset-uid",
        "hnsw-max-node-uid",
    ];
    let shown: Vec<&str> = raw.split("\r\n").skip(1).step_by(2).take(9).collect();
    assert_eq!(shown, names.map(|name| format!("+{name}")), "{raw}");
    assert!(raw.contains("+quant-type\r\n+int8\r\n+hnsw-m\r\n:16\r\n+vector-dim\r\n:2\r\n"), "{raw}");
    let info = client.call(&words("VINFO k"));
    assert_eq!(
        (info.field("size"), info.field("attributes-count")),
        (&Value::Integer(2), &Value::Integer(1))
    );
    assert_eq!(info.field("rows"), &Value::Integer(3), "an update is a new row");
    let info = server.connect_resp3().call(&words("VINFO bin"));
    assert!(matches!(info, Value::Map(_)));
    assert_eq!((info.field("quant-type").text().as_str(), info.field("hnsw-m")), ("bin", &Value::Integer(4)));
}

#[test]
fn binary_sets_keep_signs() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 4 3 1 2 5 a BIN", ":1"), ("VADD k VALUES 4 3 1 -2 -5 b BIN", ":1")]);
    client.check(&[("VEMB k b", "[1 1 -1 -1]"), ("VSIM k VALUES 4 1 1 1 1", "[a b]")]);
}
