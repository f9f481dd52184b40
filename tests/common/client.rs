//! A blocking client that can also send raw bytes and give raw replies.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::{Bytes, BytesMut};
use redis_protocol::{resp2, resp3};

use super::WAIT_MAX;

/// The words of a command.
pub type Command = Vec<Vec<u8>>;

/// Splits a line at blanks; `'...'` keeps blanks and may be empty.
pub fn words(line: &str) -> Command {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.as_bytes().to_vec());
        rest = after.trim_start();
    }
    words
}

/// A command of byte strings.
pub fn command<T: AsRef<[u8]>>(words: &[T]) -> Command {
    words.iter().map(|word| word.as_ref().to_vec()).collect()
}

/// A vector as little-endian f32.
pub fn fp32(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

/// `VADD key FP32 ... element options`.
pub fn vadd(key: &str, vector: &[f32], element: &str, options: &str) -> Command {
    let mut command = command(&[b"VADD", key.as_bytes(), b"FP32", &fp32(vector), element.as_bytes()]);
    command.extend(words(options));
    command
}

/// Appends a command as a RESP array.
pub fn encode(command: &Command, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for word in command {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
}

/// A reply. Both protocol versions give the same kinds; [`Client::raw`] shows the bytes where the difference counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Simple(String),
    Error(String),
    Integer(i64),
    Double(f64),
    Boolean(bool),
    Bulk(Vec<u8>),
    Verbatim(String),
    Null,
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
}

impl Value {
    /// The items of an array, or panics.
    pub fn items(&self) -> &[Value] {
        let Self::Array(items) = self else { panic!("not an array: {self}") };
        items
    }

    /// A number of any kind, also as text, or panics.
    pub fn number(&self) -> f64 {
        match self {
            Self::Double(number) => *number,
            Self::Integer(number) => *number as f64,
            Self::Bulk(text) => {
                String::from_utf8_lossy(text).parse().unwrap_or_else(|_| panic!("no number: {self}"))
            }
            _ => panic!("not a number: {self}"),
        }
    }

    /// The value of a name in a map or in a flat array of names and values, or panics.
    pub fn field(&self, name: &str) -> &Value {
        let found = match self {
            Self::Map(pairs) => pairs.iter().find(|(key, _)| key.text() == name).map(|(_, value)| value),
            Self::Array(items) => items.chunks(2).find(|pair| pair[0].text() == name).map(|pair| &pair[1]),
            _ => None,
        };
        found.unwrap_or_else(|| panic!("no {name} in {self}"))
    }

    /// The text of a string of any kind, or panics.
    pub fn text(&self) -> String {
        match self {
            Self::Simple(text) | Self::Error(text) | Self::Verbatim(text) => text.clone(),
            Self::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => panic!("not text: {self}"),
        }
    }

    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}

/// `+OK`, `-ERR ...`, `:1`, `,0.5`, `#t`, `nil`, `[a b]`, `{a=>b}`; a bulk string stands as it is, an empty one as `''`.
impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |items: Vec<String>| items.join(" ");
        match self {
            Self::Simple(text) => write!(out, "+{text}"),
            Self::Error(text) => write!(out, "-{text}"),
            Self::Integer(number) => write!(out, ":{number}"),
            Self::Double(number) => write!(out, ",{number}"),
            Self::Boolean(yes) => write!(out, "#{}", if *yes { "t" } else { "f" }),
            Self::Bulk(bytes) if bytes.is_empty() => write!(out, "''"),
            Self::Bulk(bytes) => write!(out, "{}", String::from_utf8_lossy(bytes)),
            Self::Verbatim(text) => write!(out, "={text}"),
            Self::Null => write!(out, "nil"),
            Self::Array(items) => write!(out, "[{}]", join(items.iter().map(Self::to_string).collect())),
            Self::Map(pairs) => {
                write!(
                    out,
                    "{{{}}}",
                    join(pairs.iter().map(|(key, value)| format!("{key}=>{value}")).collect())
                )
            }
        }
    }
}

impl From<resp2::types::BytesFrame> for Value {
    fn from(frame: resp2::types::BytesFrame) -> Self {
        use resp2::types::BytesFrame as F;
        match frame {
            F::SimpleString(text) => Self::Simple(String::from_utf8(text.to_vec()).unwrap()),
            F::Error(text) => Self::Error(text.to_string()),
            F::Integer(number) => Self::Integer(number),
            F::BulkString(bytes) => Self::Bulk(bytes.to_vec()),
            F::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            F::Null => Self::Null,
        }
    }
}

impl From<resp3::types::BytesFrame> for Value {
    fn from(frame: resp3::types::BytesFrame) -> Self {
        use resp3::types::BytesFrame as F;
        match frame {
            F::SimpleString { data, .. } => Self::Simple(String::from_utf8(data.to_vec()).unwrap()),
            F::SimpleError { data, .. } => Self::Error(data.to_string()),
            F::Number { data, .. } => Self::Integer(data),
            F::Double { data, .. } => Self::Double(data),
            F::Boolean { data, .. } => Self::Boolean(data),
            F::BlobString { data, .. } => Self::Bulk(data.to_vec()),
            F::VerbatimString { data, .. } => Self::Verbatim(String::from_utf8(data.to_vec()).unwrap()),
            F::Null => Self::Null,
            F::Array { data, .. } => Self::Array(data.into_iter().map(Self::from).collect()),
            F::Set { data, .. } => Self::Array(data.into_iter().map(Self::from).collect()),
            F::Map { data, .. } => {
                Self::Map(data.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
            }
            other => panic!("unexpected frame {other:?}"),
        }
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    received: BytesMut,
    /// The version replies are read in: 2 or 3.
    pub protocol: u8,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        stream.set_write_timeout(Some(WAIT_MAX))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: BytesMut::new(), protocol: 2 })
    }

    /// Sends `HELLO` and reads in that version from then on.
    pub fn hello(&mut self, protocol: u8) -> Value {
        self.send(format!("HELLO {protocol}\r\n").as_bytes());
        self.protocol = protocol;
        self.read()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Reads one reply and the bytes it came in. `UnexpectedEof` when the server has closed the connection.
    pub fn try_read(&mut self) -> io::Result<(Value, Bytes)> {
        loop {
            let broken = |error| io::Error::new(ErrorKind::InvalidData, format!("{error:?}"));
            let decoded = match self.protocol {
                2 => resp2::decode::decode_bytes_mut(&mut self.received)
                    .map_err(broken)?
                    .map(|(frame, _, bytes)| (frame.into(), bytes)),
                _ => resp3::decode::complete::decode_bytes_mut(&mut self.received)
                    .map_err(broken)?
                    .map(|(frame, _, bytes)| (frame.into(), bytes)),
            };
            if let Some(reply) = decoded {
                return Ok(reply);
            }
            let mut chunk = [0; 64 << 10];
            match self.stream.read(&mut chunk)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                read => self.received.extend_from_slice(&chunk[..read]),
            }
        }
    }

    /// Reads one reply.
    pub fn read(&mut self) -> Value {
        self.try_read().unwrap().0
    }

    /// Sends a command and reads its reply.
    pub fn try_call(&mut self, command: &Command) -> io::Result<Value> {
        let mut request = Vec::new();
        encode(command, &mut request);
        self.stream.write_all(&request)?;
        Ok(self.try_read()?.0)
    }

    /// Sends a command and reads its reply.
    pub fn call(&mut self, command: &Command) -> Value {
        self.try_call(command).unwrap()
    }

    /// Sends the words of a line (see [`words`]) and gives the reply as text (see [`Value`]).
    pub fn ask(&mut self, line: &str) -> String {
        self.call(&words(line)).to_string()
    }

    /// Sends the words of a line and gives the bytes of the reply.
    pub fn raw(&mut self, line: &str) -> String {
        let mut request = Vec::new();
        encode(&words(line), &mut request);
        self.send(&request);
        String::from_utf8_lossy(&self.try_read().unwrap().1).into_owned()
    }

    /// Asks each line and compares the reply with the text beside it.
    #[track_caller]
    pub fn check(&mut self, table: &[(&str, &str)]) {
        for (line, expected) in table {
            assert_eq!(self.ask(line), *expected, "{line}");
        }
    }

    /// Sends all commands while reading, and gives the replies in order.
    pub fn pipeline(&mut self, commands: &[Command]) -> Vec<Value> {
        let mut request = Vec::new();
        for command in commands {
            encode(command, &mut request);
        }
        let mut writer = self.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || writer.write_all(&request).unwrap());
            commands.iter().map(|_| self.read()).collect()
        })
    }

    /// Whether the server closes the connection without sending anything more.
    pub fn is_closed(&mut self) -> bool {
        self.received.is_empty()
            && match self.stream.read(&mut [0; 1]) {
                Ok(read) => read == 0,
                // The server closed while bytes of ours were unread.
                Err(error) => error.kind() == ErrorKind::ConnectionReset,
            }
    }
}
