//! Reading arguments: numbers as Redis reads them, keywords in any case.

/// Whether an argument is that keyword, in any case.
pub fn is_word(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// A signed 64-bit decimal: no plus sign, no leading zeros, no blanks.
pub fn integer(argument: &[u8]) -> Option<i64> {
    let digits = argument.strip_prefix(b"-").unwrap_or(argument);
    let canonical = match digits {
        [b'0'] => argument.len() == 1,
        [b'1'..=b'9', ..] => true,
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(argument).ok()?.parse().ok()
}

/// An integer within bounds.
pub fn integer_within(argument: &[u8], least: i64, most: i64) -> Option<i64> {
    integer(argument).filter(|value| (least..=most).contains(value))
}

/// A number as C reads it: decimal, exponent, `+1`, `.5`, hexadecimal, `inf`; no blanks, not `nan`.
pub fn float(argument: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(argument).ok()?;
    let value = match text.parse::<f64>() {
        Ok(value) => value,
        Err(_) => hexadecimal(text)?,
    };
    (!value.is_nan()).then_some(value)
}

/// `0x1.8p3` and the like.
fn hexadecimal(text: &str) -> Option<f64> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"))?;
    let (mantissa, exponent) = match digits.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0f64;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    let shift = i32::try_from(fraction.len()).ok()?.checked_mul(-4)?.checked_add(exponent)?;
    let value = value * 2.0f64.powi(shift);
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_strict() {
        assert_eq!(integer(b"0"), Some(0));
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        for bad in ["", "-", "+1", "01", "-0", "1 ", " 1", "1.0", "9223372036854775808", "0x1"] {
            assert_eq!(integer(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn floats_are_those_of_c() {
        let good = [("1", 1.0), ("+1", 1.0), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("-0x10", -16.0)];
        for (text, value) in good {
            assert_eq!(float(text.as_bytes()), Some(value), "{text:?}");
        }
        assert_eq!(float(b"0x1.8p3"), Some(12.0));
        assert_eq!(float(b"inf"), Some(f64::INFINITY));
        for bad in ["", " 1", "1 ", "nan", "NaN", "-nan", "1,5", "0x", "0x.", "e5", "1e"] {
            assert_eq!(float(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
