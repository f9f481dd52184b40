//! What clients send when they connect, replayed: the requests in their order, letter case and grouping into writes. Each
//! replay checks the kinds of the replies that its client casts or parses, then reads and writes as that client would.
//!
//! Clients send requests as arrays of bulk strings, except where a test says inline.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;

use common::client::encode;
use common::{Client, Command, Server, Value, command, fp32, words};

const PASSWORD: &str = "correct-horse";
/// Ignored by the clients that ask: the server does not announce maintenance.
const MAINT_NOTIFICATIONS_REFUSED: &str = "-ERR unknown subcommand 'maint_notifications'. Try CLIENT HELP.";

/// A connection that replays.
struct Session {
    client: Client,
}

impl Session {
    fn with(server: &Server) -> Self {
        Self { client: server.connect() }
    }

    /// Sends requests in one write and gives their replies. Those from the reply to `HELLO 3` on are read as RESP3.
    fn sends(&mut self, requests: &[&str]) -> Vec<Value> {
        self.sends_commands(&requests.iter().map(|request| words(request)).collect::<Vec<_>>())
    }

    fn sends_commands(&mut self, requests: &[Command]) -> Vec<Value> {
        let mut bytes = Vec::new();
        for request in requests {
            encode(request, &mut bytes);
        }
        self.client.send(&bytes);
        requests.iter().map(|request| self.reads(request)).collect()
    }

    /// Sends a line as an inline command.
    fn sends_inline(&mut self, line: &str) -> Value {
        self.client.send(format!("{line}\r\n").as_bytes());
        self.reads(&words(line))
    }

    fn reads(&mut self, request: &Command) -> Value {
        if request[0].eq_ignore_ascii_case(b"hello") {
            self.client.protocol = if request[1] == b"3" { 3 } else { 2 };
        }
        self.client.read()
    }

    /// Sends requests in one write; their replies as text must be the ones beside them.
    #[track_caller]
    fn expects(&mut self, exchange: &[(&str, &str)]) {
        let (requests, expected): (Vec<_>, Vec<_>) = exchange.iter().copied().unzip();
        let replies: Vec<String> = self.sends(&requests).iter().map(Value::to_string).collect();
        assert_eq!(replies, expected);
    }

    /// Sends `HELLO` alone and checks the reply.
    #[track_caller]
    fn greets(&mut self, hello: &str) {
        let reply = self.sends(&[hello]).remove(0);
        assert_hello(&reply, self.client.protocol);
    }

    /// Writes and reads; the kinds of the replies must be those of the connection's version.
    #[track_caller]
    fn works(&mut self) {
        let expected = match self.client.protocol {
            2 => [":1", "[e]", "[e 1]", ":0", "nil", ":1"],
            _ => ["#t", "[e]", "{e=>,1}", "#f", "nil", "#t"],
        };
        let key = b"handshake".as_slice();
        let add = command(&[b"VADD", key, b"FP32", &fp32(&[1.0, 0.0]), b"e"]);
        let search = command(&[b"VSIM", key, b"Values", b"2", b"1", b"0"]);
        let scores = command(&[b"vsim", key, b"fp32", &fp32(&[1.0, 0.0]), b"withscores"]);
        let rest = ["VISMEMBER handshake none", "VGETATTR handshake e", "VREM handshake e"].map(words);
        let replies = self.sends_commands(&[&[add, search, scores][..], &rest].concat());
        let replies: Vec<String> = replies.iter().map(Value::to_string).collect();
        assert_eq!(replies, expected);
    }
}

/// The fields of the greeting with the kinds that Lettuce (casts) and Jedis (an exception without `proto`) need.
#[track_caller]
fn assert_hello(reply: &Value, protocol: u8) {
    assert_eq!(matches!(reply, Value::Map(_)), protocol == 3, "{reply}");
    for name in ["server", "version", "mode", "role"] {
        assert!(matches!(reply.field(name), Value::Bulk(text) if !text.is_empty()), "{name} in {reply}");
    }
    let version = reply.field("version").text();
    assert!(version.split('.').count() >= 2 && version.split('.').all(|part| part.parse::<u32>().is_ok()));
    assert_eq!(reply.field("proto"), &Value::Integer(protocol.into()));
    assert!(matches!(reply.field("id"), Value::Integer(id) if *id > 0), "{reply}");
    assert!(matches!(reply.field("modules"), Value::Array(_)), "{reply}");
}

/// The text of `INFO`: verbatim in RESP3.
#[track_caller]
fn assert_info(reply: &Value, protocol: u8, line: &str) {
    assert_eq!(matches!(reply, Value::Verbatim(_)), protocol == 3, "{reply}");
    assert!(reply.text().lines().any(|each| each.starts_with(line)), "{line} in {reply}");
}

fn locked() -> Server {
    Server::start(&["--requirepass", PASSWORD])
}

// ---- Java ----

#[test]
fn jedis() {
    let server = locked();
    let mut session = Session::with(&server);
    session.greets(&format!("HELLO 3 AUTH default {PASSWORD}"));
    session.expects(&[("CLIENT SETNAME suite", "+OK")]);
    session
        .expects(&[("CLIENT SETINFO LIB-NAME jedis", "+OK"), ("CLIENT SETINFO LIB-VER 8.0.0-beta1", "+OK")]);
    session.expects(&[("SELECT 0", "+OK")]);
    session.works();
}

/// Jedis and Lettuce speak RESP2 only after an error that begins with `NOPROTO` or tells of an unknown command; after any
/// other they give up, so a wrong password must look like neither.
#[test]
fn java_clients_do_not_take_a_wrong_password_for_an_old_server() {
    let server = locked();
    for hello in ["HELLO 3 AUTH default wrong", "HELLO 3 AUTH nobody wrong SETNAME suite", "HELLO 3"] {
        let mut session = Session::with(&server);
        let reply = session.sends(&[hello]).remove(0).to_string();
        assert!(reply.starts_with("-WRONGPASS ") || reply.starts_with("-NOAUTH "), "{reply}");
        assert!(!reply.contains("unknown command"), "{reply}");
    }
    let mut session = Session::with(&server);
    session.expects(&[("HELLO 4", "-NOPROTO unsupported protocol version")]);
    session.client.protocol = 2;
    session.expects(&[(&format!("AUTH default {PASSWORD}"), "+OK"), ("PING", "+PONG")]);
    session.works();
}

#[test]
fn lettuce() {
    let server = locked();
    let mut session = Session::with(&server);
    session.greets(&format!("HELLO 3 AUTH default {PASSWORD} SETNAME suite"));
    session.expects(&[
        ("CLIENT SETINFO lib-name Lettuce", "+OK"),
        ("CLIENT SETINFO lib-ver 7.0.0.RELEASE/00eec0c", "+OK"),
        ("CLIENT maint_notifications ON moving-endpoint-type internal-ip", MAINT_NOTIFICATIONS_REFUSED),
        ("SELECT 0", "+OK"),
        ("CLIENT GETNAME", "suite"),
    ]);
    session.works();
}

// ---- Go ----

#[test]
fn go_redis() {
    let server = Server::start(&[]);
    for version in [3, 2] {
        let mut session = Session::with(&server);
        session.greets(&format!("hello {version} setname suite"));
        session.expects(&[(
            "client maint_notifications on moving-endpoint-type internal-ip",
            MAINT_NOTIFICATIONS_REFUSED,
        )]);
        session.expects(&[("select 0", "+OK"), ("client setname suite", "+OK")]);
        session.expects(&[
            ("client setinfo LIB-NAME go-redis(,go1.24.4)", "+OK"),
            ("client setinfo LIB-VER 9.22.0", "+OK"),
        ]);
        session.works();
    }
    let server = locked();
    let mut session = Session::with(&server);
    session.greets(&format!("hello 3 auth default {PASSWORD}"));
    session.works();
}

// ---- Python ----

#[test]
fn redis_py() {
    let server = Server::start(&[]);
    let mut session = Session::with(&server);
    session.greets("HELLO 3");
    let refused =
        session.sends(&["CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-fqdn"]).remove(0);
    assert!(refused.is_error(), "{refused}");
    session.expects(&[("CLIENT SETNAME suite", "+OK")]);
    session.expects(&[
        ("CLIENT SETINFO LIB-NAME redis-py", "+OK"),
        ("CLIENT SETINFO LIB-VER 8.1.0", "+OK"),
        ("SELECT 0", "+OK"),
    ]);
    session.works();
}

#[test]
fn redis_py_with_resp2() {
    let server = locked();
    for credentials in [PASSWORD.to_owned(), format!("default {PASSWORD}")] {
        let mut session = Session::with(&server);
        session.expects(&[(&format!("AUTH {credentials}"), "+OK")]);
        session.expects(&[
            ("CLIENT SETINFO LIB-NAME redis-py", "+OK"),
            ("CLIENT SETINFO LIB-VER 8.1.0", "+OK"),
            ("SELECT 0", "+OK"),
            ("PING", "+PONG"),
        ]);
        session.works();
    }
}

// ---- Node ----

/// All in one write, so the replies after the greeting must already be RESP3.
#[test]
fn node_redis() {
    let server = locked();
    let mut session = Session::with(&server);
    let hello = format!("HELLO 3 AUTH default {PASSWORD} SETNAME suite");
    let replies = session.sends(&[
        &hello,
        "SELECT 0",
        "CLIENT SETINFO LIB-VER 6.3.1",
        "CLIENT SETINFO LIB-NAME node-redis",
        "VISMEMBER none e",
        "INFO server",
    ]);
    assert_hello(&replies[0], 3);
    let after: Vec<String> = replies[1..5].iter().map(Value::to_string).collect();
    assert_eq!(after, ["+OK", "+OK", "+OK", "#f"]);
    assert_info(&replies[5], 3, "redis_version:");
    session.works();
}

/// Lower case, and ready when `info` says that nothing is being loaded.
#[test]
fn ioredis() {
    let server = locked();
    let mut session = Session::with(&server);
    session.greets(&format!("hello 3 auth default {PASSWORD}"));
    session.expects(&[
        ("select 0", "+OK"),
        ("client setname suite", "+OK"),
        ("client SETINFO LIB-NAME ioredis", "+OK"),
        ("client SETINFO LIB-VER 6.0.0", "+OK"),
    ]);
    assert_info(&session.sends(&["info"])[0], 3, "loading:0");
    session.works();
}

// ---- Rust ----

#[test]
fn redis_rs() {
    let server = Server::start(&[]);
    let rest = [
        ("SELECT 0", "+OK"),
        ("CLIENT SETINFO LIB-NAME redis-rs", "+OK"),
        ("CLIENT SETINFO LIB-VER 1.8.1", "+OK"),
    ];
    let mut session = Session::with(&server);
    session.expects(&rest);
    session.works();

    let mut session = Session::with(&server);
    let replies = session.sends(&["HELLO 3", rest[0].0, rest[1].0, rest[2].0]);
    assert_hello(&replies[0], 3);
    assert!(replies[1..].iter().all(|reply| reply.to_string() == "+OK"), "{replies:?}");
    session.works();
}

/// `HELLO` comes inline.
#[test]
fn fred() {
    let server = locked();
    for hello in [None, Some(format!("HELLO 3 AUTH default {PASSWORD}"))] {
        let mut session = Session::with(&server);
        match hello {
            Some(hello) => assert_hello(&session.sends_inline(&hello), 3),
            None => session.expects(&[(&format!("AUTH {PASSWORD}"), "+OK"), ("PING", "+PONG")]),
        }
        session.expects(&[("SELECT 0", "+OK")]);
        assert!(matches!(session.sends(&["CLIENT ID"])[0], Value::Integer(id) if id > 0));
        let info = session.sends(&["INFO server"]).remove(0);
        assert_info(&info, session.client.protocol, "redis_version:");
        session.works();
        session.expects(&[("QUIT", "+OK")]);
        assert!(session.client.is_closed());
    }
}

// ---- Redis's own tools ----

/// Standard input as it is, inline commands and arrays mixed, then an empty line and an `ECHO` of 20 bytes whose reply
/// tells that all is answered.
#[test]
fn redis_cli_pipe() {
    let server = Server::start(&[]);
    let mut session = Session::with(&server);
    let mark = b"\xff\x00 20 random bytes\r\n\x01";
    let mut sent = b"PING\nVADD k VALUES 2 1 0 \"an element\"\r\n".to_vec();
    encode(&command(&[b"VADD", b"k".as_slice(), b"FP32", &fp32(&[0.0, 1.0]), b"b"]), &mut sent);
    sent.extend_from_slice(b"NOSUCH\r\nVCARD k\n");
    sent.extend_from_slice(b"\r\n");
    encode(&command(&[b"ECHO".as_slice(), mark]), &mut sent);
    session.client.send(&sent);
    let mut replies = String::new();
    for _ in 0..5 {
        replies += &format!("{} ", session.client.read());
    }
    assert_eq!(replies, "+PONG :1 :1 -ERR unknown command 'NOSUCH', with args beginning with:  :2 ");
    assert_eq!(session.client.read(), Value::Bulk(mark.to_vec()));
}

/// A session on a terminal asks for the documentation of all commands, to show hints.
#[test]
fn redis_cli_interactive() {
    let server = locked();
    for version in [2, 3] {
        let mut session = Session::with(&server);
        session.expects(&[(&format!("AUTH {PASSWORD}"), "+OK")]);
        session.expects(&[("SELECT 0", "+OK")]);
        if version == 3 {
            session.greets("HELLO 3");
        }
        let docs = session.sends(&["COMMAND DOCS"]).remove(0);
        assert_eq!(matches!(docs, Value::Map(_)), version == 3);
        for command in ["VADD", "VSIM", "client"] {
            let about = docs.field(command);
            assert!(!about.field("summary").text().is_empty(), "{about}");
            assert!(!about.field("group").text().is_empty(), "{about}");
        }
        // redis-cli shows these after "VSIM " (vector commands have upper-case names, as Redis gives them).
        let arguments = docs.field("VSIM").field("arguments").items();
        assert!(arguments.len() > 1);
        for argument in arguments {
            assert!(!argument.field("name").text().is_empty() && !argument.field("type").text().is_empty());
        }
    }
}

#[test]
fn redis_benchmark() {
    let server = Server::start(&[]);
    let mut session = Session::with(&server);
    let settings = session.sends(&["CONFIG GET save", "CONFIG GET appendonly"]);
    assert!(settings.iter().all(|setting| setting.items().len() == 2), "{settings:?}");
    // PING_INLINE, pipelined.
    session.client.send(&b"PING\r\n".repeat(16));
    let mut replies = [0; 16 * 7];
    session.client.stream.read_exact(&mut replies).unwrap();
    assert_eq!(replies.to_vec(), b"+PONG\r\n".repeat(16));
    session.works();
}
