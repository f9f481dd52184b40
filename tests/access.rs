//! Users and their rules: AUTH, ACL, protected mode, and that rules act on live connections and outlive a crash.

#![allow(clippy::unwrap_used)]

mod common;

use common::{Client, Server, Value, WAIT_MAX, command, refused_start, words};

const WRONG: &str = "-WRONGPASS invalid username-password pair or user is disabled.";
const NO_KEY: &str = "-NOPERM No permissions to access a key";

fn not_allowed(user: &str, name: &str) -> String {
    format!("-NOPERM User {user} has no permissions to run the '{name}' command")
}

fn log_in(server: &Server, user: &str, password: &str) -> Client {
    let mut client = server.connect();
    client.check(&[(&format!("AUTH {user} {password}"), "+OK")]);
    client
}

#[test]
fn a_user_does_what_its_rules_allow_and_nothing_else() {
    let server = Server::start(&[]);
    let mut admin = server.connect();
    admin.check(&[
        ("ACL SETUSER ann on >pw +@read +@connection +vadd ~a:* %R~shared:*", "+OK"),
        ("VADD shared:1 VALUES 2 1 0 e", ":1"),
        ("VADD hidden VALUES 2 1 0 e", ":1"),
    ]);
    let mut ann = log_in(&server, "ann", "pw");
    ann.check(&[
        ("VADD a:1 VALUES 2 1 0 e", ":1"),
        ("VSIM a:1 ELE e", "[e]"),
        ("VSIM shared:1 ELE e", "[e]"),
        ("VADD shared:1 VALUES 2 1 0 f", NO_KEY),
        ("VSIM hidden ELE e", NO_KEY),
        ("EXISTS hidden", NO_KEY),
        ("VREM a:1 e", &not_allowed("ann", "VREM")),
        ("DEL a:1", &not_allowed("ann", "del")),
        ("CONFIG GET port", &not_allowed("ann", "config|get")),
        ("ACL WHOAMI", &not_allowed("ann", "acl|whoami")),
        ("NONSENSE", "-ERR unknown command 'NONSENSE', with args beginning with: "),
        // What may not be used is not shown.
        ("DBSIZE", ":2"),
        ("SCAN 0 MATCH hid*", "[0 []]"),
        ("RENAME a:1 a:2", &not_allowed("ann", "rename")),
    ]);
    ann.check(&[("VMSEARCH 2 a:1 hidden VECTOR ELE e", NO_KEY), ("VMSEARCH x a:1 VECTOR ELE e", NO_KEY)]);
    let found = ann.ask("VMSEARCH 2 a:1 shared:1 VECTOR ELE e");
    assert!(found.contains("a:1") && found.contains("shared:1"), "{found}");
    admin.check(&[("COMMAND GETKEYS VMSEARCH 2 a b MATCH x", "[a b]")]);
    for _ in 0..20 {
        assert_ne!(ann.ask("RANDOMKEY"), "hidden");
    }
    admin.check(&[("ACL SETUSER ann +flushdb +keys", "+OK")]);
    ann.check(&[("KEYS *hid*", "[]"), ("FLUSHDB", "+OK"), ("DBSIZE", ":1")]);
    admin.check(&[("EXISTS a:1 shared:1 hidden", ":2")]);
}

#[test]
fn changes_act_on_live_connections_and_in_the_middle_of_a_transaction() {
    let server = Server::start(&[]);
    let mut admin = server.connect();
    admin.check(&[("ACL SETUSER ann on nopass ~* +@all", "+OK")]);
    let mut ann = log_in(&server, "ann", "anything");
    ann.check(&[("ACL WHOAMI", "ann"), ("MULTI", "+OK"), ("VCARD k", "+QUEUED"), ("DBSIZE", "+QUEUED")]);
    admin.check(&[("ACL SETUSER ann -vcard", "+OK")]);
    let rest =
        "the rules changed since the command was queued: no permission to execute the command or subcommand";
    ann.check(&[("EXEC", &format!("[-NOPERM {rest} :0]")), ("VCARD k", &not_allowed("ann", "VCARD"))]);
    ann.check(&[
        ("MULTI", "+OK"),
        ("VCARD k", &not_allowed("ann", "VCARD")),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
    ]);
    // Who is off may stay, but not come again.
    admin.check(&[("ACL SETUSER ann off", "+OK")]);
    ann.check(&[("DBSIZE", ":0"), ("AUTH ann x", WRONG), ("ACL WHOAMI", "ann")]);
    admin.check(&[("ACL DELUSER ann nobody", ":1")]);
    assert!(ann.is_closed());
    // Also one that removes itself: after its reply.
    admin.check(&[("ACL SETUSER bob on nopass ~* +@all", "+OK")]);
    let mut bob = log_in(&server, "bob", "x");
    bob.check(&[("ACL DELUSER bob", ":1")]);
    assert!(bob.is_closed());
}

#[test]
fn reset_and_a_wrong_password_lead_nowhere_new() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut client = log_in(&server, "default", "secret");
    client.check(&[
        ("ACL SETUSER ann on >pw ~* +@all", "+OK"),
        ("AUTH ann pw", "+OK"),
        ("AUTH wrong", WRONG),
        ("AUTH ann wrong", WRONG),
        ("HELLO 3 AUTH nobody pw", WRONG),
        ("ACL WHOAMI", "ann"),
        ("RESET", "+RESET"),
        ("ACL WHOAMI", "-NOAUTH Authentication required."),
        ("AUTH secret", "+OK"),
        ("ACL WHOAMI", "default"),
        ("ACL DELUSER default", "-ERR The 'default' user cannot be removed"),
        ("CLIENT KILL USER nobody", ":0"),
    ]);
    let info = client.ask("INFO access");
    assert!(info.contains("acl_access_denied_auth:3\r\n"), "{info}");
    let list = client.ask("CLIENT LIST");
    assert!(list.contains(" user=default "), "{list}");
}

#[test]
fn what_was_refused_is_told() {
    let server = Server::start(&[]);
    let mut admin = server.connect();
    admin.check(&[("ACL SETUSER ann on >pw ~a +vcard", "+OK")]);
    let mut ann = log_in(&server, "ann", "pw");
    ann.check(&[("AUTH ann wrong", WRONG), ("VCARD b", NO_KEY), ("VCARD b", NO_KEY)]);
    ann.check(&[("DBSIZE", &not_allowed("ann", "dbsize"))]);
    let log = admin.call(&words("ACL LOG"));
    let shown: Vec<String> = log
        .items()
        .iter()
        .map(|entry| {
            ["count", "reason", "context", "object", "username"].map(|name| entry.field(name).to_string())
        })
        .map(|fields| fields.join(" "))
        .collect();
    let expected = [":1 command toplevel dbsize ann", ":2 key toplevel b ann", ":1 auth toplevel auth ann"];
    assert_eq!(shown, expected);
    assert!(log.items()[0].field("client-info").text().contains("user=ann"));
    assert_eq!(admin.call(&words("ACL LOG 1")).items().len(), 1);
    admin.check(&[
        ("ACL LOG RESET", "+OK"),
        ("ACL LOG", "[]"),
        ("ACL LOG x", "-ERR value is not an integer or out of range"),
    ]);
}

#[test]
fn users_outlive_a_crash_a_checkpoint_and_a_repair() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut admin = server.connect();
    admin.check(&[
        ("ACL SETUSER ann on >pw ~a:* +@read (+vadd ~b)", "+OK"),
        ("ACL SETUSER gone on", "+OK"),
        ("SAVE", "+OK"),
        ("ACL SETUSER bob on nopass", "+OK"),
        ("ACL DELUSER gone", ":1"),
        ("ACL SETUSER default >secret", "+OK"),
    ]);
    let before = admin.ask("ACL LIST");
    assert_eq!(before.matches("user ").count(), 3, "{before}");
    server.kill9();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    client.check(&[
        ("ACL LIST", "-NOAUTH Authentication required."),
        ("AUTH secret", "+OK"),
        ("ACL LIST", &before),
    ]);
    client.check(&[("SAVE", "+OK")]);
    drop(server);
    // The password of the configuration wins.
    let server = Server::start_in(folder.path(), &["--requirepass", "other"]);
    server.connect().check(&[("AUTH secret", WRONG), ("AUTH other", "+OK")]);
    drop(server);
    let (from, to) = (folder.path().join("data"), folder.path().join("new").join("data"));
    let repaired = common::run(&["repair", from.to_str().unwrap(), "--to", to.to_str().unwrap()]);
    assert!(repaired.status.success(), "{repaired:?}");
    let server = Server::start_in(to.parent().unwrap(), &[]);
    server.connect().check(&[("AUTH secret", "+OK"), ("ACL LIST", &before)]);
}

#[test]
fn users_of_the_configuration_or_of_a_file_stay_out_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let options = ["--user", "ann", "on", ">pw", "~*", "+@all", "--user", "bob", "off"];
    let server = Server::start_in(folder.path(), &options);
    let mut ann = log_in(&server, "ann", "pw");
    ann.check(&[("ACL USERS", "[ann bob default]"), ("ACL SETUSER bob on nopass", "+OK")]);
    ann.check(&[("CONFIG GET user", "[user '']")]);
    assert!(ann.ask("ACL SAVE").starts_with("-ERR There is no ACL file"));
    drop(server);
    let file = folder.path().join("users.acl");
    std::fs::write(&file, "user ann on >pw ~* +@all\n").unwrap();
    let option = ["--aclfile", file.to_str().unwrap()];
    let server = Server::start_in(folder.path(), &option);
    let mut ann = log_in(&server, "ann", "pw");
    ann.check(&[("ACL USERS", "[ann default]"), ("ACL SETUSER carl on", "+OK"), ("ACL SAVE", "+OK")]);
    assert!(std::fs::read_to_string(&file).unwrap().contains("user carl on "));
    std::fs::write(&file, "user ann on >pw ~* +@all -@dangerous +acl\n").unwrap();
    ann.check(&[
        ("ACL LOAD", "+OK"),
        ("ACL USERS", "[ann default]"),
        ("KEYS *", &not_allowed("ann", "keys")),
    ]);
    std::fs::write(&file, "user ann on >hidden +bogus\n").unwrap();
    let error = ann.ask("ACL LOAD");
    assert!(error.contains(":1: rule 3: Unknown command") && !error.contains("hidden"), "{error}");
    ann.check(&[("ACL WHOAMI", "ann")]);
    drop(server);
    let (code, output) = refused_start(folder.path(), &option);
    assert!(code == Some(1) && output.contains("rule 3") && !output.contains("hidden"), "{output}");
    let (code, _) = refused_start(folder.path(), &["--user", "ann", "+bogus"]);
    assert_eq!(code, Some(1));
}

#[test]
fn guesses_are_slowed_and_nobody_else_is() {
    let server = Server::start(&["--requirepass", "secret"]);
    let (mut guesser, mut other) = (server.connect(), log_in(&server, "default", "secret"));
    let mut bytes = Vec::new();
    for at in 0..4 {
        common::client::encode(&command(&["AUTH", &format!("guess{at}")]), &mut bytes);
    }
    guesser.send(&bytes);
    // 50 + 100 + 200 + 400 ms: others are answered meanwhile.
    let begin = std::time::Instant::now();
    let mut answered = 0;
    guesser.stream.set_nonblocking(true).unwrap();
    let mut byte = [0; 1];
    while guesser.stream.peek(&mut byte).is_err() {
        other.check(&[("PING", "+PONG")]);
        answered += 1;
        assert!(begin.elapsed() < WAIT_MAX);
    }
    guesser.stream.set_nonblocking(false).unwrap();
    assert!(answered > 10, "{answered} answers while the guesses wait");
    for _ in 0..4 {
        assert_eq!(guesser.read().to_string(), WRONG);
    }
}

#[test]
fn every_command_is_refused_before_logging_in_and_to_who_may_do_nothing() {
    let server = Server::start(&["--requirepass", "secret"]);
    let mut admin = log_in(&server, "default", "secret");
    admin
        .check(&[("ACL SETUSER nothing on >pw", "+OK"), ("ACL SETUSER nobody on >pw ~* +@all -@all", "+OK")]);
    let commands = admin.call(&words("COMMAND"));
    let mut cells = 0;
    for entry in commands.items() {
        let fields = entry.items();
        let (name, arity) = (fields[0].text(), fields[1].number());
        let flags: Vec<String> = fields[2].items().iter().map(Value::text).collect();
        if flags.iter().any(|flag| flag == "no_auth") {
            continue;
        }
        let subcommands = subcommands(&mut admin, &name);
        for subcommand in subcommands {
            let mut request = vec![name.clone()];
            request.extend(subcommand.clone());
            while (request.len() as f64) < arity.abs() {
                request.push("1".to_owned());
            }
            let request = command(&request);
            let refused = server.connect().call(&request).to_string();
            assert!(
                refused.starts_with("-NOAUTH") || refused.starts_with("-ERR wrong number"),
                "{name}: {refused}"
            );
            for user in ["nothing", "nobody"] {
                let reply = log_in(&server, user, "pw").call(&request).to_string();
                let allowed = reply.starts_with("-NOPERM User") || reply.starts_with("-ERR wrong number");
                assert!(allowed, "{name} {subcommand:?}: {reply}");
            }
            cells += 3;
        }
    }
    println!("{cells} cells: commands before logging in and by users without permissions, none carried out");
    assert!(cells > 200, "{cells}");
}

/// The subcommands of a command, or nothing in their place.
fn subcommands(admin: &mut Client, name: &str) -> Vec<Option<String>> {
    // Every command that has subcommands names them in ACL CAT.
    let prefix = format!("{}|", name.to_lowercase());
    let mut found = Vec::new();
    for category in ["slow", "fast"] {
        let names = admin.call(&words(&format!("ACL CAT {category}")));
        let of = names.items().iter().map(Value::text);
        found.extend(of.filter_map(|one| one.to_lowercase().strip_prefix(&prefix).map(str::to_owned)));
    }
    if name == "debug" {
        // Rules know only the whole of it.
        found.push("sleep".to_owned());
    }
    match found.is_empty() {
        true => vec![None],
        false => found.into_iter().map(Some).collect(),
    }
}
