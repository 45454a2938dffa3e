//! `hooks` and `notify`: what is run, and who is told, when a job begins and ends.

use std::fmt;
use std::str::FromStr;

use toml::Spanned;
use toml::de::DeValue;

use super::choices::ChoiceError;
use super::reader::{Located, TableReader};
use super::secrets::SecretSource;

/// Commands, each a program and its arguments; no shell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Before a backup. One that fails stops it.
    pub before: Vec<Vec<String>>,
    /// After a backup that was made.
    pub after: Vec<Vec<String>>,
    /// After one that failed.
    pub failure: Vec<Vec<String>>,
}

impl Hooks {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.before.is_empty() && self.after.is_empty() && self.failure.is_empty()
    }
}

/// Who is told, of what, in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    /// Where a notice is posted. It may hold a token.
    pub url: SecretSource,
    /// The form.
    pub style: NotifyStyle,
    /// What is told; in no order, each once.
    pub on: Vec<NotifyOn>,
}

/// The form of a notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotifyStyle {
    /// A JSON document is posted to the URL.
    #[default]
    Json,
    /// As healthchecks.io has it: the URL itself after a success, `/start` before, `/fail` after a failure.
    Healthchecks,
}

impl NotifyStyle {
    /// What is told when `on` is absent. A healthcheck that hears of no success rings.
    pub fn default_on(self) -> Vec<NotifyOn> {
        let usual = [NotifyOn::Failure, NotifyOn::Recovery, NotifyOn::Shrink];
        match self {
            NotifyStyle::Json => usual.to_vec(),
            NotifyStyle::Healthchecks => NotifyOn::ALL.to_vec(),
        }
    }
}

impl fmt::Display for NotifyStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NotifyStyle::Json => "json",
            NotifyStyle::Healthchecks => "healthchecks",
        })
    }
}

impl FromStr for NotifyStyle {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<NotifyStyle, ChoiceError> {
        match text {
            "json" => Ok(NotifyStyle::Json),
            "healthchecks" => Ok(NotifyStyle::Healthchecks),
            _ => Err(ChoiceError::OneOf {
                text: text.to_owned(),
                known: "a style of notices: write \"json\" or \"healthchecks\"",
            }),
        }
    }
}

/// What a notice tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotifyOn {
    /// A job failed.
    Failure,
    /// The first success after a failure.
    Recovery,
    /// A backup with far fewer keys than the one before.
    Shrink,
    /// Every success.
    Success,
}

impl NotifyOn {
    /// All of them, in the order in which they are documented.
    pub const ALL: [NotifyOn; 4] = [
        NotifyOn::Failure,
        NotifyOn::Recovery,
        NotifyOn::Shrink,
        NotifyOn::Success,
    ];

    /// The word in the configuration and in a notice.
    pub fn as_str(self) -> &'static str {
        match self {
            NotifyOn::Failure => "failure",
            NotifyOn::Recovery => "recovery",
            NotifyOn::Shrink => "shrink",
            NotifyOn::Success => "success",
        }
    }
}

impl FromStr for NotifyOn {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<NotifyOn, ChoiceError> {
        let found = NotifyOn::ALL.into_iter().find(|on| on.as_str() == text);
        found.ok_or_else(|| ChoiceError::OneOf {
            text: text.to_owned(),
            known: "something to be told of: write \"failure\", \"recovery\", \"shrink\" or \"success\"",
        })
    }
}

/// Reads `hooks`.
pub(super) fn read_hooks(reader: &TableReader<'_, '_>) -> Option<Hooks> {
    let table = reader.table("hooks", "a table: { before = [[\"cmd\", \"arg\"]] }")?;
    let inner = TableReader::new(reader.reading(), table, "`hooks`");
    let hooks = Hooks {
        before: read_commands(&inner, "before"),
        after: read_commands(&inner, "after"),
        failure: read_commands(&inner, "failure"),
    };
    inner.finish(&[]);
    Some(hooks)
}

fn read_commands(reader: &TableReader<'_, '_>, key: &'static str) -> Vec<Vec<String>> {
    let Some(value) = reader.raw(key) else {
        return Vec::new();
    };
    let reading = reader.reading();
    let wanted = || format!("`{key}` of `hooks` is a list of commands: [[\"cmd\", \"arg\"]]");
    let DeValue::Array(items) = value.get_ref() else {
        reading.mistake(value.span(), wanted());
        return Vec::new();
    };
    let mut commands = Vec::with_capacity(items.len());
    for item in items {
        match read_command(reader, key, item) {
            Some(command) => commands.push(command),
            None => reading.mistake(item.span(), wanted()),
        }
    }
    commands
}

/// One command: texts, at least the program. `None` when it is anything else.
fn read_command(
    reader: &TableReader<'_, '_>,
    key: &'static str,
    item: &Spanned<DeValue<'_>>,
) -> Option<Vec<String>> {
    let DeValue::Array(words) = item.get_ref() else {
        return None;
    };
    let words: Option<Vec<String>> = words
        .iter()
        .map(|word| {
            word.get_ref().as_str()?;
            Some(reader.expanded(key, word, "a command")?.value)
        })
        .collect();
    words.filter(|words| words.first().is_some_and(|program| !program.is_empty()))
}

/// Reads `notify`.
pub(super) fn read_notify(reader: &TableReader<'_, '_>) -> Option<Notify> {
    let table = reader.table("notify", "a table: { url = \"https://…\" }")?;
    let span = reader.key_span("notify")?;
    let reading = reader.reading();
    let inner = TableReader::new(reading, table, "`notify`");
    let given = inner.key_span("url").is_some() || inner.key_span("url_file").is_some();
    let url = super::fields::read_secret(&inner, "url", "url_file");
    if let Some(Located {
        value: SecretSource::Inline(text),
        span,
    }) = &url
        && !["https://", "http://"]
            .iter()
            .any(|scheme| text.expose().starts_with(scheme))
    {
        reading.mistake(
            span.clone(),
            "`url` of `notify` begins with https:// or http://",
        );
    }
    let style = inner.parsed("style").map(|found| found.value);
    let style: NotifyStyle = style.unwrap_or_default();
    let on = inner.strings("on").map(|list| {
        if list.value.is_empty() {
            reading.mistake(
                list.span,
                "`on` of `notify` is empty: nobody would be told of anything",
            );
        }
        let mut all = Vec::new();
        for item in list.value {
            match item.value.parse::<NotifyOn>() {
                Ok(on) if all.contains(&on) => reading.mistake(
                    item.span,
                    format!("`on` of `notify` names `{}` twice", on.as_str()),
                ),
                Ok(on) => all.push(on),
                Err(error) => reading.mistake(item.span, format!("`on` of `notify`: {error}")),
            }
        }
        all
    });
    inner.finish(&[]);
    if !given {
        reading.missing(Some(span), "`notify` has neither `url` nor `url_file`");
    }
    Some(Notify {
        url: url?.value,
        style,
        on: on.unwrap_or_else(|| style.default_on()),
    })
}
