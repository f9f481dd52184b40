//! API keys, namespaces and limits: a customer sees its own keys and nothing of anybody else's.

#![allow(clippy::unwrap_used)]

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{Client, Command, Server, Value, WAIT_MAX, vadd, words};

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";

fn create(admin: &mut Client, line: &str) -> String {
    let key = admin.ask(&format!("APIKEY CREATE {line}"));
    assert!(key.starts_with("vk_") && key.len() == 80, "{key}");
    key
}

fn log_in(server: &Server, key: &str) -> Client {
    let mut client = server.connect();
    client.check(&[(&format!("AUTH {key}"), "+OK")]);
    client
}

fn field(admin: &mut Client, line: &str, name: &str) -> String {
    admin.call(&words(line)).field(name).to_string()
}

/// Waits until a command's reply is that.
fn wait_for(client: &mut Client, line: &str, reply: &str) {
    let begin = Instant::now();
    while client.ask(line) != reply {
        assert!(begin.elapsed() < WAIT_MAX, "{line} does not become {reply}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_key_logs_in_in_every_way_that_clients_send_a_password() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut admin = server.connect();
    admin.check(&[("AUTH secret", "+OK")]);
    let key = create(&mut admin, "ann LABEL laptop");
    for line in ["AUTH ", "AUTH default ", "AUTH ann ", "HELLO 2 AUTH default ", "HELLO 2 AUTH ann "] {
        let mut client = server.connect();
        let reply = client.ask(&format!("{line}{key}"));
        assert!(!reply.starts_with('-'), "{line}: {reply}");
        client.check(&[
            ("ACL WHOAMI", "ann"),
            ("VADD k VALUES 2 1 0 e", ":1"),
            ("DBSIZE", ":1"),
            ("DEL k", ":1"),
        ]);
    }
    let mut client = server.connect();
    let other = key[..79].to_owned() + if key.ends_with('0') { "1" } else { "0" };
    for line in [format!("AUTH bob {key}"), format!("AUTH {other}"), format!("AUTH {}", &key[..79])] {
        client.check(&[(&line, WRONG)]);
    }
    let id = &key[3..15];
    assert_eq!(admin.call(&words("APIKEY LIST ann")).items()[0].field("id").text(), id);
    let shown = admin.ask("APIKEY LIST") + &admin.ask("ACL LIST") + &server.output();
    assert!(shown.contains("laptop") && !shown.contains(&key[16..]), "the key itself is told once");
    // A second key; the first is revoked: its connections end, those of the second go on.
    let second = create(&mut admin, "ann EXPIRE 1000000");
    let (mut first, mut second) = (log_in(&server, &key), log_in(&server, &second));
    admin.check(&[(&format!("APIKEY REVOKE {id}"), ":1"), (&format!("APIKEY REVOKE {id}"), ":0")]);
    assert!(first.is_closed());
    second.check(&[("DBSIZE", ":0")]);
    client.check(&[(&format!("AUTH {key}"), WRONG)]);
    admin.check(&[("ACL DELUSER ann", ":1")]);
    assert!(second.is_closed());
    admin.check(&[
        ("APIKEY CREATE default", "-ERR the default user has no API keys"),
        ("APIKEY CREATE a EXPIRE 0", "-ERR EXPIRE takes a positive number of seconds"),
        ("APIKEY CREATE a WHAT x", "-ERR syntax error, unexpected 'WHAT'"),
        ("APIKEY REVOKE x", "-ERR an API key's id has 12 hexadecimal digits, see APIKEY LIST"),
    ]);
}

#[test]
fn a_key_ends_with_its_time() {
    let server = Server::start(&[]);
    let key = create(&mut server.connect(), "ann EXPIRE 3");
    let mut client = log_in(&server, &key);
    assert!(client.is_closed());
    server.connect().check(&[(&format!("AUTH {key}"), WRONG)]);
}

#[test]
fn keys_users_and_namespaces_outlive_a_crash_and_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut admin = server.connect();
    let keys: Vec<String> =
        ["ann LABEL x", "bob NAMESPACE ann", "carl"].map(|line| create(&mut admin, line)).into();
    for (at, key) in keys.iter().enumerate() {
        log_in(&server, key).check(&[(&format!("VADD k{at} VALUES 2 1 0 e"), ":1")]);
    }
    admin.check(&[("SAVE", "+OK"), ("APIKEY LIMIT carl VECTORS 1", "+OK"), ("NAMESPACE DROP ann", "+OK")]);
    let last = create(&mut admin, "dora");
    server.kill9();
    for _ in 0..2 {
        let server = Server::start_in(folder.path(), &[]);
        let mut admin = server.connect();
        admin.check(&[("ACL USERS", "[carl default dora]"), ("DBSIZE", ":0")]);
        let names = admin.call(&words("NAMESPACE LIST"));
        let names: Vec<String> = names.items().iter().map(|one| one.field("name").text()).collect();
        assert_eq!(names, ["default", "carl", "dora"]);
        server
            .connect()
            .check(&[(&format!("AUTH {}", keys[0]), WRONG), (&format!("AUTH {}", keys[1]), WRONG)]);
        log_in(&server, &keys[2])
            .check(&[("KEYS *", "[k2]"), ("VADD k2 VALUES 2 1 0 f", "-LIMIT vectors 1, retry in 1000 ms")]);
        log_in(&server, &last).check(&[("DBSIZE", ":0")]);
        admin.check(&[("SAVE", "+OK")]);
    }
}

#[test]
fn namespaces_are_listed_entered_and_dropped_by_admins() {
    let server = Server::start(&[]);
    let mut admin = server.connect();
    let (ann, bob) = (create(&mut admin, "ann"), create(&mut admin, "bob NAMESPACE ann"));
    let (mut ann, mut bob) = (log_in(&server, &ann), log_in(&server, &bob));
    ann.check(&[("VADD k VALUES 2 1 0 e", ":1")]);
    bob.check(&[("VCARD k", ":1")]);
    admin.check(&[
        ("EXISTS k", ":0"),
        ("NAMESPACE USE ann", "+OK"),
        ("VCARD k", ":1"),
        ("VADD k VALUES 2 0 1 f", ":1"),
        ("NAMESPACE USE default", "+OK"),
        ("EXISTS k", ":0"),
        ("NAMESPACE USE nowhere", "-ERR there is no such namespace"),
        ("NAMESPACE DROP default", "-ERR the default namespace cannot be dropped, FLUSHDB empties it"),
        ("APIKEY CREATE bob NAMESPACE other", "-ERR the user is in another namespace"),
    ]);
    let reply = ann.ask("NAMESPACE LIST");
    assert_eq!(reply, "-NOPERM User ann has no permissions to run the 'namespace|list' command");
    let list = admin.call(&words("NAMESPACE LIST"));
    let described = ["users", "keys", "vectors", "bytes"].map(|name| list.items()[1].field(name).number());
    assert_eq!(described, [2.0, 1.0, 2.0, 16.0]);
    admin.check(&[
        ("NAMESPACE USE ann", "+OK"),
        ("NAMESPACE DROP ann", "+OK"),
        ("VCARD k", ":0"),
        ("ACL USERS", "[default]"),
    ]);
    assert!(ann.is_closed() && bob.is_closed());
    // The name may be used again, for an empty namespace.
    let ann = create(&mut admin, "ann");
    log_in(&server, &ann).check(&[("DBSIZE", ":0")]);
}

#[test]
fn limits_hold_and_use_is_counted_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut admin = server.connect();
    let key = create(&mut admin, "ann");
    let mut ann = log_in(&server, &key);
    admin.check(&[
        ("APIKEY LIMIT ann VECTORS 3 BYTES 1000", "+OK"),
        ("APIKEY LIMIT nobody VECTORS 3", "-ERR there is no such user"),
    ]);
    let full = "-LIMIT vectors 3, retry in 1000 ms";
    // In one pipeline: the fourth is one too many.
    let adds: Vec<Command> = (0..5).map(|at| vadd("k", &[1.0, at as f32], &at.to_string(), "")).collect();
    let replies: Vec<String> = ann.pipeline(&adds).iter().map(Value::to_string).collect();
    assert_eq!(replies, [":1", ":1", ":1", full, full]);
    ann.check(&[
        ("VADD k VALUES 2 1 5 0", ":0"),
        ("VREM k 0", ":1"),
        ("VMADD k 2 DIM 2 FP32 1234567812345678 a b", full),
        ("VADD k VALUES 2 1 0 x", ":1"),
        ("VADD l VALUES 2 1 0 x", full),
        ("MULTI", "+OK"),
        ("VADD l VALUES 2 1 0 x", "+QUEUED"),
        ("VCARD k", "+QUEUED"),
        ("EXEC", &format!("[{full} :3]")),
        ("VREM k 1", ":1"),
    ]);
    admin.check(&[("APIKEY LIMIT ann VECTORS 0 BYTES 16", "+OK")]);
    ann.check(&[
        ("VADD l VALUES 2 1 0 x", "-LIMIT bytes 16, retry in 1000 ms"),
        // The admin has had it embedded too: ann cannot tell.
        ("VEMBED hello", &ann_embeds(&mut admin)),
    ]);
    let info = ann.ask("INFO");
    for line in [
        "usage_vectors:2\r\n",
        "usage_bytes:16\r\n",
        "usage_texts:1\r\n",
        "usage_tokens:1\r\n",
        "limit_bytes:16\r\n",
    ] {
        assert!(info.contains(line), "{line} in {info}");
    }
    admin.check(&[("APIKEY LIMIT ann RPS 5 BYTES 0", "+OK")]);
    let replies = ann.pipeline(&vec![words("VCARD k"); 50]);
    let (passed, refused): (Vec<String>, Vec<String>) =
        replies.iter().map(Value::to_string).partition(|reply| reply == ":2");
    assert!((5..20).contains(&passed.len()), "{}", passed.len());
    let told =
        |reply: &String| reply.starts_with("-LIMIT requests 5 a second, retry in ") && reply.ends_with(" ms");
    assert!(refused.iter().all(told), "{refused:?}");
    wait_for(&mut ann, "VCARD k", ":2");
    // Vectors in fields count too.
    admin.check(&[("APIKEY LIMIT ann RPS 0 VECTORS 4", "+OK")]);
    ann.check(&[
        ("VCREATE m DIM 2 FIELD f DIM 2", "+OK"),
        ("VADD m VALUES 2 1 0 x", ":1"),
        ("VADD m VALUES 2 1 0 x FIELD f", ":1"),
        ("VADD m VALUES 2 0 1 x FIELD f", ":0"),
        ("VADD m VALUES 2 1 0 y", "-LIMIT vectors 4, retry in 1000 ms"),
        ("VREM m x", ":1"),
        ("VADD m VALUES 2 1 0 y", ":1"),
        // Documents that do not fit are not embedded: see how many texts are counted below.
        ("VDOC ADD d u a-b-c-d-e-f CHUNK 2", "-LIMIT vectors 4, retry in 1000 ms"),
        ("VDOC ADD m u text", "-ERR Vector dimension mismatch - got 256 but set has 2"),
    ]);
    // Others are not held.
    let other = create(&mut admin, "bob");
    assert!(
        log_in(&server, &other).pipeline(&vec![words("DBSIZE"); 50]).iter().all(|reply| !reply.is_error())
    );
    let commands = field(&mut admin, "APIKEY USAGE ann", "commands");
    assert!(server.terminate("TERM").success());
    let server = Server::start_in(folder.path(), &[]);
    let mut admin = server.connect();
    assert_eq!(field(&mut admin, "APIKEY USAGE ann", "commands"), commands);
    assert_eq!(field(&mut admin, "APIKEY USAGE ann", "texts"), ":1");
    assert_eq!(field(&mut admin, "APIKEY USAGE ann", "vectors-limit"), ":4");
    let listed = admin.call(&words("APIKEY LIST ann"));
    assert!(listed.items()[0].field("last-used").number() > 1.0, "{listed}");
}

/// What VEMBED gives: the same for everybody.
fn ann_embeds(admin: &mut Client) -> String {
    admin.ask("VEMBED hello")
}

// ---- The isolation matrix ----

/// Commands whose replies differ from server to server, or that change what the connection is. None of them names a key.
const APART: &[&str] =
    &["acl", "auth", "client", "command", "hello", "info", "module", "multi", "quit", "reset", "time"];
/// Commands whose replies are random, or tell a time.
const RANDOM: &[&str] = &["expiretime", "pexpiretime", "pttl", "randomkey", "ttl", "vrandmember", "vttl"];
/// Arguments in which a tenant may try another's key `k` and element `e` with any command.
const ARGUMENTS: &[&str] = &[
    "",
    "k",
    "k e",
    "k e e",
    "k e 1",
    "k 0",
    "k 1",
    "k own",
    "own k",
    "k - +",
    "k [a [z",
    "k ELE e",
    "k VALUES 2 1 0",
    "k TEXT hello",
    "k FILTER .a==1",
    "k 1 DIM 2 FP32 12345678 e",
    "k DIM 2",
    "k VALUES 2 1 0 e",
    "k e {}",
    "k secretelement",
    "secretkey ELE secretelement WITHATTRIBS",
    "secretkey secretelement",
    "0 MATCH *",
    "0 COUNT 1000",
    "MATCH *",
    "*",
    "USAGE k",
    "STATS",
    "DOCTOR",
    "ENCODING k",
    "IDLETIME k",
    "LIST",
    "GET",
    "GET 100",
    "1 k",
    "k k",
];

fn names(client: &mut Client) -> Vec<String> {
    let commands = client.call(&words("COMMAND"));
    commands.items().iter().map(|entry| entry.items()[0].text().to_lowercase()).collect()
}

/// What tenant `ann` has, and a connection of tenant `bob`, who has the key `own`.
fn two_tenants(server: &Server, with_data: bool) -> (Client, Client) {
    let mut admin = server.connect();
    let (ann, bob) = (create(&mut admin, "ann"), create(&mut admin, "bob"));
    let (mut ann, mut bob) = (log_in(server, &ann), log_in(server, &bob));
    if with_data {
        for line in [
            "VADD k VALUES 2 1 0 e SETATTR {\"a\":1}",
            "VADD secretkey VALUES 2 1 0 secretelement SETATTR {\"a\":\"secretvalue\"}",
            "VADD k TEXT secrettext secretelement",
            "EXPIRE secretkey 100000",
        ] {
            ann.call(&words(line));
        }
    }
    bob.check(&[("VADD own VALUES 2 0 1 mine", ":1")]);
    (ann, bob)
}

/// All that a tenant can tell of its own keys.
fn inventory(client: &mut Client) -> Vec<String> {
    let lines = [
        "DBSIZE",
        "VCARD k",
        "VCARD secretkey",
        "VGETATTR k e",
        "VGETATTR secretkey secretelement",
        "VEMB k e",
    ];
    let mut found: Vec<String> = lines.iter().map(|line| client.ask(line)).collect();
    found.push((client.call(&words("TTL secretkey")).number() > 1000.0).to_string());
    found
}

/// Every command of the table with every shape of arguments, sent by a tenant to a server where another tenant has such keys,
/// and to one where nobody has: the replies are the same, nothing of the other's is in them, and nothing of it changes.
#[test]
fn no_command_tells_or_changes_anything_of_another_tenant() {
    let (full, empty) = (Server::start(&[]), Server::start(&[]));
    let ((mut ann, mut bob), (_, mut control)) = (two_tenants(&full, true), two_tenants(&empty, false));
    let before = inventory(&mut ann);
    let mut cells = 0;
    let mut leaks = Vec::new();
    for name in names(&mut full.connect()) {
        if APART.contains(&name.as_str()) {
            continue;
        }
        for arguments in ARGUMENTS {
            let line = format!("{name} {arguments}");
            let (seen, expected) = (bob.ask(&line), control.ask(&line));
            // Both go at a moment of their own.
            let until_moment = |text: &str| text.split("expires_ms").next().unwrap_or_default().to_owned();
            let differs = until_moment(&seen) != until_moment(&expected) && !RANDOM.contains(&name.as_str());
            let repeated = arguments.contains("secret") && seen.starts_with('-');
            if differs || (seen.contains("secret") && !repeated && !expected.contains("secret")) {
                leaks.push(format!("{line}: {seen} where there is nothing: {expected}"));
            }
            cells += 1;
        }
    }
    for line in ["INFO keyspace", "INFO access", "INFO replication"] {
        let (seen, expected) = (bob.ask(line), control.ask(line));
        // Each server has an identity of its own.
        let [seen, expected] = [seen, expected].map(|text| {
            let lines = text.lines().filter(|line| !line.starts_with("master_replid:"));
            lines.collect::<Vec<_>>().join("\n")
        });
        cells += 1;
        if seen != expected {
            leaks.push(format!("{line}: {seen} where there is nothing: {expected}"));
        }
    }
    let info = bob.ask("INFO everything");
    assert!(!info.contains("vector_elements") && !info.contains("used_memory"), "{info}");
    println!("isolation matrix: {cells} cells, {} leaks", leaks.len());
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert_eq!(inventory(&mut ann), before);
    assert!(cells > 1500, "{cells}");
}

#[test]
fn watching_a_key_tells_nothing_of_the_key_of_that_name_elsewhere() {
    let server = Server::start(&[]);
    let (mut ann, mut bob) = two_tenants(&server, true);
    bob.check(&[("DEL k", ":0"), ("WATCH k", "+OK")]);
    ann.check(&[("VADD k VALUES 2 1 1 new", ":1"), ("DEL k", ":1")]);
    bob.check(&[("MULTI", "+OK"), ("EXISTS k", "+QUEUED"), ("EXEC", "[:0]")]);
    // Who logs in as somebody else takes no watched keys along.
    let key = create(&mut server.connect(), "ann");
    bob.check(&[
        ("WATCH own", "+OK"),
        (&format!("AUTH {key}"), "+OK"),
        ("ACL WHOAMI", "ann"),
        ("EXISTS own", ":0"),
    ]);
    // Nor do clients learn of one another, when an admin lets them ask.
    server.connect().check(&[("ACL SETUSER ann +client|list +client|kill", "+OK")]);
    assert_eq!(bob.ask("CLIENT LIST").matches("user=").count(), 2);
    bob.check(&[("CLIENT KILL USER default", ":0"), ("CLIENT KILL USER ann", ":1")]);
}

// ---- Secrets ----

/// Whether some file below a folder holds the bytes.
fn is_in_files(folder: &std::path::Path, secret: &str) -> Option<String> {
    let held = |name: &String| {
        let bytes = std::fs::read(folder.join(name)).unwrap();
        bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    };
    common::files_below(folder).into_iter().find(held)
}

#[test]
fn secrets_are_in_no_log_no_reply_and_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--loglevel", "debug", "--requirepass", "planted-1", "--user", "ann", "on", ">planted-2"];
    let server = Server::start_in(folder.path(), &options);
    let mut admin = server.connect();
    admin.check(&[("AUTH planted-1", "+OK"), ("ACL SETUSER bob on >planted-3 ~* +@all", "+OK")]);
    let key = create(&mut admin, "carl");
    let secret = &key[16..];
    // What others may show is made to show: slow commands, and all of them as they come.
    admin.ask("CONFIG SET slowlog-log-slower-than 0");
    let mut monitor = server.connect();
    monitor.check(&[("AUTH planted-1", "+OK")]);
    let monitors = monitor.ask("MONITOR") == "+OK";
    let mut client = server.connect();
    for line in [
        "AUTH planted-1",
        "AUTH bob planted-3",
        "AUTH ann planted-4",
        "HELLO 2 AUTH bob planted-3",
        &format!("AUTH {key}"),
        &format!("HELLO 2 AUTH default {key}"),
    ] {
        client.ask(line);
    }
    admin.check(&[("ACL SETUSER bob >planted-4", "+OK"), ("CONFIG SET requirepass planted-5", "+OK")]);
    let mut told = String::new();
    for line in [
        "INFO everything",
        "CONFIG GET *",
        "CLIENT LIST",
        "ACL LIST",
        "ACL LOG",
        "SLOWLOG GET 100",
        "APIKEY LIST",
        "APIKEY USAGE",
    ] {
        told.push_str(&admin.ask(line));
    }
    if monitors {
        // Up to a command that is known to be the last.
        admin.check(&[("ECHO the-end", "the-end")]);
        loop {
            let line = monitor.read().to_string();
            told.push_str(&line);
            if line.contains("the-end") {
                break;
            }
        }
    }
    told.push_str(&server.output());
    admin.check(&[("SAVE", "+OK")]);
    let data = folder.path().join("data");
    let backup = folder.path().join("copy").join("backup");
    std::fs::create_dir(backup.parent().unwrap()).unwrap();
    let done = common::run(&["backup", data.to_str().unwrap(), "--to", backup.to_str().unwrap()]);
    assert!(done.status.success(), "{done:?}");
    for planted in ["planted-1", "planted-2", "planted-3", "planted-4", "planted-5", secret] {
        assert!(!told.contains(planted), "{planted} in {told}");
        for folder in [&data, backup.parent().unwrap()] {
            assert_eq!(is_in_files(folder, planted), None, "{planted}");
        }
    }
}
