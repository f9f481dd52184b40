//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! A transaction's body runs on the writer, against its private state, in one go: reads see the writes before them,
//! nobody else sees half of it, and its changes are one log record.

use std::collections::HashMap;
use std::sync::Arc;

use super::permissions::{Scope, allowed};
use super::reply::Reply;
use super::request::Request;
use super::session::{Queued, Session, Watched};
use super::table::CommandSpec;
use super::text::{Embedded, may_embed};
use super::vcreate::created_model;
use super::{
    Call, CommandError, Context, Handler, Outcome, ReadHandler, SessionHandler, Step, Then, Write, WriteOp,
    document_write, expire, observe, read, read_text, text_write,
};
use crate::access::selector::Denied;
use crate::clock;
use crate::embed::{Model, Text};
use crate::store::Txn;
use crate::store::state::{Key, NamespaceId, Snapshot};

/// Which of the commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Begin.
    Multi,
    /// Run what was queued.
    Exec,
    /// Forget what was queued.
    Discard,
    /// Let EXEC fail if these keys change.
    Watch,
    /// Forget what is watched.
    Unwatch,
}

/// Carries out one of the commands.
pub(super) fn step(verb: Verb, session: &mut Session) -> Result<Step, CommandError> {
    let without_multi = |verb: &str| CommandError::Text(format!("ERR {verb} without MULTI").into());
    match verb {
        Verb::Multi => {
            if session.transaction.is_some() {
                return Err(CommandError::text("ERR MULTI calls can not be nested"));
            }
            session.transaction = Some(Queued::default());
        }
        Verb::Discard => {
            session.transaction.take().ok_or_else(|| without_multi("DISCARD"))?;
            session.watched.clear();
        }
        Verb::Watch => {
            if session.transaction.is_some() {
                return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
            }
            return Ok(Step::Watch);
        }
        Verb::Unwatch => session.watched.clear(),
        Verb::Exec => {
            let queued = session.transaction.take().ok_or_else(|| without_multi("EXEC"))?;
            let watched = std::mem::take(&mut session.watched);
            if queued.failed {
                return Err(CommandError::text(
                    "EXECABORT Transaction discarded because of previous errors.",
                ));
            }
            return Ok(Step::Exec(Body { queued, watched }));
        }
    }
    Ok(Step::Reply(Reply::ok()))
}

/// Remembers how each key is.
pub fn watch(session: &mut Session, request: &Request, snapshot: &Snapshot) -> Reply {
    for index in 1..request.len() {
        let key = Key::new(request.bytes(index)).detached();
        let watched = Watched { stamp: stamp(snapshot, session.namespace, &key), at: snapshot.stamp };
        session.watched.entry(key).or_insert(watched);
    }
    Reply::ok()
}

fn stamp(snapshot: &Snapshot, namespace: NamespaceId, key: &Key) -> Option<u64> {
    snapshot.live(namespace, key, clock::now_ms()).map(|collection| collection.stamp)
}

/// Whether a key is not as it was, or has been something else meanwhile.
fn has_changed(snapshot: &Snapshot, namespace: NamespaceId, key: &Key, then: &Watched) -> bool {
    stamp(snapshot, namespace, key) != then.stamp
        || (then.stamp.is_none() && snapshot.dropped_since(namespace, key, then.at))
}

/// A transaction to run.
pub struct Body {
    queued: Queued,
    watched: HashMap<Key, Watched>,
}

/// One command of a body, prepared as far as can be without the writer.
enum Part {
    Done(Reply),
    Write(WriteOp),
    Read(ReadHandler, Request, Vec<Embedded>),
}

/// A part, or one that waits for that many texts.
enum Draft {
    Part(Part),
    Write(usize, super::Prepare),
    Read(usize, ReadHandler, Request),
}

/// A command of a body that is about the connection: it is carried out when the body has been, in its place.
type Own = (usize, SessionHandler, Request);

impl Body {
    /// Whether there may be texts to embed: then the connection's earlier writes are to be published first.
    pub fn has_texts(&self) -> bool {
        self.queued.commands.iter().any(|(spec, request)| may_embed(spec.name, request))
    }

    /// Prepares the body; its texts are embedded before the writer sees it.
    pub fn prepare(self, session: &Session, context: &Arc<Context>) -> (Write, Option<Then>) {
        let Self { queued, watched } = self;
        let (namespace, scope) = (session.namespace, Scope::of(session));
        let user = session.account.user_arc();
        let mut own: Vec<Own> = Vec::new();
        let mut drafts: Vec<Draft> = Vec::new();
        let mut texts: Vec<Text> = Vec::new();
        let mut created = Created::default();
        let specs: Vec<&CommandSpec> = queued.commands.iter().map(|(spec, _)| *spec).collect();
        for (place, (spec, request)) in queued.commands.into_iter().enumerate() {
            if let Err(denied) = allowed(&user, spec, &request) {
                drafts.push(Draft::Part(Part::Done(no_longer(denied))));
                continue;
            }
            created.note(spec.name, context, &scope, &request);
            let first_text = texts.len();
            // The parts of a document are made for the model that embeds them.
            let key = (may_embed(spec.name, &request) && !matches!(spec.name, "vembed" | "vdoc"))
                .then(|| Key::new(request.bytes(1)));
            drafts.push(match spec.handler_of(&request) {
                Handler::Session(run) => {
                    own.push((place, run, request));
                    Draft::Part(Part::Done(Reply::Null))
                }
                Handler::Read(run) if may_embed(spec.name, &request) => {
                    match read(run, context, &scope, &request) {
                        Outcome::Texts(more, _) => {
                            texts.extend_from_slice(&more);
                            Draft::Read(more.len(), run, request)
                        }
                        _ => Draft::Part(Part::Read(run, request, Vec::new())),
                    }
                }
                Handler::Read(run) => Draft::Part(Part::Read(run, request, Vec::new())),
                Handler::Write(prepare) => match text_write(prepare, scope.clone(), context, request) {
                    Write::Ready(op) => Draft::Part(Part::Write(op)),
                    Write::Text(more, prepare) => {
                        texts.extend_from_slice(&more);
                        Draft::Write(more.len(), prepare)
                    }
                },
                Handler::Document(run) => match document_write(run, &scope, context, &request, false) {
                    Write::Ready(op) => Draft::Part(Part::Write(op)),
                    Write::Text(more, prepare) => {
                        texts.extend_from_slice(&more);
                        Draft::Write(more.len(), prepare)
                    }
                },
                // UNWATCH: what was watched counts for this EXEC and is forgotten anyway. Nothing else is queued.
                Handler::Transaction(_)
                | Handler::Wait(_)
                | Handler::Account(_)
                | Handler::BySubcommand(_) => Draft::Part(Part::Done(Reply::ok())),
            });
            if let Some(model) = key.and_then(|key| created.models.get(&key)) {
                texts[first_text..].iter_mut().for_each(|text| text.model = Arc::clone(model));
            }
        }
        let shared = Arc::clone(context);
        let body = move |parts: Vec<Part>| -> WriteOp {
            Box::new(move |txn| {
                if watched.iter().any(|(key, then)| has_changed(txn.view(), namespace, key, then)) {
                    return Reply::NullArray;
                }
                expire::remove_all_expired(txn, clock::now_ms());
                let mut calls = observe::Calls::new(&shared);
                let replies = parts.into_iter().zip(specs).map(|(part, spec)| {
                    let reply = run(part, txn, &scope, &shared);
                    calls.add(spec, &reply);
                    reply
                });
                Reply::Array(replies.collect())
            })
        };
        let prepare: super::Prepare =
            Box::new(move |context, embedded| body(finish(drafts, context, embedded)));
        let write =
            if texts.is_empty() { Write::Ready(prepare(context, &[])) } else { Write::Text(texts, prepare) };
        if own.is_empty() {
            return (write, None);
        }
        (write, Some(Box::new(move |session, context, reply| fill_in(own, session, context, reply))))
    }
}

/// The answer in place of a command that was allowed when it was queued.
fn no_longer(denied: Denied) -> Reply {
    let why = match denied {
        Denied::Command => "no permission to execute the command or subcommand",
        Denied::Key(_) => "no permission to touch the specified keys",
    };
    Reply::error(format!("NOPERM the rules changed since the command was queued: {why}"))
}

/// The models of collections that the body itself makes: they are not there yet when its texts are embedded.
#[derive(Default)]
struct Created {
    models: HashMap<Key, Arc<Model>>,
}

impl Created {
    fn note(&mut self, command: &str, context: &Context, scope: &Scope, request: &Request) {
        if command == "vcreate" {
            let snapshot = context.store.snapshot();
            let namespace = scope.namespace;
            let call = Call { context, snapshot: &snapshot, namespace, scope, request, embedded: None };
            if let Some(model) = created_model(&call) {
                self.models.entry(Key::new(request.bytes(1)).detached()).or_insert(model);
            }
        }
    }
}

/// Prepares what waited for its texts; `embedded` are those of all parts, in order.
fn finish(drafts: Vec<Draft>, context: &Context, mut embedded: &[Embedded]) -> Vec<Part> {
    let mut take = |count: usize| {
        let (own, rest) = embedded.split_at(count);
        embedded = rest;
        own
    };
    let part = |draft| match draft {
        Draft::Part(part) => part,
        Draft::Write(count, prepare) => Part::Write(prepare(context, take(count))),
        Draft::Read(count, run, request) => Part::Read(run, request, take(count).to_vec()),
    };
    drafts.into_iter().map(part).collect()
}

/// Carries out what is about the connection, unless the transaction was not run.
fn fill_in(own: Vec<Own>, session: &mut Session, context: &Context, reply: Reply) -> Reply {
    let Reply::Array(mut replies) = reply else { return reply };
    for (place, run, request) in own {
        if let Some(reply) = replies.get_mut(place) {
            *reply = run(session, context, &request).unwrap_or_else(Reply::from);
        }
    }
    Reply::Array(replies)
}

fn run(part: Part, txn: &mut Txn<'_>, scope: &Scope, context: &Context) -> Reply {
    match part {
        Part::Done(reply) => reply,
        Part::Write(op) => op(txn),
        Part::Read(run, request, embedded) => {
            match read_text(run, context, txn.view(), scope, &request, &embedded) {
                Outcome::Reply(reply) => reply,
                Outcome::Search(search) => search.here(),
                Outcome::Combined(search) => search.here(),
                Outcome::Texts(..) => unreachable!("texts are only asked for before they are embedded"),
            }
        }
    }
}
