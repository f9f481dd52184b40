//! What operators see: INFO, SLOWLOG, LATENCY, MONITOR, MEMORY, CONFIG REWRITE and RESETSTAT, HELP.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod common;

use std::collections::BTreeMap;

use common::{Client, Server, Value, command, words};

/// INFO's fields of the given sections.
fn info(client: &mut Client, sections: &str) -> BTreeMap<String, String> {
    let text = client.call(&words(&format!("INFO {sections}"))).text();
    let fields = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    fields.map(|line| line.split_once(':').unwrap()).map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
}

/// A part of a value such as `calls=1,usec=2`.
fn part(value: &str, name: &str) -> f64 {
    let found = value.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    found.unwrap_or_else(|| panic!("no {name} in {value}")).parse().unwrap()
}

fn number(reply: &str) -> u64 {
    reply.strip_prefix(':').unwrap().parse().unwrap()
}

#[test]
fn calls_are_counted_by_command_however_they_come() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 1 1 a", ":1"), ("VADD k VALUES 1 1 a", ":0")]);
    client.pipeline(&vec![words("VISMEMBER k a"); 100]);
    client.check(&[
        ("VSIM k ELE a", "[a]"),
        ("MULTI", "+OK"),
        ("VCARD k", "+QUEUED"),
        ("VCARD k", "+QUEUED"),
        ("VSIM k ELE nobody", "+QUEUED"),
    ]);
    client.call(&words("EXEC"));
    client.ask("VSIM k ELE nobody");
    client.ask("VCARD");
    client.ask("NOSUCH");
    let stats = info(&mut client, "commandstats");
    let calls = |name: &str| part(&stats[&format!("cmdstat_{name}")], "calls");
    assert_eq!((calls("vadd"), calls("vismember"), calls("vcard")), (2.0, 100.0, 2.0));
    assert_eq!((calls("vsim"), calls("multi"), calls("exec")), (3.0, 1.0, 1.0));
    assert_eq!(part(&stats["cmdstat_vsim"], "failed_calls"), 2.0);
    assert_eq!(part(&stats["cmdstat_vcard"], "rejected_calls"), 1.0);
    assert!(part(&stats["cmdstat_vadd"], "usec_per_call") > 0.0);
    assert!(!stats.contains_key("cmdstat_ttl"));
    let latency = info(&mut client, "latencystats");
    let vadd = &latency["latency_percentiles_usec_vadd"];
    assert!(part(vadd, "p50") > 0.0 && part(vadd, "p50") <= part(vadd, "p99.9"));
    let errors = info(&mut client, "errorstats");
    assert_eq!(errors["errorstat_ERR"], "count=3", "what is inside EXEC is a part of its reply");
    let total: f64 = info(&mut client, "stats")["total_commands_processed"].parse().unwrap();
    // Besides those above: three INFO.
    assert_eq!(total, 2.0 + 100.0 + 2.0 + 3.0 + 2.0 + 3.0);
    assert!(info(&mut client, "").keys().all(|name| !name.starts_with("cmdstat")), "only when asked for");
    assert!(info(&mut client, "everything").contains_key("cmdstat_vadd"));
    client.check(&[("CONFIG RESETSTAT", "+OK")]);
    let stats = info(&mut client, "commandstats errorstats");
    assert_eq!(stats.keys().cloned().collect::<Vec<_>>(), ["cmdstat_config"]);
}

#[test]
fn info_has_the_fields_that_tools_read() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 1 1 a", ":1"), ("WATCH k", "+OK")]);
    let fields = info(&mut client, "all");
    for name in [
        "redis_version",
        "redis_mode",
        "os",
        "process_id",
        "run_id",
        "tcp_port",
        "uptime_in_seconds",
        "server_time_usec",
        "config_file",
        "connected_clients",
        "maxclients",
        "blocked_clients",
        "client_recent_max_input_buffer",
        "used_memory",
        "used_memory_human",
        "used_memory_rss",
        "used_memory_peak",
        "used_memory_peak_human",
        "total_system_memory",
        "maxmemory",
        "maxmemory_policy",
        "mem_fragmentation_ratio",
        "used_memory_dataset",
        "rdb_last_save_time",
        "rdb_bgsave_in_progress",
        "aof_enabled",
        "total_connections_received",
        "instantaneous_ops_per_sec",
        "total_net_input_bytes",
        "instantaneous_input_kbps",
        "rejected_connections",
        "evicted_keys",
        "total_error_replies",
        "role",
        "connected_slaves",
        "master_repl_offset",
        "used_cpu_sys",
        "used_cpu_user",
        "used_cpu_sys_children",
        "cmdstat_vadd",
        "latency_percentiles_usec_vadd",
        "cluster_enabled",
        "vector_collections",
        "vector_rows",
        "searches_per_pass",
        "embedding_cache_hits",
        "db0",
    ] {
        assert!(fields.contains_key(name), "{name}");
    }
    assert_eq!((fields["watching_clients"].as_str(), fields["total_watched_keys"].as_str()), ("1", "1"));
    assert_eq!(fields["db0"], "keys=1,expires=0,avg_ttl=0");
    let size = |name: &str| fields[name].parse::<u64>().unwrap();
    assert!(size("used_memory_peak") >= size("used_memory") && size("used_memory_rss") > 1 << 20);
}

#[test]
fn the_slow_log_keeps_what_is_slow() {
    let server = Server::start(&["--slowlog-log-slower-than", "0", "--slowlog-max-len", "4"]);
    let mut client = server.connect();
    client.check(&[("SLOWLOG RESET", "+OK"), ("CLIENT SETNAME me", "+OK")]);
    client.check(&[("VADD k VALUES 1 1 a", ":1"), ("VSIM k ELE a", "[a]"), ("ECHO hello", "hello")]);
    let log = client.call(&words("SLOWLOG GET 10"));
    let shown = |entry: &Value| entry.items()[3].to_string();
    let lines: Vec<String> = log.items().iter().map(shown).collect();
    assert_eq!(lines, ["[ECHO hello]", "[VSIM k ELE a]", "[VADD k VALUES 1 1 a]", "[CLIENT SETNAME me]"]);
    let entry = log.items()[1].items();
    assert_eq!(entry.len(), 6);
    assert!(entry[0].number() > 0.0 && entry[1].number() > 1.6e9 && entry[2].number() >= 0.0);
    assert_eq!(entry[4].text(), client.stream.local_addr().unwrap().to_string());
    assert_eq!(entry[5].text(), "me");
    client.check(&[
        ("SLOWLOG LEN", ":4"),
        ("SLOWLOG GET -2", "-ERR count should be greater than or equal to -1"),
    ]);
    assert_eq!(client.call(&words("SLOWLOG GET 1")).items().len(), 1);
    assert_eq!(client.call(&words("SLOWLOG GET -1")).items().len(), 4);
    client.ask("AUTH default sesame");
    client.check(&[("CONFIG SET requirepass sesame", "+OK"), ("CONFIG SET requirepass ''", "+OK")]);
    assert!(!client.ask("SLOWLOG GET").contains("sesame"));
    client.check(&[("CONFIG SET slowlog-log-slower-than -1", "+OK"), ("SLOWLOG RESET", "+OK")]);
    client.check(&[("ECHO hello", "hello"), ("SLOWLOG LEN", ":0"), ("SLOWLOG GET", "[]")]);
    client.check(&[
        ("CONFIG SET slowlog-log-slower-than 1000000", "+OK"),
        ("PING", "+PONG"),
        ("SLOWLOG LEN", ":0"),
    ]);
}

#[test]
fn latency_shows_slow_moments_and_histograms() {
    let server = Server::start(&["--enable-debug-command", "yes"]);
    let mut client = server.connect();
    client.check(&[("DEBUG SLEEP 0.02", "+OK"), ("LATENCY LATEST", "[]")]);
    assert!(client.ask("LATENCY DOCTOR").contains("latency-monitor-threshold"));
    client.check(&[("CONFIG SET latency-monitor-threshold 15", "+OK"), ("DEBUG SLEEP 0.02", "+OK")]);
    let latest = client.call(&words("LATENCY LATEST"));
    let [event, at_s, last_ms, max_ms] = latest.items()[0].items() else { panic!("{latest}") };
    assert_eq!(event.text(), "command");
    assert!(at_s.number() > 1.6e9 && last_ms.number() >= 20.0 && max_ms.number() >= last_ms.number());
    assert_eq!(client.call(&words("LATENCY HISTORY command")).items().len(), 1);
    client.check(&[("LATENCY HISTORY nothing", "[]")]);
    assert!(client.ask("LATENCY DOCTOR").contains("command: slow in 1 seconds"));
    client.check(&[("LATENCY RESET nothing", ":0"), ("LATENCY RESET", ":1"), ("LATENCY LATEST", "[]")]);

    client.pipeline(&vec![words("PING"); 50]);
    let all = client.call(&words("LATENCY HISTOGRAM"));
    assert_eq!(all.field("ping").field("calls").number(), 50.0);
    let bounds = all.field("ping").field("histogram_usec").items();
    assert_eq!(bounds.last().unwrap().number(), 50.0);
    let slow = client.call(&words("LATENCY HISTOGRAM DEBUG nosuch"));
    let bounds = slow.field("debug").field("histogram_usec").items();
    assert!(bounds[0].number() >= 16_384.0, "{slow}");
    assert_eq!(slow.items().len(), 2);
}

#[test]
fn monitors_see_every_command_without_secrets() {
    let server = Server::start(&[]);
    let (mut watcher, mut client) = (server.connect(), server.connect());
    watcher.check(&[("MONITOR", "+OK")]);
    client.check(&[("VADD k VALUES 1 1 'a \"b'", ":1"), ("CONFIG SET requirepass sesame", "+OK")]);
    client.call(&command(&[&b"ECHO"[..], b"\x00\n\xff"]));
    client.check(&[
        ("AUTH sesame", "+OK"),
        ("NOSUCH x", "-ERR unknown command 'NOSUCH', with args beginning with: 'x' "),
    ]);
    client.check(&[("PING", "+PONG")]);
    let peer = client.stream.local_addr().unwrap();
    for expected in [
        r#""VADD" "k" "VALUES" "1" "1" "a \"b""#,
        r#""CONFIG" "SET" "requirepass" "(redacted)""#,
        r#""ECHO" "\x00\n\xff""#,
        r#""AUTH" "(redacted)""#,
        r#""PING""#,
    ] {
        let line = watcher.read().to_string();
        let (time, rest) = line.strip_prefix('+').unwrap().split_once(' ').unwrap();
        assert!(time.parse::<f64>().unwrap() > 1.6e9, "{line}");
        assert_eq!(rest, format!("[0 {peer}] {expected}"));
    }
    assert!(client.ask("CLIENT LIST").contains("flags=O"));
    watcher.read();
    watcher.send(b"RESET\r\n");
    assert_eq!(watcher.read().to_string(), "+RESET");
    client.check(&[("PING", "+PONG")]);
    watcher.send(b"AUTH sesame\r\nPING\r\n");
    assert_eq!((watcher.read().to_string(), watcher.read().to_string()), ("+OK".into(), "+PONG".into()));
}

#[test]
fn a_monitor_that_does_not_read_is_ended_and_the_others_go_on() {
    let server = Server::start(&[]);
    let (mut watcher, mut client) = (server.connect(), server.connect());
    watcher.check(&[("MONITOR", "+OK")]);
    let long = command(&["ECHO".to_owned(), "x".repeat(1 << 20)]);
    for _ in 0..400 {
        client.call(&long);
    }
    assert!(client.ask("CLIENT LIST").lines().count() <= 1, "the watcher is gone");
}

#[test]
fn memory_tells_what_the_server_takes() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    client.check(&[("VADD k VALUES 1 1 a", ":1")]);
    let stats = client.call(&words("MEMORY STATS"));
    assert!(stats.field("total.allocated").number() > 0.0);
    assert!(stats.field("peak.allocated").number() >= stats.field("total.allocated").number());
    assert_eq!(stats.field("keys.count").number(), 1.0);
    assert!(number(&client.ask("MEMORY USAGE k")) > 0);
    client.check(&[
        ("MEMORY PURGE", "+OK"),
        ("MEMORY DOCTOR", "Nothing is wrong with the memory.\n"),
        ("MEMORY USAGE", "-ERR wrong number of arguments for 'memory|usage' command"),
        ("MEMORY WHAT", "-ERR unknown subcommand 'WHAT'. Try MEMORY HELP."),
    ]);
    client.check(&[("CONFIG SET maxmemory 1", "+OK")]);
    assert!(client.ask("MEMORY DOCTOR").contains("maxmemory is nearly reached"));
}

#[test]
fn config_rewrite_keeps_changes_for_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vecdis.conf");
    std::fs::write(&path, "# my comment\ntimeout 5\n").unwrap();
    let path = path.to_str().unwrap();
    let server = Server::start_in(folder.path(), &[path]);
    let mut client = server.connect();
    client.check(&[("CONFIG SET timeout 77 maxclients 123", "+OK"), ("CONFIG REWRITE", "+OK")]);
    server.terminate("TERM");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.starts_with("# my comment\ntimeout 77\n") && text.contains("\nmaxclients 123\n"), "{text}");
    let server = Server::start_in(folder.path(), &[path]);
    let mut client = server.connect();
    client.check(&[("CONFIG GET timeout", "[timeout 77]"), ("CONFIG GET maxclients", "[maxclients 123]")]);
    let server = Server::start(&[]);
    let without = "-ERR The server is running without a config file";
    server.connect().check(&[("CONFIG REWRITE", without)]);
}

#[test]
fn commands_with_subcommands_have_help() {
    let server = Server::start(&[]);
    let mut client = server.connect();
    for name in ["CLIENT", "COMMAND", "CONFIG", "LATENCY", "MEMORY", "OBJECT", "SLOWLOG"] {
        let help = client.call(&words(&format!("{name} HELP")));
        let lines: Vec<String> = help.items().iter().map(Value::text).collect();
        assert_eq!(lines[0], format!("{name} <subcommand> [<arg> [value] ...]. Subcommands are:"));
        assert!(lines.len() > 3 && lines.last().unwrap() == "HELP", "{lines:?}");
    }
    assert!(client.ask("CLIENT HELP").contains("KILL filter [value ...]"));
    client.check(&[("VADD k VALUES 1 1 HELP", ":1")]);
}
