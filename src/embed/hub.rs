//! The Hugging Face hub: the files of a model at one revision, each checked by its hash.
//!
//! What the hub says of a file (sha256 of large ones, git's sha1 of others) is what the file must be; for the models in
//! [`KNOWN`] the revision and the hashes stand here. A download that breaks off goes on where it was, also when it is asked
//! for again later.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ring::digest;
use serde::Deserialize;
use ureq::http::StatusCode;

use super::manifest::{Kind, MANIFEST, Manifest, Pooling};
use super::retry;
use crate::hex;

/// Where the hub is.
pub const HUB: &str = "https://huggingface.co";
/// Longest wait for a connection, and for the next bytes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Redirects that are followed: large files lie elsewhere.
const MAX_REDIRECTS: u32 = 5;
/// Bytes of what the hub says of a repository.
const MAX_LISTING_BYTES: u64 = 16 << 20;
/// Bytes all files of a model may have.
const MAX_MODEL_BYTES: u64 = 16 << 30;
/// Bytes read at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// A model whose place and hashes are known.
pub struct Known {
    /// Its name here.
    pub name: &'static str,
    repo: &'static str,
    revision: &'static str,
    kind: Kind,
    dims: usize,
    max_tokens: usize,
    pooling: Pooling,
    query_prefix: &'static str,
    licence: &'static str,
    /// Paths in the repository and their sha256, the graph first.
    files: &'static [(&'static str, &'static str)],
}

/// The model that is called MiniLM for short, as it was trained.
const MINILM: Known = Known {
    name: "minilm",
    repo: "sentence-transformers/all-MiniLM-L6-v2",
    revision: "1110a243fdf4706b3f48f1d95db1a4f5529b4d41",
    kind: Kind::Onnx,
    dims: 384,
    max_tokens: 256,
    pooling: Pooling::Mean,
    query_prefix: "",
    licence: "Apache-2.0",
    files: &[
        ("onnx/model.onnx", "6fd5d72fe4589f189f8ebc006442dbb529bb7ce38f8082112682524616046452"),
        ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    ],
};

/// The models that can be pulled by name.
pub static KNOWN: &[Known] = &[
    MINILM,
    Known {
        name: "minilm-int8",
        files: &[
            (
                "onnx/model_qint8_avx512_vnni.onnx",
                "4278337fd0ff3c68bfb6291042cad8ab363e1d9fbc43dcb499fe91c871902474",
            ),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        ],
        ..MINILM
    },
    Known {
        name: "bge-small-en",
        repo: "BAAI/bge-small-en-v1.5",
        revision: "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
        kind: Kind::Onnx,
        dims: 384,
        max_tokens: 512,
        pooling: Pooling::Cls,
        query_prefix: "Represent this sentence for searching relevant passages: ",
        licence: "MIT",
        files: &[
            ("onnx/model.onnx", "828e1496d7fabb79cfa4dcd84fa38625c0d3d21da474a00f08db0f559940cf35"),
            ("tokenizer.json", "d241a60d5e8f04cc1b2b3e9ef7a4921b27bf526d9f6050ab90f9267a1f9e5c66"),
        ],
    },
    Known {
        name: "ms-marco-minilm",
        repo: "cross-encoder/ms-marco-MiniLM-L6-v2",
        revision: "c5ee24cb16019beea0893ab7796b1df96625c6b8",
        kind: Kind::CrossEncoder,
        dims: 1,
        max_tokens: 512,
        pooling: Pooling::InGraph,
        query_prefix: "",
        licence: "Apache-2.0",
        files: &[
            ("onnx/model.onnx", "5d3e70fd0c9ff14b9b5169a51e957b7a9c74897afd0a35ce4bd318150c1d4d4a"),
            ("tokenizer.json", ""),
        ],
    },
];

/// Files of a repository that is not in [`KNOWN`]: those before the last slash must be there, the graph in one of its places.
const GRAPHS: [&str; 2] = ["onnx/model.onnx", "model.onnx"];
const NEEDED: [&str; 2] = ["tokenizer.json", "config.json"];
const OPTIONAL: [&str; 2] = ["sentence_bert_config.json", "1_Pooling/config.json"];

/// A hash a file must have.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hash {
    Sha256(String),
    /// Git's name for the content: sha1 of a header and the content.
    Git(String),
}

/// A file to fetch.
#[derive(Debug)]
struct Wanted {
    path: String,
    size_bytes: u64,
    hash: Hash,
}

/// The files of a model, ready to be fetched.
pub struct Plan {
    /// The name that suits it.
    pub name: String,
    /// Where it is and at which revision, for people.
    pub origin: String,
    /// Bytes of all files.
    pub total_bytes: u64,
    base: String,
    manifest: Option<Manifest>,
    files: Vec<Wanted>,
    agent: ureq::Agent,
}

#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    blob_id: String,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

/// Asks the hub (at the address `hub`) what a model's files are. `model` is a name in [`KNOWN`], or `OWNER/REPO` with
/// `@REVISION` behind it or not.
///
/// # Errors
/// What is unknown, missing, or not as it should be, in words.
pub fn plan(hub: &str, model: &str) -> Result<Plan, String> {
    let known = KNOWN.iter().find(|known| known.name == model);
    let (repo, revision) = match known {
        Some(known) => (known.repo, known.revision),
        None => model.split_once('@').unwrap_or((model, "main")),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let (owner, project) = repo.split_once('/').unwrap_or_default();
    let is_name = |part: &&str| !matches!(*part, "" | "." | "..") && part.chars().all(plain);
    if ![owner, project, revision].iter().all(is_name) {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        return Err(format!(
            "'{model}' is not known: give one of {}, or OWNER/REPO[@REVISION] of the hub",
            names.join(", ")
        ));
    }
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(MAX_REDIRECTS)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_read(Some(READ_TIMEOUT))
        .user_agent(concat!("vecdis/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let hub = hub.trim_end_matches('/');
    let listing = list(&agent, hub, repo, revision)?;
    if is_commit(revision) && listing.sha != revision {
        return Err(format!("the hub gave revision {} of {repo}, not {revision}", listing.sha));
    }
    let files = wanted(&listing, known).map_err(|what| format!("{repo} at {revision}: {what}"))?;
    let total_bytes = files.iter().map(|file| file.size_bytes).sum();
    if total_bytes > MAX_MODEL_BYTES {
        return Err(format!("{repo} has {total_bytes} bytes, more than {MAX_MODEL_BYTES}"));
    }
    Ok(Plan {
        name: known.map_or(project, |known| known.name).to_owned(),
        origin: format!("{repo} at {}", listing.sha),
        total_bytes,
        base: format!("{hub}/{repo}/resolve/{}", listing.sha),
        manifest: known.map(Known::manifest),
        files,
        agent,
    })
}

/// What the hub says of a repository.
fn list(agent: &ureq::Agent, hub: &str, repo: &str, revision: &str) -> Result<Listing, String> {
    let failed = |error: &dyn std::fmt::Display| format!("the hub does not list {repo}: {error}");
    let url = format!("{hub}/api/models/{repo}/revision/{revision}?blobs=true");
    let mut tries = 0;
    loop {
        tries += 1;
        let response = agent.get(&url).call();
        match response {
            Ok(mut response) if response.status() == StatusCode::OK => {
                let body = response.body_mut().with_config().limit(MAX_LISTING_BYTES).read_to_vec();
                let body = body.map_err(|error| failed(&error))?;
                let listing: Listing = serde_json::from_slice(&body).map_err(|error| failed(&error))?;
                return if is_commit(&listing.sha) {
                    Ok(listing)
                } else {
                    Err(failed(&"it names no revision"))
                };
            }
            Ok(response) if tries == retry::MAX_TRIES || !retry::may_pass(response.status()) => {
                return Err(failed(&response.status()));
            }
            Err(error) if tries == retry::MAX_TRIES => return Err(failed(&error)),
            _ => std::thread::sleep(retry::backoff(tries)),
        }
    }
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.chars().all(|c| c.is_ascii_hexdigit())
}

/// Which files of a repository make the model.
fn wanted(listing: &Listing, known: Option<&Known>) -> Result<Vec<Wanted>, String> {
    let find = |path: &str| listing.siblings.iter().find(|file| file.rfilename == path);
    let has = |path: &&str| find(path).is_some();
    let mut paths: Vec<(String, &str)> = Vec::new();
    match known {
        Some(known) => paths.extend(known.files.iter().map(|(path, sha256)| ((*path).to_owned(), *sha256))),
        None => {
            let graph = GRAPHS.into_iter().find(has).ok_or("there is no onnx/model.onnx")?;
            let weights = [format!("{graph}_data"), format!("{graph}.data")];
            let optional = OPTIONAL.into_iter().map(str::to_owned).chain(weights);
            paths.push((graph.to_owned(), ""));
            paths.extend(NEEDED.into_iter().map(|path| (path.to_owned(), "")));
            paths.extend(optional.filter(|path| has(&path.as_str())).map(|path| (path, "")));
        }
    }
    let wanted = |(path, pinned): (String, &str)| {
        let file = find(&path).ok_or_else(|| format!("there is no {path}"))?;
        let hash = match (&file.lfs, pinned) {
            (_, pinned) if !pinned.is_empty() => Hash::Sha256(pinned.to_owned()),
            (Some(lfs), _) => Hash::Sha256(lfs.sha256.to_ascii_lowercase()),
            (None, _) if !file.blob_id.is_empty() => Hash::Git(file.blob_id.to_ascii_lowercase()),
            _ => return Err(format!("the hub gives no hash of {path}")),
        };
        Ok(Wanted { path, size_bytes: file.size, hash })
    };
    paths.into_iter().map(wanted).collect()
}

impl Known {
    fn manifest(&self) -> Manifest {
        Manifest {
            kind: self.kind,
            dims: self.dims,
            max_tokens: self.max_tokens,
            pooling: self.pooling,
            normalise: self.kind == Kind::Onnx,
            query_prefix: self.query_prefix.to_owned(),
            document_prefix: String::new(),
            licence: self.licence.to_owned(),
            remote: None,
            files: Vec::new(),
        }
    }
}

impl Plan {
    /// Fetches the files into a folder, beside what an earlier attempt left there, and checks them. `progress` is told how
    /// many bytes are there.
    ///
    /// # Errors
    /// What failed; what has been fetched stays for the next attempt, unless it is wrong.
    pub fn fetch(&self, folder: &Path, progress: &dyn Fn(u64)) -> Result<(), String> {
        let mut done_bytes = 0;
        for file in &self.files {
            let path = folder.join(&file.path);
            let failed = |error: std::io::Error| format!("{}: {error}", path.display());
            fs::create_dir_all(path.parent().unwrap_or(folder)).map_err(failed)?;
            if !path.is_file() || !file.hash.matches(&path).map_err(failed)? {
                let part = PathBuf::from(format!("{}.part", path.display()));
                self.download(file, &part, &|bytes| progress(done_bytes + bytes))?;
                if !file.hash.matches(&part).map_err(failed)? {
                    fs::remove_file(&part).map_err(failed)?;
                    return Err(format!("{} is not the file it should be: its hash is another", file.path));
                }
                fs::rename(&part, &path).map_err(failed)?;
            }
            done_bytes += file.size_bytes;
            progress(done_bytes);
        }
        match &self.manifest {
            Some(manifest) => fs::write(folder.join(MANIFEST), manifest.to_text()?)
                .map_err(|error| format!("{MANIFEST} cannot be written: {error}")),
            None => Ok(()),
        }
    }

    /// Fetches what is missing of a file, in several attempts if need be.
    fn download(&self, file: &Wanted, part: &Path, progress: &dyn Fn(u64)) -> Result<(), String> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.attempt(file, part, progress) {
                Ok(()) => return Ok(()),
                Err((reason, may_pass)) if tries == retry::MAX_TRIES || !may_pass => {
                    return Err(format!("{}: {reason}; what has come stays for the next attempt", file.path));
                }
                Err(_) => std::thread::sleep(retry::backoff(tries)),
            }
        }
    }

    /// Asks once for the bytes that are missing. The error says whether another attempt may help.
    fn attempt(&self, file: &Wanted, part: &Path, progress: &dyn Fn(u64)) -> Result<(), (String, bool)> {
        let passing = |error: &dyn std::fmt::Display| (error.to_string(), true);
        let lasting = |error: &dyn std::fmt::Display| (error.to_string(), false);
        let have = fs::metadata(part).map_or(0, |part| part.len());
        if have > 0 && have == file.size_bytes {
            return Ok(());
        }
        let mut request = self.agent.get(format!("{}/{}", self.base, file.path));
        if have > 0 {
            request = request.header("range", format!("bytes={have}-"));
        }
        let mut response = request.call().map_err(|error| passing(&error))?;
        let goes_on = match response.status() {
            StatusCode::OK => false,
            StatusCode::PARTIAL_CONTENT => true,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                fs::remove_file(part).map_err(|error| lasting(&error))?;
                return Err(passing(&"what an earlier attempt left does not fit"));
            }
            status if retry::may_pass(status) => return Err(passing(&status)),
            status => return Err(lasting(&status)),
        };
        let open = File::options().create(true).write(true).append(goes_on).truncate(!goes_on).open(part);
        let mut out = open.map_err(|error| lasting(&error))?;
        let mut length = if goes_on { have } else { 0 };
        let mut block = vec![0; BLOCK_BYTES];
        let mut body = response.body_mut().with_config().limit(u64::MAX).reader();
        loop {
            let read = body.read(&mut block).map_err(|error| passing(&error))?;
            if read == 0 {
                break;
            }
            length += read as u64;
            if file.size_bytes > 0 && length > file.size_bytes {
                drop(out);
                fs::remove_file(part).map_err(|error| lasting(&error))?;
                return Err(lasting(&"more bytes came than it has"));
            }
            out.write_all(&block[..read]).map_err(|error| lasting(&error))?;
            progress(length);
        }
        match file.size_bytes == 0 || length == file.size_bytes {
            true => out.sync_all().map_err(|error| lasting(&error)),
            false => Err(passing(&"the connection ended early")),
        }
    }
}

impl Hash {
    fn matches(&self, path: &Path) -> std::io::Result<bool> {
        let (algorithm, wanted) = match self {
            Self::Sha256(wanted) => (&digest::SHA256, wanted),
            Self::Git(wanted) => (&digest::SHA1_FOR_LEGACY_USE_ONLY, wanted),
        };
        let mut file = File::open(path)?;
        let mut context = digest::Context::new(algorithm);
        if let Self::Git(_) = self {
            context.update(format!("blob {}\0", file.metadata()?.len()).as_bytes());
        }
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                break;
            }
            context.update(&block[..read]);
        }
        let found = hex::encode(context.finish().as_ref());
        Ok(found == *wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_sha256sum_and_git() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, b"hello\n").unwrap();
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert!(Hash::Sha256(sha256.to_owned()).matches(&path).unwrap());
        // What `git hash-object` says.
        assert!(Hash::Git("ce013625030ba8dba906f756967f9e9ca394464a".to_owned()).matches(&path).unwrap());
        assert!(!Hash::Git(sha256.to_owned()).matches(&path).unwrap());
    }

    #[test]
    fn known_models_are_pinned() {
        for known in KNOWN {
            assert!(is_commit(known.revision), "{}", known.name);
            assert!(known.files[0].0.ends_with(".onnx") && known.files[0].1.len() == 64, "{}", known.name);
            assert!(known.files.iter().any(|(path, _)| *path == "tokenizer.json"));
        }
    }

    #[test]
    fn names_cannot_lead_elsewhere() {
        for name in ["nosuch", "../x", "a/../b", "a/b@../c", "a/b?x", "a/b/c", "/", "a/", "a/b@"] {
            let error = plan("http://127.0.0.1:1", name).err().unwrap();
            assert!(error.contains("is not known"), "{name}: {error}");
        }
    }
}
