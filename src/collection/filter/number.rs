//! Strings as numbers, as C's `strtod` reads them in the "C" locale.

use super::text::is_blank;

/// The number that `text` is as a whole, else 0. Accepted are leading blanks, a sign, decimal and hexadecimal notation
/// (`0x1.8p1`) with or without exponent, `inf`, `infinity` and `nan` in any case. Blanks at the end are not.
pub(super) fn number_or_zero(text: &[u8]) -> f64 {
    parse(text).unwrap_or(0.0)
}

fn parse(text: &[u8]) -> Option<f64> {
    let text = &text[text.iter().take_while(|&&byte| is_blank(byte)).count()..];
    let (negative, magnitude) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let value = match magnitude {
        [b'0', b'x' | b'X', rest @ ..] => hexadecimal(rest)?,
        [b'0'..=b'9' | b'.', ..] => str::from_utf8(magnitude).ok()?.parse().ok()?,
        _ => word(magnitude)?,
    };
    Some(if negative { -value } else { value })
}

/// `inf`, `infinity`, `nan` and `nan(letters, digits, _)`.
fn word(text: &[u8]) -> Option<f64> {
    let lower = text.to_ascii_lowercase();
    match lower.as_slice() {
        b"inf" | b"infinity" => Some(f64::INFINITY),
        b"nan" => Some(f64::NAN),
        [b'n', b'a', b'n', b'(', tag @ .., b')']
            if tag.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') =>
        {
            Some(f64::NAN)
        }
        _ => None,
    }
}

/// A hexadecimal number behind its `0x`. Rounded to nearest, ties to even (twice if the result is subnormal).
fn hexadecimal(text: &[u8]) -> Option<f64> {
    let mut mantissa: u64 = 0;
    let mut exponent: i64 = 0;
    let mut seen_digit = false;
    let mut seen_point = false;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        if let Some(digit) = char::from(byte).to_digit(16) {
            seen_digit = true;
            if mantissa >> 60 == 0 {
                mantissa = mantissa << 4 | u64::from(digit);
                exponent -= if seen_point { 4 } else { 0 };
            } else {
                // The mantissa is full: keep only whether anything was lost, which decides how a tie rounds.
                mantissa |= u64::from(digit != 0);
                exponent += if seen_point { 0 } else { 4 };
            }
        } else if byte == b'.' && !seen_point {
            seen_point = true;
        } else {
            break;
        }
        at += 1;
    }
    let power = match &text[at..] {
        [] => 0,
        [b'p' | b'P', digits @ ..] => signed_integer(digits)?,
        _ => return None,
    };
    seen_digit.then(|| times_power_of_two(mantissa as f64, exponent.saturating_add(power)))
}

/// A decimal integer with an optional sign; too large ones saturate.
fn signed_integer(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', rest @ ..] => (-1, rest),
        [b'+', rest @ ..] => (1, rest),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let magnitude = digits
        .iter()
        .fold(0i64, |sum, &digit| sum.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Some(sign * magnitude)
}

/// `value` * 2^`exponent`, in steps whose powers are finite.
fn times_power_of_two(mut value: f64, exponent: i64) -> f64 {
    const STEP: i32 = 1000;
    // A value below 2^64 is 0 or infinite long before this bound.
    let mut left = i32::try_from(exponent.clamp(-5000, 5000)).unwrap_or(0);
    while left != 0 {
        let step = left.clamp(-STEP, STEP);
        value *= 2f64.powi(step);
        left -= step;
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_strtod_reads() {
        for (text, expected) in [
            ("5", 5.0),
            ("-5", -5.0),
            ("+5", 5.0),
            (" \t\n\x0b\x0c\r5", 5.0),
            ("5.", 5.0),
            (".5", 0.5),
            ("1e3", 1000.0),
            ("1E+3", 1000.0),
            ("25e-1", 2.5),
            ("1e400", f64::INFINITY),
            ("-1e-400", 0.0),
            ("00012", 12.0),
            ("0x10", 16.0),
            ("-0XfF", -255.0),
            ("0x.8", 0.5),
            ("0x8.", 8.0),
            ("0x1.8p1", 3.0),
            ("0x1p-2", 0.25),
            ("0x0p99999999999999999999", 0.0),
            ("0x1p99999999999999999999", f64::INFINITY),
            ("0x1p-99999999999999999999", 0.0),
            ("0x1p-1074", f64::from_bits(1)),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000001p0", 1.0 + f64::EPSILON),
            ("0x1.00000000000018p0", 1.0 + 2.0 * f64::EPSILON),
            ("0x100000000000000000000", 2f64.powi(80)),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
        ] {
            assert_eq!(number_or_zero(text.as_bytes()), expected, "{text:?}");
        }
        for text in ["nan", "-NaN", "nan()", "nan(a_1)"] {
            assert!(number_or_zero(text.as_bytes()).is_nan(), "{text:?}");
        }
    }

    #[test]
    fn anything_else_is_zero() {
        for text in [
            "", " ", "abc", "5 ", "5x", "- 5", "--5", "+-5", "1_0", "1d5", "1e", "1e+", ".", "-", "e5", "0x",
            "0x.", "0x1p", "0x1p+", "0x1g", "0b1", "infinit", "inf ", "nan(", "nan(-)", "nan)", "5\0",
            "\u{e9}",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse(b"5\xff"), None);
    }
}
