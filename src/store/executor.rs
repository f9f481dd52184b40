//! Searches that wait for the same collection share a pass over its rows.
//!
//! Worker threads of their own take what waits: all searches of the collection whose turn it is, up to
//! [`MAX_SHARED`]. An idle worker starts at once; nothing waits for company.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::collection::search::{self, Hits, SearchRequest};
use crate::metrics::Metrics;

/// Searches that share a pass at most.
const MAX_SHARED: usize = 256;

struct Waiting {
    request: SearchRequest,
    reply: oneshot::Sender<Hits>,
}

#[derive(Default)]
struct Queues {
    /// Collections with waiting searches, longest waiting first.
    turns: VecDeque<u64>,
    by_uid: HashMap<u64, Vec<Waiting>>,
    stopped: bool,
}

struct Shared {
    queues: Mutex<Queues>,
    work: Condvar,
    metrics: Arc<Metrics>,
}

/// The search threads; they end when the executor is dropped.
pub struct Executor(Arc<Shared>);

impl Executor {
    /// Starts that many threads.
    pub fn start(threads: usize, metrics: Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared { queues: Mutex::default(), work: Condvar::new(), metrics });
        for _ in 0..threads {
            let worker = Arc::clone(&shared);
            std::thread::spawn(move || worker.work());
        }
        Self(shared)
    }

    /// Puts searches in line, all of them before any is taken. Their answers come through the receivers.
    pub fn submit(&self, searches: Vec<SearchRequest>) -> Vec<oneshot::Receiver<Hits>> {
        let mut queues = self.0.lock();
        let mut receivers = Vec::with_capacity(searches.len());
        for request in searches {
            let (reply, receiver) = oneshot::channel();
            receivers.push(receiver);
            queues.add(Waiting { request, reply });
        }
        drop(queues);
        self.0.work.notify_all();
        receivers
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.work.notify_all();
    }
}

impl Queues {
    fn add(&mut self, waiting: Waiting) {
        let uid = waiting.request.collection.uid;
        let turns = &mut self.turns;
        let queue = self.by_uid.entry(uid).or_insert_with(|| {
            turns.push_back(uid);
            Vec::new()
        });
        queue.push(waiting);
    }

    fn take(&mut self) -> Option<Vec<Waiting>> {
        let uid = self.turns.pop_front()?;
        let mut waiting = self.by_uid.remove(&uid)?;
        if waiting.len() > MAX_SHARED {
            self.by_uid.insert(uid, waiting.split_off(MAX_SHARED));
            self.turns.push_back(uid);
        }
        Some(waiting)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(waiting) = self.next() {
            let (requests, replies): (Vec<_>, Vec<_>) =
                waiting.into_iter().map(|waiting| (waiting.request, waiting.reply)).unzip();
            self.metrics.count_pass(requests.len());
            for (reply, hits) in replies.into_iter().zip(search::search(&requests)) {
                // Nobody waits any more if the connection is gone.
                drop(reply.send(hits));
            }
        }
    }

    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queues = self.lock();
        loop {
            if queues.stopped {
                return None;
            }
            if let Some(waiting) = queues.take() {
                return Some(waiting);
            }
            queues = self.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Runs one search on the caller's thread: inside a transaction, whose private state nobody else may see.
pub fn search_here(request: SearchRequest) -> Hits {
    let answer = search::search(&[request]).pop();
    answer.unwrap_or_else(|| unreachable!("one search has one answer"))
}
