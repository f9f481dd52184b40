//! MEMORY: what a key takes, and what the server takes.

use std::sync::atomic::Ordering;

use super::parse::is_word;
use super::reply::Reply;
use super::{Call, CommandError, Context, Outcome};
use crate::heap;
use crate::store::state::Snapshot;

/// Share of resident memory over used memory from which on MEMORY DOCTOR speaks up, and the least difference for it.
const HIGH_RATIO: f64 = 1.5;
const HIGH_DIFFERENCE_BYTES: u64 = 64 << 20;
/// Share of `maxmemory` in use from which on it does.
const NEARLY_FULL: f64 = 0.9;

/// `MEMORY USAGE key [SAMPLES n] | STATS | DOCTOR | PURGE | MALLOC-STATS`
pub(super) fn memory(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let verb = call.request.arg(1);
    Ok(Outcome::Reply(if is_word(verb, "USAGE") {
        usage(call)?
    } else if call.scope.tenant().is_some() {
        return Err(CommandError::text("NOPERM the memory of the server is not for users of a namespace"));
    } else if is_word(verb, "STATS") {
        stats(call)
    } else if is_word(verb, "DOCTOR") {
        Reply::Verbatim(doctor(call))
    } else if is_word(verb, "PURGE") {
        heap::trim();
        Reply::ok()
    } else {
        Reply::Verbatim("The heap is that of the C library; MEMORY STATS tells its size.".to_owned())
    }))
}

/// Bytes of heap a key takes; mapped files are not counted.
fn usage(call: &Call<'_>) -> Result<Reply, CommandError> {
    let request = call.request;
    match request.len() {
        3 => {}
        5 if is_word(request.arg(3), "SAMPLES") => {
            let samples = super::parse::integer(request.arg(4)).filter(|&samples| samples >= 0);
            samples.ok_or(CommandError::text("ERR value is not an integer or out of range"))?;
        }
        _ => return Err(CommandError::text("ERR syntax error")),
    }
    let bytes = call
        .collection(2)
        .map(|_| call.snapshot.size_bytes(call.namespace, &call.key(2)) + request.arg(2).len());
    Ok(bytes.map_or(Reply::Null, Reply::integer))
}

/// The memory of the process, in bytes.
pub(super) struct Usage {
    /// The heap and arenas.
    pub used: u64,
    /// The most that ever was.
    pub peak: u64,
    /// Buffers of the connections.
    pub buffers: u64,
    /// The collections.
    pub dataset: u64,
    /// Resident memory.
    pub resident: u64,
    /// Resident memory that is no file's.
    pub anonymous: u64,
    /// Resident pages of files.
    pub of_files: u64,
}

impl Usage {
    /// What is in use now.
    pub fn now(context: &Context, snapshot: &Snapshot) -> Self {
        let metrics = &context.metrics;
        let used = heap::heap_bytes() as u64;
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let dataset: usize = snapshot.collections().map(|(_, _, collection)| collection.size_bytes()).sum();
        Self {
            used,
            peak: metrics.rates.peak_bytes(used),
            buffers: metrics.buffers_bytes.load(Ordering::Relaxed),
            dataset: dataset as u64,
            resident: status_bytes(&status, "VmRSS:"),
            anonymous: status_bytes(&status, "RssAnon:"),
            of_files: status_bytes(&status, "RssFile:"),
        }
    }

    /// Anonymous resident memory for each byte in use.
    pub fn ratio(&self) -> f64 {
        self.anonymous as f64 / self.used.max(1) as f64
    }
}

/// A line of /proc/self/status, in bytes; 0 where there is none.
pub(super) fn status_bytes(status: &str, field: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn stats(call: &Call<'_>) -> Reply {
    let usage = Usage::now(call.context, call.snapshot);
    let keys = call.snapshot.key_count(call.namespace) as u64;
    let overhead = usage.used.saturating_sub(usage.dataset);
    let share = |part: u64| Reply::Double(100.0 * part as f64 / usage.used.max(1) as f64);
    Reply::fields([
        ("peak.allocated", Reply::integer(usage.peak)),
        ("total.allocated", Reply::integer(usage.used)),
        ("clients.normal", Reply::integer(usage.buffers)),
        ("overhead.total", Reply::integer(overhead)),
        ("keys.count", Reply::integer(keys)),
        ("keys.bytes-per-key", Reply::integer(usage.dataset / keys.max(1))),
        ("dataset.bytes", Reply::integer(usage.dataset)),
        ("dataset.percentage", share(usage.dataset)),
        ("peak.percentage", Reply::Double(100.0 * usage.used as f64 / usage.peak.max(1) as f64)),
        ("allocator.resident", Reply::integer(usage.anonymous)),
        ("mapped.resident", Reply::integer(usage.of_files)),
        ("fragmentation", Reply::Double(usage.ratio())),
        ("fragmentation.bytes", Reply::integer(usage.anonymous.saturating_sub(usage.used))),
    ])
}

fn doctor(call: &Call<'_>) -> String {
    let usage = Usage::now(call.context, call.snapshot);
    let most = call.context.config().maxmemory_bytes;
    let mut text = String::new();
    if most > 0 && usage.used as f64 > NEARLY_FULL * most as f64 {
        text.push_str("maxmemory is nearly reached: writes are refused beyond it. SAVE moves sealed rows to mapped files.\n");
    }
    if usage.ratio() > HIGH_RATIO && usage.anonymous > usage.used + HIGH_DIFFERENCE_BYTES {
        text.push_str("Much freed memory is kept by the allocator. MEMORY PURGE gives it back.\n");
    }
    if text.is_empty() {
        text.push_str("Nothing is wrong with the memory.\n");
    }
    text
}
