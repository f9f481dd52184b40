//! `vecdis bench`: loads a set of made-up vectors into a running server, searches it, and says how quickly and how well.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::arguments::{Arguments, Subcommand};
use super::client::Command;
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::remote::Place;
use super::{CliError, print, recall};

/// The key of the set, removed at the end.
const KEY: &str = "vecdis:bench";
/// Vectors stand in clusters of about this many, as embeddings of real things do.
const CLUSTER_ELEMENTS: u64 = 50;
/// How far a vector lies from the centre of its cluster, as a share of the centre's length.
const SPREAD: f32 = 0.4;
/// Searches whose answers are compared with exact ones.
const RECALL_QUERIES: u64 = 100;

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "bench",
    words: &[],
    values: &[],
    optional: &[
        ("--server", "HOST:PORT"),
        ("--elements", "N"),
        ("--dims", "D"),
        ("--queries", "Q"),
        ("--count", "K"),
        ("--connections", "C"),
        ("--pipeline", "P"),
    ],
    flags: &["--json", "--noquant"],
    summary: "measure a running server's loading, searching and recall with made-up vectors",
    text: "Adds N (100,000) vectors of D (384) dimensions in clusters to the set vecdis:bench, searches Q (10,000) times for the K (10)
nearest, over C (4) connections with P (16) commands in flight on each, and removes the set. A latency is the time from
sending a command to having its answer, the wait behind others of its pipeline counted. Recall is that of 100 searches against
exact ones. Works with Redis too. The bench's own work shares the machine with a server on it.
",
    failure_code: 1,
    run,
};

/// What is to be done.
#[derive(Clone, Copy)]
struct Plan {
    elements: u64,
    dims: usize,
    queries: u64,
    count: u64,
    connections: u64,
    pipeline: u64,
    noquant: bool,
}

/// How long some operations took.
struct Timed {
    operations: u64,
    seconds: f64,
    /// Of each, in order of size.
    latencies_us: Vec<f64>,
}

fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let number = |name, default, most| arguments.number(name, default, 1, most);
    let plan = Plan {
        elements: number("--elements", 100_000, 1 << 32)?,
        dims: usize::try_from(number("--dims", 384, 65_536)?).unwrap_or(1),
        queries: number("--queries", 10_000, 1 << 32)?,
        count: number("--count", 10, 100_000)?,
        connections: number("--connections", 4, 1024)?,
        pipeline: number("--pipeline", 16, 10_000)?,
        noquant: arguments.has("--noquant"),
    };
    let place = Place::parse(arguments.value("--server").unwrap_or_default())?;
    let mut client = place.connect()?;
    client.call(&Command::new(["DEL", KEY]))?;
    let measured = measure(&place, plan);
    // The set goes whatever happened.
    client.call(&Command::new(["DEL", KEY]))?;
    let Some((load, search, found)) = measured? else {
        print("interrupted; the set has been removed\n")?;
        return Ok(ExitCode::from(130));
    };
    if arguments.has("--json") {
        let value = json!({
            "elements": plan.elements, "dims": plan.dims, "connections": plan.connections, "pipeline": plan.pipeline,
            "load": load.json(), "search": search.json(), "count": plan.count, "recall_mean": found.mean,
            "recall_min": found.least,
        });
        return print(&format!("{value}\n"));
    }
    print(&table(plan, &load, &search, &found))
}

/// Loads, searches and compares; nothing if Ctrl-C came.
fn measure(place: &Place, plan: Plan) -> Result<Option<(Timed, Timed, recall::Found)>, CliError> {
    let interrupt = Arc::new(Interrupt::watch());
    let load = timed(place, plan, plan.elements, "elements", &interrupt, move |at| {
        let add = Command::new(["VADD", KEY, "FP32"]).arg(blob(&vector(plan, at, 0))).arg(format!("e{at}"));
        if plan.noquant { add.arg("NOQUANT") } else { add }
    })?;
    let Some(load) = load else { return Ok(None) };
    let search = timed(place, plan, plan.queries, "searches", &interrupt, move |at| {
        // A query lies in a cluster, as an element does, and is none.
        let vector = vector(plan, at.wrapping_mul(7919) % plan.elements, 1);
        Command::new(["VSIM", KEY, "FP32"]).arg(blob(&vector)).arg("COUNT").arg(plan.count.to_string())
    })?;
    let Some(search) = search else { return Ok(None) };
    let found = recall::measure(&mut place.connect()?, KEY.as_bytes(), RECALL_QUERIES, plan.count, None)?;
    Ok(Some((load, search, found)))
}

/// Sends commands over all connections; nothing if Ctrl-C came.
fn timed(
    place: &Place,
    plan: Plan,
    operations: u64,
    what: &'static str,
    interrupt: &Arc<Interrupt>,
    command: impl Fn(u64) -> Command + Clone + Send + 'static,
) -> Result<Option<Timed>, CliError> {
    let progress = Arc::new(Progress::count(what, Some(operations)));
    let began = Instant::now();
    let start = |connection: u64| {
        let (mut client, command) = (place.connect()?, command.clone());
        let (progress, interrupt) = (Arc::clone(&progress), Arc::clone(interrupt));
        Ok(thread::spawn(move || {
            let mut latencies: Vec<Duration> = Vec::new();
            let own: Vec<u64> =
                (connection..operations).step_by(usize::try_from(plan.connections).unwrap_or(1)).collect();
            for places in own.chunks(usize::try_from(plan.pipeline).unwrap_or(1)) {
                if interrupt.has_come() {
                    break;
                }
                let commands: Vec<Command> = places.iter().map(|&at| command(at)).collect();
                latencies.extend(client.pipeline_timed(&commands)?);
                progress.add(places.len() as u64);
            }
            Ok(latencies)
        }))
    };
    let threads = (0..plan.connections).map(start).collect::<Result<Vec<_>, CliError>>()?;
    let mut latencies_us: Vec<f64> = Vec::new();
    for thread in threads {
        let done: Result<Vec<Duration>, CliError> =
            thread.join().map_err(|_| CliError::Data("a thread of the bench has failed".to_owned()))?;
        latencies_us.extend(done?.iter().map(|latency| latency.as_secs_f64() * 1e6));
    }
    latencies_us.sort_by(f64::total_cmp);
    let timed = Timed { operations, seconds: began.elapsed().as_secs_f64(), latencies_us };
    Ok((!interrupt.has_come()).then_some(timed))
}

/// The vector of that number; `kind` 1 is that of a query beside it.
fn vector(plan: Plan, at: u64, kind: u64) -> Vec<f32> {
    let mut centre = Random(at / CLUSTER_ELEMENTS);
    let mut own = Random(at << 1 | kind | 1 << 63);
    (0..plan.dims).map(|_| centre.component() + SPREAD * own.component()).collect()
}

fn blob(vector: &[f32]) -> Vec<u8> {
    bytemuck::cast_slice(vector).to_vec()
}

/// Random numbers that are the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    /// From -1 to 1.
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit f32")]
    fn component(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

impl Timed {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// The latency that this share (in percent) of the operations stay within.
    fn percentile_us(&self, percent: usize) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get(last * percent / 100).copied().unwrap_or(0.0)
    }

    fn json(&self) -> Value {
        json!({
            "operations": self.operations, "seconds": self.seconds, "per_second": self.per_second(),
            "latency_p50_us": self.percentile_us(50), "latency_p95_us": self.percentile_us(95),
            "latency_p99_us": self.percentile_us(99), "latency_max_us": self.percentile_us(100),
        })
    }
}

fn table(plan: Plan, load: &Timed, search: &Timed, found: &recall::Found) -> String {
    let Plan { elements, dims, connections, pipeline, count, .. } = plan;
    let mut text = format!(
        "{elements} elements of {dims} dimensions, {connections} connections, {pipeline} in flight on each\n\n\
         {:<8} {:>12} {:>10} {:>10} {:>10} {:>10}\n",
        "", "per second", "p50 us", "p95 us", "p99 us", "max us"
    );
    for (name, timed) in [("load", load), ("search", search)] {
        let [p50, p95, p99, max] = [50, 95, 99, 100].map(|percent| timed.percentile_us(percent));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<8} {:>12.0} {p50:>10.0} {p95:>10.0} {p99:>10.0} {max:>10.0}",
            timed.per_second()
        );
    }
    let _ = writeln!(text, "\nrecall@{count} {:.4} (worst {:.4})", found.mean, found.least);
    text
}
