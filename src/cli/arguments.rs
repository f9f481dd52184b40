//! Subcommands and their arguments: the words each takes, in order, and its options, anywhere among them.

use std::path::PathBuf;
use std::process::ExitCode;

use super::CliError;

/// A subcommand: everything there is to know about it.
pub struct Subcommand {
    /// Its name, the first argument or the first two.
    pub name: &'static str,
    /// The words it takes.
    pub words: &'static [&'static str],
    /// Options with a value, as in `--to FILE`; all of them must be given.
    pub values: &'static [(&'static str, &'static str)],
    /// Options with a value that may be given or not.
    pub optional: &'static [(&'static str, &'static str)],
    /// Options without.
    pub flags: &'static [&'static str],
    /// What it does, in one line.
    pub summary: &'static str,
    /// What else there is to say.
    pub text: &'static str,
    /// The exit code when it fails.
    pub failure_code: u8,
    /// Does it.
    pub run: fn(&Arguments) -> Result<ExitCode, CliError>,
}

/// The arguments of a subcommand, complete.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    words: Vec<String>,
    values: Vec<(&'static str, String)>,
    flags: Vec<&'static str>,
}

impl Arguments {
    /// The word at that place.
    pub fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// The word at that place, as a path.
    pub fn path(&self, at: usize) -> PathBuf {
        self.words.get(at).map(PathBuf::from).unwrap_or_default()
    }

    /// The value of an option, as a path.
    pub fn value_path(&self, name: &str) -> PathBuf {
        self.values
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value.into())
            .unwrap_or_default()
    }

    /// The value of an option that may be given or not; the last one.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().rfind(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// The value of an option that is a number from `least` to `most`.
    ///
    /// # Errors
    /// [`CliError::Usage`] when it is something else.
    pub fn number(&self, name: &str, default: u64, least: u64, most: u64) -> Result<u64, CliError> {
        match self.value(name).map(str::parse) {
            None => Ok(default),
            Some(Ok(number)) if (least..=most).contains(&number) => Ok(number),
            _ => Err(CliError::Usage(format!("{name} takes a number from {least} to {most}"))),
        }
    }

    /// Whether an option is given.
    pub fn has(&self, flag: &str) -> bool {
        self.flags.contains(&flag)
    }
}

impl Subcommand {
    /// How it is called, without the program's name.
    pub fn usage(&self) -> String {
        let words = self.words.iter().map(|word| format!(" {word}"));
        let values = self.values.iter().map(|(name, value)| format!(" {name} {value}"));
        let optional = self.optional.iter().map(|(name, value)| format!(" [{name} {value}]"));
        let flags = self.flags.iter().map(|flag| format!(" [{flag}]"));
        self.name.to_owned() + &words.chain(values).chain(optional).chain(flags).collect::<String>()
    }

    /// The text of its `--help`.
    pub fn help(&self) -> String {
        format!("vecdis {}: {}.\n\n{}", self.usage(), self.summary, self.text)
    }

    /// Makes the arguments from the words behind the name.
    ///
    /// # Errors
    /// [`CliError::Usage`] when something is missing, unknown or too much.
    pub fn parse(&self, args: &[String]) -> Result<Arguments, CliError> {
        let usage = |what: String| CliError::Usage(format!("{what}; usage: vecdis {}", self.usage()));
        let mut arguments = Arguments::default();
        let mut rest = args.iter();
        while let Some(word) = rest.next() {
            let (name, given) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value.to_owned())),
                _ => (word.as_str(), None),
            };
            if let Some((name, _)) = self.values.iter().chain(self.optional).find(|(known, _)| *known == name)
            {
                let value = given.or_else(|| rest.next().cloned());
                let value = value.ok_or_else(|| usage(format!("{name} needs a value")))?;
                arguments.values.push((name, value));
            } else if let Some(flag) = self.flags.iter().find(|flag| *flag == word) {
                arguments.flags.push(flag);
            } else if word.starts_with("--") || arguments.words.len() == self.words.len() {
                return Err(usage(format!("unexpected argument {word:?}")));
            } else {
                arguments.words.push(word.clone());
            }
        }
        if let Some(missing) = self.words.get(arguments.words.len()) {
            return Err(usage(format!("{missing} is missing")));
        }
        let given = |name: &str| arguments.values.iter().filter(|(known, _)| *known == name).count();
        match self.values.iter().find(|(name, _)| given(name) != 1) {
            Some((name, _)) => Err(usage(format!("{name} must be given once"))),
            None => Ok(arguments),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: Subcommand = Subcommand {
        name: "copy",
        words: &["DIR"],
        values: &[("--to", "FILE")],
        optional: &[("--as", "NAME")],
        flags: &["--json"],
        summary: "copies",
        text: "",
        failure_code: 1,
        run: |_| Ok(ExitCode::SUCCESS),
    };

    fn parse(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        COPY.parse(&words).map_err(|error| error.to_string())
    }

    #[test]
    fn words_and_options_come_in_any_order() {
        assert_eq!(COPY.usage(), "copy DIR --to FILE [--as NAME] [--json]");
        for line in ["a --to b --json", "--json --to=b a", "--to b a --json"] {
            let arguments = parse(line).unwrap();
            assert_eq!((arguments.path(0), arguments.value_path("--to")), ("a".into(), "b".into()));
            assert!(arguments.has("--json"));
        }
        assert!(!parse("a --to b").unwrap().has("--json"));
        assert_eq!(parse("a --to b --as c --as=d").unwrap().value("--as"), Some("d"));
        assert_eq!(parse("a --to b").unwrap().value("--as"), None);
    }

    #[test]
    fn what_is_missing_unknown_or_too_much_is_named_with_the_usage() {
        for (line, named) in [
            ("", "DIR"),
            ("a", "--to"),
            ("a --to", "--to"),
            ("a b --to c", "\"b\""),
            ("a --to b --to c", "once"),
            ("a --no --to b", "--no"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(
                error.contains(named)
                    && error.ends_with("usage: vecdis copy DIR --to FILE [--as NAME] [--json]"),
                "{error}"
            );
        }
    }
}
