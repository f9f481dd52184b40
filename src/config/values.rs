//! The kinds of values options take: how each is read from text and printed. A reader's error says what is
//! accepted.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// When the log is forced to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Before each answer to a write.
    Always,
    /// About once a second.
    Everysec,
    /// When the operating system likes.
    No,
}

/// The least important log lines that are still written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Much, but not each step.
    Verbose,
    /// What an operator wants to know.
    Notice,
    /// Only what needs attention.
    Warning,
    /// No line at all.
    Nothing,
}

/// Whether TLS clients have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsAuthClients {
    /// All of them.
    Yes,
    /// One that is shown has to be good.
    Optional,
    /// None is asked for.
    No,
}

impl TlsAuthClients {
    const NAMES: &[(&str, Self)] = &[("yes", Self::Yes), ("optional", Self::Optional), ("no", Self::No)];
}

impl FromStr for TlsAuthClients {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, Self::NAMES)
    }
}

impl fmt::Display for TlsAuthClients {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(name_of(self, Self::NAMES))
    }
}

/// Reads permissions of a file, in octal digits as for chmod.
pub(super) fn permissions(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "permissions in octal digits, such as 700".to_owned())
}

impl Fsync {
    const NAMES: &[(&str, Self)] =
        &[("always", Self::Always), ("everysec", Self::Everysec), ("no", Self::No)];
}

impl LogLevel {
    const NAMES: &[(&str, Self)] = &[
        ("debug", Self::Debug),
        ("verbose", Self::Verbose),
        ("notice", Self::Notice),
        ("warning", Self::Warning),
        ("nothing", Self::Nothing),
    ];
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// As Redis writes them.
    Redis,
    /// One JSON object a line.
    Json,
}

impl LogFormat {
    const NAMES: &[(&str, Self)] = &[("redis", Self::Redis), ("json", Self::Json)];
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, Self::NAMES)
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(name_of(self, Self::NAMES))
    }
}

/// Who is told of the server's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Supervised {
    /// Nobody.
    No,
    /// systemd.
    Systemd,
    /// systemd, if it started the server.
    Auto,
}

impl Supervised {
    const NAMES: &[(&str, Self)] = &[("no", Self::No), ("systemd", Self::Systemd), ("auto", Self::Auto)];
}

impl FromStr for Supervised {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, Self::NAMES)
    }
}

impl fmt::Display for Supervised {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(name_of(self, Self::NAMES))
    }
}

impl FromStr for Fsync {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, Self::NAMES)
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        one_of(text, Self::NAMES)
    }
}

impl fmt::Display for Fsync {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(name_of(self, Self::NAMES))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(name_of(self, Self::NAMES))
    }
}

fn one_of<T: Copy>(text: &str, names: &[(&str, T)]) -> Result<T, String> {
    let found = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    found.map(|&(_, value)| value).ok_or_else(|| {
        let names: Vec<&str> = names.iter().map(|&(name, _)| name).collect();
        format!("one of {}", names.join(", "))
    })
}

fn name_of<'a, T: PartialEq>(value: &T, names: &[(&'a str, T)]) -> &'a str {
    names.iter().find(|(_, candidate)| candidate == value).map_or("", |&(name, _)| name)
}

/// Text that must not be shown: `Debug` says only whether it is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text in clear, to compare with. It belongs in no log line and no reply.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether the text is empty, that is: not set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is shown in place of the text.
    pub(super) fn masked(&self) -> &'static str {
        if self.is_empty() { "" } else { "(hidden)" }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.masked())
    }
}

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BindAddress {
    /// The address of this machine.
    pub address: IpAddr,
    /// Written with a leading `-`: go on without it when the machine does not have this address.
    pub optional: bool,
}

impl fmt::Display for BindAddress {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}{}", if self.optional { "-" } else { "" }, self.address)
    }
}

/// Reads one or more addresses with blanks between them. `*` is every IPv4 address, `::*` every IPv6 address.
pub(super) fn addresses(text: &str) -> Result<Vec<BindAddress>, String> {
    let accepted = || "one or more IP addresses, each may begin with \"-\" (not needed to start)".to_owned();
    let read = |word: &str| -> Result<BindAddress, String> {
        let (optional, address) = word.strip_prefix('-').map_or((false, word), |rest| (true, rest));
        let address = match address {
            "*" => Ipv4Addr::UNSPECIFIED.into(),
            "::*" => Ipv6Addr::UNSPECIFIED.into(),
            other => other.parse().map_err(|_| accepted())?,
        };
        Ok(BindAddress { address, optional })
    };
    let addresses = text.split_whitespace().map(read).collect::<Result<Vec<_>, _>>()?;
    if addresses.is_empty() { Err(accepted()) } else { Ok(addresses) }
}

/// Prints what [`addresses`] reads.
pub(super) fn print_addresses(addresses: &[BindAddress]) -> String {
    let words: Vec<String> = addresses.iter().map(BindAddress::to_string).collect();
    words.join(" ")
}

/// Reads `yes` or `no`.
pub(super) fn yes_no(text: &str) -> Result<bool, String> {
    one_of(text, &[("yes", true), ("no", false)])
}

/// Prints what [`yes_no`] reads.
pub(super) fn print_yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// Reads a whole number from `min` to `max`.
pub(super) fn number<T: FromStr + PartialOrd + fmt::Display>(
    text: &str,
    min: T,
    max: T,
) -> Result<T, String> {
    match text.parse::<T>() {
        Ok(value) if value >= min && value <= max => Ok(value),
        _ => Err(format!("a whole number from {min} to {max}")),
    }
}

/// Longest name of a kernel.
const KERNEL_NAME_BYTES_MAX: usize = 32;

/// Reads the name of a kernel. Whether this machine can run it is seen when the server starts.
pub(super) fn kernel_name(text: &str) -> Result<String, String> {
    let is_name = (1..=KERNEL_NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_name { Ok(text.to_ascii_lowercase()) } else { Err("auto or the name of a kernel".to_owned()) }
}

/// The units of sizes, as Redis has them: with a `b` they are powers of 1024, without it of 1000.
const UNITS: &[(&str, u64)] = &[
    ("kb", 1 << 10),
    ("mb", 1 << 20),
    ("gb", 1 << 30),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
];

/// Reads the name of an embedding model.
pub(super) fn model_name(text: &str) -> Result<String, String> {
    if is_model_name(text) { Ok(text.to_owned()) } else { Err("the name of a model".to_owned()) }
}

/// Whether an embedding model can have that name: it is a folder's name, and comes over the wire.
pub fn is_model_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=64).contains(&name.len()) && !name.starts_with('.') && name.chars().all(plain)
}

/// Reads a size in bytes from `min` to `max`, with or without a unit.
pub(super) fn size_bytes(text: &str, min: u64, max: u64) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let unit = UNITS.iter().find_map(|&(unit, factor)| Some((lower.strip_suffix(unit)?, factor)));
    let (digits, factor) = unit.unwrap_or_else(|| (lower.strip_suffix('b').unwrap_or(&lower), 1));
    match digits.parse::<u64>().ok().and_then(|count| count.checked_mul(factor)) {
        Some(value) if value >= min && value <= max => Ok(value),
        _ => Err(format!("a size in bytes from {min} to {max}, also with a unit (k, kb, m, mb, g, gb)")),
    }
}

/// Highest accepted number of seconds: one year.
pub(super) const SECONDS_MAX: u64 = 366 * 24 * 3600;

/// How much of its replies a client may leave unread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Beyond this it is disconnected; 0 is no limit.
    pub hard_bytes: u64,
    /// Beyond this it is disconnected after `soft_s` seconds; 0 is no limit.
    pub soft_bytes: u64,
    /// See `soft_bytes`; 0 is no limit.
    pub soft_s: u64,
}

impl OutputLimit {
    /// Reads groups of four words: a class of clients and its limits. Only the class `normal` has clients here; the others are
    /// checked, so that Redis's files load, and say nothing.
    pub(super) fn read(self, text: &str) -> Result<Self, String> {
        let bad = || "groups of a class (normal, replica, slave, pubsub), two sizes and seconds".to_owned();
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let (groups, rest) = words.as_chunks::<4>();
        if groups.is_empty() || !rest.is_empty() {
            return Err(bad());
        }
        let mut limit = self;
        for [class, hard, soft, seconds] in groups {
            let read = Self {
                hard_bytes: size_bytes(hard, 0, u64::MAX)?,
                soft_bytes: size_bytes(soft, 0, u64::MAX)?,
                soft_s: number(seconds, 0, SECONDS_MAX)?,
            };
            match class.to_ascii_lowercase().as_str() {
                "normal" => limit = read,
                "replica" | "slave" | "pubsub" => {}
                _ => return Err(bad()),
            }
        }
        Ok(limit)
    }
}

impl fmt::Display for OutputLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "normal {} {} {}", self.hard_bytes, self.soft_bytes, self.soft_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_units_of_redis() {
        let cases = [
            ("0", 0),
            ("1k", 1_000),
            ("1kb", 1_024),
            ("2m", 2_000_000),
            ("2MB", 2 << 20),
            ("3g", 3_000_000_000),
            ("3Gb", 3 << 30),
            ("77b", 77),
        ];
        for (text, expected) in cases {
            assert_eq!(size_bytes(text, 0, u64::MAX), Ok(expected), "{text}");
        }
        for text in
            ["", "b", "kb", "-1", "1.5gb", "1 gb", "1tb", "1kbb", "99999999999gb", "18446744073709551616"]
        {
            assert!(size_bytes(text, 0, u64::MAX).is_err(), "{text}");
        }
        assert!(size_bytes("1023", 1024, 2048).is_err());
        assert!(size_bytes("3kb", 1024, 2048).is_err());
    }

    #[test]
    fn addresses_print_as_they_were_read() {
        for text in ["127.0.0.1", "127.0.0.1 -::1", "0.0.0.0 ::"] {
            assert_eq!(print_addresses(&addresses(text).unwrap()), text);
        }
        assert_eq!(print_addresses(&addresses(" *   -::* ").unwrap()), "0.0.0.0 -::");
        for text in ["", " ", "-", "localhost", "127.0.0.1:6379", "127.0.0.1 x"] {
            assert!(addresses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_are_read_in_any_case_and_printed_in_lower_case() {
        assert_eq!("EverySec".parse::<Fsync>().unwrap().to_string(), "everysec");
        assert_eq!("WARNING".parse::<LogLevel>().unwrap().to_string(), "warning");
        assert_eq!("sometimes".parse::<Fsync>(), Err("one of always, everysec, no".to_owned()));
        assert_eq!((yes_no("YES"), yes_no("no")), (Ok(true), Ok(false)));
        assert!(yes_no("true").is_err());
    }
}
