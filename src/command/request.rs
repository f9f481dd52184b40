//! One complete command as it came from a client.
//!
//! A request keeps the bytes it arrived in and only remembers where each argument lies, so a command with
//! thousands of arguments (`VADD key VALUES 1536 ...`) costs two allocations, not thousands.

use std::fmt;

use bytes::Bytes;

/// Most bytes one request may have on the wire: 1 GiB. It also keeps every offset within a `u32`.
pub const REQUEST_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(REQUEST_BYTES_MAX < u32::MAX as usize);

/// Where one argument lies in its frame. Two `u32` instead of two `usize`: half the memory per argument.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ArgRange {
    start: u32,
    end: u32,
}

impl ArgRange {
    /// The bytes `start..end` of a frame of at most [`REQUEST_BYTES_MAX`] bytes.
    pub(crate) fn new(start: usize, end: usize) -> Self {
        assert!(start <= end && end <= REQUEST_BYTES_MAX, "argument range {start}..{end} is out of bounds");
        #[expect(clippy::cast_possible_truncation, reason = "at most REQUEST_BYTES_MAX, checked above")]
        Self { start: start as u32, end: end as u32 }
    }

    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// One complete command: argument 0 is its name. Arguments are byte strings and may be empty.
#[derive(Clone)]
pub struct Request {
    frame: Bytes,
    args: Vec<ArgRange>,
}

impl Request {
    /// A request whose arguments are ranges of `frame`; every range must lie inside it.
    pub(crate) fn from_frame(frame: Bytes, args: Vec<ArgRange>) -> Self {
        debug_assert!(args.iter().all(|arg| arg.range().end <= frame.len()));
        Self { frame, args }
    }

    /// A request made of copies of `args`, for inline commands and tests.
    ///
    /// # Panics
    /// If the arguments have more than [`REQUEST_BYTES_MAX`] bytes together.
    pub fn from_args(args: impl IntoIterator<Item: AsRef<[u8]>>) -> Self {
        let mut frame = Vec::new();
        let mut ranges = Vec::new();
        for arg in args {
            let start = frame.len();
            frame.extend_from_slice(arg.as_ref());
            ranges.push(ArgRange::new(start, frame.len()));
        }
        Self { frame: frame.into(), args: ranges }
    }

    /// Number of arguments, the command's name included.
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether there is no argument at all. The framer never makes such a request.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// Argument `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Request::len`]; use [`Request::get`] where that is not known.
    pub fn arg(&self, i: usize) -> &[u8] {
        &self.frame[self.args[i].range()]
    }

    /// Argument `i`, or `None` past the last one.
    pub fn get(&self, i: usize) -> Option<&[u8]> {
        self.args.get(i).map(|arg| &self.frame[arg.range()])
    }

    /// Argument `i` as a handle that shares the frame: no copy, but the whole frame stays in memory as long
    /// as the handle does. Copy the bytes instead when they are to be kept.
    ///
    /// # Panics
    /// If `i` is not below [`Request::len`].
    pub fn bytes(&self, i: usize) -> Bytes {
        self.frame.slice(self.args[i].range())
    }

    /// All arguments in order, the command's name first.
    pub fn args(&self) -> impl ExactSizeIterator<Item = &[u8]> + DoubleEndedIterator + Clone {
        self.args.iter().map(|arg| &self.frame[arg.range()])
    }

    /// Bytes the request keeps in its frame (its size on the wire; for inline commands the arguments only).
    pub fn size_bytes(&self) -> usize {
        self.frame.len()
    }
}

/// Equal when the arguments are equal, however they were framed.
impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        self.args().eq(other.args())
    }
}

impl Eq for Request {}

/// Shows only the command's name and the sizes: arguments can be passwords.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.get(0).unwrap_or_default();
        write!(f, "Request({}, {} arguments, {} bytes)", name.escape_ascii(), self.len(), self.size_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_back_in_every_way() {
        let request = Request::from_args(["VADD", "", "key"]);
        assert_eq!(request.len(), 3);
        assert!(!request.is_empty());
        assert_eq!(request.arg(0), b"VADD");
        assert_eq!(request.get(1), Some(&b""[..]));
        assert_eq!(request.get(3), None);
        assert_eq!(request.bytes(2), Bytes::from_static(b"key"));
        assert_eq!(request.args().collect::<Vec<_>>(), [&b"VADD"[..], b"", b"key"]);
        assert_eq!(request.size_bytes(), 7);
    }

    #[test]
    fn ranges_share_the_frame() {
        let frame = Bytes::from_static(b"*1\r\n$4\r\nPING\r\n");
        let request = Request::from_frame(frame.clone(), vec![ArgRange::new(8, 12)]);
        assert_eq!(request, Request::from_args(["PING"]));
        assert_ne!(request, Request::from_args(["PING", ""]));
        assert_eq!(request.bytes(0).as_ptr(), frame[8..].as_ptr());
        assert_eq!(request.size_bytes(), frame.len());
    }

    #[test]
    fn debug_text_hides_arguments() {
        let request = Request::from_args(["AUTH", "secret"]);
        assert_eq!(format!("{request:?}"), "Request(AUTH, 2 arguments, 10 bytes)");
    }
}
