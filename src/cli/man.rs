//! What the program prints of itself: the manual page and completion scripts.
//!
//! `man` prints one page, rdbkeeper(1), with every command in it: people look there, not into a page a command.

use clap::{Command, CommandFactory as _};

use super::args::Cli;

/// The manual page, in roff.
pub fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = String::new();
    page.push_str(&format!(
        ".TH RDBKEEPER 1 \"\" \"rdbkeeper {}\" \"\"\n",
        env!("CARGO_PKG_VERSION")
    ));
    page.push_str(".SH NAME\n");
    let about = root.get_about().map(ToString::to_string);
    let about = about.unwrap_or_default();
    page.push_str(&format!(
        "rdbkeeper \\- {}\n",
        escaped(about.trim_end_matches('.'))
    ));
    page.push_str(".SH SYNOPSIS\n.B rdbkeeper\n[\\fIGLOBAL OPTIONS\\fR] \\fICOMMAND\\fR …\n");
    page.push_str(".SH DESCRIPTION\n");
    let long = root.get_long_about().map(ToString::to_string);
    paragraphs(&mut page, &long.unwrap_or(about));
    page.push_str(".SH \"GLOBAL OPTIONS\"\n");
    arguments(&mut page, &root, true);
    page.push_str(".SH COMMANDS\n");
    commands(&mut page, &root, "rdbkeeper");
    page.push_str(".SH \"EXIT CODES AND EXAMPLES\"\n");
    after_help(&mut page, &root);
    page.push_str(".SH FILES\n.TP\n\\&./rdbkeeper.toml, /etc/rdbkeeper/rdbkeeper.toml\nThe configuration, unless \\fB\\-\\-config\\fR or \\fI$RDBKEEPER_CONFIG\\fR names another.\n");
    page
}

/// The completion script of a shell.
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "rdbkeeper", &mut script);
    script
}

fn commands(page: &mut String, parent: &Command, path: &str) {
    for command in parent.get_subcommands() {
        let path = format!("{path} {}", command.get_name());
        if command.has_subcommands() {
            commands(page, command, &path);
            continue;
        }
        let usage = command.clone().render_usage().to_string();
        let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage).to_owned();
        page.push_str(&format!(".SS \"{}\"\n", escaped(&path)));
        page.push_str(&format!(".nf\n{}\n.fi\n.PP\n", escaped(&usage)));
        let about = command.get_long_about().or(command.get_about());
        paragraphs(page, &about.map(ToString::to_string).unwrap_or_default());
        arguments(page, command, false);
        after_help(page, command);
    }
}

/// The arguments of a command; those that hold for every command only where `global` says so.
fn arguments(page: &mut String, command: &Command, global: bool) {
    let all = command.get_arguments().filter(|arg| {
        !arg.is_hide_set() && (global || !arg.is_global_set()) && (global || arg.get_id() != "help")
    });
    for arg in all {
        let values: Vec<&str> = arg
            .get_value_names()
            .unwrap_or_default()
            .iter()
            .map(|name| name.as_str())
            .collect();
        let takes = arg.get_action().takes_values();
        let mut names = Vec::new();
        if let Some(short) = arg.get_short() {
            names.push(format!("\\fB\\-{short}\\fR"));
        }
        if let Some(long) = arg.get_long() {
            names.push(format!("\\fB{}\\fR", escaped(&format!("--{long}"))));
        }
        let mut title = names.join(", ");
        if takes {
            let values = format!("\\fI{}\\fR", escaped(&values.join(" ")));
            title = [title, values].join(" ").trim_start().to_owned();
        }
        page.push_str(&format!(".TP\n{title}\n"));
        let help = arg.get_long_help().or(arg.get_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let mut parts = help.split("\n\n");
        page.push_str(&format!("{}\n", escaped(parts.next().unwrap_or("").trim())));
        for part in parts {
            page.push_str(&format!(".IP\n.nf\n{}\n.fi\n", escaped(part)));
        }
        if !takes {
            continue;
        }
        let choices: Vec<String> = arg
            .get_possible_values()
            .iter()
            .map(|value| match value.get_help() {
                Some(help) => format!(
                    "\\fB{}\\fR: {}",
                    value.get_name(),
                    escaped(&help.to_string())
                ),
                None => format!("\\fB{}\\fR", value.get_name()),
            })
            .collect();
        if !choices.is_empty() {
            page.push_str(&format!(".IP\nOne of {}.\n", choices.join("; ")));
        }
        let defaults = arg.get_default_values();
        if !defaults.is_empty() && !arg.is_hide_default_value_set() {
            let shown: Vec<String> = defaults
                .iter()
                .map(|value| value.to_string_lossy().into_owned())
                .collect();
            page.push_str(&format!(".IP\nDefault: {}.\n", escaped(&shown.join(" "))));
        }
    }
}

fn after_help(page: &mut String, command: &Command) {
    if let Some(text) = command.get_after_help() {
        page.push_str(&format!(".PP\n.nf\n{}\n.fi\n", escaped(&text.to_string())));
    }
}

fn paragraphs(page: &mut String, text: &str) {
    for paragraph in text.split("\n\n").filter(|part| !part.is_empty()) {
        page.push_str(&format!("{}\n.PP\n", escaped(paragraph)));
    }
}

/// The text so that roff takes none of it for its own.
fn escaped(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    let lines: Vec<String> = escaped
        .lines()
        .map(|line| match line.starts_with(['.', '\'']) {
            true => format!("\\&{line}"),
            false => line.to_owned(),
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_every_command_and_flag() {
        fn walk(command: &Command, page: &str) {
            for arg in command.get_arguments() {
                if let Some(long) = arg.get_long() {
                    let flag = escaped(&format!("--{long}"));
                    assert!(page.contains(&flag), "{flag}");
                }
            }
            for command in command.get_subcommands() {
                assert!(page.contains(command.get_name()));
                walk(command, page);
            }
        }
        let page = page();
        walk(&Cli::command(), &page);
        assert!(page.starts_with(".TH RDBKEEPER 1"));
        assert!(page.contains(".SS \"rdbkeeper backup now\""));
        assert!(page.contains(".SS \"rdbkeeper restore\""));
    }

    #[test]
    fn there_is_a_script_for_every_shell() {
        use clap::ValueEnum as _;
        for shell in clap_complete::Shell::value_variants() {
            let script = String::from_utf8(completions(*shell)).unwrap();
            assert!(script.contains("rdbkeeper"), "{shell}");
            assert!(script.contains("verify"), "{shell}");
        }
    }
}
