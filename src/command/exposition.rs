//! The page that Prometheus reads: what INFO tells, as its text format 0.0.4. Names end in their unit; `_total` only grows.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use super::Context;
use super::info::cpu_seconds;
use super::memory;
use super::table::COMMANDS;
use crate::clock;
use crate::collection::plan::Plan;
use crate::metrics::histogram::Counts;
use crate::store::state::{NamespaceId, Totals};
use crate::store::users::Usage;
use crate::vector::kernel::Kernel;

/// Bounds of the times of commands: 2 to the power of these many nanoseconds, from 1 microsecond to 69 seconds. They are
/// bounds of the counters themselves.
const BOUND_BITS: std::ops::RangeInclusive<u32> = 10..=36;
const NS_PER_S: f64 = 1e9;

/// A page being written.
#[derive(Default)]
struct Page(String);

impl Page {
    /// Begins a metric. Its lines follow.
    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = write!(self.0, "# HELP vecdis_{name} {help}\n# TYPE vecdis_{name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _ = writeln!(self.0, "vecdis_{name}{labels} {value}");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, "gauge", help);
        self.line(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.begin(name, "counter", help);
        self.line(name, &[], value);
    }
}

/// A label's value; only names of users have what must be escaped.
fn escaped(value: &str) -> Cow<'_, str> {
    match value.contains(['\\', '"']) {
        true => value.replace('\\', r"\\").replace('"', r#"\""#).into(),
        false => value.into(),
    }
}

/// Everything, as it is now.
pub fn page(context: &Context) -> String {
    let mut page = Page::default();
    server(&mut page, context);
    connections(&mut page, context);
    commands(&mut page, context);
    memory_use(&mut page, context);
    data(&mut page, context);
    persistence(&mut page, context);
    users(&mut page, context);
    page.0
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn server(page: &mut Page, context: &Context) {
    page.begin("info", "gauge", "What is running.");
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("kernel", Kernel::active().name())];
    page.line("info", &labels, 1);
    page.gauge(
        "start_time_seconds",
        "When the server started, unix seconds.",
        context.started_ms as f64 / 1000.0,
    );
    let ready = !context.store.load().is_loading();
    page.gauge("ready", "Whether the data are loaded.", u8::from(ready));
    page.begin("cpu_seconds_total", "counter", "CPU time used.");
    let [[user, system], _] = cpu_seconds();
    page.line("cpu_seconds_total", &[("mode", "user")], user);
    page.line("cpu_seconds_total", &[("mode", "system")], system);
}

fn connections(page: &mut Page, context: &Context) {
    let metrics = &context.metrics;
    page.gauge("connected_clients", "Connections open now.", get(&metrics.clients));
    page.gauge("maxclients", "Connections there may be.", context.config().maxclients);
    page.counter("connections_total", "Connections accepted.", get(&metrics.connections));
    page.counter(
        "rejected_connections_total",
        "Connections refused by maxclients.",
        get(&metrics.rejected_connections),
    );
    let disconnections = get(&metrics.output_limit_disconnections);
    page.counter(
        "output_limit_disconnections_total",
        "Connections ended because they did not read.",
        disconnections,
    );
    page.counter("input_bytes_total", "Bytes read from clients.", get(&metrics.input_bytes));
    page.counter("output_bytes_total", "Bytes written to clients.", get(&metrics.output_bytes));
    page.gauge("buffers_bytes", "Bytes in the buffers of the connections.", get(&metrics.buffers_bytes));
}

fn commands(page: &mut Page, context: &Context) {
    let metrics = &context.metrics;
    let called: Vec<_> = COMMANDS
        .iter()
        .zip(&metrics.commands)
        .map(|(spec, stats)| (spec.name, stats, stats.times()))
        .filter(|(_, stats, times)| times.total() + get(&stats.rejected) > 0)
        .collect();
    page.begin("command_duration_seconds", "histogram", "Times of commands, from begin to reply.");
    for (name, stats, times) in called.iter().filter(|(_, _, times)| times.total() > 0) {
        histogram(page, name, times, stats.total_ns());
    }
    page.begin("command_failures_total", "counter", "Commands answered with an error.");
    for (name, stats, _) in &called {
        page.line("command_failures_total", &[("command", name)], get(&stats.failed));
    }
    page.begin("command_rejections_total", "counter", "Commands refused before they began.");
    for (name, stats, _) in &called {
        page.line("command_rejections_total", &[("command", name)], get(&stats.rejected));
    }
    page.counter("keyspace_hits_total", "Keys that reading commands found.", get(&metrics.keyspace_hits));
    page.counter("keyspace_misses_total", "Keys that they did not find.", get(&metrics.keyspace_misses));
    page.begin("errors_total", "counter", "Error replies by their code.");
    for (code, count) in metrics.error_kinds() {
        page.line("errors_total", &[("code", &code)], count);
    }
    page.gauge("slowlog_length", "Commands in the slow log.", metrics.slow_log.len());
}

fn histogram(page: &mut Page, command: &str, times: &Counts, total_ns: u64) {
    let bucket = "command_duration_seconds_bucket";
    for bits in BOUND_BITS {
        let bound_ns = 1u64 << bits;
        let bound = (bound_ns as f64 / NS_PER_S).to_string();
        page.line(bucket, &[("command", command), ("le", &bound)], times.below(bound_ns));
    }
    page.line(bucket, &[("command", command), ("le", "+Inf")], times.total());
    let labels = [("command", command)];
    page.line("command_duration_seconds_sum", &labels, total_ns as f64 / NS_PER_S);
    page.line("command_duration_seconds_count", &labels, times.total());
}

fn memory_use(page: &mut Page, context: &Context) {
    let usage = memory::Usage::now(context, &context.store.snapshot());
    page.gauge("memory_used_bytes", "Heap and arenas in use.", usage.used);
    page.gauge("memory_peak_bytes", "The most that was in use.", usage.peak);
    page.gauge("memory_dataset_bytes", "What the collections take of it.", usage.dataset);
    page.gauge("memory_resident_bytes", "Resident memory, mapped files included.", usage.resident);
    page.gauge("memory_mapped_bytes", "Resident pages of mapped files.", usage.of_files);
    page.gauge("memory_max_bytes", "maxmemory; 0 is no limit.", context.config().maxmemory_bytes);
}

fn data(page: &mut Page, context: &Context) {
    let metrics = &context.metrics;
    let snapshot = context.store.snapshot();
    let (mut keys, mut elements, mut rows, mut chunks) = (0, 0, 0, 0);
    for (namespace, _, collection) in snapshot.collections() {
        if !namespace.holds_fields() {
            keys += 1;
            elements += collection.len();
        }
        rows += collection.rows();
        chunks += collection.chunks.len();
    }
    page.gauge("collections", "Collections, of all namespaces.", keys);
    page.gauge("elements", "Elements in them.", elements);
    page.gauge("rows", "Rows, dead ones included.", rows);
    page.gauge("chunks", "Chunks of rows.", chunks);
    page.gauge("expiring_collections", "Collections that go by themselves.", snapshot.expirations.len());
    page.counter("searches_total", "Searches made.", get(&metrics.searches));
    page.counter("search_passes_total", "Passes over rows that answered them.", get(&metrics.search_passes));
    page.begin("plans_total", "counter", "Searches by how they were answered.");
    for (plan, count) in Plan::ALL.into_iter().zip(&metrics.plans) {
        page.line("plans_total", &[("plan", plan.name())], get(count));
    }
    page.counter(
        "graph_fallbacks_total",
        "Searches that left a graph for a scan.",
        get(&metrics.graph_fallbacks),
    );
    page.counter("graph_builds_total", "Graphs built.", get(&metrics.graph_builds));
    page.gauge("graph_unlinked_rows", "Rows that no graph covers yet.", get(&metrics.graph_unlinked_rows));
    page.counter("embedded_texts_total", "Texts embedded by a model.", get(&metrics.embedded_texts));
    page.counter("embedded_tokens_total", "Tokens of these texts.", get(&metrics.embedded_tokens));
    let hits = get(&metrics.embedding_cache_hits);
    page.counter("embedding_cache_hits_total", "Texts whose vectors were in the cache.", hits);
}

/// What each user with a namespace of its own uses.
fn users(page: &mut Page, context: &Context) {
    let snapshot = context.store.snapshot();
    let tenants = context.access.accounts();
    let tenants = tenants.iter().filter(|account| account.namespace() != NamespaceId::default());
    let tenants: Vec<_> = tenants
        .map(|account| {
            let name = String::from_utf8_lossy(&account.name).into_owned();
            (name, account.usage(), snapshot.totals(account.namespace()))
        })
        .collect();
    let mut each = |name: &str, kind: &str, help: &str, value: fn(&Usage, &Totals) -> u64| {
        page.begin(name, kind, help);
        for (user, usage, totals) in &tenants {
            page.line(name, &[("user", user)], value(usage, totals));
        }
    };
    each("user_commands_total", "counter", "Commands of a user with a namespace.", |usage, _| usage.commands);
    each("user_texts_total", "counter", "Texts it gave to be embedded.", |usage, _| usage.texts);
    each("user_tokens_total", "counter", "Tokens that models read of them.", |usage, _| usage.tokens);
    each("user_vectors", "gauge", "Vectors in its namespace.", |_, totals| totals.vectors);
    each("user_vector_bytes", "gauge", "Bytes of these vectors as f32.", |_, totals| totals.bytes);
}

fn persistence(page: &mut Page, context: &Context) {
    let store = &context.store;
    let (checkpoints, writes) = (store.checkpoints(), store.writes());
    let flag = |flag: &std::sync::atomic::AtomicBool| u8::from(flag.load(Ordering::Relaxed));
    let sequence = store.snapshot().sequence;
    page.counter("log_records_total", "Number of the last log record.", sequence);
    page.gauge("log_bytes", "Bytes of log that a start would replay.", get(&writes.log_bytes));
    let unsynced = sequence.saturating_sub(get(&writes.synced));
    page.gauge("log_unsynced_records", "Records not known to be on disk.", unsynced);
    page.counter(
        "log_failures_total",
        "Times that the log could not be written or synced.",
        get(&writes.failures),
    );
    page.gauge("log_broken", "Whether writes are refused because the log failed.", flag(&writes.broken));
    page.counter("published_batches_total", "Batches of writes published.", get(&writes.batches));
    page.gauge("checkpoint_running", "Whether a checkpoint is under way.", flag(&checkpoints.running));
    page.gauge("checkpoint_failed", "Whether the last checkpoint failed.", flag(&checkpoints.failed));
    let age_s = (clock::now_ms() / 1000).saturating_sub(get(&checkpoints.last_s));
    page.gauge("checkpoint_age_seconds", "Time since the last checkpoint, or the start.", age_s);
    page.gauge("checkpoint_bytes", "Bytes of the last checkpoint.", get(&checkpoints.size_bytes));
    page.counter("compactions_total", "Times that chunks were rewritten.", get(&checkpoints.compactions));
}
