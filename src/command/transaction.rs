//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! A transaction's body runs on the writer, against its private state, in one go: reads see the writes before them,
//! nobody else sees half of it, and its changes are one log record.

use std::collections::HashMap;
use std::sync::Arc;

use super::reply::Reply;
use super::request::Request;
use super::session::{Queued, Session, Watched};
use super::{
    Call, CommandError, Context, Handler, SessionHandler, Step, WriteOp, prepare_write, read_private,
};
use crate::clock;
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
pub(super) fn step(
    verb: Verb,
    session: &mut Session,
    context: &Arc<Context>,
    request: Request,
) -> Result<Step, CommandError> {
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
            return Ok(Step::Watch(request));
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
            return Ok(exec(queued, watched, session, context));
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

/// One command of a body, prepared as far as can be without the writer.
enum Part {
    Done(Reply),
    Write(WriteOp),
    Read(fn(&Call<'_>) -> Result<super::Outcome, CommandError>, Request),
}

/// A command of a body that is about the connection: it is carried out when the body has been, in its place.
type Own = (usize, SessionHandler, Request);

fn exec(queued: Queued, watched: HashMap<Key, Watched>, session: &Session, context: &Arc<Context>) -> Step {
    let mut own: Vec<Own> = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for (place, (spec, request)) in queued.commands.into_iter().enumerate() {
        parts.push(match spec.handler {
            Handler::Session(run) => {
                own.push((place, run, request));
                Part::Done(Reply::Null)
            }
            Handler::Read(run) => Part::Read(run, request),
            Handler::Write(prepare) => match prepare_write(prepare, session, context, &request) {
                Ok(op) => Part::Write(op),
                Err(error) => Part::Done(error.into()),
            },
            // UNWATCH: what was watched counts for this EXEC and is forgotten anyway. Nothing else is queued.
            Handler::Transaction(_) | Handler::Wait(_) => Part::Done(Reply::ok()),
        });
    }
    let namespace = session.namespace;
    let shared = Arc::clone(context);
    let body: WriteOp = Box::new(move |txn| {
        if watched.iter().any(|(key, then)| has_changed(txn.view(), namespace, key, then)) {
            return Reply::NullArray;
        }
        Reply::Array(parts.into_iter().map(|part| run(part, txn, namespace, &shared)).collect())
    });
    if own.is_empty() {
        return Step::Write(body);
    }
    Step::WriteThen(body, Box::new(move |session, context, reply| fill_in(own, session, context, reply)))
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

fn run(part: Part, txn: &mut Txn<'_>, namespace: NamespaceId, context: &Context) -> Reply {
    match part {
        Part::Done(reply) => reply,
        Part::Write(op) => op(txn),
        Part::Read(run, request) => read_private(run, context, txn.view(), namespace, &request),
    }
}
