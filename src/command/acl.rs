//! ACL: users and their rules, as in Redis. Users that the store keeps are changed by the writer, so that a change is logged
//! before it is answered; those of an ACL file or the configuration in memory only.

use std::sync::Arc;

use bytes::Bytes;

use super::parse::{integer, is_word};
use super::permissions::{CATALOG, allowed, shown_name};
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::table;
use super::{CommandError, Context, LOADING, READ_ONLY, Step, Write, WriteOp};
use crate::access::api_key::random;
use crate::access::catalog::CATEGORIES;
use crate::access::selector::{Denied, Selector};
use crate::access::user::{User, merge_selectors};
use crate::access::{Access, Account, DEFAULT_USER, is_name};
use crate::clock;
use crate::hex;
use crate::store::Txn;
use crate::store::change::Change;
use crate::store::users::{UserChange, UserRecord};

/// Entries of ACL LOG when no count is given.
const LOG_ENTRIES: usize = 10;
/// Bits of ACL GENPASS.
const PASSWORD_BITS: i64 = 256;
const MAX_PASSWORD_BITS: i64 = 4096;

const HELP: &[&str] = &[
    "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAT [<category>]",
    "    The categories, or the commands of one.",
    "DELUSER <username> [<username> ...]",
    "    Remove users and close their connections.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Whether a user may send a command; it is not run.",
    "GENPASS [<bits>]",
    "    A random password, of 256 bits if not told otherwise.",
    "GETUSER <username>",
    "    A user with its rules.",
    "LIST",
    "    All users, as lines of an ACL file.",
    "LOAD",
    "    Read the ACL file again.",
    "LOG [<count> | RESET]",
    "    What was refused lately.",
    "SAVE",
    "    Write the ACL file.",
    "SETUSER <username> <rule> [<rule> ...]",
    "    Make or change a user.",
    "USERS",
    "    The names of all users.",
    "WHOAMI",
    "    The name of this connection's user.",
    "HELP",
    "    This text.",
];

fn bulk(bytes: impl Into<Bytes>) -> Reply {
    Reply::Bulk(bytes.into())
}

fn text(text: String) -> CommandError {
    CommandError::Text(text.into())
}

/// `ACL CAT | DELUSER | DRYRUN | GENPASS | GETUSER | HELP | LIST | LOAD | LOG | SAVE | SETUSER | USERS | WHOAMI`
pub(super) fn acl(
    session: &mut Session,
    context: &Arc<Context>,
    request: &Request,
) -> Result<Step, CommandError> {
    let verb = String::from_utf8_lossy(request.arg(1)).to_lowercase();
    let access = &context.access;
    Ok(Step::Reply(match verb.as_str() {
        "setuser" => return set_user(context, request),
        "deluser" => return delete_users(session, context, request),
        "cat" => categories(request)?,
        "dryrun" => dry_run(access, request)?,
        "genpass" => generate(request)?,
        "getuser" => access.account(request.arg(2)).map_or(Reply::Null, |account| describe(&account.user())),
        "list" => {
            let line = |account: &Arc<Account>| {
                bulk([b"user ", &account.name[..], b" ", &account.user().line()].concat())
            };
            Reply::Array(access.accounts().iter().map(line).collect())
        }
        "users" => Reply::Array(access.accounts().iter().map(|one| bulk(one.name.clone())).collect()),
        "whoami" => bulk(session.account.name.clone()),
        "log" => log(access, request)?,
        "load" | "save" => file(session, context, &verb)?,
        _ => Reply::Array(HELP.iter().map(|line| Reply::simple(*line)).collect()),
    }))
}

fn categories(request: &Request) -> Result<Reply, CommandError> {
    let names = match request.get(2) {
        None => CATEGORIES.to_vec(),
        Some(name) => {
            let name = String::from_utf8_lossy(name);
            CATALOG.names_in(&name).ok_or_else(|| text(format!("ERR Unknown category '{name}'")))?
        }
    };
    Ok(Reply::Array(names.into_iter().map(|name| bulk(name.to_owned())).collect()))
}

/// A user as ACL GETUSER shows it.
fn describe(user: &User) -> Reply {
    let field = |name, value| (Reply::text(name), value);
    let selector = |selector: &Selector| {
        vec![
            field("commands", bulk(selector.command_rules())),
            field("keys", bulk(selector.key_rules())),
            field("channels", bulk(selector.channel_rules())),
        ]
    };
    let mut fields = vec![
        field("flags", Reply::Set(user.flags().map(Reply::text).collect())),
        field("passwords", Reply::Array(user.passwords.iter().map(|hash| bulk(hex::encode(hash))).collect())),
    ];
    fields.extend(selector(&user.root));
    let others = user.selectors.iter().map(|other| Reply::Map(selector(other)));
    fields.push(field("selectors", Reply::Array(others.collect())));
    Reply::Map(fields)
}

fn generate(request: &Request) -> Result<Reply, CommandError> {
    const WRONG: CommandError = CommandError::text(
        "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
    );
    let bits = match request.get(2) {
        None => PASSWORD_BITS,
        Some(bits) => integer(bits).filter(|bits| (1..=MAX_PASSWORD_BITS).contains(bits)).ok_or(WRONG)?,
    };
    let digits = usize::try_from(bits).unwrap_or(0).div_ceil(4);
    let bytes = random::<512>().map_err(|error| text(format!("ERR {error}")))?;
    let mut hex = hex::encode(&bytes);
    hex.truncate(digits);
    Ok(bulk(hex))
}

/// `ACL DRYRUN username command [arg ...]`
fn dry_run(access: &Access, request: &Request) -> Result<Reply, CommandError> {
    let shown = |at: usize| String::from_utf8_lossy(request.arg(at)).into_owned();
    let account = access.account(request.arg(2));
    let account = account.ok_or_else(|| text(format!("ERR User '{}' not found", shown(2))))?;
    let missing = || text(format!("ERR Command '{}' not found", shown(3)));
    let spec = table::find(request.arg(3)).ok_or_else(missing)?;
    let asked = Request::from_args(request.args().skip(3));
    if let Err(CommandError::Text(_)) = table::check_subcommand(spec, &asked) {
        return Err(missing());
    }
    if !spec.takes(asked.len()) || table::check_subcommand(spec, &asked).is_err() {
        return Err(CommandError::Arity(shown_name(spec, &asked).into()));
    }
    let user = shown(2);
    Ok(match allowed(&account.user(), spec, &asked) {
        Ok(()) => Reply::ok(),
        Err(Denied::Command) => {
            let name = shown_name(spec, &asked);
            bulk(format!("User {user} has no permissions to run the '{name}' command"))
        }
        Err(Denied::Key(place)) => {
            let key = String::from_utf8_lossy(asked.arg(place)).into_owned();
            bulk(format!("User {user} has no permissions to access the '{key}' key"))
        }
    })
}

/// `ACL LOG [count | RESET]`
fn log(access: &Access, request: &Request) -> Result<Reply, CommandError> {
    let count = match request.get(2) {
        None => LOG_ENTRIES,
        Some(word) if is_word(word, "RESET") => {
            access.log.reset();
            return Ok(Reply::ok());
        }
        Some(count) => {
            let count = integer(count);
            let count = count.ok_or(CommandError::text("ERR value is not an integer or out of range"))?;
            usize::try_from(count).unwrap_or(0)
        }
    };
    let now_ms = clock::now_ms();
    let number = |number: u64| Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX));
    let entries = access.log.newest(count).into_iter().map(|entry| {
        let field = |name, value| (Reply::text(name), value);
        let age_ms = now_ms.saturating_sub(entry.created_ms);
        Reply::Map(vec![
            field("count", number(entry.count)),
            field("reason", Reply::text(entry.reason.name())),
            field("context", Reply::text(if entry.in_multi { "multi" } else { "toplevel" })),
            field("object", bulk(entry.object)),
            field("username", bulk(entry.user)),
            field("age-seconds", Reply::Double(age_ms as f64 / 1000.0)),
            field("client-info", bulk(entry.client)),
            field("entry-id", number(entry.id)),
            field("timestamp-created", number(entry.created_ms)),
            field("timestamp-last-updated", number(entry.updated_ms)),
        ])
    });
    Ok(Reply::Array(entries.collect()))
}

/// `ACL LOAD`, `ACL SAVE`
fn file(session: &mut Session, context: &Context, verb: &str) -> Result<Reply, CommandError> {
    let path = context.config().aclfile.clone();
    if path.as_os_str().is_empty() {
        return Err(CommandError::text(
            "ERR There is no ACL file (aclfile): users are kept in the log. See ACL SETUSER.",
        ));
    }
    let failed = |error| text(format!("ERR {error}"));
    match verb {
        "save" => context.access.save_file(&path).map_err(failed)?,
        _ => {
            for account in context.access.load_file(&path).map_err(failed)? {
                close(session, context, &account);
            }
        }
    }
    Ok(Reply::ok())
}

/// Closes the connections of an account; the session's own after its reply.
pub(super) fn close(session: &mut Session, context: &Context, account: &Arc<Account>) {
    for client in context.clients() {
        if client.id != session.client.id && client.is_of(account) {
            client.kill();
        }
    }
    session.closing |= Arc::ptr_eq(&session.account, account);
}

/// Refuses to change what the store keeps while that is not possible.
pub(super) fn check_writable(context: &Context) -> Result<(), CommandError> {
    if context.store.load().is_loading() {
        return Err(LOADING);
    }
    if context.store.read_only { Err(READ_ONLY) } else { Ok(()) }
}

/// Whether changes to that user are not the store's.
pub(super) fn is_configured(context: &Context, name: &[u8]) -> bool {
    match context.access.account(name) {
        Some(account) if account.is_configured() => true,
        Some(account) => *account.name == *DEFAULT_USER && !context.config().aclfile.as_os_str().is_empty(),
        None => !context.config().aclfile.as_os_str().is_empty(),
    }
}

/// `ACL SETUSER username [rule ...]`: all rules or none.
fn set_user(context: &Arc<Context>, request: &Request) -> Result<Step, CommandError> {
    let name = Bytes::copy_from_slice(request.arg(2));
    if !is_name(&name) {
        return Err(CommandError::text("ERR Usernames can't contain spaces or null characters"));
    }
    let rules = merge_selectors(request.args().skip(3)).map_err(|begun| {
        let begun = String::from_utf8_lossy(&begun).into_owned();
        text(format!("ERR Unmatched parenthesis in acl selector starting at '{begun}'."))
    })?;
    if is_configured(context, &name) {
        let user = context.access.account(&name).map(|account| account.user_arc());
        let user = changed(user.as_deref().cloned().unwrap_or_default(), &rules)?;
        context.access.set_configured(name, user);
        return Ok(Step::Reply(Reply::ok()));
    }
    check_writable(context)?;
    let default = (*name == *DEFAULT_USER).then(|| context.access.default_account().user_arc());
    let user_name = name.clone();
    let op: WriteOp = Box::new(move |txn| {
        let record = txn.view().users.by_name.get(&user_name).cloned().unwrap_or_default();
        let user = match default {
            // It may have got its password from the configuration.
            Some(user) => User::clone(&user),
            None => User::restore(&record.rules, &CATALOG),
        };
        match changed(user, &rules) {
            Ok(user) => {
                set_record(txn, user_name, UserRecord { rules: user.line(), ..UserRecord::clone(&record) })
            }
            Err(error) => return error.into(),
        }
        Reply::ok()
    });
    Ok(Step::WriteThen(
        Write::Ready(op),
        Box::new(move |_, context, reply| {
            context.access.follow(&name, || context.store.snapshot().users.clone());
            reply
        }),
    ))
}

/// A user changed by rules.
fn changed(mut user: User, rules: &[Vec<u8>]) -> Result<User, CommandError> {
    for rule in rules {
        user.apply(rule, &CATALOG).map_err(|error| {
            let rule = String::from_utf8_lossy(rule).into_owned();
            text(format!("ERR Error in ACL SETUSER modifier '{rule}': {error}"))
        })?;
    }
    Ok(user)
}

/// Makes a user or changes one.
pub(super) fn set_record(txn: &mut Txn<'_>, name: Bytes, record: UserRecord) {
    txn.apply(&Change::Users(UserChange::Set { name, record: record.into() }), None);
}

/// `ACL DELUSER username [username ...]`
fn delete_users(
    session: &mut Session,
    context: &Arc<Context>,
    request: &Request,
) -> Result<Step, CommandError> {
    let names: Vec<Bytes> = request.args().skip(2).map(Bytes::copy_from_slice).collect();
    if names.iter().any(|name| *name == *DEFAULT_USER) {
        return Err(CommandError::text("ERR The 'default' user cannot be removed"));
    }
    let (configured, kept): (Vec<Bytes>, Vec<Bytes>) =
        names.into_iter().partition(|name| is_configured(context, name));
    if !kept.is_empty() {
        check_writable(context)?;
    }
    let mut removed = 0;
    for account in configured.iter().filter_map(|name| context.access.remove_configured(name)) {
        close(session, context, &account);
        removed += 1;
    }
    let dropped = kept.clone();
    let op: WriteOp = Box::new(move |txn| {
        for name in dropped {
            let was_there = txn.view().users.by_name.contains_key(&name);
            txn.apply(&Change::Users(UserChange::Drop { name }), None);
            removed += i64::from(was_there);
        }
        Reply::Integer(removed)
    });
    Ok(Step::WriteThen(
        Write::Ready(op),
        Box::new(move |session, context, reply| {
            for name in &kept {
                if let Some(gone) = context.access.follow(name, || context.store.snapshot().users.clone()) {
                    close(session, context, &gone);
                }
            }
            reply
        }),
    ))
}
