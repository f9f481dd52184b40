//! Tests of the request framer. The oracle for arrays is the redis-protocol crate's decoder.

use bytes::BufMut;
use proptest::prelude::*;
use redis_protocol::resp2::types::BytesFrame;

use super::*;

type Outcome = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

fn limits() -> Limits {
    Limits { authenticated: true, ..Limits::default() }
}

/// All requests of a stream that arrives in pieces of the given sizes (the rest in one), and the error at its end.
fn frame_pieces(limits: Limits, stream: &[u8], pieces: impl IntoIterator<Item = usize>) -> Outcome {
    let mut framer = Framer::new(limits);
    let mut buf = BytesMut::new();
    let mut requests = Vec::new();
    let mut rest = stream;
    for size in pieces.into_iter().chain([usize::MAX]) {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        buf.put_slice(piece);
        loop {
            match framer.next(&mut buf) {
                Ok(Some(request)) => requests.push(request.args().map(<[u8]>::to_vec).collect()),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.next(&mut buf), Err(error), "an error must stay");
                    return (requests, Some(error));
                }
            }
        }
    }
    (requests, None)
}

fn frame(stream: &[u8]) -> Outcome {
    frame_pieces(limits(), stream, [])
}

fn requests(stream: &[u8]) -> Vec<Vec<String>> {
    let (requests, error) = frame(stream);
    assert_eq!(error, None);
    let text = |arg: &Vec<u8>| arg.escape_ascii().to_string();
    requests.iter().map(|args| args.iter().map(text).collect()).collect()
}

fn error(stream: &[u8]) -> ProtocolError {
    frame(stream).1.unwrap()
}

/// `args` as a client sends them.
fn wire(args: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.as_ref().len()).as_bytes());
        out.extend_from_slice(arg.as_ref());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Pipelines as clients send them, some of which end in an error.
const CORPUS: &[&[u8]] = &[
    b"*1\r\n$4\r\nPING\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n",
    b"PING\r\n*1\r\n$4\r\nPING\r\nset a \"b\\x00\\r\\n\"\nHELLO 3\r\n",
    b"\r\n\n  \r\n*0\r\n*-1\r\n*-10\r\n*1\r\n$2\r\n\r\n\r\n\r\n\r\nECHO 'x y'\r\n",
    b"*3\r\n$4\r\nVADD\r\n$1\r\nk\r\n$12\r\n*1\r\n$4\r\nPING\r\n*2\r\n$1\r\na\r\n",
    b"PING\r\n*1\r\n$4\r\nPINGxx",
    b"*1\r\n$4\r\nPING\r\n*2\r\n$1\r\na\r\n:1\r\n",
    b"*1\r\n$01\r\nx\r\n",
    b"PING\r\nset \"a\"b\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nFLUSHALL\r\n",
];

#[test]
fn arrays_and_inline_commands_mix() {
    assert_eq!(
        requests(CORPUS[1]),
        [vec!["PING"], vec!["PING"], vec!["set", "a", r"b\x00\r\n"], vec!["HELLO", "3"]]
    );
    assert_eq!(requests(CORPUS[0]), [vec!["PING"], vec!["ECHO", ""], vec!["PING"]]);
}

#[test]
fn empty_requests_are_skipped() {
    assert_eq!(requests(CORPUS[2]), [vec![r"\r\n"], vec!["ECHO", "x y"]]);
    assert_eq!(requests(b"\r\n"), [[""; 0]; 0]);
    assert_eq!(requests(b" *1\r\n"), [["*1"]]);
}

#[test]
fn every_split_gives_the_same_requests() {
    for stream in CORPUS {
        let whole = frame(stream);
        assert_eq!(frame_pieces(limits(), stream, vec![1; stream.len()]), whole);
        for first in 0..stream.len() {
            for second in 0..stream.len() - first {
                assert_eq!(frame_pieces(limits(), stream, [first, second]), whole, "{first} {second}");
            }
        }
    }
}

#[test]
fn errors_have_the_texts_of_redis() {
    let long = [b'1'; INLINE_BYTES + 1];
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (long.to_vec(), "too big inline request"),
        (b"set \"a\r\n".to_vec(), "unbalanced quotes in request"),
        (b"*\r\n".to_vec(), "invalid multibulk length"),
        (b"*x\r\n".to_vec(), "invalid multibulk length"),
        (b"*+1\r\n".to_vec(), "invalid multibulk length"),
        (b"*01\r\n".to_vec(), "invalid multibulk length"),
        (b"*-0\r\n".to_vec(), "invalid multibulk length"),
        (b"* 1\r\n".to_vec(), "invalid multibulk length"),
        (b"*1\n".to_vec(), "invalid multibulk length"),
        (b"*1048577\r\n".to_vec(), "invalid multibulk length"),
        (b"*99999999999999999999999\r\n".to_vec(), "invalid multibulk length"),
        ([b"*", &long[..]].concat(), "too big mbulk count string"),
        ([b"*1\r\n$", &long[..]].concat(), "too big bulk count string"),
        (b"*1\r\n+".to_vec(), "expected '$', got '+'"),
        (b"*1\r\n*1\r\n".to_vec(), "expected '$', got '*'"),
        (b"*1\r\n\xff".to_vec(), r"expected '$', got '\xff'"),
        (b"*1\r\n\r\n".to_vec(), r"expected '$', got '\r'"),
        (b"*1\r\n$\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$-1\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$+4\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$536870913\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$9223372036854775807\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$4\r\nPINGS\r\n".to_vec(), r"expected '\r\n' after bulk"),
    ];
    for (stream, text) in cases {
        let shown = stream[..stream.len().min(20)].escape_ascii();
        assert_eq!(error(&stream).to_string(), format!("Protocol error: {text}"), "{shown}");
    }
}

#[test]
fn http_requests_are_recognised() {
    assert_eq!(error(b"POST / HTTP/1.1\r\n"), ProtocolError::CrossProtocol);
    assert_eq!(error(b"hOsT: a\r\n"), ProtocolError::CrossProtocol);
    assert_eq!(requests(b"POSTS\r\nset post host:\r\n"), [vec!["POSTS"], vec!["set", "post", "host:"]]);
}

#[test]
fn limits_are_exact() {
    let longest = [b'a'; INLINE_BYTES];
    assert_eq!(frame(&[&longest[..], b"\n"].concat()).0, [[longest.to_vec()]]);
    assert_eq!(error(&[&longest[..], b"\r\n"].concat()), ProtocolError::InlineTooBig);

    let limits = Limits { arguments: 2, bulk_bytes: 3, ..limits() };
    let run = |args: &[&str]| frame_pieces(limits.clone(), &wire(args), []).1;
    assert_eq!(run(&["abc", "abc"]), None);
    assert_eq!(run(&["a", "a", "a"]), Some(ProtocolError::InvalidMultibulkLength));
    assert_eq!(run(&["abcd"]), Some(ProtocolError::InvalidBulkLength));
}

#[test]
fn limits_are_stricter_before_authentication() {
    let run = |stream: &[u8]| frame_pieces(Limits::default(), stream, []).1;
    let long = "x".repeat(UNAUTHENTICATED_BULK_BYTES);
    assert_eq!(run(&wire(&["x"; 10])), None);
    assert_eq!(run(&wire(&["AUTH", &long])), None);
    assert_eq!(run(b"*11\r\n"), Some(ProtocolError::UnauthenticatedMultibulkLength));
    assert_eq!(run(b"*1\r\n$16385\r\n"), Some(ProtocolError::UnauthenticatedBulkLength));
    assert_eq!(run(b"a b c d e f g h i j k\r\n"), Some(ProtocolError::UnauthenticatedMultibulkLength));
    assert_eq!(run(format!("AUTH {long}x\r\n").as_bytes()), Some(ProtocolError::UnauthenticatedBulkLength));
    assert_eq!(
        ProtocolError::UnauthenticatedMultibulkLength.to_string(),
        "Protocol error: unauthenticated multibulk length"
    );
    assert_eq!(
        ProtocolError::UnauthenticatedBulkLength.to_string(),
        "Protocol error: unauthenticated bulk length"
    );
}

#[test]
fn limits_change_between_requests() {
    let mut framer = Framer::new(Limits::default());
    let mut buf = BytesMut::from(&[wire(&["AUTH", "x"]), wire(&["x"; 11])].concat()[..]);
    assert!(framer.next(&mut buf).unwrap().is_some());
    framer.set_authenticated(true);
    assert_eq!(framer.next(&mut buf).unwrap().unwrap().len(), 11);
    framer.set_bulk_bytes(1);
    buf.put_slice(&wire(&["ab"]));
    assert_eq!(framer.next(&mut buf), Err(ProtocolError::InvalidBulkLength));
}

#[test]
fn a_request_has_a_total_limit() {
    let limits = Limits { bulk_bytes: usize::MAX, ..limits() };
    let header = format!("*1\r\n${REQUEST_BYTES_MAX}\r\n");
    assert_eq!(frame_pieces(limits.clone(), header.as_bytes(), []).1, Some(ProtocolError::RequestTooBig));
    let header = format!("*1\r\n${}\r\n", i64::MAX);
    assert_eq!(frame_pieces(limits, header.as_bytes(), []).1, Some(ProtocolError::RequestTooBig));
}

#[test]
fn announced_lengths_take_no_memory() {
    let mut framer = Framer::new(limits());
    let mut buf = BytesMut::from(&b"*1048576\r\n$536870912\r\nabc"[..]);
    assert_eq!(framer.next(&mut buf), Ok(None));
    assert!(framer.args.capacity() < 16);
    assert_eq!(framer.wanted(), WANTED_BYTES_MIN);
    buf.put_bytes(b'x', 10 * WANTED_BYTES_MIN);
    assert_eq!(framer.next(&mut buf), Ok(None));
    assert_eq!(framer.wanted(), buf.len());
}

#[test]
fn wanted_is_what_a_short_bulk_lacks() {
    let mut framer = Framer::new(limits());
    let mut buf = BytesMut::from(&b"*1\r\n$10\r\nabc"[..]);
    assert_eq!(framer.next(&mut buf), Ok(None));
    assert_eq!(framer.wanted(), 9);
    buf.put_slice(b"defghij\r\n*1");
    assert!(framer.next(&mut buf).unwrap().is_some());
    assert_eq!(framer.next(&mut buf), Ok(None));
    assert_eq!(framer.wanted(), 0);
}

#[test]
fn arguments_share_the_received_bytes() {
    let stream = wire(&["SET", &"v".repeat(1000)]);
    let mut buf = BytesMut::from(&stream[..]);
    let received = buf.as_ptr();
    let request = Framer::new(limits()).next(&mut buf).unwrap().unwrap();
    assert_eq!(request.size_bytes(), stream.len());
    let value = request.bytes(1);
    assert_eq!(value.as_ptr() as usize - received as usize, stream.len() - 1002);
}

#[test]
fn nested_arrays_are_refused_at_once() {
    assert_eq!(error(&b"*1\r\n".repeat(1_000_000)), ProtocolError::ExpectedBulk(b'*'));
}

#[test]
fn megabytes_of_blank_lines_leave_nothing_behind() {
    let mut framer = Framer::new(limits());
    let mut buf = BytesMut::from(&b"\r\n\n \r\n*0\r\n*-1\r\n".repeat(300_000)[..]);
    assert_eq!(framer.next(&mut buf), Ok(None));
    assert!(buf.is_empty());
}

#[test]
fn a_million_tiny_commands() {
    const COMMANDS: usize = 1_000_000;
    let mut framer = Framer::new(limits());
    let mut buf = BytesMut::from(&b"*1\r\n$4\r\nPING\r\n".repeat(COMMANDS)[..]);
    let mut count = 0;
    while let Some(request) = framer.next(&mut buf).unwrap() {
        assert_eq!(request.arg(0), b"PING");
        count += 1;
    }
    assert_eq!(count, COMMANDS);
    assert!(buf.is_empty());
}

fn any_args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..12)
}

/// Bytes that are often nearly a request.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        any_args().prop_map(|args| wire(&args)),
        prop::sample::select(CORPUS).prop_map(<[u8]>::to_vec),
        prop::sample::select(vec![
            "*", "$", "\r\n", "\n", "\r", "-1", "0", "3", "PING", " ", "\"", "'", "\\x4"
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn any_splitting_gives_the_same_outcome(
        stream in any_stream(),
        pieces in prop::collection::vec(0..40usize, 0..60),
        authenticated in any::<bool>(),
    ) {
        let limits = Limits { inline_bytes: 48, authenticated, ..Limits::default() };
        let whole = frame_pieces(limits.clone(), &stream, []);
        prop_assert_eq!(frame_pieces(limits, &stream, pieces), whole);
    }

    #[test]
    fn arrays_are_read_as_the_oracle_reads_them(commands in prop::collection::vec(any_args(), 1..6)) {
        let stream: Vec<u8> = commands.iter().flat_map(|args| wire(args)).collect();
        let mut buf = BytesMut::from(&stream[..]);
        let mut oracle_buf = buf.clone();
        let mut framer = Framer::new(limits());
        while let Some(request) = framer.next(&mut buf).unwrap() {
            let (frame, size, _) =
                redis_protocol::resp2::decode::decode_bytes_mut(&mut oracle_buf).unwrap().unwrap();
            let args = (0..request.len()).map(|i| BytesFrame::BulkString(request.bytes(i))).collect();
            prop_assert_eq!(BytesFrame::Array(args), frame);
            prop_assert_eq!(request.size_bytes(), size);
        }
        prop_assert!(buf.is_empty() && oracle_buf.is_empty());
    }

    #[test]
    fn lengths_are_strict_decimals(text in "[-+0-9 x]{0,21}") {
        let line = format!("{text}\r");
        let expected = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
        // i64::MIN is of no use as a length.
        prop_assert_eq!(parse_length_line(line.as_bytes()), expected.filter(|value| *value != i64::MIN));
    }
}
