//! What users use: noted in the log once a minute, shown in INFO. And the end of connections whose API key's time is over.

use std::fmt::Write;
use std::sync::Arc;

use super::{Call, Context};
use crate::access::Used;
use crate::access::log::Reason;
use crate::clock;
use crate::store::change::Change;
use crate::store::users::UserChange;
use crate::store::{Job, Txn, WriteError};

/// What each user has used, on its way into the log.
struct Note(Vec<Used>);

impl Job for Note {
    fn run(&mut self, txn: &mut Txn<'_>) {
        for Used { name, usage, last_used_ms } in self.0.drain(..) {
            txn.apply(&Change::Users(UserChange::Use { name, usage, last_used_ms }), None);
        }
        txn.end_record();
    }

    fn done(self: Box<Self>, _: Result<(), WriteError>) {}
}

/// Has the log note what users have used since the last time.
pub fn note(context: &Context) {
    if context.store.read_only || !context.access.is_loaded() {
        return;
    }
    let used = context.access.take_usage();
    if !used.is_empty() {
        context.store.write(Box::new(Note(used)));
    }
}

/// Ends the connections whose API key's time is over.
pub fn end_expired(context: &Context) {
    let now_ms = clock::now_ms();
    for client in context.clients() {
        if client.api_key().is_some_and(|key| context.access.is_dead(key, now_ms)) {
            client.kill();
        }
    }
}

/// The section of INFO: for users with a namespace of their own what they use, for others who is there.
pub(super) fn info(call: &Call<'_>, out: &mut String) {
    // Writing to a string cannot fail.
    let mut line = |name: &str, value: u64| {
        let _ = write!(out, "{name}:{value}\r\n");
    };
    if let Some(account) = call.scope.tenant() {
        let (usage, limits) = (account.usage(), account.record().limits);
        let totals = call.snapshot.totals(call.namespace);
        line("usage_commands", usage.commands);
        line("usage_texts", usage.texts);
        line("usage_tokens", usage.tokens);
        line("usage_vectors", totals.vectors);
        line("usage_bytes", totals.bytes);
        line("limit_requests_per_second", limits.requests_per_s);
        line("limit_vectors", limits.vectors);
        line("limit_bytes", limits.bytes);
        return;
    }
    let access = &call.context.access;
    let users = &call.snapshot.users;
    let keys = |record: &Arc<crate::store::users::UserRecord>| record.keys.len() as u64;
    line("users", access.accounts().len() as u64);
    line("api_keys", users.by_name.values().map(keys).sum());
    line("namespaces", users.namespaces.len() as u64);
    line("acl_access_denied_auth", access.log.count(Reason::Auth));
    line("acl_access_denied_cmd", access.log.count(Reason::Command));
    line("acl_access_denied_key", access.log.count(Reason::Key));
    line("acl_access_denied_channel", 0);
}
