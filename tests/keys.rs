//! Keys as such: RENAME, SCAN and kin, OBJECT, MEMORY USAGE, DEBUG. Expiry is in `expiry.rs`.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::Duration;

use common::{Client, Command, Rng, Server, Value, vadd, words};

/// A moment far away, unix milliseconds, that does not end in whole seconds.
const FAR_MS: u64 = 33_177_117_420_500;
const DEBUG: [&str; 2] = ["--enable-debug-command", "yes"];

fn add(key: &str) -> String {
    format!("VADD {key} VALUES 2 1 0 a")
}

#[test]
fn rename_moves_everything() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &DEBUG);
    let mut client = server.connect();
    client.check(&[
        ("RENAME no k", "-ERR no such key"),
        ("RENAME no no", "-ERR no such key"),
        ("RENAME no", "-ERR wrong number of arguments for 'rename' command"),
        ("VADD a VALUES 2 1 2 x SETATTR '{\"n\":1}'", ":1"),
        (&format!("PEXPIREAT a {FAR_MS}"), ":1"),
        ("VADD b VALUES 3 1 2 3 y", ":1"),
        ("RENAME a a", "+OK"),
        ("VCARD a", ":1"),
    ]);
    let digest = client.ask("DEBUG DIGEST-VALUE a");
    client.check(&[
        ("RENAME a b", "+OK"),
        ("EXISTS a", ":0"),
        ("KEYS *", "[b]"),
        ("DBSIZE", ":1"),
        ("VEMB b x", "[1 2]"),
        ("VISMEMBER b y", ":0"),
        ("VGETATTR b x", "{\"n\":1}"),
        ("PEXPIRETIME b", &format!(":{FAR_MS}")),
        ("DEBUG DIGEST-VALUE b", &digest),
        // The expiry of a key that is replaced does not stay behind.
        ("VADD c VALUES 2 5 5 z", ":1"),
        ("RENAME c b", "+OK"),
        ("TTL b", ":-1"),
        ("VADD b VALUES 2 1 1 more", ":1"),
        ("VSIM b VALUES 2 5 5 COUNT 1", "[z]"),
        ("VREM b z more", ":2"),
        ("EXISTS b", ":0"),
        ("VADD d VALUES 2 1 1 x", ":1"),
        ("RENAME d e", "+OK"),
    ]);
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    server.connect().check(&[("KEYS *", "[e]"), ("VEMB e x", "[1 1]")]);
}

#[test]
fn rename_among_writes_that_wait() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[("VADD old VALUES 2 1 1 gone", ":1")]);
    let lines = [
        ("VADD a VALUES 2 1 2 x", ":1"),
        ("VADD a VALUES 2 3 4 y", ":1"),
        ("VREM a x", ":1"),
        ("RENAME a old", "+OK"),
        ("VADD old VALUES 2 5 6 z", ":1"),
        ("VADD a VALUES 3 1 1 1 other", ":1"),
        ("RENAME old b", "+OK"),
        ("VADD b VALUES 2 7 8 y", ":0"),
        ("VSETATTR b z attr", ":1"),
        ("RENAME a old", "+OK"),
        ("RENAME old a", "+OK"),
    ];
    for transaction in [false, true] {
        let mut commands: Vec<Command> = lines.iter().map(|(line, _)| words(line)).collect();
        if transaction {
            commands.insert(0, words("MULTI"));
            commands.push(words("EXEC"));
        }
        let replies = client.pipeline(&commands);
        let replies = if transaction { replies.last().unwrap().items() } else { &replies[..] };
        for ((line, expected), reply) in lines.iter().zip(replies) {
            assert_eq!(reply.to_string(), *expected, "{line}");
        }
        let expected = [
            ("DBSIZE", ":2"),
            ("VRANGE b - +", "[y z]"),
            ("VEMB b y", "[7 8]"),
            ("VGETATTR b z", "attr"),
            ("VISMEMBER b x", ":0"),
            ("VRANGE a - +", "[other]"),
            ("VDIM a", ":3"),
            ("EXISTS old", ":0"),
        ];
        client.check(&expected);
        client.check(&[("DEL a b", ":2")]);
        client.check(&[("VADD old VALUES 2 1 1 gone", ":1")]);
    }
    client.pipeline(&lines.map(|(line, _)| words(line)));
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    server.connect().check(&[("VRANGE b - +", "[y z]"), ("VRANGE a - +", "[other]"), ("DBSIZE", ":2")]);
}

#[test]
fn rename_counts_for_watch() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    for watched in ["a", "b", "none"] {
        client.check(&[("FLUSHALL", "+OK"), (&add("a"), ":1"), (&add("b"), ":1")]);
        client.check(&[(&format!("WATCH {watched}"), "+OK"), ("MULTI", "+OK"), ("VCARD a", "+QUEUED")]);
        let line = if watched == "none" { "RENAME a none" } else { "RENAME a b" };
        other.check(&[(line, "+OK")]);
        client.check(&[("EXEC", "nil")]);
    }
}

/// All keys a SCAN gives, with `between` called after each page.
fn scan(client: &mut Client, options: &str, mut between: impl FnMut()) -> Vec<String> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let page = client.call(&words(&format!("SCAN {cursor} {options}")));
        found.extend(page.items()[1].items().iter().map(Value::text));
        cursor = page.items()[0].text();
        assert!(cursor.parse::<i64>().is_ok_and(|cursor| cursor >= 0), "{cursor} fits a signed number");
        if cursor == "0" {
            return found;
        }
        between();
    }
}

#[test]
fn scan_options() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("SCAN 0", "[0 []]")]);
    let adds: Vec<Command> = (0..300).map(|index| words(&add(&format!("key:{index}")))).collect();
    client.pipeline(&adds);
    const SYNTAX: &str = "-ERR syntax error";
    const NOT_INTEGER: &str = "-ERR value is not an integer or out of range";
    client.check(&[
        ("SCAN x", "-ERR invalid cursor"),
        ("SCAN -1", "-ERR invalid cursor"),
        ("SCAN 99999999999999999999", "-ERR invalid cursor"),
        ("SCAN 0 COUNT", SYNTAX),
        ("SCAN 0 COUNT 0", SYNTAX),
        ("SCAN 0 COUNT -5", SYNTAX),
        ("SCAN 0 COUNT x", NOT_INTEGER),
        ("SCAN 0 WHAT 1", SYNTAX),
        ("SCAN 18446744073709551615", "[0 []]"),
        ("SCAN", "-ERR wrong number of arguments for 'scan' command"),
    ]);
    let mut all: Vec<String> = (0..300).map(|index| format!("key:{index}")).collect();
    all.sort();
    let every = [
        "",
        "COUNT 1",
        "count 7 match *",
        "COUNT 1000",
        "TYPE vectorset",
        "TYPE VECTORSET COUNT 50 MATCH key:*",
    ];
    for options in every {
        let mut found = scan(&mut client, options, || ());
        found.sort();
        assert_eq!(found, all, "{options}");
    }
    let mut found = scan(&mut client, "MATCH key:1? COUNT 20", || ());
    found.sort();
    assert_eq!(found, (10..20).map(|index| format!("key:{index}")).collect::<Vec<_>>());
    for options in ["MATCH nothing*", "TYPE string", "TYPE hash COUNT 1000"] {
        assert!(scan(&mut client, options, || ()).is_empty(), "{options}");
    }
}

#[test]
fn scan_misses_no_key_that_is_there_all_the_time() {
    let server = Server::start(&[]);
    let (mut client, mut writer) = (server.connect(), server.connect());
    let adds: Vec<Command> = (0..1000).map(|index| words(&add(&format!("key:{index}")))).collect();
    client.pipeline(&adds);
    let mut rng = Rng(51);
    for count in [1, 10, 77] {
        let mut step = 0;
        let found = scan(&mut client, &format!("COUNT {count}"), || {
            step += 1;
            writer.pipeline(&[
                words(&add(&format!("late:{step}"))),
                words(&add(&format!("key:{}", rng.below(1000)))),
                words(&format!("EXPIRE key:{} 1000", rng.below(1000))),
                words(&format!("RENAME late:{step} later:{step}")),
                words(&format!("DEL later:{}", step - 1)),
            ]);
        });
        let found: BTreeSet<String> = found.into_iter().collect();
        let missed = (0..1000).find(|index| !found.contains(&format!("key:{index}")));
        assert_eq!(missed, None, "COUNT {count}");
        writer.ask(&format!("DEL later:{step}"));
        assert_eq!(writer.ask("DBSIZE"), ":1000");
    }
}

#[test]
fn keys_randomkey_and_object() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("RANDOMKEY", "nil"), ("KEYS *", "[]")]);
    let names = ["one", "two", "three", "a*b", "a[b", "hello", "hallo", "hxllo", "''"];
    for name in names {
        client.check(&[(&add(name), ":1")]);
    }
    let mut keys = |pattern: &str| -> Vec<String> {
        let reply = client.call(&words(&format!("KEYS {pattern}")));
        let mut found: Vec<String> = reply.items().iter().map(Value::text).collect();
        found.sort();
        found
    };
    assert_eq!(keys("*").len(), names.len());
    assert_eq!(keys("t*"), ["three", "two"]);
    assert_eq!(keys("???"), ["a*b", "a[b", "one", "two"]);
    assert_eq!(keys("h?llo"), ["hallo", "hello", "hxllo"]);
    assert_eq!(keys("h[ae]llo"), ["hallo", "hello"]);
    assert_eq!(keys("h[^e]llo"), ["hallo", "hxllo"]);
    assert_eq!(keys("h[a-e]llo"), ["hallo", "hello"]);
    assert_eq!(keys("a\\*b"), ["a*b"]);
    assert_eq!(keys("a\\[b"), ["a[b"]);
    assert_eq!(keys("''"), [""]);
    assert_eq!(keys("ONE"), [""; 0]);
    let drawn: Vec<Command> = (0..5000).map(|_| words("RANDOMKEY")).collect();
    let drawn: BTreeSet<String> = client.pipeline(&drawn).iter().map(Value::text).collect();
    // How often each is drawn is not promised; some are drawn seldom.
    assert!(drawn.len() > names.len() / 2, "{drawn:?}");
    assert!(drawn.iter().all(|name| names.contains(&name.as_str()) || name.is_empty()), "{drawn:?}");

    client.check(&[
        ("OBJECT ENCODING one", "raw"),
        ("object refcount one", ":1"),
        ("OBJECT IDLETIME one", ":0"),
        ("OBJECT ENCODING no", "nil"),
        ("OBJECT REFCOUNT no", "nil"),
        ("OBJECT ENCODING", "-ERR wrong number of arguments for 'object|encoding' command"),
        ("OBJECT", "-ERR wrong number of arguments for 'object' command"),
        ("OBJECT WHAT one", "-ERR unknown subcommand 'WHAT'. Try OBJECT HELP."),
        ("TYPE one", "+vectorset"),
        ("MEMORY USAGE no", "nil"),
        ("MEMORY USAGE", "-ERR wrong number of arguments for 'memory|usage' command"),
        ("MEMORY WHAT one", "-ERR unknown subcommand 'WHAT'. Try MEMORY HELP."),
        ("MEMORY USAGE one SAMPLES", "-ERR syntax error"),
        ("MEMORY USAGE one SAMPLES x", "-ERR value is not an integer or out of range"),
    ]);
    assert!(client.ask("OBJECT FREQ one").starts_with("-ERR An LFU maxmemory policy is not selected"));
    assert!(client.ask("TOUCH one").starts_with("-ERR unknown command 'TOUCH'"));
    let usage = client.ask("MEMORY USAGE one");
    client.check(&[("memory usage one samples 0", &usage)]);
}

/// `used_memory`, once it stays the same.
fn used_memory(server: &Server) -> f64 {
    let mut client = server.connect();
    let mut read = || {
        let info = client.ask("INFO memory");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().to_owned();
        line.trim().parse::<f64>().unwrap()
    };
    let mut last = read();
    for _ in 0..100 {
        sleep(Duration::from_millis(30));
        let next = read();
        if next == last {
            break;
        }
        last = next;
    }
    last
}

/// Compares what MEMORY USAGE says of the key with what it added to the memory in use.
fn check_usage(name: &str, key: &str, commands: &[Command]) {
    let server = Server::start(&[]);
    // Buffers that such writes leave behind are there before.
    server.connect().pipeline(&commands[..500]);
    server.connect().ask("FLUSHALL");
    let before = used_memory(&server);
    let mut client = server.connect();
    for part in commands.chunks(500) {
        assert!(client.pipeline(part).iter().all(|reply| !reply.is_error()));
    }
    drop(client);
    let growth = used_memory(&server) - before;
    let told = server.connect().call(&words(&format!("MEMORY USAGE {key}"))).number();
    assert!((told - growth).abs() <= 0.05 * growth, "{name}: told {told}, grown by {growth}");
}

#[test]
fn memory_usage_is_true() {
    let mut rng = Rng(52);
    let mut adds = |count: usize, dim: usize, options: &str| -> Vec<Command> {
        (0..count).map(|index| vadd("k", &rng.vector(dim), &format!("element:{index}"), options)).collect()
    };
    let key = "k";
    check_usage("20,000 x 128", key, &adds(20_000, 128, ""));
    check_usage("5,000 x 384 NOQUANT", key, &adds(5_000, 384, "NOQUANT"));
    let attributes = "SETATTR '{\"year\":1984,\"title\":\"a title of some length\",\"tags\":[\"a\",\"b\"]}'";
    check_usage("10,000 x 64 with attributes", key, &adds(10_000, 64, attributes));
}

#[test]
fn debug_is_refused_by_default() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[(&add("k"), ":1")]);
    for line in ["DEBUG SLEEP 0", "DEBUG RELOAD", "DEBUG DIGEST-VALUE k"] {
        assert!(client.ask(line).starts_with("-ERR DEBUG command not allowed"), "{line}");
    }
    client.check(&[("DEBUG WHAT", "-ERR unknown subcommand 'WHAT'. Try DEBUG HELP.")]);
    assert!(client.ask("CONFIG SET enable-debug-command yes").starts_with("-ERR "));
    client.check(&[("VCARD k", ":1")]);
}

#[test]
fn digests_tell_of_every_change() {
    let server = Server::start(&DEBUG);
    let mut client = server.connect();
    let zero = "[+0000000000000000000000000000000000000000]";
    client.check(&[("DEBUG DIGEST-VALUE no", zero), ("VADD k VALUES 2 1 2 b SETATTR x", ":1")]);
    let mut seen = BTreeSet::from([zero.to_owned(), client.ask("DEBUG DIGEST-VALUE k")]);
    for change in [
        "VADD k VALUES 2 1 2 a",
        "VADD k VALUES 2 1 3 a",
        "VADD k VALUES 2 1 2 c",
        "VSETATTR k a x",
        "VSETATTR k a y",
        "VSETATTR k b y",
        "VSETATTR k b ''",
        "VREM k c",
        "VADD k VALUES 2 1 2.0000002 a",
        "VADD k VALUES 2 1 2 d SETATTR ''",
    ] {
        client.ask(change);
        assert!(seen.insert(client.ask("DEBUG DIGEST-VALUE k")), "{change}");
    }
    // Back to what was there: the same digest, in whatever order it came to be, under whatever key.
    let before = client.ask("DEBUG DIGEST-VALUE k");
    client.check(&[("VADD k VALUES 2 9 9 new", ":1"), ("VREM k a new", ":2")]);
    client.check(&[("VADD k VALUES 2 1 2.0000002 a SETATTR y", ":1"), ("DEBUG DIGEST-VALUE k", &before)]);
    client.check(&[
        ("VADD x VALUES 1 1 a", ":1"),
        ("VADD x VALUES 1 2 b", ":1"),
        ("VADD y VALUES 1 2 b", ":1"),
        ("VADD y VALUES 1 1 a", ":1"),
        ("VADD z VALUES 1 2 a", ":1"),
        ("VADD z VALUES 1 1 b", ":1"),
    ]);
    let digests = client.call(&words("DEBUG DIGEST-VALUE x y z no"));
    let [x, y, z, no] = digests.items() else { panic!("{digests}") };
    assert!(x == y && x != z && no.text() == zero[2..42] && x.text().len() == 40, "{digests}");
}

#[test]
fn digests_stay_over_reload_and_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &DEBUG);
    let mut client = server.connect();
    let mut rng = Rng(53);
    client.check(&[
        ("VCREATE codes DIM 20 RAW NO", "+OK"),
        ("VCREATE ip DIM 20 METRIC IP M 5", "+OK"),
        ("VCREATE empty DIM 3 METRIC L2", "+OK"),
    ]);
    let sets = [("codes", ""), ("ip", ""), ("f32", "NOQUANT"), ("bin", "BIN"), ("q8", "SETATTR '{\"a\":1}'")];
    for (key, options) in sets {
        for index in 0..300 {
            client.call(&vadd(key, &rng.vector(20), &format!("e{}", index % 200), options));
        }
        client.ask(&format!("VREM {key} e7 e8 e9"));
        client.ask(&format!("VSETATTR {key} e10 changed"));
    }
    client.check(&[(&format!("PEXPIREAT ip {FAR_MS}"), ":1")]);
    let state = |client: &mut Client| -> String {
        let fixed = ["quant-type", "hnsw-m", "vector-dim", "size", "attributes-count", "metric", "raw"];
        let infos = ["codes", "ip", "f32", "bin", "q8", "empty"].map(|key| {
            let info = client.call(&words(&format!("VINFO {key}")));
            fixed.map(|name| info.field(name).to_string()).join(" ")
        });
        let digests = client.ask("DEBUG DIGEST-VALUE codes ip f32 bin q8 empty");
        [digests, infos.join("\n"), client.ask("PEXPIRETIME ip"), client.ask("DBSIZE")].join("\n")
    };
    let expected = state(&mut client);
    assert!(expected.ends_with(&format!(":{FAR_MS}\n:6")), "{expected}");
    for step in ["DEBUG RELOAD", "DEBUG SLEEP 0", "SAVE", "debug reload"] {
        assert_eq!(client.ask(step), "+OK");
        assert_eq!(state(&mut client), expected, "{step}");
    }
    // The server goes on writing after a reload, on the newest state.
    client.check(&[(
        "VADD f32 VALUES 2 1 2 x NOQUANT",
        "-ERR Vector dimension mismatch - got 2 but set has 20",
    )]);
    client.check(&[("VSETATTR q8 e10 again", ":1"), ("VSETATTR q8 e10 changed", ":1")]);
    server.kill9();
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &DEBUG);
        let mut client = server.connect();
        assert_eq!(state(&mut client), expected);
        client.check(&[("SAVE", "+OK")]);
        server.kill9();
    }
}
