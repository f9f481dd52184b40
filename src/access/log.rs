//! What was refused lately, for ACL LOG: wrong passwords, and commands and keys that a user may not use.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Entries that are kept.
const MAX_ENTRIES: usize = 128;
/// The same within this time is one entry.
const SAME_WITHIN_MS: u64 = 60_000;
/// Longest name or key that an entry shows.
const SHOWN_BYTES: usize = 256;

/// Why something was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A wrong password, or no such user.
    Auth,
    /// A command.
    Command,
    /// A key.
    Key,
}

impl Reason {
    /// As ACL LOG shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Command => "command",
            Self::Key => "key",
        }
    }
}

/// Something that was refused.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Number of the entry.
    pub id: u64,
    /// How often.
    pub count: u64,
    /// Why.
    pub reason: Reason,
    /// Whether it came in a transaction.
    pub in_multi: bool,
    /// The command or key.
    pub object: Vec<u8>,
    /// The user, or the name somebody tried to log in by.
    pub user: Vec<u8>,
    /// The connection, as CLIENT LIST shows it.
    pub client: String,
    /// First time, unix milliseconds.
    pub created_ms: u64,
    /// Last time, unix milliseconds.
    pub updated_ms: u64,
}

/// What was refused lately, newest first, and how much in all.
#[derive(Default)]
pub struct Log {
    entries: Mutex<(VecDeque<Entry>, u64)>,
    counts: [AtomicU64; 3],
}

/// The beginning of what a client sent.
pub fn shown(bytes: &[u8]) -> Vec<u8> {
    bytes[..bytes.len().min(SHOWN_BYTES)].to_vec()
}

impl Log {
    /// Notes a refusal.
    pub fn add(&self, mut entry: Entry) {
        self.counts[entry.reason as usize].fetch_add(1, Ordering::Relaxed);
        let mut guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let (entries, next_id) = &mut *guard;
        let same = entries.iter().position(|known| {
            known.reason == entry.reason
                && known.in_multi == entry.in_multi
                && known.object == entry.object
                && known.user == entry.user
                && entry.updated_ms.saturating_sub(known.updated_ms) <= SAME_WITHIN_MS
        });
        if let Some(known) = same.and_then(|at| entries.remove(at)) {
            entry = Entry { id: known.id, count: known.count + 1, created_ms: known.created_ms, ..entry };
        } else {
            entry.id = *next_id;
            *next_id += 1;
        }
        entries.push_front(entry);
        entries.truncate(MAX_ENTRIES);
    }

    /// The newest entries, as many as asked for.
    pub fn newest(&self, count: usize) -> Vec<Entry> {
        let guard = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        guard.0.iter().take(count).cloned().collect()
    }

    /// Forgets all entries.
    pub fn reset(&self) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).0.clear();
    }

    /// How often something was refused for a reason.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }
}
