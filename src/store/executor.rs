//! Searches that wait for the same collection share a pass over its rows.
//!
//! Worker threads of their own take what waits: all searches of the collection whose turn it is, up to [`MAX_SHARED`].
//! An idle worker starts at once; nothing waits for company. A worker that finds nothing waiting helps with the parts of a
//! pass that has begun. Searches so small that waking a thread would cost more run on the caller's thread, unless others are
//! at it already: then they wait in line and share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::collection::search::{self, Hits, Pass, SearchRequest};
use crate::metrics::Metrics;

/// Searches that share a pass at most.
const MAX_SHARED: usize = 256;

struct Waiting {
    request: SearchRequest,
    reply: oneshot::Sender<Hits>,
}

/// Other work of a search, such as a keyword search.
type Task = Box<dyn FnOnce() + Send>;

/// What a worker does next.
enum Work {
    Pass(Arc<Active>),
    Task(Task),
}

/// A pass that workers are at.
struct Active {
    pass: Pass,
    replies: Mutex<Vec<oneshot::Sender<Hits>>>,
}

#[derive(Default)]
struct Queues {
    /// Collections with waiting searches, longest waiting first.
    turns: VecDeque<u64>,
    by_uid: HashMap<u64, Vec<Waiting>>,
    /// Passes that may have parts left.
    active: Vec<Arc<Active>>,
    tasks: VecDeque<Task>,
    /// A task was taken last: then it is a pass's turn.
    task_taken: bool,
    /// A caller runs small searches of its own.
    caller_at_work: bool,
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

    /// Puts searches in line, all of them before any is taken. Their answers come through the receivers; those of small
    /// searches may be there at once.
    pub fn submit(&self, searches: Vec<SearchRequest>) -> Vec<oneshot::Receiver<Hits>> {
        if searches.is_empty() {
            return Vec::new();
        }
        let searches = match self.0.run_here(searches) {
            Ok(receivers) => return receivers,
            Err(searches) => searches,
        };
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

impl Executor {
    /// Runs other work on a search thread, in turn with the passes.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (reply, receiver) = oneshot::channel();
        // Nobody waits any more if the connection is gone.
        self.0.lock().tasks.push_back(Box::new(move || drop(reply.send(work()))));
        self.0.work.notify_one();
        receiver
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
        while let Some(work) = self.next() {
            let active = match work {
                Work::Pass(active) => active,
                Work::Task(task) => {
                    task();
                    continue;
                }
            };
            let answers = active.pass.work();
            self.lock().active.retain(|other| !Arc::ptr_eq(other, &active));
            if let Some(answers) = answers {
                self.count_plans(&active.pass);
                let replies =
                    std::mem::take(&mut *active.replies.lock().unwrap_or_else(PoisonError::into_inner));
                for (reply, hits) in replies.into_iter().zip(answers) {
                    // Nobody waits any more if the connection is gone.
                    drop(reply.send(hits));
                }
            }
        }
    }

    /// Runs a small pass at once if nobody else searches; else gives the searches back.
    fn run_here(
        &self,
        searches: Vec<SearchRequest>,
    ) -> Result<Vec<oneshot::Receiver<Hits>>, Vec<SearchRequest>> {
        if !search::is_small(&searches) {
            return Err(searches);
        }
        {
            let mut queues = self.lock();
            if queues.caller_at_work || !queues.turns.is_empty() || !queues.active.is_empty() {
                return Err(searches);
            }
            queues.caller_at_work = true;
        }
        self.metrics.count_pass(searches.len());
        let pass = Pass::new(searches);
        self.ask_for_sketches(&pass);
        let answers = pass.work().unwrap_or_else(|| unreachable!("who works alone ends the pass"));
        self.count_plans(&pass);
        self.lock().caller_at_work = false;
        let answer = |hits| {
            let (reply, receiver) = oneshot::channel();
            // The receiver is right here.
            drop(reply.send(hits));
            receiver
        };
        Ok(answers.into_iter().map(answer).collect())
    }

    /// The thread that makes sketches looks for such news.
    fn ask_for_sketches(&self, pass: &Pass) {
        if pass.asks_for_sketches() {
            self.metrics.sketches_asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count_plans(&self, pass: &Pass) {
        let plans = pass.plans();
        let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
        self.metrics.count_plans(plans.answered.each_ref().map(count), count(&plans.given_up));
    }

    /// What to do: a task and a pass in turn; a pass that has begun and has parts left before a new one.
    fn next(&self) -> Option<Work> {
        let mut queues = self.lock();
        loop {
            if queues.stopped {
                return None;
            }
            let is_idle = queues.turns.is_empty() && queues.active.is_empty();
            if (!queues.task_taken || is_idle)
                && let Some(task) = queues.tasks.pop_front()
            {
                queues.task_taken = true;
                return Some(Work::Task(task));
            }
            queues.task_taken = false;
            if let Some(active) = queues.active.iter().find(|active| active.pass.has_more()) {
                return Some(Work::Pass(Arc::clone(active)));
            }
            if let Some(waiting) = queues.take() {
                drop(queues);
                return Some(Work::Pass(self.begin(waiting)));
            }
            if !queues.tasks.is_empty() {
                continue;
            }
            queues = self.work.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn begin(&self, waiting: Vec<Waiting>) -> Arc<Active> {
        let (requests, replies): (Vec<_>, Vec<_>) =
            waiting.into_iter().map(|waiting| (waiting.request, waiting.reply)).unzip();
        let pass = Pass::new(requests);
        self.ask_for_sketches(&pass);
        let active = Arc::new(Active { pass, replies: Mutex::new(replies) });
        self.metrics.count_pass(active.pass.searches());
        if active.pass.parts() > 1 {
            self.lock().active.push(Arc::clone(&active));
            self.work.notify_all();
        }
        active
    }
}

/// Runs one search on the caller's thread: inside a transaction, whose private state nobody else may see.
pub fn search_here(request: SearchRequest) -> Hits {
    let answer = search::search(vec![request]).pop();
    answer.unwrap_or_else(|| unreachable!("one search has one answer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collection::{AttributeChange, Collection, Encoded, Params, TextChange};
    use crate::vector::{Layout, Metric, Quantization, Query};

    fn requests(rows: usize, searches: usize) -> Vec<SearchRequest> {
        let layout = Layout { dim: 4, metric: Metric::L2, quantization: Quantization::Int8 };
        let mut collection = Collection::new(0, Params::new(layout));
        for at in 0..rows {
            let vector = [at as f32, 1.0, 2.0, 3.0];
            let encoded = Encoded::new(&collection.params, &vector);
            collection.put(&at.to_be_bytes(), &vector, &encoded, &AttributeChange::Keep, &TextChange::Keep);
        }
        let collection = Arc::new(collection);
        let request = |at| SearchRequest {
            collection: Arc::clone(&collection),
            query: Query::new(&layout, &[at as f32, 1.0, 2.0, 3.0]),
            count: 1,
            effort: 0,
            exact: false,
            filter: None,
            trace: None,
        };
        (0..searches).map(request).collect()
    }

    /// Whether an executor without threads of its own answers.
    fn answered(requests: Vec<SearchRequest>) -> Option<usize> {
        let metrics = Arc::new(Metrics::default());
        let receivers = Executor::start(0, Arc::clone(&metrics)).submit(requests);
        for (at, mut receiver) in receivers.into_iter().enumerate() {
            let hits = receiver.try_recv().ok()?.unwrap();
            assert_eq!(hits[0].row.0, at as u64);
        }
        usize::try_from(metrics.search_passes.load(Ordering::Relaxed)).ok()
    }

    #[test]
    fn small_searches_are_answered_by_the_caller_in_one_pass() {
        assert_eq!(answered(requests(100, 1)), Some(1));
        assert_eq!(answered(requests(100, 9)), Some(1));
        assert_eq!(answered(requests(30_000, 1)), None, "that many rows are for the search threads");
        assert_eq!(answered(requests(1000, 100)), None, "as many searches are");
        let proof = requests(100, 1).into_iter().map(|request| SearchRequest { exact: true, ..request });
        assert_eq!(answered(proof.collect()), None, "a proof may take long");
    }
}
