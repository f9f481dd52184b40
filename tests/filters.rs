//! Filters in JSON, through every command that takes one.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Server};

fn films(client: &mut Client) {
    for (element, vector, attributes) in [
        ("alien", "1 0", r#"{"year":1979,"genre":["horror","sf"],"by":{"name":"Scott"},"seen":true}"#),
        ("brazil", "1 1", r#"{"year":1985,"genre":["sf","comedy"],"by":{"name":"Gilliam"}}"#),
        ("clue", "0 1", r#"{"year":1985.0,"genre":["comedy"],"by":null}"#),
        ("dune", "-1 0", ""),
    ] {
        client.check(&[(&format!("VADD films VALUES 2 {vector} {element} SETATTR '{attributes}'"), ":1")]);
    }
    client.check(&[("VSETATTR films dune ''", ":1")]);
}

#[test]
fn documents_filter_searches_scans_and_counts() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    films(&mut client);
    for (filter, found) in [
        ("{}", "[alien brazil clue dune]"),
        (r#"{"year":1985}"#, "[brazil clue]"),
        (r#" {"genre":"sf","year":{"$lt":1980}}"#, "[alien]"),
        (r#"{"seen":{"$ne":true}}"#, "[brazil clue dune]"),
        (r#"{"by":null}"#, "[clue dune]"),
        (r#"{"by":{"$exists":true}}"#, "[alien brazil clue]"),
        (r#"{"by.name":{"$gte":"H"}}"#, "[alien]"),
        (r#"{"$or":[{"by.name":{"$contains":"illi"}},{"genre":{"$size":1}}]}"#, "[brazil clue]"),
        (r#"{"genre":{"$elemMatch":{"$gt":"i"}}}"#, "[alien brazil]"),
        (r#"{"seen":1}"#, "[]"),
    ] {
        let count = found.matches(' ').count() + usize::from(found != "[]");
        client.check(&[
            (&format!("VSIM films VALUES 2 9 1 FILTER '{filter}'"), found),
            (&format!("VSIM films VALUES 2 9 1 TRUTH FILTER '{filter}'"), found),
            (&format!("VCOUNT films FILTER '{filter}'"), &format!(":{count}")),
        ]);
        let scanned = client.ask(&format!("VSCAN films 0 COUNT 100 FILTER '{filter}'"));
        for film in ["alien", "brazil", "clue", "dune"] {
            assert_eq!(scanned.contains(film), found.contains(film), "{filter} {scanned}");
        }
    }
}

#[test]
fn a_document_that_is_no_filter_is_refused_by_every_command() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    films(&mut client);
    for command in ["VSIM films ELE alien", "VSCAN films 0", "VCOUNT films"] {
        client.check(&[
            (
                &format!(r#"{command} FILTER '{{"$and":[{{}},{{"year":{{"$gtt":1}}}}]}}'"#),
                "-ERR FILTER at $and[1].year.$gtt: there is no such operator",
            ),
            (
                &format!(r#"{command} FILTER '{{"year":'"#),
                "-ERR FILTER is not JSON: EOF while parsing a value at line 1 column 8",
            ),
        ]);
    }
}
