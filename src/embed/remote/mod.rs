//! Remote models: providers that embed texts, asked over HTTP.
//!
//! A request is tried again when that can help (no connection, 429, 500, 502, 503, 504), at most [`retry::MAX_TRIES`] times
//! and within the model's deadline. A provider that has failed is left alone for a moment, so that what waits for it is
//! answered at once. The key is read from a file or the environment when the model is loaded, and never shown.

mod endpoint;

use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, StatusCode};

use super::manifest::Manifest;
use super::{Embedded, Embedder, Failure, Role, Tokenizer, retry};
pub use endpoint::Endpoint;
use endpoint::Key;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a provider that has failed is left alone.
const REST: Duration = Duration::from_secs(2);
/// Longest wait that headers of the provider can ask for.
const MAX_HOLD: Duration = Duration::from_secs(60);
/// Bytes of an answer for each number of a vector, and for the rest of it.
const NUMBER_BYTES: usize = 32;
const ANSWER_BYTES: usize = 1 << 20;
/// Bytes of an error's body that are read, and characters of its message that are repeated.
const ERROR_BYTES: u64 = 16 << 10;
const ERROR_CHARS: usize = 200;

/// See the module's text.
pub struct RemoteModel {
    manifest: Manifest,
    endpoint: Endpoint,
    key: Option<Key>,
    agent: ureq::Agent,
    gate: Mutex<Gate>,
}

/// Whether the provider may be asked now.
#[derive(Default)]
struct Gate {
    /// Not before this moment, as the provider asked.
    held_until: Option<Instant>,
    /// Why it failed, and until when that is the answer.
    rests_until: Option<(Instant, String)>,
}

/// Why a request has no answer.
enum Refusal {
    /// Trying again may help, after this long if the provider said so.
    Again(String, Option<Duration>),
    /// It will not.
    Final(Failure),
}

impl RemoteModel {
    /// Reads the key. Nothing is sent yet.
    ///
    /// # Errors
    /// When the key is missing.
    pub fn load(manifest: &Manifest, endpoint: &Endpoint) -> Result<Self, String> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // A redirect would take the key and the texts elsewhere.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .user_agent(concat!("vecdis/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            manifest: manifest.clone(),
            endpoint: endpoint.clone(),
            key: endpoint.key()?,
            agent,
            gate: Mutex::default(),
        })
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The provider's answer to a request for the vectors of `count` texts.
    fn ask(&self, body: &str, count: usize) -> Result<Vec<u8>, Failure> {
        let end = Instant::now() + Duration::from_secs(self.endpoint.deadline_s);
        let mut tries = 0;
        loop {
            let held_until = match &*self.gate() {
                Gate { rests_until: Some((until, reason)), .. } if *until > Instant::now() => {
                    return Err(Failure::Down(reason.clone()));
                }
                gate => gate.held_until.filter(|until| *until > Instant::now()),
            };
            if let Some(until) = held_until {
                if until >= end {
                    let left_s = until.duration_since(Instant::now()).as_secs();
                    return Err(Failure::Down(self.named(&format!("its rate limit ends in {left_s} s"))));
                }
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
            }
            tries += 1;
            let (reason, asked_for) = match self.exchange(body, count, end) {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Final(Failure::Down(reason))) => return Err(self.rest(&reason)),
                Err(Refusal::Final(Failure::Failed(reason))) => {
                    return Err(Failure::Failed(self.named(&reason)));
                }
                Err(Refusal::Again(reason, asked_for)) => (reason, asked_for),
            };
            let pause = asked_for.unwrap_or_else(|| retry::backoff(tries));
            if tries == retry::MAX_TRIES || Instant::now() + pause >= end {
                return Err(self.rest(&format!("{reason} (tried {tries} times)")));
            }
            match asked_for {
                Some(pause) => self.hold(pause),
                None => std::thread::sleep(pause),
            }
        }
    }

    /// Nobody asks before that.
    fn hold(&self, pause: Duration) {
        let until = Instant::now() + pause.min(MAX_HOLD);
        let mut gate = self.gate();
        gate.held_until = gate.held_until.max(Some(until));
    }

    /// Leaves the provider alone for a moment.
    fn rest(&self, reason: &str) -> Failure {
        let reason = self.named(reason);
        self.gate().rests_until = Some((Instant::now() + REST, reason.clone()));
        Failure::Down(reason)
    }

    /// What went wrong, with whom; without the key, should the provider have repeated it.
    fn named(&self, reason: &str) -> String {
        let reason = format!("{} {reason}", self.endpoint.host());
        match &self.key {
            Some(key) => reason.replace(key.reveal(), "***"),
            None => reason,
        }
    }

    /// Sends a request once.
    fn exchange(&self, body: &str, count: usize, end: Instant) -> Result<Vec<u8>, Refusal> {
        let mut request = self.agent.post(self.endpoint.target()).content_type("application/json");
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {}", key.reveal()));
        }
        let left = end.saturating_duration_since(Instant::now());
        let request = request.config().timeout_global(Some(left)).build();
        let mut response = request.send(body).map_err(|error| refusal(&error))?;
        let status = response.status();
        if let Some(pause) = retry::rate_limit(response.headers()) {
            self.hold(pause);
        }
        if status != StatusCode::OK {
            let mut text = Vec::new();
            // Of a body that breaks off, what came is enough.
            let _ = response.body_mut().as_reader().take(ERROR_BYTES).read_to_end(&mut text);
            return Err(refused(status, response.headers(), &text));
        }
        let most = ANSWER_BYTES + count * self.manifest.dims * NUMBER_BYTES;
        let body = response.body_mut().with_config().limit(most as u64);
        body.read_to_vec().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(limit) => {
                Refusal::Final(Failure::Failed(format!("gave an answer of more than {limit} bytes")))
            }
            error => refusal(&error),
        })
    }
}

/// What an exchange that failed means.
fn refusal(error: &ureq::Error) -> Refusal {
    let reason = match error {
        ureq::Error::Timeout(_) => "does not answer in time".to_owned(),
        error => format!("cannot be asked: {error}"),
    };
    match error {
        ureq::Error::Timeout(_)
        | ureq::Error::Io(_)
        | ureq::Error::Protocol(_)
        | ureq::Error::ConnectionFailed
        | ureq::Error::HostNotFound => Refusal::Again(reason, None),
        _ => Refusal::Final(Failure::Down(reason)),
    }
}

/// What an answer with another status than 200 means.
fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let message = endpoint::message(body);
    let message: String = message.chars().filter(|c| !c.is_control()).take(ERROR_CHARS).collect();
    let reason = format!("answered {}: {message}", status.as_u16());
    match status.as_u16() {
        _ if retry::may_pass(status) => Refusal::Again(reason, retry::retry_after(headers)),
        300..400 => Refusal::Final(Failure::Down(format!("answered {status}, redirects are not followed"))),
        400 | 413 | 422 => Refusal::Final(Failure::Failed(reason)),
        _ => Refusal::Final(Failure::Down(reason)),
    }
}

impl Embedder for RemoteModel {
    fn embed(&self, texts: &[&str], role: &Role) -> Result<Embedded, Failure> {
        let dims = self.manifest.dims;
        let prefix = self.manifest.prefix(role)?;
        // Providers refuse empty texts; they have no vector.
        let (places, asked): (Vec<usize>, Vec<String>) = texts
            .iter()
            .enumerate()
            .filter(|(_, text)| !text.trim().is_empty())
            .map(|(place, text)| (place, format!("{prefix}{text}")))
            .unzip();
        let mut vectors = vec![vec![0.0; dims]; texts.len()];
        if asked.is_empty() {
            return Ok(Embedded { vectors, tokens: 0 });
        }
        let body = self.endpoint.request(&asked, role, dims);
        let answer = self.ask(&body, asked.len())?;
        let wrong = |reason: String| Failure::Failed(self.named(&reason));
        let found = self.endpoint.read(&answer, asked.len()).map_err(wrong)?;
        for (place, mut vector) in places.into_iter().zip(found.vectors) {
            if vector.len() != dims {
                let given = vector.len();
                return Err(wrong(format!("gave vectors of {given} dimensions, model.toml says {dims}")));
            }
            if self.manifest.normalise {
                super::normalise(&mut vector);
            }
            vectors[place] = vector;
        }
        Ok(Embedded { vectors, tokens: found.tokens })
    }

    fn tokenizer(&self) -> Option<&Tokenizer> {
        None
    }
}
