//! `vecdis recall`: how many of the true nearest neighbours a set's searches find.

use std::collections::HashSet;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::json;

use super::arguments::{Arguments, Subcommand};
use super::client::{BytesFrame, Client, Command};
use super::interrupt::Interrupt;
use super::progress::Progress;
use super::remote::{Place, bulk};
use super::{CliError, print};

/// Queries and results if nothing else is said.
const DEFAULT_QUERIES: u64 = 200;
const DEFAULT_COUNT: u64 = 10;
/// Most of either.
const MAX_QUERIES: u64 = 1_000_000;

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "recall",
    words: &["KEY"],
    values: &[],
    optional: &[("--server", "HOST:PORT"), ("--queries", "N"), ("--count", "K"), ("--ef", "EF")],
    flags: &["--json"],
    summary: "measure the recall of a set's searches against exact ones, on a running server",
    text: "Searches with the vectors of N (200) random elements for their K (10) nearest, as clients do, with EF if it is given, and once
more with TRUTH. Recall is the share of the true neighbours that the first search found. Works with Redis too. The set should
be at rest: a write between the two searches counts as a miss.
",
    failure_code: 1,
    run,
};

/// What the searches of a set have found.
pub struct Found {
    /// Queries compared.
    pub queries: u64,
    /// Mean and least recall.
    pub mean: f64,
    /// The worst query's.
    pub least: f64,
    /// Mean time of a search as clients do it, and of an exact one, waiting for the answer counted.
    pub search_us: f64,
    /// See `search_us`.
    pub exact_us: f64,
}

fn run(arguments: &Arguments) -> Result<ExitCode, CliError> {
    let key = arguments.word(0).as_bytes();
    let place = Place::parse(arguments.value("--server").unwrap_or_default())?;
    let queries = arguments.number("--queries", DEFAULT_QUERIES, 1, MAX_QUERIES)?;
    let count = arguments.number("--count", DEFAULT_COUNT, 1, MAX_QUERIES)?;
    let mut client = place.connect()?;
    let found = measure(&mut client, key, queries, count, arguments.value("--ef"))?;
    if arguments.has("--json") {
        let value = json!({
            "key": arguments.word(0), "count": count, "queries": found.queries, "recall_mean": found.mean,
            "recall_min": found.least, "search_us": found.search_us, "exact_us": found.exact_us,
        });
        return print(&format!("{value}\n"));
    }
    print(&format!(
        "recall@{count} {:.4} (worst {:.4}) over {} queries; a search takes {:.0} us, an exact one {:.0} us\n",
        found.mean, found.least, found.queries, found.search_us, found.exact_us
    ))
}

/// Compares the searches for random elements with exact ones.
///
/// # Errors
/// When there is no such set, or a search fails.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn measure(
    client: &mut Client,
    key: &[u8],
    queries: u64,
    count: u64,
    ef: Option<&str>,
) -> Result<Found, CliError> {
    let sample = Command::new(["VRANDMEMBER"]).arg(key).arg(queries.to_string());
    let names = list(&client.call(&sample)?);
    if names.is_empty() {
        return Err(CliError::Data(format!("there is no vector set {:?}", String::from_utf8_lossy(key))));
    }
    let interrupt = Interrupt::watch();
    let progress = Progress::count("queries", Some(names.len() as u64));
    let mut found = Found { queries: 0, mean: 0.0, least: 1.0, search_us: 0.0, exact_us: 0.0 };
    for name in names {
        if interrupt.has_come() {
            break;
        }
        let search = Command::new(["VSIM"]).arg(key).arg("ELE").arg(name).arg("COUNT").arg(count.to_string());
        let as_clients = match ef {
            Some(ef) => search.clone().arg("EF").arg(ef),
            None => search.clone(),
        };
        let mut timed = |command: &Command| {
            let began = Instant::now();
            let answer = client.call(command)?;
            Ok::<_, CliError>((list(&answer), began.elapsed().as_secs_f64() * 1e6))
        };
        let (approximate, search_us) = timed(&as_clients)?;
        let (exact, exact_us) = timed(&search.arg("TRUTH"))?;
        let approximate: HashSet<Vec<u8>> = approximate.into_iter().collect();
        let hits = exact.iter().filter(|name| approximate.contains(*name)).count();
        let recall = if exact.is_empty() { 1.0 } else { hits as f64 / exact.len() as f64 };
        found.queries += 1;
        found.mean += recall;
        found.least = found.least.min(recall);
        found.search_us += search_us;
        found.exact_us += exact_us;
        progress.add(1);
    }
    let queries = found.queries.max(1) as f64;
    for sum in [&mut found.mean, &mut found.search_us, &mut found.exact_us] {
        *sum /= queries;
    }
    Ok(found)
}

fn list(answer: &BytesFrame) -> Vec<Vec<u8>> {
    match answer {
        BytesFrame::Array(items) => items.iter().filter_map(bulk).collect(),
        _ => Vec::new(),
    }
}
