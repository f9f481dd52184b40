//! Running the server: COMMAND, CONFIG, SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE, SHUTDOWN.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::parse::is_word;
use super::permissions::key_places;
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::table::{self, COMMANDS, CommandSpec};
use super::{CommandError, Context, READ_ONLY, Shutdown, Waiting};
use crate::config::ConfigOption;
use crate::store::StoreError;
use crate::{glob, logging};

const SYNTAX: CommandError = CommandError::text("ERR syntax error");

/// `COMMAND [COUNT | DOCS [command ...] | INFO [command ...]]`
pub(super) fn command(_: &mut Session, _: &Context, request: &Request) -> Result<Reply, CommandError> {
    let Some(verb) = request.get(1) else {
        return Ok(command_info(request));
    };
    if is_word(verb, "COUNT") {
        return Ok(Reply::Integer(i64::try_from(COMMANDS.len()).unwrap_or(i64::MAX)));
    }
    if is_word(verb, "INFO") {
        return Ok(command_info(request));
    }
    if is_word(verb, "DOCS") {
        let docs =
            |spec: &CommandSpec| (Reply::Bulk(Bytes::from(spec.error_name().into_owned())), spec.docs());
        return Ok(Reply::Map(match request.len() {
            2 => COMMANDS.iter().map(docs).collect(),
            _ => request.args().skip(2).filter_map(table::find).map(docs).collect(),
        }));
    }
    if is_word(verb, "LIST") {
        return command_list(request);
    }
    command_keys(request)
}

/// `COMMAND LIST [FILTERBY ACLCAT category | PATTERN pattern | MODULE name]`
fn command_list(request: &Request) -> Result<Reply, CommandError> {
    let name = |spec: &CommandSpec| Reply::Bulk(Bytes::from(spec.error_name().into_owned()));
    if request.len() == 2 {
        return Ok(Reply::Array(COMMANDS.iter().map(name).collect()));
    }
    if request.len() != 5 || !is_word(request.arg(2), "FILTERBY") {
        return Err(SYNTAX);
    }
    let (kind, value) = (request.arg(3), request.arg(4));
    let text = String::from_utf8_lossy(value).to_lowercase();
    let is_listed: Box<dyn Fn(&&CommandSpec) -> bool> = if is_word(kind, "ACLCAT") {
        Box::new(move |spec| spec.acl_categories().any(|category| category == text))
    } else if is_word(kind, "PATTERN") {
        Box::new(move |spec| glob::matches(text.as_bytes(), spec.name.as_bytes()))
    } else if is_word(kind, "MODULE") {
        Box::new(move |spec| text == "vectorset" && spec.flags.contains(&"module"))
    } else {
        return Err(SYNTAX);
    };
    Ok(Reply::Array(COMMANDS.iter().filter(|spec| is_listed(spec)).map(name).collect()))
}

/// `COMMAND GETKEYS command [arg ...]`
fn command_keys(request: &Request) -> Result<Reply, CommandError> {
    let spec = request.get(2).and_then(table::find);
    let spec = spec.ok_or(CommandError::text("ERR Invalid command specified"))?;
    let arguments = request.len() - 2;
    if !spec.takes(arguments) {
        return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
    }
    let places = key_places(spec, request, 2);
    let keys: Vec<Reply> = places.map(|place| Reply::bulk(request.arg(2 + place))).collect();
    if keys.is_empty() {
        return Err(CommandError::text("ERR The command has no key arguments"));
    }
    Ok(Reply::Array(keys))
}

fn command_info(request: &Request) -> Reply {
    Reply::Array(match request.len() {
        0..=2 => COMMANDS.iter().map(CommandSpec::info).collect(),
        _ => {
            let found = request.args().skip(2).map(table::find);
            found.map(|spec| spec.map_or(Reply::NullArray, CommandSpec::info)).collect()
        }
    })
}

/// `CONFIG GET pattern [pattern ...] | SET option value [option value ...] | REWRITE | RESETSTAT`
pub(super) fn config(_: &mut Session, context: &Context, request: &Request) -> Result<Reply, CommandError> {
    let verb = request.arg(1);
    if is_word(verb, "GET") {
        config_get(context, request)
    } else if is_word(verb, "SET") {
        config_set(context, request)
    } else if is_word(verb, "REWRITE") {
        config_rewrite(context)
    } else {
        context.metrics.reset();
        Ok(Reply::ok())
    }
}

fn config_rewrite(context: &Context) -> Result<Reply, CommandError> {
    let config = context.config();
    if config.file.is_none() {
        return Err(CommandError::text("ERR The server is running without a config file"));
    }
    config
        .rewrite()
        .map_err(|error| CommandError::Text(format!("ERR Rewriting config file: {error}").into()))?;
    Ok(Reply::ok())
}

fn config_get(context: &Context, request: &Request) -> Result<Reply, CommandError> {
    let config = context.config();
    let mut found: Vec<(&str, String)> = Vec::new();
    for pattern in request.args().skip(2) {
        for (name, value) in config.matching(pattern) {
            if !found.iter().any(|(known, _)| *known == name) {
                found.push((name, value));
            }
        }
    }
    let pairs =
        found.into_iter().map(|(name, value)| (Reply::bulk(name.as_bytes()), Reply::Bulk(value.into())));
    Ok(Reply::Map(pairs.collect()))
}

/// All of it or nothing.
fn config_set(context: &Context, request: &Request) -> Result<Reply, CommandError> {
    if !request.len().is_multiple_of(2) {
        return Err(CommandError::Arity("config|set".into()));
    }
    // Held to the end: of two at the same time, one follows the other.
    let mut config = context.config.write().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut changed = config.clone();
    for at in (2..request.len()).step_by(2) {
        let (name, value) = (request.arg(at), request.arg(at + 1));
        let name = String::from_utf8_lossy(name);
        let failed = |why: String| {
            CommandError::Text(
                format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}").into(),
            )
        };
        if ConfigOption::find(&name).is_err() {
            let text = format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'");
            return Err(CommandError::Text(text.into()));
        }
        let value = std::str::from_utf8(value).map_err(|_| failed("the value is not text".to_owned()))?;
        changed.set_at_run_time(&name, value).map_err(|error| failed(error.to_string()))?;
    }
    if (2..request.len()).step_by(2).any(|at| request.arg(at).to_ascii_lowercase().starts_with(b"tls-")) {
        // Also if nothing but the content of the files is new.
        let loaded = context.tls.load(&changed);
        loaded.map_err(|error| CommandError::Text(format!("ERR CONFIG SET failed - {error}").into()))?;
    }
    logging::set_level(changed.loglevel);
    context.metrics.configure(&changed);
    context.store.configure(&changed);
    context.embedding.configure(&changed);
    if changed.requirepass != config.requirepass {
        context.access.set_default_password(&changed.requirepass);
    }
    *config = changed;
    Ok(Reply::ok())
}

/// `LASTSAVE`
pub(super) fn lastsave(_: &mut Session, context: &Context, _: &Request) -> Result<Reply, CommandError> {
    let seconds = context.store.checkpoints().last_s.load(Ordering::Relaxed);
    Ok(Reply::Integer(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

const SAVING: &str = "ERR Background save already in progress";

type Done = oneshot::Receiver<Result<(), StoreError>>;

fn begin(context: &Context, busy: &'static str) -> Result<Done, CommandError> {
    context.store.begin_checkpoint().map_err(|error| match error {
        StoreError::Busy => CommandError::text(busy),
        StoreError::ReadOnly => READ_ONLY,
        other => CommandError::Text(format!("ERR {other}").into()),
    })
}

fn ready(reply: Reply) -> Waiting {
    Box::pin(std::future::ready(reply))
}

/// `SAVE`
pub(super) fn save(context: &Arc<Context>, _: &Request) -> Result<Waiting, CommandError> {
    let done = begin(context, SAVING)?;
    Ok(Box::pin(async move {
        match done.await {
            Ok(Ok(())) => Reply::ok(),
            Ok(Err(error)) => Reply::error(format!("ERR {error}")),
            Err(_) => Reply::error("ERR the server is shutting down"),
        }
    }))
}

/// `BGSAVE [SCHEDULE]`
pub(super) fn bgsave(context: &Arc<Context>, request: &Request) -> Result<Waiting, CommandError> {
    match request.get(1) {
        Some(word) if request.len() > 2 || !is_word(word, "SCHEDULE") => return Err(SYNTAX),
        _ => {}
    }
    begin(context, SAVING)?;
    Ok(ready(Reply::simple("Background saving started")))
}

/// `BGREWRITEAOF`
pub(super) fn bgrewriteaof(context: &Arc<Context>, _: &Request) -> Result<Waiting, CommandError> {
    begin(context, "ERR Background append only file rewriting already in progress")?;
    Ok(ready(Reply::simple("Background append only file rewriting started")))
}

/// `SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE]`: answers only if the server does not end.
pub(super) fn shutdown(context: &Arc<Context>, request: &Request) -> Result<Waiting, CommandError> {
    let (mut save, mut nosave) = (false, false);
    let mut wish = Shutdown { save: true, force: false };
    for word in request.args().skip(1) {
        if is_word(word, "SAVE") {
            save = true;
        } else if is_word(word, "NOSAVE") {
            nosave = true;
        } else if is_word(word, "FORCE") {
            wish.force = true;
        } else if !is_word(word, "NOW") {
            return Err(SYNTAX);
        }
    }
    if save && nosave {
        return Err(SYNTAX);
    }
    wish.save = !nosave;
    let wishes = context.shutdown.clone();
    Ok(Box::pin(async move {
        let (refuse, refused) = oneshot::channel();
        drop(wishes.send((wish, refuse)));
        match refused.await {
            Ok(why) => Reply::error(format!("ERR Errors trying to SHUTDOWN. {why}")),
            // The server ends: the connection is closed without an answer.
            Err(_) => std::future::pending().await,
        }
    }))
}
