//! VPATCHATTR and VDELBY.

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
