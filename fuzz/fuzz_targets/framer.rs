//! The framer gives the same requests and the same error however a client's bytes are split.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use vecdis::command::request::Request;
use vecdis::server::framer::{Framer, Limits, ProtocolError};

/// Longest input for which every place to split it is tried.
const MAX_SPLIT_BYTES: usize = 300;

/// Requests, and the error that ended the stream.
type Outcome = (Vec<Request>, Option<ProtocolError>);

fn frame<'a>(limits: &Limits, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let (mut framer, mut buffer, mut requests) = (Framer::new(limits.clone()), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match framer.next(&mut buffer) {
                Ok(Some(request)) => {
                    assert!(!request.is_empty());
                    assert!(request.args().all(|arg| arg.len() <= limits.bulk_bytes));
                    requests.push(request);
                }
                Ok(None) => {
                    assert!(framer.wanted() <= buffer.len().max(16 << 10));
                    break;
                }
                Err(error) => {
                    assert_eq!(framer.next(&mut buffer), Err(error), "an error stays");
                    return (requests, Some(error));
                }
            }
        }
    }
    (requests, None)
}

fuzz_target!(|input: &[u8]| {
    let Some((&mode, stream)) = input.split_first() else { return };
    let mut limits = Limits { authenticated: mode & 1 == 0, ..Limits::default() };
    if mode & 2 != 0 {
        limits = Limits { inline_bytes: 40, arguments: 12, bulk_bytes: 30, ..limits };
    }
    let whole = frame(&limits, std::iter::once(stream));
    assert!(frame(&limits, stream.chunks(1)) == whole, "byte by byte");
    for at in 0..stream.len().min(MAX_SPLIT_BYTES) {
        let (head, tail) = stream.split_at(at);
        assert!(frame(&limits, [head, tail].into_iter()) == whole, "split at {at}");
    }
});
