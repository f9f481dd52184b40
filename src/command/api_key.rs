//! APIKEY and NAMESPACE: users that programs log in as by a key, each with keys of its own in a namespace of its own.

use std::sync::Arc;

use bytes::Bytes;

use super::acl::{check_writable, close, is_configured, set_record};
use super::parse::{integer, is_word};
use super::permissions::CATALOG;
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::{CommandError, Context, Step, Then, Write, WriteOp, unexpected};
use crate::access::api_key::{self, parse_id, shown_id};
use crate::access::user::User;
use crate::access::{DEFAULT_USER, is_name};
use crate::clock;
use crate::store::Txn;
use crate::store::change::Change;
use crate::store::state::NamespaceId;
use crate::store::users::{ApiKey, Limits, UserChange, UserRecord};

/// API keys a user may have.
const MAX_KEYS: usize = 128;
/// Longest label.
const MAX_LABEL_BYTES: usize = 256;
/// What a user made by APIKEY CREATE may do: everything but running the server, in its namespace.
const KEY_USER_RULES: &[&str] =
    &["on", "~*", "&*", "+@all", "-@admin", "-@dangerous", "+keys", "+flushdb", "+info"];
/// What the namespace of all who have none of their own is called.
const COMMON: &[u8] = b"default";

fn bulk(bytes: impl Into<Bytes>) -> Reply {
    Reply::Bulk(bytes.into())
}

fn number(number: u64) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn field(name: &'static str, value: Reply) -> (Reply, Reply) {
    (Reply::text(name), value)
}

fn name_argument(request: &Request, at: usize) -> Result<Bytes, CommandError> {
    let name = Bytes::copy_from_slice(request.arg(at));
    match is_name(&name) {
        true => Ok(name),
        false => Err(CommandError::text("ERR names can't be empty or contain spaces or null characters")),
    }
}

/// `APIKEY CREATE | LIST | REVOKE | USAGE | LIMIT`
pub(super) fn api_key(
    _: &mut Session,
    context: &Arc<Context>,
    request: &Request,
) -> Result<Step, CommandError> {
    let verb = request.arg(1);
    if is_word(verb, "CREATE") {
        create(context, request)
    } else if is_word(verb, "REVOKE") {
        revoke(context, request)
    } else if is_word(verb, "LIMIT") {
        limit(context, request)
    } else if is_word(verb, "USAGE") {
        usage(context, request)
    } else {
        list(context, request)
    }
}

/// Runs a change on the writer; then the user is as the store has it.
fn change(name: Bytes, op: WriteOp) -> Step {
    let then: Then = Box::new(move |_, context, reply| {
        context.access.follow(&name, || context.store.snapshot().users.clone());
        reply
    });
    Step::WriteThen(Write::Ready(op), then)
}

/// What CREATE is told besides the user.
struct Wish {
    namespace: Option<Bytes>,
    label: Bytes,
    expires_ms: u64,
}

fn wish(request: &Request) -> Result<Wish, CommandError> {
    let mut wish = Wish { namespace: None, label: Bytes::new(), expires_ms: 0 };
    for at in (3..request.len()).step_by(2) {
        let (word, value) = (request.arg(at), request.get(at + 1));
        let value = value.ok_or_else(|| unexpected(word))?;
        if is_word(word, "NAMESPACE") {
            wish.namespace = Some(name_argument(request, at + 1)?);
        } else if is_word(word, "LABEL") && value.len() <= MAX_LABEL_BYTES {
            wish.label = Bytes::copy_from_slice(value);
        } else if is_word(word, "EXPIRE") {
            let seconds = integer(value).and_then(|seconds| u64::try_from(seconds).ok()).filter(|&s| s > 0);
            let seconds =
                seconds.ok_or(CommandError::text("ERR EXPIRE takes a positive number of seconds"))?;
            wish.expires_ms = clock::now_ms().saturating_add(seconds.saturating_mul(1000));
        } else {
            return Err(unexpected(word));
        }
    }
    Ok(wish)
}

/// `APIKEY CREATE user [NAMESPACE name] [LABEL text] [EXPIRE seconds]`: the only time the key is told.
fn create(context: &Arc<Context>, request: &Request) -> Result<Step, CommandError> {
    let (name, wish) = (name_argument(request, 2)?, wish(request)?);
    if *name == *DEFAULT_USER {
        return Err(CommandError::text("ERR the default user has no API keys"));
    }
    if context.access.account(&name).is_some_and(|account| account.is_configured()) {
        return Err(CommandError::text("ERR the user comes from the configuration: it cannot have API keys"));
    }
    check_writable(context)?;
    let (text, id, hash) =
        api_key::create().map_err(|error| CommandError::Text(format!("ERR {error}").into()))?;
    let user = name.clone();
    let op: WriteOp = Box::new(move |txn| {
        let label = wish.label.clone();
        let (created_ms, expires_ms) = (clock::now_ms(), wish.expires_ms);
        let key = ApiKey { id, hash, label, created_ms, last_used_ms: 0, expires_ms };
        let record = txn.view().users.by_name.get(&user).map(|record| UserRecord::clone(record));
        let mut record = match user_with_keys(txn, &user, record, wish.namespace) {
            Ok(record) => record,
            Err(error) => return error.into(),
        };
        if record.keys.len() >= MAX_KEYS {
            return Reply::error("ERR the user has as many API keys as it can have, revoke one");
        }
        record.keys.push(key);
        set_record(txn, user, record);
        bulk(text)
    });
    Ok(change(name, op))
}

/// The user a key is made for, in its namespace.
fn user_with_keys(
    txn: &mut Txn<'_>,
    name: &Bytes,
    record: Option<UserRecord>,
    namespace: Option<Bytes>,
) -> Result<UserRecord, CommandError> {
    let users = &txn.view().users;
    let known = |name: &Bytes| match &**name == COMMON {
        true => Some(NamespaceId::default()),
        false => users.namespaces.get(name).copied(),
    };
    if let Some(record) = record {
        if namespace.is_some_and(|namespace| known(&namespace) != Some(record.namespace)) {
            return Err(CommandError::text("ERR the user is in another namespace"));
        }
        return Ok(record);
    }
    let (wanted, own) = match namespace {
        Some(wanted) => (wanted, false),
        None => (name.clone(), true),
    };
    let namespace = match known(&wanted) {
        Some(_) if own => {
            return Err(CommandError::text(
                "ERR there is a namespace of the user's name already: say NAMESPACE to share it",
            ));
        }
        Some(known) => known,
        None => {
            let namespace = users.next_namespace();
            txn.apply(&Change::Users(UserChange::NameNamespace { namespace, name: wanted }), None);
            namespace
        }
    };
    let mut user = User::new();
    for rule in KEY_USER_RULES {
        user.apply(rule.as_bytes(), &CATALOG).unwrap_or_else(|_| unreachable!("these are rules"));
    }
    Ok(UserRecord { rules: user.line(), namespace, ..UserRecord::default() })
}

/// `APIKEY LIST [user]`
fn list(context: &Context, request: &Request) -> Result<Step, CommandError> {
    let snapshot = context.store.snapshot();
    let of = request.get(2);
    let mut keys = Vec::new();
    for (name, record) in snapshot.users.by_name.iter().filter(|(name, _)| of.is_none_or(|of| *of == ***name))
    {
        for key in &record.keys {
            keys.push(Reply::Map(vec![
                field("id", bulk(shown_id(key.id))),
                field("user", bulk(name.clone())),
                field("namespace", bulk(namespace_name(context, record.namespace))),
                field("label", bulk(key.label.clone())),
                field("created", number(key.created_ms / 1000)),
                field("last-used", number(context.access.last_used_ms(key) / 1000)),
                field("expires", number(key.expires_ms / 1000)),
            ]));
        }
    }
    Ok(Step::Reply(Reply::Array(keys)))
}

fn namespace_name(context: &Context, namespace: NamespaceId) -> Bytes {
    let snapshot = context.store.snapshot();
    snapshot.users.namespace_name(namespace).cloned().unwrap_or(Bytes::from_static(COMMON))
}

/// `APIKEY REVOKE id`: also closes the connections that logged in by it. Replies 0 if there is none.
fn revoke(context: &Arc<Context>, request: &Request) -> Result<Step, CommandError> {
    let id = parse_id(request.arg(2));
    let id =
        id.ok_or(CommandError::text("ERR an API key's id has 12 hexadecimal digits, see APIKEY LIST"))?;
    check_writable(context)?;
    let snapshot = context.store.snapshot();
    let owner = snapshot.users.by_name.iter().find(|(_, record)| record.keys.iter().any(|key| key.id == id));
    let Some((name, _)) = owner else { return Ok(Step::Reply(Reply::Integer(0))) };
    let user = name.clone();
    let op: WriteOp = Box::new(move |txn| {
        let Some(record) = txn.view().users.by_name.get(&user) else { return Reply::Integer(0) };
        let mut record = UserRecord::clone(record);
        let before = record.keys.len();
        record.keys.retain(|key| key.id != id);
        let removed = before - record.keys.len();
        set_record(txn, user, record);
        Reply::Integer(i64::from(removed > 0))
    });
    let name = name.clone();
    let then: Then = Box::new(move |session, context, reply| {
        context.access.follow(&name, || context.store.snapshot().users.clone());
        close_dead(session, context);
        reply
    });
    Ok(Step::WriteThen(Write::Ready(op), then))
}

/// Closes the connections whose API key is no more.
fn close_dead(session: &mut Session, context: &Context) {
    let now_ms = clock::now_ms();
    for client in context.clients().iter().filter(|client| client.id != session.client.id) {
        if client.api_key().is_some_and(|key| context.access.is_dead(key, now_ms)) {
            client.kill();
        }
    }
    session.closing |= session.client.api_key().is_some_and(|key| context.access.is_dead(key, now_ms));
}

/// `APIKEY USAGE [user]`: of one user a map, of all an array of them.
fn usage(context: &Context, request: &Request) -> Result<Step, CommandError> {
    let snapshot = context.store.snapshot();
    let of = |account: &Arc<crate::access::Account>| {
        let (usage, totals) = (account.usage(), snapshot.totals(account.namespace()));
        let limits = account.record().limits;
        Reply::Map(vec![
            field("user", bulk(account.name.clone())),
            field("namespace", bulk(namespace_name(context, account.namespace()))),
            field("commands", number(usage.commands)),
            field("texts", number(usage.texts)),
            field("tokens", number(usage.tokens)),
            field("vectors", number(totals.vectors)),
            field("bytes", number(totals.bytes)),
            field("requests-limit", number(limits.requests_per_s)),
            field("vectors-limit", number(limits.vectors)),
            field("bytes-limit", number(limits.bytes)),
        ])
    };
    Ok(Step::Reply(match request.get(2) {
        Some(name) => of(&context.access.account(name).ok_or(NO_USER)?),
        None => Reply::Array(context.access.accounts().iter().map(of).collect()),
    }))
}

const NO_USER: CommandError = CommandError::text("ERR there is no such user");

/// `APIKEY LIMIT user [RPS n] [VECTORS n] [BYTES n]`: 0 for no limit; those that are not named stay.
fn limit(context: &Arc<Context>, request: &Request) -> Result<Step, CommandError> {
    let name = name_argument(request, 2)?;
    let mut wanted: [Option<u64>; 3] = [None; 3];
    for at in (3..request.len()).step_by(2) {
        let (word, value) = (request.arg(at), request.get(at + 1));
        let place = ["RPS", "VECTORS", "BYTES"].iter().position(|name| is_word(word, name));
        let place = place.ok_or_else(|| unexpected(word))?;
        let value = value.and_then(integer).and_then(|value| u64::try_from(value).ok());
        wanted[place] = Some(value.ok_or(CommandError::text("ERR value is not an integer or out of range"))?);
    }
    if is_configured(context, &name) {
        return Err(CommandError::text("ERR the user comes from the configuration: it has no limits"));
    }
    check_writable(context)?;
    let user = name.clone();
    let op: WriteOp = Box::new(move |txn| {
        let Some(record) = txn.view().users.by_name.get(&user) else { return NO_USER.into() };
        let mut record = UserRecord::clone(record);
        let Limits { requests_per_s, vectors, bytes } = &mut record.limits;
        for (limit, wanted) in [requests_per_s, vectors, bytes].into_iter().zip(wanted) {
            *limit = wanted.unwrap_or(*limit);
        }
        set_record(txn, user, record);
        Reply::ok()
    });
    Ok(change(name, op))
}

/// `NAMESPACE LIST | USE name | DROP name`
pub(super) fn namespace(
    session: &mut Session,
    context: &Arc<Context>,
    request: &Request,
) -> Result<Step, CommandError> {
    if is_word(request.arg(1), "LIST") {
        return Ok(Step::Reply(list_namespaces(context)));
    }
    let name = name_argument(request, 2)?;
    let snapshot = context.store.snapshot();
    let known = match &*name == COMMON {
        true => Some(NamespaceId::default()),
        false => snapshot.users.namespaces.get(&name).copied(),
    };
    let namespace = known.ok_or(CommandError::text("ERR there is no such namespace"))?;
    if is_word(request.arg(1), "USE") {
        session.use_namespace(namespace);
        return Ok(Step::Reply(Reply::ok()));
    }
    if namespace == NamespaceId::default() {
        return Err(CommandError::text("ERR the default namespace cannot be dropped, FLUSHDB empties it"));
    }
    check_writable(context)?;
    let op: WriteOp = Box::new(move |txn| {
        txn.apply(&Change::Users(UserChange::DropNamespace { namespace }), None);
        Reply::ok()
    });
    let then: Then = Box::new(move |session, context, reply| {
        for gone in context.access.follow_all(|| context.store.snapshot().users.clone()) {
            close(session, context, &gone);
        }
        for client in context.clients() {
            if client.id != session.client.id && client.namespace() == namespace {
                client.kill();
            }
        }
        if session.namespace == namespace {
            session.use_namespace(NamespaceId::default());
        }
        reply
    });
    Ok(Step::WriteThen(Write::Ready(op), then))
}

fn list_namespaces(context: &Context) -> Reply {
    let snapshot = context.store.snapshot();
    let users = |namespace: NamespaceId| {
        let of = context.access.accounts().iter().filter(|one| one.namespace() == namespace).count();
        number(of as u64)
    };
    let describe = |name: &[u8], namespace: NamespaceId| {
        let totals = snapshot.totals(namespace);
        Reply::Map(vec![
            field("name", Reply::bulk(name)),
            field("users", users(namespace)),
            field("keys", number(snapshot.key_count(namespace) as u64)),
            field("vectors", number(totals.vectors)),
            field("bytes", number(totals.bytes)),
        ])
    };
    let mut all = vec![describe(COMMON, NamespaceId::default())];
    all.extend(snapshot.users.namespaces.iter().map(|(name, &namespace)| describe(name, namespace)));
    Reply::Array(all)
}
