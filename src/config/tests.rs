//! Tests of the configuration as a whole: arguments, files, the table and the file that comes with the
//! server.

use std::io::Write;
use std::path::Path;

use super::*;

fn load(args: &[&str], stdin: &str) -> Result<Config, ConfigError> {
    Config::load_with(args.iter().map(|&arg| arg.to_owned()), stdin.as_bytes())
}

fn conf(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn message(result: Result<Config, ConfigError>) -> String {
    let text = result.expect_err("refused").to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = load(&[], "").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.get("bind").unwrap(), "127.0.0.1 -::1");
    assert_eq!((config.port, config.tcp_backlog, config.maxclients), (6379, 511, 10_000));
    assert_eq!((config.timeout_s, config.tcp_keepalive_s, config.databases), (0, 300, 1));
    assert_eq!(config.proto_max_bulk_len_bytes, 512 << 20);
    assert_eq!((config.auto_aof_rewrite_percentage, config.auto_aof_rewrite_min_size_bytes), (100, 64 << 20));
    assert_eq!((config.appendonly, config.appendfsync), (true, Fsync::Everysec));
    assert_eq!(config.compaction_percentage, 20);
    assert_eq!((config.maxmemory_bytes, config.io_threads, config.search_threads), (0, 0, 0));
    assert_eq!(config.search_kernel, "auto");
    assert!(config.search_sketches);
    assert_eq!((config.loglevel, config.dir.as_path()), (LogLevel::Notice, Path::new("./data")));
    let limit = config.client_output_buffer_limit;
    assert_eq!((limit.hard_bytes, limit.soft_bytes, limit.soft_s), (256 << 20, 64 << 20, 60));
    assert_eq!(config.maxmemory_clients_bytes, 1 << 30);
    assert!(config.requirepass.is_empty() && config.logfile.as_os_str().is_empty());
}

#[test]
fn every_option_prints_what_it_reads() {
    for (name, value) in Config::default().matching(b"*") {
        let mut config = Config::default();
        config.set(name, &value).unwrap();
        assert_eq!(config, Config::default(), "{name}");
    }
    let changed: &[(&str, &str)] = &[
        ("bind", "0.0.0.0"),
        ("port", "7000"),
        ("tcp-backlog", "7"),
        ("unixsocket", "/x y"),
        ("unixsocketperm", "770"),
        ("tls-port", "7"),
        ("tls-cert-file", "/x y"),
        ("tls-key-file", "/x y"),
        ("tls-ca-cert-file", "/x y"),
        ("tls-auth-clients", "optional"),
        ("timeout", "7"),
        ("tcp-keepalive", "7"),
        ("maxclients", "7"),
        ("client-output-buffer-limit", "normal 7 5 3"),
        ("maxmemory-clients", "7"),
        ("protected-mode", "no"),
        ("aclfile", "/x y"),
        ("proto-max-bulk-len", "2097152"),
        ("databases", "16"),
        ("dir", "/x y"),
        ("read-only", "yes"),
        ("appendonly", "no"),
        ("appendfsync", "always"),
        ("auto-aof-rewrite-percentage", "7"),
        ("auto-aof-rewrite-min-size", "7"),
        ("compaction-percentage", "7"),
        ("maxmemory", "7"),
        ("io-threads", "7"),
        ("search-threads", "7"),
        ("search-kernel", "scalar"),
        ("search-sketches", "no"),
        ("embedding-model", "other"),
        ("embedding-threads", "7"),
        ("embedding-cache-size", "7"),
        ("onnxruntime-path", "/x y"),
        ("metrics-port", "9121"),
        ("metrics-bind", "0.0.0.0"),
        ("supervised", "auto"),
        ("slowlog-log-slower-than", "-1"),
        ("slowlog-max-len", "7"),
        ("latency-monitor-threshold", "7"),
        ("enable-debug-command", "yes"),
        ("key-load-delay", "7"),
        ("loglevel", "debug"),
        ("logfile", "x.log"),
        ("log-format", "json"),
    ];
    for &(name, value) in changed {
        let mut config = Config::default();
        config.set(name, value).unwrap();
        assert_eq!(config.get(name).unwrap(), value);
        assert_ne!(config, Config::default(), "{name} changes its own field");
        config.set(name, ConfigOption::find(name).unwrap().default).unwrap();
        assert_eq!(config, Config::default(), "{name} changes no other field");
    }
    // All but save, which has nothing to hold, and requirepass and user, which are not shown.
    assert_eq!(changed.len() + 3, Config::names().count());
}

#[test]
fn options_override_the_file_and_the_last_one_wins() {
    let file = conf("# mine\n\nport 7000\nPORT 7001\nbind 127.0.0.1 ::1\nmaxmemory 2gb\nsave \"\"\n");
    let path = file.path().to_str().unwrap();
    let config = load(&[path], "").unwrap();
    assert_eq!((config.port, config.bind.len(), config.maxmemory_bytes), (7001, 2, 2 << 30));
    let config =
        load(&[path, "--port", "7002", "--maxmemory=1k", "--bind", "*", "::1", "--port", "7003"], "")
            .unwrap();
    assert_eq!((config.port, config.maxmemory_bytes), (7003, 1000));
    assert_eq!(config.get("bind").unwrap(), "0.0.0.0 ::1");
    assert_eq!(load(&["--save", "", "--requirepass=--x=y"], "").unwrap().requirepass.expose(), "--x=y");
}

#[test]
fn limits_of_unread_replies_are_given_as_in_redis_files() {
    let lines = "client-output-buffer-limit pubsub 32mb 8mb 60\nclient-output-buffer-limit NORMAL 1mb 0 0 replica 0 0 0\n";
    let config = load(&["-"], lines).unwrap();
    assert_eq!(config.get("client-output-buffer-limit").unwrap(), "normal 1048576 0 0");
    for bad in
        ["normal", "normal 1 1", "master 1 1 1", "normal 1 1 1 pubsub", "normal 1 1 -1", "normal x 1 1", ""]
    {
        let mut config = Config::default();
        assert!(config.set("client-output-buffer-limit", bad).is_err(), "{bad}");
        assert_eq!(config, Config::default());
    }
}

#[test]
fn standard_input_is_a_file_named_with_a_dash() {
    assert_eq!(load(&["-"], "port 7000").unwrap().port, 7000);
    assert_eq!(load(&["-", "--port", "7001"], "port 7000").unwrap().port, 7001);
    let file = conf("port 6999\ntimeout 9\n");
    let config = load(&[file.path().to_str().unwrap(), "--maxclients", "5", "-"], "port 7000").unwrap();
    assert_eq!((config.port, config.timeout_s, config.maxclients), (7000, 9, 5));
    assert!(message(load(&["-"], "\nport x")).starts_with("standard input:2: port cannot be \"x\""));
}

#[test]
fn errors_name_the_place_the_option_and_what_is_accepted() {
    let file = conf("# one\nport 6379 # two\n");
    let path = file.path().to_str().unwrap();
    assert!(message(load(&[path], "")).starts_with(&format!("{path}:2: port takes one value, not 3")));
    let file = conf("maxmemory-policy noeviction\n");
    let path = file.path().to_str().unwrap();
    assert_eq!(message(load(&[path], "")), format!("{path}:1: unknown option \"maxmemory-policy\""));
    assert!(message(load(&["-"], "save 3600 1 300 100")).contains("checkpoints follow log growth"));
    assert!(message(load(&["-"], "dir \"open")).ends_with("unbalanced quotes"));
    assert!(message(load(&["/no/such/file.conf"], "")).contains("/no/such/file.conf"));
    assert_eq!(
        message(load(&["--port", "65536"], "")),
        "port cannot be \"65536\": it takes a whole number from 0 to 65535"
    );
    assert!(message(load(&["--appendfsync", "often"], "")).ends_with("one of always, everysec, no"));
    assert!(message(load(&["--port"], "")).contains("takes one value, not 0"));
    assert!(message(load(&["--", "x"], "")).contains("unexpected argument"));
    assert!(message(load(&["-p", "7000"], "")).contains("unexpected argument \"-p\""));
    assert!(message(load(&["--dir", ""], "")).contains("the path of a folder"));
    assert!(message(load(&["--databases", "0"], "")).contains("databases"));
    assert!(message(load(&[&format!("--port={}\n", "9".repeat(1000))], "")).len() < 300);
}

#[test]
fn the_password_is_never_shown() {
    let config = load(&["--requirepass", "tops3cret"], "").unwrap();
    assert!(!format!("{config:?}").contains("tops3cret"));
    assert_eq!(config.get("requirepass").unwrap(), "(hidden)");
    assert_eq!(config.matching(b"require*"), vec![("requirepass", "(hidden)".to_owned())]);
    assert!(!message(load(&["--requirepass", "tops3cret", "two"], "")).contains("tops3cret"));
}

#[test]
fn a_refused_value_changes_nothing() {
    let takes_all = |name: &str| {
        matches!(
            name,
            "unixsocket"
                | "tls-cert-file"
                | "tls-key-file"
                | "tls-ca-cert-file"
                | "requirepass"
                | "aclfile"
                | "user"
                | "logfile"
                | "dir"
                | "onnxruntime-path"
        )
    };
    for option in OPTIONS.iter().filter(|option| !takes_all(option.name)) {
        let mut config = Config::default();
        assert!(config.set(option.name, "no such value").is_err(), "{}", option.name);
        assert_eq!(config, Config::default());
    }
}

#[test]
fn only_options_marked_so_change_at_run_time() {
    let mut config = Config::default();
    config.set_at_run_time("MaxMemory", "100mb").unwrap();
    assert_eq!(config.maxmemory_bytes, 100 << 20);
    assert!(matches!(config.set_at_run_time("port", "1"), Err(ConfigError::Fixed("port"))));
    assert!(matches!(config.set_at_run_time("nothing", "1"), Err(ConfigError::Unknown(_))));
}

#[test]
fn matching_takes_globs_in_any_case() {
    let config = Config::default();
    assert_eq!(config.matching(b"*").len(), OPTIONS.len());
    assert_eq!(config.matching(b"APPEND*").len(), 2);
    assert_eq!(config.matching(b"por?"), vec![("port", "6379".to_owned())]);
    assert!(config.matching(b"nothing").is_empty());
    assert_eq!(config.get("nothing"), None);
}

#[test]
fn names_are_sane_and_unique() {
    let mut names: Vec<&str> = Config::names().collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), OPTIONS.len());
    assert!(
        OPTIONS.iter().all(|option| !option.doc.contains('\n') && option.name == option.name.to_lowercase())
    );
}

#[test]
fn the_file_that_comes_with_the_server_holds_every_option_at_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/vecdis.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut names = Vec::new();
    for line in text.lines() {
        let words = file::split_line(line).unwrap();
        if let Some((name, values)) = words.split_first() {
            assert_eq!(values.join(" "), ConfigOption::find(name).unwrap().default, "{name}");
            names.push(name.clone());
        }
    }
    for name in Config::names() {
        assert_eq!(names.iter().filter(|&given| given == name).count(), 1, "{name} stands once in {path:?}");
    }
    let loaded = load(&[path.to_str().unwrap()], "").unwrap();
    assert_eq!(loaded.file.as_deref(), Some(path.as_path()));
    assert_eq!(Config { file: None, ..loaded }, Config::default());
}
