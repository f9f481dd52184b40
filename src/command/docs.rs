//! The arguments of a command as COMMAND DOCS describes them, read from the syntax in the command table.
//!
//! The syntax is what the documentation shows: WORDS are typed as they are, other words are values, `[...]` is optional,
//! `(... | ...)` a choice, `...` repeats what is before it.

use bytes::Bytes;

use super::reply::Reply;
use super::table::CommandSpec;

/// An argument.
#[derive(Clone, Debug, PartialEq)]
struct Argument {
    name: String,
    kind: Kind,
    /// A word before the value.
    token: Option<String>,
    optional: bool,
    multiple: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    /// `key`, `string`, `integer` or `double`.
    Value(&'static str),
    /// Only the word itself.
    Token,
    /// One of these.
    OneOf(Vec<Argument>),
    /// All of these, in order.
    Block(Vec<Argument>),
}

/// The arguments of a syntax, in the form of COMMAND DOCS.
pub fn arguments(syntax: &str) -> Vec<Reply> {
    let spaced = syntax.replace('[', " [ ").replace(']', " ] ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    sequence(&words, &mut at).iter().map(Argument::describe).collect()
}

/// The subcommands of a command, one a line, as its HELP shows them.
pub fn help(spec: &CommandSpec) -> Reply {
    let name = spec.name.to_uppercase();
    let mut lines = vec![format!("{name} <subcommand> [<arg> [value] ...]. Subcommands are:")];
    let syntax = spec.syntax;
    let inner =
        syntax.strip_prefix(['(', '[']).and_then(|rest| rest.strip_suffix([')', ']'])).unwrap_or(syntax);
    let (mut depth, mut begin) = (0usize, 0);
    for (at, c) in inner.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth = depth.saturating_sub(1),
            '|' if depth == 0 => {
                lines.push(inner[begin..at].trim().to_owned());
                begin = at + 1;
            }
            _ => {}
        }
    }
    lines.extend([inner[begin..].trim().to_owned(), "HELP".to_owned()]);
    Reply::Array(lines.into_iter().map(Reply::simple).collect())
}

/// Arguments up to a closing bracket, `|` or the end.
fn sequence(words: &[&str], at: &mut usize) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = Vec::new();
    while let Some(&word) = words.get(*at) {
        if matches!(word, "]" | ")" | "|") {
            break;
        }
        *at += 1;
        match word {
            "..." => {
                if let Some(last) = arguments.last_mut() {
                    last.multiple = true;
                }
            }
            "[" => {
                let mut inner = choice(words, at);
                // `key [key ...]` is one argument that repeats.
                let repeats = arguments.last().is_some_and(|last| inner.multiple && last.name == inner.name);
                match arguments.last_mut() {
                    Some(last) if repeats => last.multiple = true,
                    _ => {
                        inner.optional = true;
                        arguments.push(inner);
                    }
                }
            }
            "(" => arguments.push(choice(words, at)),
            word => arguments.push(plain(word)),
        }
    }
    join_tokens(arguments)
}

/// What is inside brackets: one sequence or several to choose from.
fn choice(words: &[&str], at: &mut usize) -> Argument {
    let mut options = Vec::new();
    loop {
        options.push(group(sequence(words, at)));
        let separator = words.get(*at).copied();
        *at += 1;
        if separator != Some("|") {
            break;
        }
    }
    match options.pop() {
        Some(only) if options.is_empty() => only,
        last => {
            options.extend(last);
            let name = options.iter().map(|option| option.name.as_str()).collect::<Vec<_>>().join("-or-");
            Argument { name, kind: Kind::OneOf(options), token: None, optional: false, multiple: false }
        }
    }
}

/// A sequence as one argument.
fn group(mut sequence: Vec<Argument>) -> Argument {
    if sequence.len() == 1
        && let Some(only) = sequence.pop()
    {
        return only;
    }
    let name = sequence.first().map_or_else(|| "none".to_owned(), |first| first.name.clone());
    Argument { name, kind: Kind::Block(sequence), token: None, optional: false, multiple: false }
}

fn plain(word: &str) -> Argument {
    let is_token = word.chars().all(|c| c.is_ascii_uppercase() || c == '-' || c.is_ascii_digit() || c == '*');
    let kind = match word {
        _ if is_token => Kind::Token,
        "key" | "newkey" => Kind::Value("key"),
        "n" | "dim" | "d" | "m" | "ef" | "count" | "index" | "cursor" | "seconds" | "milliseconds"
        | "unix-seconds" | "unix-milliseconds" | "protover" | "id" => Kind::Value("integer"),
        "epsilon" | "f1" | "fn" => Kind::Value("double"),
        _ => Kind::Value("string"),
    };
    let token = is_token.then(|| word.to_owned());
    Argument { name: word.to_lowercase(), kind, token, optional: false, multiple: false }
}

/// Puts a word and the one value after it together: `COUNT n` is an argument with a token.
fn join_tokens(arguments: Vec<Argument>) -> Vec<Argument> {
    let mut joined: Vec<Argument> = Vec::new();
    for argument in arguments {
        match joined.last_mut() {
            Some(last)
                if last.kind == Kind::Token
                    && !last.optional
                    && !argument.optional
                    && matches!(argument.kind, Kind::Value(_)) =>
            {
                let token = last.token.take();
                *last = Argument { token, ..argument };
            }
            _ => joined.push(argument),
        }
    }
    joined
}

impl Argument {
    fn describe(&self) -> Reply {
        let text = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        let kind = match &self.kind {
            Kind::Value(kind) => kind,
            Kind::Token => "pure-token",
            Kind::OneOf(_) => "oneof",
            Kind::Block(_) => "block",
        };
        let mut fields = vec![(Reply::text("name"), text(&self.name)), (Reply::text("type"), text(kind))];
        match &self.kind {
            Kind::Value("key") => fields.push((Reply::text("key_spec_index"), Reply::Integer(0))),
            Kind::OneOf(inner) | Kind::Block(inner) => {
                let inner = inner.iter().map(Self::describe).collect();
                fields.push((Reply::text("arguments"), Reply::Array(inner)));
            }
            _ => {}
        }
        if matches!(self.kind, Kind::Value(_)) {
            fields.push((Reply::text("display_text"), text(&self.name)));
        }
        if let Some(token) = &self.token {
            fields.push((Reply::text("token"), text(token)));
        }
        let flags = [("optional", self.optional), ("multiple", self.multiple)];
        let flags: Vec<Reply> =
            flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| Reply::simple(flag)).collect();
        if !flags.is_empty() {
            fields.push((Reply::text("flags"), Reply::Set(flags)));
        }
        Reply::Map(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(syntax: &str) -> Vec<Argument> {
        let spaced = syntax.replace('[', " [ ").replace(']', " ] ").replace('(', " ( ").replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        sequence(&words, &mut 0)
    }

    #[test]
    fn words_values_and_options_are_told_apart() {
        let arguments = parsed("key element [COUNT n] [WITHSCORES]");
        let names: Vec<&str> = arguments.iter().map(|argument| argument.name.as_str()).collect();
        assert_eq!(names, ["key", "element", "n", "withscores"]);
        assert_eq!(arguments[0].kind, Kind::Value("key"));
        assert_eq!(arguments[2].token.as_deref(), Some("COUNT"));
        assert!(arguments[2].optional && !arguments[1].optional);
        assert_eq!(arguments[3].kind, Kind::Token);
    }

    #[test]
    fn choices_blocks_and_repetition() {
        let arguments = parsed("key [key ...] (FP32 blob | VALUES n f1 ... fn) [A | B]");
        assert!(arguments[0].multiple && arguments.len() == 3);
        let Kind::OneOf(options) = &arguments[1].kind else { panic!("{arguments:?}") };
        assert_eq!(options[0].token.as_deref(), Some("FP32"));
        assert!(matches!(&options[1].kind, Kind::Block(block) if block.len() == 3 && block[1].multiple));
        assert!(matches!(&arguments[2].kind, Kind::OneOf(options) if options.len() == 2));
        assert!(arguments[2].optional);
    }

    #[test]
    fn every_syntax_of_the_table_is_read_to_its_end() {
        for spec in super::super::table::COMMANDS {
            let described = arguments(spec.syntax);
            assert_eq!(described.is_empty(), spec.syntax.is_empty(), "{}", spec.name);
            let balance = |open: char, close: char| {
                spec.syntax.chars().filter(|&c| c == open).count()
                    == spec.syntax.chars().filter(|&c| c == close).count()
            };
            assert!(balance('[', ']') && balance('(', ')'), "{}", spec.name);
        }
    }
}
