//! What a session's user may do: the table of commands as rules see it, and the checks before a command runs.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use super::parse::integer;
use super::request::Request;
use super::session::Session;
use super::table::{self, COMMANDS, CommandSpec};
use super::{CommandError, Context, LOADING};
use crate::access::Account;
use crate::access::catalog::{Catalog, CommandId, Listed};
use crate::access::log::{Entry, Reason, shown};
use crate::access::selector::{Asked, Denied, KeyAccess};
use crate::access::user::User;
use crate::clock;
use crate::collection::Collection;
use crate::metrics::EmbeddingUse;
use crate::store::state::{NamespaceId, Snapshot};
use crate::store::users::Limits;

/// When it is worth trying again after elements had to be removed first, in milliseconds.
const RETRY_MS: u64 = 1000;

/// The commands with the categories of their subcommands.
pub static CATALOG: LazyLock<Catalog> = LazyLock::new(|| Catalog::new(COMMANDS.iter().map(listed)));

/// A command, and its subcommands by name.
type Ids = (CommandId, Vec<(&'static str, CommandId)>);

static IDS: LazyLock<HashMap<&'static str, Ids>> = LazyLock::new(|| {
    let id = |name: &str| CATALOG.find(name).unwrap_or_else(|| unreachable!("the catalog has every command"));
    let subcommands = |spec: &CommandSpec| {
        let names = known_subcommands(spec).map(|name| (name, id(&format!("{}|{name}", spec.name))));
        names.collect()
    };
    COMMANDS.iter().map(|spec| (spec.name, (id(spec.name), subcommands(spec)))).collect()
});

/// The subcommands that rules can speak of. As in Redis, DEBUG is allowed as a whole.
fn known_subcommands(spec: &CommandSpec) -> impl Iterator<Item = &'static str> {
    table::subcommands(spec.name).filter(|_| spec.name != "debug")
}

fn listed(spec: &'static CommandSpec) -> Listed<'static> {
    let categories: Vec<&str> = spec.acl_categories().collect();
    let subcommands = known_subcommands(spec)
        .map(|name| (name, subcommand_categories(spec, name).unwrap_or_else(|| categories.clone())));
    Listed {
        name: spec.name,
        shown: spec.error_name().into_owned(),
        always: spec.without_auth(),
        subcommands: subcommands.collect(),
        categories,
    }
}

/// The categories of a subcommand that differ from its command's.
fn subcommand_categories(spec: &CommandSpec, name: &str) -> Option<Vec<&'static str>> {
    const ADMIN: &[&str] = &["admin", "slow", "dangerous"];
    Some(match (spec.name, name) {
        ("client", "kill" | "list" | "no-evict" | "pause" | "unpause") => {
            ["connection"].iter().chain(ADMIN).copied().collect()
        }
        ("client", _) => vec!["connection", "slow"],
        ("acl", "cat" | "genpass" | "whoami") | (_, "help") => vec!["slow"],
        ("acl" | "config" | "slowlog" | "latency" | "module", _) => ADMIN.to_vec(),
        ("vdoc", "dump" | "get" | "list" | "sections") => vec!["read", "vector", "slow"],
        _ => return None,
    })
}

/// The command of a request, or its subcommand.
fn command_id(spec: &CommandSpec, request: &Request) -> CommandId {
    let (id, subcommands) = &IDS[spec.name];
    let given = request.get(1).unwrap_or_default();
    let found = subcommands.iter().find(|(name, _)| given.eq_ignore_ascii_case(name.as_bytes()));
    found.map_or(*id, |(_, id)| *id)
}

/// The places of a request's keys among its arguments; the name of the command stands at `name`, from where places count.
pub fn key_places(spec: &CommandSpec, request: &Request, name: usize) -> impl Iterator<Item = usize> + use<> {
    let arguments = request.len() - name;
    let (first, mut last, step) = spec.keys;
    if spec.name == "vmsearch" {
        // Its number of keys comes before them. Without a sound number, all that may be a key counts as one.
        let count = request.get(name + 1).and_then(integer).filter(|&count| count > 0);
        last = count.map_or(last, |count| {
            first - 1 + count.min(i64::try_from(arguments).unwrap_or(i64::MAX - first))
        });
    }
    let from_end = i64::try_from(arguments).unwrap_or(i64::MAX) + last;
    let last = if last < 0 { from_end } else { last };
    let places = (first..=last).step_by(usize::try_from(step).unwrap_or(1).max(1));
    let places = places.filter(|&place| place > 0).filter_map(|place| usize::try_from(place).ok());
    places.filter(move |place| *place < arguments)
}

/// How a request uses its keys; `index` counts them.
fn key_access(spec: &CommandSpec, request: &Request, index: usize) -> KeyAccess {
    match (spec.name, index) {
        ("exists" | "type" | "watch" | "object" | "memory", _) => KeyAccess::LOOK,
        ("rename", 0) => KeyAccess::READ_WRITE,
        ("copy", 0) => KeyAccess::READ,
        _ if spec.writes(request) => KeyAccess::WRITE,
        _ => KeyAccess::READ,
    }
}

/// Whether a user may send a request.
///
/// # Errors
/// What of it is not allowed; a key by its place among the arguments.
pub fn allowed(user: &User, spec: &CommandSpec, request: &Request) -> Result<(), Denied> {
    if user.allows_everything() {
        return Ok(());
    }
    let places: Vec<usize> = key_places(spec, request, 0).collect();
    let keys: Vec<_> = places
        .iter()
        .enumerate()
        .map(|(index, &place)| (request.arg(place), key_access(spec, request, index)))
        .collect();
    let asked = Asked { command: command_id(spec, request), first_argument: request.get(1), keys: &keys };
    user.check(&asked, &CATALOG).map_err(|denied| match denied {
        Denied::Key(index) => Denied::Key(places[index]),
        command => command,
    })
}

/// The name of a request's command, or of its subcommand, as messages show it.
pub fn shown_name(spec: &CommandSpec, request: &Request) -> &'static str {
    &CATALOG.entry(command_id(spec, request)).shown
}

/// Checks that the session's user may send a request, and not too many.
pub(super) fn check(
    session: &Session,
    context: &Context,
    spec: &'static CommandSpec,
    request: &Request,
) -> Result<(), CommandError> {
    if !context.access.is_loaded() && !session.is_local && spec.acl_categories().any(|one| one == "admin") {
        // The users are not known yet.
        return Err(LOADING);
    }
    if spec.without_auth() {
        return Ok(());
    }
    if let Err((rate, retry_ms)) = session.account.count_command() {
        let text = format!("LIMIT requests {rate} a second, retry in {retry_ms} ms");
        return Err(CommandError::Text(text.into()));
    }
    let user = session.account.user();
    let denied = match allowed(&user, spec, request) {
        Ok(()) => return Ok(()),
        Err(denied) => denied,
    };
    let name = shown_name(spec, request);
    let (reason, object, error) = match denied {
        Denied::Command => {
            let user = String::from_utf8_lossy(&session.account.name).into_owned();
            let text = format!("NOPERM User {user} has no permissions to run the '{name}' command");
            (Reason::Command, name.as_bytes().to_vec(), CommandError::Text(text.into()))
        }
        Denied::Key(place) => {
            let error = CommandError::text("NOPERM No permissions to access a key");
            (Reason::Key, shown(request.arg(place)), error)
        }
    };
    note_refusal(session, context, reason, object, session.account.name.to_vec());
    Err(error)
}

/// Notes for ACL LOG that something was refused.
pub(super) fn note_refusal(
    session: &Session,
    context: &Context,
    reason: Reason,
    object: Vec<u8>,
    user: Vec<u8>,
) {
    let now_ms = clock::now_ms();
    context.access.log.add(Entry {
        id: 0,
        count: 1,
        reason,
        in_multi: session.transaction.is_some(),
        object,
        user,
        client: session.client.line(),
        created_ms: now_ms,
        updated_ms: now_ms,
    });
}

/// Where a session's keys are, and which of them it may see.
#[derive(Clone)]
pub struct Scope {
    /// The namespace.
    pub namespace: NamespaceId,
    /// The user, if there are keys that it may not use.
    pub limited: Option<Arc<User>>,
    /// The account, if it has a namespace of its own or limits.
    account: Option<Arc<Account>>,
    /// Where the user's texts are counted.
    pub payer: Arc<EmbeddingUse>,
}

impl Scope {
    /// Of a session.
    pub fn of(session: &Session) -> Self {
        let user = session.account.user();
        let limited = (!user.allows_everything() && user.is_limited_to_keys()).then(|| Arc::clone(&user));
        let record = session.account.record();
        let is_plain = record.namespace == NamespaceId::default() && record.limits == Limits::default();
        let account = (!is_plain).then(|| Arc::clone(&session.account));
        let payer = Arc::clone(&session.account.embedding);
        Self { namespace: session.namespace, limited, account, payer }
    }

    /// The account, if it has a namespace of its own: it is told nothing of others.
    pub fn tenant(&self) -> Option<&Arc<Account>> {
        self.account.as_ref().filter(|account| account.namespace() != NamespaceId::default())
    }

    /// Whether the key may be listed: some command may use it.
    pub fn sees(&self, key: &[u8]) -> bool {
        self.limited.as_ref().is_none_or(|user| user.allows_key(key, KeyAccess::LOOK))
    }

    /// Whether the key may be removed.
    pub fn may_write(&self, key: &[u8]) -> bool {
        self.limited.as_ref().is_none_or(|user| user.allows_key(key, KeyAccess::WRITE))
    }

    /// What the user may store.
    pub(super) fn quota(&self) -> Quota {
        Quota(self.account.as_ref().map_or_else(Limits::default, |account| account.record().limits))
    }
}

/// How much the user's namespace may hold.
#[derive(Clone, Copy)]
pub(super) struct Quota(Limits);

impl Quota {
    /// Refuses vectors of `dim` components for a collection, or a field of one, if the namespace would hold too much. Elements
    /// that are there already bring nothing.
    pub(super) fn admit<'a>(
        self,
        view: &Snapshot,
        namespace: NamespaceId,
        collection: Option<&Arc<Collection>>,
        dim: usize,
        elements: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), CommandError> {
        let Limits { vectors, bytes, .. } = self.0;
        if vectors == 0 && bytes == 0 {
            return Ok(());
        }
        let is_new = |element: &&[u8]| !collection.is_some_and(|collection| collection.contains(element));
        let brings = elements.filter(is_new).count() as u64;
        let brings_bytes = brings * (dim * size_of::<f32>()) as u64;
        let totals = view.totals(namespace);
        let over =
            |limit: u64, has: u64, more: u64| limit > 0 && more > 0 && has.saturating_add(more) > limit;
        let (what, limit) = match () {
            () if over(vectors, totals.vectors, brings) => ("vectors", vectors),
            () if over(bytes, totals.bytes, brings_bytes) => ("bytes", bytes),
            () => return Ok(()),
        };
        Err(CommandError::Text(format!("LIMIT {what} {limit}, retry in {RETRY_MS} ms").into()))
    }
}
