//! The table of options: the single source of names, defaults, documentation, reading and printing.

use super::Config;
use super::values::{
    SECONDS_MAX, Secret, addresses, kernel_name, model_name, number, permissions, print_addresses,
    print_yes_no, size_bytes, yes_no,
};

/// Lowest and highest accepted `proto-max-bulk-len`: one record of the log holds at most 1 GB.
const BULK_BYTES_MIN: u64 = 1 << 20;
const BULK_BYTES_MAX: u64 = 1 << 30;
/// Highest accepted number of clients; the operating system's limit of open files is far below.
const CLIENTS_MAX: usize = 1_000_000;
/// Highest accepted number of search threads, and of threads that serve connections.
const THREADS_MAX: usize = 1_024;
/// Highest accepted length of the queue of connections not yet taken.
const BACKLOG_MAX: u32 = 65_535;
/// Highest accepted `databases` (only 0 can be selected whatever it says).
const DATABASES_MAX: u32 = 1_000_000;
/// Longest accepted wait before a log record.
const LOAD_DELAY_US_MAX: u64 = 1_000_000;
/// Highest accepted length of the slow log.
const SLOWLOG_LEN_MAX: usize = 1_000_000;
/// Highest accepted percentage of growth.
const PERCENTAGE_MAX: u32 = 1_000_000;

/// One option: everything there is to know about it.
pub struct ConfigOption {
    /// Its name, lower case, as in configuration files.
    pub name: &'static str,
    /// The text of its default value.
    pub default: &'static str,
    /// Whether `CONFIG SET` may change it while the server runs.
    pub settable: bool,
    /// Whether a line of a file may give several values (read as one text with blanks between them).
    pub(super) several: bool,
    /// What it does, in one line.
    pub doc: &'static str,
    /// Reads a value into the configuration; the error says what is accepted.
    pub(super) read: fn(&mut Config, &str) -> Result<(), String>,
    /// Prints the value.
    pub(super) print: fn(&Config) -> String,
}

/// Makes a row of the table: an option that takes one value and is fixed once the server runs.
const fn option(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    read: fn(&mut Config, &str) -> Result<(), String>,
    print: fn(&Config) -> String,
) -> ConfigOption {
    ConfigOption { name, default, settable: false, several: false, doc, read, print }
}

impl ConfigOption {
    const fn settable(self) -> Self {
        Self { settable: true, ..self }
    }

    const fn several(self) -> Self {
        Self { several: true, ..self }
    }
}

/// Reads `text` with the given reader into a field. Short for the rows below.
macro_rules! into {
    ($field:ident, |$text:ident| $read:expr) => {
        |config, $text| {
            config.$field = $read?;
            Ok(())
        }
    };
}

/// All options, in the order they are documented.
pub static OPTIONS: &[ConfigOption] = &[
    option(
        "bind",
        "127.0.0.1 -::1",
        "addresses to listen on; \"-\" in front: go on without it; * and ::* are all of IPv4 and IPv6",
        into!(bind, |text| addresses(text)),
        |config| print_addresses(&config.bind),
    )
    .several(),
    option(
        "port",
        "6379",
        "TCP port to listen on; 0 lets the system choose a free one",
        into!(port, |text| number(text, 0, u16::MAX)),
        |config| config.port.to_string(),
    ),
    option(
        "tcp-backlog",
        "511",
        "length of the queue of connections not yet taken; the system may cut it",
        into!(tcp_backlog, |text| number(text, 1, BACKLOG_MAX)),
        |config| config.tcp_backlog.to_string(),
    ),
    option(
        "unixsocket",
        "",
        "path of a Unix socket to listen on; \"\" = none",
        |config, text| {
            config.unixsocket = text.into();
            Ok(())
        },
        |config| config.unixsocket.display().to_string(),
    ),
    option(
        "unixsocketperm",
        "0",
        "permissions of the Unix socket in octal digits; 0 = as the system makes it",
        into!(unixsocketperm, |text| permissions(text)),
        |config| format!("{:o}", config.unixsocketperm),
    ),
    option(
        "tls-port",
        "0",
        "TCP port to listen on for TLS; 0 = none",
        into!(tls_port, |text| number(text, 0, u16::MAX)),
        |config| config.tls_port.to_string(),
    ),
    option(
        "tls-cert-file",
        "",
        "the server's certificate, with those it was signed by behind it (PEM)",
        |config, text| {
            config.tls_cert_file = text.into();
            Ok(())
        },
        |config| config.tls_cert_file.display().to_string(),
    )
    .settable(),
    option(
        "tls-key-file",
        "",
        "the key of the server's certificate (PEM, not encrypted)",
        |config, text| {
            config.tls_key_file = text.into();
            Ok(())
        },
        |config| config.tls_key_file.display().to_string(),
    )
    .settable(),
    option(
        "tls-ca-cert-file",
        "",
        "certificates of those who sign the certificates of clients (PEM)",
        |config, text| {
            config.tls_ca_cert_file = text.into();
            Ok(())
        },
        |config| config.tls_ca_cert_file.display().to_string(),
    )
    .settable(),
    option(
        "tls-auth-clients",
        "yes",
        "whether TLS clients have to show a certificate: yes, no, optional (one that is shown must be good)",
        into!(tls_auth_clients, |text| text.parse()),
        |config| config.tls_auth_clients.to_string(),
    )
    .settable(),
    option(
        "timeout",
        "0",
        "seconds after which an idle connection is closed; 0 = never",
        into!(timeout_s, |text| number(text, 0, SECONDS_MAX)),
        |config| config.timeout_s.to_string(),
    )
    .settable(),
    option(
        "tcp-keepalive",
        "300",
        "seconds of silence before TCP asks whether the other side is still there; 0 = never",
        into!(tcp_keepalive_s, |text| number(text, 0, SECONDS_MAX)),
        |config| config.tcp_keepalive_s.to_string(),
    )
    .settable(),
    option(
        "maxclients",
        "10000",
        "connections at the same time; further ones are refused",
        into!(maxclients, |text| number(text, 1, CLIENTS_MAX)),
        |config| config.maxclients.to_string(),
    )
    .settable(),
    option(
        "client-output-buffer-limit",
        "normal 256mb 64mb 60",
        "replies a client may leave unread: beyond the first size, or beyond the second for so many seconds, it is \
         disconnected; 0 = no limit",
        |config, text| {
            config.client_output_buffer_limit = config.client_output_buffer_limit.read(text)?;
            Ok(())
        },
        |config| config.client_output_buffer_limit.to_string(),
    )
    .settable()
    .several(),
    option(
        "maxmemory-clients",
        "1gb",
        "what the buffers of all connections may take together; beyond it those with more than 1mb are disconnected; \
         0 = no limit",
        into!(maxmemory_clients_bytes, |text| size_bytes(text, 0, u64::MAX)),
        |config| config.maxmemory_clients_bytes.to_string(),
    )
    .settable(),
    option(
        "requirepass",
        "",
        "password of the default user; \"\" = none; never shown",
        |config, text| {
            config.requirepass = Secret::new(text);
            Ok(())
        },
        |config| config.requirepass.masked().to_owned(),
    )
    .settable(),
    option(
        "protected-mode",
        "yes",
        "answer peers on other machines only if the default user has a password: yes or no",
        into!(protected_mode, |text| yes_no(text)),
        |config| print_yes_no(config.protected_mode),
    )
    .settable(),
    option(
        "aclfile",
        "",
        "file of users, a line \"user name rule ...\" for each; \"\" = users are kept in the log",
        |config, text| {
            config.aclfile = text.into();
            Ok(())
        },
        |config| config.aclfile.display().to_string(),
    ),
    option(
        "user",
        "",
        "a user and its rules, as in an ACL file; may be given several times; never shown",
        |config, text| {
            match text {
                "" => config.users.clear(),
                line => config.users.push(Secret::new(line)),
            }
            Ok(())
        },
        |_| String::new(),
    )
    .several(),
    option(
        "proto-max-bulk-len",
        "512mb",
        "longest single argument of a command",
        into!(proto_max_bulk_len_bytes, |text| size_bytes(text, BULK_BYTES_MIN, BULK_BYTES_MAX)),
        |config| config.proto_max_bulk_len_bytes.to_string(),
    )
    .settable(),
    option(
        "databases",
        "1",
        "accepted so that Redis files load; there is one database, only 0 can be selected",
        into!(databases, |text| number(text, 1, DATABASES_MAX)),
        |config| config.databases.to_string(),
    ),
    option(
        "dir",
        "./data",
        "folder of the data files; made when it does not exist",
        |config, text| {
            if text.is_empty() {
                return Err("the path of a folder".to_owned());
            }
            config.dir = text.into();
            Ok(())
        },
        |config| config.dir.display().to_string(),
    ),
    option(
        "read-only",
        "no",
        "serve the folder as it is: nothing in it is changed, writes are refused; several may serve it so",
        into!(read_only, |text| yes_no(text)),
        |config| print_yes_no(config.read_only),
    ),
    option(
        "appendonly",
        "yes",
        "log each write before it is answered; no = only the last checkpoint survives",
        into!(appendonly, |text| yes_no(text)),
        |config| print_yes_no(config.appendonly),
    ),
    option(
        "appendfsync",
        "everysec",
        "when the log is forced to the disk: always (before each answer), everysec, no (the system decides)",
        into!(appendfsync, |text| text.parse()),
        |config| config.appendfsync.to_string(),
    )
    .settable(),
    option(
        "auto-aof-rewrite-percentage",
        "100",
        "growth of the log, in percent of its size after the last checkpoint, that starts the next; 0 = never",
        into!(auto_aof_rewrite_percentage, |text| number(text, 0, PERCENTAGE_MAX)),
        |config| config.auto_aof_rewrite_percentage.to_string(),
    )
    .settable(),
    option(
        "auto-aof-rewrite-min-size",
        "64mb",
        "size of the log below which no checkpoint is started",
        into!(auto_aof_rewrite_min_size_bytes, |text| size_bytes(text, 0, u64::MAX)),
        |config| config.auto_aof_rewrite_min_size_bytes.to_string(),
    )
    .settable(),
    option(
        "save",
        "",
        "only \"\" is accepted: checkpoints follow the growth of the log (auto-aof-rewrite-percentage)",
        |_, text| match text {
            "" => Ok(()),
            _ => Err("\"\" only: checkpoints follow log growth, see auto-aof-rewrite-percentage".to_owned()),
        },
        |_| String::new(),
    )
    .settable()
    .several(),
    option(
        "compaction-percentage",
        "20",
        "share of a chunk's rows that may be dead before it is rewritten, in percent; 0 = never rewrite",
        into!(compaction_percentage, |text| number(text, 0, 100)),
        |config| config.compaction_percentage.to_string(),
    )
    .settable(),
    option(
        "maxmemory",
        "0",
        "memory at which writes are refused with -OOM, reads go on; mapped files do not count; 0 = no limit",
        into!(maxmemory_bytes, |text| size_bytes(text, 0, u64::MAX)),
        |config| config.maxmemory_bytes.to_string(),
    )
    .settable(),
    option(
        "io-threads",
        "0",
        "threads that serve the connections; 0 = one for every two cores",
        into!(io_threads, |text| number(text, 0, THREADS_MAX)),
        |config| config.io_threads.to_string(),
    ),
    option(
        "search-threads",
        "0",
        "threads that search; 0 = one for each core",
        into!(search_threads, |text| number(text, 0, THREADS_MAX)),
        |config| config.search_threads.to_string(),
    ),
    option(
        "embedding-model",
        "builtin",
        "model that embeds texts where none is named: builtin, or one of those in <dir>/models",
        into!(embedding_model, |text| model_name(text)),
        |config| config.embedding_model.clone(),
    )
    .settable(),
    option(
        "embedding-threads",
        "0",
        "threads that embed texts; 0 = one for every two cores",
        into!(embedding_threads, |text| number(text, 0, THREADS_MAX)),
        |config| config.embedding_threads.to_string(),
    ),
    option(
        "embedding-cache-size",
        "64mb",
        "memory for vectors of texts embedded lately; 0 = none are kept",
        into!(embedding_cache_size_bytes, |text| size_bytes(text, 0, u64::MAX)),
        |config| config.embedding_cache_size_bytes.to_string(),
    )
    .settable(),
    option(
        "onnxruntime-path",
        "",
        "the ONNX Runtime library; \"\" = ORT_DYLIB_PATH, beside the program, <dir>/lib, where the system looks",
        |config, text| {
            config.onnxruntime_path = text.into();
            Ok(())
        },
        |config| config.onnxruntime_path.display().to_string(),
    ),
    option(
        "search-kernel",
        "auto",
        "instructions that score vectors: auto (the fastest), or the name of one that this machine can run",
        into!(search_kernel, |text| kernel_name(text)),
        |config| config.search_kernel.clone(),
    ),
    option(
        "search-sketches",
        "yes",
        "make sketches of rows that are scanned, so that most codes need not be read; they take a third of the codes' memory",
        into!(search_sketches, |text| yes_no(text)),
        |config| print_yes_no(config.search_sketches),
    )
    .settable(),
    option(
        "metrics-port",
        "0",
        "port that answers /metrics (Prometheus), /health and /ready over HTTP; 0 = none",
        into!(metrics_port, |text| number(text, 0, u16::MAX)),
        |config| config.metrics_port.to_string(),
    ),
    option(
        "metrics-bind",
        "127.0.0.1",
        "address that metrics-port is opened on; whoever reaches it reads without a password",
        into!(metrics_bind, |text| text.parse().map_err(|_| "an IP address".to_owned())),
        |config| config.metrics_bind.to_string(),
    ),
    option(
        "supervised",
        "no",
        "who is told that the server is ready: no, systemd, auto (systemd if it started the server)",
        into!(supervised, |text| text.parse()),
        |config| config.supervised.to_string(),
    ),
    option(
        "slowlog-log-slower-than",
        "10000",
        "microseconds from which on a command is kept in the slow log; 0 = all, -1 = none",
        into!(slowlog_log_slower_than_us, |text| number(text, -1, i64::MAX)),
        |config| config.slowlog_log_slower_than_us.to_string(),
    )
    .settable(),
    option(
        "slowlog-max-len",
        "128",
        "commands that the slow log keeps",
        into!(slowlog_max_len, |text| number(text, 0, SLOWLOG_LEN_MAX)),
        |config| config.slowlog_max_len.to_string(),
    )
    .settable(),
    option(
        "latency-monitor-threshold",
        "0",
        "milliseconds from which on LATENCY keeps a slow moment; 0 = none is kept",
        into!(latency_monitor_threshold_ms, |text| number(text, 0, i64::MAX.unsigned_abs())),
        |config| config.latency_monitor_threshold_ms.to_string(),
    )
    .settable(),
    option(
        "enable-debug-command",
        "no",
        "whether DEBUG is allowed: yes or no",
        |config, text| {
            config.enable_debug_command = yes_no(text)?;
            Ok(())
        },
        |config| print_yes_no(config.enable_debug_command),
    ),
    option(
        "key-load-delay",
        "0",
        "for tests: microseconds to wait before each log record while the data are loaded",
        into!(key_load_delay_us, |text| number(text, 0, LOAD_DELAY_US_MAX)),
        |config| config.key_load_delay_us.to_string(),
    )
    .settable(),
    option(
        "loglevel",
        "notice",
        "least important lines that are logged: debug, verbose, notice, warning, nothing",
        into!(loglevel, |text| text.parse()),
        |config| config.loglevel.to_string(),
    )
    .settable(),
    option(
        "logfile",
        "",
        "file that log lines are added to; \"\" = standard output",
        |config, text| {
            config.logfile = text.into();
            Ok(())
        },
        |config| config.logfile.display().to_string(),
    ),
    option(
        "log-format",
        "redis",
        "form of log lines: redis, or json (one object a line)",
        into!(log_format, |text| text.parse()),
        |config| config.log_format.to_string(),
    ),
];
