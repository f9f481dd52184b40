//! Cuts a client's byte stream into requests.
//!
//! A request is either an array of bulk strings (`*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n`) or an inline command (`ECHO hi\r\n`).
//! The framer remembers where it stopped inside an unfinished request, so no byte is parsed twice however the
//! stream is split; it never recurses, takes memory only for bytes that have arrived, and checks every limit as
//! soon as a length is known.

use bytes::{Buf, BytesMut};
use thiserror::Error;

use super::inline;
use crate::command::request::{ArgRange, REQUEST_BYTES_MAX, Request};

/// Default for [`Limits::inline_bytes`].
pub const INLINE_BYTES: usize = 64 << 10;
/// Default for [`Limits::arguments`].
pub const ARGUMENTS: usize = 1 << 20;
/// Default for [`Limits::bulk_bytes`].
pub const BULK_BYTES: usize = 512 << 20;
/// Most arguments of a request before the client is authenticated.
pub const UNAUTHENTICATED_ARGUMENTS: usize = 10;
/// Most bytes of one argument before the client is authenticated.
pub const UNAUTHENTICATED_BULK_BYTES: usize = 16 << 10;
/// [`Framer::wanted`] may ask for this much before the client has sent anything like it.
const WANTED_BYTES_MIN: usize = 16 << 10;
/// The shortest bulk string on the wire, `$0\r\n\r\n`: bounds how many arguments the received bytes can hold.
const BULK_WIRE_BYTES_MIN: usize = 6;

const CRLF: &[u8; 2] = b"\r\n";

/// What a client may send.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Longest inline command or length line, without its line feed.
    pub inline_bytes: usize,
    /// Most arguments of one request.
    pub arguments: usize,
    /// Longest argument.
    pub bulk_bytes: usize,
    /// Whether the client is authenticated or need not be. If not, the stricter limits
    /// [`UNAUTHENTICATED_ARGUMENTS`] and [`UNAUTHENTICATED_BULK_BYTES`] hold too.
    pub authenticated: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            inline_bytes: INLINE_BYTES,
            arguments: ARGUMENTS,
            bulk_bytes: BULK_BYTES,
            authenticated: false,
        }
    }
}

/// Bytes that are no request. The text is what follows `-ERR ` in the reply; then the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// An inline command longer than [`Limits::inline_bytes`].
    #[error("Protocol error: too big inline request")]
    InlineTooBig,
    /// An inline command with a quote that never closes, or closes inside a word.
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An argument count that is no number or above [`Limits::arguments`].
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    /// An argument count line that does not end.
    #[error("Protocol error: too big mbulk count string")]
    MultibulkCountTooBig,
    /// An argument length line that does not end.
    #[error("Protocol error: too big bulk count string")]
    BulkCountTooBig,
    /// An argument that does not start as a bulk string but with this byte.
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedBulk(u8),
    /// An argument length that is no number, negative, or above [`Limits::bulk_bytes`].
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    /// An argument longer than its length says.
    #[error(r"Protocol error: expected '\r\n' after bulk")]
    ExpectedBulkEnd,
    /// A request larger than [`REQUEST_BYTES_MAX`] altogether.
    #[error("Protocol error: too big request")]
    RequestTooBig,
    /// Too many arguments before authentication.
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// Too long an argument before authentication.
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An HTTP request, most likely made by a web page in the name of someone inside the network: close the
    /// connection without a reply.
    #[error("Protocol error: HTTP request")]
    CrossProtocol,
}

/// What one step of the framer came to.
enum Step {
    /// More bytes are needed.
    Incomplete,
    /// Something was read, but no whole request yet.
    Continue,
    Complete(Request),
}

/// The state of one connection's request stream. Between calls the caller may only append to the buffer.
#[derive(Debug)]
pub struct Framer {
    limits: Limits,
    /// Bytes at the start of the buffer that are parsed: the headers and whole bulks of the unfinished request.
    position: usize,
    /// Bytes from `position` on that are known to hold no line feed.
    searched: usize,
    /// Bulks still to come; 0 between requests.
    bulks_left: usize,
    /// Length of the bulk at `position` if its header has been read.
    bulk_len: Option<usize>,
    args: Vec<ArgRange>,
    wanted: usize,
}

impl Framer {
    /// A framer at the start of a stream.
    pub fn new(limits: Limits) -> Self {
        Self { limits, position: 0, searched: 0, bulks_left: 0, bulk_len: None, args: Vec::new(), wanted: 0 }
    }

    /// Lifts or restores the stricter limits of unauthenticated clients, from the next length read on. So while
    /// a client is unauthenticated, carry out each request before asking for the next.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.limits.authenticated = authenticated;
    }

    /// Changes the longest argument allowed (`proto-max-bulk-len`), from the next length read on.
    pub fn set_bulk_bytes(&mut self, bulk_bytes: usize) {
        self.limits.bulk_bytes = bulk_bytes;
    }

    /// After [`Framer::next`] gave `None`: how many bytes to make room for, 0 if that is not known. Never more
    /// than the client has sent of this request (or 16 KiB), so an announced length alone takes no memory.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Takes the next request out of `buf`, or gives `None` if it is not complete. Empty requests (blank lines,
    /// counts of zero or less) are dropped on the way, so after `None` a non-empty `buf` is a begun request.
    ///
    /// # Errors
    /// [`ProtocolError`]; the stream cannot be read on, and calling again gives the same error.
    pub fn next(&mut self, buf: &mut BytesMut) -> Result<Option<Request>, ProtocolError> {
        self.wanted = 0;
        loop {
            let step = if self.bulks_left > 0 {
                self.read_bulks(buf)?
            } else if buf.first() == Some(&b'*') {
                self.read_count(buf)?
            } else {
                self.read_inline(buf)?
            };
            match step {
                Step::Incomplete => return Ok(None),
                Step::Continue => {}
                Step::Complete(request) => return Ok(Some(request)),
            }
        }
    }

    fn read_inline(&mut self, buf: &mut BytesMut) -> Result<Step, ProtocolError> {
        let Some(line_feed) = self.find_line_feed(buf, ProtocolError::InlineTooBig)? else {
            return Ok(Step::Incomplete);
        };
        let line = &buf[..line_feed];
        let words =
            inline::split(line.strip_suffix(b"\r").unwrap_or(line)).ok_or(ProtocolError::UnbalancedQuotes)?;
        if let Some(name) = words.first()
            && (name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:"))
        {
            return Err(ProtocolError::CrossProtocol);
        }
        self.check_count(words.len())?;
        for word in &words {
            self.check_bulk_len(word.len())?;
        }
        buf.advance(line_feed + 1);
        Ok(if words.is_empty() { Step::Continue } else { Step::Complete(Request::from_args(words)) })
    }

    /// Reads `*count\r\n`.
    fn read_count(&mut self, buf: &mut BytesMut) -> Result<Step, ProtocolError> {
        let Some(line_feed) = self.find_line_feed(buf, ProtocolError::MultibulkCountTooBig)? else {
            return Ok(Step::Incomplete);
        };
        let count = parse_length_line(&buf[1..line_feed]).ok_or(ProtocolError::InvalidMultibulkLength)?;
        // Above zero it is an argument count; anything else is an empty request.
        let count = usize::try_from(count).unwrap_or(0);
        self.check_count(count)?;
        if count == 0 {
            buf.advance(line_feed + 1);
            return Ok(Step::Continue);
        }
        self.position = line_feed + 1;
        self.bulks_left = count;
        self.args.reserve(count.min(buf.len() / BULK_WIRE_BYTES_MIN + 1));
        Ok(Step::Continue)
    }

    /// Reads `$length\r\n<bytes>\r\n` until all bulks of the request are there.
    fn read_bulks(&mut self, buf: &mut BytesMut) -> Result<Step, ProtocolError> {
        while self.bulks_left > 0 {
            let Some(len) = self.read_bulk_len(buf)? else {
                return Ok(Step::Incomplete);
            };
            let end = self.position + len;
            let Some(terminator) = buf.get(end..end + CRLF.len()) else {
                let missing = end + CRLF.len() - buf.len();
                self.wanted = missing.min(buf.len().max(WANTED_BYTES_MIN));
                return Ok(Step::Incomplete);
            };
            if terminator != CRLF {
                return Err(ProtocolError::ExpectedBulkEnd);
            }
            self.args.push(ArgRange::new(self.position, end));
            self.position = end + CRLF.len();
            self.bulk_len = None;
            self.bulks_left -= 1;
        }
        let frame = buf.split_to(self.position).freeze();
        self.position = 0;
        Ok(Step::Complete(Request::from_frame(frame, std::mem::take(&mut self.args))))
    }

    /// The length of the bulk in turn, or `None` if its header is incomplete. Moves behind the header.
    fn read_bulk_len(&mut self, buf: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if self.bulk_len.is_some() {
            return Ok(self.bulk_len);
        }
        match buf.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(ProtocolError::ExpectedBulk(other)),
        }
        let Some(line_feed) = self.find_line_feed(buf, ProtocolError::BulkCountTooBig)? else {
            return Ok(None);
        };
        let len = parse_length_line(&buf[self.position + 1..line_feed])
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(ProtocolError::InvalidBulkLength)?;
        self.check_bulk_len(len)?;
        if len > REQUEST_BYTES_MAX.saturating_sub(line_feed + 1 + CRLF.len()) {
            return Err(ProtocolError::RequestTooBig);
        }
        self.position = line_feed + 1;
        self.bulk_len = Some(len);
        Ok(self.bulk_len)
    }

    /// Index of the line feed that ends the line at `position`, or `None` if it has not arrived;
    /// `too_long` if it is not within [`Limits::inline_bytes`].
    fn find_line_feed(
        &mut self,
        buf: &[u8],
        too_long: ProtocolError,
    ) -> Result<Option<usize>, ProtocolError> {
        let rest = &buf[self.position..];
        let within = rest.len().min(self.limits.inline_bytes + 1);
        // Length lines have a few bytes, for which a plain loop beats memchr.
        if let Some(i) = rest[self.searched..within].iter().position(|&byte| byte == b'\n') {
            let line_feed = self.position + self.searched + i;
            self.searched = 0;
            return Ok(Some(line_feed));
        }
        if rest.len() > self.limits.inline_bytes {
            return Err(too_long);
        }
        self.searched = rest.len();
        Ok(None)
    }

    fn check_count(&self, count: usize) -> Result<(), ProtocolError> {
        if count > self.limits.arguments {
            return Err(ProtocolError::InvalidMultibulkLength);
        }
        if !self.limits.authenticated && count > UNAUTHENTICATED_ARGUMENTS {
            return Err(ProtocolError::UnauthenticatedMultibulkLength);
        }
        Ok(())
    }

    fn check_bulk_len(&self, len: usize) -> Result<(), ProtocolError> {
        if len > self.limits.bulk_bytes {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if !self.limits.authenticated && len > UNAUTHENTICATED_BULK_BYTES {
            return Err(ProtocolError::UnauthenticatedBulkLength);
        }
        Ok(())
    }
}

/// The number in `line`, which must be a strict signed decimal (no `+`, no leading zero, no `-0`) and `\r`.
fn parse_length_line(line: &[u8]) -> Option<i64> {
    let text = line.strip_suffix(b"\r")?;
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut magnitude: i64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
#[path = "framer_tests.rs"]
mod tests;
