//! INFO.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::client::Client;
use super::connection::REDIS_VERSION;
use super::memory::{Usage, status_bytes};
use super::parse::is_word;
use super::reply::Reply;
use super::table::COMMANDS;
use super::{Call, CommandError, Outcome, usage};
use crate::clock;
use crate::collection::plan::Plan;
use crate::metrics::commands::CommandStats;
use crate::metrics::histogram::Counts;
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
    ("modules", modules),
    ("commandstats", commandstats),
    ("errorstats", errorstats),
    ("latencystats", latencystats),
    ("cluster", cluster),
    ("vectors", vectors),
    ("keyspace", keyspace),
    ("access", usage::info),
];

/// The sections that users with a namespace of their own see: the others are about everybody.
const OWN_SECTIONS: &[&str] = &["server", "replication", "keyspace", "access"];

/// Sections that are only shown when they, or all, are asked for.
const NOT_DEFAULT: &[&str] = &["commandstats", "latencystats"];

/// `INFO [section ...]`
pub(super) fn info(call: &Call<'_>) -> Result<Outcome, CommandError> {
    let wanted = |name: &str| {
        let is_default = !NOT_DEFAULT.contains(&name);
        (call.request.len() == 1 && is_default)
            || call.request.args().skip(1).any(|word| {
                is_word(word, name)
                    || is_word(word, "all")
                    || is_word(word, "everything")
                    || (is_default && is_word(word, "default"))
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
    let config = context.config();
    let now_us = clock::now_us();
    let uptime_s = (now_us / 1000).saturating_sub(context.started_ms) / 1000;
    let path = |path: std::io::Result<std::path::PathBuf>| path.unwrap_or_default().display().to_string();
    line(out, format_args!("redis_version:{REDIS_VERSION}"));
    line(out, format_args!("vecdis_version:{}", env!("CARGO_PKG_VERSION")));
    line(out, format_args!("redis_git_sha1:00000000"));
    line(out, format_args!("redis_git_dirty:0"));
    line(out, format_args!("redis_build_id:{}", env!("CARGO_PKG_VERSION")));
    line(out, format_args!("redis_mode:standalone"));
    line(out, format_args!("os:{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(out, format_args!("arch_bits:{}", usize::BITS));
    line(out, format_args!("multiplexing_api:epoll"));
    line(out, format_args!("process_id:{}", std::process::id()));
    line(out, format_args!("run_id:{}", context.run_id));
    line(out, format_args!("tcp_port:{}", context.port));
    line(out, format_args!("server_time_usec:{now_us}"));
    line(out, format_args!("uptime_in_seconds:{uptime_s}"));
    line(out, format_args!("uptime_in_days:{}", uptime_s / 86_400));
    line(out, format_args!("hz:10"));
    line(out, format_args!("configured_hz:10"));
    line(out, format_args!("executable:{}", path(std::env::current_exe())));
    line(out, format_args!("config_file:{}", path(Ok(config.file.clone().unwrap_or_default()))));
}

fn clients(call: &Call<'_>, out: &mut String) {
    let clients = call.context.clients();
    let most =
        |bytes: &dyn Fn(&Client) -> usize| clients.iter().map(|client| bytes(client)).max().unwrap_or(0);
    let watched: Vec<usize> =
        clients.iter().map(|client| client.about(|about| about.doing.watched)).collect();
    line(out, format_args!("connected_clients:{}", get(&call.context.metrics.clients)));
    line(out, format_args!("cluster_connections:0"));
    line(out, format_args!("maxclients:{}", call.context.config().maxclients));
    let input = most(&|client| client.input_bytes.load(Ordering::Relaxed));
    line(out, format_args!("client_recent_max_input_buffer:{input}"));
    let output = most(&|client| client.output_bytes.load(Ordering::Relaxed));
    line(out, format_args!("client_recent_max_output_buffer:{output}"));
    line(out, format_args!("blocked_clients:0"));
    line(out, format_args!("tracking_clients:0"));
    line(out, format_args!("pubsub_clients:0"));
    line(out, format_args!("watching_clients:{}", watched.iter().filter(|&&keys| keys > 0).count()));
    line(out, format_args!("clients_in_timeout_table:0"));
    line(out, format_args!("total_watched_keys:{}", watched.iter().sum::<usize>()));
    line(out, format_args!("total_blocking_keys:0"));
}

/// A size for people, as Redis shows it.
fn human(bytes: u64) -> String {
    let unit = [('G', 30), ('M', 20), ('K', 10)].into_iter().find(|(_, bits)| bytes >> bits > 0);
    unit.map_or_else(
        || format!("{bytes}B"),
        |(unit, bits)| format!("{:.2}{unit}", bytes as f64 / f64::from(1u32 << bits)),
    )
}

fn memory(call: &Call<'_>, out: &mut String) {
    let usage = Usage::now(call.context, call.snapshot);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = status_bytes(&meminfo, "MemTotal:");
    let most = call.context.config().maxmemory_bytes;
    let mut size = |name: &str, bytes: u64| {
        line(out, format_args!("{name}:{bytes}"));
        line(out, format_args!("{name}_human:{}", human(bytes)));
    };
    size("used_memory", usage.used);
    size("used_memory_rss", usage.resident);
    size("used_memory_peak", usage.peak);
    size("total_system_memory", total);
    size("maxmemory", most);
    line(out, format_args!("maxmemory_policy:noeviction"));
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    line(out, format_args!("used_memory_peak_perc:{:.2}%", percent(usage.used, usage.peak)));
    line(out, format_args!("used_memory_overhead:{}", usage.used.saturating_sub(usage.dataset)));
    line(out, format_args!("used_memory_dataset:{}", usage.dataset));
    line(out, format_args!("used_memory_dataset_perc:{:.2}%", percent(usage.dataset, usage.used)));
    line(out, format_args!("used_memory_anon:{}", usage.anonymous));
    line(out, format_args!("used_memory_mapped:{}", usage.of_files));
    line(out, format_args!("mem_clients_normal:{}", usage.buffers));
    line(out, format_args!("mem_fragmentation_ratio:{:.2}", usage.ratio()));
    line(out, format_args!("mem_fragmentation_bytes:{}", usage.anonymous.saturating_sub(usage.used)));
    line(out, format_args!("mem_allocator:libc"));
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
    let rates = &metrics.rates;
    let kib = |rate: &AtomicU64| get(rate) as f64 / 1024.0;
    line(out, format_args!("total_connections_received:{}", get(&metrics.connections)));
    line(out, format_args!("total_commands_processed:{}", metrics.totals().commands));
    line(out, format_args!("instantaneous_ops_per_sec:{}", get(&rates.commands)));
    line(out, format_args!("total_net_input_bytes:{}", get(&metrics.input_bytes)));
    line(out, format_args!("total_net_output_bytes:{}", get(&metrics.output_bytes)));
    line(out, format_args!("instantaneous_input_kbps:{:.2}", kib(&rates.input_bytes)));
    line(out, format_args!("instantaneous_output_kbps:{:.2}", kib(&rates.output_bytes)));
    line(out, format_args!("rejected_connections:{}", get(&metrics.rejected_connections)));
    line(out, format_args!("evicted_keys:0"));
    line(out, format_args!("keyspace_hits:{}", get(&metrics.keyspace_hits)));
    line(out, format_args!("keyspace_misses:{}", get(&metrics.keyspace_misses)));
    line(out, format_args!("pubsub_channels:0"));
    line(out, format_args!("pubsub_patterns:0"));
    line(out, format_args!("total_error_replies:{}", get(&metrics.errors)));
    let disconnections = get(&metrics.output_limit_disconnections);
    line(out, format_args!("client_output_buffer_limit_disconnections:{disconnections}"));
}

fn replication(call: &Call<'_>, out: &mut String) {
    line(out, format_args!("role:master"));
    line(out, format_args!("connected_slaves:0"));
    line(out, format_args!("master_failover_state:no-failover"));
    line(out, format_args!("master_replid:{}", call.context.run_id));
    line(out, format_args!("master_replid2:{:040}", 0));
    line(out, format_args!("master_repl_offset:0"));
    line(out, format_args!("second_repl_offset:-1"));
    line(out, format_args!("repl_backlog_active:0"));
    line(out, format_args!("repl_backlog_size:0"));
    line(out, format_args!("repl_backlog_first_byte_offset:0"));
    line(out, format_args!("repl_backlog_histlen:0"));
}

/// CPU time of the process and of its children that have ended, in seconds: user, system.
pub(super) fn cpu_seconds() -> [[f64; 2]; 2] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses and may hold blanks; times are fields 14 to 17.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds = |index: usize| {
        let ticks = fields.get(index).and_then(|field| field.parse::<u32>().ok()).unwrap_or(0);
        f64::from(ticks) / TICKS_PER_SECOND
    };
    [[seconds(11), seconds(12)], [seconds(13), seconds(14)]]
}

fn cpu(_: &Call<'_>, out: &mut String) {
    let [[user, system], [user_children, system_children]] = cpu_seconds();
    line(out, format_args!("used_cpu_sys:{system:.6}"));
    line(out, format_args!("used_cpu_user:{user:.6}"));
    line(out, format_args!("used_cpu_sys_children:{system_children:.6}"));
    line(out, format_args!("used_cpu_user_children:{user_children:.6}"));
}

fn modules(_: &Call<'_>, out: &mut String) {
    line(out, format_args!("module:name=vectorset,ver=1,api=1,filters=0,usedby=[],using=[],options=[]"));
}

/// Commands that were called, or refused, with their names in lower case as Redis shows them here.
fn called<'a>(call: &Call<'a>) -> impl Iterator<Item = (&'static str, &'a CommandStats, Counts)> {
    let stats = COMMANDS.iter().zip(&call.context.metrics.commands);
    let counted = stats.map(|(spec, stats)| (spec.name, stats, stats.times()));
    counted.filter(|(_, stats, times)| times.total() + get(&stats.rejected) > 0)
}

fn commandstats(call: &Call<'_>, out: &mut String) {
    for (name, stats, times) in called(call) {
        let (calls, us) = (times.total(), stats.total_ns() / 1000);
        let mean_us = stats.total_ns() as f64 / 1000.0 / calls.max(1) as f64;
        line(
            out,
            format_args!(
                "cmdstat_{name}:calls={calls},usec={us},usec_per_call={mean_us:.2},rejected_calls={},failed_calls={}",
                get(&stats.rejected),
                get(&stats.failed)
            ),
        );
    }
}

fn errorstats(call: &Call<'_>, out: &mut String) {
    for (code, count) in call.context.metrics.error_kinds() {
        line(out, format_args!("errorstat_{code}:count={count}"));
    }
}

fn latencystats(call: &Call<'_>, out: &mut String) {
    for (name, _, times) in called(call).filter(|(_, _, times)| times.total() > 0) {
        let [p50, p99, p999] = [50.0, 99.0, 99.9].map(|percent| times.percentile_ns(percent) as f64 / 1000.0);
        line(out, format_args!("latency_percentiles_usec_{name}:p50={p50:.3},p99={p99:.3},p99.9={p999:.3}"));
    }
}

fn cluster(_: &Call<'_>, out: &mut String) {
    line(out, format_args!("cluster_enabled:0"));
}

fn vectors(call: &Call<'_>, out: &mut String) {
    let metrics = &call.context.metrics;
    let (mut elements, mut rows, mut chunks, mut sketched) = (0, 0, 0, 0);
    for (_, collection) in call.snapshot.keys(call.namespace) {
        elements += collection.len();
        rows += collection.rows();
        chunks += collection.chunks.len();
        sketched += collection.sketches.rows();
    }
    line(out, format_args!("vector_collections:{}", call.snapshot.key_count(call.namespace)));
    line(out, format_args!("vector_elements:{elements}"));
    line(out, format_args!("vector_rows:{rows}"));
    line(out, format_args!("vector_chunks:{chunks}"));
    line(out, format_args!("vector_sketched_rows:{sketched}"));
    line(out, format_args!("vector_kernel:{}", Kernel::active().name()));
    line(out, format_args!("searches:{}", get(&metrics.searches)));
    line(out, format_args!("search_passes:{}", get(&metrics.search_passes)));
    let shared = get(&metrics.searches) as f64 / get(&metrics.search_passes).max(1) as f64;
    line(out, format_args!("searches_per_pass:{shared:.2}"));
    for (plan, count) in Plan::ALL.into_iter().zip(&metrics.plans) {
        line(out, format_args!("plan_{}:{}", plan.name().replace(' ', "_"), get(count)));
    }
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
