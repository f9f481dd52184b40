//! Keys that go by themselves: the EXPIRE family, TTL and kin, PERSIST, and what is seen of a key whose time is over.

#![allow(clippy::unwrap_used)]

mod common;

use std::thread::sleep;
use std::time::Duration;

use common::{Client, Server, words};

/// A moment far away, unix milliseconds, that does not end in whole seconds.
const FAR_MS: u64 = 33_177_117_420_500;
const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

fn add(key: &str) -> String {
    format!("VADD {key} VALUES 2 1 0 a")
}

/// Makes a key whose time is over when this returns.
fn make_expired(client: &mut Client, key: &str) {
    client.check(&[(&add(key), ":1"), (&format!("PEXPIRE {key} 2"), ":1")]);
    sleep(Duration::from_millis(3));
}

#[test]
fn expire_sets_a_time() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let at = |command: &str, moment: u64| format!("{command} k {moment}");
    client.check(&[
        ("EXPIRE k 10", ":0"),
        ("TTL k", ":-2"),
        ("PTTL k", ":-2"),
        ("EXPIRETIME k", ":-2"),
        ("PEXPIRETIME k", ":-2"),
        ("PERSIST k", ":0"),
        (&add("k"), ":1"),
        ("TTL k", ":-1"),
        ("PTTL k", ":-1"),
        ("EXPIRETIME k", ":-1"),
        ("PEXPIRETIME k", ":-1"),
        ("PERSIST k", ":0"),
        (&at("PEXPIREAT", FAR_MS), ":1"),
        ("PEXPIRETIME k", &format!(":{FAR_MS}")),
        ("EXPIRETIME k", &format!(":{}", FAR_MS / 1000 + 1)),
        (&at("PEXPIREAT", FAR_MS - 1), ":1"),
        ("EXPIRETIME k", &format!(":{}", FAR_MS / 1000)),
        (&at("EXPIREAT", FAR_MS / 1000), ":1"),
        ("PEXPIRETIME k", &format!(":{}", FAR_MS / 1000 * 1000)),
        // Neither writes nor other keys touch it.
        (&add("k"), ":0"),
        ("VSETATTR k a x", ":1"),
        ("PEXPIRETIME k", &format!(":{}", FAR_MS / 1000 * 1000)),
        ("PERSIST k", ":1"),
        ("TTL k", ":-1"),
        ("PERSIST k", ":0"),
        (&at("PEXPIREAT", FAR_MS), ":1"),
        ("DEL k", ":1"),
        (&add("k"), ":1"),
        ("TTL k", ":-1"),
    ]);
    // A time that is over removes the key.
    for line in
        ["EXPIRE k 0", "EXPIRE k -1", "PEXPIRE k -5", "EXPIREAT k 0", "EXPIREAT k 1", "PEXPIREAT k -1"]
    {
        client.check(&[(line, ":1"), ("EXISTS k", ":0"), (&add("k"), ":1"), ("TTL k", ":-1")]);
    }
}

#[test]
fn ttl_is_rounded() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[(&add("k"), ":1")]);
    let rounded = |milliseconds: f64| ((milliseconds + 500.0) / 1000.0).floor();
    for milliseconds in [1_000_100, 1_000_499, 1_000_700, 1_000_999, 400] {
        client.check(&[(&format!("PEXPIRE k {milliseconds}"), ":1")]);
        let mut pttl = || client.call(&words("PTTL k")).number();
        let before = pttl();
        let ttl = client.call(&words("TTL k")).number();
        let after = client.call(&words("PTTL k")).number();
        assert!(before <= f64::from(milliseconds) && before > 0.0);
        assert!((rounded(after)..=rounded(before)).contains(&ttl), "{after} {ttl} {before}");
    }
    client.check(&[("EXPIRE k 1000", ":1")]);
    let pttl = client.call(&words("PTTL k")).number();
    assert!((0.0..=1_000_000.0).contains(&pttl), "{pttl}");
}

#[test]
fn expire_conditions() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[(&add("k"), ":1")]);
    let far = FAR_MS.to_string();
    // (with an expiry at FAR_MS or none, moment, condition) -> whether it is set.
    let (sooner, later) = (FAR_MS - 1, FAR_MS + 1);
    let table = [
        (false, sooner, "NX", true),
        (true, sooner, "NX", false),
        (false, sooner, "XX", false),
        (true, sooner, "XX", true),
        (false, later, "GT", false),
        (true, sooner, "GT", false),
        (true, FAR_MS, "GT", false),
        (true, later, "GT", true),
        (false, sooner, "LT", true),
        (true, sooner, "LT", true),
        (true, FAR_MS, "LT", false),
        (true, later, "LT", false),
        (false, later, "XX GT", false),
        (true, later, "xx gt", true),
        (true, sooner, "GT XX", false),
        (true, sooner, "XX LT", true),
        (false, sooner, "XX LT", false),
        (true, sooner, "XX XX", true),
    ];
    for (expires, moment, condition, is_set) in table {
        client.ask("PERSIST k");
        if expires {
            client.check(&[(&format!("PEXPIREAT k {far}"), ":1")]);
        }
        let line = format!("PEXPIREAT k {moment} {condition}");
        assert_eq!(client.ask(&line), format!(":{}", i32::from(is_set)), "{line} with {expires}");
        let expected = match (is_set, expires) {
            (true, _) => moment.to_string(),
            (false, true) => far.clone(),
            (false, false) => "-1".to_owned(),
        };
        assert_eq!(client.ask("PEXPIRETIME k"), format!(":{expected}"), "{line}");
    }
    // A time that is over, refused or not.
    client.check(&[("PERSIST k", ":1"), ("EXPIRE k -1 GT", ":0"), ("EXPIRE k -1 XX", ":0")]);
    client.check(&[("EXISTS k", ":1"), ("EXPIRE k -1 LT", ":1"), ("EXISTS k", ":0")]);
}

#[test]
fn expire_refuses() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[(&add("k"), ":1")]);
    const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
    const WITH_NX: &str = "-ERR NX and XX, GT or LT options at the same time are not compatible";
    client.check(&[
        ("EXPIRE k x", NOT_INTEGER),
        ("EXPIRE k 1.5", NOT_INTEGER),
        ("EXPIRE k ''", NOT_INTEGER),
        ("PEXPIREAT k 9223372036854775808", NOT_INTEGER),
        ("EXPIRE no x", NOT_INTEGER),
        ("EXPIRE k 9223372036854775807", "-ERR invalid expire time in 'expire' command"),
        ("EXPIREAT k 9223372036854775807", "-ERR invalid expire time in 'expireat' command"),
        ("PEXPIRE k 9223372036854775807", "-ERR invalid expire time in 'pexpire' command"),
        ("EXPIRE k -9223372036854775808", "-ERR invalid expire time in 'expire' command"),
        ("EXPIRE k 10 YY", "-ERR Unsupported option YY"),
        ("EXPIRE k 10 NX XX", WITH_NX),
        ("EXPIRE k 10 GT NX", WITH_NX),
        ("EXPIRE k 10 LT GT", "-ERR GT and LT options at the same time are not compatible"),
        ("EXPIRE k", "-ERR wrong number of arguments for 'expire' command"),
        ("TTL", "-ERR wrong number of arguments for 'ttl' command"),
        ("PERSIST k x", "-ERR wrong number of arguments for 'persist' command"),
        ("TTL k", ":-1"),
    ]);
}

/// Commands about the key `k` and their replies when there is no such key.
const WITHOUT_KEY: &[(&str, &str)] = &[
    ("EXISTS k", ":0"),
    ("TYPE k", "+none"),
    ("TTL k", ":-2"),
    ("PTTL k", ":-2"),
    ("EXPIRETIME k", ":-2"),
    ("PEXPIRETIME k", ":-2"),
    ("KEYS *", "[]"),
    ("SCAN 0 COUNT 100", "[0 []]"),
    ("RANDOMKEY", "nil"),
    ("VLIST", "[]"),
    ("OBJECT ENCODING k", "nil"),
    ("MEMORY USAGE k", "nil"),
    ("DEBUG DIGEST-VALUE k", "[+0000000000000000000000000000000000000000]"),
    ("VCARD k", ":0"),
    ("VDIM k", "-ERR key does not exist"),
    ("VEMB k a", "nil"),
    ("VGETATTR k a", "nil"),
    ("VISMEMBER k a", ":0"),
    ("VINFO k", "nil"),
    ("VSIM k ELE a", "[]"),
    ("VLINKS k a", "nil"),
    ("VRANDMEMBER k", "nil"),
    ("VRANDMEMBER k -2", "[]"),
    ("VRANGE k - +", "[]"),
    ("VSCAN k 0", "[0 []]"),
    ("VCOUNT k", ":0"),
    ("VGET k a", "nil"),
    // These write.
    ("VREM k a", ":0"),
    ("VSETATTR k a x", ":0"),
    ("PERSIST k", ":0"),
    ("EXPIRE k 100", ":0"),
    ("DEL k", ":0"),
    ("UNLINK k", ":0"),
    ("RENAME k other", "-ERR no such key"),
    ("VADD k VALUES 3 1 2 3 b", ":1"),
    ("VCREATE k DIM 5", "+OK"),
];

#[test]
fn what_has_expired_is_gone_for_every_command() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    for (line, expected) in WITHOUT_KEY {
        make_expired(&mut client, "k");
        assert_eq!(client.ask(line), *expected, "{line}");
        client.ask("FLUSHALL");
        if line.starts_with("DEBUG") {
            continue;
        }
        make_expired(&mut client, "k");
        let replies = client.pipeline(&[words("MULTI"), words(line), words("EXEC")]);
        assert_eq!(replies[2].to_string(), format!("[{expected}]"), "{line} in a transaction");
        client.ask("FLUSHALL");
    }
    // What is written after it is a new set, without the old elements, attributes and expiry.
    make_expired(&mut client, "k");
    client.check(&[
        ("VADD k VALUES 3 1 2 3 b BIN", ":1"),
        ("VCARD k", ":1"),
        ("VISMEMBER k a", ":0"),
        ("TTL k", ":-1"),
    ]);
    // The server removes it by itself.
    make_expired(&mut client, "old");
    let begin = std::time::Instant::now();
    while client.ask("DBSIZE") != ":1" {
        assert!(begin.elapsed() < common::WAIT_MAX);
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_has_expired_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for index in 0..20 {
        client.check(&[(&add(&format!("k{index}")), ":1"), (&format!("PEXPIRE k{index} 30"), ":1")]);
        if index == 9 {
            client.check(&[("SAVE", "+OK")]);
        }
    }
    client.check(&[
        (&add("stays"), ":1"),
        (&format!("PEXPIREAT stays {FAR_MS}"), ":1"),
        (&add("kept"), ":1"),
        ("PEXPIRE kept 100000", ":1"),
        ("PERSIST kept", ":1"),
    ]);
    server.kill9();
    sleep(Duration::from_millis(31));
    for life in 0..3 {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        let exists: Vec<String> = (0..20).map(|index| format!("k{index}")).collect();
        client.check(&[
            (&format!("EXISTS {}", exists.join(" ")), ":0"),
            ("VCARD k3", ":0"),
            ("VISMEMBER k15 a", ":0"),
            ("PEXPIRETIME stays", &format!(":{FAR_MS}")),
            ("TTL kept", ":-1"),
            ("VCARD kept", ":1"),
        ]);
        match life {
            0 => client.check(&[("VADD k3 VALUES 2 5 5 new", ":1"), ("VCARD k3", ":1"), ("DEL k3", ":1")]),
            1 => client.check(&[("SAVE", "+OK")]),
            _ => {}
        }
        server.kill9();
    }
}

#[test]
fn a_set_made_after_an_expiry_is_the_new_one_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for key in ["k", "made"] {
        make_expired(&mut client, key);
    }
    client.check(&[("VADD k VALUES 3 1 2 3 b", ":1"), ("VCREATE made DIM 9 METRIC IP", "+OK")]);
    server.kill9();
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect();
        client.check(&[
            ("VCARD k", ":1"),
            ("VEMB k b", "[1 2 3]"),
            ("TTL k", ":-1"),
            ("VCARD made", ":0"),
            ("VDIM made", ":9"),
            ("SAVE", "+OK"),
        ]);
        server.kill9();
    }
}
