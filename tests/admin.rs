//! Connections and the server itself: CLIENT, RESET, COMMAND, CONFIG SET, TIME.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use common::data::Op;
use common::{Client, Command, Model, Rng, Server, Value, command, vadd, words};

/// A field of a line of CLIENT LIST.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let found = line.split_whitespace().find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {line}"))
}

fn list(client: &mut Client, options: &str) -> Vec<String> {
    let reply = client.call(&words(&format!("CLIENT LIST {options}"))).text();
    reply.lines().map(str::to_owned).collect()
}

fn id(client: &mut Client) -> String {
    client.call(&words("CLIENT ID")).number().to_string()
}

fn address(client: &Client) -> String {
    client.stream.local_addr().unwrap().to_string()
}

/// Waits until there are only so many connections.
fn wait_for_clients(client: &mut Client, count: usize) {
    let begin = std::time::Instant::now();
    while list(client, "").len() != count {
        assert!(begin.elapsed() < common::WAIT_MAX);
        std::thread::yield_now();
    }
}

#[test]
fn client_list_shows_connections() {
    let server = Server::start(&[]);
    let mut one = server.connect();
    one.check(&[("PING", "+PONG")]);
    let mut two = server.connect_resp3();
    two.check(&[
        ("CLIENT SETNAME second", "+OK"),
        ("CLIENT SETINFO LIB-NAME lib", "+OK"),
        ("CLIENT SETINFO LIB-VER 1.2", "+OK"),
        ("WATCH a b", "+OK"),
        ("MULTI", "+OK"),
        ("VCARD a", "+QUEUED"),
    ]);
    let lines = list(&mut one, "");
    assert_eq!(lines.len(), 2);
    let first = &lines[0];
    let expected = [("id", id(&mut one)), ("addr", address(&one)), ("laddr", server.address.to_string())];
    for (name, value) in expected {
        assert_eq!(field(first, name), value);
    }
    for (name, value) in [("name", ""), ("resp", "2"), ("multi", "-1"), ("db", "0"), ("user", "default")] {
        assert_eq!(field(first, name), value, "{name}");
    }
    for (name, value) in [
        ("name", "second"),
        ("resp", "3"),
        ("multi", "1"),
        ("watch", "2"),
        ("lib-name", "lib"),
        ("lib-ver", "1.2"),
        ("cmd", "vcard"),
    ] {
        assert_eq!(field(&lines[1], name).to_lowercase(), value, "{name} in {}", lines[1]);
    }
    assert!(field(first, "age").parse::<u64>().is_ok() && field(first, "idle").parse::<u64>().is_ok());
    two.check(&[("DISCARD", "+OK")]);
    let (one_id, two_id) = (id(&mut one), id(&mut two));
    assert_eq!(list(&mut one, &format!("ID {two_id}")).len(), 1);
    assert_eq!(list(&mut one, &format!("ID {one_id} {two_id} 999999")).len(), 2);
    assert_eq!(list(&mut one, "type normal").len(), 2);
    for kind in ["master", "replica", "pubsub"] {
        assert!(list(&mut one, &format!("TYPE {kind}")).is_empty());
    }
    one.check(&[
        ("CLIENT LIST WHAT", "-ERR syntax error"),
        ("CLIENT LIST ID", "-ERR syntax error"),
        ("CLIENT LIST ID x", "-ERR Invalid client ID"),
        ("CLIENT LIST TYPE what", "-ERR Unknown client type 'what'"),
        ("CLIENT WHAT", "-ERR unknown subcommand 'WHAT'. Try CLIENT HELP."),
        ("CLIENT", "-ERR wrong number of arguments for 'client' command"),
        ("CLIENT ID x", "-ERR wrong number of arguments for 'client|id' command"),
    ]);
    assert!(one.raw("CLIENT LIST").starts_with('$'));
    assert!(two.raw("CLIENT LIST").starts_with('='));
    drop(two);
    wait_for_clients(&mut one, 1);
}

#[test]
fn client_kill_ends_connections() {
    let server = Server::start(&[]);
    let mut one = server.connect();
    let own = id(&mut one);
    let filters: [&dyn Fn(&mut Client) -> String; 5] = [
        &|other| format!("ID {}", id(other)),
        &|other| format!("addr {}", address(other)),
        &|_| format!("LADDR {}", server.address),
        &|other| format!("ID {} TYPE normal USER default SKIPME no", id(other)),
        &|_| "TYPE normal SKIPME yes".to_owned(),
    ];
    for filter in filters {
        let mut other = server.connect();
        other.check(&[("PING", "+PONG")]);
        let line = format!("CLIENT KILL {}", filter(&mut other));
        assert_eq!(one.ask(&line), ":1", "{line}");
        assert!(other.is_closed(), "{line}");
        wait_for_clients(&mut one, 1);
    }
    let mut other = server.connect();
    other.check(&[("PING", "+PONG")]);
    one.check(&[
        (&format!("CLIENT KILL {}", address(&other)), "+OK"),
        ("CLIENT KILL 127.0.0.1:1", "-ERR No such client"),
        ("CLIENT KILL ID 999999", ":0"),
        ("CLIENT KILL MAXAGE 1000000", ":0"),
        (&format!("CLIENT KILL ID {own}"), ":0"),
        (&format!("CLIENT KILL ADDR {} SKIPME yes", address(&one)), ":0"),
        ("CLIENT KILL TYPE pubsub", ":0"),
        ("CLIENT KILL ID", "-ERR No such client"),
        ("CLIENT KILL ID x SKIPME yes", "-ERR client-id should be greater than 0"),
        ("CLIENT KILL WHAT 1", "-ERR syntax error"),
        ("CLIENT KILL ID 1 SKIPME", "-ERR syntax error"),
        ("CLIENT KILL ID 1 SKIPME maybe", "-ERR syntax error"),
        ("CLIENT KILL", "-ERR wrong number of arguments for 'client|kill' command"),
    ]);
    assert!(other.is_closed());
    // Its own end comes after the answer, and after the replies before it.
    one.pipeline(&[words("PING")]);
    let replies = one.pipeline(&[words("PING"), words(&format!("CLIENT KILL ID {own} SKIPME no"))]);
    assert_eq!(replies, [Value::Simple("PONG".into()), Value::Integer(1)]);
    assert!(one.is_closed());
    // One that waits in the middle of a request, and one with an open transaction.
    let (mut one, mut half, mut queued) = (server.connect(), server.connect(), server.connect());
    half.send(b"*2\r\n$4\r\nECHO\r\n$100\r\nabc");
    queued.check(&[("MULTI", "+OK"), ("VADD k VALUES 1 1 a", "+QUEUED")]);
    wait_for_clients(&mut one, 3);
    one.check(&[("CLIENT KILL TYPE normal", ":2"), ("EXISTS k", ":0")]);
    assert!(half.is_closed() && queued.is_closed());
}

#[test]
fn client_reply_decides_what_is_answered() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let mut exchange = |lines: &[&str], expected: &[&str]| {
        let mut request = Vec::new();
        for line in lines.iter().chain(&["ECHO end"]) {
            common::client::encode(&words(line), &mut request);
        }
        client.send(&request);
        for expected in expected.iter().chain(&["end"]) {
            assert_eq!(client.read().to_string(), *expected, "{lines:?}");
        }
    };
    exchange(&["CLIENT REPLY ON", "PING"], &["+OK", "+PONG"]);
    exchange(&["CLIENT REPLY SKIP", "PING"], &[]);
    exchange(&["CLIENT REPLY SKIP", "NONSENSE", "PING"], &["+PONG"]);
    exchange(&["CLIENT REPLY SKIP", "CLIENT REPLY ON"], &["+OK"]);
    exchange(
        &["client reply off", "PING", "VADD k VALUES 1 1 a", "VSIM k ELE a", "CLIENT REPLY ON"],
        &["+OK"],
    );
    exchange(
        &["CLIENT REPLY OFF", "NONSENSE", "SAVE", "VCARD k", "CLIENT REPLY ON", "VCARD k"],
        &["+OK", ":1"],
    );
    exchange(&["CLIENT REPLY OFF", "MULTI", "VADD k VALUES 1 1 b", "EXEC", "CLIENT REPLY ON"], &["+OK"]);
    exchange(&["VCARD k", "CLIENT REPLY MAYBE"], &[":2", "-ERR syntax error"]);
    exchange(&["CLIENT REPLY"], &["-ERR wrong number of arguments for 'client|reply' command"]);
}

#[test]
fn client_switches_are_taken_or_refused() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[
        ("CLIENT NO-EVICT ON", "+OK"),
        ("client no-evict off", "+OK"),
        ("CLIENT NO-TOUCH ON", "+OK"),
        ("CLIENT NO-TOUCH OFF", "+OK"),
        ("CLIENT NO-EVICT WHAT", "-ERR syntax error"),
        ("CLIENT NO-TOUCH", "-ERR wrong number of arguments for 'client|no-touch' command"),
    ]);
    for line in ["CLIENT TRACKING ON", "CLIENT TRACKING on BCAST", "CLIENT TRACKING OFF"] {
        assert!(client.ask(line).starts_with("-ERR "), "{line}");
    }
    client.check(&[("PING", "+PONG")]);
}

#[test]
fn reset_makes_a_connection_new() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect_resp3(), server.connect());
    client.check(&[
        ("VADD k VALUES 1 1 a", "#t"),
        ("CLIENT SETNAME me", "+OK"),
        ("WATCH k", "+OK"),
        ("MULTI", "+OK"),
        ("VADD k VALUES 1 1 b", "+QUEUED"),
    ]);
    client.protocol = 2;
    client.check(&[
        ("RESET", "+RESET"),
        ("CLIENT GETNAME", "nil"),
        ("EXEC", "-ERR EXEC without MULTI"),
        ("VISMEMBER k a", ":1"),
        ("VCARD k", ":1"),
        ("WATCH k", "+OK"),
        ("RESET", "+RESET"),
    ]);
    other.check(&[("VADD k VALUES 1 1 c", ":1")]);
    client.check(&[("MULTI", "+OK"), ("VCARD k", "+QUEUED"), ("EXEC", "[:2]")]);
    client.send(b"CLIENT REPLY OFF\r\nPING\r\nRESET\r\nPING\r\n");
    assert_eq!((client.read().to_string(), client.read().to_string()), ("+RESET".into(), "+PONG".into()));
    client.check(&[("RESET x", "-ERR wrong number of arguments for 'reset' command")]);
    client.check(&[("CONFIG SET requirepass secret", "+OK"), ("VCARD k", ":2"), ("RESET", "+RESET")]);
    client.check(&[("VCARD k", "-NOAUTH Authentication required."), ("RESET", "+RESET")]);
    client.check(&[("AUTH secret", "+OK"), ("VCARD k", ":2")]);
}

/// Names of all commands, as COMMAND gives them, and the entries.
fn command_table(client: &mut Client) -> Vec<(String, Value)> {
    let table = client.call(&words("COMMAND"));
    table.items().iter().map(|entry| (entry.items()[0].text(), entry.clone())).collect()
}

#[test]
fn command_list_names_all() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let all: Vec<String> = command_table(&mut client).into_iter().map(|(name, _)| name).collect();
    let mut listed = |options: &str| -> Vec<String> {
        let reply = client.call(&words(&format!("COMMAND LIST {options}")));
        reply.items().iter().map(Value::text).collect()
    };
    assert_eq!(listed(""), all);
    assert_eq!(listed("FILTERBY PATTERN v*d"), ["VADD", "VCARD", "VEMBED", "VMADD"]);
    assert_eq!(listed("filterby pattern PING"), ["ping"]);
    let vectors: Vec<String> = all.iter().filter(|name| name.starts_with('V')).cloned().collect();
    assert_eq!(listed("FILTERBY MODULE vectorset"), vectors);
    assert!(listed("FILTERBY MODULE none").is_empty());
    let writes = listed("FILTERBY ACLCAT write");
    for name in ["VADD", "VREM", "del", "rename", "expire"] {
        assert!(writes.iter().any(|write| write == name), "{name} in {writes:?}");
    }
    assert!(!writes.iter().any(|write| write == "VSIM" || write == "ttl"));
    client.check(&[
        ("COMMAND LIST FILTERBY", "-ERR syntax error"),
        ("COMMAND LIST FILTERBY WHAT x", "-ERR syntax error"),
        ("COMMAND LIST WHAT PATTERN x", "-ERR syntax error"),
        ("COMMAND WHAT", "-ERR unknown subcommand 'WHAT'. Try COMMAND HELP."),
    ]);
}

#[test]
fn command_getkeys_finds_the_keys() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    const NO_KEYS: &str = "-ERR The command has no key arguments";
    client.check(&[
        ("COMMAND GETKEYS VADD k VALUES 1 1 a", "[k]"),
        ("command getkeys vsim k ELE a COUNT 5", "[k]"),
        ("COMMAND GETKEYS VREM k a b", "[k]"),
        ("COMMAND GETKEYS DEL a b c", "[a b c]"),
        ("COMMAND GETKEYS RENAME a b", "[a b]"),
        ("COMMAND GETKEYS OBJECT ENCODING k", "[k]"),
        ("COMMAND GETKEYS MEMORY USAGE k SAMPLES 5", "[k]"),
        ("COMMAND GETKEYS EXPIRE k 10 NX", "[k]"),
        ("COMMAND GETKEYS WATCH a b", "[a b]"),
        ("COMMAND GETKEYS PING", NO_KEYS),
        ("COMMAND GETKEYS SCAN 0", NO_KEYS),
        ("COMMAND GETKEYS VLIST", NO_KEYS),
        ("COMMAND GETKEYS NONSENSE a", "-ERR Invalid command specified"),
        ("COMMAND GETKEYS VADD k", "-ERR Invalid number of arguments specified for command"),
        ("COMMAND GETKEYS PING a b c", NO_KEYS),
    ]);
    for (name, entry) in command_table(&mut client) {
        let entry = entry.items();
        let [arity, first, last, step] = [1, 3, 4, 5].map(|at| entry[at].number() as i64);
        let count = if arity > 0 { arity } else { arity.abs().max(4) };
        let call: Vec<String> =
            std::iter::once(name.clone()).chain((1..count).map(|at| format!("w{at}"))).collect();
        let reply = client.ask(&format!("COMMAND GETKEYS {}", call.join(" ")));
        if first == 0 {
            assert_eq!(reply, NO_KEYS, "{name}");
        } else {
            let last = if last < 0 { count + last } else { last };
            let keys: Vec<&str> =
                (first..=last).step_by(step as usize).map(|at| call[at as usize].as_str()).collect();
            assert_eq!(reply, format!("[{}]", keys.join(" ")), "{name}");
        }
    }
}

/// Checks an argument of COMMAND DOCS and what is in it. Gives how many words it needs at least, were it not optional.
fn check_argument(command: &str, argument: &Value, keys: &mut usize) -> usize {
    let has = |name: &str| matches!(argument, Value::Map(fields) if fields.iter().any(|(key, _)| key.text() == name));
    let kind = argument.field("type").text();
    let name = argument.field("name").text();
    assert!(!name.is_empty() && !name.contains(char::is_whitespace), "{command}: {argument}");
    let token = usize::from(has("token"));
    if has("token") {
        assert!(!argument.field("token").text().is_empty(), "{command}: {argument}");
    }
    let inner: Vec<usize> = match has("arguments") {
        true => {
            let inner = argument.field("arguments").items().iter();
            inner.map(|inner| least_words(command, inner, keys)).collect()
        }
        false => Vec::new(),
    };
    match kind.as_str() {
        "oneof" => {
            assert!(inner.len() >= 2, "{command}: {argument}");
            token + inner.iter().min().unwrap()
        }
        "block" => {
            assert!(inner.len() >= 2, "{command}: {argument}");
            token + inner.iter().sum::<usize>()
        }
        "pure-token" => {
            assert!(token == 1 && inner.is_empty(), "{command}: {argument}");
            1
        }
        "key" => {
            assert!(has("key_spec_index"), "{command}: {argument}");
            *keys += 1;
            token + 1
        }
        "string" | "integer" | "double" | "pattern" | "unix-time" => {
            assert!(inner.is_empty() && has("display_text"), "{command}: {argument}");
            token + 1
        }
        other => panic!("{command}: unknown type {other}"),
    }
}

/// Words an argument needs at least.
fn least_words(command: &str, argument: &Value, keys: &mut usize) -> usize {
    let words = check_argument(command, argument, keys);
    let Value::Map(fields) = argument else { panic!("{argument}") };
    let flags = fields.iter().find(|(name, _)| name.text() == "flags");
    let flags: Vec<String> =
        flags.map(|(_, flags)| flags.items().iter().map(Value::text).collect()).unwrap_or_default();
    assert!(flags.iter().all(|flag| flag == "optional" || flag == "multiple"), "{command}: {flags:?}");
    if flags.iter().any(|flag| flag == "optional") { 0 } else { words }
}

#[test]
fn command_docs_are_well_formed() {
    let server = Server::start(&[]);
    let mut client = server.connect_resp3();
    let table = command_table(&mut client);
    let Value::Map(docs) = client.call(&words("COMMAND DOCS")) else { panic!("not a map") };
    assert_eq!(docs.len(), table.len());
    for (name, entry) in table {
        let one = client.call(&command(&["COMMAND", "DOCS", &name]));
        let docs = one.field(&name);
        for text in ["summary", "since", "group", "complexity"] {
            assert!(!docs.field(text).text().is_empty(), "{name}: {text}");
        }
        let Value::Map(fields) = docs else { panic!("{docs}") };
        let arguments = fields.iter().find(|(field, _)| field.text() == "arguments");
        let arguments = arguments.map(|(_, arguments)| arguments.items()).unwrap_or_default();
        let mut keys = 0;
        let least =
            1 + arguments.iter().map(|argument| least_words(&name, argument, &mut keys)).sum::<usize>();
        let [arity, first] = [1, 3].map(|at| entry.items()[at].number() as i64);
        // Redis does not count DEBUG's keys as keys.
        assert_eq!(keys > 0, first > 0 || name == "debug", "{name}: keys are told as such");
        // For commands with subcommands, Redis's arity counts the subcommand's name only.
        let container =
            ["client", "command", "config", "debug", "memory", "object", "VDOC"].contains(&name.as_str());
        if container {
            assert!(least as i64 >= arity.abs(), "{name}: {least} words at least, arity {arity}");
        } else {
            assert_eq!(least as i64, arity.abs(), "{name}: words needed and arity");
        }
    }
    client.check(&[("COMMAND DOCS nonsense", "{}")]);
}

/// Every option CONFIG SET takes: a value and how it is shown.
const SETTABLE: &[(&str, &str, &str)] = &[
    ("timeout", "3600", "3600"),
    ("tcp-keepalive", "60", "60"),
    ("maxclients", "500", "500"),
    ("client-output-buffer-limit", "normal 1mb 1kb 5", "normal 1048576 1024 5"),
    ("maxmemory-clients", "2gb", "2147483648"),
    ("requirepass", "secret", "(hidden)"),
    ("protected-mode", "no", "no"),
    ("tls-cert-file", "/x", "/x"),
    ("tls-key-file", "/x", "/x"),
    ("tls-ca-cert-file", "/x", "/x"),
    ("tls-auth-clients", "optional", "optional"),
    ("proto-max-bulk-len", "2mb", "2097152"),
    ("appendfsync", "always", "always"),
    ("auto-aof-rewrite-percentage", "50", "50"),
    ("auto-aof-rewrite-min-size", "1mb", "1048576"),
    ("save", "", ""),
    ("compaction-percentage", "30", "30"),
    ("maxmemory", "2gb", "2147483648"),
    ("search-sketches", "no", "no"),
    ("embedding-model", "other", "other"),
    ("embedding-cache-size", "1mb", "1048576"),
    ("slowlog-log-slower-than", "-1", "-1"),
    ("slowlog-max-len", "10", "10"),
    ("latency-monitor-threshold", "100", "100"),
    ("key-load-delay", "10", "10"),
    ("loglevel", "debug", "debug"),
];

const FIXED: &[&str] = &[
    "bind",
    "port",
    "tcp-backlog",
    "unixsocket",
    "unixsocketperm",
    "tls-port",
    "aclfile",
    "user",
    "databases",
    "dir",
    "read-only",
    "appendonly",
    "io-threads",
    "search-threads",
    "search-kernel",
    "embedding-threads",
    "onnxruntime-path",
    "enable-debug-command",
    "logfile",
    "log-format",
    "metrics-port",
    "metrics-bind",
    "supervised",
];

fn get(client: &mut Client, option: &str) -> String {
    client.call(&command(&["CONFIG", "GET", option])).field(option).text()
}

#[test]
fn config_set_changes_every_settable_option() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let all = client.call(&words("CONFIG GET *"));
    let all: BTreeSet<String> = all.items().iter().step_by(2).map(Value::text).collect();
    let known = SETTABLE.iter().map(|(name, ..)| *name).chain(FIXED.iter().copied());
    assert_eq!(all, known.map(str::to_owned).collect(), "an option that no test knows, or one that is gone");
    for (name, value, shown) in SETTABLE {
        assert_eq!(client.call(&command(&["CONFIG", "SET", name, value])).to_string(), "+OK", "{name}");
        assert_eq!(get(&mut client, name), *shown, "{name}");
        let upper = name.to_uppercase();
        assert_eq!(client.call(&command(&["config", "set", &upper, value])).to_string(), "+OK", "{upper}");
    }
    let mut several = vec!["CONFIG", "SET"];
    several.extend(SETTABLE.iter().flat_map(|(name, value, _)| [*name, *value]));
    assert_eq!(client.call(&command(&several)).to_string(), "+OK");
    for name in FIXED {
        let before = get(&mut client, name);
        let reply = client.call(&command(&["CONFIG", "SET", name, &before])).to_string();
        assert!(reply.starts_with("-ERR CONFIG SET failed") && reply.contains(name), "{name}: {reply}");
        assert_eq!(get(&mut client, name), before);
    }
    client.check(&[("VADD k VALUES 1 1 a", ":1"), ("VCARD k", ":1")]);
}

#[test]
fn config_set_takes_all_or_nothing() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let before = client.ask("CONFIG GET *");
    for line in [
        "maxclients 77 port 1",
        "port 1 maxclients 77",
        "maxclients 77 nonsense 1",
        "maxclients 77 timeout x",
        "appendfsync always maxmemory -1",
        "requirepass secret loglevel loud",
        "timeout 5 save '900 1'",
        "maxclients 0",
        "maxclients ''",
        "appendfsync sometimes",
        "proto-max-bulk-len 1",
        "maxmemory 1.5gb",
        "maxclients 77 timeout",
        "maxclients",
        "",
    ] {
        let reply = client.ask(&format!("CONFIG SET {line}"));
        assert!(reply.starts_with("-ERR "), "{line}: {reply}");
        assert_eq!(client.ask("CONFIG GET *"), before, "{line}");
    }
    assert!(client.ask("CONFIG SET maxclients 0").contains("maxclients"));
    client.check(&[
        ("CONFIG WHAT", "-ERR unknown subcommand 'WHAT'. Try CONFIG HELP."),
        ("CONFIG GET", "-ERR wrong number of arguments for 'config|get' command"),
        ("CONFIG SET", "-ERR wrong number of arguments for 'config|set' command"),
    ]);
    assert_eq!(server.connect().ask("PING"), "+PONG");
}

#[test]
fn requirepass_may_change() {
    let server = Server::start(&[]);
    let (mut client, mut other) = (server.connect(), server.connect());
    const NOAUTH: &str = "-NOAUTH Authentication required.";
    const WRONGPASS: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
    other.check(&[("PING", "+PONG")]);
    client.check(&[("CONFIG SET requirepass 'a b'", "+OK"), ("PING", "+PONG")]);
    // Who was in stays in; who comes must give the password.
    other.check(&[("PING", "+PONG")]);
    let mut new = server.connect();
    new.check(&[("PING", NOAUTH), ("CONFIG SET requirepass ''", NOAUTH), ("AUTH wrong", WRONGPASS)]);
    new.check(&[("AUTH 'a b'", "+OK"), ("CONFIG GET requirepass", "[requirepass (hidden)]")]);
    assert!(!new.ask("CONFIG GET *").contains("a b"));
    client.check(&[("CONFIG SET requirepass other", "+OK")]);
    let mut new = server.connect();
    new.check(&[("AUTH 'a b'", WRONGPASS), ("AUTH default other", "+OK"), ("PING", "+PONG")]);
    client.check(&[("CONFIG SET requirepass ''", "+OK"), ("CONFIG GET requirepass", "[requirepass '']")]);
    server.connect().check(&[("PING", "+PONG")]);
    assert!(!server.output().contains("a b"), "no password in the log");
}

#[test]
fn changed_limits_hold_at_once() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 2 1 0 a", ":1"), ("CONFIG SET maxmemory 1", "+OK")]);
    let oom = "-OOM command not allowed when used memory > 'maxmemory'.";
    client.check(&[("VADD k VALUES 2 1 0 b", oom), ("VSIM k ELE a", "[a]"), ("VSETATTR k a x", ":1")]);
    client.check(&[("CONFIG SET maxmemory 0", "+OK"), ("VADD k VALUES 2 1 0 b", ":1")]);

    client.check(&[("CONFIG SET maxclients 2", "+OK")]);
    let _second = server.connect();
    wait_for_clients(&mut client, 2);
    let mut third = server.connect();
    let refused = match third.try_read() {
        Ok((reply, _)) => reply.to_string().starts_with("-ERR max number of clients reached"),
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    assert!(refused);
    client.check(&[("CONFIG SET maxclients 100", "+OK")]);
    server.connect().check(&[("PING", "+PONG")]);

    client.check(&[("CONFIG SET proto-max-bulk-len 1mb", "+OK")]);
    let mut long = server.connect();
    long.send(b"*2\r\n$4\r\nECHO\r\n$1048577\r\n");
    assert!(long.read().to_string().starts_with("-ERR Protocol error: invalid bulk length"));
    let mut fits = server.connect();
    assert_eq!(fits.call(&command(&["ECHO", &"x".repeat(1 << 20)])).text().len(), 1 << 20);

    client.check(&[("CONFIG SET timeout 1", "+OK")]);
    let mut idle = server.connect();
    idle.check(&[("PING", "+PONG")]);
    assert!(idle.is_closed(), "closed after a second of silence");
}

#[test]
fn changing_appendfsync_under_load_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let acknowledged = AtomicUsize::new(0);
    let outcomes: Vec<(Model, Op)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|seed| {
                let (mut client, acknowledged) = (server.connect(), &acknowledged);
                scope.spawn(move || {
                    let (mut model, mut rng) = (Model::default(), Rng(seed));
                    loop {
                        let op = Op::random(&mut rng, &format!("w{seed}-"), 100, 8);
                        match client.try_call(&op.command("k")) {
                            Ok(reply) => assert!(!reply.is_error(), "{reply}"),
                            Err(_) => return (model, op),
                        }
                        model.apply(&op);
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let mut client = server.connect();
        for (step, policy) in ["always", "no", "everysec"].into_iter().cycle().take(12).enumerate() {
            client.check(&[(&format!("CONFIG SET appendfsync {policy}"), "+OK")]);
            while acknowledged.load(Ordering::Relaxed) < 150 * (step + 1) {
                std::thread::yield_now();
            }
        }
        server.signal("KILL");
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    server.wait();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[("CONFIG GET appendfsync", "[appendfsync everysec]")]);
    for (seed, (mut model, in_flight)) in outcomes.into_iter().enumerate() {
        let elements = (0..100).map(|index| format!("w{seed}-{index}"));
        let found = Model::read(&mut client, "k", elements);
        if found != model {
            model.apply(&in_flight);
            assert!(found == model, "writer {seed}: neither with nor without {in_flight:?}");
        }
    }
}

#[test]
fn time_is_the_systems() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    let mut last = 0;
    for _ in 0..100 {
        let before = now();
        let reply = client.call(&words("TIME"));
        let [seconds, micros] = reply.items() else { panic!("{reply}") };
        let [seconds, micros] = [seconds, micros].map(|part| part.text().parse::<u128>().unwrap());
        let told = seconds * 1_000_000 + micros;
        assert!(micros < 1_000_000 && told >= last && (before..=now()).contains(&told), "{reply}");
        last = told;
    }
    client.check(&[("TIME x", "-ERR wrong number of arguments for 'time' command")]);
}

#[test]
fn a_pipeline_of_admin_commands_and_writes_keeps_its_order() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    let lines: [Command; 7] = [
        vadd("k", &[1.0, 0.0], "a", ""),
        words("CLIENT SETNAME x"),
        vadd("k", &[0.0, 1.0], "b", ""),
        words("CONFIG SET timeout 0"),
        words("VCARD k"),
        words("CLIENT GETNAME"),
        words("RESET"),
    ];
    let replies: Vec<String> = client.pipeline(&lines).iter().map(Value::to_string).collect();
    assert_eq!(replies, [":1", "+OK", ":1", "+OK", ":2", "x", "+RESET"]);
}
