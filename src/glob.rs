//! Patterns of KEYS, SCAN MATCH, CONFIG GET and the like: `*` any bytes, `?` one byte, `[abc]` one of, `[^a]`
//! none of, `[a-z]` a range, `\x` the byte x itself. Bytes, not characters; case counts.

/// Whether the whole of `text` fits `pattern`.
///
/// Time is at most pattern length x text length: a mismatch goes back only to the last `*` seen, because
/// whatever an earlier `*` could take, the later one can take too. No recursion, no allocation.
///
/// A class that is not closed ends with the pattern; a `\` at the very end stands for itself.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: the pattern behind the last `*`, and the text that `*` has not taken
    // yet.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            if p == pattern.len() {
                return true;
            }
            retry = Some((p, t));
            continue;
        }
        match text.get(t) {
            None => return p == pattern.len(),
            Some(&byte) => {
                if let Some(next) = match_one(pattern, p, byte) {
                    p = next;
                    t += 1;
                } else if let Some((behind_star, taken)) = retry {
                    p = behind_star;
                    t = taken + 1;
                    retry = Some((p, t));
                } else {
                    return false;
                }
            }
        }
    }
}

/// Matches the single-byte pattern at `p` (not a `*`) with `byte`; gives where the pattern goes on.
fn match_one(pattern: &[u8], p: usize, byte: u8) -> Option<usize> {
    match *pattern.get(p)? {
        b'?' => Some(p + 1),
        b'[' => match_class(pattern, p + 1, byte),
        b'\\' if p + 1 < pattern.len() => (pattern[p + 1] == byte).then_some(p + 2),
        literal => (literal == byte).then_some(p + 1),
    }
}

/// Matches a class whose `[` is just before `p`; gives the place behind its `]`.
fn match_class(pattern: &[u8], mut p: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(p) == Some(&b'^');
    p += usize::from(negated);
    let mut found = false;
    while let Some(&first) = pattern.get(p) {
        match (first, &pattern[p + 1..]) {
            (b']', _) => {
                p += 1;
                break;
            }
            (b'\\', [escaped, ..]) => {
                found |= *escaped == byte;
                p += 2;
            }
            (low, [b'-', high, ..]) => {
                found |= (low.min(*high)..=low.max(*high)).contains(&byte);
                p += 3;
            }
            (single, _) => {
                found |= single == byte;
                p += 1;
            }
        }
    }
    (found != negated).then_some(p)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn table() {
        let cases: &[(&str, &str, bool)] = &[
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("a*c", "abc", true),
            ("a*c", "abd", false),
            ("*.txt", "a.txt.txt", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("?", "", false),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a-c]llo", "hdllo", false),
            // As in Redis, the byte after a dash ends a range, even a "]".
            ("[a-]", "-", false),
            ("[a-]", "_", true),
            ("[\\]]", "]", true),
            ("[\\-x]", "-", true),
            ("[]", "a", false),
            ("[^]", "a", true),
            ("[ab", "b", true),
            ("[", "[", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\[a]", "[a]", true),
            ("a\\", "a\\", true),
            ("ABC", "abc", false),
            ("**a**", "bab", true),
            ("max*", "maxmemory", true),
        ];
        for &(pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern:?} on {text:?}");
        }
    }

    #[test]
    fn many_stars_end() {
        // Exponential in a matcher that tries every split.
        assert!(!matches("a*".repeat(500).as_bytes(), &[vec![b'a'; 499], vec![b'b'; 2000]].concat()));
        let text = vec![b'a'; 5000];
        assert!(!matches(&[b"*a".repeat(1000), vec![b'b']].concat(), &text));
    }

    /// The definition, written without care for time.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
            Some(_) => text.first().is_some_and(|&byte| {
                match_one(pattern, 0, byte).is_some_and(|next| naive(&pattern[next..], &text[1..]))
            }),
        }
    }

    proptest! {
        #[test]
        fn equals_the_definition(pattern in "[ab*?\\[\\]^\\\\-]{0,8}", text in "[ab\\]^-]{0,8}") {
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), naive(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn never_panics(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
        }
    }
}
