//! What is noted of each command: counters, the slow log, slow moments, and the lines of MONITOR.
//!
//! A call's time runs from its begin to its reply: waiting for the writer, the log or the search threads counts.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Context;
use super::client::Client;
use super::parse::is_word;
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::table::CommandSpec;
use crate::clock;
use crate::metrics::commands::Tally;
use crate::metrics::slow::SlowCall;

/// Arguments of a command that are shown, and bytes of each.
const SHOWN_ARGUMENTS: usize = 32;
const SHOWN_BYTES: usize = 128;
/// A request of more bytes is not kept until its reply: only what can be shown of it.
const KEPT_BYTES: usize = 64 << 10;
/// What stands in the place of a secret.
const HIDDEN: &[u8] = b"(redacted)";

/// The calls of one batch of a connection, on their way to the counters.
pub struct Calls<'a> {
    context: &'a Context,
    tally: Tally,
    /// When the last one was over: the next one begins there.
    last: Instant,
}

impl<'a> Calls<'a> {
    /// None yet.
    pub fn new(context: &'a Context) -> Self {
        Self { context, tally: Tally::default(), last: Instant::now() }
    }

    /// The begin of a call whose reply comes later.
    pub fn begin_waiting(&mut self) -> Instant {
        std::mem::replace(&mut self.last, Instant::now())
    }

    /// Counts a call that has just been answered and began where the last one ended.
    pub fn add(&mut self, spec: &CommandSpec, reply: &Reply) -> Duration {
        let begun = self.begin_waiting();
        self.count(spec, reply, self.last - begun)
    }

    /// As [`Calls::add`]; what is slow is shown.
    pub fn add_shown(&mut self, spec: &CommandSpec, reply: &Reply, request: &Request, client: &Client) {
        let time = self.add(spec, reply);
        self.show_slow(spec, time, request, client);
    }

    /// Counts a call whose reply has just come.
    pub fn add_waited(
        &mut self,
        spec: &CommandSpec,
        reply: &Reply,
        begun: Instant,
        request: &Request,
        client: &Client,
    ) {
        let time = self.count(spec, reply, begun.elapsed());
        self.show_slow(spec, time, request, client);
    }

    fn count(&mut self, spec: &CommandSpec, reply: &Reply, time: Duration) -> Duration {
        let all = &self.context.metrics.commands;
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.tally.add(all, spec.number(), ns);
        if reply.is_error() {
            all[spec.number()].failed.fetch_add(1, Ordering::Relaxed);
        }
        time
    }

    fn show_slow(&self, spec: &CommandSpec, time: Duration, request: &Request, client: &Client) {
        let metrics = &self.context.metrics;
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        if metrics.slow_log.takes(time_us) {
            metrics.slow_log.add(SlowCall {
                id: 0,
                at_s: clock::now_ms() / 1000,
                time_us,
                arguments: shown(request),
                peer: client.peer.clone(),
                name: client.about(|about| about.name.clone()),
            });
        }
        if time_us >= 1000 {
            let event = if spec.flags.contains(&"fast") { "fast-command" } else { "command" };
            metrics.latency.note(event, time_us / 1000, clock::now_ms() / 1000);
        }
    }
}

impl Drop for Calls<'_> {
    fn drop(&mut self) {
        self.tally.count(&self.context.metrics.commands);
    }
}

/// Counts a call that was refused before it began.
pub(super) fn rejected(context: &Context, spec: Option<&CommandSpec>) {
    if let Some(stats) = spec.and_then(|spec| context.metrics.commands.get(spec.number())) {
        stats.rejected.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is kept of a request until its reply is there.
pub fn kept(request: Request) -> Request {
    if request.size_bytes() <= KEPT_BYTES { request } else { Request::from_args(shown(&request)) }
}

/// Name and arguments as others may see them: without secrets, and cut.
fn shown(request: &Request) -> Vec<Vec<u8>> {
    let cut = |argument: &[u8]| match argument.len().checked_sub(SHOWN_BYTES) {
        None | Some(0) => argument.to_vec(),
        Some(more) => [&argument[..SHOWN_BYTES], format!("... ({more} more bytes)").as_bytes()].concat(),
    };
    let is_cut = request.len() > SHOWN_ARGUMENTS;
    let count = if is_cut { SHOWN_ARGUMENTS - 1 } else { request.len() };
    let mut shown: Vec<Vec<u8>> = (0..count)
        .map(|at| if is_secret(request, at) { HIDDEN.to_vec() } else { cut(request.arg(at)) })
        .collect();
    if is_cut {
        shown.push(format!("... ({} more arguments)", request.len() - count).into_bytes());
    }
    shown
}

/// Whether an argument may be a password, or stand beside one.
fn is_secret(request: &Request, at: usize) -> bool {
    let is = |index: usize, word: &str| request.get(index).is_some_and(|given| is_word(given, word));
    if is(0, "AUTH") {
        at >= 1
    } else if is(0, "HELLO") {
        at >= 2 && (2..at).any(|before| is(before, "AUTH"))
    } else if is(0, "ACL") {
        at >= 3
    } else if is(0, "APIKEY") || is(0, "NAMESPACE") {
        at >= 2
    } else if is(0, "CONFIG") && is(1, "SET") {
        let option = |index: usize| request.arg(index).to_ascii_lowercase();
        at >= 3 && at % 2 == 1 && {
            let option = option(at - 1);
            ["pass", "secret", "key", "token"].iter().any(|part| contains(&option, part.as_bytes()))
        }
    } else {
        false
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Shows a command to the connections that gave MONITOR.
pub(super) fn show_monitors(session: &Session, context: &Context, request: &Request) {
    if !context.clients.has_monitors() {
        return;
    }
    let now_us = clock::now_us();
    let mut line = format!("+{}.{:06} [0 {}]", now_us / 1_000_000, now_us % 1_000_000, session.client.peer);
    for at in 0..request.len() {
        let argument = if is_secret(request, at) { HIDDEN } else { request.arg(at) };
        line.push_str(" \"");
        argument.iter().for_each(|byte| push_escaped(&mut line, *byte));
        line.push('"');
    }
    line.push_str("\r\n");
    context.clients.show(line.as_bytes());
}

/// As redis-cli reads it back.
fn push_escaped(line: &mut String, byte: u8) {
    match byte {
        b'"' => line.push_str("\\\""),
        b'\\' => line.push_str("\\\\"),
        b'\n' => line.push_str("\\n"),
        b'\r' => line.push_str("\\r"),
        b'\t' => line.push_str("\\t"),
        b' '..=b'~' => line.push(char::from(byte)),
        byte => line.push_str(&format!("\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> String {
        let shown = shown(&Request::from_args(words));
        shown.iter().map(|word| String::from_utf8(word.clone()).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn secrets_are_not_shown() {
        for (words, expected) in [
            ("auth user pass", "auth (redacted) (redacted)"),
            ("HELLO 3 auth user pass SETNAME x", "HELLO 3 auth (redacted) (redacted) (redacted) (redacted)"),
            ("HELLO 3 SETNAME x", "HELLO 3 SETNAME x"),
            ("ACL SETUSER alice on >pass", "ACL SETUSER alice (redacted) (redacted)"),
            ("ACL WHOAMI", "ACL WHOAMI"),
            ("config set requirepass a timeout 5", "config set requirepass (redacted) timeout 5"),
            ("CONFIG SET timeout 5 tls-key-file-pass x", "CONFIG SET timeout 5 tls-key-file-pass (redacted)"),
            ("CONFIG GET requirepass", "CONFIG GET requirepass"),
            ("VADD k VALUES 1 1 auth", "VADD k VALUES 1 1 auth"),
        ] {
            assert_eq!(line(&words.split(' ').collect::<Vec<_>>()), expected);
        }
    }

    #[test]
    fn long_requests_are_cut() {
        let long = "x".repeat(200);
        assert_eq!(line(&["ECHO", &long]), format!("ECHO {}... (72 more bytes)", "x".repeat(128)));
        let many = line(&["DEL"; 100]);
        assert_eq!(many.split(' ').count(), 31 + 4);
        assert!(many.ends_with("... (69 more arguments)"));
        let kept = kept(Request::from_args([&"y".repeat(1 << 20), ""]));
        assert!(kept.size_bytes() < 200);
    }
}
