//! The threads that embed.
//!
//! A job is the texts of one pipeline or transaction. Jobs take turns: a thread takes some texts of the job in front, and
//! the job goes to the back of the queue, so that one client's bulk load does not keep others' queries waiting.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::error;

use super::cache::{Cache, CacheKey, cache_key};
use super::{EmbedError, Model, Registry, Role, Runtime, Vector};
use crate::config::Config;
use crate::metrics::Metrics;

/// Texts a thread takes at a time.
const MAX_TURN_TEXTS: usize = 32;
/// Bytes of texts that may wait; a job that finds none waiting is always taken.
const MAX_QUEUED_BYTES: usize = 1 << 30;

/// A text to embed.
#[derive(Clone)]
pub struct Text {
    /// By which model.
    pub model: Arc<Model>,
    /// What for.
    pub role: Role,
    /// The text.
    pub text: Arc<str>,
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Text({}, {:?}, {} bytes)", self.model.id.name, self.role, self.text.len())
    }
}

/// What became of each text of a job.
pub type Answers = Vec<Result<Vector, EmbedError>>;

/// Texts embedded together.
struct Job {
    texts: Vec<Text>,
    /// The order they are taken in: by model and role, then by length.
    order: Vec<usize>,
    size_bytes: usize,
    answers: Mutex<Vec<Option<Result<Vector, EmbedError>>>>,
    left: AtomicUsize,
    answer: Mutex<Option<oneshot::Sender<Answers>>>,
}

/// Jobs that wait; how many texts of each have been taken.
#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Arc<Job>, usize)>,
    size_bytes: usize,
    stopped: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    cache: Mutex<Cache>,
    cache_bytes: AtomicUsize,
    runtime: Runtime,
    metrics: Arc<Metrics>,
}

/// The service; see the module's text. Dropping it ends its threads.
pub struct Embedding {
    /// The models there are.
    pub registry: Registry,
    shared: Arc<Shared>,
}

impl Embedding {
    /// Starts the threads. Models are loaded when they are first used.
    pub fn start(config: &Config, metrics: &Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            cache: Mutex::default(),
            cache_bytes: AtomicUsize::new(0),
            runtime: Runtime::new(&config.onnxruntime_path, &config.dir),
            metrics: Arc::clone(metrics),
        });
        for _ in 0..threads(config) {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(&shared));
        }
        let service = Self { registry: Registry::open(&config.dir), shared };
        service.configure(config);
        service
    }

    /// Follows the options that can change while the server runs.
    pub fn configure(&self, config: &Config) {
        let bytes = usize::try_from(config.embedding_cache_size_bytes).unwrap_or(usize::MAX);
        self.shared.cache_bytes.store(bytes, Ordering::Relaxed);
        if bytes == 0 {
            *lock(&self.shared.cache) = Cache::default();
        }
    }

    /// Loads a model now.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load(&self, model: &Model) -> Result<(), EmbedError> {
        model.load(&self.shared.runtime).map(drop)
    }

    /// Embeds texts. The receiver gets an answer for each, in order.
    pub fn embed(&self, texts: Vec<Text>) -> oneshot::Receiver<Answers> {
        let (answer, receiver) = oneshot::channel();
        let job = Job::new(texts, answer);
        let mut queue = lock(&self.shared.queue);
        if queue.stopped {
            return job.refuse(receiver, EmbedError::Stopped);
        }
        if queue.size_bytes > 0 && queue.size_bytes + job.size_bytes > MAX_QUEUED_BYTES {
            return job.refuse(receiver, EmbedError::Busy);
        }
        if job.texts.is_empty() {
            return job.refuse(receiver, EmbedError::Stopped);
        }
        queue.size_bytes += job.size_bytes;
        let turns = job.texts.len().div_ceil(MAX_TURN_TEXTS);
        queue.jobs.push_back((Arc::new(job), 0));
        drop(queue);
        for _ in 0..turns {
            self.shared.wake.notify_one();
        }
        receiver
    }
}

impl Drop for Embedding {
    fn drop(&mut self) {
        lock(&self.shared.queue).stopped = true;
        self.shared.wake.notify_all();
    }
}

fn threads(config: &Config) -> usize {
    match config.embedding_threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from).div_ceil(2),
        threads => threads,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    fn new(texts: Vec<Text>, answer: oneshot::Sender<Answers>) -> Self {
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&at| {
            let text = &texts[at];
            (text.model.id.hash, text.role, text.text.len())
        });
        Self {
            order,
            size_bytes: texts.iter().map(|text| text.text.len()).sum(),
            answers: Mutex::new(vec![None; texts.len()]),
            left: AtomicUsize::new(texts.len()),
            answer: Some(answer).into(),
            texts,
        }
    }

    /// Answers every text with an error.
    fn refuse(self, receiver: oneshot::Receiver<Answers>, error: EmbedError) -> oneshot::Receiver<Answers> {
        if let Some(answer) = lock(&self.answer).take() {
            // The receiver is here.
            drop(answer.send(vec![Err(error); self.texts.len()]));
        }
        receiver
    }

    /// How many texts from `taken` on are of one model and role, and one turn's work.
    fn turn(&self, taken: usize) -> usize {
        let rest = &self.order[taken..];
        let first = &self.texts[rest[0]];
        let alike = |at: &&usize| {
            let text = &self.texts[**at];
            Arc::ptr_eq(&text.model, &first.model) && text.role == first.role
        };
        rest.iter().take(MAX_TURN_TEXTS).take_while(alike).count()
    }

    /// Notes answers; with the last one the job is answered.
    fn note(&self, found: Vec<(usize, Result<Vector, EmbedError>)>) {
        let count = found.len();
        {
            let mut answers = lock(&self.answers);
            for (at, answer) in found {
                answers[at] = Some(answer);
            }
        }
        if self.left.fetch_sub(count, Ordering::AcqRel) == count
            && let Some(answer) = lock(&self.answer).take()
        {
            let answers = std::mem::take(&mut *lock(&self.answers));
            // Nobody waits any more if the connection is gone.
            drop(answer.send(
                answers.into_iter().map(|answer| answer.unwrap_or(Err(EmbedError::Stopped))).collect(),
            ));
        }
    }

    fn is_wanted(&self) -> bool {
        lock(&self.answer).as_ref().is_some_and(|answer| !answer.is_closed())
    }
}

fn work(shared: &Shared) {
    while let Some((job, turn)) = next_turn(shared) {
        let mut found = Vec::with_capacity(turn.len());
        let mut missing: Vec<(usize, CacheKey)> = Vec::new();
        let budget_bytes = shared.cache_bytes.load(Ordering::Relaxed);
        for at in turn {
            let text = &job.texts[at];
            let key = cache_key(&text.model.id, text.role, &text.text);
            let kept = if budget_bytes > 0 { lock(&shared.cache).get(&key, budget_bytes) } else { None };
            match kept {
                Some(vector) => found.push((at, Ok(vector))),
                None => missing.push((at, key)),
            }
        }
        shared.metrics.embedding_cache_hits.fetch_add(found.len() as u64, Ordering::Relaxed);
        if !missing.is_empty() && job.is_wanted() {
            embed(shared, &job, &missing, &mut found);
        } else {
            found.extend(missing.into_iter().map(|(at, _)| (at, Err(EmbedError::Stopped))));
        }
        job.note(found);
    }
}

/// Waits for a job and takes a turn's texts of it; nothing at the end.
fn next_turn(shared: &Shared) -> Option<(Arc<Job>, Vec<usize>)> {
    let mut queue = lock(&shared.queue);
    loop {
        if queue.stopped {
            return None;
        }
        if let Some((job, taken)) = queue.jobs.pop_front() {
            let end = taken + job.turn(taken);
            let turn = job.order[taken..end].to_vec();
            if end < job.order.len() {
                queue.jobs.push_back((Arc::clone(&job), end));
            } else {
                queue.size_bytes -= job.size_bytes;
            }
            return Some((job, turn));
        }
        queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Embeds a job's texts that are not in the cache; all are of one model and role.
fn embed(
    shared: &Shared,
    job: &Job,
    missing: &[(usize, CacheKey)],
    found: &mut Vec<(usize, Result<Vector, EmbedError>)>,
) {
    let (model, role) = (&job.texts[missing[0].0].model, job.texts[missing[0].0].role);
    let texts: Vec<&str> = missing.iter().map(|&(at, _)| &*job.texts[at].text).collect();
    let failed = |reason| EmbedError::Failed { model: model.id.name.clone(), reason };
    let embedded = model.load(&shared.runtime).and_then(|embedder| {
        let run = catch_unwind(AssertUnwindSafe(|| embedder.embed(&texts, role)));
        run.unwrap_or_else(|_| Err("it panicked".to_owned())).map_err(failed)
    });
    let embedded = match embedded {
        Ok(embedded) if embedded.vectors.len() == texts.len() => embedded,
        Ok(_) => return fail(found, missing, failed("it gave another number of vectors".to_owned())),
        Err(error) => {
            error!("embedding failed: {error}");
            return fail(found, missing, error);
        }
    };
    shared.metrics.embedded_texts.fetch_add(texts.len() as u64, Ordering::Relaxed);
    shared.metrics.embedded_tokens.fetch_add(embedded.tokens as u64, Ordering::Relaxed);
    let budget_bytes = shared.cache_bytes.load(Ordering::Relaxed);
    for (&(at, key), vector) in missing.iter().zip(embedded.vectors) {
        let answer = if vector.len() != model.dims || !vector.iter().all(|value| value.is_finite()) {
            Err(failed(format!("it did not give {} finite numbers", model.dims)))
        } else if vector.iter().all(|&value| value == 0.0) {
            Err(EmbedError::Empty)
        } else {
            let vector: Vector = vector.into();
            lock(&shared.cache).insert(key, Arc::clone(&vector), budget_bytes);
            Ok(vector)
        };
        found.push((at, answer));
    }
}

fn fail(
    found: &mut Vec<(usize, Result<Vector, EmbedError>)>,
    missing: &[(usize, CacheKey)],
    error: EmbedError,
) {
    found.extend(missing.iter().map(|&(at, _)| (at, Err(error.clone()))));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embed::BUILTIN;

    fn service() -> (Embedding, Arc<Metrics>) {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { dir: folder.path().to_owned(), ..Config::default() };
        let metrics = Arc::new(Metrics::default());
        (Embedding::start(&config, &metrics), metrics)
    }

    fn texts(service: &Embedding, texts: &[String]) -> Vec<Text> {
        let model = service.registry.get(BUILTIN).unwrap();
        let text = |text: &String| Text {
            model: Arc::clone(&model),
            role: Role::Document,
            text: text.as_str().into(),
        };
        texts.iter().map(text).collect()
    }

    #[test]
    fn answers_come_in_the_order_of_the_texts_and_from_the_cache_the_second_time() {
        let (service, metrics) = service();
        let words: Vec<String> =
            (0..100).map(|number| format!("house {}", "red car ".repeat(number % 7 + number / 50))).collect();
        let first = service.embed(texts(&service, &words)).blocking_recv().unwrap();
        let model = service.registry.get(BUILTIN).unwrap().load(&service.shared.runtime).unwrap();
        for (text, answer) in words.iter().zip(&first) {
            let alone = model.embed(&[text], Role::Document).unwrap().vectors.remove(0);
            assert_eq!(&**answer.as_ref().unwrap(), &alone[..], "{text}");
        }
        let embedded = metrics.embedded_texts.load(Ordering::Relaxed);
        let second = service.embed(texts(&service, &words)).blocking_recv().unwrap();
        assert_eq!(first, second);
        assert_eq!(metrics.embedded_texts.load(Ordering::Relaxed), embedded);
        assert!(metrics.embedding_cache_hits.load(Ordering::Relaxed) >= 100);
    }

    #[test]
    fn a_text_without_words_fails_alone() {
        let (service, _) = service();
        let answers =
            service.embed(texts(&service, &["".to_owned(), "sea".to_owned()])).blocking_recv().unwrap();
        assert_eq!(answers[0], Err(EmbedError::Empty));
        assert!(answers[1].is_ok());
    }

    #[test]
    fn nothing_is_embedded_after_the_end() {
        let (service, _) = service();
        lock(&service.shared.queue).stopped = true;
        let answers = service.embed(texts(&service, &["sea".to_owned()])).blocking_recv().unwrap();
        assert_eq!(answers, [Err(EmbedError::Stopped)]);
    }
}
