//! A selector: some commands on some keys. A user has one of its own and may have more; one that allows all of a command
//! is enough.

use bytes::Bytes;

use super::catalog::{Catalog, CommandId, category};
use super::user::RuleError;
use crate::glob;

/// How a command uses a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyAccess(u8);

impl KeyAccess {
    /// Only whether it is there, or of what kind.
    pub const LOOK: Self = Self(0);
    /// What is in it.
    pub const READ: Self = Self(1);
    /// Changes it.
    pub const WRITE: Self = Self(2);
    /// Both.
    pub const READ_WRITE: Self = Self(3);

    fn includes(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The keys of a pattern, and what may be done with them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyPattern {
    access: KeyAccess,
    pattern: Bytes,
}

/// What a selector does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// The command.
    Command,
    /// The key, by its place among the command's keys.
    Key(usize),
}

/// A request as rules see it.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The command, or the subcommand.
    pub command: CommandId,
    /// Its first argument.
    pub first_argument: Option<&'a [u8]>,
    /// Its keys.
    pub keys: &'a [(&'a [u8], KeyAccess)],
}

/// Some commands on some keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Bit i: command i of the catalog.
    allowed: Vec<u64>,
    /// Commands to come are allowed too: shown as `+@all`.
    all_commands: bool,
    /// The rules after `+@all` or `-@all`, as they are shown.
    command_rules: Vec<String>,
    /// Commands of which only requests with this first argument are allowed.
    first_arguments: Vec<(CommandId, String)>,
    all_keys: bool,
    keys: Vec<KeyPattern>,
    all_channels: bool,
    channels: Vec<Bytes>,
}

fn text(bytes: &[u8]) -> Result<&str, RuleError> {
    std::str::from_utf8(bytes).map_err(|_| RuleError::Unknown)
}

impl Selector {
    /// Whether every command is allowed on every key.
    pub(super) fn allows_everything(&self, catalog: &Catalog) -> bool {
        self.all_keys && catalog.ids().all(|id| self.has(id))
    }

    /// Whether every key is allowed.
    pub(super) fn allows_every_key(&self) -> bool {
        self.all_keys
    }

    /// Applies a rule.
    ///
    /// # Errors
    /// When it is none; nothing has changed then.
    pub(super) fn apply(&mut self, rule: &[u8], catalog: &Catalog) -> Result<(), RuleError> {
        let is = |word: &str| rule.eq_ignore_ascii_case(word.as_bytes());
        match rule {
            _ if is("allkeys") || rule == b"~*" => {
                self.all_keys = true;
                self.keys.clear();
            }
            _ if is("resetkeys") => {
                self.all_keys = false;
                self.keys.clear();
            }
            _ if is("allchannels") || rule == b"&*" => {
                self.all_channels = true;
                self.channels.clear();
            }
            _ if is("resetchannels") => {
                self.all_channels = false;
                self.channels.clear();
            }
            _ if is("allcommands") || is("+@all") => self.set_all(true, catalog),
            _ if is("nocommands") || is("-@all") => self.set_all(false, catalog),
            [b'~', pattern @ ..] => self.add_keys(KeyAccess::READ_WRITE, pattern)?,
            [b'%', rest @ ..] => {
                let (access, pattern) = key_access(rest).ok_or(match self.all_keys {
                    true => RuleError::KeysAreAll,
                    false => RuleError::Syntax,
                })?;
                self.add_keys(access, pattern)?;
            }
            [b'&', pattern @ ..] => self.add_channel(pattern)?,
            [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                let bit = category(text(name)?).ok_or(RuleError::Unknown)?;
                for id in catalog.in_category(bit) {
                    self.set(id, *sign == b'+');
                    self.first_arguments.retain(|(command, _)| *command != id);
                }
                self.note(text(rule)?);
            }
            [sign @ (b'+' | b'-'), name @ ..] => self.set_command(*sign == b'+', text(name)?, catalog)?,
            _ => return Err(RuleError::Syntax),
        }
        Ok(())
    }

    fn set_all(&mut self, allowed: bool, catalog: &Catalog) {
        self.all_commands = allowed;
        self.command_rules.clear();
        self.first_arguments.clear();
        for id in catalog.ids() {
            self.set(id, allowed);
        }
    }

    fn set_command(&mut self, allowed: bool, name: &str, catalog: &Catalog) -> Result<(), RuleError> {
        let sign = if allowed { '+' } else { '-' };
        if let Some(id) = catalog.find(name) {
            for id in catalog.family(id) {
                self.set(id, allowed);
                self.first_arguments.retain(|(command, _)| *command != id);
            }
            self.note(&format!("{sign}{}", name.to_ascii_lowercase()));
            return Ok(());
        }
        // A command without subcommands may be allowed with one first argument only.
        let (command, argument) = name.split_once('|').ok_or(RuleError::Unknown)?;
        let id =
            catalog.find(command).filter(|&id| !catalog.has_subcommands(id)).ok_or(RuleError::Unknown)?;
        if !allowed {
            return Err(RuleError::Unknown);
        }
        if argument.is_empty() {
            return Err(RuleError::Syntax);
        }
        self.first_arguments.push((id, argument.to_ascii_lowercase()));
        self.note(&format!("+{}", name.to_ascii_lowercase()));
        Ok(())
    }

    /// Notes a rule about commands in place of those it makes void.
    fn note(&mut self, rule: &str) {
        let rule = rule.to_ascii_lowercase();
        let name = &rule[1..];
        self.command_rules.retain(|known| {
            let known = &known[1..];
            known != name && !known.strip_prefix(name).is_some_and(|rest| rest.starts_with('|'))
        });
        self.command_rules.push(rule);
    }

    fn set(&mut self, id: CommandId, allowed: bool) {
        let (word, bit) = (usize::from(id.0 / 64), 1u64 << (id.0 % 64));
        if self.allowed.len() <= word {
            self.allowed.resize(word + 1, 0);
        }
        match allowed {
            true => self.allowed[word] |= bit,
            false => self.allowed[word] &= !bit,
        }
        while self.allowed.last() == Some(&0) {
            self.allowed.pop();
        }
    }

    fn has(&self, id: CommandId) -> bool {
        self.allowed.get(usize::from(id.0 / 64)).is_some_and(|word| word >> (id.0 % 64) & 1 == 1)
    }

    fn add_keys(&mut self, access: KeyAccess, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::KeysAreAll);
        }
        checked(pattern)?;
        match self.keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => known.access.0 |= access.0,
            None => self.keys.push(KeyPattern { access, pattern: Bytes::copy_from_slice(pattern) }),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::ChannelsAreAll);
        }
        checked(pattern)?;
        if !self.channels.iter().any(|known| *known == *pattern) {
            self.channels.push(Bytes::copy_from_slice(pattern));
        }
        Ok(())
    }

    /// Whether a request is allowed.
    ///
    /// # Errors
    /// What of it is not.
    pub(super) fn check(&self, asked: &Asked<'_>, catalog: &Catalog) -> Result<(), Denied> {
        let command = asked.command;
        let by_argument = || {
            let given = asked.first_argument.unwrap_or_default();
            let mut known = self.first_arguments.iter().filter(|(id, _)| *id == command);
            known.any(|(_, argument)| given.eq_ignore_ascii_case(argument.as_bytes()))
        };
        if !self.has(command) && !catalog.is_free(command) && !by_argument() {
            return Err(Denied::Command);
        }
        if self.all_keys {
            return Ok(());
        }
        match asked.keys.iter().position(|(key, access)| !self.allows_key(key, *access)) {
            Some(place) => Err(Denied::Key(place)),
            None => Ok(()),
        }
    }

    /// Whether a key may be used in that way.
    pub(super) fn allows_key(&self, key: &[u8], access: KeyAccess) -> bool {
        self.all_keys
            || self
                .keys
                .iter()
                .any(|known| known.access.includes(access) && glob::matches(&known.pattern, key))
    }

    /// The rules about commands, as they are shown.
    pub fn command_rules(&self) -> String {
        let base = if self.all_commands { "+@all" } else { "-@all" };
        self.command_rules.iter().fold(base.to_owned(), |all, rule| all + " " + rule)
    }

    /// The key patterns, as they are shown.
    pub fn key_rules(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let shown = self.keys.iter().map(|KeyPattern { access, pattern }| {
            let sign: &[u8] = match *access {
                KeyAccess::READ => b"%R~",
                KeyAccess::WRITE => b"%W~",
                _ => b"~",
            };
            [sign, pattern].concat()
        });
        shown.collect::<Vec<_>>().join(&b' ')
    }

    /// The channel patterns, as they are shown. There are no channels here: they are kept for Redis's tools.
    pub fn channel_rules(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        self.channels.iter().map(|pattern| [b"&", &pattern[..]].concat()).collect::<Vec<_>>().join(&b' ')
    }

    /// All rules in one line.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut parts = vec![self.key_rules()];
        if !self.all_channels {
            parts.push(b"resetchannels".to_vec());
        }
        parts.push(self.channel_rules());
        parts.push(self.command_rules().into_bytes());
        parts.retain(|part| !part.is_empty());
        parts.join(&b' ')
    }
}

/// `R~...`, `W~...`, `RW~...`.
fn key_access(rest: &[u8]) -> Option<(KeyAccess, &[u8])> {
    let at = rest.iter().position(|&byte| byte == b'~')?;
    let (letters, pattern) = (&rest[..at], &rest[at + 1..]);
    let mut access = 0;
    for letter in letters {
        access |= match letter.to_ascii_uppercase() {
            b'R' => KeyAccess::READ.0,
            b'W' => KeyAccess::WRITE.0,
            _ => return None,
        };
    }
    (access != 0).then_some((KeyAccess(access), pattern))
}

/// Refuses patterns that could not be written in a line.
fn checked(pattern: &[u8]) -> Result<(), RuleError> {
    match pattern.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        true => Err(RuleError::Syntax),
        false => Ok(()),
    }
}
