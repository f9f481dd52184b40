//! What the server knows of one connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::reply::{Protocol, Reply};
use super::request::Request;
use super::table::CommandSpec;
use super::transaction::Verb;
use super::{CommandError, Handler};
use crate::clock;
use crate::store::state::{Key, NamespaceId};

/// Bytes of commands a transaction may queue.
pub const MAX_TRANSACTION_BYTES: usize = 1 << 30;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A connection's state.
pub struct Session {
    /// Number of the connection, never used again.
    pub id: u64,
    /// The peer, `host:port`.
    pub peer: String,
    /// Our end, `host:port`.
    pub local: String,
    /// When it was accepted, unix milliseconds.
    pub accepted_ms: u64,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether it may do more than authenticate.
    pub authenticated: bool,
    /// The namespace its keys are in.
    pub namespace: NamespaceId,
    /// Name given by CLIENT SETNAME.
    pub name: Vec<u8>,
    /// Library name given by CLIENT SETINFO.
    pub library: Vec<u8>,
    /// Library version given by CLIENT SETINFO.
    pub library_version: Vec<u8>,
    /// The connection is to be closed after the replies so far.
    pub closing: bool,
    /// Commands queued by MULTI.
    pub transaction: Option<Queued>,
    /// Keys given to WATCH and the number of the last change each had.
    pub watched: HashMap<Key, Option<u64>>,
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
    pub fn new(peer: String, local: String, authenticated: bool) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            local,
            accepted_ms: clock::now_ms(),
            protocol: Protocol::Resp2,
            authenticated,
            namespace: NamespaceId::default(),
            name: Vec::new(),
            library: Vec::new(),
            library_version: Vec::new(),
            closing: false,
            transaction: None,
            watched: HashMap::new(),
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
            Handler::Wait(_) => {
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
