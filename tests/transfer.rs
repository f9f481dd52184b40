//! `vecdis import`, `export`: what goes out comes back, through every format and between servers.

#![allow(clippy::unwrap_used, clippy::cast_precision_loss)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{Client, Command, Rng, Server, Value, clustered, command, fp32, words};

const DIMS: usize = 8;
const COUNT: usize = 600;

fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn failed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    error
}

fn import(server: &Server, source: &str, key: &str) -> Output {
    common::run(&["import", source, "--key", key, "--server", &server.address.to_string()])
}

fn export(server: &Server, key: &str, target: &str) -> Output {
    common::run(&["export", key, target, "--server", &server.address.to_string()])
}

fn name(at: usize) -> String {
    format!("e{at}")
}

/// Vectors, most with attributes, some with a text, names among them that need quoting.
fn fill(client: &mut Client, key: &str) {
    let adds: Vec<Command> = clustered(&mut Rng(7), COUNT, DIMS)
        .iter()
        .enumerate()
        .map(|(at, vector)| {
            let attributes = format!(r#"{{"number":{at},"tag":"a, \"b\" {}"}}"#, at % 5);
            let text = format!("text {at}, \"quoted\"\nsecond line");
            let (blob, name) = (fp32(vector), name(at));
            let mut add = vec![&b"VADD"[..], key.as_bytes(), b"FP32", &blob, name.as_bytes()];
            if at % 3 > 0 {
                add.extend([&b"SETATTR"[..], attributes.as_bytes()]);
            }
            if at % 4 == 1 {
                add.extend([&b"SETTEXT"[..], text.as_bytes()]);
            }
            command(&add)
        })
        .collect();
    assert!(client.pipeline(&adds).iter().all(|reply| !reply.is_error()));
}

/// What a server holds of an element.
fn element(client: &mut Client, key: &str, at: usize) -> Value {
    let get = ["VGET", key, &name(at), "WITHVECTOR", "WITHATTRIBS", "WITHTEXT"];
    client.call(&command(&get))
}

fn is_same(a: &mut Client, b: &mut Client, key: &str, other: &str) {
    assert_eq!(a.call(&words(&format!("VCARD {key}"))), b.call(&words(&format!("VCARD {other}"))));
    for at in 0..COUNT {
        assert_eq!(element(a, key, at), element(b, other, at), "element {at}");
    }
    let search = |key: &str| {
        command(&["VSIM", key, "ELE", "e5", "WITHSCORES", "COUNT", "20", "FILTER", ".number > 9"])
    };
    assert_eq!(a.call(&search(key)), b.call(&search(other)));
}

#[test]
fn a_set_moves_from_server_to_server_with_attributes_and_texts() {
    let (from, to) = (Server::start(&[]), Server::start(&["--requirepass", "pw"]));
    let mut client = from.connect_resp3();
    assert_eq!(client.ask(&format!("VCREATE docs DIM {DIMS} METRIC L2 NOQUANT")), "+OK");
    fill(&mut client, "docs");
    fill(&mut client, "more");
    let target = format!("redis://:pw@{}/copy", to.address);
    let said = succeeded(&export(&from, "docs", &target));
    assert!(said.contains("600 elements"), "{said}");
    let mut other = to.connect_resp3();
    assert_eq!(other.ask("AUTH pw"), "+OK");
    other.call(&words("HELLO 3"));
    is_same(&mut client, &mut other, "docs", "copy");
    let info = other.call(&words("VINFO copy"));
    assert_eq!(
        (info.field("metric").text().to_lowercase().as_str(), info.field("quant-type").text().as_str()),
        ("l2", "f32")
    );

    // All sets of a server at once, and a set under another name.
    let source = format!("redis://{}", from.address);
    let target = format!("redis://:pw@{}", to.address);
    succeeded(&common::run(&["import", &source, "--server", &target]));
    is_same(&mut client, &mut other, "more", "more");
    succeeded(&common::run(&["import", &format!("{source}/more"), "--key", "again", "--server", &target]));
    is_same(&mut client, &mut other, "more", "again");
    let refused = common::run(&["import", &source, "--server", &to.address.to_string()]);
    assert!(failed(&refused).contains("NOAUTH"));
    assert!(failed(&export(&from, "nosuch", "/tmp/x.jsonl")).contains("no vector set \"nosuch\""));
}

#[test]
fn every_format_gives_back_what_it_keeps() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    fill(&mut client, "docs");
    let folder = tempfile::tempdir().unwrap();
    for (format, keeps_all) in [("jsonl", true), ("csv", true), ("npy", false), ("fvecs", false)] {
        let file = folder.path().join(format!("docs.{format}"));
        let file = file.to_str().unwrap();
        let said = succeeded(&export(&server, "docs", file));
        assert!(said.contains("600 elements") && said.contains("not kept") != keeps_all, "{said}");
        succeeded(&import(&server, file, format));
        let mut other = server.connect_resp3();
        if keeps_all {
            is_same(&mut client, &mut other, "docs", format);
        } else {
            for at in 0..COUNT {
                let (a, b) = (element(&mut client, "docs", at), element(&mut other, format, at));
                assert_eq!(a.field("vector"), b.field("vector"), "element {at}");
            }
        }
    }
    assert!(!common::files_below(folder.path()).iter().any(|file| file.ends_with(".part")));
}

#[test]
fn files_of_other_programs_are_read() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let npy = |kind: &str, numbers: &[u8]| {
        let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': (2, 3), }}\n");
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), numbers].concat()
    };
    let doubles: Vec<u8> = [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    // 1, -2, 0.5 and the smallest number above zero, in 16 bits.
    let halves: Vec<u8> =
        [0x3c00u16, 0xc000, 0x3800, 0x0001, 0x3c00, 0x3c00].iter().flat_map(|x| x.to_le_bytes()).collect();
    for (key, kind, numbers, wanted) in [
        ("f8", "<f8", doubles, [4.0, 5.0, 6.0]),
        ("f2", "<f2", halves, [2.0f64.powi(-24), 1.0, 1.0]),
        ("u1", "|u1", vec![1, 2, 3, 200, 5, 6], [200.0, 5.0, 6.0]),
        ("i1", "|i1", vec![1, 2, 3, 200, 5, 6], [-56.0, 5.0, 6.0]),
    ] {
        succeeded(&import(&server, &write(&format!("{key}.npy"), &npy(kind, &numbers)), key));
        let vector = client.call(&words(&format!("VEMB {key} 1")));
        let found: Vec<f64> = vector.items().iter().map(Value::number).collect();
        assert_eq!(found, wanted, "{key}");
    }

    let lines = "{\"id\": 7, \"vector\": [1, 0], \"attributes\": {\"b\": 1.0, \"a\": 2}}\n\n{\"id\": \"x\", \"vector\": [0, 1]}\n";
    succeeded(&import(&server, &write("a.jsonl", lines.as_bytes()), "lines"));
    assert_eq!(client.call(&words("VGETATTR lines 7")).text(), "{\"a\":2,\"b\":1.0}");
    let table = "id,text,year,title,list\nfirst,a cat on the sofa,1994,\"Cats, etc\",\"[1,2]\"\nsecond,a ship at sea,,,\n";
    succeeded(&import(&server, &write("a.csv", table.as_bytes()), "table"));
    let found = client.call(&command(&[
        "VSIM",
        "table",
        "TEXT",
        "kitten",
        "COUNT",
        "1",
        "FILTER",
        ".year < 2000 and 2 in .list",
    ]));
    assert_eq!(found.items()[0].text(), "first", "texts are embedded by the server");
    assert_eq!(client.call(&words("VGETATTR table second")), Value::Null);

    for (name, content, said) in [
        ("b.npy", npy("<f4", &[0; 20]), "b.npy"),
        ("c.npy", npy(">f4", &[0; 24]), "two dimensions"),
        ("d.npy", b"PK\x03\x04 is no array".to_vec(), "does not begin"),
        ("e.fvecs", vec![255; 8], "dimensions"),
        ("f.jsonl", b"{\"id\": 1}\n".to_vec(), "line 1"),
        ("g.jsonl", b"{\"id\": 1, \"vector\": [1, \"x\"]}\n".to_vec(), "line 1"),
        ("h.csv", b"name,vector\na,1 2\n".to_vec(), "column id"),
        ("i.csv", b"id,vector\na,1 two\n".to_vec(), "line 2"),
        ("j.txt", b"1 2".to_vec(), ".npy, .fvecs"),
    ] {
        let error = failed(&import(&server, &write(name, &content), "bad"));
        assert!(error.contains(said), "{name}: {error}");
    }
    assert_eq!(client.ask("EXISTS bad"), ":0");
    assert!(failed(&import(&server, "/no/such.npy", "bad")).contains("/no/such.npy"));
    assert!(Path::new(&folder.path().join("a.csv")).exists());
}

#[test]
fn recall_is_measured_against_the_exact_answers() {
    let server = Server::start(&[]);
    fill(&mut server.connect_resp3(), "docs");
    let address = server.address.to_string();
    let arguments = ["recall", "docs", "--server", &address, "--queries", "50", "--count", "5"];
    let said = succeeded(&common::run(&arguments));
    assert!(said.contains("recall@5") && said.contains("50 queries"), "{said}");
    let said = succeeded(&common::run(&[&arguments[..], &["--json"]].concat()));
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(found["recall_mean"].as_f64().unwrap() > 0.95, "{found}");
    assert_eq!(found["queries"], 50);
    assert!(failed(&common::run(&["recall", "nosuch", "--server", &address])).contains("nosuch"));
}

#[test]
fn a_bench_loads_searches_and_cleans_up() {
    let server = Server::start(&[]);
    let address = server.address.to_string();
    let few =
        ["--elements", "2000", "--dims", "16", "--queries", "200", "--connections", "2", "--pipeline", "4"];
    let said = succeeded(&common::run(&[&["bench", "--server", &address, "--json"][..], &few].concat()));
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(found["load"]["operations"], 2000);
    assert_eq!(found["search"]["operations"], 200);
    assert!(found["search"]["latency_p99_us"].as_f64() >= found["search"]["latency_p50_us"].as_f64());
    assert!(found["recall_mean"].as_f64().unwrap() > 0.9, "{found}");
    assert_eq!(server.connect().ask("DBSIZE"), ":0", "the bench's set is gone");
    let said = succeeded(&common::run(&[&["bench", "--server", &address][..], &few].concat()));
    assert!(said.contains("load") && said.contains("search") && said.contains("p99"), "{said}");
}

#[test]
fn indexes_of_vectra_are_imported() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/vectra");
    let server = Server::start(&[]);
    let address = server.address.to_string();
    let import = |folder: &str, options: &[&str]| {
        let folder = format!("{fixtures}/{folder}");
        let output =
            common::run(&[&["import", &folder, "--from", "vectra", "--server", &address], options].concat());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    assert_eq!(import("items", &["--key", "items"]), "items: 2 elements\n");
    let mut client = server.connect_resp3();
    let apple = client.call(&words("VGET items apple WITHVECTOR WITHATTRIBS"));
    let vector: Vec<f64> = apple.field("vector").items().iter().map(Value::number).collect();
    assert!(vector.iter().zip([1.0, 0.0, 0.5]).all(|(a, b)| (a - b).abs() < 1e-6), "{vector:?}");
    assert_eq!(apple.field("attributes").text(), r#"{"colour":"red","note":"sweet"}"#);
    assert_eq!(import("docs", &["--key", "docs"]), "docs: 2 documents\n");
    let guide = client.call(&words("VDOC GET docs guide.md CHUNKS"));
    assert_eq!(
        (guide.field("type").text().as_str(), guide.field("attributes").text().as_str()),
        ("md", r#"{"year":2026}"#)
    );
    assert!(guide.field("chunks").items()[0].field("text").text().starts_with("# Boats\n\nA ship"));
    assert_eq!(client.call(&words("VDOC GET docs notes")).field("type").text(), "txt");
    assert!(import("nosuch", &["--key", "k"]).contains("index.json"));
    assert!(import("docs", &[]).contains("--key"));
}

/// A collection with everything that one can have.
fn fill_whole(client: &mut Client) {
    let guide = "# Boats\n\nA ship sails over the ocean. The captain steers the boat to the harbour.\n\n# Taxes\n\nThe government raised the income tax. Citizens pay money to the state.\n\n# Health\n\nThe doctor gives the patient a medicine.\n";
    let created = "VCREATE lib MODEL builtin METRIC IP NOQUANT INDEX FLAT M 24 EF 77 ANALYZER standard FIELD title DIM 3 FIELD cover DIM 2";
    for asked in [
        words(created),
        command(&[
            "VDOC",
            "ADD",
            "lib",
            "guide.md",
            guide,
            "TYPE",
            "md",
            "CHUNK",
            "24",
            "ATTR",
            r#"{"year":2026}"#,
        ]),
        command(&["VDOC", "ADD", "lib", "a \"b\" #1", "a cat\non the sofa", "OVERLAP", "3"]),
        words("VREM lib guide.md#1"),
        command(&["VSETATTR", "lib", "guide.md#2", r#"{"year":1999}"#]),
        command(&[
            "VADD",
            "lib",
            "TEXT",
            "Running shoes",
            "shoe",
            "SETSPARSE",
            "2",
            "dog",
            "1.5",
            "puppy",
            "0.1",
        ]),
        words("VEXPIRE lib shoe 5000"),
        words("VADD lib TEXT boots boot SETSPARSE 1 dog 0.75"),
        words("VADD lib VALUES 3 1 2 0.1 shoe FIELD title"),
        words("VADD lib VALUES 3 3 2 1 guide.md#0 FIELD title"),
        words("VADD lib VALUES 2 3 2 guide.md#0 FIELD cover"),
    ] {
        let reply = client.call(&asked);
        assert!(!reply.is_error(), "{reply:?}");
    }
}

/// What a server says of such a collection.
fn told(client: &mut Client, key: &str) -> Vec<Value> {
    let mut told = Vec::new();
    let info = client.call(&words(&format!("VINFO {key}")));
    for name in [
        "quant-type",
        "hnsw-m",
        "vector-dim",
        "size",
        "metric",
        "raw",
        "index",
        "ef",
        "model",
        "model-hash",
        "analyzer",
        "documents",
    ] {
        told.push(info.field(name).clone());
    }
    told.extend(["title", "cover"].map(|field| info.field("fields").field(field).field("dim").clone()));
    let listed = client.call(&words(&format!("VDOC LIST {key} 0")));
    assert_eq!(listed.items()[1].items().len(), 2);
    for uri in ["guide.md", "a \"b\" #1"] {
        told.push(client.call(&command(&["VDOC", "GET", key, uri, "CHUNKS"])));
        told.push(client.call(&command(&["VDOC", "DUMP", key, uri])));
    }
    for element in ["guide.md#0", "guide.md#2", "a \"b\" #1#0", "boot"] {
        let parts = ["VGET", key, element, "WITHVECTOR", "WITHATTRIBS", "WITHTEXT", "WITHSPARSE"];
        told.push(client.call(&command(&parts)));
    }
    for asked in [
        "VGET KEY shoe WITHSPARSE",
        "VEMB KEY shoe FIELD title",
        "VEMB KEY guide.md#0 FIELD cover",
        "VEMB KEY boot FIELD title",
        "VSEARCH KEY SPARSE 2 dog 1 puppy 2",
        "VSEARCH KEY MATCH running",
        "VSEARCH KEY MATCH run",
        "VSEARCH KEY VECTOR TEXT ship MATCH boat GROUPBY DOC",
        "VSEARCH KEY VECTOR VALUES 3 1 1 1 FIELD title WITHATTRIBS",
        "VDOC SECTIONS KEY guide.md TOKENS 40 QUERY health",
    ] {
        told.push(client.call(&words(&asked.replace("KEY", key))));
    }
    // That moment is told to the second.
    let shoe = told.iter_mut().find_map(|reply| match reply {
        Value::Map(parts) if parts.iter().any(|(name, _)| name.text() == "expires_ms") => Some(parts),
        _ => None,
    });
    shoe.unwrap().retain(|(name, _)| name.text() != "expires_ms");
    let seconds = client.call(&words(&format!("VTTL {key} shoe"))).number();
    assert!((4990.0..=5001.0).contains(&seconds), "{seconds}");
    assert_eq!(client.call(&words(&format!("VTTL {key} boot"))), Value::Integer(-1));
    told
}

fn assert_told(found: &[Value], wanted: &[Value], what: &str) {
    for (at, (one, other)) in found.iter().zip(wanted).enumerate() {
        assert!(one == other, "{what}, reply {at}: {one:.300} is not {other:.300}");
    }
}

#[test]
fn a_collection_comes_back_whole_from_a_file_and_from_another_server() {
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let mut client = from.connect_resp3();
    fill_whole(&mut client);
    let before = told(&mut client, "lib");
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let said = succeeded(&export(&from, "lib", &file("lib.jsonl")));
    assert!(said.contains("5 elements, 2 documents\n"), "{said}");
    let said = succeeded(&import(&to, &file("lib.jsonl"), "lib"));
    assert!(said.contains("5 elements, 2 documents\n"), "{said}");
    succeeded(&export(&from, "lib", &format!("redis://{}/copy", to.address)));
    let mut other = to.connect_resp3();
    for key in ["lib", "copy"] {
        assert_told(&told(&mut other, key), &before, key);
    }
    // A document that has not changed is known as such.
    let rows = |client: &mut Client| client.call(&words("VINFO copy")).field("rows").number();
    let written = rows(&mut other);
    let add = command(&["VDOC", "ADD", "copy", "a \"b\" #1", "a cat\non the sofa", "OVERLAP", "3"]);
    assert_eq!((other.call(&add).number(), rows(&mut other)), (1.0, written));
    // What another format cannot keep is said.
    for (name, lost) in [("lib.csv", "2 documents are lost"), ("lib.npy", "are not kept; that")] {
        let said = succeeded(&export(&from, "lib", &file(name)));
        assert!(said.contains(lost) && said.contains("not kept"), "{said}");
    }
    // Once again over what is there: chunks of an older document go.
    other.call(&command(&["VDOC", "ADD", "lib", "guide.md", &"A long text.\n\n".repeat(30), "CHUNK", "5"]));
    succeeded(&import(&to, &file("lib.jsonl"), "lib"));
    assert_told(&told(&mut other, "lib"), &before, "lib again");
}

#[test]
fn dumps_of_documents_are_checked() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    client.call(&words("VDOC ADD docs a text"));
    let Value::Bulk(dump) = client.call(&words("VDOC DUMP docs a")) else { panic!("a dump is bytes") };
    assert_eq!(client.call(&words("VDOC DUMP docs b")), Value::Null);
    let mut restore = |key: &str, uri: &str, dump: &[u8]| {
        client.call(&command(&[&b"VDOC"[..], b"RESTORE", key.as_bytes(), uri.as_bytes(), dump])).text()
    };
    assert_eq!(restore("docs", "a", &dump), "OK");
    assert!(restore("nosuch", "a", &dump).contains("key does not exist"));
    assert!(restore("docs", "b", &dump).contains("none of the document's chunks"));
    for cut in 0..dump.len() {
        assert!(restore("docs", "a", &dump[..cut]).contains("damaged"), "{cut}");
    }
    let mut newer = dump.clone();
    newer[0] = 2;
    assert!(restore("docs", "a", &newer).contains("another version"));
    assert_eq!(client.call(&words("VDOC GET docs a")).field("count").number(), 1.0);
}
