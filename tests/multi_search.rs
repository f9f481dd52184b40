//! VMSEARCH: one ranking of several collections.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Server, Value, words};

fn start() -> Server {
    let server = Server::start(&[]);
    server.connect().check(&[
        ("VADD cats VALUES 2 1 0 tom SETTEXT 'a cat' SETATTR '{\"age\":3}'", ":1"),
        ("VADD cats VALUES 2 0.6 0.8 kit SETTEXT 'a small cat' SETATTR '{\"age\":1}'", ":1"),
        ("VADD dogs VALUES 2 0.8 0.6 rex SETTEXT 'a dog that hunts a cat' SETATTR '{\"age\":5}'", ":1"),
        ("VADD dogs VALUES 2 0 1 tom SETTEXT 'a lazy dog'", ":1"),
        ("VADD wide VALUES 3 1 0 0 x", ":1"),
        ("VCREATE far DIM 2 METRIC L2", "+OK"),
        ("VADD far VALUES 2 1 0 y", ":1"),
    ]);
    server
}

/// `key/element` of each result.
fn found(reply: &Value) -> String {
    assert!(!reply.is_error(), "{reply}");
    let name = |one: &Value| format!("{}/{}", one.field("key").text(), one.field("id").text());
    reply.field("results").items().iter().map(name).collect::<Vec<_>>().join(" ")
}

fn ask(client: &mut Client, line: &str) -> String {
    found(&client.call(&words(&format!("VMSEARCH {line}"))))
}

const EAST: &str = "VECTOR VALUES 2 1 0";

#[test]
fn several_collections_make_one_ranking() {
    let server = start();
    for client in &mut [server.connect(), server.connect_resp3()] {
        let all = "cats/tom dogs/rex cats/kit dogs/tom";
        assert_eq!(ask(client, &format!("2 cats dogs {EAST}")), all);
        assert_eq!(ask(client, &format!("2 dogs cats {EAST} LIMIT 1 2")), "dogs/rex cats/kit");
        assert_eq!(ask(client, &format!("3 cats none dogs {EAST}")), all, "a missing key is empty");
        assert_eq!(ask(client, &format!("1 none {EAST}")), "");
        assert_eq!(ask(client, &format!("2 cats dogs {EAST} FILTER '.age > 2'")), "cats/tom dogs/rex");
        assert_eq!(ask(client, &format!("2 cats dogs {EAST} MATCH hunts LIMIT 0 1")), "dogs/rex");
        assert_eq!(ask(client, "2 cats dogs VECTOR ELE tom LIMIT 0 1"), "cats/tom", "each looks for its own");
        let explained =
            client.call(&words(&format!("VMSEARCH 2 cats dogs {EAST} FILTER '.age > 2' EXPLAIN")));
        let clause = &explained.field("plan").field("clauses").items()[0];
        assert_eq!(clause.field("plan").text(), "masked scan");
        let numbers = ["rows", "passing", "candidates"].map(|name| clause.field(name).number());
        assert_eq!(numbers, [4.0, 2.0, 2.0]);
    }
}

#[test]
fn one_failing_search_of_many_leaves_the_others_alone() {
    let server = start();
    for client in &mut [server.connect(), server.connect_resp3()] {
        let lines = [
            format!("VMSEARCH 2 cats dogs {EAST} LIMIT 0 1"),
            format!("VMSEARCH 2 cats wide {EAST}"),
            format!("VMSEARCH 2 cats far {EAST}"),
            "VMSEARCH 2 cats dogs VECTOR ELE kit".to_owned(),
            "VMSEARCH 65 cats MATCH cat".to_owned(),
            "VMSEARCH 3 cats MATCH cat".to_owned(),
            "VMSEARCH 2 cats dogs MATCH cat LIMIT 0 1".to_owned(),
        ];
        let commands: Vec<_> = lines.iter().map(|line| words(line)).collect();
        let replies = client.pipeline(&commands);
        assert_eq!(found(&replies[0]), "cats/tom");
        let errors: Vec<String> = replies[1..6].iter().map(Value::text).collect();
        assert_eq!(
            errors,
            [
                "ERR Vector dimension mismatch - got 2 but set has 3",
                "ERR the collections have different metrics",
                "ERR element not found in set",
                "ERR numkeys must be between 1 and 64",
                "ERR syntax error, a VECTOR, MATCH or SPARSE clause is missing",
            ]
        );
        assert_eq!(found(&replies[6]), "dogs/rex", "the word is rarer there");
        client.check(&[("MULTI", "+OK")]);
        client.pipeline(&commands[..2]);
        let replies = client.call(&words("EXEC"));
        assert_eq!(found(&replies.items()[0]), "cats/tom");
        assert!(replies.items()[1].is_error());
    }
}
