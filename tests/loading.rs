//! While the data are loaded, the server answers what Redis answers then, and tells how far it is.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::path::Path;
use std::thread::yield_now;

use common::{Client, Model, Rng, Server, command, words};

const LOADING: &str = "-LOADING Vecdis is loading the dataset in memory";
/// Slow enough that loading does not end before it is told to.
const SLOW: [&str; 2] = ["--key-load-delay", "100000"];

/// A log of many records.
fn fill(root: &Path) -> Model {
    let (mut model, mut rng) = (Model::default(), Rng(51));
    let server = Server::start_in(root, &[]);
    model.run_random(&mut server.connect(), "k", &mut rng, 3000, 500);
    server.kill9();
    model
}

fn loaded_percent(client: &mut Client) -> f64 {
    let info = client.ask("INFO persistence");
    assert!(info.contains("loading:1\r\n"), "{info}");
    let percent = info.lines().find_map(|line| line.strip_prefix("loading_loaded_perc:"));
    percent.unwrap_or_else(|| panic!("{info}")).parse().unwrap()
}

#[test]
fn early_clients_are_told_to_wait_and_served_when_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let model = fill(folder.path());
    let server = Server::start_loading(folder.path(), &SLOW);
    let mut client = server.connect();
    client.check(&[
        ("VCARD k", LOADING),
        ("PING", LOADING),
        ("VADD k VALUES 8 1 2 3 4 5 6 7 8 x", LOADING),
        ("SAVE", LOADING),
        ("ECHO hi", "hi"),
        ("SELECT 0", "+OK"),
        ("CONFIG GET port", "[port 0]"),
        ("MULTI", "+OK"),
        ("DBSIZE", LOADING),
        ("EXEC", "-EXECABORT Transaction discarded because of previous errors."),
    ]);
    assert!(client.ask("NONSENSE").starts_with("-ERR unknown command"));
    // It goes on, and the log tells of it.
    let first = loaded_percent(&mut client);
    while loaded_percent(&mut client) <= first {
        yield_now();
    }
    while !server.output().contains("% done") {
        yield_now();
    }
    // The server that wrote the log was ready once.
    let ready = || server.output().matches("ready to accept connections on port").count();
    assert_eq!(ready(), 1);
    client.check(&[("CONFIG SET key-load-delay 0", "+OK")]);
    while client.ask("PING") == LOADING {
        yield_now();
    }
    model.check(&mut client, "k");
    let info = client.ask("INFO persistence");
    assert!(info.contains("loading:0\r\n") && !info.contains("loading_loaded_perc"), "{info}");
    assert!(info.contains("log_replayed_records:"), "{info}");
    client.check(&[("VADD k VALUES 8 1 2 3 4 5 6 7 8 x", ":1")]);
    while ready() < 2 {
        yield_now();
    }
}

#[test]
fn commands_without_the_flag_wait() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let server = Server::start_loading(folder.path(), &SLOW);
    let mut client = server.connect();
    let mut refused = 0;
    for entry in client.call(&words("COMMAND")).items() {
        let [name, arity, flags, ..] = entry.items() else { panic!("{entry}") };
        let name = name.text();
        // Those with subcommands tell first that there is none called x.
        if flags.to_string().contains("loading")
            || ["apikey", "debug", "memory", "module", "namespace", "object", "VDOC"].contains(&&*name)
        {
            continue;
        }
        let arguments = vec!["x"; arity.number().abs() as usize - 1];
        let reply = client.call(&command(&[&[&*name], &arguments[..]].concat())).to_string();
        assert_eq!(reply, LOADING, "{name}");
        refused += 1;
    }
    assert!(refused > 40, "{refused}");
}

#[test]
fn a_password_is_asked_for_while_loading_too() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let server = Server::start_loading(folder.path(), &[&SLOW[..], &["--requirepass", "secret"]].concat());
    let mut client = server.connect();
    assert!(client.ask("VCARD k").starts_with("-NOAUTH"));
    assert!(client.ask("INFO").starts_with("-NOAUTH"));
    client.check(&[("AUTH secret", "+OK"), ("VCARD k", LOADING)]);
    loaded_percent(&mut client);
}

#[test]
fn a_server_can_be_ended_while_it_loads() {
    let folder = tempfile::tempdir().unwrap();
    let model = fill(folder.path());
    for end in ["TERM", "INT", "SHUTDOWN", "SHUTDOWN NOSAVE"] {
        let server = Server::start_loading(folder.path(), &SLOW);
        let mut client = server.connect();
        client.check(&[("VCARD k", LOADING)]);
        let status = match end {
            "TERM" | "INT" => server.terminate(end),
            shutdown => {
                assert!(client.try_call(&words(shutdown)).is_err());
                server.wait()
            }
        };
        assert_eq!(status.code(), Some(0), "{end}");
    }
    model.check(&mut Server::start_in(folder.path(), &[]).connect(), "k");
}
