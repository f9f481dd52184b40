//! Texts: embedded by the server, stored with their vectors, searched by meaning.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use common::{Client, Command, Server, Value, command, fp32, words};

const SENTENCES: &[(&str, &str)] = &[
    ("cat", "The cat sleeps on the warm sofa"),
    ("tax", "The government raised the income tax"),
    ("ship", "A ship sails over the ocean"),
    ("doctor", "The doctor gives the patient a medicine"),
    ("code", "The programmer writes software for a computer"),
];

fn vadd_text(key: &str, text: &str, element: &str) -> Command {
    command(&["VADD", key, "TEXT", text, element])
}

fn search(key: &str, text: &str) -> Command {
    command(&["VSIM", key, "TEXT", text, "COUNT", "1"])
}

fn load(client: &mut Client, key: &str) {
    let adds: Vec<Command> = SENTENCES.iter().map(|(id, text)| vadd_text(key, text, id)).collect();
    for reply in client.pipeline(&adds) {
        assert_eq!(reply, Value::Boolean(true));
    }
}

fn text_of(client: &mut Client, key: &str, element: &str) -> Value {
    let reply = client.call(&command(&["VGET", key, element, "WITHTEXT"]));
    reply.field("text").clone()
}

fn first(reply: &Value) -> String {
    reply.items()[0].text()
}

#[test]
fn texts_are_found_by_their_meaning_without_any_download() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "docs");
    let queries = [
        ("a kitten takes a nap", "cat"),
        ("boats at sea", "ship"),
        ("medical treatment", "doctor"),
        ("state finances", "tax"),
        ("developing an application", "code"),
    ];
    let searches: Vec<Command> = queries.iter().map(|(query, _)| search("docs", query)).collect();
    for (reply, (query, wanted)) in client.pipeline(&searches).iter().zip(queries) {
        assert_eq!(first(reply), wanted, "{query}");
    }
    let info = client.call(&words("VINFO docs"));
    assert_eq!(info.field("model").text(), "builtin");
    assert_eq!(info.field("vector-dim").number(), 256.0);
    assert!(client.call(&words("VSIM nosuch TEXT x")).items().is_empty());
}

#[test]
fn vembed_gives_the_vectors_that_vadd_stores() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    load(&mut client, "docs");
    let (id, text) = SENTENCES[2];
    let stored = client.call(&command(&["VEMB", "docs", id]));
    let embedded = client.call(&command(&["VEMBED", text]));
    assert_eq!(embedded.items(), std::slice::from_ref(&stored));
    let blobs =
        client.call(&command(&["VEMBED", "MODEL", "builtin", "ROLE", "QUERY", "FP32", "--", "MODEL", text]));
    let Value::Bulk(blob) = &blobs.items()[1] else { panic!("{blobs:?}") };
    let vector: Vec<f32> = stored.items().iter().map(|value| value.number() as f32).collect();
    assert_eq!(blob[..], fp32(&vector)[..]);
    assert!(client.ask("VEMBED").contains("wrong number"));
    assert!(client.ask("VEMBED ROLE NEITHER x").contains("unexpected 'NEITHER'"));
}

#[test]
fn a_text_stays_with_its_element_until_it_is_replaced_or_removed() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    client.call(&command(&["VADD", "k", "VALUES", "2", "1", "0", "e", "SETTEXT", "a text"]));
    assert_eq!(text_of(&mut client, "k", "e").text(), "a text");
    client.call(&words("VADD k VALUES 2 0 1 e"));
    assert_eq!(text_of(&mut client, "k", "e").text(), "a text", "a new vector keeps the text");
    client.call(&command(&["VADD", "k", "VALUES", "2", "0", "1", "e", "SETTEXT", ""]));
    assert_eq!(text_of(&mut client, "k", "e"), Value::Null);
    client.call(&command(&["VADD", "k", "VALUES", "2", "0", "1", "e", "SETTEXT", "again"]));
    client.call(&words("VREM k e"));
    client.call(&words("VADD k VALUES 2 0 1 e"));
    assert_eq!(text_of(&mut client, "k", "e"), Value::Null, "VREM removes the text");
    let long = "x".repeat((16 << 20) + 1);
    let refused = client.call(&command(&["VADD", "k", "VALUES", "2", "0", "1", "e", "SETTEXT", &long]));
    assert!(refused.is_error());
}

#[test]
fn texts_survive_the_log_checkpoints_and_sealed_chunks() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    load(&mut client, "logged");
    server.kill9();

    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    // More than what a checkpoint keeps in its state file: this chunk is sealed.
    let longest = "y".repeat(16 << 20);
    let add = command(&["VADD", "sealed", "VALUES", "2", "1", "2", "longest", "SETTEXT", &longest]);
    assert_eq!(client.call(&add), Value::Boolean(true));
    for number in 0..20 {
        let text = format!("{number} {}", "x".repeat(1 << 20));
        let element = format!("e{number}");
        let add =
            command(&["VADD", "sealed", "VALUES", "2", "1", "2", &element, "SETTEXT", &text[..1 << 20]]);
        assert_eq!(client.call(&add), Value::Boolean(true));
    }
    assert_eq!(client.ask("SAVE"), "+OK");
    load(&mut client, "after");
    server.kill9();

    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect_resp3();
    assert!(
        common::files_below(folder.path()).iter().any(|file| file.ends_with(".vdc")),
        "a chunk is sealed"
    );
    for key in ["logged", "after"] {
        for (id, text) in SENTENCES {
            assert_eq!(text_of(&mut client, key, id).text(), *text);
        }
        assert_eq!(client.call(&words(&format!("VINFO {key}"))).field("model").text(), "builtin");
        assert_eq!(first(&client.call(&search(key, "boats at sea"))), "ship");
    }
    for number in 0..20 {
        let text = text_of(&mut client, "sealed", &format!("e{number}")).text();
        assert!(text.starts_with(&format!("{number} x")) && text.len() == 1 << 20);
    }
    assert_eq!(text_of(&mut client, "sealed", "longest").text(), longest);
    client.call(&words("VADD sealed VALUES 2 2 1 e7"));
    assert!(text_of(&mut client, "sealed", "e7").text().starts_with("7 x"), "carried over from the file");
}

#[test]
fn every_acknowledged_text_is_there_after_a_crash_in_a_bulk_load() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendfsync", "always"]);
    let mut client = server.connect();
    let address = server.address;
    let writer = std::thread::spawn(move || {
        let mut client = Client::connect(address).unwrap();
        let mut acknowledged = 0;
        // Bounded, but far more than what fits in before the crash.
        for number in 0..100_000 {
            let add = vadd_text("docs", &format!("sentence {number} about the sea"), &number.to_string());
            match client.try_call(&add) {
                Ok(reply) if !reply.is_error() => acknowledged += 1,
                _ => break,
            }
        }
        acknowledged
    });
    while client.call(&words("VCARD docs")).number() < 50.0 {
        std::thread::yield_now();
    }
    server.kill9();
    let acknowledged = writer.join().unwrap();
    assert!(acknowledged >= 50);
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for number in 0..acknowledged {
        let text = text_of(&mut client, "docs", &number.to_string()).text();
        assert_eq!(text, format!("sentence {number} about the sea"));
        let embedded = client.call(&command(&["VEMBED", &text]));
        assert_eq!(client.call(&command(&["VEMB", "docs", &number.to_string()])), embedded.items()[0]);
    }
}

#[test]
fn a_pipeline_with_texts_keeps_its_order() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let replies = client.pipeline(&[
        words("VCREATE docs MODEL builtin"),
        vadd_text("docs", "a ship on the ocean", "ship"),
        words("VCARD docs"),
        search("docs", "a cat"),
        vadd_text("docs", "a cat", "cat"),
        words("VCARD docs"),
        search("docs", "a kitten"),
        words("VREM docs cat"),
        search("docs", "a kitten"),
        command(&["VADD", "docs", "VALUES", "2", "1", "1", "bad"]),
        vadd_text("docs", "a cat", "cat"),
        words("VCARD docs"),
    ]);
    assert_eq!(replies[2].number(), 1.0);
    assert_eq!(first(&replies[3]), "ship", "the cat is not there yet");
    assert_eq!(replies[5].number(), 2.0);
    assert_eq!(first(&replies[6]), "cat");
    assert_eq!(first(&replies[8]), "ship", "the cat is gone");
    assert!(replies[9].is_error());
    assert_eq!(replies[11].number(), 2.0);
}

#[test]
fn a_transaction_embeds_its_texts_before_it_runs() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let replies = client.pipeline(&[
        words("MULTI"),
        vadd_text("docs", "a ship on the ocean", "ship"),
        vadd_text("docs", "", "nothing"),
        words("CLIENT GETNAME"),
        vadd_text("docs", "a cat on the sofa", "cat"),
        search("docs", "a kitten"),
        command(&["VEMBED", "one", "two"]),
        words("EXEC"),
    ]);
    let body = replies[7].items();
    assert_eq!(body[0], Value::Boolean(true));
    assert!(body[1].text().contains("no word"), "{body:?}");
    assert_eq!(body[3], Value::Boolean(true));
    assert_eq!(first(&body[4]), "cat");
    assert_eq!(body[5].items().len(), 2);
    assert_eq!(client.call(&words("VCARD docs")).number(), 2.0);
}

#[test]
fn what_cannot_be_embedded_is_refused_and_stores_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    assert!(client.ask("VEMBED MODEL nosuch text").starts_with("-MODELDOWN nosuch: "));
    assert!(client.ask("VCREATE docs MODEL ../../etc").contains("vecdis model add"));
    assert!(client.ask("VADD docs TEXT").contains("ERR"));
    let not_utf8 = command(&[&b"VADD"[..], b"docs", b"TEXT", b"\xff", b"e"]);
    assert!(client.call(&not_utf8).text().contains("UTF-8"));
    assert!(client.call(&vadd_text("docs", "", "e")).text().contains("no word"));
    assert_eq!(client.ask("EXISTS docs"), ":0");
    assert_eq!(client.ask("CONFIG SET embedding-model nosuch"), "+OK");
    assert!(client.call(&vadd_text("docs", "a cat", "e")).text().starts_with("MODELDOWN nosuch"));
    assert_eq!(client.ask("EXISTS docs"), ":0");
    client.call(&words("VADD small VALUES 2 1 0 e"));
    assert_eq!(client.ask("VMODEL DEFAULT builtin"), "+OK");
    let refused = client.call(&vadd_text("small", "a cat", "f")).text();
    assert!(refused.contains("dimension mismatch"), "{refused}");
}

#[test]
fn vmodel_tells_about_models() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    assert_eq!(client.ask("VMODEL DEFAULT"), "builtin");
    let info = client.call(&words("VMODEL INFO builtin"));
    assert_eq!(info.field("dims").number(), 256.0);
    assert_eq!(info.field("loaded"), &Value::Boolean(false));
    assert_eq!(client.ask("VMODEL LOAD builtin"), "+OK");
    let list = client.call(&words("VMODEL LIST"));
    assert_eq!(list.items()[0].field("loaded"), &Value::Boolean(true));
    assert_eq!(client.call(&words("VMODEL UNLOAD builtin")), Value::Boolean(true));
    let bench = client.call(&words("VMODEL BENCH builtin"));
    assert!(bench.items()[0].field("contrast").number() > 0.2, "{bench:?}");
    assert!(bench.items()[0].field("texts-per-second").number() > 0.0);
    assert!(client.ask("VMODEL INFO nosuch").starts_with("-MODELDOWN nosuch"));
    assert!(client.ask("VMODEL FROB").contains("unexpected 'FROB'"));
    let stats = client.ask("INFO vectors");
    assert!(stats.contains("embedded_texts:") && !stats.contains("embedded_texts:0\r"), "{stats}");
}
