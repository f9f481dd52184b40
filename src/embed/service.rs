//! The threads that embed.
//!
//! A job is the texts of one pipeline or transaction. Jobs take turns: a thread takes some texts of the job in front, and
//! the job goes to the back of the queue, so that one client's bulk load does not keep others' queries waiting.
//!
//! Models that run here share one lane: a queue and threads. Each remote model has a lane of its own, so that a provider
//! that is slow or gone keeps nobody else waiting.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tracing::error;

use super::cache::{Cache, CacheKey, cache_key};
use super::{BUILTIN, EmbedError, Embedder, Failure, Model, Registry, Role, Runtime, Vector};
use crate::config::Config;
use crate::metrics::{EmbeddingUse, Metrics};

/// Texts a thread takes at a time; for a remote model, as many as one request can have.
const MAX_TURN_TEXTS: usize = 32;
/// Bytes of texts a thread takes at a time, unless one text has more.
const MAX_TURN_BYTES: usize = 256 << 10;
/// Requests a remote model is asked at a time.
const REMOTE_THREADS: usize = 4;
/// Bytes of texts that may wait in a lane; texts that find none waiting are always taken.
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
    /// Where it is counted.
    pub payer: Arc<EmbeddingUse>,
    /// Whose vectors of the cache it may find: nobody can tell what others have had embedded.
    pub realm: u32,
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
    answers: Mutex<Vec<Option<Result<Vector, EmbedError>>>>,
    left: AtomicUsize,
    answer: Mutex<Option<oneshot::Sender<Answers>>>,
}

/// The rest of a job's texts that go to one lane: places in its order.
struct Part {
    job: Arc<Job>,
    rest: Range<usize>,
    size_bytes: usize,
}

/// Texts that wait.
#[derive(Default)]
struct Queue {
    parts: VecDeque<Part>,
    size_bytes: usize,
    stopped: bool,
}

/// A queue, and threads that take from it.
#[derive(Default)]
struct Lane {
    queue: Mutex<Queue>,
    wake: Condvar,
}

struct Shared {
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
    local: Arc<Lane>,
    /// By the models' names; made when they are first used.
    remote: Mutex<BTreeMap<String, Arc<Lane>>>,
}

impl Embedding {
    /// Starts the threads. Models are loaded when they are first used.
    pub fn start(config: &Config, metrics: &Arc<Metrics>) -> Self {
        let shared = Arc::new(Shared {
            cache: Mutex::default(),
            cache_bytes: AtomicUsize::new(0),
            runtime: Runtime::new(&config.onnxruntime_path, &config.dir),
            metrics: Arc::clone(metrics),
        });
        let local = open_lane(&shared, threads(config));
        let registry = Registry::open(&config.dir);
        let service = Self { registry, shared, local, remote: Mutex::default() };
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

    /// What counts the tokens of a model, which is loaded for it. Those of a model whose tokenizer is not here are counted by
    /// the built-in one.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn token_counter(&self, model: &Model) -> Result<TokenCounter, EmbedError> {
        let embedder = model.load(&self.shared.runtime)?;
        if embedder.tokenizer().is_some() {
            return Ok(TokenCounter(embedder));
        }
        Ok(TokenCounter(self.registry.get(BUILTIN)?.load(&self.shared.runtime)?))
    }

    /// Embeds texts. The receiver gets an answer for each, in order.
    pub fn embed(&self, texts: Vec<Text>) -> oneshot::Receiver<Answers> {
        let (answer, receiver) = oneshot::channel();
        if texts.is_empty() {
            // The receiver is here.
            drop(answer.send(Vec::new()));
            return receiver;
        }
        for text in &texts {
            text.payer.texts.fetch_add(1, Ordering::Relaxed);
        }
        let job = Arc::new(Job::new(texts, answer));
        let order: Vec<usize> = (0..job.order.len()).collect();
        // Texts of one model stand together in the order.
        for places in order.chunk_by(|&a, &b| job.text(a).model.id == job.text(b).model.id) {
            let rest = places[0]..places[0] + places.len();
            let size_bytes = rest.clone().map(|place| job.text(place).text.len()).sum();
            let lane = self.lane(&job.text(rest.start).model);
            let turns = rest.len().div_ceil(MAX_TURN_TEXTS);
            if let Err((part, error)) = lane.push(Part { job: Arc::clone(&job), rest, size_bytes }, turns) {
                job.note(part.rest.map(|place| (job.order[place], Err(error.clone()))).collect());
            }
        }
        receiver
    }

    fn lane(&self, model: &Model) -> Arc<Lane> {
        if model.endpoint().is_none() {
            return Arc::clone(&self.local);
        }
        let mut lanes = lock(&self.remote);
        let open = || open_lane(&self.shared, REMOTE_THREADS);
        Arc::clone(lanes.entry(model.id.name.clone()).or_insert_with(open))
    }
}

/// Counts tokens; see [`Embedding::token_counter`].
pub struct TokenCounter(Arc<dyn Embedder>);

impl TokenCounter {
    /// How many tokens a text has, without those that a model puts around it.
    pub fn count(&self, text: &str) -> usize {
        self.0.tokenizer().map_or(0, |tokenizer| tokenizer.count(text))
    }
}

impl Lane {
    /// Adds texts and wakes threads for so many turns; gives them back if they cannot wait here.
    fn push(&self, part: Part, turns: usize) -> Result<(), (Part, EmbedError)> {
        let mut queue = lock(&self.queue);
        if queue.stopped {
            return Err((part, EmbedError::Stopped));
        }
        if queue.size_bytes > 0 && queue.size_bytes + part.size_bytes > MAX_QUEUED_BYTES {
            return Err((part, EmbedError::Busy));
        }
        queue.size_bytes += part.size_bytes;
        queue.parts.push_back(part);
        drop(queue);
        for _ in 0..turns {
            self.wake.notify_one();
        }
        Ok(())
    }

    fn stop(&self) {
        lock(&self.queue).stopped = true;
        self.wake.notify_all();
    }

    /// Waits for texts and takes a turn's: their places in the job's list. Nothing at the end.
    fn next_turn(&self) -> Option<(Arc<Job>, Vec<usize>)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(mut part) = queue.parts.pop_front() {
                let end = part.rest.start + part.job.turn(part.rest.clone());
                let turn = part.job.order[part.rest.start..end].to_vec();
                let job = Arc::clone(&part.job);
                part.rest.start = end;
                if part.rest.is_empty() {
                    queue.size_bytes -= part.size_bytes;
                } else {
                    queue.parts.push_back(part);
                }
                return Some((job, turn));
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A lane with that many threads.
fn open_lane(shared: &Arc<Shared>, threads: usize) -> Arc<Lane> {
    let lane = Arc::new(Lane::default());
    for _ in 0..threads {
        let (shared, lane) = (Arc::clone(shared), Arc::clone(&lane));
        std::thread::spawn(move || work(&shared, &lane));
    }
    lane
}

impl Drop for Embedding {
    fn drop(&mut self) {
        self.local.stop();
        lock(&self.remote).values().for_each(|lane| lane.stop());
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
        let key = |at: usize| (&texts[at].model.id.hash, &texts[at].role, texts[at].text.len());
        order.sort_by(|&a, &b| key(a).cmp(&key(b)));
        Self {
            order,
            answers: Mutex::new(vec![None; texts.len()]),
            left: AtomicUsize::new(texts.len()),
            answer: Some(answer).into(),
            texts,
        }
    }

    /// The text at a place of the order.
    fn text(&self, place: usize) -> &Text {
        &self.texts[self.order[place]]
    }

    /// How many texts from the first of these places on are of one model, role and payer, and one turn's work.
    fn turn(&self, places: Range<usize>) -> usize {
        let first = self.text(places.start);
        let most = first.model.endpoint().map_or(MAX_TURN_TEXTS, |endpoint| endpoint.batch_texts());
        let mut size_bytes = 0;
        let fits = |place: &usize| {
            let text = self.text(*place);
            size_bytes += text.text.len();
            let alone = *place == places.start;
            Arc::ptr_eq(&text.model, &first.model)
                && Arc::ptr_eq(&text.payer, &first.payer)
                && text.role == first.role
                && (alone || size_bytes <= MAX_TURN_BYTES)
        };
        places.clone().take(most).take_while(fits).count()
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

fn work(shared: &Shared, lane: &Lane) {
    while let Some((job, turn)) = lane.next_turn() {
        let mut found = Vec::with_capacity(turn.len());
        let mut missing: Vec<(usize, CacheKey)> = Vec::new();
        let budget_bytes = shared.cache_bytes.load(Ordering::Relaxed);
        for at in turn {
            let text = &job.texts[at];
            let key = cache_key(&text.model.id, &text.role, &text.text, text.realm);
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

/// Embeds a job's texts that are not in the cache; all are of one model, role and payer.
fn embed(
    shared: &Shared,
    job: &Job,
    missing: &[(usize, CacheKey)],
    found: &mut Vec<(usize, Result<Vector, EmbedError>)>,
) {
    let Text { model, role, payer, .. } = &job.texts[missing[0].0];
    let texts: Vec<&str> = missing.iter().map(|&(at, _)| &*job.texts[at].text).collect();
    let failed = |reason| EmbedError::Failed { model: model.id.name.clone(), reason };
    let embedded = model.load(&shared.runtime).and_then(|embedder| {
        let run = catch_unwind(AssertUnwindSafe(|| embedder.embed(&texts, role)));
        run.unwrap_or_else(|_| Err(Failure::Failed("it panicked".to_owned()))).map_err(
            |failure| match failure {
                Failure::Down(reason) => EmbedError::Down { model: model.id.name.clone(), reason },
                Failure::Failed(reason) => failed(reason),
            },
        )
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
    for tokens in [&shared.metrics.embedded_tokens, &payer.tokens] {
        tokens.fetch_add(embedded.tokens as u64, Ordering::Relaxed);
    }
    let budget_bytes = shared.cache_bytes.load(Ordering::Relaxed);
    for (&(at, key), vector) in missing.iter().zip(embedded.vectors) {
        let answer = if vector.len() != model.dims || !vector.iter().all(|value| value.is_finite()) {
            Err(failed(format!("it did not give {} finite numbers", model.dims)))
        } else if !matches!(role, Role::Answer(_)) && vector.iter().all(|&value| value == 0.0) {
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
            payer: Arc::default(),
            realm: 0,
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
            let alone = model.embed(&[text], &Role::Document).unwrap().vectors.remove(0);
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
        service.local.stop();
        let answers = service.embed(texts(&service, &["sea".to_owned()])).blocking_recv().unwrap();
        assert_eq!(answers, [Err(EmbedError::Stopped)]);
    }
}
