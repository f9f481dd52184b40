//! MULTI, EXEC, DISCARD, WATCH, UNWATCH.
//!
//! A transaction's body runs on the writer, against its private state, in one go: reads see the writes before them,
//! nobody else sees half of it, and its changes are one log record.

use std::collections::HashMap;
use std::sync::Arc;

use super::reply::Reply;
use super::request::Request;
use super::session::{Queued, Session};
use super::{Call, CommandError, Context, Handler, Step, WriteOp, prepare_write, read_private};
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
            return Ok(Step::Write(exec(queued, watched, session, context)));
        }
    }
    Ok(Step::Reply(Reply::ok()))
}

/// Remembers the last change of each key.
pub fn watch(session: &mut Session, request: &Request, snapshot: &Snapshot) -> Reply {
    for index in 1..request.len() {
        let key = Key::new(request.bytes(index)).detached();
        let stamp = stamp(snapshot, session.namespace, &key);
        session.watched.entry(key).or_insert(stamp);
    }
    Reply::ok()
}

fn stamp(snapshot: &Snapshot, namespace: NamespaceId, key: &Key) -> Option<u64> {
    snapshot.get(namespace, key).map(|collection| collection.stamp)
}

/// One command of a body, prepared as far as can be without the writer.
enum Part {
    Done(Reply),
    Write(WriteOp),
    Read(fn(&Call<'_>) -> Result<super::Outcome, CommandError>, Request),
}

fn exec(
    queued: Queued,
    watched: HashMap<Key, Option<u64>>,
    session: &mut Session,
    context: &Arc<Context>,
) -> WriteOp {
    let commands = queued.commands.into_iter();
    let parts: Vec<Part> =
        commands.map(|(spec, request)| prepare(spec.handler, request, session, context)).collect();
    let namespace = session.namespace;
    let context = Arc::clone(context);
    Box::new(move |txn| {
        let changed = |(key, then): (&Key, &Option<u64>)| stamp(txn.view(), namespace, key) != *then;
        if watched.iter().any(changed) {
            return Reply::NullArray;
        }
        Reply::Array(parts.into_iter().map(|part| run(part, txn, namespace, &context)).collect())
    })
}

fn prepare(handler: Handler, request: Request, session: &mut Session, context: &Arc<Context>) -> Part {
    let done = |result: Result<Reply, CommandError>| Part::Done(result.unwrap_or_else(Reply::from));
    match handler {
        Handler::Session(run) => done(run(session, context, &request)),
        Handler::Read(run) => Part::Read(run, request),
        Handler::Write(prepare) => match prepare_write(prepare, session, context, &request) {
            Ok(op) => Part::Write(op),
            Err(error) => Part::Done(error.into()),
        },
        // UNWATCH: what was watched counts for this EXEC and is forgotten after it anyway. Nothing else is queued.
        Handler::Transaction(_) | Handler::Wait(_) => Part::Done(Reply::ok()),
    }
}

fn run(part: Part, txn: &mut Txn<'_>, namespace: NamespaceId, context: &Context) -> Reply {
    match part {
        Part::Done(reply) => reply,
        Part::Write(op) => op(txn),
        Part::Read(run, request) => read_private(run, context, txn.view(), namespace, &request),
    }
}
