//! Commands: one table (`table.rs`), one file per family. A command's function parses the request into something
//! typed, asks the store, and shapes the reply. Nothing here knows of sockets.

mod acl;
mod admin;
mod api_key;
pub mod client;
mod connection;
mod debug;
mod docs;
mod edits;
mod elements;
pub mod expire;
pub mod exposition;
mod fields;
mod index;
mod info;
mod keys;
mod memory;
mod monitor;
pub mod observe;
pub mod parse;
pub mod permissions;
pub mod reply;
pub mod request;
pub mod session;
pub mod table;
pub mod text;
pub mod transaction;
pub mod usage;
mod vadd;
mod vcreate;
mod vdoc;
mod vectors;
mod vexpire;
mod vmodel;
pub mod vsearch;
mod vsim;

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, RwLock};

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::access::Access;
use crate::clock;
use crate::collection::search::SearchRequest;
use crate::collection::{Collection, CollectionError};
use crate::config::Config;
use crate::embed::{EmbedError, Embedding, Text};
use crate::metrics::Metrics;
use crate::store::change::Change;
use crate::store::executor::search_here;
use crate::store::state::{Key, NamespaceId, Snapshot};
use crate::store::{Store, Txn};
use crate::tls::Tls;
use client::Clients;
use permissions::Scope;
use reply::Reply;
use request::Request;
use session::Session;
use table::CommandSpec;
use text::Embedded;
use vsearch::Combined;
pub use vsim::Shape;

/// Why a command is answered with an error.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The text of the error reply, code included.
    #[error("{0}")]
    Text(Cow<'static, str>),
    /// Not as many arguments as the command takes.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(Cow<'static, str>),
    /// A collection's data is damaged.
    #[error("ERR {0}")]
    Collection(#[from] CollectionError),
    /// A text could not be embedded.
    #[error("{} {_0}", _0.code())]
    Embed(#[from] EmbedError),
    /// These texts are to be embedded first; the command is run again with their vectors. Never seen by a client.
    #[error("ERR the text was not embedded, try again")]
    Texts(Vec<Text>),
    /// The snapshot is too old to tell; the command is run again on a newer one. Never seen by a client.
    #[error("ERR the element is being changed, try again")]
    Stale,
}

impl CommandError {
    /// An error with a fixed text.
    pub const fn text(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<CommandError> for Reply {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Text(text) => Self::error(text),
            other => Self::error(other.to_string()),
        }
    }
}

/// How the server is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Take a checkpoint first.
    pub save: bool,
    /// End even if the checkpoint fails and there is no log.
    pub force: bool,
}

/// A wish to end the server, and whom to tell if it cannot be granted.
pub type ShutdownWish = (Shutdown, oneshot::Sender<String>);

/// What all connections share.
pub struct Context {
    /// The data.
    pub store: Store,
    /// The users.
    pub access: Access,
    /// What embeds texts.
    pub embedding: Embedding,
    /// The configuration.
    pub config: RwLock<Config>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// When the server started, unix milliseconds.
    pub started_ms: u64,
    /// The port it listens on.
    pub port: u16,
    /// A random name of this run, for INFO.
    pub run_id: String,
    /// The connections.
    pub clients: Clients,
    /// What TLS connections are made with.
    pub tls: Tls,
    /// Where SHUTDOWN is sent.
    pub shutdown: mpsc::UnboundedSender<ShutdownWish>,
}

impl Context {
    /// The connections, oldest first.
    pub fn clients(&self) -> Vec<Arc<client::Client>> {
        self.clients.all()
    }

    /// Follows the users that the store has, once the data are loaded. A password in the configuration wins.
    pub fn follow_users(&self) {
        self.access.follow_all(|| self.store.snapshot().users.clone());
        let password = &self.config().requirepass;
        if !password.is_empty() {
            self.access.set_default_password(password);
        }
    }

    /// The configuration as it is now.
    pub fn config(&self) -> std::sync::RwLockReadGuard<'_, Config> {
        self.config.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A command that reads or prepares a write.
pub struct Call<'a> {
    /// The server.
    pub context: &'a Context,
    /// What it sees.
    pub snapshot: &'a Snapshot,
    /// Where its keys are.
    pub namespace: NamespaceId,
    /// Which of them may be seen.
    pub scope: &'a Scope,
    /// Its arguments.
    pub request: &'a Request,
    /// The vectors of its texts, in their order, once they are embedded.
    pub embedded: Option<&'a [Embedded]>,
}

impl<'a> Call<'a> {
    /// The key in an argument.
    pub fn key(&self, index: usize) -> Key {
        Key::new(self.request.bytes(index))
    }

    /// Keys of the namespace whose time is not over, from a scan's cursor on.
    pub fn live_keys(&self, cursor: u64) -> impl Iterator<Item = (&'a Key, &'a Arc<Collection>)> + use<'a> {
        let now_ms = clock::now_ms();
        let (keys, scope) = (self.snapshot.keys_from(self.namespace, cursor), self.scope);
        keys.filter(move |(_, collection)| collection.expires_ms.is_none_or(|at_ms| at_ms > now_ms))
            .filter(move |(key, _)| scope.sees(key.name()))
    }

    /// The collection whose key is in an argument, unless its time is over.
    pub fn known(&self, index: usize) -> Option<&'a Arc<Collection>> {
        self.snapshot.live(self.namespace, &self.key(index), clock::now_ms())
    }

    /// The same for a command that reads it: counted as found or not.
    pub fn collection(&self, index: usize) -> Option<&'a Arc<Collection>> {
        let found = self.known(index);
        // A reading with texts is carried out twice: before and after they are embedded.
        if self.embedded.is_none() {
            let metrics = &self.context.metrics;
            let counter = if found.is_some() { &metrics.keyspace_hits } else { &metrics.keyspace_misses };
            counter.fetch_add(1, Ordering::Relaxed);
        }
        found
    }
}

/// What a reading command gives.
pub enum Outcome {
    /// Its reply.
    Reply(Reply),
    /// A search to be made; its reply comes from the results.
    Search(Search),
    /// A search of several clauses.
    Combined(Box<Combined>),
    /// Texts to be embedded first: the reading is done again then, on the same snapshot.
    Texts(Vec<Text>, Arc<Snapshot>),
}

/// A search and how to answer it.
pub struct Search {
    /// Where and what.
    pub request: SearchRequest,
    /// How.
    pub shape: Shape,
}

impl Search {
    /// Runs the search on the caller's thread.
    fn here(self) -> Reply {
        let collection = Arc::clone(&self.request.collection);
        self.shape.reply(&collection, &search_here(self.request))
    }
}

/// A write that has been parsed and prepared; what is left is done by the writer.
pub type WriteOp = Box<dyn FnOnce(&mut Txn<'_>) -> Reply + Send>;

/// A write on its way to the writer.
pub enum Write {
    /// Prepared.
    Ready(WriteOp),
    /// Prepared when these texts are embedded.
    Text(Vec<Text>, Prepare),
}

/// Prepares a write with the vectors of its texts.
pub type Prepare = Box<dyn FnOnce(&Context, &[Embedded]) -> WriteOp + Send>;

/// A write that only answers.
fn answer(reply: Reply) -> WriteOp {
    Box::new(|_| reply)
}

/// The collection of a key on the writer's private state. One whose time is over is removed first, as are such elements of
/// it.
fn live(txn: &mut Txn<'_>, namespace: NamespaceId, key: &Key) -> Option<Arc<Collection>> {
    let collection = Arc::clone(txn.view().get(namespace, key)?);
    let now_ms = clock::now_ms();
    if collection.expires_ms.is_some_and(|at_ms| at_ms <= now_ms) {
        txn.apply(&Change::Drop { namespace, key: key.clone() }, None);
        return None;
    }
    if collection.expiries().next_ms().is_none_or(|at_ms| at_ms > now_ms) {
        return Some(collection);
    }
    expire::remove_expired(txn, namespace, key, now_ms, usize::MAX);
    txn.view().get(namespace, key).cloned()
}

/// Something to wait for, such as a checkpoint.
pub type Waiting = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Carries out a command about the connection or the server.
pub type SessionHandler = fn(&mut Session, &Context, &Request) -> Result<Reply, CommandError>;

/// What is done on the connection with the writer's reply.
pub type Then = Box<dyn FnOnce(&mut Session, &Context, Reply) -> Reply + Send>;

/// Prepares a command's write.
pub type WriteHandler = fn(&Call<'_>) -> Result<WriteOp, CommandError>;

/// Carries out a command that reads.
pub type ReadHandler = fn(&Call<'_>) -> Result<Outcome, CommandError>;

/// Prepares a write that splits a text and has the parts embedded. The flag says whether the snapshot has everything that comes
/// before the command.
pub type DocumentHandler = fn(&Call<'_>, bool) -> Result<Write, CommandError>;

/// How a command is carried out.
#[derive(Clone, Copy)]
pub enum Handler {
    /// About the connection or the server; done at once.
    Session(SessionHandler),
    /// Reads the data as the writes before it left them.
    Read(ReadHandler),
    /// Changes the data.
    Write(WriteHandler),
    /// Changes the data, once the parts of a text are embedded.
    Document(DocumentHandler),
    /// As its subcommand says.
    BySubcommand(&'static [(&'static str, Handler)]),
    /// Takes its time.
    Wait(fn(&Arc<Context>, &Request) -> Result<Waiting, CommandError>),
    /// About users: what is left to do is said by the step.
    Account(fn(&mut Session, &Arc<Context>, &Request) -> Result<Step, CommandError>),
    /// One of MULTI, EXEC, DISCARD, WATCH, UNWATCH.
    Transaction(transaction::Verb),
}

/// What the connection has to do for a request.
pub enum Step {
    /// Answer it.
    Reply(Reply),
    /// Run it on a snapshot that has the connection's earlier writes.
    Read(ReadHandler),
    /// Remember the keys' state, once the connection's earlier writes are published.
    Watch,
    /// Give it to the writer.
    Write(Write),
    /// Give it to the writer, and do the rest with its reply.
    WriteThen(Write, Then),
    /// Like `Write`, for a command with texts: which model embeds them depends on the connection's earlier writes.
    TextWrite(WriteHandler),
    /// Prepare it once the connection's earlier writes are published, and give it to the writer.
    Document(DocumentHandler),
    /// Run a transaction's body.
    Exec(transaction::Body),
    /// Begin it once the connection's earlier writes are published, and wait for it.
    Wait(fn(&Arc<Context>, &Request) -> Result<Waiting, CommandError>),
}

/// A request that has been looked at.
pub struct Begun {
    /// What is left to do.
    pub step: Step,
    /// Whether its reply is to be sent.
    pub sent: bool,
    /// The command, if it is carried out: neither refused nor queued.
    pub called: Option<&'static CommandSpec>,
}

/// Decides what a request asks for.
pub fn begin(session: &mut Session, context: &Arc<Context>, request: &Request) -> Begun {
    session.begin();
    let spec = table::find(request.arg(0));
    let name = spec.map_or("", |spec| spec.name);
    let (step, called) = match admit(session, context, spec, request) {
        Ok(Admitted::Called(spec)) => {
            let step = step(session, context, spec, request);
            (step.unwrap_or_else(|error| Step::Reply(error.into())), Some(spec))
        }
        Ok(Admitted::Answered(reply)) => (Step::Reply(reply), None),
        Err(error) => {
            session.fail_transaction();
            observe::rejected(context, spec);
            (Step::Reply(error.into()), None)
        }
    };
    Begun { step, sent: session.note(name), called }
}

/// What becomes of a request that is not refused.
enum Admitted {
    /// It is carried out.
    Called(&'static CommandSpec),
    /// There is nothing more to do.
    Answered(Reply),
}

fn admit(
    session: &mut Session,
    context: &Context,
    spec: Option<&'static CommandSpec>,
    request: &Request,
) -> Result<Admitted, CommandError> {
    let spec = check(session, context, spec, request)?;
    observe::show_monitors(session, context, request);
    if table::asks_help(spec, request) {
        return Ok(Admitted::Answered(docs::help(spec)));
    }
    Ok(match session.queue(spec, request)? {
        Some(reply) => Admitted::Answered(reply),
        None => Admitted::Called(spec),
    })
}

fn step(
    session: &mut Session,
    context: &Arc<Context>,
    spec: &'static CommandSpec,
    request: &Request,
) -> Result<Step, CommandError> {
    Ok(match spec.handler_of(request) {
        Handler::Session(run) => Step::Reply(run(session, context, request)?),
        Handler::Read(run) => Step::Read(run),
        Handler::Write(prepare) => match write(prepare, &Scope::of(session), context, request, None) {
            Err(CommandError::Texts(_)) => Step::TextWrite(prepare),
            prepared => Step::Write(Write::Ready(prepared?)),
        },
        Handler::Document(run) => Step::Document(run),
        Handler::BySubcommand(_) => unreachable!("the subcommand is known"),
        Handler::Wait(run) => Step::Wait(run),
        Handler::Account(run) => run(session, context, request)?,
        Handler::Transaction(verb) => transaction::step(verb, session)?,
    })
}

/// Checks that the request names a command, may be sent, and has as many arguments as the command takes.
fn check(
    session: &mut Session,
    context: &Context,
    spec: Option<&'static CommandSpec>,
    request: &Request,
) -> Result<&'static CommandSpec, CommandError> {
    let spec = spec.ok_or_else(|| unknown_command(request))?;
    if !spec.takes(request.len()) {
        return Err(CommandError::Arity(spec.error_name()));
    }
    table::check_subcommand(spec, request)?;
    session.settle(context);
    if !session.authenticated && !spec.without_auth() {
        return Err(CommandError::text("NOAUTH Authentication required."));
    }
    if !context.access.is_loaded() && !spec.flags.contains(&"loading") {
        return Err(LOADING);
    }
    permissions::check(session, context, spec, request)?;
    if context.store.read_only && spec.writes(request) {
        return Err(READ_ONLY);
    }
    Ok(spec)
}

fn write(
    prepare: WriteHandler,
    scope: &Scope,
    context: &Context,
    request: &Request,
    embedded: Option<&[Embedded]>,
) -> Result<WriteOp, CommandError> {
    let snapshot = context.store.snapshot();
    let namespace = scope.namespace;
    prepare(&Call { context, snapshot: &snapshot, namespace, scope, request, embedded })
}

/// Prepares a write that splits a text. `before`: the newest snapshot has everything that comes before the command.
pub fn document_write(
    run: DocumentHandler,
    scope: &Scope,
    context: &Context,
    request: &Request,
    before: bool,
) -> Write {
    let snapshot = context.store.snapshot_at(clock::now_ms());
    let call =
        Call { context, snapshot: &snapshot, namespace: scope.namespace, scope, request, embedded: None };
    run(&call, before).unwrap_or_else(|error| Write::Ready(answer(error.into())))
}

/// Prepares a write that may have texts, as far as can be before they are embedded.
pub fn text_write(prepare: WriteHandler, scope: Scope, context: &Context, request: Request) -> Write {
    match write(prepare, &scope, context, &request, None) {
        Ok(op) => Write::Ready(op),
        Err(CommandError::Texts(texts)) => Write::Text(
            texts,
            Box::new(move |context, embedded| {
                let prepared = write(prepare, &scope, context, &request, Some(embedded));
                prepared.unwrap_or_else(|error| answer(error.into()))
            }),
        ),
        Err(error) => Write::Ready(answer(error.into())),
    }
}

/// Whether the model that embeds a command's texts is settled: its collection has one.
pub fn has_model(namespace: NamespaceId, context: &Context, request: &Request) -> bool {
    let key = request.get(1).map(|_| Key::new(request.bytes(1)));
    let snapshot = context.store.snapshot();
    key.and_then(|key| snapshot.get(namespace, &key).map(|found| found.model.is_some())).unwrap_or(false)
}

/// The answer to what needs the data while they are not there yet.
const LOADING: CommandError = CommandError::text("LOADING Vecdis is loading the dataset in memory");

/// The answer to what would change the data folder while it is served read-only.
const READ_ONLY: CommandError =
    CommandError::text("READONLY You can't write: this server serves its data folder read-only.");

/// An argument that our own commands do not know.
fn unexpected(word: &[u8]) -> CommandError {
    let word = String::from_utf8_lossy(word);
    CommandError::Text(format!("ERR syntax error, unexpected '{word}'").into())
}

/// Bytes of an unknown command's name and arguments that its error repeats.
const SHOWN_BYTES: usize = 128;

fn unknown_command(request: &Request) -> CommandError {
    let shown =
        |bytes: &[u8], most: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
    let name = shown(request.arg(0), SHOWN_BYTES);
    let mut arguments = String::new();
    for argument in request.args().skip(1) {
        if arguments.len() >= SHOWN_BYTES {
            break;
        }
        arguments.push_str(&format!("'{}' ", shown(argument, SHOWN_BYTES - arguments.len())));
    }
    CommandError::Text(format!("ERR unknown command '{name}', with args beginning with: {arguments}").into())
}

/// Runs a reading command, again on a newer snapshot if the one it had was too old to tell.
pub fn read(run: ReadHandler, context: &Context, scope: &Scope, request: &Request) -> Outcome {
    loop {
        let snapshot = context.store.snapshot_at(clock::now_ms());
        let namespace = scope.namespace;
        match run(&Call { context, snapshot: &snapshot, namespace, scope, request, embedded: None }) {
            Ok(outcome) => return outcome,
            Err(CommandError::Texts(texts)) => return Outcome::Texts(texts, snapshot),
            Err(CommandError::Stale) => std::thread::yield_now(),
            Err(error) => return Outcome::Reply(error.into()),
        }
    }
}

/// Runs a reading command whose texts are embedded, on the snapshot it was first run on, or on a newer one if that has become too
/// old to tell.
pub fn read_text(
    run: ReadHandler,
    context: &Context,
    snapshot: &Snapshot,
    scope: &Scope,
    request: &Request,
    embedded: &[Embedded],
) -> Outcome {
    let namespace = scope.namespace;
    let on = |snapshot: &Snapshot| {
        run(&Call { context, snapshot, namespace, scope, request, embedded: Some(embedded) })
    };
    let mut outcome = on(snapshot);
    while matches!(outcome, Err(CommandError::Stale)) {
        outcome = on(&context.store.snapshot_at(clock::now_ms()));
    }
    outcome.unwrap_or_else(|error| Outcome::Reply(error.into()))
}
