//! VDOC: documents kept as chunks, in step with their elements.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_precision_loss)]

mod common;

use common::{Client, Command, Server, Value, command, words};

const GUIDE: &str = "# Boats\n\nA ship sails over the ocean. The captain steers the boat to the harbour.\n\n# Taxes\n\nThe government raised the income tax. Citizens pay money to the state.\n\n# Health\n\nThe doctor gives the patient a medicine in the hospital.\n";

fn add(key: &str, uri: &str, text: &str, options: &str) -> Command {
    let mut command = command(&["VDOC", "ADD", key, uri, text]);
    command.extend(words(options));
    command
}

/// The numbers of a document's chunks, from VDOC GET, and whether each is an element.
fn chunks(client: &mut Client, key: &str, uri: &str) -> Vec<String> {
    let reply = client.call(&command(&["VDOC", "GET", key, uri, "CHUNKS"]));
    if reply == Value::Null {
        return Vec::new();
    }
    let names: Vec<String> = reply.field("chunks").items().iter().map(|one| one.field("id").text()).collect();
    assert_eq!(reply.field("count").number(), names.len() as f64);
    names
}

fn listed(client: &mut Client, key: &str) -> Vec<String> {
    let (mut found, mut cursor) = (Vec::new(), "0".to_owned());
    loop {
        let page = client.call(&command(&["VDOC", "LIST", key, &cursor, "COUNT", "7"]));
        found.extend(page.items()[1].items().iter().map(Value::text));
        cursor = page.items()[0].text();
        if cursor == "0" {
            found.sort();
            return found;
        }
    }
}

#[test]
fn a_document_becomes_chunks_that_are_elements() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let mut adding = add("docs", "guide.md", GUIDE, "TYPE md CHUNK 24");
    adding.extend(command(&["ATTR", r#"{"year": 2026}"#]));
    let count = client.call(&adding).number();
    assert!(count >= 3.0, "{count}");
    assert_eq!(client.call(&words("VCARD docs")).number(), count);
    let found = client.call(&command(&["VDOC", "GET", "docs", "guide.md", "CHUNKS"]));
    assert_eq!(found.field("type").text(), "md");
    assert_eq!(found.field("bytes").number(), GUIDE.len() as f64);
    assert_eq!(found.field("chunk").number(), 24.0);
    assert_eq!(found.field("attributes").text(), r#"{"year": 2026}"#);
    let mut joined = String::new();
    for (at, chunk) in found.field("chunks").items().iter().enumerate() {
        let name = format!("guide.md#{at}");
        assert_eq!(chunk.field("id").text(), name);
        let element = client.call(&command(&["VGET", "docs", &name, "WITHTEXT", "WITHATTRIBS"]));
        assert_eq!(element.field("text").text(), chunk.field("text").text());
        assert_eq!(element.field("attributes").text(), r#"{"year": 2026}"#);
        let (start, end) = (chunk.field("start").number(), chunk.field("end").number());
        assert_eq!(chunk.field("text").text(), GUIDE[start as usize..end as usize]);
        assert!((1.0..=24.0).contains(&chunk.field("tokens").number()));
        joined += &chunk.field("text").text();
    }
    assert_eq!(joined, GUIDE);
    let nearest = client.call(&command(&["VSIM", "docs", "TEXT", "boats at sea", "COUNT", "1"]));
    assert_eq!(nearest.items()[0].text(), "guide.md#0");
    let words_found = client.call(&command(&["VSEARCH", "docs", "MATCH", "medicine"]));
    assert_eq!(words_found.field("results").items().len(), 1);
}

#[test]
fn replies_have_their_shapes_in_both_protocols() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    assert_eq!(client.call(&add("docs", "a", "a cat", "")), Value::Integer(1));
    client.check(&[
        ("VDOC GET docs nosuch", "nil"),
        ("VDOC GET nosuch a", "nil"),
        ("VDOC SECTIONS docs nosuch TOKENS 5 QUERY x", "nil"),
        ("VDOC DEL docs nosuch", ":0"),
        ("VDOC DEL nosuch a", ":0"),
    ]);
    let flat = client.call(&words("VDOC GET docs a CHUNKS"));
    assert_eq!(flat.items().len(), 18, "names and values in turn: {flat:?}");
    let page = client.call(&words("VDOC LIST docs 0"));
    assert_eq!((page.items()[0].text(), page.items()[1].items().len()), ("0".to_owned(), 1));
    assert_eq!(client.call(&words("VDOC LIST nosuch 0")).items()[1].items().len(), 0);
    let sections = client.call(&words("VDOC SECTIONS docs a TOKENS 9 QUERY cat"));
    assert_eq!(sections.items()[1].items()[0].items().len(), 10);
    client.hello(3);
    assert!(matches!(client.call(&words("VDOC GET docs a")), Value::Map(_)));
    let sections = client.call(&words("VDOC SECTIONS docs a TOKENS 9 QUERY cat"));
    assert!(matches!(sections.field("sections").items()[0].field("score"), Value::Double(_)));
    assert_eq!(client.call(&words("VDOC DEL docs a")), Value::Integer(1));
    assert_eq!(client.call(&words("EXISTS docs")), Value::Integer(0), "the last element is gone");
}

#[test]
fn bad_input_is_refused_and_stores_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for (asked, reason) in [
        (add("k", "", "text", ""), "uri"),
        (add("k", &"u".repeat(16_385), "text", ""), "uri"),
        (add("k", "u", "", ""), "no text"),
        (add("k", "u", " \n ", ""), "no text"),
        (add("k", "u", "<script>x</script>", "TYPE html"), "no text"),
        (add("k", "u", "text", "TYPE pdf"), "TYPE cannot be 'pdf'"),
        (add("k", "u", "text", "CHUNK 0"), "CHUNK must be"),
        (add("k", "u", "text", "CHUNK 8191"), "CHUNK must be"),
        (add("k", "u", "text", "CHUNK 5 OVERLAP 5"), "OVERLAP"),
        (add("k", "u", "text", "NOSUCH 1"), "unexpected 'NOSUCH'"),
        (add("k", "u", "text", "TYPE"), "unexpected 'TYPE'"),
        (add("k", "u", &"a ".repeat(20_000), "CHUNK 1"), "16384 chunks"),
        (add("k", "u", &"x".repeat((16 << 20) + 1), ""), "16777216 bytes"),
        (
            add("k", "u", &"a ".repeat(1000), &format!("CHUNK 1 ATTR {}", "1".repeat(1 << 20))),
            "67108864 bytes",
        ),
        (command(&[b"VDOC" as &[u8], b"ADD", b"k", b"u", b"\xff"]), "UTF-8"),
        (words("VDOC ADD k u"), "wrong number"),
        (words("VDOC NOSUCH k u"), "unknown subcommand"),
        (words("VDOC GET k u NOSUCH"), "unexpected 'NOSUCH'"),
        (words("VDOC LIST k x"), "invalid cursor"),
        (words("VDOC LIST k 0 COUNT 0"), "invalid COUNT"),
        (words("VDOC SECTIONS k u TOKENS 5 COUNT 5"), "needs TOKENS and QUERY"),
        (words("VDOC SECTIONS k u TOKENS 0 QUERY x"), "invalid TOKENS"),
    ] {
        let reply = client.call(&asked);
        assert!(reply.is_error() && reply.text().contains(reason), "{reason}: {reply:?}");
    }
    assert_eq!(client.call(&words("EXISTS k")), Value::Integer(0));
    client.call(&words("VADD plain VALUES 2 1 1 e"));
    assert!(client.call(&add("plain", "u", "text", "")).text().contains("dimension mismatch"));
}

#[test]
fn an_unchanged_document_is_left_alone_and_a_changed_one_replaced_as_one() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let first = client.call(&add("docs", "g", GUIDE, "TYPE md CHUNK 24"));
    client.call(&words("VCREATE marks DIM 2"));
    let rows = |client: &mut Client| client.call(&words("VINFO docs")).field("rows").number();
    let before = rows(&mut client);
    assert_eq!(client.call(&add("docs", "g", GUIDE, "TYPE md CHUNK 24")), first);
    assert_eq!(rows(&mut client), before, "no row was written");
    for options in ["TYPE md CHUNK 25", "TYPE txt CHUNK 25", "TYPE txt CHUNK 25 OVERLAP 3", "ATTR {}"] {
        let written = rows(&mut client);
        client.call(&add("docs", "g", GUIDE, options));
        assert!(rows(&mut client) > written, "{options}");
    }
    client.call(&add("docs", "g", GUIDE, "TYPE md CHUNK 24"));
    assert_eq!(client.call(&add("docs", "g", "a cat", "")).number(), 1.0);
    assert_eq!(chunks(&mut client, "docs", "g"), ["g#0"]);
    assert_eq!(client.call(&words("VCARD docs")).number(), 1.0, "the old chunks are gone");
    // In a pipeline and in a transaction, what comes before counts.
    let replies =
        client.pipeline(&[words("VDOC DEL docs g"), add("docs", "g", "a cat", ""), words("VCARD docs")]);
    assert_eq!(replies[1..], [Value::Integer(1), Value::Integer(1)]);
    let transaction = [
        words("MULTI"),
        words("VDOC DEL docs g"),
        add("docs", "g", "a cat", ""),
        words("VCARD docs"),
        words("EXEC"),
    ];
    let replies = client.pipeline(&transaction);
    assert_eq!(replies[4].items(), [Value::Integer(1), Value::Integer(1), Value::Integer(1)]);
}

#[test]
fn the_table_follows_elements_that_go_by_other_ways() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let all = |client: &mut Client| {
        client.call(&add("docs", "g", GUIDE, "TYPE md CHUNK 24"));
        let all = chunks(client, "docs", "g");
        assert_eq!((all.len(), client.call(&words("VCARD docs")).number()), (3, 3.0), "{all:?}");
    };
    all(&mut client);
    client.call(&words("VREM docs g#1"));
    assert_eq!(chunks(&mut client, "docs", "g"), ["g#0", "g#2"]);
    all(&mut client);
    client.call(&words("VADD docs TEXT other g#0"));
    assert_eq!(chunks(&mut client, "docs", "g"), ["g#1", "g#2"], "another vector makes it another element");
    all(&mut client);
    client.call(&words("VEXPIRE docs g#2 0"));
    assert_eq!(chunks(&mut client, "docs", "g"), ["g#0", "g#1"]);
    all(&mut client);
    client.call(&command(&["VSETATTR", "docs", "g#1", r#"{"a": 1}"#]));
    client.call(&command(&["VDELBY", "docs", "FILTER", ".a == 1"]));
    assert_eq!(chunks(&mut client, "docs", "g"), ["g#0", "g#2"]);
    client.call(&words("RENAME docs others"));
    assert_eq!(listed(&mut client, "others"), ["g"]);
    client.call(&words("VREM others g#0 g#2"));
    assert!(listed(&mut client, "others").is_empty());
    all(&mut client);
    client.call(&words("DEL docs"));
    assert!(listed(&mut client, "docs").is_empty());
}

#[test]
fn documents_outlive_crashes_checkpoints_and_backups() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &["--appendfsync", "always"]);
    let mut client = server.connect_resp3();
    for number in 0..40 {
        client.call(&add("docs", &format!("d{number}"), &format!("{GUIDE}\n\nNumber {number}"), "CHUNK 24"));
    }
    assert_eq!(client.ask("SAVE"), "+OK");
    client.call(&words("VDOC DEL docs d3"));
    client.call(&add("docs", "d4", "a cat", ""));
    client.call(&add("docs", "late", GUIDE, ""));
    client.call(&words("VREM docs d5#1"));
    let state = |client: &mut Client| -> Vec<(String, Value)> {
        let names = listed(client, "docs");
        let get = |name: String| {
            let reply = client.call(&command(&["VDOC", "GET", "docs", &name, "CHUNKS"]));
            (name, reply)
        };
        names.into_iter().map(get).collect()
    };
    let before = state(&mut client);
    assert_eq!(before.len(), 40);
    server.kill9();
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &[]);
        let mut client = server.connect_resp3();
        assert_eq!(state(&mut client), before);
        // What is unchanged is still known as such.
        let rows = client.call(&words("VINFO docs")).field("rows").number();
        client.call(&add("docs", "late", GUIDE, ""));
        assert_eq!(client.call(&words("VINFO docs")).field("rows").number(), rows);
        assert_eq!(client.ask("SAVE"), "+OK");
        server.kill9();
    }
    let data = folder.path().join("data");
    let (data, repaired) = (data.to_str().unwrap(), folder.path().join("new"));
    let check = common::run(&["check", data]);
    assert!(check.status.success(), "{check:?}");
    let repair = common::run(&["repair", data, "--to", repaired.join("data").to_str().unwrap()]);
    assert!(repair.status.success(), "{repair:?}");
    let server = Server::start_in(&repaired, &[]);
    assert_eq!(state(&mut server.connect_resp3()), before);
}

#[test]
fn other_clients_go_on_while_a_long_document_is_split() {
    let server = Server::start(&["--embedding-threads", "1"]);
    let (mut slow, mut quick) = (server.connect(), server.connect());
    let long = GUIDE.repeat(2000);
    let mut bytes = Vec::new();
    common::client::encode(&add("docs", "long", &long, "CHUNK 200"), &mut bytes);
    slow.send(&bytes);
    let mut answered = 0;
    while quick.call(&words("EXISTS docs")) == Value::Integer(0) {
        answered += 1;
    }
    assert!(answered > 0);
    assert!(slow.read().number() > 300.0);
}

#[test]
fn html_is_kept_as_markdown_and_long_texts_are_split_quickly() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let page = "<html><head><title>A ship</title></head><body><p>It sails <b>far</b>.</p><script>var x;</script></body>";
    client.call(&add("docs", "page", page, "TYPE html"));
    let found = client.call(&words("VDOC GET docs page CHUNKS"));
    assert_eq!(found.field("chunks").items()[0].field("text").text(), "# A ship\n\nIt sails far.\n");
    assert_eq!(found.field("bytes").number(), 24.0);
    for long in ["x".repeat(4 << 20), "word ".repeat(200_000), "- [a](b) `c`\n".repeat(50_000)] {
        let reply = client.call(&add("docs", "long", &long, "TYPE md"));
        assert!(matches!(reply, Value::Integer(1..)) || reply.text().contains("no word"), "{reply}");
    }
}

#[test]
fn sections_are_the_best_parts_within_their_tokens() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    client.call(&add("docs", "g", GUIDE, "TYPE md CHUNK 24"));
    let mut ask = |query: &str, options: &str| {
        let mut asked = command(&["VDOC", "SECTIONS", "docs", "g", "QUERY", query]);
        asked.extend(words(options));
        let reply = client.call(&asked);
        let texts = reply.field("sections").items().iter().map(|one| one.field("text").text());
        (texts.collect::<Vec<_>>(), reply.field("tokens").number())
    };
    let (texts, tokens) = ask("income tax", "TOKENS 24");
    assert!(texts.len() == 1 && texts[0].starts_with("# Taxes") && tokens <= 24.0, "{texts:?}");
    assert_eq!(ask("income tax", "TOKENS 1000").0, [GUIDE], "all of it is one section");
    let (texts, _) = ask("a ship on the sea, a doctor in a hospital", "TOKENS 40");
    assert!(
        texts.len() == 2 && texts[0].starts_with("# Boats") && texts[1].starts_with("# Health"),
        "{texts:?}"
    );
    let (texts, tokens) = ask("income tax", "TOKENS 6");
    assert!(
        texts.len() == 1 && texts[0].starts_with("# Taxes") && (1.0..=6.0).contains(&tokens),
        "{texts:?}"
    );
    assert_eq!(ask("income tax", "TOKENS 40 COUNT 1").0.len(), 1);
    client.call(&add("docs", "g", "one two three four five six seven eight nine ten", "CHUNK 4 OVERLAP 2"));
    let reply = client.call(&words("VDOC SECTIONS docs g TOKENS 100 QUERY six"));
    let text = reply.field("sections").items()[0].field("text").text();
    assert_eq!(text, "one two three four five six seven eight nine ten", "what chunks share is there once");
}

#[test]
fn users_and_namespaces_are_kept_apart() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.call(&add("docs", "a", "a cat", ""));
    client.ask("ACL SETUSER reader on >secret ~docs +@read +auth");
    client.ask("AUTH reader secret");
    assert!(!client.call(&words("VDOC GET docs a")).is_error());
    assert!(client.call(&add("docs", "b", "a cat", "")).text().starts_with("NOPERM"));
    assert!(client.call(&words("VDOC DEL docs a")).text().starts_with("NOPERM"));
    assert!(client.call(&words("VDOC GET others a")).text().starts_with("NOPERM"));
}

#[test]
fn a_server_that_is_read_only_shows_documents() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    server.connect().call(&add("docs", "a", "a cat", ""));
    assert!(server.terminate("TERM").success());
    let server = Server::start_in(folder.path(), &["--read-only", "yes"]);
    let mut client = server.connect();
    assert!(!client.call(&words("VDOC GET docs a")).is_error());
    assert!(client.call(&words("VDOC DEL docs a")).text().starts_with("READONLY"));
}

/// The ids of a search's documents, and of the chunks of each.
fn grouped(reply: &Value) -> Vec<(String, Vec<String>)> {
    let ids = |reply: &Value| reply.field("id").text();
    let group = |one: &Value| (ids(one), one.field("chunks").items().iter().map(ids).collect());
    reply.field("results").items().iter().map(group).collect()
}

#[test]
fn searches_are_grouped_by_document() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    // Each chunk is a line; vectors are of no matter here, words are.
    for (uri, text) in
        [("a", "ship ship\n\ncat"), ("b", "ship sea\n\nship sea sun\n\nsun"), ("c", "cat\n\ndog")]
    {
        client.call(&add("docs", uri, text, "CHUNK 3"));
    }
    client.call(&words("VADD docs TEXT ship plain"));
    let all = |client: &mut Client, asked: &str| client.call(&words(&format!("VSEARCH docs {asked}")));
    let found = all(&mut client, "MATCH ship GROUPBY DOC");
    let documents = grouped(&found);
    let mut ids: Vec<&str> = documents.iter().map(|(id, _)| id.as_str()).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["a", "b", "plain"], "{found:?}");
    let b = found.field("results").items().iter().find(|one| one.field("id").text() == "b").unwrap().clone();
    assert_eq!(b.field("chunks").items().len(), 2);
    let first = &b.field("chunks").items()[0];
    assert_eq!((first.field("start").number(), first.field("id").text().as_str()), (0.0, "b#0"));
    assert_eq!(b.field("score"), first.field("score"), "MAX is the best chunk's");
    // By hand: the mean of the two chunks.
    let plain: Vec<(String, f64)> = all(&mut client, "MATCH ship")
        .field("results")
        .items()
        .iter()
        .map(|one| (one.field("id").text(), one.field("score").number()))
        .collect();
    let of_b: Vec<f64> =
        plain.iter().filter(|(id, _)| id.starts_with("b#")).map(|(_, score)| *score).collect();
    let mean = all(&mut client, "MATCH ship GROUPBY DOC AGG MEAN");
    let b = mean.field("results").items().iter().find(|one| one.field("id").text() == "b").unwrap();
    assert!((b.field("score").number() - of_b.iter().sum::<f64>() / of_b.len() as f64).abs() < 1e-12);
    let scores: Vec<f64> =
        mean.field("results").items().iter().map(|one| one.field("score").number()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    // Pages are of documents, and TOP counts their chunks.
    let top = grouped(&all(&mut client, "MATCH ship GROUPBY DOC TOP 1 LIMIT 0 2"));
    assert!(top.len() == 2 && top.iter().all(|(_, chunks)| chunks.len() == 1), "{top:?}");
    assert_eq!(grouped(&all(&mut client, "MATCH ship GROUPBY DOC LIMIT 2 10")).len(), 1);
    let many = grouped(&all(&mut client, "VECTOR TEXT ship MATCH sea MMR 0.5 GROUPBY DOC TOP 2"));
    assert_eq!(many.len(), 4, "{many:?}");
    for (asked, reason) in [
        ("MATCH x GROUPBY DAY", "unexpected 'DAY'"),
        ("MATCH x GROUPBY DOC TOP 0", "TOP cannot be '0'"),
        ("MATCH x GROUPBY DOC AGG SUM", "AGG cannot be 'SUM'"),
        ("MATCH x GROUPBY", "needs a value"),
    ] {
        let reply = all(&mut client, asked);
        assert!(reply.is_error() && reply.text().contains(reason), "{reply:?}");
    }
    client.call(&add("more", "a", "ship", ""));
    let both = client.call(&words("VMSEARCH 2 docs more MATCH ship GROUPBY DOC"));
    let keyed = |one: &Value| (one.field("id").text(), one.field("key").text());
    let found: Vec<_> = both.field("results").items().iter().map(keyed).collect();
    assert!(found.contains(&("a".into(), "docs".into())) && found.contains(&("a".into(), "more".into())));
    let mut old = server.connect();
    let flat = old.call(&words("VSEARCH docs MATCH dog GROUPBY DOC"));
    let document = &flat.items()[1].items()[0];
    assert_eq!((document.items()[1].text().as_str(), document.items().len()), ("c", 6));
    assert_eq!(document.items()[5].items()[0].items().len(), 8, "id, score, start, end");
}

#[test]
fn as_many_documents_are_found_as_asked_for_although_long_ones_have_the_best_chunks() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    for long in ["long1", "long2"] {
        client.call(&add("docs", long, &"ship ship sea\n\n".repeat(150), "CHUNK 3"));
    }
    for number in 0..10 {
        client.call(&add("docs", &format!("short{number}"), "the tax of a ship is paid", ""));
    }
    assert_eq!(client.call(&words("VCARD docs")).number(), 310.0);
    client.call(&words("VADD docs TEXT tax plain"));
    let ids = |reply: &Value| -> Vec<String> { grouped(reply).into_iter().map(|(id, _)| id).collect() };
    for clauses in [
        "VECTOR TEXT ship",
        "VECTOR TEXT ship EXACT",
        "MATCH ship",
        "MATCH ship WINDOW 20",
        "VECTOR TEXT ship MATCH ship",
        "VECTOR TEXT ship MMR 0.7 POOL 20",
        "MATCH ship RERANK builtin DEPTH 20",
    ] {
        let asked = format!("VSEARCH docs {clauses} GROUPBY DOC TOP 1");
        let found = ids(&client.call(&words(&asked)));
        assert_eq!(found.len(), 10, "{clauses}: {found:?}");
        assert_eq!(found[0], "long1", "{clauses}");
        let next = ids(&client.call(&words(&format!("{asked} LIMIT 10 10"))));
        assert!(matches!(next.len(), 2 | 3) && !found.contains(&next[0]), "{clauses}: {next:?}");
    }
    let asked = words("VSEARCH docs MATCH ship GROUPBY DOC");
    let transaction = client.pipeline(&[words("MULTI"), asked.clone(), words("EXEC")]);
    assert_eq!(ids(&transaction[2].items()[0]).len(), 10);
    let both = client.call(&words("VMSEARCH 2 docs docs MATCH ship GROUPBY DOC LIMIT 0 24"));
    assert_eq!(ids(&both).len(), 24);
    // Who looks can see how far was searched; not further than there is something to find.
    let window = |client: &mut Client, asked: &str| {
        client.call(&words(&format!("{asked} EXPLAIN"))).field("plan").field("window").number()
    };
    assert_eq!(window(&mut client, "VSEARCH docs MATCH ship GROUPBY DOC"), 480.0);
    assert_eq!(window(&mut client, "VSEARCH docs MATCH ship GROUPBY DOC LIMIT 0 2"), 240.0);
    assert_eq!(window(&mut client, "VSEARCH docs MATCH ship MINSCORE 100 GROUPBY DOC"), 120.0);
    client.call(&add("few", "long", &"ship ship sea\n\n".repeat(150), "CHUNK 3"));
    assert_eq!(window(&mut client, "VSEARCH few MATCH ship GROUPBY DOC"), 120.0);
}

#[test]
fn code_is_split_at_its_items() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let rust = "use std::fmt;\n\n/// Où.\nfn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n\nfn sub(a: i32, b: i32) -> i32 {\n    a - b\n}\n\nfn mul(a: i32, b: i32) -> i32 {\n    a * b\n}\n";
    let mut texts = |uri: &str, text: &str| -> Vec<String> {
        let reply = client.call(&add("code", uri, text, "TYPE code CHUNK 40"));
        assert!(matches!(reply, Value::Integer(1..)), "{reply:?}");
        let found = client.call(&command(&["VDOC", "GET", "code", uri, "CHUNKS"]));
        assert_eq!(found.field("type").text(), "code");
        let span = |one: &Value| {
            let (start, end) = (one.field("start").number() as usize, one.field("end").number() as usize);
            assert_eq!(one.field("text").text(), text[start..end]);
            text[start..end].to_owned()
        };
        found.field("chunks").items().iter().map(span).collect()
    };
    let found = texts("src/lib.rs", rust);
    assert_eq!(found.concat(), rust);
    assert!(found[1].starts_with("fn sub") && found[2].starts_with("fn mul"), "{found:#?}");
    let python = "def a():\n    x = 1\n\n    return x\ndef b():\n    y = 2\n\n    return y\n".repeat(4);
    let found = texts("lib.py", &python);
    assert!(found.len() > 1 && found.iter().all(|chunk| chunk.starts_with("def ")), "{found:#?}");
    let found = texts("lib.unknown", &python);
    assert!(!found.iter().all(|chunk| chunk.starts_with("def ")), "what is not known is split as text");
    let broken = format!("fn {{ {} ) let", "((((".repeat(2000));
    assert_eq!(texts("broken.rs", &broken).concat(), broken);
}
