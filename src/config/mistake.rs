//! What is wrong in a configuration file: all of it at once, each with its line and a caret.
//!
//! The trap: the lines that are shown may hold passwords. So a value that could be one is blanked by the
//! look of its line, because after a syntax error or a misspelt key the parser cannot tell; and the value
//! of a key that is not known is never shown.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::secret::without_passwords;

/// One mistake, placed in the file by bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) span: Option<Range<usize>>,
    pub(super) text: String,
    pub(super) about: About,
}

/// What a mistake is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum About {
    /// What stands at its place.
    Place,
    /// A key that should not be there: its line is shown up to the `=` only.
    UnknownKey,
    /// Something that should be there: after a syntax error it may be.
    Missing,
}

/// One mistake, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedMistake {
    /// The line, from 1. Absent for what is wrong with the file as a whole.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong, and what would be right.
    pub text: String,
    /// The line with a caret below, secrets blanked.
    pub excerpt: Option<String>,
}

/// All mistakes of one file, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub list: Vec<PlacedMistake>,
}

impl Mistakes {
    pub(super) fn place(path: &Path, source: &str, mut mistakes: Vec<Mistake>) -> Mistakes {
        mistakes.sort_by_key(|mistake| mistake.span.as_ref().map_or(0, |span| span.start));
        Mistakes {
            path: path.to_owned(),
            list: mistakes
                .into_iter()
                .map(|mistake| place(source, mistake))
                .collect(),
        }
    }

    /// Each mistake as `path:line:column: text` and its excerpt.
    pub fn texts(&self) -> impl Iterator<Item = String> + '_ {
        let path = self.path.display();
        self.list.iter().map(move |mistake| {
            let place = match (mistake.line, mistake.column) {
                (Some(line), Some(column)) => format!("{path}:{line}:{column}"),
                _ => path.to_string(),
            };
            match &mistake.excerpt {
                Some(excerpt) => format!("{place}: {}\n{excerpt}", mistake.text),
                None => format!("{place}: {}", mistake.text),
            }
        })
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.len() {
            1 => write!(
                f,
                "there is a mistake in the configuration {}",
                self.path.display()
            ),
            count => write!(
                f,
                "there are {count} mistakes in the configuration {}",
                self.path.display()
            ),
        }
    }
}

/// The number of the line, from 1, that holds the byte at `offset`.
pub(super) fn line_of(source: &str, offset: usize) -> usize {
    let before = &source.as_bytes()[..offset.min(source.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn place(source: &str, mistake: Mistake) -> PlacedMistake {
    let Some(span) = mistake.span else {
        return PlacedMistake {
            line: None,
            column: None,
            text: mistake.text,
            excerpt: None,
        };
    };
    let mut start = span.start.min(source.len());
    while !source.is_char_boundary(start) {
        start -= 1;
    }
    let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = source[start..]
        .find('\n')
        .map_or(source.len(), |at| start + at);
    let line = source[line_start..line_end].trim_end_matches('\r');
    let number = line_of(source, start);
    let column = source[line_start..start].chars().count() + 1;

    let shown = if inside_long_secret(&source[..line_start]) {
        "…".to_owned()
    } else if inside_recipients(&source[..line_start]) {
        only_public_keys(line)
    } else {
        blank(
            line,
            (mistake.about == About::UnknownKey).then_some(start - line_start),
        )
    };
    // The part of the line that is shown as it is decides where the caret may stand.
    let same = line
        .chars()
        .zip(shown.chars())
        .take_while(|(left, right)| left == right)
        .count();
    let blanked = line != shown;
    let caret_at = if blanked {
        (column - 1).min(same)
    } else {
        column - 1
    };
    let length = source
        .get(start..span.end.clamp(start, line_end))
        .map_or(1, |text| text.chars().count());
    let room = shown.chars().count().saturating_sub(caret_at);
    let margin = number.to_string();
    let pad = " ".repeat(margin.len());
    // Tabs stay tabs, so that the caret stands below what it means.
    let lead: String = shown
        .chars()
        .take(caret_at)
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    let carets = "^".repeat(length.min(room).max(1));
    PlacedMistake {
        line: Some(number),
        column: Some(column),
        text: mistake.text,
        excerpt: Some(format!(
            "{pad} |\n{margin} | {shown}\n{pad} | {lead}{carets}"
        )),
    }
}

/// Whether a key looks as if its value were a secret, misspelt ones too. `…_file` names a file, no secret.
fn looks_secret(key: &str) -> bool {
    let key = key.trim_matches(|c: char| !c.is_alphanumeric());
    let key = key.rsplit('.').next().unwrap_or(key).to_ascii_lowercase();
    let key = key.trim_matches(|c: char| !c.is_alphanumeric());
    if key.ends_with("_file") || key == "passphrase_file" {
        return false;
    }
    ["pass", "secret", "token", "pwd", "credential"]
        .iter()
        .any(|word| key.contains(word))
        || ["password", "passphrase", "secret", "identity"]
            .iter()
            .any(|word| strsim::jaro_winkler(key, word) > 0.8)
}

/// The line without what may be a secret in it. `unknown` is where a key that is not known begins: what
/// it holds is hidden.
fn blank(line: &str, unknown: Option<usize>) -> String {
    // A secret key of age shows what it is, wherever it was pasted; what follows it goes, too.
    let upper = line.to_ascii_uppercase();
    let line = match upper.find("AGE-SECRET-KEY-") {
        Some(at) => &format!("{}…", &line[..at]),
        None => line,
    };
    let mut from = 0;
    while let Some(at) = line[from..].find('=') {
        let equals = from + at;
        let key_start = line[..equals]
            .rfind(['{', ',', '='])
            .map_or(0, |before| before + 1);
        let hidden = unknown.is_some_and(|start| start < equals);
        let key = line[key_start..equals].trim();
        if hidden || looks_secret(key) || is_odd_url(key, &line[equals + 1..]) {
            return format!("{}= …", blank_urls(&line[..equals]));
        }
        if is_recipients(key) {
            let (before, after) = line.split_at(equals + 1);
            return format!("{}{}", blank_urls(before), only_public_keys(after));
        }
        from = equals + 1;
    }
    blank_urls(line)
}

/// Whether a key is `recipients`, or meant to be: a passphrase or a private key may have been put there.
fn is_recipients(key: &str) -> bool {
    let key = key.rsplit('.').next().unwrap_or(key);
    let key = key.trim_matches(|c: char| !c.is_alphanumeric());
    strsim::jaro_winkler(&key.to_ascii_lowercase(), "recipients") > 0.8
}

/// Whether the text ends within the list of `recipients`.
fn inside_recipients(before: &str) -> bool {
    // What comes last of all that reads `key = …`; a `=` within quotation marks is none.
    let lines = before.lines().rev();
    let mut within = String::new();
    for line in lines {
        if let Some((key, value)) = line.split_once('=')
            && (!key.contains(['"', '\'']) || key.trim().ends_with(['"', '\'']))
        {
            let key = key.rsplit(['{', ',']).next().unwrap_or(key);
            return is_recipients(key.trim())
                && value.contains('[')
                && !value.contains(']')
                && !within.contains(']');
        }
        within.push_str(line);
    }
    false
}

/// A list of public keys with everything else in it blanked.
fn only_public_keys(list: &str) -> String {
    let mut shown = String::new();
    for word in list.split_inclusive(|c: char| c.is_whitespace() || "[],\"'".contains(c)) {
        let text = word.trim_end_matches(|c: char| c.is_whitespace() || "[],\"'".contains(c));
        match text.is_empty() || text.to_ascii_lowercase().starts_with("age1") {
            true => shown.push_str(word),
            false => {
                shown.push('…');
                shown.push_str(&word[text.len()..]);
            }
        }
    }
    shown
}

/// Whether the value of a key for URLs has no scheme of ours: nobody can tell where its secret begins.
fn is_odd_url(key: &str, value: &str) -> bool {
    let key = key.trim_matches(|c: char| !c.is_alphanumeric());
    let value = value.trim_start().trim_start_matches(['"', '\'']);
    key.to_ascii_lowercase().ends_with("url")
        && !["redis", "unix:", "http://", "https://"]
            .iter()
            .any(|scheme| value.starts_with(scheme))
}

/// Blanks what follows the host of http(s) URLs: the path of a webhook is its token.
fn blank_paths(line: &str) -> String {
    let mut shown = String::new();
    let mut rest = line;
    loop {
        let found = ["http://", "https://"]
            .iter()
            .filter_map(|scheme| Some((rest.find(scheme)?, scheme.len())))
            .min();
        let Some((at, scheme)) = found else {
            shown.push_str(rest);
            return shown;
        };
        let host = at + scheme;
        let end = |c: char| matches!(c, '/' | '?' | '#' | '"' | '\'' | '\\') || c.is_whitespace();
        let Some(path) = rest[host..].find(end).map(|end| host + end) else {
            shown.push_str(rest);
            return shown;
        };
        shown.push_str(&rest[..path]);
        let quote = rest[..at].chars().rev().find(|c| matches!(c, '"' | '\''));
        let closing = quote.and_then(|quote| {
            let after = &rest[path..];
            // With a quotation mark too many nobody can tell where it ends.
            let even = after.matches(quote).count() % 2 == 1;
            Some(path + after.find(quote).filter(|_| even)?)
        });
        let closing = closing.unwrap_or(rest.len());
        if closing > path {
            shown.push('…');
        }
        rest = &rest[closing..];
    }
}

/// Blanks the passwords of URLs, and what comes of a URL that is not closed: it may be a password that is
/// cut before its `@`.
fn blank_urls(line: &str) -> String {
    let shown = blank_paths(&without_passwords(line));
    let Some(at) = shown.find("://") else {
        return shown;
    };
    let (before, after) = shown.split_at(at + 3);
    let quote = before.chars().rev().find(|c| matches!(c, '"' | '\''));
    match quote {
        Some(quote) if after.contains(quote) => shown,
        _ if after.contains('@') => shown,
        _ => format!("{before}…"),
    }
}

/// Whether the text ends within a multi-line string of a key that looks secret.
fn inside_long_secret(before: &str) -> bool {
    for quotes in ["\"\"\"", "'''"] {
        if before.matches(quotes).count() % 2 == 1 {
            let opened = before.rfind(quotes).unwrap_or(0);
            let line = before[..opened].rfind('\n').map_or(0, |at| at + 1);
            let key = before[line..opened].split('=').next().unwrap_or("");
            // What is neither key nor value on its line is not understood: hide it.
            return key.trim().is_empty() || looks_secret(key.trim()) || key.contains("url");
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str, at: &str, about: About) -> String {
        let start = source.find(at).unwrap_or(0);
        let mistake = Mistake {
            span: Some(start..start + at.len()),
            text: "wrong".to_owned(),
            about,
        };
        let mistakes = Mistakes::place(Path::new("x.toml"), source, vec![mistake]);
        mistakes.texts().collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_mistake_shows_its_line_and_a_caret() {
        let text = shown(
            "a = 1\nmethod = \"bgsafe\" # x\nb = 2\n",
            "\"bgsafe\"",
            About::Place,
        );
        assert_eq!(
            text,
            "x.toml:2:10: wrong\n  |\n2 | method = \"bgsafe\" # x\n  |          ^^^^^^^^"
        );
    }

    #[test]
    fn a_line_is_shown_without_its_secret() {
        for source in [
            "password = \"hunter2\"",
            "password = hunter2",
            "  \"password\"='hunter2'",
            "pasword = \"hunter2\"",
            "passwd = \"hunter2",
            "defaults.password = \"hunter2\"",
            "database = [{ name = \"a\", password = \"hunter2\" }]",
            "url = \"redis://:hunter2@localhost\"",
            "url = \"redis://user:hunter2@localhost",
            "url = \"redis://:x@y/hunter2@localhost\"",
            "url = \"redis://:hunter2",
            "url = \"redis://:'hunter2",
            "url = \"redis://:x'hunter2@localhost\"",
            "auth = { secret = \"hunter2\" }",
            "notify = { url = \"https://hooks.example.com/hunter2\" }",
            "notify = { url = \"http://h/a?b=hunter2\", style = \"x\" }",
            "notify.url = 'https://h?hunter2'",
            "url = \"https://h/a\"hunter2\"",
            "url = \"https://h/hunter2",
            "url = https://h/hunter2",
            "url = \"https://u@h/hunter2\"",
            "url = \"hooks.example.com/hunter2\"",
            "url = \"htps://hooks.example.com/hunter2\"",
            "notify = { style = 1, url = \"hooks.example.com/hunter2\" }",
            "webhook = \"https://h/hunter2\"",
            "notify = { url = \"\"\"https://h/hunter2\"\"\" }",
            "password = \"\"\"\nhunter2\n\"\"\"",
            "identity = \"hunter2\"",
            "identiy = \"hunter2\"",
            "identity = \"\"\"\nhunter2\n\"\"\"",
            "recipients = [\"age1x\", \"AGE-SECRET-KEY-1hunter2\"]",
            "recipients = [\n\"age-secret-key-1hunter2\"]",
            "recipients = [\"age1x\", \"hunter2\"]",
            "recipients = [hunter2]",
            "recipients = \"correct hunter2\"",
            "recipients = [\n  \"age1x\",\n  \"hunter2=\",\n]",
            "recipients = [\n  \"x=\",\n  \"hunter2\",\n]",
            "defaults = { recipients = [\"hunter2\"] }",
        ] {
            let text = shown(source, "hunter2", About::Place);
            assert!(!text.contains("hunter"), "{source}: {text}");
        }
        let text = shown("anything = \"hunter2\"", "anything", About::UnknownKey);
        assert!(text.contains("anything = …"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        // What is no secret is shown.
        let text = shown("recipients = [\"age1x\", \"y\"]", "\"y\"", About::Place);
        assert!(text.contains("recipients = [\"age1x\", \"…\"]"), "{text}");
        let text = shown("recipients = [\n\"age1x\"]\nmethod = 1", "1", About::Place);
        assert!(text.contains("age1x") || text.contains("method"), "{text}");
        let text = shown("password_file = \"x\" y", "x", About::Place);
        assert!(text.contains("password_file = \"x\" y"), "{text}");
        let line = "notify = { url = \"https://h.example:8/x?y#z\", style = \"jsn\" }";
        let text = shown(line, "\"jsn\"", About::Place);
        let kept = "notify = { url = \"https://h.example:8…\", style = \"jsn\" }";
        assert!(text.contains(kept), "{text}");
        let text = shown("url = \"redis://localhost:6379/x\"", "redis", About::Place);
        assert!(text.contains("redis://localhost:6379/x"), "{text}");
    }

    #[test]
    fn a_caret_stands_right_behind_wide_and_odd_characters() {
        let text = shown("\tä = \"x\"", "\"x\"", About::Place);
        assert!(text.ends_with("| \t    ^^^"), "{text}");
        // At the very end of the file.
        let text = shown("a", "", About::Place);
        assert!(text.contains('^'));
        let text = shown("", "", About::Place);
        assert!(text.contains('^'));
    }
}
