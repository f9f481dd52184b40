//! Running the server: COMMAND, CONFIG, SAVE, BGSAVE, BGREWRITEAOF, LASTSAVE, SHUTDOWN.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::parse::is_word;
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::table::{self, COMMANDS, CommandSpec};
use super::{CommandError, Context, Shutdown, Waiting};
use crate::store::StoreError;

const SYNTAX: CommandError = CommandError::text("ERR syntax error");

/// `COMMAND [COUNT | DOCS [command ...] | INFO [command ...]]`
pub(super) fn command(_: &mut Session, _: &Context, request: &Request) -> Result<Reply, CommandError> {
    let Some(verb) = request.get(1) else {
        return Ok(command_info(request));
    };
    if is_word(verb, "COUNT") {
        return match request.len() {
            2 => Ok(Reply::Integer(i64::try_from(COMMANDS.len()).unwrap_or(i64::MAX))),
            _ => Err(CommandError::Arity("command|count".into())),
        };
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
    let verb = String::from_utf8_lossy(verb).into_owned();
    Err(CommandError::Text(format!("ERR unknown subcommand '{verb}'. Try COMMAND HELP.").into()))
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

/// `CONFIG GET pattern [pattern ...]`
pub(super) fn config(_: &mut Session, context: &Context, request: &Request) -> Result<Reply, CommandError> {
    let verb = request.arg(1);
    if !is_word(verb, "GET") {
        let verb = String::from_utf8_lossy(verb).into_owned();
        return Err(CommandError::Text(format!("ERR unknown subcommand '{verb}'. Try CONFIG HELP.").into()));
    }
    if request.len() < 3 {
        return Err(CommandError::Arity("config|get".into()));
    }
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

/// `LASTSAVE`
pub(super) fn lastsave(_: &mut Session, context: &Context, _: &Request) -> Result<Reply, CommandError> {
    let seconds = context.store.checkpoints().last_s.load(Ordering::Relaxed);
    Ok(Reply::Integer(i64::try_from(seconds).unwrap_or(i64::MAX)))
}

type Done = oneshot::Receiver<Result<(), StoreError>>;

fn begin(context: &Context) -> Result<Done, CommandError> {
    context.store.begin_checkpoint().map_err(|error| match error {
        StoreError::Busy => CommandError::text("ERR Background save already in progress"),
        other => CommandError::Text(format!("ERR {other}").into()),
    })
}

fn ready(reply: Reply) -> Waiting {
    Box::pin(std::future::ready(reply))
}

/// `SAVE`
pub(super) fn save(context: &Arc<Context>, _: &Request) -> Result<Waiting, CommandError> {
    let done = begin(context)?;
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
    begin(context)?;
    Ok(ready(Reply::simple("Background saving started")))
}

/// `BGREWRITEAOF`
pub(super) fn bgrewriteaof(context: &Arc<Context>, _: &Request) -> Result<Waiting, CommandError> {
    begin(context)
        .map_err(|_| CommandError::text("ERR Background append only file rewriting already in progress"))?;
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
