//! What the server knows of one connection.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::client::{Client, Doing};
use super::reply::{Protocol, Reply};
use super::request::Request;
use super::table::CommandSpec;
use super::transaction::Verb;
use super::{CommandError, Context, Handler};
use crate::access::{Access, Account, Login, LoginDelay};
use crate::store::state::{Key, NamespaceId};

/// Bytes of commands a transaction may queue.
pub const MAX_TRANSACTION_BYTES: usize = 1 << 30;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// How a watched key was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Number of the last change to it, if it was there.
    pub stamp: Option<u64>,
    /// Number of the last change to anything.
    pub at: u64,
}

/// Whether replies are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// All of them.
    #[default]
    On,
    /// None.
    Off,
    /// All but that of the next command.
    SkipNext,
}

/// A connection's state.
pub struct Session {
    /// What others may know of it.
    pub client: Arc<Client>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether it may do more than authenticate.
    pub authenticated: bool,
    /// Its user.
    pub account: Arc<Account>,
    /// Whether the peer is on this machine.
    pub is_local: bool,
    /// Nobody has logged in, and it was not known yet whether somebody has to.
    provisional: bool,
    /// Wrong passwords so far.
    pub delay: LoginDelay,
    /// How long the reply to the command at hand is held back.
    pub held_back: Option<Duration>,
    /// The namespace its keys are in.
    pub namespace: NamespaceId,
    /// Whether it wants replies.
    pub replies: ReplyMode,
    /// It wants none for the command at hand.
    pub skipping: bool,
    /// The connection is to be closed after the replies so far.
    pub closing: bool,
    /// Commands queued by MULTI.
    pub transaction: Option<Queued>,
    /// Keys given to WATCH and how each was.
    pub watched: HashMap<Key, Watched>,
    /// What others know that it does.
    noted: Doing,
}

/// Whether the protected mode turns a peer away that has not logged in.
pub fn is_denied(context: &Context, is_local: bool) -> bool {
    !is_local && context.config().protected_mode && context.access.is_loaded() && context.access.is_open()
}

/// Commands queued by MULTI.
#[derive(Default)]
pub struct Queued {
    /// The commands in order.
    pub commands: Vec<(&'static CommandSpec, Request)>,
    /// A command was refused while queueing: EXEC will refuse all.
    pub failed: bool,
    size_bytes: usize,
}

impl Session {
    /// A new connection.
    pub fn new(peer: String, local: String, is_local: bool, access: &Access) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let account = access.default_account();
        Self {
            client: Arc::new(Client::new(id, peer, local, Arc::clone(&account))),
            protocol: Protocol::Resp2,
            authenticated: access.is_open(),
            account,
            is_local,
            provisional: !access.is_loaded(),
            delay: LoginDelay::default(),
            held_back: None,
            namespace: NamespaceId::default(),
            replies: ReplyMode::On,
            skipping: false,
            closing: false,
            transaction: None,
            watched: HashMap::new(),
            noted: Doing::default(),
        }
    }

    /// Forgets everything a client has set.
    pub fn reset(&mut self, access: &Access) {
        self.client.about(|about| about.name.clear());
        self.protocol = Protocol::Resp2;
        self.enter(Login { account: access.default_account(), key: None });
        self.authenticated = access.is_open();
        self.replies = ReplyMode::On;
        self.transaction = None;
        self.watched.clear();
    }

    /// Goes on as another user.
    pub fn enter(&mut self, login: Login) {
        self.authenticated = true;
        self.provisional = false;
        self.account = Arc::clone(&login.account);
        self.use_namespace(login.account.namespace());
        self.client.about(|about| about.login = login);
    }

    /// Goes into another namespace.
    pub fn use_namespace(&mut self, namespace: NamespaceId) {
        if namespace != self.namespace {
            self.namespace = namespace;
            self.client.about(|about| about.namespace = namespace);
            // Keys of the same names are others there.
            self.watched.clear();
        }
    }

    /// Finds out whether somebody has to log in, once that is known.
    pub fn settle(&mut self, context: &Context) {
        if self.provisional && context.access.is_loaded() {
            self.provisional = false;
            self.authenticated = context.access.is_open() && !is_denied(context, self.is_local);
        }
    }

    /// Notes a command, for CLIENT LIST; whether its reply is to be sent.
    pub fn note(&mut self, command: &'static str) -> bool {
        let doing = Doing {
            command,
            protocol: self.protocol,
            queued: self.transaction.as_ref().map(|queued| queued.commands.len()),
            watched: self.watched.len(),
        };
        // Mostly the same command again: that needs no lock.
        if doing != self.noted {
            self.noted = doing;
            self.client.about(|about| about.doing = doing);
        }
        !self.skipping && self.replies == ReplyMode::On
    }

    /// Begins a command: the one after SKIP gets no reply.
    pub fn begin(&mut self) {
        self.skipping = self.replies == ReplyMode::SkipNext;
        if self.skipping {
            self.replies = ReplyMode::On;
        }
    }

    /// Marks the transaction, if there is one, as failed.
    pub fn fail_transaction(&mut self) {
        if let Some(queued) = &mut self.transaction {
            queued.failed = true;
        }
    }

    /// Queues a command if a transaction is open and the command does not steer it.
    ///
    /// # Errors
    /// When the command cannot be part of a transaction, or the queue is full.
    pub fn queue(
        &mut self,
        spec: &'static CommandSpec,
        request: &Request,
    ) -> Result<Option<Reply>, CommandError> {
        let Some(queued) = &mut self.transaction else {
            return Ok(None);
        };
        match spec.handler {
            Handler::Transaction(Verb::Unwatch) => {}
            Handler::Transaction(_) => return Ok(None),
            _ if matches!(spec.name, "reset" | "quit") => return Ok(None),
            // HELLO would change the shape of replies in the middle of EXEC's.
            _ if spec.name == "hello" && request.len() > 1 => {
                queued.failed = true;
                return Err(CommandError::text("ERR Command not allowed inside a transaction"));
            }
            Handler::Wait(_) | Handler::Account(_) => {
                queued.failed = true;
                return Err(CommandError::text("ERR Command not allowed inside a transaction"));
            }
            _ => {}
        }
        queued.size_bytes += request.size_bytes();
        if queued.size_bytes > MAX_TRANSACTION_BYTES {
            *queued = Queued { failed: true, ..Queued::default() };
            return Err(CommandError::text("ERR the transaction is larger than 1 GB"));
        }
        queued.commands.push((spec, request.clone()));
        Ok(Some(Reply::simple("QUEUED")))
    }
}
