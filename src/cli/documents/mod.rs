//! Documents from outside: `vecdis watch` keeps a collection in step with a folder, `vecdis fetch` brings a page.

mod fetch;
mod folder;
mod watch;

pub(super) use fetch::SUBCOMMAND as FETCH;
pub(super) use folder::kind;
pub(super) use watch::SUBCOMMAND as WATCH;

use super::CliError;
use super::arguments::Arguments;
use super::client::{BytesFrame, Client, Command};
use super::remote::{Place, bulk};

/// Bytes a document may have: the server takes no more.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;
/// Documents a page of the server's list has about.
const LIST_COUNT: &str = "1000";
/// What the server says of texts that can never be documents. Other errors may pass.
const UNFIT: [&str; 5] = [
    "ERR the document has no text",
    "ERR the text has no word",
    "ERR a document can have",
    "ERR a document's",
    "ERR a text can have",
];

/// A document to be kept.
pub struct Document {
    /// Its URI.
    pub uri: String,
    /// What it is written in, as VDOC ADD names it.
    pub kind: &'static str,
    /// Its text.
    pub text: String,
    /// Its attributes, JSON.
    pub attributes: Option<Vec<u8>>,
}

/// What became of a document.
pub enum Kept {
    /// It is there, in that many chunks.
    Yes(i64),
    /// It cannot be a document, and is not there.
    Never(String),
    /// The server refused for now.
    NotNow(String),
}

/// How documents are split, as VDOC ADD takes it.
fn splitting(arguments: &Arguments) -> Vec<String> {
    let given = [("--chunk", "CHUNK"), ("--overlap", "OVERLAP")].into_iter();
    let given = given.filter_map(|(name, option)| Some([option, arguments.value(name)?]));
    given.flatten().map(str::to_owned).collect()
}

/// The documents of a collection on a server.
pub struct Documents {
    client: Client,
    key: String,
    /// Options of VDOC ADD.
    options: Vec<String>,
}

impl Documents {
    /// Connects.
    ///
    /// # Errors
    /// When the server does not answer, or is not Vecdis.
    pub fn open(place: &Place, key: &str, options: Vec<String>) -> Result<Self, CliError> {
        let mut client = place.connect()?;
        if !place.is_vecdis(&mut client)? {
            return Err(CliError::Data(format!("{} is not Vecdis: it knows no documents", place.name())));
        }
        Ok(Self { client, key: key.to_owned(), options })
    }

    fn command(&self, verb: &str) -> Command {
        Command::new(["VDOC", verb, &self.key])
    }

    /// The URIs of all documents.
    ///
    /// # Errors
    /// When the server does not answer as it should.
    pub fn list(&mut self) -> Result<Vec<String>, CliError> {
        let (mut found, mut cursor) = (Vec::new(), b"0".to_vec());
        loop {
            let list = self.command("LIST").arg(cursor).arg("COUNT").arg(LIST_COUNT);
            let answer = self.client.call(&list)?;
            let BytesFrame::Array(parts) = answer else { return Err(unexpected("LIST")) };
            let [next, BytesFrame::Array(uris)] = &parts[..] else { return Err(unexpected("LIST")) };
            // A URI that is no text is none of ours.
            found.extend(uris.iter().filter_map(bulk).filter_map(|uri| String::from_utf8(uri).ok()));
            cursor = bulk(next).unwrap_or_default();
            if cursor == b"0" || cursor.is_empty() {
                return Ok(found);
            }
        }
    }

    /// Adds documents or replaces them; those that cannot be documents are removed, should there be older ones.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn keep(&mut self, documents: &[Document]) -> Result<Vec<Kept>, CliError> {
        let add = |document: &Document| {
            let add = self.command("ADD").arg(document.uri.as_str()).arg(document.text.as_str());
            let mut add = add.arg("TYPE").arg(document.kind);
            if let Some(attributes) = &document.attributes {
                add = add.arg("ATTR").arg(attributes.clone());
            }
            self.options.iter().fold(add, |add, option| add.arg(option.as_str()))
        };
        let commands: Vec<Command> = documents.iter().map(add).collect();
        let answers = self.client.answers(&commands)?;
        let kept: Vec<Kept> = answers.into_iter().map(Kept::of).collect();
        let unfit = documents.iter().zip(&kept).filter(|(_, kept)| matches!(kept, Kept::Never(_)));
        let unfit: Vec<String> = unfit.map(|(document, _)| document.uri.clone()).collect();
        self.remove(&unfit)?;
        Ok(kept)
    }

    /// Removes documents. Gives how many there were.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn remove(&mut self, uris: &[String]) -> Result<u64, CliError> {
        let commands: Vec<Command> = uris.iter().map(|uri| self.command("DEL").arg(uri.as_str())).collect();
        let answers = self.client.pipeline(&commands)?;
        Ok(answers.iter().filter(|answer| **answer == BytesFrame::Integer(1)).count() as u64)
    }
}

impl Kept {
    fn of(answer: BytesFrame) -> Self {
        match answer {
            BytesFrame::Integer(chunks) => Self::Yes(chunks),
            BytesFrame::Error(text) if UNFIT.iter().any(|unfit| text.starts_with(unfit)) => {
                Self::Never(text.trim_start_matches("ERR ").to_owned())
            }
            BytesFrame::Error(text) => Self::NotNow(text.to_string()),
            _ => Self::NotNow("the server's answer is none to VDOC ADD".to_owned()),
        }
    }
}

fn unexpected(verb: &str) -> CliError {
    CliError::Answer {
        command: format!("VDOC {verb}"),
        answer: "something that is no answer to it".to_owned(),
    }
}
