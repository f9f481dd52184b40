//! Sparse vectors: SETSPARSE in VADD, and the SPARSE clause of VSEARCH.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Server, words};

/// Results as `id score id score ...`.
fn found(client: &mut Client, clauses: &str) -> String {
    let reply = client.call(&words(&format!("VSEARCH k {clauses}")));
    assert!(!reply.is_error(), "{clauses}: {reply}");
    let shown = |one: &common::Value| format!("{} {}", one.field("id").text(), one.field("score").number());
    reply.field("results").items().iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn fill(client: &mut Client) {
    client.check(&[
        ("VADD k VALUES 2 1 0 a SETSPARSE 2 fox 1 dog 0.5 SETATTR '{\"n\":1}'", ":1"),
        ("VADD k VALUES 2 0 1 b setsparse 1 fox 2", ":1"),
        ("VADD k VALUES 2 1 1 c SETSPARSE 2 cat 4 dog 1 SETATTR '{\"n\":1}' SETTEXT 'a fox'", ":1"),
        ("VADD k VALUES 2 -1 0 d", ":1"),
    ]);
}

#[test]
fn elements_are_found_by_their_sparse_vectors() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    for (clauses, expected) in [
        ("SPARSE 1 fox 1", "b 2 a 1"),
        ("SPARSE 2 fox 1 dog 4", "c 4 a 3 b 2"),
        ("SPARSE 2 fox 1 dog 4 LIMIT 1 1", "a 3"),
        ("SPARSE 2 fox 1 dog 4 FILTER '{\"n\":1}'", "c 4 a 3"),
        ("SPARSE 2 fox 1 dog 4 MINSCORE 2.5", "c 4 a 3"),
        ("SPARSE 1 none 1", ""),
        ("SPARSE 0", ""),
        ("SPARSE 1 fox 1 SPARSE 1 cat 1 FUSE LINEAR NORM NONE", "c 4 b 2 a 1"),
        ("SPARSE 1 fox 1 WEIGHT 3 VECTOR VALUES 2 1 0 WEIGHT 1 FUSE LINEAR NORM NONE LIMIT 0 2", "b 6 a 4"),
        ("SPARSE 1 dog 1 MATCH fox FUSE RRF LIMIT 0 1", "c 0.03278688524590164"),
    ] {
        assert_eq!(found(&mut client, clauses), expected, "{clauses}");
    }
    // Kept by an update that names none, replaced and removed by one that does, gone with the element.
    client.check(&[
        ("VADD k VALUES 2 5 5 a", ":0"),
        ("VADD k VALUES 2 5 5 b SETSPARSE 1 dog 3", ":0"),
        ("VADD k VALUES 2 5 5 c SETSPARSE 0", ":0"),
    ]);
    assert_eq!(found(&mut client, "SPARSE 2 fox 1 dog 1"), "b 3 a 1.5");
    client.check(&[("VREM k b", ":1")]);
    assert_eq!(found(&mut client, "SPARSE 2 fox 1 dog 1"), "a 1.5");
    client.check(&[("MULTI", "+OK"), ("VADD k VALUES 2 5 5 e SETSPARSE 1 dog 9", "+QUEUED")]);
    client.check(&[
        ("VSEARCH k SPARSE 1 dog 1 LIMIT 0 1", "+QUEUED"),
        ("EXEC", "[:1 [results [[id e score 9]]]]"),
    ]);
}

#[test]
fn what_is_no_sparse_vector_is_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    fill(&mut client);
    let bad = "-ERR invalid sparse vector specification";
    for (terms, error) in [
        ("", "-ERR invalid option after element"),
        ("x", bad),
        ("-1", bad),
        ("2 a 1 b", bad),
        ("1 a x", bad),
        ("1 a inf", "-ERR a weight of a sparse vector is a number that is not negative"),
        ("1 a -1", "-ERR a weight of a sparse vector is a number that is not negative"),
        ("1 '' 1", "-ERR a term of a sparse vector has 1 to 255 bytes"),
        ("2 a 1 a 2", "-ERR a sparse vector has a term twice"),
    ] {
        client.check(&[(&format!("VADD k VALUES 2 1 0 new SETSPARSE {terms}"), error)]);
        if !terms.is_empty() {
            client.check(&[(&format!("VSEARCH k SPARSE {terms}"), error)]);
        }
    }
    client.check(&[("VSEARCH k SPARSE 2", bad), ("VCARD k", ":4")]);
}

#[test]
fn sparse_vectors_survive_what_the_elements_survive() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--appendonly", "yes", "--enable-debug-command", "yes"];
    let server = Server::start_in(folder.path(), &options);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 2 1 0 e SETSPARSE 1 dog 8", ":1"), ("SAVE", "+OK")]);
    fill(&mut client);
    client.check(&[("VADD k VALUES 2 3 0 e", ":0")]);
    let (digest, expected) = (client.ask("DEBUG DIGEST-VALUE k"), "e 8 c 1 a 0.5");
    assert_eq!(found(&mut client, "SPARSE 1 dog 1"), expected);
    server.kill9();
    for line in ["SAVE", "DEBUG RELOAD"] {
        let server = Server::start_in(folder.path(), &options);
        let mut client = server.connect();
        assert_eq!(found(&mut client, "SPARSE 1 dog 1"), expected);
        client.check(&[("DEBUG DIGEST-VALUE k", &digest), (line, "+OK"), ("DEBUG DIGEST-VALUE k", &digest)]);
        assert_eq!(found(&mut client, "SPARSE 1 dog 1"), expected);
        server.kill9();
    }
}
