//! `vecdis commands`: the reference of all commands, from the command table.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::arguments::{Arguments, Subcommand};
use super::{CliError, print};
use crate::command::table::{COMMANDS, CommandSpec, Group};

pub(super) const SUBCOMMAND: Subcommand = Subcommand {
    name: "commands",
    words: &[],
    values: &[],
    optional: &[],
    flags: &[],
    summary: "print the reference of all commands, in Markdown",
    text: "It is what COMMAND DOCS and the hints of redis-cli are made from.\n",
    failure_code: 1,
    run,
};

fn run(_: &Arguments) -> Result<ExitCode, CliError> {
    print(&reference())
}

fn reference() -> String {
    let mut text = "# Commands

Made by `vecdis commands` from the command table, which also feeds COMMAND DOCS and redis-cli's hints. Words in capitals are typed
as they are, `[...]` is optional, `(a | b)` a choice, `...` repeats what is before it.
"
    .to_owned();
    let mut groups: Vec<Group> = Vec::new();
    for spec in COMMANDS.iter().filter(|spec| spec.group == Group::VectorSet).chain(COMMANDS) {
        if !groups.contains(&spec.group) {
            groups.push(spec.group);
        }
    }
    for group in groups {
        let _ = write!(text, "\n## Group {}\n", group.name());
        COMMANDS.iter().filter(|spec| spec.group == group).for_each(|spec| entry(spec, &mut text));
    }
    text
}

fn entry(spec: &CommandSpec, text: &mut String) {
    let name = spec.name.to_uppercase();
    let call = [name.as_str(), spec.syntax].join(" ");
    let categories: Vec<String> = spec.acl_categories().map(|category| format!("@{category}")).collect();
    let _ = write!(
        text,
        "\n### {name}\n\n```\n{}\n```\n\n{} Time: {}. ACL: {}.\n",
        call.trim_end(),
        spec.summary,
        spec.complexity,
        categories.join(" ")
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_reference() {
        let page = include_str!("../../docs/commands.md");
        assert!(page == reference(), "make it anew: cargo run --release -- commands > docs/commands.md");
    }

    #[test]
    fn the_reference_has_every_command_once() {
        let text = reference();
        for spec in COMMANDS {
            let title = format!("\n### {}\n", spec.name.to_uppercase());
            assert_eq!(text.matches(&title).count(), 1, "{}", spec.name);
        }
    }
}
