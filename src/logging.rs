//! Log lines in the form operators of Redis know: `PID:M 21 Nov 2026 01:05:09.123 * message`.
//!
//! The mark says how important a line is: `.` debug, `-` verbose, `*` notice, `#` warning. Dates are UTC. A
//! line stays one line: control characters in it (they may come from a client) are escaped.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Registry, reload};

use crate::clock;
use crate::config::{Config, LogFormat, LogLevel};

/// Why logging could not begin.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The log file cannot be opened.
    #[error("cannot open the log file {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Logging began before: there is one log for the process.
    #[error("logging has already begun")]
    Twice,
}

/// Changes the level of the running log.
type LevelHandle = reload::Handle<LevelFilter, Registry>;

static LEVEL: OnceLock<LevelHandle> = OnceLock::new();

/// Begins logging for the whole process, to `logfile` (lines are added at its end) or standard output, from
/// `loglevel` up.
///
/// # Errors
/// The file cannot be opened, or logging has already begun.
pub fn init(config: &Config) -> Result<(), LoggingError> {
    let writer = if config.logfile.as_os_str().is_empty() {
        BoxMakeWriter::new(std::io::stdout)
    } else {
        let opened = OpenOptions::new().create(true).append(true).open(&config.logfile);
        let open_error = |source| LoggingError::Open { path: config.logfile.clone(), source };
        BoxMakeWriter::new(Arc::new(opened.map_err(open_error)?))
    };
    let (subscriber, level) = subscriber(writer, config.loglevel, config.log_format);
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LoggingError::Twice)?;
    LEVEL.set(level).map_err(|_| LoggingError::Twice)
}

/// Changes the level of the running log (`CONFIG SET loglevel`). Nothing happens when logging has not begun.
pub fn set_level(level: LogLevel) {
    if let Some(handle) = LEVEL.get() {
        // The only failure is that the log is gone, and then there is no level to change.
        let _ = handle.reload(filter(level));
    }
}

fn subscriber<W>(
    writer: W,
    level: LogLevel,
    format: LogFormat,
) -> (impl Subscriber + Send + Sync, LevelHandle)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(level));
    // Internal errors would go to standard error with a macro that panics when it is closed.
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Line { pid: std::process::id(), format })
        .with_writer(writer)
        .log_internal_errors(false);
    (tracing_subscriber::registry().with(filter).with(lines), handle)
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
        LogLevel::Nothing => LevelFilter::OFF,
    }
}

fn mark(level: Level) -> char {
    match level {
        Level::TRACE => '.',
        Level::DEBUG => '-',
        Level::INFO => '*',
        _ => '#',
    }
}

/// The form of a line.
struct Line {
    pid: u32,
    format: LogFormat,
}

impl Line {
    fn json(&self, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = JsonFields(serde_json::Map::new());
        fields.0.insert("time".into(), Iso(clock::now_ms()).to_string().into());
        fields.0.insert("level".into(), level_name(*event.metadata().level()).into());
        fields.0.insert("pid".into(), self.pid.into());
        event.record(&mut fields);
        writeln!(out, "{}", serde_json::Value::Object(fields.0))
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::TRACE => "debug",
        Level::DEBUG => "verbose",
        Level::INFO => "notice",
        _ => "warning",
    }
}

/// The fields of a line in JSON: numbers as numbers, else text.
struct JsonFields(serde_json::Map<String, serde_json::Value>);

impl Visit for JsonFields {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.format == LogFormat::Json {
            return self.json(out, event);
        }
        write!(out, "{}:M {} {}", self.pid, Date(clock::now_ms()), mark(*event.metadata().level()))?;
        let mut fields = Fields { out: OneLine(out), result: Ok(()) };
        event.record(&mut fields);
        fields.result?;
        fields.out.0.write_char('\n')
    }
}

/// Writes the message as it is, other fields as `name=value`.
struct Fields<'a> {
    out: OneLine<'a>,
    result: fmt::Result,
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.out, " {value:?}"),
            name => write!(self.out, " {name}={value:?}"),
        };
        self.result = self.result.and(written);
    }
}

/// Passes text on with control characters escaped.
struct OneLine<'a>(Writer<'a>);

impl fmt::Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive(char::is_control) {
            match piece.char_indices().next_back() {
                Some((at, last)) if last.is_control() => {
                    write!(self.0, "{}{}", &piece[..at], last.escape_default())?;
                }
                _ => self.0.write_str(piece)?,
            }
        }
        Ok(())
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Milliseconds since 1970 in UTC, shown as `21 Nov 2026 01:05:09.123`.
struct Date(u64);

impl fmt::Display for Date {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (seconds, ms) = (ms / 1000, ms % 1000);
        let (year, month, day) = civil_date(days);
        let month = MONTHS[usize::from(month) - 1];
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(out, "{day:02} {month} {year} {hour:02}:{minute:02}:{second:02}.{ms:03}")
    }
}

/// Milliseconds since 1970 in UTC, shown as `2026-11-21T01:05:09.123Z` (RFC 3339).
struct Iso(u64);

impl fmt::Display for Iso {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        let (year, month, day) = civil_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
    }
}

/// The year, month (1-12) and day of a day counted from 1970-01-01 in the Gregorian calendar.
///
/// Years are taken to begin in March, so that the leap day is a year's last and the months before it have a
/// fixed pattern of lengths: 153 days in each five. (The method is described in Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms".)
fn civil_date(days_since_1970: u64) -> (u64, u8, u8) {
    const DAYS_0000_MARCH_TO_1970: u64 = 719_468;
    const DAYS_IN_400_YEARS: u64 = 146_097;
    let days = days_since_1970 + DAYS_0000_MARCH_TO_1970;
    let (cycle, day_of_cycle) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let leap_days = day_of_cycle / 1_460 - day_of_cycle / 36_524 + day_of_cycle / 146_096;
    let year_of_cycle = (day_of_cycle - leap_days) / 365;
    let day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = cycle * 400 + year_of_cycle + u64::from(month <= 2);
    (year, small(month), small(day))
}

/// A month or day, which fits in a byte.
fn small(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LogLevel, events: impl FnOnce(&LevelHandle)) -> Vec<String> {
        logged_as(LogFormat::Redis, level, events)
    }

    fn logged_as(format: LogFormat, level: LogLevel, events: impl FnOnce(&LevelHandle)) -> Vec<String> {
        let memory = Memory::default();
        let writer = memory.clone();
        let (subscriber, handle) = subscriber(move || writer.clone(), level, format);
        tracing::subscriber::with_default(subscriber, || events(&handle));
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    fn one_of_each(_: &LevelHandle) {
        tracing::trace!("debug line");
        tracing::debug!("verbose line");
        tracing::info!(port = 6379, name = "x", "notice line");
        tracing::warn!("warning line");
        tracing::error!("error line");
    }

    #[test]
    fn lines_have_the_form_of_redis() {
        let lines = logged(LogLevel::Debug, one_of_each);
        let tails = [
            ". debug line",
            "- verbose line",
            "* notice line port=6379 name=\"x\"",
            "# warning line",
            "# error line",
        ];
        assert_eq!(lines.len(), tails.len());
        for (line, tail) in lines.iter().zip(tails) {
            let date = line.strip_prefix(&format!("{}:M ", std::process::id())).unwrap();
            assert_eq!(&date[24..], format!(" {tail}"));
            assert_eq!((&date[2..3], &date[14..15], &date[20..21]), (" ", ":", "."));
        }
    }

    #[test]
    fn the_level_hides_what_is_less_important_and_can_change() {
        assert_eq!(logged(LogLevel::Notice, one_of_each).len(), 3);
        assert_eq!(logged(LogLevel::Warning, one_of_each).len(), 2);
        assert_eq!(logged(LogLevel::Nothing, one_of_each).len(), 0);
        let lines = logged(LogLevel::Warning, |handle| {
            tracing::info!("hidden");
            handle.reload(filter(LogLevel::Notice)).unwrap();
            tracing::info!("shown");
        });
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn a_line_stays_one_line() {
        let lines = logged(LogLevel::Notice, |_| tracing::info!("name {}\u{1b}[31m é", "a\r\n1:M forged"));
        assert_eq!(lines.len(), 1);
        assert!(lines[0].ends_with(r"* name a\r\n1:M forged\u{1b}[31m é"), "{}", lines[0]);
    }

    #[test]
    fn a_line_in_json_is_one_object() {
        let lines = logged_as(LogFormat::Json, LogLevel::Debug, |_| {
            tracing::info!(port = 6379, name = "x", "say \"{}\"", "a\r\nb");
            tracing::warn!("careful");
        });
        let lines: Vec<serde_json::Value> =
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["level"], &lines[1]["level"]), (&"notice".into(), &"warning".into()));
        assert_eq!((&lines[0]["message"], &lines[0]["name"]), (&"say \"a\r\nb\"".into(), &"x".into()));
        assert_eq!((&lines[0]["port"], &lines[0]["pid"]), (&6379.into(), &std::process::id().into()));
        assert_eq!(Iso(1_795_223_109_123).to_string(), "2026-11-21T01:05:09.123Z");
        assert_eq!(lines[0]["time"].as_str().map(str::len), Some(24));
    }

    #[test]
    fn dates() {
        assert_eq!(Date(0).to_string(), "01 Jan 1970 00:00:00.000");
        assert_eq!(Date(1_795_223_109_123).to_string(), "21 Nov 2026 01:05:09.123");
        assert_eq!(Date(951_782_400_000).to_string(), "29 Feb 2000 00:00:00.000");
        assert_eq!(Date(4_107_542_399_999).to_string(), "28 Feb 2100 23:59:59.999");
        assert_eq!(Date(4_107_542_400_000).to_string(), "01 Mar 2100 00:00:00.000");
    }

    #[test]
    fn the_calendar_counts_every_day_for_eight_hundred_years() {
        let mut expected = (1970, 1, 1);
        for days in 0..292_194 {
            assert_eq!(civil_date(days), expected);
            let (year, month, day) = expected;
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
                [usize::from(month) - 1];
            expected = if day < length {
                (year, month, day + 1)
            } else if month < 12 {
                (year, month + 1, 1)
            } else {
                (year + 1, 1, 1)
            };
        }
    }
}
