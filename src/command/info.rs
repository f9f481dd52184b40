//! INFO.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::connection::REDIS_VERSION;
use super::reply::Reply;
use super::{Call, CommandError, Outcome, usage};
use crate::clock;
use crate::heap::heap_bytes;
use crate::store::LoadStats;
use crate::vector::kernel::Kernel;

/// Clock ticks a second of /proc/self/stat; Linux shows 100 to programs on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

type Section = (&'static str, fn(&Call<'_>, &mut String));

const SECTIONS: &[Section] = &[
    ("server", server),
    ("clients", clients),
    ("memory", memory),
    ("persistence", persistence),
    ("stats", stats),
    ("replication", replication),
    ("cpu", cpu),
    ("vectors", vectors),
    ("keyspace", keyspace),
    ("access", usage::info),
];

/// The sections that users with a namespace of their own see: the others are about everybody.
const OWN_SECTIONS: &[&str] = &["server", "replication", "keyspace", "access"];

/// `INFO [section ...]`
pub(super) fn info(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let wanted = |name: &str| {
        call.request.len() == 1
            || call.request.args().skip(1).any(|word| {
                ["all", "everything", "default", name]
                    .iter()
                    .any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
            })
    };
    let mut text = String::new();
    let shown = |name: &&str| call.scope.tenant().is_none() || OWN_SECTIONS.contains(name);
    for (name, write) in SECTIONS.iter().filter(|(name, _)| wanted(name) && shown(name)) {
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let (first, rest) = name.split_at(1);
        line(&mut text, format_args!("# {}{rest}", first.to_uppercase()));
        write(call, &mut text);
    }
    Ok(Outcome::Reply(Reply::Verbatim(text)))
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = write!(out, "{text}\r\n");
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn server(call: &Call<'_>, out: &mut String) {
    let context = call.context;
    let uptime_s = clock::now_ms().saturating_sub(context.started_ms) / 1000;
    line(out, format_args!("redis_version:{REDIS_VERSION}"));
    line(out, format_args!("vecdis_version:{}", env!("CARGO_PKG_VERSION")));
    line(out, format_args!("redis_mode:standalone"));
    line(out, format_args!("os:{}", std::env::consts::OS));
    line(out, format_args!("arch_bits:{}", usize::BITS));
    line(out, format_args!("process_id:{}", std::process::id()));
    line(out, format_args!("run_id:{}", context.run_id));
    line(out, format_args!("tcp_port:{}", context.port));
    line(out, format_args!("uptime_in_seconds:{uptime_s}"));
    line(out, format_args!("uptime_in_days:{}", uptime_s / 86_400));
}

fn clients(call: &Call<'_>, out: &mut String) {
    line(out, format_args!("connected_clients:{}", get(&call.context.metrics.clients)));
    line(out, format_args!("maxclients:{}", call.context.config().maxclients));
    line(out, format_args!("blocked_clients:0"));
}

fn memory(call: &Call<'_>, out: &mut String) {
    let used = heap_bytes();
    line(out, format_args!("used_memory:{used}"));
    line(out, format_args!("used_memory_human:{:.2}M", used as f64 / f64::from(1 << 20)));
    line(out, format_args!("used_memory_rss:{}", resident_bytes("VmRSS:")));
    line(out, format_args!("used_memory_anon:{}", resident_bytes("RssAnon:")));
    line(out, format_args!("used_memory_mapped:{}", resident_bytes("RssFile:")));
    line(out, format_args!("maxmemory:{}", call.context.config().maxmemory_bytes));
    line(out, format_args!("maxmemory_policy:noeviction"));
}

/// A line of /proc/self/status, in bytes; 0 where there is none.
fn resident_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn persistence(call: &Call<'_>, out: &mut String) {
    let store = &call.context.store;
    let checkpoints = store.checkpoints();
    let running = checkpoints.running.load(Ordering::Relaxed);
    let status = if checkpoints.failed.load(Ordering::Relaxed) { "err" } else { "ok" };
    let config = call.context.config();
    loading(store.load(), out);
    line(out, format_args!("rdb_bgsave_in_progress:{}", u8::from(running)));
    line(out, format_args!("rdb_last_save_time:{}", get(&checkpoints.last_s)));
    line(out, format_args!("rdb_last_bgsave_status:{status}"));
    line(
        out,
        format_args!(
            "rdb_changes_since_last_save:{}",
            call.snapshot.sequence.saturating_sub(get(&checkpoints.sequence))
        ),
    );
    line(out, format_args!("aof_enabled:{}", u8::from(config.appendonly && !store.read_only)));
    line(out, format_args!("read_only:{}", u8::from(store.read_only)));
    line(out, format_args!("aof_rewrite_in_progress:{}", u8::from(running)));
    line(out, format_args!("aof_last_bgrewrite_status:{status}"));
    let broken = store.writes().broken.load(Ordering::Relaxed);
    line(out, format_args!("aof_last_write_status:{}", if broken { "err" } else { "ok" }));
    line(out, format_args!("aof_current_size:{}", get(&store.writes().log_bytes)));
    line(out, format_args!("compactions:{}", get(&checkpoints.compactions)));
    line(out, format_args!("aof_base_size:{}", get(&checkpoints.size_bytes)));
    line(out, format_args!("log_sequence:{}", call.snapshot.sequence));
    let unsynced = call.snapshot.sequence.saturating_sub(get(&store.writes().synced));
    line(out, format_args!("log_unsynced_records:{unsynced}"));
    line(out, format_args!("log_failures:{}", get(&store.writes().failures)));
    line(out, format_args!("log_replayed_records:{}", get(&store.load().records)));
    line(out, format_args!("log_cut_bytes:{}", get(&store.load().cut_bytes)));
}

fn loading(load: &LoadStats, out: &mut String) {
    line(out, format_args!("loading:{}", u8::from(load.is_loading())));
    line(out, format_args!("async_loading:0"));
    if load.is_loading() {
        line(out, format_args!("loading_start_time:{}", get(&load.started_ms) / 1000));
        line(out, format_args!("loading_total_bytes:{}", get(&load.total_bytes)));
        line(out, format_args!("loading_loaded_bytes:{}", get(&load.loaded_bytes)));
        line(out, format_args!("loading_loaded_perc:{:.2}", load.percent()));
    }
}

fn stats(call: &Call<'_>, out: &mut String) {
    let metrics = &call.context.metrics;
    line(out, format_args!("total_connections_received:{}", get(&metrics.connections)));
    line(out, format_args!("total_commands_processed:{}", get(&metrics.commands)));
    line(out, format_args!("total_net_input_bytes:{}", get(&metrics.input_bytes)));
    line(out, format_args!("total_net_output_bytes:{}", get(&metrics.output_bytes)));
    line(out, format_args!("rejected_connections:{}", get(&metrics.rejected_connections)));
    line(out, format_args!("total_error_replies:{}", get(&metrics.errors)));
}

fn replication(_: &Call<'_>, out: &mut String) {
    line(out, format_args!("role:master"));
    line(out, format_args!("connected_slaves:0"));
}

fn cpu(_: &Call<'_>, out: &mut String) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses and may hold blanks; times are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds = |index: usize| {
        let ticks = fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
        f64::from(ticks) / TICKS_PER_SECOND
    };
    line(out, format_args!("used_cpu_sys:{:.6}", seconds(12)));
    line(out, format_args!("used_cpu_user:{:.6}", seconds(11)));
}

fn vectors(call: &Call<'_>, out: &mut String) {
    let metrics = &call.context.metrics;
    let (mut elements, mut rows, mut chunks) = (0, 0, 0);
    for (_, collection) in call.snapshot.keys(call.namespace) {
        elements += collection.len();
        rows += collection.rows();
        chunks += collection.chunks.len();
    }
    line(out, format_args!("vector_collections:{}", call.snapshot.key_count(call.namespace)));
    line(out, format_args!("vector_elements:{elements}"));
    line(out, format_args!("vector_rows:{rows}"));
    line(out, format_args!("vector_chunks:{chunks}"));
    line(out, format_args!("vector_kernel:{}", Kernel::active().name()));
    line(out, format_args!("searches:{}", get(&metrics.searches)));
    line(out, format_args!("search_passes:{}", get(&metrics.search_passes)));
    line(out, format_args!("graph_searches:{}", get(&metrics.graph_searches)));
    line(out, format_args!("graph_fallbacks:{}", get(&metrics.graph_fallbacks)));
    line(out, format_args!("graph_builds:{}", get(&metrics.graph_builds)));
    line(out, format_args!("graph_unlinked_rows:{}", get(&metrics.graph_unlinked_rows)));
    line(out, format_args!("embedded_texts:{}", get(&metrics.embedded_texts)));
    line(out, format_args!("embedded_tokens:{}", get(&metrics.embedded_tokens)));
    line(out, format_args!("embedding_cache_hits:{}", get(&metrics.embedding_cache_hits)));
}

fn keyspace(call: &Call<'_>, out: &mut String) {
    let keys = call.snapshot.key_count(call.namespace);
    if keys > 0 {
        let now_ms = clock::now_ms();
        let left = call.snapshot.expirations.iter().filter(|(_, namespace, _)| *namespace == call.namespace);
        let left: Vec<u64> = left.map(|(at_ms, _, _)| at_ms.saturating_sub(now_ms)).collect();
        let mean_ms = left.iter().sum::<u64>() / (left.len() as u64).max(1);
        line(out, format_args!("db0:keys={keys},expires={},avg_ttl={mean_ms}", left.len()));
    }
}
