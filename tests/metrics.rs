//! The HTTP port for monitors, the dashboard, health checks, and what systemd is told.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use common::{Server, WAIT_MAX, run, words};

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Sends bytes to the metrics port and gives the whole answer.
fn exchange(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Status line and content.
fn fetch(port: u16, path: &str) -> (String, String) {
    let answer = exchange(port, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    let (head, content) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", content.len())), "{head}");
    (head.lines().next().unwrap().to_owned(), content.to_owned())
}

/// The values of a page, by name with labels. Checks the form of each line on the way.
fn values(page: &str) -> BTreeMap<String, f64> {
    let mut kinds = BTreeMap::new();
    let mut values = BTreeMap::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["gauge", "counter", "histogram"].contains(&kind));
            assert!(kinds.insert(name.to_owned(), kind).is_none(), "{name} is described once");
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let plain = name.split('{').next().unwrap();
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| plain.strip_suffix(end));
            assert!(kinds.contains_key(plain) || kinds[family.unwrap()] == "histogram", "{line}");
            assert!(values.insert(name.to_owned(), value.parse().unwrap()).is_none(), "{line} stands once");
        }
    }
    values
}

#[test]
fn prometheus_gets_counters_and_histograms() {
    let port = free_port();
    let server = Server::start(&["--metrics-port", &port.to_string()]);
    let mut client = server.connect();
    for element in 0..20 {
        client.ask(&format!("VADD k VALUES 2 1 {element} e{element}"));
    }
    client.check(&[
        ("VSIM k ELE e1 COUNT 1", "[e1]"),
        ("VCARD", "-ERR wrong number of arguments for 'VCARD' command"),
    ]);
    let (status, page) = fetch(port, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    let values = values(&page);
    assert_eq!(values["vecdis_elements"], 20.0);
    assert_eq!(values["vecdis_connected_clients"], 1.0);
    assert_eq!(values["vecdis_searches_total"], 1.0);
    assert_eq!(values["vecdis_plans_total{plan=\"scan\"}"], 1.0);
    assert_eq!(values["vecdis_keyspace_hits_total"], 1.0);
    assert_eq!(values["vecdis_errors_total{code=\"ERR\"}"], 1.0);
    assert_eq!(values["vecdis_command_rejections_total{command=\"vcard\"}"], 1.0);
    assert_eq!(values["vecdis_command_duration_seconds_count{command=\"vadd\"}"], 20.0);
    assert!(values["vecdis_command_duration_seconds_sum{command=\"vadd\"}"] > 0.0);
    let mut bounds: Vec<(f64, f64)> = values
        .iter()
        .filter_map(|(name, count)| {
            let bound = name.strip_prefix("vecdis_command_duration_seconds_bucket{command=\"vadd\",le=\"")?;
            Some((bound.strip_suffix("\"}")?.replace("+Inf", "inf").parse().unwrap(), *count))
        })
        .collect();
    bounds.sort_by(|a, b| a.partial_cmp(b).unwrap());
    assert!(bounds.len() > 20 && bounds.is_sorted_by(|a, b| a.1 <= b.1), "{bounds:?}");
    assert_eq!(*bounds.last().unwrap(), (f64::INFINITY, 20.0));
}

#[test]
fn prometheus_is_told_what_each_customer_uses() {
    let port = free_port();
    let server = Server::start(&["--metrics-port", &port.to_string()]);
    let key = server.connect().ask(r"APIKEY CREATE a\b");
    let mut customer = server.connect();
    customer.check(&[(&format!("AUTH {key}"), "+OK"), ("VADD k VALUES 2 1 0 e", ":1")]);
    customer.ask("VEMBED hello");
    let values = values(&fetch(port, "/metrics").1);
    for (name, value) in [
        ("commands_total", 2.0),
        ("texts_total", 1.0),
        ("tokens_total", 1.0),
        ("vectors", 1.0),
        ("vector_bytes", 8.0),
    ] {
        assert_eq!(values[&format!(r#"vecdis_user_{name}{{user="a\\b"}}"#)], value, "{name}");
    }
}

#[test]
fn the_http_port_answers_only_what_it_knows() {
    let port = free_port();
    let _server = Server::start(&["--metrics-port", &port.to_string()]);
    assert_eq!(fetch(port, "/health"), ("HTTP/1.1 200 OK".into(), "ok\n".into()));
    assert_eq!(fetch(port, "/ready?verbose"), ("HTTP/1.1 200 OK".into(), "ready\n".into()));
    assert_eq!(fetch(port, "/").0, "HTTP/1.1 404 Not Found");
    assert!(exchange(port, "POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405 "));
    assert!(exchange(port, &format!("GET /{}", "x".repeat(1 << 14))).starts_with("HTTP/1.1 404 "));
    let head = exchange(port, "HEAD /health HTTP/1.0\r\n\r\n");
    assert!(head.contains("Content-Length: 3\r\n") && head.ends_with("\r\n\r\n"));
}

#[test]
fn a_server_that_loads_is_healthy_and_not_ready() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_in(folder.path(), &[]);
    let mut client = server.connect();
    for element in 0..2000 {
        client.ask(&format!("VADD k VALUES 1 1 e{element}"));
    }
    server.kill9();
    let port = free_port();
    let options = ["--metrics-port", &port.to_string(), "--key-load-delay", "1000000"];
    let server = Server::start_loading(folder.path(), &options);
    assert_eq!(fetch(port, "/health").0, "HTTP/1.1 200 OK");
    assert_eq!(fetch(port, "/ready").0, "HTTP/1.1 503 Service Unavailable");
    assert_eq!(values(&fetch(port, "/metrics").1)["vecdis_ready"], 0.0);
    let address = server.address.to_string();
    assert!(run(&["ping", &address]).status.success());
    assert_eq!(run(&["ping", &address, "--ready"]).status.code(), Some(1));
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let port = free_port();
    let server = Server::start(&["--metrics-port", &port.to_string()]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 1 1 a", ":1"), ("VSIM k ELE a", "[a]")]);
    client.ask("VCARD");
    let page = fetch(port, "/metrics").1;
    let mut queries = 0;
    for target in
        dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap())
    {
        let query = target["expr"].as_str().unwrap();
        assert_eq!(query.matches('(').count(), query.matches(')').count(), "{query}");
        let names = query
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("vecdis_"));
        for name in names {
            let line = page
                .lines()
                .find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
            let line = line.unwrap_or_else(|| panic!("{name} of {query} is not in /metrics"));
            let labels =
                query.split("by (").nth(1).and_then(|rest| rest.split(')').next()).unwrap_or_default();
            assert!(labels.split(", ").all(|label| line.contains(label)), "{labels} in {line}");
            queries += 1;
        }
    }
    assert!(queries > 20);
}

#[test]
fn ping_tells_whether_a_server_answers() {
    let server = Server::start(&["--requirepass", "secret"]);
    let output = run(&["ping", &server.address.to_string()]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "NOAUTH Authentication required.\n");
    let open = Server::start(&[]);
    assert_eq!(run(&["ping", &open.address.to_string(), "--ready"]).stdout, b"PONG\n");
    let nobody = format!("127.0.0.1:{}", free_port());
    assert_eq!(run(&["ping", &nobody]).status.code(), Some(1));
    assert_eq!(run(&["ping", "nonsense"]).status.code(), Some(1));
}

#[test]
fn systemd_is_told_of_start_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(WAIT_MAX)).unwrap();
    let mut process = std::process::Command::new(common::PROGRAM)
        .args([
            "--supervised",
            "systemd",
            "--bind",
            "127.0.0.1",
            "--port",
            "0",
            "--log-format",
            "json",
            "--dir",
        ])
        .arg(folder.path().join("data"))
        .env("NOTIFY_SOCKET", &path)
        .stdout(fs::File::create(folder.path().join("log")).unwrap())
        .spawn()
        .unwrap();
    let told = || {
        let mut buffer = [0; 1000];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert!(told().starts_with("STATUS=Loading"));
    assert!(told().starts_with("READY=1\n"));
    let kill = format!("kill -TERM {}", process.id());
    assert!(std::process::Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert!(told().starts_with("STOPPING=1\n"));
    assert!(process.wait().unwrap().success());
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines.len() > 2 && lines.iter().all(|line| line["level"] == "notice" && line["message"].is_string())
    );
}

#[test]
fn monitors_need_no_words_beyond_plain_ones() {
    // A name of a command, or a code of an error, is a label: it must not need escaping.
    let port = free_port();
    let server = Server::start(&["--metrics-port", &port.to_string()]);
    let mut client = server.connect();
    client.call(&words("NO\"SUCH\\COMMAND"));
    values(&fetch(port, "/metrics").1);
}
