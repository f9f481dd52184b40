//! VPATCHATTR, VDELBY, and VADD that adds or updates only.

#![allow(clippy::unwrap_used)]

mod common;

use common::Server;

#[test]
fn vpatchattr_merges_into_the_attributes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a SETATTR '{\"x\":1,\"y\":{\"z\":2,\"w\":3}}'", ":1"),
        ("VADD k VALUES 2 0 1 b", ":1"),
        ("VPATCHATTR k a '{\"x\":null,\"y\":{\"z\":\"new\"},\"v\":[1]}'", ":1"),
        ("VGETATTR k a", "{\"v\":[1],\"y\":{\"w\":3,\"z\":\"new\"}}"),
        ("VPATCHATTR k b '{\"n\":1.50}'", ":1"),
        ("VGETATTR k b", "{\"n\":1.5}"),
        ("VCOUNT k FILTER '{\"n\":1.5}'", ":1"),
        ("VPATCHATTR k no '{}'", ":0"),
        ("VPATCHATTR no a '{}'", ":0"),
        ("VSETATTR k b 'no JSON'", ":1"),
        ("VPATCHATTR k b '{\"n\":1}'", "-ERR the element's attributes are not JSON"),
        ("VGETATTR k b", "no JSON"),
        ("VPATCHATTR k a '{'", "-ERR the patch is not JSON: EOF while parsing an object at line 1 column 1"),
        ("VPATCHATTR k a", "-ERR wrong number of arguments for 'VPATCHATTR' command"),
    ]);
    server.connect_resp3().check(&[("VPATCHATTR k a '{\"q\":0}'", "#t")]);
}

#[test]
fn vdelby_removes_what_passes_and_stays_so() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendonly", "yes"]);
    let mut client = server.connect();
    for at in 0..3000 {
        let line = format!("VADD k VALUES 2 1 {at} e{at} SETATTR '{{\"n\":{at},\"even\":{}}}'", at % 2 == 0);
        client.check(&[(&line, ":1")]);
    }
    client.check(&[
        ("VDELBY k FILTER '{}'", "-ERR an empty filter would remove every element: say ALL if that is meant"),
        ("VDELBY k FILTER ''", "-ERR syntax error in FILTER expression near: "),
        ("VDELBY k", "-ERR wrong number of arguments for 'VDELBY' command"),
        ("VDELBY k WHAT x", "-ERR syntax error, unexpected 'WHAT'"),
        ("VDELBY k ALL x", "-ERR syntax error, unexpected 'ALL'"),
        ("VCARD k", ":3000"),
        ("VDELBY k FILTER '{\"even\":true,\"n\":{\"$lt\":2000}}'", ":1000"),
        ("VDELBY k FILTER '.n >= 2990'", ":10"),
        ("VDELBY k FILTER '.n >= 2990'", ":0"),
        ("VDELBY no FILTER '.n >= 2990'", ":0"),
        ("VCARD k", ":1990"),
        ("MULTI", "+OK"),
        ("VDELBY k FILTER '.n == 1'", "+QUEUED"),
        ("VISMEMBER k e1", "+QUEUED"),
        ("EXEC", "[:1 :0]"),
    ]);
    server.kill9();
    let server = Server::start_in(folder.path(), &["--appendonly", "yes"]);
    let mut client = server.connect();
    client.check(&[
        ("VCARD k", ":1989"),
        ("VCOUNT k FILTER '.n < 2000 and .even'", ":0"),
        ("VCREATE c DIM 2", "+OK"),
        ("VADD c VALUES 2 1 0 a", ":1"),
        ("VDELBY c ALL", ":1"),
        ("VCARD c", ":0"),
        ("EXISTS c", ":1"),
        ("VDELBY k ALL", ":1989"),
        ("EXISTS k", ":0"),
    ]);
}

#[test]
fn vadd_adds_only_what_is_not_there_or_updates_only_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendonly", "yes"]);
    let mut client = server.connect();
    client.check(&[
        ("VADD k VALUES 2 1 0 a XX", ":0"),
        ("EXISTS k", ":0"),
        ("VADD k VALUES 2 1 0 a NX EX 1000", ":1"),
        ("VADD k VALUES 2 0 1 a NX SETATTR '{}' EX 1 SETTEXT no SETSPARSE 1 no 1", ":0"),
        ("VGETATTR k a", "nil"),
        ("VSEARCH k MATCH no SPARSE 1 no 1", "[results []]"),
        ("VEMB k a", "[1 0]"),
        ("VTTL k a", ":1000"),
        ("VADD k VALUES 2 0 1 b XX", ":0"),
        ("VISMEMBER k b", ":0"),
        ("VADD k VALUES 2 0 1 a xx", ":0"),
        ("VEMB k a", "[0 1]"),
        ("VADD k VALUES 3 0 1 1 a NX", "-ERR Vector dimension mismatch - got 3 but set has 2"),
        ("VADD k VALUES 2 0 1 a NX XX", "-ERR NX and XX options at the same time are not compatible"),
        ("MULTI", "+OK"),
        ("VADD k VALUES 2 1 1 c NX", "+QUEUED"),
        ("VADD k VALUES 2 5 5 c NX", "+QUEUED"),
        ("VREM k c", "+QUEUED"),
        ("VADD k VALUES 2 5 5 c XX", "+QUEUED"),
        ("VADD k VALUES 2 3 3 c NX", "+QUEUED"),
        ("EXEC", "[:1 :0 :1 :0 :1]"),
        ("VCREATE left DIM 2", "+OK"),
        ("VADD left VALUES 2 1 0 a XX", ":0"),
        ("VCARD left", ":0"),
    ]);
    server.kill9();
    let server = Server::start_in(folder.path(), &["--appendonly", "yes"]);
    server.connect().check(&[("VEMB k a", "[0 1]"), ("VEMB k c", "[3 3]"), ("VCARD k", ":2")]);
    server.connect_resp3().check(&[("VADD k VALUES 2 1 0 a NX", "#f"), ("VADD k VALUES 2 1 0 z NX", "#t")]);
}
