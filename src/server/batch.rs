//! A pipeline's requests, carried out together and answered in order.
//!
//! Consecutive writes go to the writer as one job and are not waited for one by one. A read waits until the writes
//! before it are published; the searches of a batch are handed to the search threads together. Later writes do not wait
//! for them: only the replies are put in order.
//!
//! Texts are embedded before their commands go on: those of consecutive writes together before the writer gets the job,
//! those of reads together at the end, each read on the snapshot of its place. Only this connection waits for that.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use tokio::sync::oneshot;

use super::encode::encode;
use crate::collection::Collection;
use crate::collection::search::{Hits, SearchRequest};
use crate::command::client::Client;
use crate::command::permissions::Scope;
use crate::command::reply::{Protocol, Reply};
use crate::command::request::Request;
use crate::command::session::Session;
use crate::command::table::CommandSpec;
use crate::command::text::Embedded;
use crate::command::vsearch::Combined;
use crate::command::{
    self, Context, Outcome, ReadHandler, Shape, Step, Then, Write, WriteOp, observe, transaction,
};
use crate::embed::{EmbedError, Text};
use crate::store::state::Snapshot;
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
    /// The search of that number.
    Search(usize, Arc<Collection>, Shape),
    /// The search of several clauses of that number.
    Combined(usize),
    /// The next reading with texts.
    TextRead,
}

/// A reading that waits for its texts' vectors.
struct TextRead {
    texts: Vec<Text>,
    run: ReadHandler,
    request: Request,
    scope: Scope,
    /// What it sees.
    snapshot: Arc<Snapshot>,
}

/// A request being carried out.
struct Pending {
    /// In which protocol its reply is sent, if it is.
    protocol: Option<Protocol>,
    /// Where that comes from.
    slot: Slot,
    /// What is to be counted when it is there.
    call: Option<Waiting>,
}

/// A call whose reply is not there yet.
struct Waiting {
    spec: &'static CommandSpec,
    begun: Instant,
    request: Request,
}

/// Requests being carried out.
pub struct Batch<'a> {
    context: &'a Arc<Context>,
    calls: observe::Calls<'a>,
    slots: Vec<Pending>,
    size_bytes: usize,
    writes: Vec<Write>,
    jobs: Vec<JobReplies>,
    searches: Vec<SearchRequest>,
    /// Searches of several clauses, and how many of `searches` come before those of each.
    combined: Vec<(Box<Combined>, usize)>,
    text_reads: Vec<TextRead>,
}

impl<'a> Batch<'a> {
    /// No requests yet.
    pub fn new(context: &'a Arc<Context>) -> Self {
        Self {
            context,
            calls: observe::Calls::new(context),
            slots: Vec::new(),
            size_bytes: 0,
            writes: Vec::new(),
            jobs: Vec::new(),
            searches: Vec::new(),
            combined: Vec::new(),
            text_reads: Vec::new(),
        }
    }

    /// Whether it should be finished before more is added.
    pub fn is_full(&self) -> bool {
        self.slots.len() >= MAX_REQUESTS || self.size_bytes >= MAX_BYTES
    }

    /// Number of requests.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Begins to carry out a request.
    pub async fn add(&mut self, session: &mut Session, request: Request) {
        self.size_bytes += request.size_bytes();
        let begun = command::begin(session, self.context, &request);
        if let Some(delay) = session.held_back.take() {
            tokio::time::sleep(delay).await;
        }
        let slot = self.carry_out(begun.step, session, &request).await;
        let mut call = None;
        if let Some(spec) = begun.called {
            match &slot {
                Slot::Reply(reply) => self.calls.add_shown(spec, reply, &request, &session.client),
                _ => {
                    call = Some(Waiting {
                        spec,
                        begun: self.calls.begin_waiting(),
                        request: observe::kept(request),
                    })
                }
            }
        }
        self.slots.push(Pending { protocol: begun.sent.then_some(session.protocol), slot, call });
    }

    async fn carry_out(&mut self, step: Step, session: &mut Session, request: &Request) -> Slot {
        let context = self.context;
        match step {
            Step::Reply(reply) => Slot::Reply(reply),
            Step::Write(write) => self.write(write),
            Step::TextWrite(prepare) => {
                if !command::has_model(session.namespace, context, request) {
                    self.publish(context).await;
                }
                let write = command::text_write(prepare, Scope::of(session), context, request.clone());
                self.write(write)
            }
            Step::Document(run) => {
                self.publish(context).await;
                let write = command::document_write(run, &Scope::of(session), context, request, true);
                self.write(write)
            }
            Step::Exec(body) => {
                if body.has_texts() {
                    self.publish(context).await;
                }
                match body.prepare(session, context) {
                    (write, None) => self.write(write),
                    (write, Some(then)) => self.write_then(write, then, session, context).await,
                }
            }
            Step::WriteThen(write, then) => self.write_then(write, then, session, context).await,
            Step::Read(run) => {
                self.publish(context).await;
                let scope = Scope::of(session);
                match command::read(run, context, &scope, request) {
                    Outcome::Texts(texts, snapshot) => {
                        let request = request.clone();
                        self.text_reads.push(TextRead { texts, run, request, scope, snapshot });
                        Slot::TextRead
                    }
                    outcome => self.read(outcome),
                }
            }
            Step::Watch => {
                self.publish(context).await;
                Slot::Reply(transaction::watch(session, request, &context.store.snapshot()))
            }
            Step::Wait(run) => {
                self.publish(context).await;
                Slot::Reply(match run(context, request) {
                    Ok(waiting) => waiting.await,
                    Err(error) => error.into(),
                })
            }
        }
    }

    fn write(&mut self, write: Write) -> Slot {
        self.writes.push(write);
        Slot::Write(self.jobs.len())
    }

    async fn write_then(
        &mut self,
        write: Write,
        then: Then,
        session: &mut Session,
        context: &Arc<Context>,
    ) -> Slot {
        self.publish(context).await;
        self.writes.push(write);
        self.publish(context).await;
        let reply = match self.jobs.last_mut() {
            Some(job) => job.next().await,
            None => unreachable!("the write was submitted"),
        };
        Slot::Reply(then(session, context, reply))
    }

    fn read(&mut self, outcome: Outcome) -> Slot {
        match outcome {
            Outcome::Reply(reply) => Slot::Reply(reply),
            Outcome::Search(search) => {
                let collection = Arc::clone(&search.request.collection);
                self.searches.push(search.request);
                Slot::Search(self.searches.len() - 1, collection, search.shape)
            }
            Outcome::Combined(mut search) => {
                let first = self.searches.len();
                self.searches.extend(search.take_searches());
                self.combined.push((search, first));
                Slot::Combined(self.combined.len() - 1)
            }
            Outcome::Texts(..) => unreachable!("texts are only asked for before they are embedded"),
        }
    }

    /// Has the texts of the readings embedded and carries them out.
    async fn read_texts(&mut self, context: &Context) {
        let reads = std::mem::take(&mut self.text_reads);
        let texts = reads.iter().flat_map(|read| read.texts.iter().cloned()).collect();
        let embedded = embed(context, texts).await;
        let (mut reads, mut rest) = (reads.into_iter(), &embedded[..]);
        let mut slots = std::mem::take(&mut self.slots);
        let waiting = slots.iter_mut().map(|pending| &mut pending.slot);
        for slot in waiting.filter(|slot| matches!(slot, Slot::TextRead)) {
            let Some(TextRead { texts, run, request, scope, snapshot }) = reads.next() else { break };
            let (own, others) = rest.split_at(texts.len());
            rest = others;
            *slot = self.read(command::read_text(run, context, &snapshot, &scope, &request, own));
        }
        self.slots = slots;
    }

    /// Hands the writes collected so far to the writer, once their texts are embedded.
    async fn submit(&mut self, context: &Context) {
        if !self.writes.is_empty() {
            let (answer, receiver) = oneshot::channel();
            let ops = prepared(std::mem::take(&mut self.writes), context).await;
            let replies = Vec::with_capacity(ops.len());
            context.store.write(Box::new(Writes { ops, replies, answer }));
            self.jobs.push(JobReplies::Waiting(receiver));
        }
    }

    /// Waits until the writes collected so far are published.
    async fn publish(&mut self, context: &Context) {
        self.submit(context).await;
        // The writer takes jobs in order: with the last one, all are done.
        if let Some(last) = self.jobs.last_mut() {
            last.arrive().await;
        }
    }

    /// Waits for everything and appends the replies in order.
    pub async fn finish(mut self, client: &Client, output: &mut BytesMut) {
        let context = self.context;
        self.submit(context).await;
        if !self.text_reads.is_empty() {
            self.read_texts(context).await;
        }
        let searches = std::mem::take(&mut self.searches);
        for (search, _) in &mut self.combined {
            search.begin(&context.store);
        }
        let mut answers: Vec<_> = context.store.search(searches).into_iter().map(Some).collect();
        let mut combined: Vec<_> = std::mem::take(&mut self.combined).into_iter().map(Some).collect();
        for Pending { protocol, slot, call } in std::mem::take(&mut self.slots) {
            let reply = match slot {
                Slot::Reply(reply) => reply,
                Slot::Write(job) => self.jobs[job].next().await,
                Slot::Search(at, collection, shape) => {
                    let answer = answers[at].take();
                    let answer = answer.unwrap_or_else(|| unreachable!("a search is answered once"));
                    search_reply(answer.await, &collection, shape)
                }
                Slot::Combined(at) => match combined[at].take() {
                    Some((search, first)) => {
                        let own = first..first + search.vector_searches();
                        let vectors = answers[own].iter_mut().filter_map(Option::take).collect();
                        search.answer(context, vectors).await
                    }
                    None => unreachable!("a search is answered once"),
                },
                Slot::TextRead => unreachable!("readings with texts have been carried out"),
            };
            if let Some(Waiting { spec, begun, request }) = call {
                self.calls.add_waited(spec, &reply, begun, &request, client);
            }
            if let Reply::Error(text) = &reply {
                context.metrics.count_error(text);
            }
            if let Some(protocol) = protocol {
                encode(&reply, protocol, output);
            }
        }
    }
}

/// Writes with the vectors of their texts, all embedded together.
async fn prepared(mut writes: Vec<Write>, context: &Context) -> Vec<WriteOp> {
    let own = |write: &mut Write| match write {
        Write::Ready(_) => Vec::new(),
        Write::Text(texts, _) => std::mem::take(texts),
    };
    let texts: Vec<Vec<Text>> = writes.iter_mut().map(own).collect();
    let counts: Vec<usize> = texts.iter().map(Vec::len).collect();
    let embedded = embed(context, texts.into_iter().flatten().collect()).await;
    let mut rest = &embedded[..];
    let prepare = |(write, count): (Write, usize)| {
        let (own, others) = rest.split_at(count);
        rest = others;
        match write {
            Write::Ready(op) => op,
            Write::Text(_, prepare) => prepare(context, own),
        }
    };
    writes.into_iter().zip(counts).map(prepare).collect()
}

/// The vectors of texts, or why there is none, with their models.
async fn embed(context: &Context, texts: Vec<Text>) -> Vec<Embedded> {
    if texts.is_empty() {
        return Vec::new();
    }
    let models: Vec<_> = texts.iter().map(|text| Arc::clone(&text.model)).collect();
    let answers = context.embedding.embed(texts).await;
    let answers = answers.unwrap_or_else(|_| vec![Err(EmbedError::Stopped); models.len()]);
    models.into_iter().zip(answers).collect()
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
