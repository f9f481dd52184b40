//! The one table of commands: how each is carried out, and everything COMMAND tells about it.

use std::borrow::Cow;
use std::sync::LazyLock;

use hashbrown::HashMap;

use super::parse::is_word;
use super::reply::Reply;
use super::request::Request;
use super::transaction::Verb;
use super::{CommandError, Handler};
use super::{
    acl, admin, api_key, client, connection, debug, docs, edits, elements, expire, index, info, keys, memory,
    monitor, text, vadd, vcreate, vdoc, vectors, vexpire, vmodel, vsearch, vsim,
};

/// Which family a command belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// The connection itself.
    Connection,
    /// Keys of any kind.
    Generic,
    /// The server.
    Server,
    /// MULTI and its kin.
    Transactions,
    /// Vector sets.
    VectorSet,
}

impl Group {
    /// The name COMMAND DOCS gives.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::Server => "server",
            Self::Transactions => "transactions",
            Self::VectorSet => "vector_set",
        }
    }
}

/// Where a command's keys are: first argument, last (negative: from the end), and the distance between keys.
pub type KeyRange = (i64, i64, i64);

const NO_KEYS: KeyRange = (0, 0, 0);
const ONE_KEY: KeyRange = (1, 1, 1);
const ALL_KEYS: KeyRange = (1, -1, 1);

/// A row of the table.
pub struct CommandSpec {
    /// Lower case; vector commands are shown in upper case, as Redis shows its module commands.
    pub name: &'static str,
    /// Arguments with the name; negative: at least that many.
    pub arity: i64,
    /// Redis's flags.
    pub flags: &'static [&'static str],
    /// Where keys are.
    pub keys: KeyRange,
    /// ACL categories besides those that follow from the flags.
    pub categories: &'static [&'static str],
    /// Family.
    pub group: Group,
    /// The version of Redis that brought it.
    pub since: &'static str,
    /// What its time depends on.
    pub complexity: &'static str,
    /// Its arguments.
    pub syntax: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// How it is carried out.
    pub handler: Handler,
}

impl CommandSpec {
    /// How a request of it is carried out.
    pub fn handler_of(&self, request: &Request) -> Handler {
        let Handler::BySubcommand(handlers) = self.handler else { return self.handler };
        let given = request.get(1).unwrap_or_default();
        let found = handlers.iter().find(|(name, _)| is_word(given, name));
        found.map_or(self.handler, |(_, handler)| *handler)
    }

    /// Whether a request of it may change the data.
    pub fn writes(&self, request: &Request) -> bool {
        matches!(self.handler_of(request), Handler::Write(_) | Handler::Document(_))
    }

    /// Whether that many arguments, the name counted, are as many as it takes.
    pub fn takes(&self, arguments: usize) -> bool {
        fits(self.arity, arguments)
    }

    /// Its place in the table.
    pub fn number(&self) -> usize {
        (std::ptr::from_ref(self).addr() - COMMANDS.as_ptr().addr()) / size_of::<Self>()
    }

    /// Its name as COMMAND and error messages show it.
    pub fn error_name(&self) -> Cow<'static, str> {
        match self.group {
            Group::VectorSet => self.name.to_uppercase().into(),
            _ => self.name.into(),
        }
    }

    /// Whether it may be sent before authentication.
    pub fn without_auth(&self) -> bool {
        self.flags.contains(&"no_auth")
    }

    /// Its entry in COMMAND INFO.
    pub fn info(&self) -> Reply {
        let (first, last, step) = self.keys;
        let words = |words: &mut dyn Iterator<Item = String>| Reply::Set(words.map(Reply::simple).collect());
        Reply::Array(vec![
            Reply::Bulk(self.error_name().into_owned().into()),
            Reply::Integer(self.arity),
            words(&mut self.flags.iter().map(|flag| (*flag).to_owned())),
            Reply::Integer(first),
            Reply::Integer(last),
            Reply::Integer(step),
            words(&mut self.acl_categories().map(|category| format!("@{category}"))),
            Reply::Array(Vec::new()),
            Reply::Array(self.key_specs()),
            Reply::Array(Vec::new()),
        ])
    }

    /// Where keys are, in the newer form.
    fn key_specs(&self) -> Vec<Reply> {
        let (first, last, step) = self.keys;
        if first == 0 {
            return Vec::new();
        }
        let access = if self.flags.contains(&"write") { ["RW", "update"] } else { ["RO", "access"] };
        let index = Reply::fields([("index", Reply::Integer(first))]);
        let last = if last < 0 { last } else { last - first };
        let range = Reply::fields([
            ("lastkey", Reply::Integer(last)),
            ("keystep", Reply::Integer(step)),
            ("limit", Reply::Integer(0)),
        ]);
        vec![Reply::fields([
            ("flags", Reply::Set(access.into_iter().map(Reply::simple).collect())),
            ("begin_search", Reply::fields([("type", Reply::text("index")), ("spec", index)])),
            ("find_keys", Reply::fields([("type", Reply::text("range")), ("spec", range)])),
        ])]
    }

    /// ACL categories.
    pub fn acl_categories(&self) -> impl Iterator<Item = &'static str> {
        let flagged = [("readonly", "read"), ("write", "write"), ("admin", "admin"), ("fast", "fast")];
        let from_flags =
            flagged.into_iter().filter(|(flag, _)| self.flags.contains(flag)).map(|(_, name)| name);
        let slow = (!self.flags.contains(&"fast")).then_some("slow");
        from_flags.chain(self.categories.iter().copied()).chain(slow)
    }

    /// Its entry in COMMAND DOCS.
    pub fn docs(&self) -> Reply {
        let field = |name, value: &'static str| (Reply::text(name), Reply::text(value));
        let mut fields = vec![
            field("summary", self.summary),
            field("since", self.since),
            field("group", self.group.name()),
            field("complexity", self.complexity),
        ];
        let arguments = docs::arguments(self.syntax);
        if !arguments.is_empty() {
            fields.push((Reply::text("arguments"), Reply::Array(arguments)));
        }
        Reply::Map(fields)
    }
}

/// Commands with subcommands: the command, the subcommand, and its arity with both names.
const SUBCOMMANDS: &[(&str, &str, i64)] = &[
    ("acl", "cat", -2),
    ("acl", "deluser", -3),
    ("acl", "dryrun", -4),
    ("acl", "genpass", -2),
    ("acl", "getuser", 3),
    ("acl", "help", 2),
    ("acl", "list", 2),
    ("acl", "load", 2),
    ("acl", "log", -2),
    ("acl", "save", 2),
    ("acl", "setuser", -3),
    ("acl", "users", 2),
    ("acl", "whoami", 2),
    ("apikey", "create", -3),
    ("apikey", "limit", -5),
    ("apikey", "list", -2),
    ("apikey", "revoke", 3),
    ("apikey", "usage", -2),
    ("client", "getname", 2),
    ("client", "id", 2),
    ("client", "info", 2),
    ("client", "kill", -3),
    ("client", "list", -2),
    ("client", "no-evict", 3),
    ("client", "no-touch", 3),
    ("client", "reply", 3),
    ("client", "setinfo", 4),
    ("client", "setname", 3),
    ("client", "tracking", -3),
    ("command", "count", 2),
    ("command", "docs", -2),
    ("command", "getkeys", -3),
    ("command", "info", -2),
    ("command", "list", -2),
    ("config", "get", -3),
    ("config", "resetstat", 2),
    ("config", "rewrite", 2),
    ("config", "set", -4),
    ("debug", "digest-value", -3),
    ("debug", "reload", -2),
    ("debug", "sleep", 3),
    ("latency", "doctor", 2),
    ("latency", "histogram", -2),
    ("latency", "history", 3),
    ("latency", "latest", 2),
    ("latency", "reset", -2),
    ("memory", "doctor", 2),
    ("memory", "malloc-stats", 2),
    ("memory", "purge", 2),
    ("memory", "stats", 2),
    ("memory", "usage", -3),
    ("module", "list", 2),
    ("namespace", "drop", 3),
    ("namespace", "list", 2),
    ("namespace", "use", 3),
    ("object", "encoding", 3),
    ("object", "freq", 3),
    ("object", "idletime", 3),
    ("object", "refcount", 3),
    ("slowlog", "get", -2),
    ("slowlog", "len", 2),
    ("slowlog", "reset", 2),
    ("vdoc", "add", -5),
    ("vdoc", "del", 4),
    ("vdoc", "dump", 4),
    ("vdoc", "get", -4),
    ("vdoc", "list", -4),
    ("vdoc", "restore", 5),
    ("vdoc", "sections", -8),
];

/// The names of a command's subcommands.
pub fn subcommands(command: &str) -> impl Iterator<Item = &'static str> {
    SUBCOMMANDS.iter().filter(move |(name, _, _)| *name == command).map(|(_, name, _)| *name)
}

/// Whether a request asks a command that has subcommands for help.
pub fn asks_help(spec: &CommandSpec, request: &Request) -> bool {
    request.len() == 2 && is_word(request.arg(1), "HELP") && has_subcommands(spec)
}

/// Whether a command's first argument is the name of a subcommand.
pub fn has_subcommands(spec: &CommandSpec) -> bool {
    subcommands(spec.name).next().is_some()
}

fn fits(arity: i64, arguments: usize) -> bool {
    match usize::try_from(arity) {
        Ok(exact) => arguments == exact,
        Err(_) => arguments as u64 >= arity.unsigned_abs(),
    }
}

/// Checks a request's subcommand and number of arguments, for a command that has subcommands.
///
/// # Errors
/// When there is no such subcommand, or it takes another number of arguments.
pub fn check_subcommand(spec: &CommandSpec, request: &Request) -> Result<(), CommandError> {
    let Some(given) = request.get(1) else { return Ok(()) };
    let mut known = SUBCOMMANDS.iter().filter(|(command, _, _)| *command == spec.name).peekable();
    if known.peek().is_none() || asks_help(spec, request) {
        return Ok(());
    }
    match known.find(|(_, name, _)| is_word(given, name)) {
        Some((_, _, arity)) if fits(*arity, request.len()) => Ok(()),
        Some((command, name, _)) => Err(CommandError::Arity(format!("{command}|{name}").into())),
        None => {
            let given = String::from_utf8_lossy(given);
            let command = spec.name.to_uppercase();
            Err(CommandError::Text(format!("ERR unknown subcommand '{given}'. Try {command} HELP.").into()))
        }
    }
}

/// The commands by their names.
static BY_NAME: LazyLock<HashMap<&[u8], &CommandSpec>> =
    LazyLock::new(|| COMMANDS.iter().map(|spec| (spec.name.as_bytes(), spec)).collect());

/// Finds a command by name, in any case.
pub fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    const LONGEST: usize = 32;
    let mut lower = [0u8; LONGEST];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    BY_NAME.get(&*lower).copied()
}

const READ: &[&str] = &["readonly", "fast"];
const READ_SLOW: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write", "fast"];
const WRITE_SLOW: &[&str] = &["write"];
const ADMIN: &[&str] = &["admin", "noscript"];
const CONNECTION: &[&str] = &["noscript", "loading", "stale", "fast"];
const BEFORE_AUTH: &[&str] = &["noscript", "loading", "stale", "fast", "no_auth"];

macro_rules! command {
    ($name:literal, $arity:literal, $flags:expr, $keys:expr, $categories:expr, $group:ident, $since:literal,
     $complexity:literal, $syntax:literal, $summary:literal, $handler:expr) => {
        CommandSpec {
            name: $name,
            arity: $arity,
            flags: $flags,
            keys: $keys,
            categories: $categories,
            group: Group::$group,
            since: $since,
            complexity: $complexity,
            syntax: $syntax,
            summary: $summary,
            handler: $handler,
        }
    };
}

/// All commands, in the order of their names.
#[rustfmt::skip]
pub static COMMANDS: &[CommandSpec] = &[
    command!("acl", -2, &["noscript", "loading", "stale"], NO_KEYS, &[], Server, "6.0.0", "O(N) users or rules",
        "(CAT [category] | DELUSER username [username ...] | DRYRUN username command [arg ...] | GENPASS [bits] | GETUSER username | LIST | LOAD | LOG [count | RESET] | SAVE | SETUSER username [rule ...] | USERS | WHOAMI)",
        "Tells about users and what they may do, and changes it.", Handler::Account(acl::acl)),
    command!("apikey", -2, ADMIN, NO_KEYS, &["dangerous"], Server, "8.0.0", "O(N) users",
        "(CREATE username [NAMESPACE name] [LABEL label] [EXPIRE seconds] | LIMIT username [RPS number] [VECTORS number] [BYTES number] | LIST [username] | REVOKE id | USAGE [username])",
        "Makes API keys, limits and counts what their users use.", Handler::Account(api_key::api_key)),
    command!("auth", -2, BEFORE_AUTH, NO_KEYS, &["connection"], Connection, "1.0.0", "O(1)",
        "[username] password", "Authenticates the connection.", Handler::Session(connection::auth)),
    command!("bgrewriteaof", 1, ADMIN, NO_KEYS, &["dangerous"], Server, "1.0.0", "O(1) to begin",
        "", "Begins a checkpoint, after which the log is short again.", Handler::Wait(admin::bgrewriteaof)),
    command!("bgsave", -1, ADMIN, NO_KEYS, &["dangerous"], Server, "1.0.0", "O(1) to begin",
        "[SCHEDULE]", "Begins a checkpoint.", Handler::Wait(admin::bgsave)),
    command!("client", -2, CONNECTION, NO_KEYS, &["connection"], Connection, "2.4.0", "O(N) connections for LIST and KILL",
        "(ID | INFO | LIST [TYPE kind] [ID client-id ...] | KILL filter [value ...] | GETNAME | SETNAME name | SETINFO (LIB-NAME name | LIB-VER version) | REPLY (ON | OFF | SKIP) | NO-EVICT (ON | OFF) | NO-TOUCH (ON | OFF))",
        "Names the connection, tells about connections and ends them.", Handler::Session(client::client)),
    command!("command", -1, &["loading", "stale"], NO_KEYS, &["connection"], Server, "2.8.13", "O(N) commands",
        "[COUNT | DOCS [command ...] | INFO [command ...] | LIST [FILTERBY (ACLCAT category | PATTERN pattern | MODULE module)] | GETKEYS command [arg ...]]",
        "Tells about commands.", Handler::Session(admin::command)),
    command!("config", -2, &["admin", "noscript", "loading", "stale"], NO_KEYS, &["dangerous"], Server, "2.0.0", "O(N) options",
        "(GET pattern [pattern ...] | SET option value [option value ...] | REWRITE | RESETSTAT)", "Shows and changes the configuration, writes it to its file, resets counters.", Handler::Session(admin::config)),
    command!("copy", -3, WRITE_SLOW, (1, 2, 1), &["keyspace"], Generic, "6.2.0", "O(1)",
        "key newkey [DB n] [REPLACE]", "Is refused, as in Redis for vector sets.", Handler::Write(keys::copy)),
    command!("dbsize", 1, READ, NO_KEYS, &["keyspace"], Server, "1.0.0", "O(1)",
        "", "Counts the keys.", Handler::Read(keys::dbsize)),
    command!("debug", -2, ADMIN, NO_KEYS, &["dangerous"], Server, "1.0.0", "that of what is asked",
        "(SLEEP seconds | RELOAD | DIGEST-VALUE key [key ...])", "For tests: sleeps, reloads the data, shows digests.", Handler::Wait(debug::debug)),
    command!("del", -2, WRITE_SLOW, ALL_KEYS, &["keyspace"], Generic, "1.0.0", "O(N) keys",
        "key [key ...]", "Removes keys.", Handler::Write(keys::del)),
    command!("discard", 1, CONNECTION, NO_KEYS, &["transaction"], Transactions, "2.0.0", "O(N) queued commands",
        "", "Forgets the queued commands.", Handler::Transaction(Verb::Discard)),
    command!("echo", 2, &["fast", "loading", "stale"], NO_KEYS, &["connection"], Connection, "1.0.0", "O(1)",
        "message", "Gives its argument back.", Handler::Session(connection::echo)),
    command!("exec", 1, &["noscript", "loading", "stale"], NO_KEYS, &["transaction"], Transactions, "1.2.0", "that of its commands",
        "", "Runs the queued commands as one.", Handler::Transaction(Verb::Exec)),
    command!("exists", -2, READ, ALL_KEYS, &["keyspace"], Generic, "1.0.0", "O(N) keys",
        "key [key ...]", "Counts those of the keys that exist.", Handler::Read(keys::exists)),
    command!("expire", -3, WRITE, ONE_KEY, &["keyspace"], Generic, "1.0.0", "O(1)",
        "key seconds [NX | XX | GT | LT]", "Sets after how many seconds a key goes.", Handler::Write(expire::expire)),
    command!("expireat", -3, WRITE, ONE_KEY, &["keyspace"], Generic, "1.2.0", "O(1)",
        "key unix-seconds [NX | XX | GT | LT]", "Sets the moment at which a key goes.", Handler::Write(expire::expireat)),
    command!("expiretime", 2, READ, ONE_KEY, &["keyspace"], Generic, "7.0.0", "O(1)",
        "key", "Tells the moment at which a key goes.", Handler::Read(expire::expiretime)),
    command!("flushall", -1, WRITE_SLOW, NO_KEYS, &["keyspace", "dangerous"], Server, "1.0.0", "O(1)",
        "[ASYNC | SYNC]", "Removes all keys.", Handler::Write(keys::flush)),
    command!("flushdb", -1, WRITE_SLOW, NO_KEYS, &["keyspace", "dangerous"], Server, "1.0.0", "O(1)",
        "[ASYNC | SYNC]", "Removes all keys.", Handler::Write(keys::flush)),
    command!("hello", -1, BEFORE_AUTH, NO_KEYS, &["connection"], Connection, "6.0.0", "O(1)",
        "[protover [AUTH username password] [SETNAME clientname]]",
        "Greets the server and chooses the protocol.", Handler::Session(connection::hello)),
    command!("info", -1, &["loading", "stale"], NO_KEYS, &["dangerous"], Server, "1.0.0", "O(N) keys for the keyspace section",
        "[section ...]", "Tells about the server.", Handler::Read(info::info)),
    command!("keys", 2, READ_SLOW, NO_KEYS, &["keyspace", "dangerous"], Generic, "1.0.0", "O(N) keys",
        "pattern", "Lists the keys that match a pattern.", Handler::Read(keys::keys)),
    command!("lastsave", 1, &["loading", "stale", "fast"], NO_KEYS, &["admin", "dangerous"], Server, "1.0.0", "O(1)",
        "", "Tells when the last checkpoint succeeded.", Handler::Session(admin::lastsave)),
    command!("latency", -2, &["admin", "noscript", "loading", "stale"], NO_KEYS, &["dangerous"], Server, "2.8.13", "O(1)",
        "(LATEST | HISTORY event | HISTOGRAM [command ...] | RESET [event ...] | DOCTOR)", "Tells about slow moments and the times of commands.", Handler::Session(monitor::latency)),
    command!("memory", -2, READ_SLOW, (2, 2, 1), &[], Server, "4.0.0", "O(N) chunks",
        "(USAGE key [SAMPLES n] | STATS | DOCTOR | PURGE | MALLOC-STATS)", "Tells how much memory a key or the server takes.", Handler::Read(memory::memory)),
    command!("module", -2, &["admin", "noscript"], NO_KEYS, &["dangerous"], Server, "4.0.0", "O(1)",
        "LIST", "Lists the modules of Redis whose commands there are.", Handler::Session(connection::module)),
    command!("monitor", 1, &["admin", "noscript", "loading", "stale"], NO_KEYS, &["dangerous"], Server, "1.0.0", "O(1)",
        "", "Shows every command as it comes, without passwords.", Handler::Session(monitor::monitor)),
    command!("multi", 1, CONNECTION, NO_KEYS, &["transaction"], Transactions, "1.2.0", "O(1)",
        "", "Queues the commands that follow.", Handler::Transaction(Verb::Multi)),
    command!("namespace", -2, ADMIN, NO_KEYS, &["dangerous"], Server, "8.0.0", "O(N) namespaces, or keys of the dropped one",
        "(DROP name | LIST | USE name)", "Lists the namespaces, goes into one, removes one.", Handler::Account(api_key::namespace)),
    command!("object", -2, READ_SLOW, (2, 2, 1), &["keyspace"], Generic, "2.2.3", "O(1)",
        "(ENCODING key | REFCOUNT key | IDLETIME key | FREQ key)", "Tells how a key is kept.", Handler::Read(debug::object)),
    command!("persist", 2, WRITE, ONE_KEY, &["keyspace"], Generic, "2.2.0", "O(1)",
        "key", "Lets a key stay.", Handler::Write(expire::persist)),
    command!("pexpire", -3, WRITE, ONE_KEY, &["keyspace"], Generic, "2.6.0", "O(1)",
        "key milliseconds [NX | XX | GT | LT]", "Sets after how many milliseconds a key goes.", Handler::Write(expire::pexpire)),
    command!("pexpireat", -3, WRITE, ONE_KEY, &["keyspace"], Generic, "2.6.0", "O(1)",
        "key unix-milliseconds [NX | XX | GT | LT]", "Sets the moment at which a key goes, in milliseconds.", Handler::Write(expire::pexpireat)),
    command!("pexpiretime", 2, READ, ONE_KEY, &["keyspace"], Generic, "7.0.0", "O(1)",
        "key", "Tells the moment at which a key goes, in milliseconds.", Handler::Read(expire::pexpiretime)),
    command!("ping", -1, &["fast"], NO_KEYS, &["connection"], Connection, "1.0.0", "O(1)",
        "[message]", "Answers.", Handler::Session(connection::ping)),
    command!("pttl", 2, READ, ONE_KEY, &["keyspace"], Generic, "2.6.0", "O(1)",
        "key", "Tells in how many milliseconds a key goes.", Handler::Read(expire::pttl)),
    command!("quit", -1, BEFORE_AUTH, NO_KEYS, &["connection"], Connection, "1.0.0", "O(1)",
        "", "Closes the connection.", Handler::Session(connection::quit)),
    command!("randomkey", 1, READ_SLOW, NO_KEYS, &["keyspace"], Generic, "1.0.0", "O(1)",
        "", "Gives a random key.", Handler::Read(keys::randomkey)),
    command!("rename", 3, WRITE_SLOW, (1, 2, 1), &["keyspace"], Generic, "1.0.0", "O(1)",
        "key newkey", "Gives a key another name.", Handler::Write(keys::rename)),
    command!("reset", 1, BEFORE_AUTH, NO_KEYS, &["connection"], Connection, "6.2.0", "O(1)",
        "", "Makes the connection as if it were new.", Handler::Session(connection::reset)),
    command!("save", 1, ADMIN, NO_KEYS, &["dangerous"], Server, "1.0.0", "O(N) changed data",
        "", "Takes a checkpoint and waits for it.", Handler::Wait(admin::save)),
    command!("scan", -2, READ_SLOW, NO_KEYS, &["keyspace"], Generic, "2.8.0", "O(COUNT) a call",
        "cursor [MATCH pattern] [COUNT n] [TYPE type]", "Goes over the keys, a page a call.", Handler::Read(keys::scan)),
    command!("select", 2, &["loading", "stale", "fast"], NO_KEYS, &["connection"], Connection, "1.0.0", "O(1)",
        "index", "Selects a database; there is database 0.", Handler::Session(connection::select)),
    command!("shutdown", -1, &["admin", "noscript", "loading", "stale"], NO_KEYS, &["dangerous"], Server, "1.0.0", "O(N) changed data",
        "[NOSAVE | SAVE] [NOW] [FORCE]", "Syncs the log, takes a checkpoint and ends the server.", Handler::Wait(admin::shutdown)),
    command!("slowlog", -2, &["admin", "loading", "stale"], NO_KEYS, &["dangerous"], Server, "2.2.12", "O(N) entries",
        "(GET [count] | LEN | RESET)", "Tells about slow commands.", Handler::Session(monitor::slowlog)),
    command!("time", 1, &["loading", "stale", "fast"], NO_KEYS, &[], Server, "2.6.0", "O(1)",
        "", "Tells the server's time.", Handler::Session(debug::time)),
    command!("ttl", 2, READ, ONE_KEY, &["keyspace"], Generic, "1.0.0", "O(1)",
        "key", "Tells in how many seconds a key goes.", Handler::Read(expire::ttl)),
    command!("type", 2, READ, ONE_KEY, &["keyspace"], Generic, "1.0.0", "O(1)",
        "key", "Tells what a key holds.", Handler::Read(keys::type_of)),
    command!("unlink", -2, WRITE, ALL_KEYS, &["keyspace"], Generic, "4.0.0", "O(N) keys",
        "key [key ...]", "Removes keys.", Handler::Write(keys::del)),
    command!("unwatch", 1, CONNECTION, NO_KEYS, &["transaction"], Transactions, "2.2.0", "O(1)",
        "", "Forgets the watched keys.", Handler::Transaction(Verb::Unwatch)),
    command!("vadd", -5, &["write", "denyoom", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(dimension)",
        "key [REDUCE dim] (FP32 blob | VALUES n f1 ... fn | TEXT text) element [CAS] [NOQUANT | Q8 | BIN] [EF n] [SETATTR json] [SETTEXT text] [SETSPARSE n term weight ...] [EX seconds] [M n] [NX | XX] [FIELD name]",
        "Adds an element to a vector set or replaces its vector.", Handler::Write(vadd::vadd)),
    command!("vcard", 2, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key", "Counts the elements.", Handler::Read(vectors::vcard)),
    command!("vcount", -2, &["readonly", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1), O(N) with a filter",
        "key [FILTER expr]", "Counts the elements that pass a filter.", Handler::Read(elements::vcount)),
    command!("vcreate", -4, &["write", "denyoom", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key (DIM d | MODEL name) [METRIC (COSINE | IP | L2)] [NOQUANT | Q8 | BIN] [RAW (YES | NO)] [INDEX (AUTO | FLAT | HNSW)] [M m] [EF ef] [ANALYZER name] [FIELD name DIM d [FIELD name DIM d ...]]",
        "Makes an empty collection.", Handler::Write(vcreate::vcreate)),
    command!("vdelby", -3, &["write", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(N)",
        "key (FILTER expr | ALL)", "Removes the elements that pass a filter.", Handler::Write(edits::vdelby)),
    command!("vdim", 2, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key", "Tells the dimension of the vectors.", Handler::Read(vectors::vdim)),
    command!("vdoc", -2, &["write", "denyoom", "module"], (2, 2, 1), &["vector"], VectorSet, "8.0.0", "O(N) chunks",
        "(ADD key uri text [TYPE (TXT | MD | HTML | CODE)] [ATTR json] [CHUNK tokens] [OVERLAP tokens] | DEL key uri | DUMP key uri | GET key uri [CHUNKS] | LIST key cursor [COUNT n] | RESTORE key uri dump | SECTIONS key uri TOKENS n QUERY text [COUNT m])",
        "Keeps documents as chunks that are elements, and gives the parts that are about a query.", Handler::BySubcommand(&[
            ("add", Handler::Document(vdoc::add)), ("del", Handler::Write(vdoc::del)), ("dump", Handler::Read(vdoc::dump)),
            ("get", Handler::Read(vdoc::get)), ("list", Handler::Read(vdoc::list)),
            ("restore", Handler::Write(vdoc::restore)), ("sections", Handler::Read(vdoc::sections)),
        ])),
    command!("vemb", -3, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(dimension)",
        "key element [RAW] [FIELD name]", "Gives the vector of an element, or its code.", Handler::Read(vectors::vemb)),
    command!("vembed", -2, &["readonly", "module"], NO_KEYS, &["vector", "embedding"], VectorSet, "8.0.0", "O(N) texts",
        "[MODEL name] [ROLE (QUERY | DOCUMENT)] [FP32] text [text ...]", "Gives the vectors of texts.", Handler::Read(text::vembed)),
    command!("vexpire", 4, &["write", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key element seconds", "Sets after how many seconds an element goes.", Handler::Write(vexpire::vexpire)),
    command!("vget", -3, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(dimension)",
        "key element [WITHVECTOR] [WITHATTRIBS] [WITHTEXT] [WITHSPARSE]", "Gives an element with its vectors, attributes and text.", Handler::Read(elements::vget)),
    command!("vgetattr", 3, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key element", "Gives the attributes of an element.", Handler::Read(vectors::vgetattr)),
    command!("vindex", 3, &["write", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key (BUILD | DROP | STATUS)", "Builds or drops the graph of a collection, or tells about it.", Handler::Write(index::vindex)),
    command!("vinfo", 2, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key", "Tells about a vector set.", Handler::Read(vectors::vinfo)),
    command!("vismember", 3, &["readonly", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key element", "Tells whether there is an element of that name.", Handler::Read(vectors::vismember)),
    command!("vlinks", -3, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key element [WITHSCORES]", "Gives an element's neighbours in the graph.", Handler::Read(index::vlinks)),
    command!("vlist", -1, &["readonly", "module"], NO_KEYS, &["vector"], VectorSet, "8.0.0", "O(N) keys",
        "[MATCH pattern] [COUNT n]", "Lists collections with size and dimension.", Handler::Read(vcreate::vlist)),
    command!("vmadd", -8, &["write", "denyoom", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(N x dimension)",
        "key count DIM d FP32 blob element [element ...] [ATTRS json ...]", "Adds many elements as one.", Handler::Write(vcreate::vmadd)),
    command!("vmodel", -2, &["admin", "noscript", "module"], NO_KEYS, &["vector", "embedding"], VectorSet, "8.0.0", "that of what is asked",
        "(LIST | INFO name | LOAD name | UNLOAD name | DEFAULT [name] | BENCH name [name ...])",
        "Tells about the models that embed texts, loads and measures them.", Handler::Wait(vmodel::vmodel)),
    command!("vmsearch", -5, &["readonly", "module", "movablekeys"], (2, -1, 1), &["vector"], VectorSet, "8.0.0", "O(N) rows and postings",
        "numkeys key [key ...] clause value [value ...]", "Searches several collections as one.", Handler::Read(vsearch::vmsearch)),
    command!("vpatchattr", 4, &["write", "denyoom", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key element json", "Changes the attributes of an element by a merge patch.", Handler::Write(edits::vpatchattr)),
    command!("vrandmember", -2, &["readonly", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(N) for a count, else O(chunks)",
        "key [count]", "Gives random elements.", Handler::Read(elements::vrandmember)),
    command!("vrange", -4, &["readonly", "module"], ONE_KEY, &["vector"], VectorSet, "8.4.0", "O(log N + M) results; more after changes",
        "key start end [count]", "Gives elements in the order of their names.", Handler::Read(elements::vrange)),
    command!("vrem", -3, &["write", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(N) elements",
        "key element [element ...]", "Removes elements.", Handler::Write(vectors::vrem)),
    command!("vscan", -3, &["readonly", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(COUNT) a call",
        "key cursor [COUNT n] [FILTER expr]", "Goes over the elements, a page a call.", Handler::Read(elements::vscan)),
    command!("vsearch", -4, &["readonly", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(N) rows and postings",
        "key (VECTOR (ELE element | FP32 blob | VALUES n v ... | TEXT text) [FIELD name] [WEIGHT w] | MATCH text [WEIGHT w] [K1 k1] [B b] | SPARSE n term weight ... [WEIGHT w]) ... [FUSE (RRF [CONSTANT c] | LINEAR [NORM (MINMAX | DBSF | NONE)])] [WINDOW n] [FILTER expr] [LIMIT offset count] [MINSCORE s] [MMR lambda [POOL n]] [BOOST field value weight] [BOOSTTEXT weight] [RERANK model [DEPTH n]] [GROUPBY DOC [TOP n] [AGG (MAX | MEAN)]] [EXACT] [EF n] [WITHATTRIBS] [WITHTEXT] [WITHVECTORS] [EXPLAIN]",
        "Finds elements by vectors, words, sparse vectors, or several of them.", Handler::Read(vsearch::vsearch)),
    command!("vsetattr", 4, &["write", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key element json", "Sets the attributes of an element.", Handler::Write(vectors::vsetattr)),
    command!("vsim", -4, &["readonly", "module"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(N) rows, shared by waiting searches",
        "key (ELE element | FP32 blob | VALUES n f1 ... fn | TEXT text) [WITHSCORES] [WITHATTRIBS] [COUNT n] [EPSILON d] [EF n] [FILTER expr] [FILTER-EF n] [TRUTH] [NOTHREAD]",
        "Finds the elements most similar to a vector.", Handler::Read(vsim::vsim)),
    command!("vttl", 3, &["readonly", "module", "fast"], ONE_KEY, &["vector"], VectorSet, "8.0.0", "O(1)",
        "key element", "Tells in how many seconds an element goes.", Handler::Read(vexpire::vttl)),
    command!("watch", -2, CONNECTION, ALL_KEYS, &["transaction"], Transactions, "2.2.0", "O(N) keys",
        "key [key ...]", "Lets EXEC fail if one of the keys changes before it.", Handler::Transaction(Verb::Watch)),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_lower_case_and_found_in_any_case() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        for spec in COMMANDS {
            assert_eq!(spec.name, spec.name.to_lowercase());
            assert_eq!(find(spec.name.to_uppercase().as_bytes()).map(|found| found.name), Some(spec.name));
        }
        assert!(find(b"").is_none());
        assert!(find(&[b'x'; 100]).is_none());
    }

    #[test]
    fn the_number_of_a_command_is_its_place() {
        assert!(COMMANDS.iter().enumerate().all(|(place, spec)| spec.number() == place));
    }

    #[test]
    fn every_command_says_what_it_does() {
        for spec in COMMANDS {
            assert!(!spec.summary.is_empty() && !spec.complexity.is_empty(), "{}", spec.name);
            let reads = spec.flags.contains(&"readonly");
            let writes = spec.flags.contains(&"write");
            let has_writes = match spec.handler {
                Handler::BySubcommand(handlers) => {
                    assert!(
                        handlers.iter().map(|(name, _)| *name).eq(subcommands(spec.name)),
                        "{}",
                        spec.name
                    );
                    handlers.iter().any(|(_, handler)| matches!(handler, Handler::Write(_)))
                }
                handler => matches!(handler, Handler::Write(_)),
            };
            assert_eq!(writes, has_writes, "{}", spec.name);
            assert!(!reads || matches!(spec.handler, Handler::Read(_)), "{}", spec.name);
        }
    }
}
