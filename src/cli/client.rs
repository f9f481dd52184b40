//! A small blocking client of the Redis protocol (RESP2), for the subcommands that talk to a server they
//! trust.

use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use redis_protocol::resp2::decode::decode_bytes_mut;
pub use redis_protocol::resp2::types::BytesFrame;

use super::CliError;

/// Longest answer the client takes, with all that has arrived behind it.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Most commands sent before their answers are read, so that neither side waits for the other to read.
const PIPELINE_COMMANDS_MAX: usize = 256;
/// Bytes asked of the socket at a time.
const READ_BYTES: usize = 16 << 10;

/// A command: its name and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command(Vec<Vec<u8>>);

impl Command {
    /// A command of the given words.
    pub fn new<T: Into<Vec<u8>>>(words: impl IntoIterator<Item = T>) -> Self {
        Self(words.into_iter().map(Into::into).collect())
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<Vec<u8>>) -> Self {
        self.0.push(argument.into());
        self
    }

    /// The name, for messages.
    pub fn name(&self) -> String {
        self.0.first().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
    }

    /// Appends the command as a RESP array of bulk strings.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("*{}\r\n", self.0.len()).as_bytes());
        for word in &self.0 {
            out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            out.extend_from_slice(word);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// As one types it in a shell behind `redis-cli`: words with other than plain characters in single quotes.
impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.0.iter().enumerate() {
            let word = String::from_utf8_lossy(word);
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/+,@%=".contains(c);
            let space = if index == 0 { "" } else { " " };
            if !word.is_empty() && word.chars().all(plain) {
                write!(out, "{space}{word}")?;
            } else {
                write!(out, "{space}'{}'", word.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

/// A connection. After an error other than [`CliError::Answer`] it is of no more use.
///
/// Only for servers one trusts: the decoder recurses into nested arrays, so a hostile server could end this
/// process.
pub struct Client {
    stream: TcpStream,
    received: BytesMut,
    answer_bytes_max: usize,
}

impl Client {
    /// Connects. `timeout` bounds the connecting, each wait for bytes and each write.
    ///
    /// # Errors
    /// Nobody listens there, or not within the time.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, CliError> {
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect().map_err(CliError::io("cannot connect to the server"))?;
        Ok(Self { stream, received: BytesMut::new(), answer_bytes_max: ANSWER_BYTES_MAX })
    }

    /// Sends one command and waits for its answer.
    ///
    /// # Errors
    /// [`CliError::Answer`] when the server answers with an error; others when the connection fails.
    pub fn call(&mut self, command: &Command) -> Result<BytesFrame, CliError> {
        self.send(std::slice::from_ref(command))?;
        refuse_errors(command, self.receive()?)
    }

    /// Sends commands, many at a time, and gives their answers in order.
    ///
    /// # Errors
    /// As [`Client::call`], for the first command that failed.
    pub fn pipeline(&mut self, commands: &[Command]) -> Result<Vec<BytesFrame>, CliError> {
        let mut answers = Vec::with_capacity(commands.len());
        for batch in commands.chunks(PIPELINE_COMMANDS_MAX) {
            // All answers of a batch are read before the first error is looked at, so the connection stays in
            // step.
            let received = self.answers(batch)?;
            for (command, answer) in batch.iter().zip(received) {
                answers.push(refuse_errors(command, answer)?);
            }
        }
        Ok(answers)
    }

    /// As [`Client::pipeline`], with errors that the server answers among the answers.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn answers(&mut self, commands: &[Command]) -> Result<Vec<BytesFrame>, CliError> {
        let mut answers = Vec::with_capacity(commands.len());
        for batch in commands.chunks(PIPELINE_COMMANDS_MAX) {
            self.send(batch)?;
            for _ in batch {
                answers.push(self.receive()?);
            }
        }
        Ok(answers)
    }

    /// Sends commands all at once and gives the time each took until its answer was there.
    ///
    /// # Errors
    /// As [`Client::pipeline`].
    pub fn pipeline_timed(&mut self, commands: &[Command]) -> Result<Vec<Duration>, CliError> {
        let mut latencies = Vec::with_capacity(commands.len());
        for batch in commands.chunks(PIPELINE_COMMANDS_MAX) {
            let sent = Instant::now();
            self.send(batch)?;
            for command in batch {
                refuse_errors(command, self.receive()?)?;
                latencies.push(sent.elapsed());
            }
        }
        Ok(latencies)
    }

    fn send(&mut self, commands: &[Command]) -> Result<(), CliError> {
        let mut request = Vec::new();
        for command in commands {
            command.encode(&mut request);
        }
        self.stream.write_all(&request).map_err(CliError::io("cannot send to the server"))
    }

    fn receive(&mut self) -> Result<BytesFrame, CliError> {
        let mut chunk = [0; READ_BYTES];
        loop {
            let decoded = decode_bytes_mut(&mut self.received);
            if let Some((frame, _, _)) = decoded.map_err(|error| CliError::Protocol(error.to_string()))? {
                return Ok(frame);
            }
            if self.received.len() >= self.answer_bytes_max {
                return Err(CliError::TooLong { limit_bytes: self.answer_bytes_max });
            }
            match self.stream.read(&mut chunk).map_err(CliError::io("no answer from the server"))? {
                0 => return Err(CliError::Closed),
                read => self.received.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

fn refuse_errors(command: &Command, answer: BytesFrame) -> Result<BytesFrame, CliError> {
    match answer {
        BytesFrame::Error(text) => {
            Err(CliError::Answer { command: command.name(), answer: text.to_string() })
        }
        answer => Ok(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    /// A server that answers whatever comes with the given pieces, each in a write of its own, and closes.
    fn server(pieces: Vec<Vec<u8>>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).unwrap();
            for piece in pieces {
                if stream.write_all(&piece).is_err() {
                    break;
                }
            }
            request.truncate(read);
            request
        });
        (address, thread)
    }

    fn client(address: SocketAddr) -> Client {
        Client::connect(address, Duration::from_secs(10)).unwrap()
    }

    #[test]
    fn sends_arrays_of_bulks_and_reads_answers_in_pieces() {
        let answer = b"*2\r\n$6\r\ntomato\r\n$1\r\n1\r\n";
        let (address, thread) = server(answer.iter().map(|&byte| vec![byte]).collect());
        let reply = client(address).call(&Command::new(["VSIM", "k"]).arg("")).unwrap();
        assert_eq!(reply, BytesFrame::Array(vec![bulk("tomato"), bulk("1")]));
        assert_eq!(thread.join().unwrap(), b"*3\r\n$4\r\nVSIM\r\n$1\r\nk\r\n$0\r\n\r\n");
    }

    fn bulk(text: &'static str) -> BytesFrame {
        BytesFrame::BulkString(bytes::Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_pipeline_gives_the_answers_in_order_or_the_first_error() {
        let (address, thread) = server(vec![b":1\r\n:2\r\n".to_vec(), b":3\r\n".to_vec()]);
        let commands: Vec<Command> = (0..3).map(|n| Command::new(["ECHO"]).arg(n.to_string())).collect();
        let answers = client(address).pipeline(&commands).unwrap();
        assert_eq!(answers, (1..=3).map(BytesFrame::Integer).collect::<Vec<_>>());
        thread.join().unwrap();

        let (address, thread) = server(vec![b":1\r\n-ERR no\r\n:3\r\n+OK\r\n".to_vec()]);
        let mut client = client(address);
        let error = client.pipeline(&commands).unwrap_err();
        assert_eq!(error.to_string(), "\"ECHO\" was answered with ERR no");
        assert!(matches!(client.receive(), Ok(BytesFrame::SimpleString(_))), "still in step");
        thread.join().unwrap();
    }

    #[test]
    fn bad_long_and_broken_answers_are_errors() {
        let call = |pieces: Vec<Vec<u8>>| {
            let (address, thread) = server(pieces);
            let mut client = client(address);
            client.answer_bytes_max = 1000;
            let result = client.call(&Command::new(["PING"]));
            drop(client);
            thread.join().unwrap();
            result
        };
        assert!(matches!(call(vec![b"$10\r\nabc".to_vec()]), Err(CliError::Closed)));
        assert!(matches!(call(vec![b"HTTP/1.1 200 OK\r\n".to_vec()]), Err(CliError::Protocol(_))));
        let long = [b"$100000\r\n".to_vec(), vec![b'x'; 50_000]].concat();
        assert!(matches!(call(vec![long]), Err(CliError::TooLong { limit_bytes: 1000 })));
    }

    #[test]
    fn commands_print_as_they_are_typed_in_a_shell() {
        let command = Command::new(["VSIM", "k", "FILTER", ".a < 1", "it's", ""]);
        assert_eq!(command.to_string(), r"VSIM k FILTER '.a < 1' 'it'\''s' ''");
    }
}
