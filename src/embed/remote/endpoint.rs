//! Providers: where they are asked, what a request says, and how an answer reads.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use ureq::http::Uri;

use crate::embed::Role;

/// Bytes a file with a key may have.
const MAX_KEY_BYTES: u64 = 4 << 10;
/// Longest deadline.
const MAX_DEADLINE_S: u64 = 600;
/// Most texts of one request that can be asked for.
const MAX_BATCH_TEXTS: usize = 2048;

/// Whose format requests and answers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Provider {
    /// OpenAI, and the many servers that speak its format.
    Openai,
    /// Cohere, version 2 of its API.
    Cohere,
    /// Hugging Face's text-embeddings-inference server.
    Tei,
    /// Hugging Face's hosted inference.
    HuggingFace,
}

/// The `[remote]` table of a `model.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Whose format requests and answers have.
    pub provider: Provider,
    /// Where it is asked; "" is the provider's own address. TEI has none.
    #[serde(default)]
    pub url: String,
    /// Which of the provider's models. A TEI server has one.
    #[serde(default)]
    pub model: String,
    /// The variable of the environment that holds the key.
    #[serde(default)]
    pub key_env: String,
    /// The file that holds the key.
    #[serde(default)]
    pub key_file: PathBuf,
    /// Seconds after which a request has failed, tries and waits counted.
    #[serde(default = "default_deadline_s")]
    pub deadline_s: u64,
    /// Most texts of one request; 0 is what the provider takes.
    #[serde(default)]
    pub batch_texts: usize,
    /// Whether the provider is asked for vectors of `dims` dimensions.
    #[serde(default)]
    pub request_dims: bool,
}

fn default_deadline_s() -> u64 {
    30
}

/// A provider's key; it has no way to be printed by accident.
pub struct Key(String);

impl Key {
    /// The key itself, for the request.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

/// What an answer holds.
#[derive(Debug)]
pub struct Answer {
    /// A vector for each text, in order.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens the provider counted; 0 if it does not say.
    pub tokens: usize,
}

impl Endpoint {
    /// Checks what can be checked without asking.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        let uri: Uri = self.address().parse().map_err(|_| "the url does not read".to_owned())?;
        let scheme = uri.scheme_str().unwrap_or_default();
        if !matches!(scheme, "http" | "https") || uri.host().is_none() {
            return Err("the url must begin with http:// or https:// and a host".to_owned());
        }
        // The address is shown; the key is not.
        if uri.authority().is_some_and(|host| host.as_str().contains('@')) || uri.query().is_some() {
            return Err("the url must have no password and no query".to_owned());
        }
        if self.model.is_empty() && self.provider != Provider::Tei {
            return Err("the provider's model is not named".to_owned());
        }
        if !self.key_env.is_empty() && !self.key_file.as_os_str().is_empty() {
            return Err("key_env and key_file exclude each other".to_owned());
        }
        if !(1..=MAX_DEADLINE_S).contains(&self.deadline_s) || self.batch_texts > MAX_BATCH_TEXTS {
            return Err(format!(
                "deadline_s goes from 1 to {MAX_DEADLINE_S}, batch_texts to {MAX_BATCH_TEXTS}"
            ));
        }
        Ok(())
    }

    /// What its vectors depend on. The address is not among it: a model may move.
    pub fn identity(&self) -> [&str; 2] {
        [&self.model, if self.request_dims { "dims" } else { "" }]
    }

    /// Most texts of one request.
    pub fn batch_texts(&self) -> usize {
        let own = match self.provider {
            Provider::Openai => 256,
            Provider::Cohere => 96,
            Provider::Tei | Provider::HuggingFace => 32,
        };
        if self.batch_texts == 0 { own } else { self.batch_texts }
    }

    /// The key, if one is named.
    ///
    /// # Errors
    /// When it cannot be read or cannot be one.
    pub fn key(&self) -> Result<Option<Key>, String> {
        let text = if !self.key_env.is_empty() {
            std::env::var(&self.key_env).map_err(|_| {
                format!("its key is missing: set {} in the server's environment", self.key_env)
            })?
        } else if !self.key_file.as_os_str().is_empty() {
            let unreadable = |error: &dyn std::fmt::Display| {
                format!("its key cannot be read from {}: {error}", self.key_file.display())
            };
            let length = std::fs::metadata(&self.key_file).map_err(|error| unreadable(&error))?.len();
            if length > MAX_KEY_BYTES {
                return Err(unreadable(&"the file is too long"));
            }
            std::fs::read_to_string(&self.key_file).map_err(|error| unreadable(&error))?
        } else {
            return Ok(None);
        };
        let key = text.trim();
        match !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Some(Key(key.to_owned()))),
            false => Err("its key is empty or has characters that no key has".to_owned()),
        }
    }

    /// The base address, without a slash at its end.
    fn address(&self) -> &str {
        let own = match self.provider {
            Provider::Openai => "https://api.openai.com/v1",
            Provider::Cohere => "https://api.cohere.com",
            Provider::Tei => "",
            Provider::HuggingFace => "https://router.huggingface.co/hf-inference",
        };
        if self.url.is_empty() { own } else { self.url.trim_end_matches('/') }
    }

    /// Whom requests go to, for messages.
    pub fn host(&self) -> String {
        let uri = self.address().parse::<Uri>().ok();
        uri.and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default()
    }

    /// Where requests go.
    pub fn target(&self) -> String {
        let address = self.address();
        match self.provider {
            Provider::Openai => format!("{address}/embeddings"),
            Provider::Cohere => format!("{address}/v2/embed"),
            Provider::Tei => format!("{address}/embed"),
            Provider::HuggingFace => format!("{address}/models/{}/pipeline/feature-extraction", self.model),
        }
    }

    /// What a request says.
    pub fn request(&self, texts: &[String], role: &Role, dims: usize) -> String {
        let mut body = match self.provider {
            Provider::Openai => json!({"model": self.model, "input": texts, "encoding_format": "float"}),
            Provider::Cohere => json!({
                "model": self.model, "texts": texts, "embedding_types": ["float"], "truncate": "END",
                "input_type": if *role == Role::Query { "search_query" } else { "search_document" },
            }),
            Provider::Tei => json!({"inputs": texts, "truncate": true}),
            Provider::HuggingFace => json!({"inputs": texts}),
        };
        let name = match self.provider {
            Provider::Openai => Some("dimensions"),
            Provider::Cohere => Some("output_dimension"),
            Provider::Tei | Provider::HuggingFace => None,
        };
        if let Some(name) = name.filter(|_| self.request_dims) {
            body[name] = dims.into();
        }
        body.to_string()
    }

    /// Reads the answer to a request for `count` texts.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn read(&self, body: &[u8], count: usize) -> Result<Answer, String> {
        let unreadable = |error: serde_json::Error| format!("gave an answer that does not read: {error}");
        let answer = match self.provider {
            Provider::Openai => serde_json::from_slice::<OpenaiAnswer>(body).map_err(unreadable)?.read()?,
            Provider::Cohere => {
                let answer: CohereAnswer = serde_json::from_slice(body).map_err(unreadable)?;
                Answer { vectors: answer.embeddings.float, tokens: answer.meta.billed_units.input_tokens }
            }
            Provider::Tei | Provider::HuggingFace => {
                Answer { vectors: serde_json::from_slice(body).map_err(unreadable)?, tokens: 0 }
            }
        };
        match answer.vectors.len() {
            given if given == count => Ok(answer),
            given => Err(format!("gave {given} vectors for {count} texts")),
        }
    }
}

/// The message in the body of an error.
pub fn message(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let found = ["/error/message", "/error", "/message", "/detail"]
        .iter()
        .find_map(|path| value.pointer(path).and_then(Value::as_str));
    found.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned)
}

#[derive(Deserialize)]
struct OpenaiAnswer {
    data: Vec<OpenaiItem>,
    #[serde(default)]
    usage: OpenaiUsage,
}

#[derive(Deserialize)]
struct OpenaiItem {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Default, Deserialize)]
struct OpenaiUsage {
    #[serde(default)]
    total_tokens: usize,
}

impl OpenaiAnswer {
    /// Its vectors in the order of their indices, which must be each of 0, 1, 2 and so on.
    fn read(mut self) -> Result<Answer, String> {
        self.data.sort_by_key(|item| item.index);
        if self.data.iter().enumerate().any(|(place, item)| item.index != place) {
            return Err("gave vectors whose indices are not those of the texts".to_owned());
        }
        let vectors = self.data.into_iter().map(|item| item.embedding).collect();
        Ok(Answer { vectors, tokens: self.usage.total_tokens })
    }
}

#[derive(Deserialize)]
struct CohereAnswer {
    embeddings: CohereVectors,
    #[serde(default)]
    meta: CohereMeta,
}

#[derive(Deserialize)]
struct CohereVectors {
    float: Vec<Vec<f32>>,
}

#[derive(Default, Deserialize)]
struct CohereMeta {
    #[serde(default)]
    billed_units: CohereUnits,
}

#[derive(Default, Deserialize)]
struct CohereUnits {
    #[serde(default)]
    input_tokens: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn each_provider_is_asked_in_its_own_format() {
        let texts = ["a".to_owned(), "b".to_owned()];
        let openai = endpoint("provider = 'openai'\nmodel = 'm'\nrequest_dims = true");
        assert_eq!(openai.target(), "https://api.openai.com/v1/embeddings");
        let body: Value = serde_json::from_str(&openai.request(&texts, &Role::Query, 8)).unwrap();
        let wanted = json!({"model": "m", "input": ["a", "b"], "encoding_format": "float", "dimensions": 8});
        assert_eq!(body, wanted);
        let cohere = endpoint("provider = 'cohere'\nmodel = 'm'");
        assert_eq!(cohere.target(), "https://api.cohere.com/v2/embed");
        for (role, name) in [(&Role::Query, "search_query"), (&Role::Document, "search_document")] {
            let body: Value = serde_json::from_str(&cohere.request(&texts, role, 8)).unwrap();
            assert_eq!(body["input_type"], name);
            assert!(body.get("output_dimension").is_none());
        }
        let tei = endpoint("provider = 'tei'\nurl = 'http://localhost:8080/'");
        assert_eq!(
            (tei.target().as_str(), tei.host().as_str()),
            ("http://localhost:8080/embed", "localhost:8080")
        );
        let hosted = endpoint("provider = 'hugging-face'\nmodel = 'org/name'");
        assert!(hosted.target().ends_with("/models/org/name/pipeline/feature-extraction"));
        assert_eq!((openai.batch_texts(), cohere.batch_texts(), tei.batch_texts()), (256, 96, 32));
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_sent() {
        for (text, named) in [
            ("provider = 'openai'\nmodel = 'm'\nurl = 'ftp://x'", "http"),
            ("provider = 'openai'\nmodel = 'm'\nurl = 'https://user:secret@x'", "password"),
            ("provider = 'openai'\nmodel = 'm'\nurl = 'https://x/?key=secret'", "query"),
            ("provider = 'openai'", "model"),
            ("provider = 'tei'", "url"),
            ("provider = 'cohere'\nmodel = 'm'\nkey_env = 'A'\nkey_file = 'b'", "exclude"),
            ("provider = 'cohere'\nmodel = 'm'\ndeadline_s = 0", "deadline_s"),
        ] {
            let error = endpoint(text).check().unwrap_err();
            assert!(error.contains(named) && !error.contains("secret"), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_comes_from_a_file_or_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let from_file = |content: &str| {
            std::fs::write(&path, content).unwrap();
            let key = endpoint(&format!("provider = 'openai'\nkey_file = {path:?}")).key();
            key.map(|key| key.unwrap().reveal().to_owned())
        };
        assert_eq!(from_file("sk-123\n").unwrap(), "sk-123");
        assert!(from_file("").is_err() && from_file("two words").is_err());
        assert!(from_file(&"x".repeat(5000)).unwrap_err().contains("too long"));
        assert!(endpoint("provider = 'openai'").key().unwrap().is_none());
        let missing = endpoint("provider = 'openai'\nkey_env = 'VECDIS_NO_SUCH_KEY'").key().err().unwrap();
        assert!(missing.contains("VECDIS_NO_SUCH_KEY"));
    }

    #[test]
    fn answers_are_read_in_the_order_of_their_indices() {
        let openai = endpoint("provider = 'openai'\nmodel = 'm'");
        let item = |index: usize| json!({"index": index, "embedding": [index]});
        let answer = json!({"data": [item(1), item(0)], "usage": {"total_tokens": 7}}).to_string();
        let read = openai.read(answer.as_bytes(), 2).unwrap();
        assert_eq!((read.vectors, read.tokens), (vec![vec![0.0], vec![1.0]], 7));
        let twice = json!({"data": [item(0), item(0)]}).to_string();
        assert!(openai.read(twice.as_bytes(), 2).unwrap_err().contains("indices"));
        assert!(openai.read(answer.as_bytes(), 3).unwrap_err().contains("2 vectors for 3"));
        assert!(openai.read(b"{", 1).unwrap_err().contains("does not read"));
        let cohere = endpoint("provider = 'cohere'\nmodel = 'm'");
        let answer = json!({"embeddings": {"float": [[1.0]]}, "meta": {"billed_units": {"input_tokens": 3}}});
        assert_eq!(cohere.read(answer.to_string().as_bytes(), 1).unwrap().tokens, 3);
    }

    #[test]
    fn the_message_of_an_error_is_found() {
        assert_eq!(message(br#"{"error": {"message": "no credit"}}"#), "no credit");
        assert_eq!(message(br#"{"error": "too long", "error_type": "x"}"#), "too long");
        assert_eq!(message(b"plain"), "plain");
    }
}
