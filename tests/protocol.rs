//! The wire: framing, protocol versions, limits, authentication, the commands about the connection, hostile input.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::time::Duration;

use common::client::encode;
use common::{Client, Server, Value, command, words};

/// What hostile clients together may add to the server's resident memory.
const HOSTILE_GROWTH_BYTES_MAX: u64 = 64 << 20;
/// Replies that the server keeps for one client at most.
const OUTPUT_BYTES_MAX: u64 = 256 << 20;

/// Sends bytes and compares all bytes that come back, up to the length expected.
#[track_caller]
fn exchange(client: &mut Client, sent: &[u8], expected: &str) {
    client.send(sent);
    let mut received = vec![0; expected.len()];
    client
        .stream
        .read_exact(&mut received)
        .unwrap_or_else(|error| panic!("{}: {error}", sent.escape_ascii()));
    assert_eq!(String::from_utf8_lossy(&received), expected, "{}", sent.escape_ascii());
}

#[test]
fn inline_commands() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let table: &[(&[u8], &str)] = &[
        (b"PING\r\n", "+PONG\r\n"),
        (b"ping\n", "+PONG\r\n"),
        (b"  \t PING   \r\n", "+PONG\r\n"),
        (b"\r\n\n   \r\n*0\r\n*-1\r\n*-5\r\nPING\r\n", "+PONG\r\n"),
        (b"ECHO hi\r\n", "$2\r\nhi\r\n"),
        (b"ECHO \"a b\"\r\n", "$3\r\na b\r\n"),
        (b"ECHO \"\\x41\\n\\t\\\"\\\\\"\r\n", "$5\r\nA\n\t\"\\\r\n"),
        (b"ECHO 'it\\'s \\x41'\n", "$9\r\nit's \\x41\r\n"),
        (b"ECHO \"\"\r\n", "$0\r\n\r\n"),
        (b"ECHO a\"b c\"\r\n", "$4\r\nab c\r\n"),
        (b"PING\nPING\r\nECHO x\n", "+PONG\r\n+PONG\r\n$1\r\nx\r\n"),
        (b"VADD k VALUES 2 1 0 \"an element\"\r\nVCARD k\r\n", ":1\r\n:1\r\n"),
    ];
    for (sent, expected) in table {
        exchange(&mut client, sent, expected);
    }
}

#[test]
fn requests_may_be_split_anywhere() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut request = Vec::new();
    for line in
        ["PING", "ECHO 'a\r\nb'", "VADD k VALUES 2 1 0 a SETATTR ''", "VCARD k", "VISMEMBER k a", "DEL k"]
    {
        encode(&words(line), &mut request);
    }
    request.extend_from_slice(b"ECHO \"in line\"\r\n");
    let expected = "+PONG\r\n$4\r\na\r\nb\r\n:1\r\n:1\r\n:1\r\n:1\r\n$7\r\nin line\r\n";
    for split in 0..request.len() {
        client.send(&request[..split]);
        // Gives the server the chance to read the first part alone; nothing depends on it.
        std::thread::sleep(Duration::from_micros(200));
        exchange(&mut client, &request[split..], expected);
    }
    for byte in &request[..request.len() - 1] {
        client.send(&[*byte]);
    }
    exchange(&mut client, b"\n", expected);
}

#[test]
fn hello_switches_the_version_for_the_replies_after_it() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 2 1 0 a", ":1")]);
    client.send(b"VISMEMBER k a\r\nHELLO 3\r\nVISMEMBER k a\r\nVINFO none\r\nHELLO 2\r\nVISMEMBER k a\r\nVINFO none\r\n");
    let mut next = |protocol: u8| {
        client.protocol = protocol;
        let (value, bytes) = client.try_read().unwrap();
        (value, String::from_utf8_lossy(&bytes).into_owned())
    };
    assert_eq!(next(2).1, ":1\r\n");
    let (hello, bytes) = next(3);
    assert!(bytes.starts_with("%7\r\n"), "{bytes}");
    assert_eq!((hello.field("server").text().as_str(), hello.field("proto")), ("redis", &Value::Integer(3)));
    assert_eq!(next(3).1, "#t\r\n");
    assert_eq!(next(3).1, "_\r\n");
    let (hello, bytes) = next(2);
    assert!(bytes.starts_with("*14\r\n"), "{bytes}");
    assert_eq!(hello.field("proto"), &Value::Integer(2));
    assert_eq!(next(2).1, ":1\r\n");
    assert_eq!(next(2).1, "*-1\r\n");

    client.protocol = 2;
    client.check(&[("HELLO 4", "-NOPROTO unsupported protocol version"), ("VISMEMBER k a", ":1")]);
    assert!(client.ask("HELLO x").starts_with("-ERR Protocol version is not an integer"));
    let named = client.ask("HELLO 2 SETNAME tester");
    assert!(named.starts_with("[server redis"), "{named}");
    client.check(&[("CLIENT GETNAME", "tester")]);
}

#[test]
fn protocol_errors_are_answered_and_close_the_connection() {
    let server = Server::start(&[]);
    let long = |start: &str, byte: &str| [start.as_bytes(), byte.repeat(70_000).as_bytes()].concat();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (b"*2147483648\r\n".to_vec(), "invalid multibulk length"),
        (b"*1048577\r\n".to_vec(), "invalid multibulk length"),
        (b"*many\r\n".to_vec(), "invalid multibulk length"),
        (b"*1\r\n+PING\r\n".to_vec(), "expected '$', got '+'"),
        (b"*1\r\n*1\r\n$4\r\nPING\r\n".to_vec(), "expected '$', got '*'"),
        (b"*1\r\n$9999999999\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$536870913\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$-1\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$four\r\n".to_vec(), "invalid bulk length"),
        (b"ECHO \"open\r\n".to_vec(), "unbalanced quotes in request"),
        (b"ECHO \"a\"b\r\n".to_vec(), "unbalanced quotes in request"),
        (long("", "a"), "too big inline request"),
        (long("*", "1"), "too big mbulk count string"),
        (long("*1\r\n$", "1"), "too big bulk count string"),
    ];
    for (sent, error) in table {
        let mut client = server.connect();
        let sent = [b"PING\r\n", sent.as_slice()].concat();
        client.stream.write_all(&sent).unwrap();
        let shown: String = sent.escape_ascii().to_string().chars().take(60).collect();
        assert_eq!(client.read().to_string(), "+PONG", "{shown}");
        assert_eq!(client.read().to_string(), format!("-ERR Protocol error: {error}"), "{shown}");
        assert!(client.is_closed(), "{shown}");
    }
    for sent in ["POST / HTTP/1.1\r\n", "Host: localhost\r\n"] {
        let mut client = server.connect();
        client.send(sent.as_bytes());
        assert!(client.is_closed(), "{sent}");
    }
}

#[test]
fn limits_are_low_before_authentication() {
    let server = Server::start(&["--requirepass", "secret"]);
    let refused = |request: &[u8], error: &str| {
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.read().to_string(), format!("-ERR Protocol error: {error}"));
        assert!(client.is_closed());
    };
    refused(b"*11\r\n", "unauthenticated multibulk length");
    refused(b"*1\r\n$16385\r\n", "unauthenticated bulk length");

    let mut client = server.connect();
    let mut longest = command(&["ECHO"; 10]);
    longest[9] = vec![b'x'; 16_384];
    let reply = client.call(&longest).to_string();
    assert!(reply.starts_with('-') && !reply.contains("Protocol"), "{reply}");
    // The limits fall with AUTH, also for what follows it in the same write.
    let mut request = b"AUTH secret\r\n".to_vec();
    encode(&command(&[b"ECHO".to_vec(), vec![b'x'; 100_000]]), &mut request);
    encode(&command(&["DEL"; 1000]), &mut request);
    client.send(&request);
    assert_eq!(client.read().to_string(), "+OK");
    assert_eq!(client.read(), Value::Bulk(vec![b'x'; 100_000]));
    assert_eq!(client.read().to_string(), ":0");
}

#[test]
fn authentication() {
    const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
    let server = Server::start(&["--requirepass", "secret"]);
    let mut client = server.connect();
    client.check(&[
        ("PING", "-NOAUTH Authentication required."),
        ("VADD k VALUES 1 1 a", "-NOAUTH Authentication required."),
        ("AUTH wrong", WRONG),
        ("AUTH default wrong", WRONG),
        ("AUTH nobody secret", WRONG),
        ("HELLO 3 AUTH default wrong", WRONG),
        ("PING", "-NOAUTH Authentication required."),
    ]);
    let hello = client.ask("HELLO 3");
    assert!(
        hello.starts_with("-NOAUTH HELLO must be called with the client already authenticated"),
        "{hello}"
    );
    client.check(&[("AUTH secret", "+OK"), ("PING", "+PONG"), ("AUTH wrong", WRONG), ("PING", "+PONG")]);
    let mut client = server.connect();
    client.protocol = 3;
    let hello = client.call(&words("hello 3 auth default secret setname me"));
    assert_eq!(hello.field("proto"), &Value::Integer(3), "{hello}");
    client.check(&[("CLIENT GETNAME", "me")]);
    let shown = client.ask("CONFIG GET *") + &client.ask("INFO") + &server.output();
    assert!(!shown.contains("secret"), "the password shows");
    let mut client = server.connect();
    client.check(&[("AUTH default secret", "+OK"), ("PING", "+PONG")]);

    let server = Server::start(&[]);
    let mut client = server.connect();
    let unasked = client.ask("AUTH x");
    assert!(unasked.starts_with("-ERR AUTH <password> called without any password configured"), "{unasked}");
    client.check(&[("AUTH default anything", "+OK"), ("AUTH a b c", "-ERR syntax error")]);
}

#[test]
fn unknown_commands_and_wrong_argument_counts() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("nonsense", "-ERR unknown command 'nonsense', with args beginning with: "),
        ("nonsense a b", "-ERR unknown command 'nonsense', with args beginning with: 'a' 'b' "),
        ("CLIENT FOO", "-ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
        ("echo", "-ERR wrong number of arguments for 'echo' command"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command"),
        ("vcard", "-ERR wrong number of arguments for 'VCARD' command"),
        ("VCARD a b", "-ERR wrong number of arguments for 'VCARD' command"),
        ("PING", "+PONG"),
    ]);
    let long = client.ask(&format!("{} {}", "n".repeat(5000), "a".repeat(50_000)));
    assert!(long.starts_with("-ERR unknown command") && long.len() < 1000, "{}", long.len());
    let lines = client.call(&command(&["a\r\n+OK", "b\nc"])).to_string();
    assert!(lines.starts_with("-ERR unknown command") && !lines.contains('\n'), "{lines:?}");
}

#[test]
fn commands_about_the_connection() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("PING", "+PONG"),
        ("PING hi", "hi"),
        ("ECHO ''", "''"),
        ("CLIENT GETNAME", "nil"),
        ("CLIENT SETNAME me", "+OK"),
        ("CLIENT GETNAME", "me"),
        ("CLIENT SETINFO LIB-NAME test", "+OK"),
        ("client setinfo lib-ver 1.2", "+OK"),
        ("SELECT 0", "+OK"),
        ("SELECT 1", "-ERR DB index is out of range"),
        ("DBSIZE", ":0"),
    ]);
    assert!(client.ask("CLIENT SETNAME 'a b'").starts_with("-ERR Client names cannot contain spaces"));
    assert!(client.ask("SELECT x").starts_with("-ERR"));
    let id = client.ask("CLIENT ID");
    assert_ne!(server.connect().ask("CLIENT ID"), id);
    let info = client.ask("CLIENT INFO");
    for part in
        [&format!("id={} ", &id[1..]), "name=me ", "lib-name=test ", "lib-ver=1.2", "resp=2 ", "db=0 "]
    {
        assert!(info.contains(part), "{part} in {info}");
    }
    client.check(&[("QUIT", "+OK")]);
    assert!(client.is_closed());
    let mut client = server.connect();
    client.send(b"PING\r\nQUIT\r\nPING\r\n");
    assert_eq!(
        (client.read().to_string(), client.read().to_string()),
        ("+PONG".to_owned(), "+OK".to_owned())
    );
    assert!(client.is_closed());
}

#[test]
fn the_command_table_is_told() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let all = client.call(&words("COMMAND"));
    assert_eq!(client.ask("COMMAND COUNT"), format!(":{}", all.items().len()));
    let info = client.call(&words("COMMAND INFO vadd nonsense get"));
    let vadd = &info.items()[0].items();
    assert_eq!(vadd[0].text().to_uppercase(), "VADD");
    assert_eq!(vadd[1], Value::Integer(-5));
    assert_eq!([&vadd[3], &vadd[4], &vadd[5]], [&Value::Integer(1); 3]);
    assert!(vadd[2].items().iter().any(|flag| flag.text() == "write"), "{}", vadd[2]);
    assert_eq!(info.items()[1], Value::Null);
    let docs = client.call(&words("COMMAND DOCS VSIM"));
    let vsim = &docs.items()[1];
    for name in ["summary", "since", "group"] {
        assert!(!vsim.field(name).text().is_empty(), "{docs}");
    }
    let mut client = server.connect_resp3();
    let docs = client.call(&words("COMMAND DOCS"));
    assert!(matches!(&docs, Value::Map(pairs) if pairs.len() == all.items().len()), "{docs}");
}

#[test]
fn info_and_config() {
    let server = Server::start(&["--maxclients", "123"]);
    let mut client = server.connect();
    assert!(client.raw("INFO").starts_with('$'));
    client.check(&[("CONFIG GET maxclients", "[maxclients 123]"), ("CONFIG GET nothing", "[]")]);
    let several = client.call(&words("CONFIG GET appendfsync maxcl*"));
    assert_eq!(several.field("appendfsync").text(), "everysec");
    assert_eq!(several.field("maxclients").text(), "123");

    let mut client = server.connect_resp3();
    assert_eq!(client.ask("CONFIG GET maxclients"), "{maxclients=>123}");
    assert!(client.raw("INFO").starts_with('='));
    assert!(client.raw("CLIENT INFO").starts_with('='));
    let info = client.ask("INFO");
    for name in
        ["redis_version:", "tcp_port:", "connected_clients:", "used_memory:", "total_commands_processed:"]
    {
        assert!(info.contains(&format!("\r\n{name}")), "{name} in {info}");
    }
    assert!(info.contains("loading:0\r\n") && info.starts_with("=# "), "{info}");
    let section = client.ask("INFO server");
    assert!(section.contains("redis_version:") && !section.contains("used_memory:"), "{section}");
}

#[test]
fn a_mixed_stream_as_redis_cli_sends_it() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut stream = Vec::new();
    for index in 0..1000 {
        if index % 2 == 0 {
            stream.extend_from_slice(format!("VADD k VALUES 2 {index} 1 e{index}\r\n").as_bytes());
        } else {
            encode(&words(&format!("VADD k VALUES 2 {index} 1 e{index}")), &mut stream);
        }
    }
    stream.extend_from_slice(b"\r\n*2\r\n$4\r\nECHO\r\n$20\r\n01234567890123456789\r\n");
    client.send(&stream);
    for _ in 0..1000 {
        assert_eq!(client.read().to_string(), ":1");
    }
    assert_eq!(client.read().to_string(), "01234567890123456789");
    client.check(&[("VCARD k", ":1000")]);
}

#[test]
fn hostile_streams_neither_crash_nor_grow_the_server() {
    let server = Server::start(&[]);
    server.connect().check(&[("PING", "+PONG")]);
    let before = server.memory_bytes("VmRSS");
    let hostile: [Vec<u8>; 6] = [
        b"*1\r\n".repeat(1_000_000),
        b"*2147483648\r\n".to_vec(),
        b"*1048576\r\n$9999999999\r\n".to_vec(),
        b"*1\r\n$-1\r\n".to_vec(),
        b"\r\n".repeat(4_000_000),
        [b"*-1\r\n".repeat(100_000), vec![b'('; 100_000]].concat(),
    ];
    for bytes in &hostile {
        let mut client = server.connect();
        // The server may close before it has taken all.
        let _ = client.stream.write_all(bytes);
        server.connect().check(&[("PING", "+PONG")]);
    }
    // Begun requests: announced lengths take no memory.
    let halves: Vec<Client> = (0..400)
        .map(|index| {
            let mut client = server.connect();
            client.send(if index % 2 == 0 {
                b"*1048576\r\n$3\r\nDEL\r\n$1"
            } else {
                b"*2\r\n$4\r\nECHO\r\n$536870912\r\nabc"
            });
            client
        })
        .collect();
    let mut client = server.connect();
    client.check(&[("PING", "+PONG")]);
    let nested = format!("VSIM k VALUES 2 1 0 FILTER {}", "(".repeat(100_000));
    client.check(&[("VADD k VALUES 2 1 0 a", ":1")]);
    assert!(client.ask(&nested).starts_with("-ERR"));
    drop(halves);
    let growth = server.memory_bytes("VmHWM").saturating_sub(before);
    assert!(growth < HOSTILE_GROWTH_BYTES_MAX, "{growth} bytes more");
}

#[test]
fn a_million_pipelined_commands_with_a_slow_reader() {
    const COMMANDS: usize = 1_000_000;
    let server = Server::start(&[]);
    server.connect().check(&[("PING", "+PONG")]);
    let before = server.memory_bytes("VmRSS");
    let mut client = server.connect();
    let mut writer = client.stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || writer.write_all(&b"*1\r\n$4\r\nPING\r\n".repeat(COMMANDS)).unwrap());
        let mut chunk = vec![0; 16 << 10];
        let mut received = 0;
        while received < COMMANDS * "+PONG\r\n".len() {
            let read = client.stream.read(&mut chunk).unwrap();
            assert_ne!(read, 0, "closed after {received} bytes");
            received += read;
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(received, COMMANDS * "+PONG\r\n".len());
    });
    let growth = server.memory_bytes("VmHWM").saturating_sub(before);
    assert!(growth < HOSTILE_GROWTH_BYTES_MAX, "{growth} bytes more");
}

#[test]
fn a_client_that_never_reads_is_disconnected() {
    let server = Server::start(&[]);
    let mut deaf = server.connect();
    deaf.check(&[("PING", "+PONG")]);
    let before = server.memory_bytes("VmRSS");
    let mut echo = Vec::new();
    encode(&command(&[b"ECHO".to_vec(), vec![b'x'; 1 << 20]]), &mut echo);
    let sent = (0..400).take_while(|_| deaf.stream.write_all(&echo).is_ok()).count();
    assert!(sent < 400, "the server took {sent} MiB and kept the replies");
    server.connect().check(&[("PING", "+PONG")]);
    let growth = server.memory_bytes("VmHWM").saturating_sub(before);
    assert!(growth < OUTPUT_BYTES_MAX + HOSTILE_GROWTH_BYTES_MAX, "{growth} bytes more");
}
