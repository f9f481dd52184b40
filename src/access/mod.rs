//! Who may do what: users and their rules (`user.rs`, `selector.rs`), API keys, limits, and what was refused (`log.rs`).
//!
//! The rules are Redis's. A user's rules and API keys are kept by the store, as a line of text and as hashes; [`Access`]
//! holds them ready for use. Connections hold an [`Account`], so that a change acts at once. Users that come from an ACL
//! file or from the configuration are not the store's: they change in memory only.
//!
//! Passwords are kept as SHA-256, as in Redis: `#hash` rules, ACL files and tools that show them stay as they are, and a
//! connection pool that logs in costs nothing. A fast hash is only safe for passwords nobody can guess: ACL GENPASS and
//! API keys make such. Guessing over the network is slowed (`LoginDelay`).

pub mod api_key;
pub mod catalog;
mod file;
pub mod limit;
pub mod log;
pub mod selector;
#[cfg(test)]
mod tests;
pub mod user;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use thiserror::Error;

use crate::config::{Config, Secret};
use crate::metrics::EmbeddingUse;
use crate::store::state::NamespaceId;
use crate::store::users::{ApiKey, Usage, UserRecord, Users};
use catalog::Catalog;
use limit::Bucket;
use log::Log;
use user::User;

/// The user of connections that have not logged in.
pub const DEFAULT_USER: &[u8] = b"default";
/// Longest name of a user or namespace.
const MAX_NAME_BYTES: usize = 256;

/// Why users cannot be loaded or saved.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A line of the ACL file or of the configuration is wrong.
    #[error("{place}: {why}")]
    Line {
        /// Where.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The ACL file cannot be read or written.
    #[error("the ACL file {path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Users from two places.
    #[error(
        "users come either from user lines of the configuration or from an ACL file (aclfile), not from both"
    )]
    Both,
}

/// A user as the connections hold it.
pub struct Account {
    /// Its name.
    pub name: Bytes,
    /// Whether it comes from the ACL file or the configuration, not from the store.
    configured: AtomicBool,
    user: ArcSwap<User>,
    record: ArcSwap<UserRecord>,
    bucket: Bucket,
    /// Commands sent since the start or since they were noted.
    pub commands: AtomicU64,
    /// What was embedded, likewise.
    pub embedding: Arc<EmbeddingUse>,
}

impl Account {
    fn new(name: Bytes, user: User) -> Self {
        Self {
            name,
            configured: AtomicBool::new(false),
            user: ArcSwap::from_pointee(user),
            record: ArcSwap::default(),
            bucket: Bucket::default(),
            commands: AtomicU64::new(0),
            embedding: Arc::default(),
        }
    }

    /// Whether it comes from the ACL file or the configuration, not from the store.
    pub fn is_configured(&self) -> bool {
        self.configured.load(Ordering::Relaxed)
    }

    /// What it may do now.
    pub fn user(&self) -> arc_swap::Guard<Arc<User>> {
        self.user.load()
    }

    /// The same, to be kept.
    pub fn user_arc(&self) -> Arc<User> {
        self.user.load_full()
    }

    /// What the store has of it.
    pub fn record(&self) -> arc_swap::Guard<Arc<UserRecord>> {
        self.record.load()
    }

    /// Where its keys are.
    pub fn namespace(&self) -> NamespaceId {
        self.record.load().namespace
    }

    /// Counts a command.
    ///
    /// # Errors
    /// When there are more a second than it may send: in how many milliseconds the next one may come.
    pub fn count_command(&self) -> Result<(), (u64, u64)> {
        self.commands.fetch_add(1, Ordering::Relaxed);
        let rate = self.record.load().limits.requests_per_s;
        if rate == 0 {
            return Ok(());
        }
        self.bucket.take(rate).map_err(|retry_ms| (rate, retry_ms))
    }

    /// What it has used so far, all together.
    pub fn usage(&self) -> Usage {
        let noted = self.record.load().usage;
        Usage {
            commands: noted.commands + self.commands.load(Ordering::Relaxed),
            texts: noted.texts + self.embedding.texts.load(Ordering::Relaxed),
            tokens: noted.tokens + self.embedding.tokens.load(Ordering::Relaxed),
        }
    }
}

/// An API key in use.
struct LiveKey {
    account: Arc<Account>,
    key: ApiKey,
    last_used_ms: AtomicU64,
}

/// Who has logged in.
#[derive(Clone)]
pub struct Login {
    /// The user.
    pub account: Arc<Account>,
    /// The API key by which it did.
    pub key: Option<u64>,
}

/// What a user has used.
#[derive(Debug, PartialEq)]
pub struct Used {
    /// Name.
    pub name: Bytes,
    /// All so far.
    pub usage: Usage,
    /// Keys by number, and when each was last used, unix milliseconds.
    pub last_used_ms: Vec<(u64, u64)>,
}

#[derive(Default)]
struct Tables {
    accounts: HashMap<Bytes, Arc<Account>>,
    keys: HashMap<u64, LiveKey>,
}

/// All users, ready for use.
pub struct Access {
    /// The commands that rules speak of.
    pub catalog: &'static Catalog,
    tables: RwLock<Tables>,
    default: Arc<Account>,
    /// Whether the store's users are known.
    loaded: AtomicBool,
    /// What was refused.
    pub log: Log,
}

/// Whether a name of a user or namespace can be written in a line.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0)
}

impl Access {
    /// The users that the configuration tells of, in its lines or in an ACL file.
    ///
    /// # Errors
    /// When it tells of them in both, or one cannot be read.
    pub fn new(catalog: &'static Catalog, config: &Config) -> Result<Self, AccessError> {
        let default = User::unrestricted(catalog);
        let name = Bytes::from_static(DEFAULT_USER);
        let default = Arc::new(Account::new(name.clone(), default));
        let mut tables = Tables::default();
        tables.accounts.insert(name, Arc::clone(&default));
        let (tables, loaded) = (tables.into(), AtomicBool::new(false));
        let access = Self { catalog, tables, default, loaded, log: Log::default() };
        if !config.requirepass.is_empty() {
            access.set_default_password(&config.requirepass);
        }
        if !config.users.is_empty() && !config.aclfile.as_os_str().is_empty() {
            return Err(AccessError::Both);
        }
        let users = if config.aclfile.as_os_str().is_empty() {
            let lines = config.users.iter().map(Secret::expose);
            file::parse_lines(
                lines.enumerate().map(|(at, line)| (format!("user line {}", at + 1), line)),
                catalog,
            )?
        } else {
            file::read(&config.aclfile, catalog)?
        };
        access.configure(users);
        Ok(access)
    }

    fn tables(&self) -> RwLockReadGuard<'_, Tables> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn tables_mut(&self) -> RwLockWriteGuard<'_, Tables> {
        self.tables.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The user of connections that have not logged in.
    pub fn default_account(&self) -> Arc<Account> {
        Arc::clone(&self.default)
    }

    /// Whether the store's users are known. They are not while the data are loaded.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    /// Whether a connection is let in without a password.
    pub fn is_open(&self) -> bool {
        let user = self.default.user();
        user.enabled && user.nopass
    }

    /// Sets the default user's one password, or lets it in without.
    pub fn set_default_password(&self, password: &Secret) {
        let mut user = User::clone(&self.default.user());
        let rules: &[&[u8]] = match password.is_empty() {
            true => &[b"nopass"],
            false => &[b"resetpass", &[b">", password.expose().as_bytes()].concat()],
        };
        for rule in rules {
            user.apply(rule, self.catalog).unwrap_or_else(|_| unreachable!("a user may have a password"));
        }
        self.default.user.store(user.into());
    }

    /// A user by name.
    pub fn account(&self, name: &[u8]) -> Option<Arc<Account>> {
        self.tables().accounts.get(name).cloned()
    }

    /// All users by name.
    pub fn accounts(&self) -> Vec<Arc<Account>> {
        let mut all: Vec<_> = self.tables().accounts.values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Checks a name and a password, or an API key in place of the password: then the name is its owner's or `default`,
    /// which is what clients send that know a password only.
    pub fn log_in(&self, name: &[u8], password: &[u8], now_ms: u64) -> Option<Login> {
        let tables = self.tables();
        if let Some(id) = api_key::id_of(password) {
            // What looks like a key is nothing else, even where any password is right.
            let live = tables.keys.get(&id)?;
            let is_owner = name == DEFAULT_USER || *name == *live.account.name;
            let valid = api_key::matches(&live.key, password)
                && is_owner
                && live.account.user().enabled
                && (live.key.expires_ms == 0 || now_ms < live.key.expires_ms);
            if !valid {
                return None;
            }
            live.last_used_ms.store(now_ms, Ordering::Relaxed);
            return Some(Login { account: Arc::clone(&live.account), key: Some(id) });
        }
        let account = tables.accounts.get(name);
        let user = account.map(|account| account.user_arc());
        // A user that is not there takes as long as one that is.
        let right = user.clone().unwrap_or_default().has_password(password);
        match user {
            Some(user) if right && user.enabled => Some(Login { account: Arc::clone(account?), key: None }),
            _ => None,
        }
    }

    /// Whether an API key has been revoked, or its time is over.
    pub fn is_dead(&self, key: u64, now_ms: u64) -> bool {
        let tables = self.tables();
        tables.keys.get(&key).is_none_or(|live| live.key.expires_ms > 0 && live.key.expires_ms <= now_ms)
    }

    /// When an API key was last used, unix milliseconds; 0 if never.
    pub fn last_used_ms(&self, key: &ApiKey) -> u64 {
        let live = self.tables().keys.get(&key.id).map(|live| live.last_used_ms.load(Ordering::Relaxed));
        live.unwrap_or(key.last_used_ms)
    }

    /// Whether an API key of that number is in use.
    pub fn knows_key(&self, id: u64) -> bool {
        self.tables().keys.contains_key(&id)
    }

    /// Follows what the store has of a user. Returns the account that is no more, if one is.
    pub fn follow(&self, name: &Bytes, users: impl FnOnce() -> Users) -> Option<Arc<Account>> {
        let mut tables = self.tables_mut();
        // Asked under the lock: of two that follow, the later sees the newer.
        let users = users();
        tables.follow(name, users.by_name.get(name), self)
    }

    /// Follows everything that the store has. Returns the accounts that are no more.
    pub fn follow_all(&self, users: impl FnOnce() -> Users) -> Vec<Arc<Account>> {
        let mut tables = self.tables_mut();
        let users = users();
        let mut names: Vec<Bytes> = tables.accounts.keys().cloned().collect();
        names.extend(users.by_name.keys().filter(|name| !tables.accounts.contains_key(*name)).cloned());
        let gone =
            names.iter().filter_map(|name| tables.follow(name, users.by_name.get(name), self)).collect();
        self.loaded.store(true, Ordering::Release);
        gone
    }

    /// Puts these users in place of all that were configured. Returns the accounts that are no more.
    fn configure(&self, users: Vec<(Bytes, User)>) -> Vec<Arc<Account>> {
        let mut tables = self.tables_mut();
        let gone: Vec<Bytes> = tables
            .accounts
            .values()
            .filter(|account| account.is_configured())
            .map(|account| account.name.clone())
            .filter(|name| name != DEFAULT_USER && !users.iter().any(|(kept, _)| kept == name))
            .collect();
        let gone = gone.iter().filter_map(|name| tables.accounts.remove(name)).collect();
        for (name, user) in users {
            tables.set_configured(name, user);
        }
        gone
    }

    /// Changes a user that is configured, or makes one.
    pub fn set_configured(&self, name: Bytes, user: User) {
        self.tables_mut().set_configured(name, user);
    }

    /// Removes a user that is configured.
    pub fn remove_configured(&self, name: &[u8]) -> Option<Arc<Account>> {
        self.tables_mut().accounts.remove(name)
    }

    /// Reads the ACL file again. Returns the accounts that are no more.
    ///
    /// # Errors
    /// When a line is wrong; nothing has changed then.
    pub fn load_file(&self, path: &std::path::Path) -> Result<Vec<Arc<Account>>, AccessError> {
        Ok(self.configure(file::read(path, self.catalog)?))
    }

    /// Writes the configured users to the ACL file.
    ///
    /// # Errors
    /// When it cannot be written; the old one is there then.
    pub fn save_file(&self, path: &std::path::Path) -> Result<(), AccessError> {
        let accounts = self.accounts().into_iter();
        let lines = accounts.filter(|one| one.is_configured() || *one.name == *DEFAULT_USER);
        let lines = lines.map(|account| (account.name.clone(), account.user().line()));
        file::write(path, lines)
    }

    /// What has been used since it was last noted, by user: all so far, and when its keys were last used.
    pub fn take_usage(&self) -> Vec<Used> {
        let tables = self.tables();
        let mut used = Vec::new();
        for account in tables.accounts.values().filter(|account| !account.is_configured()) {
            let record = account.record.load();
            let keys = record.keys.iter().filter_map(|key| {
                let at_ms = tables.keys.get(&key.id)?.last_used_ms.load(Ordering::Relaxed);
                (at_ms > key.last_used_ms).then_some((key.id, at_ms))
            });
            let keys: Vec<_> = keys.collect();
            let usage = account.usage();
            if (usage != record.usage || !keys.is_empty()) && !record.rules.is_empty() {
                account.commands.fetch_sub(usage.commands - record.usage.commands, Ordering::Relaxed);
                account.embedding.texts.fetch_sub(usage.texts - record.usage.texts, Ordering::Relaxed);
                account.embedding.tokens.fetch_sub(usage.tokens - record.usage.tokens, Ordering::Relaxed);
                let mut noted = UserRecord { usage, ..UserRecord::clone(&record) };
                for key in &mut noted.keys {
                    let used = keys.iter().find(|(id, _)| *id == key.id);
                    key.last_used_ms = used.map_or(key.last_used_ms, |(_, at_ms)| *at_ms);
                }
                account.record.store(noted.into());
                used.push(Used { name: account.name.clone(), usage, last_used_ms: keys });
            }
        }
        used
    }
}

impl Tables {
    fn set_configured(&mut self, name: Bytes, user: User) {
        let account =
            self.accounts.entry(name.clone()).or_insert_with(|| Account::new(name, User::new()).into());
        account.configured.store(true, Ordering::Relaxed);
        account.user.store(user.into());
    }

    fn follow(
        &mut self,
        name: &Bytes,
        record: Option<&Arc<UserRecord>>,
        access: &Access,
    ) -> Option<Arc<Account>> {
        let known = self.accounts.get(name).cloned();
        if known.as_ref().is_some_and(|account| account.is_configured()) {
            return None;
        }
        let Some(record) = record else {
            if name == DEFAULT_USER {
                return None;
            }
            let gone = self.accounts.remove(name)?;
            for key in &gone.record.load().keys {
                self.keys.remove(&key.id);
            }
            return Some(gone);
        };
        let account = known.unwrap_or_else(|| {
            let account = Arc::new(Account::new(name.clone(), User::new()));
            self.accounts.insert(name.clone(), Arc::clone(&account));
            account
        });
        let before = account.record.load_full();
        if before.rules != record.rules {
            account.user.store(User::restore(&record.rules, access.catalog).into());
        }
        for key in before.keys.iter().filter(|key| !record.keys.iter().any(|kept| kept.id == key.id)) {
            self.keys.remove(&key.id);
        }
        for key in record.keys.iter().filter(|key| !before.keys.contains(key)) {
            let last_used_ms = AtomicU64::new(key.last_used_ms);
            let live = LiveKey { account: Arc::clone(&account), key: key.clone(), last_used_ms };
            self.keys.entry(key.id).or_insert(live);
        }
        account.record.store(newer(&before, record));
        None
    }
}

/// What the store has of a user, with what has been noted since.
fn newer(before: &UserRecord, record: &Arc<UserRecord>) -> Arc<UserRecord> {
    let counts = |usage: &Usage| [usage.commands, usage.texts, usage.tokens];
    if counts(&before.usage).iter().zip(counts(&record.usage)).all(|(before, now)| *before <= now) {
        return Arc::clone(record);
    }
    Arc::new(UserRecord { usage: before.usage, ..UserRecord::clone(record) })
}

/// How long the answer to a wrong password is held back: longer from try to try, and only on this connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoginDelay(u32);

impl LoginDelay {
    /// Counts a wrong password; how long its answer is held back.
    pub fn wrong(&mut self) -> Duration {
        let delay = LOGIN_DELAY_MIN * (1 << self.0.min(LOGIN_DOUBLINGS_MAX));
        self.0 = self.0.saturating_add(1);
        delay
    }
}

/// How long the answer to a connection's first wrong password is held back.
const LOGIN_DELAY_MIN: Duration = Duration::from_millis(50);
/// How often that time doubles at most.
const LOGIN_DOUBLINGS_MAX: u32 = 5;
