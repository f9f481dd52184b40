//! The command line.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use common::{Command, Server, run, vadd, words};
use vecdis::vector::kernel::Kernel;

/// Checks for exit code 1 and one line on standard error that holds all `parts`.
#[track_caller]
fn check_refused(output: &Output, parts: &[&str]) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    for part in parts {
        assert!(error.contains(part), "{part} in {error}");
    }
}

#[test]
fn bad_options_are_one_clear_line() {
    check_refused(&run(&["--nonsense", "1"]), &["nonsense"]);
    check_refused(&run(&["--port", "many"]), &["port", "many"]);
    check_refused(&run(&["--port"]), &["port"]);
    check_refused(&run(&["--appendonly", "perhaps"]), &["appendonly", "perhaps"]);
    check_refused(&run(&["--search-kernel", "abacus"]), &["search-kernel", "abacus", "auto", "scalar"]);
    check_refused(&run(&["/no/such/file.conf"]), &["/no/such/file.conf"]);
    check_refused(&run(&["demo", "now"]), &["demo"]);
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("bad.conf");
    fs::write(&conf, "port 7000\n\nmaxclients none\n").unwrap();
    check_refused(&run(&[conf.to_str().unwrap()]), &["bad.conf:3", "maxclients", "none"]);
    check_refused(
        &run(&["--dir", conf.to_str().unwrap(), "--bind", "127.0.0.1", "--port", "0"]),
        &["bad.conf"],
    );
}

#[test]
fn a_busy_port_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let dir = folder.path().to_str().unwrap();
    check_refused(&run(&["--bind", "127.0.0.1", "--port", &port, "--dir", dir]), &[&port]);
}

#[test]
fn version_and_help() {
    for word in ["--version", "-v"] {
        let output = run(&[word]);
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            concat!("vecdis ", env!("CARGO_PKG_VERSION"), "\n")
        );
    }
    for word in ["--help", "-h"] {
        let output = run(&[word]);
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty());
        for part in ["vecdis demo", "--port", "--appendfsync", "--requirepass"] {
            assert!(help.contains(part), "{part} in {help}");
        }
    }
}

#[test]
fn every_subcommand_explains_itself_and_names_what_is_missing() {
    for (name, code) in [("check", 2), ("repair", 1), ("backup", 1), ("restore", 1)] {
        let output = run(&[name, "--help"]);
        let help = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && help.starts_with(&format!("vecdis {name} ")), "{help}");
        assert!(help.lines().count() > 3, "{help}");
        let output = run(&[name]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains("is missing; usage: vecdis ") && error.lines().count() == 1, "{error}");
    }
}

#[test]
fn options_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("my.conf");
    fs::write(&conf, "port 1\nmaxclients 77\ndir \"/no/such folder\"\nappendfsync no\n").unwrap();
    // The port and the folder are given as options too.
    let server = Server::start_in(folder.path(), &[conf.to_str().unwrap(), "--appendfsync=always"]);
    server.connect().check(&[
        ("CONFIG GET maxclients", "[maxclients 77]"),
        ("CONFIG GET appendfsync", "[appendfsync always]"),
    ]);
    assert!(folder.path().join("data").is_dir());
}

#[test]
fn every_kernel_of_the_machine_can_be_selected_and_answers_alike() {
    let searches: Vec<Command> =
        (0..40).map(|at| words(&format!("VSIM k ELE e{at} COUNT 7 WITHSCORES"))).collect();
    let mut answers = Vec::new();
    for kernel in Kernel::supported() {
        let server = Server::start(&["--search-kernel", kernel.name()]);
        let mut client = server.connect();
        let mut rows = (0..200u16).map(|at| {
            let vector: Vec<f32> =
                (0..70u16).map(|i| (f32::from(at) * 1.7 + f32::from(i * i)).sin()).collect();
            vadd("k", &vector, &format!("e{at}"), "")
        });
        assert!(rows.all(|row| client.call(&row).to_string() == ":1"));
        let shown = client.call(&words("INFO vectors")).text();
        assert!(shown.contains(&format!("vector_kernel:{}\r\n", kernel.name())), "{shown}");
        answers.push(client.pipeline(&searches).iter().map(ToString::to_string).collect::<Vec<_>>());
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(
        answers[0].iter().enumerate().all(|(at, answer)| answer.contains(&format!("e{at} "))),
        "{answers:?}"
    );
}

#[test]
fn the_demo_shows_results_and_ends_when_nobody_watches() {
    let output = run(&["demo"]);
    let (shown, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}{error}");
    for part in ["VADD sentences", "hourly wage not less than 13 dollars", "The cat sleeps", "redis-cli"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(shown.lines().filter(|line| line.trim_start().starts_with("0.")).count() >= 14, "{shown}");
}
