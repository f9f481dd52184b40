//! Texts as arguments: which model embeds them, and VEMBED.
//!
//! A command that meets a text whose vector it does not have yet is refused with [`CommandError::Texts`]. The connection
//! has the texts of all its waiting commands embedded together, and runs the command again with the vectors.

use std::sync::Arc;

use super::parse::is_word;
use super::reply::Reply;
use super::request::Request;
use super::{Call, CommandError, Outcome, unexpected};
use crate::collection::{Collection, MAX_TEXT_BYTES};
use crate::embed::{EmbedError, Model, Role, Text, Vector};

/// Texts one VEMBED may bring.
const MAX_VEMBED_TEXTS: usize = 1024;

/// A text's vector, and the model that made it.
pub type Embedded = (Arc<Model>, Result<Vector, EmbedError>);

impl Call<'_> {
    /// The vectors of texts, and the model that made them.
    ///
    /// # Errors
    /// [`CommandError::Texts`] if they have not been embedded yet; or why one could not be.
    pub(super) fn embed(
        &self,
        texts: impl FnOnce() -> Result<Vec<Text>, CommandError>,
    ) -> Result<Vec<(Arc<Model>, Vector)>, CommandError> {
        let Some(embedded) = self.embedded else { return Err(CommandError::Texts(texts()?)) };
        let vector = |(model, vector): &Embedded| Ok((Arc::clone(model), vector.clone()?));
        embedded.iter().map(vector).collect()
    }

    /// A text to be embedded for the user.
    pub(super) fn text(&self, model: Arc<Model>, role: Role, text: Arc<str>) -> Text {
        Text { model, role, text, payer: Arc::clone(&self.scope.payer), realm: self.scope.namespace.0 }
    }

    /// The vector of the text in an argument, by the model of its collection or else the default one.
    pub(super) fn embed_argument(
        &self,
        index: usize,
        role: Role,
        collection: Option<&Collection>,
    ) -> Result<(Arc<Model>, Vector), CommandError> {
        let embedded = self.embed(|| {
            let text = text_argument(self.request.get(index).ok_or(MISSING_TEXT)?)?;
            Ok(vec![self.text(self.model_of(collection)?, role, text.into())])
        })?;
        // A command inside EXEC may find its collection made since: then its text was not embedded.
        embedded.into_iter().next().ok_or(CommandError::text("ERR the text was not embedded, try again"))
    }

    /// The model of a collection, or the default one.
    pub(super) fn model_of(&self, collection: Option<&Collection>) -> Result<Arc<Model>, CommandError> {
        let registry = &self.context.embedding.registry;
        let Some(bound) = collection.and_then(|collection| collection.model.as_ref()) else {
            return Ok(registry.embedder(&self.context.config().embedding_model)?);
        };
        let model = registry.get(&bound.name)?;
        if model.id != **bound {
            return Err(CommandError::Text(
                format!(
                    "ERR the collection was made with model '{}' {}, but the model of that name is now {}",
                    bound.name,
                    bound.short_hash(),
                    model.id.short_hash()
                )
                .into(),
            ));
        }
        Ok(model)
    }
}

/// Whether a command may have texts to embed.
pub(super) fn may_embed(command: &str, request: &Request) -> bool {
    let is_text = |at: usize| request.get(at).is_some_and(|word| is_word(word, "TEXT"));
    match command {
        "vembed" => true,
        "vdoc" => request.get(1).is_some_and(|word| is_word(word, "ADD") || is_word(word, "SECTIONS")),
        // REDUCE and its dimension may come first.
        "vadd" => is_text(2) || is_text(4),
        "vsim" => is_text(2),
        // RERANK embeds the text that is looked for.
        "vsearch" | "vmsearch" => request.args().any(|word| is_word(word, "TEXT") || is_word(word, "RERANK")),
        _ => false,
    }
}

const MISSING_TEXT: CommandError = CommandError::text("ERR syntax error, TEXT needs a text");

/// A text to embed, which must be UTF-8.
pub(super) fn text_argument(argument: &[u8]) -> Result<&str, CommandError> {
    check_size(argument)?;
    std::str::from_utf8(argument).map_err(|_| CommandError::text("ERR a text to embed must be UTF-8"))
}

/// Refuses a text that is too long to be kept.
pub(super) fn check_size(text: &[u8]) -> Result<(), CommandError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(CommandError::text("ERR a text can have 16777216 bytes at most"));
    }
    Ok(())
}

/// `VEMBED [MODEL name] [ROLE QUERY | DOCUMENT] [FP32] [--] text [text ...]`: a vector for each text.
pub(super) fn vembed(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let (mut name, mut role, mut blob) = (None, Role::Document, false);
    let mut next = 1;
    while let Some(word) = call.request.get(next) {
        let value = call.request.get(next + 1);
        if is_word(word, "MODEL") {
            name = Some(value.ok_or_else(|| unexpected(word))?);
            next += 2;
        } else if is_word(word, "ROLE") {
            role = match value.ok_or_else(|| unexpected(word))? {
                role if is_word(role, "QUERY") => Role::Query,
                role if is_word(role, "DOCUMENT") => Role::Document,
                other => return Err(unexpected(other)),
            };
            next += 2;
        } else if is_word(word, "FP32") {
            blob = true;
            next += 1;
        } else {
            next += usize::from(word == b"--");
            break;
        }
    }
    let count = call.request.len().saturating_sub(next);
    if count == 0 || count > MAX_VEMBED_TEXTS {
        return Err(CommandError::Arity("VEMBED".into()));
    }
    let embedded = call.embed(|| {
        let name = match name {
            Some(name) => String::from_utf8_lossy(name).into_owned(),
            None => call.context.config().embedding_model.clone(),
        };
        let model = call.context.embedding.registry.embedder(&name)?;
        let texts = (next..call.request.len()).map(|at| text_argument(call.request.arg(at)));
        texts.map(|text| Ok(call.text(Arc::clone(&model), role.clone(), text?.into()))).collect()
    })?;
    let reply = |vector: &[f32]| match blob {
        true => Reply::bulk(bytemuck::cast_slice(vector)),
        false => Reply::Array(vector.iter().map(|&value| Reply::Double(f64::from(value))).collect()),
    };
    Ok(Outcome::Reply(Reply::Array(embedded.iter().map(|(_, vector)| reply(vector)).collect())))
}
