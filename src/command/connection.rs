//! The connection itself: PING, ECHO, QUIT, HELLO, AUTH, SELECT, RESET.

use super::client::checked_name;
use super::parse::{integer, is_word};
use super::permissions::note_refusal;
use super::reply::{Protocol, Reply};
use super::request::Request;
use super::session::Session;
use super::{CommandError, Context, LOADING};
use crate::access::log::{Reason, shown};
use crate::access::{DEFAULT_USER, api_key};
use crate::clock;

/// The version of Redis whose behaviour clients may expect.
pub const REDIS_VERSION: &str = "8.2.0";

const WRONG_PASSWORD: CommandError =
    CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");

/// `PING [message]`
pub(super) fn ping(_: &mut Session, _: &Context, request: &Request) -> Result<Reply, CommandError> {
    match request.len() {
        1 => Ok(Reply::simple("PONG")),
        2 => Ok(Reply::Bulk(request.bytes(1))),
        _ => Err(CommandError::Arity("ping".into())),
    }
}

/// `ECHO message`
pub(super) fn echo(_: &mut Session, _: &Context, request: &Request) -> Result<Reply, CommandError> {
    Ok(Reply::Bulk(request.bytes(1)))
}

/// `QUIT`
pub(super) fn quit(session: &mut Session, _: &Context, _: &Request) -> Result<Reply, CommandError> {
    session.closing = true;
    Ok(Reply::ok())
}

/// `SELECT index`: there is database 0.
pub(super) fn select(_: &mut Session, _: &Context, request: &Request) -> Result<Reply, CommandError> {
    match integer(request.arg(1)) {
        Some(0) => Ok(Reply::ok()),
        Some(_) => Err(CommandError::text("ERR DB index is out of range")),
        None => Err(CommandError::text("ERR value is not an integer or out of range")),
    }
}

/// `AUTH [username] password`
pub(super) fn auth(
    session: &mut Session,
    context: &Context,
    request: &Request,
) -> Result<Reply, CommandError> {
    match request.len() {
        2 if context.access.is_open() && api_key::id_of(request.arg(1)).is_none() => Err(CommandError::text(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        2 => log_in(session, context, DEFAULT_USER, request.arg(1)),
        3 => log_in(session, context, request.arg(1), request.arg(2)),
        _ => Err(CommandError::text("ERR syntax error")),
    }?;
    Ok(Reply::ok())
}

fn log_in(
    session: &mut Session,
    context: &Context,
    user: &[u8],
    password: &[u8],
) -> Result<(), CommandError> {
    if let Some(login) = context.access.log_in(user, password, clock::now_ms()) {
        session.enter(login);
        return Ok(());
    }
    if !context.access.is_loaded() {
        // The user may be one of those that are not known yet.
        return Err(LOADING);
    }
    note_refusal(session, context, Reason::Auth, b"auth".to_vec(), shown(user));
    session.held_back = Some(session.delay.wrong());
    Err(WRONG_PASSWORD)
}

/// `HELLO [protover [AUTH username password] [SETNAME clientname]]`: nothing changes unless all of it is right.
pub(super) fn hello(
    session: &mut Session,
    context: &Context,
    request: &Request,
) -> Result<Reply, CommandError> {
    let mut protocol = session.protocol;
    if request.len() > 1 {
        protocol = match integer(request.arg(1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(CommandError::text("NOPROTO unsupported protocol version")),
            None => {
                let text = "ERR Protocol version is not an integer or out of range";
                return Err(CommandError::text(text));
            }
        };
    }
    let mut credentials = None;
    let mut name = None;
    let mut next = 2;
    while let Some(word) = request.get(next) {
        let left = request.len() - next - 1;
        if is_word(word, "AUTH") && left >= 2 {
            credentials = Some((request.arg(next + 1), request.arg(next + 2)));
            next += 3;
        } else if is_word(word, "SETNAME") && left >= 1 {
            name = Some(checked_name(request.arg(next + 1))?);
            next += 2;
        } else {
            let word = String::from_utf8_lossy(word).into_owned();
            return Err(CommandError::Text(format!("ERR Syntax error in HELLO option '{word}'").into()));
        }
    }
    match credentials {
        Some((user, password)) => log_in(session, context, user, password)?,
        None if !session.authenticated => {
            return Err(CommandError::text(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                 <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                 the same time",
            ));
        }
        None => {}
    }
    session.protocol = protocol;
    if let Some(name) = name {
        session.client.about(|about| about.name = name);
    }
    let field = |name, value| (Reply::text(name), value);
    let version = if protocol == Protocol::Resp3 { 3 } else { 2 };
    Ok(Reply::Map(vec![
        field("server", Reply::text("redis")),
        field("version", Reply::text(REDIS_VERSION)),
        field("proto", Reply::Integer(version)),
        field("id", Reply::Integer(i64::try_from(session.client.id).unwrap_or(i64::MAX))),
        field("mode", Reply::text("standalone")),
        field("role", Reply::text("master")),
        field("modules", Reply::Array(vec![vector_sets()])),
    ]))
}

/// `RESET`: as if newly connected.
pub(super) fn reset(session: &mut Session, context: &Context, _: &Request) -> Result<Reply, CommandError> {
    session.reset(&context.access);
    context.clients.stop_monitor(&session.client);
    Ok(Reply::simple("RESET"))
}

/// `MODULE LIST`: vector sets are a module in Redis.
pub(super) fn module(_: &mut Session, _: &Context, _: &Request) -> Result<Reply, CommandError> {
    Ok(Reply::Array(vec![vector_sets()]))
}

fn vector_sets() -> Reply {
    let field = |name, value| (Reply::text(name), value);
    Reply::Map(vec![
        field("name", Reply::text("vectorset")),
        field("ver", Reply::Integer(1)),
        field("path", Reply::text("")),
        field("args", Reply::Array(Vec::new())),
    ])
}
