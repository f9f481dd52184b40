//! CONFIG REWRITE: writes the configuration as it is now into its file.
//!
//! Comments and the order of lines stay. The last line of an option gets its value, earlier ones go; options without a
//! line that are not at their default are added at the end.

use std::fs;
use std::io::{self, Write};

use super::file::split_line;
use super::{Config, ConfigOption, OPTIONS};

/// What stands above the lines that are added.
const ADDED: &str = "# Added by CONFIG REWRITE";

impl Config {
    /// Writes the file the configuration came from anew; nothing if it came from none.
    ///
    /// # Errors
    /// The file cannot be read or written; it is as it was then.
    pub fn rewrite(&self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        // A link stays a link.
        let path = fs::canonicalize(path)?;
        let text = self.rewritten(&fs::read_to_string(&path)?);
        let mut name = path.clone().into_os_string();
        name.push(".tmp");
        let mut file = fs::File::create(&name)?;
        file.set_permissions(fs::metadata(&path)?.permissions())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&name, &path)
    }

    /// The text of a file with the present values.
    fn rewritten(&self, text: &str) -> String {
        let lines: Vec<&str> = text.lines().collect();
        let named: Vec<Option<&ConfigOption>> = lines.iter().map(|line| option_of(line)).collect();
        let mut out = String::new();
        for (at, (line, option)) in lines.iter().zip(&named).enumerate() {
            let line = match option {
                None => (*line).to_owned(),
                // Users are not changed by CONFIG SET, and several lines of them count.
                Some(option) if option.name == "user" => (*line).to_owned(),
                Some(option) if is_named(&named[at + 1..], option) => continue,
                Some(option) => self.line(option),
            };
            out.push_str(&line);
            out.push('\n');
        }
        let added = OPTIONS.iter().filter(|option| !is_named(&named, option));
        let defaults = Self::default();
        let added: Vec<String> = added
            .map(|option| self.line(option))
            .zip(
                OPTIONS.iter().filter(|option| !is_named(&named, option)).map(|option| defaults.line(option)),
            )
            .filter_map(|(line, default)| (line != default).then_some(line))
            .collect();
        if !added.is_empty() {
            if !out.contains(ADDED) {
                out.push_str(&format!("\n{ADDED}\n"));
            }
            out.push_str(&(added.join("\n") + "\n"));
        }
        out
    }

    fn line(&self, option: &ConfigOption) -> String {
        let value = match option.name {
            "requirepass" => self.requirepass.expose().to_owned(),
            _ => (option.print)(self),
        };
        let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\' | '#');
        match value.as_str() {
            // Several words of one option.
            text if option.several
                && !text.is_empty()
                && text.split(' ').all(|word| word.chars().all(plain)) =>
            {
                format!("{} {text}", option.name)
            }
            text if !text.is_empty() && text.chars().all(plain) => format!("{} {text}", option.name),
            text => format!("{} \"{}\"", option.name, quoted(text)),
        }
    }
}

/// As the reader takes it back: `\xNN` for what is not plain.
fn quoted(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

fn option_of(line: &str) -> Option<&'static ConfigOption> {
    let words = split_line(line).ok()?;
    ConfigOption::find(words.first()?).ok()
}

fn is_named(lines: &[Option<&ConfigOption>], option: &ConfigOption) -> bool {
    lines.iter().flatten().any(|named| named.name == option.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewritten_file_reads_as_the_configuration_and_keeps_its_comments() {
        let before = "# mine\nport 7000\n\nPORT 7001\n# limits\ntimeout 5\nbind 127.0.0.1 ::1\nsave \"\"\nuser a on\nuser b off\n";
        let mut config = Config::default();
        config.read_file("test", before.as_bytes()).unwrap();
        for (name, value) in
            [("timeout", "9"), ("requirepass", "a \"b\\\u{e9}"), ("maxmemory", "1gb"), ("dir", "/x y")]
        {
            config.set(name, value).unwrap();
        }
        let after = config.rewritten(before);
        assert!(
            after.starts_with("# mine\n\nport 7001\n# limits\ntimeout 9\nbind 127.0.0.1 ::1\nsave \"\"\nuser a on\nuser b off\n"),
            "{after}"
        );
        let mut again = Config::default();
        again.read_file("test", after.as_bytes()).unwrap();
        assert_eq!(again, config);
        assert_eq!(config.rewritten(&after), after, "once more changes nothing");
    }
}
