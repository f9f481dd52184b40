//! When a request is tried again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, StatusCode};

/// Times a request is sent.
pub const MAX_TRIES: u32 = 4;
/// The longest wait after the first try; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest wait.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// Whether what an answer's status tells of may pass.
pub fn may_pass(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// How long to wait after that many tries: a random part of a time that doubles, so that clients that failed together do
/// not come again together ("full jitter").
pub fn backoff(tries: u32) -> Duration {
    let longest = (FIRST_PAUSE * (1 << (tries - 1).min(16))).min(MAX_PAUSE);
    let random = RandomState::new().build_hasher().finish() >> 32;
    longest.mul_f64(f64::from(u32::try_from(random).unwrap_or(u32::MAX)) / f64::from(u32::MAX))
}

/// The wait that `retry-after` asks for, in seconds or as a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    match text.parse::<u32>() {
        Ok(seconds) => Some(Duration::from_secs(seconds.into())),
        Err(_) => {
            let date = httpdate::parse_http_date(text).ok()?;
            Some(date.duration_since(SystemTime::now()).unwrap_or_default())
        }
    }
}

/// The wait that OpenAI's rate limit headers ask for: nothing is left of a limit, and this is when there will be again.
pub fn rate_limit(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let waits = ["requests", "tokens"].into_iter().filter_map(|what| {
        let left = text(&format!("x-ratelimit-remaining-{what}"))?;
        if left != "0" {
            return None;
        }
        duration(text(&format!("x-ratelimit-reset-{what}"))?)
    });
    waits.max()
}

/// A duration as OpenAI writes it: `6m0s`, `1h2m3.5s`, `20ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut total_s = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(digits);
        let (unit_s, length) = match behind {
            unit if unit.starts_with("ms") => (0.001, 2),
            unit if unit.starts_with('s') => (1.0, 1),
            unit if unit.starts_with('m') => (60.0, 1),
            unit if unit.starts_with('h') => (3600.0, 1),
            _ => return None,
        };
        total_s += number.parse::<f64>().ok()? * unit_s;
        rest = &behind[length..];
    }
    Duration::try_from_secs_f64(total_s).ok().filter(|_| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn waits_grow_and_stay_below_the_longest() {
        for tries in 1..40 {
            let longest = Duration::from_secs_f64(0.5 * f64::from(1 << (tries - 1).min(10))).min(MAX_PAUSE);
            assert!((0..50).all(|_| backoff(tries) <= longest));
        }
        let waits: Vec<Duration> = (0..20).map(|_| backoff(4)).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "they are random");
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(retry_after(&headers(&[("retry-after", "7")])), Some(Duration::from_secs(7)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let wait = retry_after(&headers(&[("retry-after", &date)])).unwrap();
        assert!((90..=100).contains(&wait.as_secs()), "{wait:?}");
        let past = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(retry_after(&headers(&[("retry-after", past)])), Some(Duration::ZERO));
        assert_eq!(retry_after(&headers(&[("retry-after", "soon")])), None);
        assert_eq!(retry_after(&headers(&[])), None);
    }

    #[test]
    fn an_exhausted_limit_says_when_it_ends() {
        let limit = |left: &str, reset: &str| {
            rate_limit(&headers(&[
                ("x-ratelimit-remaining-tokens", left),
                ("x-ratelimit-reset-tokens", reset),
                ("x-ratelimit-remaining-requests", "5"),
                ("x-ratelimit-reset-requests", "1h"),
            ]))
        };
        assert_eq!(limit("0", "6m0s"), Some(Duration::from_secs(360)));
        assert_eq!(limit("0", "20ms"), Some(Duration::from_millis(20)));
        assert_eq!(limit("0", "1h2m3.5s"), Some(Duration::from_millis(3_723_500)));
        for bad in ["", "6", "s", "6x", "1..5s", "999999999999999999999h"] {
            assert_eq!(limit("0", bad), None, "{bad}");
        }
        assert_eq!(limit("1", "6m0s"), None);
    }
}
