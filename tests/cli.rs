//! The command line.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::net::TcpListener;
use std::process::Output;

use common::run;

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
    check_refused(&run(&["/no/such/file.conf"]), &["/no/such/file.conf"]);
    check_refused(&run(&["demo", "now"]), &["demo"]);
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("bad.conf");
    fs::write(&conf, "port 7000\n\nmaxclients none\n").unwrap();
    check_refused(
        &run(&[conf.to_str().unwrap()]),
        &["bad.conf:3", "maxclients", "none"],
    );
    check_refused(
        &run(&[
            "--dir",
            conf.to_str().unwrap(),
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
        ]),
        &["bad.conf"],
    );
}

#[test]
fn a_busy_port_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = busy.local_addr().unwrap().port().to_string();
    let dir = folder.path().to_str().unwrap();
    check_refused(
        &run(&["--bind", "127.0.0.1", "--port", &port, "--dir", dir]),
        &[&port],
    );
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
fn options_win_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let conf = folder.path().join("my.conf");
    let port = common::free_port().to_string();
    let dir = folder.path().join("elsewhere");
    fs::write(
        &conf,
        format!(
            "port 1\nmaxclients 77\ndir \"{}\"\nappendfsync no\n",
            dir.display()
        ),
    )
    .unwrap();
    let mut process = std::process::Command::new(common::PROGRAM)
        .args([
            conf.to_str().unwrap(),
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--appendfsync=always",
        ])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    let begin = std::time::Instant::now();
    let client = loop {
        match common::Client::connect(address) {
            Ok(client) => break Some(client),
            Err(_) if begin.elapsed() < common::WAIT_MAX => {
                std::thread::sleep(std::time::Duration::from_millis(5))
            }
            Err(_) => break None,
        }
    };
    let answers = client.map(|mut client| {
        let ask = |line| client.ask(line);
        [
            "CONFIG GET maxclients",
            "CONFIG GET appendfsync",
            "CONFIG GET port",
        ]
        .map(ask)
    });
    process.kill().unwrap();
    process.wait().unwrap();
    let expected = [
        "[maxclients 77]".to_owned(),
        "[appendfsync always]".to_owned(),
        format!("[port {port}]"),
    ];
    assert_eq!(answers, Some(expected));
    assert!(dir.is_dir());
}

#[test]
fn the_demo_shows_results_and_ends_when_nobody_watches() {
    let output = run(&["demo"]);
    let (shown, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{shown}{error}");
    for part in ["VADD colours", "VSIM colours ELE tomato", "tomato", "redis-cli"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(
        shown
            .lines()
            .filter(|line| line.trim_start().starts_with("0.9"))
            .count()
            >= 4,
        "{shown}"
    );
}
