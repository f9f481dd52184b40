//! The configuration: one validated value, made from the defaults, a file and the command line.
//!
//! Everything about an option stands in one row of [`OPTIONS`]. Names and values are Redis's where Redis has
//! the option. Reading goes `vecdis [CONF] [--name value ...]`: later words win over earlier ones, options
//! over the file.

mod file;
mod options;
mod rewrite;
mod values;

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::path::PathBuf;

use thiserror::Error;

use crate::glob;

pub use options::{ConfigOption, OPTIONS};
pub use values::{
    BindAddress, Fsync, LogFormat, LogLevel, OutputLimit, Secret, Supervised, TlsAuthClients, is_model_name,
};

/// Longest part of a bad value that an error message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 100;

/// The settings of a server. Fields have the names of their options (with the unit added); what they mean,
/// and which values are accepted, is said in [`OPTIONS`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is documented by its row of OPTIONS")]
pub struct Config {
    /// The file it came from, if it did.
    pub file: Option<PathBuf>,
    pub bind: Vec<BindAddress>,
    pub port: u16,
    pub tcp_backlog: u32,
    pub unixsocket: PathBuf,
    pub unixsocketperm: u32,
    pub tls_port: u16,
    pub tls_cert_file: PathBuf,
    pub tls_key_file: PathBuf,
    pub tls_ca_cert_file: PathBuf,
    pub tls_auth_clients: TlsAuthClients,
    pub timeout_s: u64,
    pub tcp_keepalive_s: u64,
    pub maxclients: usize,
    pub client_output_buffer_limit: OutputLimit,
    pub maxmemory_clients_bytes: u64,
    pub requirepass: Secret,
    pub aclfile: PathBuf,
    pub users: Vec<Secret>,
    pub protected_mode: bool,
    pub proto_max_bulk_len_bytes: u64,
    pub databases: u32,
    pub dir: PathBuf,
    pub read_only: bool,
    pub appendonly: bool,
    pub appendfsync: Fsync,
    pub auto_aof_rewrite_percentage: u32,
    pub auto_aof_rewrite_min_size_bytes: u64,
    pub compaction_percentage: usize,
    pub maxmemory_bytes: u64,
    pub io_threads: usize,
    pub search_threads: usize,
    pub embedding_model: String,
    pub embedding_threads: usize,
    pub embedding_cache_size_bytes: u64,
    pub onnxruntime_path: PathBuf,
    pub search_kernel: String,
    pub search_sketches: bool,
    pub metrics_port: u16,
    pub metrics_bind: IpAddr,
    pub supervised: Supervised,
    pub slowlog_log_slower_than_us: i64,
    pub slowlog_max_len: usize,
    pub latency_monitor_threshold_ms: u64,
    pub enable_debug_command: bool,
    pub key_load_delay_us: u64,
    pub loglevel: LogLevel,
    pub logfile: PathBuf,
    pub log_format: LogFormat,
}

/// Why a configuration was refused. Each displays as one line.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// There is no option of this name.
    #[error("unknown option {:?}", shown(.0))]
    Unknown(String),
    /// The value is not one the option takes.
    #[error("{name} cannot be {:?}: it takes {accepted}", shown(.value))]
    BadValue {
        /// The option.
        name: &'static str,
        /// The refused text.
        value: String,
        /// What would have been accepted.
        accepted: String,
    },
    /// None or several values for an option that takes one. The values are not repeated: one may be a
    /// password.
    #[error(
        "{name} takes one value, not {given} (a value with blanks needs quotes, a comment a line of its own)"
    )]
    ValueCount {
        /// The option.
        name: &'static str,
        /// The number of values given.
        given: usize,
    },
    /// The option is fixed once the server runs.
    #[error("{0} cannot be changed while the server runs")]
    Fixed(&'static str),
    /// A word on the command line that is neither the file nor an option.
    #[error("unexpected argument {:?}: a file comes first, then options as --name value", shown(.0))]
    Argument(String),
    /// A line that cannot be split into words.
    #[error("{0}")]
    Line(&'static str),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Unreadable {
        /// The file as it was named.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// What is wrong with a line of a file.
    #[error("{path}:{line}: {error}")]
    At {
        /// The file as it was named.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        error: Box<ConfigError>,
    },
}

/// The first part of a text, for messages.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

impl Default for Config {
    /// The defaults of [`OPTIONS`].
    fn default() -> Self {
        // These values are overwritten at once; a test holds that every field has an option.
        let mut config = Self {
            file: None,
            bind: Vec::new(),
            port: 0,
            tcp_backlog: 0,
            unixsocket: PathBuf::new(),
            unixsocketperm: 0,
            tls_port: 0,
            tls_cert_file: PathBuf::new(),
            tls_key_file: PathBuf::new(),
            tls_ca_cert_file: PathBuf::new(),
            tls_auth_clients: TlsAuthClients::No,
            timeout_s: 0,
            tcp_keepalive_s: 0,
            maxclients: 0,
            client_output_buffer_limit: OutputLimit::default(),
            maxmemory_clients_bytes: 0,
            requirepass: Secret::default(),
            aclfile: PathBuf::new(),
            users: Vec::new(),
            protected_mode: false,
            proto_max_bulk_len_bytes: 0,
            databases: 0,
            dir: PathBuf::new(),
            read_only: false,
            appendonly: false,
            appendfsync: Fsync::No,
            auto_aof_rewrite_percentage: 0,
            auto_aof_rewrite_min_size_bytes: 0,
            compaction_percentage: 0,
            maxmemory_bytes: 0,
            io_threads: 0,
            search_threads: 0,
            embedding_model: String::new(),
            embedding_threads: 0,
            embedding_cache_size_bytes: 0,
            onnxruntime_path: PathBuf::new(),
            search_kernel: String::new(),
            search_sketches: false,
            metrics_port: 0,
            metrics_bind: IpAddr::from([0; 4]),
            supervised: Supervised::No,
            slowlog_log_slower_than_us: 0,
            slowlog_max_len: 0,
            latency_monitor_threshold_ms: 0,
            enable_debug_command: false,
            key_load_delay_us: 0,
            loglevel: LogLevel::Nothing,
            logfile: PathBuf::new(),
            log_format: LogFormat::Redis,
        };
        for option in OPTIONS {
            (option.read)(&mut config, option.default).expect("each default of the table is accepted");
        }
        config
    }
}

impl Config {
    /// Makes the configuration from the words of the command line, without the program's own name.
    ///
    /// # Errors
    /// The first thing that is wrong, as one line for the user.
    pub fn load(args: impl Iterator<Item = String>) -> Result<Self, ConfigError> {
        Self::load_with(args, std::io::stdin())
    }

    /// [`Config::load`] with the standard input given.
    fn load_with(args: impl Iterator<Item = String>, stdin: impl Read) -> Result<Self, ConfigError> {
        let mut args: Vec<String> = args.collect();
        let mut config = Self::default();
        // `-` stands first, or last behind a file and options.
        let reads_stdin =
            args.pop_if(|last| last == "-").is_some() || args.first().is_some_and(|first| first == "-");
        let mut args = args.into_iter().skip_while(|first| first == "-").peekable();
        if let Some(path) = args.next_if(|first| !first.starts_with('-')) {
            let source = File::open(&path);
            config.file = std::path::absolute(&path).ok();
            config.read_file(&path, source.map_err(|source| unreadable(&path, source))?)?;
        }
        if reads_stdin {
            config.read_file("standard input", stdin)?;
        }
        while let Some(argument) = args.next() {
            let word = match argument.strip_prefix("--") {
                Some(word) if !word.is_empty() => word,
                _ => return Err(ConfigError::Argument(argument)),
            };
            if let Some((name, value)) = word.split_once('=') {
                config.set(name, value)?;
                continue;
            }
            let mut values = Vec::new();
            while let Some(value) = args.next_if(|next| !next.starts_with("--")) {
                values.push(value);
            }
            config.set_words(word, &values)?;
        }
        Ok(config)
    }

    /// Applies the lines of a file; `path` is its name in messages.
    ///
    /// # Errors
    /// The first line that is wrong (those before it have been applied), or a file that cannot be read.
    pub fn read_file(&mut self, path: &str, source: impl Read) -> Result<(), ConfigError> {
        let text = file::read_text(source).map_err(|source| unreadable(path, source))?;
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let words = file::split_line(line).map_err(ConfigError::Line);
            let applied = words.and_then(|words| match words.split_first() {
                Some((name, values)) => self.set_words(name, values),
                None => Ok(()),
            });
            applied.map_err(|error| ConfigError::At {
                path: path.to_owned(),
                line: index + 1,
                error: Box::new(error),
            })?;
        }
        Ok(())
    }

    /// Sets an option to the words that follow it.
    fn set_words(&mut self, name: &str, values: &[String]) -> Result<(), ConfigError> {
        let option = ConfigOption::find(name)?;
        match values {
            [value] => self.set(name, value),
            [_, ..] if option.several => self.set(name, &values.join(" ")),
            _ => Err(ConfigError::ValueCount { name: option.name, given: values.len() }),
        }
    }

    /// Sets an option, whether it may change at run time or not. The name may be in any case.
    ///
    /// # Errors
    /// No such option, or a value it does not take; nothing is changed then.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let option = ConfigOption::find(name)?;
        (option.read)(self, value).map_err(|accepted| ConfigError::BadValue {
            name: option.name,
            value: value.to_owned(),
            accepted,
        })
    }

    /// [`Config::set`] for a running server.
    ///
    /// # Errors
    /// As `set`, and for options that are fixed once the server runs.
    pub fn set_at_run_time(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let option = ConfigOption::find(name)?;
        if !option.settable {
            return Err(ConfigError::Fixed(option.name));
        }
        self.set(name, value)
    }

    /// The value of an option as text (sizes in bytes); `None` when there is no such option. A password that
    /// is set reads `(hidden)`.
    pub fn get(&self, name: &str) -> Option<String> {
        ConfigOption::find(name).ok().map(|option| (option.print)(self))
    }

    /// The names of all options, in the order of the table.
    pub fn names() -> impl Iterator<Item = &'static str> {
        OPTIONS.iter().map(|option| option.name)
    }

    /// The options whose names match a glob pattern (see [`glob::matches`]; any case), with their values as
    /// in [`Config::get`].
    pub fn matching(&self, pattern: &[u8]) -> Vec<(&'static str, String)> {
        let pattern = pattern.to_ascii_lowercase();
        let chosen = OPTIONS.iter().filter(|option| glob::matches(&pattern, option.name.as_bytes()));
        chosen.map(|option| (option.name, (option.print)(self))).collect()
    }
}

impl ConfigOption {
    /// The option of this name, in any case.
    ///
    /// # Errors
    /// There is none.
    pub fn find(name: &str) -> Result<&'static Self, ConfigError> {
        let found = OPTIONS.iter().find(|option| option.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| ConfigError::Unknown(name.to_owned()))
    }
}

fn unreadable(path: &str, source: std::io::Error) -> ConfigError {
    ConfigError::Unreadable { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
