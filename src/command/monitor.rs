//! Watching the server: MONITOR, SLOWLOG, LATENCY.

use super::parse::{integer_within, is_word};
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::table::{self, COMMANDS, CommandSpec};
use super::{CommandError, Context};
use crate::metrics::slow::{SlowCall, Spikes};

/// Entries that SLOWLOG GET shows if no count is given.
const SLOWLOG_SHOWN: usize = 10;
/// LATENCY HISTOGRAM's bounds are powers of two up to this one, in microseconds: about a minute.
const HISTOGRAM_BITS: u32 = 26;

/// `MONITOR`
pub(super) fn monitor(session: &mut Session, context: &Context, _: &Request) -> Result<Reply, CommandError> {
    context.clients.monitor(&session.client);
    Ok(Reply::ok())
}

/// `SLOWLOG GET [count] | LEN | RESET`
pub(super) fn slowlog(_: &mut Session, context: &Context, request: &Request) -> Result<Reply, CommandError> {
    let log = &context.metrics.slow_log;
    let verb = request.arg(1);
    if is_word(verb, "LEN") {
        return Ok(number(log.len() as u64));
    }
    if is_word(verb, "RESET") {
        log.reset();
        return Ok(Reply::ok());
    }
    let count = match request.get(2) {
        None => SLOWLOG_SHOWN,
        Some(word) => {
            let count = integer_within(word, -1, i64::MAX)
                .ok_or(CommandError::text("ERR count should be greater than or equal to -1"))?;
            usize::try_from(count).unwrap_or(usize::MAX)
        }
    };
    Ok(Reply::Array(log.last(count).into_iter().map(entry).collect()))
}

fn entry(call: SlowCall) -> Reply {
    Reply::Array(vec![
        number(call.id),
        number(call.at_s),
        number(call.time_us),
        Reply::Array(call.arguments.into_iter().map(|argument| Reply::Bulk(argument.into())).collect()),
        Reply::Bulk(call.peer.into()),
        Reply::Bulk(call.name.into()),
    ])
}

fn number(value: u64) -> Reply {
    Reply::Integer(i64::try_from(value).unwrap_or(i64::MAX))
}

/// `LATENCY LATEST | HISTORY event | HISTOGRAM [command ...] | RESET [event ...] | DOCTOR`
pub(super) fn latency(_: &mut Session, context: &Context, request: &Request) -> Result<Reply, CommandError> {
    let monitor = &context.metrics.latency;
    let verb = request.arg(1);
    if is_word(verb, "LATEST") {
        return Ok(Reply::Array(
            monitor.events().iter().map(|(event, spikes)| latest(event, spikes)).collect(),
        ));
    }
    if is_word(verb, "HISTORY") {
        let mut events = monitor.events();
        let event = String::from_utf8_lossy(request.arg(2)).into_owned();
        let history = events.remove(event.as_str()).unwrap_or_default().history;
        let pair = |(at_s, ms)| Reply::Array(vec![number(at_s), number(ms)]);
        return Ok(Reply::Array(history.into_iter().map(pair).collect()));
    }
    if is_word(verb, "HISTOGRAM") {
        return Ok(histograms(context, request));
    }
    if is_word(verb, "DOCTOR") {
        return Ok(Reply::Verbatim(doctor(context)));
    }
    let named = |event: &str| request.args().skip(2).any(|word| is_word(word, event));
    Ok(number(monitor.reset(|event| request.len() == 2 || named(event)) as u64))
}

fn latest(event: &'static str, spikes: &Spikes) -> Reply {
    let (at_s, ms) = spikes.history.back().copied().unwrap_or_default();
    Reply::Array(vec![Reply::text(event), number(at_s), number(ms), number(spikes.max_ms)])
}

/// Calls by command, with how many took at most 1, 2, 4, ... microseconds.
fn histograms(context: &Context, request: &Request) -> Reply {
    let chosen: Vec<&CommandSpec> = match request.len() {
        2 => COMMANDS.iter().collect(),
        _ => request.args().skip(2).filter_map(table::find).collect(),
    };
    let histogram = |spec: &CommandSpec| {
        let times = context.metrics.commands[spec.number()].times();
        let total = times.total();
        if total == 0 {
            return None;
        }
        let mut bounds = Vec::new();
        let mut before = 0;
        for bits in 0..=HISTOGRAM_BITS {
            // The bounds of the counters are powers of two of nanoseconds: 1024 are taken for a microsecond.
            let below = times.below(1024 << bits);
            if below > before {
                bounds.push((number(1 << bits), number(below)));
            }
            before = below;
        }
        let fields =
            vec![(Reply::text("calls"), number(total)), (Reply::text("histogram_usec"), Reply::Map(bounds))];
        Some((Reply::Bulk(spec.error_name().into_owned().to_lowercase().into()), Reply::Map(fields)))
    };
    Reply::Map(chosen.into_iter().filter_map(histogram).collect())
}

fn doctor(context: &Context) -> String {
    let events = context.metrics.latency.events();
    let threshold_ms = context.config().latency_monitor_threshold_ms;
    if threshold_ms == 0 {
        return "Slow moments are not watched. CONFIG SET latency-monitor-threshold <milliseconds> begins it.\n"
            .to_owned();
    }
    if events.is_empty() {
        return format!("Nothing has taken {threshold_ms} ms or more.\n");
    }
    let line = |(event, spikes): (&&str, &Spikes)| {
        let seconds = spikes.history.len();
        let mean_ms = spikes.history.iter().map(|(_, ms)| ms).sum::<u64>() / (seconds as u64).max(1);
        format!(
            "{event}: slow in {seconds} seconds, {mean_ms} ms in the mean, {} ms at worst.\n",
            spikes.max_ms
        )
    };
    let mut text: String = events.iter().map(line).collect();
    text.push_str(
        "SLOWLOG GET shows the commands; INFO commandstats and LATENCY HISTOGRAM show how usual it is.\n",
    );
    text
}
