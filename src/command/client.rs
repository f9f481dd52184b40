//! CLIENT: what is known of connections, and their end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use tokio::sync::Notify;

use super::parse::{integer, is_word};
use super::reply::{Protocol, Reply};
use super::request::Request;
use super::session::{ReplyMode, Session};
use super::{CommandError, Context};
use crate::access::{Account, Login};
use crate::clock;
use crate::store::state::NamespaceId;

/// Bytes of MONITOR's lines that may wait for a connection; one that does not read them is ended.
const PUSHED_BYTES_MAX: usize = 32 << 20;

/// What others may know of a connection while it lives.
pub struct Client {
    /// Number of the connection, never used again.
    pub id: u64,
    /// The peer, `host:port`.
    pub peer: String,
    /// Our end, `host:port`.
    pub local: String,
    /// When it was accepted, unix milliseconds.
    pub accepted_ms: u64,
    /// When something last came from it, unix milliseconds.
    pub active_ms: AtomicU64,
    /// Names and numbers as CLIENT LIST shows them.
    about: Mutex<About>,
    /// Bytes of requests not carried out yet.
    pub input_bytes: AtomicUsize,
    /// Bytes of replies not sent yet.
    pub output_bytes: AtomicUsize,
    /// What others have it send.
    pushed: Mutex<Vec<u8>>,
    /// Somebody asked for its end.
    killed: AtomicBool,
    /// It shows what others do.
    monitors: AtomicBool,
    /// Wakes it up to end, or to send what was pushed.
    wake: Notify,
}

/// What CLIENT LIST shows of a connection and may change.
#[derive(Clone)]
pub struct About {
    /// Name given by CLIENT SETNAME.
    pub name: Vec<u8>,
    /// Library name given by CLIENT SETINFO.
    pub library: Vec<u8>,
    /// Library version given by CLIENT SETINFO.
    pub library_version: Vec<u8>,
    /// What it is doing.
    pub doing: Doing,
    /// Its user.
    pub login: Login,
    /// Where its keys are.
    pub namespace: NamespaceId,
}

/// What a connection does, noted after each command that changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doing {
    /// The last command.
    pub command: &'static str,
    /// What it speaks.
    pub protocol: Protocol,
    /// Queued commands; nothing outside a transaction.
    pub queued: Option<usize>,
    /// Watched keys.
    pub watched: usize,
}

impl Client {
    /// A new connection.
    pub fn new(id: u64, peer: String, local: String, account: Arc<Account>) -> Self {
        let now_ms = clock::now_ms();
        Self {
            id,
            peer,
            local,
            accepted_ms: now_ms,
            active_ms: AtomicU64::new(now_ms),
            about: Mutex::new(About {
                name: Vec::new(),
                library: Vec::new(),
                library_version: Vec::new(),
                doing: Doing::default(),
                namespace: account.namespace(),
                login: Login { account, key: None },
            }),
            input_bytes: AtomicUsize::new(0),
            output_bytes: AtomicUsize::new(0),
            pushed: Mutex::default(),
            killed: AtomicBool::new(false),
            monitors: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Reads or changes what is shown.
    pub fn about<T>(&self, act: impl FnOnce(&mut About) -> T) -> T {
        act(&mut lock(&self.about))
    }

    /// Whether its end was asked for.
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Asks for its end.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Waits until its end is asked for, or something is pushed.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Has it send something that is no reply. One that does not read is ended.
    fn push(&self, bytes: &[u8]) {
        let mut pushed = lock(&self.pushed);
        if pushed.len() + bytes.len() > PUSHED_BYTES_MAX {
            pushed.clear();
            self.killed.store(true, Ordering::Release);
        } else {
            pushed.extend_from_slice(bytes);
        }
        self.wake.notify_one();
    }

    /// Moves what was pushed behind the replies.
    pub fn take_pushed(&self, output: &mut BytesMut) {
        if self.monitors.load(Ordering::Relaxed) {
            let pushed = std::mem::take(&mut *lock(&self.pushed));
            output.extend_from_slice(&pushed);
        }
    }

    /// Whether that is its user.
    pub fn is_of(&self, account: &Arc<Account>) -> bool {
        self.about(|about| Arc::ptr_eq(&about.login.account, account))
    }

    /// The API key it logged in by.
    pub fn api_key(&self) -> Option<u64> {
        self.about(|about| about.login.key)
    }

    /// Where its keys are.
    pub fn namespace(&self) -> NamespaceId {
        self.about(|about| about.namespace)
    }

    /// Its line of CLIENT LIST.
    pub fn line(&self) -> String {
        let about = self.about(|about| about.clone());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let now_ms = clock::now_ms();
        let [input, output] =
            [&self.input_bytes, &self.output_bytes].map(|bytes| bytes.load(Ordering::Relaxed));
        let flags = match (self.monitors.load(Ordering::Relaxed), about.doing.queued) {
            (true, _) => "O",
            (false, Some(_)) => "x",
            (false, None) => "N",
        };
        let seconds_since = |then_ms: u64| now_ms.saturating_sub(then_ms) / 1000;
        format!(
            "id={} addr={} laddr={} fd=0 name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi={} watch={} \
             qbuf={input} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem={output} tot-mem={} \
             events={} cmd={} \
             user={} redir=-1 resp={} lib-name={} lib-ver={}",
            self.id,
            self.peer,
            self.local,
            text(&about.name),
            seconds_since(self.accepted_ms),
            seconds_since(self.active_ms.load(Ordering::Relaxed)),
            flags,
            about.doing.queued.map_or("-1".to_owned(), |queued| queued.to_string()),
            about.doing.watched,
            input + output,
            if output == 0 { "r" } else { "rw" },
            about.doing.command,
            text(&about.login.account.name),
            if about.doing.protocol == Protocol::Resp3 { 3 } else { 2 },
            text(&about.library),
            text(&about.library_version),
        )
    }
}

/// A name without blanks or control characters.
pub(super) fn checked_name(name: &[u8]) -> Result<Vec<u8>, CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        Ok(name.to_vec())
    } else {
        Err(CommandError::text("ERR Client names cannot contain spaces, newlines or special characters."))
    }
}

const SYNTAX: CommandError = CommandError::text("ERR syntax error");

/// `CLIENT ID | INFO | LIST | KILL ... | GETNAME | SETNAME name | SETINFO option value | REPLY mode | NO-EVICT mode |
/// NO-TOUCH mode`
pub(super) fn client(
    session: &mut Session,
    context: &Context,
    request: &Request,
) -> Result<Reply, CommandError> {
    let verb = String::from_utf8_lossy(request.arg(1)).to_lowercase();
    match verb.as_str() {
        "id" => Ok(Reply::Integer(i64::try_from(session.client.id).unwrap_or(i64::MAX))),
        "info" => Ok(Reply::Verbatim(session.client.line() + "\n")),
        "list" => list(session, context, request),
        "kill" => kill(session, context, request),
        "getname" => {
            let name = session.client.about(|about| about.name.clone());
            Ok(if name.is_empty() { Reply::Null } else { Reply::bulk(&name) })
        }
        "setname" => {
            let name = checked_name(request.arg(2))?;
            session.client.about(|about| about.name = name);
            Ok(Reply::ok())
        }
        "setinfo" => set_info(session, request),
        "reply" => reply_mode(session, request.arg(2)),
        "no-evict" | "no-touch" => {
            let on_off = is_word(request.arg(2), "ON") || is_word(request.arg(2), "OFF");
            if on_off { Ok(Reply::ok()) } else { Err(SYNTAX) }
        }
        _ => Err(CommandError::text("ERR client-side caching is not supported: CLIENT TRACKING is refused")),
    }
}

fn set_info(session: &Session, request: &Request) -> Result<Reply, CommandError> {
    let (option, value) = (request.arg(2), request.arg(3));
    let known = is_word(option, "LIB-NAME") || is_word(option, "LIB-VER");
    let shown = String::from_utf8_lossy(option).into_owned();
    if !known {
        return Err(CommandError::Text(format!("ERR Unrecognized option '{shown}'").into()));
    }
    if !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        let text = format!("ERR {shown} cannot contain spaces, newlines or special characters.");
        return Err(CommandError::Text(text.into()));
    }
    session.client.about(|about| {
        let field = if is_word(option, "LIB-NAME") { &mut about.library } else { &mut about.library_version };
        *field = value.to_vec();
    });
    Ok(Reply::ok())
}

fn reply_mode(session: &mut Session, mode: &[u8]) -> Result<Reply, CommandError> {
    session.replies = if is_word(mode, "ON") {
        session.skipping = false;
        ReplyMode::On
    } else if is_word(mode, "OFF") {
        ReplyMode::Off
    } else if is_word(mode, "SKIP") {
        // What OFF began goes on.
        if session.replies == ReplyMode::Off { ReplyMode::Off } else { ReplyMode::SkipNext }
    } else {
        return Err(SYNTAX);
    };
    Ok(Reply::ok())
}

/// `CLIENT LIST [TYPE normal | master | replica | pubsub] [ID id ...]`
fn list(session: &Session, context: &Context, request: &Request) -> Result<Reply, CommandError> {
    let mut clients = context.clients();
    clients.retain(|client| is_visible(client, session));
    match request.get(2) {
        None => {}
        Some(word) if is_word(word, "TYPE") && request.len() == 4 => match request.arg(3) {
            kind if is_word(kind, "NORMAL") => {}
            kind if ["MASTER", "REPLICA", "SLAVE", "PUBSUB"].iter().any(|one| is_word(kind, one)) => {
                clients.clear()
            }
            kind => {
                let kind = String::from_utf8_lossy(kind);
                return Err(CommandError::Text(format!("ERR Unknown client type '{kind}'").into()));
            }
        },
        Some(word) if is_word(word, "ID") && request.len() > 3 => {
            let ids: Option<Vec<i64>> = request.args().skip(3).map(integer).collect();
            let ids = ids.ok_or(CommandError::text("ERR Invalid client ID"))?;
            clients.retain(|client| i64::try_from(client.id).is_ok_and(|id| ids.contains(&id)));
        }
        Some(_) => return Err(SYNTAX),
    }
    Ok(Reply::Verbatim(clients.iter().map(|client| client.line() + "\n").collect()))
}

/// Whether a session may know of a connection: who has a namespace of its own, only of those in it.
fn is_visible(client: &Client, session: &Session) -> bool {
    session.account.namespace() == NamespaceId::default() || client.namespace() == session.namespace
}

/// What a CLIENT KILL picks connections by.
#[derive(Default)]
struct Pick {
    id: Option<u64>,
    peer: Option<String>,
    local: Option<String>,
    user: Option<Vec<u8>>,
    /// Only kinds of connections there are none of.
    nobody: bool,
    /// The asking connection too.
    me: bool,
    max_age_s: Option<u64>,
}

impl Pick {
    fn takes(&self, client: &Client, session: &Session) -> bool {
        let age_s = clock::now_ms().saturating_sub(client.accepted_ms) / 1000;
        !self.nobody
            && is_visible(client, session)
            && self.user.as_ref().is_none_or(|user| client.about(|about| *about.login.account.name == **user))
            && self.id.is_none_or(|id| id == client.id)
            && self.peer.as_ref().is_none_or(|peer| *peer == client.peer)
            && self.local.as_ref().is_none_or(|local| *local == client.local)
            && self.max_age_s.is_none_or(|least_s| age_s >= least_s)
            && (self.me || client.id != session.client.id)
    }
}

/// `CLIENT KILL addr:port`, or filters: `[ID id] [ADDR addr] [LADDR addr] [TYPE kind] [USER name] [SKIPME yes | no]
/// [MAXAGE seconds]`
fn kill(session: &mut Session, context: &Context, request: &Request) -> Result<Reply, CommandError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if request.len() == 3 {
        let pick = Pick { peer: Some(text(request.arg(2))), me: true, ..Pick::default() };
        return match kill_picked(&pick, session, context) {
            0 => Err(CommandError::text("ERR No such client")),
            _ => Ok(Reply::ok()),
        };
    }
    let mut pick = Pick::default();
    let mut next = 2;
    while let Some(word) = request.get(next) {
        let value = request.get(next + 1).ok_or(SYNTAX)?;
        next += 2;
        let number = || integer(value).and_then(|number| u64::try_from(number).ok());
        if is_word(word, "ID") {
            pick.id = Some(
                number()
                    .filter(|&id| id > 0)
                    .ok_or(CommandError::text("ERR client-id should be greater than 0"))?,
            );
        } else if is_word(word, "ADDR") {
            pick.peer = Some(text(value));
        } else if is_word(word, "LADDR") {
            pick.local = Some(text(value));
        } else if is_word(word, "MAXAGE") {
            pick.max_age_s =
                Some(number().ok_or(CommandError::text("ERR maxage is not an integer or out of range"))?);
        } else if is_word(word, "SKIPME") && (is_word(value, "YES") || is_word(value, "NO")) {
            pick.me = is_word(value, "NO");
        } else if is_word(word, "TYPE") {
            pick.nobody |= !is_word(value, "NORMAL");
        } else if is_word(word, "USER") {
            pick.user = Some(value.to_vec());
        } else {
            return Err(SYNTAX);
        }
    }
    Ok(Reply::Integer(i64::try_from(kill_picked(&pick, session, context)).unwrap_or(i64::MAX)))
}

fn kill_picked(pick: &Pick, session: &mut Session, context: &Context) -> usize {
    let mut killed = 0;
    for client in context.clients() {
        if pick.takes(&client, session) {
            killed += 1;
            if client.id == session.client.id {
                // Its own end comes after the answer.
                session.closing = true;
            } else {
                client.kill();
            }
        }
    }
    killed
}

/// All connections, for CLIENT LIST and CLIENT KILL.
#[derive(Default)]
pub struct Clients {
    all: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// Those that gave MONITOR.
    monitors: Mutex<Vec<Arc<Client>>>,
    /// How many these are: mostly none, which is seen without the lock.
    monitor_count: AtomicUsize,
}

impl Clients {
    /// Notes a new connection.
    pub fn add(&self, client: &Arc<Client>) {
        lock(&self.all).insert(client.id, Arc::clone(client));
    }

    /// Forgets a connection.
    pub fn remove(&self, client: &Client) {
        lock(&self.all).remove(&client.id);
        self.stop_monitor(client);
    }

    /// The connections, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        lock(&self.all).values().cloned().collect()
    }

    /// Lets a connection see what the others do.
    pub fn monitor(&self, client: &Arc<Client>) {
        if !client.monitors.swap(true, Ordering::AcqRel) {
            let mut monitors = lock(&self.monitors);
            monitors.push(Arc::clone(client));
            self.monitor_count.store(monitors.len(), Ordering::Release);
        }
    }

    /// Ends that.
    pub fn stop_monitor(&self, client: &Client) {
        if client.monitors.swap(false, Ordering::AcqRel) {
            let mut monitors = lock(&self.monitors);
            monitors.retain(|one| one.id != client.id);
            self.monitor_count.store(monitors.len(), Ordering::Release);
            lock(&client.pushed).clear();
        }
    }

    /// Whether anybody wants to see what the others do.
    pub fn has_monitors(&self) -> bool {
        self.monitor_count.load(Ordering::Acquire) > 0
    }

    /// Shows those who want to see it a line.
    pub fn show(&self, line: &[u8]) {
        lock(&self.monitors).iter().for_each(|client| client.push(line));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
