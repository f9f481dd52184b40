//! What a command answers, independent of the protocol version the client speaks.

use std::borrow::Cow;

use bytes::Bytes;

/// The protocol version of a connection (`HELLO 2`, `HELLO 3`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2, what a connection speaks until `HELLO 3`.
    #[default]
    Resp2,
    /// RESP3: typed booleans, doubles, maps, sets and one null.
    Resp3,
}

/// One reply. Commands give the RESP3 shape; the encoder turns it into RESP2 for older clients.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short status such as `OK`. Line ends inside become spaces when written.
    Simple(Cow<'static, str>),
    /// The whole error text with its code, such as `ERR syntax error`. Line ends inside become spaces.
    Error(Cow<'static, str>),
    /// A whole number.
    Integer(i64),
    /// A floating-point number; RESP2: its text as a bulk string.
    Double(f64),
    /// True or false; RESP2: 1 or 0.
    Boolean(bool),
    /// A byte string.
    Bulk(Bytes),
    /// Plain text for people (`INFO`); RESP2: a bulk string.
    Verbatim(String),
    /// No value; RESP2: the null bulk string.
    Null,
    /// No value where an array was expected; RESP2: the null array.
    NullArray,
    /// Replies in order.
    Array(Vec<Reply>),
    /// Replies without order; RESP2: an array.
    Set(Vec<Reply>),
    /// Rows of a key and its values: RESP3 a map from the key to an array of the values, RESP2 one flat array.
    Table(Vec<(Reply, Vec<Reply>)>),
    /// Pairs in the order given, which clients rely on; RESP2: a flat array key, value, key, value, ...
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// `+OK`.
    pub const fn ok() -> Self {
        Self::Simple(Cow::Borrowed("OK"))
    }

    /// A status.
    pub fn simple(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Simple(text.into())
    }

    /// An error; `text` begins with its code (`ERR`, `WRONGTYPE`, ...).
    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Error(text.into())
    }

    /// A count or a size; the largest whole number if it is larger.
    pub fn integer(value: impl TryInto<i64>) -> Self {
        Self::Integer(value.try_into().unwrap_or(i64::MAX))
    }

    /// A bulk string with a copy of `bytes`.
    pub fn bulk(bytes: &[u8]) -> Self {
        Self::Bulk(Bytes::copy_from_slice(bytes))
    }

    /// A bulk string that borrows a constant.
    pub const fn text(text: &'static str) -> Self {
        Self::Bulk(Bytes::from_static(text.as_bytes()))
    }

    /// A map from names to replies.
    pub fn fields(fields: impl IntoIterator<Item = (&'static str, Self)>) -> Self {
        Self::Map(fields.into_iter().map(|(name, value)| (Self::text(name), value)).collect())
    }

    /// Whether this is an error reply (errors inside arrays do not count).
    pub const fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constructors() {
        assert_eq!(Reply::ok(), Reply::Simple("OK".into()));
        assert_eq!(Reply::simple("PONG"), Reply::Simple("PONG".into()));
        assert_eq!(Reply::integer(3_usize), Reply::Integer(3));
        assert_eq!(Reply::integer(u64::MAX), Reply::Integer(i64::MAX));
        assert_eq!(Reply::bulk(b"a"), Reply::text("a"));
        assert!(Reply::error("ERR no").is_error());
        assert!(!Reply::Array(vec![Reply::error("ERR no")]).is_error());
    }
}
