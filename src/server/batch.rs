//! A pipeline's requests, carried out together and answered in order.
//!
//! Consecutive writes go to the writer as one job and are not waited for one by one. A read waits until the writes
//! before it are published; the searches of a batch are handed to the search threads together. Later writes do not wait
//! for them: only the replies are put in order.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::encode::encode;
use crate::collection::Collection;
use crate::collection::search::{Hits, SearchRequest};
use crate::command::reply::{Protocol, Reply};
use crate::command::request::Request;
use crate::command::session::Session;
use crate::command::{self, Context, Outcome, Shape, Step, WriteOp, transaction};
use crate::store::{Job, Txn, WriteError};

/// Requests carried out together at most.
pub const MAX_REQUESTS: usize = 1024;
/// Bytes of requests carried out together, about.
pub const MAX_BYTES: usize = 16 << 20;

type WriteReplies = Result<Vec<Reply>, WriteError>;

/// Consecutive writes of one connection.
struct Writes {
    ops: Vec<WriteOp>,
    replies: Vec<Reply>,
    answer: oneshot::Sender<WriteReplies>,
}

impl Job for Writes {
    fn run(&mut self, txn: &mut Txn<'_>) {
        for op in self.ops.drain(..) {
            self.replies.push(op(txn));
            txn.end_record();
        }
    }

    fn done(self: Box<Self>, outcome: Result<(), WriteError>) {
        let Self { replies, answer, .. } = *self;
        // Nobody waits any more if the connection is gone.
        drop(answer.send(outcome.map(|()| replies)));
    }
}

/// A job's replies, on their way or here.
enum JobReplies {
    Waiting(oneshot::Receiver<WriteReplies>),
    Here(Result<std::vec::IntoIter<Reply>, WriteError>),
}

/// Where a request's reply comes from.
enum Slot {
    Reply(Reply),
    /// The next one of that job.
    Write(usize),
    /// The next search.
    Search(Arc<Collection>, Shape),
}

/// Requests being carried out.
#[derive(Default)]
pub struct Batch {
    /// In which protocol each reply is sent, if it is, and where it comes from.
    slots: Vec<(Option<Protocol>, Slot)>,
    size_bytes: usize,
    ops: Vec<WriteOp>,
    jobs: Vec<JobReplies>,
    searches: Vec<SearchRequest>,
}

impl Batch {
    /// Whether it should be finished before more is added.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= MAX_REQUESTS || self.size_bytes >= MAX_BYTES
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Begins to carry out a request.
    pub async fn add(&mut self, session: &mut Session, context: &Arc<Context>, request: Request) {
        self.size_bytes += request.size_bytes();
        let (step, sent) = command::step(session, context, request);
        let slot = match step {
            Step::Reply(reply) => Slot::Reply(reply),
            Step::Write(op) => {
                self.ops.push(op);
                Slot::Write(self.jobs.len())
            }
            Step::WriteThen(op, then) => {
                self.publish(context).await;
                self.ops.push(op);
                self.publish(context).await;
                let reply = match self.jobs.last_mut() {
                    Some(job) => job.next().await,
                    None => unreachable!("the write was submitted"),
                };
                Slot::Reply(then(session, context, reply))
            }
            Step::Read(run, request) => {
                self.publish(context).await;
                match command::read(run, context, session.namespace, &request) {
                    Outcome::Reply(reply) => Slot::Reply(reply),
                    Outcome::Search(search) => {
                        let collection = Arc::clone(&search.request.collection);
                        self.searches.push(search.request);
                        Slot::Search(collection, search.shape)
                    }
                }
            }
            Step::Watch(request) => {
                self.publish(context).await;
                Slot::Reply(transaction::watch(session, &request, &context.store.snapshot()))
            }
            Step::Wait(run, request) => {
                self.publish(context).await;
                Slot::Reply(match run(context, &request) {
                    Ok(waiting) => waiting.await,
                    Err(error) => error.into(),
                })
            }
        };
        self.slots.push((sent.then_some(session.protocol), slot));
    }

    /// Hands the writes collected so far to the writer.
    fn submit(&mut self, context: &Context) {
        if !self.ops.is_empty() {
            let (answer, receiver) = oneshot::channel();
            let ops = std::mem::take(&mut self.ops);
            let replies = Vec::with_capacity(ops.len());
            context.store.write(Box::new(Writes { ops, replies, answer }));
            self.jobs.push(JobReplies::Waiting(receiver));
        }
    }

    /// Waits until the writes collected so far are published.
    async fn publish(&mut self, context: &Context) {
        self.submit(context);
        // The writer takes jobs in order: with the last one, all are done.
        if let Some(last) = self.jobs.last_mut() {
            last.arrive().await;
        }
    }

    /// Waits for everything and appends the replies in order.
    pub async fn finish(mut self, context: &Context, output: &mut BytesMut) {
        self.submit(context);
        let searches = std::mem::take(&mut self.searches);
        let mut answers = context.store.search(searches).into_iter();
        for (protocol, slot) in std::mem::take(&mut self.slots) {
            let reply = match slot {
                Slot::Reply(reply) => reply,
                Slot::Write(job) => self.jobs[job].next().await,
                Slot::Search(collection, shape) => match answers.next() {
                    Some(answer) => search_reply(answer.await, &collection, shape),
                    None => unreachable!("every search has an answer"),
                },
            };
            context.metrics.count_reply(reply.is_error());
            if let Some(protocol) = protocol {
                encode(&reply, protocol, output);
            }
        }
    }
}

fn search_reply(
    answer: Result<Hits, oneshot::error::RecvError>,
    collection: &Collection,
    shape: Shape,
) -> Reply {
    match answer {
        Ok(hits) => shape.reply(collection, &hits),
        Err(_) => Reply::error("ERR the server is shutting down"),
    }
}

impl JobReplies {
    async fn arrive(&mut self) {
        if let Self::Waiting(receiver) = self {
            let replies = receiver.await.unwrap_or(Err(WriteError::Stopped));
            *self = Self::Here(replies.map(Vec::into_iter));
        }
    }

    async fn next(&mut self) -> Reply {
        self.arrive().await;
        match self {
            Self::Here(Ok(replies)) => {
                replies.next().unwrap_or_else(|| unreachable!("a job has a reply for each of its writes"))
            }
            Self::Here(Err(error @ WriteError::Log(_))) => {
                Reply::error(format!("MISCONF Errors writing to the AOF file: {error}"))
            }
            Self::Here(Err(error)) => Reply::error(format!("ERR {error}")),
            Self::Waiting(_) => unreachable!("the replies have arrived"),
        }
    }
}
