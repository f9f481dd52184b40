//! Cases at the edges that once were wrong: memory of tiny collections, replies that are switched off, keys that expire while
//! they are watched, settings that are changed at the same time.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::{Command, Server, Value, WAIT_MAX, command, encode, fp32, vadd, words};

fn used_memory(server: &Server) -> f64 {
    std::thread::sleep(Duration::from_millis(300));
    let info = server.connect().ask("INFO memory");
    info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap()
}

/// keys.rs
#[test]
fn memory_usage_of_tiny_collections_is_true() {
    let server = Server::start(&[]);
    // Buffers that such writes leave behind are there before.
    server
        .connect()
        .pipeline(&(0..300).map(|at| vadd("warm", &[1.0; 8], &format!("e{at}"), "")).collect::<Vec<_>>());
    server.connect().ask("FLUSHALL");
    let before = used_memory(&server);
    let mut client = server.connect();
    for part in (0..2000).collect::<Vec<_>>().chunks(100) {
        let adds: Vec<Command> = part
            .iter()
            .flat_map(|key| {
                (0..3).map(move |index| vadd(&format!("tiny:{key}"), &[1.0; 8], &format!("e{index}"), ""))
            })
            .collect();
        client.pipeline(&adds);
    }
    drop(client);
    let growth = used_memory(&server) - before;
    let questions: Vec<Command> = (0..2000).map(|key| words(&format!("MEMORY USAGE tiny:{key}"))).collect();
    let told: f64 = server.connect().pipeline(&questions).iter().map(Value::number).sum();
    assert!((told - growth).abs() <= 0.05 * growth, "told {told}, grown by {growth}");
}

/// transactions.rs
#[test]
fn a_transaction_that_watch_fails_does_nothing() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    client.check(&[("WATCH k", "+OK")]);
    other.check(&[("VADD k VALUES 1 1 a", ":1")]);
    client.check(&[
        ("MULTI", "+OK"),
        ("CONFIG SET maxclients 77", "+QUEUED"),
        ("CLIENT SETNAME ghost", "+QUEUED"),
        ("EXEC", "nil"),
        ("CLIENT GETNAME", "nil"),
        ("CONFIG GET maxclients", "[maxclients 10000]"),
    ]);
}

/// keys.rs
#[test]
fn expiry_counts_for_watch() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for _ in 0..20 {
        client.check(&[("VADD k VALUES 1 1 a", ":1"), ("PEXPIRE k 20", ":1"), ("WATCH k", "+OK")]);
        std::thread::sleep(Duration::from_millis(21));
        client.check(&[("MULTI", "+OK"), ("PING", "+QUEUED"), ("EXEC", "nil")]);
    }
}

/// elements.rs
#[test]
fn vscan_ends_while_elements_are_updated() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let add = |index| words(&format!("VADD k VALUES 1 1 e{index}"));
    client.pipeline(&(0..100).map(add).collect::<Vec<_>>());
    let (mut cursor, mut pages) = ("0".to_owned(), 0);
    loop {
        let page = client.call(&words(&format!("VSCAN k {cursor} COUNT 10")));
        cursor = page.items()[0].text();
        pages += 1;
        if cursor == "0" {
            return;
        }
        assert!(pages < 1000, "no end");
        client.pipeline(&(0..12).map(add).collect::<Vec<_>>());
    }
}

/// collections.rs
#[test]
fn vmadd_takes_empty_attributes_as_vadd_does() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 1 1 a SETATTR x", ":1")]);
    let mut line = words("VMADD k 1 DIM 1 FP32");
    line.extend(command(&[&fp32(&[1.0])[..], b"a", b"ATTRS", b""]));
    assert_eq!(client.call(&line), Value::Integer(0));
    client.check(&[("VGETATTR k a", "nil")]);
}

/// admin.rs
#[test]
fn config_sets_at_the_same_time_are_all_kept() {
    let server = Server::start(&[]);
    std::thread::scope(|scope| {
        for option in ["tcp-keepalive", "auto-aof-rewrite-percentage"] {
            let mut client = server.connect();
            scope.spawn(move || {
                for value in 1..3000 {
                    client.check(&[
                        (&format!("CONFIG SET {option} {value}"), "+OK"),
                        (&format!("CONFIG GET {option}"), &format!("[{option} {value}]")),
                    ]);
                }
            });
        }
    });
}

/// admin.rs
#[test]
fn client_reply_skip_keeps_what_off_began() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.send(b"CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nECHO a\r\nECHO b\r\nCLIENT REPLY ON\r\n");
    assert_eq!(client.read().to_string(), "+OK");
    client.send(b"CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nECHO a\r\nECHO b\r\n");
    assert_eq!(client.read().to_string(), "b");
}

/// admin.rs: hangs for a minute when it fails.
#[test]
fn a_changed_timeout_holds_for_connections_that_are_there() {
    let server = Server::start(&[]);
    let (mut client, mut idle) = (server.connect(), server.connect());
    idle.check(&[("PING", "+PONG")]);
    client.check(&[("CONFIG SET timeout 1", "+OK")]);
    idle.check(&[("PING", "+PONG")]);
    assert!(idle.is_closed());
}

/// keys.rs
#[test]
fn info_counts_keys_that_expire() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 1 1 a", ":1"), ("EXPIRE k 1000", ":1")]);
    assert!(client.ask("INFO keyspace").contains("keys=1,expires=1"), "{}", client.ask("INFO keyspace"));
}

/// Writes look at their key too, but only readers count, as in Redis.
#[test]
fn info_counts_keys_that_were_found_and_missed() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 1 1 a", ":1"), ("VCARD k", ":1"), ("VCARD none", ":0")]);
    client.check(&[("EXISTS k none k", ":2"), ("VSEARCH k VECTOR ELE a LIMIT 0 0", "[results []]")]);
    client.ask("VSIM k TEXT word");
    let stats = client.ask("INFO stats");
    assert!(stats.contains("keyspace_hits:5\r\nkeyspace_misses:2"), "{stats}");
}

/// admin.rs
#[test]
fn clients_that_leave_more_unread_than_the_limit_are_disconnected() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let long = command(&["ECHO", &"x".repeat(200 << 10)]);
    let mut bytes = Vec::new();
    encode(&long, &mut bytes);
    client.check(&[("CONFIG SET client-output-buffer-limit 'normal 100kb 0 0'", "+OK"), ("PING", "+PONG")]);
    let mut over = server.connect();
    over.send(&bytes);
    assert!(over.is_closed());
    client.check(&[("CONFIG SET client-output-buffer-limit 'normal 0 100kb 1'", "+OK")]);
    let mut slow = server.connect();
    assert_eq!(slow.call(&long).text().len(), 200 << 10, "who reads is served");
    // More than the system keeps for a socket.
    slow.send(&bytes.repeat(100));
    let begin = std::time::Instant::now();
    while client.ask("CLIENT LIST").lines().count() > 1 {
        assert!(begin.elapsed() < WAIT_MAX);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert!(client.ask("INFO stats").contains("client_output_buffer_limit_disconnections:2"));
}

/// keys.rs
#[test]
fn expire_looks_at_options_first() {
    let server = Server::start(&[]);
    server.connect().check(&[("EXPIRE k x FOO", "-ERR Unsupported option FOO")]);
}

/// A key stands in every change of a record: a small request could ask for a huge one.
#[test]
fn a_command_whose_record_is_too_large_is_refused_and_nothing_else_suffers() {
    const ROWS: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[("VADD before VALUES 1 1 e", ":1")]);
    let key = vec![b'k'; 64 << 10];
    let mut parts: Vec<Vec<u8>> = vec![b"VMADD".to_vec(), key, ROWS.to_string().into_bytes()];
    parts.extend([b"DIM".to_vec(), b"1".to_vec(), b"FP32".to_vec(), fp32(&vec![1.0; ROWS])]);
    parts.extend((0..ROWS).map(|row| row.to_string().into_bytes()));
    let reply = client.call(&command(&parts)).to_string();
    assert!(reply.starts_with("-ERR") && reply.contains("record"), "{reply}");
    client.check(&[("DBSIZE", ":1"), ("VADD after VALUES 1 1 e", ":1"), ("VCARD after", ":1")]);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    server.connect().check(&[("VCARD before", ":1"), ("VCARD after", ":1"), ("DBSIZE", ":2")]);
}
