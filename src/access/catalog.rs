//! The commands there are, as rules speak of them: names, subcommands and categories. What they do is not known here.

use std::collections::HashMap;

/// The categories, in the order of ACL CAT: those of Redis, and ours.
pub const CATEGORIES: [&str; 23] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
    "vector",
    "embedding",
];

/// A command or a subcommand, by its place in the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandId(pub(super) u16);

/// What rules need to know of a command or a subcommand.
#[derive(Debug)]
pub struct Entry {
    /// `client` or `client|id`, lower case.
    pub name: String,
    /// The name as replies show it.
    pub shown: String,
    /// Bit i: category i of [`CATEGORIES`].
    categories: u32,
    /// Whether it may always be sent, as AUTH.
    always: bool,
    /// Its subcommands: the entries up to this one follow it.
    last_child: u16,
}

/// A command to be put into the catalog.
pub struct Listed<'a> {
    /// Lower case.
    pub name: &'a str,
    /// The name as replies show it.
    pub shown: String,
    /// Whether it may always be sent.
    pub always: bool,
    /// Its categories.
    pub categories: Vec<&'a str>,
    /// Names of its subcommands, with their categories.
    pub subcommands: Vec<(&'a str, Vec<&'a str>)>,
}

/// All commands and subcommands.
#[derive(Debug)]
pub struct Catalog {
    entries: Vec<Entry>,
    by_name: HashMap<String, CommandId>,
}

/// The bit of a category.
pub(super) fn category(name: &str) -> Option<u32> {
    CATEGORIES.iter().position(|one| one.eq_ignore_ascii_case(name)).map(|at| 1 << at)
}

fn mask(categories: &[&str]) -> u32 {
    categories.iter().filter_map(|name| category(name)).fold(0, |mask, bit| mask | bit)
}

fn place(index: usize) -> u16 {
    u16::try_from(index).unwrap_or_else(|_| unreachable!("there are a few hundred commands"))
}

impl Catalog {
    /// A catalog of these commands.
    pub fn new<'a>(commands: impl Iterator<Item = Listed<'a>>) -> Self {
        let mut entries = Vec::new();
        for Listed { name, shown, always, categories, subcommands } in commands {
            let last_child = place(entries.len() + subcommands.len());
            let entry = Entry {
                name: name.to_owned(),
                shown: shown.clone(),
                categories: mask(&categories),
                always,
                last_child,
            };
            entries.push(entry);
            for (subcommand, categories) in subcommands {
                entries.push(Entry {
                    name: format!("{name}|{subcommand}"),
                    shown: format!("{shown}|{subcommand}"),
                    categories: mask(&categories),
                    always,
                    last_child: place(entries.len()),
                });
            }
        }
        let by_name =
            entries.iter().enumerate().map(|(at, entry)| (entry.name.clone(), CommandId(place(at))));
        Self { by_name: by_name.collect(), entries }
    }

    /// A command (`client`) or subcommand (`client|id`), in any case.
    pub fn find(&self, name: &str) -> Option<CommandId> {
        self.by_name.get(&name.to_ascii_lowercase()).copied()
    }

    /// What is known of a command.
    pub fn entry(&self, id: CommandId) -> &Entry {
        &self.entries[usize::from(id.0)]
    }

    /// Whether a command may always be sent.
    pub(super) fn is_free(&self, id: CommandId) -> bool {
        self.entry(id).always
    }

    /// Whether a command has subcommands.
    pub(super) fn has_subcommands(&self, id: CommandId) -> bool {
        self.entry(id).last_child > id.0
    }

    /// A command and its subcommands.
    pub(super) fn family(&self, id: CommandId) -> impl Iterator<Item = CommandId> + use<> {
        (id.0..=self.entry(id).last_child).map(CommandId)
    }

    /// All commands and subcommands.
    pub(super) fn ids(&self) -> impl Iterator<Item = CommandId> + use<> {
        (0..place(self.entries.len())).map(CommandId)
    }

    /// The commands and subcommands of a category, by its bit.
    pub(super) fn in_category(&self, bit: u32) -> impl Iterator<Item = CommandId> {
        self.ids().filter(move |&id| self.entry(id).categories & bit != 0)
    }

    /// Names of the commands of a category as ACL CAT shows them; `None` if there is no such category.
    pub fn names_in(&self, name: &str) -> Option<Vec<&str>> {
        let bit = category(name)?;
        Some(self.in_category(bit).map(|id| self.entry(id).shown.as_str()).collect())
    }
}
