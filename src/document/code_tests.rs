use super::*;
use crate::document::{Kind, MAX_CHUNKS, Settings, split};

const ALL: [Language; 8] = [
    Language::C,
    Language::Go,
    Language::Java,
    Language::JavaScript,
    Language::Python,
    Language::Rust,
    Language::TypeScript,
    Language::Tsx,
];

const RUST: &str = "use std::fmt;\n\n/// Adds.\nfn add(a: i32, b: i32) -> i32 {\n    a + b\n}\n\nstruct Point {\n    x: f64,\n    y: f64,\n}\n\nimpl Point {\n    fn norm(&self) -> f64 {\n        (self.x * self.x + self.y * self.y).sqrt()\n    }\n\n    fn scale(&mut self, by: f64) {\n        self.x *= by;\n        self.y *= by;\n    }\n}\n";
const PYTHON: &str = "import os\n\n\ndef add(a, b):\n    return a + b\n\n\nclass Point:\n    def norm(self):\n        return (self.x ** 2 + self.y ** 2) ** 0.5\n\n    def scale(self, by):\n        self.x *= by\n        self.y *= by\n\n\ndef last():\n    return None\n";

fn settings(language: Language, chunk_tokens: usize, overlap_tokens: usize) -> Settings {
    Settings { kind: Kind::Code, language: Some(language), chunk_tokens, overlap_tokens }
}

fn chunks(text: &str, language: Language, chunk_tokens: usize, overlap_tokens: usize) -> Vec<&str> {
    let pieces = split(text, &settings(language, chunk_tokens, overlap_tokens), |_| 1).unwrap();
    pieces.iter().map(|piece| &text[piece.start..piece.end]).collect()
}

#[test]
fn languages_are_known_by_the_extension_of_the_path() {
    for (uri, language) in [
        ("src/main.rs", Some(Language::Rust)),
        ("A.PY", Some(Language::Python)),
        ("https://example.org/a/lib.ts?raw=1#L3", Some(Language::TypeScript)),
        ("x.d.ts", Some(Language::TypeScript)),
        ("view.tsx", Some(Language::Tsx)),
        ("include/a.h", Some(Language::C)),
        ("README.md", None),
        ("a.rs/notes", None),
        ("rs", None),
        ("", None),
    ] {
        assert_eq!(Language::of_uri(uri.as_bytes()), language, "{uri}");
    }
}

#[test]
fn code_is_cut_at_its_items() {
    let found = chunks(RUST, Language::Rust, 40, 0);
    assert_eq!(found.concat(), RUST);
    let begin: Vec<&str> = found.iter().map(|chunk| chunk.lines().next().unwrap().trim()).collect();
    assert!(begin.contains(&"struct Point {") || begin.contains(&"impl Point {"), "{found:#?}");
    assert!(begin.contains(&"fn scale(&mut self, by: f64) {"), "{found:#?}");
    assert!(found.iter().any(|chunk| chunk.contains("fn add(") && chunk.contains("a + b\n}")), "{found:#?}");
    let found = chunks(PYTHON, Language::Python, 40, 0);
    assert_eq!(found.concat(), PYTHON);
    let begin: Vec<&str> = found.iter().map(|chunk| chunk.lines().next().unwrap().trim()).collect();
    assert_eq!(begin, ["import os", "class Point:", "def last():"], "{found:#?}");
    // As text it is cut at blank lines, as code between functions.
    let text = "def a():\n    x = 1\n\n    return x\ndef b():\n    y = 2\n\n    return y\n";
    assert!(chunks(text, Language::Python, 12, 0)[1].starts_with("def b"));
    let plain = Settings { language: None, ..settings(Language::Python, 12, 0) };
    let plain = split(text, &plain, |_| 1).unwrap();
    assert!(plain.iter().all(|piece| !text[piece.start..].starts_with("def b")), "{plain:?}");
}

#[test]
fn chunks_of_code_hold_all_of_it_and_no_more_than_their_tokens() {
    for language in ALL {
        for text in [RUST.repeat(50), PYTHON.repeat(50), "/* é */ x = \"語\";\n".repeat(500)] {
            for (most, overlap) in [(5, 0), (16, 4), (100, 30)] {
                let pieces = split(&text, &settings(language, most, overlap), |_| 1).unwrap();
                let mut end = 0;
                for piece in &pieces {
                    assert!(piece.start <= end || text[end..piece.start].trim().is_empty());
                    assert!(piece.end > end && piece.tokens <= most, "{language:?} {piece:?}");
                    end = piece.end;
                }
                assert_eq!(text[end..].trim(), "", "{language:?}");
                let shared = pieces.windows(2).filter(|two| two[1].start < two[0].end).count();
                assert!(shared == 0 || overlap > 0, "{language:?}");
                assert!(shared > 0 || overlap < 30 || pieces.len() == 1, "{language:?}");
            }
        }
    }
}

#[test]
fn hostile_code_is_split_like_any_other() {
    let parts = ["(", "[", "{", "<", "((", "if(", "a(", "x.", "\"", "'", "/*", "#", "\\", "|a|", "a<b<"];
    let mut hostile: Vec<String> = parts.iter().map(|part| part.repeat(8000 / part.len())).collect();
    hostile.extend([
        format!("{}{}", "(".repeat(8000), ")".repeat(8000)),
        format!("{}{}", "[1, ".repeat(4000), "]".repeat(4000)),
        "a ".repeat(MAX_CHUNKS),
        (0..300).map(|depth| format!("{}if x:\n", " ".repeat(depth))).collect(),
        "\u{0}\u{1}\u{fffd}\u{feff}é\r\n".repeat(1000),
        "fn main( { let = ; ) } class def return ::<> => \n".repeat(200),
    ]);
    let check = |text: &str, language: Language| match split(text, &settings(language, 64, 8), |_| 1) {
        Ok(pieces) => {
            assert!(pieces.iter().all(|piece| piece.tokens <= 64), "{language:?}");
            assert!(text[pieces.last().unwrap().end..].trim().is_empty(), "{language:?}");
        }
        Err(error) => assert_eq!(error, DocumentError::TooManyChunks, "{language:?}"),
    };
    for language in ALL {
        hostile.iter().for_each(|text| check(text, language));
    }
    check(&"x".repeat(10 << 20), Language::Rust);
    check(&"1 + ".repeat(1 << 18), Language::Rust);
}

#[test]
fn code_that_is_too_long_is_not_parsed() {
    assert!(parse(&RUST.repeat(200), Language::Rust).is_some());
    assert!(parse(&"x".repeat(MAX_PARSED_BYTES + 1), Language::Rust).is_none());
}
