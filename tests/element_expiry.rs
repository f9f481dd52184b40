//! Elements that go by themselves: VADD EX, VEXPIRE, VTTL, and what is seen of one whose time is over.

#![allow(clippy::unwrap_used)]

mod common;

use std::thread::sleep;
use std::time::Duration;

use common::{Client, Server};

const FAR: &str = "VEXPIRE k a 1000000";

/// Long enough for `EX 1` to be over.
fn wait() {
    sleep(Duration::from_millis(1050));
}

fn expires_ms(client: &mut Client, element: &str) -> Option<u64> {
    let shown = client.ask(&format!("VGET k {element}"));
    shown.split("expires_ms :").nth(1).map(|rest| rest.trim_end_matches(']').parse().unwrap())
}

#[test]
fn an_elements_time_is_set_shown_and_cleared() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a EX 100", ":1"),
        ("VADD k VALUES 2 0 1 b", ":1"),
        ("VTTL k a", ":100"),
        ("VTTL k b", ":-1"),
        ("VTTL k no", ":-2"),
        ("VTTL no a", ":-2"),
        ("VEXPIRE k b 7", ":1"),
        ("VTTL k b", ":7"),
        ("VEXPIRE k no 7", ":0"),
        ("VEXPIRE no b 7", ":0"),
        ("VSETATTR k b '{}'", ":1"),
        ("VTTL k b", ":7"),
        ("VADD k VALUES 2 0 1 b", ":0"),
        ("VTTL k b", ":-1"),
        (FAR, ":1"),
        ("RENAME k l", "+OK"),
        ("VTTL l a", ":1000000"),
        ("RENAME l k", "+OK"),
        ("VEXPIRE k b 0", ":1"),
        ("VCARD k", ":1"),
        ("VEXPIRE k a -1", ":1"),
        ("EXISTS k", ":0"),
    ]);
    client.check(&[("VADD k VALUES 2 1 0 a EX 50", ":1")]);
    assert!(expires_ms(&mut client, "a").unwrap() > 1_700_000_000_000);
    client.check(&[("VADD k VALUES 2 1 0 a", ":0"), ("VGET k a", "[id a]")]);
}

#[test]
fn what_is_no_time_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for seconds in ["0", "-1", "x", "1.5", "9223372036854775807"] {
        let refusal = "-ERR invalid expire time in 'vadd' command";
        client.check(&[(&format!("VADD k VALUES 2 1 0 a EX {seconds}"), refusal)]);
    }
    client.check(&[
        ("VADD k VALUES 2 1 0 a EX", "-ERR invalid option after element"),
        ("EXISTS k", ":0"),
        ("VEXPIRE k a x", "-ERR value is not an integer or out of range"),
        ("VEXPIRE k a 9223372036854775807", "-ERR invalid expire time in 'vexpire' command"),
    ]);
}

#[test]
fn an_element_whose_time_is_over_is_gone_for_every_command() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a EX 1 SETATTR '{\"n\":1}' SETTEXT t", ":1"),
        ("VADD k VALUES 2 0 1 b SETATTR '{\"n\":1}'", ":1"),
        ("VADD alone VALUES 2 0 1 a EX 1", ":1"),
        ("VADD again VALUES 2 0 1 a EX 1 SETATTR '{\"n\":1}'", ":1"),
    ]);
    wait();
    client.check(&[
        ("VCARD k", ":1"),
        ("VISMEMBER k a", ":0"),
        ("VGET k a", "nil"),
        ("VEMB k a", "nil"),
        ("VGETATTR k a", "nil"),
        ("VTTL k a", ":-2"),
        ("VSIM k VALUES 2 1 0", "[b]"),
        ("VSIM k VALUES 2 1 0 FILTER '.n == 1'", "[b]"),
        ("VSCAN k 0 COUNT 10", "[0 [b]]"),
        ("VRANGE k - +", "[b]"),
        ("VCOUNT k FILTER '{\"n\":1}'", ":1"),
        ("VSETATTR k a x", ":0"),
        ("VEXPIRE k a 100", ":0"),
        ("VREM k a", ":0"),
        ("EXISTS alone", ":0"),
        ("VADD again VALUES 2 0 1 a", ":1"),
        ("VGET again a WITHATTRIBS", "[id a attributes nil]"),
        ("MULTI", "+OK"),
        ("VCARD k", "+QUEUED"),
        ("VADD k VALUES 2 1 0 a", "+QUEUED"),
        ("VTTL k a", "+QUEUED"),
        ("EXEC", "[:1 :1 :-1]"),
    ]);
    assert!(client.ask("VSIM k ELE a").contains('b'));
}

#[test]
fn an_element_whose_time_is_over_never_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--appendonly", "yes"];
    let server = Server::start_in(folder.path(), &options);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 saved EX 1", ":1"),
        ("VADD k VALUES 2 1 0 kept EX 1000", ":1"),
        ("SAVE", "+OK"),
        ("VADD k VALUES 2 1 0 logged EX 1", ":1"),
        ("VADD k VALUES 2 1 0 cleared EX 1", ":1"),
        ("VADD k VALUES 2 1 0 cleared", ":0"),
    ]);
    let kept_ms = expires_ms(&mut client, "kept");
    server.kill9();
    wait();
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        client.check(&[("VCARD k", ":2"), ("VRANGE k - +", "[cleared kept]"), ("VTTL k cleared", ":-1")]);
        assert_eq!(expires_ms(&mut client, "kept"), kept_ms);
        server.kill9();
    }
}
