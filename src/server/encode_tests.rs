//! Tests of the reply encoder. The oracle is the redis-protocol crate's decoder.

use proptest::prelude::*;
use redis_protocol::resp2::types::BytesFrame as Frame2;
use redis_protocol::resp3::types::{BytesFrame as Frame3, VerbatimStringFormat};

use super::*;

fn encoded(reply: &Reply, protocol: Protocol) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(reply, protocol, &mut out);
    out.to_vec()
}

fn text(value: f64) -> String {
    let mut buffer = [0; DOUBLE_TEXT_BYTES];
    String::from_utf8(format_double(value, &mut buffer).to_vec()).unwrap()
}

#[test]
fn doubles_look_like_those_of_redis() {
    // All seen on Redis 8.0.6.
    for expected in [
        "0",
        "-0",
        "1",
        "-7",
        "100",
        "inf",
        "-inf",
        "nan",
        "0.1",
        "12.5",
        "-1234.5",
        "0.0001",
        "0.00001",
        "0.000001",
        "1e-7",
        "5e-324",
        "1.2345e-5",
        "0.001234567",
        "123456.789",
        "123456789.125",
        "1.234567890625e+5",
        "0.10000000149011612",
        "0.9991111755371094",
        "9.999999747378752e-5",
        "1.000000013351432e-10",
        "-3.000000026176508e-9",
        "2147483648",
        "1000000000000000",
        "-999999986991104",
        "1152921504606846976",
        "4000000000000000000",
        "4611686018427387904",
        "5e+18",
        "1e+20",
        "4999999990253224000",
        "12345678901234567000",
        "1.5e+300",
        "1.7976931348623157e+308",
    ] {
        let value: f64 = expected.parse().unwrap();
        assert_eq!(text(value), expected);
    }
    assert_eq!(text(f64::from(0.1_f32)), "0.10000000149011612");
    assert_eq!(text(-f64::NAN), "nan");
}

#[test]
fn resp2_shapes() {
    let cases: Vec<(Reply, &str)> = vec![
        (Reply::ok(), "+OK\r\n"),
        (Reply::error("ERR a\r\nb"), "-ERR a  b\r\n"),
        (Reply::Integer(i64::MIN), ":-9223372036854775808\r\n"),
        (Reply::Integer(0), ":0\r\n"),
        (Reply::Double(12.5), "$4\r\n12.5\r\n"),
        (Reply::Boolean(true), ":1\r\n"),
        (Reply::Boolean(false), ":0\r\n"),
        (Reply::text(""), "$0\r\n\r\n"),
        (Reply::Verbatim("hi\r\n".into()), "$4\r\nhi\r\n\r\n"),
        (Reply::Null, "$-1\r\n"),
        (Reply::NullArray, "*-1\r\n"),
        (Reply::Array(vec![]), "*0\r\n"),
        (Reply::Set(vec![Reply::Integer(1)]), "*1\r\n:1\r\n"),
        (Reply::Map(vec![(Reply::text("a"), Reply::Double(0.5))]), "*2\r\n$1\r\na\r\n$3\r\n0.5\r\n"),
    ];
    for (reply, expected) in cases {
        assert_eq!(encoded(&reply, Protocol::Resp2), expected.as_bytes(), "{reply:?}");
    }
}

#[test]
fn resp3_shapes() {
    let cases: Vec<(Reply, &str)> = vec![
        (Reply::Simple("a\nb".into()), "+a b\r\n"),
        (Reply::Integer(i64::MAX), ":9223372036854775807\r\n"),
        (Reply::Double(1e-10), ",1e-10\r\n"),
        (Reply::Double(f64::NEG_INFINITY), ",-inf\r\n"),
        (Reply::Boolean(true), "#t\r\n"),
        (Reply::Boolean(false), "#f\r\n"),
        (Reply::Verbatim("hi".into()), "=6\r\ntxt:hi\r\n"),
        (Reply::Null, "_\r\n"),
        (Reply::NullArray, "_\r\n"),
        (Reply::Set(vec![Reply::Null]), "~1\r\n_\r\n"),
        (Reply::Map(vec![(Reply::text("b"), Reply::Integer(1))]), "%1\r\n$1\r\nb\r\n:1\r\n"),
    ];
    for (reply, expected) in cases {
        assert_eq!(encoded(&reply, Protocol::Resp3), expected.as_bytes(), "{reply:?}");
    }
}

#[test]
fn depth_is_bounded() {
    let nest = |depth: usize| (0..depth).fold(Reply::Integer(1), |inner, _| Reply::Array(vec![inner]));
    let fits = encoded(&nest(REPLY_DEPTH_MAX), Protocol::Resp3);
    assert!(fits.ends_with(b"\r\n:1\r\n"));
    let deep = encoded(&nest(REPLY_DEPTH_MAX + 100), Protocol::Resp3);
    assert!(deep.ends_with(b"*1\r\n-ERR reply nested too deeply\r\n"));
}

/// What the oracle should read from RESP2.
fn as_resp2(reply: &Reply) -> Frame2 {
    let bulk = |text: String| Frame2::BulkString(text.into());
    match reply {
        Reply::Simple(line) => Frame2::SimpleString(line.as_bytes().to_vec().into()),
        Reply::Error(line) => Frame2::Error(line.as_ref().into()),
        Reply::Integer(value) => Frame2::Integer(*value),
        Reply::Double(value) => bulk(text(*value)),
        Reply::Boolean(value) => Frame2::Integer(i64::from(*value)),
        Reply::Bulk(bytes) => Frame2::BulkString(bytes.clone()),
        Reply::Verbatim(words) => bulk(words.clone()),
        Reply::Null | Reply::NullArray => Frame2::Null,
        Reply::Array(items) | Reply::Set(items) => Frame2::Array(items.iter().map(as_resp2).collect()),
        Reply::Table(rows) => Frame2::Array(
            rows.iter().flat_map(|(key, values)| std::iter::once(key).chain(values)).map(as_resp2).collect(),
        ),
        Reply::Map(pairs) => {
            Frame2::Array(pairs.iter().flat_map(|(key, value)| [as_resp2(key), as_resp2(value)]).collect())
        }
    }
}

/// What the oracle should read from RESP3.
fn as_resp3(reply: &Reply) -> Frame3 {
    let attributes = None;
    match reply {
        Reply::Simple(line) => Frame3::SimpleString { data: line.as_bytes().to_vec().into(), attributes },
        Reply::Error(line) => Frame3::SimpleError { data: line.as_ref().into(), attributes },
        Reply::Integer(data) => Frame3::Number { data: *data, attributes },
        Reply::Double(data) => Frame3::Double { data: *data, attributes },
        Reply::Boolean(data) => Frame3::Boolean { data: *data, attributes },
        Reply::Bulk(data) => Frame3::BlobString { data: data.clone(), attributes },
        Reply::Verbatim(words) => Frame3::VerbatimString {
            data: words.clone().into(),
            format: VerbatimStringFormat::Text,
            attributes,
        },
        Reply::Null | Reply::NullArray => Frame3::Null,
        Reply::Array(items) => Frame3::Array { data: items.iter().map(as_resp3).collect(), attributes },
        Reply::Set(items) => Frame3::Set { data: items.iter().map(as_resp3).collect(), attributes },
        Reply::Table(rows) => Frame3::Map {
            data: rows
                .iter()
                .map(|(key, values)| (as_resp3(key), as_resp3(&Reply::Array(values.clone()))))
                .collect(),
            attributes,
        },
        Reply::Map(pairs) => Frame3::Map {
            data: pairs.iter().map(|(key, value)| (as_resp3(key), as_resp3(value))).collect(),
            attributes,
        },
    }
}

fn any_leaf() -> impl Strategy<Value = Reply> {
    prop_oneof![
        "[ -~]{0,12}".prop_map(Reply::simple),
        "ERR [ -~]{0,12}".prop_map(Reply::error),
        any::<i64>().prop_map(Reply::Integer),
        any::<f64>().prop_map(Reply::Double),
        any::<bool>().prop_map(Reply::Boolean),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Reply::bulk(&bytes)),
        ".{0,12}".prop_map(Reply::Verbatim),
        Just(Reply::Null),
    ]
}

fn any_reply() -> impl Strategy<Value = Reply> {
    any_leaf().prop_recursive(4, 32, 5, |inner| {
        // Keys and set members are distinct bulk strings: the oracle keeps only one of several equal ones.
        let key = |i: usize| Reply::bulk(format!("key {i}").as_bytes());
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Reply::Array),
            (0..5usize).prop_map(move |len| Reply::Set((0..len).map(key).collect())),
            prop::collection::vec(prop::collection::vec(inner.clone(), 0..3), 0..3).prop_map(move |rows| {
                Reply::Table(rows.into_iter().enumerate().map(|(i, values)| (key(i), values)).collect())
            }),
            prop::collection::vec(inner, 0..5).prop_map(move |values| {
                Reply::Map(values.into_iter().enumerate().map(|(i, value)| (key(i), value)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn doubles_round_trip(bits in any::<u64>()) {
        let value = f64::from_bits(bits);
        let written = text(value);
        prop_assert!(written.len() <= 25);
        if !value.is_nan() {
            let read: f64 = written.parse().unwrap();
            prop_assert_eq!(read.to_bits(), value.to_bits());
        }
    }

    #[test]
    fn widened_floats_round_trip(value in any::<f32>()) {
        let read: f64 = text(f64::from(value)).parse().unwrap();
        prop_assert_eq!(read.to_bits(), f64::from(value).to_bits());
    }

    #[test]
    fn resp2_is_read_back(reply in any_reply()) {
        let mut bytes = BytesMut::from(&encoded(&reply, Protocol::Resp2)[..]);
        let (frame, _, _) = redis_protocol::resp2::decode::decode_bytes_mut(&mut bytes).unwrap().unwrap();
        prop_assert_eq!(frame, as_resp2(&reply));
        prop_assert!(bytes.is_empty());
    }

    #[test]
    fn resp3_is_read_back(reply in any_reply()) {
        let mut bytes = BytesMut::from(&encoded(&reply, Protocol::Resp3)[..]);
        let (frame, _, _) =
            redis_protocol::resp3::decode::complete::decode_bytes_mut(&mut bytes).unwrap().unwrap();
        prop_assert_eq!(frame, as_resp3(&reply));
        prop_assert!(bytes.is_empty());
    }
}
